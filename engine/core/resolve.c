/* SPDX-License-Identifier: Apache-2.0 */
#include "core/resolve.h"

#include <stddef.h>
#include <string.h>

static const char *const action_names[GW_RESOLVE_ACTION_MAX] = {
    [GW_RESOLVE_RESUME] = "resume",
    [GW_RESOLVE_DISCARD] = "discard",
    [GW_RESOLVE_RELEASE] = "release",
    [GW_RESOLVE_FENCE] = "fence",
};

static const char *const qemu_names[] = {
    [GW_RESOLVE_SILENT] = "silent",     [GW_RESOLVE_NONE] = "none",
    [GW_RESOLVE_ARRIVING] = "arriving", [GW_RESOLVE_PAUSED] = "paused",
    [GW_RESOLVE_RUNNING] = "running",
};

const char *gw_resolve_action_name(enum gw_resolve_action action)
{
    return (unsigned)action < GW_RESOLVE_ACTION_MAX ? action_names[action] : "unknown";
}

enum gw_resolve_action gw_resolve_action_from_name(const char *name)
{
    unsigned i;

    for (i = 0; i < GW_RESOLVE_ACTION_MAX; i++)
        if (strcmp(action_names[i], name) == 0)
            break;
    return (enum gw_resolve_action)i;
}

const char *gw_resolve_qemu_name(enum gw_resolve_qemu qemu)
{
    return (unsigned)qemu <= GW_RESOLVE_RUNNING ? qemu_names[qemu] : "unknown";
}

enum gw_resolve_qemu gw_resolve_qemu_from_name(const char *name)
{
    for (unsigned i = 0; i <= GW_RESOLVE_RUNNING; i++)
        if (strcmp(qemu_names[i], name) == 0)
            return (enum gw_resolve_qemu)i;
    return GW_RESOLVE_SILENT;
}

static const char *refuse_resume(const struct gw_resolve_facts *f)
{
    if (f->here != GW_RESOLVE_PAUSED)
        return "no copy of the guest is paused here";
    if (f->there == GW_RESOLVE_RUNNING)
        return "the guest runs on the other node";
    switch (f->record) {
    case GW_RESOLVE_OURS: return NULL; /* by another swap, which a late one loses to */
    case GW_RESOLVE_OTHERS:
        return "the other node was allowed to run the guest, so its disks may be newer than the "
               "memory of the copy here";
    case GW_RESOLVE_ABSENT:
        return "nobody owns the guest any more, so it may have run and ended elsewhere since";
    case GW_RESOLVE_UNREADABLE: return "the owner record cannot be read";
    case GW_RESOLVE_NO_STORE: break;
    }
    if (f->dead && (f->there == GW_RESOLVE_SILENT || f->there == GW_RESOLVE_NONE))
        return NULL;
    return "without an owner record only a person can know that the guest has not run elsewhere: "
           "make sure, then name that node with --dead";
}

static const char *refuse_discard(const struct gw_resolve_facts *f)
{
    if (f->here != GW_RESOLVE_PAUSED)
        return "no copy of the guest is paused here";
    switch (f->record) {
    case GW_RESOLVE_OURS: return "the copy here is the guest, by its owner record: resume it";
    case GW_RESOLVE_OTHERS:
    case GW_RESOLVE_ABSENT: return NULL;
    case GW_RESOLVE_UNREADABLE: return "the owner record cannot be read";
    case GW_RESOLVE_NO_STORE: break;
    }
    return f->there == GW_RESOLVE_RUNNING
               ? NULL
               : "without an owner record the copy here may be the only one; `godwit vm stop "
                 "--force` ends it all the same";
}

