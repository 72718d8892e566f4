/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stories with golden traces, then hundreds of thousands of random schedules of faults.
 *
 *     test_sim                      everything
 *     test_sim SEED                 one random schedule, with its faults and its trace
 *     test_sim --story N            the trace of one story
 *     test_sim --seek N             the first of N seeds that breaks an invariant, on one line;
 *                                   status 1 if there is none (mutate.py lives on it)
 *     GODWIT_SIM_RUNS=N test_sim    another number of random schedules
 */
#include <inttypes.h>
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

#include "sim/stories.h"
#include "sim/world.h"

#ifdef __SANITIZE_ADDRESS__
#define RUNS_DEFAULT 50000
#else
#define RUNS_DEFAULT 500000
#endif

static volatile sig_atomic_t seed_now; /* for the signal handler; seeds are small in practice */

static bool run_seed(uint64_t seed, bool loud, struct sim_outcome *o)
{
    struct sim_plan plan;
    struct sim_world *w;

    seed_now = (sig_atomic_t)seed;
    sim_plan_random(&plan, seed);
    w = sim_world_new(&plan, loud);
    sim_world_run(w, o);
    if (loud) {
        sim_plan_print(&plan);
        printf("%s%s%s\n%s\n", sim_world_trace(w), o->excuse ? "excuse: " : "no excuse",
               o->excuse ? o->excuse : "", o->broken ? o->broken : "all invariants hold");
    }
    sim_world_free(w);
    return o->broken == NULL;
}

static void tell(const struct sim_story *story, bool loud)
{
    struct sim_world *w = sim_world_new(&story->plan, true);
    const char *told = sim_world_trace(w);
    struct sim_outcome o;

    sim_world_run(w, &o);
    if (loud) {
        printf("%s%s, %s, %d, %u\n%s\n", told, gw_phase_name(o.source_phase),
               gw_code_name(o.error.code), (int)o.owner, (unsigned)o.epoch,
               o.broken ? o.broken : "all invariants hold");
    } else {
        if (o.broken || strcmp(told, story->golden) != 0)
            print_error("%s: %s\n%s", story->title, o.broken ? o.broken : "the trace is", told);
        assert_null(o.broken);
        assert_string_equal(told, story->golden);
        assert_int_equal(o.source_phase, story->end.phase);
        assert_int_equal(o.error.code, story->end.code);
        assert_int_equal(o.needs_person, story->end.code == GW_E_UNRESOLVED);
        assert_int_equal(o.owner, story->end.node);
        assert_int_equal(o.epoch, story->end.epoch);
    }
    sim_world_free(w);
}

static void stories(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_sim_stories; i++)
        tell(&sim_stories[i], false);
}

static void random_faults(void **state)
{
    const char *wanted = getenv("GODWIT_SIM_RUNS");
    uint64_t runs = wanted ? strtoull(wanted, NULL, 10) : RUNS_DEFAULT;
    uint64_t ends[GW_PHASE_MAX] = {0}, n_stranded = 0, n_excused = 0, n_steps = 0;
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
        n_excused += o.excuse != NULL;
        n_steps += o.n_steps;
    }
    print_message("%" PRIu64 " schedules, %" PRIu64 " steps: %" PRIu64 " moved, %" PRIu64
                  " failed, %" PRIu64 " cancelled, %" PRIu64 " of them left to a person; %" PRIu64
                  " had an excuse\n",
                  runs, n_steps, ends[GW_COMPLETED], ends[GW_FAILED], ends[GW_CANCELLED],
                  n_stranded, n_excused);
    assert_true(ends[GW_COMPLETED] && ends[GW_FAILED] && ends[GW_CANCELLED]);
}

/* An assertion of the machines: say which seed it was. */
static void aborted(int sig)
{
    char text[64];
    int n = snprintf(text, sizeof text, "seed %ld: an assertion failed\n", (long)seed_now);

    (void)!write(STDOUT_FILENO, text, (size_t)n);
    signal(sig, SIG_DFL);
    raise(sig);
}

static int seek(uint64_t runs)
{
    struct sim_outcome o;

    for (uint64_t seed = 1; seed <= runs; seed++)
        if (!run_seed(seed, false, &o)) {
            printf("seed %" PRIu64 ": %s\n", seed, o.broken);
            return 0;
        }
    return 1;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories),
        cmocka_unit_test(random_faults),
    };
    struct sim_outcome o;

    signal(SIGABRT, aborted);
    if (argc > 2 && strcmp(argv[1], "--seek") == 0)
        return seek(strtoull(argv[2], NULL, 10));
    if (argc > 2 && strcmp(argv[1], "--story") == 0 && (unsigned)atoi(argv[2]) < n_sim_stories) {
        tell(&sim_stories[atoi(argv[2])], true);
        return 0;
    }
    if (argc > 1)
        return run_seed(strtoull(argv[1], NULL, 10), true, &o) ? 0 : 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
