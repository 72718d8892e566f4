/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations of the source from START on, each one QMP command or a short series of them, and its
 * messages. How the guest comes back is in outgoing_undo.c. QEMU's own migration is followed by its
 * MIGRATION events.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/facts.h"
#include "host/rbdcheck.h"
#include "shell/carrier_offer.h"
#include "shell/guestaddr.h"
#include "shell/guestnet.h"
#include "shell/outgoing_private.h"
#include "util/clock.h"

static const struct timeval progress_interval = {.tv_usec = 500000};
static const struct timeval listen_limit = {.tv_usec = 150000};
static const struct timeval locks_limit = {.tv_usec = 800000}; /* the destination says it before */

void gw_outgoing_no_qemu(struct outgoing *o, enum gw_op op)
{
    struct gw_error error;

    gw_error_set(&error, GW_E_QEMU_GONE, "QEMU of %s is not there any more", o->base.vm_name);
    done(o, op, &error);
}

/* START, SWITCH: one command each */

static void op_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(call, struct outgoing, op_call);

    (void)reply;
    done(o, o->op, error);
}

static void command(struct outgoing *o, enum gw_op op, const char *name, json_t *args)
{
    o->op = op;
    o->op_call.done = op_answered;
    gw_qmp_link_execute(o->base.vm->qmp, &o->op_call, name, args, GW_OUTGOING_COMMAND_NS);
}

/* On the carrier's route QEMU connects to the carrier, and its lanes to the destination. */
static int open_carrier(struct outgoing *o, struct gw_error *error)
{
    const struct gw_native_wishes *wishes = &o->base.wishes;
    struct gw_carrier_source source = {
        .port = o->port,
        .bandwidth_bytes_per_s = wishes->bandwidth_bytes_per_s,
        .zstd = wishes->zstd,
        .level_max = gw_codec_zstd.level_max,
    };
    struct gw_carrier_options options;
    struct gw_sender_ram ram;

    gw_migration_carrier_options(&o->base, o->carrier_path, &options);
    if (gw_carrier_offer_from_json(o->carrier_offer, o->zero_pages ? GW_CARRIER_HISTORY_PERCENT : 0,
                                   o->base.vm->spec->memory_bytes, options.secret, &ram, error) < 0)
        return -1;
    options.host = o->host;
    source.ram = &ram;
    return gw_carrier_new_source(&options, &source, &o->base.carrier, error);
}

static void op_start(struct outgoing *o)
{
    struct gw_error error;

    if (o->base.wishes.carrier && open_carrier(o, &error) < 0)
        done(o, GW_OP_START, &error);
    else
        command(o, GW_OP_START, "migrate", json_pack("{s:s}", "uri", o->uri));
}

/* What waits in the taps here, where nobody will read it any more, is for the guest over there. */
static void send_frames(struct outgoing *o)
{
    struct gw_vm *vm = o->base.vm;
    json_t *frames = vm && vm->net && o->base.conn ? gw_guestnet_drain(vm->net) : NULL;
    json_t *body;

    if (!frames)
        return;
    gw_migration_log(&o->base, GW_LOG_INFO, "%zu frames waited for the guest: sent after it",
                     json_array_size(frames));
    body = json_pack("{s:o}", "frames", frames);
    gw_peer_send(o->base.conn, GW_WIRE_FRAMES, body, NULL);
    json_decref(body);
}

/*
 * QEMU 10.0.2 with several multifd channels may hang for ever, and the guest with it, if it learns
 * only now that the destination's QEMU is gone: multifd_send_sync_main() waits, with the lock that
 * everything needs, for a thread that has ended without telling it (seen, with gdb). What is known
 * before is free of that.
 */
