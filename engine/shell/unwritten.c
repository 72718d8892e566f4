/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "shell/unwritten.h"
#include "util/cleanup.h"

struct unwritten_row {
    STAILQ_ENTRY(unwritten_row) link;
    char *id;
    const char *phase; /* a name from gw_phase_name() */
    int64_t ended_at_ms;
    json_t *record;
};

struct gw_unwritten {
    struct gw_journal *journal;
    struct gw_log log;
    struct event *timer;
    STAILQ_HEAD(, unwritten_row) rows;
};

static const struct timeval try_again_in = {.tv_sec = 1};

static void row_free(struct unwritten_row *row)
{
    json_decref(row->record);
    free(row->id);
    free(row);
}

/* In order, up to the first that is not taken. */
static int write_rows(struct gw_unwritten *u, struct gw_error *error)
{
    struct unwritten_row *row;

    while ((row = STAILQ_FIRST(&u->rows))) {
        if (gw_journal_migration_end(u->journal, row->id, row->phase, row->ended_at_ms, row->record,
                                     error) < 0 &&
            error->code != GW_E_NOT_FOUND)
            return -1;
        STAILQ_REMOVE_HEAD(&u->rows, link);
        row_free(row);
    }
    return 0;
}

static void timer_came(evutil_socket_t fd, short what, void *arg)
{
    struct gw_unwritten *u = arg;
    struct gw_error error;

    (void)fd;
    (void)what;
    if (write_rows(u, &error) < 0)
        event_add(u->timer, &try_again_in);
    else
        gw_log(&u->log, GW_LOG_INFO, "daemon", "journal: written again, nothing is missing");
}

struct gw_unwritten *gw_unwritten_new(struct event_base *base, struct gw_journal *journal,
                                      const struct gw_log *log)
{
    struct gw_unwritten *u = calloc(1, sizeof *u);

    if (!u || !(u->timer = evtimer_new(base, timer_came, u))) {
        free(u);
        return NULL;
    }
    u->journal = journal;
    u->log = *log;
    STAILQ_INIT(&u->rows);
    return u;
}

void gw_unwritten_end(struct gw_unwritten *u, const char *id, const char *phase,
                      int64_t ended_at_ms, const json_t *record)
{
    struct unwritten_row *row = calloc(1, sizeof *row);
    struct gw_error error;

    if (!row || !(row->id = strdup(id)))
        abort();
    row->phase = phase;
    row->ended_at_ms = ended_at_ms;
    row->record = json_deep_copy(record);
    STAILQ_INSERT_TAIL(&u->rows, row, link);
    if (write_rows(u, &error) == 0)
        return;
    gw_log(&u->log, GW_LOG_ERROR, id, "journal: %s; trying again until it is written", error.msg);
    event_add(u->timer, &try_again_in);
}

void gw_unwritten_free(struct gw_unwritten *u)
{
    struct unwritten_row *row;
    struct gw_error error;

    if (!u)
        return;
    write_rows(u, &error);
    while ((row = STAILQ_FIRST(&u->rows))) {
        STAILQ_REMOVE_HEAD(&u->rows, link);
        row_free(row);
    }
    event_free(u->timer);
    free(u);
}
