/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VM files. gw_yaml_load() checks and loads the text by a schema, gw_vm_check_spec() validates the
 * values. Every scalar is loaded as a string: libcyaml's own complaints about numbers would not say
 * what is expected.
 */
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/vmspec.h"
#include "host/vmspec_check.h"
#include "util/cleanup.h"
#include "util/yaml.h"

/* What libcyaml fills: the spec, and the scalars that are not strings in it. */
struct raw {
    struct gw_vm_spec spec;
    char *memory;
    char *cpus;
    char *accel;
    char *balloon;
};

#define TEXT(key, type, member)                                                            \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type, member, 0, \
                           CYAML_UNLIMITED)

static const cyaml_schema_field_t boot_fields[] = {
    TEXT("kernel", struct gw_vm_boot, kernel),
    TEXT("initrd", struct gw_vm_boot, initrd),
    TEXT("append", struct gw_vm_boot, append),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t disk_fields[] = {
    TEXT("rbd", struct gw_vm_disk, rbd),
    TEXT("file", struct gw_vm_disk, file),
    TEXT("format", struct gw_vm_disk, format),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t nic_fields[] = {
    TEXT("bridge", struct gw_vm_nic, bridge),
    TEXT("mac", struct gw_vm_nic, mac),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t console_fields[] = {
    TEXT("log", struct gw_vm_console, log),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t disk_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct gw_vm_disk, disk_fields)};
static const cyaml_schema_value_t nic_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct gw_vm_nic, nic_fields)};
static const cyaml_schema_value_t string_value = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED)};

static const cyaml_schema_field_t top_fields[] = {
    TEXT("name", struct raw, spec.name),
    TEXT("uuid", struct raw, spec.uuid),
    TEXT("memory", struct raw, memory),
    TEXT("cpus", struct raw, cpus),
    TEXT("cpu", struct raw, spec.cpu),
    TEXT("accel", struct raw, accel),
    TEXT("machine", struct raw, spec.machine),
    CYAML_FIELD_MAPPING("boot", CYAML_FLAG_OPTIONAL, struct raw, spec.boot, boot_fields),
    CYAML_FIELD_SEQUENCE_COUNT("disks", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw,
                               spec.disks, spec.n_disks, &disk_value, 0, GW_VM_MAX_DISKS),
    CYAML_FIELD_SEQUENCE_COUNT("nics", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw,
                               spec.nics, spec.n_nics, &nic_value, 0, GW_VM_MAX_NICS),
    CYAML_FIELD_MAPPING("console", CYAML_FLAG_OPTIONAL, struct raw, spec.console, console_fields),
    TEXT("balloon", struct raw, balloon),
    CYAML_FIELD_SEQUENCE_COUNT("qemu_args", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw,
                               spec.qemu_args, spec.n_qemu_args, &string_value, 0, GW_VM_MAX_ARGS),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t top_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw, top_fields)};

struct yaml_load {
    struct gw_vm_check check;
    const char *text, *file;
    size_t len;
};

/* "disks[1].file" to "disks.1.file" */
static void to_yaml_path(char *path)
{
    char *to = path;

    for (; *path; path++)
        if (*path != ']')
            *to++ = *path == '[' ? '.' : *path;
    *to = '\0';
}

static void locate(struct gw_vm_check *check, const char *path, char *buf, size_t size)
{
    struct yaml_load *load = gw_container_of(check, struct yaml_load, check);
    char yaml_path[256];
    size_t line;

    snprintf(yaml_path, sizeof yaml_path, "%s", path);
    to_yaml_path(yaml_path);
    line = gw_yaml_line(load->text, load->len, yaml_path);
    if (line)
        snprintf(buf, size, "%.200s:%zu: ", load->file, line);
    else
        snprintf(buf, size, "%.200s: ", load->file);
}

static int read_cpus(struct yaml_load *load, const char *text, unsigned *cpusp)
{
    unsigned long n = 1;
    char *end = NULL;

    if (text) {
        n = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
        if (!end || *end || n < 1 || n > GW_VM_MAX_CPUS)
            return gw_vm_check_fail(&load->check, "cpus", "'%.40s': must be from 1 to %u", text,
                                    GW_VM_MAX_CPUS);
    }
    *cpusp = (unsigned)n;
    return 0;
}

