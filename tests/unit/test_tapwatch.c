/* SPDX-License-Identifier: Apache-2.0 */
/* A real tap on a real bridge, in a network namespace of its own; 77 where that is not allowed. */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
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
#include <unistd.h>
#include <cmocka.h>

#include "host/macmove.h"
#include "host/tap.h"
#include "host/tapwatch.h"
#include "shell/daemon.h"
#include "shell/guestaddr.h"
#include "shell/guestnet.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define MAC "52:54:00:77:00:64"

static int tap_fd = -1;

/* As a guest would hold it; nobody reads it but the test. */
static int make_tap(void **state)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

    (void)state;
    if (system("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6;"
               "ip link add br0 type bridge && ip link set br0 up") != 0 ||
        gw_tap_create("tap0", "br0", NULL) < 0)
        return -1;
    tap_fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    strcpy(ifr.ifr_name, "tap0");
    return ioctl(tap_fd, TUNSETIFF, &ifr);
}

static int remove_tap(void **state)
{
    (void)state;
    close(tap_fd);
    gw_tap_delete("tap0", NULL);
    return system("ip link del br0");
}

#define FOR_GUEST "\x52\x54\x00\x77\x00\x64\x02\x00\x00\x00\x00\x01"
#define NO_MAC    "\0\0\0\0\0\0"

/* A frame into the tap, as the bridge would send one; number stands in its last byte. */
static void send_bytes(struct gw_macmove *mm, const char *bytes, size_t n, uint8_t number)
{
    uint8_t frame[GW_MACMOVE_HEADER_BYTES + 60] = {0};

    memcpy(frame + GW_MACMOVE_HEADER_BYTES, bytes, n);
    frame[sizeof frame - 1] = number;
    assert_int_equal(gw_macmove_inject(mm, frame, sizeof frame, NULL), 0);
}

static void send_frame(struct gw_macmove *mm, uint8_t number)
{
    send_bytes(mm, FOR_GUEST "\x88\xb5", 14, number);
}

/* Number 7: an ARP request, to which there is an answer. */
static void send_question(struct gw_macmove *mm)
{
    static const char request[] =
        FOR_GUEST "\x08\x06\0\x01\x08\0\x06\x04\0\x01" NO_MAC "\x0a\0\0\x01" NO_MAC "\x0a\0\0\x02";

    send_bytes(mm, request, sizeof request - 1, 7);
}

/* Not what the kernel itself says on a new bridge. */
static bool is_ours(const uint8_t *frame, ssize_t n_bytes)
{
    const uint8_t *type = frame + sizeof(struct virtio_net_hdr) + 12;

    return n_bytes == (ssize_t)(sizeof(struct virtio_net_hdr) + 60) &&
           ((type[0] == 0x88 && type[1] == 0xb5) || (type[0] == 0x08 && type[1] == 0x06));
}

/* Every test frame that the tap's own queue holds, by its number; other frames are passed over. */
static void read_numbers(char *numbers, size_t size)
{
    uint8_t frame[2048];
    size_t n = 0;
    ssize_t got;

    while ((got = read(tap_fd, frame, sizeof frame)) > 0)
        if (is_ours(frame, got) && n + 1 < size)
            numbers[n++] = (char)('0' + frame[got - 1]);
    numbers[n] = '\0';
}

static void only_what_comes_after_the_start_is_copied(void **state)
{
    struct gw_tapwatch w;
    struct gw_macmove mm = {0};
    uint8_t bytes[2048];
    struct gw_tapwatch_frame frame = {.bytes = bytes, .size = sizeof bytes};
    char copied[16] = "";
    size_t n_copied = 0;

    (void)state;
    assert_int_equal(gw_macmove_open(&mm, "br0", "tap0", MAC, NULL), 0);
    assert_int_equal(gw_tapwatch_open(&w, "tap0", NULL), 0);
    send_frame(&mm, 1);
    assert_int_equal(gw_tapwatch_read(&w, &frame, NULL), 0);
    assert_int_equal(gw_tapwatch_start(&w, NULL), 0);
    send_frame(&mm, 2);
    send_frame(&mm, 3);
    while (gw_tapwatch_read(&w, &frame, NULL) == 1)
        if (frame.n_bytes == GW_MACMOVE_HEADER_BYTES + 60 && bytes[22] == 0x88 &&
            bytes[23] == 0xb5) {
            copied[n_copied++] = (char)('0' + bytes[frame.n_bytes - 1]);
            assert_true(frame.at_ns > 0 && gw_clock_realtime_ns() - frame.at_ns < GW_NS_PER_S);
        }
    assert_string_equal(copied, "23");
    read_numbers(copied, sizeof copied);
    assert_string_equal(copied, "123"); /* the originals went where they should */
    gw_tapwatch_fini(&w);
    gw_tapwatch_fini(&w);
    assert_int_equal(gw_tapwatch_read(&w, &frame, NULL), 0);
    gw_macmove_fini(&mm);
}

