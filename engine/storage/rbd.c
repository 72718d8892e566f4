/* SPDX-License-Identifier: Apache-2.0 */
/* What a cluster says about an image, with librbd's and librados' blocking calls, on the worker. */
#include "storage/rbd.h"

#include <errno.h>
#include <inttypes.h>
#include <rbd/librbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "storage/rados_impl.h"
#include "util/cleanup.h"

enum { MAX_WATCHERS = 64, MAX_LOCKERS_BYTES = 4096, MAX_CHECKS = 16 };

/* One round of questions. */
struct inquiry {
    struct gw_rados_job *job;
    rados_t cluster;
    rados_ioctx_t io;
    rbd_image_t image;
    json_t *facts;
    char id[64];
};

/* Text of the cluster as JSON: one line of valid UTF-8, or nothing. */
static json_t *text(const char *from)
{
    char line[400];

    snprintf(line, sizeof line, "%s", from);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    return json_string(line);
}

static void set(json_t *object, const char *key, json_t *value)
{
    if (value)
        json_object_set_new(object, key, value);
}

/* ---- features ---- */

static const char *const feature_names[] = {
    RBD_FEATURE_NAME_LAYERING,   RBD_FEATURE_NAME_STRIPINGV2,  RBD_FEATURE_NAME_EXCLUSIVE_LOCK,
    RBD_FEATURE_NAME_OBJECT_MAP, RBD_FEATURE_NAME_FAST_DIFF,   RBD_FEATURE_NAME_DEEP_FLATTEN,
    RBD_FEATURE_NAME_JOURNALING, RBD_FEATURE_NAME_DATA_POOL,   RBD_FEATURE_NAME_OPERATIONS,
    RBD_FEATURE_NAME_MIGRATING,  RBD_FEATURE_NAME_NON_PRIMARY, RBD_FEATURE_NAME_DIRTY_CACHE,
};

static json_t *features_of(uint64_t features)
{
    json_t *names = json_array();
    char number[24];

    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(features >> bit & 1))
            continue;
        snprintf(number, sizeof number, "feature-%u", bit);
        json_array_append_new(
            names, json_string(bit < GW_ARRAY_SIZE(feature_names) ? feature_names[bit] : number));
    }
    return names;
}

/* ---- who has it ---- */

static int add_watchers(struct inquiry *q)
{
    rbd_image_watcher_t watchers[MAX_WATCHERS];
    size_t n = MAX_WATCHERS;
    int r = rbd_watchers_list(q->image, watchers, &n);
    json_t *list = json_array();
    char cookie[24];

    for (size_t i = 0; r == 0 && i < n; i++) {
        snprintf(cookie, sizeof cookie, "%" PRIu64, watchers[i].cookie);
        json_array_append_new(list,
                              json_pack("{s:o, s:I, s:s}", "address", text(watchers[i].addr),
                                        "client", (json_int_t)watchers[i].id, "cookie", cookie));
    }
    if (r == 0)
        rbd_watchers_list_cleanup(watchers, n);
    set(q->facts, "watchers", list);
    return r;
}

/* The lock of an image is one of its header object; the exclusive lock of the feature is kept
 * there as well. */
static int add_lockers(struct inquiry *q)
{
    char tag[256], clients[MAX_LOCKERS_BYTES], cookies[MAX_LOCKERS_BYTES], addrs[MAX_LOCKERS_BYTES];
    size_t n_tag = sizeof tag, n_clients = sizeof clients, n_cookies = sizeof cookies,
           n_addrs = sizeof addrs;
    const char *client = clients, *cookie = cookies, *addr = addrs;
    json_t *list = json_array();
    int exclusive = 0;
    ssize_t n = rbd_list_lockers(q->image, &exclusive, tag, &n_tag, clients, &n_clients, cookies,
                                 &n_cookies, addrs, &n_addrs);

    for (ssize_t i = 0; i < n; i++) {
        json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "address", text(addr), "client",
                                              text(client), "cookie", text(cookie)));
        client += strlen(client) + 1;
        cookie += strlen(cookie) + 1;
        addr += strlen(addr) + 1;
    }
    set(q->facts, "lock_owners", list);
    return n < 0 && n != -ENOENT ? (int)n : 0;
}

