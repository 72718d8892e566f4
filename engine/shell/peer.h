/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections between nodes: mutual TLS 1.3 over TCP, carrying the frames of shell/wire.h.
 *
 * Both sides show a certificate of the cluster's CA; the name in it is who they are. The one
 * other way in is a join token (shell/token.h), on the same port: such a connection can carry
 * nothing but JOIN one way and JOINED the other.
 *
 * Single-threaded: everything here is called, and calls back, on the thread that runs the loop.
 * No callback ever comes from inside a function of this header. Whoever runs the loop must ignore
 * SIGPIPE: OpenSSL writes to sockets that the other side may have closed.
 */
#ifndef GW_SHELL_PEER_H
#define GW_SHELL_PEER_H

#include <event2/event.h>
#include <jansson.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "godwit/error.h"
#include "shell/token.h"
#include "shell/wire.h"

struct gw_peer_conn;
struct gw_peer_listener;

/* Limits and times. */
struct gw_peer_options {
    unsigned handshake_ms;      /* from accept() to authenticated; 5000 */
    unsigned ping_interval_ms;  /* one PING in this time while open; 1000 */
    unsigned dead_after_ms;     /* without a byte from the peer; 5000 */
    unsigned close_ms;          /* for the last messages after gw_peer_close(); 1000 */
    unsigned join_ms;           /* a token's connection as a whole; 30000 */
    unsigned n_unauthenticated; /* in handshake at once on one listener; above this the oldest
                                   goes; 64 */
    size_t max_output_bytes;    /* waiting for a peer that does not read; 4 MiB */
};

extern const struct gw_peer_options gw_peer_defaults;

/* Embed it, and find the rest with gw_container_of(). In all of these the connection may be freed.
 */
struct gw_peer_handler {
    /* A connection of ours is up and both sides have accepted each other; messages can be sent and
     * gw_peer_offset() answers. Never called on an accepted one, which is ready from the start. */
    void (*ready)(struct gw_peer_handler *self, struct gw_peer_conn *conn);

    /* type may be one that this version does not know. body (an object) is borrowed: incref it to
     * keep it. */
    void (*message)(struct gw_peer_handler *self, struct gw_peer_conn *conn, unsigned type,
                    json_t *body);

    /* The end, exactly once unless gw_peer_free() comes first: error is NULL after gw_peer_close()
     * when all was handed over, otherwise it says why. The connection holds no socket any more;
     * only its name, address and offset can still be asked. Still to be freed. */
    void (*closed)(struct gw_peer_handler *self, struct gw_peer_conn *conn,
                   const struct gw_error *error);
};

struct gw_peer_acceptor {
    /* A connection from an authenticated node, or from the holder of a token
     * (gw_peer_conn_is_join()). It belongs to the callee, which calls gw_peer_set_handler() or
     * gw_peer_free() before it returns. */
    void (*accept)(struct gw_peer_acceptor *self, struct gw_peer_conn *conn);

    /* Somebody did not get in. For the log; may be NULL. address is "10.0.0.9:51234". */
    void (*refused)(struct gw_peer_acceptor *self, const char *address,
                    const struct gw_error *error);
};

struct gw_peer_listen_args {
    struct event_base *base;
    const char *address; /* to bind to */
    uint16_t port;       /* 0: any free one */
    SSL_CTX *ctx;        /* from gw_pki_load(); a reference is kept */
    const char *dir;     /* state directory whose tokens are good here; NULL: nobody can join */
    struct gw_peer_acceptor *acceptor;     /* must outlive the listener */
    const struct gw_peer_options *options; /* NULL: gw_peer_defaults; copied */
};

struct gw_peer_connect_args {
    struct event_base *base;
    SSL_CTX *ctx;     /* from gw_pki_load(); not used with a token */
    const char *name; /* the node that is meant: its certificate must say so; not with a token */
    const char *address;
    uint16_t port;
    const char *bind_address;     /* numeric, our end; NULL: the kernel chooses */
    const struct gw_token *token; /* NULL: connect as a node. Copied */
    unsigned timeout_ms;          /* until ready; 0: the handshake's */
    struct gw_peer_handler *handler;
    const struct gw_peer_options *options; /* NULL: gw_peer_defaults; copied */
};

