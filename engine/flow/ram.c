/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/ram.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "flow/page.h"
#include "util/cleanup.h"
#include "util/shmem.h"

/* A shared mapping, as a line of /proc/PID/maps tells. */
struct place {
    dev_t device;
    ino_t inode;
    uint64_t offset; /* in the file, of the address asked for */
};

int gw_ram_parse_line(const char *text, struct gw_ram_line *line)
{
    /* name, page size and its unit, offset in QEMU's own numbering, used, total, address */
    char copy[512];

    snprintf(copy, sizeof copy, "%.*s", (int)strcspn(text, "\r\n"), text);
    if (sscanf(copy, " %255s %*u %*[KMGTiB] 0x%*x 0x%" SCNx64 " 0x%*x 0x%" SCNx64, line->name,
               &line->used_bytes, &line->address) != 3)
        return 1;
    return line->used_bytes && line->address ? 0 : 1;
}

/* 0; 1 if nothing is mapped shared and writable there; -errno. */
static int find_place(FILE *maps, uint64_t address, struct place *place)
{
    gw_autofree char *line = NULL;
    size_t room = 0;

    rewind(maps);
    while (getline(&line, &room, maps) > 0) {
        uint64_t from, to, offset;
        unsigned major_no, minor_no;
        unsigned long inode;
        char access[5];

        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %lu", &from, &to, access,
                   &offset, &major_no, &minor_no, &inode) != 7)
            continue;
        if (address < from || address >= to)
            continue;
        if (strncmp(access, "rw", 2) != 0 || access[3] != 's' || inode == 0)
            return 1;
        place->device = makedev(major_no, minor_no);
        place->inode = inode;
        place->offset = offset + (address - from);
        return 0;
    }
    return ferror(maps) ? -EIO : 1;
}

/* The file of that place, opened anew, so that nothing of QEMU's own descriptor changes. -1: QEMU
 * does not hold it open. */
static int open_place(DIR *fds, const struct place *place, uint64_t n_bytes)
{
    struct dirent *entry;

    rewinddir(fds);
    while ((entry = readdir(fds))) {
        gw_autoclose int fd = -1;
        struct stat at;

        if (entry->d_name[0] == '.' || fstatat(dirfd(fds), entry->d_name, &at, 0) < 0 ||
            at.st_dev != place->device || at.st_ino != place->inode || !S_ISREG(at.st_mode))
            continue;
        fd = openat(dirfd(fds), entry->d_name, O_RDWR | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &at) < 0 || place->offset > (uint64_t)at.st_size ||
            n_bytes > (uint64_t)at.st_size - place->offset)
            continue;
        return gw_steal_fd(&fd);
    }
    return -1;
}

/* hugetlbfs has no write(), and on a disk's file system it is not known to be faster. With huge
 * pages the mapping is: write() would fill the file with small ones. */
static bool is_better_by_file(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC && !gw_shmem_huge_pages();
}

/* 0, whether it could be mapped or not; -errno. */
static int add_block(struct gw_ram *ram, const struct gw_ram_line *line, FILE *maps, DIR *fds)
{
    struct gw_ram_block *block = &ram->block[ram->n_blocks];
    gw_autoclose int fd = -1;
    struct place place;
    void *at;
    int r = find_place(maps, line->address, &place);

    if (r != 0)
        return r < 0 ? r : 0;
    fd = open_place(fds, &place, line->used_bytes);
    if (fd < 0)
        return 0;
    at = mmap(NULL, line->used_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)place.offset);
    if (at == MAP_FAILED)
        return 0;
    madvise(at, line->used_bytes, MADV_HUGEPAGE); /* a kernel without them refuses */
    memcpy(block->name, line->name, sizeof block->name);
    block->n_bytes = line->used_bytes;
    block->at = at;
    block->by_file = is_better_by_file(fd);
    block->fd = gw_steal_fd(&fd);
    block->fd_offset = place.offset;
    ram->n_blocks++;
    return 0;
}

