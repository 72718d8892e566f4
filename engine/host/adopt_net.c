/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of adoption: networks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/adopt_parse.h"

static void add_nic(struct gw_adopt_parser *p, const char *what, const char *bridge, const char *id)
{
    struct gw_vm_spec *spec = p->adopt->spec;

    if (!spec->nics)
        spec->nics = calloc(GW_VM_MAX_NICS, sizeof *spec->nics);
    if (!spec->nics) {
        p->failed = true;
    } else if (spec->n_nics == GW_VM_MAX_NICS) {
        gw_adopt_refuse(p, what, "more than %u taps", GW_VM_MAX_NICS);
    } else {
        p->netdev_ids[spec->n_nics] = id ? strdup(id) : NULL;
        spec->nics[spec->n_nics].bridge = strdup(bridge);
        p->failed |= !spec->nics[spec->n_nics].bridge;
        spec->n_nics++;
    }
}

/* Finds the bridge behind a tap option of a real command line. Returns false after a refusal. */
static bool bridge_of_tap(struct gw_adopt_parser *p, const char *what, const struct gw_optstr *opts,
                          char bridge[IFNAMSIZ])
{
    const char *ifname = gw_optstr_get(opts, "ifname");
    const char *fd = gw_optstr_get(opts, "fd");
    char name[IFNAMSIZ] = "";

    if (ifname)
        snprintf(name, sizeof name, "%s", ifname);
    else if (!fd || !p->host || p->host->tap_of_fd(p->host, atoi(fd), name) < 0)
        name[0] = '\0';
    if (!name[0] || strchr(name, '%') || (ifname && strlen(ifname) >= sizeof name)) {
        gw_adopt_refuse(p, what, "which tap it uses cannot be told");
        return false;
    }
    if (!p->host || p->host->bridge_of(p->host, name, bridge) < 0) {
        gw_adopt_refuse(p, what, "the tap '%s' is not a port of a bridge", name);
        return false;
    }
    return true;
}

/* With helper= (and as "bridge") QEMU's helper makes the tap and puts it on br=. */
static bool bridge_of_helper(struct gw_adopt_parser *p, const char *what,
                             const struct gw_optstr *opts, char bridge[IFNAMSIZ])
{
    const char *br = gw_optstr_get(opts, "br");

    br = br ? br : "br0";
    if (!*br || strlen(br) >= IFNAMSIZ) {
        gw_adopt_refuse(p, what, "'%.40s' is not the name of a bridge", br);
        return false;
    }
    memcpy(bridge, br, strlen(br) + 1);
    return true;
}

static bool find_bridge(struct gw_adopt_parser *p, const char *what, const struct gw_optstr *opts,
                        char bridge[IFNAMSIZ])
{
    const char *type = gw_optstr_get(opts, "type");
    const char *ifname = gw_optstr_get(opts, "ifname");
    char expected[16];

    if (!p->is_template)
        return (strcmp(type, "bridge") == 0 || gw_optstr_has(opts, "helper")
                    ? bridge_of_helper
                    : bridge_of_tap)(p, what, opts, bridge);
    snprintf(expected, sizeof expected, "@TAP%zu@", p->adopt->spec->n_nics);
    snprintf(bridge, IFNAMSIZ, "template");
    if (ifname && strcmp(ifname, expected) == 0)
        return true;
    gw_adopt_refuse(p, what, "ifname is not %s", expected);
    return false;
}

static void rewrite_tap(struct gw_adopt_parser *p, const char *option, const char *what,
                        struct gw_optstr *opts)
{
    static const char *const gone[] = {"fd", "br", "helper", "vhostfd", "queues"};
    const char *queues = gw_optstr_get(opts, "queues");
    bool vhost = gw_optstr_has(opts, "vhostfd");
    char bridge[IFNAMSIZ], placeholder[16];

    if (gw_optstr_has(opts, "fds") || gw_optstr_has(opts, "vhostfds") ||
        (queues && strcmp(queues, "1") != 0)) {
        gw_adopt_refuse(p, what, "a tap with several queues");
        return;
    }
    if (!find_bridge(p, what, opts, bridge))
        return;
    snprintf(placeholder, sizeof placeholder, "@TAP%zu@", p->adopt->spec->n_nics);
    add_nic(p, what, bridge, strcmp(option, "-netdev") == 0 ? gw_optstr_get(opts, "id") : NULL);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(gone); i++)
        gw_optstr_remove(opts, gone[i]);
    gw_adopt_put(p, opts, "type", "tap");
    gw_adopt_put(p, opts, "ifname", placeholder);
    gw_adopt_put(p, opts, "script", "no");
    gw_adopt_put(p, opts, "downscript", "no");
    if (vhost)
        gw_adopt_put(p, opts, "vhost", "on");
    gw_adopt_push_opts(p, option, opts, "type");
}

static void check_user_net(struct gw_adopt_parser *p, const char *what,
                           const struct gw_optstr *opts)
{
    static const char *const local[] = {"smb", "tftp", "guestfwd", NULL};

    for (size_t i = 0; i < opts->n_items; i++)
        if (gw_adopt_among(opts->items[i].key, local))
            gw_adopt_refuse(p, what, "%s: a directory or program of this host", opts->items[i].key);
    gw_adopt_remark(p, what, "open connections through it end with the move");
}

void gw_adopt_net(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    static const char *const kept[] = {"none", "nic", "hubport", NULL};
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "type");
    const char *type = opts ? gw_optstr_get(opts, "type") : NULL;
    char what[80];

    if (!opts)
        return;
    snprintf(what, sizeof what, "%s %.60s", option, type ? type : "");
    if (type && (strcmp(type, "tap") == 0 || strcmp(type, "bridge") == 0)) {
        rewrite_tap(p, option, what, opts);
        return;
    }
    if (type && strcmp(type, "user") == 0)
        check_user_net(p, what, opts);
    else if (!type || !gw_adopt_among(type, kept))
        gw_adopt_refuse(p, what, "its other end belongs to this host, or is unknown to Godwit");
    gw_adopt_push2(p, option, arg);
}

static void take_mac(struct gw_adopt_parser *p, const char *netdev, const char *mac)
{
    struct gw_vm_spec *spec = p->adopt->spec;

    for (size_t i = 0; i < spec->n_nics; i++)
        if (p->netdev_ids[i] && strcmp(p->netdev_ids[i], netdev) == 0)
            gw_adopt_set(p, "-device", &spec->nics[i].mac, mac);
}

void gw_adopt_find_macs(struct gw_adopt_parser *p)
{
    struct gw_vm_spec *spec = p->adopt->spec;

    for (size_t i = 0; i + 1 < spec->n_adopted_argv; i++) {
        gw_auto(optstr) struct gw_optstr *opts = NULL;

        if (strcmp(spec->adopted_argv[i], "-device") != 0)
            continue;
        opts = gw_optstr_parse(spec->adopted_argv[i + 1], "driver");
        if (opts && gw_optstr_has(opts, "netdev") && gw_optstr_has(opts, "mac"))
            take_mac(p, gw_optstr_get(opts, "netdev"), gw_optstr_get(opts, "mac"));
    }
}
