/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/world.h"

#define MS            UINT64_C(1000000)
#define EVENTS_MAX    256
#define STEPS_MAX     20000
#define KEEPALIVE_NS  (5000 * MS)
#define NO_CONNECTION 0

enum node { S, D, N_NODES };

/* A fake: just enough of QEMU's life for the machines to have something to drive. */
struct fake_qemu {
    bool alive;
    bool runs;
    bool migrating; /* source: from START until settled */
    bool completed; /* source: everything has been sent; destination: everything is loaded */
    unsigned life;  /* events meant for an earlier life are dropped */
};

struct sim_event {
    uint64_t at_ns, seq;
    enum node node;
    enum { TO_MACHINE, OP_ENDS, QEMU_DOES, DELIVER, DROP, FAULT } kind;
    unsigned life;       /* of the daemon */
    unsigned qemu_life;  /* of this node's QEMU; 0: does not depend on it */
    unsigned connection; /* DELIVER, DROP */
    bool failed;
    struct gw_event ev;
    struct sim_fault fault;
};

struct sim_world {
    uint64_t random, now_ns, seq;
    struct sim_event queue[EVENTS_MAX];
    unsigned n_queued;
    struct gw_machine machine[N_NODES];
    bool has_machine[N_NODES];
    unsigned life[N_NODES];
    uint64_t tick_ns[N_NODES]; /* the deadline for which no tick has been given yet */
    struct fake_qemu qemu[N_NODES];
    uint64_t cut_until_ns;
    unsigned connection[N_NODES]; /* the one that each end believes in */
    unsigned last_connection;
    bool fail_next_op;
    bool cancel_heeded, committed, killed[N_NODES]; /* killed: that node's QEMU, by a fault */
    enum gw_phase journal; /* the source's last phase, as a restarted daemon reads it */
    const char *broken;
    char trace[4096];
};

