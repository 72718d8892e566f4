/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes from a QMP socket to whole JSON objects.
 *
 * QEMU sends one object after the other, with "\r\n" in between and, with pretty=on, newlines
 * inside as well; a read may end anywhere. So the end of an object is found by counting brackets
 * outside strings, and not by looking for line ends. Each byte is scanned once, however the
 * input is cut; then jansson parses the object.
 *
 * The bytes are untrusted (a guest may have taken over its QEMU): the size, the depth and the
 * number of values of one message are bounded before anything is built from it. The first error is
 * final, until gw_qmp_codec_reset().
 */
#ifndef GW_QMP_CODEC_H
#define GW_QMP_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>

#include "godwit/error.h"

/* What one message may be at most. A member that is 0 stands for the default. */
struct gw_qmp_limits {
    size_t message_bytes; /* default 16 MiB; QEMU's longest, query-qmp-schema, has 236 kB */
    unsigned depth;       /* nested brackets; default 1024, which is QEMU's own limit */
    unsigned n_values;    /* brackets opened plus commas: parsed they take up to some 200 bytes
                             each; default 512 Ki, query-qmp-schema has 18 Ki */
};

/* All members are private to codec.c. */
struct gw_qmp_codec {
    struct gw_qmp_limits limits;
    char *held;      /* the object begun so far, if it began in an earlier feed; scanned */
    size_t n_held;   /* bytes in held */
    size_t held_cap; /* bytes that held has room for */
    unsigned depth;  /* brackets open; 0: between two objects */
    unsigned n_values;
    bool in_string;
    bool escaped; /* in_string, and the last byte was a backslash that escapes the next */
    bool dead;
    struct gw_error error; /* set if dead */
};

/* limits may be NULL: all defaults. Allocates nothing. */
void gw_qmp_codec_init(struct gw_qmp_codec *codec, const struct gw_qmp_limits *limits);

/* Frees what the codec holds. Twice is fine. */
void gw_qmp_codec_fini(struct gw_qmp_codec *codec);

/* Forgets the object begun and the error: the next byte is the first of a new connection. */
void gw_qmp_codec_reset(struct gw_qmp_codec *codec);

/*
 * Takes bytes up to the end of the first object in them, or all of them.
 *
 * Returns 0, *usedp bytes were taken, and *objectp is an object (the caller's) if one ended there,
 * otherwise NULL; call again with the rest while *usedp < len. Returns -1 after malformed or
 * oversized input (GW_E_PROTOCOL) or when memory ran out (GW_E_SYSTEM): gw_qmp_codec_error() says
 * which, and every later feed returns -1 too.
 *
 * Between objects white space and the bytes 0xff (QMP's resynchronisation mark) are skipped.
 * Integers beyond int64 (QEMU prints uint64, e.g. a max-bandwidth of 2^64-1) become reals: read
 * numbers that may be so large with json_number_value(). A key that stands twice in an object is an
 * error.
 */
int gw_qmp_codec_feed(struct gw_qmp_codec *codec, const char *data, size_t len, size_t *usedp,
                      json_t **objectp);

/* Why the codec is dead; NULL if it is not. Lives in the codec. */
const struct gw_error *gw_qmp_codec_error(const struct gw_qmp_codec *codec);

#endif
