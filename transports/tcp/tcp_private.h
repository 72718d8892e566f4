/* SPDX-License-Identifier: Apache-2.0 */
/* What tcp.c (options, connecting), lane.c, tls.c and listener.c share. */
#ifndef GW_TRANSPORTS_TCP_PRIVATE_H
#define GW_TRANSPORTS_TCP_PRIVATE_H

#include <openssl/ssl.h>
#include <sys/socket.h>

#include "transports/hello.h"
#include "transports/queue.h"
#include "transports/tcp/tcp.h"

struct gw_tcp_address {
    struct sockaddr_storage sa;
    socklen_t bytes;
};

struct gw_tcp_addresses {
    struct gw_tcp_address list[GW_URI_ADDRESSES_MAX];
    unsigned n;
};

struct gw_tcp {
    struct gw_transport base;
    SSL_CTX *ctx; /* NULL: plain. Borrowed from the environment */
    bool ktls;
    struct gw_tcp_addresses addresses, sources;
    uint64_t connect_ms, timeout_ms, unsent_bytes, rcvbuf_bytes, sndbuf_bytes;
};

/* In this order. Those of the one role are skipped by the other. */
enum gw_tcp_step {
    GW_TCP_CONNECTING,
    GW_TCP_HANDSHAKING,
    GW_TCP_HELLO_OUT, /* connector */
    GW_TCP_ANSWER_IN,
    GW_TCP_HELLO_IN, /* listener */
    GW_TCP_JUDGING,  /* the hello is there, the listener has to answer */
    GW_TCP_ANSWER_OUT,
    GW_TCP_OPEN,
    GW_TCP_ENDED,
    GW_TCP_FAILED,
};

struct gw_tcp_lane {
    struct gw_lane base;
    struct gw_tcp *tcp;
    enum gw_tcp_step step;
    int fd;
    bool server;
    struct gw_lane_hello hello;
    char peer_wanted[64]; /* connector; "": any */
    char peer[64];        /* as its certificate has it */
    char address[96];
    struct gw_queue queue;
    struct gw_error error;
    bool finish_sent;

    /* until it is open */
    uint64_t deadline_ns; /* 0: not set yet */
    unsigned opening_events;
    uint8_t buffer[GW_HELLO_BYTES]; /* hello or answer */
    size_t n_buffer, at_buffer;

    /* TLS; ssl is NULL without */
    SSL *ssl;
    bool dry;              /* OpenSSL has asked for more from the socket since the last READ */
    bool read_wants_write; /* a receive waits for the socket to take something */
    uint8_t *stage;        /* small pieces are put together here, to be one record */
    const uint8_t *record; /* what SSL_write() was given and has to be given again; NULL: nothing */
    size_t n_record;

    TAILQ_ENTRY(gw_tcp_lane) entry; /* at the listener */
};

/* --- tcp.c */

/* TCP_NODELAY and what the URI says; before connect(), listen(), and after accept(). */
int gw_tcp_set_options(const struct gw_tcp *tcp, int fd);
void gw_tcp_format_address(char *text, size_t size, const struct gw_tcp_address *address);

/* --- lane.c */

/* A lane on fd, which is the lane's on success; NULL when out of memory. */
struct gw_tcp_lane *gw_tcp_lane_new(struct gw_tcp *tcp, int fd, const struct gw_tcp_address *peer);

/* The listener's answer to a lane in JUDGING. After a refusal the lane fails by itself. */
void gw_tcp_lane_answer(struct gw_tcp_lane *lane, enum gw_hello_verdict verdict);

/* Fails the lane: "lane 1 to 10.0.0.2:7500: what". Returns -errno. */
int gw_tcp_fail(struct gw_tcp_lane *lane, enum gw_code code, int sys, const char *what);

/* --- tls.c */

/* All return 0 or a number of bytes; -EAGAIN: events in *eventsp first; or another -errno with the
 * lane failed. gw_tls_read: 0 means the peer's end. */
int gw_tls_start(struct gw_tcp_lane *lane);
int gw_tls_handshake(struct gw_tcp_lane *lane, unsigned *eventsp);
ssize_t gw_tls_read(struct gw_tcp_lane *lane, void *to, size_t n_bytes, unsigned *eventsp);
ssize_t gw_tls_write(struct gw_tcp_lane *lane, const void *from, size_t n_bytes, unsigned *eventsp);
int gw_tls_finish(struct gw_tcp_lane *lane, unsigned *eventsp);
enum gw_lane_tls gw_tls_kind(const struct gw_tcp_lane *lane);
bool gw_tls_has_pending(const struct gw_tcp_lane *lane);
void gw_tls_free(struct gw_tcp_lane *lane);

/* Whether a context demands a certificate of the peer. */
bool gw_tls_ctx_good(const SSL_CTX *ctx);

/* --- listener.c */

int gw_tcp_listen(struct gw_transport *transport, struct gw_listener **listenerp,
                  struct gw_error *error);

#endif
