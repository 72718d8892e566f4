/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "host/vmspec.h"
#include "util/yaml.h"

static const char full[] =
    "name: web1\n"
    "uuid: 11111111-2222-4333-8444-ABCDEFABCDEF\n"
    "memory: 1GiB   # a comment\n"
    "cpus: 2\n"
    "cpu: x86-64-v3,+pku\n"
    "accel: tcg\n"
    "machine: pc-q35-10.0\n"
    "boot: {kernel: /boot/k, initrd: /boot/i, append: \"console=ttyS0 a=b,c\"}\n"
    "disks:\n"
    "  - rbd: rbd/web1\n"
    "  - {file: \"/srv/a,b.qcow2\", format: qcow2}\n"
    "nics: [{bridge: br0, mac: \"52:54:00:12:34:5F\"}, {bridge: br1}]\n"
    "console: {log: /var/log/godwit/web1.log}\n"
    "qemu_args: [\"-device\", \"virtio-rng-pci\"]\n";

static struct gw_vm_spec *load(const char *text)
{
    struct gw_vm_spec *spec = NULL;
    struct gw_error e = {0};

    if (gw_vm_spec_from_yaml(text, strlen(text), "web1.yaml", &spec, &e) < 0)
        fail_msg("%s", e.msg);
    return spec;
}

static void every_key_arrives(void **state)
{
    gw_auto(vm_spec) struct gw_vm_spec *spec = load(full);

    (void)state;
    assert_string_equal(spec->name, "web1");
    assert_string_equal(spec->uuid, "11111111-2222-4333-8444-abcdefabcdef");
    assert_int_equal(spec->memory_bytes, 1ull << 30);
    assert_int_equal(spec->cpus, 2);
    assert_string_equal(spec->cpu, "x86-64-v3,+pku");
    assert_int_equal(spec->accel, GW_ACCEL_TCG);
    assert_string_equal(spec->machine, "pc-q35-10.0");
    assert_string_equal(spec->boot.append, "console=ttyS0 a=b,c");
    assert_int_equal(spec->n_disks, 2);
    assert_string_equal(spec->disks[0].rbd, "rbd/web1");
    assert_string_equal(spec->disks[0].format, "raw");
    assert_string_equal(spec->disks[1].file, "/srv/a,b.qcow2");
    assert_int_equal(spec->n_nics, 2);
    assert_string_equal(spec->nics[0].mac, "52:54:00:12:34:5f");
    assert_null(spec->nics[1].mac);
    assert_string_equal(spec->console.log, "/var/log/godwit/web1.log");
    assert_int_equal(spec->n_qemu_args, 2);
    assert_string_equal(spec->qemu_args[1], "virtio-rng-pci");
    assert_null(spec->qemu_args[2]);
}

static void the_least_is_completed(void **state)
{
    gw_auto(vm_spec) struct gw_vm_spec *spec = load("{name: a, memory: 64M}");
    struct gw_error e;
    char uuid[64];

    (void)state;
    assert_string_equal(spec->cpu, GW_VM_DEFAULT_CPU);
    assert_string_equal(spec->machine, "q35");
    assert_int_equal(spec->cpus, 1);
    assert_int_equal(spec->accel, GW_ACCEL_AUTO);
    assert_null(spec->uuid);
    assert_int_equal(gw_vm_spec_resolve(spec, &e), 0);
    snprintf(uuid, sizeof uuid, "%s", spec->uuid);
    assert_int_equal(strlen(uuid), 36);
    assert_int_equal(gw_vm_spec_resolve(spec, &e), 0);
    assert_string_equal(spec->uuid, uuid);
    assert_int_equal(gw_vm_spec_set_machine(spec, "pc-q35-9.2", &e), 0);
    assert_string_equal(spec->machine, "pc-q35-9.2");
    assert_int_equal(gw_vm_spec_set_machine(spec, "q35,smm=off", &e), -1);
    assert_string_equal(spec->machine, "pc-q35-9.2");
}

