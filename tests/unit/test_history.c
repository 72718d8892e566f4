/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "flow/history.h"
#include "util/cleanup.h"

static uint64_t roll(uint64_t *dice)
{
    *dice = *dice * 6364136223846793005u + 1442695040888963407u;
    return *dice >> 20;
}

static struct gw_history *make(uint64_t n_pages, double share)
{
    struct gw_history_options options = {.n_pages = n_pages};
    struct gw_history *h = NULL;

    options.limit_bytes = (uint64_t)((double)(n_pages * GW_PAGE_BYTES) * share);
    memset(options.secret, 0x37, sizeof options.secret);
    for (unsigned i = 0; i < sizeof options.secret; i++)
        options.secret[i] = (unsigned char)(i * 73 + 11);
    assert_int_equal(gw_history_new(&options, &h), 0);
    assert_true(gw_history_bytes(h) <= options.limit_bytes);
    return h;
}

static void fill(unsigned char *page, uint64_t seed)
{
    for (unsigned i = 0; i < GW_PAGE_BYTES; i += 8) {
        uint64_t word = roll(&seed);

        memcpy(page + i, &word, 8);
    }
}

static void test_the_limit_decides_the_piece(void **state)
{
    static const struct {
        double share;
        unsigned piece_bytes;
    } cases[] = {{0.13, 64}, {0.08, 128}, {0.063, 128}, {0.04, 256}, {0.016, 512}};
    struct gw_history_options options = {.n_pages = 1000};
    struct gw_history *h = NULL;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        h = make(1000, cases[i].share);
        assert_int_equal(gw_history_piece_bytes(h), cases[i].piece_bytes);
        gw_history_free(h);
    }
    options.limit_bytes = 1000 * GW_PAGE_BYTES / 100; /* 1 % is too little for any */
    assert_int_equal(gw_history_new(&options, &h), -ENOSPC);
    options = (struct gw_history_options){.n_pages = 0, .limit_bytes = 1 << 20};
    assert_int_equal(gw_history_new(&options, &h), -EINVAL);
    options.n_pages = (UINT64_C(1) << 40) + 1;
    options.limit_bytes = UINT64_MAX;
    assert_int_equal(gw_history_new(&options, &h), -EINVAL);
    gw_history_free(NULL);
}

static void test_a_page_goes_through_its_life(void **state)
{
    static unsigned char page[GW_PAGE_BYTES], zero[GW_PAGE_BYTES];
    struct gw_history *h = make(4, 0.08);
    uint64_t changed = 0;

    (void)state;
    fill(page, 1);
    assert_int_equal(gw_history_compare(h, 2, page, &changed), GW_PAGE_WHOLE);
    assert_int_equal(gw_history_compare(h, 2, page, &changed), GW_PAGE_SAME);
    page[5 * 128]++;
    page[31 * 128 + 127]++;
    assert_int_equal(gw_history_compare(h, 2, page, &changed), GW_PAGE_PIECES);
    assert_int_equal(changed, 1u << 5 | 1u << 31);
    assert_int_equal(gw_history_compare(h, 2, page, &changed), GW_PAGE_SAME);

    /* zero, and back: what is zero still need not be sent */
    assert_int_equal(gw_history_compare(h, 2, zero, &changed), GW_PAGE_ZERO);
    memset(page, 0, sizeof page);
    page[7 * 128 + 3] = 1;
    assert_int_equal(gw_history_compare(h, 2, page, &changed), GW_PAGE_PIECES);
    assert_int_equal(changed, 1u << 7);
    gw_history_zero(h, 2);
    assert_int_equal(gw_history_compare(h, 2, page, &changed), GW_PAGE_PIECES);
    assert_int_equal(changed, 1u << 7);

    /* everything changed, or nothing known: whole */
    fill(page, 2);
    assert_int_equal(gw_history_compare(h, 2, page, &changed), GW_PAGE_WHOLE);
    gw_history_forget(h, 2);
    assert_int_equal(gw_history_compare(h, 2, page, &changed), GW_PAGE_WHOLE);

    /* its neighbours know nothing of all that */
    assert_int_equal(gw_history_compare(h, 1, page, &changed), GW_PAGE_WHOLE);
    assert_int_equal(gw_history_compare(h, 3, page, &changed), GW_PAGE_WHOLE);
    gw_history_free(h);
}

