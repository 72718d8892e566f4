/* SPDX-License-Identifier: Apache-2.0 */
/* How the guest comes back to the source: STOP_COPY, RECLAIM and RESUME. */
#include <stdio.h>
#include <string.h>

#include "shell/guestnet.h"
#include "shell/outgoing_private.h"

static void copy_stopped(struct gw_stop_copy *stop, bool completed, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(stop, struct outgoing, stop_copy);
    struct gw_event ev = {.type = GW_EV_DONE, .error = error};

    ev.done.op = GW_OP_STOP_COPY;
    ev.done.completed = completed;
    gw_migration_close_carrier(&o->base); /* not before: see stop_copy.h */
    gw_migration_post(&o->base, &ev);
}

static void copy_yanked(struct gw_stop_copy *stop, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(stop, struct outgoing, stop_copy);

    gw_migration_log(&o->base, GW_LOG_INFO,
                     "QEMU did not stop sending: its connections were shut down%s%s",
                     error ? ", which failed: " : "", error ? error->msg : "");
}

void gw_outgoing_undo_init(struct outgoing *o)
{
    o->stop_copy.done = copy_stopped;
    o->stop_copy.yanked = copy_yanked;
    gw_stop_copy_init(&o->stop_copy, o->base.daemon->base);
}

void gw_outgoing_stop_copy(struct outgoing *o)
{
    gw_stop_copy_start(&o->stop_copy, o->base.vm->qmp, o->base.record.blackout.switch_ns);
}

/* RECLAIM: {us, e} -> {us, e + 1}. Where the destination has promised that the guest never ran
 * there, also {destination, e + 1} -> {us, e + 2}. */

static void reclaim_from(struct outgoing *o, const struct gw_owner *from)
{
    struct gw_owner to = {.may_have_run = true};

    snprintf(to.node, sizeof to.node, "%s", o->base.record.from);
    gw_owners_swap(o->base.daemon->owners, o->base.vm->spec, &o->owner_call, from, &to);
}

/* Ours, later than known: an earlier RECLAIM that had no answer was carried out after all. */
static bool is_ours(const struct outgoing *o, const struct gw_owner *record)
{
    return strcmp(record->node, o->base.record.from) == 0;
}

static bool is_the_destinations(const struct outgoing *o, const struct gw_owner *record)
{
    return strcmp(record->node, o->base.peer) == 0 && record->epoch == o->base.vm->owner.epoch + 1;
}

/* The guest comes back all the same, by the destination's promise, and the record follows. */
static void settle_later(struct outgoing *o)
{
    struct gw_owner theirs = {.epoch = o->base.vm->owner.epoch + 1};

    snprintf(theirs.node, sizeof theirs.node, "%s", o->base.peer);
    gw_hold_settle(o->base.vm, &theirs);
}

static void reclaimed(struct gw_owner_call *call, int result, const struct gw_owner *current,
                      const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(call, struct outgoing, owner_call);
    struct gw_event ev = {.type = GW_EV_DONE, .error = error, .done = {.op = GW_OP_RECLAIM}};

    if (result == GW_OWNER_CONFLICT && o->base.vm &&
        (is_ours(o, current) || (o->base.machine.by_word && is_the_destinations(o, current)))) {
        reclaim_from(o, current);
        return;
    }
    ev.done.conflict = result > 0;
    if (result == 0 && o->base.vm) {
        o->base.vm->owner = *current;
        gw_vm_save(o->base.vm);
    }
    if (result < 0 && o->base.machine.by_word && o->base.vm)
        settle_later(o);
    if (error)
        gw_migration_log(&o->base, GW_LOG_WARNING, "the owner record was not taken back: %s",
                         error->msg);
    gw_migration_post(&o->base, &ev);
}

void gw_outgoing_reclaim(struct outgoing *o)
{
    gw_migration_log(&o->base, GW_LOG_WARNING, "taking the owner record back: %s",
                     o->base.machine.by_word ? "the destination will not run the guest"
                                             : "whether the destination runs it is not known");
    o->owner_call.done = reclaimed;
    reclaim_from(o, &o->base.vm->owner);
}

/* RESUME: a failed migration must not leave the guest paused unnoticed, so QEMU is not only told.
 */

static void resumed(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(batch, struct outgoing, batch);
    const json_t *status = json_object_get(replies, "status");
    const char *name = json_string_value(json_object_get(status, "status"));
    struct gw_error why;

    gw_nethook_end(gw_steal_ptr(&o->hook), &o->base.machine); /* no later than its traffic */
    if (!error && !json_is_true(json_object_get(status, "running"))) {
        gw_error_set(&why, GW_E_QEMU, "QEMU of %s was told to let it run, and says: %s",
                     o->base.vm_name, name ? name : "nothing");
        error = &why;
    }
    done(o, GW_OP_RESUME, error);
}

/* The guest comes back to life here: so does its traffic. */
void gw_outgoing_resume(struct outgoing *o)
{
    struct gw_qmp_link *qmp = o->base.vm->qmp;

    if (o->base.vm->net)
        gw_guestnet_take(o->base.vm->net);
    o->came_back = true;
    gw_qmp_batch_fini(&o->batch);
    gw_qmp_batch_init(&o->batch, resumed);
    gw_qmp_batch_add(&o->batch, qmp, "cont", false, "cont", NULL);
    gw_qmp_batch_add(&o->batch, qmp, "status", false, "query-status", NULL);
    gw_qmp_batch_end(&o->batch);
}
