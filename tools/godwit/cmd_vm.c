/* SPDX-License-Identifier: Apache-2.0 */
/* godwit vm … */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "field.h"
#include "report.h"
#include "table.h"
#include "text.h"
#include "units.h"

enum {
    VM_FILE_MAX = 64 * 1024, /* as godwitd has it */
};

static int read_file(const char *name, char **textp, struct gw_error *e)
{
    FILE *f = strcmp(name, "-") == 0 ? stdin : fopen(name, "re");
    gw_autofree char *text = gw_text_no_memory(malloc(VM_FILE_MAX + 1));
    size_t n;
    int failed, saved;

    if (!f) {
        gw_error_set_sys(e, errno, "read %s", name);
        e->code = GW_E_USAGE;
        return -1;
    }
    n = fread(text, 1, VM_FILE_MAX + 1, f);
    saved = errno;
    failed = ferror(f);
    if (f != stdin)
        fclose(f);
    if (failed) {
        gw_error_set_sys(e, saved, "read %s", name);
        e->code = GW_E_USAGE;
        return -1;
    }
    if (n > VM_FILE_MAX)
        return gw_error_set(e, GW_E_CONFIG, "%s is longer than a VM file may be (64 KiB)", name);
    if (memchr(text, '\0', n))
        return gw_error_set(e, GW_E_CONFIG, "%s is no text: it holds a NUL byte", name);
    text[n] = '\0';
    *textp = gw_steal_ptr(&text);
    return 0;
}

/* What the daemon says about the one VM that it has just changed. */
static void show_change(const struct gw_cli *cli, const struct gw_reply *reply, const char *name,
                        const char *did)
{
    int64_t pid = gw_field_int(reply->json, "pid");

    if (cli->json)
        gw_text_json(stdout, reply->json ?: json_null(), true);
    else if (pid > 0)
        gw_cli_print("%s %s (pid %lld)", gw_field_str(reply->json, "name", name), did,
                     (long long)pid);
    else
        gw_cli_print("%s %s", gw_field_str(reply->json, "name", name), did);
}

int gw_cmd_vm_start(struct gw_cli *cli, const struct gw_args *args)
{
    GW_REPLY_AUTO struct gw_reply reply = {0};
    gw_autofree char *yaml = NULL;
    struct gw_error e;
    json_t *body;
    int status = GW_EXIT_FAILED;

    if (read_file(args->operand, &yaml, &e) < 0)
        return gw_cli_fail(cli, &e);
    body = json_pack("{s:s}", "yaml", yaml);
    if (!body) {
        gw_error_set(&e, GW_E_CONFIG, "%s is not UTF-8", args->operand);
        return gw_cli_fail(cli, &e);
    }
    gw_cli_put_text(body, "file", args->operand);
    if (gw_cli_send(cli, "POST", "/v1/vms", body, &reply, &status) < 0)
        return status;
    show_change(cli, &reply, args->operand, "started");
    return GW_EXIT_OK;
}

int gw_cmd_vm_stop(struct gw_cli *cli, const struct gw_args *args)
{
    gw_autofree char *path =
        gw_client_path("/v1/vms/", args->operand, gw_args_flag(args, "force") ? "?force=1" : "");
    GW_REPLY_AUTO struct gw_reply reply = {0};
    int status = GW_EXIT_FAILED;

    if (gw_cli_send(cli, "DELETE", path, NULL, &reply, &status) < 0)
        return status;
    show_change(cli, &reply, args->operand,
                gw_args_flag(args, "force") ? "stopped" : "was asked to power down");
    return GW_EXIT_OK;
}

int gw_cmd_vm_resume(struct gw_cli *cli, const struct gw_args *args)
{
    gw_autofree char *path = gw_client_path("/v1/vms/", args->operand, "/resume");
    GW_REPLY_AUTO struct gw_reply reply = {0};
    int status = GW_EXIT_FAILED;

    if (gw_cli_send(cli, "POST", path, NULL, &reply, &status) < 0)
        return status;
    show_change(cli, &reply, args->operand, "runs");
    return GW_EXIT_OK;
}

int gw_cmd_vm_adopt(struct gw_cli *cli, const struct gw_args *args)
{
    GW_REPLY_AUTO struct gw_reply reply = {0};
    const char *qmp = gw_args_text(args, "qmp");
    char absolute[PATH_MAX];
    struct gw_error e;
    uint64_t pid;
    json_t *body;
    int status = GW_EXIT_FAILED;

    /* The daemon works in another directory. */
    if (!realpath(qmp, absolute)) {
        gw_error_set_sys(&e, errno, "--qmp %s", qmp);
        e.code = GW_E_USAGE;
        gw_error_hint(&e, "give the unix socket of QEMU's -qmp or -mon option");
        return gw_cli_fail(cli, &e);
    }
    body = gw_text_no_memory(json_object());
    gw_cli_put_text(body, "qmp", absolute);
    gw_args_number(args, "pid", &pid);
    json_object_set_new(body, "pid", json_integer((json_int_t)pid));
    gw_cli_put_text(body, "name", gw_args_text(args, "name"));
    if (gw_cli_send(cli, "POST", "/v1/vms/adopt", body, &reply, &status) < 0)
        return status;
    show_change(cli, &reply, "the VM", "adopted");
    return GW_EXIT_OK;
}

static void add_vm(struct gw_table *t, const json_t *vm)
{
    int64_t cpus = gw_field_int(vm, "cpus"), pid = gw_field_int(vm, "pid");

    gw_table_add(t, "%s", gw_field_str(vm, "name", "?"));
    gw_table_add(t, "%s", gw_field_str(vm, "state", "?"));
    gw_table_add(t, "%s", gw_units_bytes(gw_field_int(vm, "memory_bytes")).text);
    gw_table_add(t, "%.0lld", (long long)(cpus > 0 ? cpus : 0));
    gw_table_add(t, "%s", gw_field_str(vm, "accel", ""));
    gw_table_add(t, "%.0lld", (long long)(pid > 0 ? pid : 0));
    gw_table_add(t, "%s", gw_field_str(vm, "migration", ""));
}

static void show_vms(const json_t *answer)
{
    GW_TABLE_AUTO struct gw_table t;
    const json_t *list = gw_field_list(answer, "vms");
    size_t i;
    json_t *vm;

    gw_table_init(&t, "NAME,STATE,MEMORY,CPUS,ACCEL,PID,MIGRATION");
    json_array_foreach (list, i, vm)
        add_vm(&t, vm);
    if (i == 0)
        puts("no VMs on this node");
    else
        gw_table_print(&t, stdout, 0, 0);
}

int gw_cmd_vm_list(struct gw_cli *cli, const struct gw_args *args)
{
    (void)args;
    return gw_cli_show(cli, "/v1/vms", show_vms);
}

int gw_cmd_vm_show(struct gw_cli *cli, const struct gw_args *args)
{
    gw_autofree char *path = gw_client_path("/v1/vms/", args->operand, "");

    return gw_cli_show(cli, path, gw_report_fields);
}
