/* SPDX-License-Identifier: Apache-2.0 */
/* Whole joins over real sockets: n1 invites, others come with its tokens. */
#include "cluster.h"

#include <signal.h>
#include <time.h>

#include "shell/join.h"
#include "shell/pki.h"
#include "util/cleanup.h"

struct inviter {
    char *dir;
    struct gw_pki pki;
    struct event_base *base;
    struct gw_nodes *nodes;
    struct gw_peer_acceptor acceptor;
    struct gw_join_listener listener;
    struct gw_peer_listener *socket;
    struct gw_join_server *server;
    unsigned n_joined, n_refused;
    struct gw_error refusal;
};

struct joiner {
    char *dir;
    struct gw_nodes *nodes;
    struct gw_join_handler handler;
    struct gw_join *join;
    unsigned n_done;
    bool ok;
    struct gw_error error;
};

static void on_accept(struct gw_peer_acceptor *self, struct gw_peer_conn *conn)
{
    struct inviter *inviter = gw_container_of(self, struct inviter, acceptor);

    assert_true(gw_peer_conn_is_join(conn));
    gw_join_serve(inviter->server, conn);
}

static void on_joined(struct gw_join_listener *self, const struct gw_node *node)
{
    struct inviter *inviter = gw_container_of(self, struct inviter, listener);

    assert_ptr_not_equal(gw_nodes_find(inviter->nodes, node->name), NULL);
    inviter->n_joined++;
}

static void on_refused(struct gw_join_listener *self, const char *address,
                       const struct gw_error *error)
{
    struct inviter *inviter = gw_container_of(self, struct inviter, listener);

    assert_contains(address, "127.0.0.1:");
    inviter->n_refused++;
    inviter->refusal = *error;
}

static int set_up(void **state)
{
    struct inviter *inviter = calloc(1, sizeof *inviter);
    struct gw_peer_listen_args args = {.address = "127.0.0.1", .acceptor = &inviter->acceptor};
    struct gw_node self = {.name = "n1", .address = "127.0.0.1", .port = 1, .ca = true};
    struct gw_error e;

    signal(SIGPIPE, SIG_IGN);
    inviter->dir = temp_dir();
    assert_done(gw_pki_init_ca(inviter->dir, "n1", &e), e);
    assert_done(gw_pki_load(inviter->dir, &inviter->pki, &e), e);
    assert_done(gw_nodes_open(inviter->dir, "n1", &inviter->nodes, &e), e);
    assert_done(gw_nodes_put(inviter->nodes, &self, &e), e);
    inviter->base = event_base_new();
    inviter->acceptor.accept = on_accept;
    inviter->listener.joined = on_joined;
    inviter->listener.refused = on_refused;
    inviter->server = gw_join_server_new(inviter->dir, inviter->nodes, &inviter->listener);
    args.base = inviter->base;
    args.ctx = inviter->pki.ctx;
    args.dir = inviter->dir;
    assert_done(gw_peer_listen(&args, &inviter->socket, &e), e);
    *state = inviter;
    return 0;
}

static int tear_down(void **state)
{
    struct inviter *inviter = *state;

    gw_peer_listener_free(inviter->socket);
    gw_join_server_free(inviter->server);
    event_base_free(inviter->base);
    gw_nodes_free(inviter->nodes);
    gw_pki_fini(&inviter->pki);
    remove_dir(inviter->dir);
    free(inviter);
    return 0;
}

static void on_done(struct gw_join_handler *self, const struct gw_error *error)
{
    struct joiner *joiner = gw_container_of(self, struct joiner, handler);

    joiner->n_done++;
    joiner->ok = !error;
    if (error)
        joiner->error = *error;
    gw_join_free(joiner->join);
    joiner->join = NULL;
}

static void init_joiner(struct joiner *joiner)
{
    struct gw_error e;

    *joiner = (struct joiner){.dir = temp_dir(), .handler = {on_done}};
    assert_done(gw_nodes_open(joiner->dir, NULL, &joiner->nodes, &e), e);
}

static void fini_joiner(struct joiner *joiner)
{
    gw_join_free(joiner->join);
    gw_nodes_free(joiner->nodes);
    remove_dir(joiner->dir);
}

static void invite(struct inviter *inviter, int64_t ttl_s, char text[GW_TOKEN_TEXT_MAX])
{
    struct gw_token t;
    struct gw_error e;

    assert_done(gw_token_make(inviter->dir, "127.0.0.1", gw_peer_listener_port(inviter->socket),
                              time(NULL) + ttl_s, &t, &e),
                e);
    gw_token_format(&t, text);
}

