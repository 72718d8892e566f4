/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a daemon does first: finds the QEMUs that its predecessor left, and undoes or finishes the
 * migrations that it was in the middle of.
 *
 * A source before its COMMIT undoes. A source after it asks the destination. A destination's QEMU
 * whose guest runs is kept; one whose guest does not run yet is destroyed, and a source that asks
 * is told so.
 */
#ifndef GW_SHELL_RECOVER_H
#define GW_SHELL_RECOVER_H

#include "shell/daemon.h"

/* 0, or -1 with *error: the journal cannot be read. What is found is dealt with from the loop. */
int gw_recover(struct gw_daemon *d, struct gw_error *error);

#endif
