/* SPDX-License-Identifier: Apache-2.0 */
/* Lines on the guest's console. Every line is one write(), so that lines of
 * several threads never mix, and starts with "GUEST ". */
#ifndef GW_GUEST_SAY_H
#define GW_GUEST_SAY_H

#include <stdint.h>

/* Prints "GUEST <text>\n"; text beyond 500 bytes is cut. */
void gw_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints "GUEST ERROR <text>" and powers the machine off: a guest that cannot
 * do what it was told must not look like one that does. */
void gw_fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Powers off; never returns. */
void gw_poweroff(void) __attribute__((noreturn));

/* CLOCK_MONOTONIC in nanoseconds. Under most accelerators it stands still while the
 * machine is paused, so a blackout is not in it: see README.md. */
uint64_t gw_now_ns(void);

#endif
