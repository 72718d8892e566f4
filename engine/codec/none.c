/* SPDX-License-Identifier: Apache-2.0 */
#include "godwit/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int none_open(enum gw_codec_direction direction, size_t max_bytes, struct gw_codec **codecp)
{
    struct gw_codec *codec = malloc(sizeof *codec);

    (void)direction;
    if (!codec)
        return -ENOMEM;
    *codec = (struct gw_codec){.ops = &gw_codec_none, .max_bytes = max_bytes};
    *codecp = codec;
    return 0;
}

static int none_encode(struct gw_codec *codec, int level, const struct gw_codec_in *in,
                       struct gw_codec_out *out)
{
    if (level != 0 || in->n == 0 || in->n > codec->max_bytes)
        return -EINVAL;
    if (in->n > out->room)
        return GW_CODEC_NO_ROOM;
    memcpy(out->data, in->data, in->n);
    out->n = in->n;
    return 0;
}

static int none_decode(struct gw_codec *codec, const struct gw_codec_in *in,
                       struct gw_codec_out *out)
{
    if (in->n == 0 || out->room == 0 || out->room > codec->max_bytes)
        return -EINVAL;
    if (in->n != out->room)
        return GW_CODEC_MALFORMED;
    memcpy(out->data, in->data, in->n);
    out->n = in->n;
    return 0;
}

static void none_close(struct gw_codec *codec)
{
    free(codec);
}

const struct gw_codec_ops gw_codec_none = {
    .name = "none",
    .id = 0,
    .level_min = 0,
    .level_max = 0,
    .open = none_open,
    .encode = none_encode,
    .decode = none_decode,
    .close = none_close,
};
