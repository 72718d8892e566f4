/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches of pages from a peer, for a RAM block of 16 pages whose content is known. What is refused
 * must leave all of it untouched and say why; what is accepted must be encoded to the same again.
 * The first byte says which of two block sizes there is, whether its memory is of no file,
 * and whether some of it is not there. A
 * right checksum is found by the fuzzer as it sees the comparison.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "flow/batch.h"

enum { MAX_PAGES = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct gw_ram ram; /* of this process */
    unsigned n_pages;
    unsigned char *pages, *before;
    struct gw_batch_decoder *decoder;
    struct gw_batch_encoder *encoder;
    unsigned char wire[GW_BATCH_BOUND(GW_BATCH_MAX_PAGES)];
} f;

static void set_up(void)
{
    char line[128];

    f.pages = aligned_alloc(GW_PAGE_BYTES, MAX_PAGES * GW_PAGE_BYTES);
    snprintf(line, sizeof line, "pc.ram 4 KiB 0x0 0x%x 0x%x 0x%lx rw", MAX_PAGES * GW_PAGE_BYTES,
             MAX_PAGES * GW_PAGE_BYTES, (unsigned long)f.pages);
    if (gw_ram_open(&f.ram, getpid(), line, NULL) < 0)
        abort();
    f.before = malloc(MAX_PAGES * GW_PAGE_BYTES);
    if (gw_batch_decoder_new(&f.decoder) < 0 || gw_batch_encoder_new(&f.encoder) < 0)
        abort();
}

static int differ(const struct gw_batch_figures *a, const struct gw_batch_figures *b)
{
    return a->n_whole != b->n_whole || a->n_pieces != b->n_pieces || a->n_zero != b->n_zero ||
           a->n_same != b->n_same || a->content_bytes != b->content_bytes ||
           a->literal_bytes != b->literal_bytes || a->wire_bytes != b->wire_bytes ||
           a->codec != b->codec;
}

/* All pages as they are now go through a batch into RAM that was emptied. */
static void round_trip(void)
{
    struct gw_batch_page pages[MAX_PAGES];
    struct gw_batch_pages in = {"pc.ram", pages, f.n_pages, NULL};
    struct gw_batch_figures sent, received;

    memcpy(f.before, f.pages, MAX_PAGES * GW_PAGE_BYTES);
    for (unsigned i = 0; i < f.n_pages; i++)
        pages[i] = (struct gw_batch_page){i * GW_PAGE_BYTES, f.before + i * GW_PAGE_BYTES};
    memset(f.pages, 0x77, f.n_pages * GW_PAGE_BYTES);
    if (gw_batch_encode(f.encoder, &in, &(struct gw_batch_setting){1, -5, false}, f.wire, &sent) ||
        gw_batch_decode(f.decoder, f.wire, sent.wire_bytes, &f.ram, &received, NULL) ||
        differ(&sent, &received) || memcmp(f.before, f.pages, MAX_PAGES * GW_PAGE_BYTES))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_batch_figures figures;
    struct gw_error error = {0};

    if (!f.decoder)
        set_up();
    if (size < 1)
        return 0;
    f.n_pages = data[0] & 1 ? MAX_PAGES : MAX_PAGES - 1;
    f.ram.block[0].n_bytes = f.n_pages * GW_PAGE_BYTES;
    f.ram.block[0].anonymous = data[0] & 2;
    for (unsigned i = 0; i < MAX_PAGES * GW_PAGE_BYTES; i++)
        f.pages[i] = (unsigned char)(i / GW_PAGE_BYTES % 4 ? i / 256 : 0);
    if (data[0] & 4) { /* zero, too, and not there */
        memset(f.pages + 4 * GW_PAGE_BYTES, 0, 4 * GW_PAGE_BYTES);
        madvise(f.pages + 4 * GW_PAGE_BYTES, 4 * GW_PAGE_BYTES, MADV_DONTNEED);
    }
    memcpy(f.before, f.pages, MAX_PAGES * GW_PAGE_BYTES);
    if (gw_batch_decode(f.decoder, data + 1, size - 1, &f.ram, &figures, &error) == 0) {
        if (f.n_pages < MAX_PAGES && memcmp(f.pages + f.n_pages * GW_PAGE_BYTES,
                                            f.before + f.n_pages * GW_PAGE_BYTES, GW_PAGE_BYTES))
            abort();
        round_trip();
        return 0;
    }
    if (error.code == GW_OK || !error.msg[0] ||
        memcmp(f.before, f.pages, MAX_PAGES * GW_PAGE_BYTES))
        abort();
    return 0;
}
