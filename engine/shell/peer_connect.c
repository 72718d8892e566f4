/* SPDX-License-Identifier: Apache-2.0 */
/* How a connection of ours comes to be: resolve, try each address, then TLS. */
#include <errno.h>
#include <event2/dns.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "shell/peer_private.h"
#include "shell/pki.h"
#include "util/cleanup.h"

/* Outlives its connection: libevent's answer to a request comes later even if it was cancelled. */
struct gw_peer_resolver {
    struct gw_peer_conn *conn; /* NULL: nobody waits any more */
    struct event_base *base;
    struct evdns_base *dns;
    struct evdns_getaddrinfo_request *request;
};

static void try_next(struct gw_peer_conn *conn);

static void fail_connect(struct gw_peer_conn *conn, const char *why)
{
    struct gw_error e;

    gw_error_set(&e, GW_E_PEER, "connect to %s: %s", conn->where, why);
    gw_error_hint(&e, "is godwitd running there, and is that its address?");
    gw_peer_fail(conn, &e);
}

/* --- TCP ------------------------------------------------------------------------------------- */

static void drop_attempt(struct gw_peer_conn *conn)
{
    if (conn->connecting)
        event_free(conn->connecting);
    conn->connecting = NULL;
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
}

static void on_connectable(evutil_socket_t fd, short what, void *arg)
{
    struct gw_peer_conn *conn = arg;
    socklen_t len = sizeof conn->connect_sys;
    struct gw_error e;

    (void)what;
    if (conn->state != GW_PEER_CONNECTING)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &conn->connect_sys, &len) < 0)
        conn->connect_sys = errno;
    if (conn->connect_sys) {
        drop_attempt(conn);
        try_next(conn);
        return;
    }
    if (gw_peer_start_tls(conn, fd, &e) < 0) {
        gw_peer_fail(conn, &e);
        return;
    }
    conn->fd = -1; /* bev's now */
    gw_peer_stop_connecting(conn);
}

/* 0 when the attempt is under way, otherwise an errno. */
static int attempt(struct gw_peer_conn *conn, const struct evutil_addrinfo *to)
{
    const struct sockaddr *from = (const struct sockaddr *)&conn->bind_address;

    if (conn->bind_address_bytes && from->sa_family != to->ai_family)
        return EAFNOSUPPORT;
    conn->fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0)
        return errno;
    if (conn->bind_address_bytes && bind(conn->fd, from, (socklen_t)conn->bind_address_bytes) < 0)
        return errno;
    if (connect(conn->fd, to->ai_addr, (socklen_t)to->ai_addrlen) < 0 && errno != EINPROGRESS)
        return errno;
    conn->connecting = event_new(conn->base, conn->fd, EV_WRITE, on_connectable, conn);
    if (!conn->connecting || event_add(conn->connecting, NULL) < 0)
        return ENOMEM;
    return 0;
}

static void try_next(struct gw_peer_conn *conn)
{
    while (conn->next_address) {
        const struct evutil_addrinfo *to = conn->next_address;

        conn->next_address = to->ai_next;
        conn->connect_sys = attempt(conn, to);
        if (conn->connect_sys == 0)
            return;
        drop_attempt(conn);
    }
    fail_connect(conn, strerror(conn->connect_sys));
}

/* --- names ----------------------------------------------------------------------------------- */

static void free_resolver(evutil_socket_t fd, short what, void *arg)
{
    struct gw_peer_resolver *resolver = arg;

    (void)fd;
    (void)what;
    evdns_base_free(resolver->dns, 0);
    free(resolver);
}

static void on_resolved(int result, struct evutil_addrinfo *found, void *arg)
{
    struct gw_peer_resolver *resolver = arg;
    struct gw_peer_conn *conn = resolver->conn;

    resolver->request = NULL;
    /* Not here: this is called from inside the evdns base that is to be freed. */
    event_base_once(resolver->base, -1, EV_TIMEOUT, free_resolver, resolver, &(struct timeval){0});
    if (!conn) {
        if (found)
            evutil_freeaddrinfo(found);
        return;
    }
    conn->resolver = NULL;
    conn->addresses = conn->next_address = found;
    if (conn->state != GW_PEER_CONNECTING)
        return;
    if (result != 0)
        fail_connect(conn, evutil_gai_strerror(result));
    else
        try_next(conn);
}

static int resolve_name(struct gw_peer_conn *conn, const char *address, const char *service,
                        struct gw_error *error)
{
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct gw_peer_resolver *resolver = calloc(1, sizeof *resolver);

