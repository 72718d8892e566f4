/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shell/error_json.h"
#include "shell/outgoing.h"
#include "shell/recover.h"
#include "util/cleanup.h"

/* A VM that was found again, until its QMP answers. */
struct found_vm {
    struct gw_vm_call call;
    struct gw_daemon *daemon;
    char name[64];
};

/* The callbacks of the journal may not write to it, so rows are collected first. */
struct row {
    STAILQ_ENTRY(row) link;
    json_t *json;
};

struct rows {
    struct gw_journal_on_vm on_vm;
    struct gw_journal_on_migration on_migration;
    STAILQ_HEAD(, row) list;
};

static int keep(struct rows *rows, json_t *json)
{
    struct row *row = calloc(1, sizeof *row);

    if (!row || !json)
        abort();
    row->json = json;
    STAILQ_INSERT_TAIL(&rows->list, row, link);
    return 0;
}

static int keep_vm(struct gw_journal_on_vm *visit, const struct gw_journal_vm *vm)
{
    return keep(gw_container_of(visit, struct rows, on_vm),
                json_pack("{s:s, s:O?, s:I, s:I, s:s*, s:s*, s:s*}", "name", vm->name, "whole",
                          vm->spec, "pid", (json_int_t)vm->pid, "start_time",
                          (json_int_t)vm->start_ticks, "qmp", vm->qmp_path, "rundir", vm->run_dir,
                          "migration", vm->migration));
}

static int keep_migration(struct gw_journal_on_migration *visit,
                          const struct gw_journal_migration *m)
{
    return keep(gw_container_of(visit, struct rows, on_migration),
                json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id", m->id, "vm", m->vm, "uuid",
                          m->uuid, "from", m->from_node, "to", m->to_node, "role", m->role, "phase",
                          m->phase));
}

static const char *text(const json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));

    return value ? value : "";
}

/* How a destination's migration ended that has no machine any more. */
enum verdict { RUNS, UNDONE, LOST };

static void close_row(struct gw_daemon *d, const char *id, enum verdict verdict)
{
    static const struct {
        const char *phase, *text;
    } ends[] = {
        [RUNS] = {"completed", "after a restart of the daemon: the guest runs here"},
        [UNDONE] = {"failed", "after a restart of the daemon: undone, the guest never ran here"},
        [LOST] = {"failed",
                  "after a restart of the daemon: QEMU is gone, and the guest may have run"},
    };
    struct gw_journal_note note = {.kind = GW_JOURNAL_LOG, .text = ends[verdict].text};
    struct gw_error error;
    struct timespec now;
    json_t *record = NULL;

    if (verdict == LOST) {
        gw_error_set(&error, GW_E_UNRESOLVED, "%s", note.text);
        record = json_pack("{s:o}", "error", gw_error_to_json(&error));
    }
    clock_gettime(CLOCK_REALTIME, &now);
    note.at_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    gw_journal_note(d->journal, id, &note, NULL);
    gw_journal_migration_end(d->journal, id, ends[verdict].phase, note.at_ms, record, NULL);
    gw_log(&d->log, GW_LOG_INFO, id, "%s", note.text);
    json_decref(record);
}

/* A destination's QEMU: its guest has run here, or it must go. */
static void judge_incoming(struct gw_daemon *d, struct gw_vm *vm)
{
    char id[sizeof vm->migration];
    bool runs = vm->has_run;

    memcpy(id, vm->migration, sizeof id);
    if (id[0])
        close_row(d, id, runs ? RUNS : UNDONE);
    if (!runs) {
        gw_vm_end(vm, NULL);
        return;
    }
    vm->migration[0] = '\0';
    vm->was_incoming = false;
    gw_vm_save(vm);
}

static void found(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error)
{
    struct found_vm *f = gw_container_of(call, struct found_vm, call);

    if (error)
        gw_log(&f->daemon->log, GW_LOG_ERROR, f->name, "found again, but: %s", error->msg);
    else
        gw_log(&f->daemon->log, GW_LOG_INFO, f->name, "found again, %s",
               gw_vm_state_name(vm->state));
    if (!error && vm->was_incoming)
        judge_incoming(f->daemon, vm);
    free(f);
}