static int add_blocks(struct gw_ram *ram, const char *info_ramblock, FILE *maps, DIR *fds)
{
    for (const char *at = info_ramblock; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        struct gw_ram_line line;
        int r;

        if (ram->n_blocks == GW_RAM_BLOCKS_MAX)
            break;
        if (gw_ram_parse_line(at, &line) != 0 || gw_ram_find(ram, line.name))
            continue;
        r = add_block(ram, &line, maps, fds);
        if (r < 0)
            return r;
    }
    return 0;
}

int gw_ram_open(struct gw_ram *ram, pid_t pid, const char *info_ramblock, struct gw_error *error)
{
    char path[64];
    FILE *maps;
    DIR *fds;
    int r = 0;

    memset(ram, 0, sizeof *ram);
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    maps = fopen(path, "re");
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    fds = opendir(path);
    if (!maps || !fds)
        r = -errno;
    else
        r = add_blocks(ram, info_ramblock, maps, fds);
    if (maps)
        fclose(maps);
    if (fds)
        closedir(fds);
    if (r < 0) {
        gw_ram_close(ram);
        gw_error_set_sys(error, -r, "look at the memory of QEMU (pid %d)", (int)pid);
        return gw_error_hint(error, "run the daemon as root or as the user of QEMU");
    }
    return 0;
}

void gw_ram_close(struct gw_ram *ram)
{
    for (unsigned i = 0; i < ram->n_blocks; i++) {
        munmap(ram->block[i].at, ram->block[i].n_bytes);
        close(ram->block[i].fd);
    }
    ram->n_blocks = 0;
}

const struct gw_ram_block *gw_ram_find(const struct gw_ram *ram, const char *name)
{
    for (unsigned i = 0; i < ram->n_blocks; i++)
        if (strcmp(ram->block[i].name, name) == 0)
            return &ram->block[i];
    return NULL;
}

uint8_t *gw_ram_at(const struct gw_ram_block *block, uint64_t offset, size_t n_bytes)
{
    if (n_bytes > block->n_bytes || offset > block->n_bytes - n_bytes)
        return NULL;
    return block->at + offset;
}

int gw_ram_write(const struct gw_ram_block *block, uint64_t offset, const void *data,
                 size_t n_bytes)
{
    uint8_t *at = gw_ram_at(block, offset, n_bytes);
    ssize_t n = 0;

    if (!at)
        return 1;
    if (block->by_file)
        n = pwrite(block->fd, data, n_bytes, (off_t)(block->fd_offset + offset));
    if (n < 0)
        n = 0;
    memcpy(at + n, (const uint8_t *)data + n, n_bytes - (size_t)n);
    return 0;
}

/* Reading a hole through the mapping would fill it with a page. Where the file system knows no
 * holes, everything counts as data. */
static bool is_hole(const struct gw_ram_block *block, uint64_t offset, size_t n_bytes)
{
    off_t from = (off_t)(block->fd_offset + offset);
    off_t data = lseek(block->fd, from, SEEK_DATA);

    if (data < 0)
        return errno == ENXIO;
    return data >= from + (off_t)n_bytes;
}

static bool is_zero(const uint8_t *at, size_t n_bytes)
{
    return n_bytes == 0 || (at[0] == 0 && memcmp(at, at + 1, n_bytes - 1) == 0);
}

int gw_ram_zero(const struct gw_ram_block *block, uint64_t offset, size_t n_bytes)
{
    uint8_t *at = gw_ram_at(block, offset, n_bytes);

    if (!at)
        return 1;
    if (is_hole(block, offset, n_bytes))
        return 0;
    for (size_t n; n_bytes; offset += n, at += n, n_bytes -= n) {
        n = GW_PAGE_BYTES - offset % GW_PAGE_BYTES;
        if (n > n_bytes)
            n = n_bytes;
        if (!is_hole(block, offset, n) && !is_zero(at, n))
            memset(at, 0, n);
    }
    return 0;
}
