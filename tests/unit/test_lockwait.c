/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shell/lockwait.h"
#include "util/clock.h"

/* What query-blockstats says of a device with so many bins, of which one is not empty. */
static json_t *device(size_t n_bins, size_t used)
{
    json_t *bins = json_array();

    for (size_t i = 0; i < n_bins; i++)
        json_array_append_new(bins, json_integer(i == used ? 3 : 0));
    return json_pack("{s:s, s:{s:i, s:{s:o}}}", "qdev", "/machine/peripheral/disk0/virtio-backend",
                     "stats", "wr_operations", 3, "wr_latency_histogram", "bins", bins);
}

static uint64_t longest_ns(json_t *first, json_t *second)
{
    json_t *list = json_array();
    uint64_t ns;

    json_array_append_new(list, first);
    json_array_append_new(list, second);
    ns = gw_lockwait_longest_ns(list);
    json_decref(list);
    return ns;
}

static void the_highest_bin_of_all_disks_counts(void **state)
{
    (void)state;
    assert_int_equal(longest_ns(device(201, 0), device(201, 7)), 8 * GW_NS_PER_MS);
    assert_int_equal(longest_ns(device(201, 199), device(201, 7)), 200 * GW_NS_PER_MS);
}

static void what_is_not_known_is_zero(void **state)
{
    (void)state;
    /* no write; none counted; longer than the last edge; nothing that QEMU would say */
    assert_int_equal(longest_ns(device(201, 500), json_pack("{s:{}}", "stats")), 0);
    assert_int_equal(longest_ns(device(201, 200), device(201, 7)), 0);
    assert_int_equal(longest_ns(device(0, 0), json_integer(1)), 0);
    assert_int_equal(gw_lockwait_longest_ns(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_highest_bin_of_all_disks_counts),
        cmocka_unit_test(what_is_not_known_is_zero),
    };

    return cmocka_run_group_tests_name("lockwait", tests, NULL, NULL);
}
