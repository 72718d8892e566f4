/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's machine.
 *
 * Happy path:  INSPECT and CONNECT at once → PREPARE → PREPARED → ARM → START → (QEMU copies) →
 * pre-switchover: the guest is paused → SWITCH → completed → VERIFY, where it is wanted → COMMIT →
 * RUNNING → DESTROY.
 *
 * Failure before COMMIT, from anywhere: FAILING. It tells the destination, ends QEMU's migration,
 * lets the guest run again if it was paused, and disarms; each step only after the one before, and
 * only if it has something to undo. After COMMIT the destination decides: see committing_event.
 *
 * Limits: QEMU's return path must be on (the driver's ARM refuses otherwise), or "completed" would
 * not mean that the destination has loaded everything.
 */
#include "core/internal.h"

static void preparing_enter(struct gw_machine *m, struct gw_update *u)
{
    m->has_qemu = true;
    begin_op(m, GW_OP_INSPECT, u);
    begin_op(m, GW_OP_CONNECT, u);
}

static const char *timeout_text(enum gw_phase phase)
{
    switch (phase) {
    case GW_PREPARING: return "the destination was not ready in the time allowed";
    case GW_PRECOPY: return "the guest had not moved in the time that the policy allows";
    default: return "the switchover took longer than the guest may be paused";
    }
}

/*
 * The same answers in every phase before the commit. FAILED from the destination and everything
 * that goes wrong here lead to the one undo path.
 */
static int before_commit(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    switch (ev->type) {
    case GW_EV_DONE:
        if (ev->error)
            fail(m, ev->error, u);
        return 0;
    case GW_EV_PEER_LOST:
    case GW_EV_QEMU_GONE: fail(m, ev->error, u); return 0;
    case GW_EV_MESSAGE:
        if (ev->message != GW_MSG_FAILED)
            break;
        fail(m, ev->error, u);
        return 0;
    case GW_EV_QEMU_STATUS:
        if (ev->status == GW_QEMU_FAILED || ev->status == GW_QEMU_CANCELLED)
            fail(m, ev->error, u);
        return 0;
    case GW_EV_CANCEL:
        m->cancelled = true;
        fail_with(m, GW_E_CANCELLED, "cancelled", "the guest runs on the source as before", u);
        return 0;
    case GW_EV_TICK:
        fail_with(m, GW_E_TIMEOUT, timeout_text(m->phase),
                  "see `godwit log` for where the time went; raise the policy's limits, its "
                  "bandwidth or its blackout",
                  u);
        return 0;
    default: break;
    }
    return 1;
}

void restarted(struct gw_machine *m, struct gw_update *u)
{
    fail_with(m, GW_E_STATE, "the source daemon was restarted while the guest was on its way",
              "the guest stays where it is; start the migration again", u);
}

static int preparing_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (ev->type == GW_EV_DONE && !ev->error) {
        switch (ev->done.op) {
        case GW_OP_INSPECT:
            m->inspected = true;
            m->guest_runs = ev->done.guest_runs;
            m->has_record = ev->done.has_record;
            break;
        case GW_OP_ARM:
            m->copying = true;
            begin_op(m, GW_OP_START, u);
            return 0;
        case GW_OP_START: go(m, GW_PRECOPY, u); return 0;
        default: break;
        }
        if (m->inspected && m->connected && !m->engaged) {
            m->engaged = true;
            send_message(u, GW_MSG_PREPARE);
        }
        return 0;
    }
    if (is_message(ev, GW_MSG_PREPARED) && m->engaged && !m->armed) {
        m->armed = true;
        begin_op(m, GW_OP_ARM, u);
        return 0;
    }
    return before_commit(m, ev, u);
}

/* QEMU may have been quicker than its answer to the command that started it. */
static void precopy_enter(struct gw_machine *m, struct gw_update *u)
{
    if (m->qemu_status == GW_QEMU_PRE_SWITCHOVER)
        go(m, GW_SWITCHOVER, u);
}

static int precopy_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (ev->type == GW_EV_QEMU_STATUS && ev->status == GW_QEMU_PRE_SWITCHOVER) {
        go(m, GW_SWITCHOVER, u);
        return 0;
    }
    if (ev->type == GW_EV_QEMU_STATUS && ev->status == GW_QEMU_COMPLETED) {
        m->paused = true;
        fail_with(m, GW_E_PROTOCOL, "QEMU completed without pausing before the switchover",
                  "somebody else may be driving this QEMU: see its QMP clients", u);
        return 0;
    }
    return before_commit(m, ev, u);
}

