/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "qmp/session.h"
#include "util/cleanup.h"

/* ---- allocations that fail on demand (linked with --wrap) ---- */

static long allocations_left = -1; /* -1: never fail */

static bool allocation_fails(void)
{
    if (allocations_left < 0)
        return false;
    if (allocations_left == 0)
        return true;
    allocations_left--;
    return false;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return allocation_fails() ? NULL : __real_realloc(old, size);
}

/* ---- a session with notes of what it called back ---- */

#define GREETING                                                                       \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, " \
    "\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define AGREED "{\"return\": {}, \"id\": 1}\r\n"

enum { MS = 1000000 };

struct fixture;

/* A call that notes its end and may do something in it. */
struct note {
    struct gw_qmp_call call;
    struct fixture *f;
    void (*then)(struct note *note);
    int n_done;
    enum gw_code code;
    int sys;
    char msg[512];
    char hint[256];
    json_int_t value; /* of a reply {"v": …} */
};

struct fixture {
    struct gw_qmp_handler handler;
    struct gw_qmp_session *s;
    void (*on_event)(struct fixture *f);
    void (*on_ready)(struct fixture *f);
    void (*on_closed)(struct fixture *f);
    int n_ready, n_events, n_closed;
    json_int_t major;
    char events[256]; /* names and values of data.n, joined */
    int64_t emitted_us;
    struct gw_error why;
    struct note notes[4];
};

static void ready(struct gw_qmp_handler *handler, json_t *greeting)
{
    struct fixture *f = gw_container_of(handler, struct fixture, handler);
    json_t *qemu = json_object_get(json_object_get(greeting, "version"), "qemu");

    f->n_ready++;
    f->major = json_integer_value(json_object_get(qemu, "major"));
    if (f->on_ready)
        f->on_ready(f);
}

static void event(struct gw_qmp_handler *handler, const char *name, json_t *data,
                  int64_t emitted_realtime_us)
{
    struct fixture *f = gw_container_of(handler, struct fixture, handler);
    size_t used = strlen(f->events);

    f->n_events++;
    f->emitted_us = emitted_realtime_us;
    snprintf(f->events + used, sizeof f->events - used, "%s%d ", name,
             data ? (int)json_integer_value(json_object_get(data, "n")) : -1);
    if (f->on_event)
        f->on_event(f);
}

static void closed(struct gw_qmp_handler *handler, const struct gw_error *error)
{
    struct fixture *f = gw_container_of(handler, struct fixture, handler);

    for (size_t i = 0; i < GW_ARRAY_SIZE(f->notes); i++)
        if (!f->on_closed && f->notes[i].call.id > 0 && f->notes[i].n_done == 0)
            assert_false(gw_qmp_call_is_pending(&f->notes[i].call));
    f->n_closed++;
    f->why = *error;
    if (f->on_closed)
        f->on_closed(f);
}

static void done(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct note *note = gw_container_of(call, struct note, call);

    assert_true((reply == NULL) == (error != NULL));
    assert_false(gw_qmp_call_is_pending(call));
    note->n_done++;
    note->code = error ? error->code : GW_OK;
    note->sys = error ? error->sys : 0;
    snprintf(note->msg, sizeof note->msg, "%s", error ? error->msg : "");
    snprintf(note->hint, sizeof note->hint, "%s", error ? error->hint : "");
    note->value = json_integer_value(json_object_get(reply, "v"));
    if (note->then)
        note->then(note);
}

static void init(struct fixture *f, const struct gw_qmp_options *options)
{
    *f = (struct fixture){.handler = {ready, event, closed}};
    for (size_t i = 0; i < GW_ARRAY_SIZE(f->notes); i++) {
        f->notes[i].call.done = done;
        f->notes[i].f = f;
    }
    f->s = gw_qmp_session_new(&f->handler, options);
    if (f->s)
        gw_qmp_session_connected(f->s, 0);
}

/* From memory of its own, so that a sanitizer sees a read past the end. */
static void feed(struct fixture *f, const char *text)
{
    size_t len = strlen(text);
    char *copy = __real_malloc(len + 1);

    memcpy(copy, text, len);
    gw_qmp_session_feed(f->s, copy, len);
    free(copy);
}

static void expect_output(struct fixture *f, const char *expected)
{
    char text[1000];
    const char *data;
    size_t len;

    gw_qmp_session_output(f->s, &data, &len);
    assert_true(len < sizeof text);
    memcpy(text, data ? data : "", len);
    text[len] = '\0';
    assert_string_equal(text, expected);
    gw_qmp_session_consume(f->s, len);
}

static void execute(struct fixture *f, int i, const char *command, uint64_t timeout_ns)
{
    gw_qmp_session_execute(f->s, &f->notes[i].call, command, NULL, 0, timeout_ns);
}

static void init_ready(struct fixture *f)
{
    init(f, NULL);
    feed(f, GREETING AGREED);
    assert_int_equal(f->n_ready, 1);
    expect_output(f, "{\"execute\":\"qmp_capabilities\",\"id\":1}\n");
}

/* ---- the tests ---- */

static void handshake_then_commands(void **state)
{
    struct fixture f;

    (void)state;
    init(&f, NULL);
    assert_false(gw_qmp_session_is_ready(f.s));
    execute(&f, 0, "first", 0);
    execute(&f, 1, "second", 0);
    execute(&f, 2, "regretted", 0);
    gw_qmp_session_cancel_call(&f.notes[2].call);
    expect_output(&f, "");
    feed(&f, GREETING);
    expect_output(&f, "{\"execute\":\"qmp_capabilities\",\"id\":4}\n");
    feed(&f, "{\"return\": {\"v\": 9}, \"id\": 1}"); /* not sent yet: no reply to it */
    assert_int_equal(f.n_ready, 0);
    feed(&f, "{\"return\": {}, \"id\": 4}");
    assert_int_equal(f.n_ready, 1);
    assert_int_equal(f.major, 10);
    assert_true(gw_qmp_session_is_ready(f.s));
    expect_output(&f, "{\"execute\":\"first\",\"id\":1}\n{\"execute\":\"second\",\"id\":2}\n");
    gw_qmp_session_execute(f.s, &f.notes[2].call, "third", json_pack("{s:b}", "x", 1), 0, 0);
    expect_output(&f, "{\"execute\":\"third\",\"arguments\":{\"x\":true},\"id\":5}\n");
    feed(&f, "{\"return\":{\"v\":50},\"id\":5}{\"return\":{\"v\":20},\"id\":2}"
             "{\"return\":{\"v\":10},\"id\":1}");
    assert_int_equal(f.notes[0].value, 10);
    assert_int_equal(f.notes[1].value, 20);
    assert_int_equal(f.notes[2].value, 50);
    assert_int_equal(gw_qmp_session_deadline(f.s), GW_QMP_NEVER);
    gw_qmp_session_free(f.s);
    assert_int_equal(f.n_closed, 0);
}

static void oob_only_when_wanted_and_offered(void **state)
{
    static const struct gw_qmp_options options = {.want_oob = true};
    struct fixture f;

    (void)state;
    init(&f, &options);
    f.notes[0].call.oob = true;
    execute(&f, 0, "yank", 0);
    feed(&f, GREETING);
    expect_output(
        &f, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]},\"id\":2}\n");
    feed(&f, "{\"return\":{},\"id\":2}");
    expect_output(&f, "{\"id\":1,\"exec-oob\":\"yank\"}\n");
    gw_qmp_session_free(f.s);

    init(&f, &options);
    f.notes[0].call.oob = true;
    feed(&f, "{\"QMP\":{\"capabilities\":[]}}" AGREED);
    expect_output(&f, "{\"execute\":\"qmp_capabilities\",\"id\":1}\n");
    execute(&f, 0, "yank", 0);
    expect_output(&f, "{\"execute\":\"yank\",\"id\":2}\n");
    gw_qmp_session_free(f.s);
}

