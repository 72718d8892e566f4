/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "../conformance/store.h"
#include "storage/file.h"
#include "util/cleanup.h"

#define VM "11111111-2222-3333-4444-555555555555"

static char dir[64];
static struct gw_store *store;
static struct store_wait w;

/* ---- faults: at the n-th changing system call ---- */

static enum fault { NONE, LOST_ANSWER, REFUSED, LATE, CRASH_BEFORE, CRASH_AFTER } fault;
static int countdown; /* calls until the fault; counts on below 0 */
static int fault_errno;
static char late_from[300], late_to[300]; /* a request that is still on its way */

/* Around one system call: whether to skip it, and what to say afterwards. */
static bool before(void)
{
    bool now = --countdown == 0;

    if (now && fault == CRASH_BEFORE)
        _exit(7);
    return now && (fault == REFUSED || fault == LATE);
}

static int after(int result)
{
    if (countdown != 0 || fault == NONE)
        return result;
    if (fault == CRASH_AFTER)
        _exit(7);
    errno = fault_errno;
    return -1;
}

static int faulty_renameat(int a, const char *from, int b, const char *to)
{
    if (!before())
        return after(renameat(a, from, b, to));
    snprintf(late_from, sizeof late_from, "%s/" VM "/%s", dir, from);
    snprintf(late_to, sizeof late_to, "%s/" VM "/%s", dir, to);
    return after(0);
}

static int faulty_unlinkat(int at, const char *name, int flags)
{
    return after(before() ? 0 : unlinkat(at, name, flags));
}

static int faulty_mkdirat(int at, const char *name, mode_t mode)
{
    return after(before() ? 0 : mkdirat(at, name, mode));
}

static int faulty_fsync(int fd)
{
    return after(before() ? 0 : fsync(fd));
}

static const struct gw_store_file_sys faulty = {faulty_renameat, faulty_unlinkat, faulty_mkdirat,
                                                faulty_fsync};

static void arm(enum fault what, int at, int with)
{
    fault = what;
    countdown = at;
    fault_errno = with;
}

static int n_names(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;

    if (!d)
        return -1;
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static int setup(void **state)
{
    (void)state;
    arm(NONE, 0, 0);
    strcpy(dir, "/tmp/gw-store-XXXXXX");
    return mkdtemp(dir) ? gw_store_file_open(dir, &faulty, &store, NULL) : -1;
}

static int teardown(void **state)
{
    char command[100];

    (void)state;
    store->ops->close(store);
    umount2(dir, MNT_DETACH); /* where disk_full failed */
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void make(void)
{
    assert_int_equal(store_create(store, &w, VM, "a", 1, true), 0);
}

static void is(const char *node, uint64_t epoch)
{
    arm(NONE, 0, 0);
    assert_int_equal(store_read(store, &w, VM), 0);
    assert_string_equal(w.call.current.node, node);
    assert_int_equal(w.call.current.epoch, epoch);
}

static void keeps_the_contract(void **state)
{
    (void)state;
    store_conformance(store);
    assert_int_equal(n_names(dir), 0);
}

static void lost_answers(void **state)
{
    (void)state;
    arm(LOST_ANSWER, 4, ENOENT); /* mkdir, fsync, fsync, rename: done, but a repeat finds nothing */
    make();
    is("a", 1);
    arm(LOST_ANSWER, 1, ENOENT);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), 0);
    assert_string_equal(w.call.current.node, "b");
    is("b", 2);
    arm(LOST_ANSWER, 1, ETIMEDOUT);
    assert_int_equal(store_swap(store, &w, VM, "b", 2, "b", true), 0);
    is("b", 3);
    arm(LOST_ANSWER, 1, ENOENT);
    assert_int_equal(store_remove(store, &w, VM, "b", 3), 0);
    assert_int_equal(n_names(dir), 0);
}

/* The answer never came, and the request arrives when somebody else has swapped: no effect. */
static void late_request_loses(void **state)
{
    (void)state;
    make();
    arm(LATE, 1, ETIMEDOUT);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), -ETIMEDOUT);
    is("a", 1);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "a", true), 0);
    assert_int_equal(rename(late_from, late_to), -1);
    assert_int_equal(errno, ENOENT);
    is("a", 2);
}

