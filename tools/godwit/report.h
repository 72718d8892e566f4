/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's objects as text for people, on stdout. */
#ifndef GW_GODWIT_REPORT_H
#define GW_GODWIT_REPORT_H

#include <stdio.h>
#include <jansson.h>

/* How a migration that is completed went: total, blackout, bytes, rounds, warnings. */
void gw_report_moved(const json_t *record);

/* Findings {level, code, subject, message, hint}; nothing for an empty list. */
void gw_report_findings(const json_t *findings);

/* Which route was chosen, and why, where decisions tell. */
void gw_report_route(const json_t *decisions);

/* Every decision of a record with its reason and its inputs. */
void gw_report_decisions(const json_t *record);

struct gw_report_limits {
    size_t columns; /* lines are cut there; 0: no limit */
    unsigned rows;  /* of the table, without its heading; 0: no limit */
    unsigned over;  /* how many of those that are over are shown, the latest ones */
};

/* A table of migrations, the running ones first. Returns the number of lines. */
unsigned gw_report_migrations(const json_t *list, FILE *out, const struct gw_report_limits *limits);

/* "key  value" for every field of an object that is no list and no object. */
void gw_report_fields(const json_t *object);

#endif
