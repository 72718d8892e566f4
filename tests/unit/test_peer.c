/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two nodes, and strangers who want in, over real sockets on one loop. A stranger is an OpenSSL
 * connection made by hand, which does what our own code would never do.
 */
#include "cluster.h"

#include <arpa/inet.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

#include "shell/peer.h"
#include "shell/peer_private.h"
#include "shell/pki.h"
#include "util/cleanup.h"

/* What one end of a connection has seen. */
struct end {
    struct gw_peer_handler handler;
    struct gw_peer_conn *conn;
    unsigned n_ready, n_messages, n_closed;
    unsigned last_type;
    bool clean; /* closed without an error */
    struct gw_error error;
    bool free_when_ready, free_at_message, free_at_closed, echo;
};

struct net {
    char *dir_a, *dir_b;
    struct gw_pki a, b; /* n1, which listens and is the CA; n2 */
    struct event_base *base;
    struct gw_peer_options options;
    struct gw_peer_listener *listener;
    struct gw_peer_acceptor acceptor;
    unsigned n_accepted, n_refused;
    struct gw_error refusal;
    struct end server, client;
};

/* --- ends ------------------------------------------------------------------------------------ */

static void drop(struct end *end)
{
    gw_peer_free(end->conn);
    end->conn = NULL;
}

static void on_ready(struct gw_peer_handler *self, struct gw_peer_conn *conn)
{
    struct end *end = gw_container_of(self, struct end, handler);

    assert_ptr_equal(conn, end->conn);
    end->n_ready++;
    if (end->free_when_ready)
        drop(end);
}

static void on_message(struct gw_peer_handler *self, struct gw_peer_conn *conn, unsigned type,
                       json_t *body)
{
    struct end *end = gw_container_of(self, struct end, handler);

    end->n_messages++;
    end->last_type = type;
    if (end->echo)
        gw_peer_send(conn, (enum gw_wire_type)type, body, NULL);
    if (end->free_at_message)
        drop(end);
}

static void on_closed(struct gw_peer_handler *self, struct gw_peer_conn *conn,
                      const struct gw_error *error)
{
    struct end *end = gw_container_of(self, struct end, handler);

    assert_non_null(gw_peer_conn_where(conn));
    end->n_closed++;
    end->clean = !error;
    if (error)
        end->error = *error;
    if (end->free_at_closed)
        drop(end);
}

static void init_end(struct end *end)
{
    *end = (struct end){.handler = {.ready = on_ready, .message = on_message, .closed = on_closed}};
}

static void on_accept(struct gw_peer_acceptor *self, struct gw_peer_conn *conn)
{
    struct net *net = gw_container_of(self, struct net, acceptor);

    net->n_accepted++;
    drop(&net->server);
    net->server.conn = conn;
    gw_peer_set_handler(conn, &net->server.handler);
}

static void on_refused(struct gw_peer_acceptor *self, const char *address,
                       const struct gw_error *error)
{
    struct net *net = gw_container_of(self, struct net, acceptor);

    assert_contains(address, "127.0.0.1:");
    net->n_refused++;
    net->refusal = *error;
}

static void listen_again(struct net *net)
{
    struct gw_peer_listen_args args = {
        .base = net->base,
        .address = "127.0.0.1",
        .ctx = net->a.ctx,
        .dir = net->dir_a,
        .acceptor = &net->acceptor,
        .options = &net->options,
    };
    struct gw_error e;

    gw_peer_listener_free(net->listener);
    net->listener = NULL;
    assert_done(gw_peer_listen(&args, &net->listener, &e), e);
}

static void admit(const char *ca_dir, const char *dir, const char *name)
{
    char *csr, *cert, *ca;
    struct gw_error e;

    assert_done(gw_pki_make_key_and_csr(dir, name, &csr, &e), e);
    assert_done(gw_pki_sign_csr(ca_dir, csr, name, &cert, &ca, &e), e);
    assert_done(gw_pki_install(dir, name, cert, ca, &e), e);
    free(csr);
    free(cert);
    free(ca);
}

