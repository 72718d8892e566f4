/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "flow/page.h"
#include "util/cleanup.h"

#define ZERO_PAGES 16 /* that are looked at together */

/* Of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst): present, swapped. */
#define PAGEMAP_THERE (UINT64_C(1) << 63 | UINT64_C(1) << 62)

typedef ssize_t copy_fn(pid_t, const struct iovec *, unsigned long, const struct iovec *,
                        unsigned long, unsigned long);

int gw_ram_parse_line(const char *text, struct gw_ram_line *line)
{
    /* name, page size and its unit, offset in QEMU's own numbering, used, total, address */
    char copy[512];

    snprintf(copy, sizeof copy, "%.*s", (int)strcspn(text, "\r\n"), text);
    if (sscanf(copy, " %255s %*u %*[KMGTiB] 0x%*x 0x%" SCNx64 " 0x%" SCNx64 " 0x%" SCNx64,
               line->name, &line->used_bytes, &line->total_bytes, &line->address) != 4)
        return 1;
    return line->used_bytes && line->address ? 0 : 1;
}

static int add_block(struct gw_ram *ram, const struct gw_ram_line *line, struct gw_error *error)
{
    struct gw_ram_block *block = &ram->block[ram->n_blocks];

    if (ram->n_blocks == GW_RAM_BLOCKS_MAX)
        return gw_error_set(error, GW_E_UNSUPPORTED, "QEMU has more than %d RAM blocks",
                            GW_RAM_BLOCKS_MAX);
    if (gw_ram_find(ram, line->name))
        return gw_error_set(error, GW_E_UNSUPPORTED, "QEMU has two RAM blocks %s", line->name);
    *block = (struct gw_ram_block){
        .n_bytes = line->used_bytes,
        .address = line->address,
        .writable = line->used_bytes == line->total_bytes,
        .anonymous = line->address % GW_PAGE_BYTES == 0,
    };
    memcpy(block->name, line->name, sizeof block->name);
    ram->n_blocks++;
    return 0;
}

static int add_blocks(struct gw_ram *ram, const char *info_ramblock, struct gw_error *error)
{
    for (const char *at = info_ramblock; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        struct gw_ram_line line;

        if (gw_ram_parse_line(at, &line) == 0 && add_block(ram, &line, error) < 0)
            return -1;
    }
    return 0;
}

/* What a line of /proc/PID/maps says of the blocks that lie there. */
static void note_mapping(struct gw_ram *ram, const char *line, uint64_t *mapped_bytes)
{
    unsigned long inode;
    uint64_t from, to;
    char access[5];

    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %*x:%*x %lu", &from, &to, access, &inode) !=
        4)
        return;
    for (unsigned i = 0; i < ram->n_blocks; i++) {
        struct gw_ram_block *block = &ram->block[i];
        uint64_t end = block->address + block->n_bytes;
        uint64_t first = block->address > from ? block->address : from;
        uint64_t last = end < to ? end : to;

        if (first >= last)
            continue;
        mapped_bytes[i] += last - first;
        if (strncmp(access, "rw", 2) != 0)
            block->writable = false;
        if (inode != 0 || access[3] != 'p')
            block->anonymous = false;
    }
}

static int look_at_mappings(struct gw_ram *ram)
{
    uint64_t mapped_bytes[GW_RAM_BLOCKS_MAX] = {0};
    gw_autofree char *line = NULL;
    size_t room = 0;
    char path[64];
    FILE *maps;
    int r = 0;

    snprintf(path, sizeof path, "/proc/%d/maps", (int)ram->pid);
    maps = fopen(path, "re");
    if (!maps)
        return -errno;
    while (getline(&line, &room, maps) > 0)
        note_mapping(ram, line, mapped_bytes);
    if (ferror(maps))
        r = -EIO;
    fclose(maps);
    for (unsigned i = 0; i < ram->n_blocks; i++)
        if (mapped_bytes[i] != ram->block[i].n_bytes)
            ram->block[i].writable = ram->block[i].anonymous = false;
    return r;
}

