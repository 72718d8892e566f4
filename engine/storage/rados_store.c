/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store "rados". Each call is a request that lives until librados has let go of it: it is
 * submitted (at once, or by the worker when the pool is not open yet), and if a change was refused
 * because the record is not as expected, it reads once to say how it is. See rados.h for why this
 * is right.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "storage/owner.h"
#include "storage/rados_impl.h"
#include "storage/rados_record.h"
#include "storage/rados_store.h"
#include "util/cleanup.h"

enum { NOTIFY_TIMEOUT_MS = 5000 /* for how long an OSD waits for a watcher's acknowledgement */ };

enum what { READ, CREATE, SWAP, REMOVE, SWEEP };

struct request {
    struct gw_rados_ticket ticket;
    struct gw_rados_task task;
    struct rados_store *store;
    struct gw_store_call *call;
    enum what what;
    struct gw_owner from; /* what has to be there; READ: its uuid only */
    struct gw_owner to;   /* what is to be there */
    uint64_t nonce;
    bool erases; /* it is to take may_have_run from a record that stays with its node */
    char oid[GW_RADOS_OID_BYTES];
    char ours[GW_RADOS_RECORD_BYTES]; /* the line of to */
    char expected[GW_RADOS_RECORD_BYTES];
    char found[GW_RADOS_RECORD_BYTES + 1];
    size_t n_found;
    int result; /* for answer_later() */
    /* Of the answer; the call's own belong to the caller once it is answered. */
    struct gw_owner current;
    struct gw_error error;
};

/* ---- the pool ---- */

void gw_rados_store_unref(struct rados_store *store)
{
    if (atomic_fetch_sub(&store->n_refs, 1) != 1)
        return;
    if (atomic_load(&store->ready))
        rados_ioctx_destroy(store->io);
    free(store);
}

/* Tasks only. */
int gw_rados_store_ready(struct rados_store *store, struct gw_error *error)
{
    int r;

    if (atomic_load(&store->ready))
        return 0;
    r = gw_rados_pool(store->rados, store->pool, GW_RADOS_NAMESPACE, &store->io, error);
    if (r == 0)
        atomic_store(&store->ready, true);
    return r;
}

/* ---- answers ---- */

static struct request *request_of(struct gw_rados_ticket *ticket)
{
    return gw_container_of(ticket, struct request, ticket);
}

static int failed(struct request *request, int r, const char *what)
{
    return gw_rados_failed(request->store->rados, &request->error, r,
                           "owner record of VM %s in pool %s: %s", request->from.uuid,
                           request->store->pool, what);
}

/* Ends the request: nothing of it is under way any more. */
static void answer(struct request *request, int r)
{
    struct gw_store_call *call = request->call;

    if (gw_rados_ticket_settle(&request->ticket)) {
        if (r < 0 || r == GW_OWNER_DAMAGED)
            call->error = request->error;
        else
            call->current = request->current;
        call->done(call, r);
    }
    gw_rados_ticket_unref(&request->ticket);
}

static void expire(struct gw_rados_ticket *ticket)
{
    struct request *request = request_of(ticket);
    struct gw_store_call *call = request->call;

    gw_rados_failed(ticket->rados, &call->error, -ETIMEDOUT,
                    "ask for the owner record of VM %s in pool %s", request->from.uuid,
                    request->store->pool);
    call->done(call, -ETIMEDOUT);
}

static void release(struct gw_rados_ticket *ticket)
{
    struct request *request = request_of(ticket);

    gw_rados_store_unref(request->store);
    free(request);
}

static void run_answer(struct gw_rados_task *task)
{
    struct request *request = gw_container_of(task, struct request, task);

    answer(request, request->result);
}

/* A submission never answers from inside. */
static void answer_later(struct request *request, int r)
{
    request->result = r;
    request->task.run = run_answer;
    gw_rados_post(request->store->rados, &request->task);
}

/* ---- what stands there ---- */

