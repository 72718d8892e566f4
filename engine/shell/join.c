/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/join.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "shell/pki.h"
#include "util/cleanup.h"

/* --- the inviter ----------------------------------------------------------------------------- */

struct session {
    struct gw_peer_handler handler;
    struct gw_join_server *server;
    struct gw_peer_conn *conn;
    bool answered;
    TAILQ_ENTRY(session) link;
};

struct gw_join_server {
    char *dir;
    struct gw_nodes *nodes;
    struct gw_join_listener *listener;
    TAILQ_HEAD(, session) sessions;
};

static void free_session(struct session *session)
{
    TAILQ_REMOVE(&session->server->sessions, session, link);
    gw_peer_free(session->conn);
    free(session);
}

static int read_request(const json_t *body, struct gw_node *node, const char **csrp,
                        struct gw_error *error)
{
    json_error_t why;
    json_t *entry = json_copy((json_t *)body);
    int r;

    /* The date is the inviter's, whatever the joiner's clock says. */
    if (!entry || json_object_set_new(entry, "added_at", json_integer(gw_node_now_ms())) < 0) {
        json_decref(entry);
        return gw_error_set_sys(error, ENOMEM, "read the request");
    }
    r = gw_node_from_json(entry, node, error);
    json_decref(entry);
    if (r < 0)
        return -1;
    node->ca = false;
    if (json_unpack_ex((json_t *)body, &why, 0, "{ss}", "csr", csrp) < 0)
        return gw_error_set(error, GW_E_PROTOCOL, "the request to join: %s", why.text);
    return gw_pki_check_csr(*csrp, node->name, error);
}

/* A node that was set up anew may come back under its name, at its address: whoever invited it
 * wants that. Another one may not take the name over. */
static int check_name(const struct gw_nodes *nodes, const struct gw_node *node,
                      struct gw_error *error)
{
    const struct gw_node *known = gw_nodes_find(nodes, node->name);
    bool self = strcmp(node->name, gw_nodes_self(nodes)) == 0;

    if (!self &&
        (!known || (strcmp(known->address, node->address) == 0 && known->port == node->port)))
        return 0;
    gw_error_set(error, GW_E_EXISTS, "the cluster has a node %s already", node->name);
    return gw_error_hint(error, "choose another name; the token is still good");
}

static json_t *admit(struct session *session, const json_t *body, struct gw_node *node,
                     struct gw_error *error)
{
    struct gw_join_server *server = session->server;
    gw_autofree char *cert = NULL, *ca = NULL;
    const char *csr;
    json_t *list;

    if (read_request(body, node, &csr, error) < 0 || check_name(server->nodes, node, error) < 0)
        return NULL;
    if (gw_token_consume(server->dir, gw_peer_conn_token_id(session->conn), error) < 0)
        return NULL;
    if (gw_pki_sign_csr(server->dir, csr, node->name, &cert, &ca, error) < 0 ||
        gw_nodes_put(server->nodes, node, error) < 0)
        return NULL;
    list = gw_nodes_to_json(server->nodes);
    return list ? json_pack("{ss, ss, so}", "cert", cert, "ca", ca, "nodes", list) : NULL;
}

static json_t *refusal(const struct gw_error *e)
{
    return json_pack("{s{ss, ss, ss}}", "error", "code", gw_code_name(e->code), "message", e->msg,
                     "hint", e->hint);
}

static void on_join(struct gw_peer_handler *self, struct gw_peer_conn *conn, unsigned type,
                    json_t *body)
{
    struct session *session = gw_container_of(self, struct session, handler);
    struct gw_join_listener *listener = session->server->listener;
    struct gw_error e = {0};
    struct gw_node node;
    json_t *reply;

    (void)type; /* the connection carries no other */
    if (session->answered)
        return;
    session->answered = true;
    gw_error_set_sys(&e, ENOMEM, "admit the node");
    reply = admit(session, body, &node, &e);
    if (reply) {
        listener->joined(listener, &node);
    } else {
        listener->refused(listener, gw_peer_conn_where(conn), &e);
        reply = refusal(&e);
    }
    if (reply)
        gw_peer_send(conn, GW_WIRE_JOINED, reply, NULL);
    json_decref(reply);
    gw_peer_close(conn);
}

