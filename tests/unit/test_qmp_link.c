/* SPDX-License-Identifier: Apache-2.0 */
/* Against a real QEMU without a machine, and against sockets that only pretend. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "shell/qmp_link.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define QEMU "qemu-system-x86_64"

/* Whatever a test waits for comes in this time, or never. */
enum { PATIENCE_S = 20 };

static char directory[] = "/tmp/godwit-test-qmp-XXXXXX";

struct bench {
    struct event_base *base;
    struct gw_qmp_link *link;
    struct gw_qmp_handler handler;
    char path[108];
    pid_t qemu; /* 0: none */
    bool in_function, free_in_closed;
    int n_ready, n_closed, n_events, n_done;
    json_int_t major;
    char last_event[64];
    int64_t emitted_us;
    struct gw_error why, error;
    json_t *reply; /* owned */
    struct gw_qmp_call call;
};

static void ready(struct gw_qmp_handler *handler, json_t *greeting)
{
    struct bench *b = gw_container_of(handler, struct bench, handler);
    json_t *qemu = json_object_get(json_object_get(greeting, "version"), "qemu");

    assert_false(b->in_function);
    b->n_ready++;
    b->major = json_integer_value(json_object_get(qemu, "major"));
    event_base_loopbreak(b->base);
}

static void event(struct gw_qmp_handler *handler, const char *name, json_t *data,
                  int64_t emitted_us)
{
    struct bench *b = gw_container_of(handler, struct bench, handler);

    (void)data;
    assert_false(b->in_function);
    b->n_events++;
    b->emitted_us = emitted_us;
    snprintf(b->last_event, sizeof b->last_event, "%s", name);
    event_base_loopbreak(b->base);
}

static void closed(struct gw_qmp_handler *handler, const struct gw_error *error)
{
    struct bench *b = gw_container_of(handler, struct bench, handler);

    assert_false(b->in_function);
    b->n_closed++;
    b->why = *error;
    if (b->free_in_closed) {
        gw_qmp_link_free(b->link);
        b->link = NULL;
    }
    event_base_loopbreak(b->base);
}

static void done(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct bench *b = gw_container_of(call, struct bench, call);

    assert_false(b->in_function);
    b->n_done++;
    json_decref(b->reply);
    b->reply = json_incref(reply);
    b->error = error ? *error : (struct gw_error){0};
    event_base_loopbreak(b->base);
}

static void start_qemu(struct bench *b)
{
    gw_autofree char *qmp = NULL;

    assert_true(asprintf(&qmp, "unix:%s,server=on,wait=off", b->path) > 0);
    b->qemu = fork();
    if (b->qemu == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp(QEMU, QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-qmp", qmp,
               (char *)NULL);
        _exit(127);
    }
    assert_true(b->qemu > 0);
}

static void stop_qemu(struct bench *b)
{
    if (b->qemu > 0) {
        kill(b->qemu, SIGKILL);
        waitpid(b->qemu, NULL, 0);
    }
    b->qemu = 0;
}

static void init(struct bench *b, const char *name)
{
    *b = (struct bench){.handler = {ready, event, closed}, .call.done = done};
    b->base = event_base_new();
    snprintf(b->path, sizeof b->path, "%s/%s", directory, name);
}

static void open_link(struct bench *b, const struct gw_qmp_link_options *options)
{
    b->in_function = true;
    b->link = gw_qmp_link_open(b->base, b->path, &b->handler, options, &b->error);
    b->in_function = false;
    assert_non_null(b->link);
}

static void execute(struct bench *b, const char *command, json_t *args, uint64_t timeout_ns)
{
    b->in_function = true;
    gw_qmp_link_execute(b->link, &b->call, command, args, timeout_ns);
    b->in_function = false;
}

/* Runs the loop until *counter reaches n. */
static void wait_for(struct bench *b, const int *counter, int n)
{
    uint64_t end_ns = gw_clock_ns() + PATIENCE_S * GW_NS_PER_S;
    const struct timeval patience = {.tv_sec = PATIENCE_S};

    while (*counter < n) {
        assert_true(gw_clock_ns() < end_ns);
        event_base_loopexit(b->base, &patience);
        event_base_dispatch(b->base);
    }
}

