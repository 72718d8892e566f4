/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <sqlite3.h>

#include "shell/journal.h"
#include "shell/unwritten.h"

/* A directory of its own for each test, and the journal in it. */
struct world {
    char dir[32];
    char path[64];
    struct gw_journal *journal;
    struct gw_error e;
};

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    strcpy(w->dir, "/tmp/gw-journal-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->path, sizeof w->path, "%s/journal.db", w->dir);
    assert_int_equal(gw_journal_open(w->path, NULL, &w->journal, &w->e), 0);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    DIR *d = opendir(w->dir);
    struct dirent *entry;

    gw_journal_close(w->journal);
    while ((entry = readdir(d)))
        unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

static void reopen(struct world *w)
{
    gw_journal_close(w->journal);
    if (gw_journal_open(w->path, NULL, &w->journal, &w->e) < 0)
        fail_msg("%s", w->e.msg);
}

static void begin(struct gw_journal *j, const char *id, int64_t at_ms)
{
    json_t *record = json_pack("{s:s}", "policy", "default");
    const struct gw_journal_migration m = {
        .id = id,
        .vm = "web1",
        .uuid = "5c1f0c54-0f3c-4b5c-8d75-9b9f5f3f9d10",
        .from_node = "n1",
        .to_node = "n2",
        .role = "source",
        .phase = "preparing",
        .peer = "10.0.0.2:7411",
        .started_at_ms = at_ms,
        .record = record,
    };
    struct gw_error e;

    if (gw_journal_migration_begin(j, &m, &e) < 0)
        fail_msg("%s", e.msg);
    json_decref(record);
}

/* What was visited, as text: "id/phase " for each migration. */
struct seen {
    struct gw_journal_on_migration on_migration;
    struct gw_journal_on_note on_note;
    struct gw_journal_on_vm on_vm;
    struct gw_journal *journal; /* what a visit that writes writes to */
    char text[512];
};

static int see_migration(struct gw_journal_on_migration *self, const struct gw_journal_migration *m)
{
    struct seen *s = gw_container_of(self, struct seen, on_migration);
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof s->text - n, "%s/%s ", m->id, m->phase);
    return 0;
}

static int end_migration(struct gw_journal_on_migration *self, const struct gw_journal_migration *m)
{
    struct seen *s = gw_container_of(self, struct seen, on_migration);
    struct gw_error e;

    see_migration(self, m);
    assert_int_equal(gw_journal_migration_unfinished(s->journal, self, &e), -1);
    assert_int_equal(e.code, GW_E_BUSY);
    assert_int_equal(gw_journal_migration_phase(s->journal, m->id, "failing", 5, &e), 0);
    assert_int_equal(gw_journal_migration_end(s->journal, m->id, "failed", 6, NULL, &e), 0);
    return 0;
}

static int see_note(struct gw_journal_on_note *self, const struct gw_journal_note *note)
{
    struct seen *s = gw_container_of(self, struct seen, on_note);
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof s->text - n, "%lld/%s/%s/%s ", (long long)note->at_ms,
             gw_journal_kind_name(note->kind), note->text, note->data ? "data" : "-");
    return 0;
}

static int see_vm(struct gw_journal_on_vm *self, const struct gw_journal_vm *vm)
{
    struct seen *s = gw_container_of(self, struct seen, on_vm);
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof s->text - n, "%s/%s/%lld/%llu/%s/%s ", vm->name, vm->state,
             (long long)vm->pid, (unsigned long long)vm->start_ticks,
             vm->qmp_path ? vm->qmp_path : "-", vm->migration ? vm->migration : "-");
    return 0;
}

static struct seen seen_nothing(struct gw_journal *j)
{
    return (struct seen){{see_migration}, {see_note}, {see_vm}, j, ""};
}

static const char *list(struct gw_journal *j, int64_t limit, struct seen *s)
{
    *s = seen_nothing(j);
    assert_int_equal(gw_journal_migration_list(j, limit, &s->on_migration, NULL), 0);
    return s->text;
}

