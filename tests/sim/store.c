/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store of owner records: one record, and requests that are on their way to it.
 *
 * A request arrives late or never; what arrives takes effect at once, whether its caller still
 * lives or not. A caller hears of each request exactly once: the answer, or that there was none in
 * time.
 */
#include "sim/parts.h"

static void answer(struct sim_world *w, enum node node, const struct call *call, uint64_t in_ns)
{
    struct sim_event *e = schedule(w, node, STORE_ANSWERS, in_ns);

    e->call = *call;
}

static bool is_lost(const struct sim_world *w, enum node node)
{
    return w->now_ns < w->store_lost_until_ns[node];
}

/* The node's daemon has no other request under way; daemon->call is this one until its answer. */
void store_submit(struct sim_world *w, enum node node, struct call call)
{
    struct daemon *d = &w->daemon[node];
    uint64_t in_ns = between(w, 1, 6) * MS + w->late_request_ns[node];
    bool lost = w->lose_request[node];
    struct sim_event *e;

    if (d->call.id)
        broken(w, "two requests to the store at once");
    call.id = ++w->last_call;
    call.lose_answer = w->lose_answer[node];
    w->lose_request[node] = w->lose_answer[node] = false;
    w->late_request_ns[node] = 0;
    d->call = call;
    call.result = CALL_UNKNOWN;
    answer(w, node, &call, STORE_WAIT_NS);
    if (is_lost(w, node)) {
        if (chance(w, 3)) /* refused at once */
            answer(w, node, &call, between(w, 1, 5) * MS);
        lost |= chance(w, 2) || w->plan.calm;
        in_ns += w->store_lost_until_ns[node] - w->now_ns;
        if (chance(w, 2))
            in_ns += between(w, 0, 20) * SECOND;
    }
    if (lost)
        return;
    e = schedule(w, node, STORE_RECEIVES, in_ns);
    e->life = ANY;
    e->call = call;
}

static void swap(struct sim_world *w, enum node node, struct call *call)
{
    call->result = CALL_CONFLICT;
    if (call->from.node == w->record.node && call->from.epoch == w->record.epoch) {
        call->result = CALL_DONE;
        trace(w, "record %c %u -> %c %u\n", name_of[w->record.node], (unsigned)w->record.epoch,
              name_of[call->to], (unsigned)w->record.epoch + 1);
        w->record = (struct owner){call->to, w->record.epoch + 1};
    } else {
        trace(w, "store refuses %c\n", name_of[node]);
    }
}

void store_receive(struct sim_world *w, struct sim_event *e)
{
    struct call *call = &e->call;

    call->result = CALL_DONE;
    if (call->swap)
        swap(w, e->node, call);
    call->current = w->record;
    if (!call->lose_answer && !is_lost(w, e->node))
        answer(w, e->node, call, between(w, 0, 5) * MS);
}

/* The daemon that asked is dead. What it asked for may never have left, or still be on its way. */
void store_forget_calls(struct sim_world *w, enum node node)
{
    w->daemon[node].call.id = 0;
    for (unsigned i = 0; i < w->n_queued; i++) {
        struct sim_event *e = &w->queue[i];

        if (e->type != STORE_RECEIVES || e->node != node)
            continue;
        if (chance(w, 4)) {
            *e = w->queue[--w->n_queued];
            i--;
        } else if (chance(w, 3)) {
            e->at_ns += between(w, 0, 20) * SECOND;
        }
    }
}
