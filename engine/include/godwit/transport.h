/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transports: what moves bytes between two nodes. For implementers, and for whoever carries a
 * migration over them.
 *
 * A transport makes lanes. A lane is an ordered, reliable, two-way channel of bytes between one
 * thread here and one there; a migration has 1 to GW_LANES_MAX of them, numbered. Framing, order
 * between lanes, checksums and negotiation live above; a transport moves bytes (one day also
 * memory, see struct gw_lane_memory_ops).
 *
 * Happy path. The destination opens a transport, makes a listener and tells it which migration to
 * expect. The source opens its own and connects lane 0 … n-1. Each lane introduces itself (struct
 * gw_lane_hello); the listener refuses strangers and hands out the others. Both sides submit
 * transfers, drive the lane from any event loop, and take completed transfers back. At the end each
 * side calls finish(), and frees the lane after it has seen the other's end.
 *
 * Nothing here blocks, starts a thread or calls back. A lane, and a listener, are driven like this:
 *
 *     for (;;) {
 *         lane->ops->want(lane, &want);
 *         …poll want.fd for want.events, until want.at_ns at the latest…
 *         lane->ops->notify(lane, events_seen, now_ns);
 *         while ((transfer = lane->ops->done(lane)))
 *             …it is yours again…
 *     }
 *
 * Submissions only queue; bytes move inside notify(), which may be called at any time with any
 * events. So after a submission call notify() with its direction, and poll only if that was not
 * enough. notify() moves a bounded number of bytes and then returns.
 *
 * Threads. A transport may be used by several threads at a time. A listener or lane belongs to one
 * thread at a time and can be handed to another together with all of its transfers; two lanes never
 * share state that their threads would have to know of.
 *
 * Time is CLOCK_MONOTONIC in ns as far as a transport can tell, but it only ever compares what
 * it is given: a simulator may give its own.
 *
 * The process must ignore SIGPIPE: OpenSSL writes to sockets that the other side may have closed.
 */
#ifndef GODWIT_TRANSPORT_H
#define GODWIT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "godwit/error.h"

#define GW_LANES_MAX        64 /* lanes of one migration */
#define GW_TRANSFER_IOV_MAX 256
#define GW_NEVER            UINT64_MAX

/* --- transfers ------------------------------------------------------------------------------- */

enum gw_direction { GW_SEND, GW_RECEIVE };

/* Positive results of a transfer. */
enum gw_transfer_outcome {
    GW_TRANSFER_END = 1, /* receive: the peer has finished, and fewer than min_bytes came */
};

/*
 * One send or receive, embedded in the caller's own struct (gw_container_of). From a submission
 * that returned 0 until done() returns it, exactly once, the struct, its iov array and what that
 * points to belong to the lane: they stay valid, the array and what is sent stay unchanged.
 */
struct gw_transfer {
    /* Set by the caller. */
    const struct iovec *iov; /* 1 to GW_TRANSFER_IOV_MAX pieces, at least one byte in all; a piece
                                may be empty. A lane does not write to what is sent */
    unsigned n_iov;
    size_t min_bytes; /* receive: complete as soon as so many are there; 0: all. Not for a send */

    /*
     * Set by the lane. result: 0; for a send that means that all bytes were handed over, not that
     * they arrived. GW_TRANSFER_END. -ECANCELED after cancel() or abort(). Another negative errno:
     * the lane has failed, see error(); all its transfers complete with the same one.
     */
    int result;
    enum gw_direction direction;
    size_t n_bytes; /* so many have moved, whatever the result */

    /* The lane's own. */
    size_t total;
    unsigned at_iov;
    size_t at_byte;
    TAILQ_ENTRY(gw_transfer) link;
};

/* --- lanes ----------------------------------------------------------------------------------- */

enum gw_io {
    GW_IO_READ = 1 << 0,
    GW_IO_WRITE = 1 << 1,
};

/* What has to happen before notify() can get further. */
struct gw_want {
    int fd;          /* poll this; the same all its life, but -1 when there is nothing to poll any
                        more. If poll reports an error or a hang-up, notify with both directions */
    unsigned events; /* enum gw_io; may be 0 */
    uint64_t at_ns;  /* or at this time; 0: at once; GW_NEVER */
};