static void start(struct inviter *inviter, struct joiner *joiner, const char *name,
                  const char *address, const char *token)
{
    struct gw_join_args args = {
        .base = inviter->base,
        .dir = joiner->dir,
        .token = token,
        .name = name,
        .address = address,
        .port = 7400,
        .migration_address = "10.1.0.2",
        .nodes = joiner->nodes,
        .handler = &joiner->handler,
    };
    struct gw_error e;

    joiner->n_done = 0;
    assert_done(gw_join_start(&args, &joiner->join, &e), e);
    assert_int_equal(joiner->n_done, 0);
}

static void expect_refused(struct inviter *inviter, struct joiner *joiner, enum gw_code code,
                           const char *part)
{
    struct gw_pki pki = {0};

    run_until(inviter->base, &joiner->n_done, 1);
    assert_false(joiner->ok);
    assert_int_equal(joiner->error.code, code);
    assert_contains(joiner->error.msg, part);
    assert_int_equal(gw_pki_load(joiner->dir, &pki, NULL), -1);
    assert_int_equal(gw_nodes_count(joiner->nodes), 0);
}

static void a_node_joins(void **state)
{
    struct inviter *inviter = *state;
    char token[GW_TOKEN_TEXT_MAX];
    struct joiner joiner;
    const struct gw_node *node;
    struct gw_pki pki = {0};
    struct gw_error e;

    init_joiner(&joiner);
    invite(inviter, 60, token);
    start(inviter, &joiner, "n2", "10.0.0.2", token);
    run_until(inviter->base, &joiner.n_done, 1);
    if (!joiner.ok)
        fail_msg("%s", joiner.error.msg);
    assert_done(gw_pki_load(joiner.dir, &pki, &e), e);
    assert_string_equal(pki.name, "n2");
    assert_false(pki.ca);
    gw_pki_fini(&pki);
    assert_int_equal(gw_nodes_count(joiner.nodes), 2);
    assert_true(gw_nodes_find(joiner.nodes, "n1")->ca);
    assert_string_equal(gw_nodes_self(joiner.nodes), "n2");
    node = gw_nodes_find(inviter->nodes, "n2");
    assert_string_equal(node->address, "10.0.0.2");
    assert_string_equal(node->migration_address, "10.1.0.2");
    assert_false(node->ca);
    assert_int_equal(inviter->n_joined, 1);
    assert_int_equal(inviter->n_refused, 0);
    fini_joiner(&joiner);
}

static void a_token_is_good_once(void **state)
{
    struct inviter *inviter = *state;
    char token[GW_TOKEN_TEXT_MAX];
    struct joiner first, second;

    init_joiner(&first);
    init_joiner(&second);
    invite(inviter, 60, token);
    start(inviter, &first, "n2", "10.0.0.2", token);
    run_until(inviter->base, &first.n_done, 1);
    assert_true(first.ok);
    start(inviter, &second, "n3", "10.0.0.3", token);
    expect_refused(inviter, &second, GW_E_PERMISSION, "the token was refused by 127.0.0.1:");
    assert_null(gw_nodes_find(inviter->nodes, "n3"));
    fini_joiner(&first);
    fini_joiner(&second);
}

static void of_two_racing_joiners_one_wins(void **state)
{
    struct inviter *inviter = *state;
    char token[GW_TOKEN_TEXT_MAX];
    struct joiner a, b, *loser;

    init_joiner(&a);
    init_joiner(&b);
    invite(inviter, 60, token);
    start(inviter, &a, "n2", "10.0.0.2", token);
    start(inviter, &b, "n3", "10.0.0.3", token);
    run_until(inviter->base, &a.n_done, 1);
    run_until(inviter->base, &b.n_done, 1);
    assert_int_not_equal(a.ok, b.ok);
    loser = a.ok ? &b : &a;
    expect_refused(inviter, loser, GW_E_PERMISSION, "the token was refused by 127.0.0.1:");
    assert_contains(loser->error.hint, "godwit node invite");
    assert_int_equal(inviter->n_joined, 1);
    assert_int_equal(gw_nodes_count(inviter->nodes), 2);
    fini_joiner(&a);
    fini_joiner(&b);
}

