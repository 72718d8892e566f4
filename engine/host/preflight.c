/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/facts.h"
#include "host/preflight.h"
#include "host/rbdcheck.h"
#include "util/cleanup.h"

#define MIB (UINT64_C(1) << 20)

/* Both sides and where findings go. */
struct comparison {
    const json_t *source, *destination;
    struct gw_findings *findings;
    const char *node;    /* the destination's name */
    const char *vm;      /* the VM's name */
    const char *version; /* the destination's QEMU */
};

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static uint64_t size_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));

    return value > 0 ? (uint64_t)value : 0;
}

static bool flag_of(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static bool same(const json_t *a, const json_t *b, const char *key)
{
    const json_t *value = json_object_get(a, key);

    return value && json_equal(value, json_object_get(b, key));
}

static bool has_text(const json_t *array, const char *text)
{
    for (size_t i = 0; i < json_array_size(array); i++)
        if (strcmp(json_string_value(json_array_get(array, i)), text) == 0)
            return true;
    return false;
}

/* "a, b, c", as many as fit. */
static void join(const json_t *array, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *text = json_string_value(json_array_get(array, i));

        if (used + strlen(text) + 6 > size) {
            snprintf(out + used, size - used, ", …");
            return;
        }
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", text);
    }
}

/* "1.5 GiB", "64 MiB". */
static const char *human(uint64_t bytes, char out[32])
{
    double mib = (double)bytes / MIB;

    if (mib >= 1024)
        snprintf(out, 32, "%.1f GiB", mib / 1024);
    else
        snprintf(out, 32, "%.0f MiB", mib);
    return out;
}

uint64_t gw_preflight_memory_needed(uint64_t guest_bytes)
{
    return guest_bytes + guest_bytes / 64 + 64 * MIB;
}

int gw_preflight_compare_versions(const char *a, const char *b, unsigned n_parts)
{
    while (n_parts-- > 0) {
        char *a_end, *b_end;
        unsigned long x = strtoul(a, &a_end, 10), y = strtoul(b, &b_end, 10);

        if (x != y)
            return x < y ? -1 : 1;
        a = *a_end == '.' ? a_end + 1 : "";
        b = *b_end == '.' ? b_end + 1 : "";
    }
    return 0;
}

#define ERROR(c, ...)   gw_findings_add((c)->findings, GW_FINDING_ERROR, __VA_ARGS__)
#define WARNING(c, ...) gw_findings_add((c)->findings, GW_FINDING_WARNING, __VA_ARGS__)
#define INFO(c, ...)    gw_findings_add((c)->findings, GW_FINDING_INFO, __VA_ARGS__)

static void check_nodes(const struct comparison *c)
{
    if (strcmp(text_of(c->source, "node"), c->node) == 0)
        ERROR(c, "same-node", c->node, "%s runs on %s already", c->vm, c->node);
}

static void check_blocked(const struct comparison *c)
{
    const json_t *reasons = json_object_get(c->source, "blocked_reasons");

    for (size_t i = 0; i < json_array_size(reasons); i++) {
        struct gw_finding *f = ERROR(c, "blocked", c->vm, "QEMU refuses to migrate %s: %s", c->vm,
                                     json_string_value(json_array_get(reasons, i)));

        gw_finding_hint(f, "remove the device or the CPU flag that it names");
    }
}

static void check_machine(const struct comparison *c)
{
    const char *machine = text_of(c->source, "machine");
    struct gw_finding *f;

    if (has_text(json_object_get(c->destination, "machines"), machine))
        return;
    f = ERROR(c, "machine-unknown", machine, "QEMU %s on %s does not know machine type %s",
              c->version, c->node, machine);
    gw_finding_hint(f, "upgrade QEMU on %s, or restart %s with a machine type that both know",
                    c->node, c->vm);
}

static void check_versions(const struct comparison *c)
{
    const char *from = text_of(c->source, "qemu_version");
    int order = gw_preflight_compare_versions(c->version, from, 2);
    struct gw_finding *f;

    if (order < 0) {
        f = ERROR(c, "qemu-older", c->version, "%s has QEMU %s, older than the %s that runs %s",
                  c->node, c->version, from, c->vm);
        gw_finding_hint(f, "QEMU supports no moves to an older version: upgrade %s", c->node);
    } else if (order > 0) {
        INFO(c, "qemu-newer", c->version,
             "%s moves from QEMU %s to %s; moving back is not supported by QEMU", c->vm, from,
             c->version);
    }
}

