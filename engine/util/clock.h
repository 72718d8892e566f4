/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one clock that timeouts and durations are measured with: it never jumps. Only the shell and
 * the tools read it; everything below is handed the time.
 */
#ifndef GW_UTIL_CLOCK_H
#define GW_UTIL_CLOCK_H

#include <stdint.h>
#include <time.h>

#define GW_NS_PER_US UINT64_C(1000)
#define GW_NS_PER_MS UINT64_C(1000000)
#define GW_NS_PER_S  UINT64_C(1000000000)

/* Nanoseconds of CLOCK_MONOTONIC; comparable only within one boot of one node. */
/* CLOCK_REALTIME, for comparing with time stamps of the kernel and of QEMU. */
static inline uint64_t gw_clock_realtime_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t gw_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * GW_NS_PER_S + (uint64_t)now.tv_nsec;
}

#endif
