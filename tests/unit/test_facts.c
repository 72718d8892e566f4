/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cmocka.h>

#include "host/facts.h"
#include "host/qemubin.h"
#include "util/cleanup.h"

static char dir[64], path[96];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/gw-test-facts-XXXXXX");
    snprintf(path, sizeof path, "%s/disk", mkdtemp(dir));
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static void write_file(const char *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0700);

    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "(none)";
}

static void host_knows_itself(void **state)
{
    struct gw_error e;
    char boot_id[37];
    json_t *facts;

    (void)state;
    facts = gw_facts_host("n1", &e);
    assert_non_null(facts);
    assert_int_equal(gw_facts_boot_id(boot_id, &e), 0);
    assert_string_equal(text_of(facts, "node"), "n1");
    assert_string_equal(text_of(facts, "boot_id"), boot_id);
    assert_int_equal(strlen(boot_id), 36);
    assert_true(json_integer_value(json_object_get(facts, "mem_available_bytes")) > 1 << 20);
    assert_true(json_is_array(json_object_get(facts, "bridges")));
    json_decref(facts);
}

static void qemu_says_its_version(void **state)
{
    static const struct {
        const char *script, *version; /* NULL: an error, with these words */
        const char *message;
    } table[] = {
        {"echo 'QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)'", "10.0.2", NULL},
        {"echo 'QEMU emulator version 7.2.22'; echo Copyright", "7.2.22", NULL},
        {"echo hello", NULL, "names no version: hello"},
        {"echo 'version x'", NULL, "names no version"},
        {"echo 'broken library' >&2; exit 127", NULL, "exited with status 127: broken library"},
    };
    struct gw_error e;
    char version[32], script[256];

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++) {
        snprintf(script, sizeof script, "#!/bin/sh\n%s\n", table[i].script);
        write_file(script, strlen(script));
        assert_int_equal(gw_facts_qemu_version(path, version, &e), table[i].version ? 0 : -1);
        if (table[i].version)
            assert_string_equal(version, table[i].version);
        else
            assert_non_null(strstr(e.msg, table[i].message));
    }
    assert_int_equal(gw_facts_qemu_version("/nonexistent/qemu", version, &e), -1);
    assert_int_equal(e.sys, ENOENT);
}

/* This test itself, which says a version when it is asked: see main(). */
static void make_program(void)
{
    gw_autoclose int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    gw_autoclose int to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    ssize_t n;

    while ((n = sendfile(to, from, NULL, 1 << 20)) > 0)
        ;
    assert_int_equal(n, 0);
}

static void installed_program_is_asked_once(void **state)
{
    static const struct timespec another_time[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    struct gw_qemu_binary known = {0};
    const char *version = NULL;
    gw_autofree char *usual = strdup(getenv("PATH"));
    char place[sizeof dir + 16];
    struct gw_error e;

    (void)state;
    make_program();
    assert_int_equal(gw_qemu_binary_version(&known, path, &version, &e), 0);
    assert_string_equal(version, "9.8.7");
    strcpy(known.version, "remembered");
    assert_int_equal(gw_qemu_binary_version(&known, path, &version, &e), 0);
    assert_string_equal(version, "remembered");
    /* As a name, it is the same file. */
    snprintf(place, sizeof place, ":/nonexistent:%s", dir);
    setenv("PATH", place, 1);
    assert_int_equal(gw_qemu_binary_version(&known, "disk", &version, &e), 0);
    assert_string_equal(version, "remembered");
    setenv("PATH", usual, 1);
    assert_int_equal(utimensat(AT_FDCWD, path, another_time, 0), 0);
    assert_int_equal(gw_qemu_binary_version(&known, path, &version, &e), 0);
    assert_string_equal(version, "9.8.7");
}

static void installed_script_is_asked_each_time(void **state)
{
    static const char script[] = "#!/bin/sh\necho QEMU emulator version 7.2.22\n";
    struct gw_qemu_binary known = {0};
    const char *version = NULL;
    struct gw_error e;

    (void)state;
    write_file(script, strlen(script));
    assert_int_equal(gw_qemu_binary_version(&known, path, &version, &e), 0);
    assert_string_equal(version, "7.2.22");
    strcpy(known.version, "remembered");
    assert_int_equal(gw_qemu_binary_version(&known, path, &version, &e), 0);
    assert_string_equal(version, "7.2.22");
}

static void program_that_is_not_installed(void **state)
{
    static const char *const names[] = {"/nonexistent/qemu", "gw-no-such-program", "/tmp", ""};
    struct gw_qemu_binary known = {0};
    const char *version;
    struct gw_error e;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++) {
        assert_int_equal(gw_qemu_binary_version(&known, names[i], &version, &e), -1);
        assert_int_equal(e.sys, ENOENT);
    }
    assert_string_equal(known.version, "");
}

