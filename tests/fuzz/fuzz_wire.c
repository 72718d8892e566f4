/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes from a peer, arriving in pieces: the first input byte says how large the pieces are. The
 * decoder must not read out of bounds, must not wait for more than a frame's limit, and what it
 * accepts must encode to a frame that it accepts again.
 */
#include <stdint.h>
#include <stdlib.h>

#include "shell/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const struct gw_wire_message *message)
{
    struct evbuffer *buffer = evbuffer_new();
    struct gw_wire_message again;

    /* What came in with spaces may come out longer than it was, with escapes: that is no bug. */
    if (gw_wire_encode(buffer, (enum gw_wire_type)message->type, message->body, NULL) == 0) {
        if (gw_wire_decode(buffer, &again, NULL) != 1 || again.type != message->type ||
            evbuffer_get_length(buffer) != 0)
            abort();
        json_decref(again.body);
    }
    evbuffer_free(buffer);
}

static int decode_all(struct evbuffer *in)
{
    struct gw_wire_message message;
    struct gw_error error;
    int r;

    while ((r = gw_wire_decode(in, &message, &error)) > 0) {
        round_trip(&message);
        json_decref(message.body);
    }
    if (r < 0 && (error.code == GW_OK || error.msg[0] == '\0'))
        abort();
    if (r == 0 && evbuffer_get_length(in) >= GW_WIRE_HEADER_BYTES + GW_WIRE_MAX_BODY)
        abort();
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct evbuffer *in = evbuffer_new();
    size_t piece = size ? (size_t)data[0] + 1 : 1;

    for (size_t at = 1; at < size; at += piece) {
        evbuffer_add(in, data + at, size - at < piece ? size - at : piece);
        if (decode_all(in) < 0)
            break;
    }
    evbuffer_free(in);
    return 0;
}
