/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The happy path: QEMU greets, we answer qmp_capabilities, QEMU agrees, the commands that waited
 * go out, replies and events come in.
 *
 * What can go wrong ends in gw_qmp_session_close(), once: bytes that are not QMP, messages out of
 * order, a handshake that takes too long, the owner's own close. A command that takes too long ends
 * alone; its late reply has an id that nobody knows any more and is dropped.
 *
 * Invariants. The list of calls is in ascending order of ids, and a call leaves it before its done
 * runs; so callbacks may change the list at will, and a loop that ends calls looks from the front
 * again after each. Such a loop only touches calls with ids below the next one at its start: a done
 * that executes again cannot keep it going for ever.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qmp/session.h"

#define DEFAULT_HANDSHAKE_TIMEOUT_NS UINT64_C(5000000000)
#define NS_PER_MS                    UINT64_C(1000000)

/* An output buffer that grew beyond this is given back when it has been written. */
#define KEEP_BYTES ((size_t)16 << 10)

enum state { STATE_CONNECTING, STATE_GREETING, STATE_NEGOTIATING, STATE_READY, STATE_CLOSED };

struct output {
    char *data;
    size_t start, end; /* data[start..end) is still to be written */
    size_t cap;
};

struct gw_qmp_session {
    struct gw_qmp_handler *handler;
    struct gw_qmp_options options;
    enum state state;
    struct gw_qmp_codec codec;
    struct output output;
    TAILQ_HEAD(call_list, gw_qmp_call) calls;
    int64_t next_id;
    int64_t handshake_id;
    uint64_t handshake_deadline_ns;
    json_t *greeting;    /* from the greeting to ready */
    bool oob;            /* enabled on this connection */
    struct gw_error why; /* if closed */
    unsigned n_entered;  /* callbacks may be on the stack: do not free yet */
    bool feeding;
    bool doomed; /* freed while entered */
};

/* ---- output ---- */

static int output_reserve(struct output *out, size_t len)
{
    size_t used = out->end - out->start;
    size_t cap = out->cap ? out->cap : 1024;
    char *grown;

    if (out->start > 0) {
        memmove(out->data, out->data + out->start, used);
        out->start = 0;
        out->end = used;
    }
    while (cap - used < len)
        cap *= 2;
    if (cap == out->cap)
        return 0;
    grown = realloc(out->data, cap);
    if (!grown)
        return -ENOMEM;
    out->data = grown;
    out->cap = cap;
    return 0;
}

static void output_drop(struct output *out)
{
    free(out->data);
    *out = (struct output){0};
}

/* All of the message goes to the output, or nothing. */
static int send_message(struct gw_qmp_session *s, json_t *message)
{
    size_t len = json_dumpb(message, NULL, 0, JSON_COMPACT);

    if (len == 0 || output_reserve(&s->output, len + 1))
        return -ENOMEM;
    if (json_dumpb(message, s->output.data + s->output.end, len, JSON_COMPACT) != len)
        return -ENOMEM;
    s->output.data[s->output.end + len] = '\n';
    s->output.end += len + 1;
    return 0;
}

/* ---- life ---- */

struct gw_qmp_session *gw_qmp_session_new(struct gw_qmp_handler *handler,
                                          const struct gw_qmp_options *options)
{
    struct gw_qmp_session *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->handler = handler;
    if (options)
        s->options = *options;
    if (!s->options.handshake_timeout_ns)
        s->options.handshake_timeout_ns = DEFAULT_HANDSHAKE_TIMEOUT_NS;
    s->handshake_deadline_ns = GW_QMP_NEVER;
    s->next_id = 1;
    TAILQ_INIT(&s->calls);
    gw_qmp_codec_init(&s->codec, &s->options.limits);
    return s;
}

static void drop_connection(struct gw_qmp_session *s)
{
    gw_qmp_codec_fini(&s->codec);
    output_drop(&s->output);
    json_decref(s->greeting);
    s->greeting = NULL;
    s->handshake_deadline_ns = GW_QMP_NEVER;
}

static void enter(struct gw_qmp_session *s)
{
    s->n_entered++;
}

static void leave(struct gw_qmp_session *s)
{
    if (--s->n_entered == 0 && s->doomed)
        free(s);
}

void gw_qmp_session_free(struct gw_qmp_session *s)
{
    if (!s)
        return;
    assert(!s->doomed);
    enter(s);
    while (!TAILQ_EMPTY(&s->calls))
        gw_qmp_session_cancel_call(TAILQ_FIRST(&s->calls));
    drop_connection(s);
    s->state = STATE_CLOSED;
    s->handler = NULL;
    s->doomed = true;
    leave(s);
}

