/* SPDX-License-Identifier: Apache-2.0 */
#include "host/goodput.h"

static uint64_t difference(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

bool gw_goodput_take(struct gw_goodput *g, uint64_t bytes, uint64_t worked_ns,
                     uint64_t *bytes_per_sp, uint64_t *instead_ofp)
{
    uint64_t now;

    if (worked_ns < g->worked_then_ns + GW_GOODPUT_MIN_NS || bytes <= g->bytes_then ||
        (bytes < g->bytes_then + GW_GOODPUT_MIN_BYTES &&
         worked_ns < g->worked_then_ns + GW_GOODPUT_ENOUGH_NS))
        return false;
    now =
        (uint64_t)((double)(bytes - g->bytes_then) * 1e9 / (double)(worked_ns - g->worked_then_ns));
    g->bytes_then = bytes;
    g->worked_then_ns = worked_ns;
    g->bytes_per_s = now < g->bytes_per_s || !g->bytes_per_s ? now : (g->bytes_per_s + now) / 2;
    if (g->bytes_per_s == 0 ||
        difference(g->bytes_per_s, g->told_bytes_per_s) < g->told_bytes_per_s / 5)
        return false;
    *instead_ofp = g->told_bytes_per_s;
    *bytes_per_sp = g->told_bytes_per_s = g->bytes_per_s;
    return true;
}
