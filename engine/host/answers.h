/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether one Ethernet frame proves that another was received: it goes back to the sender and names
 * what it answers. That is so for ARP (RFC 826), for an echo request (RFC 792 and 4443: identifier
 * and sequence number) and for data over TCP (RFC 9293: it is acknowledged). UDP has no such thing:
 * what comes back may answer an earlier packet. Of other protocols, and of fragments, VLAN tags and
 * IPv6 extension headers, nothing is known, so nothing is proved.
 *
 * Pure; both frames are untrusted.
 */
#ifndef GW_HOST_ANSWERS_H
#define GW_HOST_ANSWERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A frame from its destination's MAC on. */
struct gw_ether_frame {
    const uint8_t *bytes;
    size_t n_bytes;
};

/* False: it is not known to. */
bool gw_frame_answers(const struct gw_ether_frame *frame, const struct gw_ether_frame *asked);

#endif
