/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator's program for networks that a Linux bridge does not reach: Open vSwitch flows, SDN
 * controllers, filters (network_hook in config.h; its contract is in godwitd(8)).
 *
 *     both nodes:   prepare   before memory is copied; the migration waits for it, and ends if it
 *                             fails
 *     destination:  switch    when the source has paused the guest
 *     both nodes:   done      the guest runs on the destination
 *               or  undo      after a prepare; on the source when the guest runs again
 *
 * Its argument is that word, its standard input one JSON object. One program at a time runs for a
 * migration and node; none is started while the guest is paused: the one for switch is started
 * early, and the object is what it waits for. All but prepare stop nothing: what fails is logged.
 *
 * From the loop only.
 */
#ifndef GW_SHELL_NETHOOK_H
#define GW_SHELL_NETHOOK_H

#include <stdbool.h>

#include "godwit/error.h"

struct gw_daemon;
struct gw_machine;
struct gw_migration;
struct gw_nethook;

/* Embedded by the caller. */
struct gw_nethook_call {
    /* Once, from the loop or before gw_nethook_prepare() returns; error NULL: it is prepared. */
    void (*done)(struct gw_nethook_call *call, const struct gw_error *error);
};

/*
 * Runs prepare for a migration that has its VM. *hookp is NULL if the configuration names no
 * program; then it is done at once. Otherwise it is the caller's, until gw_nethook_end().
 */
void gw_nethook_prepare(struct gw_migration *m, struct gw_nethook **hookp,
                        struct gw_nethook_call *call);

/* All of these take NULL. */

/* Starts the program for switch, which is to wait. When prepare is done. */
void gw_nethook_await_switch(struct gw_nethook *h);

/* Now: one write to a pipe. */
void gw_nethook_switch(struct gw_nethook *h, struct gw_migration *m);

/*
 * The last one: done if the migration is completed, otherwise undo. Neither if it needs a person:
 * nobody knows where the guest runs. h goes on by itself, without the migration, and frees itself.
 * A prepare that is still under way is not answered any more.
 */
void gw_nethook_end(struct gw_nethook *h, const struct gw_machine *machine);

/* Of a daemon that ends: what runs is left to run. */
void gw_nethooks_free(struct gw_daemon *d);

#endif
