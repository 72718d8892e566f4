/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "host/tap.h"
#include "util/cleanup.h"

void gw_tap_name(char out[IFNAMSIZ], const char *uuid, unsigned index)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (const char *c = uuid; *c; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    snprintf(out, IFNAMSIZ, "gw%010" PRIx64 "-%u", (hash ^ hash >> 40) & UINT64_C(0xffffffffff),
             index % 100);
}

/* A socket to ask and change interfaces through: any family does. */
static int open_control(struct gw_error *e)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd < 0 ? gw_error_set_sys(e, errno, "open a socket") : fd;
}

static void set_name(struct ifreq *ifr, const char *name)
{
    memset(ifr, 0, sizeof *ifr);
    snprintf(ifr->ifr_name, sizeof ifr->ifr_name, "%s", name);
}

/* Too long a name would be cut, and then mean another interface. */
static int check_name(const char *name, struct gw_error *e)
{
    if (name[0] == '\0' || strlen(name) >= IFNAMSIZ)
        return gw_error_set(e, GW_E_USAGE,
                            "'%s' is no interface name: it must have 1-%d characters", name,
                            IFNAMSIZ - 1);
    return 0;
}

/*
 * Whether the interface is run by this driver ("bridge", "tun"). The ioctl answers for the
 * caller's network namespace; /sys would answer for the one that it was mounted in.
 */
static bool has_driver(int fd, const char *name, const char *driver)
{
    struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
    struct ifreq ifr;

    set_name(&ifr, name);
    ifr.ifr_data = (char *)&info;
    return ioctl(fd, SIOCETHTOOL, &ifr) == 0 && strcmp(info.driver, driver) == 0;
}

int gw_bridge_list(char (**namesp)[IFNAMSIZ], size_t *n_namesp)
{
    gw_autoclose int fd = open_control(NULL);
    gw_autofree char(*names)[IFNAMSIZ] = NULL;
    struct if_nameindex *all;
    size_t n = 0;

    if (fd < 0)
        return -errno;
    all = if_nameindex();
    if (!all)
        return -errno;
    while (all[n].if_index)
        n++;
    names = calloc(n + 1, sizeof *names);
    *n_namesp = 0;
    for (size_t i = 0; names && i < n; i++)
        if (has_driver(fd, all[i].if_name, "bridge"))
            snprintf(names[(*n_namesp)++], IFNAMSIZ, "%s", all[i].if_name);
    if_freenameindex(all);
    if (!names)
        return -ENOMEM;
    *namesp = gw_steal_ptr(&names);
    return 0;
}

static void hint_bridges(struct gw_error *e)
{
    gw_autofree char(*names)[IFNAMSIZ] = NULL;
    char list[200] = "";
    size_t n, used = 0;

    if (gw_bridge_list(&names, &n) < 0)
        return;
    for (size_t i = 0; i < n && used < sizeof list - IFNAMSIZ - 3; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    if (n > 0)
        gw_error_hint(e, "bridges here: %s", list);
    else
        gw_error_hint(e, "there is no bridge here: make one, for example "
                         "`ip link add br0 type bridge && ip link set br0 up`");
}

static int require_bridge(int fd, const char *name, struct gw_error *e)
{
    if (has_driver(fd, name, "bridge"))
        return 0;
    if (if_nametoindex(name))
        gw_error_set(e, GW_E_NOT_FOUND, "%s is a network interface but no bridge", name);
    else
        gw_error_set(e, GW_E_NOT_FOUND, "there is no bridge %s", name);
    hint_bridges(e);
    return -1;
}

int gw_bridge_exists(const char *name, struct gw_error *e)
{
    gw_autoclose int fd = -1;

    if (check_name(name, e) < 0)
        return -1;
    fd = open_control(e);
    return fd < 0 ? -1 : require_bridge(fd, name, e);
}

static int open_tun(struct gw_error *e)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    gw_error_set_sys(e, errno, "open /dev/net/tun");
    return gw_error_hint(e, "taps need the tun module and CAP_NET_ADMIN");
}

/* The device lives as long as the returned descriptor, until TUNSETPERSIST. */
static int make_tap(const char *name, struct gw_error *e)
{
    gw_autoclose int fd = open_tun(e);
    struct ifreq ifr;

    if (fd < 0)
        return -1;
    set_name(&ifr, name);
    ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
    if (ioctl(fd, TUNSETIFF, &ifr) == 0)
        return gw_steal_fd(&fd);
    if (errno == EBUSY || errno == EINVAL)
        return gw_error_set(e, GW_E_EXISTS, "there is a network interface %s already", name);
    return gw_error_set_sys(e, errno, "make tap %s", name);
}

