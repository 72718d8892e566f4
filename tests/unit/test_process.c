/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "host/process.h"
#include "util/cleanup.h"

static char log_path[64];

static int make_log(void **state)
{
    int fd;

    (void)state;
    strcpy(log_path, "/tmp/gw-test-process-XXXXXX");
    fd = mkstemp(log_path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_log(void **state)
{
    (void)state;
    return unlink(log_path);
}

static void write_log(const char *bytes, size_t n)
{
    int fd = open(log_path, O_WRONLY | O_TRUNC);

    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
}

static void start_shell(const char *script, struct gw_process *p)
{
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)script, NULL};
    struct gw_error e = {0};

    if (gw_process_start(argv, log_path, p, &e) < 0)
        fail_msg("%s", e.msg);
}

static void wait_end(const struct gw_process *p)
{
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

    assert_int_equal(poll(&pfd, 1, 10000), 1);
}

static void expect_end(struct gw_process *p, const char *how)
{
    struct gw_process_exit ex;
    char text[64];

    wait_end(p);
    assert_false(gw_process_alive(p));
    assert_int_equal(gw_process_reap(p, &ex), 0);
    gw_process_exit_text(&ex, text, sizeof text);
    assert_string_equal(text, how);
    gw_process_fini(p);
    gw_process_fini(p);
    assert_int_equal(p->pidfd, -1);
}

static void ends_are_told(void **state)
{
    static const struct {
        const char *script, *how;
    } table[] = {
        {"exit 0", "exited with status 0"},
        {"exit 1", "exited with status 1"},
        {"kill -KILL $$", "was killed by SIGKILL"},
        {"kill -TERM $$", "was killed by SIGTERM"},
    };
    struct gw_process p;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++) {
        start_shell(table[i].script, &p);
        expect_end(&p, table[i].how);
    }
}

