/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

#include "host/optstr.h"

#define JSON_MAX_DEPTH 8

/* Takes key and value, also on failure; value may be NULL. */
static int append(struct gw_optstr *opts, char *key, char *value)
{
    if (!key || opts->n_items == GW_OPTSTR_MAX) {
        free(key);
        free(value);
        return key ? -EINVAL : -ENOMEM;
    }
    opts->items[opts->n_items++] = (struct gw_optstr_item){key, value};
    return 0;
}

/* Copies up to the next single comma and moves *textp behind it (to NULL at the end). */
static char *take_element(const char **textp)
{
    const char *in = *textp;
    char *element = malloc(strlen(in) + 1);
    char *out = element;

    if (!element)
        return NULL;
    for (; *in; in++) {
        if (*in == ',' && in[1] != ',')
            break;
        if (*in == ',')
            in++;
        *out++ = *in;
    }
    *out = '\0';
    *textp = *in ? in + 1 : NULL;
    return element;
}

static int add_element(struct gw_optstr *opts, const char *element, const char *first_key)
{
    const char *equals = strchr(element, '=');
    char *value;

    if (!equals && first_key) {
        value = strdup(element);
        return value ? append(opts, strdup(first_key), value) : -ENOMEM;
    }
    if (!equals)
        return append(opts, strdup(element), NULL);
    value = strdup(equals + 1);
    return value ? append(opts, strndup(element, (size_t)(equals - element)), value) : -ENOMEM;
}

static int parse_keyval(struct gw_optstr *opts, const char *text, const char *first_key)
{
    int rc = 0;

    while (rc == 0 && text && *text) {
        gw_autofree char *element = take_element(&text);

        rc = element ? add_element(opts, element, first_key) : -ENOMEM;
        first_key = NULL;
    }
    return rc;
}

static int add_json(struct gw_optstr *opts, const char *path, json_t *json, int depth);

static int add_children(struct gw_optstr *opts, const char *path, json_t *json, int depth)
{
    const char *key;
    json_t *child;
    size_t i;
    int rc = 0;

    if (depth == JSON_MAX_DEPTH)
        return -EINVAL;
    json_array_foreach (json, i, child) {
        gw_autofree char *inner = NULL;

        if (asprintf(&inner, "%s.%zu", path, i) < 0)
            return -ENOMEM;
        rc = rc ? rc : add_json(opts, inner, child, depth + 1);
    }
    json_object_foreach (json, key, child) {
        gw_autofree char *inner = NULL;

        if (asprintf(&inner, "%s%s%s", path, *path ? "." : "", key) < 0)
            return -ENOMEM;
        rc = rc ? rc : add_json(opts, inner, child, depth + 1);
    }
    return rc;
}

static int add_json(struct gw_optstr *opts, const char *path, json_t *json, int depth)
{
    char *value = NULL;

    switch (json_typeof(json)) {
    case JSON_OBJECT:
    case JSON_ARRAY: return add_children(opts, path, json, depth);
    case JSON_STRING:
        if (strlen(json_string_value(json)) != json_string_length(json))
            return -EINVAL;
        value = strdup(json_string_value(json));
        break;
    case JSON_TRUE: value = strdup("on"); break;
    case JSON_FALSE: value = strdup("off"); break;
    default: value = json_dumps(json, JSON_ENCODE_ANY); break;
    }
    return value ? append(opts, strdup(path), value) : -ENOMEM;
}

static int parse_json(struct gw_optstr *opts, const char *text)
{
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    int rc = json ? add_json(opts, "", json, 0) : -EINVAL;

    json_decref(json);
    return rc;
}

struct gw_optstr *gw_optstr_parse(const char *text, const char *first_key)
{
    gw_auto(optstr) struct gw_optstr *opts = calloc(1, sizeof *opts);
    int rc;

    if (!opts)
        return NULL;
    opts->items = calloc(GW_OPTSTR_MAX, sizeof *opts->items);
    if (!opts->items)
        return NULL;
    rc = text[0] == '{' ? parse_json(opts, text) : parse_keyval(opts, text, first_key);
    if (rc < 0) {
        errno = -rc;
        return NULL;
    }
    return gw_steal_ptr(&opts);
}

