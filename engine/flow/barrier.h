/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When pages may be applied, where several lanes carry them beside QEMU.
 *
 * QEMU's source sends each page at most once between two SYNCs, and a SYNC on every channel between
 * two versions of one page; which channel a page takes changes from round to round. So there are
 * two rules for whoever applies pages itself:
 *
 * 1. All pages before the SYNC, of every lane, are applied before a lane passes its SYNC on or
 *    applies a page that came after it. A lane that has seen its SYNC arrives here and goes on when
 *    all have (gw_barrier_arrive()).
 * 2. What QEMU's destination does itself for this round (zero pages of `zero-page-detection=legacy`
 *    and of QEMU before 9.0, on the main channel) is done before a page of the next round is
 *    applied. QEMU takes nothing more from a channel after its SYNC until its main thread has come
 *    to that point (multifd_recv_thread() waits on sem_sync). So the first packet after a SYNC is
 *    passed on, stripped, *before* its pages are applied, and they wait until QEMU has taken it
 * from the socket: gw_drain_prepare(), gw_drain_is_done().
 *
 * The second rule holds with one lane, too. Where all payload goes through QEMU neither is needed:
 * QEMU has its own.
 *
 * gw_barrier_arrive() blocks the thread of its lane; that is the only blocking call of this layer.
 * gw_barrier_abort() wakes all of them for good, so a lane that dies must call it.
 */
#ifndef GW_FLOW_BARRIER_H
#define GW_FLOW_BARRIER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* All members are private to barrier.c. */
struct gw_barrier {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned n_lanes;
    unsigned n_arrived; /* at this round's SYNC; below n_lanes */
    uint64_t round;
    bool aborted;
};

/* For n_lanes lanes, at least one. 0; -errno. */
int gw_barrier_init(struct gw_barrier *barrier, unsigned n_lanes);

/* No thread may be in it any more. */
void gw_barrier_fini(struct gw_barrier *barrier);

/*
 * A lane, whose pages before its SYNC are all applied, has come to it. Blocks until every lane has.
 * 0: go on; what any lane applied before, this one sees. 1: aborted before all had come: apply
 * nothing more. Each lane calls it once a SYNC, from one thread at a time.
 */
int gw_barrier_arrive(struct gw_barrier *barrier);

/* Ends the barrier for good. Any thread, as often as one likes; never blocks for long. */
void gw_barrier_abort(struct gw_barrier *barrier);

/* SYNCs that all lanes have passed. */
uint64_t gw_barrier_round(struct gw_barrier *barrier);

/*
 * Prepares a connected unix stream socket, on which stripped packets go to QEMU: from now on poll()
 * says POLLOUT when QEMU has taken all that was sent, and not before. (Linux calls a unix socket
 * writable when at most a quarter of its send buffer is unread; the smallest buffer is less than
 * four times a packet's header. See unix_writable() in net/unix/af_unix.c.) 0; -errno.
 */
int gw_drain_prepare(int fd);

/* Whether QEMU has taken all that was sent to that socket: 1 yes, 0 no, -errno. Wait with poll()
 * for POLLOUT, and look again. */
int gw_drain_is_done(int fd);

#endif
