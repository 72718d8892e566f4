/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "shell/record.h"
#include "util/cleanup.h"

#define MS    UINT64_C(1000000)
#define START (5000 * MS)

struct bench {
    struct gw_record record;
    struct gw_machine machine;
    json_t *json; /* the last one, owned */
};

static void init(struct bench *b, enum gw_role role)
{
    memset(b, 0, sizeof *b);
    gw_record_init(&b->record, START);
    strcpy(b->record.from, "n1");
    strcpy(b->record.to, "n2");
    strcpy(b->record.policy, "default");
    gw_machine_init(&b->machine, role, &gw_limits_default);
    gw_record_phase(&b->record, GW_PREPARING, START);
}

static void fini(struct bench *b)
{
    json_decref(b->json);
    gw_record_fini(&b->record);
    gw_record_fini(&b->record);
}

static const json_t *show(struct bench *b, uint64_t now_ns)
{
    json_decref(b->json);
    b->json = gw_record_to_json(&b->record, "m-1a2b3c4d", "web1",
                                "11111111-2222-4333-8444-555555555555", &b->machine, now_ns);
    assert_non_null(b->json);
    return b->json;
}

static const json_t *at(const json_t *json, const char *outer, const char *inner)
{
    json = json_object_get(json, outer);
    return inner ? json_object_get(json, inner) : json;
}

/* expected NAN: null. */
static void check_ms(const json_t *value, double expected)
{
    if (isnan(expected)) {
        assert_true(json_is_null(value));
        return;
    }
    assert_true(json_is_number(value));
    if (fabs(json_number_value(value) - expected) > 1e-6)
        fail_msg("%f, not %f", json_number_value(value), expected);
}

static void enter(struct bench *b, enum gw_phase phase, uint64_t ms)
{
    b->machine.phase = phase;
    gw_record_phase(&b->record, phase, START + ms * MS);
}

/* Every member must be there with its type, and nothing else. */
struct member {
    const char *name;
    json_type type;
};

static void check_members(const json_t *json, const struct member *members, size_t n)
{
    const char *key;
    json_t *value;

    for (size_t i = 0; i < n; i++) {
        value = json_object_get(json, members[i].name);
        if (!value || json_typeof(value) != members[i].type)
            fail_msg("%s: type %d, not %d", members[i].name, value ? (int)json_typeof(value) : -1,
                     (int)members[i].type);
    }
    json_object_foreach ((json_t *)json, key, value) {
        size_t i = 0;

        while (i < n && strcmp(members[i].name, key) != 0)
            i++;
        if (i == n)
            fail_msg("unexpected member %s", key);
    }
}

