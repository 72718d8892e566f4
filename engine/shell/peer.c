/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection between two nodes, from the start of TLS to its end.
 *
 * Happy path: CONNECTING -> HANDSHAKING -> (client: PROVING ->) OPEN -> FLUSHING -> LINGERING ->
 * DONE. Whatever goes wrong goes through gw_peer_fail() to DONE, and one event tells the handler.
 *
 * In TLS 1.3 the client's handshake is over before the server has judged the client's certificate.
 * So the server speaks first, with a PING, and the client sends nothing before that: a client that
 * was refused finds the alert that says so, not a reset caused by its own early bytes.
 */
#include "shell/peer_private.h"

#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "shell/pki.h"
#include "util/cleanup.h"

#define BURST_PINGS 8

const struct gw_peer_options gw_peer_defaults = {
    .handshake_ms = 5000,
    .ping_interval_ms = 1000,
    .dead_after_ms = 5000,
    .close_ms = 1000,
    .join_ms = 30000,
    .n_unauthenticated = 64,
    .max_output_bytes = 4u << 20,
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static struct timeval ms_to_timeval(unsigned ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

/* --- life and death -------------------------------------------------------------------------- */

static void drop_socket(struct gw_peer_conn *conn)
{
    gw_peer_stop_connecting(conn);
    event_del(conn->tick);
    event_del(conn->deadline);
    if (conn->bev)
        bufferevent_free(conn->bev);
    else
        SSL_free(conn->ssl);
    conn->bev = NULL;
    conn->ssl = NULL;
}

static void destroy(struct gw_peer_conn *conn)
{
    event_free(conn->fate);
    event_free(conn->tick);
    event_free(conn->deadline);
    OPENSSL_cleanse(&conn->token, sizeof conn->token);
    free(conn);
}

void gw_peer_enter(struct gw_peer_conn *conn)
{
    conn->depth++;
}

void gw_peer_leave(struct gw_peer_conn *conn)
{
    if (--conn->depth == 0 && conn->released)
        destroy(conn);
}

void gw_peer_free(struct gw_peer_conn *conn)
{
    if (!conn || conn->released)
        return;
    conn->state = GW_PEER_DONE;
    conn->handler = NULL;
    if (conn->measure)
        gw_peer_measure_cancel(conn->measure);
    conn->released = true;
    drop_socket(conn);
    event_del(conn->fate);
    if (conn->depth == 0)
        destroy(conn);
}

static void finish(struct gw_peer_conn *conn)
{
    if (conn->state == GW_PEER_DONE)
        return;
    conn->state = GW_PEER_DONE;
    event_del(conn->tick);
    event_del(conn->deadline);
    event_active(conn->fate, EV_TIMEOUT, 0);
}

void gw_peer_fail(struct gw_peer_conn *conn, const struct gw_error *error)
{
    if (conn->state == GW_PEER_DONE)
        return;
    conn->failed = true;
    conn->error = *error;
    finish(conn);
}

static void on_fate(evutil_socket_t fd, short what, void *arg)
{
    struct gw_peer_conn *conn = arg;

    (void)fd;
    (void)what;
    gw_peer_enter(conn);
    drop_socket(conn);
    gw_peer_measure_lost(conn);
    if (conn->listener)
        gw_peer_listener_refused(conn);
    else if (conn->handler)
        conn->handler->closed(conn->handler, conn, conn->failed ? &conn->error : NULL);
    gw_peer_leave(conn);
}

static void fail_timeout(struct gw_peer_conn *conn)
{
    struct gw_error e;

    if (conn->state == GW_PEER_OPEN)
        gw_error_set(&e, GW_E_TIMEOUT, "joining through %s took longer than %u s", conn->where,
                     conn->options.join_ms / 1000);
    else if (conn->state == GW_PEER_FLUSHING)
        gw_error_set(&e, GW_E_TIMEOUT, "%s did not take the last messages within %u ms",
                     conn->where, conn->options.close_ms);
    else if (conn->state == GW_PEER_CONNECTING)
        gw_error_set(&e, GW_E_TIMEOUT, "connecting to %s took too long", conn->where);
    else
        gw_error_set(&e, GW_E_TIMEOUT, "the TLS handshake with %s took too long", conn->where);
    gw_peer_fail(conn, &e);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct gw_peer_conn *conn = arg;

    (void)fd;
    (void)what;
    if (conn->state == GW_PEER_LINGERING)
        finish(conn); /* all was handed over; that the peer is slow to leave is no error */
    else
        fail_timeout(conn);
}

void gw_peer_set_deadline(struct gw_peer_conn *conn, unsigned ms)
{
    struct timeval t = ms_to_timeval(ms);

    event_add(conn->deadline, &t);
}

/* --- sending --------------------------------------------------------------------------------- */

/* Everything that goes out goes through here: the one place that bounds the queue. */
static int queue(struct gw_peer_conn *conn, enum gw_wire_type type, const json_t *body,
                 struct gw_error *error)
{
    struct evbuffer *out = bufferevent_get_output(conn->bev);
    struct gw_error e;

    if (gw_wire_encode(out, type, body, error) < 0)
        return -1;
    if (evbuffer_get_length(out) <= conn->options.max_output_bytes)
        return 0;
    gw_error_set(&e, GW_E_PEER, "%s does not read: more than %zu bytes wait for it", conn->where,
                 conn->options.max_output_bytes);
    gw_peer_fail(conn, &e);
    if (error)
        *error = e;
    return -1;
}

/* A message of our own; a failure to send it ends the connection. */
void gw_peer_queue_own(struct gw_peer_conn *conn, enum gw_wire_type type, json_t *body)
{
    struct gw_error e;

    if (!body)
        gw_error_set_sys(&e, ENOMEM, "%s", conn->where);
    if (!body || queue(conn, type, body, &e) < 0)
        gw_peer_fail(conn, &e);
    json_decref(body);
}

/* JOIN from the holder of the token, JOINED back, and nothing else; neither on other connections.
 */
static bool may_carry(const struct gw_peer_conn *conn, unsigned type, bool from_client)
{
    if (conn->join)
        return type == (from_client ? GW_WIRE_JOIN : GW_WIRE_JOINED);
    return type != GW_WIRE_JOIN && type != GW_WIRE_JOINED;
}

int gw_peer_send(struct gw_peer_conn *conn, enum gw_wire_type type, const json_t *body,
                 struct gw_error *error)
{
    if (conn->state != GW_PEER_OPEN)
        return gw_error_set(error, GW_E_STATE, "send %s to %s: the connection is not open",
                            gw_wire_type_name(type), conn->where);
    if (!may_carry(conn, type, conn->client) || type == GW_WIRE_PING || type == GW_WIRE_PONG)
        return gw_error_set(error, GW_E_USAGE, "%s cannot be sent to %s", gw_wire_type_name(type),
                            conn->where);
    return queue(conn, type, body, error);
}

/* --- keepalive and the clock ----------------------------------------------------------------- */

static void send_ping(struct gw_peer_conn *conn)
{
    conn->ping_ns = now_ns();
    gw_peer_queue_own(conn, GW_WIRE_PING, json_pack("{sI}", "t0", (json_int_t)conn->ping_ns));
}

static void take_ping(struct gw_peer_conn *conn, const json_t *body, int64_t received_ns)
{
    json_t *t0 = json_object_get(body, "t0");

    gw_peer_queue_own(conn, GW_WIRE_PONG,
                      json_pack("{sI, sI, sI}", "t0", json_integer_value(t0), "t1",
                                (json_int_t)received_ns, "t2", (json_int_t)now_ns()));
}

static void take_pong(struct gw_peer_conn *conn, const json_t *body, int64_t received_ns)
{
    gw_peer_measure_pong(conn, body);
    /* A PONG to no PING of ours proves nothing; it is ignored, as are impossible times. */
    if (conn->ping_ns == 0 || json_integer_value(json_object_get(body, "t0")) != conn->ping_ns)
        return;
    gw_offset_add(&conn->offset, conn->ping_ns, json_integer_value(json_object_get(body, "t1")),
                  json_integer_value(json_object_get(body, "t2")), received_ns);
    conn->ping_ns = 0;
    if (conn->n_burst > 0) {
        conn->n_burst--;
        send_ping(conn);
    }
}

/*
 * Silence is counted in ticks of our own timer, not read off the clock: when this process itself
 * has been stopped or blocked, one tick is late, and the peer's bytes are read before the next.
 */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct gw_peer_conn *conn = arg;
    struct gw_error e;

    (void)fd;
    (void)what;
    if (++conn->n_silent_ticks * conn->options.ping_interval_ms >= conn->options.dead_after_ms) {
        gw_error_set(&e, GW_E_PEER, "%s has not answered for %g s", conn->where,
                     conn->options.dead_after_ms / 1000.0);
        gw_peer_fail(conn, &e);
        return;
    }
    if (conn->ping_ns == 0)
        send_ping(conn);
}

int gw_peer_offset(const struct gw_peer_conn *conn, int64_t *offset_nsp, int64_t *uncertainty_nsp,
                   struct gw_error *error)
{
    if (!gw_offset_get(&conn->offset, now_ns(), offset_nsp, uncertainty_nsp))
        return gw_error_set(error, GW_E_STATE, "the clock of %s is not known yet", conn->where);
    return 0;
}

/* --- opening --------------------------------------------------------------------------------- */

void gw_peer_open(struct gw_peer_conn *conn)
{
    conn->state = GW_PEER_OPEN;
    if (conn->join)
        gw_peer_set_deadline(conn, conn->options.join_ms);
    else
        event_del(conn->deadline);
    if (conn->client && conn->handler && conn->handler->ready)
        conn->handler->ready(conn->handler, conn);
}

static void start_keepalive(struct gw_peer_conn *conn)
{
    struct timeval t = ms_to_timeval(conn->options.ping_interval_ms);

    event_add(conn->tick, &t);
    conn->n_burst = BURST_PINGS - 1;
    send_ping(conn);
}

static int take_name(struct gw_peer_conn *conn, char name[GW_NODE_NAME_MAX + 1],
                     struct gw_error *error)
{
    X509 *cert = SSL_get0_peer_certificate(conn->ssl);

    /* OpenSSL has refused both already; nothing else may depend on that alone. */
    if (!cert || SSL_get_verify_result(conn->ssl) != X509_V_OK)
        return gw_error_set(error, GW_E_PERMISSION, "%s has shown no certificate", conn->where);
    return gw_pki_cert_name(cert, name, error);
}

static void server_authenticated(struct gw_peer_conn *conn)
{
    char address[GW_PEER_WHERE_MAX];
    struct gw_error e;

    conn->join = SSL_session_reused(conn->ssl); /* sessions are never resumed: a token's key */
    if (!conn->join) {
        memcpy(address, conn->where, sizeof address);
        if (take_name(conn, conn->name, &e) < 0) {
            gw_peer_fail(conn, &e);
            return;
        }
        snprintf(conn->where, sizeof conn->where, "%s (%.280s)", conn->name, address);
        start_keepalive(conn);
    }
    if (conn->state != GW_PEER_HANDSHAKING)
        return;
    gw_peer_open(conn);
    gw_peer_listener_passed(conn);
}

static int check_server(struct gw_peer_conn *conn, struct gw_error *error)
{
    char name[GW_NODE_NAME_MAX + 1];

    if (conn->join) {
        if (!SSL_session_reused(conn->ssl))
            return gw_error_set(error, GW_E_PERMISSION, "%s did not use the token", conn->where);
        return 0;
    }
    if (take_name(conn, name, error) < 0)
        return -1;
    if (strcmp(name, conn->name) != 0)
        return gw_error_set(error, GW_E_PERMISSION, "%s says that it is node %s", conn->where,
                            name);
    return 0;
}

static void client_authenticated(struct gw_peer_conn *conn)
{
    struct gw_error e;

    if (check_server(conn, &e) < 0)
        gw_peer_fail(conn, &e);
    else if (conn->join)
        gw_peer_open(conn);
    else
        conn->state = GW_PEER_PROVING;
}

/* --- receiving ------------------------------------------------------------------------------- */

static bool is_open(const struct gw_peer_conn *conn)
{
    return conn->state == GW_PEER_PROVING || conn->state == GW_PEER_OPEN;
}

/* Ready with the first PONG, so that the clock is known then, or with whatever comes before it. */
static void take(struct gw_peer_conn *conn, unsigned type, json_t *body, int64_t received_ns)
{
    struct gw_error e;

    if (!may_carry(conn, type, !conn->client) ||
        (conn->join && (type == GW_WIRE_PING || type == GW_WIRE_PONG))) {
        gw_error_set(&e, GW_E_PROTOCOL, "%s has sent %s (%u), which has no place here", conn->where,
                     gw_wire_type_name(type), type);
        gw_peer_fail(conn, &e);
        return;
    }
    if (conn->state == GW_PEER_PROVING && !event_pending(conn->tick, EV_TIMEOUT, NULL))
        start_keepalive(conn);
    if (type == GW_WIRE_PING) {
        take_ping(conn, body, received_ns);
        return;
    }
    if (type == GW_WIRE_PONG)
        take_pong(conn, body, received_ns);
    if (conn->state == GW_PEER_PROVING)
        gw_peer_open(conn);
    if (type != GW_WIRE_PONG && conn->state == GW_PEER_OPEN && conn->handler)
        conn->handler->message(conn->handler, conn, type, body);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct evbuffer *in = bufferevent_get_input(bev);
    struct gw_peer_conn *conn = arg;
    struct gw_wire_message message;
    int64_t received_ns = now_ns();
    struct gw_error e;
    int r = 1;

    gw_peer_enter(conn);
    conn->n_silent_ticks = 0;
    while (is_open(conn) && (r = gw_wire_decode(in, &message, &e)) > 0) {
        take(conn, message.type, message.body, received_ns);
        json_decref(message.body);
    }
    if (r < 0) {
        gw_error_prefix(&e, "from %s", conn->where);
        gw_peer_fail(conn, &e);
    }
    if (!conn->released && !is_open(conn))
        evbuffer_drain(in, evbuffer_get_length(in)); /* closing: nobody listens any more */
    gw_peer_leave(conn);
}

/* --- the end --------------------------------------------------------------------------------- */

static bool is_alert(unsigned long tls)
{
    return ERR_GET_LIB(tls) == ERR_LIB_SSL && ERR_GET_REASON(tls) >= SSL_AD_REASON_OFFSET;
}

static bool is_eof(unsigned long tls)
{
    return ERR_GET_LIB(tls) == ERR_LIB_SSL &&
           ERR_GET_REASON(tls) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
}

static void explain_refusal(const struct gw_peer_conn *conn, unsigned long tls,
                            struct gw_error *error)
{
    const char *reason = ERR_reason_error_string(tls);

    if (conn->client && conn->join)
        gw_token_refused(conn->where, error);
    else if (ERR_GET_REASON(tls) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        gw_error_set(error, GW_E_PERMISSION, "the certificate of %s is not acceptable: %s",
                     conn->where, X509_verify_cert_error_string(SSL_get_verify_result(conn->ssl)));
    else if (is_alert(tls))
        gw_error_set(error, GW_E_PERMISSION, "%s refused this node: %s", conn->where,
                     reason ? reason : "TLS alert");
    else
        gw_error_set(error, GW_E_PERMISSION, "the TLS handshake with %s failed: %s", conn->where,
                     reason ? reason : "OpenSSL gave no reason");
}

static void explain_end(const struct gw_peer_conn *conn, short what, int sys, unsigned long tls,
                        struct gw_error *error)
{
    bool early = conn->state < GW_PEER_OPEN;
    const char *when = early ? " before the handshake was over" : "";
    const char *reason = ERR_reason_error_string(tls);

    if (tls && !is_eof(tls) && early)
        explain_refusal(conn, tls, error);
    else if (tls && !is_eof(tls))
        gw_error_set(error, GW_E_PEER, "the connection to %s broke: %s", conn->where,
                     reason ? reason : "OpenSSL gave no reason");
    else if (what & BEV_EVENT_EOF || is_eof(tls) || sys == 0)
        gw_error_set(error, GW_E_PEER, "%s closed the connection%s", conn->where, when);
    else
        gw_error_set(error, GW_E_PEER, "the connection to %s broke%s: %s", conn->where, when,
                     strerror(sys));
}

static void ended(struct gw_peer_conn *conn, short what, int sys)
{
    unsigned long tls = bufferevent_get_openssl_error(conn->bev);
    struct gw_error e;

    if (conn->state == GW_PEER_LINGERING) {
        finish(conn);
        return;
    }
    explain_end(conn, what, sys, tls, &e);
    gw_peer_fail(conn, &e);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct gw_peer_conn *conn = arg;
    int sys = EVUTIL_SOCKET_ERROR();

    (void)bev;
    gw_peer_enter(conn);
    if (conn->state == GW_PEER_DONE)
        ; /* its fate is on the way */
    else if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        ended(conn, what, sys);
    else if (what & BEV_EVENT_CONNECTED && conn->client)
        client_authenticated(conn);
    else if (what & BEV_EVENT_CONNECTED)
        server_authenticated(conn);
    ERR_clear_error();
    gw_peer_leave(conn);
}

static void linger(struct gw_peer_conn *conn)
{
    conn->state = GW_PEER_LINGERING;
    SSL_shutdown(conn->ssl);
    ERR_clear_error();
    shutdown(bufferevent_getfd(conn->bev), SHUT_WR);
}

/* The output buffer is empty. */
static void on_write(struct bufferevent *bev, void *arg)
{
    struct gw_peer_conn *conn = arg;

    if (conn->state == GW_PEER_FLUSHING && evbuffer_get_length(bufferevent_get_output(bev)) == 0)
        linger(conn);
}

void gw_peer_close(struct gw_peer_conn *conn)
{
    if (conn->state >= GW_PEER_FLUSHING)
        return;
    if (conn->state != GW_PEER_OPEN) {
        finish(conn);
        return;
    }
    event_del(conn->tick);
    gw_peer_set_deadline(conn, conn->options.close_ms);
    conn->state = GW_PEER_FLUSHING;
    if (evbuffer_get_length(bufferevent_get_output(conn->bev)) == 0)
        linger(conn);
}

/* --- the beginning --------------------------------------------------------------------------- */

struct gw_peer_conn *gw_peer_conn_new(struct event_base *base,
                                      const struct gw_peer_options *options)
{
    struct gw_peer_conn *conn = calloc(1, sizeof *conn);

    if (!conn)
        return NULL;
    conn->base = base;
    conn->options = options ? *options : gw_peer_defaults;
    conn->fd = -1;
    conn->fate = event_new(base, -1, 0, on_fate, conn);
    conn->deadline = event_new(base, -1, 0, on_deadline, conn);
    conn->tick = event_new(base, -1, EV_PERSIST, on_tick, conn);
    if (conn->fate && conn->deadline && conn->tick)
        return conn;
    if (conn->fate)
        event_free(conn->fate);
    if (conn->deadline)
        event_free(conn->deadline);
    free(conn);
    return NULL;
}

int gw_peer_start_tls(struct gw_peer_conn *conn, int fd, struct gw_error *error)
{
    int one = 1;

    SSL_set_app_data(conn->ssl, conn);
    conn->bev = bufferevent_openssl_socket_new(conn->base, fd, conn->ssl,
                                               conn->client ? BUFFEREVENT_SSL_CONNECTING
                                                            : BUFFEREVENT_SSL_ACCEPTING,
                                               BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    if (!conn->bev)
        return gw_error_set_sys(error, ENOMEM, "begin TLS with %s", conn->where);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conn->state = GW_PEER_HANDSHAKING;
    bufferevent_setcb(conn->bev, on_read, on_write, on_event, conn);
    /* Room for the largest frame and a part of the next, or it would never become complete. */
    bufferevent_setwatermark(conn->bev, EV_READ, 0, 2 * GW_WIRE_MAX_BODY);
    bufferevent_enable(conn->bev, EV_READ | EV_WRITE);
    return 0;
}

/* Both sides take the cipher suite's hash, SHA-256, for the one that the key is bound to. */
SSL_SESSION *gw_peer_psk_session(SSL *ssl, const uint8_t secret[GW_TOKEN_SECRET_BYTES])
{
    static const unsigned char aes_128_gcm_sha256[] = {0x13, 0x01};
    static const unsigned char context_id[] = GW_PKI_SESSION_CONTEXT;
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    SSL_SESSION *session = SSL_SESSION_new();

    if (session && cipher && SSL_SESSION_set1_master_key(session, secret, GW_TOKEN_SECRET_BYTES) &&
        SSL_SESSION_set_cipher(session, cipher) &&
        SSL_SESSION_set1_id_context(session, context_id, sizeof context_id - 1) &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

/* --- what can be asked ----------------------------------------------------------------------- */

void gw_peer_set_handler(struct gw_peer_conn *conn, struct gw_peer_handler *handler)
{
    conn->handler = handler;
}

const char *gw_peer_conn_name(const struct gw_peer_conn *conn)
{
    return conn->name;
}

const char *gw_peer_conn_where(const struct gw_peer_conn *conn)
{
    return conn->where;
}

bool gw_peer_conn_is_join(const struct gw_peer_conn *conn)
{
    return conn->join;
}

const uint8_t *gw_peer_conn_token_id(const struct gw_peer_conn *conn)
{
    return conn->token.id;
}
