/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the module: a connection, its two threads, and the time limit that every call has.
 *
 * The worker makes the connection and does what librados and librbd only have as blocking calls,
 * one task after the other. It may hang as long as the cluster does. The clock never blocks: it
 * answers calls whose time is up. A ticket decides which of the two answers, so that each call is
 * answered once; what comes later finds its ticket settled and is thrown away.
 */
#ifndef GW_STORAGE_RADOS_IMPL_H
#define GW_STORAGE_RADOS_IMPL_H

#include <pthread.h>
#include <rados/librados.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "storage/rados.h"
#include "storage/rbd.h"

/* Something for the worker. */
struct gw_rados_task {
    STAILQ_ENTRY(gw_rados_task) link;
    void (*run)(struct gw_rados_task *task);
};

struct gw_rados_ticket {
    TAILQ_ENTRY(gw_rados_ticket) link;
    struct gw_rados *rados;
    uint64_t deadline_ns;
    bool settled;       /* under rados->lock */
    atomic_uint n_refs; /* one of the clock until settled, one of whoever works on it */
    void (*expire)(struct gw_rados_ticket *ticket);  /* settled by the clock: answer -ETIMEDOUT */
    void (*release)(struct gw_rados_ticket *ticket); /* nobody knows it any more */
};

TAILQ_HEAD(gw_rados_tickets, gw_rados_ticket);
STAILQ_HEAD(gw_rados_tasks, gw_rados_task);

struct gw_rados {
    char *conf, *user, *keyring; /* NULL: see struct gw_rados_options */
    unsigned timeout_ms;

    rados_t cluster; /* of the worker until connected */
    bool connected;

    pthread_mutex_t lock;
    pthread_cond_t work, tick, idle;
    pthread_t worker, clock;
    struct gw_rados_tasks tasks;
    struct gw_rados_tickets pending; /* unsettled, by deadline: all have the same limit */
    unsigned n_tickets;              /* not released yet */
    bool closing;
    bool worker_ended;
};

/* Starts the time of a call; the caller has a reference, and so has the clock. */
void gw_rados_ticket_begin(struct gw_rados *rados, struct gw_rados_ticket *ticket);

/* Whether the caller is the one who answers; true once. */
bool gw_rados_ticket_settle(struct gw_rados_ticket *ticket);

bool gw_rados_ticket_settled(struct gw_rados_ticket *ticket);
void gw_rados_ticket_unref(struct gw_rados_ticket *ticket);

void gw_rados_post(struct gw_rados *rados, struct gw_rados_task *task);

/* For tasks only: connects if need be. 0, or a negative errno with *error. */
int gw_rados_connect(struct gw_rados *rados, struct gw_error *error);

/* For tasks only: a handle on the pool, in a namespace ("" is the default one). */
int gw_rados_pool(struct gw_rados *rados, const char *pool, const char *ns, rados_ioctx_t *iop,
                  struct gw_error *error);

/* Fills *error for negative errno r of "what" and returns r. */
int gw_rados_failed(struct gw_rados *rados, struct gw_error *error, int r, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

struct gw_rados_lock; /* of rbd.c */

/* A call of struct gw_rados_call, as the worker sees it. */
struct gw_rados_job {
    struct gw_rados_ticket ticket;
    struct gw_rados_task task;
    struct gw_rados_call *call;
    int (*work)(struct gw_rados_job *job); /* on the worker, connected; fills error or facts */
    char what[480];                        /* for messages: "look at RBD image rbd/web1" */
    struct gw_error error;
    json_t *facts;
    struct gw_rbd_spec spec;
    char address[96];
    unsigned seconds;
    struct gw_rados_lock *locks; /* freed with the job */
    size_t n_locks;
    unsigned limit_ms;
};

/* Makes a job of this call; NULL without memory. */
struct gw_rados_job *gw_rados_job_new(struct gw_rados *rados, struct gw_rados_call *call,
                                      int (*work)(struct gw_rados_job *job));
void gw_rados_job_start(struct gw_rados_job *job);

/* What the module's other files have for its table. */
int gw_rados_store_open(struct gw_rados *rados, const char *pool, struct gw_store **storep,
                        struct gw_error *error);
int gw_rados_image_facts(struct gw_rados *rados, struct gw_rados_call *call,
                         const struct gw_rbd_spec *spec);
int gw_rados_await_locks(struct gw_rados *rados, struct gw_rados_call *call,
                         const struct gw_rbd_spec *specs, const struct gw_rbd_lock *locks, size_t n,
                         unsigned limit_ms);

#endif
