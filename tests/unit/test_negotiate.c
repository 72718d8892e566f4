/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "host/negotiate.h"
#include "util/cleanup.h"

#define REQUIRED "events return-path pause-before-switchover "
#define OPTIONAL "multifd switchover-ack validate-uuid late-block-activate "
#define OTHERS   "xbzrle postcopy-ram auto-converge "
#define ALL      REQUIRED OPTIONAL OTHERS

#define PARAMETERS "max-bandwidth downtime-limit multifd-channels multifd-compression "
#define NEWER      PARAMETERS "multifd-zstd-level zero-page-detection "

static const struct gw_native_wishes plain = {
    .blackout_ms = 300, .channels = 4, .zstd = false, .zstd_level = 1};
static const struct gw_native_wishes zstd = {
    .blackout_ms = 300, .channels = 4, .zstd = true, .zstd_level = 3};

/* A reply to query-migrate-capabilities that offers these words. */
static json_t *capabilities(const char *words)
{
    json_t *list = json_array();

    for (size_t n; (n = strcspn(words, " ")); words += n + 1)
        json_array_append_new(list, json_pack("{s:s%, s:b}", "capability", words, n, "state", 0));
    return list;
}

static json_t *parameters(const char *words)
{
    json_t *object = json_object();

    for (size_t n; (n = strcspn(words, " ")); words += n + 1) {
        char name[64];

        snprintf(name, sizeof name, "%.*s", (int)n, words);
        json_object_set_new(object, name, json_integer(1));
    }
    return object;
}

struct table {
    json_t *capabilities[2], *parameters[2];
    struct gw_native_offer source, destination;
};

static void lay(struct table *t, const char *source, const char *destination,
                const char *source_parameters, const char *destination_parameters)
{
    t->capabilities[0] = capabilities(source);
    t->capabilities[1] = capabilities(destination);
    t->parameters[0] = parameters(source_parameters);
    t->parameters[1] = parameters(destination_parameters);
    t->source = (struct gw_native_offer){t->capabilities[0], t->parameters[0]};
    t->destination = (struct gw_native_offer){t->capabilities[1], t->parameters[1]};
}

static void clear(struct table *t)
{
    for (int i = 0; i < 2; i++) {
        json_decref(t->capabilities[i]);
        json_decref(t->parameters[i]);
    }
}

/* 1: on, 0: off, -1: not mentioned. */
static int state_of(const struct gw_native_terms *terms, const char *name)
{
    json_t *entry;
    size_t i;

    json_array_foreach (json_object_get(terms->capabilities, "capabilities"), i, entry)
        if (strcmp(json_string_value(json_object_get(entry, "capability")), name) == 0)
            return json_is_true(json_object_get(entry, "state"));
    return -1;
}

static json_int_t number(const struct gw_native_terms *terms, const char *name)
{
    const json_t *value = json_object_get(terms->parameters, name);

    return json_is_integer(value) ? json_integer_value(value) : -1;
}

static void capabilities_are_set_where_they_are_offered(void **state)
{
    static const struct {
        const char *source, *destination;
        const char *on_source, *on_destination; /* "NAME NAME " */
    } cases[] = {
        {ALL, ALL,
         "events return-path pause-before-switchover multifd switchover-ack validate-uuid ",
         "events return-path multifd switchover-ack validate-uuid late-block-activate "},
        {REQUIRED, REQUIRED, REQUIRED, "events return-path "},
        {ALL, REQUIRED, REQUIRED, "events return-path "},
        {REQUIRED, ALL, REQUIRED, "events return-path late-block-activate "},
        {REQUIRED "validate-uuid ", REQUIRED "validate-uuid ", REQUIRED "validate-uuid ",
         "events return-path validate-uuid "},
        /* what only the source has to offer */
        {ALL, "return-path multifd ", "events return-path pause-before-switchover multifd ",
         "return-path multifd "},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++)
        for (int for_source = 0; for_source <= 1; for_source++) {
            const char *mine = for_source ? cases[i].source : cases[i].destination;
            const char *on = for_source ? cases[i].on_source : cases[i].on_destination;
            struct gw_native_terms terms;
            struct gw_error e;
            struct table t;

            lay(&t, cases[i].source, cases[i].destination, NEWER, NEWER);
            assert_int_equal(
                gw_native_negotiate(&t.source, &t.destination, &plain, for_source, &terms, &e), 0);
            for (const char *w = ALL; *w; w += strcspn(w, " ") + 1) {
                char name[64], word[65];

                snprintf(name, sizeof name, "%.*s", (int)strcspn(w, " "), w);
                snprintf(word, sizeof word, "%s ", name);
                /* all that this QEMU knows are named, and no others: those would be an error */
                assert_int_equal(state_of(&terms, name),
                                 strstr(mine, word) ? strstr(on, word) != NULL : -1);
            }
            assert_int_equal(terms.multifd, strstr(on, "multifd ") != NULL);
            gw_native_terms_fini(&terms);
            clear(&t);
        }
}

