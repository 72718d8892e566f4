/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `godwit vm resume`: lets a paused guest run, if its owner record allows that.
 *
 * Whether a migration is known to have left open who runs it (struct gw_vm, contested) is not all
 * that counts: what this node remembers may be older than the record. So the record is read first,
 * and what it forbids is what `godwit resolve --resume` would refuse (core/resolve.h). A guest that
 * never had a record is resumed.
 */
#ifndef GW_SHELL_RESUME_H
#define GW_SHELL_RESUME_H

#include "shell/vm.h"

/* call->done comes exactly once, perhaps before this returns; its vm is NULL. */
void gw_resume_start(struct gw_vm *vm, struct gw_vm_call *call);

#endif
