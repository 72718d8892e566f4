/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "qmp/codec.h"
#include "util/cleanup.h"

/* Three objects: plain, pretty-printed, and one with all that could mislead a bracket counter. */
static const char stream[] =
    "{\"QMP\": {\"capabilities\": [\"oob\"]}}\r\n"
    "\xff\n"
    "{\r\n    \"return\": {\r\n        \"a\": [\r\n            1,\r\n            -2.5e3\r\n"
    "        ]\r\n    },\r\n    \"id\": 1\r\n}\r\n"
    "{\"s\":\"}]{[ \\\" \\\\\",\"t\":\"\\\\\\\"}\",\"u\":\"caf\xc3\xa9 \\u00e9\",\"v\":\"\\\\\"}";

static void check_stream_object(int which, json_t *object)
{
    switch (which) {
    case 0: assert_non_null(json_object_get(object, "QMP")); break;
    case 1: assert_int_equal(json_integer_value(json_object_get(object, "id")), 1); break;
    case 2:
        assert_string_equal(json_string_value(json_object_get(object, "s")), "}]{[ \" \\");
        assert_string_equal(json_string_value(json_object_get(object, "t")), "\\\"}");
        assert_string_equal(json_string_value(json_object_get(object, "v")), "\\");
        break;
    default: fail_msg("object %d is one too many", which);
    }
}

/* Feeds one piece from memory of its own, so that a sanitizer sees a read past its end. Returns
 * the objects seen so far. */
static int feed_piece(struct gw_qmp_codec *codec, const char *data, size_t len, int n_seen)
{
    gw_autofree char *copy = malloc(len ? len : 1);
    size_t done = 0, used;
    json_t *object;

    memcpy(copy, data, len);
    while (done < len) {
        assert_int_equal(gw_qmp_codec_feed(codec, copy + done, len - done, &used, &object), 0);
        assert_true(used > 0 || object);
        done += used;
        if (object)
            check_stream_object(n_seen++, object);
        json_decref(object);
    }
    return n_seen;
}

static void split_in_two_anywhere(void **state)
{
    size_t len = strlen(stream);

    (void)state;
    for (size_t cut = 0; cut <= len; cut++) {
        struct gw_qmp_codec codec;
        int n_seen;

        gw_qmp_codec_init(&codec, NULL);
        n_seen = feed_piece(&codec, stream, cut, 0);
        n_seen = feed_piece(&codec, stream + cut, len - cut, n_seen);
        assert_int_equal(n_seen, 3);
        assert_null(gw_qmp_codec_error(&codec));
        gw_qmp_codec_fini(&codec);
    }
}

static void split_into_equal_pieces(void **state)
{
    size_t len = strlen(stream);

    (void)state;
    for (size_t piece = 1; piece <= len; piece++) {
        struct gw_qmp_codec codec;
        int n_seen = 0;

        gw_qmp_codec_init(&codec, NULL);
        for (size_t at = 0; at < len; at += piece)
            n_seen = feed_piece(&codec, stream + at, len - at < piece ? len - at : piece, n_seen);
        assert_int_equal(n_seen, 3);
        gw_qmp_codec_fini(&codec);
    }
}

struct hostile {
    const char *what, *input;
    size_t len; /* 0: strlen */
    const char *message_has;
};

