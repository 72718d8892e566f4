/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/rate.h"

#include <math.h>

#define LEAST_WORK 0.3  /* of the workers' time, for an interval to count */
#define BLOCKED    0.2  /* of that: the lanes are the slower ones */
#define FREE       0.05 /* of that: they have room */
#define ROOM       1.2  /* that is assumed then */
#define NEWS       0.3  /* weight of an interval in the mean */

/* One of all workers may have waited since before the interval: no share is above 1. */
static double share(uint64_t ns, double all_ns)
{
    return fmin((double)ns / all_ns, 1);
}

uint64_t gw_rate_sample(struct gw_rate *rate, const struct gw_rate_counts *counts,
                        unsigned n_workers, uint64_t now_ns)
{
    struct gw_rate_counts then = rate->then;
    double ns = (double)(now_ns - rate->then_ns), seen, work, blocked;
    int first = rate->then_ns == 0;

    rate->then = *counts;
    rate->then_ns = now_ns;
    if (first || ns <= 0 || n_workers == 0)
        return (uint64_t)rate->bytes_per_s;
    seen = (double)(counts->sent_bytes - then.sent_bytes) * 1e9 / ns;
    work = 1 - share(counts->starved_ns - then.starved_ns, ns * n_workers);
    blocked = share(counts->blocked_ns - then.blocked_ns, ns * n_workers);
    if (work < LEAST_WORK || seen <= 0)
        return (uint64_t)rate->bytes_per_s;
    if (blocked > BLOCKED * work)
        rate->bytes_per_s += (seen - rate->bytes_per_s) * (rate->bytes_per_s > 0 ? NEWS : 1);
    else if (blocked < FREE * work || seen > rate->bytes_per_s)
        rate->bytes_per_s = fmax(rate->bytes_per_s, seen * (blocked < FREE * work ? ROOM : 1));
    return (uint64_t)rate->bytes_per_s;
}
