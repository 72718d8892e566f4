/* SPDX-License-Identifier: Apache-2.0 */
/* Policy files: whatever the text, a policy within its bounds or an error that says why. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_policy policy;
    struct gw_error e = {0};

    if (gw_policy_parse((const char *)data, size, "fuzz.yaml", &policy, &e) < 0) {
        if (e.code == GW_OK || !strstr(e.msg, "fuzz.yaml"))
            abort();
        return 0;
    }
    if (!policy.name[0] || policy.channels > GW_POLICY_CHANNELS_MAX || policy.blackout_ms < 1 ||
        policy.zstd_level < 1)
        abort();
    return 0;
}
