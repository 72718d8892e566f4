/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "field.h"
#include "report.h"
#include "table.h"
#include "text.h"
#include "units.h"

/* A scalar as text, an object or a list as one line of JSON; the caller frees it. */
static char *value_text(const json_t *value)
{
    if (json_is_string(value))
        return gw_text_clean(json_string_value(value));
    return gw_text_no_memory(json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII |
                                                   JSON_SORT_KEYS | JSON_REAL_PRECISION(6)));
}

static void report_volume(const json_t *record)
{
    int64_t wire = gw_field_int(record, "wire_bytes"), guest = gw_field_int(record, "guest_bytes");
    int64_t total_ms = gw_field_int(record, "total_ms");
    size_t n_rounds = json_array_size(gw_field_array(record, "rounds"));

    if (wire >= 0)
        gw_cli_print("  sent      %s for %s of guest memory%s%s", gw_units_bytes(wire).text,
                     gw_units_bytes(guest).text, total_ms > 0 ? ", on average " : "",
                     total_ms > 0
                         ? gw_units_rate((int64_t)((double)wire * 1000 / (double)total_ms)).text
                         : "");
    if (n_rounds)
        gw_cli_print("  rounds    %zu", n_rounds);
    gw_cli_print("  route     %s over %s, codec %s", gw_field_str(record, "route", "?"),
                 gw_field_str(record, "transport", "?"), gw_field_str(record, "codec", "?"));
}

static void report_free_pages(const json_t *record)
{
    const json_t *pages = gw_field_object(record, "free_pages");
    int64_t bytes = gw_field_int(pages, "not_sent_bytes");

    if (bytes > 0)
        gw_cli_print("  left out  %s or more, which the guest had free",
                     gw_units_bytes(bytes).text);
}

static void report_breakdown(const json_t *record)
{
    static const struct {
        const char *key, *name;
    } parts[] = {{"stop_ms", "stop"},
                 {"last_pages_ms", "last pages"},
                 {"device_ms", "devices"},
                 {"transfer_ms", "transfer"},
                 {"load_ms", "load"},
                 {"confirm_ms", "confirm"},
                 {"verify_ms", "verify"},
                 {"commit_ms", "commit"},
                 {"resume_ms", "resume"},
                 {"first_packet_ms", "then to the first packet"},
                 {"lock_ms", "to the lock of the disks"},
                 {"lock_wait_ms", "a write waited for it"}};
    const json_t *breakdown = gw_field_object(record, "breakdown");
    const char *before = "  blackout  ";

    for (unsigned i = 0; i < GW_ARRAY_SIZE(parts); i++) {
        int64_t ms = gw_field_int(breakdown, parts[i].key);

        if (ms < 0)
            continue;
        printf("%s%s %s", before, parts[i].name, gw_units_ms(ms).text);
        before = ", ";
    }
    if (strcmp(before, ", ") == 0)
        putchar('\n');
}

static void report_verify(const json_t *record)
{
    const json_t *verify = gw_field_object(record, "verify");

    if (verify && gw_field_bool(verify, "equal"))
        gw_cli_print("  verified  %s of memory are the same on both nodes",
                     gw_units_bytes(gw_field_int(verify, "bytes")).text);
}

void gw_report_moved(const json_t *record)
{
    int64_t blackout = gw_field_int(record, "blackout_ms");
    gw_autofree char *line =
        gw_text_format("%s moved from %s to %s in %s, blackout %s", gw_field_str(record, "vm", "?"),
                       gw_field_str(record, "from", "?"), gw_field_str(record, "to", "?"),
                       gw_units_ms(gw_field_int(record, "total_ms")).text,
                       blackout < 0 ? "not known" : gw_units_ms(blackout).text);

    gw_text_paint(stdout, GW_TEXT_GREEN, line);
    putchar('\n');
    report_volume(record);
    report_free_pages(record);
    report_breakdown(record);
    report_verify(record);
    gw_report_findings(gw_field_array(record, "warnings"));
}

void gw_report_route(const json_t *decisions)
{
    json_t *decision;
    size_t i;

    json_array_foreach (decisions, i, decision)
        if (strcmp(gw_field_str(decision, "rule", ""), "route") == 0)
            gw_cli_print("  route     %s: %s", gw_field_str(decision, "chosen", "?"),
                         gw_field_str(decision, "because", "?"));
}

static void report_finding(const json_t *finding)
{
    const char *level = gw_field_str(finding, "level", "note");
    const char *hint = gw_field_str(finding, "hint", "");
    gw_autofree char *before = gw_text_format("%s: ", level);

    gw_text_paint(stdout, strcmp(level, "error") == 0 ? GW_TEXT_RED : GW_TEXT_YELLOW, before);
    gw_cli_print("%s%s%s", gw_field_str(finding, "subject", ""),
                 *gw_field_str(finding, "subject", "") ? ": " : "",
                 gw_field_str(finding, "message", "?"));
    if (*hint)
        gw_cli_print("  %s", hint);
}

