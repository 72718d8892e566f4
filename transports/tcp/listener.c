/* SPDX-License-Identifier: Apache-2.0 */
/* Where lanes come in: who has not been let in yet is bounded in number and time. All of its
 * sockets are behind one epoll descriptor, which the caller polls. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "transports/tcp/tcp_private.h"
#include "util/cleanup.h"
#include "util/clock.h"

enum {
    STRANGERS_MAX = 64, /* above this the oldest goes: an honest lane takes milliseconds */
    ACCEPTS = 32,       /* in one notify() */
    BACKLOG = 128,
    ACCEPT_AGAIN_MS = 1000, /* after accept() failed, for want of descriptors mostly */
};

TAILQ_HEAD(tcp_lanes, gw_tcp_lane);

struct tcp_listener {
    struct gw_listener base;
    struct gw_tcp *tcp;
    int epoll;
    int sockets[GW_URI_ADDRESSES_MAX];
    unsigned n_sockets;
    uint16_t port;
    uint64_t again_ns;          /* accepting pauses until then; 0: it does not */
    struct tcp_lanes strangers; /* the oldest first */
    unsigned n_strangers;
    struct tcp_lanes accepted;
    struct gw_guests guests;
    struct gw_refusals refusals;
};

static struct tcp_listener *listener_of(const struct gw_listener *listener)
{
    return gw_container_of(listener, struct tcp_listener, base);
}

static unsigned epoll_events(unsigned events)
{
    return (events & GW_IO_READ ? (unsigned)EPOLLIN : 0) |
           (events & GW_IO_WRITE ? (unsigned)EPOLLOUT : 0);
}

/* --- strangers ------------------------------------------------------------------------------- */

static int watch(struct tcp_listener *listener, int op, struct gw_tcp_lane *lane)
{
    struct gw_want want;
    struct epoll_event event = {.data.ptr = lane};

    lane->base.ops->want(&lane->base, &want);
    event.events = epoll_events(want.events);
    return epoll_ctl(listener->epoll, op, lane->fd, &event);
}

static void leave(struct tcp_listener *listener, struct gw_tcp_lane *lane)
{
    epoll_ctl(listener->epoll, EPOLL_CTL_DEL, lane->fd, NULL);
    TAILQ_REMOVE(&listener->strangers, lane, entry);
    listener->n_strangers--;
}

static void refuse(struct tcp_listener *listener, struct gw_tcp_lane *lane,
                   const struct gw_error *error)
{
    gw_refusals_add(&listener->refusals, lane->address, error);
    leave(listener, lane);
    gw_lane_free(&lane->base);
}

static void judge(struct tcp_listener *listener, struct gw_tcp_lane *lane, uint64_t now_ns)
{
    struct gw_error error = {0};
    enum gw_hello_verdict verdict =
        gw_guests_admit(&listener->guests, &lane->hello, lane->peer, &error);

    gw_tcp_lane_answer(lane, verdict);
    lane->error = error;
    lane->base.ops->notify(&lane->base, 0, now_ns);
}

static void attend(struct tcp_listener *listener, struct gw_tcp_lane *lane, uint64_t now_ns)
{
    lane->base.ops->notify(&lane->base, 0, now_ns);
    if (lane->step == GW_TCP_JUDGING)
        judge(listener, lane, now_ns);
    if (lane->step == GW_TCP_FAILED) {
        refuse(listener, lane, &lane->error);
    } else if (lane->step == GW_TCP_OPEN) {
        leave(listener, lane);
        TAILQ_INSERT_TAIL(&listener->accepted, lane, entry);
    } else {
        watch(listener, EPOLL_CTL_MOD, lane);
    }
}

static void expire(struct tcp_listener *listener, uint64_t now_ns)
{
    struct gw_tcp_lane *lane;

    while ((lane = TAILQ_FIRST(&listener->strangers)) && now_ns >= lane->deadline_ns)
        attend(listener, lane, now_ns);
}

