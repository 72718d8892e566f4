/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "host/addresses.h"
#include "host/tapwatch.h"
#include "util/cleanup.h"

#define CLAIMS_BYTES (64 << 10)
#define BUFFER_BYTES (16 << 20) /* copies that wait; the kernel counts each with its overhead */

int gw_tapwatch_open(struct gw_tapwatch *w, const char *tap, struct gw_error *error)
{
    gw_autoclose int fd = -1;
    struct timespec at;
    int on = 1, room = BUFFER_BYTES;

    *w = GW_TAPWATCH_NONE;
    w->tap_index = (int)if_nametoindex(tap);
    if (!w->tap_index)
        return gw_error_set_sys(error, errno, "watch %s", tap);
    /* protocol 0: the socket receives nothing until it is bound to one */
    fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0)
        return gw_error_set_sys(error, errno, "watch %s", tap);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    ioctl(fd, SIOCGSTAMPNS, &at); /* the first call turns time stamps on */
    w->fd = gw_steal_fd(&fd);
    return 0;
}

int gw_tapwatch_start(struct gw_tapwatch *w, struct gw_error *error)
{
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = w->tap_index,
    };
    uint8_t byte;

    if (w->started) {
        while (recv(w->fd, &byte, sizeof byte, MSG_TRUNC) >= 0)
            ;
        gw_tapwatch_is_complete(w); /* counts from here */
        return 0;
    }
    if (w->fd < 0 || bind(w->fd, (struct sockaddr *)&address, sizeof address) < 0)
        return gw_error_set_sys(error, w->fd < 0 ? EBADF : errno, "watch a tap");
    w->started = true;
    return 0;
}

bool gw_tapwatch_is_complete(struct gw_tapwatch *w)
{
    struct tpacket_stats stats;
    socklen_t size = sizeof stats;

    /* reading sets the counters back */
    return w->started && getsockopt(w->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size) == 0 &&
           stats.tp_drops == 0;
}

int gw_tapwatch_read(struct gw_tapwatch *w, struct gw_tapwatch_frame *frame, struct gw_error *error)
{
    struct timespec at = {0};
    struct sockaddr_ll from;
    socklen_t from_size;
    ssize_t n;

    from_size = sizeof from;
    n = w->fd < 0
            ? -1
            : recvfrom(w->fd, frame->bytes, frame->size, 0, (struct sockaddr *)&from, &from_size);
    if (n < 0 && (w->fd < 0 || errno == EAGAIN))
        return 0;
    if (n < 0)
        return gw_error_set_sys(error, errno, "read the copies of a tap's frames");
    if (ioctl(w->fd, SIOCGSTAMPNS, &at) < 0)
        at = (struct timespec){0};
    frame->n_bytes = (size_t)n;
    frame->from_guest = from.sll_pkttype != PACKET_OUTGOING;
    frame->at_ns = (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
    return 1;
}

/* filter may be NULL. */
static int open_ear(struct gw_tapwatch *w, const char *tap, const struct sock_fprog *filter,
                    struct gw_error *error)
{
    int on = 1, room = CLAIMS_BYTES;

    if (gw_tapwatch_open(w, tap, error) < 0)
        return -1;
    if (filter)
        setsockopt(w->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (setsockopt(w->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) < 0 ||
        (filter && setsockopt(w->fd, SOL_SOCKET, SO_ATTACH_FILTER, filter, sizeof *filter) < 0)) {
        gw_error_set_sys(error, errno, "listen to %s", tap);
        gw_tapwatch_fini(w);
        return -1;
    }
    return gw_tapwatch_start(w, error);
}

int gw_tapwatch_open_ear(struct gw_tapwatch *w, const char *tap, struct gw_error *error)
{
    return open_ear(w, tap, NULL, error);
}

#define AT_TYPE      (2 * ETH_ALEN)
#define AT_NEXT      (ETH_HLEN + offsetof(struct ip6_hdr, ip6_nxt))
#define AT_ICMP_TYPE (ETH_HLEN + sizeof(struct ip6_hdr))

int gw_tapwatch_open_claims(struct gw_tapwatch *w, const char *tap, struct gw_error *error)
{
    struct sock_filter code[] = {
        /* The kernel takes a tag out of the frame before this looks at it. */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 9),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, AT_TYPE),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_ARP, 6, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IPV6, 0, 6),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, AT_NEXT),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ICMPV6, 0, 4),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, AT_ICMP_TYPE),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ND_ROUTER_SOLICIT, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, ND_NEIGHBOR_ADVERT, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, GW_ADDRESSES_FRAME_BYTES),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct sock_fprog filter = {GW_ARRAY_SIZE(code), code};

    return open_ear(w, tap, &filter, error);
}

int gw_tapwatch_hear(struct gw_tapwatch *w, uint64_t *at_nsp)
{
    uint8_t bytes[sizeof(struct virtio_net_hdr) + ETH_HLEN];
    struct timespec at = {0};
    uint16_t type;

    while (w->fd >= 0 && recv(w->fd, bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes) {
        memcpy(&type, bytes + sizeof bytes - sizeof type, sizeof type);
        if (ntohs(type) == ETHERTYPE_REVARP)
            continue;
        if (ioctl(w->fd, SIOCGSTAMPNS, &at) < 0)
            at = (struct timespec){0};
        *at_nsp = (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
        return 1;
    }
    return 0;
}

void gw_tapwatch_fini(struct gw_tapwatch *w)
{
    gw_cleanup_close(&w->fd);
    w->fd = -1;
}
