/* SPDX-License-Identifier: Apache-2.0 */
/* Owner records in a real Ceph; tests/lib/ceph_cluster.py makes one and runs this in it. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <rados/librados.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "../conformance/store.h"
#include "storage/rados.h"
#include "storage/rados_record.h"
#include "util/cleanup.h"

#define VM "11111111-2222-3333-4444-555555555555"

enum { TIMEOUT_MS = 3000, PATIENCE_MS = 60000 };

static struct gw_rados *rados;
static struct gw_store *store;
static struct store_wait w;

/* The store answers on its own threads: look until it did. */
static void look_again(void)
{
    struct timespec pause = {.tv_nsec = 20000};

    nanosleep(&pause, NULL);
}

static struct gw_rados *connect_as(const char *user, unsigned timeout_ms)
{
    struct gw_rados_options options = {.user = user, .timeout_ms = timeout_ms};
    struct gw_rados *made = NULL;
    struct gw_error error = {0};

    if (gw_rados_open(&options, &made, &error) < 0)
        fail_msg("%s (%s)", error.msg, error.hint);
    return made;
}

static struct gw_store *store_in(struct gw_rados *connection)
{
    struct gw_store *made = NULL;

    assert_int_equal(gw_store_rados_open(connection, "rbd", &made, NULL), 0);
    return made;
}

static pid_t pid_of(const char *variable)
{
    const char *text = getenv(variable);

    assert_non_null(text);
    return (pid_t)atoi(text);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* What the cluster's own tool does with the objects. */
__attribute__((format(printf, 1, 2))) static void tool(const char *format, ...)
{
    char command[512];
    va_list ap;

    va_start(ap, format);
    vsnprintf(command, sizeof command, format, ap);
    va_end(ap);
    if (system(command) != 0)
        fail_msg("%s", command);
}

static int setup(void **state)
{
    (void)state;
    rados = connect_as("godwit", TIMEOUT_MS);
    store = store_in(rados);
    store_wait_hook = look_again;
    return 0;
}

/* Leaves no record behind, whatever the test came to. */
static int teardown(void **state)
{
    (void)state;
    kill(pid_of("GW_CEPH_OSD_PID"), SIGCONT);
    kill(pid_of("GW_CEPH_MON_PID"), SIGCONT);
    store->ops->close(store);
    gw_rados_close(rados);
    return system("rados -p rbd -N godwit rm owner." VM " 2>/dev/null") < 0;
}

static void make(void)
{
    assert_int_equal(store_create(store, &w, VM, "a", 1, true), 0);
}

static void is(const char *node, uint64_t epoch)
{
    assert_int_equal(store_read(store, &w, VM), 0);
    assert_string_equal(w.call.current.node, node);
    assert_int_equal(w.call.current.epoch, epoch);
}

static void keeps_the_contract(void **state)
{
    (void)state;
    store_conformance(store);
}

/* ---- damage ---- */

static void put(const char *bytes, size_t len)
{
    char path[] = "/tmp/gw-record-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
    tool("rados -p rbd -N godwit put owner." VM " %s", path);
    unlink(path);
}

/* Nothing that encode does not write is believed, and what is not believed is never changed where
 * the caller's own words do not match. */
static void garbage_is_refused(void **state)
{
    struct gw_owner owner = {.uuid = VM, .node = "a", .epoch = 1, .may_have_run = true};
    char line[GW_RADOS_RECORD_BYTES + 1];

    (void)state;
    gw_rados_record_encode(&owner, 7, line);
    put(line, GW_RADOS_RECORD_BYTES);
    is("a", 1);
    line[10] = '2';
    put(line, GW_RADOS_RECORD_BYTES);
    assert_int_equal(store_read(store, &w, VM), GW_OWNER_DAMAGED);
    assert_true(strlen(w.call.error.hint) > 0);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), GW_OWNER_DAMAGED);
    assert_int_equal(store_create(store, &w, VM, "b", 1, false), GW_OWNER_DAMAGED);
    assert_int_equal(store_remove(store, &w, VM, "a", 1), GW_OWNER_DAMAGED);
    put("", 0);
    assert_int_equal(store_read(store, &w, VM), GW_OWNER_DAMAGED);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), GW_OWNER_DAMAGED);
}

