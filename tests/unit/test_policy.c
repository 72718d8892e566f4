/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "host/policy.h"
#include "util/cleanup.h"

/* GW_SOURCE_ROOT comes from the build. */
static const char *const presets[] = {GW_SOURCE_ROOT "/policies/presets"};

static void rates_are_read(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
    } rows[] = {
        {"0", 0},
        {"unlimited", 0},
        {"Unlimited", 0},
        {"1", 1},
        {"1GiB/s", 1 << 30},
        {"1gib", 1 << 30},
        {"1gbit", 125000000},
        {"1Gbit/s", 125000000},
        {"500mbit", 62500000},
        {"8bit", 1},
        {"2.5gbit", 312500000},
        {"100 MB/s", 100000000},
        {"1.5KiB", 1536},
        {"1kB", 1000},
        {"1TiB/s", 1ull << 40},
    };

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        uint64_t value = 4711;

        if (gw_policy_parse_rate(rows[i].text, &value) < 0 || value != rows[i].value)
            fail_msg("%s gave %llu", rows[i].text, (unsigned long long)value);
    }
}

static void nonsense_is_no_rate(void **state)
{
    static const char *const rows[] = {
        "",        " ",      "fast",          "-1",
        "1.",      ".5",     "1.2345",        "1e9",
        "1 G",     "1GiB/h", "1GiB/s/s",      "1bit",
        "0.0001",  "1/s",    "9999999999999", "999999999999TiB",
        "1 GiB x", "0x10",   "1,5MB",
    };
    uint64_t value;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++)
        if (gw_policy_parse_rate(rows[i], &value) == 0)
            fail_msg("'%s' was taken for %llu", rows[i], (unsigned long long)value);
}

static void presets_load(void **state)
{
    struct gw_policy policy;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_policy_load("gentle", presets, 1, &policy, &e), 0);
    assert_int_equal(policy.bandwidth_bytes_per_s, 62500000);
    assert_int_equal(policy.timeout_s, 3600);
    assert_int_equal(gw_policy_load("fast", presets, 1, &policy, &e), 0);
    assert_int_equal(policy.codec, GW_POLICY_CODEC_ZSTD);
    assert_int_equal(policy.channels, 4);
    assert_int_equal(policy.blackout_ms, 200);
}

static void the_built_in_default_is_the_file(void **state)
{
    struct gw_policy from_file, built_in;
    json_t *a, *b;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_policy_load("default", presets, 1, &from_file, &e), 0);
    assert_int_equal(gw_policy_load("default", NULL, 0, &built_in, &e), 0);
    a = gw_policy_to_json(&from_file);
    b = gw_policy_to_json(&built_in);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
}

