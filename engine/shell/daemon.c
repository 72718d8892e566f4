/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "shell/api.h"
#include "shell/arrival.h"
#include "shell/daemon.h"
#include "shell/fence.h"
#include "shell/incoming.h"
#include "shell/recover.h"
#include "shell/resolve.h"
#include "storage/file.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define STOP_PATIENCE_S 10

/* Small services to the other parts. */

static int64_t wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t gw_daemon_reserved_bytes(const struct gw_daemon *d, const struct gw_vm *except)
{
    const struct gw_vm *vm;
    uint64_t sum = 0;

    TAILQ_FOREACH (vm, &d->vms, link)
        if (vm->incoming && vm != except)
            sum += vm->spec->memory_bytes - gw_vm_prefaulted_bytes(vm);
    return sum;
}

const char *gw_daemon_migration_address(const struct gw_daemon *d)
{
    const struct gw_node *self = gw_nodes_find(d->nodes, gw_nodes_self(d->nodes));

    if (d->config->migration_address)
        return d->config->migration_address;
    if (self)
        return self->migration_address[0] ? self->migration_address : self->address;
    return d->config->listen_address;
}

/* Journal */

int gw_daemon_journal_begin(struct gw_daemon *d, const struct gw_migration *m,
                            struct gw_error *error)
{
    json_t *request = json_pack("{s:o}", "wishes", gw_wishes_to_json(&m->wishes));
    struct gw_journal_migration row = {
        .id = m->id,
        .vm = m->vm_name,
        .uuid = m->vm_uuid,
        .from_node = m->record.from,
        .to_node = m->record.to,
        .role = m->machine.role == GW_SOURCE ? "source" : "destination",
        .phase = gw_phase_name(m->machine.phase),
        .peer = m->peer,
        .started_at_ms = m->record.begun_wall_ms,
        .record = request,
    };
    int result = gw_journal_migration_begin(d->journal, &row, error);

    json_decref(request);
    return result;
}

int gw_daemon_journal_phase(struct gw_daemon *d, const struct gw_migration *m,
                            struct gw_error *error)
{
    int result = gw_journal_migration_phase(d->journal, m->id, gw_phase_name(m->machine.phase),
                                            wall_ms(), error);

    if (result < 0)
        gw_log(&d->log, GW_LOG_ERROR, m->id, "journal: %s", error->msg);
    return result;
}

void gw_daemon_journal_end(struct gw_daemon *d, const struct gw_migration *m)
{
    json_t *record = gw_migration_to_json(m);

    gw_unwritten_end(d->unwritten, m->id, gw_phase_name(m->machine.phase), wall_ms(), record);
    json_decref(record);
}

void gw_daemon_note(struct gw_daemon *d, const char *id, const char *text)
{
    struct gw_journal_note note = {.at_ms = wall_ms(), .kind = GW_JOURNAL_LOG, .text = text};

    gw_journal_note(d->journal, id, &note, NULL);
}

/* Events for whoever listens. */

void gw_daemon_tell_migration(struct gw_daemon *d, const struct gw_migration *m)
{
    json_t *json;

    if (m->only_check || !d->http || !gw_http_n_subscribers(d->http))
        return;
    json = gw_migration_to_json(m);
    gw_http_broadcast(d->http, "migration", json);
}

void gw_daemon_tell_vm(struct gw_daemon *d, const struct gw_vm *vm)
{
    json_t *json;

    if (!d->http || !gw_http_n_subscribers(d->http))
        return;
    json = json_pack("{s:s, s:s}", "name", vm->spec->name, "state", gw_vm_state_name(vm->state));
    gw_http_broadcast(d->http, "vm", json);
}

/* KVM */

static void tell_accel(evutil_socket_t fd, short what, void *arg)
{
    struct gw_daemon *d = arg;
    struct gw_accel_call *call;

    (void)fd;
    (void)what;
    while ((call = TAILQ_FIRST(&d->accel_calls))) {
        TAILQ_REMOVE(&d->accel_calls, call, link);
        call->done(call, d->kvm == GW_KVM_WORKS, d->kvm_why);
    }
}

static void kvm_is(struct gw_daemon *d, bool works, const char *why)
{
    d->kvm = works ? GW_KVM_WORKS : GW_KVM_FAILS;
    snprintf(d->kvm_why, sizeof d->kvm_why, "%s", why);
    gw_log(&d->log, GW_LOG_INFO, "kvm", "%s: %s", works ? "works" : "is not used", why);
    event_active(d->accel_tell, EV_TIMEOUT, 0);
}

