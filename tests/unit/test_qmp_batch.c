/* SPDX-License-Identifier: Apache-2.0 */
/* Against a real QEMU without a machine. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "shell/qmp_batch.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define QEMU "qemu-system-x86_64"

/* Whatever a test waits for comes in this time, or never. */
enum { PATIENCE_S = 20 };

static char directory[] = "/tmp/godwit-test-batch-XXXXXX";

struct bench {
    struct event_base *base;
    struct gw_qmp_link *link;
    struct gw_qmp_handler handler;
    struct gw_qmp_batch batch;
    char path[108];
    pid_t qemu;
    bool in_function, fini_in_done;
    int n_ready, n_closed, n_done;
    json_t *replies; /* of the last batch, owned */
    struct gw_error error;
};

static void ready(struct gw_qmp_handler *handler, json_t *greeting)
{
    struct bench *b = gw_container_of(handler, struct bench, handler);

    (void)greeting;
    b->n_ready++;
    event_base_loopbreak(b->base);
}

static void closed(struct gw_qmp_handler *handler, const struct gw_error *error)
{
    struct bench *b = gw_container_of(handler, struct bench, handler);

    (void)error;
    b->n_closed++;
    event_base_loopbreak(b->base);
}

static void done(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error)
{
    struct bench *b = gw_container_of(batch, struct bench, batch);

    assert_false(b->in_function);
    b->n_done++;
    json_decref(b->replies);
    b->replies = json_incref(replies);
    b->error = error ? *error : (struct gw_error){0};
    if (b->fini_in_done) {
        gw_qmp_batch_fini(batch);
        memset(batch, 0xa5, sizeof *batch); /* nobody looks at it any more */
    }
    event_base_loopbreak(b->base);
}

static void wait_for(struct bench *b, const int *counter, int n)
{
    uint64_t end_ns = gw_clock_ns() + PATIENCE_S * GW_NS_PER_S;
    const struct timeval patience = {.tv_sec = PATIENCE_S};

    while (*counter < n) {
        assert_true(gw_clock_ns() < end_ns);
        event_base_loopexit(b->base, &patience);
        event_base_dispatch(b->base);
    }
}

static int set_up(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    gw_autofree char *qmp = NULL;

    assert_non_null(b);
    b->handler = (struct gw_qmp_handler){.ready = ready, .closed = closed};
    b->base = event_base_new();
    snprintf(b->path, sizeof b->path, "%s/qmp", directory);
    assert_true(asprintf(&qmp, "unix:%s,server=on,wait=off", b->path) > 0);
    b->qemu = fork();
    if (b->qemu == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp(QEMU, QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-qmp", qmp,
               (char *)NULL);
        _exit(127);
    }
    assert_true(b->qemu > 0);
    b->link = gw_qmp_link_open(b->base, b->path, &b->handler, NULL, &b->error);
    assert_non_null(b->link);
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *b = *state;

    gw_qmp_link_free(b->link);
    event_base_free(b->base);
    json_decref(b->replies);
    kill(b->qemu, SIGKILL);
    waitpid(b->qemu, NULL, 0);
    unlink(b->path);
    free(b);
    return 0;
}

struct command {
    const char *key;
    bool optional;
    const char *name;
};

static void begin(struct bench *b, const struct command *commands, unsigned n)
{
    b->in_function = true;
    gw_qmp_batch_init(&b->batch, done);
    for (unsigned i = 0; i < n; i++)
        gw_qmp_batch_add(&b->batch, b->link, commands[i].key, commands[i].optional,
                         commands[i].name, NULL);
    gw_qmp_batch_end(&b->batch);
    b->in_function = false;
}

static void replies_and_failures_come_together(void **state)
{
    static const struct {
        struct command commands[4];
        unsigned n;
        const char *keys[4]; /* of the replies, NULL after the last */
        const char *failed;  /* the beginning of the error, or NULL */
    } cases[] = {
        {{{"status", false, "query-status"}}, 1, {"status"}, NULL},
        {{{"status", false, "query-status"},
          {"version", false, "query-version"},
          {"migrate", true, "query-migrate"}},
         3,
         {"status", "version", "migrate"},
         NULL},
        /* the optional one is missing, and that is all */
        {{{"x", true, "no-such-command"}, {"version", false, "query-version"}},
         2,
         {"version"},
         NULL},
        {{{"x", true, "no-such-command"}}, 1, {NULL}, NULL},
        /* those after one that failed are carried out, and answered */
        {{{"x", false, "no-such-command"}, {"version", false, "query-version"}},
         2,
         {"version"},
         "no-such-command: "},
        /* the first failure is the one that counts; an optional one does not */
        {{{"o", true, "no-such-option"},
          {"a", false, "no-such-a"},
          {"b", false, "no-such-b"},
          {"status", false, "query-status"}},
         4,
         {"status"},
         "no-such-a: "},
    };
    struct bench *b = *state;

    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        size_t n_keys = 0;

        begin(b, cases[i].commands, cases[i].n);
        wait_for(b, &b->n_done, (int)i + 1);
        for (; n_keys < 4 && cases[i].keys[n_keys]; n_keys++)
            assert_true(json_is_object(json_object_get(b->replies, cases[i].keys[n_keys])));
        assert_int_equal(json_object_size(b->replies), n_keys);
        assert_int_equal(b->error.code, cases[i].failed ? GW_E_QEMU : GW_OK);
        if (cases[i].failed)
            assert_memory_equal(b->error.msg, cases[i].failed, strlen(cases[i].failed));
        gw_qmp_batch_fini(&b->batch);
    }
    assert_int_equal(b->n_done, GW_ARRAY_SIZE(cases));
}

