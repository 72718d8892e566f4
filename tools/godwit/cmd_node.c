/* SPDX-License-Identifier: Apache-2.0 */
/* godwit node … */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "field.h"
#include "report.h"
#include "table.h"
#include "text.h"
#include "units.h"

static json_t *identity(const struct gw_args *args)
{
    json_t *body = gw_text_no_memory(json_object());

    gw_cli_put_text(body, "name", gw_args_text(args, "name"));
    gw_cli_put_text(body, "address", gw_args_text(args, "address"));
    gw_cli_put_text(body, "migration_address", gw_args_text(args, "migration-address"));
    return body;
}

static int send_identity(struct gw_cli *cli, const char *path, json_t *body, const char *did)
{
    GW_REPLY_AUTO struct gw_reply reply = {0};
    int status = GW_EXIT_FAILED;

    if (gw_cli_send(cli, "POST", path, body, &reply, &status) < 0)
        return status;
    if (cli->json) {
        gw_text_json(stdout, reply.json ?: json_null(), true);
    } else {
        gw_cli_print("this node %s", did);
        gw_report_fields(reply.json);
    }
    return GW_EXIT_OK;
}

int gw_cmd_node_init(struct gw_cli *cli, const struct gw_args *args)
{
    return send_identity(cli, "/v1/node/init", identity(args),
                         "now holds the certificate authority");
}

/* A token on the command line shows in ps(1); "-" reads it from stdin. */
static const char *token_of(const char *operand, char *line, int size)
{
    if (strcmp(operand, "-") != 0)
        return operand;
    if (!fgets(line, size, stdin))
        return "";
    line[strcspn(line, "\r\n")] = '\0';
    return line;
}

int gw_cmd_node_join(struct gw_cli *cli, const struct gw_args *args)
{
    char line[4096] = "";
    const char *token = token_of(args->operand, line, sizeof line);
    struct gw_error e;
    json_t *body;

    if (!*token) {
        gw_error_set(&e, GW_E_USAGE, "no token on standard input");
        gw_error_hint(&e, "'godwit node invite' on a node that has joined prints one");
        return gw_cli_fail(cli, &e);
    }
    body = identity(args);
    gw_cli_put_text(body, "token", token);
    return send_identity(cli, "/v1/node/join", body, "has joined");
}

int gw_cmd_node_invite(struct gw_cli *cli, const struct gw_args *args)
{
    GW_REPLY_AUTO struct gw_reply reply = {0};
    json_t *body = gw_text_no_memory(json_object());
    int status = GW_EXIT_FAILED;
    const char *token;
    uint64_t ttl_ms;

    if (gw_args_number(args, "ttl", &ttl_ms))
        json_object_set_new(body, "ttl_s", json_integer((json_int_t)(ttl_ms / 1000)));
    if (gw_cli_send(cli, "POST", "/v1/node/invite", body, &reply, &status) < 0)
        return status;
    token = gw_field_str(reply.json, "token", "");
    if (cli->json) {
        gw_text_json(stdout, reply.json ?: json_null(), true);
        return GW_EXIT_OK;
    }
    /* The token alone on stdout, so that it can be piped into the join. */
    gw_cli_print("%s", token);
    gw_cli_say("valid once, until %s; on the new node: godwit node join TOKEN --name NAME",
               gw_field_str(reply.json, "expires", "?"));
    return GW_EXIT_OK;
}

static const char *yes(const json_t *node, const char *key)
{
    const json_t *value = json_object_get(node, key);

    return json_is_true(value) ? "yes" : json_is_false(value) ? "no" : "";
}

static void show_nodes(const json_t *answer)
{
    GW_TABLE_AUTO struct gw_table t;
    const json_t *list = gw_field_list(answer, "nodes");
    size_t i;
    json_t *node;

    gw_table_init(&t, "NAME,ADDRESS,MIGRATION ADDRESS,SELF,CA");
    json_array_foreach (list, i, node) {
        gw_table_add(&t, "%s", gw_field_str(node, "name", "?"));
        gw_table_add(&t, "%s", gw_field_str(node, "address", ""));
        gw_table_add(&t, "%s", gw_field_str(node, "migration_address", ""));
        gw_table_add(&t, "%s", yes(node, "self"));
        gw_table_add(&t, "%s", yes(node, "ca"));
    }
    if (i == 0)
        puts("no nodes: 'godwit node init' makes this one the first");
    else
        gw_table_print(&t, stdout, 0, 0);
}

int gw_cmd_node_list(struct gw_cli *cli, const struct gw_args *args)
{
    (void)args;
    return gw_cli_show(cli, "/v1/nodes", show_nodes);
}
