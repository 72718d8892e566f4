/* SPDX-License-Identifier: Apache-2.0 */
/* The source's threads: each takes one connection of QEMU, learns which channel it is, connects its
 * lane, and carries it to its end. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "shell/carrier_private.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define REVIEW_NS (50 * GW_NS_PER_MS)

static int accept_qemu(struct gw_carrier_lane *l, struct gw_error *error)
{
    for (;;) {
        l->qemu = accept4(l->carrier->unix_listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (l->qemu >= 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            return gw_error_set_sys(error, errno, "accept a connection of QEMU");
        if (gw_carrier_wait(l, l->carrier->unix_listener, POLLIN, error) < 0)
            return -1;
    }
}

/* Reads up to the next piece that is no payload. 0; 1 at the end of the connection; -1. */
static int read_piece(struct gw_carrier_lane *l, struct gw_stream *stream, enum gw_piece *piecep,
                      struct gw_error *error)
{
    struct gw_stream_want want;
    ssize_t n;

    do {
        gw_stream_want(stream, &want);
        n = gw_carrier_read(l, want.into, want.n_bytes, error);
        if (n < 0)
            return -1;
        if (n == 0)
            return gw_stream_end(stream, error) < 0 ? -1 : 1;
        if (gw_stream_took(stream, (size_t)n, piecep, error) < 0)
            return -1;
    } while (*piecep == GW_PIECE_NONE);
    return 0;
}

static int read_payload(struct gw_carrier_lane *l, struct gw_stream *stream, uint8_t *to,
                        size_t n_bytes, struct gw_error *error)
{
    enum gw_piece piece;

    while (n_bytes) {
        ssize_t n = gw_carrier_read(l, to, n_bytes, error);

        if (n < 0)
            return -1;
        if (n == 0)
            return gw_stream_end(stream, error);
        if (gw_stream_took(stream, (size_t)n, &piece, error) < 0)
            return -1;
        to += n;
        n_bytes -= (size_t)n;
    }
    return 0;
}

/* --- how pages are sent ---------------------------------------------------------------------- */

/* All under the lock. */
static uint64_t lane_rate(struct gw_carrier *c, uint64_t now_ns)
{
    struct gw_rate_counts sum = {0};

    for (unsigned i = 0; i < c->n_lanes; i++) {
        const struct gw_rate_counts *counts = &c->lane[i].counts.rate;

        sum.sent_bytes += counts->sent_bytes;
        sum.blocked_ns += counts->blocked_ns;
        sum.starved_ns += counts->starved_ns;
    }
    return gw_rate_sample(&c->rate, &sum, c->n_channels, now_ns);
}

static void review(struct gw_carrier *c, uint64_t now_ns)
{
    struct gw_pace_decision decision;
    struct gw_pace_inputs inputs = {
        .n_workers = c->n_channels,
        .last_round = atomic_load(&c->last_round),
    };
    uint64_t n_pages = 0;

    for (unsigned i = 0; i < c->n_lanes; i++)
        n_pages += c->lane[i].counts.n_whole + c->lane[i].counts.n_pieces +
                   c->lane[i].counts.n_zero + c->lane[i].counts.n_same;
    c->reviewed_ns = now_ns;
    inputs.lane_bytes_per_s = lane_rate(c, now_ns);
    inputs.first_round = n_pages << GW_PAGE_SHIFT < gw_sender_ram_bytes(&c->sender_ram);
    if (gw_pace_review(&c->pace, &inputs, &decision) != 1)
        return;
    if (c->n_decisions < GW_CARRIER_DECISIONS_MAX)
        c->decision[c->n_decisions++] = decision;
    else
        c->n_decisions_lost++;
}

static void take_sample(struct gw_carrier_lane *l, const struct gw_pace_sample *sample)
{
    struct gw_carrier *c = l->carrier;
    struct gw_lane_info info;
    uint64_t now_ns = gw_clock_ns();

    l->lane->ops->info(l->lane, &info);
    pthread_mutex_lock(&c->lock);
    l->counts.rate = (struct gw_rate_counts){info.sent_bytes, l->blocked_ns, l->starved_ns};
    c->encryption = info.tls;
    gw_pace_sample(&c->pace, sample);
    if (now_ns - c->reviewed_ns >= REVIEW_NS)
        review(c, now_ns);
    pthread_mutex_unlock(&c->lock);
}

static void next_setting(struct gw_carrier *c, struct gw_batch_setting *setting)
{
    pthread_mutex_lock(&c->lock);
    gw_pace_next(&c->pace, setting);
    pthread_mutex_unlock(&c->lock);
}

