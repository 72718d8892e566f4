/* SPDX-License-Identifier: Apache-2.0 */
/* RBD images: how they are named, and what their cluster says about them. */
#ifndef GW_STORAGE_RBD_H
#define GW_STORAGE_RBD_H

#include "storage/rados.h"

enum { GW_RBD_PART_MAX = 127 }; /* bytes of a part of an image's name, without the NUL */

/* "POOL/IMAGE", "POOL/NAMESPACE/IMAGE", either with "@SNAPSHOT" behind it. */
struct gw_rbd_spec {
    char pool[GW_RBD_PART_MAX + 1];
    char ns[GW_RBD_PART_MAX + 1]; /* empty: the default namespace */
    char image[GW_RBD_PART_MAX + 1];
    char snap[GW_RBD_PART_MAX + 1]; /* empty: the image itself */
};

/* Parses a name; a leading "rbd:" is skipped. Parts are not empty, of letters, digits and "._-",
 * and do not begin with '-'. 0, or -1 with *error (GW_E_USAGE) and *spec undefined. */
int gw_rbd_spec_parse(const char *text, struct gw_rbd_spec *spec, struct gw_error *error);

/*
 * Asks the cluster about an image. The image is opened read-only: nobody's watch or lock is
 * touched. done with 0 and call->facts when the cluster answered, also when there is no such image:
 *
 *   exists         bool; false: error says why (no such pool, namespace, image, snapshot; features
 *                  that the librbd of this node does not know; no permission; cluster paused)
 *   fsid           of the cluster
 *   client_address this node's own address, as the cluster sees it ("10.0.0.1")
 *   image_id, size_bytes, features[] (names; "feature-40" if librbd knows none), snapshot (bool)
 *   parent         "POOL/NAMESPACE/ID@SNAPSHOT" of a clone, by the image's id; else ""
 *   readable       true
 *   writable       bool: header and data may be written, proved by a write that the OSD checks
 *                  permissions for and whose condition then never holds; write_error if not
 *   watchers[]     {address, client (a number), cookie (text)}: who has the image open for writing
 *   lock_owners[]  {address, client ("client.4123"), cookie}: exclusive lock, or advisory locks
 *   full           "" or which flag says so: "pool", "pool quota", "cluster"
 *   nearly_full    bool
 *   health         "HEALTH_OK", "HEALTH_WARN", "HEALTH_ERR"
 *   health_checks[] "CODE: message", at most 16
 *
 * With exists: false there are exists, error, fsid, client_address, and if the pool is there, what
 * is said of the cluster. A negative result:
 * the cluster cannot be reached or did not answer in time. 0 accepted, -EINVAL (spec), -ENOMEM.
 */
int gw_rbd_facts(struct gw_rados *rados, struct gw_rados_call *call, const char *spec);

enum { GW_RBD_LOCKS_MAX = 16 };

struct gw_rbd_lock {
    const char *spec;     /* as for gw_rbd_facts() */
    const char *image_id; /* as it came from there */
};

/*
 * When this node came to hold the exclusive locks of n images (1 to GW_RBD_LOCKS_MAX; copied).
 * done with 0: facts is an array with a moment of CLOCK_MONOTONIC for each, to the millisecond; 0
 * where nobody at this node's address held it within limit_ms. librbd takes the lock for the first
 * write that needs it, and not before.
 *
 * It reads the locks of the header objects once a millisecond, and keeps the connection's worker
 * meanwhile: give a limit well below that of the connection. Watching the headers would tell the
 * moment, too, but librbd waits until each watcher has confirmed its notifications: a daemon that
 * hangs would hold up the guest. 0 accepted, -EINVAL, -ENOMEM.
 */
int gw_rbd_await_locks(struct gw_rados *rados, struct gw_rados_call *call,
                       const struct gw_rbd_lock *locks, size_t n, unsigned limit_ms);

#endif
