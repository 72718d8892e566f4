/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every state of the two machines, each on its own, that any order of events can lead to.
 *
 * The exploration is exhaustive: time only passes with a tick, so the states are finitely many. It
 * is done twice. With an honest driver, which keeps the contract of machine.h (but with a peer that
 * may say anything at any time), all that the machines promise is checked. With a sloppy one, whose
 * events come in any phase whatsoever, only that nothing worse happens than an event without sense.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/machine.h"
#include "util/cleanup.h"
#include "machine_words.h"

#define OP_BIT(o)      (UINT32_C(1) << GW_OP_##o)
#define STATES_MAX     (UINT32_C(1) << 19)
#define NOBODY         UINT32_MAX
#define N_MESSAGES     GW_MSG_MAX
#define N_STATUSES     (GW_QEMU_OTHER + 1)
#define HEARD(w, m)    ((w)->heard & (UINT32_C(1) << GW_MSG_##m))
#define MSG_BIT(m)     (UINT32_C(1) << GW_MSG_##m)
#define SAID_BIT(w, m) ((w)->said & (UINT32_C(1) << GW_MSG_##m))

/* A machine and what whoever drives it knows of the past. */
struct world {
    struct gw_machine m;
    uint32_t heard, said;   /* messages, one bit each; FAILED counts anew after COMMIT */
    uint32_t begun, failed; /* operations, one bit each */
    bool connected, qemu, qemu_speaks, seen_paused, seen_completed;
    bool has_record; /* so INSPECT will say */
    bool unsure;     /* recovered: COMMIT may have been said */
    bool claimed;    /* CLAIM was done */
    bool reclaimed;  /* RECLAIM was done, or nobody knows but FAILED was heard before it began */
    bool by_word;    /* FAILED was heard before the RECLAIM under way began */
    bool disowned;   /* a RECLAIM found another's record */
    uint32_t parent;
    struct gw_event by; /* what led here from parent */
};

struct exploration {
    bool honest, has_record;
    struct world *worlds;
    uint32_t n_worlds, n_ends, now_at;
    uint32_t *table; /* an index into worlds + 1, by hash */
    uint64_t (*keys)[3];
    struct gw_event now; /* what is being tried */
    uint32_t phases, intents_max;
};

static struct exploration *exploring; /* for the signal handler */

static void print_path(const struct exploration *x)
{
    const struct gw_event *path[128];
    unsigned n = 0;
    uint32_t at = x->now_at;
    char text[128];

    for (; x->worlds[at].parent != NOBODY && n < GW_ARRAY_SIZE(path); at = x->worlds[at].parent)
        path[n++] = &x->worlds[at].by;
    print_error("The %s, from %s:\n", x->worlds[at].m.role == GW_SOURCE ? "source" : "destination",
                gw_phase_name(x->worlds[at].m.phase));
    while (n-- > 0) {
        event_text(path[n], text, sizeof text);
        print_error("  %s\n", text);
    }
    event_text(&x->now, text, sizeof text);
    print_error("  in %s now: %s\n", gw_phase_name(x->worlds[x->now_at].m.phase), text);
}

static void aborted(int sig)
{
    if (exploring)
        print_path(exploring);
    signal(sig, SIG_DFL);
    raise(sig);
}

