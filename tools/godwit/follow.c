/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "field.h"
#include "follow.h"
#include "text.h"

enum {
    QUIET_MS = 2000,  /* after so long without an event the record is read */
    SETTLE_MS = 200,  /* between an event that says it is over and the record that agrees */
    BACKOFF_MS = 100, /* doubles from attempt to attempt … */
    BACKOFF_MAX_MS = 1000,
    CHECK_TIMEOUT_MS = 5000,
};

static void on_interrupt(struct gw_interrupts *interrupts)
{
    struct gw_follow *f = gw_container_of(interrupts, struct gw_follow, interrupts);

    gw_progress_clear(&f->progress);
    if (interrupts->n_seen > 1)
        return;
    if (f->id)
        gw_cli_say("cancelling %s and waiting until it is over; press Ctrl-C again to leave",
                   f->id);
    else
        gw_cli_say("cancelling as soon as godwitd has answered; press Ctrl-C again to leave");
}

static bool is_ours(const struct gw_follow *f, const json_t *migration)
{
    return strcmp(gw_field_str(migration, "id", ""), f->id) == 0;
}

static void on_event(struct gw_sse_sink *sink, const char *name, const char *data, size_t len)
{
    struct gw_follow *f = gw_container_of(sink, struct gw_follow, sink);
    json_t *migration;

    if (strcmp(name, "migration") != 0)
        return;
    migration = json_loadb(data, len, 0, NULL);
    if (json_is_object(migration) && is_ours(f, migration)) {
        f->backoff_ms = BACKOFF_MS;
        f->over_seen = gw_field_is_over(migration);
        f->next_check_ms = gw_progress_now_ms() + (f->over_seen ? 0 : QUIET_MS);
        if (!f->over_seen)
            gw_progress_show(&f->progress, migration);
    }
    json_decref(migration);
}

int gw_follow_init(struct gw_follow *follow, struct gw_client *client, const char *vm,
                   struct gw_error *e)
{
    *follow = (struct gw_follow){
        .sink.on_event = on_event,
        .interrupts = {.fd = -1, .notice = on_interrupt},
        .client = client,
        .vm = vm,
        .backoff_ms = BACKOFF_MS,
    };
    if (gw_interrupts_open(&follow->interrupts, e) < 0)
        return -1;
    client->interrupts = &follow->interrupts;
    return 0;
}

void gw_follow_fini(struct gw_follow *follow)
{
    gw_progress_clear(&follow->progress);
    gw_stream_close(&follow->stream);
    if (follow->client)
        follow->client->interrupts = NULL;
    gw_interrupts_close(&follow->interrupts);
    free(gw_steal_ptr(&follow->id));
    json_decref(gw_steal_ptr(&follow->record));
}

static unsigned next_backoff(struct gw_follow *f)
{
    unsigned now = f->backoff_ms;

    f->backoff_ms = now * 2 < BACKOFF_MAX_MS ? now * 2 : BACKOFF_MAX_MS;
    return now;
}

static int unresolved(const struct gw_follow *f, struct gw_error *e)
{
    e->code = GW_E_UNRESOLVED;
    return gw_error_hint(e,
                         "'godwit status' once godwitd runs; until then look for the QEMU of %s on "
                         "both nodes, and start it nowhere",
                         f->vm);
}

static int left(const struct gw_follow *f, struct gw_error *e)
{
    gw_error_set(e, GW_E_UNRESOLVED, "left while migration %s of %s was not over yet%s", f->id,
                 f->vm, f->cancel_sent ? " (it was asked to cancel)" : "");
    return gw_error_hint(e, "'godwit status' tells how it ends, 'godwit cancel %s' cancels it",
                         f->id);
}

/* The daemon gave no record: looks again for a while, then gives up. */
static int lost(struct gw_follow *f, struct gw_error *e)
{
    int64_t now = gw_progress_now_ms();

    if (f->lost_since_ms == 0) {
        f->lost_since_ms = now;
        gw_progress_clear(&f->progress);
        gw_cli_say("lost godwitd while %s moves (%s); trying again for %llu s", f->vm, e->msg,
                   (unsigned long long)f->patience_ms / 1000);
    }
    if (now - f->lost_since_ms >= (int64_t)f->patience_ms) {
        gw_error_prefix(e, "migration %s of %s: godwitd did not come back within %llu s", f->id,
                        f->vm, (unsigned long long)f->patience_ms / 1000);
        return unresolved(f, e);
    }
    f->next_check_ms = now + next_backoff(f);
    return 0;
}

