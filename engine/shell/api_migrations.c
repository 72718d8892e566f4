/* SPDX-License-Identifier: Apache-2.0 */
/* The API's migrations and checks. */
#include <stdlib.h>
#include <string.h>

#include "build_config.h"
#include "shell/api_private.h"
#include "shell/error_json.h"
#include "shell/outgoing.h"
#include "util/cleanup.h"

#define HISTORY_SHOWN 100

static int read_policy(struct gw_daemon *d, struct gw_http_request *request,
                       struct gw_outgoing_request *out, struct gw_policy *policy,
                       struct gw_error *error)
{
    const char *dirs[] = {d->config->policies_dir, GW_PRESETS_DIR};
    const char *name = gw_api_optional(request, "policy");

    if (gw_policy_load(name ? name : "default", dirs, GW_ARRAY_SIZE(dirs), policy, error) < 0 ||
        gw_policy_override(policy, gw_http_body(request), error) < 0)
        return -1;
    out->policy = policy->name;
    out->timeout_s = policy->timeout_s;
    out->wishes = (struct gw_native_wishes){
        .bandwidth_bytes_per_s = policy->bandwidth_bytes_per_s,
        .blackout_ms = policy->blackout_ms,
        .channels = policy->channels,
        .auto_channels = policy->channels == 0,
        .zstd = policy->codec == GW_POLICY_CODEC_ZSTD,
        .auto_codec = policy->codec == GW_POLICY_CODEC_AUTO,
        .zstd_level = policy->zstd_level,
        .carrier = policy->route == GW_POLICY_ROUTE_CARRIER,
        .fence_after_s = policy->fence_after_s,
        .prefault = policy->prefault,
    };
    out->auto_route = policy->route == GW_POLICY_ROUTE_AUTO;
    return 0;
}

static int read_transport(struct gw_http_request *request, struct gw_outgoing_request *out,
                          struct gw_error *error)
{
    out->transport = gw_api_optional(request, "transport");
    if (!out->transport)
        return 0;
    if (out->wishes.carrier)
        return gw_carrier_check_transport(out->transport, error);
    gw_error_set(error, GW_E_USAGE, "a transport is the carrier's, and the route is another one");
    return gw_error_hint(error, "say --route carrier as well");
}

static int read_verify(struct gw_http_request *request, struct gw_outgoing_request *out,
                       struct gw_error *error)
{
    const json_t *verify = json_object_get(gw_http_body(request), "verify");

    if (verify && !json_is_boolean(verify) && !json_is_null(verify))
        return gw_error_set(error, GW_E_USAGE, "verify is neither true nor false");
    out->wishes.verify = json_is_true(verify);
    return 0;
}

void gw_api_migrations_start(struct gw_http_api *api, struct gw_http_request *request)
{
    static const char *const known[] = {"vm",        "to",          "policy",    "route",
                                        "codec",     "bandwidth",   "channels",  "zstd_level",
                                        "timeout_s", "blackout_ms", "transport", "verify",
                                        "prefault",  NULL};
    struct gw_daemon *d = gw_api_daemon(api);
    struct gw_outgoing_request out = {0};
    struct gw_policy policy;
    struct gw_migration *m;
    struct gw_error error;

    if (!gw_api_only_known(request, known) || !(out.vm = gw_api_need(request, "vm")) ||
        !(out.to = gw_api_need(request, "to")))
        return;
    if (read_policy(d, request, &out, &policy, &error) < 0 ||
        read_transport(request, &out, &error) < 0 || read_verify(request, &out, &error) < 0 ||
        gw_outgoing_start(d, &out, &m, &error) < 0)
        gw_http_fail(request, &error);
    else
        gw_http_reply(request, 201, json_pack("{s:s}", "id", m->id));
}

struct check_request {
    struct gw_migration_watcher watcher;
    struct gw_http_request *request;
};