static int claim_vm(struct gw_daemon *d, const json_t *row)
{
    const json_t *whole = json_object_get(row, "whole");
    const char *taps[GW_VM_MAX_NICS];
    struct gw_vm_claim claim = {
        .pid = (pid_t)json_integer_value(json_object_get(row, "pid")),
        .start_time = (uint64_t)json_integer_value(json_object_get(row, "start_time")),
        .qmp_path = text(row, "qmp"),
        .rundir = json_string_value(json_object_get(row, "rundir")),
        .foreign = json_is_true(json_object_get(whole, "foreign")),
        .incoming = json_is_true(json_object_get(whole, "incoming")),
        .ran = !json_is_false(json_object_get(whole, "ran")),
        .in_journal = true,
        .taps = taps,
    };
    const json_t *list = json_object_get(whole, "taps");
    int accel = gw_accel_from_name(text(whole, "accel"));
    struct gw_vm_spec *spec;
    struct found_vm *f;
    struct gw_error error;

    if (gw_vm_spec_from_json(json_object_get(whole, "spec"), &spec, &error) < 0) {
        gw_log(&d->log, GW_LOG_ERROR, text(row, "name"), "its journal entry: %s", error.msg);
        return -1;
    }
    claim.accel = accel < 0 ? GW_ACCEL_TCG : (enum gw_accel)accel;
    for (; claim.n_taps < json_array_size(list) && claim.n_taps < GW_VM_MAX_NICS; claim.n_taps++) {
        taps[claim.n_taps] = json_string_value(json_array_get(list, claim.n_taps));
        if (!taps[claim.n_taps])
            break;
    }
    f = calloc(1, sizeof *f);
    if (!f)
        abort();
    f->call.done = found;
    f->daemon = d;
    snprintf(f->name, sizeof f->name, "%s", spec->name);
    switch (gw_vm_take_over(d, spec, &claim, &f->call, &error)) {
    case 0: snprintf(gw_vm_find(d, f->name)->migration, 16, "%s", text(row, "migration")); return 0;
    case 1: gw_log(&d->log, GW_LOG_WARNING, f->name, "its QEMU has ended meanwhile"); break;
    default: gw_log(&d->log, GW_LOG_ERROR, f->name, "%s", error.msg); break;
    }
    free(f);
    return 0;
}

static bool is_past_commit(const char *phase)
{
    return strcmp(phase, gw_phase_name(GW_COMMITTING)) == 0 ||
           strcmp(phase, gw_phase_name(GW_FINISHING)) == 0;
}

static void take_up_incoming(struct gw_daemon *d, const json_t *row, struct gw_vm *vm)
{
    const char *id = text(row, "id");

    if (!vm) {
        close_row(d, id, is_past_commit(text(row, "phase")) ? LOST : UNDONE);
    } else if (!vm->was_incoming) {
        vm->migration[0] = '\0';
        close_row(d, id, RUNS);
    } else { /* judge_incoming() comes when its QMP has answered */
        snprintf(vm->migration, sizeof vm->migration, "%s", id);
    }
}

static void take_up(struct gw_daemon *d, const json_t *row)
{
    struct gw_vm *vm = gw_vm_find(d, text(row, "vm"));
    struct gw_error error;

    gw_log(&d->log, GW_LOG_WARNING, text(row, "id"), "left in %s as the %s by the last daemon",
           text(row, "phase"), text(row, "role"));
    if (strcmp(text(row, "role"), "source") != 0)
        take_up_incoming(d, row, vm);
    else if (gw_outgoing_recover(d, row, vm, &error) < 0)
        gw_log(&d->log, GW_LOG_ERROR, text(row, "id"), "%s", error.msg);
}

/* A VM must not stay bound to a migration that nobody drives. */
static void release_vms(struct gw_daemon *d)
{
    struct gw_vm *vm;

    TAILQ_FOREACH (vm, &d->vms, link)
        if (vm->migration[0] && !vm->was_incoming && !gw_migration_find(d, vm->migration))
            vm->migration[0] = '\0';
}

int gw_recover(struct gw_daemon *d, struct gw_error *error)
{
    struct rows rows = {.on_vm = {keep_vm}, .on_migration = {keep_migration}};
    struct row *row;
    bool migrations = false;

    STAILQ_INIT(&rows.list);
    if (gw_journal_vm_each(d->journal, &rows.on_vm, error) < 0)
        return -1;
    for (;;) {
        while ((row = STAILQ_FIRST(&rows.list))) {
            STAILQ_REMOVE_HEAD(&rows.list, link);
            if (migrations)
                take_up(d, row->json);
            else
                claim_vm(d, row->json);
            json_decref(row->json);
            free(row);
        }
        if (migrations) {
            release_vms(d);
            return 0;
        }
        migrations = true;
        if (gw_journal_migration_unfinished(d->journal, &rows.on_migration, error) < 0)
            return -1;
    }
}
