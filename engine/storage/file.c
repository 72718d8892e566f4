/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owner records as names of empty files on a shared file system.
 *
 * STORE/UUID/EPOCH.RUN.TIME.NONCE.SUM.NODE is the record; there is one such file in STORE/UUID. The
 * primitive is rename(2) of that name, which consumes it:
 *   - Atomic: the server does it under its directory lock, so that of all swaps from one name one
 *     finds it and the others get ENOENT. A reader finds the old name or the new one. There is
 *     no content to tear, and on a full disk a name of the same length still fits.
 *   - Names never come back (epoch and nonce). So a request that was repeated, or that arrives
 *     after its sender gave up, does nothing once anybody swapped. Exclusive creation of EPOCH + 1
 *     by link(2) lacks this: after old epochs are tidied away a late link makes one of them again.
 *   - Lost answer: a repeated RENAME gets ENOENT although it was ours. So after any failure we
 *     look for our nonce: there, it was us; another name, not ours; still the old one, unknown.
 * Creation renames a prepared directory to UUID, which fails if that exists and is not empty.
 * Removal unlinks the exact name, and then the empty directory, which counts as no record.
 *
 * Caches. The server decides a rename by name, whatever the client has cached: an outdated cache
 * makes a swap lose or be unknown, never win. For reading, opening a directory asks the server for
 * its attributes (close-to-open), as does AT_STATX_FORCE_SYNC; a changed directory is read anew.
 * fsync of the directory makes the change durable; an NFS server does so before it answers.
 *
 * Needed: a POSIX rename, hence local disks, NFS v3 and v4 (exported sync, mounted without nocto,
 * better hard), CephFS, GFS2, OCFS2. Not SMB. Whoever can write there is trusted: the checksum
 * finds accidents, not forgeries. An unmounted directory looks like a store without records.
 */
#include "storage/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "storage/owner.h"
#include "util/cleanup.h"

enum {
    LISTING_BYTES = 32 * 1024, /* a directory with more is no record's */
    NAME_BYTES = 192,          /* 20 + 1 + 20 + 16 + 16 + 63 and five dots */
    LOOKS = 8,                 /* listings until one shows a single name */
    SWEEP_AGE_S = 24 * 3600,   /* a creation takes seconds; clocks may be off by hours */
};
#define TEMP_PREFIX ".new."

struct file_store {
    struct gw_store base;
    const struct gw_store_file_sys *sys;
    int root;
};

/* What stands in a VM's directory: the record, and the name that a change has to consume. */
struct place {
    int dir;
    char name[NAME_BYTES];
    struct gw_owner owner;
};

static void place_fini(struct place *place)
{
    gw_cleanup_close(&place->dir);
    place->dir = -1;
}

static struct file_store *file_of(struct gw_store *store)
{
    return gw_container_of(store, struct file_store, base);
}

/* Every call ends here, once. */
static int finish(struct gw_store_call *call, int result)
{
    call->done(call, result);
    return 0;
}

static int failed(struct gw_error *error, int sys, const char *what, const char *uuid)
{
    gw_error_set_sys(error, sys, "owner record of VM %s: %s", uuid, what);
    return -sys;
}

static int damaged(struct gw_error *error, const char *uuid, const char *why, const char *name)
{
    gw_error_set(error, GW_E_UNRESOLVED, "owner record of VM %s: %s \"%.*s\"", uuid, why,
                 NAME_BYTES, name);
    gw_error_hint(error, "stop the daemons, look which QEMU runs, and leave the one right name in "
                         "the directory");
    return GW_OWNER_DAMAGED;
}

static uint64_t fnv1a(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return hash;
}