static int set_up(void **state)
{
    struct net *net = calloc(1, sizeof *net);
    struct gw_error e;

    signal(SIGPIPE, SIG_IGN);
    net->dir_a = temp_dir();
    net->dir_b = temp_dir();
    assert_done(gw_pki_init_ca(net->dir_a, "n1", &e), e);
    admit(net->dir_a, net->dir_b, "n2");
    assert_done(gw_pki_load(net->dir_a, &net->a, &e), e);
    assert_done(gw_pki_load(net->dir_b, &net->b, &e), e);
    net->base = event_base_new();
    net->options = gw_peer_defaults;
    net->acceptor.accept = on_accept;
    net->acceptor.refused = on_refused;
    init_end(&net->server);
    init_end(&net->client);
    listen_again(net);
    *state = net;
    return 0;
}

static int tear_down(void **state)
{
    struct net *net = *state;

    drop(&net->server);
    drop(&net->client);
    gw_peer_listener_free(net->listener);
    event_base_free(net->base);
    gw_pki_fini(&net->a);
    gw_pki_fini(&net->b);
    remove_dir(net->dir_a);
    remove_dir(net->dir_b);
    free(net);
    return 0;
}

static struct gw_peer_connect_args target(struct net *net)
{
    return (struct gw_peer_connect_args){
        .base = net->base,
        .ctx = net->b.ctx,
        .name = "n1",
        .address = "127.0.0.1",
        .port = gw_peer_listener_port(net->listener),
        .handler = &net->client.handler,
        .options = &net->options,
    };
}

static void start(struct net *net, const struct gw_peer_connect_args *args)
{
    struct gw_error e;

    assert_done(gw_peer_connect(args, &net->client.conn, &e), e);
    assert_int_equal(net->client.n_ready + net->client.n_closed, 0); /* never from inside */
}

/* Both ends open. */
static void link_up(struct net *net)
{
    struct gw_peer_connect_args args = target(net);

    start(net, &args);
    run_until(net->base, &net->client.n_ready, 1);
    assert_int_equal(net->n_accepted, 1);
}

static void expect_client_end(struct net *net, enum gw_code code, const char *part)
{
    run_until(net->base, &net->client.n_closed, 1);
    assert_false(net->client.clean);
    assert_int_equal(net->client.error.code, code);
    assert_contains(net->client.error.msg, part);
}

static void expect_server_end(struct net *net, enum gw_code code, const char *part)
{
    run_until(net->base, &net->server.n_closed, 1);
    assert_false(net->server.clean);
    assert_int_equal(net->server.error.code, code);
    assert_contains(net->server.error.msg, part);
}

/* --- strangers ------------------------------------------------------------------------------- */

struct stranger {
    struct bufferevent *bev;
    unsigned n_ended;
    unsigned n_connected;
    size_t n_bytes; /* of application data that the node gave away */
    struct gw_token *token;
    const char *say; /* once connected */
    size_t n_say;
};

static void stranger_read(struct bufferevent *bev, void *arg)
{
    struct stranger *s = arg;

    s->n_bytes += evbuffer_get_length(bufferevent_get_input(bev));
    evbuffer_drain(bufferevent_get_input(bev), SIZE_MAX);
}

static void stranger_event(struct bufferevent *bev, short what, void *arg)
{
    struct stranger *s = arg;

    if (what & BEV_EVENT_CONNECTED) {
        s->n_connected++;
        bufferevent_write(bev, s->say, s->n_say);
    } else {
        s->n_ended++;
    }
    ERR_clear_error();
}

static int stranger_psk(SSL *ssl, const EVP_MD *md, const unsigned char **idp, size_t *lenp,
                        SSL_SESSION **sessionp)
{
    struct stranger *s = SSL_get_app_data(ssl);

    (void)md;
    *sessionp = gw_peer_psk_session(ssl, s->token->secret);
    *idp = s->token->id;
    *lenp = sizeof s->token->id;
    return 1;
}