    if (!resolver)
        return gw_error_set_sys(error, ENOMEM, "resolve %s", address);
    resolver->base = conn->base;
    resolver->dns = evdns_base_new(conn->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (!resolver->dns) {
        free(resolver);
        return gw_error_set_sys(error, ENOMEM, "resolve %s", address);
    }
    /* Without /etc/resolv.conf the names in /etc/hosts still work. */
    evdns_base_resolv_conf_parse(resolver->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
    evdns_base_load_hosts(resolver->dns, "/etc/hosts");
    resolver->conn = conn;
    conn->resolver = resolver;
    resolver->request =
        evdns_getaddrinfo(resolver->dns, address, service, &hints, on_resolved, resolver);
    return 0; /* without a request on_resolved() has been called already */
}

static int resolve(struct gw_peer_conn *conn, const char *address, uint16_t port,
                   struct gw_error *error)
{
    struct evutil_addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = EVUTIL_AI_NUMERICHOST | EVUTIL_AI_NUMERICSERV,
    };
    char service[8];

    snprintf(service, sizeof service, "%u", port);
    if (evutil_getaddrinfo(address, service, &hints, &conn->addresses) != 0) {
        conn->addresses = NULL;
        return resolve_name(conn, address, service, error);
    }
    conn->next_address = conn->addresses;
    try_next(conn);
    return 0;
}

void gw_peer_stop_connecting(struct gw_peer_conn *conn)
{
    struct gw_peer_resolver *resolver = conn->resolver;

    conn->resolver = NULL;
    if (resolver) {
        resolver->conn = NULL;
        if (resolver->request)
            evdns_getaddrinfo_cancel(resolver->request);
    }
    drop_attempt(conn);
    if (conn->addresses)
        evutil_freeaddrinfo(conn->addresses);
    conn->addresses = conn->next_address = NULL;
}

/* --- who we are ------------------------------------------------------------------------------ */

static int use_psk(SSL *ssl, const EVP_MD *md, const unsigned char **idp, size_t *id_lenp,
                   SSL_SESSION **sessionp)
{
    struct gw_peer_conn *conn = SSL_get_app_data(ssl);

    (void)md; /* set after a retry request; only suites with our hash are offered */
    *sessionp = gw_peer_psk_session(ssl, conn->token.secret);
    *idp = conn->token.id;
    *id_lenp = sizeof conn->token.id;
    return *sessionp != NULL;
}

/* A context that trusts no certificate at all: the server proves that it knows the secret, or the
 * handshake fails. */
static SSL *ssl_for_token(struct gw_error *error)
{
    SSL_CTX *ctx = gw_pki_bare_ctx(error);
    SSL *ssl = NULL;

    if (ctx && SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"))
        ssl = SSL_new(ctx);
    if (ctx && !ssl)
        gw_error_set(error, GW_E_SYSTEM, "OpenSSL cannot make a connection");
    SSL_CTX_free(ctx); /* ssl holds a reference */
    if (ssl)
        SSL_set_psk_use_session_callback(ssl, use_psk);
    return ssl;
}

static int prepare(struct gw_peer_conn *conn, const struct gw_peer_connect_args *args,
                   struct gw_error *error)
{
    char address[GW_PEER_WHERE_MAX];

    conn->client = true;
    conn->handler = args->handler;
    gw_node_format_address(address, sizeof address, args->address, args->port);
    if (args->token) {
        conn->join = true;
        conn->token = *args->token;
        memcpy(conn->where, address, sizeof conn->where);
        conn->ssl = ssl_for_token(error);
        return conn->ssl ? 0 : -1;
    }
    snprintf(conn->name, sizeof conn->name, "%s", args->name);
    snprintf(conn->where, sizeof conn->where, "%s (%.280s)", conn->name, address);
    conn->ssl = SSL_new(args->ctx);
    if (!conn->ssl)
        return gw_error_set(error, GW_E_SYSTEM, "OpenSSL cannot make a connection");
    return 0;
}

static int take_bind_address(struct gw_peer_conn *conn, const char *address, struct gw_error *error)
{
    int bytes = sizeof conn->bind_address;

    if (!address)
        return 0;
    /* Its port stays 0. IPv6 in brackets or not is both understood. */
    if (evutil_parse_sockaddr_port(address, (struct sockaddr *)&conn->bind_address, &bytes) < 0)
        return gw_error_set(error, GW_E_USAGE, "\"%s\" is no address to connect from", address);
    conn->bind_address_bytes = bytes;
    return 0;
}

int gw_peer_connect(const struct gw_peer_connect_args *args, struct gw_peer_conn **connp,
                    struct gw_error *error)
{
    struct gw_peer_conn *conn = gw_peer_conn_new(args->base, args->options);

    if (!conn)
        return gw_error_set_sys(error, ENOMEM, "connect to %s", args->address);
    if (prepare(conn, args, error) < 0 || take_bind_address(conn, args->bind_address, error) < 0 ||
        resolve(conn, args->address, args->port, error) < 0) {
        ERR_clear_error();
        gw_peer_free(conn);
        return -1;
    }
    if (conn->state == GW_PEER_CONNECTING)
        gw_peer_set_deadline(conn,
                             args->timeout_ms ? args->timeout_ms : conn->options.handshake_ms);
    *connp = conn;
    return 0;
}