/* ---- who may ---- */

static void unreachable(const struct gw_rados_options *options, int result, const char *words)
{
    struct gw_rados *other;
    struct gw_store *theirs;

    assert_int_equal(gw_rados_open(options, &other, NULL), 0);
    theirs = store_in(other);
    assert_int_equal(store_read(theirs, &w, VM), result);
    if (!strstr(w.call.error.msg, words) && !strstr(w.call.error.hint, words))
        fail_msg("no '%s' in '%s' (%s)", words, w.call.error.msg, w.call.error.hint);
    theirs->ops->close(theirs);
    gw_rados_close(other);
}

static void says_what_is_missing(void **state)
{
    struct gw_rados_options nowhere = {.conf = "/nonexistent/ceph.conf"};
    struct gw_rados_options no_keyring = {.keyring = "/nonexistent/keyring"};
    struct gw_rados_options nobody = {.user = "nobody-knows"};
    struct gw_rados *other = connect_as("reader", TIMEOUT_MS);
    struct gw_store *theirs = store_in(other);

    (void)state;
    make();
    assert_int_equal(store_read(theirs, &w, VM), 0);
    assert_int_equal(store_swap(theirs, &w, VM, "a", 1, "b", false), -EPERM);
    assert_int_equal(w.call.error.code, GW_E_PERMISSION);
    assert_non_null(strstr(w.call.error.hint, "client.reader"));
    theirs->ops->close(theirs);
    assert_int_equal(gw_store_rados_open(other, "no-such-pool", &theirs, NULL), 0);
    assert_int_equal(store_read(theirs, &w, VM), -ENOENT);
    assert_non_null(strstr(w.call.error.msg, "no-such-pool"));
    theirs->ops->close(theirs);
    gw_rados_close(other);

    unreachable(&nowhere, -ENOENT, "/nonexistent/ceph.conf");
    unreachable(&no_keyring, -ENOENT, "has no keyring here");
    unreachable(&nobody, -EACCES, "client.nobody-knows");
}

/* ---- a cluster that does not answer ---- */

static void in_time(uint64_t began_us, uint64_t limit_ms)
{
    uint64_t took_ms = (now_us() - began_us) / 1000;

    if (took_ms < limit_ms - 50 || took_ms > limit_ms + 2000)
        fail_msg("it took %d ms instead of %d", (int)took_ms, (int)limit_ms);
}

/* The one way to settle a swap in doubt is another one; whoever wins, only one does. */
static void settle(void)
{
    int r = store_swap(store, &w, VM, "a", 1, "a", true);

    assert_true(r == 0 || r == GW_OWNER_CONFLICT);
    print_message("the swap in doubt %s\n", r == 0 ? "did not happen" : "had happened");
    is(r == 0 ? "a" : "b", 2);
}

static void osd_paused_at_the_commit(void **state)
{
    uint64_t began;

    (void)state;
    make();
    assert_int_equal(kill(pid_of("GW_CEPH_OSD_PID"), SIGSTOP), 0);
    began = now_us();
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), -ETIMEDOUT);
    in_time(began, TIMEOUT_MS);
    assert_int_equal(w.call.error.code, GW_E_TIMEOUT);
    assert_true(strlen(w.call.error.hint) > 0);
    began = now_us();
    assert_int_equal(store_read(store, &w, VM), -ETIMEDOUT);
    in_time(began, TIMEOUT_MS);
    assert_int_equal(kill(pid_of("GW_CEPH_OSD_PID"), SIGCONT), 0);
    settle();
}

/* The monitor is not needed for a swap, once connected; and is for connecting. */
static void monitor_paused(void **state)
{
    struct gw_rados *other;
    struct gw_store *theirs;
    uint64_t began;

    (void)state;
    make();
    assert_int_equal(kill(pid_of("GW_CEPH_MON_PID"), SIGSTOP), 0);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), 0);
    other = connect_as("godwit", TIMEOUT_MS);
    theirs = store_in(other);
    began = now_us();
    assert_int_equal(store_read(theirs, &w, VM), -ETIMEDOUT);
    in_time(began, TIMEOUT_MS);
    assert_int_equal(kill(pid_of("GW_CEPH_MON_PID"), SIGCONT), 0);
    do /* the worker may be giving up the first attempt */
        began = (uint64_t)store_read(theirs, &w, VM);
    while ((int)began == -ETIMEDOUT);
    assert_int_equal((int)began, 0);
    theirs->ops->close(theirs);
    gw_rados_close(other);
}

