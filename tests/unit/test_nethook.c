/* SPDX-License-Identifier: Apache-2.0 */
/* Real programs, run by a real event loop: each appends to a file what it was told. */
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "shell/daemon.h"
#include "shell/nethook.h"
#include "util/cleanup.h"
#include "util/tree.h"

/* A migration, as far as the hook looks at it. */
static struct gw_config a_config;
static struct gw_daemon a_daemon;
static struct gw_vm_nic nics[] = {
    {.bridge = (char *)"br0", .mac = (char *)"52:54:00:77:00:64"},
    {.bridge = (char *)"br1", .mac = (char *)"52:54:00:77:00:65"},
};
static struct gw_vm_spec a_spec = {.name = (char *)"web1", .nics = nics, .n_nics = 2};
static struct gw_vm a_vm = {
    .daemon = &a_daemon, .spec = &a_spec, .tap_names = {"gw1-0", "gw1-1"}, .n_taps = 2};
static struct gw_migration a_migration = {.daemon = &a_daemon,
                                          .id = "m-00000001",
                                          .vm_name = "web1",
                                          .vm_uuid = "u",
                                          .vm = &a_vm,
                                          .record = {.from = "n1", .to = "n2"}};

static char directory[64];
static struct gw_nethook *hook;
static struct gw_nethook_call call;
static struct gw_error answer; /* code GW_OK: well */
static unsigned n_answers;

static void prepared(struct gw_nethook_call *c, const struct gw_error *error)
{
    (void)c;
    n_answers++;
    answer = error ? *error : (struct gw_error){.code = GW_OK};
}

/* What the script gets: $1 as word, the object in $object, and $out to write to. */
static void use_script(const char *body)
{
    FILE *file = fopen(a_config.network_hook, "w");

    fprintf(file, "#!/bin/sh\nout=%s/out\nread -r object\n%s\n", directory, body);
    fclose(file);
    assert_int_equal(chmod(a_config.network_hook, 0755), 0);
}

