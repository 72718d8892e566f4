/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VM files. Three passes: gw_yamlpos refuses exotic YAML and records where everything stands,
 * libcyaml loads the text by a schema, gw_vm_check_spec() validates the values. Every scalar is
 * loaded as a string: libcyaml's own complaints about numbers would not say what is expected.
 */
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/vmspec.h"
#include "host/vmspec_check.h"
#include "host/yamlpos.h"

/* What libcyaml fills: the spec, and the scalars that are not strings in it. */
struct raw {
    struct gw_vm_spec spec;
    char *memory;
    char *cpus;
    char *accel;
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
    CYAML_FIELD_SEQUENCE_COUNT("qemu_args", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw,
                               spec.qemu_args, spec.n_qemu_args, &string_value, 0, GW_VM_MAX_ARGS),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t top_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw, top_fields)};

struct yaml_load {
    struct gw_vm_check check;
    struct gw_yamlpos pos;
    const char *file;
    /* what libcyaml logged about its first error */
    char reason[200];
    char field[64]; /* the innermost mapping field, or "" */
    size_t line;    /* of the last token of the innermost level; 0: unknown */
    size_t column;
    size_t depth; /* how many levels the backtrace has */
};

static void locate(struct gw_vm_check *check, const char *path, char *buf, size_t size)
{
    struct yaml_load *load = gw_container_of(check, struct yaml_load, check);
    size_t line = gw_yamlpos_line(&load->pos, path);

    if (line)
        snprintf(buf, size, "%.200s:%zu: ", load->file, line);
    else
        snprintf(buf, size, "%.200s: ", load->file);
}

/* libcyaml logs the reason, "Backtrace:" and then where it was, innermost first. */
static void __attribute__((format(printf, 3, 0)))
take_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
    struct yaml_load *load = ctx;
    const char *at;
    char text[256];

    (void)level;
    vsnprintf(text, sizeof text, fmt, args);
    text[strcspn(text, "\n")] = '\0';
    at = strstr(text, "(line: ");
    load->depth += at != NULL;
    if (at && load->line == 0)
        sscanf(at, "(line: %zu, column: %zu)", &load->line, &load->column);
    if (at && !load->field[0])
        sscanf(text, " in mapping field '%63[^']'", load->field);
    if (!at && !load->reason[0] && !strstr(text, "Backtrace"))
        snprintf(load->reason, sizeof load->reason, "%.190s",
                 strncmp(text, "Load: ", 6) == 0 ? text + 6 : text);
}

static const char *in_words(const char *word)
{
    if (strncmp(word, "SEQUENCE", 8) == 0)
        return "a list";
    if (strncmp(word, "MAPPING", 7) == 0)
        return "a mapping ('key: value' or {key: value})";
    return "a single value";
}

static const cyaml_schema_field_t *fields_at(const char *path)
{
    static const struct {
        const char *prefix;
        const cyaml_schema_field_t *fields;
    } inner[] = {{"boot.", boot_fields},
                 {"disks[", disk_fields},
                 {"nics[", nic_fields},
                 {"console.", console_fields}};

    for (unsigned i = 0; i < GW_ARRAY_SIZE(inner); i++)
        if (strncmp(path, inner[i].prefix, strlen(inner[i].prefix)) == 0)
            return inner[i].fields;
    return top_fields;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;

    return least < c ? least : c;
}

/* The number of letters to change, insert or remove. Both words have at most 32. */
static size_t distance(const char *a, const char *b)
{
    size_t row[34], diagonal, above;

    for (size_t j = 0; j <= strlen(b); j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; b[j]; j++) {
            above = row[j + 1];
            row[j + 1] = min3(above + 1, row[j] + 1, diagonal + (a[i] != b[j]));
            diagonal = above;
        }
    }
    return row[strlen(b)];
}

static void hint_keys(const char *key, const cyaml_schema_field_t *fields, struct gw_error *e)
{
    const char *best = NULL;
    size_t least = 3;
    char list[200] = "";

    for (; fields->key; fields++) {
        if (distance(key, fields->key) < least) {
            least = distance(key, fields->key);
            best = fields->key;
        }
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", *list ? ", " : "",
                 fields->key);
    }
    if (best && least < strlen(best))
        gw_error_hint(e, "did you mean '%s'?", best);
    else
        gw_error_hint(e, "the keys here are: %s", list);
}

static int unknown_key(struct yaml_load *load, const char *key)
{
    const struct gw_yamlpos_entry *entry =
        gw_yamlpos_after(&load->pos, key, load->depth, load->line, load->column);

    if (!entry)
        return gw_error_set(load->check.e, GW_E_CONFIG, "%s: unknown key '%s'", load->file, key);
    gw_error_set(load->check.e, GW_E_CONFIG, "%s:%zu: unknown key '%s'", load->file, entry->line,
                 key);
    hint_keys(key, fields_at(entry->path), load->check.e);
    return -1;
}

static int explain(struct yaml_load *load, cyaml_err_t err)
{
    char want[32], got[32], key[40];

    if (err == CYAML_ERR_OOM)
        return gw_error_set_sys(load->check.e, ENOMEM, "%s", load->file);
    if (sscanf(load->reason, "Unexpected key: %39[^\n]", key) == 1)
        return unknown_key(load, key);
    if (sscanf(load->reason, "Expecting %31[^,], got event: %31s", want, got) == 2)
        snprintf(load->reason, sizeof load->reason, "expected %s, found %s", in_words(want),
                 in_words(got));
    return gw_error_set(load->check.e, GW_E_CONFIG, "%s:%zu: %s%s%s", load->file,
                        load->line ? load->line : 1, load->field, load->field[0] ? ": " : "",
                        load->reason[0] ? load->reason : cyaml_strerror(err));
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
        cyaml_free(&(cyaml_config_t){.mem_fn = cyaml_mem}, &top_value, raw, 0);
        return NULL;
    }
    free(raw->memory);
    free(raw->cpus);
    free(raw->accel);
    free(raw);
    return rc == 0 ? gw_steal_ptr(&spec) : NULL;
}

int gw_vm_spec_from_yaml(const char *text, size_t len, const char *file, struct gw_vm_spec **specp,
                         struct gw_error *e)
{
    struct yaml_load load = {.check = {.locate = locate, .code = GW_E_CONFIG, .e = e},
                             .file = file};
    cyaml_config_t config = {.log_fn = take_log,
                             .log_ctx = &load,
                             .log_level = CYAML_LOG_ERROR,
                             .mem_fn = cyaml_mem,
                             .flags = CYAML_CFG_NO_ALIAS};
    struct gw_vm_spec *spec = NULL;
    struct raw *raw = NULL;
    cyaml_err_t err;

    if (len > GW_VM_TEXT_MAX_BYTES)
        return gw_error_set(e, GW_E_CONFIG, "%s: %zu bytes are too many for a VM file (at most %u)",
                            file, len, GW_VM_TEXT_MAX_BYTES);
    if (gw_yamlpos_init(&load.pos, text, len, file, e) < 0)
        return -1;
    err = cyaml_load_data((const uint8_t *)text, len, &config, &top_value, (void **)&raw, NULL);
    if (err != CYAML_OK)
        explain(&load, err);
    else if (!raw) /* libcyaml allocates nothing for a mapping without a single key */
        gw_error_set(e, GW_E_CONFIG, "%s: nothing in here", file);
    else
        spec = finish(&load, raw);
    gw_yamlpos_fini(&load.pos);
    if (!spec)
        return -1;
    *specp = spec;
    return 0;
}
