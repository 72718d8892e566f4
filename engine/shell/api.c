/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each handler checks what it was given, hands it to the part that does it, and replies when that
 * is done. A client that goes away early does not stop what it asked for.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "build_config.h"
#include "shell/api.h"
#include "shell/api_private.h"
#include "shell/enlist.h"
#include "shell/error_json.h"
#include "shell/resolve.h"
#include "shell/resume.h"
#include "util/cleanup.h"

#define TTL_DEFAULT_S 900
#define TTL_MAX_S     (7 * 24 * 3600)

struct gw_daemon *gw_api_daemon(struct gw_http_api *api)
{
    return gw_container_of(api, struct gw_daemon, api);
}

void gw_api_refuse(struct gw_http_request *request, enum gw_code code, const char *msg,
                   const char *hint)
{
    struct gw_error error;

    gw_error_set(&error, code, "%s", msg);
    gw_error_hint(&error, "%s", hint);
    gw_http_fail(request, &error);
}

const char *gw_api_need(struct gw_http_request *request, const char *key)
{
    const char *value = json_string_value(json_object_get(gw_http_body(request), key));
    struct gw_error error;

    if (value)
        return value;
    gw_error_set(&error, GW_E_USAGE, "the body has no string '%s'", key);
    gw_error_hint(&error, "docs/openapi.yaml describes it");
    gw_http_fail(request, &error);
    return NULL;
}

const char *gw_api_optional(struct gw_http_request *request, const char *key)
{
    return json_string_value(json_object_get(gw_http_body(request), key));
}

bool gw_api_only_known(struct gw_http_request *request, const char *const *known)
{
    const json_t *body = gw_http_body(request);
    struct gw_error error;
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)body, key, value) {
        unsigned i;

        for (i = 0; known[i] && strcmp(known[i], key) != 0; i++)
            ;
        if (known[i])
            continue;
        gw_error_set(&error, GW_E_USAGE, "unknown key '%s' in the body", key);
        gw_error_hint(&error, "docs/openapi.yaml lists the known ones");
        gw_http_fail(request, &error);
        return false;
    }
    return true;
}

/* VMs */

struct vm_request {
    struct gw_vm_call call;
    struct gw_http_request *request;
    int status; /* of success */
};

static void vm_request_done(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error)
{
    struct vm_request *r = gw_container_of(call, struct vm_request, call);

    if (error)
        gw_http_fail(r->request, error);
    else
        gw_http_reply(r->request, r->status, vm ? gw_vm_to_json(vm) : NULL);
    free(r);
}

static struct gw_vm_call *reply_later(struct gw_http_request *request, int status)
{
    struct vm_request *r = calloc(1, sizeof *r);

    if (!r)
        abort();
    r->call.done = vm_request_done;
    r->request = request;
    r->status = status;
    return &r->call;
}

static struct gw_vm *vm_of(struct gw_daemon *d, struct gw_http_request *request)
{
    const char *name = gw_http_param(request, "name");
    struct gw_vm *vm = gw_vm_find(d, name);
    struct gw_error error;

    if (vm)
        return vm;
    gw_error_set(&error, GW_E_NOT_FOUND, "there is no VM '%s' on this node", name);
    gw_error_hint(&error, "`godwit vm list` shows those that are");
    gw_http_fail(request, &error);
    return NULL;
}

static void vms_list(struct gw_http_api *api, struct gw_http_request *request)
{
    json_t *list = json_array();
    struct gw_vm *vm;

    TAILQ_FOREACH (vm, &gw_api_daemon(api)->vms, link)
        json_array_append_new(list, gw_vm_to_json(vm));
    gw_http_reply(request, 200, list);
}

static void vms_show(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_vm *vm = vm_of(gw_api_daemon(api), request);
    json_t *json;

    if (!vm)
        return;
    json = gw_vm_to_json(vm);
    json_object_set_new(json, "spec", gw_vm_spec_to_json(vm->spec));
    json_object_set(json, "qemu_version", vm->version);
    gw_http_reply(request, 200, json);
}

