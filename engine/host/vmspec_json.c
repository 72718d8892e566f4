/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/vmspec.h"
#include "host/vmspec_check.h"

/* The out-of-memory convention of jansson: setting a NULL value fails, so one flag is enough. */
static int put(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value);
}

static int put_string(json_t *object, const char *key, const char *value)
{
    return value ? put(object, key, json_string(value)) : 0;
}

/* Takes member, also on failure; an empty one is left out. */
static int put_container(json_t *object, const char *key, json_t *member)
{
    if (member && json_object_size(member) == 0 && json_array_size(member) == 0) {
        json_decref(member);
        return 0;
    }
    return put(object, key, member);
}

static int put_strings(json_t *object, const char *key, char *const *strings, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; array && i < n; i++)
        if (json_array_append_new(array, json_string(strings[i])) < 0) {
            json_decref(array);
            return -1;
        }
    return put_container(object, key, array);
}

static json_t *boot_to_json(const struct gw_vm_boot *boot)
{
    json_t *object = json_object();

    if (put_string(object, "kernel", boot->kernel) == 0 &&
        put_string(object, "initrd", boot->initrd) == 0 &&
        put_string(object, "append", boot->append) == 0)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *disk_to_json(const struct gw_vm_disk *disk)
{
    json_t *object = json_object();

    if (put_string(object, "rbd", disk->rbd) == 0 && put_string(object, "file", disk->file) == 0 &&
        put_string(object, "format", disk->format) == 0 &&
        (!disk->readonly || put(object, "readonly", json_true()) == 0))
        return object;
    json_decref(object);
    return NULL;
}

static json_t *nic_to_json(const struct gw_vm_nic *nic)
{
    json_t *object = json_object();

    if (put_string(object, "bridge", nic->bridge) == 0 && put_string(object, "mac", nic->mac) == 0)
        return object;
    json_decref(object);
    return NULL;
}

static int put_devices(json_t *object, const struct gw_vm_spec *spec)
{
    json_t *disks = json_array(), *nics = json_array();
    int rc = 0;

    for (size_t i = 0; i < spec->n_disks; i++)
        rc |= json_array_append_new(disks, disk_to_json(&spec->disks[i]));
    for (size_t i = 0; i < spec->n_nics; i++)
        rc |= json_array_append_new(nics, nic_to_json(&spec->nics[i]));
    rc |= put_container(object, "disks", disks);
    rc |= put_container(object, "nics", nics);
    return rc;
}

static json_t *console_to_json(const struct gw_vm_console *console)
{
    json_t *object = json_object();

    if (put_string(object, "log", console->log) == 0)
        return object;
    json_decref(object);
    return NULL;
}

json_t *gw_vm_spec_to_json(const struct gw_vm_spec *spec)
{
    json_t *object = json_object();
    int rc = 0;

    rc |= put_string(object, "name", spec->name);
    rc |= put_string(object, "uuid", spec->uuid);
    rc |= put(object, "memory_bytes", json_integer((json_int_t)spec->memory_bytes));
    rc |= put(object, "cpus", json_integer(spec->cpus));
    rc |= put_string(object, "cpu", spec->cpu);
    rc |= put_string(object, "accel", gw_accel_name(spec->accel));
    rc |= put_string(object, "machine", spec->machine);
    rc |= put_container(object, "boot", boot_to_json(&spec->boot));
    rc |= put_devices(object, spec);
    rc |= put_container(object, "console", console_to_json(&spec->console));
    if (spec->balloon != GW_BALLOON_NONE)
        rc |= put_string(object, "balloon", gw_balloon_name(spec->balloon));
    rc |= put_strings(object, "qemu_args", spec->qemu_args, spec->n_qemu_args);
    rc |= put_strings(object, "adopted_argv", spec->adopted_argv, spec->n_adopted_argv);
    if (rc == 0)
        return object;
    json_decref(object);
    return NULL;
}

/* Reading: a table says which members an object may have and where they go. */
enum member_type {
    STRING,
    BYTES,
    COUNT,
    ACCEL,
    BALLOON,
    BOOLEAN,
    STRINGS,
    BOOT,
    CONSOLE,
    DISKS,
    NICS
};

struct member {
    const char *key;
    enum member_type type;
    size_t offset;   /* of the value */
    size_t n_offset; /* of the element count, for arrays */
};

#define SPEC(type, field)                                   \
    {                                                       \
#field, type, offsetof(struct gw_vm_spec, field), 0 \
    }
#define ARRAY(type, field)                                                                       \
    {                                                                                            \
#field, type, offsetof(struct gw_vm_spec, field), offsetof(struct gw_vm_spec, n_##field) \
    }
#define PART(of, type, field)                       \
    {                                               \
#field, type, offsetof(struct of, field), 0 \
    }

static const struct member spec_members[] = {
    SPEC(STRING, name),
    SPEC(STRING, uuid),
    SPEC(BYTES, memory_bytes),
    SPEC(COUNT, cpus),
    SPEC(STRING, cpu),
    SPEC(ACCEL, accel),
    SPEC(STRING, machine),
    SPEC(BOOT, boot),
    ARRAY(DISKS, disks),
    ARRAY(NICS, nics),
    SPEC(CONSOLE, console),
    SPEC(BALLOON, balloon),
    ARRAY(STRINGS, qemu_args),
    ARRAY(STRINGS, adopted_argv),
    {NULL},
};
static const struct member boot_members[] = {
    PART(gw_vm_boot, STRING, kernel),
    PART(gw_vm_boot, STRING, initrd),
    PART(gw_vm_boot, STRING, append),
    {NULL},
};
static const struct member disk_members[] = {
    PART(gw_vm_disk, STRING, rbd),
    PART(gw_vm_disk, STRING, file),
    PART(gw_vm_disk, STRING, format),
    PART(gw_vm_disk, BOOLEAN, readonly),
    {NULL},
};
static const struct member nic_members[] = {
    PART(gw_vm_nic, STRING, bridge),
    PART(gw_vm_nic, STRING, mac),
    {NULL},
};
static const struct member console_members[] = {PART(gw_vm_console, STRING, log), {NULL}};

#define JSON_PATH_SIZE 64

static int read_object(struct gw_vm_check *check, const char *path, const json_t *json,
                       const struct member *members, void *base);

static int no_memory(struct gw_vm_check *check)
{
    return gw_error_set_sys(check->e, ENOMEM, "VM spec");
}

static int read_string(struct gw_vm_check *check, const char *path, const json_t *json,
                       char **stringp)
{
    if (!json_is_string(json))
        return gw_vm_check_fail(check, path, "expected a string");
    if (strlen(json_string_value(json)) != json_string_length(json))
        return gw_vm_check_fail(check, path, "a NUL byte in a string");
    *stringp = strdup(json_string_value(json));
    return *stringp ? 0 : no_memory(check);
}

static int read_strings(struct gw_vm_check *check, const char *path, const json_t *json,
                        char ***stringsp, size_t *np)
{
    char element[JSON_PATH_SIZE];

    if (!json_is_array(json) || json_array_size(json) > GW_VM_MAX_ARGS)
        return gw_vm_check_fail(check, path, "expected a list of at most %u", GW_VM_MAX_ARGS);
    if (json_array_size(json) == 0)
        return 0;
    *stringsp = calloc(json_array_size(json) + 1, sizeof **stringsp);
    if (!*stringsp)
        return no_memory(check);
    for (; *np < json_array_size(json); ++*np) {
        snprintf(element, sizeof element, "%.40s[%zu]", path, *np);
        if (read_string(check, element, json_array_get(json, *np), &(*stringsp)[*np]) < 0)
            return -1;
    }
    return 0;
}

static int read_objects(struct gw_vm_check *check, const char *path, const json_t *json,
                        const struct member *members, size_t size, size_t max, void **arrayp,
                        size_t *np)
{
    char element[JSON_PATH_SIZE];
    size_t n = json_array_size(json);

    if (!json_is_array(json) || n > max)
        return gw_vm_check_fail(check, path, "expected a list of at most %zu", max);
    if (n == 0)
        return 0;
    *arrayp = calloc(n, size);
    if (!*arrayp)
        return no_memory(check);
    *np = n;
    for (size_t i = 0; i < n; i++) {
        snprintf(element, sizeof element, "%.40s[%zu]", path, i);
        if (read_object(check, element, json_array_get(json, i), members,
                        (char *)*arrayp + i * size) < 0)
            return -1;
    }
    return 0;
}

static int read_number(struct gw_vm_check *check, const char *path, const json_t *json,
                       json_int_t max, json_int_t *np)
{
    if (!json_is_integer(json) || json_integer_value(json) < 0 || json_integer_value(json) > max)
        return gw_vm_check_fail(check, path, "expected an integer from 0 to %lld", (long long)max);
    *np = json_integer_value(json);
    return 0;
}

static int read_accel(struct gw_vm_check *check, const char *path, const json_t *json,
                      enum gw_accel *accelp)
{
    int accel = gw_accel_from_name(json_string_value(json));

    if (accel < 0)
        return gw_vm_check_fail(check, path, "expected \"auto\", \"kvm\" or \"tcg\"");
    *accelp = (enum gw_accel)accel;
    return 0;
}

static int read_balloon(struct gw_vm_check *check, const char *path, const json_t *json,
                        enum gw_balloon *balloonp)
{
    int balloon = gw_balloon_from_name(json_string_value(json));

    if (balloon < 0)
        return gw_vm_check_fail(check, path, "expected \"none\" or \"free-page-hints\"");
    *balloonp = (enum gw_balloon)balloon;
    return 0;
}

static int read_member(struct gw_vm_check *check, const char *path, const json_t *json,
                       const struct member *member, char *base)
{
    void *value = base + member->offset;
    size_t *np = (size_t *)(void *)(base + member->n_offset);
    json_int_t n = 0;
    int rc;

    switch (member->type) {
    case STRING: return read_string(check, path, json, value);
    case STRINGS: return read_strings(check, path, json, value, np);
    case ACCEL: return read_accel(check, path, json, value);
    case BALLOON: return read_balloon(check, path, json, value);
    case BOOT: return read_object(check, path, json, boot_members, value);
    case CONSOLE: return read_object(check, path, json, console_members, value);
    case DISKS:
        return read_objects(check, path, json, disk_members, sizeof(struct gw_vm_disk),
                            GW_VM_MAX_DISKS, value, np);
    case NICS:
        return read_objects(check, path, json, nic_members, sizeof(struct gw_vm_nic),
                            GW_VM_MAX_NICS, value, np);
    case BYTES:
        rc = read_number(check, path, json, (json_int_t)GW_VM_MEMORY_MAX_BYTES, &n);
        *(uint64_t *)value = (uint64_t)n;
        return rc;
    case COUNT:
        rc = read_number(check, path, json, GW_VM_MAX_CPUS, &n);
        *(unsigned *)value = (unsigned)n;
        return rc;
    case BOOLEAN:
        *(bool *)value = json_is_true(json);
        return json_is_boolean(json) ? 0 : gw_vm_check_fail(check, path, "expected true or false");
    }
    return gw_vm_check_fail(check, path, "unknown type");
}

static int read_object(struct gw_vm_check *check, const char *path, const json_t *json,
                       const struct member *members, void *base)
{
    char inner[JSON_PATH_SIZE];
    const struct member *member;
    const char *key;
    json_t *value;

    if (!json_is_object(json))
        return gw_vm_check_fail(check, path, "expected an object");
    json_object_foreach ((json_t *)json, key, value) {
        for (member = members; member->key && strcmp(member->key, key) != 0; member++)
            ;
        if (!member->key)
            return gw_vm_check_fail(check, path, "unknown member '%.64s'", key);
        snprintf(inner, sizeof inner, "%s%s%s", path, *path ? "." : "", key);
        if (read_member(check, inner, value, member, base) < 0)
            return -1;
    }
    return 0;
}

static void locate(struct gw_vm_check *check, const char *path, char *buf, size_t size)
{
    (void)check;
    (void)path;
    snprintf(buf, size, "VM spec: ");
}

int gw_vm_spec_from_json(const json_t *json, struct gw_vm_spec **specp, struct gw_error *e)
{
    struct gw_vm_check check = {.locate = locate, .code = GW_E_PROTOCOL, .e = e};
    gw_auto(vm_spec) struct gw_vm_spec *spec = calloc(1, sizeof *spec);

    if (!spec)
        return no_memory(&check);
    spec->cpus = 1;
    if (read_object(&check, "", json, spec_members, spec) < 0 || gw_vm_check_spec(&check, spec) < 0)
        return -1;
    *specp = gw_steal_ptr(&spec);
    return 0;
}
