/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell/arrival.h"
#include "shell/hold.h"
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

static void found(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error)
{
    struct found_vm *f = gw_container_of(call, struct found_vm, call);

    if (error)
        gw_log(&f->daemon->log, GW_LOG_ERROR, f->name, "found again, but: %s", error->msg);
    else
        gw_log(&f->daemon->log, GW_LOG_INFO, f->name, "found again, %s",
               gw_vm_state_name(vm->state));
    if (error)
        gw_arrival_gone(f->daemon, f->name);
    else if (vm->was_incoming)
        gw_arrival_found(f->daemon, vm);
    else if (vm->void_owner.epoch)
        gw_hold_settle(vm, &vm->void_owner);
    free(f);
}

static void is_silent(struct gw_vm_call *call, struct gw_vm *vm)
{
    gw_arrival_silent(gw_container_of(call, struct found_vm, call)->daemon, vm);
}

static void read_owner(const json_t *json, struct gw_owner *owner)
{
    owner->epoch = (uint64_t)json_integer_value(json_object_get(json, "epoch"));
    snprintf(owner->node, sizeof owner->node, "%s", text(json, "node"));
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
        .contested = text(whole, "contested"),
        .migration = text(row, "migration"),
        .addresses = json_object_get(whole, "addresses"),
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
    read_owner(json_object_get(whole, "owner"), &claim.owner);
    read_owner(json_object_get(whole, "void_owner"), &claim.void_owner);
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
    f->call.silent = is_silent;
    f->daemon = d;
    snprintf(f->name, sizeof f->name, "%s", spec->name);
    if (claim.incoming)
        gw_arrival_remember(d, claim.migration, spec);
    switch (gw_vm_take_over(d, spec, &claim, &f->call, &error)) {
    case 0: return 0;
    case 1: gw_log(&d->log, GW_LOG_WARNING, f->name, "its QEMU has ended meanwhile"); break;
    default: gw_log(&d->log, GW_LOG_ERROR, f->name, "%s", error.msg); break;
    }
    free(f);
    return 0;
}

static void take_up(struct gw_daemon *d, const json_t *row)
{
    struct gw_vm *vm = gw_vm_find(d, text(row, "vm"));
    bool is_source = strcmp(text(row, "role"), "source") == 0;
    struct gw_error error;

    /* Its end could not be written, and the guest has come back since then. */
    if (is_source && vm && strcmp(vm->migration, text(row, "id")) != 0)
        vm = NULL;
    gw_log(&d->log, GW_LOG_WARNING, text(row, "id"), "left in %s as the %s by the last daemon",
           text(row, "phase"), text(row, "role"));
    if (!is_source)
        gw_arrival_take_up(d, text(row, "id"), text(row, "vm"), text(row, "uuid"),
                           gw_phase_from_name(text(row, "phase")), vm);
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
            gw_arrivals_sort_out(d);
            return 0;
        }
        migrations = true;
        if (gw_journal_migration_unfinished(d->journal, &rows.on_migration, error) < 0)
            return -1;
    }
}
