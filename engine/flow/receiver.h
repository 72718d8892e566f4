/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's half of the carrier, without its I/O: what becomes of the frames of one multifd
 * channel. Pages go into guest RAM, and QEMU gets the rest: BYTES and PACKETs as they are, of PAGES
 * the emptied packet.
 *
 * The two rules of flow/barrier.h are kept here. A receiver is one thread's; RAM and barrier are
 * shared by all channels of a migration.
 */
#ifndef GW_FLOW_RECEIVER_H
#define GW_FLOW_RECEIVER_H

#include "flow/barrier.h"
#include "flow/batch.h"
#include "flow/frame.h"
#include "flow/ram.h"

struct gw_receiver;

/* How QEMU gets its bytes. Both may block until they are done, and fail at once when the carrier
 * ends: 0, or -1 with *error. */
struct gw_receiver_ops {
    int (*send)(struct gw_receiver *receiver, const void *bytes, size_t n_bytes,
                struct gw_error *error);
    /* Until QEMU has taken all that was sent: gw_drain_is_done(). */
    int (*drain)(struct gw_receiver *receiver, struct gw_error *error);
};

struct gw_receiver {
    const struct gw_receiver_ops *ops;
    const struct gw_ram *ram;
    struct gw_barrier *barrier;
    struct gw_batch_decoder *decoder;
    bool after_sync;                 /* private: nothing was applied since the last SYNC */
    struct gw_batch_figures figures; /* of the last PAGES frame */
    bool synced; /* the last frame had a SYNC, and all before it is applied: GW_FRAME_SYNCED is due
                  */
    uint64_t n_drains;
};

/* The pointers are borrowed. 0, or -ENOMEM and nothing held. */
int gw_receiver_init(struct gw_receiver *receiver, const struct gw_receiver_ops *ops,
                     const struct gw_ram *ram, struct gw_barrier *barrier);
/* Twice is fine, and so is a struct of zeros. */
void gw_receiver_fini(struct gw_receiver *receiver);

/* Takes a frame, END and SYNCED excepted. Blocks in the barrier at a SYNC. 0; -1 with *error, and
 * then the migration is to end. */
int gw_receiver_take(struct gw_receiver *receiver, const struct gw_frame *frame,
                     struct gw_error *error);

#endif
