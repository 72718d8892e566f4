/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses that a VM's NICs have claimed (host/addresses.h), heard at its taps for as long as
 * it is on this node, and brought along when it moves. They are part of what the journal has of the
 * VM: a guest that has claimed its address once need not do so again for a daemon that is
 * restarted.
 *
 * A guest that claims without end costs a bounded number of reads, and one write of the journal for
 * each of its NICs, a second.
 */
#ifndef GW_SHELL_GUESTADDR_H
#define GW_SHELL_GUESTADDR_H

#include <jansson.h>

#include "host/addresses.h"

struct gw_vm;
struct gw_guestaddr;

/* Begins to listen to the taps that this daemon made for it. NULL if there is none, or if the
 * configuration does not want it. A tap that cannot be listened to is logged. */
struct gw_guestaddr *gw_guestaddr_open(struct gw_vm *vm);

/* NULL is fine, here and below: nothing is known then. */
void gw_guestaddr_free(struct gw_guestaddr *g);

/* What is known of the NIC with that index in the VM's list, up to this moment; NULL: no such NIC.
 * Valid until the next call. */
const struct gw_addresses *gw_guestaddr_of(struct gw_guestaddr *g, unsigned nic);

/* An array of {"nic", "addresses"} for another node; a new reference. */
json_t *gw_guestaddr_to_json(struct gw_guestaddr *g);

/* Adds what a peer or the journal says; untrusted: what is malformed is passed over. */
void gw_guestaddr_from_json(struct gw_guestaddr *g, const json_t *json);

#endif
