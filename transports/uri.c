/* SPDX-License-Identifier: Apache-2.0 */
#include "transports/uri.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS  "0123456789"
#define LOWER   "abcdefghijklmnopqrstuvwxyz"

static int wrong(struct gw_error *error, const char *what, const char *at)
{
    gw_error_set(error, GW_E_USAGE, "transport URI: %s at \"%.60s\"", what, at);
    return gw_error_hint(error, "for example tcp://10.0.0.2:7500?lanes=4");
}

/* Copies the len bytes at text, all of them out of allowed. */
static bool take(char *to, size_t size, const char *text, size_t len, const char *allowed)
{
    if (len == 0 || len >= size || strspn(text, allowed) < len)
        return false;
    memcpy(to, text, len);
    to[len] = '\0';
    return true;
}

/* end: the "://" behind them */
static int parse_layers(const char *text, const char *end, struct gw_uri *uri,
                        struct gw_error *error)
{
    for (;;) {
        size_t len = strcspn(text, "+:");

        if (uri->n_layers == GW_URI_LAYERS_MAX)
            return wrong(error, "too many wrappers", text);
        if (!take(uri->layers[uri->n_layers++], sizeof uri->layers[0], text, len, LOWER DIGITS))
            return wrong(error, "no name of a transport", text);
        text += len;
        if (text == end)
            return 0;
        if (*text++ != '+')
            return wrong(error, "no name of a transport", text);
    }
}

/* One address, in brackets if it has colons: the text behind it, or NULL with *error. */
static const char *parse_address(const char *text, gw_uri_word address, struct gw_error *error)
{
    size_t len;

    if (*text == '[') {
        len = strcspn(++text, "]");
        if (text[len] != ']' ||
            !take(address, sizeof(gw_uri_word), text, len, LETTERS DIGITS ":.%-_")) {
            wrong(error, "no address", text);
            return NULL;
        }
        return text + len + 1;
    }
    len = strcspn(text, ",:?/");
    if (!take(address, sizeof(gw_uri_word), text, len, LETTERS DIGITS ".-_")) {
        wrong(error, "no address", text);
        return NULL;
    }
    return text + len;
}

static const char *parse_addresses(const char *text, gw_uri_word *addresses, unsigned *np,
                                   struct gw_error *error)
{
    for (*np = 0;; text++) {
        if (*np == GW_URI_ADDRESSES_MAX) {
            wrong(error, "too many addresses", text);
            return NULL;
        }
        text = parse_address(text, addresses[(*np)++], error);
        if (!text || *text != ',')
            return text;
    }
}

int gw_uri_addresses(const char *text, gw_uri_word addresses[GW_URI_ADDRESSES_MAX],
                     struct gw_error *error)
{
    unsigned n;

    text = parse_addresses(text, addresses, &n, error);
    if (!text)
        return -1;
    return *text ? wrong(error, "no list of addresses", text) : (int)n;
}

static const char *parse_port(const char *text, struct gw_uri *uri, struct gw_error *error)
{
    size_t len = strspn(text, DIGITS);
    unsigned long port = len >= 1 && len <= 5 ? strtoul(text, NULL, 10) : UINT16_MAX + 1ul;

    if (port > UINT16_MAX) {
        wrong(error, "no port", text);
        return NULL;
    }
    uri->has_port = true;
    uri->port = (uint16_t)port;
    return text + len;
}

static bool given(const struct gw_uri *uri, const char *key)
{
    for (unsigned i = 0; i < uri->n_params; i++)
        if (strcmp(uri->params[i].key, key) == 0)
            return true;
    return false;
}

/* text is behind '?' or '&'. */
static const char *parse_param(const char *text, struct gw_uri *uri, struct gw_error *error)
{
    struct gw_uri_param *param = &uri->params[uri->n_params];
    size_t key = strcspn(text, "=&"), value;

    if (uri->n_params == GW_URI_PARAMS_MAX) {
        wrong(error, "too many keys", text);
        return NULL;
    }
    if (text[key] != '=' || !take(param->key, sizeof param->key, text, key, LOWER DIGITS "_-")) {
        wrong(error, "no KEY=VALUE", text);
        return NULL;
    }
    value = strcspn(text + key + 1, "&");
    if (!take(param->value, sizeof param->value, text + key + 1, value,
              LETTERS DIGITS ".,:[]%-_")) {
        wrong(error, "no value", text);
        return NULL;
    }
    if (given(uri, param->key)) {
        wrong(error, "a key for the second time", text);
        return NULL;
    }
    uri->n_params++;
    return text + key + 1 + value;
}

