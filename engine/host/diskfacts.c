/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "host/facts.h"
#include "util/cleanup.h"

/* From linux/magic.h and, for those that it lacks, from the file systems' own sources. */
static const struct {
    uint32_t type;
    bool shared;
    const char *name;
} file_systems[] = {
    {0x6969, true, "nfs"},
    {0x00c36400, true, "ceph"},
    {0x01161970, true, "gfs2"},
    {0x7461636f, true, "ocfs2"},
    {0xff534d42, true, "cifs"},
    {0xfe534d42, true, "smb2"},
    {0x517b, true, "smb"},
    {0x0bd00bd0, true, "lustre"},
    {0x01021997, true, "9p"},
    {0x47504653, true, "gpfs"},
    {0x19830326, true, "beegfs"},
    {0xaad7aaea, true, "panfs"},
    {0x5346414f, true, "afs"},
    {0x6b414653, true, "afs"},
    /* GlusterFS and virtiofs are FUSE to statfs(2). What is local behind FUSE is still told
     * apart by its inode and size. */
    {0x65735546, true, "fuse"},
    {0xef53, false, "ext4"},
    {0x58465342, false, "xfs"},
    {0x9123683e, false, "btrfs"},
    {0x01021994, false, "tmpfs"},
    {0x794c7630, false, "overlay"},
    {0x2fc12fc1, false, "zfs"},
    {0xf2f52010, false, "f2fs"},
    {0x858458f6, false, "ramfs"},
    {0x958458f6, false, "hugetlbfs"},
    {0xca451a4e, false, "bcachefs"},
    {0x4d44, false, "vfat"},
    {0x73717368, false, "squashfs"},
};

const char *gw_facts_fs_name(uint64_t type, char buffer[24], bool *sharedp)
{
    *sharedp = false;
    for (size_t i = 0; i < GW_ARRAY_SIZE(file_systems); i++) {
        if (file_systems[i].type != (uint32_t)type)
            continue;
        *sharedp = file_systems[i].shared;
        return file_systems[i].name;
    }
    snprintf(buffer, 24, "0x%x", (uint32_t)type);
    return buffer;
}

static const char *probe_format(int fd)
{
    static const struct {
        const char *magic, *name;
    } table[] = {
        {"QFI\xfb", "qcow2"}, {"KDMV", "vmdk"},    {"QED", "qed"},
        {"vhdxfile", "vhdx"}, {"conectix", "vpc"}, {"LUKS\xba\xbe", "luks"},
    };
    char head[8] = "";

    if (pread(fd, head, sizeof head, 0) < 0)
        return NULL;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++)
        if (memcmp(head, table[i].magic, strlen(table[i].magic)) == 0)
            return table[i].name;
    return "raw";
}

/* One line of a file of sysfs, without spaces at its ends. False if there is none. */
static bool read_line(const char *path, char *out, size_t size)
{
    gw_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, out, size - 1);
    size_t n = got > 0 ? (size_t)got : 0, start;

    while (n > 0 && (unsigned char)out[n - 1] <= ' ')
        n--;
    out[n] = '\0';
    start = strspn(out, " ");
    memmove(out, out + start, n - start + 1);
    return out[0] != '\0';
}

/* What names a block device on every host that sees it: device mapper's uuid (multipath, LVM), an
 * NVMe or SCSI identification, a serial number. */
static bool find_serial(dev_t device, char *out, size_t size)
{
    static const char *const files[] = {"dm/uuid", "wwid", "device/wwid", "serial",
                                        "device/serial"};
    char path[128];

    for (size_t i = 0; i < GW_ARRAY_SIZE(files); i++) {
        snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s", major(device), minor(device),
                 files[i]);
        if (read_line(path, out, size))
            return true;
    }
    return false;
}

static void set(json_t *facts, const char *key, json_t *value)
{
    /* A value that is not UTF-8 has become NULL, and is left out. */
    if (value)
        json_object_set_new(facts, key, value);
}

static void set_device(json_t *facts, dev_t device)
{
    char text[32];

    snprintf(text, sizeof text, "%u:%u", major(device), minor(device));
    set(facts, "device", json_string(text));
}

static void add_block(json_t *facts, const struct stat *st, int fd)
{
    uint64_t bytes = 0;
    char serial[256];

    set(facts, "kind", json_string("block"));
    set_device(facts, st->st_rdev);
    if (fd >= 0 && ioctl(fd, BLKGETSIZE64, &bytes) == 0)
        set(facts, "size_bytes", json_integer((json_int_t)bytes));
    if (find_serial(st->st_rdev, serial, sizeof serial))
        set(facts, "serial", json_string(serial));
}

static void add_file(json_t *facts, const char *path, const struct stat *st)
{
    struct statfs fs;
    char buffer[24];
    bool shared;

    set(facts, "kind", json_string("file"));
    set_device(facts, st->st_dev);
    set(facts, "size_bytes", json_integer((json_int_t)st->st_size));
    set(facts, "inode", json_integer((json_int_t)st->st_ino));
    if (statfs(path, &fs) == 0) {
        set(facts, "fs", json_string(gw_facts_fs_name((uint64_t)fs.f_type, buffer, &shared)));
        set(facts, "shared", json_boolean(shared));
    }
}

json_t *gw_facts_disk(const char *path, const char *format, bool read_only)
{
    json_t *facts = json_pack("{s:s, s:s, s:s, s:b, s:b}", "kind", "other", "path", path, "format",
                              format, "read_only", read_only, "exists", 0);
    gw_autoclose int fd = -1;
    struct stat st;

    if (!facts)
        return NULL;
    if (stat(path, &st) < 0) {
        set(facts, "error", json_string(strerror(errno)));
        return facts;
    }
    set(facts, "exists", json_true());
    set(facts, "writable", json_boolean(faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0));
    if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    set(facts, "readable", json_boolean(fd >= 0));
    if (S_ISBLK(st.st_mode))
        add_block(facts, &st, fd);
    else if (S_ISREG(st.st_mode))
        add_file(facts, path, &st);
    if (fd >= 0 && probe_format(fd))
        set(facts, "probed_format", json_string(probe_format(fd)));
    return facts;
}

json_t *gw_facts_rbd(const char *image, const char *format, bool read_only, unsigned n_opened)
{
    return json_pack("{s:s, s:s, s:s, s:b, s:b, s:i}", "kind", "rbd", "path", image, "format",
                     format, "read_only", read_only, "exists", 1, "opened",
                     read_only ? 0 : (int)n_opened);
}

void gw_facts_rbd_answer(json_t *disk, const json_t *answer, const struct gw_error *error)
{
    json_t *why;

    if (answer) {
        json_object_update(disk, (json_t *)answer);
        return;
    }
    why = json_string(error->msg);
    json_object_set_new(disk, "exists", json_false());
    json_object_set_new(disk, "error", why ? why : json_string("unreadable text"));
}
