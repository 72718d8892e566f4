/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/un.h>

#include "client.h"
#include "field.h"
#include "text.h"

enum {
    CONNECT_TIMEOUT_MS = 5000,
    REQUEST_TIMEOUT_MS = 30000,
    POLL_MS = 1000, /* only a bound: curl wakes up earlier for whatever is due */
};

struct body {
    char *bytes;
    size_t len;
    bool too_long;
};

/* One transfer with all that has to live as long as it does. */
struct transfer {
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
    char *sent_body;
    struct body body;
    char why[CURL_ERROR_SIZE];
};

static void interrupt_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
}

int gw_interrupts_open(struct gw_interrupts *interrupts, struct gw_error *e)
{
    sigset_t set;

    interrupt_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    interrupts->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (interrupts->fd < 0)
        return gw_error_set_sys(e, errno, "wait for signals");
    return 0;
}

void gw_interrupts_close(struct gw_interrupts *interrupts)
{
    sigset_t set;

    if (interrupts->fd < 0)
        return;
    close(interrupts->fd);
    interrupts->fd = -1;
    interrupt_signals(&set);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

bool gw_interrupts_wait(struct gw_interrupts *interrupts, int timeout_ms)
{
    struct pollfd p = {.fd = interrupts->fd, .events = POLLIN};
    struct signalfd_siginfo info;
    bool any = false;

    if (poll(&p, 1, timeout_ms) <= 0)
        return false;
    while (read(interrupts->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        any = true;
        interrupts->n_seen++;
        if (interrupts->notice)
            interrupts->notice(interrupts);
    }
    return any;
}

char *gw_client_path(const char *prefix, const char *name, const char *suffix)
{
    char *escaped = gw_text_no_memory(curl_easy_escape(NULL, name, 0));
    char *path = NULL;

    if (asprintf(&path, "%s%s%s", prefix, escaped, suffix) < 0)
        path = NULL;
    curl_free(escaped);
    return gw_text_no_memory(path);
}

static size_t take_body(char *bytes, size_t one, size_t len, void *data)
{
    struct body *b = data;
    char *grown;

    (void)one;
    if (len > GW_CLIENT_REPLY_MAX - b->len) {
        b->too_long = true;
        return 0;
    }
    grown = realloc(b->bytes, b->len + len + 1);
    if (!grown)
        return 0;
    memcpy(grown + b->len, bytes, len);
    b->bytes = grown;
    b->len += len;
    grown[b->len] = '\0';
    return len;
}

/* PATH_AS_IS because a VM called ".." must be a 404 and not another page. */
static CURL *new_easy(const struct gw_client *client, const char *path)
{
    CURL *easy = gw_text_no_memory(curl_easy_init());
    gw_autofree char *url = NULL;

    if (asprintf(&url, "http://godwitd%s", path) < 0)
        url = NULL;
    gw_text_no_memory(url);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, client->socket);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    return easy;
}

static void transfer_init(struct transfer *t, const struct gw_client *client,
                          const struct gw_request *r)
{
    t->easy = new_easy(client, r->path);
    t->multi = gw_text_no_memory(curl_multi_init());
    t->headers = gw_text_no_memory(curl_slist_append(NULL, "Expect:"));
    curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->why);
    curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, r->method);
    curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS,
                     (long)(r->timeout_ms ? r->timeout_ms : REQUEST_TIMEOUT_MS));
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, &t->body);
    if (r->body || strcmp(r->method, "POST") == 0) {
        t->sent_body = gw_text_no_memory(r->body ? json_dumps(r->body, JSON_COMPACT) : strdup(""));
        t->headers = curl_slist_append(t->headers, "Content-Type: application/json");
        curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->sent_body);
    }
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
    curl_multi_add_handle(t->multi, t->easy);
}

static void transfer_fini(struct transfer *t)
{
    curl_multi_remove_handle(t->multi, t->easy);
    curl_easy_cleanup(t->easy);
    curl_multi_cleanup(t->multi);
    curl_slist_free_all(t->headers);
    free(t->sent_body);
    free(t->body.bytes);
}

/* Waits for whatever comes first; interrupts are counted here. */
static void wait_for_any(CURLM *multi, const struct gw_client *client, int timeout_ms)
{
    struct gw_interrupts *in = client->interrupts;
    struct curl_waitfd extra = {.fd = in ? in->fd : -1, .events = CURL_WAIT_POLLIN};

    curl_multi_poll(multi, &extra, in ? 1 : 0, timeout_ms, NULL);
    if (in)
        gw_interrupts_wait(in, 0);
}

