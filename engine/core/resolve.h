/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person may do with a guest of which a migration left open who runs it. Pure rules: what is
 * known goes in, what is safe comes out.
 *
 * Two things must never happen: that two copies run, and that a copy runs whose memory is older
 * than its disks. Hence a copy that is paused here may run only if no other node was ever allowed
 * to run the guest since.
 */
#ifndef GW_CORE_RESOLVE_H
#define GW_CORE_RESOLVE_H

#include <stdbool.h>

enum gw_resolve_record {
    GW_RESOLVE_NO_STORE,   /* guests have no owner records here */
    GW_RESOLVE_UNREADABLE, /* the store does not answer, or what it has is damaged */
    GW_RESOLVE_ABSENT,     /* no node owns the guest: it has ended, or never had a record */
    GW_RESOLVE_OURS,
    GW_RESOLVE_OTHERS, /* the other node was allowed to run it */
};

/* A QEMU of this guest, here or on the other node. */
enum gw_resolve_qemu {
    GW_RESOLVE_SILENT, /* the other node does not answer; or there is no other node to ask */
    GW_RESOLVE_NONE,
    GW_RESOLVE_ARRIVING, /* on its way there, and has not run */
    GW_RESOLVE_PAUSED,
    GW_RESOLVE_RUNNING,
};

enum gw_resolve_action {
    GW_RESOLVE_RESUME,  /* let the copy that is paused here run */
    GW_RESOLVE_DISCARD, /* end the copy that is paused here */
    GW_RESOLVE_RELEASE, /* delete the record, so that the guest can be started anywhere */
    GW_RESOLVE_FENCE,   /* keep the other node's QEMU from the guest's disks, for good */
    GW_RESOLVE_ACTION_MAX
};

struct gw_resolve_facts {
    enum gw_resolve_record record;
    enum gw_resolve_qemu here, there;
    bool dead; /* a person says: the other node's QEMU is certainly gone */
    /* With dead: no person says so, but a policy, as the other node has not answered for its time.
     */
    bool by_policy;
};

/* "resume", "discard", "release", "fence". */
const char *gw_resolve_action_name(enum gw_resolve_action action);

/* The action of that name, or GW_RESOLVE_ACTION_MAX. */
enum gw_resolve_action gw_resolve_action_from_name(const char *name);

/* "silent", "none", "arriving", "paused", "running". */
const char *gw_resolve_qemu_name(enum gw_resolve_qemu qemu);

/* The qemu of that name; GW_RESOLVE_SILENT for a name that a newer peer may know. */
enum gw_resolve_qemu gw_resolve_qemu_from_name(const char *name);

/* NULL: safe. Otherwise why it is refused, one sentence without a full stop; static. */
const char *gw_resolve_refusal(const struct gw_resolve_facts *f, enum gw_resolve_action action);

/* What the facts amount to, one sentence; static. */
const char *gw_resolve_summary(const struct gw_resolve_facts *f);

#endif
