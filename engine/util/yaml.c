/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <yaml.h>

#include "util/cleanup.h"
#include "util/yaml.h"

/* Everything about the text that a check needs to complain about it. */
struct source {
    const char *file;
    yaml_document_t doc;
    bool has_doc;
    struct gw_error *e;
};

static void source_fini(struct source *s)
{
    if (s->has_doc)
        yaml_document_delete(&s->doc);
}

/* Text from a file must not be able to drive the terminal that shows it. */
static void make_printable(struct gw_error *e)
{
    char *texts[] = {e->msg, e->hint};

    for (size_t t = 0; t < GW_ARRAY_SIZE(texts); t++)
        for (char *c = texts[t]; *c; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f)
                *c = '?';
}

/* line counts from 1; 0 where none is known. */
__attribute__((format(printf, 4, 5))) static int complain(struct gw_error *e, const char *file,
                                                          size_t line, const char *fmt, ...)
{
    char reason[384];
    va_list ap;

    if (!e)
        return -1;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    if (line)
        gw_error_set(e, GW_E_CONFIG, "%s:%zu: %s", file, line, reason);
    else
        gw_error_set(e, GW_E_CONFIG, "%s: %s", file, reason);
    make_printable(e);
    return -1;
}

static size_t line_of(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

static const char *text_of(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

/* libyaml gives a mark for what it did not understand, but only an offset for what is no UTF-8. */
static size_t problem_line(const yaml_parser_t *parser, const char *text, size_t len)
{
    size_t line = 1;

    /* what is missing at the end is missing on the last line that says something */
    while (len > 0 && isspace((unsigned char)text[len - 1]))
        len--;
    if (parser->error != YAML_READER_ERROR) {
        size_t last = 1;

        for (size_t i = 0; i < len; i++)
            last += text[i] == '\n';
        return parser->problem_mark.line < last ? parser->problem_mark.line + 1 : last;
    }
    for (size_t i = 0; i < len && i < parser->problem_offset; i++)
        line += text[i] == '\n';
    return line;
}

static int complain_of_parser(const struct source *s, const yaml_parser_t *parser, const char *text,
                              size_t len)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return gw_error_set_sys(s->e, ENOMEM, "read %s", s->file);
    return complain(s->e, s->file, problem_line(parser, text, len), "%s",
                    parser->problem ? parser->problem : "not YAML");
}

/* What a configuration does not need and an attacker would like. */
struct exotics {
    unsigned depth, n_docs;
};

static const char *exotic(struct exotics *x, const yaml_event_t *event)
{
    static const char anchors[] = "anchors (&name) are not supported",
                      tags[] = "tags (!name) are not supported";

    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return x->n_docs++ ? "a second document begins: one file, one document" : NULL;
    case YAML_ALIAS_EVENT: return "aliases (*name) are not supported";
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor ? anchors : event->data.scalar.tag ? tags : NULL;
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        if (++x->depth > GW_YAML_MAX_DEPTH)
            return "nested too deep";
        if (event->type == YAML_SEQUENCE_START_EVENT)
            return event->data.sequence_start.anchor ? anchors
                   : event->data.sequence_start.tag  ? tags
                                                     : NULL;
        return event->data.mapping_start.anchor ? anchors
               : event->data.mapping_start.tag  ? tags
                                                : NULL;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: x->depth--; return NULL;
    default: return NULL;
    }
}

/* Goes through the whole text before anything is built of it. */
static int refuse_exotics(struct source *s, yaml_parser_t *parser, const char *text, size_t len)
{
    struct exotics exotics = {0};
    yaml_event_t event;
    bool end = false;

    while (!end) {
        const char *why;
        size_t line;

        if (!yaml_parser_parse(parser, &event))
            return complain_of_parser(s, parser, text, len);
        why = exotic(&exotics, &event);
        line = event.start_mark.line + 1;
        end = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (why)
            return complain(s->e, s->file, line, "%s", why);
    }
    return 0;
}

