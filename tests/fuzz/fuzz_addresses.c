/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of a guest, one after the other: a byte with the length, then the frame. What is noted
 * must be bounded, be the guest's MAC's, and survive the way to another node.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/addresses.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t mac[6] = {0x52, 0x54, 0, 0x77, 0, 0x64};

static void check(const struct gw_addresses *a)
{
    struct gw_addresses again = {0};
    json_t *json = gw_addresses_to_json(a);

    if (a->n > GW_ADDRESSES_MAX || json_array_size(json) != a->n)
        abort();
    gw_addresses_from_json(&again, json);
    if (memcmp(a, &again, offsetof(struct gw_addresses, items) + a->n * sizeof a->items[0]) != 0 ||
        again.n != a->n)
        abort();
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_addresses a = {0};
    size_t n;

    for (; size > 0; data += n, size -= n) {
        uint8_t *frame;

        n = data[0] < size - 1 ? data[0] : size - 1;
        data++, size--;
        frame = malloc(n ? n : 1); /* of its own size: reads behind it are seen */
        if (!frame)
            abort();
        memcpy(frame, data, n);
        if (gw_addresses_hear(&a, mac, frame, n) && (n < 42 || memcmp(frame + 6, mac, 6) != 0))
            abort();
        free(frame);
    }
    check(&a);
    return 0;
}
