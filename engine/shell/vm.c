/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/prefault.h"
#include "host/tap.h"
#include "shell/daemon.h"
#include "shell/guestaddr.h"
#include "shell/guestnet.h"
#include "shell/hold.h"
#include "shell/migration.h"
#include "shell/vm_private.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/tree.h"

#define COMMAND_TIMEOUT_NS UINT64_C(10000000000)
#define LAUNCH_TIMEOUT_NS  UINT64_C(10000000000) /* beside what takes the RAM */

static const struct timeval quit_patience = {.tv_sec = 5};
/* A QEMU that closes QMP is mostly about to end by itself, with words that say why. */
static const struct timeval end_patience = {.tv_sec = 2};

const char *gw_vm_state_name(enum gw_vm_state state)
{
    switch (state) {
    case GW_VM_STARTING: return "starting";
    case GW_VM_INCOMING: return "incoming";
    case GW_VM_PAUSED: return "paused";
    case GW_VM_RUNNING: return "running";
    case GW_VM_ENDING: return "ending";
    }
    return "unknown";
}

static void set_state(struct gw_vm *vm, enum gw_vm_state state)
{
    if (vm->state == state || vm->state == GW_VM_ENDING)
        return;
    vm->state = state;
    gw_daemon_tell_vm(vm->daemon, vm);
}

struct gw_vm *gw_vm_find(struct gw_daemon *daemon, const char *name)
{
    struct gw_vm *vm;

    TAILQ_FOREACH (vm, &daemon->vms, link)
        if (strcmp(vm->spec->name, name) == 0)
            return vm;
    return NULL;
}

struct gw_vm *gw_vm_find_uuid(struct gw_daemon *daemon, const char *uuid)
{
    struct gw_vm *vm;

    TAILQ_FOREACH (vm, &daemon->vms, link)
        if (vm->spec->uuid && strcmp(vm->spec->uuid, uuid) == 0)
            return vm;
    return NULL;
}

int gw_vm_check_new(struct gw_daemon *daemon, const struct gw_vm_spec *spec, struct gw_error *error)
{
    const struct gw_vm *other = gw_vm_find(daemon, spec->name);

    if (other) {
        gw_error_set(error, GW_E_EXISTS, "there is a VM '%s' on this node already", spec->name);
        return gw_error_hint(error, "`godwit vm show %s` describes it", spec->name);
    }
    other = spec->uuid ? gw_vm_find_uuid(daemon, spec->uuid) : NULL;
    if (other) {
        gw_error_set(error, GW_E_EXISTS, "VM '%s' on this node has the uuid %s already",
                     other->spec->name, spec->uuid);
        return gw_error_hint(error, "give this one another uuid");
    }
    return 0;
}

/* Journal. */

static json_t *owner_json(const struct gw_owner *owner)
{
    return owner->epoch
               ? json_pack("{s:s, s:I}", "node", owner->node, "epoch", (json_int_t)owner->epoch)
               : NULL;
}

void gw_vm_save(struct gw_vm *vm)
{
    json_t *taps = json_array(), *whole;
    struct gw_error error;

    for (unsigned i = 0; i < vm->n_taps; i++)
        json_array_append_new(taps, json_string(vm->tap_names[i]));
    whole = json_pack("{s:o, s:s, s:b, s:b, s:b, s:o, s:o*, s:o*, s:s, s:o}", "spec",
                      gw_vm_spec_to_json(vm->spec), "accel", gw_accel_name(vm->accel), "incoming",
                      (int)(vm->incoming || vm->was_incoming), "foreign", (int)vm->foreign, "ran",
                      (int)vm->ran, "taps", taps, "owner", owner_json(&vm->owner), "void_owner",
                      owner_json(&vm->void_owner), "contested", vm->contested, "addresses",
                      gw_guestaddr_to_json(vm->addresses));
    struct gw_journal_vm row = {
        .name = vm->spec->name,
        .uuid = vm->spec->uuid,
        .spec = whole,
        .state = gw_vm_state_name(vm->state),
        .pid = vm->process.pid,
        .start_ticks = vm->process.start_time,
        .qmp_path = vm->qmp_path,
        .run_dir = vm->rundir,
        .migration = vm->migration[0] ? vm->migration : NULL,
    };
    if (gw_journal_vm_put(vm->daemon->journal, &row, &error) < 0)
        gw_log(&vm->daemon->log, GW_LOG_ERROR, vm->spec->name, "journal: %s", error.msg);
    vm->in_journal = true;
    json_decref(whole);
}

