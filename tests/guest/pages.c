/* SPDX-License-Identifier: Apache-2.0 */
#include "pages.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define STAMP_WORD 2u

/* The finaliser of splitmix64: one bit in, half of the bits out. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint64_t key(const struct gw_layout *layout, uint32_t page, uint32_t generation)
{
    return mix(mix(layout->seed) + ((uint64_t)generation << 32 | page));
}

static uint64_t stamp(const struct gw_layout *layout, uint32_t page, uint32_t generation)
{
    return (uint64_t)generation << 32 | (uint32_t)key(layout, page, generation);
}

static uint64_t header_hash(const struct gw_layout *layout, uint32_t page)
{
    return mix(key(layout, page, 0) + ((uint64_t)layout->n_write_words << 32) +
               layout->n_random_words);
}

/* Any word of a page's sequence at four instructions apiece: a scan recomputes all memory,
 * and every instruction counts under emulation. */
static void put_random(uint64_t *words, uint32_t from, uint32_t to, uint64_t start)
{
    uint64_t x = start + from * 0x9e3779b97f4a7c15ull;

    for (uint32_t i = from; i < to; i++) {
        words[i] = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
        x += 0x9e3779b97f4a7c15ull;
    }
}

static void put_same(uint64_t *words, uint32_t from, uint32_t to, uint64_t value)
{
    for (uint32_t i = from; i < to; i++)
        words[i] = value;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static bool is_zero_page(const struct gw_layout *layout, uint32_t page)
{
    return page >= layout->n_fill_pages;
}

/* Words of the written area within [from, to). */
static void put_written(const struct gw_layout *layout, uint32_t page, uint32_t generation,
                        uint64_t *words, uint32_t from, uint32_t to)
{
    uint64_t sign = stamp(layout, page, generation);
    uint32_t random_end = STAMP_WORD + layout->n_random_words;

    if (from <= STAMP_WORD && to > STAMP_WORD)
        words[STAMP_WORD] = sign;
    from = max_u32(from, STAMP_WORD + 1);
    put_random(words, from, min_u32(to, random_end), key(layout, page, generation));
    put_same(words, max_u32(from, random_end), to, sign);
}

/* Words that never change within [from, to), after the written area. */
static void put_still(const struct gw_layout *layout, uint32_t page, uint64_t *words, uint32_t from,
                      uint32_t to)
{
    uint32_t random_end = is_zero_page(layout, page) ? 0 : STAMP_WORD + layout->n_random_words;

    put_random(words, from, min_u32(to, random_end), key(layout, page, 0));
    put_same(words, max_u32(from, random_end), to, 0);
}

void gw_page_build(const struct gw_layout *layout, uint32_t page, uint32_t generation,
                   uint64_t *words, uint32_t from, uint32_t to)
{
    uint32_t written_end = STAMP_WORD + layout->n_write_words;
    bool zero = is_zero_page(layout, page);

    if (zero && generation % 2 == 0) {
        put_same(words, from, to, 0);
        return;
    }
    if (from == 0)
        words[0] = zero ? 0 : GW_PAGE_MAGIC ^ page;
    if (from <= 1 && to > 1)
        words[1] = zero ? 0 : header_hash(layout, page);
    from = max_u32(from, STAMP_WORD);
    put_written(layout, page, generation, words, from, min_u32(to, written_end));
    put_still(layout, page, words, max_u32(from, written_end), to);
}

const char *gw_bad_kind_name(enum gw_bad_kind kind)
{
    return kind == GW_BAD_LOST ? "lost" : kind == GW_BAD_TORN ? "torn" : "table";
}

static uint64_t *page_words(const struct gw_pages *pages, uint32_t page)
{
    return pages->memory + (size_t)page * GW_PAGE_WORDS;
}

static uint32_t copy_of(const struct gw_layout *layout, uint32_t page, uint32_t generation)
{
    return generation ^ (uint32_t)key(layout, page, UINT32_MAX);
}

uint32_t gw_pages_n_chunks(const struct gw_pages *pages)
{
    return (pages->n_pages + GW_CHUNK_PAGES - 1) / GW_CHUNK_PAGES;
}

static pthread_mutex_t *stripe_of(struct gw_pages *pages, uint32_t page)
{
    return &pages->stripes[page / GW_CHUNK_PAGES % GW_N_STRIPES];
}

static void *map(size_t n_bytes)
{
    void *at = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

static void unmap(void *at, size_t n_bytes)
{
    if (at)
        munmap(at, n_bytes);
}

/* The order of first touch puts the table before the fill and its copy behind it. */
static void fill(struct gw_pages *pages)
{
    for (uint32_t page = 0; page < pages->n_pages; page++) {
        pages->generations[page] = GW_FIRST_GENERATION;
        pages->sums[page / GW_CHUNK_PAGES] += GW_FIRST_GENERATION;
    }
    for (uint32_t page = 0; page < pages->n_pages; page++)
        gw_page_build(&pages->layout, page, GW_FIRST_GENERATION, page_words(pages, page), 0,
                      GW_PAGE_WORDS);
    for (uint32_t page = 0; page < pages->n_pages; page++)
        pages->copies[page] = copy_of(&pages->layout, page, GW_FIRST_GENERATION);
}

int gw_pages_init(struct gw_pages *pages, const struct gw_layout *layout)
{
    *pages = (struct gw_pages){.layout = *layout};
    pages->n_pages = layout->n_fill_pages + layout->n_zero_pages;
    pages->generations = map(pages->n_pages * sizeof(uint32_t));
    pages->memory = map((size_t)pages->n_pages * GW_PAGE_BYTES);
    pages->copies = map(pages->n_pages * sizeof(uint32_t));
    pages->sums = map(gw_pages_n_chunks(pages) * sizeof(uint64_t));
    if (!pages->generations || !pages->memory || !pages->copies || !pages->sums) {
        gw_pages_fini(pages);
        errno = ENOMEM;
        return -1;
    }
    for (uint32_t i = 0; i < GW_N_STRIPES; i++)
        pthread_mutex_init(&pages->stripes[i], NULL);
    fill(pages);
    return 0;
}

void gw_pages_fini(struct gw_pages *pages)
{
    unmap(pages->generations, pages->n_pages * sizeof(uint32_t));
    unmap(pages->memory, (size_t)pages->n_pages * GW_PAGE_BYTES);
    unmap(pages->copies, pages->n_pages * sizeof(uint32_t));
    unmap(pages->sums, gw_pages_n_chunks(pages) * sizeof(uint64_t));
    *pages = (struct gw_pages){0};
}

static bool all_zero(const uint64_t *words)
{
    for (uint32_t i = 0; i < GW_PAGE_WORDS; i++)
        if (words[i])
            return false;
    return true;
}

/* The generation that the page itself claims, if its stamp is sound; the even ones of
 * a zero page leave no trace and are never claimed. */
static bool claimed_generation(const struct gw_layout *layout, uint32_t page, const uint64_t *words,
                               uint32_t *generationp)
{
    *generationp = (uint32_t)(words[STAMP_WORD] >> 32);
    return words[STAMP_WORD] == stamp(layout, page, *generationp);
}

static uint32_t first_difference(const uint64_t *a, const uint64_t *b)
{
    uint32_t i = 0;

    while (i < GW_PAGE_WORDS - 1 && a[i] == b[i])
        i++;
    return i * 8;
}

/* Names what is wrong with a page that is not as `generation` wants it. */
static void classify(const struct gw_layout *layout, uint32_t page, uint32_t generation,
                     const uint64_t *words, struct gw_finding *finding)
{
    uint64_t expected[GW_PAGE_WORDS];
    uint64_t other = words[0] ^ GW_PAGE_MAGIC;
    uint32_t claimed;

    *finding = (struct gw_finding){.page = page, .kind = GW_BAD_TORN, .expected = generation};
    if (all_zero(words)) {
        finding->kind = GW_BAD_LOST;
        snprintf(finding->found, sizeof(finding->found), "zeros");
        return;
    }
    if (claimed_generation(layout, page, words, &claimed) && claimed != generation) {
        gw_page_build(layout, page, claimed, expected, 0, GW_PAGE_WORDS);
        if (!memcmp(expected, words, GW_PAGE_BYTES)) {
            finding->kind = claimed < generation ? GW_BAD_LOST : GW_BAD_TABLE;
            snprintf(finding->found, sizeof(finding->found), "generation:%u", claimed);
            return;
        }
    }
    if (other != page && other < layout->n_fill_pages) {
        snprintf(finding->found, sizeof(finding->found), "page:%u", (unsigned)other);
        return;
    }
    gw_page_build(layout, page, generation, expected, 0, GW_PAGE_WORDS);
    snprintf(finding->found, sizeof(finding->found), "garbage@%u",
             first_difference(expected, words));
}

/* The first and the last word of what a write covers. */
static bool ends_match(const struct gw_layout *layout, uint32_t page, uint32_t generation,
                       const uint64_t *words)
{
    uint64_t expected[GW_PAGE_WORDS];
    uint32_t last = STAMP_WORD + layout->n_write_words - 1;

    gw_page_build(layout, page, generation, expected, STAMP_WORD, STAMP_WORD + 1);
    gw_page_build(layout, page, generation, expected, last, last + 1);
    return expected[STAMP_WORD] == words[STAMP_WORD] && expected[last] == words[last];
}

int gw_pages_write(struct gw_pages *pages, uint32_t page, struct gw_finding *finding)
{
    uint64_t *words = page_words(pages, page);
    int bad = 0;

    pthread_mutex_lock(stripe_of(pages, page));
    uint32_t generation = pages->generations[page];
    if (!ends_match(&pages->layout, page, generation, words)) {
        classify(&pages->layout, page, generation, words, finding);
        bad = 1;
    }
    generation++;
    pages->generations[page] = generation;
    pages->copies[page] = copy_of(&pages->layout, page, generation);
    pages->sums[page / GW_CHUNK_PAGES]++;
    gw_page_build(&pages->layout, page, generation, words, STAMP_WORD,
                  STAMP_WORD + pages->layout.n_write_words);
    /* Inside the lock, so that whoever holds all stripes sees sums and counter agree. */
    __atomic_add_fetch(&pages->n_writes, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(stripe_of(pages, page));
    return bad;
}

int gw_pages_check(struct gw_pages *pages, uint32_t page, struct gw_finding *finding)
{
    uint64_t expected[GW_PAGE_WORDS];
    const uint64_t *words = page_words(pages, page);

    pthread_mutex_lock(stripe_of(pages, page));
    uint32_t generation = pages->generations[page];
    gw_page_build(&pages->layout, page, generation, expected, 0, GW_PAGE_WORDS);
    int bad = memcmp(expected, words, GW_PAGE_BYTES) != 0;
    if (bad)
        classify(&pages->layout, page, generation, words, finding);
    pthread_mutex_unlock(stripe_of(pages, page));
    return bad;
}

static int check_copies(struct gw_pages *pages, uint32_t from, uint32_t to, uint64_t *sump,
                        struct gw_finding *finding)
{
    *sump = 0;
    for (uint32_t page = from; page < to; page++) {
        uint32_t generation = pages->generations[page];
        uint32_t copy = copy_of(&pages->layout, page, pages->copies[page]);

        *sump += generation;
        if (generation == copy)
            continue;
        *finding = (struct gw_finding){.page = page, .kind = GW_BAD_TABLE, .expected = copy};
        snprintf(finding->found, sizeof(finding->found), "table:%u", generation);
        return 1;
    }
    return 0;
}

int gw_pages_check_table(struct gw_pages *pages, uint32_t chunk, struct gw_finding *finding)
{
    uint32_t from = chunk * GW_CHUNK_PAGES;
    uint32_t to = min_u32(from + GW_CHUNK_PAGES, pages->n_pages);
    uint64_t sum;

    pthread_mutex_lock(stripe_of(pages, from));
    int bad = check_copies(pages, from, to, &sum, finding);
    if (!bad && sum != pages->sums[chunk]) {
        *finding = (struct gw_finding){.page = from, .kind = GW_BAD_TABLE, .expected = sum};
        snprintf(finding->found, sizeof(finding->found), "sum:%llu",
                 (unsigned long long)pages->sums[chunk]);
        bad = 1;
    }
    pthread_mutex_unlock(stripe_of(pages, from));
    return bad;
}

int gw_pages_check_total(struct gw_pages *pages, struct gw_finding *finding)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < GW_N_STRIPES; i++)
        pthread_mutex_lock(&pages->stripes[i]);
    for (uint32_t chunk = 0; chunk < gw_pages_n_chunks(pages); chunk++)
        sum += pages->sums[chunk];
    uint64_t n_writes = __atomic_load_n(&pages->n_writes, __ATOMIC_RELAXED);
    for (uint32_t i = GW_N_STRIPES; i-- > 0;)
        pthread_mutex_unlock(&pages->stripes[i]);

    sum -= (uint64_t)pages->n_pages * GW_FIRST_GENERATION;
    if (sum == n_writes)
        return 0;
    *finding = (struct gw_finding){.page = 0, .kind = GW_BAD_TABLE, .expected = sum};
    snprintf(finding->found, sizeof(finding->found), "writes:%llu", (unsigned long long)n_writes);
    return 1;
}

void gw_pages_sabotage(struct gw_pages *pages, uint32_t page, enum gw_bad_kind kind)
{
    uint64_t *words = page_words(pages, page);

    pthread_mutex_lock(stripe_of(pages, page));
    uint32_t generation = pages->generations[page];
    if (kind == GW_BAD_LOST) {
        gw_page_build(&pages->layout, page, generation - 1, words, 0, GW_PAGE_WORDS);
    } else if (kind == GW_BAD_TORN) {
        gw_page_build(&pages->layout, page, generation, words, 0, GW_PAGE_WORDS);
        words[GW_PAGE_WORDS - 1] = ~words[GW_PAGE_WORDS - 1];
    } else {
        uint32_t copy = copy_of(&pages->layout, page, pages->copies[page]);

        pages->generations[page] = copy - 1;
    }
    pthread_mutex_unlock(stripe_of(pages, page));
}
