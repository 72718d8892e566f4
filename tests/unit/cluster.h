/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers for tests of the network side: state directories that go away, one event loop, and
 * waiting for a condition with a limit that only a broken test ever reaches.
 */
#ifndef GW_TESTS_CLUSTER_H
#define GW_TESTS_CLUSTER_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <event2/event.h>

#include "godwit/error.h"

#define LIMIT_S 20

/* Fails the test with the error's text. */
#define assert_done(call, e)                    \
    do {                                        \
        if ((call) < 0)                         \
            fail_msg("%s: %s", #call, (e).msg); \
    } while (0)

#define assert_contains(text, part)                          \
    do {                                                     \
        if (!strstr(text, part))                             \
            fail_msg("\"%s\" is not in \"%s\"", part, text); \
    } while (0)

static inline char *temp_dir(void)
{
    char path[] = "/tmp/gw-test-XXXXXX";

    assert_non_null(mkdtemp(path));
    return strdup(path);
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void remove_dir(char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(path);
}

static inline void on_limit(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    *(bool *)arg = true;
}

/* Runs the loop until *counter is at least n. */
static inline void run_until(struct event_base *base, const unsigned *counter, unsigned n)
{
    struct timeval limit = {.tv_sec = LIMIT_S};
    bool over = false;
    struct event *timer = event_new(base, -1, 0, on_limit, &over);

    event_add(timer, &limit);
    while (*counter < n && !over)
        event_base_loop(base, EVLOOP_ONCE);
    event_free(timer);
    if (over)
        fail_msg("waited %d s for something that did not happen", LIMIT_S);
}

/* Runs the loop for some ms: only to show that something does NOT happen in that time. */
static inline void run_for(struct event_base *base, unsigned ms)
{
    struct timeval t = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    event_base_loopexit(base, &t);
    event_base_dispatch(base);
}

#endif