/* What a program, without a shell around it, sees of itself. */
static void expect_output(const char *program, const char *arg, const char *arg2,
                          const char *expected)
{
    char *argv[] = {(char *)program, (char *)arg, (char *)arg2, NULL};
    struct gw_error e = {0};
    struct gw_process p;
    uint64_t offset;
    char text[256];

    if (gw_process_start(argv, log_path, &p, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(getsid(p.pid), p.pid);
    offset = p.log_offset;
    expect_end(&p, "exited with status 0");
    gw_process_log_tail(log_path, offset, text, sizeof text);
    assert_string_equal(text, expected);
}

static void is_set_apart(void **state)
{
    int stray = open("/dev/null", O_RDONLY); /* not close-on-exec */
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    sigset_t usr1;

    (void)state;
    assert_true(stray >= 0);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
    sigaction(SIGUSR2, &ignore, &old);
    expect_output("ls", "/proc/self/fd", NULL, "0; 1; 2; 3"); /* 3: the directory itself */
    expect_output("readlink", "/proc/self/fd/0", NULL, "/dev/null");
    expect_output("readlink", "/proc/self/fd/2", NULL, log_path);
    expect_output("grep", "^SigBlk", "/proc/self/status", "SigBlk: 0000000000000000");
    expect_output("grep", "^SigIgn", "/proc/self/status", "SigIgn: 0000000000000000");
    sigprocmask(SIG_UNBLOCK, &usr1, NULL);
    sigaction(SIGUSR2, &old, NULL);
    close(stray);
}

static void log_is_private_and_appended(void **state)
{
    struct gw_process p;
    struct stat st;
    char text[64];

    (void)state;
    assert_int_equal(unlink(log_path), 0);
    start_shell("echo first", &p);
    assert_int_equal(p.log_offset, 0);
    expect_end(&p, "exited with status 0");
    assert_int_equal(stat(log_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    start_shell("echo second >&2", &p);
    assert_int_equal(p.log_offset, 6);
    expect_end(&p, "exited with status 0");
    gw_process_log_tail(log_path, 0, text, sizeof text);
    assert_string_equal(text, "first; second");
    gw_process_log_tail(log_path, 6, text, sizeof text);
    assert_string_equal(text, "second");
}

static void what_cannot_run_is_an_error(void **state)
{
    static const struct {
        const char *program;
        int sys;
    } table[] = {
        {"/nonexistent/qemu", ENOENT},
        {"gw-no-such-program", ENOENT},
        {"/etc/passwd", EACCES},
    };
    struct gw_error e;
    struct gw_process p;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++) {
        char *argv[] = {(char *)table[i].program, NULL};

        assert_int_equal(gw_process_start(argv, log_path, &p, &e), -1);
        assert_int_equal(e.sys, table[i].sys);
        assert_non_null(strstr(e.msg, table[i].program));
        assert_true(e.hint[0] != '\0');
        assert_int_equal(p.pidfd, -1);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie */
    }
    assert_int_equal(gw_process_start((char *[]){(char *)"true", NULL}, "/nonexistent/log", &p, &e),
                     -1);
    assert_int_equal(e.sys, ENOENT);
}

static void attach_finds_the_same_one_only(void **state)
{
    struct gw_process p, again;
    struct gw_process_exit ex;
    struct gw_error e;
    pid_t pid;

    (void)state;
    start_shell("exec sleep 1000", &p);
    pid = p.pid;
    assert_int_equal(gw_process_attach(pid, p.start_time, &again, &e), 0);
    assert_int_equal(again.start_time, p.start_time);
    assert_true(gw_process_alive(&again));
    assert_int_equal(gw_process_reap(&again, &ex), 1);
    gw_process_fini(&again);
    assert_int_equal(gw_process_attach(pid, p.start_time + 1, &again, &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    assert_int_equal(again.pidfd, -1);
    assert_int_equal(gw_process_attach(pid, 0, &again, &e), 0);

    assert_int_equal(gw_process_signal(&p, SIGKILL), 0);
    wait_end(&p);
    assert_false(gw_process_alive(&again));
    assert_int_equal(gw_process_attach(pid, 0, &(struct gw_process){0}, &e), -1); /* a zombie */
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    expect_end(&p, "was killed by SIGKILL");
    assert_int_equal(gw_process_signal(&again, SIGTERM), -ESRCH);
    assert_int_equal(gw_process_reap(&again, &ex), 0);
    assert_false(ex.known);
    gw_process_fini(&again);
    assert_int_equal(gw_process_attach(pid, 0, &again, &e), -1);
    assert_int_equal(gw_process_attach(0, 0, &again, &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
}

static void uses_are_counted(void **state)
{
    struct gw_process p = GW_PROCESS_NONE;
    uint64_t bytes = 0, ns = 0;

    (void)state;
    assert_int_equal(gw_process_rss(&p, &bytes), -ESRCH);
    start_shell("while :; do :; done", &p);
    assert_int_equal(gw_process_rss(&p, &bytes), 0);
    assert_in_range(bytes, 4096, 1 << 26);
    while (ns == 0)
        assert_int_equal(gw_process_cpu_time(&p, &ns), 0);
    assert_int_equal(gw_process_signal(&p, SIGKILL), 0);
    expect_end(&p, "was killed by SIGKILL");
    assert_int_equal(gw_process_rss(&p, &bytes), -ESRCH);
    assert_int_equal(gw_process_signal(&p, SIGKILL), -ESRCH);
}

static void tails_are_clean(void **state)
{
    static const struct {
        const char *log, *tail;
        size_t size;
    } table[] = {
        {"", "", 64},
        {"\n\n", "", 64},
        {"one", "one", 64},
        {"one\n\ntwo\r\n\n", "one; two", 64},
        {"a\tb\x01\x7f", "a b??", 64},
        {"\x1b[1;31mred\x1b[0m \x1b", "red", 64},
        {"caf\xc3\xa9 \xc3( \xff \xed\xa0\x80 \xc2\x9b", "caf\xc3\xa9 ?( ? ??? ??", 64},
        {"first line\nsecond\nthird", "second; third", 14},
        {"first line\nsecond\nthird", "third", 13},
        {"\xc3\xa9\xc3\xa9\xc3\xa9", "\xc3\xa9\xc3\xa9", 6},
        {"abcdef", "f", 2},
        {"abcdef", "", 1},
    };
    char text[64];

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++) {
        write_log(table[i].log, strlen(table[i].log));
        gw_process_log_tail(log_path, 0, text, table[i].size);
        assert_string_equal(text, table[i].tail);
    }
    gw_process_log_tail("/nonexistent", 0, text, sizeof text);
    assert_string_equal(text, "");
    gw_process_log_tail("/dev/zero", 0, text, sizeof text);
    assert_string_equal(text, "");
}

static void long_logs_begin_with_a_whole_line(void **state)
{
    char log[10000], text[512];

    (void)state;
    memset(log, 'x', sizeof log);
    log[7000] = '\n';
    for (size_t i = 9000; i < sizeof log; i += 10)
        log[i] = '\n';
    write_log(log, sizeof log);
    gw_process_log_tail(log_path, 0, text, sizeof text);
    assert_true(strlen(text) > 500);
    assert_memory_equal(text, "xxxxxxxxx; ", 11);
    gw_process_log_tail(log_path, 9985, text, sizeof text);
    assert_string_equal(text, "xxxxx; xxxxxxxxx");
}

static void steps_back(void **state)
{
    struct gw_process p;
    char path[64], text[64] = "";
    int fd;

    (void)state;
    start_shell("exec sleep 60", &p);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)p.pid), getpriority(PRIO_PROCESS, 0));
    gw_process_step_back(&p);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)p.pid), 19);
    snprintf(path, sizeof path, "/proc/%d/autogroup", (int)p.pid);
    fd = open(path, O_RDONLY);
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0) /* "/autogroup-123 nice 19" */
        assert_non_null(strstr(text, "nice 19"));
    close(fd);
    gw_process_signal(&p, SIGKILL);
    expect_end(&p, "was killed by SIGKILL");
    gw_process_step_back(&GW_PROCESS_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ends_are_told, make_log, remove_log),
        cmocka_unit_test_setup_teardown(is_set_apart, make_log, remove_log),
        cmocka_unit_test_setup_teardown(log_is_private_and_appended, make_log, remove_log),
        cmocka_unit_test_setup_teardown(what_cannot_run_is_an_error, make_log, remove_log),
        cmocka_unit_test_setup_teardown(attach_finds_the_same_one_only, make_log, remove_log),
        cmocka_unit_test_setup_teardown(uses_are_counted, make_log, remove_log),
        cmocka_unit_test_setup_teardown(steps_back, make_log, remove_log),
        cmocka_unit_test_setup_teardown(tails_are_clean, make_log, remove_log),
        cmocka_unit_test_setup_teardown(long_logs_begin_with_a_whole_line, make_log, remove_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
