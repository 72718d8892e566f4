/* SPDX-License-Identifier: Apache-2.0 */
#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

__attribute__((format(printf, 2, 0))) static void say(const char *prefix, const char *fmt,
                                                      va_list args)
{
    char line[520];
    int at = snprintf(line, sizeof(line), "GUEST %s", prefix);
    int n = vsnprintf(line + at, 500, fmt, args);
    size_t length = (size_t)at + (n < 0 ? 0 : n > 499 ? 499 : (size_t)n);

    line[length++] = '\n';
    /* A console that takes no bytes is no reason to stop the guest. */
    ssize_t done = write(STDOUT_FILENO, line, length);
    (void)done;
}

void gw_say(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say("", fmt, args);
    va_end(args);
}

void gw_fatal(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say("ERROR ", fmt, args);
    va_end(args);
    gw_poweroff();
}

void gw_poweroff(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

uint64_t gw_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
