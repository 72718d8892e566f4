/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a QEMU says of itself and of its guest, together with what its node knows: the facts that
 * host/preflight.h compares.
 *
 * Besides what is listed there: offer {capabilities, parameters}, QEMU's replies, for
 * host/negotiate.h; guest_runs, whether the guest runs now; and free_page_hints, at the source,
 * whether the guest gives them (host/freepages.h), or null.
 */
#ifndef GW_SHELL_INSPECT_H
#define GW_SHELL_INSPECT_H

#include <stdbool.h>
#include <jansson.h>

#include "godwit/error.h"
#include "host/vmspec.h"
#include "shell/ceph.h"
#include "shell/hints.h"
#include "shell/qmp_batch.h"

struct gw_vm;
struct gw_daemon;

struct gw_inspect {
    /* Exactly once, from the loop; facts are borrowed, NULL on error. */
    void (*done)(struct gw_inspect *inspect, json_t *facts, const struct gw_error *error);
    struct gw_vm *vm;
    json_t *disks; /* what is known of its disks already; the caller's. NULL: look at them */
    struct gw_qmp_batch batch;
    struct gw_hints_ask hints;
    struct gw_ceph_ask ask; /* about disks on RBD, when QEMU has answered */
    json_t *facts;          /* meanwhile; ours */
};

/* Zero it once before its first use. */
void gw_inspect_start(struct gw_inspect *inspect, struct gw_vm *vm,
                      void (*done)(struct gw_inspect *, json_t *, const struct gw_error *));

/* Forgets what is under way. Idempotent. */
void gw_inspect_fini(struct gw_inspect *inspect);

/* The bridges that a VM needs, as an array of names. A new reference. */
json_t *gw_inspect_bridges(const struct gw_vm_spec *spec);

/* Whether a reply to query-yank says that QEMU has connections of a migration. */
bool gw_inspect_has_channels(const json_t *yank);

/*
 * A destination's facts before it has a QEMU: what this node alone can say, with the version of the
 * QEMU that is installed, and for the rest what the source says, so that a comparison shows what
 * stands against the move already. Disks on RBD are listed and not asked about. A new reference.
 */
json_t *gw_inspect_early(struct gw_daemon *daemon, const struct gw_vm_spec *spec,
                         const json_t *source_facts);

#endif