/* ---- what it is ---- */

static int add_parent(struct inquiry *q)
{
    rbd_linked_image_spec_t parent;
    rbd_snap_spec_t snap;
    char line[400] = "";
    int r = rbd_get_parent(q->image, &parent, &snap);

    if (r == 0) {
        snprintf(line, sizeof line, "%s/%s/%s@%s", parent.pool_name, parent.pool_namespace,
                 parent.image_id, snap.name);
        rbd_linked_image_spec_cleanup(&parent);
        rbd_snap_spec_cleanup(&snap);
    }
    set(q->facts, "parent", text(line));
    return r == -ENOENT ? 0 : r;
}

static int add_image(struct inquiry *q)
{
    uint64_t size = 0, features = 0;
    int r = rbd_get_id(q->image, q->id, sizeof q->id);

    r = r < 0 ? r : rbd_get_size(q->image, &size);
    r = r < 0 ? r : rbd_get_features(q->image, &features);
    if (r < 0)
        return r;
    set(q->facts, "image_id", text(q->id));
    set(q->facts, "size_bytes", json_integer((json_int_t)size));
    set(q->facts, "features", features_of(features));
    set(q->facts, "snapshot", json_boolean(q->job->spec.snap[0] != '\0'));
    set(q->facts, "readable", json_true());
    r = add_parent(q);
    r = r < 0 ? r : add_watchers(q);
    return r < 0 ? r : add_lockers(q);
}

/* ---- may it be written ---- */

/*
 * A write that never happens: it needs an object with an attribute that nobody sets. The OSD
 * checks what a user may do before it looks at conditions, so -EPERM says that he may not, and
 * -ECANCELED (or -ENODATA, or -ENOENT where the object does not exist yet) that he may.
 */
static int try_write(rados_ioctx_t io, const char *oid)
{
    rados_write_op_t op = rados_create_write_op();
    int r;

    rados_write_op_assert_exists(op);
    rados_write_op_cmpxattr(op, "godwit.never", LIBRADOS_CMPXATTR_OP_EQ, "x", 1);
    rados_write_op_create(op, LIBRADOS_CREATE_IDEMPOTENT, NULL);
    r = rados_write_op_operate2(op, io, oid, NULL, LIBRADOS_OPERATION_FULL_TRY);
    rados_release_write_op(op);
    return r == -ECANCELED || r == -ENODATA || r == -ENOENT ? 0 : r;
}

static int try_data(struct inquiry *q, int64_t pool)
{
    char oid[128];
    rados_ioctx_t io;
    int r;

    /* Without a separate data pool the header's pool is named. */
    if (pool < 0)
        return (int)pool;
    r = rados_ioctx_create2(q->cluster, pool, &io);
    if (r < 0)
        return r;
    rados_ioctx_set_namespace(io, q->job->spec.ns);
    snprintf(oid, sizeof oid, "rbd_data.%s.0000000000000000", q->id);
    r = try_write(io, oid);
    rados_ioctx_destroy(io);
    return r;
}

static int add_writable(struct inquiry *q)
{
    int64_t data_pool = rbd_get_data_pool_id(q->image);
    char oid[96];
    int r;

    snprintf(oid, sizeof oid, "rbd_header.%s", q->id);
    r = try_write(q->io, oid);
    if (r == 0)
        r = try_data(q, data_pool);
    if (r == -ETIMEDOUT)
        return r;
    set(q->facts, "writable", json_boolean(r == 0));
    if (r < 0)
        set(q->facts, "write_error", text(strerror(-r)));
    return 0;
}

/* ---- the cluster ---- */

