/* SPDX-License-Identifier: Apache-2.0 */
/* What the choice of a route needs to know (host/route.h), measured and kept for a while. */
#ifndef GW_SHELL_ROUTING_H
#define GW_SHELL_ROUTING_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "host/negotiate.h"

#define GW_ROUTING_PEERS   16
#define GW_ROUTING_KEEP_NS UINT64_C(60000000000) /* a link is measured again after it */

/* All zero knows nothing. The fields are private. */
struct gw_routing {
    uint64_t codec_bytes_per_s;
    struct {
        char peer[64];
        uint64_t bytes_per_s, at_ns;
    } link[GW_ROUTING_PEERS];
    unsigned next; /* the one that is overwritten when there are too many */
};

/* What one processor makes of pages in a second, with zstd at level 1: half of each page noise,
 * half repeated. By the thread's own time, so that others who use the processors do not count.
 * Takes 4 ms at the first call. 0: it could not be measured. */
uint64_t gw_routing_codec(struct gw_routing *routing);

/* What the link to this peer does, as learned no longer ago than that. False: it is not known. */
bool gw_routing_link(const struct gw_routing *routing, const char *peer, uint64_t now_ns,
                     uint64_t *bytes_per_sp);
void gw_routing_learn(struct gw_routing *routing, const char *peer, uint64_t now_ns,
                      uint64_t bytes_per_s);

/*
 * The route to this peer, which was measured if it could be, for a VM with this spec (JSON) and
 * these facts of its source (shell/inspect.h). true: the carrier. *inputsp (a new reference) and
 * *becausep are for the decision's record.
 */
bool gw_routing_choose(struct gw_routing *routing, const char *peer, const json_t *facts,
                       const struct gw_native_wishes *wishes, json_t **inputsp,
                       const char **becausep);

#endif