#define EXPECT(x, condition)                    \
    do {                                        \
        if (!(condition)) {                     \
            print_path(x);                      \
            fail_msg("not so: %s", #condition); \
        }                                       \
    } while (0)

static bool may_go(enum gw_phase from, enum gw_phase to, bool needs_person)
{
    switch (from) {
    case GW_PREPARING: return to == GW_PRECOPY || to == GW_FAILING;
    case GW_PRECOPY: return to == GW_SWITCHOVER || to == GW_FAILING;
    case GW_SWITCHOVER: return to == GW_COMMITTING || to == GW_FAILING;
    case GW_COMMITTING:
        return to == GW_FINISHING || to == GW_FAILING || (to == GW_FAILED && needs_person);
    case GW_FINISHING: return to == GW_COMPLETED;
    case GW_FAILING: return to == GW_FAILED || to == GW_CANCELLED;
    default: return false;
    }
}

/* Before the commit the guest is the source's. After it the owner record gives it back; where there
 * is none, FAILED. */
static bool source_may_resume(const struct world *w)
{
    if (!SAID_BIT(w, COMMIT))
        return true;
    return w->m.has_record ? w->reclaimed : HEARD(w, FAILED);
}

static void check_source_op(const struct exploration *x, const struct world *w, enum gw_op op)
{
    switch (op) {
    case GW_OP_STOP_COPY:
        EXPECT(x, !(w->begun & (OP_BIT(RESUME) | OP_BIT(DISARM))));
        EXPECT(x, !SAID_BIT(w, COMMIT) || w->unsure);
        break;
    case GW_OP_VERIFY:
        EXPECT(x, w->m.verify && w->seen_completed && w->m.ops == OP_BIT(VERIFY));
        EXPECT(x, !SAID_BIT(w, COMMIT));
        break;
    case GW_OP_RECLAIM:
        EXPECT(x, w->m.has_record && SAID_BIT(w, COMMIT));
        EXPECT(x, w->m.phase == GW_COMMITTING);
        break;
    case GW_OP_RESUME:
        EXPECT(x, source_may_resume(w));
        EXPECT(x, w->m.guest_runs);
        EXPECT(x, !(w->begun & OP_BIT(DISARM)));
        EXPECT(x, w->m.phase == GW_FAILING);
        break;
    case GW_OP_ARM: EXPECT(x, HEARD(w, PREPARED)); break;
    case GW_OP_DESTROY: EXPECT(x, HEARD(w, RUNNING) || w->parent == NOBODY); break;
    default: break;
    }
    if (w->m.phase == GW_FAILING)
        EXPECT(x, op == GW_OP_STOP_COPY || op == GW_OP_RESUME || op == GW_OP_DISARM);
    if (op != GW_OP_CONNECT && op != GW_OP_RECLAIM)
        EXPECT(x, !(w->begun & (UINT32_C(1) << op)));
}

static void check_destination_op(const struct exploration *x, const struct world *w, enum gw_op op)
{
    EXPECT(x, !(w->begun & (UINT32_C(1) << op)));
    if (op == GW_OP_RESUME || op == GW_OP_CLAIM) {
        EXPECT(x, HEARD(w, COMMIT) || HEARD(w, QUERY));
        EXPECT(x, w->seen_completed);
        EXPECT(x, !SAID_BIT(w, FAILED));
        EXPECT(x, w->m.phase == GW_COMMITTING);
    }
    if (op == GW_OP_CLAIM)
        EXPECT(x, w->m.has_record);
    if (op == GW_OP_RESUME)
        EXPECT(x, w->claimed == w->m.has_record);
    if (op == GW_OP_DESTROY) {
        EXPECT(x, w->m.ops == OP_BIT(DESTROY)); /* CLAIM's answer is waited for */
        EXPECT(x, w->m.phase == GW_FAILING);
        EXPECT(x, !(w->begun & OP_BIT(RESUME)) || (w->failed & OP_BIT(RESUME)));
    }
}

static void check_source_message(const struct exploration *x, const struct world *w,
                                 enum gw_message message)
{
    switch (message) {
    case GW_MSG_PREPARE:
        EXPECT(x, w->connected && (w->begun & OP_BIT(INSPECT)) && !SAID_BIT(w, PREPARE));
        break;
    case GW_MSG_SWITCHING: EXPECT(x, w->seen_paused && !SAID_BIT(w, SWITCHING)); break;
    case GW_MSG_COMMIT:
        EXPECT(x, w->seen_completed && !SAID_BIT(w, COMMIT) && w->m.ops == 0);
        EXPECT(x, !w->m.verify || ((w->begun & ~w->failed) & OP_BIT(VERIFY)));
        break;
    case GW_MSG_QUERY: /* which is as good as COMMIT */
        EXPECT(x, w->m.phase == GW_COMMITTING && (!w->unsure || w->disowned));
        break;
    case GW_MSG_FINISHED: EXPECT(x, w->m.phase == GW_FINISHING); break;
    case GW_MSG_ABORT: /* without a copy to come back there is nothing to swap the record for */
        EXPECT(x, source_may_resume(w) || (HEARD(w, FAILED) && !w->m.has_qemu));
        break;
    default: EXPECT(x, !"a message of the source"); break;
    }
}

static void check_destination_message(const struct exploration *x, const struct world *w,
                                      enum gw_message message)
{
    switch (message) {
    case GW_MSG_PREPARED: EXPECT(x, !SAID_BIT(w, PREPARED)); break;
    case GW_MSG_RUNNING:
        EXPECT(x, (w->begun & OP_BIT(RESUME)) && !(w->failed & OP_BIT(RESUME)) &&
                      !(w->m.ops & OP_BIT(RESUME)));
        EXPECT(x, !SAID_BIT(w, FAILED) && !SAID_BIT(w, LOST));
        break;
    case GW_MSG_FAILED:
        EXPECT(x, !SAID_BIT(w, RUNNING) && !SAID_BIT(w, LOST));
        EXPECT(x, !(w->begun & OP_BIT(RESUME)) || (w->failed & OP_BIT(RESUME)));
        break;
    case GW_MSG_LOST: EXPECT(x, (w->begun & OP_BIT(RESUME)) && !(w->m.ops & OP_BIT(RESUME))); break;
    case GW_MSG_ABORTED: EXPECT(x, w->begun & OP_BIT(DESTROY)); break;
    case GW_MSG_BUSY: EXPECT(x, w->m.phase == GW_COMMITTING); break;
    default: EXPECT(x, !"a message of the destination"); break;
    }
}

static void check_end(const struct exploration *x, const struct world *w)
{
    const struct gw_machine *m = &w->m;

    EXPECT(x, m->ops == 0);
    EXPECT(x, m->needs_person == (m->error.code == GW_E_UNRESOLVED));
    if (m->phase == GW_COMPLETED) {
        EXPECT(x, !m->needs_person);
        EXPECT(x, m->role == GW_DESTINATION || (w->begun & OP_BIT(DESTROY)));
        return;
    }
    EXPECT(x, m->error.code != GW_OK && m->error.msg[0]);
    EXPECT(x, (m->phase == GW_CANCELLED) == (m->cancelled && !m->needs_person));
    if (m->phase == GW_CANCELLED)
        EXPECT(x, m->error.code == GW_E_CANCELLED);
    if (m->needs_person)
        return;
    if (m->role == GW_DESTINATION) {
        EXPECT(x, w->begun & OP_BIT(DESTROY));
        EXPECT(x, SAID_BIT(w, FAILED) || HEARD(w, ABORT));
        return;
    }
    /* All that was done is undone, as the guest is here. */
    EXPECT(x, w->qemu);
    if (w->begun & OP_BIT(START))
        EXPECT(x, m->times.phase_ns[GW_COMMITTING] || (w->begun & OP_BIT(STOP_COPY)));
    if (w->seen_paused && m->guest_runs)
        EXPECT(x, (w->begun & OP_BIT(RESUME)) && !(w->failed & OP_BIT(RESUME)));
    if (w->failed & OP_BIT(STOP_COPY))
        EXPECT(x, !(w->begun & OP_BIT(DISARM)));
    else if (w->begun & OP_BIT(ARM))
        EXPECT(x, w->begun & OP_BIT(DISARM));
}

/* Something will happen, or somebody is there to whom something may happen. */
static void check_not_stuck(const struct exploration *x, const struct world *w)
{
    const struct gw_machine *m = &w->m;

    if (m->ops || m->deadline_ns != UINT64_MAX)
        return;
    EXPECT(x, w->connected || w->qemu);
    EXPECT(x, m->phase == GW_PRECOPY || (m->phase == GW_FINISHING && w->connected));
}

/* Carries the update out; *w is the world after it. */
static void take_update(struct exploration *x, struct world *w, enum gw_phase from,
                        const struct gw_update *u)
{
    uint32_t ops = 0;
    bool hung_up = false;

    for (unsigned i = 0; i < u->n_intents; i++) {
        const struct gw_intent *intent = &u->intents[i];

        switch (intent->type) {
        case GW_DO_PHASE:
            EXPECT(x, intent->phase.from == from);
            EXPECT(x, may_go(from, intent->phase.to, w->m.needs_person));
            from = intent->phase.to;
            x->phases |= UINT32_C(1) << from;
            break;
        case GW_DO_OP:
            EXPECT(x, !(ops & (UINT32_C(1) << intent->op)));
            ops |= UINT32_C(1) << intent->op;
            EXPECT(x, w->m.ops & ops);
            if (intent->op == GW_OP_RECLAIM)
                w->by_word = HEARD(w, FAILED);
            if (x->honest && w->m.role == GW_SOURCE)
                check_source_op(x, w, intent->op);
            if (x->honest && w->m.role == GW_DESTINATION)
                check_destination_op(x, w, intent->op);
            w->begun |= UINT32_C(1) << intent->op;
            w->qemu |= intent->op == GW_OP_LAUNCH;
            w->qemu_speaks |= intent->op == GW_OP_START || intent->op == GW_OP_LISTEN;
            break;
        case GW_DO_SEND:
            if (x->honest && w->m.role == GW_SOURCE)
                check_source_message(x, w, intent->message);
            if (x->honest && w->m.role == GW_DESTINATION)
                check_destination_message(x, w, intent->message);
            w->said |= UINT32_C(1) << intent->message;
            break;
        case GW_DO_DISCONNECT:
            EXPECT(x, !hung_up);
            hung_up = true;
            w->connected = false;
            break;
        }
    }
    EXPECT(x, from == w->m.phase);
    EXPECT(x, hung_up == gw_phase_is_end(w->m.phase));
    if (u->n_intents > x->intents_max)
        x->intents_max = u->n_intents;
    if (!x->honest)
        return;
    if (gw_phase_is_end(w->m.phase))
        check_end(x, w);
    else
        check_not_stuck(x, w);
}

static void put(uint64_t *key, unsigned bits, uint64_t value)
{
    *key = *key << bits | (value & ((UINT64_C(1) << bits) - 1));
}

static uint64_t from_now(const struct gw_machine *m, uint64_t at_ns)
{
    if (at_ns == UINT64_MAX)
        return UINT16_MAX;
    return at_ns > m->now_ns ? at_ns - m->now_ns : 0;
}

/* All by which two worlds may behave differently. Time counts from the beginning of the phase. */
static void key_of(const struct world *w, uint64_t key[3])
{
    const struct gw_machine *m = &w->m;
    const bool flags[] = {m->guest_runs,  m->cancelled,    m->connected,      m->engaged,
                          m->peer_undone, m->inspected,    m->armed,          m->copying,
                          m->paused,      m->told,         m->has_qemu,       m->loaded,
                          m->let_run,     m->needs_person, w->connected,      w->qemu,
                          w->qemu_speaks, w->seen_paused,  w->seen_completed, m->has_record,
                          m->peer_failed, m->by_word,      m->disowned,       m->stuck,
                          w->claimed,     w->reclaimed,    w->by_word,        w->disowned,
                          m->verify,      m->verified,     m->unsure};
    uint64_t since = m->now_ns - m->times.phase_ns[m->phase];

    memset(key, 0, 3 * sizeof *key);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(flags); i++)
        put(&key[0], 1, flags[i]);
    put(&key[0], 4, m->phase);
    put(&key[0], 4, m->qemu_status);
    put(&key[0], 5, m->error.code);
    put(&key[0], GW_OP_MAX, m->ops);
    put(&key[1], GW_OP_MAX, w->begun);
    put(&key[1], GW_OP_MAX, w->failed);
    put(&key[1], GW_MSG_MAX, w->heard);
    put(&key[1], GW_MSG_MAX, w->said);
    put(&key[2], 16, since < limits.preparing_ns ? since : limits.preparing_ns); /* the longest */
    put(&key[2], 16, from_now(m, m->deadline_ns));
    put(&key[2], 16, from_now(m, m->retry_at_ns));
    put(&key[2], 16, from_now(m, m->reclaim_at_ns));
}

