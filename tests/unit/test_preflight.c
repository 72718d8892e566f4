/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "host/preflight.h"
#include "util/cleanup.h"

/* A move that is fine; each case below changes some of it. JSON with ' for ". */
#define V2 \
    "'cx16': true, 'lahf-lm': true, 'popcnt': true, 'sse4.1': true, 'sse4.2': true, 'ssse3': true"
#define CAPABILITIES "['return-path', 'pause-before-switchover', 'events', 'multifd']"
#define FILE_DISK                                                                         \
    "{'kind': 'file', 'path': '/srv/a.qcow2', 'format': 'qcow2', 'read_only': false, "    \
    "'exists': true, 'readable': true, 'writable': true, 'size_bytes': 100, 'inode': 7, " \
    "'device': '8:1', 'fs': 'nfs', 'shared': true, 'probed_format': 'qcow2'}"
#define BLOCK_DISK                                                                              \
    "{'kind': 'block', 'path': '/dev/sdb', 'format': 'raw', 'read_only': false, "               \
    "'exists': true, 'readable': true, 'writable': true, 'size_bytes': 100, 'device': '8:16', " \
    "'serial': 'naa.5000'}"
#define RBD_DISK                                                                \
    "{'kind': 'rbd', 'path': 'rbd/web1', 'format': 'raw', 'read_only': false, " \
    "'exists': true}"

static const char source_facts[] =
    "{'node': 'n1', 'boot_id': 'boot-1', 'name': 'web1', 'uuid': 'aaaa', "
    "'memory_bytes': 1073741824, 'machine': 'pc-q35-10.0', 'accel': 'kvm', "
    "'qemu_version': '10.0.2', 'cpu_model': 'x86-64-v2-AES', "
    "'cpu_features': {" V2 ", 'aes': true, 'avx': false}, 'blocked_reasons': [], "
    "'disks': [" FILE_DISK ", " BLOCK_DISK "], 'bridges': ['br0'], "
    "'capabilities': " CAPABILITIES "}";

static const char destination_facts[] =
    "{'node': 'n2', 'boot_id': 'boot-2', 'qemu_version': '10.0.0', "
    "'machines': ['pc-q35-10.0', 'q35'], 'accels': ['kvm', 'tcg'], "
    "'mem_available_bytes': 1157627904, 'mem_reserved_bytes': 0, "
    "'cpu_features': {" V2 ", 'aes': true}, "
    "'disks': [" FILE_DISK ", " BLOCK_DISK "], 'bridges': ['br0', 'br1'], "
    "'vms': [{'name': 'db1', 'uuid': 'bbbb'}], 'capabilities': " CAPABILITIES "}";

