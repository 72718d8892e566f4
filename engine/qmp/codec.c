/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qmp/codec.h"
#include "util/cleanup.h"

#define DEFAULT_MESSAGE_BYTES ((size_t)16 << 20)
#define DEFAULT_DEPTH         1024
#define DEFAULT_N_VALUES      (512u << 10)

/* A buffer that grew beyond this for one long message is given back after it. */
#define KEEP_BYTES ((size_t)16 << 10)

/* Digits of INT64_MAX: an integer token shorter than this fits. */
#define INT64_DIGITS 19

void gw_qmp_codec_init(struct gw_qmp_codec *codec, const struct gw_qmp_limits *limits)
{
    *codec = (struct gw_qmp_codec){0};
    if (limits)
        codec->limits = *limits;
    if (!codec->limits.message_bytes)
        codec->limits.message_bytes = DEFAULT_MESSAGE_BYTES;
    if (!codec->limits.depth)
        codec->limits.depth = DEFAULT_DEPTH;
    if (!codec->limits.n_values)
        codec->limits.n_values = DEFAULT_N_VALUES;
}

static void drop_held(struct gw_qmp_codec *codec)
{
    free(codec->held);
    codec->held = NULL;
    codec->n_held = codec->held_cap = 0;
}

void gw_qmp_codec_fini(struct gw_qmp_codec *codec)
{
    drop_held(codec);
}

void gw_qmp_codec_reset(struct gw_qmp_codec *codec)
{
    struct gw_qmp_limits limits = codec->limits;

    drop_held(codec);
    gw_qmp_codec_init(codec, &limits);
}

const struct gw_error *gw_qmp_codec_error(const struct gw_qmp_codec *codec)
{
    return codec->dead ? &codec->error : NULL;
}

/* The caller has filled codec->error. */
static int die(struct gw_qmp_codec *codec)
{
    codec->dead = true;
    drop_held(codec);
    return -1;
}

/* Skips what may stand between two objects. Returns the index of the first byte that is none of
 * it, or len. */
static size_t skip_between(const char *data, size_t len)
{
    size_t i = 0;

    while (i < len && (data[i] == ' ' || data[i] == '\t' || data[i] == '\r' || data[i] == '\n' ||
                       (unsigned char)data[i] == 0xff))
        i++;
    return i;
}

static int open_bracket(struct gw_qmp_codec *codec)
{
    if (++codec->depth > codec->limits.depth)
        return gw_error_set(&codec->error, GW_E_PROTOCOL,
                            "QMP message nests deeper than %u brackets", codec->limits.depth);
    return 0;
}

/* Brackets and commas: they decide where the object ends and how many values it can have. Whether
 * the right kind of bracket closes is left to the parser. */
static int structural_byte(struct gw_qmp_codec *codec, char c)
{
    if (c == '}' || c == ']') {
        codec->depth--;
        return 0;
    }
    if (++codec->n_values > codec->limits.n_values)
        return gw_error_set(&codec->error, GW_E_PROTOCOL, "QMP message has more than %u values",
                            codec->limits.n_values);
    return c == ',' ? 0 : open_bracket(codec);
}

static void string_byte(struct gw_qmp_codec *codec, char c)
{
    if (codec->escaped)
        codec->escaped = false;
    else if (c == '\\')
        codec->escaped = true;
    else if (c == '"')
        codec->in_string = false;
}

static int object_byte(struct gw_qmp_codec *codec, char c)
{
    if (c == '\0')
        return gw_error_set(&codec->error, GW_E_PROTOCOL, "QMP message has a NUL byte in it");
    if (codec->in_string) {
        string_byte(codec, c);
        return 0;
    }
    switch (c) {
    case '"': codec->in_string = true; return 0;
    case '{':
    case '[':
    case '}':
    case ']':
    case ',': return structural_byte(codec, c);
    default: return 0;
    }
}

/* Scans from data[start], which lies in an object, to its end. Returns the index after its last
 * byte (then codec->depth is 0), or len if it goes on; 0 after an error. */
static size_t scan(struct gw_qmp_codec *codec, const char *data, size_t start, size_t len)
{
    size_t i = start;

    do {
        if (object_byte(codec, data[i++]))
            return 0;
    } while (codec->depth > 0 && i < len);
    return i;
}

static int hold(struct gw_qmp_codec *codec, const char *data, size_t len)
{
    size_t need = codec->n_held + len;
    size_t cap = codec->held_cap ? codec->held_cap : 1024;
    char *grown;

    while (cap < need)
        cap *= 2;
    if (cap != codec->held_cap) {
        grown = realloc(codec->held, cap);
        if (!grown)
            return gw_error_set_sys(&codec->error, ENOMEM, "QMP message of %zu bytes and more",
                                    need);
        codec->held = grown;
        codec->held_cap = cap;
    }
    memcpy(codec->held + codec->n_held, data, len);
    codec->n_held = need;
    return 0;
}

