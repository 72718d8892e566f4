/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On the native route: no switchover before the destination's QEMU has read what was sent to it.
 *
 * QEMU counts as gone over what its sockets have taken, and pauses the guest when the little that
 * is left would go over quickly. But sockets hold megabytes, and the destination, to which each
 * page is new memory, may need longer for them than the source had: the paused guest waits
 * (docs/blackout.md). Worst is a guest that gives hints: pages that its balloon has taken and its
 * kernel cleared are sent in the second round, as zero pages, some bytes each on the wire.
 *
 * So QEMU begins with a bandwidth at which nothing that is left ever fits into downtime-limit.
 * After the first round, where there are hints after the second, it is slowed down to a page in a
 * tenth of a second, because it also switches over when nothing at all is left, which an idle guest
 * soon comes to. Then its sockets are waited for, and the destination is asked to say when it has
 * caught up; when it has, or after a second, both settings are again what they should be.
 */
#include "shell/outgoing_private.h"
#include "util/clock.h"

/* Passes begun when all that takes long has been sent: in the first round with hints, pages are
 * left out, and in the second those come that were cleared. */
#define FULL_PASSES       2u
#define FULL_PASSES_HINTS 3u

/* Less than a page of 4096 bytes in GW_CONVERGE_FIRST_MS, and more than none: at 0, QEMU would
 * switch over without looking for dirty pages (migration_iteration_run() in
 * migration/migration.c). */
#define HELD_BYTES_PER_S 400000

/* 1 byte in 100 ms: less is no limit (migration_rate_set() in migration/migration-stats.c). */
#define SLOW_BYTES_PER_S 10

/* QEMU looks at both every 100 ms only (migration_update_counters() there). */
#define NEW_LIMIT_NS UINT64_C(200000000)

/* What the sockets may still hold: a page. */
#define SENT_BYTES 4096u

#define PATIENCE_NS GW_NS_PER_S

static const struct timeval look_interval = {.tv_usec = 5000};

static void decide(struct outgoing *o, const char *chosen, const char *instead, const char *because)
{
    json_t *decisions =
        json_pack("[o]", gw_decision_new("switchover",
                                         json_pack("{s:I}", "round",
                                                   (json_int_t)o->base.machine.progress.round),
                                         chosen, instead, because));

    gw_record_decisions(&o->base.record, decisions, o->base.machine.phase, gw_clock_ns());
    json_decref(decisions);
}

void gw_outgoing_hold_switchover(struct outgoing *o, json_t *parameters)
{
    o->held = GW_HELD_NOT;
    o->n_passes = o->n_held_rounds = 0;
    o->released_ns = 0;
    if (o->base.wishes.carrier || !o->knows_goodput)
        return;
    o->held = GW_HELD;
    json_object_set_new(parameters, "avail-switchover-bandwidth", json_integer(HELD_BYTES_PER_S));
    decide(o, "held", "as soon as what is left fits",
           "the destination takes longer for what was sent than QEMU counts");
}

static void set_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(call, struct outgoing, hold_call);

    (void)reply;
    if (error)
        gw_migration_log(&o->base, GW_LOG_WARNING, "QEMU does not take its bandwidth: %s",
                         error->msg);
}

/* Takes parameters. */
static void set(struct outgoing *o, json_t *parameters)
{
    gw_qmp_session_cancel_call(&o->hold_call);
    o->hold_call.done = set_answered;
    gw_qmp_link_execute(o->base.vm->qmp, &o->hold_call, "migrate-set-parameters", parameters,
                        GW_OUTGOING_COMMAND_NS);
}

static void release(struct outgoing *o, const char *because)
{
    uint64_t bytes_per_s = o->base.wishes.bandwidth_bytes_per_s;

    o->held = GW_HELD_NOT;
    o->released_ns = gw_clock_ns();
    evtimer_del(o->catch_up);
    if (!o->base.vm || o->base.machine.phase != GW_PRECOPY)
        return;
    decide(o, "as soon as what is left fits", "held", because);
    set(o, json_pack("{s:I, s:i}", "max-bandwidth",
                     bytes_per_s ? (json_int_t)bytes_per_s : (json_int_t)INT64_MAX,
                     "avail-switchover-bandwidth", 0));
}

/* The sockets are empty, or nobody can know. */
static bool drained(const struct outgoing *o)
{
    uint64_t n_bytes;

    return gw_conns_unacked(o->host, o->port, &n_bytes) < 0 || n_bytes <= SENT_BYTES;
}

static void look(evutil_socket_t fd, short what, void *arg)
{
    struct outgoing *o = arg;

    (void)fd;
    (void)what;
    if (o->base.machine.phase != GW_PRECOPY)
        return; /* it has switched over, or is undone: nothing looks any more */
    if (gw_clock_ns() > o->patience_ends_ns) {
        release(o, "the destination has not caught up within a second");
        return;
    }
    if (o->held == GW_HELD_DRAINS && drained(o)) {
        o->held = GW_HELD_ASKED;
        if (!o->base.conn || gw_peer_send(o->base.conn, GW_WIRE_CATCH_UP, NULL, NULL) < 0) {
            release(o, "the destination cannot be asked");
            return;
        }
    }
    evtimer_add(o->catch_up, &look_interval);
}

void gw_outgoing_caught_up(struct outgoing *o)
{
    if (o->held == GW_HELD_ASKED)
        release(o, "the destination has read all that was sent");
}

uint32_t gw_outgoing_free_rounds(struct outgoing *o, uint32_t round)
{
    if (o->held != GW_HELD_NOT || (o->released_ns && gw_clock_ns() - o->released_ns < NEW_LIMIT_NS))
        o->n_held_rounds = round;
    return round > o->n_held_rounds ? round - o->n_held_rounds : 0;
}

void gw_outgoing_round_begins(struct outgoing *o)
{
    unsigned full = o->base.record.hints == GW_HINTS_ON ? FULL_PASSES_HINTS : FULL_PASSES;

    if (++o->n_passes < full || o->held != GW_HELD || !o->base.vm ||
        o->base.machine.phase != GW_PRECOPY)
        return;
    if (!o->catch_up)
        o->catch_up = evtimer_new(o->base.daemon->base, look, o);
    if (!o->catch_up || evtimer_add(o->catch_up, &look_interval) < 0)
        return; /* out of memory: QEMU switches over when nothing is left */
    o->held = GW_HELD_DRAINS;
    o->patience_ends_ns = gw_clock_ns() + PATIENCE_NS;
    set(o, json_pack("{s:i}", "max-bandwidth", SLOW_BYTES_PER_S));
}
