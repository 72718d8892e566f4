/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends of migrations that the journal did not take: kept here, and tried again until it does. Until
 * then the row has not ended, so that a source which asks hears BUSY (incoming_query.c).
 */
#ifndef GW_SHELL_UNWRITTEN_H
#define GW_SHELL_UNWRITTEN_H

#include <stdint.h>
#include <event2/event.h>
#include <jansson.h>

#include "shell/journal.h"

struct gw_unwritten;

/* journal is borrowed. NULL without memory. */
struct gw_unwritten *gw_unwritten_new(struct event_base *base, struct gw_journal *journal,
                                      const struct gw_log *log);

/* As gw_journal_migration_end(); id and record are copied. A failure is logged once. */
void gw_unwritten_end(struct gw_unwritten *u, const char *id, const char *phase,
                      int64_t ended_at_ms, const json_t *record);

/* Tries once more, and forgets what the journal still does not take. NULL is fine. */
void gw_unwritten_free(struct gw_unwritten *u);

#endif
