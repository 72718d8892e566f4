/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the simulated world know of each other; test_sim.c only sees world.h. */
#ifndef GW_SIM_PARTS_H
#define GW_SIM_PARTS_H

#include <stddef.h>

#include "sim/world.h"

#define MS            UINT64_C(1000000)
#define SECOND        (1000 * MS)
#define EVENTS_MAX    128
#define N_PAGES       4
#define KEEPALIVE_NS  (5 * SECOND)
#define STORE_WAIT_NS (2 * SECOND) /* a driver gives a swap up: less than gw_limits.reclaim_ns */
#define NO_CONNECTION 0
#define ANY           0

enum event_type {
    /* of a daemon; not after its death */
    TO_MACHINE,     /* ev: QEMU's word, or its end */
    OP_ENDS,        /* ev: the answer to an operation */
    STORE_ANSWERS,  /* call */
    ARRIVAL_LOOKS,  /* a restarted destination asks what to do with the guest */
    ARRIVAL_CLEARS, /* it ends a QEMU that must not be */
    /* of a daemon, but they may happen after its death */
    OP_HAPPENS,      /* ev.done.op */
    ARRIVAL_RESUMES, /* cont was sent */
    /* of a QEMU; not after its death */
    QEMU_COPIES,
    QEMU_PAUSES,
    QEMU_SENDS_REST,
    QEMU_LOADS,
    QEMU_COMPLETES,
    QEMU_FAILS,
    GUEST_WRITES,
    /* of the world */
    DELIVER, /* ev.message, connection */
    DROP,    /* an end notices that its connection is gone */
    STORE_RECEIVES,
    DAEMON_STARTS, /* life: of the one that was killed */
    FAULT,
};

struct owner {
    enum node node;
    uint64_t epoch;
};

/* One request to the store: a read, or a swap from {from} to {to, from.epoch + 1}. */
struct call {
    unsigned id;
    bool swap;
    struct owner from;
    enum node to;
    bool lose_answer;
    enum { CALL_DONE, CALL_CONFLICT, CALL_UNKNOWN } result;
    struct owner current; /* DONE, CONFLICT */
};

struct sim_event {
    uint64_t at_ns, seq;
    enum node node;
    enum event_type type;
    unsigned life;      /* of the daemon; ANY */
    unsigned qemu_life; /* of this node's QEMU; ANY */
    unsigned connection;
    struct gw_event ev;
    union {
        struct call call;
        unsigned fault; /* index */
    };
};

/* A fake: just enough of QEMU's life for the machines to have something to drive. */
struct fake_qemu {
    unsigned life;
    bool alive, runs;
    bool has_run;   /* here */
    bool taken;     /* destination, a guest that is paused: RESUME was done */
    bool listens;   /* destination */
    bool loaded;    /* destination: all of the guest is here */
    bool autostart; /* destination: cont came before it was loaded */
    bool armed;     /* source: has settings that are to be put back */
    bool stopped;   /* source: its migration paused the guest */
    enum gw_qemu_status migration;
    uint32_t pages[N_PAGES], disk; /* the versions that the guest has in its memory */
    bool dirty[N_PAGES];           /* source: written since it was sent */
};

/* The journal's row of this migration: what a killed daemon's successor reads. */
struct journal {
    struct journal_entry {
        uint64_t at_ns;
        enum gw_phase phase;
        bool unresolved;
    } entries[12];
    unsigned n_entries; /* 0: there is no row */
    bool has_record, guest_runs;
    struct owner owner; /* the record when the migration began */
};

struct daemon {
    unsigned life;
    bool up, has_machine;
    struct gw_machine m;
    bool arriving; /* destination: the journal has an open row and no machine drives it */
    bool forgets;  /* something could not be journaled, so a successor will not know it */
    bool dies;     /* killed in the middle of an update, to come back after dies_for_ns */
    uint64_t dies_for_ns;
    unsigned connection; /* the one that this end believes in */
    unsigned newest_connection;
    struct call call;   /* under way; id 0: none */
    enum gw_op call_op; /* what it is for; GW_OP_MAX: an arrival */
    bool seen_loaded;   /* QEMU has told this daemon */
    uint32_t ops;       /* asked for, not ended: one bit each */
    struct journal journal;
    int64_t clock_offset_ns;
};

struct sim_world {
    struct sim_plan plan;
    uint64_t random, now_ns, seq;
    struct sim_event queue[EVENTS_MAX];
    unsigned n_queued, n_writes; /* n_writes of them are GUEST_WRITES */
    struct daemon daemon[N_NODES];
    struct fake_qemu qemu[N_NODES];
    uint32_t pages[N_PAGES], disk, version; /* the truth: last written versions */
    bool stream_up;
    uint64_t cut_until_ns, store_lost_until_ns[N_NODES], journal_lost_until_ns[N_NODES];
    unsigned last_connection, accepted_by_life, last_call;
    struct owner record;
    bool fail_next[N_NODES], hang_next[N_NODES];
    bool lose_request[N_NODES], lose_answer[N_NODES];
    uint64_t late_request_ns[N_NODES];
    bool fault_done[SIM_FAULTS_MAX];

