/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pace in simulated worlds: workers that encode with a true cost and gain for each setting, a
 * link behind them, and little room between. What it makes of them is compared with the best that
 * any one setting could do there.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "flow/pace.h"
#include "util/cleanup.h"

#define MBIT      (1e6 / 8)
#define BATCH     (128 * GW_PAGE_BYTES)
#define REVIEW_NS 50e6
enum { QUEUE = 8, MAX_WORKERS = 8, MAX_SWITCHES = 64 };

/* The truth about a setting; not that of the table in pace.c. */
struct truth {
    struct gw_batch_setting setting;
    double page_ns, literal_ns, ratio;
};

static const struct truth usual[] = {
    {{0, 0, false}, 0.5, 0.3, 1},    {{0, 0, true}, 0.9, 0.3, 1},
    {{1, -5, true}, 0.9, 2.4, 0.43}, {{1, -3, true}, 0.9, 2.7, 0.39},
    {{1, -1, true}, 0.9, 3.4, 0.35}, {{1, 1, true}, 0.9, 5.2, 0.28},
    {{1, 3, true}, 0.9, 11, 0.255},  {{1, 6, true}, 0.9, 29, 0.245},
};

struct world {
    const char *name;
    double link_bytes_per_s;
    unsigned n_workers;
    double cpu;           /* how many times slower than usual the CPU is */
    double literal_share; /* of pages, with delta */
    double noise;         /* of each batch's figures, 0.2: from 0.8 to 1.2 of the truth */
    bool incompressible;
};

static const struct world worlds[] = {
    {"100 Mbit/s", 100 * MBIT, 2, 1, 1, 0, false},
    {"1 Gbit/s, two workers", 1000 * MBIT, 2, 1, 1, 0, false},
    {"1 Gbit/s, one worker", 1000 * MBIT, 1, 1, 1, 0, false},
    {"1 Gbit/s, one worker, noise", 1000 * MBIT, 1, 1, 1, 0.3, false},
    {"1 Gbit/s, pages sent again", 1000 * MBIT, 2, 1, 0.06, 0.2, false},
    {"10 Gbit/s, two workers", 10000 * MBIT, 2, 1, 1, 0.1, false},
    {"10 Gbit/s, eight workers", 10000 * MBIT, 8, 1, 1, 0.1, false},
    {"100 Gbit/s", 100000 * MBIT, 2, 1, 1, 0, false},
    {"100 Gbit/s, pages sent again", 100000 * MBIT, 2, 1, 0.3, 0.1, false},
    {"a slow CPU", 1000 * MBIT, 1, 5, 1, 0.1, false},
    {"incompressible, 1 Gbit/s", 1000 * MBIT, 2, 1, 1, 0, true},
    {"incompressible, 25 Gbit/s", 25000 * MBIT, 2, 1, 1, 0, true},
};

/* What is under way in a world. */
struct run {
    const struct world *world;
    double workers[MAX_WORKERS]; /* when each is free, ns */
    double gone[QUEUE];          /* when the last batches had left */
    double link;                 /* when it is free */
    double cpu_ns, wire_bytes;
    unsigned n;
    uint32_t dice;
};

static double noise(struct run *run)
{
    run->dice = run->dice * 1664525u + 1013904223u;
    return 1 + run->world->noise * ((double)(run->dice >> 8) / (1 << 23) - 1);
}

/* Sends one batch with a setting and gives what a worker would report. */
static void send_batch(struct run *run, const struct gw_batch_setting *setting,
                       struct gw_pace_sample *sample)
{
    const struct world *world = run->world;
    const struct truth *truth = usual;
    double share, ratio, ns, wire, *worker = run->workers;

    while (truth->setting.codec != setting->codec || truth->setting.level != setting->level ||
           truth->setting.delta != setting->delta)
        assert_ptr_not_equal(++truth, usual + GW_ARRAY_SIZE(usual));
    share = setting->delta ? world->literal_share : 1;
    ratio = world->incompressible ? 1 : truth->ratio;
    ns = BATCH * world->cpu * (truth->page_ns + truth->literal_ns * share) * noise(run);
    wire = BATCH * share * (setting->codec ? ratio * noise(run) : 1);
    for (unsigned i = 1; i < world->n_workers; i++)
        if (run->workers[i] < *worker)
            worker = &run->workers[i];
    if (*worker < run->gone[run->n % QUEUE]) /* back-pressure */
        *worker = run->gone[run->n % QUEUE];
    *worker += ns;
    run->link = (run->link > *worker ? run->link : *worker) + wire * 1e9 / world->link_bytes_per_s;
    run->gone[run->n++ % QUEUE] = run->link;
    run->cpu_ns += ns;
    run->wire_bytes += wire;
    *sample = (struct gw_pace_sample){
        .setting = *setting,
        .figures = {.content_bytes = BATCH,
                    .literal_bytes = (size_t)(BATCH * share),
                    .wire_bytes = (size_t)wire},
        .work_ns = (uint64_t)ns,
    };
}

