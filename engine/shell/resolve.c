/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/resolve.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/facts.h"
#include "host/rbdcheck.h"
#include "shell/ceph.h"
#include "storage/owner.h"
#include "storage/rbd.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define COMMAND_TIMEOUT_NS UINT64_C(10000000000)

/* Five years. A QEMU that was only stopped would write on when a shorter one had passed. */
enum { FENCE_S = 5 * 365 * 24 * 3600 };

static const struct timeval peer_patience = {.tv_sec = 3};

struct resolve {
    struct gw_daemon *daemon;
    struct gw_resolve_call *caller;
    struct gw_vm_spec *spec; /* if the VM is not here: only where its record is */
    char vm_name[64];        /* "" if it is not on this node */
    char other[64];          /* the other node; "" if there is none */
    char dead[64];
    enum gw_resolve_action action;
    struct gw_resolve_facts facts;
    struct gw_owner record; /* epoch 0: none */
    struct gw_owner_call owner_call;
    struct gw_peer_conn *conn;
    struct gw_peer_handler conn_handler;
    struct event *patience;
    struct gw_qmp_call resume_call;
    struct gw_vm_call end_call;
    json_t *disks, *fenced; /* FENCE: facts of its disks; addresses of those that were */
    struct gw_ceph_ask ask;
};

static struct gw_vm *vm_of(const struct resolve *r)
{
    return gw_vm_find_uuid(r->daemon, r->spec->uuid);
}

static void resolve_free(struct resolve *r)
{
    gw_owner_call_cancel(&r->owner_call);
    gw_qmp_session_cancel_call(&r->resume_call);
    gw_peer_free(r->conn);
    gw_ceph_ask_cancel(&r->ask);
    json_decref(r->disks);
    json_decref(r->fenced);
    if (r->patience)
        event_free(r->patience);
    gw_vm_spec_free(r->spec);
    free(r);
}

static void fail(struct resolve *r, const struct gw_error *error)
{
    struct gw_resolve_call *caller = r->caller;
    struct gw_error why = *error;

    resolve_free(r);
    caller->done(caller, NULL, &why);
}

static enum gw_resolve_qemu qemu_here(struct gw_daemon *d, const char *uuid)
{
    const struct gw_vm *vm = gw_vm_find_uuid(d, uuid);

    if (!vm)
        return GW_RESOLVE_NONE;
    if (vm->incoming || vm->was_incoming)
        return GW_RESOLVE_ARRIVING;
    return vm->state == GW_VM_RUNNING ? GW_RESOLVE_RUNNING : GW_RESOLVE_PAUSED;
}

/* The answer. */

static json_t *record_json(const struct resolve *r)
{
    static const char *const stores[] = {[GW_RESOLVE_NO_STORE] = "no-store",
                                         [GW_RESOLVE_UNREADABLE] = "unreadable",
                                         [GW_RESOLVE_ABSENT] = "absent",
                                         [GW_RESOLVE_OURS] = "ours",
                                         [GW_RESOLVE_OTHERS] = "others"};
    json_t *json = json_pack("{s:s}", "state", stores[r->facts.record]);

    if (!r->record.epoch)
        return json;
    json_object_set_new(json, "node", json_string(r->record.node));
    json_object_set_new(json, "epoch", json_integer((json_int_t)r->record.epoch));
    json_object_set_new(json, "may_have_run", json_boolean(r->record.may_have_run));
    json_object_set_new(json, "changed_at", gw_iso_time((int64_t)r->record.updated_at_ms));
    return json;
}

static json_t *who_has_the_disks(const struct resolve *r)
{
    json_t *list = json_array();

    for (size_t i = 0; i < json_array_size(r->disks); i++) {
        const json_t *disk = json_array_get(r->disks, i);

        json_array_append_new(list,
                              json_pack("{s:O, s:O*, s:O*}", "path", json_object_get(disk, "path"),
                                        "lock_owners", json_object_get(disk, "lock_owners"),
                                        "watchers", json_object_get(disk, "watchers")));
    }
    return list;
}