static void arguments_reach_qemu(void **state)
{
    struct bench *b = *state;
    const json_t *set;

    gw_qmp_batch_init(&b->batch, done);
    gw_qmp_batch_add(&b->batch, b->link, "set", false, "migrate-set-parameters",
                     json_pack("{s:i}", "downtime-limit", 123));
    gw_qmp_batch_add(&b->batch, b->link, "get", false, "query-migrate-parameters", NULL);
    gw_qmp_batch_end(&b->batch);
    wait_for(b, &b->n_done, 1);
    set = json_object_get(b->replies, "get"); /* in order: it shows what was set before it */
    assert_int_equal(json_integer_value(json_object_get(set, "downtime-limit")), 123);
    gw_qmp_batch_fini(&b->batch);
}

static void as_many_as_fit(void **state)
{
    static const char *const keys[] = {"0", "1", "2", "3", "4",  "5",
                                       "6", "7", "8", "9", "10", "11"};
    struct command commands[GW_QMP_BATCH_MAX];
    struct bench *b = *state;

    assert_int_equal(GW_ARRAY_SIZE(keys), GW_QMP_BATCH_MAX);
    for (unsigned i = 0; i < GW_QMP_BATCH_MAX; i++)
        commands[i] = (struct command){keys[i], false, "query-version"};
    begin(b, commands, GW_QMP_BATCH_MAX);
    wait_for(b, &b->n_done, 1);
    assert_int_equal(json_object_size(b->replies), GW_QMP_BATCH_MAX);
    gw_qmp_batch_fini(&b->batch);
}

static void may_be_gone_in_done(void **state)
{
    static const struct command commands[] = {{"status", false, "query-status"},
                                              {"x", false, "no-such-command"}};
    struct bench *b = *state;

    b->fini_in_done = true;
    begin(b, commands, 2);
    wait_for(b, &b->n_done, 1);
    assert_int_equal(json_object_size(b->replies), 1);
    assert_int_equal(b->error.code, GW_E_QEMU);
}

static void forgotten_batches_stay_silent(void **state)
{
    static const struct command commands[] = {{"status", false, "query-status"},
                                              {"version", false, "query-version"}};
    struct bench *b = *state;

    begin(b, commands, 2);
    gw_qmp_batch_fini(&b->batch);
    gw_qmp_batch_fini(&b->batch);
    memset(&b->batch, 0, sizeof b->batch);
    gw_qmp_batch_fini(&b->batch); /* one that never began, too */

    begin(b, commands, 1); /* answered after the two that were forgotten */
    wait_for(b, &b->n_done, 1);
    assert_int_equal(json_object_size(b->replies), 1);
    assert_int_equal(b->n_done, 1);
    gw_qmp_batch_fini(&b->batch);
}

static void a_qemu_that_dies_fails_it_once(void **state)
{
    static const struct command commands[] = {{"o", true, "query-version"},
                                              {"status", false, "query-status"},
                                              {"version", false, "query-version"}};
    struct bench *b = *state;

    wait_for(b, &b->n_ready, 1);
    kill(b->qemu, SIGSTOP);
    begin(b, commands, 3);
    kill(b->qemu, SIGKILL);
    wait_for(b, &b->n_closed, 1);
    assert_int_equal(b->n_done, 1);
    assert_int_equal(json_object_size(b->replies), 0);
    assert_int_equal(b->error.code, GW_E_QEMU_GONE);
    assert_memory_equal(b->error.msg, "query-status: ", 14);
    gw_qmp_batch_fini(&b->batch);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(replies_and_failures_come_together),
        TEST(arguments_reach_qemu),
        TEST(as_many_as_fit),
        TEST(may_be_gone_in_done),
        TEST(forgotten_batches_stay_silent),
        TEST(a_qemu_that_dies_fails_it_once),
    };
    int n_failed;

    if (system("command -v " QEMU " >/dev/null 2>&1") != 0) {
        fprintf(stderr, "skipped: no " QEMU " (./setup installs it)\n");
        return 77;
    }
    if (!mkdtemp(directory))
        return 1;
    n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return n_failed;
}