static void errors_carry_qemus_words(void **state)
{
    struct fixture f;

    (void)state;
    init_ready(&f);
    execute(&f, 0, "migrate", 0);
    feed(&f, "{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"no URI\"}}");
    assert_int_equal(f.notes[0].code, GW_E_QEMU);
    assert_string_equal(f.notes[0].msg, "migrate: GenericError: no URI");
    execute(&f, 0, "again", 0); /* the struct may be used again */
    feed(&f, "{\"id\": 3, \"error\": {\"class\": 7}}");
    assert_string_equal(f.notes[0].msg, "again: ?: ?");
    assert_int_equal(f.notes[0].n_done, 2);
    assert_int_equal(f.n_closed, 0);
    gw_qmp_session_free(f.s);
}

static void events_between_replies(void **state)
{
    struct fixture f;

    (void)state;
    init_ready(&f);
    execute(&f, 0, "stop", 0);
    feed(&f, "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 123456}, "
             "\"event\": \"STOP\"}\r\n");
    assert_int_equal(f.emitted_us, 1700000000123456);
    feed(&f, "{\"event\": \"A\", \"data\": {\"n\": 1}}{\"return\": {\"v\": 3}, \"id\": 2}"
             "{\"event\": \"B\", \"data\": {\"n\": 2}, "
             "\"timestamp\": {\"seconds\": -1, \"microseconds\": -1}}");
    assert_int_equal(f.emitted_us, -1);
    assert_string_equal(f.events, "STOP-1 A1 B2 ");
    assert_int_equal(f.notes[0].value, 3);
    feed(&f, "{\"event\":\"C\",\"timestamp\":{\"seconds\":9223372036854775807,"
             "\"microseconds\":999999}}");
    assert_int_equal(f.emitted_us, -1);
    gw_qmp_session_free(f.s);
}

