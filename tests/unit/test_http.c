/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "shell/http.h"
#include "util/cleanup.h"

#define MAX_PARKED 4

/* A server, its loop, and what its handlers keep. */
struct world {
    struct event_base *base;
    struct gw_http_server *server;
    struct gw_http_api api;
    struct gw_http_closed closed;
    struct gw_http_request *parked[MAX_PARKED];
    size_t n_parked;
    int n_closed;
    bool reply_when_closed;
    char dir[32], path[64];
};

static void echo(struct gw_http_api *api, struct gw_http_request *r)
{
    json_t *reply = json_object();
    const char *const names[] = {"id", "part", "vm"};

    (void)api;
    json_object_set_new(reply, "method", json_string(gw_http_method(r)));
    for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++)
        if (gw_http_param(r, names[i]))
            json_object_set_new(reply, names[i], json_string(gw_http_param(r, names[i])));
    if (gw_http_query(r, "q"))
        json_object_set_new(reply, "q", json_string(gw_http_query(r, "q")));
    if (gw_http_body(r))
        json_object_set_new(reply, "body", json_deep_copy(gw_http_body(r)));
    gw_http_reply(r, 200, reply);
}

static void park(struct gw_http_api *api, struct gw_http_request *r)
{
    struct world *w = gw_container_of(api, struct world, api);

    gw_http_on_close(r, &w->closed);
    w->parked[w->n_parked++] = r;
}

static void refuse(struct gw_http_api *api, struct gw_http_request *r)
{
    struct gw_error e;

    (void)api;
    gw_error_set(&e, GW_E_BUSY, "VM \xff is \"moving\"");
    gw_error_hint(&e, "wait");
    gw_http_fail(r, &e);
}

static void subscribe(struct gw_http_api *api, struct gw_http_request *r)
{
    (void)api;
    gw_http_events_add(r);
}

static void text(struct gw_http_api *api, struct gw_http_request *r)
{
    (void)api;
    gw_http_text(r, 200, "text/plain", "a 1\n", 4);
}

static void nothing(struct gw_http_api *api, struct gw_http_request *r)
{
    (void)api;
    gw_http_reply(r, 204, NULL);
}

static const struct gw_http_route routes[] = {
    {"GET", "/v1/things", echo},
    {"POST", "/v1/things", echo},
    {"POST", "/v1/things/adopt", refuse},
    {"GET", "/v1/things/{id}", echo},
    {"DELETE", "/v1/things/{id}", nothing},
    {"GET", "/v1/things/{id}/parts/{part}", echo},
    {"GET", "/v1/{vm}/log", echo},
    {"GET", "/v1/parked", park},
    {"GET", "/v1/events", subscribe},
    {"GET", "/metrics", text},
};

static void on_closed(struct gw_http_closed *self)
{
    struct world *w = gw_container_of(self, struct world, closed);

    w->n_closed++;
    if (w->reply_when_closed)
        gw_http_reply(w->parked[--w->n_parked], 200, json_object());
}

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct gw_error e;

    w->base = event_base_new();
    w->api = (struct gw_http_api){routes, GW_ARRAY_SIZE(routes)};
    w->closed.fn = on_closed;
    strcpy(w->dir, "/tmp/gw-http-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->path, sizeof w->path, "%s/s", w->dir);
    if (gw_http_new(w->base, &w->api, NULL, w->path, &w->server, &e) < 0)
        fail_msg("%s", e.msg);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    gw_http_free(w->server);
    event_base_free(w->base);
    unlink(w->path);
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

/* The other end of a connection, in the same loop. */
struct client {
    struct bufferevent *bev;
    bool eof;
    char *text;
};

static void on_client_event(struct bufferevent *bev, short what, void *arg)
{
    struct client *c = arg;

    (void)bev;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        c->eof = true;
}

static int connect_fd(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    strcpy(sun.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof sun), 0);
    return fd;
}

