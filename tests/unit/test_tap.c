/* SPDX-License-Identifier: Apache-2.0 */
/* In a network namespace of its own: nothing of the machine's network is touched. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
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

#include "host/tap.h"
#include "util/cleanup.h"

static void run(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

static unsigned flags_of(const char *command)
{
    FILE *pipe = popen(command, "r");
    char text[512] = "";
    size_t got = fread(text, 1, sizeof text - 1, pipe);

    text[got] = '\0';
    pclose(pipe);
    return (strstr(text, "master br0") ? 1u : 0) | (strstr(text, "mtu 1400") ? 2u : 0) |
           (strstr(text, ",UP") ? 4u : 0) | (strstr(text, "vnet_hdr on") ? 8u : 0) |
           (strstr(text, "persist on") ? 16u : 0) | (strstr(text, "inet6") ? 32u : 0);
}

static int make_bridge(void **state)
{
    (void)state;
    return system("ip link add br0 mtu 1400 type bridge && ip link set br0 up && "
                  "ip link add br1 type bridge && ip link add eth0 type veth peer name eth1");
}

static int remove_bridge(void **state)
{
    (void)state;
    return system("ip link del br0; ip link del br1; ip link del eth0");
}

static void names_are_stable_and_differ(void **state)
{
    char a[IFNAMSIZ], b[IFNAMSIZ];

    (void)state;
    gw_tap_name(a, "6b0ff1f4-3b51-4c4e-9b4f-1d9e2f1c0a01", 0);
    gw_tap_name(b, "6b0ff1f4-3b51-4c4e-9b4f-1d9e2f1c0a01", 0);
    assert_string_equal(a, b);
    assert_string_equal(a, "gw2172ab5107-0");
    gw_tap_name(b, "6b0ff1f4-3b51-4c4e-9b4f-1d9e2f1c0a01", 99);
    assert_int_equal(strlen(b), IFNAMSIZ - 1);
    assert_memory_equal(a, b, 13);
    gw_tap_name(b, "6b0ff1f4-3b51-4c4e-9b4f-1d9e2f1c0a02", 0);
    assert_string_not_equal(a, b);
}

static void tap_comes_and_goes(void **state)
{
    struct gw_error e = {0};

    (void)state;
    if (gw_tap_create("gwtest-0", "br0", &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(flags_of("ip -d link show gwtest-0; ip addr show gwtest-0"), 31);
    assert_int_equal(gw_tap_create("gwtest-0", "br0", &e), -1);
    assert_int_equal(e.code, GW_E_EXISTS);
    assert_int_equal(gw_tap_delete("gwtest-0", &e), 0);
    assert_int_equal(if_nametoindex("gwtest-0"), 0);
    assert_int_equal(gw_tap_delete("gwtest-0", &e), 0);
}

static void tap_in_use_goes_too(void **state)
{
    struct ifreq ifr = {.ifr_name = "gwtest-1", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    gw_autoclose int fd = open("/dev/net/tun", O_RDWR);
    struct gw_error e = {0};

    (void)state;
    assert_int_equal(gw_tap_create("gwtest-1", "br0", &e), 0);
    assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0); /* as QEMU does it */
    assert_int_equal(gw_tap_create("gwtest-1", "br0", &e), -1);
    assert_int_equal(e.code, GW_E_EXISTS);
    assert_int_equal(gw_tap_delete("gwtest-1", &e), 0);
    assert_int_equal(if_nametoindex("gwtest-1"), 0);
}

static void missing_bridge_is_named_with_those_that_exist(void **state)
{
    struct gw_error e = {0};

    (void)state;
    assert_int_equal(gw_bridge_exists("br0", &e), 0);
    assert_int_equal(gw_bridge_exists("br7", &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    assert_string_equal(e.msg, "there is no bridge br7");
    assert_string_equal(e.hint, "bridges here: br0, br1");
    assert_int_equal(gw_tap_create("gwtest-2", "br7", &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    assert_int_equal(gw_tap_create("gwtest-2", "eth0", &e), -1);
    assert_string_equal(e.msg, "eth0 is a network interface but no bridge");
    assert_int_equal(if_nametoindex("gwtest-2"), 0);
    run("ip link del br0; ip link del br1");
    assert_int_equal(gw_bridge_exists("br0", &e), -1);
    assert_memory_equal(e.hint, "there is no bridge here", 23);
    run("ip link add br0 type bridge; ip link add br1 type bridge");
}

static void what_fails_leaves_nothing(void **state)
{
    struct gw_error e = {0};

    (void)state;
    /* A bridge may have a larger MTU than a tap can have: a failure after the tap was made. */
    run("ip link set br1 mtu 65535");
    assert_int_equal(gw_tap_create("gwtest-3", "br1", &e), -1);
    assert_int_equal(e.code, GW_E_SYSTEM);
    assert_int_equal(if_nametoindex("gwtest-3"), 0);
}

static void others_are_left_alone(void **state)
{
    struct gw_error e = {0};

    (void)state;
    assert_int_equal(gw_tap_delete("eth0", &e), -1);
    assert_int_equal(e.code, GW_E_STATE);
    assert_int_equal(gw_tap_delete("br0", &e), -1);
    assert_true(if_nametoindex("eth0") && if_nametoindex("br0"));
    assert_int_equal(gw_tap_create("eth0", "br0", &e), -1);
    assert_int_equal(e.code, GW_E_EXISTS);
    assert_int_equal(gw_tap_create("a-name-that-is-too-long", "br0", &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    assert_int_equal(gw_tap_delete("", &e), -1);
    assert_int_equal(gw_bridge_exists("a-name-that-is-too-long", &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_stable_and_differ),
        cmocka_unit_test_setup_teardown(tap_comes_and_goes, make_bridge, remove_bridge),
        cmocka_unit_test_setup_teardown(tap_in_use_goes_too, make_bridge, remove_bridge),
        cmocka_unit_test_setup_teardown(missing_bridge_is_named_with_those_that_exist, make_bridge,
                                        remove_bridge),
        cmocka_unit_test_setup_teardown(what_fails_leaves_nothing, make_bridge, remove_bridge),
        cmocka_unit_test_setup_teardown(others_are_left_alone, make_bridge, remove_bridge),
    };

    if (unshare(CLONE_NEWNET) < 0 || access("/dev/net/tun", R_OK | W_OK) < 0 ||
        system("ip link add gwprobe type bridge && ip link del gwprobe") != 0) {
        fprintf(stderr, "skipped: needs CAP_NET_ADMIN, /dev/net/tun, bridges and iproute2\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
