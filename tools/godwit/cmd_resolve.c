/* SPDX-License-Identifier: Apache-2.0 */
/* godwit resolve */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "field.h"
#include "text.h"
#include "util/cleanup.h"

static const struct {
    const char *name, *help;
} actions[] = {
    {"resume", "lets the copy that is paused here run"},
    {"discard", "ends the copy that is paused here"},
    {"release", "deletes the owner record, so that the guest can be started afresh"},
    {"fence", "keeps the other node's QEMU from the disks on RBD, for good"},
};

static void show_record(const json_t *record)
{
    const char *state = gw_field_str(record, "state", "");

    if (json_object_get(record, "node"))
        gw_cli_print("  owner record   %s, epoch %lld, %s, since %s",
                     gw_field_str(record, "node", ""), (long long)gw_field_int(record, "epoch"),
                     json_is_true(json_object_get(record, "may_have_run"))
                         ? "allowed to run it"
                         : "not allowed to run it yet",
                     gw_field_str(record, "changed_at", "?"));
    else if (strcmp(state, "no-store") == 0)
        gw_cli_print("  owner record   none: owner_store is not configured on this node");
    else
        gw_cli_print("  owner record   %s", state);
}

static void show_actions(const json_t *answer, const char *vm, bool allowed)
{
    const char *heading = allowed ? "Safe:" : "Refused:";

    for (unsigned i = 0; i < GW_ARRAY_SIZE(actions); i++) {
        const json_t *action = json_object_get(json_object_get(answer, "actions"), actions[i].name);

        if (json_is_true(json_object_get(action, "allowed")) != allowed)
            continue;
        if (heading)
            gw_cli_print("%s", heading);
        heading = NULL;
        if (allowed)
            gw_cli_print("  godwit resolve %s --%s   %s", vm, actions[i].name, actions[i].help);
        else
            gw_cli_print("  --%-8s %s", actions[i].name, gw_field_str(action, "because", ""));
    }
}

static void show_fenced(const json_t *clients)
{
    if (json_array_size(clients) == 0)
        gw_cli_print("  fenced         nobody there has a disk open");
    for (size_t i = 0; i < json_array_size(clients); i++)
        gw_cli_print("  fenced         %s", json_string_value(json_array_get(clients, i)));
}

static void show(const json_t *answer)
{
    const char *uuid = gw_field_str(answer, "uuid", "?"), *vm = gw_field_str(answer, "vm", uuid);
    const char *other = json_string_value(json_object_get(answer, "other"));

    gw_cli_print("%s%s%s%s: %s", vm, vm == uuid ? "" : " (", vm == uuid ? "" : uuid,
                 vm == uuid ? "" : ")", gw_field_str(answer, "summary", ""));
    show_record(json_object_get(answer, "record"));
    gw_cli_print("  QEMU here      %s (%s)", gw_field_str(answer, "here", "?"),
                 gw_field_str(answer, "node", "this node"));
    if (other)
        gw_cli_print("  QEMU there     %s (%s)", gw_field_str(answer, "there", "?"), other);
    if (json_object_get(answer, "fenced"))
        show_fenced(json_object_get(answer, "fenced"));
    show_actions(answer, vm, true);
    show_actions(answer, vm, false);
}

/* The one action that was asked for; NULL: only look. -1 if there are two. */
static int wanted(const struct gw_args *args, const char **actionp)
{
    *actionp = NULL;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(actions); i++) {
        if (!gw_args_flag(args, actions[i].name))
            continue;
        if (*actionp)
            return -1;
        *actionp = actions[i].name;
    }
    return 0;
}

int gw_cmd_resolve(struct gw_cli *cli, const struct gw_args *args)
{
    static const char letters[] = /* the first of images only */
        "/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const char *pool = gw_args_text(args, "pool"), *image = gw_args_text(args, "image");
    const char *where = image ? image : pool;
    gw_autofree char *query = gw_text_format("%s%s",
                                             image  ? "?image="
                                             : pool ? "?pool="
                                                    : "",
                                             where ? where : "");
    gw_autofree char *path = gw_client_path("/v1/resolve/", args->operand, query);
    const char *dead = gw_args_text(args, "dead"), *action;
    GW_REPLY_AUTO struct gw_reply reply = {0};
    int status = GW_EXIT_FAILED;
    struct gw_error e;
    json_t *body;

    if (where && where[strspn(where, &letters[!image])]) {
        gw_error_set(&e, GW_E_USAGE, "'%s' is not the name of %s", where,
                     image ? "an image" : "a pool");
        return gw_cli_fail(cli, &e);
    }
    if (wanted(args, &action) < 0 || (dead && !action)) {
        gw_error_set(&e, GW_E_USAGE, "%s",
                     dead && !action ? "--dead goes with an action" : "give one action, not two");
        gw_error_hint(&e, "`godwit resolve %s` alone shows which are safe", args->operand);
        return gw_cli_fail(cli, &e);
    }
    if (!action)
        return gw_cli_show(cli, path, show);
    body = gw_text_no_memory(json_object());
    gw_cli_put_text(body, "action", action);
    gw_cli_put_text(body, "dead", dead);
    if (gw_cli_send(cli, "POST", path, body, &reply, &status) < 0)
        return status;
    if (cli->json)
        gw_text_json(stdout, reply.json, true);
    else
        show(reply.json);
    return GW_EXIT_OK;
}