static void file_is_described(void **state)
{
    struct stat st;
    char device[32];
    json_t *facts;

    (void)state;
    write_file("QFI\xfb\0\0\0\3....", 12);
    assert_int_equal(stat(path, &st), 0);
    snprintf(device, sizeof device, "%u:%u", major(st.st_dev), minor(st.st_dev));
    facts = gw_facts_disk(path, "qcow2", true);
    assert_string_equal(text_of(facts, "kind"), "file");
    assert_string_equal(text_of(facts, "path"), path);
    assert_string_equal(text_of(facts, "device"), device);
    assert_string_equal(text_of(facts, "probed_format"), "qcow2");
    assert_true(json_is_true(json_object_get(facts, "read_only")));
    assert_true(json_is_true(json_object_get(facts, "exists")));
    assert_true(json_is_true(json_object_get(facts, "readable")));
    assert_true(json_is_true(json_object_get(facts, "writable")));
    assert_true(json_is_false(json_object_get(facts, "shared")));
    assert_int_equal(json_integer_value(json_object_get(facts, "inode")), st.st_ino);
    assert_int_equal(json_integer_value(json_object_get(facts, "size_bytes")), 12);
    json_decref(facts);
}

static void other_things_are_described(void **state)
{
    json_t *facts;

    (void)state;
    facts = gw_facts_disk("/nonexistent/disk", "raw", false);
    assert_true(json_is_false(json_object_get(facts, "exists")));
    assert_string_equal(text_of(facts, "error"), "No such file or directory");
    json_decref(facts);
    facts = gw_facts_disk("/dev/null", "raw", false);
    assert_string_equal(text_of(facts, "kind"), "other");
    assert_true(json_is_false(json_object_get(facts, "readable")));
    json_decref(facts);
    facts = gw_facts_disk(dir, "raw", false);
    assert_string_equal(text_of(facts, "kind"), "other");
    json_decref(facts);
    write_file("", 0);
    facts = gw_facts_disk(path, "raw", false);
    assert_string_equal(text_of(facts, "probed_format"), "raw");
    json_decref(facts);
    facts = gw_facts_rbd("rbd/web1", "raw", false, 1);
    assert_string_equal(text_of(facts, "kind"), "rbd");
    json_decref(facts);
    assert_null(gw_facts_disk("/tmp/\xff", "raw", false));
}

static void block_device_is_described(void **state)
{
    json_t *facts;

    (void)state;
    if (access("/dev/loop0", R_OK) < 0)
        skip();
    facts = gw_facts_disk("/dev/loop0", "raw", false);
    assert_string_equal(text_of(facts, "kind"), "block");
    assert_string_equal(text_of(facts, "device"), "7:0");
    assert_true(json_is_integer(json_object_get(facts, "size_bytes")));
    assert_null(json_object_get(facts, "serial"));
    json_decref(facts);
}

static void file_systems_have_names(void **state)
{
    static const struct {
        uint64_t type;
        const char *name;
        bool shared;
    } table[] = {
        {0x6969, "nfs", true},          {0x00c36400, "ceph", true},
        {0xff534d42, "cifs", true},     {(uint64_t)(int32_t)0xff534d42, "cifs", true},
        {0xef53, "ext4", false},        {0x01021994, "tmpfs", false},
        {0x794c7630, "overlay", false}, {0x12345678, "0x12345678", false},
    };
    char buffer[24];

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++) {
        bool shared = !table[i].shared;

        assert_string_equal(gw_facts_fs_name(table[i].type, buffer, &shared), table[i].name);
        assert_int_equal(shared, table[i].shared);
    }
}

static void features_stand_once(void **state)
{
    json_t *props, *features, *expected;

    (void)state;
    props = json_loads("{\"sse4.1\": true, \"sse4-1\": true, \"sse4_1\": true, \"xd\": true,"
                       " \"nx\": true, \"pni\": true, \"sse3\": true, \"lahf_lm\": true,"
                       " \"lahf-lm\": true, \"avx\": false, \"x-vendor-cpuid-only\": true,"
                       " \"kvm\": true, \"kvm-pv-eoi\": true, \"kvm_pv_eoi\": true,"
                       " \"migratable\": true, \"level\": 13, \"vendor\": \"GenuineIntel\"}",
                       0, NULL);
    expected = json_loads("{\"sse4.1\": true, \"nx\": true, \"pni\": true, \"lahf-lm\": true,"
                          " \"kvm-pv-eoi\": true}",
                          0, NULL);
    features = gw_facts_cpu_features(props);
    assert_true(json_equal(features, expected));
    json_decref(features);
    features = gw_facts_cpu_features(NULL);
    assert_int_equal(json_object_size(features), 0);
    json_decref(features);
    json_decref(props);
    json_decref(expected);
}

static void machines_are_names_and_aliases(void **state)
{
    json_t *machines, *names, *expected;

    (void)state;
    machines = json_loads("[{\"name\": \"pc-q35-10.0\", \"alias\": \"q35\"}, {\"name\": \"none\"},"
                          " {\"alias\": 1}, 2]",
                          0, NULL);
    expected = json_loads("[\"pc-q35-10.0\", \"q35\", \"none\"]", 0, NULL);
    names = gw_facts_machines(machines);
    assert_true(json_equal(names, expected));
    json_decref(names);
    json_decref(machines);
    json_decref(expected);
}