static const char name_of[N_NODES] = {'S', 'D'};
static const struct gw_error an_error = {.code = GW_E_QEMU, .msg = "simulated failure"};
static const struct gw_error gone_error = {.code = GW_E_QEMU_GONE, .msg = "QEMU was killed"};
static const struct gw_error lost_error = {.code = GW_E_PEER, .msg = "the connection is gone"};

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next_random(struct sim_world *w)
{
    uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t between(struct sim_world *w, uint64_t low, uint64_t high)
{
    return low + next_random(w) % (high - low + 1);
}

__attribute__((format(printf, 2, 3))) static void trace(struct sim_world *w, const char *fmt, ...)
{
    size_t used = strlen(w->trace);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(w->trace + used, sizeof w->trace - used, fmt, ap);
    va_end(ap);
}

static struct sim_event *schedule(struct sim_world *w, enum node node, uint64_t in_ns)
{
    struct sim_event *e = &w->queue[w->n_queued];

    assert(w->n_queued < EVENTS_MAX);
    w->n_queued++;
    memset(e, 0, sizeof *e);
    e->at_ns = w->now_ns + in_ns;
    e->seq = w->seq++;
    e->node = node;
    e->life = w->life[node];
    return e;
}

static struct gw_event *to_machine(struct sim_world *w, enum node node, enum gw_event_type type,
                                   uint64_t in_ns)
{
    struct sim_event *e = schedule(w, node, in_ns);

    e->kind = TO_MACHINE;
    e->ev.type = type;
    return &e->ev;
}

/* A status only reaches the daemon while the QEMU that said it lives. */
static void qemu_says(struct sim_world *w, enum node node, enum gw_qemu_status status,
                      uint64_t in_ns)
{
    struct sim_event *e = schedule(w, node, in_ns);

    e->kind = TO_MACHINE;
    e->qemu_life = w->qemu[node].life;
    e->ev.type = GW_EV_QEMU_STATUS;
    e->ev.status = status;
}

/* Something happens inside a QEMU by itself, without its daemon: pausing, completing. */
static void qemu_will(struct sim_world *w, enum node node, enum gw_qemu_status status,
                      uint64_t in_ns)
{
    struct sim_event *e = schedule(w, node, in_ns);

    e->kind = QEMU_DOES;
    e->life = 0;
    e->qemu_life = w->qemu[node].life;
    e->ev.status = status;
}

static bool link_is_up(const struct sim_world *w)
{
    return w->now_ns >= w->cut_until_ns;
}

static void drop_connection(struct sim_world *w, enum node node, uint64_t in_ns)
{
    struct sim_event *e = schedule(w, node, in_ns);

    e->kind = DROP;
    e->connection = w->connection[node];
    e->ev.error = &lost_error;
}

static void hang_up(struct sim_world *w, enum node by)
{
    enum node other = by == S ? D : S;

    if (w->connection[by] != NO_CONNECTION && w->connection[by] == w->connection[other])
        drop_connection(w, other, link_is_up(w) ? MS : KEEPALIVE_NS);
    w->connection[by] = NO_CONNECTION;
}

static void send_to(struct sim_world *w, enum node to, enum gw_message message)
{
    enum node from = to == S ? D : S;
    struct sim_event *e;

    if (w->connection[from] == NO_CONNECTION || !link_is_up(w))
        return;
    e = schedule(w, to, between(w, 1, 3) * MS);
    for (unsigned i = 0; i + 1 < w->n_queued; i++) /* the connection keeps the order */
        if (w->queue[i].kind == DELIVER && w->queue[i].node == to && w->queue[i].at_ns > e->at_ns)
            e->at_ns = w->queue[i].at_ns;
    e->kind = DELIVER;
    e->connection = w->connection[from];
    e->ev.type = GW_EV_MESSAGE;
    e->ev.message = message;
    e->ev.error = message == GW_MSG_FAILED || message == GW_MSG_LOST ? &an_error : NULL;
}

/* What an operation does to the fake QEMU, at the moment that it is done. */
static const struct gw_error *take_effect(struct sim_world *w, enum node node, enum gw_op op)
{
    struct fake_qemu *q = &w->qemu[node];

    switch (op) {
    case GW_OP_INSPECT: return NULL;
    case GW_OP_CONNECT:
        if (!link_is_up(w))
            return &lost_error;
        w->connection[S] = w->connection[D] = ++w->last_connection;
        return NULL;
    case GW_OP_LAUNCH: *q = (struct fake_qemu){.alive = true, .life = q->life + 1}; return NULL;
    case GW_OP_DESTROY: *q = (struct fake_qemu){.life = q->life + 1}; return NULL;
    default: break;
    }
    if (!q->alive)
        return &gone_error;
    switch (op) {
    case GW_OP_START:
        q->migrating = true;
        qemu_says(w, node, GW_QEMU_SETUP, 0);
        qemu_says(w, node, GW_QEMU_ACTIVE, 2 * MS);
        qemu_will(w, node, GW_QEMU_PRE_SWITCHOVER, between(w, 50, 2000) * MS);
        break;
    case GW_OP_SWITCH:
        qemu_says(w, node, GW_QEMU_DEVICE, 0);
        qemu_will(w, node, GW_QEMU_COMPLETED, between(w, 2, 40) * MS);
        break;
    case GW_OP_STOP_COPY:
        /* QEMU lets a guest run again that its migration had paused, unless it had completed */
        if (q->migrating && !q->completed)
            q->runs = true;
        q->migrating = false;
        break;
    case GW_OP_RESUME:
        if (node == D && !q->completed)
            return &an_error;
        q->runs = true;
        break;
    default: break;
    }
    return NULL;
}

static void begin(struct sim_world *w, enum node node, enum gw_op op)
{
    struct sim_event *e;

    e = schedule(w, node, between(w, 1, 30) * MS);
    e->kind = OP_ENDS;
    e->ev.type = GW_EV_DONE;
    e->ev.done.op = op;
    e->failed = w->fail_next_op && op != GW_OP_DESTROY && op != GW_OP_STOP_COPY;
    w->fail_next_op = w->fail_next_op && !e->failed;
}

static void perform(struct sim_world *w, enum node node, const struct gw_update *u)
{
    for (unsigned i = 0; i < u->n_intents; i++) {
        const struct gw_intent *intent = &u->intents[i];

        switch (intent->type) {
        case GW_DO_OP: begin(w, node, intent->op); break;
        case GW_DO_SEND:
            trace(w, "%c says %s\n", name_of[node], gw_message_name(intent->message));
            w->committed |= intent->message == GW_MSG_COMMIT;
            send_to(w, node == S ? D : S, intent->message);
            break;
        case GW_DO_DISCONNECT: hang_up(w, node); break;
        case GW_DO_PHASE:
            trace(w, "%c %s -> %s\n", name_of[node], gw_phase_name(intent->phase.from),
                  gw_phase_name(intent->phase.to));
            if (node == S)
                w->journal = intent->phase.to;
            break;
        }
    }
    w->tick_ns[node] = w->machine[node].deadline_ns;
}

static void step(struct sim_world *w, enum node node, struct gw_event *ev)
{
    struct gw_update u;

    if (!w->has_machine[node] || gw_phase_is_end(w->machine[node].phase))
        return;
    ev->at_ns = w->now_ns;
    gw_machine_step(&w->machine[node], ev, &u);
    perform(w, node, &u);
}

/* What a destination daemon answers for a migration of which it has no machine any more. */
static void answer_query(struct sim_world *w)
{
    const struct gw_machine *m = &w->machine[D];

    if (w->has_machine[D] && m->needs_person)
        send_to(w, S, GW_MSG_LOST);
    else
        send_to(w, S, w->qemu[D].runs ? GW_MSG_RUNNING : GW_MSG_FAILED);
}

static void deliver(struct sim_world *w, struct sim_event *e)
{
    struct gw_update u;

    if (e->connection != w->connection[e->node] || !link_is_up(w))
        return;
    if (e->node == D && e->ev.message == GW_MSG_PREPARE) {
        gw_machine_init(&w->machine[D], GW_DESTINATION, &gw_limits_default);
        w->has_machine[D] = true;
        gw_machine_begin(&w->machine[D], w->now_ns, &u);
        perform(w, D, &u);
    } else if (e->node == D && e->ev.message == GW_MSG_QUERY &&
               (!w->has_machine[D] || gw_phase_is_end(w->machine[D].phase))) {
        answer_query(w);
    } else {
        step(w, e->node, &e->ev);
    }
}

/* A QEMU does by itself what its migration makes it do. */
static void qemu_does(struct sim_world *w, const struct sim_event *e)
{
    struct fake_qemu *q = &w->qemu[e->node];

    if (!q->migrating)
        return;
    if (!link_is_up(w) || !w->qemu[D].alive) {
        q->migrating = false;
        q->runs = true;
        qemu_says(w, S, GW_QEMU_FAILED, MS);
        return;
    }
    if (e->ev.status == GW_QEMU_PRE_SWITCHOVER) {
        q->runs = false;
        qemu_says(w, S, GW_QEMU_PRE_SWITCHOVER, 0);
    } else {
        q->completed = w->qemu[D].completed = true;
        qemu_says(w, D, GW_QEMU_COMPLETED, between(w, 0, 5) * MS);
        qemu_says(w, S, GW_QEMU_COMPLETED, between(w, 0, 5) * MS);
    }
}

static void kill_qemu(struct sim_world *w, enum node node)
{
    if (!w->qemu[node].alive)
        return;
    w->killed[node] = true;
    w->qemu[node] = (struct fake_qemu){.life = w->qemu[node].life + 1};
    to_machine(w, node, GW_EV_QEMU_GONE, MS)->error = &gone_error;
}

static void restart_source(struct sim_world *w)
{
    struct gw_update u;

    if (gw_phase_is_end(w->machine[S].phase))
        return;
    hang_up(w, S);
    w->life[S]++;
    gw_machine_init(&w->machine[S], GW_SOURCE, &gw_limits_default);
    gw_machine_recover(&w->machine[S], w->journal, w->now_ns, &u);
    if (!w->qemu[S].alive)
        to_machine(w, S, GW_EV_QEMU_GONE, 0)->error = &gone_error;
    perform(w, S, &u);
}

/* Without its machine the destination's QEMU either runs already, or must go. */
static void restart_destination(struct sim_world *w)
{
    hang_up(w, D);
    w->life[D]++;
    w->has_machine[D] = false;
    if (!w->qemu[D].runs)
        w->qemu[D] = (struct fake_qemu){.life = w->qemu[D].life + 1};
}

static void inflict(struct sim_world *w, const struct sim_fault *fault)
{
    switch (fault->type) {
    case SIM_CUT_LINK:
        w->cut_until_ns = w->now_ns + fault->for_ns;
        for (enum node n = S; fault->for_ns >= KEEPALIVE_NS && n < N_NODES; n++)
            if (w->connection[n] != NO_CONNECTION)
                drop_connection(w, n, KEEPALIVE_NS + between(w, 0, 1000) * MS);
        break;
    case SIM_KILL_SOURCE_QEMU: kill_qemu(w, S); break;
    case SIM_KILL_DESTINATION_QEMU: kill_qemu(w, D); break;
    case SIM_RESTART_SOURCE: restart_source(w); break;
    case SIM_RESTART_DESTINATION: restart_destination(w); break;
    case SIM_CANCEL:
        w->cancel_heeded |= gw_machine_can_cancel(&w->machine[S]);
        step(w, S, &(struct gw_event){.type = GW_EV_CANCEL});
        break;
    case SIM_FAIL_OP: w->fail_next_op = true; break;
    default: break;
    }
}

static void drop(struct sim_world *w, struct sim_event *e)
{
    if (e->connection != w->connection[e->node])
        return;
    e->ev.type = GW_EV_PEER_LOST;
    w->connection[e->node] = NO_CONNECTION;
    step(w, e->node, &e->ev);
}

static void happen(struct sim_world *w, struct sim_event *e)
{
    if (e->life && e->life != w->life[e->node])
        return;
    if (e->qemu_life && e->qemu_life != w->qemu[e->node].life)
        return;
    switch (e->kind) {
    case TO_MACHINE: step(w, e->node, &e->ev); break;
    case FAULT: inflict(w, &e->fault); break;
    case DELIVER: deliver(w, e); break;
    case DROP: drop(w, e); break;
    case OP_ENDS:
        e->ev.error = e->failed ? &an_error : take_effect(w, e->node, e->ev.done.op);
        e->ev.done.guest_runs = true;
        step(w, e->node, &e->ev);
        break;
    case QEMU_DOES: qemu_does(w, e); break;
    }
}

/* Takes the earliest event, or a tick that is due before it. False when nothing is left to happen.
 */
static bool next_event(struct sim_world *w, struct sim_event *e)
{
    unsigned best = 0;

    for (unsigned i = 1; i < w->n_queued; i++)
        if (w->queue[i].at_ns < w->queue[best].at_ns ||
            (w->queue[i].at_ns == w->queue[best].at_ns && w->queue[i].seq < w->queue[best].seq))
            best = i;
    for (enum node n = S; n < N_NODES; n++) {
        const struct gw_machine *m = &w->machine[n];

        if (!w->has_machine[n] || gw_phase_is_end(m->phase) || m->deadline_ns == UINT64_MAX)
            continue;
        if (w->n_queued && m->deadline_ns >= w->queue[best].at_ns)
            continue;
        *e = (struct sim_event){.at_ns = m->deadline_ns, .node = n, .ev = {.type = GW_EV_TICK}};
        if (e->at_ns < w->now_ns)
            e->at_ns = w->now_ns;
        return true;
    }
    if (!w->n_queued)
        return false;
    *e = w->queue[best];
    w->queue[best] = w->queue[--w->n_queued];
    return true;
}

static void check_invariants(struct sim_world *w)
{
    const struct fake_qemu *s = &w->qemu[S], *d = &w->qemu[D];

    if (s->runs && d->runs)
        w->broken = "two guests run";
    if (d->runs && !w->committed)
        w->broken = "the destination runs without a commit";
    if (w->cancel_heeded && d->runs)
        w->broken = "cancelled, yet the guest moved";
}

static void check_end(struct sim_world *w)
{
    const struct gw_machine *m = &w->machine[S];

    if (w->broken)
        return;
    if (!gw_phase_is_end(m->phase))
        w->broken = "the source never ended";
    else if (w->has_machine[D] && !gw_phase_is_end(w->machine[D].phase))
        w->broken = "the destination never ended";
    else if (m->ops || (w->has_machine[D] && w->machine[D].ops))
        w->broken = "an operation is still under way";
    else if (!w->killed[S] && !w->killed[D] && !m->needs_person &&
             w->qemu[S].runs + w->qemu[D].runs != 1)
        w->broken = "not exactly one guest runs";
    else if (m->phase == GW_COMPLETED && (w->qemu[S].alive || (!w->killed[D] && !w->qemu[D].runs)))
        w->broken = "completed, but the guest has not moved";
    else if (m->phase != GW_COMPLETED && !m->needs_person && !w->killed[S] && !w->qemu[S].runs)
        w->broken = "not moved, but the guest does not run on the source";
    else if (m->phase != GW_COMPLETED && !m->needs_person && w->qemu[D].alive)
        w->broken = "a QEMU is left over on the destination";
}

struct sim_world *sim_world_new(uint64_t seed, const struct sim_fault *faults, unsigned n_faults)
{
    struct sim_world *w = calloc(1, sizeof *w);

    assert(w);
    w->random = seed;
    w->life[S] = w->life[D] = 1;
    w->qemu[S] = (struct fake_qemu){.alive = true, .runs = true, .life = 1};
    w->qemu[D].life = 1;
    for (unsigned i = 0; i < n_faults; i++) {
        struct sim_event *e = schedule(w, S, faults[i].at_ns);

        e->kind = FAULT;
        e->life = 0;
        e->fault = faults[i];
    }
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
    struct gw_update u;
    struct sim_event e;
    unsigned n_steps = 0;

    gw_machine_init(&w->machine[S], GW_SOURCE, &gw_limits_default);
    w->has_machine[S] = true;
    gw_machine_begin(&w->machine[S], 0, &u);
    perform(w, S, &u);
    while (!w->broken && next_event(w, &e)) {
        w->now_ns = e.at_ns;
        if (e.life == 0 && e.kind == TO_MACHINE)
            step(w, e.node, &e.ev);
        else
            happen(w, &e);
        check_invariants(w);
        if (++n_steps > STEPS_MAX)
            w->broken = "it never comes to rest";
    }
    check_end(w);
    *outcome = (struct sim_outcome){
        .source_phase = w->machine[S].phase,
        .destination_phase = w->has_machine[D] ? w->machine[D].phase : GW_PHASE_MAX,
        .source_runs = w->qemu[S].runs,
        .destination_runs = w->qemu[D].runs,
        .source_alive = w->qemu[S].alive,
        .destination_alive = w->qemu[D].alive,
        .needs_person = w->machine[S].needs_person,
        .error = w->machine[S].error,
        .n_steps = n_steps,
        .broken = w->broken,
    };
}
