/* SPDX-License-Identifier: Apache-2.0 */
#include "host/tapframes.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "host/answers.h"
#include "util/cleanup.h"

#define ANSWERED_AT_MOST 16 /* frames before the answer that may be what it answers */

/* What a filler carries behind its header. */
static const char filler_text[] = "godwit: fills a place";
_Static_assert(sizeof(struct ether_header) + sizeof filler_text <= ETH_ZLEN, "it fits");

static struct gw_tapframe *from_end(struct gw_tapframes *list, size_t i)
{
    return &list->items[(list->first + list->n - 1 - i) % GW_TAPFRAMES_KEPT];
}

const struct gw_tapframe *gw_tapframes_from_end(const struct gw_tapframes *list, size_t i)
{
    return &list->items[(list->first + list->n - 1 - i) % GW_TAPFRAMES_KEPT];
}

static void drop_oldest(struct gw_tapframes *list)
{
    struct gw_tapframe *oldest = &list->items[list->first];

    list->n_bytes -= oldest->n_bytes;
    free(gw_steal_ptr(&oldest->bytes));
    list->first = (list->first + 1) % GW_TAPFRAMES_KEPT;
    list->n--;
}

struct gw_tapframe *gw_tapframes_add(struct gw_tapframes *list, const uint8_t *bytes,
                                     size_t n_bytes)
{
    uint8_t *copy = malloc(n_bytes + 1);
    struct gw_tapframe *frame;

    if (!copy)
        return NULL;
    if (list->n == GW_TAPFRAMES_KEPT)
        drop_oldest(list);
    memcpy(copy, bytes, n_bytes);
    list->n++;
    list->n_bytes += n_bytes;
    frame = from_end(list, 0);
    *frame = (struct gw_tapframe){.bytes = copy, .n_bytes = n_bytes};
    return frame;
}

void gw_tapframes_free(struct gw_tapframes *list)
{
    while (list && list->n > 0)
        drop_oldest(list);
    free(list);
}

static struct gw_ether_frame ether_of(const uint8_t *bytes, size_t n)
{
    return n > GW_MACMOVE_HEADER_BYTES ? (struct gw_ether_frame){bytes + GW_MACMOVE_HEADER_BYTES,
                                                                 n - GW_MACMOVE_HEADER_BYTES}
                                       : (struct gw_ether_frame){0};
}

void gw_tapframes_note_answer(struct gw_tapframes *list, const uint8_t *bytes, size_t n_bytes)
{
    const struct gw_ether_frame answer = ether_of(bytes, n_bytes);

    for (size_t i = 0; i < list->n && i < ANSWERED_AT_MOST; i++) {
        struct gw_tapframe *frame = from_end(list, i);
        const struct gw_ether_frame asked = ether_of(frame->bytes, frame->n_bytes);

        frame->answered |= gw_frame_answers(&answer, &asked);
    }
}

void gw_tapframe_make_filler(const uint8_t mac[ETH_ALEN], uint8_t frame[GW_TAPFRAME_FILLER_BYTES])
{
    struct ether_header header = {.ether_type = htons(ETH_P_802_EX1)};

    memset(frame, 0, GW_TAPFRAME_FILLER_BYTES);
    memcpy(header.ether_dhost, mac, ETH_ALEN);
    memcpy(header.ether_shost, mac, ETH_ALEN);
    memcpy(frame + GW_MACMOVE_HEADER_BYTES, &header, sizeof header);
    memcpy(frame + GW_MACMOVE_HEADER_BYTES + sizeof header, filler_text, sizeof filler_text);
}

/* Ours, not somebody's. */
bool gw_tapframe_is_filler(const struct gw_tapframe *frame)
{
    const struct gw_ether_frame f = ether_of(frame->bytes, frame->n_bytes);

    return f.n_bytes >= sizeof(struct ether_header) + sizeof filler_text &&
           memcmp(f.bytes, f.bytes + ETH_ALEN, ETH_ALEN) == 0 &&
           memcmp(f.bytes + sizeof(struct ether_header), filler_text, sizeof filler_text) == 0;
}

static bool are_same(const struct gw_tapframe *a, const struct gw_tapframe *b)
{
    const struct gw_ether_frame x = ether_of(a->bytes, a->n_bytes),
                                y = ether_of(b->bytes, b->n_bytes);

    return x.n_bytes == y.n_bytes && x.n_bytes > 0 && memcmp(x.bytes, y.bytes, x.n_bytes) == 0;
}

/* Where in `list`, counted from its end and beginning at `from`, such a frame is, or a filler if
 * wanted is NULL; list->n: nowhere. */
static size_t find(const struct gw_tapframes *list, const struct gw_tapframe *wanted, size_t from)
{
    while (from < list->n && !(wanted ? are_same(gw_tapframes_from_end(list, from), wanted)
                                      : gw_tapframe_is_filler(gw_tapframes_from_end(list, from))))
        from++;
    return from < list->n ? from : list->n;
}

unsigned gw_tapframes_missed(const struct gw_tapframes *queued, const struct gw_tapframes *copied,
                             const struct gw_tapframe *missed[2])
{
    bool filler_waits = find(queued, NULL, 0) < queued->n;
    /* later ones may have come meanwhile */
    size_t at = filler_waits
                    ? find(copied, gw_tapframes_from_end(queued, queued->n - 1), queued->n - 1)
                    : find(copied, NULL, 0);
    const struct gw_tapframe *kept = NULL, *thrown = NULL;
    unsigned n = 0;

    if (filler_waits && ++at < copied->n)
        kept = gw_tapframes_from_end(copied, at);
    if (kept && kept->since_ns < -GW_TAPFRAMES_DELIVERED_NS)
        return 0;
    if (++at < copied->n)
        thrown = gw_tapframes_from_end(copied, at);
    if (thrown && thrown->since_ns >= -GW_TAPFRAMES_STOPPING_NS && !thrown->answered)
        missed[n++] = thrown;
    if (kept)
        missed[n++] = kept;
    return n;
}
