/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of adoption: what the machine is made of.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/adopt_parse.h"

static void note_accel(struct gw_adopt_parser *p, const char *option, const char *name)
{
    int accel = gw_accel_from_name(name);

    p->n_accels++;
    if (gw_adopt_is_placeholder(p, name))
        return;
    if (accel <= GW_ACCEL_AUTO)
        gw_adopt_refuse(p, option, "the accelerator '%.40s' is not supported", name);
    else if (p->n_accels == 1)
        p->adopt->spec->accel = (enum gw_accel)accel;
}

void gw_adopt_accel(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "accel");
    const char *name = opts ? gw_optstr_get(opts, "accel") : NULL;

    if (!name) {
        if (opts)
            gw_adopt_refuse(p, option, "no accelerator in it");
        return;
    }
    note_accel(p, option, name);
    gw_adopt_put(p, opts, "accel", "@ACCEL@");
    if (!p->accel || opts->n_items > 1) {
        free(p->accel);
        p->accel = gw_optstr_format(opts, "accel");
    }
}

void gw_adopt_enable_kvm(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    (void)arg;
    note_accel(p, option, "kvm");
}

/* "kvm:tcg" */
static void note_accels(struct gw_adopt_parser *p, const char *list)
{
    gw_autofree char *copy = strdup(list);
    char *rest = copy, *name;

    if (!copy)
        p->failed = true;
    while ((name = strsep(&rest, ":")))
        note_accel(p, "-machine accel", name);
}

static void check_machine(struct gw_adopt_parser *p, const struct gw_optstr *opts)
{
    static const char *const confidential[] = {"confidential-guest-support", "memory-encryption",
                                               "sgx-epc.0.memdev", NULL};
    static const char *const direct[] = {"kernel",  "initrd",   "append", "dtb",
                                         "dumpdtb", "firmware", "shim",   NULL};

    for (size_t i = 0; i < opts->n_items; i++) {
        const char *key = opts->items[i].key;

        if (gw_adopt_among(key, confidential))
            gw_adopt_refuse(p, "-machine", "%s: encrypted guest memory cannot be migrated", key);
        if (gw_adopt_among(key, direct))
            gw_adopt_refuse(p, "-machine", "%s belongs into an option of its own", key);
    }
    if (gw_optstr_bool(opts, "igd-passthru", false))
        gw_adopt_refuse(p, "-machine", "igd-passthru: the graphics device belongs to this host");
}

void gw_adopt_machine(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "type");
    const char *type = opts ? gw_optstr_get(opts, "type") : NULL;
    const char *accel = opts ? gw_optstr_get(opts, "accel") : NULL;

    if (!opts)
        return;
    check_machine(p, opts);
    if (accel)
        note_accels(p, accel);
    gw_optstr_remove(opts, "accel");
    if (type) {
        p->has_machine = true;
        gw_adopt_set(p, option, &p->adopt->spec->machine, type);
        gw_adopt_put(p, opts, "type", "@MACHINE@");
    }
    if (opts->n_items > 0)
        gw_adopt_push_opts(p, "-machine", opts, "type");
}

void gw_adopt_cpu(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_adopt_set(p, option, &p->adopt->spec->cpu, arg);
    gw_adopt_push2(p, option, arg);
}

static unsigned number_of(const struct gw_optstr *opts, const char *key, unsigned otherwise)
{
    const char *text = gw_optstr_get(opts, key);
    unsigned long n = text ? strtoul(text, NULL, 10) : otherwise;

    return n <= GW_VM_MAX_CPUS ? (unsigned)n : GW_VM_MAX_CPUS + 1;
}

void gw_adopt_smp(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    static const char *const levels[] = {"sockets",  "dies",  "modules",
                                         "clusters", "cores", "threads"};
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "cpus");
    unsigned cpus;

    if (!opts)
        return;
    cpus = number_of(opts, "cpus", 0);
    if (cpus == 0) {
        cpus = 1;
        for (unsigned i = 0; i < GW_ARRAY_SIZE(levels) && cpus <= GW_VM_MAX_CPUS; i++)
            cpus *= number_of(opts, levels[i], 1);
    }
    if (cpus < 1 || cpus > GW_VM_MAX_CPUS)
        gw_adopt_refuse(p, option, "%.60s: not from 1 to %u CPUs", arg, GW_VM_MAX_CPUS);
    p->adopt->spec->cpus = cpus;
    gw_adopt_push2(p, option, arg);
}

/* For -m a plain number is MiB. */
void gw_adopt_memory(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "size");
    const char *size = opts ? gw_optstr_get(opts, "size") : NULL;
    gw_autofree char *with_unit = NULL;

    if (!opts)
        return;
    gw_adopt_push2(p, option, arg);
    if (!size)
        return;
    if (asprintf(&with_unit, "%s%s", size, size[strspn(size, "0123456789")] ? "" : "M") < 0) {
        with_unit = NULL;
        p->failed = true;
        return;
    }
    for (char *c = with_unit; *c; c++) /* "1g" is as good as "1G" */
        *c = strchr("kmgt", *c) ? (char)(*c - 'a' + 'A') : *c;
    if (gw_vm_parse_size(with_unit, &p->adopt->spec->memory_bytes) < 0)
        gw_adopt_refuse(p, option, "'%.60s' is not a size in whole MiB or GiB", size);
}

void gw_adopt_name(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "guest");
    const char *guest = opts ? gw_optstr_get(opts, "guest") : NULL;

    if (guest)
        gw_adopt_set(p, option, &p->adopt->spec->name, guest);
    if (opts)
        gw_adopt_push2(p, option, arg);
}

