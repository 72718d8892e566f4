/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3 for whole pages. On x86 the library takes the widest instructions that the processor has;
 * compiled into this program it would have those that all processors have. */
#ifndef GW_FLOW_HASH_H
#define GW_FLOW_HASH_H

#define XXH_STATIC_LINKING_ONLY /* the state's size */
#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#endif

#endif
