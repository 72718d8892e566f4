/* SPDX-License-Identifier: Apache-2.0 */
#include "host/rbdcheck.h"

#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"

struct comparison {
    const struct gw_rbd_check *in;
    struct gw_findings *findings;
    const char *path;
};

#define ADD(c, level, code, ...) \
    gw_findings_add((c)->findings, GW_FINDING_##level, code, (c)->path, __VA_ARGS__)

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static bool has(const json_t *array, const char *text)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *entry = json_string_value(json_array_get(array, i));

        if (entry && strcmp(entry, text) == 0)
            return true;
    }
    return false;
}

static bool asked(const json_t *disk)
{
    return json_object_get(disk, "fsid") || json_object_get(disk, "error");
}

/* ---- is it there, and the same ---- */

/* Whether one node reaches the image; says so if not. */
static bool check_reach(const struct comparison *c, const json_t *disk, const char *node)
{
    struct gw_finding *f;

    if (json_is_true(json_object_get(disk, "exists")))
        return true;
    if (json_object_get(disk, "fsid")) {
        f = ADD(c, ERROR, "disk-missing", "RBD image %s cannot be opened on %s: %s", c->path, node,
                text_of(disk, "error"));
        gw_finding_hint(f, "compare `rbd info %s` on both nodes", c->path);
    } else {
        f = ADD(c, ERROR, "rbd-unreachable", "%s cannot tell what RBD image %s is: %s", node,
                c->path, text_of(disk, "error"));
        gw_finding_hint(f, "try `ceph -s` on %s; see ceph_conf and ceph_user in its godwitd.yaml",
                        node);
    }
    return false;
}

static void check_same(const struct comparison *c)
{
    static const struct {
        const char *key, *what;
    } table[] = {
        {"fsid", "it is in another Ceph cluster"},
        {"image_id", "it is another image of the same name"},
        {"size_bytes", "its size differs"},
        {"features", "its features differ"},
        {"parent", "its parent differs"},
    };

    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++) {
        struct gw_finding *f;

        if (json_equal(json_object_get(c->in->here, table[i].key),
                       json_object_get(c->in->there, table[i].key)))
            continue;
        f = ADD(c, ERROR, "disk-differs", "RBD image %s on %s is not the disk that %s uses: %s",
                c->path, c->in->destination, c->in->vm, table[i].what);
        gw_finding_hint(f,
                        "both nodes must see one and the same image: compare their ceph.conf "
                        "and `rbd info %s`",
                        c->path);
        return; /* the first says it all */
    }
}

static void check_write(const struct comparison *c, const json_t *disk, const char *node)
{
    struct gw_finding *f;

    if (json_is_true(json_object_get(disk, "writable")))
        return;
    f = ADD(c, ERROR, "disk-access", "the Ceph user of %s may not write RBD image %s: %s", node,
            c->path, text_of(disk, "write_error"));
    gw_finding_hint(f,
                    "give it the caps mon 'profile rbd' and osd 'profile rbd pool=…': `ceph auth "
                    "caps`");
}

static void check_features(const struct comparison *c)
{
    const json_t *features = json_object_get(c->in->there, "features");
    struct gw_finding *f;

    for (size_t i = 0; i < json_array_size(features); i++) {
        const char *name = json_string_value(json_array_get(features, i));

        if (!name || strncmp(name, "feature-", 8) != 0)
            continue;
        f = ADD(c, ERROR, "rbd-features", "%s has %s, which librbd on %s does not know", c->path,
                name, c->in->destination);
        gw_finding_hint(f, "upgrade librbd1 and QEMU's block-rbd module on %s", c->in->destination);
    }
    if (json_is_true(json_object_get(c->in->there, "snapshot")))
        ADD(c, ERROR, "rbd-features", "%s is a snapshot, which no guest can write to", c->path);
    if (has(features, "non-primary")) {
        f = ADD(c, ERROR, "rbd-features",
                "%s is the copy of an image that is mirrored from "
                "another cluster, and cannot be written",
                c->path);
        gw_finding_hint(f, "promote it (rbd mirror image promote), or use the primary");
    }
    if (has(features, "migrating")) {
        f = ADD(c, ERROR, "rbd-features", "%s is being moved to another pool or format", c->path);
        gw_finding_hint(f, "finish that first: rbd migration execute, rbd migration commit");
    }
    if (!has(features, "exclusive-lock")) {
        f = ADD(c, WARNING, "rbd-features",
                "%s has no exclusive-lock: Ceph will not keep a second "
                "writer out",
                c->path);
        gw_finding_hint(f, "rbd feature enable %s exclusive-lock", c->path);
    }
}

/* ---- who has it ---- */

