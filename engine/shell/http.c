/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

#include "shell/error_json.h"
#include "shell/http.h"
#include "shell/unix_socket.h"
#include "util/cleanup.h"

#define MAX_HEADERS (16 * 1024)

/* How long a connection may take to send a whole request, or to ask for more. */
static const struct timeval idle = {.tv_sec = 60};

/* While the process is out of descriptors, accept() is tried again this often. */
static const struct timeval accept_again = {.tv_sec = 1};

struct gw_http_server {
    LIST_ENTRY(gw_http_server) entry;
    struct gw_http_api *api;
    const struct gw_log *log;
    struct evhttp *http;
    struct evconnlistener *listener; /* http's */
    struct event *again;             /* switches the listener on again */
    struct event *heartbeat;         /* pending only while there are subscribers */
    TAILQ_HEAD(, gw_http_request) requests;
    TAILQ_HEAD(, gw_http_request) subscribers;
    size_t n_subscribers;
    struct stat socket; /* which file is ours to remove */
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
};

/* Only for on_accept_error(), which libevent calls with evhttp's argument in place of ours. */
static LIST_HEAD(, gw_http_server) servers = LIST_HEAD_INITIALIZER(servers);

/* In exactly one of the server's two lists, until the server goes. */
struct gw_http_request {
    TAILQ_ENTRY(gw_http_request) entry;
    struct gw_http_server *server; /* NULL: it has gone, and the client with it */
    struct evhttp_request *ev;     /* NULL: the client has gone */
    const struct gw_http_route *route;
    char *params[GW_HTTP_MAX_PARAMS]; /* in the pattern's order */
    struct evkeyvalq query;
    json_t *body;
    struct gw_http_closed *closed;
    bool subscriber;
};

/* Errors */

int gw_http_status(enum gw_code code)
{
    switch (code) {
    case GW_OK: return 200;
    case GW_E_USAGE: return 400;
    case GW_E_PERMISSION: return 403;
    case GW_E_NOT_FOUND: return 404;
    case GW_E_EXISTS:
    case GW_E_BUSY:
    case GW_E_STATE:
    case GW_E_CANCELLED: return 409;
    case GW_E_CONFIG:
    case GW_E_REFUSED:
    case GW_E_INCOMPATIBLE: return 422;
    case GW_E_UNSUPPORTED: return 501;
    case GW_E_PROTOCOL:
    case GW_E_PEER:
    case GW_E_QEMU:
    case GW_E_QEMU_GONE: return 502;
    case GW_E_TIMEOUT: return 504;
    case GW_E_SYSTEM:
    case GW_E_UNRESOLVED:
    case GW_E_MEMORY:
    case GW_CODE_MAX: break;
    }
    return 500;
}

/* Replies */

static int add_to_evbuffer(const char *bytes, size_t n, void *buffer)
{
    return evbuffer_add(buffer, bytes, n);
}

/* Sends and forgets the evhttp request; body may be NULL. */
static void send_bytes(struct evhttp_request *ev, int status, const char *content_type,
                       struct evbuffer *body)
{
    if (body)
        evhttp_add_header(evhttp_request_get_output_headers(ev), "Content-Type", content_type);
    evhttp_send_reply(ev, status, NULL, body);
}

static void send_json(struct evhttp_request *ev, int status, json_t *json)
{
    struct evbuffer *body = json ? evbuffer_new() : NULL;

    if (body && (json_dump_callback(json, add_to_evbuffer, body, JSON_COMPACT) < 0 ||
                 evbuffer_add(body, "\n", 1) < 0)) {
        evbuffer_drain(body, evbuffer_get_length(body));
        status = 500;
    }
    send_bytes(ev, status, "application/json", body);
    if (body)
        evbuffer_free(body);
    json_decref(json);
}

static void send_error(struct evhttp_request *ev, int status, const struct gw_error *e)
{
    send_json(ev, status, json_pack("{s:o}", "error", gw_error_to_json(e)));
}

static struct evhttp_connection *connection(const struct gw_http_request *r)
{
    return evhttp_request_get_connection(r->ev);
}

