/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashes of a QEMU's RAM, wherever it is, to compare it with another QEMU's.
 *
 * What `info ramblock` names is hashed: guest RAM, firmware, video memory, tables; whatever QEMU
 * migrates and, where a block takes no part, what the same machine holds at the other end. Memory
 * that was never touched counts as zeros, and none is taken for it.
 *
 * The hash is XXH3 with 64 bits: a difference is missed with a probability of 2^-64. It is no
 * defence against somebody who chooses the memory.
 *
 * Nothing here has a thread or changes after gw_digest_open(): any number of threads may hash.
 */
#ifndef GW_FLOW_DIGEST_H
#define GW_FLOW_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "flow/ram.h"
#include "godwit/error.h"

#define GW_DIGEST_PAGE_BYTES   4096
#define GW_DIGEST_BUFFER_BYTES (256 * 1024)
#define GW_DIGEST_REGION_MIN   (256u * 1024)
#define GW_DIGEST_REGION_MAX   (64u * 1024 * 1024)
#define GW_DIGEST_UNITS_MAX    32768 /* so 2 TiB is the largest guest */

/* A piece of a block, and its hash once it was hashed. */
struct gw_digest_unit {
    unsigned block;
    uint64_t offset, n_bytes;
    uint64_t hash;
};

/* As gw_ram_open(), but RAM that cannot be found is an error, too: GW_E_UNSUPPORTED. */
int gw_digest_open(struct gw_ram *ram, pid_t pid, const char *info_ramblock,
                   struct gw_error *error);

uint64_t gw_digest_bytes(const struct gw_ram *ram);

/* The smallest region, a power of two, with which this RAM makes no more than GW_DIGEST_UNITS_MAX
 * units; 0: not even the largest does. */
uint64_t gw_digest_region_bytes(const struct gw_ram *ram);

/* All RAM in regions, block by block; a block's last one is shorter. Returns how many; 0: more than
 * n_max, or region_bytes is not a power of two within its bounds. */
size_t gw_digest_regions(const struct gw_ram *ram, uint64_t region_bytes,
                         struct gw_digest_unit *units, size_t n_max);

/* How many regions a block of n_bytes has. */
size_t gw_digest_n_regions(uint64_t n_bytes, uint64_t region_bytes);

/* The pages of one unit. Returns how many; 0: more than n_max. */
size_t gw_digest_pages(const struct gw_digest_unit *unit, struct gw_digest_unit *pages,
                       size_t n_max);

/* Fills unit->hash. buffer has GW_DIGEST_BUFFER_BYTES. 0; -1 with *error. */
int gw_digest_hash(const struct gw_ram *ram, struct gw_digest_unit *unit, uint8_t *buffer,
                   struct gw_error *error);

#endif
