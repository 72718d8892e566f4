/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/adopt.h"
#include "host/vmspec_check.h"

#define ALNUM        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#define TEXT_MAX     4095u
#define APPEND_MAX   2047u  /* COMMAND_LINE_SIZE of x86, less its NUL */
#define TEMPLATE_MAX 16383u /* one element of adopted_argv */
#define PATH_SIZE    64

int gw_vm_check_fail(struct gw_vm_check *check, const char *path, const char *fmt, ...)
{
    char where[320], text[400];
    va_list ap;

    check->locate(check, path, where, sizeof where);
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?'; /* a value from outside must not begin a line of its own in a log */
    return gw_error_set(check->e, check->code, "%s%s%s%s", where, path, *path ? ": " : "", text);
}

static int out_of_memory(struct gw_vm_check *check)
{
    return gw_error_set_sys(check->e, ENOMEM, "VM spec");
}

static int set_default(struct gw_vm_check *check, char **stringp, const char *value)
{
    if (*stringp)
        return 0;
    *stringp = strdup(value);
    return *stringp ? 0 : out_of_memory(check);
}

static void lower(char *text)
{
    for (; text && *text; text++)
        *text = (char)tolower((unsigned char)*text);
}

/* Nothing that could end a line, a string or an option of its own accord. NULL is fine. */
static int check_text(struct gw_vm_check *check, const char *path, const char *text, size_t max)
{
    if (!text)
        return 0;
    if (strlen(text) > max)
        return gw_vm_check_fail(check, path, "longer than %zu bytes", max);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            return gw_vm_check_fail(check, path, "a control character (0x%02x) in it", *c);
    return 0;
}

static int check_path(struct gw_vm_check *check, const char *path, const char *file)
{
    if (check_text(check, path, file, TEXT_MAX) < 0)
        return -1;
    if (file && (file[0] != '/' || file[strlen(file) - 1] == '/'))
        return gw_vm_check_fail(check, path, "'%s' is not the absolute path of a file", file);
    return 0;
}

static bool made_of(const char *text, const char *set)
{
    return *text && text[strspn(text, set)] == '\0';
}

bool gw_vm_name_valid(const char *text)
{
    return text && isalnum((unsigned char)text[0]) && made_of(text, ALNUM "._-") &&
           strlen(text) <= 63;
}

static bool uuid_valid(const char *uuid)
{
    if (strlen(uuid) != 36 || strcmp(uuid, "00000000-0000-0000-0000-000000000000") == 0)
        return false;
    for (int i = 0; i < 36; i++)
        if (i == 8 || i == 13 || i == 18 || i == 23 ? uuid[i] != '-'
                                                    : !isxdigit((unsigned char)uuid[i]))
            return false;
    return true;
}

static bool mac_valid(const char *mac)
{
    if (strlen(mac) != 17 || strcmp(mac, "00:00:00:00:00:00") == 0)
        return false;
    for (int i = 0; i < 17; i++)
        if (i % 3 == 2 ? mac[i] != ':' : !isxdigit((unsigned char)mac[i]))
            return false;
    return true;
}

static bool mac_is_group(const char *mac)
{
    return strtoul((char[]){mac[0], mac[1], '\0'}, NULL, 16) & 1;
}

/* pool/image or pool/namespace/image */
static bool rbd_valid(const char *rbd)
{
    int n_slashes = 0;

    if (!made_of(rbd, ALNUM "._-/") || strlen(rbd) > 255 || rbd[0] == '/' ||
        rbd[strlen(rbd) - 1] == '/' || strstr(rbd, "//"))
        return false;
    for (const char *c = rbd; *c; c++)
        n_slashes += *c == '/';
    return n_slashes == 1 || n_slashes == 2;
}