static void make_room(struct tcp_listener *listener)
{
    struct gw_error error;

    if (listener->n_strangers < STRANGERS_MAX)
        return;
    gw_error_set(&error, GW_E_BUSY, "more than %d lanes are coming in at once", STRANGERS_MAX);
    refuse(listener, TAILQ_FIRST(&listener->strangers), &error);
}

/* --- accepting ------------------------------------------------------------------------------- */

/* A socket that cannot be accepted stays readable: without a pause the loop would spin on it. */
static void pause_accepting(struct tcp_listener *listener, uint64_t until_ns)
{
    listener->again_ns = until_ns;
    for (unsigned i = 0; i < listener->n_sockets; i++) {
        struct epoll_event event = {.events = until_ns ? 0 : EPOLLIN, .data.u64 = 0};

        epoll_ctl(listener->epoll, EPOLL_CTL_MOD, listener->sockets[i], &event);
    }
}

static void take_in(struct tcp_listener *listener, int fd, const struct gw_tcp_address *peer,
                    uint64_t now_ns)
{
    struct gw_tcp_lane *lane;

    make_room(listener);
    lane =
        gw_tcp_set_options(listener->tcp, fd) < 0 ? NULL : gw_tcp_lane_new(listener->tcp, fd, peer);
    if (!lane) {
        close(fd);
        return;
    }
    lane->server = true;
    TAILQ_INSERT_TAIL(&listener->strangers, lane, entry);
    listener->n_strangers++;
    if (watch(listener, EPOLL_CTL_ADD, lane) < 0)
        gw_tcp_fail(lane, GW_E_SYSTEM, errno, "watch it");
    attend(listener, lane, now_ns);
}

static void accept_some(struct tcp_listener *listener, int socket, uint64_t now_ns)
{
    for (int i = 0; i < ACCEPTS; i++) {
        struct gw_tcp_address peer = {.bytes = sizeof peer.sa};
        int fd =
            accept4(socket, (struct sockaddr *)&peer.sa, &peer.bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            take_in(listener, fd, &peer, now_ns);
        } else if (errno != ECONNABORTED && errno != EINTR) {
            if (errno != EAGAIN)
                pause_accepting(listener, now_ns + ACCEPT_AGAIN_MS * GW_NS_PER_MS);
            return;
        }
    }
}

/* --- operations ------------------------------------------------------------------------------ */

static void listener_want(struct gw_listener *base, struct gw_want *want)
{
    struct tcp_listener *listener = listener_of(base);
    struct gw_tcp_lane *oldest = TAILQ_FIRST(&listener->strangers);

    *want = (struct gw_want){listener->epoll, GW_IO_READ, GW_NEVER};
    if (oldest)
        want->at_ns = oldest->deadline_ns;
    if (listener->again_ns && listener->again_ns < want->at_ns)
        want->at_ns = listener->again_ns;
}

static void listener_notify(struct gw_listener *base, unsigned events, uint64_t now_ns)
{
    struct tcp_listener *listener = listener_of(base);
    struct epoll_event found[STRANGERS_MAX + GW_URI_ADDRESSES_MAX];
    int n = epoll_wait(listener->epoll, found, GW_ARRAY_SIZE(found), 0);

    (void)events;
    /* Strangers first, so that none of those found here has been freed to make room. */
    for (int i = 0; i < n; i++)
        if (found[i].data.ptr)
            attend(listener, found[i].data.ptr, now_ns);
    expire(listener, now_ns);
    if (listener->again_ns && now_ns >= listener->again_ns)
        pause_accepting(listener, 0);
    for (unsigned i = 0; i < listener->n_sockets && !listener->again_ns; i++)
        accept_some(listener, listener->sockets[i], now_ns);
}

static int listener_expect(struct gw_listener *listener, const struct gw_lane_expected *expected)
{
    return gw_guests_expect(&listener_of(listener)->guests, expected);
}