static void add_world(struct exploration *x, const struct world *w)
{
    uint64_t key[3], hash;
    uint32_t at;

    key_of(w, key);
    hash = (key[0] ^ key[1] * UINT64_C(0x9e3779b97f4a7c15) ^ key[2] * UINT64_C(0xbf58476d1ce4e5b9));
    hash = (hash ^ hash >> 31) * UINT64_C(0x94d049bb133111eb);
    for (at = (uint32_t)(hash >> 40); x->table[at % (2 * STATES_MAX)]; at++)
        if (memcmp(x->keys[x->table[at % (2 * STATES_MAX)] - 1], key, sizeof key) == 0)
            return;
    if (x->n_worlds == STATES_MAX)
        fail_msg("more than %u states", STATES_MAX);
    if ((x->n_worlds & (x->n_worlds - 1)) == 0) {
        size_t room = x->n_worlds ? (size_t)x->n_worlds * 2 : 1;

        x->worlds = realloc(x->worlds, room * sizeof *x->worlds);
        x->keys = realloc(x->keys, room * sizeof *x->keys);
        assert_true(x->worlds && x->keys);
    }
    memcpy(x->keys[x->n_worlds], key, sizeof key);
    x->worlds[x->n_worlds] = *w;
    x->table[at % (2 * STATES_MAX)] = ++x->n_worlds;
    x->n_ends += gw_phase_is_end(w->m.phase);
}

