/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "core/resolve.h"

static struct gw_resolve_facts at(unsigned record, unsigned here, unsigned there, bool dead)
{
    return (struct gw_resolve_facts){(enum gw_resolve_record)record, (enum gw_resolve_qemu)here,
                                     (enum gw_resolve_qemu)there, dead, false};
}

/* Every combination: no action may lead to two copies, to a stale one, or to the loss of the one.
 */
static void nothing_unsafe_is_allowed(void **state)
{
    unsigned n_allowed[GW_RESOLVE_ACTION_MAX] = {0};

    (void)state;
    for (unsigned i = 0; i < 5 * 5 * 5 * 2; i++) {
        struct gw_resolve_facts f = at(i % 5, i / 5 % 5, i / 25 % 5, i / 125);
        bool resume = !gw_resolve_refusal(&f, GW_RESOLVE_RESUME),
             discard = !gw_resolve_refusal(&f, GW_RESOLVE_DISCARD),
             release = !gw_resolve_refusal(&f, GW_RESOLVE_RELEASE),
             fence = !gw_resolve_refusal(&f, GW_RESOLVE_FENCE);

        n_allowed[GW_RESOLVE_RESUME] += resume;
        n_allowed[GW_RESOLVE_DISCARD] += discard;
        n_allowed[GW_RESOLVE_RELEASE] += release;
        n_allowed[GW_RESOLVE_FENCE] += fence;
        if (fence)
            assert_true(f.dead && f.there == GW_RESOLVE_SILENT);
        assert_true(gw_resolve_summary(&f)[0] != '\0');
        if (resume) {
            assert_int_equal(f.here, GW_RESOLVE_PAUSED);
            assert_int_not_equal(f.there, GW_RESOLVE_RUNNING);
            assert_true(f.record == GW_RESOLVE_OURS || (f.record == GW_RESOLVE_NO_STORE && f.dead));
        }
        if (discard) {
            assert_int_equal(f.here, GW_RESOLVE_PAUSED);
            assert_int_not_equal(f.record, GW_RESOLVE_OURS);
        }
        assert_false(resume && discard);
        if (release) {
            assert_int_equal(f.here, GW_RESOLVE_NONE);
            assert_true(f.record == GW_RESOLVE_OURS || f.record == GW_RESOLVE_OTHERS);
            assert_true(f.record == GW_RESOLVE_OURS || f.there == GW_RESOLVE_NONE ||
                        (f.there == GW_RESOLVE_SILENT && f.dead));
        }
        if (f.record == GW_RESOLVE_UNREADABLE)
            assert_false(resume || discard || release || fence);
    }
    for (unsigned a = 0; a < GW_RESOLVE_ACTION_MAX; a++)
        assert_true(n_allowed[a] > 0);
}

static void a_word_of_a_person_does_not_outweigh_an_answer(void **state)
{
    struct gw_resolve_facts f = at(GW_RESOLVE_OTHERS, GW_RESOLVE_NONE, GW_RESOLVE_PAUSED, true);

    (void)state;
    assert_non_null(gw_resolve_refusal(&f, GW_RESOLVE_RELEASE));
    f.there = GW_RESOLVE_SILENT;
    assert_null(gw_resolve_refusal(&f, GW_RESOLVE_RELEASE));
    f.here = GW_RESOLVE_PAUSED; /* the disks may be newer: also if the other node is dead */
    assert_non_null(gw_resolve_refusal(&f, GW_RESOLVE_RESUME));
}

/* In every combination it may do less than a person: only fence, and only for a guest that runs
 * here by its record. */
static void a_policy_only_fences_what_is_ours(void **state)
{
    unsigned n_allowed = 0;

    (void)state;
    for (unsigned i = 0; i < 5 * 5 * 5 * 2; i++) {
        struct gw_resolve_facts f = at(i % 5, i / 5 % 5, i / 25 % 5, i / 125);

        f.by_policy = true;
        for (unsigned a = 0; a < GW_RESOLVE_ACTION_MAX; a++) {
            bool allowed = !gw_resolve_refusal(&f, (enum gw_resolve_action)a);

            n_allowed += allowed;
            if (allowed)
                assert_true(a == GW_RESOLVE_FENCE && f.record == GW_RESOLVE_OURS &&
                            f.here == GW_RESOLVE_RUNNING && f.there == GW_RESOLVE_SILENT && f.dead);
        }
    }
    assert_int_equal(n_allowed, 1);
}

static void names_go_both_ways(void **state)
{
    (void)state;
    for (unsigned a = 0; a < GW_RESOLVE_ACTION_MAX; a++)
        assert_int_equal(
            gw_resolve_action_from_name(gw_resolve_action_name((enum gw_resolve_action)a)), a);
    assert_int_equal(gw_resolve_action_from_name("shoot"), GW_RESOLVE_ACTION_MAX);
    for (unsigned q = 0; q <= GW_RESOLVE_RUNNING; q++)
        assert_int_equal(gw_resolve_qemu_from_name(gw_resolve_qemu_name((enum gw_resolve_qemu)q)),
                         q);
    assert_int_equal(gw_resolve_qemu_from_name("dancing"), GW_RESOLVE_SILENT);
    assert_non_null(gw_resolve_refusal(&(struct gw_resolve_facts){0}, GW_RESOLVE_ACTION_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_unsafe_is_allowed),
        cmocka_unit_test(a_word_of_a_person_does_not_outweigh_an_answer),
        cmocka_unit_test(a_policy_only_fences_what_is_ours),
        cmocka_unit_test(names_go_both_ways),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