/* Whether "10.0.0.1:0/123" (or "v2:[::1]:0/123") is at this host. */
bool gw_rbd_is_at(const char *address, const char *host)
{
    size_t len = strlen(host);
    const char *at = address;

    if (at[0] == 'v' && at[1] && at[2] == ':')
        at += 3;
    at += at[0] == '[';
    return len > 0 && strncmp(at, host, len) == 0 && (at[len] == ':' || at[len] == ']') &&
           (at[len] == ']') == (strchr(host, ':') != NULL);
}

static int opened_at(const struct comparison *c, const char *address)
{
    const json_t *disks[] = {c->in->here, c->in->there};
    int n = 0;

    for (size_t i = 0; i < GW_ARRAY_SIZE(disks); i++)
        if (gw_rbd_is_at(address, text_of(disks[i], "client_address")))
            n += (int)json_integer_value(json_object_get(disks[i], "opened")) > 0;
    return n;
}

static const char *node_at(const struct comparison *c, const char *address)
{
    if (gw_rbd_is_at(address, text_of(c->in->here, "client_address")))
        return c->in->source;
    if (gw_rbd_is_at(address, text_of(c->in->there, "client_address")))
        return c->in->destination;
    return NULL;
}

/* Which watcher of the list this is among those of its node, from 1. Two nodes of one address
 * (containers of a machine) count as one. */
static int rank_at_node(const struct comparison *c, const json_t *watchers, size_t which)
{
    const char *node = node_at(c, text_of(json_array_get(watchers, which), "address"));
    int rank = 0;

    for (size_t i = 0; i <= which; i++) {
        const char *other = node_at(c, text_of(json_array_get(watchers, i), "address"));

        rank += other && node && strcmp(other, node) == 0;
    }
    return rank;
}

static void check_watchers(const struct comparison *c)
{
    const json_t *watchers = json_object_get(c->in->there, "watchers");

    for (size_t i = 0; i < json_array_size(watchers); i++) {
        const char *address = text_of(json_array_get(watchers, i), "address");
        const char *node = node_at(c, address);
        int n_expected = opened_at(c, address);
        struct gw_finding *f;

        if (!node) {
            f = ADD(c, ERROR, "rbd-watcher",
                    "client %s has RBD image %s open, and is on neither %s nor %s", address,
                    c->path, c->in->source, c->in->destination);
        } else if (rank_at_node(c, watchers, i) > n_expected) {
            f = ADD(c, ERROR, "rbd-watcher",
                    "a client too many on %s has RBD image %s open: %d expected, and there is %s",
                    node, c->path, n_expected, address);
        } else {
            continue;
        }
        gw_finding_hint(f,
                        "find it (rbd status %s) and stop it; if its host is dead, wait 30 s, "
                        "or fence it: ceph osd blocklist add %s",
                        c->path, address);
    }
}

static void check_lock(const struct comparison *c)
{
    const json_t *owners = json_object_get(c->in->there, "lock_owners");

    for (size_t i = 0; i < json_array_size(owners); i++) {
        const json_t *owner = json_array_get(owners, i);
        const char *address = text_of(owner, "address");
        struct gw_finding *f;

        if (opened_at(c, address) > 0)
            continue;
        f = ADD(c, ERROR, "rbd-lock",
                "%s at %s holds the lock of RBD image %s, and is no QEMU of "
                "%s",
                text_of(owner, "client"), address, c->path, c->in->vm);
        gw_finding_hint(f, "rbd lock ls %s; once its holder is certainly gone: rbd lock rm",
                        c->path);
    }
}

/* ---- the cluster ---- */

/* Checks of Ceph's that mean: some data cannot be read or written now. */
static bool stops_io(const char *check)
{
    static const char *const codes[] = {"PG_AVAILABILITY:", "OSD_FULL:", "POOL_FULL:"};

    for (size_t i = 0; i < GW_ARRAY_SIZE(codes); i++)
        if (strncmp(check, codes[i], strlen(codes[i])) == 0)
            return true;
    return false;
}

static void check_health(const struct comparison *c)
{
    const json_t *checks = json_object_get(c->in->there, "health_checks");
    const char *health = text_of(c->in->there, "health");
    struct gw_finding *f;

    for (size_t i = 0; i < json_array_size(checks); i++) {
        const char *check = json_string_value(json_array_get(checks, i));

        if (!check)
            continue;
        f = gw_findings_add(c->findings, stops_io(check) ? GW_FINDING_ERROR : GW_FINDING_WARNING,
                            "rbd-health", c->path, "the Ceph cluster of %s is in %.20s: %s",
                            c->path, health, check);
        gw_finding_hint(f, "ceph health detail");
    }
}