static const struct {
    const char *source, *destination;   /* keys to set; NULL: none */
    const char *disk_here, *disk_there; /* keys to set in disk 0 (file) */
    const char *block_there;            /* … and 1 (block device) */
    const char *findings;               /* "level code subject", joined by "; " */
    const char *words;                  /* that stand in the last message or hint */
} cases[] = {
    {.findings = ""},
    {.destination = "{'node': 'n1'}", .findings = "error same-node n1"},
    {.source = "{'blocked_reasons': ['invtsc', 'vfio']}",
     .findings = "error blocked web1; error blocked web1",
     .words = "QEMU refuses to migrate web1: vfio"},
    {.source = "{'machine': 'pc-q35-11.0'}",
     .findings = "error machine-unknown pc-q35-11.0",
     .words = "QEMU 10.0.0 on n2 does not know machine type pc-q35-11.0"},
    {.source = "{'machine': 'pc-q35-1'}", .findings = "error machine-unknown pc-q35-1"},
    /* QEMU versions */
    {.destination = "{'qemu_version': '9.2.4'}",
     .findings = "error qemu-older 9.2.4",
     .words = "n2 has QEMU 9.2.4, older than the 10.0.2 that runs web1"},
    {.destination = "{'qemu_version': '10.1.0'}", .findings = "info qemu-newer 10.1.0"},
    {.destination = "{'qemu_version': '10.0.3'}", .findings = ""},
    {.source = "{'qemu_version': '7.2.22', 'accel': 'tcg'}",
     .destination = "{'qemu_version': '7.2.22'}",
     .findings = "error qemu-broken 7.2.22",
     .words = "loses pages"},
    {.source = "{'qemu_version': '7.2.22'}",
     .destination = "{'qemu_version': '7.2.22'}",
     .findings = ""},
    {.source = "{'accel': 'tcg'}", .findings = ""},
    {.source = "{'accel': 'tcg', 'ram_backends': 1, 'guest_runs': true}", .findings = ""},
    {.source = "{'accel': 'tcg', 'ram_backends': 2, 'guest_runs': true}",
     .findings = "error qemu-broken 10.0.2",
     .words = "all but the first of its 2 memory backends"},
    {.source = "{'accel': 'tcg', 'ram_backends': 2, 'guest_runs': false}", .findings = ""},
    {.source = "{'ram_backends': 2, 'guest_runs': true}", .findings = ""},
    {.destination = "{'accels': ['tcg']}",
     .findings = "error accel kvm",
     .words = "web1 runs under kvm, which n2 cannot use (it has: tcg)"},
    {.destination = "{'accels': []}", .findings = "error accel kvm", .words = "(it has: none)"},
    /* CPU */
    {.destination = "{'cpu_features': {" V2 ", 'aes': false}}",
     .findings = "error cpu-feature aes",
     .words = "web1 may use CPU feature aes (model x86-64-v2-AES), which n2 does not offer"},
    {.source = "{'cpu_features': {" V2 ", 'aes': true, 'avx512f': true, 'avx2': true}}",
     .findings = "error cpu-feature avx512f; error cpu-feature avx2"},
    {.source = "{'cpu_model': 'qemu64', 'cpu_features': {'cx16': true, 'lahf-lm': true}}",
     .findings = "warning cpu-v2 qemu64",
     .words = "it lacks popcnt, sse4.1, sse4.2, ssse3"},
    {.source = "{'cpu_features': {}}",
     .findings = "warning cpu-unknown x86-64-v2-AES",
     .words = "could not be read on n1"},
    {.destination = "{'cpu_features': {}}",
     .findings = "warning cpu-unknown x86-64-v2-AES",
     .words = "could not be read on n2"},
    /* memory: 1 GiB + 1/64 + 64 MiB is exactly what the good case has */
    {.destination = "{'mem_available_bytes': 1157627903}",
     .findings = "error memory n2",
     .words = "free 1 MiB on n2"},
    {.destination = "{'mem_available_bytes': 4294967296, 'mem_reserved_bytes': 3221225472}",
     .findings = "error memory n2",
     .words = "web1 needs 1.1 GiB of memory, and n2 has 1.0 GiB free beside"},
    {.destination = "{'mem_reserved_bytes': 9223372036854775807}", .findings = "error memory n2"},
    {.source = "{'memory_bytes': 9223372036854775807}", .findings = "error memory n2"},
    /* disks, two kernels */
    {.disk_there = "{'exists': false, 'error': 'No such file or directory'}",
     .findings = "error disk-missing /srv/a.qcow2",
     .words = "cannot be reached on n2: No such file or directory"},
    {.disk_there = "{'path': '/elsewhere'}",
     .findings = "error disk-missing /srv/a.qcow2",
     .words = "nothing is known about it"},
    {.disk_there = "{'writable': false}",
     .findings = "error disk-access /srv/a.qcow2",
     .words = "may not write disk"},
    {.disk_there = "{'readable': false}",
     .findings = "error disk-access /srv/a.qcow2",
     .words = "may not read disk"},
    {.disk_here = "{'read_only': true}", .disk_there = "{'writable': false}", .findings = ""},
    {.disk_here = "{'fs': 'ext4', 'shared': false}",
     .findings = "error disk-local /srv/a.qcow2",
     .words = "is local to the node: it is on ext4 of n1"},
    {.disk_there = "{'fs': 'xfs', 'shared': false}",
     .findings = "error disk-local /srv/a.qcow2",
     .words = "is local to the node: it is on xfs of n2"},
    {.disk_there = "{'inode': 8}",
     .findings = "error disk-differs /srv/a.qcow2",
     .words = "its inode number differs"},
    {.disk_there = "{'size_bytes': 99}",
     .findings = "error disk-differs /srv/a.qcow2",
     .words = "its size differs"},
    {.disk_there = "{'device': '8:2'}", .findings = ""},
    {.disk_there = "{'kind': 'block'}", .findings = "error disk-differs /srv/a.qcow2"},
    {.disk_here = "{'kind': 'other'}",
     .disk_there = "{'kind': 'other'}",
     .findings = "error disk-differs /srv/a.qcow2"},
    {.disk_there = "{'probed_format': 'raw'}",
     .findings = "error disk-format /srv/a.qcow2",
     .words = "has format qcow2, but looks like raw on n2"},
    {.disk_there = "{'format': 'raw'}",
     .findings = "error disk-format /srv/a.qcow2",
     .words = "would be opened as raw on n2"},
    {.block_there = "{'serial': 'naa.6000'}",
     .findings = "error disk-differs /dev/sdb",
     .words = "its serial number differs"},
    {.block_there = "{'serial': null}", .findings = "error facts "},
    {.block_there = "{'device': '8:32'}", .findings = ""},
    {.block_there = "{'size_bytes': 1}", .findings = "error disk-differs /dev/sdb"},
    {.source = "{'disks': [" RBD_DISK "]}", .findings = "info disk-unchecked rbd/web1"},
    {.source = "{'disks': []}", .findings = ""},
    /* disks, one kernel */
    {.source = "{'boot_id': 'boot-2'}",
     .disk_here = "{'fs': 'ext4', 'shared': false}",
     .disk_there = "{'fs': 'ext4', 'shared': false}",
     .findings = ""},
    {.source = "{'boot_id': 'boot-2'}",
     .disk_there = "{'device': '8:2'}",
     .findings = "error disk-differs /srv/a.qcow2"},
    {.source = "{'boot_id': 'boot-2'}",
     .disk_there = "{'inode': 8}",
     .findings = "error disk-differs /srv/a.qcow2"},
    {.source = "{'boot_id': 'boot-2'}",
     .block_there = "{'device': '8:32'}",
     .findings = "error disk-differs /dev/sdb"},
    /* the rest */
    {.source = "{'bridges': ['br0', 'br7']}",
     .findings = "error bridge-missing br7",
     .words = "bridges on n2: br0, br1"},
    {.destination = "{'bridges': []}",
     .findings = "error bridge-missing br0",
     .words = "bridges on n2: none"},
    {.destination = "{'vms': [{'name': 'web1', 'uuid': 'cccc'}]}",
     .findings = "error name-taken web1",
     .words = "(uuid cccc)"},
    {.destination = "{'vms': [{'name': 'other', 'uuid': 'AAAA'}]}",
     .findings = "error uuid-taken aaaa",
     .words = "VM other"},
    {.destination = "{'vms': [{'name': 'web1', 'uuid': 'aaaa'}]}",
     .findings = "error uuid-taken aaaa"},
    {.destination = "{'capabilities': ['events', 'pause-before-switchover']}",
     .findings = "error capability-missing return-path",
     .words = "QEMU 10.0.0 on n2 lacks"},
    {.source = "{'capabilities': ['return-path', 'events']}",
     .findings = "error capability-missing pause-before-switchover",
     .words = "QEMU 10.0.2 on n1 lacks"},
    {.source = "{'name': 5}", .findings = "error facts ", .words = "facts of the source: name"},
};

