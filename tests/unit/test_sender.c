/* SPDX-License-Identifier: Apache-2.0 */
/* Packets of a made-up QEMU through sender and receiver: what comes out is the same guest RAM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <unistd.h>

#include "flow/receiver.h"
#include "flow/sender.h"
#include "util/cleanup.h"

enum { N_PAGES = 256, LANE = 2 };

static struct side {
    struct gw_sender_ram sender_ram;
    struct gw_sender sender;
    struct gw_ram ram;
    struct gw_barrier barrier;
    struct gw_receiver receiver;
    uint8_t *source, *destination;
    uint8_t *payload, *bytes;
    struct gw_packet packet;
    struct gw_batch_figures sent;
    struct gw_error error;
    /* what the destination's QEMU got */
    uint8_t got[1 << 16];
    size_t n_got, n_got_at_drain;
    unsigned n_drains;
} m;

static int to_qemu(struct gw_receiver *receiver, const void *bytes, size_t n, struct gw_error *e)
{
    (void)receiver;
    (void)e;
    assert_true(m.n_got + n <= sizeof m.got);
    memcpy(m.got + m.n_got, bytes, n);
    m.n_got += n;
    return 0;
}

static int drained(struct gw_receiver *receiver, struct gw_error *e)
{
    (void)receiver;
    (void)e;
    m.n_drains++;
    m.n_got_at_drain = m.n_got;
    return 0;
}

static const struct gw_receiver_ops ops = {.send = to_qemu, .drain = drained};

static int set_up(void **state)
{
    char line[128];

    (void)state;
    memset(&m, 0, sizeof m);
    m.source = calloc(N_PAGES, GW_PAGE_BYTES);
    m.destination = aligned_alloc(GW_PAGE_BYTES, N_PAGES * GW_PAGE_BYTES);
    memset(m.destination, 0, N_PAGES * GW_PAGE_BYTES);
    m.payload = malloc((size_t)GW_BATCH_MAX_PAGES * GW_PAGE_BYTES);
    m.bytes = malloc(GW_FRAME_MAX);
    snprintf(line, sizeof line, "ram0 4 KiB 0x0 0x%x 0x%x 0x%lx rw", N_PAGES * GW_PAGE_BYTES,
             N_PAGES * GW_PAGE_BYTES, (unsigned long)m.destination);
    return gw_ram_open(&m.ram, getpid(), line, &m.error) || gw_barrier_init(&m.barrier, 1) ||
           gw_sender_ram_add(&m.sender_ram, "ram0", m.ram.block[0].n_bytes,
                             m.ram.block[0].n_bytes / 100 * 8, &m.error) ||
           gw_sender_init(&m.sender, &m.sender_ram, LANE) ||
           gw_receiver_init(&m.receiver, &ops, &m.ram, &m.barrier);
}

static int tear_down(void **state)
{
    (void)state;
    for (int twice = 0; twice < 2; twice++) {
        gw_sender_fini(&m.sender);
        gw_sender_ram_fini(&m.sender_ram);
        gw_receiver_fini(&m.receiver);
    }
    gw_ram_close(&m.ram);
    gw_barrier_fini(&m.barrier);
    free(m.source);
    free(m.destination);
    free(m.payload);
    free(m.bytes);
    return 0;
}

/* A packet of the source's pages [first, first + n), as QEMU would send them: zero pages last. */
static void make_packet(unsigned first, unsigned n, uint32_t flags)
{
    struct gw_packet *p = &m.packet;

    *p = (struct gw_packet){.flags = flags,
                            .sync = flags & GW_STREAM_SYNC,
                            .capacity = 128,
                            .alloc = n ? 128 : 0,
                            .page_bytes = GW_PAGE_BYTES,
                            .number = 9};
    if (n)
        strcpy(p->block, "ram0");
    for (int zero = 0; zero < 2; zero++)
        for (unsigned i = first; i < first + n; i++) {
            const uint8_t *page = m.source + (size_t)i * GW_PAGE_BYTES;

            if (gw_page_is_zero(page) != zero)
                continue;
            p->offset[p->n_normal + p->n_zero] = (uint64_t)i * GW_PAGE_BYTES;
            if (!zero)
                memcpy(m.payload + (size_t)p->n_normal * GW_PAGE_BYTES, page, GW_PAGE_BYTES);
            *(zero ? &p->n_zero : &p->n_normal) += 1;
        }
    p->n_payload = (uint64_t)p->n_normal * GW_PAGE_BYTES;
}

