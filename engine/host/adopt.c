/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over the command line and the table of QEMU's options; see adopt.h for what is done to
 * them and why. An option that needs more than to be kept, dropped or refused has its rule in
 * adopt_machine.c, adopt_block.c, adopt_net.c or adopt_chardev.c.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

#include "host/adopt.h"
#include "host/adopt_parse.h"
#include "host/template.h"
#include "host/vmspec_check.h"

enum action { KEEP, DROP, REFUSE, RULE };

struct option_rule {
    const char *name;
    bool takes_arg;
    enum action action;
    const char *why;     /* DROP: remarked unless NULL; REFUSE: the reason */
    gw_adopt_rule *rule; /* RULE */
};

#define OWN     NULL
#define DISPLAY "Godwit's QEMU has no display"
#define DEBUG   "a debugging aid of this process"
#define XEN     "Xen guests are not supported"

static const struct option_rule rules[] = {
    {"M", true, RULE, .rule = gw_adopt_machine},
    {"machine", true, RULE, .rule = gw_adopt_machine},
    {"accel", true, RULE, .rule = gw_adopt_accel},
    {"enable-kvm", false, RULE, .rule = gw_adopt_enable_kvm},
    {"cpu", true, RULE, .rule = gw_adopt_cpu},
    {"smp", true, RULE, .rule = gw_adopt_smp},
    {"m", true, RULE, .rule = gw_adopt_memory},
    {"name", true, RULE, .rule = gw_adopt_name},
    {"uuid", true, RULE, .rule = gw_adopt_uuid},
    {"object", true, RULE, .rule = gw_adopt_object},
    {"device", true, RULE, .rule = gw_adopt_device},
    {"drive", true, RULE, .rule = gw_adopt_drive},
    {"blockdev", true, RULE, .rule = gw_adopt_blockdev},
    {"hda", true, RULE, .rule = gw_adopt_disk_path},
    {"hdb", true, RULE, .rule = gw_adopt_disk_path},
    {"hdc", true, RULE, .rule = gw_adopt_disk_path},
    {"hdd", true, RULE, .rule = gw_adopt_disk_path},
    {"fda", true, RULE, .rule = gw_adopt_disk_path},
    {"fdb", true, RULE, .rule = gw_adopt_disk_path},
    {"cdrom", true, RULE, .rule = gw_adopt_disk_path},
    {"sd", true, RULE, .rule = gw_adopt_disk_path},
    {"pflash", true, RULE, .rule = gw_adopt_disk_path},
    {"mtdblock", true, RULE, .rule = gw_adopt_disk_path},
    {"netdev", true, RULE, .rule = gw_adopt_net},
    {"nic", true, RULE, .rule = gw_adopt_net},
    {"net", true, RULE, .rule = gw_adopt_net},
    {"chardev", true, RULE, .rule = gw_adopt_chardev},
    {"serial", true, RULE, .rule = gw_adopt_serial},
    {"parallel", true, RULE, .rule = gw_adopt_serial},
    {"debugcon", true, RULE, .rule = gw_adopt_serial},
    {"kernel", true, RULE, .rule = gw_adopt_kernel},
    {"initrd", true, RULE, .rule = gw_adopt_initrd},
    {"append", true, RULE, .rule = gw_adopt_kernel_append},
    {"L", true, RULE, .rule = gw_adopt_directory},
    {"dtb", true, RULE, .rule = gw_adopt_dtb},
    {"bios", true, RULE, .rule = gw_adopt_firmware},
    {"option-rom", true, RULE, .rule = gw_adopt_firmware},
    {"fw_cfg", true, RULE, .rule = gw_adopt_fw_file},
    {"smbios", true, RULE, .rule = gw_adopt_fw_file},
    {"acpitable", true, RULE, .rule = gw_adopt_fw_file},
    {"audio", true, RULE, .rule = gw_adopt_audio},
    {"audiodev", true, RULE, .rule = gw_adopt_audiodev},
    {"icount", true, RULE, .rule = gw_adopt_icount},
    {"usbdevice", true, RULE, .rule = gw_adopt_usbdevice},
    {"run-with", true, RULE, .rule = gw_adopt_run_with},

    {"action", true, KEEP},
    {"boot", true, KEEP},
    {"compat", true, KEEP},
    {"global", true, KEEP},
    {"k", true, KEEP},
    {"mem-prealloc", false, KEEP},
    {"msg", true, KEEP},
    {"no-acpi", false, KEEP},
    {"no-fd-bootchk", false, KEEP},
    {"no-hpet", false, KEEP},
    {"no-reboot", false, KEEP},
    {"no-shutdown", false, KEEP},
    {"no-user-config", false, KEEP},
    {"nodefaults", false, KEEP}, /* noted by the first pass */
    {"nographic", false, KEEP},  /* noted by the first pass */
    {"numa", true, KEEP},
    {"only-migratable", false, KEEP},
    {"overcommit", true, KEEP},
    {"rtc", true, KEEP},
    {"sandbox", true, KEEP},
    {"seed", true, KEEP},
    {"set", true, KEEP},
    {"usb", false, KEEP},
    {"vga", true, KEEP},
    {"watchdog-action", true, KEEP},
    {"win2k-hack", false, KEEP},

    {"S", false, DROP, OWN},
    {"incoming", true, DROP, OWN},
    {"qmp", true, DROP, OWN},
    {"qmp-pretty", true, DROP, OWN},
    {"mon", true, DROP, OWN},
    {"monitor", true, DROP, OWN},
    {"pidfile", true, DROP, OWN},
    {"daemonize", false, DROP, OWN},
    {"display", true, DROP, OWN}, /* remarked by the first pass unless it is none */
    {"vnc", true, DROP, DISPLAY},
    {"spice", true, DROP, DISPLAY},
    {"full-screen", false, DROP, DISPLAY},
    {"echr", true, DROP, OWN},
    {"D", true, DROP, OWN},
    {"d", true, DROP, OWN},
    {"dfilter", true, DROP, OWN},
    {"trace", true, DROP, OWN},
    {"enable-sync-profile", false, DROP, OWN},
    {"perfmap", false, DROP, OWN},
    {"jitdump", false, DROP, OWN},
    {"gdb", true, DROP, DEBUG},
    {"s", false, DROP, DEBUG},
    {"runas", true, DROP, "Godwit decides which user runs QEMU"},

    {"add-fd", true, REFUSE,
     "a file descriptor handed to this process has no name on another node"},
    {"chroot", true, REFUSE, "paths inside a chroot cannot be told"},
    {"dump-vmstate", true, REFUSE, "not a running VM"},
    {"fsdev", true, REFUSE, "a directory of this host is shared with the guest"},
    {"virtfs", true, REFUSE, "a directory of this host is shared with the guest"},
    {"iscsi", true, REFUSE, "the iSCSI initiator's identity belongs to this host"},
    {"loadvm", true, REFUSE, "the VM was started from a snapshot inside a disk image"},
    {"mem-path", true, REFUSE, "guest memory lies in a file of this host"},
    {"plugin", true, REFUSE, "a TCG plugin is part of this process"},
    {"preconfig", false, REFUSE, "the machine was completed over QMP, not by its command line"},
    {"readconfig", true, REFUSE, "options in a configuration file are not in the command line"},
    {"shim", true, REFUSE, "a boot shim is not supported"},
    {"snapshot", false, REFUSE, "writes go to temporary files of this host"},
    {"tpmdev", true, REFUSE, "a TPM's state lives outside of QEMU"},
    {"xen-attach", false, REFUSE, XEN},
    {"xen-domid", true, REFUSE, XEN},
    {"xen-domid-restrict", false, REFUSE, XEN},
};