static void finish(struct resolve *r)
{
    struct gw_resolve_call *caller = r->caller;
    json_t *actions = json_object(), *json;

    r->facts.here = qemu_here(r->daemon, r->spec->uuid);
    for (enum gw_resolve_action a = 0; a < GW_RESOLVE_ACTION_MAX; a++) {
        const char *why = gw_resolve_refusal(&r->facts, a);

        json_object_set_new(actions, gw_resolve_action_name(a),
                            json_pack("{s:b, s:s?}", "allowed", why == NULL, "because", why));
    }
    json =
        json_pack("{s:s, s:s, s:s, s:s, s:s?, s:s?, s:o, s:o, s:s?}", "uuid", r->spec->uuid, "node",
                  gw_nodes_self(r->daemon->nodes), "summary", gw_resolve_summary(&r->facts), "here",
                  gw_resolve_qemu_name(r->facts.here), "vm", r->vm_name[0] ? r->vm_name : NULL,
                  "other", r->other[0] ? r->other : NULL, "record", record_json(r), "actions",
                  actions, "there", r->other[0] ? gw_resolve_qemu_name(r->facts.there) : NULL);
    if (r->fenced) {
        json_object_set(json, "fenced", r->fenced);
        json_object_set_new(json, "disks", who_has_the_disks(r));
    }
    resolve_free(r);
    caller->done(caller, json, NULL);
    json_decref(json);
}

/* The actions. */

static void settled(struct resolve *r)
{
    struct gw_vm *vm = vm_of(r);

    gw_log(&r->daemon->log, GW_LOG_WARNING, r->vm_name[0] ? r->vm_name : r->spec->uuid,
           "resolved by a %s: %s", r->facts.by_policy ? "policy" : "person",
           gw_resolve_action_name(r->action));
    if (vm) {
        vm->contested[0] = '\0';
        gw_vm_save(vm);
    }
    finish(r);
}

static void resumed(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct resolve *r = gw_container_of(call, struct resolve, resume_call);

    (void)reply;
    if (error)
        fail(r, error);
    else
        settled(r);
}

static void resume(struct resolve *r)
{
    struct gw_vm *vm = vm_of(r);
    struct gw_error error;

    if (!vm || !gw_vm_can_talk(vm)) {
        gw_error_set(&error, GW_E_QEMU_GONE, "QEMU of the guest does not answer here");
        gw_error_hint(&error, "see `godwit vm list`");
        fail(r, &error);
        return;
    }
    r->resume_call.done = resumed;
    gw_qmp_link_execute(vm->qmp, &r->resume_call, "cont", NULL, COMMAND_TIMEOUT_NS);
}

static void ended(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error)
{
    struct resolve *r = gw_container_of(call, struct resolve, end_call);

    (void)vm;
    if (error)
        fail(r, error);
    else
        settled(r);
}

/* FENCE: who at the dead node has the disks is asked of the cluster, and fenced. */

static bool ask_about_disks(struct resolve *r, void (*answered)(struct gw_ceph_ask *ask))
{
    json_decref(r->disks);
    r->disks = json_array();
    for (size_t i = 0; i < r->spec->n_disks; i++)
        if (r->spec->disks[i].rbd)
            json_array_append_new(r->disks, gw_facts_rbd(r->spec->disks[i].rbd, "raw", false, 0));
    return gw_ceph_ask(r->daemon->ceph, &r->ask, r->disks, answered);
}

/* Who has the disks now goes into the answer. */
static void seen_after(struct gw_ceph_ask *ask)
{
    settled(gw_container_of(ask, struct resolve, ask));
}

static void fenced(struct gw_ceph_ask *ask)
{
    struct resolve *r = gw_container_of(ask, struct resolve, ask);

    if (ask->error.code != GW_OK) {
        fail(r, &ask->error);
        return;
    }
    for (size_t i = 0; i < json_array_size(r->fenced); i++)
        gw_log(&r->daemon->log, GW_LOG_WARNING, r->vm_name[0] ? r->vm_name : r->spec->uuid,
               "fenced %s of node %s: no OSD takes anything from it any more",
               json_string_value(json_array_get(r->fenced, i)), r->dead);
    if (!ask_about_disks(r, seen_after))
        settled(r);
}

