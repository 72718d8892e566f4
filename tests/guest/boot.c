/* SPDX-License-Identifier: Apache-2.0 */
#include "boot.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "say.h"

#define LINK_DEADLINE_NS 10000000000ull

static void mount_at(const char *type, const char *path)
{
    mkdir(path, 0755);
    if (mount(type, path, type, MS_NOSUID | MS_NOEXEC, NULL) && errno != EBUSY)
        gw_fatal("mount %s: %s", path, strerror(errno));
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        gw_say("warning: %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

void gw_boot_mounts(void)
{
    mount_at("devtmpfs", "/dev");
    int fd = open("/dev/console", O_RDWR | O_NOCTTY);
    for (int i = 0; fd >= 0 && i < 3; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
    mount_at("proc", "/proc");
    mount_at("sysfs", "/sys");
    write_file("/proc/sys/kernel/panic_on_oops", "1");
}

void gw_boot_read(const char *path, char *text, size_t n_text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, n_text - 1);

    if (n < 0)
        gw_fatal("read %s: %s", path, strerror(errno));
    close(fd);
    text[n] = '\0';
}

bool gw_boot_on_disk(void)
{
    struct statfs root;

    if (statfs("/", &root))
        gw_fatal("statfs /: %s", strerror(errno));
    return root.f_type == EXT4_SUPER_MAGIC;
}

static void take_along(const char *from, const char *to)
{
    if (mount(from, to, NULL, MS_MOVE, NULL))
        gw_fatal("move the mount %s to %s: %s", from, to, strerror(errno));
}

void gw_boot_from_disk(const char *device)
{
    static char init[] = "/sbin/init";
    char *argv[] = {init, NULL};

    mkdir("/root", 0755);
    if (mount(device, "/root", "ext4", 0, NULL))
        gw_fatal("mount %s as the root: %s", device, strerror(errno));
    take_along("/dev", "/root/dev");
    take_along("/proc", "/root/proc");
    take_along("/sys", "/root/sys");
    if (chdir("/root"))
        gw_fatal("enter the root: %s", strerror(errno));
    take_along(".", "/");
    if (!chroot("."))
        execv(argv[0], argv);
    gw_fatal("start %s of %s: %s", argv[0], device, strerror(errno));
}

static void load_module(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
        gw_fatal("load module %s: %s", path, strerror(errno));
    close(fd);
}

void gw_boot_modules(const struct gw_settings *settings)
{
    char list[4096];
    char *path, *rest = list;

    gw_boot_read("/modules.list", list, sizeof(list));
    while ((path = strsep(&rest, "\n")))
        if (*path && (settings->balloon || !strstr(path, "/virtio_balloon.ko")))
            load_module(path);
}

/* Link messages wake it; what they say is not read, the interface is looked up anew. */
static void wait_for_link(const char *name)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    uint64_t deadline_ns = gw_now_ns() + LINK_DEADLINE_NS;
    char discarded[4096];

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
        gw_fatal("netlink socket: %s", strerror(errno));
    while (!if_nametoindex(name)) {
        uint64_t now_ns = gw_now_ns();

        if (now_ns >= deadline_ns)
            gw_fatal("no %s after 10 s: has the machine a virtio-net-pci?", name);
        if (poll(&poll_fd, 1, (int)((deadline_ns - now_ns) / 1000000) + 1) > 0 &&
            recv(fd, discarded, sizeof(discarded), 0) < 0 && errno != ENOBUFS)
            gw_fatal("netlink: %s", strerror(errno));
    }
    close(fd);
}

static void set_address(int fd, struct ifreq *request, unsigned long which, struct in_addr address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = address};

    memcpy(&request->ifr_addr, &in, sizeof(in));
    if (ioctl(fd, which, request))
        gw_fatal("address %s for %s: %s", inet_ntoa(address), request->ifr_name, strerror(errno));
}

static void take_up(int fd, const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_UP | IFF_RUNNING};

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, SIOCSIFFLAGS, &request))
        gw_fatal("take %s up: %s", name, strerror(errno));
}

void gw_boot_network(const struct gw_settings *settings)
{
    struct ifreq request = {.ifr_name = "eth0"};

    if (!settings->ip.s_addr)
        return;
    wait_for_link("eth0");
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        gw_fatal("socket: %s", strerror(errno));
    set_address(fd, &request, SIOCSIFADDR, settings->ip);
    set_address(fd, &request, SIOCSIFNETMASK, settings->netmask);
    take_up(fd, "eth0");
    take_up(fd, "lo");
    close(fd);
}
