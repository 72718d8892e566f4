/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shell/carrier_private.h"
#include "util/cleanup.h"
#include "util/clock.h"

int gw_carrier_lane_init(struct gw_carrier_lane *l, struct gw_error *error)
{
    bool short_of_memory = false;

    for (unsigned i = 0; i < GW_CARRIER_OUTS; i++)
        short_of_memory |= !(l->out[i].bytes = malloc(GW_FRAME_MAX));
    short_of_memory |= !(l->in.bytes = malloc(2 * GW_FRAME_MAX));
    return short_of_memory ? gw_error_set_sys(error, ENOMEM, "take memory for a lane") : 0;
}

void gw_carrier_lane_fini(struct gw_carrier_lane *l)
{
    gw_lane_free(gw_steal_ptr(&l->lane));
    if (l->qemu >= 0)
        close(gw_steal_fd(&l->qemu));
    for (unsigned i = 0; i < GW_CARRIER_OUTS; i++)
        free(gw_steal_ptr(&l->out[i].bytes));
    free(gw_steal_ptr(&l->in.bytes));
    free(gw_steal_ptr(&l->payload));
    gw_sender_fini(&l->sender);
    gw_receiver_fini(&l->receiver);
}

static int lane_failed(const struct gw_carrier_lane *l, int result, struct gw_error *error)
{
    const struct gw_error *why = l->lane->ops->error(l->lane);

    if (why)
        *error = *why;
    else
        gw_error_set_sys(error, -result, "lane %u", l->number);
    return -1;
}

/* Takes back what the lane is done with. */
static int collect(struct gw_carrier_lane *l, struct gw_error *error)
{
    struct gw_transfer *done;

    while ((done = l->lane->ops->done(l->lane))) {
        if (done == &l->in.transfer) {
            l->in.busy = false;
            l->in.n += done->n_bytes;
            l->in.ended = done->result == GW_TRANSFER_END;
        } else {
            gw_container_of(done, struct gw_carrier_out, transfer)->busy = false;
        }
        if (done->result < 0)
            return lane_failed(l, done->result, error);
    }
    return 0;
}

/* A lane that never has to wait must hear of the end, too: gw_carrier_free() waits for it. */
static int move(struct gw_carrier_lane *l, unsigned events, struct gw_error *error)
{
    if (atomic_load(&l->carrier->stopping))
        return gw_error_set(error, GW_E_CANCELLED, "the carrier ends");
    l->lane->ops->notify(l->lane, events, gw_clock_ns());
    return collect(l, error);
}

static int timeout_ms(const struct gw_want *want)
{
    uint64_t now_ns = gw_clock_ns();

    if (want->at_ns == GW_NEVER)
        return -1;
    if (want->at_ns <= now_ns)
        return 0;
    return (int)((want->at_ns - now_ns + GW_NS_PER_MS - 1) / GW_NS_PER_MS);
}

int gw_carrier_wait(struct gw_carrier_lane *l, int fd, short events, struct gw_error *error)
{
    struct pollfd polls[3] = {{.fd = l->carrier->wake, .events = POLLIN},
                              {.fd = fd, .events = events},
                              {.fd = -1}};
    struct gw_want want = {.fd = -1, .at_ns = GW_NEVER};
    uint64_t began_ns = gw_clock_ns();
    unsigned seen;

    if (l->lane) {
        l->lane->ops->want(l->lane, &want);
        polls[2].fd = want.fd;
        polls[2].events = (short)((want.events & GW_IO_READ ? POLLIN : 0) |
                                  (want.events & GW_IO_WRITE ? POLLOUT : 0));
    }
    if (poll(polls, 3, timeout_ms(&want)) < 0 && errno != EINTR)
        return gw_error_set_sys(error, errno, "wait for lane %u", l->number);
    *(events & POLLIN ? &l->starved_ns : &l->blocked_ns) += gw_clock_ns() - began_ns;
    if (polls[0].revents)
        return gw_error_set(error, GW_E_CANCELLED, "the carrier ends");
    if (!l->lane)
        return 0;
    seen = (polls[2].revents & POLLIN ? (unsigned)GW_IO_READ : 0) |
           (polls[2].revents & POLLOUT ? (unsigned)GW_IO_WRITE : 0) |
           (polls[2].revents & (POLLERR | POLLHUP) ? (unsigned)GW_IO_READ | GW_IO_WRITE : 0);
    return move(l, seen, error);
}