/* The clients at the dead node; -1 with *error if they cannot be told for sure. */
static int find_clients(struct resolve *r, struct gw_error *error)
{
    const struct gw_node *node = gw_nodes_find(r->daemon->nodes, r->dead);
    const char *stranger = NULL;

    r->fenced = json_array();
    for (size_t i = 0; i < json_array_size(r->disks); i++) {
        const json_t *disk = json_array_get(r->disks, i);
        const char *why = json_string_value(json_object_get(disk, "error"));

        if (!json_is_true(json_object_get(disk, "exists"))) {
            gw_error_set(error, GW_E_STATE, "fence: who has the disks cannot be seen: %s",
                         why ? why : "no answer");
            return gw_error_hint(error, "try again when `ceph -s` is well");
        }
        gw_rbd_clients_at(disk, node ? node->address : "", r->fenced, &stranger);
    }
    if (!stranger)
        return 0;
    gw_error_set(error, GW_E_STATE,
                 "fence is refused: %s has a disk of the guest open, and is not at %s's address %s",
                 stranger, r->dead, node ? node->address : "(unknown)");
    return gw_error_hint(error, "find out what it is; by hand: ceph osd blocklist add %s",
                         stranger);
}

static void clients_known(struct gw_ceph_ask *ask)
{
    struct resolve *r = gw_container_of(ask, struct resolve, ask);
    struct gw_error error;

    if (find_clients(r, &error) < 0)
        fail(r, &error);
    else if (!gw_ceph_fence(r->daemon->ceph, &r->ask, r->fenced, FENCE_S, fenced))
        settled(r); /* nobody there has them open */
}

static void fence(struct resolve *r)
{
    struct gw_error error;

    if (ask_about_disks(r, clients_known))
        return;
    gw_error_set(&error, GW_E_STATE, "fence is refused: no disk on RBD is known of the guest");
    gw_error_hint(&error, "name one with --image POOL/IMAGE if the guest is not on this node");
    fail(r, &error);
}

static void record_changed(struct gw_owner_call *call, int result, const struct gw_owner *current,
                           const struct gw_error *error)
{
    struct resolve *r = gw_container_of(call, struct resolve, owner_call);
    struct gw_vm *vm = vm_of(r);

    if (result != 0) {
        fail(r, error);
        return;
    }
    r->record = *current;
    if (r->action == GW_RESOLVE_RELEASE) {
        r->facts.record = GW_RESOLVE_ABSENT;
        settled(r);
        return;
    }
    if (vm)
        vm->owner = *current;
    resume(r);
}

/* It runs here, and its source has yet to say that it has cleared up. */
static bool has_arrived(struct gw_daemon *d, const struct gw_vm *vm)
{
    const struct gw_migration *m = gw_migration_find(d, vm->migration);

    return m && m->machine.role == GW_DESTINATION && m->machine.phase == GW_FINISHING;
}

/* What is wrong with asking about it now; 0 or -1. A policy does not wait for a dead source. */
static int check_vm(struct gw_daemon *d, const struct gw_vm *vm, enum gw_resolve_action action,
                    bool by_policy, struct gw_error *error)
{
    bool moves = vm && (vm->migration[0] || vm->watcher) && !(by_policy && has_arrived(d, vm));
    bool busy = moves || (vm && (vm->state == GW_VM_STARTING || vm->state == GW_VM_ENDING));

    if (!busy || action == GW_RESOLVE_ACTION_MAX)
        return 0;
    gw_error_set(error, GW_E_BUSY, "VM '%s' is being moved, started or ended", vm->spec->name);
    return gw_error_hint(error, "`godwit status` shows it; wait for its end");
}

