/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches: up to 128 pages of one RAM block as they travel on a lane.
 *
 * The encoder finds out what the destination lacks (zero, unchanged, changed pieces, whole), puts
 * the literal bytes of all pages together and lets a codec shorten them. Every batch stands for
 * itself, so batches may take any lane and any worker; what the pages of earlier rounds hold is
 * taken from guest RAM. The decoder checks all of a batch, the checksum over the resulting pages
 * included, before it writes the first byte into RAM.
 *
 * The format, version 1, big-endian:
 *
 *      0  be32  magic "GWPB"
 *      4  u8    version
 *      5  u8    codec of the body, struct gw_codec_ops.id
 *      6  u8    number of pages, 1 to 128
 *      7  u8    length of the block's name, 1 to 255
 *      8  be32  bytes of the body as it follows
 *     12  be32  bytes of the body once decoded
 *     16  be64  checksum
 *     24  u8    log2 of the size of a piece, 6 to 9
 *     25  u8[3] zero
 *     28        the block's name, printable ASCII, without a NUL
 *               the body
 *
 * The decoded body is a table with an entry for each page, in ascending order, and after it the
 * literal bytes in the same order. An entry is an unsigned LEB128 number of at most 8 bytes, (d <<
 * 2 | enum gw_page_kind), where d is the number of pages between this one and the one before (the
 * first counts from the begin of the block). After an entry of kind PIECES comes its set of changed
 * pieces, as many bits as a page has pieces, piece 0 being bit 0 of the first byte; it is not
 * empty. A whole page has 4096 literal bytes, pieces have theirs, the others none.
 *
 * The checksum is XXH3-64 with seed 0x47575042 over what the batch means, however it is encoded:
 * the content of each page that is not of kind ZERO (4096 bytes, with PIECES and SAME as they
 * stand in RAM after the batch), then for each page be64 offset and u8 1 if ZERO, 0 if not, then
 * the block's name. A damaged batch passes by chance once in 2^64; it is no protection against
 * forgery, which is the transport's business.
 */
#ifndef GW_FLOW_BATCH_H
#define GW_FLOW_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flow/history.h"
#include "flow/page.h"
#include "flow/ram.h"
#include "godwit/codec.h"
#include "godwit/error.h"

#define GW_BATCH_VERSION      1
#define GW_BATCH_MAX_PAGES    128
#define GW_BATCH_MAX_NAME     255
#define GW_BATCH_HEADER_BYTES 28
/* Of a decoded body with n pages: an entry and a whole page is the most that a page can take. */
#define GW_BATCH_BODY_BOUND(n) ((size_t)(n) * (8 + GW_PAGE_BYTES))
/* Of a batch with n pages. The encoder never makes a longer one, whatever the pages hold. */
#define GW_BATCH_BOUND(n) (GW_BATCH_HEADER_BYTES + GW_BATCH_MAX_NAME + GW_BATCH_BODY_BOUND(n))

/* How the pages of a batch are treated. */
struct gw_batch_setting {
    uint8_t codec; /* struct gw_codec_ops.id */
    int level;     /* legal for that codec */
    bool delta;    /* compare with the history; without it the pages are forgotten there */
};

struct gw_batch_page {
    uint64_t offset;              /* in the RAM block; a multiple of GW_PAGE_BYTES, below 2^62 */
    const unsigned char *content; /* GW_PAGE_BYTES; NULL: known to be zero */
};

struct gw_batch_pages {
    const char *block; /* name of the RAM block: 1 to 255 bytes of printable ASCII */
    const struct gw_batch_page *pages; /* each offset once, in any order */
    unsigned n_pages;                  /* 1 to GW_BATCH_MAX_PAGES */
    struct gw_history *history;        /* of that block, which has these offsets; may be NULL */
};

/* What became of it, in pages and bytes. */
struct gw_batch_figures {
    unsigned n_whole, n_pieces, n_zero, n_same;
    size_t content_bytes; /* of pages that are not zero: GW_PAGE_BYTES each */
    size_t literal_bytes; /* of those, what the destination lacks */
    size_t wire_bytes;    /* the whole batch */
    uint8_t codec;        /* of the body: none where the one asked for did not gain */
};

/* One worker's; not shared. Has its own codec contexts and 0.5 MiB beside them. */
struct gw_batch_encoder;

/* 0, or -ENOMEM. All memory that encoding needs is taken here. */
int gw_batch_encoder_new(struct gw_batch_encoder **encoderp);
/* NULL is fine. */
void gw_batch_encoder_free(struct gw_batch_encoder *encoder);

/*
 * Encodes a batch into out, which has room for GW_BATCH_BOUND(pages->n_pages). Contents must not
 * change during the call. 0, *figures is filled; or -EINVAL for arguments against the rules above,
 * and then the history is as it was. There is no other failure. After 0 the batch must reach the
 * destination, or its pages be forgotten (gw_history_forget()).
 *
 * The history is the source's, so on how a page may pass from one worker to another see there.
 */
int gw_batch_encode(struct gw_batch_encoder *encoder, const struct gw_batch_pages *pages,
                    const struct gw_batch_setting *setting, unsigned char *out,
                    struct gw_batch_figures *figures);

/* One thread's; not shared. Has its own codec contexts and 1 MiB beside them. */
struct gw_batch_decoder;

/* 0, or -ENOMEM. All memory that decoding needs is taken here. */
int gw_batch_decoder_new(struct gw_batch_decoder **decoderp);
/* NULL is fine. */
void gw_batch_decoder_free(struct gw_batch_decoder *decoder);

/*
 * Takes the bytes of exactly one batch from a peer and writes its pages. 0; or -1 with *error:
 * GW_E_PROTOCOL, GW_E_UNSUPPORTED for a version or a codec that is not ours, and then guest RAM is
 * untouched; GW_E_SYSTEM if that cannot be reached. figures may be NULL.
 *
 * During the call nobody else may write to these pages, and the pages must hold what was last sent
 * of them: what was sent before them in an earlier round has been applied. Batches of one round
 * have no page in common, and may be decoded side by side.
 */
int gw_batch_decode(struct gw_batch_decoder *decoder, const unsigned char *bytes, size_t n_bytes,
                    const struct gw_ram *ram, struct gw_batch_figures *figures,
                    struct gw_error *error);

#endif
