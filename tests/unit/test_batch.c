/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flow/batch.h"
#include "util/cleanup.h"

enum { N_PAGES = 512, RAM_BYTES = N_PAGES * GW_PAGE_BYTES };

static const struct gw_batch_setting zstd1 = {1, 1, true}, none = {0, 0, true};

/* Both sides of a migration with one RAM block. */
static struct side {
    struct gw_ram ram; /* of this process, which is the destination */
    unsigned char *source, *destination, *before;
    struct gw_history *history;
    struct gw_batch_encoder *encoder;
    struct gw_batch_decoder *decoder;
    unsigned char *wire;
    struct gw_batch_figures sent, received;
    struct gw_error error;
} m;

static uint64_t dice;

static uint32_t roll(void)
{
    dice = dice * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(dice >> 33);
}

static int begin(void **state)
{
    struct gw_history_options options = {.n_pages = N_PAGES, .limit_bytes = RAM_BYTES / 100 * 8};
    char line[128];

    (void)state;
    dice = 42;
    memset(&m, 0, sizeof m);
    for (unsigned i = 0; i < sizeof options.secret; i++)
        options.secret[i] = (unsigned char)roll();
    m.source = calloc(1, RAM_BYTES);
    m.destination = aligned_alloc(GW_PAGE_BYTES, RAM_BYTES);
    memset(m.destination, 0, RAM_BYTES);
    snprintf(line, sizeof line, "pc.ram 4 KiB 0x0 0x%x 0x%x 0x%lx rw", RAM_BYTES, RAM_BYTES,
             (unsigned long)m.destination);
    m.before = malloc(RAM_BYTES);
    m.wire = malloc(GW_BATCH_BOUND(GW_BATCH_MAX_PAGES) + 1);
    return gw_ram_open(&m.ram, getpid(), line, &m.error) || gw_history_new(&options, &m.history) ||
           gw_batch_encoder_new(&m.encoder) || gw_batch_decoder_new(&m.decoder);
}

static int end(void **state)
{
    (void)state;
    gw_ram_close(&m.ram);
    gw_history_free(m.history);
    gw_batch_encoder_free(m.encoder);
    gw_batch_encoder_free(NULL);
    gw_batch_decoder_free(m.decoder);
    gw_batch_decoder_free(NULL);
    free(m.source);
    free(m.destination);
    free(m.before);
    free(m.wire);
    return 0;
}

static void fill_random(unsigned page_no)
{
    for (unsigned i = 0; i < GW_PAGE_BYTES; i++)
        m.source[page_no * GW_PAGE_BYTES + i] = (unsigned char)roll();
}

static void fill_text(unsigned page_no)
{
    for (unsigned i = 0; i < GW_PAGE_BYTES; i++)
        m.source[page_no * GW_PAGE_BYTES + i] =
            (unsigned char)"the quick godwit "[(i + page_no) % 17];
}

static int encode_some(const unsigned *page_nos, unsigned n, const struct gw_batch_setting *setting)
{
    struct gw_batch_page pages[GW_BATCH_MAX_PAGES + 1];
    struct gw_batch_pages in = {"pc.ram", pages, n, m.history};
    size_t bound = GW_BATCH_BOUND(n);
    int r;

    for (unsigned i = 0; i < n; i++)
        pages[i] = (struct gw_batch_page){(uint64_t)page_nos[i] * GW_PAGE_BYTES,
                                          m.source + page_nos[i] * GW_PAGE_BYTES};
    m.wire[n <= GW_BATCH_MAX_PAGES ? bound : 0] = 0x5a;
    r = gw_batch_encode(m.encoder, &in, setting, m.wire, &m.sent);
    if (r == 0) {
        assert_int_equal(m.wire[bound], 0x5a);
        assert_in_range(m.sent.wire_bytes, GW_BATCH_HEADER_BYTES + 7, bound);
        assert_int_equal(m.sent.n_whole + m.sent.n_pieces + m.sent.n_zero + m.sent.n_same, n);
    }
    return r;
}

