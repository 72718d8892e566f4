/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of events, the clocks, the faults, and the step. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/parts.h"

#define STEPS_MAX 20000

const char name_of[N_NODES] = {'S', 'D'};
const struct gw_error an_error = {.code = GW_E_QEMU, .msg = "simulated failure"};
const struct gw_error gone_error = {.code = GW_E_QEMU_GONE, .msg = "QEMU was killed"};
const struct gw_error lost_error = {.code = GW_E_PEER, .msg = "the connection is gone"};
const struct gw_error late_error = {.code = GW_E_TIMEOUT, .msg = "no answer in time"};
const struct gw_error journal_error = {.code = GW_E_SYSTEM, .msg = "it was not journaled"};
const struct gw_error store_error = {.code = GW_E_SYSTEM, .msg = "the record was not swapped"};

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next_random(struct sim_world *w)
{
    uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t between(struct sim_world *w, uint64_t low, uint64_t high)
{
    return w->plan.calm ? low : low + next_random(w) % (high - low + 1);
}

bool chance(struct sim_world *w, unsigned one_in)
{
    return !w->plan.calm && next_random(w) % one_in == 0;
}

void trace(struct sim_world *w, const char *fmt, ...)
{
    va_list ap;
    int n;

    if (!w->loud)
        return;
    va_start(ap, fmt);
    n = vsnprintf(w->trace + w->n_trace, sizeof w->trace - w->n_trace, fmt, ap);
    va_end(ap);
    w->n_trace += (size_t)n < sizeof w->trace - w->n_trace ? (size_t)n : 0;
}

void broken(struct sim_world *w, const char *why)
{
    if (!w->broken)
        w->broken = why;
}

void excuse(struct sim_world *w, const char *why)
{
    if (!w->excuse)
        w->excuse = why;
}

/* The node's monotonic clock. */
uint64_t local_ns(const struct sim_world *w, enum node node)
{
    return (uint64_t)(w->daemon[node].clock_offset_ns +
                      (int64_t)(w->now_ns * w->plan.rates[node] / 1000));
}

/* The moment at which that clock shows this. */
static uint64_t when_local_is(const struct sim_world *w, enum node node, uint64_t then_ns)
{
    uint64_t since_ns = then_ns - (uint64_t)w->daemon[node].clock_offset_ns;
    uint64_t rate = w->plan.rates[node], at_ns = since_ns / rate * 1000;

    at_ns += (since_ns % rate * 1000 + rate - 1) / rate;
    return at_ns > w->now_ns ? at_ns : w->now_ns;
}

struct sim_event *schedule(struct sim_world *w, enum node node, enum event_type type,
                           uint64_t in_ns)
{
    struct sim_event *e = &w->queue[w->n_queued];

    assert(w->n_queued < EVENTS_MAX);
    w->n_queued++;
    w->n_writes += type == GUEST_WRITES;
    memset(e, 0, sizeof *e);
    e->at_ns = w->now_ns + in_ns;
    e->seq = w->seq++;
    e->node = node;
    e->type = type;
    e->life = w->daemon[node].life;
    return e;
}

/* faults */

static bool has_come(const struct sim_fault *fault, enum sim_moment_type type, enum node node,
                     int what)
{
    return fault->when.type == type && fault->when.node == node && fault->when.what == what;
}

void moment(struct sim_world *w, enum sim_moment_type type, enum node node, int what)
{
    for (unsigned i = 0; i < w->plan.n_faults; i++) {
        struct sim_event *e;

        if (w->fault_done[i] || !has_come(&w->plan.faults[i], type, node, what))
            continue;
        w->fault_done[i] = true;
        e = schedule(w, node, FAULT, w->plan.faults[i].when.delay_ns);
        e->life = ANY;
        e->fault = i;
    }
}

static void takes_time(struct sim_world *w, uint64_t for_ns)
{
    w->may_wait = true;
    w->lost_ns += for_ns;
    if (w->lost_ns > 20 * SECOND)
        excuse(w, "too much was away for too long");
}

bool dies_before(struct sim_world *w, enum sim_moment_type type, enum node node, int what)
{
    for (unsigned i = 0; i < w->plan.n_faults; i++) {
        const struct sim_fault *fault = &w->plan.faults[i];

        if (w->fault_done[i] || fault->type != SIM_KILL_DAEMON || fault->node != node ||
            !has_come(fault, type, node, what))
            continue;
        w->fault_done[i] = true;
        w->daemon[node].dies_for_ns = fault->for_ns;
        w->store_failed = true;
        takes_time(w, fault->for_ns);
        return true;
    }
    return false;
}

static void cancel(struct sim_world *w, enum node node)
{
    if (!daemon_machine_works(w, node))
        return;
    trace(w, "%c cancels\n", name_of[node]);
    w->cancelled |= gw_machine_can_cancel(&w->daemon[node].m);
    daemon_step(w, node, &(struct gw_event){.type = GW_EV_CANCEL});
}

static void lose_store(struct sim_world *w, enum node node, uint64_t for_ns)
{
    trace(w, "store lost for %c\n", name_of[node]);
    if (w->store_lost_until_ns[node] < w->now_ns + for_ns)
        w->store_lost_until_ns[node] = w->now_ns + for_ns;
}

static void lose_journal(struct sim_world *w, enum node node, uint64_t for_ns)
{
    trace(w, "journal lost for %c\n", name_of[node]);
    if (w->journal_lost_until_ns[node] < w->now_ns + for_ns)
        w->journal_lost_until_ns[node] = w->now_ns + for_ns;
}

static void inflict(struct sim_world *w, const struct sim_fault *fault)
{
    enum node node = fault->node;
    bool kills = fault->type == SIM_KILL_DAEMON || fault->type == SIM_POWER_CUT;

    w->may_wait |= fault->type != SIM_CANCEL && fault->type != SIM_FAIL_OP;
    w->store_failed |= kills || (fault->type >= SIM_LOSE_STORE && fault->type <= SIM_HANG_OP);
    if (kills || fault->type == SIM_CUT_LINK || fault->type == SIM_LOSE_STORE ||
        fault->type == SIM_LATE_REQUEST)
        takes_time(w, fault->for_ns);
    switch (fault->type) {
    case SIM_KILL_DAEMON: daemon_kill(w, node, fault->for_ns, false); break;
    case SIM_POWER_CUT: daemon_kill(w, node, fault->for_ns, true); break;
    case SIM_KILL_QEMU: qemu_kill(w, node); break;
    case SIM_CUT_LINK: network_cut(w, fault->for_ns); break;
    case SIM_BREAK_STREAM: stream_break(w); break;
    case SIM_LOSE_STORE: lose_store(w, node, fault->for_ns); break;
    case SIM_LOSE_REQUEST: w->lose_request[node] = true; break;
    case SIM_LATE_REQUEST: w->late_request_ns[node] = fault->for_ns; break;
    case SIM_LOSE_ANSWER: w->lose_answer[node] = true; break;
    case SIM_FAIL_OP: w->fail_next[node] = true; break;
    case SIM_HANG_OP: w->hang_next[node] = true; break;
    case SIM_CANCEL: cancel(w, node); break;
    case SIM_LOSE_JOURNAL: lose_journal(w, node, fault->for_ns); break;
    default: break;
    }
}

/* the step */

static void happen(struct sim_world *w, struct sim_event *e)
{
    w->n_writes -= e->type == GUEST_WRITES;
    if ((e->life != ANY && e->life != w->daemon[e->node].life) ||
        (e->qemu_life != ANY && e->qemu_life != w->qemu[e->node].life))
        return;
    switch (e->type) {
    case TO_MACHINE: daemon_step(w, e->node, &e->ev); break;
    case OP_ENDS: daemon_op_ends(w, e); break;
    case OP_HAPPENS: daemon_op_happens(w, e); break;
    case STORE_ANSWERS: daemon_store_answers(w, e); break;
    case STORE_RECEIVES: store_receive(w, e); break;
    case ARRIVAL_LOOKS: arrival_looks(w); break;
    case ARRIVAL_CLEARS: qemu_destroy(w, D); break;
    case ARRIVAL_RESUMES: arrival_resumes(w, true); break;
    case DELIVER: network_deliver(w, e); break;
    case DROP: network_drop(w, e); break;
    case DAEMON_STARTS: daemon_starts(w, e); break;
    case FAULT: inflict(w, &w->plan.faults[e->fault]); break;
    default: qemu_event(w, e); break;
    }
}

static bool earlier_tick(struct sim_world *w, uint64_t before_ns, struct sim_event *e)
{
    bool found = false;

    for (enum node n = S; n < N_NODES; n++) {
        const struct daemon *d = &w->daemon[n];
        uint64_t at_ns;

        if (!daemon_machine_works(w, n) || d->m.deadline_ns == UINT64_MAX)
            continue;
        at_ns = when_local_is(w, n, d->m.deadline_ns);
        if (at_ns >= before_ns)
            continue;
        before_ns = at_ns;
        found = true;
        *e = (struct sim_event){.at_ns = at_ns, .node = n, .type = TO_MACHINE};
        e->ev.type = GW_EV_TICK;
    }
    return found;
}

/* Takes the earliest event, or a tick that is due before it. False when nothing is left to happen:
 * guests write for ever. */
static bool next_event(struct sim_world *w, struct sim_event *e)
{
    unsigned best = 0;

    for (unsigned i = 1; i < w->n_queued; i++)
        if (w->queue[i].at_ns < w->queue[best].at_ns ||
            (w->queue[i].at_ns == w->queue[best].at_ns && w->queue[i].seq < w->queue[best].seq))
            best = i;
    if (earlier_tick(w, w->n_queued ? w->queue[best].at_ns : UINT64_MAX, e)) {
        if (!w->may_wait && !w->plan.sloppy)
            broken(w, "a limit in time had to decide, though nothing was lost");
        return true;
    }
    if (w->n_queued == w->n_writes && daemon_is_settled(w, S) && daemon_is_settled(w, D))
        return false;
    if (!w->n_queued)
        return false;
    *e = w->queue[best];
    w->queue[best] = w->queue[--w->n_queued];
    return true;
}

struct sim_world *sim_world_new(const struct sim_plan *plan, bool loud)
{
    struct sim_world *w = calloc(1, sizeof *w);

    assert(w);
    w->plan = *plan;
    w->random = plan->seed;
    w->loud = loud;
    w->record = (struct owner){S, 1};
    for (enum node n = S; n < N_NODES; n++) {
        w->daemon[n].life = 1;
        w->daemon[n].up = true;
        w->daemon[n].clock_offset_ns = (int64_t)(between(w, 1, 1000) * SECOND);
        if (!plan->rates[n])
            w->plan.rates[n] = 1000;
    }
    qemu_init(w);
    for (unsigned i = 0; i < plan->n_faults; i++)
        if (plan->faults[i].when.type == SIM_AT)
            moment(w, SIM_AT, plan->faults[i].when.node, plan->faults[i].when.what);
    daemon_start_source(w);
    return w;
}

void sim_world_free(struct sim_world *w)
{
    free(w);
}

const char *sim_world_trace(const struct sim_world *w)
{
    return w->trace;
}

void sim_world_run(struct sim_world *w, struct sim_outcome *outcome)
{
    const struct gw_machine *s = &w->daemon[S].m, *d = &w->daemon[D].m;
    unsigned n_steps = 0;
    struct sim_event e;

    while (!w->broken && next_event(w, &e)) {
        w->now_ns = e.at_ns;
        happen(w, &e);
        check_step(w);
        if (++n_steps > STEPS_MAX)
            broken(w, "it never comes to rest");
    }
    check_end(w);
    *outcome = (struct sim_outcome){
        .source_phase = s->phase,
        .destination_phase = w->daemon[D].has_machine ? d->phase : GW_PHASE_MAX,
        .runs = {w->qemu[S].runs, w->qemu[D].runs},
        .alive = {w->qemu[S].alive, w->qemu[D].alive},
        .needs_person = s->needs_person,
        .error = s->error,
        .owner = w->record.node,
        .epoch = w->record.epoch,
        .n_steps = n_steps,
        .excuse = w->excuse,
        .broken = w->broken,
    };
}
