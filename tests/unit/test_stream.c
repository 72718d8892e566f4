/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <endian.h>

#include "flow/stream.h"

#define HEAD 1344

/* What QEMU 10.0.2 sent on a channel, with a pattern for payload (relay --record). */
static uint8_t recorded[2][128 * 1024];
static size_t n_recorded[2];

/* Everything that a stream was cut into, in one number and a few counts. */
struct seen {
    uint64_t digest;
    unsigned n_hellos, n_packets, n_syncs, n_opaque;
    uint64_t n_normal, n_zero, n_payload;
};

static void digest(struct seen *seen, const void *data, size_t n)
{
    const uint8_t *from = data;

    for (size_t i = 0; i < n; i++)
        seen->digest = (seen->digest ^ from[i]) * 0x100000001b3u;
}

static void see(struct seen *seen, const struct gw_stream *s, enum gw_piece piece,
                const uint8_t *data, size_t n)
{
    const struct gw_packet *p = &s->packet;

    if (piece == GW_PIECE_PAYLOAD) {
        digest(seen, data, n);
        seen->n_payload += n;
    } else if (piece != GW_PIECE_NONE) {
        digest(seen, &piece, sizeof piece);
        digest(seen, s->head, s->n_head);
    }
    seen->n_hellos += piece == GW_PIECE_HELLO;
    if (piece != GW_PIECE_PACKET)
        return;
    digest(seen, p->offset, sizeof *p->offset * (p->n_normal + p->n_zero));
    seen->n_packets++;
    seen->n_syncs += p->sync;
    seen->n_opaque += p->opaque;
    seen->n_normal += p->n_normal;
    seen->n_zero += p->n_zero;
}

static int feed(struct gw_stream *s, struct seen *seen, const uint8_t *data, size_t n,
                struct gw_error *e)
{
    for (size_t at = 0, used; at < n; at += used) {
        enum gw_piece piece;

        if (gw_stream_push(s, data + at, n - at, &used, &piece, e) < 0)
            return -1;
        /* payload ends a push, and only payload may follow other bytes in one */
        see(seen, s, piece, data + at, used);
    }
    return 0;
}

static struct seen whole(const uint8_t *data, size_t n)
{
    struct gw_stream s;
    struct seen seen = {0};
    struct gw_error e;

    gw_stream_init(&s, 4096);
    if (feed(&s, &seen, data, n, &e) < 0 || gw_stream_end(&s, &e) < 0)
        fail_msg("%s", e.msg);
    return seen;
}

static void put(uint8_t *head, size_t at, uint32_t value)
{
    value = htobe32(value);
    memcpy(head + at, &value, sizeof value);
}

static void put_offset(uint8_t *head, size_t i, uint64_t value)
{
    value = htobe64(value);
    memcpy(head + GW_STREAM_OFFSETS_AT + 8 * i, &value, sizeof value);
}

/* A packet of n_normal and n_zero pages; pages i of 4 KiB each. */
static void make_packet(uint8_t *head, uint32_t flags, uint32_t n_normal, uint32_t n_zero)
{
    memset(head, 0, HEAD);
    put(head, 0, 0x11223344);
    put(head, 4, 1);
    put(head, 8, flags);
    put(head, 12, 128);
    put(head, 16, n_normal);
    put(head, 20, n_normal * 4096);
    put(head, 32, n_zero);
    memcpy(head + 64, "ram0", 5);
    for (uint32_t i = 0; i < n_normal + n_zero && i < 128; i++)
        put_offset(head, i, i * UINT64_C(4096));
}

static void start_channel(struct gw_stream *s)
{
    uint8_t hello[GW_STREAM_HELLO_BYTES] = {0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1};
    enum gw_piece piece;
    size_t used;

    hello[24] = 3;
    gw_stream_init(s, 4096);
    assert_int_equal(gw_stream_push(s, hello, sizeof hello, &used, &piece, NULL), 0);
    assert_int_equal(piece, GW_PIECE_HELLO);
    assert_int_equal(s->id, 3);
    assert_int_equal(used, sizeof hello);
}

/* Gives one header to the parser, all at once. */
static int push_head(struct gw_stream *s, const uint8_t *head, size_t n, enum gw_piece *piecep,
                     struct gw_error *e)
{
    size_t used;
    int r = gw_stream_push(s, head, n, &used, piecep, e);

    if (r == 0)
        assert_int_equal(used, n);
    return r;
}