static void no_tap_no_watch(void **state)
{
    struct gw_tapwatch w;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_tapwatch_open(&w, "nothere", &e), -1);
    assert_non_null(strstr(e.msg, "nothere"));
    assert_int_equal(gw_tapwatch_start(&w, &e), -1);
    gw_tapwatch_fini(&w);
}

/* Just enough of a VM and its daemon for guestnet. */
static struct gw_daemon a_daemon;
static struct gw_vm_nic a_nic = {.bridge = (char *)"br0", .mac = (char *)MAC};
static struct gw_vm_spec a_spec = {.name = (char *)"web1", .nics = &a_nic, .n_nics = 1};
static struct gw_vm a_vm = {
    .daemon = &a_daemon, .spec = &a_spec, .tap_names = {"tap0"}, .n_taps = 1};

static struct gw_guestnet *open_net(void)
{
    a_daemon.base = event_base_new();
    a_daemon.log = (struct gw_log){.level = GW_LOG_ERROR};
    assert_int_equal(gw_process_attach(getpid(), 0, &a_vm.process, NULL), 0);
    return gw_guestnet_open(&a_vm);
}

static void close_net(struct gw_guestnet *net)
{
    gw_guestnet_free(net);
    gw_process_fini(&a_vm.process);
    event_base_free(a_daemon.base);
}

static json_t *round_trip(json_t *frames)
{
    char *text = json_dumps(frames, 0);
    json_t *again = json_loads(text, 0, NULL);

    free(text);
    json_decref(frames);
    return again;
}

/* As QEMU reads its tap. */
static void read_one(void)
{
    struct pollfd waiting = {.fd = tap_fd, .events = POLLIN};
    uint8_t frame[2048];
    ssize_t n;

    do {
        assert_int_equal(poll(&waiting, 1, 5000), 1);
        n = read(tap_fd, frame, sizeof frame);
        assert_true(n > 0);
    } while (!is_ours(frame, n));
}

/* The guest answers the question. */
static void guest_answers(void)
{
    static const char reply[] =
        "\x02\x00\x00\x00\x00\x01\x52\x54\x00\x77\x00\x64\x08\x06\0\x01\x08\0\x06\x04\0\x02" NO_MAC
        "\x0a\0\0\x02" NO_MAC "\x0a\0\0\x01";
    uint8_t frame[sizeof(struct virtio_net_hdr) + 60] = {0};

    memcpy(frame + sizeof(struct virtio_net_hdr), reply, sizeof reply - 1);
    assert_int_equal(write(tap_fd, frame, sizeof frame), sizeof frame);
}

struct scene {
    struct gw_guestnet *net;
    struct gw_macmove mm;
};

static void begin(struct scene *s)
{
    char numbers[16];

    s->net = open_net();
    s->mm = (struct gw_macmove){0};
    assert_int_equal(gw_macmove_open(&s->mm, "br0", "tap0", MAC, NULL), 0);
    read_numbers(numbers, sizeof numbers);
    gw_guestnet_watch(s->net);
}

/*
 * What goes over is what is expected, each frame once; what the kernel itself says on a new bridge
 * is passed over. A frame that was just sent may still be on its way into the tap: the kernel has
 * another processor send it when one is sending there.
 */
static void end(struct scene *s, const char *expected)
{
    json_t *frames = json_array(), *more;
    char numbers[16];

    for (int i = 0; i < 20 || (i < 1000 && json_array_size(frames) < strlen(expected)); i++) {
        more = gw_guestnet_drain(s->net);
        if (more)
            json_array_extend(frames, more);
        json_decref(more);
        poll(NULL, 0, 1);
    }
    frames = round_trip(frames);
    gw_guestnet_inject(s->net, frames);
    read_numbers(numbers, sizeof numbers);
    assert_string_equal(numbers, expected);
    json_decref(frames);
    gw_macmove_fini(&s->mm);
    close_net(s->net);
}

/* Frame 1 came before QEMU said that it had paused the guest, and was read after it had. */
static void what_a_paused_qemu_swallowed_is_sent_too(void **state)
{
    struct scene s;

    (void)state;
    begin(&s);
    send_question(&s.mm);
    read_one();
    guest_answers(); /* it had this one */
    send_frame(&s.mm, 1);
    read_one();
    gw_guestnet_paused(s.net, gw_clock_ns());
    send_frame(&s.mm, 2);
    end(&s, "12");
}