enum gw_lane_state {
    GW_LANE_OPENING, /* transfers can be submitted and wait */
    GW_LANE_OPEN,    /* both sides have accepted each other */
    GW_LANE_ENDED,   /* both sides have finished and all was received */
    GW_LANE_FAILED,  /* error() says why */
};

/* Who a lane is. The listener learns it before anything else; what it does not expect is refused.
 */
struct gw_lane_hello {
    uint8_t migration[16]; /* its id */
    uint8_t secret[16];    /* agreed for this migration over another, safe connection. On a lane
                              without encryption it keeps out who cannot listen on the network */
    uint16_t lane;         /* 0 … n_lanes-1 */
    uint16_t n_lanes;      /* 1 … GW_LANES_MAX; the same on all lanes of a migration */
};

enum gw_lane_tls {
    GW_LANE_PLAIN,
    GW_LANE_TLS,      /* by OpenSSL in this process */
    GW_LANE_KTLS,     /* by the kernel, both ways */
    GW_LANE_KTLS_SEND /* by the kernel when sending, by OpenSSL when receiving */
};

/* Figures of a lane; those that a transport does not know are 0. */
struct gw_lane_info {
    enum gw_lane_state state;
    struct gw_lane_hello hello;
    enum gw_lane_tls tls;
    char peer[64];                  /* node name in the peer's certificate; "" without one */
    uint64_t sent_bytes;            /* handed over: they have left the caller's buffers */
    uint64_t received_bytes;        /* given to the caller's buffers */
    uint64_t queued_bytes;          /* of submitted sends, not yet handed over */
    uint64_t unacked_bytes;         /* handed over, the peer's kernel has not confirmed them */
    uint64_t unsent_bytes;          /* the part of these that has not been put on the wire */
    uint64_t delivery_rate_bytes_s; /* recent, as the kernel measured it (TCP_INFO) */
    uint64_t rtt_ns, min_rtt_ns;    /* smoothed; smallest */
    uint64_t retransmits;           /* packets, all life long */
    uint64_t busy_ns;               /* there was something to send */
    uint64_t receiver_limited_ns;   /* of these: the peer's window was shut or too small */
};

struct gw_lane;
struct gw_lane_memory_ops;

enum gw_lane_caps {
    /* A peer that is killed looks different from one that has finished. Without it END has to be
     * confirmed by what was received. (A lane that is aborted or freed always fails its peer.) */
    GW_LANE_TRUE_END = 1 << 0,
    GW_LANE_MEMORY = 1 << 1, /* ->memory is there */
};

struct gw_lane_ops {
    const char *name;

    /* enum gw_lane_caps; known when the lane is OPEN. */
    unsigned (*caps)(const struct gw_lane *lane);

    void (*want)(struct gw_lane *lane, struct gw_want *want);

    /* Moves what can be moved. events (enum gw_io) are directions that may be ready; too many cost
     * a system call, too few only time. now_ns never goes backwards. */
    void (*notify)(struct gw_lane *lane, unsigned events, uint64_t now_ns);

    /*
     * Queue one transfer behind the earlier ones of its direction. 0; or -EINVAL: not legal; or
     * -EPIPE: a send after finish(). Then it is still the caller's. A lane that has failed or ended
     * accepts it and completes it accordingly.
     */
    int (*send)(struct gw_lane *lane, struct gw_transfer *transfer);
    int (*receive)(struct gw_lane *lane, struct gw_transfer *transfer);

    /* The next completed transfer, those of one direction in the order of their submission (a
     * cancelled one may come early); NULL: none now. */
    struct gw_transfer *(*done)(struct gw_lane *lane);

    /*
     * Takes back a transfer that has not completed: 0, and done() gives it with -ECANCELED without
     * another notify(). A receive that has got bytes already keeps them (n_bytes). -EBUSY: a send
     * of which a part is gone, which only abort() can stop. -ENOENT: not under way here.
     */
    int (*cancel)(struct gw_lane *lane, struct gw_transfer *transfer);

    /* No more sends: the peer's receives END when it has got all that was submitted. Receiving
     * goes on. Twice is fine. */
    void (*finish)(struct gw_lane *lane);

    /* The end at once: all transfers complete with -ECANCELED, the peer's fail (with -ECONNRESET if
     * it can be told). No effect on a lane that has failed or ended. */
    void (*abort)(struct gw_lane *lane);

    void (*info)(struct gw_lane *lane, struct gw_lane_info *info);