/* A check is a migration that was undone after it had been prepared: then it would have worked. */
static void check_ended(struct gw_migration_watcher *watcher, struct gw_migration *m)
{
    struct check_request *r = gw_container_of(watcher, struct check_request, watcher);
    bool ok = m->prepared && m->machine.phase == GW_CANCELLED;
    json_t *json = json_pack("{s:b, s:s, s:s, s:s, s:O, s:O}", "ok", (int)ok, "vm", m->vm_name,
                             "from", m->record.from, "to", m->record.to, "findings",
                             m->record.warnings, "decisions", m->record.decisions);

    if (!ok)
        json_object_set_new(json, "error", gw_error_to_json(&m->machine.error));
    gw_http_reply(r->request, 200, json);
    free(r);
}

void gw_api_check_start(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    static const char *const known[] = {"vm", "to", "policy", NULL};
    struct gw_outgoing_request out = {.only_check = true};
    struct gw_policy policy;
    struct check_request *r;
    struct gw_migration *m;
    struct gw_error error;

    if (!gw_api_only_known(request, known) || !(out.vm = gw_api_need(request, "vm")) ||
        !(out.to = gw_api_need(request, "to")))
        return;
    r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->watcher.ended = check_ended;
    r->request = request;
    out.watcher = &r->watcher;
    if (read_policy(d, request, &out, &policy, &error) < 0 ||
        gw_outgoing_start(d, &out, &m, &error) < 0) {
        gw_http_fail(request, &error);
        free(r);
    }
}

/* A row of the journal as the API shows it: the migration itself while it runs, else its record. */
static json_t *row_to_json(struct gw_daemon *d, const struct gw_journal_migration *row)
{
    const struct gw_migration *m = gw_migration_find(d, row->id);

    if (m)
        return gw_migration_to_json(m);
    if (json_object_get(row->record, "id"))
        return json_deep_copy(row->record);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id", row->id, "vm", row->vm, "uuid",
                     row->uuid, "from", row->from_node, "to", row->to_node, "role", row->role,
                     "state", row->phase);
}

struct collect {
    struct gw_journal_on_migration on_migration;
    struct gw_journal_on_note on_note;
    struct gw_daemon *daemon;
    json_t *list;
};

static int collect_migration(struct gw_journal_on_migration *visit,
                             const struct gw_journal_migration *row)
{
    struct collect *c = gw_container_of(visit, struct collect, on_migration);

    return json_array_append_new(c->list, row_to_json(c->daemon, row));
}

/* In a list a migration is a line: what is long stands in its own resource. */
static int collect_summary(struct gw_journal_on_migration *visit,
                           const struct gw_journal_migration *row)
{
    static const char *const details[] = {"rounds", "phases", "decisions", "warnings"};
    struct collect *c = gw_container_of(visit, struct collect, on_migration);
    json_t *json = row_to_json(c->daemon, row);

    for (unsigned i = 0; i < GW_ARRAY_SIZE(details); i++)
        json_object_del(json, details[i]);
    return json_array_append_new(c->list, json);
}

static int collect_note(struct gw_journal_on_note *visit, const struct gw_journal_note *note)
{
    struct collect *c = gw_container_of(visit, struct collect, on_note);

    if (note->kind == GW_JOURNAL_PHASE) /* the log has a line that says more */
        return 0;
    return json_array_append_new(
        c->list, json_pack("{s:I, s:s, s:s}", "at_ms", (json_int_t)note->at_ms, "kind",
                           gw_journal_kind_name(note->kind), "text", note->text));
}

static struct collect collect_for(struct gw_daemon *d)
{
    return (struct collect){{collect_migration}, {collect_note}, d, json_array()};
}

static void no_migration(struct gw_http_request *request, const struct gw_error *error)
{
    struct gw_error why = *error;

    if (why.code == GW_E_NOT_FOUND)
        gw_error_hint(&why, "`godwit status` lists those that this node knows");
    gw_http_fail(request, &why);
}

