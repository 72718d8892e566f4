/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "host/addresses.h"
#include "util/cleanup.h"

#define MAC   "\x52\x54\x00\x77\x00\x64"
#define OTHER "\x52\x54\x00\x77\x00\x65"
#define ARP(operation, sender_mac, sender)                             \
    "\xff\xff\xff\xff\xff\xff" MAC                                     \
    "\x08\x06\x00\x01\x08\x00\x06\x04\x00" operation sender_mac sender \
    "\0\0\0\0\0\0\x0a\x4d\x00\x03"
#define IPV6(hops, length, next, source)                                    \
    "\x33\x33\0\0\0\x01" MAC "\x86\xdd\x60\0\0\0\0" length next hops source \
    "\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"
#define LOCAL  "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x64" /* fe80::64 */
#define GLOBAL "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x05"
#define NOBODY "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

struct row {
    const char *name, *frame;
    size_t n_bytes;
    const char *heard; /* NULL: nothing */
};
#define ROW(name, frame, heard)               \
    {                                         \
        name, frame, sizeof(frame) - 1, heard \
    }

static const struct row rows[] = {
    ROW("a request", ARP("\x01", MAC, "\x0a\x4d\x00\x64"), "10.77.0.100"),
    ROW("a reply", ARP("\x02", MAC, "\x0a\x4d\x00\x64"), "10.77.0.100"),
    ROW("RARP in ARP's place", ARP("\x03", MAC, "\x0a\x4d\x00\x64"), NULL),
    ROW("for another MAC", ARP("\x02", OTHER, "\x0a\x4d\x00\x64"), NULL),
    ROW("an ARP probe", ARP("\x01", MAC, "\0\0\0\0"), NULL),
    ROW("loopback", ARP("\x01", MAC, "\x7f\0\0\x01"), NULL),
    ROW("broadcast", ARP("\x01", MAC, "\xff\xff\xff\xff"), NULL),
    ROW("a neighbour solicitation",
        IPV6("\xff", "\x20", "\x3a", LOCAL) "\x87\0\0\0\0\0\0\0" GLOBAL "\x01\x01" MAC, "fe80::64"),
    ROW("one without an option", IPV6("\xff", "\x18", "\x3a", LOCAL) "\x87\0\0\0\0\0\0\0" GLOBAL,
        "fe80::64"),
    ROW("duplicate address detection",
        IPV6("\xff", "\x18", "\x3a", NOBODY) "\x87\0\0\0\0\0\0\0" LOCAL, NULL),
    ROW("another's solicitation",
        IPV6("\xff", "\x20", "\x3a", LOCAL) "\x87\0\0\0\0\0\0\0" GLOBAL "\x01\x01" OTHER, NULL),
    ROW("a router solicitation",
        IPV6("\xff", "\x10", "\x3a", LOCAL) "\x85\0\0\0\0\0\0\0\x01\x01" MAC, "fe80::64"),
    ROW("an advertisement",
        IPV6("\xff", "\x20", "\x3a", LOCAL) "\x88\0\0\0\x20\0\0\0" GLOBAL "\x02\x01" MAC,
        "2001:db8::5"),
    ROW("one that does not override",
        IPV6("\xff", "\x20", "\x3a", LOCAL) "\x88\0\0\0\x40\0\0\0" GLOBAL "\x02\x01" MAC, NULL),
    ROW("one that does not override, of its own address",
        IPV6("\xff", "\x20", "\x3a", LOCAL) "\x88\0\0\0\x40\0\0\0" LOCAL "\x02\x01" MAC,
        "fe80::64"),
    ROW("an option of length 0",
        IPV6("\xff", "\x20", "\x3a", LOCAL) "\x88\0\0\0\x20\0\0\0" GLOBAL "\x02\0" MAC, NULL),
    ROW("an option that is too long",
        IPV6("\xff", "\x20", "\x3a", LOCAL) "\x88\0\0\0\x20\0\0\0" GLOBAL "\x02\x02" MAC, NULL),
    ROW("through a router",
        IPV6("\x40", "\x20", "\x3a", LOCAL) "\x88\0\0\0\x20\0\0\0" GLOBAL "\x02\x01" MAC, NULL),
    ROW("an echo request", IPV6("\xff", "\x18", "\x3a", LOCAL) "\x80\0\0\0\0\0\0\0" GLOBAL, NULL),
    ROW("UDP", IPV6("\xff", "\x18", "\x11", LOCAL) "\x87\0\0\0\0\0\0\0" GLOBAL, NULL),
    ROW("an IPv4 packet",
        "\xff\xff\xff\xff\xff\xff" MAC "\x08\x00\x45\0\0\x1c\0\0\0\0\x40\x11\0\0"
        "\x0a\x4d\0\x64\x0a\x4d\0\x03\0\x01\0\x01\0\x08\0\0",
        NULL),
};

