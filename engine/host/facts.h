/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts: what a node knows about itself, about a VM that it runs and about the disks of a VM that
 * it is to take over, as plain JSON that two nodes exchange and preflight.h compares.
 *
 * Of the source:      node, boot_id, name, uuid, memory_bytes, machine (resolved: "pc-q35-10.0"),
 *                     accel, qemu_version ("10.0.2"), cpu_model, cpu_features, blocked_reasons[],
 *                     disks[], bridges[] (that the VM needs), capabilities[], ram_backends (how
 *                     many hold its memory; absent: not known), guest_runs
 * Of the destination: node, boot_id, qemu_version, machines[], accels[] (that work: "kvm", "tcg"),
 *                     mem_available_bytes, mem_reserved_bytes, cpu_features (of the same model
 *                     there), disks[] (the same paths), bridges[] (that exist), vms[{name, uuid}],
 *                     capabilities[]
 *
 * cpu_features is {"sse4.1": true, …}: only those that are on, in gw_facts_cpu_features()'s
 * spelling. capabilities are names as in query-migrate-capabilities. A disk is as
 * gw_facts_disk() or gw_facts_rbd() makes it. Nothing here talks to QMP.
 */
#ifndef GW_HOST_FACTS_H
#define GW_HOST_FACTS_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "godwit/error.h"

enum gw_facts_side { GW_FACTS_SOURCE, GW_FACTS_DESTINATION };

/* {node, boot_id, kernel, mem_available_bytes, bridges[]} of this node, now. A new reference. */
json_t *gw_facts_host(const char *node, struct gw_error *e);

/* The id of this boot of the kernel (36 characters), the same in every container of a machine. */
int gw_facts_boot_id(char out[37], struct gw_error *e);

/* MemAvailable: what can be had without swapping. */
int gw_facts_mem_available(uint64_t *bytesp, struct gw_error *e);

/*
 * The version of a QEMU binary ("10.0.2"), by running it with --version: 12 ms here, killed after
 * 5 s. Blocks; QMP's greeting says the same of a QEMU that runs already.
 */
int gw_facts_qemu_version(const char *qemu, char out[32], struct gw_error *e);

/*
 * Of a file or block device: {kind: "file"|"block"|"other", path, format, read_only, exists,
 * error?, readable, writable (by us), size_bytes, inode, device ("major:minor", of the file
 * system or of the block device itself), fs, shared, probed_format, serial?}. What does not exist
 * or cannot be looked at has exists: false and error. format is what QEMU was or will be told;
 * probed_format is what the first bytes look like, where they can be read. inode is the kernel's
 * 64 bits, possibly negative here. serial names a block device across hosts. A new reference; NULL
 * only without memory or if path or format is not UTF-8. Blocks as long as the file system does.
 */
json_t *gw_facts_disk(const char *path, const char *format, bool read_only);

/* Of an RBD image ("pool/image"), before its cluster was asked: {kind: "rbd", path, format,
 * read_only, exists: true, opened}. opened: how many QEMUs of this VM on this node have it open for
 * writing, so many watchers are ours: 1 where the guest is or is awaited, otherwise 0. */
json_t *gw_facts_rbd(const char *image, const char *format, bool read_only, unsigned n_opened);

/*
 * Adds what the cluster said to the facts of such a disk: answer is what gw_rbd_facts() came back
 * with, or NULL, and then *error is why (exists becomes false). Both are only looked at.
 */
void gw_facts_rbd_answer(json_t *disk, const json_t *answer, const struct gw_error *error);

/* The name of a file system from statfs(2)'s f_type ("nfs", "ext4", else hexadecimal), and whether
 * several hosts can have it mounted at once. */
const char *gw_facts_fs_name(uint64_t type, char buffer[24], bool *sharedp);

/*
 * From the props of query-cpu-model-expansion (type full): the CPU features that are on. QEMU
 * reports each under all its spellings (sse4.1, sse4-1, sse4_1; nx and xd) and among properties
 * that are no features; here each stands once, in the first spelling. A new reference.
 */
json_t *gw_facts_cpu_features(const json_t *props);

/* From the return of query-machines: the names, aliases included. A new reference. */
json_t *gw_facts_machines(const json_t *machines);

/*
 * Whether a value from outside is fit to be worked with: at most 6 deep, 4096 members in each
 * array or object, strings (keys too) of at most 4096 bytes without control characters.
 * GW_E_PROTOCOL.
 */
int gw_facts_sane(const json_t *json, struct gw_error *e);

/* Whether a peer's facts have everything of the list above with the right type. GW_E_PROTOCOL. */
int gw_facts_check(const json_t *facts, enum gw_facts_side side, struct gw_error *e);

#endif
