/* SPDX-License-Identifier: Apache-2.0 */
/* The transfers of a lane: two queues of what is under way, one of what has completed. What is the
 * same in every transport is here, so that each completes its transfers exactly once. */
#ifndef GW_TRANSPORTS_QUEUE_H
#define GW_TRANSPORTS_QUEUE_H

#include "godwit/transport.h"

TAILQ_HEAD(gw_transfer_list, gw_transfer);

/* All zero is not valid: gw_queue_init(). */
struct gw_queue {
    struct gw_transfer_list waiting[2]; /* by direction */
    struct gw_transfer_list done;
    uint64_t n_queued_bytes[2]; /* of what is waiting: bytes that have not moved */
    uint64_t n_moved_bytes[2];  /* all life long */
    int dead;                   /* not 0: what is submitted completes with this at once */
    bool no_more_sends;         /* finish() was called */
    bool peer_finished;         /* receives END at once */
};

void gw_queue_init(struct gw_queue *queue);

/* Checks and queues: 0, -EINVAL, -EPIPE as of gw_lane_ops.send. */
int gw_queue_submit(struct gw_queue *queue, struct gw_transfer *transfer, enum gw_direction way);

struct gw_transfer *gw_queue_first(const struct gw_queue *queue, enum gw_direction way);

/* The next pieces of transfer, at most max pieces and max_bytes bytes: how many pieces. None is
 * empty. *n_bytesp: how many bytes they are. */
unsigned gw_transfer_slice(const struct gw_transfer *transfer, struct iovec *iov, unsigned max,
                           size_t max_bytes, size_t *n_bytesp);

/* The same over all waiting transfers of a direction. */
unsigned gw_queue_slice(const struct gw_queue *queue, enum gw_direction way, struct iovec *iov,
                        unsigned max, size_t max_bytes, size_t *n_bytesp);

/* n_bytes moved (no more than were waiting); completes what has got enough. A receive that was
 * not filled by them but has its min_bytes completes too. */
void gw_queue_moved(struct gw_queue *queue, enum gw_direction way, size_t n_bytes);

/* Moves the first transfer to the completed ones. */
void gw_queue_complete_first(struct gw_queue *queue, enum gw_direction way, int result);

/* The peer has finished: all receives END. */
void gw_queue_end(struct gw_queue *queue);

/* All complete with result, and so does what comes later. The first call counts. */
void gw_queue_fail(struct gw_queue *queue, int result);

/* Whether transfer waits in a direction. */
bool gw_queue_has(const struct gw_queue *queue, const struct gw_transfer *transfer);

/* As of gw_lane_ops.cancel. */
int gw_queue_cancel(struct gw_queue *queue, struct gw_transfer *transfer);

/* The next completed one; NULL: none. */
struct gw_transfer *gw_queue_done(struct gw_queue *queue);

#endif
