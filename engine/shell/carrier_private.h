/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the carrier share; see carrier.h. */
#ifndef GW_SHELL_CARRIER_PRIVATE_H
#define GW_SHELL_CARRIER_PRIVATE_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "flow/barrier.h"
#include "flow/pace.h"
#include "flow/rate.h"
#include "flow/receiver.h"
#include "shell/carrier.h"

#define GW_CARRIER_OUTS          3  /* frames that a lane can have under way */
#define GW_CARRIER_DECISIONS_MAX 32 /* in a carrier's life */

/* A frame on its way out. */
struct gw_carrier_out {
    struct gw_transfer transfer;
    struct iovec iov;
    bool busy; /* the lane has it */
    uint8_t *bytes;
};

/* What a lane has done so far; under the carrier's lock. */
struct gw_carrier_counts {
    uint64_t wire_bytes;   /* sent, frames included, TLS and TCP not */
    uint64_t raw_bytes;    /* of pages, not compared and not encoded */
    uint64_t passed_bytes; /* of the main channel and of packets that are passed on */
    uint64_t n_whole, n_pieces, n_zero, n_same, n_batches;
    struct gw_rate_counts rate; /* of this lane and its thread alone */
};

/* A connection of QEMU and its lane: one thread's, but for `counts`. */
struct gw_carrier_lane {
    struct gw_carrier *carrier;
    pthread_t thread;
    bool started; /* the thread is to be joined */
    unsigned number;
    int qemu; /* -1: not connected */
    struct gw_lane *lane;
    struct gw_carrier_out out[GW_CARRIER_OUTS];
    struct {
        struct gw_transfer transfer;
        struct iovec iov;
        bool busy;      /* the lane has it */
        bool ended;     /* the peer sends nothing any more */
        uint8_t *bytes; /* 2 * GW_FRAME_MAX */
        size_t at, n;   /* [at, n) is there and not used yet */
    } in;
    struct gw_sender sender;     /* of a multifd channel's lane at the source */
    struct gw_receiver receiver; /* at the destination */
    uint8_t *payload;            /* source: of one packet */
    uint64_t blocked_ns;         /* waited for the lane */
    uint64_t starved_ns;         /* waited for QEMU, or for the other lanes at a SYNC */
    struct gw_carrier_counts counts;
};

struct gw_carrier {
    bool is_source;
    struct gw_carrier_handler *handler; /* NULL: has been told, or does not want to be */
    SSL_CTX *tls;
    struct gw_transport *transport;
    struct gw_listener *listener; /* destination: the listener's thread's */
    char peer[64];
    char socket_path[108];
    struct gw_lane_hello hello; /* of lane 0 */
    unsigned n_channels, n_lanes;
    uint16_t port;
    int unix_listener; /* source */

    int wake;           /* readable: all lanes end */
    int drain, let_go;  /* source; readable: nothing QEMU sends counts; QEMU is to be left */
    int mail_fd;        /* readable: there is an error */
    struct event *mail; /* the loop's */
    pthread_t listen_thread;
    bool listening; /* listen_thread is to be joined */
    struct gw_barrier barrier;
    struct gw_ram ram;               /* destination */
    struct gw_sender_ram sender_ram; /* source */
    atomic_bool last_round;
    atomic_bool stopping; /* changed under the lock */

    pthread_mutex_t lock;  /* for what follows, and lane[].counts */
    struct gw_error error; /* the first one */
    bool taken[GW_LANES_MAX];
    enum gw_lane_tls encryption;
    struct gw_pace pace;
    struct gw_rate rate;
    uint64_t reviewed_ns;
    unsigned n_working;                   /* source: lanes that are about a packet of pages */
    uint64_t working_since_ns, worked_ns; /* … and how long there was one */
    struct gw_pace_decision decision[GW_CARRIER_DECISIONS_MAX];
    unsigned n_decisions, n_decisions_taken;
    uint64_t n_decisions_lost;

    struct gw_carrier_lane lane[GW_LANES_MAX];
};

/* carrier.c. The first error ends the carrier; any thread. Returns -1. */
int gw_carrier_fail(struct gw_carrier *carrier, const struct gw_error *error);
/* Number `number` is this lane's; false: another has it. */
bool gw_carrier_claim(struct gw_carrier *carrier, unsigned number);
void gw_carrier_count(struct gw_carrier_lane *l, const struct gw_batch_figures *figures,
                      uint64_t raw_bytes, uint64_t passed_bytes);
/* Starts a thread that no signal reaches. 0; -errno. */
int gw_carrier_start_thread(pthread_t *threadp, void *(*run)(void *), void *arg);

/*
 * carrier_lane.c. What a lane's thread does with its two ends; while it waits for one it moves the
 * other on. All: -1 with *error when either end has failed or the carrier ends.
 */
int gw_carrier_lane_init(struct gw_carrier_lane *l, struct gw_error *error);
void gw_carrier_lane_fini(struct gw_carrier_lane *l);
/* Until fd (-1: none) has one of events, or the lane has moved. */
int gw_carrier_wait(struct gw_carrier_lane *l, int fd, short events, struct gw_error *error);
/* Any number of bytes; 0: QEMU has closed it. */
ssize_t gw_carrier_read(struct gw_carrier_lane *l, void *to, size_t n_bytes,
                        struct gw_error *error);
int gw_carrier_write(struct gw_carrier_lane *l, const void *from, size_t n_bytes,
                     struct gw_error *error);
/* A free frame, GW_FRAME_MAX long; NULL with *error. */
struct gw_carrier_out *gw_carrier_get(struct gw_carrier_lane *l, struct gw_error *error);
bool gw_carrier_has_free(const struct gw_carrier_lane *l);
int gw_carrier_send(struct gw_carrier_lane *l, struct gw_carrier_out *out, size_t n_bytes,
                    struct gw_error *error);
int gw_carrier_send_frame(struct gw_carrier_lane *l, enum gw_frame_kind kind, const void *payload,
                          size_t n_payload, struct gw_error *error);
int gw_carrier_flush(struct gw_carrier_lane *l, struct gw_error *error);
/* The next frame, valid until the next call. 0; 1: none is there yet. */
int gw_carrier_try_frame(struct gw_carrier_lane *l, struct gw_frame *frame, struct gw_error *error);
int gw_carrier_next_frame(struct gw_carrier_lane *l, struct gw_frame *frame,
                          struct gw_error *error);
/* END has been sent: until the peer has said the same. */
int gw_carrier_finish(struct gw_carrier_lane *l, struct gw_error *error);
/* Both ends of the main channel, until both have ended. */
int gw_carrier_run_main(struct gw_carrier_lane *l, struct gw_error *error);

/* carrier_source.c, carrier_destination.c: the threads. */
void *gw_carrier_source_thread(void *lane);
void *gw_carrier_destination_thread(void *carrier);

#endif
