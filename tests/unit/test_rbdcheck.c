/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "host/facts.h"
#include "host/rbdcheck.h"
#include "util/cleanup.h"

/* A disk that may move; each case changes some of it. JSON with ' for ". */
#define WATCHER(address) "{'address': '" address "', 'client': 4123, 'cookie': '1'}"
#define DISK                                                                                   \
    "'kind': 'rbd', 'path': 'rbd/web1', 'format': 'raw', 'read_only': false, 'exists': true, " \
    "'fsid': 'f', 'image_id': '12ab', 'size_bytes': 100, 'features': ['layering', "            \
    "'exclusive-lock'], 'parent': '', 'snapshot': false, 'readable': true, 'writable': true, " \
    "'watchers': [" WATCHER("10.0.0.1:0/11") "], 'lock_owners': [" WATCHER(                    \
        "10.0.0.1:0/11") "], "                                                                 \
                         "'full': '', 'nearly_full': false, 'health': 'HEALTH_OK', "           \
                         "'health_checks': []"

static const char here_facts[] = "{" DISK ", 'client_address': '10.0.0.1', 'opened': 1}";
static const char there_facts[] = "{" DISK ", 'client_address': '10.0.0.2', 'opened': 0}";

static const struct {
    const char *here, *there; /* keys to set; NULL: none */
    const char *findings;     /* "level code", joined by "; " */
    const char *words;        /* that stand in the last message or hint */
} cases[] = {
    {.findings = ""},
    /* there */
    {.there = "{'exists': false, 'error': 'no image web1 in pool rbd'}",
     .findings = "error disk-missing",
     .words = "cannot be opened on n2: no image web1 in pool rbd"},
    {.here = "{'exists': false, 'error': 'gone', 'fsid': null}",
     .there = "{'exists': false, 'error': 'no answer'}",
     .findings = "error disk-missing; error disk-missing"},
    /* the same */
    {.there = "{'fsid': 'g'}", .findings = "error disk-differs", .words = "another Ceph cluster"},
    {.there = "{'image_id': '12ac'}",
     .findings = "error disk-differs",
     .words = "another image of the same name"},
    {.there = "{'size_bytes': 101}", .findings = "error disk-differs", .words = "size"},
    {.there = "{'parent': 'rbd//9@s'}", .findings = "error disk-differs", .words = "parent"},
    {.there = "{'features': ['exclusive-lock']}",
     .findings = "error disk-differs",
     .words = "features"},
    /* may it be written */
    {.there = "{'writable': false, 'write_error': 'Operation not permitted'}",
     .findings = "error disk-access",
     .words = "the Ceph user of n2 may not write RBD image rbd/web1: Operation not permitted"},
    {.here = "{'writable': false}", .findings = ""}, /* it is past that */
    {.here = "{'read_only': true}", .there = "{'writable': false, 'full': 'pool'}", .findings = ""},
    {.there = "{'snapshot': true}", .findings = "error rbd-features", .words = "snapshot"},
    /* who has it */
    {.there = "{'watchers': [" WATCHER("10.0.0.1:0/11") ", " WATCHER("10.0.0.9:0/7") "]}",
     .findings = "error rbd-watcher",
     .words = "client 10.0.0.9:0/7 has RBD image rbd/web1 open, and is on neither n1 nor n2"},
    {.there = "{'watchers': [" WATCHER("10.0.0.1:0/11") ", " WATCHER("10.0.0.1:0/12") "]}",
     .findings = "error rbd-watcher",
     .words = "a client too many on n1"},
    {.there = "{'watchers': [" WATCHER("10.0.0.1:0/11") ", " WATCHER("10.0.0.2:0/12") "]}",
     .findings = "error rbd-watcher",
     .words = "a client too many on n2 has RBD image rbd/web1 open: 0 expected"},
    {.there =
         "{'opened': 1, 'watchers': [" WATCHER("10.0.0.1:0/11") ", " WATCHER("10.0.0.2:0/12") "]}",
     .findings = ""},
    {.there = "{'watchers': [" WATCHER("10.0.0.11:0/11") "]}", .findings = "error rbd-watcher"},
    {.here = "{'client_address': '::1'}",
     .there = "{'lock_owners': [], 'watchers': [" WATCHER("v2:[::1]:0/11") "]}",
     .findings = ""},
    {.here = "{'client_address': '10.0.0.2'}", /* two nodes, one address */
     .there = "{'lock_owners': [], 'opened': 1, 'watchers': [" WATCHER("10.0.0.2:0/1") ", " WATCHER(
         "10.0.0.2:0/2") "]}",
     .findings = ""},
    {.here = "{'client_address': '10.0.0.2'}",
     .there = "{'lock_owners': [], 'opened': 0, 'watchers': [" WATCHER("10.0.0.2:0/1") ", " WATCHER(
         "10.0.0.2:0/2") "]}",
     .findings = "error rbd-watcher"},
    {.there = "{'lock_owners': [" WATCHER("10.0.0.9:0/7") "]}",
     .findings = "error rbd-lock",
     .words = "at 10.0.0.9:0/7 holds the lock"},
    {.there = "{'lock_owners': [" WATCHER("10.0.0.2:0/7") "]}", .findings = "error rbd-lock"},
    {.there = "{'watchers': 5, 'lock_owners': 'x', 'health_checks': [7], 'features': [{}]}",
     .here = "{'features': [{}]}",
     .findings = "warning rbd-features"},
    /* the cluster */
    {.there = "{'full': 'pool quota'}", .findings = "error rbd-full", .words = "its pool quota is"},
    {.there = "{'nearly_full': true}", .findings = "warning rbd-nearly-full"},
    {.there = "{'health': 'HEALTH_WARN', 'health_checks': ['OSD_DOWN: 1 osds down']}",
     .findings = "warning rbd-health",
     .words = "in HEALTH_WARN: OSD_DOWN: 1 osds down"},
    {.there = "{'health': 'HEALTH_WARN', 'health_checks': ['MON_DOWN: a', 'PG_AVAILABILITY: b']}",
     .findings = "warning rbd-health; error rbd-health"},
};

