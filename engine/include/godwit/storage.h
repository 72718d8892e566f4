/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores of owner records: for implementers, and for the daemon that calls them.
 *
 * Goal. Every VM has one record {uuid, node, epoch, may_have_run} in a store that both nodes of a
 * migration reach. It says which node alone may run the guest. It changes only by compare-and-swap:
 * from exactly {node, epoch} to {any node, epoch + 1}. Of any number of swaps from one epoch, on
 * any nodes, at most one ever takes effect, whatever was lost, repeated or delayed on the way.
 *
 * Happy path of a move from S to D. S starts the guest: create {S, 1}. Commit: D swaps {S, 1} ->
 * {D, 2}, and only then lets QEMU run. A migration that the destination does not answer: S swaps
 * {S, 1} -> {S, 2} and resumes; a swap of D's that comes late finds another epoch. One of the two
 * wins, whoever crashed. Because each change takes a new epoch, {node, epoch} names one state of
 * the record and nothing can change behind a reader who then swaps.
 *
 * The one rule for callers: a read informs, only a swap that returned 0 entitles. A read may be
 * out of date when it returns.
 *
 * An unknown swap (negative result) may have happened, or may still happen later: a request can
 * be on its way. Reading the old record therefore settles nothing. Reading {to} settles it. To
 * settle it otherwise, swap away from the epoch in doubt: the winner has consumed it, and a
 * request that arrives afterwards finds another epoch.
 *
 * States. No record; {node, true}: node's guest runs, or did and is paused, or died; {node, false}:
 * handed over to node, whose guest has written to no disk, for callers that commit and let run in
 * two steps (the daemon does both in one). may_have_run goes from true to false only together with
 * a change of node; a store refuses to erase it in place (-EINVAL). Whether a node may take a
 * record that says {other, true} is the caller's policy.
 */
#ifndef GODWIT_STORAGE_H
#define GODWIT_STORAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "godwit/error.h"

#define GW_OWNER_UUID_MAX 36 /* bytes of a uuid, without the NUL */
#define GW_OWNER_NODE_MAX 63 /* bytes of a node's name, without the NUL */

struct gw_owner {
    char uuid[GW_OWNER_UUID_MAX + 1]; /* of the VM: 8-4-4-4-12 lower-case hexadecimal digits */
    char node[GW_OWNER_NODE_MAX + 1]; /* 1 to 63 letters, digits, '-', '_', '.'; first no sign */
    uint64_t epoch;                   /* from 1; one more with every change */
    bool may_have_run;                /* this owner was allowed to run, and so to write to disks */
    uint64_t updated_at_ms;           /* Unix time by the writing node's clock; for people only.
                                         Set by the store: its value in an argument is ignored */
};

/* Positive outcomes of a call; call->current is filled in for GW_OWNER_CONFLICT only. */
enum gw_owner_outcome {
    GW_OWNER_CONFLICT = 1, /* another record stands there, and we may not run by this call */
    GW_OWNER_ABSENT = 2,   /* there is no record of this VM */
    GW_OWNER_DAMAGED = 3,  /* what is there makes no sense: a person has to look; see call->error */
};

struct gw_store;

/*
 * One request, embedded in the caller's own struct (gw_container_of). It belongs to the store from
 * a submission that returned 0 until done is called, and must stay valid until then, also when the
 * caller stopped waiting: there is no cancelling. After done it may be submitted again.
 */
struct gw_store_call {
    /*
     * Set by the caller. Called exactly once per accepted submission; may free the call, may submit
     * another, may not close the store. result: 0 done, durable; positive enum gw_owner_outcome;
     * negative errno: the store could not be reached or did not answer properly, and it is unknown
     * whether a change happened, see above.
     */
    void (*done)(struct gw_store_call *call, int result);
    struct gw_owner current; /* the record: read 0; create, swap 0 (as written); or CONFLICT */
    struct gw_error error;   /* for people, with a negative result and with DAMAGED */
};

