/* SPDX-License-Identifier: Apache-2.0 */
/* What vm.c (a QEMU's life and end) and vm_launch.c (its begin) share. */
#ifndef GW_SHELL_VM_PRIVATE_H
#define GW_SHELL_VM_PRIVATE_H

#include "shell/vm.h"

/* In the daemon's list, without a process. Takes spec. */
struct gw_vm *gw_vm_new(struct gw_daemon *daemon, struct gw_vm_spec *spec);

/* Of vm->process. 0; -1 if memory is short. */
int gw_vm_watch_process(struct gw_vm *vm);

/* Whether it can be talked to is seen later: the launch call ends then. 0; -1 with *error. */
int gw_vm_open_qmp(struct gw_vm *vm, struct gw_error *error);

/* QEMU has ended, or never came up: whoever waits or watches is told, then the VM is gone. */
void gw_vm_finish(struct gw_vm *vm, const struct gw_error *error);

#endif