static void insane_json_is_refused(void **state)
{
    static const char *const good[] = {"{}", "[]", "\"caf\xc3\xa9\"", "[[[[[[1]]]]]"};
    static const char *const bad[] = {"\"a\\u001b[2J\"", "{\"a\\n\": 1}", "[\"\\u009b\"]",
                                      "[[[[[[[1]]]]]]]", "{\"a\": [\"\\u007f\"]}"};
    struct gw_error e;
    json_t *json;
    char *text;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(good); i++) {
        json = json_loads(good[i], JSON_DECODE_ANY, NULL);
        assert_int_equal(gw_facts_sane(json, &e), 0);
        json_decref(json);
    }
    for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
        json = json_loads(bad[i], JSON_DECODE_ANY, NULL);
        assert_int_equal(gw_facts_sane(json, &e), -1);
        assert_int_equal(e.code, GW_E_PROTOCOL);
        json_decref(json);
    }
    text = calloc(1, 4098);
    memset(text, 'x', 4097);
    json = json_string(text);
    assert_int_equal(gw_facts_sane(json, &e), -1);
    json_decref(json);
    free(text);
    json = json_array();
    for (int i = 0; i < 4097; i++)
        json_array_append_new(json, json_null());
    assert_int_equal(gw_facts_sane(json, &e), -1);
    json_decref(json);
}

static const char destination[] =
    "{\"node\": \"n2\", \"boot_id\": \"b\", \"qemu_version\": \"10.0.2\", \"machines\": [\"q35\"],"
    " \"accels\": [], \"mem_available_bytes\": 1, \"mem_reserved_bytes\": 0, \"cpu_features\": {},"
    " \"disks\": [{\"kind\": \"rbd\", \"path\": \"a/b\", \"format\": \"raw\", \"read_only\": false,"
    " \"exists\": true}], \"bridges\": [], \"vms\": [{\"name\": \"a\", \"uuid\": \"u\"}],"
    " \"capabilities\": [], \"from_the_future\": 1}";

static void facts_of_a_peer_are_checked(void **state)
{
    static const struct {
        const char *patch, *message;
    } table[] = {
        {"{}", NULL},
        {"{\"node\": 1}", "facts of the destination: node: not of the right type"},
        {"{\"machines\": [1]}", "machines: not of the right type"},
        {"{\"machines\": {}}", "machines: not of the right type"},
        {"{\"mem_available_bytes\": -1}", "mem_available_bytes: not of the right type"},
        {"{\"mem_available_bytes\": 1.5}", "mem_available_bytes: not of the right type"},
        {"{\"cpu_features\": {\"avx\": 1}}", "cpu_features: not of the right type"},
        {"{\"disks\": [{}]}", "disks: 0: kind is missing"},
        {"{\"disks\": [1]}", "disks: 0: no object"},
        {"{\"disks\": 1}", "disks: no array"},
        {"{\"vms\": [{\"name\": \"a\", \"uuid\": null}]}", "vms: 0: uuid: not of the right type"},
        {"{\"node\": \"n2\\u001b[2J\"}", "control character"},
    };
    struct gw_error e;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++) {
        json_t *facts = json_loads(destination, 0, NULL);
        json_t *patch = json_loads(table[i].patch, 0, NULL);

        json_object_update(facts, patch);
        assert_int_equal(gw_facts_check(facts, GW_FACTS_DESTINATION, &e),
                         table[i].message ? -1 : 0);
        if (table[i].message && !strstr(e.msg, table[i].message))
            fail_msg("%s: %s", table[i].patch, e.msg);
        json_decref(facts);
        json_decref(patch);
    }
    json_t *facts = json_loads(destination, 0, NULL);
    assert_int_equal(gw_facts_check(facts, GW_FACTS_SOURCE, &e), -1);
    json_object_del(facts, "vms");
    assert_int_equal(gw_facts_check(facts, GW_FACTS_DESTINATION, &e), -1);
    assert_string_equal(e.msg, "facts of the destination: vms is missing");
    assert_int_equal(gw_facts_check(NULL, GW_FACTS_DESTINATION, &e), -1);
    json_decref(facts);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_knows_itself),
        cmocka_unit_test_setup_teardown(qemu_says_its_version, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(installed_program_is_asked_once, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(installed_script_is_asked_each_time, make_dir, remove_dir),
        cmocka_unit_test(program_that_is_not_installed),
        cmocka_unit_test_setup_teardown(file_is_described, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(other_things_are_described, make_dir, remove_dir),
        cmocka_unit_test(block_device_is_described),
        cmocka_unit_test(file_systems_have_names),
        cmocka_unit_test(features_stand_once),
        cmocka_unit_test(machines_are_names_and_aliases),
        cmocka_unit_test(insane_json_is_refused),
        cmocka_unit_test(facts_of_a_peer_are_checked),
    };

    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return puts("QEMU emulator version 9.8.7") < 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
