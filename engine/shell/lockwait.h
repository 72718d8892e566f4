/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the guest's first writes wait while the locks of its disks on RBD go over to this node.
 *
 * librbd asks for a lock with the first write that needs it, and says so to nobody but the other
 * librbds. What the guest feels of it is the time that this write takes, and QEMU counts that: with
 * block-latency-histogram-set (QEMU 4.0) each write of a device falls into one of the bins, here
 * of a millisecond each. The highest one that is not empty has the hand-over and the write itself.
 */
#ifndef GW_SHELL_LOCKWAIT_H
#define GW_SHELL_LOCKWAIT_H

#include "shell/qmp_batch.h"
#include "shell/vm.h"

/* Adds the commands that make QEMU count, for at most 8 disks; none for an adopted VM, whose
 * devices have names of somebody else's. */
void gw_lockwait_arm(struct gw_qmp_batch *batch, const struct gw_vm *vm);

/* The longest that a write to one of them took, up to a millisecond too much; from the reply to
 * query-blockstats. 0: none was counted, or one took more than GW_LOCKWAIT_MAX_MS. */
uint64_t gw_lockwait_longest_ns(const json_t *blockstats);

enum { GW_LOCKWAIT_MAX_MS = 200 };

#endif
