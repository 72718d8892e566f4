/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <string.h>

#include "table.h"
#include "text.h"

enum {
    GAP = 2,
};

static void take(struct gw_table *t, char *cell)
{
    t->cells = gw_text_no_memory(reallocarray(t->cells, t->n_cells + 1, sizeof *t->cells));
    t->cells[t->n_cells++] = cell;
}

void gw_table_init(struct gw_table *table, const char *heading)
{
    *table = (struct gw_table){0};
    while (*heading) {
        size_t len = strcspn(heading, ",");

        take(table, gw_text_no_memory(strndup(heading, len)));
        heading += len + (heading[len] == ',');
    }
    table->n_columns = table->n_cells;
}

void gw_table_fini(struct gw_table *table)
{
    for (unsigned i = 0; i < table->n_cells; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct gw_table){0};
}

void gw_table_add(struct gw_table *table, const char *fmt, ...)
{
    gw_autofree char *raw = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&raw, fmt, ap) < 0)
        raw = NULL;
    va_end(ap);
    gw_text_no_memory(raw);
    take(table, gw_text_clean(*raw ? raw : "-"));
}

static size_t column_width(const struct gw_table *t, unsigned column)
{
    size_t width = 0;

    for (unsigned i = column; i < t->n_cells; i += t->n_columns) {
        size_t w = gw_text_width(t->cells[i]);

        width = w > width ? w : width;
    }
    return width;
}

static void append_cell(char **linep, const char *cell, size_t pad)
{
    gw_autofree char *before = *linep;

    if (asprintf(linep, "%s%s%*s", before ? before : "", cell, (int)pad, "") < 0)
        *linep = NULL;
    gw_text_no_memory(*linep);
}

static void print_row(const struct gw_table *t, unsigned row, const size_t *widths, FILE *out,
                      size_t max_columns)
{
    gw_autofree char *line = NULL;

    for (unsigned c = 0; c < t->n_columns; c++) {
        unsigned i = row * t->n_columns + c;
        const char *cell = i < t->n_cells ? t->cells[i] : "";
        size_t pad = c + 1 < t->n_columns ? widths[c] - gw_text_width(cell) + GAP : 0;

        append_cell(&line, cell, pad);
    }
    if (max_columns)
        line[gw_text_fit(line, max_columns)] = '\0';
    gw_text_paint(out, row == 0 ? GW_TEXT_BOLD : GW_TEXT_PLAIN, line);
    fputc('\n', out);
}

unsigned gw_table_print(const struct gw_table *table, FILE *out, size_t max_columns,
                        unsigned max_rows)
{
    gw_autofree size_t *widths = gw_text_no_memory(calloc(table->n_columns, sizeof *widths));
    unsigned n_rows = table->n_cells / table->n_columns;

    for (unsigned c = 0; c < table->n_columns; c++)
        widths[c] = column_width(table, c);
    if (max_rows && n_rows > max_rows + 1)
        n_rows = max_rows + 1;
    for (unsigned row = 0; row < n_rows; row++)
        print_row(table, row, widths, out, max_columns);
    return n_rows;
}
