/* SPDX-License-Identifier: Apache-2.0 */
/* Quantities and text as the command line reads and writes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "../../tools/godwit/text.h"
#include "../../tools/godwit/units.h"
#include "util/cleanup.h"

static void quantities_read_well(void **state)
{
    (void)state;
    assert_string_equal(gw_units_bytes(0).text, "0 B");
    assert_string_equal(gw_units_bytes(1023).text, "1023 B");
    assert_string_equal(gw_units_bytes(1024).text, "1.0 KiB");
    assert_string_equal(gw_units_bytes((1 << 20) - 1).text, "1.0 MiB");
    assert_string_equal(gw_units_bytes(820l << 20).text, "820 MiB");
    assert_string_equal(gw_units_bytes(INT64_MAX).text, "8.0 EiB");
    assert_string_equal(gw_units_bytes(-1).text, "-");
    assert_string_equal(gw_units_rate(118 << 20).text, "118 MiB/s");
    assert_string_equal(gw_units_rate(-1).text, "-");
    assert_string_equal(gw_units_ms(999).text, "999 ms");
    assert_string_equal(gw_units_ms(3425).text, "3.42 s");
    assert_string_equal(gw_units_ms(59999).text, "59.99 s");
    assert_string_equal(gw_units_ms(125000).text, "2 min 5 s");
    assert_string_equal(gw_units_ms(3780000).text, "1 h 3 min");
    assert_string_equal(gw_units_ms(-1).text, "-");
}

static void rates_are_read_with_their_unit(void **state)
{
    static const char *const bad[] = {"",       "100",       "0gbit", "-1MB", "1e3MB",
                                      "0x10MB", "1 2MB",     "gbit",  ".",    "1.2.3MB",
                                      "1Mb",    "1gbit/s/s", "nanMB", "1MiB/"};
    uint64_t n;

    (void)state;
    assert_true(gw_units_parse_rate("1gbit", &n) && n == 125000000);
    assert_true(gw_units_parse_rate("1.5Gbit/s", &n) && n == 187500000);
    assert_true(gw_units_parse_rate("100 MiB/s", &n) && n == 100 << 20);
    assert_true(gw_units_parse_rate("100MB", &n) && n == 100000000);
    for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++)
        assert_false(gw_units_parse_rate(bad[i], &n));
    assert_false(gw_units_parse_rate("999999999999TiB", &n));
}

static void durations_are_read(void **state)
{
    uint64_t n;

    (void)state;
    assert_true(gw_units_parse_duration("300", 1, &n) && n == 300);
    assert_true(gw_units_parse_duration("300", 1000, &n) && n == 300000);
    assert_true(gw_units_parse_duration("0.3s", 1, &n) && n == 300);
    assert_true(gw_units_parse_duration("15m", 1, &n) && n == 900000);
    assert_true(gw_units_parse_duration("2h", 1, &n) && n == 7200000);
    assert_false(gw_units_parse_duration("-1s", 1, &n));
    assert_false(gw_units_parse_duration("soon", 1, &n));
    assert_false(gw_units_parse_duration("1w", 1, &n));
}

static void text_is_cleaned(void **state)
{
    static const struct {
        const char *raw, *clean;
    } cases[] = {
        {"web1", "web1"},
        {"a\033[31mb\n\t\177", "a\\x1b[31mb\\x0a\\x09\\x7f"},
        {"\xc2\x9b", "\\x9b"},       /* CSI as one code point */
        {"\xe2\x80\xae", "\\u202e"}, /* right-to-left override */
        {"\xc3\xa4\xf0\x9f\x90\xa6", "\xc3\xa4\xf0\x9f\x90\xa6"},
        {"\xff\xc3", "\\xff\\xc3"}, /* no UTF-8, and cut short */
        {"\xc0\x9b", "\\xc0\\x9b"}, /* ESC, too long */
        {"\xe0\x80\x9b", "\\xe0\\x80\\x9b"},
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, /* half of a surrogate pair */
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
    };

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        gw_autofree char *clean = gw_text_clean(cases[i].raw);

        assert_string_equal(clean, cases[i].clean);
        assert_true(gw_text_is_utf8(clean));
    }
    assert_false(gw_text_is_utf8("\xff"));
}

static void text_is_cut_between_letters(void **state)
{
    (void)state;
    assert_int_equal(gw_text_width("n\xc3\xa4h"), 3);
    assert_int_equal(gw_text_fit("n\xc3\xa4h", 2), 3);
    assert_int_equal(gw_text_fit("n\xc3\xa4h", 9), 4);
    assert_int_equal(gw_text_fit("n\xc3\xa4h", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantities_read_well),
        cmocka_unit_test(rates_are_read_with_their_unit),
        cmocka_unit_test(durations_are_read),
        cmocka_unit_test(text_is_cleaned),
        cmocka_unit_test(text_is_cut_between_letters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
