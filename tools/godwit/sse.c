/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sse.h"

/* Keeps a NUL behind the bytes, which does not count. */
static int append(struct gw_sse_buffer *b, const char *bytes, size_t len)
{
    size_t need = b->len + len + 1;

    if (len > GW_SSE_EVENT_MAX || b->len + len > GW_SSE_EVENT_MAX)
        return 1;
    if (need > b->size) {
        size_t size = need < 512 ? 512 : need * 2;
        char *grown = realloc(b->bytes, size);

        if (!grown)
            return -ENOMEM;
        b->bytes = grown;
        b->size = size;
    }
    if (len)
        memcpy(b->bytes + b->len, bytes, len);
    b->len += len;
    b->bytes[b->len] = '\0';
    return 0;
}

static void dispatch(struct gw_sse *sse)
{
    if (sse->has_data)
        sse->sink->on_event(sse->sink, sse->name[0] ? sse->name : "message", sse->data.bytes,
                            sse->data.len);
    sse->data.len = 0;
    sse->has_data = false;
    sse->name[0] = '\0';
}

static int take_data(struct gw_sse *sse, const char *value, size_t len)
{
    int r = sse->has_data ? append(&sse->data, "\n", 1) : 0;

    if (r == 0)
        r = append(&sse->data, value, len);
    sse->has_data = true;
    return r;
}

static int take_line(struct gw_sse *sse)
{
    const char *line = sse->line.bytes;
    size_t len = sse->line.len, name_len;
    const char *value;

    if (len == 0) {
        dispatch(sse);
        return 0;
    }
    value = memchr(line, ':', len);
    name_len = value ? (size_t)(value - line) : len;
    value = value ? value + 1 : line + len;
    if (value < line + len && *value == ' ')
        value++;
    if (name_len == 4 && memcmp(line, "data", 4) == 0)
        return take_data(sse, value, (size_t)(line + len - value));
    if (name_len == 5 && memcmp(line, "event", 5) == 0)
        snprintf(sse->name, sizeof sse->name, "%s", value);
    return 0;
}

static int end_line(struct gw_sse *sse)
{
    int r = append(&sse->line, "", 0);

    if (r == 0)
        r = take_line(sse);
    sse->line.len = 0;
    return r;
}

int gw_sse_feed(struct gw_sse *sse, const char *bytes, size_t len)
{
    const char *end = bytes + len;
    int r = 0;

    while (r == 0 && bytes < end) {
        const char *stop = bytes;

        if (sse->after_cr && *bytes == '\n')
            stop = ++bytes;
        sse->after_cr = false;
        while (stop < end && *stop != '\n' && *stop != '\r')
            stop++;
        r = append(&sse->line, bytes, (size_t)(stop - bytes));
        if (r == 0 && stop < end) {
            sse->after_cr = *stop++ == '\r';
            r = end_line(sse);
        }
        bytes = stop;
    }
    return r;
}

void gw_sse_fini(struct gw_sse *sse)
{
    struct gw_sse_sink *sink = sse->sink;

    free(sse->line.bytes);
    free(sse->data.bytes);
    *sse = (struct gw_sse){.sink = sink};
}
