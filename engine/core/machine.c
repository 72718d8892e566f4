/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two machines have in common: names, the step, the one way from phase to phase, and the
 * one way into failure. The happy path and the undo path of each role stand in source.c and
 * destination.c.
 *
 * Ownership in short. Up to COMMITTING the guest belongs to the source, whose QEMU holds all of it:
 * any failure leads to FAILING, which brings it back to life there. COMMIT gives the destination
 * the right to swap the owner record {source, e} to {destination, e + 1} (CLAIM); only when that
 * was done may it let the guest run. From COMMIT on the source's copy comes back only after a swap
 * of its own (RECLAIM), {source, e} to {source, e + 1}. The store lets one of the two happen. So
 * the source need not wait for a destination that is silent, and never guesses.
 *
 * Two things besides the record are relied on. FAILED is the destination's promise that the guest
 * never ran there and never will, whatever the record says. A guest without a record is committed
 * by the message alone: then only the destination's word (RUNNING, FAILED, LOST) decides, and while
 * there is none the source's copy stays paused.
 */
#include <assert.h>
#include <string.h>

#include "core/internal.h"

#define SECOND_NS UINT64_C(1000000000)

const struct gw_limits gw_limits_default = {
    .preparing_ns = 60 * SECOND_NS,
    .precopy_ns = 0,
    .switchover_ns = 15 * SECOND_NS,
    .committing_ns = 60 * SECOND_NS,
    .reclaim_ns = 3 * SECOND_NS,
    .failing_ns = 15 * SECOND_NS,
    .retry_ns = SECOND_NS / 2,
};

static const char *const op_names[GW_OP_MAX] = {
    [GW_OP_INSPECT] = "inspect", [GW_OP_CONNECT] = "connect",     [GW_OP_LAUNCH] = "launch",
    [GW_OP_ARM] = "arm",         [GW_OP_LISTEN] = "listen",       [GW_OP_START] = "start",
    [GW_OP_SWITCH] = "switch",   [GW_OP_VERIFY] = "verify",       [GW_OP_CLAIM] = "claim",
    [GW_OP_RECLAIM] = "reclaim", [GW_OP_STOP_COPY] = "stop-copy", [GW_OP_RESUME] = "resume",
    [GW_OP_DISARM] = "disarm",   [GW_OP_DESTROY] = "destroy",
};

static const char *const message_names[GW_MSG_MAX] = {
    [GW_MSG_PREPARE] = "prepare", [GW_MSG_PREPARED] = "prepared", [GW_MSG_SWITCHING] = "switching",
    [GW_MSG_COMMIT] = "commit",   [GW_MSG_RUNNING] = "running",   [GW_MSG_FINISHED] = "finished",
    [GW_MSG_ABORT] = "abort",     [GW_MSG_FAILED] = "failed",     [GW_MSG_LOST] = "lost",
    [GW_MSG_ABORTED] = "aborted", [GW_MSG_QUERY] = "query",       [GW_MSG_BUSY] = "busy",
};

const char *gw_op_name(enum gw_op op)
{
    return (unsigned)op < GW_OP_MAX ? op_names[op] : "unknown";
}

const char *gw_message_name(enum gw_message message)
{
    return (unsigned)message < GW_MSG_MAX ? message_names[message] : "unknown";
}

enum gw_qemu_status gw_qemu_status_from_name(const char *name)
{
    static const char *const names[] = {
        [GW_QEMU_NONE] = "none",           [GW_QEMU_SETUP] = "setup",
        [GW_QEMU_ACTIVE] = "active",       [GW_QEMU_PRE_SWITCHOVER] = "pre-switchover",
        [GW_QEMU_DEVICE] = "device",       [GW_QEMU_COMPLETED] = "completed",
        [GW_QEMU_FAILED] = "failed",       [GW_QEMU_CANCELLING] = "cancelling",
        [GW_QEMU_CANCELLED] = "cancelled",
    };

    for (unsigned i = 0; i < GW_QEMU_OTHER; i++)
        if (strcmp(names[i], name) == 0)
            return (enum gw_qemu_status)i;
    return GW_QEMU_OTHER;
}

static const struct phase_ops *phases_of(const struct gw_machine *m)
{
    return m->role == GW_SOURCE ? source_phases : destination_phases;
}

static struct gw_intent *add_intent(struct gw_update *u, enum gw_intent_type type)
{
    struct gw_intent *intent = &u->intents[u->n_intents];

    assert(u->n_intents < GW_UPDATE_INTENTS_MAX);
    u->n_intents++;
    intent->type = type;
    return intent;
}

void begin_op(struct gw_machine *m, enum gw_op op, struct gw_update *u)
{
    assert(!(m->ops & (UINT32_C(1) << op)));
    m->ops |= UINT32_C(1) << op;
    add_intent(u, GW_DO_OP)->op = op;
}

void send_message(struct gw_update *u, enum gw_message message)
{
    add_intent(u, GW_DO_SEND)->message = message;
}

