/* SPDX-License-Identifier: Apache-2.0 */
#include "host/prefault.h"

#include <string.h>

#define THREADS_MAX 16
#define NS_PER_MIB  UINT64_C(15625000) /* 64 MiB/s */

unsigned gw_prefault_threads(unsigned n_processors)
{
    unsigned n = n_processors / 2;

    if (n < 1)
        return 1;
    return n < THREADS_MAX ? n : THREADS_MAX;
}

/* -mem-prealloc, or prealloc=on of a memory backend; too much time does no harm. */
static bool names_prealloc(char *const *args, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(args[i], "prealloc"))
            return true;
    return false;
}

bool gw_prefault_happens(const struct gw_vm_spec *spec, bool wanted)
{
    return wanted || names_prealloc(spec->qemu_args, spec->n_qemu_args) ||
           names_prealloc(spec->adopted_argv, spec->n_adopted_argv);
}

uint64_t gw_prefault_limit_ns(const struct gw_vm_spec *spec, bool wanted)
{
    return gw_prefault_happens(spec, wanted) ? (spec->memory_bytes >> 20) * NS_PER_MIB : 0;
}