/* What no check asks for is not remembered, or the worlds would be too many. */
static bool matters(const struct world *w, enum gw_message message)
{
    switch (message) {
    case GW_MSG_PREPARED: return true;
    case GW_MSG_RUNNING:
    case GW_MSG_FAILED: return SAID_BIT(w, COMMIT);
    case GW_MSG_COMMIT:
    case GW_MSG_QUERY: return !(w->begun & OP_BIT(RESUME));
    case GW_MSG_ABORT: return !SAID_BIT(w, FAILED);
    default: return false;
    }
}

static void note_event(struct world *w, const struct gw_event *ev)
{
    switch (ev->type) {
    case GW_EV_DONE:
        /* a RESUME that failed otherwise than by QEMU's own word may have let the guest run */
        if (ev->error && (w->m.role == GW_SOURCE || ev->error->code == GW_E_QEMU))
            w->failed |= UINT32_C(1) << ev->done.op & (OP_BIT(RESUME) | OP_BIT(STOP_COPY));
        else if (ev->done.op == GW_OP_CONNECT)
            w->connected = true;
        w->claimed |= ev->done.op == GW_OP_CLAIM && !ev->error;
        w->disowned |= ev->done.op == GW_OP_RECLAIM && ev->error && ev->done.conflict;
        w->reclaimed |=
            ev->done.op == GW_OP_RECLAIM && (!ev->error || (w->by_word && !ev->done.conflict));
        if (ev->done.op == GW_OP_STOP_COPY) {
            w->qemu_speaks = false;
            if (w->m.phase == GW_COMMITTING && !ev->error && !ev->done.completed)
                w->said &= ~MSG_BIT(COMMIT); /* now it is known that it was not */
        }
        if (ev->done.op == GW_OP_DESTROY)
            w->qemu = w->qemu_speaks = false;
        break;
    case GW_EV_MESSAGE:
        w->heard |= (uint32_t)matters(w, ev->message) << ev->message;
        if (ev->message == GW_MSG_QUERY && w->m.role == GW_DESTINATION)
            w->connected = true;
        break;
    case GW_EV_NOT_JOURNALED:
        w->said &= ~MSG_BIT(COMMIT);
        w->begun &= ~OP_BIT(RESUME);
        break;
    case GW_EV_PEER_LOST: w->connected = false; break;
    case GW_EV_QEMU_GONE: w->qemu = w->qemu_speaks = false; break;
    case GW_EV_QEMU_STATUS:
        w->seen_paused |= ev->status == GW_QEMU_PRE_SWITCHOVER;
        w->seen_completed |= ev->status == GW_QEMU_COMPLETED;
        if (ev->status == GW_QEMU_COMPLETED || ev->status == GW_QEMU_FAILED ||
            ev->status == GW_QEMU_CANCELLED)
            w->qemu_speaks = false; /* its last word on this migration */
        break;
    default: break;
    }
}