static void both_sides_come_to_the_same_answer(void **state)
{
    static const char *const offers[] = {ALL, REQUIRED, REQUIRED "multifd ",
                                         REQUIRED "switchover-ack "};

    (void)state;
    for (unsigned s = 0; s < GW_ARRAY_SIZE(offers); s++)
        for (unsigned d = 0; d < GW_ARRAY_SIZE(offers); d++) {
            struct gw_native_terms a, b;
            struct gw_error e;
            struct table t;

            lay(&t, offers[s], offers[d], NEWER, PARAMETERS);
            assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &zstd, true, &a, &e),
                             0);
            assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &zstd, false, &b, &e),
                             0);
            assert_int_equal(a.multifd, b.multifd);
            assert_int_equal(a.zstd, b.zstd);
            assert_true(json_equal(a.parameters, b.parameters));
            assert_true(json_equal(a.decisions, b.decisions));
            gw_native_terms_fini(&a);
            gw_native_terms_fini(&b);
            clear(&t);
        }
}

static void what_must_be_there_is_named_when_it_is_not(void **state)
{
    static const struct {
        const char *source, *destination, *msg; /* msg NULL: fine */
    } cases[] = {
        {"return-path pause-before-switchover ", ALL,
         "QEMU on the source does not offer the capability 'events'"},
        {"events pause-before-switchover ", ALL,
         "QEMU on the source does not offer the capability 'return-path'"},
        {ALL, "events pause-before-switchover ",
         "QEMU on the destination does not offer the capability 'return-path'"},
        {"events return-path ", ALL,
         "QEMU on the source does not offer the capability 'pause-before-switchover'"},
        {ALL, "return-path ", NULL},
        {"", "", "QEMU on the source does not offer the capability 'events'"},
        /* a name is more than its beginning */
        {"events return-path pause-before-switch ", ALL,
         "QEMU on the source does not offer the capability 'pause-before-switchover'"},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct gw_native_terms terms;
        struct gw_error e = {.code = GW_OK};
        struct table t;
        int rc;

        lay(&t, cases[i].source, cases[i].destination, NEWER, NEWER);
        rc = gw_native_negotiate(&t.source, &t.destination, &plain, true, &terms, &e);
        assert_int_equal(rc, cases[i].msg ? -1 : 0);
        if (cases[i].msg) {
            assert_int_equal(e.code, GW_E_INCOMPATIBLE);
            assert_string_equal(e.msg, cases[i].msg);
            assert_true(e.hint[0]);
            assert_null(terms.capabilities);
            assert_null(terms.decisions);
        }
        gw_native_terms_fini(&terms);
        gw_native_terms_fini(&terms);
        clear(&t);
    }
}

static const json_t *decision(const struct gw_native_terms *terms, const char *rule,
                              const char *capability)
{
    json_t *entry;
    size_t i;

    json_array_foreach (terms->decisions, i, entry) {
        const char *of =
            json_string_value(json_object_get(json_object_get(entry, "inputs"), "capability"));

        if (strcmp(json_string_value(json_object_get(entry, "rule")), rule) == 0 &&
            (!capability || (of && strcmp(of, capability) == 0)))
            return entry;
    }
    return NULL;
}

