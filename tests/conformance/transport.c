/* SPDX-License-Identifier: Apache-2.0 */
#include "transport.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "util/cleanup.h"
#include "util/clock.h"

/* --- the two sides --------------------------------------------------------------------------- */

uint64_t sides_clock_ns(void)
{
    return gw_clock_ns();
}

static uint64_t now_of(const struct sides *sides)
{
    return sides->fake_ns ? sides->fake_ns : gw_clock_ns();
}

enum gw_lane_state lane_state(struct gw_lane *lane)
{
    struct gw_lane_info info;

    lane->ops->info(lane, &info);
    return info.state;
}

static void open_side(struct sides *sides, int side, const char *uri)
{
    struct gw_error error = {0};

    if (gw_transport_open(uri, &sides->envs[side], &sides->transports[side], &error) < 0)
        fail_msg("%s: %s", uri, error.msg);
}

void sides_open(struct sides *sides, const struct transport_case *rules, unsigned n_lanes)
{
    struct gw_error error = {0};
    char uri[256];

    sides->rules = rules;
    sides->n_lanes = n_lanes;
    open_side(sides, 1, rules->listen_uri);
    if (sides->transports[1]->ops->listen(sides->transports[1], &sides->listener, &error) < 0)
        fail_msg("%s: %s", rules->listen_uri, error.msg);
    sides->expected.n_lanes = (uint16_t)n_lanes;
    memset(sides->expected.migration, 0x11, sizeof sides->expected.migration);
    memset(sides->expected.secret, 0x22, sizeof sides->expected.secret);
    strcpy(sides->expected.peer, rules->tls ? "n1" : "");
    assert_int_equal(sides->listener->ops->expect(sides->listener, &sides->expected), 0);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(uri, sizeof uri, rules->connect_uri, sides->listener->ops->port(sides->listener));
#pragma GCC diagnostic pop
    open_side(sides, 0, uri);
}

struct gw_lane_hello sides_hello(const struct sides *sides, unsigned lane)
{
    struct gw_lane_hello hello = {.lane = (uint16_t)lane, .n_lanes = (uint16_t)sides->n_lanes};

    memcpy(hello.migration, sides->expected.migration, sizeof hello.migration);
    memcpy(hello.secret, sides->expected.secret, sizeof hello.secret);
    return hello;
}

struct gw_lane *sides_connect(struct sides *sides, const struct gw_lane_hello *hello)
{
    struct gw_transport *transport = sides->transports[0];
    struct gw_error error = {0};
    struct gw_lane *lane = NULL;

    if (transport->ops->connect(transport, hello, sides->rules->tls ? "n2" : "", &lane, &error) < 0)
        assert_true(error.code != GW_OK && error.msg[0]);
    return lane;
}

static bool all_open(struct sides *sides)
{
    for (unsigned i = 0; i < sides->n_lanes; i++) {
        const struct gw_error *error = sides->lanes[0][i]->ops->error(sides->lanes[0][i]);

        if (error)
            fail_msg("%s: %s", sides->rules->name, error->msg);
        if (!sides->lanes[1][i] || lane_state(sides->lanes[0][i]) != GW_LANE_OPEN)
            return false;
    }
    return true;
}

void sides_up(struct sides *sides, const struct transport_case *rules, unsigned n_lanes)
{
    sides_open(sides, rules, n_lanes);
    for (unsigned i = 0; i < n_lanes; i++) {
        struct gw_lane_hello hello = sides_hello(sides, i);

        sides->lanes[0][i] = sides_connect(sides, &hello);
        assert_non_null(sides->lanes[0][i]);
    }
    sides_until(sides, all_open(sides));
}

static void collect(struct sides *sides, struct gw_lane *lane)
{
    struct gw_transfer *transfer;

    while ((transfer = lane->ops->done(lane))) {
        struct box *box = gw_container_of(transfer, struct box, transfer);

        assert_int_equal(box->n_done++, 0);
        sides->n_done++;
    }
}