static void out_of_memory(struct gw_adopt_parser *p)
{
    p->failed = true;
}

void gw_adopt_push(struct gw_adopt_parser *p, const char *text)
{
    struct gw_vm_spec *spec = p->adopt->spec;
    char *copy = strdup(text);

    if (!copy) {
        out_of_memory(p);
        return;
    }
    if (spec->n_adopted_argv == GW_VM_MAX_ARGS) {
        free(copy);
        if (p->adopt->n_refused == 0)
            gw_adopt_refuse(p, "command line", "more than %u arguments", GW_VM_MAX_ARGS);
        return;
    }
    spec->adopted_argv[spec->n_adopted_argv++] = copy;
}

void gw_adopt_push2(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_adopt_push(p, option);
    gw_adopt_push(p, arg);
}

static void __attribute__((format(printf, 4, 0)))
note(struct gw_adopt_parser *p, bool refused, const char *what, const char *fmt, va_list ap)
{
    struct gw_adopt *adopt = p->adopt;
    struct gw_adopt_note *more = realloc(adopt->notes, (adopt->n_notes + 1) * sizeof *adopt->notes);
    struct gw_adopt_note entry = {.refused = refused, .option = strdup(what)};

    if (more)
        adopt->notes = more;
    if (vasprintf(&entry.why, fmt, ap) < 0)
        entry.why = NULL;
    if (!more || !entry.option || !entry.why) {
        free(entry.option);
        free(entry.why);
        out_of_memory(p);
        return;
    }
    adopt->notes[adopt->n_notes++] = entry;
    adopt->n_refused += refused;
}