/* The end. */

static void remove_rundir(struct gw_vm *vm)
{
    if (vm->rundir && gw_remove_tree(vm->rundir) < 0)
        gw_log(&vm->daemon->log, GW_LOG_WARNING, vm->spec->name, "removing %s: %s", vm->rundir,
               strerror(errno));
}

/*
 * Whether the record is this node's to delete: not while a migration may have given the guest to
 * another node, which then deletes it.
 */
static bool is_surely_ours(const struct gw_vm *vm)
{
    const struct gw_migration *m = gw_migration_find(vm->daemon, vm->migration);

    if (!vm->migration[0])
        return true;
    if (!m)
        return false;
    if (m->machine.role == GW_DESTINATION)
        return m->machine.phase == GW_FINISHING;
    return m->only_check || m->machine.phase == GW_PREPARING || m->machine.phase == GW_PRECOPY ||
           m->machine.phase == GW_SWITCHOVER;
}

/* Removes everything that was made for it, and the VM itself; QEMU has ended or never began. */
static void dispose(struct gw_vm *vm)
{
    struct gw_daemon *d = vm->daemon;

    for (unsigned i = 0; i < vm->n_taps; i++)
        gw_tap_delete(vm->tap_names[i], NULL);
    remove_rundir(vm);
    if (is_surely_ours(vm))
        gw_hold_release(vm);
    if (vm->in_journal)
        gw_journal_vm_remove(d->journal, vm->spec->name, NULL);
    vm->state = GW_VM_ENDING;
    gw_daemon_tell_vm(d, vm);
    gw_vm_detach(vm);
}

void gw_vm_detach(struct gw_vm *vm)
{
    TAILQ_REMOVE(&vm->daemon->vms, vm, link);
    gw_hold_settle_cancel(vm);
    gw_qmp_session_cancel_call(&vm->status_call);
    gw_qmp_session_cancel_call(&vm->quit_call);
    gw_qmp_link_free(vm->qmp);
    if (vm->exit_event)
        event_free(vm->exit_event);
    if (vm->kill_timer)
        event_free(vm->kill_timer);
    if (vm->qmp_timer)
        event_free(vm->qmp_timer);
    gw_guestnet_free(vm->net);
    gw_guestaddr_free(vm->addresses);
    gw_process_fini(&vm->process);
    gw_vm_spec_free(vm->spec);
    json_decref(vm->version);
    free(vm->rundir);
    free(vm->log_path);
    free(vm->qmp_path);
    free(vm);
}

void gw_vm_finish(struct gw_vm *vm, const struct gw_error *error)
{
    struct gw_vm_call *launch_call = gw_steal_ptr(&vm->launch_call);
    struct gw_vm_call *end_call = gw_steal_ptr(&vm->end_call);
    struct gw_vm_watcher *watcher = gw_steal_ptr(&vm->watcher);
    struct gw_error why = *error; /* it may be the VM's own */

    dispose(vm);
    if (watcher)
        watcher->gone(watcher, &why);
    if (launch_call)
        launch_call->done(launch_call, NULL, &why);
    if (end_call)
        end_call->done(end_call, NULL, NULL);
}

