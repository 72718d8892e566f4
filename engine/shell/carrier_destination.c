/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's threads: one waits for the lanes, and each lane has one that connects to QEMU
 * and carries it to its end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shell/carrier_private.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define CONNECT_TRIES 1000 /* 5 ms each */

/* A unix socket does not tell when there is room in the listener's queue again: try it. */
static int connect_qemu(struct gw_carrier_lane *l, struct gw_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct pollfd wake = {.fd = l->carrier->wake, .events = POLLIN};

    snprintf(address.sun_path, sizeof address.sun_path, "%s", l->carrier->socket_path);
    l->qemu = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->qemu < 0)
        return gw_error_set_sys(error, errno, "make a socket");
    for (unsigned i = 0; i < CONNECT_TRIES; i++) {
        if (connect(l->qemu, (const struct sockaddr *)&address, sizeof address) == 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            break;
        if (poll(&wake, 1, 5) > 0)
            return gw_error_set(error, GW_E_CANCELLED, "the carrier ends");
    }
    return gw_error_set_sys(error, errno, "connect to QEMU at %s", address.sun_path);
}

static struct gw_carrier_lane *lane_of(struct gw_receiver *receiver)
{
    return gw_container_of(receiver, struct gw_carrier_lane, receiver);
}

static int send_to_qemu(struct gw_receiver *receiver, const void *bytes, size_t n_bytes,
                        struct gw_error *error)
{
    return gw_carrier_write(lane_of(receiver), bytes, n_bytes, error);
}

static int drain_to_qemu(struct gw_receiver *receiver, struct gw_error *error)
{
    struct gw_carrier_lane *l = lane_of(receiver);
    int r;

    while ((r = gw_drain_is_done(l->qemu)) == 0)
        if (gw_carrier_wait(l, l->qemu, POLLOUT, error) < 0)
            return -1;
    return r < 0 ? gw_error_set_sys(error, -r, "look whether QEMU has taken what it was sent") : 0;
}

static const struct gw_receiver_ops receiver_ops = {.send = send_to_qemu, .drain = drain_to_qemu};

static int carry_channel(struct gw_carrier_lane *l, struct gw_error *error)
{
    struct gw_carrier *c = l->carrier;
    struct gw_frame frame;
    int r;

    if (gw_receiver_init(&l->receiver, &receiver_ops, &c->ram, &c->barrier) < 0)
        return gw_error_set_sys(error, ENOMEM, "take memory for a lane");
    /* Where all payload passes, a small buffer would only make it slow: QEMU keeps the order. */
    r = c->ram.n_blocks ? gw_drain_prepare(l->qemu) : 0;
    if (r < 0)
        return gw_error_set_sys(error, -r, "set the size of a socket's buffer");
    while ((r = gw_carrier_next_frame(l, &frame, error)) == 0 && frame.kind != GW_FRAME_END) {
        if (gw_receiver_take(&l->receiver, &frame, error) < 0)
            return -1;
        gw_carrier_count(l, &l->receiver.figures, l->receiver.figures.content_bytes, 0);
        if (l->receiver.synced && gw_carrier_send_frame(l, GW_FRAME_SYNCED, NULL, 0, error) < 0)
            return -1;
    }
    if (r < 0)
        return -1;
    gw_barrier_abort(&c->barrier); /* this lane will not come again */
    shutdown(l->qemu, SHUT_WR);
    if (gw_carrier_send_frame(l, GW_FRAME_END, NULL, 0, error) < 0)
        return -1;
    return gw_carrier_finish(l, error);
}

static void *lane_thread(void *arg)
{
    struct gw_carrier_lane *l = arg;
    struct gw_error error;
    int r = -1;

    if (gw_carrier_lane_init(l, &error) == 0 && connect_qemu(l, &error) == 0)
        r = l->number == l->carrier->n_channels ? gw_carrier_run_main(l, &error)
                                                : carry_channel(l, &error);
    if (r < 0)
        gw_carrier_fail(l->carrier, &error);
    gw_carrier_lane_fini(l);
    return NULL;
}

static int take_lane(struct gw_carrier *c, struct gw_lane *lane, struct gw_error *error)
{
    struct gw_lane_info info;
    struct gw_carrier_lane *l;
    int r;

    lane->ops->info(lane, &info);
    l = &c->lane[info.hello.lane];
    l->number = info.hello.lane;
    l->lane = lane;
    pthread_mutex_lock(&c->lock);
    c->encryption = info.tls;
    pthread_mutex_unlock(&c->lock);
    r = gw_carrier_start_thread(&l->thread, lane_thread, l);
    if (r < 0) {
        gw_lane_free(gw_steal_ptr(&l->lane));
        return gw_error_set_sys(error, -r, "start a thread for lane %u", l->number);
    }
    l->started = true;
    return 0;
}

static int listen_once(struct gw_carrier *c, struct gw_error *error)
{
    struct pollfd polls[2] = {{.fd = c->wake, .events = POLLIN}, {.events = POLLIN}};
    struct gw_lane_refusal refusal;
    struct gw_want want;
    uint64_t now_ns = gw_clock_ns();
    int timeout_ms = -1;

    c->listener->ops->want(c->listener, &want);
    polls[1].fd = want.fd;
    if (want.at_ns != GW_NEVER)
        timeout_ms = want.at_ns <= now_ns ? 0 : (int)((want.at_ns - now_ns) / GW_NS_PER_MS + 1);
    if (poll(polls, 2, timeout_ms) < 0 && errno != EINTR)
        return gw_error_set_sys(error, errno, "wait for lanes");
    if (polls[0].revents)
        return gw_error_set(error, GW_E_CANCELLED, "the carrier ends");
    c->listener->ops->notify(c->listener, GW_IO_READ | GW_IO_WRITE, gw_clock_ns());
    while (c->listener->ops->refused(c->listener, &refusal)) { /* who they were tells nobody */
    }
    return 0;
}

void *gw_carrier_destination_thread(void *arg)
{
    struct gw_carrier *c = arg;
    struct gw_error error;
    struct gw_lane *lane;
    unsigned n_lanes = 0;
    int r = 0;

    while (r == 0 && n_lanes < c->n_lanes) {
        r = listen_once(c, &error);
        while (r == 0 && (lane = c->listener->ops->accept(c->listener))) {
            r = take_lane(c, lane, &error);
            n_lanes++;
        }
    }
    gw_listener_free(gw_steal_ptr(&c->listener));
    if (r < 0)
        gw_carrier_fail(c, &error);
    return NULL;
}
