/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of every frame that goes through a tap, from a chosen moment on.
 *
 * Why: a QEMU whose guest has just been paused reads one more frame from each tap, cannot deliver
 * it, and keeps it in a queue of its own that nobody can read (net/tap.c, tap_send; net/net.c,
 * qemu_can_send_packet). What is in the tap's queue after that, macmove.h reads; this one frame is
 * only to be had from a copy.
 */
#ifndef GW_HOST_TAPWATCH_H
#define GW_HOST_TAPWATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "godwit/error.h"

/* Embedded by the caller; fd is -1 where there is none. */
struct gw_tapwatch {
    int fd;
    int tap_index;
    bool started;
};

#define GW_TAPWATCH_NONE ((struct gw_tapwatch){.fd = -1})

/* Prepares; nothing is copied yet. Needs CAP_NET_RAW. 0 or -1 with *error. */
int gw_tapwatch_open(struct gw_tapwatch *w, const char *tap, struct gw_error *error);

/* From now on frames into the tap are copied; copies from before are thrown away. A few system
 * calls. */
int gw_tapwatch_start(struct gw_tapwatch *w, struct gw_error *error);

/*
 * Whether every frame since gw_tapwatch_start() was copied: with more than some MB of traffic
 * since then the later ones were not. Asks once: the answer is forgotten by asking.
 */
bool gw_tapwatch_is_complete(struct gw_tapwatch *w);

/* A copy, beginning with a struct virtio_net_hdr as those of macmove.h. */
struct gw_tapwatch_frame {
    uint8_t *bytes; /* the caller's buffer */
    size_t size;    /* of it; a longer frame is cut */
    size_t n_bytes;
    uint64_t at_ns;  /* when it went through the tap, CLOCK_REALTIME; 0: not known */
    bool from_guest; /* out of the tap; otherwise into it */
};

/* Takes the oldest copy: 1 with it in *frame; 0 if there is none; -1 with *error. */
int gw_tapwatch_read(struct gw_tapwatch *w, struct gw_tapwatch_frame *frame,
                     struct gw_error *error);

/*
 * For the other direction, on a watch of its own: opened and started at once, it holds what comes
 * out of the tap, that is from the guest. Linux 4.20 or newer.
 */
int gw_tapwatch_open_ear(struct gw_tapwatch *w, const char *tap, struct gw_error *error);

/*
 * 1: the guest has sent a frame, the first that waits at *at_nsp (CLOCK_REALTIME; 0: not known). 0:
 * not yet. RARP is passed over: that is QEMU's own announcement (net/announce.c), not the guest.
 */
int gw_tapwatch_hear(struct gw_tapwatch *w, uint64_t *at_nsp);

/*
 * As an ear, but only for what may be a claim of an address (addresses.h): ARP and neighbour
 * discovery, without a VLAN tag; longer frames are cut. The kernel looks, so other frames cost
 * nothing here; few wait, and later ones are lost then.
 */
int gw_tapwatch_open_claims(struct gw_tapwatch *w, const char *tap, struct gw_error *error);

/* Idempotent. */
void gw_tapwatch_fini(struct gw_tapwatch *w);

#endif