void disconnect(struct gw_update *u)
{
    add_intent(u, GW_DO_DISCONNECT);
}

static uint64_t phase_limit_ns(const struct gw_machine *m, enum gw_phase phase)
{
    switch (phase) {
    case GW_PREPARING: return m->limits.preparing_ns;
    case GW_PRECOPY: return m->role == GW_SOURCE ? m->limits.precopy_ns : 0;
    case GW_SWITCHOVER: return m->limits.switchover_ns;
    case GW_COMMITTING: return m->limits.committing_ns;
    case GW_FAILING: return m->role == GW_SOURCE ? m->limits.failing_ns : 0;
    default: return 0;
    }
}

void go(struct gw_machine *m, enum gw_phase to, struct gw_update *u)
{
    const struct phase_ops *ops = phases_of(m);
    struct gw_intent *intent;
    uint64_t limit_ns = phase_limit_ns(m, to);

    assert(ops[m->phase].may_go_to & TO(to));
    intent = add_intent(u, GW_DO_PHASE);
    intent->phase.from = m->phase;
    intent->phase.to = to;
    m->phase = to;
    m->times.phase_ns[to] = m->now_ns;
    m->deadline_ns = limit_ns ? m->now_ns + limit_ns : UINT64_MAX;
    if (ops[to].enter)
        ops[to].enter(m, u);
}

void keep_error(struct gw_machine *m, const struct gw_error *error)
{
    if (m->error.code != GW_OK)
        return;
    if (error)
        m->error = *error;
    else
        gw_error_set(&m->error, GW_E_PROTOCOL, "it failed without a reason given");
}

void fail(struct gw_machine *m, const struct gw_error *error, struct gw_update *u)
{
    keep_error(m, error);
    go(m, GW_FAILING, u);
}

void fail_with(struct gw_machine *m, enum gw_code code, const char *msg, const char *hint,
               struct gw_update *u)
{
    struct gw_error error;

    gw_error_set(&error, code, "%s", msg);
    gw_error_hint(&error, "%s", hint);
    fail(m, &error, u);
}

void strand(struct gw_machine *m, const char *msg, const char *hint, struct gw_update *u)
{
    struct gw_error why = m->error;

    gw_error_set(&m->error, GW_E_UNRESOLVED, "%s%s%s", msg, why.code ? ": " : "",
                 why.code ? why.msg : "");
    gw_error_hint(&m->error, "%s", hint);
    m->needs_person = true;
    go(m, GW_FAILED, u);
    disconnect(u);
}

void end_failed(struct gw_machine *m, struct gw_update *u)
{
    go(m, m->cancelled ? GW_CANCELLED : GW_FAILED, u);
    disconnect(u);
}

void gw_machine_init(struct gw_machine *m, enum gw_role role, const struct gw_limits *limits)
{
    memset(m, 0, sizeof *m);
    m->role = role;
    m->limits = *limits;
    m->phase = GW_PREPARING;
    m->deadline_ns = UINT64_MAX;
    m->guest_runs = true;
}

static void start_update(struct gw_machine *m, struct gw_update *u, uint64_t now_ns)
{
    assert(now_ns >= m->now_ns);
    u->n_intents = 0;
    m->now_ns = now_ns;
}

void gw_machine_begin(struct gw_machine *m, uint64_t now_ns, struct gw_update *u)
{
    start_update(m, u, now_ns);
    m->times.phase_ns[GW_PREPARING] = now_ns;
    m->deadline_ns = now_ns + m->limits.preparing_ns;
    phases_of(m)[GW_PREPARING].enter(m, u);
}

/* What is true whatever the phase is noted here, so that no handler can forget it. */
static void note_facts(struct gw_machine *m, const struct gw_event *ev)
{
    switch (ev->type) {
    case GW_EV_DONE:
        assert(m->ops & (UINT32_C(1) << ev->done.op));
        m->ops &= ~(UINT32_C(1) << ev->done.op);
        if (ev->done.op == GW_OP_CONNECT && !ev->error)
            m->connected = true;
        break;
    case GW_EV_PEER_LOST: m->connected = false; break;
    case GW_EV_QEMU_GONE: m->has_qemu = false; break;
    case GW_EV_PROGRESS: m->progress = ev->progress; break;
    case GW_EV_QEMU_STATUS:
        m->qemu_status = ev->status;
        if (ev->status == GW_QEMU_PRE_SWITCHOVER && m->role == GW_SOURCE)
            m->paused = true;
        if (ev->status == GW_QEMU_DEVICE)
            m->times.device_ns = ev->at_ns;
        if (ev->status == GW_QEMU_COMPLETED && m->role == GW_DESTINATION) {
            m->loaded = true;
            m->times.loaded_ns = ev->at_ns;
        }
        break;
    default: break;
    }
}

