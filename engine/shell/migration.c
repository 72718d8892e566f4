/* SPDX-License-Identifier: Apache-2.0 */
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/prefault.h"
#include "shell/daemon.h"
#include "shell/error_json.h"
#include "shell/migration.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define VERIFY_LIMIT_NS (300 * GW_NS_PER_S)

/* One event on its way to the machine, with the error that it points to. */
struct gw_posted {
    STAILQ_ENTRY(gw_posted) link;
    struct gw_event ev;
    struct gw_error error;
};

static const enum gw_wire_type wire_types[GW_MSG_MAX] = {
    [GW_MSG_PREPARE] = GW_WIRE_PREPARE,     [GW_MSG_PREPARED] = GW_WIRE_PREPARED,
    [GW_MSG_SWITCHING] = GW_WIRE_SWITCHING, [GW_MSG_COMMIT] = GW_WIRE_COMMIT,
    [GW_MSG_RUNNING] = GW_WIRE_RUNNING,     [GW_MSG_FINISHED] = GW_WIRE_FINISHED,
    [GW_MSG_ABORT] = GW_WIRE_ABORT,         [GW_MSG_FAILED] = GW_WIRE_FAILED,
    [GW_MSG_LOST] = GW_WIRE_LOST,           [GW_MSG_ABORTED] = GW_WIRE_ABORTED,
    [GW_MSG_QUERY] = GW_WIRE_QUERY,         [GW_MSG_BUSY] = GW_WIRE_BUSY,
};

void gw_migration_log(struct gw_migration *m, int level, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    gw_log(&m->daemon->log, (enum gw_log_level)level, m->id, "%s", text);
    if (!m->only_check)
        gw_daemon_note(m->daemon, m->id, text);
}

static void disconnect(struct gw_migration *m)
{
    struct gw_peer_conn *conn = gw_steal_ptr(&m->conn);

    if (conn)
        gw_daemon_part(m->daemon, conn);
}

static void send_message(struct gw_migration *m, enum gw_message message)
{
    json_t *body = m->ops->body_of(m, message);
    struct gw_error error;

    json_object_set_new(body, "id", json_string(m->id));
    if (message == GW_MSG_FAILED || message == GW_MSG_LOST)
        json_object_set_new(body, "error", gw_error_to_json(&m->machine.error));
    if (m->conn && gw_peer_send(m->conn, wire_types[message], body, &error) < 0) {
        gw_error_prefix(&error, "%s cannot be sent to %s", gw_message_name(message), m->peer);
        disconnect(m);
        gw_migration_post(m, &(struct gw_event){.type = GW_EV_PEER_LOST, .error = &error});
    }
    json_decref(body);
}

static void log_phase(struct gw_migration *m, enum gw_phase from, enum gw_phase to)
{
    const struct gw_machine *machine = &m->machine;

    gw_migration_log(m, GW_LOG_INFO, "%s -> %s: %s", gw_phase_name(from), gw_phase_name(to),
                     gw_phase_comment(to));
    if (machine->error.code != GW_OK && (to == GW_FAILING || gw_phase_is_end(to)))
        gw_migration_log(m, machine->cancelled ? GW_LOG_INFO : GW_LOG_ERROR, "%s (%s)%s%s",
                         machine->error.msg, gw_code_name(machine->error.code),
                         machine->error.hint[0] ? "; " : "", machine->error.hint);
}

/*
 * A phase is journaled before what follows from it leaves the node: a restarted daemon must not
 * know less than the other one. Those that the machine names come with the reports: the guest is
 * paused then.
 */
static int change_phase(struct gw_migration *m, enum gw_phase to, struct gw_error *error)
{
    gw_record_phase(&m->record, to, m->machine.now_ns);
    if (gw_phase_is_end(to)) /* written together with the result */
        return 0;
    if (m->only_check || gw_machine_journals_late(&m->machine, to))
        return 0;
    return gw_daemon_journal_phase(m->daemon, m, error);
}