static void switchover_enter(struct gw_machine *m, struct gw_update *u)
{
    m->paused = true;
    send_message(u, GW_MSG_SWITCHING);
    begin_op(m, GW_OP_SWITCH, u);
}

/* All of the guest is over there, and neither copy runs. */
static void all_is_sent(struct gw_machine *m, struct gw_update *u)
{
    if (m->verify && !m->verified)
        begin_op(m, GW_OP_VERIFY, u);
    else
        go(m, GW_COMMITTING, u);
}

/* Completed may overtake the answer to SWITCH, and COMMIT waits for neither more nor less than
 * both; and for VERIFY, where it is wanted. */
static int switchover_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    bool good = (ev->type == GW_EV_QEMU_STATUS && ev->status == GW_QEMU_COMPLETED) ||
                (is_done(ev, GW_OP_SWITCH) && !ev->error) ||
                (is_done(ev, GW_OP_VERIFY) && !ev->error);

    if (!good)
        return before_commit(m, ev, u);
    m->verified |= is_done(ev, GW_OP_VERIFY);
    if (m->qemu_status == GW_QEMU_COMPLETED && !m->ops)
        all_is_sent(m, u);
    return 0;
}

static bool is_under_way(const struct gw_machine *m, enum gw_op op)
{
    return m->ops & (UINT32_C(1) << op);
}

static uint64_t committing_ends_ns(const struct gw_machine *m)
{
    return m->times.phase_ns[GW_COMMITTING] + m->limits.committing_ns;
}

/* The next moment at which there is something to do if nothing is heard. */
static void set_committing_deadline(struct gw_machine *m)
{
    uint64_t next_ns = committing_ends_ns(m);

    if (next_ns > m->retry_at_ns)
        next_ns = m->retry_at_ns;
    if (next_ns > m->reclaim_at_ns)
        next_ns = m->reclaim_at_ns;
    if (next_ns <= m->now_ns) /* past the end: what is under way has a limit of its own; or there is
                                 time for one more answer */
        next_ns = m->ops ? UINT64_MAX : m->now_ns + m->limits.retry_ns;
    m->deadline_ns = next_ns;
}

static void start_committing(struct gw_machine *m)
{
    m->retry_at_ns = UINT64_MAX;
    m->reclaim_at_ns = m->has_record ? m->now_ns + m->limits.reclaim_ns : UINT64_MAX;
}

static void committing_enter(struct gw_machine *m, struct gw_update *u)
{
    m->copying = false;
    start_committing(m);
    set_committing_deadline(m);
    send_message(u, GW_MSG_COMMIT);
}

static void reclaim(struct gw_machine *m, struct gw_update *u)
{
    m->reclaim_at_ns = UINT64_MAX;
    if ((!m->has_qemu && !m->unsure) || is_under_way(m, GW_OP_RECLAIM))
        return; /* no copy to come back; or reclaim_done() sees what has been heard meanwhile */
    m->by_word = m->peer_failed;
    begin_op(m, GW_OP_RECLAIM, u);
}

/*
 * After a restart. Where COMMIT was said the destination is asked. Where it may have been, it must
 * not be: QUERY is as good as COMMIT, and QEMU may not have completed; it may even have failed and
 * let the guest run again. So QEMU is asked first, as COMMIT is only said when it has completed;
 * and if it has, the record: only a destination that was told COMMIT swaps it.
 */
void resume_committing(struct gw_machine *m, bool was_said, struct gw_update *u)
{
    start_committing(m);
    m->unsure = !was_said;
    if (m->unsure)
        m->reclaim_at_ns = UINT64_MAX; /* copy_stopped() */
    begin_op(m, was_said ? GW_OP_CONNECT : GW_OP_STOP_COPY, u);
    set_committing_deadline(m);
}

static void ask_again(struct gw_machine *m, struct gw_update *u)
{
    m->retry_at_ns = UINT64_MAX;
    if (m->connected)
        send_message(u, GW_MSG_QUERY);
    else if (!is_under_way(m, GW_OP_CONNECT))
        begin_op(m, GW_OP_CONNECT, u);
}

static void come_back(struct gw_machine *m, struct gw_update *u)
{
    fail_with(m, GW_E_PEER, "the destination was told to run the guest and did not answer in time",
              "the guest runs on the source, as the owner record says; see the destination's log",
              u);
}

