/* SPDX-License-Identifier: Apache-2.0 */
#include "host/route.h"

/* What half of the processors encode in a second, the other half being the guest's. */
static uint64_t encoded(const struct gw_route_inputs *in)
{
    uint64_t n_workers = in->n_processors > 1 ? in->n_processors / 2 : 1, bytes;

    return __builtin_mul_overflow(in->codec_bytes_per_s, n_workers, &bytes) ? UINT64_MAX : bytes;
}

bool gw_route_is_carrier(const struct gw_route_inputs *in, const char **becausep)
{
    uint64_t link = in->link_bytes_per_s;
    bool carrier = false;

    if (in->limit_bytes_per_s && (!link || in->limit_bytes_per_s < link))
        link = in->limit_bytes_per_s;
    if (!in->multifd) {
        *becausep = "the carrier needs QEMU's multifd";
    } else if (in->all_pages) {
        *becausep = "all memory is verified, and of a guest that says what is free QEMU sends all "
                    "only without multifd";
    } else if (!link) {
        *becausep = "how fast the link is could not be measured";
    } else if (link >= GW_ROUTE_FAST_BYTES) {
        *becausep = "the link is so fast that fewer bytes save no time";
    } else if (encoded(in) < link) {
        *becausep = "half of the processors encode pages more slowly than the link takes them";
    } else {
        carrier = true;
        *becausep = "the link is slower than pages are encoded: fewer bytes are less time";
    }
    return carrier;
}
