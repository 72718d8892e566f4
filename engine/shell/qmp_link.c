/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session knows what to say and when it has to end; this file only carries bytes and looks at
 * the clock. One timer serves all: the next attempt to connect, the session's deadline, a close
 * that was asked for.
 *
 * connect() on a non-blocking unix socket succeeds or fails at once. ENOENT and ECONNREFUSED mean
 * that QEMU is just starting; EAGAIN that its queue of clients, one long, is taken.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "shell/qmp_link.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define DEFAULT_CONNECT_TIMEOUT_NS (10 * GW_NS_PER_S)
#define FIRST_RETRY_NS             (1 * GW_NS_PER_MS)
#define LONGEST_RETRY_NS           (10 * GW_NS_PER_MS)
#define READ_BYTES                 (32 << 10)

/* After a failed write: how much of what QEMU said before it left is still read. */
#define MAX_LAST_READS 64

struct gw_qmp_link {
    struct gw_qmp_handler relay; /* the session's handler: passes on to handler */
    struct gw_qmp_handler *handler;
    struct gw_qmp_session *session; /* NULL if doomed */
    struct event_base *base;
    struct event *timer;
    struct event *readable; /* NULL while not connected, as writable */
    struct event *writable;
    int fd; /* -1 while not connected */
    struct sockaddr_un address;
    uint64_t connect_timeout_ns;
    uint64_t connect_deadline_ns;
    uint64_t attempt_at_ns; /* next attempt to connect; GW_QMP_NEVER when there is none to come */
    uint64_t retry_ns;
    bool closing; /* the timer is due, to close the session because of why */
    struct gw_error why;
    unsigned n_entered; /* on the stack: do not free yet */
    bool doomed;        /* freed while entered: session and timer are gone */
};

/* ---- the socket ---- */

static void disconnect(struct gw_qmp_link *link)
{
    if (link->readable)
        event_free(link->readable);
    if (link->writable)
        event_free(link->writable);
    link->readable = link->writable = NULL;
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    link->attempt_at_ns = GW_QMP_NEVER;
}

/* 0, -EAGAIN when the rest has to wait for the socket, or -errno. */
static int write_out(struct gw_qmp_link *link)
{
    const char *data;
    size_t len;
    ssize_t n;

    for (;;) {
        gw_qmp_session_output(link->session, &data, &len);
        if (len == 0 || link->fd < 0)
            return 0;
        n = send(link->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            gw_qmp_session_consume(link->session, (size_t)n);
        else if (errno != EINTR)
            return -errno;
    }
}

/* Sets socket and timer to what the session waits for. */
static void settle(struct gw_qmp_link *link)
{
    uint64_t due_ns, now_ns, us;
    struct timeval in;

    if (link->doomed)
        return;
    /* A write that failed for good is met again, and reported, from the loop. */
    if (write_out(link) < 0)
        event_add(link->writable, NULL);
    due_ns = gw_qmp_session_deadline(link->session);
    if (link->attempt_at_ns < due_ns)
        due_ns = link->attempt_at_ns;
    if (link->closing)
        due_ns = 0;
    if (due_ns == GW_QMP_NEVER) {
        evtimer_del(link->timer);
        return;
    }
    now_ns = gw_clock_ns();
    us = due_ns > now_ns ? (due_ns - now_ns + GW_NS_PER_US - 1) / GW_NS_PER_US : 0;
    in.tv_sec = (time_t)(us / 1000000);
    in.tv_usec = (suseconds_t)(us % 1000000);
    evtimer_add(link->timer, &in);
}

static void enter(struct gw_qmp_link *link)
{
    link->n_entered++;
}

static void leave(struct gw_qmp_link *link)
{
    settle(link);
    if (--link->n_entered > 0 || !link->doomed)
        return;
    free(link);
}

static void __attribute__((format(printf, 3, 4)))
fail_sys(struct gw_qmp_link *link, int sys, const char *fmt, ...)
{
    struct gw_error error;
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    gw_error_set_sys(&error, sys, "%s %s", text, link->address.sun_path);
    gw_qmp_session_close(link->session, &error);
}

static void fail_gone(struct gw_qmp_link *link, int sys)
{
    struct gw_error error;

    gw_error_set(&error, GW_E_QEMU_GONE, "QEMU closed its QMP connection %s%s%s",
                 link->address.sun_path, sys ? ": " : "", sys ? strerror(sys) : "");
    error.sys = sys;
    gw_qmp_session_close(link->session, &error);
}

/* One read. Returns false when there is nothing more to read: no bytes now, or none ever. */
static bool read_once(struct gw_qmp_link *link)
{
    char data[READ_BYTES];
    ssize_t n = recv(link->fd, data, sizeof data, MSG_DONTWAIT);

    if (n > 0) {
        gw_qmp_session_feed(link->session, data, (size_t)n);
        return link->fd >= 0;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    fail_gone(link, n < 0 ? errno : 0);
    return false;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct gw_qmp_link *link = arg;

    (void)fd;
    (void)what;
    enter(link);
    read_once(link);
    leave(link);
}

/* QEMU may have said why it left (SHUTDOWN, a reply) before the socket broke. */
static void fail_write(struct gw_qmp_link *link, int sys)
{
    for (int i = 0; i < MAX_LAST_READS && read_once(link); i++)
        continue;
    if (link->fd >= 0)
        fail_gone(link, sys);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct gw_qmp_link *link = arg;
    int r;

    (void)fd;
    (void)what;
    enter(link);
    r = write_out(link);
    if (r < 0 && r != -EAGAIN)
        fail_write(link, -r);
    leave(link);
}

/* ---- connecting ---- */

/* 0 or -errno. */
static int connect_once(struct gw_qmp_link *link)
{
    gw_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)&link->address, sizeof link->address))
        return -errno;
    link->readable = event_new(link->base, fd, EV_READ | EV_PERSIST, on_readable, link);
    link->writable = event_new(link->base, fd, EV_WRITE, on_writable, link);
    if (!link->readable || !link->writable || event_add(link->readable, NULL)) {
        disconnect(link);
        return -ENOMEM;
    }
    link->fd = gw_steal_fd(&fd);
    return 0;
}

