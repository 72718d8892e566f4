/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <jansson.h>

#include "host/argv.h"
#include "host/optstr.h"
#include "host/template.h"

/* A growing argv. Errors are remembered, so that only the end has to look. */
struct args {
    char **v;
    size_t n;
    size_t n_allocated;
    bool failed; /* memory was short */
};

/* Takes text; NULL counts as memory that was short. */
static void add_taken(struct args *args, char *text)
{
    if (text && args->n + 1 >= args->n_allocated) {
        size_t more = args->n_allocated ? 2 * args->n_allocated : 64;
        char **v = realloc(args->v, more * sizeof *v);

        if (v) {
            args->v = v;
            args->n_allocated = more;
        }
    }
    if (!text || args->n + 1 >= args->n_allocated) {
        free(text);
        args->failed = true;
        return;
    }
    args->v[args->n++] = text;
    args->v[args->n] = NULL;
}

static void add(struct args *args, const char *text)
{
    add_taken(args, strdup(text));
}

static void add2(struct args *args, const char *option, const char *value)
{
    add(args, option);
    add(args, value);
}

static void __attribute__((format(printf, 3, 4)))
addf(struct args *args, const char *option, const char *fmt, ...)
{
    char *text;
    va_list ap;

    add(args, option);
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    add_taken(args, text);
}

/* "option" "PREFIX" value "SUFFIX" with the commas of value doubled. */
static void add_path(struct args *args, const char *option, const char *prefix, const char *value,
                     const char *suffix)
{
    gw_autofree char *escaped = gw_optstr_escape(value);

    if (escaped)
        addf(args, option, "%s%s%s", prefix, escaped, suffix);
    else
        args->failed = true;
}

static const struct {
    const char *name;
    const char *model;
} cpu_aliases[] = {
#define V2 "qemu64,svm=off,+cx16,+lahf-lm,+popcnt,+sse4.1,+sse4.2,+ssse3"
#define V3 V2 ",+aes,+abm,+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+movbe,+xsave"
    {"x86-64-v2", V2},
    {"x86-64-v2-AES", V2 ",+aes"},
    {"x86-64-v3", V3},
    {"x86-64-v4", V3 ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"},
#undef V2
#undef V3
};

char *gw_argv_cpu(const char *cpu)
{
    size_t len = strcspn(cpu, ",");
    char *text;

    for (unsigned i = 0; i < GW_ARRAY_SIZE(cpu_aliases); i++) {
        if (strlen(cpu_aliases[i].name) != len || memcmp(cpu_aliases[i].name, cpu, len) != 0)
            continue;
        return asprintf(&text, "%s%s", cpu_aliases[i].model, cpu + len) < 0 ? NULL : text;
    }
    return strdup(cpu);
}

/*
 * A chipset without what no VM file can use (SATA, SMBus) and what no guest of today needs: HPET,
 * VMware's port, and the memory that firmware would use in system management mode, for which only
 * Secure Boot has a use. Each PCI device whose state is loaded makes QEMU build the memory map
 * anew, in the blackout; it is built faster where less is in it (docs/blackout.md). Other machine
 * types do not have all of these properties.
 */
static const char *lean_chipset(const char *machine)
{
    bool is_q35 =
        strcmp(machine, "q35") == 0 || strncmp(machine, "pc-q35-", strlen("pc-q35-")) == 0;

    return is_q35 ? ",sata=off,smbus=off,hpet=off,vmport=off,smm=off" : "";
}

/*
 * For the same reason: virtio without its interface of before 2014, which takes a region of ports
 * from each device, and no task priority register for 32-bit Windows XP. Either can be had back by
 * a VM file's qemu_args.
 */
#define LEAN_VIRTIO ",disable-legacy=on"
#define LEAN_CPU    "apic-common.vapic=off"

static void add_machine(struct args *args, const struct gw_vm_spec *spec,
                        const struct gw_vm_runtime *runtime)
{
    char prealloc[48] = "";

    addf(args, "-name", "guest=%s,debug-threads=on", spec->name);
    add2(args, "-uuid", spec->uuid);
    addf(args, "-machine", "%s,memory-backend=ram0,dump-guest-core=off%s", spec->machine,
         lean_chipset(spec->machine));
    add2(args, "-accel", gw_accel_name(runtime->accel));
    add(args, "-cpu");
    add_taken(args, gw_argv_cpu(spec->cpu));
    addf(args, "-smp", "%u", spec->cpus);
    addf(args, "-m", "%lluM", (unsigned long long)(spec->memory_bytes >> 20));
    if (runtime->prefault_threads)
        snprintf(prealloc, sizeof prealloc, ",prealloc=on,prealloc-threads=%u",
                 runtime->prefault_threads);
    addf(args, "-object", "memory-backend-ram,id=ram0,size=%llu%s",
         (unsigned long long)spec->memory_bytes, prealloc);
    add2(args, "-global", LEAN_CPU);
    add(args, "-nodefaults");
    add(args, "-no-user-config");
}

static void add_boot(struct args *args, const struct gw_vm_boot *boot)
{
    if (boot->kernel)
        add2(args, "-kernel", boot->kernel);
    if (boot->initrd)
        add2(args, "-initrd", boot->initrd);
    if (boot->append)
        add2(args, "-append", boot->append);
}

static const char *console_of(const struct gw_vm_spec *spec, const struct gw_vm_runtime *runtime)
{
    return runtime->console_path ? runtime->console_path : spec->console.log;
}

/* There is always a serial port: whether its output is kept must not change the machine. */
static void add_console(struct args *args, const char *path)
{
    if (path)
        add_path(args, "-chardev", "file,id=gwconsole,path=", path, ",append=on");
    else
        add2(args, "-chardev", "null,id=gwconsole");
    add2(args, "-serial", "chardev:gwconsole");
}

/* JSON, because a file name may hold anything. Takes node. */
static void add_blockdev(struct args *args, json_t *node)
{
    add(args, "-blockdev");
    add_taken(args, node ? json_dumps(node, JSON_COMPACT) : NULL);
    json_decref(node);
}

static json_t *file_node(const struct gw_vm_disk *disk, const char *name)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:{s:b}}", "node-name", name, "driver", "file",
                     "filename", disk->file, "aio", "threads", "read-only", (int)disk->readonly,
                     "cache", "direct", 1);
}

