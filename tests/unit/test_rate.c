/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "flow/rate.h"

#define INTERVAL_NS UINT64_C(50000000)
#define MB          1e6
enum { N_WORKERS = 2 };

/* A migration, an interval at a time. */
struct run {
    struct gw_rate rate;
    struct gw_rate_counts counts;
    uint64_t now_ns;
};

static double pass(struct run *run, double bytes_per_s, double blocked, double starved)
{
    double worker_ns = (double)INTERVAL_NS * N_WORKERS;

    run->now_ns += INTERVAL_NS;
    run->counts.sent_bytes += (uint64_t)(bytes_per_s * (double)INTERVAL_NS / 1e9);
    run->counts.blocked_ns += (uint64_t)(blocked * worker_ns);
    run->counts.starved_ns += (uint64_t)(starved * worker_ns);
    return (double)gw_rate_sample(&run->rate, &run->counts, N_WORKERS, run->now_ns);
}

static struct run begun(void)
{
    struct run run = {.now_ns = 77};

    assert_int_equal(gw_rate_sample(&run.rate, &run.counts, N_WORKERS, run.now_ns), 0);
    return run;
}

static void near(double a, double b)
{
    assert_true(a > b * 0.999 && a < b * 1.001);
}

static void test_workers_that_wait_for_their_lanes(void **state)
{
    struct run run = begun();

    (void)state;
    near(pass(&run, 100 * MB, 0.5, 0), 100 * MB);
    for (unsigned i = 0; i < 20; i++) /* it has become slower */
        pass(&run, 40 * MB, 0.7, 0);
    near(pass(&run, 40 * MB, 0.7, 0), 40 * MB);
}

static void test_workers_that_do_not(void **state)
{
    struct run run = begun();

    (void)state;
    near(pass(&run, 100 * MB, 0, 0.2), 120 * MB);
    near(pass(&run, 80 * MB, 0, 0), 120 * MB); /* nothing says that it is less */
    near(pass(&run, 120 * MB, 0.01, 0), 144 * MB);
}

static void test_no_pages_tell_nothing(void **state)
{
    struct run run = begun();

    (void)state;
    assert_int_equal(pass(&run, 1 * MB, 0, 0.9), 0);
    near(pass(&run, 100 * MB, 0.5, 0), 100 * MB);
    near(pass(&run, 5 * MB, 0.2, 0.79), 100 * MB);
    near(pass(&run, 0, 0, 0), 100 * MB);
    near(pass(&run, 90 * MB, 0.1, 0), 100 * MB); /* neither nor */
    near(pass(&run, 110 * MB, 0.1, 0), 110 * MB);
}

/* The pace chooses what it sends by the rate, and the workers have a limit of their own. */
static double in_the_end(double link, double workers)
{
    struct run run = begun();
    double wanted = 30 * MB;

    for (unsigned i = 0; i < 100; i++) {
        double sent = wanted < link ? wanted : link;
        double rate = pass(&run, sent, 1 - sent / wanted, 0.1);

        wanted = rate < workers ? rate : workers;
    }
    return (double)run.rate.bytes_per_s;
}

static void test_it_finds_the_slower_one(void **state)
{
    (void)state;
    for (double link = 5 * MB; link < 3000 * MB; link *= 1.7) {
        double rate = in_the_end(link, 4000 * MB);

        assert_true(rate > link * 0.99 && rate < link * 1.26);
    }
    assert_true(in_the_end(1000 * MB, 50 * MB) >= 50 * MB);
}

static void test_the_clock_need_not_move(void **state)
{
    struct run run = begun();

    (void)state;
    near(pass(&run, 100 * MB, 0.5, 0), 100 * MB);
    near((double)gw_rate_sample(&run.rate, &run.counts, N_WORKERS, run.now_ns), 100 * MB);
    near((double)gw_rate_sample(&run.rate, &run.counts, 0, run.now_ns + 1), 100 * MB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers_that_wait_for_their_lanes),
        cmocka_unit_test(test_workers_that_do_not),
        cmocka_unit_test(test_no_pages_tell_nothing),
        cmocka_unit_test(test_it_finds_the_slower_one),
        cmocka_unit_test(test_the_clock_need_not_move),
    };

    return cmocka_run_group_tests_name("rate", tests, NULL, NULL);
}
