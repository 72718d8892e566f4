/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/facts.h"
#include "host/qemubin.h"
#include "util/cleanup.h"

static bool is_program(const char *path, struct stat *st)
{
    return stat(path, st) == 0 && S_ISREG(st->st_mode) && access(path, X_OK) == 0;
}

/* The file that execvp(3) would run. */
static bool find(const char *qemu, char path[PATH_MAX], struct stat *st)
{
    const char *places = getenv("PATH");

    if (strchr(qemu, '/'))
        return snprintf(path, PATH_MAX, "%s", qemu) < PATH_MAX && is_program(path, st);
    for (const char *at = places ? places : "/bin:/usr/bin", *end; at; at = end ? end + 1 : NULL) {
        int n = snprintf(path, PATH_MAX, "%.*s/%s", (int)strcspn(at, ":"), at, qemu);

        if (at[0] != ':' && at[0] && n < PATH_MAX && is_program(path, st))
            return true;
        end = strchr(at, ':');
    }
    return false;
}

static bool is_elf(const char *path)
{
    gw_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    char magic[4];

    return fd >= 0 && read(fd, magic, sizeof magic) == sizeof magic &&
           memcmp(magic, "\177ELF", sizeof magic) == 0;
}

static bool is_known(const struct gw_qemu_binary *known, const struct stat *st)
{
    return known->version[0] && known->device == st->st_dev && known->inode == st->st_ino &&
           known->modified.tv_sec == st->st_mtim.tv_sec &&
           known->modified.tv_nsec == st->st_mtim.tv_nsec;
}

int gw_qemu_binary_version(struct gw_qemu_binary *known, const char *qemu, const char **versionp,
                           struct gw_error *e)
{
    char path[PATH_MAX];
    struct stat st;

    if (!find(qemu, path, &st))
        return gw_error_set_sys(e, ENOENT, "find the program %s", qemu);
    if (!is_known(known, &st)) {
        struct gw_qemu_binary now = {st.st_dev, st.st_ino, st.st_mtim, ""};

        if (gw_facts_qemu_version(path, now.version, e) < 0)
            return -1;
        if (!is_elf(path))
            now.inode = 0; /* matches no file: it will be asked again */
        *known = now;
    }
    *versionp = known->version;
    return 0;
}
