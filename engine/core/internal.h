/* SPDX-License-Identifier: Apache-2.0 */
/* What source.c and destination.c share with machine.c; nobody else includes it. */
#ifndef GW_CORE_INTERNAL_H
#define GW_CORE_INTERNAL_H

#include "core/machine.h"

/* One machine's view of one phase. A role without a handler never is in that phase. */
struct phase_ops {
    void (*enter)(struct gw_machine *m, struct gw_update *u);
    /* Returns 0, or 1 if the event made no sense here. */
    int (*on_event)(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u);
    uint32_t may_go_to; /* bits: 1 << phase */
};

#define TO(phase) (UINT32_C(1) << (phase))

extern const struct phase_ops source_phases[GW_PHASE_MAX];
extern const struct phase_ops destination_phases[GW_PHASE_MAX];

/* The only place that writes m->phase. Enters the new phase. */
void go(struct gw_machine *m, enum gw_phase to, struct gw_update *u);

void begin_op(struct gw_machine *m, enum gw_op op, struct gw_update *u);
void send_message(struct gw_update *u, enum gw_message message);
void disconnect(struct gw_update *u);

/* Keeps the first failure. error may be NULL where the event carried none. */
void keep_error(struct gw_machine *m, const struct gw_error *error);

/* Keeps the failure and goes to FAILING. */
void fail(struct gw_machine *m, const struct gw_error *error, struct gw_update *u);
void fail_with(struct gw_machine *m, enum gw_code code, const char *msg, const char *hint,
               struct gw_update *u);

/* Ends without undoing, because nobody knows who may run the guest. */
void strand(struct gw_machine *m, const char *msg, const char *hint, struct gw_update *u);

/* Source: the one way into FAILING after a restart. */
void restarted(struct gw_machine *m, struct gw_update *u);

/* Source: takes up COMMITTING after a restart, which the phase's enter does not do. was_said:
 * COMMIT certainly was; otherwise it may have been. */
void resume_committing(struct gw_machine *m, bool was_said, struct gw_update *u);

/* FAILED, or CANCELLED if that is why. */
void end_failed(struct gw_machine *m, struct gw_update *u);

static inline bool is_done(const struct gw_event *ev, enum gw_op op)
{
    return ev->type == GW_EV_DONE && ev->done.op == op;
}

static inline bool is_message(const struct gw_event *ev, enum gw_message message)
{
    return ev->type == GW_EV_MESSAGE && ev->message == message;
}

#endif
