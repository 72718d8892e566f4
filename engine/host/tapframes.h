/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on their way to a guest that is paused here and will run elsewhere, and which of them its
 * QEMU has swallowed.
 *
 * While QEMU waits for the processors to stop, it keeps a frame that comes, and throws it away when
 * they have (net/net.c, net_vm_change_state_handler). After that it takes one frame more from the
 * tap, keeps it, and what comes later stays in the tap. So up to two frames are in neither: one
 * thrown away, one kept. They are found among copies of what went into the tap (tapwatch.h), by a
 * filler that was sent after the stop: is it in the tap's queue, then the frame before the first
 * one there was kept; is it not, then the filler itself was.
 *
 * Whether the frame before that was thrown away or delivered, nothing tells. It counts as missed if
 * it came shortly before the stop and the guest is not known to have it: better twice than never.
 *
 * Pure: no I/O. Frames begin with a struct virtio_net_hdr, as those of macmove.h, and are
 * untrusted. Headers are not compared: tap and copy describe the same frame in their own ways.
 */
#ifndef GW_HOST_TAPFRAMES_H
#define GW_HOST_TAPFRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <net/ethernet.h>

#include "host/macmove.h"

#define GW_TAPFRAMES_KEPT        1024u /* of one tap; its queue is no longer */
#define GW_TAPFRAME_FILLER_BYTES (GW_MACMOVE_HEADER_BYTES + ETH_ZLEN)
#define GW_TAPFRAMES_STOPPING_NS \
    INT64_C(10000000) /* so long QEMU may take to stop the processors */
#define GW_TAPFRAMES_DELIVERED_NS \
    INT64_C(50000000) /* what came earlier before the pause was read */

struct gw_tapframe {
    uint8_t *bytes;
    size_t n_bytes;
    int64_t since_ns; /* the pause; negative: before it. Of copies only */
    bool answered;    /* the guest had it: answers.h. Of copies only */
};

/* The newest ones, in the order in which they came. All zero is an empty one. */
struct gw_tapframes {
    struct gw_tapframe items[GW_TAPFRAMES_KEPT];
    size_t first, n;
    size_t n_bytes;
};

/* Copies it; the oldest makes room. NULL: no memory, and nothing was added. */
struct gw_tapframe *gw_tapframes_add(struct gw_tapframes *list, const uint8_t *bytes,
                                     size_t n_bytes);

/* With all its frames. NULL is fine. */
void gw_tapframes_free(struct gw_tapframes *list);

/* 0: the newest; i < list->n. */
const struct gw_tapframe *gw_tapframes_from_end(const struct gw_tapframes *list, size_t i);

/* The guest has sent this one now: those of the last few in the list that it answers are marked. */
void gw_tapframes_note_answer(struct gw_tapframes *list, const uint8_t *bytes, size_t n_bytes);

/* A frame that nobody misses: to the guest itself, of the EtherType for local experiments (IEEE
 * 802). */
void gw_tapframe_make_filler(const uint8_t mac[ETH_ALEN], uint8_t frame[GW_TAPFRAME_FILLER_BYTES]);
bool gw_tapframe_is_filler(const struct gw_tapframe *frame);

/*
 * Frames that QEMU took and the guest never got, oldest first: how many, at most two. They stay
 * `copied`'s. `queued` is what is in the tap now, `copied` what went into it, at least since
 * shortly before the pause; it may have newer frames than `queued`.
 */
unsigned gw_tapframes_missed(const struct gw_tapframes *queued, const struct gw_tapframes *copied,
                             const struct gw_tapframe *missed[2]);

#endif
