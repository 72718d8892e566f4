/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated world around the two machines: QEMUs, the stream between them, the control
 * connection, the store of owner records, the daemons with their journals, and clocks.
 *
 * Exactly one event happens in a step, and after every step the invariants are checked. All that
 * happens follows from the plan, its seed included, so a run is repeated by giving the plan again.
 *
 * What is simulated, and how honestly:
 *  - QEMU (guest.c): a source QEMU whose migration fails before it has completed lets the guest run
 *    again by itself; `cont` during a switchover is refused; an incoming QEMU whose stream breaks
 *    ends. Guests write to a few pages and to a disk, all with version numbers.
 *  - The network (network.c): the control connection is ordered; a cut link delays, a longer one
 *    ends the connection, at each end in its own time; messages of an old connection may come late.
 *    In a sloppy network single messages are lost, doubled and overtaken at will, which TLS over
 * TCP never does: safety must hold, the rest need not.
 *  - The store (store.c): each swap is a request that arrives, takes effect or not, and is
 * answered; requests and answers may be lost or come long after their caller has given up or died.
 *  - Daemons (daemon.c): they are killed between any two steps, and before any single intent of an
 *    update; what was asked of QEMU may then still happen. A power cut takes QEMU along, and the
 *    last moments of the journal, as far as journal.h says so. Restarted ones do what recover.c and
 *    the shell's incoming.c and incoming_query.c are to do.
 *  - Clocks: each node's has its own beginning and its own rate.
 */
#ifndef GW_SIM_WORLD_H
#define GW_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/machine.h"

enum node { S, D, N_NODES }; /* source and destination */

enum sim_fault_type {
    SIM_KILL_DAEMON,  /* SIGKILL; it comes back after for_ns. Its QEMU lives on */
    SIM_POWER_CUT,    /* the whole node; it comes back after for_ns, without its QEMU */
    SIM_KILL_QEMU,    /* SIGKILL */
    SIM_CUT_LINK,     /* between the nodes, for for_ns */
    SIM_BREAK_STREAM, /* QEMU's connection alone */
    SIM_LOSE_STORE,   /* node cannot reach the store for for_ns */
    SIM_LOSE_REQUEST, /* the node's next request does not reach the store */
    SIM_LATE_REQUEST, /* the node's next request reaches the store for_ns late */
    SIM_LOSE_ANSWER,  /* the node's next request takes effect; its answer is lost */
    SIM_FAIL_OP,      /* the node's next operation fails, and has not happened */
    SIM_HANG_OP,      /* the node's next operation happens, but its answer comes too late */
    SIM_CANCEL,       /* a person cancels on that node */
    SIM_LOSE_JOURNAL, /* the node's journal cannot be written for for_ns */
    SIM_FAULT_MAX
};

enum sim_moment_type {
    SIM_AT,           /* delay_ns after the beginning */
    SIM_AFTER_PHASE,  /* after the node's machine entered the phase `what`, and so on */
    SIM_AFTER_OP,     /* the operation was asked for */
    SIM_AFTER_DONE,   /* the operation's end was told to the machine */
    SIM_AFTER_SAYING, /* the message was sent */
    SIM_BEFORE_PHASE, /* the phase is to be journaled: only for SIM_KILL_DAEMON, without delay */
    SIM_BEFORE_OP,
    SIM_BEFORE_SAYING,
    SIM_MOMENT_MAX
};

struct sim_fault {
    enum sim_fault_type type;
    enum node node;
    struct {
        enum sim_moment_type type;
        enum node node;
        int what; /* enum gw_phase, gw_op or gw_message */
        uint64_t delay_ns;
    } when; /* a moment that never comes, never harms; one that comes twice, harms once */
    uint64_t for_ns;
};

#define SIM_FAULTS_MAX 4

struct sim_plan {
    uint64_t seed;
    bool has_record;   /* the guest has an owner record */
    bool paused;       /* the guest is paused all the time */
    bool sloppy;       /* the network is */
    bool verify;       /* the memory is to be verified */
    bool calm;         /* everything takes its shortest time: for stories */
    unsigned rates[2]; /* of the nodes' clocks, in thousandths; 0: 1000 */
    struct sim_fault faults[SIM_FAULTS_MAX];
    unsigned n_faults;
};

struct sim_outcome {
    enum gw_phase source_phase;
    enum gw_phase destination_phase; /* GW_PHASE_MAX: no machine, but see the journal */
    bool runs[N_NODES];              /* the guest */
    bool alive[N_NODES];             /* the QEMU */
    bool needs_person;               /* says the source */
    struct gw_error error;           /* of the source */
    enum node owner;                 /* by the record */
    uint64_t epoch;
    unsigned n_steps;
    const char *excuse; /* the fault after which more may be lost than time; NULL: none */
    const char *broken; /* the invariant that did not hold, or NULL */
};

struct sim_world;

/* plan is copied. loud: keep a trace. */
struct sim_world *sim_world_new(const struct sim_plan *plan, bool loud);
void sim_world_free(struct sim_world *w);

/* Runs until nothing is left to happen, or an invariant breaks. */
void sim_world_run(struct sim_world *w, struct sim_outcome *outcome);

/*
 * The trace, a line for each notable thing, without times. The vocabulary is frozen: stories
 * compare it word by word. N is S or D; phases, operations and messages have their public names.
 *
 *   N PHASE -> PHASE        its machine changed the phase
 *   N says MESSAGE          its machine said so; or its daemon did, after the machine was gone
 *   N OP done               RESUME, STOP_COPY, DISARM, CLAIM or RECLAIM: its driver told the
 * machine N OP failed             … with an error N OP conflict           CLAIM, RECLAIM: the
 * record is another's N OP unknown            CLAIM, RECLAIM: nobody knows whether it was swapped
 *   N runs                  its guest does, from now on
 *   N pauses                its guest was paused
 *   record N EPOCH -> N EPOCH   a swap took effect in the store
 *   store refuses N         a swap arrived, and found another record
 *   N daemon killed         N daemon back
 *   N power cut
 *   N qemu killed           by a fault
 *   N qemu destroyed        by its daemon
 *   N judges keep | resume | destroy | lost | ask | wait   gw_arrival_judge() after a restart
 *   link cut                stream broken
 *   store lost for N        N cancels               journal lost for N
 */
const char *sim_world_trace(const struct sim_world *w);

/* The faults of the plan as text, one a line. */
void sim_plan_print(const struct sim_plan *plan);

/* A plan with random faults, all from this number. */
void sim_plan_random(struct sim_plan *plan, uint64_t seed);

#endif