static void say_how_it_ended(struct gw_vm *vm, const struct gw_process_exit *ex)
{
    bool wanted = vm->state == GW_VM_ENDING;
    char how[64], words[320] = "";

    gw_process_exit_text(ex, how, sizeof how);
    if (vm->log_path)
        gw_process_log_tail(vm->log_path, vm->process.log_offset, words, sizeof words);
    if (vm->end_error.code != GW_OK && ex->signaled &&
        ex->value == SIGKILL) { /* it was killed for a reason that says more */
        gw_error_prefix(&vm->end_error, "QEMU of %s had to be killed", vm->spec->name);
    } else {
        gw_error_set(&vm->end_error, GW_E_QEMU_GONE, "QEMU of %s %s%s%s", vm->spec->name, how,
                     words[0] ? ", its last words: " : "", words);
        gw_error_hint(&vm->end_error, "its last words say what to change in the VM file or on the "
                                      "node; without any, see the kernel's log");
    }
    gw_log(&vm->daemon->log, wanted ? GW_LOG_INFO : GW_LOG_WARNING, vm->spec->name, "%s",
           vm->end_error.msg);
}

/* Commands under way are answered before the VM goes: whoever sent one relies on it. */
static void process_ended(evutil_socket_t fd, short what, void *arg)
{
    struct gw_vm *vm = arg;
    struct gw_process_exit ex;

    (void)fd;
    (void)what;
    if (vm->ended || gw_process_reap(&vm->process, &ex) != 0)
        return;
    vm->ended = true;
    event_del(vm->exit_event);
    say_how_it_ended(vm, &ex);
    if (vm->qmp && !vm->qmp_is_closed)
        gw_qmp_link_close(vm->qmp, &vm->end_error); /* qmp_closed() goes on */
    else
        gw_vm_finish(vm, &vm->end_error);
}

static void kill_now(evutil_socket_t fd, short what, void *arg)
{
    struct gw_vm *vm = arg;

    (void)fd;
    (void)what;
    gw_log(&vm->daemon->log, GW_LOG_WARNING, vm->spec->name, "QEMU does not end: killing it");
    gw_process_signal(&vm->process, SIGKILL);
}

static void quit_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    (void)call;
    (void)reply;
    (void)error; /* the end of the process is what counts */
}

void gw_vm_power_down(struct gw_vm *vm)
{
    if (gw_qmp_call_is_pending(&vm->quit_call))
        return;
    vm->quit_call.done = quit_answered;
    gw_qmp_link_execute(vm->qmp, &vm->quit_call, "system_powerdown", NULL, COMMAND_TIMEOUT_NS);
}

void gw_vm_end(struct gw_vm *vm, struct gw_vm_call *call)
{
    vm->end_call = call;
    event_del(vm->qmp_timer);
    set_state(vm, GW_VM_ENDING);
    if (!gw_vm_can_talk(vm)) {
        gw_process_signal(&vm->process, SIGKILL);
        return;
    }
    gw_qmp_session_cancel_call(&vm->quit_call);
    vm->quit_call.done = quit_answered;
    gw_process_step_back(&vm->process);
    gw_qmp_link_execute(vm->qmp, &vm->quit_call, "quit", NULL, COMMAND_TIMEOUT_NS);
    event_add(vm->kill_timer, &quit_patience);
}

bool gw_vm_can_talk(const struct gw_vm *vm)
{
    return vm->qmp && gw_qmp_link_is_ready(vm->qmp);
}

/* QMP. */

/* The time at which QEMU emitted an event, on our monotonic clock: both clocks are this host's. */
static uint64_t monotonic_of(int64_t realtime_us)
{
    uint64_t now_ns = gw_clock_ns();
    struct timespec wall;
    int64_t ago_ns;

    clock_gettime(CLOCK_REALTIME, &wall);
    ago_ns = ((int64_t)wall.tv_sec * 1000000 + wall.tv_nsec / 1000 - realtime_us) * 1000;
    if (realtime_us < 0 || ago_ns < 0 || ago_ns > 1000000000) /* the wall clock was set meanwhile */
        return now_ns;
    return now_ns - (uint64_t)ago_ns;
}

