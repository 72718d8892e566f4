/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "host/policy.h"
#include "util/cleanup.h"
#include "util/yaml.h"

#define BLACKOUT_MS_MAX 60000
#define ZSTD_LEVEL_MAX  20
#define TIMEOUT_S_MAX   (7 * 24 * 3600)
#define FENCE_S_MAX     3600

/* The file as it stands there. A number that is absent is a NULL. */
struct policy_file {
    char *name, *description, *bandwidth;
    unsigned *blackout_ms, *channels, *zstd_level, *timeout_s, *fence_after_s;
    enum gw_policy_codec *codec;
    enum gw_policy_route *route;
    enum gw_policy_on_timeout *on_timeout;
    bool *prefault;
};

static const cyaml_strval_t codec_names[] = {
    {"auto", GW_POLICY_CODEC_AUTO},
    {"none", GW_POLICY_CODEC_NONE},
    {"zstd", GW_POLICY_CODEC_ZSTD},
};

static const cyaml_strval_t route_names[] = {
    {"auto", GW_POLICY_ROUTE_AUTO},
    {"native", GW_POLICY_ROUTE_NATIVE},
    {"carrier", GW_POLICY_ROUTE_CARRIER},
};

static const cyaml_strval_t on_timeout_names[] = {{"cancel", GW_POLICY_ON_TIMEOUT_CANCEL}};

#define OPTIONAL CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL

static const cyaml_schema_field_t fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct policy_file, name, 1,
                           GW_POLICY_NAME_MAX),
    CYAML_FIELD_STRING_PTR("description", OPTIONAL, struct policy_file, description, 0,
                           GW_POLICY_DESCRIPTION_MAX),
    CYAML_FIELD_STRING_PTR("bandwidth", OPTIONAL, struct policy_file, bandwidth, 1, 40),
    CYAML_FIELD_UINT_PTR("blackout_ms", OPTIONAL, struct policy_file, blackout_ms),
    CYAML_FIELD_UINT_PTR("channels", OPTIONAL, struct policy_file, channels),
    CYAML_FIELD_ENUM_PTR("codec", OPTIONAL | CYAML_FLAG_STRICT, struct policy_file, codec,
                         codec_names, GW_ARRAY_SIZE(codec_names)),
    CYAML_FIELD_ENUM_PTR("route", OPTIONAL | CYAML_FLAG_STRICT, struct policy_file, route,
                         route_names, GW_ARRAY_SIZE(route_names)),
    CYAML_FIELD_UINT_PTR("zstd_level", OPTIONAL, struct policy_file, zstd_level),
    CYAML_FIELD_UINT_PTR("timeout_s", OPTIONAL, struct policy_file, timeout_s),
    CYAML_FIELD_ENUM_PTR("on_timeout", OPTIONAL | CYAML_FLAG_STRICT, struct policy_file, on_timeout,
                         on_timeout_names, GW_ARRAY_SIZE(on_timeout_names)),
    CYAML_FIELD_UINT_PTR("fence_after_s", OPTIONAL, struct policy_file, fence_after_s),
    CYAML_FIELD_BOOL_PTR("prefault", OPTIONAL, struct policy_file, prefault),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct policy_file, fields),
};

/* The numbers of a policy, their bounds, and their place in both structs. */
static const struct number {
    const char *key;
    unsigned min, max;
    size_t in_file, in_policy;
} numbers[] = {
    {"blackout_ms", 1, BLACKOUT_MS_MAX, offsetof(struct policy_file, blackout_ms),
     offsetof(struct gw_policy, blackout_ms)},
    {"channels", 1, GW_POLICY_CHANNELS_MAX, offsetof(struct policy_file, channels),
     offsetof(struct gw_policy, channels)},
    {"zstd_level", 1, ZSTD_LEVEL_MAX, offsetof(struct policy_file, zstd_level),
     offsetof(struct gw_policy, zstd_level)},
    {"timeout_s", 0, TIMEOUT_S_MAX, offsetof(struct policy_file, timeout_s),
     offsetof(struct gw_policy, timeout_s)},
    {"fence_after_s", 0, FENCE_S_MAX, offsetof(struct policy_file, fence_after_s),
     offsetof(struct gw_policy, fence_after_s)},
};

static unsigned *number_in(struct gw_policy *policy, const struct number *n)
{
    return (unsigned *)((char *)policy + n->in_policy);
}

void gw_policy_default(struct gw_policy *policy)
{
    *policy = (struct gw_policy){
        .name = "default",
        .description = "as fast as the link goes",
        .blackout_ms = 200,
        .zstd_level = 1,
        .on_timeout = GW_POLICY_ON_TIMEOUT_CANCEL,
    };
}

