/* SPDX-License-Identifier: Apache-2.0 */
/* The checker against memory that was damaged on purpose: each way a migration can
 * lose or tear a page must be found, and named right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "pages.h"

#define N_FILL 2000u
#define N_ZERO 100u

struct fixture {
    struct gw_pages pages;
    struct gw_finding finding;
    uint64_t before[GW_PAGE_WORDS]; /* page 17 before its last write */
};

static struct fixture fixture;

static uint64_t *words(uint32_t page)
{
    return fixture.pages.memory + (size_t)page * GW_PAGE_WORDS;
}

static void write_page(uint32_t page)
{
    assert_int_equal(gw_pages_write(&fixture.pages, page, &fixture.finding), 0);
}

static int make(uint32_t n_write_words, uint32_t n_random_words)
{
    struct gw_layout layout = {.seed = 7,
                               .n_fill_pages = N_FILL,
                               .n_zero_pages = N_ZERO,
                               .n_write_words = n_write_words,
                               .n_random_words = n_random_words};

    if (gw_pages_init(&fixture.pages, &layout))
        return -1;
    for (int i = 0; i < 5; i++) {
        memcpy(fixture.before, words(17), sizeof(fixture.before));
        write_page(17);
    }
    return 0;
}

static int set_up_small(void **state)
{
    (void)state;
    return make(1, 255);
}

static int set_up_large(void **state)
{
    (void)state;
    return make(510, 255);
}

static int tear_down(void **state)
{
    (void)state;
    gw_pages_fini(&fixture.pages);
    gw_pages_fini(&fixture.pages);
    return 0;
}

static uint32_t n_bad(void)
{
    struct gw_pages *pages = &fixture.pages;
    uint32_t n = 0;

    for (uint32_t page = 0; page < pages->n_pages; page++)
        n += (uint32_t)gw_pages_check(pages, page, &fixture.finding);
    for (uint32_t chunk = 0; chunk < gw_pages_n_chunks(pages); chunk++)
        n += (uint32_t)gw_pages_check_table(pages, chunk, &fixture.finding);
    return n + (uint32_t)gw_pages_check_total(pages, &fixture.finding);
}

static void assert_found(uint32_t page, enum gw_bad_kind kind, const char *found)
{
    assert_int_equal(gw_pages_check(&fixture.pages, page, &fixture.finding), 1);
    assert_int_equal(fixture.finding.page, page);
    assert_string_equal(gw_bad_kind_name(fixture.finding.kind), gw_bad_kind_name(kind));
    assert_string_equal(fixture.finding.found, found);
}

static void sound_memory_is_good(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20000; i++)
        write_page(i * 7919 % (N_FILL + N_ZERO));
    assert_int_equal(n_bad(), 0);
    assert_int_equal(fixture.pages.n_writes, 20005);
}

static void small_write_changes_eight_bytes(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < GW_PAGE_WORDS; i++)
        assert_int_equal(fixture.before[i] != words(17)[i], i == 2);
}

static void large_write_changes_all_but_the_header(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < GW_PAGE_WORDS; i++)
        assert_int_equal(fixture.before[i] != words(17)[i], i >= 2);
}

static void rolled_back_page_is_lost(void **state)
{
    (void)state;
    memcpy(words(17), fixture.before, GW_PAGE_BYTES);
    assert_found(17, GW_BAD_LOST, "generation:6");
    assert_int_equal(fixture.finding.expected, 7);
    assert_int_equal(n_bad(), 1);
}

static void rolled_back_page_is_found_by_the_writer(void **state)
{
    (void)state;
    memcpy(words(17), fixture.before, GW_PAGE_BYTES);
    assert_int_equal(gw_pages_write(&fixture.pages, 17, &fixture.finding), 1);
    assert_int_equal(fixture.finding.kind, GW_BAD_LOST);
    assert_int_equal(n_bad(), 0);
}

static void page_that_never_came_is_lost(void **state)
{
    (void)state;
    memset(words(17), 0, GW_PAGE_BYTES);
    assert_found(17, GW_BAD_LOST, "zeros");
}

static void half_a_page_is_torn(void **state)
{
    (void)state;
    memcpy(words(17), fixture.before, GW_PAGE_BYTES / 2);
    assert_found(17, GW_BAD_TORN, "garbage@16");
    write_page(18);
    memcpy(words(18) + 256, words(17) + 256, GW_PAGE_BYTES / 2);
    assert_found(18, GW_BAD_TORN, "garbage@2048");
}

