/* SPDX-License-Identifier: Apache-2.0 */
/* What of the storage for Ceph needs no Ceph: names, addresses and the line of a record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "storage/rados_record.h"
#include "storage/rbd.h"
#include "util/cleanup.h"

#define VM "11111111-2222-3333-4444-555555555555"

static void images_have_names(void **state)
{
    static const struct {
        const char *text, *pool, *ns, *image, *snap; /* pool NULL: refused */
    } table[] = {
        {"rbd/web1", "rbd", "", "web1", ""},
        {"rbd:rbd/web1", "rbd", "", "web1", ""},
        {"a/b/c", "a", "b", "c", ""},
        {"a/b/c@s-1", "a", "b", "c", "s-1"},
        {"a/b@s", "a", "", "b", "s"},
        {.text = ""},
        {.text = "a"},
        {.text = "a@s"},
        {.text = "a/"},
        {.text = "/a"},
        {.text = "a//b"},
        {.text = "a/b/c/d"},
        {.text = "a/b/c/"},
        {.text = "a/b@"},
        {.text = "a/b@c@d"},
        {.text = "a/b@c/d"},
        {.text = "a/-b"},
        {.text = "a/b:conf=x"},
        {.text = "a/b\n"},
    };
    char text[400];
    struct gw_rbd_spec spec;
    struct gw_error e;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++) {
        int r = gw_rbd_spec_parse(table[i].text, &spec, &e);

        if (r != (table[i].pool ? 0 : -1))
            fail_msg("'%s': %d", table[i].text, r);
        if (r < 0) {
            assert_int_equal(e.code, GW_E_USAGE);
            continue;
        }
        assert_string_equal(spec.pool, table[i].pool);
        assert_string_equal(spec.ns, table[i].ns);
        assert_string_equal(spec.image, table[i].image);
        assert_string_equal(spec.snap, table[i].snap);
    }
    snprintf(text, sizeof text, "p/%0*d", GW_RBD_PART_MAX, 0);
    assert_int_equal(gw_rbd_spec_parse(text, &spec, &e), 0);
    snprintf(text, sizeof text, "p/%0*d", GW_RBD_PART_MAX + 1, 0);
    assert_int_equal(gw_rbd_spec_parse(text, &spec, &e), -1);
}

static void an_address_is_one_client(void **state)
{
    static const char *const good[] = {"10.0.0.1:0/123456", "v1:10.0.0.1:0/1",
                                       "[fe80::1]:0/18446744073709551615", "v2:[::1]:6800/3"};
    static const char *const bad[] = {"",
                                      "10.0.0.1",
                                      "10.0.0.1:0",
                                      "10.0.0.1:0/",
                                      "10.0.0.1:0/0",
                                      "10.0.0.1:0/00",
                                      "10.0.0.0:0/0/24",
                                      "[fe80::1:0/3",
                                      "fe80::1:0/3",
                                      ":0/3",
                                      "10.0.0.1:/3",
                                      "10.0.0.1:0/3 ",
                                      "10.0.0.1:0/3\", \"x",
                                      "host:0/3",
                                      "10.0.0.1:0/123456789012345678901"};

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(good); i++)
        assert_true(gw_rados_address_ok(good[i]));
    for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++)
        if (gw_rados_address_ok(bad[i]))
            fail_msg("'%s'", bad[i]);
}

static void a_record_comes_back(void **state)
{
    struct gw_owner owner = {.uuid = VM, .epoch = UINT64_MAX, .updated_at_ms = UINT64_MAX}, found;
    char line[GW_RADOS_RECORD_BYTES + 1] = "";
    uint64_t nonce;

    (void)state;
    memset(owner.node, 'n', GW_OWNER_NODE_MAX);
    owner.may_have_run = true;
    gw_rados_record_encode(&owner, 0xfeed, line);
    assert_int_equal(strlen(line), GW_RADOS_RECORD_BYTES);
    assert_int_equal(line[GW_RADOS_RECORD_BYTES - 1], '\n');
    assert_true(gw_rados_record_decode(line, strlen(line), VM, &found, &nonce));
    assert_memory_equal(&found, &owner, sizeof owner);
    assert_int_equal(nonce, 0xfeed);
    strcpy(owner.node, "a");
    owner.may_have_run = false;
    gw_rados_record_encode(&owner, 1, line);
    assert_true(gw_rados_record_decode(line, strlen(line), VM, &found, &nonce));
    assert_string_equal(found.node, "a");
    assert_false(found.may_have_run);
}

