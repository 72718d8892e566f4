/* SPDX-License-Identifier: Apache-2.0 */
#include "transports/wrap/rate.h"

#include <errno.h>
#include <pthread.h>

#include "transports/wrap/filter.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define SHARE_NS      (2 * GW_NS_PER_MS)
#define BURST_NS      (4 * GW_NS_PER_MS)
#define LOOK_AGAIN_NS (10 * GW_NS_PER_MS) /* at least so often: the rate may have changed */

enum {
    SHARE_MIN_BYTES = 512,
    SHARE_MAX_BYTES = 1 << 20,
};

struct rate {
    struct gw_filter filter;
    pthread_mutex_t lock;
    uint64_t bytes_s;    /* 0: no limit */
    unsigned generation; /* of bytes_s: a reservation at another rate is void */
    uint64_t free_ns;    /* up to here all is reserved */
};

struct rate_lane {
    struct gw_filter_lane base;
    uint64_t n_share; /* bytes that are ours from start_ns on */
    uint64_t start_ns;
    unsigned generation; /* 0: nothing is reserved */
};

static struct rate *rate_of(struct gw_filter *filter)
{
    return gw_container_of(filter, struct rate, filter);
}

static uint64_t share_of(uint64_t bytes_s)
{
    uint64_t share = bytes_s / (GW_NS_PER_S / SHARE_NS);

    return share < SHARE_MIN_BYTES   ? SHARE_MIN_BYTES
           : share > SHARE_MAX_BYTES ? SHARE_MAX_BYTES
                                     : share;
}

/* The time that so many bytes take, rounded up. */
static uint64_t duration_ns(uint64_t n_bytes, uint64_t bytes_s)
{
    return (uint64_t)(((unsigned __int128)n_bytes * GW_NS_PER_S + bytes_s - 1) / bytes_s);
}

static void reserve(struct rate *rate, struct rate_lane *lane, uint64_t now_ns)
{
    uint64_t earliest_ns = now_ns > BURST_NS ? now_ns - BURST_NS : 0;

    lane->n_share = share_of(rate->bytes_s);
    lane->start_ns = rate->free_ns > earliest_ns ? rate->free_ns : earliest_ns;
    lane->generation = rate->generation;
    rate->free_ns = lane->start_ns + duration_ns(lane->n_share, rate->bytes_s);
}

static size_t rate_grant(struct gw_filter_lane *base, enum gw_direction way, size_t n_bytes,
                         uint64_t *at_ns)
{
    struct rate *rate = rate_of(base->filter);
    struct rate_lane *lane = gw_container_of(base, struct rate_lane, base);

    if (way == GW_RECEIVE)
        return n_bytes;
    pthread_mutex_lock(&rate->lock);
    if (rate->bytes_s && (lane->generation != rate->generation || lane->n_share == 0))
        reserve(rate, lane, base->now_ns);
    if (rate->bytes_s && base->now_ns < lane->start_ns) {
        *at_ns = lane->start_ns - base->now_ns > LOOK_AGAIN_NS ? base->now_ns + LOOK_AGAIN_NS
                                                               : lane->start_ns;
        n_bytes = 0;
    } else if (rate->bytes_s && n_bytes > lane->n_share) {
        n_bytes = lane->n_share;
    }
    pthread_mutex_unlock(&rate->lock);
    return n_bytes;
}

static void rate_moved(struct gw_filter_lane *base, enum gw_direction way,
                       const struct gw_transfer *transfer, size_t n_bytes)
{
    struct rate_lane *lane = gw_container_of(base, struct rate_lane, base);

    (void)transfer;
    if (way == GW_SEND)
        lane->n_share = lane->n_share > n_bytes ? lane->n_share - n_bytes : 0;
}

static int rate_set(struct gw_transport *transport, uint64_t bytes_s)
{
    struct rate *rate = rate_of(gw_filter_of(transport));

    pthread_mutex_lock(&rate->lock);
    rate->bytes_s = bytes_s;
    rate->generation = rate->generation + 1 ?: 1;
    rate->free_ns = 0;
    pthread_mutex_unlock(&rate->lock);
    return 0;
}

static void rate_fini(struct gw_transport *transport)
{
    pthread_mutex_destroy(&rate_of(gw_filter_of(transport))->lock);
}

static const struct gw_filter_ops rate_ops = {
    .name = "rate",
    .lane_bytes = sizeof(struct rate_lane),
    .grant = rate_grant,
    .moved = rate_moved,
    .set_rate = rate_set,
    .fini = rate_fini,
};

int gw_rate_new(struct gw_uri *uri, struct gw_transport *next, struct gw_transport **transportp,
                struct gw_error *error)
{
    uint64_t bytes_s = 0;
    const struct gw_uri_number number = {"rate", GW_URI_RATE, 0, UINT64_C(1) << 40, &bytes_s};
    struct gw_filter *filter;

    if (gw_uri_numbers(uri, &number, 1, error) < 0)
        return -1;
    filter = gw_filter_new(&rate_ops, sizeof(struct rate), next);
    if (!filter)
        return gw_error_set_sys(error, ENOMEM, "open a transport");
    pthread_mutex_init(&rate_of(filter)->lock, NULL);
    rate_of(filter)->bytes_s = bytes_s;
    rate_of(filter)->generation = 1;
    *transportp = &filter->base;
    return 0;
}
