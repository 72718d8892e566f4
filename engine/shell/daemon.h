/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node daemon's middle: everything that exists once on a node, and what its parts ask of it.
 * Single-threaded; all callbacks come from the one event loop.
 */
#ifndef GW_SHELL_DAEMON_H
#define GW_SHELL_DAEMON_H

#include <stdbool.h>
#include <sys/queue.h>
#include <event2/event.h>
#include <jansson.h>

#include "host/accel.h"
#include "host/qemubin.h"
#include "shell/ceph.h"
#include "shell/config.h"
#include "shell/http.h"
#include "shell/join.h"
#include "shell/journal.h"
#include "shell/unwritten.h"
#include "shell/migration.h"
#include "shell/nethook.h"
#include "shell/nodes.h"
#include "shell/owners.h"
#include "shell/peer.h"
#include "shell/pki.h"
#include "shell/routing.h"
#include "shell/vm.h"
#include "util/log.h"

struct gw_accel_call {
    TAILQ_ENTRY(gw_accel_call) link;
    /* From the loop: may KVM be used here, and why not if it may not. */
    void (*done)(struct gw_accel_call *call, bool kvm, const char *why);
};

struct gw_daemon {
    struct event_base *base;
    struct gw_log log;
    struct gw_config *config;
    struct gw_journal *journal;
    struct gw_unwritten *unwritten;
    struct gw_owners *owners;
    struct gw_http_api api;
    struct gw_http_server *http;

    struct gw_nodes *nodes; /* the address book; knows this node's name */
    struct gw_pki pki;      /* ctx is NULL before `node init` or `node join` */
    struct gw_peer_listener *listener;
    struct gw_peer_acceptor acceptor;
    struct gw_join_server *join_server;
    struct gw_join_listener join_listener;

    TAILQ_HEAD(, gw_vm) vms;
    TAILQ_HEAD(, gw_migration) migrations;
    LIST_HEAD(, gw_arrival_case) arrivals;
    LIST_HEAD(, gw_nethook) nethooks;
    LIST_HEAD(, gw_fence) fences;
    bool stopping;

    /* Whether KVM works is tried once, when it is first asked for. */
    enum { GW_KVM_UNKNOWN, GW_KVM_TRYING, GW_KVM_WORKS, GW_KVM_FAILS } kvm;
    char kvm_why[256];
    struct gw_accel_trial trial;
    struct event *trial_event, *accel_tell;
    TAILQ_HEAD(, gw_accel_call) accel_calls;

    struct gw_qemu_binary qemu; /* that config->qemu names; asked at the first need */
    struct gw_routing routing;
    struct gw_ceph *ceph; /* connected at the first need */
};

/*
 * Opens everything: journal, identity, API socket, peers; finds the QEMUs and migrations of the
 * daemon before it. config is taken on success. 0, or -1 with *error.
 */
int gw_daemon_start(struct gw_daemon *d, struct event_base *base, struct gw_config *config,
                    const struct gw_log *log, struct gw_error *error);

/*
 * Stops in good order: migrations that can be cancelled are, and the loop ends when none is left,
 * at the latest after 10 s; a second call ends it at once. Guests stay as they are.
 */
void gw_daemon_stop(struct gw_daemon *d);

/* A migration has ended: if the daemon is stopping, this may have been the last one. */
void gw_daemon_migration_ended(struct gw_daemon *d);

/* Closes everything; guests stay as they are. Idempotent. */
void gw_daemon_fini(struct gw_daemon *d);

/* Loads the identity below the state directory and opens the port for peers. 0, 1 if there is no
 * identity yet, -1 with *error. */
int gw_daemon_open_peers(struct gw_daemon *d, struct gw_error *error);

/* Where QEMU listens for memory, and where peers reach this node. */
const char *gw_daemon_migration_address(const struct gw_daemon *d);

/* Asks whether KVM may be used; call->done comes from the loop. */
void gw_daemon_ask_kvm(struct gw_daemon *d, struct gw_accel_call *call);

/* Memory that guests on their way here will take and have not taken yet, in bytes; except, which
 * may be NULL, does not count. */
uint64_t gw_daemon_reserved_bytes(const struct gw_daemon *d, const struct gw_vm *except);

/* Peers. A connection to the node of that name; NULL with *error. */
struct gw_peer_conn *gw_daemon_connect(struct gw_daemon *d, const char *node,
                                       struct gw_peer_handler *handler, struct gw_error *error);
/* Sends our address book; every new connection begins with it. */
void gw_daemon_greet(struct gw_daemon *d, struct gw_peer_conn *conn);
/* Takes a connection, lets it send what is queued, and frees it. */
void gw_daemon_part(struct gw_daemon *d, struct gw_peer_conn *conn);

/* Journal. A migration that cannot be entered does not begin; from then on a failure is logged and
 * stops nothing but a commit without an owner record, see GW_EV_NOT_JOURNALED: a guest on its way
 * must not be lost for a full disk. */
int gw_daemon_journal_begin(struct gw_daemon *d, const struct gw_migration *m,
                            struct gw_error *error);
int gw_daemon_journal_phase(struct gw_daemon *d, const struct gw_migration *m,
                            struct gw_error *error);
void gw_daemon_journal_end(struct gw_daemon *d, const struct gw_migration *m);
void gw_daemon_note(struct gw_daemon *d, const char *id, const char *text);

/* Tells who listens to /v1/events. */
void gw_daemon_tell_migration(struct gw_daemon *d, const struct gw_migration *m);
void gw_daemon_tell_vm(struct gw_daemon *d, const struct gw_vm *vm);

#endif
