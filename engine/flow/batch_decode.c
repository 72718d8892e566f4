/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three passes over a batch: the table is parsed, all pages are made what they will be, aside, and
 * the checksum is computed over them; only then is RAM written.
 */
#include "flow/batch_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/cleanup.h"

enum { MAX_CODECS = 8, ENTRY_MAX_BYTES = 8 };

/* One page of the batch that is being decoded. */
struct entry {
    uint64_t offset;
    enum gw_page_kind kind;
    uint64_t changed;              /* kind PIECES: the set of pieces */
    const unsigned char *literals; /* in the body */
    const unsigned char *content;  /* the page as it will be; NULL: zero */
};

struct gw_batch_decoder {
    struct gw_codec *codecs[MAX_CODECS]; /* in the order of gw_codecs[]; NULL: no more */
    XXH3_state_t hash;
    /* Of the batch that is being decoded. */
    struct gw_batch_header header; /* in host byte order */
    char name[GW_BATCH_MAX_NAME + 1];
    const struct gw_ram_block *block;
    struct entry entries[GW_BATCH_MAX_PAGES];
    unsigned char body[GW_BATCH_BODY_BOUND(GW_BATCH_MAX_PAGES)];
    unsigned char old[GW_BATCH_MAX_PAGES * GW_PAGE_BYTES]; /* of which pieces change, or nothing */
};

_Static_assert(GW_BATCH_MAX_PAGES <= GW_RAM_PARTS_MAX, "each page may be a part");

/* What is left to read. */
struct cursor {
    const unsigned char *at;
    size_t n;
};

int gw_batch_decoder_new(struct gw_batch_decoder **decoderp)
{
    /* The hash state wants more alignment than malloc() gives. */
    size_t bytes = (sizeof(struct gw_batch_decoder) + 63) / 64 * 64;
    struct gw_batch_decoder *decoder = aligned_alloc(64, bytes);

    if (!decoder)
        return -ENOMEM;
    memset(decoder, 0, sizeof *decoder);
    for (size_t i = 0; gw_codecs[i] && i < MAX_CODECS; i++)
        if (gw_codecs[i]->open(GW_CODEC_DECODE, sizeof decoder->body, &decoder->codecs[i]) < 0) {
            gw_batch_decoder_free(decoder);
            return -ENOMEM;
        }
    *decoderp = decoder;
    return 0;
}

void gw_batch_decoder_free(struct gw_batch_decoder *decoder)
{
    if (!decoder)
        return;
    for (size_t i = 0; i < MAX_CODECS && decoder->codecs[i]; i++)
        decoder->codecs[i]->ops->close(decoder->codecs[i]);
    free(decoder);
}

static int bad(struct gw_error *error, const char *what)
{
    gw_error_set(error, GW_E_PROTOCOL, "a batch of pages from the peer is malformed: %s", what);
    return gw_error_hint(error, "the stream was damaged on its way, or the peer is not Godwit");
}

static int take_header(struct gw_batch_decoder *d, struct cursor *in, struct gw_error *error)
{
    struct gw_batch_header *h = &d->header;

    if (in->n < sizeof *h)
        return bad(error, "it is shorter than a header");
    memcpy(h, in->at, sizeof *h);
    in->at += sizeof *h;
    in->n -= sizeof *h;
    h->magic = be32toh(h->magic);
    h->wire_body_bytes = be32toh(h->wire_body_bytes);
    h->body_bytes = be32toh(h->body_bytes);
    h->checksum = be64toh(h->checksum);
    if (h->magic != GW_BATCH_MAGIC)
        return bad(error, "it does not begin like one");
    if (h->version != GW_BATCH_VERSION) {
        gw_error_set(error, GW_E_UNSUPPORTED, "the peer sends pages in format %u, we know %d",
                     h->version, GW_BATCH_VERSION);
        return gw_error_hint(error, "run the same version of Godwit on both nodes");
    }
    if (h->n_pages == 0 || h->n_pages > GW_BATCH_MAX_PAGES)
        return bad(error, "the number of pages is out of range");
    if (h->piece_shift < 6 || h->piece_shift > 9)
        return bad(error, "the size of pieces is out of range");
    if (h->zero[0] || h->zero[1] || h->zero[2])
        return bad(error, "reserved bytes are not zero");
    return 0;
}

