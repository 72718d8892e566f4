/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the copy is. Figures are asked for when a round begins and every half second while memory
 * is copied: QEMU has no event for them.
 */
#include <inttypes.h>
#include <stdio.h>

#include "host/findings.h"
#include "host/freepages.h"
#include "shell/guestnet.h"
#include "shell/outgoing_private.h"
#include "util/clock.h"

#define PACKET_PAGES          128 /* of multifd, QEMU's MULTIFD_PACKET_SIZE */
#define GOODPUT_DECISIONS_MAX 20  /* in the record; QEMU is told all the same */

static uint64_t json_u64(const json_t *json, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(json, key));

    return value > 0 ? (uint64_t)value : 0;
}

static void note_carrier(struct outgoing *o)
{
    json_t *decisions;

    if (!o->base.carrier)
        return;
    decisions = gw_carrier_take_decisions(o->base.carrier);
    gw_record_decisions(&o->base.record, decisions, o->base.machine.phase, gw_clock_ns());
    json_decref(decisions);
}

static void goodput_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(call, struct outgoing, goodput_call);

    (void)reply;
    if (error)
        gw_migration_log(&o->base, GW_LOG_WARNING, "QEMU does not take the carrier's rate: %s",
                         error->msg);
}

static void decide_goodput(struct outgoing *o, uint64_t bytes_per_s, uint64_t instead_of)
{
    char chosen[32], instead[32];
    json_t *decisions;

    if (o->n_goodput_decisions++ >= GOODPUT_DECISIONS_MAX)
        return;
    snprintf(chosen, sizeof chosen, "%" PRIu64 " bytes/s", bytes_per_s);
    snprintf(instead, sizeof instead, "%" PRIu64 " bytes/s", instead_of);
    decisions = json_pack(
        "[o]",
        gw_decision_new("switchover-bandwidth",
                        json_pack("{s:I}", "round", (json_int_t)o->base.machine.progress.round),
                        chosen, instead_of ? instead : "QEMU's own measurement",
                        "so fast the carrier takes pages over while it has some; QEMU plans "
                        "the pause with it"));
    gw_record_decisions(&o->base.record, decisions, o->base.machine.phase, gw_clock_ns());
    json_decref(decisions);
}

static void tell_goodput(struct outgoing *o)
{
    uint64_t bytes, worked_ns, bytes_per_s, instead_of;

    if (!o->base.carrier || !o->base.vm || o->base.machine.phase != GW_PRECOPY ||
        !o->knows_goodput || gw_qmp_call_is_pending(&o->goodput_call))
        return;
    gw_carrier_work(o->base.carrier, &bytes, &worked_ns);
    if (!gw_goodput_take(&o->goodput, bytes, worked_ns, &bytes_per_s, &instead_of))
        return;
    decide_goodput(o, bytes_per_s, instead_of);
    o->goodput_call.done = goodput_answered;
    gw_qmp_link_execute(o->base.vm->qmp, &o->goodput_call, "migrate-set-parameters",
                        json_pack("{s:I}", "avail-switchover-bandwidth", (json_int_t)bytes_per_s),
                        GW_OUTGOING_COMMAND_NS);
}

static void count_free_pages(struct outgoing *o, const json_t *ram)
{
    struct gw_hints_sample sample = {
        .total_bytes = json_u64(ram, "total"),
        .remaining_bytes = json_u64(ram, "remaining"),
        .n_sent_pages = json_u64(ram, "normal") + json_u64(ram, "duplicate"),
        .n_unseen_pages = (o->base.wishes.channels + 1) * PACKET_PAGES,
        .page_bytes = (uint32_t)json_u64(ram, "page-size"),
        .round = (uint32_t)json_u64(ram, "dirty-sync-count"),
    };

    if (o->base.record.hints == GW_HINTS_ON)
        o->base.record.not_sent_bytes = gw_hints_not_sent(&sample, o->base.record.not_sent_bytes);
}

static void take_figures(struct outgoing *o, const json_t *reply)
{
    const json_t *ram = json_object_get(reply, "ram");
    struct gw_event ev = {.type = GW_EV_PROGRESS};
    struct gw_progress *p = &ev.progress;
    uint64_t page_bytes = json_u64(ram, "page-size");

    if (!ram)
        return;
    p->total_bytes = json_u64(ram, "total");
    p->remaining_bytes = json_u64(ram, "remaining");
    p->wire_bytes =
        o->base.carrier ? gw_carrier_wire_bytes(o->base.carrier) : json_u64(ram, "transferred");
    note_carrier(o);
    count_free_pages(o, ram);
    tell_goodput(o);
    p->rate_bytes_per_s =
        (uint64_t)(json_number_value(json_object_get(ram, "mbps")) * 1000000.0 / 8.0);
    p->dirty_bytes_per_s = json_u64(ram, "dirty-pages-rate") * page_bytes;
    p->round = (uint32_t)json_u64(ram, "dirty-sync-count");
    p->expected_blackout_ns = json_u64(reply, "expected-downtime") * 1000000;
    gw_record_progress(&o->base.record, p, gw_clock_ns());
    if (o->base.machine.phase == GW_PRECOPY && !o->base.carrier)
        gw_conns_find(&o->conns, o->host, o->port);
    if (o->base.machine.phase == GW_PRECOPY &&
        gw_converge_round(&o->converge, gw_outgoing_free_rounds(o, p->round), p->remaining_bytes))
        gw_outgoing_settle_for_the_policy(o);
    gw_migration_post(&o->base, &ev);
}

