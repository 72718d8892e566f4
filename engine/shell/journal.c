/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <sqlite3.h>

#include "shell/journal.h"

#define BUSY_TIMEOUT_MS 100

/* Checking a file takes about 10 ms for this much. A larger one is only checked after a crash. */
#define ALWAYS_CHECKED_BYTES (8 * 1024 * 1024)

/*
 * Step n takes a file of user_version n to n + 1. A step that was ever released is never changed:
 * add another one.
 */
static const char *const schema_steps[] = {
    "CREATE TABLE migrations ("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " vm TEXT NOT NULL,"
    " uuid TEXT NOT NULL,"
    " from_node TEXT NOT NULL,"
    " to_node TEXT NOT NULL,"
    " role TEXT NOT NULL CHECK (role IN ('source', 'destination')),"
    " phase TEXT NOT NULL,"
    " peer TEXT,"
    " started_at_ms INTEGER NOT NULL,"
    " ended_at_ms INTEGER,"
    " record TEXT);"
    "CREATE INDEX migrations_unfinished ON migrations (seq) WHERE ended_at_ms IS NULL;"
    "CREATE TABLE notes ("
    " seq INTEGER PRIMARY KEY,"
    " migration INTEGER NOT NULL REFERENCES migrations (seq) ON DELETE CASCADE,"
    " at_ms INTEGER NOT NULL,"
    " kind INTEGER NOT NULL,"
    " text TEXT NOT NULL,"
    " data TEXT);"
    "CREATE INDEX notes_of_migration ON notes (migration);"
    "CREATE TABLE vms ("
    " name TEXT PRIMARY KEY,"
    " uuid TEXT NOT NULL,"
    " spec TEXT,"
    " state TEXT NOT NULL,"
    " pid INTEGER NOT NULL,"
    " start_ticks INTEGER NOT NULL,"
    " qmp_path TEXT,"
    " run_dir TEXT,"
    " migration TEXT) WITHOUT ROWID;"
    "PRAGMA user_version = 1;",
};

#define SCHEMA_VERSION ((int)GW_ARRAY_SIZE(schema_steps))

enum statement {
    BEGIN,
    COMMIT,
    ROLLBACK,
    MIGRATION_BEGIN,
    MIGRATION_PHASE,
    MIGRATION_END,
    MIGRATION_PRUNE,
    MIGRATION_GET,
    MIGRATION_LIST,
    MIGRATION_UNFINISHED,
    NOTE,
    NOTES,
    VM_PUT,
    VM_REMOVE,
    VM_EACH,
    N_STATEMENTS
};

#define MIGRATION_COLUMNS \
    "id, vm, uuid, from_node, to_node, role, phase, peer, started_at_ms, ended_at_ms, record"

/* "ORDER BY +x" has SQLite sort, and so read, all rows before it gives the first one: that is why
 * a walk does not see what its callback changes. */
static const char *const sql[N_STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [MIGRATION_BEGIN] = "INSERT INTO migrations (id, vm, uuid, from_node, to_node, role, phase,"
                        " peer, started_at_ms, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [MIGRATION_PHASE] = "UPDATE migrations SET phase = ? WHERE id = ?",
    [MIGRATION_END] = "UPDATE migrations SET phase = ?, ended_at_ms = ?,"
                      " record = coalesce(?, record) WHERE id = ?",
    [MIGRATION_PRUNE] = "DELETE FROM migrations WHERE ended_at_ms IS NOT NULL AND seq <= ("
                        " SELECT seq FROM migrations WHERE ended_at_ms IS NOT NULL"
                        " ORDER BY seq DESC LIMIT 1 OFFSET ?)",
    [MIGRATION_GET] = "SELECT " MIGRATION_COLUMNS " FROM migrations WHERE id = ? ORDER BY +seq",
    [MIGRATION_LIST] = "SELECT " MIGRATION_COLUMNS " FROM (SELECT * FROM migrations"
                       " ORDER BY seq DESC LIMIT ?) ORDER BY +seq DESC",
    [MIGRATION_UNFINISHED] = "SELECT " MIGRATION_COLUMNS " FROM migrations"
                             " WHERE ended_at_ms IS NULL ORDER BY +seq",
    [NOTE] = "INSERT INTO notes (migration, at_ms, kind, text, data)"
             " SELECT seq, ?, ?, ?, ? FROM migrations WHERE id = ?",
    [NOTES] = "SELECT at_ms, kind, text, data FROM notes"
              " WHERE migration = (SELECT seq FROM migrations WHERE id = ?) ORDER BY +seq",
    [VM_PUT] = "INSERT OR REPLACE INTO vms (name, uuid, spec, state, pid, start_ticks, qmp_path,"
               " run_dir, migration) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [VM_REMOVE] = "DELETE FROM vms WHERE name = ?",
    [VM_EACH] = "SELECT name, uuid, spec, state, pid, start_ticks, qmp_path, run_dir, migration"
                " FROM vms ORDER BY +name",
};

