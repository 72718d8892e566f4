/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/argv.h"
#include "host/facts.h"
#include "host/qemubin.h"
#include "shell/daemon.h"
#include "shell/inspect.h"
#include "util/cleanup.h"

/* "qemu64,-svm,+cx16,pmu=off" as query-cpu-model-expansion wants it: {name, props{}}. */
static json_t *cpu_model(const char *cpu)
{
    gw_autofree char *text = gw_argv_cpu(cpu);
    char *rest = text, *word = strsep(&rest, ",");
    json_t *props = json_object(), *model;

    model = json_pack("{s:s, s:o}", "name", word ? word : "", "props", props);
    while ((word = strsep(&rest, ","))) {
        char *value = strchr(word, '=');

        if (value)
            *value++ = '\0';
        if (word[0] == '+' || word[0] == '-')
            json_object_set_new(props, word + 1, json_boolean(word[0] == '+'));
        else if (!value || strcmp(value, "on") == 0 || strcmp(value, "off") == 0)
            json_object_set_new(props, word, json_boolean(!value || strcmp(value, "on") == 0));
        else
            json_object_set_new(props, word, json_string(value));
    }
    return model;
}

static json_t *disks_of(const struct gw_vm_spec *spec, unsigned n_opened)
{
    json_t *list = json_array();

    for (size_t i = 0; i < spec->n_disks; i++) {
        const struct gw_vm_disk *disk = &spec->disks[i];

        json_array_append_new(
            list, disk->file ? gw_facts_disk(disk->file, disk->format, disk->readonly)
                             : gw_facts_rbd(disk->rbd, disk->format, disk->readonly, n_opened));
    }
    return list;
}

json_t *gw_inspect_bridges(const struct gw_vm_spec *spec)
{
    json_t *list = json_array();

    for (size_t i = 0; i < spec->n_nics; i++)
        if (spec->nics[i].bridge)
            json_array_append_new(list, json_string(spec->nics[i].bridge));
    return list;
}

/* Other VMs than the one that is asked about. */
static json_t *vms_of(struct gw_daemon *daemon, const struct gw_vm *except)
{
    json_t *list = json_array();
    struct gw_vm *vm;

    TAILQ_FOREACH (vm, &daemon->vms, link)
        if (vm != except && vm->spec->uuid)
            json_array_append_new(list, json_pack("{s:s, s:s}", "name", vm->spec->name, "uuid",
                                                  vm->spec->uuid));
    return list;
}

static void add_to(json_t *facts, const char *key, uint64_t n)
{
    json_t *value = json_object_get(facts, key);

    json_integer_set(value, json_integer_value(value) + (json_int_t)n);
}

/* What this node says as a destination, QEMU left out. */
static json_t *node_facts(struct gw_daemon *daemon, const struct gw_vm_spec *spec,
                          const struct gw_vm *vm, json_t *disks, struct gw_error *error)
{
    json_t *facts = gw_facts_host(gw_nodes_self(daemon->nodes), error);

    if (!facts)
        return NULL;
    json_object_set_new(facts, "mem_reserved_bytes",
                        json_integer((json_int_t)gw_daemon_reserved_bytes(daemon, vm)));
    if (vm)
        add_to(facts, "mem_available_bytes", gw_vm_prefaulted_bytes(vm));
    json_object_set_new(facts, "disks", disks ? json_incref(disks) : disks_of(spec, vm ? 1 : 0));
    json_object_set_new(facts, "vms", vms_of(daemon, vm));
    return facts;
}

/* A program that cannot be asked will not start either, and the launch says why. */
static void take_installed_version(struct gw_daemon *daemon, json_t *facts)
{
    const char *version;
    struct gw_error error;

    if (gw_qemu_binary_version(&daemon->qemu, daemon->config->qemu, &version, &error) < 0)
        gw_log(&daemon->log, GW_LOG_DEBUG, "qemu", "its version is not known: %s", error.msg);
    else
        json_object_set_new(facts, "qemu_version", json_string(version));
}