static void zstd_needs_multifd_and_both(void **state)
{
    static const struct {
        const struct gw_native_wishes *wishes;
        const char *capabilities, *source, *destination; /* the latter two: parameters */
        bool zstd;
    } cases[] = {
        {&zstd, ALL, NEWER, NEWER, true},       {&zstd, REQUIRED, NEWER, NEWER, false},
        {&zstd, ALL, PARAMETERS, NEWER, false}, {&zstd, ALL, NEWER, PARAMETERS, false},
        {&plain, ALL, NEWER, NEWER, false},     {&plain, REQUIRED, PARAMETERS, PARAMETERS, false},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        bool multifd = strstr(cases[i].capabilities, "multifd") != NULL;
        struct gw_native_terms terms;
        struct gw_error e;
        const json_t *codec;
        struct table t;

        lay(&t, cases[i].capabilities, cases[i].capabilities, cases[i].source,
            cases[i].destination);
        assert_int_equal(
            gw_native_negotiate(&t.source, &t.destination, cases[i].wishes, true, &terms, &e), 0);
        assert_int_equal(terms.zstd, cases[i].zstd);
        assert_int_equal(number(&terms, "multifd-channels"), multifd ? 4 : -1);
        assert_int_equal(number(&terms, "multifd-zstd-level"), cases[i].zstd ? 3 : -1);
        if (multifd)
            assert_string_equal(json_string_value(
                                    json_object_get(terms.parameters, "multifd-compression")),
                                cases[i].zstd ? "zstd" : "none");
        else
            assert_null(json_object_get(terms.parameters, "multifd-compression"));
        codec = decision(&terms, "codec", NULL);
        assert_string_equal(json_string_value(json_object_get(codec, "chosen")),
                            cases[i].zstd ? "zstd" : "none");
        assert_true((strcmp(json_string_value(json_object_get(codec, "because")), "asked for") ==
                     0) == (cases[i].zstd == cases[i].wishes->zstd));
        gw_native_terms_fini(&terms);
        clear(&t);
    }
}

/* Nobody has said: the carrier may, QEMU does not; and the record says that nobody has. */
static void auto_codec_goes_by_the_route(void **state)
{
    static const struct {
        bool carrier, zstd, auto_codec;
        const char *codec, *wanted, *because;
    } cases[] = {
        {true, false, true, "zstd", "auto", "for each batch"},
        {false, false, true, "none", "auto", "with one level"},
        {false, true, true, "none", "auto", "with one level"},
        {true, false, false, "none", "none", "asked for"},
        {true, true, false, "zstd", "zstd", "asked for"},
        {false, true, false, "zstd", "zstd", "asked for"},
    };
    struct table t;

    (void)state;
    lay(&t, ALL, ALL, NEWER, NEWER);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct gw_native_wishes wishes = {.blackout_ms = 300,
                                          .auto_channels = true,
                                          .zstd_level = 1,
                                          .zstd = cases[i].zstd,
                                          .auto_codec = cases[i].auto_codec,
                                          .carrier = cases[i].carrier};
        struct gw_native_terms terms;
        const json_t *codec, *inputs;
        struct gw_error e;

        gw_native_settle(&wishes);
        assert_int_equal(wishes.zstd, strcmp(cases[i].codec, "zstd") == 0);
        assert_int_equal(wishes.channels, wishes.carrier || wishes.zstd ? 2 : 1);
        assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &wishes, true, &terms, &e),
                         0);
        assert_string_equal(terms.codec, cases[i].codec);
        assert_int_equal(terms.zstd, wishes.zstd && !wishes.carrier);
        codec = decision(&terms, "codec", NULL);
        inputs = json_object_get(codec, "inputs");
        assert_string_equal(json_string_value(json_object_get(codec, "chosen")), cases[i].codec);
        assert_string_equal(json_string_value(json_object_get(inputs, "wanted")), cases[i].wanted);
        assert_non_null(
            strstr(json_string_value(json_object_get(codec, "because")), cases[i].because));
        assert_int_equal(number(&terms, "multifd-channels"), wishes.channels);
        assert_string_equal(json_string_value(
                                json_object_get(decision(&terms, "channels", NULL), "chosen")),
                            wishes.channels == 2 ? "2" : "1");
        gw_native_terms_fini(&terms);
    }
    clear(&t);
}