static void qmp_event(struct gw_qmp_handler *handler, const char *name, json_t *data,
                      int64_t realtime_us)
{
    struct gw_vm *vm = gw_container_of(handler, struct gw_vm, qmp_handler);
    struct gw_vm_watcher *watcher = vm->watcher;

    if (strcmp(name, "STOP") == 0 || strcmp(name, "RESUME") == 0)
        vm->status_is_old = true;
    if (strcmp(name, "STOP") == 0 && !vm->incoming)
        set_state(vm, GW_VM_PAUSED);
    if (strcmp(name, "RESUME") == 0 && !vm->incoming)
        set_state(vm, GW_VM_RUNNING);
    if (watcher)
        watcher->event(watcher, name, data, monotonic_of(realtime_us));
}

static void launched(struct gw_vm *vm)
{
    struct gw_vm_call *call = gw_steal_ptr(&vm->launch_call);

    if (call)
        call->done(call, vm, NULL);
}

/* A QEMU that was to be taken over and cannot be talked to: nothing about it has changed. */
static void give_back(struct gw_vm *vm, const struct gw_error *error)
{
    struct gw_vm_call *call = gw_steal_ptr(&vm->launch_call);
    struct gw_vm_watcher *watcher = gw_steal_ptr(&vm->watcher);
    struct gw_error why = *error;

    gw_vm_detach(vm);
    if (watcher)
        watcher->gone(watcher, &why);
    call->done(call, NULL, &why);
}

/* QEMU opens its disks before it answers, and waits for a cluster as long as that takes. */
static void blame_ceph(struct gw_vm *vm)
{
    const struct gw_vm_spec *spec = vm->spec;
    struct gw_error said = vm->end_error;

    for (size_t i = 0; i < spec->n_disks; i++) {
        if (!spec->disks[i].rbd)
            continue;
        gw_error_set(&vm->end_error, GW_E_TIMEOUT,
                     "%s: it opens RBD image %s first, and waits for a Ceph cluster that does not "
                     "answer as long as that takes",
                     said.msg, spec->disks[i].rbd);
        gw_error_hint(&vm->end_error, "see whether `ceph -s` answers on this node; if it does, the "
                                      "node may be too busy");
        return;
    }
}

/* QMP is of no use for this VM: what that means depends on what it is in the middle of. */
static void cannot_talk(struct gw_vm *vm, const struct gw_error *error)
{
    static const struct timeval later = {.tv_sec = 2};
    struct gw_vm_watcher *watcher = gw_steal_ptr(&vm->watcher);

    gw_log(&vm->daemon->log, GW_LOG_WARNING, vm->spec->name, "QMP: %s", error->msg);
    if (vm->was_incoming && error->code == GW_E_TIMEOUT) { /* its guest may run: ask again */
        vm->watcher = watcher;
        event_add(vm->qmp_timer, &later);
        if (vm->launch_call && vm->launch_call->silent)
            vm->launch_call->silent(vm->launch_call, vm);
        return;
    }
    if (vm->launching || vm->incoming || vm->was_incoming) {
        vm->watcher = watcher; /* hears of the end */
        vm->end_error = *error;
        if (vm->launching && error->code == GW_E_TIMEOUT)
            blame_ceph(vm);
        event_add(vm->kill_timer, &end_patience);
        return;
    }
    if (vm->launch_call) {
        vm->watcher = watcher;
        give_back(vm, error);
        return;
    }
    event_add(vm->qmp_timer, &later);
    if (watcher)
        watcher->gone(watcher, error);
}

/*
 * Of QEMU's run states (qapi/run-state.json) those in which only a guest is that has executed here.
 * A guest that stood still on the source, after an I/O error say, arrives in that state
 * (process_incoming_migration_bh() in QEMU's migration/migration.c).
 */
