/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The migration machines: one on the source node, one on the destination node.
 *
 * A machine has no I/O, no clock and no memory of its own beyond its struct. Whoever drives it (the
 * daemon with a real QEMU, the simulator with fake ones) hands it one event at a time and carries
 * out, in order, the intents of the update that comes back:
 *
 *     gw_machine_begin(&m, now, &update);
 *     perform(update);
 *     while (!gw_phase_is_end(m.phase)) {
 *         event = wait_for_one(m.deadline_ns);      // GW_EV_TICK when the deadline comes first
 *         gw_machine_step(&m, &event, &update);
 *         perform(update);
 *     }
 *
 * The contract between the two:
 *  - Every operation that an intent asks for completes exactly once, with GW_EV_DONE, also when it
 *    fails or takes too long: limits on single operations are the driver's.
 *  - A machine has each kind of operation under way at most once.
 *  - Messages to the other machine are ordered and may be lost only together with the connection,
 *    which shows as GW_EV_PEER_LOST.
 *  - No event reaches a machine that has ended, but for completions it still waited for: none.
 */
#ifndef GW_CORE_MACHINE_H
#define GW_CORE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "godwit/error.h"
#include "godwit/phase.h"

enum gw_role { GW_SOURCE, GW_DESTINATION };

/* Operations: asked for by an intent, answered by GW_EV_DONE. */
enum gw_op {
    GW_OP_INSPECT, /* source: read what the guest is and check what this node can check alone */
    GW_OP_CONNECT, /* source: open the control connection to the destination daemon */
    GW_OP_LAUNCH,  /* destination: check, make taps, start QEMU paused, wait for its QMP */
    GW_OP_ARM,     /* both: set the negotiated capabilities and parameters */
    GW_OP_LISTEN,  /* destination: QEMU opens its migration port */
    GW_OP_START,   /* source: QEMU begins to send; done when it has accepted the command */
    GW_OP_SWITCH,  /* source: QEMU, paused before the switchover, goes on with it */
    GW_OP_VERIFY, /* source, where it is wanted: compare the memory of both QEMUs. Not told what the
                     destination does meanwhile; the driver ends it when the phase changes */
    GW_OP_CLAIM,  /* destination: swap the owner record from the source to this node */
    GW_OP_RECLAIM,   /* source, after COMMIT: swap the owner record so that the guest is ours for
                        sure. From ourselves; if peer_failed also from the destination */
    GW_OP_STOP_COPY, /* source: end QEMU's migration; done when QEMU has settled */
    GW_OP_RESUME,    /* both: let the guest run; done when it runs */
    GW_OP_DISARM,    /* source: put QEMU's capabilities and parameters back as they were */
    GW_OP_DESTROY,   /* both: end this node's QEMU and remove all that was made for it */
    GW_OP_MAX
};

const char *gw_op_name(enum gw_op op);

/* Messages between the two machines. What else travels in them is the driver's. */
enum gw_message {
    GW_MSG_PREPARE,   /* S→D  please get ready for this guest */
    GW_MSG_PREPARED,  /* D→S  QEMU listens there */
    GW_MSG_SWITCHING, /* S→D  the guest is paused */
    GW_MSG_COMMIT,    /* S→D  all is over: let it run, once the owner record is yours if there is
                         one. The source will not, unless told FAILED or by a RECLAIM */
    GW_MSG_RUNNING,   /* D→S  it runs here */
    GW_MSG_FINISHED,  /* S→D  the source has let go */
    GW_MSG_ABORT,     /* S→D  undo; after COMMIT only when the record was swapped back */
    GW_MSG_FAILED,    /* D→S  it failed here. The guest never ran here and never will */
    GW_MSG_LOST,      /* D→S  it failed here after the guest may have run */
    GW_MSG_ABORTED,   /* D→S  all is undone here */
    GW_MSG_QUERY,     /* S→D  over a new connection: what became of my COMMIT? */
    GW_MSG_BUSY, /* D→S  the answer to QUERY: not decided yet (others: RUNNING, FAILED, LOST) */
    GW_MSG_MAX
};

const char *gw_message_name(enum gw_message message);

/* What QEMU's MIGRATION event says, by QEMU's own names (qapi/migration.json, MigrationStatus). */
enum gw_qemu_status {
    GW_QEMU_NONE,
    GW_QEMU_SETUP,
    GW_QEMU_ACTIVE,
    GW_QEMU_PRE_SWITCHOVER,
    GW_QEMU_DEVICE,
    GW_QEMU_COMPLETED,
    GW_QEMU_FAILED,
    GW_QEMU_CANCELLING,
    GW_QEMU_CANCELLED,
    GW_QEMU_OTHER, /* a status that native pre-copy never shows */
};

enum gw_qemu_status gw_qemu_status_from_name(const char *name);

