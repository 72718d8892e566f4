/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "build_config.h"
#include "util/log.h"

#if GW_HAVE_SYSTEMD
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>
#endif

static const char *level_name(enum gw_log_level level)
{
    switch (level) {
    case GW_LOG_ERROR: return "error";
    case GW_LOG_WARNING: return "warning";
    case GW_LOG_INFO: return "info";
    case GW_LOG_DEBUG: return "debug";
    }
    return "?";
}

int gw_log_level_from_name(const char *name)
{
    static const enum gw_log_level all[] = {GW_LOG_ERROR, GW_LOG_WARNING, GW_LOG_INFO,
                                            GW_LOG_DEBUG};

    for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++)
        if (strcmp(level_name(all[i]), name) == 0)
            return all[i];
    return -1;
}

bool gw_log_journal_wanted(void)
{
    return GW_HAVE_SYSTEMD && getenv("JOURNAL_STREAM");
}

/* What a QEMU or another node said must neither begin a line of its own nor drive the terminal. */
static void make_one_line(char *text)
{
    for (; *text; text++)
        if (((unsigned char)*text < 0x20 && *text != '\t') || *text == 0x7f)
            *text = '?';
}

static void to_stderr(enum gw_log_level level, const char *scope, const char *text)
{
    struct timespec now;
    struct tm tm;
    char when[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    fprintf(stderr, "%s.%03ldZ %-7s [%s] %s\n", when, now.tv_nsec / 1000000, level_name(level),
            scope, text);
}

void gw_log(const struct gw_log *log, enum gw_log_level level, const char *scope, const char *fmt,
            ...)
{
    char text[1024];
    va_list ap;

    if (!log || level > log->level)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    make_one_line(text);
#if GW_HAVE_SYSTEMD
    if (log->to_journal) {
        sd_journal_send("PRIORITY=%d", (int)level, "GODWIT_ID=%s", scope, "MESSAGE=[%s] %s", scope,
                        text, NULL);
        return;
    }
#endif
    to_stderr(level, scope, text);
}
