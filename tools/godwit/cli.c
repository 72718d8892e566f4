/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "field.h"
#include "text.h"

int gw_cli_status_of(enum gw_code code)
{
    switch (code) {
    case GW_E_USAGE:
    case GW_E_CONFIG:
    case GW_E_NOT_FOUND: return GW_EXIT_USAGE;
    case GW_E_UNRESOLVED: return GW_EXIT_PERSON;
    default: return GW_EXIT_FAILED;
    }
}

static void say_line(FILE *out, enum gw_text_colour colour, const char *before, const char *text)
{
    gw_autofree char *clean = gw_text_clean(text);

    gw_text_paint(out, colour, before);
    fprintf(out, "%s\n", clean);
}

void gw_cli_say_error(const char *context, const char *message, const char *hint)
{
    gw_autofree char *line =
        context ? gw_text_format("%s: %s", context, message) : gw_text_clean(message);

    gw_text_paint(stderr, GW_TEXT_RED, "godwit: ");
    fprintf(stderr, "%s\n", line);
    if (hint && *hint)
        say_line(stderr, GW_TEXT_DIM, "hint: ", hint);
}

/* Cleaned, because a message cut at its buffer's end need not be UTF-8 and jansson would refuse it.
 */
json_t *gw_cli_error_json(const struct gw_error *e)
{
    gw_autofree char *message = gw_text_clean(e->msg);
    gw_autofree char *hint = gw_text_clean(e->hint);

    return gw_text_no_memory(json_pack("{s:s, s:s, s:s}", "code", gw_code_name(e->code), "message",
                                       message, "hint", hint));
}

int gw_cli_fail(const struct gw_cli *cli, const struct gw_error *e)
{
    gw_cli_say_error(NULL, e->msg, e->hint);
    if (cli->json) {
        json_t *object = json_pack("{s:o}", "error", gw_cli_error_json(e));

        gw_text_json(stdout, gw_text_no_memory(object), true);
        json_decref(object);
    }
    return gw_cli_status_of(e->code);
}

__attribute__((format(printf, 3, 0))) static void say_formatted(FILE *out, const char *before,
                                                                const char *fmt, va_list ap)
{
    gw_autofree char *raw = NULL;

    if (vasprintf(&raw, fmt, ap) < 0)
        raw = NULL;
    gw_text_no_memory(raw);
    say_line(out, GW_TEXT_PLAIN, before, raw);
}

void gw_cli_say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say_formatted(stderr, "godwit: ", fmt, ap);
    va_end(ap);
}

void gw_cli_print(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say_formatted(stdout, "", fmt, ap);
    va_end(ap);
}

int gw_cli_show(struct gw_cli *cli, const char *path, void (*show)(const json_t *answer))
{
    json_t *answer = NULL;
    struct gw_error e;

    if (gw_client_get(&cli->client, path, &answer, &e) < 0)
        return gw_cli_fail(cli, &e);
    if (cli->json)
        gw_text_json(stdout, answer, true);
    else
        show(answer);
    json_decref(answer);
    return GW_EXIT_OK;
}

int gw_cli_send(struct gw_cli *cli, const char *method, const char *path, json_t *body,
                struct gw_reply *reply, int *statusp)
{
    /* Starting a VM tries KVM first, and checking it asks another node: both take seconds. */
    const struct gw_request request = {
        .method = method, .path = path, .body = body, .timeout_ms = 120 * 1000};
    struct gw_error e;
    int r = gw_client_send(&cli->client, &request, reply, &e);

    json_decref(body);
    if (r == 0)
        return 0;
    *statusp = gw_cli_fail(cli, &e);
    return -1;
}

void gw_cli_put_text(json_t *object, const char *key, const char *text)
{
    if (text)
        json_object_set_new(object, key, json_string(text));
}
