/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/barrier.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int gw_barrier_init(struct gw_barrier *barrier, unsigned n_lanes)
{
    int r = pthread_mutex_init(&barrier->lock, NULL);

    if (r != 0)
        return -r;
    r = pthread_cond_init(&barrier->changed, NULL);
    if (r != 0) {
        pthread_mutex_destroy(&barrier->lock);
        return -r;
    }
    barrier->n_lanes = n_lanes;
    barrier->n_arrived = 0;
    barrier->round = 0;
    barrier->aborted = false;
    return 0;
}

void gw_barrier_fini(struct gw_barrier *barrier)
{
    pthread_cond_destroy(&barrier->changed);
    pthread_mutex_destroy(&barrier->lock);
}

int gw_barrier_arrive(struct gw_barrier *barrier)
{
    uint64_t round;
    bool passed;

    pthread_mutex_lock(&barrier->lock);
    round = barrier->round;
    if (!barrier->aborted && ++barrier->n_arrived == barrier->n_lanes) {
        barrier->n_arrived = 0;
        barrier->round++;
        pthread_cond_broadcast(&barrier->changed);
    }
    while (!barrier->aborted && barrier->round == round)
        pthread_cond_wait(&barrier->changed, &barrier->lock);
    /* A lane that was first through may have ended, and aborted, before this one woke up. */
    passed = barrier->round != round;
    pthread_mutex_unlock(&barrier->lock);
    return passed ? 0 : 1;
}

void gw_barrier_abort(struct gw_barrier *barrier)
{
    pthread_mutex_lock(&barrier->lock);
    barrier->aborted = true;
    pthread_cond_broadcast(&barrier->changed);
    pthread_mutex_unlock(&barrier->lock);
}

uint64_t gw_barrier_round(struct gw_barrier *barrier)
{
    uint64_t round;

    pthread_mutex_lock(&barrier->lock);
    round = barrier->round;
    pthread_mutex_unlock(&barrier->lock);
    return round;
}

int gw_drain_prepare(int fd)
{
    int least = 1; /* the kernel makes its own minimum of it */

    return setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof least) < 0 ? -errno : 0;
}

int gw_drain_is_done(int fd)
{
    int n_unread;

    if (ioctl(fd, SIOCOUTQ, &n_unread) < 0)
        return -errno;
    return n_unread == 0;
}