static void an_expired_token_is_refused(void **state)
{
    struct inviter *inviter = *state;
    char token[GW_TOKEN_TEXT_MAX];
    struct joiner joiner;

    init_joiner(&joiner);
    invite(inviter, -1, token);
    start(inviter, &joiner, "n2", "10.0.0.2", token);
    expect_refused(inviter, &joiner, GW_E_PERMISSION, "the token was refused by 127.0.0.1:");
    fini_joiner(&joiner);
}

static void a_name_is_taken_once(void **state)
{
    struct inviter *inviter = *state;
    char token[GW_TOKEN_TEXT_MAX], second[GW_TOKEN_TEXT_MAX];
    struct joiner first, other, again;

    init_joiner(&first);
    init_joiner(&other);
    init_joiner(&again);
    invite(inviter, 60, token);
    start(inviter, &first, "n1", "127.0.0.1", token);
    expect_refused(inviter, &first, GW_E_EXISTS, "has a node n1 already");
    start(inviter, &first, "n2", "10.0.0.2", token); /* the mistake did not cost the token */
    run_until(inviter->base, &first.n_done, 1);
    assert_true(first.ok);
    invite(inviter, 60, second);
    start(inviter, &other, "n2", "10.0.0.3", second);
    expect_refused(inviter, &other, GW_E_EXISTS, "has a node n2 already");
    start(inviter, &again, "n2", "10.0.0.2", second); /* the same node, set up anew */
    run_until(inviter->base, &again.n_done, 1);
    assert_true(again.ok);
    fini_joiner(&first);
    fini_joiner(&other);
    fini_joiner(&again);
}

