/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "shell/carrier_offer.h"
#include "util/cleanup.h"

#define GUEST  (68u << 20)
#define SECRET "00112233445566778899aabbccddeeff"

static const uint8_t secret_bytes[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                         0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

static void what_is_said_is_understood(void **state)
{
    static struct gw_ram ram;
    struct gw_sender_ram read;
    struct gw_error e;
    uint8_t secret[16];
    json_t *json;

    (void)state;
    ram.n_blocks = 3;
    ram.block[2] = (struct gw_ram_block){.name = "grows", .n_bytes = 4 << 20};
    ram.block[0] = (struct gw_ram_block){.name = "ram0", .n_bytes = 64 << 20, .writable = true};
    ram.block[1] = (struct gw_ram_block){.name = "node1", .n_bytes = 4 << 20, .writable = true};
    json = gw_carrier_offer_to_json(secret_bytes, &ram);
    assert_string_equal(json_string_value(json_object_get(json, "secret")), SECRET);
    assert_int_equal(gw_carrier_offer_from_json(json, 8, GUEST, secret, &read, &e), 0);
    assert_memory_equal(secret, secret_bytes, sizeof secret);
    assert_int_equal(read.n_blocks, 2);
    assert_string_equal(read.block[1].name, "node1");
    assert_int_equal(gw_sender_ram_bytes(&read), 68 << 20);
    assert_true(gw_sender_ram_history_bytes(&read) > 0);
    assert_true(gw_sender_ram_history_bytes(&read) <= (68ull << 20) * 8 / 100);
    gw_sender_ram_fini(&read);
    /* no history is wanted: all pages are sent whole */
    assert_int_equal(gw_carrier_offer_from_json(json, 0, GUEST, secret, &read, &e), 0);
    assert_null(read.block[0].history);
    assert_int_equal(gw_sender_ram_history_bytes(&read), 0);
    gw_sender_ram_fini(&read);
    json_decref(json);
}

/* It may name what it likes: a history is no larger than this node's own guest makes it. */
static void a_peer_does_not_choose_the_memory(void **state)
{
    static struct gw_ram ram;
    struct gw_sender_ram read;
    struct gw_error e;
    uint8_t secret[16];
    json_t *json;

    (void)state;
    ram.n_blocks = 3;
    ram.block[0] = (struct gw_ram_block){.name = "ram0", .n_bytes = 64 << 20, .writable = true};
    ram.block[1] =
        (struct gw_ram_block){.name = "huge", .n_bytes = UINT64_C(1) << 46, .writable = true};
    ram.block[2] = (struct gw_ram_block){.name = "node1", .n_bytes = 64 << 20, .writable = true};
    json = gw_carrier_offer_to_json(secret_bytes, &ram);
    assert_int_equal(gw_carrier_offer_from_json(json, 8, GUEST, secret, &read, &e), 0);
    assert_int_equal(read.n_blocks, 3);
    assert_non_null(read.block[0].history);
    assert_null(read.block[1].history);
    assert_null(read.block[2].history);
    assert_true(gw_sender_ram_history_bytes(&read) <= (uint64_t)GUEST * 8 / 100);
    gw_sender_ram_fini(&read);
    json_decref(json);
}

static void nothing_mapped_is_an_offer_too(void **state)
{
    struct gw_sender_ram ram;
    struct gw_error e;
    uint8_t secret[16];
    json_t *json = json_pack("{s:i, s:s, s:[]}", "version", 2, "secret", SECRET, "blocks");

    (void)state;
    assert_int_equal(gw_carrier_offer_from_json(json, 8, GUEST, secret, &ram, &e), 0);
    assert_int_equal(ram.n_blocks, 0);
    gw_sender_ram_fini(&ram);
    json_decref(json);
}

#define BLOCK(name, bytes)    "{\"name\": " name ", \"bytes\": " bytes "}"
#define OFFER(secret, blocks) "{\"version\": 2, \"secret\": \"" secret "\", \"blocks\": " blocks "}"

static void what_is_malformed_is_refused(void **state)
{
    static const struct {
        const char *text;
        enum gw_code code;
    } cases[] = {
        {"{}", GW_E_UNSUPPORTED},
        {"[]", GW_E_UNSUPPORTED},
        {"{\"version\": \"1\", \"secret\": \"" SECRET "\", \"blocks\": []}", GW_E_UNSUPPORTED},
        {"{\"version\": 3, \"secret\": \"" SECRET "\", \"blocks\": []}", GW_E_UNSUPPORTED},
        {"{\"version\": 2, \"blocks\": []}", GW_E_PROTOCOL},
        {"{\"version\": 2, \"secret\": \"" SECRET "\"}", GW_E_PROTOCOL},
        {OFFER("", "[]"), GW_E_PROTOCOL},
        {OFFER("00112233445566778899aabbccddeef", "[]"), GW_E_PROTOCOL},
        {OFFER("00112233445566778899aabbccddeeff0", "[]"), GW_E_PROTOCOL},
        {OFFER("00112233445566778899aabbccddeefg", "[]"), GW_E_PROTOCOL},
        {OFFER("00112233445566778899AABBCCDDEEFF", "[]"), GW_E_PROTOCOL},
        {OFFER(SECRET, "{}"), GW_E_PROTOCOL},
        {OFFER(SECRET, "[5]"), GW_E_PROTOCOL},
        {OFFER(SECRET, "[{}]"), GW_E_PROTOCOL},
        {OFFER(SECRET, "[" BLOCK("5", "4096") "]"), GW_E_PROTOCOL},
        {OFFER(SECRET, "[" BLOCK("\"a\"", "0") "]"), GW_E_PROTOCOL},
        {OFFER(SECRET, "[" BLOCK("\"a\"", "-4096") "]"), GW_E_PROTOCOL},
        {OFFER(SECRET, "[" BLOCK("\"a\"", "4096.0") "]"), GW_E_PROTOCOL},
        {OFFER(SECRET, "[" BLOCK("\"a\"", "9223372036854775807") "]"), GW_E_PROTOCOL},
        /* the second one is wrong: the first is not kept */
        {OFFER(SECRET, "[" BLOCK("\"a\"", "1048576") ", " BLOCK("\"b\"", "0") "]"), GW_E_PROTOCOL},
    };

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        json_t *json = json_loads(cases[i].text, 0, NULL);
        struct gw_sender_ram ram;
        struct gw_error e;
        uint8_t secret[16];

        assert_non_null(json);
        if (gw_carrier_offer_from_json(json, 8, GUEST, secret, &ram, &e) != -1)
            fail_msg("taken: %s", cases[i].text);
        assert_int_equal(e.code, cases[i].code);
        assert_int_equal(ram.n_blocks, 0);
        json_decref(json);
    }
}

