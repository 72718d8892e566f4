/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches of owner records. What librados calls back has a life of its own (struct watcher): it
 * is freed when librados has confirmed that nothing more comes, however long that takes. The
 * caller's watch is let go at once: unwatch() cuts the two apart, and whoever leaves the last
 * running callback tells the caller.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/owner.h"
#include "storage/rados_record.h"
#include "storage/rados_store.h"
#include "util/cleanup.h"

enum { KEPT_S = 30 /* for which an OSD keeps the watch of a client that it does not hear */ };

struct watcher {
    struct gw_rados_ticket ticket; /* its time limit is that of the registration */
    struct gw_rados_task task;
    struct rados_store *store;
    char uuid[GW_OWNER_UUID_MAX + 1];
    char oid[GW_RADOS_OID_BYTES];
    uint64_t cookie;

    pthread_mutex_t lock;         /* of the following */
    pthread_cond_t quiet;         /* no callback runs */
    struct gw_store_watch *watch; /* NULL: unwatched */
    bool running;                 /* a callback is in the caller's code */
    bool registered;              /* librados knows the watch */
    bool ended;                   /* status said a negative errno, or ABSENT */
};

enum event { CHANGED, STATUS };

/* Calls the caller, one at a time. No callback begins after unwatch(). */
static void tell(struct watcher *watcher, enum event event, const struct gw_owner *seen, int result)
{
    struct gw_store_watch *watch;

    pthread_mutex_lock(&watcher->lock);
    while (watcher->running)
        pthread_cond_wait(&watcher->quiet, &watcher->lock);
    watch = watcher->ended ? NULL : watcher->watch;
    watcher->ended |= event == STATUS && result != 0;
    watcher->running = watch != NULL;
    pthread_mutex_unlock(&watcher->lock);
    if (!watch)
        return;
    if (event == CHANGED)
        watch->changed(watch, seen);
    else
        watch->status(watch, result);
    pthread_mutex_lock(&watcher->lock);
    watcher->running = false;
    pthread_cond_broadcast(&watcher->quiet);
    /* Unwatched meanwhile: that was the last callback. */
    if (watcher->watch)
        watch = NULL;
    pthread_mutex_unlock(&watcher->lock);
    if (watch)
        watch->released(watch);
}

static void on_notify(void *arg, uint64_t notify_id, uint64_t handle, uint64_t notifier_id,
                      void *data, size_t len)
{
    struct watcher *watcher = arg;
    struct gw_owner seen;
    uint64_t nonce;

    (void)notifier_id;
    rados_notify_ack(watcher->store->io, watcher->oid, notify_id, handle, NULL, 0);
    tell(watcher, CHANGED,
         gw_rados_record_decode(data, len, watcher->uuid, &seen, &nonce) ? &seen : NULL, 0);
}

static void on_error(void *arg, uint64_t handle, int r)
{
    (void)handle;
    tell(arg, STATUS, NULL, r < 0 ? r : -ENOTCONN);
}

static void on_flushed(rados_completion_t completion, void *arg)
{
    struct watcher *watcher = arg;

    rados_aio_release(completion);
    gw_rados_ticket_unref(&watcher->ticket);
}

/* librados has no watch any more, but maybe callbacks on their way. */
static void on_unwatched(rados_completion_t completion, void *arg)
{
    struct watcher *watcher = arg;
    rados_completion_t flushed;

    rados_aio_release(completion);
    if (rados_aio_create_completion2(watcher, on_flushed, &flushed) == 0)
        rados_aio_watch_flush(watcher->store->rados->cluster, flushed);
}

/* Without memory for a completion the watcher is never freed, which harms nobody. */
static void deregister(struct watcher *watcher)
{
    rados_completion_t completion;

    if (rados_aio_create_completion2(watcher, on_unwatched, &completion) == 0)
        rados_aio_unwatch(watcher->store->io, watcher->cookie, completion);
}

