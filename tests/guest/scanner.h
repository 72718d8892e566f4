/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that compares all memory, slowly for ever and at full speed on request. */
#ifndef GW_GUEST_SCANNER_H
#define GW_GUEST_SCANNER_H

#include <netinet/in.h>

#include "verdict.h"

#define GW_N_SCAN_REQUESTS 8u
#define GW_SCAN_ID_BYTES   33u

/* One request for a full scan, kept after its answer so that a repeated datagram
 * gets the same answer and not another scan. */
struct gw_scan_request {
    enum { GW_SCAN_FREE, GW_SCAN_WAITING, GW_SCAN_RUNNING, GW_SCAN_DONE } state;
    char id[GW_SCAN_ID_BYTES];
    struct sockaddr_in from; /* who asked last */
    uint64_t done_ns;
    char reply[1200];
};

struct gw_scanner {
    struct gw_pages *pages;
    struct gw_verdict *verdict;
    uint32_t rate_mb_per_s; /* of the continuous scan; 0: only on request; atomic */
    int fd;                 /* where answers go out; -1: nowhere */
    uint64_t n_passes;      /* whole ones, of either kind; atomic */
    uint64_t pass_done_ns;  /* end of the last one, 0 before the first; atomic */
    pthread_mutex_t lock;   /* guards the requests */
    pthread_cond_t wake;    /* on CLOCK_MONOTONIC */
    struct gw_scan_request requests[GW_N_SCAN_REQUESTS];
};

void gw_scanner_init(struct gw_scanner *scanner, struct gw_pages *pages, struct gw_verdict *verdict,
                     uint32_t rate_mb_per_s);

/* The thread's body; never returns. Prints "GUEST PASS …" after each pass. */
void *gw_scanner_run(void *scanner);

/* Asks for a full scan that begins after this call; the answer goes to `from` by scanner->fd.
 * A known id is not scanned again: the answer is repeated, or comes when it is there.
 * Returns 0, or 1 when too many are waiting. id has at most GW_SCAN_ID_BYTES - 1 bytes. */
int gw_scanner_request(struct gw_scanner *scanner, const char *id, const struct sockaddr_in *from);

/* One full scan in the caller's thread; returns the number of bad pages known after it. */
uint32_t gw_scanner_scan_once(struct gw_scanner *scanner);

#endif