static void a_recorded_stream_is_understood(void **state)
{
    struct seen a = whole(recorded[0], n_recorded[0]), b = whole(recorded[1], n_recorded[1]);

    (void)state;
    assert_int_equal(a.n_hellos, 1);
    assert_int_equal(b.n_hellos, 1);
    assert_int_equal(a.n_syncs, 3);
    assert_int_equal(b.n_syncs, 3);
    assert_int_equal(a.n_opaque + b.n_opaque, 0);
    assert_true(a.n_zero > 128 && b.n_zero > 128);
    assert_true(a.n_normal > 0);
    assert_int_equal(a.n_payload, a.n_normal * 4096);
    assert_int_equal(GW_STREAM_HELLO_BYTES + a.n_packets * HEAD + a.n_payload, n_recorded[0]);
    assert_int_equal(GW_STREAM_HELLO_BYTES + b.n_packets * HEAD + b.n_payload, n_recorded[1]);
}

static void every_split_gives_the_same(void **state)
{
    const uint8_t *data = recorded[1];
    size_t n = n_recorded[1];
    uint64_t want = whole(data, n).digest;

    (void)state;
    for (size_t split = 0; split <= n; split++) {
        struct gw_stream s;
        struct seen seen = {0};

        gw_stream_init(&s, 4096);
        assert_int_equal(feed(&s, &seen, data, split, NULL), 0);
        assert_int_equal(feed(&s, &seen, data + split, n - split, NULL), 0);
        assert_int_equal(gw_stream_end(&s, NULL), 0);
        if (seen.digest != want)
            fail_msg("split at %zu", split);
    }
}

static void any_piece_size_gives_the_same(void **state)
{
    static const size_t sizes[] = {1, 3, 12, 13, 64, 320, 1343, 1344, 1345, 4096, 5441};
    const uint8_t *data = recorded[0];
    size_t n = n_recorded[0];
    uint64_t want = whole(data, n).digest;

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct gw_stream s;
        struct seen seen = {0};

        gw_stream_init(&s, 4096);
        for (size_t at = 0; at < n; at += sizes[i])
            feed(&s, &seen, data + at, n - at < sizes[i] ? n - at : sizes[i], NULL);
        assert_true(seen.digest == want);
    }
}

static void it_may_end_only_between_packets(void **state)
{
    struct seen all = whole(recorded[1], n_recorded[1]);
    struct gw_stream s;
    unsigned n_good = 0;

    (void)state;
    gw_stream_init(&s, 4096);
    for (size_t i = 0; i < n_recorded[1]; i++) {
        struct seen seen = {0};
        struct gw_error e;

        if (gw_stream_end(&s, &e) == 0)
            n_good++;
        else
            assert_int_equal(e.code, GW_E_PROTOCOL);
        feed(&s, &seen, recorded[1] + i, 1, NULL);
    }
    /* nothing at all, after the hello, and after each packet but the last */
    assert_int_equal(n_good, 1 + all.n_packets);
}

static void encoding_gives_what_qemu_sent(void **state)
{
    struct gw_stream s;
    uint8_t head[GW_STREAM_HEADER_MAX];
    unsigned n_same = 0;

    (void)state;
    gw_stream_init(&s, 4096);
    for (size_t at = 0, used; at < n_recorded[0]; at += used) {
        enum gw_piece piece;

        assert_int_equal(
            gw_stream_push(&s, recorded[0] + at, n_recorded[0] - at, &used, &piece, NULL), 0);
        if (piece != GW_PIECE_PACKET)
            continue;
        assert_int_equal(gw_packet_encode(&s.packet, head), s.n_head);
        assert_memory_equal(head, s.head, s.n_head);
        n_same++;
    }
    assert_true(n_same > 10);
}

static void a_stripped_packet_has_nothing_left(void **state)
{
    uint8_t head[HEAD];
    struct gw_stream s;
    enum gw_piece piece;

    (void)state;
    start_channel(&s);
    make_packet(head, GW_STREAM_SYNC, 2, 3);
    gw_packet_strip(head, true);
    assert_int_equal(push_head(&s, head, HEAD, &piece, NULL), 0);
    assert_int_equal(piece, GW_PIECE_PACKET);
    assert_true(s.packet.sync);
    assert_int_equal(s.packet.n_normal + s.packet.n_zero + s.packet.n_payload, 0);
    gw_packet_strip(head, false);
    assert_int_equal(push_head(&s, head, HEAD, &piece, NULL), 0);
    assert_false(s.packet.sync);
}

static void pages_may_be_read_in_place(void **state)
{
    uint8_t head[HEAD], page[4096];
    struct gw_stream s;
    struct gw_stream_want want;
    enum gw_piece piece;

    (void)state;
    start_channel(&s);
    make_packet(head, 0, 1, 1);
    assert_int_equal(push_head(&s, head, HEAD, &piece, NULL), 0);
    gw_stream_want(&s, &want);
    assert_null(want.into);
    assert_int_equal(want.n_bytes, sizeof page);
    assert_int_equal(gw_stream_took(&s, 4000, &piece, NULL), 0);
    assert_int_equal(piece, GW_PIECE_PAYLOAD);
    assert_int_equal(s.n_left, 96);
    assert_int_equal(gw_stream_took(&s, 96, &piece, NULL), 0);
    gw_stream_want(&s, &want);
    assert_ptr_equal(want.into, s.head);
}