/* From memory of its own, so that the sanitizer sees a look past the end. */
static int decode(const unsigned char *bytes, size_t n)
{
    unsigned char *copy = malloc(n ? n : 1);
    int r;

    memcpy(copy, bytes, n);
    memset(&m.error, 0, sizeof m.error);
    r = gw_batch_decode(m.decoder, copy, n, &m.ram, &m.received, &m.error);
    free(copy);
    if (r < 0) {
        assert_true(m.error.code == GW_E_PROTOCOL || m.error.code == GW_E_UNSUPPORTED);
        assert_true(m.error.msg[0]);
    }
    return r;
}

static void must_be_refused(const unsigned char *bytes, size_t n, const char *why)
{
    memcpy(m.before, m.destination, RAM_BYTES);
    assert_int_equal(decode(bytes, n), -1);
    if (!strstr(m.error.msg, why))
        fail_msg("'%s' does not say '%s'", m.error.msg, why);
    assert_memory_equal(m.before, m.destination, RAM_BYTES);
}

static void send_some(const unsigned *page_nos, unsigned n, const struct gw_batch_setting *setting)
{
    assert_int_equal(encode_some(page_nos, n, setting), 0);
    assert_int_equal(decode(m.wire, m.sent.wire_bytes), 0);
    assert_int_equal(m.sent.n_whole, m.received.n_whole);
    assert_int_equal(m.sent.n_pieces, m.received.n_pieces);
    assert_int_equal(m.sent.n_zero, m.received.n_zero);
    assert_int_equal(m.sent.n_same, m.received.n_same);
    assert_int_equal(m.sent.content_bytes, m.received.content_bytes);
    assert_int_equal(m.sent.literal_bytes, m.received.literal_bytes);
    assert_int_equal(m.sent.wire_bytes, m.received.wire_bytes);
    assert_int_equal(m.sent.codec, m.received.codec);
    for (unsigned i = 0; i < n; i++)
        assert_memory_equal(m.source + page_nos[i] * GW_PAGE_BYTES,
                            m.destination + page_nos[i] * GW_PAGE_BYTES, GW_PAGE_BYTES);
}

static void test_a_page_is_sent_again(void **state)
{
    unsigned char *page = m.source + 3 * GW_PAGE_BYTES;

    (void)state;
    fill_random(3);
    send_some((unsigned[]){3}, 1, &zstd1);
    assert_int_equal(m.sent.n_whole, 1);
    assert_int_equal(m.sent.literal_bytes, GW_PAGE_BYTES);

    page[1000]++;
    page[4095]++;
    send_some((unsigned[]){3}, 1, &zstd1);
    assert_int_equal(m.sent.n_pieces, 1);
    assert_int_equal(m.sent.literal_bytes, 2 * 128);
    assert_in_range(m.sent.wire_bytes, 256, 256 + 60);

    send_some((unsigned[]){3}, 1, &zstd1);
    assert_int_equal(m.sent.n_same, 1);
    assert_in_range(m.sent.wire_bytes, 1, 60);

    memset(page, 0, GW_PAGE_BYTES);
    send_some((unsigned[]){3}, 1, &zstd1);
    assert_int_equal(m.sent.n_zero, 1);
    assert_int_equal(m.sent.content_bytes, 0);

    page[0]++;
    send_some((unsigned[]){3}, 1, &none);
    assert_int_equal(m.sent.n_pieces, 1);

    /* without delta all of it, and then nothing is known of it */
    send_some((unsigned[]){3}, 1, &(struct gw_batch_setting){1, -5, false});
    assert_int_equal(m.sent.n_whole, 1);
    send_some((unsigned[]){3}, 1, &zstd1);
    assert_int_equal(m.sent.n_whole, 1);
    gw_history_forget(m.history, 3);
    send_some((unsigned[]){3}, 1, &zstd1);
    assert_int_equal(m.sent.n_whole, 1);
}