/* How far the copy is. Bytes are of guest memory unless said otherwise. */
struct gw_progress {
    uint64_t total_bytes;     /* guest RAM that takes part */
    uint64_t remaining_bytes; /* not sent yet, or dirtied since */
    uint64_t wire_bytes;      /* sent over the link, protocol and compression included */
    uint64_t rate_bytes_per_s;
    uint64_t dirty_bytes_per_s; /* as QEMU measured it in the last round */
    uint32_t round;             /* 1 for the first pass over all memory */
    uint64_t expected_blackout_ns;
};

enum gw_event_type {
    GW_EV_DONE,          /* an operation completed */
    GW_EV_MESSAGE,       /* the other machine says something */
    GW_EV_PEER_LOST,     /* the control connection is gone */
    GW_EV_QEMU_STATUS,   /* QEMU's migration has a new status */
    GW_EV_QEMU_GONE,     /* this node's QEMU ended, or cannot be talked to any more */
    GW_EV_PROGRESS,      /* new figures */
    GW_EV_CANCEL,        /* a person wants the guest to stay */
    GW_EV_TICK,          /* the deadline has come */
    GW_EV_NOT_JOURNALED, /* COMMITTING, which may not be journaled late, could not be journaled:
                            the intents after it in the same update were not carried out */
};

struct gw_event {
    uint64_t at_ns; /* the driver's monotonic clock; never runs backwards between two steps */
    enum gw_event_type type;
    const struct gw_error *error; /* DONE: NULL on success. FAILED, LOST, PEER_LOST, QEMU_GONE,
                                     NOT_JOURNALED: why */
    union {
        struct {
            enum gw_op op;
            bool guest_runs; /* INSPECT: the guest was running, so it shall run afterwards */
            bool has_record; /* INSPECT: the guest has an owner record, which says this node */
            bool completed;  /* STOP_COPY: there was nothing to end. All of the guest had been
                                sent, and it has not run here since */
            bool conflict;   /* CLAIM, RECLAIM with an error: the record is certainly another's.
                                Without: it is not known whether it was swapped */
        } done;
        enum gw_message message;
        enum gw_qemu_status status;
        struct gw_progress progress;
    };
};

enum gw_intent_type {
    GW_DO_OP,         /* begin this operation */
    GW_DO_SEND,       /* send this message; over a connection that is gone it is dropped */
    GW_DO_DISCONNECT, /* close the control connection after what was sent has left */
    GW_DO_PHASE,      /* the phase has changed: journal it, tell whoever watches */
};

struct gw_intent {
    enum gw_intent_type type;
    union {
        enum gw_op op;
        enum gw_message message;
        struct {
            enum gw_phase from, to;
        } phase;
    };
};

#define GW_UPDATE_INTENTS_MAX 8

struct gw_update {
    struct gw_intent intents[GW_UPDATE_INTENTS_MAX];
    unsigned n_intents;
};

/* Limits in nanoseconds; 0 is no limit where "may be 0" is said. */
struct gw_limits {
    uint64_t preparing_ns;
    uint64_t precopy_ns;    /* may be 0. After it the migration is undone */
    uint64_t switchover_ns; /* how long the guest may be paused before all is undone */
    uint64_t committing_ns; /* source: how long to ask after a lost COMMIT before a person must */
    uint64_t reclaim_ns;    /* source: after this long without an answer to COMMIT the owner record
                               decides, where there is one. Longer than a CLAIM may take */
    uint64_t failing_ns;    /* how long to wait for the other node to have undone its part */
    uint64_t retry_ns;      /* source: between two attempts to reach the destination again */
};

extern const struct gw_limits gw_limits_default;

/* When what happened, by the driver's clock; 0: not yet. */
struct gw_times {
    uint64_t phase_ns[GW_PHASE_MAX]; /* the phase was entered */
    uint64_t loaded_ns;              /* destination: device state is loaded */
    uint64_t device_ns;              /* source: QEMU began with the device state */
};

struct gw_machine {
    enum gw_role role;
    enum gw_phase phase;
    struct gw_limits limits;
    uint64_t now_ns;      /* of the last event */
    uint64_t deadline_ns; /* a GW_EV_TICK is due then; UINT64_MAX: none */

    bool has_record; /* an owner record decides the commit. The destination's driver sets it before
                        gw_machine_begin, the source learns it from INSPECT */
    bool guest_runs; /* the guest ran when the migration began, so it shall run at its end */
    bool verify; /* source: no COMMIT before VERIFY has found both memories equal. The driver sets
                    it before gw_machine_begin */
    bool cancelled; /* the failure is a person's wish */