static void a_frame_between_the_swallowed_one_and_the_filler_stays_in_order(void **state)
{
    struct scene s;

    (void)state;
    begin(&s);
    send_frame(&s.mm, 1);
    read_one();
    send_frame(&s.mm, 2);
    gw_guestnet_paused(s.net, gw_clock_ns());
    send_frame(&s.mm, 3);
    end(&s, "123");
}

static void a_swallowed_filler_means_that_all_before_was_delivered(void **state)
{
    struct scene s;

    (void)state;
    begin(&s);
    send_question(&s.mm);
    read_one();
    guest_answers();
    gw_guestnet_paused(s.net, gw_clock_ns());
    read_one(); /* the filler */
    send_frame(&s.mm, 1);
    send_frame(&s.mm, 2);
    end(&s, "12");
}

/* QEMU read it while it stopped the guest, and threw it away: as far as anybody can tell. */
static void a_frame_that_the_guest_may_have_missed_is_sent_again(void **state)
{
    struct scene s;

    (void)state;
    begin(&s);
    send_question(&s.mm);
    read_one();
    guest_answers();
    send_frame(&s.mm, 1);
    read_one();
    gw_guestnet_paused(s.net, gw_clock_ns());
    read_one(); /* the filler */
    end(&s, "1");
}

static void one_is_thrown_away_and_one_kept(void **state)
{
    struct scene s;

    (void)state;
    begin(&s);
    for (uint8_t number = 1; number <= 2; number++) {
        send_frame(&s.mm, number);
        read_one();
    }
    gw_guestnet_paused(s.net, gw_clock_ns());
    send_frame(&s.mm, 3);
    end(&s, "123");
}

static void nothing_came_nothing_goes(void **state)
{
    struct scene s;

    (void)state;
    begin(&s);
    send_question(&s.mm);
    read_one();
    guest_answers();
    gw_guestnet_paused(s.net, gw_clock_ns());
    read_one();
    end(&s, "");
}

static void frames_that_came_before_the_watch_are_not_lost(void **state)
{
    struct gw_guestnet *net = open_net();
    struct gw_macmove mm = {0};
    char numbers[16];
    json_t *frames;

    (void)state;
    assert_int_equal(gw_macmove_open(&mm, "br0", "tap0", MAC, NULL), 0);
    read_numbers(numbers, sizeof numbers);
    send_frame(&mm, 1);
    send_frame(&mm, 2);
    gw_guestnet_paused(net, gw_clock_ns());
    send_frame(&mm, 3);
    frames = round_trip(gw_guestnet_drain(net));
    gw_guestnet_inject(net, frames);
    read_numbers(numbers, sizeof numbers);
    assert_string_equal(numbers, "123");
    json_decref(frames);
    gw_macmove_fini(&mm);
    close_net(net);
}

/* QEMU has not looked at its tap at all: it had delivered what came long before. */
static void an_old_frame_is_not_sent_again(void **state)
{
    struct scene s;

    (void)state;
    begin(&s);
    send_question(&s.mm);
    read_one();
    guest_answers();
    gw_guestnet_paused(s.net, gw_clock_ns() + 60 * GW_NS_PER_MS);
    send_frame(&s.mm, 1);
    end(&s, "1");
}

/* More traffic than is kept: its end is what counts. */
static void of_a_flood_the_end_is_kept(void **state)
{
    struct scene s;

    (void)state;
    begin(&s);
    for (int i = 0; i < 3000; i++) {
        send_question(&s.mm);
        read_one();
    }
    guest_answers();
    send_frame(&s.mm, 1);
    read_one();
    gw_guestnet_paused(s.net, gw_clock_ns());
    send_frame(&s.mm, 2);
    end(&s, "12");
}

