/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether TCP connections of another process still stand, and whether it reads them; asked of the
 * kernel (sock_diag(7)).
 *
 * Finding them goes through the whole table of sockets, which takes a millisecond where that is
 * large; looking at them again takes some microseconds. Neither blocks. It needs CAP_NET_ADMIN, and
 * sees the network namespace of the caller only.
 */
#ifndef GW_HOST_CONNS_H
#define GW_HOST_CONNS_H

#include <stdint.h>
#include <linux/inet_diag.h>

#define GW_CONNS_MAX 72u /* a main channel, and as many multifd channels as a policy may have */

/* All zero: none. */
struct gw_conns {
    uint8_t family;
    struct inet_diag_sockid ids[GW_CONNS_MAX];
    unsigned n;
};

/* Finds the established connections to host:port, an IP address in text. 0, or a negative errno,
 * and none is found. What is beyond GW_CONNS_MAX is passed over. */
int gw_conns_find(struct gw_conns *conns, const char *host, uint16_t port);

/* How many of those that were found are not established any more: the other side has closed or
 * reset them, or this one has. A negative errno: that is not known. */
int gw_conns_n_ended(const struct gw_conns *conns);

/*
 * How much has come over the established connections to this port of ours, host:port, that its
 * process has not read yet. 0, or a negative errno, and *n_bytesp is unchanged.
 */
int gw_conns_unread(const char *host, uint16_t port, uint64_t *n_bytesp);

/*
 * How much the processes here have written to the established connections to host:port that the
 * other side's kernel has not acknowledged. Returns as gw_conns_unread().
 */
int gw_conns_unacked(const char *host, uint16_t port, uint64_t *n_bytesp);

#endif
