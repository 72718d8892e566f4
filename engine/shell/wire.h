/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames that two nodes exchange, without the connection that carries them.
 *
 *     be32 magic 'GWCT' | be16 version | be16 type | be32 length | a JSON object of that length
 *
 * Everything decoded here comes from outside: each field is checked before the next one is read,
 * and no more than GW_WIRE_MAX_BODY bytes are ever waited for.
 */
#ifndef GW_SHELL_WIRE_H
#define GW_SHELL_WIRE_H

#include <event2/buffer.h>
#include <jansson.h>
#include <stdint.h>

#include "godwit/error.h"

#define GW_WIRE_MAGIC        0x47574354u /* "GWCT" */
#define GW_WIRE_VERSION      1
#define GW_WIRE_HEADER_BYTES 12
#define GW_WIRE_MAX_BODY     (1u << 20)

/* The numbers are the protocol: only ever added to. 0 is never used. */
enum gw_wire_type {
    GW_WIRE_HELLO = 1,
    GW_WIRE_PREPARE = 2,
    GW_WIRE_PREPARED = 3,
    GW_WIRE_SWITCHING = 4,
    GW_WIRE_LOST = 5,
    GW_WIRE_COMMIT = 6,
    GW_WIRE_RUNNING = 7,
    GW_WIRE_FINISHED = 8,
    GW_WIRE_ABORT = 9,
    GW_WIRE_ABORTED = 10,
    GW_WIRE_FAILED = 11,
    GW_WIRE_QUERY = 12,
    GW_WIRE_BUSY = 13,
    GW_WIRE_ASK = 14, /* what have you of this guest? The first and only message */
    GW_WIRE_TELL = 15,
    GW_WIRE_PING = 16, /* PING and PONG never leave the peer layer */
    GW_WIRE_PONG = 17,
    GW_WIRE_JOIN = 18, /* JOIN and JOINED only travel on a connection made with a token */
    GW_WIRE_JOINED = 19,
    GW_WIRE_NODES = 20,
    GW_WIRE_FRAMES = 21, /* what waited for the guest in the source's taps */
    GW_WIRE_HEARD = 22,  /* when the guest's first frame came out of its tap */
    GW_WIRE_VERIFY = 23, /* hash the guest's memory: verify.h */
    GW_WIRE_HASHES = 24,
    GW_WIRE_LOCKED = 25,   /* when its disks on RBD were locked by the destination */
    GW_WIRE_CATCH_UP = 26, /* say when your QEMU has read all that has come for it */
    GW_WIRE_CAUGHT_UP = 27,
    GW_WIRE_TYPE_MAX
};

/* One decoded frame. type may be one that this version does not know. */
struct gw_wire_message {
    uint16_t type;
    json_t *body; /* an object; owned by whoever called gw_wire_decode() */
};

/* "HELLO", "PREPARE", …; "unknown" for a number that is none. */
const char *gw_wire_type_name(unsigned type);

/*
 * Appends one frame to out. body (borrowed) is a JSON object, or NULL for an empty one.
 * 0; or -1 with *error and out unchanged: GW_E_USAGE for what is no object, GW_E_PROTOCOL for a
 * body longer than GW_WIRE_MAX_BODY, GW_E_SYSTEM when out of memory.
 */
int gw_wire_encode(struct evbuffer *out, enum gw_wire_type type, const json_t *body,
                   struct gw_error *error);

/*
 * Takes the first frame off in. 1: *message is filled, and the caller json_decref()s its body.
 * 0: not all of it is there yet. -1 with *error: the stream is of no further use; GW_E_UNSUPPORTED
 * for another version of the protocol, GW_E_PROTOCOL for everything else that is malformed.
 */
int gw_wire_decode(struct evbuffer *in, struct gw_wire_message *message, struct gw_error *error);

#endif