static void late_request_arrives_first(void **state)
{
    (void)state;
    make();
    arm(LATE, 1, EIO);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), -EIO);
    assert_int_equal(rename(late_from, late_to), 0);
    arm(NONE, 0, 0);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "a", true), GW_OWNER_CONFLICT);
    is("b", 2);
}

static void unsynced_is_unknown(void **state)
{
    (void)state;
    make();
    arm(REFUSED, 2, EIO); /* the rename, then the fsync */
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), -EIO);
    arm(REFUSED, 1, EIO);
    assert_int_equal(store_read(store, &w, VM), -EIO);
    is("b", 2);
}

/* One operation in a child that dies at the n-th system call; whether it still died. */
static bool dies(int op, enum fault how, int n)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        arm(how, n, 0);
        if (op == 0)
            store_create(store, &w, VM, "a", 1, true);
        else if (op == 1)
            store_swap(store, &w, VM, "a", 1, "b", false);
        else
            store_remove(store, &w, VM, "a", 1);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7));
    return WEXITSTATUS(status) == 7;
}

/* After a crash anywhere: the old record or the new one, and the work can go on. */
static void old_or_new(int op)
{
    int r = store_read(store, &w, VM);

    if (op == 1)
        assert_int_equal(r, 0);
    else
        assert_true(r == 0 || r == GW_OWNER_ABSENT);
    if (r == 0)
        assert_true(
            (strcmp(w.call.current.node, "a") == 0 && w.call.current.epoch == 1) ||
            (op == 1 && strcmp(w.call.current.node, "b") == 0 && w.call.current.epoch == 2));
    if (r == GW_OWNER_ABSENT)
        assert_int_equal(store_create(store, &w, VM, "c", 5, false), 0);
    assert_int_equal(store_read(store, &w, VM), 0);
    struct gw_owner now = w.call.current;
    assert_int_equal(store_remove(store, &w, VM, now.node, now.epoch), 0);
}

static void crash_anywhere(void **state)
{
    int n_crashes = 0;

    (void)state;
    for (int op = 0; op < 3; op++)
        for (enum fault how = CRASH_BEFORE; how <= CRASH_AFTER; how++)
            for (int n = 1;; n++) {
                bool died;

                if (op > 0)
                    make();
                died = dies(op, how, n);
                old_or_new(op);
                n_crashes += died;
                if (!died)
                    break;
            }
    assert_true(n_crashes >= 2 * (5 + 2 + 4));
}

static void sweeps_only_old_leftovers(void **state)
{
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    char path[600];
    DIR *d;

    (void)state;
    make();
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), 0);
    assert_int_equal(store_remove(store, &w, VM, "b", 2), 0);
    assert_true(dies(0, CRASH_BEFORE, 4));
    assert_int_equal(n_names(dir), 1);
    arm(NONE, 0, 0);
    assert_int_equal(store->ops->sweep(store, &w.call), 0);
    assert_int_equal(n_names(dir), 1);
    d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        if (strncmp(e->d_name, ".new.", 5) == 0) {
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
        }
    closedir(d);
    assert_int_equal(store->ops->sweep(store, &w.call), 0);
    assert_int_equal(w.result, 0);
    assert_int_equal(n_names(dir), 0);
}

static void put(const char *name)
{
    char path[600];
    int fd;

    snprintf(path, sizeof path, "%s/" VM "/%s", dir, name);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void the_name(char *name, size_t size)
{
    char path[200];
    DIR *d;

    snprintf(path, sizeof path, "%s/" VM, dir);
    d = opendir(path);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            snprintf(name, size, "%s", e->d_name);
    closedir(d);
}

/* No byte of the one name may change without notice. */
static void broken_alone(const char *name)
{
    char bad[300], from[700], to[700];

    for (size_t i = 0; i < strlen(name); i++) {
        strcpy(bad, name);
        bad[i] = bad[i] == '1' ? '2' : '1';
        snprintf(from, sizeof from, "%s/" VM "/%s", dir, name);
        snprintf(to, sizeof to, "%s/" VM "/%s", dir, bad);
        assert_int_equal(rename(from, to), 0);
        assert_int_equal(store_read(store, &w, VM), GW_OWNER_DAMAGED);
        assert_int_equal(rename(to, from), 0);
    }
}

static void garbage_is_refused(void **state)
{
    char name[300], bad[300], path[700];

    (void)state;
    make();
    the_name(name, sizeof name);
    for (size_t i = 0; i <= strlen(name); i++) { /* each byte flipped, and one more */
        strcpy(bad, name);
        bad[i] = bad[i] == '1' ? '2' : '1';
        bad[i == strlen(name) ? i + 1 : strlen(name)] = '\0';
        put(bad);
        assert_int_equal(store_read(store, &w, VM), GW_OWNER_DAMAGED);
        assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), GW_OWNER_DAMAGED);
        assert_int_equal(store_create(store, &w, VM, "b", 1, false), GW_OWNER_DAMAGED);
        assert_true(strlen(w.call.error.hint) > 0);
        snprintf(path, sizeof path, "%s/" VM "/%s", dir, bad);
        assert_int_equal(unlink(path), 0);
    }
    broken_alone(name);
    put(".nfs000000001"); /* the file system's own */
    is("a", 1);
    for (int i = 0; i < 2000; i++) {
        snprintf(bad, sizeof bad, ".junk-that-has-a-rather-long-name-%d", i);
        put(bad);
    }
    assert_int_equal(store_read(store, &w, VM), GW_OWNER_DAMAGED);
}

