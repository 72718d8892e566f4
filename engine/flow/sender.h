/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's half of the carrier, without its I/O: what becomes of the packets of one multifd
 * channel.
 *
 * A packet of pages of a RAM block that the destination offered becomes a PAGES frame
 * (flow/frame.h): its pages are compared with what was last sent of them, and a batch has what the
 * destination lacks. Everything else is passed on as it is.
 *
 * struct gw_sender_ram is shared by all channels of a migration, struct gw_sender is one thread's.
 * The contract of flow/history.h is kept by a barrier (flow/barrier.h): whoever runs a channel
 * calls gw_barrier_arrive() at each SYNC, before it takes the channel's next packet.
 */
#ifndef GW_FLOW_SENDER_H
#define GW_FLOW_SENDER_H

#include "flow/batch.h"
#include "flow/frame.h"
#include "flow/ram.h"
#include "flow/stream.h"

/* A RAM block that the destination offered: it puts the pages in place. */
struct gw_sender_block {
    char name[256];
    uint64_t n_bytes;
    struct gw_history *history; /* NULL: none, its pages are always sent whole */
};

struct gw_sender_ram {
    struct gw_sender_block block[GW_RAM_BLOCKS_MAX];
    unsigned n_blocks;
};

/* Adds a block; history_bytes is the limit of its history, 0: none. 0; -1 with *error. */
int gw_sender_ram_add(struct gw_sender_ram *ram, const char *name, uint64_t n_bytes,
                      uint64_t history_bytes, struct gw_error *error);

/* Bytes of all blocks, of all histories. */
uint64_t gw_sender_ram_bytes(const struct gw_sender_ram *ram);
uint64_t gw_sender_ram_history_bytes(const struct gw_sender_ram *ram);

/* Twice is fine, and so is a struct of zeros. No sender may use it any more. */
void gw_sender_ram_fini(struct gw_sender_ram *ram);

struct gw_sender {
    struct gw_sender_ram *ram;
    unsigned lane;
    struct gw_batch_encoder *encoder;
};

/* 0, or -ENOMEM and nothing held. */
int gw_sender_init(struct gw_sender *sender, struct gw_sender_ram *ram, unsigned lane);
/* Twice is fine, and so is a struct of zeros. */
void gw_sender_fini(struct gw_sender *sender);

/* Whether this packet's pages travel apart from it: then all of its payload is to be read, and
 * goes to gw_sender_pages(). Otherwise its header and payload are passed on. */
bool gw_sender_takes(const struct gw_sender *sender, const struct gw_packet *packet);

/*
 * Writes the PAGES frame of a packet that was taken into frame, which has room for GW_FRAME_MAX.
 * payload: its n_payload bytes. 0 with the frame's length in *n_framep and, where the packet has
 * pages, *figures (otherwise zeros); -1 with *error: the offsets make no sense.
 */
int gw_sender_pages(struct gw_sender *sender, const struct gw_packet *packet,
                    const uint8_t *payload, const struct gw_batch_setting *setting, uint8_t *frame,
                    size_t *n_framep, struct gw_batch_figures *figures, struct gw_error *error);

/* The pages of this packet are passed on: what was last sent of them is not known any more. */
void gw_sender_passes(struct gw_sender *sender, const struct gw_packet *packet);

#endif
