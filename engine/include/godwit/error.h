/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors as users of the library, of the HTTP API and of the command line see them.
 *
 * Inside the engine a function returns 0, a negative errno (the environment broke; pass it on) or
 * a positive outcome documented at that function (handle it there). At a boundary that a person or
 * a program may look at, a function takes a struct gw_error * as its last parameter and fills it
 * when it fails. The struct is fixed in size: reporting an error never allocates.
 */
#ifndef GODWIT_ERROR_H
#define GODWIT_ERROR_H

#include <stdarg.h>
#include <stdbool.h>

/*
 * Why something failed. The numbers are stable: they are only ever added to. The names, as
 * gw_code_name() gives them, stand in JSON as error.code.
 */
enum gw_code {
    GW_OK = 0,
    GW_E_USAGE = 1,         /* the request makes no sense: an unknown option, a malformed value */
    GW_E_CONFIG = 2,        /* a file (VM, policy, daemon configuration) has a wrong value */
    GW_E_NOT_FOUND = 3,     /* no such VM, node, policy or migration */
    GW_E_EXISTS = 4,        /* it is there already */
    GW_E_BUSY = 5,          /* something else holds it: another migration, another QMP client */
    GW_E_STATE = 6,         /* not possible in the state that it is in */
    GW_E_SYSTEM = 7,        /* a system call failed: sys holds the errno */
    GW_E_PROTOCOL = 8,      /* bytes from outside were malformed, too long or out of order */
    GW_E_TIMEOUT = 9,       /* no answer within the time allowed */
    GW_E_PEER = 10,         /* the other node cannot be reached, or went away */
    GW_E_REFUSED = 11,      /* the other node said no */
    GW_E_QEMU = 12,         /* QEMU answered with an error */
    GW_E_QEMU_GONE = 13,    /* the QEMU process ended, or its QMP connection did */
    GW_E_INCOMPATIBLE = 14, /* preflight: this VM cannot run on that node */
    GW_E_CANCELLED = 15,    /* somebody asked for it */
    GW_E_PERMISSION = 16,   /* a certificate or a token is missing, expired, used or not ours */
    GW_E_UNRESOLVED = 17,   /* nobody knows which node runs the guest: a person has to look */
    GW_E_UNSUPPORTED = 18,  /* this build, this QEMU or this kernel cannot do it */
    GW_E_MEMORY = 19,       /* the guest's memory has not arrived as it was; see --verify */
    GW_CODE_MAX
};

struct gw_error {
    enum gw_code code; /* GW_OK: no error, and the rest is unset */
    int sys;           /* positive errno where a system call failed, otherwise 0 */
    char msg[512];     /* one line: what was tried, on what, what came back */
    char hint[256];    /* one line: what to do next; may be empty */
};

/* The stable, lower-case name of a code ("not-found"); "unknown" for a number that is none. */
const char *gw_code_name(enum gw_code code);

/* The code whose name this is; GW_E_PROTOCOL for a name that a newer peer may know and we do not.
 */
enum gw_code gw_code_from_name(const char *name);

/*
 * Fills *e, if e is not NULL; a message that is too long is cut. Returns -1 always, so that a
 * function which reports errors this way can `return gw_error_set(…)`.
 */
int gw_error_set(struct gw_error *e, enum gw_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a failed system call: appends ": " and the text of errno value sys to the message.
 */
int gw_error_set_sys(struct gw_error *e, int sys, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Says what to do next. No effect if e is NULL. Returns -1 always. */
int gw_error_hint(struct gw_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "context: " before the message while an error climbs. Returns -1 always. */
int gw_error_prefix(struct gw_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
