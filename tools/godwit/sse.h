/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server-sent events, parsed as they arrive: any split of the bytes gives the same events.
 *
 * After the HTML standard: lines end in LF, CR or CRLF; "event" and "data" count, "data" lines are
 * joined with LF, an empty line dispatches, comments and other fields are passed over, an event
 * without data is none. A leading byte order mark is not expected from our daemon and not removed.
 */
#ifndef GW_GODWIT_SSE_H
#define GW_GODWIT_SSE_H

#include <stdbool.h>
#include <stddef.h>

enum {
    GW_SSE_EVENT_MAX = 1024 * 1024, /* bytes of one line, and of one event's data */
    GW_SSE_NAME_MAX = 64,
};

/* Who gets the events. Embed it and use gw_container_of. */
struct gw_sse_sink {
    /* name is "message" where the stream gave none; data is NUL-terminated besides. Both are
     * borrowed. */
    void (*on_event)(struct gw_sse_sink *sink, const char *name, const char *data, size_t len);
};

struct gw_sse_buffer {
    char *bytes;
    size_t len;
    size_t size;
};

/* All zero and a sink is a parser at its start. */
struct gw_sse {
    struct gw_sse_sink *sink; /* borrowed */
    struct gw_sse_buffer line;
    struct gw_sse_buffer data;
    char name[GW_SSE_NAME_MAX];
    bool has_data;
    bool after_cr; /* an LF now belongs to the line end before */
};

/* Takes len bytes and calls the sink for every event that they complete. 0, -ENOMEM, or 1: a line
 * or an event was longer than GW_SSE_EVENT_MAX and the stream cannot be trusted any further. */
int gw_sse_feed(struct gw_sse *sse, const char *bytes, size_t len);

/* Frees the buffers and returns to the start, with the same sink. */
void gw_sse_fini(struct gw_sse *sse);

#endif
