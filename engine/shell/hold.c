/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/hold.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shell/daemon.h"

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

/* A destination that failed after it had swapped the record has no use for it any more. */
static bool was_given_back(const struct gw_vm *vm, const struct gw_owner *record)
{
    return vm->given_back[0] && strcmp(record->node, vm->given_back) == 0 &&
           record->epoch == vm->owner.epoch + 1;
}

static void changed(struct gw_owner_call *call, int result, const struct gw_owner *current,
                    const struct gw_error *error)
{
    struct gw_hold *hold = gw_container_of(call, struct gw_hold, call);

    if (result == 0)
        hold_it(hold, current);
    else
        finish(hold, error);
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
    else if (was_given_back(vm, current))
        gw_owners_swap(vm->daemon->owners, vm->spec, call, current, &ours);
    else if (strcmp(current->node, ours.node) != 0)
        is_anothers(hold, current);
    else if (hold->how == GW_HOLD_RENEW)
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

void gw_hold_release(struct gw_vm *vm)
{
    if (vm->owner.epoch && strcmp(vm->owner.node, self_of(vm)) == 0 &&
        gw_owners_has_store(vm->daemon->owners, vm->spec))
        gw_owners_remove(vm->daemon->owners, vm->spec, NULL, &vm->owner);
}

/* Repair. */

static const struct timeval repair_interval = {.tv_sec = 5};

struct gw_hold_repair {
    struct gw_hold hold;
    struct event *timer;
};

static void repaired(struct gw_hold *hold, const struct gw_error *error)
{
    struct gw_hold_repair *repair = gw_container_of(hold, struct gw_hold_repair, hold);
    struct gw_vm *vm = hold->vm;

    if (error && error->code != GW_E_STATE) { /* the store still does not answer */
        event_add(repair->timer, &repair_interval);
        return;
    }
    if (error)
        gw_log(&vm->daemon->log, GW_LOG_ERROR, vm->spec->name, "%s", error->msg);
    else
        gw_log(&vm->daemon->log, GW_LOG_INFO, vm->spec->name, "its owner record says %s again",
               vm->owner.node);
    vm->given_back[0] = '\0';
    gw_vm_save(vm);
    gw_hold_repair_free(vm);
}

static void repair_timer_came(evutil_socket_t fd, short what, void *arg)
{
    struct gw_vm *vm = arg;

    (void)fd;
    (void)what;
    if (vm->migration[0]) /* it looks for itself */
        event_add(vm->repair->timer, &repair_interval);
    else
        gw_hold_take(&vm->repair->hold, vm, GW_HOLD_RENEW);
}

void gw_hold_repair(struct gw_vm *vm, const char *node)
{
    struct gw_hold_repair *repair = calloc(1, sizeof *repair);

    gw_hold_repair_free(vm);
    snprintf(vm->given_back, sizeof vm->given_back, "%s", node);
    if (!repair || !(repair->timer = evtimer_new(vm->daemon->base, repair_timer_came, vm)))
        abort();
    repair->hold.done = repaired;
    vm->repair = repair;
    event_add(repair->timer, &repair_interval);
}

void gw_hold_repair_free(struct gw_vm *vm)
{
    if (!vm->repair)
        return;
    gw_hold_cancel(&vm->repair->hold);
    event_free(vm->repair->timer);
    free(vm->repair);
    vm->repair = NULL;
}