ssize_t gw_carrier_read(struct gw_carrier_lane *l, void *to, size_t n_bytes, struct gw_error *error)
{
    for (;;) {
        ssize_t n = recv(l->qemu, to, n_bytes, MSG_DONTWAIT);

        if (n >= 0)
            return n;
        if (errno == ECONNRESET) /* it was closed before all that was sent to it was read */
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return gw_error_set_sys(error, errno, "read from QEMU");
        if (gw_carrier_wait(l, l->qemu, POLLIN, error) < 0)
            return -1;
    }
}

int gw_carrier_write(struct gw_carrier_lane *l, const void *from, size_t n_bytes,
                     struct gw_error *error)
{
    const char *at = from;

    while (n_bytes) {
        ssize_t n = send(l->qemu, at, n_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0) {
            at += n;
            n_bytes -= (size_t)n;
        } else if (errno != EAGAIN && errno != EINTR) {
            return gw_error_set_sys(error, errno, "send to QEMU");
        } else if (gw_carrier_wait(l, l->qemu, POLLOUT, error) < 0) {
            return -1;
        }
    }
    return 0;
}

/* --- frames out ------------------------------------------------------------------------------ */

static struct gw_carrier_out *find_free(const struct gw_carrier_lane *l)
{
    for (unsigned i = 0; i < GW_CARRIER_OUTS; i++)
        if (!l->out[i].busy)
            return (struct gw_carrier_out *)&l->out[i];
    return NULL;
}

bool gw_carrier_has_free(const struct gw_carrier_lane *l)
{
    return find_free(l);
}

struct gw_carrier_out *gw_carrier_get(struct gw_carrier_lane *l, struct gw_error *error)
{
    struct gw_carrier_out *out;

    while (!(out = find_free(l)))
        if (gw_carrier_wait(l, -1, 0, error) < 0)
            return NULL;
    return out;
}

int gw_carrier_send(struct gw_carrier_lane *l, struct gw_carrier_out *out, size_t n_bytes,
                    struct gw_error *error)
{
    int r;

    out->iov = (struct iovec){out->bytes, n_bytes};
    out->transfer = (struct gw_transfer){.iov = &out->iov, .n_iov = 1};
    r = l->lane->ops->send(l->lane, &out->transfer);
    if (r < 0)
        return lane_failed(l, r, error);
    out->busy = true;
    pthread_mutex_lock(&l->carrier->lock);
    l->counts.wire_bytes += n_bytes;
    pthread_mutex_unlock(&l->carrier->lock);
    return move(l, GW_IO_WRITE, error);
}

int gw_carrier_send_frame(struct gw_carrier_lane *l, enum gw_frame_kind kind, const void *payload,
                          size_t n_payload, struct gw_error *error)
{
    struct gw_carrier_out *out = gw_carrier_get(l, error);

    if (!out)
        return -1;
    if (n_payload)
        memcpy(out->bytes + GW_FRAME_HEADER_BYTES, payload, n_payload);
    return gw_carrier_send(l, out, gw_frame_put(out->bytes, kind, l->number, n_payload), error);
}

int gw_carrier_flush(struct gw_carrier_lane *l, struct gw_error *error)
{
    for (unsigned i = 0; i < GW_CARRIER_OUTS; i++)
        while (l->out[i].busy)
            if (gw_carrier_wait(l, -1, 0, error) < 0)
                return -1;
    return 0;
}

/* --- frames in ------------------------------------------------------------------------------- */

/* n_needed bytes are to be there from `at` on. */
static int receive(struct gw_carrier_lane *l, size_t n_needed, struct gw_error *error)
{
    int r;

    if (l->in.at) {
        memmove(l->in.bytes, l->in.bytes + l->in.at, l->in.n - l->in.at);
        l->in.n -= l->in.at;
        l->in.at = 0;
    }
    l->in.iov = (struct iovec){l->in.bytes + l->in.n, 2 * GW_FRAME_MAX - l->in.n};
    l->in.transfer =
        (struct gw_transfer){.iov = &l->in.iov, .n_iov = 1, .min_bytes = n_needed - l->in.n};
    r = l->lane->ops->receive(l->lane, &l->in.transfer);
    if (r < 0)
        return lane_failed(l, r, error);
    l->in.busy = true;
    return move(l, GW_IO_READ, error);
}

