/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owner records, asked from the event loop.
 *
 * A store may block for as long as its file system likes, or answer on a thread of its own
 * (godwit/storage.h). Here every request is answered in the loop, exactly once, and within
 * GW_OWNERS_LIMIT_NS: what a store says later is thrown away, and what it was about has to be found
 * out by another request, as for any answer that was lost.
 *
 * A VM with a disk on RBD has its record in RADOS, beside its disk. All others have it in the
 * directory that the configuration names.
 *
 * Threads: a store that blocks gets one for each request, so that one that hangs holds up nobody
 * else. They share nothing with the loop but the request, through one queue with a lock.
 */
#ifndef GW_SHELL_OWNERS_H
#define GW_SHELL_OWNERS_H

#include <event2/event.h>

#include "godwit/storage.h"
#include "host/vmspec.h"

#define GW_OWNERS_LIMIT_NS UINT64_C(2000000000)

struct gw_ceph;
struct gw_owners;
struct gw_owners_job;

/* A request, embedded in the caller's struct. */
struct gw_owner_call {
    /*
     * From the loop. result: 0; a positive enum gw_owner_outcome; or negative: it is not known
     * whether anything happened (-ETIMEDOUT: the store has not answered in time).
     * *current: the record, with 0 of read, create and swap, and with CONFLICT; otherwise zeroes.
     * error: set with every result but 0. Both are valid only during the call.
     */
    void (*done)(struct gw_owner_call *call, int result, const struct gw_owner *current,
                 const struct gw_error *error);
    struct gw_owners_job *job; /* NULL: nothing is under way. Ours */
};

/*
 * file: the store for VMs without a disk on RBD, taken on success; NULL: there is none. ceph: where
 * VMs with such a disk have theirs, in the pool of the first one; NULL: they have none. It must
 * outlive owners. 0 or -1 with *error.
 */
int gw_owners_new(struct event_base *base, struct gw_store *file, struct gw_ceph *ceph,
                  struct gw_owners **ownersp, struct gw_error *error);

/* Callers are not told any more. A store that blocks and has not answered is left to itself, open;
 * for RADOS this waits, at most for the limit of its connection. */
void gw_owners_free(struct gw_owners *owners);

/* Whether guests like this one have an owner record here. What keeps a store that should be there
 * from answering (no Ceph on this node, say) is a request's to tell. */
bool gw_owners_has_store(const struct gw_owners *owners, const struct gw_vm_spec *spec);

/*
 * The requests of struct gw_store_ops. spec says which store it is about; names and records are
 * copied. A call may be used again once it was answered. There must be a store.
 */
void gw_owners_read(struct gw_owners *owners, const struct gw_vm_spec *spec,
                    struct gw_owner_call *call);
void gw_owners_create(struct gw_owners *owners, const struct gw_vm_spec *spec,
                      struct gw_owner_call *call, const struct gw_owner *owner);
void gw_owners_swap(struct gw_owners *owners, const struct gw_vm_spec *spec,
                    struct gw_owner_call *call, const struct gw_owner *from,
                    const struct gw_owner *to);
/* call may be NULL: nobody cares. */
void gw_owners_remove(struct gw_owners *owners, const struct gw_vm_spec *spec,
                      struct gw_owner_call *call, const struct gw_owner *owner);

/* Forgets the caller; the request goes on. Fine if nothing is under way. */
void gw_owner_call_cancel(struct gw_owner_call *call);

/* "web1's record of node n2, epoch 4": for messages. */
const char *gw_owner_text(const struct gw_owner *owner, char text[160]);

#endif