static void made_up_macs_are_stable_and_distinct(void **state)
{
    gw_auto(vm_spec) struct gw_vm_spec *a =
        load("name: a\nmemory: 64M\nuuid: 11111111-2222-4333-8444-555555555555\n"
             "nics: [{bridge: br0}, {bridge: br0}]\n");
    gw_auto(vm_spec) struct gw_vm_spec *b = NULL;
    struct gw_error e;
    char text[256];

    (void)state;
    assert_int_equal(gw_vm_spec_resolve(a, &e), 0);
    assert_memory_equal(a->nics[0].mac, "52:54:00:", 9);
    assert_string_not_equal(a->nics[0].mac, a->nics[1].mac);
    /* the address that nics[0] would get is already somebody's */
    snprintf(text, sizeof text,
             "name: a\nmemory: 64M\nuuid: 11111111-2222-4333-8444-555555555555\n"
             "nics: [{bridge: br0}, {bridge: br0, mac: '%s'}]\n",
             a->nics[0].mac);
    b = load(text);
    assert_int_equal(gw_vm_spec_resolve(b, &e), 0);
    assert_string_not_equal(b->nics[0].mac, b->nics[1].mac);
}

#define OK "name: a\nmemory: 64M\n"

static const struct {
    const char *text;
    const char *msg;  /* the whole message, or its beginning where it ends in "…" */
    const char *hint; /* or NULL */
} wrong[] = {
    {"name: a\nmemroy: 1GiB\n", "web1.yaml:2: unknown key 'memroy'", "did you mean 'memory'?"},
    {OK "disks:\n  - file: /a\n    foramt: raw\n", "web1.yaml:5: unknown key 'foramt'",
     "did you mean 'format'?"},
    {OK "nics: [{\n  bridge: br0,\n  model: e1000}]\n", "web1.yaml:5: unknown key 'model'",
     "known keys: bridge, mac"},
    {OK "zzzzzzz: 1\n", "web1.yaml:3: unknown key 'zzzzzzz'",
     "known keys: name, uuid, memory, cpus, cpu, accel, machine, boot, disks, nics, "
     "console, balloon, qemu_args"},
    {"{name: a, memory: 64M, disks: [{rbd: a/b}], rbd: x}", "web1.yaml:1: unknown key 'rbd'",
     "known keys: name, uuid, memory, cpus, cpu, accel, machine, boot, disks, nics, "
     "console, balloon, qemu_args"},
    {OK "boot: {append: a, kernel: /k}\nconsole: {log: /l}\nlog:\n  1\n",
     "web1.yaml:5: unknown key 'log'",
     "known keys: name, uuid, memory, cpus, cpu, accel, "
     "machine, boot, disks, nics, console, balloon, qemu_args"},
    {"memory: 64M\n", "web1.yaml: missing key 'name'", NULL},
    {"name: a\n", "web1.yaml: missing key 'memory' (as in 'memory: 1GiB')", NULL},
    {"", "web1.yaml: is empty", NULL},
    {"{}", "web1.yaml: missing key 'name'", NULL},
    {"# only this\n", "web1.yaml: is empty", NULL},
    {"- a\n",
     "web1.yaml:1: the file: expected a mapping ('key: value' or {key: value}), found a list",
     NULL},
    {"name: a\n\tmemory: 1\n", "web1.yaml:2: found …", NULL},
    {"name: a\nmemory: 64M\nname: b\n", "web1.yaml:3: key 'name' is given twice", NULL},
    {OK "cpu: &x host\nmachine: *x\n", "web1.yaml:3: anchors (&name) are not supported", NULL},
    {OK "qemu_args: &x []\n", "web1.yaml:3: anchors (&name) are not supported", NULL},
    {OK "machine: *x\n", "web1.yaml:3: aliases (*name) are not supported", NULL},
    {OK "cpus: !!int 3\n", "web1.yaml:3: tags (!name) are not supported", NULL},
    {OK "---\nname: b\n", "web1.yaml:3: a second document begins: one file, one document", NULL},
    {OK "cpu: \"a\\0b\"\n", "web1.yaml:3: cpu: holds a NUL byte", NULL},
    {OK "cpu: \"\xff\"\n", "web1.yaml:3: invalid …", NULL},
    {OK "? [a]\n: b\n", "web1.yaml:3: a key must be a plain word", NULL},
    {OK "qemu_args: [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]\n", "web1.yaml:3: nested too deep", NULL},
    {OK "disks: /srv/a\n", "web1.yaml:3: disks: expected a list, found a single value", NULL},
    {OK "cpu: [a]\n", "web1.yaml:3: cpu: expected a single value, found a list", NULL},
    {OK "boot: {kernel: {a: b}}\n", "web1.yaml:3: kernel: expected a single value, found a …",
     NULL},
    {"name: a b\nmemory: 64M\n", "web1.yaml:1: name: 'a b' is not a VM name…", NULL},
    {"name: .a\nmemory: 64M\n", "web1.yaml:1: name: …", NULL},
    {"name:\nmemory: 64M\n", "web1.yaml:1: name: '' is not a VM name…", NULL},
    {"name: a\nmemory: 1GB\n",
     "web1.yaml:2: memory: '1GB' is not a size such as 1GiB, 512MiB or 1073741824", NULL},
    {"name: a\nmemory: -1\n", "web1.yaml:2: memory: '-1' is not a size…", NULL},
    {"name: a\nmemory: 99999999999999999999\n", "web1.yaml:2: memory: …", NULL},
    {"name: a\nmemory: 15M\n", "web1.yaml:2: memory: 15728640 bytes: must be a multiple of 1 MiB…",
     NULL},
    {"name: a\nmemory: 17T\n", "web1.yaml:2: memory: …", NULL},
    {"name: a\nmemory: 1048577\n", "web1.yaml:2: memory: …", NULL},
    {OK "\n\ncpus: 0\n", "web1.yaml:5: cpus: '0': must be from 1 to 512", NULL},
    {OK "cpus: 513\n", "web1.yaml:3: cpus: '513': must be from 1 to 512", NULL},
    {OK "cpus: 2x\n", "web1.yaml:3: cpus: '2x': must be from 1 to 512", NULL},
    {OK "accel: hvf\n", "web1.yaml:3: accel: 'hvf': must be auto, kvm or tcg", NULL},
    {OK "balloon: yes\n", "web1.yaml:3: balloon: 'yes': must be free-page-hints or none", NULL},
    {OK "machine: microvm\nballoon: free-page-hints\n",
     "web1.yaml:4: balloon: this machine has no PCI bus for it", NULL},
    {OK "qemu_args: [-device, virtio-balloon-pci]\nballoon: free-page-hints\n",
     "web1.yaml:4: balloon: there is one in qemu_args already, and QEMU takes one only", NULL},
    {OK "cpu: 'host; rm'\n", "web1.yaml:3: cpu: 'host; rm' is not a CPU model", NULL},
    {OK "machine: q35,smm=off\n", "web1.yaml:3: machine: 'q35,smm=off' is not a machine type…",
     NULL},
    {OK "uuid: 1234\n", "web1.yaml:3: uuid: '1234' is not a uuid", NULL},
    {OK "boot: {initrd: /i}\n", "web1.yaml:3: boot: initrd and append need a kernel", NULL},
    {OK "boot:\n  kernel: k\n", "web1.yaml:4: boot.kernel: 'k' is not the absolute path of a file",
     NULL},
    {OK "disks:\n - file: /a\n - format: raw\n",
     "web1.yaml:5: disks[1]: a disk needs either rbd or file", NULL},
    {OK "disks: [{file: /a, rbd: a/b}]\n",
     "web1.yaml:3: disks[0]: a disk needs either rbd or file, not both", NULL},
    {OK "disks:\n - file: /a\n - file: /a\n", "web1.yaml:5: disks[1].file: the same as disks[0]",
     NULL},
    {OK "disks:\n - file: /a\n   format: vmdk\n",
     "web1.yaml:5: disks[0].format: 'vmdk': the formats are raw and qcow2", NULL},
    {OK "disks: [{file: a}]\n",
     "web1.yaml:3: disks[0].file: 'a' is not the absolute path of a file", NULL},
    {OK "disks: [{file: \"/a\\nb\"}]\n",
     "web1.yaml:3: disks[0].file: a control character (0x0a) in it", NULL},
    {OK "disks: [{rbd: a}]\n", "web1.yaml:3: disks[0].rbd: 'a' is not POOL/IMAGE…", NULL},
    {OK "disks: [{rbd: a/b@c}]\n", "web1.yaml:3: disks[0].rbd: …", NULL},
    {OK "nics: [{mac: 'aa:00:00:00:00:01'}]\n", "web1.yaml:3: nics[0]: a NIC needs a bridge", NULL},
    {OK "nics: [{bridge: a-name-too-long-for-linux}]\n",
     "web1.yaml:3: nics[0].bridge: 'a-name-too-long-for-linux' is not …", NULL},
    {OK "nics: [{bridge: b, mac: 12}]\n", "web1.yaml:3: nics[0].mac: '12' is not a MAC address…",
     NULL},
    {OK "nics: [{bridge: b, mac: '01:00:5e:00:00:01'}]\n",
     "web1.yaml:3: nics[0].mac: '01:00:5e:00:00:01' is a group address…", NULL},
    {OK "nics:\n- {bridge: b, mac: '52:54:00:00:00:0a'}\n- {bridge: b, mac: '52:54:00:00:00:0A'}\n",
     "web1.yaml:5: nics[1].mac: '52:54:00:00:00:0a' is the address of nics[0] too", NULL},
    {OK "console: {log: x}\n", "web1.yaml:3: console.log: 'x' is not the absolute path of a file",
     NULL},
    {OK "qemu_args: [-device, \"a\\tb\"]\n",
     "web1.yaml:3: qemu_args[1]: a control character (0x09) in it", NULL},
};

