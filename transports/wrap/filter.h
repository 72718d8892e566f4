/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every wrapper is made of: a transport, listener and lanes that hold the next ones and pass
 * transfers down in parts. A wrapper decides how much of a transfer may go on, and when, and sees
 * what has moved. In each direction one part is under way at a time.
 */
#ifndef GW_TRANSPORTS_FILTER_H
#define GW_TRANSPORTS_FILTER_H

#include "transports/queue.h"

struct gw_filter_lane;

struct gw_filter_ops {
    const char *name;
    size_t lane_bytes; /* of the wrapper's own struct, which begins with struct gw_filter_lane */

    /* All may be NULL. */
    void (*lane_init)(struct gw_filter_lane *lane);

    /* How many of the n_bytes (at least 1) at the front may go now. 0: none before *at_ns, which
     * is GW_NEVER at first. May call gw_filter_fail(), then it returns 0. */
    size_t (*grant)(struct gw_filter_lane *lane, enum gw_direction way, size_t n_bytes,
                    uint64_t *at_ns);

    /* n_bytes at the front of transfer moved; its cursor is still before them. */
    void (*moved)(struct gw_filter_lane *lane, enum gw_direction way,
                  const struct gw_transfer *transfer, size_t n_bytes);

    /* direction and n_bytes as of struct gw_trace_event. */
    void (*event)(struct gw_filter_lane *lane, enum gw_trace_kind kind, enum gw_direction way,
                  uint64_t n_bytes, int result);

    /* As of gw_transport_ops; NULL: what the next one says. */
    int (*set_rate)(struct gw_transport *transport, uint64_t bytes_s);
    int (*read_trace)(struct gw_transport *transport, struct gw_trace_event *events, unsigned max,
                      uint64_t *n_lostp);
    void (*fini)(struct gw_transport *transport);
};

struct gw_filter_lane {
    struct gw_lane base;
    struct gw_lane *next;
    struct gw_filter *filter;
    struct gw_lane_hello hello;
    bool accepted;
    bool was_open;
    bool finish_passed;
    bool over;       /* the next one has ended or failed, and we have seen it */
    bool failed;     /* by the wrapper; the next one's own failure is found there */
    uint64_t now_ns; /* of the last notify() */
    struct gw_error error;
    struct gw_queue queue;
    struct gw_filter_half {
        struct gw_transfer part;
        struct iovec iov[GW_TRANSFER_IOV_MAX];
        bool busy;      /* part is under way below */
        bool waiting;   /* for at_ns, by the wrapper's decision */
        uint64_t at_ns; /* GW_NEVER: for good */
    } halves[2];
};

/* First member of every wrapper's own transport. */
struct gw_filter {
    struct gw_transport base;
    const struct gw_filter_ops *ops;
    struct gw_transport *next;
};

/* A transport around next, of filter_bytes, all zero behind its first member; NULL when out of
 * memory, and next is still the caller's. */
struct gw_filter *gw_filter_new(const struct gw_filter_ops *ops, size_t filter_bytes,
                                struct gw_transport *next);

/* Takes the lane down with -result, and the one below. */
void gw_filter_fail(struct gw_filter_lane *lane, int result, const char *why);

struct gw_filter *gw_filter_of(struct gw_transport *transport);

#endif