int gw_machine_step(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    start_update(m, u, ev->at_ns);
    if (gw_phase_is_end(m->phase))
        return 1;
    note_facts(m, ev);
    if (ev->type == GW_EV_PROGRESS)
        return 0;
    return phases_of(m)[m->phase].on_event(m, ev, u);
}

void gw_machine_recover(struct gw_machine *m, enum gw_phase phase, uint64_t now_ns,
                        struct gw_update *u)
{
    bool was_said = phase == GW_COMMITTING;

    assert(m->role == GW_SOURCE);
    start_update(m, u, now_ns);
    if (phase < GW_COMMITTING && m->has_record)
        phase = GW_COMMITTING;
    m->has_qemu = true;
    m->inspected = true;
    m->armed = true;
    m->phase = phase;
    m->times.phase_ns[phase] = now_ns;
    m->paused = true;
    if (phase == GW_COMMITTING) {
        resume_committing(m, was_said, u);
        return;
    }
    if (phase == GW_FINISHING) {
        m->deadline_ns = UINT64_MAX;
        source_phases[phase].enter(m, u);
        return;
    }
    m->copying = true;
    m->phase = GW_PREPARING; /* the one phase from which FAILING may be entered in any state */
    restarted(m, u);
}

bool gw_machine_is_contested(const struct gw_machine *m)
{
    return m->role == GW_SOURCE && m->needs_person && m->times.phase_ns[GW_COMMITTING];
}

bool gw_machine_can_cancel(const struct gw_machine *m)
{
    return m->phase == GW_PREPARING || m->phase == GW_PRECOPY || m->phase == GW_SWITCHOVER;
}

bool gw_machine_journals_late(const struct gw_machine *m, enum gw_phase phase)
{
    return phase == GW_SWITCHOVER || (phase == GW_COMMITTING && m->has_record);
}

/*
 * A QEMU that does not answer must not be ended where its guest may run, and must be where it may
 * not. With a record a destination goes on though it cannot journal, so the record decides, not the
 * phase; without one COMMITTING is in the journal first.
 */
static enum gw_arrival judge_silent(enum gw_phase phase, enum gw_arrival_record record)
{
    if (phase == GW_FINISHING || phase == GW_PHASE_MAX)
        return GW_ARRIVAL_WAIT;
    if (phase == GW_FAILING) /* FAILED may have been said */
        return GW_ARRIVAL_DESTROY;
    if (record == GW_ARRIVAL_RECORD_UNKNOWN)
        return GW_ARRIVAL_ASK;
    if (record == GW_ARRIVAL_NO_RECORD)
        return phase == GW_COMMITTING ? GW_ARRIVAL_WAIT : GW_ARRIVAL_DESTROY;
    return record == GW_ARRIVAL_RECORD_OURS ? GW_ARRIVAL_WAIT : GW_ARRIVAL_DESTROY;
}

static enum gw_arrival judge_record(enum gw_arrival_qemu qemu, enum gw_arrival_record record)
{
    switch (record) {
    case GW_ARRIVAL_RECORD_OURS:
        if (qemu == GW_ARRIVAL_QEMU_LOADED)
            return GW_ARRIVAL_RESUME;
        return qemu == GW_ARRIVAL_QEMU_GONE ? GW_ARRIVAL_LOST : GW_ARRIVAL_DESTROY;
    case GW_ARRIVAL_RECORD_THEIRS: return GW_ARRIVAL_DESTROY;
    default: return GW_ARRIVAL_ASK;
    }
}

enum gw_arrival gw_arrival_judge(enum gw_phase phase, enum gw_arrival_qemu qemu,
                                 enum gw_arrival_record record)
{
    if (qemu == GW_ARRIVAL_QEMU_RAN)
        return GW_ARRIVAL_KEEP;
    if (qemu == GW_ARRIVAL_QEMU_SILENT)
        return judge_silent(phase, record);
    switch (phase) {
    case GW_PREPARING:
    case GW_PRECOPY: /* a power cut takes QEMU along, and the journal's last moments */
        if (record == GW_ARRIVAL_NO_RECORD || qemu != GW_ARRIVAL_QEMU_GONE)
            return GW_ARRIVAL_DESTROY;
        return judge_record(qemu, record);
    case GW_SWITCHOVER: /* COMMIT may have come, see gw_machine_journals_late() */
        return record == GW_ARRIVAL_NO_RECORD ? GW_ARRIVAL_DESTROY : judge_record(qemu, record);
    case GW_COMMITTING:
        if (record == GW_ARRIVAL_NO_RECORD)
            return qemu == GW_ARRIVAL_QEMU_GONE ? GW_ARRIVAL_LOST : GW_ARRIVAL_DESTROY;
        return judge_record(qemu, record);
    case GW_FINISHING: /* RESUME was done, of a guest that was paused to begin with */
        return qemu == GW_ARRIVAL_QEMU_GONE ? GW_ARRIVAL_LOST : GW_ARRIVAL_KEEP;
    default: return GW_ARRIVAL_DESTROY; /* FAILING too: FAILED may have been said */
    }
}
