/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of adoption: disks, and other files that QEMU reads.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/adopt_parse.h"

static struct gw_vm_disk *new_disk(struct gw_adopt_parser *p, const char *option)
{
    struct gw_vm_spec *spec = p->adopt->spec;

    if (!spec->disks)
        spec->disks = calloc(GW_VM_MAX_DISKS, sizeof *spec->disks);
    if (!spec->disks) {
        p->failed = true;
        return NULL;
    }
    if (spec->n_disks == GW_VM_MAX_DISKS) {
        gw_adopt_refuse(p, option, "more than %u disks and other files", GW_VM_MAX_DISKS);
        return NULL;
    }
    return &spec->disks[spec->n_disks];
}

static bool have_disk(const struct gw_vm_spec *spec, const struct gw_vm_disk *disk)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        const struct gw_vm_disk *other = &spec->disks[i];

        if ((disk->file && other->file && strcmp(disk->file, other->file) == 0) ||
            (disk->rbd && other->rbd && strcmp(disk->rbd, other->rbd) == 0))
            return true;
    }
    return false;
}

/* Counts *disk, or empties it if it is there already. */
static void take_disk(struct gw_adopt_parser *p, struct gw_vm_disk *disk, const char *option,
                      const char *format, bool readonly)
{
    gw_adopt_set(p, option, &disk->format, format);
    disk->readonly = readonly;
    if ((disk->file || disk->rbd) && disk->format && !have_disk(p->adopt->spec, disk)) {
        p->adopt->spec->n_disks++;
        return;
    }
    free(disk->file);
    free(disk->rbd);
    free(disk->format);
    *disk = (struct gw_vm_disk){0};
}

void gw_adopt_add_file(struct gw_adopt_parser *p, const char *option, const char *path,
                       const char *format, bool readonly)
{
    struct gw_vm_disk *disk = new_disk(p, option);

    if (gw_adopt_begins(path, "/dev/fd")) {
        gw_adopt_refuse(p, option, "%s: a file descriptor of this process", path);
        return;
    }
    if (!disk)
        return;
    gw_adopt_set(p, option, &disk->file, path);
    take_disk(p, disk, option, format, readonly);
}

/* name: "pool/image", maybe with "@snapshot" or ":options" behind it */
static void add_rbd(struct gw_adopt_parser *p, const char *option, const char *name,
                    const char *format, bool readonly)
{
    gw_autofree char *image = strndup(name, strcspn(name, ":@"));
    struct gw_vm_disk *disk = new_disk(p, option);

    if (!image)
        p->failed = true;
    if (!disk || !image)
        return;
    gw_adopt_set(p, option, &disk->rbd, image);
    take_disk(p, disk, option, format, readonly);
}

/* The image a legacy option names: a path, or "protocol:…". Returns what to write instead, the
 * caller's; NULL after a refusal, or when memory is short. */
static char *legacy_image(struct gw_adopt_parser *p, const char *option, const char *image,
                          const char *format, bool readonly)
{
    static const char *const over_network[] = {"http", "https", "ssh", "nfs", "nbd", "iscsi", NULL};
    size_t len = strcspn(image, ":/");
    gw_autofree char *protocol = image[len] == ':' ? strndup(image, len) : NULL;
    char *path;

    if (!protocol || strcmp(protocol, "file") == 0) {
        path =
            *image ? gw_adopt_absolute(p, option, protocol ? image + len + 1 : image) : strdup("");
        if (path && *path)
            gw_adopt_add_file(p, option, path, format, readonly);
        return path;
    }
    if (strcmp(protocol, "rbd") == 0)
        add_rbd(p, option, image + len + 1, format, readonly);
    else if (gw_adopt_among(protocol, over_network) && !gw_adopt_begins(image, "nbd:unix"))
        gw_adopt_remark(p, option, "%.100s: whether the other node reaches it is not checked",
                        image);
    else
        gw_adopt_refuse(p, option, "images of the kind '%.40s:' are not supported", protocol);
    return strdup(image);
}

