/* SPDX-License-Identifier: Apache-2.0 */
/* A real cluster, asked from an event loop; tests/lib/ceph_cluster.py makes one. */
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
#include "shell/ceph.h"
#include "util/cleanup.h"

enum { TICK_MS = 5, LOOP_LIMIT_S = 30 };

static struct event_base *base;
static struct gw_ceph *ceph;
static struct gw_ceph_ask ask;
static int n_done;
static uint64_t last_tick_ms, longest_gap_ms;

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What else a daemon has to do meanwhile. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    uint64_t now = now_ms();

    (void)fd;
    (void)what;
    (void)arg;
    if (last_tick_ms && now - last_tick_ms > longest_gap_ms)
        longest_gap_ms = now - last_tick_ms;
    last_tick_ms = now;
}

static void on_done(struct gw_ceph_ask *done)
{
    assert_ptr_equal(done, &ask);
    assert_null(done->round);
    n_done++;
    event_base_loopbreak(base);
}

static json_t *disks(const char *image)
{
    return json_pack("[o, o, o]", gw_facts_disk("/etc/passwd", "raw", false),
                     gw_facts_rbd("rbd/web1", "raw", false, 0),
                     gw_facts_rbd(image, "raw", false, 0));
}

/* The facts when they are answered; the longest that the loop was held up is noted. */
static json_t *ask_all(const char *image)
{
    const struct timeval tick = {.tv_usec = TICK_MS * 1000}, limit = {.tv_sec = LOOP_LIMIT_S};
    struct event *ticker = event_new(base, -1, EV_PERSIST, on_tick, NULL);
    json_t *facts = disks(image);

    n_done = 0;
    assert_true(gw_ceph_ask(ceph, &ask, facts, on_done));
    assert_int_equal(n_done, 0);
    last_tick_ms = longest_gap_ms = 0;
    event_add(ticker, &tick);
    event_base_loopexit(base, &limit);
    event_base_dispatch(base);
    event_free(ticker);
    assert_int_equal(n_done, 1);
    return facts;
}

static const char *text_of(const json_t *facts, size_t i, const char *key)
{
    const char *text = json_string_value(json_object_get(json_array_get(facts, i), key));

    return text ? text : "";
}

static int setup(void **state)
{
    (void)state;
    base = event_base_new();
    return gw_ceph_new(base, getenv("CEPH_CONF"), "godwit", &ceph, NULL);
}

static int teardown(void **state)
{
    (void)state;
    gw_ceph_free(ceph);
    event_base_free(base);
    return 0;
}

static void every_disk_is_answered(void **state)
{
    json_t *facts, *none = json_array();

    (void)state;
    assert_false(gw_ceph_ask(ceph, &ask, none, on_done));
    json_decref(none);
    facts = ask_all("rbd/nothing");
    assert_string_equal(text_of(facts, 0, "fsid"), "");
    assert_int_equal(strlen(text_of(facts, 1, "fsid")), 36);
    assert_string_equal(text_of(facts, 1, "path"), "rbd/web1");
    assert_true(json_is_true(json_object_get(json_array_get(facts, 1), "writable")));
    assert_string_equal(text_of(facts, 2, "error"), "no image nothing in pool rbd");
    json_decref(facts);
    facts = ask_all("no-image");
    assert_non_null(strstr(text_of(facts, 2, "error"), "names no RBD image"));
    json_decref(facts);
}

static void a_hung_cluster_does_not_hold_up_the_loop(void **state)
{
    pid_t osd = (pid_t)atoi(getenv("GW_CEPH_OSD_PID"));
    uint64_t began = now_ms();
    json_t *facts;

    (void)state;
    assert_int_equal(kill(osd, SIGSTOP), 0);
    facts = ask_all("rbd/nothing");
    assert_int_equal(kill(osd, SIGCONT), 0);
    print_message("answered after %d ms; the loop was held up for %d ms at most\n",
                  (int)(now_ms() - began), (int)longest_gap_ms);
    assert_in_range(now_ms() - began, GW_RADOS_TIMEOUT_MS - 100, GW_RADOS_TIMEOUT_MS + 2000);
    assert_true(longest_gap_ms < GW_RADOS_TIMEOUT_MS / 4);
    assert_true(json_is_false(json_object_get(json_array_get(facts, 1), "exists")));
    assert_non_null(strstr(text_of(facts, 1, "error"), "did not answer"));
    json_decref(facts);
}

static void nobody_is_told_after_cancelling(void **state)
{
    json_t *facts = disks("rbd/nothing");

    (void)state;
    n_done = 0;
    assert_true(gw_ceph_ask(ceph, &ask, facts, on_done));
    gw_ceph_ask_cancel(&ask);
    json_decref(facts);
    json_decref(ask_all("rbd/nothing")); /* behind it in the same queue */
    assert_int_equal(n_done, 1);
    facts = disks("rbd/nothing");
    assert_true(gw_ceph_ask(ceph, &ask, facts, on_done)); /* teardown has to wait for this one */
    json_decref(facts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_disk_is_answered),
        cmocka_unit_test(a_hung_cluster_does_not_hold_up_the_loop),
        cmocka_unit_test(nobody_is_told_after_cancelling),
    };

    if (!getenv("CEPH_CONF")) {
        fprintf(stderr, "run this by tests/lib/ceph_cluster.py\n");
        return 77;
    }
    if (system("rbd create rbd/web1 --size 64M") != 0)
        return 1;
    return cmocka_run_group_tests(tests, setup, teardown);
}
