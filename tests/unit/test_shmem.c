/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/shmem.h"

static void keeps_its_size(void **state)
{
    gw_autoclose int fd = gw_shmem_new(3 << 20);
    struct stat st;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 3 << 20);
    assert_int_equal(st.st_blocks, 0);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 1 << 20), -1);
    assert_int_equal(ftruncate(fd, 4 << 20), -1);
    assert_int_equal(pwrite(fd, "x", 1, 1 << 20), 1);
}

static void too_much_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(gw_shmem_new(UINT64_MAX), -EINVAL);
}

static void what_the_kernel_says(void **state)
{
    static const struct {
        const char *text;
        bool huge;
    } table[] = {
        {"always within_size advise [never] deny force\n", false},
        {"always within_size [advise] never deny force\n", true},
        {"[always] within_size advise never deny force\n", true},
        {"always within_size advise never [deny] force\n", false},
        {"always within_size advise never deny [force]\n", true},
        {"", false},
        {"[", true}, /* whatever it is, it is not never */
    };

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++)
        assert_int_equal(gw_shmem_parse_enabled(table[i].text), table[i].huge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_its_size),
        cmocka_unit_test(too_much_is_an_error),
        cmocka_unit_test(what_the_kernel_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
