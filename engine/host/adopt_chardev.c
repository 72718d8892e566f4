/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of adoption: character devices, and what is connected to them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/adopt_parse.h"

/* Leaves only backend and id, and makes the backend "null". */
static void silence(struct gw_adopt_parser *p, struct gw_optstr *opts, const char *id)
{
    gw_autofree char *copy = strdup(id);

    if (!copy)
        p->failed = true;
    gw_optstr_clear(opts);
    gw_adopt_put(p, opts, "backend", "null");
    gw_adopt_put(p, opts, "id", copy ? copy : "");
}

static void absolute_key(struct gw_adopt_parser *p, const char *what, struct gw_optstr *opts,
                         const char *key)
{
    gw_autofree char *path = gw_adopt_absolute(p, what, gw_optstr_get(opts, key));

    if (path)
        gw_adopt_put(p, opts, key, path);
}

static bool is_here(const char *host)
{
    static const char *const here[] = {"", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1", NULL};

    return gw_adopt_among(host, here);
}

static void rewrite_socket(struct gw_adopt_parser *p, const char *what, struct gw_optstr *opts,
                           const char *id)
{
    const char *host = gw_optstr_get(opts, "host");
    gw_autofree char *path = NULL;

    if (gw_optstr_has(opts, "fd") || gw_optstr_has(opts, "tls-creds") ||
        !gw_optstr_bool(opts, "server", false)) {
        gw_adopt_refuse(p, what, "%s: connected to something on this host", id);
        return;
    }
    if (!gw_optstr_has(opts, "path") && (!host || !is_here(host))) {
        gw_adopt_refuse(p, what, "%s: listens on the address '%.60s' of this host", id,
                        host ? host : "?");
        return;
    }
    if (gw_optstr_has(opts, "path")) {
        if (asprintf(&path, "@RUNDIR@/%s.sock", id) < 0) {
            path = NULL;
            p->failed = true;
            return;
        }
        if (!p->is_template)
            gw_adopt_remark(p, what, "%s: after a move its socket is a private one of Godwit", id);
        gw_optstr_remove(opts, "abstract");
        gw_optstr_remove(opts, "tight");
        gw_adopt_put(p, opts, "path", path);
    }
    /* QEMU would not start before somebody has connected */
    gw_optstr_remove(opts, "wait");
    gw_adopt_put(p, opts, "wait", "off");
}

static void rewrite_backend(struct gw_adopt_parser *p, const char *what, struct gw_optstr *opts,
                            const char *id)
{
    static const char *const kept[] = {"null",    "ringbuf",  "memory", "msmouse",
                                       "testdev", "wctablet", "pty",    "vc",
                                       "mux",     "hub",      NULL};
    static const char *const silenced[] = {"spicevmc", "spiceport", "qemu-vdagent", "dbus", NULL};
    const char *backend = gw_optstr_get(opts, "backend");

    if (strcmp(backend, "stdio") == 0) {
        gw_adopt_remark(p, what, "%s: goes to the console log instead of the terminal", id);
        gw_optstr_remove(opts, "signal");
        gw_adopt_put(p, opts, "backend", "file");
        gw_adopt_put(p, opts, "path", "@CONSOLE@");
        gw_adopt_put(p, opts, "append", "on");
    } else if (strcmp(backend, "file") == 0 && gw_optstr_has(opts, "path")) {
        absolute_key(p, what, opts, "path");
        gw_adopt_put(p, opts, "append",
                     "on"); /* what the guest said before the move must not get lost */
    } else if (strcmp(backend, "socket") == 0) {
        rewrite_socket(p, what, opts, id);
    } else if (gw_adopt_among(backend, silenced)) {
        gw_adopt_remark(p, what, "%s: its display is gone, so it leads nowhere", id);
        silence(p, opts, id);
    } else if (!gw_adopt_among(backend, kept)) {
        gw_adopt_refuse(p, what, "%s: a device, pipe or connection of this host", id);
    }
}

static void rewrite_chardev(struct gw_adopt_parser *p, const char *option, struct gw_optstr *opts)
{
    gw_autofree char *id = NULL;
    const char *backend = gw_optstr_get(opts, "backend");
    char what[80];

    snprintf(what, sizeof what, "%s %.60s", option, backend ? backend : "");
    if (!backend || !gw_adopt_id_valid(gw_optstr_get(opts, "id")) ||
        gw_optstr_has(opts, "input-path")) {
        gw_adopt_refuse(p, what, "malformed, without a plain id, or with an input file");
        return;
    }
    id = strdup(gw_optstr_get(opts, "id"));
    if (!id) {
        p->failed = true;
        return;
    }
    rewrite_backend(p, what, opts, id);
    if (gw_optstr_has(opts, "logfile")) {
        absolute_key(p, what, opts, "logfile");
        gw_adopt_put(p, opts, "logappend", "on");
    }
    gw_adopt_push_opts(p, "-chardev", opts, "backend");
}

void gw_adopt_chardev(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "backend");
    const char *id = opts ? gw_optstr_get(opts, "id") : NULL;

    if (!opts)
        return;
    for (size_t i = 0; id && i < p->n_monitors; i++)
        if (strcmp(p->monitors[i], id) == 0) {
            /* the monitor is dropped; something else may be behind the same (mux) chardev */
            silence(p, opts, p->monitors[i]);
            break;
        }
    rewrite_chardev(p, option, opts);
}

