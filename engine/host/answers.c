/* SPDX-License-Identifier: Apache-2.0 */
#include "host/answers.h"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <string.h>

/* What an IP packet carries. */
struct packet {
    const uint8_t *from, *to; /* n_address bytes each */
    size_t n_address;
    uint8_t protocol;
    const uint8_t *payload;
    size_t n_payload;
};

static bool read_ipv4(const uint8_t *bytes, size_t n, struct packet *packet)
{
    struct ip ip;
    size_t n_head, n_total;

    if (n < sizeof ip)
        return false;
    memcpy(&ip, bytes, sizeof ip);
    n_head = (size_t)ip.ip_hl * 4;
    n_total = ntohs(ip.ip_len);
    if (n_head < sizeof ip || n_total < n_head || n_total > n ||
        (ntohs(ip.ip_off) & (IP_MF | IP_OFFMASK)) != 0)
        return false;
    *packet = (struct packet){
        .from = bytes + offsetof(struct ip, ip_src),
        .to = bytes + offsetof(struct ip, ip_dst),
        .n_address = sizeof ip.ip_src,
        .protocol = ip.ip_p,
        .payload = bytes + n_head,
        .n_payload = n_total - n_head,
    };
    return true;
}

static bool read_ipv6(const uint8_t *bytes, size_t n, struct packet *packet)
{
    struct ip6_hdr ip;
    size_t n_payload;

    if (n < sizeof ip)
        return false;
    memcpy(&ip, bytes, sizeof ip);
    n_payload = ntohs(ip.ip6_plen);
    if (n_payload > n - sizeof ip)
        return false;
    *packet = (struct packet){
        .from = bytes + offsetof(struct ip6_hdr, ip6_src),
        .to = bytes + offsetof(struct ip6_hdr, ip6_dst),
        .n_address = sizeof ip.ip6_src,
        .protocol = ip.ip6_nxt,
        .payload = bytes + sizeof ip,
        .n_payload = n_payload,
    };
    return true;
}

static bool answers_arp(const struct gw_ether_frame *frame, const struct gw_ether_frame *asked)
{
    struct ether_arp reply, request;

    if (frame->n_bytes < ETH_HLEN + sizeof reply || asked->n_bytes < ETH_HLEN + sizeof request)
        return false;
    memcpy(&reply, frame->bytes + ETH_HLEN, sizeof reply);
    memcpy(&request, asked->bytes + ETH_HLEN, sizeof request);
    return ntohs(reply.arp_op) == ARPOP_REPLY && ntohs(request.arp_op) == ARPOP_REQUEST &&
           memcmp(reply.arp_spa, request.arp_tpa, sizeof reply.arp_spa) == 0 &&
           memcmp(reply.arp_tpa, request.arp_spa, sizeof reply.arp_tpa) == 0;
}

/* Both versions have type, code, checksum, identifier and sequence number. */
static bool answers_echo(const struct packet *packet, const struct packet *asked, uint8_t reply,
                         uint8_t request)
{
    struct icmphdr a, b;

    if (packet->n_payload < sizeof a || asked->n_payload < sizeof b)
        return false;
    memcpy(&a, packet->payload, sizeof a);
    memcpy(&b, asked->payload, sizeof b);
    return a.type == reply && b.type == request && a.un.echo.id == b.un.echo.id &&
           a.un.echo.sequence == b.un.echo.sequence;
}

/* What carries nothing is never acknowledged. */
static bool answers_tcp(const struct packet *packet, const struct packet *asked)
{
    struct tcphdr a, b;
    size_t n_head, n_data;

    if (packet->n_payload < sizeof a || asked->n_payload < sizeof b)
        return false;
    memcpy(&a, packet->payload, sizeof a);
    memcpy(&b, asked->payload, sizeof b);
    n_head = (size_t)b.doff * 4;
    if (n_head < sizeof b || n_head > asked->n_payload || a.source != b.dest ||
        a.dest != b.source || !a.ack)
        return false;
    n_data = asked->n_payload - n_head + b.syn + b.fin;
    return n_data > 0 && (int32_t)(ntohl(a.ack_seq) - ntohl(b.seq) - (uint32_t)n_data) >= 0;
}

static bool answers_ip(const struct packet *packet, const struct packet *asked)
{
    if (packet->protocol != asked->protocol ||
        memcmp(packet->from, asked->to, asked->n_address) != 0 ||
        memcmp(packet->to, asked->from, asked->n_address) != 0)
        return false;
    switch (packet->protocol) {
    case IPPROTO_ICMP: return answers_echo(packet, asked, ICMP_ECHOREPLY, ICMP_ECHO);
    case IPPROTO_ICMPV6: return answers_echo(packet, asked, ICMP6_ECHO_REPLY, ICMP6_ECHO_REQUEST);
    case IPPROTO_TCP: return answers_tcp(packet, asked);
    default: return false;
    }
}

static bool answers_packet(const struct gw_ether_frame *frame, const struct gw_ether_frame *asked,
                           bool (*read)(const uint8_t *, size_t, struct packet *))
{
    struct packet a, b;

    return read(frame->bytes + ETH_HLEN, frame->n_bytes - ETH_HLEN, &a) &&
           read(asked->bytes + ETH_HLEN, asked->n_bytes - ETH_HLEN, &b) && answers_ip(&a, &b);
}

bool gw_frame_answers(const struct gw_ether_frame *frame, const struct gw_ether_frame *asked)
{
    struct ether_header a, b;

    if (frame->n_bytes < ETH_HLEN || asked->n_bytes < ETH_HLEN)
        return false;
    memcpy(&a, frame->bytes, sizeof a);
    memcpy(&b, asked->bytes, sizeof b);
    if (a.ether_type != b.ether_type || memcmp(a.ether_dhost, b.ether_shost, ETH_ALEN) != 0)
        return false;
    switch (ntohs(a.ether_type)) {
    case ETHERTYPE_ARP: return answers_arp(frame, asked);
    case ETHERTYPE_IP: return answers_packet(frame, asked, read_ipv4);
    case ETHERTYPE_IPV6: return answers_packet(frame, asked, read_ipv6);
    default: return false;
    }
}
