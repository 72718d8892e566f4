/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "shell/token.h"

static int set_up(void **state)
{
    *state = temp_dir();
    return 0;
}

static int tear_down(void **state)
{
    remove_dir(*state);
    return 0;
}

static void the_text_form_round_trips(void **state)
{
    static const char *const addresses[] = {"10.0.0.1", "fd00::1", "n1.example.org"};
    struct gw_token t, back;
    struct gw_error e;
    char text[GW_TOKEN_TEXT_MAX], pasted[GW_TOKEN_TEXT_MAX + 8];

    for (size_t i = 0; i < 3; i++) {
        assert_done(gw_token_make(*state, addresses[i], 7400, time(NULL) + 60, &t, &e), e);
        gw_token_format(&t, text);
        assert_int_equal(strncmp(text, "gwt1.", 5), 0);
        assert_int_equal(strspn(text + 5, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                          "0123456789-_"),
                         strlen(text + 5));
        snprintf(pasted, sizeof pasted, "  %s \n", text);
        assert_done(gw_token_parse(pasted, &back, &e), e);
        assert_memory_equal(&back, &t, sizeof t);
    }
}

static void the_longest_address_fits(void **state)
{
    struct gw_token t = {.expires_at_s = 1, .port = 65535}, back;
    char text[GW_TOKEN_TEXT_MAX];
    struct gw_error e;

    (void)state;
    memset(t.address, 'a', GW_NODE_ADDRESS_MAX);
    for (size_t i = 60; i < GW_NODE_ADDRESS_MAX; i += 60)
        t.address[i] = '.';
    gw_token_format(&t, text);
    assert_done(gw_token_parse(text, &back, &e), e);
    assert_memory_equal(&back, &t, sizeof t);
}

static void any_mistyped_character_is_noticed(void **state)
{
    struct gw_token t, back;
    struct gw_error e;
    char text[GW_TOKEN_TEXT_MAX], wrong[GW_TOKEN_TEXT_MAX + 1];
    size_t len;

    assert_done(gw_token_make(*state, "10.0.0.1", 7400, time(NULL) + 60, &t, &e), e);
    gw_token_format(&t, text);
    len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        strcpy(wrong, text);
        wrong[i] = i % 2 ? '!' : wrong[i] == 'B' ? 'g' : 'B';
        assert_int_equal(gw_token_parse(wrong, &back, &e), -1);
        assert_int_equal(e.code, GW_E_USAGE);
        strcpy(wrong, text);
        wrong[i] = '\0';
        assert_int_equal(gw_token_parse(wrong, &back, &e), -1);
    }
    snprintf(wrong, sizeof wrong, "%s x", text);
    assert_int_equal(gw_token_parse(wrong, &back, &e), -1);
    assert_int_equal(gw_token_parse("", &back, &e), -1);
    assert_int_equal(gw_token_parse("gwt1.", &back, &e), -1);
    memset(wrong, 'A', sizeof wrong - 1);
    memcpy(wrong, "gwt1.", 5);
    wrong[sizeof wrong - 1] = '\0';
    assert_int_equal(gw_token_parse(wrong, &back, &e), -1);
}

static void a_token_is_good_once(void **state)
{
    uint8_t secret[GW_TOKEN_SECRET_BYTES];
    struct gw_token t;
    struct gw_error e;

    assert_done(gw_token_make(*state, "10.0.0.1", 7400, time(NULL) + 60, &t, &e), e);
    assert_done(gw_token_find(*state, t.id, secret, &e), e);
    assert_memory_equal(secret, t.secret, sizeof secret);
    assert_done(gw_token_consume(*state, t.id, &e), e);
    assert_int_equal(gw_token_consume(*state, t.id, &e), -1);
    assert_int_equal(e.code, GW_E_PERMISSION);
    assert_int_equal(gw_token_find(*state, t.id, secret, &e), -1);
    assert_int_equal(e.code, GW_E_PERMISSION);
}

static void expired_tokens_go_away(void **state)
{
    uint8_t secret[GW_TOKEN_SECRET_BYTES];
    struct gw_token old, open, third;
    struct gw_error e;

    assert_done(gw_token_make(*state, "10.0.0.1", 7400, time(NULL) - 1, &old, &e), e);
    assert_int_equal(gw_token_find(*state, old.id, secret, &e), -1);
    assert_done(gw_token_make(*state, "10.0.0.1", 7400, time(NULL) - 1, &old, &e), e);
    assert_int_equal(gw_token_consume(*state, old.id, &e), -1);
    assert_done(gw_token_make(*state, "10.0.0.1", 7400, time(NULL) - 1, &old, &e), e);
    assert_done(gw_token_make(*state, "10.0.0.1", 7400, time(NULL) + 60, &open, &e), e);
    assert_done(gw_token_make(*state, "10.0.0.1", 7400, time(NULL) + 60, &third, &e), e);
    assert_int_equal(gw_token_purge(*state), 2);
    assert_int_equal(gw_token_purge("/nonexistent"), 0);
}

static void secrets_are_private(void **state)
{
    struct gw_token t;
    struct gw_error e;
    struct stat st;
    char path[256];
    int n;

    assert_done(gw_token_make(*state, "10.0.0.1", 7400, time(NULL) + 60, &t, &e), e);
    n = snprintf(path, sizeof path, "%s/tokens", (char *)*state);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    n += sprintf(path + n, "/");
    for (size_t i = 0; i < sizeof t.id; i++)
        n += sprintf(path + n, "%02x", t.id[i]);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* All children wait at a pipe and then go at once. */
static void of_racing_processes_one_wins(void **state)
{
    struct gw_token t;
    struct gw_error e;
    int gate[2], n_won = 0, status;
    char c;

    assert_done(gw_token_make(*state, "10.0.0.1", 7400, time(NULL) + 60, &t, &e), e);
    assert_int_equal(pipe(gate), 0);
    for (int i = 0; i < 8; i++) {
        if (fork() == 0) {
            close(gate[1]);
            if (read(gate[0], &c, 1) < 0)
                _exit(2);
            _exit(gw_token_consume(*state, t.id, &e) == 0 ? 0 : 1);
        }
    }
    close(gate[0]);
    close(gate[1]);
    for (int i = 0; i < 8; i++) {
        assert_true(wait(&status) > 0);
        n_won += WEXITSTATUS(status) == 0;
    }
    assert_int_equal(n_won, 1);
}

#define with_dir(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_dir(the_text_form_round_trips),
        cmocka_unit_test(the_longest_address_fits),
        with_dir(any_mistyped_character_is_noticed),
        with_dir(a_token_is_good_once),
        with_dir(expired_tokens_go_away),
        with_dir(secrets_are_private),
        with_dir(of_racing_processes_one_wins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
