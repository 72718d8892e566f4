/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "host/route.h"
#include "util/cleanup.h"

#define MB UINT64_C(1000000)

static void the_slower_of_link_and_processors_decides(void **state)
{
    /* link, limit, codec in MB/s; processors */
    static const struct {
        uint64_t link, limit, codec;
        unsigned n_processors;
        bool carrier;
        const char *because;
    } cases[] = {
        {125, 0, 400, 2, true, "slower than pages are encoded"},
        {25, 0, 400, 1, true, "slower than pages are encoded"},
        {179, 0, 180, 2, true, "slower than pages are encoded"},
        {125, 0, 100, 2, false, "more slowly than the link"},
        {125, 0, 100, 3, false, "more slowly than the link"},
        {125, 0, 100, 4, true, "slower than pages are encoded"},
        {125, 0, 125, 0, true, "slower than pages are encoded"},
        {180, 0, 4000, 64, false, "so fast"},
        {1000, 0, 4000, 64, false, "so fast"},
        {1000, 50, 400, 2, true, "slower than pages are encoded"},
        {25, 1000, 400, 2, true, "slower than pages are encoded"},
        {1000, 500, 4000, 64, false, "so fast"},
        {0, 0, 400, 2, false, "could not be measured"},
        {0, 40, 400, 2, true, "slower than pages are encoded"},
        {125, 0, 0, 64, false, "more slowly than the link"},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        const struct gw_route_inputs in = {.link_bytes_per_s = cases[i].link * MB,
                                           .limit_bytes_per_s = cases[i].limit * MB,
                                           .codec_bytes_per_s = cases[i].codec * MB,
                                           .n_processors = cases[i].n_processors,
                                           .multifd = true};
        const char *because = NULL;

        if (gw_route_is_carrier(&in, &because) != cases[i].carrier ||
            !strstr(because, cases[i].because))
            fail_msg("case %u: %s", i, because);
    }
}

static void what_the_carrier_cannot_do_goes_before_what_it_gains(void **state)
{
    static const struct {
        bool multifd, all_pages, carrier;
        const char *because;
    } cases[] = {{true, false, true, "fewer bytes"},
                 {false, false, false, "multifd"},
                 {true, true, false, "verified"}};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        const struct gw_route_inputs in = {.link_bytes_per_s = 10 * MB,
                                           .codec_bytes_per_s = UINT64_MAX,
                                           .n_processors = 8,
                                           .multifd = cases[i].multifd,
                                           .all_pages = cases[i].all_pages};
        const char *because = NULL;

        assert_int_equal(gw_route_is_carrier(&in, &because), cases[i].carrier);
        assert_non_null(strstr(because, cases[i].because));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_slower_of_link_and_processors_decides),
        cmocka_unit_test(what_the_carrier_cannot_do_goes_before_what_it_gains),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
