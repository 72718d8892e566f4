/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In a network namespace of its own: a bridge "sw" as the switch, with a host x outside and two
 * nodes, each a bridge with an uplink and a tap. The guest starts at the source.
 *
 *   x --- xs [sw] ss --- su [bs] ts        sd --- du [bd] td
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <cmocka.h>

#include "host/macmove.h"
#include "host/tap.h"
#include "util/cleanup.h"

#define GUEST      "52:54:00:aa:bb:01"
#define HEADER     12 /* bytes, as QEMU sets it for mergeable buffers */
#define TIMEOUT_MS 5000

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0xaa, 0xbb, 1};
static const uint8_t x_mac[6] = {2, 0, 0, 0, 0, 0x77};
static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct world {
    int x, source_tap, destination_tap;
    struct gw_macmove source, destination;
};

struct captured {
    uint8_t bytes[HEADER + 70000];
    size_t n_bytes;
    int vlan; /* -1: untagged */
};

static void run(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

static bool says(const char *command, const char *text)
{
    char all[8192] = "";
    FILE *pipe = popen(command, "r");
    size_t got = fread(all, 1, sizeof all - 1, pipe);

    all[got] = '\0';
    pclose(pipe);
    return strstr(all, text) != NULL;
}

/* The kernel tells of every change of a link. */
static void wait_forwarding(const char *port)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    gw_autoclose int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    char command[64], scratch[8192];

    snprintf(command, sizeof command, "bridge link show dev %s", port);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    while (!says(command, "state forwarding")) {
        if (poll(&poll_fd, 1, TIMEOUT_MS) != 1)
            fail_msg("%s does not forward", port);
        assert_true(recv(fd, scratch, sizeof scratch, 0) > 0);
    }
}

static int open_tap(const char *name, const char *bridge)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), size = HEADER;
    struct gw_error e = {0};

    if (gw_tap_create(name, bridge, &e) < 0)
        fail_msg("%s", e.msg);
    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", name);
    assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
    assert_int_equal(ioctl(fd, TUNSETVNETHDRSZ, &size), 0);
    assert_int_equal(ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4), 0);
    wait_forwarding(name);
    return fd;
}

static int open_outside(void)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(ETH_P_ALL),
                                  .sll_ifindex = (int)if_nametoindex("x")};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1;

    assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on), 0);
    assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on), 0);
    assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    gw_macmove_fini(&w->source);
    gw_macmove_fini(&w->destination);
    close(w->x);
    close(w->source_tap);
    close(w->destination_tap);
    free(w);
    return system("for i in x su du ts td bs bd sw; do ip link del $i || exit 1; done");
}

static struct world *build(const char *bridge_options, const char *extra)
{
    struct world *w = calloc(1, sizeof *w);
    struct gw_error e = {0};
    char command[256];

    snprintf(command, sizeof command,
             "for b in bs bd; do ip link add name $b type bridge mcast_snooping 0 %s || exit 1; "
             "ip link set $b up || exit 1; done",
             bridge_options);
    run(command);
    run("ip link add name sw type bridge mcast_snooping 0 && ip link set sw up");
    run("ip link add x type veth peer name xs && ip link add su type veth peer name ss && "
        "ip link add du type veth peer name sd");
    run("for i in xs ss sd; do ip link set $i master sw || exit 1; done; "
        "ip link set su master bs && ip link set du master bd");
    run("for i in x xs su ss du sd; do ip link set $i up || exit 1; done");
    w->source_tap = open_tap("ts", "bs");
    w->destination_tap = open_tap("td", "bd");
    for (size_t i = 0; i < 5; i++)
        wait_forwarding((const char *const[]){"xs", "ss", "sd", "su", "du"}[i]);
    run(extra);
    w->x = open_outside();
    if (gw_macmove_open(&w->source, "bs", "ts", GUEST, &e) < 0 ||
        gw_macmove_open(&w->destination, "bd", "td", GUEST, &e) < 0)
        fail_msg("%s", e.msg);
    return w;
}

static int set_up(void **state)
{
    *state = build("", "true");
    return 0;
}

/* A frame of 60 bytes whose last one is the number. */
static size_t make_frame(uint8_t *frame, const uint8_t *to, const uint8_t *from, uint8_t number)
{
    memset(frame, 0, 60);
    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    frame[12] = 0x88;
    frame[13] = 0xb5; /* for experiments */
    frame[59] = number;
    return 60;
}