static void on_session_closed(struct gw_peer_handler *self, struct gw_peer_conn *conn,
                              const struct gw_error *error)
{
    struct session *session = gw_container_of(self, struct session, handler);
    struct gw_join_listener *listener = session->server->listener;

    if (error && !session->answered)
        listener->refused(listener, gw_peer_conn_where(conn), error);
    free_session(session);
}

struct gw_join_server *gw_join_server_new(const char *dir, struct gw_nodes *nodes,
                                          struct gw_join_listener *listener)
{
    struct gw_join_server *server = calloc(1, sizeof *server);

    if (!server)
        return NULL;
    TAILQ_INIT(&server->sessions);
    server->nodes = nodes;
    server->listener = listener;
    server->dir = strdup(dir);
    if (!server->dir) {
        free(server);
        return NULL;
    }
    return server;
}

void gw_join_server_free(struct gw_join_server *server)
{
    if (!server)
        return;
    while (!TAILQ_EMPTY(&server->sessions))
        free_session(TAILQ_FIRST(&server->sessions));
    free(server->dir);
    free(server);
}

void gw_join_serve(struct gw_join_server *server, struct gw_peer_conn *conn)
{
    struct session *session = calloc(1, sizeof *session);

    if (!session) {
        gw_peer_free(conn);
        return;
    }
    session->handler.message = on_join;
    session->handler.closed = on_session_closed;
    session->server = server;
    session->conn = conn;
    TAILQ_INSERT_TAIL(&server->sessions, session, link);
    gw_peer_set_handler(conn, &session->handler);
}

/* --- the joiner ------------------------------------------------------------------------------ */

struct gw_join {
    struct gw_peer_handler peer;
    struct gw_peer_conn *conn;
    struct gw_join_handler *handler;
    struct gw_nodes *nodes;
    struct gw_node self;
    char *dir;
    char *csr;
    bool answered; /* JOINED came: joined or error says how it went */
    bool joined;
    struct gw_error error;
};

static void on_ready(struct gw_peer_handler *peer, struct gw_peer_conn *conn)
{
    struct gw_join *join = gw_container_of(peer, struct gw_join, peer);
    json_t *body = json_pack("{ss, ss, si, ss, ss}", "name", join->self.name, "address",
                             join->self.address, "port", (int)join->self.port, "migration_address",
                             join->self.migration_address, "csr", join->csr);

    join->answered = !body || gw_peer_send(conn, GW_WIRE_JOIN, body, &join->error) < 0;
    if (!body)
        gw_error_set_sys(&join->error, ENOMEM, "ask to join");
    json_decref(body);
    if (join->answered)
        gw_peer_close(conn);
}

static int take_refusal(const json_t *body, const char *where, struct gw_error *error)
{
    const char *code, *message, *hint = "";
    enum gw_code number;

    if (json_unpack((json_t *)body, "{s{ss, ss, s?s}}", "error", "code", &code, "message", &message,
                    "hint", &hint) < 0)
        return gw_error_set(error, GW_E_PROTOCOL, "%s refused for no reason that can be read",
                            where);
    number = gw_code_from_name(code);
    if (number == GW_E_PERMISSION) /* another joiner was quicker with the same token */
        return gw_token_refused(where, error);
    gw_error_set(error, number == GW_OK ? GW_E_REFUSED : number, "%s refused: %s", where, message);
    return gw_error_hint(error, "%s", hint);
}

