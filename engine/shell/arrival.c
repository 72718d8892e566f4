/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/arrival.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell/error_json.h"
#include "util/cleanup.h"

#define RESUME_TIMEOUT_NS UINT64_C(10000000000)

static const struct timeval ask_again_in = {.tv_sec = 1};

struct gw_arrival_case {
    LIST_ENTRY(gw_arrival_case) link;
    struct gw_daemon *daemon;
    char id[GW_MIGRATION_ID_SIZE], vm_name[64];
    struct gw_vm_spec
        *spec; /* where its owner record is: its uuid, and disks if the journal had them */
    enum gw_phase phase; /* GW_PHASE_MAX: the journal has no unfinished migration of it */
    enum gw_arrival_qemu qemu;
    bool waits;                   /* for QEMU to answer; the log has it */
    struct gw_vm_watcher watcher; /* its QEMU may end while the store is asked */
    struct gw_owner_call owner_call;
    struct gw_owner record;
    struct gw_qmp_call resume_call;
    struct event *timer;
};

static void ask_store(struct gw_arrival_case *a);

static struct gw_vm *vm_of(const struct gw_arrival_case *a)
{
    return gw_vm_find(a->daemon, a->vm_name);
}

static void case_free(struct gw_arrival_case *a)
{
    struct gw_vm *vm = vm_of(a);

    if (vm && vm->watcher == &a->watcher)
        vm->watcher = NULL;
    LIST_REMOVE(a, link);
    gw_owner_call_cancel(&a->owner_call);
    gw_qmp_session_cancel_call(&a->resume_call);
    event_free(a->timer);
    gw_vm_spec_free(a->spec);
    free(a);
}

void gw_arrivals_free(struct gw_daemon *d)
{
    while (!LIST_EMPTY(&d->arrivals))
        case_free(LIST_FIRST(&d->arrivals));
}

/* What the journal says from now on; -1: it does not, and the case will be looked at again. Only
 * what it says is carried out, because it answers the source. */
static int close_row(struct gw_arrival_case *a, enum gw_arrival verdict)
{
    static const struct {
        const char *phase, *text;
    } ends[] = {
        [GW_ARRIVAL_KEEP] = {"completed", "after a restart of the daemon: the guest runs here"},
        [GW_ARRIVAL_RESUME] = {"completed", "after a restart of the daemon: the guest is ours by "
                                            "its owner record, and was let run"},
        [GW_ARRIVAL_DESTROY] = {"failed", "after a restart of the daemon: undone, the guest never "
                                          "ran here"},
        [GW_ARRIVAL_LOST] = {"failed", "after a restart of the daemon: QEMU is gone, and the guest "
                                       "may have run"},
    };
    struct gw_journal *journal = a->daemon->journal;
    struct gw_journal_note note = {.at_ms = gw_node_now_ms(),
                                   .kind = GW_JOURNAL_LOG,
                                   .text = ends[verdict].text};
    struct gw_error error;
    json_t *record = NULL;
    int result = 0;

    if (verdict == GW_ARRIVAL_LOST) {
        gw_error_set(&error, GW_E_UNRESOLVED, "%s", note.text);
        record = json_pack("{s:o}", "error", gw_error_to_json(&error));
    }
    if (a->id[0]) {
        gw_journal_note(journal, a->id, &note, NULL);
        result = gw_journal_migration_end(journal, a->id, ends[verdict].phase, note.at_ms, record,
                                          &error);
    }
    json_decref(record);
    if (result < 0) {
        gw_log(&a->daemon->log, GW_LOG_ERROR, a->id, "journal: %s; trying again", error.msg);
        event_add(a->timer, &ask_again_in);
        return -1;
    }
    gw_log(&a->daemon->log, GW_LOG_INFO, a->id[0] ? a->id : a->vm_name, "%s", note.text);
    return 0;
}

static void keep(struct gw_arrival_case *a, enum gw_arrival verdict)
{
    struct gw_vm *vm = vm_of(a);

    if (close_row(a, verdict) < 0)
        return;
    if (vm) { /* it may have ended since it was seen to run */
        vm->migration[0] = '\0';
        vm->was_incoming = false;
        if (a->record.epoch && strcmp(a->record.node, gw_nodes_self(a->daemon->nodes)) == 0)
            vm->owner = a->record;
        gw_vm_save(vm);
    }
    case_free(a);
}

/* migration stays set: what is removed with this QEMU, the owner record is not. */
static void destroy(struct gw_arrival_case *a)
{
    struct gw_vm *vm = vm_of(a);

    if (close_row(a, GW_ARRIVAL_DESTROY) < 0)
        return;
    case_free(a);
    if (vm)
        gw_vm_end(vm, NULL);
}

