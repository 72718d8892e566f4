/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control connection. It is ordered, and what is sent over it arrives unless the connection
 * ends: a cut link delays it. Each end learns in its own time that a connection has ended.
 */
#include "sim/parts.h"

bool link_is_up(const struct sim_world *w)
{
    return w->now_ns >= w->cut_until_ns;
}

static uint64_t latest_delivery_ns(const struct sim_world *w, enum node to)
{
    uint64_t latest_ns = w->now_ns;

    for (unsigned i = 0; i < w->n_queued; i++)
        if (w->queue[i].type == DELIVER && w->queue[i].node == to && w->queue[i].at_ns > latest_ns)
            latest_ns = w->queue[i].at_ns;
    return latest_ns;
}

static void will_drop(struct sim_world *w, enum node node, uint64_t in_ns)
{
    struct sim_event *e = schedule(w, node, DROP, in_ns);

    e->connection = w->daemon[node].connection;
    e->ev.error = &lost_error;
}

/* Over a link that is up the other end hears of it, mostly after all that was said. */
void network_hang_up(struct sim_world *w, enum node by, bool silently)
{
    enum node to = other(by);
    unsigned connection = w->daemon[by].connection;

    w->daemon[by].connection = NO_CONNECTION;
    if (w->daemon[to].connection == NO_CONNECTION ||
        (w->daemon[to].connection != connection && w->daemon[by].up))
        return;
    if (silently || !link_is_up(w)) {
        will_drop(w, to, KEEPALIVE_NS + between(w, 0, 1000) * MS);
    } else if (chance(w, 4)) { /* something was not read here: a reset, which overtakes */
        w->may_wait = true;
        will_drop(w, to, MS);
    } else {
        will_drop(w, to, latest_delivery_ns(w, to) - w->now_ns + MS);
    }
}

/* The destination's end is bound to the migration when PREPARE or QUERY arrives over it. */
void network_connect(struct sim_world *w)
{
    w->daemon[S].connection = ++w->last_connection;
    w->accepted_by_life = w->daemon[D].life;
}

static struct sim_event *will_deliver(struct sim_world *w, enum node to, enum gw_message message,
                                      uint64_t in_ns)
{
    struct sim_event *e = schedule(w, to, DELIVER, in_ns);

    e->life = ANY;
    e->connection = w->daemon[other(to)].connection;
    e->ev.type = GW_EV_MESSAGE;
    e->ev.message = message;
    e->ev.error = message == GW_MSG_FAILED || message == GW_MSG_LOST ? &an_error : NULL;
    return e;
}

void network_send(struct sim_world *w, enum node from, enum gw_message message)
{
    enum node to = other(from);
    uint64_t in_ns = between(w, 1, 3) * MS, ordered_ns = latest_delivery_ns(w, to) - w->now_ns;

    if (w->daemon[from].connection == NO_CONNECTION)
        return;
    if (w->plan.sloppy && chance(w, 8))
        return;
    if (w->plan.sloppy && chance(w, 8))
        will_deliver(w, to, message, between(w, 0, 8000) * MS);
    if (w->plan.sloppy && chance(w, 4))
        in_ns = between(w, 0, 5000) * MS;
    else if (in_ns < ordered_ns)
        in_ns = ordered_ns;
    will_deliver(w, to, message, in_ns);
}

void network_cut(struct sim_world *w, uint64_t for_ns)
{
    trace(w, "link cut\n");
    if (w->cut_until_ns < w->now_ns + for_ns)
        w->cut_until_ns = w->now_ns + for_ns;
    for (enum node n = S; for_ns >= KEEPALIVE_NS && n < N_NODES; n++)
        if (w->daemon[n].connection != NO_CONNECTION)
            will_drop(w, n, KEEPALIVE_NS + between(w, 0, 1000) * MS);
}

/* A new connection ends up with the migration when its first message has been read. Who made it may
 * have hung up by then. */
static void bind_connection(struct sim_world *w, unsigned connection)
{
    struct daemon *d = &w->daemon[D];

    if (connection <= d->newest_connection || w->accepted_by_life != d->life)
        return;
    d->newest_connection = d->connection = connection;
    if (w->daemon[S].connection != connection)
        will_drop(w, D, link_is_up(w) ? MS : KEEPALIVE_NS);
}

static bool is_heard(struct sim_world *w, const struct sim_event *e)
{
    const struct daemon *d = &w->daemon[e->node];

    if (!d->up)
        return false;
    if (e->node == D && (e->ev.message == GW_MSG_PREPARE || e->ev.message == GW_MSG_QUERY))
        bind_connection(w, e->connection);
    return e->connection == d->connection ||
           (w->plan.sloppy && e->ev.message != GW_MSG_PREPARE); /* no machine without one */
}

/* The kernel throws away what a killed daemon has not read. */
void network_forget(struct sim_world *w, enum node node)
{
    for (unsigned i = 0; i < w->n_queued; i++)
        if (w->queue[i].type == DELIVER && w->queue[i].node == node && !w->plan.sloppy)
            w->queue[i--] = w->queue[--w->n_queued];
}

void network_deliver(struct sim_world *w, struct sim_event *e)
{
    if (!link_is_up(w)) { /* it keeps its place in the queue */
        w->queue[w->n_queued] = *e;
        w->queue[w->n_queued++].at_ns = w->cut_until_ns + MS;
        return;
    }
    if (!is_heard(w, e))
        return;
    w->failed_heard |= e->node == S && e->ev.message == GW_MSG_FAILED;
    if (e->node == D && e->ev.message == GW_MSG_PREPARE)
        daemon_prepare(w);
    else if (e->node == D && e->ev.message == GW_MSG_QUERY && !daemon_machine_works(w, D))
        arrival_answers_query(w);
    else
        daemon_step(w, e->node, &e->ev);
}

void network_drop(struct sim_world *w, struct sim_event *e)
{
    if (e->connection != w->daemon[e->node].connection)
        return;
    w->daemon[e->node].connection = NO_CONNECTION;
    if (w->daemon[other(e->node)].connection == e->connection)
        will_drop(w, other(e->node), link_is_up(w) ? MS : KEEPALIVE_NS);
    e->ev.type = GW_EV_PEER_LOST;
    daemon_step(w, e->node, &e->ev);
}
