/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/receiver.h"

#include <endian.h>
#include <string.h>

#include "util/cleanup.h"

int gw_receiver_init(struct gw_receiver *receiver, const struct gw_receiver_ops *ops,
                     const struct gw_ram *ram, struct gw_barrier *barrier)
{
    *receiver = (struct gw_receiver){
        .ops = ops,
        .ram = ram,
        .barrier = barrier,
    };
    return gw_batch_decoder_new(&receiver->decoder);
}

void gw_receiver_fini(struct gw_receiver *receiver)
{
    gw_batch_decoder_free(gw_steal_ptr(&receiver->decoder));
}

static int arrive(struct gw_receiver *r, struct gw_error *error)
{
    if (gw_barrier_arrive(r->barrier) != 0)
        return gw_error_set(error, GW_E_PROTOCOL, "another lane ended before this one's SYNC");
    r->after_sync = r->synced = true;
    return 0;
}

static int send_head(struct gw_receiver *r, const struct gw_packet *packet, bool with_sync,
                     struct gw_error *error)
{
    uint8_t head[GW_STREAM_HEADER_MAX];
    size_t n_head = gw_packet_encode(packet, head);

    if (!with_sync)
        gw_packet_strip(head, false);
    return r->ops->send(r, head, n_head, error);
}

/* The second rule of barrier.h: QEMU has come past its SYNC before pages are applied. */
static int await_qemu(struct gw_receiver *r, const struct gw_packet *packet, struct gw_error *error)
{
    if (send_head(r, packet, false, error) < 0 || r->ops->drain(r, error) < 0)
        return -1;
    r->after_sync = false;
    r->n_drains++;
    return 0;
}

static int take_pages(struct gw_receiver *r, const struct gw_frame *frame, struct gw_error *error)
{
    const uint8_t *batch = frame->payload + GW_FRAME_PACKET_BYTES;
    size_t n_batch = frame->n_payload - GW_FRAME_PACKET_BYTES;
    struct gw_packet packet;
    bool told = false;

    if (gw_frame_packet_get(frame, &packet, error) < 0)
        return -1;
    if (n_batch) {
        told = r->after_sync;
        if (told && await_qemu(r, &packet, error) < 0)
            return -1;
        if (gw_batch_decode(r->decoder, batch, n_batch, r->ram, &r->figures, error) < 0)
            return gw_error_prefix(error, "lane %u", frame->lane);
    }
    if (packet.sync && arrive(r, error) < 0)
        return -1;
    return told && !packet.sync ? 0 : send_head(r, &packet, true, error);
}

static int take_packet(struct gw_receiver *r, const struct gw_frame *frame, struct gw_error *error)
{
    uint32_t flags;

    memcpy(&flags, frame->payload + 8, sizeof flags);
    if (be32toh(flags) & GW_STREAM_SYNC && arrive(r, error) < 0)
        return -1;
    return r->ops->send(r, frame->payload, frame->n_payload, error);
}

int gw_receiver_take(struct gw_receiver *receiver, const struct gw_frame *frame,
                     struct gw_error *error)
{
    memset(&receiver->figures, 0, sizeof receiver->figures);
    receiver->synced = false;
    switch (frame->kind) {
    case GW_FRAME_BYTES:
        return receiver->ops->send(receiver, frame->payload, frame->n_payload, error);
    case GW_FRAME_PACKET: return take_packet(receiver, frame, error);
    case GW_FRAME_PAGES: return take_pages(receiver, frame, error);
    default:
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u: a frame of kind %u is no packet",
                            frame->lane, frame->kind);
    }
}