static void vms_start(struct gw_http_api *api, struct gw_http_request *request)
{
    const char *yaml = gw_api_need(request, "yaml"), *file;
    struct gw_vm_spec *spec;
    struct gw_error error;

    if (!yaml)
        return;
    file = gw_api_optional(request, "file");
    if (gw_vm_spec_from_yaml(yaml, strlen(yaml), file ? file : "VM file", &spec, &error) < 0) {
        if (!error.hint[0])
            gw_error_hint(&error, "correct that line and start the VM again; godwit-vm(5) "
                                  "describes the file");
        gw_http_fail(request, &error);
    } else {
        gw_enlist_start(gw_api_daemon(api), spec, reply_later(request, 201));
    }
}

static void vms_adopt(struct gw_http_api *api, struct gw_http_request *request)
{
    const char *qmp = gw_api_need(request, "qmp");
    json_int_t pid = json_integer_value(json_object_get(gw_http_body(request), "pid"));

    if (!qmp)
        return;
    if (pid < 1 || pid > INT_MAX)
        gw_api_refuse(request, GW_E_USAGE, "the body has no 'pid' of a process",
                      "it is the process id of the QEMU to adopt");
    else
        gw_enlist_adopt(gw_api_daemon(api), qmp, (pid_t)pid, gw_api_optional(request, "name"),
                        reply_later(request, 201));
}

static void vms_stop(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_vm *vm = vm_of(gw_api_daemon(api), request);
    const char *wanted = gw_http_query(request, "force");
    bool force = wanted && strcmp(wanted, "0") != 0;

    if (!vm)
        return;
    if (vm->migration[0]) {
        gw_api_refuse(request, GW_E_BUSY, "the VM is being moved",
                      "`godwit status` shows by what; cancel that first");
    } else if (vm->state == GW_VM_STARTING || vm->state == GW_VM_ENDING || vm->watcher) {
        gw_api_refuse(request, GW_E_STATE, "the VM is on its way up or down",
                      "wait some seconds and look at `godwit vm list`");
    } else if (!force && !gw_vm_can_talk(vm)) {
        gw_api_refuse(request, GW_E_STATE, "QEMU of this VM does not answer on QMP",
                      "`godwit vm stop --force` kills it");
    } else if (force) {
        gw_vm_end(vm, reply_later(request, 204));
    } else {
        gw_vm_power_down(vm);
        gw_http_reply(request, 202, gw_vm_to_json(vm));
    }
}

static void vms_resume(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_vm *vm = vm_of(gw_api_daemon(api), request);

    if (vm)
        gw_resume_start(vm, reply_later(request, 204));
}

struct resolve_request {
    struct gw_resolve_call call;
    struct gw_http_request *request;
};

static void resolve_done(struct gw_resolve_call *call, json_t *json, const struct gw_error *error)
{
    struct resolve_request *r = gw_container_of(call, struct resolve_request, call);

    if (error)
        gw_http_fail(r->request, error);
    else
        gw_http_reply(r->request, 200, json_incref(json));
    free(r);
}

static void resolve(struct gw_http_api *api, struct gw_http_request *request,
                    enum gw_resolve_action action)
{
    struct gw_resolve_request wanted = {.vm = gw_http_param(request, "vm"),
                                        .action = action,
                                        .dead = gw_api_optional(request, "dead"),
                                        .pool = gw_http_query(request, "pool"),
                                        .image = gw_http_query(request, "image")};
    struct resolve_request *r = calloc(1, sizeof *r);

    if (!r)
        abort();
    r->call.done = resolve_done;
    r->request = request;
    gw_resolve_start(gw_api_daemon(api), &wanted, &r->call);
}

static void resolve_show(struct gw_http_api *api, struct gw_http_request *request)
{
    resolve(api, request, GW_RESOLVE_ACTION_MAX);
}

static void resolve_act(struct gw_http_api *api, struct gw_http_request *request)
{
    static const char *const known[] = {"action", "dead", NULL};
    const char *action = gw_api_need(request, "action");

    if (!action || !gw_api_only_known(request, known))
        return;
    if (gw_resolve_action_from_name(action) == GW_RESOLVE_ACTION_MAX)
        gw_api_refuse(request, GW_E_USAGE, "there is no such action",
                      "the actions are: resume, discard, release, fence");
    else
        resolve(api, request, gw_resolve_action_from_name(action));
}

