/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "shell/error_json.h"
#include "util/cleanup.h"

static const char *text(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static void the_members_are_code_message_hint(void **state)
{
    struct gw_error e;
    json_t *json;

    (void)state;
    gw_error_set(&e, GW_E_BUSY, "in use");
    json = gw_error_to_json(&e);
    assert_int_equal(json_object_size(json), 2);
    assert_string_equal(text(json, "code"), "busy");
    assert_string_equal(text(json, "message"), "in use");
    json_decref(json);

    gw_error_hint(&e, "wait");
    json = gw_error_to_json(&e);
    assert_int_equal(json_object_size(json), 3);
    assert_string_equal(text(json, "hint"), "wait");
    json_decref(json);
}

static void what_is_no_utf8_becomes_question_marks(void **state)
{
    static const struct {
        const char *raw, *clean;
    } cases[] = {
        {"", ""},
        {"Zürich", "Zürich"},
        {"a\xff"
         "b",
         "a?b"},
        {"Zürich \xff", "Zürich ?"},
        {"\xff Zürich", "? Zürich"},
        {"cut: \xe2\x82", "cut: ??"},      /* two of the three bytes of a euro sign */
        {"cut: \xf0\x9f\xa6", "cut: ???"}, /* three of four */
        {"\xc0\x80", "??"},                /* overlong */
        {"\xed\xa0\x80", "???"},           /* half a surrogate pair */
        {"\xf4\x90\x80\x80", "????"},      /* beyond the last character */
        {"€\x80€", "€?€"},
        {"🦆\xc3", "🦆?"},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct gw_error e;
        json_t *json;

        gw_error_set(&e, GW_E_QEMU, "%s", cases[i].raw);
        gw_error_hint(&e, "-%s", cases[i].raw);
        json = gw_error_to_json(&e);
        assert_non_null(json);
        assert_string_equal(text(json, "message"), cases[i].clean);
        assert_string_equal(text(json, "hint") + 1, cases[i].clean);
        json_decref(json);
    }
}

/* Whatever the length, the cut may fall within a character. */
static void cut_messages_are_kept(void **state)
{
    char longest[600];

    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        struct gw_error e;
        json_t *json;

        memset(longest, 'x', sizeof longest);
        for (size_t i = shift; i + 4 < sizeof longest; i += 4)
            memcpy(longest + i, "🦆", 4);
        longest[sizeof longest - 1] = '\0';
        gw_error_set(&e, GW_E_PEER, "%s", longest);
        gw_error_hint(&e, "%s", longest);
        json = gw_error_to_json(&e);
        assert_non_null(json);
        assert_int_equal(strlen(text(json, "message")), sizeof e.msg - 1);
        assert_int_equal(strlen(text(json, "hint")), sizeof e.hint - 1);
        assert_memory_equal(text(json, "message"), longest, sizeof e.msg - 1 - 3);
        json_decref(json);
    }
}

static void what_a_peer_says_always_is_a_failure(void **state)
{
    static const struct {
        const char *json;
        enum gw_code code;
        const char *msg, *hint;
    } cases[] = {
        {"{\"code\":\"busy\",\"message\":\"in use\",\"hint\":\"wait\"}", GW_E_BUSY, "in use",
         "wait"},
        {"{\"code\":\"busy\",\"message\":\"in use\"}", GW_E_BUSY, "in use", ""},
        {"{\"code\":\"ok\",\"message\":\"fine\"}", GW_E_PROTOCOL, "fine", ""},
        {"{\"code\":\"of-next-year\",\"message\":\"m\"}", GW_E_PROTOCOL, "m", ""},
        {"{\"code\":7,\"message\":[],\"hint\":{}}", GW_E_PROTOCOL,
         "it failed without a reason given", ""},
        {"{\"code\":\"peer\",\"message\":\"%s%n\"}", GW_E_PEER, "%s%n", ""},
        {"{\"code\":\"peer\",\"message\":\"a\\nb\\u001b[2J\",\"hint\":\"\\u007f\\t\"}", GW_E_PEER,
         "a?b?[2J", "??"},
        {"{}", GW_E_PROTOCOL, "it failed without a reason given", ""},
        {"[1]", GW_E_PROTOCOL, "it failed without a reason given", ""},
        {"null", GW_E_PROTOCOL, "it failed without a reason given", ""},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        json_t *json = json_loads(cases[i].json, JSON_DECODE_ANY, NULL);
        struct gw_error e;

        assert_non_null(json);
        memset(&e, 'x', sizeof e);
        gw_error_from_json(json, &e);
        assert_int_equal(e.code, cases[i].code);
        assert_int_equal(e.sys, 0);
        assert_string_equal(e.msg, cases[i].msg);
        assert_string_equal(e.hint, cases[i].hint);
        json_decref(json);
    }
}

static void no_json_at_all_is_a_failure_too(void **state)
{
    struct gw_error e = {0};

    (void)state;
    gw_error_from_json(NULL, &e);
    assert_int_equal(e.code, GW_E_PROTOCOL);
}

static void every_code_survives_the_way(void **state)
{
    (void)state;
    for (int code = GW_OK + 1; code < GW_CODE_MAX; code++) {
        struct gw_error there, back;
        json_t *json;

        gw_error_set(&there, (enum gw_code)code, "message");
        gw_error_hint(&there, "hint");
        json = gw_error_to_json(&there);
        gw_error_from_json(json, &back);
        assert_int_equal(back.code, code);
        assert_string_equal(back.msg, "message");
        assert_string_equal(back.hint, "hint");
        json_decref(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_members_are_code_message_hint),
        cmocka_unit_test(what_is_no_utf8_becomes_question_marks),
        cmocka_unit_test(cut_messages_are_kept),
        cmocka_unit_test(what_a_peer_says_always_is_a_failure),
        cmocka_unit_test(no_json_at_all_is_a_failure_too),
        cmocka_unit_test(every_code_survives_the_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