static const struct hostile hostile[] = {
    {"no JSON", "hello", 0, "0x68"},
    {"HTTP", "GET / HTTP/1.1\r\n\r\n", 0, "0x47"},
    {"human monitor", "QEMU 10.0.2 monitor - type 'help'", 0, "0x51"},
    {"an array", "[{}]", 0, "0x5b"},
    {"a bare string", "\"x\"", 0, "0x22"},
    {"closing first", "}", 0, "0x7d"},
    {"NUL between", "\0{}", 3, "0x00"},
    {"NUL inside", "{\"a\":\0 1}", 9, "NUL"},
    {"NUL in a string", "{\"a\":\"x\0y\"}", 11, "NUL"},
    {"escaped NUL", "{\"a\":\"\\u0000\"}", 0, "malformed"},
    {"brackets crossed", "{\"a\":[}]", 0, "malformed"},
    {"wrong bracket", "{]", 0, "malformed"},
    {"0xff inside", "{\"a\":\"\xff\"}", 0, "malformed"},
    {"0xff between tokens", "{\"a\":\xff 1}", 0, "malformed"},
    {"invalid UTF-8", "{\"a\":\"\xc3(\"}", 0, "malformed"},
    {"overlong UTF-8", "{\"a\":\"\xc0\xaf\"}", 0, "malformed"},
    {"lone surrogate", "{\"a\":\"\\ud800\"}", 0, "malformed"},
    {"newline in a string", "{\"a\":\"x\ny\"}", 0, "malformed"},
    {"no value", "{\"a\":}", 0, "malformed"},
    {"trailing comma", "{\"a\":1,}", 0, "malformed"},
    {"single quotes", "{'a':1}", 0, "malformed"},
    {"a key twice", "{\"id\":1,\"id\":2}", 0, "malformed"},
    {"a real out of range", "{\"a\":1e999}", 0, "malformed"},
    {"not a number", "{\"a\":NaN}", 0, "malformed"},
    {"leading zero", "{\"a\":0123456789012345678901}", 0, "malformed"},
    {"garbage after", "{}x", 0, "0x78"},
    {"too deep", "{\"a\":[[[[[[[[1]]]]]]]]}", 0, "deeper than 8"},
    {"too many values", "{\"a\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", 0,
     "more than 16 values"},
    {"too long", "{\"a\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}", 0,
     "longer than 64"},
    {"too long, never ending",
     "{\"a\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 0,
     "longer than 64"},
};

/* In pieces of the given size; true if the codec died. */
static bool dies_of(struct gw_qmp_codec *codec, const char *input, size_t len, size_t piece)
{
    size_t at = 0, used;
    json_t *object;

    while (at < len) {
        size_t n = len - at < piece ? len - at : piece;

        if (gw_qmp_codec_feed(codec, input + at, n, &used, &object))
            return true;
        json_decref(object);
        at += used;
    }
    return false;
}

static void hostile_input_kills(void **state)
{
    static const struct gw_qmp_limits limits = {.message_bytes = 64, .depth = 8, .n_values = 16};
    static const size_t pieces[] = {1, 3, 1000};
    struct gw_qmp_codec codec;
    size_t used;
    json_t *object;

    (void)state;
    gw_qmp_codec_init(&codec, &limits);
    for (size_t i = 0; i < GW_ARRAY_SIZE(hostile); i++) {
        const struct hostile *h = &hostile[i];

        for (size_t p = 0; p < GW_ARRAY_SIZE(pieces); p++) {
            if (!dies_of(&codec, h->input, h->len ? h->len : strlen(h->input), pieces[p]))
                fail_msg("%s: accepted in pieces of %zu", h->what, pieces[p]);
            assert_int_equal(gw_qmp_codec_error(&codec)->code, GW_E_PROTOCOL);
            if (!strstr(gw_qmp_codec_error(&codec)->msg, h->message_has))
                fail_msg("%s: message '%s'", h->what, gw_qmp_codec_error(&codec)->msg);
            for (const char *c = gw_qmp_codec_error(&codec)->msg; *c; c++)
                assert_true(*c >= ' ' && *c < 0x7f);
            assert_int_equal(gw_qmp_codec_feed(&codec, "{}", 2, &used, &object), -1);
            gw_qmp_codec_reset(&codec);
            assert_null(gw_qmp_codec_error(&codec));
            assert_int_equal(gw_qmp_codec_feed(&codec, "{}", 2, &used, &object), 0);
            assert_non_null(object);
            json_decref(object);
        }
    }
    gw_qmp_codec_fini(&codec);
    gw_qmp_codec_fini(&codec);
}

