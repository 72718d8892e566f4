/* SPDX-License-Identifier: Apache-2.0 */
/* Where connections come in: who is still a stranger is bounded in number and time. */
#include <errno.h>
#include <event2/listener.h>
#include <netdb.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "shell/peer_private.h"
#include "util/cleanup.h"

#define BACKLOG      128
#define ACCEPT_AGAIN 1 /* seconds after accept() failed, for want of descriptors mostly */

struct gw_peer_listener {
    struct event_base *base;
    struct evconnlistener *evl;
    struct event *again;
    SSL_CTX *ctx;
    char *dir;
    struct gw_peer_acceptor *acceptor;
    struct gw_peer_options options;
    TAILQ_HEAD(, gw_peer_conn) strangers; /* in handshake, the oldest first */
    unsigned n_strangers;
};

static void leave_listener(struct gw_peer_conn *conn)
{
    TAILQ_REMOVE(&conn->listener->strangers, conn, link);
    conn->listener->n_strangers--;
    conn->listener = NULL;
}

void gw_peer_listener_passed(struct gw_peer_conn *conn)
{
    struct gw_peer_acceptor *acceptor = conn->listener->acceptor;

    leave_listener(conn);
    acceptor->accept(acceptor, conn);
    if (!conn->released && !conn->handler)
        gw_peer_free(conn);
}

static void refused(struct gw_peer_conn *conn, const struct gw_error *error)
{
    struct gw_peer_acceptor *acceptor = conn->listener->acceptor;

    leave_listener(conn);
    if (acceptor->refused)
        acceptor->refused(acceptor, conn->where, error);
    gw_peer_free(conn);
}

void gw_peer_listener_refused(struct gw_peer_conn *conn)
{
    refused(conn, &conn->error);
}

/*
 * Under a flood the oldest stranger gives way, not the newest: an honest handshake takes
 * milliseconds and gets through, while idle connections only push each other out.
 */
static void make_room(struct gw_peer_listener *listener)
{
    struct gw_error e;

    while (listener->n_strangers >= listener->options.n_unauthenticated) {
        gw_error_set(&e, GW_E_BUSY, "more than %u connections are in handshake at once",
                     listener->options.n_unauthenticated);
        refused(TAILQ_FIRST(&listener->strangers), &e);
    }
}

/* Called by OpenSSL inside the handshake; 0 aborts it. There is no second chance by certificate:
 * whoever comes with a token gets in by the token. */
static int find_psk(SSL *ssl, const unsigned char *id, size_t id_len, SSL_SESSION **sessionp)
{
    struct gw_peer_conn *conn = SSL_get_app_data(ssl);
    const char *dir = conn->listener ? conn->listener->dir : NULL;
    uint8_t secret[GW_TOKEN_SECRET_BYTES];

    *sessionp = NULL;
    if (!dir || id_len != GW_TOKEN_ID_BYTES || gw_token_find(dir, id, secret, NULL) < 0)
        return 0;
    memcpy(conn->token.id, id, id_len);
    *sessionp = gw_peer_psk_session(ssl, secret);
    OPENSSL_cleanse(secret, sizeof secret);
    return *sessionp != NULL;
}

