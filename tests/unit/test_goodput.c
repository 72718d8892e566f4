/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "host/goodput.h"

#define MS UINT64_C(1000000)
#define MB UINT64_C(1000000)

/* 500 ms of work with so many bytes more; what QEMU is told, 0: nothing. */
static uint64_t step(struct gw_goodput *g, uint64_t more_bytes)
{
    uint64_t told = 0, instead_of;

    return gw_goodput_take(g, g->bytes_then + more_bytes, g->worked_then_ns + 500 * MS, &told,
                           &instead_of)
               ? told
               : 0;
}

static void the_first_one_counts(void **state)
{
    struct gw_goodput g = {0};

    (void)state;
    assert_int_equal(step(&g, 50 * MB), 100 * MB);
}

static void more_counts_by_half_and_less_at_once(void **state)
{
    struct gw_goodput g = {0};

    (void)state;
    step(&g, 50 * MB);
    assert_int_equal(step(&g, 150 * MB), 200 * MB);
    assert_int_equal(step(&g, 150 * MB), 250 * MB);
    assert_int_equal(step(&g, 25 * MB), 50 * MB);
}

static void little_changes_are_not_told_but_add_up(void **state)
{
    struct gw_goodput g = {0};

    (void)state;
    assert_int_equal(step(&g, 50 * MB), 100 * MB);
    assert_int_equal(step(&g, 45 * MB), 0);
    assert_int_equal(step(&g, 85 * MB / 2), 0);
    assert_int_equal(step(&g, 40 * MB), 80 * MB);
}

static void too_little_work_says_nothing(void **state)
{
    struct gw_goodput g = {0};
    uint64_t told, instead_of;

    (void)state;
    assert_false(gw_goodput_take(&g, 9 * MB, 19 * MS, &told, &instead_of));
    assert_false(gw_goodput_take(&g, 0, 1000 * MS, &told, &instead_of));
    assert_false(gw_goodput_take(&g, 4 * MB, 399 * MS, &told, &instead_of));
    assert_true(gw_goodput_take(&g, 4 * MB, 400 * MS, &told, &instead_of)); /* all adds up */
    assert_int_equal(told, 10 * MB);
    assert_int_equal(instead_of, 0);
    assert_true(gw_goodput_take(&g, 14 * MB, 450 * MS, &told, &instead_of));
    assert_int_equal(told, 105 * MB);
    assert_int_equal(instead_of, 10 * MB);
    assert_false(gw_goodput_take(&g, 14 * MB, 5000 * MS, &told, &instead_of));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_one_counts),
        cmocka_unit_test(more_counts_by_half_and_less_at_once),
        cmocka_unit_test(little_changes_are_not_told_but_add_up),
        cmocka_unit_test(too_little_work_says_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
