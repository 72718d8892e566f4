/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One migration on this node: a machine of engine/core, driven with the real world.
 *
 * This file owns what both roles share: the mailbox that hands the machine one event at a time,
 * its deadline, its connection, its record and its journal entry. outgoing*.c (source) and
 * incoming*.c (destination) carry out the operations.
 */
#ifndef GW_SHELL_MIGRATION_H
#define GW_SHELL_MIGRATION_H

#include <stdbool.h>
#include <sys/queue.h>
#include <event2/event.h>
#include <jansson.h>

#include "core/machine.h"
#include "host/negotiate.h"
#include "shell/breakpoint.h"
#include "shell/carrier.h"
#include "shell/peer.h"
#include "shell/record.h"
#include "shell/verify.h"
#include "shell/vm.h"
#include "shell/wire.h"

struct gw_daemon;
struct gw_migration;

#define GW_MIGRATION_ID_SIZE 16

struct gw_migration_ops {
    /* Begins the operation; must end in gw_migration_op_done(), at once or later. */
    void (*begin_op)(struct gw_migration *m, enum gw_op op);
    /* What travels in this message besides its type; a new object. */
    json_t *(*body_of)(struct gw_migration *m, enum gw_message message);
    /* Takes what travels in it; body is borrowed and untrusted. 0, or -1 with *error: malformed. */
    int (*take_body)(struct gw_migration *m, enum gw_message message, const json_t *body,
                     struct gw_error *error);
    /* True: this one is to wait, the role posts it when its time has come. May be NULL. */
    bool (*hold)(struct gw_migration *m, enum gw_message message);
    /* A message that is none of the machine's. May be NULL; body is borrowed and untrusted. */
    void (*other_message)(struct gw_migration *m, unsigned type, const json_t *body);
    /* QEMU emitted this event; besides what the machine is told. May be NULL. */
    void (*qemu_event)(struct gw_migration *m, const char *name, uint64_t at_ns);
    /* QEMU has completed: at the destination it has loaded everything. May be NULL. */
    void (*completed)(struct gw_migration *m);
    /* The phase has changed, and what follows from that was begun and sent. May be NULL. */
    void (*phase_changed)(struct gw_migration *m);
    /* The VM is gone, m->vm is NULL already: stop what looks at it. May be NULL. */
    void (*vm_gone)(struct gw_migration *m, const struct gw_error *error);
    /* Free what the role holds. */
    void (*fini)(struct gw_migration *m);
};

/* Told once, when the migration has ended and its record is complete. */
struct gw_migration_watcher {
    void (*ended)(struct gw_migration_watcher *watcher, struct gw_migration *m);
};

struct gw_posted;

struct gw_migration {
    TAILQ_ENTRY(gw_migration) link; /* in the daemon's list */
    struct gw_daemon *daemon;
    const struct gw_migration_ops *ops;
    char id[GW_MIGRATION_ID_SIZE];
    char peer[64];   /* the other node's name */
    bool only_check; /* `godwit check`: goes as far as PREPARED and undoes it; not in the journal */
    bool prepared;   /* source: the destination has said PREPARED */
    struct gw_machine machine;
    struct gw_record record;
    struct gw_native_wishes wishes;
    struct gw_breakpoint breakpoint;
    char transport[GW_CARRIER_TRANSPORT_MAX + 1]; /* of the carrier, where it is the route */
    struct gw_carrier *carrier;                   /* NULL: not open */
    struct gw_carrier_handler carrier_handler;
    struct event *carrier_timer; /* pending: it has failed, and the other node may say why */
    struct gw_error carrier_error;
    struct gw_verify *verify; /* NULL: not wanted, or not open yet */
    struct gw_verify_handler verify_handler;

    char vm_name[64], vm_uuid[40];
    struct gw_vm *vm; /* NULL before it is launched and after it is gone */
    struct gw_vm_watcher vm_watcher;

    struct gw_peer_conn *conn; /* NULL: not connected */
    struct gw_peer_handler conn_handler;

    struct event *mailbox, *deadline, *reports;
    struct {
        enum gw_phase from, to;
    } unreported[GW_PHASE_MAX]; /* no phase is entered twice */
    unsigned n_unreported;
    STAILQ_HEAD(, gw_posted) posted;
    struct gw_migration_watcher *watcher; /* may be NULL */
    bool ended;
};

/* Sets up what both roles share and enters it in the daemon's list. id NULL: a new one is drawn. */
int gw_migration_init(struct gw_migration *m, struct gw_daemon *daemon, enum gw_role role,
                      const struct gw_migration_ops *ops, const char *id, struct gw_error *error);

/* Enters it in the journal and starts the machine. 0; or -1 with *error and nothing begun: without
 * its row in the journal no restart could finish or undo it. */
int gw_migration_begin(struct gw_migration *m, struct gw_error *error);

/* Carries out what the machine wants at its start or at its recovery. */
void gw_migration_perform(struct gw_migration *m, const struct gw_update *update);

/* Copies the event (and the error it points to) into the mailbox; it is stepped from the loop. */
void gw_migration_post(struct gw_migration *m, const struct gw_event *ev);

/* The operation completed; error NULL: well. */
void gw_migration_op_done(struct gw_migration *m, enum gw_op op, const struct gw_error *error);

/* The connection to use from here on; its handler is m->conn_handler. */
void gw_migration_set_conn(struct gw_migration *m, struct gw_peer_conn *conn);

/* A message has arrived on m's connection. */
void gw_migration_message(struct gw_migration *m, unsigned type, const json_t *body);

/* This VM is the one: its QMP events and its end are told to the machine. NULL: none any more. */
void gw_migration_set_vm(struct gw_migration *m, struct gw_vm *vm);

/* What both halves of the carrier are given; socket_path is the caller's and outlives the call. */
void gw_migration_carrier_options(struct gw_migration *m, const char *socket_path,
                                  struct gw_carrier_options *options);

/* The carrier has done its part, or is to end now: its figures are kept. NULL carrier is fine. */
void gw_migration_close_carrier(struct gw_migration *m);

/* This node's half of verifying memory, whose handler is m->verify_handler. info_ramblock: what
 * QEMU answered; NULL: nothing. 0 with m->verify; -1 with *error. */
int gw_migration_open_verify(struct gw_migration *m, const char *info_ramblock,
                             struct gw_error *error);

/* More time for PREPARING, where the destination's QEMU of this spec takes all RAM first. Before
 * gw_migration_begin(), with the wishes. */
void gw_migration_allow_prefault(struct gw_migration *m, const struct gw_vm_spec *spec);

/* What status shows. A new reference. */
json_t *gw_migration_to_json(const struct gw_migration *m);

/* A line in its log: journal, stderr and `godwit log`. */
void gw_migration_log(struct gw_migration *m, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Fills in wishes from the peer's JSON: bounds are checked. 0 or -1 with *error. */
int gw_wishes_from_json(const json_t *json, struct gw_native_wishes *wishes,
                        struct gw_error *error);
json_t *gw_wishes_to_json(const struct gw_native_wishes *wishes);

struct gw_migration *gw_migration_find(struct gw_daemon *daemon, const char *id);

/* Frees one, ended or not; nothing is undone. */
void gw_migration_free(struct gw_migration *m);

#endif
