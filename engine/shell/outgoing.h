/* SPDX-License-Identifier: Apache-2.0 */
/* The source's side of a migration: carries out what the source's machine asks for. */
#ifndef GW_SHELL_OUTGOING_H
#define GW_SHELL_OUTGOING_H

#include "host/policy.h"
#include "shell/migration.h"

struct gw_outgoing_request {
    const char *vm;                 /* name of a VM on this node */
    const char *to;                 /* name of the other node */
    const char *policy;             /* its name, for the record */
    struct gw_native_wishes wishes; /* the policy's, as the request changed them */
    const char *transport;          /* of the carrier, checked; NULL: tcp */
    bool auto_route;                /* the route is to be chosen: shell/routing.h */
    uint32_t timeout_s;             /* 0: none */
    bool only_check;                /* go as far as a migration can be tried, then undo it */
    struct gw_migration_watcher *watcher;
};

/* Starts a migration away from this node. *mp is borrowed. 0; or -1 with *error and nothing begun:
 * GW_E_NOT_FOUND, GW_E_STATE, GW_E_BUSY, GW_E_USAGE. */
int gw_outgoing_start(struct gw_daemon *daemon, const struct gw_outgoing_request *request,
                      struct gw_migration **mp, struct gw_error *error);

/*
 * What the migration may send from now on, in bytes a second; 0: no limit. While it prepares or
 * copies; a decision in its record. On the native route it is QEMU that is told, whose refusal is
 * logged. 0; -1 with *error and nothing changed: GW_E_STATE (this node is not its source, or it is
 * too late), GW_E_BUSY (QEMU has not answered the last change yet).
 */
int gw_outgoing_set_bandwidth(struct gw_migration *m, uint64_t bytes_per_s, struct gw_error *error);

/* Takes up a migration that the daemon before this one did not end; entry is its journal row. vm is
 * NULL if the guest's QEMU has ended meanwhile. */
int gw_outgoing_recover(struct gw_daemon *daemon, const json_t *entry, struct gw_vm *vm,
                        struct gw_error *error);

#endif
