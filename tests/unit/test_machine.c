/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two machines, each on its own: stories told step by step, and the tables. Every state that
 * any order of events can lead to is explored in test_machine_states.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "core/machine.h"
#include "util/cleanup.h"
#include "machine_words.h"

struct scene {
    struct gw_event event; /* a tick comes at the deadline, all else 1 ns after the event before */
    const char *wants;     /* the update as text; NULL: the event makes no sense here */
};

#define STORY_MAX 18

struct story {
    const char *title;
    enum gw_role role;
    const char *begins;
    struct scene scenes[STORY_MAX];
    enum gw_phase end;
    enum gw_code code;
    bool needs_person;
    bool has_record; /* the destination is told so when it begins */
    bool verify;
};

#define S_BEGINS "inspect, connect"
#define D_BEGINS "launch"

#define S_ARMS_AFTER(inspected)                                                        \
    {inspected(INSPECT), ""}, {DONE(CONNECT), "say prepare"}, {SAID(PREPARED), "arm"}, \
    {                                                                                  \
        DONE(ARM), "start"                                                             \
    }
#define S_COPIES_AFTER(inspected) \
    S_ARMS_AFTER(inspected),      \
    {                             \
        DONE(START), "-> precopy" \
    }
#define S_PAUSES_AFTER(inspected)                                      \
    S_COPIES_AFTER(inspected),                                         \
    {                                                                  \
        STATUS(PRE_SWITCHOVER), "-> switchover, say switching, switch" \
    }
#define S_COMMITS_AFTER(inspected)                     \
    S_PAUSES_AFTER(inspected), {DONE(SWITCH), ""},     \
    {                                                  \
        STATUS(COMPLETED), "-> committing, say commit" \
    }
#define S_ARMS           S_ARMS_AFTER(DONE)
#define S_COPIES         S_COPIES_AFTER(DONE)
#define S_PAUSES         S_PAUSES_AFTER(DONE)
#define S_COMMITS        S_COMMITS_AFTER(DONE)
#define S_COMMITS_RECORD S_COMMITS_AFTER(DONE_RECORD)
#define S_COMES_BACK                               \
    {DONE(RESUME), "disarm"}, {SAID(ABORTED), ""}, \
    {                                              \
        DONE(DISARM), "-> failed, hang up"         \
    }
#define D_LISTENS                                 \
    {DONE(LAUNCH), "arm"}, {DONE(ARM), "listen"}, \
    {                                             \
        DONE(LISTEN), "say prepared, -> precopy"  \
    }
#define D_PAUSES                         \
    D_LISTENS,                           \
    {                                    \
        SAID(SWITCHING), "-> switchover" \
    }
#define D_LOADS               \
    D_PAUSES,                 \
    {                         \
        STATUS(COMPLETED), "" \
    }