/* Everything may be under way when the daemon goes. */
static void closing_with_a_hung_cluster_ends(void **state)
{
    struct gw_rados *other = connect_as("godwit", 1000);
    struct gw_store *theirs = store_in(other);
    uint64_t began;

    (void)state;
    make();
    assert_int_equal(store_read(theirs, &w, VM), 0);
    assert_int_equal(kill(pid_of("GW_CEPH_OSD_PID"), SIGSTOP), 0);
    assert_int_equal(store_swap(theirs, &w, VM, "a", 1, "b", false), -ETIMEDOUT);
    began = now_us();
    theirs->ops->close(theirs);
    gw_rados_close(other);
    assert_true(now_us() - began < 6500000);
    assert_int_equal(kill(pid_of("GW_CEPH_OSD_PID"), SIGCONT), 0);
    settle();
}

/* Makes the cluster call itself full, or not, and waits until our client knows. */
static void set_full(bool full)
{
    static const char other[] = "21111111-2222-3333-4444-555555555555";

    tool("exec >/dev/null 2>&1; set -- %s; ceph osd set-nearfull-ratio $1 && "
         "ceph osd set-backfillfull-ratio $2 && ceph osd set-full-ratio $3",
         full ? "0.0001 0.0002 0.0003" : "0.85 0.90 0.95");
    do {
        if (store_create(store, &w, other, "a", 1, true) == 0)
            assert_int_equal(store_remove(store, &w, other, "a", 1), 0);
    } while (w.result != (full ? -ENOSPC : 0));
}

/* A full pool takes no new record, and does not stop a commit. */
static void pool_full(void **state)
{
    (void)state;
    make();
    tool("head -c 8000000 /dev/zero | rados -p rbd put fill -");
    set_full(true);
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), 0);
    assert_int_equal(store_swap(store, &w, VM, "b", 2, "b", true), 0);
    is("b", 3);
    set_full(false);
    tool("rados -p rbd rm fill");
}

/* ---- watches ---- */

struct observer {
    struct gw_store_watch watch;
    pthread_mutex_t lock;
    pthread_cond_t news;
    int n_status, status, n_changed, n_released;
    bool knows;
    struct gw_owner seen;
    uint64_t changed_us;
};

static void note(struct observer *o, int *count)
{
    (*count)++;
    pthread_cond_signal(&o->news);
    pthread_mutex_unlock(&o->lock);
}

static struct observer *observer_of(struct gw_store_watch *watch)
{
    struct observer *o = gw_container_of(watch, struct observer, watch);

    pthread_mutex_lock(&o->lock);
    return o;
}

static void on_changed(struct gw_store_watch *watch, const struct gw_owner *seen)
{
    struct observer *o = observer_of(watch);

    o->knows = seen != NULL;
    if (seen)
        o->seen = *seen;
    o->changed_us = now_us();
    note(o, &o->n_changed);
}

static void on_status(struct gw_store_watch *watch, int result)
{
    struct observer *o = observer_of(watch);

    o->status = result;
    note(o, &o->n_status);
}

static void on_released(struct gw_store_watch *watch)
{
    struct observer *o = observer_of(watch);

    note(o, &o->n_released);
}

static void wait_for(struct observer *o, const int *count, int wanted)
{
    struct timespec limit;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&o->lock);
    while (*count < wanted && r == 0)
        r = pthread_cond_timedwait(&o->news, &o->lock, &limit);
    pthread_mutex_unlock(&o->lock);
    assert_int_equal(r, 0);
    assert_int_equal(*count, wanted);
}

static void observe(struct observer *o, struct gw_store *in)
{
    *o = (struct observer){.watch = {on_changed, on_status, on_released, NULL},
                           .lock = PTHREAD_MUTEX_INITIALIZER,
                           .news = PTHREAD_COND_INITIALIZER};
    assert_int_equal(in->ops->watch(in, &o->watch, VM), 0);
    wait_for(o, &o->n_status, 1);
}

