/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ceph: a connection to one cluster as one user, owner records in it, and the fencing of a client.
 * rbd.h asks about images over the same connection.
 *
 * All that links librados and librbd is a module (godwit-rbd.so) which the first gw_rados_open()
 * of the process loads: 30 to 50 ms and 19 MiB that a daemon without VMs on RBD does not spend. It
 * is looked for in $GODWIT_MODULES, beside the program, and where it was installed to.
 *
 * Nothing here blocks but gw_rados_close(). The connection is made when the first call needs it,
 * on a thread of its own; a call that the cluster has not answered in the time given at open ends
 * with -ETIMEDOUT, and an answer that still comes harms nothing. Callbacks come on threads of the
 * module; they must not block. All functions may be called from any thread, but not from inside a
 * callback where that is said.
 */
#ifndef GW_STORAGE_RADOS_H
#define GW_STORAGE_RADOS_H

#include <jansson.h>

#include "godwit/error.h"
#include "godwit/storage.h"

struct gw_rados;

struct gw_rados_options {
    const char *conf;    /* path of ceph.conf; NULL: where librados looks ($CEPH_CONF, /etc/ceph) */
    const char *user;    /* cephx user without "client."; NULL: "admin" */
    const char *keyring; /* path of the user's keyring; NULL: where conf says */
    unsigned timeout_ms; /* for each call, and for connecting; 0: GW_RADOS_TIMEOUT_MS */
};

enum { GW_RADOS_TIMEOUT_MS = 5000 };

/*
 * Loads the module and makes an unconnected connection. Options are copied. 0 with *radosp, or -1
 * with *error: GW_E_UNSUPPORTED if this build or this node has no Ceph, GW_E_SYSTEM.
 */
int gw_rados_open(const struct gw_rados_options *options, struct gw_rados **radosp,
                  struct gw_error *error);

/*
 * No call may be unanswered, and every store closed. NULL is fine. Blocks until the answers that
 * nobody waits for any more have come or were given up, usually not at all, at most for twice the
 * timeout; what hangs even then is left behind. Not from inside a callback.
 */
void gw_rados_close(struct gw_rados *rados);

/*
 * The store "rados" (GW_STORE_WATCHES, never blocks): object owner.UUID in namespace
 * GW_RADOS_NAMESPACE of the pool. The pool is looked up when the first call needs it. rados must
 * outlive the store. 0 with *storep, which ops->close frees; -1 with *error.
 *
 * How a record changes. The object holds the record as one line of fixed width
 * (rados_record.h). A swap is one write operation: the object exists, its first bytes are {uuid,
 * epoch, node} as the caller knows them (cmpext), then the whole new line (write_full). The OSD
 * does all of it or nothing, in one order for all clients, and answers when it is durable on every
 * replica that is up. Comparing content was chosen over rados_write_op_assert_version(): it needs
 * no read before, so a commit is one round trip; and a version tells less, as it also moves when
 * somebody merely touches the object. Because the length never changes, a swap needs no space and
 * goes through on a full pool; creating does not (-ENOSPC, -EDQUOT).
 *
 * Repeats and lost answers. librados sends an operation again when a connection breaks or a
 * placement group moves, with the same id; the OSD remembers the ids of the last 3000 writes of
 * a placement group in its log (osd_pg_log_dups_tracked) and repeats the old answer. Should it
 * have forgotten, the repeat finds another epoch and changes nothing. Each record carries a
 * random number, so whoever is told "not as you thought" reads once and knows whether what stands
 * there is his own. After -ETIMEDOUT the request may still be on its way: see storage.h.
 * Reads go to the primary OSD, which makes them wait for a write that is not yet durable.
 *
 * Removing deletes the object. A creation that timed out and arrives after another creation and
 * removal would bring its record back: never create with an epoch that there has been.
 *
 * -EBLOCKLISTED (ESHUTDOWN, 108): this node was fenced. -EPERM: see the hint in call->error.
 */
int gw_store_rados_open(struct gw_rados *rados, const char *pool, struct gw_store **storep,
                        struct gw_error *error);

#define GW_RADOS_NAMESPACE "godwit"

/* One request to the cluster, embedded in the caller's own struct. It belongs to the module from
 * a submission that returned 0 until done is called. */
struct gw_rados_call {
    /* Once for every accepted submission, on a thread of the module; may free the call. result: 0,
     * or a negative errno with error filled in. */
    void (*done)(struct gw_rados_call *call, int result);
    struct gw_error error;
    json_t *facts; /* gw_rbd_facts(): with 0, a new reference, the caller's */
};

/*
 * Fences a client: from now on no OSD takes anything from it. address is as recorded from the
 * watchers or the lock of an image ("10.0.0.1:0/123456"); one that would mean more than one client
 * (nonce 0) is refused. Lasts for `seconds`, 0 for the cluster's default of an hour. done with 0
 * comes when this client has the cluster map that says so, and so every OSD that it talks to
 * afterwards; a second fencing of the same address is fine. Whether to fence is the caller's
 * policy: nothing in Godwit calls this by itself. 0 accepted, -EINVAL, -ENOMEM.
 */
int gw_rados_fence(struct gw_rados *rados, struct gw_rados_call *call, const char *address,
                   unsigned seconds);

/* Whether text is the address of exactly one client of Ceph: "IP:PORT/NONCE", IPv6 in brackets,
 * maybe with "v1:" or "v2:" in front, nonce not 0. */
bool gw_rados_address_ok(const char *text);

#endif
