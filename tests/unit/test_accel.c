/* SPDX-License-Identifier: Apache-2.0 */
/* With real QEMU. That KVM works or not depends on the machine; that the trial is right does not.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "host/accel.h"

static const char *const qemu = "qemu-system-x86_64";
static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/gw-test-accel-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

/* Fails if the trial has left anything behind. */
static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static void run_to_the_end(struct gw_accel_trial *trial)
{
    do
        poll(&(struct pollfd){.fd = trial->process.pidfd, .events = POLLIN}, 1,
             GW_ACCEL_TRIAL_CHECK_MS);
    while (gw_accel_trial_check(trial) == 1);
    print_message("%s: %s: %s\n", trial->accel, trial->usable ? "usable" : "unusable", trial->why);
    assert_int_equal(trial->process.pidfd, -1);
    assert_string_equal(trial->dir, "");
}

/* A stand-in for QEMU. */
static void make_program(char path[96], const char *script)
{
    int fd;

    snprintf(path, 96, "%s/qemu", dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    assert_int_equal(dprintf(fd, "#!/bin/sh\n%s\n", script), strlen(script) + 11);
    close(fd);
}

static void payload_passes_where_it_must(void **state)
{
    struct gw_accel_trial trial;
    struct gw_error e = {0};

    (void)state;
    if (gw_accel_trial_start(qemu, "tcg", dir, &trial, &e) != 0)
        fail_msg("%s", e.msg);
    run_to_the_end(&trial);
    assert_true(trial.usable);
    gw_accel_trial_fini(&trial);
}

/* A KVM that interprets its guest says so in its module's name; this one must be rejected. */
static void kvm_is_judged(void **state)
{
    struct gw_accel_trial trial;
    struct gw_error e = {0};
    int r;

    (void)state;
    r = gw_accel_trial_start(qemu, "kvm", dir, &trial, &e);
    if (r < 0)
        fail_msg("%s", e.msg);
    if (r == 0)
        run_to_the_end(&trial);
    assert_true(trial.why[0] != '\0');
    if (access("/dev/kvm", R_OK | W_OK) < 0 || access("/sys/module/kvm_pvm", F_OK) == 0)
        assert_false(trial.usable);
    gw_accel_trial_fini(&trial);
}

static void other_ends_are_no_pass(void **state)
{
    static const struct {
        const char *script, *why;
    } table[] = {
        {"echo 'Could not access KVM kernel module' >&2; exit 1",
         "QEMU exited with status 1 while a trial guest was entering long mode: Could not access "
         "KVM kernel module"},
        {"exit 0", "QEMU exited with status 0 while a trial guest was entering long mode"},
        {"for a; do case $a in file:*) printf LC >${a#file:};; esac; done; kill -ABRT $$",
         "QEMU was killed by SIGABRT while a trial guest was taking page faults"},
    };
    struct gw_accel_trial trial;
    struct gw_error e;
    char program[96];

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        make_program(program, table[i].script);
        assert_int_equal(gw_accel_trial_start(program, "tcg", dir, &trial, &e), 0);
        run_to_the_end(&trial);
        unlink(program);
        assert_false(trial.usable);
        assert_string_equal(trial.why, table[i].why);
    }
}

static void a_slow_guest_is_killed(void **state)
{
    struct gw_accel_trial trial;
    struct gw_error e;
    char program[96];

    (void)state;
    make_program(program, "for a; do case $a in file:*) printf L >${a#file:};; esac; done\n"
                          "while :; do :; done");
    assert_int_equal(gw_accel_trial_start(program, "tcg", dir, &trial, &e), 0);
    run_to_the_end(&trial);
    unlink(program);
    assert_false(trial.usable);
    assert_memory_equal(trial.why, "a trial guest was still running supervisor code after 1.", 56);
}

static void what_cannot_be_tried_is_an_error(void **state)
{
    struct gw_accel_trial trial;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_accel_trial_start("/nonexistent/qemu", "tcg", dir, &trial, &e), -1);
    assert_string_equal(e.msg, "try tcg: start /nonexistent/qemu: No such file or directory");
    gw_accel_trial_fini(&trial);
    assert_int_equal(gw_accel_trial_start(qemu, "tcg", "/nonexistent", &trial, &e), -1);
    assert_int_equal(gw_accel_trial_start(qemu, "tcg", "/tmp/a,b", &trial, &e), -1);
    assert_int_equal(e.code, GW_E_CONFIG);
    /* Given up while it runs. */
    assert_int_equal(gw_accel_trial_start("yes", "tcg", dir, &trial, &e), 0);
    gw_accel_trial_fini(&trial);
    gw_accel_trial_fini(&trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(payload_passes_where_it_must, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(kvm_is_judged, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(other_ends_are_no_pass, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_slow_guest_is_killed, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_cannot_be_tried_is_an_error, make_dir, remove_dir),
    };

    if (system("qemu-system-x86_64 --version >/dev/null 2>&1") != 0) {
        fprintf(stderr, "skipped: no qemu-system-x86_64 (see ./setup)\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
