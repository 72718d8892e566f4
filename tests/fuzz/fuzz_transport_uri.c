/* SPDX-License-Identifier: Apache-2.0 */
/* Transport URIs: whatever the text, a transport, or an error that says why. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "godwit/transport.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_transport_env env = {.mem = gw_mem_hub_new()};
    struct gw_transport *transport = NULL;
    struct gw_error error = {0};
    char *text = malloc(size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    if (gw_transport_open(text, &env, &transport, &error) < 0) {
        if (error.code == GW_OK || error.msg[0] == '\0' || transport)
            abort();
    } else if (transport->n_lanes < 1 || transport->n_lanes > GW_LANES_MAX) {
        abort();
    }
    gw_transport_free(transport);
    gw_mem_hub_free(env.mem);
    free(text);
    return 0;
}
