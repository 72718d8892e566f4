/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preflight of a disk on Ceph RBD: what both nodes' clusters said about the image
 * (storage/rbd.h: gw_rbd_facts(), put into the disk's facts by gw_facts_rbd_answer()).
 *
 * Codes of findings. Errors: disk-missing, disk-access, disk-differs, rbd-unreachable,
 * rbd-watcher, rbd-lock, rbd-full, rbd-health (data cannot be reached), rbd-features (one that the
 * destination's librbd does not know, non-primary, migrating; a snapshot as a writable disk).
 * Warnings: rbd-health, rbd-nearly-full, rbd-features (no exclusive-lock), disk-unchecked (only one
 * node asked). Info: disk-unchecked (none did).
 */
#ifndef GW_HOST_RBDCHECK_H
#define GW_HOST_RBDCHECK_H

#include <stdbool.h>
#include <jansson.h>

#include "host/findings.h"

struct gw_rbd_check {
    const json_t *here, *there; /* the disk's facts on source and destination; any JSON, or NULL */
    const char *source, *destination; /* names of the nodes */
    const char *vm;
};

/*
 * Compares them and appends what it finds; no I/O. Watchers and locks are judged by the
 * destination's list, which is the later one. They are told apart by the address from which the
 * cluster sees each node (client_address) and by how many QEMUs of the VM each node says to have
 * (opened): more watchers at a node than that, or one at neither node, are named and refused.
 */
void gw_rbd_check(const struct gw_rbd_check *check, struct gw_findings *findings);

/*
 * After a move, with `here` asked about when the source's QEMU had ended, and `there` as it was at
 * the beginning: who has it now. Warnings: rbd-watcher, rbd-lock (the source still has it open, or
 * holds its lock), disk-unchecked (the cluster did not say). Info: rbd-handed-over, with the lock's
 * owner, if nobody but the destination has it open. Nothing for a disk that only is read.
 */
void gw_rbd_check_handed_over(const struct gw_rbd_check *check, struct gw_findings *findings);

/* Whether a client's address ("10.0.0.1:0/123", "v2:[::1]:0/123") is at this numeric host. */
bool gw_rbd_is_at(const char *address, const char *host);

/*
 * Who has this disk, by its facts: addresses of watchers and lock owners at host are appended to
 * clients, each once. One that is neither there nor at the node that asked goes to *strangerp
 * (points into disk), which is left alone without any.
 */
void gw_rbd_clients_at(const json_t *disk, const char *host, json_t *clients,
                       const char **strangerp);

#endif