static void test_without_a_history(void **state)
{
    struct gw_history *kept = m.history;

    (void)state;
    m.history = NULL;
    fill_text(9);
    for (unsigned i = 0; i < 2; i++) {
        send_some((unsigned[]){9, 10}, 2, &zstd1);
        assert_int_equal(m.sent.n_whole, 1);
        assert_int_equal(m.sent.n_zero, 1);
    }
    m.history = kept;
}

/* A page that QEMU calls zero has no content at all. */
static void test_known_zero_pages(void **state)
{
    struct gw_batch_page pages[] = {{GW_PAGE_BYTES, NULL},
                                    {0, m.source},
                                    {3 * GW_PAGE_BYTES, NULL}};
    struct gw_batch_pages in = {"pc.ram", pages, 3, m.history};

    (void)state;
    fill_text(0);
    memset(m.destination, 7, RAM_BYTES);
    assert_int_equal(gw_batch_encode(m.encoder, &in, &zstd1, m.wire, &m.sent), 0);
    assert_int_equal(decode(m.wire, m.sent.wire_bytes), 0);
    assert_int_equal(m.sent.n_zero, 2);
    assert_memory_equal(m.destination, m.source, 2 * GW_PAGE_BYTES);
    assert_int_equal(m.destination[2 * GW_PAGE_BYTES], 7);
    assert_int_equal(m.destination[3 * GW_PAGE_BYTES], 0);
}

/* What lies in a row is written in one go, and ends where it should. */
static void test_rows_of_pages(void **state)
{
    unsigned page_nos[] = {0, 1, 2, 3, 4, 5, 7, 8};

    (void)state;
    memset(m.destination, 7, RAM_BYTES);
    for (unsigned i = 0; i < 4; i++)
        fill_text(i);
    fill_text(7);
    send_some(page_nos, GW_ARRAY_SIZE(page_nos), &zstd1);
    assert_memory_equal(m.destination, m.source, (size_t)6 * GW_PAGE_BYTES);
    assert_memory_equal(m.destination + (size_t)7 * GW_PAGE_BYTES,
                        m.source + (size_t)7 * GW_PAGE_BYTES, (size_t)2 * GW_PAGE_BYTES);
    assert_int_equal(m.destination[6 * GW_PAGE_BYTES], 7);
}

/* Whatever the pages, the bound holds and what compression does not shorten goes as it is. */
static void test_incompressible_pages_keep_the_bound(void **state)
{
    unsigned page_nos[GW_BATCH_MAX_PAGES];

    (void)state;
    for (unsigned i = 0; i < GW_BATCH_MAX_PAGES; i++) {
        page_nos[i] = N_PAGES - 1 - 3 * i;
        fill_random(page_nos[i]);
    }
    send_some(page_nos, GW_BATCH_MAX_PAGES, &zstd1);
    assert_int_equal(m.sent.codec, gw_codec_none.id);
    assert_int_equal(m.sent.wire_bytes, GW_BATCH_HEADER_BYTES + 6 + 128 * (1 + GW_PAGE_BYTES) + 1);
    fill_text(page_nos[5]);
    send_some(page_nos, GW_BATCH_MAX_PAGES, &zstd1);
    assert_int_equal(m.sent.codec, gw_codec_zstd.id);
    assert_int_equal(m.sent.n_same, 127);
}

static void scribble(unsigned page_no)
{
    unsigned char *page = m.source + page_no * GW_PAGE_BYTES;

    switch (roll() % 8) {
    case 0: memset(page, 0, GW_PAGE_BYTES); break;
    case 1: fill_random(page_no); break;
    case 2: fill_text(page_no); break;
    case 3: break;
    default:
        for (unsigned n = 1 + roll() % 12; n; n--)
            page[roll() % GW_PAGE_BYTES] ^= (unsigned char)(1 + roll() % 255);
    }
}