static void accept_all(struct sides *sides)
{
    struct gw_lane_info info;
    struct gw_lane *lane;

    while ((lane = sides->listener->ops->accept(sides->listener))) {
        lane->ops->info(lane, &info);
        assert_int_equal(info.state, GW_LANE_OPEN);
        assert_true(info.hello.lane < sides->n_lanes);
        assert_null(sides->lanes[1][info.hello.lane]);
        sides->lanes[1][info.hello.lane] = lane;
    }
}

/* One thing to poll: a lane or the listener. */
struct polled {
    struct gw_lane *lane;
    struct gw_want want;
};

static void look_at(struct polled *polled, struct pollfd *fd, uint64_t now_ns, int *wait_ms)
{
    const struct gw_want *want = &polled->want;
    int ms;

    *fd = (struct pollfd){.fd = want->fd,
                          .events = (short)((want->events & GW_IO_READ ? POLLIN : 0) |
                                            (want->events & GW_IO_WRITE ? POLLOUT : 0))};
    if (want->at_ns == GW_NEVER)
        return;
    ms = want->at_ns <= now_ns ? 0 : (int)((want->at_ns - now_ns) / GW_NS_PER_MS) + 1;
    if (ms < *wait_ms)
        *wait_ms = ms;
}

static unsigned seen(const struct pollfd *fd)
{
    return (fd->revents & (POLLIN | POLLERR | POLLHUP) ? (unsigned)GW_IO_READ : 0) |
           (fd->revents & (POLLOUT | POLLERR | POLLHUP) ? (unsigned)GW_IO_WRITE : 0);
}

void sides_turn(struct sides *sides, unsigned max_ms)
{
    struct polled polled[2 * SIDE_LANES + 1];
    struct pollfd fds[2 * SIDE_LANES + 1];
    uint64_t now_ns = now_of(sides);
    int wait_ms = (int)max_ms;
    unsigned n = 0;

    for (int side = 0; side < 2; side++) {
        for (unsigned i = 0; i < SIDE_LANES; i++) {
            if (!sides->lanes[side][i])
                continue;
            polled[n].lane = sides->lanes[side][i];
            polled[n].lane->ops->want(polled[n].lane, &polled[n].want);
            look_at(&polled[n], &fds[n], now_ns, &wait_ms);
            n++;
        }
    }
    if (sides->listener) {
        polled[n].lane = NULL;
        sides->listener->ops->want(sides->listener, &polled[n].want);
        look_at(&polled[n], &fds[n], now_ns, &wait_ms);
        n++;
    }
    poll(fds, n, sides->fake_ns ? 0 : wait_ms);
    now_ns = now_of(sides);
    for (unsigned i = 0; i < n; i++) {
        struct gw_lane *lane = polled[i].lane;

        if (!fds[i].revents && polled[i].want.at_ns > now_ns)
            continue;
        if (!lane) {
            sides->listener->ops->notify(sides->listener, seen(&fds[i]), now_ns);
            accept_all(sides);
            continue;
        }
        lane->ops->notify(lane, seen(&fds[i]), now_ns);
        collect(sides, lane);
    }
}

static void box_fill(struct box *box, const void *bytes, size_t n_bytes, size_t min_bytes)
{
    *box = (struct box){.iov = {{(void *)(uintptr_t)bytes, n_bytes}}};
    box->transfer.iov = box->iov;
    box->transfer.n_iov = 1;
    box->transfer.min_bytes = min_bytes;
}

/* As a user does it: submit, then let it move. */
static void submitted(struct sides *sides, struct gw_lane *lane, int r, unsigned events)
{
    assert_int_equal(r, 0);
    sides->n_submitted++;
    lane->ops->notify(lane, events, now_of(sides));
    collect(sides, lane);
}

void box_send(struct sides *sides, struct gw_lane *lane, struct box *box, const void *bytes,
              size_t n_bytes)
{
    box_fill(box, bytes, n_bytes, 0);
    submitted(sides, lane, lane->ops->send(lane, &box->transfer), GW_IO_WRITE);
}