/* Nodes */

static json_t *node_json(struct gw_daemon *d, const struct gw_node *node)
{
    json_t *json = gw_node_to_json(node);

    json_object_set_new(json, "self",
                        json_boolean(strcmp(node->name, gw_nodes_self(d->nodes)) == 0));
    return json;
}

static void nodes_list(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    json_t *list = json_array();

    for (size_t i = 0; i < gw_nodes_count(d->nodes); i++)
        json_array_append_new(list, node_json(d, gw_nodes_at(d->nodes, i)));
    gw_http_reply(request, 200, list);
}

/* What `init` and `join` say of this node; what they leave out comes from the configuration. */
static int this_node(struct gw_daemon *d, struct gw_http_request *request, struct gw_node *node,
                     struct gw_error *error)
{
    const char *name = gw_api_optional(request, "name");
    const char *address = gw_api_optional(request, "address");
    const char *migration = gw_api_optional(request, "migration_address");
    char host[HOST_NAME_MAX + 1] = "";

    if (!name)
        name = d->config->name;
    if (!name && gethostname(host, sizeof host - 1) == 0) {
        host[strcspn(host, ".")] = '\0';
        name = host;
    }
    if (!address && strspn(d->config->listen_address, "0:.") != strlen(d->config->listen_address))
        address = d->config->listen_address;
    if (!migration)
        migration = d->config->migration_address;
    if (!name || !gw_node_name_valid(name)) {
        gw_error_set(error, GW_E_USAGE, "a node needs a name of letters, digits, '-', '_' and '.'");
        return gw_error_hint(error, "give --name, or set name in the daemon's configuration");
    }
    if (!address || !gw_node_address_valid(address)) {
        gw_error_set(error, GW_E_USAGE, "a node needs an address where the others reach it");
        return gw_error_hint(error, "give --address, or set listen in the daemon's configuration");
    }
    *node = (struct gw_node){.port = d->config->listen_port, .added_at_ms = gw_node_now_ms()};
    snprintf(node->name, sizeof node->name, "%s", name);
    snprintf(node->address, sizeof node->address, "%s", address);
    snprintf(node->migration_address, sizeof node->migration_address, "%s",
             migration ? migration : "");
    return 0;
}

static void node_init(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    struct gw_error error;
    struct gw_node node;

    if (this_node(d, request, &node, &error) < 0 ||
        gw_pki_init_ca(d->config->state_dir, node.name, &error) < 0) {
        gw_http_fail(request, &error);
        return;
    }
    node.ca = true;
    if (gw_nodes_set_self(d->nodes, node.name, &error) < 0 ||
        gw_nodes_put(d->nodes, &node, &error) < 0 || gw_daemon_open_peers(d, &error) < 0)
        gw_http_fail(request, &error);
    else
        gw_http_reply(request, 201, node_json(d, gw_nodes_find(d->nodes, node.name)));
}

static void node_invite(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    const struct gw_node *self = gw_nodes_find(d->nodes, gw_nodes_self(d->nodes));
    const json_t *wanted = json_object_get(gw_http_body(request), "ttl_s");
    json_int_t ttl_s = wanted ? json_integer_value(wanted) : TTL_DEFAULT_S;
    char text[GW_TOKEN_TEXT_MAX];
    struct gw_token token;
    struct gw_error error;

    if (!self || !d->pki.ca) {
        gw_api_refuse(request, GW_E_STATE, "this node cannot invite: it does not hold the CA's key",
                      "run `godwit node invite` on the node that `godwit node list` marks with ca");
        return;
    }
    if (ttl_s < 1 || ttl_s > TTL_MAX_S) {
        gw_api_refuse(request, GW_E_USAGE, "ttl_s must be from 1 second to 7 days",
                      "15 minutes: 900");
        return;
    }
    if (gw_token_make(d->config->state_dir, self->address, self->port, (int64_t)time(NULL) + ttl_s,
                      &token, &error) < 0) {
        gw_http_fail(request, &error);
        return;
    }
    gw_token_format(&token, text);
    gw_http_reply(request, 201,
                  json_pack("{s:s, s:o}", "token", text, "expires",
                            gw_iso_time(token.expires_at_s * 1000)));
}