/* Rounds of random changes, in random batches with random settings: the destination follows. */
static void test_random_rounds(void **state)
{
    unsigned page_nos[N_PAGES];

    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        unsigned n = 0, at = 0;

        for (unsigned p = 0; p < N_PAGES; p++)
            if (round == 0 || roll() % 3 == 0)
                page_nos[n++] = p;
        for (unsigned i = n; i > 1; i--) { /* shuffle: order is the encoder's business */
            unsigned j = roll() % i, kept = page_nos[j];

            page_nos[j] = page_nos[i - 1];
            page_nos[i - 1] = kept;
        }
        while (at < n) {
            struct gw_batch_setting setting = {(uint8_t)(roll() % 2), 0, roll() % 8 != 0};
            unsigned take = 1 + roll() % GW_BATCH_MAX_PAGES;

            setting.level = setting.codec ? (roll() % 2 ? 1 : -5) : 0;
            take = take < n - at ? take : n - at;
            for (unsigned i = 0; i < take; i++)
                scribble(page_nos[at + i]);
            send_some(page_nos + at, take, &setting);
            at += take;
        }
        assert_memory_equal(m.source, m.destination, RAM_BYTES);
    }
}

static void test_arguments_are_checked_first(void **state)
{
    static const struct gw_batch_setting illegal[] = {
        {7, 0, true}, {0, 1, true}, {1, 0, true}, {1, 13, true}, {1, -8, true}};
    struct gw_batch_page page = {GW_PAGE_BYTES, m.source};
    struct gw_batch_pages in = {"pc.ram", &page, 1, m.history};
    char name[GW_BATCH_MAX_NAME + 2];
    unsigned many[GW_BATCH_MAX_PAGES + 1];

    (void)state;
    fill_text(1);
    send_some((unsigned[]){1}, 1, &zstd1);
    for (size_t i = 0; i < GW_ARRAY_SIZE(illegal); i++)
        assert_int_equal(encode_some((unsigned[]){1}, 1, &illegal[i]), -EINVAL);
    assert_int_equal(encode_some((unsigned[]){1, 2, 1}, 3, &zstd1), -EINVAL);
    assert_int_equal(encode_some((unsigned[]){1}, 0, &zstd1), -EINVAL);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(many); i++)
        many[i] = i;
    assert_int_equal(encode_some(many, GW_ARRAY_SIZE(many), &zstd1), -EINVAL);
    page.offset = 100;
    assert_int_equal(gw_batch_encode(m.encoder, &in, &zstd1, m.wire, &m.sent), -EINVAL);
    page.offset = UINT64_C(1) << 62;
    assert_int_equal(gw_batch_encode(m.encoder, &in, &zstd1, m.wire, &m.sent), -EINVAL);
    page.offset = 0;
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    in.block = name;
    assert_int_equal(gw_batch_encode(m.encoder, &in, &zstd1, m.wire, &m.sent), -EINVAL);
    in.block = "";
    assert_int_equal(gw_batch_encode(m.encoder, &in, &zstd1, m.wire, &m.sent), -EINVAL);
    in.block = "pc\nram";
    assert_int_equal(gw_batch_encode(m.encoder, &in, &zstd1, m.wire, &m.sent), -EINVAL);
    /* the history is as it was */
    send_some((unsigned[]){1}, 1, &zstd1);
    assert_int_equal(m.sent.n_same, 1);
}

/* The destination's memory is not what the source believes: seen, and nothing is written. */
static void test_a_page_that_differs_is_seen(void **state)
{
    (void)state;
    fill_random(20);
    fill_random(21);
    send_some((unsigned[]){20, 21}, 2, &zstd1);
    m.source[20 * GW_PAGE_BYTES + 500]++;
    m.destination[20 * GW_PAGE_BYTES + 2000] ^= 1; /* in a piece that is not sent */
    assert_int_equal(encode_some((unsigned[]){20}, 1, &zstd1), 0);
    must_be_refused(m.wire, m.sent.wire_bytes, "checksums differ");
    m.destination[21 * GW_PAGE_BYTES + 4000] ^= 1;
    assert_int_equal(encode_some((unsigned[]){21}, 1, &zstd1), 0);
    assert_int_equal(m.sent.n_same, 1);
    must_be_refused(m.wire, m.sent.wire_bytes, "checksums differ");
    /* sent whole they are right again */
    gw_history_forget(m.history, 20);
    gw_history_forget(m.history, 21);
    send_some((unsigned[]){20, 21}, 2, &zstd1);
}

