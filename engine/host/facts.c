/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "host/facts.h"
#include "host/process.h"
#include "host/tap.h"
#include "util/cleanup.h"

int gw_facts_boot_id(char out[37], struct gw_error *e)
{
    static const char path[] = "/proc/sys/kernel/random/boot_id";
    gw_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (fd < 0)
        return gw_error_set_sys(e, errno, "open %s", path);
    got = read(fd, out, 36);
    out[got > 0 ? got : 0] = '\0';
    if (got != 36)
        return gw_error_set_sys(e, got < 0 ? errno : EIO, "read %s", path);
    return 0;
}

int gw_facts_mem_available(uint64_t *bytesp, struct gw_error *e)
{
    static const char path[] = "/proc/meminfo";
    FILE *file = fopen(path, "re");
    bool found = false;
    char line[256];

    if (!file)
        return gw_error_set_sys(e, errno, "open %s", path);
    while (!found && fgets(line, sizeof line, file)) {
        uint64_t kib;

        found = sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1;
        if (found)
            *bytesp = kib * 1024;
    }
    fclose(file);
    return found ? 0 : gw_error_set(e, GW_E_UNSUPPORTED, "%s has no MemAvailable", path);
}

static json_t *bridge_names(void)
{
    gw_autofree char(*names)[IFNAMSIZ] = NULL;
    json_t *array = json_array();
    size_t n = 0;

    if (gw_bridge_list(&names, &n) < 0)
        n = 0;
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_string(names[i]));
    return array;
}

json_t *gw_facts_host(const char *node, struct gw_error *e)
{
    struct utsname uts;
    char boot_id[37];
    uint64_t bytes;
    json_t *facts;

    if (gw_facts_boot_id(boot_id, e) < 0 || gw_facts_mem_available(&bytes, e) < 0)
        return NULL;
    uname(&uts);
    facts =
        json_pack("{s:s, s:s, s:s, s:I, s:o}", "node", node, "boot_id", boot_id, "kernel",
                  uts.release, "mem_available_bytes", (json_int_t)bytes, "bridges", bridge_names());
    if (!facts)
        gw_error_set_sys(e, ENOMEM, "gather the facts of node %s", node);
    return facts;
}

/* The digits and dots after the first word "version". */
static int find_version(const char *text, char out[32])
{
    const char *at = strstr(text, "version ");
    size_t n;

    if (!at)
        return -1;
    at += strlen("version ");
    n = strspn(at, "0123456789.");
    if (n == 0 || n >= 32)
        return -1;
    memcpy(out, at, n);
    out[n] = '\0';
    return 0;
}

int gw_facts_qemu_version(const char *qemu, char out[32], struct gw_error *e)
{
    gw_autoclose int fd = memfd_create("godwit-version", MFD_CLOEXEC);
    char *argv[] = {(char *)qemu, (char *)"--version", NULL};
    char path[64], text[200], how[64];
    struct gw_process_exit ex = {0};
    struct gw_process p;
    int ended;

    if (fd < 0)
        return gw_error_set_sys(e, errno, "make a memory file");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (gw_process_start(argv, path, &p, e) < 0)
        return -1;
    ended = poll(&(struct pollfd){.fd = p.pidfd, .events = POLLIN}, 1, 5000);
    if (ended != 1) {
        gw_process_signal(&p, SIGKILL);
        poll(&(struct pollfd){.fd = p.pidfd, .events = POLLIN}, 1, 2000);
    }
    gw_process_reap(&p, &ex);
    gw_process_fini(&p);
    if (ended != 1)
        return gw_error_set(e, GW_E_TIMEOUT, "%s --version did not end within 5 s", qemu);
    gw_process_log_tail(path, 0, text, sizeof text);
    gw_process_exit_text(&ex, how, sizeof how);
    if (ex.signaled || ex.value != 0)
        return gw_error_set(e, GW_E_QEMU, "%s --version %s: %s", qemu, how, text);
    if (find_version(text, out) < 0)
        return gw_error_set(e, GW_E_QEMU, "%s --version names no version: %s", qemu, text);
    return 0;
}

/* Properties of QEMU's CPU object that say how to make a CPU, not what it can do. */
static bool is_no_feature(const char *name)
{
    static const char *const others[] = {
        "check",
        "cpuid-0xb",
        "enforce",
        "fill-mtrr-mask",
        "host-cache-info",
        "full-cpuid-auto-level",
        "full-width-write",
        "host-phys-bits",
        "hotpluggable",
        "hotplugged",
        "kvm",
        "l3-cache",
        "legacy-cache",
        "legacy-multi-node",
        "migratable",
        "realized",
        "start-powered-off",
        "tcg-cpuid",
        "vmware-cpuid-freq",
    };

    if (strncmp(name, "x-", 2) == 0)
        return true;
    for (size_t i = 0; i < GW_ARRAY_SIZE(others); i++)
        if (strcmp(name, others[i]) == 0)
            return true;
    return false;
}

