/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NICs of a VM that moves: their MAC addresses follow the guest to its new node, and no packet
 * that was on its way to it is lost.
 *
 * Destination: open and hold when its QEMU is there; take when the source has paused the guest:
 * from then on packets wait in the tap's queue; announce when it runs, repeated on QEMU's own
 * schedule. Source: open before the pause; drain when the guest will not come back: what waits in
 * its taps goes to the destination over the control connection; take if it does come back.
 *
 * With a MAC go the addresses that its NIC has claimed, as far as they are known: guestaddr.h.
 *
 * Nothing of this stops a migration: what fails is logged, and QEMU's own announcement remains.
 */
#ifndef GW_SHELL_GUESTNET_H
#define GW_SHELL_GUESTNET_H

#include <stdbool.h>
#include <event2/event.h>
#include <jansson.h>

struct gw_vm;
struct gw_guestnet;

/* For the taps that this daemon made for the VM; others are left alone. Never NULL. */
struct gw_guestnet *gw_guestnet_open(struct gw_vm *vm);

void gw_guestnet_hold(struct gw_guestnet *net);

/*
 * Right before take on the destination: a QEMU whose guest does not run yet reads one frame from
 * each tap and loses it when it has loaded the guest. A filler goes first, so that it is no packet
 * of somebody's.
 */
void gw_guestnet_prime(struct gw_guestnet *net);
void gw_guestnet_take(struct gw_guestnet *net);

/*
 * On either node, when the guest runs there. Announces now, and four more times within a second:
 * announce-initial, -step and -rounds of qapi/migration.json with their defaults. The last time net
 * is taken from its VM and freed.
 */
void gw_guestnet_announce(struct gw_guestnet *net);

/* The guest may be paused from now on: what goes into its taps is copied, and what was copied
 * before is forgotten. Call it now and then, so that few copies wait. */
void gw_guestnet_watch(struct gw_guestnet *net);

/*
 * The guest was paused at that time (CLOCK_MONOTONIC), and QEMU has said so. A filler goes into
 * each tap: where it is found later tells whether QEMU took a frame from the tap after it had
 * paused the guest.
 */
void gw_guestnet_paused(struct gw_guestnet *net, uint64_t at_ns);

/*
 * Takes what was meant for a guest that is paused here and will run elsewhere: a new array of {nic,
 * frame} with frames in base64, NULL if there is none. Call it as often as you like, after the
 * commit. At most GW_GUESTNET_FRAMES_MAX bytes a call; the rest is for the next call.
 */
json_t *gw_guestnet_drain(struct gw_guestnet *net);

/* The frames that the source drained go into the taps here. From a peer, untrusted: what is
 * malformed is dropped. */
void gw_guestnet_inject(struct gw_guestnet *net, const json_t *frames);

/* Embedded by the caller. */
struct gw_guestnet_listener {
    /* Once: the guest's first frame came out of one of its taps at that time (CLOCK_MONOTONIC). */
    void (*heard)(struct gw_guestnet_listener *listener, uint64_t at_ns);
};

/* On the destination, before the guest runs. False if there is no tap to listen to. NULL: nobody
 * listens any more. */
bool gw_guestnet_listen(struct gw_guestnet *net, struct gw_guestnet_listener *listener);

/* NULL is fine. */
void gw_guestnet_free(struct gw_guestnet *net);

#define GW_GUESTNET_FRAMES_MAX (512u << 10) /* in base64 less than a message may have */

#endif
