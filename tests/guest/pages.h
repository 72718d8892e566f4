/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that can tell whether somebody lost or tore a page of it.
 *
 * Every byte of every page is a function of (seed, page number, generation), so that a
 * check recomputes the page and compares all 4096 bytes. The generation of each page is kept
 * in a table apart, so that a page which was rolled back as a whole (a dirty page
 * that did not travel) is found as well: its contents are sound but old.
 *
 * A fill page, in 64-bit words:
 *   0            GW_PAGE_MAGIC ^ page number: finds pages from outside
 *   1            keyed hash of the page number and the layout
 *   2            the stamp: generation << 32 | 32-bit keyed hash of (page, generation)
 *   3..1+n       the rest of what one write covers (n words with the stamp): random
 *                numbers keyed with the generation, then the stamp repeated
 *   ..511        never written again: random numbers keyed with the page, then zeros
 * Random numbers end and the compressible part begins at the same word in either area.
 * With 8-byte writes the stamp alone changes.
 *
 * A zero page is all zeros while its generation is even and has the words 2..1+n
 * of a fill page while it is odd: it was something else a moment ago, which is what whoever
 * skips zero pages gets wrong.
 *
 * The table is memory that migrates, too. It has a copy (keyed with the page number, and
 * first touched after the fill, so that it lies elsewhere), a sum of generations for each 1024
 * pages, and one counter of all writes. They must agree.
 *
 * Locking: functions take the page's stripe lock themselves. Any number of threads may check
 * and write.
 */
#ifndef GW_GUEST_PAGES_H
#define GW_GUEST_PAGES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GW_PAGE_BYTES       4096u
#define GW_PAGE_WORDS       512u
#define GW_PAGE_MAGIC       0x676f64776974f00dull /* "godwit" */
#define GW_CHUNK_PAGES      1024u
#define GW_N_STRIPES        64u
#define GW_FIRST_GENERATION 2u /* even, and one that was before it exists */

struct gw_layout {
    uint64_t seed;
    uint32_t n_fill_pages;   /* pages 0..n_fill_pages-1 */
    uint32_t n_zero_pages;   /* the ones after them */
    uint32_t n_write_words;  /* 1..510 */
    uint32_t n_random_words; /* words 2..1+n_random_words are random; 0..510 */
};

struct gw_pages {
    struct gw_layout layout;
    uint32_t n_pages;                      /* fill and zero */
    uint64_t *memory;                      /* n_pages * GW_PAGE_WORDS */
    uint32_t *generations;                 /* the authority; by page */
    uint32_t *copies;                      /* its keyed copy; by page */
    uint64_t *sums;                        /* of generations, by chunk */
    uint64_t n_writes;                     /* since the fill; atomic */
    pthread_mutex_t stripes[GW_N_STRIPES]; /* by chunk % GW_N_STRIPES */
};

enum gw_bad_kind {
    GW_BAD_LOST = 1, /* sound contents of an older generation, or nothing but zeros */
    GW_BAD_TORN,     /* anything else that does not match */
    GW_BAD_TABLE,    /* the table, its copy, the sums and the counter disagree, or
                      * the page is newer than the table */
};

/* One page that is not as it must be. */
struct gw_finding {
    uint32_t page;
    enum gw_bad_kind kind;
    uint64_t expected; /* generation; for a sum or the counter its value */
    char found[40];    /* "generation:7", "zeros", "page:12", "garbage@OFFSET", … */
};

/* "lost", "torn", "table". */
const char *gw_bad_kind_name(enum gw_bad_kind kind);

/* Words [from, to) of what the page must hold at that generation, into
 * words[from..to). Pure. */
void gw_page_build(const struct gw_layout *layout, uint32_t page, uint32_t generation,
                   uint64_t *words, uint32_t from, uint32_t to);

/* Maps and fills. Returns 0, or -1 with errno (ENOMEM); then nothing is held. */
int gw_pages_init(struct gw_pages *pages, const struct gw_layout *layout);

/* Unmaps. Fine when init failed or fini was called before. */
void gw_pages_fini(struct gw_pages *pages);

/* Takes the page to its next generation, after a look at the first and last word
 * that it overwrites: a rolled-back page would otherwise heal before a scan sees it.
 * Returns 0, or 1 with *finding set; the page is written in either case. */
int gw_pages_write(struct gw_pages *pages, uint32_t page, struct gw_finding *finding);

/* Compares all of one page. Returns 0 when it is good, 1 with *finding set. */
int gw_pages_check(struct gw_pages *pages, uint32_t page, struct gw_finding *finding);

/* Compares table, copy and sum of one chunk (pages chunk * GW_CHUNK_PAGES …), taking
 * its stripe. Returns 0 when they agree, 1 with *finding set. */
int gw_pages_check_table(struct gw_pages *pages, uint32_t chunk, struct gw_finding *finding);

/* Compares the sums with the counter of all writes, all writers held for
 * microseconds. Returns 0 when they agree, 1 with *finding set. */
int gw_pages_check_total(struct gw_pages *pages, struct gw_finding *finding);

uint32_t gw_pages_n_chunks(const struct gw_pages *pages);

/* Does to one page, behind the table's back, what a bad migration would: the
 * proof that a check can fail. Doing it twice is the same as once. */
void gw_pages_sabotage(struct gw_pages *pages, uint32_t page, enum gw_bad_kind kind);

#endif