struct join_request {
    struct gw_join_handler handler;
    struct gw_daemon *daemon;
    struct gw_http_request *request;
    struct gw_join *join;
};

static void join_done(struct gw_join_handler *handler, const struct gw_error *error)
{
    struct join_request *r = gw_container_of(handler, struct join_request, handler);
    struct gw_daemon *d = r->daemon;
    struct gw_error why;

    gw_join_free(r->join);
    if (error)
        gw_http_fail(r->request, error);
    else if (gw_daemon_open_peers(d, &why) < 0)
        gw_http_fail(r->request, &why);
    else
        gw_http_reply(r->request, 201,
                      node_json(d, gw_nodes_find(d->nodes, gw_nodes_self(d->nodes))));
    free(r);
}

static void node_join(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    const char *token = gw_api_need(request, "token");
    struct join_request *r;
    struct gw_error error;
    struct gw_node node;

    if (!token)
        return;
    if (this_node(d, request, &node, &error) < 0) {
        gw_http_fail(request, &error);
        return;
    }
    r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->handler.done = join_done;
    r->daemon = d;
    r->request = request;
    struct gw_join_args args = {
        .base = d->base,
        .dir = d->config->state_dir,
        .token = token,
        .name = node.name,
        .address = node.address,
        .port = node.port,
        .migration_address = node.migration_address,
        .nodes = d->nodes,
        .handler = &r->handler,
    };
    if (gw_join_start(&args, &r->join, &error) < 0) {
        gw_http_fail(request, &error);
        free(r);
    }
}

/* The rest */

static void events(struct gw_http_api *api, struct gw_http_request *request)
{
    (void)api;
    gw_http_events_add(request);
}

static void status(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    json_t *vms = json_array(), *migrations = json_array();
    struct gw_migration *m;
    struct gw_vm *vm;

    TAILQ_FOREACH (vm, &d->vms, link)
        json_array_append_new(vms, gw_vm_to_json(vm));
    TAILQ_FOREACH (m, &d->migrations, link)
        if (!m->only_check)
            json_array_append_new(migrations, gw_migration_to_json(m));
    gw_http_reply(request, 200,
                  json_pack("{s:s, s:s, s:b, s:o, s:o}", "version", GW_VERSION, "node",
                            gw_nodes_self(d->nodes), "ready", (int)(d->pki.ctx != NULL), "vms", vms,
                            "migrations", migrations));
}

static const struct gw_http_route routes[] = {
    {"GET", "/v1/status", status},
    {"GET", "/v1/events", events},
    {"GET", "/v1/vms", vms_list},
    {"POST", "/v1/vms", vms_start},
    {"POST", "/v1/vms/adopt", vms_adopt},
    {"GET", "/v1/vms/{name}", vms_show},
    {"DELETE", "/v1/vms/{name}", vms_stop},
    {"POST", "/v1/vms/{name}/resume", vms_resume},
    {"GET", "/v1/resolve/{vm}", resolve_show},
    {"POST", "/v1/resolve/{vm}", resolve_act},
    {"GET", "/v1/nodes", nodes_list},
    {"POST", "/v1/node/init", node_init},
    {"POST", "/v1/node/invite", node_invite},
    {"POST", "/v1/node/join", node_join},
    {"POST", "/v1/check", gw_api_check_start},
    {"GET", "/v1/migrations", gw_api_migrations_list},
    {"POST", "/v1/migrations", gw_api_migrations_start},
    {"GET", "/v1/migrations/{id}", gw_api_migrations_show},
    {"POST", "/v1/migrations/{id}", gw_api_migrations_set},
    {"DELETE", "/v1/migrations/{id}", gw_api_migrations_cancel},
    {"GET", "/v1/migrations/{id}/log", gw_api_migrations_log},
};

static const struct gw_http_api table = {routes, GW_ARRAY_SIZE(routes)};

int gw_api_open(struct gw_daemon *d, struct gw_error *error)
{
    d->api = table;
    return gw_http_new(d->base, &d->api, &d->log, d->config->socket, &d->http, error);
}

void gw_api_print_routes(FILE *out)
{
    gw_http_print_routes(&table, out);
}