void gw_optstr_clear(struct gw_optstr *opts)
{
    for (size_t i = 0; i < opts->n_items; i++) {
        free(opts->items[i].key);
        free(opts->items[i].value);
    }
    opts->n_items = 0;
}

void gw_optstr_free(struct gw_optstr *opts)
{
    int saved = errno;

    if (!opts)
        return;
    gw_optstr_clear(opts);
    free(opts->items);
    free(opts);
    errno = saved;
}

const char *gw_optstr_get(const struct gw_optstr *opts, const char *key)
{
    for (size_t i = opts->n_items; i-- > 0;)
        if (strcmp(opts->items[i].key, key) == 0)
            return opts->items[i].value ? opts->items[i].value : "";
    return NULL;
}

bool gw_optstr_has(const struct gw_optstr *opts, const char *key)
{
    return gw_optstr_get(opts, key) != NULL;
}

static bool is_negation(const struct gw_optstr_item *item, const char *key)
{
    return !item->value && strncmp(item->key, "no", 2) == 0 && strcmp(item->key + 2, key) == 0;
}

bool gw_optstr_bool(const struct gw_optstr *opts, const char *key, bool otherwise)
{
    const char *value = gw_optstr_get(opts, key);

    if (value)
        return !*value || strcmp(value, "on") == 0 || strcmp(value, "yes") == 0 ||
               strcmp(value, "true") == 0 || strcmp(value, "y") == 0;
    for (size_t i = 0; i < opts->n_items; i++)
        if (is_negation(&opts->items[i], key))
            return false;
    return otherwise;
}

void gw_optstr_remove(struct gw_optstr *opts, const char *key)
{
    size_t kept = 0;

    for (size_t i = 0; i < opts->n_items; i++) {
        struct gw_optstr_item *item = &opts->items[i];

        if (strcmp(item->key, key) == 0 || is_negation(item, key)) {
            free(item->key);
            free(item->value);
        } else {
            opts->items[kept++] = *item;
        }
    }
    opts->n_items = kept;
}

int gw_optstr_set(struct gw_optstr *opts, const char *key, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return -ENOMEM;
    for (size_t i = 0; i < opts->n_items; i++) {
        if (strcmp(opts->items[i].key, key) != 0)
            continue;
        free(opts->items[i].value);
        opts->items[i].value = copy;
        for (size_t j = i + 1; j < opts->n_items; j++) /* later ones would win */
            if (strcmp(opts->items[j].key, key) == 0) {
                free(opts->items[j].key);
                free(opts->items[j].value);
                memmove(&opts->items[j], &opts->items[j + 1],
                        (--opts->n_items - j) * sizeof opts->items[0]);
                j--;
            }
        return 0;
    }
    return append(opts, strdup(key), copy);
}

char *gw_optstr_escape(const char *value)
{
    char *text = malloc(2 * strlen(value) + 1);
    char *out = text;

    if (!text)
        return NULL;
    for (; *value; value++) {
        if (*value == ',')
            *out++ = ',';
        *out++ = *value;
    }
    *out = '\0';
    return text;
}

static int put_item(FILE *out, const struct gw_optstr_item *item, bool first, bool bare)
{
    gw_autofree char *value = item->value ? gw_optstr_escape(item->value) : NULL;

    if (item->value && !value)
        return -ENOMEM;
    fprintf(out, "%s%s%s%s", first ? "" : ",", bare ? "" : item->key, value && !bare ? "=" : "",
            value ? value : "");
    return 0;
}

char *gw_optstr_format(const struct gw_optstr *opts, const char *first_key)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    int first = -1, rc = 0;

    if (!out)
        return NULL;
    for (size_t i = 0; first_key && first < 0 && i < opts->n_items; i++)
        if (strcmp(opts->items[i].key, first_key) == 0 && opts->items[i].value &&
            !strchr(opts->items[i].value, '='))
            first = (int)i;
    if (first >= 0)
        rc |= put_item(out, &opts->items[first], true, true);
    for (size_t i = 0; i < opts->n_items; i++)
        if ((int)i != first)
            rc |= put_item(out, &opts->items[i], first < 0 && i == 0, false);
    rc |= ferror(out);
    rc |= fclose(out);
    if (rc == 0)
        return text;
    free(text);
    return NULL;
}
