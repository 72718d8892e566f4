/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations of the destination, from VERIFY on, its messages, and how it begins with a PREPARE.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/facts.h"
#include "shell/daemon.h"
#include "shell/guestaddr.h"
#include "shell/guestnet.h"
#include "shell/error_json.h"
#include "shell/fence.h"
#include "shell/incoming.h"
#include "shell/incoming_private.h"
#include "shell/lockwait.h"
#include "util/clock.h"

#define COMMAND_TIMEOUT_NS UINT64_C(10000000000)
#define INCOMING_MAX       64 /* at once; a peer that sends more is broken or means harm */

/* How long the source is kept waiting for a guest that may have nothing to say. */
static const struct timeval listen_limit = {.tv_usec = 200000};
static const struct timeval locks_limit = {.tv_usec = 700000}; /* more than gw_ceph_await_locks() */
#define COUNTS_MAX 5
static const struct timeval writes_pause = {.tv_usec = 20000}; /* for what waited for the locks */

/* VERIFY is the source's operation; here it is only answered. */

static void send_hashes(struct gw_verify_handler *handler, json_t *body)
{
    struct gw_migration *m = gw_container_of(handler, struct gw_migration, verify_handler);

    json_object_set_new(body, "id", json_string(m->id));
    if (m->conn)
        gw_peer_send(m->conn, GW_WIRE_HASHES, body, NULL);
}

/* The source may hear of its QEMU's end before we hear of ours. */
static void answer_verify(struct incoming *in)
{
    json_t *request = in->verify_request;

    if (!request || !in->completed || in->base.machine.phase != GW_SWITCHOVER)
        return;
    in->verify_request = NULL;
    gw_verify_take_request(in->base.verify, request);
    json_decref(request);
}

static void completed(struct gw_migration *m)
{
    incoming_of(m)->completed = true;
    answer_verify(incoming_of(m));
}

static void take_verify(struct incoming *in, const json_t *body)
{
    if (!in->base.verify)
        return;
    json_decref(in->verify_request);
    in->verify_request = json_deep_copy(body);
    answer_verify(in);
}

/* CLAIM: the commit itself. */

static void claimed(struct gw_owner_call *call, int result, const struct gw_owner *current,
                    const struct gw_error *error)
{
    struct incoming *in = gw_container_of(call, struct incoming, owner_call);
    struct gw_error why;

    in->base.record.blackout.swap_ns = gw_clock_ns() - in->claim_begun_ns;
    if (result == 0 && in->base.vm)
        in->base.vm->owner = *current;
    if (error) {
        why = *error;
        gw_error_prefix(&why, "the owner record of %s could not be swapped to %s", in->base.vm_name,
                        in->base.record.to);
        error = &why;
    }
    done_with_record(in, GW_OP_CLAIM, result, error);
}

static void op_claim(struct incoming *in)
{
    struct gw_owner to = {.may_have_run = true};

    in->claim_begun_ns = gw_clock_ns();
    snprintf(to.node, sizeof to.node, "%s", in->base.record.to);
    in->owner_call.done = claimed;
    gw_owners_swap(in->base.daemon->owners, in->base.vm->spec, &in->owner_call, &in->from, &to);
}

/* The guest's first frame */

static void stop_waiting(struct incoming *in)
{
    if (in->listens || in->awaits_locks)
        return;
    if (event_pending(in->patience, EV_TIMEOUT, NULL))
        gw_migration_post(&in->base,
                          &(struct gw_event){.type = GW_EV_MESSAGE, .message = GW_MSG_FINISHED});
    event_del(in->patience);
}

static void heard(struct gw_guestnet_listener *listener, uint64_t at_ns)
{
    struct incoming *in = gw_container_of(listener, struct incoming, listener);
    json_t *body = json_pack("{s:s, s:I}", "id", in->base.id, "heard_ns", (json_int_t)at_ns);

    in->base.record.blackout.heard_ns = at_ns;
    if (in->base.conn)
        gw_peer_send(in->base.conn, GW_WIRE_HEARD, body, NULL);
    json_decref(body);
    in->listens = false;
    stop_waiting(in);
}