static void check_message(const char *text, const char *expected, const struct gw_error *e)
{
    size_t len = strlen(expected) - strlen("…");

    if (strcmp(expected + len, "…") != 0 ? strcmp(e->msg, expected) != 0
                                         : strncmp(e->msg, expected, len) != 0)
        fail_msg("for\n%s\nexpected: %s\ngot:      %s", text, expected, e->msg);
}

static void wrong_files_name_line_and_reason(void **state)
{
    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(wrong); i++) {
        struct gw_vm_spec *spec = NULL;
        struct gw_error e = {0};

        if (gw_vm_spec_from_yaml(wrong[i].text, strlen(wrong[i].text), "web1.yaml", &spec, &e) == 0)
            fail_msg("accepted:\n%s", wrong[i].text);
        assert_null(spec);
        assert_int_equal(e.code, GW_E_CONFIG);
        check_message(wrong[i].text, wrong[i].msg, &e);
        if (wrong[i].hint)
            assert_string_equal(e.hint, wrong[i].hint);
    }
}

static void long_files_are_refused(void **state)
{
    static char text[GW_YAML_MAX_BYTES + 1];
    struct gw_vm_spec *spec = NULL;
    struct gw_error e;

    (void)state;
    memset(text, '#', sizeof text);
    assert_int_equal(gw_vm_spec_from_yaml(text, sizeof text, "x", &spec, &e), -1);
    assert_non_null(strstr(e.msg, "is larger than"));
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes; /* 0: not a size */
    } cases[] = {{"1", 1},
                 {"1K", 1024},
                 {"1GiB", 1ull << 30},
                 {"16T", 16ull << 40},
                 {"512MiB", 512ull << 20},
                 {"1g", 0},
                 {"1.5G", 0},
                 {" 1G", 0},
                 {"1G ", 0},
                 {"G", 0},
                 {"", 0},
                 {"0x10", 0},
                 {"+1", 0},
                 {"16777216T", 0},
                 {"1KB", 0}};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        uint64_t bytes = 0;
        int rc = gw_vm_parse_size(cases[i].text, &bytes);

        assert_int_equal(rc, cases[i].bytes ? 0 : -1);
        assert_int_equal(bytes, cases[i].bytes);
    }
}

