/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "text.h"

enum {
    ESCAPE_MAX = 6, /* \uNNNN at the longest, for one byte of input at least */
};

void *gw_text_no_memory(void *p)
{
    if (p)
        return p;
    fputs("godwit: out of memory\n", stderr);
    exit(EXIT_FAILURE);
}

/* The length of the UTF-8 sequence at s (NUL-terminated), or 0 if it is none. */
static unsigned decode(const unsigned char *s, uint32_t *codep)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned len = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;
    uint32_t code;

    if (len == 0 || s[0] > 0xf4)
        return 0;
    code = len == 1 ? s[0] : s[0] & (0x7fu >> len);
    for (unsigned i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (s[i] & 0x3f);
    }
    if (len > 1 && (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)))
        return 0;
    *codep = code;
    return len;
}

bool gw_text_is_utf8(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    uint32_t code;

    while (*s) {
        unsigned len = decode(s, &code);

        if (len == 0)
            return false;
        s += len;
    }
    return true;
}

static bool is_unsafe(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code <= 0x9f) || code == 0x200e || code == 0x200f ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

char *gw_text_clean(const char *text)
{
    const unsigned char *in = (const unsigned char *)text;
    char *clean = gw_text_no_memory(calloc(strlen(text) + 1, ESCAPE_MAX));
    char *out = clean;

    while (*in) {
        uint32_t code = 0;
        unsigned len = decode(in, &code);

        if (len == 0)
            out += sprintf(out, "\\x%02x", *in);
        else if (is_unsafe(code))
            out += sprintf(out, code < 0x100 ? "\\x%02x" : "\\u%04x", code);
        else
            out = mempcpy(out, in, len);
        in += len ? len : 1;
    }
    return clean;
}

char *gw_text_format(const char *fmt, ...)
{
    gw_autofree char *raw = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&raw, fmt, ap) < 0)
        raw = NULL;
    va_end(ap);
    gw_text_no_memory(raw);
    return gw_text_clean(raw);
}

static bool starts_code(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

size_t gw_text_width(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += starts_code(*text);
    return n;
}

size_t gw_text_fit(const char *text, size_t columns)
{
    size_t n = 0;
    const char *p;

    for (p = text; *p; p++)
        if (starts_code(*p) && n++ == columns)
            break;
    return (size_t)(p - text);
}

bool gw_text_is_terminal(FILE *out)
{
    const char *term = getenv("TERM");

    return isatty(fileno(out)) && term && *term && strcmp(term, "dumb") != 0;
}

void gw_text_terminal_size(FILE *out, size_t *columnsp, size_t *rowsp)
{
    struct winsize size = {0};

    *columnsp = 80;
    *rowsp = 24;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) < 0)
        return;
    if (size.ws_col)
        *columnsp = size.ws_col;
    if (size.ws_row)
        *rowsp = size.ws_row;
}

void gw_text_paint(FILE *out, enum gw_text_colour colour, const char *text)
{
    static const char *const codes[] = {
        [GW_TEXT_PLAIN] = "",       [GW_TEXT_BOLD] = "\033[1m",   [GW_TEXT_DIM] = "\033[2m",
        [GW_TEXT_RED] = "\033[31m", [GW_TEXT_GREEN] = "\033[32m", [GW_TEXT_YELLOW] = "\033[33m",
    };
    const char *no_colour = getenv("NO_COLOR");

    if (colour == GW_TEXT_PLAIN || (no_colour && *no_colour) || !gw_text_is_terminal(out))
        fputs(text, out);
    else
        fprintf(out, "%s%s\033[0m", codes[colour], text);
}

/* JSON_ENSURE_ASCII leaves DEL alone; nothing but strings can hold it, so the escape is right. */
static int write_json(const char *buffer, size_t size, void *data)
{
    for (size_t i = 0; i < size; i++)
        if (buffer[i] == 0x7f)
            fputs("\\u007f", data);
        else
            fputc(buffer[i], data);
    return 0;
}

void gw_text_json(FILE *out, const json_t *value, bool indented)
{
    json_dump_callback(value, write_json, out,
                       JSON_ENSURE_ASCII | JSON_ENCODE_ANY | (indented ? JSON_INDENT(2) : 0));
    fputc('\n', out);
}