/* QEMU's aliases (target/i386/cpu.c, x86_cpu_initfn), as they are after '_' became '-'. */
static const char *resolve_alias(const char *name)
{
    static const char *const aliases[][2] = {
        {"sse3", "pni"}, {"pclmuldq", "pclmulqdq"}, {"sse4-1", "sse4.1"}, {"sse4-2", "sse4.2"},
        {"xd", "nx"},    {"ffxsr", "fxsr-opt"},     {"i64", "lm"},
    };

    for (size_t i = 0; i < GW_ARRAY_SIZE(aliases); i++)
        if (strcmp(name, aliases[i][0]) == 0)
            return aliases[i][1];
    return name;
}

json_t *gw_facts_cpu_features(const json_t *props)
{
    json_t *features = json_object(), *value;
    const char *key;

    json_object_foreach ((json_t *)props, key, value) {
        char name[64];

        if (!json_is_true(value) || strlen(key) >= sizeof name)
            continue;
        strcpy(name, key);
        for (char *c = name; *c; c++)
            if (*c == '_')
                *c = '-';
        if (!is_no_feature(name))
            json_object_set_new(features, resolve_alias(name), json_true());
    }
    return features;
}

json_t *gw_facts_machines(const json_t *machines)
{
    json_t *names = json_array(), *machine;
    size_t i;

    json_array_foreach ((json_t *)machines, i, machine) {
        json_t *name = json_object_get(machine, "name"), *alias = json_object_get(machine, "alias");

        if (json_is_string(name))
            json_array_append(names, name);
        if (json_is_string(alias))
            json_array_append(names, alias);
    }
    return names;
}

enum { MAX_DEPTH = 6, MAX_MEMBERS = 4096, MAX_STRING = 4096 };

/* jansson has checked that it is UTF-8. */
static int check_text(const char *text, size_t n, struct gw_error *e)
{
    if (n > MAX_STRING)
        return gw_error_set(e, GW_E_PROTOCOL, "a text of %zu bytes: at most %d", n, MAX_STRING);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f ||
            ((unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0))
            return gw_error_set(e, GW_E_PROTOCOL, "a text with a control character");
    return 0;
}

static int check_value(const json_t *json, unsigned depth, struct gw_error *e)
{
    const char *key;
    json_t *value;
    size_t i;

    if (depth > MAX_DEPTH)
        return gw_error_set(e, GW_E_PROTOCOL, "nested more than %d deep", MAX_DEPTH);
    if (json_is_string(json))
        return check_text(json_string_value(json), json_string_length(json), e);
    if (json_array_size(json) > MAX_MEMBERS || json_object_size(json) > MAX_MEMBERS)
        return gw_error_set(e, GW_E_PROTOCOL, "more than %d members", MAX_MEMBERS);
    json_array_foreach ((json_t *)json, i, value) {
        if (check_value(value, depth + 1, e) < 0)
            return -1;
    }
    json_object_foreach ((json_t *)json, key, value) {
        if (check_text(key, strlen(key), e) < 0 || check_value(value, depth + 1, e) < 0)
            return -1;
    }
    return 0;
}

int gw_facts_sane(const json_t *json, struct gw_error *e)
{
    return check_value(json, 1, e);
}

/* What a fact must be. */
enum type { TEXT, SIZE, NUMBER, FLAG, TEXTS, FLAGS, DISKS, VMS };

enum { ON_SOURCE = 1, ON_DESTINATION = 2, ON_BOTH = 3, OPTIONAL = 4 };

struct field {
    const char *key;
    enum type type;
    unsigned where;
};

