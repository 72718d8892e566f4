/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "flow/frame.h"
#include "util/cleanup.h"

static uint8_t bytes[GW_FRAME_MAX + 1];
static struct gw_error error;

static int parse(size_t n_bytes, struct gw_frame *frame, size_t *usedp)
{
    memset(&error, 0, sizeof error);
    return gw_frame_parse(bytes, n_bytes, 3, frame, usedp, &error);
}

static void test_there_and_back(void **state)
{
    static const struct {
        enum gw_frame_kind kind;
        size_t n_payload;
    } frames[] = {
        {GW_FRAME_BYTES, 1},
        {GW_FRAME_BYTES, GW_FRAME_BYTES_MAX},
        {GW_FRAME_PACKET, GW_STREAM_STATE_BYTES},
        {GW_FRAME_PACKET, GW_STREAM_HEADER_MAX},
        {GW_FRAME_PAGES, GW_FRAME_PACKET_BYTES},
        {GW_FRAME_PAGES, GW_FRAME_MAX - GW_FRAME_HEADER_BYTES},
        {GW_FRAME_END, 0},
        {GW_FRAME_SYNCED, 0},
    };
    struct gw_frame frame;
    size_t used;

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(frames); i++) {
        size_t n = gw_frame_put(bytes, frames[i].kind, 3, frames[i].n_payload);

        assert_int_equal(n, GW_FRAME_HEADER_BYTES + frames[i].n_payload);
        assert_int_equal(parse(n, &frame, &used), 0);
        assert_int_equal(frame.kind, frames[i].kind);
        assert_int_equal(frame.n_payload, frames[i].n_payload);
        assert_ptr_equal(frame.payload, bytes + GW_FRAME_HEADER_BYTES);
        assert_int_equal(used, n);
        /* One byte behind it is another frame's; one byte less is not all of it. */
        assert_int_equal(parse(n + 1, &frame, &used), 0);
        assert_int_equal(used, n);
        assert_int_equal(parse(n - 1, &frame, &used), 1);
        assert_int_equal(used, n);
    }
}

static void test_too_little_says_how_much(void **state)
{
    struct gw_frame frame;
    size_t used;

    (void)state;
    gw_frame_put(bytes, GW_FRAME_END, 3, 0);
    for (size_t n = 0; n < GW_FRAME_HEADER_BYTES; n++) {
        assert_int_equal(parse(n, &frame, &used), 1);
        assert_int_equal(used, GW_FRAME_HEADER_BYTES);
    }
}

/* A header with one byte changed. */
static void refuse(unsigned at, uint8_t value, enum gw_code code)
{
    struct gw_frame frame;
    size_t used;

    gw_frame_put(bytes, GW_FRAME_BYTES, 3, 8);
    bytes[at] = value;
    assert_int_equal(parse(sizeof bytes, &frame, &used), -1);
    assert_int_equal(error.code, code);
    assert_non_null(strstr(error.msg, "lane 3"));
}

static void test_refused(void **state)
{
    struct gw_frame frame;
    size_t used;

    (void)state;
    refuse(0, 'X', GW_E_PROTOCOL);
    refuse(4, 1, GW_E_UNSUPPORTED);
    refuse(5, 0, GW_E_PROTOCOL);
    refuse(5, 6, GW_E_PROTOCOL);
    refuse(5, GW_FRAME_END, GW_E_PROTOCOL);    /* with 8 bytes */
    refuse(5, GW_FRAME_SYNCED, GW_E_PROTOCOL); /* with 8 bytes */
    refuse(5, GW_FRAME_PACKET, GW_E_PROTOCOL); /* with 8 bytes */
    refuse(7, 4, GW_E_PROTOCOL);               /* of another lane */
    refuse(8, 0x80, GW_E_PROTOCOL);            /* 2 GiB */
    gw_frame_put(bytes, GW_FRAME_BYTES, 3, 0);
    assert_int_equal(parse(sizeof bytes, &frame, &used), -1);
    gw_frame_put(bytes, GW_FRAME_BYTES, 3, GW_FRAME_BYTES_MAX + 1);
    assert_int_equal(parse(sizeof bytes, &frame, &used), -1);
    gw_frame_put(bytes, GW_FRAME_PAGES, 3, GW_FRAME_MAX - GW_FRAME_HEADER_BYTES + 1);
    assert_int_equal(parse(sizeof bytes, &frame, &used), -1);
}

static int packet_of(uint32_t flags, uint32_t capacity, uint32_t alloc, struct gw_packet *packet)
{
    struct gw_packet from = {.flags = flags, .capacity = capacity, .alloc = alloc, .number = 77};
    struct gw_frame frame = {.payload = bytes, .n_payload = GW_FRAME_PACKET_BYTES};

    gw_frame_packet_put(bytes, &from);
    return gw_frame_packet_get(&frame, packet, &error);
}

static void test_packets(void **state)
{
    struct gw_packet packet;
    uint8_t head[GW_STREAM_HEADER_MAX];

    (void)state;
    assert_int_equal(packet_of(GW_STREAM_SYNC, 128, 0, &packet), 0);
    assert_true(packet.sync);
    assert_int_equal(packet.number, 77);
    assert_int_equal(gw_packet_encode(&packet, head), GW_STREAM_OFFSETS_AT + 8 * 128);
    assert_int_equal(packet_of(0, 128, 128, &packet), 0);
    assert_false(packet.sync);
    assert_int_equal(packet_of(0, GW_STREAM_PAGES_PER_MAX, 0, &packet), 0);
    assert_int_equal(packet_of(0, GW_STREAM_PAGES_PER_MAX + 1, 0, &packet), -1);
    assert_int_equal(packet_of(0, 0, 0, &packet), -1);
    assert_int_equal(packet_of(0, 128, 127, &packet), -1);
    assert_int_equal(packet_of(GW_STREAM_DEVICE_STATE, 128, 0, &packet), -1);
    assert_int_equal(packet_of(0x4, 128, 0, &packet), -1); /* compressed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_too_little_says_how_much),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_packets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