static void late_replies_are_dropped(void **state)
{
    struct fixture f;

    (void)state;
    init_ready(&f);
    execute(&f, 0, "slow", 5 * MS);
    execute(&f, 1, "slower", 9 * MS);
    assert_int_equal(gw_qmp_session_deadline(f.s), 5 * MS);
    gw_qmp_session_expire(f.s, 5 * MS - 1);
    assert_int_equal(f.notes[0].n_done, 0);
    gw_qmp_session_expire(f.s, 5 * MS);
    assert_int_equal(f.notes[0].code, GW_E_TIMEOUT);
    assert_string_equal(f.notes[0].msg, "slow: no reply from QEMU within 5 ms");
    assert_int_equal(gw_qmp_session_deadline(f.s), 9 * MS);
    feed(&f,
         "{\"return\": {}, \"id\": 2}{\"return\": {}, \"id\": 77}{\"return\": {}, \"id\": \"x\"}"
         "{\"error\": {}, \"id\": null}{\"return\": {}, \"id\": 2.0}");
    assert_int_equal(f.notes[0].n_done, 1);
    feed(&f, "{\"return\": {\"v\": 1}, \"id\": 3}");
    assert_int_equal(f.notes[1].value, 1);
    assert_int_equal(f.n_closed, 0);
    gw_qmp_session_expire(f.s, UINT64_MAX - 1);
    assert_int_equal(f.notes[1].n_done, 1);
    gw_qmp_session_free(f.s);
}

static void cancelled_calls_stay_silent(void **state)
{
    struct fixture f;

    (void)state;
    init_ready(&f);
    execute(&f, 0, "a", 5 * MS);
    gw_qmp_session_cancel_call(&f.notes[0].call);
    gw_qmp_session_cancel_call(&f.notes[0].call);
    feed(&f, "{\"return\": {}, \"id\": 2}");
    gw_qmp_session_expire(f.s, 6 * MS);
    gw_qmp_session_close(f.s, NULL);
    assert_int_equal(f.notes[0].n_done, 0);
    gw_qmp_session_free(f.s);
}

static void handshake_has_a_deadline(void **state)
{
    static const struct gw_qmp_options options = {.handshake_timeout_ns = 7 * MS};
    struct fixture f;

    (void)state;
    for (int greeted = 0; greeted < 2; greeted++) {
        init(&f, &options);
        execute(&f, 0, "stop", 0);
        if (greeted)
            feed(&f, GREETING);
        assert_int_equal(gw_qmp_session_deadline(f.s), 7 * MS);
        gw_qmp_session_expire(f.s, 7 * MS);
        assert_int_equal(f.n_closed, 1);
        assert_int_equal(f.why.code, GW_E_TIMEOUT);
        assert_non_null(strstr(f.why.hint, "another QMP client"));
        assert_int_equal(f.notes[0].code, GW_E_QEMU_GONE);
        assert_non_null(strstr(f.notes[0].msg, "stop: QEMU sent no QMP "));
        assert_non_null(strstr(f.notes[0].hint, "another QMP client"));
        assert_int_equal(gw_qmp_session_deadline(f.s), GW_QMP_NEVER);
        gw_qmp_session_free(f.s);
    }
    init(&f, &options);
    execute(&f, 0, "stop", 3 * MS);
    gw_qmp_session_expire(f.s, 3 * MS);
    assert_int_equal(f.notes[0].code, GW_E_TIMEOUT);
    assert_non_null(strstr(f.notes[0].msg, "not sent"));
    feed(&f, GREETING "{\"return\":{},\"id\":2}");
    expect_output(&f, "{\"execute\":\"qmp_capabilities\",\"id\":2}\n");
    gw_qmp_session_free(f.s);
}