static void nonsense_from_a_peer_is_dropped(void **state)
{
    static const char *const rows[] = {
        "null",
        "7",
        "{}",
        "[7]",
        "[{}]",
        "[{\"nic\":0}]",
        "[{\"nic\":0,\"frame\":7}]",
        "[{\"nic\":0,\"frame\":\"\"}]",
        "[{\"nic\":0,\"frame\":\"A\"}]",
        "[{\"nic\":0,\"frame\":\"!!!!\"}]",
        "[{\"nic\":0,\"frame\":\"====\"}]",
        "[{\"nic\":1,\"frame\":\"AAAA\"}]",
        "[{\"nic\":-1,\"frame\":\"AAAA\"}]",
        "[{\"nic\":0,\"frame\":\"AAAA\"}]", /* shorter than a header */
    };
    struct gw_guestnet *net = open_net();
    size_t length = 400000;
    char *huge = malloc(length + 1), numbers[16];
    json_t *frames;

    (void)state;
    a_daemon.log.level = (enum gw_log_level)0; /* it complains, as it should */
    read_numbers(numbers, sizeof numbers);
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        frames = json_loads(rows[i], JSON_DECODE_ANY, NULL);
        gw_guestnet_inject(net, frames);
        json_decref(frames);
    }
    memset(huge, 'A', length);
    huge[length] = '\0';
    frames = json_pack("[{s:i, s:s}]", "nic", 0, "frame", huge);
    gw_guestnet_inject(net, frames);
    json_decref(frames);
    free(huge);
    read_numbers(numbers, sizeof numbers);
    assert_string_equal(numbers, "");
    close_net(net);
}

static void the_filler_goes_first(void **state)
{
    struct gw_guestnet *net = open_net();
    char numbers[16];

    (void)state;
    read_numbers(numbers, sizeof numbers);
    gw_guestnet_prime(net);
    read_numbers(numbers, sizeof numbers);
    assert_string_equal(numbers, "0");
    close_net(net);
}

/* What the guest says, behind its header. */
static void guest_sends(const char *frame, size_t n_bytes)
{
    uint8_t bytes[sizeof(struct virtio_net_hdr) + 128] = {0};

    memcpy(bytes + sizeof(struct virtio_net_hdr), frame, n_bytes);
    n_bytes += sizeof(struct virtio_net_hdr);
    assert_int_equal(write(tap_fd, bytes, n_bytes), n_bytes);
}

#define GUEST_SENDS(frame) guest_sends(frame, sizeof(frame) - 1)
#define MAC_BYTES          "\x52\x54\x00\x77\x00\x64"
#define TO_ALL             "\xff\xff\xff\xff\xff\xff" MAC_BYTES
#define ARP_SAYS(last)                                                       \
    "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" MAC_BYTES "\x0a\x4d\x00" last \
    "\0\0\0\0\0\0\x0a\x4d\x00\x03"
#define SOLICITS                                                             \
    "\x86\xdd\x60\0\0\0\0\x10\x3a\xff\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x64" \
    "\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x85\0\0\0\0\0\0\0\x01\x01" MAC_BYTES

/* A VM that is listened to, and a second port of its bridge: the way to everybody else. */
static int uplink_fd = -1;

static int make_uplink(void **state)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, .ifr_name = "up0"};

    if (make_tap(state) < 0 || gw_tap_create("up0", "br0", NULL) < 0)
        return -1;
    uplink_fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return ioctl(uplink_fd, TUNSETIFF, &ifr);
}

static int remove_uplink(void **state)
{
    close(uplink_fd);
    gw_tap_delete("up0", NULL);
    return remove_tap(state);
}

static struct gw_config a_config = {.announce_addresses = true};

static struct gw_guestnet *open_known_net(void)
{
    struct gw_guestnet *net = open_net();

    a_daemon.config = &a_config;
    a_vm.addresses = gw_guestaddr_open(&a_vm);
    return net;
}

static void close_known_net(struct gw_guestnet *net)
{
    gw_guestaddr_free(gw_steal_ptr(&a_vm.addresses));
    close_net(net);
}

static void assert_known(const char *expected)
{
    json_t *known = gw_guestaddr_to_json(a_vm.addresses);
    char *text = json_dumps(known, JSON_COMPACT);

    assert_string_equal(text, expected);
    free(text);
    json_decref(known);
}

/* The next frame of this EtherType that left the bridge; false: none within a second. */
static bool next_on_uplink(uint16_t type, uint8_t frame[2048])
{
    struct pollfd waiting = {.fd = uplink_fd, .events = POLLIN};

    while (poll(&waiting, 1, 1000) == 1) {
        if (read(uplink_fd, frame, 2048) < 14 + (ssize_t)sizeof(struct virtio_net_hdr))
            return false;
        memmove(frame, frame + sizeof(struct virtio_net_hdr), 2048 - sizeof(struct virtio_net_hdr));
        if (frame[12] == type >> 8 && frame[13] == (type & 0xff))
            return true;
    }
    return false;
}

