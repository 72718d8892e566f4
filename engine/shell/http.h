/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small JSON server on a unix socket: a table of routes, replies now or later, and server-sent
 * events. It knows nothing of what is served.
 *
 * The life of a request: the route's handler gets it and must see to it that it is replied to
 * exactly once, with gw_http_reply(), gw_http_text(), gw_http_fail() or gw_http_events_add(): from
 * inside the handler, or later from the event loop. That call ends the request: the pointer is
 * dead. When the client goes away before, gw_http_on_close()'s callback tells; the request must
 * be replied to all the same (nobody reads it), so that there is one rule for who frees it.
 *
 * Before a handler sees a request: unknown path: 404, known path with another method: 405, a body
 * of more than GW_HTTP_MAX_BODY: 413, one that is no JSON object: 400, a path parameter that is
 * no clean text: 400. Errors are {"error": {"code", "message", "hint"}}. Only what evhttp itself
 * refuses (a malformed request line, bodies of more than twice the limit) is answered in HTML.
 *
 * Idle there are no timers; while there are subscribers, one every GW_HTTP_HEARTBEAT_S. The
 * program must ignore SIGPIPE. Not for use from several threads.
 */
#ifndef GW_SHELL_HTTP_H
#define GW_SHELL_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <jansson.h>

#include "godwit/error.h"
#include "util/log.h"

#define GW_HTTP_MAX_BODY        (1024 * 1024)
#define GW_HTTP_MAX_PARAM       255          /* bytes of a decoded path parameter */
#define GW_HTTP_MAX_PARAMS      4            /* in one pattern */
#define GW_HTTP_MAX_BEHIND      (256 * 1024) /* unsent bytes for which a subscriber is dropped */
#define GW_HTTP_MAX_SUBSCRIBERS 64
#define GW_HTTP_HEARTBEAT_S     15

struct event_base;
struct gw_http_server;
struct gw_http_request;
struct gw_http_api;

struct gw_http_route {
    const char *method;  /* "GET", "POST", "PUT", "DELETE" */
    const char *pattern; /* "/v1/migrations/{id}/log": {…} is one path segment, never empty */
    void (*handle)(struct gw_http_api *api, struct gw_http_request *request);
};

/* What is served. Embed it and use gw_container_of(). Of two patterns that match, the first wins.
 */
struct gw_http_api {
    const struct gw_http_route *routes;
    size_t n_routes;
};

/* Embed it to be told that the client of a request has gone. Called at most once, never from
 * inside another call on that request. It may reply to (and so free) the request. */
struct gw_http_closed {
    void (*fn)(struct gw_http_closed *self);
};

/*
 * Listens on a new unix socket at path, mode 0660 (and no more than the umask allows). A socket
 * that a killed daemon left there is replaced; one that somebody answers on is GW_E_EXISTS, and a
 * path that is something else, or too long, GW_E_CONFIG. The directory must exist. base, api and
 * log (may be NULL) must outlive the server. Returns 0 and *serverp, or -1 and *e.
 */
int gw_http_new(struct event_base *base, struct gw_http_api *api, const struct gw_log *log,
                const char *path, struct gw_http_server **serverp, struct gw_error *e);

/* Drops all connections (which calls the on_close callbacks) and removes the socket. Requests that
 * have not been replied to still have to be, whenever convenient. Not from inside a handler. NULL
 * is fine. */
void gw_http_free(struct gw_http_server *server);

/* "METHOD /path" a line, in the table's order; what tests/lib/check_openapi.py reads. */
void gw_http_print_routes(const struct gw_http_api *api, FILE *out);

/* Of a request. Everything returned is the request's own. */

/* "GET" …: the route's method. */
const char *gw_http_method(const struct gw_http_request *request);

/* The decoded value of {name} in the pattern: 1 to GW_HTTP_MAX_PARAM bytes of UTF-8 without
 * control characters and '/'. NULL only for a name that is not in the pattern. */
const char *gw_http_param(const struct gw_http_request *request, const char *name);

/* The first decoded value of ?name=…; "" for ?name= alone, NULL where there is none. Any bytes but
 * NUL. (A "?name" without "=" is refused with 400 before.) */
const char *gw_http_query(const struct gw_http_request *request, const char *name);

/* The body, always an object; NULL where there is none. */
const json_t *gw_http_body(const struct gw_http_request *request);

/* closed (NULL: nobody any more) is told when the client goes away. */
void gw_http_on_close(struct gw_http_request *request, struct gw_http_closed *closed);

/* The client has gone: what it takes to reply need not be computed. */
bool gw_http_is_closed(const struct gw_http_request *request);

/* Each of these ends the request. */

/* Takes body, also where it is sent to nobody. NULL sends no body (for 204). */
void gw_http_reply(struct gw_http_request *request, int status, json_t *body);

/* Text of another type, which is copied. */
void gw_http_text(struct gw_http_request *request, int status, const char *content_type,
                  const char *text, size_t n);

/* gw_http_status(e->code) and gw_error_to_json(e). */
void gw_http_fail(struct gw_http_request *request, const struct gw_error *e);

/* Makes it a subscriber of gw_http_broadcast(), until the client goes or falls behind. Replies
 * with an error where there are GW_HTTP_MAX_SUBSCRIBERS. */
void gw_http_events_add(struct gw_http_request *request);

/* Sends "event: NAME\ndata: JSON\n\n" to all subscribers. Takes data. name is a plain word. Costs
 * nothing much without subscribers; ask gw_http_n_subscribers() before building data. */
void gw_http_broadcast(struct gw_http_server *server, const char *name, json_t *data);

size_t gw_http_n_subscribers(const struct gw_http_server *server);

/* The HTTP status that fits: 400, 403, 404, 409, 422, 500, 501, 502, 504. */
int gw_http_status(enum gw_code code);

#endif
