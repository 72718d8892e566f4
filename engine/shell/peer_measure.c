/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast the link to a peer is, from what the kernel says of long padded PINGs (TCP_INFO): how
 * many bytes were acknowledged, and in what time. That is a lower bound, because either daemon may
 * be slow, and the machines busy. So the best of many samples counts, of two kinds:
 *
 * - from one PONG to the next, by the clock: good where both daemons were fast for a moment;
 * - over a burst, by the time in which there was something to send (tcpi_busy_time) and the peer's
 *   window was not full (tcpi_rwnd_limited; both Linux 4.10): good where a daemon is slow. The
 *   kernel counts in ticks of 1 to 10 ms, hence many bytes.
 *
 * What a shaper lets pass at once makes a link look faster than it is, the less so the longer the
 * samples are. A peer that knows nothing of this answers all the same: it ignores the padding.
 */
#include "shell/peer_private.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "util/cleanup.h"
#include "util/clock.h"

#define PROBE_BYTES (384u << 10)
#define BURST_BYTES (1000u << 10) /* of each of its PINGs: a frame may have 1 MiB */
#define N_PINGS     3             /* in a burst; they fit into max_output_bytes */
#define N_BURSTS    4
#define N_PROBES    4
#define STEP_BYTES  (768u << 10)         /* the least from one PONG to the next */
#define LIMIT_NS    (200 * GW_NS_PER_MS) /* nothing more is sent after it */
#define SLOW_US     20000                /* for a probe: a burst would take too long */
#define LEAST_US    1000                 /* the kernel's ticks are coarser */

static void send_padded(struct gw_peer_measure *m, size_t n_bytes)
{
    gw_autofree char *pad = malloc(n_bytes + 1);

    if (pad) {
        memset(pad, 'x', n_bytes);
        pad[n_bytes] = '\0';
    }
    m->id++;
    gw_peer_queue_own(m->conn, GW_WIRE_PING,
                      pad ? json_pack("{sI, ss}", "t0", (json_int_t)m->id, "pad", pad) : NULL);
}

/* 0; -1: this kernel does not say. */
static int look(const struct gw_peer_conn *conn, struct gw_peer_measure_at *at)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;

    if (getsockopt(bufferevent_getfd(conn->bev), IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
        len < offsetof(struct tcp_info, tcpi_rwnd_limited) + sizeof info.tcpi_rwnd_limited)
        return -1;
    at->acked_bytes = info.tcpi_bytes_acked;
    at->busy_us = info.tcpi_busy_time - info.tcpi_rwnd_limited;
    at->ns = gw_clock_ns();
    return 0;
}

static void finish(struct gw_peer_measure *m, uint64_t bytes_per_s)
{
    gw_peer_measure_cancel(m);
    m->done(m, bytes_per_s);
}

static void send_probe(struct gw_peer_measure *m)
{
    m->n_probes++;
    send_padded(m, PROBE_BYTES);
}

static void send_burst(struct gw_peer_measure *m)
{
    m->n_bursts++;
    for (unsigned i = 0; i < N_PINGS; i++)
        send_padded(m, BURST_BYTES);
}

static void rate(struct gw_peer_measure *m, const struct gw_peer_measure_at *from,
                 const struct gw_peer_measure_at *to, uint64_t took_us)
{
    uint64_t bytes_per_s = (to->acked_bytes - from->acked_bytes) * UINT64_C(1000000) /
                           (took_us > LEAST_US ? took_us : LEAST_US);

    m->best = bytes_per_s > m->best ? bytes_per_s : m->best;
}

/* How long the probe or the burst that ends here took, in us. */
static uint64_t end_burst(struct gw_peer_measure *m, const struct gw_peer_measure_at *now)
{
    uint64_t busy_us = now->busy_us > m->began.busy_us ? now->busy_us - m->began.busy_us : 0;

    rate(m, &m->began, now, busy_us);
    m->began = m->last = *now;
    return busy_us;
}

static void end_step(struct gw_peer_measure *m, const struct gw_peer_measure_at *now)
{
    if (now->acked_bytes - m->last.acked_bytes < STEP_BYTES)
        return;
    rate(m, &m->last, now, (now->ns - m->last.ns) / 1000);
    m->last = *now;
}

static void probed(struct gw_peer_measure *m, const struct gw_peer_measure_at *now, bool in_time)
{
    uint64_t took_us = end_burst(m, now);

    if (took_us < SLOW_US && in_time) {
        m->best = 0; /* what is short is all but a shaper's burst */
        send_burst(m);
    } else if (m->n_probes < N_PROBES && in_time) {
        send_probe(m);
    } else {
        finish(m, m->best);
    }
}

void gw_peer_measure_pong(struct gw_peer_conn *conn, const json_t *body)
{
    struct gw_peer_measure *m = conn->measure;
    json_int_t id = json_integer_value(json_object_get(body, "t0"));
    struct gw_peer_measure_at now;
    bool in_time;

    if (!m || id <= m->id - N_PINGS || id > m->id)
        return;
    if (look(conn, &now) < 0 || now.acked_bytes < m->last.acked_bytes) {
        finish(m, m->best);
        return;
    }
    in_time = now.ns - m->began_ns < LIMIT_NS;
    if (m->n_bursts == 0) {
        probed(m, &now, in_time);
        return;
    }
    end_step(m, &now);
    if (id != m->id)
        return;
    end_burst(m, &now);
    if (m->n_bursts < N_BURSTS && in_time)
        send_burst(m);
    else
        finish(m, m->best);
}

int gw_peer_measure_start(struct gw_peer_conn *conn, struct gw_peer_measure *m,
                          void (*done)(struct gw_peer_measure *, uint64_t))
{
    *m = (struct gw_peer_measure){.done = done, .began_ns = gw_clock_ns(), .id = INT64_C(1) << 52};
    if (look(conn, &m->began) < 0)
        return -1;
    m->last = m->began;
    m->conn = conn;
    conn->measure = m;
    send_probe(m);
    return 0;
}

void gw_peer_measure_cancel(struct gw_peer_measure *m)
{
    if (m->conn)
        m->conn->measure = NULL;
    m->conn = NULL;
}

void gw_peer_measure_lost(struct gw_peer_conn *conn)
{
    if (conn->measure)
        finish(conn->measure, 0);
}