static void reply_list(struct gw_http_request *request, int result, struct collect *c,
                       const struct gw_error *error)
{
    if (result < 0) {
        json_decref(c->list);
        no_migration(request, error);
    } else {
        gw_http_reply(request, 200, c->list);
    }
}

void gw_api_migrations_list(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    struct collect c = collect_for(d);
    struct gw_error error;

    c.on_migration.fn = collect_summary;
    reply_list(request,
               gw_journal_migration_list(d->journal, HISTORY_SHOWN, &c.on_migration, &error), &c,
               &error);
}

void gw_api_migrations_show(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    struct collect c = collect_for(d);
    struct gw_error error;

    if (gw_journal_migration_get(d->journal, gw_http_param(request, "id"), &c.on_migration,
                                 &error) < 0)
        no_migration(request, &error);
    else
        gw_http_reply(request, 200, json_incref(json_array_get(c.list, 0)));
    json_decref(c.list);
}

void gw_api_migrations_log(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    struct collect c = collect_for(d);
    struct gw_error error;

    reply_list(request,
               gw_journal_notes(d->journal, gw_http_param(request, "id"), &c.on_note, &error), &c,
               &error);
}

void gw_api_migrations_set(struct gw_http_api *api, struct gw_http_request *request)
{
    static const char *const known[] = {"bandwidth", NULL};
    struct gw_daemon *d = gw_api_daemon(api);
    const char *id = gw_http_param(request, "id");
    const json_t *body = gw_http_body(request);
    struct gw_migration *m = gw_migration_find(d, id);
    struct gw_policy policy;
    struct gw_error error;
    struct collect c;

    if (!gw_api_only_known(request, known))
        return;
    c = collect_for(d);
    gw_policy_default(&policy);
    if (!m && gw_journal_migration_get(d->journal, id, &c.on_migration, &error) < 0) {
        no_migration(request, &error);
    } else if (!m) {
        gw_api_refuse(request, GW_E_STATE, "this migration has ended already",
                      "`godwit log` tells how");
    } else if (!json_object_get(body, "bandwidth") ||
               json_is_null(json_object_get(body, "bandwidth"))) {
        gw_api_refuse(request, GW_E_USAGE, "nothing to set is named",
                      "such as {\"bandwidth\": \"1gbit\"}");
    } else if (gw_policy_override(&policy, body, &error) < 0 ||
               gw_outgoing_set_bandwidth(m, policy.bandwidth_bytes_per_s, &error) < 0) {
        gw_http_fail(request, &error);
    } else {
        gw_http_reply(request, 202, json_pack("{s:s}", "id", m->id));
    }
    json_decref(c.list);
}

void gw_api_migrations_cancel(struct gw_http_api *api, struct gw_http_request *request)
{
    struct gw_daemon *d = gw_api_daemon(api);
    const char *id = gw_http_param(request, "id");
    struct gw_migration *m = gw_migration_find(d, id);
    struct collect c = collect_for(d);
    struct gw_error error;

    if (!m && gw_journal_migration_get(d->journal, id, &c.on_migration, &error) < 0) {
        no_migration(request, &error);
    } else if (!m) {
        gw_api_refuse(request, GW_E_STATE, "this migration has ended already",
                      "`godwit log` tells how");
    } else if (!gw_machine_can_cancel(&m->machine)) {
        gw_api_refuse(request, GW_E_STATE,
                      "it is too late: the guest is being handed over, or all is "
                      "being undone already",
                      "wait a moment and look at `godwit status`");
    } else {
        gw_migration_log(m, GW_LOG_INFO, "cancel was asked for");
        gw_migration_post(m, &(struct gw_event){.type = GW_EV_CANCEL});
        gw_http_reply(request, 202, json_pack("{s:s}", "id", m->id));
    }
    json_decref(c.list);
}
