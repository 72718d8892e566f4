/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fake QEMUs, the guest in them, and the stream between them.
 *
 * The source pauses the guest before the switchover, sends the rest when told to, and has completed
 * when the destination's word comes back that it has loaded all. If the stream breaks before that,
 * or the migration is cancelled, it lets the guest run again by itself.
 */
#include <string.h>

#include "sim/parts.h"

static struct sim_event *qemu_will(struct sim_world *w, enum node node, enum event_type type,
                                   uint64_t in_ns)
{
    struct sim_event *e = schedule(w, node, type, in_ns);

    e->life = ANY;
    e->qemu_life = w->qemu[node].life;
    return e;
}

/* Told to the daemon that is there now; one that comes later asks by itself. */
static void qemu_says(struct sim_world *w, enum node node, enum gw_qemu_status status,
                      uint64_t in_ns)
{
    struct sim_event *e = schedule(w, node, TO_MACHINE, in_ns);

    e->qemu_life = w->qemu[node].life;
    e->ev.type = GW_EV_QEMU_STATUS;
    e->ev.status = status;
}

static void qemu_is_gone(struct sim_world *w, enum node node)
{
    struct sim_event *e;

    w->qemu[node] = (struct fake_qemu){.life = w->qemu[node].life + 1};
    e = schedule(w, node, TO_MACHINE, between(w, 0, 5) * MS);
    e->ev.type = GW_EV_QEMU_GONE;
    e->ev.error = &gone_error;
}

static void guest_starts(struct sim_world *w, enum node node)
{
    struct fake_qemu *q = &w->qemu[node];

    if (q->runs || w->plan.paused)
        return;
    check_start(w, node);
    q->runs = q->has_run = true;
    q->stopped = false;
    w->d_ran |= node == D;
    trace(w, "%c runs\n", name_of[node]);
    qemu_will(w, node, GUEST_WRITES, MS);
}

/* A write goes to memory and disk of the guest that does it: there is one truth, and one writer. */
static void guest_writes(struct sim_world *w, enum node node)
{
    struct fake_qemu *q = &w->qemu[node];
    unsigned page = (unsigned)between(w, 0, N_PAGES - 1);

    if (!q->runs)
        return;
    w->pages[page] = q->pages[page] = ++w->version;
    q->dirty[page] = true;
    if (w->version % 3 == 0)
        w->disk = q->disk = w->version;
    qemu_will(w, node, GUEST_WRITES, between(w, 50, 400) * MS);
}

void qemu_init(struct sim_world *w)
{
    w->qemu[S] = (struct fake_qemu){.alive = true, .life = 1};
    w->qemu[D].life = 1;
    guest_starts(w, S);
}

static bool is_migrating(const struct fake_qemu *q)
{
    return q->alive && (q->migration == GW_QEMU_ACTIVE || q->migration == GW_QEMU_PRE_SWITCHOVER ||
                        q->migration == GW_QEMU_DEVICE);
}

/* The migration ends without having completed. */
static void goes_back(struct sim_world *w, enum gw_qemu_status status)
{
    w->qemu[S].migration = status;
    qemu_says(w, S, status, MS);
    if (w->qemu[S].stopped)
        guest_starts(w, S);
}

/* Each end notices in its own time. */
void stream_break(struct sim_world *w)
{
    if (!w->stream_up)
        return;
    w->stream_up = false;
    trace(w, "stream broken\n");
    if (is_migrating(&w->qemu[S]))
        qemu_will(w, S, QEMU_FAILS, between(w, 0, 20) * MS);
    if (w->qemu[D].alive && !w->qemu[D].loaded)
        qemu_will(w, D, QEMU_FAILS, between(w, 0, 20) * MS);
}

static void fails(struct sim_world *w, enum node node)
{
    if (node == S && is_migrating(&w->qemu[S])) {
        goes_back(w, GW_QEMU_FAILED);
    } else if (node == D && !w->qemu[D].loaded) {
        trace(w, "D qemu killed\n"); /* exit-on-error */
        qemu_is_gone(w, D);
    }
}

static void copies(struct sim_world *w)
{
    struct fake_qemu *s = &w->qemu[S], *d = &w->qemu[D];

    for (unsigned i = 0; i < N_PAGES; i++)
        if (s->dirty[i]) {
            d->pages[i] = s->pages[i];
            s->dirty[i] = false;
        }
    d->disk = s->disk;
}

static void start(struct sim_world *w)
{
    struct fake_qemu *s = &w->qemu[S];

    s->migration = GW_QEMU_ACTIVE;
    qemu_says(w, S, GW_QEMU_SETUP, 0);
    w->stream_up = w->qemu[D].alive && w->qemu[D].listens;
    if (!w->stream_up) {
        qemu_will(w, S, QEMU_FAILS, 2 * MS);
        return;
    }
    memset(s->dirty, 1, sizeof s->dirty);
    qemu_says(w, S, GW_QEMU_ACTIVE, 2 * MS);
    qemu_says(w, D, GW_QEMU_ACTIVE, 2 * MS);
    qemu_will(w, S, QEMU_COPIES, between(w, 10, 40) * MS);
    qemu_will(w, S, QEMU_PAUSES, between(w, 50, 2000) * MS);
}