static void messages_out_of_order_close(void **state)
{
    static const struct {
        bool handshake;
        const char *input, *message_has;
        enum gw_code code;
    } table[] = {
        {false, "{\"return\": {}}", "no greeting", GW_E_PROTOCOL},
        {false, "{\"event\": \"STOP\"}", "no greeting", GW_E_PROTOCOL},
        {false, "{\"QMP\": []}", "no greeting", GW_E_PROTOCOL},
        {false, "(qemu) ", "0x28", GW_E_PROTOCOL},
        {false, GREETING "{\"error\": {\"class\": \"C\", \"desc\": \"D\"}, \"id\": 2}",
         "qmp_capabilities: C: D", GW_E_QEMU},
        {true, GREETING, "not exactly one", GW_E_PROTOCOL},
        {true, "{}", "not exactly one", GW_E_PROTOCOL},
        {true, "{\"return\": 1, \"error\": {}, \"id\": 2}", "not exactly one", GW_E_PROTOCOL},
        {true, "{\"return\": {}}", "no id", GW_E_PROTOCOL},
        {true, "{\"error\": {\"class\": \"C\", \"desc\": \"D\"}}", "C: D", GW_E_PROTOCOL},
        {true, "{\"error\": 1, \"id\": 2}", "error is no object", GW_E_PROTOCOL},
        {true, "{\"event\": 1}", "no name", GW_E_PROTOCOL},
        {true, "{\"event\": \"E\", \"data\": 1}", "no object", GW_E_PROTOCOL},
        {true, "{\"a\": }", "malformed", GW_E_PROTOCOL},
    };
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(table); i++) {
        init(&f, NULL);
        if (table[i].handshake)
            feed(&f, GREETING AGREED);
        execute(&f, 0, "stop", 0);
        feed(&f, table[i].input);
        if (f.n_closed != 1 || f.why.code != table[i].code ||
            !strstr(f.why.msg, table[i].message_has))
            fail_msg("%s: closed %d times, %s", table[i].input, f.n_closed, f.why.msg);
        assert_int_equal(f.notes[0].n_done, 1);
        assert_int_equal(f.notes[0].code, GW_E_QEMU_GONE);
        feed(&f, GREETING);
        gw_qmp_session_close(f.s, NULL);
        assert_int_equal(f.n_closed, 1);
        expect_output(&f, "");
        gw_qmp_session_free(f.s);
    }
}

static void closed_sessions_still_answer(void **state)
{
    struct gw_error why;
    struct fixture f;

    (void)state;
    init_ready(&f);
    gw_error_set(&why, GW_E_QEMU_GONE, "QEMU was killed");
    gw_qmp_session_close(f.s, &why);
    gw_qmp_session_execute(f.s, &f.notes[0].call, "cont", json_object(), 50, 0);
    assert_int_equal(f.notes[0].n_done, 0); /* never from inside */
    assert_int_equal(gw_qmp_session_deadline(f.s), 50);
    gw_qmp_session_expire(f.s, 50);
    assert_int_equal(f.notes[0].n_done, 1);
    assert_string_equal(f.notes[0].msg, "cont: QEMU was killed");
    assert_int_equal(gw_qmp_session_deadline(f.s), GW_QMP_NEVER);
    gw_qmp_session_free(f.s);
}

/* ---- callbacks that call back ---- */

static void then_again(struct note *note)
{
    gw_qmp_session_execute(note->f->s, &note->call, "again", NULL, 0, 0);
}

