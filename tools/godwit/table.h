/* SPDX-License-Identifier: Apache-2.0 */
/* Aligned columns. Cells are cleaned when they are added. */
#ifndef GW_GODWIT_TABLE_H
#define GW_GODWIT_TABLE_H

#include <stdio.h>
#include "util/cleanup.h"

struct gw_table {
    unsigned n_columns;
    unsigned n_cells;
    char **cells; /* row by row; the first row is the heading */
};

/* A table with this heading, columns separated by single commas: "NAME,STATE". */
void gw_table_init(struct gw_table *table, const char *heading);
void gw_table_fini(struct gw_table *table);

/* The next cell, left to right; "-" for an empty one. */
void gw_table_add(struct gw_table *table, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Writes the heading and at most max_rows rows, each cut after max_columns; 0 is no limit.
 * Returns the number of lines written. */
unsigned gw_table_print(const struct gw_table *table, FILE *out, size_t max_columns,
                        unsigned max_rows);

#define GW_TABLE_AUTO GW_CLEANUP(gw_table_fini)

#endif
