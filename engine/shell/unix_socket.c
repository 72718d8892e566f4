/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "shell/unix_socket.h"
#include "util/cleanup.h"

#define LISTEN_BACKLOG 64

static int check_path(const char *path, struct sockaddr_un *sun, struct gw_error *e)
{
    if (!*path || strlen(path) >= sizeof sun->sun_path)
        return gw_error_set(e, GW_E_CONFIG,
                            "listen on %s: a unix socket's path has 1 to %zu bytes, not %zu", path,
                            sizeof sun->sun_path - 1, strlen(path));
    memset(sun, 0, sizeof *sun);
    sun->sun_family = AF_UNIX;
    strcpy(sun->sun_path, path);
    return 0;
}

static int somebody_answers(const char *path, struct gw_error *e)
{
    gw_error_set(e, GW_E_EXISTS, "listen on %s: another process answers there", path);
    return gw_error_hint(e, "is a godwitd running already? Otherwise give this one its own socket");
}

/* Removes what a killed daemon left, and only that. */
static int remove_stale(const struct sockaddr_un *sun, struct gw_error *e)
{
    const char *path = sun->sun_path;
    gw_autoclose int fd = -1;
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : gw_error_set_sys(e, errno, "listen on %s", path);
    if (!S_ISSOCK(st.st_mode))
        return gw_error_set(e, GW_E_CONFIG, "listen on %s: that is there, and not a socket", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return gw_error_set_sys(e, errno, "listen on %s", path);
    /* EAGAIN: somebody who is slow to accept. Only a refusal says that nobody listens. */
    if (connect(fd, (const struct sockaddr *)sun, sizeof *sun) == 0 || errno == EAGAIN)
        return somebody_answers(path, e);
    if (errno != ECONNREFUSED)
        return gw_error_set_sys(e, errno, "listen on %s: try who is there", path);
    return unlink(path) < 0 && errno != ENOENT
               ? gw_error_set_sys(e, errno, "remove the stale socket %s", path)
               : 0;
}

int gw_unix_listen(const char *path, struct gw_error *e)
{
    gw_autoclose int fd = -1;
    struct sockaddr_un sun;
    mode_t old;
    int r;

    if (check_path(path, &sun, e) < 0 || remove_stale(&sun, e) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return gw_error_set_sys(e, errno, "listen on %s", path);
    old = umask(0);
    umask(old | 0117);
    r = bind(fd, (const struct sockaddr *)&sun, sizeof sun);
    umask(old);
    if (r < 0)
        return gw_error_set_sys(e, errno, "listen on %s", path);
    if (listen(fd, LISTEN_BACKLOG) < 0) {
        unlink(path);
        return gw_error_set_sys(e, errno, "listen on %s", path);
    }
    return gw_steal_fd(&fd);
}