struct gw_journal {
    sqlite3 *db;
    sqlite3_stmt *statements[N_STATEMENTS];
    int64_t n_keep;
    const struct gw_log *log;
    char path[];
};

static int fail(struct gw_journal *j, struct gw_error *e, const char *doing)
{
    int sys = sqlite3_system_errno(j->db);

    gw_error_set(e, GW_E_SYSTEM, "%s journal %s: %s", doing, j->path, sqlite3_errmsg(j->db));
    if (e)
        e->sys = sys;
    return -1;
}

/* Binds by position: t text (NULL is fine), i int64_t, j JSON (NULL is fine). */
static int bind(struct gw_journal *j, sqlite3_stmt *s, struct gw_error *e, const char *types,
                va_list ap)
{
    int rc = SQLITE_OK;

    for (int i = 1; types[i - 1] && rc == SQLITE_OK; i++) {
        if (types[i - 1] == 't') {
            rc = sqlite3_bind_text(s, i, va_arg(ap, const char *), -1, SQLITE_STATIC);
        } else if (types[i - 1] == 'i') {
            rc = sqlite3_bind_int64(s, i, va_arg(ap, int64_t));
        } else {
            const json_t *json = va_arg(ap, const json_t *);
            char *text = json ? json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

            if (json && !text)
                return gw_error_set_sys(e, ENOMEM, "write journal %s", j->path);
            rc = sqlite3_bind_text(s, i, text, -1, free);
        }
    }
    return rc == SQLITE_OK ? 0 : fail(j, e, "write");
}

/* Runs a statement that gives no rows. Returns how many it changed, or -1. */
static int run(struct gw_journal *j, enum statement which, struct gw_error *e, const char *types,
               ...)
{
    sqlite3_stmt *s = j->statements[which];
    int result;
    va_list ap;

    va_start(ap, types);
    result = bind(j, s, e, types, ap);
    va_end(ap);
    if (result == 0 && sqlite3_step(s) != SQLITE_DONE)
        result = fail(j, e, "write");
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return result < 0 ? -1 : sqlite3_changes(j->db);
}

static int no_such_migration(struct gw_error *e, const char *id)
{
    return gw_error_set(e, GW_E_NOT_FOUND, "there is no migration '%s'", id);
}

/* Ends a transaction as result says: the number of changes that its statements made, or -1. */
static int finish(struct gw_journal *j, int result, const char *id, struct gw_error *e)
{
    if (result > 0 && run(j, COMMIT, e, "") >= 0)
        return 0;
    run(j, ROLLBACK, NULL, "");
    return result == 0 ? no_such_migration(e, id) : -1;
}

/* Opening */

static bool is_damage(int rc)
{
    return (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;
}

/* A clean close removes the write-ahead log: where there is one, somebody crashed. */
static bool wants_check(const char *path)
{
    gw_autofree char *wal = NULL;
    struct stat st;

    if (stat(path, &st) == 0 && st.st_size <= ALWAYS_CHECKED_BYTES)
        return true;
    if (asprintf(&wal, "%s-wal", path) < 0) {
        wal = NULL;
        return true;
    }
    return stat(wal, &st) == 0;
}

/* The single value that a pragma gives; text into *textp if that is not NULL. */
static int pragma(struct gw_journal *j, const char *query, int *numberp, bool *okp)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(j->db, query, -1, &s, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(s, 0);

        *numberp = sqlite3_column_int(s, 0);
        *okp = text && strcmp(text, "ok") == 0;
        rc = SQLITE_OK;
    }
    sqlite3_finalize(s);
    return rc;
}

