/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "shell/config.h"
#include "util/yaml.h"

/* Leaves 47 bytes of a unix socket's path for what stands below run_dir. */
#define RUN_DIR_MAX 60
/* Of a network hook, in seconds; prepare must end before the preparing of a migration does. */
#define HOOK_TIMEOUT_DEFAULT   10u
#define HOOK_TIMEOUT_MAX       50u
#define COMMIT_TIMEOUT_DEFAULT 60u
#define COMMIT_TIMEOUT_MIN     5u /* longer than it takes to ask the owner record */
#define COMMIT_TIMEOUT_MAX     600u

/* The file as it stands there. */
struct config_file {
    char *name, *listen, *migration_address, *migration_ports, *state_dir, *run_dir, *socket, *qemu,
        *policies_dir, *owner_store, *ceph_conf, *ceph_user, *network_hook;
    unsigned *network_hook_timeout, *commit_timeout;
    enum gw_log_level *log_level;
    bool *breakpoints, *announce_addresses;
};

static const cyaml_strval_t levels[] = {
    {"error", GW_LOG_ERROR},
    {"warning", GW_LOG_WARNING},
    {"info", GW_LOG_INFO},
    {"debug", GW_LOG_DEBUG},
};

#define OPTIONAL CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL
#define STRING(member, max) \
    CYAML_FIELD_STRING_PTR(#member, OPTIONAL, struct config_file, member, 1, max)

static const cyaml_schema_field_t fields[] = {
    STRING(name, 63),
    STRING(listen, 64),
    STRING(migration_address, 64),
    STRING(migration_ports, 16),
    STRING(state_dir, 1024),
    STRING(run_dir, 1024),
    STRING(socket, 1024),
    STRING(qemu, 1024),
    STRING(policies_dir, 1024),
    STRING(owner_store, 1024),
    STRING(ceph_conf, 1024),
    STRING(ceph_user, 63),
    STRING(network_hook, 1024),
    CYAML_FIELD_UINT_PTR("network_hook_timeout", OPTIONAL, struct config_file,
                         network_hook_timeout),
    CYAML_FIELD_UINT_PTR("commit_timeout", OPTIONAL, struct config_file, commit_timeout),
    CYAML_FIELD_ENUM_PTR("log_level", OPTIONAL | CYAML_FLAG_STRICT, struct config_file, log_level,
                         levels, GW_ARRAY_SIZE(levels)),
    CYAML_FIELD_BOOL_PTR("breakpoints", OPTIONAL, struct config_file, breakpoints),
    CYAML_FIELD_BOOL_PTR("announce_addresses", OPTIONAL, struct config_file, announce_addresses),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config_file, fields),
};

/* What a check needs: the values, and the text to point into. */
struct reader {
    struct config_file *file;
    struct gw_config *config;
    const char *text, *name;
    size_t len;
    struct gw_error *e;
};

#define REJECT(r, key, ...) gw_yaml_reject((r)->e, (r)->text, (r)->len, (r)->name, key, __VA_ARGS__)

void gw_config_free(struct gw_config *config)
{
    if (!config)
        return;
    free(config->name);
    free(config->listen_address);
    free(config->migration_address);
    free(config->state_dir);
    free(config->run_dir);
    free(config->socket);
    free(config->qemu);
    free(config->policies_dir);
    free(config->owner_store);
    free(config->ceph_conf);
    free(config->ceph_user);
    free(config->network_hook);
    free(config);
}