/* timeout_ns 0 means never. */
static uint64_t deadline_after(uint64_t now_ns, uint64_t timeout_ns)
{
    return timeout_ns == 0 || timeout_ns >= GW_QMP_NEVER - now_ns ? GW_QMP_NEVER
                                                                  : now_ns + timeout_ns;
}

void gw_qmp_session_connected(struct gw_qmp_session *s, uint64_t now_ns)
{
    assert(s->state == STATE_CONNECTING || s->state == STATE_CLOSED);
    if (s->state == STATE_CLOSED)
        return;
    s->state = STATE_GREETING;
    s->handshake_deadline_ns = deadline_after(now_ns, s->options.handshake_timeout_ns);
}

bool gw_qmp_session_is_ready(const struct gw_qmp_session *s)
{
    return s->state == STATE_READY;
}

bool gw_qmp_session_is_closed(const struct gw_qmp_session *s)
{
    return s->state == STATE_CLOSED;
}

void gw_qmp_session_output(struct gw_qmp_session *s, const char **datap, size_t *lenp)
{
    *lenp = s->output.end - s->output.start;
    *datap = *lenp > 0 ? s->output.data + s->output.start : NULL;
}

void gw_qmp_session_consume(struct gw_qmp_session *s, size_t len)
{
    assert(len <= s->output.end - s->output.start);
    s->output.start += len;
    if (s->output.start < s->output.end)
        return;
    s->output.start = s->output.end = 0;
    if (s->output.cap > KEEP_BYTES)
        output_drop(&s->output);
}

/* ---- calls ---- */

static void detach(struct gw_qmp_call *call)
{
    TAILQ_REMOVE(&call->session->calls, call, link);
    json_decref(call->request);
    call->request = NULL;
    call->session = NULL;
}

void gw_qmp_session_cancel_call(struct gw_qmp_call *call)
{
    if (call->session)
        detach(call);
}

static void finish_call(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    detach(call);
    call->done(call, reply, error);
}

static void fail_call_gone(struct gw_qmp_call *call, const struct gw_error *why)
{
    struct gw_error error;

    gw_error_set(&error, GW_E_QEMU_GONE, "%s: %s", call->command, why->msg);
    gw_error_hint(&error, "%s", why->hint);
    error.sys = why->sys;
    finish_call(call, NULL, &error);
}

static void fail_call_no_memory(struct gw_qmp_call *call)
{
    struct gw_error error;

    gw_error_set_sys(&error, ENOMEM, "%s: not sent to QEMU", call->command);
    finish_call(call, NULL, &error);
}

static void fail_call_timeout(struct gw_qmp_call *call)
{
    struct gw_error error;
    uint64_t ms = call->timeout_ns / NS_PER_MS;

    if (call->request)
        gw_error_set(&error, GW_E_TIMEOUT,
                     "%s: not sent, QEMU's QMP handshake did not end within %" PRIu64 " ms",
                     call->command, ms);
    else
        gw_error_set(&error, GW_E_TIMEOUT, "%s: no reply from QEMU within %" PRIu64 " ms",
                     call->command, ms);
    gw_error_hint(&error, "QEMU's main loop may be blocked: look for slow storage or a stopped "
                          "process");
    finish_call(call, NULL, &error);
}

static int rename_to_oob(json_t *request)
{
    return json_object_set(request, "exec-oob", json_object_get(request, "execute")) ||
           json_object_del(request, "execute");
}

/* Sends the call's request, or marks the call for the next _expire. */
static void send_call(struct gw_qmp_session *s, struct gw_qmp_call *call, uint64_t now_ns)
{
    if ((call->oob && s->oob && rename_to_oob(call->request)) || send_message(s, call->request)) {
        call->no_memory = true;
        call->deadline_ns = now_ns;
        return;
    }
    json_decref(call->request);
    call->request = NULL;
}

static json_t *build_request(const char *command, json_t *args, int64_t id)
{
    json_t *request = json_object();

    if (!request || json_object_set_new(request, "execute", json_string(command)) ||
        (args && json_object_set(request, "arguments", args)) ||
        json_object_set_new(request, "id", json_integer(id))) {
        json_decref(request);
        return NULL;
    }
    return request;
}