static int check_machine_part(struct gw_vm_check *check, struct gw_vm_spec *spec)
{
    if (set_default(check, &spec->cpu, GW_VM_DEFAULT_CPU) < 0 ||
        set_default(check, &spec->machine, GW_VM_DEFAULT_MACHINE) < 0)
        return -1;
    if (spec->memory_bytes < GW_VM_MEMORY_MIN_BYTES ||
        spec->memory_bytes > GW_VM_MEMORY_MAX_BYTES || spec->memory_bytes % (1u << 20))
        return gw_vm_check_fail(check, "memory",
                                "%llu bytes: must be a multiple of 1 MiB, from 16 MiB to 16 TiB",
                                (unsigned long long)spec->memory_bytes);
    if (spec->cpus < 1 || spec->cpus > GW_VM_MAX_CPUS)
        return gw_vm_check_fail(check, "cpus", "%u: must be from 1 to %u", spec->cpus,
                                GW_VM_MAX_CPUS);
    if (!isalnum((unsigned char)spec->cpu[0]) || !made_of(spec->cpu, ALNUM "._-+,=:") ||
        strlen(spec->cpu) > 1023)
        return gw_vm_check_fail(check, "cpu", "'%s' is not a CPU model", spec->cpu);
    if (!isalnum((unsigned char)spec->machine[0]) || !made_of(spec->machine, ALNUM "._-") ||
        strlen(spec->machine) > 63)
        return gw_vm_check_fail(check, "machine",
                                "'%s' is not a machine type (its properties go into qemu_args)",
                                spec->machine);
    return 0;
}

static int check_identity(struct gw_vm_check *check, struct gw_vm_spec *spec)
{
    lower(spec->uuid);
    if (!spec->name)
        return gw_vm_check_fail(check, "", "missing key 'name'");
    if (!gw_vm_name_valid(spec->name))
        return gw_vm_check_fail(
            check, "name",
            "'%.80s' is not a VM name: up to 63 letters, digits, '.', '_', '-', "
            "the first one a letter or digit",
            spec->name);
    if (spec->uuid && !uuid_valid(spec->uuid))
        return gw_vm_check_fail(check, "uuid", "'%.80s' is not a uuid", spec->uuid);
    return 0;
}

static int check_boot(struct gw_vm_check *check, const struct gw_vm_boot *boot)
{
    if (check_path(check, "boot.kernel", boot->kernel) < 0 ||
        check_path(check, "boot.initrd", boot->initrd) < 0 ||
        check_text(check, "boot.append", boot->append, APPEND_MAX) < 0)
        return -1;
    if (!boot->kernel && (boot->initrd || boot->append))
        return gw_vm_check_fail(check, "boot", "initrd and append need a kernel");
    return 0;
}

static int check_format(struct gw_vm_check *check, const char *path, struct gw_vm_disk *disk,
                        bool adopted)
{
    if (set_default(check, &disk->format, "raw") < 0)
        return -1;
    if (adopted && made_of(disk->format, ALNUM "-_") && strlen(disk->format) < 32)
        return 0;
    if (strcmp(disk->format, "raw") != 0 && strcmp(disk->format, "qcow2") != 0)
        return gw_vm_check_fail(check, path, "'%.80s': the formats are raw and qcow2",
                                disk->format);
    return 0;
}

static int check_disk(struct gw_vm_check *check, struct gw_vm_spec *spec, size_t index)
{
    struct gw_vm_disk *disk = &spec->disks[index];
    const char *file = disk->file;
    char path[PATH_SIZE];

    snprintf(path, sizeof path, "disks[%zu]", index);
    if (!disk->rbd == !file)
        return gw_vm_check_fail(check, path, "a disk needs either rbd or file%s",
                                file ? ", not both" : "");
    snprintf(path, sizeof path, "disks[%zu].rbd", index);
    if (disk->rbd && !rbd_valid(disk->rbd))
        return gw_vm_check_fail(check, path, "'%.80s' is not POOL/IMAGE or POOL/NAMESPACE/IMAGE",
                                disk->rbd);
    snprintf(path, sizeof path, "disks[%zu].file", index);
    if (check_path(check, path, file) < 0)
        return -1;
    for (size_t i = 0; i < index; i++)
        if ((file && spec->disks[i].file && strcmp(file, spec->disks[i].file) == 0) ||
            (disk->rbd && spec->disks[i].rbd && strcmp(disk->rbd, spec->disks[i].rbd) == 0))
            return gw_vm_check_fail(check, path, "the same as disks[%zu]", i);
    snprintf(path, sizeof path, "disks[%zu].format", index);
    return check_format(check, path, disk, spec->adopted_argv != NULL);
}