static int take_name(struct gw_batch_decoder *d, struct cursor *in, const struct gw_ram *ram,
                     struct gw_error *error)
{
    size_t n = d->header.n_name;

    if (n == 0 || n > in->n)
        return bad(error, "the name of the RAM block is missing");
    memcpy(d->name, in->at, n);
    d->name[n] = '\0';
    in->at += n;
    in->n -= n;
    if (!gw_batch_name_ok(d->name, n))
        return bad(error, "the name of the RAM block has characters that none has");
    d->block = gw_ram_find(ram, d->name);
    if (!d->block || !d->block->writable) {
        gw_error_set(error, GW_E_PROTOCOL,
                     "the peer sends pages of RAM block '%s', which is none that this node offered",
                     d->name);
        return gw_error_hint(error, "both QEMUs must have been started with the same machine");
    }
    return 0;
}

/* Makes *body what the header says it is. */
static int take_body(struct gw_batch_decoder *d, const struct cursor *in, struct cursor *body,
                     struct gw_error *error)
{
    const struct gw_batch_header *h = &d->header;
    struct gw_codec_out out = {.data = d->body, .room = h->body_bytes};
    struct gw_codec *codec = NULL;

    if (h->wire_body_bytes != in->n || in->n == 0)
        return bad(error, "the length is not what the header says");
    if (h->body_bytes < h->n_pages || h->body_bytes > GW_BATCH_BODY_BOUND(h->n_pages))
        return bad(error, "the decoded length is out of range");
    for (size_t i = 0; i < MAX_CODECS && d->codecs[i]; i++)
        if (d->codecs[i]->ops->id == h->codec)
            codec = d->codecs[i];
    if (!codec) {
        gw_error_set(error, GW_E_UNSUPPORTED, "the peer uses codec %u, which is not ours",
                     h->codec);
        return gw_error_hint(error, "run the same version of Godwit on both nodes");
    }
    if (codec->ops == &gw_codec_none) {
        *body = *in;
        return in->n == h->body_bytes ? 0 : bad(error, "the two lengths differ without a codec");
    }
    if (codec->ops->decode(codec, &(struct gw_codec_in){in->at, in->n}, &out) != 0)
        return bad(error, "the codec does not understand it");
    *body = (struct cursor){d->body, h->body_bytes};
    return 0;
}

static int take_number(struct cursor *in, uint64_t *numberp)
{
    uint64_t number = 0;

    for (unsigned i = 0; i < ENTRY_MAX_BYTES && i < in->n; i++) {
        number |= (uint64_t)(in->at[i] & 0x7f) << (7 * i);
        if (in->at[i] & 0x80)
            continue;
        in->at += i + 1;
        in->n -= i + 1;
        *numberp = number;
        return 0;
    }
    return -1;
}

static int take_set(struct cursor *in, unsigned piece_shift, uint64_t *setp)
{
    size_t n = (GW_PAGE_BYTES >> piece_shift) / 8;
    uint64_t set = 0;

    if (in->n < n)
        return -1;
    memcpy(&set, in->at, n);
    in->at += n;
    in->n -= n;
    *setp = le64toh(set);
    return *setp ? 0 : -1;
}

static size_t literal_bytes(const struct gw_batch_decoder *d, const struct entry *entry)
{
    switch (entry->kind) {
    case GW_PAGE_WHOLE: return GW_PAGE_BYTES;
    case GW_PAGE_PIECES:
        return (size_t)__builtin_popcountll(entry->changed) << d->header.piece_shift;
    case GW_PAGE_ZERO:
    case GW_PAGE_SAME: break;
    }
    return 0;
}