const char *gw_policy_codec_name(enum gw_policy_codec codec)
{
    return codec_names[codec].str;
}

const char *gw_policy_route_name(enum gw_policy_route route)
{
    return route_names[route].str;
}

/* A unit is "UNIT", "UNIT/s" or "UNITps", all in thousandths of a byte so that 1bit is exact. */
static int unit_in_millibytes(const char *text, uint64_t *unitp)
{
    static const struct {
        const char *name;
        uint64_t millibytes;
    } units[] = {
        {"", 1000},
        {"B", 1000},
        {"KiB", 1000ull << 10},
        {"MiB", 1000ull << 20},
        {"GiB", 1000ull << 30},
        {"TiB", 1000ull << 40},
        {"kB", 1000000ull},
        {"MB", 1000000000ull},
        {"GB", 1000000000000ull},
        {"TB", 1000000000000000ull},
        {"bit", 125},
        {"kbit", 125000},
        {"mbit", 125000000ull},
        {"gbit", 125000000000ull},
    };
    size_t n = strlen(text);

    if (n > 2 && strcmp(text + n - 2, "/s") == 0)
        n -= 2;
    for (size_t i = 0; i < GW_ARRAY_SIZE(units); i++)
        if (strlen(units[i].name) == n && strncasecmp(units[i].name, text, n) == 0) {
            *unitp = units[i].millibytes;
            return 0;
        }
    return -1;
}

/* "1.25" to 1250; *restp is what follows. Digits first, at most twelve before the point. */
static int parse_thousandths(const char *text, uint64_t *valuep, const char **restp)
{
    size_t n = strspn(text, "0123456789");
    uint64_t value = 0;

    if (n == 0 || n > 12)
        return -1;
    for (size_t i = 0; i < n; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    text += n;
    n = *text == '.' ? strspn(text + 1, "0123456789") : 0;
    if (n > 3 || (*text == '.' && n == 0))
        return -1;
    for (size_t i = 0; i < 3; i++)
        value = value * 10 + (i < n ? (uint64_t)(text[i + 1] - '0') : 0);
    *valuep = value;
    *restp = text + (n ? n + 1 : 0);
    return 0;
}

int gw_policy_parse_rate(const char *text, uint64_t *bytes_per_sp)
{
    unsigned __int128 product;
    uint64_t value, unit;

    if (strcasecmp(text, "unlimited") == 0) {
        *bytes_per_sp = 0;
        return 0;
    }
    if (parse_thousandths(text, &value, &text) < 0)
        return -1;
    text += strspn(text, " ");
    if (unit_in_millibytes(text, &unit) < 0)
        return -1;
    product = (unsigned __int128)value * unit / 1000000;
    /* Less than one byte a second would read as "no limit". */
    if (product >= (uint64_t)1 << 62 || (product == 0 && value))
        return -1;
    *bytes_per_sp = (uint64_t)product;
    return 0;
}

/* A name is a file's name: letters, digits, - and _, so no path and nothing hidden. */
static bool is_policy_name(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > GW_POLICY_NAME_MAX || !isalnum((unsigned char)name[0]))
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == n;
}

static int take_numbers(const struct policy_file *from, struct gw_policy *policy, const char *text,
                        size_t len, const char *file, struct gw_error *e)
{
    for (size_t i = 0; i < GW_ARRAY_SIZE(numbers); i++) {
        const struct number *n = &numbers[i];
        const unsigned *value = *(unsigned *const *)((const char *)from + n->in_file);

        if (!value)
            continue;
        if (*value < n->min || *value > n->max)
            return gw_yaml_reject(e, text, len, file, n->key, "%u is not between %u and %u", *value,
                                  n->min, n->max);
        *number_in(policy, n) = *value;
    }
    return 0;
}

static int take(const struct policy_file *from, struct gw_policy *policy, const char *text,
                size_t len, const char *file, struct gw_error *e)
{
    if (!is_policy_name(from->name))
        return gw_yaml_reject(e, text, len, file, "name",
                              "'%s' is not a policy's name: letters, digits, - and _", from->name);
    strcpy(policy->name, from->name);
    strcpy(policy->description, from->description ? from->description : "");
    if (from->bandwidth &&
        gw_policy_parse_rate(from->bandwidth, &policy->bandwidth_bytes_per_s) < 0)
        return gw_yaml_reject(e, text, len, file, "bandwidth",
                              "'%s' is not a rate such as 500MiB/s, 1gbit or unlimited",
                              from->bandwidth);
    if (from->codec)
        policy->codec = *from->codec;
    if (from->route)
        policy->route = *from->route;
    if (from->on_timeout)
        policy->on_timeout = *from->on_timeout;
    if (from->prefault)
        policy->prefault = *from->prefault;
    return take_numbers(from, policy, text, len, file, e);
}

