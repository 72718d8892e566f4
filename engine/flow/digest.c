/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/digest.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static ssize_t read_some(const struct gw_digest_ram *ram, const struct gw_digest_block *block,
                         uint64_t offset, uint8_t *to, size_t n_bytes)
{
    struct iovec local = {to, n_bytes};
    struct iovec remote = {(void *)(uintptr_t)(block->address + offset), n_bytes};

    if (block->shared)
        return pread(block->shared->fd, to, n_bytes, (off_t)(block->shared->fd_offset + offset));
    return process_vm_readv(ram->pid, &local, 1, &remote, 1, 0);
}

static int read_all(const struct gw_digest_ram *ram, const struct gw_digest_block *block,
                    uint64_t offset, uint8_t *to, size_t n_bytes, struct gw_error *error)
{
    size_t n_read = 0;

    while (n_read < n_bytes) {
        ssize_t n = read_some(ram, block, offset + n_read, to + n_read, n_bytes - n_read);

        if (n > 0) {
            n_read += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            gw_error_set_sys(error, n == 0 ? EFAULT : errno,
                             "read RAM block %s of QEMU (pid %d) at 0x%" PRIx64, block->name,
                             (int)ram->pid, offset + n_read);
            return gw_error_hint(error, "run the daemon as root or as the user of QEMU");
        }
    }
    return 0;
}

static int add_block(struct gw_digest_ram *ram, const struct gw_ram_line *line,
                     struct gw_error *error)
{
    struct gw_digest_block *block = &ram->block[ram->n_blocks];
    uint8_t probe[64];

    if (ram->n_blocks == GW_RAM_BLOCKS_MAX)
        return gw_error_set(error, GW_E_UNSUPPORTED, "QEMU has more than %d RAM blocks",
                            GW_RAM_BLOCKS_MAX);
    memcpy(block->name, line->name, sizeof block->name);
    block->n_bytes = line->used_bytes;
    block->address = line->address;
    block->shared = gw_ram_find(&ram->shared, line->name);
    if (block->shared && block->shared->n_bytes != block->n_bytes)
        return gw_error_set(error, GW_E_UNSUPPORTED, "QEMU has two RAM blocks %s", block->name);
    ram->n_blocks++;
    return read_all(ram, block, 0, probe,
                    block->n_bytes < sizeof probe ? (size_t)block->n_bytes : sizeof probe, error);
}

static int add_blocks(struct gw_digest_ram *ram, const char *info_ramblock, struct gw_error *error)
{
    for (const char *at = info_ramblock; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        struct gw_ram_line line;

        if (gw_ram_parse_line(at, &line) == 0 && add_block(ram, &line, error) < 0)
            return -1;
    }
    if (ram->n_blocks)
        return 0;
    gw_error_set(error, GW_E_UNSUPPORTED, "QEMU (pid %d) does not tell where its RAM is",
                 (int)ram->pid);
    return gw_error_hint(error, "memory is verified with QEMU 8.0 or newer");
}

int gw_digest_open(struct gw_digest_ram *ram, pid_t pid, const char *info_ramblock,
                   struct gw_error *error)
{
    memset(ram, 0, sizeof *ram);
    ram->pid = pid;
    if (gw_ram_open(&ram->shared, pid, info_ramblock, error) < 0)
        return -1;
    if (add_blocks(ram, info_ramblock, error) == 0)
        return 0;
    gw_digest_close(ram);
    return -1;
}

void gw_digest_close(struct gw_digest_ram *ram)
{
    gw_ram_close(&ram->shared);
    ram->n_blocks = 0;
}

uint64_t gw_digest_bytes(const struct gw_digest_ram *ram)
{
    uint64_t n_bytes = 0;

    for (unsigned i = 0; i < ram->n_blocks; i++)
        n_bytes += ram->block[i].n_bytes;
    return n_bytes;
}

size_t gw_digest_n_regions(uint64_t n_bytes, uint64_t region_bytes)
{
    return (size_t)(n_bytes / region_bytes + (n_bytes % region_bytes != 0));
}

static size_t count_regions(const struct gw_digest_ram *ram, uint64_t region_bytes)
{
    size_t n = 0;

    for (unsigned i = 0; i < ram->n_blocks; i++)
        n += gw_digest_n_regions(ram->block[i].n_bytes, region_bytes);
    return n;
}

uint64_t gw_digest_region_bytes(const struct gw_digest_ram *ram)
{
    for (uint64_t bytes = GW_DIGEST_REGION_MIN; bytes <= GW_DIGEST_REGION_MAX; bytes *= 2)
        if (count_regions(ram, bytes) <= GW_DIGEST_UNITS_MAX)
            return bytes;
    return 0;
}

static size_t cut(unsigned block, uint64_t from, uint64_t to, uint64_t step,
                  struct gw_digest_unit *units)
{
    size_t n = 0;

    for (uint64_t at = from; at < to; at += step)
        units[n++] = (struct gw_digest_unit){block, at, to - at < step ? to - at : step, .hash = 0};
    return n;
}

size_t gw_digest_regions(const struct gw_digest_ram *ram, uint64_t region_bytes,
                         struct gw_digest_unit *units, size_t n_max)
{
    size_t n = 0;

    if (region_bytes < GW_DIGEST_REGION_MIN || region_bytes > GW_DIGEST_REGION_MAX ||
        (region_bytes & (region_bytes - 1)) || count_regions(ram, region_bytes) > n_max)
        return 0;
    for (unsigned i = 0; i < ram->n_blocks; i++)
        n += cut(i, 0, ram->block[i].n_bytes, region_bytes, units + n);
    return n;
}

size_t gw_digest_pages(const struct gw_digest_unit *unit, struct gw_digest_unit *pages,
                       size_t n_max)
{
    if (gw_digest_n_regions(unit->n_bytes, GW_DIGEST_PAGE_BYTES) > n_max)
        return 0;
    return cut(unit->block, unit->offset, unit->offset + unit->n_bytes, GW_DIGEST_PAGE_BYTES,
               pages);
}

int gw_digest_hash(const struct gw_digest_ram *ram, struct gw_digest_unit *unit, uint8_t *buffer,
                   struct gw_error *error)
{
    const struct gw_digest_block *block = &ram->block[unit->block];
    XXH3_state_t state;

    XXH3_64bits_reset(&state);
    for (uint64_t done = 0; done < unit->n_bytes;) {
        uint64_t left = unit->n_bytes - done;
        size_t n = left < GW_DIGEST_BUFFER_BYTES ? (size_t)left : GW_DIGEST_BUFFER_BYTES;

        if (read_all(ram, block, unit->offset + done, buffer, n, error) < 0)
            return -1;
        XXH3_64bits_update(&state, buffer, n);
        done += n;
    }
    unit->hash = XXH3_64bits_digest(&state);
    return 0;
}
