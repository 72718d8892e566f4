/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/machine.h"
#include "shell/inspect.h"
#include "shell/stop_copy.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define COMMAND_TIMEOUT_NS UINT64_C(10000000000)
#define YANK_AFTER_NS      (300 * GW_NS_PER_MS)
#define SETTLE_LIMIT_NS    (10 * GW_NS_PER_S)
/* An answer within the switchover may be from before the last SYNC: while QEMU waits for the
 * guest's processors it gives its lock away. By then it is over. */
#define SWITCH_NS       (50 * GW_NS_PER_MS)
#define SWITCH_LIMIT_NS (300 * GW_NS_PER_MS)

static const struct timeval yank_after = {.tv_usec = YANK_AFTER_NS / 1000};
static const struct timeval look_again_in = {.tv_usec = 5000};

static enum gw_qemu_status status_of(const json_t *migrate)
{
    const char *status = json_string_value(json_object_get(migrate, "status"));

    return status ? gw_qemu_status_from_name(status) : GW_QEMU_NONE;
}

static bool is_final(const json_t *migrate)
{
    switch (status_of(migrate)) {
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

static void wait_for(struct gw_stop_copy *stop, const struct timeval *time)
{
    stop->waits = true;
    event_add(stop->timer, time);
}

/* A command is under way: an answer that takes long is one that waits for QEMU's lock. */
static void await_answer(struct gw_stop_copy *stop)
{
    stop->asks = true;
    if (!stop->was_yanked)
        event_add(stop->timer, &yank_after);
}

static void was_answered(struct gw_stop_copy *stop)
{
    stop->asks = stop->waits = false;
    event_del(stop->timer);
}

static void look(struct gw_stop_copy *stop);

static void cancel_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct gw_stop_copy *stop = gw_container_of(call, struct gw_stop_copy, cancel_call);

    (void)reply;
    was_answered(stop);
    if (error)
        stop->done(stop, false, error);
    else
        look(stop);
}

static void cancel(struct gw_stop_copy *stop)
{
    stop->cancelled_ns = gw_clock_ns();
    stop->cancel_call.done = cancel_answered;
    await_answer(stop);
    gw_qmp_link_execute(stop->qmp, &stop->cancel_call, "migrate_cancel", NULL, COMMAND_TIMEOUT_NS);
}

/* QEMU does not answer, and may not before we give up: it shall find the command when it does. */
static void leave_cancel(struct gw_stop_copy *stop)
{
    stop->cancel_call.done = cancel_answered;
    gw_qmp_link_execute(stop->qmp, &stop->cancel_call, "migrate_cancel", NULL, COMMAND_TIMEOUT_NS);
    gw_qmp_session_cancel_call(&stop->cancel_call);
}

/* Whether QEMU is past the last SYNC, or does not come to it. */
static bool may_be_cancelled(const struct gw_stop_copy *stop, const json_t *migrate)
{
    uint64_t waited_ns = gw_clock_ns() - stop->began_ns;
    const json_t *left = json_object_get(json_object_get(migrate, "ram"), "remaining");

    switch (status_of(migrate)) {
    case GW_QEMU_PRE_SWITCHOVER: return !stop->switching || waited_ns > SWITCH_LIMIT_NS;
    case GW_QEMU_DEVICE:
        return waited_ns > SWITCH_LIMIT_NS ||
               (waited_ns > SWITCH_NS && json_integer_value(left) == 0);
    default: return true;
    }
}

static void seen_after_cancel(struct gw_stop_copy *stop, const json_t *replies)
{
    uint64_t waited_ns = gw_clock_ns() - stop->cancelled_ns;
    struct gw_error late;

    if (is_final(json_object_get(replies, "migrate")) &&
        !gw_inspect_has_channels(json_object_get(replies, "yank"))) {
        stop->done(stop, has_completed(replies), NULL);
    } else if (waited_ns > SETTLE_LIMIT_NS) {
        gw_error_set(&late, GW_E_TIMEOUT, "QEMU has not stopped its migration in %u s",
                     (unsigned)(SETTLE_LIMIT_NS / GW_NS_PER_S));
        stop->done(stop, false, &late);
    } else {
        if (waited_ns > YANK_AFTER_NS && !stop->was_yanked)
            yank(stop);
        wait_for(stop, &look_again_in);
    }
}

static void seen(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error)
{
    struct gw_stop_copy *stop = gw_container_of(batch, struct gw_stop_copy, batch);

    was_answered(stop);
    if (error)
        stop->done(stop, false, error);
    else if (stop->cancelled_ns)
        seen_after_cancel(stop, replies);
    else if (may_be_cancelled(stop, json_object_get(replies, "migrate")))
        cancel(stop);
    else
        wait_for(stop, &look_again_in);
}

static void look(struct gw_stop_copy *stop)
{
    await_answer(stop);
    gw_qmp_batch_fini(&stop->batch);
    gw_qmp_batch_init(&stop->batch, seen);
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
    if (!stop->asks) {
        look(stop);
        return;
    }
    yank(stop); /* the answer goes on */
    if (!stop->cancelled_ns)
        leave_cancel(stop);
}

int gw_stop_copy_init(struct gw_stop_copy *stop, struct event_base *base)
{
    stop->timer = evtimer_new(base, timer_came, stop);
    return stop->timer ? 0 : -1;
}

void gw_stop_copy_start(struct gw_stop_copy *stop, struct gw_qmp_link *qmp, bool switching)
{
    stop->qmp = qmp;
    stop->began_ns = gw_clock_ns();
    stop->cancelled_ns = 0;
    stop->switching = switching;
    stop->was_yanked = false;
    look(stop);
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