/*
 * What people read of a phase, and what can wait for it otherwise. A message leaves when the loop
 * comes round, so all this has its turn after that: a guest may be waiting for the message.
 */
static void report_phases(struct gw_migration *m)
{
    struct gw_error error;

    for (unsigned i = 0; i < m->n_unreported; i++) {
        if (m->ops->phase_changed)
            m->ops->phase_changed(m);
        if (m->only_check)
            continue;
        if (gw_machine_journals_late(&m->machine, m->unreported[i].to) &&
            m->machine.phase == m->unreported[i].to) /* else a later one stands there already */
            gw_daemon_journal_phase(m->daemon, m, &error);
        log_phase(m, m->unreported[i].from, m->unreported[i].to);
        gw_daemon_tell_migration(m->daemon, m);
    }
    m->n_unreported = 0;
}

static void reports_are_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    report_phases(arg);
}

static void report_later(struct gw_migration *m, enum gw_phase from, enum gw_phase to)
{
    /* a timer runs after the sockets of its round, unlike event_active() */
    static const struct timeval next_round;

    if (m->n_unreported == GW_PHASE_MAX)
        report_phases(m);
    m->unreported[m->n_unreported].from = from;
    m->unreported[m->n_unreported++].to = to;
    event_add(m->reports, &next_round);
}

static void stop_before(struct gw_migration *m, const struct gw_intent *intent)
{
    static const char *const kinds[] = {
        [GW_DO_OP] = "op", [GW_DO_SEND] = "say", [GW_DO_PHASE] = "phase"};
    const char *name = intent->type == GW_DO_OP     ? gw_op_name(intent->op)
                       : intent->type == GW_DO_SEND ? gw_message_name(intent->message)
                                                    : gw_phase_name(intent->phase.to);

    if (intent->type != GW_DO_DISCONNECT)
        gw_breakpoint_at(&m->breakpoint, &m->daemon->log, m->machine.role, kinds[intent->type],
                         name);
}

/* -1: COMMITTING could not be journaled, and what follows from it must not happen. */
static int perform_one(struct gw_migration *m, const struct gw_intent *intent,
                       struct gw_error *error)
{
    stop_before(m, intent);
    switch (intent->type) {
    case GW_DO_OP: m->ops->begin_op(m, intent->op); break;
    case GW_DO_SEND: send_message(m, intent->message); break;
    case GW_DO_DISCONNECT: disconnect(m); break;
    case GW_DO_PHASE:
        if (change_phase(m, intent->phase.to, error) < 0 && intent->phase.to == GW_COMMITTING)
            return -1;
        break;
    }
    return 0;
}

static void perform(struct gw_migration *m, const struct gw_update *u)
{
    struct gw_error error;

    for (unsigned i = 0; i < u->n_intents; i++) {
        if (perform_one(m, &u->intents[i], &error) == 0)
            continue;
        gw_error_prefix(&error, "the commit cannot be entered in the journal");
        gw_error_hint(&error, "see whether the disk of %s is full", m->daemon->config->state_dir);
        gw_migration_post(m, &(struct gw_event){.type = GW_EV_NOT_JOURNALED, .error = &error});
        break;
    }
    for (unsigned i = 0; i < u->n_intents; i++)
        if (u->intents[i].type == GW_DO_PHASE)
            report_later(m, u->intents[i].phase.from, u->intents[i].phase.to);
}

static void set_deadline(struct gw_migration *m)
{
    uint64_t now_ns = gw_clock_ns(), left_ns;
    struct timeval tv;

    if (m->machine.deadline_ns == UINT64_MAX || gw_phase_is_end(m->machine.phase)) {
        event_del(m->deadline);
        return;
    }
    left_ns = m->machine.deadline_ns > now_ns ? m->machine.deadline_ns - now_ns : 0;
    tv.tv_sec = (time_t)(left_ns / 1000000000);
    tv.tv_usec = (suseconds_t)(left_ns % 1000000000 / 1000 + 1);
    event_add(m->deadline, &tv);
}

