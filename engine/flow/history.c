/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/history.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "util/cleanup.h"

/* New memory is zero, so a page begins as unknown. */
enum state { UNKNOWN, ZERO, HASHED };

struct gw_history {
    uint64_t n_pages;
    unsigned piece_bytes;
    unsigned n_pieces;     /* in a page */
    size_t n_mapped;       /* bytes at hashes; the states lie behind the hashes */
    uint64_t *hashes;      /* n_pieces of each page; valid if its state is HASHED */
    unsigned char *states; /* of each page: a byte of its own, as workers write side by side */
    uint64_t zero_piece;   /* the hash of a piece of zeros */
    unsigned char secret[GW_HISTORY_SECRET_BYTES];
};

static uint64_t bytes_needed(uint64_t n_pages, unsigned piece_bytes)
{
    return n_pages * (GW_PAGE_BYTES / piece_bytes * sizeof(uint64_t) + 1);
}

static uint64_t hash_piece(const struct gw_history *h, const unsigned char *piece, size_t bytes)
{
    return XXH3_64bits_withSecret(piece, bytes, h->secret, sizeof h->secret);
}

int gw_history_new(const struct gw_history_options *options, struct gw_history **historyp)
{
    static const unsigned char zeros[GW_PIECE_MAX_BYTES];
    gw_autofree struct gw_history *h = calloc(1, sizeof *h);
    void *mapped;

    if (options->n_pages == 0 || options->n_pages > UINT64_C(1) << 40)
        return -EINVAL;
    if (!h)
        return -ENOMEM;
    h->n_pages = options->n_pages;
    h->piece_bytes = GW_PIECE_MIN_BYTES;
    while (bytes_needed(h->n_pages, h->piece_bytes) > options->limit_bytes)
        if ((h->piece_bytes *= 2) > GW_PIECE_MAX_BYTES)
            return -ENOSPC;
    h->n_pieces = GW_PAGE_BYTES / h->piece_bytes;
    h->n_mapped = bytes_needed(h->n_pages, h->piece_bytes);
    mapped = mmap(NULL, h->n_mapped, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    /* It is filled from end to end: fewer page faults. A kernel without huge pages refuses. */
    madvise(mapped, h->n_mapped, MADV_HUGEPAGE);
    h->hashes = mapped;
    h->states = (unsigned char *)(h->hashes + h->n_pages * h->n_pieces);
    memcpy(h->secret, options->secret, sizeof h->secret);
    h->zero_piece = hash_piece(h, zeros, h->piece_bytes);
    *historyp = gw_steal_ptr(&h);
    return 0;
}

void gw_history_free(struct gw_history *h)
{
    if (!h)
        return;
    munmap(h->hashes, h->n_mapped);
    free(h);
}

unsigned gw_history_piece_bytes(const struct gw_history *h)
{
    return h->piece_bytes;
}

uint64_t gw_history_bytes(const struct gw_history *h)
{
    return h->n_mapped;
}

/* Stores the hashes of a page's pieces and gives the set of those that are not what they were. A
 * constant size lets the compiler make short work of the hash. */
static inline uint64_t renew(struct gw_history *h, uint64_t *old, bool was_zero,
                             const unsigned char *page, unsigned piece_bytes)
{
    uint64_t changed = 0;

    for (unsigned i = 0; i < GW_PAGE_BYTES / piece_bytes; i++) {
        uint64_t hash = hash_piece(h, page + i * piece_bytes, piece_bytes);

        changed |= (uint64_t)(hash != (was_zero ? h->zero_piece : old[i])) << i;
        old[i] = hash;
    }
    return changed;
}

static uint64_t renew_page(struct gw_history *h, uint64_t page_no, const unsigned char *page)
{
    uint64_t *old = h->hashes + page_no * h->n_pieces;
    bool was_zero = h->states[page_no] == ZERO;

    switch (h->piece_bytes) {
    case 64: return renew(h, old, was_zero, page, 64);
    case 128: return renew(h, old, was_zero, page, 128);
    case 256: return renew(h, old, was_zero, page, 256);
    default: return renew(h, old, was_zero, page, 512);
    }
}

enum gw_page_kind gw_history_compare(struct gw_history *h, uint64_t page_no,
                                     const unsigned char *page, uint64_t *changedp)
{
    bool known = h->states[page_no] != UNKNOWN;

    if (gw_page_is_zero(page)) {
        h->states[page_no] = ZERO;
        return GW_PAGE_ZERO;
    }
    *changedp = renew_page(h, page_no, page);
    h->states[page_no] = HASHED;
    if (!known)
        return GW_PAGE_WHOLE;
    if (*changedp == 0)
        return GW_PAGE_SAME;
    return *changedp == UINT64_MAX >> (64 - h->n_pieces) ? GW_PAGE_WHOLE : GW_PAGE_PIECES;
}

void gw_history_zero(struct gw_history *h, uint64_t page_no)
{
    h->states[page_no] = ZERO;
}

void gw_history_forget(struct gw_history *h, uint64_t page_no)
{
    h->states[page_no] = UNKNOWN;
}