static bool is_cut_off(struct outgoing *o)
{
    struct gw_error error;

    if (o->base.carrier && o->base.carrier_error.code != GW_OK) {
        done(o, GW_OP_SWITCH, &o->base.carrier_error);
        return true;
    }
    if (gw_conns_n_ended(&o->conns) <= 0)
        return false;
    gw_error_set(&error, GW_E_QEMU_GONE, "QEMU on %s closed its connections before the switchover",
                 o->base.peer);
    gw_error_hint(&error, "see `godwit log %s` on both nodes, and start the migration again",
                  o->base.id);
    done(o, GW_OP_SWITCH, &error);
    return true;
}

static void op_switch(struct outgoing *o)
{
    if (is_cut_off(o))
        return;
    o->base.record.blackout.switch_ns = gw_clock_ns();
    command(o, GW_OP_SWITCH, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"));
}

/* VERIFY */

static void send_verify(struct gw_verify_handler *handler, json_t *body)
{
    struct gw_migration *m = gw_container_of(handler, struct gw_migration, verify_handler);

    json_object_set_new(body, "id", json_string(m->id));
    if (m->conn) /* else PEER_LOST is on its way, and the phase will end this */
        gw_peer_send(m->conn, GW_WIRE_VERIFY, body, NULL);
}

static void verified(struct gw_verify_handler *handler, const struct gw_error *error)
{
    struct outgoing *o = outgoing_of(gw_container_of(handler, struct gw_migration, verify_handler));

    if (!o->verifying)
        return;
    o->verifying = false;
    json_decref(o->base.record.verify);
    o->base.record.verify = gw_verify_to_json(o->base.verify);
    o->base.record.blackout.verified_ns = gw_clock_ns();
    done(o, GW_OP_VERIFY, error);
}

/* A guest that was only booting when it was looked at may have loaded the driver since. */
static void hints_again(struct gw_hints_ask *ask, enum gw_hints hints)
{
    struct outgoing *o = gw_container_of(ask, struct outgoing, hints);
    struct gw_error error;

    if (!o->verifying) /* it has been given up meanwhile */
        return;
    if (hints == GW_HINTS_NONE) {
        gw_verify_begin(o->base.verify);
        return;
    }
    gw_error_set(&error, GW_E_UNSUPPORTED,
                 "memory cannot be compared: the guest of %s has begun to tell which pages are "
                 "free while it moved",
                 o->base.vm_name);
    gw_error_hint(&error, "the guest goes on at the source; start the migration again");
    verified(&o->base.verify_handler, &error);
}

static void op_verify(struct outgoing *o)
{
    o->verifying = true;
    if (o->base.vm && !o->base.wishes.all_pages)
        gw_hints_ask(&o->hints, o->base.vm->qmp, hints_again);
    else
        gw_verify_begin(o->base.verify);
}

/* Something else has gone wrong meanwhile: what the hashes say does not matter any more. */
static void give_up_verify(struct outgoing *o)
{
    struct gw_error error;

    gw_error_set(&error, GW_E_CANCELLED, "the migration ends");
    verified(&o->base.verify_handler, &error);
}

/* DESTROY: the guest runs elsewhere. The last figures first, for the record. */

/* Who has the images now, by the cluster. */
static void handed_over(struct gw_ceph_ask *ask)
{
    struct outgoing *o = gw_container_of(ask, struct outgoing, ask);
    const json_t *theirs = json_object_get(o->peer_facts, "disks");
    struct gw_findings findings = {0};
    json_t *found;

    for (size_t i = 0; i < json_array_size(o->disks_after); i++) {
        struct gw_rbd_check check = {
            .here = json_array_get(o->disks_after, i),
            .there = json_array_get(theirs, i),
            .source = o->base.record.from,
            .destination = o->base.record.to,
            .vm = o->base.vm_name,
        };

        if (gw_ceph_has(check.here))
            gw_rbd_check_handed_over(&check, &findings);
    }
    for (size_t i = 0; i < findings.n_items; i++)
        if (findings.items[i].level == GW_FINDING_WARNING)
            gw_migration_log(&o->base, GW_LOG_WARNING, "%s", findings.items[i].message);
    found = gw_findings_to_json(&findings);
    json_array_extend(o->base.record.warnings, found);
    json_decref(found);
    gw_findings_fini(&findings);
    o->handed_over = true;
    if (o->awaits_locks && o->base.conn)
        event_add(o->hear_timer, &locks_limit);
    else
        done(o, GW_OP_DESTROY, NULL);
}

static void ended(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(call, struct outgoing, end_call);

    (void)vm;
    o->disks_after = json_deep_copy(json_object_get(o->facts, "disks"));
    if (error || !gw_ceph_ask(o->base.daemon->ceph, &o->ask, o->disks_after, handed_over))
        done(o, GW_OP_DESTROY, error);
}

/*
 * A guest that has just come to life is not disturbed: giving back the memory of its old QEMU takes
 * tens of milliseconds of a processor. And the record shall have the moment of its first frame.
 */
static void destroy_now(struct outgoing *o)
{
    o->listens = false;
    event_del(o->hear_timer);
    send_frames(o);
    gw_qmp_session_cancel_call(&o->progress_call);
    o->final_figures = true;
    o->end_call.done = ended;
    if (o->base.vm)
        gw_outgoing_ask_for_figures(o);
    else
        done(o, GW_OP_DESTROY, NULL);
}

/* For the first frame, or after the end of QEMU for the locks. */
static void waited(struct outgoing *o)
{
    event_del(o->hear_timer);
    if (o->handed_over)
        done(o, GW_OP_DESTROY, NULL);
    else
        destroy_now(o);
}

static void hear_timer_came(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    waited(arg);
}

static void op_destroy(struct outgoing *o)
{
    if (o->listens && o->base.conn)
        event_add(o->hear_timer, &listen_limit);
    else
        destroy_now(o);
}

static void begin_op(struct gw_migration *m, enum gw_op op)
{
    struct outgoing *o = outgoing_of(m);

    if (op == GW_OP_CONNECT) {
        gw_outgoing_connect(o);
        return;
    }
    if (!m->vm || !m->vm->qmp) {
        gw_outgoing_no_qemu(o, op);
        return;
    }
    switch (op) {
    case GW_OP_INSPECT: gw_outgoing_inspect(o); break;
    case GW_OP_ARM: gw_outgoing_arm(o); break;
    case GW_OP_START: op_start(o); break;
    case GW_OP_SWITCH: op_switch(o); break;
    case GW_OP_VERIFY: op_verify(o); break;
    case GW_OP_RECLAIM: gw_outgoing_reclaim(o); break;
    case GW_OP_STOP_COPY: gw_outgoing_stop_copy(o); break;
    case GW_OP_RESUME: gw_outgoing_resume(o); break;
    case GW_OP_DISARM: gw_outgoing_disarm(o); break;
    case GW_OP_DESTROY: op_destroy(o); break;
    default: abort(); /* not an operation of the source */
    }
}

/* Messages */

static json_t *body_of(struct gw_migration *m, enum gw_message message)
{
    struct outgoing *o = outgoing_of(m);

    json_t *body = json_object();

    if (message == GW_MSG_SWITCHING && m->vm)
        json_object_set_new(body, "addresses", gw_guestaddr_to_json(m->vm->addresses));
    if (message != GW_MSG_PREPARE)
        return body;
    if (o->auto_route)
        gw_outgoing_choose_route(o);
    gw_native_settle(&m->wishes);
    json_object_set(body, "spec", o->spec);
    json_object_set(body, "facts", o->facts);
    json_object_set_new(body, "wishes", gw_wishes_to_json(&m->wishes));
    json_object_set_new(body, "from", json_string(m->record.from));
    json_object_set_new(body, "only_check", json_boolean(m->only_check));
    if (m->wishes.carrier)
        json_object_set_new(body, "transport", json_string(m->transport));
    if (m->vm && m->vm->owner.epoch)
        json_object_set_new(body, "owner_epoch", json_integer((json_int_t)m->vm->owner.epoch));
    return body;
}

static int take_prepared(struct outgoing *o, const json_t *body, struct gw_error *error)
{
    const char *host = json_string_value(json_object_get(body, "host"));
    const char *port = json_string_value(json_object_get(body, "port"));
    const json_t *facts = json_object_get(body, "facts");

    if (gw_facts_check(facts, GW_FACTS_DESTINATION, error) < 0)
        return -1;
    if (!host || !port || strlen(host) > GW_NODE_ADDRESS_MAX || strlen(port) > 5 ||
        strspn(port, "0123456789") != strlen(port) || !gw_node_address_valid(host))
        return gw_error_set(error, GW_E_PROTOCOL, "no address in it");
    snprintf(o->uri, sizeof o->uri, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
    snprintf(o->host, sizeof o->host, "%s", host);
    o->port = (uint16_t)atoi(port);
    if (o->base.wishes.carrier) {
        json_decref(o->carrier_offer);
        o->carrier_offer = json_incref(json_object_get(body, "carrier"));
        snprintf(o->uri, sizeof o->uri, "unix:%s", o->carrier_path);
    }
    json_decref(o->peer_facts);
    o->peer_facts = json_incref((json_t *)facts);
    o->peer_verifies = json_is_true(json_object_get(body, "verify"));
    gw_outgoing_note_prefault(o, body);
    o->base.prepared = true;
    if (o->base.only_check) /* it has been shown to work; now everything is undone */
        gw_migration_post(&o->base, &(struct gw_event){.type = GW_EV_CANCEL});
    return 0;
}

/* The destination's moments, in its own clock, brought to ours. */
static uint64_t moment(const json_t *body, const char *key, int64_t offset_ns)
{
    json_int_t theirs_ns = json_integer_value(json_object_get(body, key));
    int64_t ours_ns;

    if (theirs_ns <= 0 || __builtin_sub_overflow((int64_t)theirs_ns, offset_ns, &ours_ns))
        return 0;
    return ours_ns > 0 ? (uint64_t)ours_ns : 0;
}

static void take_running(struct outgoing *o, const json_t *body)
{
    struct gw_blackout *b = &o->base.record.blackout;
    int64_t offset_ns, uncertainty_ns;

    if (!o->base.conn || gw_peer_offset(o->base.conn, &offset_ns, &uncertainty_ns, NULL) < 0)
        return;
    b->loaded_ns = moment(body, "loaded_ns", offset_ns);
    b->commit_ns = moment(body, "commit_ns", offset_ns);
    b->runs_ns = moment(body, "runs_ns", offset_ns);
    b->swap_ns = moment(body, "swap_ns", 0);
    b->uncertain_ns = (uint64_t)uncertainty_ns;
    o->listens = !b->heard_ns && json_is_true(json_object_get(body, "listens"));
    o->awaits_locks = !b->locked_ns && json_is_true(json_object_get(body, "awaits_locks"));
}

/* 0 where the destination does not know, or says what cannot be. */
static uint64_t wait_of(const json_t *body)
{
    json_int_t ns = json_integer_value(json_object_get(body, "wait_ns"));

    return ns > 0 && ns <= (json_int_t)GW_NS_PER_S ? (uint64_t)ns : 0;
}

static void other_message(struct gw_migration *m, unsigned type, const json_t *body)
{
    struct outgoing *o = outgoing_of(m);
    int64_t offset_ns, uncertainty_ns;

    if (type == GW_WIRE_HASHES && o->verifying)
        gw_verify_take_hashes(m->verify, body);
    if (type == GW_WIRE_CAUGHT_UP)
        gw_outgoing_caught_up(o);
    if ((type != GW_WIRE_HEARD && type != GW_WIRE_LOCKED) || !m->conn ||
        gw_peer_offset(m->conn, &offset_ns, &uncertainty_ns, NULL) < 0)
        return;
    if (type == GW_WIRE_HEARD) {
        m->record.blackout.heard_ns = moment(body, "heard_ns", offset_ns);
        o->listens = false;
    } else {
        m->record.blackout.locked_ns = moment(body, "locked_ns", offset_ns);
        m->record.blackout.lock_wait_ns = wait_of(body);
        o->awaits_locks = false;
    }
    if (event_pending(o->hear_timer, EV_TIMEOUT, NULL) &&
        (type == GW_WIRE_LOCKED) == o->handed_over)
        waited(o);
}

/* Checked and cleaned by reading them, and never more than one list. */
static int take_findings(struct gw_migration *m, const json_t *json, struct gw_error *error)
{
    struct gw_findings findings = {0};

    if (json && gw_findings_from_json(&findings, json, error) < 0)
        return -1;
    if (findings.n_items > 0) {
        json_decref(m->record.warnings);
        m->record.warnings = gw_findings_to_json(&findings);
    }
    gw_findings_fini(&findings);
    return 0;
}

static int take_body(struct gw_migration *m, enum gw_message message, const json_t *body,
                     struct gw_error *error)
{
    struct outgoing *o = outgoing_of(m);

    if ((message == GW_MSG_PREPARED || message == GW_MSG_FAILED) &&
        take_findings(m, json_object_get(body, "findings"), error) < 0)
        return -1;
    if (message == GW_MSG_PREPARED)
        return take_prepared(o, body, error);
    if (message == GW_MSG_RUNNING)
        take_running(o, body);
    return 0;
}

static void phase_changed(struct gw_migration *m)
{
    struct outgoing *o = outgoing_of(m);

    if (m->machine.phase == GW_PRECOPY) {
        event_add(o->progress_timer, &progress_interval);
        if (m->vm && m->vm->net)
            gw_guestnet_watch(m->vm->net);
    } else {
        event_del(o->progress_timer);
    }
    if (m->machine.phase == GW_SWITCHOVER && m->carrier)
        gw_carrier_last_round(m->carrier);
    if (m->machine.phase == GW_FAILING) {
        give_up_verify(o);
        gw_carrier_stop(m->carrier); /* QEMU may have to send to answer the command under way */
    }
    if (m->machine.phase == GW_COMMITTING || m->machine.phase == GW_FINISHING)
        send_frames(o);
    if (!gw_phase_is_end(m->machine.phase))
        return;
    gw_nethook_end(gw_steal_ptr(&o->hook), &m->machine);
    if (!m->vm)
        return;
    if (o->came_back && m->vm->net)
        gw_guestnet_announce(m->vm->net);
    else
        gw_guestnet_free(gw_steal_ptr(&m->vm->net));
    if (gw_machine_is_contested(&m->machine) && m->vm->state != GW_VM_RUNNING)
        snprintf(m->vm->contested, sizeof m->vm->contested, "%s", m->peer);
}

/* A round begins: what the one before it came to is to be had now. */
static void qemu_event(struct gw_migration *m, const char *name, uint64_t at_ns)
{
    struct gw_guestnet *net = m->vm ? m->vm->net : NULL;

    if (strcmp(name, "STOP") == 0 && net)
        gw_guestnet_paused(net, at_ns);
    if (strcmp(name, "MIGRATION_PASS") == 0) {
        gw_outgoing_round_begins(outgoing_of(m));
        gw_outgoing_ask_for_figures(outgoing_of(m));
    }
}

static void fini(struct gw_migration *m)
{
    struct outgoing *o = outgoing_of(m);

    gw_inspect_fini(&o->inspect);
    gw_hints_ask_fini(&o->hints);
    gw_hold_cancel(&o->hold);
    gw_ceph_ask_cancel(&o->ask);
    gw_owner_call_cancel(&o->owner_call);
    gw_qmp_batch_fini(&o->batch);
    gw_qmp_session_cancel_call(&o->op_call);
    gw_qmp_session_cancel_call(&o->progress_call);
    gw_stop_copy_fini(&o->stop_copy);
    gw_qmp_session_cancel_call(&o->limit_call);
    gw_qmp_session_cancel_call(&o->goodput_call);
    gw_qmp_session_cancel_call(&o->bandwidth_call);
    gw_qmp_session_cancel_call(&o->hold_call);
    gw_peer_measure_cancel(&o->measure);
    gw_peer_free(o->connecting);
    if (o->progress_timer)
        event_free(o->progress_timer);
    if (o->hear_timer)
        event_free(o->hear_timer);
    if (o->catch_up)
        event_free(o->catch_up);
    json_decref(o->facts);
    json_decref(o->spec);
    json_decref(o->peer_facts);
    json_decref(o->disks_after);
    json_decref(o->carrier_offer);
    if (o->carrier_path[0]) /* after a restart nobody else removes it */
        unlink(o->carrier_path);
}

static const struct gw_migration_ops outgoing_ops = {
    .begin_op = begin_op,
    .body_of = body_of,
    .take_body = take_body,
    .other_message = other_message,
    .qemu_event = qemu_event,
    .vm_gone = gw_outgoing_vm_gone,
    .phase_changed = phase_changed,
    .fini = fini,
};

static struct outgoing *outgoing_new(struct gw_daemon *daemon, const char *id,
                                     struct gw_error *error)
{
    struct outgoing *o = calloc(1, sizeof *o);

    if (!o) {
        gw_error_set(error, GW_E_SYSTEM, "out of memory for a migration");
        return NULL;
    }
    if (gw_migration_init(&o->base, daemon, GW_SOURCE, &outgoing_ops, id, error) < 0) {
        gw_migration_free(&o->base);
        return NULL;
    }
    o->progress_timer = event_new(daemon->base, -1, EV_PERSIST, gw_outgoing_progress_timer_came, o);
    o->base.verify_handler = (struct gw_verify_handler){send_verify, verified};
    gw_outgoing_undo_init(o);
    o->hear_timer = evtimer_new(daemon->base, hear_timer_came, o);
    snprintf(o->carrier_path, sizeof o->carrier_path, "%s/%s.carrier", daemon->config->run_dir,
             o->base.id);
    return o;
}

static void name_it(struct gw_migration *m, const struct gw_vm *vm, const char *to)
{
    snprintf(m->vm_name, sizeof m->vm_name, "%s", vm->spec->name);
    snprintf(m->vm_uuid, sizeof m->vm_uuid, "%s", vm->spec->uuid);
    snprintf(m->peer, sizeof m->peer, "%s", to);
    snprintf(m->record.from, sizeof m->record.from, "%s", gw_nodes_self(m->daemon->nodes));
    snprintf(m->record.to, sizeof m->record.to, "%s", to);
}

static int check_request(struct gw_daemon *daemon, const struct gw_outgoing_request *r,
                         struct gw_vm **vmp, struct gw_error *error)
{
    struct gw_vm *vm = gw_vm_find(daemon, r->vm);

    if (daemon->stopping)
        return gw_error_set(error, GW_E_STATE, "godwitd is stopping");

    if (!vm) {
        gw_error_set(error, GW_E_NOT_FOUND, "there is no VM '%s' on this node", r->vm);
        return gw_error_hint(error, "`godwit vm list` shows those that are");
    }
    if (!gw_nodes_find(daemon->nodes, r->to)) {
        gw_error_set(error, GW_E_NOT_FOUND, "there is no node '%s'", r->to);
        return gw_error_hint(error, "`godwit node list` shows those that are");
    }
    if (strcmp(r->to, gw_nodes_self(daemon->nodes)) == 0)
        return gw_error_set(error, GW_E_USAGE, "VM '%s' is on %s already", r->vm, r->to);
    if (vm->migration[0]) {
        gw_error_set(error, GW_E_BUSY, "VM '%s' is being moved by %s", r->vm, vm->migration);
        return gw_error_hint(error, "`godwit status` shows it, `godwit cancel %s` stops it",
                             vm->migration);
    }
    if (vm->contested[0]) {
        gw_error_set(error, GW_E_STATE, "VM '%s' was left paused by a migration whose end is open",
                     r->vm);
        return gw_error_hint(error, "`godwit resolve %s` shows what is known", r->vm);
    }
    if (vm->watcher)
        return gw_error_set(error, GW_E_BUSY, "VM '%s' is just being started or adopted", r->vm);
    if (vm->state != GW_VM_RUNNING && vm->state != GW_VM_PAUSED)
        return gw_error_set(error, GW_E_STATE, "VM '%s' is %s: only a running or paused one moves",
                            r->vm, gw_vm_state_name(vm->state));
    *vmp = vm;
    return 0;
}

int gw_outgoing_start(struct gw_daemon *daemon, const struct gw_outgoing_request *request,
                      struct gw_migration **mp, struct gw_error *error)
{
    struct gw_vm *vm = NULL;
    struct outgoing *o;

    if (check_request(daemon, request, &vm, error) < 0)
        return -1;
    o = outgoing_new(daemon, NULL, error);
    if (!o)
        return -1;
    o->base.wishes = request->wishes;
    o->base.wishes.prefault &= !request->only_check;
    gw_migration_allow_prefault(&o->base, vm->spec);
    o->base.machine.verify = request->wishes.verify;
    gw_outgoing_take_route(o, request);
    o->base.only_check = request->only_check;
    o->base.watcher = request->watcher;
    o->base.machine.limits.precopy_ns = (uint64_t)request->timeout_s * UINT64_C(1000000000);
    snprintf(o->base.record.policy, sizeof o->base.record.policy, "%s", request->policy);
    name_it(&o->base, vm, request->to);
    gw_migration_set_vm(&o->base, vm);
    if (gw_migration_begin(&o->base, error) < 0) {
        gw_migration_set_vm(&o->base, NULL);
        gw_migration_free(&o->base);
        return -1;
    }
    *mp = &o->base;
    return 0;
}

int gw_outgoing_recover(struct gw_daemon *daemon, const json_t *entry, struct gw_vm *vm,
                        struct gw_error *error)
{
    const char *id = json_string_value(json_object_get(entry, "id"));
    const char *to = json_string_value(json_object_get(entry, "to"));
    enum gw_phase phase = gw_phase_from_name(json_string_value(json_object_get(entry, "phase")));
    struct gw_migration *m;
    struct gw_update update;
    struct outgoing *o;

    if (gw_phase_is_end(phase)) /* only the last write is missing */
        return gw_journal_migration_end(daemon->journal, id, gw_phase_name(phase), gw_node_now_ms(),
                                        NULL, error);
    o = outgoing_new(daemon, id, error);
    if (!o)
        return -1;
    m = &o->base;
    snprintf(m->vm_name, sizeof m->vm_name, "%s", json_string_value(json_object_get(entry, "vm")));
    snprintf(m->vm_uuid, sizeof m->vm_uuid, "%s",
             json_string_value(json_object_get(entry, "uuid")));
    snprintf(m->peer, sizeof m->peer, "%s", to);
    snprintf(m->record.from, sizeof m->record.from, "%s", gw_nodes_self(daemon->nodes));
    snprintf(m->record.to, sizeof m->record.to, "%s", to);
    gw_migration_set_vm(m, vm);
    m->machine.guest_runs = !vm || vm->ran;
    m->machine.has_record = vm && vm->owner.epoch > 0;
    gw_machine_recover(&m->machine, phase, gw_clock_ns(), &update);
    gw_migration_perform(m, &update);
    if (!vm) {
        struct gw_error gone;

        gw_error_set(&gone, GW_E_QEMU_GONE, "QEMU of %s ended while no daemon watched it",
                     m->vm_name);
        gw_migration_post(m, &(struct gw_event){.type = GW_EV_QEMU_GONE, .error = &gone});
    }
    return 0;
}