int gw_carrier_try_frame(struct gw_carrier_lane *l, struct gw_frame *frame, struct gw_error *error)
{
    size_t n;

    while (!l->in.busy) {
        int r =
            gw_frame_parse(l->in.bytes + l->in.at, l->in.n - l->in.at, l->number, frame, &n, error);

        if (r < 0)
            return -1;
        if (r == 0) {
            l->in.at += n;
            return 0;
        }
        if (l->in.ended)
            return gw_error_set(error, GW_E_PEER, "lane %u: the other node ended it too early",
                                l->number);
        if (receive(l, n, error) < 0)
            return -1;
    }
    return 1;
}

int gw_carrier_next_frame(struct gw_carrier_lane *l, struct gw_frame *frame, struct gw_error *error)
{
    int r;

    while ((r = gw_carrier_try_frame(l, frame, error)) > 0)
        if (gw_carrier_wait(l, -1, 0, error) < 0)
            return -1;
    return r;
}

/* Both sides have said goodbye: a lane that is freed earlier is reset. */
static bool has_ended(const struct gw_carrier_lane *l)
{
    struct gw_lane_info info;

    l->lane->ops->info(l->lane, &info);
    return info.state == GW_LANE_ENDED;
}

int gw_carrier_finish(struct gw_carrier_lane *l, struct gw_error *error)
{
    l->lane->ops->finish(l->lane);
    if (gw_carrier_flush(l, error) < 0 || move(l, GW_IO_WRITE, error) < 0)
        return -1;
    if (!l->in.busy && !l->in.ended && receive(l, l->in.n - l->in.at + 1, error) < 0)
        return -1;
    while (!l->in.ended && l->in.busy)
        if (gw_carrier_wait(l, -1, 0, error) < 0)
            return -1;
    if (!l->in.ended || l->in.n != l->in.at)
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u: there is something behind its END",
                            l->number);
    while (!has_ended(l))
        if (gw_carrier_wait(l, -1, 0, error) < 0)
            return -1;
    return 0;
}

/* --- the main channel ------------------------------------------------------------------------ */

struct ends {
    bool qemu, peer; /* has ended */
};

/* A frame from the other node, if there is one. 1: there was one; 0; -1. */
static int pass_in(struct gw_carrier_lane *l, struct ends *ends, struct gw_error *error)
{
    struct gw_frame frame;
    int r = ends->peer ? 1 : gw_carrier_try_frame(l, &frame, error);

    if (r != 0)
        return r < 0 ? -1 : 0;
    if (frame.kind == GW_FRAME_END) {
        ends->peer = true;
        shutdown(l->qemu, SHUT_WR);
    } else if (frame.kind != GW_FRAME_BYTES) {
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u: a frame of kind %u on the main channel",
                            l->number, frame.kind);
    } else if (!ends->qemu && gw_carrier_write(l, frame.payload, frame.n_payload, error) < 0) {
        return -1;
    }
    return 1;
}

/* Bytes from QEMU, if there are any. The same. */
static int pass_out(struct gw_carrier_lane *l, struct ends *ends, struct gw_error *error)
{
    struct gw_carrier_out *out = find_free(l);
    ssize_t n;

    if (ends->qemu || !out)
        return 0;
    n = recv(l->qemu, out->bytes + GW_FRAME_HEADER_BYTES, GW_FRAME_BYTES_MAX, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0 && errno != ECONNRESET)
        return gw_error_set_sys(error, errno, "read from QEMU");
    ends->qemu = n <= 0;
    if (n < 0)
        n = 0;
    gw_carrier_count(l, NULL, 0, (uint64_t)n);
    n = (ssize_t)gw_frame_put(out->bytes, n ? GW_FRAME_BYTES : GW_FRAME_END, l->number, (size_t)n);
    return gw_carrier_send(l, out, (size_t)n, error) < 0 ? -1 : 1;
}

int gw_carrier_run_main(struct gw_carrier_lane *l, struct gw_error *error)
{
    struct ends ends = {false, false};

    while (!ends.qemu || !ends.peer) {
        int in = pass_in(l, &ends, error);
        int out = in < 0 ? -1 : pass_out(l, &ends, error);
        bool wants_more = !ends.qemu && gw_carrier_has_free(l);

        if (in < 0 || out < 0)
            return -1;
        if (in || out)
            continue;
        if (gw_carrier_wait(l, wants_more ? l->qemu : -1, POLLIN, error) < 0)
            return -1;
    }
    return gw_carrier_finish(l, error);
}