int gw_policy_parse(const char *text, size_t len, const char *file, struct gw_policy *policy,
                    struct gw_error *e)
{
    void *loaded;
    int r;

    gw_policy_default(policy);
    if (gw_yaml_load(text, len, file, &schema, &loaded, e) < 0)
        return -1;
    r = take(loaded, policy, text, len, file, e);
    gw_yaml_free(&schema, loaded);
    return r;
}

/* 0: loaded; 1: no such file in this directory; -1: *e. */
static int load_from(const char *dir, const char *name, struct gw_policy *policy,
                     struct gw_error *e)
{
    gw_autofree char *file = NULL, *text = NULL;
    struct gw_error local;
    size_t len;

    if (asprintf(&file, "%s/%s.yaml", dir, name) < 0) {
        file = NULL;
        return gw_error_set_sys(e, ENOMEM, "load policy %s", name);
    }
    if (gw_yaml_read_file(file, &text, &len, &local) < 0) {
        if (local.sys == ENOENT || local.sys == ENOTDIR)
            return 1;
        if (e)
            *e = local;
        return -1;
    }
    if (gw_policy_parse(text, len, file, policy, e) < 0)
        return -1;
    if (strcmp(policy->name, name) != 0)
        return gw_yaml_reject(e, text, len, file, "name", "'%s' is not the file's name",
                              policy->name);
    return 0;
}

static int load_first(const char *name, const char *const dirs[], size_t n_dirs,
                      struct gw_policy *policy, struct gw_error *e)
{
    int r = 1;

    for (size_t i = 0; i < n_dirs && r > 0; i++)
        r = load_from(dirs[i], name, policy, e);
    if (r > 0 && strcmp(name, "default") == 0) {
        gw_policy_default(policy);
        r = 0;
    }
    return r;
}

/* The policy's name if this directory entry is one, cut out of entry in place. */
static const char *name_of_entry(char *entry)
{
    size_t n = strlen(entry);

    if (n < 6 || strcmp(entry + n - 5, ".yaml") != 0)
        return NULL;
    entry[n - 5] = '\0';
    return is_policy_name(entry) ? entry : NULL;
}

/* Adds the names in one directory to a JSON object, whose keys are then a set. */
static void add_names(json_t *names, const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    if (!d)
        return;
    while (json_object_size(names) < 1000 && (entry = readdir(d))) {
        const char *name = name_of_entry(entry->d_name);

        if (name)
            json_object_set_new(names, name, json_true());
    }
    closedir(d);
}

json_t *gw_policy_list(const char *const dirs[], size_t n_dirs)
{
    json_t *names = json_object(), *list = json_array();
    char *sorted = NULL;
    const char *name;
    json_t *value;

    json_object_set_new(names, "default", json_true());
    for (size_t i = 0; i < n_dirs; i++)
        add_names(names, dirs[i]);
    /* jansson sorts keys only while it writes them. */
    sorted = json_dumps(names, JSON_SORT_KEYS);
    json_decref(names);
    names = sorted ? json_loads(sorted, 0, NULL) : NULL;
    free(sorted);
    json_object_foreach (names, name, value) {
        struct gw_policy policy;
        struct gw_error e;

        if (load_first(name, dirs, n_dirs, &policy, &e) == 0)
            json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "description",
                                                  policy.description));
        else
            json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "error", e.msg));
    }
    json_decref(names);
    return list;
}

static int no_such_policy(const char *name, const char *const dirs[], size_t n_dirs,
                          struct gw_error *e)
{
    json_t *list = gw_policy_list(dirs, n_dirs), *entry;
    char names[200] = "";
    size_t used = 0, i;

    json_array_foreach (list, i, entry) {
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                     json_string_value(json_object_get(entry, "name")));
    }
    json_decref(list);
    gw_error_set(e, GW_E_NOT_FOUND, "there is no policy '%s'", name);
    return gw_error_hint(e, "policies that exist: %s", names);
}

int gw_policy_load(const char *name, const char *const dirs[], size_t n_dirs,
                   struct gw_policy *policy, struct gw_error *e)
{
    int r;