static int carry(void)
{
    static const struct gw_batch_setting setting = {1, 1, true};
    struct gw_frame frame;
    size_t n, used;

    assert_true(gw_sender_takes(&m.sender, &m.packet));
    assert_int_equal(gw_sender_pages(&m.sender, &m.packet, m.payload, &setting, m.bytes, &n,
                                     &m.sent, &m.error),
                     0);
    assert_int_equal(gw_frame_parse(m.bytes, n, LANE, &frame, &used, &m.error), 0);
    assert_int_equal(used, n);
    return gw_receiver_take(&m.receiver, &frame, &m.error);
}

/* The only packet that QEMU got since the last look; the flags that it has. */
static uint32_t packet_at_qemu(void)
{
    struct gw_stream stream;
    enum gw_piece piece;
    uint8_t hello[GW_STREAM_HELLO_BYTES] = {0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1};
    size_t used;

    gw_stream_init(&stream, GW_PAGE_BYTES);
    assert_int_equal(gw_stream_push(&stream, hello, sizeof hello, &used, &piece, &m.error), 0);
    assert_int_equal(gw_stream_push(&stream, m.got, m.n_got, &used, &piece, &m.error), 0);
    assert_int_equal(piece, GW_PIECE_PACKET);
    assert_int_equal(used, m.n_got);
    assert_int_equal(stream.packet.n_normal + stream.packet.n_zero, 0);
    assert_int_equal(stream.n_left, 0);
    assert_int_equal(stream.packet.number, 9);
    m.n_got = 0;
    return stream.packet.flags;
}

static void fill(unsigned page, uint8_t seed)
{
    for (unsigned i = 0; i < GW_PAGE_BYTES; i++)
        m.source[(size_t)page * GW_PAGE_BYTES + i] = (uint8_t)(seed * (i + 1) + i / 64 + 1);
}

static void sync_all(void)
{
    make_packet(0, 0, GW_STREAM_SYNC);
    assert_int_equal(carry(), 0);
    assert_int_equal(packet_at_qemu(), GW_STREAM_SYNC);
}

static void assert_same(void)
{
    assert_memory_equal(m.source, m.destination, (size_t)N_PAGES * GW_PAGE_BYTES);
}

static void test_rounds(void **state)
{
    (void)state;
    memset(m.destination, 0x55, (size_t)8 * GW_PAGE_BYTES); /* zero pages are written, too */
    for (unsigned i = 4; i < 100; i++)
        fill(i, (uint8_t)i);
    make_packet(0, 128, 0);
    assert_int_equal(carry(), 0);
    assert_int_equal(packet_at_qemu(), 0);
    assert_int_equal(m.sent.n_whole, 96);
    assert_int_equal(m.sent.n_zero, 32);
    assert_same();
    sync_all();
    m.source[5 * GW_PAGE_BYTES + 700] ^= 1;                 /* a piece */
    memset(m.source + 6 * GW_PAGE_BYTES, 0, GW_PAGE_BYTES); /* became zero */
    fill(2, 77);                                            /* was zero */
    make_packet(0, 8, 0);
    assert_int_equal(carry(), 0);
    assert_int_equal(m.sent.n_pieces, 1);
    assert_int_equal(m.sent.n_same, 2); /* 4 and 7 */
    assert_same();
}

static void test_the_first_packet_after_a_sync_waits_for_qemu(void **state)
{
    (void)state;
    fill(1, 3);
    make_packet(1, 1, 0);
    assert_int_equal(carry(), 0);
    assert_int_equal(m.n_drains, 0);
    m.n_got = 0;
    sync_all();
    fill(1, 4);
    make_packet(1, 1, 0);
    assert_int_equal(carry(), 0);
    /* QEMU had the stripped packet before, and it came once. */
    assert_int_equal(m.n_drains, 1);
    assert_int_equal(m.n_got_at_drain, m.n_got);
    assert_int_equal(packet_at_qemu(), 0);
    make_packet(1, 1, 0);
    assert_int_equal(carry(), 0);
    assert_int_equal(m.n_drains, 1);
    m.n_got = 0;
    sync_all();
    /* Before 9.0: pages and SYNC in one packet. */
    fill(1, 5);
    make_packet(1, 1, GW_STREAM_SYNC);
    assert_int_equal(carry(), 0);
    assert_int_equal(m.n_drains, 2);
    assert_int_equal(gw_barrier_round(&m.barrier), 3);
    assert_same();
}

static void test_what_is_not_taken(void **state)
{
    (void)state;
    make_packet(0, 4, 0);
    assert_true(gw_sender_takes(&m.sender, &m.packet));
    strcpy(m.packet.block, "pc.bios");
    assert_false(gw_sender_takes(&m.sender, &m.packet));
    make_packet(0, 4, 0x4); /* compressed */
    assert_false(gw_sender_takes(&m.sender, &m.packet));
    make_packet(0, 4, 0);
    m.packet.opaque = true;
    assert_false(gw_sender_takes(&m.sender, &m.packet));
    make_packet(0, 4, 0);
    m.packet.page_bytes = 16384;
    assert_false(gw_sender_takes(&m.sender, &m.packet));
    make_packet(0, 128, 0);
    m.packet.n_zero++;
    assert_false(gw_sender_takes(&m.sender, &m.packet));
}

