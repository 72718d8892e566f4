/* SPDX-License-Identifier: Apache-2.0 */
/* Owner records from the event loop: a real directory, and a store that answers when it is told. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "shell/owners.h"
#include "storage/file.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/tree.h"

#define VM "11111111-2222-3333-4444-555555555555"

static struct event_base *base;
static struct gw_owners *owners;
static struct gw_vm_spec spec = {.uuid = (char *)VM};

struct waiting {
    struct gw_owner_call call;
    int result;
    unsigned n_told;
    struct gw_owner current;
    struct gw_error error;
};

static void told(struct gw_owner_call *call, int result, const struct gw_owner *current,
                 const struct gw_error *error)
{
    struct waiting *w = gw_container_of(call, struct waiting, call);

    assert_null(call->job);
    assert_true((result == 0) == (error == NULL));
    w->result = result;
    w->n_told++;
    w->current = *current;
    if (error)
        w->error = *error;
    event_base_loopbreak(base);
}

static struct waiting waiting(void)
{
    return (struct waiting){.call = {.done = told}, .result = 4711};
}

static struct gw_owner record(const char *node, uint64_t epoch)
{
    struct gw_owner owner = {.epoch = epoch, .may_have_run = true};

    snprintf(owner.node, sizeof owner.node, "%s", node);
    return owner;
}

static void wait_for(struct waiting *w)
{
    assert_int_equal(w->n_told, 0); /* never from inside */
    event_base_dispatch(base);
    assert_int_equal(w->n_told, 1);
}

/* ---- a real directory ---- */

static char dir[] = "/tmp/godwit-owners-XXXXXX";

static int with_directory(void **state)
{
    struct gw_store *file;
    struct gw_error error;

    (void)state;
    strcpy(dir + sizeof dir - 7, "XXXXXX");
    assert_non_null(mkdtemp(dir));
    base = event_base_new();
    assert_int_equal(gw_store_file_open(dir, NULL, &file, &error), 0);
    assert_int_equal(gw_owners_new(base, file, NULL, &owners, &error), 0);
    return 0;
}

static int without_directory(void **state)
{
    (void)state;
    gw_owners_free(owners);
    event_base_free(base);
    return gw_remove_tree(dir);
}

static void a_record_goes_from_node_to_node(void **state)
{
    struct gw_owner first = record("n1", 1), second = record("n2", 0), late = record("n3", 0);
    struct waiting read = waiting(), create = waiting(), swap = waiting(), lost = waiting(),
                   removed = waiting();

    (void)state;
    assert_true(gw_owners_has_store(owners, &spec));
    gw_owners_read(owners, &spec, &read.call);
    wait_for(&read);
    assert_int_equal(read.result, GW_OWNER_ABSENT);
    assert_non_null(strstr(read.error.msg, VM));

    gw_owners_create(owners, &spec, &create.call, &first);
    wait_for(&create);
    assert_int_equal(create.result, 0);
    assert_int_equal(create.current.epoch, 1);

    gw_owners_swap(owners, &spec, &swap.call, &first, &second);
    wait_for(&swap);
    assert_int_equal(swap.result, 0);
    assert_string_equal(swap.current.node, "n2");
    assert_int_equal(swap.current.epoch, 2);

    gw_owners_swap(owners, &spec, &lost.call, &first, &late);
    wait_for(&lost);
    assert_int_equal(lost.result, GW_OWNER_CONFLICT);
    assert_string_equal(lost.current.node, "n2");
    assert_non_null(strstr(lost.error.msg, "n2"));

    gw_owners_remove(owners, &spec, &removed.call, &swap.current);
    wait_for(&removed);
    assert_int_equal(removed.result, 0);
}

static void an_illegal_request_is_answered_too(void **state)
{
    struct gw_owner nameless = record("", 1);
    struct waiting w = waiting();

    (void)state;
    gw_owners_create(owners, &spec, &w.call, &nameless);
    wait_for(&w);
    assert_int_equal(w.result, -EINVAL);
    assert_true(w.error.msg[0] != '\0');
}

static void two_requests_at_once_have_one_winner(void **state)
{
    struct gw_owner first = record("n1", 1), a = record("n2", 0), b = record("n3", 0);
    struct waiting create = waiting(), one = waiting(), two = waiting();

    (void)state;
    gw_owners_create(owners, &spec, &create.call, &first);
    wait_for(&create);
    gw_owners_swap(owners, &spec, &one.call, &first, &a);
    gw_owners_swap(owners, &spec, &two.call, &first, &b);
    while (one.n_told + two.n_told < 2)
        event_base_dispatch(base);
    assert_int_equal((one.result == 0) + (two.result == 0), 1);
    assert_int_equal(one.result + two.result, GW_OWNER_CONFLICT);
}