static bool has_run(const char *status)
{
    return status && (strcmp(status, "running") == 0 || strcmp(status, "suspended") == 0);
}

/* Those in which a guest on its way is not complete. */
static bool is_loading(const char *status)
{
    return !status || strcmp(status, "inmigrate") == 0 || strcmp(status, "prelaunch") == 0;
}

static void status_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error);

/*
 * QEMU finds out and answers in two turns of its main loop, and lets others work in between: an
 * event that comes before the answer may be newer than the answer (seen with 10.0.2: RESUME after
 * migrate_cancel, then "finish-migrate").
 */
static void ask_status(struct gw_vm *vm)
{
    vm->status_is_old = false;
    vm->status_call.done = status_answered;
    gw_qmp_link_execute(vm->qmp, &vm->status_call, "query-status", NULL, COMMAND_TIMEOUT_NS);
}

static void status_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct gw_vm *vm = gw_container_of(call, struct gw_vm, status_call);

    if (error) {
        cannot_talk(vm, error);
        return;
    }
    if (vm->status_is_old) {
        ask_status(vm);
        return;
    }
    if (vm->incoming)
        set_state(vm, GW_VM_INCOMING);
    else
        set_state(vm,
                  json_is_true(json_object_get(reply, "running")) ? GW_VM_RUNNING : GW_VM_PAUSED);
    vm->has_run = has_run(json_string_value(json_object_get(reply, "status")));
    vm->loads = is_loading(json_string_value(json_object_get(reply, "status")));
    vm->launching = false;
    if (!vm->foreign || vm->in_journal)
        gw_vm_save(vm);
    launched(vm);
}

static void qmp_ready(struct gw_qmp_handler *handler, json_t *greeting)
{
    struct gw_vm *vm = gw_container_of(handler, struct gw_vm, qmp_handler);

    json_decref(vm->version);
    vm->version = json_incref(json_object_get(greeting, "version"));
    ask_status(vm);
}

/* The link closes because QEMU ends, and then the process says more: wait for it. */
static void qmp_closed(struct gw_qmp_handler *handler, const struct gw_error *error)
{
    struct gw_vm *vm = gw_container_of(handler, struct gw_vm, qmp_handler);

    vm->qmp_is_closed = true;
    if (vm->ended)
        gw_vm_finish(vm, &vm->end_error);
    else if (gw_process_alive(&vm->process) && vm->state != GW_VM_ENDING)
        cannot_talk(vm, error);
}

int gw_vm_open_qmp(struct gw_vm *vm, struct gw_error *error)
{
    struct gw_qmp_link_options options = {.session.want_oob = true};
    uint64_t more_ns = gw_prefault_limit_ns(vm->spec, vm->prefault);

    if (vm->launching && more_ns)
        options.connect_timeout_ns = options.session.handshake_timeout_ns =
            LAUNCH_TIMEOUT_NS + more_ns;
    vm->qmp_is_closed = false;
    vm->qmp_handler =
        (struct gw_qmp_handler){.ready = qmp_ready, .event = qmp_event, .closed = qmp_closed};
    vm->qmp = gw_qmp_link_open(vm->daemon->base, vm->qmp_path, &vm->qmp_handler, &options, error);
    return vm->qmp ? 0 : -1;
}

static void open_qmp_again(evutil_socket_t fd, short what, void *arg)
{
    struct gw_vm *vm = arg;

    (void)fd;
    (void)what;
    gw_qmp_link_free(gw_steal_ptr(&vm->qmp));
    gw_vm_open_qmp(vm, NULL);
}

int gw_vm_watch_process(struct gw_vm *vm)
{
    vm->exit_event =
        event_new(vm->daemon->base, vm->process.pidfd, EV_READ | EV_PERSIST, process_ended, vm);
    return vm->exit_event ? event_add(vm->exit_event, NULL) : -1;
}