/*
 * A QEMU that lives but whose QMP was lost on the way. It still is bound to this migration: a guest
 * that has moved must not stay behind as a copy, nor one that may have be resumed by accident.
 */
static void leave_unseen_vm(struct gw_migration *m)
{
    struct gw_vm *vm = m->vm ? NULL : gw_vm_find(m->daemon, m->vm_name);

    if (!vm || strcmp(vm->migration, m->id) != 0)
        return;
    if (m->machine.role == GW_SOURCE && m->machine.phase == GW_COMPLETED) {
        gw_vm_end(vm, NULL);
        return;
    }
    if (gw_machine_is_contested(&m->machine))
        snprintf(vm->contested, sizeof vm->contested, "%s", m->peer);
    vm->migration[0] = '\0';
    gw_vm_save(vm);
}

/* The last thing that happens to a migration: from here on only its record remains. */
static void end(struct gw_migration *m)
{
    struct gw_daemon *daemon = m->daemon;

    m->ended = true;
    report_phases(m);
    leave_unseen_vm(m);
    gw_migration_set_vm(m, NULL);
    if (!m->only_check)
        gw_daemon_journal_end(m->daemon, m);
    if (m->watcher)
        m->watcher->ended(m->watcher, m);
    gw_migration_free(m);
    gw_daemon_migration_ended(daemon);
    malloc_trim(0); /* figures and records come and go: an idle daemon stays small */
}

static void open_mailbox(evutil_socket_t fd, short what, void *arg)
{
    struct gw_migration *m = arg;
    struct gw_update update;
    struct gw_posted *p;

    (void)fd;
    (void)what;
    while ((p = STAILQ_FIRST(&m->posted))) {
        STAILQ_REMOVE_HEAD(&m->posted, link);
        if (p->ev.type == GW_EV_DONE)
            gw_breakpoint_at(&m->breakpoint, &m->daemon->log, m->machine.role, "done",
                             gw_op_name(p->ev.done.op));
        p->ev.at_ns = gw_clock_ns();
        if (gw_machine_step(&m->machine, &p->ev, &update) != 0)
            gw_log(&m->daemon->log, GW_LOG_DEBUG, m->id, "event %d makes no sense in %s",
                   (int)p->ev.type, gw_phase_name(m->machine.phase));
        free(p);
        perform(m, &update);
    }
    set_deadline(m);
    if (gw_phase_is_end(m->machine.phase))
        end(m);
}

void gw_migration_post(struct gw_migration *m, const struct gw_event *ev)
{
    struct gw_posted *p = calloc(1, sizeof *p);

    if (!p)
        abort(); /* an event must not be lost: better to be restarted and to recover */
    p->ev = *ev;
    if (ev->error) {
        p->error = *ev->error;
        p->ev.error = &p->error;
    }
    STAILQ_INSERT_TAIL(&m->posted, p, link);
    event_active(m->mailbox, EV_TIMEOUT, 0);
}

void gw_migration_op_done(struct gw_migration *m, enum gw_op op, const struct gw_error *error)
{
    gw_migration_post(m,
                      &(struct gw_event){.type = GW_EV_DONE, .error = error, .done = {op, true}});
}

static void deadline_came(evutil_socket_t fd, short what, void *arg)
{
    struct gw_migration *m = arg;

    (void)fd;
    (void)what;
    if (gw_clock_ns() >= m->machine.deadline_ns)
        gw_migration_post(m, &(struct gw_event){.type = GW_EV_TICK});
    else
        set_deadline(m);
}

/* The connection. */

