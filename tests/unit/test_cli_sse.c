/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../tools/godwit/sse.h"
#include "util/cleanup.h"

/* Writes what it gets as "name=data;". */
struct recorder {
    struct gw_sse_sink sink;
    char text[512];
};

static void record(struct gw_sse_sink *sink, const char *name, const char *data, size_t len)
{
    struct recorder *r = gw_container_of(sink, struct recorder, sink);
    size_t used = strlen(r->text);

    assert_int_equal(strlen(data), len);
    snprintf(r->text + used, sizeof r->text - used, "%s=%s;", name, data);
}

static const struct {
    const char *stream, *events;
} cases[] = {
    {"data: a\n\n", "message=a;"},
    {"event: vm\ndata: {}\n\n", "vm={};"},
    {"event: vm\r\ndata: {}\r\n\r\n", "vm={};"},
    {"event: vm\rdata: {}\r\r", "vm={};"},
    {"data: a\ndata: b\n\n", "message=a\nb;"},
    {"data:\n\n", "message=;"},
    {"data\n\n", "message=;"},
    {"data:  a\n\n", "message= a;"},
    {"event: vm\n\ndata: a\n\n", "message=a;"},
    {": data: a\n\n", ""},
    {"id: 7\nretry: 3\nfoo: bar\ndatum: x\n\n", ""},
    {"data: a\n", ""},
    {"data: a\r\n\r\n\r\ndata: b\n\n", "message=a;message=b;"},
    {"data: a:b\n\n", "message=a:b;"},
};

/* Every way to cut the stream into two, and byte by byte. */
static void any_split_gives_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        size_t len = strlen(cases[i].stream);

        for (size_t cut = 0; cut <= len; cut++) {
            struct recorder r = {.sink.on_event = record};
            struct gw_sse sse = {.sink = &r.sink};

            assert_int_equal(gw_sse_feed(&sse, cases[i].stream, cut), 0);
            assert_int_equal(gw_sse_feed(&sse, cases[i].stream + cut, len - cut), 0);
            assert_string_equal(r.text, cases[i].events);
            gw_sse_fini(&sse);
        }
    }
}

static void one_byte_at_a_time(void **state)
{
    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct recorder r = {.sink.on_event = record};
        struct gw_sse sse = {.sink = &r.sink};

        for (const char *p = cases[i].stream; *p; p++)
            assert_int_equal(gw_sse_feed(&sse, p, 1), 0);
        assert_string_equal(r.text, cases[i].events);
        gw_sse_fini(&sse);
    }
}

static void long_lines_and_events_are_refused(void **state)
{
    struct recorder r = {.sink.on_event = record};
    struct gw_sse sse = {.sink = &r.sink};
    gw_autofree char *half = malloc(GW_SSE_EVENT_MAX / 2 + 8);
    int verdict = 0;

    (void)state;
    assert_non_null(half);
    memset(half, 'x', GW_SSE_EVENT_MAX / 2 + 8);
    assert_int_equal(gw_sse_feed(&sse, half, GW_SSE_EVENT_MAX / 2), 0);
    assert_int_equal(gw_sse_feed(&sse, half, GW_SSE_EVENT_MAX / 2), 0);
    assert_int_equal(gw_sse_feed(&sse, half, 1), 1);
    gw_sse_fini(&sse);

    memcpy(half, "data: ", 6);
    half[GW_SSE_EVENT_MAX / 2 + 7] = '\n';
    for (int i = 0; i < 2 && verdict == 0; i++)
        verdict = gw_sse_feed(&sse, half, GW_SSE_EVENT_MAX / 2 + 8);
    assert_int_equal(verdict, 1);
    gw_sse_fini(&sse);
    gw_sse_fini(&sse);
    assert_string_equal(r.text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_gives_the_same),
        cmocka_unit_test(one_byte_at_a_time),
        cmocka_unit_test(long_lines_and_events_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