static void watchers_learn_at_once(void **state)
{
    struct gw_rados *other = connect_as("godwit", TIMEOUT_MS);
    struct gw_store *theirs = store_in(other);
    struct observer o;
    uint64_t began;

    (void)state;
    assert_true(store->ops->caps & GW_STORE_WATCHES);
    assert_int_equal(theirs->ops->watch(theirs, &o.watch, "no-uuid"), -EINVAL);
    observe(&o, theirs);
    assert_int_equal(o.status, GW_OWNER_ABSENT);
    theirs->ops->unwatch(theirs, &o.watch);
    wait_for(&o, &o.n_released, 1);

    make();
    observe(&o, theirs);
    assert_int_equal(o.status, 0);
    began = now_us();
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "b", false), 0);
    wait_for(&o, &o.n_changed, 1);
    assert_true(o.knows);
    assert_string_equal(o.seen.node, "b");
    assert_int_equal(o.seen.epoch, 2);
    print_message("a watcher learns of a swap after %d us\n", (int)(o.changed_us - began));
    assert_int_equal(store_swap(store, &w, VM, "a", 1, "a", true), GW_OWNER_CONFLICT);
    assert_int_equal(store_swap(store, &w, VM, "b", 2, "b", true), 0);
    wait_for(&o, &o.n_changed, 2);
    assert_int_equal(o.seen.epoch, 3);

    theirs->ops->unwatch(theirs, &o.watch);
    wait_for(&o, &o.n_released, 1);
    assert_int_equal(store_swap(store, &w, VM, "b", 3, "a", true), 0);
    theirs->ops->close(theirs);
    gw_rados_close(other); /* waits for whatever could still call */
    assert_int_equal(o.n_changed, 2);
    assert_int_equal(o.n_released, 1);
}

static void a_lost_watch_is_told(void **state)
{
    struct observer o;

    (void)state;
    make();
    observe(&o, store);
    assert_int_equal(store_remove(store, &w, VM, "a", 1), 0);
    wait_for(&o, &o.n_status, 2);
    assert_true(o.status < 0);
    store->ops->unwatch(store, &o.watch);
    wait_for(&o, &o.n_released, 1);
}

/* ---- fencing ---- */

struct fencing {
    struct gw_rados_call call;
    int n_done, result;
};

static void on_fenced(struct gw_rados_call *call, int result)
{
    struct fencing *fencing = gw_container_of(call, struct fencing, call);

    fencing->result = result;
    __atomic_add_fetch(&fencing->n_done, 1, __ATOMIC_SEQ_CST);
}

/* The address under which a watcher of the record is known: what a daemon would have recorded. */
static void address_of_watcher(char out[64])
{
    FILE *list = popen("rados -p rbd -N godwit listwatchers owner." VM, "r");
    char line[200] = "";

    assert_non_null(list);
    assert_non_null(fgets(line, sizeof line, list));
    pclose(list);
    assert_int_equal(sscanf(line, "watcher=%63s", out), 1);
}

static void a_fenced_client_changes_nothing(void **state)
{
    struct gw_rados *other = connect_as("godwit", TIMEOUT_MS);
    struct gw_store *theirs = store_in(other);
    struct fencing fencing = {.call.done = on_fenced};
    struct observer o;
    char address[64];

    (void)state;
    make();
    observe(&o, theirs);
    address_of_watcher(address);
    assert_int_equal(gw_rados_fence(rados, &fencing.call, "127.0.0.1:0/0", 60), -EINVAL);
    assert_int_equal(gw_rados_fence(rados, &fencing.call, address, 60), 0);
    while (!__atomic_load_n(&fencing.n_done, __ATOMIC_SEQ_CST))
        look_again();
    if (fencing.result != 0)
        fail_msg("%s", fencing.call.error.msg);
    is("a", 1);
    assert_int_equal(store_swap(theirs, &w, VM, "a", 1, "b", false), -ESHUTDOWN);
    assert_non_null(strstr(w.call.error.hint, "fenced"));
    is("a", 1);
    theirs->ops->unwatch(theirs, &o.watch);
    wait_for(&o, &o.n_released, 1);
    theirs->ops->close(theirs);
    gw_rados_close(other);
    tool("ceph osd blocklist clear 2>/dev/null");
}