/* What a registration came to, unless the caller was told already that it took too long. */
static void tell_registered(struct watcher *watcher, int r)
{
    if (gw_rados_ticket_settle(&watcher->ticket))
        tell(watcher, STATUS, NULL, r == -ENOENT ? GW_OWNER_ABSENT : r);
}

static void on_registered(rados_completion_t completion, void *arg)
{
    struct watcher *watcher = arg;
    int r = rados_aio_get_return_value(completion);
    bool wanted;

    rados_aio_release(completion);
    pthread_mutex_lock(&watcher->lock);
    watcher->registered = r == 0;
    wanted = watcher->watch != NULL;
    pthread_mutex_unlock(&watcher->lock);
    if (wanted)
        tell_registered(watcher, r);
    else
        gw_rados_ticket_settle(&watcher->ticket);
    if (r < 0)
        gw_rados_ticket_unref(&watcher->ticket);
    else if (!wanted)
        deregister(watcher);
}

static int submit(struct watcher *watcher)
{
    rados_completion_t completion;
    int r = rados_aio_create_completion2(watcher, on_registered, &completion);

    if (r < 0)
        return r;
    r = rados_aio_watch2(watcher->store->io, watcher->oid, completion, &watcher->cookie, on_notify,
                         on_error, KEPT_S, watcher);
    if (r < 0)
        rados_aio_release(completion);
    return r;
}

static void run_register(struct gw_rados_task *task)
{
    struct watcher *watcher = gw_container_of(task, struct watcher, task);
    struct gw_error error;
    int r = gw_rados_ticket_settled(&watcher->ticket)
                ? -ETIMEDOUT
                : gw_rados_store_ready(watcher->store, &error);

    if (r == 0)
        r = submit(watcher);
    if (r == 0)
        return;
    tell_registered(watcher, r);
    gw_rados_ticket_unref(&watcher->ticket);
}

static void expire(struct gw_rados_ticket *ticket)
{
    tell(gw_container_of(ticket, struct watcher, ticket), STATUS, NULL, -ETIMEDOUT);
}

static void release(struct gw_rados_ticket *ticket)
{
    struct watcher *watcher = gw_container_of(ticket, struct watcher, ticket);

    gw_rados_store_unref(watcher->store);
    pthread_cond_destroy(&watcher->quiet);
    pthread_mutex_destroy(&watcher->lock);
    free(watcher);
}

int gw_rados_store_watch(struct gw_store *base, struct gw_store_watch *watch, const char *uuid)
{
    struct rados_store *store = gw_container_of(base, struct rados_store, base);
    struct watcher *watcher;

    if (!gw_owner_uuid_ok(uuid))
        return -EINVAL;
    watcher = calloc(1, sizeof *watcher);
    if (!watcher)
        return -ENOMEM;
    atomic_fetch_add(&store->n_refs, 1);
    watcher->store = store;
    watcher->watch = watch;
    memcpy(watcher->uuid, uuid, sizeof watcher->uuid);
    gw_rados_store_oid(uuid, watcher->oid);
    pthread_mutex_init(&watcher->lock, NULL);
    pthread_cond_init(&watcher->quiet, NULL);
    watcher->ticket.expire = expire;
    watcher->ticket.release = release;
    watcher->task.run = run_register;
    watch->impl = watcher;
    gw_rados_ticket_begin(store->rados, &watcher->ticket);
    atomic_fetch_add(&watcher->ticket.n_refs, 1); /* until unwatched */
    /* The worker does even a quick one: nothing comes back from inside. */
    gw_rados_post(store->rados, &watcher->task);
    return 0;
}

void gw_rados_store_unwatch(struct gw_store *store, struct gw_store_watch *watch)
{
    struct watcher *watcher = watch->impl;
    bool running, stands;

    (void)store;
    pthread_mutex_lock(&watcher->lock);
    watcher->watch = NULL;
    running = watcher->running;
    stands = watcher->registered;
    pthread_mutex_unlock(&watcher->lock);
    if (!running)
        watch->released(watch);
    if (stands)
        deregister(watcher);
    gw_rados_ticket_unref(&watcher->ticket);
}