/* 8.2: no zero pages; the size is stale in a packet without pages; a SYNC may carry pages. */
static void qemu_8_packets(void **state)
{
    uint8_t head[HEAD];
    struct gw_stream s;
    enum gw_piece piece;

    (void)state;
    start_channel(&s);
    make_packet(head, GW_STREAM_SYNC, 5, 0);
    assert_int_equal(push_head(&s, head, HEAD, &piece, NULL), 0);
    assert_true(s.packet.sync);
    assert_int_equal(s.packet.n_normal, 5);
    assert_int_equal(s.n_left, 5 * 4096);
    s.n_left = 0; /* as if it had come */
    make_packet(head, GW_STREAM_SYNC, 0, 0);
    put(head, 20, 128 * 4096);
    assert_int_equal(push_head(&s, head, HEAD, &piece, NULL), 0);
    assert_int_equal(piece, GW_PIECE_PACKET);
    assert_int_equal(s.n_left, 0);
}

static void other_page_sizes_are_learnt(void **state)
{
    uint8_t head[HEAD];
    struct gw_stream s;
    enum gw_piece piece;

    (void)state;
    start_channel(&s);
    make_packet(head, 0, 2, 0);
    put(head, 12, 32);
    put(head, 20, 2 * 16384);
    put_offset(head, 1, 16384);
    assert_int_equal(push_head(&s, head, GW_STREAM_OFFSETS_AT + 32 * 8, &piece, NULL), 0);
    assert_int_equal(piece, GW_PIECE_PACKET);
    assert_int_equal(s.packet.capacity, 32);
    assert_int_equal(s.packet.page_bytes, 16384);
    assert_int_equal(s.n_left, 2 * 16384);
}

static void what_is_not_pages_is_passed_on(void **state)
{
    uint8_t head[HEAD];
    struct gw_stream s;
    enum gw_piece piece;

    (void)state;
    start_channel(&s);
    make_packet(head, 0x4, 7, 1); /* zstd */
    put(head, 20, 1234);
    assert_int_equal(push_head(&s, head, HEAD, &piece, NULL), 0);
    assert_true(s.packet.opaque);
    assert_int_equal(s.packet.n_normal + s.packet.n_zero, 0);
    assert_int_equal(s.n_left, 1234);
    s.n_left = 0;
    make_packet(head, 0x4, 0, 9);
    put(head, 20, 1234);
    assert_int_equal(push_head(&s, head, HEAD, &piece, NULL), 0);
    assert_int_equal(s.n_left, 0);
    make_packet(head, GW_STREAM_DEVICE_STATE, 0, 0);
    put(head, 272, UINT32_MAX);
    assert_int_equal(push_head(&s, head, GW_STREAM_STATE_BYTES, &piece, NULL), 0);
    assert_int_equal(piece, GW_PIECE_PACKET);
    assert_true(s.packet.opaque);
    assert_true(s.n_left == UINT32_MAX);
    assert_int_equal(gw_packet_encode(&s.packet, head), 0);
}

static void the_main_channel_is_passed_on(void **state)
{
    static const char text[] = "QEVM\0\0\0\3 and what not";
    struct gw_stream s;
    struct seen seen = {0};

    (void)state;
    for (size_t split = 0; split < sizeof text; split++) {
        memset(&seen, 0, sizeof seen);
        gw_stream_init(&s, 4096);
        feed(&s, &seen, (const uint8_t *)text, split, NULL);
        feed(&s, &seen, (const uint8_t *)text + split, sizeof text - split, NULL);
        assert_int_equal(s.channel, GW_CHANNEL_MAIN);
        assert_int_equal(seen.n_payload, sizeof text - 4);
        assert_int_equal(gw_stream_end(&s, NULL), 0);
    }
}

