/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster.h"

#include "shell/offset.h"

static void a_symmetric_path_is_exact(void **state)
{
    struct gw_offset o = {0};
    int64_t offset, uncertainty;

    (void)state;
    assert_false(gw_offset_get(&o, 0, &offset, &uncertainty));
    /* 100 each way, the peer 5000 ahead and 50 at work */
    assert_true(gw_offset_add(&o, 1000, 6100, 6150, 1250));
    assert_true(gw_offset_get(&o, 1250, &offset, &uncertainty));
    assert_int_equal(offset, 5000);
    assert_in_range(uncertainty, 100, 101);
}

static void the_least_delay_wins(void **state)
{
    struct gw_offset o = {0};
    int64_t offset, uncertainty;

    (void)state;
    gw_offset_add(&o, 1000, 6900, 6900, 2000); /* asymmetric: 900 there, 100 back */
    gw_offset_add(&o, 3000, 8010, 8010, 3020);
    gw_offset_add(&o, 4000, 9700, 9700, 5000);
    assert_true(gw_offset_get(&o, 5000, &offset, &uncertainty));
    assert_int_equal(offset, 5000);
    assert_in_range(uncertainty, 10, 11);
}

static void old_samples_lose_their_worth(void **state)
{
    struct gw_offset o = {0};
    int64_t offset, uncertainty, hour = INT64_C(3600) * 1000000000;

    (void)state;
    gw_offset_add(&o, 0, 7, 7, 10);
    gw_offset_add(&o, hour, hour + 500, hour + 500, hour + 1000);
    assert_true(gw_offset_get(&o, hour + 1000, &offset, &uncertainty));
    assert_in_range(uncertainty, 500, 501);
    assert_int_equal(offset, 0);
}

static void impossible_times_are_ignored(void **state)
{
    struct gw_offset o = {0};
    int64_t offset, uncertainty;

    (void)state;
    assert_false(gw_offset_add(&o, 1000, 500, 499, 1100)); /* answered before asked */
    assert_false(gw_offset_add(&o, 1000, 500, 700, 1100)); /* longer than the trip */
    assert_false(gw_offset_add(&o, 1000, -1, 700, 1100));
    assert_false(gw_offset_add(&o, 1000, 500, INT64_MAX, 1100));
    assert_false(gw_offset_add(&o, 1000, INT64_MIN, INT64_MIN, 1100));
    assert_false(gw_offset_get(&o, 2000, &offset, &uncertainty));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_symmetric_path_is_exact),
        cmocka_unit_test(the_least_delay_wins),
        cmocka_unit_test(old_samples_lose_their_worth),
        cmocka_unit_test(impossible_times_are_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
