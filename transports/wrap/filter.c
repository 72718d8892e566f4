/* SPDX-License-Identifier: Apache-2.0 */
#include "transports/wrap/filter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

/* Parts that one notify() passes down; the rest comes with the next, at once. */
#define ROUNDS 64

struct filter_listener {
    struct gw_listener base;
    struct gw_listener *next;
    struct gw_filter *filter;
};

static struct gw_filter_lane *lane_of(const struct gw_lane *lane)
{
    return gw_container_of(lane, struct gw_filter_lane, base);
}

struct gw_filter *gw_filter_of(struct gw_transport *transport)
{
    return gw_container_of(transport, struct gw_filter, base);
}

static void tell(struct gw_filter_lane *lane, enum gw_trace_kind kind, enum gw_direction way,
                 uint64_t n_bytes, int result)
{
    if (lane->filter->ops->event)
        lane->filter->ops->event(lane, kind, way, n_bytes, result);
}

/* --- parts ----------------------------------------------------------------------------------- */

/* Passes the next part down: whether there was one. */
static bool pass(struct gw_filter_lane *lane, enum gw_direction way)
{
    struct gw_filter_half *half = &lane->halves[way];
    struct gw_transfer *first = gw_queue_first(&lane->queue, way);
    size_t n_bytes;

    if (half->busy || !first || (half->waiting && lane->now_ns < half->at_ns))
        return false;
    half->waiting = false;
    n_bytes = first->total - first->n_bytes;
    if (lane->filter->ops->grant) {
        half->at_ns = GW_NEVER;
        n_bytes = lane->filter->ops->grant(lane, way, n_bytes, &half->at_ns);
        half->waiting = n_bytes == 0;
        if (half->waiting)
            return false;
    }
    half->part = (struct gw_transfer){.iov = half->iov, .min_bytes = way == GW_RECEIVE};
    half->part.n_iov = gw_transfer_slice(first, half->iov, GW_TRANSFER_IOV_MAX, n_bytes, &n_bytes);
    half->busy = true;
    if (way == GW_SEND)
        lane->next->ops->send(lane->next, &half->part);
    else
        lane->next->ops->receive(lane->next, &half->part);
    return true;
}

/* The part of a direction has come back. */
static void take(struct gw_filter_lane *lane, enum gw_direction way)
{
    struct gw_filter_half *half = &lane->halves[way];
    struct gw_transfer *first = gw_queue_first(&lane->queue, way);

    half->busy = false;
    if (!first)
        return; /* cancelled, or the lane has failed */
    if (half->part.n_bytes) {
        if (lane->filter->ops->moved)
            lane->filter->ops->moved(lane, way, first, half->part.n_bytes);
        tell(lane, GW_TRACE_MOVED, way, half->part.n_bytes, 0);
        gw_queue_moved(&lane->queue, way, half->part.n_bytes);
    }
    if (half->part.result == GW_TRANSFER_END)
        gw_queue_end(&lane->queue);
    else if (half->part.result < 0 && half->part.result != -ECANCELED)
        gw_queue_fail(&lane->queue, half->part.result);
}

static bool take_all(struct gw_filter_lane *lane)
{
    struct gw_transfer *part;
    bool any = false;

    for (; (part = lane->next->ops->done(lane->next)); any = true)
        take(lane, part->direction);
    return any;
}

void gw_filter_fail(struct gw_filter_lane *lane, int result, const char *why)
{
    if (lane->failed)
        return;
    lane->failed = true;
    gw_error_set_sys(&lane->error, -result, "lane %u: %s", lane->hello.lane, why);
    lane->error.code = result == -ECANCELED ? GW_E_CANCELLED : GW_E_PEER;
    lane->next->ops->abort(lane->next);
    while (lane->next->ops->done(lane->next))
        ; /* parts are part of what fails now */
    lane->halves[GW_SEND].busy = lane->halves[GW_RECEIVE].busy = false;
    gw_queue_fail(&lane->queue, result);
    tell(lane, GW_TRACE_FAILED, GW_SEND, 0, result);
}

/* All was passed down, so what has been finished here is finished there. */
static void pass_finish(struct gw_filter_lane *lane)
{
    if (!lane->queue.no_more_sends || gw_queue_first(&lane->queue, GW_SEND) ||
        lane->halves[GW_SEND].busy || lane->finish_passed)
        return;
    lane->finish_passed = true;
    lane->next->ops->finish(lane->next);
    lane->next->ops->notify(lane->next, GW_IO_WRITE, lane->now_ns);
}

