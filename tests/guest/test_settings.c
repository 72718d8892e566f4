/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "settings.h"

static void everything_is_read(void **state)
{
    struct gw_settings s;
    char why[200];

    (void)state;
    assert_int_equal(gw_settings_parse(&s,
                                       "console=ttyS0 quiet gw.ip=10.77.0.100/24 gw.fill=64MiB "
                                       "gw.udp=10.77.0.3:7500 gw.compress=30 gw.rate=50 "
                                       "gw.wss=32MiB gw.bytes=64 gw.name=web1 gw.free=96MiB "
                                       "gw.balloon=1 root=/dev/vda panic=-1\n",
                                       why, sizeof(why)),
                     0);
    assert_string_equal(inet_ntoa(s.ip), "10.77.0.100");
    assert_string_equal(inet_ntoa(s.netmask), "255.255.255.0");
    assert_string_equal(inet_ntoa(s.udp.sin_addr), "10.77.0.3");
    assert_int_equal(ntohs(s.udp.sin_port), 7500);
    assert_int_equal(s.fill_bytes, 64 << 20);
    assert_int_equal(s.wss_bytes, 32 << 20);
    assert_int_equal(s.compress_percent, 30);
    assert_int_equal(s.rate_mb_per_s, 50);
    assert_int_equal(s.n_write_bytes, 64);
    assert_string_equal(s.name, "web1");
    assert_string_equal(s.root, "/dev/vda");
    assert_int_equal(s.query_port, 7501);
    assert_int_equal(s.free_bytes, 96 << 20);
    assert_true(s.balloon);
    assert_false(s.poweroff);
}

static void nonsense_is_refused_by_name(void **state)
{
    static const char *const lines[] = {
        "gw.fil=1MiB",
        "gw.fill=1Mib",
        "gw.fill=-1",
        "gw.fill=",
        "gw.fill",
        "gw.fill=2TiB",
        "gw.fill=1025GiB",
        "gw.compress=101",
        "gw.bytes=7",
        "gw.bytes=4096",
        "gw.ip=1.2.3/8",
        "gw.ip=10.77.0.100",
        "gw.ip=1.2.3.4/0",
        "gw.udp=1.2.3.4",
        "gw.udp=x:1",
        "gw.mode=off",
        "gw.query=0",
        "gw.rx=65536",
        "gw.rate=1e3",
        "gw.name=0123456789012345678901234567890123456789",
        "gw.name=a\"b",
        "gw.=1",
        "root=LABEL=x",
        "root=",
        "root=/dev/0123456789012345678901234567890123456789",
        "gw.fill=99999999999999999999",
    };
    struct gw_settings s;
    char why[200];

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        why[0] = '\0';
        assert_int_equal(gw_settings_parse(&s, lines[i], why, sizeof(why)), -1);
        assert_memory_equal(why, lines[i], strcspn(lines[i], "="));
    }
}

static void sizes_have_units(void **state)
{
    uint64_t n;

    (void)state;
    assert_int_equal(gw_size_parse("4096", &n), 0);
    assert_int_equal(n, 4096);
    assert_int_equal(gw_size_parse("3KiB", &n), 0);
    assert_int_equal(n, 3072);
    assert_int_equal(gw_size_parse("1024GiB", &n), 0);
    assert_int_equal(n, 1ll << 40);
    assert_int_equal(gw_size_parse("1 MiB", &n), -1);
    assert_int_equal(gw_size_parse("18446744073709551615KiB", &n), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),
        cmocka_unit_test(nonsense_is_refused_by_name),
        cmocka_unit_test(sizes_have_units),
    };

    return cmocka_run_group_tests_name("guest settings", tests, NULL, NULL);
}
