/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placeholders in an adopted VM's command line: the parts that differ from node to node.
 *
 *   @MACHINE@  the machine type           @TAP0@ …   the name of the n-th tap
 *   @ACCEL@    "kvm" or "tcg"             @CONSOLE@  file that the console is appended to
 *   @RUNDIR@   directory for sockets      @@         an "@"
 *
 * Single-threaded, no I/O.
 */
#ifndef GW_HOST_TEMPLATE_H
#define GW_HOST_TEMPLATE_H

#include <stddef.h>

#include "godwit/error.h"

/* What the placeholders stand for; everything is borrowed. A NULL makes its placeholder an error.
 */
struct gw_template_values {
    const char *machine;
    const char *accel;
    const char *run_dir;
    const char *console;
    const char *const *taps;
    size_t n_taps;
};

/* text with every "@" doubled; the caller's, NULL when memory is short. */
char *gw_template_escape(const char *text);

/* The other way; NULL with errno EINVAL if there is a placeholder in text, or ENOMEM. */
char *gw_template_unescape(const char *text);

/* text with its placeholders filled in. Returns 0 with *outp the caller's, or -1 with *e
 * (GW_E_PROTOCOL for an unknown placeholder, GW_E_USAGE for one without a value). */
int gw_template_fill(const char *text, const struct gw_template_values *values, char **outp,
                     struct gw_error *e);

#endif
