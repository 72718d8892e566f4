/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a QEMU may send on a connection, arriving in pieces: the first input byte says how large
 * they are. The pieces that come out must not depend on it. What the parser accepts as pages must
 * be within bounds, survive encoding, and have nothing left when stripped.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "flow/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct gw_stream stream, again;

static void check(int holds)
{
    if (!holds)
        abort();
}

/* Gives a header to a parser that has learnt what `stream` has. */
static const struct gw_packet *parse(const uint8_t *head, size_t n_head)
{
    enum gw_piece piece;
    size_t used;

    again = stream;
    again.n_left = 0;
    check(gw_stream_push(&again, head, n_head, &used, &piece, NULL) == 0);
    check(piece == GW_PIECE_PACKET && used == n_head);
    return &again.packet;
}

static void check_packet(void)
{
    const struct gw_packet *p = &stream.packet, *q;
    uint8_t head[GW_STREAM_HEADER_MAX];

    check(stream.n_head <= sizeof stream.head && p->n_payload <= UINT32_MAX);
    if (p->opaque) {
        check(p->n_normal == 0 && p->n_zero == 0);
        return;
    }
    check(p->n_normal + p->n_zero <= p->capacity && p->capacity <= GW_STREAM_PAGES_PER_MAX);
    check(p->n_payload == (uint64_t)p->n_normal * p->page_bytes);
    check(memchr(p->block, '\0', sizeof p->block) != NULL);
    for (uint32_t i = 0; i < p->n_normal + p->n_zero; i++)
        check(p->offset[i] % p->page_bytes == 0);
    check(gw_packet_encode(p, head) == stream.n_head);
    q = parse(head, stream.n_head);
    check(q->n_normal == p->n_normal && q->n_zero == p->n_zero && q->number == p->number);
    check(q->sync == p->sync && strcmp(q->block, p->block) == 0);
    check(memcmp(q->offset, p->offset, sizeof *p->offset * (p->n_normal + p->n_zero)) == 0);
    memcpy(head, stream.head, stream.n_head);
    gw_packet_strip(head, false);
    q = parse(head, stream.n_head);
    check(!q->sync && q->n_normal + q->n_zero + q->n_payload == 0);
}

/* A number for all that came out; *goodp: without an error. */
static uint64_t cut(const uint8_t *data, size_t size, size_t piece_bytes, int *goodp)
{
    uint64_t digest = 0xcbf29ce484222325u;
    struct gw_error error;

    gw_stream_init(&stream, 4096);
    for (size_t at = 0, used; at < size; at += used) {
        size_t n = size - at < piece_bytes ? size - at : piece_bytes;
        enum gw_piece piece;

        error.code = GW_OK;
        *goodp = gw_stream_push(&stream, data + at, n, &used, &piece, &error) == 0;
        check(*goodp || (error.code != GW_OK && error.msg[0]));
        if (!*goodp)
            return digest;
        check(used > 0 && used <= n);
        if (piece == GW_PIECE_PACKET)
            check_packet();
        if (piece != GW_PIECE_PAYLOAD && piece != GW_PIECE_NONE)
            for (size_t i = 0; i < stream.n_head; i++)
                digest = (digest ^ stream.head[i]) * 0x100000001b3u;
        for (size_t i = 0; piece == GW_PIECE_PAYLOAD && i < used; i++)
            digest = (digest ^ data[at + i]) * 0x100000001b3u;
    }
    return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int good = 1, good_whole = 1;
    uint64_t digest;

    if (size < 2)
        return 0;
    digest = cut(data + 1, size - 1, (size_t)data[0] + 1, &good);
    check(digest == cut(data + 1, size - 1, size, &good_whole) && good == good_whole);
    return 0;
}