static void fini(struct bench *b)
{
    gw_qmp_link_free(b->link);
    event_base_free(b->base);
    json_decref(b->reply);
    stop_qemu(b);
    unlink(b->path);
}

static void ask(struct bench *b, const char *command, json_t *args)
{
    int n = b->n_done + 1;

    execute(b, command, args, 10 * GW_NS_PER_S);
    wait_for(b, &b->n_done, n);
}

static void note_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    *(int *)arg = 1;
}

/* An idle link: the test's own timer is the next thing that the loop wakes up for. */
static void check_idle(struct bench *b)
{
    const struct timeval soon = {.tv_usec = 150000};
    int ticked = 0;
    struct event *tick = evtimer_new(b->base, note_tick, &ticked);

    evtimer_add(tick, &soon);
    event_base_loop(b->base, EVLOOP_ONCE);
    assert_int_equal(ticked, 1);
    event_free(tick);
}

static void talks_to_qemu(void **state)
{
    struct bench b;

    (void)state;
    init(&b, "qemu");
    start_qemu(&b); /* takes a while to listen: the link has to try again */
    open_link(&b, NULL);
    execute(&b, "query-status", NULL, 10 * GW_NS_PER_S); /* waits for the handshake */
    assert_false(gw_qmp_link_is_ready(b.link));
    wait_for(&b, &b.n_done, 1);
    assert_int_equal(b.n_ready, 1);
    assert_true(b.major >= 5);
    assert_true(gw_qmp_link_is_ready(b.link));
    assert_non_null(json_object_get(b.reply, "running"));

    ask(&b, "query-qmp-schema", NULL); /* long: arrives in many reads */
    assert_true(json_array_size(b.reply) > 500);

    ask(&b, "no-such-command", NULL);
    assert_int_equal(b.error.code, GW_E_QEMU);
    assert_non_null(strstr(b.error.msg, "no-such-command: CommandNotFound: "));

    ask(&b, "migrate-set-parameters", json_pack("{s:I}", "max-bandwidth", (json_int_t)INT64_MAX));
    assert_int_equal(b.error.code, GW_OK);
    ask(&b, "migrate-set-parameters", json_pack("{s:s}", "max-bandwidth", "x"));
    assert_int_equal(b.error.code, GW_E_QEMU);

    ask(&b, "stop", NULL);
    wait_for(&b, &b.n_events, 1);
    assert_string_equal(b.last_event, "STOP");
    assert_true(b.emitted_us > INT64_C(1600000000000000));
    check_idle(&b);

    execute(&b, "quit", NULL, 0);
    wait_for(&b, &b.n_closed, 1);
    assert_string_equal(b.last_event, "SHUTDOWN");
    assert_int_equal(b.why.code, GW_E_QEMU_GONE);
    assert_false(gw_qmp_link_is_ready(b.link));
    check_idle(&b);
    fini(&b);
}

static void qemu_serves_one_client(void **state)
{
    static const struct gw_qmp_link_options hurry = {.session.handshake_timeout_ns =
                                                         200 * GW_NS_PER_MS};
    struct bench first, second;

    (void)state;
    init(&first, "busy");
    start_qemu(&first);
    open_link(&first, NULL);
    wait_for(&first, &first.n_ready, 1);

    init(&second, "busy");
    open_link(&second, &hurry);
    wait_for(&second, &second.n_closed, 1);
    assert_int_equal(second.why.code, GW_E_TIMEOUT);
    assert_non_null(strstr(second.why.hint, "another QMP client"));
    fini(&second);
    fini(&first);
}

static void killed_qemu_fails_calls(void **state)
{
    struct bench b;

    (void)state;
    init(&b, "killed");
    b.free_in_closed = true;
    start_qemu(&b);
    open_link(&b, NULL);
    wait_for(&b, &b.n_ready, 1);
    kill(b.qemu, SIGSTOP);
    execute(&b, "query-status", NULL, 0);
    kill(b.qemu, SIGKILL);
    wait_for(&b, &b.n_closed, 1);
    assert_int_equal(b.n_done, 1);
    assert_int_equal(b.error.code, GW_E_QEMU_GONE);
    assert_non_null(strstr(b.error.msg, "query-status: QEMU closed its QMP connection"));
    assert_null(b.link);
    fini(&b);
}