void gw_adopt_disk_path(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    const char *what = *option ? option : "disk image";
    gw_autofree char *image = legacy_image(p, what, arg, "auto", strcmp(option, "-cdrom") == 0);

    if (!image)
        return;
    if (*option)
        gw_adopt_push(p, option);
    gw_adopt_push(p, image);
}

static const char *leaf_of(const char *key)
{
    const char *dot = strrchr(key, '.');

    return dot ? dot + 1 : key;
}

struct block_scan {
    const char *option;
    const char *format;
    bool is_drive;
    bool readonly;
    bool changed; /* some path was made absolute */
    bool has_file;
};

static void scan_block_path(struct gw_adopt_parser *p, struct block_scan *scan,
                            struct gw_optstr_item *item)
{
    char *path;

    if (scan->is_drive && strcmp(item->key, "file") == 0) {
        path = legacy_image(p, scan->option, item->value, scan->format, scan->readonly);
    } else {
        path = gw_adopt_absolute(p, scan->option, item->value);
        if (path)
            gw_adopt_add_file(p, scan->option, path, scan->format, scan->readonly);
    }
    scan->has_file = true;
    if (!path)
        return;
    scan->changed |= strcmp(path, item->value) != 0;
    free(item->value);
    item->value = path;
}

/* The rbd driver's members stand beside its "driver". */
static void scan_rbd(struct gw_adopt_parser *p, struct block_scan *scan,
                     const struct gw_optstr *opts, const char *driver_key)
{
    static const char *const parts[] = {"pool", "namespace", "image"};
    int prefix = (int)(leaf_of(driver_key) - driver_key);
    char key[128], name[256] = "";

    for (unsigned i = 0; i < GW_ARRAY_SIZE(parts); i++) {
        const char *value;

        snprintf(key, sizeof key, "%.*s%s", prefix, driver_key, parts[i]);
        value = gw_optstr_get(opts, key);
        if (value)
            snprintf(name + strlen(name), sizeof name - strlen(name), "%s%s", *name ? "/" : "",
                     value);
    }
    add_rbd(p, scan->option, name, scan->format, scan->readonly);
    scan->has_file = true;
}

static void scan_block_driver(struct gw_adopt_parser *p, struct block_scan *scan,
                              const struct gw_optstr *opts, const struct gw_optstr_item *item)
{
    static const char *const refused[] = {"nvme",
                                          "nvme-io_uring",
                                          "vvfat",
                                          "virtio-blk-vfio-pci",
                                          "virtio-blk-vhost-user",
                                          "virtio-blk-vhost-vdpa",
                                          "replication",
                                          "iscsi",
                                          NULL};

    if (gw_adopt_among(item->value, refused))
        gw_adopt_refuse(p, scan->option, "the driver '%s' uses something of this host",
                        item->value);
    else if (strcmp(item->value, "rbd") == 0)
        scan_rbd(p, scan, opts, item->key);
    else if (gw_adopt_begins(item->value, "null-") || strcmp(item->value, "nbd") == 0 ||
             strcmp(item->value, "ssh") == 0 || gw_adopt_begins(item->value, "http"))
        scan->has_file = true;
}

static void scan_block(struct gw_adopt_parser *p, struct block_scan *scan, struct gw_optstr *opts)
{
    for (size_t i = 0; i < opts->n_items; i++) {
        struct gw_optstr_item *item = &opts->items[i];
        const char *leaf = leaf_of(item->key);

        if (!item->value)
            continue;
        if (strcmp(leaf, "driver") == 0)
            scan_block_driver(p, scan, opts, item);
        else if (strcmp(leaf, "filename") == 0 ||
                 (scan->is_drive && strcmp(item->key, "file") == 0))
            scan_block_path(p, scan, item);
        else if (strcmp(leaf, "path") == 0 ||
                 (strcmp(leaf, "type") == 0 && strcmp(item->value, "inet") != 0))
            gw_adopt_refuse(p, scan->option, "%s=%.80s: a local socket of this host", item->key,
                            item->value);
        else if (strcmp(leaf, "key-secret") == 0)
            gw_adopt_refuse(p, scan->option, "%s: secrets are not carried over", item->key);
    }
}

