/* SPDX-License-Identifier: Apache-2.0 */
/* What a real cluster says about images; tests/lib/ceph_cluster.py makes one and runs this in it.
 */
#include <errno.h>
#include <rbd/librbd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "host/facts.h"
#include "host/rbdcheck.h"
#include "storage/rbd.h"
#include "util/cleanup.h"

enum { TIMEOUT_MS = 3000 };

struct asking {
    struct gw_rados_call call;
    int n_done, result;
};

static struct gw_rados *rados;
static struct asking asked;

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void tool(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

static struct gw_rados *connect_as(const char *user)
{
    struct gw_rados_options options = {.user = user, .timeout_ms = TIMEOUT_MS};
    struct gw_rados *made = NULL;
    struct gw_error error = {0};

    if (gw_rados_open(&options, &made, &error) < 0)
        fail_msg("%s (%s)", error.msg, error.hint);
    return made;
}

static void on_done(struct gw_rados_call *call, int result)
{
    struct asking *asking = gw_container_of(call, struct asking, call);

    asking->result = result;
    __atomic_add_fetch(&asking->n_done, 1, __ATOMIC_RELEASE);
}

/* The facts of an image, or NULL; asked has the rest. */
static json_t *ask(struct gw_rados *as, const char *image)
{
    struct timespec pause = {.tv_nsec = 100000};

    memset(&asked, 0, sizeof asked);
    asked.call.done = on_done;
    assert_int_equal(gw_rbd_facts(as, &asked.call, image), 0);
    while (!__atomic_load_n(&asked.n_done, __ATOMIC_ACQUIRE))
        nanosleep(&pause, NULL);
    return asked.result == 0 ? asked.call.facts : NULL;
}

static json_t *ask_well(struct gw_rados *as, const char *image)
{
    json_t *facts = ask(as, image);

    if (!facts)
        fail_msg("%s: %s", image, asked.call.error.msg);
    return facts;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static int setup(void **state)
{
    (void)state;
    rados = connect_as("godwit");
    return system("rbd create rbd/web1 --size 64M && rbd namespace create rbd/ns && "
                  "rbd create rbd/ns/web2 --size 32M --image-feature layering && "
                  "rbd snap create rbd/web1@s && rbd snap protect rbd/web1@s && "
                  "rbd clone rbd/web1@s rbd/child");
}

static int teardown(void **state)
{
    (void)state;
    gw_rados_close(rados);
    return 0;
}

static void an_image_is_described(void **state)
{
    json_t *facts = ask_well(rados, "rbd/web1"), *child = ask_well(rados, "rbd/child"), *other;
    char parent[100];

    (void)state;
    assert_true(json_is_true(json_object_get(facts, "exists")));
    assert_true(json_is_true(json_object_get(facts, "writable")));
    assert_int_equal(json_integer_value(json_object_get(facts, "size_bytes")), 64 << 20);
    assert_int_equal(strlen(text_of(facts, "fsid")), 36);
    assert_string_equal(text_of(facts, "client_address"), "127.0.0.1");
    assert_string_equal(text_of(facts, "parent"), "");
    assert_string_equal(text_of(facts, "full"), "");
    assert_int_equal(strncmp(text_of(facts, "health"), "HEALTH_", 7), 0);
    assert_int_equal(json_array_size(json_object_get(facts, "watchers")), 0);
    assert_int_equal(json_array_size(json_object_get(facts, "features")), 5);
    assert_true(json_is_false(json_object_get(facts, "snapshot")));
    snprintf(parent, sizeof parent, "rbd//%s@s", text_of(facts, "image_id"));
    assert_string_equal(text_of(child, "parent"), parent);
    other = ask_well(rados, "rbd/ns/web2");
    assert_int_equal(json_array_size(json_object_get(other, "features")), 1);
    assert_true(json_is_true(json_object_get(other, "writable")));
    json_decref(other);
    other = ask_well(rados, "rbd:rbd/web1@s");
    assert_true(json_is_true(json_object_get(other, "snapshot")));
    json_decref(other);
    json_decref(child);
    json_decref(facts);
}

static void not_there(struct gw_rados *as, const char *image, const char *words)
{
    json_t *facts = ask_well(as, image);

    assert_true(json_is_false(json_object_get(facts, "exists")));
    if (!strstr(text_of(facts, "error"), words))
        fail_msg("%s: no '%s' in '%s'", image, words, text_of(facts, "error"));
    json_decref(facts);
}

/* One from the future: what today's librbd opens without a word. */
static void an_unknown_feature_is_seen(void **state)
{
    json_t *facts, *features;

    (void)state;
    tool("rbd create rbd/future --size 8M --image-feature layering,exclusive-lock && "
         "id=$(rbd info rbd/future | sed -n 's/^[[:space:]]*id: //p') && "
         "printf '\\005\\000\\000\\000\\000\\001\\000\\000' | "
         "rados -p rbd setomapval rbd_header.$id features");
    facts = ask_well(rados, "rbd/future");
    features = json_object_get(facts, "features");
    assert_int_equal(json_array_size(features), 3);
    assert_string_equal(json_string_value(json_array_get(features, 2)), "feature-40");
    json_decref(facts);
}

static void what_is_missing_is_named(void **state)
{
    struct asking none = {.call.done = on_done};

    (void)state;
    not_there(rados, "rbd/web9", "no image web9 in pool rbd");
    not_there(rados, "rbd/ns/web1", "no image web1 in pool rbd/ns");
    not_there(rados, "rbd/web1@t", "no image web1@t in pool rbd");
    not_there(rados, "pool9/web1", "pool9");
    assert_int_equal(gw_rbd_facts(rados, &none.call, "web1"), -EINVAL);
    assert_int_equal(none.n_done, 0);
}

static void who_may_only_read_is_found_out(void **state)
{
    struct gw_rados *reader = connect_as("reader");
    json_t *facts = ask_well(reader, "rbd/web1");

    (void)state;
    assert_true(json_is_true(json_object_get(facts, "exists")));
    assert_true(json_is_false(json_object_get(facts, "writable")));
    assert_string_equal(text_of(facts, "write_error"), strerror(EPERM));
    json_decref(facts);
    gw_rados_close(reader);
}

/* Somebody else's writer: the same librbd that QEMU has. */
struct writer {
    rados_t cluster;
    rados_ioctx_t io;
    rbd_image_t image;
};

static void writer_start(struct writer *writer)
{
    assert_int_equal(rados_create(&writer->cluster, "godwit"), 0);
    assert_int_equal(rados_conf_read_file(writer->cluster, NULL), 0);
    assert_int_equal(rados_connect(writer->cluster), 0);
    assert_int_equal(rados_ioctx_create(writer->cluster, "rbd", &writer->io), 0);
    assert_int_equal(rbd_open(writer->io, "web1", &writer->image, NULL), 0);
    assert_int_equal(rbd_write(writer->image, 0, 4, "data"), 4); /* takes the lock */
}

static void writer_stop(struct writer *writer)
{
    rbd_close(writer->image);
    rados_ioctx_destroy(writer->io);
    rados_shutdown(writer->cluster);
}

static size_t n_findings(json_t *facts, unsigned n_opened, const char *code)
{
    json_t *here = gw_facts_rbd("rbd/web1", "raw", false, n_opened);
    json_t *there = gw_facts_rbd("rbd/web1", "raw", false, 0);
    struct gw_rbd_check check = {here, there, "n1", "n2", "web1"};
    struct gw_findings list = {0};
    size_t n = 0;

    gw_facts_rbd_answer(here, facts, NULL);
    gw_facts_rbd_answer(there, facts, NULL);
    gw_rbd_check(&check, &list);
    for (size_t i = 0; i < list.n_items; i++) {
        n += strcmp(list.items[i].code, code) == 0;
        print_message("%s: %s\n", list.items[i].code, list.items[i].message);
    }
    gw_findings_fini(&list);
    json_decref(here);
    json_decref(there);
    return n;
}

static void who_has_it_is_named_and_can_be_fenced(void **state)
{
    struct timespec pause = {.tv_nsec = 1000000};
    struct writer writer;
    json_t *facts, *entry;
    const char *address;
    int r;

    (void)state;
    writer_start(&writer);
    facts = ask_well(rados, "rbd/web1");
    entry = json_array_get(json_object_get(facts, "watchers"), 0);
    assert_int_equal(json_array_size(json_object_get(facts, "watchers")), 1);
    address = text_of(entry, "address");
    assert_true(gw_rados_address_ok(address));
    assert_int_equal(json_array_size(json_object_get(facts, "lock_owners")), 1);
    assert_string_equal(
        text_of(json_array_get(json_object_get(facts, "lock_owners"), 0), "address"), address);
    assert_int_equal(json_integer_value(json_object_get(entry, "client")),
                     rados_get_instance_id(writer.cluster));
    assert_int_equal(n_findings(facts, 1, "rbd-watcher"), 0);
    assert_int_equal(n_findings(facts, 0, "rbd-watcher"), 1);
    assert_int_equal(n_findings(facts, 0, "rbd-lock"), 1);

    memset(&asked, 0, sizeof asked);
    asked.call.done = on_done;
    assert_int_equal(gw_rados_fence(rados, &asked.call, address, 60), 0);
    while (!__atomic_load_n(&asked.n_done, __ATOMIC_ACQUIRE))
        nanosleep(&pause, NULL);
    assert_int_equal(asked.result, 0);
    r = (int)rbd_write(writer.image, 0, 4, "evil");
    assert_int_equal(r, -ESHUTDOWN);
    writer_stop(&writer);
    json_decref(facts);
    tool("ceph osd blocklist clear 2>/dev/null");
}

static void a_sick_cluster_is_named(void **state)
{
    json_t *facts;

    (void)state;
    tool("ceph osd set pause 2>/dev/null");
    not_there(rados, "rbd/web1", "the cluster is paused");
    tool("ceph osd unset pause 2>/dev/null");
    tool("ceph osd set noout 2>/dev/null");
    facts = ask_well(rados, "rbd/web1");
    assert_int_equal(n_findings(facts, 1, "rbd-health"), 1);
    json_decref(facts);
    tool("ceph osd unset noout 2>/dev/null");
}

static void a_hung_cluster_ends_in_time(void **state)
{
    static const char *const pids[] = {"GW_CEPH_OSD_PID", "GW_CEPH_MON_PID"};

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(pids); i++) {
        pid_t pid = (pid_t)atoi(getenv(pids[i]));
        uint64_t began = now_ms();
        json_t *facts;

        assert_int_equal(kill(pid, SIGSTOP), 0);
        facts = ask(rados, "rbd/web1");
        assert_int_equal(kill(pid, SIGCONT), 0);
        assert_null(facts);
        assert_int_equal(asked.result, -ETIMEDOUT);
        assert_int_equal(asked.call.error.code, GW_E_TIMEOUT);
        assert_true(now_ms() - began < TIMEOUT_MS + 2000);
        do /* until the worker has given up what hung */
            facts = ask(rados, "rbd/web1");
        while (!facts && asked.result == -ETIMEDOUT);
        assert_non_null(facts);
        json_decref(facts);
    }
}

static void how_long_it_takes(void **state)
{
    enum { N = 20 };
    uint64_t began;

    (void)state;
    json_decref(ask_well(rados, "rbd/web1"));
    began = now_ms();
    for (int i = 0; i < N; i++)
        json_decref(ask_well(rados, "rbd/web1"));
    print_message("asking about an image takes %.1f ms (mean of %d)\n",
                  (double)(now_ms() - began) / N, N);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_is_described),
        cmocka_unit_test(an_unknown_feature_is_seen),
        cmocka_unit_test(what_is_missing_is_named),
        cmocka_unit_test(who_may_only_read_is_found_out),
        cmocka_unit_test(who_has_it_is_named_and_can_be_fenced),
        cmocka_unit_test(a_sick_cluster_is_named),
        cmocka_unit_test(a_hung_cluster_ends_in_time),
        cmocka_unit_test(how_long_it_takes),
    };

    if (!getenv("CEPH_CONF")) {
        fprintf(stderr, "run this by tests/lib/ceph_cluster.py\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
