/* SPDX-License-Identifier: Apache-2.0 */
/* What a stranger says when a lane comes in, and what one that we connect to answers. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "transports/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_hello(const uint8_t bytes[GW_HELLO_BYTES])
{
    static struct gw_guests guests;
    struct gw_lane_expected expected = {.n_lanes = 4, .peer = "n1"};
    struct gw_error error = {0};
    struct gw_lane_hello hello;
    uint8_t again[GW_HELLO_BYTES];

    if (gw_hello_decode(bytes, &hello, &error) < 0) {
        if (error.code != GW_E_PROTOCOL || error.msg[0] == '\0')
            abort();
        return;
    }
    gw_hello_encode(&hello, again);
    if (!gw_hello_valid(&hello) || memcmp(bytes, again, sizeof again) != 0)
        abort();
    memset(&guests, 0, sizeof guests);
    if (gw_guests_admit(&guests, &hello, "", &error) == GW_HELLO_WELCOME)
        abort();                          /* nobody is expected */
    gw_guests_expect(&guests, &expected); /* of all zeros */
    if (gw_guests_admit(&guests, &hello, "n1", &error) == GW_HELLO_WELCOME &&
        (hello.n_lanes != 4 || gw_guests_admit(&guests, &hello, "n1", &error) == GW_HELLO_WELCOME))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_error error = {0};

    if (size >= GW_HELLO_BYTES)
        check_hello(data);
    if (size >= GW_HELLO_ANSWER_BYTES && gw_hello_decode_answer(data, &error) < 0 &&
        (error.code == GW_OK || error.msg[0] == '\0'))
        abort();
    return 0;
}
