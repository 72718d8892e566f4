/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "host/yamlpos.h"
#include "util/cleanup.h"

#define PATH_SIZE    256
#define KEY_MAX      32u
#define ENTRIES_STEP 64u

struct scan {
    yaml_parser_t parser;
    struct gw_yamlpos *pos;
    const char *text;
    size_t len;
    const char *file;
    struct gw_error *e;
};

static int scan_node(struct scan *scan, const char *path, unsigned depth, const yaml_event_t *event,
                     bool record);

static int fail_at(struct scan *scan, size_t line, const char *reason)
{
    return gw_error_set(scan->e, GW_E_CONFIG, "%s:%zu: %s", scan->file, line, reason);
}

/* The reader fails before there are marks: it knows only how many bytes it had taken. */
static size_t line_of_offset(const struct scan *scan, size_t offset)
{
    size_t line = 1;

    for (size_t i = 0; i < offset && i < scan->len; i++)
        line += scan->text[i] == '\n';
    return line;
}

static int next(struct scan *scan, yaml_event_t *event)
{
    const yaml_parser_t *parser = &scan->parser;

    if (yaml_parser_parse(&scan->parser, event))
        return 0;
    if (parser->error == YAML_MEMORY_ERROR)
        return gw_error_set_sys(scan->e, ENOMEM, "%s", scan->file);
    return fail_at(scan,
                   parser->error == YAML_READER_ERROR ? line_of_offset(scan, parser->problem_offset)
                                                      : parser->problem_mark.line + 1,
                   parser->problem ? parser->problem : "not YAML");
}

static bool seen(const struct gw_yamlpos *pos, const char *path)
{
    for (size_t i = 0; i < pos->n_entries; i++)
        if (strcmp(pos->entries[i].path, path) == 0)
            return true;
    return false;
}

static int record_entry(struct scan *scan, const char *path, const char *leaf,
                        const yaml_event_t *event)
{
    struct gw_yamlpos *pos = scan->pos;
    struct gw_yamlpos_entry *entry;

    if (pos->n_entries == GW_YAMLPOS_MAX_ENTRIES)
        return fail_at(scan, event->start_mark.line + 1, "too many values");
    if (pos->n_entries % ENTRIES_STEP == 0) {
        void *more = realloc(pos->entries, (pos->n_entries + ENTRIES_STEP) * sizeof *entry);

        if (!more)
            return gw_error_set_sys(scan->e, ENOMEM, "%s", scan->file);
        pos->entries = more;
    }
    entry = &pos->entries[pos->n_entries];
    entry->path = strdup(path);
    if (!entry->path)
        return gw_error_set_sys(scan->e, ENOMEM, "%s", scan->file);
    entry->leaf = entry->path + (leaf - path);
    entry->line = event->start_mark.line + 1;
    entry->column = event->start_mark.column + 1;
    pos->n_entries++;
    return 0;
}

static bool key_is_plain(const yaml_event_t *event)
{
    const char *key = (const char *)event->data.scalar.value;
    size_t len = event->data.scalar.length;

    if (event->type != YAML_SCALAR_EVENT || len == 0 || len > KEY_MAX || event->data.scalar.anchor)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", key[i]) ||
            key[i] == '\0')
            return false;
    return true;
}

static int scan_pair(struct scan *scan, const char *parent, unsigned depth,
                     const yaml_event_t *key_event)
{
    char path[PATH_SIZE], reason[PATH_SIZE];
    const char *key = (const char *)key_event->data.scalar.value;
    size_t line = key_event->start_mark.line + 1;
    yaml_event_t value;
    int len, rc;

    if (!key_is_plain(key_event))
        return fail_at(scan, line,
                       "a key must be a word of letters, digits, '_' and '-' (at most 32)");
    len = snprintf(path, sizeof path, "%s%s%s", parent, *parent ? "." : "", key);
    if (len < 0 || (size_t)len >= sizeof path)
        return fail_at(scan, line, "nested too deep");
    if (seen(scan->pos, path)) {
        snprintf(reason, sizeof reason, "the key '%s' stands here for the second time", key);
        return fail_at(scan, line, reason);
    }
    if (record_entry(scan, path, path + len - strlen(key), key_event) < 0 || next(scan, &value) < 0)
        return -1;
    rc = scan_node(scan, path, depth, &value, false);
    yaml_event_delete(&value);
    return rc;
}

static int scan_children(struct scan *scan, const char *parent, unsigned depth, bool is_map)
{
    char path[PATH_SIZE];
    yaml_event_t event;
    int rc = 0;

    for (unsigned i = 0; rc == 0; i++) {
        if (next(scan, &event) < 0)
            return -1;
        if (event.type == (is_map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT)) {
            yaml_event_delete(&event);
            return 0;
        }
        if (is_map) {
            rc = scan_pair(scan, parent, depth, &event);
        } else if (snprintf(path, sizeof path, "%s[%u]", parent, i) < (int)sizeof path) {
            rc = scan_node(scan, path, depth, &event, true);
        } else {
            rc = fail_at(scan, event.start_mark.line + 1, "nested too deep");
        }
        yaml_event_delete(&event);
    }
    return rc;
}

static int scan_scalar(struct scan *scan, const yaml_event_t *event)
{
    if (event->data.scalar.anchor)
        return fail_at(scan, event->start_mark.line + 1, "anchors (&name) are not supported here");
    if (event->data.scalar.tag)
        return fail_at(scan, event->start_mark.line + 1, "tags (!name) are not supported here");
    if (memchr(event->data.scalar.value, '\0', event->data.scalar.length))
        return fail_at(scan, event->start_mark.line + 1, "a NUL byte in a string");
    return 0;
}