static int with_parser(struct source *s, const char *text, size_t len,
                       int (*use)(struct source *, yaml_parser_t *, const char *, size_t))
{
    yaml_parser_t parser;
    int rc;

    if (!yaml_parser_initialize(&parser))
        return gw_error_set_sys(s->e, ENOMEM, "read %s", s->file);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    rc = use(s, &parser, text, len);
    yaml_parser_delete(&parser);
    return rc;
}

static int build(struct source *s, yaml_parser_t *parser, const char *text, size_t len)
{
    s->has_doc = yaml_parser_load(parser, &s->doc);
    return s->has_doc ? 0 : complain_of_parser(s, parser, text, len);
}

static int parse(struct source *s, const char *text, size_t len)
{
    if (with_parser(s, text, len, refuse_exotics) < 0 || with_parser(s, text, len, build) < 0)
        return -1;
    return yaml_document_get_root_node(&s->doc) ? 0 : complain(s->e, s->file, 0, "is empty");
}

/* "0", "-12", "0x1f": what everybody reads as the same number. */
static bool is_number(const char *text)
{
    text += *text == '-';
    if (text[0] == '0' && text[1] == 'x')
        return text[2] && strspn(text + 2, "0123456789abcdefABCDEF") == strlen(text + 2);
    if (text[0] == '0')
        return text[1] == '\0';
    return *text && strspn(text, "0123456789") == strlen(text);
}

static bool is_bool(const char *text)
{
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off"};

    for (size_t i = 0; i < GW_ARRAY_SIZE(words); i++)
        if (strcasecmp(words[i], text) == 0)
            return true;
    return false;
}

static int check_enum(struct source *s, const yaml_node_t *node,
                      const struct cyaml_schema_value *schema, const char *key)
{
    char names[200] = "";
    size_t used = 0;

    for (uint32_t i = 0; i < schema->enumeration.count; i++) {
        const char *name = schema->enumeration.strings[i].str;

        if (strcmp(name, text_of(node)) == 0)
            return 0;
        if (used < sizeof names)
            used +=
                (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", name);
    }
    return complain(s->e, s->file, line_of(node), "%s: '%.60s' is not one of %s", key,
                    text_of(node), names);
}

static int check_scalar(struct source *s, const yaml_node_t *node,
                        const struct cyaml_schema_value *schema, const char *key)
{
    const char *text = text_of(node);

    if (strlen(text) != node->data.scalar.length)
        return complain(s->e, s->file, line_of(node), "%s: holds a NUL byte", key);
    if (!schema)
        return 0;
    if ((schema->type == CYAML_INT || schema->type == CYAML_UINT) && !is_number(text))
        return complain(s->e, s->file, line_of(node), "%s: '%.60s' is not a number", key, text);
    if (schema->type == CYAML_BOOL && !is_bool(text))
        return complain(s->e, s->file, line_of(node), "%s: '%.60s' is neither true nor false", key,
                        text);
    if (schema->type == CYAML_ENUM)
        return check_enum(s, node, schema, key);
    return 0;
}

static const char *kind_name(yaml_node_type_t type)
{
    switch (type) {
    case YAML_SEQUENCE_NODE: return "a list";
    case YAML_MAPPING_NODE: return "a mapping ('key: value' or {key: value})";
    default: return "a single value";
    }
}

/* What the schema asks for; YAML_NO_NODE where it may be of several kinds. */
static yaml_node_type_t wanted_kind(const struct cyaml_schema_value *schema)
{
    switch (schema->type) {
    case CYAML_INT:
    case CYAML_UINT:
    case CYAML_BOOL:
    case CYAML_ENUM:
    case CYAML_FLOAT:
    case CYAML_STRING: return YAML_SCALAR_NODE;
    case CYAML_MAPPING: return YAML_MAPPING_NODE;
    case CYAML_SEQUENCE:
    case CYAML_SEQUENCE_FIXED: return YAML_SEQUENCE_NODE;
    default: return YAML_NO_NODE;
    }
}

static int check_kind(struct source *s, const yaml_node_t *node,
                      const struct cyaml_schema_value *schema, const char *key)
{
    yaml_node_type_t wanted = schema ? wanted_kind(schema) : YAML_NO_NODE;

    if (wanted == YAML_NO_NODE || wanted == node->type)
        return 0;
    return complain(s->e, s->file, line_of(node), "%s: expected %s, found %s", key,
                    kind_name(wanted), kind_name(node->type));
}

static int check(struct source *s, int index, const struct cyaml_schema_value *schema,
                 const char *key);

static int check_sequence(struct source *s, const yaml_node_t *node,
                          const struct cyaml_schema_value *schema, const char *key)
{
    const struct cyaml_schema_value *entry = NULL;

    if (schema && (schema->type == CYAML_SEQUENCE || schema->type == CYAML_SEQUENCE_FIXED))
        entry = schema->sequence.entry;
    for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top;
         i++)
        if (check(s, *i, entry, key) < 0)
            return -1;
    return 0;
}