/* What transfers that were not passed down complete with. */
static int result_of(const struct gw_error *error)
{
    if (error->sys)
        return -error->sys;
    switch (error->code) {
    case GW_E_CANCELLED: return -ECANCELED;
    case GW_E_REFUSED: return -ECONNREFUSED;
    case GW_E_PROTOCOL: return -EPROTO;
    default: return -ECONNRESET;
    }
}

/* The lane below has failed or ended; nothing needs to have been under way for that. */
static void follow_end(struct gw_filter_lane *lane)
{
    const struct gw_error *error = lane->next->ops->error(lane->next);

    lane->over = true;
    if (!error) {
        gw_queue_end(&lane->queue);
        return;
    }
    gw_queue_fail(&lane->queue, result_of(error));
    tell(lane, GW_TRACE_FAILED, GW_SEND, 0, lane->queue.dead);
}

static void follow(struct gw_filter_lane *lane)
{
    struct gw_lane_info info;
    struct gw_want want;

    if (lane->failed || lane->over)
        return;
    pass_finish(lane);
    if (!lane->was_open) {
        lane->next->ops->info(lane->next, &info);
        lane->was_open = info.state == GW_LANE_OPEN || info.state == GW_LANE_ENDED;
        if (lane->was_open)
            tell(lane, GW_TRACE_OPEN, GW_SEND, 0, 0);
    }
    lane->next->ops->want(lane->next, &want);
    if (want.fd < 0)
        follow_end(lane);
}

static void lane_notify(struct gw_lane *base, unsigned events, uint64_t now_ns)
{
    struct gw_filter_lane *lane = lane_of(base);
    bool more = true;

    lane->now_ns = now_ns;
    for (int round = 0; more && round < ROUNDS && !lane->failed; round++) {
        bool sends = pass(lane, GW_SEND), receives = pass(lane, GW_RECEIVE);

        events |= (sends ? (unsigned)GW_IO_WRITE : 0) | (receives ? (unsigned)GW_IO_READ : 0);
        if (lane->failed)
            return;
        lane->next->ops->notify(lane->next, events, now_ns);
        events = 0;
        more = take_all(lane);
        follow(lane);
    }
}

static bool can_pass(const struct gw_filter_lane *lane, enum gw_direction way)
{
    const struct gw_filter_half *half = &lane->halves[way];

    return !half->busy && !half->waiting && gw_queue_first(&lane->queue, way);
}

static void lane_want(struct gw_lane *base, struct gw_want *want)
{
    struct gw_filter_lane *lane = lane_of(base);

    lane->next->ops->want(lane->next, want);
    if (lane->failed || lane->over)
        return;
    if (want->fd < 0)
        want->at_ns = 0; /* and we have not looked yet */
    for (int way = GW_SEND; way <= GW_RECEIVE; way++) {
        const struct gw_filter_half *half = &lane->halves[way];

        if (can_pass(lane, (enum gw_direction)way))
            want->at_ns = 0;
        else if (half->waiting && half->at_ns < want->at_ns)
            want->at_ns = half->at_ns;
    }
    if (lane->queue.no_more_sends && !lane->finish_passed && !gw_queue_first(&lane->queue, GW_SEND))
        want->at_ns = 0;
}

/* --- other operations ------------------------------------------------------------------------ */

static int submit(struct gw_filter_lane *lane, struct gw_transfer *transfer, enum gw_direction way)
{
    int r = gw_queue_submit(&lane->queue, transfer, way);

    if (r == 0)
        tell(lane, GW_TRACE_SUBMIT, way, transfer->total, 0);
    return r;
}

static int lane_send(struct gw_lane *lane, struct gw_transfer *transfer)
{
    return submit(lane_of(lane), transfer, GW_SEND);
}

static int lane_receive(struct gw_lane *lane, struct gw_transfer *transfer)
{
    return submit(lane_of(lane), transfer, GW_RECEIVE);
}

static struct gw_transfer *lane_done(struct gw_lane *base)
{
    struct gw_filter_lane *lane = lane_of(base);
    struct gw_transfer *transfer = gw_queue_done(&lane->queue);

    if (transfer)
        tell(lane, GW_TRACE_DONE, transfer->direction, transfer->n_bytes, transfer->result);
    return transfer;
}

