/* SPDX-License-Identifier: Apache-2.0 */
#include "transports/queue.h"

#include <assert.h>
#include <errno.h>

void gw_queue_init(struct gw_queue *queue)
{
    *queue = (struct gw_queue){0};
    TAILQ_INIT(&queue->waiting[GW_SEND]);
    TAILQ_INIT(&queue->waiting[GW_RECEIVE]);
    TAILQ_INIT(&queue->done);
}

static bool add_up(const struct gw_transfer *transfer, size_t *totalp)
{
    *totalp = 0;
    if (!transfer->iov || transfer->n_iov < 1 || transfer->n_iov > GW_TRANSFER_IOV_MAX)
        return false;
    for (unsigned i = 0; i < transfer->n_iov; i++)
        if (__builtin_add_overflow(*totalp, transfer->iov[i].iov_len, totalp))
            return false;
    return *totalp > 0;
}

int gw_queue_submit(struct gw_queue *queue, struct gw_transfer *transfer, enum gw_direction way)
{
    size_t total;

    if (!add_up(transfer, &total))
        return -EINVAL;
    if (way == GW_RECEIVE && transfer->min_bytes > total)
        return -EINVAL;
    if (way == GW_SEND && queue->no_more_sends)
        return -EPIPE;
    if (way == GW_SEND || transfer->min_bytes == 0)
        transfer->min_bytes = total;
    transfer->direction = way;
    transfer->total = total;
    transfer->result = 0;
    transfer->n_bytes = transfer->at_byte = 0;
    transfer->at_iov = 0;
    TAILQ_INSERT_TAIL(&queue->waiting[way], transfer, link);
    queue->n_queued_bytes[way] += total;
    if (queue->dead)
        gw_queue_complete_first(queue, way, queue->dead);
    else if (way == GW_RECEIVE && queue->peer_finished)
        gw_queue_complete_first(queue, way, GW_TRANSFER_END);
    return 0;
}

struct gw_transfer *gw_queue_first(const struct gw_queue *queue, enum gw_direction way)
{
    return TAILQ_FIRST(&queue->waiting[way]);
}

unsigned gw_transfer_slice(const struct gw_transfer *transfer, struct iovec *iov, unsigned max,
                           size_t max_bytes, size_t *n_bytesp)
{
    size_t skip = transfer->at_byte, n_bytes = 0;
    unsigned n = 0;

    for (unsigned i = transfer->at_iov; i < transfer->n_iov && n < max && n_bytes < max_bytes;
         i++) {
        size_t here = transfer->iov[i].iov_len - skip;

        if (here > max_bytes - n_bytes)
            here = max_bytes - n_bytes;
        if (here)
            iov[n++] = (struct iovec){(char *)transfer->iov[i].iov_base + skip, here};
        n_bytes += here;
        skip = 0;
    }
    *n_bytesp = n_bytes;
    return n;
}

unsigned gw_queue_slice(const struct gw_queue *queue, enum gw_direction way, struct iovec *iov,
                        unsigned max, size_t max_bytes, size_t *n_bytesp)
{
    const struct gw_transfer *transfer;
    size_t n_bytes = 0, here;
    unsigned n = 0;

    TAILQ_FOREACH (transfer, &queue->waiting[way], link) {
        if (n == max || n_bytes == max_bytes)
            break;
        n += gw_transfer_slice(transfer, iov + n, max - n, max_bytes - n_bytes, &here);
        n_bytes += here;
    }
    *n_bytesp = n_bytes;
    return n;
}

/* Moves the cursor over n_bytes, which are there. */
static void advance(struct gw_transfer *transfer, size_t n_bytes)
{
    transfer->n_bytes += n_bytes;
    while (n_bytes > 0) {
        size_t here = transfer->iov[transfer->at_iov].iov_len - transfer->at_byte;

        if (n_bytes < here) {
            transfer->at_byte += n_bytes;
            return;
        }
        n_bytes -= here;
        transfer->at_iov++;
        transfer->at_byte = 0;
    }
}

void gw_queue_moved(struct gw_queue *queue, enum gw_direction way, size_t n_bytes)
{
    struct gw_transfer *transfer;

    while (n_bytes > 0) {
        size_t here;

        transfer = gw_queue_first(queue, way);
        assert(transfer);
        here = transfer->total - transfer->n_bytes;
        if (here > n_bytes)
            here = n_bytes;
        advance(transfer, here);
        n_bytes -= here;
        queue->n_queued_bytes[way] -= here;
        queue->n_moved_bytes[way] += here;
        if (transfer->n_bytes >= transfer->min_bytes)
            gw_queue_complete_first(queue, way, 0);
    }
}

static void complete(struct gw_queue *queue, struct gw_transfer *transfer, int result)
{
    TAILQ_REMOVE(&queue->waiting[transfer->direction], transfer, link);
    queue->n_queued_bytes[transfer->direction] -= transfer->total - transfer->n_bytes;
    transfer->result = result;
    TAILQ_INSERT_TAIL(&queue->done, transfer, link);
}

void gw_queue_complete_first(struct gw_queue *queue, enum gw_direction way, int result)
{
    complete(queue, gw_queue_first(queue, way), result);
}

void gw_queue_end(struct gw_queue *queue)
{
    queue->peer_finished = true;
    while (gw_queue_first(queue, GW_RECEIVE))
        gw_queue_complete_first(queue, GW_RECEIVE, GW_TRANSFER_END);
}

void gw_queue_fail(struct gw_queue *queue, int result)
{
    if (queue->dead)
        return;
    queue->dead = result;
    for (int way = GW_SEND; way <= GW_RECEIVE; way++)
        while (gw_queue_first(queue, (enum gw_direction)way))
            gw_queue_complete_first(queue, (enum gw_direction)way, result);
}

bool gw_queue_has(const struct gw_queue *queue, const struct gw_transfer *transfer)
{
    const struct gw_transfer *each;

    TAILQ_FOREACH (each, &queue->waiting[GW_SEND], link)
        if (each == transfer)
            return true;
    TAILQ_FOREACH (each, &queue->waiting[GW_RECEIVE], link)
        if (each == transfer)
            return true;
    return false;
}

int gw_queue_cancel(struct gw_queue *queue, struct gw_transfer *transfer)
{
    if (!gw_queue_has(queue, transfer))
        return -ENOENT;
    if (transfer->direction == GW_SEND && transfer->n_bytes > 0)
        return -EBUSY;
    complete(queue, transfer, -ECANCELED);
    return 0;
}

struct gw_transfer *gw_queue_done(struct gw_queue *queue)
{
    struct gw_transfer *transfer = TAILQ_FIRST(&queue->done);

    if (transfer)
        TAILQ_REMOVE(&queue->done, transfer, link);
    return transfer;
}