/* Without what it waited for. By the wall's clock: where others use the processors, too, the
 * workers are slower by as much. */
static uint64_t working_ns(const struct gw_carrier_lane *l)
{
    return gw_clock_ns() - l->blocked_ns - l->starved_ns;
}

static void begin_work(struct gw_carrier *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->n_working++ == 0)
        c->working_since_ns = gw_clock_ns();
    pthread_mutex_unlock(&c->lock);
}

static void end_work(struct gw_carrier *c)
{
    pthread_mutex_lock(&c->lock);
    if (--c->n_working == 0)
        c->worked_ns += gw_clock_ns() - c->working_since_ns;
    pthread_mutex_unlock(&c->lock);
}

static int send_pages(struct gw_carrier_lane *l, struct gw_stream *stream, struct gw_error *error)
{
    const struct gw_packet *packet = &stream->packet;
    struct gw_pace_sample sample;
    struct gw_carrier_out *out;
    uint64_t began_ns = working_ns(l);
    size_t n_frame;

    if (read_payload(l, stream, l->payload, packet->n_payload, error) < 0)
        return -1;
    out = gw_carrier_get(l, error);
    if (!out)
        return -1;
    next_setting(l->carrier, &sample.setting);
    if (gw_sender_pages(&l->sender, packet, l->payload, &sample.setting, out->bytes, &n_frame,
                        &sample.figures, error) < 0)
        return -1;
    gw_carrier_count(l, &sample.figures, packet->n_payload, 0);
    if (gw_carrier_send(l, out, n_frame, error) < 0)
        return -1;
    sample.work_ns = working_ns(l) - began_ns;
    if (packet->n_normal + packet->n_zero)
        take_sample(l, &sample);
    return 0;
}

/* As QEMU sent it. */
static int pass_packet(struct gw_carrier_lane *l, struct gw_stream *stream, struct gw_error *error)
{
    uint64_t n_left = stream->packet.n_payload;

    gw_sender_passes(&l->sender, &stream->packet);
    gw_carrier_count(l, NULL, 0, n_left);
    if (gw_carrier_send_frame(l, GW_FRAME_PACKET, stream->head, stream->n_head, error) < 0)
        return -1;
    while (n_left) {
        size_t n = n_left < GW_FRAME_BYTES_MAX ? (size_t)n_left : GW_FRAME_BYTES_MAX;
        struct gw_carrier_out *out = gw_carrier_get(l, error);

        if (!out || read_payload(l, stream, out->bytes + GW_FRAME_HEADER_BYTES, n, error) < 0 ||
            gw_carrier_send(l, out, gw_frame_put(out->bytes, GW_FRAME_BYTES, l->number, n), error) <
                0)
            return -1;
        n_left -= n;
    }
    return 0;
}

/* The destination has applied what was sent. That says nothing of the lane's rate. */
static int await_synced(struct gw_carrier_lane *l, struct gw_error *error)
{
    uint64_t blocked_ns = l->blocked_ns;
    struct gw_frame frame;

    if (gw_carrier_next_frame(l, &frame, error) < 0)
        return -1;
    if (frame.kind != GW_FRAME_SYNCED)
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u: a frame of kind %u in answer to a SYNC",
                            l->number, frame.kind);
    l->starved_ns += l->blocked_ns - blocked_ns;
    l->blocked_ns = blocked_ns;
    return 0;
}

/* What one worker did to a page happens before what the next one does to it: flow/history.h. */
static int meet(struct gw_carrier_lane *l, struct gw_error *error)
{
    uint64_t began_ns;

    if (gw_carrier_flush(l, error) < 0 || await_synced(l, error) < 0)
        return -1;
    began_ns = gw_clock_ns();
    if (gw_barrier_arrive(&l->carrier->barrier) != 0)
        return gw_error_set(error, GW_E_QEMU, "QEMU closed another channel before its SYNC");
    l->starved_ns += gw_clock_ns() - began_ns;
    return 0;
}

/* Beside SYNCED a lane of a multifd channel carries back the answer to END. */
static int end_channel(struct gw_carrier_lane *l, struct gw_error *error)
{
    struct gw_frame frame;

    if (gw_carrier_send_frame(l, GW_FRAME_END, NULL, 0, error) < 0 ||
        gw_carrier_next_frame(l, &frame, error) < 0)
        return -1;
    if (frame.kind != GW_FRAME_END)
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u: a frame of kind %u in answer to END",
                            l->number, frame.kind);
    return gw_carrier_finish(l, error);
}