static void unknown_policies_list_the_known(void **state)
{
    const char *const dirs[] = {"/nonexistent", presets[0]};
    struct gw_policy policy;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_policy_load("warp", dirs, 2, &policy, &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    assert_string_equal(e.msg, "there is no policy 'warp'");
    assert_string_equal(e.hint, "policies that exist: default, fast, gentle");
}

static void names_are_no_paths(void **state)
{
    static const char *const rows[] = {"",        "..",         "../presets/fast", "/etc/passwd",
                                       ".hidden", "a/b",        "fast.yaml",       "-rf",
                                       "a\nb",    "f\xc3\xa4st"};
    struct gw_policy policy;
    struct gw_error e;
    char longest[GW_POLICY_NAME_MAX + 2];

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        assert_int_equal(gw_policy_load(rows[i], presets, 1, &policy, &e), -1);
        assert_int_equal(e.code, GW_E_USAGE);
    }
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(gw_policy_load(longest, presets, 1, &policy, &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
}

static void bad_files_are_named_by_line(void **state)
{
    static const struct {
        const char *text, *msg;
    } rows[] = {
        {"name: x\nchannels: 0\n", "p.yaml:2: channels: 0 is not between 1 and 64"},
        {"name: x\n\nblackout_ms: 60001\n", "p.yaml:3: blackout_ms: 60001 is not between"},
        {"name: x\nzstd_level: 22\n", "p.yaml:2: zstd_level: 22 is not between 1 and 20"},
        {"name: x\ntimeout_s: -1\n", "p.yaml:2: timeout_s: "},
        {"name: x\nfence_after_s: 3601\n", "p.yaml:2: fence_after_s: 3601 is not between 0 and"},
        {"name: x\nprefault: perhaps\n", "p.yaml:2: prefault: "},
        {"name: x\nbandwidth: lots\n", "p.yaml:2: bandwidth: 'lots' is not a rate"},
        {"name: x\ncodec: lz4\n", "p.yaml:2: codec: 'lz4' is not one of auto, none, zstd"},
        {"name: x\nroute: sea\n", "p.yaml:2: route: 'sea' is not one of auto, native, carrier"},
        {"name: x\non_timeout: shrug\n", "p.yaml:2: on_timeout: 'shrug' is not one of cancel"},
        {"name: ../x\n", "p.yaml:1: name: '../x' is not a policy's name"},
        {"name: x\nspeed: 1\n", "p.yaml:2: unknown key 'speed'"},
        {"channels: 1\n", "p.yaml:1: key 'name' is missing"},
    };
    struct gw_policy policy;
    struct gw_error e;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        assert_int_equal(gw_policy_parse(rows[i].text, strlen(rows[i].text), "p.yaml", &policy, &e),
                         -1);
        assert_int_equal(e.code, GW_E_CONFIG);
        if (strncmp(e.msg, rows[i].msg, strlen(rows[i].msg)) != 0)
            fail_msg("row %zu: '%s' is not '%s'", i, e.msg, rows[i].msg);
    }
}

static void a_file_must_bear_its_own_name(void **state)
{
    char dir[] = "/tmp/gw-policy-XXXXXX", file[64];
    const char *dirs[] = {dir};
    struct gw_policy policy;
    struct gw_error e;
    json_t *list;
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/one.yaml", dir);
    f = fopen(file, "w");
    fputs("name: two\n", f);
    fclose(f);
    assert_int_equal(gw_policy_load("one", dirs, 1, &policy, &e), -1);
    assert_non_null(strstr(e.msg, "one.yaml:1: name: 'two' is not the file's name"));
    list = gw_policy_list(dirs, 1);
    assert_int_equal(json_array_size(list), 2);
    assert_non_null(json_object_get(json_array_get(list, 1), "error"));
    json_decref(list);
    unlink(file);
    rmdir(dir);
}

static void policies_are_shown_as_json(void **state)
{
    struct gw_policy policy;
    json_t *json;

    (void)state;
    gw_policy_default(&policy);
    json = gw_policy_to_json(&policy);
    assert_string_equal(json_string_value(json_object_get(json, "codec")), "auto");
    assert_int_equal(json_integer_value(json_object_get(json, "blackout_ms")), 200);
    assert_int_equal(json_integer_value(json_object_get(json, "bandwidth")), 0);
    assert_true(json_is_false(json_object_get(json, "prefault")));
    assert_true(json_is_null(json_object_get(json, "channels")));
    json_decref(json);
}

static void requests_override(void **state)
{
    json_t *good = json_pack("{s:s, s:s, s:i, s:i, s:n, s:s}", "bandwidth", "1gbit", "codec",
                             "zstd", "blackout_ms", 50, "channels", 8, "timeout_s", "vm", "web1");
    json_t *number = json_pack("{s:I}", "bandwidth", (json_int_t)1000);
    struct gw_policy policy;
    struct gw_error e;

    (void)state;
    gw_policy_default(&policy);
    assert_int_equal(gw_policy_override(&policy, good, &e), 0);
    assert_int_equal(policy.bandwidth_bytes_per_s, 125000000);
    assert_int_equal(policy.codec, GW_POLICY_CODEC_ZSTD);
    assert_int_equal(policy.blackout_ms, 50);
    assert_int_equal(policy.channels, 8);
    assert_int_equal(gw_policy_override(&policy, number, &e), 0);
    assert_int_equal(policy.bandwidth_bytes_per_s, 1000);
    json_decref(good);
    json_decref(number);
}

static void memory_may_be_taken_first(void **state)
{
    static const char text[] = "name: x\nprefault: true\n";
    json_t *no = json_pack("{s:b}", "prefault", 0), *null = json_pack("{s:n}", "prefault"), *json;
    json_t *yes = json_pack("{s:b}", "prefault", 1), *one = json_pack("{s:i}", "prefault", 1);
    struct gw_policy policy;
    struct gw_error e;

    (void)state;
    gw_policy_default(&policy);
    assert_false(policy.prefault);
    assert_int_equal(gw_policy_override(&policy, yes, &e), 0);
    assert_true(policy.prefault);
    assert_int_equal(gw_policy_parse(text, sizeof text - 1, "p.yaml", &policy, &e), 0);
    assert_true(policy.prefault);
    json = gw_policy_to_json(&policy);
    assert_true(json_is_true(json_object_get(json, "prefault")));
    assert_int_equal(gw_policy_override(&policy, null, &e), 0);
    assert_true(policy.prefault);
    assert_int_equal(gw_policy_override(&policy, one, &e), -1);
    assert_string_equal(e.msg, "prefault is neither true nor false");
    assert_int_equal(gw_policy_override(&policy, no, &e), 0);
    assert_false(policy.prefault);
    json_decref(json);
    json_decref(no);
    json_decref(null);
    json_decref(yes);
    json_decref(one);
}

static void routes_have_names(void **state)
{
    static const enum gw_policy_route routes[] = {GW_POLICY_ROUTE_AUTO, GW_POLICY_ROUTE_NATIVE,
                                                  GW_POLICY_ROUTE_CARRIER};
    struct gw_policy policy;
    struct gw_error e;

    (void)state;
    gw_policy_default(&policy);
    assert_int_equal(policy.route, GW_POLICY_ROUTE_AUTO);
    for (size_t i = 0; i < GW_ARRAY_SIZE(routes); i++) {
        const char *name = gw_policy_route_name(routes[i]);
        json_t *request = json_pack("{s:s}", "route", name), *json;
        char text[64];
        int n = snprintf(text, sizeof text, "name: x\nroute: %s\n", name);

        assert_int_equal(gw_policy_parse(text, (size_t)n, "p.yaml", &policy, &e), 0);
        assert_int_equal(policy.route, routes[i]);
        gw_policy_default(&policy);
        assert_int_equal(gw_policy_override(&policy, request, &e), 0);
        assert_int_equal(policy.route, routes[i]);
        json = gw_policy_to_json(&policy);
        assert_string_equal(json_string_value(json_object_get(json, "route")), name);
        json_decref(json);
        json_decref(request);
    }
}

static void codecs_have_names(void **state)
{
    static const enum gw_policy_codec codecs[] = {GW_POLICY_CODEC_AUTO, GW_POLICY_CODEC_NONE,
                                                  GW_POLICY_CODEC_ZSTD};
    struct gw_policy policy;
    struct gw_error e;

    (void)state;
    gw_policy_default(&policy);
    assert_int_equal(policy.codec, GW_POLICY_CODEC_AUTO);
    for (size_t i = 0; i < GW_ARRAY_SIZE(codecs); i++) {
        const char *name = gw_policy_codec_name(codecs[i]);
        json_t *request = json_pack("{s:s}", "codec", name);
        char text[64];
        int n = snprintf(text, sizeof text, "name: x\ncodec: %s\n", name);

        assert_int_equal(gw_policy_parse(text, (size_t)n, "p.yaml", &policy, &e), 0);
        assert_int_equal(policy.codec, codecs[i]);
        policy.codec = GW_POLICY_CODEC_NONE;
        assert_int_equal(gw_policy_override(&policy, request, &e), 0);
        assert_int_equal(policy.codec, codecs[i]);
        json_decref(request);
    }
}

static void bad_overrides_change_nothing(void **state)
{
    static const char *const rows[] = {
        "{\"blackout_ms\": 10, \"channels\": 65}",
        "{\"channels\": 4, \"codec\": \"lz4\"}",
        "{\"bandwidth\": -1}",
        "{\"bandwidth\": true}",
        "{\"blackout_ms\": \"10\"}",
        "{\"blackout_ms\": 1.5}",
        "{\"codec\": 1}",
        "{\"channels\": 4, \"route\": \"sea\"}",
        "{\"route\": 2}",
        "{\"channels\": 4294967298}",
    };
    struct gw_policy policy, before;
    struct gw_error e;

    (void)state;
    gw_policy_default(&before);
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        json_t *request = json_loads(rows[i], 0, NULL);

        gw_policy_default(&policy);
        assert_int_equal(gw_policy_override(&policy, request, &e), -1);
        assert_int_equal(e.code, GW_E_USAGE);
        assert_memory_equal(&policy, &before, sizeof policy);
        json_decref(request);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_read),
        cmocka_unit_test(nonsense_is_no_rate),
        cmocka_unit_test(presets_load),
        cmocka_unit_test(the_built_in_default_is_the_file),
        cmocka_unit_test(unknown_policies_list_the_known),
        cmocka_unit_test(names_are_no_paths),
        cmocka_unit_test(bad_files_are_named_by_line),
        cmocka_unit_test(a_file_must_bear_its_own_name),
        cmocka_unit_test(policies_are_shown_as_json),
        cmocka_unit_test(requests_override),
        cmocka_unit_test(memory_may_be_taken_first),
        cmocka_unit_test(routes_have_names),
        cmocka_unit_test(codecs_have_names),
        cmocka_unit_test(bad_overrides_change_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
