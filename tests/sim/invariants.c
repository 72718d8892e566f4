/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must be true: safety after every step and at the moments that decide, whatever went wrong;
 * and that the migration comes to a good end, unless there is an excuse.
 */
#include <string.h>

#include "sim/parts.h"

void check_start(struct sim_world *w, enum node node)
{
    const struct fake_qemu *q = &w->qemu[node];

    if (w->qemu[other(node)].runs)
        broken(w, "two guests run");
    if (w->version && (memcmp(q->pages, w->pages, sizeof w->pages) != 0 || q->disk != w->disk))
        broken(w, "a stale copy of the guest runs");
    if (node == S && w->d_ran)
        broken(w, "the guest comes back to the source after it ran on the destination");
    if (node == S && w->committed && w->plan.has_record && w->record.node != S && !w->failed_heard)
        broken(w, "the source resumes a guest that the record does not give to it");
    if (node == D && w->plan.has_record && w->record.node != D)
        broken(w, "the destination resumes a guest that the record does not give to it");
    if (node == D && !w->committed)
        broken(w, "the destination runs without a commit");
    if (node == D && w->cancelled)
        broken(w, "cancelled, yet the guest moved");
    if (node == D && w->failed_said)
        broken(w, "the destination runs a guest of which it had said FAILED");
}

void check_saying(struct sim_world *w, enum node node, enum gw_message message)
{
    const struct fake_qemu *s = &w->qemu[S];

    if (node == S && (message == GW_MSG_COMMIT || message == GW_MSG_QUERY) && s->alive &&
        s->migration != GW_QEMU_COMPLETED)
        broken(w, "COMMIT or QUERY before the destination has loaded all");
    if (node == S && (message == GW_MSG_COMMIT || message == GW_MSG_QUERY) && w->plan.verify &&
        !w->verified)
        broken(w, "COMMIT or QUERY before the memory was verified");
    if (message == GW_MSG_FAILED && w->d_ran)
        broken(w, "FAILED of a guest that has run");
    if (message == GW_MSG_RUNNING && !w->d_ran)
        broken(w, "RUNNING of a guest that has not run");
    w->failed_said |= message == GW_MSG_FAILED;
}

void check_intent(struct sim_world *w, enum node node, const struct gw_intent *intent)
{
    if (intent->type == GW_DO_SEND)
        check_saying(w, node, intent->message);
    if (intent->type != GW_DO_OP)
        return;
    if (node == D && (intent->op == GW_OP_CLAIM || intent->op == GW_OP_RESUME) &&
        !w->daemon[D].seen_loaded)
        broken(w, "the destination takes a guest that it has not seen loaded");
    if (node == S && intent->op == GW_OP_DESTROY && !w->d_ran)
        broken(w, "the source destroys its copy before the guest has run elsewhere");
}

/* Nobody runs it: only between pause and resume, and only while somebody is at work on that or a
 * person was asked; or because the QEMU that held it was killed. */
static void check_somebody_runs(struct sim_world *w)
{
    if (w->plan.paused || w->guest_lost || w->qemu[S].runs || w->qemu[D].runs)
        return;
    if (!w->qemu[S].stopped)
        broken(w, "nobody runs the guest, and nobody paused it");
    else if (daemon_is_settled(w, S) && !w->daemon[S].m.needs_person)
        broken(w, "the source has ended, and nobody runs the guest");
}

/* Nobody has swapped the record, and the store answers: no need to wait for a silent destination,
 * if there is a copy to come back. */
static void check_not_waiting(struct sim_world *w)
{
    const struct gw_machine *m = &w->daemon[S].m;

    if (!w->plan.has_record || w->store_failed || w->plan.sloppy || w->record.epoch != 1 ||
        !daemon_machine_works(w, S) || m->phase != GW_COMMITTING || !w->qemu[S].alive)
        return;
    if (m->now_ns > m->times.phase_ns[GW_COMMITTING] + m->limits.reclaim_ns + 2 * STORE_WAIT_NS)
        broken(w, "the source waits, though the record is its own");
}

void check_step(struct sim_world *w)
{
    if (w->qemu[S].runs && w->qemu[D].runs)
        broken(w, "two guests run");
    check_somebody_runs(w);
    check_not_waiting(w);
}

static void check_rest(struct sim_world *w)
{
    const struct daemon *s = &w->daemon[S], *d = &w->daemon[D];

    if (!daemon_is_settled(w, S))
        broken(w, "the source never ended");
    if (!daemon_is_settled(w, D))
        broken(w, "the destination never ended");
    if (s->ops || d->ops || s->call.id || d->call.id)
        broken(w, "an operation never ended");
    if (w->n_queued != w->n_writes)
        broken(w, "something was still to happen");
    if (!w->plan.sloppy && (s->connection || d->connection))
        broken(w, "a connection is left open");
}

static void check_moved(struct sim_world *w)
{
    if (w->qemu[S].alive)
        broken(w, "completed, but a QEMU is left on the source");
    if (!w->qemu[D].alive || w->qemu[D].runs == w->plan.paused)
        broken(w, "completed, but the guest is not on the destination");
}

static void check_stayed(struct sim_world *w)
{
    if (!w->qemu[S].alive || w->qemu[S].runs == w->plan.paused)
        broken(w, "not moved, but the guest is not on the source as it was");
    if (w->qemu[D].alive)
        broken(w, "not moved, but a QEMU is left on the destination");
    if (w->qemu[S].armed && !w->disarm_failed)
        broken(w, "not moved, but QEMU did not get its settings back");
}

void check_end(struct sim_world *w)
{
    const struct gw_machine *m = &w->daemon[S].m;
    bool moved = m->phase == GW_COMPLETED;

    if (w->broken)
        return;
    check_rest(w);
    if (moved && w->cancelled)
        broken(w, "cancelled, yet the guest moved");
    if (!moved && w->d_ran && w->qemu[S].alive && !m->needs_person)
        broken(w, "both nodes think that the guest is theirs");
    if (w->broken || w->excuse || w->plan.sloppy)
        return;
    if (m->needs_person || (w->daemon[D].has_machine && w->daemon[D].m.needs_person))
        broken(w, "left to a person without need");
    if (moved)
        check_moved(w);
    else
        check_stayed(w);
    if (w->plan.has_record && !w->store_failed && w->record.node != (moved ? D : S))
        broken(w, "the record does not say where the guest is");
}
