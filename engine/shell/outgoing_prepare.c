/* SPDX-License-Identifier: Apache-2.0 */
/* The source before PREPARE: what the guest is, where it is to go, and which way. */
#include <stdio.h>

#include "host/freepages.h"
#include "shell/outgoing_private.h"
#include "util/clock.h"

/* INSPECT: what the guest is, and that it is ours to move */

static void inspect_done(struct outgoing *o, const struct gw_event *ev)
{
    o->inspecting = false;
    gw_migration_post(&o->base, ev);
}

static void held(struct gw_hold *hold, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(hold, struct outgoing, hold);
    struct gw_event ev = {.type = GW_EV_DONE, .error = error, .done = {.op = GW_OP_INSPECT}};

    ev.done.guest_runs = json_is_true(json_object_get(o->facts, "guest_runs"));
    ev.done.has_record = hold->vm->owner.epoch > 0;
    inspect_done(o, &ev);
}

/* QEMU asks the guest by itself; what is compared must be sent. */
static void take_hints(struct outgoing *o)
{
    const json_t *hints = json_object_get(o->facts, "free_page_hints");
    struct gw_record *r = &o->base.record;

    if (json_is_boolean(hints))
        r->hints = json_is_true(hints) ? GW_HINTS_ON : GW_HINTS_NONE;
    o->base.wishes.all_pages = o->base.wishes.verify && r->hints != GW_HINTS_NONE;
    if (o->base.wishes.all_pages)
        r->hints = GW_HINTS_OFF;
}

static void inspected(struct gw_inspect *inspect, json_t *facts, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(inspect, struct outgoing, inspect);

    if (error) {
        inspect_done(o, &(struct gw_event){
                            .type = GW_EV_DONE, .error = error, .done = {.op = GW_OP_INSPECT}});
        return;
    }
    o->facts = json_incref(facts);
    take_hints(o);
    o->spec = gw_vm_spec_to_json(inspect->vm->spec);
    o->hold.done = held;
    gw_hold_take(&o->hold, inspect->vm, o->base.only_check ? GW_HOLD_LOOK : GW_HOLD_KEEP);
}

/* Whoever is asked about the VM just now must not come back to it. */
void gw_outgoing_vm_gone(struct gw_migration *m, const struct gw_error *error)
{
    struct outgoing *o = outgoing_of(m);

    gw_inspect_fini(&o->inspect);
    gw_hold_cancel(&o->hold);
    gw_stop_copy_gone(&o->stop_copy, error);
    if (o->inspecting)
        inspect_done(o, &(struct gw_event){
                            .type = GW_EV_DONE, .error = error, .done = {.op = GW_OP_INSPECT}});
}

/* CONNECT */

static void link_measured(struct gw_peer_measure *measure, uint64_t bytes_per_s)
{
    struct outgoing *o = gw_container_of(measure, struct outgoing, measure);

    if (bytes_per_s)
        gw_routing_learn(&o->base.daemon->routing, o->base.peer, gw_clock_ns(), bytes_per_s);
    done(o, GW_OP_CONNECT, NULL);
}

static void connect_ready(struct gw_peer_handler *handler, struct gw_peer_conn *conn)
{
    struct outgoing *o = gw_container_of(handler, struct outgoing, connect_handler);
    uint64_t known;

    (void)conn;
    gw_migration_set_conn(&o->base, gw_steal_ptr(&o->connecting));
    gw_daemon_greet(o->base.daemon, o->base.conn);
    if (!o->auto_route || o->base.machine.phase != GW_PREPARING ||
        gw_routing_link(&o->base.daemon->routing, o->base.peer, gw_clock_ns(), &known) ||
        gw_peer_measure_start(o->base.conn, &o->measure, link_measured) < 0)
        done(o, GW_OP_CONNECT, NULL);
}

static void connect_failed(struct gw_peer_handler *handler, struct gw_peer_conn *conn,
                           const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(handler, struct outgoing, connect_handler);

    o->connecting = NULL;
    gw_peer_free(conn);
    done(o, GW_OP_CONNECT, error);
}

void gw_outgoing_connect(struct outgoing *o)
{
    struct gw_error error;

    o->connect_handler = (struct gw_peer_handler){.ready = connect_ready, .closed = connect_failed};
    o->connecting = gw_daemon_connect(o->base.daemon, o->base.peer, &o->connect_handler, &error);
    if (!o->connecting)
        done(o, GW_OP_CONNECT, &error);
}

void gw_outgoing_inspect(struct outgoing *o)
{
    o->inspecting = true;
    gw_inspect_start(&o->inspect, o->base.vm, inspected);
}

/* The route */

static void decide_route(struct outgoing *o, json_t *inputs, const char *because)
{
    bool carrier = o->base.wishes.carrier;
    json_t *decisions =
        json_pack("[o]", gw_decision_new("route", inputs, carrier ? "carrier" : "native",
                                         carrier ? "native" : "carrier", because));

    gw_record_decisions(&o->base.record, decisions, GW_PREPARING, gw_clock_ns());
    json_decref(decisions);
}

/* All is known that this node can know before it says what it wants. */
void gw_outgoing_choose_route(struct outgoing *o)
{
    struct gw_migration *m = &o->base;
    const char *because;
    json_t *inputs;

    m->wishes.carrier =
        gw_routing_choose(&m->daemon->routing, m->peer, o->facts, &m->wishes, &inputs, &because);
    if (m->wishes.carrier)
        m->record.route = "carrier";
    decide_route(o, inputs, because);
    o->auto_route = false;
}

/* A release of before there was such a wish has not read it, and says nothing. */
void gw_outgoing_note_prefault(struct outgoing *o, const json_t *prepared)
{
    struct gw_migration *m = &o->base;
    bool is_done = json_is_true(json_object_get(prepared, "prefault"));
    json_t *decisions;

    if (!m->wishes.prefault || !m->vm)
        return;
    decisions = json_pack(
        "[o]",
        gw_decision_new("prefault",
                        json_pack("{s:I}", "memory_bytes", (json_int_t)m->vm->spec->memory_bytes),
                        is_done ? "before the copy" : "as pages come",
                        is_done ? "as pages come" : "before the copy",
                        is_done ? "asked for" : "godwitd of the destination is too old for it"));
    gw_record_decisions(&m->record, decisions, GW_PREPARING, gw_clock_ns());
    json_decref(decisions);
}

void gw_outgoing_take_route(struct outgoing *o, const struct gw_outgoing_request *request)
{
    struct gw_migration *m = &o->base;

    snprintf(m->transport, sizeof m->transport, "%s",
             request->transport ? request->transport : "tcp");
    o->auto_route = request->auto_route;
    if (m->wishes.carrier)
        m->record.route = "carrier";
    if (!o->auto_route)
        decide_route(o, json_pack("{s:s}", "wanted", m->record.route), "asked for");
}