static void then_cancel_next(struct note *note)
{
    gw_qmp_session_cancel_call(&note[1].call);
}

static void then_close(struct note *note)
{
    gw_qmp_session_close(note->f->s, NULL);
}

static void then_free(struct note *note)
{
    gw_qmp_session_free(note->f->s);
    note->f->s = NULL;
}

static void free_session(struct fixture *f)
{
    gw_qmp_session_free(f->s);
    f->s = NULL;
}

static void close_session(struct fixture *f)
{
    gw_qmp_session_close(f->s, NULL);
}

static void execute_in_callback(struct fixture *f)
{
    execute(f, 3, "from-callback", 0);
}

static void done_may_execute_again(void **state)
{
    struct fixture f;

    (void)state;
    init_ready(&f);
    f.notes[0].then = then_again;
    execute(&f, 0, "once", 5 * MS);
    expect_output(&f, "{\"execute\":\"once\",\"id\":2}\n");
    feed(&f, "{\"return\":{},\"id\":2}{\"return\":{},\"id\":3}");
    assert_int_equal(f.notes[0].n_done, 2);
    expect_output(&f, "{\"execute\":\"again\",\"id\":3}\n{\"execute\":\"again\",\"id\":4}\n");
    gw_qmp_session_close(f.s, NULL); /* must come back, though done executes for ever */
    assert_int_equal(f.notes[0].n_done, 3);
    gw_qmp_session_expire(f.s, 0);
    assert_int_equal(f.notes[0].n_done, 4);
    gw_qmp_session_free(f.s);
}

static void done_may_cancel_others(void **state)
{
    struct fixture f;

    (void)state;
    init_ready(&f);
    for (int i = 0; i < 3; i++)
        execute(&f, i, "x", 5 * MS);
    f.notes[0].then = then_cancel_next;
    gw_qmp_session_expire(f.s, 5 * MS);
    assert_int_equal(f.notes[0].n_done + f.notes[1].n_done * 10 + f.notes[2].n_done * 100, 101);
    gw_qmp_session_free(f.s);
}

static void done_may_close(void **state)
{
    struct fixture f;

    (void)state;
    init_ready(&f);
    for (int i = 0; i < 3; i++) {
        execute(&f, i, "x", 0);
        f.notes[i].then = then_close;
    }
    feed(&f, "{\"return\":{},\"id\":3}{\"event\":\"UNHEARD\"}");
    for (int i = 0; i < 3; i++)
        assert_int_equal(f.notes[i].n_done, 1);
    assert_int_equal(f.n_closed, 1);
    assert_int_equal(f.n_events, 0);
    gw_qmp_session_free(f.s);
}

static void freed_in_every_callback(void **state)
{
    struct fixture f;

    (void)state;
    for (int way = 0; way < 6; way++) {
        init(&f, NULL);
        execute(&f, 1, "pending", 0);
        f.on_ready = way == 0 ? free_session : NULL;
        f.on_event = way == 1 ? free_session : NULL;
        f.on_closed = way == 5 ? free_session : NULL;
        f.notes[0].then = way >= 2 && way <= 4 ? then_free : NULL;
        feed(&f, GREETING "{\"return\":{},\"id\":2}{\"event\":\"E\"}");
        if (way >= 2) {
            execute(&f, 0, "x", 5 * MS);
            if (way == 2)
                feed(&f, "{\"return\":{},\"id\":3}{\"event\":\"UNHEARD\"}");
            if (way == 3)
                gw_qmp_session_expire(f.s, 5 * MS);
            if (way >= 4)
                gw_qmp_session_close(f.s, NULL);
        }
        assert_null(f.s);
        assert_int_equal(f.n_closed, way == 5);
        assert_int_equal(f.n_events, way >= 1);
        /* Forgotten, unless the session was closed before: calls end in their order. */
        assert_int_equal(f.notes[1].n_done, way >= 4);
        assert_false(gw_qmp_call_is_pending(&f.notes[1].call));
    }
}

