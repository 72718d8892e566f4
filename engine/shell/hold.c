/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/hold.h"

#include <inttypes.h>
#include <string.h>

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

static void was_read(struct gw_owner_call *call, int result, const struct gw_owner *current,
                     const struct gw_error *error)
{
    struct gw_hold *hold = gw_container_of(call, struct gw_hold, call);
    struct gw_vm *vm = hold->vm;
    struct gw_owner ours = {.epoch = 1, .may_have_run = true};

    memcpy(ours.node, self_of(vm), strlen(self_of(vm)) + 1);
    hold->call.done = changed;
    if (result == GW_OWNER_ABSENT && hold->how == GW_HOLD_LOOK)
        hold_it(hold, &(struct gw_owner){.epoch = 0});
    else if (result == GW_OWNER_ABSENT)
        gw_owners_create(vm->daemon->owners, vm->spec, call, &ours);
    else if (result != 0)
        finish(hold, error);
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