static const char *heard_text(const struct gw_addresses *a, char text[INET6_ADDRSTRLEN])
{
    if (a->n == 0)
        return NULL;
    gw_address_text(&a->items[a->n - 1], text);
    return text;
}

static void only_claims_are_heard(void **state)
{
    char text[INET6_ADDRSTRLEN];

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        const struct row *row = &rows[i];
        struct gw_addresses a = {0};
        bool noted =
            gw_addresses_hear(&a, (const uint8_t *)MAC, (const uint8_t *)row->frame, row->n_bytes);
        const char *heard = heard_text(&a, text);

        if (noted != (row->heard != NULL) || a.n != (row->heard != NULL) ||
            (heard && strcmp(heard, row->heard) != 0))
            fail_msg("%s: heard %s", row->name, heard ? heard : "nothing");
    }
}

/* Each in memory of its own length, so that valgrind and ASan see what is read behind it. */
static void what_is_cut_off_is_not_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++)
        for (size_t n = 0; n < rows[i].n_bytes; n++) {
            gw_autofree uint8_t *frame = malloc(n ? n : 1);
            struct gw_addresses a = {0};

            memcpy(frame, rows[i].frame, n);
            gw_addresses_hear(&a, (const uint8_t *)MAC, frame, n);
            assert_true(a.n <= 1);
        }
}

static void another_sender_is_not_heard(void **state)
{
    struct gw_addresses a = {0};

    (void)state;
    assert_false(gw_addresses_hear(&a, (const uint8_t *)OTHER, (const uint8_t *)rows[0].frame,
                                   rows[0].n_bytes));
    assert_int_equal(a.n, 0);
}

static bool has(const struct gw_addresses *a, uint8_t last)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->items[i].family == AF_INET && a->items[i].bytes[3] == last)
            return true;
    return false;
}

static void the_newest_of_each_family_stay(void **state)
{
    struct gw_addresses a = {0};

    (void)state;
    assert_true(gw_addresses_add(&a, AF_INET6, (const uint8_t *)GLOBAL));
    for (uint8_t i = 1; i <= 8; i++)
        assert_true(gw_addresses_add(&a, AF_INET, (const uint8_t[]){10, 0, 0, i}));
    assert_int_equal(a.n, 9);
    gw_addresses_add(&a, AF_INET, (const uint8_t[]){10, 0, 0, 1}); /* heard again: the newest */
    assert_int_equal(a.n, 9);
    gw_addresses_add(&a, AF_INET, (const uint8_t[]){10, 0, 0, 9});
    assert_int_equal(a.n, 9);
    assert_true(has(&a, 1) && has(&a, 9) && has(&a, 3));
    assert_false(has(&a, 2));
    assert_int_equal(a.items[0].family, AF_INET6);
}

static void a_peer_may_say_what_it_likes(void **state)
{
    static const char *const texts[] = {
        "null", "7", "{}", "[]",
        ("[7, null, {}, \"\", \"x\", \"10.0.0\", \"::\", \"127.0.0.1\","
         " \"224.0.0.1\", \"ff02::1\", \"::1\", \"::ffff:10.0.0.1\"]")};
    struct gw_addresses a = {0};
    json_t *json, *many = json_array();

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(texts); i++) {
        json = json_loads(texts[i], JSON_DECODE_ANY, NULL);
        gw_addresses_from_json(&a, json);
        json_decref(json);
    }
    assert_int_equal(a.n, 0);
    for (int i = 1; i < 100; i++)
        json_array_append_new(many, json_sprintf("10.0.0.%d", i));
    gw_addresses_from_json(&a, many);
    assert_int_equal(a.n, GW_ADDRESSES_EACH);
    json_decref(many);
    json = gw_addresses_to_json(&a);
    assert_string_equal(json_string_value(json_array_get(json, 7)), "10.0.0.16");
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_claims_are_heard),
        cmocka_unit_test(what_is_cut_off_is_not_read),
        cmocka_unit_test(another_sender_is_not_heard),
        cmocka_unit_test(the_newest_of_each_family_stay),
        cmocka_unit_test(a_peer_may_say_what_it_likes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