static int open_process(struct gw_ram *ram, pid_t pid)
{
    char path[64];

    ram->pid = pid;
    ram->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (ram->pidfd < 0)
        return -errno;
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)pid);
    ram->pagemap = open(path, O_RDONLY | O_CLOEXEC);
    if (ram->pagemap < 0) {
        int r = -errno;

        close(ram->pidfd);
        return r;
    }
    ram->is_open = true;
    return look_at_mappings(ram);
}

/* QEMU lists the largest block first. To read from it would put the kernel's zero page there, in
 * the way of a huge one. */
static int probe(const struct gw_ram *ram, struct gw_error *error)
{
    uint8_t byte;
    const struct gw_ram_parts parts = {.n = 1, .part[0] = {0, &byte, 1}};

    return ram->n_blocks ? gw_ram_read(ram, &ram->block[ram->n_blocks - 1], &parts, error) : 0;
}

int gw_ram_open(struct gw_ram *ram, pid_t pid, const char *info_ramblock, struct gw_error *error)
{
    int r;

    memset(ram, 0, sizeof *ram);
    if (add_blocks(ram, info_ramblock, error) < 0)
        goto failed;
    r = open_process(ram, pid);
    if (r < 0) {
        gw_error_set_sys(error, -r, "look at the memory of QEMU (pid %d)", (int)pid);
        gw_error_hint(error, "run the daemon as root or as the user of QEMU");
        goto failed;
    }
    if (probe(ram, error) == 0)
        return 0;
failed:
    gw_ram_close(ram);
    return -1;
}

void gw_ram_close(struct gw_ram *ram)
{
    if (ram->is_open) {
        close(ram->pidfd);
        close(ram->pagemap);
    }
    ram->is_open = false;
    ram->n_blocks = 0;
}

const struct gw_ram_block *gw_ram_find(const struct gw_ram *ram, const char *name)
{
    for (unsigned i = 0; i < ram->n_blocks; i++)
        if (strcmp(ram->block[i].name, name) == 0)
            return &ram->block[i];
    return NULL;
}

bool gw_ram_holds(const struct gw_ram_block *block, uint64_t offset, uint64_t n_bytes)
{
    return n_bytes <= block->n_bytes && offset <= block->n_bytes - n_bytes;
}

void gw_ram_add_part(struct gw_ram_parts *parts, uint64_t offset, void *here, size_t n_bytes)
{
    struct gw_ram_part *last = parts->n ? &parts->part[parts->n - 1] : NULL;

    if (last && last->offset + last->n_bytes == offset &&
        (unsigned char *)last->here + last->n_bytes == here)
        last->n_bytes += n_bytes;
    else
        parts->part[parts->n++] = (struct gw_ram_part){offset, here, n_bytes};
}

static bool has_ended(const struct gw_ram *ram)
{
    struct pollfd end = {.fd = ram->pidfd, .events = POLLIN};

    return poll(&end, 1, 0) != 0;
}

static int failed_at(const struct gw_ram *ram, const struct gw_ram_block *block, const char *verb,
                     uint64_t offset, int error_no, struct gw_error *error)
{
    gw_error_set_sys(error, error_no, "%s RAM block %s of QEMU (pid %d) at 0x%" PRIx64, verb,
                     block->name, (int)ram->pid, offset);
    return gw_error_hint(error, "run the daemon as root or as the user of QEMU");
}

static int copy(const struct gw_ram *ram, const struct gw_ram_block *block,
                const struct gw_ram_parts *parts, copy_fn *fn, const char *verb,
                struct gw_error *error)
{
    struct iovec here[GW_RAM_PARTS_MAX], there[GW_RAM_PARTS_MAX];
    size_t n_bytes = 0;
    ssize_t n;