static const char *unfinished(struct gw_journal *j, struct seen *s)
{
    *s = seen_nothing(j);
    assert_int_equal(gw_journal_migration_unfinished(j, &s->on_migration, NULL), 0);
    return s->text;
}

static int check_whole_row(struct gw_journal_on_migration *self,
                           const struct gw_journal_migration *m)
{
    (void)self;
    assert_string_equal(m->vm, "web1");
    assert_string_equal(m->from_node, "n1");
    assert_string_equal(m->to_node, "n2");
    assert_string_equal(m->role, "source");
    assert_string_equal(m->peer, "10.0.0.2:7411");
    assert_int_equal(m->started_at_ms, 100);
    assert_int_equal(m->ended_at_ms, 900);
    assert_string_equal(json_string_value(json_object_get(m->record, "policy")), "default");
    return 0;
}

static void a_migration_from_begin_to_end(void **state)
{
    struct world *w = *state;
    struct gw_journal_on_migration whole = {check_whole_row};
    struct seen s;

    begin(w->journal, "m-1", 100);
    begin(w->journal, "m-2", 200);
    assert_int_equal(gw_journal_migration_phase(w->journal, "m-1", "precopy", 150, &w->e), 0);
    assert_string_equal(unfinished(w->journal, &s), "m-1/precopy m-2/preparing ");
    assert_int_equal(gw_journal_migration_end(w->journal, "m-1", "completed", 900, NULL, &w->e), 0);
    assert_string_equal(unfinished(w->journal, &s), "m-2/preparing ");
    assert_string_equal(list(w->journal, 10, &s), "m-2/preparing m-1/completed ");
    assert_string_equal(list(w->journal, 1, &s), "m-2/preparing ");
    assert_string_equal(list(w->journal, -1, &s), "");
    assert_int_equal(gw_journal_migration_get(w->journal, "m-1", &whole, &w->e), 0);
}

static void what_is_unknown_is_not_found(void **state)
{
    struct world *w = *state;
    const struct gw_journal_note note = {1, GW_JOURNAL_LOG, "x", NULL};
    struct seen s = seen_nothing(w->journal);

    assert_int_equal(gw_journal_migration_get(w->journal, "m-9", &s.on_migration, &w->e), -1);
    assert_int_equal(w->e.code, GW_E_NOT_FOUND);
    assert_string_equal(w->e.msg, "there is no migration 'm-9'");
    assert_int_equal(gw_journal_migration_phase(w->journal, "m-9", "precopy", 1, &w->e), -1);
    assert_int_equal(w->e.code, GW_E_NOT_FOUND);
    assert_int_equal(gw_journal_migration_end(w->journal, "m-9", "failed", 1, NULL, &w->e), -1);
    assert_int_equal(w->e.code, GW_E_NOT_FOUND);
    assert_int_equal(gw_journal_note(w->journal, "m-9", &note, &w->e), -1);
    assert_int_equal(w->e.code, GW_E_NOT_FOUND);
    assert_int_equal(gw_journal_notes(w->journal, "m-9", &s.on_note, &w->e), -1);
    assert_int_equal(w->e.code, GW_E_NOT_FOUND);
}

static void an_id_is_used_once(void **state)
{
    struct world *w = *state;
    const struct gw_journal_migration m = {.id = "m-1",
                                           .vm = "v",
                                           .uuid = "u",
                                           .from_node = "a",
                                           .to_node = "b",
                                           .role = "source",
                                           .phase = "preparing"};

    begin(w->journal, "m-1", 1);
    assert_int_equal(gw_journal_migration_begin(w->journal, &m, &w->e), -1);
    assert_int_equal(w->e.code, GW_E_EXISTS);
}

static void quotes_are_only_text(void **state)
{
    struct world *w = *state;
    struct seen s;

    begin(w->journal, "m-1'; DROP TABLE migrations; --", 1);
    assert_string_equal(list(w->journal, 10, &s), "m-1'; DROP TABLE migrations; --/preparing ");
}