static void any_flipped_bit_is_found(void **state)
{
    (void)state;
    for (uint32_t byte = 0; byte < GW_PAGE_BYTES; byte += 13) {
        uint8_t *at = (uint8_t *)words(17) + byte;

        *at ^= (uint8_t)(1u << byte % 8);
        assert_int_equal(gw_pages_check(&fixture.pages, 17, &fixture.finding), 1);
        *at ^= (uint8_t)(1u << byte % 8);
    }
    assert_int_equal(n_bad(), 0);
}

static void misplaced_page_is_named(void **state)
{
    (void)state;
    memcpy(words(17), words(99), GW_PAGE_BYTES);
    assert_found(17, GW_BAD_TORN, "page:99");
}

static void zero_page_that_kept_its_contents_is_lost(void **state)
{
    uint64_t odd[GW_PAGE_WORDS];

    (void)state;
    write_page(N_FILL + 3);
    memcpy(odd, words(N_FILL + 3), sizeof(odd));
    write_page(N_FILL + 3);
    assert_int_equal(n_bad(), 0);
    memcpy(words(N_FILL + 3), odd, sizeof(odd));
    assert_found(N_FILL + 3, GW_BAD_LOST, "generation:3");
}

static void zero_page_that_missed_its_contents_is_lost(void **state)
{
    (void)state;
    write_page(N_FILL + 3);
    memset(words(N_FILL + 3), 0, GW_PAGE_BYTES);
    assert_found(N_FILL + 3, GW_BAD_LOST, "zeros");
}

/* One page of the table, its copy, the sums, or the counter: each alone is found. */
static void rolled_back_table_is_found(void **state)
{
    struct gw_pages *pages = &fixture.pages;

    (void)state;
    pages->generations[17]--;
    assert_found(17, GW_BAD_TABLE, "generation:7");
    assert_int_equal(gw_pages_check_table(pages, 0, &fixture.finding), 1);
    assert_int_equal(fixture.finding.page, 17);
    pages->generations[17]++;
    pages->copies[1999]++;
    assert_int_equal(gw_pages_check_table(pages, 1, &fixture.finding), 1);
    assert_int_equal(fixture.finding.page, 1999);
    pages->copies[1999]--;
    pages->sums[0]--;
    assert_int_equal(gw_pages_check_table(pages, 0, &fixture.finding), 1);
    assert_int_equal(gw_pages_check_total(pages, &fixture.finding), 1);
    pages->sums[0]++;
    pages->n_writes--;
    assert_int_equal(gw_pages_check_total(pages, &fixture.finding), 1);
    pages->n_writes++;
    assert_int_equal(n_bad(), 0);
}

static void sabotage_is_found_and_idempotent(void **state)
{
    static const enum gw_bad_kind kinds[] = {GW_BAD_LOST, GW_BAD_TORN, GW_BAD_TABLE};

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        gw_pages_sabotage(&fixture.pages, 100 + i, kinds[i]);
        gw_pages_sabotage(&fixture.pages, 100 + i, kinds[i]);
        assert_int_equal(gw_pages_check(&fixture.pages, 100 + i, &fixture.finding), 1);
        assert_int_equal(fixture.finding.kind, kinds[i]);
    }
}

#define SMALL(TEST) cmocka_unit_test_setup_teardown(TEST, set_up_small, tear_down)
#define LARGE(TEST)                                                  \
    {                                                                \
#TEST " (large writes)", TEST, set_up_large, tear_down, NULL \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        SMALL(sound_memory_is_good),
        LARGE(sound_memory_is_good),
        SMALL(small_write_changes_eight_bytes),
        LARGE(large_write_changes_all_but_the_header),
        SMALL(rolled_back_page_is_lost),
        LARGE(rolled_back_page_is_lost),
        SMALL(rolled_back_page_is_found_by_the_writer),
        LARGE(rolled_back_page_is_found_by_the_writer),
        SMALL(page_that_never_came_is_lost),
        LARGE(half_a_page_is_torn),
        SMALL(any_flipped_bit_is_found),
        LARGE(any_flipped_bit_is_found),
        SMALL(misplaced_page_is_named),
        SMALL(zero_page_that_kept_its_contents_is_lost),
        LARGE(zero_page_that_kept_its_contents_is_lost),
        SMALL(zero_page_that_missed_its_contents_is_lost),
        SMALL(rolled_back_table_is_found),
        SMALL(sabotage_is_found_and_idempotent),
    };

    return cmocka_run_group_tests_name("guest pages", tests, NULL, NULL);
}