static void listener_forget(struct gw_listener *base, const uint8_t migration[16])
{
    struct tcp_listener *listener = listener_of(base);
    struct gw_tcp_lane *lane, *next;

    gw_guests_forget(&listener->guests, migration);
    for (lane = TAILQ_FIRST(&listener->accepted); lane; lane = next) {
        next = TAILQ_NEXT(lane, entry);
        if (memcmp(lane->hello.migration, migration, 16) != 0)
            continue;
        TAILQ_REMOVE(&listener->accepted, lane, entry);
        gw_lane_free(&lane->base);
    }
}

static struct gw_lane *listener_accept(struct gw_listener *base)
{
    struct tcp_listener *listener = listener_of(base);
    struct gw_tcp_lane *lane = TAILQ_FIRST(&listener->accepted);

    if (!lane)
        return NULL;
    TAILQ_REMOVE(&listener->accepted, lane, entry);
    return &lane->base;
}

static bool listener_refused(struct gw_listener *listener, struct gw_lane_refusal *refusal)
{
    return gw_refusals_take(&listener_of(listener)->refusals, refusal);
}

static uint16_t listener_port(const struct gw_listener *listener)
{
    return listener_of(listener)->port;
}

static void listener_free(struct gw_listener *base)
{
    struct tcp_listener *listener = listener_of(base);
    struct gw_tcp_lane *lane;
    struct gw_lane *accepted;

    while ((lane = TAILQ_FIRST(&listener->strangers))) {
        leave(listener, lane);
        gw_lane_free(&lane->base);
    }
    while ((accepted = listener_accept(base)))
        gw_lane_free(accepted);
    for (unsigned i = 0; i < listener->n_sockets; i++)
        close(listener->sockets[i]);
    gw_cleanup_close(&listener->epoll);
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

/* --- listening ------------------------------------------------------------------------------- */

/* Of either family the port is in the same place; 0 takes what the first socket has got. */
static void set_port(struct gw_tcp_address *address, uint16_t port)
{
    ((struct sockaddr_in *)&address->sa)->sin_port = htons(port);
}

static int bind_one(struct tcp_listener *listener, struct gw_tcp_address address)
{
    gw_autoclose int fd =
        socket(address.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    struct epoll_event event = {.events = EPOLLIN};
    int on = 1, r;

    if (fd < 0)
        return -errno;
    r = gw_tcp_set_options(listener->tcp, fd); /* the window is agreed on before accept() */
    if (r < 0)
        return r;
    if (listener->port)
        set_port(&address, listener->port);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address.sa, address.bytes) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&address.sa, &address.bytes) < 0 ||
        epoll_ctl(listener->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    listener->port = ntohs(((struct sockaddr_in *)&address.sa)->sin_port);
    listener->sockets[listener->n_sockets++] = gw_steal_fd(&fd);
    return 0;
}

int gw_tcp_listen(struct gw_transport *transport, struct gw_listener **listenerp,
                  struct gw_error *error)
{
    struct gw_tcp *tcp = gw_container_of(transport, struct gw_tcp, base);
    struct tcp_listener *listener = calloc(1, sizeof *listener);
    char where[96];

    if (!listener)
        return gw_error_set_sys(error, ENOMEM, "listen for lanes");
    listener->base.ops = &listener_ops;
    listener->tcp = tcp;
    TAILQ_INIT(&listener->strangers);
    TAILQ_INIT(&listener->accepted);
    listener->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (listener->epoll < 0) {
        gw_error_set_sys(error, errno, "listen for lanes");
        listener_free(&listener->base);
        return -1;
    }
    for (unsigned i = 0; i < tcp->addresses.n; i++) {
        int r = bind_one(listener, tcp->addresses.list[i]);

        if (r == 0)
            continue;
        gw_tcp_format_address(where, sizeof where, &tcp->addresses.list[i]);
        gw_error_set_sys(error, -r, "listen for lanes on %s", where);
        listener_free(&listener->base);
        return -1;
    }
    *listenerp = &listener->base;
    return 0;
}