static void stranger_connect(struct net *net, struct stranger *s, SSL_CTX *ctx)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(gw_peer_listener_port(net->listener)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    SSL *ssl = SSL_new(ctx);

    SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
    SSL_set_app_data(ssl, s);
    if (s->token) {
        SSL_set_ciphersuites(ssl, "TLS_AES_128_GCM_SHA256");
        SSL_set_psk_use_session_callback(ssl, stranger_psk);
    }
    s->bev = bufferevent_openssl_socket_new(net->base, -1, ssl, BUFFEREVENT_SSL_CONNECTING,
                                            BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(s->bev, stranger_read, NULL, stranger_event, s);
    bufferevent_enable(s->bev, EV_READ | EV_WRITE);
    assert_int_equal(bufferevent_socket_connect(s->bev, (struct sockaddr *)&to, sizeof to), 0);
}

/* It gets an end, no byte, and is never accepted. */
static void expect_nothing(struct net *net, struct stranger *s, SSL_CTX *ctx)
{
    stranger_connect(net, s, ctx);
    run_until(net->base, &s->n_ended, 1);
    run_until(net->base, &net->n_refused, 1);
    assert_int_equal(s->n_bytes, 0);
    assert_int_equal(net->n_accepted, 0);
    bufferevent_free(s->bev);
}

static void without_a_certificate(void **state)
{
    struct net *net = *state;
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    struct stranger s = {.say = "GWCT\0\1\0\1\0\0\0\2{}", .n_say = 14};

    expect_nothing(net, &s, ctx);
    assert_contains(net->refusal.msg, "peer did not return a certificate");
    SSL_CTX_free(ctx);
}

static void with_a_certificate_of_another_ca(void **state)
{
    struct net *net = *state;
    char *dir = temp_dir();
    struct stranger s = {.say = "GWCT\0\1\0\1\0\0\0\2{}", .n_say = 14};
    struct gw_pki pki = {0};
    struct gw_error e;

    assert_done(gw_pki_init_ca(dir, "n2", &e), e);
    assert_done(gw_pki_load(dir, &pki, &e), e);
    expect_nothing(net, &s, pki.ctx);
    assert_int_equal(net->refusal.code, GW_E_PERMISSION);
    gw_pki_fini(&pki);
    remove_dir(dir);
}

static void with_tls_1_2(void **state)
{
    struct net *net = *state;
    struct stranger s = {.say = "hello", .n_say = 5};

    SSL_CTX_set_min_proto_version(net->b.ctx, TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(net->b.ctx, TLS1_2_VERSION);
    expect_nothing(net, &s, net->b.ctx);
    assert_int_equal(s.n_connected, 0);
}

static void without_tls(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(args.port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    gw_autoclose int fd = socket(AF_INET, SOCK_STREAM, 0);
    char buf[64];
    ssize_t n;

    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(write(fd, "GET / HTTP/1.1\r\n\r\n", 18), 18);
    run_until(net->base, &net->n_refused, 1);
    run_for(net->base, 20); /* libevent closes in its next turn */
    n = read(fd, buf, sizeof buf);
    assert_true(n <= 7); /* a TLS alert at most */
}

/* --- the happy path -------------------------------------------------------------------------- */

static void two_nodes_meet(void **state)
{
    struct net *net = *state;
    json_t *body = json_pack("{ss}", "vm", "web1");
    int64_t offset_ns, uncertainty_ns;
    struct gw_error e;

    link_up(net);
    assert_string_equal(gw_peer_conn_name(net->server.conn), "n2");
    assert_string_equal(gw_peer_conn_name(net->client.conn), "n1");
    assert_contains(gw_peer_conn_where(net->server.conn), "n2 (127.0.0.1:");
    assert_false(gw_peer_conn_is_join(net->server.conn));
    net->server.echo = true;
    assert_done(gw_peer_send(net->client.conn, GW_WIRE_QUERY, body, &e), e);
    json_decref(body);
    run_until(net->base, &net->client.n_messages, 1);
    assert_int_equal(net->client.last_type, GW_WIRE_QUERY);
    assert_int_equal(net->server.n_messages, 1);
    run_for(net->base, 50);

    /* Both ends have one and the same clock. */
    assert_done(gw_peer_offset(net->client.conn, &offset_ns, &uncertainty_ns, &e), e);
    assert_true(llabs(offset_ns) <= uncertainty_ns);
    assert_in_range(uncertainty_ns, 1, 50 * 1000 * 1000);
    assert_done(gw_peer_offset(net->server.conn, &offset_ns, &uncertainty_ns, &e), e);
    assert_true(llabs(offset_ns) <= uncertainty_ns);
    assert_int_equal(net->client.conn->offset.n_samples, 8);
    assert_int_equal(net->client.n_ready, 1);
    assert_int_equal(net->server.n_ready, 0);
}

static void the_clock_is_known_when_ready(void **state)
{
    struct net *net = *state;
    int64_t offset_ns, uncertainty_ns;
    struct gw_error e;

    link_up(net);
    assert_done(gw_peer_offset(net->client.conn, &offset_ns, &uncertainty_ns, &e), e);
}

static void a_host_name_and_a_bind_address(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);

    args.address = "localhost";
    args.bind_address = "127.0.0.1";
    start(net, &args);
    run_until(net->base, &net->client.n_ready, 1);
}

static void closing_hands_over_everything(void **state)
{
    struct net *net = *state;
    struct gw_error e;

    link_up(net);
    for (int i = 0; i < 500; i++)
        assert_done(gw_peer_send(net->server.conn, GW_WIRE_BUSY, NULL, &e), e);
    gw_peer_close(net->server.conn);
    gw_peer_close(net->server.conn);
    assert_int_equal(gw_peer_send(net->server.conn, GW_WIRE_BUSY, NULL, &e), -1);
    assert_int_equal(e.code, GW_E_STATE);
    net->client.free_at_closed = true; /* the end that the other lingers for */
    expect_client_end(net, GW_E_PEER, "n1 (127.0.0.1:");
    assert_int_equal(net->client.n_messages, 500);
    run_until(net->base, &net->server.n_closed, 1);
    assert_true(net->server.clean);
}

static void closing_does_not_wait_for_ever(void **state)
{
    struct net *net = *state;
    struct stranger s = {0};

    net->options.close_ms = 50;
    listen_again(net);
    stranger_connect(net, &s, net->b.ctx);
    run_until(net->base, &net->n_accepted, 1);
    bufferevent_disable(s.bev, EV_READ);
    gw_peer_close(net->server.conn);
    run_until(net->base, &net->server.n_closed, 1);
    assert_true(net->server.clean);
    bufferevent_free(s.bev);
}

static void closing_before_ready(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);

    start(net, &args);
    gw_peer_close(net->client.conn);
    assert_int_equal(net->client.n_closed, 0);
    run_until(net->base, &net->client.n_closed, 1);
    assert_true(net->client.clean);
    run_for(net->base, 50);
    assert_int_equal(net->client.n_ready, 0);
    assert_int_equal(net->client.n_closed, 1);
}

static void freed_in_every_callback(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);
    struct gw_error e;

    net->client.free_when_ready = true;
    start(net, &args);
    run_until(net->base, &net->client.n_ready, 1);
    net->server.free_at_closed = true;
    run_until(net->base, &net->server.n_closed, 1);

    init_end(&net->client);
    start(net, &args);
    run_until(net->base, &net->client.n_ready, 1);
    net->client.free_at_message = true;
    gw_peer_send(net->server.conn, GW_WIRE_BUSY, NULL, &e);
    gw_peer_send(net->server.conn, GW_WIRE_BUSY, NULL, &e);
    run_until(net->base, &net->client.n_messages, 1);
    run_until(net->base, &net->server.n_closed, 2);
    assert_int_equal(net->client.n_messages, 1);
    assert_int_equal(net->client.n_closed, 0);
}

