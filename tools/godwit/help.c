/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "help.h"
#include "text.h"
#include "util/cleanup.h"

enum {
    OPTION_COLUMN = 24,
    WRAP_AT = 78,
};

static const char exit_statuses[] = "  0  done; of migrate: the guest runs on the destination\n"
                                    "  1  failed; of migrate: the guest runs on the source\n"
                                    "  2  wrong usage, or no such VM, node, policy or migration\n"
                                    "  3  somebody has to look, and is told where\n";

static void heading(FILE *out, const char *text)
{
    fputc('\n', out);
    gw_text_paint(out, GW_TEXT_BOLD, text);
    fputc('\n', out);
}

static char *option_words(const struct gw_option *o)
{
    char *words = NULL;

    if (asprintf(&words, "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "") < 0)
        words = NULL;
    return gw_text_no_memory(words);
}

/* Writes a word of a synopsis, on a new line when it would pass the edge. */
static void put_word(FILE *out, size_t *columnp, size_t indent, const char *word)
{
    if (*columnp + strlen(word) + 1 > WRAP_AT) {
        fprintf(out, "\n%*s", (int)indent, "");
        *columnp = indent;
    }
    *columnp += (size_t)fprintf(out, " %s", word);
}

static void put_options(FILE *out, size_t *columnp, size_t indent, const struct gw_option *o,
                        bool required)
{
    for (; o && o->name; o++) {
        gw_autofree char *words = option_words(o);
        gw_autofree char *bracketed = gw_text_format("[%s]", words);

        if (o->required == required)
            put_word(out, columnp, indent, required ? words : bracketed);
    }
}

static void synopsis(FILE *out, size_t column, const struct gw_command *c)
{
    size_t indent = column + 4;

    column += (size_t)fprintf(out, "godwit%s%s %s", c->group ? " " : "", c->group ? c->group : "",
                              c->name);
    if (c->operand)
        put_word(out, &column, indent, c->operand);
    put_options(out, &column, indent, c->options, true);
    put_options(out, &column, indent, c->options, false);
    fputc('\n', out);
}

static void list_options(FILE *out, const struct gw_option *o)
{
    for (; o && o->name; o++) {
        gw_autofree char *words = option_words(o);

        if (strlen(words) < OPTION_COLUMN)
            fprintf(out, "  %-*s%s\n", OPTION_COLUMN, words, o->help);
        else
            fprintf(out, "  %s\n  %*s%s\n", words, OPTION_COLUMN, "", o->help);
    }
}

static void list_commands(FILE *out, const char *group)
{
    for (const struct gw_command *c = gw_commands; c->name; c++) {
        gw_autofree char *words =
            gw_text_format("%s%s%s%s%s", c->group ? c->group : "", c->group ? " " : "", c->name,
                           c->operand ? " " : "", c->operand ? c->operand : "");

        if (!group || (c->group && strcmp(c->group, group) == 0))
            fprintf(out, "  %-*s%s\n", OPTION_COLUMN, words, c->help);
    }
}

static void print_command(FILE *out, const struct gw_command *c)
{
    gw_help_usage(out, c->group, c);
    fprintf(out, "\n%s.\n", c->help);
    if (c->detail)
        fprintf(out, "\n%s\n", c->detail);
    if (c->options) {
        heading(out, "Options");
        list_options(out, c->options);
    }
    heading(out, "Options of every command");
    list_options(out, gw_global_options);
    heading(out, "Example");
    fprintf(out, "  %s\n", c->example);
}

static void print_group(FILE *out, const char *group)
{
    gw_help_usage(out, group, NULL);
    heading(out, "Commands");
    list_commands(out, group);
    heading(out, "Example");
    for (const struct gw_command *c = gw_commands; c->name; c++)
        if (c->group && strcmp(c->group, group) == 0)
            fprintf(out, "  %s\n", c->example);
    fprintf(out, "\n'godwit %s COMMAND --help' says more about one of them.\n", group);
}

static void print_program(FILE *out)
{
    gw_help_usage(out, NULL, NULL);
    fputs("\nMoves running virtual machines between nodes. Talks to the godwitd of this node.\n",
          out);
    heading(out, "Commands");
    list_commands(out, NULL);
    heading(out, "Options of every command");
    list_options(out, gw_global_options);
    heading(out, "Example");
    fputs("  godwit check web1 --to n2 && godwit migrate web1 --to n2\n", out);
    heading(out, "Exit status");
    fputs(exit_statuses, out);
    fputs("\n'godwit COMMAND --help' says more about one command; so does godwit(1).\n", out);
}

void gw_help_print(FILE *out, const char *group, const struct gw_command *command)
{
    if (command)
        print_command(out, command);
    else if (group)
        print_group(out, group);
    else
        print_program(out);
}

void gw_help_usage(FILE *out, const char *group, const struct gw_command *command)
{
    size_t column = (size_t)fprintf(out, "usage: ");

    if (command)
        synopsis(out, column, command);
    else
        fprintf(out, "godwit %s%sCOMMAND …\n", group ? group : "[--socket PATH] [--json]", " ");
}

static void print_option_words(FILE *out, const struct gw_option *o, const char *before)
{
    for (; o && o->name; o++, before = " ")
        fprintf(out, "%s--%s%s%s", before, o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
    fputc('\n', out);
}

void gw_help_print_commands(FILE *out)
{
    fputs("\t\t", out);
    print_option_words(out, gw_global_options, "");
    for (const struct gw_command *c = gw_commands; c->name; c++) {
        fprintf(out, "%s%s%s\t%s\t", c->group ? c->group : "", c->group ? " " : "", c->name,
                c->operand ? c->operand : "");
        print_option_words(out, c->options, "");
    }
}