static void client_init(struct client *c, struct world *w)
{
    *c = (struct client){0};
    c->bev = bufferevent_socket_new(w->base, connect_fd(w->path), BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(c->bev, NULL, NULL, on_client_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

static void client_fini(struct client *c)
{
    if (c->bev)
        bufferevent_free(c->bev);
    c->bev = NULL;
    free(c->text);
    c->text = NULL;
}

static void say(struct client *c, const char *text_to_send)
{
    bufferevent_write(c->bev, text_to_send, strlen(text_to_send));
}

/* All that was received and not taken yet, as text that lives until the next call. */
static const char *heard(struct client *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    size_t n = evbuffer_get_length(in);

    free(c->text);
    c->text = malloc(n + 1);
    evbuffer_copyout(in, c->text, n);
    c->text[n] = '\0';
    return c->text;
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    *(bool *)arg = true;
}

/* Runs the loop until the condition holds; ten seconds without it is a failure. */
#define WAIT_FOR(w, condition)                                                    \
    do {                                                                          \
        const struct timeval limit = {.tv_sec = 10};                              \
        bool late = false;                                                        \
        struct event *deadline = event_new((w)->base, -1, 0, on_deadline, &late); \
        event_add(deadline, &limit);                                              \
        while (!(condition) && !late)                                             \
            event_base_loop((w)->base, EVLOOP_ONCE);                              \
        event_free(deadline);                                                     \
        if (late)                                                                 \
            fail_msg("waited too long for " #condition);                          \
    } while (0)

/* Lets everything that is ready happen. */
static void settle(struct world *w)
{
    for (int i = 0; i < 20; i++)
        event_base_loop(w->base, EVLOOP_NONBLOCK);
}

static int note_timer(const struct event_base *base, const struct event *event, void *arg)
{
    struct timeval when;

    (void)base;
    if (event_pending(event, EV_TIMEOUT, &when))
        ++*(int *)arg;
    return 0;
}

/* One request on a connection of its own. The status; *bodyp (if not NULL) to free(). */
static int ask_raw(struct world *w, const char *request, size_t n, char **bodyp)
{
    struct client c;
    const char *answer, *body;
    int status;

    client_init(&c, w);
    bufferevent_write(c.bev, request, n);
    WAIT_FOR(w, c.eof);
    answer = heard(&c);
    if (sscanf(answer, "HTTP/1.1 %d ", &status) != 1)
        fail_msg("not HTTP: %s", answer);
    body = strstr(answer, "\r\n\r\n");
    if (bodyp)
        *bodyp = strdup(body ? body + 4 : "");
    client_fini(&c);
    return status;
}

static int ask(struct world *w, const char *method, const char *path, const char *body,
               json_t **jsonp)
{
    gw_autofree char *request = NULL, *answer = NULL;
    int status;

    assert_true(asprintf(&request,
                         "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                         "Content-Length: %zu\r\n\r\n%s",
                         method, path, strlen(body), body) > 0);
    status = ask_raw(w, request, strlen(request), &answer);
    if (jsonp)
        *jsonp = json_loads(answer, 0, NULL);
    return status;
}

static void assert_answer(struct world *w, const char *method, const char *path, const char *body,
                          int status, const char *expected)
{
    json_t *json, *want = json_loads(expected, 0, NULL);
    gw_autofree char *got = NULL;
    int s = ask(w, method, path, body, &json);

    got = json ? json_dumps(json, JSON_COMPACT) : NULL;
    if (s != status || !json_equal(json, want))
        fail_msg("%s %s: %d %s", method, path, s, got ? got : "(no JSON)");
    json_decref(json);
    json_decref(want);
}

static void assert_error(struct world *w, const char *method, const char *path, const char *body,
                         int status, const char *code)
{
    json_t *json, *error;
    int s = ask(w, method, path, body, &json);

    error = json_object_get(json, "error");
    if (s != status || !json_is_object(error) ||
        strcmp(json_string_value(json_object_get(error, "code")), code) != 0)
        fail_msg("%s %s: %d %s", method, path, s,
                 json_string_value(json_object_get(error, "message")));
    assert_true(json_string_length(json_object_get(error, "message")) > 0);
    json_decref(json);
}

static void requests_reach_their_routes(void **state)
{
    struct world *w = *state;

    assert_answer(w, "GET", "/v1/things", "", 200, "{\"method\":\"GET\"}");
    assert_answer(w, "GET", "/v1/things?q=a%20b&q=c", "", 200,
                  "{\"method\":\"GET\",\"q\":\"a b\"}");
    assert_answer(w, "GET", "/v1/things?q=", "", 200, "{\"method\":\"GET\",\"q\":\"\"}");
    assert_answer(w, "POST", "/v1/things", "{\"a\":[1]}", 200,
                  "{\"method\":\"POST\",\"body\":{\"a\":[1]}}");
    assert_answer(w, "POST", "/v1/things", "", 200, "{\"method\":\"POST\"}");
    assert_answer(w, "GET", "/v1/things/m-1", "", 200, "{\"method\":\"GET\",\"id\":\"m-1\"}");
    assert_answer(w, "GET", "/v1/things/m%2d1/parts/%C3%A4", "", 200,
                  "{\"method\":\"GET\",\"id\":\"m-1\",\"part\":\"\\u00e4\"}");
    /* /v1/things/{id}/parts/{part} nearly matches, and must leave nothing behind. */
    assert_answer(w, "GET", "/v1/things/log", "", 200, "{\"method\":\"GET\",\"id\":\"log\"}");
    assert_answer(w, "GET", "/v1/x/log", "", 200, "{\"method\":\"GET\",\"vm\":\"x\"}");
    assert_int_equal(ask(w, "DELETE", "/v1/things/m-1", "", NULL), 204);
}

static void what_is_not_there_is_said_in_json(void **state)
{
    struct world *w = *state;

    assert_error(w, "GET", "/", "", 404, "not-found");
    assert_error(w, "GET", "/v1", "", 404, "not-found");
    assert_error(w, "GET", "/v1/things/", "", 404, "not-found");
    assert_error(w, "GET", "/v1/things/a/parts", "", 404, "not-found");
    assert_error(w, "GET", "/v1/thingsandmore", "", 404, "not-found");
    assert_error(w, "GET", "/v1/thing", "", 404, "not-found");
    assert_error(w, "GET", "//v1/things", "", 404, "not-found");
    assert_error(w, "DELETE", "/v1/things", "", 405, "usage");
    assert_error(w, "PATCH", "/v1/things", "", 405, "usage");
    assert_error(w, "OPTIONS", "/v1/things", "", 405, "usage");
}

static void bad_requests_are_refused(void **state)
{
    struct world *w = *state;
    gw_autofree char *path = NULL, *big = malloc(GW_HTTP_MAX_BODY + 2);

    assert_error(w, "POST", "/v1/things", "{\"a\":", 400, "usage");
    assert_error(w, "POST", "/v1/things", "[1]", 400, "usage");
    assert_error(w, "POST", "/v1/things", "1", 400, "usage");
    assert_error(w, "POST", "/v1/things", "{} {}", 400, "usage");
    assert_error(w, "POST", "/v1/things", "{\"a\":1,\"a\":2}", 400, "usage");
    assert_error(w, "POST", "/v1/things", "{\"a\":\"\xff\"}", 400, "usage");
    assert_error(w, "GET", "/v1/things?q", "", 400, "usage");
    assert_error(w, "GET", "/v1/things/%00", "", 400, "usage");
    assert_error(w, "GET", "/v1/things/a%00b", "", 400, "usage");
    assert_error(w, "GET", "/v1/things/a%2fb", "", 400, "usage");
    assert_error(w, "GET", "/v1/things/%ff", "", 400, "usage");
    assert_error(w, "GET", "/v1/things/a%0ab", "", 400, "usage");
    assert_true(asprintf(&path, "/v1/things/%0256d", 0) > 0);
    assert_error(w, "GET", path, "", 400, "usage");
    path[strlen(path) - 1] = '\0';
    assert_int_equal(ask(w, "GET", path, "", NULL), 200);
    memset(big, ' ', GW_HTTP_MAX_BODY + 1);
    big[0] = '{';
    big[GW_HTTP_MAX_BODY] = '}';
    big[GW_HTTP_MAX_BODY + 1] = '\0';
    assert_error(w, "POST", "/v1/things", big, 413, "usage");
    big[GW_HTTP_MAX_BODY - 1] = '}';
    big[GW_HTTP_MAX_BODY] = '\0';
    assert_int_equal(ask(w, "POST", "/v1/things", big, NULL), 200);
}

static void rubbish_hurts_nobody(void **state)
{
    static const char *const rows[] = {
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "FOO /v1/things HTTP/1.1\r\nConnection: close\r\n\r\n",
        "POST /v1/things HTTP/1.1\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
        "POST /v1/things HTTP/1.1\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n",
        "POST /v1/things HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
        "GET http://[::1 HTTP/1.1\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01",
    };
    struct world *w = *state;
    struct client c;

    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        client_init(&c, w);
        say(&c, rows[i]);
        settle(w);
        client_fini(&c);
        settle(w);
    }
    assert_int_equal(ask(w, "GET", "/v1/things", "", NULL), 200);
}

static void errors_have_code_message_hint_and_status(void **state)
{
    struct world *w = *state;

    assert_answer(w, "POST", "/v1/things/adopt", "", 409,
                  "{\"error\":{\"code\":\"busy\",\"message\":\"VM ? is \\\"moving\\\"\","
                  "\"hint\":\"wait\"}}");
    for (int code = GW_E_USAGE; code < GW_CODE_MAX; code++)
        assert_in_range(gw_http_status((enum gw_code)code), 400, 599);
}

static void other_text_is_served_too(void **state)
{
    struct world *w = *state;
    const char *request = "GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n";
    gw_autofree char *body = NULL;

    assert_int_equal(ask_raw(w, request, strlen(request), &body), 200);
    assert_string_equal(body, "a 1\n");
}

static void connections_are_kept(void **state)
{
    struct world *w = *state;
    struct client c;

    client_init(&c, w);
    for (int i = 0; i < 3; i++) {
        say(&c, "GET /v1/things HTTP/1.1\r\nHost: x\r\n\r\n");
        WAIT_FOR(w, strstr(heard(&c), "{\"method\":\"GET\"}\n"));
        evbuffer_drain(bufferevent_get_input(c.bev), 100000);
        assert_false(c.eof);
    }
    client_fini(&c);
}

static void replies_may_come_later(void **state)
{
    struct world *w = *state;
    struct client c;

    client_init(&c, w);
    say(&c, "GET /v1/parked HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->n_parked == 1);
    assert_int_equal(evbuffer_get_length(bufferevent_get_input(c.bev)), 0);
    gw_http_reply(w->parked[0], 202, json_pack("{s:i}", "late", 1));
    WAIT_FOR(w, strstr(heard(&c), "{\"late\":1}"));
    client_fini(&c);
    settle(w);
    assert_int_equal(w->n_closed, 0);
}

static void a_client_that_leaves_is_noticed(void **state)
{
    struct world *w = *state;
    struct client c;

    client_init(&c, w);
    say(&c, "GET /v1/parked HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->n_parked == 1);
    client_fini(&c);
    WAIT_FOR(w, w->n_closed == 1);
    assert_true(gw_http_is_closed(w->parked[0]));
    gw_http_reply(w->parked[0], 200, json_object());

    w->n_parked = 0;
    w->reply_when_closed = true;
    client_init(&c, w);
    say(&c, "GET /v1/parked HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->n_parked == 1);
    client_fini(&c);
    WAIT_FOR(w, w->n_closed == 2);
    assert_int_equal(w->n_parked, 0);
}

/* A second request on a connection must not be told of by the first one's callback. */
static void pipelined_requests_wait(void **state)
{
    struct world *w = *state;
    struct client c;

    client_init(&c, w);
    say(&c, "GET /v1/parked HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/parked HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->n_parked == 1);
    settle(w);
    assert_int_equal(w->n_parked, 1);
    gw_http_reply(w->parked[0], 200, json_pack("{s:i}", "n", 1));
    WAIT_FOR(w, w->n_parked == 2);
    gw_http_reply(w->parked[1], 200, json_pack("{s:i}", "n", 2));
    WAIT_FOR(w, strstr(heard(&c), "{\"n\":1}") && strstr(heard(&c), "\r\n\r\n"));
    client_fini(&c);
}

static void going_down_tells_who_waits(void **state)
{
    struct world *w = *state;
    struct client c, gone, listener;

    client_init(&gone, w);
    say(&gone, "GET /v1/parked HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->n_parked == 1);
    client_fini(&gone);
    WAIT_FOR(w, w->n_closed == 1);
    client_init(&c, w);
    say(&c, "GET /v1/parked HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->n_parked == 2);
    client_init(&listener, w);
    say(&listener, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, gw_http_n_subscribers(w->server) == 1);
    gw_http_free(w->server);
    w->server = NULL;
    assert_int_equal(w->n_closed, 2);
    assert_int_equal(access(w->path, F_OK), -1);
    gw_http_reply(w->parked[0], 200, json_object());
    gw_http_fail(w->parked[1], &(struct gw_error){.code = GW_E_BUSY});
    WAIT_FOR(w, c.eof && listener.eof);
    client_fini(&c);
    client_fini(&listener);
}

/* What a client sends while it waits is kept within bounds, and does no harm. */
static void a_waiting_client_may_babble(void **state)
{
    struct world *w = *state;
    gw_autofree char *babble = malloc(1024 * 1024 + 1);
    struct client c, listener;

    memset(babble, 'x', 1024 * 1024);
    babble[1024 * 1024] = '\0';
    client_init(&c, w);
    client_init(&listener, w);
    say(&c, "GET /v1/parked HTTP/1.1\r\nHost: x\r\n\r\n");
    say(&listener, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->n_parked == 1 && gw_http_n_subscribers(w->server) == 1);
    say(&c, babble);
    say(&listener, babble);
    settle(w);
    assert_true(evbuffer_get_length(bufferevent_get_output(c.bev)) > 512 * 1024);
    assert_true(evbuffer_get_length(bufferevent_get_output(listener.bev)) > 512 * 1024);
    gw_http_reply(w->parked[0], 200, json_pack("{s:i}", "n", 1));
    WAIT_FOR(w, strstr(heard(&c), "{\"n\":1}"));
    gw_http_broadcast(w->server, "x", json_object());
    WAIT_FOR(w, strstr(heard(&listener), "event: x"));
    client_fini(&c);
    client_fini(&listener);
    settle(w);
}

static void events_reach_all_subscribers(void **state)
{
    struct world *w = *state;
    struct client a, b;

    gw_http_broadcast(w->server, "vm", json_pack("{s:s}", "name", "unheard"));
    client_init(&a, w);
    client_init(&b, w);
    say(&a, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    say(&b, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, gw_http_n_subscribers(w->server) == 2);
    gw_http_broadcast(w->server, "vm", json_pack("{s:s}", "name", "web1"));
    WAIT_FOR(w, strstr(heard(&a), "event: vm\ndata: {\"name\":\"web1\"}\n\n"));
    WAIT_FOR(w, strstr(heard(&b), "event: vm\ndata: {\"name\":\"web1\"}\n\n"));
    assert_non_null(strstr(heard(&a), "Content-Type: text/event-stream"));
    assert_non_null(strstr(heard(&a), "Transfer-Encoding: chunked"));
    assert_null(strstr(heard(&a), "unheard"));
    client_fini(&a);
    WAIT_FOR(w, gw_http_n_subscribers(w->server) == 1);
    gw_http_broadcast(w->server, "vm", json_pack("{s:s}", "name", "web2"));
    settle(w);
    client_fini(&b);
    WAIT_FOR(w, gw_http_n_subscribers(w->server) == 0);
}

static void slow_subscribers_are_dropped(void **state)
{
    struct world *w = *state;
    gw_autofree char *long_text = malloc(64 * 1024);
    struct client slow, quick;
    size_t read = 0;

    memset(long_text, 'x', 64 * 1024 - 1);
    long_text[64 * 1024 - 1] = '\0';
    client_init(&slow, w);
    client_init(&quick, w);
    bufferevent_disable(slow.bev, EV_READ);
    say(&slow, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    say(&quick, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, gw_http_n_subscribers(w->server) == 2);
    for (int i = 0; i < 100 && gw_http_n_subscribers(w->server) == 2; i++) {
        struct evbuffer *in = bufferevent_get_input(quick.bev);

        gw_http_broadcast(w->server, "x", json_pack("{s:s}", "x", long_text));
        settle(w);
        read += evbuffer_get_length(in);
        evbuffer_drain(in, evbuffer_get_length(in));
    }
    assert_int_equal(gw_http_n_subscribers(w->server), 1);
    assert_true(read > GW_HTTP_MAX_BEHIND);
    assert_false(quick.eof);
    bufferevent_enable(slow.bev, EV_READ);
    WAIT_FOR(w, slow.eof);
    client_fini(&slow);
    client_fini(&quick);
}

static void subscribers_are_counted(void **state)
{
    struct world *w = *state;
    struct client clients[GW_HTTP_MAX_SUBSCRIBERS];

    for (size_t i = 0; i < GW_HTTP_MAX_SUBSCRIBERS; i++) {
        client_init(&clients[i], w);
        say(&clients[i], "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    WAIT_FOR(w, gw_http_n_subscribers(w->server) == GW_HTTP_MAX_SUBSCRIBERS);
    assert_error(w, "GET", "/v1/events", "", 409, "busy");
    for (size_t i = 0; i < GW_HTTP_MAX_SUBSCRIBERS; i++)
        client_fini(&clients[i]);
    WAIT_FOR(w, gw_http_n_subscribers(w->server) == 0);
}

/* Only subscribers are worth waking up for. */
static void an_idle_server_has_no_timer(void **state)
{
    struct world *w = *state;
    struct client c;
    int n = 0;

    event_base_foreach_event(w->base, note_timer, &n);
    assert_int_equal(n, 0);
    client_init(&c, w);
    say(&c, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, gw_http_n_subscribers(w->server) == 1);
    settle(w);
    event_base_foreach_event(w->base, note_timer, &n);
    assert_int_equal(n, 1);
    client_fini(&c);
    WAIT_FOR(w, gw_http_n_subscribers(w->server) == 0);
    n = 0;
    event_base_foreach_event(w->base, note_timer, &n);
    assert_int_equal(n, 0);
}

static void a_parked_request_never_times_out(void **state)
{
    struct world *w = *state;
    struct client c;
    int n = 0;

    client_init(&c, w);
    settle(w);
    event_base_foreach_event(w->base, note_timer, &n);
    assert_int_equal(n, 1); /* a connection that asks for nothing */
    say(&c, "GET /v1/parked HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->n_parked == 1);
    n = 0;
    event_base_foreach_event(w->base, note_timer, &n);
    assert_int_equal(n, 0);
    gw_http_reply(w->parked[0], 200, json_object());
    settle(w);
    event_base_foreach_event(w->base, note_timer, &n);
    assert_int_equal(n, 1); /* again one that asks for nothing */
    client_fini(&c);
    settle(w);
}

static void running_out_of_descriptors_passes(void **state)
{
    struct world *w = *state;
    struct rlimit old, none;
    struct client c;
    int n = 0;

    client_init(&c, w);
    say(&c, "GET /v1/things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    getrlimit(RLIMIT_NOFILE, &old);
    none = old;
    none.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &none);
    settle(w);
    setrlimit(RLIMIT_NOFILE, &old);
    event_base_foreach_event(w->base, note_timer, &n);
    assert_int_equal(n, 1); /* asleep until the next try */
    WAIT_FOR(w, c.eof);
    assert_non_null(strstr(heard(&c), "200 OK"));
    client_fini(&c);
}

static void the_socket_is_for_owner_and_group(void **state)
{
    struct world *w = *state;
    struct stat st;

    assert_int_equal(stat(w->path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0007, 0);
    assert_int_equal(st.st_mode & 0600, 0600);
}

static void a_stale_socket_is_replaced(void **state)
{
    struct world *w = *state;
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct gw_error e;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    gw_http_free(w->server);
    strcpy(sun.sun_path, w->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof sun), 0);
    close(fd);
    assert_int_equal(gw_http_new(w->base, &w->api, NULL, w->path, &w->server, &e), 0);
    assert_int_equal(ask(w, "GET", "/v1/things", "", NULL), 200);
}

static void a_live_socket_is_left_alone(void **state)
{
    struct world *w = *state;
    struct gw_http_server *second;
    struct gw_error e;

    assert_int_equal(gw_http_new(w->base, &w->api, NULL, w->path, &second, &e), -1);
    assert_null(second);
    assert_int_equal(e.code, GW_E_EXISTS);
    assert_int_equal(ask(w, "GET", "/v1/things", "", NULL), 200);
}

static void what_is_no_socket_is_left_alone(void **state)
{
    struct world *w = *state;
    struct gw_http_server *second;
    struct gw_error e;
    char path[64], longest[200];

    snprintf(path, sizeof path, "%s/file", w->dir);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(gw_http_new(w->base, &w->api, NULL, path, &second, &e), -1);
    assert_non_null(strstr(e.msg, "not a socket"));
    assert_int_equal(unlink(path), 0);
    memset(longest, 'x', sizeof longest);
    longest[0] = '/';
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(gw_http_new(w->base, &w->api, NULL, longest, &second, &e), -1);
    assert_non_null(strstr(e.msg, "1 to 107 bytes, not 199"));
    assert_int_equal(gw_http_new(w->base, &w->api, NULL, "/nonexistent/s", &second, &e), -1);
    assert_int_equal(e.sys, ENOENT);
    gw_http_free(NULL);
}

static void only_our_own_socket_is_removed(void **state)
{
    struct world *w = *state;

    unlink(w->path);
    close(open(w->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    gw_http_free(w->server);
    w->server = NULL;
    assert_int_equal(access(w->path, F_OK), 0);
}

static void routes_are_printed(void **state)
{
    struct world *w = *state;
    gw_autofree char *out = NULL;
    size_t n;
    FILE *f = open_memstream(&out, &n);

    gw_http_print_routes(&w->api, f);
    fclose(f);
    assert_int_equal(strncmp(out, "GET /v1/things\nPOST /v1/things\n", 31), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(requests_reach_their_routes),
        TEST(what_is_not_there_is_said_in_json),
        TEST(bad_requests_are_refused),
        TEST(rubbish_hurts_nobody),
        TEST(errors_have_code_message_hint_and_status),
        TEST(other_text_is_served_too),
        TEST(connections_are_kept),
        TEST(replies_may_come_later),
        TEST(a_client_that_leaves_is_noticed),
        TEST(pipelined_requests_wait),
        TEST(going_down_tells_who_waits),
        TEST(a_waiting_client_may_babble),
        TEST(events_reach_all_subscribers),
        TEST(slow_subscribers_are_dropped),
        TEST(subscribers_are_counted),
        TEST(an_idle_server_has_no_timer),
        TEST(a_parked_request_never_times_out),
        TEST(running_out_of_descriptors_passes),
        TEST(the_socket_is_for_owner_and_group),
        TEST(a_stale_socket_is_replaced),
        TEST(a_live_socket_is_left_alone),
        TEST(what_is_no_socket_is_left_alone),
        TEST(only_our_own_socket_is_removed),
        TEST(routes_are_printed),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
