/* SPDX-License-Identifier: Apache-2.0 */
#include "godwit/codec.h"

#include <string.h>

const struct gw_codec_ops *const gw_codecs[] = {&gw_codec_none, &gw_codec_zstd, NULL};

const struct gw_codec_ops *gw_codec_by_id(uint8_t id)
{
    for (size_t i = 0; gw_codecs[i]; i++)
        if (gw_codecs[i]->id == id)
            return gw_codecs[i];
    return NULL;
}

const struct gw_codec_ops *gw_codec_by_name(const char *name)
{
    for (size_t i = 0; gw_codecs[i]; i++)
        if (strcmp(gw_codecs[i]->name, name) == 0)
            return gw_codecs[i];
    return NULL;
}
