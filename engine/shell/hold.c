/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/hold.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shell/daemon.h"
#include "util/cleanup.h"

static const struct timeval settle_again_in = {.tv_sec = 1};

struct gw_hold_settling {
    struct gw_hold hold;
    struct event *timer;
    unsigned n_lost; /* how often in a row the record was another's */
};

static const char *self_of(const struct gw_vm *vm)
{
    return gw_nodes_self(vm->daemon->nodes);
}

static void finish(struct gw_hold *hold, const struct gw_error *error)
{
    struct gw_error why;

    if (error) {
        why = *error;
        gw_error_prefix(&why, "VM '%s'", hold->vm->spec->name);
    }
    hold->done(hold, error ? &why : NULL);
}

static void hold_it(struct gw_hold *hold, const struct gw_owner *record)
{
    bool news =
        record->epoch != hold->vm->owner.epoch || strcmp(record->node, hold->vm->owner.node) != 0;

    hold->vm->owner = *record;
    if (news && hold->vm->in_journal && hold->how != GW_HOLD_LOOK)
        gw_vm_save(hold->vm);
    finish(hold, NULL);
}

static void changed(struct gw_owner_call *call, int result, const struct gw_owner *current,
                    const struct gw_error *error)
{
    struct gw_hold *hold = gw_container_of(call, struct gw_hold, call);

    if (result == 0) {
        hold->vm->void_owner.epoch = 0; /* the epoch that it could follow from has been consumed */
        hold_it(hold, current);
    } else {
        finish(hold, error);
    }
}

bool gw_hold_is_void(const struct gw_vm *vm, const struct gw_owner *record)
{
    return record->epoch == vm->void_owner.epoch && strcmp(record->node, vm->void_owner.node) == 0;
}

static void is_anothers(struct gw_hold *hold, const struct gw_owner *record)
{
    struct gw_error error;

    gw_error_set(&error, GW_E_STATE,
                 "its owner record says that node %s may run it, epoch %" PRIu64, record->node,
                 record->epoch);
    gw_error_hint(&error, "`godwit resolve %s` shows what is known and what can be done safely",
                  hold->vm->spec->uuid);
    finish(hold, &error);
}

/* A guest that ended and begins again must not meet requests of its last life that are still on
 * their way: its epochs go on from more than it ever had, unless it was moved more than once a
 * second all its life. */
static uint64_t first_epoch(void)
{
    time_t now_s = time(NULL);

    return now_s > 0 ? (uint64_t)now_s : 1;
}

static void was_read(struct gw_owner_call *call, int result, const struct gw_owner *current,
                     const struct gw_error *error)
{
    struct gw_hold *hold = gw_container_of(call, struct gw_hold, call);
    struct gw_vm *vm = hold->vm;
    struct gw_owner ours = {.epoch = first_epoch(), .may_have_run = true};

    memcpy(ours.node, self_of(vm), strlen(self_of(vm)) + 1);
    hold->call.done = changed;
    if (result == GW_OWNER_ABSENT && hold->how == GW_HOLD_LOOK)
        hold_it(hold, &(struct gw_owner){.epoch = 0});
    else if (result == GW_OWNER_ABSENT)
        gw_owners_create(vm->daemon->owners, vm->spec, call, &ours);
    else if (result != 0)
        finish(hold, error);
    else if (strcmp(current->node, ours.node) != 0 && !gw_hold_is_void(vm, current))
        is_anothers(hold, current);
    else if (hold->how == GW_HOLD_RENEW || (vm->void_owner.epoch && hold->how != GW_HOLD_LOOK))
        gw_owners_swap(vm->daemon->owners, vm->spec, call, current, &ours);
    else
        hold_it(hold, current);
}

void gw_hold_take(struct gw_hold *hold, struct gw_vm *vm, enum gw_hold_how how)
{
    size_t length = strlen(self_of(vm));

    hold->vm = vm;
    hold->how = how;
    hold->call.done = was_read;
    if (gw_owners_has_store(vm->daemon->owners, vm->spec) && length > 0 &&
        length <= GW_OWNER_NODE_MAX)
        gw_owners_read(vm->daemon->owners, vm->spec, &hold->call);
    else
        hold_it(hold, &(struct gw_owner){.epoch = 0});
}

void gw_hold_cancel(struct gw_hold *hold)
{
    gw_owner_call_cancel(&hold->call);
}

static void settle_now(evutil_socket_t fd, short what, void *arg)
{
    struct gw_hold_settling *s = arg;

    (void)fd;
    (void)what;
    if (s->hold.vm->void_owner.epoch)
        gw_hold_take(&s->hold, s->hold.vm, GW_HOLD_RENEW);
    else /* a migration that began meanwhile has done it */
        gw_hold_settle_cancel(s->hold.vm);
}

/* The late swap may overtake ours once. A record that is another's for good is beyond us. */
static void settled(struct gw_hold *hold, const struct gw_error *error)
{
    struct gw_hold_settling *s = gw_container_of(hold, struct gw_hold_settling, hold);
    const struct gw_log *log = &hold->vm->daemon->log;

    s->n_lost = error && error->code == GW_E_STATE ? s->n_lost + 1 : 0;
    if (error && s->n_lost < 3) {
        event_add(s->timer, &settle_again_in);
        return;
    }
    gw_log(log, error ? GW_LOG_ERROR : GW_LOG_INFO, hold->vm->spec->name, "%s",
           error ? error->msg : "its owner record is ours for certain again");
    gw_hold_settle_cancel(hold->vm);
}

void gw_hold_settle(struct gw_vm *vm, const struct gw_owner *theirs)
{
    struct gw_hold_settling *s = calloc(1, sizeof *s);

    if (!s)
        abort();
    gw_hold_settle_cancel(vm);
    vm->void_owner = *theirs;
    gw_vm_save(vm);
    s->hold.vm = vm;
    s->hold.done = settled;
    s->timer = evtimer_new(vm->daemon->base, settle_now, s);
    if (!s->timer)
        abort();
    vm->settling = s;
    event_add(s->timer, &settle_again_in);
}

void gw_hold_settle_cancel(struct gw_vm *vm)
{
    struct gw_hold_settling *s = gw_steal_ptr(&vm->settling);

    if (!s)
        return;
    gw_hold_cancel(&s->hold);
    event_free(s->timer);
    free(s);
}

void gw_hold_release(struct gw_vm *vm)
{
    if (vm->owner.epoch && strcmp(vm->owner.node, self_of(vm)) == 0 &&
        gw_owners_has_store(vm->daemon->owners, vm->spec))
        gw_owners_remove(vm->daemon->owners, vm->spec, NULL, &vm->owner);
}