static void parameters_are_what_was_wished(void **state)
{
    static const struct {
        uint64_t bandwidth;
        json_int_t sent;
    } cases[] = {
        {0, INT64_MAX}, /* QEMU takes 0 for "not at all" */
        {1, 1},
        {125000000, 125000000},
        {UINT64_C(1) << 40, INT64_C(1) << 40},
    };
    struct gw_native_wishes wishes = plain;

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct gw_native_terms terms;
        struct gw_error e;
        struct table t;

        wishes.bandwidth_bytes_per_s = cases[i].bandwidth;
        wishes.blackout_ms = 1 + i;
        lay(&t, ALL, ALL, PARAMETERS, PARAMETERS);
        assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &wishes, true, &terms, &e),
                         0);
        assert_true(number(&terms, "max-bandwidth") == cases[i].sent);
        assert_int_equal(number(&terms, "downtime-limit"), 1 + i);
        assert_null(json_object_get(terms.parameters, "zero-page-detection"));
        gw_native_terms_fini(&terms);
        clear(&t);
    }
}

static void zero_pages_are_found_by_multifd_where_both_can(void **state)
{
    static const struct {
        const char *capabilities, *source, *destination;
        bool set;
    } cases[] = {{ALL, NEWER, NEWER, true},
                 {ALL, NEWER, PARAMETERS, false},
                 {ALL, PARAMETERS, NEWER, false},
                 {REQUIRED, NEWER, NEWER, false}};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct gw_native_terms terms;
        struct gw_error e;
        struct table t;

        lay(&t, cases[i].capabilities, ALL, cases[i].source, cases[i].destination);
        assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &plain, false, &terms, &e),
                         0);
        assert_int_equal(json_object_get(terms.parameters, "zero-page-detection") != NULL,
                         cases[i].set);
        gw_native_terms_fini(&terms);
        clear(&t);
    }
}

/* What /v1/migrations and `godwit explain` show. */
static void check_decision(const json_t *decision)
{
    const json_t *others = json_object_get(decision, "instead_of");

    assert_true(json_string_length(json_object_get(decision, "rule")) > 0);
    assert_true(json_is_object(json_object_get(decision, "inputs")));
    assert_true(json_string_length(json_object_get(decision, "chosen")) > 0);
    assert_int_equal(json_array_size(others), 1);
    assert_string_not_equal(json_string_value(json_array_get(others, 0)),
                            json_string_value(json_object_get(decision, "chosen")));
    assert_true(json_string_length(json_object_get(decision, "because")) > 0);
}

static void decisions_give_reasons(void **state)
{
    struct gw_native_terms terms;
    struct gw_error e;
    json_t *entry;
    struct table t;
    size_t i;

    (void)state;
    lay(&t, ALL, REQUIRED "multifd ", NEWER, NEWER);
    assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &zstd, true, &terms, &e), 0);
    assert_int_equal(json_array_size(terms.decisions),
                     10); /* eight capabilities, codec, channels */
    json_array_foreach (terms.decisions, i, entry)
        check_decision(entry);
    entry = (json_t *)decision(&terms, "capability", "multifd");
    assert_string_equal(json_string_value(json_object_get(entry, "chosen")), "on");
    entry = (json_t *)decision(&terms, "capability", "switchover-ack");
    assert_string_equal(json_string_value(json_object_get(entry, "chosen")), "off");
    assert_string_equal(json_string_value(json_object_get(entry, "because")),
                        "not offered by both QEMUs");
    gw_native_terms_fini(&terms);
    clear(&t);

    entry = gw_decision_new("r", NULL, "c", NULL, "b");
    assert_int_equal(json_object_size(json_object_get(entry, "inputs")), 0);
    assert_int_equal(json_array_size(json_object_get(entry, "instead_of")), 0);
    json_decref(entry);
}