static const struct cyaml_schema_field *field_named(const struct cyaml_schema_field *fields,
                                                    const char *key)
{
    for (; fields && fields->key; fields++)
        if (strcmp(fields->key, key) == 0)
            return fields;
    return NULL;
}

#define KEY_MAX 32 /* bytes of a key that anybody could mean */

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;

    return least < c ? least : c;
}

/* The number of letters to change, insert or remove; KEY_MAX where a word is longer than that. */
static size_t distance(const char *a, const char *b)
{
    size_t row[KEY_MAX + 1], diagonal, above;

    if (strlen(a) > KEY_MAX || strlen(b) > KEY_MAX)
        return KEY_MAX;
    for (size_t j = 0; j <= strlen(b); j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; b[j]; j++) {
            above = row[j + 1];
            row[j + 1] = min3(above + 1, row[j] + 1, diagonal + (a[i] != b[j]));
            diagonal = above;
        }
    }
    return row[strlen(b)];
}

static int unknown_key(struct source *s, const yaml_node_t *key,
                       const struct cyaml_schema_field *fields)
{
    const char *meant = NULL;
    char names[200] = "";
    size_t used = 0, least = 3;

    complain(s->e, s->file, line_of(key), "unknown key '%.60s'", text_of(key));
    for (const struct cyaml_schema_field *f = fields; f->key; f++) {
        size_t far = distance(text_of(key), f->key);

        if (far < least && far < strlen(f->key)) {
            least = far;
            meant = f->key;
        }
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                     f == fields ? "" : ", ", f->key);
    }
    if (meant)
        return gw_error_hint(s->e, "did you mean '%s'?", meant);
    return gw_error_hint(s->e, "known keys: %s", names);
}

static const yaml_node_pair_t *pair_named(struct source *s, const yaml_node_t *mapping,
                                          const char *key)
{
    const yaml_node_pair_t *p = mapping->data.mapping.pairs.start;

    for (; p < mapping->data.mapping.pairs.top; p++) {
        const yaml_node_t *k = yaml_document_get_node(&s->doc, p->key);

        if (k->type == YAML_SCALAR_NODE && strcmp(text_of(k), key) == 0)
            return p;
    }
    return NULL;
}

static int check_pair(struct source *s, const yaml_node_t *mapping, const yaml_node_pair_t *pair,
                      const struct cyaml_schema_field *fields)
{
    const yaml_node_t *key = yaml_document_get_node(&s->doc, pair->key);
    const struct cyaml_schema_field *field = NULL;

    if (key->type != YAML_SCALAR_NODE)
        return complain(s->e, s->file, line_of(key), "a key must be a plain word");
    if (check(s, pair->key, NULL, "a key") < 0)
        return -1;
    if (pair_named(s, mapping, text_of(key)) != pair)
        return complain(s->e, s->file, line_of(key), "key '%.60s' is given twice", text_of(key));
    if (fields && !(field = field_named(fields, text_of(key))))
        return unknown_key(s, key, fields);
    return check(s, pair->value, field ? &field->value : NULL, text_of(key));
}