static struct run run_fixed(const struct world *world, const struct truth *truth, unsigned n)
{
    struct run run = {.world = world, .dice = 1};
    struct gw_pace_sample sample;

    while (run.n < n)
        send_batch(&run, &truth->setting, &sample);
    return run;
}

static struct run best_fixed(const struct world *world, unsigned n)
{
    struct run best = run_fixed(world, &usual[1], n), now;

    for (size_t i = 0; i < GW_ARRAY_SIZE(usual); i++) {
        /* That pages are forgotten costs later, which these worlds do not have. */
        if (!usual[i].setting.delta && world->literal_share < 0.75)
            continue;
        now = run_fixed(world, &usual[i], n);
        if (now.link < best.link)
            best = now;
    }
    return best;
}

struct log {
    struct gw_pace_decision decisions[MAX_SWITCHES];
    unsigned n;
};

/* Continues a run, which may be in another world than before, by n batches. */
static void run_paced(struct run *run, struct gw_pace *pace, unsigned n, struct log *log)
{
    struct gw_pace_inputs inputs = {.lane_bytes_per_s = (uint64_t)run->world->link_bytes_per_s,
                                    .n_workers = run->world->n_workers};
    struct gw_batch_setting setting;
    struct gw_pace_sample sample;
    double next = run->link + REVIEW_NS;

    for (unsigned i = 0; i < n; i++) {
        gw_pace_next(pace, &setting);
        send_batch(run, &setting, &sample);
        gw_pace_sample(pace, &sample);
        if (run->link < next)
            continue;
        next += REVIEW_NS;
        assert_in_range(log->n, 0, MAX_SWITCHES - 1);
        if (gw_pace_review(pace, &inputs, &log->decisions[log->n]))
            log->n++;
    }
}

static struct gw_pace make(int level_max)
{
    struct gw_pace pace;

    assert_int_equal(
        gw_pace_init(&pace, &(struct gw_pace_options){.delta = true, .level_max = level_max}), 0);
    return pace;
}

static void check_decisions(const struct log *log)
{
    for (unsigned i = 0; i < log->n; i++) {
        const struct gw_pace_decision *d = &log->decisions[i];

        assert_true(d->chosen[0] && d->instead_of[0] && d->because[0]);
        assert_string_not_equal(d->chosen, d->instead_of);
        assert_true(d->inputs.lane_bytes_per_s && d->inputs.n_workers);
        assert_true(d->pages_bytes_per_s > d->instead_pages_bytes_per_s * 0.98);
        if (i)
            assert_string_equal(d->instead_of, log->decisions[i - 1].chosen);
    }
}

/* Everywhere at most 5 % slower than the best single setting, which it has to find first. */
static void test_it_keeps_up_with_the_best_setting(void **state)
{
    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(worlds); i++) {
        struct run run = {.world = &worlds[i], .dice = 1}, best = best_fixed(&worlds[i], 16000);
        struct gw_pace pace = make(6);
        struct log log = {0};

        run_paced(&run, &pace, 16000, &log);
        print_message(
            "%-30s %5.2f of the best setting's time, %.2f of its bytes, %u switches: %s\n",
            worlds[i].name, run.link / best.link, run.wire_bytes / best.wire_bytes, log.n,
            log.n ? log.decisions[log.n - 1].chosen : "zstd 1, delta");
        check_decisions(&log);
        assert_true(run.link < best.link * 1.05);
        assert_in_range(log.n, 0, 6);
    }
}

