/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's connection to its Ceph cluster, asked from the event loop: made when it is first
 * needed, so that a node without RBD has none. Answers come in the loop, through one queue with a
 * lock, at the latest after GW_RADOS_TIMEOUT_MS, whatever the cluster does.
 */
#ifndef GW_SHELL_CEPH_H
#define GW_SHELL_CEPH_H

#include <event2/event.h>
#include <jansson.h>
#include <stdint.h>

#include "storage/rados.h"

struct gw_ceph;
struct gw_ceph_round;

/* A question about the disks of a VM, embedded in the caller's struct. Zero it before first use. */
struct gw_ceph_ask {
    void (*done)(struct gw_ceph_ask *ask); /* from the loop: the facts have their answers */
    uint64_t held_ns;                      /* the answer of gw_ceph_await_locks() */
    struct gw_error error;                 /* of gw_ceph_fence(): GW_OK, or the last failure */
    struct gw_ceph_round *round;           /* NULL: nothing is under way. Ours */
};

/* conf and user as in struct gw_rados_options, copied. 0 with *cephp, or -1 with *error. */
int gw_ceph_new(struct event_base *base, const char *conf, const char *user, struct gw_ceph **cephp,
                struct gw_error *error);

/* Nobody is told any more. With a cluster that hangs just now it blocks for some seconds, see
 * gw_rados_close(). NULL is fine. */
void gw_ceph_free(struct gw_ceph *ceph);

/* The connection, for stores in it: ceph's, valid as long as ceph. NULL with *error: no module. */
struct gw_rados *gw_ceph_rados(struct gw_ceph *ceph, struct gw_error *error);

/*
 * Asks about every disk of kind "rbd" in an array of facts (facts.h) and adds what comes back with
 * gw_facts_rbd_answer(); disks is referenced until then. false: there is no such disk, and done
 * will not be called. Otherwise done is called, never from inside.
 */
bool gw_ceph_ask(struct gw_ceph *ceph, struct gw_ceph_ask *ask, json_t *disks,
                 void (*done)(struct gw_ceph_ask *ask));

/*
 * Asks when this node came to hold the locks of all disks in that array which are on RBD, may be
 * written and have an image_id. In done() ask->held_ns is when the last of them was held, on
 * CLOCK_MONOTONIC; 0: not all were within half a second (librbd takes a lock with the first write),
 * or the cluster did not say. Returns as gw_ceph_ask().
 */
bool gw_ceph_await_locks(struct gw_ceph *ceph, struct gw_ceph_ask *ask, const json_t *disks,
                         void (*done)(struct gw_ceph_ask *ask));

/* Fences each client of this array of addresses (gw_rados_fence()) for so many seconds. Returns as
 * gw_ceph_ask(); false if there are none. */
bool gw_ceph_fence(struct gw_ceph *ceph, struct gw_ceph_ask *ask, const json_t *addresses,
                   unsigned seconds, void (*done)(struct gw_ceph_ask *ask));

/* Whether these facts are of a disk that a cluster is asked about. */
bool gw_ceph_has(const json_t *disk);

/* Forgets the caller. Fine if nothing is under way. */
void gw_ceph_ask_cancel(struct gw_ceph_ask *ask);

#endif