static void stopped_qemu_times_out(void **state)
{
    struct bench b;

    (void)state;
    init(&b, "stopped");
    start_qemu(&b);
    open_link(&b, NULL);
    wait_for(&b, &b.n_ready, 1);
    kill(b.qemu, SIGSTOP);
    execute(&b, "query-status", NULL, 30 * GW_NS_PER_MS);
    wait_for(&b, &b.n_done, 1);
    assert_int_equal(b.error.code, GW_E_TIMEOUT);
    kill(b.qemu, SIGCONT);
    ask(&b, "query-version", NULL); /* the late reply to query-status does not disturb it */
    assert_non_null(json_object_get(b.reply, "qemu"));
    fini(&b);
}

/* ---- without QEMU ---- */

/* A listening socket with a queue as short as QEMU's. */
static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 0), 0);
    return fd;
}

/* No socket at all, or one that a QEMU left behind. */
static void check_nobody_listens(const char *name, int sys)
{
    static const struct gw_qmp_link_options hurry = {.connect_timeout_ns = 60 * GW_NS_PER_MS};
    uint64_t start_ns = gw_clock_ns();
    struct bench b;

    init(&b, name);
    if (sys == ECONNREFUSED) {
        close(listen_at(b.path));
        b.free_in_closed = true;
    }
    open_link(&b, &hurry);
    execute(&b, "stop", NULL, 0);
    wait_for(&b, &b.n_closed, 1);
    assert_true(gw_clock_ns() - start_ns >= 60 * GW_NS_PER_MS);
    assert_int_equal(b.why.code, GW_E_TIMEOUT);
    assert_int_equal(b.why.sys, sys);
    assert_non_null(strstr(b.why.hint, b.path));
    assert_int_equal(b.n_done, 1);
    assert_int_equal(b.error.code, GW_E_QEMU_GONE);
    check_idle(&b);
    fini(&b);
}

static void nobody_listens(void **state)
{
    (void)state;
    check_nobody_listens("absent", ENOENT);
    check_nobody_listens("stale", ECONNREFUSED);
}

static void queue_of_clients_is_full(void **state)
{
    static const struct gw_qmp_link_options hurry = {.connect_timeout_ns = 30 * GW_NS_PER_MS};
    struct bench first, second;
    gw_autoclose int listener = -1;

    (void)state;
    init(&first, "full");
    init(&second, "full");
    listener = listen_at(first.path);
    open_link(&first, NULL);
    event_base_loop(first.base, EVLOOP_ONCE); /* connects, and takes the one place */
    open_link(&second, &hurry);
    wait_for(&second, &second.n_closed, 1);
    assert_int_equal(second.why.sys, EAGAIN);
    assert_non_null(strstr(second.why.hint, "one at a time"));
    fini(&second);
    fini(&first);
}