static void claims_are_noted_and_announced(void **state)
{
    struct gw_guestnet *net = open_known_net();
    uint8_t frame[2048];

    (void)state;
    GUEST_SENDS(TO_ALL ARP_SAYS("\x64"));
    GUEST_SENDS(TO_ALL "\x81\x00\x00\x05" ARP_SAYS("\x65")); /* in another VLAN */
    GUEST_SENDS(TO_ALL SOLICITS);
    while (next_on_uplink(ETH_P_IPV6, frame) && frame[54] != 133)
        ; /* all have passed the tap: the last one has left the bridge */
    assert_known("[{\"nic\":0,\"addresses\":[\"10.77.0.100\",\"fe80::64\"]}]");
    gw_guestnet_take(net);
    assert_true(next_on_uplink(ETH_P_RARP, frame));
    assert_true(next_on_uplink(ETH_P_ARP, frame));
    assert_memory_equal(frame + 28, "\x0a\x4d\x00\x64", 4);
    assert_memory_equal(frame + 38, "\x0a\x4d\x00\x64", 4);
    assert_true(next_on_uplink(ETH_P_IPV6, frame));
    assert_int_equal(frame[54], 136);
    assert_memory_equal(frame + 62, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x64", 16);
    close_known_net(net);
}

static void what_the_source_knew_is_announced(void **state)
{
    struct gw_guestnet *net = open_known_net();
    json_t *said = json_loads("[null, {\"nic\": 7, \"addresses\": [\"10.0.0.7\"]},"
                              " {\"nic\": 0, \"addresses\": [\"10.0.0.8\", \"127.0.0.1\"]},"
                              " {\"nic\": \"0\", \"addresses\": [\"10.0.0.9\"]}]",
                              0, NULL);
    uint8_t frame[2048];

    (void)state;
    gw_guestaddr_from_json(a_vm.addresses, said);
    json_decref(said);
    assert_known("[{\"nic\":0,\"addresses\":[\"10.0.0.8\"]}]");
    gw_guestnet_take(net);
    assert_true(next_on_uplink(ETH_P_ARP, frame));
    assert_memory_equal(frame + 28, "\x0a\0\0\x08", 4);
    close_known_net(net);
}

static void who_does_not_want_it_does_not_listen(void **state)
{
    struct gw_guestnet *net;
    uint8_t frame[2048];

    (void)state;
    a_config.announce_addresses = false;
    net = open_known_net();
    assert_null(a_vm.addresses);
    GUEST_SENDS(TO_ALL ARP_SAYS("\x64"));
    assert_true(next_on_uplink(ETH_P_ARP, frame));
    gw_guestnet_take(net);
    assert_true(next_on_uplink(ETH_P_RARP, frame));
    assert_false(next_on_uplink(ETH_P_ARP, frame));
    assert_known("[]");
    a_config.announce_addresses = true;
    close_known_net(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_what_comes_after_the_start_is_copied, make_tap,
                                        remove_tap),
        cmocka_unit_test(no_tap_no_watch),
        cmocka_unit_test_setup_teardown(what_a_paused_qemu_swallowed_is_sent_too, make_tap,
                                        remove_tap),
        cmocka_unit_test_setup_teardown(
            a_frame_between_the_swallowed_one_and_the_filler_stays_in_order, make_tap, remove_tap),
        cmocka_unit_test_setup_teardown(a_swallowed_filler_means_that_all_before_was_delivered,
                                        make_tap, remove_tap),
        cmocka_unit_test_setup_teardown(a_frame_that_the_guest_may_have_missed_is_sent_again,
                                        make_tap, remove_tap),
        cmocka_unit_test_setup_teardown(one_is_thrown_away_and_one_kept, make_tap, remove_tap),
        cmocka_unit_test_setup_teardown(nothing_came_nothing_goes, make_tap, remove_tap),
        cmocka_unit_test_setup_teardown(frames_that_came_before_the_watch_are_not_lost, make_tap,
                                        remove_tap),
        cmocka_unit_test_setup_teardown(an_old_frame_is_not_sent_again, make_tap, remove_tap),
        cmocka_unit_test_setup_teardown(of_a_flood_the_end_is_kept, make_tap, remove_tap),
        cmocka_unit_test_setup_teardown(nonsense_from_a_peer_is_dropped, make_tap, remove_tap),
        cmocka_unit_test_setup_teardown(the_filler_goes_first, make_tap, remove_tap),
        cmocka_unit_test_setup_teardown(claims_are_noted_and_announced, make_uplink, remove_uplink),
        cmocka_unit_test_setup_teardown(what_the_source_knew_is_announced, make_uplink,
                                        remove_uplink),
        cmocka_unit_test_setup_teardown(who_does_not_want_it_does_not_listen, make_uplink,
                                        remove_uplink),
    };

    if (unshare(CLONE_NEWNET) < 0) {
        perror("no network namespace");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
