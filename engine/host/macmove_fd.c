/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptor by which another process has a tap open. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "host/macmove.h"
#include "host/tap.h"
#include "util/cleanup.h"

/* The lowest descriptor of the process that is this tap; -1 without. */
static int find_fd(DIR *dir, pid_t pid, const char *tap)
{
    char ifname[IFNAMSIZ];
    struct dirent *entry;
    int lowest = -1;

    while ((entry = readdir(dir))) {
        int fd = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : -1;

        if (fd >= 0 && (lowest < 0 || fd < lowest) && gw_tap_of_fd(pid, fd, ifname) == 0 &&
            strcmp(ifname, tap) == 0)
            lowest = fd;
    }
    return lowest;
}

int gw_macmove_tap_fd(int pidfd, pid_t pid, const char *tap, struct gw_error *e)
{
    gw_autoclose int copy = -1;
    struct ifreq ifr = {0};
    char path[64];
    DIR *dir;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    if (!dir)
        return gw_error_set_sys(e, errno, "look for tap %s in %s", tap, path);
    fd = find_fd(dir, pid, tap);
    closedir(dir);
    if (fd < 0)
        return gw_error_set(e, GW_E_NOT_FOUND, "process %d does not have tap %s open", (int)pid,
                            tap);
    copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    if (copy < 0) {
        gw_error_set_sys(e, errno, "duplicate descriptor %d (tap %s) of process %d", fd, tap,
                         (int)pid);
        return gw_error_hint(e, "it needs the right to ptrace that process (CAP_SYS_PTRACE)");
    }
    /* The process may have closed it meanwhile and opened something else. */
    if (ioctl(copy, TUNGETIFF, &ifr) < 0 || strcmp(ifr.ifr_name, tap) != 0)
        return gw_error_set(e, GW_E_NOT_FOUND, "process %d closed tap %s meanwhile", (int)pid, tap);
    return gw_steal_fd(&copy);
}