/* The one way to write this record with this nonce. */
static void encode(const struct gw_owner *owner, uint64_t nonce, char name[NAME_BYTES])
{
    char head[64];
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    snprintf(head, sizeof head, "%020" PRIu64 ".%d.%020" PRIu64 ".%016" PRIx64, owner->epoch,
             owner->may_have_run, owner->updated_at_ms, nonce);
    sum = fnv1a(fnv1a(fnv1a(sum, owner->uuid), head), owner->node);
    snprintf(name, NAME_BYTES, "%s.%016" PRIx64 ".%s", head, sum, owner->node);
}

/* Believes a name only if writing its content again gives the same name. */
static bool decode(const char *name, const char *uuid, struct gw_owner *owner)
{
    char again[NAME_BYTES];
    uint64_t nonce, sum;
    unsigned run;

    memset(owner, 0, sizeof *owner);
    if (strlen(name) >= NAME_BYTES ||
        sscanf(name, "%20" SCNu64 ".%1u.%20" SCNu64 ".%16" SCNx64 ".%16" SCNx64 ".%63s",
               &owner->epoch, &run, &owner->updated_at_ms, &nonce, &sum, owner->node) != 6)
        return false;
    snprintf(owner->uuid, sizeof owner->uuid, "%s", uuid);
    owner->may_have_run = run;
    encode(owner, nonce, again);
    return strcmp(name, again) == 0 && gw_owner_ok(owner);
}

/* A name for the record that nobody else writes; stamps the time. */
static int encode_new(struct gw_owner *owner, char name[NAME_BYTES])
{
    struct timespec now;
    uint64_t nonce;

    if (getrandom(&nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce)
        return -EIO;
    clock_gettime(CLOCK_REALTIME, &now);
    owner->updated_at_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    encode(owner, nonce, name);
    return 0;
}

/* Asks the server, not the cache, whether the directory has changed. */
static int refresh(int dir)
{
    struct statx st;

    if (lseek(dir, 0, SEEK_SET) < 0)
        return -errno;
    return statx(dir, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st) < 0 ? -errno
                                                                                           : 0;
}

/* Takes the names of one getdents(2) answer: how many records were in it (place has the last), or
 * -EBADMSG. Names with a dot in front belong to the file system (.nfs…, .snapshot) or to nobody. */
static int take_names(struct place *place, const char *uuid, const char *buffer, ssize_t len,
                      struct gw_error *error)
{
    const struct dirent64 *entry;
    int n_records = 0;

    for (ssize_t at = 0; at < len; at += entry->d_reclen) {
        entry = (const struct dirent64 *)(buffer + at);
        if (entry->d_name[0] == '.')
            continue;
        if (!decode(entry->d_name, uuid, &place->owner)) {
            damaged(error, uuid, "a foreign or broken name is there:", entry->d_name);
            return -EBADMSG;
        }
        memcpy(place->name, entry->d_name, strlen(entry->d_name) + 1);
        n_records++;
    }
    return n_records;
}

/* One listing. How many records are in it (place has the last); -EBADMSG: damaged; or -errno. */
static int list(struct place *place, const char *uuid, struct gw_error *error)
{
    _Alignas(struct dirent64) char buffer[4096];
    int n_records = 0, n, r = refresh(place->dir);
    ssize_t len, total = 0;

    if (r < 0)
        return failed(error, -r, "list its directory", uuid);
    while ((len = getdents64(place->dir, buffer, sizeof buffer)) > 0) {
        n = take_names(place, uuid, buffer, len, error);
        if (n < 0)
            return n;
        n_records += n;
        total += len;
        if (total > LISTING_BYTES) {
            damaged(error, uuid, "too many names in directory", uuid);
            return -EBADMSG;
        }
    }
    return len < 0 ? failed(error, errno, "list its directory", uuid) : n_records;
}

/* The VM's directory, or -1 with errno. That it is not there may be a memory of the client's. */
static int open_vm(struct file_store *store, const char *uuid)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int dir = openat(store->root, uuid, flags), r;

    if (dir >= 0 || errno != ENOENT)
        return dir;
    r = refresh(store->root);
    if (r < 0) {
        errno = -r;
        return -1;
    }
    return openat(store->root, uuid, flags);
}

