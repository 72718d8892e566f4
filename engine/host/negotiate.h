/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both QEMUs can do, and what a migration on QEMU's own route will use of it.
 *
 * Both nodes run this on the same input and so come to the same answer: the destination when
 * PREPARE arrives, the source when PREPARED does.
 *
 * Source of the names: qapi/migration.json of QEMU 8.2 to 10.0. A capability that the table here
 * does not know is switched off: nobody asked for it.
 */
#ifndef GW_HOST_NEGOTIATE_H
#define GW_HOST_NEGOTIATE_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "godwit/error.h"

/* What the person or the policy asked for. */
struct gw_native_wishes {
    uint64_t bandwidth_bytes_per_s; /* 0: as fast as it goes */
    uint32_t blackout_ms;           /* QEMU's downtime-limit, 1 to 2000000 */
    uint32_t channels;              /* of multifd, 1 to 64 */
    bool zstd;                      /* compress with zstd */
    /* These are no wishes: gw_native_settle() says them. They stay at the source. */
    bool auto_channels, auto_codec;
    uint32_t zstd_level; /* 1 to 20 */
    bool carrier;   /* QEMU's stream goes through the carrier, which sees to codec and bandwidth */
    bool verify;    /* both memories are compared before the commit: nothing of QEMU's */
    bool all_pages; /* also those that the guest has free: see host/freepages.h. Costs multifd */
    uint32_t fence_after_s; /* 0 to 3600, see shell/fence.h; 0: never */
    bool prefault;          /* the destination's QEMU is started as host/prefault.h says */
};

/*
 * Settles zstd and channels where they are auto, once the route is known and before the peer hears
 * of the wishes.
 *
 * On the carrier's route zstd is allowed: flow/pace.h then chooses codec and level of each batch,
 * none included, so it costs nothing where it gains nothing. QEMU compresses all of a move with one
 * level, as fast as its threads can, whatever the link takes: not unless asked for.
 *
 * Where pages are encoded there are two channels, each with a thread for that. Where QEMU sends
 * them as they are, one is about as fast (docs/carrier.md, "plain"), and safer: with several
 * QEMU 10.0.2 can hang for ever when one breaks within the switchover (shell/stop_copy.h).
 */
void gw_native_settle(struct gw_native_wishes *wishes);

/* One side's reply to query-migrate-capabilities and query-migrate-parameters. */
struct gw_native_offer {
    const json_t *capabilities;
    const json_t *parameters;
};

/* What a node's facts have of it, borrowed; absent members are NULL. facts may be NULL. */
struct gw_native_offer gw_native_offer_of(const json_t *facts);

struct gw_native_terms {
    json_t *capabilities; /* arguments of migrate-set-capabilities for the side that asked */
    json_t *parameters;   /* arguments of migrate-set-parameters for the side that asked */
    json_t *decisions;    /* array of {rule, inputs, chosen, instead_of, because} */
    bool multifd;
    bool zstd;         /* QEMU compresses */
    const char *codec; /* of the route, for the record: "none" or "zstd" */
    bool zero_pages;   /* zero pages travel on the multifd channels */
};

/*
 * Fills *terms for one side. Returns 0, or -1 with *error: GW_E_INCOMPATIBLE where one of the two
 * lacks what no safe migration can do without, GW_E_PROTOCOL where a reply is malformed. The
 * offers are borrowed.
 */
int gw_native_negotiate(const struct gw_native_offer *source,
                        const struct gw_native_offer *destination,
                        const struct gw_native_wishes *wishes, bool for_source,
                        struct gw_native_terms *terms, struct gw_error *error);

/* Arguments that put a QEMU back to its own defaults, for a source that does not know any more what
 * its QEMU had. New references. */
json_t *gw_native_default_capabilities(void);
json_t *gw_native_default_parameters(void);

/* Idempotent. */
void gw_native_terms_fini(struct gw_native_terms *terms);

/* A new decision object {rule, inputs, chosen, instead_of[], because}; inputs is stolen, instead_of
 * may be NULL. NULL when memory is short. */
json_t *gw_decision_new(const char *rule, json_t *inputs, const char *chosen,
                        const char *instead_of, const char *because);

#endif
