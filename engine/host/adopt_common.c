/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the rules of adoption share.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/adopt_parse.h"
#include "host/template.h"

bool gw_adopt_among(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(*list, word) == 0)
            return true;
    return false;
}

bool gw_adopt_begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

struct gw_optstr *gw_adopt_opts(struct gw_adopt_parser *p, const char *option, const char *arg,
                                const char *first_key)
{
    struct gw_optstr *opts = gw_optstr_parse(arg, first_key);

    if (!opts && errno == EINVAL)
        gw_adopt_refuse(p, option, "malformed: %.100s", arg);
    else if (!opts)
        p->failed = true;
    return opts;
}

void gw_adopt_put(struct gw_adopt_parser *p, struct gw_optstr *opts, const char *key,
                  const char *value)
{
    if (gw_optstr_set(opts, key, value) < 0)
        p->failed = true;
}

void gw_adopt_push_opts(struct gw_adopt_parser *p, const char *option, const struct gw_optstr *opts,
                        const char *first_key)
{
    gw_autofree char *text = gw_optstr_format(opts, first_key);

    if (text)
        gw_adopt_push2(p, option, text);
    else
        p->failed = true;
}

bool gw_adopt_is_placeholder(const struct gw_adopt_parser *p, const char *text)
{
    return p->is_template && text[0] == '@' && text[1] != '@';
}

char *gw_adopt_absolute(struct gw_adopt_parser *p, const char *option, const char *path)
{
    gw_autofree char *cwd = NULL;
    char *full = NULL;

    if (path[0] == '/' || gw_adopt_is_placeholder(p, path)) {
        full = strdup(path);
    } else if (p->cwd_is_lost || !p->host || !p->host->cwd) {
        gw_adopt_refuse(p, option, "where the relative path '%.100s' begins cannot be told", path);
        return NULL;
    } else {
        cwd = gw_template_escape(strcmp(p->host->cwd, "/") == 0 ? "" : p->host->cwd);
        if (!cwd || asprintf(&full, "%s/%s", cwd, path) < 0)
            full = NULL;
    }
    if (!full)
        p->failed = true;
    return full;
}

bool gw_adopt_id_valid(const char *id)
{
    return id && *id && strlen(id) < 64 &&
           id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] ==
               '\0';
}