static bool is_failure(const struct gw_event *ev)
{
    switch (ev->type) {
    case GW_EV_DONE: return ev->error != NULL;
    case GW_EV_QEMU_STATUS: return ev->status == GW_QEMU_FAILED || ev->status == GW_QEMU_CANCELLED;
    case GW_EV_PEER_LOST:
    case GW_EV_QEMU_GONE:
    case GW_EV_CANCEL:
    case GW_EV_TICK: return true;
    default: return false;
    }
}

/* Before the commit whatever goes wrong is the end of it; after it a lost connection or a change
 * of mind is no reason to give up. */
static void check_consequence(const struct exploration *x, enum gw_phase before,
                              const struct gw_event *ev, const struct world *w)
{
    bool mind_changed =
             ev->type == GW_EV_CANCEL || (ev->type == GW_EV_MESSAGE && ev->message == GW_MSG_ABORT),
         given_up = w->m.phase != GW_COMPLETED &&
                    (w->m.phase == GW_FAILING || gw_phase_is_end(w->m.phase));

    if (before <= GW_SWITCHOVER && is_failure(ev))
        EXPECT(x, given_up);
    if (before == GW_COMMITTING && w->m.role == GW_DESTINATION && w->m.has_record &&
        !(w->begun & OP_BIT(RESUME)) && ev->type == GW_EV_MESSAGE && ev->message == GW_MSG_ABORT) {
        EXPECT(x, given_up || !x->honest); /* the source has swapped the record back */
        return;
    }
    if ((before == GW_COMMITTING || before == GW_FINISHING) &&
        (mind_changed || ev->type == GW_EV_PEER_LOST))
        EXPECT(x, !given_up);
}