static void a_peer_without_a_carrier(void **state)
{
    struct gw_sender_ram ram;
    struct gw_error e;
    uint8_t secret[16];

    (void)state;
    assert_int_equal(gw_carrier_offer_from_json(NULL, 8, GUEST, secret, &ram, &e), -1);
    assert_int_equal(e.code, GW_E_UNSUPPORTED);
    assert_non_null(strstr(e.hint, "--route native"));
}

static void as_many_blocks_as_there_may_be(void **state)
{
    json_t *blocks = json_array(), *json;
    struct gw_sender_ram ram;
    struct gw_error e;
    uint8_t secret[16];

    (void)state;
    json = json_pack("{s:i, s:s, s:o}", "version", 2, "secret", SECRET, "blocks", blocks);
    for (unsigned i = 0; i < GW_RAM_BLOCKS_MAX; i++) {
        char name[16];

        snprintf(name, sizeof name, "block%u", i);
        json_array_append_new(blocks, json_pack("{s:s, s:i}", "name", name, "bytes", 4096));
    }
    assert_int_equal(gw_carrier_offer_from_json(json, 8, GUEST, secret, &ram, &e), 0);
    assert_int_equal(ram.n_blocks, GW_RAM_BLOCKS_MAX);
    gw_sender_ram_fini(&ram);
    json_array_append_new(blocks, json_pack("{s:s, s:i}", "name", "more", "bytes", 4096));
    assert_int_equal(gw_carrier_offer_from_json(json, 8, GUEST, secret, &ram, &e), -1);
    assert_int_equal(e.code, GW_E_PROTOCOL);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_said_is_understood),
        cmocka_unit_test(a_peer_does_not_choose_the_memory),
        cmocka_unit_test(nothing_mapped_is_an_offer_too),
        cmocka_unit_test(what_is_malformed_is_refused),
        cmocka_unit_test(a_peer_without_a_carrier),
        cmocka_unit_test(as_many_blocks_as_there_may_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