static void test_a_page_that_was_passed_is_sent_whole(void **state)
{
    (void)state;
    fill(1, 3);
    make_packet(1, 1, 0);
    assert_int_equal(carry(), 0);
    gw_sender_passes(&m.sender, &m.packet);
    assert_int_equal(carry(), 0);
    assert_int_equal(m.sent.n_whole, 1);
}

static void test_pages_outside_of_the_block(void **state)
{
    static const struct gw_batch_setting setting = {0, 0, true};
    size_t n;

    (void)state;
    make_packet(0, 1, 0);
    m.packet.offset[0] = (uint64_t)N_PAGES * GW_PAGE_BYTES;
    assert_int_equal(gw_sender_pages(&m.sender, &m.packet, m.payload, &setting, m.bytes, &n,
                                     &m.sent, &m.error),
                     -1);
    assert_int_equal(m.error.code, GW_E_PROTOCOL);
}

/* The source believes in another destination than there is. */
static void test_a_missed_change_is_refused(void **state)
{
    (void)state;
    fill(1, 3);
    make_packet(1, 1, 0);
    assert_int_equal(carry(), 0);
    m.destination[GW_PAGE_BYTES + 5] ^= 1;
    assert_int_equal(carry(), -1);
    assert_int_equal(m.error.code, GW_E_PROTOCOL);
    assert_non_null(strstr(m.error.msg, "lane 2"));
}

static void test_an_aborted_barrier_ends_it(void **state)
{
    (void)state;
    gw_barrier_abort(&m.barrier);
    make_packet(0, 0, GW_STREAM_SYNC);
    assert_int_equal(carry(), -1);
    assert_int_equal(m.n_got, 0); /* the SYNC is not passed on */
}

static void test_bytes_and_packets_pass(void **state)
{
    uint8_t head[GW_STREAM_STATE_BYTES] = {0};
    struct gw_frame frame = {GW_FRAME_BYTES, LANE, (const uint8_t *)"abc", 3};

    (void)state;
    assert_int_equal(gw_receiver_take(&m.receiver, &frame, &m.error), 0);
    assert_memory_equal(m.got, "abc", 3);
    frame = (struct gw_frame){GW_FRAME_PACKET, LANE, head, sizeof head};
    assert_int_equal(gw_receiver_take(&m.receiver, &frame, &m.error), 0);
    assert_int_equal(m.n_got, 3 + sizeof head);
    assert_int_equal(gw_barrier_round(&m.barrier), 0);
    assert_false(m.receiver.synced);
    head[11] = GW_STREAM_SYNC;
    assert_int_equal(gw_receiver_take(&m.receiver, &frame, &m.error), 0);
    assert_int_equal(gw_barrier_round(&m.barrier), 1);
    assert_true(m.receiver.synced);
    frame.kind = GW_FRAME_SYNCED;
    assert_int_equal(gw_receiver_take(&m.receiver, &frame, &m.error), -1);
    assert_false(m.receiver.synced);
    frame.kind = GW_FRAME_END;
    assert_int_equal(gw_receiver_take(&m.receiver, &frame, &m.error), -1);
}

static void test_blocks(void **state)
{
    struct gw_sender_ram ram = {0};
    char name[300];

    (void)state;
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(gw_sender_ram_add(&ram, name, 4096, 0, &m.error), -1);
    assert_int_equal(gw_sender_ram_add(&ram, "", 4096, 0, &m.error), -1);
    assert_int_equal(gw_sender_ram_add(&ram, "a", 0, 0, &m.error), -1);
    assert_int_equal(gw_sender_ram_add(&ram, "a", 4097, 0, &m.error), -1);
    for (unsigned i = 0; i < GW_RAM_BLOCKS_MAX; i++)
        assert_int_equal(gw_sender_ram_add(&ram, "a", 4096, i, &m.error), 0);
    assert_int_equal(gw_sender_ram_add(&ram, "a", 4096, 0, &m.error), -1);
    assert_int_equal(gw_sender_ram_bytes(&ram), 4096 * GW_RAM_BLOCKS_MAX);
    gw_sender_ram_fini(&ram);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rounds),
        TEST(test_the_first_packet_after_a_sync_waits_for_qemu),
        TEST(test_what_is_not_taken),
        TEST(test_a_page_that_was_passed_is_sent_whole),
        TEST(test_pages_outside_of_the_block),
        TEST(test_a_missed_change_is_refused),
        TEST(test_an_aborted_barrier_ends_it),
        TEST(test_bytes_and_packets_pass),
        TEST(test_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
