/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "build_config.h"
#include "storage/rados_impl.h"
#include "storage/rados_module.h"
#include "util/cleanup.h"

#define NS_PER_MS UINT64_C(1000000)

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 * NS_PER_MS + (uint64_t)now.tv_nsec;
}

static void wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns)
{
    struct timespec at = {.tv_sec = (time_t)(ns / (1000 * NS_PER_MS)),
                          .tv_nsec = (long)(ns % (1000 * NS_PER_MS))};

    pthread_cond_timedwait(cond, lock, &at);
}

/* ---- errors ---- */

static void add_hint(struct gw_rados *rados, struct gw_error *error, int r)
{
    const char *user = rados->user ? rados->user : "admin";

    switch (-r) {
    case ETIMEDOUT:
        gw_error_hint(error, "look at `ceph -s`; if it hangs, too, the monitors cannot be reached");
        break;
    case EPERM:
    case EACCES:
        error->code = GW_E_PERMISSION;
        gw_error_hint(error,
                      "compare `ceph auth get client.%s` with the keyring; caps needed: mon "
                      "'profile rbd', osd 'profile rbd pool=POOL' (all namespaces of the pool)",
                      user);
        break;
    case ESHUTDOWN:
        error->code = GW_E_STATE;
        gw_error_hint(error, "this client was fenced: make sure that its VMs run elsewhere, then "
                             "`ceph osd blocklist rm` its address and restart godwitd");
        break;
    case ENOSPC:
    case EDQUOT: gw_error_hint(error, "add space, or raise the pool's quota"); break;
    default: break;
    }
}

int gw_rados_failed(struct gw_rados *rados, struct gw_error *error, int r, const char *format, ...)
{
    char what[480];
    va_list ap;

    va_start(ap, format);
    vsnprintf(what, sizeof what, format, ap);
    va_end(ap);
    gw_error_set_sys(error, -r, "%s", what);
    if (r == -ETIMEDOUT)
        gw_error_set(error, GW_E_TIMEOUT,
                     "%s: the Ceph cluster of %s did not answer client.%s within %u ms", what,
                     rados->conf ? rados->conf : "/etc/ceph/ceph.conf",
                     rados->user ? rados->user : "admin", rados->timeout_ms);
    if (error)
        add_hint(rados, error, r);
    return r;
}

/* ---- tickets ---- */

void gw_rados_ticket_begin(struct gw_rados *rados, struct gw_rados_ticket *ticket)
{
    ticket->rados = rados;
    ticket->settled = false;
    atomic_init(&ticket->n_refs, 2);
    pthread_mutex_lock(&rados->lock);
    ticket->deadline_ns = now_ns() + rados->timeout_ms * NS_PER_MS;
    if (TAILQ_EMPTY(&rados->pending))
        pthread_cond_signal(&rados->tick);
    TAILQ_INSERT_TAIL(&rados->pending, ticket, link);
    rados->n_tickets++;
    pthread_mutex_unlock(&rados->lock);
}

void gw_rados_ticket_unref(struct gw_rados_ticket *ticket)
{
    struct gw_rados *rados = ticket->rados;

    if (atomic_fetch_sub(&ticket->n_refs, 1) != 1)
        return;
    ticket->release(ticket);
    pthread_mutex_lock(&rados->lock);
    if (--rados->n_tickets == 0)
        pthread_cond_broadcast(&rados->idle);
    pthread_mutex_unlock(&rados->lock);
}

bool gw_rados_ticket_settle(struct gw_rados_ticket *ticket)
{
    struct gw_rados *rados = ticket->rados;
    bool ours;

    pthread_mutex_lock(&rados->lock);
    ours = !ticket->settled;
    ticket->settled = true;
    if (ours)
        TAILQ_REMOVE(&rados->pending, ticket, link);
    pthread_mutex_unlock(&rados->lock);
    if (ours)
        gw_rados_ticket_unref(ticket);
    return ours;
}

bool gw_rados_ticket_settled(struct gw_rados_ticket *ticket)
{
    bool settled;

    pthread_mutex_lock(&ticket->rados->lock);
    settled = ticket->settled;
    pthread_mutex_unlock(&ticket->rados->lock);
    return settled;
}