static void notes_keep_their_order(void **state)
{
    struct world *w = *state;
    json_t *data = json_pack("{s:s}", "rule", "accel");
    const struct gw_journal_note line = {7, GW_JOURNAL_LOG, "hello", NULL};
    const struct gw_journal_note decision = {6, GW_JOURNAL_DECISION, NULL, data};
    struct seen s = seen_nothing(w->journal);

    begin(w->journal, "m-1", 1);
    assert_int_equal(gw_journal_notes(w->journal, "m-1", &s.on_note, &w->e), 0);
    assert_string_equal(s.text, "");
    assert_int_equal(gw_journal_note(w->journal, "m-1", &line, &w->e), 0);
    assert_int_equal(gw_journal_note(w->journal, "m-1", &decision, &w->e), 0);
    assert_int_equal(gw_journal_migration_phase(w->journal, "m-1", "precopy", 8, &w->e), 0);
    assert_int_equal(gw_journal_notes(w->journal, "m-1", &s.on_note, &w->e), 0);
    assert_string_equal(s.text, "7/log/hello/- 6/decision//data 8/phase/precopy/- ");
    json_decref(data);
}

static void vms_are_found_again(void **state)
{
    struct world *w = *state;
    json_t *spec = json_pack("{s:i}", "cpus", 2);
    struct gw_journal_vm vm = {.name = "web1",
                               .uuid = "u",
                               .spec = spec,
                               .state = "running",
                               .pid = 4711,
                               .start_ticks = UINT64_MAX,
                               .qmp_path = "/run/q"};
    struct seen s = seen_nothing(w->journal);

    assert_int_equal(gw_journal_vm_put(w->journal, &vm, &w->e), 0);
    vm.name = "db1";
    vm.qmp_path = NULL;
    assert_int_equal(gw_journal_vm_put(w->journal, &vm, &w->e), 0);
    vm.state = "moving";
    vm.migration = "m-1";
    assert_int_equal(gw_journal_vm_put(w->journal, &vm, &w->e), 0);
    reopen(w);
    assert_int_equal(gw_journal_vm_each(w->journal, &s.on_vm, &w->e), 0);
    assert_string_equal(s.text, "db1/moving/4711/18446744073709551615/-/m-1 "
                                "web1/running/4711/18446744073709551615//run/q/- ");
    assert_int_equal(gw_journal_vm_remove(w->journal, "db1", &w->e), 0);
    assert_int_equal(gw_journal_vm_remove(w->journal, "db1", &w->e), 0);
    s = seen_nothing(w->journal);
    assert_int_equal(gw_journal_vm_each(w->journal, &s.on_vm, &w->e), 0);
    assert_string_equal(s.text, "web1/running/4711/18446744073709551615//run/q/- ");
    json_decref(spec);
}

static void history_is_pruned(void **state)
{
    struct world *w = *state;
    struct seen s = seen_nothing(w->journal);
    char id[16];

    gw_journal_keep(w->journal, 2);
    begin(w->journal, "m-old", 0);
    for (int i = 1; i <= 4; i++) {
        snprintf(id, sizeof id, "m-%d", i);
        begin(w->journal, id, i);
        assert_int_equal(gw_journal_migration_phase(w->journal, id, "precopy", i, &w->e), 0);
        assert_int_equal(gw_journal_migration_end(w->journal, id, "failed", i, NULL, &w->e), 0);
    }
    /* One that has not ended is never forgotten, however old. */
    assert_string_equal(list(w->journal, 10, &s), "m-4/failed m-3/failed m-old/preparing ");
    assert_int_equal(gw_journal_notes(w->journal, "m-1", &s.on_note, &w->e), -1);
}

/* After a start: visiting what was left undone and ending it, in the visit. */
static void visits_may_write(void **state)
{
    struct world *w = *state;
    struct seen s = seen_nothing(w->journal);

    s.on_migration.fn = end_migration;
    begin(w->journal, "m-1", 1);
    begin(w->journal, "m-2", 2);
    begin(w->journal, "m-3", 3);
    assert_int_equal(gw_journal_migration_unfinished(w->journal, &s.on_migration, &w->e), 0);
    assert_string_equal(s.text, "m-1/preparing m-2/preparing m-3/preparing ");
    assert_string_equal(unfinished(w->journal, &s), "");
}

