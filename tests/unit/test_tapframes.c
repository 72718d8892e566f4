/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "host/tapframes.h"
#include "util/cleanup.h"

static const uint8_t mac[ETH_ALEN] = {0x52, 0x54, 0, 0x77, 0, 0x64};

/*
 * A frame is a letter, oldest first; '-' is the filler. Copies also say when they came: each is a
 * millisecond after the one before it, and `pause` of them were there at the pause. A capital one
 * was answered.
 */
struct row {
    const char *name, *copied;
    int pause;
    const char *queued, *missed;
};

static const struct row rows[] = {
    {"QEMU kept the filler, and may have thrown one away", "abc-d", 3, "d", "c"},
    {"QEMU kept the filler, nothing came later", "abc-", 3, "", "c"},
    {"the guest had the last one", "abC-d", 3, "d", ""},
    {"QEMU kept one that came after the pause", "abcd-e", 3, "-e", "cd"},
    {"and the guest had the one before", "abCd-e", 3, "-e", "d"},
    {"QEMU kept one from before the pause: it is slow to say so", "abcd-e", 4, "-e", "cd"},
    {"more came after the pause", "abcde-f", 3, "e-f", "cd"},
    {"some came while the queue was read", "abcd-efg", 3, "-e", "cd"},
    {"all alike", "xxxx-xx", 3, "-xx", "xx"},
    {"nothing came before the filler", "-a", 0, "a", ""},
    {"one came before it", "a-b", 1, "-b", "a"},
    {"there is no filler", "abc", 3, "", ""},
    {"nothing was copied", "", 0, "-a", ""},
};

static void fill(struct gw_tapframes *list, const char *letters, int pause)
{
    uint8_t bytes[GW_TAPFRAME_FILLER_BYTES];
    struct gw_tapframe *frame;

    for (int i = 0; letters[i] != '\0'; i++) {
        gw_tapframe_make_filler(mac, bytes);
        if (letters[i] != '-')
            memset(bytes + GW_MACMOVE_HEADER_BYTES, letters[i] | 32, ETH_ZLEN);
        bytes[0] = (uint8_t)i; /* the header is not the frame's */
        frame = gw_tapframes_add(list, bytes, sizeof bytes);
        assert_non_null(frame);
        frame->since_ns = (i - pause) * INT64_C(1000000);
        frame->answered = letters[i] >= 'A' && letters[i] <= 'Z';
    }
}

static void missed_are_found(void **state)
{
    const struct row *row = *state;
    struct gw_tapframes *queued = calloc(1, sizeof *queued), *copied = calloc(1, sizeof *copied);
    const struct gw_tapframe *missed[2];
    char found[3] = "";
    unsigned n;

    assert_true(queued && copied);
    fill(queued, row->queued, 0);
    fill(copied, row->copied, row->pause);
    n = gw_tapframes_missed(queued, copied, missed);
    for (unsigned i = 0; i < n; i++)
        found[i] = (char)(missed[i]->bytes[GW_MACMOVE_HEADER_BYTES]);
    assert_string_equal(found, row->missed);
    gw_tapframes_free(queued);
    gw_tapframes_free(copied);
}

static void old_ones_were_delivered(void **state)
{
    struct gw_tapframes *queued = calloc(1, sizeof *queued), *copied = calloc(1, sizeof *copied);
    const struct gw_tapframe *missed[2];

    (void)state;
    assert_true(queued && copied);
    fill(queued, "-", 0);
    fill(copied, "ab-", 2);
    copied->items[0].since_ns = -GW_TAPFRAMES_STOPPING_NS - 1;
    assert_int_equal(gw_tapframes_missed(queued, copied, missed), 1); /* b alone, which was kept */
    assert_ptr_equal(missed[0], &copied->items[1]);
    copied->items[1].since_ns = -GW_TAPFRAMES_DELIVERED_NS - 1;
    assert_int_equal(gw_tapframes_missed(queued, copied, missed), 0);
    gw_tapframes_free(queued);
    gw_tapframes_free(copied);
}

static void the_newest_are_kept(void **state)
{
    struct gw_tapframes *list = calloc(1, sizeof *list);
    uint32_t number;

    (void)state;
    assert_non_null(list);
    for (number = 0; number < GW_TAPFRAMES_KEPT + 10; number++)
        assert_non_null(gw_tapframes_add(list, (const uint8_t *)&number, sizeof number));
    assert_int_equal(list->n, GW_TAPFRAMES_KEPT);
    assert_int_equal(list->n_bytes, GW_TAPFRAMES_KEPT * sizeof number);
    for (size_t i = 0; i < list->n; i++) {
        memcpy(&number, gw_tapframes_from_end(list, i)->bytes, sizeof number);
        assert_int_equal(number, GW_TAPFRAMES_KEPT + 9 - i);
    }
    gw_tapframes_free(list);
    gw_tapframes_free(NULL);
}

static void short_ones_are_no_fillers(void **state)
{
    uint8_t bytes[GW_TAPFRAME_FILLER_BYTES];
    struct gw_tapframe frame = {.bytes = bytes};

    (void)state;
    gw_tapframe_make_filler(mac, bytes);
    for (frame.n_bytes = 0; frame.n_bytes < GW_MACMOVE_HEADER_BYTES + 14 + 22; frame.n_bytes++)
        assert_false(gw_tapframe_is_filler(&frame));
    assert_true(gw_tapframe_is_filler(&frame));
    bytes[GW_MACMOVE_HEADER_BYTES]++; /* from somebody else */
    assert_false(gw_tapframe_is_filler(&frame));
}

int main(void)
{
    struct CMUnitTest tests[GW_ARRAY_SIZE(rows) + 3];
    size_t n = 0;

    for (; n < GW_ARRAY_SIZE(rows); n++)
        tests[n] =
            (struct CMUnitTest){rows[n].name, missed_are_found, NULL, NULL, (void *)&rows[n]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(old_ones_were_delivered);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(the_newest_are_kept);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(short_ones_are_no_fillers);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