static void fail_connect_timeout(struct gw_qmp_link *link, int sys)
{
    struct gw_error error;

    gw_error_set(&error, GW_E_TIMEOUT, "connect to QMP socket %s: still %s after %" PRIu64 " ms",
                 link->address.sun_path, strerror(sys), link->connect_timeout_ns / GW_NS_PER_MS);
    error.sys = sys;
    if (sys == EAGAIN)
        gw_error_hint(&error, "other QMP clients hold this socket: QEMU serves one at a time");
    else
        gw_error_hint(&error, "is QEMU running, with -qmp unix:%s,server=on,wait=off ?",
                      link->address.sun_path);
    gw_qmp_session_close(link->session, &error);
}

static void attempt(struct gw_qmp_link *link, uint64_t now_ns)
{
    int r = connect_once(link);

    link->attempt_at_ns = GW_QMP_NEVER;
    if (r == 0) {
        gw_qmp_session_connected(link->session, now_ns);
    } else if (r != -ENOENT && r != -ECONNREFUSED && r != -EAGAIN) {
        fail_sys(link, -r, "connect to QMP socket");
    } else if (now_ns >= link->connect_deadline_ns) {
        fail_connect_timeout(link, -r);
    } else {
        link->attempt_at_ns = now_ns + link->retry_ns;
        link->retry_ns *= 2;
        if (link->retry_ns > LONGEST_RETRY_NS)
            link->retry_ns = LONGEST_RETRY_NS;
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct gw_qmp_link *link = arg;
    uint64_t now_ns = gw_clock_ns();

    (void)fd;
    (void)what;
    enter(link);
    if (link->closing) {
        link->closing = false;
        gw_qmp_session_close(link->session, &link->why);
    } else if (now_ns >= link->attempt_at_ns) {
        attempt(link, now_ns);
    }
    if (!link->doomed)
        gw_qmp_session_expire(link->session, now_ns);
    leave(link);
}

/* ---- handler ---- */

static void relay_ready(struct gw_qmp_handler *relay, json_t *greeting)
{
    struct gw_qmp_link *link = gw_container_of(relay, struct gw_qmp_link, relay);

    if (link->handler && link->handler->ready)
        link->handler->ready(link->handler, greeting);
}

static void relay_event(struct gw_qmp_handler *relay, const char *name, json_t *data,
                        int64_t emitted_realtime_us)
{
    struct gw_qmp_link *link = gw_container_of(relay, struct gw_qmp_link, relay);

    if (link->handler && link->handler->event)
        link->handler->event(link->handler, name, data, emitted_realtime_us);
}

static void relay_closed(struct gw_qmp_handler *relay, const struct gw_error *error)
{
    struct gw_qmp_link *link = gw_container_of(relay, struct gw_qmp_link, relay);

    disconnect(link);
    if (link->handler && link->handler->closed)
        link->handler->closed(link->handler, error);
}

/* ---- for others ---- */

static int set_address(struct gw_qmp_link *link, const char *path, struct gw_error *error)
{
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof link->address.sun_path) {
        gw_error_set(error, GW_E_CONFIG,
                     "QMP socket path %.200s: %zu bytes, a socket address takes 1 to %zu", path,
                     len, sizeof link->address.sun_path - 1);
        return gw_error_hint(error, "put the socket into a directory with a shorter name");
    }
    link->address.sun_family = AF_UNIX;
    memcpy(link->address.sun_path, path, len + 1);
    return 0;
}