/* Against an exact comparison: each single changed bit is seen, in its piece and in no other. */
static void each_change_is_seen(double share)
{
    struct gw_history *h = make(1, share);
    unsigned piece_bytes = gw_history_piece_bytes(h);
    static unsigned char page[GW_PAGE_BYTES];
    uint64_t changed = 0;

    fill(page, piece_bytes);
    gw_history_compare(h, 0, page, &changed);
    for (unsigned bit = 0; bit < GW_PAGE_BYTES * 8; bit++) {
        page[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_int_equal(gw_history_compare(h, 0, page, &changed), GW_PAGE_PIECES);
        assert_true(changed == UINT64_C(1) << bit / 8 / piece_bytes);
    }
    gw_history_free(h);
}

static void test_each_change_is_seen(void **state)
{
    (void)state;
    each_change_is_seen(0.13);
    each_change_is_seen(0.08);
    each_change_is_seen(0.04);
    each_change_is_seen(0.02);
}

/* Whoever knows the secret can make a change that is missed: XXH3 multiplies two words, and where
 * the first is the secret's own the second does not count. With another secret it is seen. So the
 * secret must be drawn anew for each migration, and nobody needs to know it. */
static void test_the_secret_counts(void **state)
{
    struct gw_history_options options = {.n_pages = 1, .limit_bytes = 400};
    static unsigned char page[GW_PAGE_BYTES];
    struct gw_history *h[2];
    uint64_t changed = 0;

    (void)state;
    fill(page, 3);
    for (unsigned i = 0; i < 2; i++) {
        memset(options.secret, 0x11 + (int)i, sizeof options.secret);
        assert_int_equal(gw_history_new(&options, &h[i]), 0);
        memset(page, 0x11, 8);
        gw_history_compare(h[i], 0, page, &changed);
    }
    page[8]++;
    assert_int_equal(gw_history_compare(h[0], 0, page, &changed), GW_PAGE_SAME);
    assert_int_equal(gw_history_compare(h[1], 0, page, &changed), GW_PAGE_PIECES);
    assert_int_equal(changed, 1);
    gw_history_free(h[0]);
    gw_history_free(h[1]);
}

/* ---- workers side by side; for ThreadSanitizer above all ---- */

enum { N_WORKERS = 4, N_PAGES = 4096, N_ROUNDS = 6 };

static struct {
    struct gw_history *history;
    pthread_barrier_t barrier;
    unsigned char *ram; /* as it is */
    unsigned n_wrong[N_WORKERS];
} crew;

/* In each round a page is another worker's; in odd rounds one byte of it is changed. */
static void *work(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    uint64_t changed = 0;

    for (unsigned round = 0; round < N_ROUNDS; round++) {
        for (unsigned p = 0; p < N_PAGES; p++) {
            unsigned char *page = crew.ram + (size_t)p * GW_PAGE_BYTES;
            unsigned piece = (p + round) % 32;
            enum gw_page_kind kind, expected = round == 0  ? GW_PAGE_WHOLE
                                               : round % 2 ? GW_PAGE_PIECES
                                                           : GW_PAGE_SAME;

            if ((p + round) % N_WORKERS != me)
                continue;
            if (round % 2)
                page[piece * 128 + 9]++;
            kind = gw_history_compare(crew.history, p, page, &changed);
            if (kind != expected || (kind == GW_PAGE_PIECES && changed != UINT64_C(1) << piece))
                crew.n_wrong[me]++;
        }
        pthread_barrier_wait(&crew.barrier);
    }
    return NULL;
}

static void test_workers_share_it(void **state)
{
    pthread_t threads[N_WORKERS];

    (void)state;
    crew.history = make(N_PAGES, 0.08);
    crew.ram = malloc((size_t)N_PAGES * GW_PAGE_BYTES);
    for (unsigned p = 0; p < N_PAGES; p++)
        fill(crew.ram + (size_t)p * GW_PAGE_BYTES, p + 1);
    pthread_barrier_init(&crew.barrier, NULL, N_WORKERS);
    for (uintptr_t i = 0; i < N_WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    for (unsigned i = 0; i < N_WORKERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(crew.n_wrong[i], 0);
    }
    pthread_barrier_destroy(&crew.barrier);
    free(crew.ram);
    gw_history_free(crew.history);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_limit_decides_the_piece),
        cmocka_unit_test(test_a_page_goes_through_its_life),
        cmocka_unit_test(test_each_change_is_seen),
        cmocka_unit_test(test_the_secret_counts),
        cmocka_unit_test(test_workers_share_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