static int upgrade(struct gw_journal *j, int version)
{
    int rc = SQLITE_OK;

    for (; version < SCHEMA_VERSION && rc == SQLITE_OK; version++) {
        rc = sqlite3_exec(j->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (rc == SQLITE_OK)
            rc = sqlite3_exec(j->db, schema_steps[version], NULL, NULL, NULL);
        if (rc == SQLITE_OK)
            rc = sqlite3_exec(j->db, "COMMIT", NULL, NULL, NULL);
    }
    return rc;
}

static int prepare_all(struct gw_journal *j)
{
    int rc = SQLITE_OK;

    for (int i = 0; i < N_STATEMENTS && rc == SQLITE_OK; i++)
        rc = sqlite3_prepare_v3(j->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &j->statements[i],
                                NULL);
    return rc;
}

/* SQLITE_OK, a damage, or another failure. *versionp is the file's before any upgrade. */
static int open_database(struct gw_journal *j, bool check, int *versionp)
{
    static const char settings[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                                   "PRAGMA foreign_keys = ON; PRAGMA cache_size = -128;";
    bool sound = true;
    int ignored, rc;

    rc = sqlite3_open_v2(j->path, &j->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return rc;
    sqlite3_extended_result_codes(j->db, 1);
    sqlite3_busy_timeout(j->db, BUSY_TIMEOUT_MS);
    rc = pragma(j, "PRAGMA user_version", versionp, &sound);
    if (rc != SQLITE_OK || *versionp > SCHEMA_VERSION)
        return rc;
    if (sqlite3_db_readonly(j->db, "main"))
        return SQLITE_READONLY;
    if (check && (rc = pragma(j, "PRAGMA quick_check(1)", &ignored, &sound)) == SQLITE_OK && !sound)
        rc = SQLITE_CORRUPT;
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(j->db, settings, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = upgrade(j, *versionp);
    return rc == SQLITE_OK ? prepare_all(j) : rc;
}

static void close_database(struct gw_journal *j)
{
    for (int i = 0; i < N_STATEMENTS; i++) {
        sqlite3_finalize(j->statements[i]);
        j->statements[i] = NULL;
    }
    sqlite3_close(j->db);
    j->db = NULL;
}

/* Renames PATH and PATH-wal; what else SQLite left beside them is of no use without them. */
static int move_aside(struct gw_journal *j, struct gw_error *e)
{
    char from[4096], to[4096];
    long long now = (long long)time(NULL);

    snprintf(from, sizeof from, "%s-wal", j->path);
    snprintf(to, sizeof to, "%s.damaged-%lld-wal", j->path, now);
    if (rename(from, to) < 0 && errno != ENOENT)
        return gw_error_set_sys(e, errno, "rename the damaged journal %s", from);
    snprintf(from, sizeof from, "%s-shm", j->path);
    unlink(from);
    snprintf(to, sizeof to, "%s.damaged-%lld", j->path, now);
    if (rename(j->path, to) < 0)
        return gw_error_set_sys(e, errno, "rename the damaged journal %s", j->path);
    gw_log(j->log, GW_LOG_ERROR, "journal",
           "the journal %s is damaged: moved to %s, starting an empty one. History is gone, and "
           "QEMUs that run here have to be adopted again",
           j->path, to);
    return 0;
}

static int cannot_open(const char *path, const char *why, struct gw_error *e)
{
    gw_error_set(e, GW_E_SYSTEM, "open journal %s: %s", path, why);
    return gw_error_hint(e, "state_dir must exist and be writable for the daemon");
}

/* SQLite would make the file readable for everybody; it also has less to say about why it cannot.
 */
static int make_file(const char *path, struct gw_error *e)
{
    gw_autoclose int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);

    if (fd >= 0)
        return 0;
    return cannot_open(path, strerror(errno), e);
}

static int open_checked(struct gw_journal *j, struct gw_error *e)
{
    bool may_be_damaged = true;
    int version = 0, rc;

    for (;;) {
        bool check = wants_check(j->path);

        if (make_file(j->path, e) < 0)
            return -1;
        rc = open_database(j, check, &version);
        if (rc == SQLITE_OK && version > SCHEMA_VERSION) {
            gw_error_set(e, GW_E_UNSUPPORTED, "journal %s has version %d, this godwitd knows %d",
                         j->path, version, SCHEMA_VERSION);
            return gw_error_hint(e, "run the newer godwitd, or move the file away");
        }
        if (rc == SQLITE_OK)
            return 0;
        if (!is_damage(rc) || !may_be_damaged)
            return cannot_open(j->path, sqlite3_errstr(rc), e);
        may_be_damaged = false;
        close_database(j);
        if (move_aside(j, e) < 0)
            return -1;
    }
}

int gw_journal_open(const char *path, const struct gw_log *log, struct gw_journal **journalp,
                    struct gw_error *e)
{
    struct gw_journal *j = calloc(1, sizeof *j + strlen(path) + 1);

    *journalp = NULL;
    if (!j)
        return gw_error_set_sys(e, ENOMEM, "open journal %s", path);
    strcpy(j->path, path);
    j->log = log;
    j->n_keep = GW_JOURNAL_KEEP;
    if (open_checked(j, e) < 0) {
        gw_journal_close(j);
        return -1;
    }
    *journalp = j;
    return 0;
}

void gw_journal_close(struct gw_journal *j)
{
    if (!j)
        return;
    close_database(j);
    free(j);
}

void gw_journal_keep(struct gw_journal *j, int64_t n_migrations)
{
    j->n_keep = n_migrations;
}

/* Migrations */

int gw_journal_migration_begin(struct gw_journal *j, const struct gw_journal_migration *m,
                               struct gw_error *e)
{
    if (run(j, MIGRATION_BEGIN, e, "ttttttttij", m->id, m->vm, m->uuid, m->from_node, m->to_node,
            m->role, m->phase, m->peer, m->started_at_ms, m->record) >= 0)
        return 0;
    if (sqlite3_extended_errcode(j->db) == SQLITE_CONSTRAINT_UNIQUE)
        return gw_error_set(e, GW_E_EXISTS, "there is a migration '%s' already", m->id);
    return -1;
}

int gw_journal_migration_phase(struct gw_journal *j, const char *id, const char *phase,
                               int64_t at_ms, struct gw_error *e)
{
    int n;

    if (run(j, BEGIN, e, "") < 0)
        return -1;
    n = run(j, MIGRATION_PHASE, e, "tt", phase, id);
    if (n > 0)
        n = run(j, NOTE, e, "iitjt", at_ms, (int64_t)GW_JOURNAL_PHASE, phase, NULL, id);
    return finish(j, n, id, e);
}

int gw_journal_migration_end(struct gw_journal *j, const char *id, const char *phase,
                             int64_t ended_at_ms, const json_t *record, struct gw_error *e)
{
    int n;

    if (run(j, BEGIN, e, "") < 0)
        return -1;
    n = run(j, MIGRATION_END, e, "tijt", phase, ended_at_ms, record, id);
    if (n > 0 && run(j, MIGRATION_PRUNE, e, "i", j->n_keep) < 0)
        n = -1;
    return finish(j, n, id, e);
}

static const char *text_column(sqlite3_stmt *s, int column)
{
    return (const char *)sqlite3_column_text(s, column);
}

/* A new reference; NULL for NULL and for what is no JSON (any more). */
static json_t *json_column(sqlite3_stmt *s, int column)
{
    const char *text = text_column(s, column);

    return text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
}

/* One row of a walk, told to whoever visits it. Non-zero ends the walk. */
typedef int row_fn(sqlite3_stmt *s, void *visit);

static int migration_row(sqlite3_stmt *s, void *visit)
{
    struct gw_journal_on_migration *v = visit;
    json_t *record = json_column(s, 10);
    const struct gw_journal_migration m = {
        .id = text_column(s, 0),
        .vm = text_column(s, 1),
        .uuid = text_column(s, 2),
        .from_node = text_column(s, 3),
        .to_node = text_column(s, 4),
        .role = text_column(s, 5),
        .phase = text_column(s, 6),
        .peer = text_column(s, 7),
        .started_at_ms = sqlite3_column_int64(s, 8),
        .ended_at_ms = sqlite3_column_int64(s, 9),
        .record = record,
    };
    int stop = v->fn(v, &m);

    json_decref(record);
    return stop;
}

static int note_row(sqlite3_stmt *s, void *visit)
{
    struct gw_journal_on_note *v = visit;
    json_t *data = json_column(s, 3);
    const struct gw_journal_note note = {
        .at_ms = sqlite3_column_int64(s, 0),
        .kind = (enum gw_journal_kind)sqlite3_column_int(s, 1),
        .text = text_column(s, 2),
        .data = data,
    };
    int stop = v->fn(v, &note);

    json_decref(data);
    return stop;
}

static int vm_row(sqlite3_stmt *s, void *visit)
{
    struct gw_journal_on_vm *v = visit;
    json_t *spec = json_column(s, 2);
    const struct gw_journal_vm vm = {
        .name = text_column(s, 0),
        .uuid = text_column(s, 1),
        .spec = spec,
        .state = text_column(s, 3),
        .pid = sqlite3_column_int64(s, 4),
        .start_ticks = (uint64_t)sqlite3_column_int64(s, 5),
        .qmp_path = text_column(s, 6),
        .run_dir = text_column(s, 7),
        .migration = text_column(s, 8),
    };
    int stop = v->fn(v, &vm);

    json_decref(spec);
    return stop;
}

/* Runs a statement that gives rows. Returns how many were visited, or -1. */
static int walk(struct gw_journal *j, enum statement which, row_fn *row, void *visit,
                struct gw_error *e, const char *types, ...)
{
    sqlite3_stmt *s = j->statements[which];
    int rc = SQLITE_DONE, n = 0, result;
    va_list ap;

    if (sqlite3_stmt_busy(s))
        return gw_error_set(e, GW_E_BUSY, "read journal %s: this walk is already under way",
                            j->path);
    va_start(ap, types);
    result = bind(j, s, e, types, ap);
    va_end(ap);
    while (result == 0 && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        n++;
        if (row(s, visit))
            break;
    }
    if (result == 0 && rc != SQLITE_ROW && rc != SQLITE_DONE)
        result = fail(j, e, "read");
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return result < 0 ? -1 : n;
}

int gw_journal_migration_get(struct gw_journal *j, const char *id,
                             struct gw_journal_on_migration *visit, struct gw_error *e)
{
    int n = walk(j, MIGRATION_GET, migration_row, visit, e, "t", id);

    return n == 0 ? no_such_migration(e, id) : n < 0 ? -1 : 0;
}

int gw_journal_migration_list(struct gw_journal *j, int64_t limit,
                              struct gw_journal_on_migration *visit, struct gw_error *e)
{
    /* SQLite takes a negative limit for none. */
    return walk(j, MIGRATION_LIST, migration_row, visit, e, "i", limit < 0 ? 0 : limit) < 0 ? -1
                                                                                            : 0;
}

int gw_journal_migration_unfinished(struct gw_journal *j, struct gw_journal_on_migration *visit,
                                    struct gw_error *e)
{
    return walk(j, MIGRATION_UNFINISHED, migration_row, visit, e, "") < 0 ? -1 : 0;
}

/* Notes */

const char *gw_journal_kind_name(enum gw_journal_kind kind)
{
    switch (kind) {
    case GW_JOURNAL_PHASE: return "phase";
    case GW_JOURNAL_LOG: return "log";
    case GW_JOURNAL_DECISION: return "decision";
    case GW_JOURNAL_ERROR: return "error";
    }
    return "unknown";
}

int gw_journal_note(struct gw_journal *j, const char *id, const struct gw_journal_note *note,
                    struct gw_error *e)
{
    int n = run(j, NOTE, e, "iitjt", note->at_ms, (int64_t)note->kind, note->text ? note->text : "",
                note->data, id);

    return n == 0 ? no_such_migration(e, id) : n < 0 ? -1 : 0;
}

static int ignore_migration(struct gw_journal_on_migration *self,
                            const struct gw_journal_migration *migration)
{
    (void)self;
    (void)migration;
    return 0;
}

int gw_journal_notes(struct gw_journal *j, const char *id, struct gw_journal_on_note *visit,
                     struct gw_error *e)
{
    struct gw_journal_on_migration ignore = {ignore_migration};
    int n = walk(j, NOTES, note_row, visit, e, "t", id);

    /* None: of a migration without notes, or of no migration? */
    return n == 0 ? gw_journal_migration_get(j, id, &ignore, e) : n < 0 ? -1 : 0;
}

/* VMs */

int gw_journal_vm_put(struct gw_journal *j, const struct gw_journal_vm *vm, struct gw_error *e)
{
    return run(j, VM_PUT, e, "ttjtiittt", vm->name, vm->uuid, vm->spec, vm->state, vm->pid,
               (int64_t)vm->start_ticks, vm->qmp_path, vm->run_dir, vm->migration) < 0
               ? -1
               : 0;
}

int gw_journal_vm_remove(struct gw_journal *j, const char *name, struct gw_error *e)
{
    return run(j, VM_REMOVE, e, "t", name) < 0 ? -1 : 0;
}

int gw_journal_vm_each(struct gw_journal *j, struct gw_journal_on_vm *visit, struct gw_error *e)
{
    return walk(j, VM_EACH, vm_row, visit, e, "") < 0 ? -1 : 0;
}