/*
 * When QEMU takes up which pages of a RAM block were written, TCG's translations have to notice the
 * next write. It resets them by an offset in the block where an address among all blocks is meant
 * (cpu_physical_memory_sync_dirty_bitmap() in include/exec/ram_addr.h of 10.0), so that is done for
 * the first block only: with two, what a guest wrote to the second one was lost in each of the
 * moves that were tried with 10.0.2, with and without Godwit. A paused guest writes nothing.
 */
static void check_tcg(const struct comparison *c)
{
    const char *from = text_of(c->source, "qemu_version");
    uint64_t n_backends = size_of(c->source, "ram_backends");
    struct gw_finding *f;

    if (strcmp(text_of(c->source, "accel"), "tcg") != 0)
        return;
    if (gw_preflight_compare_versions(from, "8.0", 2) < 0) {
        f = ERROR(c, "qemu-broken", from,
                  "QEMU %s loses pages that the guest writes during a migration under TCG", from);
        gw_finding_hint(f,
                        "restart %s with QEMU 8.2 or newer (the guest's memory would be corrupt "
                        "after the move), or with KVM",
                        c->vm);
    } else if (n_backends > 1 && json_is_true(json_object_get(c->source, "guest_runs"))) {
        f = ERROR(
            c, "qemu-broken", from,
            "under TCG QEMU %s loses pages that the guest writes during a migration to all but "
            "the first of its %" PRIu64 " memory backends",
            from, n_backends);
        gw_finding_hint(f,
                        "restart %s with all of its memory in one backend, without NUMA nodes or "
                        "DIMMs of their own (it would be corrupt after the move), or with KVM",
                        c->vm);
    }
}

static void check_accel(const struct comparison *c)
{
    const json_t *accels = json_object_get(c->destination, "accels");
    const char *accel = text_of(c->source, "accel");
    struct gw_finding *f;
    char list[64];

    if (has_text(accels, accel))
        return;
    join(accels, list, sizeof list);
    f = ERROR(c, "accel", accel, "%s runs under %s, which %s cannot use (it has: %s)", c->vm, accel,
              c->node, list[0] ? list : "none");
    gw_finding_hint(f, "a guest keeps its accelerator when it moves; restart it with accel: %s",
                    list[0] && strcmp(accel, "kvm") == 0 ? "tcg" : "kvm");
}

static void check_cpu(const struct comparison *c)
{
    const json_t *here = json_object_get(c->source, "cpu_features");
    const json_t *there = json_object_get(c->destination, "cpu_features");
    const char *model = text_of(c->source, "cpu_model"), *name;
    json_t *on;

    if (json_object_size(here) == 0 || json_object_size(there) == 0) {
        WARNING(c, "cpu-unknown", model, "the CPU features of model %s could not be read on %s",
                model, json_object_size(here) == 0 ? text_of(c->source, "node") : c->node);
        return;
    }
    json_object_foreach ((json_t *)here, name, on) {
        struct gw_finding *f;

        if (!json_is_true(on) || flag_of(there, name))
            continue;
        f = ERROR(c, "cpu-feature", name,
                  "%s may use CPU feature %s (model %s), which %s does not offer", c->vm, name,
                  model, c->node);
        gw_finding_hint(f,
                        "restart %s with a CPU model that both nodes have, for example "
                        "cpu: x86-64-v2-AES",
                        c->vm);
    }
}

static void check_cpu_level(const struct comparison *c)
{
    static const char *const v2[] = {"cx16", "lahf-lm", "popcnt", "sse4.1", "sse4.2", "ssse3"};
    const json_t *here = json_object_get(c->source, "cpu_features");
    const char *model = text_of(c->source, "cpu_model");
    json_t *missing = json_array();
    struct gw_finding *f;
    char list[96];

    for (size_t i = 0; i < GW_ARRAY_SIZE(v2); i++)
        if (!flag_of(here, v2[i]))
            json_array_append_new(missing, json_string(v2[i]));
    join(missing, list, sizeof list);
    if (json_object_size(here) > 0 && json_array_size(missing) > 0) {
        f = WARNING(c, "cpu-v2", model,
                    "CPU model %s is below x86-64-v2 (it lacks %s), as kvm64 and qemu64 are: "
                    "guests of the RHEL 9 family panic on it",
                    model, list);
        gw_finding_hint(f, "use cpu: x86-64-v2-AES or newer from the next start on");
    }
    json_decref(missing);
}

