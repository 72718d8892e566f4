/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two daemons: what drives the machines, carries out their intents and keeps the journal, and
 * what a killed one leaves to its successor.
 */
#include <assert.h>
#include <string.h>

#include "sim/parts.h"

/* journal */

/* False if it could not be written. */
bool journal_write(struct sim_world *w, enum node node, enum gw_phase phase, bool unresolved)
{
    struct journal *j = &w->daemon[node].journal;

    if (w->now_ns < w->journal_lost_until_ns[node]) {
        w->daemon[node].forgets = true;
        return false;
    }
    assert(j->n_entries < sizeof j->entries / sizeof j->entries[0]);
    j->entries[j->n_entries++] = (struct journal_entry){w->now_ns, phase, unresolved};
    return true;
}

/* GW_PHASE_MAX: there is no row. */
enum gw_phase journal_phase(const struct sim_world *w, enum node node)
{
    const struct journal *j = &w->daemon[node].journal;

    return j->n_entries ? j->entries[j->n_entries - 1].phase : GW_PHASE_MAX;
}

/* journal.h: a power cut may lose the last moments. Without a record the commit stands on what it
 * loses, which is a limit that the documentation names. */
static void journal_tear(struct sim_world *w, enum node node)
{
    struct journal *j = &w->daemon[node].journal;
    uint64_t lost_ns = w->plan.calm ? 20 * MS : between(w, 0, 1000) * MS;

    while (w->plan.has_record && j->n_entries &&
           j->entries[j->n_entries - 1].at_ns + lost_ns > w->now_ns) {
        j->n_entries--;
        /* what is gone with the QEMU: that the guest has moved; or, that it never ran */
        excuse(w, "a journal was torn");
    }
}

/* operations */

static struct gw_event *op_ends(struct sim_world *w, enum node node, enum gw_op op,
                                const struct gw_error *error, uint64_t in_ns)
{
    struct sim_event *e = schedule(w, node, OP_ENDS, in_ns);

    e->ev.type = GW_EV_DONE;
    e->ev.error = error;
    e->ev.done.op = op;
    return &e->ev;
}

static void ask_store(struct sim_world *w, enum node node, enum gw_op op)
{
    const struct owner begun = w->daemon[node].journal.owner;

    w->daemon[node].call_op = op;
    store_submit(w, node, (struct call){.swap = op != GW_OP_INSPECT, .from = begun, .to = node});
}

static bool is_of_store(const struct sim_world *w, enum gw_op op)
{
    return op == GW_OP_CLAIM || op == GW_OP_RECLAIM || (op == GW_OP_INSPECT && w->plan.has_record);
}

/* A hung operation is given up by its driver, as machine.h demands; it has happened all the same.
 */
static void begin_op(struct sim_world *w, enum node node, enum gw_op op)
{
    struct daemon *d = &w->daemon[node];
    bool may_fail = op != GW_OP_DESTROY && op != GW_OP_STOP_COPY;
    struct sim_event *e;

    if (d->ops & (UINT32_C(1) << op))
        broken(w, "an operation was begun twice");
    d->ops |= UINT32_C(1) << op;
    if (w->fail_next[node] && may_fail) {
        w->fail_next[node] = false;
        w->disarm_failed |= op == GW_OP_DISARM;
        if (node == S && op == GW_OP_RESUME)
            excuse(w, "QEMU refused to resume the guest");
        op_ends(w, node, op, &an_error, between(w, 1, 20) * MS);
    } else if (is_of_store(w, op)) {
        ask_store(w, node, op);
    } else {
        e = schedule(w, node, OP_HAPPENS, between(w, 1, 15) * MS);
        e->life = ANY;
        e->connection = d->life; /* who asked */
        e->ev.done.op = op;
    }
}

static void op_connect(struct sim_world *w)
{
    bool up = link_is_up(w) && w->daemon[D].up;

    if (up)
        network_connect(w);
    op_ends(w, S, GW_OP_CONNECT, up ? NULL : &lost_error,
            up ? between(w, 0, 10) * MS : between(w, 1, 3000) * MS);
}

