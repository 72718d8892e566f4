/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long QEMU may pause the guest for its last pages: as briefly as the rounds can make it, and
 * never longer than the policy says.
 *
 * QEMU switches over as soon as what is left would go over within downtime-limit. Given the
 * policy's limit at once, it leaves that much for the pause (measured: 20 MB and 60 ms of 200 ms),
 * although one or two more rounds would have carried it while the guest ran. So the limit begins
 * low. When two rounds in a row have not become smaller by a quarter, the guest dirties memory
 * about as fast as it goes over, more rounds are of no use, and the policy's limit takes effect. So
 * it does in round 20: short rounds go up and down by chance, and never stall twice in a row.
 */
#ifndef GW_HOST_CONVERGE_H
#define GW_HOST_CONVERGE_H

#include <stdbool.h>
#include <stdint.h>

#define GW_CONVERGE_FIRST_MS 2u
#define GW_CONVERGE_ROUNDS   20u

/* Embedded by the caller; the fields are private. */
struct gw_converge {
    uint32_t first_ms, policy_ms;
    uint32_t round; /* the last one seen */
    uint64_t remaining_bytes;
    unsigned n_stalled;
    bool settled; /* the policy's limit is in effect */
};

/* policy_ms: the longest that the policy allows, at least 1. Returns the limit to begin with. */
uint32_t gw_converge_begin(struct gw_converge *c, uint32_t policy_ms);

/*
 * Figures of a round, best those of its beginning; more of the same round are passed over. True, at
 * most once: from now on the limit is to be policy_ms.
 */
bool gw_converge_round(struct gw_converge *c, uint32_t round, uint64_t remaining_bytes);

#endif