static json_t *ask_monitor(struct inquiry *q, const char *command, int *rp)
{
    char *answer = NULL, *status = NULL;
    size_t n_answer = 0, n_status = 0;
    json_t *json = NULL;

    *rp =
        rados_mon_command(q->cluster, &command, 1, NULL, 0, &answer, &n_answer, &status, &n_status);
    if (*rp == 0) {
        json = json_loadb(answer, n_answer, 0, NULL);
        if (!json_is_object(json))
            *rp = -EBADMSG;
    }
    rados_buffer_free(answer);
    rados_buffer_free(status);
    return json;
}

static bool has_flag(const char *flags, const char *flag)
{
    size_t len = strlen(flag);

    for (const char *at = flags; at && (at = strstr(at, flag)); at += len)
        if ((at == flags || at[-1] == ',') && (at[len] == ',' || at[len] == '\0'))
            return true;
    return false;
}

static const char *flags_of(const json_t *object, const char *key)
{
    const char *flags = json_string_value(json_object_get(object, key));

    return flags ? flags : "";
}

static void judge_flags(struct inquiry *q, const json_t *map)
{
    const char *cluster = flags_of(map, "flags"), *pool = "", *full;
    json_t *entry;
    size_t i;

    json_array_foreach (json_object_get(map, "pools"), i, entry) {
        const char *name = json_string_value(json_object_get(entry, "pool_name"));

        if (name && strcmp(name, q->job->spec.pool) == 0)
            pool = flags_of(entry, "flags_names");
    }
    full = has_flag(cluster, "pausewr") || has_flag(cluster, "pauserd") ? "paused"
           : has_flag(cluster, "full")                                  ? "cluster"
           : has_flag(pool, "full_quota")                               ? "pool quota"
           : has_flag(pool, "full")                                     ? "pool"
                                                                        : "";
    set(q->facts, "full", json_string(full));
    set(q->facts, "nearly_full",
        json_boolean(has_flag(pool, "nearfull") || has_flag(cluster, "nearfull")));
}

static void add_checks(struct inquiry *q, json_t *health)
{
    json_t *list = json_array(), *check;
    const char *code;
    char line[300];

    json_object_foreach (json_object_get(health, "checks"), code, check) {
        const char *message =
            json_string_value(json_object_get(json_object_get(check, "summary"), "message"));

        snprintf(line, sizeof line, "%s: %s", code, message ? message : "");
        if (json_array_size(list) < MAX_CHECKS)
            json_array_append_new(list, text(line));
    }
    set(q->facts, "health_checks", list);
}

static int add_cluster(struct inquiry *q)
{
    int r;
    json_t *map = ask_monitor(q, "{\"prefix\": \"osd dump\", \"format\": \"json\"}", &r);
    json_t *health;

    if (r == 0)
        judge_flags(q, map);
    json_decref(map);
    if (r < 0)
        return r;
    health = ask_monitor(q, "{\"prefix\": \"health\", \"format\": \"json\"}", &r);
    if (r == 0) {
        set(q->facts, "health", text(flags_of(health, "status")));
        add_checks(q, health);
    }
    json_decref(health);
    return r;
}

/* "10.0.0.1" of "[v2:10.0.0.1:0/123,v1:…]", "10.0.0.1:0/123" or "[v2:[fe80::1]:0/123]". */
static void host_of(const char *addrs, char *out, size_t size)
{
    const char *at = addrs + (addrs[0] == '[' && addrs[1] == 'v');
    bool v6;

    if (at[0] == 'v' && at[1] && at[2] == ':')
        at += 3;
    v6 = at[0] == '[';
    at += v6;
    snprintf(out, size, "%.*s", (int)strcspn(at, v6 ? "]" : ":/,"), at);
}

/* ---- all of it ---- */

static int not_there(struct inquiry *q, const char *why)
{
    set(q->facts, "exists", json_false());
    set(q->facts, "error", text(why));
    return 0;
}

