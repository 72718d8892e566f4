/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A destination daemon that was restarted while a guest was on its way to it. The machine is gone;
 * gw_arrival_judge() decides from the journal, the QEMU that is found and the owner record.
 *
 * The verdict is journaled before it is carried out, except that a guest that is resumed belongs
 * here only when it was. So an answer to QUERY says no more than the journal knows.
 */
#include "sim/parts.h"

static bool is_unresolved(const struct journal *j)
{
    return j->n_entries && j->entries[j->n_entries - 1].unresolved;
}

/* A migration that has ended may have left its QEMU, if the daemon died before that was cleared.
 * One of which nobody knows whether its guest ran is a person's. */
void arrival_begin(struct sim_world *w)
{
    enum gw_phase phase = journal_phase(w, D);
    bool undone =
        (phase == GW_FAILED || phase == GW_CANCELLED) && !is_unresolved(&w->daemon[D].journal);

    w->daemon[D].arriving = phase != GW_PHASE_MAX && !gw_phase_is_end(phase);
    if (w->daemon[D].arriving)
        schedule(w, D, ARRIVAL_LOOKS, between(w, 1, 20) * MS);
    else if (undone && w->qemu[D].alive)
        schedule(w, D, ARRIVAL_CLEARS, between(w, 1, 20) * MS);
}

/* False if that cannot be journaled: then it is looked at again. */
static bool ends(struct sim_world *w, enum gw_phase phase, bool unresolved)
{
    w->daemon[D].arriving = !journal_write(w, D, phase, unresolved);
    if (w->daemon[D].arriving) {
        excuse(w, "a journal could not be written");
        schedule(w, D, ARRIVAL_LOOKS, 500 * MS);
    }
    return !w->daemon[D].arriving;
}

static void destroys(struct sim_world *w)
{
    if (ends(w, GW_FAILED, false))
        schedule(w, D, ARRIVAL_CLEARS, between(w, 1, 20) * MS);
}

static enum gw_arrival_qemu look_at_qemu(struct sim_world *w)
{
    const struct fake_qemu *q = &w->qemu[D];

    if (!q->alive)
        return GW_ARRIVAL_QEMU_GONE;
    if (chance(w, 8)) {
        excuse(w, "a QEMU did not answer");
        return GW_ARRIVAL_QEMU_SILENT;
    }
    if (q->has_run || q->taken)
        return GW_ARRIVAL_QEMU_RAN;
    return q->loaded ? GW_ARRIVAL_QEMU_LOADED : GW_ARRIVAL_QEMU_LOADS;
}

static void judge(struct sim_world *w, enum gw_arrival_record record)
{
    static const char *const names[] = {"keep", "resume", "destroy", "lost", "ask", "wait"};
    enum gw_arrival verdict = gw_arrival_judge(journal_phase(w, D), look_at_qemu(w), record);
    struct sim_event *e;

    trace(w, "D judges %s\n", names[verdict]);
    switch (verdict) {
    case GW_ARRIVAL_KEEP: ends(w, GW_COMPLETED, false); break;
    case GW_ARRIVAL_RESUME:
        e = schedule(w, D, ARRIVAL_RESUMES, between(w, 1, 15) * MS);
        e->life = ANY;
        break;
    case GW_ARRIVAL_DESTROY: destroys(w); break;
    case GW_ARRIVAL_LOST: ends(w, GW_FAILED, true); break;
    case GW_ARRIVAL_ASK: schedule(w, D, ARRIVAL_LOOKS, 500 * MS); break;
    case GW_ARRIVAL_WAIT: schedule(w, D, ARRIVAL_LOOKS, 7 * SECOND); break;
    }
}

void arrival_looks(struct sim_world *w)
{
    w->daemon[D].call_op = GW_OP_MAX;
    if (w->daemon[D].journal.has_record)
        store_submit(w, D, (struct call){.swap = false});
    else
        judge(w, GW_ARRIVAL_NO_RECORD);
}

void arrival_read(struct sim_world *w, const struct call *call)
{
    if (call->result == CALL_UNKNOWN)
        judge(w, GW_ARRIVAL_RECORD_UNKNOWN);
    else if (call->current.node == D && call->current.epoch == w->daemon[D].journal.owner.epoch + 1)
        judge(w, GW_ARRIVAL_RECORD_OURS);
    else
        judge(w, GW_ARRIVAL_RECORD_THEIRS);
}

/* daemon_lives: otherwise the answer is nobody's, and the next daemon looks again. */
void arrival_resumes(struct sim_world *w, bool daemon_lives)
{
    const struct gw_error *error = qemu_cont(w, D);

    if (!daemon_lives)
        return;
    if (!error)
        ends(w, GW_COMPLETED, false);
    else if (w->qemu[D].alive)
        destroys(w);
    else
        ends(w, GW_FAILED, true);
}

static void says(struct sim_world *w, enum gw_message message)
{
    trace(w, "D says %s\n", gw_message_name(message));
    check_saying(w, D, message);
    network_send(w, D, message);
}

/* As verdict() of the shell's incoming_query.c. Then it hangs up. */
void arrival_answers_query(struct sim_world *w)
{
    const struct journal *j = &w->daemon[D].journal;
    enum gw_phase phase = journal_phase(w, D);

    if (w->daemon[D].arriving || (phase != GW_PHASE_MAX && !gw_phase_is_end(phase))) {
        if (w->daemon[D].forgets) /* its end, for one thing */
            excuse(w, "a journal could not be written");
        says(w, GW_MSG_BUSY);
    } else if (phase == GW_COMPLETED) {
        says(w, GW_MSG_RUNNING);
    } else if (phase == GW_PHASE_MAX || is_unresolved(j)) {
        says(w, GW_MSG_LOST);
    } else {
        says(w, GW_MSG_FAILED);
        says(w, GW_MSG_ABORTED);
    }
    network_hang_up(w, D, false);
}