void gw_qmp_session_execute(struct gw_qmp_session *s, struct gw_qmp_call *call, const char *command,
                            json_t *args, uint64_t now_ns, uint64_t timeout_ns)
{
    assert(!call->session && call->done && !s->doomed && (!args || json_is_object(args)));
    call->session = s;
    call->id = s->next_id++;
    call->timeout_ns = timeout_ns;
    call->deadline_ns = deadline_after(now_ns, timeout_ns);
    call->no_memory = false;
    snprintf(call->command, sizeof call->command, "%s", command);
    call->request = build_request(command, args, call->id);
    json_decref(args);
    TAILQ_INSERT_TAIL(&s->calls, call, link);

    if (!call->request) {
        call->no_memory = true;
        call->deadline_ns = now_ns;
    } else if (s->state == STATE_CLOSED) {
        call->deadline_ns = now_ns;
    } else if (s->state == STATE_READY) {
        send_call(s, call, now_ns);
    }
}

/* ---- time ---- */

uint64_t gw_qmp_session_deadline(const struct gw_qmp_session *s)
{
    uint64_t deadline_ns = s->handshake_deadline_ns;
    const struct gw_qmp_call *call;

    TAILQ_FOREACH (call, &s->calls, link)
        if (call->deadline_ns < deadline_ns)
            deadline_ns = call->deadline_ns;
    return deadline_ns;
}

static void handshake_timed_out(struct gw_qmp_session *s)
{
    struct gw_error error;

    gw_error_set(&error, GW_E_TIMEOUT, "QEMU sent no QMP %s within %" PRIu64 " ms",
                 s->state == STATE_GREETING ? "greeting" : "answer to qmp_capabilities",
                 s->options.handshake_timeout_ns / NS_PER_MS);
    gw_error_hint(&error, "another QMP client may hold this socket: QEMU serves one at a time");
    gw_qmp_session_close(s, &error);
}

static struct gw_qmp_call *first_due(struct gw_qmp_session *s, uint64_t now_ns, int64_t limit_id)
{
    struct gw_qmp_call *call;

    TAILQ_FOREACH (call, &s->calls, link)
        if (call->id < limit_id && call->deadline_ns <= now_ns)
            return call;
    return NULL;
}

void gw_qmp_session_expire(struct gw_qmp_session *s, uint64_t now_ns)
{
    int64_t limit_id = s->next_id;
    struct gw_qmp_call *call;

    enter(s);
    if (now_ns >= s->handshake_deadline_ns)
        handshake_timed_out(s);
    while ((call = first_due(s, now_ns, limit_id))) {
        if (call->no_memory)
            fail_call_no_memory(call);
        else if (s->state == STATE_CLOSED)
            fail_call_gone(call, &s->why);
        else
            fail_call_timeout(call);
    }
    leave(s);
}

/* ---- the end ---- */

void gw_qmp_session_close(struct gw_qmp_session *s, const struct gw_error *error)
{
    int64_t limit_id = s->next_id;
    struct gw_qmp_call *call;

    if (s->state == STATE_CLOSED)
        return;
    enter(s);
    s->state = STATE_CLOSED;
    if (error)
        s->why = *error;
    else
        gw_error_set(&s->why, GW_E_QEMU_GONE, "the QMP connection was closed by this side");
    drop_connection(s);
    while ((call = TAILQ_FIRST(&s->calls)) && call->id < limit_id)
        fail_call_gone(call, &s->why);
    if (s->handler && s->handler->closed)
        s->handler->closed(s->handler, &s->why);
    leave(s);
}

static void __attribute__((format(printf, 2, 3)))
close_protocol(struct gw_qmp_session *s, const char *fmt, ...)
{
    struct gw_error error;
    char text[sizeof error.msg];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    gw_error_set(&error, GW_E_PROTOCOL, "QMP: %s", text);
    gw_qmp_session_close(s, &error);
}

static void close_no_memory(struct gw_qmp_session *s)
{
    struct gw_error error;

    gw_error_set_sys(&error, ENOMEM, "QMP handshake");
    gw_qmp_session_close(s, &error);
}

/* ---- handshake ---- */

static bool offers_oob(json_t *greeting)
{
    json_t *capabilities = json_object_get(greeting, "capabilities");
    json_t *capability;
    size_t i;

    json_array_foreach (capabilities, i, capability)
        if (json_is_string(capability) && strcmp(json_string_value(capability), "oob") == 0)
            return true;
    return false;
}

static void handle_greeting(struct gw_qmp_session *s, json_t *message)
{
    json_t *greeting = json_object_get(message, "QMP");
    json_t *args = NULL, *request;
    bool failed;

    if (!json_is_object(greeting)) {
        close_protocol(s, "the first message is no greeting");
        return;
    }
    s->greeting = json_incref(greeting);
    s->oob = s->options.want_oob && offers_oob(greeting);
    if (s->oob && !(args = json_pack("{s:[s]}", "enable", "oob"))) {
        close_no_memory(s);
        return;
    }
    s->handshake_id = s->next_id++;
    request = build_request("qmp_capabilities", args, s->handshake_id);
    failed = !request || send_message(s, request);
    json_decref(args);
    json_decref(request);
    s->state = STATE_NEGOTIATING;
    if (failed)
        close_no_memory(s);
}

