/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which way the pages go when nobody has said: over QEMU's own connections, or by the carrier.
 *
 * The carrier spends processor time to send fewer bytes. So it pays where the link is what limits
 * the move, and half of the node's processors can encode pages faster than the link takes them; the
 * other half is QEMU's and the guest's. On a faster link QEMU alone is at least as good
 * (docs/carrier.md, "Measured"). What the link does is what one TLS connection between the two
 * daemons does, so a link that seems faster than GW_ROUTE_FAST_BYTES may be any faster.
 *
 * The model knows nothing of the guest: how fast it writes, and whether what it has compresses.
 *
 * Pure: no I/O.
 */
#ifndef GW_HOST_ROUTE_H
#define GW_HOST_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#define GW_ROUTE_FAST_BYTES UINT64_C(180000000) /* a second; 1 Gbit/s is 125 MB/s at most */

struct gw_route_inputs {
    uint64_t link_bytes_per_s;  /* measured; 0: not known */
    uint64_t limit_bytes_per_s; /* asked for; 0: none */
    uint64_t codec_bytes_per_s; /* zstd, level 1, one processor; 0: not known */
    unsigned n_processors;      /* that the daemon may use */
    bool multifd;               /* the source's QEMU has it */
    bool all_pages;             /* host/negotiate.h */
};

/* Whether it is the carrier; *becausep is why, a literal. */
bool gw_route_is_carrier(const struct gw_route_inputs *inputs, const char **becausep);

#endif