static bool is_ip(const char *text)
{
    unsigned char bytes[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

/* 1 to 65535 with nothing after it but what *restp points to; 0 for anything else. */
static uint16_t parse_port(const char *text, const char **restp)
{
    size_t n = strspn(text, "0123456789");
    unsigned long port;

    *restp = text + n;
    if (n == 0 || n > 5)
        return 0;
    port = strtoul(text, NULL, 10);
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

/* Cuts "10.0.0.1:7411", "[::1]:7411", "10.0.0.1" or "::1" into address and port (0: not given). */
static int split_address(char *text, char **addressp, uint16_t *portp)
{
    char *colon = strrchr(text, ':');
    const char *rest = "";

    *addressp = text;
    *portp = 0;
    if (text[0] == '[') {
        char *close = strchr(text, ']');

        if (!close || (close[1] && close[1] != ':'))
            return -1;
        colon = close[1] ? close + 1 : NULL;
        *close = '\0';
        *addressp = text + 1;
    } else if (colon && strchr(text, ':') != colon) {
        colon = NULL;
    }
    if (colon) {
        *colon = '\0';
        *portp = parse_port(colon + 1, &rest);
    }
    return is_ip(*addressp) && (!colon || (*portp && !*rest)) ? 0 : -1;
}

static int out_of_memory(struct reader *r)
{
    return gw_error_set_sys(r->e, ENOMEM, "read %s", r->name);
}

/* Moves a value out of the file struct, or copies the default. */
static int take(struct reader *r, char **from, const char *standard, char **to)
{
    *to = *from ? gw_steal_ptr(from) : strdup(standard);
    return *to ? 0 : out_of_memory(r);
}

static int take_name(struct reader *r)
{
    const char *name = r->file->name;

    if (name && (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") !=
                     strlen(name) ||
                 strchr("-.", name[0])))
        return REJECT(r, "name", "'%s' is not a node's name: letters, digits, - and .", name);
    r->config->name = gw_steal_ptr(&r->file->name);
    return 0;
}

static int take_listen(struct reader *r)
{
    gw_autofree char *text = strdup(r->file->listen ? r->file->listen : "::");
    uint16_t port;
    char *address;

    if (!text)
        return out_of_memory(r);
    if (split_address(text, &address, &port) < 0)
        return REJECT(r, "listen", "'%s' is not an IP address with a port, such as 10.0.0.1:%d",
                      r->file->listen, GW_CONFIG_DEFAULT_PORT);
    r->config->listen_port = port ? port : GW_CONFIG_DEFAULT_PORT;
    r->config->listen_address = strdup(address);
    return r->config->listen_address ? 0 : out_of_memory(r);
}

static int take_migration(struct reader *r)
{
    const char *address = r->file->migration_address;
    const char *ports = r->file->migration_ports ? r->file->migration_ports : "49152-49215";
    struct gw_config *c = r->config;
    const char *rest;

    if (address && !is_ip(address))
        return REJECT(r, "migration_address", "'%s' is not an IP address", address);
    c->migration_port_min = parse_port(ports, &rest);
    if (*rest == '-')
        c->migration_port_max = parse_port(rest + 1, &rest);
    if (*rest || c->migration_port_min == 0 || c->migration_port_max < c->migration_port_min)
        return REJECT(r, "migration_ports", "'%s' is not a range such as 49152-49215", ports);
    c->migration_address = gw_steal_ptr(&r->file->migration_address);
    return 0;
}

static int need_absolute(struct reader *r, const char *key, const char *path)
{
    return path[0] == '/' ? 0 : REJECT(r, key, "'%s' is not an absolute path", path);
}

static int take_paths(struct reader *r)
{
    struct config_file *f = r->file;
    struct gw_config *c = r->config;

    if (take(r, &f->state_dir, "/var/lib/godwit", &c->state_dir) < 0 ||
        take(r, &f->run_dir, "/run/godwit", &c->run_dir) < 0 ||
        take(r, &f->policies_dir, "/etc/godwit/policies", &c->policies_dir) < 0)
        return -1;
    if (need_absolute(r, "state_dir", c->state_dir) < 0 ||
        need_absolute(r, "run_dir", c->run_dir) < 0 ||
        need_absolute(r, "policies_dir", c->policies_dir) < 0 ||
        (f->owner_store && need_absolute(r, "owner_store", f->owner_store) < 0))
        return -1;
    c->owner_store = gw_steal_ptr(&f->owner_store);
    if (strlen(c->run_dir) > RUN_DIR_MAX)
        return REJECT(r, "run_dir", "is longer than %d bytes, too long for sockets in it",
                      RUN_DIR_MAX);
    return 0;
}

static int take_socket(struct reader *r)
{
    struct gw_config *c = r->config;
    gw_autofree char *standard = NULL;

    if (asprintf(&standard, "%s/godwitd.sock", c->run_dir) < 0) {
        standard = NULL;
        return out_of_memory(r);
    }
    if (take(r, &r->file->socket, standard, &c->socket) < 0 ||
        need_absolute(r, "socket", c->socket) < 0)
        return -1;
    if (strlen(c->socket) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return REJECT(r, "socket", "is longer than the %zu bytes that a unix socket's path can be",
                      sizeof((struct sockaddr_un *)0)->sun_path - 1);
    return 0;
}

static int take_qemu(struct reader *r)
{
    struct gw_config *c = r->config;

    if (take(r, &r->file->qemu, "qemu-system-x86_64", &c->qemu) < 0)
        return -1;
    return strchr(c->qemu, '/') ? need_absolute(r, "qemu", c->qemu) : 0;
}

/* Where to find a cluster and who to be there; what is not given is librados's to choose. */
static int take_ceph(struct reader *r)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "._-";
    struct gw_config *c = r->config;

    c->ceph_conf = gw_steal_ptr(&r->file->ceph_conf);
    c->ceph_user = gw_steal_ptr(&r->file->ceph_user);
    if (c->ceph_conf && need_absolute(r, "ceph_conf", c->ceph_conf) < 0)
        return -1;
    if (c->ceph_user && strncmp(c->ceph_user, "client.", 7) == 0)
        return REJECT(r, "ceph_user", "'%s': leave out \"client.\"", c->ceph_user);
    if (c->ceph_user && c->ceph_user[strspn(c->ceph_user, plain)])
        return REJECT(r, "ceph_user", "'%s' is not the name of a Ceph user", c->ceph_user);
    return 0;
}

static int take_hook(struct reader *r)
{
    const unsigned *timeout_s = r->file->network_hook_timeout;
    struct gw_config *c = r->config;

    c->network_hook = gw_steal_ptr(&r->file->network_hook);
    c->network_hook_timeout_s = timeout_s ? *timeout_s : HOOK_TIMEOUT_DEFAULT;
    if (c->network_hook_timeout_s < 1 || c->network_hook_timeout_s > HOOK_TIMEOUT_MAX)
        return REJECT(r, "network_hook_timeout", "%u is not between 1 and %u seconds",
                      c->network_hook_timeout_s, HOOK_TIMEOUT_MAX);
    return c->network_hook ? need_absolute(r, "network_hook", c->network_hook) : 0;
}

static int take_commit(struct reader *r)
{
    const unsigned *timeout_s = r->file->commit_timeout;
    struct gw_config *c = r->config;

    c->commit_timeout_s = timeout_s ? *timeout_s : COMMIT_TIMEOUT_DEFAULT;
    if (c->commit_timeout_s < COMMIT_TIMEOUT_MIN || c->commit_timeout_s > COMMIT_TIMEOUT_MAX)
        return REJECT(r, "commit_timeout", "%u is not between %u and %u seconds",
                      c->commit_timeout_s, COMMIT_TIMEOUT_MIN, COMMIT_TIMEOUT_MAX);
    return 0;
}

static int take_all(struct reader *r)
{
    r->config->breakpoints = r->file->breakpoints && *r->file->breakpoints;
    r->config->announce_addresses = !r->file->announce_addresses || *r->file->announce_addresses;
    r->config->log_level = r->file->log_level ? *r->file->log_level : GW_LOG_INFO;
    if (take_name(r) < 0 || take_listen(r) < 0 || take_migration(r) < 0)
        return -1;
    if (take_paths(r) < 0 || take_socket(r) < 0 || take_qemu(r) < 0)
        return -1;
    return take_ceph(r) < 0 || take_commit(r) < 0 ? -1 : take_hook(r);
}

static int build(struct reader *r, struct gw_config **configp)
{
    gw_auto(config) struct gw_config *config = calloc(1, sizeof *config);

    if (!config)
        return out_of_memory(r);
    r->config = config;
    if (take_all(r) < 0)
        return -1;
    *configp = gw_steal_ptr(&config);
    return 0;
}

int gw_config_parse(const char *text, size_t len, const char *file, struct gw_config **configp,
                    struct gw_error *e)
{
    struct reader r = {.text = text, .len = len, .name = file, .e = e};
    void *loaded;
    int result;

    *configp = NULL;
    if (gw_yaml_load(text, len, file, &schema, &loaded, e) < 0)
        return -1;
    r.file = loaded;
    result = build(&r, configp);
    gw_yaml_free(&schema, loaded);
    return result;
}

int gw_config_load(const char *file, struct gw_config **configp, struct gw_error *e)
{
    const char *path = file ? file : GW_CONFIG_DEFAULT_FILE;
    gw_autofree char *text = NULL;
    struct gw_error local;
    size_t len;

    *configp = NULL;
    if (gw_yaml_read_file(path, &text, &len, &local) == 0)
        return gw_config_parse(text, len, path, configp, e);
    if (!file && local.sys == ENOENT) {
        struct config_file nothing = {0};
        struct reader r = {.file = &nothing, .text = "", .name = "built-in configuration", .e = e};

        return build(&r, configp);
    }
    if (e)
        *e = local;
    return -1;
}