void gw_adopt_refuse(struct gw_adopt_parser *p, const char *what, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    note(p, true, what, fmt, ap);
    va_end(ap);
}

void gw_adopt_remark(struct gw_adopt_parser *p, const char *what, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    note(p, false, what, fmt, ap);
    va_end(ap);
}

void gw_adopt_set(struct gw_adopt_parser *p, const char *what, char **stringp, const char *text)
{
    char *plain = gw_template_unescape(text);

    if (plain) {
        free(*stringp);
        *stringp = plain;
    } else if (errno == EINVAL) {
        if (!p->is_template)
            gw_adopt_refuse(p, what, "malformed");
    } else {
        out_of_memory(p);
    }
}

static const struct option_rule *find_rule(const char *name)
{
    for (unsigned i = 0; i < GW_ARRAY_SIZE(rules); i++)
        if (strcmp(rules[i].name, name) == 0)
            return &rules[i];
    return NULL;
}

/* QEMU takes one dash or two; NULL: text is not an option, but the image of the first disk. */
static const char *option_name(const char *text)
{
    if (text[0] != '-')
        return NULL;
    return text[1] == '-' ? text + 2 : text + 1;
}

/* What has to be known before the options that depend on it, whatever their order. */
static void first_look(struct gw_adopt_parser *p, const char *name, const char *arg)
{
    if (strcmp(name, "daemonize") == 0 || strcmp(name, "chroot") == 0)
        p->cwd_is_lost = true;
    if (strcmp(name, "nographic") == 0)
        p->nographic = true;
    if (strcmp(name, "nodefaults") == 0)
        p->nodefaults = true;
    if (strcmp(name, "serial") == 0)
        p->has_serial = true;
    if (strcmp(name, "display") == 0 && strncmp(arg, "none", 4) != 0)
        gw_adopt_remark(p, "-display", DISPLAY);
    if (strcmp(name, "mon") == 0 && p->n_monitors < GW_ADOPT_MAX_MONITORS) {
        gw_auto(optstr) struct gw_optstr *opts = gw_optstr_parse(arg, "chardev");
        const char *id = opts ? gw_optstr_get(opts, "chardev") : NULL;

        if (id && (p->monitors[p->n_monitors] = strdup(id)))
            p->n_monitors++;
    }
}

static void apply(struct gw_adopt_parser *p, const struct option_rule *rule, const char *arg)
{
    gw_autofree char *option = NULL;

    if (asprintf(&option, "-%s", rule->name) < 0) {
        option = NULL;
        out_of_memory(p);
        return;
    }
    switch (rule->action) {
    case KEEP:
        gw_adopt_push(p, option);
        if (arg)
            gw_adopt_push(p, arg);
        break;
    case DROP:
        if (rule->why)
            gw_adopt_remark(p, option, "%s", rule->why);
        break;
    case REFUSE: gw_adopt_refuse(p, option, "%s", rule->why); break;
    case RULE: rule->rule(p, option, arg); break;
    }
}

/* One option at argv[i]; returns the index of the next one. first: only look. */
static size_t step(struct gw_adopt_parser *p, char *const *argv, size_t n, size_t i, bool first)
{
    const char *name = option_name(argv[i]);
    const struct option_rule *rule = name ? find_rule(name) : NULL;
    const char *arg = NULL;

    if (rule && rule->takes_arg) {
        if (i + 1 == n) {
            if (!first)
                gw_adopt_refuse(p, argv[i], "its argument is missing");
            return n;
        }
        arg = argv[i + 1];
    }
    if (rule && first)
        first_look(p, rule->name, arg ? arg : "");
    else if (rule)
        apply(p, rule, arg);
    else if (!first && name)
        gw_adopt_refuse(p, argv[i], "unknown to Godwit");
    else if (!first)
        gw_adopt_disk_path(p, "", argv[i]);
    return i + (arg ? 2 : 1);
}