int gw_uri_parse(const char *text, struct gw_uri *uri, struct gw_error *error)
{
    const char *at;

    memset(uri, 0, sizeof *uri);
    if (strnlen(text, GW_URI_MAX + 1) > GW_URI_MAX)
        return wrong(error, "longer than 1024 bytes", text);
    at = strstr(text, "://");
    if (!at)
        return wrong(error, "no ://", text);
    if (parse_layers(text, at, uri, error) < 0)
        return -1;
    at = parse_addresses(at + 3, uri->addresses, &uri->n_addresses, error);
    if (at && *at == ':')
        at = parse_port(at + 1, uri, error);
    for (char before = '?'; at && *at == before; before = '&')
        at = parse_param(at + 1, uri, error);
    if (!at)
        return -1;
    return *at ? wrong(error, "something that does not belong there", at) : 0;
}

const char *gw_uri_get(struct gw_uri *uri, const char *key)
{
    for (unsigned i = 0; i < uri->n_params; i++) {
        if (strcmp(uri->params[i].key, key) == 0) {
            uri->params[i].used = true;
            return uri->params[i].value;
        }
    }
    return NULL;
}

static const struct suffix {
    enum gw_uri_unit unit;
    const char *text;
    uint64_t times, by;
} suffixes[] = {
    {GW_URI_COUNT, "", 1, 1},
    {GW_URI_BYTES, "", 1, 1},
    {GW_URI_BYTES, "KiB", 1u << 10, 1},
    {GW_URI_BYTES, "MiB", 1u << 20, 1},
    {GW_URI_BYTES, "GiB", 1u << 30, 1},
    {GW_URI_RATE, "", 1, 1},
    {GW_URI_RATE, "KiB", 1u << 10, 1},
    {GW_URI_RATE, "MiB", 1u << 20, 1},
    {GW_URI_RATE, "GiB", 1u << 30, 1},
    {GW_URI_RATE, "kbit", 1000, 8},
    {GW_URI_RATE, "mbit", 1000000, 8},
    {GW_URI_RATE, "gbit", 1000000000, 8},
    {GW_URI_MS, "", 1, 1},
    {GW_URI_MS, "ms", 1, 1},
    {GW_URI_MS, "s", 1000, 1},
};

static bool read_number(const char *text, enum gw_uri_unit unit, uint64_t *valuep)
{
    char *end;
    uint64_t value;

    if (!*text || !strchr(DIGITS, *text))
        return false;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno)
        return false;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(suffixes); i++) {
        const struct suffix *suffix = &suffixes[i];

        if (suffix->unit != unit || strcmp(suffix->text, end) != 0)
            continue;
        if (__builtin_mul_overflow(value, suffix->times, &value))
            return false;
        *valuep = value / suffix->by;
        return true;
    }
    return false;
}

int gw_uri_numbers(struct gw_uri *uri, const struct gw_uri_number *numbers, unsigned n_numbers,
                   struct gw_error *error)
{
    for (unsigned i = 0; i < n_numbers; i++) {
        const struct gw_uri_number *number = &numbers[i];
        const char *text = gw_uri_get(uri, number->key);
        uint64_t value;

        if (!text)
            continue;
        if (!read_number(text, number->unit, &value) || value < number->min || value > number->max)
            return gw_error_set(error, GW_E_USAGE,
                                "transport URI: %s=%.40s is no number from %llu to %llu",
                                number->key, text, (unsigned long long)number->min,
                                (unsigned long long)number->max);
        *number->valuep = value;
    }
    return 0;
}

int gw_uri_bool(struct gw_uri *uri, const char *key, bool *valuep, struct gw_error *error)
{
    const char *text = gw_uri_get(uri, key);

    if (!text)
        return 0;
    if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0)
        return gw_error_set(error, GW_E_USAGE, "transport URI: %s=%.40s is neither yes nor no", key,
                            text);
    *valuep = strcmp(text, "yes") == 0;
    return 0;
}

int gw_uri_all_used(const struct gw_uri *uri, struct gw_error *error)
{
    for (unsigned i = 0; i < uri->n_params; i++)
        if (!uri->params[i].used)
            return gw_error_set(error, GW_E_USAGE, "transport URI: %s does not know the key \"%s\"",
                                uri->layers[uri->n_layers - 1], uri->params[i].key);
    return 0;
}
