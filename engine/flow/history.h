/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the source remembers of the pages of one RAM block as they were last sent, so that a page
 * which is sent again costs what changed in it.
 *
 * Each page is cut into pieces, and of each piece a 64-bit hash is kept (XXH3 with a secret that is
 * drawn anew for each migration). Pieces whose hash is still the same are not sent. The destination
 * has the last content in guest RAM and writes the changed pieces into it.
 *
 * Memory. Eight bytes a piece and one byte a page: of a page 12.5 % with pieces of 64 bytes, 6.3 %
 * with 128, 3.1 % with 256, 1.6 % with 512. The smallest piece that the limit allows is taken; with
 * a limit below 1.6 % nothing is remembered. Address space for all is taken at once, but the kernel
 * gives memory to it when it is first written, in steps of 2 MiB where it has huge pages, so
 * ranges that were only ever zero cost one byte a page.
 *
 * A change can be missed if the old and the new content of a piece have the same hash. For two
 * given contents of up to 128 bytes that is at most 2^-61 (eight products of XXH3, each blind to
 * half of its input with 2^-64; this is an estimate for a hash without a proof), for 10^9 changed
 * pieces 4 * 10^-10 in a migration: too much to rely on. Therefore each batch carries a checksum
 * over the whole content of its pages, unchanged pieces included, which the destination compares
 * before it writes (flow/batch.h). A missed change ends the migration cleanly instead of damaging
 * the guest, unless that second, independent hash of 64 bits agrees by chance, too: 4 * 10^-10 *
 * 2^-64, or 2 * 10^-29 in a migration with 10^9 changed pieces.
 *
 * Threads. Several workers share a history, without a lock. The contract: no page is with two
 * workers at the same time, and what one worker did to a page happens-before what the next one does
 * to it. The carrier has both for free, as within a round a page appears at most once, and between
 * rounds all workers meet in a barrier. Different pages never share a memory location.
 *
 * What gw_history_compare() returned must reach the destination before anything else about that
 * page does. If it may not have, forget the page.
 */
#ifndef GW_FLOW_HISTORY_H
#define GW_FLOW_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "flow/page.h"

#define GW_HISTORY_SECRET_BYTES 192
#define GW_PIECE_MIN_BYTES      64
#define GW_PIECE_MAX_BYTES      512

struct gw_history_options {
    uint64_t n_pages;     /* of the RAM block */
    uint64_t limit_bytes; /* of memory for the history */
    /* From getrandom(), drawn for this migration; the blocks of one migration may share it. */
    unsigned char secret[GW_HISTORY_SECRET_BYTES];
};

/* What has to be sent of a page. The numbers stand on the wire. */
enum gw_page_kind {
    GW_PAGE_WHOLE = 0,  /* all of it */
    GW_PAGE_PIECES = 1, /* the pieces that changed */
    GW_PAGE_ZERO = 2,   /* that it is zero */
    GW_PAGE_SAME = 3,   /* nothing: it is what was last sent */
};

struct gw_history;

/* 0 and *historyp; -ENOSPC: limit_bytes is too small for any piece, go on without one; -EINVAL: no
 * pages, or more than 2^40; or the errno of mmap(). */
int gw_history_new(const struct gw_history_options *options, struct gw_history **historyp);

/* NULL is fine. */
void gw_history_free(struct gw_history *history);

/* The size of a piece: 64, 128, 256 or 512. */
unsigned gw_history_piece_bytes(const struct gw_history *history);

/* Address space taken; never above limit_bytes. */
uint64_t gw_history_bytes(const struct gw_history *history);

/*
 * Compares a page with what was last sent of it, and remembers it as sent now. page_no is below
 * n_pages; page has GW_PAGE_BYTES that do not change during the call. With GW_PAGE_PIECES bit i of
 * *changedp stands for piece i, and at least one is set; otherwise *changedp is undefined.
 */
enum gw_page_kind gw_history_compare(struct gw_history *history, uint64_t page_no,
                                     const unsigned char *page, uint64_t *changedp);

/* The page is sent as zero. */
void gw_history_zero(struct gw_history *history, uint64_t page_no);

/* The page is sent by somebody else, or may not have arrived: next time all of it is sent. */
void gw_history_forget(struct gw_history *history, uint64_t page_no);

#endif
