/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "flow/barrier.h"

#define LANES  4
#define ROUNDS 2000

static struct gw_barrier barrier;
static atomic_int n_before[ROUNDS]; /* lanes that have applied their pages of a round */
static atomic_int n_too_early;
static unsigned dies_at[LANES]; /* the round before whose SYNC a lane ends; 0: never */

static void *lane(void *argument)
{
    unsigned *dies = argument;

    for (unsigned round = 0; round < ROUNDS; round++) {
        if (*dies && round == *dies)
            break;
        atomic_fetch_add(&n_before[round], 1);
        if (gw_barrier_arrive(&barrier) != 0)
            return NULL;
        /* what follows may be applied only now */
        if (atomic_load(&n_before[round]) != LANES)
            atomic_fetch_add(&n_too_early, 1);
    }
    gw_barrier_abort(&barrier);
    return lane; /* anything but NULL */
}

/* Gives how many lanes were aborted. */
static int run_lanes(void)
{
    pthread_t thread[LANES];
    int n_aborted = 0;

    for (unsigned i = 0; i < ROUNDS; i++)
        n_before[i] = 0;
    n_too_early = 0;
    assert_int_equal(gw_barrier_init(&barrier, LANES), 0);
    for (int i = 0; i < LANES; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, lane, &dies_at[i]), 0);
    for (int i = 0; i < LANES; i++) {
        void *result;

        pthread_join(thread[i], &result);
        n_aborted += result == NULL;
    }
    assert_int_equal(n_too_early, 0);
    return n_aborted;
}

static void nobody_goes_on_before_all_have_come(void **state)
{
    (void)state;
    memset(dies_at, 0, sizeof dies_at);
    assert_int_equal(run_lanes(), 0);
    assert_true(gw_barrier_round(&barrier) == ROUNDS);
    gw_barrier_fini(&barrier);
}

static void a_lane_that_dies_takes_the_others_along(void **state)
{
    (void)state;
    memset(dies_at, 0, sizeof dies_at);
    dies_at[2] = 100;
    assert_int_equal(run_lanes(), LANES - 1);
    assert_true(gw_barrier_round(&barrier) == 100);
    assert_int_equal(gw_barrier_arrive(&barrier), 1);
    gw_barrier_fini(&barrier);
}

static void one_lane_never_waits(void **state)
{
    struct gw_barrier b;

    (void)state;
    assert_int_equal(gw_barrier_init(&b, 1), 0);
    assert_int_equal(gw_barrier_arrive(&b), 0);
    assert_int_equal(gw_barrier_arrive(&b), 0);
    assert_true(gw_barrier_round(&b) == 2);
    gw_barrier_abort(&b);
    gw_barrier_abort(&b);
    assert_int_equal(gw_barrier_arrive(&b), 1);
    gw_barrier_fini(&b);
}

static int says_writable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

/* The kernel's rule that gw_drain_prepare() relies on; QEMU reads a header in two steps. */
static void writable_means_taken(void **state)
{
    char header[1344] = {0};
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(gw_drain_prepare(pair[0]), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(gw_drain_is_done(pair[0]), 1);
        assert_true(says_writable(pair[0]));
        assert_int_equal(send(pair[0], header, sizeof header, 0), sizeof header);
        assert_int_equal(gw_drain_is_done(pair[0]), 0);
        assert_false(says_writable(pair[0]));
        assert_int_equal(read(pair[1], header, 12), 12);
        assert_int_equal(gw_drain_is_done(pair[0]), 0);
        assert_false(says_writable(pair[0]));
        assert_int_equal(read(pair[1], header, sizeof header - 12), sizeof header - 12);
    }
    assert_true(says_writable(pair[0]));
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_goes_on_before_all_have_come),
        cmocka_unit_test(a_lane_that_dies_takes_the_others_along),
        cmocka_unit_test(one_lane_never_waits),
        cmocka_unit_test(writable_means_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