/* The nil uuid is what a guest without one sees: it names nobody. */
void gw_adopt_uuid(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    if (strcmp(arg, "00000000-0000-0000-0000-000000000000") != 0)
        gw_adopt_set(p, option, &p->adopt->spec->uuid, arg);
    gw_adopt_push2(p, option, arg);
}

static void check_memory_file(struct gw_adopt_parser *p, const struct gw_optstr *opts)
{
    const char *path = gw_optstr_get(opts, "mem-path");

    /* two QEMUs that map one file would share their guests' memory */
    if (gw_optstr_bool(opts, "share", false) && (!path || !gw_adopt_begins(path, "/dev/hugepages")))
        gw_adopt_refuse(p, "-object memory-backend-file",
                        "guest memory lies in a shared file (%.80s)", path ? path : "");
}

void gw_adopt_object(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    static const char *const kept[] = {"authz-list",
                                       "authz-simple",
                                       "can-bus",
                                       "cryptodev-backend-builtin",
                                       "iothread",
                                       "main-loop",
                                       "memory-backend-file",
                                       "memory-backend-memfd",
                                       "memory-backend-ram",
                                       "memory-backend-shm",
                                       "rng-builtin",
                                       "rng-random",
                                       "thread-context",
                                       "throttle-group",
                                       NULL};
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "qom-type");
    const char *type = opts ? gw_optstr_get(opts, "qom-type") : NULL;
    char what[80];

    if (!opts)
        return;
    snprintf(what, sizeof what, "-object %.60s", type ? type : "");
    if (!type || !gw_adopt_among(type, kept))
        gw_adopt_refuse(p, what, "it names something of this host, or is unknown to Godwit");
    else if (strcmp(type, "memory-backend-file") == 0)
        check_memory_file(p, opts);
    gw_adopt_push2(p, option, arg);
}

static const struct {
    const char *prefix;
    const char *why;
} refused_devices[] = {
    {"vfio-", "a device of this host"},
    {"usb-host", "a USB device of this host"},
    {"usb-redir", "a USB device behind a connection of this host"},
    {"usb-mtp", "a directory of this host is shared with the guest"},
    {"u2f-passthru", "a security token of this host"},
    {"ccid-card-", "a smart card of this host"},
    {"scsi-block", "a SCSI device of this host"},
    {"scsi-generic", "a SCSI device of this host"},
    {"vhost-", "its other half is a process or device of this host"},
    {"virtio-input-host", "an input device of this host"},
    {"virtio-9p", "a directory of this host is shared with the guest"},
    {"virtio-gpu-gl", "rendering on this host's GPU"},
    {"virtio-vga-gl", "rendering on this host's GPU"},
    {"virtio-gpu-rutabaga", "rendering on this host's GPU"},
    {"virtio-vga-rutabaga", "rendering on this host's GPU"},
    {"ivshmem", "memory shared with another process of this host"},
    {"tpm-", "a TPM's state lives outside of QEMU"},
    {"xen-", "Xen guests are not supported"},
    {"x-pci-proxy-dev", "its other half is a process of this host"},
};

static void check_device(struct gw_adopt_parser *p, const char *driver, bool *refusedp)
{
    char what[80];

    for (unsigned i = 0; i < GW_ARRAY_SIZE(refused_devices); i++) {
        if (!gw_adopt_begins(driver, refused_devices[i].prefix))
            continue;
        snprintf(what, sizeof what, "-device %.60s", driver);
        gw_adopt_refuse(p, what, "%s", refused_devices[i].why);
        *refusedp = true;
    }
}

/* A ROM that does not stand in QEMU's own directory must be found on the other node. */
static void note_rom(struct gw_adopt_parser *p, const char *option, const char *rom)
{
    if (rom && rom[0] == '/')
        gw_adopt_add_file(p, option, rom, "raw", true);
    else if (rom && strchr(rom, '/'))
        gw_adopt_refuse(p, option, "romfile with the relative path '%.100s'", rom);
}

void gw_adopt_device(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "driver");
    const char *driver = opts ? gw_optstr_get(opts, "driver") : NULL;
    bool refused = false;

    if (!opts)
        return;
    if (!driver || strcmp(driver, "loader") == 0 || strcmp(driver, "guest-loader") == 0) {
        gw_adopt_refuse(p, option, "no driver, or a file loaded into guest memory: %.80s", arg);
        return;
    }
    check_device(p, driver, &refused);
    if (refused)
        return;
    note_rom(p, option, gw_optstr_get(opts, "romfile"));
    gw_adopt_push2(p, option, arg);
}

void gw_adopt_usbdevice(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    static const char *const kept[] = {"keyboard", "mouse", "tablet", "wacom-tablet", NULL};

    if (gw_adopt_among(arg, kept))
        gw_adopt_push2(p, option, arg);
    else
        gw_adopt_refuse(p, option, "'%.60s' is a device of this host, or unknown to Godwit", arg);
}

void gw_adopt_icount(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "shift");

    if (opts && gw_optstr_has(opts, "rr"))
        gw_adopt_refuse(p, option, "record and replay keeps its log on this host");
    else if (opts)
        gw_adopt_push2(p, option, arg);
}

void gw_adopt_run_with(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, NULL);

    if (opts && gw_optstr_has(opts, "chroot"))
        gw_adopt_refuse(p, option, "paths inside a chroot cannot be told");
    else if (opts)
        gw_adopt_remark(p, option, "Godwit decides how QEMU's process is run");
}
