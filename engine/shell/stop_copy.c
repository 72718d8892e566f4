/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/machine.h"
#include "shell/inspect.h"
#include "shell/stop_copy.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define COMMAND_TIMEOUT_NS UINT64_C(10000000000)
#define YANK_AFTER_MS      300
#define SETTLE_LIMIT_NS    (10 * GW_NS_PER_S)

static const struct timeval yank_after = {.tv_usec = YANK_AFTER_MS * 1000};
static const struct timeval ask_again_in = {.tv_usec = 5000};

static void wait_for(struct gw_stop_copy *stop, const struct timeval *time)
{
    stop->waits = true;
    event_add(stop->timer, time);
}

static bool is_final(const json_t *migrate)
{
    const char *status = json_string_value(json_object_get(migrate, "status"));

    switch (status ? gw_qemu_status_from_name(status) : GW_QEMU_NONE) {
    case GW_QEMU_NONE:
    case GW_QEMU_COMPLETED:
    case GW_QEMU_FAILED:
    case GW_QEMU_CANCELLED: return true;
    default: return false;
    }
}

/* `postmigrate` ends when the guest runs again. Without it the `completed` may be that of the
 * migration that once brought the guest here. */
static bool has_completed(const json_t *replies)
{
    const char *migrate =
        json_string_value(json_object_get(json_object_get(replies, "migrate"), "status"));
    const char *guest =
        json_string_value(json_object_get(json_object_get(replies, "status"), "status"));

    return migrate && gw_qemu_status_from_name(migrate) == GW_QEMU_COMPLETED && guest &&
           strcmp(guest, "postmigrate") == 0;
}

static void yank_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct gw_stop_copy *stop = gw_container_of(call, struct gw_stop_copy, yank_call);

    (void)reply;
    stop->yanked(stop, error);
}

static void yank(struct gw_stop_copy *stop)
{
    stop->was_yanked = true;
    stop->yank_call.done = yank_answered;
    stop->yank_call.oob = true;
    gw_qmp_link_execute(stop->qmp, &stop->yank_call, "yank",
                        json_pack("{s:[{s:s}]}", "instances", "type", "migration"),
                        COMMAND_TIMEOUT_NS);
}

static void settle_answered(struct gw_qmp_batch *batch, json_t *replies,
                            const struct gw_error *error)
{
    struct gw_stop_copy *stop = gw_container_of(batch, struct gw_stop_copy, batch);
    uint64_t waited_ns = gw_clock_ns() - stop->began_ns;
    struct gw_error late;

    if (error || (is_final(json_object_get(replies, "migrate")) &&
                  !gw_inspect_has_channels(json_object_get(replies, "yank")))) {
        stop->done(stop, !error && has_completed(replies), error);
    } else if (waited_ns > SETTLE_LIMIT_NS) {
        gw_error_set(&late, GW_E_TIMEOUT, "QEMU has not stopped its migration in %u s",
                     (unsigned)(SETTLE_LIMIT_NS / GW_NS_PER_S));
        stop->done(stop, false, &late);
    } else {
        if (waited_ns > YANK_AFTER_MS * GW_NS_PER_MS && !stop->was_yanked)
            yank(stop);
        wait_for(stop, &ask_again_in);
    }
}

static void ask_whether_settled(struct gw_stop_copy *stop)
{
    gw_qmp_batch_fini(&stop->batch);
    gw_qmp_batch_init(&stop->batch, settle_answered);
    gw_qmp_batch_add(&stop->batch, stop->qmp, "migrate", false, "query-migrate", NULL);
    gw_qmp_batch_add(&stop->batch, stop->qmp, "yank", false, "query-yank", NULL);
    gw_qmp_batch_add(&stop->batch, stop->qmp, "status", false, "query-status", NULL);
    gw_qmp_batch_end(&stop->batch);
}

static void timer_came(evutil_socket_t fd, short what, void *arg)
{
    struct gw_stop_copy *stop = arg;

    (void)fd;
    (void)what;
    stop->waits = false;
    if (gw_qmp_call_is_pending(&stop->cancel_call))
        yank(stop); /* cancel_answered() goes on */
    else
        ask_whether_settled(stop);
}

static void cancel_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct gw_stop_copy *stop = gw_container_of(call, struct gw_stop_copy, cancel_call);

    (void)reply;
    stop->waits = false;
    event_del(stop->timer);
    if (error)
        stop->done(stop, false, error);
    else
        ask_whether_settled(stop);
}

int gw_stop_copy_init(struct gw_stop_copy *stop, struct event_base *base)
{
    stop->timer = evtimer_new(base, timer_came, stop);
    return stop->timer ? 0 : -1;
}

void gw_stop_copy_start(struct gw_stop_copy *stop, struct gw_qmp_link *qmp)
{
    stop->qmp = qmp;
    stop->began_ns = gw_clock_ns();
    stop->was_yanked = false;
    stop->cancel_call.done = cancel_answered;
    wait_for(stop, &yank_after);
    gw_qmp_link_execute(qmp, &stop->cancel_call, "migrate_cancel", NULL, COMMAND_TIMEOUT_NS);
}

void gw_stop_copy_gone(struct gw_stop_copy *stop, const struct gw_error *error)
{
    bool waited = stop->waits;

    stop->waits = false;
    event_del(stop->timer);
    if (waited)
        stop->done(stop, false, error);
}

void gw_stop_copy_fini(struct gw_stop_copy *stop)
{
    gw_qmp_batch_fini(&stop->batch);
    gw_qmp_session_cancel_call(&stop->cancel_call);
    gw_qmp_session_cancel_call(&stop->yank_call);
    if (stop->timer)
        event_free(gw_steal_ptr(&stop->timer));
}
