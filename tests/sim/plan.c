/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: random ones, and as text. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/parts.h"

static const char *const fault_names[SIM_FAULT_MAX] = {
    [SIM_KILL_DAEMON] = "kill daemon",   [SIM_POWER_CUT] = "power cut",
    [SIM_KILL_QEMU] = "kill qemu",       [SIM_CUT_LINK] = "cut link",
    [SIM_BREAK_STREAM] = "break stream", [SIM_LOSE_STORE] = "lose store",
    [SIM_LOSE_REQUEST] = "lose request", [SIM_LATE_REQUEST] = "late request",
    [SIM_LOSE_ANSWER] = "lose answer",   [SIM_FAIL_OP] = "fail op",
    [SIM_HANG_OP] = "hang op",           [SIM_CANCEL] = "cancel",
    [SIM_LOSE_JOURNAL] = "lose journal",
};

static const char *const moment_names[SIM_MOMENT_MAX] = {
    [SIM_AT] = "after",
    [SIM_AFTER_PHASE] = "after phase",
    [SIM_AFTER_OP] = "after op",
    [SIM_AFTER_DONE] = "after done",
    [SIM_AFTER_SAYING] = "after saying",
    [SIM_BEFORE_PHASE] = "before phase",
    [SIM_BEFORE_OP] = "before op",
    [SIM_BEFORE_SAYING] = "before saying",
};

static const char *what_name(enum sim_moment_type type, int what)
{
    switch (type) {
    case SIM_AFTER_PHASE:
    case SIM_BEFORE_PHASE: return gw_phase_name((enum gw_phase)what);
    case SIM_AFTER_OP:
    case SIM_AFTER_DONE:
    case SIM_BEFORE_OP: return gw_op_name((enum gw_op)what);
    case SIM_AFTER_SAYING:
    case SIM_BEFORE_SAYING: return gw_message_name((enum gw_message)what);
    default: return "the beginning";
    }
}

void sim_plan_print(const struct sim_plan *plan)
{
    printf("seed %" PRIu64 "%s%s%s%s, clocks at %u and %u\n", plan->seed,
           plan->has_record ? ", with a record" : ", without a record",
           plan->paused ? ", a paused guest" : "", plan->sloppy ? ", a sloppy network" : "",
           plan->verify ? ", verified" : "", plan->rates[S], plan->rates[D]);
    for (unsigned i = 0; i < plan->n_faults; i++) {
        const struct sim_fault *f = &plan->faults[i];

        printf("fault: %s %c, %" PRIu64 " ms %s %c %s, for %" PRIu64 " ms\n", fault_names[f->type],
               name_of[f->node], f->when.delay_ns / MS, moment_names[f->when.type],
               name_of[f->when.node], what_name(f->when.type, f->when.what), f->for_ns / MS);
    }
}

/* A stream of its own, so that a change in the world does not change the plans. */
static unsigned pick(uint64_t *random, unsigned n)
{
    uint64_t z = (*random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (unsigned)((z ^ (z >> 31)) % n);
}

static uint64_t pick_delay_ns(uint64_t *random)
{
    switch (pick(random, 4)) {
    case 0: return pick(random, 4) * MS;
    case 1: return pick(random, 50) * MS;
    case 2: return pick(random, 4000) * MS;
    default: return 0;
    }
}

static int pick_what(uint64_t *random, enum sim_moment_type type)
{
    static const enum gw_phase phases[] = {GW_PREPARING,  GW_PRECOPY,    GW_SWITCHOVER,
                                           GW_SWITCHOVER, GW_COMMITTING, GW_COMMITTING,
                                           GW_FINISHING,  GW_FAILING};

    switch (type) {
    case SIM_AFTER_PHASE:
    case SIM_BEFORE_PHASE: return (int)phases[pick(random, 8)];
    case SIM_AFTER_SAYING:
    case SIM_BEFORE_SAYING: return (int)pick(random, GW_MSG_MAX);
    default: return (int)pick(random, GW_OP_MAX);
    }
}

static void pick_fault(uint64_t *random, struct sim_fault *f)
{
    f->type = (enum sim_fault_type)pick(random, SIM_FAULT_MAX);
    f->node = (enum node)pick(random, N_NODES);
    f->for_ns = pick(random, pick(random, 2) ? 20000 : 2000) * MS;
    f->when.node = (enum node)pick(random, N_NODES);
    f->when.delay_ns = pick_delay_ns(random);
    f->when.type = SIM_AT;
    switch (pick(random, 6)) {
    case 0: f->when.delay_ns = pick(random, 2600) * MS; return;
    case 1: f->when.type = SIM_AFTER_PHASE; break;
    case 2: f->when.type = SIM_AFTER_SAYING; break;
    case 3: f->when.type = SIM_AFTER_DONE; break;
    case 4: f->when.type = SIM_AFTER_OP; break;
    default:
        if (f->type != SIM_KILL_DAEMON)
            f->when.type = SIM_AFTER_OP;
        else
            f->when.type = (enum sim_moment_type)(SIM_BEFORE_PHASE + pick(random, 3));
        f->when.node = f->type == SIM_KILL_DAEMON ? f->node : f->when.node;
    }
    f->when.what = pick_what(random, f->when.type);
}

void sim_plan_random(struct sim_plan *plan, uint64_t seed)
{
    uint64_t random = seed * UINT64_C(0xd1342543de82ef95);

    memset(plan, 0, sizeof *plan);
    plan->seed = seed;
    plan->has_record = pick(&random, 4) != 0;
    plan->paused = pick(&random, 8) == 0;
    plan->sloppy = pick(&random, 4) == 0;
    plan->rates[S] = plan->rates[D] = 1000;
    if (pick(&random, 4) == 0) {
        plan->rates[S] = 500 + pick(&random, 1500);
        plan->rates[D] = 500 + pick(&random, 1500);
    }
    plan->n_faults = 1 + pick(&random, SIM_FAULTS_MAX);
    for (unsigned i = 0; i < plan->n_faults; i++)
        pick_fault(&random, &plan->faults[i]);
    plan->verify = pick(&random, 3) == 0;
}