/* ---- races ---- */

enum { N_RACERS = 2, N_EPOCHS = 10000, N_CREATORS = 4, N_ROUNDS = 10 };
struct arena {
    unsigned char n_winners[N_EPOCHS + 2];
    int n_odd; /* results that there should not be */
    int n_lost;
};

/* One daemon of a node: swaps whatever it sees to itself, and counts what it won. What it lost
 * tells what stands there, so that both are at the next epoch at the same time. */
static void race(const char *node, struct arena *arena)
{
    struct store_wait mine;
    struct gw_owner seen;
    int r;

    store = store_in(connect_as("godwit", TIMEOUT_MS));
    store_wait_hook = look_again;
    if (store_read(store, &mine, VM) != 0)
        _exit(1);
    while ((seen = mine.call.current).epoch <= N_EPOCHS) {
        r = store_swap(store, &mine, VM, seen.node, seen.epoch, node, true);
        if (r == 0)
            __atomic_add_fetch(&arena->n_winners[seen.epoch], 1, __ATOMIC_SEQ_CST);
        else
            __atomic_add_fetch(r == GW_OWNER_CONFLICT ? &arena->n_lost : &arena->n_odd, 1,
                               __ATOMIC_SEQ_CST);
        if (r < 0 && store_read(store, &mine, VM) != 0)
            _exit(1);
    }
    _exit(0);
}

static void wait_for_children(int n)
{
    int status;

    for (int i = 0; i < n; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
}

static void one_winner_each_epoch(void **state)
{
    struct arena *arena =
        mmap(NULL, sizeof *arena, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_true(arena != MAP_FAILED);
    for (int i = 0; i < N_RACERS; i++) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
            race(i % 2 ? "b" : "a", arena);
    }
    wait_for_children(N_RACERS);
    for (int e = 1; e <= N_EPOCHS; e++)
        assert_int_equal(arena->n_winners[e], 1);
    assert_int_equal(arena->n_odd, 0);
    assert_true(arena->n_lost > N_EPOCHS / 100); /* otherwise it was no race */
    print_message("%d swaps won, %d lost\n", N_EPOCHS, arena->n_lost);
    munmap(arena, sizeof *arena);
}

/* Threads of librados do not survive fork(): the racers come before any connection. */
static int record_only(void **state)
{
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        store = store_in(connect_as("godwit", TIMEOUT_MS));
        store_wait_hook = look_again;
        _exit(store_create(store, &w, VM, "a", 1, true));
    }
    return pid < 0 || waitpid(pid, &(int){0}, 0) != pid;
}

static int record_gone(void **state)
{
    (void)state;
    return system("rados -p rbd -N godwit rm owner." VM) != 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Figures to look at, not promises: clusters differ. */
static void how_long_a_swap_takes(void **state)
{
    enum { N = 1000 };
    static double us[N];

    (void)state;
    make();
    for (int i = 0; i < N; i++) {
        uint64_t began = now_us();

        assert_int_equal(store_swap(store, &w, VM, "a", (uint64_t)i + 1, "a", true), 0);
        us[i] = (double)(now_us() - began);
    }
    qsort(us, N, sizeof us[0], by_value);
    print_message("a swap takes %.2f ms (median of %d; 99 %%: %.2f ms, longest %.2f ms)\n",
                  us[N / 2] / 1e3, N, us[N * 99 / 100] / 1e3, us[N - 1] / 1e3);
}

int main(void)
{
#define WITH_STORE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_winner_each_epoch, record_only, record_gone),
        WITH_STORE(keeps_the_contract),
        WITH_STORE(garbage_is_refused),
        WITH_STORE(says_what_is_missing),
        WITH_STORE(watchers_learn_at_once),
        WITH_STORE(a_lost_watch_is_told),
        WITH_STORE(a_fenced_client_changes_nothing),
        WITH_STORE(pool_full),
        WITH_STORE(osd_paused_at_the_commit),
        WITH_STORE(monitor_paused),
        WITH_STORE(closing_with_a_hung_cluster_ends),
        WITH_STORE(how_long_a_swap_takes),
    };

    if (!getenv("CEPH_CONF")) {
        fprintf(stderr, "run this by tests/lib/ceph_cluster.py\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
