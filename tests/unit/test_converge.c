/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "host/converge.h"
#include "util/cleanup.h"

static void begins_low_within_the_policy(void **state)
{
    struct gw_converge c;

    (void)state;
    assert_int_equal(gw_converge_begin(&c, 200), GW_CONVERGE_FIRST_MS);
    assert_int_equal(gw_converge_begin(&c, GW_CONVERGE_FIRST_MS), GW_CONVERGE_FIRST_MS);
    assert_int_equal(gw_converge_begin(&c, 1), 1);
}

/* Rounds as {number, remaining}; returns the number of the round that ended it, 0: none. */
static uint32_t run(uint32_t policy_ms, const uint64_t (*rounds)[2], size_t n)
{
    struct gw_converge c;
    uint32_t at = 0;

    gw_converge_begin(&c, policy_ms);
    for (size_t i = 0; i < n; i++)
        if (gw_converge_round(&c, (uint32_t)rounds[i][0], rounds[i][1])) {
            assert_int_equal(at, 0); /* once at most */
            at = (uint32_t)rounds[i][0];
        }
    return at;
}

static void rounds_that_shrink_go_on(void **state)
{
    static const uint64_t rounds[][2] = {{1, 1000}, {2, 500}, {3, 250}, {4, 187}, {5, 100}, {7, 1}};

    (void)state;
    assert_int_equal(run(200, rounds, GW_ARRAY_SIZE(rounds)), 0);
}

static void two_in_a_row_that_do_not_end_it(void **state)
{
    static const uint64_t rounds[][2] = {{1, 1000}, {2, 900}, {3, 300}, {4, 290},
                                         {5, 310},  {6, 320}, {7, 330}};

    (void)state;
    assert_int_equal(run(200, rounds, GW_ARRAY_SIZE(rounds)), 5);
    assert_int_equal(run(1, rounds, GW_ARRAY_SIZE(rounds)), 0); /* nothing to be raised */
}

/* Remaining goes up and down and is never small enough: seen with rounds of 2 ms. */
static void rounds_that_never_end_are_ended(void **state)
{
    uint64_t rounds[30][2];

    (void)state;
    for (unsigned i = 0; i < 30; i++) {
        rounds[i][0] = i + 1;
        rounds[i][1] = i % 2 ? 1000 : 200000;
    }
    assert_int_equal(run(200, (const uint64_t(*)[2])rounds, 30), GW_CONVERGE_ROUNDS);
}

static void one_round_counts_once(void **state)
{
    static const uint64_t rounds[][2] = {{0, 0}, {1, 1000}, {1, 999}, {1, 998}, {2, 500}, {2, 499}};

    (void)state;
    assert_int_equal(run(200, rounds, GW_ARRAY_SIZE(rounds)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_low_within_the_policy),
        cmocka_unit_test(rounds_that_shrink_go_on),
        cmocka_unit_test(two_in_a_row_that_do_not_end_it),
        cmocka_unit_test(rounds_that_never_end_are_ended),
        cmocka_unit_test(one_round_counts_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
