/* SPDX-License-Identifier: Apache-2.0 */
/* Help at every level, written from the command table. */
#ifndef GW_GODWIT_HELP_H
#define GW_GODWIT_HELP_H

#include <stdio.h>
#include "options.h"

/* About the command, or else about the group, or else (both NULL) about the program. */
void gw_help_print(FILE *out, const char *group, const struct gw_command *command);

/* "usage: …" for the same; one line for a command or a program. */
void gw_help_usage(FILE *out, const char *group, const struct gw_command *command);

/* For the shell's completion, a line a command: its words, its operand, its options, with tabs
 * between the three; an option that takes a value is "--name=ARG". The first line holds the global
 * options alone. */
void gw_help_print_commands(FILE *out);

#endif