    for (unsigned i = 0; i < parts->n; i++) {
        const struct gw_ram_part *part = &parts->part[i];

        if (!gw_ram_holds(block, part->offset, part->n_bytes))
            return gw_error_set(error, GW_E_PROTOCOL, "RAM block %s does not reach to 0x%" PRIx64,
                                block->name, part->offset + part->n_bytes);
        here[i] = (struct iovec){part->here, part->n_bytes};
        there[i] =
            (struct iovec){(void *)(uintptr_t)(block->address + part->offset), part->n_bytes};
        n_bytes += part->n_bytes;
    }
    if (parts->n == 0)
        return 0;
    if (has_ended(ram))
        return failed_at(ram, block, verb, parts->part[0].offset, ESRCH, error);
    n = fn(ram->pid, here, parts->n, there, parts->n, 0);
    if (n == (ssize_t)n_bytes)
        return 0;
    return failed_at(ram, block, verb, parts->part[0].offset, n < 0 ? errno : EFAULT, error);
}

int gw_ram_read(const struct gw_ram *ram, const struct gw_ram_block *block,
                const struct gw_ram_parts *parts, struct gw_error *error)
{
    return copy(ram, block, parts, process_vm_readv, "read", error);
}

int gw_ram_write(const struct gw_ram *ram, const struct gw_ram_block *block,
                 const struct gw_ram_parts *parts, struct gw_error *error)
{
    return copy(ram, block, parts, process_vm_writev, "write", error);
}

/* Those that are there become parts: to read from others would make them, too (see probe()). */
static void find_pages(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                       unsigned n, unsigned char *here, struct gw_ram_parts *parts)
{
    off_t at = (off_t)((block->address + offset) / GW_PAGE_BYTES * sizeof(uint64_t));
    uint64_t entry[ZERO_PAGES];
    ssize_t n_known = 0;

    if (block->anonymous)
        n_known = pread(ram->pagemap, entry, n * sizeof *entry, at);
    for (unsigned i = 0; i < n; i++)
        if (n_known != (ssize_t)(n * sizeof *entry) || entry[i] & PAGEMAP_THERE)
            gw_ram_add_part(parts, offset + (uint64_t)i * GW_PAGE_BYTES,
                            here + (size_t)i * GW_PAGE_BYTES, GW_PAGE_BYTES);
}

static int zero_some(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                     unsigned n, struct gw_error *error)
{
    unsigned char here[ZERO_PAGES * GW_PAGE_BYTES];
    struct gw_ram_parts there = {.n = 0}, dirty = {.n = 0};

    find_pages(ram, block, offset, n, here, &there);
    if (gw_ram_read(ram, block, &there, error) < 0)
        return -1;
    for (unsigned i = 0; i < there.n; i++)
        for (size_t at = 0; at < there.part[i].n_bytes; at += GW_PAGE_BYTES) {
            unsigned char *page = (unsigned char *)there.part[i].here + at;

            if (gw_page_is_zero(page))
                continue;
            memset(page, 0, GW_PAGE_BYTES);
            gw_ram_add_part(&dirty, there.part[i].offset + at, page, GW_PAGE_BYTES);
        }
    return gw_ram_write(ram, block, &dirty, error);
}

int gw_ram_zero(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                size_t n_bytes, struct gw_error *error)
{
    if (!gw_ram_holds(block, offset, n_bytes))
        return gw_error_set(error, GW_E_PROTOCOL, "RAM block %s does not reach to 0x%" PRIx64,
                            block->name, offset + n_bytes);
    for (size_t at = 0; at < n_bytes; at += ZERO_PAGES * GW_PAGE_BYTES) {
        size_t n = (n_bytes - at) / GW_PAGE_BYTES;

        if (zero_some(ram, block, offset + at, (unsigned)(n < ZERO_PAGES ? n : ZERO_PAGES), error) <
            0)
            return -1;
    }
    return 0;
}