static int open_failed(struct inquiry *q, int r)
{
    const struct gw_rbd_spec *spec = &q->job->spec;
    char why[600];

    switch (-r) {
    case ENOENT:
        snprintf(why, sizeof why, "no image %s%s%s in pool %s%s%s", spec->image,
                 spec->snap[0] ? "@" : "", spec->snap, spec->pool, spec->ns[0] ? "/" : "",
                 spec->ns);
        return not_there(q, why);
    case ENOSYS:
        return not_there(q, "it has features that librbd on this node does not know: upgrade "
                            "librbd1, or disable them (rbd info, rbd feature disable)");
    case EPERM:
    case EACCES:
        snprintf(why, sizeof why, "user client.%s may not read it (ceph auth caps)",
                 q->job->ticket.rados->user ? q->job->ticket.rados->user : "admin");
        return not_there(q, why);
    default: return r;
    }
}

/* The image is there and open. */
static int describe(struct inquiry *q)
{
    int r;

    set(q->facts, "exists", json_true());
    r = add_image(q);
    return r < 0 ? r : add_writable(q);
}

static int in_pool(struct inquiry *q)
{
    const struct gw_rbd_spec *spec = &q->job->spec;
    int r = add_cluster(q), closed;

    if (r < 0)
        return r;
    /* Whoever opens an image then waits until somebody ends that. */
    if (strcmp(flags_of(q->facts, "full"), "paused") == 0)
        return not_there(q, "the cluster is paused (ceph osd unset pause)");
    r = rbd_open_read_only(q->io, spec->image, &q->image, spec->snap[0] ? spec->snap : NULL);
    if (r < 0)
        return open_failed(q, r);
    r = describe(q);
    closed = rbd_close(q->image);
    return r < 0 ? r : closed;
}

static int add_identity(struct inquiry *q)
{
    char fsid[37] = "", host[64], *addrs = NULL;
    int r = rados_cluster_fsid(q->cluster, fsid, sizeof fsid);

    if (r < 0)
        return r;
    set(q->facts, "fsid", text(fsid));
    r = rados_getaddrs(q->cluster, &addrs);
    if (r < 0)
        return r;
    host_of(addrs, host, sizeof host);
    set(q->facts, "client_address", text(host));
    free(addrs);
    return 0;
}

static int work_facts(struct gw_rados_job *job)
{
    struct gw_rados *rados = job->ticket.rados;
    struct inquiry q = {.job = job, .cluster = rados->cluster, .facts = json_object()};
    const struct gw_rbd_spec *spec = &job->spec;
    int r = q.facts ? add_identity(&q) : -ENOMEM;

    if (r == 0) {
        r = gw_rados_pool(rados, spec->pool, spec->ns, &q.io, &job->error);
        if (r == -ENOENT) {
            r = not_there(&q, job->error.msg);
        } else if (r == 0) {
            r = in_pool(&q);
            rados_ioctx_destroy(q.io);
        }
    }
    if (r == 0)
        job->facts = q.facts;
    else
        json_decref(q.facts);
    return r < 0 ? gw_rados_failed(rados, &job->error, r, "%s", job->what) : 0;
}

int gw_rados_image_facts(struct gw_rados *rados, struct gw_rados_call *call,
                         const struct gw_rbd_spec *spec)
{
    struct gw_rados_job *job = gw_rados_job_new(rados, call, work_facts);

    if (!job)
        return -ENOMEM;
    job->spec = *spec;
    snprintf(job->what, sizeof job->what, "look at RBD image %s/%s%s%s", spec->pool, spec->ns,
             spec->ns[0] ? "/" : "", spec->image);
    gw_rados_job_start(job);
    return 0;
}

/* ---- when the lock is ours ---- */