static void malformed_replies_are_refused(void **state)
{
    static const struct {
        const char *capabilities, *parameters; /* NULL: none at all */
        enum gw_code code;
    } cases[] = {
        {NULL, "{}", GW_E_PROTOCOL},
        {"[]", NULL, GW_E_PROTOCOL},
        {"{}", "{}", GW_E_PROTOCOL},
        {"[]", "[]", GW_E_PROTOCOL},
        {"\"events\"", "{}", GW_E_PROTOCOL},
        {"null", "null", GW_E_PROTOCOL},
        /* well-formed, but nothing that is a capability */
        {"[]", "{}", GW_E_INCOMPATIBLE},
        {"[null, 1, [], {}, \"events\", {\"capability\": 7}, {\"capability\": null}]", "{}",
         GW_E_INCOMPATIBLE},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++)
        for (int broken_source = 0; broken_source <= 1; broken_source++) {
            json_t *c = cases[i].capabilities
                            ? json_loads(cases[i].capabilities, JSON_DECODE_ANY, NULL)
                            : NULL;
            json_t *p =
                cases[i].parameters ? json_loads(cases[i].parameters, JSON_DECODE_ANY, NULL) : NULL;
            struct gw_native_offer broken = {c, p};
            struct gw_native_terms terms;
            struct gw_error e;
            struct table t;

            lay(&t, ALL, ALL, NEWER, NEWER);
            assert_int_equal(gw_native_negotiate(broken_source ? &broken : &t.source,
                                                 broken_source ? &t.destination : &broken, &plain,
                                                 true, &terms, &e),
                             -1);
            assert_int_equal(e.code, cases[i].code);
            assert_non_null(strstr(e.msg, broken_source ? "source" : "destination"));
            gw_native_terms_fini(&terms);
            clear(&t);
            json_decref(c);
            json_decref(p);
        }
}

static void odd_entries_are_passed_over(void **state)
{
    struct gw_native_terms terms;
    struct gw_error e;
    struct table t;

    (void)state;
    lay(&t, ALL, ALL, NEWER, NEWER);
    json_array_insert_new(t.capabilities[0], 0, json_null());
    json_array_insert_new(t.capabilities[0], 1, json_pack("{s:i}", "capability", 7));
    assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &plain, true, &terms, &e), 0);
    assert_int_equal(json_array_size(json_object_get(terms.capabilities, "capabilities")), 10);
    gw_native_terms_fini(&terms);
    clear(&t);
}

static void endless_offers_are_refused(void **state)
{
    static const struct {
        unsigned n;
        int rc;
    } cases[] = {{256, 0}, {257, -1}};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        struct gw_native_terms terms;
        struct gw_error e;
        struct table t;

        lay(&t, ALL, ALL, NEWER, NEWER);
        while (json_array_size(t.capabilities[1]) < cases[i].n)
            json_array_append_new(t.capabilities[1], json_pack("{s:s}", "capability", "x-more"));
        assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &plain, false, &terms, &e),
                         cases[i].rc);
        if (cases[i].rc < 0)
            assert_int_equal(e.code, GW_E_PROTOCOL);
        gw_native_terms_fini(&terms);
        clear(&t);
    }
}

/* The carrier reads QEMU's multifd stream: it is there even with one channel, uncompressed and
 * without QEMU's own limit. */
static void the_carrier_wants_multifd_as_it_is(void **state)
{
    static const struct gw_native_wishes carrier = {.bandwidth_bytes_per_s = 1000000,
                                                    .blackout_ms = 300,
                                                    .channels = 1,
                                                    .zstd = true,
                                                    .zstd_level = 3,
                                                    .carrier = true};
    struct gw_native_terms terms;
    struct gw_error e;
    struct table t;

    (void)state;
    lay(&t, ALL, ALL, NEWER, NEWER);
    for (int for_source = 0; for_source <= 1; for_source++) {
        assert_int_equal(
            gw_native_negotiate(&t.source, &t.destination, &carrier, for_source, &terms, &e), 0);
        assert_int_equal(state_of(&terms, "multifd"), 1);
        assert_int_equal(number(&terms, "multifd-channels"), 1);
        assert_string_equal(
            json_string_value(json_object_get(terms.parameters, "multifd-compression")), "none");
        assert_true(number(&terms, "max-bandwidth") == INT64_MAX);
        assert_true(terms.multifd && terms.zero_pages && !terms.zstd);
        assert_string_equal(terms.codec, "zstd"); /* the carrier's, not QEMU's */
        gw_native_terms_fini(&terms);
    }
    clear(&t);
    /* before QEMU 9.0 zero pages are on the main channel */
    lay(&t, ALL, ALL, NEWER, PARAMETERS);
    assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &carrier, true, &terms, &e), 0);
    assert_false(terms.zero_pages);
    gw_native_terms_fini(&terms);
    clear(&t);
    lay(&t, ALL, REQUIRED, NEWER, NEWER);
    assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &carrier, true, &terms, &e),
                     -1);
    assert_int_equal(e.code, GW_E_INCOMPATIBLE);
    assert_non_null(strstr(e.hint, "--route native"));
    clear(&t);
}

