/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM that the destination's QEMU takes from its host before it answers (a policy's
 * prefault), so that no write of the copy, nor of the guest after it, finds a page missing.
 *
 * QEMU writes to every page with threads of its own (qemu_prealloc_mem() in util/oslib-posix.c of
 * 10.0) and greets on QMP when they are done: a launch takes as long as that.
 */
#ifndef GW_HOST_PREFAULT_H
#define GW_HOST_PREFAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "host/vmspec.h"

/* For prealloc-threads: half of the processors, for the others have guests; from 1 to 16, of which
 * QEMU takes no more (MAX_MEM_PREALLOC_THREAD_COUNT in the same file). */
unsigned gw_prefault_threads(unsigned n_processors);

/* Whether a launch has to wait for it: wanted, or in the VM's own arguments to QEMU. */
bool gw_prefault_happens(const struct gw_vm_spec *spec, bool wanted);

/*
 * How much longer than another a launch may take then, 0 for one without: 16 s for each GiB. One
 * thread on a busy machine where page faults are expensive was seen to need 6 s for each.
 */
uint64_t gw_prefault_limit_ns(const struct gw_vm_spec *spec, bool wanted);

#endif
