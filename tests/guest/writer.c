/* SPDX-License-Identifier: Apache-2.0 */
#include "writer.h"

#include <time.h>

#include "say.h"

#define PERIOD_NS   2000000u
#define MAX_DEBT_NS 100000000u
#define SECOND_NS   1000000000u
#define FLIP_EVERY  64u /* one write in so many goes to a zero page */

static uint32_t random_below(struct gw_writer *writer, uint32_t n)
{
    uint64_t x = writer->random;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    writer->random = x;
    return (uint32_t)((x >> 32) * n >> 32);
}

static uint32_t next_page(struct gw_writer *writer)
{
    const struct gw_layout *layout = &writer->pages->layout;

    if (layout->n_zero_pages && random_below(writer, FLIP_EVERY) == 0)
        return layout->n_fill_pages + random_below(writer, layout->n_zero_pages);
    return random_below(writer, writer->n_wss_pages);
}

static void write_pages(struct gw_writer *writer, uint64_t n_pages)
{
    struct gw_finding finding;

    for (uint64_t i = 0; i < n_pages; i++)
        if (gw_pages_write(writer->pages, next_page(writer), &finding))
            gw_verdict_add(writer->verdict, &finding);
}

/* Turns elapsed time into pages due, carrying the rest over in *creditp (bytes). */
static uint64_t pages_due(struct gw_writer *writer, uint64_t elapsed_ns, uint64_t *creditp)
{
    uint64_t rate = __atomic_load_n(&writer->rate_mb_per_s, __ATOMIC_RELAXED);

    if (elapsed_ns > MAX_DEBT_NS) {
        __atomic_add_fetch(&writer->n_skipped_pages,
                           rate * (elapsed_ns - MAX_DEBT_NS) / 1000 / GW_PAGE_BYTES,
                           __ATOMIC_RELAXED);
        elapsed_ns = MAX_DEBT_NS;
    }
    *creditp += rate * elapsed_ns / 1000;
    uint64_t n_pages = *creditp / GW_PAGE_BYTES;
    *creditp %= GW_PAGE_BYTES;
    return n_pages;
}

static void sleep_until(uint64_t at_ns)
{
    struct timespec at = {.tv_sec = (time_t)(at_ns / SECOND_NS),
                          .tv_nsec = (long)(at_ns % SECOND_NS)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL))
        ;
}

void *gw_writer_run(void *arg)
{
    struct gw_writer *writer = arg;
    uint64_t last_ns = gw_now_ns(), window_ns = last_ns, window_pages = 0, credit_bytes = 0;

    for (;;) {
        sleep_until(last_ns + PERIOD_NS);
        uint64_t now_ns = gw_now_ns();
        uint64_t n_pages = pages_due(writer, now_ns - last_ns, &credit_bytes);

        last_ns = now_ns;
        write_pages(writer, n_pages);
        window_pages += n_pages;
        if (now_ns - window_ns < SECOND_NS)
            continue;
        __atomic_store_n(&writer->achieved_kb_per_s,
                         window_pages * GW_PAGE_BYTES * 1000000 / (now_ns - window_ns),
                         __ATOMIC_RELAXED);
        window_ns = now_ns;
        window_pages = 0;
    }
    return NULL;
}