static void hostile_headers_end_it(void **state)
{
    /* a change of one number in a good packet with two pages and one zero page */
    static const struct {
        size_t at;
        uint32_t value;
        enum gw_code code;
        const char *part;
    } cases[] = {
        {0, 0x11223345, GW_E_PROTOCOL, "0x11223345"},
        {4, 2, GW_E_UNSUPPORTED, "version 2"},
        {8, 0x80, GW_E_UNSUPPORTED, "0x80 are not known"},
        {8, 0x80000000, GW_E_UNSUPPORTED, "0x80000000 are not known"},
        {12, 513, GW_E_PROTOCOL, "513 pages"},
        {12, UINT32_MAX, GW_E_PROTOCOL, "4294967295 pages"},
        {12, 2, GW_E_PROTOCOL, "2 pages and 1 zero pages in a packet for 2"},
        {16, 129, GW_E_PROTOCOL, "129 pages"},
        {16, UINT32_MAX, GW_E_PROTOCOL, "4294967295 pages"},
        {32, 127, GW_E_PROTOCOL, "127 zero pages"},
        {32, UINT32_MAX, GW_E_PROTOCOL, "4294967295 zero pages"},
        {20, 0, GW_E_PROTOCOL, "0 bytes are announced for 2 pages"},
        {20, 8191, GW_E_PROTOCOL, "8191 bytes"},
        {20, 6144, GW_E_PROTOCOL, "6144 bytes"},
        {20, 2 * 131072, GW_E_PROTOCOL, "262144 bytes"},
        {324, 4095, GW_E_PROTOCOL, "0xfff"},
        {340, 8193, GW_E_PROTOCOL, "0x2001"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t head[HEAD];
        struct gw_stream s;
        struct seen seen = {0};
        struct gw_error e;

        make_packet(head, 0, 2, 1);
        put(head, cases[i].at, cases[i].value);
        start_channel(&s);
        assert_int_equal(feed(&s, &seen, head, HEAD, &e), -1);
        assert_int_equal(e.code, cases[i].code);
        if (!strstr(e.msg, cases[i].part))
            fail_msg("case %zu: %s", i, e.msg);
        assert_int_equal(seen.n_packets, 0);
        make_packet(head, 0, 2, 1);
        assert_int_equal(feed(&s, &seen, head, HEAD, &e), -1); /* for good */
        assert_int_equal(gw_stream_end(&s, &e), -1);
    }
}

static void a_name_needs_an_end(void **state)
{
    uint8_t head[HEAD];
    struct gw_stream s;
    enum gw_piece piece;
    struct gw_error e;

    (void)state;
    start_channel(&s);
    make_packet(head, 0, 0, 1);
    memset(head + 64, 'x', 256);
    assert_int_equal(push_head(&s, head, HEAD, &piece, &e), -1);
    assert_non_null(strstr(e.msg, "RAM block"));
}

static void the_layout_does_not_change(void **state)
{
    uint8_t head[HEAD];
    struct gw_stream s;
    struct seen seen = {0};
    enum gw_piece piece;
    struct gw_error e;

    (void)state;
    start_channel(&s);
    make_packet(head, 0, 0, 1);
    assert_int_equal(push_head(&s, head, HEAD, &piece, NULL), 0);
    put(head, 12, 64);
    assert_int_equal(feed(&s, &seen, head, HEAD, &e), -1);
    assert_non_null(strstr(e.msg, "64 pages after packets for 128"));
}

static void strangers_are_told_apart(void **state)
{
    struct gw_stream s;
    enum gw_piece piece;
    struct gw_error e;
    size_t used;

    (void)state;
    gw_stream_init(&s, 4096);
    assert_int_equal(gw_stream_push(&s, "\x16\x03\x01\x02", 4, &used, &piece, &e), -1);
    assert_int_equal(e.code, GW_E_UNSUPPORTED);
    assert_non_null(strstr(e.hint, "TLS"));
}

static int load(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        char path[512];
        FILE *file;

        snprintf(path, sizeof path, "%s/tests/flow/recorded/lane-%d", GW_SOURCE_ROOT, i);
        file = fopen(path, "rb");
        if (!file)
            return -1;
        n_recorded[i] = fread(recorded[i], 1, sizeof recorded[i], file);
        fclose(file);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recorded_stream_is_understood),
        cmocka_unit_test(every_split_gives_the_same),
        cmocka_unit_test(any_piece_size_gives_the_same),
        cmocka_unit_test(it_may_end_only_between_packets),
        cmocka_unit_test(encoding_gives_what_qemu_sent),
        cmocka_unit_test(a_stripped_packet_has_nothing_left),
        cmocka_unit_test(pages_may_be_read_in_place),
        cmocka_unit_test(qemu_8_packets),
        cmocka_unit_test(other_page_sizes_are_learnt),
        cmocka_unit_test(what_is_not_pages_is_passed_on),
        cmocka_unit_test(the_main_channel_is_passed_on),
        cmocka_unit_test(hostile_headers_end_it),
        cmocka_unit_test(a_name_needs_an_end),
        cmocka_unit_test(the_layout_does_not_change),
        cmocka_unit_test(strangers_are_told_apart),
    };

    return cmocka_run_group_tests(tests, load, NULL);
}