static int check_mapping(struct source *s, const yaml_node_t *node,
                         const struct cyaml_schema_value *schema)
{
    const struct cyaml_schema_field *fields = NULL;

    if (schema && schema->type == CYAML_MAPPING)
        fields = schema->mapping.fields;
    /* pair_named() makes this quadratic: no file that a person wrote comes near the limit. */
    if (node->data.mapping.pairs.top - node->data.mapping.pairs.start > 256)
        return complain(s->e, s->file, line_of(node), "more than 256 keys in one place");
    for (const yaml_node_pair_t *p = node->data.mapping.pairs.start;
         p < node->data.mapping.pairs.top; p++)
        if (check_pair(s, node, p, fields) < 0)
            return -1;
    for (; fields && fields->key; fields++)
        if (!(fields->value.flags & CYAML_FLAG_OPTIONAL) && !pair_named(s, node, fields->key))
            return complain(s->e, s->file, line_of(node), "key '%s' is missing", fields->key);
    return 0;
}

/* One value and what is inside it. schema is NULL below a value of a type the schema has not. */
static int check(struct source *s, int index, const struct cyaml_schema_value *schema,
                 const char *key)
{
    const yaml_node_t *node = yaml_document_get_node(&s->doc, index);

    if (check_kind(s, node, schema, key) < 0)
        return -1;
    switch (node->type) {
    case YAML_SCALAR_NODE: return check_scalar(s, node, schema, key);
    case YAML_SEQUENCE_NODE: return check_sequence(s, node, schema, key);
    case YAML_MAPPING_NODE: return check_mapping(s, node, schema);
    case YAML_NO_NODE: break;
    }
    return 0;
}

/* libcyaml says what is wrong in one log line and where in the ones after "Backtrace:". */
struct complaint {
    char reason[200];
    char where[200];
};

__attribute__((format(printf, 3, 0))) static void collect(cyaml_log_t level, void *ctx,
                                                          const char *fmt, va_list args)
{
    struct complaint *c = ctx;
    char line[200];
    char *text = line;

    if (level < CYAML_LOG_ERROR)
        return;
    vsnprintf(line, sizeof line, fmt, args);
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(text, "Load: ", 6) == 0)
        text += 6;
    if (strncmp(text, "  in ", 5) == 0) {
        if (!c->where[0])
            snprintf(c->where, sizeof c->where, "%s", text + 5);
    } else if (strcmp(text, "Backtrace:") != 0 && !c->reason[0]) {
        snprintf(c->reason, sizeof c->reason, "%s", text);
    }
}

/* "mapping field 'port' (line: 2, column: 7)" to 2 and "port: ". */
static int retell(struct gw_error *e, const char *file, const struct complaint *c, cyaml_err_t err)
{
    const char *at = strstr(c->where, "(line: ");
    size_t line = at ? strtoul(at + strlen("(line: "), NULL, 10) : 0;
    char key[80] = "";

    if (sscanf(c->where, "mapping field '%70[^']'", key) == 1)
        strcat(key, ": ");
    return complain(e, file, line, "%s%s", key, c->reason[0] ? c->reason : cyaml_strerror(err));
}

static int map(const char *text, size_t len, const char *file, const cyaml_schema_value_t *schema,
               void **outp, struct gw_error *e)
{
    struct complaint complaint = {0};
    const cyaml_config_t config = {
        .log_fn = collect,
        .log_ctx = &complaint,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_NO_ALIAS,
    };
    cyaml_err_t err = cyaml_load_data((const uint8_t *)text, len, &config, schema, outp, NULL);

    if (err == CYAML_OK && *outp)
        return 0;
    *outp = NULL;
    return retell(e, file, &complaint, err);
}