enum gw_store_caps {
    /*
     * Submitting blocks the calling thread for as long as the storage takes, without a limit of
     * its own, and done is called on that thread before the submission returns. Submit from a
     * thread made for it, never from the event loop, and treat no answer in time as unknown.
     * Without this bit a submission never blocks, and done is called later, never from inside,
     * on a thread of the store's choice.
     */
    GW_STORE_BLOCKS = 1 << 0,

    /* The store tells of changes: watch and unwatch are there. Without this bit they are NULL. */
    GW_STORE_WATCHES = 1 << 1,
};

/*
 * An interest in one record, embedded in the caller's own struct. It belongs to the store from a
 * watch() that returned 0 until released is called. Callbacks come on threads of the store's
 * choice, never from inside watch(), one at a time for each watch; they may submit calls and may
 * call unwatch(). What they tell is a hint: it can come late, twice, or not at all while the
 * watch does not stand. Only a swap entitles.
 */
struct gw_store_watch {
    /* Somebody, maybe we ourselves, changed the record: to *seen, or NULL: find out by reading. */
    void (*changed)(struct gw_store_watch *watch, const struct gw_owner *seen);

    /* First, once: 0 the watch stands, so that whoever reads from now on misses nothing; ABSENT,
     * there is no record to watch; or a negative errno. Then, at most once, a negative errno: it
     * stands no longer, and changes may have been missed. Read, unwatch and watch anew. */
    void (*status)(struct gw_store_watch *watch, int result);

    /* After unwatch(), once: the store has let go. May come from inside unwatch(). */
    void (*released)(struct gw_store_watch *watch);

    void *impl; /* the store's */
};

/*
 * Every submission returns 0: accepted, done will be called (see GW_STORE_BLOCKS); or -EINVAL or
 * -EOVERFLOW: an argument is not legal, nothing was done and done is not called. Arguments are
 * copied before the submission returns. Calls of one store may be under way at the same time, also
 * from several threads, and in no particular order.
 */
struct gw_store_ops {
    const char *name;
    unsigned caps; /* enum gw_store_caps */

    /* The record of this VM. 0, ABSENT, DAMAGED. What it returns is durable. */
    int (*read)(struct gw_store *store, struct gw_store_call *call, const char *uuid);

    /* Makes the first record as given, epoch included (at least 1; 1 unless the VM had a record
     * before, then more than it ever had). 0, CONFLICT if there is one already, DAMAGED. */
    int (*create)(struct gw_store *store, struct gw_store_call *call, const struct gw_owner *owner);

    /* Changes the record from {from->node, from->epoch} to {to->node, from->epoch + 1,
     * to->may_have_run}. The VM is from->uuid; from's other fields and to's uuid and epoch are not
     * looked at, except that to erase may_have_run in place is refused: if the record has it, node
     * stays and to has it not, the call completes with -EINVAL and nothing changed.
     * 0, CONFLICT, ABSENT, DAMAGED. CONFLICT can also follow a swap that did happen whose answer
     * was lost and that somebody has swapped away from since: it is not ours now, either way. */
    int (*swap)(struct gw_store *store, struct gw_store_call *call, const struct gw_owner *from,
                const struct gw_owner *to);

    /* Deletes the record if it is {owner->node, owner->epoch}. 0, CONFLICT, ABSENT, DAMAGED. */
    int (*remove)(struct gw_store *store, struct gw_store_call *call, const struct gw_owner *owner);

    /* Deletes what crashed creations left behind and nobody can still be working on. Records are
     * never touched. 0 or a negative errno; harmless at any time. */
    int (*sweep)(struct gw_store *store, struct gw_store_call *call);

    /* With GW_STORE_WATCHES. watch: 0, -EINVAL or -ENOMEM. unwatch: once for every watch() that
     * returned 0, whatever its status; no callback begins afterwards but released. */
    int (*watch)(struct gw_store *store, struct gw_store_watch *watch, const char *uuid);
    void (*unwatch)(struct gw_store *store, struct gw_store_watch *watch);

    /* No call may be under way, and no watch unreleased. */
    void (*close)(struct gw_store *store);
};

/* First member of every implementation's own struct. */
struct gw_store {
    const struct gw_store_ops *ops;
};

#endif