static void freed_at_once(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);

    start(net, &args);
    drop(&net->client);
    args.address = "localhost";
    start(net, &args);
    drop(&net->client);
    run_for(net->base, 50);
    assert_int_equal(net->client.n_ready + net->client.n_closed, 0);
}

/* --- what a client is told ------------------------------------------------------------------- */

static void the_wrong_node_answers(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);

    args.name = "n3";
    start(net, &args);
    expect_client_end(net, GW_E_PERMISSION, "says that it is node n1");
    assert_int_equal(net->client.n_ready, 0);
}

static void the_server_is_of_another_ca(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);
    char *dir = temp_dir();
    struct gw_pki pki = {0};
    struct gw_error e;

    assert_done(gw_pki_init_ca(dir, "n2", &e), e);
    assert_done(gw_pki_load(dir, &pki, &e), e);
    args.ctx = pki.ctx;
    start(net, &args);
    expect_client_end(net, GW_E_PERMISSION, "is not acceptable");
    gw_pki_fini(&pki);
    remove_dir(dir);
}

/* It trusts n1, but its own certificate is one that n1 does not take. */
static void our_certificate_is_refused(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);
    char *dir = temp_dir();
    struct gw_pki pki = {0};
    struct gw_error e;

    assert_done(gw_pki_init_ca(dir, "n2", &e), e);
    assert_done(gw_pki_load(dir, &pki, &e), e);
    SSL_CTX_set1_cert_store(pki.ctx, SSL_CTX_get_cert_store(net->b.ctx));
    args.ctx = pki.ctx;
    start(net, &args);
    expect_client_end(net, GW_E_PERMISSION, "refused this node");
    assert_int_equal(net->client.n_ready, 0);
    gw_pki_fini(&pki);
    remove_dir(dir);
}