int gw_yaml_load(const char *text, size_t len, const char *file, const cyaml_schema_value_t *schema,
                 void **outp, struct gw_error *e)
{
    GW_CLEANUP(source_fini) struct source s = {.file = file, .e = e};

    *outp = NULL;
    if (len > GW_YAML_MAX_BYTES)
        return complain(e, file, 0, "is larger than %d KiB", GW_YAML_MAX_BYTES / 1024);
    if (parse(&s, text, len) < 0)
        return -1;
    if (check(&s, 1, schema, "the file") < 0)
        return -1;
    return map(text, len, file, schema, outp, e);
}

void gw_yaml_free(const cyaml_schema_value_t *schema, void *data)
{
    const cyaml_config_t config = {.mem_fn = cyaml_mem};

    if (data)
        cyaml_free(&config, schema, data, 0);
}

int gw_yaml_read_file(const char *file, char **textp, size_t *lenp, struct gw_error *e)
{
    gw_autoclose int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    gw_autofree char *text = NULL;
    size_t len = 0;
    struct stat st;
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) < 0)
        return gw_error_set_sys(e, errno, "open %s", file);
    if (!S_ISREG(st.st_mode))
        return complain(e, file, 0, "is not a regular file");
    text = malloc(GW_YAML_MAX_BYTES + 2);
    if (!text)
        return gw_error_set_sys(e, ENOMEM, "read %s", file);
    while (len <= GW_YAML_MAX_BYTES &&
           (n = read(fd, text + len, GW_YAML_MAX_BYTES + 1 - len)) != 0) {
        if (n < 0 && errno != EINTR)
            return gw_error_set_sys(e, errno, "read %s", file);
        len += n > 0 ? (size_t)n : 0;
    }
    if (len > GW_YAML_MAX_BYTES)
        return complain(e, file, 0, "is larger than %d KiB", GW_YAML_MAX_BYTES / 1024);
    text[len] = '\0';
    *textp = gw_steal_ptr(&text);
    *lenp = len;
    return 0;
}

/* One step down a path: the child of node that the first n bytes of name denote, or NULL. */
static const yaml_node_t *child(struct source *s, const yaml_node_t *node, const char *name,
                                size_t n)
{
    char key[128];
    long index;

    if (n >= sizeof key)
        return NULL;
    memcpy(key, name, n);
    key[n] = '\0';
    if (node->type == YAML_MAPPING_NODE) {
        const yaml_node_pair_t *pair = pair_named(s, node, key);

        return pair ? yaml_document_get_node(&s->doc, pair->value) : NULL;
    }
    if (node->type != YAML_SEQUENCE_NODE || !is_number(key))
        return NULL;
    index = strtol(key, NULL, 10);
    if (index < 0 || index >= node->data.sequence.items.top - node->data.sequence.items.start)
        return NULL;
    return yaml_document_get_node(&s->doc, node->data.sequence.items.start[index]);
}

/* around: the line of the last thing on the way to path, if path itself is not there. */
static size_t line_at(const char *text, size_t len, const char *path, bool around)
{
    GW_CLEANUP(source_fini) struct source s = {.file = ""};
    const yaml_node_t *node;
    size_t line = 0;

    if (parse(&s, text, len) < 0)
        return 0;
    node = yaml_document_get_root_node(&s.doc);
    while (node && *path) {
        size_t n = strcspn(path, ".");

        node = child(&s, node, path, n);
        path += n + (path[n] == '.');
        line = node ? line_of(node) : around ? line : 0;
    }
    return line;
}

size_t gw_yaml_line(const char *text, size_t len, const char *path)
{
    return line_at(text, len, path, true);
}

int gw_yaml_reject(struct gw_error *e, const char *text, size_t len, const char *file,
                   const char *path, const char *fmt, ...)
{
    char reason[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    return complain(e, file, line_at(text, len, path, false), "%s: %s", path, reason);
}