static json_t *parse(const char *quoted)
{
    char text[4096];
    json_t *json;

    snprintf(text, sizeof text, "%s", quoted ? quoted : "{}");
    for (char *c = text; *c; c++)
        if (*c == '\'')
            *c = '"';
    json = json_loads(text, 0, NULL);
    assert_non_null(json);
    return json;
}

static void patch(json_t *object, const char *quoted)
{
    json_t *changes = parse(quoted);

    json_object_update(object, changes);
    json_decref(changes);
}

static void patch_disk(json_t *facts, size_t i, const char *quoted)
{
    if (quoted)
        patch(json_array_get(json_object_get(facts, "disks"), i), quoted);
}

static void summarise(const struct gw_findings *list, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < list->n_items; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s %s %s", i ? "; " : "",
                                 gw_finding_level_name(list->items[i].level), list->items[i].code,
                                 list->items[i].subject);
}

static void every_case(void **state)
{
    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        json_t *source = parse(source_facts), *destination = parse(destination_facts);
        struct gw_findings list = {0};
        const struct gw_finding *last;
        char summary[512];

        patch(source, cases[i].source);
        patch(destination, cases[i].destination);
        patch_disk(source, 0, cases[i].disk_here);
        patch_disk(destination, 0, cases[i].disk_there);
        patch_disk(destination, 1, cases[i].block_there);
        gw_preflight_compare(source, destination, &list);
        summarise(&list, summary, sizeof summary);
        if (strcmp(summary, cases[i].findings) != 0)
            fail_msg("case %zu: found '%s', expected '%s'", i, summary, cases[i].findings);
        assert_int_equal(gw_findings_ok(&list), strstr(summary, "error") == NULL);
        last = list.n_items ? &list.items[list.n_items - 1] : NULL;
        if (cases[i].words && !strstr(last->message, cases[i].words) &&
            !strstr(last->hint, cases[i].words))
            fail_msg("case %zu: no '%s' in '%s' (%s)", i, cases[i].words, last->message,
                     last->hint);
        gw_findings_fini(&list);
        json_decref(source);
        json_decref(destination);
    }
}