static void nobody_listens(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);

    gw_peer_listener_free(net->listener);
    net->listener = NULL;
    start(net, &args);
    expect_client_end(net, GW_E_PEER, "Connection refused");
    drop(&net->client);
    init_end(&net->client);
    args.bind_address = "::1";
    start(net, &args);
    expect_client_end(net, GW_E_PEER, "Address family not supported");
    args.bind_address = "rubbish";
    drop(&net->client);
    assert_int_equal(gw_peer_connect(&args, &net->client.conn, &net->client.error), -1);
    assert_int_equal(net->client.error.code, GW_E_USAGE);
}

static void the_port_is_taken(void **state)
{
    struct net *net = *state;
    struct gw_peer_listen_args args = {
        .base = net->base,
        .address = "127.0.0.1",
        .port = gw_peer_listener_port(net->listener),
        .ctx = net->a.ctx,
        .acceptor = &net->acceptor,
    };
    struct gw_peer_listener *second = NULL;
    struct gw_error e;

    assert_int_equal(gw_peer_listen(&args, &second, &e), -1);
    assert_int_equal(e.sys, EADDRINUSE);
    assert_contains(e.msg, "listen on 127.0.0.1:");
}

static void the_server_never_answers(void **state)
{
    struct net *net = *state;
    struct gw_peer_connect_args args = target(net);
    gw_autoclose int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    args.port = ntohs(a.sin_port);
    args.timeout_ms = 50;
    start(net, &args);
    expect_client_end(net, GW_E_TIMEOUT, "took too long");
}

/* --- limits ---------------------------------------------------------------------------------- */

static int idle_socket(struct net *net)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(gw_peer_listener_port(net->listener)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void a_handshake_has_a_limit(void **state)
{
    struct net *net = *state;
    int fd;

    net->options.handshake_ms = 50;
    listen_again(net);
    fd = idle_socket(net);
    run_until(net->base, &net->n_refused, 1);
    assert_int_equal(net->refusal.code, GW_E_TIMEOUT);
    close(fd);
}

static void a_flood_does_not_lock_a_node_out(void **state)
{
    struct net *net = *state;
    int fds[10];

    net->options.n_unauthenticated = 4;
    listen_again(net);
    for (int i = 0; i < 10; i++)
        fds[i] = idle_socket(net);
    run_until(net->base, &net->n_refused, 6);
    assert_int_equal(net->refusal.code, GW_E_BUSY);
    link_up(net);
    for (int i = 0; i < 10; i++)
        close(fds[i]);
}

static void a_silent_peer_is_given_up(void **state)
{
    struct net *net = *state;
    struct stranger s = {0};

    net->options.ping_interval_ms = 20;
    net->options.dead_after_ms = 100;
    listen_again(net);
    stranger_connect(net, &s, net->b.ctx); /* a good certificate, but it never says a word */
    expect_server_end(net, GW_E_PEER, "has not answered for 0.1 s");
    assert_contains(net->server.error.msg, "n2 (127.0.0.1:");
    assert_true(s.n_bytes > 0);
    bufferevent_free(s.bev);
}

static void an_idle_connection_stays(void **state)
{
    struct net *net = *state;

    net->options.ping_interval_ms = 20;
    net->options.dead_after_ms = 200;
    listen_again(net);
    link_up(net);
    run_for(net->base, 600);
    assert_int_equal(net->client.n_closed + net->server.n_closed, 0);
    assert_true(net->client.conn->offset.n_samples > 8);
}

static void a_peer_that_does_not_read_is_given_up(void **state)
{
    struct net *net = *state;
    struct stranger s = {0};
    char *text = calloc(1, 512 << 10);
    json_t *body;
    struct gw_error e;
    int r = 0;

    memset(text, 'x', (512 << 10) - 1);
    body = json_pack("{ss}", "text", text);
    stranger_connect(net, &s, net->b.ctx);
    run_until(net->base, &net->n_accepted, 1);
    bufferevent_disable(s.bev, EV_READ);
    for (int i = 0; i < 100 && r == 0; i++)
        r = gw_peer_send(net->server.conn, GW_WIRE_BUSY, body, &e);
    assert_int_equal(r, -1);
    assert_int_equal(e.code, GW_E_PEER);
    assert_int_equal(net->server.n_closed, 0);
    expect_server_end(net, GW_E_PEER, "does not read");
    json_decref(body);
    free(text);
    bufferevent_free(s.bev);
}

/* --- bad bytes from somebody with a good certificate ----------------------------------------- */

static void bad_frames_end_the_connection(void **state)
{
    static const struct {
        const char *bytes;
        size_t n_bytes;
        enum gw_code code;
        const char *part;
    } cases[] = {
        {"GET / HTTP/1.1\r\n", 16, GW_E_PROTOCOL, "0x47455420"},
        {"GWCT\0\1\0\1\377\377\377\377", 12, GW_E_PROTOCOL, "4294967295 bytes"},
        {"GWCT\0\2\0\1\0\0\0\2{}", 14, GW_E_UNSUPPORTED, "speaks version 2"},
        {"GWCT\0\1\0\1\0\0\0\2[]", 14, GW_E_PROTOCOL, "not a JSON object"},
        {"GWCT\0\1\0\22\0\0\0\2{}", 14, GW_E_PROTOCOL, "JOIN (18), which has no place here"},
        {"GWCT\0\1\0\23\0\0\0\2{}", 14, GW_E_PROTOCOL, "JOINED (19), which has no place here"},
    };
    struct net *net = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stranger s = {.say = cases[i].bytes, .n_say = cases[i].n_bytes};

        stranger_connect(net, &s, net->b.ctx);
        expect_server_end(net, cases[i].code, cases[i].part);
        assert_contains(net->server.error.msg, "n2 (127.0.0.1:");
        run_until(net->base, &s.n_ended, 1);
        assert_int_equal(net->server.n_messages, 0);
        bufferevent_free(s.bev);
        drop(&net->server);
        init_end(&net->server);
    }
}