static int lane_cancel(struct gw_lane *base, struct gw_transfer *transfer)
{
    struct gw_filter_lane *lane = lane_of(base);
    struct gw_filter_half *half = &lane->halves[transfer->direction];
    int r;

    if (!gw_queue_has(&lane->queue, transfer))
        return -ENOENT;
    if (transfer == gw_queue_first(&lane->queue, transfer->direction) && half->busy) {
        r = lane->next->ops->cancel(lane->next, &half->part);
        if (r < 0)
            return r;
        take_all(lane); /* what a receive has got already counts */
        if (!gw_queue_has(&lane->queue, transfer))
            return 0;
    }
    return gw_queue_cancel(&lane->queue, transfer);
}

static void lane_finish(struct gw_lane *base)
{
    struct gw_filter_lane *lane = lane_of(base);

    if (!lane->queue.no_more_sends)
        tell(lane, GW_TRACE_FINISH, GW_SEND, 0, 0);
    lane->queue.no_more_sends = true;
}

static void lane_abort(struct gw_lane *base)
{
    struct gw_filter_lane *lane = lane_of(base);
    struct gw_lane_info info;

    lane->next->ops->info(lane->next, &info);
    if (lane->failed || info.state > GW_LANE_OPEN)
        return;
    tell(lane, GW_TRACE_ABORT, GW_SEND, 0, 0);
    gw_filter_fail(lane, -ECANCELED, "aborted");
}

static void lane_info(struct gw_lane *base, struct gw_lane_info *info)
{
    struct gw_filter_lane *lane = lane_of(base);

    lane->next->ops->info(lane->next, info);
    /* Of a part that is under way some bytes have been handed over already. */
    info->queued_bytes = lane->queue.dead
                             ? 0
                             : lane->queue.n_queued_bytes[GW_SEND] +
                                   lane->queue.n_moved_bytes[GW_SEND] - info->sent_bytes;
    if (lane->failed)
        info->state = GW_LANE_FAILED;
}

static const struct gw_error *lane_error(const struct gw_lane *base)
{
    const struct gw_filter_lane *lane = lane_of(base);

    return lane->failed ? &lane->error : lane->next->ops->error(lane->next);
}

static void lane_free(struct gw_lane *base)
{
    struct gw_filter_lane *lane = lane_of(base);

    gw_lane_free(lane->next);
    free(lane);
}

static unsigned lane_caps(const struct gw_lane *base)
{
    const struct gw_filter_lane *lane = lane_of(base);

    return lane->next->ops->caps(lane->next) & ~(unsigned)GW_LANE_MEMORY;
}

static const struct gw_lane_ops lane_ops = {
    .name = "filter",
    .caps = lane_caps,
    .want = lane_want,
    .notify = lane_notify,
    .send = lane_send,
    .receive = lane_receive,
    .done = lane_done,
    .cancel = lane_cancel,
    .finish = lane_finish,
    .abort = lane_abort,
    .info = lane_info,
    .error = lane_error,
    .free = lane_free,
};

/* next is the lane's on success. */
static struct gw_filter_lane *lane_new(struct gw_filter *filter, struct gw_lane *next)
{
    struct gw_filter_lane *lane = calloc(1, filter->ops->lane_bytes);
    struct gw_lane_info info;

    if (!lane)
        return NULL;
    next->ops->info(next, &info);
    lane->base.ops = &lane_ops;
    lane->filter = filter;
    lane->next = next;
    lane->hello = info.hello;
    gw_queue_init(&lane->queue);
    if (filter->ops->lane_init)
        filter->ops->lane_init(lane);
    return lane;
}

/* --- listeners ------------------------------------------------------------------------------- */

static struct filter_listener *listener_of(const struct gw_listener *listener)
{
    return gw_container_of(listener, struct filter_listener, base);
}

static void listener_want(struct gw_listener *base, struct gw_want *want)
{
    struct filter_listener *listener = listener_of(base);

    listener->next->ops->want(listener->next, want);
}

static void listener_notify(struct gw_listener *base, unsigned events, uint64_t now_ns)
{
    struct filter_listener *listener = listener_of(base);

    listener->next->ops->notify(listener->next, events, now_ns);
}

static int listener_expect(struct gw_listener *base, const struct gw_lane_expected *expected)
{
    struct filter_listener *listener = listener_of(base);

    return listener->next->ops->expect(listener->next, expected);
}