static void act(struct resolve *r)
{
    const char *why = gw_resolve_refusal(&r->facts, r->action);
    struct gw_owner to = {.may_have_run = true};
    struct gw_error error;

    if (check_vm(r->daemon, vm_of(r), r->action, r->facts.by_policy, &error) <
        0) { /* it has taken a while to find out */
        fail(r, &error);
        return;
    }
    if (why) {
        gw_error_set(&error, GW_E_STATE, "%s is refused: %s", gw_resolve_action_name(r->action),
                     why);
        gw_error_hint(&error, "`godwit resolve %s` shows what is known and what is safe",
                      r->vm_name[0] ? r->vm_name : r->spec->uuid);
        fail(r, &error);
        return;
    }
    r->owner_call.done = record_changed;
    snprintf(to.node, sizeof to.node, "%s", gw_nodes_self(r->daemon->nodes));
    switch (r->action) {
    case GW_RESOLVE_DISCARD:
        r->end_call.done = ended;
        gw_vm_end(vm_of(r), &r->end_call);
        break;
    case GW_RESOLVE_RELEASE:
        gw_owners_remove(r->daemon->owners, r->spec, &r->owner_call, &r->record);
        break;
    case GW_RESOLVE_FENCE: fence(r); break;
    default:
        if (r->facts.record == GW_RESOLVE_OURS)
            gw_owners_swap(r->daemon->owners, r->spec, &r->owner_call, &r->record, &to);
        else
            resume(r);
        break;
    }
}

static void all_is_known(struct resolve *r)
{
    struct gw_error error;

    event_del(r->patience);
    gw_peer_free(gw_steal_ptr(&r->conn));
    r->facts.here = qemu_here(r->daemon, r->spec->uuid);
    r->facts.dead = r->dead[0] != '\0';
    if (r->facts.dead && strcmp(r->dead, r->other) != 0) {
        gw_error_set(&error, GW_E_USAGE, "it is not about node '%s'%s%s", r->dead,
                     r->other[0] ? ", but about " : "", r->other);
        gw_error_hint(&error, "--dead names the node that you have made sure of");
        fail(r, &error);
    } else if (r->action == GW_RESOLVE_ACTION_MAX) {
        finish(r);
    } else {
        act(r);
    }
}

/* The other node. */

static void peer_ready(struct gw_peer_handler *handler, struct gw_peer_conn *conn)
{
    struct resolve *r = gw_container_of(handler, struct resolve, conn_handler);
    json_t *body = json_pack("{s:s}", "uuid", r->spec->uuid);

    gw_daemon_greet(r->daemon, conn);
    gw_peer_send(conn, GW_WIRE_ASK, body, NULL);
    json_decref(body);
}

static void peer_message(struct gw_peer_handler *handler, struct gw_peer_conn *conn, unsigned type,
                         json_t *body)
{
    struct resolve *r = gw_container_of(handler, struct resolve, conn_handler);
    const char *qemu = json_string_value(json_object_get(body, "qemu"));

    (void)conn;
    if (type != GW_WIRE_TELL)
        return;
    r->facts.there = gw_resolve_qemu_from_name(qemu ? qemu : "");
    all_is_known(r);
}

static void peer_closed(struct gw_peer_handler *handler, struct gw_peer_conn *conn,
                        const struct gw_error *error)
{
    (void)conn;
    (void)error;
    all_is_known(gw_container_of(handler, struct resolve, conn_handler));
}

static void patience_ended(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    all_is_known(arg);
}

static void ask_other(struct resolve *r)
{
    r->facts.there = GW_RESOLVE_SILENT;
    r->conn_handler = (struct gw_peer_handler){.ready = peer_ready,
                                               .message = peer_message,
                                               .closed = peer_closed};
    if (r->other[0])
        r->conn = gw_daemon_connect(r->daemon, r->other, &r->conn_handler, NULL);
    if (r->conn)
        event_add(r->patience, &peer_patience);
    else
        all_is_known(r);
}

