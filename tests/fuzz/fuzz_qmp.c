/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QMP session on what pretends to be QEMU. The first byte of the input seeds the choices: how the
 * rest is cut into reads, when time passes, what the callbacks do. Its lowest bit picks small
 * limits.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qmp/session.h"
#include "util/cleanup.h"

enum { N_CALLS = 8, MAX_REPEATS = 32 };

struct world;

struct fuzz_call {
    struct gw_qmp_call call;
    struct world *world;
    bool expected; /* executed, and neither done nor cancelled nor forgotten */
};

struct world {
    struct gw_qmp_handler handler;
    struct gw_qmp_session *session; /* NULL after it was freed */
    struct fuzz_call calls[N_CALLS];
    uint64_t now_ns;
    uint32_t dice;
    int n_ready, n_closed, n_repeats;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t roll(struct world *w, uint32_t n)
{
    w->dice = w->dice * 1664525u + 1013904223u;
    return (w->dice >> 8) % n;
}

static void execute(struct world *w, unsigned i)
{
    struct fuzz_call *c = &w->calls[i];

    if (c->expected || !w->session || w->n_repeats++ > MAX_REPEATS)
        return;
    c->expected = true;
    c->call.oob = roll(w, 2);
    gw_qmp_session_execute(w->session, &c->call, "query-status", roll(w, 2) ? json_object() : NULL,
                           w->now_ns, roll(w, 2) ? 100 : 0);
}

static void forget_calls(struct world *w)
{
    for (unsigned i = 0; i < N_CALLS; i++) {
        assert(!gw_qmp_call_is_pending(&w->calls[i].call));
        w->calls[i].expected = false;
    }
}

static void free_session(struct world *w)
{
    gw_qmp_session_free(w->session);
    w->session = NULL;
    forget_calls(w);
}

/* Anything that a callback may do; mostly nothing. */
static void act(struct world *w)
{
    unsigned i = roll(w, N_CALLS);

    if (!w->session)
        return;
    switch (roll(w, 24)) {
    case 0:
    case 1:
    case 2: execute(w, i); break;
    case 3:
        gw_qmp_session_cancel_call(&w->calls[i].call);
        w->calls[i].expected = false;
        break;
    case 4: gw_qmp_session_expire(w->session, w->now_ns); break;
    case 5:
        if (roll(w, 4) == 0)
            gw_qmp_session_close(w->session, NULL);
        break;
    case 6:
        if (roll(w, 4) == 0)
            free_session(w);
        break;
    default: break;
    }
}

static void done(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct fuzz_call *c = gw_container_of(call, struct fuzz_call, call);

    assert(c->expected && c->world->session);
    assert((reply == NULL) == (error != NULL));
    assert(!error || (error->code != GW_OK && error->msg[0]));
    c->expected = false;
    act(c->world);
}

static void ready(struct gw_qmp_handler *handler, json_t *greeting)
{
    struct world *w = gw_container_of(handler, struct world, handler);

    w->n_ready++;
    assert(json_is_object(greeting) && w->session && w->n_ready == 1);
    act(w);
}

static void event(struct gw_qmp_handler *handler, const char *name, json_t *data,
                  int64_t emitted_realtime_us)
{
    struct world *w = gw_container_of(handler, struct world, handler);

    assert(name && w->session && w->n_closed == 0 && (!data || json_is_object(data)));
    assert(emitted_realtime_us >= -1);
    act(w);
}

static void closed(struct gw_qmp_handler *handler, const struct gw_error *error)
{
    struct world *w = gw_container_of(handler, struct world, handler);

    w->n_closed++;
    assert(error->code != GW_OK && w->session && w->n_closed == 1);
    act(w);
}

static void drain_output(struct world *w)
{
    const char *data;
    size_t len;

    gw_qmp_session_output(w->session, &data, &len);
    if (len > 0)
        gw_qmp_session_consume(w->session, 1 + roll(w, (uint32_t)len));
}

/* One read: from memory of its own, so that a look past its end is seen. */
static size_t feed_some(struct world *w, const uint8_t *data, size_t size)
{
    size_t n = roll(w, 4) ? 1 + roll(w, 40) : size;
    char *copy;

    if (n > size)
        n = size;
    copy = malloc(n);
    memcpy(copy, data, n);
    gw_qmp_session_feed(w->session, copy, n);
    free(copy);
    return n;
}

static void finish(struct world *w)
{
    if (!w->session)
        return;
    gw_qmp_session_close(w->session, NULL);
    assert(!w->session || w->n_closed == 1);
    /* What was executed after the end is still answered. */
    while (w->session && gw_qmp_session_deadline(w->session) != GW_QMP_NEVER)
        gw_qmp_session_expire(w->session, w->now_ns);
    for (unsigned i = 0; i < N_CALLS; i++)
        assert(!w->calls[i].expected);
    if (w->session)
        free_session(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_qmp_options options = {.handshake_timeout_ns = 1000};
    struct world w = {.handler = {ready, event, closed}};

    if (size < 1)
        return 0;
    w.dice = data[0];
    options.want_oob = data[0] & 2;
    if (data[0] & 1)
        options.limits = (struct gw_qmp_limits){.message_bytes = 256, .depth = 6, .n_values = 32};
    for (unsigned i = 0; i < N_CALLS; i++)
        w.calls[i] = (struct fuzz_call){.call.done = done, .world = &w};
    w.session = gw_qmp_session_new(&w.handler, &options);
    execute(&w, 0);
    execute(&w, 1);
    gw_qmp_session_connected(w.session, w.now_ns);
    for (size_t at = 1; at < size && w.session;) {
        at += feed_some(&w, data + at, size - at);
        w.now_ns += roll(&w, 20);
        if (w.session)
            drain_output(&w);
        if (w.session && roll(&w, 4) == 0)
            gw_qmp_session_expire(w.session, w.now_ns);
        if (w.session && roll(&w, 4) == 0)
            execute(&w, roll(&w, N_CALLS));
    }
    finish(&w);
    return 0;
}