static bool program_means_kvm(const char *program)
{
    const char *base = strrchr(program, '/');

    base = base ? base + 1 : program;
    return strcmp(base, "kvm") == 0 || strcmp(base, "qemu-kvm") == 0;
}

/* QEMU's own defaults, written down, and what stands at the end of every template. */
static void add_the_unsaid(struct gw_adopt_parser *p)
{
    struct gw_vm_spec *spec = p->adopt->spec;

    if (p->nographic && !p->nodefaults && !p->has_serial) {
        gw_adopt_push2(p, "-chardev", "file,id=gwserial,path=@CONSOLE@,append=on");
        gw_adopt_push2(p, "-serial", "chardev:gwserial");
    }
    if (!p->has_machine) {
        gw_adopt_set(p, "-machine", &spec->machine, "pc");
        gw_adopt_push2(p, "-machine", "@MACHINE@");
    }
    if (!spec->cpu)
        gw_adopt_set(p, "-cpu", &spec->cpu, "qemu64");
    if (spec->memory_bytes == 0)
        spec->memory_bytes = 128u << 20;
    if (spec->cpus == 0)
        spec->cpus = 1;
    if (p->n_accels == 0)
        spec->accel = program_means_kvm(p->program) ? GW_ACCEL_AUTO : GW_ACCEL_TCG;
    if (p->n_accels > 1) /* a list to try: only QEMU knows which one it was */
        spec->accel = GW_ACCEL_AUTO;
    if (p->n_accels > 1 && p->accel && strchr(p->accel, ','))
        gw_adopt_refuse(p, "-accel", "a list of accelerators with properties");
    gw_adopt_push2(p, "-accel", p->accel ? p->accel : "@ACCEL@");
}

static int run(struct gw_adopt_parser *p, char *const *argv, size_t n, struct gw_error *e)
{
    struct gw_vm_spec *spec = calloc(1, sizeof *spec);

    p->adopt->spec = spec;
    if (spec)
        spec->adopted_argv = calloc(GW_VM_MAX_ARGS + 1, sizeof *spec->adopted_argv);
    if (!spec || !spec->adopted_argv)
        return gw_error_set_sys(e, ENOMEM, "adopt");
    for (size_t i = 0; i < n;)
        i = step(p, argv, n, i, true);
    for (size_t i = 0; i < n;)
        i = step(p, argv, n, i, false);
    add_the_unsaid(p);
    gw_adopt_find_macs(p);
    for (size_t i = 0; i < p->n_monitors; i++)
        free(p->monitors[i]);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(p->netdev_ids); i++)
        free(p->netdev_ids[i]);
    free(p->accel);
    return p->failed ? gw_error_set_sys(e, ENOMEM, "adopt") : 0;
}

static void locate(struct gw_vm_check *check, const char *path, char *buf, size_t size)
{
    (void)check;
    (void)path;
    snprintf(buf, size, "adopt: ");
}

static int complete(struct gw_adopt *adopt, const char *name, struct gw_error *e)
{
    struct gw_vm_check check = {.locate = locate, .code = GW_E_INCOMPATIBLE, .e = e};
    struct gw_vm_spec *spec = adopt->spec;

    if (name) {
        free(spec->name);
        spec->name = strdup(name);
        if (!spec->name)
            return gw_error_set_sys(e, ENOMEM, "adopt");
    }
    if (!gw_vm_name_valid(spec->name)) {
        gw_error_set(e, GW_E_USAGE, "adopt: '%.80s' cannot be the name of a VM",
                     spec->name ? spec->name : "");
        return gw_error_hint(e, "give it a name of letters, digits, '.', '_' and '-'");
    }
    /* with refusals the template has holes: the caller hears about those */
    return adopt->n_refused ? 0 : gw_vm_check_spec(&check, spec);
}