static void request_free(struct gw_http_request *r)
{
    struct gw_http_server *s = r->server;

    if (s && r->subscriber) {
        TAILQ_REMOVE(&s->subscribers, r, entry);
        if (--s->n_subscribers == 0)
            event_del(s->heartbeat);
    } else if (s) {
        TAILQ_REMOVE(&s->requests, r, entry);
    }
    for (size_t i = 0; i < GW_HTTP_MAX_PARAMS; i++)
        free(r->params[i]);
    evhttp_clear_headers(&r->query);
    json_decref(r->body);
    free(r);
}

/*
 * While a request is being served evhttp does not read, and so would not notice that the client
 * went. Reading goes on here, up to a little, without evhttp's read callback (which takes bytes in
 * this state for a fatal error); evhttp puts its own back for the next request. The answer may
 * take any time, a subscriber's forever: no timeouts.
 */
static void watch(struct evhttp_connection *conn)
{
    struct bufferevent *bev = evhttp_connection_get_bufferevent(conn);
    bufferevent_data_cb on_write;
    bufferevent_event_cb on_event;
    void *arg;

    bufferevent_getcb(bev, NULL, &on_write, &on_event, &arg);
    bufferevent_setcb(bev, NULL, on_write, on_event, arg);
    bufferevent_setwatermark(bev, EV_READ, 0, MAX_HEADERS);
    bufferevent_set_timeouts(bev, NULL, NULL);
    bufferevent_enable(bev, EV_READ);
}

static void unwatch(struct evhttp_connection *conn)
{
    struct bufferevent *bev = evhttp_connection_get_bufferevent(conn);

    bufferevent_setwatermark(bev, EV_READ, 0, 0);
    bufferevent_set_timeouts(bev, &idle, &idle);
}

/* Ends the request. Returns what to reply to; NULL where the client has gone. */
static struct evhttp_request *finish(struct gw_http_request *r)
{
    struct evhttp_request *ev = r->ev;

    /* The connection lives on for the client's next request, and must not tell this one. */
    if (ev) {
        evhttp_connection_set_closecb(connection(r), NULL, NULL);
        unwatch(connection(r));
    }
    request_free(r);
    return ev;
}

void gw_http_reply(struct gw_http_request *r, int status, json_t *body)
{
    struct evhttp_request *ev = finish(r);

    if (ev)
        send_json(ev, status, body);
    else
        json_decref(body);
}

void gw_http_text(struct gw_http_request *r, int status, const char *content_type, const char *text,
                  size_t n)
{
    struct evhttp_request *ev = finish(r);
    struct evbuffer *body = ev ? evbuffer_new() : NULL;

    if (!ev)
        return;
    if (!body || evbuffer_add(body, text, n) < 0)
        status = 500;
    send_bytes(ev, status, content_type, body);
    if (body)
        evbuffer_free(body);
}

void gw_http_fail(struct gw_http_request *r, const struct gw_error *e)
{
    struct evhttp_request *ev = finish(r);

    if (ev)
        send_error(ev, gw_http_status(e->code), e);
}

/* The client went away, or the server goes. */
static void on_connection_closed(struct evhttp_connection *conn, void *arg)
{
    struct gw_http_request *r = arg;
    struct evhttp_request *ev = gw_steal_ptr(&r->ev);

    (void)conn;
    /* On an error evhttp leaves a request that is being served to its server; when it frees a
     * connection for another reason it frees the request too. */
    if (!evhttp_request_get_connection(ev))
        evhttp_request_free(ev);
    if (r->subscriber)
        request_free(r);
    else if (r->closed)
        r->closed->fn(r->closed);
}

void gw_http_on_close(struct gw_http_request *r, struct gw_http_closed *closed)
{
    r->closed = closed;
}

bool gw_http_is_closed(const struct gw_http_request *r)
{
    return !r->ev;
}

/* Asking */

const char *gw_http_method(const struct gw_http_request *r)
{
    return r->route->method;
}

const char *gw_http_param(const struct gw_http_request *r, const char *name)
{
    const char *p = r->route->pattern;
    size_t n = strlen(name);

    for (size_t i = 0; (p = strchr(p, '{')); i++, p++)
        if (strncmp(p + 1, name, n) == 0 && p[1 + n] == '}')
            return r->params[i];
    return NULL;
}

const char *gw_http_query(const struct gw_http_request *r, const char *name)
{
    return evhttp_find_header(&r->query, name);
}

const json_t *gw_http_body(const struct gw_http_request *r)
{
    return r->body;
}

/* Routing */