static void at_first_much_is_null(void **state)
{
    static const struct member top[] = {
        {"id", JSON_STRING},           {"vm", JSON_STRING},
        {"uuid", JSON_STRING},         {"from", JSON_STRING},
        {"to", JSON_STRING},           {"role", JSON_STRING},
        {"state", JSON_STRING},        {"route", JSON_STRING},
        {"transport", JSON_STRING},    {"codec", JSON_STRING},
        {"policy", JSON_STRING},       {"started_at", JSON_STRING},
        {"total_ms", JSON_NULL},       {"blackout_ms", JSON_NULL},
        {"guest_bytes", JSON_INTEGER}, {"blackout_uncertainty_ms", JSON_NULL},
        {"wire_bytes", JSON_INTEGER},  {"rounds", JSON_ARRAY},
        {"phases", JSON_ARRAY},        {"decisions", JSON_ARRAY},
        {"breakdown", JSON_OBJECT},    {"warnings", JSON_ARRAY},
        {"progress", JSON_OBJECT},     {"free_pages", JSON_OBJECT},
    };
    static const struct member breakdown[] = {
        {"stop_ms", JSON_NULL},   {"last_pages_ms", JSON_NULL}, {"device_ms", JSON_NULL},
        {"load_ms", JSON_NULL},   {"transfer_ms", JSON_NULL},   {"confirm_ms", JSON_NULL},
        {"commit_ms", JSON_NULL}, {"resume_ms", JSON_NULL},     {"first_packet_ms", JSON_NULL},
        {"swap_ms", JSON_NULL},   {"lock_ms", JSON_NULL},       {"lock_wait_ms", JSON_NULL},
        {"verify_ms", JSON_NULL},
    };
    static const struct member progress[] = {
        {"phase", JSON_STRING},
        {"round", JSON_INTEGER},
        {"total_bytes", JSON_INTEGER},
        {"sent_bytes", JSON_INTEGER},
        {"remaining_bytes", JSON_INTEGER},
        {"rate_bytes_per_s", JSON_INTEGER},
        {"dirty_bytes_per_s", JSON_INTEGER},
        {"eta_ms", JSON_NULL},
        {"expected_blackout_ms", JSON_NULL},
        {"elapsed_ms", JSON_REAL},
    };
    const json_t *json;
    struct bench b;

    (void)state;
    init(&b, GW_SOURCE);
    json = show(&b, START + 7 * MS);
    check_members(json, top, GW_ARRAY_SIZE(top));
    check_members(at(json, "breakdown", NULL), breakdown, GW_ARRAY_SIZE(breakdown));
    check_members(at(json, "progress", NULL), progress, GW_ARRAY_SIZE(progress));
    check_ms(at(json, "progress", "elapsed_ms"), 7);
    fini(&b);
}

static void free_pages_are_told_where_they_are_known(void **state)
{
    static const struct {
        enum gw_hints hints;
        const char *name;
    } cases[] = {{GW_HINTS_UNKNOWN, NULL},
                 {GW_HINTS_NONE, "none"},
                 {GW_HINTS_OFF, "off"},
                 {GW_HINTS_ON, "on"}};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        const json_t *json, *hints, *bytes;
        struct bench b;

        init(&b, GW_SOURCE);
        b.record.hints = cases[i].hints;
        b.record.not_sent_bytes = 4096;
        json = show(&b, START);
        hints = at(json, "free_pages", "hints");
        bytes = at(json, "free_pages", "not_sent_bytes");
        if (cases[i].name) {
            assert_string_equal(json_string_value(hints), cases[i].name);
            assert_int_equal(json_integer_value(bytes), 4096);
        } else {
            assert_true(json_is_null(hints) && json_is_null(bytes));
        }
        fini(&b);
    }
}

static void texts_stand_where_they_belong(void **state)
{
    static const struct {
        const char *key, *value;
    } cases[] = {{"id", "m-1a2b3c4d"},
                 {"vm", "web1"},
                 {"uuid", "11111111-2222-4333-8444-555555555555"},
                 {"from", "n1"},
                 {"to", "n2"},
                 {"role", "destination"},
                 {"state", "preparing"},
                 {"route", "native"},
                 {"transport", "tcp"},
                 {"codec", "zstd"},
                 {"policy", "default"},
                 {"started_at", "2025-01-02T03:04:05Z"}};
    const json_t *json;
    struct bench b;

    (void)state;
    init(&b, GW_DESTINATION);
    b.record.codec = "zstd";
    b.record.begun_wall_ms = INT64_C(1735787045678);
    json = show(&b, START);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++)
        assert_string_equal(json_string_value(at(json, cases[i].key, NULL)), cases[i].value);
    fini(&b);
}

