/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands as a table, and the one parser that reads the words of all of them.
 *
 * Help, the shell's completion and the parser read the same table, so none of them can know a
 * command or an option that another does not.
 */
#ifndef GW_GODWIT_OPTIONS_H
#define GW_GODWIT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include "godwit/error.h"

enum {
    GW_OPTIONS_MAX = 16, /* of one command: the length of its table, so that none is longer */
};

enum gw_option_kind {
    GW_OPTION_FLAG,
    GW_OPTION_TEXT,   /* anything but nothing */
    GW_OPTION_CHOICE, /* one of the words of arg, which are separated by '|' */
    GW_OPTION_COUNT,  /* a whole number from min to max */
    GW_OPTION_RATE,   /* to bytes per second; "unlimited" is 0 */
    GW_OPTION_MS,     /* a duration, to milliseconds; a bare number is milliseconds */
    GW_OPTION_S,      /* a duration, to milliseconds; a bare number is seconds */
};

struct gw_option {
    const char *name; /* without the dashes; NULL ends a table */
    const char *arg;  /* what stands behind it in a synopsis; NULL for a flag */
    const char *help; /* one line */
    enum gw_option_kind kind;
    bool required;
    uint64_t min, max; /* of a count, or of milliseconds; max 0: no limit */
};

struct gw_cli;
struct gw_args;

struct gw_command {
    const char *group;               /* the word before name, or NULL */
    const char *name;                /* NULL ends the table */
    const char *operand;             /* the one word that it needs, as in a synopsis, or NULL */
    const char *help;                /* one line */
    const char *detail;              /* what else one should know; may be NULL */
    const char *example;             /* a command line that works */
    const struct gw_option *options; /* NULL: none of its own */
    int (*run)(struct gw_cli *cli, const struct gw_args *args); /* returns the exit status */
};

struct gw_value {
    const char *text; /* as given; NULL: not given */
    uint64_t number;  /* of the kinds that are one */
};

struct gw_args {
    const struct gw_command *command;
    const char *operand;
    struct gw_value values[GW_OPTIONS_MAX];
};

/* The command table of this program. */
extern const struct gw_command gw_commands[];

/* Options that every command takes, before or after its words. */
extern const struct gw_option gw_global_options[];

struct gw_globals {
    const char *socket; /* NULL: not given */
    bool json;
    bool help;
    bool version;
    bool print_commands;     /* hidden: feeds the completion */
    const char *print_names; /* hidden: "vms", "nodes", "migrations" */
};

/*
 * Reads argv. 0: args->command is complete and checked, or is NULL if a global option such as
 * --help makes that unnecessary. -1 and *e (GW_E_USAGE) otherwise. In both cases *groupp is the
 * group word that was recognised, or NULL, and args->command the command as far as it was found:
 * help can then speak about the right thing. Everything is borrowed from argv.
 */
int gw_options_parse(int argc, char **argv, struct gw_globals *globals, struct gw_args *args,
                     const char **groupp, struct gw_error *e);

/* The value of one of the command's own options; asserts that the table has it. */
const char *gw_args_text(const struct gw_args *args, const char *name);
bool gw_args_number(const struct gw_args *args, const char *name, uint64_t *np);
bool gw_args_flag(const struct gw_args *args, const char *name);

/* Which of n names somebody may have meant by word, or NULL: one that begins with it, or one that
 * is at most two typing errors away, and fewer than a half of its letters. */
const char *gw_options_near(const char *word, const char *const *names, unsigned n);

#endif