    if (!is_policy_name(name))
        return gw_error_set(e, GW_E_USAGE, "that is not a policy's name: letters, digits, - and _");
    r = load_first(name, dirs, n_dirs, policy, e);
    return r > 0 ? no_such_policy(name, dirs, n_dirs, e) : r;
}

static int override_bandwidth(struct gw_policy *policy, const json_t *value, struct gw_error *e)
{
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        policy->bandwidth_bytes_per_s = (uint64_t)json_integer_value(value);
        return 0;
    }
    if (json_is_string(value) &&
        gw_policy_parse_rate(json_string_value(value), &policy->bandwidth_bytes_per_s) == 0)
        return 0;
    return gw_error_set(e, GW_E_USAGE,
                        "bandwidth is not a rate such as 500MiB/s, 1gbit or unlimited");
}

static int override_codec(struct gw_policy *policy, const json_t *value, struct gw_error *e)
{
    const char *name = json_string_value(value);

    for (size_t i = 0; name && i < GW_ARRAY_SIZE(codec_names); i++)
        if (strcmp(codec_names[i].str, name) == 0) {
            policy->codec = (enum gw_policy_codec)codec_names[i].val;
            return 0;
        }
    return gw_error_set(e, GW_E_USAGE, "codec is not one of auto, none, zstd");
}

static int override_route(struct gw_policy *policy, const json_t *value, struct gw_error *e)
{
    const char *name = json_string_value(value);

    for (size_t i = 0; name && i < GW_ARRAY_SIZE(route_names); i++)
        if (strcmp(route_names[i].str, name) == 0) {
            policy->route = (enum gw_policy_route)route_names[i].val;
            return 0;
        }
    return gw_error_set(e, GW_E_USAGE, "route is not one of auto, native, carrier");
}

static int override_numbers(struct gw_policy *policy, const json_t *request, struct gw_error *e)
{
    for (size_t i = 0; i < GW_ARRAY_SIZE(numbers); i++) {
        const struct number *n = &numbers[i];
        const json_t *value = json_object_get(request, n->key);
        json_int_t number = json_integer_value(value);

        if (!value || json_is_null(value))
            continue;
        if (!json_is_integer(value) || number < n->min || number > n->max)
            return gw_error_set(e, GW_E_USAGE, "%s is not a whole number between %u and %u", n->key,
                                n->min, n->max);
        *number_in(policy, n) = (unsigned)number;
    }
    return 0;
}

static int override_prefault(struct gw_policy *policy, const json_t *value, struct gw_error *e)
{
    if (!json_is_boolean(value))
        return gw_error_set(e, GW_E_USAGE, "prefault is neither true nor false");
    policy->prefault = json_is_true(value);
    return 0;
}

int gw_policy_override(struct gw_policy *policy, const json_t *request, struct gw_error *e)
{
    const json_t *bandwidth = json_object_get(request, "bandwidth");
    const json_t *codec = json_object_get(request, "codec");
    const json_t *route = json_object_get(request, "route");
    const json_t *prefault = json_object_get(request, "prefault");
    struct gw_policy changed = *policy;

    if (bandwidth && !json_is_null(bandwidth) && override_bandwidth(&changed, bandwidth, e) < 0)
        return -1;
    if (codec && !json_is_null(codec) && override_codec(&changed, codec, e) < 0)
        return -1;
    if (route && !json_is_null(route) && override_route(&changed, route, e) < 0)
        return -1;
    if (prefault && !json_is_null(prefault) && override_prefault(&changed, prefault, e) < 0)
        return -1;
    if (override_numbers(&changed, request, e) < 0)
        return -1;
    *policy = changed;
    return 0;
}

json_t *gw_policy_to_json(const struct gw_policy *policy)
{
    json_t *channels = policy->channels ? json_integer((json_int_t)policy->channels) : json_null();

    return json_pack("{s:s, s:s, s:I, s:I, s:o, s:s, s:s, s:I, s:I, s:s, s:I, s:b}", "name",
                     policy->name, "description", policy->description, "bandwidth",
                     (json_int_t)policy->bandwidth_bytes_per_s, "blackout_ms",
                     (json_int_t)policy->blackout_ms, "channels", channels, "codec",
                     gw_policy_codec_name(policy->codec), "route",
                     gw_policy_route_name(policy->route), "zstd_level",
                     (json_int_t)policy->zstd_level, "timeout_s", (json_int_t)policy->timeout_s,
                     "on_timeout", "cancel", "fence_after_s", (json_int_t)policy->fence_after_s,
                     "prefault", (int)policy->prefault);
}
