/* SPDX-License-Identifier: Apache-2.0 */
/* godwit check, migrate and cancel. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "field.h"
#include "follow.h"
#include "report.h"
#include "text.h"

enum {
    START_TIMEOUT_MS = 120 * 1000, /* preflight asks the destination, which may have to try KVM */
};

static void put_number(json_t *body, const struct gw_args *args, const char *option,
                       const char *key, uint64_t per)
{
    uint64_t n;

    if (gw_args_number(args, option, &n))
        json_object_set_new(body, key, json_integer((json_int_t)((n + per - 1) / per)));
}

static json_t *migrate_body(const struct gw_args *args)
{
    json_t *body = gw_text_no_memory(json_object());

    gw_cli_put_text(body, "vm", args->operand);
    gw_cli_put_text(body, "to", gw_args_text(args, "to"));
    gw_cli_put_text(body, "policy", gw_args_text(args, "policy"));
    gw_cli_put_text(body, "route", gw_args_text(args, "route"));
    gw_cli_put_text(body, "transport", gw_args_text(args, "transport"));
    gw_cli_put_text(body, "codec", gw_args_text(args, "codec"));
    if (gw_args_flag(args, "verify"))
        json_object_set_new(body, "verify", json_true());
    if (gw_args_flag(args, "prefault"))
        json_object_set_new(body, "prefault", json_true());
    put_number(body, args, "bandwidth", "bandwidth", 1);
    put_number(body, args, "blackout", "blackout_ms", 1);
    put_number(body, args, "channels", "channels", 1);
    put_number(body, args, "timeout", "timeout_s", 1000);
    return body;
}

/* Whether the request came to nothing, or nobody knows: then a person has to look. */
static int not_started(const struct gw_cli *cli, const struct gw_follow *f,
                       const struct gw_reply *reply, struct gw_error *e)
{
    if (reply->sent && !reply->status) {
        gw_error_prefix(e, "the migration of %s may have started or not", f->vm);
        e->code = GW_E_UNRESOLVED;
        gw_error_hint(e, "'godwit status' shows whether it did; 'godwit cancel ID' cancels it");
    }
    return gw_cli_fail(cli, e);
}

/* What --json prints where no record tells the end: the last one known, and why it is the last. */
static int unresolved(const struct gw_cli *cli, const struct gw_follow *f, const char *to,
                      const struct gw_error *e)
{
    json_t *last;

    gw_cli_say_error(NULL, e->msg, e->hint);
    if (!cli->json)
        return gw_cli_status_of(e->code);
    last = f->record ? json_copy(f->record) : json_pack("{s:s}", "id", f->id);
    gw_text_no_memory(last);
    if (!f->record) {
        gw_cli_put_text(last, "vm", f->vm);
        gw_cli_put_text(last, "to", to);
    }
    json_object_set_new(last, "error", gw_cli_error_json(e));
    gw_text_json(stdout, last, true);
    json_decref(last);
    return gw_cli_status_of(e->code);
}

static int not_moved(const json_t *record, const char *vm)
{
    const json_t *error = gw_field_object(record, "error");
    bool cancelled = strcmp(gw_field_str(record, "state", ""), "cancelled") == 0;
    enum gw_code code =
        error ? gw_code_from_name(gw_field_str(error, "code", NULL)) : GW_E_CANCELLED;
    gw_autofree char *context = gw_text_format("%s was not moved", vm);
    gw_autofree char *see =
        gw_text_format("'godwit log %s' tells what happened", gw_field_str(record, "id", "ID"));
    const char *hint = gw_field_str(error, "hint", "");

    gw_cli_say_error(
        context, gw_field_str(error, "message", cancelled ? "cancelled" : "no reason was given"),
        *hint || cancelled ? hint : see);
    if (code != GW_E_UNRESOLVED)
        gw_cli_say("%s runs on %s, as before", vm, gw_field_str(record, "from", "the source"));
    /* a migration that began is no wrong usage any more, whatever made it fail */
    return code == GW_E_UNRESOLVED ? GW_EXIT_PERSON : GW_EXIT_FAILED;
}

static int finish(const struct gw_cli *cli, const struct gw_follow *f)
{
    bool moved = strcmp(gw_field_str(f->record, "state", ""), "completed") == 0;
    int status = moved ? GW_EXIT_OK : not_moved(f->record, f->vm);

    if (cli->json)
        gw_text_json(stdout, f->record, true);
    else if (moved)
        gw_report_moved(f->record);
    return status;
}

