/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line on stderr that tells how a migration is doing: redrawn in place on a terminal; elsewhere
 * a line when the phase changes and otherwise one a second at most.
 */
#ifndef GW_GODWIT_PROGRESS_H
#define GW_GODWIT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <jansson.h>

struct gw_progress {
    FILE *out; /* NULL: nobody wants to know */
    bool live;
    bool drawn; /* there is a line to take away */
    int64_t shown_ms;
    char phase[32];
};

void gw_progress_init(struct gw_progress *progress, FILE *out);

/* Takes a migration record or the data of a migration event; shows it if it is time. */
void gw_progress_show(struct gw_progress *progress, const json_t *migration);

/* Removes the live line, so that other text can be written to the terminal. */
void gw_progress_clear(struct gw_progress *progress);

/* The text of the line, cleaned; the caller frees it. */
char *gw_progress_line(const json_t *migration);

/* Milliseconds of the monotonic clock. */
int64_t gw_progress_now_ms(void);

#endif
