/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "util/cleanup.h"
#include "util/yaml.h"

struct part {
    char *file;
};

struct thing {
    char *name;
    uint16_t port;
    int64_t offset;
    int mode;
    bool on;
    struct part *parts;
    unsigned n_parts;
};

static const cyaml_strval_t modes[] = {{"slow", 1}, {"fast", 2}};

static const cyaml_schema_field_t part_fields[] = {
    CYAML_FIELD_STRING_PTR("file", CYAML_FLAG_POINTER, struct part, file, 1, 20),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t part_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct part, part_fields),
};

static const cyaml_schema_field_t thing_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct thing, name, 1, 20),
    CYAML_FIELD_UINT("port", CYAML_FLAG_OPTIONAL, struct thing, port),
    CYAML_FIELD_INT("offset", CYAML_FLAG_OPTIONAL, struct thing, offset),
    CYAML_FIELD_ENUM("mode", CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT, struct thing, mode, modes, 2),
    CYAML_FIELD_BOOL("on", CYAML_FLAG_OPTIONAL, struct thing, on),
    CYAML_FIELD_SEQUENCE_COUNT("parts", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct thing,
                               parts, n_parts, &part_schema, 0, 3),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t thing_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct thing, thing_fields),
};

static int load(const char *text, size_t len, struct thing **thingp, struct gw_error *e)
{
    void *out;
    int r = gw_yaml_load(text, len, "t.yaml", &thing_schema, &out, e);

    *thingp = out;
    return r;
}

static void good_text_is_mapped(void **state)
{
    const char *text = "name: web1\nport: 7411\noffset: -0x10\nmode: fast\non: yes\n"
                       "parts: [{file: a}, {file: b}]\n";
    struct gw_error e;
    struct thing *t;

    (void)state;
    assert_int_equal(load(text, strlen(text), &t, &e), 0);
    assert_string_equal(t->name, "web1");
    assert_int_equal(t->port, 7411);
    assert_int_equal(t->offset, -16);
    assert_int_equal(t->mode, 2);
    assert_true(t->on);
    assert_int_equal(t->n_parts, 2);
    assert_string_equal(t->parts[1].file, "b");
    gw_yaml_free(&thing_schema, t);
    gw_yaml_free(&thing_schema, NULL);
}

/* Our words for true and false must be ones that libcyaml knows too. */
static void booleans_mean_what_they_say(void **state)
{
    static const struct {
        const char *word;
        bool value;
    } rows[] = {{"true", true},   {"Yes", true}, {"ON", true},
                {"false", false}, {"No", false}, {"off", false}};
    struct gw_error e;
    struct thing *t;
    char text[64];

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        snprintf(text, sizeof text, "name: x\non: %s\n", rows[i].word);
        assert_int_equal(load(text, strlen(text), &t, &e), 0);
        assert_int_equal(t->on, rows[i].value);
        gw_yaml_free(&thing_schema, t);
    }
}

static void bad_text_is_named_by_line(void **state)
{
    static const struct {
        const char *text, *msg;
    } rows[] = {
        {"name: x\nbogus: 1\n", "t.yaml:2: unknown key 'bogus'"},
        {"name: x\nparts:\n  - file: a\n  - fill: b\n", "t.yaml:4: unknown key 'fill'"},
        {"port: 1\n", "t.yaml:1: key 'name' is missing"},
        {"name: x\nparts:\n- {}\n", "t.yaml:3: key 'file' is missing"},
        {"name: x\n\nname: y\n", "t.yaml:3: key 'name' is given twice"},
        {"name: x\nport: 70000\n", "t.yaml:2: port: Invalid UINT value: '70000'"},
        {"name: x\nport: -1\n", "t.yaml:2: port: Invalid UINT value: '-1'"},
        {"name: x\nport: 12 x\n", "t.yaml:2: port: '12 x' is not a number"},
        {"name: x\nport: 010\n", "t.yaml:2: port: '010' is not a number"},
        {"name: x\nport:\n", "t.yaml:2: port: '' is not a number"},
        {"name: x\nport: [1]\n", "t.yaml:2: port: expected a single value, found a list"},
        {"name: x\nmode: warp\n", "t.yaml:2: mode: 'warp' is not one of slow, fast"},
        {"name: x\non: maybe\n", "t.yaml:2: on: 'maybe' is neither true nor false"},
        {"name: ''\n", "t.yaml:1: name: STRING length < 1: "},
        {"name: aaaaaaaaaabbbbbbbbbbc\n",
         "t.yaml:1: name: STRING length > 20: aaaaaaaaaabbbbbbbbbbc"},
        {"name: x\nparts: [{file: a}, {file: a}, {file: a}, {file: a}]\n", "t.yaml:2: "},
        {"name: x\nparts: &p [{file: a}]\non: *p\n", "t.yaml:2: anchors (&name) are not supported"},
        {"name: x\nparts: &p [*p]\n", "t.yaml:2: anchors (&name) are not supported"},
        {"name: \"a\\0b\"\n", "t.yaml:1: name: holds a NUL byte"},
        {"\"na\\0me\": b\n", "t.yaml:1: a key: holds a NUL byte"},
        {"name: x\n? [a]\n: b\n", "t.yaml:2: a key must be a plain word"},
        {"name: x\n\tport: 1\n", "t.yaml:2: found a tab"},
        {"name: x\nport: 1\nparts: [\n", "t.yaml:3: did not find expected node content"},
        {"name: x\n\nport: \xff\n", "t.yaml:3: invalid leading UTF-8 octet"},
        {"name: x\non: *p\n", "t.yaml:2: aliases (*name) are not supported"},
        {"name: &p x\n", "t.yaml:1: anchors (&name) are not supported"},
        {"name: x\nport: !!int 3\n", "t.yaml:2: tags (!name) are not supported"},
        {"name: x\nparts: !p []\n", "t.yaml:2: tags (!name) are not supported"},
        {"!t {name: x}\n", "t.yaml:1: tags (!name) are not supported"},
        {"name: x\nparts: a\n", "t.yaml:2: parts: expected a list, found a single value"},
        {"name: x\nparts: [a]\n",
         "t.yaml:2: parts: expected a mapping ('key: value' or {key: value}), "
         "found a single value"},
        {"name: {a: b}\n", "t.yaml:1: name: expected a single value, found a mapping"},
        {"name: x\n---\nname: y\n", "t.yaml:2: a second document begins: one file, one document"},
        {"", "t.yaml: is empty"},
        {"# nothing\n", "t.yaml: is empty"},
        {"- a\n",
         "t.yaml:1: the file: expected a mapping ('key: value' or {key: value}), found a list"},
        {"plain", "t.yaml:1: the file: expected a mapping"},
        {"name: x\n\"\\e[31mred\": 1\n", "t.yaml:2: unknown key '?[31mred'"},
        {"name: [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n", "t.yaml:1: nested too deep"},
    };

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        struct gw_error e = {0};
        struct thing *t;

        assert_int_equal(load(rows[i].text, strlen(rows[i].text), &t, &e), -1);
        assert_null(t);
        assert_int_equal(e.code, GW_E_CONFIG);
        if (strncmp(e.msg, rows[i].msg, strlen(rows[i].msg)) != 0)
            fail_msg("row %zu: '%s' is not '%s'", i, e.msg, rows[i].msg);
    }
}