static void handler_may_execute_and_close(void **state)
{
    struct fixture f;

    (void)state;
    init(&f, NULL);
    f.on_ready = execute_in_callback;
    f.on_event = close_session;
    f.on_closed = execute_in_callback;
    feed(&f, GREETING AGREED);
    expect_output(
        &f,
        "{\"execute\":\"qmp_capabilities\",\"id\":1}\n{\"execute\":\"from-callback\",\"id\":2}\n");
    feed(&f, "{\"event\":\"E\"}{\"event\":\"UNHEARD\"}");
    assert_int_equal(f.n_closed, 1);
    assert_int_equal(f.n_events, 1);
    assert_int_equal(f.notes[3].n_done, 1);
    gw_qmp_session_expire(f.s, 0);
    assert_int_equal(f.notes[3].n_done, 2);
    gw_qmp_session_free(f.s);
}

static void output_may_be_taken_in_parts(void **state)
{
    char expected[200], taken[200] = "";
    struct fixture f;
    const char *data;
    size_t len;

    (void)state;
    init_ready(&f);
    for (int i = 0; i < 3; i++) {
        execute(&f, i, "query-status", 0);
        gw_qmp_session_output(f.s, &data, &len);
        strncat(taken, data, 7);
        gw_qmp_session_consume(f.s, 7);
    }
    gw_qmp_session_output(f.s, &data, &len);
    strncat(taken, data, len);
    snprintf(expected, sizeof expected, "%s%s%s", "{\"execute\":\"query-status\",\"id\":2}\n",
             "{\"execute\":\"query-status\",\"id\":3}\n",
             "{\"execute\":\"query-status\",\"id\":4}\n");
    assert_string_equal(taken, expected);
    gw_qmp_session_free(f.s);
}

/* One life, with the k-th and all later allocations failing, until there are enough of them. All
 * tokens have less than 16 bytes: jansson 2.14 itself aborts when it cannot grow one. Each call
 * ends exactly once, however far it got. Returns true when nothing failed. */
static bool life_with(long n_allocations)
{
    static const struct gw_qmp_options options = {.want_oob = true};
    struct fixture f;
    bool all_well;

    allocations_left = n_allocations;
    init(&f, &options);
    if (!f.s) {
        allocations_left = -1;
        return false;
    }
    execute(&f, 0, "a", 0);
    feed(&f, GREETING);
    feed(&f, "{\"return\":{},\"id\":2}{\"event\":\"E\",\"data\":{}}");
    execute(&f, 1, "b", 0);
    feed(&f, "{\"return\":{\"v\":1844");
    feed(&f, "6744},\"id\":1}{\"return\":{},\"id\":3}");
    all_well = allocations_left > 0 && f.notes[1].n_done == 1;
    allocations_left = -1;
    gw_qmp_session_close(f.s, NULL);
    gw_qmp_session_expire(f.s, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(f.notes[i].n_done, 1);
        if (all_well)
            assert_int_equal(f.notes[i].code, GW_OK);
        else if (f.notes[i].code == GW_E_SYSTEM)
            assert_int_equal(f.notes[i].sys, ENOMEM);
        else if (f.notes[i].code != GW_OK)
            assert_int_equal(f.notes[i].code, GW_E_QEMU_GONE);
    }
    assert_int_equal(f.n_closed, 1);
    gw_qmp_session_free(f.s);
    return all_well;
}

static void every_allocation_may_fail(void **state)
{
    long n = 0;

    (void)state;
    json_set_alloc_funcs(__wrap_malloc, free);
    while (!life_with(n))
        assert_true(++n < 10000);
    assert_true(n > 20);
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshake_then_commands),
        cmocka_unit_test(oob_only_when_wanted_and_offered),
        cmocka_unit_test(errors_carry_qemus_words),
        cmocka_unit_test(events_between_replies),
        cmocka_unit_test(late_replies_are_dropped),
        cmocka_unit_test(cancelled_calls_stay_silent),
        cmocka_unit_test(handshake_has_a_deadline),
        cmocka_unit_test(messages_out_of_order_close),
        cmocka_unit_test(closed_sessions_still_answer),
        cmocka_unit_test(done_may_execute_again),
        cmocka_unit_test(done_may_cancel_others),
        cmocka_unit_test(done_may_close),
        cmocka_unit_test(freed_in_every_callback),
        cmocka_unit_test(handler_may_execute_and_close),
        cmocka_unit_test(output_may_be_taken_in_parts),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
