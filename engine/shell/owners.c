/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/owners.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#include "shell/ceph.h"
#include "storage/rbd.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define JOBS_MAX \
    256 /* of one store, under way at once: more means that it does not answer at all */

enum request { READ, CREATE, SWAP, REMOVE };

static const char *const request_names[] = {
    [READ] = "read", [CREATE] = "create", [SWAP] = "swap", [REMOVE] = "remove"};

/* Outlives struct gw_owners while threads still may answer: each job holds it, too. */
struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t one_more; /* a job was answered */
    unsigned n_refs;         /* under the lock */
    bool closed;             /* under the lock: nobody reads it any more */
    int eventfd;
    STAILQ_HEAD(, gw_owners_job) answered; /* under the lock */
};

/* The store in one pool of the cluster. */
struct pool_store {
    LIST_ENTRY(pool_store) link;
    struct gw_store *store;
    char pool[GW_RBD_PART_MAX + 1];
};

struct gw_owners {
    struct event_base *base;
    struct mailbox *mailbox;
    struct event *mail;
    struct gw_ceph *ceph;            /* NULL: none */
    LIST_HEAD(, pool_store) pools;   /* those asked so far */
    struct gw_store *file;           /* NULL: none */
    LIST_HEAD(, gw_owners_job) jobs; /* not answered by their store yet */
    unsigned n_jobs;
};

struct gw_owners_job {
    struct gw_store_call base;
    LIST_ENTRY(gw_owners_job) link;
    STAILQ_ENTRY(gw_owners_job) mail;
    struct mailbox *mailbox;
    struct gw_store *store;
    struct gw_owner_call *caller; /* NULL: has been told, or does not want to be */
    struct event *limit;
    enum request request;
    struct gw_owner from, to;
    int result;
    bool answered; /* under the mailbox's lock */
};

static void mailbox_unref(struct mailbox *m)
{
    unsigned n_refs;

    pthread_mutex_lock(&m->lock);
    n_refs = --m->n_refs;
    pthread_mutex_unlock(&m->lock);
    if (n_refs)
        return;
    close(m->eventfd);
    pthread_cond_destroy(&m->one_more);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static struct mailbox *mailbox_new(void)
{
    struct mailbox *m = calloc(1, sizeof *m);

    if (!m)
        return NULL;
    m->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->eventfd < 0 || pthread_mutex_init(&m->lock, NULL) != 0 ||
        pthread_cond_init(&m->one_more, NULL) != 0) {
        gw_cleanup_close(&m->eventfd);
        free(m);
        return NULL;
    }
    m->n_refs = 1;
    STAILQ_INIT(&m->answered);
    return m;
}

/* Any thread: the store has answered. */
static void answered(struct gw_store_call *call, int result)
{
    struct gw_owners_job *job = gw_container_of(call, struct gw_owners_job, base);
    struct mailbox *m = job->mailbox;
    uint64_t one = 1;
    bool closed;

    job->result = result;
    pthread_mutex_lock(&m->lock);
    closed = m->closed;
    job->answered = true;
    pthread_cond_signal(&m->one_more);
    if (!closed) {
        STAILQ_INSERT_TAIL(&m->answered, job, mail);
        if (write(m->eventfd, &one, sizeof one) < 0) { /* it is full, hence readable */
        }
    }
    pthread_mutex_unlock(&m->lock);
    if (!closed)
        return;
    free(job);
    mailbox_unref(m);
}

static int submit(struct gw_owners_job *job)
{
    const struct gw_store_ops *ops = job->store->ops;

    switch (job->request) {
    case READ: return ops->read(job->store, &job->base, job->from.uuid);
    case CREATE: return ops->create(job->store, &job->base, &job->to);
    case SWAP: return ops->swap(job->store, &job->base, &job->from, &job->to);
    default: return ops->remove(job->store, &job->base, &job->from);
    }
}

static void *submit_on_thread(void *arg)
{
    struct gw_owners_job *job = arg;
    int r = submit(job);

    if (r < 0)
        answered(&job->base, r);
    return NULL;
}