static int start(struct gw_cli *cli, struct gw_follow *f, json_t *body, int *statusp)
{
    const struct gw_request request = {
        .method = "POST", .path = "/v1/migrations", .body = body, .timeout_ms = START_TIMEOUT_MS};
    GW_REPLY_AUTO struct gw_reply reply = {0};
    struct gw_error e;
    int r = gw_client_send(&cli->client, &request, &reply, &e);
    const char *id = gw_field_str(reply.json, "id", NULL);

    if (r < 0) {
        *statusp = not_started(cli, f, &reply, &e);
        return -1;
    }
    if (!id || !*id) {
        gw_error_set(&e, GW_E_UNRESOLVED, "godwitd took the migration of %s but gave it no id",
                     f->vm);
        gw_error_hint(&e, "'godwit status' shows how it is doing");
        *statusp = gw_cli_fail(cli, &e);
        return -1;
    }
    f->id = gw_text_no_memory(strdup(id));
    return 0;
}

int gw_cmd_migrate(struct gw_cli *cli, const struct gw_args *args)
{
    struct gw_follow f;
    struct gw_error e;
    json_t *body;
    int status = GW_EXIT_FAILED;

    if (gw_follow_init(&f, &cli->client, args->operand, &e) < 0)
        return gw_cli_fail(cli, &e);
    if (!gw_args_number(args, "reconnect", &f.patience_ms))
        f.patience_ms = 15 * 1000;
    if (gw_args_flag(args, "progress") || gw_text_is_terminal(stderr))
        gw_progress_init(&f.progress, stderr);
    body = migrate_body(args);
    if (start(cli, &f, body, &status) == 0) {
        int r = gw_follow_run(&f, &e);

        gw_progress_clear(&f.progress);
        status = r < 0 ? unresolved(cli, &f, gw_args_text(args, "to"), &e) : finish(cli, &f);
    }
    json_decref(body);
    gw_follow_fini(&f);
    return status;
}

static void show_forecast(const json_t *answer, const char *key, const char *name)
{
    gw_autofree char *text = NULL;
    const json_t *value = json_object_get(answer, key);

    if (!value || json_is_null(value))
        return;
    text = gw_text_no_memory(json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII));
    gw_cli_print("  %s (ms): %s", name, text);
}

int gw_cmd_check(struct gw_cli *cli, const struct gw_args *args)
{
    GW_REPLY_AUTO struct gw_reply reply = {0};
    const char *to = gw_args_text(args, "to");
    json_t *body = gw_text_no_memory(json_object());
    int status = GW_EXIT_FAILED;
    bool ok;

    gw_cli_put_text(body, "vm", args->operand);
    gw_cli_put_text(body, "to", to);
    if (gw_cli_send(cli, "POST", "/v1/check", body, &reply, &status) < 0)
        return status;
    ok = gw_field_bool(reply.json, "ok");
    if (cli->json) {
        gw_text_json(stdout, reply.json ?: json_null(), true);
    } else {
        gw_report_findings(gw_field_array(reply.json, "findings"));
        gw_cli_print(ok ? "%s can move to %s" : "%s cannot move to %s", args->operand, to);
        gw_report_route(gw_field_array(reply.json, "decisions"));
        show_forecast(reply.json, "total_ms", "expected total");
        show_forecast(reply.json, "blackout_ms", "expected blackout");
    }
    return ok ? GW_EXIT_OK : GW_EXIT_FAILED;
}

int gw_cmd_migration_set(struct gw_cli *cli, const struct gw_args *args)
{
    gw_autofree char *path = gw_client_path("/v1/migrations/", args->operand, "");
    json_t *body = gw_text_no_memory(json_object());
    GW_REPLY_AUTO struct gw_reply reply = {0};
    int status = GW_EXIT_FAILED;

    put_number(body, args, "bandwidth", "bandwidth", 1);
    if (gw_cli_send(cli, "POST", path, body, &reply, &status) < 0)
        return status;
    if (cli->json)
        gw_text_json(stdout, reply.json ?: json_null(), true);
    else
        gw_cli_print("%s has a new limit; 'godwit status' shows its rate", args->operand);
    return GW_EXIT_OK;
}

int gw_cmd_cancel(struct gw_cli *cli, const struct gw_args *args)
{
    gw_autofree char *path = gw_client_path("/v1/migrations/", args->operand, "");
    GW_REPLY_AUTO struct gw_reply reply = {0};
    int status = GW_EXIT_FAILED;

    if (gw_cli_send(cli, "DELETE", path, NULL, &reply, &status) < 0)
        return status;
    if (cli->json)
        gw_text_json(stdout, reply.json ?: json_null(), true);
    else
        gw_cli_print("%s is being cancelled; 'godwit status' shows when it is over", args->operand);
    return GW_EXIT_OK;
}
