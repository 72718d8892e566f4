/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two machines, each on its own: stories told step by step, then every state that any order of
 * events can lead to.
 *
 * The exploration is exhaustive: time only passes with a tick, so the states are finitely many. It
 * is done twice. With an honest driver, which keeps the contract of machine.h (but with a peer that
 * may say anything at any time), all that the machines promise is checked. With a sloppy one, whose
 * events come in any phase whatsoever, only that nothing worse happens than an event without sense.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/machine.h"
#include "util/cleanup.h"

/* COMMITTING is over after a handful of ticks. */
static const struct gw_limits limits = {
    .preparing_ns = 60,
    .precopy_ns = 0,
    .switchover_ns = 15,
    .committing_ns = 30,
    .reclaim_ns = 9,
    .failing_ns = 15,
    .retry_ns = 4,
};

static const struct gw_error an_error = {GW_E_QEMU, 0, "QEMU said no", "ask it"};
static const struct gw_error gone_error = {GW_E_QEMU_GONE, 0, "QEMU was killed", ""};
static const struct gw_error lost_error = {GW_E_PEER, 0, "the connection is gone", ""};

#define DONE(o)                                                            \
    {                                                                      \
        .type = GW_EV_DONE, .done = {.op = GW_OP_##o, .guest_runs = true } \
    }
#define DONE_RECORD(o)                                                                         \
    {                                                                                          \
        .type = GW_EV_DONE, .done = {.op = GW_OP_##o, .guest_runs = true, .has_record = true } \
    }
#define CONFLICT(o)                                                                          \
    {                                                                                        \
        .type = GW_EV_DONE, .error = &an_error, .done = {.op = GW_OP_##o, .conflict = true } \
    }
#define DONE_PAUSED(o)                                 \
    {                                                  \
        .type = GW_EV_DONE, .done = {.op = GW_OP_##o } \
    }
#define BROKE(o)                                                           \
    {                                                                      \
        .type = GW_EV_DONE, .error = &an_error, .done = {.op = GW_OP_##o } \
    }
#define GONE_IN(o)                                                           \
    {                                                                        \
        .type = GW_EV_DONE, .error = &gone_error, .done = {.op = GW_OP_##o } \
    }
#define SAID(m)                                      \
    {                                                \
        .type = GW_EV_MESSAGE, .message = GW_MSG_##m \
    }
#define SAID_WHY(m)                                                      \
    {                                                                    \
        .type = GW_EV_MESSAGE, .error = &an_error, .message = GW_MSG_##m \
    }
#define STATUS(s)                                        \
    {                                                    \
        .type = GW_EV_QEMU_STATUS, .status = GW_QEMU_##s \
    }
#define PEER_LOST                                     \
    {                                                 \
        .type = GW_EV_PEER_LOST, .error = &lost_error \
    }
#define QEMU_GONE                                     \
    {                                                 \
        .type = GW_EV_QEMU_GONE, .error = &gone_error \
    }
#define CANCEL               \
    {                        \
        .type = GW_EV_CANCEL \
    }
#define TICK               \
    {                      \
        .type = GW_EV_TICK \
    }

/* ---- what a machine wants, as text ---- */

static const char *intent_text(const struct gw_intent *intent, char *text, size_t size)
{
    switch (intent->type) {
    case GW_DO_OP: snprintf(text, size, "%s", gw_op_name(intent->op)); break;
    case GW_DO_SEND: snprintf(text, size, "say %s", gw_message_name(intent->message)); break;
    case GW_DO_DISCONNECT: snprintf(text, size, "hang up"); break;
    case GW_DO_PHASE: snprintf(text, size, "-> %s", gw_phase_name(intent->phase.to)); break;
    }
    return text;
}

static void update_text(const struct gw_update *u, char *text, size_t size)
{
    char one[64];

    *text = '\0';
    for (unsigned i = 0; i < u->n_intents; i++)
        snprintf(text + strlen(text), size - strlen(text), "%s%s", i ? ", " : "",
                 intent_text(&u->intents[i], one, sizeof one));
}

static void event_text(const struct gw_event *ev, char *text, size_t size)
{
    static const char *const statuses[] = {"none",      "setup",     "active", "pre-switchover",
                                           "device",    "completed", "failed", "cancelling",
                                           "cancelled", "other"};

    switch (ev->type) {
    case GW_EV_DONE:
        snprintf(text, size, "%s done%s%.60s%s", gw_op_name(ev->done.op), ev->error ? ": " : "",
                 ev->error ? ev->error->msg : "", ev->done.conflict ? " (conflict)" : "");
        break;
    case GW_EV_MESSAGE:
        snprintf(text, size, "the peer says %s", gw_message_name(ev->message));
        break;
    case GW_EV_PEER_LOST: snprintf(text, size, "the peer is lost"); break;
    case GW_EV_QEMU_STATUS: snprintf(text, size, "QEMU: %s", statuses[ev->status]); break;
    case GW_EV_QEMU_GONE: snprintf(text, size, "QEMU is gone"); break;
    case GW_EV_PROGRESS: snprintf(text, size, "figures"); break;
    case GW_EV_CANCEL: snprintf(text, size, "cancel"); break;
    case GW_EV_TICK: snprintf(text, size, "tick"); break;
    }
}

/* ---- stories ---- */

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
         "-> failing, stop-copy",
         {{DONE(STOP_COPY), "resume"},
          {DONE(RESUME), "disarm"},
          {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_STATE,
         true},
        {GW_SWITCHOVER, /* COMMIT was not said, or nobody heard it */
         true,
         "reclaim",
         {{DONE(RECLAIM), "-> failing, stop-copy"},
          {DONE(STOP_COPY), "resume"},
          {DONE(RESUME), "disarm"},
          {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_PEER,
         true},
        {GW_SWITCHOVER, /* COMMIT was said */
         true,
         "reclaim",
         {{CONFLICT(RECLAIM), "connect"},
          {DONE(CONNECT), "say query"},
          {SAID(RUNNING), "-> finishing, say finished, destroy"},
          {DONE(DESTROY), "-> completed, hang up"}},
         GW_COMPLETED,
         GW_OK,
         true},
        {GW_SWITCHOVER, /* and not before the store has answered is the destination asked */
         false,
         "reclaim",
         {{BROKE(RECLAIM), ""},
          {TICK, "reclaim"},
          {DONE(RECLAIM), "-> failing, stop-copy"},
          {DONE(STOP_COPY), "disarm"},
          {DONE(DISARM), "-> failed, hang up"}},
         GW_FAILED,
         GW_E_PEER,
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

/* A verdict a letter: Keep, Resume, Destroy, Lost, Ask. */
static void arrivals_are_judged(void **state)
{
    static const struct {
        enum gw_phase phase;
        const char *gone, *loads, *loaded, *ran; /* QEMU, by record: none, unknown, ours, theirs */
    } rows[] = {
        {GW_PREPARING, "DALD", "DDDD", "DDDD", "KKKK"},
        {GW_PRECOPY, "DALD", "DDDD", "DDDD", "KKKK"},
        {GW_SWITCHOVER, "DALD", "DADD", "DARD", "KKKK"},
        {GW_COMMITTING, "LALD", "DADD", "DARD", "KKKK"},
        {GW_FINISHING, "LLLL", "KKKK", "KKKK", "KKKK"},
        {GW_FAILING, "DDDD", "DDDD", "DDDD", "KKKK"},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        const char *wanted[] = {rows[i].gone, rows[i].loads, rows[i].loaded, rows[i].ran};

        for (unsigned qemu = 0; qemu < 4; qemu++)
            for (unsigned record = 0; record < 4; record++) {
                char verdict = "KRDLA"[gw_arrival_judge(rows[i].phase, (enum gw_arrival_qemu)qemu,
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

/* ---- every state ---- */

#define OP_BIT(o)      (UINT32_C(1) << GW_OP_##o)
#define STATES_MAX     (UINT32_C(1) << 19)
#define NOBODY         UINT32_MAX
#define N_MESSAGES     GW_MSG_MAX
#define N_STATUSES     (GW_QEMU_OTHER + 1)
#define HEARD(w, m)    ((w)->heard & (UINT32_C(1) << GW_MSG_##m))
#define SAID_BIT(w, m) ((w)->said & (UINT32_C(1) << GW_MSG_##m))

/* A machine and what whoever drives it knows of the past. */
struct world {
    struct gw_machine m;
    uint32_t heard, said;   /* messages, one bit each; FAILED counts anew after COMMIT */
    uint32_t begun, failed; /* operations, one bit each */
    bool connected, qemu, qemu_speaks, seen_paused, seen_completed;
    bool has_record; /* so INSPECT will say */
    bool unsure;     /* recovered: COMMIT may have been said */
    bool claimed;    /* CLAIM was done */
    bool reclaimed;  /* RECLAIM was done, or nobody knows but FAILED was heard before it began */
    bool by_word;    /* FAILED was heard before the RECLAIM under way began */
    bool disowned;   /* a RECLAIM found another's record */
    uint32_t parent;
    struct gw_event by; /* what led here from parent */
};

struct exploration {
    bool honest, has_record;
    struct world *worlds;
    uint32_t n_worlds, n_ends, now_at;
    uint32_t *table; /* an index into worlds + 1, by hash */
    uint64_t (*keys)[3];
    struct gw_event now; /* what is being tried */
    uint32_t phases, intents_max;
};

static struct exploration *exploring; /* for the signal handler */

static void print_path(const struct exploration *x)
{
    const struct gw_event *path[128];
    unsigned n = 0;
    uint32_t at = x->now_at;
    char text[128];

    for (; x->worlds[at].parent != NOBODY && n < GW_ARRAY_SIZE(path); at = x->worlds[at].parent)
        path[n++] = &x->worlds[at].by;
    print_error("The %s, from %s:\n", x->worlds[at].m.role == GW_SOURCE ? "source" : "destination",
                gw_phase_name(x->worlds[at].m.phase));
    while (n-- > 0) {
        event_text(path[n], text, sizeof text);
        print_error("  %s\n", text);
    }
    event_text(&x->now, text, sizeof text);
    print_error("  in %s now: %s\n", gw_phase_name(x->worlds[x->now_at].m.phase), text);
}

static void aborted(int sig)
{
    if (exploring)
        print_path(exploring);
    signal(sig, SIG_DFL);
    raise(sig);
}

#define EXPECT(x, condition)                    \
    do {                                        \
        if (!(condition)) {                     \
            print_path(x);                      \
            fail_msg("not so: %s", #condition); \
        }                                       \
    } while (0)

static bool may_go(enum gw_phase from, enum gw_phase to, bool needs_person)
{
    switch (from) {
    case GW_PREPARING: return to == GW_PRECOPY || to == GW_FAILING;
    case GW_PRECOPY: return to == GW_SWITCHOVER || to == GW_FAILING;
    case GW_SWITCHOVER: return to == GW_COMMITTING || to == GW_FAILING;
    case GW_COMMITTING:
        return to == GW_FINISHING || to == GW_FAILING || (to == GW_FAILED && needs_person);
    case GW_FINISHING: return to == GW_COMPLETED;
    case GW_FAILING: return to == GW_FAILED || to == GW_CANCELLED;
    default: return false;
    }
}

/* Before the commit the guest is the source's. After it the owner record gives it back; where there
 * is none, FAILED. */
static bool source_may_resume(const struct world *w)
{
    if (!SAID_BIT(w, COMMIT))
        return true;
    return w->m.has_record ? w->reclaimed : HEARD(w, FAILED);
}

static void check_source_op(const struct exploration *x, const struct world *w, enum gw_op op)
{
    switch (op) {
    case GW_OP_STOP_COPY:
        EXPECT(x, !(w->begun & (OP_BIT(RESUME) | OP_BIT(DISARM))));
        EXPECT(x, !SAID_BIT(w, COMMIT) || w->unsure);
        break;
    case GW_OP_RECLAIM:
        EXPECT(x, w->m.has_record && SAID_BIT(w, COMMIT));
        EXPECT(x, w->m.phase == GW_COMMITTING);
        break;
    case GW_OP_RESUME:
        EXPECT(x, source_may_resume(w));
        EXPECT(x, w->m.guest_runs);
        EXPECT(x, !(w->begun & OP_BIT(DISARM)));
        EXPECT(x, w->m.phase == GW_FAILING);
        break;
    case GW_OP_ARM: EXPECT(x, HEARD(w, PREPARED)); break;
    case GW_OP_DESTROY: EXPECT(x, HEARD(w, RUNNING) || w->parent == NOBODY); break;
    default: break;
    }
    if (w->m.phase == GW_FAILING)
        EXPECT(x, op == GW_OP_STOP_COPY || op == GW_OP_RESUME || op == GW_OP_DISARM);
    if (op != GW_OP_CONNECT && op != GW_OP_RECLAIM)
        EXPECT(x, !(w->begun & (UINT32_C(1) << op)));
}

static void check_destination_op(const struct exploration *x, const struct world *w, enum gw_op op)
{
    EXPECT(x, !(w->begun & (UINT32_C(1) << op)));
    if (op == GW_OP_RESUME || op == GW_OP_CLAIM) {
        EXPECT(x, HEARD(w, COMMIT) || HEARD(w, QUERY));
        EXPECT(x, w->seen_completed);
        EXPECT(x, !SAID_BIT(w, FAILED));
        EXPECT(x, w->m.phase == GW_COMMITTING);
    }
    if (op == GW_OP_CLAIM)
        EXPECT(x, w->m.has_record);
    if (op == GW_OP_RESUME)
        EXPECT(x, w->claimed == w->m.has_record);
    if (op == GW_OP_DESTROY) {
        EXPECT(x, w->m.ops == OP_BIT(DESTROY)); /* CLAIM's answer is waited for */
        EXPECT(x, w->m.phase == GW_FAILING);
        EXPECT(x, !(w->begun & OP_BIT(RESUME)) || (w->failed & OP_BIT(RESUME)));
    }
}

static void check_source_message(const struct exploration *x, const struct world *w,
                                 enum gw_message message)
{
    switch (message) {
    case GW_MSG_PREPARE:
        EXPECT(x, w->connected && (w->begun & OP_BIT(INSPECT)) && !SAID_BIT(w, PREPARE));
        break;
    case GW_MSG_SWITCHING: EXPECT(x, w->seen_paused && !SAID_BIT(w, SWITCHING)); break;
    case GW_MSG_COMMIT:
        EXPECT(x, w->seen_completed && !SAID_BIT(w, COMMIT) && w->m.ops == 0);
        break;
    case GW_MSG_QUERY: /* which is as good as COMMIT */
        EXPECT(x, w->m.phase == GW_COMMITTING && (!w->unsure || w->disowned));
        break;
    case GW_MSG_FINISHED: EXPECT(x, w->m.phase == GW_FINISHING); break;
    case GW_MSG_ABORT: EXPECT(x, source_may_resume(w)); break;
    default: EXPECT(x, !"a message of the source"); break;
    }
}

static void check_destination_message(const struct exploration *x, const struct world *w,
                                      enum gw_message message)
{
    switch (message) {
    case GW_MSG_PREPARED: EXPECT(x, !SAID_BIT(w, PREPARED)); break;
    case GW_MSG_RUNNING:
        EXPECT(x, (w->begun & OP_BIT(RESUME)) && !(w->failed & OP_BIT(RESUME)) &&
                      !(w->m.ops & OP_BIT(RESUME)));
        EXPECT(x, !SAID_BIT(w, FAILED) && !SAID_BIT(w, LOST));
        break;
    case GW_MSG_FAILED:
        EXPECT(x, !SAID_BIT(w, RUNNING) && !SAID_BIT(w, LOST));
        EXPECT(x, !(w->begun & OP_BIT(RESUME)) || (w->failed & OP_BIT(RESUME)));
        break;
    case GW_MSG_LOST: EXPECT(x, (w->begun & OP_BIT(RESUME)) && !(w->m.ops & OP_BIT(RESUME))); break;
    case GW_MSG_ABORTED: EXPECT(x, w->begun & OP_BIT(DESTROY)); break;
    case GW_MSG_BUSY: EXPECT(x, w->m.phase == GW_COMMITTING); break;
    default: EXPECT(x, !"a message of the destination"); break;
    }
}

static void check_end(const struct exploration *x, const struct world *w)
{
    const struct gw_machine *m = &w->m;

    EXPECT(x, m->ops == 0);
    EXPECT(x, m->needs_person == (m->error.code == GW_E_UNRESOLVED));
    if (m->phase == GW_COMPLETED) {
        EXPECT(x, !m->needs_person);
        EXPECT(x, m->role == GW_DESTINATION || (w->begun & OP_BIT(DESTROY)));
        return;
    }
    EXPECT(x, m->error.code != GW_OK && m->error.msg[0]);
    EXPECT(x, (m->phase == GW_CANCELLED) == (m->cancelled && !m->needs_person));
    if (m->phase == GW_CANCELLED)
        EXPECT(x, m->error.code == GW_E_CANCELLED);
    if (m->needs_person)
        return;
    if (m->role == GW_DESTINATION) {
        EXPECT(x, w->begun & OP_BIT(DESTROY));
        EXPECT(x, SAID_BIT(w, FAILED) || HEARD(w, ABORT));
        return;
    }
    /* All that was done is undone, as the guest is here. */
    EXPECT(x, w->qemu);
    if (w->begun & OP_BIT(START))
        EXPECT(x, SAID_BIT(w, COMMIT) || (w->begun & OP_BIT(STOP_COPY)));
    if (w->seen_paused && m->guest_runs)
        EXPECT(x, (w->begun & OP_BIT(RESUME)) && !(w->failed & OP_BIT(RESUME)));
    if (w->failed & OP_BIT(STOP_COPY))
        EXPECT(x, !(w->begun & OP_BIT(DISARM)));
    else if (w->begun & OP_BIT(ARM))
        EXPECT(x, w->begun & OP_BIT(DISARM));
}

/* Something will happen, or somebody is there to whom something may happen. */
static void check_not_stuck(const struct exploration *x, const struct world *w)
{
    const struct gw_machine *m = &w->m;

    if (m->ops || m->deadline_ns != UINT64_MAX)
        return;
    EXPECT(x, w->connected || w->qemu);
    EXPECT(x, m->phase == GW_PRECOPY || (m->phase == GW_FINISHING && w->connected));
}

/* Carries the update out; *w is the world after it. */
static void take_update(struct exploration *x, struct world *w, enum gw_phase from,
                        const struct gw_update *u)
{
    uint32_t ops = 0;
    bool hung_up = false;

    for (unsigned i = 0; i < u->n_intents; i++) {
        const struct gw_intent *intent = &u->intents[i];

        switch (intent->type) {
        case GW_DO_PHASE:
            EXPECT(x, intent->phase.from == from);
            EXPECT(x, may_go(from, intent->phase.to, w->m.needs_person));
            from = intent->phase.to;
            x->phases |= UINT32_C(1) << from;
            break;
        case GW_DO_OP:
            EXPECT(x, !(ops & (UINT32_C(1) << intent->op)));
            ops |= UINT32_C(1) << intent->op;
            EXPECT(x, w->m.ops & ops);
            if (intent->op == GW_OP_RECLAIM)
                w->by_word = HEARD(w, FAILED);
            if (x->honest && w->m.role == GW_SOURCE)
                check_source_op(x, w, intent->op);
            if (x->honest && w->m.role == GW_DESTINATION)
                check_destination_op(x, w, intent->op);
            w->begun |= UINT32_C(1) << intent->op;
            w->qemu |= intent->op == GW_OP_LAUNCH;
            w->qemu_speaks |= intent->op == GW_OP_START || intent->op == GW_OP_LISTEN;
            break;
        case GW_DO_SEND:
            if (x->honest && w->m.role == GW_SOURCE)
                check_source_message(x, w, intent->message);
            if (x->honest && w->m.role == GW_DESTINATION)
                check_destination_message(x, w, intent->message);
            w->said |= UINT32_C(1) << intent->message;
            break;
        case GW_DO_DISCONNECT:
            EXPECT(x, !hung_up);
            hung_up = true;
            w->connected = false;
            break;
        }
    }
    EXPECT(x, from == w->m.phase);
    EXPECT(x, hung_up == gw_phase_is_end(w->m.phase));
    if (u->n_intents > x->intents_max)
        x->intents_max = u->n_intents;
    if (!x->honest)
        return;
    if (gw_phase_is_end(w->m.phase))
        check_end(x, w);
    else
        check_not_stuck(x, w);
}

static void put(uint64_t *key, unsigned bits, uint64_t value)
{
    *key = *key << bits | (value & ((UINT64_C(1) << bits) - 1));
}

static uint64_t from_now(const struct gw_machine *m, uint64_t at_ns)
{
    if (at_ns == UINT64_MAX)
        return UINT16_MAX;
    return at_ns > m->now_ns ? at_ns - m->now_ns : 0;
}

/* All by which two worlds may behave differently. Time counts from the beginning of the phase. */
static void key_of(const struct world *w, uint64_t key[3])
{
    const struct gw_machine *m = &w->m;
    const bool flags[] = {m->guest_runs,  m->cancelled,    m->connected,      m->engaged,
                          m->peer_undone, m->inspected,    m->armed,          m->copying,
                          m->paused,      m->told,         m->has_qemu,       m->loaded,
                          m->let_run,     m->needs_person, w->connected,      w->qemu,
                          w->qemu_speaks, w->seen_paused,  w->seen_completed, m->has_record,
                          m->peer_failed, m->by_word,      m->disowned,       m->stuck,
                          w->claimed,     w->reclaimed,    w->by_word,        w->disowned};
    uint64_t since = m->now_ns - m->times.phase_ns[m->phase];

    memset(key, 0, 3 * sizeof *key);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(flags); i++)
        put(&key[0], 1, flags[i]);
    put(&key[0], 4, m->phase);
    put(&key[0], 4, m->qemu_status);
    put(&key[0], 5, m->error.code);
    put(&key[0], GW_OP_MAX, m->ops);
    put(&key[1], GW_OP_MAX, w->begun);
    put(&key[1], GW_OP_MAX, w->failed);
    put(&key[1], GW_MSG_MAX, w->heard);
    put(&key[1], GW_MSG_MAX, w->said);
    put(&key[2], 16, since < limits.preparing_ns ? since : limits.preparing_ns); /* the longest */
    put(&key[2], 16, from_now(m, m->deadline_ns));
    put(&key[2], 16, from_now(m, m->retry_at_ns));
    put(&key[2], 16, from_now(m, m->reclaim_at_ns));
}

static void add_world(struct exploration *x, const struct world *w)
{
    uint64_t key[3], hash;
    uint32_t at;

    key_of(w, key);
    hash = (key[0] ^ key[1] * UINT64_C(0x9e3779b97f4a7c15) ^ key[2] * UINT64_C(0xbf58476d1ce4e5b9));
    hash = (hash ^ hash >> 31) * UINT64_C(0x94d049bb133111eb);
    for (at = (uint32_t)(hash >> 40); x->table[at % (2 * STATES_MAX)]; at++)
        if (memcmp(x->keys[x->table[at % (2 * STATES_MAX)] - 1], key, sizeof key) == 0)
            return;
    if (x->n_worlds == STATES_MAX)
        fail_msg("more than %u states", STATES_MAX);
    if ((x->n_worlds & (x->n_worlds - 1)) == 0) {
        size_t room = x->n_worlds ? (size_t)x->n_worlds * 2 : 1;

        x->worlds = realloc(x->worlds, room * sizeof *x->worlds);
        x->keys = realloc(x->keys, room * sizeof *x->keys);
        assert_true(x->worlds && x->keys);
    }
    memcpy(x->keys[x->n_worlds], key, sizeof key);
    x->worlds[x->n_worlds] = *w;
    x->table[at % (2 * STATES_MAX)] = ++x->n_worlds;
    x->n_ends += gw_phase_is_end(w->m.phase);
}

/* What no check asks for is not remembered, or the worlds would be too many. */
static bool matters(const struct world *w, enum gw_message message)
{
    switch (message) {
    case GW_MSG_PREPARED: return true;
    case GW_MSG_RUNNING:
    case GW_MSG_FAILED: return SAID_BIT(w, COMMIT);
    case GW_MSG_COMMIT:
    case GW_MSG_QUERY: return !(w->begun & OP_BIT(RESUME));
    case GW_MSG_ABORT: return !SAID_BIT(w, FAILED);
    default: return false;
    }
}

static void note_event(struct world *w, const struct gw_event *ev)
{
    switch (ev->type) {
    case GW_EV_DONE:
        /* a RESUME that failed otherwise than by QEMU's own word may have let the guest run */
        if (ev->error && (w->m.role == GW_SOURCE || ev->error->code == GW_E_QEMU))
            w->failed |= UINT32_C(1) << ev->done.op & (OP_BIT(RESUME) | OP_BIT(STOP_COPY));
        else if (ev->done.op == GW_OP_CONNECT)
            w->connected = true;
        w->claimed |= ev->done.op == GW_OP_CLAIM && !ev->error;
        w->disowned |= ev->done.op == GW_OP_RECLAIM && ev->error && ev->done.conflict;
        w->reclaimed |=
            ev->done.op == GW_OP_RECLAIM && (!ev->error || (w->by_word && !ev->done.conflict));
        if (ev->done.op == GW_OP_STOP_COPY)
            w->qemu_speaks = false;
        if (ev->done.op == GW_OP_DESTROY)
            w->qemu = w->qemu_speaks = false;
        break;
    case GW_EV_MESSAGE:
        w->heard |= (uint32_t)matters(w, ev->message) << ev->message;
        if (ev->message == GW_MSG_QUERY && w->m.role == GW_DESTINATION)
            w->connected = true;
        break;
    case GW_EV_PEER_LOST: w->connected = false; break;
    case GW_EV_QEMU_GONE: w->qemu = w->qemu_speaks = false; break;
    case GW_EV_QEMU_STATUS:
        w->seen_paused |= ev->status == GW_QEMU_PRE_SWITCHOVER;
        w->seen_completed |= ev->status == GW_QEMU_COMPLETED;
        if (ev->status == GW_QEMU_COMPLETED || ev->status == GW_QEMU_FAILED ||
            ev->status == GW_QEMU_CANCELLED)
            w->qemu_speaks = false; /* its last word on this migration */
        break;
    default: break;
    }
}

static bool is_failure(const struct gw_event *ev)
{
    switch (ev->type) {
    case GW_EV_DONE: return ev->error != NULL;
    case GW_EV_QEMU_STATUS: return ev->status == GW_QEMU_FAILED || ev->status == GW_QEMU_CANCELLED;
    case GW_EV_PEER_LOST:
    case GW_EV_QEMU_GONE:
    case GW_EV_CANCEL:
    case GW_EV_TICK: return true;
    default: return false;
    }
}

/* Before the commit whatever goes wrong is the end of it; after it a lost connection or a change
 * of mind is no reason to give up. */
static void check_consequence(const struct exploration *x, enum gw_phase before,
                              const struct gw_event *ev, const struct world *w)
{
    bool mind_changed =
             ev->type == GW_EV_CANCEL || (ev->type == GW_EV_MESSAGE && ev->message == GW_MSG_ABORT),
         given_up = w->m.phase != GW_COMPLETED &&
                    (w->m.phase == GW_FAILING || gw_phase_is_end(w->m.phase));

    if (before <= GW_SWITCHOVER && is_failure(ev))
        EXPECT(x, given_up);
    if (before == GW_COMMITTING && w->m.role == GW_DESTINATION && w->m.has_record &&
        !(w->begun & OP_BIT(RESUME)) && ev->type == GW_EV_MESSAGE && ev->message == GW_MSG_ABORT) {
        EXPECT(x, given_up || !x->honest); /* the source has swapped the record back */
        return;
    }
    if ((before == GW_COMMITTING || before == GW_FINISHING) &&
        (mind_changed || ev->type == GW_EV_PEER_LOST))
        EXPECT(x, !given_up);
}

static void check_error_kept(const struct exploration *x, const struct gw_machine *before,
                             const struct gw_machine *after)
{
    if (before->error.code == GW_OK)
        return;
    if (after->error.code == GW_E_UNRESOLVED && after->needs_person)
        EXPECT(x, strstr(after->error.msg, before->error.msg));
    else
        EXPECT(x, memcmp(&before->error, &after->error, sizeof before->error) == 0);
}

/* Without checks on it the past does not matter. */
static void forget(struct world *w)
{
    w->heard = w->said = w->begun = w->failed = 0;
    w->connected = w->qemu = w->qemu_speaks = w->seen_paused = w->seen_completed = false;
    w->claimed = w->reclaimed = w->by_word = w->disowned = false;
}

static void try_event(struct exploration *x, uint32_t at, struct gw_event ev)
{
    struct world w = x->worlds[at];
    const struct gw_machine before = w.m;
    struct gw_update u;
    int rc;

    ev.at_ns = ev.type == GW_EV_TICK ? before.deadline_ns : before.now_ns;
    x->now_at = at;
    x->now = ev;
    note_event(&w, &ev);
    rc = gw_machine_step(&w.m, &ev, &u);
    w.parent = at;
    w.by = ev;
    EXPECT(x, rc == 0 || rc == 1);
    if (rc == 1) { /* it made no sense, and changed nothing */
        struct gw_machine same = before;

        same.now_ns = w.m.now_ns;
        EXPECT(x, u.n_intents == 0);
        EXPECT(x, memcmp(&same, &w.m, sizeof same) == 0);
        EXPECT(x, ev.type == GW_EV_MESSAGE || ev.type == GW_EV_CANCEL);
        if (ev.type == GW_EV_MESSAGE) /* nobody acts on it, so it was not heard */
            w.heard = x->worlds[at].heard;
    }
    if (ev.type == GW_EV_CANCEL && before.phase != w.m.phase)
        EXPECT(x, gw_machine_can_cancel(&before) && w.m.phase == GW_FAILING);
    check_consequence(x, before.phase, &ev, &w);
    check_error_kept(x, &before, &w.m);
    take_update(x, &w, before.phase, &u);
    if (!gw_phase_is_end(w.m.phase))
        EXPECT(x, w.m.deadline_ns > w.m.now_ns);
    if (!x->honest)
        forget(&w);
    add_world(x, &w);
}

static void try_done(struct exploration *x, uint32_t at, enum gw_op op)
{
    const struct gw_error *errors[] = {NULL, &an_error, &gone_error};
    bool swaps = op == GW_OP_CLAIM || op == GW_OP_RECLAIM;

    for (unsigned i = 0; i < GW_ARRAY_SIZE(errors) - swaps; i++)
        for (int yes = 0; yes <= ((op == GW_OP_INSPECT && !errors[i]) || (swaps && errors[i]));
             yes++) {
            struct gw_event ev = {.type = GW_EV_DONE, .error = errors[i], .done = {.op = op}};

            ev.done.guest_runs = !swaps && yes;
            ev.done.conflict = swaps && yes;
            ev.done.has_record = op == GW_OP_INSPECT && x->has_record;
            try_event(x, at, ev);
        }
}

/* A QUERY comes over a connection of its own. */
static bool may_hear(const struct exploration *x, const struct world *w, enum gw_message message)
{
    return !x->honest || w->connected || (w->m.role == GW_DESTINATION && message == GW_MSG_QUERY);
}

static void try_everything(struct exploration *x, uint32_t at)
{
    const struct world w = x->worlds[at];

    for (enum gw_op op = 0; op < GW_OP_MAX; op++)
        if (w.m.ops & (UINT32_C(1) << op))
            try_done(x, at, op);
    for (enum gw_message message = 0; message < N_MESSAGES; message++)
        if (may_hear(x, &w, message))
            try_event(
                x, at,
                (struct gw_event){.type = GW_EV_MESSAGE, .error = &an_error, .message = message});
    for (enum gw_qemu_status status = 0; status < N_STATUSES; status++)
        if (!x->honest || w.qemu_speaks)
            try_event(
                x, at,
                (struct gw_event){.type = GW_EV_QEMU_STATUS, .error = &an_error, .status = status});
    if (!x->honest || w.connected)
        try_event(x, at, (struct gw_event)PEER_LOST);
    if (!x->honest || w.qemu)
        try_event(x, at, (struct gw_event)QEMU_GONE);
    try_event(x, at, (struct gw_event){.type = GW_EV_PROGRESS});
    try_event(x, at, (struct gw_event)CANCEL);
    if (w.m.deadline_ns != UINT64_MAX)
        try_event(x, at, (struct gw_event)TICK);
}

/* first: as after gw_machine_begin() or gw_machine_recover(). */
static void explore(bool honest, struct world *first, const struct gw_update *u, uint32_t phases)
{
    struct exploration x = {.honest = honest, .has_record = first->has_record};
    enum gw_phase from = first->m.phase;

    x.table = calloc(2 * STATES_MAX, sizeof *x.table);
    assert_non_null(x.table);
    for (unsigned i = u->n_intents; i > 0; i--)
        if (u->intents[i - 1].type == GW_DO_PHASE)
            from = u->intents[i - 1].phase.from;
    first->parent = NOBODY;
    x.phases = UINT32_C(1) << from;
    add_world(&x, first); /* for print_path() */
    exploring = &x;
    take_update(&x, first, from, u);
    x.worlds[0] = *first;
    x.worlds[0].parent = NOBODY;
    for (uint32_t at = 0; at < x.n_worlds; at++)
        if (!gw_phase_is_end(x.worlds[at].m.phase))
            try_everything(&x, at);
    exploring = NULL;
    print_message("%s, %s, %s record, from %s: %u states, %u ends, %u intents at most\n",
                  first->m.role == GW_SOURCE ? "source" : "destination",
                  honest ? "honest" : "sloppy", x.has_record ? "with" : "without a",
                  gw_phase_name(from), x.n_worlds, x.n_ends, x.intents_max);
    assert_int_equal(x.phases, phases);
    assert_true(x.n_ends > 0);
    free(x.table);
    free(x.keys);
    free(x.worlds);
}

#define ALL_PHASES ((UINT32_C(1) << GW_PHASE_MAX) - 1)

static void explore_role(enum gw_role role, bool has_record, bool honest)
{
    struct world first = {.qemu = role == GW_SOURCE,
                          .connected = role == GW_DESTINATION,
                          .has_record = has_record};
    struct gw_update u;

    gw_machine_init(&first.m, role, &limits);
    first.m.has_record = role == GW_DESTINATION && has_record;
    gw_machine_begin(&first.m, 1000, &u);
    explore(honest, &first, &u, ALL_PHASES);
}

#define PHASE_BIT(phase) (UINT32_C(1) << (phase))

static uint32_t phases_after_recovery(enum gw_phase left, bool has_record)
{
    uint32_t committed = ALL_PHASES & ~(PHASE_BIT(GW_PREPARING) | PHASE_BIT(GW_PRECOPY) |
                                        PHASE_BIT(GW_SWITCHOVER) | PHASE_BIT(GW_CANCELLED));

    if (left == GW_COMMITTING || (left == GW_SWITCHOVER && has_record))
        return committed;
    if (left == GW_FINISHING)
        return PHASE_BIT(GW_FINISHING) | PHASE_BIT(GW_COMPLETED);
    return PHASE_BIT(GW_PREPARING) | PHASE_BIT(GW_FAILING) | PHASE_BIT(GW_FAILED);
}

/* What a machine that begins anew cannot know of the time before, it has to assume. */
static void explore_recovery(enum gw_phase left, bool guest_runs, bool has_record, bool honest)
{
    const bool unsure = left == GW_SWITCHOVER && has_record,
               committed = left == GW_COMMITTING || left == GW_FINISHING || unsure;
    struct world first = {.qemu = true,
                          .seen_paused = true,
                          .seen_completed = committed,
                          .has_record = has_record,
                          .unsure = unsure};
    struct gw_update u;

    first.begun = OP_BIT(INSPECT) | OP_BIT(ARM) | OP_BIT(START);
    first.said = committed ? UINT32_C(1) << GW_MSG_COMMIT : 0;
    first.qemu_speaks = !committed || unsure;
    gw_machine_init(&first.m, GW_SOURCE, &limits);
    first.m.guest_runs = guest_runs;
    first.m.has_record = has_record;
    gw_machine_recover(&first.m, left, 1000, &u);
    explore(honest, &first, &u, phases_after_recovery(left, has_record));
}

static void every_state_of_the_source(void **state)
{
    (void)state;
    explore_role(GW_SOURCE, false, true);
    explore_role(GW_SOURCE, true, true);
}

static void every_state_of_the_destination(void **state)
{
    (void)state;
    explore_role(GW_DESTINATION, false, true);
    explore_role(GW_DESTINATION, true, true);
}

static void every_state_after_a_recovery(void **state)
{
    (void)state;
    for (enum gw_phase left = GW_PREPARING; left < GW_PHASE_MAX; left++)
        for (int kind = 0; kind < 8 && !gw_phase_is_end(left); kind++)
            explore_recovery(left, kind & 1, kind & 2, kind & 4);
}

static void every_state_with_a_sloppy_driver(void **state)
{
    (void)state;
    for (int has_record = 0; has_record <= 1; has_record++) {
        explore_role(GW_SOURCE, has_record, false);
        explore_role(GW_DESTINATION, has_record, false);
    }
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
        cmocka_unit_test(every_state_of_the_source),
        cmocka_unit_test(every_state_of_the_destination),
        cmocka_unit_test(every_state_after_a_recovery),
        cmocka_unit_test(every_state_with_a_sloppy_driver),
    };

    signal(SIGABRT, aborted); /* an assertion of the machine: say how it came to it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
