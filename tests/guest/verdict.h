/* SPDX-License-Identifier: Apache-2.0 */
/* The list of pages that were ever found bad. A page that was bad once stays bad:
 * a later write may cover it up, the verdict does not change. Thread-safe. */
#ifndef GW_GUEST_VERDICT_H
#define GW_GUEST_VERDICT_H

#include "pages.h"

#define GW_N_KEPT 6u

struct gw_verdict {
    pthread_mutex_t lock;
    uint8_t *known;                    /* one bit a page */
    uint32_t n_bad;                    /* distinct pages */
    struct gw_finding kept[GW_N_KEPT]; /* the first ones */
};

/* Returns 0, or -1 with errno (ENOMEM). */
int gw_verdict_init(struct gw_verdict *verdict, uint32_t n_pages);
void gw_verdict_fini(struct gw_verdict *verdict);

/* Records a finding; the first one of each page is printed as
 * "GUEST BAD page=… kind=… expected=… found=…" (at most 200 lines). */
void gw_verdict_add(struct gw_verdict *verdict, const struct gw_finding *finding);

/* The number of distinct bad pages; the first ones of them into kept[GW_N_KEPT]. */
uint32_t gw_verdict_get(struct gw_verdict *verdict, struct gw_finding *kept);

#endif
