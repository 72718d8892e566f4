/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preflight: would this VM run on that node? A comparison of facts (facts.h), without any I/O, so
 * that either node can make it and a test can make every case.
 *
 * Codes of findings. Errors: same-node, blocked, machine-unknown, qemu-older, qemu-broken, accel,
 * cpu-feature (one each), memory, disk-missing, disk-access, disk-local, disk-differs,
 * disk-unknown, disk-format, bridge-missing, name-taken, uuid-taken, capability-missing, facts.
 * Warnings: cpu-v2, cpu-unknown. Info: qemu-newer. Of disks on RBD see rbdcheck.h.
 */
#ifndef GW_HOST_PREFLIGHT_H
#define GW_HOST_PREFLIGHT_H

#include <stdint.h>
#include <jansson.h>

#include "host/findings.h"

/*
 * Compares the facts of a VM on its source with those of its destination, and appends what it
 * finds. Both should have passed gw_facts_check(); facts that have not are an error finding
 * ("facts"), and nothing is compared. Strings in the facts are only shown, never trusted.
 */
void gw_preflight_compare(const json_t *source, const json_t *destination,
                          struct gw_findings *findings);

/* The memory that a node must have free for a guest of this size: the guest's, 64 MiB for QEMU
 * itself, and 1/64 for its tables. */
uint64_t gw_preflight_memory_needed(uint64_t guest_bytes);

/* Compares "10.0.2" with "9.2": negative, 0 or positive like strcmp, by the first n parts. Missing
 * or malformed parts count as 0. */
int gw_preflight_compare_versions(const char *a, const char *b, unsigned n_parts);

#endif
