/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The story of one migration as the API, the CLI and the history show it: the JSON object of the
 * design page, put together while the migration runs.
 */
#ifndef GW_SHELL_RECORD_H
#define GW_SHELL_RECORD_H

#include <stdint.h>
#include <jansson.h>

#include "core/machine.h"
#include "host/freepages.h"

/* Moments of the blackout, on this node's monotonic clock; 0: not known. */
struct gw_blackout {
    uint64_t paused_ns;    /* the guest's last instruction on the source */
    uint64_t switch_ns;    /* the source QEMU was told to go on */
    uint64_t loaded_ns;    /* the destination QEMU had loaded everything */
    uint64_t sent_ns;      /* the source QEMU knew that */
    uint64_t verified_ns;  /* … and that its memory is the same; 0 too: nobody has looked */
    uint64_t commit_ns;    /* the destination had COMMIT and told QEMU to let the guest run */
    uint64_t runs_ns;      /* the guest's first instruction on the destination */
    uint64_t swap_ns;      /* not a moment: how long the swap of the owner record took */
    uint64_t locked_ns;    /* it held the locks of all its disks on RBD; 0 too: there are none */
    uint64_t lock_wait_ns; /* not a moment: the longest that one of its writes waited until then */
    uint64_t heard_ns;     /* its first frame came out of a tap there; 0 too: it said nothing */
    uint64_t uncertain_ns; /* how far the moments of the other node may be off */
};

struct gw_record {
    char from[64], to[64];
    const char *codec;       /* a literal */
    const char *route;       /* a literal */
    json_t *carrier;         /* its figures; NULL: another route */
    json_t *verify;          /* what verifying memory came to; NULL: it was not wanted */
    enum gw_hints hints;     /* what became of the guest's word on what it has free */
    uint64_t not_sent_bytes; /* of pages that were left out for it, at least */
    uint64_t begun_ns;       /* monotonic */
    int64_t begun_wall_ms;   /* Unix time */
    uint64_t ended_ns;       /* monotonic; 0 while it runs */
    char policy[64];         /* a policy's name */
    json_t *rounds;          /* arrays as in the JSON */
    json_t *decisions;
    json_t *phases;
    json_t *warnings;
    struct gw_blackout blackout;
};

void gw_record_init(struct gw_record *r, uint64_t now_ns);
void gw_record_fini(struct gw_record *r);

/* One more phase was entered; the one before took until now. */
void gw_record_phase(struct gw_record *r, enum gw_phase phase, uint64_t now_ns);

/* New figures from QEMU: a new round gets a row, the round that runs is brought up to date. */
void gw_record_progress(struct gw_record *r, const struct gw_progress *p, uint64_t now_ns);

/* decisions: an array of decision objects, borrowed; at_ms and phase are added to each. */
void gw_record_decisions(struct gw_record *r, const json_t *decisions, enum gw_phase phase,
                         uint64_t now_ns);

/* The whole object. A new reference. */
json_t *gw_record_to_json(const struct gw_record *r, const char *id, const char *vm,
                          const char *uuid, const struct gw_machine *m, uint64_t now_ns);

/* A Unix time in milliseconds as "2026-01-31T12:00:00Z". A new reference. */
json_t *gw_iso_time(int64_t wall_ms);

#endif