/*
 * QEMU leaves librbd's exclusive lock to librbd, which takes it at the first write and lets go of
 * it when another client asks: so the destination, which has the image open before the move ends,
 * gets it from the paused source without anybody's doing. direct also turns librbd's own write-back
 * cache off, so that a write that the guest saw done is in the cluster.
 */
static json_t *rbd_node(const struct gw_vm_disk *disk, const char *name,
                        const struct gw_vm_runtime *runtime)
{
    const char *slash = strchr(disk->rbd, '/'), *last = strrchr(disk->rbd, '/');
    gw_autofree char *pool = strndup(disk->rbd, (size_t)(slash - disk->rbd));
    gw_autofree char *space = slash < last ? strndup(slash + 1, (size_t)(last - slash - 1)) : NULL;

    if (!pool || (slash < last && !space))
        return NULL;
    return json_pack("{s:s, s:s, s:s, s:s*, s:s, s:s*, s:s*, s:b, s:s, s:{s:b}}", "node-name", name,
                     "driver", "rbd", "pool", pool, "namespace", space, "image", last + 1, "conf",
                     runtime->ceph_conf, "user", runtime->ceph_user, "read-only",
                     (int)disk->readonly, "discard", "unmap", "cache", "direct", 1);
}

/* cache.direct: what one node has written the other one must not find stale in its page cache. */
static void add_disk(struct args *args, const struct gw_vm_disk *disk,
                     const struct gw_vm_runtime *runtime, size_t index)
{
    char node[32], lower[32];

    snprintf(node, sizeof node, "disk%zu-image", index);
    snprintf(lower, sizeof lower, "disk%zu-file", index);
    add_blockdev(args, disk->rbd ? rbd_node(disk, lower, runtime) : file_node(disk, lower));
    add_blockdev(args, json_pack("{s:s, s:s, s:s, s:b, s:s*, s:{s:b}}", "node-name", node, "driver",
                                 disk->format, "file", lower, "read-only", (int)disk->readonly,
                                 "discard", disk->rbd ? "unmap" : NULL, "cache", "direct", 1));
    addf(args, "-device", "virtio-blk-pci,id=disk%zu,drive=%s" LEAN_VIRTIO, index, node);
}

/* No boot ROM: its size differs from QEMU to QEMU, and nothing here boots from the network. */
static void add_nic(struct args *args, const struct gw_vm_nic *nic, const char *tap, size_t index)
{
    addf(args, "-netdev", "tap,id=net%zu,ifname=%s,script=no,downscript=no", index, tap);
    addf(args, "-device", "virtio-net-pci,id=nic%zu,netdev=net%zu,mac=%s,romfile=" LEAN_VIRTIO,
         index, index, nic->mac);
}

/*
 * After the other devices, so that they are where they were before there was a balloon. QEMU wants
 * a thread of its own for the hints (virtio_balloon_device_realize() in
 * hw/virtio/virtio-balloon.c).
 */
static void add_balloon(struct args *args)
{
    add2(args, "-object", "iothread,id=gwballoon-thread");
    add2(args, "-device",
         "virtio-balloon-pci,id=gwballoon,free-page-hint=on,iothread=gwballoon-thread" LEAN_VIRTIO);
}

static void add_from_spec(struct args *args, const struct gw_vm_spec *spec,
                          const struct gw_vm_runtime *runtime)
{
    add_machine(args, spec, runtime);
    add_boot(args, &spec->boot);
    add_console(args, console_of(spec, runtime));
    for (size_t i = 0; i < spec->n_disks; i++)
        add_disk(args, &spec->disks[i], runtime, i);
    for (size_t i = 0; i < spec->n_nics; i++)
        add_nic(args, &spec->nics[i], runtime->taps[i], i);
    if (spec->balloon == GW_BALLOON_HINTS)
        add_balloon(args);
}