json_t *gw_inspect_early(struct gw_daemon *daemon, const struct gw_vm_spec *spec,
                         const json_t *source_facts)
{
    static const char *const as_there[] = {"qemu_version", "cpu_features", "capabilities"};
    json_t *facts = node_facts(daemon, spec, NULL, NULL, NULL);

    if (!facts)
        return NULL;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(as_there); i++)
        json_object_set(facts, as_there[i], json_object_get(source_facts, as_there[i]));
    json_object_set_new(facts, "machines",
                        json_pack("[O]", json_object_get(source_facts, "machine")));
    json_object_set_new(facts, "accels", json_pack("[O]", json_object_get(source_facts, "accel")));
    take_installed_version(daemon, facts);
    return facts;
}

static void add_qemu(json_t *facts, const struct gw_vm *vm, const json_t *replies)
{
    const json_t *version = json_object_get(vm->version, "qemu");
    const json_t *props =
        json_object_get(json_object_get(json_object_get(replies, "cpu"), "model"), "props");
    json_t *names = json_array(), *entry;
    char text[64];
    size_t i;

    snprintf(text, sizeof text, "%d.%d.%d",
             (int)json_integer_value(json_object_get(version, "major")),
             (int)json_integer_value(json_object_get(version, "minor")),
             (int)json_integer_value(json_object_get(version, "micro")));
    json_array_foreach (json_object_get(replies, "capabilities"), i, entry)
        json_array_append(names, json_object_get(entry, "capability"));
    json_object_set_new(facts, "qemu_version", json_string(text));
    json_object_set_new(facts, "cpu_features",
                        props ? gw_facts_cpu_features(props) : json_object());
    json_object_set_new(facts, "capabilities", names);
    json_object_set_new(facts, "offer",
                        json_pack("{s:O, s:O}", "capabilities",
                                  json_object_get(replies, "capabilities"), "parameters",
                                  json_object_get(replies, "parameters")));
    json_object_set_new(facts, "machines", gw_facts_machines(json_object_get(replies, "machines")));
    json_object_set_new(facts, "accels", json_pack("[s]", gw_accel_name(vm->accel)));
}

bool gw_inspect_has_channels(const json_t *yank)
{
    json_t *instance;
    size_t i;

    json_array_foreach (yank, i, instance) {
        const char *type = json_string_value(json_object_get(instance, "type"));

        if (type && strcmp(type, "migration") == 0)
            return true;
    }
    return false;
}

/* What only the node that has the guest can say. */
static void add_guest(json_t *facts, const struct gw_vm *vm, const json_t *replies)
{
    const struct gw_vm_spec *spec = vm->spec;
    json_t *blocked = json_object_get(json_object_get(replies, "migrate"), "blocked-reasons");
    const json_t *memdev = json_object_get(replies, "memdev");

    json_object_set_new(facts, "name", json_string(spec->name));
    json_object_set_new(facts, "uuid", json_string(spec->uuid));
    json_object_set_new(facts, "memory_bytes", json_integer((json_int_t)spec->memory_bytes));
    if (json_is_array(memdev))
        json_object_set_new(facts, "ram_backends",
                            json_integer((json_int_t)json_array_size(memdev)));
    json_object_set_new(facts, "machine", json_string(spec->machine));
    json_object_set_new(facts, "accel", json_string(gw_accel_name(vm->accel)));
    json_object_set_new(facts, "cpu_model", json_string(spec->cpu));
    json_object_set_new(facts, "blocked_reasons", blocked ? json_incref(blocked) : json_array());
    json_object_set_new(facts, "bridges", gw_inspect_bridges(spec));
    json_object_set_new(
        facts, "guest_runs",
        json_boolean(json_is_true(json_object_get(json_object_get(replies, "status"), "running"))));
}