    bool verified;     /* VERIFY was done, and well */
    bool committed;    /* COMMIT was said */
    bool failed_said;  /* by the destination: the guest must never run there */
    bool failed_heard; /* by the source: it may rely on that the guest never ran there */
    bool d_ran;        /* the guest has run on the destination */
    bool cancelled;    /* before the commit */
    bool guest_lost;   /* a QEMU that held the guest was killed */
    bool store_failed, disarm_failed;
    bool may_wait;    /* something was lost: limits in time may have to decide */
    uint64_t lost_ns; /* how long all that was away was away */
    const char *excuse, *broken;
    bool loud;
    size_t n_trace;
    char trace[16384];
};

extern const char name_of[N_NODES];
extern const struct gw_error an_error, gone_error, lost_error, late_error, store_error,
    journal_error;

static inline enum node other(enum node node)
{
    return node == S ? D : S;
}

/* world.c */
uint64_t between(struct sim_world *w, uint64_t low, uint64_t high); /* calm: low */
bool chance(struct sim_world *w, unsigned one_in);                  /* calm: never */
__attribute__((format(printf, 2, 3))) void trace(struct sim_world *w, const char *fmt, ...);
struct sim_event *schedule(struct sim_world *w, enum node node, enum event_type type,
                           uint64_t in_ns);
uint64_t local_ns(const struct sim_world *w, enum node node);
void broken(struct sim_world *w, const char *why);
void excuse(struct sim_world *w, const char *why);
/* Something happened that faults wait for. */
void moment(struct sim_world *w, enum sim_moment_type type, enum node node, int what);
/* True: the daemon is killed before it gets that far. */
bool dies_before(struct sim_world *w, enum sim_moment_type type, enum node node, int what);

/* guest.c */
void qemu_init(struct sim_world *w);
const struct gw_error *qemu_take_effect(struct sim_world *w, enum node node, enum gw_op op);
const struct gw_error *qemu_cont(struct sim_world *w, enum node node);
void qemu_event(struct sim_world *w, const struct sim_event *e);
void qemu_destroy(struct sim_world *w, enum node node);
void qemu_kill(struct sim_world *w, enum node node);
void stream_break(struct sim_world *w);

/* store.c */
void store_submit(struct sim_world *w, enum node node, struct call call);
void store_receive(struct sim_world *w, struct sim_event *e);
void store_forget_calls(struct sim_world *w, enum node node); /* their daemon was killed */

/* network.c */
bool link_is_up(const struct sim_world *w);
void network_connect(struct sim_world *w);
void network_send(struct sim_world *w, enum node from, enum gw_message message);
void network_hang_up(struct sim_world *w, enum node by, bool silently);
void network_forget(struct sim_world *w, enum node node);
void network_cut(struct sim_world *w, uint64_t for_ns);
void network_deliver(struct sim_world *w, struct sim_event *e);
void network_drop(struct sim_world *w, struct sim_event *e);

/* daemon.c */
void daemon_start_source(struct sim_world *w);
void daemon_step(struct sim_world *w, enum node node, struct gw_event *ev);
void daemon_prepare(struct sim_world *w); /* the destination heard PREPARE */
void daemon_op_happens(struct sim_world *w, struct sim_event *e);
void daemon_op_ends(struct sim_world *w, struct sim_event *e);
void daemon_store_answers(struct sim_world *w, const struct sim_event *e);
void daemon_kill(struct sim_world *w, enum node node, uint64_t for_ns, bool power_cut);
void daemon_starts(struct sim_world *w, const struct sim_event *e);
bool daemon_machine_works(const struct sim_world *w, enum node node);
bool daemon_is_settled(const struct sim_world *w, enum node node);

/* arrival.c: a destination without its machine */
void arrival_begin(struct sim_world *w);
void arrival_looks(struct sim_world *w);
void arrival_read(struct sim_world *w, const struct call *call);
void arrival_resumes(struct sim_world *w, bool daemon_lives);
void arrival_answers_query(struct sim_world *w);
bool journal_write(struct sim_world *w, enum node node, enum gw_phase phase, bool unresolved);
enum gw_phase journal_phase(const struct sim_world *w, enum node node);

/* invariants.c */
void check_step(struct sim_world *w);
void check_start(struct sim_world *w, enum node node); /* the guest is about to run there */
void check_saying(struct sim_world *w, enum node node, enum gw_message message);
void check_intent(struct sim_world *w, enum node node, const struct gw_intent *intent);
void check_end(struct sim_world *w);

#endif
