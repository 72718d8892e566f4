/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/adopt.h"
#include "shell/daemon.h"
#include "shell/enlist.h"
#include "shell/hold.h"
#include "shell/qmp_batch.h"
#include "util/cleanup.h"

#define PERIPHERALS_MAX 256

struct enlist {
    struct gw_vm_call launch_call;
    struct gw_vm_watcher watcher;
    struct gw_qmp_batch batch;
    struct gw_hold hold;
    struct gw_vm_call *caller;
    struct gw_daemon *daemon;
    struct gw_vm *vm;
    struct gw_error why; /* fail() */
    bool adopt;
};

static void finish(struct enlist *e, const struct gw_error *error)
{
    struct gw_vm_call *caller = e->caller;
    struct gw_vm *vm = error ? NULL : e->vm;

    if (e->vm)
        e->vm->watcher = NULL;
    gw_qmp_batch_fini(&e->batch);
    gw_hold_cancel(&e->hold);
    free(e);
    caller->done(caller, vm, error);
}

static void ended(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error)
{
    struct enlist *e = gw_container_of(call, struct enlist, launch_call);
    struct gw_error why = e->why;

    (void)vm;
    (void)error; /* the first one counts */
    finish(e, &why);
}

/* Whoever hears that it was not started may rely on it that nothing of it is here. */
static void fail(struct enlist *e, const struct gw_error *error)
{
    struct gw_vm *vm = gw_steal_ptr(&e->vm);

    e->why = *error;
    vm->watcher = NULL;
    if (e->adopt) {
        gw_vm_detach(vm);
        ended(&e->launch_call, NULL, NULL);
        return;
    }
    gw_qmp_batch_fini(&e->batch);
    e->launch_call.done = ended;
    gw_vm_end(vm, &e->launch_call);
}

static void gone(struct gw_vm_watcher *watcher, const struct gw_error *error)
{
    struct enlist *e = gw_container_of(watcher, struct enlist, watcher);

    e->vm = NULL;
    finish(e, error);
}

static void ignore_event(struct gw_vm_watcher *watcher, const char *name, json_t *data,
                         uint64_t at_ns)
{
    (void)watcher;
    (void)name;
    (void)data;
    (void)at_ns;
}

/* The type as an object of QEMU's, without its suffix: "pc-q35-10.0-machine" → "pc-q35-10.0". */
static int pin_machine(struct gw_vm *vm, const json_t *replies, struct gw_error *error)
{
    const char *type = json_string_value(json_object_get(replies, "machine"));
    char name[128];
    size_t length = type ? strlen(type) : 0;

    if (length <= strlen("-machine") || length >= sizeof name ||
        strcmp(type + length - strlen("-machine"), "-machine") != 0)
        return gw_error_set(error, GW_E_QEMU, "QEMU does not say which machine it is");
    snprintf(name, sizeof name, "%.*s", (int)(length - strlen("-machine")), type);
    return gw_vm_spec_set_machine(vm->spec, name, error);
}

static int check_peripherals(struct gw_vm *vm, const json_t *replies, struct gw_error *error)
{
    const json_t *list = json_object_get(replies, "peripheral");
    const char *names[PERIPHERALS_MAX];
    size_t n = 0, i;
    json_t *entry;

    json_array_foreach (list, i, entry) {
        const char *type = json_string_value(json_object_get(entry, "type"));
        const char *name = json_string_value(json_object_get(entry, "name"));

        if (name && type && strncmp(type, "child<", 6) == 0 && n < PERIPHERALS_MAX)
            names[n++] = name;
    }
    return gw_adopt_check_devices(vm->spec, names, n, error);
}

static int take_identity(struct gw_vm *vm, const json_t *replies, struct gw_error *error)
{
    const char *uuid = json_string_value(json_object_get(json_object_get(replies, "uuid"), "UUID"));
    bool kvm = json_is_true(json_object_get(json_object_get(replies, "kvm"), "enabled"));

    vm->accel = vm->spec->accel = kvm ? GW_ACCEL_KVM : GW_ACCEL_TCG;
    if (vm->spec->uuid)
        return 0;
    /* QEMU's "no uuid" is all zeros; the owner record and the journal need a real one */
    if (uuid && strspn(uuid, "0-") != strlen(uuid)) {
        vm->spec->uuid = strdup(uuid);
        return vm->spec->uuid ? 0 : gw_error_set(error, GW_E_SYSTEM, "out of memory");
    }
    return gw_vm_spec_resolve(vm->spec, error);
}

/* The command line is of one process and the socket of another: two QEMUs were mixed up. */
static int check_owner(struct gw_vm *vm, struct gw_error *error)
{
    pid_t owner = gw_qmp_link_peer_pid(vm->qmp);

    if (owner == vm->process.pid)
        return 0;
    gw_error_set(error, GW_E_USAGE, "the QMP socket %s is not of process %d but of %d",
                 vm->qmp_path, (int)vm->process.pid, (int)owner);
    return gw_error_hint(error, "give --pid %d, or the socket of the other QEMU", (int)owner);
}

