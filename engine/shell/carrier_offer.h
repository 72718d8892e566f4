/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the destination tells the source of its carrier, in PREPARED over the control connection:
 *
 *     {"version": 1, "secret": "32 hex digits", "blocks": [{"name": "ram0", "bytes": 1073741824}]}
 *
 * blocks are the RAM blocks whose pages it can put in place; those of others pass through QEMU.
 */
#ifndef GW_SHELL_CARRIER_OFFER_H
#define GW_SHELL_CARRIER_OFFER_H

#include <stdint.h>
#include <jansson.h>

#include "flow/ram.h"
#include "flow/sender.h"
#include "godwit/error.h"

/* A new reference. */
json_t *gw_carrier_offer_to_json(const uint8_t secret[16], const struct gw_ram *ram);

/*
 * json is borrowed and untrusted; NULL: the peer has sent none. percent: of each block, the limit
 * of its history; 0: none. guest_bytes: the guest's RAM as this node knows it; the histories of all
 * blocks get no more than percent of that, whatever sizes the peer names. 0 with *ram, which was
 * zeroed and is to be fini'd; -1 with *error and nothing held: GW_E_UNSUPPORTED or GW_E_PROTOCOL.
 */
int gw_carrier_offer_from_json(const json_t *json, unsigned percent, uint64_t guest_bytes,
                               uint8_t secret[16], struct gw_sender_ram *ram,
                               struct gw_error *error);

#endif