static const struct field fact_fields[] = {
    {"node", TEXT, ON_BOTH},
    {"boot_id", TEXT, ON_BOTH},
    {"kernel", TEXT, ON_BOTH | OPTIONAL},
    {"qemu_version", TEXT, ON_BOTH},
    {"cpu_features", FLAGS, ON_BOTH},
    {"disks", DISKS, ON_BOTH},
    {"bridges", TEXTS, ON_BOTH},
    {"capabilities", TEXTS, ON_BOTH},
    {"name", TEXT, ON_SOURCE},
    {"uuid", TEXT, ON_SOURCE},
    {"memory_bytes", SIZE, ON_SOURCE},
    {"ram_backends", SIZE, ON_SOURCE | OPTIONAL},
    {"machine", TEXT, ON_SOURCE},
    {"accel", TEXT, ON_SOURCE},
    {"cpu_model", TEXT, ON_SOURCE},
    {"blocked_reasons", TEXTS, ON_SOURCE},
    {"machines", TEXTS, ON_DESTINATION},
    {"accels", TEXTS, ON_DESTINATION},
    {"mem_available_bytes", SIZE, ON_DESTINATION},
    {"mem_reserved_bytes", SIZE, ON_DESTINATION},
    {"vms", VMS, ON_DESTINATION},
    {NULL},
};

static const struct field disk_fields[] = {
    {"kind", TEXT, ON_BOTH},
    {"path", TEXT, ON_BOTH},
    {"format", TEXT, ON_BOTH},
    {"read_only", FLAG, ON_BOTH},
    {"exists", FLAG, ON_BOTH},
    {"error", TEXT, ON_BOTH | OPTIONAL},
    {"readable", FLAG, ON_BOTH | OPTIONAL},
    {"writable", FLAG, ON_BOTH | OPTIONAL},
    {"shared", FLAG, ON_BOTH | OPTIONAL},
    {"size_bytes", SIZE, ON_BOTH | OPTIONAL},
    {"inode", NUMBER, ON_BOTH | OPTIONAL},
    {"device", TEXT, ON_BOTH | OPTIONAL},
    {"fs", TEXT, ON_BOTH | OPTIONAL},
    {"probed_format", TEXT, ON_BOTH | OPTIONAL},
    {"serial", TEXT, ON_BOTH | OPTIONAL},
    {NULL},
};

static const struct field vm_fields[] = {
    {"name", TEXT, ON_BOTH},
    {"uuid", TEXT, ON_BOTH},
    {NULL},
};

static int check_fields(const json_t *object, const struct field *fields, unsigned where,
                        struct gw_error *e);

static int check_each_object(const json_t *array, const struct field *fields, struct gw_error *e)
{
    if (!json_is_array(array))
        return gw_error_set(e, GW_E_PROTOCOL, "no array");
    for (size_t i = 0; i < json_array_size(array); i++)
        if (check_fields(json_array_get(array, i), fields, ON_BOTH, e) < 0)
            return gw_error_prefix(e, "%zu", i);
    return 0;
}

static bool all_texts(const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++)
        if (!json_is_string(json_array_get(array, i)))
            return false;
    return json_is_array(array);
}

static bool all_flags(const json_t *object)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)object, key, value) {
        if (!json_is_boolean(value))
            return false;
    }
    return json_is_object(object);
}

static int check_type(const json_t *value, enum type type, struct gw_error *e)
{
    bool good = false;

    switch (type) {
    case TEXT: good = json_is_string(value); break;
    case SIZE: good = json_is_integer(value) && json_integer_value(value) >= 0; break;
    case NUMBER: good = json_is_integer(value); break;
    case FLAG: good = json_is_boolean(value); break;
    case TEXTS: good = all_texts(value); break;
    case FLAGS: good = all_flags(value); break;
    case DISKS: return check_each_object(value, disk_fields, e);
    case VMS: return check_each_object(value, vm_fields, e);
    }
    return good ? 0 : gw_error_set(e, GW_E_PROTOCOL, "not of the right type");
}

/* Keys that are not in the list may come from a newer peer, and are let pass. */
static int check_fields(const json_t *object, const struct field *fields, unsigned where,
                        struct gw_error *e)
{
    if (!json_is_object(object))
        return gw_error_set(e, GW_E_PROTOCOL, "no object");
    for (const struct field *f = fields; f->key; f++) {
        const json_t *value = json_object_get(object, f->key);

        if (!(f->where & where) || (!value && (f->where & OPTIONAL)))
            continue;
        if (!value)
            return gw_error_set(e, GW_E_PROTOCOL, "%s is missing", f->key);
        if (check_type(value, f->type, e) < 0)
            return gw_error_prefix(e, "%s", f->key);
    }
    return 0;
}

int gw_facts_check(const json_t *facts, enum gw_facts_side side, struct gw_error *e)
{
    bool source = side == GW_FACTS_SOURCE;

    if (gw_facts_sane(facts, e) < 0 ||
        check_fields(facts, fact_fields, source ? ON_SOURCE : ON_DESTINATION, e) < 0)
        return gw_error_prefix(e, "facts of the %s", source ? "source" : "destination");
    return 0;
}
