/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "field.h"
#include "progress.h"
#include "text.h"
#include "units.h"
#include "util/cleanup.h"

enum {
    LIVE_EVERY_MS = 100, /* faster than anybody reads */
    PLAIN_EVERY_MS = 1000,
};

int64_t gw_progress_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void gw_progress_init(struct gw_progress *progress, FILE *out)
{
    *progress = (struct gw_progress){.out = out, .live = out && gw_text_is_terminal(out)};
}

/* The last figures of a migration that is over still name the phase before. */
static const char *phase_of(const json_t *migration)
{
    if (gw_field_is_over(migration))
        return gw_field_str(migration, "state", "?");
    return gw_field_str(gw_field_object(migration, "progress"), "phase",
                        gw_field_str(migration, "state", "?"));
}

/* What is not known yet is not shown. In the order of importance: a narrow terminal cuts the end.
 */
static void print_figures(FILE *f, const json_t *p)
{
    int64_t round = gw_field_int(p, "round"), left = gw_field_int(p, "remaining_bytes");
    int64_t rate = gw_field_int(p, "rate_bytes_per_s"), eta = gw_field_int(p, "eta_ms");
    int64_t dirty = gw_field_int(p, "dirty_bytes_per_s");
    int64_t total = gw_field_int(p, "total_bytes");
    int64_t blackout = gw_field_int(p, "expected_blackout_ms");

    if (rate > 0)
        fprintf(f, "  %s", gw_units_rate(rate).text);
    if (left >= 0 && total > 0)
        fprintf(f, "  %s of %s left", gw_units_bytes(left).text, gw_units_bytes(total).text);
    else if (left >= 0)
        fprintf(f, "  %s left", gw_units_bytes(left).text);
    if (round > 0)
        fprintf(f, "  round %lld", (long long)round);
    if (dirty >= 0)
        fprintf(f, "  dirty %s", gw_units_rate(dirty).text);
    if (eta >= 0)
        fprintf(f, "  ETA %s", gw_units_ms(eta).text);
    if (blackout >= 0)
        fprintf(f, "  blackout ~%s", gw_units_ms(blackout).text);
}

char *gw_progress_line(const json_t *migration)
{
    char *text = NULL;
    size_t size;
    FILE *f = gw_text_no_memory(open_memstream(&text, &size));
    gw_autofree char *raw = NULL;

    fprintf(f, "%s -> %s  %s", gw_field_str(migration, "vm", "?"),
            gw_field_str(migration, "to", "?"), phase_of(migration));
    if (gw_field_is_over(migration))
        fprintf(f, "  %s", gw_field_str(gw_field_object(migration, "error"), "message", ""));
    else
        print_figures(f, gw_field_object(migration, "progress"));
    fclose(f);
    raw = gw_text_no_memory(text);
    return gw_text_clean(raw);
}

void gw_progress_show(struct gw_progress *progress, const json_t *migration)
{
    int64_t now = gw_progress_now_ms();
    const char *phase = phase_of(migration);
    gw_autofree char *line = NULL;
    size_t columns, rows;

    if (!progress->out)
        return;
    if (strncmp(phase, progress->phase, sizeof progress->phase - 1) == 0 &&
        now - progress->shown_ms < (progress->live ? LIVE_EVERY_MS : PLAIN_EVERY_MS))
        return;
    snprintf(progress->phase, sizeof progress->phase, "%s", phase);
    progress->shown_ms = now;
    line = gw_progress_line(migration);
    if (!progress->live) {
        fprintf(progress->out, "%s\n", line);
        fflush(progress->out);
        return;
    }
    /* One column stays free: a line that fills the last one wraps on some terminals. */
    gw_text_terminal_size(progress->out, &columns, &rows);
    line[gw_text_fit(line, columns - 1)] = '\0';
    fprintf(progress->out, "\r\033[K%s", line);
    fflush(progress->out);
    progress->drawn = true;
}

void gw_progress_clear(struct gw_progress *progress)
{
    if (!progress->drawn)
        return;
    fputs("\r\033[K", progress->out);
    fflush(progress->out);
    progress->drawn = false;
}
