/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's machine. It exists from the arrival of PREPARE.
 *
 * Happy path:  LAUNCH → ARM → LISTEN → PREPARED → (QEMU loads) → SWITCHING → completed: loaded →
 * COMMIT → CLAIM, where there is an owner record → RESUME → RUNNING → FINISHED.
 *
 * Failure before RESUME is asked for, from anywhere, COMMIT or not, CLAIM or not: FAILING. It tells
 * the source, destroys the QEMU, and says so. The source may rely on FAILED: the guest never ran
 * here and never will, also if the record says that it might. Once RESUME was asked for, and QEMU
 * is lost before it answers, nobody can know: LOST.
 *
 * A lost connection ends the migration before COMMIT and changes nothing after it: the source
 * comes back and asks.
 */
#include <stddef.h>

#include "core/internal.h"

static void preparing_enter(struct gw_machine *m, struct gw_update *u)
{
    m->connected = true;
    begin_op(m, GW_OP_LAUNCH, u);
}

static int before_resume(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    switch (ev->type) {
    case GW_EV_DONE:
        if (ev->error)
            fail(m, ev->error, u);
        return 0;
    case GW_EV_PEER_LOST:
        if (m->phase != GW_COMMITTING)
            fail(m, ev->error, u);
        return 0;
    case GW_EV_QEMU_GONE: fail(m, ev->error, u); return 0;
    case GW_EV_MESSAGE:
        if (ev->message != GW_MSG_ABORT || (m->phase == GW_COMMITTING && !m->has_record))
            break;
        m->cancelled = true;
        m->told = true;
        fail_with(m, GW_E_CANCELLED, "the source has given up", "see the source's log for why", u);
        return 0;
    case GW_EV_QEMU_STATUS:
        if (ev->status == GW_QEMU_FAILED || ev->status == GW_QEMU_CANCELLED)
            fail(m, ev->error, u);
        return 0;
    case GW_EV_CANCEL:
        if (m->phase == GW_COMMITTING)
            break;
        m->cancelled = true;
        fail_with(m, GW_E_CANCELLED, "cancelled on the destination",
                  "the guest runs on the source as before", u);
        return 0;
    case GW_EV_TICK:
        fail_with(m, GW_E_TIMEOUT,
                  m->phase == GW_PREPARING
                      ? "QEMU was not ready on the destination in the time allowed"
                      : "QEMU had not loaded the guest on the destination in the time allowed",
                  "see the log of the destination node", u);
        return 0;
    default: break;
    }
    return 1;
}

static int preparing_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (ev->type == GW_EV_DONE && !ev->error) {
        switch (ev->done.op) {
        case GW_OP_LAUNCH:
            m->has_qemu = true;
            begin_op(m, GW_OP_ARM, u);
            break;
        case GW_OP_ARM:
            m->armed = true;
            begin_op(m, GW_OP_LISTEN, u);
            break;
        default:
            send_message(u, GW_MSG_PREPARED);
            go(m, GW_PRECOPY, u);
            break;
        }
        return 0;
    }
    return before_resume(m, ev, u);
}

/* A QUERY says that COMMIT was sent and was lost with its connection. */
static int switchover_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (is_message(ev, GW_MSG_COMMIT) || is_message(ev, GW_MSG_QUERY)) {
        m->connected = true;
        go(m, GW_COMMITTING, u);
        return 0;
    }
    return before_resume(m, ev, u);
}

static int precopy_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (is_message(ev, GW_MSG_SWITCHING) || is_message(ev, GW_MSG_QUERY)) {
        go(m, GW_SWITCHOVER, u);
        return is_message(ev, GW_MSG_QUERY) ? switchover_event(m, ev, u) : 0;
    }
    return before_resume(m, ev, u);
}

static void let_it_run(struct gw_machine *m, struct gw_update *u)
{
    m->let_run = true;
    m->deadline_ns = UINT64_MAX; /* from here only QEMU's answer counts */
    begin_op(m, GW_OP_RESUME, u);
}

/* All of the guest is here. It may run once the owner record says so. */
static void take_it(struct gw_machine *m, struct gw_update *u)
{
    if (m->has_record)
        begin_op(m, GW_OP_CLAIM, u);
    else
        let_it_run(m, u);
}

/* COMMIT means that the source has seen QEMU complete; our own QEMU's word may be still on its way.
 */