static int compare(struct request *request)
{
    const struct gw_owner *found = &request->current, *from = &request->from;

    if (request->what == CREATE)
        return GW_OWNER_CONFLICT;
    if (found->epoch < from->epoch)
        return failed(request, -ESTALE, "an older one than known is there");
    if (found->epoch > from->epoch || strcmp(found->node, from->node) != 0)
        return GW_OWNER_CONFLICT;
    if (request->erases && found->may_have_run)
        return failed(request, -EINVAL, "erase in place that its owner may have run");
    return failed(request, -EAGAIN, "the change was refused, though it is as expected");
}

/* After a read: 0 and positive outcomes, in their order of precedence. */
static int judge(struct request *request, int r)
{
    uint64_t nonce;

    if (r == -ENOENT)
        return request->what == CREATE ? failed(request, -EAGAIN, "it came and went")
                                       : GW_OWNER_ABSENT;
    if (r < 0)
        return failed(request, r, "read it");
    if (!gw_rados_record_decode(request->found, request->n_found, request->from.uuid,
                                &request->current, &nonce)) {
        gw_error_set(&request->error, GW_E_UNRESOLVED,
                     "owner record of VM %s: object %s in namespace " GW_RADOS_NAMESPACE
                     " of pool %s makes no sense",
                     request->from.uuid, request->oid, request->store->pool);
        gw_error_hint(&request->error, "stop the daemons, look which QEMU runs, and remove the "
                                       "object with `rados rm`; `rados get` shows it");
        return GW_OWNER_DAMAGED;
    }
    if (request->what == READ)
        return 0;
    /* A repeat whose first answer was lost. */
    if (request->what != REMOVE && nonce == request->nonce)
        return 0;
    return compare(request);
}

static void on_read(rados_completion_t completion, void *arg)
{
    struct request *request = arg;
    int r = rados_aio_get_return_value(completion);

    rados_aio_release(completion);
    answer(request, judge(request, r));
}

static int submit_read(struct request *request)
{
    rados_read_op_t op = rados_create_read_op();
    rados_completion_t completion;
    int r;

    rados_read_op_read(op, 0, sizeof request->found, request->found, &request->n_found, NULL);
    r = rados_aio_create_completion2(request, on_read, &completion);
    if (r == 0) {
        r = rados_aio_read_op_operate(op, request->store->io, completion, request->oid, 0);
        if (r < 0)
            rados_aio_release(completion);
    }
    rados_release_read_op(op);
    return r;
}

/* ---- changes ---- */

static void on_notified(rados_completion_t completion, void *arg)
{
    struct request *request = arg;

    rados_aio_release(completion);
    gw_rados_ticket_unref(&request->ticket);
}

/* Tells the watchers what stands there now; nobody waits for that, nor for whether it worked. */
static void notify(struct request *request)
{
    rados_completion_t completion;

    if (rados_aio_create_completion2(request, on_notified, &completion) < 0)
        return;
    atomic_fetch_add(&request->ticket.n_refs, 1);
    if (rados_aio_notify(request->store->io, request->oid, completion, request->ours,
                         sizeof request->ours, NOTIFY_TIMEOUT_MS, NULL, NULL) < 0) {
        rados_aio_release(completion);
        gw_rados_ticket_unref(&request->ticket);
    }
}

static void on_written(rados_completion_t completion, void *arg)
{
    struct request *request = arg;
    int r = rados_aio_get_return_value(completion);

    rados_aio_release(completion);
    if (r == 0) {
        request->current = request->to;
        if (request->what == SWAP)
            notify(request);
    } else if (r == -ENOENT && request->what != CREATE) {
        r = GW_OWNER_ABSENT;
    } else if (r == -EEXIST || r <= -GW_RADOS_MISMATCH) {
        r = submit_read(request);
        if (r == 0)
            return;
        failed(request, r, "read it");
    } else {
        failed(request, r, request->what == CREATE ? "create it" : "change it");
    }
    answer(request, r);
}

