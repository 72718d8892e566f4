/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the lanes of a migration take, all together: the link as flow/pace.h wants to know it.
 *
 * What was sent in an interval is the link's rate only if the link was what held up the workers.
 * So it counts what they waited for. Where they often waited for their lanes, the rate is what was
 * sent. Where they hardly did, the link has room, nobody knows how much: a fifth more than was sent
 * is assumed, the pace tries for that, and in the end either the workers are what is slow, or they
 * wait for their lanes and it is known. Where there were no pages to send nothing is learnt.
 *
 * TCP's own figure (tcpi_busy_time) does not tell these apart: data that waits for the
 * acknowledgement of a busy receiver counts as busy there.
 *
 * Arithmetic: no clock, no I/O. One thread at a time.
 */
#ifndef GW_FLOW_RATE_H
#define GW_FLOW_RATE_H

#include <stdint.h>

/* Sums since the migration began; they never fall. */
struct gw_rate_counts {
    uint64_t sent_bytes; /* that the lanes have taken */
    uint64_t blocked_ns; /* of all workers: waited for their lanes */
    uint64_t starved_ns; /* of all workers: waited for pages */
};

/* All members are private to rate.c; zeros are a good beginning. */
struct gw_rate {
    struct gw_rate_counts then;
    uint64_t then_ns; /* 0: no sample yet */
    double bytes_per_s;
};

/* Takes the counts at now_ns, of n_workers; some twenty times a second. Returns the lanes' rate in
 * bytes per second; 0: not known yet. */
uint64_t gw_rate_sample(struct gw_rate *rate, const struct gw_rate_counts *counts,
                        unsigned n_workers, uint64_t now_ns);

#endif