static void two_records_are_none(void **state)
{
    char name[300], path[700], aside[100];

    (void)state;
    make();
    the_name(name, sizeof name);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), 0);
    put(name); /* somebody restored a backup */
    assert_int_equal(store_read(store, &w, VM), GW_OWNER_DAMAGED);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "a", true), GW_OWNER_DAMAGED);
    snprintf(path, sizeof path, "%s/" VM, dir);
    snprintf(aside, sizeof aside, "%s/.aside", dir);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink(".aside", path), 0);
    assert_int_equal(store_read(store, &w, VM), GW_OWNER_DAMAGED);
}

static void no_public_directory(void **state)
{
    struct gw_store *other = NULL;
    struct gw_error error;

    (void)state;
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(gw_store_file_open(dir, NULL, &other, &error), -1);
    assert_int_equal(error.code, GW_E_CONFIG);
    assert_int_equal(gw_store_file_open("/nonexistent", NULL, &other, &error), -1);
    assert_int_equal(error.sys, ENOENT);
}

/* ---- a race ---- */

enum { N_RACERS = 6, N_EPOCHS = 2000 };
struct arena {
    unsigned char n_winners[N_EPOCHS + 2];
    int n_odd; /* results that there should not be */
};

/* One daemon of a node: swaps whatever it sees to itself, and counts what it won. */
static void race(const char *node, struct arena *arena)
{
    struct gw_store *mine;
    uint64_t epoch = 1;
    int r;

    if (gw_store_file_open(dir, NULL, &mine, NULL) < 0)
        _exit(1);
    while (store_read(mine, &w, VM) == 0 && (epoch = w.call.current.epoch) <= N_EPOCHS) {
        struct gw_owner seen = w.call.current;

        r = store_swap(mine, &w, VM, seen.node, epoch, node, true);
        if (r == 0)
            __atomic_add_fetch(&arena->n_winners[epoch], 1, __ATOMIC_SEQ_CST);
        else if (r != GW_OWNER_CONFLICT)
            __atomic_add_fetch(&arena->n_odd, 1, __ATOMIC_SEQ_CST);
    }
    _exit(epoch > N_EPOCHS ? 0 : 1);
}