/*
 * The swap was done: the guest is ours. Another holds the record: the destination may have run the
 * guest, unless it promised that it did not. Not known: with that promise the guest may come back
 * all the same, without it only another attempt can tell.
 */
static void reclaim_done(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (!ev->error || (m->by_word && !ev->done.conflict)) {
        come_back(m, u);
    } else if (m->peer_failed && !m->by_word) {
        reclaim(m, u);
    } else if (m->by_word &&
               m->ops) { /* nothing may be under way at the end: again, when it is done */
        m->reclaim_at_ns = m->now_ns + m->limits.retry_ns;
    } else if (m->by_word) {
        keep_error(m, ev->error);
        strand(m, "the destination gave the guest back, but the owner record is another node's",
               "`godwit resolve` shows what is known; the copy on the source is paused", u);
    } else if (ev->done.conflict) {
        m->disowned = true;
        m->unsure = false;
        ask_again(m, u);
    } else {
        m->reclaim_at_ns = m->now_ns + m->limits.retry_ns;
    }
}

/* Only after a restart, see resume_committing(). A QEMU that says nothing may have completed. */
static void copy_stopped(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (ev->error)
        m->armed = false; /* one that has not settled must not be given other settings */
    if (ev->error || ev->done.completed)
        reclaim(m, u);
    else
        restarted(m, u);
}

static void destination_failed(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (!m->has_record || !m->has_qemu) {
        fail(m, ev->error, u);
        return;
    }
    keep_error(m, ev->error);
    m->peer_failed = true;
    reclaim(m, u);
}

/*
 * From here on this side's copy stays paused until one of these: RUNNING, the guest has moved;
 * FAILED, the destination promises that it has not run and never will; the owner record was swapped
 * back, so that it cannot run there. LOST, or no word and no record within the limit: a person has
 * to look.
 */
static int committing_message(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    switch (ev->message) {
    case GW_MSG_RUNNING: go(m, GW_FINISHING, u); return 0;
    case GW_MSG_FAILED: destination_failed(m, ev, u); return 0;
    case GW_MSG_BUSY: m->retry_at_ns = m->now_ns + m->limits.retry_ns; return 0;
    case GW_MSG_LOST:
        if (m->has_record && m->has_qemu && !m->disowned) /* it may never have swapped */
            reclaim(m, u);
        if (m->ops) { /* nothing may be under way at the end: ask again when it is done */
            m->retry_at_ns = m->now_ns + m->limits.retry_ns;
            return 0;
        }
        keep_error(m, ev->error);
        strand(m, "the destination's QEMU was lost just when the guest may have begun to run there",
               "`godwit resolve` shows what is known: the destination was allowed to write to the "
               "disks, and the copy on the source is paused",
               u);
        return 0;
    default: return 1;
    }
}

static void reconnected(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (ev->error)
        m->retry_at_ns = m->now_ns + m->limits.retry_ns;
    else
        send_message(u, GW_MSG_QUERY);
}

static void committing_tick(struct gw_machine *m, struct gw_update *u)
{
    if (m->now_ns < committing_ends_ns(m)) {
        if (m->reclaim_at_ns <= m->now_ns)
            reclaim(m, u);
        if (m->retry_at_ns <= m->now_ns)
            ask_again(m, u);
        return;
    }
    if (m->ops)
        return;
    if (m->disowned)
        strand(m,
               "the destination owns the guest by the owner record, was allowed to run it, and "
               "does not answer",
               "see to the destination first; `godwit resolve` shows what is known. The copy on "
               "the source is paused. Never resume both",
               u);
    else
        strand(m, "the destination was told to run the guest and has not answered since",
               "look whether the guest runs on the destination; the copy on the source is complete "
               "but paused. Never resume both",
               u);
}

static int committing_step(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    switch (ev->type) {
    case GW_EV_MESSAGE: return committing_message(m, ev, u);
    case GW_EV_PEER_LOST: m->retry_at_ns = m->now_ns + m->limits.retry_ns; return 0;
    case GW_EV_DONE:
        if (ev->done.op == GW_OP_CONNECT)
            reconnected(m, ev, u);
        else if (ev->done.op == GW_OP_STOP_COPY)
            copy_stopped(m, ev, u);
        else
            reclaim_done(m, ev, u);
        return 0;
    case GW_EV_TICK: committing_tick(m, u); return 0;
    case GW_EV_NOT_JOURNALED: fail(m, ev->error, u); return 0; /* so COMMIT was not said */
    case GW_EV_QEMU_STATUS:
    case GW_EV_QEMU_GONE: return 0; /* this copy is not the one that counts any more */
    default: return 1;
    }
}

