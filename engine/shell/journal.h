/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon must still know after it was killed, and the history people ask for: migrations,
 * what happened in them, and the QEMUs that run here. One SQLite file, one writer, no threads.
 *
 * Durability: write-ahead log with synchronous=NORMAL. What a function returned 0 for survives the
 * daemon being killed; a power cut may lose the last moments, and with them every QEMU of this
 * host went too. The file is never left half-written by either.
 *
 * Every function that can fail returns 0 or -1 with *e set (GW_E_SYSTEM unless stated); e may be
 * NULL. Calls block for one write to the page cache, and up to 0.1 s when another process
 * holds the file's lock. Strings and JSON passed in stay the caller's. Ones handed to a callback
 * are valid only during it. A callback may use the journal, except to start the same walk again
 * (GW_E_BUSY) or to close it; the walk does not see what it changes.
 */
#ifndef GW_SHELL_JOURNAL_H
#define GW_SHELL_JOURNAL_H

#include <stdint.h>
#include <jansson.h>

#include "godwit/error.h"
#include "util/cleanup.h"
#include "util/log.h"

struct gw_journal;

/* Ended migrations beyond this number are forgotten, oldest first. */
#define GW_JOURNAL_KEEP 10000

struct gw_journal_migration {
    const char *id;        /* "m-1a2b3c4d"; unique */
    const char *vm, *uuid; /* the VM's name and uuid */
    const char *from_node, *to_node;
    const char *role;      /* "source" or "destination": which end this node is */
    const char *phase;     /* the last one entered */
    const char *peer;      /* the other daemon's address; may be NULL */
    int64_t started_at_ms; /* wall clock, ms since 1970 */
    int64_t ended_at_ms;   /* 0: has not ended */
    const json_t *record;  /* at first the request, at the end the result; may be NULL */
};

enum gw_journal_kind {
    GW_JOURNAL_PHASE,
    GW_JOURNAL_LOG,
    GW_JOURNAL_DECISION,
    GW_JOURNAL_ERROR,
};

struct gw_journal_note {
    int64_t at_ms; /* wall clock, ms since 1970 */
    enum gw_journal_kind kind;
    const char *text;   /* a line for people; "" where there is only data */
    const json_t *data; /* an object with the details; may be NULL */
};

/* What it takes to find a QEMU again that this daemon's predecessor started or adopted. */
struct gw_journal_vm {
    const char *name; /* unique */
    const char *uuid;
    const json_t *spec; /* gw_vm_spec_to_json(); may be NULL */
    const char *state;
    int64_t pid;           /* 0: none */
    uint64_t start_ticks;  /* field 22 of /proc/PID/stat: with it a reused pid is recognised */
    const char *qmp_path;  /* may be NULL */
    const char *run_dir;   /* may be NULL */
    const char *migration; /* id of the migration it is part of; NULL: none */
};

/* Called once a row, in order. Embed it and use gw_container_of(). Non-zero ends the walk. */
struct gw_journal_on_migration {
    int (*fn)(struct gw_journal_on_migration *self, const struct gw_journal_migration *migration);
};
struct gw_journal_on_note {
    int (*fn)(struct gw_journal_on_note *self, const struct gw_journal_note *note);
};
struct gw_journal_on_vm {
    int (*fn)(struct gw_journal_on_vm *self, const struct gw_journal_vm *vm);
};

/*
 * Opens or makes the file (mode 0600); its directory must be there. A file that is no database or
 * is damaged is moved to PATH.damaged-SECONDS, which log tells as an error, and an empty one takes
 * its place. One written by a newer version is left alone: GW_E_UNSUPPORTED. log may be NULL and
 * must outlive the journal.
 */
int gw_journal_open(const char *path, const struct gw_log *log, struct gw_journal **journalp,
                    struct gw_error *e);

/* NULL is fine. */
void gw_journal_close(struct gw_journal *journal);

/* How many ended migrations to keep instead of GW_JOURNAL_KEEP, from the next end on. */
void gw_journal_keep(struct gw_journal *journal, int64_t n_migrations);

/* A new migration; ended_at_ms is ignored. GW_E_EXISTS where the id is known already. */
int gw_journal_migration_begin(struct gw_journal *journal,
                               const struct gw_journal_migration *migration, struct gw_error *e);

/* The migration entered a phase: sets it and adds a note of kind GW_JOURNAL_PHASE, both or neither.
 * GW_E_NOT_FOUND for an unknown id. */
int gw_journal_migration_phase(struct gw_journal *journal, const char *id, const char *phase,
                               int64_t at_ms, struct gw_error *e);

/* The migration ended in this phase; record (NULL: keep the old one) is its result. Forgets the
 * oldest ended ones beyond the limit, with their notes. GW_E_NOT_FOUND for an unknown id. */
int gw_journal_migration_end(struct gw_journal *journal, const char *id, const char *phase,
                             int64_t ended_at_ms, const json_t *record, struct gw_error *e);

/* One migration, by calling visit once. GW_E_NOT_FOUND for an unknown id. */
int gw_journal_migration_get(struct gw_journal *journal, const char *id,
                             struct gw_journal_on_migration *visit, struct gw_error *e);

/* The latest ones, newest first, at most limit. */
int gw_journal_migration_list(struct gw_journal *journal, int64_t limit,
                              struct gw_journal_on_migration *visit, struct gw_error *e);

/* Those that have not ended, oldest first: after a start, what the predecessor left undone. */
int gw_journal_migration_unfinished(struct gw_journal *journal,
                                    struct gw_journal_on_migration *visit, struct gw_error *e);

/* Adds a note to a migration. GW_E_NOT_FOUND for an unknown id. */
int gw_journal_note(struct gw_journal *journal, const char *id, const struct gw_journal_note *note,
                    struct gw_error *e);

/* A migration's notes in the order they were written. GW_E_NOT_FOUND for an unknown id. */
int gw_journal_notes(struct gw_journal *journal, const char *id, struct gw_journal_on_note *visit,
                     struct gw_error *e);

/* "phase", "log", "decision", "error". */
const char *gw_journal_kind_name(enum gw_journal_kind kind);

/* Adds the VM, or replaces all that is known of the one of this name. */
int gw_journal_vm_put(struct gw_journal *journal, const struct gw_journal_vm *vm,
                      struct gw_error *e);

/* Forgets a VM; one that is not known is fine. */
int gw_journal_vm_remove(struct gw_journal *journal, const char *name, struct gw_error *e);

/* All VMs, by name. */
int gw_journal_vm_each(struct gw_journal *journal, struct gw_journal_on_vm *visit,
                       struct gw_error *e);

#endif