static int set_up(void **state)
{
    char journal[96];

    (void)state;
    strcpy(directory, "/tmp/gw-test-nethook-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    a_config = (struct gw_config){.network_hook_timeout_s = 10, .run_dir = directory};
    if (asprintf(&a_config.network_hook, "%s/hook", directory) < 0)
        return -1;
    a_daemon = (struct gw_daemon){.config = &a_config, .base = event_base_new()};
    LIST_INIT(&a_daemon.nethooks);
    a_daemon.log.level = (enum gw_log_level)0;
    a_migration.machine = (struct gw_machine){.role = GW_DESTINATION};
    call.done = prepared;
    n_answers = 0;
    hook = NULL;
    snprintf(journal, sizeof journal, "%s/journal.db", directory);
    return gw_journal_open(journal, &a_daemon.log, &a_daemon.journal, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    gw_nethooks_free(&a_daemon);
    gw_journal_close(a_daemon.journal);
    event_base_free(a_daemon.base);
    free(a_config.network_hook);
    return gw_remove_tree(directory);
}

static void turn_until_answered(void)
{
    while (n_answers == 0)
        assert_int_equal(event_base_loop(a_daemon.base, EVLOOP_ONCE), 0);
}

static void turn_until_gone(void)
{
    while (!LIST_EMPTY(&a_daemon.nethooks))
        assert_int_equal(event_base_loop(a_daemon.base, EVLOOP_ONCE), 0);
}

static void read_file(const char *name, char *text, size_t size)
{
    gw_autofree char *path = NULL;
    size_t n = 0;
    FILE *file;

    if (asprintf(&path, "%s/%s", directory, name) < 0)
        abort();
    file = fopen(path, "r");
    if (file) {
        n = fread(text, 1, size - 1, file);
        fclose(file);
    }
    text[n] = '\0';
}

static void assert_out(const char *expected)
{
    char text[4096];

    read_file("out", text, sizeof text);
    assert_string_equal(text, expected);
}

static void prepare(void)
{
    gw_nethook_prepare(&a_migration, &hook, &call);
    turn_until_answered();
}

static void end(enum gw_phase phase)
{
    a_migration.machine.phase = phase;
    gw_nethook_end(gw_steal_ptr(&hook), &a_migration.machine);
    turn_until_gone();
}

static void without_one_nothing_happens(void **state)
{
    char *path = gw_steal_ptr(&a_config.network_hook);

    (void)state;
    gw_nethook_prepare(&a_migration, &hook, &call);
    assert_int_equal(n_answers, 1);
    assert_int_equal(answer.code, GW_OK);
    assert_null(hook);
    gw_nethook_await_switch(hook);
    gw_nethook_switch(hook, &a_migration);
    end(GW_COMPLETED);
    a_config.network_hook = path;
}

static void each_point_comes_in_order(void **state)
{
    (void)state;
    use_script("echo \"$1\" >> $out");
    prepare();
    assert_int_equal(answer.code, GW_OK);
    gw_nethook_await_switch(hook);
    assert_out("prepare\n");
    gw_nethook_switch(hook, &a_migration);
    end(GW_COMPLETED); /* at once: done waits until switch has ended */
    assert_out("prepare\nswitch\ndone\n");
}

static void the_object_says_what_moves(void **state)
{
    const char *bridge, *tap, *mac, *point, *role, *vm, *from, *to;
    char text[4096];
    json_t *json;

    (void)state;
    use_script("echo \"$object\" >> $out");
    prepare();
    read_file("out", text, sizeof text);
    json = json_loads(text, 0, NULL);
    assert_int_equal(json_unpack(json, "{s:s, s:s, s:s, s:s, s:s, s:[{}, {s:s, s:s, s:s, s:[]}]}",
                                 "point", &point, "role", &role, "vm", &vm, "from", &from, "to",
                                 &to, "nics", "mac", &mac, "bridge", &bridge, "tap", &tap,
                                 "addresses"),
                     0);
    assert_string_equal(point, "prepare");
    assert_string_equal(role, "destination");
    assert_string_equal(vm, "web1");
    assert_string_equal(from, "n1");
    assert_string_equal(to, "n2");
    assert_string_equal(mac, nics[1].mac);
    assert_string_equal(bridge, "br1");
    assert_string_equal(tap, "gw1-1");
    json_decref(json);
    end(GW_FAILED);
}

static void a_failed_prepare_says_why(void **state)
{
    (void)state;
    use_script("echo \"$1\" >> $out; echo no such port >&2; [ \"$1\" = undo ]");
    prepare();
    assert_int_equal(answer.code, GW_E_STATE);
    assert_non_null(strstr(answer.msg, "hook prepare exited with status 1: no such port"));
    end(GW_FAILED);
    assert_out("prepare\nundo\n");
}

static void one_that_cannot_be_run_is_a_failure(void **state)
{
    (void)state;
    prepare();
    assert_int_equal(answer.code, GW_E_SYSTEM);
    end(GW_FAILED);
}

/* And everything that it has started. */
static void one_that_hangs_is_killed(void **state)
{
    char text[64];
    int status;

    (void)state;
    a_config.network_hook_timeout_s = 1;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* its orphans become ours */
    use_script("[ \"$1\" = undo ] || { sleep 1000 & echo $! > $out; wait; }");
    prepare();
    assert_int_equal(answer.code, GW_E_TIMEOUT);
    assert_non_null(strstr(answer.msg, "hook prepare was killed after 1 s"));
    end(GW_FAILED);
    read_file("out", text, sizeof text);
    assert_int_equal(waitpid(atoi(text), &status, 0), atoi(text));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_switch_that_does_not_come_is_no_failure(void **state)
{
    char text[8192];

    (void)state;
    use_script("[ \"$object\" ] || { echo in vain >> $out; exit 7; }; echo \"$1\" >> $out");
    prepare();
    gw_nethook_await_switch(hook);
    end(GW_FAILED);
    assert_out("prepare\nin vain\nundo\n");
    read_file("network-hook.log", text, sizeof text);
    assert_string_equal(text, "");
}

static void a_switch_that_ignores_its_end_is_killed(void **state)
{
    (void)state;
    use_script("[ \"$1\" = switch ] && exec sleep 1000; echo \"$1\" >> $out");
    prepare();
    gw_nethook_await_switch(hook);
    end(GW_FAILED);
    assert_out("prepare\nundo\n");
}

static void nobody_knows_where_it_runs(void **state)
{
    (void)state;
    use_script("echo \"$1\" >> $out");
    prepare();
    a_migration.machine.needs_person = true;
    end(GW_FAILED);
    assert_out("prepare\n");
}

#define HOOK_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOOK_TEST(without_one_nothing_happens),
        HOOK_TEST(each_point_comes_in_order),
        HOOK_TEST(the_object_says_what_moves),
        HOOK_TEST(a_failed_prepare_says_why),
        HOOK_TEST(one_that_cannot_be_run_is_a_failure),
        HOOK_TEST(one_that_hangs_is_killed),
        HOOK_TEST(a_switch_that_does_not_come_is_no_failure),
        HOOK_TEST(a_switch_that_ignores_its_end_is_killed),
        HOOK_TEST(nobody_knows_where_it_runs),
    };

    signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
