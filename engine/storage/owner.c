/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/owner.h"

#include <string.h>

bool gw_owner_uuid_ok(const char *uuid)
{
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

    for (size_t i = 0; i < sizeof shape - 1; i++) {
        bool hex = (uuid[i] >= '0' && uuid[i] <= '9') || (uuid[i] >= 'a' && uuid[i] <= 'f');

        if (shape[i] == 'x' ? !hex : uuid[i] != '-')
            return false; /* the NUL of a shorter one is neither */
    }
    return uuid[sizeof shape - 1] == '\0';
}

bool gw_owner_node_ok(const char *node)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t len = strnlen(node, GW_OWNER_NODE_MAX + 1);

    return len > 0 && len <= GW_OWNER_NODE_MAX && !strchr("-_.", node[0]) &&
           strspn(node, allowed) == len;
}

bool gw_owner_ok(const struct gw_owner *owner)
{
    return memchr(owner->uuid, '\0', sizeof owner->uuid) && gw_owner_uuid_ok(owner->uuid) &&
           gw_owner_node_ok(owner->node) && owner->epoch > 0;
}