static const char *refuse_release(const struct gw_resolve_facts *f)
{
    if (f->here != GW_RESOLVE_NONE)
        return "a QEMU of the guest is here: stop it, and its record goes with it";
    switch (f->record) {
    case GW_RESOLVE_OURS: return NULL;
    case GW_RESOLVE_OTHERS: break;
    case GW_RESOLVE_UNREADABLE: return "the owner record cannot be read";
    default: return "there is no owner record to delete";
    }
    if (f->there == GW_RESOLVE_NONE || (f->there == GW_RESOLVE_SILENT && f->dead))
        return NULL;
    return f->there == GW_RESOLVE_SILENT ? "the other node does not answer: make sure that its "
                                           "QEMU is gone (that the machine "
                                           "is off), then name it with --dead"
                                         : "the other node has a QEMU of the guest";
}

/* A copy that is fenced loses what it had not written. So only one that nobody can reach is, and
 * only where the record tells that this node knows whose guest it is. */
static const char *refuse_fence(const struct gw_resolve_facts *f)
{
    switch (f->record) {
    case GW_RESOLVE_OURS:
    case GW_RESOLVE_OTHERS: break;
    case GW_RESOLVE_UNREADABLE: return "the owner record cannot be read";
    default: return "there is no owner record, so nobody says whose the disks are";
    }
    if (f->there != GW_RESOLVE_SILENT)
        return "the other node answers: end the guest's QEMU there instead";
    if (f->by_policy && (f->record != GW_RESOLVE_OURS || f->here != GW_RESOLVE_RUNNING))
        return "a policy fences only for a guest that runs here and is this node's by its record";
    return f->dead ? NULL
                   : "make sure that the QEMU on the other node may write no more, then name that "
                     "node with --dead";
}

const char *gw_resolve_refusal(const struct gw_resolve_facts *f, enum gw_resolve_action action)
{
    if (f->by_policy && action != GW_RESOLVE_FENCE)
        return "that is for a person to say";
    switch (action) {
    case GW_RESOLVE_RESUME: return refuse_resume(f);
    case GW_RESOLVE_DISCARD: return refuse_discard(f);
    case GW_RESOLVE_RELEASE: return refuse_release(f);
    case GW_RESOLVE_FENCE: return refuse_fence(f);
    default: return "there is no such action";
    }
}

static const char *summary_of_ours(const struct gw_resolve_facts *f)
{
    switch (f->here) {
    case GW_RESOLVE_RUNNING: return "the guest runs here, as its owner record says";
    case GW_RESOLVE_PAUSED: return "the guest is the copy here, which is paused";
    case GW_RESOLVE_ARRIVING: return "the guest is arriving here";
    default: return "the guest was here, and its QEMU is gone";
    }
}

static const char *summary_of_theirs(const struct gw_resolve_facts *f)
{
    if (f->here == GW_RESOLVE_RUNNING)
        return "a copy runs here although the record names another node: stop it here unless you "
               "are sure that it does not run there";
    switch (f->there) {
    case GW_RESOLVE_RUNNING: return "the guest runs on the other node, as its owner record says";
    case GW_RESOLVE_PAUSED: return "the guest is on the other node, and paused there";
    case GW_RESOLVE_ARRIVING: return "the guest is on the other node, which has not let it run yet";
    case GW_RESOLVE_NONE: return "the other node owned the guest, and its QEMU is gone";
    default: return "the other node owns the guest, and does not answer";
    }
}

const char *gw_resolve_summary(const struct gw_resolve_facts *f)
{
    switch (f->record) {
    case GW_RESOLVE_OURS: return summary_of_ours(f);
    case GW_RESOLVE_OTHERS: return summary_of_theirs(f);
    case GW_RESOLVE_UNREADABLE: return "the owner record cannot be read, so nothing is certain";
    default: break;
    }
    if (f->here == GW_RESOLVE_RUNNING)
        return "the guest runs here; it has no owner record";
    if (f->there == GW_RESOLVE_RUNNING)
        return "the guest runs on the other node; it has no owner record";
    return f->here == GW_RESOLVE_PAUSED
               ? "a copy is paused here; without an owner record nobody can tell whether it ran "
                 "elsewhere since"
               : "nothing of this guest is known here";
}