static void check_full(const struct comparison *c)
{
    const char *full = text_of(c->in->there, "full");
    struct gw_finding *f;

    if (*full) {
        f = ADD(c, ERROR, "rbd-full", "no writes to %s: its %s is full", c->path, full);
        gw_finding_hint(f, "add space, delete images, or raise the quota: ceph df");
    } else if (json_is_true(json_object_get(c->in->there, "nearly_full"))) {
        f = ADD(c, WARNING, "rbd-nearly-full", "the pool of %s is nearly full", c->path);
        gw_finding_hint(f, "ceph df");
    }
}

void gw_rbd_check(const struct gw_rbd_check *check, struct gw_findings *findings)
{
    struct comparison c = {check, findings, text_of(check->here, "path")};
    bool read_only = json_is_true(json_object_get(check->here, "read_only"));
    bool here = asked(check->here), there = asked(check->there);

    if (!here && !there) {
        ADD(&c, INFO, "disk-unchecked",
            "RBD image %s is taken to be the same on %s: its cluster was not asked", c.path,
            check->destination);
        return;
    }
    if (!here || !there) {
        ADD(&c, WARNING, "disk-unchecked", "%s did not ask its Ceph cluster about RBD image %s",
            here ? check->destination : check->source, c.path);
        return;
    }
    here = check_reach(&c, check->here, check->source);
    there = check_reach(&c, check->there, check->destination);
    if (!here || !there)
        return;
    check_same(&c);
    check_health(&c);
    if (read_only)
        return;
    check_write(&c, check->there, check->destination);
    check_features(&c);
    check_watchers(&c);
    check_lock(&c);
    check_full(&c);
}

/* ---- after the move ---- */

/* How many of the list ("watchers", "lock_owners") are at the source; each is named. */
static unsigned warn_of_those_left(const struct comparison *c, const char *key, const char *code,
                                   const char *what)
{
    const char *source = text_of(c->in->here, "client_address");
    const json_t *list = json_object_get(c->in->here, key);
    unsigned n = 0;

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *address = text_of(json_array_get(list, i), "address");
        struct gw_finding *f;

        if (!gw_rbd_is_at(address, source))
            continue;
        n++;
        f = ADD(c, WARNING, code, "%s has moved, and client %s on %s still %s RBD image %s",
                c->in->vm, address, c->in->source, what, c->path);
        gw_finding_hint(f,
                        "look what it is (rbd status %s); fence it if it is nobody's: ceph osd "
                        "blocklist add %s",
                        c->path, address);
    }
    return n;
}

static void tell_owner(const struct comparison *c)
{
    const json_t *owners = json_object_get(c->in->here, "lock_owners");
    const json_t *owner = json_array_get(owners, 0);

    if (owner)
        ADD(c, INFO, "rbd-handed-over", "the lock of RBD image %s is held by %s at %s", c->path,
            text_of(owner, "client"), text_of(owner, "address"));
    else
        ADD(c, INFO, "rbd-handed-over",
            "nobody holds the lock of RBD image %s: %s has not written to it yet", c->path,
            c->in->vm);
}

void gw_rbd_check_handed_over(const struct gw_rbd_check *check, struct gw_findings *findings)
{
    struct comparison c = {check, findings, text_of(check->here, "path")};
    const char *source = text_of(check->here, "client_address");
    struct gw_finding *f;

    if (json_is_true(json_object_get(check->here, "read_only")) ||
        strcmp(source, text_of(check->there, "client_address")) == 0)
        return; /* one address for both (containers of a machine) tells nothing */
    if (!json_is_true(json_object_get(check->here, "exists"))) {
        f = ADD(&c, WARNING, "disk-unchecked",
                "%s could not see who has RBD image %s after the move: %s", check->source, c.path,
                text_of(check->here, "error"));
        gw_finding_hint(f, "rbd status %s; rbd lock ls %s", c.path, c.path);
        return;
    }
    if (warn_of_those_left(&c, "watchers", "rbd-watcher", "has open") +
            warn_of_those_left(&c, "lock_owners", "rbd-lock", "holds the lock of") ==
        0)
        tell_owner(&c);
}

/* ---- whom to fence ---- */

static void add_clients(const json_t *list, const char *host, const char *self, json_t *clients,
                        const char **strangerp)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *address = text_of(json_array_get(list, i), "address");

        if (gw_rbd_is_at(address, self) || has(clients, address))
            continue;
        if (gw_rbd_is_at(address, host))
            json_array_append_new(clients, json_string(address));
        else
            *strangerp = address;
    }
}

void gw_rbd_clients_at(const json_t *disk, const char *host, json_t *clients,
                       const char **strangerp)
{
    const char *self = text_of(disk, "client_address");

    add_clients(json_object_get(disk, "watchers"), host, self, clients, strangerp);
    add_clients(json_object_get(disk, "lock_owners"), host, self, clients, strangerp);
}