void gw_migration_message(struct gw_migration *m, unsigned type, const json_t *body)
{
    struct gw_event ev = {.type = GW_EV_MESSAGE};
    struct gw_error error = {.code = GW_OK};

    for (ev.message = 0; ev.message < GW_MSG_MAX; ev.message++)
        if (wire_types[ev.message] == type)
            break;
    if (ev.message == GW_MSG_MAX) { /* a newer peer may say more than we understand */
        if (m->ops->other_message)
            m->ops->other_message(m, type, body);
        return;
    }
    if (ev.message == GW_MSG_FAILED || ev.message == GW_MSG_LOST) {
        gw_error_from_json(json_object_get(body, "error"), &error);
        gw_error_prefix(&error, "%s", m->peer);
        ev.error = &error;
    }
    if (m->ops->take_body(m, ev.message, body, &error) < 0) {
        gw_error_prefix(&error, "%s sent a malformed %s", m->peer, gw_message_name(ev.message));
        ev = (struct gw_event){.type = GW_EV_PEER_LOST, .error = &error};
        disconnect(m);
    }
    if (!m->ops->hold || !m->ops->hold(m, ev.message))
        gw_migration_post(m, &ev);
}

static void conn_message(struct gw_peer_handler *handler, struct gw_peer_conn *conn, unsigned type,
                         json_t *body)
{
    (void)conn;
    gw_migration_message(gw_container_of(handler, struct gw_migration, conn_handler), type, body);
}

static void conn_closed(struct gw_peer_handler *handler, struct gw_peer_conn *conn,
                        const struct gw_error *error)
{
    struct gw_migration *m = gw_container_of(handler, struct gw_migration, conn_handler);
    struct gw_error why;

    if (error)
        why = *error;
    else
        gw_error_set(&why, GW_E_PEER, "%s said goodbye", m->peer);
    if (!why.hint[0])
        gw_error_hint(&why,
                      "see godwitd's log on %s; once it runs again, start the migration again",
                      m->peer);
    m->conn = NULL;
    gw_peer_free(conn);
    gw_migration_post(m, &(struct gw_event){.type = GW_EV_PEER_LOST, .error = &why});
}

void gw_migration_set_conn(struct gw_migration *m, struct gw_peer_conn *conn)
{
    m->conn_handler.message = conn_message;
    m->conn_handler.closed = conn_closed;
    if (m->conn && m->conn != conn)
        disconnect(m);
    m->conn = conn;
    gw_peer_set_handler(conn, &m->conn_handler);
}

/* The VM. */

static void vm_event(struct gw_vm_watcher *watcher, const char *name, json_t *data, uint64_t at_ns)
{
    struct gw_migration *m = gw_container_of(watcher, struct gw_migration, vm_watcher);
    struct gw_blackout *b = &m->record.blackout;
    const char *status = json_string_value(json_object_get(data, "status"));
    struct gw_event ev = {.type = GW_EV_QEMU_STATUS};
    struct gw_error error;

    if (m->ops->qemu_event)
        m->ops->qemu_event(m, name, at_ns);
    if (strcmp(name, "STOP") == 0 && m->machine.role == GW_SOURCE)
        b->paused_ns = at_ns;
    if (strcmp(name, "RESUME") == 0 && m->machine.role == GW_DESTINATION)
        b->runs_ns = at_ns;
    if (strcmp(name, "MIGRATION") != 0 || !status)
        return;
    ev.status = gw_qemu_status_from_name(status);
    if (ev.status == GW_QEMU_COMPLETED && m->ops->completed)
        m->ops->completed(m);
    if (ev.status == GW_QEMU_COMPLETED)
        *(m->machine.role == GW_SOURCE ? &b->sent_ns : &b->loaded_ns) = at_ns;
    if (ev.status == GW_QEMU_FAILED && event_pending(m->carrier_timer, EV_TIMEOUT, NULL))
        return; /* of course it has, and why will be told */
    if (ev.status == GW_QEMU_FAILED || ev.status == GW_QEMU_CANCELLED) {
        gw_error_set(&error, GW_E_QEMU, "QEMU on %s says that the migration from %s to %s has %s",
                     m->machine.role == GW_SOURCE ? m->record.from : m->record.to, m->record.from,
                     m->record.to, status);
        gw_error_hint(&error,
                      "see `godwit log %s` on both nodes, and whether the nodes' migration "
                      "addresses reach each other",
                      m->id);
        ev.error = &error;
    }
    gw_log(&m->daemon->log, GW_LOG_DEBUG, m->id, "QEMU: %s", status);
    gw_migration_post(m, &ev);
}