/* At this moment, QEMU does it. Its answer is another event. */
void daemon_op_happens(struct sim_world *w, struct sim_event *e)
{
    bool asker_lives = w->daemon[e->node].up && w->daemon[e->node].life == e->connection;
    enum gw_op op = e->ev.done.op;
    const struct gw_error *error;
    struct gw_event *ev;

    if (op == GW_OP_CONNECT) {
        if (asker_lives)
            op_connect(w);
        return;
    }
    error = qemu_take_effect(w, e->node, op);
    if (!asker_lives)
        return;
    if (w->hang_next[e->node] && op != GW_OP_DESTROY && op != GW_OP_STOP_COPY) {
        w->hang_next[e->node] = false;
        w->disarm_failed |= op == GW_OP_DISARM;
        if (op == GW_OP_RESUME)
            excuse(w, "QEMU did not answer when the guest was resumed");
        op_ends(w, e->node, op, &late_error, 10 * SECOND);
        return;
    }
    ev = op_ends(w, e->node, op, error, between(w, 0, 15) * MS);
    ev->done.guest_runs = !w->plan.paused;
    ev->done.completed = w->qemu[e->node].migration == GW_QEMU_COMPLETED && !w->qemu[e->node].runs;
}

static void trace_op(struct sim_world *w, enum node node, const struct gw_event *ev)
{
    enum gw_op op = ev->done.op;
    bool swaps = op == GW_OP_CLAIM || op == GW_OP_RECLAIM;

    if (swaps || op == GW_OP_RESUME || op == GW_OP_STOP_COPY || op == GW_OP_DISARM)
        trace(w, "%c %s %s\n", name_of[node], gw_op_name(op),
              !ev->error          ? "done"
              : !swaps            ? "failed"
              : ev->done.conflict ? "conflict"
                                  : "unknown");
}

void daemon_op_ends(struct sim_world *w, struct sim_event *e)
{
    struct daemon *d = &w->daemon[e->node];
    enum gw_op op = e->ev.done.op;

    if (!(d->ops & (UINT32_C(1) << op)))
        broken(w, "an operation ended twice");
    d->ops &= ~(UINT32_C(1) << op);
    if (op == GW_OP_CONNECT && !e->ev.error && d->connection == NO_CONNECTION)
        e->ev.error = &lost_error; /* already gone again */
    trace_op(w, e->node, &e->ev);
    w->verified |= op == GW_OP_VERIFY && !e->ev.error;
    moment(w, SIM_AFTER_DONE, e->node, (int)op);
    daemon_step(w, e->node, &e->ev);
}

/*
 * CLAIM and RECLAIM: {S, e} -> {D or S, e + 1}. A record that is this node's already was swapped by
 * an earlier request of its own: nobody else writes that name. With the destination's word that the
 * guest never ran there, RECLAIM also takes {D, e + 1}.
 */
static void swap_ends(struct sim_world *w, enum node node, enum gw_op op, const struct call *call)
{
    const struct daemon *d = &w->daemon[node];
    struct owner now = call->current, begun = d->journal.owner;
    bool conflict = call->result == CALL_CONFLICT, ours = conflict && now.node == node;
    struct gw_event *ev;

    if (ours && now.epoch > begun.epoch)
        conflict = false;
    if (conflict && op == GW_OP_RECLAIM && d->m.peer_failed && now.node == D &&
        call->from.node == S && now.epoch == begun.epoch + 1) {
        store_submit(w, node, (struct call){.swap = true, .from = now, .to = node});
        return;
    }
    ev = op_ends(w, node, op, conflict || call->result == CALL_UNKNOWN ? &store_error : NULL, 0);
    ev->done.conflict = conflict;
}

static void inspect_ends(struct sim_world *w, const struct call *call)
{
    struct journal *j = &w->daemon[S].journal;
    bool good = call->result == CALL_DONE && call->current.node == S;
    struct gw_event *ev = op_ends(w, S, GW_OP_INSPECT, good ? NULL : &store_error, 0);

    ev->done.guest_runs = !w->plan.paused;
    ev->done.has_record = j->has_record = good;
    if (good)
        j->owner = call->current;
}

/* The first word on a request is the last: later ones find another call, or none. */
void daemon_store_answers(struct sim_world *w, const struct sim_event *e)
{
    struct daemon *d = &w->daemon[e->node];

    if (d->call.id != e->call.id)
        return;
    d->call.id = 0;
    if (d->call_op == GW_OP_MAX)
        arrival_read(w, &e->call);
    else if (d->call_op == GW_OP_INSPECT)
        inspect_ends(w, &e->call);
    else
        swap_ends(w, e->node, d->call_op, &e->call);
}

/* updates */

