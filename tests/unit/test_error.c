/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "godwit/error.h"

static void names_round_trip(void **state)
{
    (void)state;
    for (int c = 0; c < GW_CODE_MAX; c++)
        assert_int_equal(gw_code_from_name(gw_code_name((enum gw_code)c)), c);
    assert_int_equal(gw_code_from_name("from-the-future"), GW_E_PROTOCOL);
    assert_string_equal(gw_code_name((enum gw_code)4711), "unknown");
}

static void context_climbs(void **state)
{
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_error_set_sys(&e, ENOENT, "open %s", "/x"), -1);
    gw_error_prefix(&e, "VM %s", "web1");
    assert_string_equal(e.msg, "VM web1: open /x: No such file or directory");
    assert_int_equal(e.code, GW_E_SYSTEM);
    assert_int_equal(e.sys, ENOENT);
}

static void long_messages_are_cut(void **state)
{
    struct gw_error e;
    char text[2000];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    gw_error_set(&e, GW_E_QEMU, "%s", text);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    gw_error_prefix(&e, "%s", text);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    gw_error_hint(&e, "%s", text);
    assert_int_equal(strlen(e.hint), sizeof e.hint - 1);
}

static void nobody_wants_to_know(void **state)
{
    (void)state;
    assert_int_equal(gw_error_set(NULL, GW_E_BUSY, "x"), -1);
    assert_int_equal(gw_error_set_sys(NULL, EIO, "x"), -1);
    assert_int_equal(gw_error_hint(NULL, "x"), -1);
    assert_int_equal(gw_error_prefix(NULL, "x"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_round_trip),
        cmocka_unit_test(context_climbs),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(nobody_wants_to_know),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
