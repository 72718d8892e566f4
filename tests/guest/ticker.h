/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The millisecond: a numbered UDP packet, and the largest gap between two of them.
 *
 * Packet: be64 number from 0, be64 CLOCK_MONOTONIC in ns. Ticks stand on an absolute grid of
 * 1 ms. A tick that is late sends at once; one that is more than 3 ms late starts
 * a new grid, so that after a pause at most 3 packets follow one another without a
 * pause, and the ticks in between are counted as skipped. Numbers count packets handed to the
 * kernel: a number missing at the receiver was lost under way, never skipped here.
 */
#ifndef GW_GUEST_TICKER_H
#define GW_GUEST_TICKER_H

#include <netinet/in.h>
#include <stdint.h>

struct gw_ticker {
    struct sockaddr_in to; /* port 0: ticks without packets */
    int fd;                /* a UDP socket, non-blocking */
    uint64_t n_sent;       /* atomic, like all below */
    uint64_t n_errors;     /* packets that the kernel did not take */
    uint64_t n_skipped;    /* ticks */
    uint64_t max_gap_ns;   /* between two ticks; whoever stores 0 starts anew */
};

/* The thread's body; never returns. Wants a real-time priority. */
void *gw_ticker_run(void *ticker);

#endif
