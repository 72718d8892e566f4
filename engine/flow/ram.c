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

#define LOOK_PAGES 64
#define ZERO_BYTES (16 * GW_PAGE_BYTES) /* that are looked at together, on the stack */

_Static_assert(LOOK_PAGES <= GW_RAM_PARTS_MAX, "each page may be a part");

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
    bool is_aligned = (line->address | line->used_bytes) % GW_PAGE_BYTES == 0;

    if (ram->n_blocks == GW_RAM_BLOCKS_MAX)
        return gw_error_set(error, GW_E_UNSUPPORTED, "QEMU has more than %d RAM blocks",
                            GW_RAM_BLOCKS_MAX);
    if (gw_ram_find(ram, line->name))
        return gw_error_set(error, GW_E_UNSUPPORTED, "QEMU has two RAM blocks %s", line->name);
    *block = (struct gw_ram_block){
        .n_bytes = line->used_bytes,
        .address = line->address,
        .writable = line->used_bytes == line->total_bytes && is_aligned,
        .anonymous = is_aligned,
        .file = -1,
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

/* A line of /proc/PID/maps. */
struct mapping {
    uint64_t from, to, offset;
    char access[5];
    unsigned long inode;
};

/* What is mapped shared can be read where it has holes, too: through its file. */
static void open_file(const struct gw_ram *ram, const struct mapping *m, struct gw_ram_block *block)
{
    char path[96];

    if (m->access[3] != 's' || block->file >= 0 || block->address < m->from ||
        block->address + block->n_bytes > m->to)
        return;
    snprintf(path, sizeof path, "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)ram->pid, m->from,
             m->to);
    block->file = open(path, O_RDONLY | O_CLOEXEC);
    block->file_offset = m->offset + (block->address - m->from);
}

/* What a mapping says of the blocks that lie there; how much of each it has that can be read. */
static void note_mapping(struct gw_ram *ram, const struct mapping *m, uint64_t *mapped_bytes)
{
    for (unsigned i = 0; i < ram->n_blocks; i++) {
        struct gw_ram_block *block = &ram->block[i];
        uint64_t end = block->address + block->n_bytes;
        uint64_t first = block->address > m->from ? block->address : m->from;
        uint64_t last = end < m->to ? end : m->to;

        if (first >= last)
            continue;
        if (m->access[0] == 'r')
            mapped_bytes[i] += last - first;
        if (m->access[1] != 'w')
            block->writable = false;
        if (m->inode != 0 || m->access[3] != 'p')
            block->anonymous = false;
        open_file(ram, m, block);
    }
}

static int read_maps(struct gw_ram *ram, uint64_t *mapped_bytes)
{
    gw_autofree char *line = NULL;
    size_t room = 0;
    char path[64];
    FILE *maps;
    int r = 0;

    snprintf(path, sizeof path, "/proc/%d/maps", (int)ram->pid);
    maps = fopen(path, "re");
    if (!maps)
        return -errno;
    while (getline(&line, &room, maps) > 0) {
        struct mapping m;

        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*x:%*x %lu", &m.from, &m.to,
                   m.access, &m.offset, &m.inode) == 5)
            note_mapping(ram, &m, mapped_bytes);
    }
    if (ferror(maps))
        r = -EIO;
    fclose(maps);
    return r;
}

/* A process without memory where QEMU says that its RAM is, is not that QEMU: a script that started
 * it, perhaps. */
static int look_at_mappings(struct gw_ram *ram)
{
    uint64_t mapped_bytes[GW_RAM_BLOCKS_MAX] = {0};
    int r = read_maps(ram, mapped_bytes);

    for (unsigned i = 0; i < ram->n_blocks && r == 0; i++)
        if (mapped_bytes[i] != ram->block[i].n_bytes)
            r = -EFAULT;
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
    ram->pagemap = open(path, O_RDONLY | O_CLOEXEC); /* a kernel may have none */
    ram->is_open = true;
    return look_at_mappings(ram);
}

/* QEMU lists the largest block first, which is better left alone: see gw_ram_look(). */
static int probe(const struct gw_ram *ram, struct gw_error *error)
{
    uint8_t byte;
    const struct gw_ram_parts parts = {.n = 1, .part[0] = {0, &byte, 1}};

    return ram->n_blocks ? gw_ram_read(ram, &ram->block[ram->n_blocks - 1], &parts, error) : 0;
}