static void tell_locked(struct incoming *in)
{
    const struct gw_blackout *b = &in->base.record.blackout;
    json_t *body = json_pack("{s:s, s:I, s:I}", "id", in->base.id, "locked_ns",
                             (json_int_t)b->locked_ns, "wait_ns", (json_int_t)b->lock_wait_ns);

    if (in->base.conn)
        gw_peer_send(in->base.conn, GW_WIRE_LOCKED, body, NULL);
    json_decref(body);
    in->awaits_locks = false;
    stop_waiting(in);
}

static void writes_counted(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct incoming *in = gw_container_of(call, struct incoming, writes_call);

    in->base.record.blackout.lock_wait_ns = error ? 0 : gw_lockwait_longest_ns(reply);
    if (in->awaits_locks && !error && !in->base.record.blackout.lock_wait_ns &&
        ++in->n_counts < COUNTS_MAX)
        event_add(in->writes, &writes_pause); /* they are still under way */
    else if (in->awaits_locks)
        tell_locked(in);
}

static void count_writes(evutil_socket_t fd, short what, void *arg)
{
    struct incoming *in = arg;

    (void)fd;
    (void)what;
    if (!in->base.vm || !gw_vm_can_talk(in->base.vm)) {
        tell_locked(in);
        return;
    }
    in->writes_call.done = writes_counted;
    gw_qmp_link_execute(in->base.vm->qmp, &in->writes_call, "query-blockstats", NULL,
                        COMMAND_TIMEOUT_NS);
}

/* librbd takes the locks with the guest's first writes: maybe not yet. */
static void locked(struct gw_ceph_ask *ask)
{
    struct incoming *in = gw_container_of(ask, struct incoming, ask);

    in->base.record.blackout.locked_ns = ask->held_ns;
    if (ask->held_ns)
        event_add(in->writes, &writes_pause);
    else
        tell_locked(in);
}

static void patience_ended(evutil_socket_t fd, short what, void *arg)
{
    struct incoming *in = arg;

    (void)fd;
    (void)what;
    in->listens = in->awaits_locks = false;
    event_del(in->writes);
    gw_ceph_ask_cancel(&in->ask);
    gw_migration_post(&in->base,
                      &(struct gw_event){.type = GW_EV_MESSAGE, .message = GW_MSG_FINISHED});
}

/* FINISHED ends the connection: the source is to hear of first frame and locks before. */
static bool hold(struct gw_migration *m, enum gw_message message)
{
    struct incoming *in = incoming_of(m);

    if (message != GW_MSG_FINISHED || (!in->listens && !in->awaits_locks))
        return false;
    event_add(in->patience, in->awaits_locks ? &locks_limit : &listen_limit);
    return true;
}

/* RESUME */

/* Whatever waited on the source is for this guest too, also if it comes when the guest runs
 * already. */
static void other_message(struct gw_migration *m, unsigned type, const json_t *body)
{
    if (type == GW_WIRE_VERIFY)
        take_verify(incoming_of(m), body);
    if (type == GW_WIRE_CATCH_UP)
        gw_incoming_catch_up(incoming_of(m));
    if (type == GW_WIRE_FRAMES && m->vm && m->vm->net)
        gw_guestnet_inject(m->vm->net, json_object_get(body, "frames"));
}

/* Before the source hears of it and lets go, the journal knows that this guest belongs here. */
static void has_arrived(struct incoming *in, const struct gw_error *error)
{
    if (!error && in->base.vm) {
        gw_guestnet_announce(in->base.vm->net);
        gw_vm_save(in->base.vm);
        if (in->guest_runs && in->from.epoch)
            gw_fence_arm(in->base.daemon, in->base.id, in->base.vm_uuid, in->base.peer,
                         in->base.wishes.fence_after_s);
    }
    done(in, GW_OP_RESUME, error);
}

static void resumed(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct incoming *in = gw_container_of(call, struct incoming, op_call);

    (void)reply;
    if (!error && !in->base.record.blackout.runs_ns)
        in->base.record.blackout.runs_ns = gw_clock_ns();
    has_arrived(in, error);
}

