/* SPDX-License-Identifier: Apache-2.0 */
/* What every store asks of an owner record before it is written or believed. */
#ifndef GW_STORAGE_OWNER_H
#define GW_STORAGE_OWNER_H

#include <stdbool.h>

#include "godwit/storage.h"

/* Whether this is a uuid as 8-4-4-4-12 lower-case hexadecimal digits. */
bool gw_owner_uuid_ok(const char *uuid);

/* Whether this may be a node's name: it never contains '/', nor begins with one of "-_.". */
bool gw_owner_node_ok(const char *node);

/* Whether uuid, node and epoch are legal. The arrays of owner need not be terminated. */
bool gw_owner_ok(const struct gw_owner *owner);

#endif
