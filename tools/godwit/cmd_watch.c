/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit watch: what happens, until somebody interrupts it.
 *
 * On a terminal a table that is redrawn; elsewhere a line for every change and one a second for a
 * migration that runs; with --json a line of JSON for every event. A daemon that goes away is
 * waited for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "cli.h"
#include "field.h"
#include "progress.h"
#include "report.h"
#include "text.h"

enum {
    WATCHED_MAX = 500, /* a daemon that makes up migrations does not fill our memory */
    OVER_SHOWN = 5,
    REDRAW_MS = 100,
    BACKOFF_MS = 100, /* doubles from attempt to attempt … */
    BACKOFF_MAX_MS = 1000,
};

struct watched {
    TAILQ_ENTRY(watched) entry;
    json_t *migration;
    struct gw_progress progress; /* when it was shown last, off a terminal */
};

struct watch {
    struct gw_sse_sink sink;
    struct gw_interrupts interrupts;
    struct gw_cli *cli;
    TAILQ_HEAD(, watched) all; /* the one that changed last stands last */
    unsigned n_all;
    unsigned n_lines; /* of the table that stands on the terminal */
    bool live;
    bool dirty; /* the table is older than what we know */
    int64_t drawn_ms;
    int wait_ms; /* until the next attempt */
    bool said;   /* that the daemon is gone */
};

static void forget(struct watch *w, struct watched *old)
{
    TAILQ_REMOVE(&w->all, old, entry);
    w->n_all--;
    json_decref(old->migration);
    free(old);
}

static struct watched *find(struct watch *w, const char *id)
{
    struct watched *one;

    TAILQ_FOREACH (one, &w->all, entry)
        if (strcmp(gw_field_str(one->migration, "id", ""), id) == 0)
            return one;
    return NULL;
}

/* Fields of an event replace those of the record that was read first; the rest stays. */
static struct watched *remember(struct watch *w, const json_t *migration)
{
    struct watched *one = find(w, gw_field_str(migration, "id", ""));

    if (!one) {
        if (w->n_all >= WATCHED_MAX)
            forget(w, TAILQ_FIRST(&w->all));
        one = gw_text_no_memory(calloc(1, sizeof *one));
        one->migration = gw_text_no_memory(json_object());
        one->progress.out = stdout;
        w->n_all++;
    } else {
        TAILQ_REMOVE(&w->all, one, entry);
    }
    TAILQ_INSERT_TAIL(&w->all, one, entry);
    json_object_update(one->migration, (json_t *)migration);
    return one;
}

static void erase(struct watch *w)
{
    if (w->n_lines)
        printf("\033[%uA\r\033[J", w->n_lines);
    w->n_lines = 0;
}

static void draw(struct watch *w)
{
    json_t *list = gw_text_no_memory(json_array());
    struct gw_report_limits limits = {.over = OVER_SHOWN};
    struct watched *one;
    size_t rows;

    gw_text_terminal_size(stdout, &limits.columns, &rows);
    limits.columns--; /* a line that fills the last one wraps on some terminals */
    limits.rows = rows > 3 ? (unsigned)rows - 2 : 1;
    TAILQ_FOREACH (one, &w->all, entry)
        json_array_append(list, one->migration);
    erase(w);
    w->n_lines = gw_report_migrations(list, stdout, &limits);
    fflush(stdout);
    json_decref(list);
    w->dirty = false;
    w->drawn_ms = gw_progress_now_ms();
}

static void on_vm(struct watch *w, const json_t *vm)
{
    if (w->live)
        erase(w);
    gw_cli_print("vm %s: %s", gw_field_str(vm, "name", "?"), gw_field_str(vm, "state", "?"));
    fflush(stdout);
    w->dirty = true;
}

static void on_migration(struct watch *w, const json_t *migration)
{
    struct watched *one = remember(w, migration);

    w->dirty = true;
    if (!w->live)
        gw_progress_show(&one->progress, one->migration);
}