/* Writes through the journal, then dies with a transaction of its own open. */
static void die_in_the_middle(const char *path)
{
    struct gw_journal *j;
    sqlite3 *db;

    if (gw_journal_open(path, NULL, &j, NULL) < 0)
        _exit(1);
    begin(j, "m-1", 1);
    if (gw_journal_migration_phase(j, "m-1", "precopy", 2, NULL) < 0)
        _exit(1);
    if (sqlite3_open(path, &db) ||
        sqlite3_exec(db,
                     "BEGIN IMMEDIATE; UPDATE migrations SET phase = 'torn';"
                     "DELETE FROM notes;",
                     NULL, NULL, NULL))
        _exit(1);
    _exit(42);
}

static void a_killed_writer_leaves_whole_transactions(void **state)
{
    struct world *w = *state;
    struct seen s = seen_nothing(w->journal);
    struct stat st;
    char wal[80];
    int status;
    pid_t pid;

    gw_journal_close(w->journal);
    w->journal = NULL;
    pid = fork();
    if (pid == 0)
        die_in_the_middle(w->path);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 42);
    snprintf(wal, sizeof wal, "%s-wal", w->path);
    assert_int_equal(stat(wal, &st), 0);
    reopen(w);
    assert_string_equal(unfinished(w->journal, &s), "m-1/precopy ");
    s = seen_nothing(w->journal);
    assert_int_equal(gw_journal_notes(w->journal, "m-1", &s.on_note, &w->e), 0);
    assert_string_equal(s.text, "2/phase/precopy/- ");
}

static int n_damaged(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    int n = 0;

    while ((entry = readdir(d)))
        n += strstr(entry->d_name, ".damaged-") != NULL;
    closedir(d);
    return n;
}

static void overwrite(const char *path, off_t at, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    char rubbish[8192];

    memset(rubbish, 'x', sizeof rubbish);
    assert_true(n <= sizeof rubbish);
    assert_int_equal(pwrite(fd, rubbish, n, at), n);
    close(fd);
}

/* The file is kept aside, and an empty journal works in its place. */
static void assert_started_anew(struct world *w)
{
    struct seen s;

    reopen(w);
    assert_int_equal(n_damaged(w->dir), 1);
    assert_string_equal(list(w->journal, 10, &s), "");
    begin(w->journal, "m-new", 1);
    assert_string_equal(list(w->journal, 10, &s), "m-new/preparing ");
}

static void garbage_is_moved_aside(void **state)
{
    struct world *w = *state;

    gw_journal_close(w->journal);
    w->journal = NULL;
    unlink(w->path);
    overwrite(w->path, 0, 5000);
    assert_started_anew(w);
}

static void a_torn_file_is_moved_aside(void **state)
{
    struct world *w = *state;

    begin(w->journal, "m-1", 1);
    gw_journal_close(w->journal);
    w->journal = NULL;
    assert_int_equal(truncate(w->path, 6000), 0);
    assert_started_anew(w);
}

static void a_rotten_page_is_moved_aside(void **state)
{
    struct world *w = *state;

    begin(w->journal, "m-1", 1);
    gw_journal_close(w->journal);
    w->journal = NULL;
    overwrite(w->path, 4096, 4096);
    assert_started_anew(w);
}

static void an_empty_file_is_a_new_journal(void **state)
{
    struct world *w = *state;

    gw_journal_close(w->journal);
    w->journal = NULL;
    assert_int_equal(truncate(w->path, 0), 0);
    reopen(w);
    assert_int_equal(n_damaged(w->dir), 0);
    begin(w->journal, "m-1", 1);
}

static void a_newer_file_is_left_alone(void **state)
{
    struct world *w = *state;
    sqlite3 *db;

    gw_journal_close(w->journal);
    w->journal = NULL;
    assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(gw_journal_open(w->path, NULL, &w->journal, &w->e), -1);
    assert_null(w->journal);
    assert_int_equal(w->e.code, GW_E_UNSUPPORTED);
    assert_non_null(strstr(w->e.msg, "has version 99, this godwitd knows 1"));
    assert_int_equal(n_damaged(w->dir), 0);
}