void box_receive(struct sides *sides, struct gw_lane *lane, struct box *box, void *bytes,
                 size_t n_bytes, size_t min_bytes)
{
    box_fill(box, bytes, n_bytes, min_bytes);
    submitted(sides, lane, lane->ops->receive(lane, &box->transfer), GW_IO_READ);
}

void sides_down(struct sides *sides)
{
    for (int side = 0; side < 2; side++) {
        for (unsigned i = 0; i < SIDE_LANES; i++) {
            struct gw_lane *lane = sides->lanes[side][i];

            if (lane) {
                lane->ops->abort(lane);
                collect(sides, lane);
            }
            gw_lane_free(lane);
            sides->lanes[side][i] = NULL;
        }
    }
    gw_listener_free(sides->listener);
    sides->listener = NULL;
    for (int side = 0; side < 2; side++) {
        gw_transport_free(sides->transports[side]);
        sides->transports[side] = NULL;
    }
    assert_int_equal(sides->n_done, sides->n_submitted);
}

/* --- the table ------------------------------------------------------------------------------- */

static void opens_and_sorts_lanes(struct sides *sides)
{
    struct gw_lane_info info;

    for (unsigned i = 0; i < 3; i++) {
        for (int side = 0; side < 2; side++) {
            struct gw_lane *lane = sides->lanes[side][i];

            lane->ops->info(lane, &info);
            assert_int_equal(info.hello.lane, i);
            assert_int_equal(info.hello.n_lanes, 3);
            assert_memory_equal(info.hello.migration, sides->expected.migration, 16);
            assert_int_equal(info.tls != GW_LANE_PLAIN, sides->rules->tls != GW_LANE_PLAIN);
            assert_string_equal(info.peer, !sides->rules->tls ? "" : side ? "n1" : "n2");
            assert_int_equal(info.sent_bytes + info.received_bytes + info.queued_bytes, 0);
            assert_null(lane->ops->error(lane));
        }
    }
}

/* The byte at a place of a stream. */
static uint8_t byte_at(uint64_t place, unsigned stream)
{
    return (uint8_t)((place * UINT64_C(0x9e3779b97f4a7c15) + stream * 77u) >> 40);
}

/* One direction of one lane: everything that is sent or expected. */
struct stream {
    struct gw_lane *lane;
    unsigned number;
    bool sends;
    uint64_t at; /* submitted or verified so far */
    uint64_t total;
    struct box box;
    uint8_t *bytes;
    size_t n_bytes;
    bool under_way;
};

enum { PIECE_MAX = 200000 };

/* Cuts the next transfer into pieces, some of them empty. */
static void next_transfer(struct sides *sides, struct stream *stream)
{
    size_t n = (size_t)(rand() % 3 ? rand() % 2000 : rand() % PIECE_MAX) + 1, at = 0;
    struct box *box = &stream->box;

    if (n > stream->total - stream->at)
        n = stream->total - stream->at;
    *box = (struct box){0};
    for (unsigned i = 0; i < 8; i++) {
        size_t here = i == 7 ? n - at : (size_t)rand() % (n - at + 1) * (unsigned)(rand() % 2);

        box->iov[box->transfer.n_iov++] = (struct iovec){stream->bytes + at, here};
        at += here;
    }
    box->transfer.iov = box->iov;
    stream->n_bytes = n;
    stream->under_way = true;
    if (stream->sends) {
        for (size_t i = 0; i < n; i++)
            stream->bytes[i] = byte_at(stream->at + i, stream->number);
        submitted(sides, stream->lane, stream->lane->ops->send(stream->lane, &box->transfer),
                  GW_IO_WRITE);
    } else {
        box->transfer.min_bytes = rand() % 2 ? 0 : (size_t)rand() % n;
        submitted(sides, stream->lane, stream->lane->ops->receive(stream->lane, &box->transfer),
                  GW_IO_READ);
    }
}