static void on_swept(rados_completion_t completion, void *arg)
{
    rados_aio_release(completion);
    answer(arg, 0);
}

/* The one operation that makes the change, or nothing. */
static void fill(const struct request *request, rados_write_op_t op)
{
    size_t n = request->erases ? GW_RADOS_RECORD_RUN_BYTES : GW_RADOS_RECORD_STATE_BYTES;

    if (request->what == CREATE) {
        rados_write_op_create(op, LIBRADOS_CREATE_EXCLUSIVE, NULL);
    } else {
        rados_write_op_assert_exists(op);
        rados_write_op_cmpext(op, request->expected, n, 0, NULL);
    }
    if (request->what == REMOVE)
        rados_write_op_remove(op);
    else
        rados_write_op_write_full(op, request->ours, sizeof request->ours);
}

static int submit_write(struct request *request)
{
    rados_completion_t completion;
    rados_write_op_t op;
    int r = rados_aio_create_completion2(request, on_written, &completion);

    if (r < 0)
        return r;
    op = rados_create_write_op();
    fill(request, op);
    /* Without FULL_TRY librados holds every write back while the pool is full. */
    r = rados_aio_write_op_operate(op, request->store->io, completion, request->oid, NULL,
                                   LIBRADOS_OPERATION_FULL_TRY);
    rados_release_write_op(op);
    if (r < 0)
        rados_aio_release(completion);
    return r;
}

/* Nothing is ever left behind here: a creation is one operation. */
static int submit_sweep(struct request *request)
{
    rados_completion_t completion;
    int r = rados_aio_create_completion2(request, on_swept, &completion);

    if (r < 0)
        return r;
    r = rados_aio_flush_async(request->store->io, completion);
    if (r < 0)
        rados_aio_release(completion);
    return r;
}

static int submit(struct request *request)
{
    switch (request->what) {
    case READ: return submit_read(request);
    case SWEEP: return submit_sweep(request);
    default: return submit_write(request);
    }
}

static void run_first(struct gw_rados_task *task)
{
    struct request *request = gw_container_of(task, struct request, task);
    int r;

    /* Whoever asked was told that it is unknown: make it not happen, now that it can be. */
    if (gw_rados_ticket_settled(&request->ticket)) {
        answer(request, -ETIMEDOUT);
        return;
    }
    r = gw_rados_store_ready(request->store, &request->error);
    if (r == 0 && gw_rados_ticket_settled(&request->ticket))
        r = -ETIMEDOUT;
    else if (r == 0 && (r = submit(request)) < 0)
        failed(request, r, "ask librados");
    else if (r == 0)
        return;
    answer(request, r);
}

static void start(struct request *request)
{
    struct rados_store *store = request->store;
    int r;

    gw_rados_ticket_begin(store->rados, &request->ticket);
    if (!atomic_load(&store->ready)) {
        request->task.run = run_first;
        gw_rados_post(store->rados, &request->task);
        return;
    }
    r = submit(request);
    if (r < 0)
        answer_later(request, failed(request, r, "ask librados"));
}

/* ---- the ops ---- */

/* A request, not started; NULL without memory. */
static struct request *request_new(struct gw_store *base, struct gw_store_call *call,
                                   enum what what, const char *uuid)
{
    struct rados_store *store = gw_container_of(base, struct rados_store, base);
    struct request *request = calloc(1, sizeof *request);

    if (!request)
        return NULL;
    atomic_fetch_add(&store->n_refs, 1);
    request->ticket.rados = store->rados;
    request->ticket.expire = expire;
    request->ticket.release = release;
    request->store = store;
    request->call = call;
    request->what = what;
    snprintf(request->from.uuid, sizeof request->from.uuid, "%s", uuid);
    gw_rados_store_oid(uuid, request->oid);
    return request;
}

