/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fencing by policy, on the destination (a policy's fence_after_s).
 *
 * A guest that runs here after a move is this node's by its owner record, so the QEMU that it left
 * on the source may never write to its disks again. If nobody is there to end it, because the
 * source died or stands still, it keeps their locks on RBD, and what the guest writes waits until
 * librbd itself takes its owner for dead (about 30 s). A policy may have that QEMU fenced sooner:
 * gw_resolve's FENCE, under its rules and one more: that the record, read anew, names this node and
 * the guest runs here. The source is asked first, and nothing is done if it answers.
 *
 * Before the commit no policy fences anything: the source needs no swap to let its guest run, so
 * whoever is silent there may be running it.
 */
#ifndef GW_SHELL_FENCE_H
#define GW_SHELL_FENCE_H

#include "shell/daemon.h"

/*
 * The guest with that uuid runs here from now on, in a migration with that id, and came from node
 * `source`. After so many seconds (0: never) the source is asked, and fenced if it does not answer
 * within 3 s; a guest that is leaving again by then is looked at when it does not. What came of it
 * is in the daemon's log and the migration's. A daemon that ends before forgets it; strings are
 * copied.
 */
void gw_fence_arm(struct gw_daemon *d, const char *id, const char *uuid, const char *source,
                  unsigned after_s);

/* Forgets all of them. */
void gw_fences_free(struct gw_daemon *d);

#endif
