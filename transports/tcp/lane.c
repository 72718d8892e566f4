/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane on a TCP connection. Until it is open it goes through the steps of enum gw_tcp_step, one
 * function each; from then on it moves transfers both ways.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "transports/tcp/tcp_private.h"
#include "util/cleanup.h"
#include "util/clock.h"

enum {
    TURN_BYTES = 1 << 20,    /* in one notify() and direction, so that neither starves the other */
    RECORD_BYTES = 16 << 10, /* the most that TLS has in one */
};

static struct gw_tcp_lane *lane_of(const struct gw_lane *lane)
{
    return gw_container_of(lane, struct gw_tcp_lane, base);
}

/* --- the end --------------------------------------------------------------------------------- */

/* Makes the kernel send a reset while the number of the descriptor stays ours: whoever polls it
 * must not find another's socket there. */
static void reset(struct gw_tcp_lane *lane)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};

    (void)!connect(lane->fd, &nobody, sizeof nobody);
}

/* While it opens, the other side shall read our alert or answer: a reset could overtake it. */
static void die(struct gw_tcp_lane *lane, int result)
{
    if (lane->step == GW_TCP_OPEN || result == -ECANCELED)
        reset(lane);
    lane->step = GW_TCP_FAILED;
    lane->record = NULL;
    gw_queue_fail(&lane->queue, result);
}

int gw_tcp_fail(struct gw_tcp_lane *lane, enum gw_code code, int sys, const char *what)
{
    gw_error_set_sys(&lane->error, sys, "lane %u %s %s: %s", lane->hello.lane,
                     lane->server ? "from" : "to", lane->address, what);
    lane->error.code = code;
    die(lane, -sys);
    return -sys;
}

/* --- bytes ----------------------------------------------------------------------------------- */

static ssize_t judge(struct gw_tcp_lane *lane, ssize_t r, const char *what, unsigned events,
                     unsigned *eventsp)
{
    if (r >= 0)
        return r;
    *eventsp = events;
    if (errno == EAGAIN || errno == EINTR)
        return -EAGAIN;
    return gw_tcp_fail(lane, GW_E_PEER, errno, what);
}

/* Both: a number of bytes, -EAGAIN or another -errno; reading 0: the peer's end. */
static ssize_t read_some(struct gw_tcp_lane *lane, void *to, size_t n_bytes, unsigned *eventsp)
{
    if (lane->ssl)
        return gw_tls_read(lane, to, n_bytes, eventsp);
    return judge(lane, recv(lane->fd, to, n_bytes, MSG_DONTWAIT), "receive", GW_IO_READ, eventsp);
}

static ssize_t write_some(struct gw_tcp_lane *lane, const void *from, size_t n, unsigned *eventsp)
{
    if (lane->ssl)
        return gw_tls_write(lane, from, n, eventsp);
    return judge(lane, send(lane->fd, from, n, MSG_DONTWAIT | MSG_NOSIGNAL), "send", GW_IO_WRITE,
                 eventsp);
}

/* --- until it is open: each 0 to go on at once, -EAGAIN to wait, or another -errno -------------
 */

/* Sets the step that follows, with so many bytes of the buffer to read or write in it. */
static int go(struct gw_tcp_lane *lane, enum gw_tcp_step step, size_t n_buffer)
{
    lane->step = step;
    lane->n_buffer = n_buffer;
    lane->at_buffer = 0;
    return 0;
}

static int begin_hello(struct gw_tcp_lane *lane)
{
    if (lane->server)
        return go(lane, GW_TCP_HELLO_IN, GW_HELLO_BYTES);
    gw_hello_encode(&lane->hello, lane->buffer);
    return go(lane, GW_TCP_HELLO_OUT, GW_HELLO_BYTES);
}

/* The socket is connected. */
static int begin(struct gw_tcp_lane *lane)
{
    int r;

    if (!lane->tcp->ctx)
        return begin_hello(lane);
    r = gw_tls_start(lane);
    return r < 0 ? r : go(lane, GW_TCP_HANDSHAKING, 0);
}