/* ---- a store that waits ---- */

struct slow {
    struct gw_store store;
    int gate[2]; /* a byte in it lets one request go on */
};

static int slow_read(struct gw_store *store, struct gw_store_call *call, const char *uuid)
{
    struct slow *s = gw_container_of(store, struct slow, store);
    char byte;

    (void)uuid;
    if (read(s->gate[0], &byte, 1) < 0)
        return -EIO;
    call->current = record("n1", 7);
    call->done(call, 0);
    return 0;
}

static void slow_close(struct gw_store *store)
{
    (void)store;
}

static const struct gw_store_ops slow_ops = {
    .name = "slow", .caps = GW_STORE_BLOCKS, .read = slow_read, .close = slow_close};
static struct slow slow = {.store = {&slow_ops}};

static int with_slow_store(void **state)
{
    struct gw_error error;

    (void)state;
    base = event_base_new();
    assert_int_equal(pipe(slow.gate), 0);
    return gw_owners_new(base, &slow.store, NULL, &owners, &error);
}

static void open_gate(unsigned n)
{
    while (n--)
        assert_int_equal(write(slow.gate[1], "x", 1), 1);
}

static int without_slow_store(void **state)
{
    (void)state;
    gw_owners_free(owners);
    event_base_free(base);
    open_gate(8);
    return 0; /* the pipe stays: a thread may be about to read from it */
}

#define TICK_NS (10 * GW_NS_PER_MS)

static void one_that_hangs_holds_up_nobody(void **state)
{
    struct waiting hangs = waiting(), goes = waiting();
    uint64_t began_ns = gw_clock_ns();

    (void)state;
    gw_owners_read(owners, &spec, &hangs.call);
    gw_owners_read(owners, &spec, &goes.call);
    open_gate(1);
    while (hangs.n_told + goes.n_told < 1)
        event_base_dispatch(base);
    assert_true(gw_clock_ns() - began_ns < GW_OWNERS_LIMIT_NS);
    while (hangs.n_told + goes.n_told < 2)
        event_base_dispatch(base);
    /* libevent's own clock is a coarse one, and up to a tick behind when the limit is set */
    assert_true(gw_clock_ns() - began_ns >= GW_OWNERS_LIMIT_NS - TICK_NS);
    assert_int_equal(hangs.result + goes.result, -ETIMEDOUT);
    assert_string_equal(goes.result == 0 ? goes.current.node : hangs.current.node, "n1");
    /* what it says now is thrown away */
    open_gate(1);
    event_base_loop(base, EVLOOP_ONCE);
    assert_int_equal(hangs.n_told + goes.n_told, 2);
}

static void a_caller_may_go_away(void **state)
{
    struct waiting gone = waiting(), next = waiting();

    (void)state;
    gw_owners_read(owners, &spec, &gone.call);
    gw_owner_call_cancel(&gone.call);
    gw_owner_call_cancel(&gone.call);
    gw_owners_read(owners, &spec, &next.call);
    open_gate(2);
    while (!next.n_told)
        event_base_dispatch(base);
    assert_int_equal(gone.n_told, 0);
}

static void all_may_end_while_the_store_hangs(void **state)
{
    struct waiting hangs = waiting();

    (void)state;
    gw_owners_read(owners, &spec, &hangs.call);
    gw_owners_free(gw_steal_ptr(&owners));
    assert_null(hangs.call.job);
    open_gate(1);
    assert_int_equal(hangs.n_told, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_record_goes_from_node_to_node, with_directory,
                                        without_directory),
        cmocka_unit_test_setup_teardown(an_illegal_request_is_answered_too, with_directory,
                                        without_directory),
        cmocka_unit_test_setup_teardown(two_requests_at_once_have_one_winner, with_directory,
                                        without_directory),
        cmocka_unit_test_setup_teardown(one_that_hangs_holds_up_nobody, with_slow_store,
                                        without_slow_store),
        cmocka_unit_test_setup_teardown(a_caller_may_go_away, with_slow_store, without_slow_store),
        cmocka_unit_test_setup_teardown(all_may_end_while_the_store_hangs, with_slow_store,
                                        without_slow_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
