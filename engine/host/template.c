/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/template.h"
#include "util/cleanup.h"

char *gw_template_escape(const char *text)
{
    char *escaped = malloc(2 * strlen(text) + 1);
    char *out = escaped;

    if (!escaped)
        return NULL;
    for (; *text; text++) {
        if (*text == '@')
            *out++ = '@';
        *out++ = *text;
    }
    *out = '\0';
    return escaped;
}

char *gw_template_unescape(const char *text)
{
    char *plain = malloc(strlen(text) + 1);
    char *out = plain;

    if (!plain)
        return NULL;
    for (; *text; text++) {
        if (*text == '@' && *++text != '@') {
            free(plain);
            errno = EINVAL;
            return NULL;
        }
        *out++ = *text;
    }
    *out = '\0';
    return plain;
}

/* Sets *valuep to what the name stands for, NULL if it has no value. Returns -1 for an unknown
 * name. */
static int value_of(const char *name, size_t len, const struct gw_template_values *values,
                    const char **valuep)
{
    const struct {
        const char *name;
        const char *value;
    } known[] = {{"MACHINE", values->machine},
                 {"ACCEL", values->accel},
                 {"RUNDIR", values->run_dir},
                 {"CONSOLE", values->console}};

    for (unsigned i = 0; i < GW_ARRAY_SIZE(known); i++)
        if (strlen(known[i].name) == len && memcmp(known[i].name, name, len) == 0) {
            *valuep = known[i].value;
            return 0;
        }
    /* one digit is enough: a VM has at most eight NICs */
    if (len != 4 || memcmp(name, "TAP", 3) != 0 || name[3] < '0' || name[3] > '9')
        return -1;
    *valuep = (size_t)(name[3] - '0') < values->n_taps ? values->taps[name[3] - '0'] : NULL;
    return 0;
}

static int fill(FILE *out, const char *text, const struct gw_template_values *values,
                struct gw_error *e)
{
    const char *at, *end, *value = NULL;

    for (; (at = strchr(text, '@')); text = end + 1) {
        fwrite(text, 1, (size_t)(at - text), out);
        end = strchr(at + 1, '@');
        if (!end || (end > at + 1 && value_of(at + 1, (size_t)(end - at - 1), values, &value) < 0))
            return gw_error_set(e, GW_E_PROTOCOL, "unknown placeholder in '%.120s'", text);
        if (end == at + 1)
            value = "@";
        if (!value)
            return gw_error_set(e, GW_E_USAGE, "nothing given for the placeholder in '%.120s'",
                                text);
        fputs(value, out);
    }
    fputs(text, out);
    return 0;
}

int gw_template_fill(const char *text, const struct gw_template_values *values, char **outp,
                     struct gw_error *e)
{
    gw_autofree char *filled = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&filled, &size);
    int rc;

    if (!out)
        return gw_error_set_sys(e, errno, "QEMU command line");
    rc = fill(out, text, values, e);
    if (fclose(out) != 0)
        return gw_error_set_sys(e, errno, "QEMU command line");
    if (rc == 0)
        *outp = gw_steal_ptr(&filled);
    return rc;
}