/* The escaped copies of n arguments; the caller's, NULL when memory is short. */
static char **escape_all(char *const *argv, size_t n)
{
    char **copy = calloc(n + 1, sizeof *copy);

    for (size_t i = 0; copy && i < n; i++) {
        copy[i] = gw_template_escape(argv[i]);
        if (copy[i])
            continue;
        while (i-- > 0)
            free(copy[i]);
        free(copy);
        return NULL;
    }
    return copy;
}

/* Whether it can be sent as JSON and printed. */
static bool is_text(const char *arg)
{
    json_t *string = json_string(arg); /* checks the UTF-8 */

    json_decref(string);
    for (; string && *arg; arg++)
        if ((unsigned char)*arg < 0x20 || *arg == 0x7f)
            return false;
    return string != NULL;
}

int gw_adopt_parse(char *const *argv, size_t n, const char *name, struct gw_adopt_host *host,
                   struct gw_adopt **adoptp, struct gw_error *e)
{
    gw_auto(adopt) struct gw_adopt *adopt = calloc(1, sizeof *adopt);
    struct gw_adopt_parser p = {.adopt = adopt, .host = host};
    char **args;
    int rc;

    if (n == 0)
        return gw_error_set(e, GW_E_USAGE, "adopt: an empty command line");
    for (size_t i = 0; i < n; i++)
        if (!is_text(argv[i]))
            return gw_error_set(e, GW_E_INCOMPATIBLE,
                                "adopt: argument %zu is not UTF-8 text, or has control characters",
                                i);
    args = adopt ? escape_all(argv + 1, n - 1) : NULL;
    if (!args)
        return gw_error_set_sys(e, ENOMEM, "adopt");
    p.program = argv[0];
    rc = run(&p, args, n - 1, e);
    for (size_t i = 0; i < n - 1; i++)
        free(args[i]);
    free(args);
    if (rc < 0 || complete(adopt, name, e) < 0)
        return -1;
    *adoptp = gw_steal_ptr(&adopt);
    return 0;
}

int gw_adopt_verdict(const struct gw_adopt *adopt, struct gw_error *e)
{
    char text[400] = "";
    size_t n_said = 0;

    if (adopt->n_refused == 0)
        return 0;
    for (size_t i = 0; i < adopt->n_notes; i++) {
        const struct gw_adopt_note *one = &adopt->notes[i];
        size_t used = strlen(text);

        if (!one->refused || strlen(one->option) + strlen(one->why) + 8 > sizeof text - used)
            continue;
        snprintf(text + used, sizeof text - used, "%s%s (%s)", n_said ? "; " : "", one->option,
                 one->why);
        n_said++;
    }
    gw_error_set(e, GW_E_INCOMPATIBLE, "%s%s%zu of its options cannot be carried over: %s%s",
                 adopt->spec->name ? adopt->spec->name : "", adopt->spec->name ? ": " : "",
                 adopt->n_refused, text, n_said < adopt->n_refused ? "; and more" : "");
    return gw_error_hint(e, "start the VM without them, or through godwit vm start");
}

void gw_adopt_free(struct gw_adopt *adopt)
{
    if (!adopt)
        return;
    gw_vm_spec_free(adopt->spec);
    for (size_t i = 0; i < adopt->n_notes; i++) {
        free(adopt->notes[i].option);
        free(adopt->notes[i].why);
    }
    free(adopt->notes);
    free(adopt->exe);
    free(adopt);
}

static bool same(char *const *a, size_t n_a, char *const *b, size_t n_b, size_t *wherep)
{
    for (size_t i = 0; i < n_a && i < n_b; i++)
        if (strcmp(a[i], b[i]) != 0) {
            *wherep = i;
            return false;
        }
    *wherep = n_a < n_b ? n_a : n_b;
    return n_a == n_b;
}