static void json_round_trip(void **state)
{
    gw_auto(vm_spec) struct gw_vm_spec *spec = load(full), *back = NULL;
    struct gw_error e;
    json_t *one = gw_vm_spec_to_json(spec), *two;

    (void)state;
    assert_int_equal(gw_vm_spec_from_json(one, &back, &e), 0);
    two = gw_vm_spec_to_json(back);
    assert_true(json_equal(one, two));
    assert_int_equal(json_array_size(json_object_get(one, "disks")), 2);
    json_decref(one);
    json_decref(two);
}

static void a_vm_has_a_balloon_unless_it_cannot_or_need_not(void **state)
{
    static const struct {
        const char *text;
        enum gw_balloon balloon;
    } cases[] = {
        {OK, GW_BALLOON_HINTS},
        {OK "balloon: free-page-hints\n", GW_BALLOON_HINTS},
        {OK "balloon: none\n", GW_BALLOON_NONE},
        {OK "machine: pc-i440fx-9.2\n", GW_BALLOON_HINTS},
        {OK "machine: microvm\n", GW_BALLOON_NONE},
        {OK "machine: isapc\nballoon: none\n", GW_BALLOON_NONE},
        {OK "qemu_args: [-device, 'virtio-balloon-pci,id=b']\n", GW_BALLOON_NONE},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        gw_auto(vm_spec) struct gw_vm_spec *spec = load(cases[i].text), *back = NULL;
        json_t *json = gw_vm_spec_to_json(spec);
        struct gw_error e;

        if (spec->balloon != cases[i].balloon)
            fail_msg("%s: %s", cases[i].text, gw_balloon_name(spec->balloon));
        /* a node that knows of no balloon refuses the member, so it is there only with one */
        assert_int_equal(json_object_get(json, "balloon") != NULL,
                         cases[i].balloon != GW_BALLOON_NONE);
        assert_int_equal(gw_vm_spec_from_json(json, &back, &e), 0);
        assert_int_equal(back->balloon, cases[i].balloon);
        json_decref(json);
    }
}

