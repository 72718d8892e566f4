/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/fence.h"

#include <stdio.h>
#include <stdlib.h>

#include "shell/resolve.h"
#include "util/cleanup.h"

static const struct timeval again = {.tv_sec = 1}; /* while the guest is moving again */

struct gw_fence {
    LIST_ENTRY(gw_fence) link;
    struct gw_daemon *daemon;
    char id[16], uuid[40], source[64];
    struct event *timer;
    struct gw_resolve_call call;
};

static void fence_free(struct gw_fence *f)
{
    LIST_REMOVE(f, link);
    event_free(f->timer);
    free(f);
}

static void note(struct gw_fence *f, enum gw_log_level level, const char *text)
{
    gw_log(&f->daemon->log, level, f->id, "%s", text);
    gw_daemon_note(f->daemon, f->id, text);
}

static void resolved(struct gw_resolve_call *call, json_t *json, const struct gw_error *error)
{
    struct gw_fence *f = gw_container_of(call, struct gw_fence, call);
    const json_t *fenced = json_object_get(json, "fenced");
    char text[800];

    if (error && error->code == GW_E_BUSY) {
        event_add(f->timer, &again);
        return;
    }
    if (error)
        snprintf(text, sizeof text, "%s is not fenced by policy: %s", f->source, error->msg);
    else if (json_array_size(fenced) == 0)
        snprintf(text, sizeof text, "%s does not answer; it has no disk of the guest open",
                 f->source);
    else
        snprintf(text, sizeof text,
                 "%s does not answer: %zu of its clients fenced by policy, the first %s", f->source,
                 json_array_size(fenced), json_string_value(json_array_get(fenced, 0)));
    note(f, error ? GW_LOG_INFO : GW_LOG_WARNING, text);
    fence_free(f);
}

static void time_is_up(evutil_socket_t fd, short what, void *arg)
{
    struct gw_fence *f = arg;
    const struct gw_resolve_request request = {
        .vm = f->uuid, .action = GW_RESOLVE_FENCE, .dead = f->source, .by_policy = true};

    (void)fd;
    (void)what;
    if (gw_vm_find_uuid(f->daemon, f->uuid))
        gw_resolve_start(f->daemon, &request, &f->call);
    else
        fence_free(f); /* it has moved on, or ended */
}

void gw_fence_arm(struct gw_daemon *d, const char *id, const char *uuid, const char *source,
                  unsigned after_s)
{
    const struct timeval after = {.tv_sec = (time_t)after_s};
    struct gw_fence *f = after_s ? calloc(1, sizeof *f) : NULL;

    if (!after_s)
        return;
    if (!f || !(f->timer = evtimer_new(d->base, time_is_up, f)))
        abort(); /* as for every other small allocation of the loop's */
    f->daemon = d;
    f->call.done = resolved;
    snprintf(f->id, sizeof f->id, "%s", id);
    snprintf(f->uuid, sizeof f->uuid, "%s", uuid);
    snprintf(f->source, sizeof f->source, "%s", source);
    event_add(f->timer, &after);
    LIST_INSERT_HEAD(&d->fences, f, link);
}

void gw_fences_free(struct gw_daemon *d)
{
    while (!LIST_EMPTY(&d->fences))
        fence_free(LIST_FIRST(&d->fences));
}
