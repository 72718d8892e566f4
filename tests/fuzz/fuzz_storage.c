/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in a RADOS object or comes in a notification, and the name of an image. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "storage/rados_record.h"
#include "storage/rbd.h"
#include "util/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char again[GW_RADOS_RECORD_BYTES], uuid[GW_OWNER_UUID_MAX + 1] = "";
    gw_autofree char *text = strndup((const char *)data, size);
    struct gw_rbd_spec spec;
    struct gw_owner owner;
    struct gw_error error;
    uint64_t nonce;

    if (size > 9 + GW_OWNER_UUID_MAX)
        memcpy(uuid, data + 9, GW_OWNER_UUID_MAX);
    if (gw_rados_record_decode((const char *)data, size, uuid, &owner, &nonce)) {
        gw_rados_record_encode(&owner, nonce, again);
        if (memcmp(data, again, sizeof again) != 0)
            abort();
    }
    if (gw_rbd_spec_parse(text, &spec, &error) == 0 && (!spec.pool[0] || !spec.image[0]))
        abort();
    gw_rados_address_ok(text);
    return 0;
}