static void say(struct sim_world *w, enum node node, enum gw_message message)
{
    trace(w, "%c says %s\n", name_of[node], gw_message_name(message));
    w->committed |= message == GW_MSG_COMMIT || message == GW_MSG_QUERY;
    network_send(w, node, message);
    moment(w, SIM_AFTER_SAYING, node, (int)message);
}

/* False if what follows from it must not happen. */
static bool change_phase(struct sim_world *w, enum node node, const struct gw_intent *intent)
{
    const struct gw_machine *m = &w->daemon[node].m;
    enum gw_phase to = intent->phase.to;
    bool written = true;

    trace(w, "%c %s -> %s\n", name_of[node], gw_phase_name(intent->phase.from), gw_phase_name(to));
    if (m->phase == to) /* else a later one stands there already */
        written = journal_write(w, node, to, gw_phase_is_end(to) && m->needs_person);
    if (gw_phase_is_end(to) && w->daemon[node].ops)
        broken(w, "a machine ended with an operation under way");
    moment(w, SIM_AFTER_PHASE, node, (int)to);
    return written || to != GW_COMMITTING || gw_machine_journals_late(m, to);
}

enum performed { PERFORMED, KILLED, NOT_JOURNALED };

static enum performed perform_one(struct sim_world *w, enum node node,
                                  const struct gw_intent *intent)
{
    switch (intent->type) {
    case GW_DO_OP:
        if (dies_before(w, SIM_BEFORE_OP, node, (int)intent->op))
            return KILLED;
        begin_op(w, node, intent->op);
        moment(w, SIM_AFTER_OP, node, (int)intent->op);
        break;
    case GW_DO_SEND:
        if (dies_before(w, SIM_BEFORE_SAYING, node, (int)intent->message))
            return KILLED;
        say(w, node, intent->message);
        break;
    case GW_DO_DISCONNECT: network_hang_up(w, node, false); break;
    case GW_DO_PHASE:
        if (dies_before(w, SIM_BEFORE_PHASE, node, (int)intent->phase.to))
            return KILLED;
        return change_phase(w, node, intent) ? PERFORMED : NOT_JOURNALED;
    }
    return PERFORMED;
}

static bool can_wait(const struct gw_machine *m, const struct gw_intent *intent)
{
    return intent->type == GW_DO_PHASE && gw_machine_journals_late(m, intent->phase.to);
}

static void not_journaled(struct sim_world *w, enum node node)
{
    struct sim_event *e = schedule(w, node, TO_MACHINE, 0);

    e->ev.type = GW_EV_NOT_JOURNALED;
    e->ev.error = &journal_error;
}

/* What may be journaled late comes after all else, as in the shell. */
static void perform(struct sim_world *w, enum node node, const struct gw_update *u)
{
    struct daemon *d = &w->daemon[node];

    for (int late = 0; late <= 1; late++)
        for (unsigned i = 0; i < u->n_intents; i++) {
            const struct gw_intent *intent = &u->intents[i];

            if (can_wait(&d->m, intent) != (late == 1))
                continue;
            check_intent(w, node, intent);
            switch (perform_one(w, node, intent)) {
            case PERFORMED: break;
            case KILLED: daemon_kill(w, node, d->dies_for_ns, false); return;
            case NOT_JOURNALED: not_journaled(w, node); return;
            }
        }
}

bool daemon_machine_works(const struct sim_world *w, enum node node)
{
    const struct daemon *d = &w->daemon[node];

    return d->up && d->has_machine && !gw_phase_is_end(d->m.phase);
}

bool daemon_is_settled(const struct sim_world *w, enum node node)
{
    return w->daemon[node].up && !daemon_machine_works(w, node) && !w->daemon[node].arriving;
}

void daemon_step(struct sim_world *w, enum node node, struct gw_event *ev)
{
    struct daemon *d = &w->daemon[node];
    struct gw_update u;

    if (!daemon_machine_works(w, node))
        return;
    if (ev->type == GW_EV_QEMU_STATUS && ev->status == GW_QEMU_COMPLETED)
        d->seen_loaded = true;
    ev->at_ns = local_ns(w, node);
    gw_machine_step(&d->m, ev, &u);
    perform(w, node, &u);
}

static void init_machine(struct sim_world *w, enum node node)
{
    struct daemon *d = &w->daemon[node];

    d->has_machine = true;
    d->ops = 0;
    d->seen_loaded = false;
    gw_machine_init(&d->m, node == S ? GW_SOURCE : GW_DESTINATION, &gw_limits_default);
}

