/* SPDX-License-Identifier: Apache-2.0 */
#include "transports/wrap/trace.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "transports/wrap/filter.h"
#include "util/cleanup.h"

struct trace {
    struct gw_filter filter;
    pthread_mutex_t lock;
    struct gw_trace_event *ring;
    uint64_t size, n_written, n_read; /* counted on for ever */
};

static struct trace *trace_of(struct gw_filter *filter)
{
    return gw_container_of(filter, struct trace, filter);
}

static void trace_event(struct gw_filter_lane *lane, enum gw_trace_kind kind, enum gw_direction way,
                        uint64_t n_bytes, int result)
{
    struct trace *trace = trace_of(lane->filter);

    pthread_mutex_lock(&trace->lock);
    trace->ring[trace->n_written++ % trace->size] = (struct gw_trace_event){
        .at_ns = lane->now_ns,
        .lane = lane->hello.lane,
        .accepted = lane->accepted,
        .kind = kind,
        .direction = way,
        .n_bytes = n_bytes,
        .result = result,
    };
    pthread_mutex_unlock(&trace->lock);
}

static int trace_read(struct gw_transport *transport, struct gw_trace_event *events, unsigned max,
                      uint64_t *n_lostp)
{
    struct trace *trace = trace_of(gw_filter_of(transport));
    unsigned n = 0;

    *n_lostp = 0;
    pthread_mutex_lock(&trace->lock);
    if (trace->n_written - trace->n_read > trace->size) {
        *n_lostp = trace->n_written - trace->n_read - trace->size;
        trace->n_read += *n_lostp;
    }
    while (n < max && n < INT32_MAX && trace->n_read < trace->n_written)
        events[n++] = trace->ring[trace->n_read++ % trace->size];
    pthread_mutex_unlock(&trace->lock);
    return (int)n;
}

static void trace_fini(struct gw_transport *transport)
{
    struct trace *trace = trace_of(gw_filter_of(transport));

    pthread_mutex_destroy(&trace->lock);
    free(trace->ring);
}

static const struct gw_filter_ops trace_ops = {
    .name = "trace",
    .lane_bytes = sizeof(struct gw_filter_lane),
    .event = trace_event,
    .read_trace = trace_read,
    .fini = trace_fini,
};

int gw_trace_new(struct gw_uri *uri, struct gw_transport *next, struct gw_transport **transportp,
                 struct gw_error *error)
{
    uint64_t size = 4096;
    const struct gw_uri_number number = {"events", GW_URI_COUNT, 1, 1 << 24, &size};
    struct gw_trace_event *ring;
    struct gw_filter *filter;

    if (gw_uri_numbers(uri, &number, 1, error) < 0)
        return -1;
    ring = calloc(size, sizeof *ring);
    filter = ring ? gw_filter_new(&trace_ops, sizeof(struct trace), next) : NULL;
    if (!filter) {
        free(ring);
        return gw_error_set_sys(error, ENOMEM, "open a transport");
    }
    pthread_mutex_init(&trace_of(filter)->lock, NULL);
    trace_of(filter)->ring = ring;
    trace_of(filter)->size = size;
    *transportp = &filter->base;
    return 0;
}