static void verify(const struct stream *stream, const struct box *box)
{
    size_t left = box->transfer.n_bytes, at = 0;

    for (unsigned i = 0; i < 8 && left; i++) {
        for (size_t k = 0; k < box->iov[i].iov_len && left; k++, left--, at++)
            if (((uint8_t *)box->iov[i].iov_base)[k] != byte_at(stream->at + at, stream->number))
                fail_msg("stream %u is wrong at %llu", stream->number,
                         (unsigned long long)(stream->at + at));
    }
}

static bool all_moved(struct sides *sides, struct stream *streams, unsigned n)
{
    bool all = true;

    for (unsigned i = 0; i < n; i++) {
        struct stream *stream = &streams[i];

        while (stream->at < stream->total) {
            if (!stream->under_way)
                next_transfer(sides, stream);
            if (!stream->box.n_done)
                break;
            if (stream->box.transfer.result != 0)
                fail_msg("stream %u: result %d", stream->number, stream->box.transfer.result);
            if (stream->sends)
                assert_int_equal(stream->box.transfer.n_bytes, stream->n_bytes);
            else
                verify(stream, &stream->box);
            stream->at += stream->box.transfer.n_bytes;
            stream->under_way = false;
        }
        all = all && stream->at == stream->total;
    }
    return all;
}

/* Random sizes both ways at once on two lanes. */
static void keeps_order_both_ways(struct sides *sides)
{
    struct stream streams[8] = {0};
    struct gw_lane_info info;

    for (unsigned i = 0; i < 8; i++) {
        streams[i] = (struct stream){.lane = sides->lanes[i & 1][i >> 2],
                                     .number = (i >> 2) * 2 + ((i & 1) ^ (i >> 1 & 1)),
                                     .sends = !(i & 2),
                                     .total = sides->rules->volume,
                                     .bytes = malloc(PIECE_MAX)};
        assert_non_null(streams[i].bytes);
    }
    sides_until(sides, all_moved(sides, streams, 8));
    for (unsigned i = 0; i < 8; i++)
        free(streams[i].bytes);
    sides->lanes[0][1]->ops->info(sides->lanes[0][1], &info);
    assert_int_equal(info.sent_bytes, sides->rules->volume);
    assert_int_equal(info.received_bytes, sides->rules->volume);
    assert_int_equal(info.queued_bytes, 0);
}

/* Many small transfers that are queued at once come out as what they were. */
static void queues_transfers(struct sides *sides)
{
    enum { N = 100 };
    struct gw_lane *from = sides->lanes[0][0], *to = sides->lanes[1][0];
    static struct box out[N], in[N];
    uint8_t bytes[N][40], got[N][40] = {{0}};

    for (unsigned i = 0; i < N; i++) {
        memset(bytes[i], (int)i, sizeof bytes[i]);
        box_receive(sides, to, &in[i], got[i], i % 40 + 1, 0);
    }
    for (unsigned i = 0; i < N; i++)
        box_send(sides, from, &out[i], bytes[i], i % 40 + 1);
    sides_until(sides, in[N - 1].n_done);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(out[i].n_done + in[i].n_done, 2);
        assert_int_equal(in[i].transfer.n_bytes, i % 40 + 1);
        assert_memory_equal(bytes[i], got[i], i % 40 + 1);
    }
}

static void completes_with_the_minimum(struct sides *sides)
{
    struct box out, in;
    uint8_t got[100] = {0};

    box_receive(sides, sides->lanes[1][0], &in, got, sizeof got, 1);
    sides_turn(sides, 0);
    assert_int_equal(in.n_done, 0);
    box_send(sides, sides->lanes[0][0], &out, "x", 1);
    sides_until(sides, in.n_done);
    assert_int_equal(in.transfer.n_bytes, 1);
    box_receive(sides, sides->lanes[1][0], &in, got, 10, 3);
    box_send(sides, sides->lanes[0][0], &out, "ab", 2);
    sides_until(sides, out.n_done);
    assert_int_equal(in.n_done, 0);
    box_send(sides, sides->lanes[0][0], &out, "c", 1);
    sides_until(sides, in.n_done);
    assert_int_equal(in.transfer.n_bytes, 3);
    assert_memory_equal(got, "abc", 3);
}