static void only_the_owner_may_read(void **state)
{
    struct world *w = *state;
    struct stat st;

    assert_int_equal(stat(w->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* In a child, as root would be let in anywhere. */
static void try_as_nobody(const char *path, const char *expected)
{
    struct gw_journal *j;
    struct gw_error e = {0};

    if (geteuid() == 0 && (setegid(65534) < 0 || seteuid(65534) < 0))
        _exit(2);
    if (gw_journal_open(path, NULL, &j, &e) == 0)
        _exit(3);
    if (!strstr(e.msg, path) || !strstr(e.msg, expected)) {
        fprintf(stderr, "%s\n", e.msg);
        _exit(4);
    }
    _exit(0);
}

static int status_as_nobody(const char *path, const char *expected)
{
    pid_t pid = fork();
    int status;

    if (pid == 0)
        try_as_nobody(path, expected);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

static void a_directory_that_cannot_be_written(void **state)
{
    struct world *w = *state;
    char other[64];

    snprintf(other, sizeof other, "%s/other.db", w->dir);
    chmod(w->dir, 0555);
    assert_int_equal(status_as_nobody(other, "Permission denied"), 0);
    /* A file that could be written, but not what SQLite has to put beside it. */
    gw_journal_close(w->journal);
    w->journal = NULL;
    chmod(w->path, 0666);
    assert_int_equal(status_as_nobody(w->path, "readonly database"), 0);
    chmod(w->dir, 0755);
    assert_int_equal(gw_journal_open("/nonexistent/j.db", NULL, &w->journal, &w->e), -1);
    assert_string_equal(w->e.msg, "open journal /nonexistent/j.db: No such file or directory");
    assert_string_not_equal(w->e.hint, "");
}

static void expect_unfinished(struct world *w, const char *expected)
{
    struct seen seen = {.on_migration = {see_migration}};

    assert_int_equal(gw_journal_migration_unfinished(w->journal, &seen.on_migration, &w->e), 0);
    assert_string_equal(seen.text, expected);
}

/* What is unfinished is written when the lock is gone: by the timer, or at the end. */
static void an_end_that_cannot_be_written_is_kept(void **state)
{
    struct world *w = *state;
    struct event_base *base = event_base_new();
    const struct gw_log log = {.level = GW_LOG_ERROR};
    struct gw_unwritten *u = gw_unwritten_new(base, w->journal, &log);
    sqlite3 *other;

    begin(w->journal, "m-00000001", 1);
    begin(w->journal, "m-00000002", 2);
    begin(w->journal, "m-00000003", 3);
    gw_unwritten_end(u, "m-00000003", "completed", 4, NULL);
    expect_unfinished(w, "m-00000001/preparing m-00000002/preparing ");
    assert_int_equal(sqlite3_open(w->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    gw_unwritten_end(u, "m-00000001", "completed", 5, NULL);
    expect_unfinished(w, "m-00000001/preparing m-00000002/preparing ");
    assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
    expect_unfinished(w, "m-00000002/preparing ");
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    gw_unwritten_end(u, "m-00000002", "failed", 6, NULL);
    sqlite3_close(other);
    gw_unwritten_free(u);
    event_base_free(base);
    expect_unfinished(w, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_migration_from_begin_to_end),
        TEST(what_is_unknown_is_not_found),
        TEST(an_id_is_used_once),
        TEST(quotes_are_only_text),
        TEST(notes_keep_their_order),
        TEST(vms_are_found_again),
        TEST(history_is_pruned),
        TEST(visits_may_write),
        TEST(a_killed_writer_leaves_whole_transactions),
        TEST(garbage_is_moved_aside),
        TEST(a_torn_file_is_moved_aside),
        TEST(a_rotten_page_is_moved_aside),
        TEST(an_empty_file_is_a_new_journal),
        TEST(a_newer_file_is_left_alone),
        TEST(only_the_owner_may_read),
        TEST(a_directory_that_cannot_be_written),
        TEST(an_end_that_cannot_be_written_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