static const struct story stories[] = {
    {"a guest leaves",
     GW_SOURCE,
     S_BEGINS,
     {{DONE(CONNECT), ""},
      {DONE(INSPECT), "say prepare"},
      {SAID(PREPARED), "arm"},
      {DONE(ARM), "start"},
      {STATUS(SETUP), ""},
      {DONE(START), "-> precopy"},
      {STATUS(ACTIVE), ""},
      {{.type = GW_EV_PROGRESS}, ""},
      {STATUS(PRE_SWITCHOVER), "-> switchover, say switching, switch"},
      {DONE(SWITCH), ""},
      {STATUS(DEVICE), ""},
      {STATUS(COMPLETED), "-> committing, say commit"},
      {SAID(RUNNING), "-> finishing, say finished, destroy"},
      {DONE(DESTROY), "-> completed, hang up"},
      {SAID(RUNNING), NULL}},
     GW_COMPLETED,
     GW_OK,
     false},
    {"QEMU is quicker than its answers",
     GW_SOURCE,
     S_BEGINS,
     {S_ARMS,
      {STATUS(PRE_SWITCHOVER), ""},
      {DONE(START), "-> precopy, -> switchover, say switching, switch"},
      {STATUS(COMPLETED), ""},
      {DONE(SWITCH), "-> committing, say commit"}},
     GW_COMMITTING,
     GW_OK,
     false},
    {"a guest leaves, and its memory is compared",
     GW_SOURCE,
     S_BEGINS,
     {S_PAUSES,
      {STATUS(COMPLETED), ""},
      {DONE(SWITCH), "verify"},
      {STATUS(COMPLETED), ""},
      {DONE(VERIFY), "-> committing, say commit"}},
     GW_COMMITTING,
     GW_OK,
     .verify = true},
    {"the memory differs",
     GW_SOURCE,
     S_BEGINS,
     {S_PAUSES,
      {DONE(SWITCH), ""},
      {STATUS(COMPLETED), "verify"},
      {BROKE(VERIFY), "-> failing, say abort, stop-copy"},
      {DONE(STOP_COPY), "resume"},
      S_COMES_BACK},
     GW_FAILED,
     GW_E_QEMU,
     .verify = true},
    {"the destination is lost while the memory is compared",
     GW_SOURCE,
     S_BEGINS,
     {S_PAUSES,
      {DONE(SWITCH), ""},
      {STATUS(COMPLETED), "verify"},
      {PEER_LOST, "-> failing"},
      {BROKE(VERIFY), "stop-copy"},
      {DONE(STOP_COPY), "resume"},
      {DONE(RESUME), "disarm"},
      {DONE(DISARM), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_PEER,
     .verify = true},
    {"a guest arrives",
     GW_DESTINATION,
     D_BEGINS,
     {D_PAUSES,
      {STATUS(ACTIVE), ""},
      {STATUS(COMPLETED), ""},
      {SAID(COMMIT), "-> committing, resume"},
      {DONE(RESUME), "say running, -> finishing"},
      {SAID(FINISHED), "-> completed, hang up"},
      {SAID(QUERY), NULL}},
     GW_COMPLETED,
     GW_OK,
     false},
    {"COMMIT comes before QEMU has said that it has loaded",
     GW_DESTINATION,
     D_BEGINS,
     {D_PAUSES,
      {SAID(COMMIT), "-> committing"},
      {STATUS(ACTIVE), ""},
      {STATUS(COMPLETED), "resume"},
      {DONE(RESUME), "say running, -> finishing"},
      {PEER_LOST, "-> completed, hang up"}},
     GW_COMPLETED,
     GW_OK,
     false},
    {"out of order",
     GW_SOURCE,
     S_BEGINS,
     {{SAID(PREPARED), NULL},
      {SAID(RUNNING), NULL},
      {SAID(COMMIT), NULL},
      {DONE(INSPECT), ""},
      {DONE(CONNECT), "say prepare"},
      {SAID(PREPARED), "arm"},
      {SAID(PREPARED), NULL},
      {SAID(LOST), NULL}},
     GW_PREPARING,
     GW_OK,
     false},
    {"out of order there",
     GW_DESTINATION,
     D_BEGINS,
     {{SAID(COMMIT), NULL},
      {SAID(SWITCHING), NULL},
      {SAID(QUERY), NULL},
      D_LISTENS,
      {SAID(COMMIT), NULL},
      {SAID(FINISHED), NULL},
      {SAID(PREPARE), NULL}},
     GW_PRECOPY,
     GW_OK,
     false},
    {"undone while preparing",
     GW_SOURCE,
     S_BEGINS,
     {{BROKE(INSPECT), "-> failing"}, {DONE(CONNECT), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_QEMU,
     false},
    {"refused by the destination",
     GW_SOURCE,
     S_BEGINS,
     {{DONE(INSPECT), ""},
      {DONE(CONNECT), "say prepare"},
      {SAID_WHY(FAILED), "-> failing, say abort"},
      {SAID(ABORTED), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_QEMU,
     false},
    {"undone while arming: the answer to ARM is waited for",
     GW_SOURCE,
     S_BEGINS,
     {{DONE(INSPECT), ""},
      {DONE(CONNECT), "say prepare"},
      {SAID(PREPARED), "arm"},
      {CANCEL, "-> failing, say abort"},
      {SAID(ABORTED), ""},
      {DONE(ARM), "disarm"},
      {CANCEL, ""},
      {DONE(DISARM), "-> cancelled, hang up"}},
     GW_CANCELLED,
     GW_E_CANCELLED,
     false},
    {"undone while copying",
     GW_SOURCE,
     S_BEGINS,
     {S_COPIES,
      {CANCEL, "-> failing, say abort, stop-copy"},
      {STATUS(CANCELLING), ""},
      {STATUS(CANCELLED), ""},
      {DONE(STOP_COPY), "disarm"},
      {DONE(DISARM), ""},
      {SAID(ABORTED), "-> cancelled, hang up"}},
     GW_CANCELLED,
     GW_E_CANCELLED,
     false},
    {"QEMU's migration fails, and the destination never answers",
     GW_SOURCE,
     S_BEGINS,
     {S_COPIES,
      {{.type = GW_EV_QEMU_STATUS, .status = GW_QEMU_FAILED, .error = &an_error},
       "-> failing, say abort, stop-copy"},
      {DONE(STOP_COPY), "disarm"},
      {DONE(DISARM), ""},
      {TICK, "-> failed, hang up"}},
     GW_FAILED,
     GW_E_QEMU,
     false},
    {"undone while paused",
     GW_SOURCE,
     S_BEGINS,
     {S_PAUSES,
      {TICK, "-> failing, say abort"},
      {BROKE(SWITCH), "stop-copy"},
      {BROKE(STOP_COPY), "resume"}, /* it has not settled: no settings for it */
      {DONE(RESUME), ""},
      {PEER_LOST, "-> failed, hang up"}},
     GW_FAILED,
     GW_E_TIMEOUT,
     false},
    {"a guest that was paused stays paused",
     GW_SOURCE,
     S_BEGINS,
     {{DONE(CONNECT), ""},
      {DONE_PAUSED(INSPECT), "say prepare"},
      {SAID(PREPARED), "arm"},
      {DONE(ARM), "start"},
      {DONE(START), "-> precopy"},
      {STATUS(PRE_SWITCHOVER), "-> switchover, say switching, switch"},
      {DONE(SWITCH), ""},
      {PEER_LOST, "-> failing, stop-copy"},
      {DONE(STOP_COPY), "disarm"},
      {DONE(DISARM), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_PEER,
     false},
    {"paused by QEMU before START was answered",
     GW_SOURCE,
     S_BEGINS,
     {S_ARMS,
      {STATUS(PRE_SWITCHOVER), ""},
      {PEER_LOST, "-> failing"},
      {DONE(START), "stop-copy"},
      {DONE(STOP_COPY), "resume"},
      {DONE(RESUME), "disarm"},
      {DONE(DISARM), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_PEER,
     false},
    {"somebody else lets QEMU go on",
     GW_SOURCE,
     S_BEGINS,
     {S_COPIES,
      {STATUS(COMPLETED), "-> failing, say abort, stop-copy"},
      {DONE(STOP_COPY), "resume"},
      {DONE(RESUME), "disarm"},
      {DONE(DISARM), ""},
      {SAID(ABORTED), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_PROTOCOL,
     false},
    {"the guest cannot be resumed",
     GW_SOURCE,
     S_BEGINS,
     {S_PAUSES,
      {DONE(SWITCH), ""},
      {PEER_LOST, "-> failing, stop-copy"},
      {DONE(STOP_COPY), "resume"},
      {BROKE(RESUME), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true},
    {"the source's QEMU dies",
     GW_SOURCE,
     S_BEGINS,
     {S_COPIES, {QEMU_GONE, "-> failing, say abort"}, {SAID(ABORTED), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true},
    {"failed after the commit: the guest comes back to life here",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS,
      {CANCEL, NULL},
      {STATUS(FAILED), ""},
      {SAID_WHY(FAILED), "-> failing, say abort, resume"},
      {DONE(RESUME), "disarm"},
      {SAID(ABORTED), ""},
      {DONE(DISARM), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_QEMU,
     false},
    {"lost after the commit: nobody resumes",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS, {SAID_WHY(LOST), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true},
    {"the answer to COMMIT is lost and asked for",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS,
      {PEER_LOST, ""},
      {TICK, "connect"},
      {DONE(CONNECT), "say query"},
      {SAID(BUSY), ""},
      {TICK, "say query"},
      {SAID(RUNNING), "-> finishing, say finished, destroy"},
      {BROKE(DESTROY), "-> completed, hang up"}},
     GW_COMPLETED,
     GW_E_QEMU,
     false},
    {"the destination is never heard of again",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS,
      {PEER_LOST, ""},
      {TICK, "connect"},
      {BROKE(CONNECT), ""},
      {TICK, "connect"},
      {TICK, ""},
      {BROKE(CONNECT), ""},
      {TICK, "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true},
    {"the destination refuses",
     GW_DESTINATION,
     D_BEGINS,
     {{BROKE(LAUNCH), "-> failing, say failed, destroy"},
      {SAID(ABORT), ""},
      {DONE(DESTROY), "say aborted, -> failed, hang up"}},
     GW_FAILED,
     GW_E_QEMU,
     false},
    {"aborted while QEMU starts: its answer is waited for",
     GW_DESTINATION,
     D_BEGINS,
     {{SAID(ABORT), "-> failing"},
      {DONE(LAUNCH), "destroy"},
      {BROKE(DESTROY), "say aborted, -> cancelled, hang up"}},
     GW_CANCELLED,
     GW_E_CANCELLED,
     false},
    {"the connection breaks while memory comes in",
     GW_DESTINATION,
     D_BEGINS,
     {D_LISTENS,
      {PEER_LOST, "-> failing, say failed, destroy"},
      {DONE(DESTROY), "say aborted, -> failed, hang up"}},
     GW_FAILED,
     GW_E_PEER,
     false},
    {"the guest never comes",
     GW_DESTINATION,
     D_BEGINS,
     {D_PAUSES,
      {TICK, "-> failing, say failed, destroy"},
      {SAID(QUERY), "say failed"},
      {SAID(COMMIT), ""},
      {DONE(DESTROY), "say aborted, -> failed, hang up"}},
     GW_FAILED,
     GW_E_TIMEOUT,
     false},
    {"QEMU refuses to let the guest run",
     GW_DESTINATION,
     D_BEGINS,
     {D_PAUSES,
      {STATUS(COMPLETED), ""},
      {SAID(COMMIT), "-> committing, resume"},
      {BROKE(RESUME), "-> failing, say failed, destroy"},
      {DONE(DESTROY), "say aborted, -> failed, hang up"}},
     GW_FAILED,
     GW_E_QEMU,
     false},
    {"QEMU is lost while it lets the guest run",
     GW_DESTINATION,
     D_BEGINS,
     {D_PAUSES,
      {STATUS(COMPLETED), ""},
      {SAID(COMMIT), "-> committing, resume"},
      {QEMU_GONE, ""},
      {GONE_IN(RESUME), "say lost, -> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true},
    {"QEMU answers with an error and is gone: still nobody knows",
     GW_DESTINATION,
     D_BEGINS,
     {D_PAUSES,
      {STATUS(COMPLETED), ""},
      {SAID(COMMIT), "-> committing, resume"},
      {QEMU_GONE, ""},
      {BROKE(RESUME), "say lost, -> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true},
    {"COMMIT is lost with its connection",
     GW_DESTINATION,
     D_BEGINS,
     {D_PAUSES,
      {STATUS(COMPLETED), ""},
      {SAID(QUERY), "-> committing, resume"},
      {SAID(QUERY), "say busy"},
      {PEER_LOST, ""},
      {DONE(RESUME), "say running, -> finishing"},
      {SAID(QUERY), "say running"},
      {SAID(FINISHED), "-> completed, hang up"}},
     GW_COMPLETED,
     GW_OK,
     false},
    {"SWITCHING and COMMIT are lost with their connection",
     GW_DESTINATION,
     D_BEGINS,
     {D_LISTENS,
      {STATUS(COMPLETED), ""},
      {SAID(QUERY), "-> switchover, -> committing, resume"},
      {DONE(RESUME), "say running, -> finishing"},
      {QEMU_GONE, "-> completed, hang up"}},
     GW_COMPLETED,
     GW_OK,
     false},
    {"the source never comes back for its answer",
     GW_DESTINATION,
     D_BEGINS,
     {D_PAUSES,
      {STATUS(COMPLETED), ""},
      {SAID(COMMIT), "-> committing, resume"},
      {PEER_LOST, ""},
      {DONE(RESUME), "say running, -> finishing"},
      {TICK, "-> completed, hang up"}},
     GW_COMPLETED,
     GW_OK,
     false},
    {"with a record: it runs there in time",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {SAID(RUNNING), "-> finishing, say finished, destroy"},
      {DONE(DESTROY), "-> completed, hang up"}},
     GW_COMPLETED,
     GW_OK,
     false,
     false},
    {"with a record: FAILED is followed by a RECLAIM",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {SAID_WHY(FAILED), "reclaim"},
      {DONE(RECLAIM), "-> failing, say abort, resume"},
      S_COMES_BACK},
     GW_FAILED,
     GW_E_QEMU,
     false,
     false},
    {"with a record: a promise counts also where the store does not answer",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {SAID_WHY(FAILED), "reclaim"},
      {BROKE(RECLAIM), "-> failing, say abort, resume"},
      S_COMES_BACK},
     GW_FAILED,
     GW_E_QEMU,
     false,
     false},
    {"with a record: a promise does not count against a third owner",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD, {SAID_WHY(FAILED), "reclaim"}, {CONFLICT(RECLAIM), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true,
     false},
    {"with a record: the destination is silent, and has not claimed",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {TICK, "reclaim"},
      {DONE(RECLAIM), "-> failing, say abort, resume"},
      S_COMES_BACK},
     GW_FAILED,
     GW_E_PEER,
     false,
     false},
    {"with a record: the destination is silent, but has claimed",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {TICK, "reclaim"},
      {CONFLICT(RECLAIM), "say query"},
      {SAID(BUSY), ""},
      {TICK, "say query"},
      {SAID(RUNNING), "-> finishing, say finished, destroy"},
      {DONE(DESTROY), "-> completed, hang up"}},
     GW_COMPLETED,
     GW_OK,
     false,
     false},
    {"with a record: neither the destination nor the store answers",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {TICK, "reclaim"},
      {BROKE(RECLAIM), ""},
      {TICK, "reclaim"},
      {BROKE(RECLAIM), ""},
      {TICK, "reclaim"},
      {TICK, ""},
      {BROKE(RECLAIM), ""},
      {TICK, "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true,
     false},
    {"with a record: it is the destination's, which is never heard of again",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {TICK, "reclaim"},
      {CONFLICT(RECLAIM), "say query"},
      {TICK, "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true,
     false},
    {"with a record: FAILED comes while RECLAIM is under way, which is lost",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {TICK, "reclaim"},
      {SAID_WHY(FAILED), ""},
      {CONFLICT(RECLAIM), "reclaim"},
      {DONE(RECLAIM), "-> failing, say abort, resume"},
      S_COMES_BACK},
     GW_FAILED,
     GW_E_QEMU,
     false,
     false},
    {"with a record: LOST comes while RECLAIM is under way",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {TICK, "reclaim"},
      {SAID_WHY(LOST), ""},
      {CONFLICT(RECLAIM), "say query"},
      {SAID_WHY(LOST), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true,
     false},
    {"with a record: RUNNING comes while RECLAIM is under way",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {TICK, "reclaim"},
      {SAID(RUNNING), "-> finishing, say finished, destroy"},
      {DONE(DESTROY), ""},
      {CONFLICT(RECLAIM), "-> completed, hang up"}},
     GW_COMPLETED,
     GW_OK,
     false,
     false},
    {"with a record: a third owner shows while the destination is called again",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {SAID_WHY(FAILED), "reclaim"},
      {PEER_LOST, ""},
      {TICK, "connect"},
      {CONFLICT(RECLAIM), ""},
      {BROKE(CONNECT), ""},
      {TICK, "reclaim"},
      {CONFLICT(RECLAIM), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true,
     false},
    {"with a record: the guest cannot be resumed while the destination is called again",
     GW_SOURCE,
     S_BEGINS,
     {S_COMMITS_RECORD,
      {SAID_WHY(FAILED), "reclaim"},
      {PEER_LOST, ""},
      {TICK, "connect"},
      {DONE(RECLAIM), "-> failing, resume"},
      {BROKE(RESUME), ""},
      {BROKE(CONNECT), "-> failed, hang up"}},
     GW_FAILED,
     GW_E_UNRESOLVED,
     true,
     false},
    {"with a record: CLAIM, then RESUME",
     GW_DESTINATION,
     D_BEGINS,
     {D_LOADS,
      {SAID(COMMIT), "-> committing, claim"},
      {SAID(QUERY), "say busy"},
      {PEER_LOST, ""},
      {DONE(CLAIM), "resume"},
      {SAID(ABORT), ""},
      {DONE(RESUME), "say running, -> finishing"},
      {TICK, "-> completed, hang up"}},
     GW_COMPLETED,
     GW_OK,
     false,
     true},
    {"with a record: COMMIT comes before QEMU has said that it has loaded",
     GW_DESTINATION,
     D_BEGINS,
     {D_PAUSES,
      {SAID(COMMIT), "-> committing"},
      {STATUS(COMPLETED), "claim"},
      {DONE(CLAIM), "resume"},
      {DONE(RESUME), "say running, -> finishing"},
      {SAID(FINISHED), "-> completed, hang up"}},
     GW_COMPLETED,
     GW_OK,
     false,
     true},
    {"with a record: the source was quicker",
     GW_DESTINATION,
     D_BEGINS,
     {D_LOADS,
      {SAID(COMMIT), "-> committing, claim"},
      {CONFLICT(CLAIM), "-> failing, say failed, destroy"},
      {DONE(DESTROY), "say aborted, -> failed, hang up"}},
     GW_FAILED,
     GW_E_QEMU,
     false,
     true},
    {"with a record: nobody knows whether it was claimed, so it is given back",
     GW_DESTINATION,
     D_BEGINS,
     {D_LOADS,
      {SAID(COMMIT), "-> committing, claim"},
      {BROKE(CLAIM), "-> failing, say failed, destroy"},
      {SAID(QUERY), "say failed"},
      {DONE(DESTROY), "say aborted, -> failed, hang up"}},
     GW_FAILED,
     GW_E_QEMU,
     false,
     true},
    {"with a record: the source has taken it back while CLAIM is under way",
     GW_DESTINATION,
     D_BEGINS,
     {D_LOADS,
      {SAID(COMMIT), "-> committing, claim"},
      {SAID(ABORT), "-> failing"},
      {CONFLICT(CLAIM), "destroy"},
      {DONE(DESTROY), "say aborted, -> cancelled, hang up"}},
     GW_CANCELLED,
     GW_E_CANCELLED,
     false,
     true},
    {"with a record: QEMU ends while CLAIM is under way",
     GW_DESTINATION,
     D_BEGINS,
     {D_LOADS,
      {SAID(COMMIT), "-> committing, claim"},
      {QEMU_GONE, "-> failing, say failed"},
      {DONE(CLAIM), "destroy"},
      {DONE(DESTROY), "say aborted, -> failed, hang up"}},
     GW_FAILED,
     GW_E_QEMU_GONE,
     false,
     true},
};

static void play(const struct story *story)
{
    struct gw_machine m;
    struct gw_update u;
    char text[512], event[128];

    gw_machine_init(&m, story->role, &limits);
    m.has_record = story->has_record;
    m.verify = story->verify;
    gw_machine_begin(&m, 1000, &u);
    update_text(&u, text, sizeof text);
    assert_string_equal(text, story->begins);
    for (const struct scene *s = story->scenes; s < story->scenes + STORY_MAX; s++) {
        struct gw_event ev = s->event;
        int rc;

        if (!s->wants && ev.type == GW_EV_DONE) /* the zeroes after the last scene */
            break;
        ev.at_ns = ev.type == GW_EV_TICK ? m.deadline_ns : m.now_ns + 1;
        rc = gw_machine_step(&m, &ev, &u);
        update_text(&u, text, sizeof text);
        event_text(&ev, event, sizeof event);
        if (rc != (s->wants == NULL) || strcmp(text, s->wants ? s->wants : "") != 0)
            fail_msg("%s: at \"%s\" the machine returns %d and wants \"%s\", not \"%s\"",
                     story->title, event, rc, text, s->wants ? s->wants : "nothing: no sense");
    }
    if (m.phase != story->end || m.error.code != story->code ||
        m.needs_person != story->needs_person)
        fail_msg("%s: ends as %s, %s: %s", story->title, gw_phase_name(m.phase),
                 gw_code_name(m.error.code), m.error.msg);
}

static void stories_go_as_told(void **state)
{
    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(stories); i++)
        play(&stories[i]);
}

static void recovery_takes_up_what_was_left(void **state)
{
    static const struct {
        enum gw_phase left;
        bool guest_runs;
        const char *begins;
        struct scene scenes[6];
        enum gw_phase end;
        enum gw_code code;
        bool has_record;
    } cases[] = {
        {GW_PREPARING,
         true,
         "-> failing, stop-copy",
         {{DONE(STOP_COPY), "resume"},
          {DONE(RESUME), "disarm"},
          {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_STATE},
        {GW_PRECOPY,
         true,
         "-> failing, stop-copy",
         {{BROKE(STOP_COPY), "resume"}, {DONE(RESUME), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_STATE},
        {GW_SWITCHOVER,
         false,
         "-> failing, stop-copy",
         {{DONE(STOP_COPY), "disarm"}, {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_STATE},
        {GW_FAILING,
         true,
         "-> failing, stop-copy",
         {{QEMU_GONE, ""}, {GONE_IN(STOP_COPY), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_UNRESOLVED},
        {GW_COMMITTING,
         true,
         "connect",
         {{DONE(CONNECT), "say query"},
          {SAID(RUNNING), "-> finishing, say finished, destroy"},
          {DONE(DESTROY), "-> completed, hang up"}},
         GW_COMPLETED,
         GW_OK},
        {GW_COMMITTING,
         true,
         "connect",
         {{BROKE(CONNECT), ""},
          {TICK, "connect"},
          {DONE(CONNECT), "say query"},
          {SAID_WHY(FAILED), "-> failing, resume"},
          {DONE(RESUME), "disarm"},
          {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_QEMU},
        {GW_FINISHING,
         true,
         "say finished, destroy",
         {{DONE(DESTROY), "-> completed, hang up"}},
         GW_COMPLETED,
         GW_OK},
        /* with a record */
        {GW_PRECOPY,
         true,
         "stop-copy",
         {{DONE(STOP_COPY), "-> failing, resume"},
          {DONE(RESUME), "disarm"},
          {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_STATE,
         true},
        {GW_PRECOPY, /* the journal could not be written since, and COMMIT was said */
         true,
         "stop-copy",
         {{COMPLETED(STOP_COPY), "reclaim"},
          {CONFLICT(RECLAIM), "connect"},
          {DONE(CONNECT), "say query"},
          {SAID(RUNNING), "-> finishing, say finished, destroy"},
          {DONE(DESTROY), "-> completed, hang up"}},
         GW_COMPLETED,
         GW_OK,
         true},
        {GW_SWITCHOVER, /* COMMIT was not said, or nobody heard it */
         true,
         "stop-copy",
         {{COMPLETED(STOP_COPY), "reclaim"},
          {DONE(RECLAIM), "-> failing, resume"},
          {DONE(RESUME), "disarm"},
          {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_PEER,
         true},
        {GW_SWITCHOVER, /* COMMIT was said */
         true,
         "stop-copy",
         {{COMPLETED(STOP_COPY), "reclaim"},
          {CONFLICT(RECLAIM), "connect"},
          {DONE(CONNECT), "say query"},
          {SAID(RUNNING), "-> finishing, say finished, destroy"},
          {DONE(DESTROY), "-> completed, hang up"}},
         GW_COMPLETED,
         GW_OK,
         true},
        {GW_SWITCHOVER, /* QEMU has not settled: it may have completed, and gets no settings */
         true,
         "stop-copy",
         {{BROKE(STOP_COPY), "reclaim"},
          {DONE(RECLAIM), "-> failing, resume"},
          {DONE(RESUME), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_PEER,
         true},
        {GW_SWITCHOVER, /* and not before the store has answered is the destination asked */
         false,
         "stop-copy",
         {{COMPLETED(STOP_COPY), "reclaim"},
          {BROKE(RECLAIM), ""},
          {TICK, "reclaim"},
          {DONE(RECLAIM), "-> failing, disarm"},
          {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_PEER,
         true},
        {GW_SWITCHOVER, /* nor where no copy is left: it may not be told to run a guest */
         true,
         "stop-copy",
         {{QEMU_GONE, ""},
          {GONE_IN(STOP_COPY), "reclaim"},
          {BROKE(RECLAIM), ""},
          {TICK, "reclaim"},
          {DONE(RECLAIM), "-> failing, -> failed, hang up"}},
         GW_FAILED,
         GW_E_UNRESOLVED,
         true},
        {GW_COMMITTING,
         true,
         "connect",
         {{TICK, "reclaim"},
          {BROKE(CONNECT), ""},
          {DONE(RECLAIM), "-> failing, resume"},
          {DONE(RESUME), "disarm"},
          {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_PEER,
         true},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct gw_machine m;
        struct gw_update u;
        char text[512];

        gw_machine_init(&m, GW_SOURCE, &limits);
        m.guest_runs = cases[i].guest_runs;
        m.has_record = cases[i].has_record;
        gw_machine_recover(&m, cases[i].left, 1000, &u);
        update_text(&u, text, sizeof text);
        assert_string_equal(text, cases[i].begins);
        for (unsigned k = 0; k < 6 && cases[i].scenes[k].wants; k++) {
            struct gw_event ev = cases[i].scenes[k].event;

            ev.at_ns = ev.type == GW_EV_TICK ? m.deadline_ns : m.now_ns + 1;
            assert_int_equal(gw_machine_step(&m, &ev, &u), 0);
            update_text(&u, text, sizeof text);
            assert_string_equal(text, cases[i].scenes[k].wants);
        }
        assert_int_equal(m.phase, cases[i].end);
        assert_int_equal(m.error.code, cases[i].code);
    }
}

/* A verdict a letter: Keep, Resume, Destroy, Lost, Ask, Wait. */
static void arrivals_are_judged(void **state)
{
    static const struct {
        enum gw_phase phase;
        /* QEMU, by record: none, unknown, ours, theirs */
        const char *gone, *loads, *loaded, *ran, *silent;
    } rows[] = {
        {GW_PREPARING, "DALD", "DDDD", "DDDD", "KKKK", "DAWD"},
        {GW_PRECOPY, "DALD", "DDDD", "DDDD", "KKKK", "DAWD"},
        {GW_SWITCHOVER, "DALD", "DADD", "DARD", "KKKK", "DAWD"},
        {GW_COMMITTING, "LALD", "DADD", "DARD", "KKKK", "WAWD"},
        {GW_FINISHING, "LLLL", "KKKK", "KKKK", "KKKK", "WWWW"},
        {GW_FAILING, "DDDD", "DDDD", "DDDD", "KKKK", "DDDD"},
        {GW_PHASE_MAX, "DDDD", "DDDD", "DDDD", "KKKK", "WWWW"},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        const char *wanted[] = {rows[i].gone, rows[i].loads, rows[i].loaded, rows[i].ran,
                                rows[i].silent};

        for (unsigned qemu = 0; qemu < 5; qemu++)
            for (unsigned record = 0; record < 4; record++) {
                char verdict = "KRDLAW"[gw_arrival_judge(rows[i].phase, (enum gw_arrival_qemu)qemu,
                                                         (enum gw_arrival_record)record)];

                if (verdict != wanted[qemu][record])
                    fail_msg("in %s, QEMU %u, record %u: %c", gw_phase_name(rows[i].phase), qemu,
                             record, verdict);
            }
    }
}

static void only_two_phases_are_journaled_late(void **state)
{
    struct gw_machine m;

    (void)state;
    for (enum gw_role role = GW_SOURCE; role <= GW_DESTINATION; role++) {
        gw_machine_init(&m, role, &limits);
        for (enum gw_phase phase = GW_PREPARING; phase < GW_PHASE_MAX; phase++) {
            m.has_record = false;
            assert_int_equal(gw_machine_journals_late(&m, phase), phase == GW_SWITCHOVER);
            m.has_record = true;
            assert_int_equal(gw_machine_journals_late(&m, phase),
                             phase == GW_SWITCHOVER || phase == GW_COMMITTING);
        }
    }
}

static void times_and_figures_are_noted(void **state)
{
    static const struct scene scenes[] = {S_PAUSES};
    struct gw_event figures = {.type = GW_EV_PROGRESS,
                               .progress = {.total_bytes = 7, .remaining_bytes = 3, .round = 2}};
    struct gw_machine m;
    struct gw_update u;

    (void)state;
    gw_machine_init(&m, GW_SOURCE, &limits);
    gw_machine_begin(&m, 1000, &u);
    assert_int_equal(m.deadline_ns, 1000 + limits.preparing_ns);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(scenes); i++) {
        struct gw_event ev = scenes[i].event;

        ev.at_ns = 1001 + i;
        gw_machine_step(&m, &ev, &u);
        if (m.phase == GW_PRECOPY)
            assert_true(m.deadline_ns == UINT64_MAX); /* no limit was set */
    }
    assert_int_equal(m.times.phase_ns[GW_PREPARING], 1000);
    assert_int_equal(m.times.phase_ns[GW_PRECOPY], 1005);
    assert_int_equal(m.times.phase_ns[GW_SWITCHOVER], 1006);
    assert_int_equal(m.times.phase_ns[GW_COMMITTING], 0);
    assert_int_equal(m.deadline_ns, 1006 + limits.switchover_ns);
    figures.at_ns = 1008;
    assert_int_equal(gw_machine_step(&m, &figures, &u), 0);
    assert_int_equal(u.n_intents, 0);
    assert_int_equal(m.progress.remaining_bytes, 3);
    assert_int_equal(m.progress.round, 2);
    gw_machine_step(
        &m, &(struct gw_event){.at_ns = 1009, .type = GW_EV_QEMU_STATUS, .status = GW_QEMU_DEVICE},
        &u);
    assert_int_equal(m.times.device_ns, 1009);
}

static void limits_on_precopy_are_the_source_s(void **state)
{
    static const struct scene source[] = {S_COPIES}, destination[] = {D_LISTENS};
    struct gw_limits some = limits;

    (void)state;
    some.precopy_ns = 100;
    for (enum gw_role role = GW_SOURCE; role <= GW_DESTINATION; role++) {
        const struct scene *scenes = role == GW_SOURCE ? source : destination;
        unsigned n = role == GW_SOURCE ? GW_ARRAY_SIZE(source) : GW_ARRAY_SIZE(destination);
        struct gw_machine m;
        struct gw_update u;

        gw_machine_init(&m, role, &some);
        gw_machine_begin(&m, 1, &u);
        for (unsigned i = 0; i < n; i++) {
            struct gw_event ev = scenes[i].event;

            ev.at_ns = 2;
            gw_machine_step(&m, &ev, &u);
        }
        assert_int_equal(m.phase, GW_PRECOPY);
        assert_true(m.deadline_ns == (role == GW_SOURCE ? 102 : UINT64_MAX));
    }
}

static void names(void **state)
{
    (void)state;
    for (int op = 0; op < GW_OP_MAX; op++)
        assert_non_null(gw_op_name((enum gw_op)op));
    for (int message = 0; message < GW_MSG_MAX; message++)
        assert_non_null(gw_message_name((enum gw_message)message));
    assert_string_equal(gw_op_name(GW_OP_MAX), "unknown");
    assert_string_equal(gw_message_name(GW_MSG_MAX), "unknown");
    assert_int_equal(gw_qemu_status_from_name("pre-switchover"), GW_QEMU_PRE_SWITCHOVER);
    assert_int_equal(gw_qemu_status_from_name("cancelled"), GW_QEMU_CANCELLED);
    assert_int_equal(gw_qemu_status_from_name("postcopy-active"), GW_QEMU_OTHER);
    assert_int_equal(gw_qemu_status_from_name(""), GW_QEMU_OTHER);
    for (int phase = 0; phase < GW_PHASE_MAX; phase++) {
        const char *name = gw_phase_name((enum gw_phase)phase);

        assert_int_equal(gw_phase_from_name(name), phase);
        assert_true(gw_phase_comment((enum gw_phase)phase)[0]);
    }
    assert_int_equal(gw_phase_from_name("asleep"), GW_PHASE_MAX);
    assert_string_equal(gw_phase_name(GW_PHASE_MAX), "unknown");
}
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(stories_go_as_told),
        cmocka_unit_test(recovery_takes_up_what_was_left),
        cmocka_unit_test(arrivals_are_judged),
        cmocka_unit_test(only_two_phases_are_journaled_late),
        cmocka_unit_test(times_and_figures_are_noted),
        cmocka_unit_test(limits_on_precopy_are_the_source_s),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
