/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "host/prefault.h"
#include "util/cleanup.h"

static void half_of_the_processors(void **state)
{
    static const unsigned rows[][2] = {{0, 1}, {1, 1}, {2, 1}, {4, 2}, {9, 4}, {32, 16}, {256, 16}};

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++)
        assert_int_equal(gw_prefault_threads(rows[i][0]), rows[i][1]);
}

static void who_waits_has_time_for_it(void **state)
{
    static const char *const theirs[] = {"-object",
                                         "memory-backend-memfd,id=m,size=1G,prealloc=on"};
    static const char *const others[] = {"-device", "virtio-rng-pci"};
    struct gw_vm_spec spec = {.memory_bytes = UINT64_C(1) << 30};

    (void)state;
    assert_int_equal(gw_prefault_limit_ns(&spec, false), 0);
    assert_int_equal(gw_prefault_limit_ns(&spec, true), UINT64_C(16000000000));
    spec.adopted_argv = (char **)others;
    spec.n_adopted_argv = 2;
    assert_false(gw_prefault_happens(&spec, false));
    spec.adopted_argv = (char **)theirs;
    assert_int_equal(gw_prefault_limit_ns(&spec, false), UINT64_C(16000000000));
    spec.n_adopted_argv = 1;
    assert_int_equal(gw_prefault_limit_ns(&spec, false), 0);
    spec.qemu_args = (char **)(const char *[]){"-mem-prealloc"};
    spec.n_qemu_args = 1;
    assert_true(gw_prefault_happens(&spec, false));
    spec.memory_bytes = UINT64_C(16) << 40; /* the most that a VM has */
    assert_int_equal(gw_prefault_limit_ns(&spec, true), UINT64_C(16384) * 16000000000);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_of_the_processors),
        cmocka_unit_test(who_waits_has_time_for_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