static void describe(struct gw_peer_conn *conn, const struct sockaddr *address, int bytes)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];

    if (getnameinfo(address, (socklen_t)bytes, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(conn->where, sizeof conn->where, "unknown address");
    else
        snprintf(conn->where, sizeof conn->where, strchr(host, ':') ? "[%.300s]:%s" : "%.300s:%s",
                 host, port);
}

static void on_accept(struct evconnlistener *evl, evutil_socket_t fd, struct sockaddr *address,
                      int bytes, void *arg)
{
    struct gw_peer_listener *listener = arg;
    struct gw_peer_conn *conn;

    (void)evl;
    make_room(listener);
    conn = gw_peer_conn_new(listener->base, &listener->options);
    if (!conn) {
        close(fd);
        return;
    }
    describe(conn, address, bytes);
    conn->ssl = SSL_new(listener->ctx);
    if (!conn->ssl || gw_peer_start_tls(conn, fd, NULL) < 0) {
        ERR_clear_error();
        close(fd);
        gw_peer_free(conn);
        return;
    }
    SSL_set_psk_find_session_callback(conn->ssl, find_psk);
    conn->listener = listener;
    TAILQ_INSERT_TAIL(&listener->strangers, conn, link);
    listener->n_strangers++;
    gw_peer_set_deadline(conn, listener->options.handshake_ms);
}

/* A socket that cannot be accepted stays readable: without a pause the loop would spin on it. */
static void on_accept_error(struct evconnlistener *evl, void *arg)
{
    struct gw_peer_listener *listener = arg;
    struct timeval t = {.tv_sec = ACCEPT_AGAIN};

    evconnlistener_disable(evl);
    event_add(listener->again, &t);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    struct gw_peer_listener *listener = arg;

    (void)fd;
    (void)what;
    evconnlistener_enable(listener->evl);
}

static int bind_listener(struct gw_peer_listener *listener, const char *address, uint16_t port,
                         struct gw_error *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    char service[8], where[GW_PEER_WHERE_MAX];
    int r;

    snprintf(service, sizeof service, "%u", port);
    gw_node_format_address(where, sizeof where, address, port);
    r = getaddrinfo(address, service, &hints, &found);
    if (r != 0)
        return gw_error_set(error, GW_E_CONFIG, "listen on %s: %s", where, gai_strerror(r));
    listener->evl =
        evconnlistener_new_bind(listener->base, on_accept, listener,
                                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                BACKLOG, found->ai_addr, (int)found->ai_addrlen);
    r = errno;
    freeaddrinfo(found);
    if (!listener->evl)
        return gw_error_set_sys(error, r, "listen on %s", where);
    evconnlistener_set_error_cb(listener->evl, on_accept_error);
    return 0;
}

int gw_peer_listen(const struct gw_peer_listen_args *args, struct gw_peer_listener **listenerp,
                   struct gw_error *error)
{
    struct gw_peer_listener *listener = calloc(1, sizeof *listener);

    if (!listener)
        return gw_error_set_sys(error, ENOMEM, "listen for nodes");
    TAILQ_INIT(&listener->strangers);
    listener->base = args->base;
    listener->acceptor = args->acceptor;
    listener->options = args->options ? *args->options : gw_peer_defaults;
    SSL_CTX_up_ref(args->ctx);
    listener->ctx = args->ctx;
    listener->dir = args->dir ? strdup(args->dir) : NULL;
    listener->again = event_new(args->base, -1, 0, on_again, listener);
    if (!listener->again || (args->dir && !listener->dir)) {
        gw_peer_listener_free(listener);
        return gw_error_set_sys(error, ENOMEM, "listen for nodes");
    }
    if (bind_listener(listener, args->address, args->port, error) < 0) {
        gw_peer_listener_free(listener);
        return -1;
    }
    *listenerp = listener;
    return 0;
}

uint16_t gw_peer_listener_port(const struct gw_peer_listener *listener)
{
    struct sockaddr_storage address = {0};
    socklen_t bytes = sizeof address;

    getsockname(evconnlistener_get_fd(listener->evl), (struct sockaddr *)&address, &bytes);
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

void gw_peer_listener_free(struct gw_peer_listener *listener)
{
    struct gw_peer_conn *conn;

    if (!listener)
        return;
    while ((conn = TAILQ_FIRST(&listener->strangers))) {
        leave_listener(conn);
        gw_peer_free(conn);
    }
    if (listener->evl)
        evconnlistener_free(listener->evl);
    if (listener->again)
        event_free(listener->again);
    SSL_CTX_free(listener->ctx);
    free(listener->dir);
    free(listener);
}
