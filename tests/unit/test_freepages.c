/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "host/freepages.h"
#include "util/cleanup.h"

static json_t *json(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);

    assert_non_null(value);
    return value;
}

static void a_balloon_is_found_by_its_name(void **state)
{
    static const struct {
        const char *devices, *path;
    } cases[] = {
        {"[{\"name\":\"virtio-net\",\"path\":\"/a\"},"
         "{\"name\":\"virtio-balloon\",\"path\":\"/machine/peripheral/b/virtio-backend\"}]",
         "/machine/peripheral/b/virtio-backend"},
        {"[{\"name\":\"virtio-net\",\"path\":\"/a\"}]", NULL},
        {"[]", NULL},
        {"[7, null, {}, {\"name\": 1}, {\"name\":\"virtio-balloon\"}]", NULL},
        {"{}", NULL},
        {"null", NULL},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        json_t *devices = json(cases[i].devices);
        const char *path = gw_hints_find_balloon(devices);

        if (cases[i].path)
            assert_string_equal(path, cases[i].path);
        else
            assert_null(path);
        json_decref(devices);
    }
    assert_null(gw_hints_find_balloon(NULL));
}

static void the_driver_decides(void **state)
{
    static const struct {
        const char *status;
        enum gw_hints hints;
    } cases[] = {
        /* as QEMU 10.0.2 says it of Debian's kernel */
        {"{\"guest-features\": {\"transports\": [], \"dev-features\": ["
         "\"VIRTIO_BALLOON_F_FREE_PAGE_HINT: VQ reporting free pages enabled\","
         "\"VIRTIO_BALLOON_F_STATS_VQ: Guest memory stats VQ available\"]}}",
         GW_HINTS_ON},
        {"{\"guest-features\": {\"transports\": [], \"dev-features\": ["
         "\"VIRTIO_BALLOON_F_STATS_VQ: Guest memory stats VQ available\"]}}",
         GW_HINTS_NONE},
        {"{\"guest-features\": {\"transports\": []}, \"host-features\": {\"dev-features\": ["
         "\"VIRTIO_BALLOON_F_FREE_PAGE_HINT: VQ reporting free pages enabled\"]}}",
         GW_HINTS_NONE},
        {"{\"guest-features\": {\"dev-features\": [null, 7, {}]}}", GW_HINTS_NONE},
        {"{\"guest-features\": []}", GW_HINTS_UNKNOWN},
        {"{}", GW_HINTS_UNKNOWN},
        {"[]", GW_HINTS_UNKNOWN},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        json_t *status = json(cases[i].status);

        assert_int_equal(gw_hints_of(status), cases[i].hints);
        json_decref(status);
    }
    assert_int_equal(gw_hints_of(NULL), GW_HINTS_UNKNOWN);
}

static void what_is_left_out_is_counted_from_below(void **state)
{
    static const struct {
        const char *what;
        struct gw_hints_sample sample;
        uint64_t before, after;
    } cases[] = {
        {"nothing is left out",
         {.total_bytes = 4096000, .remaining_bytes = 2048000, .n_sent_pages = 500, .round = 1},
         0,
         0},
        {"the first round: neither remains nor was sent",
         {.total_bytes = 4096000, .remaining_bytes = 1024000, .n_sent_pages = 500, .round = 1},
         0,
         1024000},
        {"some were just taken, and not counted yet",
         {.total_bytes = 4096000,
          .remaining_bytes = 1024000,
          .n_sent_pages = 500,
          .n_unseen_pages = 100,
          .round = 1},
         0,
         614400},
        {"later ones: what remains is to be sent again",
         {.total_bytes = 4096000,
          .remaining_bytes = 4096000,
          .n_sent_pages = 600,
          .n_unseen_pages = 100,
          .round = 2},
         0,
         1638400},
        {"more was sent than there is",
         {.total_bytes = 4096000, .n_sent_pages = 1200, .round = 7},
         77,
         77},
        {"the largest stays",
         {.total_bytes = 4096000, .n_sent_pages = 900, .round = 3},
         1638400,
         1638400},
        {"before the first round", {.total_bytes = 4096000}, 0, 0},
        {"nonsense", {.total_bytes = UINT64_MAX, .n_sent_pages = UINT64_MAX / 2, .round = 1}, 5, 5},
        {"nonsense",
         {.total_bytes = 4096, .remaining_bytes = UINT64_MAX, .n_sent_pages = 1, .round = 1},
         5,
         5},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct gw_hints_sample sample = cases[i].sample;
        uint64_t after;

        sample.page_bytes = 4096;
        after = gw_hints_not_sent(&sample, cases[i].before);
        if (after != cases[i].after)
            fail_msg("%s: %llu", cases[i].what, (unsigned long long)after);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_balloon_is_found_by_its_name),
        cmocka_unit_test(the_driver_decides),
        cmocka_unit_test(what_is_left_out_is_counted_from_below),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
