/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `godwit resolve`: what is known of a guest whose move was left open, and the safe ways out. The
 * rules are core/resolve.h's; this file asks the store and the other node, and carries out.
 */
#ifndef GW_SHELL_RESOLVE_H
#define GW_SHELL_RESOLVE_H

#include "core/resolve.h"
#include "shell/daemon.h"

struct gw_resolve_request {
    const char *vm;                /* a name of this node's, or any uuid */
    enum gw_resolve_action action; /* GW_RESOLVE_ACTION_MAX: only look */
    const char *dead;              /* a node that certainly runs no QEMU; may be NULL */
    bool by_policy;                /* nobody says so, see gw_resolve_facts */
    const char
        *pool; /* of a guest that is not on this node: where its disks on RBD are; NULL: none */
    const char
        *image; /* of such a guest: one of its disks, "pool/image", instead of pool; or NULL */
};

/* Embed it. From the loop, once: json (borrowed) is what is known, after the action where there was
 * one; NULL with *error. */
struct gw_resolve_call {
    void (*done)(struct gw_resolve_call *call, json_t *json, const struct gw_error *error);
};

/* May call done before it returns. What the request points to is copied. */
void gw_resolve_start(struct gw_daemon *d, const struct gw_resolve_request *request,
                      struct gw_resolve_call *call);

/* Another node asks what is here of a guest; takes the connection. body is untrusted. */
void gw_resolve_answer(struct gw_daemon *d, struct gw_peer_conn *conn, const json_t *body);

#endif
