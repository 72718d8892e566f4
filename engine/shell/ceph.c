/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/ceph.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#include "host/facts.h"
#include "storage/rbd.h"
#include "util/cleanup.h"

enum { LOCKS_LIMIT_MS = 500 };

struct question {
    struct gw_rados_call call;
    STAILQ_ENTRY(question) link;
    struct gw_ceph *ceph;
    struct gw_ceph_round *round;
    enum { DISK, LOCKS, FENCE } about;
    json_t *disk; /* NULL: it is about something else */
    int result;
};

STAILQ_HEAD(questions, question);

struct gw_ceph {
    char *conf, *user; /* NULL: librados' default */
    struct gw_rados *rados;
    struct event *mail;
    int eventfd;
    pthread_mutex_t lock;      /* of the following */
    pthread_cond_t all;        /* n_asked has become 0 */
    struct questions answered; /* for the loop */
    unsigned n_asked;          /* not answered yet */
};

/* The questions of one ask. */
struct gw_ceph_round {
    struct gw_ceph_ask *ask; /* NULL: cancelled */
    unsigned n_open;
};

/* Any thread. */
static void post(struct question *question, int result)
{
    struct gw_ceph *ceph = question->ceph;
    uint64_t one = 1;

    question->result = result;
    pthread_mutex_lock(&ceph->lock);
    STAILQ_INSERT_TAIL(&ceph->answered, question, link);
    if (write(ceph->eventfd, &one, sizeof one) < 0) { /* it is full, hence readable */
    }
    if (--ceph->n_asked == 0)
        pthread_cond_signal(&ceph->all);
    pthread_mutex_unlock(&ceph->lock);
}

static void on_done(struct gw_rados_call *call, int result)
{
    post(gw_container_of(call, struct question, call), result);
}

/* When all were held; 0: one was not. */
static uint64_t last_moment(const json_t *moments)
{
    json_int_t last = 0;

    for (size_t i = 0; i < json_array_size(moments); i++) {
        json_int_t at = json_integer_value(json_array_get(moments, i));

        if (at <= 0)
            return 0;
        last = at > last ? at : last;
    }
    return (uint64_t)last;
}

/* Gives the round back if that was its last question. */
static struct gw_ceph_round *take_answer(struct question *question)
{
    struct gw_ceph_round *round = question->round;
    bool last = --round->n_open == 0;

    if (question->about == LOCKS && round->ask)
        round->ask->held_ns = question->result == 0 ? last_moment(question->call.facts) : 0;
    else if (question->about == FENCE && round->ask && question->result < 0)
        round->ask->error = question->call.error;
    else if (question->about == DISK)
        gw_facts_rbd_answer(question->disk, question->result == 0 ? question->call.facts : NULL,
                            &question->call.error);
    if (question->result == 0)
        json_decref(question->call.facts);
    json_decref(question->disk);
    free(question);
    return last ? round : NULL;
}

static void finish(struct gw_ceph_round *round)
{
    struct gw_ceph_ask *ask = round->ask;

    free(round);
    if (!ask)
        return;
    ask->round = NULL;
    ask->done(ask);
}

static struct question *next_answer(struct gw_ceph *ceph)
{
    struct question *question;

    pthread_mutex_lock(&ceph->lock);
    question = STAILQ_FIRST(&ceph->answered);
    if (question)
        STAILQ_REMOVE_HEAD(&ceph->answered, link);
    pthread_mutex_unlock(&ceph->lock);
    return question;
}

static void on_mail(evutil_socket_t fd, short what, void *arg)
{
    struct gw_ceph_round *round;
    struct question *question;
    uint64_t count;

    (void)what;
    if (read(fd, &count, sizeof count) < 0)
        return;
    while ((question = next_answer(arg)))
        if ((round = take_answer(question)))
            finish(round);
}

struct gw_rados *gw_ceph_rados(struct gw_ceph *ceph, struct gw_error *error)
{
    struct gw_rados_options options = {.conf = ceph->conf, .user = ceph->user};

    if (!ceph->rados && gw_rados_open(&options, &ceph->rados, error) < 0)
        return NULL;
    return ceph->rados;
}

static struct question *question_new(struct gw_ceph *ceph, struct gw_ceph_round *round, int about)
{
    struct question *question = calloc(1, sizeof *question);

    if (!question)
        abort(); /* as for every other small allocation of the loop's */
    question->ceph = ceph;
    question->round = round;
    question->call.done = on_done;
    question->about = about;
    round->n_open++;
    pthread_mutex_lock(&ceph->lock);
    ceph->n_asked++;
    pthread_mutex_unlock(&ceph->lock);
    return question;
}

static void put_question(struct gw_ceph *ceph, struct gw_ceph_round *round, json_t *disk)
{
    struct question *question = question_new(ceph, round, DISK);
    const char *path = json_string_value(json_object_get(disk, "path"));
    struct gw_rados *rados;
    int r = -EIO;

    question->disk = json_incref(disk);
    rados = gw_ceph_rados(ceph, &question->call.error);
    if (rados) {
        r = gw_rbd_facts(rados, &question->call, path ? path : "");
        if (r == -ENOMEM)
            gw_error_set_sys(&question->call.error, ENOMEM, "ask about %s", path);
    }
    if (r < 0)
        post(question, r);
}

