/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/digest.h"

#include "flow/hash.h"

int gw_digest_open(struct gw_ram *ram, pid_t pid, const char *info_ramblock, struct gw_error *error)
{
    if (gw_ram_open(ram, pid, info_ramblock, error) < 0)
        return -1;
    if (ram->n_blocks)
        return 0;
    gw_ram_close(ram);
    gw_error_set(error, GW_E_UNSUPPORTED, "QEMU (pid %d) does not tell where its RAM is", (int)pid);
    return gw_error_hint(error, "memory is verified with QEMU 8.0 or newer");
}

uint64_t gw_digest_bytes(const struct gw_ram *ram)
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

static size_t count_regions(const struct gw_ram *ram, uint64_t region_bytes)
{
    size_t n = 0;

    for (unsigned i = 0; i < ram->n_blocks; i++)
        n += gw_digest_n_regions(ram->block[i].n_bytes, region_bytes);
    return n;
}

uint64_t gw_digest_region_bytes(const struct gw_ram *ram)
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

size_t gw_digest_regions(const struct gw_ram *ram, uint64_t region_bytes,
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

int gw_digest_hash(const struct gw_ram *ram, struct gw_digest_unit *unit, uint8_t *buffer,
                   struct gw_error *error)
{
    const struct gw_ram_block *block = &ram->block[unit->block];
    XXH3_state_t state;

    XXH3_64bits_reset(&state);
    for (uint64_t done = 0; done < unit->n_bytes;) {
        uint64_t left = unit->n_bytes - done;
        size_t n = left < GW_DIGEST_BUFFER_BYTES ? (size_t)left : GW_DIGEST_BUFFER_BYTES;

        if (gw_ram_look(ram, block, unit->offset + done, buffer, n, error) < 0)
            return -1;
        XXH3_64bits_update(&state, buffer, n);
        done += n;
    }
    unit->hash = XXH3_64bits_digest(&state);
    return 0;
}
