/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests that were on their way to this node when its last daemon died.
 *
 * A destination's machine is not taken up again. What its QEMU has come to and what the owner
 * record says decide: gw_arrival_judge() of the core. Until that is settled a source that asks is
 * told BUSY; afterwards the journal answers for us.
 */
#ifndef GW_SHELL_ARRIVAL_H
#define GW_SHELL_ARRIVAL_H

#include "shell/daemon.h"

/* A guest on its way to this node is in the journal, and maybe its QEMU is gone: keeps what it
 * takes to ask for its owner record. Before gw_arrival_take_up() or gw_arrival_found(). spec is
 * borrowed. */
void gw_arrival_remember(struct gw_daemon *d, const char *id, const struct gw_vm_spec *spec);

/* The journal has this migration as unfinished. vm: its QEMU, of which QMP has not answered yet;
 * NULL: it has ended. */
void gw_arrival_take_up(struct gw_daemon *d, const char *id, const char *vm_name, const char *uuid,
                        enum gw_phase phase, struct gw_vm *vm);

/* QMP of a guest that was on its way here has answered. */
void gw_arrival_found(struct gw_daemon *d, struct gw_vm *vm);

/* Its QMP does not answer; gw_arrival_found() may come later. */
void gw_arrival_silent(struct gw_daemon *d, struct gw_vm *vm);

/* The QEMU that QMP was to answer for is gone. */
void gw_arrival_gone(struct gw_daemon *d, const char *vm_name);

/* All of the journal has been read: forgets those of which nothing is left to settle. */
void gw_arrivals_sort_out(struct gw_daemon *d);

/* Forgets them all: the daemon stops, and the next one takes them up. */
void gw_arrivals_free(struct gw_daemon *d);

#endif