static uint64_t handed_over(struct gw_lane *lane)
{
    struct gw_lane_info info;

    lane->ops->info(lane, &info);
    return info.sent_bytes;
}

/* A reader that stops makes the writer stop; then all goes on. */
static void pushes_back(struct sides *sides)
{
    struct gw_lane *from = sides->lanes[0][0], *to = sides->lanes[1][0];
    size_t n_bytes = sides->rules->bound + sides->rules->bound / 2 + 10;
    uint8_t *bytes = calloc(1, n_bytes), *got = malloc(n_bytes);
    struct box out, in;
    uint64_t before;

    assert_true(bytes && got);
    box_send(sides, from, &out, bytes, n_bytes);
    do {
        before = handed_over(from);
        for (int i = 0; i < 4; i++)
            sides_turn(sides, 50);
    } while (handed_over(from) != before);
    assert_int_equal(out.n_done, 0);
    if (before > sides->rules->bound)
        fail_msg("%llu bytes were taken by nobody", (unsigned long long)before);
    box_receive(sides, to, &in, got, n_bytes, 0);
    sides_until(sides, in.n_done && out.n_done);
    assert_int_equal(in.transfer.result, 0);
    free(bytes);
    free(got);
}

static void closes_by_halves(struct sides *sides)
{
    struct gw_lane *a = sides->lanes[0][0], *b = sides->lanes[1][0];
    struct box out, in, back, late;
    uint8_t got[100];

    box_receive(sides, b, &in, got, sizeof got, 0);
    box_send(sides, a, &out, "farewell", 8);
    a->ops->finish(a);
    a->ops->finish(a);
    assert_int_equal(a->ops->send(a, &out.transfer), -EPIPE);
    sides_until(sides, in.n_done);
    assert_int_equal(in.transfer.result, GW_TRANSFER_END);
    assert_int_equal(in.transfer.n_bytes, 8);
    assert_int_equal(lane_state(b), GW_LANE_OPEN);
    box_receive(sides, b, &late, got, 1, 0);
    assert_int_equal(late.n_done, 1);
    assert_int_equal(late.transfer.result, GW_TRANSFER_END);

    box_receive(sides, a, &in, got, 5, 0);
    box_send(sides, b, &back, "reply", 5);
    sides_until(sides, in.n_done && back.n_done);
    assert_int_equal(in.transfer.result, 0);
    b->ops->finish(b);
    box_receive(sides, a, &in, got, 5, 0);
    sides_until(sides, in.n_done);
    assert_int_equal(in.transfer.result, GW_TRANSFER_END);
    sides_until(sides, lane_state(a) == GW_LANE_ENDED && lane_state(b) == GW_LANE_ENDED);
    assert_null(a->ops->error(a));
}

/* What was handed over before the sender went comes through. */
static void delivers_after_the_sender_has_gone(struct sides *sides)
{
    struct gw_lane *a = sides->lanes[0][0], *b = sides->lanes[1][0];
    struct box out, in, end, other;
    size_t n_bytes = sides->rules->bound < 5000 ? sides->rules->bound : 5000;
    uint8_t bytes[5000], got[5000], none;

    memset(bytes, 7, sizeof bytes);
    b->ops->finish(b);
    box_receive(sides, a, &other, &none, 1, 0);
    box_send(sides, a, &out, bytes, n_bytes);
    a->ops->finish(a);
    sides_until(sides, out.n_done && other.n_done && lane_state(a) == GW_LANE_ENDED);
    gw_lane_free(a);
    sides->lanes[0][0] = NULL;
    box_receive(sides, b, &in, got, n_bytes, 0);
    box_receive(sides, b, &end, &none, 1, 0);
    sides_until(sides, in.n_done && end.n_done);
    assert_int_equal(in.transfer.result, 0);
    assert_memory_equal(bytes, got, n_bytes);
    assert_int_equal(end.transfer.result, GW_TRANSFER_END);
}