/* True once the transfer is over, with its result. */
static bool is_done(CURLM *multi, CURLcode *resultp)
{
    int rest;
    CURLMsg *msg;

    while ((msg = curl_multi_info_read(multi, &rest)))
        if (msg->msg == CURLMSG_DONE) {
            *resultp = msg->data.result;
            return true;
        }
    return false;
}

static CURLcode run_transfer(struct transfer *t, const struct gw_client *client)
{
    CURLcode result = CURLE_OK;
    int running = 1;

    for (;;) {
        if (curl_multi_perform(t->multi, &running) != CURLM_OK)
            return CURLE_FAILED_INIT;
        if (is_done(t->multi, &result))
            return result;
        if (client->interrupts && client->interrupts->n_seen >= 2)
            return CURLE_ABORTED_BY_CALLBACK;
        wait_for_any(t->multi, client, POLL_MS);
    }
}

/* libcurl's own text names neither the socket nor the reason. */
static int unreachable(const struct gw_client *client, CURL *easy, struct gw_error *e)
{
    long sys = 0;

    curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &sys);
    gw_error_set_sys(e, sys ? (int)sys : ECONNREFUSED, "cannot reach godwitd at %s",
                     client->socket);
    if (sys == EACCES || sys == EPERM)
        return gw_error_hint(e, "run this as a user who may open the socket, such as root");
    return gw_error_hint(e, "start it with 'systemctl start godwitd' or 'godwitd --config "
                            "/etc/godwit/godwitd.yaml'; another socket: --socket PATH or "
                            "GODWIT_SOCKET");
}

static int transfer_failed(const struct gw_client *client, const struct transfer *t,
                           CURLcode result, const struct gw_request *r, struct gw_error *e)
{
    const char *why = t->why[0] ? t->why : curl_easy_strerror(result);

    switch (result) {
    case CURLE_COULDNT_CONNECT: return unreachable(client, t->easy, e);
    case CURLE_ABORTED_BY_CALLBACK:
        return gw_error_set(e, GW_E_CANCELLED, "interrupted while waiting for godwitd's answer");
    case CURLE_OPERATION_TIMEDOUT:
        gw_error_set(e, GW_E_TIMEOUT, "godwitd at %s did not answer %s %s in time", client->socket,
                     r->method, r->path);
        return gw_error_hint(e, "look at its log: journalctl -u godwitd");
    default: break;
    }
    if (t->body.too_long)
        return gw_error_set(e, GW_E_PROTOCOL, "godwitd's answer to %s %s is longer than %d MiB",
                            r->method, r->path, GW_CLIENT_REPLY_MAX >> 20);
    gw_error_set(e, GW_E_PEER, "the connection to godwitd at %s broke during %s %s: %s",
                 client->socket, r->method, r->path, why);
    return gw_error_hint(e, "look whether it still runs: systemctl status godwitd");
}

static int daemon_said_no(const struct gw_request *r, const struct gw_reply *reply,
                          struct gw_error *e)
{
    const json_t *error = gw_field_object(reply->json, "error");
    const char *message = gw_field_str(error, "message", NULL);

    if (!message)
        return gw_error_set(e, reply->status == 404 ? GW_E_NOT_FOUND : GW_E_PROTOCOL,
                            "godwitd answered %ld to %s %s without saying why", reply->status,
                            r->method, r->path);
    gw_error_set(e, gw_code_from_name(gw_field_str(error, "code", NULL)), "%s", message);
    return gw_error_hint(e, "%s", gw_field_str(error, "hint", ""));
}

static int take_answer(struct transfer *t, const struct gw_request *r, struct gw_reply *reply,
                       struct gw_error *e)
{
    const char *type = NULL;
    json_error_t why;

    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &reply->status);
    curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &type);
    reply->text = gw_steal_ptr(&t->body.bytes);
    if (reply->text && (!type || strncmp(type, "text/plain", 10) != 0))
        reply->json = json_loadb(reply->text, t->body.len, JSON_DECODE_ANY, &why);
    if (reply->status < 200 || reply->status > 299)
        return daemon_said_no(r, reply, e);
    if (reply->text && !reply->json && (!type || strncmp(type, "text/plain", 10) != 0))
        return gw_error_set(e, GW_E_PROTOCOL, "godwitd's answer to %s %s is no JSON: %s (line %d)",
                            r->method, r->path, why.text, why.line);
    return 0;
}