static const struct gw_error *go_on(struct sim_world *w)
{
    if (w->qemu[S].migration != GW_QEMU_PRE_SWITCHOVER)
        return &an_error;
    w->qemu[S].migration = GW_QEMU_DEVICE;
    qemu_says(w, S, GW_QEMU_DEVICE, 0);
    qemu_will(w, S, QEMU_SENDS_REST, between(w, 2, 40) * MS);
    return NULL;
}

static void cancel(struct sim_world *w)
{
    if (!is_migrating(&w->qemu[S]))
        return;
    goes_back(w, GW_QEMU_CANCELLED);
    stream_break(w);
}

const struct gw_error *qemu_cont(struct sim_world *w, enum node node)
{
    struct fake_qemu *q = &w->qemu[node];

    if (!q->alive)
        return &gone_error;
    if (node == S && (q->migration == GW_QEMU_PRE_SWITCHOVER || q->migration == GW_QEMU_DEVICE))
        return &an_error; /* "Migration is not finalized yet" */
    if (node == D && !q->loaded) {
        q->autostart = true;
        return NULL;
    }
    q->taken = w->plan.paused;
    if (w->plan.paused)
        check_start(w, node);
    w->d_ran |= node == D;
    guest_starts(w, node);
    return NULL;
}

/* What an operation does to the fake QEMU, at the moment that it happens. */
const struct gw_error *qemu_take_effect(struct sim_world *w, enum node node, enum gw_op op)
{
    struct fake_qemu *q = &w->qemu[node];

    if (op == GW_OP_LAUNCH) {
        *q = (struct fake_qemu){.alive = true, .life = q->life + 1};
        return NULL;
    }
    if (op == GW_OP_DESTROY) {
        qemu_destroy(w, node);
        return NULL;
    }
    if (!q->alive)
        return &gone_error;
    switch (op) {
    case GW_OP_ARM: q->armed = true; return NULL;
    case GW_OP_DISARM: q->armed = false; return NULL;
    case GW_OP_LISTEN: q->listens = true; return NULL;
    case GW_OP_START: start(w); return NULL;
    case GW_OP_SWITCH: return go_on(w);
    case GW_OP_VERIFY: return w->qemu[D].loaded ? NULL : &an_error;
    case GW_OP_STOP_COPY: cancel(w); return NULL;
    case GW_OP_RESUME: return qemu_cont(w, node);
    default: return NULL;
    }
}

static void loads(struct sim_world *w)
{
    struct fake_qemu *q = &w->qemu[D];

    q->loaded = true;
    qemu_says(w, D, GW_QEMU_COMPLETED, between(w, 0, 5) * MS);
    if (w->stream_up && w->qemu[S].alive)
        qemu_will(w, S, QEMU_COMPLETES, between(w, 1, 5) * MS);
    if (q->autostart)
        guest_starts(w, D);
}

static void completes(struct sim_world *w)
{
    if (!w->stream_up || w->qemu[S].migration != GW_QEMU_DEVICE)
        return;
    w->stream_up = false;
    w->qemu[S].migration = GW_QEMU_COMPLETED;
    qemu_says(w, S, GW_QEMU_COMPLETED, between(w, 0, 5) * MS);
}

static void pauses(struct sim_world *w)
{
    struct fake_qemu *s = &w->qemu[S];

    s->migration = GW_QEMU_PRE_SWITCHOVER;
    s->runs = false;
    s->stopped = true;
    trace(w, "S pauses\n");
    qemu_says(w, S, GW_QEMU_PRE_SWITCHOVER, 0);
}

/* A QEMU does by itself what its migration makes it do. A cut link makes it wait. */
void qemu_event(struct sim_world *w, const struct sim_event *e)
{
    if (e->type == GUEST_WRITES) {
        guest_writes(w, e->node);
        return;
    }
    if (e->type == QEMU_FAILS) {
        fails(w, e->node);
        return;
    }
    if (!link_is_up(w)) {
        qemu_will(w, e->node, e->type, w->cut_until_ns - w->now_ns + MS);
        return;
    }
    if (!w->stream_up) /* QEMU_FAILS is on its way */
        return;
    switch (e->type) {
    case QEMU_COPIES: copies(w); break;
    case QEMU_PAUSES: pauses(w); break;
    case QEMU_SENDS_REST:
        copies(w);
        qemu_will(w, D, QEMU_LOADS, between(w, 1, 5) * MS);
        break;
    case QEMU_LOADS: loads(w); break;
    default: completes(w); break;
    }
}

void qemu_destroy(struct sim_world *w, enum node node)
{
    if (w->qemu[node].alive)
        trace(w, "%c qemu destroyed\n", name_of[node]);
    w->qemu[node] = (struct fake_qemu){.life = w->qemu[node].life + 1};
    stream_break(w);
}

/* Once the source's QEMU has completed, COMMIT may be said before the daemons hear of this: then
 * nobody can know whether the guest ran. Before, it costs the migration and no more. */
void qemu_kill(struct sim_world *w, enum node node)
{
    const struct fake_qemu *q = &w->qemu[node];
    bool late = w->committed || w->qemu[S].migration == GW_QEMU_COMPLETED;

    if (!q->alive)
        return;
    trace(w, "%c qemu killed\n", name_of[node]);
    if (q->runs || (node == S ? !w->qemu[D].runs : late && !w->qemu[S].runs)) {
        w->guest_lost = true;
        excuse(w, "the guest's QEMU was killed");
    }
    qemu_is_gone(w, node);
    stream_break(w);
}