static void hint(int error_no, struct gw_error *error)
{
    if (error_no == EPERM || error_no == EACCES)
        gw_error_hint(error, "run the daemon as root, with CAP_SYS_PTRACE");
    else if (error_no == EFAULT)
        gw_error_hint(error, "is the process QEMU itself, and not a script that started it?");
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
        hint(-r, error);
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
        if (ram->pagemap >= 0)
            close(ram->pagemap);
        for (unsigned i = 0; i < ram->n_blocks; i++)
            if (ram->block[i].file >= 0)
                close(ram->block[i].file);
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

static int outside(const struct gw_ram_block *block, uint64_t end, struct gw_error *error)
{
    return gw_error_set(error, GW_E_PROTOCOL, "RAM block %s does not reach to 0x%" PRIx64,
                        block->name, end);
}

static bool has_ended(const struct gw_ram *ram)
{
    struct pollfd end = {.fd = ram->pidfd, .events = POLLIN};
    int r;

    do
        r = poll(&end, 1, 0);
    while (r < 0 && errno == EINTR);
    return r != 0;
}

static int failed_at(const struct gw_ram *ram, const struct gw_ram_block *block, const char *verb,
                     uint64_t offset, int error_no, struct gw_error *error)
{
    gw_error_set_sys(error, error_no, "%s RAM block %s of QEMU (pid %d) at 0x%" PRIx64, verb,
                     block->name, (int)ram->pid, offset);
    hint(error_no, error);
    return -1;
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
            return outside(block, part->offset + part->n_bytes, error);
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

/* Of up to LOOK_PAGES pages those that are there, swapped out or not, become parts. */
static void find_pages(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                       unsigned char *here, size_t n, struct gw_ram_parts *parts)
{
    off_t at = (off_t)((block->address + offset) / GW_PAGE_BYTES * sizeof(uint64_t));
    uint64_t entry[LOOK_PAGES];
    bool is_known = block->anonymous && pread(ram->pagemap, entry, n * sizeof *entry, at) ==
                                            (ssize_t)(n * sizeof *entry);

    for (size_t i = 0; i < n; i++)
        if (!is_known || entry[i] & PAGEMAP_THERE)
            gw_ram_add_part(parts, offset + i * GW_PAGE_BYTES, here + i * GW_PAGE_BYTES,
                            GW_PAGE_BYTES);
        else
            memset(here + i * GW_PAGE_BYTES, 0, GW_PAGE_BYTES);
}

int gw_ram_look(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                void *here, size_t n_bytes, struct gw_error *error)
{
    if (!gw_ram_holds(block, offset, n_bytes))
        return outside(block, offset + n_bytes, error);
    if (block->file >= 0 &&
        pread(block->file, here, n_bytes, (off_t)(block->file_offset + offset)) == (ssize_t)n_bytes)
        return 0;
    for (size_t at = 0, n; at < n_bytes; at += n) {
        struct gw_ram_parts parts = {.n = 0};

        n = n_bytes - at < LOOK_PAGES * GW_PAGE_BYTES ? n_bytes - at : LOOK_PAGES * GW_PAGE_BYTES;
        find_pages(ram, block, offset + at, (unsigned char *)here + at, n / GW_PAGE_BYTES, &parts);
        if (gw_ram_read(ram, block, &parts, error) < 0)
            return -1;
    }
    return 0;
}

static int zero_some(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                     size_t n_bytes, struct gw_error *error)
{
    unsigned char here[ZERO_BYTES];
    struct gw_ram_parts dirty = {.n = 0};

    if (gw_ram_look(ram, block, offset, here, n_bytes, error) < 0)
        return -1;
    for (size_t at = 0; at < n_bytes; at += GW_PAGE_BYTES)
        if (!gw_page_is_zero(here + at)) {
            memset(here + at, 0, GW_PAGE_BYTES);
            gw_ram_add_part(&dirty, offset + at, here + at, GW_PAGE_BYTES);
        }
    return gw_ram_write(ram, block, &dirty, error);
}

int gw_ram_zero(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                size_t n_bytes, struct gw_error *error)
{
    if (!gw_ram_holds(block, offset, n_bytes))
        return outside(block, offset + n_bytes, error);
    for (size_t at = 0, n; at < n_bytes; at += n) {
        n = n_bytes - at < ZERO_BYTES ? n_bytes - at : ZERO_BYTES;
        if (zero_some(ram, block, offset + at, n, error) < 0)
            return -1;
    }
    return 0;
}
