/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rate+…: a limit on what all lanes of a transport send together.
 *
 * A token bucket by its virtual clock: a lane reserves a share, 2 ms worth of bytes (at least 512),
 * and may send it when the clock has come there. So n lanes that all want to send take turns. Time
 * that passed without a reservation is good for 4 ms worth of bytes. Over t seconds at most
 * rate * (t + 4 ms) + n * share is sent.
 *
 * Keys: rate (bytes a second; 0, the default: no limit until gw_transport_ops.set_rate).
 */
#ifndef GW_TRANSPORTS_RATE_H
#define GW_TRANSPORTS_RATE_H

#include "godwit/transport.h"
#include "transports/uri.h"

/* The wrappers' next is theirs on success. */
int gw_rate_new(struct gw_uri *uri, struct gw_transport *next, struct gw_transport **transportp,
                struct gw_error *error);

#endif
