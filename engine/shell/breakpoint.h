/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places where a test stops this daemon in the middle of a migration, to kill it or something else
 * there. Only with `breakpoints: true` in the configuration.
 *
 * A migration that begins takes RUN_DIR/breakpoint, one line, and removes it:
 *
 *     ROLE phase PHASE     before the phase is journaled and told
 *     ROLE say MESSAGE     before the message is sent
 *     ROLE op OPERATION    before the operation begins
 *     ROLE done OPERATION  it is done, and the machine does not know yet
 *
 * by the names of gw_phase_name(), gw_message_name() and gw_op_name(); ROLE is source or
 * destination. There the daemon logs the line and stops itself with SIGSTOP, once.
 */
#ifndef GW_SHELL_BREAKPOINT_H
#define GW_SHELL_BREAKPOINT_H

#include "core/machine.h"
#include "util/log.h"

struct gw_breakpoint {
    char line[96]; /* "": none */
};

/* Takes the file, if there is one. */
void gw_breakpoint_take(struct gw_breakpoint *b, const char *run_dir);

/* Stops the process if this is the place. */
void gw_breakpoint_at(struct gw_breakpoint *b, const struct gw_log *log, enum gw_role role,
                      const char *kind, const char *name);

#endif