static json_t *parse(const char *quoted)
{
    char text[2048];
    json_t *json;

    snprintf(text, sizeof text, "%s", quoted ? quoted : "{}");
    for (char *c = text; *c; c++)
        if (*c == '\'')
            *c = '"';
    json = json_loads(text, 0, NULL);
    assert_non_null(json);
    return json;
}

static json_t *disk(const char *facts, const char *quoted)
{
    json_t *made = parse(facts), *changes = parse(quoted);

    json_object_update(made, changes);
    json_decref(changes);
    return made;
}

static void compare_by(void (*fn)(const struct gw_rbd_check *, struct gw_findings *), json_t *here,
                       json_t *there, const char *expected, const char *words, size_t i)
{
    struct gw_rbd_check check = {here, there, "n1", "n2", "web1"};
    struct gw_findings list = {0};
    char summary[512] = "";
    size_t used = 0;
    const struct gw_finding *last;

    fn(&check, &list);
    for (size_t k = 0; k < list.n_items; k++)
        used += (size_t)snprintf(summary + used, sizeof summary - used, "%s%s %s", k ? "; " : "",
                                 gw_finding_level_name(list.items[k].level), list.items[k].code);
    last = list.n_items ? &list.items[list.n_items - 1] : NULL;
    if (strcmp(summary, expected) != 0)
        fail_msg("case %zu: found '%s', expected '%s': %s", i, summary, expected,
                 last ? last->message : "");
    if (words && !strstr(last->message, words) && !strstr(last->hint, words))
        fail_msg("case %zu: no '%s' in '%s' (%s)", i, words, last->message, last->hint);
    gw_findings_fini(&list);
}

static void compare(json_t *here, json_t *there, const char *expected, const char *words, size_t i)
{
    compare_by(gw_rbd_check, here, there, expected, words, i);
}

static void after_the_move(void **state)
{
    static const struct {
        const char *here, *findings, *words;
    } after[] = {
        {"{'watchers': [" WATCHER("10.0.0.2:0/5") "], 'lock_owners': [" WATCHER(
             "10.0.0.2:0/5") "]}",
         "info rbd-handed-over", "10.0.0.2:0/5"},
        {"{'watchers': [" WATCHER("10.0.0.2:0/5") "], 'lock_owners': []}", "info rbd-handed-over",
         "nobody holds"},
        {"{'lock_owners': [" WATCHER("10.0.0.2:0/5") "]}", "warning rbd-watcher",
         "client 10.0.0.1:0/11 on n1 still has open"},
        {"{}", "warning rbd-watcher; warning rbd-lock", "holds the lock of"},
        {"{'exists': false, 'error': 'no answer'}", "warning disk-unchecked", "no answer"},
        {"{'client_address': '10.0.0.2'}", "", NULL},
        {"{'read_only': true}", "", NULL},
    };

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(after); i++) {
        json_t *here = disk(here_facts, after[i].here), *there = disk(there_facts, NULL);

        compare_by(gw_rbd_check_handed_over, here, there, after[i].findings, after[i].words, i);
        json_decref(here);
        json_decref(there);
    }
}

static void every_case(void **state)
{
    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        json_t *here = disk(here_facts, cases[i].here), *there = disk(there_facts, cases[i].there);

        compare(here, there, cases[i].findings, cases[i].words, i);
        json_decref(here);
        json_decref(there);
    }
}

static void features_that_stop_a_move(void **state)
{
    static const char *const features[] = {"{'features': ['exclusive-lock', 'migrating']}",
                                           "{'features': ['exclusive-lock', 'non-primary']}",
                                           "{'features': ['exclusive-lock', 'feature-40']}"};

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(features); i++) {
        json_t *here = disk(here_facts, features[i]), *there = disk(there_facts, features[i]);

        compare(here, there, "error rbd-features", NULL, i);
        json_decref(here);
        json_decref(there);
    }
}

static void who_did_not_ask(void **state)
{
    json_t *here = gw_facts_rbd("rbd/web1", "raw", false, 1), *there = parse(there_facts);
    struct gw_error e;

    (void)state;
    compare(here, NULL, "info disk-unchecked", "taken to be the same on n2", 0);
    compare(here, there, "warning disk-unchecked", "n1 did not ask", 1);
    gw_error_set(&e, GW_E_TIMEOUT, "connect: timed out");
    gw_facts_rbd_answer(here, NULL, &e);
    compare(here, there, "error rbd-unreachable", "n1 cannot tell what RBD image", 2);
    gw_facts_rbd_answer(here, there, NULL);
    assert_true(json_is_true(json_object_get(here, "exists")));
    json_decref(here);
    json_decref(there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case),
        cmocka_unit_test(features_that_stop_a_move),
        cmocka_unit_test(who_did_not_ask),
        cmocka_unit_test(after_the_move),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