/* A swap compares the first columns and nothing behind them. */
static void state_stands_in_front(void **state)
{
    struct gw_owner one = {.uuid = VM, .node = "a", .epoch = 5, .updated_at_ms = 1}, two = one;
    char a[GW_RADOS_RECORD_BYTES], b[GW_RADOS_RECORD_BYTES];

    (void)state;
    two.may_have_run = true;
    two.updated_at_ms = 2;
    gw_rados_record_encode(&one, 1, a);
    gw_rados_record_encode(&two, 2, b);
    assert_memory_equal(a, b, GW_RADOS_RECORD_STATE_BYTES);
    assert_memory_not_equal(a, b, GW_RADOS_RECORD_RUN_BYTES);
    two.may_have_run = false;
    gw_rados_record_encode(&two, 2, b);
    assert_memory_equal(a, b, GW_RADOS_RECORD_RUN_BYTES);
    strcpy(two.node, "ab");
    gw_rados_record_encode(&two, 2, b);
    assert_memory_not_equal(a, b, GW_RADOS_RECORD_STATE_BYTES);
    strcpy(two.node, "a");
    two.epoch = 50;
    gw_rados_record_encode(&two, 2, b);
    assert_memory_not_equal(a, b, GW_RADOS_RECORD_STATE_BYTES);
}

static void no_changed_byte_is_believed(void **state)
{
    struct gw_owner owner = {.uuid = VM, .node = "node-1", .epoch = 7, .updated_at_ms = 9}, found;
    char line[GW_RADOS_RECORD_BYTES + 1];
    uint64_t nonce;

    (void)state;
    gw_rados_record_encode(&owner, 0x123, line);
    for (size_t i = 0; i < GW_RADOS_RECORD_BYTES; i++)
        for (int bit = 0; bit < 8; bit++) {
            line[i] ^= (char)(1 << bit);
            assert_false(gw_rados_record_decode(line, GW_RADOS_RECORD_BYTES, VM, &found, &nonce));
            line[i] ^= (char)(1 << bit);
        }
    for (size_t n = 0; n < GW_RADOS_RECORD_BYTES; n++)
        assert_false(gw_rados_record_decode(line, n, VM, &found, &nonce));
    assert_false(gw_rados_record_decode(line, sizeof line, VM, &found, &nonce));
    assert_false(gw_rados_record_decode(line, GW_RADOS_RECORD_BYTES,
                                        "21111111-2222-3333-4444-555555555555", &found, &nonce));
    assert_true(gw_rados_record_decode(line, GW_RADOS_RECORD_BYTES, VM, &found, &nonce));
}

/* A node without the module is told so. */
static void without_a_module(void **state)
{
    struct gw_rados_options options = {0};
    struct gw_rados *rados;
    struct gw_error e;

    (void)state;
    if (gw_rados_open(&options, &rados, &e) == 0) { /* a Godwit is installed here */
        gw_rados_close(rados);
        skip();
    }
    assert_int_equal(e.code, GW_E_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "godwit-rbd.so"));
    assert_true(strlen(e.hint) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_have_names),           cmocka_unit_test(an_address_is_one_client),
        cmocka_unit_test(a_record_comes_back),         cmocka_unit_test(state_stands_in_front),
        cmocka_unit_test(no_changed_byte_is_believed), cmocka_unit_test(without_a_module),
    };

    unsetenv("GODWIT_MODULES");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