/* Only QEMU knows its uuid when the command line has none. */
static int check_uuid(const struct gw_vm *vm, struct gw_error *error)
{
    const struct gw_vm *other = gw_vm_find_uuid(vm->daemon, vm->spec->uuid);

    if (other == vm)
        return 0;
    return gw_error_set(error, GW_E_EXISTS, "VM '%s' on this node has the uuid %s already",
                        other->spec->name, vm->spec->uuid);
}

/* The guest is ours, and runs. */
static void listed(struct enlist *e)
{
    gw_vm_save(e->vm);
    gw_log(&e->daemon->log, GW_LOG_INFO, e->vm->spec->name, "%s: pid %d, %s, %s",
           e->adopt ? "adopted" : "started", (int)e->vm->process.pid, e->vm->spec->machine,
           gw_accel_name(e->vm->accel));
    finish(e, NULL);
}

static void let_run(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error)
{
    struct enlist *e = gw_container_of(batch, struct enlist, batch);

    (void)replies;
    if (error)
        fail(e, error);
    else
        listed(e);
}

/* The record first: whoever reads that it is ours may find a guest that does not run yet. */
static void held(struct gw_hold *hold, const struct gw_error *error)
{
    struct enlist *e = gw_container_of(hold, struct enlist, hold);

    if (error) {
        fail(e, error);
    } else if (e->adopt) {
        listed(e);
    } else {
        gw_vm_save(e->vm);
        gw_qmp_batch_fini(&e->batch);
        gw_qmp_batch_init(&e->batch, let_run);
        gw_qmp_batch_add(&e->batch, e->vm->qmp, "cont", false, "cont", NULL);
        gw_qmp_batch_end(&e->batch);
    }
}

static void pinned(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error)
{
    struct enlist *e = gw_container_of(batch, struct enlist, batch);
    struct gw_error why;

    if (error) {
        fail(e, error);
        return;
    }
    if (pin_machine(e->vm, replies, &why) < 0 ||
        (e->adopt && (check_owner(e->vm, &why) < 0 || check_peripherals(e->vm, replies, &why) < 0 ||
                      take_identity(e->vm, replies, &why) < 0 || check_uuid(e->vm, &why) < 0))) {
        fail(e, &why);
        return;
    }
    gw_hold_take(&e->hold, e->vm, GW_HOLD_RENEW);
}

static void launched(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error)
{
    struct enlist *e = gw_container_of(call, struct enlist, launch_call);

    if (error) {
        finish(e, error);
        return;
    }
    e->vm = vm;
    e->watcher = (struct gw_vm_watcher){.event = ignore_event, .gone = gone};
    vm->watcher = &e->watcher;
    gw_qmp_batch_init(&e->batch, pinned);
    gw_qmp_batch_add(&e->batch, vm->qmp, "machine", false, "qom-get",
                     json_pack("{s:s, s:s}", "path", "/machine", "property", "type"));
    if (e->adopt) {
        gw_qmp_batch_add(&e->batch, vm->qmp, "peripheral", false, "qom-list",
                         json_pack("{s:s}", "path", "/machine/peripheral"));
        gw_qmp_batch_add(&e->batch, vm->qmp, "kvm", false, "query-kvm", NULL);
        gw_qmp_batch_add(&e->batch, vm->qmp, "uuid", false, "query-uuid", NULL);
    }
    gw_qmp_batch_end(&e->batch);
}

static struct enlist *enlist_new(struct gw_daemon *daemon, bool adopt, struct gw_vm_call *caller)
{
    struct enlist *e = calloc(1, sizeof *e);

    if (!e)
        abort();
    e->daemon = daemon;
    e->adopt = adopt;
    e->caller = caller;
    e->launch_call.done = launched;
    e->hold.done = held;
    return e;
}

void gw_enlist_start(struct gw_daemon *daemon, struct gw_vm_spec *spec, struct gw_vm_call *call)
{
    struct enlist *e = enlist_new(daemon, false, call);
    struct gw_error error;

    if (gw_vm_spec_resolve(spec, &error) < 0 || gw_vm_check_new(daemon, spec, &error) < 0) {
        gw_vm_spec_free(spec);
        finish(e, &error);
        return;
    }
    gw_vm_launch(daemon, spec, 0, &e->launch_call);
}

void gw_enlist_adopt(struct gw_daemon *daemon, const char *qmp_path, pid_t pid, const char *name,
                     struct gw_vm_call *call)
{
    struct enlist *e = enlist_new(daemon, true, call);
    gw_auto(adopt) struct gw_adopt *adopt = NULL;
    struct gw_vm_claim claim = {.pid = pid, .qmp_path = qmp_path, .foreign = true};
    struct gw_error error;

    if (gw_adopt_read(pid, name, &adopt, &error) < 0 || gw_adopt_verdict(adopt, &error) < 0 ||
        gw_vm_check_new(daemon, adopt->spec, &error) < 0) {
        finish(e, &error);
        return;
    }
    claim.start_time = adopt->start_ticks;
    if (gw_vm_take_over(daemon, gw_steal_ptr(&adopt->spec), &claim, &e->launch_call, &error) != 0)
        finish(e, &error);
}