static void send_from_x(struct world *w, struct virtio_net_hdr header, void *frame, size_t n_bytes)
{
    struct iovec iov[] = {{&header, sizeof header}, {frame, n_bytes}};

    assert_int_equal(writev(w->x, iov, 2), sizeof header + n_bytes);
}

static void say(struct world *w, const uint8_t *to, uint8_t number)
{
    uint8_t frame[60];

    send_from_x(w, (struct virtio_net_hdr){0}, frame, make_frame(frame, to, x_mac, number));
}

/* The guest at the source speaks: every bridge knows it there now. */
static void guest_speaks(struct world *w)
{
    uint8_t bytes[HEADER + 60] = {0};

    make_frame(bytes + HEADER, everybody, guest_mac, 0);
    assert_int_equal(write(w->source_tap, bytes, sizeof bytes), sizeof bytes);
}

static void wait_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    assert_int_equal(poll(&poll_fd, 1, TIMEOUT_MS), 1);
}

static void next_in_tap(int tap, struct captured *got)
{
    ssize_t n;

    wait_readable(tap);
    n = read(tap, got->bytes, sizeof got->bytes);
    assert_true(n >= HEADER + 60);
    got->n_bytes = (size_t)n;
}

static void expect_number(int tap, uint8_t number)
{
    struct captured *got = malloc(sizeof *got);

    next_in_tap(tap, got);
    assert_int_equal(got->n_bytes, HEADER + 60);
    assert_int_equal(got->bytes[HEADER + 59], number);
    free(got);
}

