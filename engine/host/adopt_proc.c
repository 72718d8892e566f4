/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc and /sys know about a running QEMU.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/adopt.h"
#include "host/tap.h"
#include "util/cleanup.h"

#define CMDLINE_MAX_BYTES (1u << 20)
#define ARGS_MAX          4096u

struct proc_host {
    struct gw_adopt_host host;
    pid_t pid;
    char cwd[PATH_MAX];
};

/* The target of a link; -1 with errno. */
static int read_link(const char *path, char *buf, size_t size)
{
    ssize_t n = readlink(path, buf, size);

    if (n < 0)
        return -1;
    if ((size_t)n == size) {
        errno = ENAMETOOLONG;
        return -1;
    }
    buf[n] = '\0';
    return 0;
}

static int read_proc_link(pid_t pid, const char *name, char *buf, size_t size)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    return read_link(path, buf, size);
}

static int bridge_of(struct gw_adopt_host *host, const char *ifname, char bridge[IFNAMSIZ])
{
    char path[128], target[PATH_MAX];
    const char *base;

    (void)host;
    if (strchr(ifname, '/') || ifname[0] == '.')
        return -1;
    snprintf(path, sizeof path, "/sys/class/net/%s/master", ifname);
    if (read_link(path, target, sizeof target) < 0)
        return -1;
    base = strrchr(target, '/');
    base = base ? base + 1 : target;
    if (strlen(base) >= IFNAMSIZ)
        return -1;
    snprintf(path, sizeof path, "/sys/class/net/%s/bridge", base); /* not a bond, not OVS */
    if (access(path, F_OK) < 0)
        return -1;
    memcpy(bridge, base, strlen(base) + 1);
    return 0;
}

static int tap_of_fd(struct gw_adopt_host *host, int fd, char ifname[IFNAMSIZ])
{
    return gw_tap_of_fd(gw_container_of(host, struct proc_host, host)->pid, fd, ifname);
}

/* Field 22 of stat; the name in field 2 may hold anything, a ")" too. */
static int read_start_ticks(pid_t pid, uint64_t *ticksp, struct gw_error *e)
{
    char path[64], text[1024];
    gw_autoclose int fd = -1;
    unsigned long long ticks;
    const char *rest;
    ssize_t n;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return gw_error_set(e, GW_E_NOT_FOUND, "adopt: there is no process %d", (int)pid);
    n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0)
        return gw_error_set_sys(e, errno, "adopt: read %s", path);
    text[n] = '\0';
    rest = strrchr(text, ')');
    for (int field = 2; rest && field < 22; field++)
        rest = strchr(rest + 1, ' ');
    if (!rest || sscanf(rest, "%llu", &ticks) != 1)
        return gw_error_set(e, GW_E_SYSTEM, "adopt: %s is not what it should be", path);
    *ticksp = ticks;
    return 0;
}

/* *textp gets the NUL-separated arguments, with one more NUL behind them. */
static int read_cmdline(pid_t pid, char **textp, size_t *lenp, struct gw_error *e)
{
    gw_autofree char *text = malloc(CMDLINE_MAX_BYTES + 1);
    gw_autoclose int fd = -1;
    char path[64];
    size_t len = 0;
    ssize_t n = 0;

    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    if (!text)
        return gw_error_set_sys(e, ENOMEM, "adopt: read %s", path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return gw_error_set_sys(e, errno, "adopt: open %s", path);
    while (len < CMDLINE_MAX_BYTES && (n = read(fd, text + len, CMDLINE_MAX_BYTES - len)) > 0)
        len += (size_t)n;
    if (n < 0)
        return gw_error_set_sys(e, errno, "adopt: read %s", path);
    if (len == 0 || len == CMDLINE_MAX_BYTES)
        return gw_error_set(e, GW_E_INCOMPATIBLE, "adopt: the command line of process %d is %s",
                            (int)pid, len ? "too long" : "empty (a kernel thread, or a zombie)");
    text[len] = '\0';
    *textp = gw_steal_ptr(&text);
    *lenp = len;
    return 0;
}

static int check_program(pid_t pid, char *exe, size_t size, struct gw_error *e)
{
    static const char deleted[] = " (deleted)"; /* QEMU was upgraded under it */
    static const char *const names[] = {"qemu-system-x86_64", "qemu-kvm", "kvm", NULL};
    const char *base;
    size_t len;

    if (read_proc_link(pid, "exe", exe, size) < 0) {
        gw_error_set_sys(e, errno, "adopt: read /proc/%d/exe", (int)pid);
        return gw_error_hint(e, "godwitd needs the rights of that process's user, or root's");
    }
    len = strlen(exe);
    if (len > strlen(deleted) && strcmp(exe + len - strlen(deleted), deleted) == 0)
        exe[len - strlen(deleted)] = '\0';
    base = strrchr(exe, '/');
    base = base ? base + 1 : exe;
    for (const char *const *name = names; *name; name++)
        if (strcmp(base, *name) == 0)
            return 0;
    return gw_error_set(e, GW_E_INCOMPATIBLE, "adopt: process %d is not a QEMU for x86-64 but %s",
                        (int)pid, exe);
}

static int split_and_parse(char *text, size_t len, const char *name, struct gw_adopt_host *host,
                           struct gw_adopt **adoptp, struct gw_error *e)
{
    gw_autofree char **argv = calloc(ARGS_MAX, sizeof *argv);
    size_t n = 0;

    if (!argv)
        return gw_error_set_sys(e, ENOMEM, "adopt");
    for (size_t at = 0; at < len; at += strlen(text + at) + 1) {
        if (n == ARGS_MAX)
            return gw_error_set(e, GW_E_INCOMPATIBLE, "adopt: more than %u arguments", ARGS_MAX);
        argv[n++] = text + at;
    }
    return gw_adopt_parse(argv, n, name, host, adoptp, e);
}

int gw_adopt_read(pid_t pid, const char *name, struct gw_adopt **adoptp, struct gw_error *e)
{
    struct proc_host proc = {.host = {.bridge_of = bridge_of, .tap_of_fd = tap_of_fd}, .pid = pid};
    gw_auto(adopt) struct gw_adopt *adopt = NULL;
    gw_autofree char *text = NULL;
    char exe[PATH_MAX];
    uint64_t before = 0, after = 0;
    size_t len = 0;

    if (read_start_ticks(pid, &before, e) < 0 || check_program(pid, exe, sizeof exe, e) < 0 ||
        read_cmdline(pid, &text, &len, e) < 0)
        return -1;
    if (read_proc_link(pid, "cwd", proc.cwd, sizeof proc.cwd) == 0)
        proc.host.cwd = proc.cwd;
    if (split_and_parse(text, len, name, &proc.host, &adopt, e) < 0)
        return gw_error_prefix(e, "process %d", (int)pid);
    if (read_start_ticks(pid, &after, e) < 0)
        return -1;
    if (before != after)
        return gw_error_set(e, GW_E_NOT_FOUND, "adopt: process %d ended meanwhile", (int)pid);
    adopt->pid = pid;
    adopt->start_ticks = before;
    adopt->exe = strdup(exe);
    if (!adopt->exe)
        return gw_error_set_sys(e, ENOMEM, "adopt");
    *adoptp = gw_steal_ptr(&adopt);
    return 0;
}
