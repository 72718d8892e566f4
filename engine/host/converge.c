/* SPDX-License-Identifier: Apache-2.0 */
#include "host/converge.h"

#define STALLED_ROUNDS 2u

uint32_t gw_converge_begin(struct gw_converge *c, uint32_t policy_ms)
{
    *c = (struct gw_converge){.policy_ms = policy_ms};
    c->first_ms = policy_ms < GW_CONVERGE_FIRST_MS ? policy_ms : GW_CONVERGE_FIRST_MS;
    c->settled = c->first_ms == policy_ms;
    return c->first_ms;
}

bool gw_converge_round(struct gw_converge *c, uint32_t round, uint64_t remaining_bytes)
{
    bool stalled = c->round > 0 && remaining_bytes >= c->remaining_bytes - c->remaining_bytes / 4;

    if (c->settled || round <= c->round)
        return false;
    c->round = round;
    c->remaining_bytes = remaining_bytes;
    c->n_stalled = stalled ? c->n_stalled + 1 : 0;
    c->settled = c->n_stalled >= STALLED_ROUNDS || round >= GW_CONVERGE_ROUNDS;
    return c->settled;
}
