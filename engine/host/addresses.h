/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses that a guest's NIC has claimed, as its neighbours have heard it.
 *
 * A claim is what the guest itself says of its own address: the sender of an ARP packet (RFC 826),
 * the source of a neighbour or router solicitation and the target of a neighbour advertisement (RFC
 * 4861). The source of any other packet is none: a guest that forwards, or that answers for a load
 * balancer (direct server return), sends packets with addresses that are not its own, and a host
 * that announced those would take traffic away from their owners.
 *
 * No I/O. All bytes are the guest's or a peer's, and untrusted.
 */
#ifndef GW_HOST_ADDRESSES_H
#define GW_HOST_ADDRESSES_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#define GW_ADDRESSES_EACH 8u /* of each family; the newest stay */
#define GW_ADDRESSES_MAX  (2 * GW_ADDRESSES_EACH)
/* The longest claim is an ICMPv6 message behind its headers; what is behind its options is nobody's
 * matter. */
#define GW_ADDRESSES_FRAME_BYTES 256u

struct gw_address {
    int family;        /* AF_INET or AF_INET6 */
    uint8_t bytes[16]; /* of IPv4 the first 4; the others are 0 */
};

/* All zero: none. Oldest first. */
struct gw_addresses {
    struct gw_address items[GW_ADDRESSES_MAX];
    size_t n;
};

/* The newest of its family; the oldest of eight goes. False, and nothing changes, if it is no
 * address that a NIC can have: unspecified, loopback, multicast, IPv4 in IPv6. */
bool gw_addresses_add(struct gw_addresses *a, int family, const uint8_t *bytes);

/*
 * A frame that the NIC with that MAC sent, from its Ethernet header on and without a VLAN tag; it
 * may be cut after GW_ADDRESSES_FRAME_BYTES. True: it was a claim, and is noted.
 */
bool gw_addresses_hear(struct gw_addresses *a, const uint8_t mac[6], const uint8_t *frame,
                       size_t n_bytes);

/* An array of texts, oldest first; a new reference. */
json_t *gw_addresses_to_json(const struct gw_addresses *a);

/* Adds those of such an array, of which GW_ADDRESSES_MAX are looked at. What is no address is
 * passed over. */
void gw_addresses_from_json(struct gw_addresses *a, const json_t *json);

/* The text of one of them. */
void gw_address_text(const struct gw_address *address, char out[INET6_ADDRSTRLEN]);

#endif