static int carry_channel(struct gw_carrier_lane *l, struct gw_stream *stream,
                         struct gw_error *error)
{
    enum gw_piece piece;
    bool has_pages;
    int r;

    if (gw_carrier_send_frame(l, GW_FRAME_BYTES, stream->head, stream->n_head, error) < 0)
        return -1;
    while ((r = read_piece(l, stream, &piece, error)) == 0) {
        has_pages = stream->packet.n_payload > 0; /* a SYNC alone says nothing of the rate */
        if (has_pages)
            begin_work(l->carrier);
        r = gw_sender_takes(&l->sender, &stream->packet) ? send_pages(l, stream, error)
                                                         : pass_packet(l, stream, error);
        if (has_pages)
            end_work(l->carrier);
        if (r < 0 || (stream->packet.sync && meet(l, error) < 0))
            return -1;
    }
    gw_barrier_abort(&l->carrier->barrier); /* this channel will not come again */
    return r < 0 ? -1 : end_channel(l, error);
}

/* --- one connection -------------------------------------------------------------------------- */

static int connect_lane(struct gw_carrier_lane *l, const struct gw_stream *stream,
                        struct gw_error *error)
{
    struct gw_carrier *c = l->carrier;
    struct gw_lane_hello hello = c->hello;

    l->number = stream->channel == GW_CHANNEL_MAIN ? c->n_channels : stream->id;
    if (l->number > c->n_channels || !gw_carrier_claim(c, l->number))
        return gw_error_set(error, GW_E_QEMU, "QEMU has opened a channel %u of %u too many",
                            l->number, c->n_channels);
    hello.lane = (uint16_t)l->number;
    l->sender.lane = l->number;
    return c->transport->ops->connect(c->transport, &hello, c->peer, &l->lane, error);
}

static int carry(struct gw_carrier_lane *l, struct gw_error *error)
{
    struct gw_stream stream;
    enum gw_piece piece;
    int r;

    gw_stream_init(&stream, GW_PAGE_BYTES);
    if (accept_qemu(l, error) < 0)
        return -1;
    r = read_piece(l, &stream, &piece, error);
    if (r > 0)
        return gw_error_set(error, GW_E_QEMU, "QEMU closed a connection before it said what it is");
    if (r < 0 || connect_lane(l, &stream, error) < 0)
        return -1;
    if (stream.channel != GW_CHANNEL_MAIN)
        return carry_channel(l, &stream, error);
    if (gw_carrier_send_frame(l, GW_FRAME_BYTES, stream.head, stream.n_head, error) < 0)
        return -1;
    return gw_carrier_run_main(l, error);
}

/* The carrier ends, but QEMU may not find a connection broken: see shell/stop_copy.h. It waits
 * until its migration is being stopped, then it can send as much as it likes. */
static void keep_qemu(struct gw_carrier_lane *l)
{
    struct gw_carrier *c = l->carrier;
    struct pollfd polls[2] = {{.fd = c->let_go, .events = POLLIN},
                              {.fd = c->drain, .events = POLLIN}};
    char nothing[16384];
    ssize_t n;

    do
        poll(polls, 2, -1); /* no signal comes here */
    while (!polls[0].revents && !polls[1].revents);
    polls[1].fd = l->qemu;
    do {
        poll(polls, 2, -1);
        n = recv(l->qemu, nothing, sizeof nothing, MSG_DONTWAIT);
    } while (!polls[0].revents && (n > 0 || (n < 0 && errno == EAGAIN)));
}

void *gw_carrier_source_thread(void *arg)
{
    struct gw_carrier_lane *l = arg;
    struct gw_error error;
    int r;

    l->payload = malloc((size_t)GW_BATCH_MAX_PAGES * GW_PAGE_BYTES);
    if (!l->payload || gw_sender_init(&l->sender, &l->carrier->sender_ram, 0) < 0)
        r = gw_error_set_sys(&error, ENOMEM, "take memory for a lane");
    else
        r = gw_carrier_lane_init(l, &error) < 0 || carry(l, &error) < 0 ? -1 : 0;
    if (r < 0) {
        gw_carrier_fail(l->carrier, &error);
        gw_lane_free(gw_steal_ptr(&l->lane)); /* the other node is not to wait */
        if (l->qemu >= 0)
            keep_qemu(l);
    }
    gw_carrier_lane_fini(l);
    return NULL;
}