static void check_error_kept(const struct exploration *x, const struct gw_machine *before,
                             const struct gw_machine *after)
{
    if (before->error.code == GW_OK)
        return;
    if (after->error.code == GW_E_UNRESOLVED && after->needs_person)
        EXPECT(x, strstr(after->error.msg, before->error.msg));
    else
        EXPECT(x, memcmp(&before->error, &after->error, sizeof before->error) == 0);
}

/* Without checks on it the past does not matter. */
static void forget(struct world *w)
{
    w->heard = w->said = w->begun = w->failed = 0;
    w->connected = w->qemu = w->qemu_speaks = w->seen_paused = w->seen_completed = false;
    w->claimed = w->reclaimed = w->by_word = w->disowned = false;
}

static void try_event(struct exploration *x, uint32_t at, struct gw_event ev)
{
    struct world w = x->worlds[at];
    const struct gw_machine before = w.m;
    struct gw_update u;
    int rc;

    ev.at_ns = ev.type == GW_EV_TICK ? before.deadline_ns : before.now_ns;
    x->now_at = at;
    x->now = ev;
    note_event(&w, &ev);
    rc = gw_machine_step(&w.m, &ev, &u);
    w.parent = at;
    w.by = ev;
    EXPECT(x, rc == 0 || rc == 1);
    if (rc == 1) { /* it made no sense, and changed nothing */
        struct gw_machine same = before;

        same.now_ns = w.m.now_ns;
        EXPECT(x, u.n_intents == 0);
        EXPECT(x, memcmp(&same, &w.m, sizeof same) == 0);
        EXPECT(x, ev.type == GW_EV_MESSAGE || ev.type == GW_EV_CANCEL);
        if (ev.type == GW_EV_MESSAGE) /* nobody acts on it, so it was not heard */
            w.heard = x->worlds[at].heard;
    }
    if (ev.type == GW_EV_CANCEL && before.phase != w.m.phase)
        EXPECT(x, gw_machine_can_cancel(&before) && w.m.phase == GW_FAILING);
    check_consequence(x, before.phase, &ev, &w);
    check_error_kept(x, &before, &w.m);
    take_update(x, &w, before.phase, &u);
    if (!gw_phase_is_end(w.m.phase))
        EXPECT(x, w.m.deadline_ns > w.m.now_ns);
    if (!x->honest)
        forget(&w);
    add_world(x, &w);
}

