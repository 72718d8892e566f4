/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codecs: for implementers, and for the page pipeline that calls them.
 *
 * A codec turns one buffer into a shorter one and back. It knows nothing of pages, and every buffer
 * stands for itself: nothing is remembered from one call to the next, so buffers may travel on any
 * lane and be decoded in any order, by any thread.
 *
 * Contexts. What a codec needs to work is in a context (struct gw_codec), made by open() for one
 * direction and for buffers up to a size. One thread uses a context at a time; every worker has its
 * own. All memory is taken in open(): encode() and decode() allocate nothing, block on nothing, and
 * cannot fail for want of memory.
 *
 * Output is bounded by the caller: neither call ever writes beyond the room it was given.
 *
 * The input of decode() is hostile. Whatever the bytes, it returns within time proportional to
 * n_in + n_out, reads nothing beyond n_in, and writes nothing beyond n_out.
 */
#ifndef GODWIT_CODEC_H
#define GODWIT_CODEC_H

#include <stddef.h>
#include <stdint.h>

/* Positive outcomes. */
enum gw_codec_outcome {
    GW_CODEC_NO_ROOM = 1,   /* encode: the result is longer than the room for it */
    GW_CODEC_MALFORMED = 2, /* decode: not what encode() makes of n_out bytes */
};

enum gw_codec_direction { GW_CODEC_ENCODE, GW_CODEC_DECODE };

struct gw_codec_in {
    const void *data;
    size_t n; /* bytes; at least 1 */
};

struct gw_codec_out {
    void *data; /* does not overlap the input */
    size_t room;
    size_t n; /* bytes written; set by a call that returned 0, otherwise undefined */
};

struct gw_codec_ops;

/* First member of every implementation's own context. */
struct gw_codec {
    const struct gw_codec_ops *ops;
    size_t max_bytes; /* of what is not encoded: n_in of encode(), room of decode() */
};

struct gw_codec_ops {
    const char *name; /* as policies and records have it */
    uint8_t id;       /* as it stands on the wire: never changed, never used again */
    /* Legal levels, both inclusive; a higher one is slower and gains more. 0 means "no choice" and
     * is legal only where both ends are 0. */
    int level_min, level_max;

    /* A context for buffers up to max_bytes (1 to 2^30). 0 and *codecp; or -ENOMEM. */
    int (*open)(enum gw_codec_direction direction, size_t max_bytes, struct gw_codec **codecp);

    /*
     * 0: out->n bytes are written. GW_CODEC_NO_ROOM: they would be more than out->room, and what
     * out->data holds is undefined; with a room of in->n - 1 this is how a caller learns that
     * encoding does not pay. -EINVAL: the level is not legal, or in->n is 0 or above max_bytes.
     */
    int (*encode)(struct gw_codec *codec, int level, const struct gw_codec_in *in,
                  struct gw_codec_out *out);

    /*
     * 0: in was the encoding of exactly out->room bytes, which are now in out->data.
     * GW_CODEC_MALFORMED: it was not; out->data is undefined. -EINVAL: in->n is 0, or the room is
     * 0 or above max_bytes. A context is as good as new after any of them.
     */
    int (*decode)(struct gw_codec *codec, const struct gw_codec_in *in, struct gw_codec_out *out);

    /* NULL is fine. */
    void (*close)(struct gw_codec *codec);
};

/* Copies. Level 0 only. */
extern const struct gw_codec_ops gw_codec_none;

/* zstd frames (RFC 8878), one for each buffer. Levels -7 to 12; those above are slower than any
 * link. */
extern const struct gw_codec_ops gw_codec_zstd;

/* All codecs of this build, ending in NULL. */
extern const struct gw_codec_ops *const gw_codecs[];

/* The codec with this wire number, or NULL. */
const struct gw_codec_ops *gw_codec_by_id(uint8_t id);

/* The codec of this name, or NULL. */
const struct gw_codec_ops *gw_codec_by_name(const char *name);

#endif
