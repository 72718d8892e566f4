/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owner records in a directory on a file system that all nodes mount. See file.c for how, and for
 * what is asked of that file system and its mounts.
 */
#ifndef GW_STORAGE_FILE_H
#define GW_STORAGE_FILE_H

#include <sys/types.h>

#include "godwit/storage.h"

/* The system calls that change or sync something; replaced by tests that lose answers or crash. */
struct gw_store_file_sys {
    int (*renameat)(int olddir, const char *from, int newdir, const char *to);
    int (*unlinkat)(int dir, const char *name, int flags);
    int (*mkdirat)(int dir, const char *name, mode_t mode);
    int (*fsync)(int fd);
};

/*
 * Opens the directory, which must exist and must not be writable by all users. sys is NULL, or
 * outlives the store. The store completes its calls before their submission returns
 * (GW_STORE_BLOCKS) and is thread-safe. 0 with *storep, which ops->close frees; -1 with *error.
 */
int gw_store_file_open(const char *directory, const struct gw_store_file_sys *sys,
                       struct gw_store **storep, struct gw_error *error);

#endif
