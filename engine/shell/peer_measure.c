/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast the link to a peer is, from what the kernel says of long padded PINGs (TCP_INFO): the
 * bytes that were acknowledged in the time in which there were some to send (tcpi_busy_time),
 * without the time in which the peer's window was full (tcpi_rwnd_limited; both Linux 4.10). So it
 * does not count how fast either daemon is, or whether the machine is busy: a link is called slow
 * only if it was the link that held bytes up. On the other hand a peer that reads too slowly to
 * fill the link makes it look faster than it is.
 *
 * The kernel counts these times in ticks of 1 to 10 ms, hence many bytes in a row; what a shaper
 * lets pass at once counts less then, too. A peer that knows nothing of this answers all the same:
 * it ignores the padding.
 */
#include "shell/peer_private.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "util/cleanup.h"
#include "util/clock.h"

#define FIRST_BYTES (384u << 10)
#define BURST_BYTES (1000u << 10) /* of each of its PINGs: a frame may have 1 MiB */
#define N_PINGS     3             /* in a burst; they fit into max_output_bytes */
#define N_BURSTS    2
#define LIMIT_NS    (200 * GW_NS_PER_MS) /* no new burst after it */
#define SLOW_US     20000                /* for the first one: a burst would take too long */
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
    return 0;
}

static void finish(struct gw_peer_measure *m, uint64_t bytes_per_s)
{
    gw_peer_measure_cancel(m);
    m->done(m, bytes_per_s);
}

static void send_burst(struct gw_peer_measure *m)
{
    m->n_bursts++;
    for (unsigned i = 0; i < N_PINGS; i++)
        send_padded(m, BURST_BYTES);
}

void gw_peer_measure_pong(struct gw_peer_conn *conn, const json_t *body)
{
    struct gw_peer_measure *m = conn->measure;
    struct gw_peer_measure_at now;
    uint64_t busy_us;

    if (!m || json_integer_value(json_object_get(body, "t0")) != m->id)
        return;
    if (look(conn, &now) < 0 || now.acked_bytes <= m->began.acked_bytes) {
        finish(m, 0);
        return;
    }
    busy_us = now.busy_us > m->began.busy_us ? now.busy_us - m->began.busy_us : 0;
    if (m->n_bursts == 0 && busy_us < SLOW_US) {
        m->began = now; /* what is short is all but a shaper's burst */
        send_burst(m);
    } else if (m->n_bursts > 0 && m->n_bursts < N_BURSTS &&
               gw_clock_ns() - m->began_ns < LIMIT_NS) {
        send_burst(m);
    } else {
        finish(m, (now.acked_bytes - m->began.acked_bytes) * UINT64_C(1000000) /
                      (busy_us > LEAST_US ? busy_us : LEAST_US));
    }
}

int gw_peer_measure_start(struct gw_peer_conn *conn, struct gw_peer_measure *m,
                          void (*done)(struct gw_peer_measure *, uint64_t))
{
    *m = (struct gw_peer_measure){.done = done, .began_ns = gw_clock_ns(), .id = INT64_C(1) << 52};
    if (look(conn, &m->began) < 0)
        return -1;
    m->conn = conn;
    conn->measure = m;
    send_padded(m, FIRST_BYTES);
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