struct gw_vm *gw_vm_new(struct gw_daemon *daemon, struct gw_vm_spec *spec)
{
    struct gw_vm *vm = calloc(1, sizeof *vm);

    if (!vm)
        abort();
    vm->daemon = daemon;
    vm->spec = spec;
    vm->process = GW_PROCESS_NONE;
    vm->kill_timer = evtimer_new(daemon->base, kill_now, vm);
    vm->qmp_timer = evtimer_new(daemon->base, open_qmp_again, vm);
    TAILQ_INSERT_TAIL(&daemon->vms, vm, link);
    return vm;
}

/* Adoption: the QEMU is there already. */

int gw_vm_take_over(struct gw_daemon *daemon, struct gw_vm_spec *spec,
                    const struct gw_vm_claim *claim, struct gw_vm_call *call,
                    struct gw_error *error)
{
    struct gw_vm *vm = gw_vm_new(daemon, spec);

    vm->foreign = claim->foreign;
    vm->ran = claim->ran;
    if (claim->contested)
        snprintf(vm->contested, sizeof vm->contested, "%s", claim->contested);
    vm->owner = claim->owner;
    vm->void_owner = claim->void_owner;
    if (claim->migration)
        snprintf(vm->migration, sizeof vm->migration, "%s", claim->migration);
    vm->accel = claim->accel;
    vm->was_incoming = claim->incoming;
    vm->in_journal = claim->in_journal;
    vm->launch_call = call;
    vm->qmp_path = strdup(claim->qmp_path);
    if (claim->rundir) {
        vm->rundir = strdup(claim->rundir);
        if (asprintf(&vm->log_path, "%s/qemu.log", claim->rundir) < 0)
            abort();
    }
    for (; vm->n_taps < claim->n_taps && vm->n_taps < GW_VM_MAX_NICS; vm->n_taps++)
        snprintf(vm->tap_names[vm->n_taps], sizeof vm->tap_names[0], "%s", claim->taps[vm->n_taps]);
    if (gw_process_attach(claim->pid, claim->start_time, &vm->process, error) < 0) {
        if (error->code != GW_E_NOT_FOUND) {
            gw_vm_detach(vm);
            return -1;
        }
        if (claim->in_journal)
            dispose(vm);
        else
            gw_vm_detach(vm);
        return 1;
    }
    if (gw_vm_watch_process(vm) < 0 || gw_vm_open_qmp(vm, error) < 0) {
        gw_vm_detach(vm);
        return -1;
    }
    vm->addresses = gw_guestaddr_open(vm);
    gw_guestaddr_from_json(vm->addresses, claim->addresses);
    return 0;
}

uint64_t gw_vm_prefaulted_bytes(const struct gw_vm *vm)
{
    uint64_t bytes = 0;

    if (vm->prefault)
        gw_process_rss(&vm->process, &bytes);
    return bytes < vm->spec->memory_bytes ? bytes : vm->spec->memory_bytes;
}

json_t *gw_vm_to_json(const struct gw_vm *vm)
{
    uint64_t rss_bytes = 0;

    gw_process_rss(&vm->process, &rss_bytes);
    return json_pack("{s:s, s:s?, s:s, s:I, s:i, s:s, s:s, s:s, s:I, s:I, s:s?, s:b, s:s?, s:s?}",
                     "name", vm->spec->name, "uuid", vm->spec->uuid, "state",
                     gw_vm_state_name(vm->state), "memory_bytes",
                     (json_int_t)vm->spec->memory_bytes, "cpus", (int)vm->spec->cpus, "cpu",
                     vm->spec->cpu, "machine", vm->spec->machine, "accel", gw_accel_name(vm->accel),
                     "pid", (json_int_t)vm->process.pid, "rss_bytes", (json_int_t)rss_bytes, "qmp",
                     vm->qmp_path, "adopted", (int)vm->foreign, "console", vm->spec->console.log,
                     "migration", vm->migration[0] ? vm->migration : NULL);
}