void daemon_start_source(struct sim_world *w)
{
    struct gw_update u;

    init_machine(w, S);
    journal_write(w, S, GW_PREPARING, false);
    w->daemon[S].journal.guest_runs = !w->plan.paused;
    w->daemon[S].m.verify = w->plan.verify;
    gw_machine_begin(&w->daemon[S].m, local_ns(w, S), &u);
    perform(w, S, &u);
}

/* A second PREPARE, which only a sloppy network brings, is nobody's. */
void daemon_prepare(struct sim_world *w)
{
    struct daemon *d = &w->daemon[D];
    struct gw_update u;

    if (d->journal.n_entries || d->has_machine)
        return;
    init_machine(w, D);
    d->journal.has_record = w->daemon[S].journal.has_record;
    d->journal.owner = w->daemon[S].journal.owner;
    d->journal.guest_runs = !w->plan.paused;
    d->m.has_record = d->journal.has_record;
    d->m.guest_runs = d->journal.guest_runs;
    if (!journal_write(w, D, GW_PREPARING, false)) {
        d->has_machine = false;
        trace(w, "D says failed\n");
        network_send(w, D, GW_MSG_FAILED);
        network_hang_up(w, D, false);
        return;
    }
    gw_machine_begin(&d->m, local_ns(w, D), &u);
    perform(w, D, &u);
}

/* death and return */

/* What was sent to QEMU before the daemon died is done now, or was not sent. Either way it is done
 * before a successor can ask QEMU anything: QMP has one client at a time. */
static void settle_requests(struct sim_world *w, enum node node, bool power_cut)
{
    for (unsigned i = 0; i < w->n_queued; i++) {
        struct sim_event e = w->queue[i];

        if (e.node != node || (e.type != OP_HAPPENS && e.type != ARRIVAL_RESUMES))
            continue;
        w->queue[i--] = w->queue[--w->n_queued];
        if (e.type == OP_HAPPENS && !power_cut && !chance(w, 2))
            daemon_op_happens(w, &e);
        if (e.type == ARRIVAL_RESUMES && !power_cut && !chance(w, 2))
            arrival_resumes(w, false);
    }
}

void daemon_kill(struct sim_world *w, enum node node, uint64_t for_ns, bool power_cut)
{
    struct daemon *d = &w->daemon[node];
    struct sim_event *e;

    if (!d->up)
        return;
    trace(w, power_cut ? "%c power cut\n" : "%c daemon killed\n", name_of[node]);
    d->up = d->has_machine = d->arriving = d->seen_loaded = false;
    d->ops = 0;
    d->life++;
    if (power_cut) {
        qemu_kill(w, node);
        journal_tear(w, node);
        if (!link_is_up(w)) /* nobody is left to send it again */
            network_forget(w, other(node));
        d->clock_offset_ns = -(int64_t)(w->now_ns * w->plan.rates[node] / 1000);
    }
    settle_requests(w, node, power_cut);
    store_forget_calls(w, node);
    network_forget(w, node);
    network_hang_up(w, node, power_cut);
    e = schedule(w, node, DAEMON_STARTS, for_ns);
    e->life = ANY;
}

static void recover_source(struct sim_world *w)
{
    struct daemon *d = &w->daemon[S];
    enum gw_phase phase = journal_phase(w, S);
    struct gw_update u;

    if (phase == GW_PHASE_MAX)
        return;
    if (gw_phase_is_end(phase)) {
        d->has_machine = true; /* as it was */
        d->m.phase = phase;
        d->m.needs_person = d->journal.entries[d->journal.n_entries - 1].unresolved;
        d->m.ops = 0;
        return;
    }
    init_machine(w, S);
    d->m.guest_runs = d->journal.guest_runs;
    d->m.has_record = d->journal.has_record;
    gw_machine_recover(&d->m, phase, local_ns(w, S), &u);
    if (!w->qemu[S].alive) {
        struct sim_event *e = schedule(w, S, TO_MACHINE, 0);

        e->ev.type = GW_EV_QEMU_GONE;
        e->ev.error = &gone_error;
    }
    perform(w, S, &u);
}

void daemon_starts(struct sim_world *w, const struct sim_event *e)
{
    w->daemon[e->node].up = true;
    if (w->daemon[e->node].forgets) /* reason to ask a person, but never for a second guest */
        excuse(w, "a journal could not be written");
    trace(w, "%c daemon back\n", name_of[e->node]);
    if (e->node == S)
        recover_source(w);
    else
        arrival_begin(w);
}
