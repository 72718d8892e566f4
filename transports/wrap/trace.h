/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace+…: remembers what happens on all lanes of a transport, for gw_transport_ops.read_trace.
 *
 * Keys: events (so many are kept until they are read, the oldest go first; 4096).
 */
#ifndef GW_TRANSPORTS_TRACE_H
#define GW_TRANSPORTS_TRACE_H

#include "godwit/transport.h"
#include "transports/uri.h"

int gw_trace_new(struct gw_uri *uri, struct gw_transport *next, struct gw_transport **transportp,
                 struct gw_error *error);

#endif