/* Offsets ascend, so no two entries can be the same page. */
static int take_table(struct gw_batch_decoder *d, struct cursor *in, struct gw_error *error)
{
    uint64_t next = 0, number;

    for (unsigned i = 0; i < d->header.n_pages; i++) {
        struct entry *entry = &d->entries[i];

        *entry = (struct entry){0};
        if (take_number(in, &number) < 0 || (number >> 2) >= GW_BATCH_PAGE_NO_END - next)
            return bad(error, "an offset is out of range");
        entry->kind = (enum gw_page_kind)(number & 3);
        entry->offset = (next + (number >> 2)) * GW_PAGE_BYTES;
        next += (number >> 2) + 1;
        if (entry->kind == GW_PAGE_PIECES &&
            take_set(in, d->header.piece_shift, &entry->changed) < 0)
            return bad(error, "a set of pieces is empty or cut off");
    }
    return 0;
}

static int take_literals(struct gw_batch_decoder *d, struct cursor *in, struct gw_error *error)
{
    for (unsigned i = 0; i < d->header.n_pages; i++) {
        struct entry *entry = &d->entries[i];
        size_t n = literal_bytes(d, entry);

        if (n > in->n)
            return bad(error, "the content of a page is cut off");
        entry->literals = in->at;
        in->at += n;
        in->n -= n;
    }
    return in->n == 0 ? 0 : bad(error, "there is more in it than its pages");
}

static int check_offsets(const struct gw_batch_decoder *d, struct gw_error *error)
{
    for (unsigned i = 0; i < d->header.n_pages; i++)
        if (!gw_ram_holds(d->block, d->entries[i].offset, GW_PAGE_BYTES))
            return gw_error_set(error, GW_E_PROTOCOL,
                                "the peer sends a page at 0x%" PRIx64
                                " of RAM block '%s', which is not that large",
                                d->entries[i].offset, d->name);
    return 0;
}

static int read_old(struct gw_batch_decoder *d, const struct gw_ram *ram, struct gw_error *error)
{
    struct gw_ram_parts parts = {.n = 0};

    for (unsigned i = 0; i < d->header.n_pages; i++) {
        const struct entry *entry = &d->entries[i];

        if (entry->kind == GW_PAGE_PIECES || entry->kind == GW_PAGE_SAME)
            gw_ram_add_part(&parts, entry->offset, d->old + (size_t)i * GW_PAGE_BYTES,
                            GW_PAGE_BYTES);
    }
    return gw_ram_read(ram, d->block, &parts, error);
}

static void put_pieces(unsigned char *page, const struct entry *entry, unsigned shift)
{
    const unsigned char *literals = entry->literals;

    for (uint64_t set = entry->changed; set; set &= set - 1) {
        unsigned piece = (unsigned)__builtin_ctzll(set);

        memcpy(page + ((size_t)piece << shift), literals, (size_t)1 << shift);
        literals += (size_t)1 << shift;
    }
}

static void make_pages(struct gw_batch_decoder *d)
{
    for (unsigned i = 0; i < d->header.n_pages; i++) {
        struct entry *entry = &d->entries[i];
        unsigned char *old = d->old + (size_t)i * GW_PAGE_BYTES;

        switch (entry->kind) {
        case GW_PAGE_WHOLE: entry->content = entry->literals; break;
        case GW_PAGE_PIECES: put_pieces(old, entry, d->header.piece_shift); /* fall through */
        case GW_PAGE_SAME: entry->content = old; break;
        case GW_PAGE_ZERO: entry->content = NULL; break;
        }
    }
}

