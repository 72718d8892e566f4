/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between adopt.c, which walks over the command line, and the rules in adopt_machine.c,
 * adopt_block.c, adopt_net.c and adopt_chardev.c, for options that need more than a word in a
 * table. For these files only.
 *
 * All text in here is template text: "@" is doubled in what came from a real command line.
 */
#ifndef GW_HOST_ADOPT_PARSE_H
#define GW_HOST_ADOPT_PARSE_H

#include "host/adopt.h"
#include "host/optstr.h"

#define GW_ADOPT_MAX_MONITORS 16

struct gw_adopt_parser {
    struct gw_adopt *adopt; /* under construction */
    struct gw_adopt_host *host;
    bool is_template; /* the input is a template already: placeholders are fine */
    bool failed;      /* memory was short; everything else then no longer matters */
    const char *program;

    /* from the first pass */
    bool cwd_is_lost; /* -daemonize or a chroot: relative paths cannot be told any more */
    char *monitors[GW_ADOPT_MAX_MONITORS]; /* ids of chardevs that a -mon uses */
    size_t n_monitors;

    /* from the second pass */
    bool has_serial, has_machine, nographic, nodefaults;
    unsigned n_made_up; /* ids given to character devices that had none */
    char *accel;        /* the first accelerator with its properties */
    unsigned n_accels;
    char *netdev_ids[GW_VM_MAX_NICS]; /* of the spec's NICs; NULL: not a -netdev */
};

/* Appends one element to the template. */
void gw_adopt_push(struct gw_adopt_parser *p, const char *text);
void gw_adopt_push2(struct gw_adopt_parser *p, const char *option, const char *arg);

/* Notes a refusal, or what becomes different. what is the option as people know it. */
void gw_adopt_refuse(struct gw_adopt_parser *p, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void gw_adopt_remark(struct gw_adopt_parser *p, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Replaces *stringp by the plain form of template text; refuses what if there is a placeholder
 * where none can be. */
void gw_adopt_set(struct gw_adopt_parser *p, const char *what, char **stringp, const char *text);

/* Whether word is in the NULL-terminated list; whether text begins with prefix. */
bool gw_adopt_among(const char *word, const char *const *list);
bool gw_adopt_begins(const char *text, const char *prefix);

/* Whether id, which may be NULL, is a plain word that needs no quoting anywhere. */
bool gw_adopt_id_valid(const char *id);

/* Whether text begins with a placeholder, which only a template may have. */
bool gw_adopt_is_placeholder(const struct gw_adopt_parser *p, const char *text);

/* gw_optstr_parse(), _set() and _format() that refuse what is malformed and note when memory is
 * short. gw_adopt_opts() returns NULL then. */
struct gw_optstr *gw_adopt_opts(struct gw_adopt_parser *p, const char *option, const char *arg,
                                const char *first_key);
void gw_adopt_put(struct gw_adopt_parser *p, struct gw_optstr *opts, const char *key,
                  const char *value);
void gw_adopt_push_opts(struct gw_adopt_parser *p, const char *option, const struct gw_optstr *opts,
                        const char *first_key);

/* path as an absolute one, the caller's; NULL after a refusal, or when memory is short. */
char *gw_adopt_absolute(struct gw_adopt_parser *p, const char *option, const char *path);

/* Adds what preflight has to find on the other node to the spec's disks. path is absolute. */
void gw_adopt_add_file(struct gw_adopt_parser *p, const char *option, const char *path,
                       const char *format, bool readonly);

/* One rule each: arg is NULL for options without one. option is "-name" with one dash. */
typedef void gw_adopt_rule(struct gw_adopt_parser *p, const char *option, const char *arg);

gw_adopt_rule gw_adopt_accel, gw_adopt_audio, gw_adopt_audiodev, gw_adopt_blockdev,
    gw_adopt_chardev, gw_adopt_cpu, gw_adopt_device, gw_adopt_directory, gw_adopt_disk_path,
    gw_adopt_drive, gw_adopt_dtb, gw_adopt_enable_kvm, gw_adopt_firmware, gw_adopt_fw_file,
    gw_adopt_icount, gw_adopt_initrd, gw_adopt_kernel, gw_adopt_kernel_append, gw_adopt_machine,
    gw_adopt_memory, gw_adopt_name, gw_adopt_net, gw_adopt_object, gw_adopt_run_with,
    gw_adopt_serial, gw_adopt_smp, gw_adopt_usbdevice, gw_adopt_uuid;

/* Completes the spec's NICs from the -device options, which may stand on either side of the
 * -netdev that they belong to. */
void gw_adopt_find_macs(struct gw_adopt_parser *p);

#endif