/*
 * Finds the record: 0 with *place, which the caller finishes in any case; ABSENT, DAMAGED, -errno.
 * A listing that a rename overtook may show no name or two where the file system reads in pieces.
 */
static int look(struct file_store *store, const char *uuid, struct place *place,
                struct gw_error *error)
{
    int n = 0;

    place->dir = open_vm(store, uuid);
    if (place->dir < 0 && errno == ENOENT)
        return GW_OWNER_ABSENT;
    if (place->dir < 0 && (errno == ELOOP || errno == ENOTDIR))
        return damaged(error, uuid, "not a directory:", uuid);
    if (place->dir < 0)
        return failed(error, errno, "open its directory", uuid);
    for (int i = 0; i < LOOKS; i++) {
        n = list(place, uuid, error);
        if (n == 1)
            return 0;
        if (n < 0)
            return n == -EBADMSG ? GW_OWNER_DAMAGED : n;
    }
    return n == 0 ? GW_OWNER_ABSENT : damaged(error, uuid, "several records, one is", place->name);
}

static int sync_dir(struct file_store *store, int dir, const char *uuid, struct gw_error *error)
{
    return store->sys->fsync(dir) < 0 ? failed(error, errno, "sync its directory", uuid) : 0;
}

/* look() whose finding no crash of the server can take back. */
static int look_durably(struct file_store *store, const char *uuid, struct place *place,
                        struct gw_error *error)
{
    int r = look(store, uuid, place, error);
    int synced = r == 0 ? sync_dir(store, place->dir, uuid, error) : 0;

    return synced < 0 ? synced : r;
}

/*
 * After a rename or unlink that failed with sys: what is true now? was: the name that was to be
 * consumed, or ""; ours: the name that was to be made, or "".
 */
static int settle(struct file_store *store, struct gw_store_call *call, const char *uuid,
                  const char *was, const char *ours, int sys)
{
    struct place place = {.dir = -1};
    int r = look_durably(store, uuid, &place, &call->error);

    if (r == 0) {
        call->current = place.owner;
        if (strcmp(place.name, was) == 0)
            r = failed(&call->error, sys == ENOENT ? ESTALE : sys, "change it", uuid);
        else if (strcmp(place.name, ours) != 0)
            r = GW_OWNER_CONFLICT;
    }
    place_fini(&place);
    return r;
}

static int do_read(struct gw_store *store, struct gw_store_call *call, const char *uuid)
{
    struct place place = {.dir = -1};
    int r;

    if (!gw_owner_uuid_ok(uuid))
        return -EINVAL;
    r = look_durably(file_of(store), uuid, &place, &call->error);
    if (r == 0)
        call->current = place.owner;
    place_fini(&place);
    return finish(call, r);
}

/* Whether the record is the one that the caller knows: 0, CONFLICT, or -ESTALE if what we see is
 * older than what the caller saw: a cache, or a store that came back from a backup. */
static int compare(const struct gw_owner *found, const struct gw_owner *from,
                   struct gw_store_call *call)
{
    call->current = *found;
    if (found->epoch < from->epoch)
        return failed(&call->error, ESTALE, "an older one than known is there", from->uuid);
    return found->epoch == from->epoch && strcmp(found->node, from->node) == 0 ? 0
                                                                               : GW_OWNER_CONFLICT;
}

static int swap_at(struct file_store *store, struct gw_store_call *call, struct place *place,
                   struct gw_owner *to)
{
    char name[NAME_BYTES];
    int r;

    if (place->owner.may_have_run && !to->may_have_run && strcmp(place->owner.node, to->node) == 0)
        return failed(&call->error, EINVAL, "erase in place that its owner may have run", to->uuid);
    r = encode_new(to, name);
    if (r < 0)
        return failed(&call->error, -r, "get random bytes", to->uuid);
    if (store->sys->renameat(place->dir, place->name, place->dir, name) < 0)
        return settle(store, call, to->uuid, place->name, name, errno);
    call->current = *to;
    return sync_dir(store, place->dir, to->uuid, &call->error);
}