static void trial_check(evutil_socket_t fd, short what, void *arg)
{
    struct gw_daemon *d = arg;

    (void)fd;
    (void)what;
    if (gw_accel_trial_check(&d->trial) == 1)
        return;
    event_free(gw_steal_ptr(&d->trial_event));
    kvm_is(d, d->trial.usable, d->trial.why);
    gw_accel_trial_fini(&d->trial);
}

static void try_kvm(struct gw_daemon *d)
{
    const struct timeval interval = {.tv_usec = GW_ACCEL_TRIAL_CHECK_MS * 1000};
    struct gw_error error;
    int result;

    d->kvm = GW_KVM_TRYING;
    result = gw_accel_trial_start(d->config->qemu, "kvm", d->config->run_dir, &d->trial, &error);
    if (result == 0) {
        d->trial_event =
            event_new(d->base, d->trial.process.pidfd, EV_READ | EV_PERSIST, trial_check, d);
        event_add(d->trial_event, &interval);
        return;
    }
    kvm_is(d, result == 1 && d->trial.usable, result == 1 ? d->trial.why : error.msg);
    gw_accel_trial_fini(&d->trial);
}

void gw_daemon_ask_kvm(struct gw_daemon *d, struct gw_accel_call *call)
{
    TAILQ_INSERT_TAIL(&d->accel_calls, call, link);
    if (d->kvm == GW_KVM_UNKNOWN)
        try_kvm(d);
    else if (d->kvm != GW_KVM_TRYING)
        event_active(d->accel_tell, EV_TIMEOUT, 0);
}

/* Peers */

struct parting {
    struct gw_peer_handler handler;
};

static void parted(struct gw_peer_handler *handler, struct gw_peer_conn *conn,
                   const struct gw_error *error)
{
    (void)error;
    gw_peer_free(conn);
    free(gw_container_of(handler, struct parting, handler));
}

void gw_daemon_part(struct gw_daemon *d, struct gw_peer_conn *conn)
{
    struct parting *p = calloc(1, sizeof *p);

    (void)d;
    if (!p)
        abort();
    p->handler.closed = parted;
    gw_peer_set_handler(conn, &p->handler);
    gw_peer_close(conn);
}

void gw_daemon_greet(struct gw_daemon *d, struct gw_peer_conn *conn)
{
    json_t *body = json_pack("{s:o}", "nodes", gw_nodes_to_json(d->nodes));

    gw_peer_send(conn, GW_WIRE_NODES, body, NULL);
    json_decref(body);
}

struct gw_peer_conn *gw_daemon_connect(struct gw_daemon *d, const char *node,
                                       struct gw_peer_handler *handler, struct gw_error *error)
{
    const struct gw_node *entry = gw_nodes_find(d->nodes, node);
    struct gw_peer_conn *conn;

    if (!d->pki.ctx || !entry) {
        gw_error_set(error, GW_E_NOT_FOUND, "there is no node '%s'", node);
        return NULL;
    }
    struct gw_peer_connect_args args = {
        .base = d->base,
        .ctx = d->pki.ctx,
        .name = node,
        .address = entry->address,
        .port = entry->port,
        .handler = handler,
    };
    return gw_peer_connect(&args, &conn, error) < 0 ? NULL : conn;
}

/* A connection whose first message has not come yet. */
struct visitor {
    struct gw_peer_handler handler;
    struct gw_daemon *daemon;
};

static void merge_nodes(struct gw_daemon *d, struct gw_peer_conn *conn, const json_t *body)
{
    struct gw_error error;

    if (gw_nodes_merge(d->nodes, json_object_get(body, "nodes"), &error) < 0)
        gw_log(&d->log, GW_LOG_WARNING, "nodes", "the list from %s: %s", gw_peer_conn_where(conn),
               error.msg);
}

static void visitor_message(struct gw_peer_handler *handler, struct gw_peer_conn *conn,
                            unsigned type, json_t *body)
{
    struct visitor *v = gw_container_of(handler, struct visitor, handler);
    struct gw_daemon *d = v->daemon;

    if (type == GW_WIRE_NODES) {
        merge_nodes(d, conn, body);
        return;
    }
    if (type != GW_WIRE_PREPARE && type != GW_WIRE_QUERY && type != GW_WIRE_ASK)
        return;
    free(v);
    if (type == GW_WIRE_PREPARE)
        gw_incoming_start(d, conn, body);
    else if (type == GW_WIRE_QUERY)
        gw_incoming_query(d, conn, body);
    else
        gw_resolve_answer(d, conn, body);
}

