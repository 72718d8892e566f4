/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp://ADDRESS:PORT: one TCP connection a lane, under mutual TLS 1.3 unless told otherwise.
 *
 * A lane is TCP, then TLS, then a hello and its answer (transports/hello.h), all within `connect`.
 *
 * Keys:
 *   source   addresses to connect from; lane i takes number i modulo their count
 *   plain    yes: no TLS, so neither secrecy nor proof of who sent what: for a network that is
 *            trusted. Both sides must say so. Default no
 *   ktls     no: never let the kernel do TLS. Default yes: where OpenSSL and the kernel can
 *   connect  until a lane is open, and a stranger's time at the listener; 5s
 *   timeout  a lane fails when the peer's kernel has confirmed nothing for so long although there
 *            was something to confirm. It also fails when the peer has received nothing for so
 *            long (its window stays shut): the kernel does not tell the two apart. 20s
 *   unsent   bytes in the socket that are not on the wire yet (TCP_NOTSENT_LOWAT); 128KiB
 *   rcvbuf   bytes that wait for the reader at most, about (SO_RCVBUF). 0: as the kernel likes, up
 *            to many megabytes. 1MiB, but 0 where that is above net.core.rmem_max and we are not
 *            privileged to exceed it
 *   sndbuf   SO_SNDBUF; 0, the default: as large as the connection needs
 *
 * What a sender can have handed over without the receiver having taken it is about rcvbuf + unsent.
 */
#ifndef GW_TRANSPORTS_TCP_H
#define GW_TRANSPORTS_TCP_H

#include "godwit/transport.h"
#include "transports/uri.h"

int gw_tcp_new(struct gw_uri *uri, const struct gw_transport_env *env,
               struct gw_transport **transportp, struct gw_error *error);

#endif