static void fails_with_its_peer(struct sides *sides)
{
    struct gw_lane *a = sides->lanes[0][0], *b = sides->lanes[1][0];
    size_t n_bytes = sides->rules->bound * 2;
    uint8_t *bytes = calloc(1, n_bytes), got[8];
    struct box out, queued, in, own, late;

    box_receive(sides, a, &in, got, sizeof got, 0);
    box_receive(sides, b, &own, got, sizeof got, 0);
    b->ops->abort(b);
    collect(sides, b);
    assert_int_equal(own.n_done, 1);
    assert_int_equal(own.transfer.result, -ECANCELED);
    assert_int_equal(lane_state(b), GW_LANE_FAILED);
    assert_int_equal(b->ops->error(b)->code, GW_E_CANCELLED);
    box_send(sides, a, &out, bytes, n_bytes);
    box_send(sides, a, &queued, bytes, 1);
    sides_until(sides, in.n_done && out.n_done && queued.n_done);
    assert_true(in.transfer.result < 0);
    assert_int_equal(out.transfer.result, in.transfer.result);
    assert_int_equal(queued.transfer.result, in.transfer.result);
    assert_int_equal(lane_state(a), GW_LANE_FAILED);
    assert_int_equal(a->ops->error(a)->code, GW_E_PEER);
    assert_true(strlen(a->ops->error(a)->msg) > 0);
    box_receive(sides, a, &late, got, 1, 0);
    assert_int_equal(late.n_done, 1);
    assert_true(late.transfer.result < 0);
    free(bytes);
}

/* A peer that goes is noticed although nothing is under way. */
static void notices_without_a_transfer(struct sides *sides)
{
    gw_lane_free(sides->lanes[1][0]);
    sides->lanes[1][0] = NULL;
    sides_until(sides, lane_state(sides->lanes[0][0]) == GW_LANE_FAILED);
    assert_int_equal(lane_state(sides->lanes[0][1]), GW_LANE_OPEN);
}

static void cancels(struct sides *sides)
{
    struct gw_lane *a = sides->lanes[0][0], *b = sides->lanes[1][0];
    size_t n_bytes = sides->rules->bound * 2 + 10;
    uint8_t *bytes = calloc(1, n_bytes), got[10] = {0}, more[10];
    struct box out, queued, in, second;

    box_receive(sides, b, &in, got, sizeof got, 0);
    box_receive(sides, b, &second, more, sizeof more, 0);
    box_send(sides, a, &out, "abc", 3);
    sides_until(sides, in.transfer.n_bytes == 3 || handed_over(a) == 3);
    for (int i = 0; i < 20; i++) /* until they are there; a wrapper does not say so */
        sides_turn(sides, 1);
    assert_int_equal(b->ops->cancel(b, &second.transfer), 0);
    assert_int_equal(b->ops->cancel(b, &in.transfer), 0);
    collect(sides, b);
    assert_int_equal(in.n_done + second.n_done, 2);
    assert_int_equal(in.transfer.result, -ECANCELED);
    assert_int_equal(second.transfer.result, -ECANCELED);
    assert_int_equal(second.transfer.n_bytes, 0);
    assert_int_equal(b->ops->cancel(b, &in.transfer), -ENOENT);
    if (in.transfer.n_bytes != 3 || memcmp(got, "abc", 3) != 0)
        fail_msg("%s: %zu bytes were kept", sides->rules->name, in.transfer.n_bytes);

    box_send(sides, a, &out, bytes, n_bytes);
    box_send(sides, a, &queued, bytes, 1);
    assert_int_equal(a->ops->cancel(a, &out.transfer), -EBUSY);
    assert_int_equal(a->ops->cancel(a, &queued.transfer), 0);
    collect(sides, a);
    assert_int_equal(queued.transfer.result, -ECANCELED);
    assert_int_equal(out.n_done, 0);
    box_receive(sides, b, &in, bytes, n_bytes, 0);
    sides_until(sides, in.n_done && out.n_done);
    assert_int_equal(in.transfer.result, 0);
    free(bytes);
}

