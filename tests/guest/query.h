/* SPDX-License-Identifier: Apache-2.0 */
/* The UDP port where tests ask the guest, and the one that counts packets sent to it.
 * One request a datagram, one line of JSON as its answer; the words are in README.md. */
#ifndef GW_GUEST_QUERY_H
#define GW_GUEST_QUERY_H

#include "disk.h"
#include "scanner.h"
#include "settings.h"
#include "ticker.h"
#include "writer.h"

/* Numbered packets (as the ticker sends them) that came in, since the last flow began:
 * another sender, or number 0. */
#define GW_RX_WINDOW 4096u /* numbers: what comes twice within it is told from what comes late */

struct gw_rx {
    struct sockaddr_in from;
    uint64_t n_packets;
    uint64_t n_missing; /* numbers between first and highest that did not come, or not yet */
    uint64_t n_late;    /* came after a higher number, or twice */
    uint64_t next;      /* highest number + 1 */
    uint64_t last_ns;
    uint64_t max_gap_ns; /* between two arrivals */
    uint64_t seen[GW_RX_WINDOW / 64];
};

struct gw_query {
    const struct gw_settings *settings;
    struct gw_pages *pages;
    struct gw_verdict *verdict;
    struct gw_writer *writer;
    struct gw_scanner *scanner;
    struct gw_ticker *ticker;
    struct gw_disk *disk; /* NULL: none */
    int fd;               /* query socket, bound */
    int rx_fd;            /* receive socket, bound, non-blocking */
    struct gw_rx rx;
};

/* Serves both sockets in the caller's thread; never returns. */
void gw_query_run(struct gw_query *query) __attribute__((noreturn));

#endif