static int step_connecting(struct gw_tcp_lane *lane)
{
    struct sockaddr_storage peer;
    socklen_t bytes = sizeof peer;
    int sys = 0;
    socklen_t sys_bytes = sizeof sys;

    getsockopt(lane->fd, SOL_SOCKET, SO_ERROR, &sys, &sys_bytes);
    if (sys)
        return gw_tcp_fail(lane, GW_E_PEER, sys, "connect");
    if (getpeername(lane->fd, (struct sockaddr *)&peer, &bytes) == 0)
        return begin(lane);
    lane->opening_events = GW_IO_WRITE;
    return -EAGAIN;
}

static int step_handshaking(struct gw_tcp_lane *lane)
{
    int r = gw_tls_handshake(lane, &lane->opening_events);

    return r < 0 ? r : begin_hello(lane);
}

static int write_buffer(struct gw_tcp_lane *lane)
{
    while (lane->at_buffer < lane->n_buffer) {
        ssize_t r = write_some(lane, lane->buffer + lane->at_buffer,
                               lane->n_buffer - lane->at_buffer, &lane->opening_events);

        if (r < 0)
            return (int)r;
        lane->at_buffer += (size_t)r;
    }
    return 0;
}

/* Never more than belongs to it: what follows is the first transfer's. */
static int read_buffer(struct gw_tcp_lane *lane)
{
    while (lane->at_buffer < lane->n_buffer) {
        ssize_t r = read_some(lane, lane->buffer + lane->at_buffer,
                              lane->n_buffer - lane->at_buffer, &lane->opening_events);

        if (r < 0)
            return (int)r;
        if (r == 0)
            return gw_tcp_fail(lane, GW_E_PEER, ECONNRESET, "closed before it was open");
        lane->at_buffer += (size_t)r;
    }
    return 0;
}

static int step_hello_out(struct gw_tcp_lane *lane)
{
    int r = write_buffer(lane);

    return r < 0 ? r : go(lane, GW_TCP_ANSWER_IN, GW_HELLO_ANSWER_BYTES);
}

static int step_answer_in(struct gw_tcp_lane *lane)
{
    int r = read_buffer(lane);

    if (r < 0)
        return r;
    if (gw_hello_decode_answer(lane->buffer, &lane->error) == 0)
        return go(lane, GW_TCP_OPEN, 0);
    gw_error_prefix(&lane->error, "lane %u to %s", lane->hello.lane, lane->address);
    r = lane->error.code == GW_E_REFUSED ? -ECONNREFUSED : -EPROTO;
    die(lane, r);
    return r;
}

static int step_hello_in(struct gw_tcp_lane *lane)
{
    int r = read_buffer(lane);

    if (r < 0)
        return r;
    if (gw_hello_decode(lane->buffer, &lane->hello, &lane->error) == 0)
        return go(lane, GW_TCP_JUDGING, 0);
    gw_error_prefix(&lane->error, "from %s", lane->address);
    die(lane, -EPROTO);
    return -EPROTO;
}

static int step_judging(struct gw_tcp_lane *lane)
{
    lane->opening_events = 0;
    return -EAGAIN;
}

static int step_answer_out(struct gw_tcp_lane *lane)
{
    int r = write_buffer(lane);

    if (r < 0)
        return r;
    if (lane->buffer[5] == GW_HELLO_WELCOME)
        return go(lane, GW_TCP_OPEN, 0);
    die(lane, -ECONNREFUSED);
    return -ECONNREFUSED;
}

static int (*const steps[])(struct gw_tcp_lane *lane) = {
    [GW_TCP_CONNECTING] = step_connecting, [GW_TCP_HANDSHAKING] = step_handshaking,
    [GW_TCP_HELLO_OUT] = step_hello_out,   [GW_TCP_ANSWER_IN] = step_answer_in,
    [GW_TCP_HELLO_IN] = step_hello_in,     [GW_TCP_JUDGING] = step_judging,
    [GW_TCP_ANSWER_OUT] = step_answer_out,
};

static void open_up(struct gw_tcp_lane *lane, uint64_t now_ns)
{
    int r = 0;

    if (lane->deadline_ns == 0)
        lane->deadline_ns = now_ns + lane->tcp->connect_ms * GW_NS_PER_MS;
    while (r == 0 && lane->step < GW_TCP_OPEN)
        r = steps[lane->step](lane);
    if (lane->step < GW_TCP_OPEN && now_ns >= lane->deadline_ns)
        gw_tcp_fail(lane, GW_E_TIMEOUT, ETIMEDOUT, "it did not open in time");
}