static bool bridge_valid(const char *name)
{
    return made_of(name, ALNUM "._-@+") && strlen(name) < IFNAMSIZ && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static int check_nic(struct gw_vm_check *check, struct gw_vm_spec *spec, size_t index)
{
    struct gw_vm_nic *nic = &spec->nics[index];
    char path[PATH_SIZE];

    lower(nic->mac);
    snprintf(path, sizeof path, "nics[%zu]", index);
    if (!nic->bridge)
        return gw_vm_check_fail(check, path, "a NIC needs a bridge");
    snprintf(path, sizeof path, "nics[%zu].bridge", index);
    if (nic->bridge && !bridge_valid(nic->bridge))
        return gw_vm_check_fail(check, path, "'%.80s' is not the name of a network interface",
                                nic->bridge);
    snprintf(path, sizeof path, "nics[%zu].mac", index);
    if (nic->mac && !mac_valid(nic->mac))
        return gw_vm_check_fail(check, path,
                                "'%.80s' is not a MAC address (quote it: YAML 1.1 "
                                "takes 12:34 for a number)",
                                nic->mac);
    if (nic->mac && mac_is_group(nic->mac))
        return gw_vm_check_fail(check, path, "'%s' is a group address: a NIC needs a unicast one",
                                nic->mac);
    for (size_t i = 0; nic->mac && i < index; i++)
        if (spec->nics[i].mac && strcmp(nic->mac, spec->nics[i].mac) == 0)
            return gw_vm_check_fail(check, path, "'%s' is the address of nics[%zu] too", nic->mac,
                                    i);
    return 0;
}

static int check_strings(struct gw_vm_check *check, const char *name, char *const *strings,
                         size_t n, size_t max)
{
    char path[PATH_SIZE];

    if (n > GW_VM_MAX_ARGS)
        return gw_vm_check_fail(check, name, "more than %u", GW_VM_MAX_ARGS);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s[%zu]", name, i);
        if (check_text(check, path, strings[i], max) < 0)
            return -1;
    }
    return 0;
}

static int check_template(struct gw_vm_check *check, const struct gw_vm_spec *spec)
{
    struct gw_error why;

    if (!spec->adopted_argv)
        return 0;
    if (check_strings(check, "adopted_argv", spec->adopted_argv, spec->n_adopted_argv,
                      TEMPLATE_MAX) < 0)
        return -1;
    if (gw_adopt_check_template(spec->adopted_argv, spec->n_adopted_argv, spec->n_nics, &why) == 0)
        return 0;
    return gw_vm_check_fail(check, "adopted_argv", "%s", why.msg);
}

int gw_vm_check_spec(struct gw_vm_check *check, struct gw_vm_spec *spec)
{
    if (check_identity(check, spec) < 0 || check_machine_part(check, spec) < 0 ||
        check_boot(check, &spec->boot) < 0 ||
        check_path(check, "console.log", spec->console.log) < 0)
        return -1;
    if (spec->n_disks > GW_VM_MAX_DISKS)
        return gw_vm_check_fail(check, "disks", "more than %u", GW_VM_MAX_DISKS);
    if (spec->n_nics > GW_VM_MAX_NICS)
        return gw_vm_check_fail(check, "nics", "more than %u", GW_VM_MAX_NICS);
    for (size_t i = 0; i < spec->n_disks; i++)
        if (check_disk(check, spec, i) < 0)
            return -1;
    for (size_t i = 0; i < spec->n_nics; i++)
        if (check_nic(check, spec, i) < 0)
            return -1;
    if (check_strings(check, "qemu_args", spec->qemu_args, spec->n_qemu_args, TEXT_MAX) < 0)
        return -1;
    return check_template(check, spec);
}