/* A change that the hashes of the pieces miss, made with the secret in hand (see test_history.c).
 */
static void missed_change(bool with_another)
{
    struct gw_history_options options = {.n_pages = N_PAGES, .limit_bytes = RAM_BYTES / 100 * 8};
    unsigned char *page = m.source + 4 * GW_PAGE_BYTES;

    memset(options.secret, 0x11, sizeof options.secret);
    gw_history_free(m.history);
    assert_int_equal(gw_history_new(&options, &m.history), 0);
    fill_random(4);
    memset(page, 0x11, 8);
    send_some((unsigned[]){4}, 1, &zstd1);
    page[8]++;
    if (with_another)
        page[3000]++;
    assert_int_equal(encode_some((unsigned[]){4}, 1, &zstd1), 0);
    assert_int_equal(m.sent.literal_bytes, with_another ? 128 : 0);
    must_be_refused(m.wire, m.sent.wire_bytes, "checksums differ");
}

static void test_a_missed_change_is_seen(void **state)
{
    (void)state;
    missed_change(false);
    missed_change(true);
}

/* ---- hostile bytes ---- */

/* A batch with three pages, without a codec: whole 2, pieces 5, zero 6. */
static void make_plain_batch(void)
{
    fill_random(5);
    send_some((unsigned[]){5}, 1, &none);
    fill_random(2);
    m.source[5 * GW_PAGE_BYTES]++;
    assert_int_equal(encode_some((unsigned[]){2, 5, 6}, 3, &none), 0);
    assert_int_equal(m.sent.n_whole, 1);
    assert_int_equal(m.sent.n_pieces, 1);
    assert_int_equal(m.sent.n_zero, 1);
}

static void test_each_damaged_byte_is_seen(void **state)
{
    (void)state;
    make_plain_batch();
    for (size_t i = 0; i < m.sent.wire_bytes; i++) {
        for (unsigned bit = 0; bit < 8; bit += i < 64 ? 1 : 5) {
            m.wire[i] ^= (unsigned char)(1u << bit);
            if (i < 64)
                must_be_refused(m.wire, m.sent.wire_bytes, "");
            else
                assert_int_equal(decode(m.wire, m.sent.wire_bytes), -1);
            m.wire[i] ^= (unsigned char)(1u << bit);
        }
    }
    assert_int_equal(decode(m.wire, m.sent.wire_bytes), 0);
    assert_memory_equal(m.source, m.destination, 7 * GW_PAGE_BYTES);
}

static void test_each_truncation_is_seen(void **state)
{
    (void)state;
    make_plain_batch();
    for (size_t n = 0; n < m.sent.wire_bytes; n++)
        assert_int_equal(decode(m.wire, n), -1);
    must_be_refused(m.wire, m.sent.wire_bytes + 1, "length");
}

/* One byte of the plain batch is another; at 34 the table begins, with 1, 1 + 4 and 1 bytes. */
static void test_what_is_wrong_is_said(void **state)
{
    static const struct {
        size_t at;
        unsigned char byte;
        const char *why;
    } cases[] = {
        {0, 'X', "does not begin like one"},
        {4, 2, "format 2"},
        {5, 9, "codec 9"},
        {5, 1, "does not understand"},
        {6, 0, "number of pages"},
        {6, 129, "number of pages"},
        {6, 2, "more in it"},
        {7, 0, "name"},
        {7, 255, ""},
        {8, 1, "the length is not"},
        {12, 1, "decoded length"},
        {16, 0xff, "checksums differ"},
        {24, 5, "size of pieces"},
        {24, 10, "size of pieces"},
        {26, 1, "reserved"},
        {28, '\n', "characters"},
        {28, 'q', "'qc.ram'"},
        {34, 2 << 2 | GW_PAGE_ZERO, "more in it"},
        {35, 2 << 2 | GW_PAGE_WHOLE, ""},
        {36, 0, "empty"},
        {39, 0xff, "cut off"},
        {40, 30 << 2 | GW_PAGE_ZERO, "checksums differ"},
    };

    (void)state;
    make_plain_batch();
    for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        unsigned char kept = m.wire[cases[i].at];

        m.wire[cases[i].at] = cases[i].byte;
        must_be_refused(m.wire, m.sent.wire_bytes, cases[i].why);
        m.wire[cases[i].at] = kept;
    }
    assert_int_equal(decode(m.wire, m.sent.wire_bytes), 0);
}