bool gw_ceph_has(const json_t *disk)
{
    const char *kind = json_string_value(json_object_get(disk, "kind"));

    return kind && strcmp(kind, "rbd") == 0;
}

bool gw_ceph_ask(struct gw_ceph *ceph, struct gw_ceph_ask *ask, json_t *disks,
                 void (*done)(struct gw_ceph_ask *ask))
{
    struct gw_ceph_round *round = NULL;
    json_t *disk;
    size_t i;

    json_array_foreach (disks, i, disk) {
        if (!gw_ceph_has(disk))
            continue;
        if (!round && !(round = calloc(1, sizeof *round)))
            return false;
        put_question(ceph, round, disk);
    }
    if (!round)
        return false;
    round->ask = ask;
    ask->round = round;
    ask->done = done;
    return true;
}

bool gw_ceph_await_locks(struct gw_ceph *ceph, struct gw_ceph_ask *ask, const json_t *disks,
                         void (*done)(struct gw_ceph_ask *ask))
{
    struct gw_rbd_lock locks[GW_RBD_LOCKS_MAX];
    struct gw_ceph_round *round;
    struct question *question;
    struct gw_rados *rados;
    size_t n = 0;
    int r = -EIO;

    for (size_t i = 0; i < json_array_size(disks) && n < GW_RBD_LOCKS_MAX; i++) {
        const json_t *disk = json_array_get(disks, i);

        locks[n].spec = json_string_value(json_object_get(disk, "path"));
        locks[n].image_id = json_string_value(json_object_get(disk, "image_id"));
        n += gw_ceph_has(disk) && !json_is_true(json_object_get(disk, "read_only")) &&
             locks[n].spec && locks[n].image_id;
    }
    round = n > 0 ? calloc(1, sizeof *round) : NULL;
    if (!round)
        return false;
    round->ask = ask;
    ask->round = round;
    ask->done = done;
    question = question_new(ceph, round, LOCKS);
    rados = gw_ceph_rados(ceph, &question->call.error);
    if (rados)
        r = gw_rbd_await_locks(rados, &question->call, locks, n, LOCKS_LIMIT_MS);
    if (r < 0)
        post(question, r);
    return true;
}

bool gw_ceph_fence(struct gw_ceph *ceph, struct gw_ceph_ask *ask, const json_t *addresses,
                   unsigned seconds, void (*done)(struct gw_ceph_ask *ask))
{
    struct gw_ceph_round *round = json_array_size(addresses) ? calloc(1, sizeof *round) : NULL;

    if (!round)
        return false;
    round->ask = ask;
    ask->round = round;
    ask->done = done;
    ask->error.code = GW_OK;
    for (size_t i = 0; i < json_array_size(addresses); i++) {
        struct question *question = question_new(ceph, round, FENCE);
        const char *address = json_string_value(json_array_get(addresses, i));
        struct gw_rados *rados = gw_ceph_rados(ceph, &question->call.error);
        int r = rados ? gw_rados_fence(rados, &question->call, address, seconds) : -EIO;

        if (r == -EINVAL)
            gw_error_set(&question->call.error, GW_E_STATE,
                         "'%s' is not the address of one client of Ceph", address);
        if (r < 0)
            post(question, r);
    }
    return true;
}

void gw_ceph_ask_cancel(struct gw_ceph_ask *ask)
{
    if (ask->round)
        ask->round->ask = NULL;
    ask->round = NULL;
}

int gw_ceph_new(struct event_base *base, const char *conf, const char *user, struct gw_ceph **cephp,
                struct gw_error *error)
{
    struct gw_ceph *ceph = calloc(1, sizeof *ceph);

    if (!ceph)
        return gw_error_set_sys(error, ENOMEM, "prepare for Ceph");
    pthread_mutex_init(&ceph->lock, NULL);
    pthread_cond_init(&ceph->all, NULL);
    STAILQ_INIT(&ceph->answered);
    ceph->conf = conf ? strdup(conf) : NULL;
    ceph->user = user ? strdup(user) : NULL;
    ceph->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ceph->mail = event_new(base, ceph->eventfd, EV_READ | EV_PERSIST, on_mail, ceph);
    if (ceph->eventfd < 0 || !ceph->mail || event_add(ceph->mail, NULL) < 0 ||
        !ceph->conf != !conf || !ceph->user != !user) {
        gw_ceph_free(ceph);
        return gw_error_set_sys(error, ENOMEM, "prepare for Ceph");
    }
    *cephp = ceph;
    return 0;
}

void gw_ceph_free(struct gw_ceph *ceph)
{
    struct gw_ceph_round *round;
    struct question *question;

    if (!ceph)
        return;
    pthread_mutex_lock(&ceph->lock);
    while (ceph->n_asked > 0)
        pthread_cond_wait(&ceph->all, &ceph->lock);
    pthread_mutex_unlock(&ceph->lock);
    while ((question = next_answer(ceph)))
        if ((round = take_answer(question))) {
            if (round->ask)
                gw_ceph_ask_cancel(round->ask);
            free(round);
        }
    gw_rados_close(ceph->rados);
    if (ceph->mail)
        event_free(ceph->mail);
    gw_cleanup_close(&ceph->eventfd);
    pthread_cond_destroy(&ceph->all);
    pthread_mutex_destroy(&ceph->lock);
    free(ceph->conf);
    free(ceph->user);
    free(ceph);
}