static void try_done(struct exploration *x, uint32_t at, enum gw_op op)
{
    const struct gw_error *errors[] = {NULL, &an_error, &gone_error};
    bool swaps = op == GW_OP_CLAIM || op == GW_OP_RECLAIM;

    for (unsigned i = 0; i < GW_ARRAY_SIZE(errors) - swaps; i++) {
        bool both = errors[i] ? swaps : op == GW_OP_INSPECT || op == GW_OP_STOP_COPY;

        for (int yes = 0; yes <= both; yes++) {
            struct gw_event ev = {.type = GW_EV_DONE, .error = errors[i], .done = {.op = op}};

            ev.done.guest_runs = op == GW_OP_INSPECT && yes;
            ev.done.completed = op == GW_OP_STOP_COPY && yes;
            ev.done.conflict = swaps && yes;
            ev.done.has_record = op == GW_OP_INSPECT && x->has_record;
            try_event(x, at, ev);
        }
    }
}

/* The first thing that is heard of a commit without a record, if it is. */
static bool may_not_be_journaled(const struct exploration *x, const struct world *w)
{
    return w->m.phase == GW_COMMITTING && !x->has_record && w->parent != NOBODY &&
           x->worlds[w->parent].m.phase != GW_COMMITTING;
}

/* A QUERY comes over a connection of its own. */
static bool may_hear(const struct exploration *x, const struct world *w, enum gw_message message)
{
    return !x->honest || w->connected || (w->m.role == GW_DESTINATION && message == GW_MSG_QUERY);
}

static void try_everything(struct exploration *x, uint32_t at)
{
    const struct world w = x->worlds[at];

    for (enum gw_op op = 0; op < GW_OP_MAX; op++)
        if (w.m.ops & (UINT32_C(1) << op))
            try_done(x, at, op);
    for (enum gw_message message = 0; message < N_MESSAGES; message++)
        if (may_hear(x, &w, message))
            try_event(
                x, at,
                (struct gw_event){.type = GW_EV_MESSAGE, .error = &an_error, .message = message});
    for (enum gw_qemu_status status = 0; status < N_STATUSES; status++)
        if (!x->honest || w.qemu_speaks)
            try_event(
                x, at,
                (struct gw_event){.type = GW_EV_QEMU_STATUS, .error = &an_error, .status = status});
    if (!x->honest || w.connected)
        try_event(x, at, (struct gw_event)PEER_LOST);
    if (!x->honest || w.qemu)
        try_event(x, at, (struct gw_event)QEMU_GONE);
    if (may_not_be_journaled(x, &w))
        try_event(x, at, (struct gw_event)NOT_JOURNALED);
    try_event(x, at, (struct gw_event){.type = GW_EV_PROGRESS});
    try_event(x, at, (struct gw_event)CANCEL);
    if (w.m.deadline_ns != UINT64_MAX)
        try_event(x, at, (struct gw_event)TICK);
}

/* first: as after gw_machine_begin() or gw_machine_recover(). */
static void explore(bool honest, struct world *first, const struct gw_update *u, uint32_t phases)
{
    struct exploration x = {.honest = honest, .has_record = first->has_record};
    enum gw_phase from = first->m.phase;

    x.table = calloc(2 * STATES_MAX, sizeof *x.table);
    assert_non_null(x.table);
    for (unsigned i = u->n_intents; i > 0; i--)
        if (u->intents[i - 1].type == GW_DO_PHASE)
            from = u->intents[i - 1].phase.from;
    first->parent = NOBODY;
    x.phases = UINT32_C(1) << from;
    add_world(&x, first); /* for print_path() */
    exploring = &x;
    take_update(&x, first, from, u);
    x.worlds[0] = *first;
    x.worlds[0].parent = NOBODY;
    for (uint32_t at = 0; at < x.n_worlds; at++)
        if (!gw_phase_is_end(x.worlds[at].m.phase))
            try_everything(&x, at);
    exploring = NULL;
    print_message("%s, %s, %s record, from %s: %u states, %u ends, %u intents at most\n",
                  first->m.role == GW_SOURCE ? "source" : "destination",
                  honest ? "honest" : "sloppy", x.has_record ? "with" : "without a",
                  gw_phase_name(from), x.n_worlds, x.n_ends, x.intents_max);
    assert_int_equal(x.phases, phases);
    assert_true(x.n_ends > 0);
    free(x.table);
    free(x.keys);
    free(x.worlds);
}