/* Of what the destination has not offered nothing is touched. */
static void test_a_block_that_was_not_offered(void **state)
{
    (void)state;
    make_plain_batch();
    m.ram.block[0].writable = false;
    must_be_refused(m.wire, m.sent.wire_bytes, "none that this node offered");
}

/* The destination's QEMU is gone: said, and no batch counts as written. */
static void test_a_destination_that_ended(void **state)
{
    struct gw_ram mine = m.ram;
    pid_t pid = fork();
    char line[128];

    (void)state;
    if (pid == 0)
        for (;;)
            pause();
    snprintf(line, sizeof line, "pc.ram 4 KiB 0x0 0x%x 0x%x 0x%lx rw", RAM_BYTES, RAM_BYTES,
             (unsigned long)m.destination);
    make_plain_batch();
    assert_int_equal(gw_ram_open(&m.ram, pid, line, &m.error), 0);
    memcpy(m.before, m.destination, RAM_BYTES);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(
        gw_batch_decode(m.decoder, m.wire, m.sent.wire_bytes, &m.ram, &m.received, &m.error), -1);
    assert_int_equal(m.error.code, GW_E_SYSTEM);
    assert_memory_equal(m.before, m.destination, RAM_BYTES);
    gw_ram_close(&m.ram);
    m.ram = mine;
}

/* Pages beyond the block, with a checksum that is right: encoded for a larger block. */
static void test_pages_outside_the_block(void **state)
{
    uint64_t offsets[] = {RAM_BYTES, (UINT64_C(1) << 62) - GW_PAGE_BYTES};

    (void)state;
    fill_text(0);
    for (unsigned i = 0; i < 4; i++) {
        struct gw_batch_page pages[] = {{0, m.source}, {offsets[i / 2], i % 2 ? NULL : m.source}};
        struct gw_batch_pages in = {"pc.ram", pages, 2, NULL};

        assert_int_equal(gw_batch_encode(m.encoder, &in, &none, m.wire, &m.sent), 0);
        must_be_refused(m.wire, m.sent.wire_bytes, "not that large");
    }
}

/* An offset that would wrap around: 128 pages, each as far from the one before as an entry can say.
 * A LEB128 number of 9 bytes. */
static void test_offsets_do_not_overflow(void **state)
{
    unsigned char body[28 + 6 + 128 * 9] = {0}, *to = body + 34;

    (void)state;
    make_plain_batch();
    memcpy(body, m.wire, 34);
    body[6] = 128;
    for (unsigned i = 0; i < 128; i++, to += 8) {
        memset(to, 0xff, 8);
        to[7] = 0x7f;
    }
    body[10] = body[14] = 1024 >> 8;
    body[11] = body[15] = 0;
    must_be_refused(body, 34 + 1024, "offset");
    body[34 + 7] = 0xff;
    must_be_refused(body, 34 + 1024, "offset");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_a_page_is_sent_again),
        TEST(test_without_a_history),
        TEST(test_known_zero_pages),
        TEST(test_rows_of_pages),
        TEST(test_incompressible_pages_keep_the_bound),
        TEST(test_random_rounds),
        TEST(test_arguments_are_checked_first),
        TEST(test_a_page_that_differs_is_seen),
        TEST(test_a_missed_change_is_seen),
        TEST(test_each_damaged_byte_is_seen),
        TEST(test_each_truncation_is_seen),
        TEST(test_what_is_wrong_is_said),
        TEST(test_a_block_that_was_not_offered),
        TEST(test_a_destination_that_ended),
        TEST(test_pages_outside_the_block),
        TEST(test_offsets_do_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
