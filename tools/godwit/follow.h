/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following one migration until it is over.
 *
 * The happy path: the stream of events is opened, then the record is read once (what happened
 * before the stream was there), events drive the progress line, the event that says it is over
 * leads to the record. What can go wrong: an event gets lost, so the record is read when nothing
 * has come for a while; the daemon goes away, so for some time it is looked for again; it does not
 * come back or has forgotten the migration, and then nobody here knows where the guest runs. The
 * CLI never guesses that: GW_E_UNRESOLVED.
 */
#ifndef GW_GODWIT_FOLLOW_H
#define GW_GODWIT_FOLLOW_H

#include <stdbool.h>
#include <stdint.h>
#include "cli.h"
#include "progress.h"

struct gw_follow {
    struct gw_sse_sink sink;
    struct gw_interrupts interrupts; /* the first one cancels, the second one leaves */
    struct gw_progress progress;
    struct gw_stream stream;
    struct gw_client *client; /* borrowed; uses our interrupts while we are open */
    const char *vm;           /* borrowed, for messages */
    char *id;                 /* NULL: godwitd has not answered yet */
    json_t *record;           /* as last read; NULL: never */
    uint64_t patience_ms;     /* for how long a lost daemon is looked for */
    int64_t next_check_ms;    /* when the record is to be read */
    int64_t next_open_ms;     /* when the stream is to be tried again */
    int64_t lost_since_ms;    /* 0: the daemon answers */
    unsigned backoff_ms;
    bool was_open;
    bool over_seen;   /* an event said so; the record has the last word */
    bool cancel_sent; /* or refused: either way it is not asked again */
};

/* Takes over Ctrl-C. 0, or -1 and *e. vm and client are borrowed. */
int gw_follow_init(struct gw_follow *follow, struct gw_client *client, const char *vm,
                   struct gw_error *e);

/* With id set: 0 and the final record in follow->record, or -1 and *e: GW_E_UNRESOLVED. */
int gw_follow_run(struct gw_follow *follow, struct gw_error *e);
void gw_follow_fini(struct gw_follow *follow);

#endif
