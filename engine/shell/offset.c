/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/offset.h"

#define DRIFT_PPM 15

/* 146 years of nanoseconds: sums and differences of four such times stay within 64 bits. */
#define LATEST_NS (INT64_MAX / 2)

static bool plausible(int64_t t_ns)
{
    return t_ns >= 0 && t_ns < LATEST_NS;
}

bool gw_offset_add(struct gw_offset *o, int64_t t0_ns, int64_t t1_ns, int64_t t2_ns, int64_t t3_ns)
{
    int64_t delay_ns;

    if (!plausible(t0_ns) || !plausible(t1_ns) || !plausible(t2_ns) || !plausible(t3_ns))
        return false;
    delay_ns = (t3_ns - t0_ns) - (t2_ns - t1_ns);
    if (t2_ns < t1_ns || t3_ns < t0_ns || delay_ns < 0)
        return false;
    o->samples[o->next].at_ns = t3_ns;
    o->samples[o->next].offset_ns = (t1_ns - t0_ns) / 2 + (t2_ns - t3_ns) / 2;
    o->samples[o->next].delay_ns = delay_ns;
    o->next = (o->next + 1) % GW_OFFSET_SAMPLES;
    if (o->n_samples < GW_OFFSET_SAMPLES)
        o->n_samples++;
    return true;
}

bool gw_offset_get(const struct gw_offset *o, int64_t now_ns, int64_t *offset_nsp,
                   int64_t *uncertainty_nsp)
{
    int64_t best_ns = INT64_MAX;

    for (size_t i = 0; i < o->n_samples; i++) {
        int64_t age_ns = now_ns > o->samples[i].at_ns ? now_ns - o->samples[i].at_ns : 0;
        int64_t bound_ns = o->samples[i].delay_ns / 2 + age_ns / 1000000 * DRIFT_PPM + 1;

        if (bound_ns >= best_ns)
            continue;
        best_ns = bound_ns;
        *offset_nsp = o->samples[i].offset_ns;
        *uncertainty_nsp = bound_ns;
    }
    return o->n_samples > 0;
}
