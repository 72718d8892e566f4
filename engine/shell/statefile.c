/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/statefile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Without this the new name may be gone after a power cut, although the file's data is not. */
static int sync_directory_of(const char *path)
{
    gw_autofree char *dir = strdup(path);
    gw_autoclose int fd = -1;
    char *slash = dir ? strrchr(dir, '/') : NULL;

    if (!dir)
        return -ENOMEM;
    if (slash)
        *(slash == dir ? slash + 1 : slash) = '\0';
    fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}

static int fill(int fd, const void *data, size_t len, mode_t mode)
{
    int r = write_all(fd, data, len);

    if (r < 0)
        return r;
    if (fchmod(fd, mode) < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}

int gw_statefile_write(const char *path, const void *data, size_t len, mode_t mode,
                       struct gw_error *error)
{
    gw_autofree char *temp = NULL;
    gw_autoclose int fd = -1;
    int r;

    if (asprintf(&temp, "%s.tmp.XXXXXX", path) < 0) {
        temp = NULL;
        return gw_error_set_sys(error, ENOMEM, "write %s", path);
    }
    fd = mkostemp(temp, O_CLOEXEC); /* 0600 until it is complete */
    if (fd < 0)
        return gw_error_set_sys(error, errno, "create %s", temp);
    r = fill(fd, data, len, mode);
    if (r == 0 && rename(temp, path) < 0)
        r = -errno;
    if (r < 0) {
        unlink(temp);
        return gw_error_set_sys(error, -r, "write %s", path);
    }
    r = sync_directory_of(path);
    if (r < 0)
        return gw_error_set_sys(error, -r, "write %s: sync its directory", path);
    return 0;
}

int gw_statefile_read(const char *path, size_t max_bytes, char **datap, size_t *lenp,
                      struct gw_error *error)
{
    gw_autofree char *data = NULL;
    gw_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n;

    if (fd < 0 && errno == ENOENT)
        return gw_error_set(error, GW_E_NOT_FOUND, "%s does not exist", path);
    if (fd < 0)
        return gw_error_set_sys(error, errno, "open %s", path);
    data = malloc(max_bytes + 1);
    if (!data)
        return gw_error_set_sys(error, ENOMEM, "read %s", path);
    while ((n = read(fd, data + len, max_bytes + 1 - len)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return gw_error_set_sys(error, errno, "read %s", path);
        len += (size_t)n;
        if (len > max_bytes)
            return gw_error_set(error, GW_E_CONFIG, "%s is longer than %zu bytes", path, max_bytes);
    }
    data[len] = '\0';
    *datap = gw_steal_ptr(&data);
    *lenp = len;
    return 0;
}

int gw_statefile_mkdir(const char *path, struct gw_error *error)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return gw_error_set_sys(error, errno, "make directory %s", path);
    return 0;
}

int gw_statefile_remove(const char *path, struct gw_error *error)
{
    int r;

    if (unlink(path) < 0)
        return errno == ENOENT ? 1 : gw_error_set_sys(error, errno, "remove %s", path);
    r = sync_directory_of(path);
    if (r < 0)
        return gw_error_set_sys(error, -r, "remove %s: sync its directory", path);
    return 0;
}
