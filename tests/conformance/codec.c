/* SPDX-License-Identifier: Apache-2.0 */
#include "codec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "util/cleanup.h"

#define MAX   ((size_t)600000)
#define GUARD 64

static const struct gw_codec_ops *ops;
static struct gw_codec *encoder, *decoder;
static unsigned char *plain, *coded, *again;
static uint64_t dice = 4711;

static uint32_t roll(void)
{
    dice = dice * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(dice >> 33);
}

static void fill_zero(size_t n)
{
    memset(plain, 0, n);
}

static void fill_random(size_t n)
{
    for (size_t i = 0; i < n; i++)
        plain[i] = (unsigned char)roll();
}

static void fill_text(size_t n)
{
    static const char *const words[] = {"lane ", "page ",   "round ", "of ",
                                        "the ",  "guest\n", "is "};

    for (size_t i = 0, word = 0, at = 0; i < n; i++) {
        if (words[word][at] == '\0') {
            word = roll() % GW_ARRAY_SIZE(words);
            at = 0;
        }
        plain[i] = (unsigned char)words[word][at++];
    }
}

/* Half of it words that point somewhere, half of it noise. */
static void fill_heap(size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word =
            i / 64 % 2 ? (uint64_t)roll() << 32 | roll() : UINT64_C(0x7f3a00000000) + roll() % 4096;

        memcpy(plain + i, &word, n - i < 8 ? n - i : 8);
    }
}

static void fill_one_byte(size_t n)
{
    memset(plain, 0xa5, n);
}

static const struct {
    const char *name;
    void (*fill)(size_t n);
} contents[] = {
    {"zeros", fill_zero}, {"noise", fill_random},      {"text", fill_text},
    {"heap", fill_heap},  {"one byte", fill_one_byte},
};

static const size_t sizes[] = {1,     2,      17,     4095,   4096,   4097,   16384,
                               16385, 131072, 131073, 262144, 262145, 524288, MAX};

static void set_guard(unsigned char *buffer, size_t at)
{
    memset(buffer + at, 0x5a, GUARD);
}

static void check_guard(const unsigned char *buffer, size_t at)
{
    for (size_t i = 0; i < GUARD; i++)
        assert_int_equal(buffer[at + i], 0x5a);
}

static int encode(int level, size_t n, size_t room, size_t *n_codedp)
{
    struct gw_codec_out out = {.data = coded, .room = room};
    int r;

    set_guard(coded, room);
    r = ops->encode(encoder, level, &(struct gw_codec_in){plain, n}, &out);
    check_guard(coded, room);
    if (r == 0) {
        assert_in_range(out.n, 1, room);
        *n_codedp = out.n;
    }
    return r;
}

static int decode(size_t n_coded, size_t n)
{
    struct gw_codec_out out = {.data = again, .room = n};
    int r;

    set_guard(again, n);
    r = ops->decode(decoder, &(struct gw_codec_in){coded, n_coded}, &out);
    check_guard(again, n);
    if (r == 0)
        assert_int_equal(out.n, n);
    return r;
}

static void round_trip(int level, size_t n)
{
    size_t n_coded = 0;

    assert_int_equal(encode(level, n, 2 * MAX, &n_coded), 0);
    memset(again, 0, n);
    assert_int_equal(decode(n_coded, n), 0);
    assert_memory_equal(again, plain, n);
}

/* Every level on every size: a context has memory enough for all of them, in any order. */
static void it_gives_back_what_it_got(void)
{
    for (size_t c = 0; c < GW_ARRAY_SIZE(contents); c++)
        for (size_t s = 0; s < GW_ARRAY_SIZE(sizes); s++) {
            contents[c].fill(sizes[s]);
            for (int level = ops->level_min; level <= ops->level_max; level++)
                if (level != 0 || ops->level_max == 0)
                    if (level <= 6 || s % 4 == 1 || c == 3) /* the rest of the high ones is slow */
                        round_trip(level, sizes[s]);
        }
}

