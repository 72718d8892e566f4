/* SPDX-License-Identifier: Apache-2.0 */
#include "settings.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE_BYTES (1ull << 40)

static int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *np)
{
    char *end;

    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    *np = strtoull(text, &end, 10);
    return errno || *end || *np < min || *np > max ? -1 : 0;
}

int gw_size_parse(const char *text, uint64_t *bytesp)
{
    static const struct {
        const char *suffix;
        unsigned shift;
    } units[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
    char *end;

    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    for (size_t i = 0; !errno && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].suffix) || n > MAX_SIZE_BYTES >> units[i].shift)
            continue;
        *bytesp = (uint64_t)n << units[i].shift;
        return 0;
    }
    return -1;
}

/* Cuts text at the last `mark` and reads the address before it. */
static int address_parse(char *text, char mark, struct in_addr *addressp, char **restp)
{
    char *cut = strrchr(text, mark);

    if (!cut)
        return -1;
    *cut = '\0';
    *restp = cut + 1;
    int ok = inet_pton(AF_INET, text, addressp) == 1;
    *cut = mark;
    return ok ? 0 : -1;
}

static int parse_name(struct gw_settings *s, char *value)
{
    /* The name goes into JSON as it is. */
    if (strlen(value) >= sizeof(s->name) || strpbrk(value, "\"\\"))
        return -1;
    strcpy(s->name, value);
    return 0;
}

/* The kernel does not look at root= itself where the initramfs has an /init. */
static int root_parse(struct gw_settings *s, const char *device, char *why, size_t n_why)
{
    if ((size_t)snprintf(s->root, sizeof(s->root), "%s", device) < sizeof(s->root) &&
        !strncmp(device, "/dev/", 5))
        return 0;
    snprintf(why, n_why, "root: cannot use '%s', only a device such as /dev/vda", device);
    return -1;
}

static int parse_ip(struct gw_settings *s, char *value)
{
    char *rest;
    uint64_t prefix;

    if (address_parse(value, '/', &s->ip, &rest) || number_parse(rest, 1, 30, &prefix))
        return -1;
    s->netmask.s_addr = htonl(~0u << (32 - prefix));
    return 0;
}

static int parse_udp(struct gw_settings *s, char *value)
{
    char *rest;
    uint64_t port;

    if (address_parse(value, ':', &s->udp.sin_addr, &rest) || number_parse(rest, 1, 65535, &port))
        return -1;
    s->udp.sin_family = AF_INET;
    s->udp.sin_port = htons((uint16_t)port);
    return 0;
}

static int parse_mode(struct gw_settings *s, char *value)
{
    s->poweroff = !strcmp(value, "poweroff");
    return s->poweroff || !strcmp(value, "run") ? 0 : -1;
}

#define SIZE_SETTING(FIELD)                                      \
    static int parse_##FIELD(struct gw_settings *s, char *value) \
    {                                                            \
        return gw_size_parse(value, &s->FIELD);                  \
    }
#define NUMBER_SETTING(FIELD, MIN, MAX)                          \
    static int parse_##FIELD(struct gw_settings *s, char *value) \
    {                                                            \
        uint64_t n;                                              \
        if (number_parse(value, MIN, MAX, &n))                   \
            return -1;                                           \
        s->FIELD = (__typeof__(s->FIELD))n;                      \
        return 0;                                                \
    }

SIZE_SETTING(fill_bytes)
SIZE_SETTING(zero_bytes)
SIZE_SETTING(wss_bytes)
SIZE_SETTING(free_bytes)
SIZE_SETTING(disk_bytes)
NUMBER_SETTING(balloon, 0, 1)
NUMBER_SETTING(disk_writes, 1, 100000)
NUMBER_SETTING(seed, 0, UINT64_MAX - 1)
NUMBER_SETTING(n_write_bytes, 8, 4080)
NUMBER_SETTING(compress_percent, 0, 100)
NUMBER_SETTING(rate_mb_per_s, 0, 100000)
NUMBER_SETTING(scan_mb_per_s, 0, 100000)
NUMBER_SETTING(query_port, 1, 65535)
NUMBER_SETTING(rx_port, 1, 65535)

static const struct {
    const char *key;
    int (*parse)(struct gw_settings *settings, char *value);
} keys[] = {
    {"balloon", parse_balloon},
    {"bytes", parse_n_write_bytes},
    {"compress", parse_compress_percent},
    {"disk", parse_disk_bytes},
    {"disk_rate", parse_disk_writes},
    {"fill", parse_fill_bytes},
    {"free", parse_free_bytes},
    {"ip", parse_ip},
    {"mode", parse_mode},
    {"name", parse_name},
    {"query", parse_query_port},
    {"rate", parse_rate_mb_per_s},
    {"rx", parse_rx_port},
    {"scan", parse_scan_mb_per_s},
    {"seed", parse_seed},
    {"udp", parse_udp},
    {"wss", parse_wss_bytes},
    {"zero", parse_zero_bytes},
};

static int setting_parse(struct gw_settings *settings, char *word, char *why, size_t n_why)
{
    char *value = strchr(word, '=');

    if (value)
        *value++ = '\0';
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(word + 3, keys[i].key))
            continue;
        if (value && !keys[i].parse(settings, value))
            return 0;
        snprintf(why, n_why, "%s: cannot use the value '%s'", word, value ? value : "");
        return -1;
    }
    snprintf(why, n_why, "%s: no such setting, see tests/guest/README.md", word);
    return -1;
}

int gw_settings_parse(struct gw_settings *settings, const char *cmdline, char *why, size_t n_why)
{
    char copy[4096];
    char *rest = copy;
    char *word;

    *settings = (struct gw_settings){
        .name = "guest",
        .zero_bytes = 4u << 20,
        .seed = 1,
        .n_write_bytes = 8,
        .compress_percent = 50,
        .scan_mb_per_s = 32,
        .disk_writes = 200,
        .query_port = 7501,
        .rx_port = 7502,
    };
    if (strlen(cmdline) >= sizeof(copy)) {
        snprintf(why, n_why, "the kernel command line is longer than %zu bytes", sizeof(copy) - 1);
        return -1;
    }
    strcpy(copy, cmdline);
    while ((word = strsep(&rest, " \t\n"))) {
        if (!strncmp(word, "root=", 5) && root_parse(settings, word + 5, why, n_why))
            return -1;
        if (!strncmp(word, "gw.", 3) && setting_parse(settings, word, why, n_why))
            return -1;
    }
    return 0;
}
