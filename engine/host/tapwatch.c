/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "host/tapwatch.h"
#include "util/cleanup.h"

int gw_tapwatch_open(struct gw_tapwatch *w, const char *tap, struct gw_error *error)
{
    gw_autoclose int fd = -1;
    int on = 1;

    *w = GW_TAPWATCH_NONE;
    w->tap_index = (int)if_nametoindex(tap);
    if (!w->tap_index)
        return gw_error_set_sys(error, errno, "watch %s", tap);
    /* protocol 0: the socket receives nothing until it is bound to one */
    fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0)
        return gw_error_set_sys(error, errno, "watch %s", tap);
    w->fd = gw_steal_fd(&fd);
    return 0;
}

int gw_tapwatch_start(struct gw_tapwatch *w, struct gw_error *error)
{
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = w->tap_index,
    };

    if (w->fd < 0 || bind(w->fd, (struct sockaddr *)&address, sizeof address) < 0)
        return gw_error_set_sys(error, w->fd < 0 ? EBADF : errno, "watch a tap");
    return 0;
}

int gw_tapwatch_read(struct gw_tapwatch *w, uint8_t *buffer, size_t size, size_t *n_bytesp,
                     struct gw_error *error)
{
    struct sockaddr_ll from;
    socklen_t from_size;
    ssize_t n;

    do {
        from_size = sizeof from;
        n = w->fd < 0 ? -1 : recvfrom(w->fd, buffer, size, 0, (struct sockaddr *)&from, &from_size);
    } while (n >= 0 &&
             from.sll_pkttype != PACKET_OUTGOING); /* into the tap, not out of the guest */
    if (n < 0 && (w->fd < 0 || errno == EAGAIN))
        return 0;
    if (n < 0)
        return gw_error_set_sys(error, errno, "read the copies of a tap's frames");
    *n_bytesp = (size_t)n;
    return 1;
}

void gw_tapwatch_fini(struct gw_tapwatch *w)
{
    gw_cleanup_close(&w->fd);
    w->fd = -1;
}