static int take_record(struct gw_follow *f, struct gw_reply *reply)
{
    if (f->lost_since_ms)
        gw_cli_say("godwitd is back");
    f->lost_since_ms = 0;
    json_decref(f->record);
    f->record = gw_steal_ptr(&reply->json);
    f->next_check_ms = gw_progress_now_ms() + (f->over_seen ? SETTLE_MS : QUIET_MS);
    if (gw_field_is_over(f->record))
        return 1;
    gw_progress_show(&f->progress, f->record);
    return 0;
}

/* Reads the record. 1: it is over; 0: go on; -1 and *e: nobody knows. */
static int check(struct gw_follow *f, struct gw_error *e)
{
    gw_autofree char *path = gw_client_path("/v1/migrations/", f->id, "");
    const struct gw_request request = {.method = "GET",
                                       .path = path,
                                       .timeout_ms = CHECK_TIMEOUT_MS};
    GW_REPLY_AUTO struct gw_reply reply = {0};
    int r = gw_client_send(f->client, &request, &reply, e);

    if (r == 0 && json_is_object(reply.json))
        return take_record(f, &reply);
    if (r == 0)
        gw_error_set(e, GW_E_PROTOCOL, "godwitd's answer to GET %s is no object", path);
    if (f->interrupts.n_seen > 1)
        return left(f, e);
    if (reply.status == 404) {
        gw_error_prefix(e, "godwitd no longer knows the migration %s of %s", f->id, f->vm);
        return unresolved(f, e);
    }
    return lost(f, e);
}

static void ask_to_cancel(struct gw_follow *f)
{
    gw_autofree char *path = gw_client_path("/v1/migrations/", f->id, "");
    const struct gw_request request = {.method = "DELETE",
                                       .path = path,
                                       .timeout_ms = CHECK_TIMEOUT_MS};
    GW_REPLY_AUTO struct gw_reply reply = {0};
    struct gw_error e;

    if (gw_client_send(f->client, &request, &reply, &e) == 0) {
        f->cancel_sent = true;
    } else if (reply.status) {
        f->cancel_sent = true;
        gw_progress_clear(&f->progress);
        gw_cli_say_error("not cancelled", e.msg, e.hint);
    }
    f->next_check_ms = gw_progress_now_ms() + (reply.status ? SETTLE_MS : 0);
}

/* Time until the record is to be read, or the stream to be tried again. */
static int patience(const struct gw_follow *f)
{
    int64_t until = f->next_check_ms;
    int64_t now = gw_progress_now_ms();

    if (!f->stream.easy && f->next_open_ms < until)
        until = f->next_open_ms;
    return until <= now ? 0 : (int)(until - now);
}

static void wait_for_news(struct gw_follow *f)
{
    struct gw_error e;

    if (!f->stream.easy && f->next_open_ms <= gw_progress_now_ms()) {
        f->was_open = false;
        f->next_open_ms = gw_progress_now_ms() + next_backoff(f);
        gw_stream_open(&f->stream, f->client, &f->sink, &e);
    }
    if (!f->stream.easy) {
        gw_interrupts_wait(&f->interrupts, patience(f));
        return;
    }
    if (gw_stream_pump(&f->stream, patience(f), &e) < 0) {
        f->next_open_ms = gw_progress_now_ms() + next_backoff(f);
        if (f->was_open)
            f->next_check_ms = 0;
    } else if (f->stream.open && !f->was_open) {
        f->was_open = true;
        f->next_check_ms = 0;
    }
}

int gw_follow_run(struct gw_follow *follow, struct gw_error *e)
{
    follow->next_check_ms = gw_progress_now_ms() + SETTLE_MS;
    for (;;) {
        if (follow->interrupts.n_seen > 1)
            return left(follow, e);
        if (follow->interrupts.n_seen && !follow->cancel_sent && !follow->lost_since_ms)
            ask_to_cancel(follow);
        if (follow->next_check_ms <= gw_progress_now_ms()) {
            int r = check(follow, e);

            if (r != 0)
                return r < 0 ? -1 : 0;
        }
        wait_for_news(follow);
    }
}