static void phases_have_a_beginning_and_take_a_while(void **state)
{
    static const struct {
        enum gw_phase phase;
        uint64_t ms;
        double took_ms; /* NAN: not known */
    } cases[] = {
        {GW_PREPARING, 0, 120},   {GW_PRECOPY, 120, 880},   {GW_SWITCHOVER, 1000, 30},
        {GW_COMMITTING, 1030, 5}, {GW_FINISHING, 1035, 65}, {GW_COMPLETED, 1100, NAN},
    };
    const json_t *json;
    struct bench b;

    (void)state;
    init(&b, GW_SOURCE);
    for (unsigned i = 1; i < GW_ARRAY_SIZE(cases); i++)
        enter(&b, cases[i].phase, cases[i].ms);
    json = show(&b, START + 99999 * MS);
    assert_int_equal(json_array_size(at(json, "phases", NULL)), GW_ARRAY_SIZE(cases));
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        const json_t *row = json_array_get(at(json, "phases", NULL), i);

        assert_string_equal(json_string_value(json_object_get(row, "phase")),
                            gw_phase_name(cases[i].phase));
        check_ms(json_object_get(row, "at_ms"), (double)cases[i].ms);
        if (isnan(cases[i].took_ms))
            assert_null(json_object_get(row, "took_ms"));
        else
            check_ms(json_object_get(row, "took_ms"), cases[i].took_ms);
    }
    check_ms(at(json, "total_ms", NULL), 1100);
    check_ms(at(json, "progress", "elapsed_ms"), 1100); /* time stands still at the end */
    assert_string_equal(json_string_value(at(json, "state", NULL)), "completed");
    fini(&b);
}

static void rounds_are_rows_brought_up_to_date(void **state)
{
    static const struct {
        struct gw_progress p;
        uint64_t ms;
    } figures[] = {
        {{.round = 0, .remaining_bytes = 9999}, 5}, /* before the first round: no row */
        {{.round = 1, .remaining_bytes = 1000, .rate_bytes_per_s = 10}, 10},
        {{.round = 1, .remaining_bytes = 500, .rate_bytes_per_s = 11}, 20},
        {{.round = 2, .remaining_bytes = 300, .dirty_bytes_per_s = 7}, 30},
        {{.round = 4, .remaining_bytes = 100, .dirty_bytes_per_s = 8}, 40}, /* one was missed */
    };
    static const struct {
        json_int_t round, remaining, dirty, rate;
        double at_ms;
    } rows[] = {{1, 500, 0, 11, 10}, {2, 300, 7, 0, 30}, {4, 100, 8, 0, 40}};
    struct bench b;

    (void)state;
    init(&b, GW_SOURCE);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(figures); i++)
        gw_record_progress(&b.record, &figures[i].p, START + figures[i].ms * MS);
    assert_int_equal(json_array_size(b.record.rounds), GW_ARRAY_SIZE(rows));
    for (unsigned i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        const json_t *row = json_array_get(b.record.rounds, i);

        assert_int_equal(json_object_size(row), 5);
        assert_int_equal(json_integer_value(json_object_get(row, "round")), rows[i].round);
        assert_int_equal(json_integer_value(json_object_get(row, "remaining_bytes")),
                         rows[i].remaining);
        assert_int_equal(json_integer_value(json_object_get(row, "dirty_bytes_per_s")),
                         rows[i].dirty);
        assert_int_equal(json_integer_value(json_object_get(row, "rate_bytes_per_s")),
                         rows[i].rate);
        check_ms(json_object_get(row, "at_ms"), rows[i].at_ms);
    }
    fini(&b);
}

static void endless_rounds_do_not_fill_the_memory(void **state)
{
    const json_t *row;
    struct bench b;

    (void)state;
    init(&b, GW_SOURCE);
    for (uint32_t round = 1; round <= 2500; round++)
        gw_record_progress(&b.record, &(struct gw_progress){.round = round}, START + round * MS);
    assert_int_equal(json_array_size(b.record.rounds), 1000);
    row = json_array_get(b.record.rounds, 0);
    assert_int_equal(json_integer_value(json_object_get(row, "round")), 1501);
    row = json_array_get(b.record.rounds, 999);
    assert_int_equal(json_integer_value(json_object_get(row, "round")), 2500);
    fini(&b);
}

/* Moments in ms after START; 0: not known. */
struct moments {
    uint64_t paused, switched, sent, loaded, commit, runs;
};

static uint64_t moment_ns(uint64_t ms)
{
    return ms ? START + ms * MS : 0;
}

