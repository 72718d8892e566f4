/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/random.h>

#include "host/vmspec.h"
#include "host/vmspec_check.h"

static const char *const accel_names[] = {
    [GW_ACCEL_AUTO] = "auto",
    [GW_ACCEL_KVM] = "kvm",
    [GW_ACCEL_TCG] = "tcg",
};

const char *gw_accel_name(enum gw_accel accel)
{
    return (unsigned)accel < GW_ARRAY_SIZE(accel_names) ? accel_names[accel] : "unknown";
}

int gw_accel_from_name(const char *name)
{
    for (unsigned i = 0; name && i < GW_ARRAY_SIZE(accel_names); i++)
        if (strcmp(accel_names[i], name) == 0)
            return (int)i;
    return -1;
}

static const char *const balloon_names[] = {
    [GW_BALLOON_NONE] = "none",
    [GW_BALLOON_HINTS] = "free-page-hints",
};

const char *gw_balloon_name(enum gw_balloon balloon)
{
    return (unsigned)balloon < GW_ARRAY_SIZE(balloon_names) ? balloon_names[balloon] : "unknown";
}

int gw_balloon_from_name(const char *name)
{
    for (unsigned i = 0; name && i < GW_ARRAY_SIZE(balloon_names); i++)
        if (strcmp(balloon_names[i], name) == 0)
            return (int)i;
    return -1;
}

int gw_vm_parse_size(const char *text, uint64_t *bytesp)
{
    static const struct {
        const char *suffix;
        unsigned shift;
    } units[] = {{"", 0},     {"K", 10},   {"M", 20},   {"G", 30},  {"T", 40},
                 {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
    unsigned long long n;
    char *end;

    if (!text || text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    n = strtoull(text, &end, 10);
    if (errno)
        return -1;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(units); i++) {
        if (strcmp(end, units[i].suffix) != 0)
            continue;
        if (n > UINT64_MAX >> units[i].shift)
            return -1;
        *bytesp = (uint64_t)n << units[i].shift;
        return 0;
    }
    return -1;
}

static void free_strings(char **strings, size_t n)
{
    for (size_t i = 0; strings && i < n; i++)
        free(strings[i]);
    free(strings);
}

void gw_vm_spec_free(struct gw_vm_spec *spec)
{
    if (!spec)
        return;
    free(spec->name);
    free(spec->uuid);
    free(spec->cpu);
    free(spec->machine);
    free(spec->boot.kernel);
    free(spec->boot.initrd);
    free(spec->boot.append);
    for (size_t i = 0; spec->disks && i < spec->n_disks; i++) {
        free(spec->disks[i].rbd);
        free(spec->disks[i].file);
        free(spec->disks[i].format);
    }
    free(spec->disks);
    for (size_t i = 0; spec->nics && i < spec->n_nics; i++) {
        free(spec->nics[i].bridge);
        free(spec->nics[i].mac);
    }
    free(spec->nics);
    free(spec->console.log);
    free_strings(spec->qemu_args, spec->n_qemu_args);
    free_strings(spec->adopted_argv, spec->n_adopted_argv);
    free(spec);
}

static int make_uuid(char **uuidp, struct gw_error *e)
{
    unsigned char u[16];

    if (getrandom(u, sizeof u, 0) != sizeof u)
        return gw_error_set_sys(e, errno, "getrandom");
    u[6] = (u[6] & 0x0f) | 0x40; /* version 4: random */
    u[8] = (u[8] & 0x3f) | 0x80;
    if (asprintf(uuidp, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                 u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12],
                 u[13], u[14], u[15]) < 0) {
        *uuidp = NULL;
        return gw_error_set_sys(e, ENOMEM, "uuid");
    }
    return 0;
}

/* FNV-1a; it only has to spread. */
static uint32_t hash_text(const char *text)
{
    uint32_t h = 2166136261u;

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

static bool mac_is_taken(const struct gw_vm_spec *spec, const char *mac)
{
    for (size_t i = 0; i < spec->n_nics; i++)
        if (spec->nics[i].mac && strcmp(spec->nics[i].mac, mac) == 0)
            return true;
    return false;
}

/* 52:54:00 is the prefix that QEMU and libvirt use for the addresses they make up. */
static int make_mac(struct gw_vm_spec *spec, size_t index, struct gw_error *e)
{
    uint32_t tail = hash_text(spec->uuid) + (uint32_t)index;
    char mac[sizeof "52:54:00:00:00:00"];

    do {
        snprintf(mac, sizeof mac, "52:54:00:%02x:%02x:%02x", tail >> 16 & 0xff, tail >> 8 & 0xff,
                 tail & 0xff);
        tail++;
    } while (mac_is_taken(spec, mac));
    spec->nics[index].mac = strdup(mac);
    return spec->nics[index].mac ? 0 : gw_error_set_sys(e, ENOMEM, "MAC address");
}

int gw_vm_spec_resolve(struct gw_vm_spec *spec, struct gw_error *e)
{
    if (!spec->uuid && make_uuid(&spec->uuid, e) < 0)
        return -1;
    for (size_t i = 0; !spec->adopted_argv && i < spec->n_nics; i++)
        if (!spec->nics[i].mac && make_mac(spec, i, e) < 0)
            return -1;
    return 0;
}

static void locate_nothing(struct gw_vm_check *check, const char *path, char *buf, size_t size)
{
    (void)check;
    (void)path;
    snprintf(buf, size, "%s", "");
}

int gw_vm_spec_set_machine(struct gw_vm_spec *spec, const char *machine, struct gw_error *e)
{
    struct gw_vm_check check = {.locate = locate_nothing, .code = GW_E_USAGE, .e = e};
    char *old = spec->machine;
    char *copy = strdup(machine);

    if (!copy)
        return gw_error_set_sys(e, ENOMEM, "machine type");
    spec->machine = copy;
    if (gw_vm_check_spec(&check, spec) < 0) {
        spec->machine = old;
        free(copy);
        return -1;
    }
    free(old);
    return 0;
}
