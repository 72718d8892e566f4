/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "text.h"
#include "units.h"
#include "util/cleanup.h"

enum {
    NEAR_LEN_MAX = 24,
    NEAR_MAX = 64,
};

struct parser {
    int argc;
    char **argv;
    int at;
    bool only_operands; /* after "--" */
    struct gw_globals *globals;
    struct gw_args *args;
    const char **groupp;
    struct gw_error *e;
};

const struct gw_option gw_global_options[] = {
    {"socket", "PATH", "godwitd's socket (also GODWIT_SOCKET)", GW_OPTION_TEXT},
    {"json", NULL, "print JSON on stdout and nothing else there", GW_OPTION_FLAG},
    {"help", NULL, "explain the command", GW_OPTION_FLAG},
    {"version", NULL, "print the version", GW_OPTION_FLAG},
    {NULL},
};

static const struct gw_option hidden_options[] = {
    {"print-commands", NULL, "", GW_OPTION_FLAG},
    {"print-names", "KIND", "", GW_OPTION_TEXT},
    {NULL},
};

/* Damerau's distance, with swapped neighbours as one error. */
static unsigned distance(const char *a, const char *b)
{
    unsigned d[NEAR_LEN_MAX + 1][NEAR_LEN_MAX + 1];
    size_t n = strlen(a), m = strlen(b);

    if (n > NEAR_LEN_MAX || m > NEAR_LEN_MAX)
        return NEAR_LEN_MAX;
    for (unsigned i = 0; i <= n; i++)
        for (unsigned j = 0; j <= m; j++) {
            unsigned best = i && j ? d[i - 1][j - 1] + (a[i - 1] != b[j - 1]) : i + j;

            if (i && d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (j && d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[n][m];
}

const char *gw_options_near(const char *word, const char *const *names, unsigned n)
{
    const char *best = NULL;
    unsigned best_distance = 3;

    for (unsigned i = 0; i < n; i++) {
        size_t len = strlen(word);
        unsigned d = distance(word, names[i]);

        if (len >= 2 && strncmp(word, names[i], len) == 0)
            d = 1;
        if (d < best_distance && d * 2 < strlen(names[i])) {
            best = names[i];
            best_distance = d;
        }
    }
    return best;
}

static int add_hint(struct gw_error *e, const char *near, const char *dashes, const char *otherwise)
{
    if (near)
        return gw_error_hint(e, "did you mean '%s%s'?", dashes, near);
    return gw_error_hint(e, "%s", otherwise);
}

static const struct gw_option *find_option(const struct gw_option *table, const char *name,
                                           size_t len)
{
    for (; table && table->name; table++)
        if (strlen(table->name) == len && memcmp(table->name, name, len) == 0)
            return table;
    return NULL;
}

static unsigned collect(const struct gw_option *table, const char **names, unsigned n)
{
    for (; table && table->name && n < NEAR_MAX; table++)
        names[n++] = table->name;
    return n;
}

static int unknown_option(const struct parser *p, const char *name, size_t len)
{
    const struct gw_command *c = p->args->command;
    const char *names[NEAR_MAX];
    unsigned n = collect(gw_global_options, names, 0);
    gw_autofree char *word = strndup(name, len);

    if (!word)
        return gw_error_set(p->e, GW_E_SYSTEM, "out of memory");
    n = collect(c ? c->options : NULL, names, n);
    gw_error_set(p->e, GW_E_USAGE, "unknown option '--%s'", word);
    return add_hint(p->e, gw_options_near(word, names, n), "--", "see --help");
}

static bool is_choice(const char *choices, const char *word)
{
    size_t len = strlen(word);

    while (*choices) {
        size_t n = strcspn(choices, "|");

        if (n == len && memcmp(choices, word, n) == 0)
            return true;
        choices += n + (choices[n] == '|');
    }
    return false;
}

static int bad_value(const struct parser *p, const struct gw_option *o, const char *text,
                     const char *what)
{
    return gw_error_set(p->e, GW_E_USAGE, "--%s: '%s' is not %s", o->name, text, what);
}

static int check_range(const struct parser *p, const struct gw_option *o,
                       const struct gw_value *value)
{
    const char *unit = o->kind == GW_OPTION_COUNT ? "" : " ms";

    if (value->number >= o->min && (o->max == 0 || value->number <= o->max))
        return 0;
    return gw_error_set(p->e, GW_E_USAGE, "--%s: %s is not within %llu%s and %llu%s", o->name,
                        value->text, (unsigned long long)o->min, unit, (unsigned long long)o->max,
                        unit);
}

static bool parse_count(const char *text, uint64_t *np)
{
    char *end;

    errno = 0;
    *np = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

static int check_value(const struct parser *p, const struct gw_option *o, struct gw_value *v)
{
    if (v->text[0] == '\0')
        return gw_error_set(p->e, GW_E_USAGE, "--%s needs a value (%s), not an empty word", o->name,
                            o->arg);
    switch (o->kind) {
    case GW_OPTION_FLAG:
    case GW_OPTION_TEXT: return 0;
    case GW_OPTION_CHOICE:
        if (!is_choice(o->arg, v->text))
            return bad_value(p, o, v->text, "a value that it takes"),
                   gw_error_hint(p->e, "one of %s", o->arg);
        return 0;
    case GW_OPTION_COUNT:
        if (!parse_count(v->text, &v->number))
            return bad_value(p, o, v->text, "a whole number");
        return check_range(p, o, v);
    case GW_OPTION_RATE:
        if (strcmp(v->text, "unlimited") != 0 && !gw_units_parse_rate(v->text, &v->number))
            return bad_value(p, o, v->text, "a rate with its unit"),
                   gw_error_hint(p->e, "such as 1gbit, 500mbit, 100MiB/s or unlimited");
        return 0;
    case GW_OPTION_MS:
    case GW_OPTION_S:
        if (!gw_units_parse_duration(v->text, o->kind == GW_OPTION_MS ? 1 : 1000, &v->number))
            return bad_value(p, o, v->text, "a duration"),
                   gw_error_hint(p->e, "such as 300ms, 90s or 15m");
        return check_range(p, o, v);
    }
    return 0;
}

static void set_global(struct gw_globals *g, const char *name, const char *text)
{
    if (strcmp(name, "socket") == 0)
        g->socket = text;
    else if (strcmp(name, "json") == 0)
        g->json = true;
    else if (strcmp(name, "help") == 0)
        g->help = true;
    else if (strcmp(name, "version") == 0)
        g->version = true;
    else if (strcmp(name, "print-commands") == 0)
        g->print_commands = true;
    else if (strcmp(name, "print-names") == 0)
        g->print_names = text;
}

/* "--name=value", or "--name value", or "--flag". */
static int take_value(struct parser *p, const struct gw_option *o, const char *inlined,
                      struct gw_value *v)
{
    if (o->kind == GW_OPTION_FLAG) {
        v->text = o->name;
        if (inlined)
            return gw_error_set(p->e, GW_E_USAGE, "--%s takes no value", o->name);
        return 0;
    }
    v->text = inlined;
    if (!inlined && p->at < p->argc)
        v->text = p->argv[p->at++];
    if (!v->text)
        return gw_error_set(p->e, GW_E_USAGE, "--%s needs a value: %s", o->name, o->arg);
    return check_value(p, o, v);
}

static int take_option(struct parser *p, const char *word)
{
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const struct gw_command *c = p->args->command;
    const struct gw_option *o;
    struct gw_value v = {0};

    if (c && (o = find_option(c->options, name, len)))
        return take_value(p, o, equals ? equals + 1 : NULL, &p->args->values[o - c->options]);
    o = find_option(gw_global_options, name, len);
    if (!o)
        o = find_option(hidden_options, name, len);
    if (!o)
        return unknown_option(p, name, len);
    if (take_value(p, o, equals ? equals + 1 : NULL, &v) < 0)
        return -1;
    set_global(p->globals, o->name, v.text);
    return 0;
}

static int unknown_command(const struct parser *p, const char *word)
{
    const char *names[NEAR_MAX], *group = *p->groupp;
    unsigned n = 0;

    for (const struct gw_command *c = gw_commands; c->name && n < NEAR_MAX; c++)
        if (!group)
            names[n++] = c->group ? c->group : c->name;
        else if (c->group && strcmp(c->group, group) == 0)
            names[n++] = c->name;
    gw_error_set(p->e, GW_E_USAGE, "unknown command '%s%s%s'", group ? group : "", group ? " " : "",
                 word);
    return add_hint(p->e, gw_options_near(word, names, n), "",
                    group ? "see --help" : "see 'godwit --help'");
}

static int take_command_word(struct parser *p, const char *word)
{
    for (const struct gw_command *c = gw_commands; c->name; c++) {
        if (!*p->groupp && c->group && strcmp(c->group, word) == 0) {
            *p->groupp = c->group;
            return 0;
        }
        if (strcmp(c->name, word) == 0 &&
            (*p->groupp ? c->group && strcmp(c->group, *p->groupp) == 0 : !c->group)) {
            p->args->command = c;
            return 0;
        }
    }
    return unknown_command(p, word);
}

static int take_operand(struct parser *p, const char *word)
{
    const struct gw_command *c = p->args->command;

    if (!c->operand)
        return gw_error_set(p->e, GW_E_USAGE, "'%s' is one word too many: the command takes none",
                            word);
    if (p->args->operand)
        return gw_error_set(p->e, GW_E_USAGE, "'%s' is one word too many after %s '%s'", word,
                            c->operand, p->args->operand);
    if (!*word)
        return gw_error_set(p->e, GW_E_USAGE, "%s must not be empty", c->operand);
    p->args->operand = word;
    return 0;
}

static int take_word(struct parser *p, const char *word)
{
    if (p->only_operands || word[0] != '-' || word[1] == '\0') {
        /* "godwit help vm start" is "godwit vm start --help". */
        if (!p->args->command && !*p->groupp && strcmp(word, "help") == 0) {
            p->globals->help = true;
            return 0;
        }
        return p->args->command ? take_operand(p, word) : take_command_word(p, word);
    }
    if (strcmp(word, "--") == 0)
        p->only_operands = true;
    else if (strcmp(word, "-h") == 0)
        p->globals->help = true;
    else if (word[1] == '-')
        return take_option(p, word);
    else
        return gw_error_set(p->e, GW_E_USAGE, "unknown option '%s'", word),
               gw_error_hint(p->e, "options are words: see --help");
    return 0;
}

static bool is_answered(const struct gw_globals *g)
{
    return g->help || g->version || g->print_commands || g->print_names;
}

static int check_complete(const struct parser *p)
{
    const struct gw_command *c = p->args->command;

    if (!c && *p->groupp)
        return gw_error_set(p->e, GW_E_USAGE, "'%s' needs a command", *p->groupp);
    if (!c)
        return gw_error_set(p->e, GW_E_USAGE, "no command");
    if (c->operand && !p->args->operand)
        return gw_error_set(p->e, GW_E_USAGE, "%s is missing", c->operand);
    for (const struct gw_option *o = c->options; o && o->name; o++)
        if (o->required && !p->args->values[o - c->options].text)
            return gw_error_set(p->e, GW_E_USAGE, "--%s %s is missing", o->name, o->arg);
    return 0;
}

/* The words go to the daemon as JSON, which is UTF-8. */
static int check_words(const struct parser *p)
{
    for (int i = 1; i < p->argc; i++)
        if (!gw_text_is_utf8(p->argv[i]))
            return gw_error_set(p->e, GW_E_USAGE, "'%s' is not UTF-8", p->argv[i]);
    return 0;
}

int gw_options_parse(int argc, char **argv, struct gw_globals *globals, struct gw_args *args,
                     const char **groupp, struct gw_error *e)
{
    struct parser p = {.argc = argc,
                       .argv = argv,
                       .at = 1,
                       .globals = globals,
                       .args = args,
                       .groupp = groupp,
                       .e = e};

    *globals = (struct gw_globals){0};
    *args = (struct gw_args){0};
    *groupp = NULL;
    /* An error found before "--json" has to come out as JSON too. */
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        globals->json |= strcmp(argv[i], "--json") == 0;
    if (check_words(&p) < 0)
        return -1;
    while (p.at < argc)
        if (take_word(&p, argv[p.at++]) < 0)
            return -1;
    return is_answered(globals) ? 0 : check_complete(&p);
}

static const struct gw_value *find_value(const struct gw_args *args, const char *name)
{
    const struct gw_option *o = find_option(args->command->options, name, strlen(name));

    assert(o);
    return &args->values[o - args->command->options];
}

const char *gw_args_text(const struct gw_args *args, const char *name)
{
    return find_value(args, name)->text;
}

bool gw_args_number(const struct gw_args *args, const char *name, uint64_t *np)
{
    const struct gw_value *v = find_value(args, name);

    *np = v->number;
    return v->text;
}

bool gw_args_flag(const struct gw_args *args, const char *name)
{
    return find_value(args, name)->text;
}
