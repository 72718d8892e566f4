/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "shell/error_json.h"
#include "util/cleanup.h"

#define UTF8_MAX 4

/* How many bytes the character at text has; 0: it is none. Asks jansson, who has to agree. */
static size_t character_length(const char *text)
{
    size_t left = strnlen(text, UTF8_MAX);

    for (size_t n = 1; n <= left; n++) {
        json_t *one = json_stringn(text, n);

        json_decref(one);
        if (one)
            return n;
    }
    return 0;
}

static json_t *clean_string(const char *text)
{
    json_t *string = json_string(text);
    gw_autofree char *copy = NULL;

    if (string || !(copy = strdup(text)))
        return string;
    for (char *c = copy; *c;) {
        size_t n = (unsigned char)*c < 0x80 ? 1 : character_length(c);

        if (n == 0)
            *c = '?';
        c += n ? n : 1;
    }
    return json_string(copy);
}

json_t *gw_error_to_json(const struct gw_error *error)
{
    json_t *json = json_pack("{s:s, s:o}", "code", gw_code_name(error->code), "message",
                             clean_string(error->msg));

    if (json && error->hint[0])
        json_object_set_new(json, "hint", clean_string(error->hint));
    return json;
}

static void make_one_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

void gw_error_from_json(const json_t *json, struct gw_error *error)
{
    const char *code = json_string_value(json_object_get(json, "code"));
    const char *message = json_string_value(json_object_get(json, "message"));
    const char *hint = json_string_value(json_object_get(json, "hint"));
    enum gw_code number = gw_code_from_name(code);

    gw_error_set(error, number == GW_OK ? GW_E_PROTOCOL : number, "%s",
                 message ? message : "it failed without a reason given");
    if (hint)
        gw_error_hint(error, "%s", hint);
    make_one_line(error->msg);
    make_one_line(error->hint);
}
