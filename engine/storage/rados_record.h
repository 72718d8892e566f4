/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An owner record as it stands in a RADOS object: one line of text, each column of a fixed width,
 * so that a compare of the first bytes is a compare of the first columns.
 *
 *     GWOWNER1 UUID EPOCH NODE RUN TIME NONCE SUM\n
 *
 * EPOCH and TIME (ms) are 20 decimal digits, NODE is padded with spaces to 63, RUN is 0 or 1,
 * NONCE and SUM (FNV-1a over all before it) are 16 hexadecimal digits.
 */
#ifndef GW_STORAGE_RADOS_RECORD_H
#define GW_STORAGE_RADOS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "godwit/storage.h"

enum {
    GW_RADOS_RECORD_STATE_BYTES = 9 + 37 + 21 + 64, /* up to and with NODE and its space */
    GW_RADOS_RECORD_RUN_BYTES = GW_RADOS_RECORD_STATE_BYTES + 2,
    GW_RADOS_RECORD_BYTES = GW_RADOS_RECORD_RUN_BYTES + 21 + 17 + 17,
};

/* owner must be gw_owner_ok(). No NUL is written. */
void gw_rados_record_encode(const struct gw_owner *owner, uint64_t nonce,
                            char out[GW_RADOS_RECORD_BYTES]);

/* Whether the bytes are a record of this VM, exactly as encode writes it. */
bool gw_rados_record_decode(const char *bytes, size_t len, const char *uuid, struct gw_owner *owner,
                            uint64_t *noncep);

#endif