static uint64_t checksum(struct gw_batch_decoder *d)
{
    XXH3_state_t *hash = &d->hash;

    XXH3_64bits_reset_withSeed(hash, GW_BATCH_MAGIC);
    for (unsigned i = 0; i < d->header.n_pages; i++)
        if (d->entries[i].content)
            XXH3_64bits_update(hash, d->entries[i].content, GW_PAGE_BYTES);
    for (unsigned i = 0; i < d->header.n_pages; i++)
        gw_batch_hash_entry(hash, d->entries[i].offset, d->entries[i].kind);
    XXH3_64bits_update(hash, d->name, d->header.n_name);
    return XXH3_64bits_digest(hash);
}

static int write_content(const struct gw_batch_decoder *d, const struct gw_ram *ram,
                         struct gw_error *error)
{
    struct gw_ram_parts parts = {.n = 0};

    for (unsigned i = 0; i < d->header.n_pages; i++) {
        const struct entry *entry = &d->entries[i];

        if (entry->kind == GW_PAGE_WHOLE || entry->kind == GW_PAGE_PIECES)
            gw_ram_add_part(&parts, entry->offset, (void *)entry->content, GW_PAGE_BYTES);
    }
    return gw_ram_write(ram, d->block, &parts, error);
}

/* In rows, which are cheaper to look at. */
static int write_zeros(const struct gw_batch_decoder *d, const struct gw_ram *ram,
                       struct gw_error *error)
{
    const struct entry *entry = d->entries, *end = entry + d->header.n_pages;

    for (unsigned n; entry < end; entry += n) {
        for (n = 1; entry + n < end && entry[n].kind == entry->kind &&
                    entry[n].offset == entry->offset + (uint64_t)n * GW_PAGE_BYTES;
             n++)
            ;
        if (entry->kind == GW_PAGE_ZERO &&
            gw_ram_zero(ram, d->block, entry->offset, (size_t)n * GW_PAGE_BYTES, error) < 0)
            return -1;
    }
    return 0;
}

static void count(const struct gw_batch_decoder *d, size_t n_bytes,
                  struct gw_batch_figures *figures)
{
    *figures = (struct gw_batch_figures){.wire_bytes = n_bytes, .codec = d->header.codec};
    for (unsigned i = 0; i < d->header.n_pages; i++) {
        const struct entry *entry = &d->entries[i];

        figures->n_whole += entry->kind == GW_PAGE_WHOLE;
        figures->n_pieces += entry->kind == GW_PAGE_PIECES;
        figures->n_zero += entry->kind == GW_PAGE_ZERO;
        figures->n_same += entry->kind == GW_PAGE_SAME;
        figures->literal_bytes += literal_bytes(d, entry);
        figures->content_bytes += entry->kind == GW_PAGE_ZERO ? 0 : GW_PAGE_BYTES;
    }
}

int gw_batch_decode(struct gw_batch_decoder *d, const unsigned char *bytes, size_t n_bytes,
                    const struct gw_ram *ram, struct gw_batch_figures *figures,
                    struct gw_error *error)
{
    struct cursor in = {bytes, n_bytes}, body = {0};

    if (take_header(d, &in, error) < 0 || take_name(d, &in, ram, error) < 0 ||
        take_body(d, &in, &body, error) < 0 || take_table(d, &body, error) < 0 ||
        take_literals(d, &body, error) < 0 || check_offsets(d, error) < 0 ||
        read_old(d, ram, error) < 0)
        return -1;
    make_pages(d);
    if (checksum(d) != d->header.checksum) {
        gw_error_set(error, GW_E_PROTOCOL,
                     "%u pages of RAM block '%s' from 0x%" PRIx64
                     " on would not be what they are at the source: checksums differ",
                     d->header.n_pages, d->name, d->entries[0].offset);
        return gw_error_hint(error,
                             "nothing of them was written; look for a damaged link or memory");
    }
    if (write_content(d, ram, error) < 0 || write_zeros(d, ram, error) < 0)
        return -1;
    if (figures)
        count(d, n_bytes, figures);
    return 0;
}