static void *run_clock(void *arg)
{
    struct gw_rados *rados = arg;
    struct gw_rados_ticket *first;

    pthread_mutex_lock(&rados->lock);
    while (!rados->closing) {
        first = TAILQ_FIRST(&rados->pending);
        if (!first) {
            pthread_cond_wait(&rados->tick, &rados->lock);
        } else if (now_ns() < first->deadline_ns) {
            /* An entry that comes or goes meanwhile has no earlier deadline. */
            wait_until(&rados->tick, &rados->lock, first->deadline_ns);
        } else {
            TAILQ_REMOVE(&rados->pending, first, link);
            first->settled = true;
            pthread_mutex_unlock(&rados->lock);
            first->expire(first);
            gw_rados_ticket_unref(first);
            pthread_mutex_lock(&rados->lock);
        }
    }
    pthread_mutex_unlock(&rados->lock);
    return NULL;
}

/* ---- the worker ---- */

void gw_rados_post(struct gw_rados *rados, struct gw_rados_task *task)
{
    pthread_mutex_lock(&rados->lock);
    STAILQ_INSERT_TAIL(&rados->tasks, task, link);
    pthread_cond_signal(&rados->work);
    pthread_mutex_unlock(&rados->lock);
}

static void *run_worker(void *arg)
{
    struct gw_rados *rados = arg;
    struct gw_rados_task *task;

    pthread_mutex_lock(&rados->lock);
    for (;;) {
        task = STAILQ_FIRST(&rados->tasks);
        if (task) {
            STAILQ_REMOVE_HEAD(&rados->tasks, link);
            pthread_mutex_unlock(&rados->lock);
            task->run(task);
            pthread_mutex_lock(&rados->lock);
        } else if (rados->closing) {
            break;
        } else {
            pthread_cond_wait(&rados->work, &rados->lock);
        }
    }
    rados->worker_ended = true;
    pthread_cond_broadcast(&rados->idle);
    pthread_mutex_unlock(&rados->lock);
    return NULL;
}

static int set_options(struct gw_rados *rados, rados_t cluster)
{
    char seconds[16];
    int r;

    /* librados' own limits end what the clock has answered for; they know whole seconds. */
    snprintf(seconds, sizeof seconds, "%u", (rados->timeout_ms + 999) / 1000);
    r = rados_conf_set(cluster, "client_mount_timeout", seconds);
    r = r < 0 ? r : rados_conf_set(cluster, "rados_mon_op_timeout", seconds);
    r = r < 0 ? r : rados_conf_set(cluster, "rados_osd_op_timeout", seconds);
    /* A submission must not wait for others to be answered. */
    r = r < 0 ? r : rados_conf_set(cluster, "objecter_inflight_ops", "65536");
    r = r < 0 ? r : rados_conf_set(cluster, "log_to_stderr", "false");
    r = r < 0 ? r : rados_conf_set(cluster, "err_to_stderr", "false");
    if (r == 0 && rados->keyring)
        r = rados_conf_set(cluster, "keyring", rados->keyring);
    return r;
}

static int configure(struct gw_rados *rados, rados_t cluster, struct gw_error *error)
{
    int r = rados_conf_read_file(cluster, rados->conf);

    if (r < 0) {
        gw_rados_failed(rados, error, r, "read the configuration of Ceph, %s",
                        rados->conf ? rados->conf : "$CEPH_CONF or /etc/ceph/ceph.conf");
        gw_error_hint(error, "copy ceph.conf of the cluster to this node, or name its place");
        return r;
    }
    r = set_options(rados, cluster);
    return r < 0 ? gw_rados_failed(rados, error, r, "configure librados") : 0;
}

