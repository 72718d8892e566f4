/* SPDX-License-Identifier: Apache-2.0 */
#include "verdict.h"

#include <stdlib.h>
#include <string.h>

#include "say.h"

/* A console line costs a millisecond under emulation: a guest with
 * thousands of lost pages must still answer. */
#define MAX_LINES 200u

int gw_verdict_init(struct gw_verdict *verdict, uint32_t n_pages)
{
    *verdict = (struct gw_verdict){.known = calloc(n_pages / 8 + 1, 1)};
    pthread_mutex_init(&verdict->lock, NULL);
    return verdict->known ? 0 : -1;
}

void gw_verdict_fini(struct gw_verdict *verdict)
{
    free(verdict->known);
    verdict->known = NULL;
}

static void print(const struct gw_finding *finding)
{
    gw_say("BAD page=%u kind=%s expected=%llu found=%s", finding->page,
           gw_bad_kind_name(finding->kind), (unsigned long long)finding->expected, finding->found);
}

void gw_verdict_add(struct gw_verdict *verdict, const struct gw_finding *finding)
{
    uint8_t bit = (uint8_t)(1u << finding->page % 8);

    pthread_mutex_lock(&verdict->lock);
    if (!(verdict->known[finding->page / 8] & bit)) {
        verdict->known[finding->page / 8] |= bit;
        if (verdict->n_bad < GW_N_KEPT)
            verdict->kept[verdict->n_bad] = *finding;
        verdict->n_bad++;
        if (verdict->n_bad <= MAX_LINES)
            print(finding);
        else if (verdict->n_bad == MAX_LINES + 1)
            gw_say("BAD and more: only the number of bad pages is kept from here on");
    }
    pthread_mutex_unlock(&verdict->lock);
}

uint32_t gw_verdict_get(struct gw_verdict *verdict, struct gw_finding *kept)
{
    pthread_mutex_lock(&verdict->lock);
    memcpy(kept, verdict->kept, sizeof(verdict->kept));
    uint32_t n_bad = verdict->n_bad;
    pthread_mutex_unlock(&verdict->lock);
    return n_bad;
}