/* Everything is known that this node can know. */
static void complete(struct gw_inspect *inspect)
{
    json_t *facts = gw_steal_ptr(&inspect->facts);

    inspect->done(inspect, facts, NULL);
    json_decref(facts);
}

static void ceph_answered(struct gw_ceph_ask *ask)
{
    complete(gw_container_of(ask, struct gw_inspect, ask));
}

static void look_at_disks(struct gw_inspect *inspect)
{
    if (inspect->disks || !gw_ceph_ask(inspect->vm->daemon->ceph, &inspect->ask,
                                       json_object_get(inspect->facts, "disks"), ceph_answered))
        complete(inspect);
}

static void hints_answered(struct gw_hints_ask *ask, enum gw_hints hints)
{
    struct gw_inspect *inspect = gw_container_of(ask, struct gw_inspect, hints);

    json_object_set_new(inspect->facts, "free_page_hints",
                        hints == GW_HINTS_UNKNOWN ? json_null()
                                                  : json_boolean(hints == GW_HINTS_ON));
    look_at_disks(inspect);
}

static void answered(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error)
{
    struct gw_inspect *inspect = gw_container_of(batch, struct gw_inspect, batch);
    struct gw_vm *vm = inspect->vm;
    struct gw_error why;
    json_t *facts;

    if (error) {
        inspect->done(inspect, NULL, error);
        return;
    }
    if (!vm->incoming && gw_inspect_has_channels(json_object_get(replies, "yank"))) {
        gw_error_set(&why, GW_E_BUSY,
                     "QEMU of %s is in a migration that Godwit did not start, or "
                     "has not cleaned up the last one",
                     vm->spec->name);
        gw_error_hint(&why, "wait for it to end; `query-migrate` on its QMP socket tells more");
        inspect->done(inspect, NULL, &why);
        return;
    }
    facts = node_facts(vm->daemon, vm->spec, vm, inspect->disks, &why);
    if (!facts) {
        inspect->done(inspect, NULL, &why);
        return;
    }
    add_qemu(facts, vm, replies);
    inspect->facts = facts;
    if (vm->incoming) {
        look_at_disks(inspect);
        return;
    }
    add_guest(facts, vm, replies);
    gw_hints_ask(&inspect->hints, vm->qmp, hints_answered);
}

void gw_inspect_start(struct gw_inspect *inspect, struct gw_vm *vm,
                      void (*done)(struct gw_inspect *, json_t *, const struct gw_error *))
{
    struct gw_qmp_batch *b = &inspect->batch;

    gw_inspect_fini(inspect);
    inspect->done = done;
    inspect->vm = vm;
    gw_qmp_batch_init(b, answered);
    gw_qmp_batch_add(b, vm->qmp, "status", false, "query-status", NULL);
    gw_qmp_batch_add(b, vm->qmp, "migrate", false, "query-migrate", NULL);
    gw_qmp_batch_add(b, vm->qmp, "capabilities", false, "query-migrate-capabilities", NULL);
    gw_qmp_batch_add(b, vm->qmp, "parameters", false, "query-migrate-parameters", NULL);
    gw_qmp_batch_add(b, vm->qmp, "machines", false, "query-machines", NULL);
    gw_qmp_batch_add(b, vm->qmp, "memdev", true, "query-memdev", NULL);
    gw_qmp_batch_add(b, vm->qmp, "yank", true, "query-yank", NULL);
    gw_qmp_batch_add(b, vm->qmp, "cpu", true, "query-cpu-model-expansion",
                     json_pack("{s:s, s:o}", "type", "full", "model", cpu_model(vm->spec->cpu)));
    gw_qmp_batch_end(b);
}

void gw_inspect_fini(struct gw_inspect *inspect)
{
    gw_qmp_batch_fini(&inspect->batch);
    gw_hints_ask_fini(&inspect->hints);
    gw_ceph_ask_cancel(&inspect->ask);
    json_decref(gw_steal_ptr(&inspect->facts));
}