static void it_keeps_within_its_room(void)
{
    size_t n_coded = 0, n = 0;

    for (size_t c = 0; c < GW_ARRAY_SIZE(contents); c++) {
        contents[c].fill(20000);
        assert_int_equal(encode(ops->level_max, 20000, 2 * MAX, &n_coded), 0);
        assert_int_equal(encode(ops->level_max, 20000, n_coded - 1, &n), GW_CODEC_NO_ROOM);
        assert_int_equal(encode(ops->level_max, 20000, n_coded / 2, &n), GW_CODEC_NO_ROOM);
        assert_int_equal(encode(ops->level_max, 20000, 0, &n), GW_CODEC_NO_ROOM);
        assert_int_equal(encode(ops->level_max, 20000, 2 * MAX, &n), 0);
        assert_int_equal(n, n_coded);
    }
    fill_random(20000);
    assert_int_equal(encode(ops->level_min, 20000, 19999, &n), GW_CODEC_NO_ROOM);
}

static void it_refuses_bad_arguments(void)
{
    size_t n = 0;

    fill_text(100);
    assert_int_equal(encode(ops->level_min - 1, 100, MAX, &n), -EINVAL);
    assert_int_equal(encode(ops->level_max + 1, 100, MAX, &n), -EINVAL);
    assert_int_equal(encode(ops->level_max, 0, MAX, &n), -EINVAL);
    assert_int_equal(encode(ops->level_max, MAX + 1, 2 * MAX, &n), -EINVAL);
    if (ops->level_max != 0)
        assert_int_equal(encode(0, 100, MAX, &n), -EINVAL);
    assert_int_equal(decode(0, 100), -EINVAL);
    assert_int_equal(decode(100, 0), -EINVAL);
    assert_int_equal(decode(100, MAX + 1), -EINVAL);
}

/* Another length than the one that was encoded is malformed, on either side. */
static void it_refuses_another_length(void)
{
    size_t n_coded = 0;

    fill_text(5000);
    assert_int_equal(encode(ops->level_max, 5000, MAX, &n_coded), 0);
    for (size_t n = 1; n < n_coded; n += n < 64 ? 1 : 37)
        assert_int_equal(decode(n, 5000), GW_CODEC_MALFORMED);
    assert_int_equal(decode(n_coded, 4999), GW_CODEC_MALFORMED);
    assert_int_equal(decode(n_coded, 5001), GW_CODEC_MALFORMED);
    assert_int_equal(decode(n_coded, 1), GW_CODEC_MALFORMED);
    memset(coded + n_coded, 0, 8);
    assert_int_equal(decode(n_coded + 8, 5000), GW_CODEC_MALFORMED);
    memcpy(coded + n_coded, coded, n_coded); /* two of them */
    assert_int_equal(decode(2 * n_coded, 5000), GW_CODEC_MALFORMED);
    assert_int_equal(decode(n_coded, 5000), 0);
    assert_memory_equal(again, plain, 5000);
}

/* Damaged bytes may decode to something else, but never beyond the room, and do not spoil the
 * context for the next buffer. */
static void it_survives_damage(void)
{
    size_t n_coded = 0;

    for (unsigned i = 0; i < 3000; i++) {
        size_t n = 1 + roll() % 9000;

        contents[i % GW_ARRAY_SIZE(contents)].fill(n);
        assert_int_equal(encode(ops->level_max > 3 ? 3 : ops->level_max, n, 2 * MAX, &n_coded), 0);
        for (unsigned hits = 1 + roll() % 4; hits; hits--)
            coded[roll() % n_coded] = (unsigned char)roll();
        decode(n_coded, n);
        for (size_t k = 0; k < n_coded; k++)
            coded[k] = (unsigned char)roll();
        if (ops != &gw_codec_none)
            assert_int_equal(decode(n_coded, n), GW_CODEC_MALFORMED);
        round_trip(ops->level_min, n);
    }
}

void codec_conformance(const struct gw_codec_ops *tested)
{
    ops = tested;
    assert_int_equal(ops->open(GW_CODEC_ENCODE, MAX, &encoder), 0);
    assert_int_equal(ops->open(GW_CODEC_DECODE, MAX, &decoder), 0);
    assert_ptr_equal(encoder->ops, ops);
    plain = malloc(MAX + 1 + GUARD);
    again = malloc(MAX + 1 + GUARD);
    coded = malloc(2 * MAX + GUARD);
    it_gives_back_what_it_got();
    it_keeps_within_its_room();
    it_refuses_bad_arguments();
    it_refuses_another_length();
    it_survives_damage();
    ops->close(encoder);
    ops->close(decoder);
    ops->close(NULL);
    free(plain);
    free(again);
    free(coded);
}
