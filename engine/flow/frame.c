/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/frame.h"

#include <endian.h>
#include <string.h>

#define MAGIC 0x47574346u /* "GWCF" */

struct header {
    uint32_t magic;
    uint8_t version;
    uint8_t kind;
    uint16_t lane;
    uint32_t n_payload;
} __attribute__((packed));

struct skeleton {
    uint32_t flags;
    uint32_t capacity;
    uint32_t alloc;
    uint32_t zero;
    uint64_t number;
} __attribute__((packed));

_Static_assert(sizeof(struct header) == GW_FRAME_HEADER_BYTES, "no padding");
_Static_assert(sizeof(struct skeleton) == GW_FRAME_PACKET_BYTES, "no padding");

/* Bounds of the payload of each kind. */
static const struct {
    size_t min, max;
} bounds[] = {
    [GW_FRAME_BYTES] = {1, GW_FRAME_BYTES_MAX},
    [GW_FRAME_PACKET] = {GW_STREAM_STATE_BYTES, GW_STREAM_HEADER_MAX},
    [GW_FRAME_PAGES] = {GW_FRAME_PACKET_BYTES, GW_FRAME_MAX - GW_FRAME_HEADER_BYTES},
    [GW_FRAME_END] = {0, 0},
    [GW_FRAME_SYNCED] = {0, 0},
};

size_t gw_frame_put(uint8_t *at, enum gw_frame_kind kind, unsigned lane, size_t n_payload)
{
    struct header header = {
        .magic = htobe32(MAGIC),
        .version = GW_FRAME_VERSION,
        .kind = (uint8_t)kind,
        .lane = htobe16((uint16_t)lane),
        .n_payload = htobe32((uint32_t)n_payload),
    };

    memcpy(at, &header, sizeof header);
    return sizeof header + n_payload;
}

static int check_header(const struct header *header, unsigned lane, struct gw_error *error)
{
    size_t n_payload = be32toh(header->n_payload);

    if (header->magic != htobe32(MAGIC))
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u: a frame begins with 0x%08x", lane,
                            be32toh(header->magic));
    if (header->version != GW_FRAME_VERSION) {
        gw_error_set(error, GW_E_UNSUPPORTED, "lane %u: frames of version %u, only %u is known",
                     lane, header->version, GW_FRAME_VERSION);
        return gw_error_hint(error, "run the same release of Godwit on both nodes");
    }
    if (header->kind < GW_FRAME_BYTES || header->kind > GW_FRAME_SYNCED)
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u: a frame of the unknown kind %u", lane,
                            header->kind);
    if (be16toh(header->lane) != lane)
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u: a frame of lane %u", lane,
                            be16toh(header->lane));
    if (n_payload < bounds[header->kind].min || n_payload > bounds[header->kind].max)
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u: a frame of kind %u with %zu bytes",
                            lane, header->kind, n_payload);
    return 0;
}

int gw_frame_parse(const uint8_t *bytes, size_t n_bytes, unsigned lane, struct gw_frame *frame,
                   size_t *usedp, struct gw_error *error)
{
    struct header header;

    *usedp = sizeof header;
    if (n_bytes < sizeof header)
        return 1;
    memcpy(&header, bytes, sizeof header);
    if (check_header(&header, lane, error) < 0)
        return -1;
    frame->kind = header.kind;
    frame->lane = lane;
    frame->payload = bytes + sizeof header;
    frame->n_payload = be32toh(header.n_payload);
    *usedp = sizeof header + frame->n_payload;
    return n_bytes < *usedp;
}

void gw_frame_packet_put(uint8_t *at, const struct gw_packet *packet)
{
    struct skeleton skeleton = {
        .flags = htobe32(packet->flags),
        .capacity = htobe32(packet->capacity),
        .alloc = htobe32(packet->alloc),
        .number = htobe64(packet->number),
    };

    memcpy(at, &skeleton, sizeof skeleton);
}

int gw_frame_packet_get(const struct gw_frame *frame, struct gw_packet *packet,
                        struct gw_error *error)
{
    struct skeleton skeleton;

    memcpy(&skeleton, frame->payload, sizeof skeleton);
    packet->opaque = false;
    packet->flags = be32toh(skeleton.flags);
    packet->sync = packet->flags & GW_STREAM_SYNC;
    packet->capacity = be32toh(skeleton.capacity);
    packet->alloc = be32toh(skeleton.alloc);
    packet->number = be64toh(skeleton.number);
    packet->n_normal = packet->n_zero = 0;
    packet->page_bytes = GW_PAGE_BYTES;
    packet->n_payload = 0;
    memset(packet->block, 0, sizeof packet->block);
    if (packet->flags & ~GW_STREAM_SYNC || packet->capacity < 1 ||
        packet->capacity > GW_STREAM_PAGES_PER_MAX ||
        (packet->alloc && packet->alloc != packet->capacity) || skeleton.zero)
        return gw_error_set(error, GW_E_PROTOCOL,
                            "lane %u: a packet with flags 0x%x for %u of %u pages", frame->lane,
                            packet->flags, packet->alloc, packet->capacity);
    return 0;
}