struct gw_qmp_link *gw_qmp_link_open(struct event_base *base, const char *path,
                                     struct gw_qmp_handler *handler,
                                     const struct gw_qmp_link_options *options,
                                     struct gw_error *error)
{
    static const struct gw_qmp_link_options defaults;
    gw_autofree struct gw_qmp_link *link = calloc(1, sizeof *link);

    if (!options)
        options = &defaults;
    if (link && set_address(link, path, error))
        return NULL;
    if (link)
        link->timer = evtimer_new(base, on_timer, link);
    if (link && link->timer)
        link->session = gw_qmp_session_new(&link->relay, &options->session);
    if (!link || !link->session) {
        if (link && link->timer)
            event_free(link->timer);
        gw_error_set_sys(error, ENOMEM, "open QMP socket %s", path);
        return NULL;
    }
    link->relay = (struct gw_qmp_handler){relay_ready, relay_event, relay_closed};
    link->handler = handler;
    link->base = base;
    link->fd = -1;
    link->connect_timeout_ns =
        options->connect_timeout_ns ? options->connect_timeout_ns : DEFAULT_CONNECT_TIMEOUT_NS;
    link->attempt_at_ns = gw_clock_ns();
    link->connect_deadline_ns = link->attempt_at_ns + link->connect_timeout_ns;
    link->retry_ns = FIRST_RETRY_NS;
    settle(link);
    return gw_steal_ptr(&link);
}

void gw_qmp_link_execute(struct gw_qmp_link *link, struct gw_qmp_call *call, const char *command,
                         json_t *args, uint64_t timeout_ns)
{
    gw_qmp_session_execute(link->session, call, command, args, gw_clock_ns(), timeout_ns);
    settle(link);
}

void gw_qmp_link_close(struct gw_qmp_link *link, const struct gw_error *error)
{
    if (link->closing || gw_qmp_session_is_closed(link->session))
        return;
    disconnect(link);
    link->closing = true;
    if (error)
        link->why = *error;
    else
        gw_error_set(&link->why, GW_E_QEMU_GONE, "the QMP connection %s was closed by this side",
                     link->address.sun_path);
    settle(link);
}

void gw_qmp_link_free(struct gw_qmp_link *link)
{
    if (!link)
        return;
    assert(!link->doomed);
    enter(link);
    disconnect(link);
    event_free(link->timer);
    gw_qmp_session_free(link->session);
    link->timer = NULL;
    link->session = NULL;
    link->doomed = true;
    leave(link);
}

pid_t gw_qmp_link_peer_pid(const struct gw_qmp_link *link)
{
    struct ucred who;
    socklen_t size = sizeof who;

    if (link->fd < 0 || getsockopt(link->fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0)
        return -1;
    return who.pid;
}

bool gw_qmp_link_is_ready(const struct gw_qmp_link *link)
{
    return !link->closing && gw_qmp_session_is_ready(link->session);
}