/* The copy stands, and nothing else says why. */
static void warn_of_silence(struct outgoing *o)
{
    struct gw_findings findings = {0};
    struct gw_finding *f;
    json_t *found;

    if (o->silent)
        return;
    o->silent = true;
    f = gw_findings_add(&findings, GW_FINDING_WARNING, "qemu-silent", "",
                        "QEMU of %s has not answered for %u s: before it can pause the guest it "
                        "waits for writes under way, so the storage of a disk may not answer",
                        o->base.vm_name, (unsigned)(GW_OUTGOING_COMMAND_NS / GW_NS_PER_S));
    gw_finding_hint(f,
                    "see whether the disks' storage is well (RBD: `ceph -s`); the move goes on "
                    "when it is, and `godwit cancel %s` ends it",
                    o->base.id);
    gw_migration_log(&o->base, GW_LOG_WARNING, "%s", f ? f->message : "QEMU does not answer");
    found = gw_findings_to_json(&findings);
    json_array_extend(o->base.record.warnings, found);
    json_decref(found);
    gw_findings_fini(&findings);
}

static void progress_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(call, struct outgoing, progress_call);

    if (!error)
        take_figures(o, reply);
    else if (error->code == GW_E_TIMEOUT && o->base.machine.phase == GW_PRECOPY)
        warn_of_silence(o);
    if (o->final_figures) {
        if (o->base.vm)
            gw_vm_end(o->base.vm, &o->end_call);
        else
            done(o, GW_OP_DESTROY, NULL);
        return;
    }
    gw_daemon_tell_migration(o->base.daemon, &o->base);
}

void gw_outgoing_ask_for_figures(struct outgoing *o)
{
    if (!o->base.vm || gw_qmp_call_is_pending(&o->progress_call))
        return;
    o->progress_call.done = progress_answered;
    gw_qmp_link_execute(o->base.vm->qmp, &o->progress_call, "query-migrate", NULL,
                        GW_OUTGOING_COMMAND_NS);
}

void gw_outgoing_progress_timer_came(evutil_socket_t fd, short what, void *arg)
{
    struct outgoing *o = arg;

    (void)fd;
    (void)what;
    if (o->base.vm && o->base.vm->net)
        gw_guestnet_watch(o->base.vm->net);
    gw_outgoing_ask_for_figures(o);
}

/* Bandwidth */

static void decide_bandwidth(struct outgoing *o, uint64_t bytes_per_s)
{
    const uint64_t rates[] = {bytes_per_s, o->base.wishes.bandwidth_bytes_per_s};
    char texts[2][32] = {"unlimited", "unlimited"};
    json_t *decisions;

    for (unsigned i = 0; i < 2; i++)
        if (rates[i])
            snprintf(texts[i], sizeof texts[i], "%" PRIu64 " bytes/s", rates[i]);
    decisions = json_pack("[o]", gw_decision_new("bandwidth",
                                                 json_pack("{s:s}", "route", o->base.record.route),
                                                 texts[0], texts[1], "asked for on the way"));
    gw_record_decisions(&o->base.record, decisions, o->base.machine.phase, gw_clock_ns());
    json_decref(decisions);
    gw_migration_log(&o->base, GW_LOG_INFO, "bandwidth is %s from now on", texts[0]);
}

static void bandwidth_answered(struct gw_qmp_call *call, json_t *reply,
                               const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(call, struct outgoing, bandwidth_call);

    (void)reply;
    if (error)
        gw_migration_log(&o->base, GW_LOG_WARNING, "QEMU does not take the new bandwidth: %s",
                         error->msg);
}

/* Before ARM nothing is to be told: it takes the wishes as they are then. */
static int apply_bandwidth(struct outgoing *o, uint64_t bytes_per_s, struct gw_error *error)
{
    struct gw_migration *m = &o->base;

    if (m->carrier)
        return gw_carrier_set_bandwidth(m->carrier, bytes_per_s, error);
    if (m->wishes.carrier || !m->machine.armed || !m->vm)
        return 0;
    if (gw_qmp_call_is_pending(&o->bandwidth_call))
        return gw_error_set(error, GW_E_BUSY, "QEMU has not answered the last change yet");
    o->bandwidth_call.done = bandwidth_answered;
    gw_qmp_link_execute(m->vm->qmp, &o->bandwidth_call, "migrate-set-parameters",
                        json_pack("{s:I}", "max-bandwidth",
                                  bytes_per_s ? (json_int_t)bytes_per_s : (json_int_t)INT64_MAX),
                        GW_OUTGOING_COMMAND_NS);
    return 0;
}

int gw_outgoing_set_bandwidth(struct gw_migration *m, uint64_t bytes_per_s, struct gw_error *error)
{
    if (m->machine.role != GW_SOURCE) {
        gw_error_set(error, GW_E_STATE, "%s comes to this node: its source limits it", m->vm_name);
        return gw_error_hint(error, "ask godwitd on %s", m->record.from);
    }
    if (m->machine.phase != GW_PREPARING && m->machine.phase != GW_PRECOPY)
        return gw_error_set(error, GW_E_STATE, "it is too late: the migration is %s",
                            gw_phase_name(m->machine.phase));
    if (apply_bandwidth(outgoing_of(m), bytes_per_s, error) < 0)
        return -1;
    decide_bandwidth(outgoing_of(m), bytes_per_s);
    m->wishes.bandwidth_bytes_per_s = bytes_per_s;
    return 0;
}