static void vm_gone(struct gw_vm_watcher *watcher, const struct gw_error *error)
{
    struct gw_migration *m = gw_container_of(watcher, struct gw_migration, vm_watcher);
    bool source = m->machine.role == GW_SOURCE;
    struct gw_error why = *error;

    gw_error_prefix(&why, "%s", source ? m->record.from : m->record.to);
    gw_error_hint(&why, source ? "see why with `godwit log`; then `godwit vm start` it again"
                               : "the guest runs on the source; see the kernel's log there for "
                                 "what ended QEMU, and start the migration again");
    m->vm = NULL;
    if (m->ops->vm_gone)
        m->ops->vm_gone(m, &why);
    gw_migration_post(m, &(struct gw_event){.type = GW_EV_QEMU_GONE, .error = &why});
}

void gw_migration_set_vm(struct gw_migration *m, struct gw_vm *vm)
{
    if (m->vm && m->vm != vm) {
        m->vm->watcher = NULL;
        m->vm->migration[0] = '\0';
        gw_vm_save(m->vm);
    }
    m->vm = vm;
    if (!vm)
        return;
    m->vm_watcher = (struct gw_vm_watcher){.event = vm_event, .gone = vm_gone};
    vm->watcher = &m->vm_watcher;
    if (vm->state != GW_VM_STARTING) /* after a restart the journal has said */
        vm->ran = vm->state == GW_VM_RUNNING;
    snprintf(vm->migration, sizeof vm->migration, "%s", m->id);
    if (!m->only_check || vm->incoming) /* a check of a running guest leaves no trace */
        gw_vm_save(vm);
}

/* The carrier. */

/* Where QEMU has completed, all pages have arrived: the lanes are not needed any more. */
static bool needs_lanes(const struct gw_migration *m)
{
    return !m->machine.loaded && m->machine.qemu_status != GW_QEMU_COMPLETED;
}

static void tell_carrier_error(struct gw_migration *m)
{
    if (!needs_lanes(m))
        return;
    gw_migration_post(m, &(struct gw_event){.type = GW_EV_QEMU_STATUS,
                                            .status = GW_QEMU_FAILED,
                                            .error = &m->carrier_error});
}

static void carrier_timer_came(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    tell_carrier_error(arg);
}

/* Lanes that broke are mostly the other node's doing, and it is about to say why. */
static void carrier_failed(struct gw_carrier_handler *handler, const struct gw_error *error)
{
    static const struct timeval grace = {.tv_usec = 500000}, paused_grace = {.tv_usec = 50000};
    struct gw_migration *m = gw_container_of(handler, struct gw_migration, carrier_handler);
    struct gw_error *why = &m->carrier_error;

    if (!needs_lanes(m)) {
        gw_log(&m->daemon->log, GW_LOG_DEBUG, m->id, "the carrier did not end well: %s",
               error->msg);
        return;
    }
    *why = *error;
    gw_error_prefix(why, "the carrier from %s to %s, on %s", m->record.from, m->record.to,
                    m->machine.role == GW_SOURCE ? m->record.from : m->record.to);
    if (!why->hint[0])
        gw_error_hint(why,
                      "see whether the nodes' migration addresses reach each other; --route native "
                      "does without the carrier");
    if (why->code == GW_E_PEER)
        event_add(m->carrier_timer, m->machine.phase == GW_SWITCHOVER ? &paused_grace : &grace);
    else
        tell_carrier_error(m);
}

void gw_migration_carrier_options(struct gw_migration *m, const char *socket_path,
                                  struct gw_carrier_options *options)
{
    m->carrier_handler.failed = carrier_failed;
    *options = (struct gw_carrier_options){
        .base = m->daemon->base,
        .handler = &m->carrier_handler,
        .tls = m->daemon->pki.ctx,
        .transport = m->transport,
        .peer = m->peer,
        .id = m->id,
        .n_channels = m->wishes.channels,
        .socket_path = socket_path,
    };
}