/* Where in the path the parameters are, still encoded. */
struct raw_params {
    size_t n;
    const char *text[GW_HTTP_MAX_PARAMS];
    size_t len[GW_HTTP_MAX_PARAMS];
};

/* Whether the path has the pattern's shape. */
static bool matches(const char *pattern, const char *path, struct raw_params *params)
{
    params->n = 0;
    while (*pattern == '/' && *path == '/') {
        size_t want = strcspn(++pattern, "/"), have = strcspn(++path, "/");

        if (*pattern == '{') {
            if (have == 0 || params->n == GW_HTTP_MAX_PARAMS)
                return false;
            params->text[params->n] = path;
            params->len[params->n++] = have;
        } else if (want != have || strncmp(pattern, path, want) != 0) {
            return false;
        }
        pattern += want;
        path += have;
    }
    return !*pattern && !*path;
}

/* The decoded parameter, which the caller frees; NULL for what is no clean text. */
static char *decode(const char *raw, size_t n)
{
    gw_autofree char *copy = strndup(raw, n), *text = NULL;
    json_t *utf8;
    size_t len = 0;

    text = copy ? evhttp_uridecode(copy, 0, &len) : NULL;
    if (!text || len == 0 || len > GW_HTTP_MAX_PARAM || strlen(text) != len || strchr(text, '/'))
        return NULL;
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return NULL;
    utf8 = json_string(text);
    json_decref(utf8);
    return utf8 ? gw_steal_ptr(&text) : NULL;
}

static const char *method_name(struct evhttp_request *ev)
{
    switch (evhttp_request_get_command(ev)) {
    case EVHTTP_REQ_GET: return "GET";
    case EVHTTP_REQ_POST: return "POST";
    case EVHTTP_REQ_PUT: return "PUT";
    case EVHTTP_REQ_DELETE: return "DELETE";
    default: return "";
    }
}

static void fail_early(struct evhttp_request *ev, int status, enum gw_code code, const char *msg)
{
    struct gw_error e = {.code = code};

    gw_error_set(&e, code, "%s", msg);
    send_error(ev, status, &e);
}

/* The route of this path and method; otherwise replies with 404 or 405 and returns NULL. */
static const struct gw_http_route *find_route(struct gw_http_api *api, struct evhttp_request *ev,
                                              struct raw_params *params)
{
    const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(ev));
    char allowed[64] = "";

    for (size_t i = 0; i < api->n_routes; i++) {
        const struct gw_http_route *route = &api->routes[i];

        if (!matches(route->pattern, path ? path : "", params))
            continue;
        if (strcmp(route->method, method_name(ev)) == 0)
            return route;
        if (strlen(allowed) + strlen(route->method) + 3 <= sizeof allowed)
            strcat(strcat(allowed, *allowed ? ", " : ""), route->method);
    }
    if (*allowed) {
        evhttp_add_header(evhttp_request_get_output_headers(ev), "Allow", allowed);
        fail_early(ev, 405, GW_E_USAGE, "that method is not for this path");
    } else {
        fail_early(ev, 404, GW_E_NOT_FOUND, "there is nothing at this path");
    }
    return NULL;
}

/* Otherwise replies and returns false. */
static bool read_body(struct gw_http_request *r, struct evhttp_request *ev)
{
    struct evbuffer *input = evhttp_request_get_input_buffer(ev);
    size_t n = evbuffer_get_length(input);
    struct gw_error e = {0};
    json_error_t why;

    if (n == 0)
        return true;
    if (n > GW_HTTP_MAX_BODY) {
        fail_early(ev, 413, GW_E_USAGE, "the body is larger than 1 MiB");
        return false;
    }
    r->body = json_loadb((const char *)evbuffer_pullup(input, -1), n, JSON_REJECT_DUPLICATES, &why);
    if (json_is_object(r->body))
        return true;
    if (r->body)
        gw_error_set(&e, GW_E_USAGE, "the body is JSON but not an object");
    else
        gw_error_set(&e, GW_E_USAGE, "the body is not JSON: line %d, column %d: %s", why.line,
                     why.column, why.text);
    send_error(ev, 400, &e);
    return false;
}