static void become_ready(struct gw_qmp_session *s)
{
    json_t *greeting = s->greeting;
    struct gw_qmp_call *call;

    s->greeting = NULL;
    s->state = STATE_READY;
    s->handshake_deadline_ns = GW_QMP_NEVER;
    TAILQ_FOREACH (call, &s->calls, link)
        if (call->request && !call->no_memory)
            send_call(s, call, 0);
    if (s->handler && s->handler->ready)
        s->handler->ready(s->handler, greeting);
    json_decref(greeting);
}

/* ---- messages ---- */

static const char *text_of(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "?";
}

static void set_qemu_error(struct gw_error *e, const char *command, json_t *error)
{
    gw_error_set(e, GW_E_QEMU, "%s: %s: %s", command, text_of(error, "class"),
                 text_of(error, "desc"));
}

static struct gw_qmp_call *sent_call(struct gw_qmp_session *s, int64_t id)
{
    struct gw_qmp_call *call;

    TAILQ_FOREACH (call, &s->calls, link)
        if (call->id == id)
            return call->request ? NULL : call;
    return NULL;
}

static void handle_handshake_reply(struct gw_qmp_session *s, json_t *error)
{
    struct gw_error refused;

    if (!error) {
        become_ready(s);
        return;
    }
    set_qemu_error(&refused, "qmp_capabilities", error);
    gw_qmp_session_close(s, &refused);
}

static void handle_reply(struct gw_qmp_session *s, json_t *message, json_t *value, json_t *error)
{
    json_t *id = json_object_get(message, "id");
    struct gw_error refused;
    struct gw_qmp_call *call;

    if (!id && error) {
        close_protocol(s, "QEMU could not read what we sent: %s: %s", text_of(error, "class"),
                       text_of(error, "desc"));
    } else if (!id) {
        close_protocol(s, "a reply has no id");
    } else if (!json_is_integer(id)) {
        return; /* as any other id that is none of ours */
    } else if (s->state == STATE_NEGOTIATING && json_integer_value(id) == s->handshake_id) {
        handle_handshake_reply(s, error);
    } else if ((call = sent_call(s, json_integer_value(id)))) {
        if (error)
            set_qemu_error(&refused, call->command, error);
        finish_call(call, value, error ? &refused : NULL);
    }
}

/* QEMU puts -1 where it could not read its clock. */
static int64_t emitted_us(json_t *message)
{
    json_t *timestamp = json_object_get(message, "timestamp");
    json_int_t s = json_integer_value(json_object_get(timestamp, "seconds"));
    json_int_t us = json_integer_value(json_object_get(timestamp, "microseconds"));

    if (s <= 0 || s >= INT64_MAX / 1000000 || us < 0 || us >= 1000000)
        return -1;
    return s * 1000000 + us;
}

static void handle_event(struct gw_qmp_session *s, json_t *message, json_t *event)
{
    json_t *data = json_object_get(message, "data");

    if (!json_is_string(event) || (data && !json_is_object(data))) {
        close_protocol(s, "an event has no name, or data that is no object");
        return;
    }
    if (s->handler && s->handler->event)
        s->handler->event(s->handler, json_string_value(event), data, emitted_us(message));
}

static void handle_message(struct gw_qmp_session *s, json_t *message)
{
    json_t *value = json_object_get(message, "return");
    json_t *error = json_object_get(message, "error");
    json_t *event = json_object_get(message, "event");

    if (s->state == STATE_GREETING)
        handle_greeting(s, message);
    else if ((value != NULL) + (error != NULL) + (event != NULL) != 1)
        close_protocol(s, "a message is not exactly one of reply, error and event");
    else if (error && !json_is_object(error))
        close_protocol(s, "an error is no object");
    else if (event)
        handle_event(s, message, event);
    else
        handle_reply(s, message, value, error);
}

void gw_qmp_session_feed(struct gw_qmp_session *s, const char *data, size_t len)
{
    json_t *message;
    size_t used;

    assert(!s->feeding && !s->doomed && s->state != STATE_CONNECTING);
    enter(s);
    s->feeding = true;
    while (len > 0 && s->state != STATE_CLOSED) {
        if (gw_qmp_codec_feed(&s->codec, data, len, &used, &message)) {
            gw_qmp_session_close(s, gw_qmp_codec_error(&s->codec));
            break;
        }
        data += used;
        len -= used;
        if (message)
            handle_message(s, message);
        json_decref(message);
    }
    s->feeding = false;
    leave(s);
}
