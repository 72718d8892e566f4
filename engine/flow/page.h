/* SPDX-License-Identifier: Apache-2.0 */
/* The unit in which the carrier thinks: QEMU's target page, which is 4 KiB on x86. */
#ifndef GW_FLOW_PAGE_H
#define GW_FLOW_PAGE_H

#include <stdbool.h>
#include <string.h>

#define GW_PAGE_SHIFT 12
#define GW_PAGE_BYTES (1u << GW_PAGE_SHIFT)

/* Whether all of a page is zero. Mostly decided by its first bytes. */
static inline bool gw_page_is_zero(const unsigned char *page)
{
    return page[0] == 0 && memcmp(page, page + 1, GW_PAGE_BYTES - 1) == 0;
}

#endif