int gw_client_send(const struct gw_client *client, const struct gw_request *request,
                   struct gw_reply *reply, struct gw_error *e)
{
    struct transfer t = {0};
    struct sockaddr_un address;
    CURLcode result;
    int r;

    *reply = (struct gw_reply){0};
    if (strlen(client->socket) >= sizeof address.sun_path)
        return gw_error_set(e, GW_E_USAGE,
                            "socket path %s is longer than the %zu bytes that a socket may have",
                            client->socket, sizeof address.sun_path - 1);
    transfer_init(&t, client, request);
    result = run_transfer(&t, client);
    reply->sent = result != CURLE_COULDNT_CONNECT;
    r = result == CURLE_OK ? take_answer(&t, request, reply, e)
                           : transfer_failed(client, &t, result, request, e);
    transfer_fini(&t);
    return r;
}

void gw_reply_fini(struct gw_reply *reply)
{
    json_decref(reply->json);
    free(reply->text);
    *reply = (struct gw_reply){0};
}

int gw_client_get(const struct gw_client *client, const char *path, json_t **jsonp,
                  struct gw_error *e)
{
    const struct gw_request request = {.method = "GET", .path = path};
    GW_REPLY_AUTO struct gw_reply reply = {0};

    if (gw_client_send(client, &request, &reply, e) < 0)
        return -1;
    if (!reply.json)
        return gw_error_set(e, GW_E_PROTOCOL, "godwitd's answer to GET %s is no JSON", path);
    *jsonp = gw_steal_ptr(&reply.json);
    return 0;
}

static size_t take_events(char *bytes, size_t one, size_t len, void *data)
{
    struct gw_stream *stream = data;
    long status = 0;

    (void)one;
    curl_easy_getinfo(stream->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200)
        return len;
    stream->refused = gw_sse_feed(&stream->sse, bytes, len);
    return stream->refused ? 0 : len;
}

int gw_stream_open(struct gw_stream *stream, const struct gw_client *client,
                   struct gw_sse_sink *sink, struct gw_error *e)
{
    gw_stream_close(stream);
    stream->client = client;
    stream->sse.sink = sink;
    stream->easy = new_easy(client, "/v1/events");
    stream->multi = gw_text_no_memory(curl_multi_init());
    curl_easy_setopt(stream->easy, CURLOPT_WRITEFUNCTION, take_events);
    curl_easy_setopt(stream->easy, CURLOPT_WRITEDATA, stream);
    if (curl_multi_add_handle(stream->multi, stream->easy) == CURLM_OK)
        return 0;
    gw_stream_close(stream);
    return gw_error_set(e, GW_E_SYSTEM, "cannot set up the stream of events");
}

static int stream_ended(struct gw_stream *stream, CURLcode result, struct gw_error *e)
{
    long status = 0;

    curl_easy_getinfo(stream->easy, CURLINFO_RESPONSE_CODE, &status);
    if (result == CURLE_COULDNT_CONNECT)
        unreachable(stream->client, stream->easy, e);
    else if (stream->refused)
        gw_error_set(e, GW_E_PROTOCOL, "an event from godwitd is longer than %d bytes",
                     GW_SSE_EVENT_MAX);
    else if (status && status != 200)
        gw_error_set(e, GW_E_PROTOCOL, "godwitd answered %ld to GET /v1/events", status);
    else
        gw_error_set(e, GW_E_PEER, "godwitd at %s ended the stream of events",
                     stream->client->socket);
    gw_stream_close(stream);
    return -1;
}

int gw_stream_pump(struct gw_stream *stream, int timeout_ms, struct gw_error *e)
{
    CURLcode result = CURLE_OK;
    int running;
    long status = 0;

    wait_for_any(stream->multi, stream->client, timeout_ms);
    curl_multi_perform(stream->multi, &running);
    if (is_done(stream->multi, &result))
        return stream_ended(stream, result, e);
    curl_easy_getinfo(stream->easy, CURLINFO_RESPONSE_CODE, &status);
    stream->open = status == 200;
    return 0;
}

void gw_stream_close(struct gw_stream *stream)
{
    if (!stream->easy)
        return;
    curl_multi_remove_handle(stream->multi, stream->easy);
    curl_easy_cleanup(stream->easy);
    curl_multi_cleanup(stream->multi);
    gw_sse_fini(&stream->sse);
    *stream = (struct gw_stream){0};
}
