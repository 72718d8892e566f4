/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts are zstd's static ones: they live in a workspace that was taken in open(), and zstd then
 * has no way to allocate. That part of zstd's interface is not frozen (ZSTD_STATIC_LINKING_ONLY),
 * but Debian's shared library exports it. Of a decoder's input a static context also refuses the
 * formats from before zstd 0.8.
 */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>

#include <errno.h>
#include <stdlib.h>

#include "godwit/codec.h"
#include "util/cleanup.h"

enum { LEVEL_MIN = -7, LEVEL_MAX = 12 };

struct zstd {
    struct gw_codec base;
    ZSTD_CCtx *encoder; /* inside workspace, or NULL */
    ZSTD_DCtx *decoder; /* inside workspace, or NULL */
    _Alignas(64) unsigned char workspace[];
};

/* zstd picks its tables by the size of the input in these steps (zstd 1.5, clevels.h), and a
 * smaller input does not always need less memory. */
static size_t encoder_bytes(size_t max_bytes)
{
    static const size_t steps[] = {16 << 10, 128 << 10, 256 << 10};
    size_t most = 0;

    for (int level = LEVEL_MIN; level <= LEVEL_MAX; level++)
        for (size_t i = 0; i <= GW_ARRAY_SIZE(steps); i++) {
            size_t n = i < GW_ARRAY_SIZE(steps) && steps[i] < max_bytes ? steps[i] : max_bytes;
            size_t need = ZSTD_estimateCCtxSize_usingCParams(ZSTD_getCParams(level, n, 0));

            if (!ZSTD_isError(need) && need > most)
                most = need;
        }
    return most;
}

static int zstd_open(enum gw_codec_direction direction, size_t max_bytes, struct gw_codec **codecp)
{
    size_t bytes =
        direction == GW_CODEC_ENCODE ? encoder_bytes(max_bytes) : ZSTD_estimateDCtxSize();
    size_t whole = (sizeof(struct zstd) + bytes + 63) / 64 * 64;
    gw_autofree struct zstd *z = aligned_alloc(64, whole);

    if (!z)
        return -ENOMEM;
    *z = (struct zstd){.base = {.ops = &gw_codec_zstd, .max_bytes = max_bytes}};
    if (direction == GW_CODEC_ENCODE)
        z->encoder = ZSTD_initStaticCCtx(z->workspace, bytes);
    else
        z->decoder = ZSTD_initStaticDCtx(z->workspace, bytes);
    if (!z->encoder && !z->decoder)
        return -ENOMEM;
    *codecp = &gw_steal_ptr(&z)->base;
    return 0;
}

static int zstd_encode(struct gw_codec *codec, int level, const struct gw_codec_in *in,
                       struct gw_codec_out *out)
{
    struct zstd *z = gw_container_of(codec, struct zstd, base);
    size_t n;

    if (!z->encoder || level < LEVEL_MIN || level > LEVEL_MAX || level == 0 || in->n == 0 ||
        in->n > codec->max_bytes)
        return -EINVAL;
    n = ZSTD_compressCCtx(z->encoder, out->data, out->room, in->data, in->n, level);
    if (ZSTD_isError(n))
        return ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall ? GW_CODEC_NO_ROOM : -EINVAL;
    out->n = n;
    return 0;
}

static int zstd_decode(struct gw_codec *codec, const struct gw_codec_in *in,
                       struct gw_codec_out *out)
{
    struct zstd *z = gw_container_of(codec, struct zstd, base);
    size_t n;

    if (!z->decoder || in->n == 0 || out->room == 0 || out->room > codec->max_bytes)
        return -EINVAL;
    /* Our encoder always writes the size: what is no frame of ours is refused unseen. */
    if (ZSTD_getFrameContentSize(in->data, in->n) != out->room ||
        ZSTD_findFrameCompressedSize(in->data, in->n) != in->n)
        return GW_CODEC_MALFORMED;
    n = ZSTD_decompressDCtx(z->decoder, out->data, out->room, in->data, in->n);
    if (n != out->room)
        return GW_CODEC_MALFORMED; /* errors are huge numbers */
    out->n = n;
    return 0;
}

static void zstd_close(struct gw_codec *codec)
{
    if (codec)
        free(gw_container_of(codec, struct zstd, base));
}

const struct gw_codec_ops gw_codec_zstd = {
    .name = "zstd",
    .id = 1,
    .level_min = LEVEL_MIN,
    .level_max = LEVEL_MAX,
    .open = zstd_open,
    .encode = zstd_encode,
    .decode = zstd_decode,
    .close = zstd_close,
};
