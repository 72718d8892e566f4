/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that the guest has free and that therefore do not move.
 *
 * A guest whose driver of a virtio-balloon knows VIRTIO_BALLOON_F_FREE_PAGE_HINT is asked by QEMU,
 * whenever a round begins, what it has free, and QEMU takes those pages out of what is still to be
 * sent. QEMU does so by itself and has no command against it. It leaves it out where the capability
 * postcopy-ram is on, which up to 10.0 excludes multifd (virtio_balloon_free_page_hint_notify() in
 * hw/virtio/virtio-balloon.c, migrate_caps_check() in migration/options.c).
 *
 * What such a page holds at the destination is arbitrary: the memories of source and destination
 * are then not the same, and nobody outside of QEMU knows where they may differ. So where all
 * memory is to be compared (--verify) the hints must be off.
 *
 * Pure: no I/O.
 */
#ifndef GW_HOST_FREEPAGES_H
#define GW_HOST_FREEPAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

enum gw_hints {
    GW_HINTS_UNKNOWN,
    GW_HINTS_NONE, /* no such device, or no driver in the guest that knows of hints */
    GW_HINTS_OFF,  /* the guest would give them, but QEMU must not ask */
    GW_HINTS_ON,
};

/* "none", "off", "on"; NULL for GW_HINTS_UNKNOWN. */
const char *gw_hints_name(enum gw_hints hints);

/* The QOM path of the balloon in QEMU's reply to x-query-virtio (7.2 and newer); NULL: it has none.
 * Borrowed from the reply, which may be anything. */
const char *gw_hints_find_balloon(const json_t *devices);

/* Whether the guest's driver gives hints, by the reply to x-query-virtio-status of that path, which
 * may be anything. GW_HINTS_UNKNOWN, _NONE or _ON. */
enum gw_hints gw_hints_of(const json_t *status);

/* QEMU's own figures at one moment, as query-migrate has them. */
struct gw_hints_sample {
    uint64_t total_bytes, remaining_bytes;
    uint64_t n_sent_pages;   /* normal and duplicate ones, in all rounds */
    uint64_t n_unseen_pages; /* in a round, at most so many are neither remaining nor counted yet */
    uint32_t page_bytes;
    uint32_t round; /* dirty-sync-count */
};

/*
 * How many bytes of the guest's pages the first round left out, at least. QEMU does not count them,
 * but in the first round each page is still to be sent, was sent, or was left out; later rounds
 * send pages again, so that all that was sent so far is too much to subtract: a lower bound, too.
 * Returns the largest that any sample shows: *not_sent_bytesp or more.
 */
uint64_t gw_hints_not_sent(const struct gw_hints_sample *sample, uint64_t not_sent_bytes);

#endif