static void limits_are_exact(void **state)
{
    static const struct gw_qmp_limits limits = {.message_bytes = 22, .depth = 4, .n_values = 7};
    static const char fits[] = "{\"a\":[[[1,2,3,4]]] }\r\n";
    struct gw_qmp_codec codec;

    (void)state;
    gw_qmp_codec_init(&codec, &limits);
    for (int i = 0; i < 3; i++)
        for (size_t piece = 1; piece < 30; piece++)
            assert_false(dies_of(&codec, fits, strlen(fits), piece));
    assert_true(dies_of(&codec, "{\"a\":[[[1,2,3,4]]]    }", 23, 1));
    gw_qmp_codec_fini(&codec);
}

static json_t *only_object(const char *text)
{
    struct gw_qmp_codec codec;
    json_t *object;
    size_t used;

    gw_qmp_codec_init(&codec, NULL);
    assert_int_equal(gw_qmp_codec_feed(&codec, text, strlen(text), &used, &object), 0);
    assert_int_equal(used, strlen(text));
    assert_non_null(object);
    gw_qmp_codec_fini(&codec);
    return object;
}

static void unsigned_integers_become_reals(void **state)
{
    json_t *object = only_object("{\"max\":18446744073709551615,\"a\":[9223372036854775807,"
                                 "-9223372036854775808,9223372036854775808,-9223372036854775809,"
                                 "1.0e5,1],\"18446744073709551615\":\"\\\"18446744073709551615\"}");
    json_t *a = json_object_get(object, "a");

    (void)state;
    assert_true(json_is_real(json_object_get(object, "max")));
    assert_true(json_number_value(json_object_get(object, "max")) == 18446744073709551615.0);
    assert_true(json_integer_value(json_array_get(a, 0)) == INT64_MAX);
    assert_true(json_integer_value(json_array_get(a, 1)) == INT64_MIN);
    assert_true(json_real_value(json_array_get(a, 2)) == 9223372036854775808.0);
    assert_true(json_real_value(json_array_get(a, 3)) == -9223372036854775808.0);
    assert_true(json_real_value(json_array_get(a, 4)) == 1e5);
    assert_true(json_integer_value(json_array_get(a, 5)) == 1);
    assert_string_equal(json_string_value(json_object_get(object, "18446744073709551615")),
                        "\"18446744073709551615");
    json_decref(object);
}

static void many_wide_integers_fit_the_copy(void **state)
{
    enum { N = 5000 };
    gw_autofree char *text = malloc(N * 22 + 10);
    size_t len;
    json_t *object;

    (void)state;
    len = (size_t)sprintf(text, "{\"a\":[");
    for (int i = 0; i < N; i++)
        len += (size_t)sprintf(text + len, "%s9999999999999999999", i ? "," : "");
    sprintf(text + len, "]}");
    object = only_object(text);
    assert_int_equal(json_array_size(json_object_get(object, "a")), N);
    json_decref(object);
}

/* A message of 8 MiB that arrives in single bytes: seconds if any byte is looked at twice per feed.
 */
static void long_messages_cost_linear_time(void **state)
{
    const size_t len = (size_t)8 << 20;
    gw_autofree char *text = malloc(len);
    struct gw_qmp_codec codec;
    json_t *object = NULL;
    size_t used;

    (void)state;
    memset(text, 'x', len);
    memcpy(text, "{\"a\":\"", 6);
    memcpy(text + len - 2, "\"}", 2);
    gw_qmp_codec_init(&codec, NULL);
    for (size_t i = 0; i < len; i++) {
        assert_null(object);
        if (gw_qmp_codec_feed(&codec, text + i, 1, &used, &object) || used != 1)
            fail();
    }
    assert_int_equal(json_string_length(json_object_get(object, "a")), len - 8);
    json_decref(object);
    assert_true(codec.held_cap < ((size_t)1 << 20)); /* given back */
    gw_qmp_codec_fini(&codec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_in_two_anywhere),
        cmocka_unit_test(split_into_equal_pieces),
        cmocka_unit_test(hostile_input_kills),
        cmocka_unit_test(limits_are_exact),
        cmocka_unit_test(unsigned_integers_become_reals),
        cmocka_unit_test(many_wide_integers_fit_the_copy),
        cmocka_unit_test(long_messages_cost_linear_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
