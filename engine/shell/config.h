/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's configuration: /etc/godwit/godwitd.yaml.
 *
 *     name: n1                              otherwise the one given to `godwit node init|join`
 *     listen: 10.0.0.1:7411                 where other nodes' daemons connect; [::1]:7411 for IPv6
 *     migration_address: 10.1.0.1           where QEMUs send memory to; otherwise listen's address
 *     migration_ports: 49152-49215
 *     state_dir: /var/lib/godwit            keys, certificates, journal
 *     run_dir: /run/godwit                  sockets of QEMUs
 *     socket: /run/godwit/godwitd.sock      the API; otherwise godwitd.sock in run_dir
 *     qemu: qemu-system-x86_64              a path, or a name looked up in PATH
 *     policies_dir: /etc/godwit/policies
 *     owner_store: /srv/shared/godwit       owner records, in a directory that all nodes share
 *     ceph_conf: /etc/ceph/ceph.conf        of the cluster that RBD disks are in
 *     ceph_user: admin                      without "client."; ceph_conf says where its keyring is
 *     network_hook: /usr/local/sbin/move    run when a guest moves, see nethook.h
 *     network_hook_timeout: 10              seconds after which it is killed
 *     announce_addresses: true              with a guest that moves, those that it has claimed
 *     commit_timeout: 60                    seconds to ask a destination that was told to commit
 *     log_level: info                       error, warning, info, debug
 *
 *     breakpoints: false                    for tests: see breakpoint.h
 *
 * Every key is optional; the values above are the defaults (listen: all addresses, IPv6 and IPv4),
 * but there is no owner_store and no network_hook by default.
 */
#ifndef GW_SHELL_CONFIG_H
#define GW_SHELL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "godwit/error.h"
#include "util/cleanup.h"
#include "util/log.h"

#define GW_CONFIG_DEFAULT_FILE "/etc/godwit/godwitd.yaml"
#define GW_CONFIG_DEFAULT_PORT 7411

/* All strings are the struct's own. Only those marked so may be NULL. */
struct gw_config {
    char *name;              /* NULL: not given here; letters, digits, '-', '.', at most 63 */
    char *listen_address;    /* an IPv4 or IPv6 address in text, "::" by default */
    uint16_t listen_port;    /* for the control connections of peers */
    char *migration_address; /* an IP address in text; NULL: the same as the control address */
    uint16_t migration_port_min, migration_port_max; /* inclusive, min <= max */
    char *state_dir;                                 /* absolute */
    char *run_dir;      /* absolute, at most 60 bytes: sockets stand below it */
    char *socket;       /* absolute, fits a unix socket address */
    char *qemu;         /* absolute path, or a name without '/' for PATH */
    char *policies_dir; /* absolute */
    char *owner_store;  /* absolute; NULL: none */
    char *ceph_conf;    /* absolute; NULL: where librados looks */
    char *ceph_user;    /* letters, digits and "._-"; NULL: librados takes "admin" */
    bool announce_addresses;
    char *network_hook;              /* absolute; NULL: none */
    unsigned network_hook_timeout_s; /* 1 to 50 */
    unsigned commit_timeout_s;       /* 5 to 600 */
    enum gw_log_level log_level;
    bool breakpoints;
};

/*
 * Reads file. With file NULL it is GW_CONFIG_DEFAULT_FILE, and only then is it fine that there is
 * none. Returns 0 and *configp (gw_config_free() it), or -1 with GW_E_CONFIG and "FILE:LINE: …" or
 * GW_E_SYSTEM. Blocks on the file system: for the start of a daemon.
 */
int gw_config_load(const char *file, struct gw_config **configp, struct gw_error *e);

/* The same from text; file only appears in messages. */
int gw_config_parse(const char *text, size_t len, const char *file, struct gw_config **configp,
                    struct gw_error *e);

/* NULL is fine. */
void gw_config_free(struct gw_config *config);

GW_DEFINE_AUTO(config)

#endif