int gw_adopt_check_template(char *const *argv, size_t n, size_t n_taps, struct gw_error *e)
{
    static const char *const some_taps[GW_VM_MAX_NICS] = {"t", "t", "t", "t", "t", "t", "t", "t"};
    const struct gw_template_values values = {.machine = "m",
                                              .accel = "a",
                                              .run_dir = "/r",
                                              .console = "/c",
                                              .taps = some_taps,
                                              .n_taps = n_taps};
    gw_auto(adopt) struct gw_adopt *adopt = calloc(1, sizeof *adopt);
    struct gw_adopt_parser p = {.adopt = adopt, .is_template = true, .program = "qemu"};
    size_t where;

    if (!adopt)
        return gw_error_set_sys(e, ENOMEM, "adopt");
    if (n_taps > GW_VM_MAX_NICS)
        return gw_error_set(e, GW_E_PROTOCOL, "more than %u NICs", GW_VM_MAX_NICS);
    for (size_t i = 0; i < n; i++) {
        gw_autofree char *filled = NULL;

        if (gw_template_fill(argv[i], &values, &filled, e) < 0)
            return -1;
    }
    if (run(&p, argv, n, e) < 0 || gw_adopt_verdict(adopt, e) < 0)
        return -1;
    if (!same(argv, n, adopt->spec->adopted_argv, adopt->spec->n_adopted_argv, &where))
        return gw_error_set(e, GW_E_PROTOCOL, "argument %zu ('%.80s') was not rewritten", where,
                            where < n ? argv[where] : "");
    if (adopt->spec->n_nics != n_taps)
        return gw_error_set(e, GW_E_PROTOCOL, "%zu taps for %zu NICs", adopt->spec->n_nics, n_taps);
    return 0;
}

/* The devices with an id that a command line makes. */
static bool makes_device(char *const *argv, size_t n, const char *id)
{
    for (size_t i = 0; i + 1 < n; i++) {
        const char *name = option_name(argv[i]);
        gw_auto(optstr) struct gw_optstr *opts = NULL;
        const char *other;

        if (!name || strcmp(name, "device") != 0)
            continue;
        opts = gw_optstr_parse(argv[i + 1], "driver");
        other = opts ? gw_optstr_get(opts, "id") : NULL;
        if (other && strcmp(other, id) == 0)
            return true;
    }
    return false;
}

static bool spec_makes_device(const struct gw_vm_spec *spec, const char *id)
{
    char own[32];

    if (spec->adopted_argv)
        return makes_device(spec->adopted_argv, spec->n_adopted_argv, id);
    for (size_t i = 0; i < spec->n_disks; i++)
        if (snprintf(own, sizeof own, "disk%zu", i) > 0 && strcmp(own, id) == 0)
            return true;
    for (size_t i = 0; i < spec->n_nics; i++)
        if (snprintf(own, sizeof own, "nic%zu", i) > 0 && strcmp(own, id) == 0)
            return true;
    return makes_device(spec->qemu_args, spec->n_qemu_args, id);
}

static void name_device(char *text, size_t size, const char *id)
{
    size_t used = strlen(text);

    if (used + strlen(id) + 8 < size)
        snprintf(text + used, size - used, "%s%s", used ? ", " : "", id);
    else if (used + 6 < size && strcmp(text + used - 1, "…") != 0)
        snprintf(text + used, size - used, ", …");
}

static bool is_among(const char *const *names, size_t n, const char *id)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], id) == 0)
            return true;
    return false;
}

/* The ids in the template that are not among names. */
static void find_unplugged(const struct gw_vm_spec *spec, const char *const *names, size_t n,
                           char *text, size_t size)
{
    for (size_t i = 0; i + 1 < spec->n_adopted_argv; i++) {
        gw_auto(optstr) struct gw_optstr *opts = NULL;
        const char *id;

        if (strcmp(spec->adopted_argv[i], "-device") != 0)
            continue;
        opts = gw_optstr_parse(spec->adopted_argv[i + 1], "driver");
        id = opts ? gw_optstr_get(opts, "id") : NULL;
        if (id && !is_among(names, n, id))
            name_device(text, size, id);
    }
}

int gw_adopt_check_devices(const struct gw_vm_spec *spec, const char *const *names, size_t n,
                           struct gw_error *e)
{
    char plugged[200] = "", unplugged[200] = "";

    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], "type") != 0 && !spec_makes_device(spec, names[i]))
            name_device(plugged, sizeof plugged, names[i]);
    find_unplugged(spec, names, n, unplugged, sizeof unplugged);
    if (!*plugged && !*unplugged)
        return 0;
    gw_error_set(e, GW_E_INCOMPATIBLE,
                 "VM %s: its devices are not those of its command line:%s%s%s%s%s", spec->name,
                 *plugged ? " plugged in since: " : "", plugged, *plugged && *unplugged ? ";" : "",
                 *unplugged ? " unplugged since: " : "", unplugged);
    return gw_error_hint(e, "undo the change with device_del or device_add, then try again");
}