static void refuses_nonsense(struct sides *sides)
{
    struct gw_lane *lane = sides->lanes[0][0];
    struct iovec iov[GW_TRANSFER_IOV_MAX + 1] = {{0}};
    struct gw_transfer transfer = {.iov = iov};
    struct gw_lane_hello hello = sides_hello(sides, 3);
    struct gw_lane_expected again = sides->expected;
    uint8_t byte;

    assert_int_equal(lane->ops->send(lane, &transfer), -EINVAL);
    transfer.n_iov = 1;
    assert_int_equal(lane->ops->send(lane, &transfer), -EINVAL);
    iov[0] = (struct iovec){&byte, 1};
    transfer.min_bytes = 2;
    assert_int_equal(lane->ops->receive(lane, &transfer), -EINVAL);
    transfer.min_bytes = 0;
    transfer.n_iov = GW_TRANSFER_IOV_MAX + 1;
    assert_int_equal(lane->ops->receive(lane, &transfer), -EINVAL);
    iov[1] = (struct iovec){&byte, SIZE_MAX};
    transfer.n_iov = 2;
    assert_int_equal(lane->ops->send(lane, &transfer), -EINVAL);
    assert_null(sides_connect(sides, &hello)); /* of three: 0, 1, 2 */
    hello.n_lanes = GW_LANES_MAX + 1;
    assert_null(sides_connect(sides, &hello));
    assert_int_equal(sides->listener->ops->expect(sides->listener, &again), -EEXIST);
    again.migration[0]++;
    again.n_lanes = 0;
    assert_int_equal(sides->listener->ops->expect(sides->listener, &again), -EINVAL);
}

/* Connects with this hello and sees it refused. */
static void is_refused(struct sides *sides, struct gw_lane_hello hello, const char *why)
{
    struct gw_lane *lane = sides_connect(sides, &hello), *kept = sides->lanes[0][3];
    struct gw_lane_refusal refusal;
    struct box in;
    uint8_t byte;

    assert_non_null(lane);
    assert_null(kept);
    sides->lanes[0][3] = lane;
    box_receive(sides, lane, &in, &byte, 1, 0);
    sides_until(sides, in.n_done);
    assert_int_equal(in.transfer.result, -ECONNREFUSED);
    assert_int_equal(lane->ops->error(lane)->code, GW_E_REFUSED);
    sides_until(sides, sides->listener->ops->refused(sides->listener, &refusal));
    if (!strstr(refusal.error.msg, why))
        fail_msg("\"%s\" is not in \"%s\"", why, refusal.error.msg);
    gw_lane_free(lane);
    sides->lanes[0][3] = NULL;
}

static void refuses_strangers(struct sides *sides)
{
    struct gw_lane_hello hello = sides_hello(sides, 1);
    struct gw_lane_refusal none;

    assert_false(sides->listener->ops->refused(sides->listener, &none));
    is_refused(sides, hello, "there already");
    hello.n_lanes = 5;
    is_refused(sides, hello, "another number");
    hello = sides_hello(sides, 1);
    hello.secret[15] ^= 1;
    is_refused(sides, hello, "no migration expected");
    hello = sides_hello(sides, 1);
    hello.migration[0] ^= 1;
    is_refused(sides, hello, "no migration expected");
    sides->listener->ops->forget(sides->listener, sides->expected.migration);
    is_refused(sides, sides_hello(sides, 2), "no migration expected");
    if (sides->rules->tls) {
        strcpy(sides->expected.peer, "n3");
        sides->listener->ops->expect(sides->listener, &sides->expected);
        is_refused(sides, sides_hello(sides, 0), "n3 was expected");
    }
    assert_int_equal(lane_state(sides->lanes[0][0]), GW_LANE_OPEN); /* the others live on */
}