static void refused_by_permission(void **state)
{
    struct bench b;

    (void)state;
    init(&b, "file/below");
    snprintf(b.path, sizeof b.path, "%s/file", directory);
    close(open(b.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    strcat(b.path, "/below");
    open_link(&b, NULL);
    wait_for(&b, &b.n_closed, 1);
    assert_int_equal(b.why.code, GW_E_SYSTEM);
    assert_int_equal(b.why.sys, ENOTDIR);
    *strrchr(b.path, '/') = '\0';
    fini(&b);
}

static void path_too_long(void **state)
{
    char path[200];
    struct gw_error error;
    struct event_base *base = event_base_new();

    (void)state;
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_null(gw_qmp_link_open(base, path, NULL, NULL, &error));
    assert_int_equal(error.code, GW_E_CONFIG);
    assert_non_null(strstr(error.msg, "199 bytes"));
    event_base_free(base);
}

static void closed_and_freed_by_its_user(void **state)
{
    struct bench b;
    gw_autoclose int listener = -1;

    (void)state;
    init(&b, "user");
    listener = listen_at(b.path);
    open_link(&b, NULL);
    execute(&b, "stop", NULL, 0);
    b.in_function = true;
    gw_qmp_link_close(b.link, NULL);
    gw_qmp_link_close(b.link, NULL);
    b.in_function = false;
    wait_for(&b, &b.n_closed, 1);
    assert_int_equal(b.n_done, 1);
    execute(&b, "cont", NULL, 0); /* after the end: done from the loop, too */
    wait_for(&b, &b.n_done, 2);
    assert_int_equal(b.error.code, GW_E_QEMU_GONE);
    gw_qmp_link_free(b.link);

    open_link(&b, NULL);
    execute(&b, "stop", NULL, 0);
    gw_qmp_link_free(b.link);
    b.link = NULL;
    assert_false(gw_qmp_call_is_pending(&b.call));
    event_base_loop(b.base, EVLOOP_NONBLOCK);
    assert_int_equal(b.n_closed, 1);
    assert_int_equal(b.n_done, 2);
    fini(&b);
}

/* More commands than the socket takes, to a peer that reads late: they wait, none is lost. */
static void slow_peer_gets_everything(void **state)
{
    enum { N = 40 };
    static const char greeting[] = "{\"QMP\":{}}{\"return\":{},\"id\":";
    static const size_t blob_bytes = (size_t)64 << 10;
    gw_autofree char *blob = malloc(blob_bytes + 1);
    gw_autofree char *inbox = malloc(N * (blob_bytes + 200));
    struct gw_qmp_call calls[N] = {0};
    gw_autoclose int listener = -1, peer = -1;
    char agreed[64];
    size_t total = 0;
    int n_lines = 0;
    struct bench b;

    (void)state;
    memset(blob, 'b', blob_bytes);
    blob[blob_bytes] = '\0';
    init(&b, "slow");
    listener = listen_at(b.path);
    open_link(&b, NULL);
    for (int i = 0; i < N; i++) {
        calls[i].done = done;
        gw_qmp_link_execute(b.link, &calls[i], "x", json_pack("{s:s}", "blob", blob), 0);
    }
    event_base_loop(b.base, EVLOOP_ONCE);
    peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    snprintf(agreed, sizeof agreed, "%s%d}", greeting, N + 1);
    assert_true(write(peer, agreed, strlen(agreed)) > 0);
    wait_for(&b, &b.n_ready, 1);
    while (n_lines < N + 1) {
        ssize_t n = read(peer, inbox + total, 100000);

        for (ssize_t i = 0; i < n; i++)
            n_lines += inbox[total + (size_t)i] == '\n';
        total += n > 0 ? (size_t)n : 0;
        assert_true(n != 0);
        event_base_loop(b.base, n < 0 ? EVLOOP_ONCE : EVLOOP_NONBLOCK);
    }
    assert_true(total > N * blob_bytes);
    check_idle(&b);
    fini(&b);
}

static bool qemu_is_there(void)
{
    return system("command -v " QEMU " >/dev/null 2>&1") == 0;
}

int main(void)
{
    const struct CMUnitTest alone[] = {
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(queue_of_clients_is_full),
        cmocka_unit_test(refused_by_permission),
        cmocka_unit_test(path_too_long),
        cmocka_unit_test(closed_and_freed_by_its_user),
        cmocka_unit_test(slow_peer_gets_everything),
    };
    const struct CMUnitTest with_qemu[] = {
        cmocka_unit_test(talks_to_qemu),
        cmocka_unit_test(qemu_serves_one_client),
        cmocka_unit_test(killed_qemu_fails_calls),
        cmocka_unit_test(stopped_qemu_times_out),
    };
    int n_failed;

    if (!mkdtemp(directory))
        return 1;
    n_failed = cmocka_run_group_tests(alone, NULL, NULL);
    if (n_failed == 0 && !qemu_is_there()) {
        fprintf(stderr, "skipped: no " QEMU " (./setup installs it)\n");
        n_failed = 77;
    } else if (n_failed == 0) {
        n_failed = cmocka_run_group_tests(with_qemu, NULL, NULL);
    }
    rmdir(directory);
    return n_failed;
}