/* The certificate goes last: where it is there, all is. */
static int take_joined(struct gw_join *join, const json_t *body, struct gw_error *error)
{
    const char *where = gw_peer_conn_where(join->conn), *cert, *ca;
    json_error_t why;
    json_t *list;

    if (json_object_get(body, "error"))
        return take_refusal(body, where, error);
    if (json_unpack_ex((json_t *)body, &why, 0, "{ss, ss, so}", "cert", &cert, "ca", &ca, "nodes",
                       &list) < 0)
        return gw_error_set(error, GW_E_PROTOCOL, "the answer of %s: %s", where, why.text);
    join->self.added_at_ms = gw_node_now_ms();
    if (gw_nodes_set_self(join->nodes, join->self.name, error) < 0 ||
        gw_nodes_put(join->nodes, &join->self, error) < 0 ||
        gw_nodes_merge(join->nodes, list, error) < 0 ||
        gw_pki_install(join->dir, join->self.name, cert, ca, error) < 0)
        return gw_error_prefix(error, "the answer of %s", where);
    return 0;
}

static void on_joined(struct gw_peer_handler *peer, struct gw_peer_conn *conn, unsigned type,
                      json_t *body)
{
    struct gw_join *join = gw_container_of(peer, struct gw_join, peer);

    (void)type; /* the connection carries no other */
    if (join->answered)
        return;
    join->answered = true;
    join->joined = take_joined(join, body, &join->error) == 0;
    gw_peer_close(conn);
}

static void on_join_closed(struct gw_peer_handler *peer, struct gw_peer_conn *conn,
                           const struct gw_error *error)
{
    struct gw_join *join = gw_container_of(peer, struct gw_join, peer);

    (void)conn;
    if (!join->answered && error)
        join->error = *error;
    join->handler->done(join->handler, join->joined ? NULL : &join->error);
}

static int fill_self(struct gw_node *self, const struct gw_join_args *args, struct gw_error *error)
{
    const char *migration = args->migration_address ? args->migration_address : "";

    if (!gw_node_name_valid(args->name))
        return gw_error_set(error, GW_E_USAGE, "\"%.80s\" is not a node name", args->name);
    if (!gw_node_address_valid(args->address) || args->port == 0)
        return gw_error_set(error, GW_E_USAGE, "\"%.80s\" port %u is no address for a node",
                            args->address, args->port);
    if (*migration && !gw_node_address_valid(migration))
        return gw_error_set(error, GW_E_USAGE, "\"%.80s\" is no migration address", migration);
    snprintf(self->name, sizeof self->name, "%s", args->name);
    snprintf(self->address, sizeof self->address, "%s", args->address);
    snprintf(self->migration_address, sizeof self->migration_address, "%s", migration);
    self->port = args->port;
    return 0;
}

static int connect_with(struct gw_join *join, const struct gw_join_args *args,
                        const struct gw_token *token, struct gw_error *error)
{
    struct gw_peer_connect_args to = {
        .base = args->base,
        .address = token->address,
        .port = token->port,
        .bind_address = args->bind_address,
        .token = token,
        .handler = &join->peer,
        .options = args->options,
    };

    join->peer.ready = on_ready;
    join->peer.message = on_joined;
    join->peer.closed = on_join_closed;
    return gw_peer_connect(&to, &join->conn, error);
}

int gw_join_start(const struct gw_join_args *args, struct gw_join **joinp, struct gw_error *error)
{
    struct gw_join *join = calloc(1, sizeof *join);
    struct gw_token token;
    int r = -1;

    if (!join || !(join->dir = strdup(args->dir))) {
        gw_join_free(join);
        return gw_error_set_sys(error, ENOMEM, "join");
    }
    join->handler = args->handler;
    join->nodes = args->nodes;
    if (fill_self(&join->self, args, error) == 0 &&
        gw_token_parse(args->token, &token, error) == 0 &&
        gw_pki_make_key_and_csr(args->dir, args->name, &join->csr, error) == 0)
        r = connect_with(join, args, &token, error);
    OPENSSL_cleanse(&token, sizeof token);
    if (r < 0) {
        gw_join_free(join);
        return -1;
    }
    *joinp = join;
    return 0;
}

void gw_join_free(struct gw_join *join)
{
    if (!join)
        return;
    gw_peer_free(join->conn);
    free(join->dir);
    free(join->csr);
    free(join);
}
