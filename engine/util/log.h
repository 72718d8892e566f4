/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Free prose for people: to stderr on a terminal or in tests, to journald as a service.
 *
 * Every line belongs to a scope: a migration id, a VM name or a subsystem. On stderr it stands in
 * brackets; journald gets it as the field GODWIT_ID, so that
 * `journalctl GODWIT_ID=m-4f21c09a` is the story of one migration.
 */
#ifndef GW_UTIL_LOG_H
#define GW_UTIL_LOG_H

#include <stdbool.h>

/* The numbers are those of syslog(3), which journald takes as PRIORITY. */
enum gw_log_level {
    GW_LOG_ERROR = 3,
    GW_LOG_WARNING = 4,
    GW_LOG_INFO = 6,
    GW_LOG_DEBUG = 7,
};

struct gw_log {
    enum gw_log_level level; /* lines above this are dropped */
    bool to_journal;         /* otherwise stderr */
};

/* Writes one line, cut at 1023 bytes, control characters as '?'; never fails, never allocates on
 * stderr. log may be NULL: then nothing happens. */
void gw_log(const struct gw_log *log, enum gw_log_level level, const char *scope, const char *fmt,
            ...) __attribute__((format(printf, 4, 5)));

/* True where stderr is connected to the journal (systemd sets JOURNAL_STREAM) and libsystemd is
 * built in. */
bool gw_log_journal_wanted(void);

/* "error", "warning", "info", "debug" to a level; -1 for any other word. */
int gw_log_level_from_name(const char *name);

#endif
