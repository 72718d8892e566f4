/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory of guests: files that nobody else can open by a name, and whether the kernel gives
 * huge pages to them. */
#ifndef GW_UTIL_SHMEM_H
#define GW_UTIL_SHMEM_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A memfd of that many bytes, all holes, whose size nobody can change any more: who maps it is safe
 * from SIGBUS. The caller's, close-on-exec; -errno.
 */
int gw_shmem_new(uint64_t n_bytes);

/*
 * Whether shared memory that is mapped at multiples of 2 MiB and asks for huge pages (madvise(2),
 * MADV_HUGEPAGE; QEMU always does) is given some, by /sys/kernel/mm/transparent_hugepage/
 * shmem_enabled as it is now. The kernel's own default is never. False where it is not known.
 */
bool gw_shmem_huge_pages(void);

/* The same, of what stands in that file: "always within_size [advise] never deny force". */
bool gw_shmem_parse_enabled(const char *text);

#endif