/* QEMU takes one balloon only: one that is asked for in its own words is meant to be the one. */
static bool brings_a_balloon(const struct gw_vm_spec *spec)
{
    for (size_t i = 0; i < spec->n_qemu_args; i++)
        if (strstr(spec->qemu_args[i], "virtio-balloon"))
            return true;
    return false;
}

static bool lacks_pci(const char *machine)
{
    return machine && (strncmp(machine, "microvm", strlen("microvm")) == 0 ||
                       strcmp(machine, "isapc") == 0 || strcmp(machine, "none") == 0);
}

static int read_balloon(struct yaml_load *load, const char *text, struct gw_vm_spec *spec)
{
    bool possible = !lacks_pci(spec->machine) && !brings_a_balloon(spec);
    int balloon =
        text ? gw_balloon_from_name(text) : (possible ? GW_BALLOON_HINTS : GW_BALLOON_NONE);

    if (balloon < 0)
        return gw_vm_check_fail(&load->check, "balloon", "'%.40s': must be free-page-hints or none",
                                text);
    if (balloon != GW_BALLOON_NONE && !possible)
        return gw_vm_check_fail(&load->check, "balloon",
                                lacks_pci(spec->machine)
                                    ? "this machine has no PCI bus for it"
                                    : "there is one in qemu_args already, and QEMU takes one only");
    spec->balloon = (enum gw_balloon)balloon;
    return 0;
}

static int read_scalars(struct yaml_load *load, const struct raw *raw, struct gw_vm_spec *spec)
{
    int accel = raw->accel ? gw_accel_from_name(raw->accel) : GW_ACCEL_AUTO;

    if (!spec->name)
        return gw_vm_check_fail(&load->check, "", "missing key 'name'");
    if (!raw->memory)
        return gw_vm_check_fail(&load->check, "", "missing key 'memory' (as in 'memory: 1GiB')");
    if (gw_vm_parse_size(raw->memory, &spec->memory_bytes) < 0)
        return gw_vm_check_fail(&load->check, "memory",
                                "'%.40s' is not a size such as 1GiB, 512MiB or 1073741824",
                                raw->memory);
    if (accel < 0)
        return gw_vm_check_fail(&load->check, "accel", "'%.40s': must be auto, kvm or tcg",
                                raw->accel);
    spec->accel = (enum gw_accel)accel;
    if (read_balloon(load, raw->balloon, spec) < 0)
        return -1;
    return read_cpus(load, raw->cpus, &spec->cpus);
}

/* The rest of the engine expects a NULL after the last string, libcyaml knows only the count. */
static int terminate(struct gw_vm_spec *spec, struct gw_error *e)
{
    char **more;

    if (!spec->qemu_args)
        return 0;
    more = realloc(spec->qemu_args, (spec->n_qemu_args + 1) * sizeof *more);
    if (!more)
        return gw_error_set_sys(e, ENOMEM, "VM file");
    more[spec->n_qemu_args] = NULL;
    spec->qemu_args = more;
    return 0;
}

/* Takes what is in raw, whose shell it frees. */
static struct gw_vm_spec *finish(struct yaml_load *load, struct raw *raw)
{
    gw_auto(vm_spec) struct gw_vm_spec *spec = calloc(1, sizeof *spec);
    int rc = -1;

    if (spec) {
        *spec = raw->spec;
        raw->spec = (struct gw_vm_spec){0};
        rc = terminate(spec, load->check.e);
        if (rc == 0)
            rc = read_scalars(load, raw, spec);
        if (rc == 0)
            rc = gw_vm_check_spec(&load->check, spec);
    } else {
        gw_error_set_sys(load->check.e, ENOMEM, "VM file");
        gw_yaml_free(&top_value, raw);
        return NULL;
    }
    free(raw->memory);
    free(raw->cpus);
    free(raw->accel);
    free(raw->balloon);
    free(raw);
    return rc == 0 ? gw_steal_ptr(&spec) : NULL;
}

int gw_vm_spec_from_yaml(const char *text, size_t len, const char *file, struct gw_vm_spec **specp,
                         struct gw_error *e)
{
    struct yaml_load load = {.check = {.locate = locate, .code = GW_E_CONFIG, .e = e},
                             .text = text,
                             .file = file,
                             .len = len};
    struct gw_vm_spec *spec;
    void *raw;

    if (gw_yaml_load(text, len, file, &top_value, &raw, e) < 0)
        return -1;
    spec = finish(&load, raw);
    if (!spec)
        return -1;
    *specp = spec;
    return 0;
}