/* Where one level leaves the link idle and the next one the CPU, a mix beats both. */
static void test_a_mix_is_faster_than_any_setting(void **state)
{
    struct run run = {.world = &worlds[1], .dice = 1}, best = best_fixed(&worlds[1], 8000);
    struct gw_pace pace = make(6);
    struct log log = {0};

    (void)state;
    run_paced(&run, &pace, 8000, &log);
    assert_true(run.link < best.link * 0.97);
    /* both are busy */
    assert_true(run.cpu_ns / 2 / run.link > 0.85);
    assert_true(run.wire_bytes * 1e9 / run.world->link_bytes_per_s / run.link > 0.9);
    assert_non_null(strstr(log.decisions[log.n - 1].chosen, " of 16, else "));
}

/* More CPU that gains nothing is not spent. */
static void test_incompressible_pages_are_not_compressed(void **state)
{
    struct run run = {.world = &worlds[10], .dice = 1};
    struct gw_pace pace = make(6);
    struct log log = {0};

    (void)state;
    run_paced(&run, &pace, 2000, &log);
    assert_in_range(log.n, 1, 3);
    assert_non_null(strstr(log.decisions[log.n - 1].chosen, "none"));
    assert_non_null(strstr(log.decisions[0].because, "of the CPU"));
}

static void test_it_follows_the_world(void **state)
{
    static const struct world half_gbit = {"", 500 * MBIT, 2, 1, 1, 0.1, false};
    static const struct {
        const struct world *world;
        const char *chosen;
    } days[] = {
        {&worlds[7], "none"}, {&half_gbit, "zstd 3"}, {&worlds[7], "none"}, {&worlds[0], "zstd 6"}};
    struct run run = {.dice = 1};
    struct gw_pace pace = make(6);
    struct log log = {0};

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(days); i++) {
        unsigned n_before = log.n;

        run.world = days[i].world;
        run_paced(&run, &pace, 4000, &log);
        assert_in_range(log.n - n_before, 1, 5);
        assert_non_null(strstr(log.decisions[log.n - 1].chosen, days[i].chosen));
    }
    check_decisions(&log);
}

/* Noise of 30 % and nothing that changes: once it has settled, it stays. */
static void test_noise_does_not_make_it_flutter(void **state)
{
    struct run run = {.world = &worlds[3], .dice = 7};
    struct gw_pace pace = make(6);
    struct log log = {0};

    (void)state;
    run_paced(&run, &pace, 4000, &log);
    log.n = 0;
    run_paced(&run, &pace, 40000, &log);
    assert_in_range(log.n, 0, 3);
}

static void test_the_same_calls_give_the_same_answers(void **state)
{
    struct run a = {.world = &worlds[3], .dice = 5}, b = a;
    struct gw_pace pace_a = make(6), pace_b = make(6);
    struct log log_a = {0}, log_b = {0};

    (void)state;
    run_paced(&a, &pace_a, 5000, &log_a);
    run_paced(&b, &pace_b, 5000, &log_b);
    assert_memory_equal(&log_a, &log_b, sizeof log_a);
    assert_true(a.link == b.link);
}

/* What was not allowed is never used, however good it would be. */
static void test_it_keeps_within_its_options(void **state)
{
    static const struct gw_pace_options options[] = {
        {.delta = false, .level_max = 6},
        {.delta = true, .level_max = 0},
        {.delta = true, .level_max = 1},
        {.delta = true, .level_max = -3},
        {.fixed = true, .fixed_setting = {1, 9, true}},
    };
    struct gw_pace_inputs inputs = {.n_workers = 2};
    struct gw_pace_decision decision;
    struct gw_batch_setting setting;
    struct gw_pace pace;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(options); i++) {
        assert_int_equal(gw_pace_init(&pace, &options[i]), 0);
        for (unsigned n = 0; n < 3000; n++) {
            gw_pace_next(&pace, &setting);
            if (options[i].fixed) {
                assert_int_equal(setting.level, 9);
            } else {
                assert_true(options[i].delta || !setting.delta);
                assert_true(setting.codec == 0 ||
                            (options[i].level_max && setting.level <= options[i].level_max));
            }
            gw_pace_sample(&pace,
                           &(struct gw_pace_sample){setting,
                                                    {.content_bytes = BATCH,
                                                     .literal_bytes = BATCH,
                                                     .wire_bytes = BATCH / (setting.codec ? 3 : 1)},
                                                    1000000});
            inputs.lane_bytes_per_s = n / 500 % 2 ? 1000000 : 100000000000;
            if (gw_pace_review(&pace, &inputs, &decision)) {
                assert_false(options[i].fixed);
                assert_true(options[i].delta || !strstr(decision.chosen, "delta"));
            }
        }
    }
    assert_int_equal(gw_pace_init(&pace, &(struct gw_pace_options){.level_max = 13}), -EINVAL);
    assert_int_equal(gw_pace_init(&pace, &(struct gw_pace_options){.fixed = true,
                                                                   .fixed_setting = {1, 0, true}}),
                     -EINVAL);
}