static int start_thread(struct gw_owners_job *job)
{
    pthread_attr_t attr;
    sigset_t all, before;
    pthread_t thread;
    int r;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    r = pthread_create(&thread, &attr, submit_on_thread, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}

/* Tells the caller, once; the job itself lives until its store has answered. */
static void tell(struct gw_owners_job *job, int result)
{
    static const struct gw_owner nothing;
    struct gw_owner_call *caller = gw_steal_ptr(&job->caller);
    bool known = result == 0 ? job->request != REMOVE : result == GW_OWNER_CONFLICT;
    struct gw_error error = {.code = GW_OK};
    char text[160];

    event_del(job->limit);
    if (!caller)
        return;
    caller->job = NULL;
    if (result == GW_OWNER_CONFLICT)
        gw_error_set(&error, GW_E_STATE, "the owner record is %s",
                     gw_owner_text(&job->base.current, text));
    else if (result == GW_OWNER_ABSENT)
        gw_error_set(&error, GW_E_NOT_FOUND, "there is no owner record of VM %s in the %s store",
                     job->from.uuid, job->store->ops->name);
    else if (result == -ETIMEDOUT)
        gw_error_set(&error, GW_E_TIMEOUT,
                     "the store of owner records did not answer within %u s to a request to %s",
                     (unsigned)(GW_OWNERS_LIMIT_NS / GW_NS_PER_S), request_names[job->request]);
    else if (result != 0 && job->base.error.code != GW_OK)
        error = job->base.error;
    else if (result != 0)
        gw_error_set_sys(&error, -result, "%s the owner record of VM %s",
                         request_names[job->request], job->from.uuid);
    if (result < 0 && !error.hint[0])
        gw_error_hint(&error,
                      job->store && job->store->ops->caps & GW_STORE_BLOCKS
                          ? "see whether the storage behind owner_store is mounted and answers"
                          : "`ceph -s` tells how the cluster is");
    caller->done(caller, result, known ? &job->base.current : &nothing, result ? &error : NULL);
}

static void job_free(struct gw_owners *owners, struct gw_owners_job *job)
{
    LIST_REMOVE(job, link);
    owners->n_jobs--;
    event_free(job->limit);
    mailbox_unref(job->mailbox);
    free(job);
}

static void read_mail(evutil_socket_t fd, short what, void *arg)
{
    struct gw_owners *owners = arg;
    struct mailbox *m = owners->mailbox;
    struct gw_owners_job *job;
    uint64_t n;

    (void)what;
    if (read(fd, &n, sizeof n) < 0)
        return;
    for (;;) {
        pthread_mutex_lock(&m->lock);
        job = STAILQ_FIRST(&m->answered);
        if (job)
            STAILQ_REMOVE_HEAD(&m->answered, mail);
        pthread_mutex_unlock(&m->lock);
        if (!job)
            return;
        tell(job, job->result);
        job_free(owners, job);
    }
}

static void took_too_long(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    tell(arg, -ETIMEDOUT);
}

static const char *first_image(const struct gw_vm_spec *spec)
{
    for (size_t i = 0; i < spec->n_disks; i++)
        if (spec->disks[i].rbd)
            return spec->disks[i].rbd;
    return NULL;
}

static struct gw_store *pool_store(struct gw_owners *owners, const char *image,
                                   struct gw_error *error)
{
    struct gw_rbd_spec parts;
    struct gw_rados *rados;
    struct pool_store *p;

    if (gw_rbd_spec_parse(image, &parts, error) < 0)
        return NULL;
    LIST_FOREACH (p, &owners->pools, link)
        if (strcmp(p->pool, parts.pool) == 0)
            return p->store;
    rados = gw_ceph_rados(owners->ceph, error);
    if (!rados)
        return NULL;
    p = calloc(1, sizeof *p);
    if (!p)
        abort();
    memcpy(p->pool, parts.pool, sizeof p->pool);
    if (gw_store_rados_open(rados, p->pool, &p->store, error) < 0) {
        free(p);
        return NULL;
    }
    LIST_INSERT_HEAD(&owners->pools, p, link);
    return p->store;
}

static struct gw_store *store_of(struct gw_owners *owners, const struct gw_vm_spec *spec,
                                 struct gw_error *error)
{
    const char *image = first_image(spec);

    return image ? pool_store(owners, image, error) : owners->file;
}

/* One store that hangs must not use up what the others need. */
static unsigned n_jobs_of(const struct gw_owners *owners, const struct gw_store *store)
{
    const struct gw_owners_job *job;
    unsigned n = 0;

    LIST_FOREACH (job, &owners->jobs, link)
        n += job->store == store;
    return n;
}

static void begin(struct gw_owners *owners, const struct gw_vm_spec *spec,
                  struct gw_owner_call *call, enum request request, const struct gw_owner *from,
                  const struct gw_owner *to)
{
    static const struct timeval limit = {.tv_sec = GW_OWNERS_LIMIT_NS / GW_NS_PER_S};
    struct gw_owners_job *job = calloc(1, sizeof *job);
    int r;

    if (!job)
        abort();
    job->base.done = answered;
    job->store = store_of(owners, spec, &job->base.error);
    job->request = request;
    job->from = *from;
    if (to)
        job->to = *to;
    snprintf(job->from.uuid, sizeof job->from.uuid, "%s", spec->uuid);
    snprintf(job->to.uuid, sizeof job->to.uuid, "%s", spec->uuid);
    job->mailbox = owners->mailbox;
    pthread_mutex_lock(&job->mailbox->lock);
    job->mailbox->n_refs++;
    pthread_mutex_unlock(&job->mailbox->lock);
    job->limit = evtimer_new(owners->base, took_too_long, job);
    if (!job->limit)
        abort();
    event_add(job->limit, &limit);
    LIST_INSERT_HEAD(&owners->jobs, job, link);
    job->caller = call;
    if (call)
        call->job = job;
    owners->n_jobs++;
    if (!job->store)
        r = -EIO; /* base.error says why */
    else if (n_jobs_of(owners, job->store) > JOBS_MAX)
        r = -EBUSY;
    else
        r = job->store->ops->caps & GW_STORE_BLOCKS ? start_thread(job) : submit(job);
    if (r < 0)
        answered(&job->base, r);
}

void gw_owners_read(struct gw_owners *owners, const struct gw_vm_spec *spec,
                    struct gw_owner_call *call)
{
    begin(owners, spec, call, READ, &(struct gw_owner){.epoch = 1}, NULL);
}

void gw_owners_create(struct gw_owners *owners, const struct gw_vm_spec *spec,
                      struct gw_owner_call *call, const struct gw_owner *owner)
{
    begin(owners, spec, call, CREATE, owner, owner);
}

void gw_owners_swap(struct gw_owners *owners, const struct gw_vm_spec *spec,
                    struct gw_owner_call *call, const struct gw_owner *from,
                    const struct gw_owner *to)
{
    begin(owners, spec, call, SWAP, from, to);
}

void gw_owners_remove(struct gw_owners *owners, const struct gw_vm_spec *spec,
                      struct gw_owner_call *call, const struct gw_owner *owner)
{
    begin(owners, spec, call, REMOVE, owner, NULL);
}

void gw_owner_call_cancel(struct gw_owner_call *call)
{
    if (call->job)
        call->job->caller = NULL;
    call->job = NULL;
}

bool gw_owners_has_store(const struct gw_owners *owners, const struct gw_vm_spec *spec)
{
    return first_image(spec) ? owners->ceph != NULL : owners->file != NULL;
}

const char *gw_owner_text(const struct gw_owner *owner, char text[160])
{
    snprintf(text, 160, "%s's, epoch %" PRIu64 "%s", owner->node, owner->epoch,
             owner->may_have_run ? "" : ", which has not been allowed to run yet");
    return text;
}

int gw_owners_new(struct event_base *base, struct gw_store *file, struct gw_ceph *ceph,
                  struct gw_owners **ownersp, struct gw_error *error)
{
    struct gw_owners *owners = calloc(1, sizeof *owners);

    if (!owners)
        return gw_error_set_sys(error, ENOMEM, "open the store of owner records");
    owners->base = base;
    owners->ceph = ceph;
    LIST_INIT(&owners->jobs);
    LIST_INIT(&owners->pools);
    owners->mailbox = mailbox_new();
    if (owners->mailbox)
        owners->mail =
            event_new(base, owners->mailbox->eventfd, EV_READ | EV_PERSIST, read_mail, owners);
    if (!owners->mail || event_add(owners->mail, NULL) < 0) {
        gw_error_set_sys(error, errno ? errno : ENOMEM, "open the store of owner records");
        gw_owners_free(owners);
        return -1;
    }
    owners->file = file;
    *ownersp = owners;
    return 0;
}

/* A store that never blocks answers within a time of its own, and must not be closed before. */
static void wait_for_prompt_stores(struct gw_owners *owners)
{
    struct mailbox *m = owners->mailbox;
    struct gw_owners_job *job;

    pthread_mutex_lock(&m->lock);
    LIST_FOREACH (job, &owners->jobs, link)
        while (!job->answered && !(job->store->ops->caps & GW_STORE_BLOCKS))
            pthread_cond_wait(&m->one_more, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

/* What the store has not answered yet belongs to the thread that will. */
static void abandon_jobs(struct gw_owners *owners)
{
    struct gw_owners_job *job, *next;
    struct mailbox *m = owners->mailbox;
    unsigned n_answered = 0;

    pthread_mutex_lock(&m->lock); /* from here on a thread that answers frees its job */
    m->closed = true;
    for (job = LIST_FIRST(&owners->jobs); job; job = next) {
        next = LIST_NEXT(job, link);
        if (job->caller)
            job->caller->job = NULL;
        event_free(job->limit);
        if (!job->answered)
            continue;
        n_answered++;
        free(job);
    }
    pthread_mutex_unlock(&m->lock);
    owners->n_jobs -= n_answered;
    while (n_answered--)
        mailbox_unref(m);
}

static void close_stores(struct gw_owners *owners)
{
    struct pool_store *p;

    while ((p = LIST_FIRST(&owners->pools))) {
        LIST_REMOVE(p, link);
        p->store->ops->close(p->store);
        free(p);
    }
    if (owners->file && owners->n_jobs == 0) /* otherwise a thread is still in it */
        owners->file->ops->close(owners->file);
}

void gw_owners_free(struct gw_owners *owners)
{
    if (!owners)
        return;
    if (owners->mailbox) {
        wait_for_prompt_stores(owners);
        abandon_jobs(owners);
    }
    close_stores(owners);
    if (owners->mail)
        event_free(owners->mail);
    if (owners->mailbox)
        mailbox_unref(owners->mailbox);
    free(owners);
}
