/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault+…: a bad network on demand, the same one for the same seed, lane and calls.
 *
 * Keys (each fault is off without its key; n counts bytes of one lane and direction, from 1):
 *   seed      of the random numbers; 1
 *   lane      only this lane is faulty; all
 *   way       send or receive: only this direction is faulty; both
 *   short     bytes move in random steps of 1 to this many
 *   delay     each step waits for a random time up to this
 *   corrupt   byte n arrives with one bit flipped (receiving only: what is sent is the caller's)
 *   cut       after n bytes the lane fails with ECONNRESET, and the peer's too
 *   stall     after n bytes nothing moves any more, for stall_for (for good)
 */
#ifndef GW_TRANSPORTS_FAULT_H
#define GW_TRANSPORTS_FAULT_H

#include "godwit/transport.h"
#include "transports/uri.h"

int gw_fault_new(struct gw_uri *uri, struct gw_transport *next, struct gw_transport **transportp,
                 struct gw_error *error);

#endif
