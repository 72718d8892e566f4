/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "host/macmove_impl.h"
#include "util/cleanup.h"

#define MACS_BYTES      12u
#define FRAME_MAX_BYTES (65535u + 64u)
#define VNET_HEADER_MAX 64u
_Static_assert(FRAME_MAX_BYTES + VNET_HEADER_MAX < GW_MACMOVE_BUFFER_BYTES, "a frame fits");

/* --- Setting up --- */

static int parse_mac(const char *text, uint8_t mac[6], struct gw_error *e)
{
    static const uint8_t zero[6];
    int end = -1;

    if (strlen(text) != 17 ||
        sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3],
               &mac[4], &mac[5], &end) != 6 ||
        end != 17)
        return gw_error_set(e, GW_E_USAGE, "'%s' is no MAC address like 52:54:00:12:34:56", text);
    if (mac[0] & 1 || memcmp(mac, zero, 6) == 0)
        return gw_error_set(e, GW_E_USAGE, "%s is no MAC address that a NIC can have", text);
    return 0;
}

static int find_interface(const char *name, char copy[IFNAMSIZ], int *indexp, struct gw_error *e)
{
    if (name[0] == '\0' || strlen(name) >= IFNAMSIZ)
        return gw_error_set(e, GW_E_USAGE, "'%s' is no interface name", name);
    snprintf(copy, IFNAMSIZ, "%s", name);
    *indexp = (int)if_nametoindex(name);
    return *indexp ? 0 : gw_error_set(e, GW_E_NOT_FOUND, "there is no network interface %s", name);
}