static int committing_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    int r = committing_step(m, ev, u);

    if (m->phase == GW_COMMITTING)
        set_committing_deadline(m);
    return r;
}

static void finishing_enter(struct gw_machine *m, struct gw_update *u)
{
    send_message(u, GW_MSG_FINISHED);
    begin_op(m, GW_OP_DESTROY, u);
}

/* The guest has moved, come what may: a QEMU that cannot be cleared away is a warning. */
static int finishing_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (is_done(ev, GW_OP_DESTROY)) {
        if (ev->error)
            keep_error(m, ev->error);
        m->has_qemu = false;
    }
    if (!m->ops) { /* a RECLAIM or CONNECT that RUNNING has overtaken is done, too */
        go(m, GW_COMPLETED, u);
        disconnect(u);
    }
    return 0;
}

#define TO_CONNECT (UINT32_C(1) << GW_OP_CONNECT)

/* One undo step at a time, in this order; ends when nothing is left to undo or to wait for. */
static void undo(struct gw_machine *m, struct gw_update *u)
{
    if (m->ops & ~TO_CONNECT) /* a destination that is not there must not keep the guest waiting */
        return;
    if (!m->has_qemu)
        m->copying = m->paused = m->armed = false;
    if (m->copying) {
        begin_op(m, GW_OP_STOP_COPY, u);
    } else if (m->paused && m->guest_runs) {
        begin_op(m, GW_OP_RESUME, u);
    } else if (m->armed) {
        begin_op(m, GW_OP_DISARM, u);
    } else if (m->ops) {
        return; /* CONNECT */
    } else if (m->stuck && m->has_qemu) {
        strand(m, "the guest is paused on the source and cannot be resumed",
               "see `godwit log`, and try `godwit vm resume`", u);
    } else if (m->engaged && m->connected && !m->peer_undone) {
        return; /* ABORTED, PEER_LOST or the deadline */
    } else if (!m->has_qemu) {
        strand(m, "the guest's QEMU on the source ended, or does not answer any more",
               "see `godwit vm list`: if it has ended, start the guest again", u);
    } else {
        end_failed(m, u);
    }
}

static void failing_enter(struct gw_machine *m, struct gw_update *u)
{
    if (m->engaged && m->connected)
        send_message(u, GW_MSG_ABORT);
    undo(m, u);
}

static int failing_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    switch (ev->type) {
    case GW_EV_DONE:
        if (ev->done.op == GW_OP_STOP_COPY) {
            m->copying = false;
            if (ev->error) /* a QEMU that has not settled must not be given other settings */
                m->armed = false;
        }
        if (ev->done.op == GW_OP_DISARM)
            m->armed = false;
        if (ev->done.op == GW_OP_RESUME) {
            m->paused = false;
            if (ev->error && m->has_qemu) {
                keep_error(m, ev->error);
                m->stuck = true;
                m->armed = false;
            }
        }
        break;
    case GW_EV_TICK:
        m->peer_undone = true; /* it undoes on its own once the connection is closed */
        m->deadline_ns = UINT64_MAX;
        break;
    case GW_EV_MESSAGE:
        if (ev->message == GW_MSG_ABORTED)
            m->peer_undone = true;
        break;
    default: break;
    }
    undo(m, u);
    return 0;
}

const struct phase_ops source_phases[GW_PHASE_MAX] = {
    [GW_PREPARING] = {preparing_enter, preparing_event, TO(GW_PRECOPY) | TO(GW_FAILING)},
    [GW_PRECOPY] = {precopy_enter, precopy_event, TO(GW_SWITCHOVER) | TO(GW_FAILING)},
    [GW_SWITCHOVER] = {switchover_enter, switchover_event, TO(GW_COMMITTING) | TO(GW_FAILING)},
    [GW_COMMITTING] = {committing_enter, committing_event,
                       TO(GW_FINISHING) | TO(GW_FAILING) | TO(GW_FAILED)},
    [GW_FINISHING] = {finishing_enter, finishing_event, TO(GW_COMPLETED)},
    [GW_FAILING] = {failing_enter, failing_event, TO(GW_FAILED) | TO(GW_CANCELLED)},
};