static void odd_pings_do_no_harm(void **state)
{
    static const char bytes[] = "GWCT\0\1\0\20\0\0\0\2{}"               /* PING without a time */
                                "GWCT\0\1\0\20\0\0\0\012{\"t0\":\"x\"}" /* with a wrong one */
                                "GWCT\0\1\0\21\0\0\0\2{}"               /* PONG to nothing */
                                "GWCT\0\1\0\21\0\0\0\10{\"t0\":0}"      /* no PING is out: 0 */
                                "GWCT\0\1\3\347\0\0\0\2{}";             /* type 999 */
    struct net *net = *state;
    struct stranger s = {.say = bytes, .n_say = sizeof bytes - 1};
    int64_t offset_ns, uncertainty_ns;
    struct gw_error e;

    stranger_connect(net, &s, net->b.ctx);
    run_until(net->base, &net->server.n_messages, 1);
    assert_int_equal(net->server.last_type, 999);
    assert_int_equal(net->server.n_closed, 0);
    assert_int_equal(gw_peer_offset(net->server.conn, &offset_ns, &uncertainty_ns, &e), -1);
    assert_int_equal(e.code, GW_E_STATE);
    bufferevent_free(s.bev);
}

struct measuring {
    struct gw_peer_measure measure;
    unsigned n_done;
    uint64_t bytes_per_s;
};

static void measured(struct gw_peer_measure *m, uint64_t bytes_per_s)
{
    struct measuring *measuring = (struct measuring *)m;

    measuring->n_done++;
    measuring->bytes_per_s = bytes_per_s;
}

static void a_link_is_measured_and_works_on(void **state)
{
    struct measuring m = {.n_done = 0};
    struct net *net = *state;
    struct gw_error e;

    link_up(net);
    assert_int_equal(gw_peer_measure_start(net->client.conn, &m.measure, measured), 0);
    run_until(net->base, &m.n_done, 1);
    assert_true(m.bytes_per_s > 0);
    assert_done(gw_peer_send(net->client.conn, GW_WIRE_QUERY, NULL, &e), e);
    run_until(net->base, &net->server.n_messages, 1);
    assert_int_equal(m.n_done, 1);
    assert_int_equal(net->client.n_closed + net->server.n_closed, 0);
}