/* Otherwise replies and returns false. */
static bool read_params(struct gw_http_request *r, struct evhttp_request *ev,
                        const struct raw_params *raw)
{
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(ev));

    for (size_t i = 0; i < raw->n; i++)
        if (!(r->params[i] = decode(raw->text[i], raw->len[i]))) {
            fail_early(ev, 400, GW_E_USAGE, "a name in the path is too long or no clean text");
            return false;
        }
    if (query && evhttp_parse_query_str(query, &r->query) < 0) {
        fail_early(ev, 400, GW_E_USAGE, "what follows the '?' cannot be understood");
        return false;
    }
    return true;
}

static void handle(struct gw_http_server *s, struct gw_http_request *r, struct evhttp_request *ev)
{
    struct evhttp_connection *conn = evhttp_request_get_connection(ev);

    r->ev = ev;
    r->server = s;
    TAILQ_INSERT_TAIL(&s->requests, r, entry);
    evhttp_connection_set_closecb(conn, on_connection_closed, r);
    watch(conn);
    r->route->handle(s->api, r);
}

static void on_request(struct evhttp_request *ev, void *arg)
{
    struct gw_http_server *s = arg;
    struct raw_params raw;
    const struct gw_http_route *route = find_route(s->api, ev, &raw);
    struct gw_http_request *r;

    if (!route)
        return;
    r = calloc(1, sizeof *r);
    if (!r) {
        fail_early(ev, 500, GW_E_SYSTEM, "not enough memory");
        return;
    }
    r->route = route;
    TAILQ_INIT(&r->query);
    if (read_params(r, ev, &raw) && read_body(r, ev))
        handle(s, r, ev);
    else
        request_free(r);
}

void gw_http_print_routes(const struct gw_http_api *api, FILE *out)
{
    for (size_t i = 0; i < api->n_routes; i++)
        fprintf(out, "%s %s\n", api->routes[i].method, api->routes[i].pattern);
}

/* Events */

void gw_http_events_add(struct gw_http_request *r)
{
    static const struct timeval every = {.tv_sec = GW_HTTP_HEARTBEAT_S};
    struct gw_http_server *s = r->server;
    struct evkeyvalq *headers;
    struct gw_error e;

    if (!r->ev) {
        request_free(r);
        return;
    }
    if (s->n_subscribers == GW_HTTP_MAX_SUBSCRIBERS) {
        gw_error_set(&e, GW_E_BUSY, "there are %d subscribers already", GW_HTTP_MAX_SUBSCRIBERS);
        gw_http_fail(r, &e);
        return;
    }
    TAILQ_REMOVE(&s->requests, r, entry);
    TAILQ_INSERT_TAIL(&s->subscribers, r, entry);
    r->subscriber = true;
    if (s->n_subscribers++ == 0)
        event_add(s->heartbeat, &every);
    headers = evhttp_request_get_output_headers(r->ev);
    evhttp_add_header(headers, "Content-Type", "text/event-stream");
    evhttp_add_header(headers, "Cache-Control", "no-cache");
    evhttp_send_reply_start(r->ev, 200, NULL);
}

/* Sends the same bytes to all; drops who has not taken what was sent before. */
static void send_to_all(struct gw_http_server *s, const char *bytes, size_t n)
{
    struct gw_http_request *r, *next;
    struct evbuffer *chunk = evbuffer_new();

    for (r = TAILQ_FIRST(&s->subscribers); r && chunk; r = next) {
        struct bufferevent *bev = evhttp_connection_get_bufferevent(connection(r));
        size_t behind = evbuffer_get_length(bufferevent_get_output(bev));

        next = TAILQ_NEXT(r, entry);
        if (behind > GW_HTTP_MAX_BEHIND) {
            gw_log(s->log, GW_LOG_WARNING, "http",
                   "a subscriber of events is %zu bytes behind: dropped", behind);
            evhttp_connection_free(connection(r));
            continue;
        }
        if (evbuffer_add(chunk, bytes, n) == 0)
            evhttp_send_reply_chunk(r->ev, chunk);
        evbuffer_drain(chunk, evbuffer_get_length(chunk));
    }
    if (chunk)
        evbuffer_free(chunk);
}

void gw_http_broadcast(struct gw_http_server *s, const char *name, json_t *data)
{
    gw_autofree char *json = NULL, *text = NULL;
    int n;

    if (s->n_subscribers && (json = json_dumps(data, JSON_COMPACT))) {
        n = asprintf(&text, "event: %s\ndata: %s\n\n", name, json);
        if (n < 0)
            text = NULL;
        else
            send_to_all(s, text, (size_t)n);
    }
    json_decref(data);
}