static void check_memory(const struct comparison *c)
{
    uint64_t needed = gw_preflight_memory_needed(size_of(c->source, "memory_bytes"));
    uint64_t available = size_of(c->destination, "mem_available_bytes");
    uint64_t reserved = size_of(c->destination, "mem_reserved_bytes");
    uint64_t rest = available > reserved ? available - reserved : 0;
    char a[32], b[32];
    struct gw_finding *f;

    if (rest >= needed)
        return;
    f = ERROR(c, "memory", c->node, "%s needs %s of memory, and %s has %s free%s", c->vm,
              human(needed, a), c->node, human(rest, b),
              reserved ? " beside what guests on their way there will take" : "");
    /* Rounded up: what it says must be enough. */
    gw_finding_hint(f, "free %s on %s, or choose another node", human(needed - rest + MIB - 1, a),
                    c->node);
}

static void check_bridges(const struct comparison *c)
{
    const json_t *needed = json_object_get(c->source, "bridges");
    const json_t *there = json_object_get(c->destination, "bridges");
    char list[160];

    join(there, list, sizeof list);
    for (size_t i = 0; i < json_array_size(needed); i++) {
        const char *bridge = json_string_value(json_array_get(needed, i));
        struct gw_finding *f;

        if (has_text(there, bridge))
            continue;
        f = ERROR(c, "bridge-missing", bridge, "%s has no bridge %s", c->node, bridge);
        gw_finding_hint(f, "make it there; bridges on %s: %s", c->node, list[0] ? list : "none");
    }
}

static void check_taken(const struct comparison *c)
{
    const json_t *vms = json_object_get(c->destination, "vms");
    const char *uuid = text_of(c->source, "uuid");

    for (size_t i = 0; i < json_array_size(vms); i++) {
        const json_t *vm = json_array_get(vms, i);

        /* One finding for each VM in the way: the uuid says more. */
        struct gw_finding *f;

        if (strcasecmp(text_of(vm, "uuid"), uuid) == 0)
            f = ERROR(c, "uuid-taken", uuid, "%s runs a VM %s with the same uuid %s", c->node,
                      text_of(vm, "name"), uuid);
        else if (strcmp(text_of(vm, "name"), c->vm) == 0)
            f = ERROR(c, "name-taken", c->vm, "%s runs another VM of the name %s (uuid %s)",
                      c->node, c->vm, text_of(vm, "uuid"));
        else
            continue;
        gw_finding_hint(f, "stop that one (`godwit vm stop %s` on %s), or choose another node",
                        text_of(vm, "name"), c->node);
    }
}

/* Without these there is no safe switchover; all others are used where both have them. */
static void check_capabilities(const struct comparison *c)
{
    static const char *const required[] = {"return-path", "pause-before-switchover", "events"};

    for (size_t i = 0; i < GW_ARRAY_SIZE(required); i++) {
        bool here = has_text(json_object_get(c->source, "capabilities"), required[i]);
        bool there = has_text(json_object_get(c->destination, "capabilities"), required[i]);

        if (!here || !there)
            ERROR(c, "capability-missing", required[i],
                  "QEMU %s on %s lacks the migration capability %s",
                  here ? c->version : text_of(c->source, "qemu_version"),
                  here ? c->node : text_of(c->source, "node"), required[i]);
    }
}

static const json_t *find_disk(const json_t *disks, const json_t *wanted)
{
    for (size_t i = 0; i < json_array_size(disks); i++) {
        const json_t *disk = json_array_get(disks, i);

        if (same(disk, wanted, "path") && (strcmp(text_of(disk, "kind"), "rbd") == 0) ==
                                              (strcmp(text_of(wanted, "kind"), "rbd") == 0))
            return disk;
    }
    return NULL;
}

/* Can it be opened there? */
static bool check_disk_access(const struct comparison *c, const json_t *here, const json_t *there)
{
    const char *path = text_of(here, "path");
    bool write = !flag_of(here, "read_only");
    struct gw_finding *f;

    if (!there || !flag_of(there, "exists")) {
        f = ERROR(c, "disk-missing", path, "disk %s cannot be reached on %s: %s", path, c->node,
                  there ? text_of(there, "error") : "nothing is known about it");
        gw_finding_hint(f, "put it on storage that both nodes see under the same path");
        return false;
    }
    if (flag_of(there, "readable") && (flag_of(there, "writable") || !write))
        return true;
    f = ERROR(c, "disk-access", path, "godwitd on %s may not %s disk %s", c->node,
              flag_of(there, "readable") ? "write" : "read", path);
    gw_finding_hint(f, "check its owner and mode, and how it is mounted or exported");
    return false;
}

static void disk_differs(const struct comparison *c, const char *path, const char *what)
{
    struct gw_finding *f =
        ERROR(c, "disk-differs", path, "%s on %s is not the disk that %s uses: %s", path, c->node,
              c->vm, what);

    gw_finding_hint(f, "both nodes must see one and the same image");
}

