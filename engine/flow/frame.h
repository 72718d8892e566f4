/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: how the carrier's bytes lie on a lane. Every lane carries one connection of QEMU, the
 * main channel or a multifd channel, in the order in which QEMU sent its bytes.
 *
 * A frame is a header of 12 bytes and its payload; numbers are big-endian:
 *
 *     be32 magic "GWCF" | u8 version 2 | u8 kind | be16 lane | be32 bytes of payload
 *
 * What follows each kind:
 *   BYTES   of the connection, to be passed on as they are: 1 to GW_FRAME_BYTES_MAX
 *   PACKET  a packet's header as QEMU sent it, of a packet whose payload follows in BYTES: it is
 *           not understood, or its RAM block is none that the destination offered
 *   PAGES   a packet whose pages travel apart from it (struct gw_frame_packet, 24 bytes), and then
 *           the batch of them (flow/batch.h), which is absent in a packet without pages
 *   END     nothing: the connection has ended well, and nothing follows. A lane that ends without
 *           it was cut
 *   SYNCED  nothing: from the destination, for each packet with SYNC: what this lane brought before
 *           it is in the guest's RAM, and the source may go on. Few bytes can be many pages, so
 *           without it the lanes' buffers would hold hundreds of milliseconds of work, and the
 *           guest would wait for it in its pause
 *
 * Everything that arrives is untrusted; gw_frame_parse() and gw_frame_packet_get() look at bounds
 * before anything else does.
 */
#ifndef GW_FLOW_FRAME_H
#define GW_FLOW_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flow/batch.h"
#include "flow/stream.h"
#include "godwit/error.h"

#define GW_FRAME_VERSION      2
#define GW_FRAME_HEADER_BYTES 12
#define GW_FRAME_PACKET_BYTES 24
#define GW_FRAME_BYTES_MAX    (64 * 1024)
/* Of any frame, header included. */
#define GW_FRAME_MAX \
    (GW_FRAME_HEADER_BYTES + GW_FRAME_PACKET_BYTES + GW_BATCH_BOUND(GW_BATCH_MAX_PAGES))

enum gw_frame_kind {
    GW_FRAME_BYTES = 1,
    GW_FRAME_PACKET = 2,
    GW_FRAME_PAGES = 3,
    GW_FRAME_END = 4,
    GW_FRAME_SYNCED = 5,
};

struct gw_frame {
    enum gw_frame_kind kind;
    unsigned lane;
    const uint8_t *payload; /* in the caller's buffer */
    size_t n_payload;
};

/* What a PAGES frame says of its packet; the rest of the header was about the pages. */
struct gw_frame_packet {
    uint32_t flags;    /* as QEMU sent them; never COMPRESSION or DEVICE_STATE */
    uint32_t capacity; /* offsets in the header, 1 to GW_STREAM_PAGES_PER_MAX */
    uint32_t alloc;    /* capacity or 0 */
    uint64_t number;
};

/* Writes the header of a frame whose payload of n_payload bytes follows it in memory. Returns the
 * bytes of the whole frame. */
size_t gw_frame_put(uint8_t *at, enum gw_frame_kind kind, unsigned lane, size_t n_payload);

/*
 * Looks at the beginning of n_bytes. 0: all of a frame is there, *frame and its whole length in
 * *usedp; 1: it is not, and *usedp bytes are needed to get further (at most GW_FRAME_MAX); -1 with
 * *error: this is no frame of lane `lane`.
 */
int gw_frame_parse(const uint8_t *bytes, size_t n_bytes, unsigned lane, struct gw_frame *frame,
                   size_t *usedp, struct gw_error *error);

void gw_frame_packet_put(uint8_t *at, const struct gw_packet *packet);

/* The packet of a PAGES frame, without pages: ready for gw_packet_encode(). 0; -1 with *error. */
int gw_frame_packet_get(const struct gw_frame *frame, struct gw_packet *packet,
                        struct gw_error *error);

#endif
