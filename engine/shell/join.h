/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a node becomes one: with a token it connects to the node that made it, sends
 *
 *     JOIN   {name, address, port, migration_address, csr}
 *
 * and gets
 *
 *     JOINED {cert, ca, nodes[]}     or     JOINED {error{code, message, hint}}
 *
 * The inviter checks everything, uses the token up, and only then signs. A mistake that is found
 * by the checks (a name that is taken) leaves the token good.
 */
#ifndef GW_SHELL_JOIN_H
#define GW_SHELL_JOIN_H

#include <event2/event.h>

#include "godwit/error.h"
#include "shell/nodes.h"
#include "shell/peer.h"

/* The inviter's side; one for a daemon. */
struct gw_join_server;

struct gw_join_listener {
    /* The node is in the address book now; the others have yet to be told. */
    void (*joined)(struct gw_join_listener *self, const struct gw_node *node);

    /* Somebody with a good token was turned away. For the log. address as in gw_peer_acceptor. */
    void (*refused)(struct gw_join_listener *self, const char *address,
                    const struct gw_error *error);
};

/* dir is copied; nodes and listener are borrowed and must outlive it. NULL when out of memory. */
struct gw_join_server *gw_join_server_new(const char *dir, struct gw_nodes *nodes,
                                          struct gw_join_listener *listener);

/* Drops the joins under way. NULL is fine. */
void gw_join_server_free(struct gw_join_server *server);

/* Takes an accepted connection for which gw_peer_conn_is_join() is true, from inside accept(). */
void gw_join_serve(struct gw_join_server *server, struct gw_peer_conn *conn);

/* The joiner's side. */
struct gw_join;

struct gw_join_handler {
    /* Exactly once: error is NULL if this node has its identity and its address book now. The join
     * can be freed here, and must be at some time; error goes with it. */
    void (*done)(struct gw_join_handler *self, const struct gw_error *error);
};

struct gw_join_args {
    struct event_base *base;
    const char *dir;                       /* state directory */
    const char *token;                     /* text form */
    const char *name;                      /* who this node wants to be */
    const char *address;                   /* where the others shall reach it */
    uint16_t port;                         /* the same */
    const char *migration_address;         /* NULL or "": address */
    const char *bind_address;              /* connect from here; NULL: the kernel chooses */
    struct gw_nodes *nodes;                /* filled and written at the end; outlives the join */
    struct gw_join_handler *handler;       /* outlives the join */
    const struct gw_peer_options *options; /* NULL: gw_peer_defaults */
};

/* 0 and *joinp, and done() comes later; or -1 with *error and no done(): GW_E_USAGE for a bad
 * token, name or address, GW_E_EXISTS where the node has an identity already. */
int gw_join_start(const struct gw_join_args *args, struct gw_join **joinp, struct gw_error *error);

/* Gives up if it is still under way, without done(). NULL is fine. */
void gw_join_free(struct gw_join *join);

#endif
