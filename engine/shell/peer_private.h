/* SPDX-License-Identifier: Apache-2.0 */
/* What peer.c (an open connection), peer_connect.c and peer_listen.c (how one comes to be) share.
 */
#ifndef GW_SHELL_PEER_PRIVATE_H
#define GW_SHELL_PEER_PRIVATE_H

#include <event2/bufferevent.h>
#include <event2/util.h>
#include <sys/queue.h>

#include "shell/offset.h"
#include "shell/peer.h"

/* "name (address:port)" with the longest of each */
#define GW_PEER_WHERE_MAX 360

enum gw_peer_state {
    GW_PEER_CONNECTING,  /* resolving, or TCP is not up */
    GW_PEER_HANDSHAKING, /* TLS */
    GW_PEER_PROVING, /* client: TLS is up here, but the server has yet to accept our certificate;
                        its first frame says that it did */
    GW_PEER_OPEN,
    GW_PEER_FLUSHING,  /* gw_peer_close(): our last messages are on their way out */
    GW_PEER_LINGERING, /* goodbye said, waiting for the peer's: closing a socket with unread bytes
                          in it would make the kernel reset it and lose our last message */
    GW_PEER_DONE,      /* closed() has been called or is due */
};

struct gw_peer_resolver;

struct gw_peer_conn {
    struct event_base *base;
    struct gw_peer_options options;
    struct gw_peer_handler *handler;
    struct gw_peer_listener *listener; /* while it is in handshake on one */
    TAILQ_ENTRY(gw_peer_conn) link;    /* in the listener's list */

    enum gw_peer_state state;
    bool client;
    bool join;
    bool failed;           /* error is set: closed() gets it */
    struct gw_error error; /* why it ends */
    struct event *fate;    /* made active to call closed() from the loop */
    struct event *deadline;
    struct event *tick; /* the ping interval */

    char name[GW_NODE_NAME_MAX + 1]; /* client: who is meant; server: who it is */
    char where[GW_PEER_WHERE_MAX];
    struct gw_token token; /* client of a join: all of it; server: only the id */

    SSL *ssl; /* ours until bev owns it; borrowed from bev then */
    struct bufferevent *bev;

    /* client, until TCP is up */
    struct gw_peer_resolver *resolver;
    struct evutil_addrinfo *addresses, *next_address;
    struct sockaddr_storage bind_address;
    int bind_address_bytes; /* 0: none */
    struct event *connecting;
    int fd;          /* -1, or the socket that is connecting */
    int connect_sys; /* errno of the last attempt */

    unsigned n_silent_ticks; /* since the last byte from the peer */
    unsigned n_burst;        /* quick pings still to be sent */
    int64_t ping_ns;         /* when the PING without a PONG was sent; 0: none is out */
    struct gw_offset offset;
    struct gw_peer_measure *measure; /* NULL: none is under way */

    unsigned depth; /* callbacks of this connection that are running */
    bool released;  /* gw_peer_free() came from inside one: freed when the last returns */
};

/* A new connection in state CONNECTING with its events; NULL when out of memory. */
struct gw_peer_conn *gw_peer_conn_new(struct event_base *base,
                                      const struct gw_peer_options *options);

/* Wraps every callback from the loop: the connection outlives it, whoever frees it inside. */
void gw_peer_enter(struct gw_peer_conn *conn);
void gw_peer_leave(struct gw_peer_conn *conn);

/* Ends it: closed() with this error comes from the loop. The first call counts. */
void gw_peer_fail(struct gw_peer_conn *conn, const struct gw_error *error);

/* fd is connected (and the connection's now): begin TLS on conn->ssl. 0 or -1 with *error and fd
 * still the caller's. */
int gw_peer_start_tls(struct gw_peer_conn *conn, int fd, struct gw_error *error);

/* Sets or moves the one deadline. */
void gw_peer_set_deadline(struct gw_peer_conn *conn, unsigned ms);

/* TLS and the names are fine: open from now on. */
void gw_peer_open(struct gw_peer_conn *conn);

/* peer_listen.c: a connection of the listener's got through, or did not (it is freed). */
void gw_peer_listener_passed(struct gw_peer_conn *conn);
void gw_peer_listener_refused(struct gw_peer_conn *conn);

/* peer_connect.c: drops everything that belongs to the time before TCP was up. */
void gw_peer_stop_connecting(struct gw_peer_conn *conn);

/* peer.c: a message of the layer's own; takes body, NULL of which is an error as any other. */
void gw_peer_queue_own(struct gw_peer_conn *conn, enum gw_wire_type type, json_t *body);

/* peer_measure.c: a PONG has come; the connection has ended. */
void gw_peer_measure_pong(struct gw_peer_conn *conn, const json_t *body);
void gw_peer_measure_lost(struct gw_peer_conn *conn);

/* A TLS session that stands for the token's secret; both sides must make the same one. NULL when
 * out of memory. */
SSL_SESSION *gw_peer_psk_session(SSL *ssl, const uint8_t secret[GW_TOKEN_SECRET_BYTES]);

#endif