static int open_netlink(struct gw_macmove *mm, struct gw_error *e)
{
    const struct timeval patience = {.tv_sec = 1};
    int on = 1;

    mm->netlink_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (mm->netlink_fd < 0)
        return gw_error_set_sys(e, errno, "open a netlink socket for tap %s", mm->tap);
    /* Answers are there when a request returns. One that is missing must not stop the daemon. */
    if (setsockopt(mm->netlink_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
        return gw_error_set_sys(e, errno, "bound the netlink socket for tap %s", mm->tap);
    /* Short acknowledgements; without it they only quote the request. */
    setsockopt(mm->netlink_fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
    return 0;
}

static int open_packet(struct gw_macmove *mm, struct gw_error *e)
{
    int on = 1;

    /* Protocol 0: it only sends, nothing is ever queued on it. */
    mm->packet_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (mm->packet_fd < 0) {
        gw_error_set_sys(e, errno, "open a packet socket for bridge %s", mm->bridge);
        return gw_error_hint(e, "announcing a guest's MAC needs CAP_NET_RAW");
    }
    if (setsockopt(mm->packet_fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0)
        return gw_error_set_sys(e, errno, "send virtio-net headers to bridge %s", mm->bridge);
    return 0;
}

static int set_up(struct gw_macmove *mm, const char *bridge, const char *tap, const char *mac,
                  struct gw_error *e)
{
    if (parse_mac(mac, mm->mac, e) < 0 ||
        find_interface(bridge, mm->bridge, &mm->bridge_index, e) < 0 ||
        find_interface(tap, mm->tap, &mm->tap_index, e) < 0)
        return -1;
    mm->buffer = malloc(GW_MACMOVE_BUFFER_BYTES);
    if (!mm->buffer)
        return gw_error_set_sys(e, ENOMEM, "prepare to move %s", mac);
    if (open_netlink(mm, e) < 0 || open_packet(mm, e) < 0 || macmove_read_vlan(mm, e) < 0 ||
        macmove_read_ports(mm, e) < 0)
        return -1;
    macmove_make_requests(mm);
    macmove_make_rarp(&mm->frames[0], mm->mac);
    mm->n_frames = 1;
    return 0;
}

int gw_macmove_open(struct gw_macmove *mm, const char *bridge, const char *tap, const char *mac,
                    struct gw_error *e)
{
    memset(mm, 0, sizeof *mm);
    mm->opened = true;
    mm->netlink_fd = mm->packet_fd = -1;
    if (set_up(mm, bridge, tap, mac, e) == 0)
        return 0;
    gw_macmove_fini(mm);
    return -1;
}

void gw_macmove_fini(struct gw_macmove *mm)
{
    if (!mm->opened)
        return;
    gw_cleanup_close(&mm->netlink_fd);
    gw_cleanup_close(&mm->packet_fd);
    free(mm->buffer);
    memset(mm, 0, sizeof *mm);
}

int gw_macmove_addresses(struct gw_macmove *mm, const char *const *addresses, size_t n_addresses,
                         struct gw_error *e)
{
    mm->n_frames = 1;
    for (size_t i = 0; i < n_addresses; i++) {
        if (i == GW_MACMOVE_ADDRESSES_MAX)
            return gw_error_set(e, GW_E_USAGE, "tap %s: more than %u addresses to announce",
                                mm->tap, GW_MACMOVE_ADDRESSES_MAX);
        if (!macmove_make_address(&mm->frames[mm->n_frames], mm->mac, addresses[i]))
            return gw_error_set(e, GW_E_USAGE, "tap %s: '%s' is no IPv4 or IPv6 address", mm->tap,
                                addresses[i]);
        mm->n_frames++;
    }
    return 0;
}

/* --- Moving --- */

/* Sends a frame through a port, with the guest's VLAN as tag if the port wants one. Negative errno.
 */
static int send_frame(struct gw_macmove *mm, const struct gw_macmove_port *port,
                      struct virtio_net_hdr header, const uint8_t *frame, size_t n_bytes)
{
    uint16_t tag[2] = {htons(mm->vlan_protocol), htons(mm->vlan)};
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = port->index};
    struct iovec iov[] = {
        {&header, sizeof header},
        {(void *)frame, MACS_BYTES},
        {tag, port->tagged ? sizeof tag : 0},
        {(void *)(frame + MACS_BYTES), n_bytes - MACS_BYTES},
    };
    struct msghdr message = {
        .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = iov, .msg_iovlen = 4};

    if (port->tagged && header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        header.csum_start = (uint16_t)(header.csum_start + sizeof tag);
    if (port->tagged && header.gso_type != VIRTIO_NET_HDR_GSO_NONE)
        header.hdr_len = (uint16_t)(header.hdr_len + sizeof tag);
    return sendmsg(mm->packet_fd, &message, MSG_DONTWAIT) < 0 ? -errno : 0;
}

static int send_announcements(struct gw_macmove *mm, struct gw_error *e)
{
    const struct virtio_net_hdr plain = {0};
    size_t n_sent = 0;
    int error = 0;

    for (size_t f = 0; f < mm->n_frames; f++)
        for (size_t p = 0; p < mm->n_ports; p++) {
            int rc =
                send_frame(mm, &mm->ports[p], plain, mm->frames[f].bytes, mm->frames[f].n_bytes);

            if (rc < 0)
                error = rc;
            else
                n_sent++;
        }
    if (n_sent > 0 || error == 0)
        return 0;
    gw_error_set_sys(e, -error, "announce the guest's MAC of tap %s out of bridge %s", mm->tap,
                     mm->bridge);
    return gw_error_hint(e, "is an uplink of %s up? see `bridge link show`", mm->bridge);
}

static int set_flood(struct gw_macmove *mm, struct gw_macmove_request *request, const char *what,
                     struct gw_error *e)
{
    int failed, rc = macmove_request(mm, &request, 1, &failed);

    if (rc == 0)
        return 0;
    gw_error_set_sys(e, -rc, "%s flooding to tap %s on bridge %s", what, mm->tap, mm->bridge);
    return gw_error_hint(e, "is %s still a port of %s? see `bridge link show`", mm->tap,
                         mm->bridge);
}

int gw_macmove_hold(struct gw_macmove *mm, struct gw_error *e)
{
    if (macmove_read_ports(mm, e) < 0)
        return -1;
    return set_flood(mm, &mm->flood_off, "switch off", e);
}

int gw_macmove_release(struct gw_macmove *mm, struct gw_error *e)
{
    return set_flood(mm, &mm->flood_on, "switch on", e);
}

int gw_macmove_take(struct gw_macmove *mm, struct gw_error *e)
{
    struct gw_macmove_request *const requests[] = {&mm->fdb, &mm->flood_on};
    int failed, rc = macmove_request(mm, requests, GW_ARRAY_SIZE(requests), &failed);

    if (rc == 0)
        return send_announcements(mm, e);
    gw_error_set_sys(e, -rc,
                     failed == 0 ? "point the table of bridge %s to tap %s"
                                 : "switch on flooding of bridge %s to tap %s",
                     mm->bridge, mm->tap);
    return gw_error_hint(e, "is %s up and still a port of %s? see `bridge -d link show`", mm->tap,
                         mm->bridge);
}

int gw_macmove_announce(struct gw_macmove *mm, struct gw_error *e)
{
    if (macmove_read_ports(mm, e) < 0)
        return -1;
    return send_announcements(mm, e);
}

/* --- Frames that wait in a tap --- */

/* The size of the header in front of each frame of a tap, 0 if it has none. */
static int header_size(struct gw_macmove *mm, int tap_fd, size_t *n_bytesp, struct gw_error *e)
{
    struct ifreq ifr = {0};
    int flags = fcntl(tap_fd, F_GETFL), size = 0;

    if (flags < 0 || ioctl(tap_fd, TUNGETIFF, &ifr) < 0)
        return gw_error_set_sys(e, errno, "look at the descriptor of tap %s", mm->tap);
    if (!(flags & O_NONBLOCK))
        return gw_error_set(e, GW_E_STATE, "the descriptor of tap %s is blocking", mm->tap);
    if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_NO_PI))
        return gw_error_set(e, GW_E_STATE, "%s is no tap as QEMU opens it", mm->tap);
    if (ifr.ifr_flags & IFF_VNET_HDR && ioctl(tap_fd, TUNGETVNETHDRSZ, &size) < 0)
        return gw_error_set_sys(e, errno, "read the header size of tap %s", mm->tap);
    if (size < 0 || (size_t)size > VNET_HEADER_MAX ||
        (size > 0 && (size_t)size < GW_MACMOVE_HEADER_BYTES))
        return gw_error_set(e, GW_E_STATE, "tap %s has headers of %d bytes", mm->tap, size);
    *n_bytesp = (size_t)size;
    return 0;
}

/* Leaves the frame, with a short header, at the start of the buffer. 0: the queue is empty. */
static int read_frame(struct gw_macmove *mm, int tap_fd, size_t n_header, size_t *n_bytesp,
                      struct gw_error *e)
{
    uint8_t rest[VNET_HEADER_MAX];
    size_t n_rest = n_header ? n_header - GW_MACMOVE_HEADER_BYTES : 0;
    struct iovec iov[] = {
        {mm->buffer, n_header ? GW_MACMOVE_HEADER_BYTES : 0},
        {rest, n_rest}, /* num_buffers and what newer kernels append: the receiver's matter */
        {mm->buffer + GW_MACMOVE_HEADER_BYTES, FRAME_MAX_BYTES},
    };
    ssize_t got;

    memset(mm->buffer, 0, GW_MACMOVE_HEADER_BYTES);
    do
        got = readv(tap_fd, iov, 3);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got < 0)
        return gw_error_set_sys(e, errno, "read a waiting frame of tap %s", mm->tap);
    if ((size_t)got < n_header + ETH_HLEN)
        return gw_error_set(e, GW_E_SYSTEM, "tap %s gave a frame of %zd bytes", mm->tap, got);
    *n_bytesp = (size_t)got - n_header + GW_MACMOVE_HEADER_BYTES;
    return 1;
}

int gw_macmove_read(struct gw_macmove *mm, int tap_fd, const uint8_t **framep, size_t *n_bytesp,
                    struct gw_error *e)
{
    size_t n_header;

    if (header_size(mm, tap_fd, &n_header, e) < 0)
        return -1;
    *framep = mm->buffer;
    return read_frame(mm, tap_fd, n_header, n_bytesp, e);
}

static int send_with_header(struct gw_macmove *mm, const struct gw_macmove_port *port,
                            const uint8_t *frame, size_t n_bytes)
{
    struct virtio_net_hdr header;

    memcpy(&header, frame, sizeof header);
    /* "The checksum is good" is a word to a receiver; a sender only says what is to be done. */
    header.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
    return send_frame(mm, port, header, frame + sizeof header, n_bytes - sizeof header);
}

int gw_macmove_inject(struct gw_macmove *mm, const uint8_t *frame, size_t n_bytes,
                      struct gw_error *e)
{
    const struct gw_macmove_port tap = {.index = mm->tap_index};
    int rc;

    if (n_bytes < GW_MACMOVE_HEADER_BYTES + ETH_HLEN ||
        n_bytes > GW_MACMOVE_HEADER_BYTES + FRAME_MAX_BYTES)
        return gw_error_set(e, GW_E_PROTOCOL, "a frame of %zu bytes for tap %s", n_bytes, mm->tap);
    rc = send_with_header(mm, &tap, frame, n_bytes);
    return rc < 0 ? gw_error_set_sys(e, -rc, "put a frame into the queue of tap %s", mm->tap) : 0;
}

/* The port behind which the guest is now; GW_E_STATE if it has not moved away. */
static int find_way(struct gw_macmove *mm, const struct gw_macmove_port **portp, struct gw_error *e)
{
    int index = 0, rc = macmove_find_mac(mm, &index);

    if (rc < 0 && rc != -ENOENT)
        return gw_error_set_sys(e, -rc, "look up the guest's MAC of tap %s on bridge %s", mm->tap,
                                mm->bridge);
    if (macmove_read_ports(mm, e) < 0)
        return -1;
    for (size_t i = 0; rc == 0 && i < mm->n_ports; i++)
        if (mm->ports[i].index == index) {
            *portp = &mm->ports[i];
            return 0;
        }
    gw_error_set(e, GW_E_STATE, "bridge %s does not know the guest of tap %s elsewhere yet",
                 mm->bridge, mm->tap);
    return gw_error_hint(e, "wait for the destination's announcement; see `bridge fdb show br %s`",
                         mm->bridge);
}

int gw_macmove_drain(struct gw_macmove *mm, int tap_fd, size_t *n_framesp, struct gw_error *e)
{
    const struct gw_macmove_port *port = NULL;
    size_t n_header, n_bytes, unused;

    n_framesp = n_framesp ? n_framesp : &unused;
    *n_framesp = 0;
    if (header_size(mm, tap_fd, &n_header, e) < 0 || find_way(mm, &port, e) < 0)
        return -1;
    for (size_t i = 0; i < GW_MACMOVE_DRAIN_MAX; i++) {
        int rc = read_frame(mm, tap_fd, n_header, &n_bytes, e);

        if (rc <= 0)
            return rc;
        if (memcmp(mm->buffer + GW_MACMOVE_HEADER_BYTES, mm->mac, sizeof mm->mac) != 0)
            continue;
        rc = send_with_header(mm, port, mm->buffer, n_bytes);
        if (rc < 0)
            return gw_error_set_sys(e, -rc, "send a frame of tap %s on through bridge %s", mm->tap,
                                    mm->bridge);
        ++*n_framesp;
    }
    return 0;
}
