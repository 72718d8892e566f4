/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/batch_format.h"

#include <errno.h>
#include <stdlib.h>

#include "util/cleanup.h"

enum { MAX_CODECS = 8 };

/* One page of the batch that is being encoded. */
struct entry {
    uint64_t page_no;
    const unsigned char *content;
    enum gw_page_kind kind;
    uint64_t changed; /* kind PIECES: the set of pieces */
};

struct gw_batch_encoder {
    struct gw_codec *codecs[MAX_CODECS]; /* in the order of gw_codecs[]; NULL: no more */
    XXH3_state_t hash;
    /* Of the batch that is being encoded. */
    struct entry entries[GW_BATCH_MAX_PAGES];
    unsigned n_entries;
    unsigned piece_bytes;
    unsigned char body[GW_BATCH_BODY_BOUND(GW_BATCH_MAX_PAGES)];
};

int gw_batch_encoder_new(struct gw_batch_encoder **encoderp)
{
    /* The hash state wants more alignment than malloc() gives. */
    size_t bytes = (sizeof(struct gw_batch_encoder) + 63) / 64 * 64;
    struct gw_batch_encoder *encoder = aligned_alloc(64, bytes);

    if (!encoder)
        return -ENOMEM;
    memset(encoder, 0, sizeof *encoder);
    for (size_t i = 0; gw_codecs[i] && i < MAX_CODECS; i++)
        if (gw_codecs[i]->open(GW_CODEC_ENCODE, sizeof encoder->body, &encoder->codecs[i]) < 0) {
            gw_batch_encoder_free(encoder);
            return -ENOMEM;
        }
    *encoderp = encoder;
    return 0;
}

void gw_batch_encoder_free(struct gw_batch_encoder *encoder)
{
    if (!encoder)
        return;
    for (size_t i = 0; i < MAX_CODECS && encoder->codecs[i]; i++)
        encoder->codecs[i]->ops->close(encoder->codecs[i]);
    free(encoder);
}

static struct gw_codec *codec_for(struct gw_batch_encoder *encoder,
                                  const struct gw_batch_setting *setting)
{
    for (size_t i = 0; i < MAX_CODECS && encoder->codecs[i]; i++) {
        const struct gw_codec_ops *ops = encoder->codecs[i]->ops;

        if (ops->id == setting->codec)
            return setting->level >= ops->level_min && setting->level <= ops->level_max &&
                           (setting->level != 0 || ops->level_max == 0)
                       ? encoder->codecs[i]
                       : NULL;
    }
    return NULL;
}

/* Fills the entries in ascending order. QEMU names pages in one or two ascending runs, for which
 * insertion is quick. */
static int sort_pages(struct entry *entries, const struct gw_batch_pages *in)
{
    for (unsigned n = 0; n < in->n_pages; n++) {
        const struct gw_batch_page *page = &in->pages[n];
        uint64_t page_no = page->offset / GW_PAGE_BYTES;
        unsigned at = n;

        if (page->offset % GW_PAGE_BYTES || page_no >= GW_BATCH_PAGE_NO_END)
            return -EINVAL;
        for (; at > 0 && entries[at - 1].page_no > page_no; at--)
            entries[at] = entries[at - 1];
        entries[at] = (struct entry){.page_no = page_no, .content = page->content};
        if (at > 0 && entries[at - 1].page_no == page_no)
            return -EINVAL;
    }
    return 0;
}

/* What has to be sent of a page, without delta: its history is of no use any more. */
static enum gw_page_kind look(const struct entry *entry, struct gw_history *history)
{
    bool zero = !entry->content || gw_page_is_zero(entry->content);

    if (history && zero)
        gw_history_zero(history, entry->page_no);
    else if (history)
        gw_history_forget(history, entry->page_no);
    return zero ? GW_PAGE_ZERO : GW_PAGE_WHOLE;
}

static void classify(struct entry *entry, struct gw_history *history, bool delta)
{
    if (delta && history && entry->content)
        entry->kind = gw_history_compare(history, entry->page_no, entry->content, &entry->changed);
    else
        entry->kind = look(entry, history);
}

static unsigned char *put_entry(unsigned char *to, uint64_t gap, const struct entry *entry,
                                unsigned piece_bytes)
{
    uint64_t number = gap << 2 | entry->kind;

    for (; number >= 0x80; number >>= 7)
        *to++ = (unsigned char)(number | 0x80);
    *to++ = (unsigned char)number;
    if (entry->kind == GW_PAGE_PIECES) {
        uint64_t set = htole64(entry->changed);

        memcpy(to, &set, GW_PAGE_BYTES / piece_bytes / 8);
        to += GW_PAGE_BYTES / piece_bytes / 8;
    }
    return to;
}

static unsigned char *put_literals(unsigned char *to, const struct entry *entry,
                                   unsigned piece_bytes)
{
    if (entry->kind == GW_PAGE_WHOLE)
        return (unsigned char *)memcpy(to, entry->content, GW_PAGE_BYTES) + GW_PAGE_BYTES;
    if (entry->kind != GW_PAGE_PIECES)
        return to;
    for (uint64_t set = entry->changed; set; set &= set - 1) {
        unsigned piece = (unsigned)__builtin_ctzll(set);

        memcpy(to, entry->content + (size_t)piece * piece_bytes, piece_bytes);
        to += piece_bytes;
    }
    return to;
}