    /* Why the lane has failed, borrowed; NULL unless it has. */
    const struct gw_error *(*error)(const struct gw_lane *lane);

    /* Like abort(), then frees. No transfer may be under way or wait in done(), except that a lane
     * which was aborted, failed or ended may be freed without taking them: they are the caller's
     * again. NULL is not fine; gw_lane_free() takes it. */
    void (*free)(struct gw_lane *lane);

    const struct gw_lane_memory_ops *memory; /* NULL without GW_LANE_MEMORY */
};

/* First member of every implementation's own struct. */
struct gw_lane {
    const struct gw_lane_ops *ops;
};

/*
 * Registered memory and one-sided writes, where the transport has them (RDMA). No transport of this
 * tree has yet. A write completes like a send, in one order with the sends of its lane: bytes that
 * are sent after it arrive after it can be seen in the peer's memory.
 */
struct gw_region; /* memory registered at one lane */

struct gw_region_key { /* names a region to the peer; how it gets there is the caller's affair */
    uint64_t base;
    uint64_t n_bytes;
    uint64_t key;
};

struct gw_lane_memory_ops {
    size_t max_region_bytes;

    /* Registering may block for as long as pinning takes: before the guest's time counts. The
     * region must be deregistered before its memory or the lane goes. peer_may_write: the region is
     * a target. 0 with *regionp and, for a target, *key; or a negative errno. */
    int (*register_memory)(struct gw_lane *lane, void *base, size_t n_bytes, bool peer_may_write,
                           struct gw_region **regionp, struct gw_region_key *key);
    void (*deregister)(struct gw_lane *lane, struct gw_region *region);

    /* Writes the transfer's pieces, all within local, to target from offset on. Queues like send.
     * -EINVAL: outside of a region. */
    int (*write)(struct gw_lane *lane, struct gw_transfer *transfer, struct gw_region *local,
                 const struct gw_region_key *target, uint64_t offset);
};

/* --- listeners ------------------------------------------------------------------------------- */

struct gw_listener;

/* A migration whose lanes may come in. */
struct gw_lane_expected {
    uint8_t migration[16];
    uint8_t secret[16];
    uint16_t n_lanes;
    char peer[64]; /* where there are certificates: the name in it has to be this; "": any that the
                      TLS context trusts */
};

/* Somebody who did not get in, for the log. */
struct gw_lane_refusal {
    char address[96]; /* "10.0.0.9:51234"; "" where there is none */
    struct gw_error error;
    unsigned n_lost; /* so many earlier ones had to be forgotten */
};

struct gw_listener_ops {
    /* As with a lane. What comes in before it is accepted is bounded in number and time. */
    void (*want)(struct gw_listener *listener, struct gw_want *want);
    void (*notify)(struct gw_listener *listener, unsigned events, uint64_t now_ns);

    /* Copies. 0; -EINVAL; -EEXIST: is expected already; -ENOSPC: more than 64 at a time. */
    int (*expect)(struct gw_listener *listener, const struct gw_lane_expected *expected);

    /* Its lanes that have not come yet will be refused, those that wait in accept() are aborted. */
    void (*forget)(struct gw_listener *listener, const uint8_t migration[16]);

    /* The next lane that was let in, OPEN and the caller's; NULL: none now. Each number of a
     * migration comes at most once. */
    struct gw_lane *(*accept)(struct gw_listener *listener);

    /* Whether there was one to tell of. */
    bool (*refused)(struct gw_listener *listener, struct gw_lane_refusal *refusal);

    /* The port that it is bound to; 0 where there is none. */
    uint16_t (*port)(const struct gw_listener *listener);

    /* Drops who has not been accepted; accepted lanes stay. */
    void (*free)(struct gw_listener *listener);
};

struct gw_listener {
    const struct gw_listener_ops *ops;
};

/* --- transports ------------------------------------------------------------------------------ */

struct ssl_ctx_st; /* OpenSSL's SSL_CTX */
struct gw_mem_hub;
struct gw_transport;

/* What a transport is given. It outlives the transport. */
struct gw_transport_env {
    struct ssl_ctx_st *tls; /* TLS 1.3, our certificate, demands the peer's; NULL: only plain */
    struct gw_mem_hub *mem; /* where mem:// names meet; NULL: no mem:// */
};

