/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zstd.h>

#include "../conformance/codec.h"
#include "util/cleanup.h"

static void test_none(void **state)
{
    (void)state;
    codec_conformance(&gw_codec_none);
}

static void test_zstd(void **state)
{
    (void)state;
    codec_conformance(&gw_codec_zstd);
}

static void test_every_codec_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; gw_codecs[i]; i++) {
        assert_ptr_equal(gw_codec_by_id(gw_codecs[i]->id), gw_codecs[i]);
        assert_ptr_equal(gw_codec_by_name(gw_codecs[i]->name), gw_codecs[i]);
    }
    assert_ptr_equal(gw_codec_by_id(0), &gw_codec_none);
    assert_ptr_equal(gw_codec_by_id(1), &gw_codec_zstd);
    assert_null(gw_codec_by_id(255));
    assert_null(gw_codec_by_name("lzma"));
}

/* What another encoder might send: frames without a size, of a dictionary, or with a window of
 * gigabytes. */
static void test_zstd_refuses_foreign_frames(void **state)
{
    static const unsigned char skippable[] = {0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4};
    static const unsigned char legacy[] = {0x27, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0, 0};
    unsigned char text[4096], frame[8192], back[4096];
    struct gw_codec_out out = {.data = back, .room = sizeof back};
    struct gw_codec *decoder;
    ZSTD_CCtx *foreign = ZSTD_createCCtx();
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (unsigned char)(i * i >> 3);
    assert_int_equal(gw_codec_zstd.open(GW_CODEC_DECODE, sizeof back, &decoder), 0);
    ZSTD_CCtx_setParameter(foreign, ZSTD_c_contentSizeFlag, 0);
    n = ZSTD_compress2(foreign, frame, sizeof frame, text, sizeof text);
    assert_int_equal(gw_codec_zstd.decode(decoder, &(struct gw_codec_in){frame, n}, &out),
                     GW_CODEC_MALFORMED);
    assert_int_equal(gw_codec_zstd.decode(decoder,
                                          &(struct gw_codec_in){skippable, sizeof skippable}, &out),
                     GW_CODEC_MALFORMED);
    assert_int_equal(gw_codec_zstd.decode(decoder, &(struct gw_codec_in){legacy, sizeof legacy},
                                          &out),
                     GW_CODEC_MALFORMED);
    /* With its own checksum and a size it is a zstd frame like any other. */
    ZSTD_CCtx_setParameter(foreign, ZSTD_c_contentSizeFlag, 1);
    ZSTD_CCtx_setParameter(foreign, ZSTD_c_checksumFlag, 1);
    n = ZSTD_compress2(foreign, frame, sizeof frame, text, sizeof text);
    assert_int_equal(gw_codec_zstd.decode(decoder, &(struct gw_codec_in){frame, n}, &out), 0);
    assert_memory_equal(back, text, sizeof text);
    ZSTD_freeCCtx(foreign);
    gw_codec_zstd.close(decoder);
}

/* One direction's context is of no use for the other. */
static void test_zstd_knows_its_direction(void **state)
{
    unsigned char a[100] = {0}, b[100];
    struct gw_codec_out out = {.data = b, .room = sizeof b};
    struct gw_codec *codec;

    (void)state;
    assert_int_equal(gw_codec_zstd.open(GW_CODEC_DECODE, 100, &codec), 0);
    assert_true(gw_codec_zstd.encode(codec, 1, &(struct gw_codec_in){a, 100}, &out) < 0);
    gw_codec_zstd.close(codec);
    assert_int_equal(gw_codec_zstd.open(GW_CODEC_ENCODE, 100, &codec), 0);
    assert_true(gw_codec_zstd.decode(codec, &(struct gw_codec_in){a, 100}, &out) < 0);
    gw_codec_zstd.close(codec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_zstd),
        cmocka_unit_test(test_every_codec_is_found),
        cmocka_unit_test(test_zstd_refuses_foreign_frames),
        cmocka_unit_test(test_zstd_knows_its_direction),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
