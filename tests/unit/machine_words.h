/* SPDX-License-Identifier: Apache-2.0 */
/* Events as one writes them in tests of the machines, and updates as one reads them. */
#ifndef GW_MACHINE_WORDS_H
#define GW_MACHINE_WORDS_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/machine.h"

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
#define COMPLETED(o)                                                                          \
    {                                                                                         \
        .type = GW_EV_DONE, .done = {.op = GW_OP_##o, .guest_runs = true, .completed = true } \
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
#define NOT_JOURNALED                                   \
    {                                                   \
        .type = GW_EV_NOT_JOURNALED, .error = &an_error \
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

static inline const char *intent_text(const struct gw_intent *intent, char *text, size_t size)
{
    switch (intent->type) {
    case GW_DO_OP: snprintf(text, size, "%s", gw_op_name(intent->op)); break;
    case GW_DO_SEND: snprintf(text, size, "say %s", gw_message_name(intent->message)); break;
    case GW_DO_DISCONNECT: snprintf(text, size, "hang up"); break;
    case GW_DO_PHASE: snprintf(text, size, "-> %s", gw_phase_name(intent->phase.to)); break;
    }
    return text;
}

static inline void update_text(const struct gw_update *u, char *text, size_t size)
{
    char one[64];

    *text = '\0';
    for (unsigned i = 0; i < u->n_intents; i++)
        snprintf(text + strlen(text), size - strlen(text), "%s%s", i ? ", " : "",
                 intent_text(&u->intents[i], one, sizeof one));
}

static inline void event_text(const struct gw_event *ev, char *text, size_t size)
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
    case GW_EV_NOT_JOURNALED: snprintf(text, size, "it was not journaled"); break;
    case GW_EV_TICK: snprintf(text, size, "tick"); break;
    }
}

#endif
