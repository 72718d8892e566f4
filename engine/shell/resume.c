/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/resolve.h"
#include "shell/daemon.h"
#include "shell/hold.h"
#include "shell/owners.h"
#include "util/cleanup.h"

#define COMMAND_TIMEOUT_NS UINT64_C(10000000000)

struct resume {
    struct gw_daemon *daemon;
    struct gw_vm_call *caller;
    struct gw_owner_call owner_call;
    struct gw_qmp_call qmp_call;
    char uuid[40]; /* the VM may end while the store is asked */
};

static void finish(struct resume *r, const struct gw_error *error)
{
    struct gw_vm_call *caller = r->caller;

    free(r);
    caller->done(caller, NULL, error);
}

static void refuse(struct resume *r, const char *why, const char *hint)
{
    struct gw_error error;

    gw_error_set(&error, GW_E_STATE, "%s", why);
    gw_error_hint(&error, "%s", hint);
    finish(r, &error);
}

static void resumed(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    (void)reply;
    finish(gw_container_of(call, struct resume, qmp_call), error);
}

static void let_run(struct resume *r)
{
    struct gw_vm *vm = gw_vm_find_uuid(r->daemon, r->uuid);

    if (!vm || vm->migration[0] || vm->incoming || vm->was_incoming || vm->watcher ||
        !gw_vm_can_talk(vm)) {
        refuse(r, "the VM is being moved or started, or QEMU does not answer",
               "see `godwit vm show` and `godwit status`");
    } else if (vm->contested[0]) {
        refuse(r, "a migration left this VM paused, and may have left it running elsewhere",
               "`godwit resolve` shows what is known, and resumes it if that is safe");
    } else {
        r->qmp_call.done = resumed;
        gw_qmp_link_execute(vm->qmp, &r->qmp_call, "cont", NULL, COMMAND_TIMEOUT_NS);
    }
}

static enum gw_resolve_record judge(const struct gw_vm *vm, int result,
                                    const struct gw_owner *record)
{
    if (result == GW_OWNER_ABSENT)
        return vm->owner.epoch ? GW_RESOLVE_ABSENT : GW_RESOLVE_NO_STORE;
    if (result != 0)
        return GW_RESOLVE_UNREADABLE;
    return strcmp(record->node, gw_nodes_self(vm->daemon->nodes)) == 0 ||
                   gw_hold_is_void(vm, record)
               ? GW_RESOLVE_OURS
               : GW_RESOLVE_OTHERS;
}

static void record_read(struct gw_owner_call *call, int result, const struct gw_owner *record,
                        const struct gw_error *error)
{
    struct resume *r = gw_container_of(call, struct resume, owner_call);
    const struct gw_vm *vm = gw_vm_find_uuid(r->daemon, r->uuid);
    struct gw_resolve_facts facts = {.here = GW_RESOLVE_PAUSED, .dead = true};
    const char *why;

    (void)error;
    if (vm)
        facts.record = judge(vm, result, record);
    why = vm ? gw_resolve_refusal(&facts, GW_RESOLVE_RESUME) : NULL;
    if (why)
        refuse(r, why, "`godwit resolve` shows what is known and what is safe");
    else
        let_run(r);
}

void gw_resume_start(struct gw_vm *vm, struct gw_vm_call *call)
{
    struct resume *r = calloc(1, sizeof *r);

    if (!r)
        abort();
    r->daemon = vm->daemon;
    r->caller = call;
    r->owner_call.done = record_read;
    snprintf(r->uuid, sizeof r->uuid, "%s", vm->spec->uuid);
    if (gw_owners_has_store(vm->daemon->owners, vm->spec))
        gw_owners_read(vm->daemon->owners, vm->spec, &r->owner_call);
    else
        let_run(r);
}