#define ALL_PHASES ((UINT32_C(1) << GW_PHASE_MAX) - 1)

static void explore_role(enum gw_role role, bool has_record, bool verify, bool honest)
{
    struct world first = {.qemu = role == GW_SOURCE,
                          .connected = role == GW_DESTINATION,
                          .has_record = has_record};
    struct gw_update u;

    gw_machine_init(&first.m, role, &limits);
    first.m.has_record = role == GW_DESTINATION && has_record;
    first.m.verify = verify;
    gw_machine_begin(&first.m, 1000, &u);
    explore(honest, &first, &u, ALL_PHASES);
}

#define PHASE_BIT(phase) (UINT32_C(1) << (phase))

static uint32_t phases_after_recovery(enum gw_phase left, bool has_record)
{
    uint32_t committed = ALL_PHASES & ~(PHASE_BIT(GW_PREPARING) | PHASE_BIT(GW_PRECOPY) |
                                        PHASE_BIT(GW_SWITCHOVER) | PHASE_BIT(GW_CANCELLED));

    if (left == GW_COMMITTING || (left < GW_COMMITTING && has_record))
        return committed;
    if (left == GW_FINISHING)
        return PHASE_BIT(GW_FINISHING) | PHASE_BIT(GW_COMPLETED);
    return PHASE_BIT(GW_PREPARING) | PHASE_BIT(GW_FAILING) | PHASE_BIT(GW_FAILED);
}

/* What a machine that begins anew cannot know of the time before, it has to assume. */
static void explore_recovery(enum gw_phase left, bool guest_runs, bool has_record, bool honest)
{
    const bool unsure = left < GW_COMMITTING && has_record,
               committed = left == GW_COMMITTING || left == GW_FINISHING || unsure;
    struct world first = {.qemu = true,
                          .seen_paused = true,
                          .seen_completed = committed,
                          .has_record = has_record,
                          .unsure = unsure};
    struct gw_update u;

    first.begun = OP_BIT(INSPECT) | OP_BIT(ARM) | OP_BIT(START);
    first.said = committed ? UINT32_C(1) << GW_MSG_COMMIT : 0;
    first.qemu_speaks = !committed || unsure;
    gw_machine_init(&first.m, GW_SOURCE, &limits);
    first.m.guest_runs = guest_runs;
    first.m.has_record = has_record;
    gw_machine_recover(&first.m, left, 1000, &u);
    explore(honest, &first, &u, phases_after_recovery(left, has_record));
}

static void every_state_of_the_source(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++)
        explore_role(GW_SOURCE, kind & 1, kind & 2, true);
}

static void every_state_of_the_destination(void **state)
{
    (void)state;
    explore_role(GW_DESTINATION, false, false, true);
    explore_role(GW_DESTINATION, true, false, true);
}

static void every_state_after_a_recovery(void **state)
{
    (void)state;
    for (enum gw_phase left = GW_PREPARING; left < GW_PHASE_MAX; left++)
        for (int kind = 0; kind < 8 && !gw_phase_is_end(left); kind++)
            explore_recovery(left, kind & 1, kind & 2, kind & 4);
}

static void every_state_with_a_sloppy_driver(void **state)
{
    (void)state;
    for (int has_record = 0; has_record <= 1; has_record++) {
        explore_role(GW_SOURCE, has_record, false, false);
        explore_role(GW_SOURCE, has_record, true, false);
        explore_role(GW_DESTINATION, has_record, false, false);
    }
}
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_of_the_source),
        cmocka_unit_test(every_state_of_the_destination),
        cmocka_unit_test(every_state_after_a_recovery),
        cmocka_unit_test(every_state_with_a_sloppy_driver),
    };

    signal(SIGABRT, aborted); /* an assertion of the machine: say how it came to it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