/* Both ends say that postcopy might follow, and so must do without multifd; nobody else does. */
static void all_pages_cost_multifd(void **state)
{
    static const struct gw_native_wishes all = {
        .blackout_ms = 300, .channels = 4, .zstd = true, .zstd_level = 3, .all_pages = true};
    struct gw_native_wishes carrier = all;
    struct gw_native_terms terms;
    struct gw_error e;
    struct table t;

    (void)state;
    lay(&t, ALL, ALL, NEWER, NEWER);
    for (int for_source = 0; for_source <= 1; for_source++) {
        assert_int_equal(
            gw_native_negotiate(&t.source, &t.destination, &all, for_source, &terms, &e), 0);
        assert_int_equal(state_of(&terms, "postcopy-ram"), 1);
        assert_int_equal(state_of(&terms, "multifd"), 0);
        assert_false(terms.zstd);
        assert_int_equal(number(&terms, "multifd-channels"), -1);
        assert_non_null(strstr(json_string_value(json_object_get(
                                   decision(&terms, "capability", "multifd"), "because")),
                               "postcopy-ram"));
        gw_native_terms_fini(&terms);
    }
    assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &plain, true, &terms, &e), 0);
    assert_int_equal(state_of(&terms, "postcopy-ram"), 0);
    gw_native_terms_fini(&terms);
    carrier.carrier = true;
    assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &carrier, true, &terms, &e),
                     -1);
    assert_int_equal(e.code, GW_E_UNSUPPORTED);
    assert_non_null(strstr(e.hint, "--route native"));
    clear(&t);
    lay(&t, ALL, REQUIRED OPTIONAL, NEWER, NEWER);
    assert_int_equal(gw_native_negotiate(&t.source, &t.destination, &all, true, &terms, &e), -1);
    assert_string_equal(e.msg,
                        "QEMU on the destination does not offer the capability 'postcopy-ram'");
    clear(&t);
}

/* Each capability that a migration may have switched on is switched off. */
static void defaults_undo_all_of_it(void **state)
{
    json_t *off = gw_native_default_capabilities(), *defaults = gw_native_default_parameters();
    struct gw_native_terms terms = {.capabilities = off, .parameters = defaults};

    (void)state;
    for (const char *w = REQUIRED OPTIONAL; *w; w += strcspn(w, " ") + 1) {
        char name[64];

        snprintf(name, sizeof name, "%.*s", (int)strcspn(w, " "), w);
        assert_int_equal(state_of(&terms, name), 0);
    }
    assert_int_equal(number(&terms, "max-bandwidth"), 128 << 20);
    assert_int_equal(number(&terms, "downtime-limit"), 300);
    assert_int_equal(number(&terms, "avail-switchover-bandwidth"), 0);
    gw_native_terms_fini(&terms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capabilities_are_set_where_they_are_offered),
        cmocka_unit_test(both_sides_come_to_the_same_answer),
        cmocka_unit_test(what_must_be_there_is_named_when_it_is_not),
        cmocka_unit_test(zstd_needs_multifd_and_both),
        cmocka_unit_test(auto_codec_goes_by_the_route),
        cmocka_unit_test(parameters_are_what_was_wished),
        cmocka_unit_test(zero_pages_are_found_by_multifd_where_both_can),
        cmocka_unit_test(decisions_give_reasons),
        cmocka_unit_test(malformed_replies_are_refused),
        cmocka_unit_test(odd_entries_are_passed_over),
        cmocka_unit_test(endless_offers_are_refused),
        cmocka_unit_test(the_carrier_wants_multifd_as_it_is),
        cmocka_unit_test(all_pages_cost_multifd),
        cmocka_unit_test(defaults_undo_all_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
