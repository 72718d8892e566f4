/* SPDX-License-Identifier: Apache-2.0 */
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <string.h>

#include "host/addresses.h"

/* RFC 826, for Ethernet and IPv4. */
struct arp {
    uint8_t head[6]; /* hardware and protocol, and how long their addresses are */
    uint8_t operation[2];
    uint8_t sender_mac[ETH_ALEN], sender[4], target_mac[ETH_ALEN], target[4];
};
_Static_assert(sizeof(struct arp) == 28, "as on the wire");

static size_t size_of(int family)
{
    return family == AF_INET ? 4 : 16;
}

static bool may_be_a_nics(int family, const uint8_t *b)
{
    static const uint8_t zero[12];

    if (family == AF_INET) /* this network, loopback, multicast and reserved */
        return b[0] != 0 && b[0] != 127 && b[0] < 224;
    /* ::/96 has the unspecified and the loopback address; ::ffff:0:0/96 is IPv4 */
    return family == AF_INET6 && b[0] != 0xff && memcmp(b, zero, sizeof zero) != 0 &&
           (memcmp(b, zero, 10) != 0 || b[10] != 0xff || b[11] != 0xff);
}

static void drop(struct gw_addresses *a, size_t i)
{
    a->n--;
    memmove(&a->items[i], &a->items[i + 1], (a->n - i) * sizeof a->items[0]);
}

/* Where it is; otherwise, if its family is full, where the oldest of that is; otherwise a->n. */
static size_t place_of(const struct gw_addresses *a, const struct gw_address *address)
{
    size_t n_family = 0, oldest = a->n;

    for (size_t i = 0; i < a->n; i++) {
        if (a->items[i].family != address->family)
            continue;
        if (memcmp(a->items[i].bytes, address->bytes, sizeof address->bytes) == 0)
            return i;
        if (n_family++ == 0)
            oldest = i;
    }
    return n_family < GW_ADDRESSES_EACH ? a->n : oldest;
}

bool gw_addresses_add(struct gw_addresses *a, int family, const uint8_t *bytes)
{
    struct gw_address address = {.family = family};
    size_t i;

    if (!may_be_a_nics(family, bytes))
        return false;
    memcpy(address.bytes, bytes, size_of(family));
    i = place_of(a, &address);
    if (i < a->n)
        drop(a, i);
    a->items[a->n++] = address;
    return true;
}

static bool hear_arp(struct gw_addresses *a, const uint8_t mac[6], const uint8_t *bytes, size_t n)
{
    static const uint8_t ethernet_ipv4[6] = {0, 1, 0x08, 0, ETH_ALEN, 4};
    struct arp arp;

    if (n < sizeof arp)
        return false;
    memcpy(&arp, bytes, sizeof arp);
    return memcmp(arp.head, ethernet_ipv4, sizeof ethernet_ipv4) == 0 && arp.operation[0] == 0 &&
           (arp.operation[1] == 1 || arp.operation[1] == 2) &&
           memcmp(arp.sender_mac, mac, ETH_ALEN) == 0 && gw_addresses_add(a, AF_INET, arp.sender);
}

/* Whether the link-layer address among these options is that MAC; also if there is none. */
static bool options_agree(const uint8_t *at, size_t n, uint8_t type, const uint8_t mac[6])
{
    while (n >= 8) {
        size_t n_option = at[1] * 8u;

        if (n_option == 0 || n_option > n)
            return false;
        if (at[0] == type && memcmp(at + 2, mac, ETH_ALEN) != 0)
            return false;
        at += n_option;
        n -= n_option;
    }
    return true;
}

/* message is what follows the IPv6 header. */
static bool hear_discovery(struct gw_addresses *a, const uint8_t mac[6],
                           const struct in6_addr *source, const uint8_t *message, size_t n)
{
    struct nd_neighbor_advert advert; /* as long as a neighbour solicitation */
    size_t n_head =
        message[0] == ND_ROUTER_SOLICIT ? sizeof(struct nd_router_solicit) : sizeof advert;

    if (n < n_head)
        return false;
    switch (message[0]) {
    case ND_ROUTER_SOLICIT:
    case ND_NEIGHBOR_SOLICIT:
        return options_agree(message + n_head, n - n_head, ND_OPT_SOURCE_LINKADDR, mac) &&
               gw_addresses_add(a, AF_INET6, source->s6_addr);
    case ND_NEIGHBOR_ADVERT:
        memcpy(&advert, message, sizeof advert);
        /* Without "override" it may be somebody's for whom the guest answers. */
        return (advert.nd_na_flags_reserved & ND_NA_FLAG_OVERRIDE ||
                memcmp(&advert.nd_na_target, source, sizeof *source) == 0) &&
               options_agree(message + n_head, n - n_head, ND_OPT_TARGET_LINKADDR, mac) &&
               gw_addresses_add(a, AF_INET6, advert.nd_na_target.s6_addr);
    default: return false;
    }
}

static bool hear_ipv6(struct gw_addresses *a, const uint8_t mac[6], const uint8_t *bytes, size_t n)
{
    struct ip6_hdr ip;
    size_t n_payload;

    if (n <= sizeof ip)
        return false;
    memcpy(&ip, bytes, sizeof ip);
    n_payload = ntohs(ip.ip6_plen);
    n -= sizeof ip;
    /* 255: no router has passed it on (RFC 4861, 7.1) */
    return ip.ip6_vfc >> 4 == 6 && ip.ip6_nxt == IPPROTO_ICMPV6 && ip.ip6_hlim == 255 &&
           n_payload > 0 &&
           hear_discovery(a, mac, &ip.ip6_src, bytes + sizeof ip, n < n_payload ? n : n_payload);
}

bool gw_addresses_hear(struct gw_addresses *a, const uint8_t mac[6], const uint8_t *frame,
                       size_t n_bytes)
{
    struct ether_header ether;

    if (n_bytes < sizeof ether)
        return false;
    memcpy(&ether, frame, sizeof ether);
    if (memcmp(ether.ether_shost, mac, ETH_ALEN) != 0)
        return false;
    frame += sizeof ether;
    n_bytes -= sizeof ether;
    switch (ntohs(ether.ether_type)) {
    case ETHERTYPE_ARP: return hear_arp(a, mac, frame, n_bytes);
    case ETHERTYPE_IPV6: return hear_ipv6(a, mac, frame, n_bytes);
    default: return false;
    }
}

void gw_address_text(const struct gw_address *address, char out[INET6_ADDRSTRLEN])
{
    inet_ntop(address->family, address->bytes, out, INET6_ADDRSTRLEN);
}

json_t *gw_addresses_to_json(const struct gw_addresses *a)
{
    json_t *json = json_array();
    char text[INET6_ADDRSTRLEN];

    for (size_t i = 0; i < a->n; i++) {
        gw_address_text(&a->items[i], text);
        json_array_append_new(json, json_string(text));
    }
    return json;
}

void gw_addresses_from_json(struct gw_addresses *a, const json_t *json)
{
    for (size_t i = 0; i < json_array_size(json) && i < GW_ADDRESSES_MAX; i++) {
        const char *text = json_string_value(json_array_get(json, i));
        uint8_t bytes[16];

        if (text && inet_pton(AF_INET, text, bytes) == 1)
            gw_addresses_add(a, AF_INET, bytes);
        else if (text && inet_pton(AF_INET6, text, bytes) == 1)
            gw_addresses_add(a, AF_INET6, bytes);
    }
}