int gw_rados_connect(struct gw_rados *rados, struct gw_error *error)
{
    const char *user = rados->user ? rados->user : "admin";
    char name[128];
    rados_t cluster;
    int r;

    if (rados->connected)
        return 0;
    snprintf(name, sizeof name, "client.%s", user);
    r = rados_create2(&cluster, "ceph", name, 0);
    if (r < 0)
        return gw_rados_failed(rados, error, r, "start librados as %s", name);
    r = configure(rados, cluster, error);
    if (r == 0) {
        r = rados_connect(cluster);
        if (r < 0)
            gw_rados_failed(rados, error, r, "connect to the Ceph cluster as %s", name);
        if (r == -ENOENT)
            gw_error_hint(error,
                          "%s has no keyring here: `ceph auth get-or-create %s` on a node "
                          "that has, and put it where ceph.conf says",
                          name, name);
    }
    if (r < 0) {
        rados_shutdown(cluster);
        return r;
    }
    rados->cluster = cluster;
    rados->connected = true;
    return 0;
}

int gw_rados_pool(struct gw_rados *rados, const char *pool, const char *ns, rados_ioctx_t *iop,
                  struct gw_error *error)
{
    int r = gw_rados_connect(rados, error);

    if (r < 0)
        return r;
    r = rados_ioctx_create(rados->cluster, pool, iop);
    if (r < 0) {
        gw_rados_failed(rados, error, r, "open pool %s of the Ceph cluster", pool);
        if (r == -ENOENT)
            gw_error_hint(error, "pools that there are: `ceph osd pool ls`");
        return r;
    }
    rados_ioctx_set_namespace(*iop, ns);
    return 0;
}

/* ---- jobs ---- */

static struct gw_rados_job *job_of(struct gw_rados_ticket *ticket)
{
    return gw_container_of(ticket, struct gw_rados_job, ticket);
}

static void answer_job(struct gw_rados_job *job, int r)
{
    struct gw_rados_call *call = job->call;

    call->error = job->error;
    call->facts = gw_steal_ptr(&job->facts);
    call->done(call, r);
}

static void expire_job(struct gw_rados_ticket *ticket)
{
    struct gw_rados_job *job = job_of(ticket);
    struct gw_rados_call *call = job->call;

    /* The worker may be writing to the job's own error and facts. */
    call->facts = NULL;
    gw_rados_failed(ticket->rados, &call->error, -ETIMEDOUT, "%s", job->what);
    call->done(call, -ETIMEDOUT);
}

static void release_job(struct gw_rados_ticket *ticket)
{
    struct gw_rados_job *job = job_of(ticket);

    json_decref(job->facts);
    free(job->locks);
    free(job);
}

static void run_job(struct gw_rados_task *task)
{
    struct gw_rados_job *job = gw_container_of(task, struct gw_rados_job, task);
    int r = 0;

    /* Nobody waits any more: do not begin with what a hung cluster kept back. */
    if (!gw_rados_ticket_settled(&job->ticket)) {
        r = gw_rados_connect(job->ticket.rados, &job->error);
        if (r == 0 && !gw_rados_ticket_settled(&job->ticket))
            r = job->work(job);
        if (gw_rados_ticket_settle(&job->ticket))
            answer_job(job, r);
    }
    gw_rados_ticket_unref(&job->ticket);
}

struct gw_rados_job *gw_rados_job_new(struct gw_rados *rados, struct gw_rados_call *call,
                                      int (*work)(struct gw_rados_job *job))
{
    struct gw_rados_job *job = calloc(1, sizeof *job);

    if (!job)
        return NULL;
    job->ticket.rados = rados;
    job->ticket.expire = expire_job;
    job->ticket.release = release_job;
    job->task.run = run_job;
    job->call = call;
    job->work = work;
    return job;
}

void gw_rados_job_start(struct gw_rados_job *job)
{
    gw_rados_ticket_begin(job->ticket.rados, &job->ticket);
    gw_rados_post(job->ticket.rados, &job->task);
}

static int work_fence(struct gw_rados_job *job)
{
    struct gw_rados *rados = job->ticket.rados;
    int r = rados_blocklist_add(rados->cluster, job->address, job->seconds);

    /* Whatever we do next carries this map, and each OSD learns of the fence from it. */
    if (r == 0)
        r = rados_wait_for_latest_osdmap(rados->cluster);
    return r < 0 ? gw_rados_failed(rados, &job->error, r, "%s", job->what) : 0;
}