static void one_winner_each_epoch(void **state)
{
    struct arena *arena =
        mmap(NULL, sizeof *arena, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;

    (void)state;
    assert_true(arena != MAP_FAILED);
    make();
    for (int i = 0; i < N_RACERS; i++) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
            race(i % 2 ? "b" : "a", arena);
    }
    for (int i = 0; i < N_RACERS; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    for (int e = 1; e <= N_EPOCHS; e++)
        assert_int_equal(arena->n_winners[e], 1);
    assert_int_equal(arena->n_odd, 0);
    munmap(arena, sizeof *arena);
}

/* All at once: one makes the record, the others are told about it, and nothing is left over. */
static void one_creator(void **state)
{
    int gate[2], status, n_made;

    (void)state;
    for (int round = 0; round < 20; round++) {
        assert_int_equal(pipe(gate), 0);
        for (int i = 0; i < N_RACERS; i++)
            if (fork() == 0) {
                char byte;

                close(gate[1]);
                (void)!read(gate[0], &byte, 1); /* until the parent closes it */
                _exit(store_create(store, &w, VM, "a", 1, true));
            }
        close(gate[0]);
        close(gate[1]);
        n_made = 0;
        for (int i = 0; i < N_RACERS; i++) {
            assert_true(wait(&status) > 0);
            assert_true(status == 0 || WEXITSTATUS(status) == GW_OWNER_CONFLICT);
            n_made += status == 0;
        }
        assert_int_equal(n_made, 1);
        assert_int_equal(n_names(dir), 1);
        assert_int_equal(store_remove(store, &w, VM, "a", 1), 0);
    }
}

/* Another node creates the record while we prepare ours. */
static int overtaken_mkdirat(int at, const char *name, mode_t mode)
{
    struct gw_store *other;
    struct store_wait theirs;

    assert_int_equal(gw_store_file_open(dir, NULL, &other, NULL), 0);
    assert_int_equal(store_create(other, &theirs, VM, "b", 1, true), 0);
    other->ops->close(other);
    return mkdirat(at, name, mode);
}

static void failed_creations_tidy_up(void **state)
{
    struct gw_store_file_sys overtaken = {renameat, unlinkat, overtaken_mkdirat, fsync};
    struct gw_store *ours;

    (void)state;
    for (int at = 1; at <= 3; at++) {
        arm(REFUSED, at, EIO);
        assert_int_equal(store_create(store, &w, VM, "a", 1, true), -EIO);
        assert_int_equal(n_names(dir), 0);
    }
    assert_int_equal(gw_store_file_open(dir, &overtaken, &ours, NULL), 0);
    assert_int_equal(store_create(ours, &w, VM, "a", 1, true), GW_OWNER_CONFLICT);
    assert_string_equal(w.call.current.node, "b");
    ours->ops->close(ours);
    assert_int_equal(n_names(dir), 1);
    is("b", 1);
}

static void disk_full(void **state)
{
    char path[100];
    int fd, n = 0;

    (void)state;
    store->ops->close(store);
    if (mount("none", dir, "tmpfs", 0, "size=64k,nr_inodes=16,mode=700") < 0) {
        assert_int_equal(gw_store_file_open(dir, &faulty, &store, NULL), 0);
        skip();
    }
    assert_int_equal(gw_store_file_open(dir, &faulty, &store, NULL), 0);
    make();
    do {
        snprintf(path, sizeof path, "%s/.fill%d", dir, n++);
        fd = open(path, O_CREAT | O_WRONLY, 0600);
    } while (fd >= 0 && close(fd) == 0);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(store_create(store, &w,
                                  "2"
                                  "1111111-2222-3333-4444-555555555555",
                                  "a", 1, 0),
                     -ENOSPC);
    assert_non_null(strstr(w.call.error.msg, "No space"));
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), 0); /* a commit needs none */
    is("b", 2);
    store->ops->close(store);
    assert_int_equal(umount(dir), 0);
    assert_int_equal(gw_store_file_open(dir, &faulty, &store, NULL), 0);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* A figure to look at, not a promise: disks differ. */
static void how_long_a_swap_takes(void **state)
{
    double us[200];

    (void)state;
    make();
    for (int i = 0; i < 200; i++) {
        struct timespec t0, t1;

        clock_gettime(CLOCK_MONOTONIC, &t0);
        assert_int_equal(store_swap(store, &w, VM, "a", (uint64_t)i + 1, "a", true), 0);
        clock_gettime(CLOCK_MONOTONIC, &t1);
        us[i] = (double)(t1.tv_sec - t0.tv_sec) * 1e6 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e3;
    }
    qsort(us, 200, sizeof us[0], by_value);
    print_message("a swap takes %.0f us (median of 200; 99 %%: %.0f us)\n", us[100], us[198]);
}

int main(void)
{
#define WITH_STORE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_STORE(keeps_the_contract),        WITH_STORE(lost_answers),
        WITH_STORE(late_request_loses),        WITH_STORE(late_request_arrives_first),
        WITH_STORE(unsynced_is_unknown),       WITH_STORE(crash_anywhere),
        WITH_STORE(sweeps_only_old_leftovers), WITH_STORE(garbage_is_refused),
        WITH_STORE(two_records_are_none),      WITH_STORE(no_public_directory),
        WITH_STORE(one_winner_each_epoch),     WITH_STORE(one_creator),
        WITH_STORE(failed_creations_tidy_up),  WITH_STORE(disk_full),
        WITH_STORE(how_long_a_swap_takes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
