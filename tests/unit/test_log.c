/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "util/cleanup.h"
#include "util/log.h"

/* What went to stderr between capture() and released(). */
struct tape {
    int saved_fd, fd;
    char text[8192];
};

static void capture(struct tape *t)
{
    fflush(stderr);
    t->saved_fd = dup(STDERR_FILENO);
    t->fd = memfd_create("stderr", MFD_CLOEXEC);
    assert_true(t->saved_fd >= 0 && t->fd >= 0);
    assert_int_equal(dup2(t->fd, STDERR_FILENO), STDERR_FILENO);
}

static const char *released(struct tape *t)
{
    ssize_t n;

    fflush(stderr);
    dup2(t->saved_fd, STDERR_FILENO);
    close(t->saved_fd);
    n = pread(t->fd, t->text, sizeof t->text - 1, 0);
    assert_true(n >= 0);
    t->text[n] = '\0';
    close(t->fd);
    return t->text;
}

static void check_matches(const char *text, const char *pattern)
{
    regex_t re;
    int rc;

    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    rc = regexec(&re, text, 0, NULL, 0);
    regfree(&re);
    if (rc != 0)
        fail_msg("'%s' does not match %s", text, pattern);
}

static void a_line_has_time_level_scope_text(void **state)
{
    const struct gw_log log = {.level = GW_LOG_DEBUG};
    static const struct {
        enum gw_log_level level;
        const char *pattern;
    } cases[] = {
        {GW_LOG_ERROR, "Z error   \\[web1\\] 7 of it\n$"},
        {GW_LOG_WARNING, "Z warning \\[web1\\] 7 of it\n$"},
        {GW_LOG_INFO, "Z info    \\[web1\\] 7 of it\n$"},
        {GW_LOG_DEBUG, "Z debug   \\[web1\\] 7 of it\n$"},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct tape t;

        capture(&t);
        gw_log(&log, cases[i].level, "web1", "%d of %s", 7, "it");
        check_matches(released(&t), cases[i].pattern);
        check_matches(t.text, "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:"
                              "[0-6][0-9]\\.[0-9]{3}Z ");
    }
}

static void levels_above_the_log_s_are_dropped(void **state)
{
    static const enum gw_log_level levels[] = {GW_LOG_ERROR, GW_LOG_WARNING, GW_LOG_INFO,
                                               GW_LOG_DEBUG};

    (void)state;
    for (unsigned most = 0; most < GW_ARRAY_SIZE(levels); most++)
        for (unsigned i = 0; i < GW_ARRAY_SIZE(levels); i++) {
            const struct gw_log log = {.level = levels[most]};
            struct tape t;

            capture(&t);
            gw_log(&log, levels[i], "s", "x");
            assert_int_equal(released(&t)[0] != '\0', i <= most);
        }
}

static void no_log_at_all_is_fine(void **state)
{
    struct tape t;

    (void)state;
    capture(&t);
    gw_log(NULL, GW_LOG_ERROR, "s", "x");
    assert_string_equal(released(&t), "");
}

static void long_lines_are_cut(void **state)
{
    const struct gw_log log = {.level = GW_LOG_INFO};
    char text[4000];
    struct tape t;

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    capture(&t);
    gw_log(&log, GW_LOG_INFO, "s", "%s", text);
    assert_int_equal(strlen(strchr(released(&t), 'x')), 1024); /* 1023 and the line's end */
}

static void one_call_is_one_line(void **state)
{
    static const struct {
        const char *text, *line;
    } cases[] = {
        {"a\nb", "a?b"},
        {"2026-01-01T00:00:00.000Z error\r\n", "2026-01-01T00:00:00.000Z error??"},
        {"\033[2J\177", "?[2J?"},
        {"a\tb", "a\tb"},
        {"Zürich €", "Zürich €"},
    };
    const struct gw_log log = {.level = GW_LOG_INFO};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        const char *at;
        struct tape t;

        capture(&t);
        gw_log(&log, GW_LOG_INFO, "s", "%s", cases[i].text);
        at = strstr(released(&t), "[s] ");
        assert_non_null(at);
        assert_memory_equal(at + 4, cases[i].line, strlen(cases[i].line));
        assert_string_equal(at + 4 + strlen(cases[i].line), "\n");
    }
}

static void levels_have_names(void **state)
{
    static const struct {
        const char *name;
        int level;
    } cases[] = {{"error", GW_LOG_ERROR},
                 {"warning", GW_LOG_WARNING},
                 {"info", GW_LOG_INFO},
                 {"debug", GW_LOG_DEBUG},
                 {"Info", -1},
                 {"", -1},
                 {"?", -1},
                 {"infos", -1},
                 {"6", -1}};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++)
        assert_int_equal(gw_log_level_from_name(cases[i].name), cases[i].level);
}

static void the_journal_is_for_services(void **state)
{
    (void)state;
    unsetenv("JOURNAL_STREAM");
    assert_false(gw_log_journal_wanted());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_level_scope_text),
        cmocka_unit_test(levels_above_the_log_s_are_dropped),
        cmocka_unit_test(no_log_at_all_is_fine),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(one_call_is_one_line),
        cmocka_unit_test(levels_have_names),
        cmocka_unit_test(the_journal_is_for_services),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