static void listener_forget(struct gw_listener *base, const uint8_t migration[16])
{
    struct filter_listener *listener = listener_of(base);

    listener->next->ops->forget(listener->next, migration);
}

static struct gw_lane *listener_accept(struct gw_listener *base)
{
    struct filter_listener *listener = listener_of(base);
    struct gw_lane *next = listener->next->ops->accept(listener->next);
    struct gw_filter_lane *lane;

    if (!next)
        return NULL;
    lane = lane_new(listener->filter, next);
    if (!lane) {
        gw_lane_free(next); /* the other side sees a lane that broke */
        return NULL;
    }
    lane->accepted = lane->was_open = true;
    tell(lane, GW_TRACE_OPEN, GW_SEND, 0, 0);
    return &lane->base;
}

static bool listener_refused(struct gw_listener *base, struct gw_lane_refusal *refusal)
{
    struct filter_listener *listener = listener_of(base);

    return listener->next->ops->refused(listener->next, refusal);
}

static uint16_t listener_port(const struct gw_listener *base)
{
    const struct filter_listener *listener = listener_of(base);

    return listener->next->ops->port(listener->next);
}

static void listener_free(struct gw_listener *base)
{
    struct filter_listener *listener = listener_of(base);

    gw_listener_free(listener->next);
    free(listener);
}

static const struct gw_listener_ops listener_ops = {
    .want = listener_want,
    .notify = listener_notify,
    .expect = listener_expect,
    .forget = listener_forget,
    .accept = listener_accept,
    .refused = listener_refused,
    .port = listener_port,
    .free = listener_free,
};

/* --- transports ------------------------------------------------------------------------------ */

static int filter_listen(struct gw_transport *transport, struct gw_listener **listenerp,
                         struct gw_error *error)
{
    struct gw_filter *filter = gw_filter_of(transport);
    struct filter_listener *listener = calloc(1, sizeof *listener);

    if (!listener)
        return gw_error_set_sys(error, ENOMEM, "listen for lanes");
    if (filter->next->ops->listen(filter->next, &listener->next, error) < 0) {
        free(listener);
        return -1;
    }
    listener->base.ops = &listener_ops;
    listener->filter = filter;
    *listenerp = &listener->base;
    return 0;
}

static int filter_connect(struct gw_transport *transport, const struct gw_lane_hello *hello,
                          const char *peer, struct gw_lane **lanep, struct gw_error *error)
{
    struct gw_filter *filter = gw_filter_of(transport);
    struct gw_filter_lane *lane;
    struct gw_lane *next;

    if (filter->next->ops->connect(filter->next, hello, peer, &next, error) < 0)
        return -1;
    lane = lane_new(filter, next);
    if (!lane) {
        gw_lane_free(next);
        return gw_error_set_sys(error, ENOMEM, "connect lane %u", hello->lane);
    }
    *lanep = &lane->base;
    return 0;
}

static int filter_set_rate(struct gw_transport *transport, uint64_t bytes_s)
{
    struct gw_filter *filter = gw_filter_of(transport);

    if (filter->ops->set_rate)
        return filter->ops->set_rate(transport, bytes_s);
    return filter->next->ops->set_rate(filter->next, bytes_s);
}

static int filter_read_trace(struct gw_transport *transport, struct gw_trace_event *events,
                             unsigned max, uint64_t *n_lostp)
{
    struct gw_filter *filter = gw_filter_of(transport);

    if (filter->ops->read_trace)
        return filter->ops->read_trace(transport, events, max, n_lostp);
    return filter->next->ops->read_trace(filter->next, events, max, n_lostp);
}

static void filter_free(struct gw_transport *transport)
{
    struct gw_filter *filter = gw_filter_of(transport);

    if (filter->ops->fini)
        filter->ops->fini(transport);
    gw_transport_free(filter->next);
    free(filter);
}

static const struct gw_transport_ops transport_ops = {
    .name = "filter",
    .listen = filter_listen,
    .connect = filter_connect,
    .set_rate = filter_set_rate,
    .read_trace = filter_read_trace,
    .free = filter_free,
};

struct gw_filter *gw_filter_new(const struct gw_filter_ops *ops, size_t filter_bytes,
                                struct gw_transport *next)
{
    struct gw_filter *filter = calloc(1, filter_bytes);

    if (!filter)
        return NULL;
    filter->base.ops = &transport_ops;
    filter->ops = ops;
    filter->next = next;
    return filter;
}
