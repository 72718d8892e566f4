/* SPDX-License-Identifier: Apache-2.0 */
#include "ticker.h"

#include <endian.h>
#include <time.h>

#include "say.h"

#define TICK_NS     1000000u
#define MAX_LATE_NS 3000000u
#define SECOND_NS   1000000000u

static void send_packet(struct gw_ticker *ticker, uint64_t now_ns)
{
    uint64_t packet[2] = {htobe64(ticker->n_sent), htobe64(now_ns)};
    ssize_t n = sendto(ticker->fd, packet, sizeof(packet), MSG_DONTWAIT,
                       (const struct sockaddr *)&ticker->to, sizeof(ticker->to));

    __atomic_add_fetch(n < 0 ? &ticker->n_errors : &ticker->n_sent, 1, __ATOMIC_RELAXED);
}

static void note_gap(struct gw_ticker *ticker, uint64_t gap_ns)
{
    if (gap_ns > __atomic_load_n(&ticker->max_gap_ns, __ATOMIC_RELAXED))
        __atomic_store_n(&ticker->max_gap_ns, gap_ns, __ATOMIC_RELAXED);
}

void *gw_ticker_run(void *arg)
{
    struct gw_ticker *ticker = arg;
    uint64_t due_ns = gw_now_ns(), last_ns = due_ns;

    for (;;) {
        struct timespec due = {.tv_sec = (time_t)(due_ns / SECOND_NS),
                               .tv_nsec = (long)(due_ns % SECOND_NS)};

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL))
            ;
        uint64_t now_ns = gw_now_ns();

        note_gap(ticker, now_ns - last_ns);
        last_ns = now_ns;
        if (ticker->to.sin_port)
            send_packet(ticker, now_ns);
        if (now_ns - due_ns > MAX_LATE_NS) {
            __atomic_add_fetch(&ticker->n_skipped, (now_ns - due_ns) / TICK_NS, __ATOMIC_RELAXED);
            due_ns = now_ns;
        }
        due_ns += TICK_NS;
    }
    return NULL;
}
