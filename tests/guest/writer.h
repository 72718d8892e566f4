/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that dirties random pages of the working set at a given rate. */
#ifndef GW_GUEST_WRITER_H
#define GW_GUEST_WRITER_H

#include "verdict.h"

struct gw_writer {
    struct gw_pages *pages;
    struct gw_verdict *verdict;
    uint32_t n_wss_pages;       /* the first pages of the fill */
    uint32_t rate_mb_per_s;     /* wanted, 10^6 bytes of pages; atomic, may change */
    uint64_t achieved_kb_per_s; /* over the last second; atomic */
    uint64_t n_skipped_pages;   /* not written because the guest fell too far behind; atomic */
    uint64_t random;            /* never 0 */
};

/* The thread's body: pthread_create(…, gw_writer_run, writer). Never returns.
 * Every 2 ms it writes what is due since the last time. Of a pause it makes up
 * for 100 ms at most: after a blackout it does not dirty a second's worth at once. */
void *gw_writer_run(void *writer);

#endif