void gw_adopt_drive(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, NULL);
    struct block_scan scan = {.option = option, .is_drive = true};
    const char *media, *interface;

    if (!opts)
        return;
    media = gw_optstr_get(opts, "media");
    interface = gw_optstr_get(opts, "if");
    scan.format = gw_optstr_get(opts, "format");
    scan.format = scan.format ? scan.format : gw_optstr_get(opts, "driver");
    scan.format = scan.format ? scan.format : "auto";
    scan.readonly = (media && strcmp(media, "cdrom") == 0) ||
                    gw_optstr_bool(opts, "readonly", false) ||
                    gw_optstr_bool(opts, "read-only", false);
    if (gw_optstr_bool(opts, "snapshot", false))
        gw_adopt_refuse(p, option, "snapshot=on: writes go to a temporary file of this host");
    scan_block(p, &scan, opts);
    if (!scan.has_file && !scan.readonly && !(interface && strcmp(interface, "floppy") == 0))
        gw_adopt_refuse(p, option, "without a file: %.80s", arg);
    if (scan.changed)
        gw_adopt_push_opts(p, option, opts, NULL);
    else
        gw_adopt_push2(p, option, arg);
}

void gw_adopt_blockdev(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "driver");
    struct block_scan scan = {.option = option, .format = "auto"};
    const char *driver;

    if (!opts)
        return;
    driver = gw_optstr_get(opts, "driver");
    if (driver && !gw_optstr_has(opts, "filename") && gw_optstr_has(opts, "file.filename"))
        scan.format = driver;
    scan.readonly = gw_optstr_bool(opts, "read-only", false);
    scan_block(p, &scan, opts);
    if (scan.changed)
        gw_adopt_push_opts(p, option, opts, "driver");
    else
        gw_adopt_push2(p, option, arg);
}

static void boot_file(struct gw_adopt_parser *p, const char *option, char **stringp,
                      const char *arg)
{
    gw_autofree char *path = gw_adopt_absolute(p, option, arg);

    if (!path)
        return;
    gw_adopt_set(p, option, stringp, path);
    gw_adopt_push2(p, option, path);
}

void gw_adopt_kernel(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    boot_file(p, option, &p->adopt->spec->boot.kernel, arg);
}

void gw_adopt_initrd(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    boot_file(p, option, &p->adopt->spec->boot.initrd, arg);
}

void gw_adopt_kernel_append(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_adopt_set(p, option, &p->adopt->spec->boot.append, arg);
    gw_adopt_push2(p, option, arg);
}

void gw_adopt_dtb(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_autofree char *path = gw_adopt_absolute(p, option, arg);

    if (!path)
        return;
    gw_adopt_add_file(p, option, path, "raw", true);
    gw_adopt_push2(p, option, path);
}

/* Where QEMU looks for firmware. */
void gw_adopt_directory(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_autofree char *path = gw_adopt_absolute(p, option, arg);

    if (!path)
        return;
    gw_adopt_remark(p, option, "%s must hold the same files on the other node", path);
    gw_adopt_push2(p, option, path);
}

/* A name without a "/" is looked up in QEMU's own directories, which every node has. */
void gw_adopt_firmware(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    if (strchr(arg, '/'))
        gw_adopt_dtb(p, option, arg);
    else
        gw_adopt_push2(p, option, arg);
}

void gw_adopt_fw_file(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    static const char *const keys[] = {"file", "path", "data", NULL};
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, NULL);

    if (!opts)
        return;
    for (size_t i = 0; i < opts->n_items; i++) {
        const char *value = opts->items[i].value;

        if (!value || !gw_adopt_among(opts->items[i].key, keys))
            continue;
        if (value[0] == '/' && !strchr(value, ':'))
            gw_adopt_add_file(p, option, value, "raw", true);
        else
            gw_adopt_refuse(p, option, "'%.80s' is not the absolute path of one file", value);
    }
    gw_adopt_push2(p, option, arg);
}
