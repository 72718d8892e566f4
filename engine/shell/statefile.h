/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files below the daemon's state directory that must survive a crash whole: a reader sees
 * the old content or the new one, never a part.
 */
#ifndef GW_SHELL_STATEFILE_H
#define GW_SHELL_STATEFILE_H

#include <stddef.h>
#include <sys/types.h>

#include "godwit/error.h"

/*
 * Replaces path by len bytes: a temporary file beside it, fsync, rename, fsync of the directory.
 * The file has exactly this mode from its first byte on, whatever the umask. 0 or -1 with *error.
 */
int gw_statefile_write(const char *path, const void *data, size_t len, mode_t mode,
                       struct gw_error *error);

/*
 * Reads a whole file of at most max_bytes into *datap (freed by the caller; a NUL follows the
 * content). 0; or -1 with *error: GW_E_NOT_FOUND where there is no such file, GW_E_CONFIG where it
 * is longer, GW_E_SYSTEM otherwise.
 */
int gw_statefile_read(const char *path, size_t max_bytes, char **datap, size_t *lenp,
                      struct gw_error *error);

/* Makes the directory, 0700; its parent must exist. Fine if it is there already. */
int gw_statefile_mkdir(const char *path, struct gw_error *error);

/* Removes path durably. 0 for the one caller that removed it, 1 if it was not there, -1 with
 * *error. Of any number of racing callers, in any processes, exactly one gets 0. */
int gw_statefile_remove(const char *path, struct gw_error *error);

#endif