static void unknown_keys_are_guessed_at(void **state)
{
    static const struct {
        const char *key, *hint;
    } rows[] = {
        {"bogus", "known keys: name, port, offset, mode, on, parts"},
        {"prot", "did you mean 'port'?"},
        {"part", "did you mean 'port'?"}, /* as near as 'parts', and before it */
        {"offsett", "did you mean 'offset'?"},
        {"Mode", "did you mean 'mode'?"},
        {"zz",
         "known keys: name, port, offset, mode, on, parts"}, /* not 'on': nothing would remain */
        {"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggghhhhhhhhhh",
         "known keys: name, port, offset, mode, on, parts"},
    };

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        char text[200];
        struct gw_error e;
        struct thing *t;

        snprintf(text, sizeof text, "name: x\n%s: 1\n", rows[i].key);
        assert_int_equal(load(text, strlen(text), &t, &e), -1);
        assert_string_equal(e.hint, rows[i].hint);
    }
}

static void lines_are_found(void **state)
{
    static const struct {
        const char *path;
        size_t line;
    } rows[] = {{"name", 1},
                {"parts", 3},
                {"parts.1", 4},
                {"parts.1.file", 4},
                {"parts.1.name", 4},
                {"parts.2.file", 3},
                {"name.3", 1},
                {"never", 0},
                {"", 0},
                {".", 0},
                {"parts.-1", 3}};
    const char *text = "name: x\nparts:\n  - file: a\n  - file: b\n";

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++)
        assert_int_equal(gw_yaml_line(text, strlen(text), rows[i].path), rows[i].line);
    assert_int_equal(gw_yaml_line("a: [", 4, "a"), 0);
}

static void size_is_bounded(void **state)
{
    gw_autofree char *text = malloc(GW_YAML_MAX_BYTES + 1);
    struct gw_error e;
    struct thing *t;

    (void)state;
    memset(text, '\n', GW_YAML_MAX_BYTES + 1);
    memcpy(text, "name: x", 7);
    assert_int_equal(load(text, GW_YAML_MAX_BYTES + 1, &t, &e), -1);
    assert_string_equal(e.msg, "t.yaml: is larger than 64 KiB");
    assert_int_equal(load(text, GW_YAML_MAX_BYTES, &t, &e), 0);
    gw_yaml_free(&thing_schema, t);
}

static void callers_complain_with_lines_too(void **state)
{
    const char *text = "name: x\nparts:\n  - file: a\n  - file: b\n";
    struct gw_error e;

    (void)state;
    assert_int_equal(
        gw_yaml_reject(&e, text, strlen(text), "t.yaml", "parts.1.file", "no '%s' here", "b"), -1);
    assert_string_equal(e.msg, "t.yaml:4: parts.1.file: no 'b' here");
    gw_yaml_reject(&e, text, strlen(text), "t.yaml", "parts.2.file", "x");
    assert_string_equal(e.msg, "t.yaml: parts.2.file: x");
    gw_yaml_reject(&e, text, strlen(text), "t.yaml", "name.3", "x");
    assert_string_equal(e.msg, "t.yaml: name.3: x");
}

static void files_are_read_whole_or_not_at_all(void **state)
{
    gw_autofree char *text = NULL;
    struct gw_error e;
    size_t len;

    (void)state;
    assert_int_equal(gw_yaml_read_file("/nonexistent/t.yaml", &text, &len, &e), -1);
    assert_int_equal(e.sys, ENOENT);
    assert_int_equal(gw_yaml_read_file("/tmp", &text, &len, &e), -1);
    assert_string_equal(e.msg, "/tmp: is not a regular file");
    assert_int_equal(gw_yaml_read_file("/dev/zero", &text, &len, &e), -1);
    assert_null(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_text_is_mapped),
        cmocka_unit_test(booleans_mean_what_they_say),
        cmocka_unit_test(bad_text_is_named_by_line),
        cmocka_unit_test(unknown_keys_are_guessed_at),
        cmocka_unit_test(lines_are_found),
        cmocka_unit_test(size_is_bounded),
        cmocka_unit_test(callers_complain_with_lines_too),
        cmocka_unit_test(files_are_read_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