void gw_tcp_lane_answer(struct gw_tcp_lane *lane, enum gw_hello_verdict verdict)
{
    gw_hello_encode_answer(verdict, lane->buffer);
    go(lane, GW_TCP_ANSWER_OUT, GW_HELLO_ANSWER_BYTES);
}

/* --- open: sending --------------------------------------------------------------------------- */

static ssize_t send_plain(struct gw_tcp_lane *lane, size_t max_bytes)
{
    struct iovec iov[GW_TRANSFER_IOV_MAX];
    struct msghdr msg = {.msg_iov = iov};
    unsigned events;
    size_t n_bytes;
    ssize_t r;

    msg.msg_iovlen =
        gw_queue_slice(&lane->queue, GW_SEND, iov, GW_TRANSFER_IOV_MAX, max_bytes, &n_bytes);
    r = sendmsg(lane->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    return judge(lane, r, "send", GW_IO_WRITE, &events);
}

/* Chooses the next record: one piece as it lies there, or several put together. */
static int next_record(struct gw_tcp_lane *lane)
{
    struct iovec iov[GW_TRANSFER_IOV_MAX];
    unsigned n = gw_queue_slice(&lane->queue, GW_SEND, iov, GW_TRANSFER_IOV_MAX, RECORD_BYTES,
                                &lane->n_record);
    size_t at = 0;

    if (n == 1) {
        lane->record = iov[0].iov_base;
        return 0;
    }
    if (!lane->stage)
        lane->stage = malloc(RECORD_BYTES);
    if (!lane->stage)
        return gw_tcp_fail(lane, GW_E_SYSTEM, ENOMEM, "send");
    for (unsigned i = 0; i < n; at += iov[i++].iov_len)
        memcpy(lane->stage + at, iov[i].iov_base, iov[i].iov_len);
    lane->record = lane->stage;
    return 0;
}

static ssize_t send_tls(struct gw_tcp_lane *lane)
{
    unsigned events;
    ssize_t r;

    if (!lane->record && next_record(lane) < 0)
        return -ENOMEM;
    r = gw_tls_write(lane, lane->record, lane->n_record, &events);
    if (r > 0)
        lane->record = NULL;
    return r;
}

static void send_end(struct gw_tcp_lane *lane)
{
    unsigned events;

    if (lane->ssl && gw_tls_finish(lane, &events) < 0)
        return;
    /* Under TLS too: the goodbye is the end, and the kernel need not wait for more. */
    if (shutdown(lane->fd, SHUT_WR) < 0 && errno != ENOTCONN)
        gw_tcp_fail(lane, GW_E_PEER, errno, "finish");
    else
        lane->finish_sent = true;
}

static void push(struct gw_tcp_lane *lane)
{
    size_t n_moved = 0;

    while (n_moved < TURN_BYTES && gw_queue_first(&lane->queue, GW_SEND)) {
        ssize_t r = lane->ssl ? send_tls(lane) : send_plain(lane, TURN_BYTES - n_moved);

        if (r <= 0)
            return;
        gw_queue_moved(&lane->queue, GW_SEND, (size_t)r);
        n_moved += (size_t)r;
    }
    if (lane->queue.no_more_sends && !gw_queue_first(&lane->queue, GW_SEND) && !lane->finish_sent)
        send_end(lane);
}

/* --- open: receiving ------------------------------------------------------------------------- */

static ssize_t receive_plain(struct gw_tcp_lane *lane, unsigned *eventsp)
{
    struct iovec iov[GW_TRANSFER_IOV_MAX];
    struct msghdr msg = {.msg_iov = iov};
    size_t n_bytes;
    ssize_t r;

    msg.msg_iovlen = gw_transfer_slice(gw_queue_first(&lane->queue, GW_RECEIVE), iov,
                                       GW_TRANSFER_IOV_MAX, TURN_BYTES, &n_bytes);
    r = judge(lane, recvmsg(lane->fd, &msg, MSG_DONTWAIT), "receive", GW_IO_READ, eventsp);
    lane->dry = r >= 0 && (size_t)r < n_bytes; /* saves asking again */
    return r;
}

static ssize_t receive_tls(struct gw_tcp_lane *lane, unsigned *eventsp)
{
    struct iovec iov;
    size_t n_bytes;

    gw_transfer_slice(gw_queue_first(&lane->queue, GW_RECEIVE), &iov, 1, SIZE_MAX, &n_bytes);
    return gw_tls_read(lane, iov.iov_base, iov.iov_len, eventsp);
}

static void pull(struct gw_tcp_lane *lane)
{
    size_t n_moved = 0;
    unsigned events;

    lane->dry = lane->read_wants_write = false;
    while (n_moved < TURN_BYTES && !lane->dry && gw_queue_first(&lane->queue, GW_RECEIVE)) {
        ssize_t r = lane->ssl ? receive_tls(lane, &events) : receive_plain(lane, &events);

        if (r == 0)
            gw_queue_end(&lane->queue);
        if (r == -EAGAIN) {
            lane->dry = true;
            lane->read_wants_write = events == GW_IO_WRITE;
        }
        if (r <= 0)
            return;
        gw_queue_moved(&lane->queue, GW_RECEIVE, (size_t)r);
        n_moved += (size_t)r;
    }
}

/* Nobody receives: only look whether the connection is still what it was. */
static void look(struct gw_tcp_lane *lane)
{
    int sys = 0;
    socklen_t bytes = sizeof sys;
    char byte;

    getsockopt(lane->fd, SOL_SOCKET, SO_ERROR, &sys, &bytes);
    if (sys)
        gw_tcp_fail(lane, GW_E_PEER, sys, "the connection broke");
    else if (!lane->ssl && recv(lane->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        gw_queue_end(&lane->queue);
}

/* --- operations ------------------------------------------------------------------------------ */

static void lane_notify(struct gw_lane *base, unsigned events, uint64_t now_ns)
{
    struct gw_tcp_lane *lane = lane_of(base);

    if (lane->step < GW_TCP_OPEN) {
        open_up(lane, now_ns);
        events = GW_IO_READ | GW_IO_WRITE;
    }
    if (lane->step == GW_TCP_OPEN && events & GW_IO_WRITE)
        push(lane);
    if (lane->step == GW_TCP_OPEN && !lane->queue.peer_finished) {
        if (!gw_queue_first(&lane->queue, GW_RECEIVE)) {
            if (events & GW_IO_READ)
                look(lane);
        } else if (events & GW_IO_READ || lane->read_wants_write || gw_tls_has_pending(lane)) {
            pull(lane);
        }
    }
    if (lane->step == GW_TCP_OPEN && lane->queue.peer_finished && lane->finish_sent)
        lane->step = GW_TCP_ENDED;
}

static void want_open(struct gw_tcp_lane *lane, struct gw_want *want)
{
    if (gw_queue_first(&lane->queue, GW_SEND) ||
        (lane->queue.no_more_sends && !lane->finish_sent) || lane->read_wants_write)
        want->events |= GW_IO_WRITE;
    if (!gw_queue_first(&lane->queue, GW_RECEIVE))
        return;
    want->events |= GW_IO_READ;
    if (!lane->dry && gw_tls_has_pending(lane))
        want->at_ns = 0; /* the socket does not know of it */
}

static void lane_want(struct gw_lane *base, struct gw_want *want)
{
    struct gw_tcp_lane *lane = lane_of(base);

    *want = (struct gw_want){.fd = lane->fd, .at_ns = GW_NEVER};
    if (lane->step > GW_TCP_OPEN) {
        want->fd = -1;
    } else if (lane->step == GW_TCP_OPEN) {
        want_open(lane, want);
    } else {
        want->events = lane->opening_events;
        want->at_ns = lane->deadline_ns; /* 0 before the first notify() */
    }
}

static int lane_send(struct gw_lane *lane, struct gw_transfer *transfer)
{
    return gw_queue_submit(&lane_of(lane)->queue, transfer, GW_SEND);
}

static int lane_receive(struct gw_lane *lane, struct gw_transfer *transfer)
{
    return gw_queue_submit(&lane_of(lane)->queue, transfer, GW_RECEIVE);
}

static struct gw_transfer *lane_done(struct gw_lane *lane)
{
    return gw_queue_done(&lane_of(lane)->queue);
}

/* Whether OpenSSL holds bytes of a send that count as not moved yet. */
static bool in_record(const struct gw_tcp_lane *lane, const struct gw_transfer *transfer)
{
    const struct gw_transfer *each;
    size_t before = 0;

    if (!lane->record || transfer->direction != GW_SEND)
        return false;
    TAILQ_FOREACH (each, &lane->queue.waiting[GW_SEND], link) {
        if (each == transfer)
            return before < lane->n_record;
        before += each->total - each->n_bytes;
    }
    return false;
}

static int lane_cancel(struct gw_lane *base, struct gw_transfer *transfer)
{
    struct gw_tcp_lane *lane = lane_of(base);

    return in_record(lane, transfer) ? -EBUSY : gw_queue_cancel(&lane->queue, transfer);
}

static void lane_finish(struct gw_lane *lane)
{
    lane_of(lane)->queue.no_more_sends = true;
}

static void lane_abort(struct gw_lane *base)
{
    struct gw_tcp_lane *lane = lane_of(base);

    if (lane->step < GW_TCP_ENDED)
        gw_tcp_fail(lane, GW_E_CANCELLED, ECANCELED, "aborted");
}

static enum gw_lane_state state_of(const struct gw_tcp_lane *lane)
{
    if (lane->step < GW_TCP_OPEN)
        return GW_LANE_OPENING;
    return (enum gw_lane_state)(lane->step - GW_TCP_OPEN + GW_LANE_OPEN);
}

/* What the kernel knows; see tcp(7) and struct tcp_info in linux/tcp.h. */
static void ask_kernel(const struct gw_tcp_lane *lane, struct gw_lane_info *info)
{
    struct tcp_info tcp = {0};
    socklen_t bytes = sizeof tcp;
    int unacked;

    if (ioctl(lane->fd, SIOCOUTQ, &unacked) == 0)
        info->unacked_bytes = (uint64_t)unacked;
    if (getsockopt(lane->fd, IPPROTO_TCP, TCP_INFO, &tcp, &bytes) < 0)
        return;
    info->unsent_bytes = tcp.tcpi_notsent_bytes;
    info->delivery_rate_bytes_s = tcp.tcpi_delivery_rate;
    info->rtt_ns = tcp.tcpi_rtt * GW_NS_PER_US;
    info->min_rtt_ns = tcp.tcpi_min_rtt * GW_NS_PER_US;
    info->retransmits = tcp.tcpi_total_retrans;
    info->busy_ns = tcp.tcpi_busy_time * GW_NS_PER_US;
    info->receiver_limited_ns = tcp.tcpi_rwnd_limited * GW_NS_PER_US;
}

static void lane_info(struct gw_lane *base, struct gw_lane_info *info)
{
    const struct gw_tcp_lane *lane = lane_of(base);

    *info = (struct gw_lane_info){
        .state = state_of(lane),
        .hello = lane->hello,
        .tls = gw_tls_kind(lane),
        .sent_bytes = lane->queue.n_moved_bytes[GW_SEND],
        .received_bytes = lane->queue.n_moved_bytes[GW_RECEIVE],
        .queued_bytes = lane->queue.n_queued_bytes[GW_SEND],
    };
    memcpy(info->peer, lane->peer, sizeof info->peer);
    if (lane->step == GW_TCP_OPEN)
        ask_kernel(lane, info);
}

static const struct gw_error *lane_error(const struct gw_lane *base)
{
    const struct gw_tcp_lane *lane = lane_of(base);

    return lane->step == GW_TCP_FAILED ? &lane->error : NULL;
}

static unsigned lane_caps(const struct gw_lane *lane)
{
    return lane_of(lane)->ssl ? GW_LANE_TRUE_END : 0;
}

static void lane_free(struct gw_lane *base)
{
    struct gw_tcp_lane *lane = lane_of(base);

    if (lane->step <= GW_TCP_OPEN)
        reset(lane);
    gw_tls_free(lane);
    close(lane->fd);
    free(lane);
}

static const struct gw_lane_ops lane_ops = {
    .name = "tcp",
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

struct gw_tcp_lane *gw_tcp_lane_new(struct gw_tcp *tcp, int fd, const struct gw_tcp_address *peer)
{
    struct gw_tcp_lane *lane = calloc(1, sizeof *lane);

    if (!lane)
        return NULL;
    lane->base.ops = &lane_ops;
    lane->tcp = tcp;
    lane->fd = fd;
    lane->opening_events = GW_IO_WRITE;
    gw_tcp_format_address(lane->address, sizeof lane->address, peer);
    gw_queue_init(&lane->queue);
    return lane;
}
