/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's side of a migration: carries out what the destination's machine asks for. */
#ifndef GW_SHELL_INCOMING_H
#define GW_SHELL_INCOMING_H

#include "shell/migration.h"

/*
 * PREPARE has arrived on conn: body is borrowed and untrusted. Takes conn in any case; what is
 * wrong with the request is answered with FAILED.
 */
void gw_incoming_start(struct gw_daemon *daemon, struct gw_peer_conn *conn, const json_t *body);

/* QUERY has arrived on conn, which is taken: the source asks what became of its COMMIT. */
void gw_incoming_query(struct gw_daemon *daemon, struct gw_peer_conn *conn, const json_t *body);

#endif