/* Between two kernels, a file is the same if the file system is one that hosts share. */
static void check_file(const struct comparison *c, const json_t *here, const json_t *there)
{
    const char *path = text_of(here, "path");
    bool local_there = flag_of(here, "shared");
    struct gw_finding *f;

    if (!flag_of(here, "shared") || !flag_of(there, "shared")) {
        f = ERROR(c, "disk-local", path, "disk %s is local to the node: it is on %s of %s", path,
                  text_of(local_there ? there : here, "fs"),
                  local_there ? c->node : text_of(c->source, "node"));
        gw_finding_hint(f, "put it on shared storage: Ceph RBD, NFS, or another that both mount");
    } else if (!same(here, there, "inode")) {
        disk_differs(c, path, "its inode number differs");
    } else if (!same(here, there, "size_bytes")) {
        disk_differs(c, path, "its size differs");
    }
}

static void check_block(const struct comparison *c, const json_t *here, const json_t *there)
{
    const char *path = text_of(here, "path");
    struct gw_finding *f;

    if (!json_object_get(here, "serial") || !json_object_get(there, "serial")) {
        f = ERROR(c, "disk-unknown", path,
                  "block device %s has no serial number or WWN that would tell whether it is the "
                  "same on %s",
                  path, c->node);
        gw_finding_hint(f, "use a multipath, NVMe or SCSI device that has one, or Ceph RBD");
    } else if (!same(here, there, "serial")) {
        disk_differs(c, path, "its serial number differs");
    } else if (!same(here, there, "size_bytes")) {
        disk_differs(c, path, "its size differs");
    }
}

static void check_disk_identity(const struct comparison *c, const json_t *here, const json_t *there)
{
    const char *path = text_of(here, "path"), *kind = text_of(here, "kind");
    bool is_file = strcmp(kind, "file") == 0;

    if (!same(here, there, "kind") || (!is_file && strcmp(kind, "block") != 0)) {
        disk_differs(c, path, "it is no file or block device of the same kind");
    } else if (same(c->source, c->destination, "boot_id")) {
        /* One kernel: device numbers and inodes mean the same on both. */
        if (!same(here, there, "device") || (is_file && !same(here, there, "inode")))
            disk_differs(c, path, "its device or inode number differs");
    } else if (is_file) {
        check_file(c, here, there);
    } else {
        check_block(c, here, there);
    }
}

static void check_disk_format(const struct comparison *c, const json_t *here, const json_t *there)
{
    const char *path = text_of(here, "path"), *format = text_of(here, "format");
    const char *probed = text_of(there, "probed_format");

    if (strcmp(format, text_of(there, "format")) != 0)
        ERROR(c, "disk-format", path, "disk %s has format %s, but would be opened as %s on %s",
              path, format, text_of(there, "format"), c->node);
    /* A raw image may hold anything, also something that looks like another format. */
    else if (strcmp(format, "raw") != 0 && probed[0] && strcmp(format, probed) != 0)
        ERROR(c, "disk-format", path, "disk %s has format %s, but looks like %s on %s", path,
              format, probed, c->node);
}

static void check_disks(const struct comparison *c)
{
    const json_t *disks = json_object_get(c->source, "disks");

    for (size_t i = 0; i < json_array_size(disks); i++) {
        const json_t *here = json_array_get(disks, i);
        const json_t *there = find_disk(json_object_get(c->destination, "disks"), here);

        if (strcmp(text_of(here, "kind"), "rbd") == 0) {
            gw_rbd_check(&(struct gw_rbd_check){here, there, text_of(c->source, "node"), c->node,
                                                c->vm},
                         c->findings);
        } else if (check_disk_access(c, here, there)) {
            check_disk_identity(c, here, there);
            check_disk_format(c, here, there);
        }
    }
}

void gw_preflight_compare(const json_t *source, const json_t *destination,
                          struct gw_findings *findings)
{
    struct comparison c = {.source = source, .destination = destination, .findings = findings};
    struct gw_error e;

    if (gw_facts_check(source, GW_FACTS_SOURCE, &e) < 0 ||
        gw_facts_check(destination, GW_FACTS_DESTINATION, &e) < 0) {
        ERROR(&c, "facts", "", "%s", e.msg);
        return;
    }
    c.node = text_of(destination, "node");
    c.vm = text_of(source, "name");
    c.version = text_of(destination, "qemu_version");
    check_nodes(&c);
    check_blocked(&c);
    check_machine(&c);
    check_versions(&c);
    check_tcg(&c);
    check_accel(&c);
    check_cpu(&c);
    check_cpu_level(&c);
    check_memory(&c);
    check_disks(&c);
    check_bridges(&c);
    check_taken(&c);
    check_capabilities(&c);
}