static void op_resume(struct incoming *in)
{
    in->base.record.blackout.commit_ns = gw_clock_ns();
    in->base.vm->incoming = false;
    if (!in->guest_runs) { /* it was paused on the source and stays so */
        in->base.vm->state = GW_VM_PAUSED;
        has_arrived(in, NULL);
        return;
    }
    in->awaits_locks = gw_ceph_await_locks(in->base.daemon->ceph, &in->ask,
                                           json_object_get(in->early, "disks"), locked);
    in->op_call.done = resumed;
    gw_qmp_link_execute(in->base.vm->qmp, &in->op_call, "cont", NULL, COMMAND_TIMEOUT_NS);
}

/* DESTROY */

static void ended(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error)
{
    (void)vm;
    done(gw_container_of(call, struct incoming, end_call), GW_OP_DESTROY, error);
}

static void op_destroy(struct incoming *in)
{
    in->end_call.done = ended;
    gw_migration_close_carrier(&in->base);
    gw_verify_free(gw_steal_ptr(&in->base.verify));
    if (in->base.vm)
        gw_vm_end(in->base.vm, &in->end_call);
    else
        done(in, GW_OP_DESTROY, NULL);
}

static void begin_op(struct gw_migration *m, enum gw_op op)
{
    struct incoming *in = incoming_of(m);
    struct gw_error error;

    if (op != GW_OP_LAUNCH && op != GW_OP_DESTROY && (!m->vm || !m->vm->qmp)) {
        gw_error_set(&error, GW_E_QEMU_GONE, "QEMU of %s is not there any more", m->vm_name);
        done(in, op, &error);
        return;
    }
    switch (op) {
    case GW_OP_LAUNCH: gw_incoming_launch(in); break;
    case GW_OP_ARM: gw_incoming_arm(in); break;
    case GW_OP_LISTEN: gw_incoming_listen(in); break;
    case GW_OP_CLAIM: op_claim(in); break;
    case GW_OP_RESUME: op_resume(in); break;
    case GW_OP_DESTROY: op_destroy(in); break;
    default: abort(); /* not an operation of the destination */
    }
}

/* Messages */

static json_t *body_of(struct gw_migration *m, enum gw_message message)
{
    struct incoming *in = incoming_of(m);
    const struct gw_blackout *b = &m->record.blackout;
    json_t *body = json_object();

    if (message == GW_MSG_PREPARED) {
        json_object_set_new(body, "host", json_string(in->host));
        json_object_set_new(body, "port", json_string(in->port));
        json_object_set(body, "facts", in->facts);
        json_object_set_new(body, "verify", json_boolean(m->verify));
        json_object_set_new(body, "prefault", json_boolean(m->vm && m->vm->prefault));
        if (in->carrier_offer)
            json_object_set(body, "carrier", in->carrier_offer);
    }
    if (message == GW_MSG_PREPARED || message == GW_MSG_FAILED)
        json_object_set_new(body, "findings", gw_findings_to_json(&in->findings));
    if (message == GW_MSG_RUNNING) {
        json_object_set_new(body, "loaded_ns", json_integer((json_int_t)b->loaded_ns));
        json_object_set_new(body, "commit_ns", json_integer((json_int_t)b->commit_ns));
        json_object_set_new(body, "runs_ns", json_integer((json_int_t)b->runs_ns));
        json_object_set_new(body, "swap_ns", json_integer((json_int_t)b->swap_ns));
        json_object_set_new(body, "listens", json_boolean(in->listens));
        json_object_set_new(body, "awaits_locks", json_boolean(in->awaits_locks));
    }
    return body;
}

/* The guest is paused on the source: from now on its packets are to wait for it here. */
static int take_body(struct gw_migration *m, enum gw_message message, const json_t *body,
                     struct gw_error *error)
{
    (void)error;
    if (message == GW_MSG_SWITCHING && m->vm && m->vm->net) {
        gw_guestaddr_from_json(m->vm->addresses, json_object_get(body, "addresses"));
        gw_guestnet_prime(m->vm->net);
        gw_guestnet_take(m->vm->net);
        gw_nethook_switch(incoming_of(m)->hook, m);
    }
    return 0;
}

static void phase_changed(struct gw_migration *m)
{
    answer_verify(incoming_of(m)); /* completed() may have come before SWITCHING was stepped */
    if (!gw_phase_is_end(m->machine.phase))
        return;
    if (m->vm && m->vm->net)
        gw_guestnet_listen(m->vm->net, NULL);
    gw_nethook_end(gw_steal_ptr(&incoming_of(m)->hook), &m->machine);
}