static void on_event(struct gw_sse_sink *sink, const char *name, const char *data, size_t len)
{
    struct watch *w = gw_container_of(sink, struct watch, sink);
    json_t *value = json_loadb(data, len, 0, NULL);
    json_t *line = NULL;

    if (!json_is_object(value))
        ; /* not from our daemon; the next one may be */
    else if (w->cli->json)
        line = json_pack("{s:s?, s:O}", "event", name, "data", value);
    else if (strcmp(name, "migration") == 0)
        on_migration(w, value);
    else if (strcmp(name, "vm") == 0)
        on_vm(w, value);
    if (line) {
        gw_text_json(stdout, line, false);
        fflush(stdout);
    }
    json_decref(line);
    json_decref(value);
}

/* What runs already. Only once the stream is open: an event between the two would be lost. */
static int read_all(struct watch *w, struct gw_error *e)
{
    json_t *answer = NULL, *one;
    size_t i;

    if (gw_client_get(&w->cli->client, "/v1/migrations", &answer, e) < 0)
        return -1;
    while (!TAILQ_EMPTY(&w->all))
        forget(w, TAILQ_FIRST(&w->all));
    json_array_foreach (gw_field_list(answer, "migrations"), i, one)
        if (!w->cli->json && json_is_object(one) && !gw_field_is_over(one))
            on_migration(w, one);
    w->dirty = true;
    json_decref(answer);
    return 0;
}

/* Until Ctrl-C, or until nobody reads on: 'godwit watch | head'. */
static bool is_wanted(const struct watch *w)
{
    return w->interrupts.n_seen == 0 && !ferror(stdout);
}

static int on_open(struct watch *w, struct gw_error *e)
{
    if (read_all(w, e) < 0)
        return -1;
    if (w->said)
        gw_cli_say("godwitd is back");
    w->said = false;
    w->wait_ms = BACKOFF_MS;
    return 0;
}

/* One connection, until it ends or somebody interrupts. */
static void watch_once(struct watch *w, struct gw_stream *stream, struct gw_error *e)
{
    bool was_open = false;

    if (gw_stream_open(stream, &w->cli->client, &w->sink, e) < 0)
        return;
    while (is_wanted(w)) {
        int64_t age = gw_progress_now_ms() - w->drawn_ms;
        bool soon = w->live && w->dirty;

        if (soon && age >= REDRAW_MS)
            draw(w);
        if (gw_stream_pump(stream, soon && age < REDRAW_MS ? (int)(REDRAW_MS - age) : 1000, e) < 0)
            return;
        if (stream->open && !was_open && on_open(w, e) < 0)
            return;
        was_open = stream->open;
    }
}

static void watch_until_interrupted(struct watch *w)
{
    struct gw_stream stream = {0};
    struct gw_error e;

    while (is_wanted(w)) {
        watch_once(w, &stream, &e);
        if (!is_wanted(w))
            break;
        erase(w);
        fflush(stdout);
        if (!w->said)
            gw_cli_say("%s; trying again", e.msg);
        w->said = true;
        gw_interrupts_wait(&w->interrupts, w->wait_ms);
        w->wait_ms = w->wait_ms * 2 < BACKOFF_MAX_MS ? w->wait_ms * 2 : BACKOFF_MAX_MS;
    }
    gw_stream_close(&stream);
}

int gw_cmd_watch(struct gw_cli *cli, const struct gw_args *args)
{
    struct watch w = {
        .sink.on_event = on_event, .interrupts.fd = -1, .cli = cli, .wait_ms = BACKOFF_MS};
    json_t *unused = NULL;
    struct gw_error e;

    (void)args;
    TAILQ_INIT(&w.all);
    w.live = !cli->json && gw_text_is_terminal(stdout);
    /* A daemon that is not there at the start is more likely a wrong socket than a restart. */
    if (gw_client_get(&cli->client, "/v1/migrations", &unused, &e) < 0 ||
        gw_interrupts_open(&w.interrupts, &e) < 0) {
        json_decref(unused);
        return gw_cli_fail(cli, &e);
    }
    json_decref(unused);
    cli->client.interrupts = &w.interrupts;
    watch_until_interrupted(&w);
    cli->client.interrupts = NULL;
    gw_interrupts_close(&w.interrupts);
    while (!TAILQ_EMPTY(&w.all))
        forget(&w, TAILQ_FIRST(&w.all));
    return GW_EXIT_OK;
}
