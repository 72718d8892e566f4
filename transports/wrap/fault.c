/* SPDX-License-Identifier: Apache-2.0 */
#include "transports/wrap/fault.h"

#include <errno.h>
#include <string.h>

#include "transports/wrap/filter.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define ALL UINT64_MAX

struct fault {
    struct gw_filter filter;
    uint64_t seed, lane, short_bytes, delay_ms, corrupt_at, cut_at, stall_at, stall_ms;
    bool ways[2];
};

struct fault_lane {
    struct gw_filter_lane base;
    struct fault_half {
        uint64_t random; /* state of the generator */
        uint64_t n_moved;
        uint64_t go_ns;         /* the delay of this step ends; 0: not chosen yet */
        uint64_t stall_ends_ns; /* 0: not begun; GW_NEVER: never */
    } halves[2];
};

static struct fault *fault_of(struct gw_filter *filter)
{
    return gw_container_of(filter, struct fault, filter);
}

static struct fault_lane *lane_of(struct gw_filter_lane *lane)
{
    return gw_container_of(lane, struct fault_lane, base);
}

/* splitmix64, of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014) */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* 1 … max */
static uint64_t random_up_to(struct fault_half *half, uint64_t max)
{
    return random_next(&half->random) % max + 1;
}

static void fault_lane_init(struct gw_filter_lane *base)
{
    struct fault_lane *lane = lane_of(base);

    for (unsigned way = 0; way < 2; way++)
        lane->halves[way].random =
            fault_of(base->filter)->seed * 1000003 + base->hello.lane * 2u + way;
}

/* Whether the lane must not move for now; *at_ns: until when. */
static bool held_up(const struct fault *fault, struct fault_half *half, uint64_t now_ns,
                    uint64_t *at_ns)
{
    if (half->n_moved == fault->stall_at) {
        if (half->stall_ends_ns == 0)
            half->stall_ends_ns =
                fault->stall_ms ? now_ns + fault->stall_ms * GW_NS_PER_MS : GW_NEVER;
        *at_ns = half->stall_ends_ns;
        if (now_ns < half->stall_ends_ns)
            return true;
    }
    if (fault->delay_ms == 0)
        return false;
    if (half->go_ns == 0)
        half->go_ns = now_ns + random_up_to(half, fault->delay_ms * GW_NS_PER_MS);
    *at_ns = half->go_ns;
    return now_ns < half->go_ns;
}

/* So many bytes until n of them have moved, so that the fault is exactly there. */
static size_t up_to(size_t n_bytes, const struct fault_half *half, uint64_t n)
{
    return n > half->n_moved && n - half->n_moved < n_bytes ? n - half->n_moved : n_bytes;
}

static size_t fault_grant(struct gw_filter_lane *base, enum gw_direction way, size_t n_bytes,
                          uint64_t *at_ns)
{
    struct fault *fault = fault_of(base->filter);
    struct fault_half *half = &lane_of(base)->halves[way];

    if (!fault->ways[way] || (fault->lane != ALL && fault->lane != base->hello.lane))
        return n_bytes;
    if (half->n_moved == fault->cut_at) {
        gw_filter_fail(base, -ECONNRESET, "cut by a fault that was asked for");
        return 0;
    }
    if (held_up(fault, half, base->now_ns, at_ns))
        return 0;
    half->go_ns = 0;
    n_bytes = up_to(up_to(n_bytes, half, fault->cut_at), half, fault->stall_at);
    if (fault->short_bytes && n_bytes > 1) {
        uint64_t most = random_up_to(half, fault->short_bytes);

        n_bytes = n_bytes > most ? most : n_bytes;
    }
    return n_bytes;
}

/* Flips one bit of byte number at of what is received next. */
static void corrupt(const struct gw_transfer *transfer, size_t at, unsigned bit)
{
    struct iovec iov[GW_TRANSFER_IOV_MAX];
    size_t n_bytes;
    unsigned n = gw_transfer_slice(transfer, iov, GW_TRANSFER_IOV_MAX, at + 1, &n_bytes);

    ((uint8_t *)iov[n - 1].iov_base)[iov[n - 1].iov_len - 1] ^= (uint8_t)(1u << bit);
}

static void fault_moved(struct gw_filter_lane *base, enum gw_direction way,
                        const struct gw_transfer *transfer, size_t n_bytes)
{
    struct fault *fault = fault_of(base->filter);
    struct fault_half *half = &lane_of(base)->halves[way];
    uint64_t at = fault->corrupt_at; /* from 1 */

    if (way == GW_RECEIVE && fault->ways[way] && at > half->n_moved &&
        at <= half->n_moved + n_bytes && (fault->lane == ALL || fault->lane == base->hello.lane))
        corrupt(transfer, at - half->n_moved - 1, random_next(&half->random) % 8);
    half->n_moved += n_bytes;
}

static const struct gw_filter_ops fault_ops = {
    .name = "fault",
    .lane_bytes = sizeof(struct fault_lane),
    .lane_init = fault_lane_init,
    .grant = fault_grant,
    .moved = fault_moved,
};

static int read_ways(struct gw_uri *uri, bool ways[2], struct gw_error *error)
{
    const char *text = gw_uri_get(uri, "way");

    ways[GW_SEND] = !text || strcmp(text, "send") == 0;
    ways[GW_RECEIVE] = !text || strcmp(text, "receive") == 0;
    if (!ways[GW_SEND] && !ways[GW_RECEIVE])
        return gw_error_set(error, GW_E_USAGE,
                            "transport URI: way=%.40s is neither send nor receive", text);
    return 0;
}

int gw_fault_new(struct gw_uri *uri, struct gw_transport *next, struct gw_transport **transportp,
                 struct gw_error *error)
{
    struct fault wanted = {.seed = 1, .lane = ALL, .cut_at = ALL, .stall_at = ALL};
    const struct gw_uri_number numbers[] = {
        {"seed", GW_URI_COUNT, 0, UINT64_MAX, &wanted.seed},
        {"lane", GW_URI_COUNT, 0, GW_LANES_MAX - 1, &wanted.lane},
        {"short", GW_URI_BYTES, 1, 1 << 30, &wanted.short_bytes},
        {"delay", GW_URI_MS, 1, 60000, &wanted.delay_ms},
        {"corrupt", GW_URI_BYTES, 1, UINT64_MAX - 1, &wanted.corrupt_at},
        {"cut", GW_URI_BYTES, 0, UINT64_MAX - 1, &wanted.cut_at},
        {"stall", GW_URI_BYTES, 0, UINT64_MAX - 1, &wanted.stall_at},
        {"stall_for", GW_URI_MS, 1, 3600000, &wanted.stall_ms},
    };
    struct gw_filter *filter;

    if (gw_uri_numbers(uri, numbers, GW_ARRAY_SIZE(numbers), error) < 0 ||
        read_ways(uri, wanted.ways, error) < 0)
        return -1;
    filter = gw_filter_new(&fault_ops, sizeof(struct fault), next);
    if (!filter)
        return gw_error_set_sys(error, ENOMEM, "open a transport");
    wanted.filter = *filter;
    *fault_of(filter) = wanted;
    *transportp = &filter->base;
    return 0;
}
