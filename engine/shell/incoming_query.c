/* SPDX-License-Identifier: Apache-2.0 */
/* What became of a migration: answers from the journal, after the machine of it has ended. */
#include <stdio.h>
#include <string.h>

#include "shell/daemon.h"
#include "shell/error_json.h"
#include "shell/incoming.h"
#include "shell/incoming_private.h"

bool gw_incoming_is_id(const char *id)
{
    return id && strlen(id) == 10 && strncmp(id, "m-", 2) == 0 &&
           strspn(id + 2, "0123456789abcdef") == 8;
}

/* What the journal says of an earlier migration. */
struct lookup {
    struct gw_journal_on_migration visit;
    char phase[32], role[16], peer[64];
    char code[32]; /* of the error that it ended with */
    bool open;     /* it has not ended */
};

static int look_at(struct gw_journal_on_migration *visit, const struct gw_journal_migration *row)
{
    struct lookup *l = gw_container_of(visit, struct lookup, visit);
    const char *code;

    l->open = row->ended_at_ms == 0;
    snprintf(l->phase, sizeof l->phase, "%s", row->phase);
    snprintf(l->role, sizeof l->role, "%s", row->role);
    snprintf(l->peer, sizeof l->peer, "%s", row->peer ? row->peer : "");
    code = json_string_value(json_object_get(json_object_get(row->record, "error"), "code"));
    snprintf(l->code, sizeof l->code, "%s", code ? code : "");
    return 0;
}

bool gw_incoming_is_known(struct gw_daemon *daemon, const char *id)
{
    struct lookup known = {.visit = {look_at}};

    return gw_journal_migration_get(daemon->journal, id, &known.visit, NULL) == 0;
}

/*
 * FAILED is a promise that the guest never ran here, so it is only given where the journal says so.
 * A source that asks was told PREPARED once: no row means that the journal was lost, not that
 * nothing happened.
 */
static enum gw_wire_type verdict(const struct lookup *l, const char *asking, struct gw_error *error)
{
    gw_error_set(error, GW_E_UNRESOLVED, "this node's journal does not know what became of it");
    gw_error_hint(error, "see `godwit vm list` on this node, and its log");
    if (strcmp(l->role, "destination") != 0 || strcmp(l->peer, asking) != 0)
        return GW_WIRE_LOST;
    if (l->open) /* after a restart: QEMU has not said yet whether the guest runs */
        return GW_WIRE_BUSY;
    if (strcmp(l->phase, gw_phase_name(GW_COMPLETED)) == 0)
        return GW_WIRE_RUNNING;
    gw_error_set(error, GW_E_UNRESOLVED, "QEMU was lost here when the guest may have begun to run");
    if (strcmp(l->code, gw_code_name(GW_E_UNRESOLVED)) == 0)
        return GW_WIRE_LOST;
    gw_error_set(error, GW_E_STATE, "the guest does not run here, and never did in this migration");
    gw_error_hint(error, "`godwit log` on this node tells why; start the migration again");
    return GW_WIRE_FAILED;
}

static void answer_from_journal(struct gw_daemon *daemon, struct gw_peer_conn *conn, const char *id)
{
    struct lookup l = {.visit = {look_at}};
    struct gw_error error;
    enum gw_wire_type answer;
    json_t *body;

    gw_journal_migration_get(daemon->journal, id, &l.visit, NULL);
    answer = verdict(&l, gw_peer_conn_name(conn), &error);
    body = json_pack("{s:s, s:o}", "id", id, "error", gw_error_to_json(&error));
    gw_peer_send(conn, answer, body, NULL);
    if (answer == GW_WIRE_FAILED)
        gw_peer_send(conn, GW_WIRE_ABORTED, NULL, NULL);
    json_decref(body);
    gw_daemon_part(daemon, conn);
}

/* A migration that goes on takes the new connection; one that has ended, the journal knows. */
void gw_incoming_query(struct gw_daemon *daemon, struct gw_peer_conn *conn, const json_t *body)
{
    const char *id = json_string_value(json_object_get(body, "id"));
    struct gw_migration *m = id ? gw_migration_find(daemon, id) : NULL;

    if (m && m->machine.role == GW_DESTINATION && strcmp(m->peer, gw_peer_conn_name(conn)) == 0) {
        gw_migration_set_conn(m, conn);
        gw_migration_message(m, GW_WIRE_QUERY, body);
    } else if (gw_incoming_is_id(id)) {
        answer_from_journal(daemon, conn, id);
    } else {
        gw_daemon_part(daemon, conn);
    }
}