size_t gw_http_n_subscribers(const struct gw_http_server *s)
{
    return s->n_subscribers;
}

static void on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    send_to_all(arg, ":\n\n", 3);
}

/* The socket */

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
    struct gw_http_server *s = arg;

    (void)fd;
    (void)what;
    evconnlistener_enable(s->listener);
}

/* Out of descriptors: the waiting connection would wake the loop again and again. */
static void on_accept_error(struct evconnlistener *listener, void *evhttp)
{
    struct gw_http_server *s;
    int why = errno;

    (void)evhttp;
    LIST_FOREACH (s, &servers, entry)
        if (s->listener == listener) {
            gw_log(s->log, GW_LOG_ERROR, "http", "accept on %s: %s", s->path, strerror(why));
            evconnlistener_disable(listener);
            event_add(s->again, &accept_again);
        }
}

static void configure(struct gw_http_server *s)
{
    evhttp_set_gencb(s->http, on_request, s);
    evhttp_set_max_headers_size(s->http, MAX_HEADERS);
    /* Ours is the smaller limit, so that the usual mistake is answered in JSON. */
    evhttp_set_max_body_size(s->http, 2 * GW_HTTP_MAX_BODY);
    evhttp_set_timeout_tv(s->http, &idle);
    /* All, as evhttp would answer what it does not allow with a page of HTML. */
    evhttp_set_allowed_methods(s->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                            EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
                                            EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE |
                                            EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH);
    evconnlistener_set_error_cb(s->listener, on_accept_error);
}

/* Takes fd. */
static int serve(struct gw_http_server *s, struct event_base *base, int fd)
{
    gw_autoclose int owned = fd;

    s->heartbeat = event_new(base, -1, EV_PERSIST, on_heartbeat, s);
    s->again = event_new(base, -1, 0, on_accept_again, s);
    s->http = evhttp_new(base);
    if (!s->heartbeat || !s->again || !s->http)
        return -1;
    s->listener =
        evconnlistener_new(base, NULL, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!s->listener)
        return -1;
    gw_steal_fd(&owned);
    if (!evhttp_bind_listener(s->http, s->listener)) {
        evconnlistener_free(s->listener);
        return -1;
    }
    configure(s);
    return 0;
}

int gw_http_new(struct event_base *base, struct gw_http_api *api, const struct gw_log *log,
                const char *path, struct gw_http_server **serverp, struct gw_error *e)
{
    struct gw_http_server *s;
    int fd;

    *serverp = NULL;
    fd = gw_unix_listen(path, e);
    if (fd < 0)
        return -1;
    s = calloc(1, sizeof *s);
    if (!s) {
        close(fd);
        unlink(path);
        return gw_error_set_sys(e, ENOMEM, "listen on %s", path);
    }
    s->api = api;
    s->log = log;
    TAILQ_INIT(&s->requests);
    TAILQ_INIT(&s->subscribers);
    LIST_INSERT_HEAD(&servers, s, entry);
    strcpy(s->path, path);
    lstat(path, &s->socket);
    if (serve(s, base, fd) < 0) {
        gw_http_free(s);
        return gw_error_set_sys(e, ENOMEM, "listen on %s", path);
    }
    *serverp = s;
    return 0;
}

/* Unless somebody put another one in its place meanwhile. */
static void remove_socket(struct gw_http_server *s)
{
    struct stat st;

    if (lstat(s->path, &st) == 0 && st.st_dev == s->socket.st_dev && st.st_ino == s->socket.st_ino)
        unlink(s->path);
}

void gw_http_free(struct gw_http_server *s)
{
    struct gw_http_request *r;

    if (!s)
        return;
    LIST_REMOVE(s, entry);
    remove_socket(s);
    if (s->http)
        evhttp_free(s->http);
    /* Those whose client has gone and that nobody has replied to yet. */
    while ((r = TAILQ_FIRST(&s->requests))) {
        TAILQ_REMOVE(&s->requests, r, entry);
        r->server = NULL;
    }
    if (s->heartbeat)
        event_free(s->heartbeat);
    if (s->again)
        event_free(s->again);
    free(s);
}