static void expect_empty(int tap)
{
    uint8_t byte;

    assert_int_equal(read(tap, &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
}

/* The next frame with this EtherType that x hears, without its header. */
static void next_at_x(struct world *w, uint16_t type, struct captured *got)
{
    union {
        char bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
        struct cmsghdr align;
    } control;
    struct virtio_net_hdr header;
    struct iovec iov[] = {{&header, sizeof header}, {got->bytes, sizeof got->bytes}};
    uint16_t found;

    do {
        struct msghdr message = {.msg_iov = iov,
                                 .msg_iovlen = 2,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof control};
        struct tpacket_auxdata aux;
        ssize_t n;

        wait_readable(w->x);
        n = recvmsg(w->x, &message, 0);
        assert_true(n > (ssize_t)sizeof header + 14);
        got->n_bytes = (size_t)n - sizeof header;
        memcpy(&aux, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof aux);
        got->vlan = aux.tp_status & TP_STATUS_VLAN_VALID ? aux.tp_vlan_tci : -1;
        found = (uint16_t)(got->bytes[12] << 8 | got->bytes[13]);
    } while (found != type);
}

static void must(int rc, const struct gw_error *e)
{
    if (rc < 0)
        fail_msg("%s (%s)", e->msg, e->hint);
}

static void take_brings_the_traffic(void **state)
{
    struct world *w = *state;
    struct gw_error e = {0};

    guest_speaks(w);
    say(w, guest_mac, 1);
    expect_number(w->source_tap, 1);
    assert_true(says("bridge fdb show br bd", GUEST " dev du"));
    must(gw_macmove_hold(&w->destination, &e), &e);
    must(gw_macmove_take(&w->destination, &e), &e);
    assert_true(says("bridge fdb show br sw", GUEST " dev sd"));
    assert_true(says("bridge fdb show br bd", GUEST " dev td"));
    assert_false(says("bridge fdb show br bd", GUEST " dev td master bd permanent"));
    assert_false(says("bridge fdb show br bd", GUEST " dev td master bd static"));
    say(w, guest_mac, 2);
    expect_number(w->destination_tap, 0); /* the guest's own broadcast, before hold() */
    expect_number(w->destination_tap, 2);
}

static void the_tap_hears_no_announcement(void **state)
{
    struct world *w = *state;
    struct gw_error e = {0};
    struct captured *got = malloc(sizeof *got);

    /* Its queue begins with the frame by which the guest made itself known, when not held. */
    must(gw_macmove_hold(&w->destination, &e), &e);
    guest_speaks(w);
    must(gw_macmove_take(&w->destination, &e), &e);
    must(gw_macmove_announce(&w->destination, &e), &e);
    say(w, guest_mac, 3);
    expect_number(w->destination_tap, 3);
    expect_empty(w->destination_tap);
    say(w, everybody, 4); /* flooding is back */
    expect_number(w->destination_tap, 4);
    free(got);
}

static void failed_migration_brings_it_back(void **state)
{
    struct world *w = *state;
    struct gw_error e = {0};

    guest_speaks(w);
    must(gw_macmove_take(&w->destination, &e), &e);
    must(gw_macmove_take(&w->source, &e), &e);
    assert_true(says("bridge fdb show br sw", GUEST " dev ss"));
    assert_true(says("bridge fdb show br bd", GUEST " dev du"));
    say(w, guest_mac, 5);
    struct captured *got = malloc(sizeof *got);
    do
        next_in_tap(w->source_tap, got);
    while (got->bytes[HEADER + 12] != 0x88);
    assert_int_equal(got->bytes[HEADER + 59], 5);
    free(got);
}

static uint32_t sum16(const uint8_t *bytes, size_t n_bytes, uint32_t sum)
{
    for (size_t i = 0; i < n_bytes; i += 2)
        sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static void announcements_are_well_formed(void **state)
{
    static const uint8_t rarp[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0xaa, 0xbb,
                                     1,    0x80, 0x35, 0,    1,    8,    0,    6,    4, 0,    3,
                                     0x52, 0x54, 0,    0xaa, 0xbb, 1,    0,    0,    0, 0,    0x52,
                                     0x54, 0,    0xaa, 0xbb, 1,    0,    0,    0,    0};
    static const uint8_t arp[32] = {8, 6,  0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0xaa, 0xbb,
                                    1, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0,    10,   1, 2,    3};
    const char *const addresses[] = {"10.1.2.3", "2001:db8::7"};
    const char *const bad[] = {"10.1.2.3", "10.1.2"};
    struct world *w = *state;
    struct gw_error e = {0};
    struct captured *got = calloc(1, sizeof *got);

    assert_int_equal(gw_macmove_addresses(&w->destination, bad, 2, &e), -1);
    assert_string_equal(e.msg, "tap td: '10.1.2' is no IPv4 or IPv6 address");
    must(gw_macmove_addresses(&w->destination, addresses, 2, &e), &e);
    must(gw_macmove_announce(&w->destination, &e), &e);
    next_at_x(w, 0x8035, got);
    assert_int_equal(got->n_bytes, 60);
    assert_memory_equal(got->bytes, rarp, sizeof rarp);
    next_at_x(w, 0x0806, got);
    assert_int_equal(got->n_bytes, 60);
    assert_memory_equal(got->bytes + 12, arp, 30);
    next_at_x(w, 0x86dd, got);
    assert_int_equal(got->n_bytes, 86);
    assert_int_equal(got->bytes[54], 136);
    assert_memory_equal(got->bytes + 80, guest_mac, 6);
    assert_int_equal(sum16(got->bytes + 22, 64, 32 + 58), 0xffff);
    free(got);
}

static void held_tap_hears_no_floods(void **state)
{
    static const uint8_t multicast[6] = {1, 0, 0x5e, 0, 0, 9}, unknown[6] = {2, 9, 9, 9, 9, 9};
    struct world *w = *state;
    struct gw_error e = {0};

    must(gw_macmove_hold(&w->destination, &e), &e);
    for (uint8_t i = 0; i < 10; i++) {
        say(w, everybody, i);
        say(w, multicast, i);
        say(w, unknown, i);
    }
    for (uint8_t i = 0; i < 30; i++)
        wait_readable(w->source_tap), assert_true(read(w->source_tap, (char[200]){0}, 200) > 0);
    must(gw_macmove_release(&w->destination, &e), &e);
    say(w, everybody, 100);
    say(w, multicast, 101);
    say(w, unknown, 102);
    for (uint8_t number = 100; number < 103; number++)
        expect_number(w->destination_tap, number);
}

/* A TCP segment over IPv4, to be cut and checksummed by whoever sends it on a wire. */
static size_t make_segment(uint8_t *frame, size_t n_payload, struct virtio_net_hdr *header)
{
    const size_t n_bytes = 14 + 40 + n_payload;
    uint8_t *ip = frame + 14, *tcp = ip + 20;
    uint32_t sum;

    make_frame(frame, guest_mac, x_mac, 0);
    for (size_t i = 14; i < n_bytes; i++)
        frame[i] = (uint8_t)(i * 7);
    memset(ip, 0, 40);
    frame[12] = 8, frame[13] = 0;
    ip[0] = 0x45, ip[8] = 64, ip[9] = 6, ip[12] = 10, ip[16] = 10, ip[15] = 1, ip[19] = 2;
    ip[2] = (uint8_t)((n_bytes - 14) >> 8), ip[3] = (uint8_t)(n_bytes - 14);
    sum = ~sum16(ip, 20, 0);
    ip[10] = (uint8_t)(sum >> 8), ip[11] = (uint8_t)sum;
    tcp[12] = 0x50, tcp[13] = 0x10;
    *header = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                      .csum_start = 34,
                                      .csum_offset = 16};
    if (n_payload > 1460) {
        header->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        header->gso_size = 1400;
        header->hdr_len = 54;
    }
    return n_bytes;
}

static void expect_segment(int tap, size_t n_payload)
{
    struct captured *got = malloc(sizeof *got);
    uint8_t *frame = malloc(8000);
    struct virtio_net_hdr sent, found;
    size_t n_bytes = make_segment(frame, n_payload, &sent);

    next_in_tap(tap, got);
    assert_int_equal(got->n_bytes, HEADER + n_bytes);
    assert_memory_equal(got->bytes + HEADER, frame, n_bytes);
    memcpy(&found, got->bytes, sizeof found);
    assert_int_equal(found.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    assert_int_equal(found.csum_start, sent.csum_start);
    assert_int_equal(found.csum_offset, sent.csum_offset);
    assert_int_equal(found.gso_type, sent.gso_type);
    assert_int_equal(found.gso_size, sent.gso_size);
    free(frame);
    free(got);
}

/* Four frames in the source's queue: plain, with a partial checksum, to be segmented, broadcast. */
static void fill_source(struct world *w)
{
    struct virtio_net_hdr header;
    uint8_t *frame = malloc(8000);
    size_t n_bytes;

    must(gw_macmove_hold(&w->destination, NULL), &(struct gw_error){0});
    guest_speaks(w);
    say(w, guest_mac, 6);
    n_bytes = make_segment(frame, 100, &header);
    send_from_x(w, header, frame, n_bytes);
    n_bytes = make_segment(frame, 5000, &header);
    send_from_x(w, header, frame, n_bytes);
    say(w, everybody, 7);
    wait_readable(w->source_tap);
    free(frame);
}

static void drain_sends_on_what_waits(void **state)
{
    struct world *w = *state;
    struct gw_error e = {0};
    size_t n_frames = 9;

    fill_source(w);
    assert_int_equal(gw_macmove_drain(&w->source, w->source_tap, &n_frames, &e), -1);
    assert_int_equal(e.code, GW_E_STATE);
    assert_string_equal(e.msg, "bridge bs does not know the guest of tap ts elsewhere yet");
    must(gw_macmove_take(&w->destination, &e), &e);
    assert_true(says("bridge fdb show br bs", GUEST " dev su"));
    must(gw_macmove_drain(&w->source, w->source_tap, &n_frames, &e), &e);
    assert_int_equal(n_frames, 3);
    expect_number(w->destination_tap, 6);
    expect_segment(w->destination_tap, 100);
    expect_segment(w->destination_tap, 5000);
    expect_empty(w->destination_tap);
    expect_empty(w->source_tap);
    /* The price that the header names. */
    assert_true(says("bridge fdb show br sw", "02:00:00:00:00:77 dev ss"));
}

static void carried_frames_disturb_no_switch(void **state)
{
    struct world *w = *state;
    struct gw_error e = {0};
    const uint8_t *frame;
    size_t n_bytes;
    int rc, n_frames = 0;

    fill_source(w);
    must(gw_macmove_take(&w->destination, &e), &e);
    while ((rc = gw_macmove_read(&w->source, w->source_tap, &frame, &n_bytes, &e)) > 0) {
        if (frame[GW_MACMOVE_HEADER_BYTES + 12] == 0x80) /* the other's announcement */
            continue;
        must(gw_macmove_inject(&w->destination, frame, n_bytes, &e), &e);
        n_frames++;
    }
    must(rc, &e);
    assert_int_equal(n_frames, 4);
    expect_number(w->destination_tap, 6);
    expect_segment(w->destination_tap, 100);
    expect_segment(w->destination_tap, 5000);
    expect_number(w->destination_tap, 7);
    assert_true(says("bridge fdb show br sw", "02:00:00:00:00:77 dev xs"));
    assert_int_equal(gw_macmove_inject(&w->destination, (uint8_t[20]){0}, 20, &e), -1);
    assert_int_equal(e.code, GW_E_PROTOCOL);
}

static void descriptor_of_a_tap_is_found(void **state)
{
    gw_autoclose int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), copy = -1;
    struct world *w = *state;
    struct gw_error e = {0};

    copy = gw_macmove_tap_fd(pidfd, getpid(), "td", &e);
    must(copy, &e);
    assert_int_not_equal(copy, w->destination_tap);
    say(w, everybody, 8);
    expect_number(copy, 8);
    assert_int_equal(gw_macmove_tap_fd(pidfd, getpid(), "nix", &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
}

static void what_cannot_work_is_said(void **state)
{
    struct gw_macmove mm = {0};
    struct gw_error e = {0};
    struct world *w = *state;

    gw_macmove_fini(&mm);
    assert_int_equal(gw_macmove_open(&mm, "bs", "td", GUEST, &e), -1);
    assert_string_equal(e.msg, "tap td is no port of bridge bs");
    assert_int_equal(gw_macmove_open(&mm, "x", "td", GUEST, &e), -1);
    assert_string_equal(e.msg, "x is a network interface but no bridge");
    assert_int_equal(gw_macmove_open(&mm, "bs", "nix", GUEST, &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    assert_int_equal(gw_macmove_open(&mm, "bs", "ts", "53:54:00:aa:bb:01", &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    assert_int_equal(gw_macmove_open(&mm, "bs", "ts", "52:54:00:aa:bb:1g", &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    gw_macmove_fini(&mm);
    run("ip link set td down");
    assert_int_equal(gw_macmove_take(&w->destination, &e), -1);
    assert_int_equal(e.sys, EPERM);
    run("ip link set td nomaster");
    assert_int_equal(gw_macmove_take(&w->destination, &e), -1);
    assert_true(strstr(e.msg, "bd") && strstr(e.msg, "td") && e.hint[0]);
    run("ip link set su down");
    must(gw_macmove_announce(&w->source, &e), &e); /* no port forwards: nobody to tell */
}

/* --- VLANs --- */

static struct rtattr *attribute(uint8_t **atp, uint16_t type, const void *data, size_t n_bytes)
{
    struct rtattr *attr = (struct rtattr *)*atp;

    *attr = (struct rtattr){.rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(n_bytes)};
    if (n_bytes)
        memcpy(RTA_DATA(attr), data, n_bytes);
    *atp += RTA_SPACE(n_bytes);
    return attr;
}

/* One port in a dump, as a kernel with VLAN filtering answers. */
static void add_port(uint8_t **atp, int index, int bridge, uint32_t sequence,
                     const struct bridge_vlan_info *vlans, size_t n_vlans)
{
    struct nlmsghdr *header = (struct nlmsghdr *)*atp;
    struct ifinfomsg info = {.ifi_family = AF_BRIDGE, .ifi_index = index};
    const uint8_t forwarding = BR_STATE_FORWARDING;
    struct rtattr *nest;

    memcpy(NLMSG_DATA(header), &info, sizeof info);
    *atp += NLMSG_SPACE(sizeof info);
    attribute(atp, IFLA_MASTER, &bridge, sizeof bridge);
    nest = attribute(atp, IFLA_PROTINFO | NLA_F_NESTED, NULL, 0);
    attribute(atp, IFLA_BRPORT_STATE, &forwarding, 1);
    nest->rta_len = (uint16_t)(*atp - (uint8_t *)nest);
    nest = attribute(atp, IFLA_AF_SPEC, NULL, 0);
    for (size_t i = 0; i < n_vlans; i++)
        attribute(atp, IFLA_BRIDGE_VLAN_INFO, &vlans[i], sizeof vlans[i]);
    nest->rta_len = (uint16_t)(*atp - (uint8_t *)nest);
    *header = (struct nlmsghdr){.nlmsg_len = (uint32_t)(*atp - (uint8_t *)header),
                                .nlmsg_type = RTM_NEWLINK,
                                .nlmsg_seq = sequence};
}

/* Every kernel can send tags; one without VLAN filtering is told that du has the guest's VLAN. */
static void announcement_has_the_tag_of_each_port(void **state)
{
    static const struct bridge_vlan_info range[] = {
        {BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED, 1},
        {BRIDGE_VLAN_INFO_RANGE_BEGIN, 10},
        {BRIDGE_VLAN_INFO_RANGE_END, 30}};
    static const struct bridge_vlan_info untagged[] = {{BRIDGE_VLAN_INFO_UNTAGGED, 20}};
    static const struct bridge_vlan_info other[] = {{0, 19}, {0, 21}};
    struct world *w = *state;
    struct gw_macmove *mm = &w->destination;
    struct gw_error e = {0};
    struct captured *got = calloc(1, sizeof *got);
    _Alignas(8) uint8_t dump[1024] = {0};
    uint8_t *at = dump;
    int pair[2], du = (int)if_nametoindex("du");

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    close(mm->netlink_fd);
    mm->netlink_fd = pair[0];
    mm->vlan = 20;
    add_port(&at, du, mm->bridge_index, mm->sequence + 1, range, 3);
    add_port(&at, 1, mm->bridge_index, mm->sequence + 1, other, 2);
    add_port(&at, 1, mm->bridge_index + 1000, mm->sequence + 1, range, 3);
    add_port(&at, mm->tap_index, mm->bridge_index, mm->sequence + 1, untagged, 1);
    add_port(&at, du, mm->bridge_index, mm->sequence + 1, untagged, 1);
    *(struct nlmsghdr *)at = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(4),
                                               .nlmsg_type = NLMSG_DONE,
                                               .nlmsg_seq = mm->sequence + 1};
    at += NLMSG_LENGTH(4);
    assert_true(send(pair[1], dump, (size_t)(at - dump), 0) > 0);
    must(gw_macmove_announce(mm, &e), &e);
    assert_int_equal(mm->n_ports, 2);
    next_at_x(w, 0x8035, got);
    assert_int_equal(got->vlan, 20);
    assert_int_equal(got->n_bytes, 60);
    assert_memory_equal(got->bytes + 6, guest_mac, 6);
    next_at_x(w, 0x8035, got);
    assert_int_equal(got->vlan, -1);
    close(pair[1]);
    free(got);
}

static void vlan_filtering_bridge(void **state)
{
    struct gw_error e = {0};
    struct captured *got;
    struct world *w;

    if (system("ip link add name bp type bridge vlan_filtering 1 2>/dev/null") != 0) {
        print_message("this kernel has no VLAN filtering in bridges\n");
        skip();
    }
    run("ip link del bp");
    w = build("vlan_filtering 1",
              "for t in ts td; do bridge vlan add dev $t vid 20 pvid untagged || exit 1; done; "
              "for u in su du; do bridge vlan add dev $u vid 10-30 || exit 1; done");
    got = calloc(1, sizeof *got);
    *state = w;
    assert_int_equal(w->destination.vlan, 20);
    must(gw_macmove_hold(&w->destination, &e), &e);
    guest_speaks(w);
    must(gw_macmove_take(&w->destination, &e), &e);
    assert_true(says("bridge fdb show br bd", GUEST " dev td vlan 20"));
    next_at_x(w, 0x8035, got);
    assert_int_equal(got->vlan, 20);
    run("bridge vlan del dev td vid 20");
    gw_macmove_fini(&w->destination);
    run("bridge vlan del dev td vid 1");
    assert_int_equal(gw_macmove_open(&w->destination, "bd", "td", GUEST, &e), -1);
    assert_string_equal(e.msg, "bridge bd filters VLANs and its port td has no PVID");
    free(got);
    tear_down(state);
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(take_brings_the_traffic),
        WORLD_TEST(the_tap_hears_no_announcement),
        WORLD_TEST(failed_migration_brings_it_back),
        WORLD_TEST(announcements_are_well_formed),
        WORLD_TEST(held_tap_hears_no_floods),
        WORLD_TEST(drain_sends_on_what_waits),
        WORLD_TEST(carried_frames_disturb_no_switch),
        WORLD_TEST(descriptor_of_a_tap_is_found),
        WORLD_TEST(what_cannot_work_is_said),
        WORLD_TEST(announcement_has_the_tag_of_each_port),
        cmocka_unit_test(vlan_filtering_bridge),
    };

    if (unshare(CLONE_NEWNET) < 0 || access("/dev/net/tun", R_OK | W_OK) < 0 ||
        system("ip link add gwprobe type bridge && ip link del gwprobe") != 0) {
        fprintf(stderr, "skipped: needs CAP_NET_ADMIN, /dev/net/tun, bridges and iproute2\n");
        return 77;
    }
    /* No router solicitations between the frames of the tests. */
    if (system("sysctl -qw net.ipv6.conf.default.disable_ipv6=1") != 0)
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
