/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/rados_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "storage/owner.h"

enum { SUM_AT = GW_RADOS_RECORD_BYTES - 17 };

static uint64_t fnv1a(const char *bytes, size_t len)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

void gw_rados_record_encode(const struct gw_owner *owner, uint64_t nonce,
                            char out[GW_RADOS_RECORD_BYTES])
{
    char line[GW_RADOS_RECORD_BYTES + 1];

    snprintf(line, sizeof line,
             "GWOWNER1 %36s %020" PRIu64 " %-63s %d %020" PRIu64 " %016" PRIx64 " ", owner->uuid,
             owner->epoch, owner->node, owner->may_have_run, owner->updated_at_ms, nonce);
    snprintf(line + SUM_AT, sizeof line - SUM_AT, "%016" PRIx64 "\n", fnv1a(line, SUM_AT));
    memcpy(out, line, GW_RADOS_RECORD_BYTES);
}

/* Believes a line only if writing its content again gives the same line. */
bool gw_rados_record_decode(const char *bytes, size_t len, const char *uuid, struct gw_owner *owner,
                            uint64_t *noncep)
{
    char line[GW_RADOS_RECORD_BYTES + 1] = "", again[GW_RADOS_RECORD_BYTES];
    unsigned run;

    memset(owner, 0, sizeof *owner);
    if (len != GW_RADOS_RECORD_BYTES)
        return false;
    memcpy(line, bytes, len);
    if (sscanf(line, "GWOWNER1 %36s %20" SCNu64 " %63s %1u %20" SCNu64 " %16" SCNx64, owner->uuid,
               &owner->epoch, owner->node, &run, &owner->updated_at_ms, noncep) != 6)
        return false;
    owner->may_have_run = run;
    if (!gw_owner_ok(owner) || strcmp(owner->uuid, uuid) != 0)
        return false;
    gw_rados_record_encode(owner, *noncep, again);
    return memcmp(line, again, sizeof again) == 0;
}