static void a_device_without_a_name_is_not_trusted(void **state)
{
    json_t *source = parse(source_facts), *destination = parse(destination_facts);
    struct gw_findings list = {0};

    (void)state;
    json_object_del(json_array_get(json_object_get(source, "disks"), 1), "serial");
    json_object_del(json_array_get(json_object_get(destination, "disks"), 1), "serial");
    gw_preflight_compare(source, destination, &list);
    assert_int_equal(list.n_items, 1);
    assert_string_equal(list.items[0].code, "disk-unknown");
    gw_findings_fini(&list);
    json_decref(source);
    json_decref(destination);
}

static void versions_are_compared_by_number(void **state)
{
    static const struct {
        const char *a, *b;
        unsigned n;
        int order;
    } table[] = {
        {"10.0.2", "9.2.4", 2, 1},  {"9.2", "10.0", 2, -1},
        {"10.0.2", "10.0.9", 2, 0}, {"10.0.2", "10.0.9", 3, -1},
        {"10", "10.0.0", 3, 0},     {"", "1", 2, -1},
        {"x", "y", 2, 0},
    };

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++)
        assert_int_equal(gw_preflight_compare_versions(table[i].a, table[i].b, table[i].n),
                         table[i].order);
}

static void findings_survive_json(void **state)
{
    struct gw_findings list = {0}, copy = {0};
    struct gw_error e;
    json_t *json, *again;

    (void)state;
    gw_finding_hint(gw_findings_add(&list, GW_FINDING_ERROR, "a", "s", "m%d", 1), "h");
    gw_findings_add(&list, GW_FINDING_WARNING, "b", "", "bell\a");
    gw_findings_add(&list, GW_FINDING_INFO, "c", "", "%0382d%s", 0, "\xc3\xa9"); /* cut inside */
    assert_int_equal(strlen(list.items[2].message), 382);
    json = gw_findings_to_json(&list);
    assert_int_equal(json_array_size(json), 3);
    assert_int_equal(gw_findings_from_json(&copy, json, &e), 0);
    assert_int_equal(copy.n_errors, 1);
    assert_int_equal(copy.n_warnings, 1);
    assert_string_equal(gw_findings_first_error(&copy)->hint, "h");
    assert_string_equal(copy.items[1].message, "bell ");
    again = gw_findings_to_json(&copy);
    assert_true(json_equal(json, again));
    json_decref(json);
    json_decref(again);
    gw_findings_fini(&list);
    gw_findings_fini(&copy);
    gw_findings_fini(&copy);
}

static void malformed_findings_are_refused(void **state)
{
    static const char *const bad[] = {
        "{}",
        "[1]",
        "[{'level': 'error', 'code': 'a'}]",
        "[{'level': 'fatal', 'code': 'a', 'message': 'm'}]",
        "[{'level': 'info', 'code': 'A b', 'message': 'm'}]",
        "[{'level': 'info', 'code': 'a', 'message': 'm'}, {'level': 'info'}]",
        "[{'level': 'info', 'code': '', 'message': 'm'}]",
        "[{'level': 'info', 'code': 'a', 'message': '\\u001b[2J'}]",
    };
    struct gw_findings list = {0};
    struct gw_error e;

    (void)state;
    gw_findings_add(&list, GW_FINDING_WARNING, "mine", "", "m");
    for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
        json_t *json = parse(bad[i]);

        assert_int_equal(gw_findings_from_json(&list, json, &e), -1);
        assert_int_equal(e.code, GW_E_PROTOCOL);
        assert_int_equal(list.n_items, 1);
        assert_int_equal(list.n_warnings, 1);
        json_decref(json);
    }
    gw_findings_fini(&list);
}

static void too_many_findings_are_not_ok(void **state)
{
    struct gw_findings list = {0};

    (void)state;
    for (int i = 0; i < GW_FINDINGS_MAX; i++)
        assert_non_null(gw_findings_add(&list, GW_FINDING_INFO, "a", "", "m"));
    assert_true(gw_findings_ok(&list));
    assert_null(gw_findings_add(&list, GW_FINDING_ERROR, "a", "", "m"));
    assert_false(gw_findings_ok(&list));
    assert_true(list.incomplete);
    assert_null(gw_findings_first_error(&list));
    gw_findings_fini(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case),
        cmocka_unit_test(a_device_without_a_name_is_not_trusted),
        cmocka_unit_test(versions_are_compared_by_number),
        cmocka_unit_test(findings_survive_json),
        cmocka_unit_test(malformed_findings_are_refused),
        cmocka_unit_test(too_many_findings_are_not_ok),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