struct gw_rados_lock {
    struct gw_rbd_spec spec;
    char oid[96];
    rados_ioctx_t io;
    uint64_t held_ns; /* 0: not yet */
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* librbd's exclusive lock is an advisory lock of this name on the header. */
static int look_at_lock(struct gw_rados_lock *lock, const char *host)
{
    char tag[256], clients[512], cookies[512], addrs[512], owner[64];
    size_t n_tag = sizeof tag, n_clients = sizeof clients, n_cookies = sizeof cookies,
           n_addrs = sizeof addrs;
    int exclusive;
    ssize_t n = rados_list_lockers(lock->io, lock->oid, "rbd_lock", &exclusive, tag, &n_tag,
                                   clients, &n_clients, cookies, &n_cookies, addrs, &n_addrs);

    if (n < 0 && n != -ENOENT)
        return (int)n;
    if (n <= 0)
        return 0;
    host_of(addrs, owner, sizeof owner);
    if (strcmp(owner, host) == 0)
        lock->held_ns = now_ns();
    return 0;
}

static int look_at_locks(struct gw_rados_job *job, const char *host, size_t *n_openp)
{
    int r = 0;

    *n_openp = 0;
    for (size_t i = 0; r == 0 && i < job->n_locks; i++) {
        if (!job->locks[i].held_ns)
            r = look_at_lock(&job->locks[i], host);
        *n_openp += !job->locks[i].held_ns;
    }
    return r;
}

static int poll_locks(struct gw_rados_job *job)
{
    uint64_t limit_ns = now_ns() + job->limit_ms * UINT64_C(1000000);
    char host[64], *addrs = NULL;
    size_t n_open = 0;
    int r = rados_getaddrs(job->ticket.rados->cluster, &addrs);

    if (r < 0)
        return r;
    host_of(addrs, host, sizeof host);
    free(addrs);
    for (;;) {
        r = look_at_locks(job, host, &n_open);
        if (r < 0 || n_open == 0 || now_ns() > limit_ns)
            return r;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static int work_await_locks(struct gw_rados_job *job)
{
    struct gw_rados *rados = job->ticket.rados;
    size_t n_pools = 0;
    int r = 0;

    for (; r == 0 && n_pools < job->n_locks; n_pools += r == 0) {
        struct gw_rados_lock *lock = &job->locks[n_pools];

        r = gw_rados_pool(rados, lock->spec.pool, lock->spec.ns, &lock->io, &job->error);
    }
    if (r == 0) {
        r = poll_locks(job);
        if (r < 0)
            gw_rados_failed(rados, &job->error, r, "%s", job->what);
    }
    if (r == 0)
        job->facts = json_array();
    for (size_t i = 0; r == 0 && i < job->n_locks; i++)
        json_array_append_new(job->facts, json_integer((json_int_t)job->locks[i].held_ns));
    while (n_pools > 0)
        rados_ioctx_destroy(job->locks[--n_pools].io);
    return r;
}

int gw_rados_await_locks(struct gw_rados *rados, struct gw_rados_call *call,
                         const struct gw_rbd_spec *specs, const struct gw_rbd_lock *locks, size_t n,
                         unsigned limit_ms)
{
    struct gw_rados_job *job = gw_rados_job_new(rados, call, work_await_locks);
    int r = 0;

    if (!job)
        return -ENOMEM;
    job->locks = calloc(n, sizeof *job->locks);
    job->n_locks = n;
    job->limit_ms = limit_ms;
    snprintf(job->what, sizeof job->what, "look at the lock of RBD image %.255s", locks[0].spec);
    for (size_t i = 0; job->locks && r == 0 && i < n; i++) {
        struct gw_rados_lock *lock = &job->locks[i];

        lock->spec = specs[i];
        if ((size_t)snprintf(lock->oid, sizeof lock->oid, "rbd_header.%s", locks[i].image_id) >=
            sizeof lock->oid)
            r = -EINVAL;
    }
    if (job->locks && r == 0) {
        gw_rados_job_start(job);
        return 0;
    }
    r = job->locks ? r : -ENOMEM;
    free(job->locks);
    free(job);
    return r;
}
