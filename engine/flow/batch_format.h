/* SPDX-License-Identifier: Apache-2.0 */
/* What both directions know of the format of batches; described in batch.h. */
#ifndef GW_FLOW_BATCH_FORMAT_H
#define GW_FLOW_BATCH_FORMAT_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#include "flow/batch.h"
#include "flow/hash.h"

#define GW_BATCH_MAGIC 0x47575042u /* "GWPB"; also the seed of the checksum */
/* Page numbers are below this, so that an entry fits 8 bytes of 7 bits. */
#define GW_BATCH_PAGE_NO_END (UINT64_C(1) << 50)

struct gw_batch_header {
    uint32_t magic;
    uint8_t version;
    uint8_t codec;
    uint8_t n_pages;
    uint8_t n_name;
    uint32_t wire_body_bytes;
    uint32_t body_bytes;
    uint64_t checksum;
    uint8_t piece_shift;
    uint8_t zero[3];
} __attribute__((packed));

_Static_assert(sizeof(struct gw_batch_header) == GW_BATCH_HEADER_BYTES, "no padding");

/* Names come from a peer and go into messages. */
static inline bool gw_batch_name_ok(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (name[i] < 0x20 || name[i] > 0x7e)
            return false;
    return len >= 1 && len <= GW_BATCH_MAX_NAME;
}

static inline void gw_batch_hash_entry(XXH3_state_t *hash, uint64_t offset, enum gw_page_kind kind)
{
    unsigned char entry[9];
    uint64_t be = htobe64(offset);

    memcpy(entry, &be, 8);
    entry[8] = kind == GW_PAGE_ZERO;
    XXH3_64bits_update(hash, entry, sizeof entry);
}

#endif