static int do_swap(struct gw_store *store, struct gw_store_call *call, const struct gw_owner *from,
                   const struct gw_owner *to)
{
    struct place place = {.dir = -1};
    struct gw_owner known = *from, next = *to;
    int r;

    if (!gw_owner_ok(from) || !gw_owner_node_ok(to->node))
        return -EINVAL;
    if (from->epoch == UINT64_MAX)
        return -EOVERFLOW;
    next.epoch = known.epoch + 1;
    memcpy(next.uuid, known.uuid, sizeof next.uuid);
    r = look(file_of(store), known.uuid, &place, &call->error);
    if (r == 0)
        r = compare(&place.owner, &known, call);
    if (r == 0)
        r = swap_at(file_of(store), call, &place, &next);
    place_fini(&place);
    return finish(call, r);
}

/* Makes STORE/TEMP with the record in it, durable. */
static int prepare(struct file_store *store, const char *temp, const char *name)
{
    gw_autoclose int dir = -1;
    gw_autoclose int fd = -1;

    if (store->sys->mkdirat(store->root, temp, 0700) < 0)
        return -errno;
    dir = openat(store->root, temp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || store->sys->fsync(fd) < 0 || store->sys->fsync(dir) < 0)
        return -errno;
    return 0;
}

/* Only for a directory that was certainly not renamed: with a client's cache its old name could
 * still lead to the record. What is left is for the sweep. */
static void discard(struct file_store *store, const char *temp, const char *name)
{
    char path[sizeof TEMP_PREFIX + 16 + 1 + NAME_BYTES];

    snprintf(path, sizeof path, "%s/%s", temp, name);
    store->sys->unlinkat(store->root, path, 0);
    store->sys->unlinkat(store->root, temp, AT_REMOVEDIR);
}

