/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/carrier_offer.h"

#include <stdio.h>
#include <string.h>

#include "shell/carrier.h"

#define BLOCK_BYTES_MAX ((json_int_t)1 << 46)

json_t *gw_carrier_offer_to_json(const uint8_t secret[16], const struct gw_ram *ram)
{
    json_t *blocks = json_array();
    char hex[33];

    for (unsigned i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", secret[i]);
    for (unsigned i = 0; i < ram->n_blocks; i++)
        if (ram->block[i].writable)
            json_array_append_new(blocks, json_pack("{s:s, s:I}", "name", ram->block[i].name,
                                                    "bytes", (json_int_t)ram->block[i].n_bytes));
    return json_pack("{s:i, s:s, s:o}", "version", GW_CARRIER_VERSION, "secret", hex, "blocks",
                     blocks);
}

static int read_secret(const char *hex, uint8_t secret[16])
{
    if (!hex || strlen(hex) != 32 || strspn(hex, "0123456789abcdef") != 32)
        return -1;
    for (unsigned i = 0; i < 16; i++) {
        unsigned byte;

        sscanf(hex + 2 * i, "%2x", &byte);
        secret[i] = (uint8_t)byte;
    }
    return 0;
}

static int read_blocks(const json_t *blocks, unsigned percent, uint64_t left_bytes,
                       struct gw_sender_ram *ram, struct gw_error *error)
{
    json_t *entry;
    size_t i;

    json_array_foreach (blocks, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        json_int_t n_bytes = json_integer_value(json_object_get(entry, "bytes"));
        uint64_t history_bytes;

        if (!name || n_bytes < 1 || n_bytes > BLOCK_BYTES_MAX)
            return gw_error_set(error, GW_E_PROTOCOL, "a RAM block has no name or no size");
        history_bytes = (uint64_t)n_bytes / 100 * percent;
        if (history_bytes > left_bytes)
            history_bytes = left_bytes;
        left_bytes -= history_bytes;
        if (gw_sender_ram_add(ram, name, (uint64_t)n_bytes, history_bytes, error) < 0)
            return -1;
    }
    return 0;
}

int gw_carrier_offer_from_json(const json_t *json, unsigned percent, uint64_t guest_bytes,
                               uint8_t secret[16], struct gw_sender_ram *ram,
                               struct gw_error *error)
{
    const json_t *blocks = json_object_get(json, "blocks");

    memset(ram, 0, sizeof *ram);
    if (json_integer_value(json_object_get(json, "version")) != GW_CARRIER_VERSION) {
        gw_error_set(error, GW_E_UNSUPPORTED,
                     "the destination does not speak version %d of the "
                     "carrier",
                     GW_CARRIER_VERSION);
        return gw_error_hint(error,
                             "run the same release of Godwit on both nodes, or use --route native");
    }
    if (!json_is_array(blocks) || json_array_size(blocks) > GW_RAM_BLOCKS_MAX ||
        read_secret(json_string_value(json_object_get(json, "secret")), secret) < 0)
        return gw_error_set(error, GW_E_PROTOCOL, "what it says of its carrier is malformed");
    if (read_blocks(blocks, percent, guest_bytes / 100 * percent, ram, error) == 0)
        return 0;
    gw_sender_ram_fini(ram);
    return -1;
}