/* 0 and *listenerp, for gw_peer_listener_free(); or -1 with *error (GW_E_SYSTEM, sys EADDRINUSE
 * …). */
int gw_peer_listen(const struct gw_peer_listen_args *args, struct gw_peer_listener **listenerp,
                   struct gw_error *error);

/* The port that it is bound to. */
uint16_t gw_peer_listener_port(const struct gw_peer_listener *listener);

/* Stops listening and drops who is still in handshake; accepted connections stay. NULL is fine. */
void gw_peer_listener_free(struct gw_peer_listener *listener);

/* Starts to connect. 0 and *connp, whose handler hears ready() or closed() later; or -1 with *error
 * when not even a start was possible. A host name is resolved without blocking. */
int gw_peer_connect(const struct gw_peer_connect_args *args, struct gw_peer_conn **connp,
                    struct gw_error *error);

/* Who hears of an accepted connection. */
void gw_peer_set_handler(struct gw_peer_conn *conn, struct gw_peer_handler *handler);

/*
 * Queues one message; body is borrowed, NULL for an empty object. 0; or -1 with *error:
 * GW_E_STATE before ready or after the end, GW_E_USAGE for a type that this connection cannot
 * carry, GW_E_PEER when the peer has not read for too long: then closed() follows.
 */
int gw_peer_send(struct gw_peer_conn *conn, enum gw_wire_type type, const json_t *body,
                 struct gw_error *error);

/* Sends what is queued, says goodbye and waits for the peer's, all within close_ms; then closed().
 * Messages that still come in are dropped. No effect when closing or closed. */
void gw_peer_close(struct gw_peer_conn *conn);

/* Ends the connection at once, with no callback, and frees it. Safe in its callbacks; NULL is
 * fine. */
void gw_peer_free(struct gw_peer_conn *conn);

/* The authenticated name of the other node; "" on a token's connection. */
const char *gw_peer_conn_name(const struct gw_peer_conn *conn);

/* "n2 (10.0.0.2:7400)", for messages. */
const char *gw_peer_conn_where(const struct gw_peer_conn *conn);

/* Made with a token. */
bool gw_peer_conn_is_join(const struct gw_peer_conn *conn);

/* The id of the token that an accepted connection was made with. */
const uint8_t *gw_peer_conn_token_id(const struct gw_peer_conn *conn);

/*
 * The peer's CLOCK_MONOTONIC minus ours, wrong by at most *uncertainty_nsp (shell/offset.h).
 * Measured by a burst of eight round trips at the start and one a second after it. 0, or -1 with
 * *error (GW_E_STATE) while nothing is known.
 */
int gw_peer_offset(const struct gw_peer_conn *conn, int64_t *offset_nsp, int64_t *uncertainty_nsp,
                   struct gw_error *error);

/* How fast the link to a peer is; see peer_measure.c for what that means. */
struct gw_peer_measure_at {
    uint64_t acked_bytes, busy_us, ns;
};

struct gw_peer_measure {
    /* Once, from the loop; 0: it could not be told, or the connection has ended (before its
     * closed()). */
    void (*done)(struct gw_peer_measure *m, uint64_t bytes_per_s);
    /* Private. */
    struct gw_peer_conn *conn;             /* NULL: not under way */
    struct gw_peer_measure_at began, last; /* the burst; the PONG before */
    uint64_t began_ns, best;               /* bytes a second */
    int64_t id;                            /* of the last PING: its t0, which is no time */
    unsigned n_probes, n_bursts;
};

/*
 * Sends 0.4 MB, and up to 12 MB more where the link takes them fast: about 200 ms, and half a
 * second on a link of 10 Mbit/s. What is sent meanwhile waits behind it. On an open connection
 * between nodes, one at a time. 0; -1: this kernel cannot tell, and done is not called.
 */
int gw_peer_measure_start(struct gw_peer_conn *conn, struct gw_peer_measure *m,
                          void (*done)(struct gw_peer_measure *, uint64_t));

/* done is not called any more. Idempotent; so does gw_peer_free() of its connection. */
void gw_peer_measure_cancel(struct gw_peer_measure *m);

#endif