static void resumed(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct gw_arrival_case *a = gw_container_of(call, struct gw_arrival_case, resume_call);

    (void)reply;
    if (!error) {
        keep(a, GW_ARRIVAL_RESUME);
    } else if (error->code == GW_E_QEMU) { /* QEMU lives and said no: the guest has not run */
        gw_log(&a->daemon->log, GW_LOG_ERROR, a->id, "%s", error->msg);
        destroy(a);
    } else if (error->code == GW_E_TIMEOUT) { /* it is ours; whether it runs will be seen */
        keep(a, GW_ARRIVAL_KEEP);
    } /* otherwise QEMU is gone, and gone() is told */
}

static void resume(struct gw_arrival_case *a)
{
    struct gw_vm *vm = vm_of(a);

    if (!vm->ran) { /* it was paused when it was moved, and stays so */
        keep(a, GW_ARRIVAL_RESUME);
        return;
    }
    a->qemu = GW_ARRIVAL_QEMU_RAN; /* it may have, from here on */
    a->resume_call.done = resumed;
    gw_qmp_link_execute(vm->qmp, &a->resume_call, "cont", NULL, RESUME_TIMEOUT_NS);
}

static void wait_for_qemu(struct gw_arrival_case *a)
{
    if (!a->waits)
        gw_log(&a->daemon->log, GW_LOG_WARNING, a->vm_name,
               "its QEMU does not answer, and the guest may run in it: it is asked until it does; "
               "`godwit resolve %s` shows what is known",
               a->vm_name);
    a->waits = true;
}

static void judge(struct gw_arrival_case *a, enum gw_arrival_record record)
{
    enum gw_arrival verdict = gw_arrival_judge(a->phase, a->qemu, record);

    switch (verdict) {
    case GW_ARRIVAL_KEEP: keep(a, verdict); break;
    case GW_ARRIVAL_RESUME: resume(a); break;
    case GW_ARRIVAL_DESTROY: destroy(a); break;
    case GW_ARRIVAL_LOST:
        if (close_row(a, verdict) == 0)
            case_free(a);
        break;
    case GW_ARRIVAL_ASK:
        gw_log(&a->daemon->log, GW_LOG_WARNING, a->vm_name,
               "may it run here? Its owner record cannot be read: asking again");
        event_add(a->timer, &ask_again_in);
        break;
    case GW_ARRIVAL_WAIT: wait_for_qemu(a); break;
    }
}

static void record_read(struct gw_owner_call *call, int result, const struct gw_owner *current,
                        const struct gw_error *error)
{
    struct gw_arrival_case *a = gw_container_of(call, struct gw_arrival_case, owner_call);
    bool ours = strcmp(current->node, gw_nodes_self(a->daemon->nodes)) == 0;

    if (error && result != GW_OWNER_ABSENT)
        gw_log(&a->daemon->log, GW_LOG_WARNING, a->vm_name, "%s", error->msg);
    a->record = *current;
    if (result == 0)
        judge(a, ours ? GW_ARRIVAL_RECORD_OURS : GW_ARRIVAL_RECORD_THEIRS);
    else if (result != GW_OWNER_ABSENT)
        judge(a, GW_ARRIVAL_RECORD_UNKNOWN);
    else if (a->qemu == GW_ARRIVAL_QEMU_SILENT) /* there was one: it says nothing of this guest */
        wait_for_qemu(a);
    else
        judge(a, GW_ARRIVAL_NO_RECORD);
}

static void ask_store(struct gw_arrival_case *a)
{
    struct gw_vm *vm = vm_of(a);
    const struct gw_vm_spec *spec = vm ? vm->spec : a->spec;

    a->owner_call.done = record_read;
    if ((vm && !vm->owner.epoch) || !gw_owners_has_store(a->daemon->owners, spec))
        judge(a, GW_ARRIVAL_NO_RECORD);
    else
        gw_owners_read(a->daemon->owners, spec, &a->owner_call);
}

static void timer_came(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ask_store(arg);
}

static void ignore_event(struct gw_vm_watcher *watcher, const char *name, json_t *data,
                         uint64_t at_ns)
{
    (void)watcher;
    (void)name;
    (void)data;
    (void)at_ns;
}