static void fini(struct gw_migration *m)
{
    struct incoming *in = incoming_of(m);

    gw_inspect_fini(&in->inspect);
    gw_ceph_ask_cancel(&in->ask);
    gw_qmp_batch_fini(&in->batch);
    gw_qmp_session_cancel_call(&in->op_call);
    gw_owner_call_cancel(&in->owner_call);
    if (m->vm && m->vm->net)
        gw_guestnet_listen(m->vm->net, NULL);
    if (in->patience)
        event_free(in->patience);
    if (in->writes)
        event_free(in->writes);
    if (in->catch_up)
        event_free(in->catch_up);
    gw_qmp_session_cancel_call(&in->writes_call);
    gw_findings_fini(&in->findings);
    gw_vm_spec_free(in->spec);
    json_decref(in->facts);
    json_decref(in->early);
    json_decref(in->peer_facts);
    json_decref(in->carrier_offer);
    json_decref(in->verify_request);
}

static const struct gw_migration_ops incoming_ops = {
    .begin_op = begin_op,
    .body_of = body_of,
    .vm_gone = gw_incoming_vm_gone,
    .take_body = take_body,
    .hold = hold,
    .phase_changed = phase_changed,
    .completed = completed,
    .other_message = other_message,
    .fini = fini,
};

/* PREPARE */

/* The checks look at the facts and the launch at the spec: they must be about the same guest. */
static void align(json_t *facts, const struct gw_vm_spec *spec)
{
    json_object_set_new(facts, "name", json_string(spec->name));
    json_object_set_new(facts, "uuid", json_string(spec->uuid));
    json_object_set_new(facts, "memory_bytes", json_integer((json_int_t)spec->memory_bytes));
    json_object_set_new(facts, "machine", json_string(spec->machine));
    json_object_set_new(facts, "accel", json_string(gw_accel_name(spec->accel)));
    json_object_set_new(facts, "bridges", gw_inspect_bridges(spec));
}

static int check_disks(const json_t *facts, const struct gw_vm_spec *spec, struct gw_error *error)
{
    const json_t *disks = json_object_get(facts, "disks");
    size_t i;

    for (i = 0; i < spec->n_disks; i++) {
        const char *path = json_string_value(json_object_get(json_array_get(disks, i), "path"));
        const char *mine = spec->disks[i].file ? spec->disks[i].file : spec->disks[i].rbd;

        if (!path || strcmp(path, mine) != 0)
            break;
    }
    if (i == spec->n_disks && i == json_array_size(disks))
        return 0;
    return gw_error_set(error, GW_E_PROTOCOL, "PREPARE has facts of other disks than its VM's");
}

/* The record that the source holds, under the name that its certificate has. */
static int take_owner(struct incoming *in, const char *from, const json_t *body,
                      struct gw_error *error)
{
    const json_t *epoch = json_object_get(body, "owner_epoch");

    if (!epoch)
        return 0;
    if (json_integer_value(epoch) < 1 || strlen(from) > GW_OWNER_NODE_MAX)
        return gw_error_set(error, GW_E_PROTOCOL, "PREPARE has no epoch of an owner record");
    in->from.epoch = (uint64_t)json_integer_value(epoch);
    in->from.may_have_run = true;
    memcpy(in->from.node, from, strlen(from) + 1);
    in->base.machine.has_record = true;
    return 0;
}

static int take_transport(struct gw_migration *m, const json_t *body, struct gw_error *error)
{
    const char *transport = json_string_value(json_object_get(body, "transport"));

    if (!m->wishes.carrier)
        return 0;
    if (!transport || gw_carrier_check_transport(transport, error) < 0)
        return gw_error_set(error, GW_E_PROTOCOL, "PREPARE names no transport");
    memcpy(m->transport, transport, strlen(transport) + 1);
    m->record.route = "carrier";
    return 0;
}

static int take_prepare(struct incoming *in, const char *from, const json_t *body,
                        struct gw_error *error)
{
    struct gw_migration *m = &in->base;
    const json_t *facts = json_object_get(body, "facts");

