/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem://NAME: lanes within one process, for tests and the simulator.
 *
 * Two transports of one hub meet by name. Nothing of the system is involved but an eventfd for each
 * end, so what a lane does depends on the order of the calls alone.
 *
 * Keys: buffer (bytes a direction that are on their way at most; 64 KiB).
 */
#ifndef GW_TRANSPORTS_MEM_H
#define GW_TRANSPORTS_MEM_H

#include "godwit/transport.h"
#include "transports/uri.h"

int gw_mem_new(struct gw_uri *uri, const struct gw_transport_env *env,
               struct gw_transport **transportp, struct gw_error *error);

#endif
