/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What preflight found: a list that grows in order, is shown to people, and goes to peers and API
 * clients as JSON. The struct of a finding is fixed in size and its texts are valid UTF-8 without
 * control characters, wherever they came from.
 */
#ifndef GW_HOST_FINDINGS_H
#define GW_HOST_FINDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>

#include "godwit/error.h"

enum gw_finding_level {
    GW_FINDING_ERROR,   /* the VM cannot move there */
    GW_FINDING_WARNING, /* it can, and somebody should know this */
    GW_FINDING_INFO,
};

struct gw_finding {
    enum gw_finding_level level;
    char code[32];     /* stable, for programs: "machine-unknown"; lower case, digits and dashes */
    char subject[128]; /* what it is about: a disk's path, a bridge, a CPU feature; may be empty */
    char message[384]; /* one line for people */
    char hint[256];    /* what to do; may be empty */
};

enum { GW_FINDINGS_MAX = 512 };

struct gw_findings {
    struct gw_finding *items;
    size_t n_items;
    size_t n_allocated;
    size_t n_errors;   /* how many of them are GW_FINDING_ERROR */
    size_t n_warnings; /* … GW_FINDING_WARNING */
    bool incomplete;   /* some were lost: no memory, or more than GW_FINDINGS_MAX */
};

/* An all-zero struct is an empty list. fini twice is fine. */
void gw_findings_fini(struct gw_findings *list);

/*
 * Appends one; format makes the message. Texts that are too long are cut. Returns the finding,
 * so that gw_finding_hint() can follow at once, or NULL when it is lost: then the list is
 * incomplete, and no longer gw_findings_ok() if it was an error. The pointer holds until the next
 * gw_findings_add().
 */
struct gw_finding *gw_findings_add(struct gw_findings *list, enum gw_finding_level level,
                                   const char *code, const char *subject, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Says what to do about it; nothing if finding is NULL. */
void gw_finding_hint(struct gw_finding *finding, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* True when no error was found (a lost one counts). */
bool gw_findings_ok(const struct gw_findings *list);

/* The first error, or NULL. */
const struct gw_finding *gw_findings_first_error(const struct gw_findings *list);

/* "error", "warning", "info". */
const char *gw_finding_level_name(enum gw_finding_level level);

/* [{"level","code","subject","message","hint"}]; a new reference, NULL without memory. */
json_t *gw_findings_to_json(const struct gw_findings *list);

/* Appends what a peer sent to the list. A malformed value is GW_E_PROTOCOL and appends nothing. */
int gw_findings_from_json(struct gw_findings *list, const json_t *json, struct gw_error *e);

#endif