    if (gw_facts_check(facts, GW_FACTS_SOURCE, error) < 0 ||
        gw_vm_spec_from_json(json_object_get(body, "spec"), &in->spec, error) < 0 ||
        gw_wishes_from_json(json_object_get(body, "wishes"), &m->wishes, error) < 0 ||
        take_transport(m, body, error) < 0 || check_disks(facts, in->spec, error) < 0 ||
        take_owner(in, from, body, error) < 0)
        return -1;
    if (!in->spec->uuid)
        return gw_error_set(error, GW_E_PROTOCOL, "PREPARE names no uuid");
    in->peer_facts = json_deep_copy(facts);
    align(in->peer_facts, in->spec);
    m->only_check = json_is_true(json_object_get(body, "only_check"));
    gw_migration_allow_prefault(m, in->spec);
    in->guest_runs = json_is_true(json_object_get(facts, "guest_runs"));
    snprintf(m->vm_name, sizeof m->vm_name, "%s", in->spec->name);
    snprintf(m->vm_uuid, sizeof m->vm_uuid, "%s", in->spec->uuid);
    return 0;
}

/* Whether a migration of this id may begin here at all. */
static int may_begin(struct gw_daemon *daemon, const char *id, struct gw_error *error)
{
    const struct gw_migration *m;
    unsigned n = 0;

    if (!gw_incoming_is_id(id))
        return gw_error_set(error, GW_E_PROTOCOL, "PREPARE has no id");
    if (gw_migration_find(daemon, id) || gw_incoming_is_known(daemon, id))
        return gw_error_set(error, GW_E_EXISTS, "there was a migration %s already", id);
    TAILQ_FOREACH (m, &daemon->migrations, link)
        n += m->machine.role == GW_DESTINATION;
    if (n < INCOMING_MAX)
        return 0;
    gw_error_set(error, GW_E_BUSY, "%u guests are on their way to this node already", n);
    return gw_error_hint(error, "wait for some of them to arrive");
}

static void refuse(struct gw_daemon *daemon, struct gw_peer_conn *conn, const char *id,
                   const struct gw_error *error)
{
    json_t *body = json_pack("{s:s*, s:o}", "id", id, "error", gw_error_to_json(error));

    gw_log(&daemon->log, GW_LOG_WARNING, id ? id : "peer", "refused %s: %s",
           gw_peer_conn_where(conn), error->msg);
    gw_peer_send(conn, GW_WIRE_FAILED, body, NULL);
    gw_peer_send(conn, GW_WIRE_ABORTED, NULL, NULL);
    json_decref(body);
    gw_daemon_part(daemon, conn);
}

void gw_incoming_start(struct gw_daemon *daemon, struct gw_peer_conn *conn, const json_t *body)
{
    const char *id = json_string_value(json_object_get(body, "id"));
    struct gw_migration *m;
    struct incoming *in;
    struct gw_error error;

    if (may_begin(daemon, id, &error) < 0) {
        refuse(daemon, conn, gw_incoming_is_id(id) ? id : NULL, &error);
        return;
    }
    in = calloc(1, sizeof *in);
    if (!in)
        abort();
    m = &in->base;
    in->listener.heard = heard;
    m->verify_handler.send = send_hashes;
    in->patience = evtimer_new(daemon->base, patience_ended, in);
    in->writes = evtimer_new(daemon->base, count_writes, in);
    if (gw_migration_init(m, daemon, GW_DESTINATION, &incoming_ops, id, &error) < 0 ||
        take_prepare(in, gw_peer_conn_name(conn), body, &error) < 0) {
        gw_error_hint(&error, "run the same release of Godwit on both nodes");
        refuse(daemon, conn, id, &error);
        gw_migration_free(m);
        return;
    }
    snprintf(m->peer, sizeof m->peer, "%s", gw_peer_conn_name(conn));
    snprintf(m->record.from, sizeof m->record.from, "%s", gw_peer_conn_name(conn));
    snprintf(m->record.to, sizeof m->record.to, "%s", gw_nodes_self(daemon->nodes));
    if (gw_migration_begin(m, &error) < 0) {
        refuse(daemon, conn, id, &error);
        gw_migration_free(m);
        return;
    }
    gw_migration_set_conn(m, conn);
}