void gw_report_findings(const json_t *findings)
{
    size_t i;
    json_t *finding;

    json_array_foreach (findings, i, finding)
        report_finding(finding);
}

static void report_inputs(const json_t *inputs)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)inputs, key, value) {
        gw_autofree char *text = value_text(value);

        gw_cli_print("      %s = %s", key, text);
    }
}

static void report_decision(const json_t *decision)
{
    gw_autofree char *chosen = value_text(json_object_get(decision, "chosen") ?: json_null());
    const json_t *others = gw_field_array(decision, "instead_of");
    size_t i;
    json_t *other;

    gw_cli_print("%s  %s  %s: %s", gw_units_ms(gw_field_int(decision, "at_ms")).text,
                 gw_field_str(decision, "phase", "?"), gw_field_str(decision, "rule", "?"), chosen);
    json_array_foreach (others, i, other) {
        gw_autofree char *text = value_text(other);

        gw_cli_print("    instead of %s", text);
    }
    gw_cli_print("    because %s", gw_field_str(decision, "because", "(no reason given)"));
    report_inputs(gw_field_object(decision, "inputs"));
}

void gw_report_decisions(const json_t *record)
{
    const json_t *decisions = gw_field_array(record, "decisions");
    size_t i;
    json_t *decision;

    if (json_array_size(decisions) == 0)
        gw_cli_print("%s: no decisions recorded", gw_field_str(record, "id", "?"));
    json_array_foreach (decisions, i, decision)
        report_decision(decision);
}

static void add_migration(struct gw_table *t, const json_t *m)
{
    const json_t *p = gw_field_object(m, "progress");
    bool over = gw_field_is_over(m);
    int64_t total = gw_field_int(m, "total_ms");

    gw_table_add(t, "%s", gw_field_str(m, "id", "?"));
    gw_table_add(t, "%s", gw_field_str(m, "vm", "?"));
    gw_table_add(t, "%s", gw_field_str(m, "from", "?"));
    gw_table_add(t, "%s", gw_field_str(m, "to", "?"));
    gw_table_add(t, "%s", gw_field_str(m, "state", "?"));
    gw_table_add(t, "%s", gw_units_ms(total >= 0 ? total : gw_field_int(p, "elapsed_ms")).text);
    gw_table_add(t, "%s", gw_units_ms(gw_field_int(m, "blackout_ms")).text);
    gw_table_add(t, "%s", over ? "" : gw_units_rate(gw_field_int(p, "rate_bytes_per_s")).text);
    gw_table_add(t, "%s", over ? "" : gw_units_bytes(gw_field_int(p, "remaining_bytes")).text);
    gw_table_add(t, "%s", gw_field_str(gw_field_object(m, "error"), "message", ""));
}

/* The daemon may list them oldest first or newest first. */
static int by_start(const void *a, const void *b)
{
    return strcmp(gw_field_str(*(json_t *const *)a, "started_at", ""),
                  gw_field_str(*(json_t *const *)b, "started_at", ""));
}

static json_t **sorted_by_start(const json_t *list, size_t n)
{
    json_t **sorted = gw_text_no_memory(calloc(n + 1, sizeof *sorted));

    for (size_t i = 0; i < n; i++)
        sorted[i] = json_array_get(list, i);
    qsort(sorted, n, sizeof *sorted, by_start);
    return sorted;
}

unsigned gw_report_migrations(const json_t *list, FILE *out, const struct gw_report_limits *limits)
{
    size_t n = json_array_size(list), n_over = 0;
    gw_autofree json_t **sorted = sorted_by_start(list, n);
    GW_TABLE_AUTO struct gw_table t;

    gw_table_init(&t, "ID,VM,FROM,TO,STATE,TIME,BLACKOUT,RATE,LEFT,ERROR");
    for (size_t i = 0; i < n; i++) {
        if (gw_field_is_over(sorted[i]))
            n_over++;
        else
            add_migration(&t, sorted[i]);
    }
    for (size_t i = 0; i < n; i++)
        if (gw_field_is_over(sorted[i]) && n_over-- <= limits->over)
            add_migration(&t, sorted[i]);
    if (t.n_cells > t.n_columns)
        return gw_table_print(&t, out, limits->columns, limits->rows);
    fputs("no migrations\n", out);
    return 1;
}

void gw_report_fields(const json_t *object)
{
    int width = 0;
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)object, key, value)
        width = (int)strlen(key) > width && strlen(key) < 40 ? (int)strlen(key) : width;
    json_object_foreach ((json_t *)object, key, value) {
        gw_autofree char *text = NULL;
        size_t len = strlen(key);

        if (json_is_object(value) || json_is_array(value) || json_is_null(value))
            continue;
        if (len > 6 && strcmp(key + len - 6, "_bytes") == 0 && json_is_integer(value))
            text = gw_text_clean(gw_units_bytes(json_integer_value(value)).text);
        else
            text = value_text(value);
        gw_cli_print("%-*s  %s", width, key, text);
    }
}