/* However fast the link: in the first round every page is remembered. */
/* Sends batches, and thinks after each of them. */
static void send_and_review(struct run *run, struct gw_pace *pace,
                            const struct gw_pace_inputs *inputs, unsigned n,
                            struct gw_pace_decision *decision)
{
    struct gw_batch_setting setting;
    struct gw_pace_sample sample;

    for (unsigned i = 0; i < n; i++) {
        gw_pace_next(pace, &setting);
        assert_true(setting.delta);
        send_batch(run, &setting, &sample);
        gw_pace_sample(pace, &sample);
        gw_pace_review(pace, inputs, decision);
    }
}

/* On a fast link a delta is worth its CPU only where it finds something. */
static void test_the_first_round_says_nothing_of_deltas(void **state)
{
    struct gw_pace_inputs inputs = {.lane_bytes_per_s = 2000000000,
                                    .n_workers = 2,
                                    .first_round = true};
    struct world first = worlds[7], again = worlds[7];
    struct gw_pace_decision decision = {0};
    struct gw_pace pace = make(6), other;
    struct run run = {.world = &first, .dice = 1};

    (void)state;
    send_and_review(&run, &pace, &inputs, 2000, &decision);
    assert_string_equal(decision.chosen, "none, delta");
    inputs.first_round = false;
    other = pace;
    again.literal_share = 0.06;
    run.world = &again;
    send_and_review(&run, &other, &inputs, 2000, &decision);
    assert_string_equal(decision.chosen, "none, delta");
    run.world = &first; /* all of them are new, again and again */
    send_and_review(&run, &pace, &inputs, 31, &decision);
    assert_int_equal(gw_pace_review(&pace, &inputs, &decision), 0);
    for (unsigned i = 0; i < 100 && strcmp(decision.chosen, "none") != 0; i++)
        send_and_review(&run, &pace, &inputs, 1, &decision);
    assert_string_equal(decision.chosen, "none");
}

/* In the last round it decides at once, and tries nothing out. */
static void test_the_last_round(void **state)
{
    struct gw_pace_inputs inputs = {.lane_bytes_per_s = 1250000000, .n_workers = 1};
    struct gw_pace_decision decision;
    struct gw_batch_setting setting, first;
    struct gw_pace_sample sample;
    struct run run = {.world = &worlds[7], .dice = 1};
    struct gw_pace pace = make(6);

    (void)state;
    gw_pace_next(&pace, &setting);
    send_batch(&run, &setting, &sample);
    assert_int_equal(gw_pace_review(&pace, &inputs, &decision), 0); /* nothing measured */
    gw_pace_sample(&pace, &sample);
    assert_int_equal(gw_pace_review(&pace, &inputs, &decision), 0); /* too early */
    inputs.last_round = true;
    inputs.lane_bytes_per_s = 0;
    assert_int_equal(gw_pace_review(&pace, &inputs, &decision), 0); /* link not known */
    inputs.lane_bytes_per_s = 125000000000;
    assert_int_equal(gw_pace_review(&pace, &inputs, &decision), 1);
    assert_non_null(strstr(decision.chosen, "none"));
    assert_string_equal(decision.instead_of, "zstd 1, delta");
    assert_non_null(strstr(decision.because, "the CPU was the slower one"));
    gw_pace_next(&pace, &first);
    for (unsigned i = 0; i < 1000; i++) {
        gw_pace_next(&pace, &setting);
        assert_int_equal(setting.codec, first.codec);
        assert_int_equal(setting.level, first.level);
        assert_int_equal(setting.delta, first.delta);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_keeps_up_with_the_best_setting),
        cmocka_unit_test(test_a_mix_is_faster_than_any_setting),
        cmocka_unit_test(test_incompressible_pages_are_not_compressed),
        cmocka_unit_test(test_it_follows_the_world),
        cmocka_unit_test(test_noise_does_not_make_it_flutter),
        cmocka_unit_test(test_the_same_calls_give_the_same_answers),
        cmocka_unit_test(test_it_keeps_within_its_options),
        cmocka_unit_test(test_the_first_round_says_nothing_of_deltas),
        cmocka_unit_test(test_the_last_round),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