static void blackout_is_from_pause_to_run(void **state)
{
    static const struct {
        struct moments m;
        double blackout, stop, device, confirm, commit, resume;
    } cases[] = {
        /* everything known */
        {{100, 103, 120, 118, 127, 131}, 31, 3, 15, 2, 7, 4},
        /* the clock offset puts "loaded" after "sent": no negative time, and nothing counts twice
         */
        {{100, 103, 120, 125, 127, 131}, 31, 3, 17, 0, 7, 4},
        /* paused, and then it went wrong */
        {{100, 103, 0, 0, 0, 0}, NAN, 3, NAN, NAN, NAN, NAN},
        /* the destination alone */
        {{0, 0, 0, 125, 127, 131}, NAN, NAN, NAN, NAN, 2, 4},
        /* the answer of the destination was lost */
        {{100, 103, 120, 0, 0, 0}, NAN, 3, 17, NAN, NAN, NAN},
        {{0, 0, 0, 0, 0, 0}, NAN, NAN, NAN, NAN, NAN, NAN},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        const struct moments *m = &cases[i].m;
        const json_t *json;
        struct bench b;

        init(&b, GW_SOURCE);
        b.record.blackout = (struct gw_blackout){.paused_ns = moment_ns(m->paused),
                                                 .switch_ns = moment_ns(m->switched),
                                                 .sent_ns = moment_ns(m->sent),
                                                 .loaded_ns = moment_ns(m->loaded),
                                                 .commit_ns = moment_ns(m->commit),
                                                 .runs_ns = moment_ns(m->runs),
                                                 .swap_ns = 2 * MS,
                                                 .heard_ns = m->runs ? moment_ns(m->runs + 9) : 0,
                                                 .uncertain_ns = MS / 4};
        json = show(&b, START);
        check_ms(at(json, "blackout_ms", NULL), cases[i].blackout);
        check_ms(at(json, "blackout_uncertainty_ms", NULL), m->runs ? 0.25 : NAN);
        check_ms(at(json, "breakdown", "stop_ms"), cases[i].stop);
        check_ms(at(json, "breakdown", "last_pages_ms"), NAN);
        check_ms(at(json, "breakdown", "device_ms"), cases[i].device);
        check_ms(at(json, "breakdown", "load_ms"), NAN);
        check_ms(at(json, "breakdown", "transfer_ms"), NAN);
        check_ms(at(json, "breakdown", "confirm_ms"), cases[i].confirm);
        check_ms(at(json, "breakdown", "first_packet_ms"), m->runs ? 9 : NAN);
        check_ms(at(json, "breakdown", "commit_ms"), cases[i].commit);
        check_ms(at(json, "breakdown", "resume_ms"), cases[i].resume);
        check_ms(at(json, "breakdown", "swap_ms"), 2);
        if (!isnan(cases[i].blackout)) /* the parts are the whole */
            assert_true(fabs(cases[i].stop + cases[i].device + cases[i].confirm + cases[i].commit +
                             cases[i].resume - cases[i].blackout) < 1e-6);
        fini(&b);
    }
}

