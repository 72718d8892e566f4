/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What QEMU's source sends on the connections of a multifd migration, cut into pieces.
 *
 * A connection is the main channel (it begins with "QEVM"; its sections carry no lengths, so all of
 * it is passed on as it comes) or a multifd channel: a hello of 64 bytes, then packets. A packet is
 * a header and its payload. All numbers are big-endian:
 *
 *     hello    be32 magic 0x11223344 | be32 version 1 | uuid[16] | u8 id | zeros up to 64
 *     pages    be32 magic, version, flags, pages_alloc, normal_pages, next_packet_size |
 *              be64 packet_num | be32 zero_pages | 28 unused | name[256] | be64 offset[capacity]
 *     state    be32 magic, version, flags (with DEVICE_STATE) | name[256] | be32 instance_id,
 *              next_packet_size
 *
 * Source: QEMU's migration/multifd.h and multifd.c of 8.2 to 10.0, and streams of 10.0.2
 * (tests/flow/recorded). What differs between them, and how it is met:
 *   - The capacity is 512 KiB / page size, and the array of offsets is that long in every packet,
 *     whatever the counts say. It is learnt from the first packet that has a pages_alloc (a SYNC of
 *     9.0 or newer has none), the page size from the first one with a payload. Until then they are
 *     128 and what gw_stream_init() was told; a wrong guess is an error at the next header.
 *   - Before 9.0 there is no zero_pages, its place holds 0; a SYNC packet may carry pages (they go
 *     before the SYNC); and next_packet_size is stale where there are no pages. So it counts for
 *     nothing in a packet without normal pages.
 *   - Compression has had 3, 4 and 5 bits of the flags. Compressed packets are passed on as they
 * are.
 *   - A bit that none of them knows may mean another header: no length can be trusted then.
 *
 * The parser reads nothing itself and does not look at payload. gw_stream_want() says how many
 * bytes come next and where; they may be read straight to where they belong. gw_stream_push() is
 * the same for bytes that are in memory already. Allocates nothing; one thread at a time.
 * All bytes are untrusted. The first error is final.
 */
#ifndef GW_FLOW_STREAM_H
#define GW_FLOW_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "godwit/error.h"

#define GW_STREAM_HELLO_BYTES   64
#define GW_STREAM_PAGES_PER_MAX 512 /* capacity with the smallest target pages, 1 KiB */
#define GW_STREAM_NAME_BYTES    256
#define GW_STREAM_OFFSETS_AT    320
#define GW_STREAM_STATE_BYTES   276
#define GW_STREAM_HEADER_MAX    (GW_STREAM_OFFSETS_AT + 8 * GW_STREAM_PAGES_PER_MAX)

#define GW_STREAM_SYNC         0x01u
#define GW_STREAM_COMPRESSION  0x3eu
#define GW_STREAM_DEVICE_STATE 0x40u

enum gw_channel {
    GW_CHANNEL_NEW, /* its first bytes have not come */
    GW_CHANNEL_MAIN,
    GW_CHANNEL_MULTIFD,
};

/* What the bytes just taken completed. */
enum gw_piece {
    GW_PIECE_NONE,    /* nothing yet */
    GW_PIECE_MAIN,    /* this is the main channel; the head holds its first bytes */
    GW_PIECE_HELLO,   /* the head holds a multifd channel's hello; id and uuid are set */
    GW_PIECE_PACKET,  /* the head holds a packet's header; `packet` is set. Its payload follows */
    GW_PIECE_PAYLOAD, /* bytes of the main channel, or of the last packet's payload */
};

/* A packet's header, judged. Numbers in the host's order. */
struct gw_packet {
    bool opaque;       /* compressed pages or device state: pass head and payload on untouched */
    bool sync;         /* a SYNC; it comes after this packet's own pages */
    uint32_t flags;    /* as sent */
    uint32_t capacity; /* offsets in the header */
    uint32_t alloc;    /* pages_alloc as sent: capacity or 0 */
    uint32_t n_normal; /* pages in the payload, in this order; 0 if opaque */
    uint32_t n_zero;   /* pages that are all zero; 0 if opaque */
    uint32_t page_bytes;
    uint64_t number;                          /* QEMU's running number over all channels */
    uint64_t n_payload;                       /* bytes that follow the header */
    char block[GW_STREAM_NAME_BYTES];         /* name of the RAM block; "" without pages */
    uint64_t offset[GW_STREAM_PAGES_PER_MAX]; /* in the block, in bytes, page-aligned: n_normal
                                                 of the normal pages, then n_zero */
};

/* Read what has no comment "private"; write nothing. */
struct gw_stream {
    enum gw_channel channel;
    uint8_t id;       /* of a multifd channel */
    uint8_t uuid[16]; /* of the guest, as the channel's hello says */
    struct gw_packet packet;
    uint8_t head[GW_STREAM_HEADER_MAX]; /* the last hello, header or first bytes, as sent */
    size_t n_head;
    uint64_t n_left; /* bytes of payload still to come */
    size_t n_want;   /* private: bytes of head after which it is looked at again */
    bool between;    /* private: at the border of two pieces, where a connection may end */
    uint32_t capacity, page_bytes;               /* private: the layout */
    bool capacity_is_known, page_bytes_is_known; /* private: learnt, not guessed */
    bool dead;
};

/* Where the next bytes go. */
struct gw_stream_want {
    void *into;     /* NULL: payload, and the caller chooses */
    size_t n_bytes; /* at most so many; never 0 */
};

/* Before the first byte of a connection. page_bytes: of the guest, 4096 on x86; a power of two
 * between 1 and 64 KiB. */
void gw_stream_init(struct gw_stream *stream, uint32_t page_bytes);

/* What to read next. The answer does not change until gw_stream_took(). */
void gw_stream_want(const struct gw_stream *stream, struct gw_stream_want *want);

/*
 * Says that n_bytes (at most want.n_bytes) were read there. 0 with *piecep; GW_PIECE_PAYLOAD stands
 * for these n_bytes, the last ones if n_left is 0 now. -1 with *error, which names what was wrong
 * (GW_E_PROTOCOL) or not known (GW_E_UNSUPPORTED), also for every later call.
 */
int gw_stream_took(struct gw_stream *stream, size_t n_bytes, enum gw_piece *piecep,
                   struct gw_error *error);

/*
 * The same for bytes in memory: takes from data up to the end of a piece, *usedp bytes. With
 * GW_PIECE_PAYLOAD these are the bytes. Call again with the rest while there is any.
 */
int gw_stream_push(struct gw_stream *stream, const void *data, size_t n_bytes, size_t *usedp,
                   enum gw_piece *piecep, struct gw_error *error);

/* The connection has ended: 0 if it may end here, -1 with *error in the middle of a piece. */
int gw_stream_end(const struct gw_stream *stream, struct gw_error *error);

/* Strips a header of a packet that is not opaque (as in stream->head) of its pages, and of its SYNC
 * too if so told. What is left means nothing to QEMU but that the packet was there. */
void gw_packet_strip(uint8_t *head, bool keep_sync);

/*
 * Writes the header of a packet that is not opaque, as 10.0 would have sent it, to head, which has
 * room for GW_STREAM_HEADER_MAX bytes. Returns its length, or 0 for a packet that no parser would
 * take. Before 9.0 a destination takes no zero pages in packets.
 */
size_t gw_packet_encode(const struct gw_packet *packet, uint8_t *head);

#endif