static void json_of_a_peer_is_validated(void **state)
{
    static const struct {
        const char *json;
        const char *msg;
    } cases[] = {
        {"[]", "VM spec: expected an object"},
        {"{'name':'a','memory_bytes':67108864,'colour':1}", "VM spec: unknown member 'colour'"},
        {"{'name':'a','memory_bytes':67108864,'boot':{'kernel':'/k','x':1}}",
         "VM spec: boot: unknown member 'x'"},
        {"{'name':'a','memory_bytes':1}", "VM spec: memory: 1 bytes…"},
        {"{'name':'a','memory_bytes':'67108864'}", "VM spec: memory_bytes: expected an integer…"},
        {"{'name':'a','memory_bytes':-1}", "VM spec: memory_bytes: expected an integer…"},
        {"{'name':'a','memory_bytes':67108864,'cpus':0}",
         "VM spec: cpus: 0: must be from 1 to 512"},
        {"{'name':7,'memory_bytes':67108864}", "VM spec: name: expected a string"},
        {"{'name':'a/../b','memory_bytes':67108864}", "VM spec: name: 'a/../b' is not a VM name…"},
        {"{'name':'a','memory_bytes':67108864,'accel':'x'}", "VM spec: accel: expected…"},
        {"{'name':'a','memory_bytes':67108864,'balloon':'x'}", "VM spec: balloon: expected…"},
        {"{'name':'a','memory_bytes':67108864,'balloon':true}", "VM spec: balloon: expected…"},
        {"{'name':'a','memory_bytes':67108864,'disks':[{'file':'x'}]}",
         "VM spec: disks[0].file: 'x' is not the absolute path of a file"},
        {"{'name':'a','memory_bytes':67108864,'disks':[1]}",
         "VM spec: disks[0]: expected an object"},
        {"{'name':'a','memory_bytes':67108864,'disks':{}}", "VM spec: disks: expected a list…"},
        {"{'name':'a','memory_bytes':67108864,'disks':[{'file':'/a','readonly':1}]}",
         "VM spec: disks[0].readonly: expected true or false"},
        {"{'name':'a','memory_bytes':67108864,'qemu_args':['-a',null]}",
         "VM spec: qemu_args[1]: expected a string"},
        {"{'name':'a','memory_bytes':67108864,'qemu_args':['a\\nb']}",
         "VM spec: qemu_args[0]: a control character…"},
        {"{'name':'a','memory_bytes':67108864,'adopted_argv':['-virtfs','x']}",
         "VM spec: adopted_argv: …"},
        {"{'name':'a','memory_bytes':67108864,'adopted_argv':['-S','-machine','@MACHINE@']}",
         "VM spec: adopted_argv: …"},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct gw_vm_spec *spec = NULL;
        struct gw_error e = {0};
        char text[256];
        json_t *json;

        snprintf(text, sizeof text, "%s", cases[i].json);
        for (char *c = text; *c; c++)
            *c = *c == '\'' ? '"' : *c;
        json = json_loads(text, 0, NULL);
        assert_non_null(json);
        if (gw_vm_spec_from_json(json, &spec, &e) == 0)
            fail_msg("accepted: %s", text);
        assert_int_equal(e.code, GW_E_PROTOCOL);
        check_message(text, cases[i].msg, &e);
        json_decref(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_arrives),
        cmocka_unit_test(the_least_is_completed),
        cmocka_unit_test(made_up_macs_are_stable_and_distinct),
        cmocka_unit_test(wrong_files_name_line_and_reason),
        cmocka_unit_test(long_files_are_refused),
        cmocka_unit_test(sizes),
        cmocka_unit_test(json_round_trip),
        cmocka_unit_test(a_vm_has_a_balloon_unless_it_cannot_or_need_not),
        cmocka_unit_test(json_of_a_peer_is_validated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
