/* SPDX-License-Identifier: Apache-2.0 */
/* How a VM comes under this node's care: started from its file, or adopted from somebody else. */
#ifndef GW_SHELL_ENLIST_H
#define GW_SHELL_ENLIST_H

#include "shell/vm.h"

/* Starts a VM from its spec, which is taken, and lets it run. call->done has the VM, or the reason
 * with everything removed again; it may come before this returns. */
void gw_enlist_start(struct gw_daemon *daemon, struct gw_vm_spec *spec, struct gw_vm_call *call);

/*
 * Takes over the QEMU with this pid, whose QMP socket is at qmp_path. name: NULL for QEMU's own.
 * What could not be carried over to another node is refused by name, and then nothing about that
 * QEMU has changed.
 */
void gw_enlist_adopt(struct gw_daemon *daemon, const char *qmp_path, pid_t pid, const char *name,
                     struct gw_vm_call *call);

#endif
