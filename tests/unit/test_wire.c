/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster.h"

#include <arpa/inet.h>

#include "shell/wire.h"

static void add_frame(struct evbuffer *b, uint32_t magic, uint16_t version, uint16_t type,
                      uint32_t len, const char *body)
{
    magic = htonl(magic);
    version = htons(version);
    type = htons(type);
    len = htonl(len);
    evbuffer_add(b, &magic, 4);
    evbuffer_add(b, &version, 2);
    evbuffer_add(b, &type, 2);
    evbuffer_add(b, &len, 4);
    evbuffer_add(b, body, strlen(body));
}

static void every_type_has_a_name(void **state)
{
    (void)state;
    for (unsigned t = 1; t < GW_WIRE_TYPE_MAX; t++)
        assert_string_not_equal(gw_wire_type_name(t), "unknown");
    assert_string_equal(gw_wire_type_name(0), "unknown");
    assert_string_equal(gw_wire_type_name(GW_WIRE_TYPE_MAX), "unknown");
}

static void frames_round_trip(void **state)
{
    struct evbuffer *b = evbuffer_new();
    json_t *body = json_pack("{ss, si}", "vm", "wëb1", "n", 42);
    struct gw_wire_message m;
    struct gw_error e;

    (void)state;
    assert_done(gw_wire_encode(b, GW_WIRE_PREPARE, body, &e), e);
    assert_done(gw_wire_encode(b, GW_WIRE_ABORT, NULL, &e), e);
    assert_int_equal(gw_wire_decode(b, &m, &e), 1);
    assert_int_equal(m.type, GW_WIRE_PREPARE);
    assert_true(json_equal(m.body, body));
    json_decref(m.body);
    assert_int_equal(gw_wire_decode(b, &m, &e), 1);
    assert_int_equal(m.type, GW_WIRE_ABORT);
    assert_int_equal(json_object_size(m.body), 0);
    json_decref(m.body);
    assert_int_equal(gw_wire_decode(b, &m, &e), 0);
    json_decref(body);
    evbuffer_free(b);
}

static void the_header_is_as_documented(void **state)
{
    static const char want[] = "GWCT\0\1\0\20\0\0\0\2{}";
    struct evbuffer *b = evbuffer_new();
    char got[sizeof want - 1];

    (void)state;
    gw_wire_encode(b, GW_WIRE_PING, NULL, NULL);
    assert_int_equal(evbuffer_remove(b, got, sizeof got), sizeof got);
    assert_memory_equal(got, want, sizeof got);
    evbuffer_free(b);
}

static void bytes_may_come_one_by_one(void **state)
{
    struct evbuffer *whole = evbuffer_new(), *b = evbuffer_new();
    struct gw_wire_message m;
    struct gw_error e;
    char c;

    (void)state;
    add_frame(whole, GW_WIRE_MAGIC, 1, 999, 9, "{\"a\":[1]}");
    while (evbuffer_get_length(whole) > 1) {
        evbuffer_remove(whole, &c, 1);
        evbuffer_add(b, &c, 1);
        assert_int_equal(gw_wire_decode(b, &m, &e), 0);
    }
    evbuffer_add_buffer(b, whole);
    assert_int_equal(gw_wire_decode(b, &m, &e), 1);
    assert_int_equal(m.type, 999); /* not known here: the caller's to judge */
    json_decref(m.body);
    evbuffer_free(whole);
    evbuffer_free(b);
}

static void expect_refusal(struct evbuffer *b, enum gw_code code, const char *part)
{
    struct gw_wire_message m;
    struct gw_error e;

    assert_int_equal(gw_wire_decode(b, &m, &e), -1);
    assert_int_equal(e.code, code);
    assert_contains(e.msg, part);
    evbuffer_free(b);
}

static void malformed_frames_are_refused(void **state)
{
    static const struct {
        uint32_t magic;
        uint16_t version;
        uint32_t len;
        const char *body;
        enum gw_code code;
        const char *part;
    } cases[] = {
        {0x47455420, 1, 2, "{}", GW_E_PROTOCOL, "0x47455420"},
        {GW_WIRE_MAGIC, 2, 2, "{}", GW_E_UNSUPPORTED,
         "version 2 of the node protocol, this node"
         " version 1"},
        {GW_WIRE_MAGIC, 1, GW_WIRE_MAX_BODY + 1, "", GW_E_PROTOCOL, "1048577 bytes"},
        {GW_WIRE_MAGIC, 1, UINT32_MAX, "", GW_E_PROTOCOL, "4294967295 bytes"},
        {GW_WIRE_MAGIC, 1, 0, "", GW_E_PROTOCOL, "frame of type 1 (HELLO)"},
        {GW_WIRE_MAGIC, 1, 2, "[]", GW_E_PROTOCOL, "not a JSON object"},
        {GW_WIRE_MAGIC, 1, 4, "{}{}", GW_E_PROTOCOL, "end of file expected"},
        {GW_WIRE_MAGIC, 1, 13, "{\"a\":1,\"a\":2}", GW_E_PROTOCOL, "duplicate"},
        {GW_WIRE_MAGIC, 1, 5, "{\"\xff\":1}", GW_E_PROTOCOL, "HELLO"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct evbuffer *b = evbuffer_new();

        add_frame(b, cases[i].magic, cases[i].version, 1, cases[i].len, cases[i].body);
        expect_refusal(b, cases[i].code, cases[i].part);
    }
}

static void garbage_is_refused_after_four_bytes(void **state)
{
    struct evbuffer *b = evbuffer_new();

    (void)state;
    evbuffer_add(b, "GET ", 4);
    expect_refusal(b, GW_E_PROTOCOL, "0x47455420");
}

static void too_large_is_not_sent(void **state)
{
    struct evbuffer *b = evbuffer_new();
    char *text = malloc(GW_WIRE_MAX_BODY + 1);
    struct gw_error e;
    json_t *body;

    (void)state;
    memset(text, 'x', GW_WIRE_MAX_BODY);
    text[GW_WIRE_MAX_BODY] = '\0';
    body = json_pack("{ss}", "a", text);
    assert_int_equal(gw_wire_encode(b, GW_WIRE_HELLO, body, &e), -1);
    assert_int_equal(e.code, GW_E_PROTOCOL);
    assert_int_equal(gw_wire_encode(b, GW_WIRE_HELLO, json_object_get(body, "a"), &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    assert_int_equal(evbuffer_get_length(b), 0);
    json_decref(body);
    free(text);
    evbuffer_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_has_a_name),
        cmocka_unit_test(frames_round_trip),
        cmocka_unit_test(the_header_is_as_documented),
        cmocka_unit_test(bytes_may_come_one_by_one),
        cmocka_unit_test(malformed_frames_are_refused),
        cmocka_unit_test(garbage_is_refused_after_four_bytes),
        cmocka_unit_test(too_large_is_not_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
