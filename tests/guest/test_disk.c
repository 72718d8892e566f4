/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "disk.h"

#define SEED 7u
#define SLOT 12u

static struct gw_disk_finding judge(uint32_t begun, uint32_t acked, const uint64_t *words)
{
    const struct gw_disk_slot known = {.n_begun = begun, .n_acked = acked};

    return gw_disk_judge(SEED, SLOT, &known, words);
}

static void the_last_acknowledged_write_is_good(void **state)
{
    uint64_t words[GW_DISK_BLOCK_WORDS];

    (void)state;
    gw_disk_build(SEED, SLOT, 5, words);
    assert_int_equal(judge(5, 5, words).kind, GW_DISK_GOOD);
    assert_int_equal(judge(6, 5, words).kind, GW_DISK_GOOD);
    /* begun, refused, and there all the same */
    assert_int_equal(judge(5, 4, words).kind, GW_DISK_GOOD);
}

static void an_older_write_is_a_lost_one(void **state)
{
    uint64_t words[GW_DISK_BLOCK_WORDS];

    (void)state;
    gw_disk_build(SEED, SLOT, 4, words);
    assert_int_equal(judge(5, 5, words).kind, GW_DISK_LOST);
    assert_int_equal(judge(5, 5, words).found, 4);
    assert_int_equal(judge(5, 5, words).acked, 5);
    memset(words, 0, sizeof(words));
    assert_int_equal(judge(1, 1, words).kind, GW_DISK_LOST);
}

static void anything_else_is_torn(void **state)
{
    uint64_t words[GW_DISK_BLOCK_WORDS], other[GW_DISK_BLOCK_WORDS];

    (void)state;
    for (size_t byte = 0; byte < GW_DISK_BLOCK_BYTES; byte += 97) {
        gw_disk_build(SEED, SLOT, 5, words);
        ((uint8_t *)words)[byte] ^= 1;
        assert_int_equal(judge(5, 5, words).kind, GW_DISK_TORN);
    }
    /* a sector of the next write */
    gw_disk_build(SEED, SLOT, 5, words);
    gw_disk_build(SEED, SLOT, 6, other);
    memcpy(words + 128, other + 128, 512);
    assert_int_equal(judge(6, 5, words).kind, GW_DISK_TORN);
    /* a write that was never begun; the block of another slot; another machine's */
    gw_disk_build(SEED, SLOT, 7, words);
    assert_int_equal(judge(6, 5, words).kind, GW_DISK_TORN);
    gw_disk_build(SEED, SLOT + 1, 5, words);
    assert_int_equal(judge(5, 5, words).kind, GW_DISK_TORN);
    gw_disk_build(SEED + 1, SLOT, 5, words);
    assert_int_equal(judge(5, 5, words).kind, GW_DISK_TORN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_acknowledged_write_is_good),
        cmocka_unit_test(an_older_write_is_a_lost_one),
        cmocka_unit_test(anything_else_is_torn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
