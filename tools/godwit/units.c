/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util/cleanup.h"
#include "units.h"

struct suffix {
    const char *name;
    double factor;
};

struct gw_units gw_units_bytes(int64_t bytes)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    struct gw_units u = {"-"};
    double n = (double)bytes;
    unsigned i = 0;

    if (bytes < 0)
        return u;
    /* 1023.5 would print as 1024 of the smaller unit. */
    for (; n >= 1023.5 && i + 1 < GW_ARRAY_SIZE(names); i++)
        n /= 1024;
    snprintf(u.text, sizeof u.text, i == 0 || n >= 99.95 ? "%.0f %s" : "%.1f %s", n, names[i]);
    return u;
}

struct gw_units gw_units_rate(int64_t bytes_per_s)
{
    struct gw_units u = gw_units_bytes(bytes_per_s);

    if (bytes_per_s >= 0)
        strcat(u.text, "/s");
    return u;
}

struct gw_units gw_units_ms(int64_t ms)
{
    struct gw_units u = {"-"};
    long long s = ms / 1000;

    if (ms < 0)
        return u;
    if (ms < 1000)
        snprintf(u.text, sizeof u.text, "%lld ms", (long long)ms);
    else if (ms < 60 * 1000)
        snprintf(u.text, sizeof u.text, "%lld.%02lld s", s, (long long)ms % 1000 / 10);
    else if (s < 3600)
        snprintf(u.text, sizeof u.text, "%lld min %lld s", s / 60, s % 60);
    else
        snprintf(u.text, sizeof u.text, "%lld h %lld min", s / 3600, s % 3600 / 60);
    return u;
}

/* "Mb" is a megabit to whoever writes it so: bytes need the capital B. */
static bool is_suffix(const char *word, const char *suffix)
{
    size_t len = strlen(suffix);

    return strcasecmp(word, suffix) == 0 &&
           (len == 0 || suffix[len - 1] != 'B' || word[len - 1] == 'B');
}

/* A decimal number, then one of the suffixes; no sign, no exponent, no hex: strtod alone would take
 * them. */
static bool parse(const char *text, const struct suffix *suffixes, unsigned n_suffixes, double *np)
{
    size_t digits = strspn(text, "0123456789.");
    char *end;
    double n;

    if (digits == 0 || digits > 18)
        return false;
    n = strtod(text, &end);
    if (end != text + digits)
        return false;
    while (*end == ' ')
        end++;
    for (unsigned i = 0; i < n_suffixes; i++)
        if (is_suffix(end, suffixes[i].name)) {
            *np = n * suffixes[i].factor;
            return *np < 9e18;
        }
    return false;
}

bool gw_units_parse_rate(const char *text, uint64_t *bytes_per_sp)
{
    static const struct suffix suffixes[] = {
        {"kbit", 125}, {"mbit", 125e3},  {"gbit", 125e6},   {"tbit", 125e9},
        {"KB", 1e3},   {"MB", 1e6},      {"GB", 1e9},       {"TB", 1e12},
        {"KiB", 1024}, {"MiB", 1 << 20}, {"GiB", 1L << 30}, {"TiB", 1L << 40},
    };
    char plain[40];
    size_t len = strlen(text);
    double n;

    if (len >= sizeof plain)
        return false;
    memcpy(plain, text, len + 1);
    if (len > 2 && strcasecmp(plain + len - 2, "/s") == 0)
        plain[len - 2] = '\0';
    if (!parse(plain, suffixes, GW_ARRAY_SIZE(suffixes), &n) || n < 1)
        return false;
    *bytes_per_sp = (uint64_t)n;
    return true;
}

bool gw_units_parse_duration(const char *text, uint64_t bare_ms, uint64_t *msp)
{
    const struct suffix suffixes[] = {
        {"", (double)bare_ms}, {"ms", 1},     {"s", 1e3},     {"m", 60e3},
        {"min", 60e3},         {"h", 3600e3}, {"d", 86400e3},
    };
    double n;

    if (!parse(text, suffixes, GW_ARRAY_SIZE(suffixes), &n))
        return false;
    *msp = (uint64_t)(n + 0.5);
    return true;
}
