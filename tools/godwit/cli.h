/* SPDX-License-Identifier: Apache-2.0 */
/* What every command of godwit shares: the daemon it talks to, and how it says no. */
#ifndef GW_GODWIT_CLI_H
#define GW_GODWIT_CLI_H

#include <stdbool.h>
#include <jansson.h>
#include "godwit/error.h"
#include "client.h"
#include "options.h"

/* Exit statuses; docs/man/godwit.1 promises them. */
enum {
    GW_EXIT_OK = 0,
    GW_EXIT_FAILED = 1, /* of migrate: and the guest runs on the source */
    GW_EXIT_USAGE = 2,
    GW_EXIT_PERSON = 3, /* somebody has to look, and is told where */
};

struct gw_cli {
    struct gw_client client;
    bool json;
};

/* The exit status that goes with an error. */
int gw_cli_status_of(enum gw_code code);

/* {code, message, hint}: a new reference, never NULL. */
json_t *gw_cli_error_json(const struct gw_error *e);

/* "godwit: message" and the hint on stderr; with --json also {"error": …} on stdout. Returns the
 * exit status. */
int gw_cli_fail(const struct gw_cli *cli, const struct gw_error *e);

/* The same without the object on stdout. context may be NULL and is put before the message. */
void gw_cli_say_error(const char *context, const char *message, const char *hint);

/* A line "godwit: …" on stderr, cleaned. */
void gw_cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A line on stdout, cleaned. */
void gw_cli_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * GET, then with --json the answer as it is, otherwise show(). Commands that only look are one call
 * of it. Returns the exit status.
 */
int gw_cli_show(struct gw_cli *cli, const char *path, void (*show)(const json_t *answer));

/* Sends; on success the reply is the caller's to finish. 0, or -1 after gw_cli_fail() with its
 * status in *statusp. Takes the reference to body. */
int gw_cli_send(struct gw_cli *cli, const char *method, const char *path, json_t *body,
                struct gw_reply *reply, int *statusp);

/* Puts a string option that was given, or nothing, into an object. */
void gw_cli_put_text(json_t *object, const char *key, const char *text);

/* The handlers of the command table. */
int gw_cmd_vm_start(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_vm_resume(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_vm_stop(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_vm_list(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_vm_show(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_vm_adopt(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_node_init(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_node_invite(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_node_join(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_node_list(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_check(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_migrate(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_status(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_watch(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_migration_set(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_cancel(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_log(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_resolve(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_explain(struct gw_cli *cli, const struct gw_args *args);
int gw_cmd_version(struct gw_cli *cli, const struct gw_args *args);

#endif
