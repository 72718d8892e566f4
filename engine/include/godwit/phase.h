/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The phases of a migration. Both nodes go through them, each with its own machine; the names are
 * what users see in status, logs, traces and JSON.
 */
#ifndef GODWIT_PHASE_H
#define GODWIT_PHASE_H

#include <stdbool.h>

enum gw_phase {
    GW_PREPARING,  /* checks; the destination QEMU is started and listens; nothing is copied yet */
    GW_PRECOPY,    /* memory is copied while the guest runs on the source */
    GW_SWITCHOVER, /* the guest is paused; last pages and device state go over */
    GW_COMMITTING, /* the point of no return: the destination may let the guest run */
    GW_FINISHING,  /* the guest runs on the destination; the source clears up */
    GW_COMPLETED,  /* end: moved */
    GW_FAILING,    /* before the commit something failed or was cancelled: all is being undone */
    GW_FAILED,     /* end: not moved */
    GW_CANCELLED,  /* end: not moved, as somebody asked */
    GW_PHASE_MAX
};

/* "preparing", "precopy", …; "unknown" for a number that is no phase. */
const char *gw_phase_name(enum gw_phase phase);

/* The phase of that name, or GW_PHASE_MAX. */
enum gw_phase gw_phase_from_name(const char *name);

/* One line for people on what happens in this phase. */
const char *gw_phase_comment(enum gw_phase phase);

/* Completed, failed or cancelled: the machine is done and wants no further event. */
bool gw_phase_is_end(enum gw_phase phase);

#endif