static int add_from_template(struct args *args, const struct gw_vm_spec *spec,
                             const struct gw_vm_runtime *runtime, struct gw_error *e)
{
    const char *console = console_of(spec, runtime);
    gw_autofree char *escaped_dir = gw_optstr_escape(runtime->run_dir ? runtime->run_dir : "");
    gw_autofree char *escaped_console = gw_optstr_escape(console ? console : "/dev/null");
    struct gw_template_values values = {.machine = spec->machine,
                                        .accel = gw_accel_name(runtime->accel),
                                        .run_dir = runtime->run_dir ? escaped_dir : NULL,
                                        .console = escaped_console,
                                        .taps = runtime->taps,
                                        .n_taps = runtime->n_taps};
    char *text;

    if (!escaped_dir || !escaped_console) {
        args->failed = true;
        return 0;
    }
    for (size_t i = 0; i < spec->n_adopted_argv; i++) {
        if (gw_template_fill(spec->adopted_argv[i], &values, &text, e) < 0)
            return -1;
        add_taken(args, text);
    }
    /* It becomes prealloc=on of every backend, also of the one that QEMU makes for a plain -m
     * (object_register_sugar_prop() in system/vl.c). */
    if (runtime->prefault_threads)
        add(args, "-mem-prealloc");
    return 0;
}

static void add_control(struct args *args, const struct gw_vm_runtime *runtime)
{
    add2(args, "-display", "none");
    add_path(args, "-chardev", "socket,id=gwqmp,path=", runtime->qmp_path, ",server=on,wait=off");
    add2(args, "-mon", "chardev=gwqmp,mode=control");
    add(args, "-S");
    if (runtime->incoming)
        add2(args, "-incoming", "defer");
}

static int check_runtime(const struct gw_vm_spec *spec, const struct gw_vm_runtime *runtime,
                         struct gw_error *e)
{
    const char *name = spec->name;

    if (!spec->adopted_argv && !spec->uuid)
        return gw_error_set(e, GW_E_USAGE, "VM %s: not resolved: no uuid", name);
    if (runtime->accel == GW_ACCEL_AUTO)
        return gw_error_set(e, GW_E_USAGE, "VM %s: the accelerator is not decided", name);
    if (spec->accel != GW_ACCEL_AUTO && spec->accel != runtime->accel)
        return gw_error_set(e, GW_E_USAGE, "VM %s asks for %s, not for %s", name,
                            gw_accel_name(spec->accel), gw_accel_name(runtime->accel));
    if (runtime->n_taps != spec->n_nics)
        return gw_error_set(e, GW_E_USAGE, "VM %s: %zu taps for %zu NICs", name, runtime->n_taps,
                            spec->n_nics);
    if (strlen(runtime->qmp_path) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
        return gw_error_set(e, GW_E_USAGE, "VM %s: the path of the QMP socket is too long: %s",
                            name, runtime->qmp_path);
    for (size_t i = 0; !spec->adopted_argv && i < spec->n_nics; i++)
        if (!spec->nics[i].mac)
            return gw_error_set(e, GW_E_USAGE, "VM %s: not resolved: nics[%zu] has no MAC address",
                                name, i);
    return 0;
}

int gw_argv_build(const struct gw_vm_spec *spec, const struct gw_vm_runtime *runtime, char ***argvp,
                  struct gw_error *e)
{
    struct args args = {0};
    int rc = 0;

    if (check_runtime(spec, runtime, e) < 0)
        return -1;
    add(&args, runtime->qemu);
    if (spec->adopted_argv)
        rc = add_from_template(&args, spec, runtime, e);
    else
        add_from_spec(&args, spec, runtime);
    add_control(&args, runtime);
    for (size_t i = 0; i < spec->n_qemu_args; i++)
        add(&args, spec->qemu_args[i]);
    if (rc == 0 && args.failed)
        rc = gw_error_set_sys(e, ENOMEM, "VM %s: QEMU command line", spec->name);
    if (rc < 0)
        gw_argv_free(args.v);
    else
        *argvp = args.v;
    return rc;
}

void gw_argv_free(char **argv)
{
    for (char **arg = argv; arg && *arg; arg++)
        free(*arg);
    free(argv);
}

static void put_quoted(FILE *out, const char *arg)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%";

    if (*arg && arg[strspn(arg, plain)] == '\0') {
        fputs(arg, out);
        return;
    }
    fputc('\'', out);
    for (; *arg; arg++)
        if (*arg == '\'')
            fputs("'\\''", out);
        else
            fputc(*arg, out);
    fputc('\'', out);
}

char *gw_argv_render(char *const *argv)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    bool failed;

    if (!out)
        return NULL;
    for (char *const *arg = argv; *arg; arg++) {
        if (arg != argv)
            fputc(' ', out);
        put_quoted(out, *arg);
    }
    failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
