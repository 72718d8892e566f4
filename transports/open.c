/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transports/mem/mem.h"
#include "transports/tcp/tcp.h"
#include "transports/uri.h"
#include "transports/wrap/fault.h"
#include "transports/wrap/rate.h"
#include "transports/wrap/trace.h"
#include "util/cleanup.h"

static const struct {
    const char *name;
    int (*make)(struct gw_uri *uri, const struct gw_transport_env *env,
                struct gw_transport **transportp, struct gw_error *error);
} transports[] = {
    {"tcp", gw_tcp_new},
    {"mem", gw_mem_new},
};

static const struct {
    const char *name;
    int (*make)(struct gw_uri *uri, struct gw_transport *next, struct gw_transport **transportp,
                struct gw_error *error);
} wrappers[] = {
    {"fault", gw_fault_new},
    {"rate", gw_rate_new},
    {"trace", gw_trace_new},
};

static int make_base(const char *name, struct gw_uri *uri, const struct gw_transport_env *env,
                     struct gw_transport **transportp, struct gw_error *error)
{
    for (unsigned i = 0; i < GW_ARRAY_SIZE(transports); i++)
        if (strcmp(transports[i].name, name) == 0)
            return transports[i].make(uri, env, transportp, error);
    gw_error_set(error, GW_E_UNSUPPORTED, "there is no transport \"%s\"", name);
    return gw_error_hint(error, "this build has tcp and mem");
}

/* Puts a wrapper around *transportp. */
static int wrap(const char *name, struct gw_uri *uri, struct gw_transport **transportp,
                struct gw_error *error)
{
    for (unsigned i = 0; i < GW_ARRAY_SIZE(wrappers); i++)
        if (strcmp(wrappers[i].name, name) == 0)
            return wrappers[i].make(uri, *transportp, transportp, error);
    gw_error_set(error, GW_E_UNSUPPORTED, "there is no wrapper \"%s\" for transports", name);
    return gw_error_hint(error, "this build has fault, rate and trace");
}

static int build(struct gw_uri *uri, const struct gw_transport_env *env,
                 struct gw_transport **transportp, struct gw_error *error)
{
    uint64_t n_lanes = 1;
    const struct gw_uri_number number = {"lanes", GW_URI_COUNT, 1, GW_LANES_MAX, &n_lanes};
    unsigned i = uri->n_layers - 1;

    if (gw_uri_numbers(uri, &number, 1, error) < 0 ||
        make_base(uri->layers[i], uri, env, transportp, error) < 0)
        return -1;
    while (i-- > 0)
        if (wrap(uri->layers[i], uri, transportp, error) < 0)
            return -1;
    (*transportp)->n_lanes = (unsigned)n_lanes;
    return gw_uri_all_used(uri, error);
}

int gw_transport_open(const char *text, const struct gw_transport_env *env,
                      struct gw_transport **transportp, struct gw_error *error)
{
    gw_autofree struct gw_uri *uri = malloc(sizeof *uri);
    struct gw_transport *transport = NULL;

    if (!uri)
        return gw_error_set_sys(error, ENOMEM, "open a transport");
    if (gw_uri_parse(text, uri, error) < 0)
        return -1;
    if (build(uri, env, &transport, error) < 0) {
        gw_transport_free(transport);
        return -1;
    }
    *transportp = transport;
    return 0;
}

void gw_transport_free(struct gw_transport *transport)
{
    if (transport)
        transport->ops->free(transport);
}

void gw_listener_free(struct gw_listener *listener)
{
    if (listener)
        listener->ops->free(listener);
}

void gw_lane_free(struct gw_lane *lane)
{
    if (lane)
        lane->ops->free(lane);
}

const char *gw_lane_state_name(enum gw_lane_state state)
{
    static const char *const names[] = {"opening", "open", "ended", "failed"};

    return (unsigned)state < GW_ARRAY_SIZE(names) ? names[state] : "unknown";
}

const char *gw_lane_tls_name(enum gw_lane_tls tls)
{
    static const char *const names[] = {"plain", "tls", "ktls", "ktls-send"};

    return (unsigned)tls < GW_ARRAY_SIZE(names) ? names[tls] : "unknown";
}

const char *gw_trace_kind_name(enum gw_trace_kind kind)
{
    static const char *const names[] = {"open",   "submit", "moved", "done",
                                        "finish", "abort",  "failed"};

    return (unsigned)kind < GW_ARRAY_SIZE(names) ? names[kind] : "unknown";
}