static void a_measurement_ends_with_its_connection(void **state)
{
    struct measuring m = {.n_done = 0}, cancelled = {.n_done = 0};
    struct net *net = *state;

    link_up(net);
    assert_int_equal(gw_peer_measure_start(net->client.conn, &cancelled.measure, measured), 0);
    gw_peer_measure_cancel(&cancelled.measure);
    gw_peer_measure_cancel(&cancelled.measure);
    assert_int_equal(gw_peer_measure_start(net->client.conn, &m.measure, measured), 0);
    gw_peer_free(net->server.conn);
    net->server.conn = NULL;
    run_until(net->base, &net->client.n_closed, 1);
    assert_int_equal(m.n_done, 1);
    assert_int_equal(m.bytes_per_s, 0);
    assert_int_equal(cancelled.n_done, 0);
    /* and is forgotten by one that is freed */
    assert_null(m.measure.conn);
}

static void keepalives_and_joins_are_not_for_sending(void **state)
{
    struct net *net = *state;
    struct gw_error e;

    link_up(net);
    assert_int_equal(gw_peer_send(net->client.conn, GW_WIRE_PING, NULL, &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    assert_int_equal(gw_peer_send(net->client.conn, GW_WIRE_JOIN, NULL, &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    assert_int_equal(net->client.n_closed, 0);
}

/* --- tokens at this level; the whole join is in test_join.c ---------------------------------- */

static struct gw_token make_token(struct net *net, int64_t ttl_s)
{
    struct gw_token t;
    struct gw_error e;

    assert_done(gw_token_make(net->dir_a, "127.0.0.1", gw_peer_listener_port(net->listener),
                              time(NULL) + ttl_s, &t, &e),
                e);
    return t;
}

static void start_with_token(struct net *net, const struct gw_token *token)
{
    struct gw_peer_connect_args args = target(net);

    args.ctx = NULL;
    args.name = NULL;
    args.token = token;
    start(net, &args);
}

static void a_token_opens_a_join_only(void **state)
{
    struct net *net = *state;
    struct gw_token t = make_token(net, 60);
    struct gw_error e;

    start_with_token(net, &t);
    run_until(net->base, &net->n_accepted, 1);
    run_until(net->base, &net->client.n_ready, 1);
    assert_true(gw_peer_conn_is_join(net->server.conn));
    assert_true(gw_peer_conn_is_join(net->client.conn));
    assert_string_equal(gw_peer_conn_name(net->server.conn), "");
    assert_memory_equal(gw_peer_conn_token_id(net->server.conn), t.id, sizeof t.id);
    assert_int_equal(gw_peer_send(net->client.conn, GW_WIRE_HELLO, NULL, &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    assert_int_equal(gw_peer_send(net->client.conn, GW_WIRE_JOINED, NULL, &e), -1);
    assert_int_equal(gw_peer_send(net->server.conn, GW_WIRE_JOIN, NULL, &e), -1);
    assert_done(gw_peer_send(net->client.conn, GW_WIRE_JOIN, NULL, &e), e);
    run_until(net->base, &net->server.n_messages, 1);
    assert_done(gw_peer_send(net->server.conn, GW_WIRE_JOINED, NULL, &e), e);
    run_until(net->base, &net->client.n_messages, 1);
}

static void a_token_carries_nothing_else(void **state)
{
    static const char *const frames[] = {
        "GWCT\0\1\0\1\0\0\0\2{}",  "GWCT\0\1\0\2\0\0\0\2{}",  "GWCT\0\1\0\20\0\0\0\2{}",
        "GWCT\0\1\0\21\0\0\0\2{}", "GWCT\0\1\0\23\0\0\0\2{}", "GWCT\0\1\3\347\0\0\0\2{}",
    };
    struct net *net = *state;
    SSL_CTX *ctx = gw_pki_bare_ctx(NULL);
    struct gw_token t = make_token(net, 60);

    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        struct stranger s = {.say = frames[i], .n_say = 14, .token = &t};

        stranger_connect(net, &s, ctx);
        expect_server_end(net, GW_E_PROTOCOL, "has no place here");
        assert_int_equal(net->server.n_messages, 0);
        assert_int_equal(s.n_bytes, 0);
        bufferevent_free(s.bev);
        drop(&net->server);
        init_end(&net->server);
    }
    SSL_CTX_free(ctx);
}

static void expect_token_refused(struct net *net, const struct gw_token *token)
{
    start_with_token(net, token);
    expect_client_end(net, GW_E_PERMISSION, "the token was refused by 127.0.0.1:");
    assert_contains(net->client.error.msg, "it may have expired or been used");
    assert_contains(net->client.error.hint, "godwit node invite");
    assert_int_equal(net->client.n_ready, 0);
    assert_int_equal(net->n_accepted, 0);
    drop(&net->client);
    init_end(&net->client);
}

static void bad_tokens_are_refused(void **state)
{
    struct net *net = *state;
    struct gw_token t = make_token(net, 60), other = make_token(net, 60);
    struct gw_error e;

    memcpy(other.secret, t.secret, sizeof t.secret); /* a known id, somebody else's secret */
    expect_token_refused(net, &other);
    memset(other.id, 7, sizeof other.id);
    expect_token_refused(net, &other);
    other = make_token(net, -1);
    expect_token_refused(net, &other);
    assert_done(gw_token_consume(net->dir_a, t.id, &e), e);
    expect_token_refused(net, &t);
}

/* A certificate of another CA does not help out a token that is not good, nor the other way. */
static void a_bad_token_with_a_good_certificate_is_refused(void **state)
{
    struct net *net = *state;
    struct gw_token t = make_token(net, -1);
    struct stranger s = {.token = &t};

    expect_nothing(net, &s, net->b.ctx);
}

static void a_listener_without_tokens_takes_none(void **state)
{
    struct net *net = *state;
    struct gw_token t = make_token(net, 60);
    struct gw_peer_listen_args args = {
        .base = net->base,
        .address = "127.0.0.1",
        .ctx = net->a.ctx,
        .acceptor = &net->acceptor,
    };
    struct gw_error e;

    gw_peer_listener_free(net->listener);
    assert_done(gw_peer_listen(&args, &net->listener, &e), e);
    expect_token_refused(net, &t);
}

/* Somebody answers at the inviter's address who does not know the secret. */
static void an_impostor_does_not_get_the_request(void **state)
{
    struct net *net = *state;
    struct gw_token t = make_token(net, 60);
    struct gw_peer_listener *real = net->listener;
    struct gw_peer_listen_args args = {
        .base = net->base,
        .address = "127.0.0.1",
        .ctx = net->b.ctx, /* has a certificate of the cluster, and no tokens */
        .dir = net->dir_b,
        .acceptor = &net->acceptor,
    };
    struct gw_error e;

    assert_done(gw_peer_listen(&args, &net->listener, &e), e);
    gw_peer_listener_free(real);
    expect_token_refused(net, &t);
}

#define with_net(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_net(two_nodes_meet),
        with_net(the_clock_is_known_when_ready),
        with_net(a_host_name_and_a_bind_address),
        with_net(closing_hands_over_everything),
        with_net(closing_does_not_wait_for_ever),
        with_net(closing_before_ready),
        with_net(freed_in_every_callback),
        with_net(freed_at_once),
        with_net(without_a_certificate),
        with_net(with_a_certificate_of_another_ca),
        with_net(with_tls_1_2),
        with_net(without_tls),
        with_net(the_wrong_node_answers),
        with_net(the_server_is_of_another_ca),
        with_net(our_certificate_is_refused),
        with_net(nobody_listens),
        with_net(the_port_is_taken),
        with_net(the_server_never_answers),
        with_net(a_handshake_has_a_limit),
        with_net(a_flood_does_not_lock_a_node_out),
        with_net(a_silent_peer_is_given_up),
        with_net(an_idle_connection_stays),
        with_net(a_peer_that_does_not_read_is_given_up),
        with_net(bad_frames_end_the_connection),
        with_net(odd_pings_do_no_harm),
        with_net(a_link_is_measured_and_works_on),
        with_net(a_measurement_ends_with_its_connection),
        with_net(keepalives_and_joins_are_not_for_sending),
        with_net(a_token_opens_a_join_only),
        with_net(a_token_carries_nothing_else),
        with_net(bad_tokens_are_refused),
        with_net(a_bad_token_with_a_good_certificate_is_refused),
        with_net(a_listener_without_tokens_takes_none),
        with_net(an_impostor_does_not_get_the_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
