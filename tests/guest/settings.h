/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest is told on the kernel command line: gw.KEY=VALUE. */
#ifndef GW_GUEST_SETTINGS_H
#define GW_GUEST_SETTINGS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gw_settings {
    char name[32];             /* gw.name: who the guest is, in STATUS */
    struct in_addr ip;         /* gw.ip=ADDRESS/PREFIX; 0.0.0.0: no network */
    struct in_addr netmask;    /* from the same */
    struct sockaddr_in udp;    /* gw.udp=ADDRESS:PORT; port 0: send nothing */
    uint64_t fill_bytes;       /* gw.fill; 0: half of what is free */
    uint64_t zero_bytes;       /* gw.zero: memory that is zero, or was a moment ago */
    uint64_t wss_bytes;        /* gw.wss: working set; 0: all of the fill */
    uint64_t free_bytes;       /* gw.free: memory that is filled with noise and given back */
    uint64_t seed;             /* gw.seed: makes the contents of two guests differ */
    unsigned n_write_bytes;    /* gw.bytes: written per page dirtied, 8..4080 */
    unsigned compress_percent; /* gw.compress: share of a page that is not random */
    unsigned rate_mb_per_s;    /* gw.rate: dirtied pages in 10^6 bytes/s; 0: idle */
    unsigned scan_mb_per_s;    /* gw.scan: of the continuous scan; 0: only on request */
    char root[32];             /* root=DEVICE, with the ext4 to go on from; "": stay here */
    uint64_t disk_bytes;       /* gw.disk: how much of the disk is written; 0: nothing */
    unsigned disk_writes;      /* gw.disk_rate: writes/s to it */
    uint16_t query_port;       /* gw.query: UDP port of the queries, 7501 */
    uint16_t rx_port;          /* gw.rx: UDP port that counts numbered packets, 7502 */
    bool balloon;              /* gw.balloon=1: the driver of a balloon is loaded */
    bool poweroff;             /* gw.mode=poweroff: one full scan, then off */
};

/* Reads a whole kernel command line. Words that do not start with "gw." belong to
 * the kernel, of which root= is read as well; an unknown gw. key or a value out of range is an
 * error. Returns 0, or -1 with a message in why[n_why]. */
int gw_settings_parse(struct gw_settings *settings, const char *cmdline, char *why, size_t n_why);

/* "64MiB", "4KiB", "1GiB" or plain bytes, at most 1 TiB. Returns 0 or -1. */
int gw_size_parse(const char *text, uint64_t *bytesp);

#endif