static void visitor_closed(struct gw_peer_handler *handler, struct gw_peer_conn *conn,
                           const struct gw_error *error)
{
    (void)error;
    gw_peer_free(conn);
    free(gw_container_of(handler, struct visitor, handler));
}

static void accept_peer(struct gw_peer_acceptor *acceptor, struct gw_peer_conn *conn)
{
    struct gw_daemon *d = gw_container_of(acceptor, struct gw_daemon, acceptor);
    struct visitor *v;

    if (gw_peer_conn_is_join(conn)) {
        gw_join_serve(d->join_server, conn);
        return;
    }
    v = calloc(1, sizeof *v);
    if (!v)
        abort();
    v->daemon = d;
    v->handler.message = visitor_message;
    v->handler.closed = visitor_closed;
    gw_peer_set_handler(conn, &v->handler);
}

static void peer_refused(struct gw_peer_acceptor *acceptor, const char *address,
                         const struct gw_error *error)
{
    struct gw_daemon *d = gw_container_of(acceptor, struct gw_daemon, acceptor);

    gw_log(&d->log, GW_LOG_WARNING, "peer", "turned %s away: %s", address, error->msg);
}

static void join_refused(struct gw_join_listener *listener, const char *address,
                         const struct gw_error *error)
{
    struct gw_daemon *d = gw_container_of(listener, struct gw_daemon, join_listener);

    gw_log(&d->log, GW_LOG_WARNING, "join", "turned %s away: %s", address, error->msg);
}

/* The others learn of a new node at once; one that cannot be reached learns it from its next peer.
 */

static void news_ready(struct gw_peer_handler *handler, struct gw_peer_conn *conn)
{
    struct visitor *v = gw_container_of(handler, struct visitor, handler);
    struct gw_daemon *d = v->daemon;

    free(v);
    gw_daemon_greet(d, conn);
    gw_daemon_part(d, conn);
}

static void spread_nodes(struct gw_daemon *d, const char *except)
{
    for (size_t i = 0; i < gw_nodes_count(d->nodes); i++) {
        const char *name = gw_nodes_at(d->nodes, i)->name;
        struct visitor *v;

        if (strcmp(name, gw_nodes_self(d->nodes)) == 0 || strcmp(name, except) == 0)
            continue;
        v = calloc(1, sizeof *v);
        if (!v)
            abort();
        v->daemon = d;
        v->handler = (struct gw_peer_handler){.ready = news_ready, .closed = visitor_closed};
        if (!gw_daemon_connect(d, name, &v->handler, NULL))
            free(v);
    }
}

static void node_joined(struct gw_join_listener *listener, const struct gw_node *node)
{
    struct gw_daemon *d = gw_container_of(listener, struct gw_daemon, join_listener);

    gw_log(&d->log, GW_LOG_INFO, "join", "%s (%s) is a node now", node->name, node->address);
    spread_nodes(d, node->name);
}

int gw_daemon_open_peers(struct gw_daemon *d, struct gw_error *error)
{
    struct gw_peer_listen_args args = {
        .base = d->base,
        .address = d->config->listen_address,
        .port = d->config->listen_port,
        .dir = d->config->state_dir,
        .acceptor = &d->acceptor,
    };

    if (gw_pki_load(d->config->state_dir, &d->pki, error) < 0)
        return error->code == GW_E_NOT_FOUND ? 1 : -1;
    if (gw_nodes_set_self(d->nodes, d->pki.name, error) < 0)
        return -1;
    d->acceptor = (struct gw_peer_acceptor){.accept = accept_peer, .refused = peer_refused};
    d->join_listener = (struct gw_join_listener){.joined = node_joined, .refused = join_refused};
    d->join_server = gw_join_server_new(d->config->state_dir, d->nodes, &d->join_listener);
    args.ctx = d->pki.ctx;
    if (!d->join_server || gw_peer_listen(&args, &d->listener, error) < 0)
        return -1;
    gw_log(&d->log, GW_LOG_INFO, "peer", "node %s listens on %s port %u", d->pki.name, args.address,
           gw_peer_listener_port(d->listener));
    return 0;
}

/* Start and stop. */

static int make_dirs(struct gw_daemon *d, struct gw_error *error)
{
    const char *dirs[] = {d->config->state_dir, d->config->run_dir};

    for (unsigned i = 0; i < GW_ARRAY_SIZE(dirs); i++)
        if (mkdir(dirs[i], 0700) < 0 && errno != EEXIST) {
            gw_error_set_sys(error, errno, "mkdir %s", dirs[i]);
            return gw_error_hint(error, "godwitd runs as root, and the directory above must exist");
        }
    return 0;
}