/* "tcp:host:port,…" and "telnet:…" */
static struct gw_optstr *legacy_tcp(struct gw_adopt_parser *p, const char *rest, bool telnet)
{
    const char *end = rest + strcspn(rest, ",");
    const char *colon = memrchr(rest, ':', (size_t)(end - rest));
    struct gw_optstr *opts = gw_optstr_parse(*end ? end + 1 : "", NULL);
    gw_autofree char *host = colon ? strndup(rest, (size_t)(colon - rest)) : NULL;
    gw_autofree char *port = colon ? strndup(colon + 1, (size_t)(end - colon - 1)) : NULL;

    if (!opts || !host || !port)
        return opts;
    gw_adopt_put(p, opts, "backend", "socket");
    gw_adopt_put(p, opts, "host", host);
    gw_adopt_put(p, opts, "port", port);
    if (telnet)
        gw_adopt_put(p, opts, "telnet", "on");
    return opts;
}

/* QEMU's old syntax for character devices; an empty backend if it is none that we know. */
static struct gw_optstr *legacy_chardev(struct gw_adopt_parser *p, const char *dev)
{
    struct gw_optstr *opts;

    if (gw_adopt_begins(dev, "tcp:"))
        return legacy_tcp(p, dev + 4, false);
    if (gw_adopt_begins(dev, "telnet:"))
        return legacy_tcp(p, dev + 7, true);
    opts = gw_optstr_parse(gw_adopt_begins(dev, "unix:") ? dev + 5 : "", "path");
    if (!opts)
        return NULL;
    if (gw_adopt_begins(dev, "unix:")) {
        gw_adopt_put(p, opts, "backend", "socket");
    } else if (gw_adopt_begins(dev, "file:")) {
        gw_adopt_put(p, opts, "backend", "file");
        gw_adopt_put(p, opts, "path", dev + 5);
    } else if (strcmp(dev, "stdio") == 0) {
        gw_adopt_put(p, opts, "backend", "stdio");
    }
    return opts;
}

/* Where people look for what the guest says. */
static void note_console(struct gw_adopt_parser *p, const char *option, const char *dev)
{
    gw_autofree char *path = NULL;

    if (strcmp(option, "-serial") != 0 || !gw_adopt_begins(dev, "file:") ||
        p->adopt->spec->console.log)
        return;
    path = gw_adopt_absolute(p, option, dev + 5);
    if (path)
        gw_adopt_set(p, option, &p->adopt->spec->console.log, path);
}

void gw_adopt_serial(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    static const char *const kept[] = {"none", "null", "pty", "vc", "msmouse", NULL};
    const char *dev =
        gw_adopt_begins(arg, "mon:") ? arg + 4 : arg; /* the monitor on it is dropped */
    gw_auto(optstr) struct gw_optstr *opts = NULL;
    char id[32], chardev[48];

    if (gw_adopt_among(dev, kept) || gw_adopt_begins(dev, "chardev:") ||
        gw_adopt_begins(dev, "vc:")) {
        gw_adopt_push2(p, option, dev);
        return;
    }
    opts = legacy_chardev(p, dev);
    if (!opts || !gw_optstr_has(opts, "backend")) {
        gw_adopt_refuse(p, option, "'%.80s' is a device of this host, or unknown to Godwit", dev);
        return;
    }
    note_console(p, option, dev);
    snprintf(id, sizeof id, "gwchar%u", p->n_made_up++);
    snprintf(chardev, sizeof chardev, "chardev:%s", id);
    gw_adopt_put(p, opts, "id", id);
    rewrite_chardev(p, option, opts);
    gw_adopt_push2(p, option, chardev);
}

void gw_adopt_audiodev(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "driver");
    const char *driver = opts ? gw_optstr_get(opts, "driver") : NULL;
    gw_autofree char *text = NULL;

    if (!driver || !gw_adopt_id_valid(gw_optstr_get(opts, "id"))) {
        if (opts)
            gw_adopt_refuse(p, option, "malformed, or without a plain id");
        return;
    }
    if (strcmp(driver, "none") != 0)
        gw_adopt_remark(p, option, "after a move the guest's sound goes nowhere");
    if (asprintf(&text, "none,id=%s", gw_optstr_get(opts, "id")) >= 0)
        gw_adopt_push2(p, option, text);
    else
        p->failed = true;
}

void gw_adopt_audio(struct gw_adopt_parser *p, const char *option, const char *arg)
{
    gw_auto(optstr) struct gw_optstr *opts = gw_adopt_opts(p, option, arg, "driver");
    const char *model = opts ? gw_optstr_get(opts, "model") : NULL;
    const char *driver = opts ? gw_optstr_get(opts, "driver") : NULL;
    gw_autofree char *text = NULL;

    if (!opts)
        return;
    if (driver && strcmp(driver, "none") != 0)
        gw_adopt_remark(p, option, "after a move the guest's sound goes nowhere");
    if (model && !gw_adopt_id_valid(model)) {
        gw_adopt_refuse(p, option, "malformed");
        return;
    }
    if (asprintf(&text, "none%s%s", model ? ",model=" : "", model ? model : "") >= 0)
        gw_adopt_push2(p, option, text);
    else
        p->failed = true;
}