void gw_migration_close_carrier(struct gw_migration *m)
{
    if (!m->carrier)
        return;
    gw_carrier_stop(m->carrier);
    json_decref(m->record.carrier);
    m->record.carrier = gw_carrier_to_json(m->carrier);
    gw_carrier_free(gw_steal_ptr(&m->carrier));
}

/* Verifying memory. */

int gw_migration_open_verify(struct gw_migration *m, const char *info_ramblock,
                             struct gw_error *error)
{
    int r;

    if (!m->vm)
        return gw_error_set(error, GW_E_QEMU_GONE, "QEMU of %s has ended", m->vm_name);
    r = gw_verify_open(m->daemon->base, &m->verify_handler, m->vm->process.pid,
                       info_ramblock ? info_ramblock : "", &m->verify, error);
    return r < 0 ? gw_error_prefix(error, "the memory of %s cannot be verified", m->vm_name) : 0;
}

/* Life and death. */

int gw_migration_init(struct gw_migration *m, struct gw_daemon *daemon, enum gw_role role,
                      const struct gw_migration_ops *ops, const char *id, struct gw_error *error)
{
    uint32_t random;

    evutil_secure_rng_get_bytes(&random, sizeof random);
    m->daemon = daemon;
    m->ops = ops;
    STAILQ_INIT(&m->posted);
    TAILQ_INSERT_TAIL(&daemon->migrations, m, link);
    gw_machine_init(&m->machine, role, &gw_limits_default);
    m->machine.limits.committing_ns = daemon->config->commit_timeout_s * GW_NS_PER_S;
    gw_record_init(&m->record, gw_clock_ns());
    if (id)
        snprintf(m->id, sizeof m->id, "%s", id);
    else
        snprintf(m->id, sizeof m->id, "m-%08x", random);
    m->mailbox = event_new(daemon->base, -1, 0, open_mailbox, m);
    m->deadline = evtimer_new(daemon->base, deadline_came, m);
    m->reports = evtimer_new(daemon->base, reports_are_due, m);
    m->carrier_timer = evtimer_new(daemon->base, carrier_timer_came, m);
    if (!m->mailbox || !m->deadline || !m->reports || !m->carrier_timer)
        return gw_error_set(error, GW_E_SYSTEM, "out of memory for a migration");
    return 0;
}

/* A guest may be paused for longer than usual where the policy says that it may, or its memory is
 * to be hashed meanwhile. */
static void set_limits(struct gw_migration *m)
{
    uint64_t blackout_ns = m->wishes.blackout_ms * GW_NS_PER_MS;

    if (m->machine.limits.switchover_ns < 2 * blackout_ns)
        m->machine.limits.switchover_ns = 2 * blackout_ns;
    if (m->wishes.verify)
        m->machine.limits.switchover_ns += VERIFY_LIMIT_NS;
}

void gw_migration_allow_prefault(struct gw_migration *m, const struct gw_vm_spec *spec)
{
    m->machine.limits.preparing_ns += gw_prefault_limit_ns(spec, m->wishes.prefault);
}

int gw_migration_begin(struct gw_migration *m, struct gw_error *error)
{
    struct gw_update update;

    if (!m->only_check && gw_daemon_journal_begin(m->daemon, m, error) < 0) {
        gw_error_prefix(error, "the migration cannot be entered in the journal");
        return gw_error_hint(error, "see whether the disk of %s is full",
                             m->daemon->config->state_dir);
    }
    set_limits(m);
    if (m->daemon->config->breakpoints && !m->only_check)
        gw_breakpoint_take(&m->breakpoint, m->daemon->config->run_dir);
    gw_record_phase(&m->record, GW_PREPARING, gw_clock_ns());
    if (!m->only_check) {
        gw_migration_log(m, GW_LOG_INFO, "%s: %s -> %s", m->vm_name, m->record.from, m->record.to);
        gw_daemon_tell_migration(m->daemon, m);
    }
    gw_machine_begin(&m->machine, gw_clock_ns(), &update);
    gw_migration_perform(m, &update);
    return 0;
}

