/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/facts.h"
#include "host/findings.h"

static const char *const level_names[] = {
    [GW_FINDING_ERROR] = "error",
    [GW_FINDING_WARNING] = "warning",
    [GW_FINDING_INFO] = "info",
};

enum { N_LEVELS = sizeof level_names / sizeof level_names[0] };

void gw_findings_fini(struct gw_findings *list)
{
    free(list->items);
    *list = (struct gw_findings){0};
}

/*
 * Makes a text fit to be shown and sent: no control characters, and no half of a UTF-8 sequence
 * at the end, where vsnprintf() may have cut it. Sequences inside come from JSON, so are valid.
 */
static void tidy(char *text)
{
    size_t n = strlen(text), start = n, need = 1;

    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = ' ';
    while (start > 0 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0 || (unsigned char)text[start - 1] < 0xc0)
        return;
    start--;
    need = (unsigned char)text[start] >= 0xf0 ? 4 : (unsigned char)text[start] >= 0xe0 ? 3 : 2;
    if (n - start < need)
        text[start] = '\0';
}

static struct gw_finding *append(struct gw_findings *list, enum gw_finding_level level)
{
    struct gw_finding *items = list->items;
    size_t n = list->n_allocated;

    list->n_errors += level == GW_FINDING_ERROR;
    list->n_warnings += level == GW_FINDING_WARNING;
    if (list->n_items == n && n < GW_FINDINGS_MAX) {
        n = n ? 2 * n : 8;
        items = realloc(items, n * sizeof *items);
        if (items) {
            list->items = items;
            list->n_allocated = n;
        }
    }
    if (list->n_items == list->n_allocated) {
        list->incomplete = true;
        return NULL;
    }
    items = &list->items[list->n_items++];
    *items = (struct gw_finding){.level = level};
    return items;
}

struct gw_finding *gw_findings_add(struct gw_findings *list, enum gw_finding_level level,
                                   const char *code, const char *subject, const char *format, ...)
{
    struct gw_finding *f = append(list, level);
    va_list ap;

    if (!f)
        return NULL;
    snprintf(f->code, sizeof f->code, "%s", code);
    snprintf(f->subject, sizeof f->subject, "%s", subject);
    va_start(ap, format);
    vsnprintf(f->message, sizeof f->message, format, ap);
    va_end(ap);
    tidy(f->subject);
    tidy(f->message);
    return f;
}

void gw_finding_hint(struct gw_finding *f, const char *format, ...)
{
    va_list ap;

    if (!f)
        return;
    va_start(ap, format);
    vsnprintf(f->hint, sizeof f->hint, format, ap);
    va_end(ap);
    tidy(f->hint);
}

bool gw_findings_ok(const struct gw_findings *list)
{
    return list->n_errors == 0;
}

const struct gw_finding *gw_findings_first_error(const struct gw_findings *list)
{
    for (size_t i = 0; i < list->n_items; i++)
        if (list->items[i].level == GW_FINDING_ERROR)
            return &list->items[i];
    return NULL;
}

const char *gw_finding_level_name(enum gw_finding_level level)
{
    return (unsigned)level < N_LEVELS ? level_names[level] : "unknown";
}

json_t *gw_findings_to_json(const struct gw_findings *list)
{
    json_t *array = json_array();

    for (size_t i = 0; array && i < list->n_items; i++) {
        const struct gw_finding *f = &list->items[i];
        json_t *item =
            json_pack("{s:s, s:s, s:s, s:s, s:s}", "level", gw_finding_level_name(f->level), "code",
                      f->code, "subject", f->subject, "message", f->message, "hint", f->hint);

        if (json_array_append_new(array, item) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static bool is_code(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-");

    return n > 0 && n < sizeof((struct gw_finding *)0)->code && s[n] == '\0';
}

static int read_one(const json_t *json, struct gw_findings *list)
{
    const char *level, *code, *subject = "", *message, *hint = "";
    struct gw_finding *f;
    unsigned l = 0;

    if (json_unpack((json_t *)json, "{s:s, s:s, s?s, s:s, s?s}", "level", &level, "code", &code,
                    "subject", &subject, "message", &message, "hint", &hint) < 0)
        return -1;
    while (l < N_LEVELS && strcmp(level_names[l], level) != 0)
        l++;
    if (l == N_LEVELS || !is_code(code))
        return -1;
    f = gw_findings_add(list, (enum gw_finding_level)l, code, subject, "%s", message);
    gw_finding_hint(f, "%s", hint);
    return 0;
}

int gw_findings_from_json(struct gw_findings *list, const json_t *json, struct gw_error *e)
{
    struct gw_findings before = *list;

    if (gw_facts_sane(json, e) < 0)
        return gw_error_prefix(e, "findings");
    if (!json_is_array(json) || json_array_size(json) > GW_FINDINGS_MAX)
        return gw_error_set(e, GW_E_PROTOCOL, "findings are no array of at most %d",
                            GW_FINDINGS_MAX);
    for (size_t i = 0; i < json_array_size(json); i++) {
        if (read_one(json_array_get(json, i), list) == 0)
            continue;
        before.items = list->items;
        before.n_allocated = list->n_allocated;
        *list = before;
        return gw_error_set(e, GW_E_PROTOCOL, "finding %zu is malformed", i);
    }
    return 0;
}