static void progress_tells_what_is_left(void **state)
{
    static const struct {
        enum gw_phase phase;
        struct gw_progress p;
        double eta_ms, blackout_ms;
    } cases[] = {
        {GW_PRECOPY,
         {.remaining_bytes = 3000, .rate_bytes_per_s = 2000, .dirty_bytes_per_s = 500},
         2000,
         NAN},
        /* it does not converge: no eta, and no division by zero */
        {GW_PRECOPY,
         {.remaining_bytes = 3000, .rate_bytes_per_s = 500, .dirty_bytes_per_s = 500},
         NAN,
         NAN},
        {GW_PRECOPY,
         {.remaining_bytes = 3000, .rate_bytes_per_s = 400, .dirty_bytes_per_s = 500},
         NAN,
         NAN},
        {GW_PRECOPY, {.expected_blackout_ns = 12500000}, NAN, 12.5},
        /* the eta is that of the copy */
        {GW_PREPARING, {.remaining_bytes = 3000, .rate_bytes_per_s = 2000}, NAN, NAN},
        {GW_SWITCHOVER, {.remaining_bytes = 3000, .rate_bytes_per_s = 2000}, NAN, NAN},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        const json_t *json;
        struct bench b;

        init(&b, GW_SOURCE);
        b.machine.phase = cases[i].phase;
        b.machine.progress = cases[i].p;
        b.machine.progress.total_bytes = 1 << 20;
        b.machine.progress.wire_bytes = 77;
        b.machine.progress.round = 3;
        json = show(&b, START);
        check_ms(at(json, "progress", "eta_ms"), cases[i].eta_ms);
        check_ms(at(json, "progress", "expected_blackout_ms"), cases[i].blackout_ms);
        assert_string_equal(json_string_value(at(json, "progress", "phase")),
                            gw_phase_name(cases[i].phase));
        assert_int_equal(json_integer_value(at(json, "progress", "round")), 3);
        assert_int_equal(json_integer_value(at(json, "progress", "sent_bytes")), 77);
        assert_int_equal(json_integer_value(at(json, "wire_bytes", NULL)), 77);
        assert_int_equal(json_integer_value(at(json, "guest_bytes", NULL)), 1 << 20);
        fini(&b);
    }
}

static void an_error_stands_only_where_it_failed(void **state)
{
    static const struct {
        enum gw_phase phase;
        enum gw_code code;
        bool shown;
    } cases[] = {
        {GW_PRECOPY, GW_OK, false},
        {GW_FAILING, GW_E_QEMU, true},
        {GW_FAILED, GW_E_UNRESOLVED, true},
        {GW_CANCELLED, GW_E_CANCELLED, true},
        {GW_COMPLETED, GW_OK, false},
        {GW_COMPLETED, GW_E_SYSTEM, false}, /* it has moved, only the clearing up went wrong */
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        const json_t *error;
        struct bench b;

        init(&b, GW_SOURCE);
        enter(&b, cases[i].phase, 10);
        if (cases[i].code)
            gw_error_set(&b.machine.error, cases[i].code, "why: \xff");
        error = at(show(&b, START), "error", NULL);
        assert_int_equal(error != NULL, cases[i].shown);
        if (error) {
            assert_string_equal(json_string_value(json_object_get(error, "code")),
                                gw_code_name(cases[i].code));
            assert_string_equal(json_string_value(json_object_get(error, "message")), "why: ?");
        }
        fini(&b);
    }
}

static void decisions_get_time_and_phase(void **state)
{
    json_t *decisions = json_pack("[{s:s}, {s:s}]", "rule", "a", "rule", "b");
    const json_t *row;
    struct bench b;

    (void)state;
    init(&b, GW_SOURCE);
    gw_record_decisions(&b.record, decisions, GW_PREPARING, START + 3 * MS);
    gw_record_decisions(&b.record, NULL, GW_PREPARING, START);
    assert_int_equal(json_array_size(b.record.decisions), 2);
    row = json_array_get(b.record.decisions, 1);
    assert_string_equal(json_string_value(json_object_get(row, "rule")), "b");
    assert_string_equal(json_string_value(json_object_get(row, "phase")), "preparing");
    check_ms(json_object_get(row, "at_ms"), 3);
    assert_null(json_object_get(json_array_get(decisions, 1), "at_ms")); /* borrowed, untouched */
    json_decref(decisions);
    fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_first_much_is_null),
        cmocka_unit_test(free_pages_are_told_where_they_are_known),
        cmocka_unit_test(texts_stand_where_they_belong),
        cmocka_unit_test(phases_have_a_beginning_and_take_a_while),
        cmocka_unit_test(rounds_are_rows_brought_up_to_date),
        cmocka_unit_test(endless_rounds_do_not_fill_the_memory),
        cmocka_unit_test(blackout_is_from_pause_to_run),
        cmocka_unit_test(progress_tells_what_is_left),
        cmocka_unit_test(an_error_stands_only_where_it_failed),
        cmocka_unit_test(decisions_get_time_and_phase),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