/* Writes table and literals; returns how many bytes that are. */
static size_t put_body(const struct gw_batch_encoder *encoder, unsigned char *body,
                       struct gw_batch_figures *figures)
{
    const struct entry *entries = encoder->entries;
    unsigned char *to = body, *literals;
    uint64_t next = 0;

    for (unsigned i = 0; i < encoder->n_entries; i++) {
        to = put_entry(to, entries[i].page_no - next, &entries[i], encoder->piece_bytes);
        next = entries[i].page_no + 1;
    }
    literals = to;
    for (unsigned i = 0; i < encoder->n_entries; i++)
        to = put_literals(to, &entries[i], encoder->piece_bytes);
    figures->literal_bytes = (size_t)(to - literals);
    return (size_t)(to - body);
}

static uint64_t checksum(struct gw_batch_encoder *encoder, const char *block)
{
    const struct entry *entries = encoder->entries;
    XXH3_state_t *hash = &encoder->hash;

    XXH3_64bits_reset_withSeed(hash, GW_BATCH_MAGIC);
    for (unsigned i = 0; i < encoder->n_entries; i++)
        if (entries[i].kind != GW_PAGE_ZERO)
            XXH3_64bits_update(hash, entries[i].content, GW_PAGE_BYTES);
    for (unsigned i = 0; i < encoder->n_entries; i++)
        gw_batch_hash_entry(hash, entries[i].page_no * GW_PAGE_BYTES, entries[i].kind);
    XXH3_64bits_update(hash, block, strlen(block));
    return XXH3_64bits_digest(hash);
}

static void count(const struct gw_batch_encoder *encoder, struct gw_batch_figures *figures)
{
    unsigned kinds[4] = {0};

    for (unsigned i = 0; i < encoder->n_entries; i++)
        kinds[encoder->entries[i].kind]++;
    *figures = (struct gw_batch_figures){
        .n_whole = kinds[GW_PAGE_WHOLE],
        .n_pieces = kinds[GW_PAGE_PIECES],
        .n_zero = kinds[GW_PAGE_ZERO],
        .n_same = kinds[GW_PAGE_SAME],
        .content_bytes = (size_t)(encoder->n_entries - kinds[GW_PAGE_ZERO]) * GW_PAGE_BYTES,
    };
}

/* Puts the body where it goes and returns its length there; *body_bytesp is the length of what it
 * decodes to. Where there is nothing to shorten it is built in place. */
static size_t pack(struct gw_batch_encoder *encoder, struct gw_codec *codec, int level,
                   unsigned char *to, size_t *body_bytesp, struct gw_batch_figures *figures)
{
    struct gw_codec_out out = {.data = to};
    struct gw_codec_in in = {.data = encoder->body};

    figures->codec = codec->ops->id;
    if (codec->ops == &gw_codec_none)
        return *body_bytesp = put_body(encoder, to, figures);
    in.n = *body_bytesp = put_body(encoder, encoder->body, figures);
    out.room = in.n - 1;
    if (figures->literal_bytes > 0 && codec->ops->encode(codec, level, &in, &out) == 0)
        return out.n;
    figures->codec = gw_codec_none.id;
    memcpy(to, encoder->body, in.n);
    return in.n;
}

int gw_batch_encode(struct gw_batch_encoder *encoder, const struct gw_batch_pages *in,
                    const struct gw_batch_setting *setting, unsigned char *out,
                    struct gw_batch_figures *figures)
{
    struct gw_codec *codec = codec_for(encoder, setting);
    size_t n_name = strlen(in->block), body_bytes, packed;
    struct gw_batch_header header;

    if (!codec || !gw_batch_name_ok(in->block, n_name) || in->n_pages == 0 ||
        in->n_pages > GW_BATCH_MAX_PAGES || sort_pages(encoder->entries, in) < 0)
        return -EINVAL;
    encoder->n_entries = in->n_pages;
    encoder->piece_bytes = in->history ? gw_history_piece_bytes(in->history) : GW_PIECE_MAX_BYTES;
    for (unsigned i = 0; i < in->n_pages; i++)
        classify(&encoder->entries[i], in->history, setting->delta);
    count(encoder, figures);
    packed =
        pack(encoder, codec, setting->level, out + sizeof header + n_name, &body_bytes, figures);
    header = (struct gw_batch_header){
        .magic = htobe32(GW_BATCH_MAGIC),
        .version = GW_BATCH_VERSION,
        .codec = figures->codec,
        .n_pages = (uint8_t)in->n_pages,
        .n_name = (uint8_t)n_name,
        .wire_body_bytes = htobe32((uint32_t)packed),
        .body_bytes = htobe32((uint32_t)body_bytes),
        .checksum = htobe64(checksum(encoder, in->block)),
        .piece_shift = (uint8_t)__builtin_ctz(encoder->piece_bytes),
    };
    memcpy(out, &header, sizeof header);
    memcpy(out + sizeof header, in->block, n_name);
    figures->wire_bytes = sizeof header + n_name + packed;
    return 0;
}
