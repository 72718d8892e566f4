/* SPDX-License-Identifier: Apache-2.0 */
/* godwit status, log, explain and version. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "build_config.h"
#include "cli.h"
#include "field.h"
#include "report.h"
#include "text.h"

enum {
    STATUS_OVER_MAX = 10, /* how many migrations that are over status shows */
};

int gw_cmd_status(struct gw_cli *cli, const struct gw_args *args)
{
    const struct gw_report_limits limits = {.over = STATUS_OVER_MAX};
    json_t *status = NULL, *migrations = NULL;
    struct gw_error e;
    int r = GW_EXIT_OK;

    (void)args;
    if (gw_client_get(&cli->client, "/v1/status", &status, &e) < 0 ||
        gw_client_get(&cli->client, "/v1/migrations", &migrations, &e) < 0) {
        r = gw_cli_fail(cli, &e);
    } else if (cli->json) {
        if (!json_is_array(json_object_get(status, "migrations")))
            json_object_set(status, "migrations",
                            (json_t *)gw_field_list(migrations, "migrations"));
        gw_text_json(stdout, status, true);
    } else {
        gw_report_fields(status);
        putchar('\n');
        gw_report_migrations(gw_field_list(migrations, "migrations"), stdout, &limits);
    }
    json_decref(status);
    json_decref(migrations);
    return r;
}

/* Local wall-clock time with milliseconds. */
static const char *clock_time(char text[32], json_int_t at_ms)
{
    time_t seconds = (time_t)(at_ms / 1000);
    struct tm tm;
    size_t used;

    localtime_r(&seconds, &tm);
    used = strftime(text, 32, "%H:%M:%S", &tm);
    snprintf(text + used, 32 - used, ".%03d", (int)(at_ms % 1000));
    return text;
}

static void print_log_entry(const json_t *entry)
{
    gw_autofree char *fallback = NULL;
    const char *text = json_string_value(entry);
    const char *at = gw_field_str(entry, "at", gw_field_str(entry, "time", NULL));
    json_int_t at_ms = json_integer_value(json_object_get(entry, "at_ms"));
    char clock[32];

    if (!at && at_ms > 0)
        at = clock_time(clock, at_ms);
    if (!text)
        text = gw_field_str(entry, "text", gw_field_str(entry, "message", NULL));
    if (!text)
        text = fallback = gw_text_no_memory(json_dumps(entry, JSON_ENCODE_ANY | JSON_ENSURE_ASCII));
    gw_cli_print("%s%s%s%s%s", at ? at : "", at ? "  " : "", gw_field_str(entry, "level", ""),
                 gw_field_str(entry, "level", NULL) ? "  " : "", text);
}

static void print_text(const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");

        gw_cli_print("%.*s", (int)len, text);
        text += len + (text[len] == '\n');
    }
}

int gw_cmd_log(struct gw_cli *cli, const struct gw_args *args)
{
    gw_autofree char *path = gw_client_path("/v1/migrations/", args->operand, "/log");
    GW_REPLY_AUTO struct gw_reply reply = {0};
    int status = GW_EXIT_FAILED;
    const json_t *lines;
    size_t i;
    json_t *entry;

    if (gw_cli_send(cli, "GET", path, NULL, &reply, &status) < 0)
        return status;
    if (cli->json && !reply.json)
        reply.json =
            json_pack("{s:s, s:s}", "id", args->operand, "log", reply.text ? reply.text : "");
    if (cli->json) {
        gw_text_json(stdout, reply.json ?: json_null(), true);
        return GW_EXIT_OK;
    }
    lines = gw_field_list(reply.json, "log");
    json_array_foreach (lines, i, entry)
        print_log_entry(entry);
    if (!lines)
        print_text(gw_field_str(reply.json, "log", reply.text ? reply.text : ""));
    return GW_EXIT_OK;
}

int gw_cmd_explain(struct gw_cli *cli, const struct gw_args *args)
{
    gw_autofree char *path = gw_client_path("/v1/migrations/", args->operand, "");
    json_t *record = NULL, *decisions;
    struct gw_error e;

    if (gw_client_get(&cli->client, path, &record, &e) < 0)
        return gw_cli_fail(cli, &e);
    if (cli->json) {
        decisions = gw_field_array(record, "decisions");
        decisions = json_pack("{s:s, s:o}", "id", gw_field_str(record, "id", "?"), "decisions",
                              decisions ? json_incref(decisions) : json_array());
        gw_text_json(stdout, gw_text_no_memory(decisions), true);
        json_decref(decisions);
    } else {
        gw_report_decisions(record);
    }
    json_decref(record);
    return GW_EXIT_OK;
}

/* Our own version is known without a daemon, so that one is only asked. */
int gw_cmd_version(struct gw_cli *cli, const struct gw_args *args)
{
    const struct gw_request request = {.method = "GET", .path = "/v1/status", .timeout_ms = 2000};
    GW_REPLY_AUTO struct gw_reply reply = {0};
    const char *daemon = NULL;
    struct gw_error e;
    json_t *object;

    (void)args;
    if (gw_client_send(&cli->client, &request, &reply, &e) == 0)
        daemon = gw_field_str(reply.json, "version", NULL);
    if (!cli->json) {
        gw_cli_print("godwit %s", GW_VERSION);
        gw_cli_print("godwitd %s", daemon ? daemon : "(not reached)");
        return GW_EXIT_OK;
    }
    object = gw_text_no_memory(json_pack("{s:s, s:s?}", "godwit", GW_VERSION, "godwitd", daemon));
    gw_text_json(stdout, object, true);
    json_decref(object);
    return GW_EXIT_OK;
}