static int scan_collection(struct scan *scan, const char *path, unsigned depth,
                           const yaml_event_t *event, bool is_map)
{
    const yaml_char_t *anchor =
        is_map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    const yaml_char_t *tag =
        is_map ? event->data.mapping_start.tag : event->data.sequence_start.tag;

    if (anchor)
        return fail_at(scan, event->start_mark.line + 1, "anchors (&name) are not supported here");
    if (tag)
        return fail_at(scan, event->start_mark.line + 1, "tags (!name) are not supported here");
    if (depth >= GW_YAMLPOS_MAX_DEPTH)
        return fail_at(scan, event->start_mark.line + 1, "nested too deep");
    return scan_children(scan, path, depth + 1, is_map);
}

static int scan_node(struct scan *scan, const char *path, unsigned depth, const yaml_event_t *event,
                     bool record)
{
    const char *leaf = strrchr(path, '[');

    if (record && record_entry(scan, path, leaf ? leaf : path, event) < 0)
        return -1;
    switch (event->type) {
    case YAML_SCALAR_EVENT: return scan_scalar(scan, event);
    case YAML_MAPPING_START_EVENT: return scan_collection(scan, path, depth, event, true);
    case YAML_SEQUENCE_START_EVENT: return scan_collection(scan, path, depth, event, false);
    case YAML_ALIAS_EVENT:
        return fail_at(scan, event->start_mark.line + 1, "aliases (*name) are not supported here");
    default: return fail_at(scan, event->start_mark.line + 1, "not a value");
    }
}

/* One event that is not part of the document itself, of one of the two types. */
static int expect(struct scan *scan, yaml_event_type_t type, yaml_event_type_t otherwise,
                  const char *reason)
{
    yaml_event_t event;
    yaml_event_type_t got;
    size_t line;

    if (next(scan, &event) < 0)
        return -1;
    got = event.type;
    line = event.start_mark.line + 1;
    yaml_event_delete(&event);
    return got == type || got == otherwise ? 0 : fail_at(scan, line, reason);
}

static int scan_stream(struct scan *scan)
{
    yaml_event_t root;
    int rc;

    if (expect(scan, YAML_STREAM_START_EVENT, YAML_STREAM_START_EVENT, "not YAML") < 0 ||
        expect(scan, YAML_DOCUMENT_START_EVENT, YAML_DOCUMENT_START_EVENT, "nothing in here") < 0 ||
        next(scan, &root) < 0)
        return -1;
    rc = root.type == YAML_MAPPING_START_EVENT
             ? scan_node(scan, "", 0, &root, false)
             : fail_at(scan, root.start_mark.line + 1, "expected 'key: value' lines at the top");
    yaml_event_delete(&root);
    if (rc < 0)
        return -1;
    if (expect(scan, YAML_DOCUMENT_END_EVENT, YAML_DOCUMENT_END_EVENT, "not YAML") < 0)
        return -1;
    return expect(scan, YAML_STREAM_END_EVENT, YAML_STREAM_END_EVENT,
                  "a second document begins here: one file, one document");
}

int gw_yamlpos_init(struct gw_yamlpos *pos, const char *text, size_t len, const char *file,
                    struct gw_error *e)
{
    struct scan scan = {.pos = pos, .text = text, .len = len, .file = file, .e = e};
    int rc;

    *pos = (struct gw_yamlpos){0};
    if (!yaml_parser_initialize(&scan.parser))
        return gw_error_set_sys(e, ENOMEM, "%s", file);
    yaml_parser_set_encoding(&scan.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&scan.parser, (const unsigned char *)text, len);
    rc = scan_stream(&scan);
    yaml_parser_delete(&scan.parser);
    if (rc < 0)
        gw_yamlpos_fini(pos);
    return rc;
}

void gw_yamlpos_fini(struct gw_yamlpos *pos)
{
    for (size_t i = 0; i < pos->n_entries; i++)
        free(pos->entries[i].path);
    free(pos->entries);
    *pos = (struct gw_yamlpos){0};
}

static size_t line_of(const struct gw_yamlpos *pos, const char *path, size_t len)
{
    for (size_t i = 0; i < pos->n_entries; i++) {
        const char *other = pos->entries[i].path;

        if (strncmp(other, path, len) == 0 && other[len] == '\0')
            return pos->entries[i].line;
    }
    return 0;
}

size_t gw_yamlpos_line(const struct gw_yamlpos *pos, const char *path)
{
    size_t line = 0;

    for (size_t len = strlen(path); len > 0 && line == 0; len--)
        if (path[len] == '\0' || path[len] == '.' || path[len] == '[')
            line = line_of(pos, path, len);
    return line;
}

static size_t depth_of(const char *path)
{
    size_t depth = 1;

    for (; *path; path++)
        depth += *path == '.' || *path == '[';
    return depth;
}

const struct gw_yamlpos_entry *gw_yamlpos_after(const struct gw_yamlpos *pos, const char *leaf,
                                                size_t depth, size_t line, size_t column)
{
    for (size_t i = 0; i < pos->n_entries; i++) {
        const struct gw_yamlpos_entry *entry = &pos->entries[i];

        if (entry->line < line || (entry->line == line && entry->column < column))
            continue;
        if (strcmp(entry->leaf, leaf) == 0 && depth_of(entry->path) == depth)
            return entry;
    }
    return NULL;
}