/* Length of the number token at the start of text; *fitsp says whether jansson takes it. The token
 * always ends before text + len, because the text ends with a bracket. */
static size_t number_token(const char *text, bool *fitsp)
{
    size_t sign = text[0] == '-';
    size_t digits = strspn(text + sign, "0123456789");
    size_t whole = sign + strspn(text + sign, "0123456789+-.eE");

    *fitsp = true;
    if (whole == sign + digits && digits >= INT64_DIGITS) {
        errno = 0;
        (void)strtoll(text, NULL, 10);
        *fitsp = errno != ERANGE;
    }
    return whole;
}

/* Copies text with ".0" behind every integer that does not fit into int64, so that jansson reads
 * just these as reals. text ends with a bracket. Returns NULL if memory ran out. */
static char *with_wide_integers_as_reals(const char *text, size_t len, size_t *out_lenp)
{
    struct gw_qmp_codec string = {0};
    size_t out = 0, token;
    bool fits;
    /* Every token of at least 19 bytes and its separator may grow by 2. */
    char *copy = malloc(len + len / 10 + 3);

    for (size_t i = 0; copy && i < len; i += token) {
        token = 1;
        fits = true;
        if (string.in_string)
            string_byte(&string, text[i]);
        else if (text[i] == '"')
            string.in_string = true;
        else if (text[i] == '-' || isdigit((unsigned char)text[i]))
            token = number_token(text + i, &fits);
        memcpy(copy + out, text + i, token);
        out += token;
        if (!fits) {
            memcpy(copy + out, ".0", 2);
            out += 2;
        }
    }
    *out_lenp = out;
    return copy;
}

/* jansson quotes the input in its messages; ours are one line of text. */
static int malformed(struct gw_qmp_codec *codec, const json_error_t *why, size_t len)
{
    if (json_error_code(why) == json_error_out_of_memory)
        return gw_error_set_sys(&codec->error, ENOMEM, "QMP message of %zu bytes", len);
    gw_error_set(&codec->error, GW_E_PROTOCOL,
                 "QMP message of %zu bytes is malformed at byte %d: %s", len, why->position,
                 why->text);
    for (char *c = codec->error.msg; *c; c++)
        if (!isprint((unsigned char)*c))
            *c = '?';
    return -1;
}

/* text is one bracketed text; what is in it is still unknown. */
static json_t *parse(struct gw_qmp_codec *codec, const char *text, size_t len)
{
    gw_autofree char *copy = NULL;
    json_error_t why;
    size_t copy_len;
    json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);

    if (!object && json_error_code(&why) == json_error_numeric_overflow) {
        copy = with_wide_integers_as_reals(text, len, &copy_len);
        if (!copy) {
            gw_error_set_sys(&codec->error, ENOMEM, "QMP message of %zu bytes", len);
            return NULL;
        }
        object = json_loadb(copy, copy_len, JSON_REJECT_DUPLICATES, &why);
    }
    if (!object)
        malformed(codec, &why, len);
    return object;
}

/* The object ends with these bytes: straight from the input if all of it is there. */
static json_t *finish(struct gw_qmp_codec *codec, const char *data, size_t len)
{
    json_t *object;

    codec->n_values = 0;
    if (codec->n_held == 0)
        return parse(codec, data, len);
    if (hold(codec, data, len))
        return NULL;
    object = parse(codec, codec->held, codec->n_held);
    codec->n_held = 0;
    if (codec->held_cap > KEEP_BYTES)
        drop_held(codec);
    return object;
}

static int not_an_object(struct gw_qmp_codec *codec, char c)
{
    gw_error_set(&codec->error, GW_E_PROTOCOL,
                 "QMP message begins with byte 0x%02x where '{' was expected", (unsigned char)c);
    gw_error_hint(&codec->error, "does this socket belong to a QEMU monitor with mode=control?");
    return -1;
}

int gw_qmp_codec_feed(struct gw_qmp_codec *codec, const char *data, size_t len, size_t *usedp,
                      json_t **objectp)
{
    size_t start = 0, end;

    *usedp = 0;
    *objectp = NULL;
    if (codec->dead)
        return -1;
    if (codec->depth == 0)
        start = skip_between(data, len);
    *usedp = start;
    if (start == len)
        return 0;
    if (codec->depth == 0 && data[start] != '{') {
        not_an_object(codec, data[start]);
        return die(codec);
    }
    end = scan(codec, data, start, len);
    if (end == 0)
        return die(codec);
    if (end - start > codec->limits.message_bytes - codec->n_held) {
        gw_error_set(&codec->error, GW_E_PROTOCOL, "QMP message is longer than %zu bytes",
                     codec->limits.message_bytes);
        return die(codec);
    }
    *usedp = end;
    if (codec->depth > 0)
        return hold(codec, data + start, end - start) ? die(codec) : 0;
    *objectp = finish(codec, data + start, end - start);
    return *objectp ? 0 : die(codec);
}