/* Its QEMU ended while we were at it. If we had told it to run, it may have run. */
static void is_gone(struct gw_arrival_case *a)
{
    bool may_have_run = a->qemu == GW_ARRIVAL_QEMU_RAN;

    gw_owner_call_cancel(&a->owner_call);
    event_del(a->timer);
    a->qemu = GW_ARRIVAL_QEMU_GONE;
    if (may_have_run)
        judge(a, GW_ARRIVAL_RECORD_OURS);
    else
        ask_store(a);
}

static void gone(struct gw_vm_watcher *watcher, const struct gw_error *error)
{
    (void)error;
    is_gone(gw_container_of(watcher, struct gw_arrival_case, watcher));
}

/* spec is taken. */
static struct gw_arrival_case *case_new(struct gw_daemon *d, const char *id, const char *vm_name,
                                        struct gw_vm_spec *spec)
{
    struct gw_arrival_case *a = calloc(1, sizeof *a);

    if (!a || !spec || !(a->timer = evtimer_new(d->base, timer_came, a)))
        abort();
    a->daemon = d;
    a->phase = GW_PHASE_MAX;
    a->spec = spec;
    snprintf(a->id, sizeof a->id, "%s", id);
    snprintf(a->vm_name, sizeof a->vm_name, "%s", vm_name);
    LIST_INSERT_HEAD(&d->arrivals, a, link);
    return a;
}

static struct gw_vm_spec *only_uuid(const char *uuid)
{
    struct gw_vm_spec *spec = calloc(1, sizeof *spec);

    if (!spec || !(spec->uuid = strdup(uuid)))
        abort();
    return spec;
}

static struct gw_arrival_case *find(struct gw_daemon *d, const char *vm_name)
{
    struct gw_arrival_case *a;

    LIST_FOREACH (a, &d->arrivals, link)
        if (strcmp(a->vm_name, vm_name) == 0)
            return a;
    return NULL;
}

void gw_arrival_remember(struct gw_daemon *d, const char *id, const struct gw_vm_spec *spec)
{
    json_t *json = gw_vm_spec_to_json(spec);
    struct gw_vm_spec *copy = NULL;

    if (gw_vm_spec_from_json(json, &copy, NULL) == 0)
        case_new(d, id, spec->name, copy);
    json_decref(json);
}

void gw_arrivals_sort_out(struct gw_daemon *d)
{
    struct gw_arrival_case *a, *next;

    for (a = LIST_FIRST(&d->arrivals); a; a = next) {
        next = LIST_NEXT(a, link);
        if (a->phase == GW_PHASE_MAX && !vm_of(a))
            case_free(a);
    }
}

void gw_arrival_take_up(struct gw_daemon *d, const char *id, const char *vm_name, const char *uuid,
                        enum gw_phase phase, struct gw_vm *vm)
{
    struct gw_arrival_case *a = find(d, vm_name);

    if (!a || strcmp(a->id, id) != 0)
        a = case_new(d, id, vm_name, only_uuid(uuid));
    a->phase = phase;
    if (!vm) {
        a->qemu = GW_ARRIVAL_QEMU_GONE;
        ask_store(a);
    } else if (!vm->was_incoming) { /* it had arrived, only the row was not closed any more */
        a->qemu = GW_ARRIVAL_QEMU_RAN;
        judge(a, GW_ARRIVAL_NO_RECORD);
    } /* otherwise gw_arrival_found() or gw_arrival_gone() comes */
}

static void look_at(struct gw_daemon *d, struct gw_vm *vm, enum gw_arrival_qemu qemu)
{
    struct gw_arrival_case *a = find(d, vm->spec->name);

    if (!a)
        a = case_new(d, vm->migration, vm->spec->name, only_uuid(vm->spec->uuid));
    a->watcher = (struct gw_vm_watcher){.event = ignore_event, .gone = gone};
    vm->watcher = &a->watcher;
    a->qemu = qemu;
    gw_owner_call_cancel(&a->owner_call);
    event_del(a->timer);
    ask_store(a);
}

void gw_arrival_found(struct gw_daemon *d, struct gw_vm *vm)
{
    look_at(d, vm,
            vm->has_run ? GW_ARRIVAL_QEMU_RAN
            : vm->loads ? GW_ARRIVAL_QEMU_LOADS
                        : GW_ARRIVAL_QEMU_LOADED);
}

void gw_arrival_silent(struct gw_daemon *d, struct gw_vm *vm)
{
    look_at(d, vm, GW_ARRIVAL_QEMU_SILENT);
}

void gw_arrival_gone(struct gw_daemon *d, const char *vm_name)
{
    struct gw_arrival_case *a = find(d, vm_name);

    if (a)
        is_gone(a);
}