static void what_is_wrong_is_said_before_connecting(void **state)
{
    struct inviter *inviter = *state;
    char token[GW_TOKEN_TEXT_MAX];
    struct gw_join *join = NULL;
    struct joiner joiner;
    struct gw_join_args args;
    struct gw_error e;

    init_joiner(&joiner);
    invite(inviter, 60, token);
    args = (struct gw_join_args){
        .base = inviter->base,
        .dir = joiner.dir,
        .token = "gwt1.rubbish",
        .name = "n2",
        .address = "10.0.0.2",
        .port = 7400,
        .nodes = joiner.nodes,
        .handler = &joiner.handler,
    };
    assert_int_equal(gw_join_start(&args, &join, &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    assert_contains(e.msg, "token");
    args.token = token;
    args.name = "n 2";
    assert_int_equal(gw_join_start(&args, &join, &e), -1);
    assert_contains(e.msg, "node name");
    args.name = "n2";
    args.address = "10.0.0";
    assert_int_equal(gw_join_start(&args, &join, &e), -1);
    assert_contains(e.msg, "10.0.0");
    args.address = "10.0.0.2";
    args.dir = inviter->dir;
    assert_int_equal(gw_join_start(&args, &join, &e), -1);
    assert_int_equal(e.code, GW_E_EXISTS);
    assert_null(join);
    fini_joiner(&joiner);
}

/* --- a JOIN made by hand, with a good token -------------------------------------------------- */

struct hand {
    struct gw_peer_handler handler;
    json_t *say, *answer;
    unsigned n_closed;
};

static void hand_ready(struct gw_peer_handler *self, struct gw_peer_conn *conn)
{
    struct hand *hand = gw_container_of(self, struct hand, handler);

    gw_peer_send(conn, GW_WIRE_JOIN, hand->say, NULL);
    gw_peer_send(conn, GW_WIRE_JOIN, hand->say, NULL); /* the second one is not listened to */
}

static void hand_message(struct gw_peer_handler *self, struct gw_peer_conn *conn, unsigned type,
                         json_t *body)
{
    struct hand *hand = gw_container_of(self, struct hand, handler);

    (void)conn;
    (void)type;
    hand->answer = json_incref(body);
}

static void hand_closed(struct gw_peer_handler *self, struct gw_peer_conn *conn,
                        const struct gw_error *error)
{
    struct hand *hand = gw_container_of(self, struct hand, handler);

    (void)error;
    hand->n_closed++;
    gw_peer_free(conn);
}

static void hostile_requests_cost_nothing(void **state)
{
    static const char *const bodies[] = {
        "{}",
        "{\"name\": \"n2\"}",
        "{\"name\": \"../n2\", \"address\": \"10.0.0.2\", \"port\": 1, \"csr\": \"x\"}",
        "{\"name\": \"n2\", \"address\": \"10.0.0.2\", \"port\": 99999, \"csr\": \"x\"}",
        "{\"name\": \"n2\", \"address\": \"10.0.0.2\", \"port\": 1, \"csr\": \"x\"}",
        "{\"name\": \"n2\", \"address\": \"10.0.0.2\", \"port\": 1, \"csr\": 7}",
    };
    struct inviter *inviter = *state;
    uint8_t secret[GW_TOKEN_SECRET_BYTES];
    struct gw_token token;
    struct gw_error e;

    assert_done(gw_token_make(inviter->dir, "127.0.0.1", gw_peer_listener_port(inviter->socket),
                              time(NULL) + 60, &token, &e),
                e);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct hand hand = {.handler = {hand_ready, hand_message, hand_closed},
                            .say = json_loads(bodies[i], 0, NULL)};
        struct gw_peer_connect_args args = {
            .base = inviter->base,
            .address = "127.0.0.1",
            .port = token.port,
            .token = &token,
            .handler = &hand.handler,
        };
        struct gw_peer_conn *conn;

        assert_done(gw_peer_connect(&args, &conn, &e), e);
        run_until(inviter->base, &hand.n_closed, 1);
        assert_non_null(json_object_get(hand.answer, "error"));
        assert_null(json_object_get(hand.answer, "cert"));
        json_decref(hand.answer);
        json_decref(hand.say);
    }
    assert_int_equal(inviter->n_refused, sizeof bodies / sizeof *bodies);
    assert_int_equal(gw_nodes_count(inviter->nodes), 1);
    assert_done(gw_token_find(inviter->dir, token.id, secret, &e), e); /* still good */
}

/* --- a JOINED made by hand, from somebody who knows the secret ------------------------------- */

struct liar {
    struct gw_peer_acceptor acceptor;
    struct gw_peer_handler handler;
    const char *say;
};

static void liar_message(struct gw_peer_handler *self, struct gw_peer_conn *conn, unsigned type,
                         json_t *body)
{
    struct liar *liar = gw_container_of(self, struct liar, handler);
    json_t *answer = json_loads(liar->say, 0, NULL);

    (void)type;
    (void)body;
    gw_peer_send(conn, GW_WIRE_JOINED, answer, NULL);
    json_decref(answer);
    gw_peer_close(conn);
}

static void liar_closed(struct gw_peer_handler *self, struct gw_peer_conn *conn,
                        const struct gw_error *error)
{
    (void)self;
    (void)error;
    gw_peer_free(conn);
}

static void liar_accept(struct gw_peer_acceptor *self, struct gw_peer_conn *conn)
{
    struct liar *liar = gw_container_of(self, struct liar, acceptor);

    gw_peer_set_handler(conn, &liar->handler);
}

static void hostile_answers_install_nothing(void **state)
{
    static const char *const answers[] = {
        "{}",
        "{\"error\": 1}",
        "{\"error\": {\"code\": \"ok\", \"message\": \"welcome\"}}",
        "{\"cert\": \"x\", \"ca\": \"x\"}",
        "{\"cert\": 1, \"ca\": \"x\", \"nodes\": []}",
    };
    struct inviter *inviter = *state;
    struct liar liar = {.acceptor = {.accept = liar_accept},
                        .handler = {.message = liar_message, .closed = liar_closed}};
    struct gw_peer_listen_args args = {
        .base = inviter->base,
        .address = "127.0.0.1",
        .ctx = inviter->pki.ctx,
        .dir = inviter->dir,
        .acceptor = &liar.acceptor,
    };
    char token[GW_TOKEN_TEXT_MAX];
    struct gw_error e;

    gw_peer_listener_free(inviter->socket);
    assert_done(gw_peer_listen(&args, &inviter->socket, &e), e);
    invite(inviter, 60, token);
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct joiner joiner;
        struct gw_pki pki = {0};

        liar.say = answers[i];
        init_joiner(&joiner);
        start(inviter, &joiner, "n2", "10.0.0.2", token);
        run_until(inviter->base, &joiner.n_done, 1);
        assert_false(joiner.ok);
        assert_int_not_equal(joiner.error.code, GW_OK);
        assert_int_equal(gw_pki_load(joiner.dir, &pki, NULL), -1);
        fini_joiner(&joiner);
    }
    run_for(inviter->base, 50); /* the liar's last connection goes */
}

#define with_inviter(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_inviter(a_node_joins),
        with_inviter(a_token_is_good_once),
        with_inviter(of_two_racing_joiners_one_wins),
        with_inviter(an_expired_token_is_refused),
        with_inviter(a_name_is_taken_once),
        with_inviter(what_is_wrong_is_said_before_connecting),
        with_inviter(hostile_requests_cost_nothing),
        with_inviter(hostile_answers_install_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