static int fence(struct gw_rados *rados, struct gw_rados_call *call, const char *address,
                 unsigned seconds)
{
    struct gw_rados_job *job;

    if (strlen(address) >= sizeof job->address)
        return -EINVAL;
    job = gw_rados_job_new(rados, call, work_fence);
    if (!job)
        return -ENOMEM;
    memcpy(job->address, address, strlen(address) + 1);
    snprintf(job->what, sizeof job->what, "fence the Ceph client %s", address);
    job->seconds = seconds;
    gw_rados_job_start(job);
    return 0;
}

/* ---- life ---- */

static void free_rados(struct gw_rados *rados)
{
    pthread_cond_destroy(&rados->idle);
    pthread_cond_destroy(&rados->tick);
    pthread_cond_destroy(&rados->work);
    pthread_mutex_destroy(&rados->lock);
    free(rados->conf);
    free(rados->user);
    free(rados->keyring);
    free(rados);
}

static void init_sync(struct gw_rados *rados)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&rados->lock, NULL);
    pthread_cond_init(&rados->work, NULL);
    pthread_cond_init(&rados->tick, &monotonic);
    pthread_cond_init(&rados->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    STAILQ_INIT(&rados->tasks);
    TAILQ_INIT(&rados->pending);
}

static int copy(char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return from && !*to ? -1 : 0;
}

static void end_thread(struct gw_rados *rados, pthread_cond_t *cond, pthread_t thread)
{
    pthread_mutex_lock(&rados->lock);
    rados->closing = true;
    pthread_cond_broadcast(cond);
    pthread_mutex_unlock(&rados->lock);
    pthread_join(thread, NULL);
}

/* Signals are for the program's own threads; librados' inherit the mask of the worker. */
static int start_threads(struct gw_rados *rados)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&rados->clock, NULL, run_clock, rados);
    if (r == 0) {
        r = pthread_create(&rados->worker, NULL, run_worker, rados);
        if (r != 0)
            end_thread(rados, &rados->tick, rados->clock);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

static int module_open(const struct gw_rados_options *options, struct gw_rados **radosp,
                       struct gw_error *error)
{
    struct gw_rados *rados = calloc(1, sizeof *rados);
    int r = -ENOMEM;

    if (!rados)
        return gw_error_set_sys(error, ENOMEM, "open a connection to Ceph");
    init_sync(rados);
    rados->timeout_ms = options->timeout_ms ? options->timeout_ms : GW_RADOS_TIMEOUT_MS;
    if (copy(&rados->conf, options->conf) == 0 && copy(&rados->user, options->user) == 0 &&
        copy(&rados->keyring, options->keyring) == 0)
        r = start_threads(rados);
    if (r < 0) {
        free_rados(rados);
        return gw_error_set_sys(error, -r, "open a connection to Ceph");
    }
    *radosp = rados;
    return 0;
}

/* Until nobody needs the connection and the worker is through; false if that takes too long. */
static bool drain(struct gw_rados *rados)
{
    uint64_t limit = now_ns() + 2 * (rados->timeout_ms + 1000) * NS_PER_MS;
    bool drained;

    pthread_mutex_lock(&rados->lock);
    while (rados->n_tickets > 0 && now_ns() < limit)
        wait_until(&rados->idle, &rados->lock, limit);
    rados->closing = true;
    pthread_cond_broadcast(&rados->work);
    pthread_cond_broadcast(&rados->tick);
    while (!rados->worker_ended && now_ns() < limit)
        wait_until(&rados->idle, &rados->lock, limit);
    drained = rados->n_tickets == 0 && rados->worker_ended;
    pthread_mutex_unlock(&rados->lock);
    return drained;
}

static void module_close(struct gw_rados *rados)
{
    bool drained = drain(rados);

    pthread_join(rados->clock, NULL);
    if (!drained)
        return; /* a thread still has it */
    pthread_join(rados->worker, NULL);
    if (rados->connected)
        rados_shutdown(rados->cluster);
    free_rados(rados);
}

__attribute__((visibility("default"))) const struct gw_rados_module gw_rados_module = {
    .version = GW_VERSION,
    .open = module_open,
    .close = module_close,
    .store_open = gw_rados_store_open,
    .fence = fence,
    .facts = gw_rados_image_facts,
    .await_locks = gw_rados_await_locks,
};
