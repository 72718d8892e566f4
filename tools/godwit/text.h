/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text on its way to a person.
 *
 * Invariant of the whole command line: no string that came over the socket, out of a file or from
 * argv is written to stdout or stderr but through gw_text_clean() or gw_text_json(). A guest's
 * name must not be able to move somebody's cursor.
 */
#ifndef GW_GODWIT_TEXT_H
#define GW_GODWIT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <jansson.h>

enum gw_text_colour {
    GW_TEXT_PLAIN,
    GW_TEXT_BOLD,
    GW_TEXT_DIM,
    GW_TEXT_RED,
    GW_TEXT_GREEN,
    GW_TEXT_YELLOW,
};

/*
 * A copy in which control characters (C0, DEL, C1), bidirectional overrides and bytes that are not
 * UTF-8 are written as \xNN or \uNNNN. The caller frees it. Never NULL: ends the program when
 * memory is out.
 */
char *gw_text_clean(const char *text);

/* printf whose result is cleaned as a whole; the caller frees it. Never NULL. */
char *gw_text_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

bool gw_text_is_utf8(const char *text);

/* How many columns the text takes, counted as one a code point. */
size_t gw_text_width(const char *text);

/* The number of bytes at the start of text that fit into so many columns; never splits a code
 * point. */
size_t gw_text_fit(const char *text, size_t columns);

/* Writes text in a colour if out is a terminal that has any and NO_COLOR is unset or empty. text is
 * clean already. */
void gw_text_paint(FILE *out, enum gw_text_colour colour, const char *text);

/* True if out is a terminal on which a line can be redrawn (so TERM is not "dumb"). */
bool gw_text_is_terminal(FILE *out);

/* Columns and rows of the terminal; 80 and 24 where nobody knows. */
void gw_text_terminal_size(FILE *out, size_t *columnsp, size_t *rowsp);

/* Writes value as ASCII JSON and a newline: indented, or on one line. Control characters come out
 * as \u escapes. */
void gw_text_json(FILE *out, const json_t *value, bool indented);

/* Returns p; says so and ends the program if it is NULL. */
void *gw_text_no_memory(void *p);

#endif
