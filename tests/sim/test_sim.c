/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stories with golden traces, then thousands of random schedules of faults.
 *
 *     test_sim                      everything
 *     test_sim SEED                 one random schedule, with its trace
 *     GODWIT_SIM_RUNS=N test_sim    another number of random schedules
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "sim/world.h"

#define MS           UINT64_C(1000000)
#define FAULTS_MAX   4
#define RUNS_DEFAULT 20000

static void run(const struct sim_fault *faults, unsigned n_faults, struct sim_outcome *outcome,
                const char *golden)
{
    struct sim_world *w = sim_world_new(1, faults, n_faults);

    sim_world_run(w, outcome);
    if (outcome->broken || (golden && strcmp(golden, sim_world_trace(w)) != 0))
        print_error("%s\n%s", outcome->broken ? outcome->broken : "the trace is",
                    sim_world_trace(w));
    if (golden)
        assert_string_equal(sim_world_trace(w), golden);
    assert_null(outcome->broken);
    sim_world_free(w);
}

static void a_guest_moves(void **state)
{
    struct sim_outcome o;

    (void)state;
    run(NULL, 0, &o,
        "S says prepare\n"
        "D says prepared\n"
        "D preparing -> precopy\n"
        "S preparing -> precopy\n"
        "S precopy -> switchover\n"
        "S says switching\n"
        "D precopy -> switchover\n"
        "S switchover -> committing\n"
        "S says commit\n"
        "D switchover -> committing\n"
        "D says running\n"
        "D committing -> finishing\n"
        "S committing -> finishing\n"
        "S says finished\n"
        "D finishing -> completed\n"
        "S finishing -> completed\n");
    assert_true(o.destination_runs);
    assert_false(o.source_alive);
    assert_int_equal(o.error.code, GW_OK);
}

static void a_person_cancels(void **state)
{
    const struct sim_fault cancel = {SIM_CANCEL, 340 * MS, 0};
    struct sim_outcome o;

    (void)state;
    run(&cancel, 1, &o,
        "S says prepare\n"
        "D says prepared\n"
        "D preparing -> precopy\n"
        "S preparing -> precopy\n"
        "S precopy -> failing\n"
        "S says abort\n"
        "D precopy -> failing\n"
        "D says aborted\n"
        "D failing -> cancelled\n"
        "S failing -> cancelled\n");
    assert_int_equal(o.source_phase, GW_CANCELLED);
    assert_true(o.source_runs);
    assert_false(o.destination_alive);
}

static void the_destination_says_no(void **state)
{
    const struct sim_fault fail = {SIM_FAIL_OP, 30 * MS, 0};
    struct sim_outcome o;

    (void)state;
    run(&fail, 1, &o,
        "S says prepare\n"
        "D preparing -> failing\n"
        "D says failed\n"
        "S preparing -> failing\n"
        "S says abort\n"
        "D says aborted\n"
        "D failing -> failed\n"
        "S failing -> failed\n");
    assert_int_equal(o.error.code, GW_E_QEMU);
    assert_true(o.source_runs);
}

static void the_source_daemon_restarts(void **state)
{
    const struct sim_fault restart = {SIM_RESTART_SOURCE, 340 * MS, 0};
    struct sim_outcome o;

    (void)state;
    run(&restart, 1, &o, NULL);
    assert_int_equal(o.source_phase, GW_FAILED);
    assert_true(o.source_runs);
    assert_false(o.destination_alive);
}

static void pick_faults(uint64_t seed, struct sim_fault *faults, unsigned *n_faultsp)
{
    uint64_t r = seed * UINT64_C(0x9e3779b97f4a7c15);

    *n_faultsp = (unsigned)(1 + (r >> 60) % FAULTS_MAX);
    for (unsigned i = 0; i < *n_faultsp; i++) {
        r = (r ^ (r >> 29)) * UINT64_C(0xbf58476d1ce4e5b9) + i;
        faults[i].type = (enum sim_fault_type)((r >> 8) % SIM_FAULT_MAX);
        faults[i].at_ns = (r >> 20) % (2600 * MS);
        faults[i].for_ns = (r >> 13) % (20000 * MS);
    }
}

static bool run_seed(uint64_t seed, bool loud, struct sim_outcome *o)
{
    struct sim_fault faults[FAULTS_MAX];
    struct sim_world *w;
    unsigned n_faults;

    pick_faults(seed, faults, &n_faults);
    w = sim_world_new(seed, faults, n_faults);
    sim_world_run(w, o);
    for (unsigned i = 0; loud && i < n_faults; i++)
        printf("fault %d at %" PRIu64 " ms for %" PRIu64 " ms\n", (int)faults[i].type,
               faults[i].at_ns / MS, faults[i].for_ns / MS);
    if (loud)
        printf("%s%s\n", sim_world_trace(w), o->broken ? o->broken : "all invariants hold");
    sim_world_free(w);
    return o->broken == NULL;
}

static void random_faults(void **state)
{
    const char *wanted = getenv("GODWIT_SIM_RUNS");
    uint64_t runs = wanted ? strtoull(wanted, NULL, 10) : RUNS_DEFAULT;
    uint64_t ends[GW_PHASE_MAX] = {0}, n_stranded = 0;
    struct sim_outcome o;

    (void)state;
    for (uint64_t seed = 1; seed <= runs; seed++) {
        if (!run_seed(seed, false, &o)) {
            run_seed(seed, true, &o);
            fail_msg("seed %" PRIu64 ": %s (repeat with: test_sim %" PRIu64 ")", seed, o.broken,
                     seed);
        }
        ends[o.source_phase]++;
        n_stranded += o.needs_person;
    }
    print_message("%" PRIu64 " schedules: %" PRIu64 " moved, %" PRIu64 " failed, %" PRIu64
                  " cancelled, %" PRIu64 " of them left to a person\n",
                  runs, ends[GW_COMPLETED], ends[GW_FAILED], ends[GW_CANCELLED], n_stranded);
    assert_true(ends[GW_COMPLETED] && ends[GW_FAILED] && ends[GW_CANCELLED]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_moves),           cmocka_unit_test(a_person_cancels),
        cmocka_unit_test(the_destination_says_no), cmocka_unit_test(the_source_daemon_restarts),
        cmocka_unit_test(random_faults),
    };
    struct sim_outcome o;

    if (argc > 1)
        return run_seed(strtoull(argv[1], NULL, 10), true, &o) ? 0 : 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
