/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small simulated world around the two machines: fake QEMUs, a fake network and a virtual clock.
 *
 * Exactly one event is delivered in a step, and after every step the invariants are checked. All
 * that happens follows from the seed and the faults, so a failing run is repeated by giving them
 * again.
 */
#ifndef GW_SIM_WORLD_H
#define GW_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/machine.h"

enum sim_fault_type {
    SIM_CUT_LINK,         /* nothing gets through for `for_ns`; both sides notice on their own */
    SIM_KILL_SOURCE_QEMU, /* SIGKILL */
    SIM_KILL_DESTINATION_QEMU,
    SIM_RESTART_SOURCE, /* the source daemon dies and comes back; its QEMU lives on */
    SIM_RESTART_DESTINATION,
    SIM_CANCEL,  /* a person cancels on the source */
    SIM_FAIL_OP, /* the next operation that begins after this moment fails */
    SIM_FAULT_MAX
};

struct sim_fault {
    enum sim_fault_type type;
    uint64_t at_ns;
    uint64_t for_ns;
};

struct sim_world;

struct sim_outcome {
    enum gw_phase source_phase;
    enum gw_phase destination_phase;      /* GW_PHASE_MAX: it never had a machine, or lost it */
    bool source_runs, destination_runs;   /* the guest */
    bool source_alive, destination_alive; /* the QEMU */
    bool needs_person;
    struct gw_error error; /* of the source */
    unsigned n_steps;
    const char *broken; /* the invariant that did not hold, or NULL */
};

struct sim_world *sim_world_new(uint64_t seed, const struct sim_fault *faults, unsigned n_faults);
void sim_world_free(struct sim_world *w);

/* Runs until nothing is left to happen, or an invariant breaks. */
void sim_world_run(struct sim_world *w, struct sim_outcome *outcome);

/* One line a notable thing, "S preparing -> precopy"; without times, so that stories can be
 * compared. */
const char *sim_world_trace(const struct sim_world *w);

#endif