/* The host does not speak on a guest's port: no link-local address, no router solicitations.
 * Without IPv6, or with /proc/sys read-only, there is nothing to switch off or no way to do it. */
static void silence_ipv6(const char *name)
{
    gw_autoclose int fd = -1;
    char path[128];

    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "1", 1) < 0)
        return;
}

static int copy_mtu(int fd, const char *name, const char *bridge, struct gw_error *e)
{
    struct ifreq ifr;
    int mtu;

    set_name(&ifr, bridge);
    if (ioctl(fd, SIOCGIFMTU, &ifr) < 0)
        return gw_error_set_sys(e, errno, "read the MTU of bridge %s", bridge);
    mtu = ifr.ifr_mtu;
    set_name(&ifr, name);
    ifr.ifr_mtu = mtu;
    if (ioctl(fd, SIOCSIFMTU, &ifr) < 0)
        return gw_error_set_sys(e, errno, "set the MTU of tap %s to %d", name, mtu);
    return 0;
}

static int enslave(int fd, const char *name, const char *bridge, struct gw_error *e)
{
    struct ifreq ifr;

    set_name(&ifr, bridge);
    ifr.ifr_ifindex = (int)if_nametoindex(name);
    if (ioctl(fd, SIOCBRADDIF, &ifr) < 0)
        return gw_error_set_sys(e, errno, "add tap %s to bridge %s", name, bridge);
    return 0;
}

static int set_up(int fd, const char *name, struct gw_error *e)
{
    struct ifreq ifr;

    set_name(&ifr, name);
    if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
        return gw_error_set_sys(e, errno, "read the flags of tap %s", name);
    ifr.ifr_flags |= IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
        return gw_error_set_sys(e, errno, "set tap %s up", name);
    return 0;
}

int gw_tap_create(const char *name, const char *bridge, struct gw_error *e)
{
    gw_autoclose int control = -1, tap = -1;

    if (check_name(name, e) < 0 || check_name(bridge, e) < 0)
        return -1;
    control = open_control(e);
    if (control < 0 || require_bridge(control, bridge, e) < 0)
        return -1;
    tap = make_tap(name, e);
    if (tap < 0)
        return -1;
    silence_ipv6(name);
    if (copy_mtu(control, name, bridge, e) < 0 || enslave(control, name, bridge, e) < 0 ||
        set_up(control, name, e) < 0)
        return -1;
    /* The last step: until here, closing the descriptor takes the device away. */
    if (ioctl(tap, TUNSETPERSIST, 1) < 0)
        return gw_error_set_sys(e, errno, "make tap %s persistent", name);
    return 0;
}

/* Asks the kernel to delete a link; returns its errno, or 0. */
static int delete_link(unsigned index)
{
    gw_autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {
        .header = {.nlmsg_len = sizeof request,
                   .nlmsg_type = RTM_DELLINK,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .info = {.ifi_family = AF_UNSPEC, .ifi_index = (int)index},
    };
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[512]; /* the kernel quotes the request and may explain */
    } answer;
    ssize_t got;

    if (fd < 0 || send(fd, &request, sizeof request, 0) < 0)
        return errno;
    got = recv(fd, &answer, sizeof answer, 0);
    if (got < 0)
        return errno;
    if ((size_t)got < NLMSG_LENGTH(sizeof answer.error) || answer.header.nlmsg_type != NLMSG_ERROR)
        return EBADMSG;
    return -answer.error.error;
}

int gw_tap_delete(const char *name, struct gw_error *e)
{
    gw_autoclose int fd = -1;
    unsigned index;
    int error;

    if (check_name(name, e) < 0)
        return -1;
    index = if_nametoindex(name);
    if (index == 0)
        return 0;
    fd = open_control(e);
    if (fd < 0)
        return -1;
    if (!has_driver(fd, name, "tun"))
        return if_nametoindex(name)
                   ? gw_error_set(e, GW_E_STATE, "%s is no tap: it is left alone", name)
                   : 0;
    error = delete_link(index);
    if (error && error != ENODEV)
        return gw_error_set_sys(e, error, "delete tap %s", name);
    return 0;
}

/* The tun driver says "iff:<tab>NAME" in fdinfo. */
int gw_tap_of_fd(pid_t pid, int fd, char ifname[IFNAMSIZ])
{
    char path[64], line[256];
    FILE *file;
    int rc = -1;

    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)pid, fd);
    file = fopen(path, "re");
    if (!file)
        return -1;
    while (rc < 0 && fgets(line, sizeof line, file))
        if (sscanf(line, "iff: %15s", ifname) == 1)
            rc = 0;
    fclose(file);
    return rc;
}