/* A record of the trace wrapper. */
enum gw_trace_kind {
    GW_TRACE_OPEN,   /* the lane has opened */
    GW_TRACE_SUBMIT, /* bytes: of the transfer; at_ns: the lane's last notify() before it */
    GW_TRACE_MOVED,  /* bytes: of one step of a transfer */
    GW_TRACE_DONE,   /* bytes: of the whole transfer; result */
    GW_TRACE_FINISH, /* finish() was called */
    GW_TRACE_ABORT,  /* abort() was called */
    GW_TRACE_FAILED, /* result */
    GW_TRACE_KIND_MAX
};

struct gw_trace_event {
    uint64_t at_ns;
    uint16_t lane;
    bool accepted; /* a lane that came in through the listener */
    enum gw_trace_kind kind;
    enum gw_direction direction; /* SUBMIT, MOVED, DONE */
    uint64_t n_bytes;
    int result;
};

struct gw_transport_ops {
    const char *name;

    /* 0 with *listenerp; or -1 with *error. One listener at a time and address. */
    int (*listen)(struct gw_transport *transport, struct gw_listener **listenerp,
                  struct gw_error *error);

    /* Starts to connect. peer: the name that the certificate must have, where there are
     * certificates; "": any. 0 with *lanep, OPENING; or -1 with *error when not even a start was
     * possible. Copies hello. */
    int (*connect)(struct gw_transport *transport, const struct gw_lane_hello *hello,
                   const char *peer, struct gw_lane **lanep, struct gw_error *error);

    /*
     * The limit of all lanes of this transport together, in bytes a second of sends; 0: none. At
     * any time, from any thread; lanes that wait take notice within 10 ms. -ENOTSUP without the
     * rate wrapper.
     */
    int (*set_rate)(struct gw_transport *transport, uint64_t bytes_s);

    /* Takes the oldest events out of the trace wrapper's ring: how many. n_lostp: so many older
     * ones were overwritten since the last call. -ENOTSUP without the trace wrapper. */
    int (*read_trace)(struct gw_transport *transport, struct gw_trace_event *events, unsigned max,
                      uint64_t *n_lostp);

    /* Its lanes and listeners must be gone. */
    void (*free)(struct gw_transport *transport);
};

struct gw_transport {
    const struct gw_transport_ops *ops;
    unsigned n_lanes; /* as its URI has it; 1 by default. Advice to the caller */
};

/*
 * Opens the transport of a URI, which is untrusted text:
 *
 *     [WRAPPER+]…NAME://ADDRESS[,ADDRESS…]:PORT[?KEY=VALUE[&…]]
 *
 *     tcp://10.0.0.2:7500?lanes=4
 *     tcp://10.0.0.2,10.1.0.2:7500?lanes=4&source=10.0.0.1,10.1.0.1&plain=yes
 *     fault+rate+tcp://[fd00::2]:7500?seed=7&short=100&rate=1gbit
 *     mem://name
 *
 * Wrappers apply from left to right: the first is next to the caller. Lane i takes the addresses
 * number i modulo their count. Addresses are numeric: looking up names blocks. An unknown key is an
 * error. Sizes have an optional unit KiB, MiB or GiB, rates (bytes a second) also kbit, mbit, gbit
 * (1000 bits and so on, a second), times ms or s. Keys of all: lanes. Others: see the headers
 * transports/tcp/tcp.h, transports/mem/mem.h and transports/wrap/ *.h.
 *
 * 0 with *transportp; or -1 with *error: GW_E_USAGE, GW_E_UNSUPPORTED, GW_E_SYSTEM.
 */
int gw_transport_open(const char *uri, const struct gw_transport_env *env,
                      struct gw_transport **transportp, struct gw_error *error);

/* All take NULL. */
void gw_transport_free(struct gw_transport *transport);
void gw_listener_free(struct gw_listener *listener);
void gw_lane_free(struct gw_lane *lane);

/* "opening", "open", …; "plain", "tls", "ktls", "ktls-send"; "open", "submit", … of a trace. */
const char *gw_lane_state_name(enum gw_lane_state state);
const char *gw_lane_tls_name(enum gw_lane_tls tls);
const char *gw_trace_kind_name(enum gw_trace_kind kind);

/* Where the two ends of mem:// meet, within one process. NULL when out of memory; freed after
 * the transports that use it. Thread-safe. */
struct gw_mem_hub *gw_mem_hub_new(void);
void gw_mem_hub_free(struct gw_mem_hub *hub);

#endif