static int open_stores(struct gw_daemon *d, struct gw_error *error)
{
    gw_autofree char *path = NULL;

    if (asprintf(&path, "%s/journal.db", d->config->state_dir) < 0)
        abort();
    if (gw_journal_open(path, &d->log, &d->journal, error) < 0)
        return -1;
    d->unwritten = gw_unwritten_new(d->base, d->journal, &d->log);
    if (!d->unwritten)
        return gw_error_set(error, GW_E_SYSTEM, "out of memory for the journal");
    if (gw_nodes_open(d->config->state_dir, NULL, &d->nodes, error) < 0)
        return -1;
    return gw_ceph_new(d->base, d->config->ceph_conf, d->config->ceph_user, &d->ceph, error);
}

static int open_owners(struct gw_daemon *d, struct gw_error *error)
{
    struct gw_store *file = NULL;

    if (d->config->owner_store &&
        gw_store_file_open(d->config->owner_store, NULL, &file, error) < 0) {
        if (!error->hint[0])
            gw_error_hint(error, "owner_store must be a directory that all nodes share: make it, "
                                 "or mount what it is on");
        return -1;
    }
    if (gw_owners_new(d->base, file, d->ceph, &d->owners, error) == 0)
        return 0;
    if (file)
        file->ops->close(file);
    return -1;
}

int gw_daemon_start(struct gw_daemon *d, struct event_base *base, struct gw_config *config,
                    const struct gw_log *log, struct gw_error *error)
{
    memset(d, 0, sizeof *d);
    d->trial = GW_ACCEL_TRIAL_NONE;
    d->base = base;
    d->log = *log;
    TAILQ_INIT(&d->vms);
    TAILQ_INIT(&d->migrations);
    LIST_INIT(&d->arrivals);
    LIST_INIT(&d->nethooks);
    TAILQ_INIT(&d->accel_calls);
    d->accel_tell = event_new(base, -1, 0, tell_accel, d);
    d->config = config;
    if (make_dirs(d, error) < 0 || open_stores(d, error) < 0 || open_owners(d, error) < 0 ||
        gw_api_open(d, error) < 0 || gw_daemon_open_peers(d, error) < 0 ||
        gw_recover(d, error) < 0) {
        d->config = NULL;
        gw_daemon_fini(d);
        return -1;
    }
    return 0;
}

void gw_daemon_stop(struct gw_daemon *d)
{
    const struct timeval patience = {.tv_sec = STOP_PATIENCE_S};
    struct gw_migration *m;

    if (d->stopping || TAILQ_EMPTY(&d->migrations)) {
        event_base_loopbreak(d->base);
        return;
    }
    d->stopping = true;
    TAILQ_FOREACH (m, &d->migrations, link) {
        gw_migration_log(m, GW_LOG_INFO, "godwitd was asked to stop");
        if (gw_machine_can_cancel(&m->machine))
            gw_migration_post(m, &(struct gw_event){.type = GW_EV_CANCEL});
    }
    event_base_loopexit(d->base, &patience);
}

void gw_daemon_migration_ended(struct gw_daemon *d)
{
    static const struct timeval soon = {.tv_usec = 100000}; /* for the replies on their way */

    if (d->stopping && TAILQ_EMPTY(&d->migrations))
        event_base_loopexit(d->base, &soon);
}

void gw_daemon_fini(struct gw_daemon *d)
{
    while (!TAILQ_EMPTY(&d->migrations))
        gw_migration_free(TAILQ_FIRST(&d->migrations));
    gw_arrivals_free(d);
    gw_nethooks_free(d);
    gw_fences_free(d);
    while (!TAILQ_EMPTY(&d->vms))
        gw_vm_detach(TAILQ_FIRST(&d->vms));
    gw_peer_listener_free(gw_steal_ptr(&d->listener));
    gw_join_server_free(gw_steal_ptr(&d->join_server));
    gw_http_free(gw_steal_ptr(&d->http));
    if (d->trial_event) {
        event_free(gw_steal_ptr(&d->trial_event));
        gw_accel_trial_fini(&d->trial);
    }
    if (d->accel_tell)
        event_free(gw_steal_ptr(&d->accel_tell));
    gw_owners_free(gw_steal_ptr(&d->owners));
    gw_ceph_free(gw_steal_ptr(&d->ceph));
    gw_nodes_free(gw_steal_ptr(&d->nodes));
    gw_pki_fini(&d->pki);
    gw_unwritten_free(gw_steal_ptr(&d->unwritten));
    gw_journal_close(gw_steal_ptr(&d->journal));
    gw_config_free(gw_steal_ptr(&d->config));
}