static void has_nobody_to_talk_to(struct sides *sides)
{
    struct gw_lane_hello hello = sides_hello(sides, 0);
    struct gw_lane *lane;
    struct box in;
    uint8_t byte;

    gw_listener_free(sides->listener);
    sides->listener = NULL;
    lane = sides_connect(sides, &hello);
    if (!lane)
        return;
    sides->lanes[0][3] = lane;
    box_receive(sides, lane, &in, &byte, 1, 0);
    sides_until(sides, in.n_done);
    assert_true(in.transfer.result < 0);
    assert_int_equal(lane_state(lane), GW_LANE_FAILED);
    /* Lanes that were accepted do not need the listener. */
    box_receive(sides, sides->lanes[1][0], &in, &byte, 1, 0);
    box_send(sides, sides->lanes[0][0], &(struct box){0}, "", 1);
    sides_until(sides, in.n_done);
}

/* Random calls on one lane pair; in the end each transfer has come back once. */
static void survives_anything(struct sides *sides)
{
    enum { N = 200 };
    static struct box boxes[N];
    static uint8_t bytes[70000];

    for (unsigned i = 0; i < N; i++) {
        struct gw_lane *lane = sides->lanes[rand() % 2][rand() % 3];
        unsigned victim = (unsigned)rand() % (i + 1);
        size_t n_bytes = (size_t)rand() % sizeof bytes + 1;

        if (rand() % 2)
            box_receive(sides, lane, &boxes[i], bytes, n_bytes, (size_t)rand() % n_bytes);
        else
            box_send(sides, lane, &boxes[i], bytes, n_bytes);
        if (rand() % 3 == 0) {
            for (int side = 0; side < 2; side++)
                for (int k = 0; k < 3; k++)
                    sides->lanes[side][k]->ops->cancel(sides->lanes[side][k],
                                                       &boxes[victim].transfer);
        }
        if (i == N / 2)
            sides->lanes[0][0]->ops->abort(sides->lanes[0][0]);
        sides_turn(sides, 0);
    }
    sides->lanes[1][1]->ops->abort(sides->lanes[1][1]);
    for (int i = 0; i < 50; i++)
        sides_turn(sides, 1);
}

static const struct {
    const char *name;
    void (*run)(struct sides *sides); /* with three lanes up */
} table[] = {
    {"opens and sorts lanes", opens_and_sorts_lanes},
    {"keeps order both ways", keeps_order_both_ways},
    {"queues transfers", queues_transfers},
    {"completes with the minimum", completes_with_the_minimum},
    {"pushes back", pushes_back},
    {"closes by halves", closes_by_halves},
    {"delivers after the sender has gone", delivers_after_the_sender_has_gone},
    {"fails with its peer", fails_with_its_peer},
    {"notices without a transfer", notices_without_a_transfer},
    {"cancels", cancels},
    {"refuses nonsense", refuses_nonsense},
    {"refuses strangers", refuses_strangers},
    {"has nobody to talk to", has_nobody_to_talk_to},
    {"survives anything", survives_anything},
};

void transport_conformance(const struct gw_transport_env envs[2],
                           const struct transport_case *rules)
{
    for (unsigned i = 0; i < GW_ARRAY_SIZE(table); i++) {
        struct sides sides = {.envs = {envs[0], envs[1]}};
        uint64_t began_ns = gw_clock_ns();

        srand(i + 1);
        sides_up(&sides, rules, 3);
        table[i].run(&sides);
        sides_down(&sides);
        print_message("%s: %s: %llu ms\n", rules->name, table[i].name,
                      (unsigned long long)((gw_clock_ns() - began_ns) / GW_NS_PER_MS));
    }
}