static int create_new(struct file_store *store, struct gw_store_call *call, struct gw_owner *owner)
{
    char name[NAME_BYTES], temp[sizeof TEMP_PREFIX + 16];
    uint64_t nonce;
    int r, sys;

    if (getrandom(&nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce || encode_new(owner, name) < 0)
        return failed(&call->error, EIO, "get random bytes", owner->uuid);
    snprintf(temp, sizeof temp, TEMP_PREFIX "%016" PRIx64, nonce);
    r = prepare(store, temp, name);
    if (r < 0) {
        discard(store, temp, name);
        return failed(&call->error, -r, "prepare it", owner->uuid);
    }
    if (store->sys->renameat(store->root, temp, store->root, owner->uuid) < 0) {
        sys = errno;
        r = settle(store, call, owner->uuid, "", name, sys);
        if (r != 0 && (sys == EEXIST || sys == ENOTEMPTY))
            discard(store, temp, name);
        if (r == GW_OWNER_ABSENT)
            return failed(&call->error, sys, "create it", owner->uuid);
        if (r != 0)
            return r;
    }
    call->current = *owner;
    return sync_dir(store, store->root, owner->uuid, &call->error);
}

static int do_create(struct gw_store *store, struct gw_store_call *call,
                     const struct gw_owner *owner)
{
    struct place place = {.dir = -1};
    struct gw_owner first = *owner;
    int r;

    if (!gw_owner_ok(owner))
        return -EINVAL;
    r = look(file_of(store), first.uuid, &place, &call->error);
    if (r == 0) {
        call->current = place.owner;
        r = GW_OWNER_CONFLICT;
    } else if (r == GW_OWNER_ABSENT) {
        r = create_new(file_of(store), call, &first);
    }
    place_fini(&place);
    return finish(call, r);
}

static int remove_at(struct file_store *store, struct gw_store_call *call, struct place *place,
                     const char *uuid)
{
    int r = 0;

    if (store->sys->unlinkat(place->dir, place->name, 0) < 0)
        r = settle(store, call, uuid, place->name, "", errno);
    else
        r = sync_dir(store, place->dir, uuid, &call->error);
    if (r ==
        GW_OWNER_ABSENT) /* it stood there a moment ago: this was our lost answer, or as good */
        r = 0;
    if (r == 0 && store->sys->unlinkat(store->root, uuid, AT_REMOVEDIR) == 0)
        r = sync_dir(store, store->root, uuid, &call->error);
    return r; /* a directory that stays is empty, or already has the next record */
}

static int do_remove(struct gw_store *store, struct gw_store_call *call,
                     const struct gw_owner *owner)
{
    struct place place = {.dir = -1};
    struct gw_owner known = *owner;
    int r;

    if (!gw_owner_ok(owner))
        return -EINVAL;
    r = look(file_of(store), known.uuid, &place, &call->error);
    if (r == 0)
        r = compare(&place.owner, &known, call);
    if (r == 0)
        r = remove_at(file_of(store), call, &place, known.uuid);
    place_fini(&place);
    return finish(call, r);
}

static void sweep_one(struct file_store *store, const char *temp)
{
    int fd = openat(store->root, temp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    struct stat st;

    if (!dir) {
        gw_cleanup_close(&fd);
        return;
    }
    if (fstat(fd, &st) == 0 && st.st_mtime < time(NULL) - SWEEP_AGE_S) {
        while ((entry = readdir(dir)))
            if (entry->d_name[0] != '.')
                store->sys->unlinkat(fd, entry->d_name, 0);
        store->sys->unlinkat(store->root, temp, AT_REMOVEDIR);
    }
    closedir(dir);
}

static int do_sweep(struct gw_store *store, struct gw_store_call *call)
{
    struct file_store *file = file_of(store);
    int fd = openat(file->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    int r = dir ? 0 : -errno;

    if (!dir) {
        gw_cleanup_close(&fd);
        gw_error_set_sys(&call->error, -r, "list the store of owner records");
        return finish(call, r);
    }
    while ((entry = readdir(dir)))
        if (strncmp(entry->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX)) == 0)
            sweep_one(file, entry->d_name);
    closedir(dir);
    return finish(call, 0);
}

static void do_close(struct gw_store *store)
{
    struct file_store *file = file_of(store);

    close(file->root);
    free(file);
}

static const struct gw_store_ops file_ops = {
    .name = "file",
    .caps = GW_STORE_BLOCKS,
    .read = do_read,
    .create = do_create,
    .swap = do_swap,
    .remove = do_remove,
    .sweep = do_sweep,
    .close = do_close,
};

static const struct gw_store_file_sys real_sys = {
    .renameat = renameat,
    .unlinkat = unlinkat,
    .mkdirat = mkdirat,
    .fsync = fsync,
};

int gw_store_file_open(const char *directory, const struct gw_store_file_sys *sys,
                       struct gw_store **storep, struct gw_error *error)
{
    gw_autoclose int root = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct file_store *store;
    struct stat st;

    if (root < 0 || fstat(root, &st) < 0)
        return gw_error_set_sys(error, errno, "open the store of owner records %s", directory);
    if (st.st_mode & S_IWOTH) {
        gw_error_set(error, GW_E_CONFIG, "store of owner records %s: all users may write there",
                     directory);
        return gw_error_hint(error, "chmod o-w %s", directory);
    }
    store = calloc(1, sizeof *store);
    if (!store)
        return gw_error_set_sys(error, ENOMEM, "open the store of owner records %s", directory);
    store->base.ops = &file_ops;
    store->sys = sys ? sys : &real_sys;
    store->root = gw_steal_fd(&root);
    *storep = &store->base;
    return 0;
}
