/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

#include "util/tree.h"

#define OPEN_DIRS_MAX 16

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int gw_remove_tree(const char *path)
{
    if (nftw(path, remove_one, OPEN_DIRS_MAX, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0)
        return 0;
    return errno == ENOENT ? 0 : -1;
}