static void committing_enter(struct gw_machine *m, struct gw_update *u)
{
    if (m->loaded)
        take_it(m, u);
}

static void lost(struct gw_machine *m, const struct gw_error *error, struct gw_update *u)
{
    keep_error(m, error);
    send_message(u, GW_MSG_LOST);
    strand(m, "QEMU on the destination was lost just when the guest may have begun to run",
           "the source still holds a paused copy", u);
}

static int resume_done(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (!ev->error) {
        send_message(u, GW_MSG_RUNNING);
        go(m, GW_FINISHING, u);
    } else if (m->has_qemu && ev->error->code == GW_E_QEMU) {
        m->let_run = false; /* QEMU lives and said no: the guest has not run */
        fail(m, ev->error, u);
    } else {
        lost(m, ev->error, u);
    }
    return 0;
}

static int committing_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (is_message(ev, GW_MSG_QUERY)) {
        m->connected = true;
        send_message(u, GW_MSG_BUSY);
        return 0;
    }
    if (ev->type == GW_EV_NOT_JOURNALED) { /* so RESUME was not asked for */
        m->ops = 0;
        m->let_run = false;
        fail(m, ev->error, u);
        return 0;
    }
    if (m->let_run)
        return is_done(ev, GW_OP_RESUME) ? resume_done(m, ev, u) : 0;
    if (is_done(ev, GW_OP_CLAIM) && !ev->error) {
        let_it_run(m, u);
        return 0;
    }
    if (ev->type == GW_EV_QEMU_STATUS && ev->status == GW_QEMU_COMPLETED && !m->ops) {
        take_it(m, u);
        return 0;
    }
    return before_resume(m, ev, u);
}

/* A source that went away before it could hear RUNNING comes back for it within its own limit. */
static void finishing_enter(struct gw_machine *m, struct gw_update *u)
{
    (void)u;
    if (!m->connected)
        m->deadline_ns = m->now_ns + m->limits.committing_ns;
}

/* The source clears up behind the guest; its word or its silence both end this. */
static int finishing_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (is_message(ev, GW_MSG_QUERY)) {
        m->connected = true;
        m->deadline_ns = UINT64_MAX;
        send_message(u, GW_MSG_RUNNING);
        return 0;
    }
    if (is_message(ev, GW_MSG_FINISHED) || ev->type == GW_EV_PEER_LOST ||
        ev->type == GW_EV_QEMU_GONE || ev->type == GW_EV_TICK) {
        go(m, GW_COMPLETED, u);
        disconnect(u);
    }
    return 0;
}

static void undo(struct gw_machine *m, struct gw_update *u)
{
    if (!m->ops)
        begin_op(m, GW_OP_DESTROY, u);
}

static void failing_enter(struct gw_machine *m, struct gw_update *u)
{
    if (!m->told)
        send_message(u, GW_MSG_FAILED);
    m->told = true;
    undo(m, u);
}

static int failing_event(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u)
{
    if (is_message(ev, GW_MSG_QUERY)) {
        send_message(u, GW_MSG_FAILED);
    } else if (is_done(ev, GW_OP_DESTROY)) {
        m->has_qemu = false;
        send_message(u, GW_MSG_ABORTED);
        end_failed(m, u);
    } else if (ev->type == GW_EV_DONE) {
        undo(m, u); /* an operation that was under way when things went wrong */
    }
    return 0;
}

const struct phase_ops destination_phases[GW_PHASE_MAX] = {
    [GW_PREPARING] = {preparing_enter, preparing_event, TO(GW_PRECOPY) | TO(GW_FAILING)},
    [GW_PRECOPY] = {NULL, precopy_event, TO(GW_SWITCHOVER) | TO(GW_FAILING)},
    [GW_SWITCHOVER] = {NULL, switchover_event, TO(GW_COMMITTING) | TO(GW_FAILING)},
    [GW_COMMITTING] = {committing_enter, committing_event,
                       TO(GW_FINISHING) | TO(GW_FAILING) | TO(GW_FAILED)},
    [GW_FINISHING] = {finishing_enter, finishing_event, TO(GW_COMPLETED)},
    [GW_FAILING] = {failing_enter, failing_event, TO(GW_FAILED) | TO(GW_CANCELLED)},
};
