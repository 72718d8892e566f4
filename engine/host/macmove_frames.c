/* SPDX-License-Identifier: Apache-2.0 */
/* What a NIC says when it has moved: RFC 903 as QEMU does it, RFC 5227 and RFC 4861. */
#include <arpa/inet.h>
#include <string.h>

#include "host/macmove_impl.h"

#define ETHER_MIN_BYTES 60u /* without the checksum, which the card adds */

static uint8_t *put(uint8_t *at, const void *bytes, size_t n_bytes)
{
    memcpy(at, bytes, n_bytes);
    return at + n_bytes;
}

static uint8_t *put_ether(struct gw_macmove_frame *frame, const void *to, const uint8_t mac[6],
                          uint16_t type)
{
    uint16_t type_be = htons(type);

    memset(frame, 0, sizeof *frame);
    frame->n_bytes = ETHER_MIN_BYTES;
    return put(put(put(frame->bytes, to, 6), mac, 6), &type_be, 2);
}

/* Ethernet and IPv4 addresses; the address is its own target in every announcement. */
static void make_arp(struct gw_macmove_frame *frame, const uint8_t mac[6], uint16_t type,
                     uint8_t operation, const uint8_t target_mac[6], const uint8_t address[4])
{
    const uint8_t head[8] = {0, 1, 0x08, 0, 6, 4, 0, operation};
    uint8_t *at = put_ether(frame, "\xff\xff\xff\xff\xff\xff", mac, type);

    at = put(put(put(at, head, 8), mac, 6), address, 4);
    put(put(at, target_mac, 6), address, 4);
}

void macmove_make_rarp(struct gw_macmove_frame *frame, const uint8_t mac[6])
{
    make_arp(frame, mac, 0x8035, 3, mac, (const uint8_t[4]){0});
}

static uint32_t sum_words(uint32_t sum, const uint8_t *bytes, size_t n_bytes)
{
    for (size_t i = 0; i + 1 < n_bytes; i += 2)
        sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
    return sum;
}

/* To all nodes, "override", with the target's link-layer address as option. */
static void make_advertisement(struct gw_macmove_frame *frame, const uint8_t mac[6],
                               const uint8_t address[16])
{
    static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1};
    const uint8_t ip[8] = {0x60, 0, 0, 0, 0, 32, 58, 255};
    const uint8_t icmp[8] = {136, 0, 0, 0, 0x20};
    uint8_t *at = put_ether(frame, "\x33\x33\0\0\0\x01", mac, 0x86dd), *message;
    uint32_t sum;

    at = put(put(put(at, ip, 8), address, 16), all_nodes, 16);
    message = at;
    at = put(put(at, icmp, 8), address, 16);
    at = put(put(at, "\x02\x01", 2), mac, 6);
    frame->n_bytes = (size_t)(at - frame->bytes);
    /* The pseudo header: both addresses, the length (32) and the protocol (58). */
    sum = sum_words(32 + 58, message - 32, 32 + 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~((sum & 0xffff) + (sum >> 16));
    message[2] = (uint8_t)(sum >> 8);
    message[3] = (uint8_t)sum;
}

bool macmove_make_address(struct gw_macmove_frame *frame, const uint8_t mac[6], const char *address)
{
    static const uint8_t nobody[6];
    uint8_t bytes[16];

    if (inet_pton(AF_INET, address, bytes) == 1)
        make_arp(frame, mac, 0x0806, 1, nobody, bytes);
    else if (inet_pton(AF_INET6, address, bytes) == 1)
        make_advertisement(frame, mac, bytes);
    else
        return false;
    return true;
}