/* The line to be written: a nonce that nobody else has, and the time. */
static int encode(struct request *request)
{
    struct timespec now;

    if (getrandom(&request->nonce, sizeof request->nonce, 0) != (ssize_t)sizeof request->nonce)
        return -EIO;
    clock_gettime(CLOCK_REALTIME, &now);
    request->to.updated_at_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    gw_rados_record_encode(&request->to, request->nonce, request->ours);
    return 0;
}

static int do_read(struct gw_store *store, struct gw_store_call *call, const char *uuid)
{
    struct request *request;

    if (!gw_owner_uuid_ok(uuid))
        return -EINVAL;
    request = request_new(store, call, READ, uuid);
    if (!request)
        return -ENOMEM;
    start(request);
    return 0;
}

/* A change from *from to *to, or to nothing. */
static int change(struct gw_store *store, struct gw_store_call *call, enum what what,
                  const struct gw_owner *from, const struct gw_owner *to)
{
    struct request *request = request_new(store, call, what, from->uuid);

    if (!request)
        return -ENOMEM;
    request->from = *from;
    request->to = *to;
    request->from.may_have_run = false; /* what a swap that erases compares */
    gw_rados_record_encode(&request->from, 0, request->expected);
    request->erases = what == SWAP && !to->may_have_run && strcmp(from->node, to->node) == 0;
    if (encode(request) < 0)
        answer_later(request, failed(request, -EIO, "get random bytes"));
    else
        start(request);
    return 0;
}

static int do_create(struct gw_store *store, struct gw_store_call *call,
                     const struct gw_owner *owner)
{
    return gw_owner_ok(owner) ? change(store, call, CREATE, owner, owner) : -EINVAL;
}

static int do_swap(struct gw_store *store, struct gw_store_call *call, const struct gw_owner *from,
                   const struct gw_owner *to)
{
    struct gw_owner next = *to;

    if (!gw_owner_ok(from) || !gw_owner_node_ok(to->node))
        return -EINVAL;
    if (from->epoch == UINT64_MAX)
        return -EOVERFLOW;
    next.epoch = from->epoch + 1;
    memcpy(next.uuid, from->uuid, sizeof next.uuid);
    return change(store, call, SWAP, from, &next);
}

static int do_remove(struct gw_store *store, struct gw_store_call *call,
                     const struct gw_owner *owner)
{
    return gw_owner_ok(owner) ? change(store, call, REMOVE, owner, owner) : -EINVAL;
}

static int do_sweep(struct gw_store *store, struct gw_store_call *call)
{
    struct request *request = request_new(store, call, SWEEP, "");

    if (!request)
        return -ENOMEM;
    start(request);
    return 0;
}

static void do_close(struct gw_store *base)
{
    /* What the caller was told has timed out may still be under way. */
    gw_rados_store_unref(gw_container_of(base, struct rados_store, base));
}

static const struct gw_store_ops rados_ops = {
    .name = "rados",
    .caps = GW_STORE_WATCHES,
    .read = do_read,
    .create = do_create,
    .swap = do_swap,
    .remove = do_remove,
    .sweep = do_sweep,
    .watch = gw_rados_store_watch,
    .unwatch = gw_rados_store_unwatch,
    .close = do_close,
};

int gw_rados_store_open(struct gw_rados *rados, const char *pool, struct gw_store **storep,
                        struct gw_error *error)
{
    size_t len = strlen(pool);
    struct rados_store *store;

    if (len == 0 || len > GW_RBD_PART_MAX)
        return gw_error_set(error, GW_E_USAGE, "'%.200s' is no name of a pool", pool);
    store = calloc(1, sizeof *store);
    if (!store)
        return gw_error_set_sys(error, ENOMEM, "open the owner records in pool %s", pool);
    store->base.ops = &rados_ops;
    store->rados = rados;
    memcpy(store->pool, pool, len + 1);
    atomic_init(&store->n_refs, 1);
    *storep = &store->base;
    return 0;
}