void gw_migration_perform(struct gw_migration *m, const struct gw_update *update)
{
    perform(m, update);
    set_deadline(m);
}

void gw_migration_free(struct gw_migration *m)
{
    struct gw_posted *p;

    if (!m)
        return;
    TAILQ_REMOVE(&m->daemon->migrations, m, link);
    if (m->vm)
        m->vm->watcher = NULL;
    disconnect(m);
    gw_migration_close_carrier(m);
    gw_verify_free(m->verify);
    m->ops->fini(m);
    while ((p = STAILQ_FIRST(&m->posted))) {
        STAILQ_REMOVE_HEAD(&m->posted, link);
        free(p);
    }
    if (m->mailbox)
        event_free(m->mailbox);
    if (m->deadline)
        event_free(m->deadline);
    if (m->reports)
        event_free(m->reports);
    if (m->carrier_timer)
        event_free(m->carrier_timer);
    gw_record_fini(&m->record);
    free(m);
}

struct gw_migration *gw_migration_find(struct gw_daemon *daemon, const char *id)
{
    struct gw_migration *m;

    TAILQ_FOREACH (m, &daemon->migrations, link)
        if (strcmp(m->id, id) == 0)
            return m;
    return NULL;
}

json_t *gw_migration_to_json(const struct gw_migration *m)
{
    json_t *json =
        gw_record_to_json(&m->record, m->id, m->vm_name, m->vm_uuid, &m->machine, gw_clock_ns());

    if (m->carrier)
        json_object_set_new(json, "carrier", gw_carrier_to_json(m->carrier));
    return json;
}

/* What was asked for, on its way to the other node. */

json_t *gw_wishes_to_json(const struct gw_native_wishes *w)
{
    return json_pack("{s:I, s:I, s:I, s:b, s:I, s:b, s:b, s:b, s:I, s:b}", "bandwidth_bytes_per_s",
                     (json_int_t)w->bandwidth_bytes_per_s, "blackout_ms",
                     (json_int_t)w->blackout_ms, "channels", (json_int_t)w->channels, "zstd",
                     (int)w->zstd, "zstd_level", (json_int_t)w->zstd_level, "carrier",
                     (int)w->carrier, "verify", (int)w->verify, "all_pages", (int)w->all_pages,
                     "fence_after_s", (json_int_t)w->fence_after_s, "prefault", (int)w->prefault);
}

int gw_wishes_from_json(const json_t *json, struct gw_native_wishes *w, struct gw_error *error)
{
    json_int_t bandwidth, blackout, channels, level;
    json_int_t fence = json_integer_value(json_object_get(json, "fence_after_s"));
    int zstd;

    if (json_unpack((json_t *)json, "{s:I, s:I, s:I, s:b, s:I}", "bandwidth_bytes_per_s",
                    &bandwidth, "blackout_ms", &blackout, "channels", &channels, "zstd", &zstd,
                    "zstd_level", &level) != 0)
        return gw_error_set(error, GW_E_PROTOCOL, "the wishes are incomplete");
    if (bandwidth < 0 || blackout < 1 || blackout > 2000000 || channels < 1 || channels > 64 ||
        level < 1 || level > 20 || fence < 0 || fence > 3600)
        return gw_error_set(error, GW_E_PROTOCOL, "a wish is out of its range");
    *w = (struct gw_native_wishes){
        .bandwidth_bytes_per_s = (uint64_t)bandwidth,
        .blackout_ms = (uint32_t)blackout,
        .channels = (uint32_t)channels,
        .zstd = zstd != 0,
        .zstd_level = (uint32_t)level,
        .carrier = json_is_true(json_object_get(json, "carrier")),
        .verify = json_is_true(json_object_get(json, "verify")),
        .fence_after_s = (uint32_t)fence,
        .all_pages = json_is_true(json_object_get(json, "all_pages")),
        .prefault = json_is_true(json_object_get(json, "prefault")),
    };
    return 0;
}