    uint32_t ops;     /* under way: one bit for each enum gw_op */
    bool connected;   /* the control connection is up */
    bool engaged;     /* source: PREPARE was sent, so the destination has something to undo */
    bool peer_undone; /* source: the destination has said that it undid everything */
    bool inspected;   /* source */
    bool armed;       /* source: capabilities are set */
    bool copying;     /* source: QEMU's migration was started and not known to be settled */
    bool paused;      /* source: this migration paused the guest */
    bool verified;    /* source: … and the destination has the same memory */
    bool stuck;       /* source: … and it cannot be resumed */
    bool told;        /* destination: the source knows of the failure */
    bool has_qemu;    /* this node has a QEMU of this migration that is alive */
    bool loaded;      /* destination: QEMU has loaded everything */
    bool let_run;     /* destination: RESUME was asked for: the guest may have run */
    bool peer_failed; /* source: FAILED was heard: the guest never ran there and never will */
    bool by_word;     /* source: the RECLAIM under way may rely on peer_failed */
    bool disowned;    /* source: the record names the destination */
    bool unsure;      /* source, after a restart: COMMIT may have been said, or not */
    uint64_t retry_at_ns, reclaim_at_ns; /* source, committing: when to ask the destination, or the
                                            store; UINT64_MAX: never */
    bool needs_person;                   /* end: nobody knows that exactly one guest runs */
    enum gw_qemu_status qemu_status;

    struct gw_progress progress;
    struct gw_times times;
    struct gw_error error; /* the first failure; GW_OK while there is none */
};

/* Sets the machine to PREPARING; limits are copied. No update is due before gw_machine_begin. */
void gw_machine_init(struct gw_machine *m, enum gw_role role, const struct gw_limits *limits);

/* Starts it. The destination's is started when PREPARE has arrived. */
void gw_machine_begin(struct gw_machine *m, uint64_t now_ns, struct gw_update *u);

/*
 * Takes one event. *u is overwritten. Returns 0, or 1 if the event made no sense in this phase and
 * changed nothing (drivers log it; the simulator counts it).
 */
int gw_machine_step(struct gw_machine *m, const struct gw_event *ev, struct gw_update *u);

/*
 * Takes up a migration that a daemon which has since died left in `phase`. m->guest_runs and
 * m->has_record are set before. A source before the commit undoes everything; one in COMMITTING
 * asks the destination. With an owner record the journal is not believed when it says that there
 * was no commit: it may be behind, see gw_machine_journals_late(), or could not be written. If
 * QEMU has completed then, the record is asked by a RECLAIM. The destination has
 * gw_arrival_judge().
 */
void gw_machine_recover(struct gw_machine *m, enum gw_phase phase, uint64_t now_ns,
                        struct gw_update *u);

/*
 * True if this phase may be journaled after its other intents have been carried out: it is entered
 * while the guest is paused, and a restarted daemon decides no differently without it.
 */
bool gw_machine_journals_late(const struct gw_machine *m, enum gw_phase phase);

/* What a restarted destination daemon finds of a guest that was on its way to it. */
enum gw_arrival_qemu {
    GW_ARRIVAL_QEMU_GONE,
    GW_ARRIVAL_QEMU_LOADS,  /* not all of the guest is there */
    GW_ARRIVAL_QEMU_LOADED, /* complete, and has not run here */
    GW_ARRIVAL_QEMU_RAN,    /* it runs, or did */
    GW_ARRIVAL_QEMU_SILENT, /* it lives, and does not answer: any of the three before */
};

enum gw_arrival_record {
    GW_ARRIVAL_NO_RECORD,      /* this migration went without one */
    GW_ARRIVAL_RECORD_UNKNOWN, /* the store does not answer */
    GW_ARRIVAL_RECORD_OURS,    /* CLAIM has happened */
    GW_ARRIVAL_RECORD_THEIRS,  /* CLAIM has not happened, or was taken back */
};

enum gw_arrival {
    GW_ARRIVAL_KEEP,    /* the guest belongs here: completed; answer RUNNING */
    GW_ARRIVAL_RESUME,  /* it belongs here but has not run yet: let it run, then as KEEP */
    GW_ARRIVAL_DESTROY, /* it never ran here and must not: end QEMU; answer FAILED */
    GW_ARRIVAL_LOST,    /* it may have run here and is gone: answer LOST */
    GW_ARRIVAL_ASK,     /* ask the store again; answer BUSY */
    GW_ARRIVAL_WAIT,    /* it may run, and QEMU must say so; answer BUSY */
};

/* phase: the last one in this node's journal for this migration; GW_PHASE_MAX: it has none that has
 * not ended. */
enum gw_arrival gw_arrival_judge(enum gw_phase phase, enum gw_arrival_qemu qemu,
                                 enum gw_arrival_record record);

/* A source that ended: the destination may run the guest, so that the copy here must not without a
 * person's word. */
bool gw_machine_is_contested(const struct gw_machine *m);

/* True while a GW_EV_CANCEL would be heeded. */
bool gw_machine_can_cancel(const struct gw_machine *m);

#endif