void gw_resolve_answer(struct gw_daemon *d, struct gw_peer_conn *conn, const json_t *body)
{
    const char *uuid = json_string_value(json_object_get(body, "uuid"));
    json_t *answer;

    answer = json_pack("{s:s}", "qemu",
                       gw_resolve_qemu_name(uuid ? qemu_here(d, uuid) : GW_RESOLVE_SILENT));
    gw_peer_send(conn, GW_WIRE_TELL, answer, NULL);
    json_decref(answer);
    gw_daemon_part(d, conn);
}

/* The record. */

static void record_read(struct gw_owner_call *call, int result, const struct gw_owner *current,
                        const struct gw_error *error)
{
    struct resolve *r = gw_container_of(call, struct resolve, owner_call);
    bool ours = strcmp(current->node, gw_nodes_self(r->daemon->nodes)) == 0;

    (void)error;
    r->record = *current;
    if (result == 0)
        r->facts.record = ours ? GW_RESOLVE_OURS : GW_RESOLVE_OTHERS;
    else
        r->facts.record = result == GW_OWNER_ABSENT ? GW_RESOLVE_ABSENT : GW_RESOLVE_UNREADABLE;
    if (result == 0 && !ours)
        snprintf(r->other, sizeof r->other, "%s", current->node);
    ask_other(r);
}

/* Of a VM on this node a copy; otherwise what it takes to find the record. NULL: no memory. */
static struct gw_vm_spec *spec_for(const struct gw_vm *vm, const struct gw_resolve_request *request)
{
    struct gw_vm_spec *spec = NULL;
    json_t *json = vm ? gw_vm_spec_to_json(vm->spec) : NULL;

    if (json && gw_vm_spec_from_json(json, &spec, NULL) < 0)
        spec = NULL;
    json_decref(json);
    if (vm || !(spec = calloc(1, sizeof *spec)))
        return spec;
    spec->uuid = strdup(request->vm);
    if (!request->pool && !request->image)
        return spec;
    spec->disks = calloc(1, sizeof *spec->disks);
    spec->n_disks =
        spec->disks && (request->image ? asprintf(&spec->disks->rbd, "%s", request->image)
                                       : asprintf(&spec->disks->rbd, "%s/any", request->pool)) > 0;
    return spec;
}

void gw_resolve_start(struct gw_daemon *d, const struct gw_resolve_request *request,
                      struct gw_resolve_call *call)
{
    struct gw_vm *vm = gw_vm_find(d, request->vm);
    struct gw_rbd_spec parts;
    struct gw_error error;
    struct resolve *r;

    if (!vm)
        vm = gw_vm_find_uuid(d, request->vm);
    if (request->image && gw_rbd_spec_parse(request->image, &parts, &error) < 0) {
        call->done(call, NULL, &error);
        return;
    }
    if (!vm && !gw_owner_uuid_ok(request->vm)) {
        gw_error_set(&error, GW_E_NOT_FOUND, "there is no VM '%s' on this node", request->vm);
        gw_error_hint(&error, "give its uuid if it is on no node any more");
        call->done(call, NULL, &error);
        return;
    }
    if (check_vm(d, vm, request->action, request->by_policy, &error) < 0) {
        call->done(call, NULL, &error);
        return;
    }
    r = calloc(1, sizeof *r);
    if (!r || !(r->spec = spec_for(vm, request)) || !r->spec->uuid ||
        !(r->patience = evtimer_new(d->base, patience_ended, r)))
        abort();
    r->daemon = d;
    r->caller = call;
    r->action = request->action;
    r->facts.by_policy = request->by_policy;
    snprintf(r->dead, sizeof r->dead, "%s", request->dead ? request->dead : "");
    snprintf(r->vm_name, sizeof r->vm_name, "%s", vm ? vm->spec->name : "");
    snprintf(r->other, sizeof r->other, "%s", vm ? vm->contested : "");
    if (r->action == GW_RESOLVE_FENCE && !r->other[0]) /* where an old copy may be */
        snprintf(r->other, sizeof r->other, "%s", r->dead);
    r->owner_call.done = record_read;
    if (gw_owners_has_store(d->owners, r->spec))
        gw_owners_read(d->owners, r->spec, &r->owner_call);
    else
        ask_other(r);
}
