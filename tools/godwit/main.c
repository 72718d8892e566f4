/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <curl/curl.h>

#include "build_config.h"
#include "cli.h"
#include "field.h"
#include "help.h"
#include "text.h"

static const char default_socket[] = "/run/godwit/godwitd.sock";

static const char *socket_path(const struct gw_globals *globals)
{
    const char *from_env = getenv("GODWIT_SOCKET");

    if (globals->socket)
        return globals->socket;
    return from_env && *from_env ? from_env : default_socket;
}

/* A word that a shell can take without quotes. */
static bool is_plain(const char *word)
{
    if (!*word || *word == '-')
        return false;
    for (; *word; word++)
        if (!isalnum((unsigned char)*word) && !strchr("._-", *word))
            return false;
    return true;
}

/* For the completion: names from the daemon, or quietly nothing. */
static int print_names(const struct gw_cli *cli, const char *kind)
{
    gw_autofree char *path = gw_client_path("/v1/", kind, "");
    const struct gw_request request = {.method = "GET", .path = path, .timeout_ms = 1000};
    GW_REPLY_AUTO struct gw_reply reply = {0};
    struct gw_error e;
    size_t i;
    json_t *one;

    if (gw_client_send(&cli->client, &request, &reply, &e) < 0)
        return GW_EXIT_FAILED;
    json_array_foreach (gw_field_list(reply.json, kind), i, one) {
        const char *name = gw_field_str(one, strcmp(kind, "migrations") == 0 ? "id" : "name", "");

        if (is_plain(name))
            puts(name);
    }
    return GW_EXIT_OK;
}

static int usage_error(const struct gw_cli *cli, const char *group, const struct gw_args *args,
                       const struct gw_error *e)
{
    int status = gw_cli_fail(cli, e);

    if (group && !args->command)
        gw_help_print(stderr, group, NULL);
    else
        gw_help_usage(stderr, group, args->command);
    return status;
}

static int run(int argc, char **argv)
{
    struct gw_globals globals;
    struct gw_args args;
    const char *group;
    struct gw_error e;
    int r = gw_options_parse(argc, argv, &globals, &args, &group, &e);
    struct gw_cli cli = {.client.socket = socket_path(&globals), .json = globals.json};

    if (r < 0)
        return usage_error(&cli, group, &args, &e);
    if (globals.help)
        gw_help_print(stdout, group, args.command);
    else if (globals.version)
        gw_cli_print("godwit %s", GW_VERSION);
    else if (globals.print_commands)
        gw_help_print_commands(stdout);
    else if (globals.print_names)
        return print_names(&cli, globals.print_names);
    else
        return args.command->run(&cli, &args);
    return GW_EXIT_OK;
}

int main(int argc, char **argv)
{
    int status;

    setlocale(LC_ALL, "C.UTF-8");
    signal(SIGPIPE, SIG_IGN);
    if (curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK) {
        fputs("godwit: libcurl cannot be set up\n", stderr);
        return GW_EXIT_FAILED;
    }
    status = run(argc, argv);
    curl_global_cleanup();
    /* A full disk, a closed pipe. It is no success, and it must not be 1 either: a guest that has
     * moved does not run on the source because of it. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        gw_cli_say("cannot write to standard output");
        return status == GW_EXIT_OK ? GW_EXIT_PERSON : status;
    }
    return status;
}
