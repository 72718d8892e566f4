/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's option strings: "driver,key=value,key=va,,lue". A doubled comma is a comma in a value.
 * The first element may lack its key. Options that QEMU also takes as JSON are read into the same
 * shape, nested members as "file.filename".
 */
#ifndef GW_HOST_OPTSTR_H
#define GW_HOST_OPTSTR_H

#include <stdbool.h>
#include <stddef.h>

#include "util/cleanup.h"

#define GW_OPTSTR_MAX 256u /* more elements than QEMU's largest option has */

struct gw_optstr_item {
    char *key;   /* never NULL */
    char *value; /* NULL: a bare "key", which QEMU takes as key=on ("nokey": off) */
};

struct gw_optstr {
    struct gw_optstr_item *items;
    size_t n_items;
};

/*
 * Parses text; the first element gets the key first_key if it has none (NULL: it is a bare one
 * like the others). A text that begins with '{' is JSON. Returns the caller's object; NULL with
 * errno ENOMEM, or EINVAL for text that is neither or has too many elements.
 */
struct gw_optstr *gw_optstr_parse(const char *text, const char *first_key);
void gw_optstr_free(struct gw_optstr *opts);
GW_DEFINE_AUTO(optstr)

/* The value of key (the last one counts, as in QEMU); "" for a bare one; NULL if it is not there.
 */
const char *gw_optstr_get(const struct gw_optstr *opts, const char *key);

/* Whether key is there. */
bool gw_optstr_has(const struct gw_optstr *opts, const char *key);

/* Whether key is on: "on", "yes", "true", "y" or bare. otherwise: what it is when absent, which
 * the bare "nokey" turns off. */
bool gw_optstr_bool(const struct gw_optstr *opts, const char *key, bool otherwise);

/* Replaces every element of that name by one at the end (the place of the first, if there was
 * one). Returns 0 or -ENOMEM. */
int gw_optstr_set(struct gw_optstr *opts, const char *key, const char *value);

/* Removes every element of that name, also as "nokey". key must not be a string of opts. */
void gw_optstr_remove(struct gw_optstr *opts, const char *key);

/* Removes every element. */
void gw_optstr_clear(struct gw_optstr *opts);

/* The string again, commas in values doubled, the value of first_key in front without its key;
 * the caller's, or NULL when memory is short. */
char *gw_optstr_format(const struct gw_optstr *opts, const char *first_key);

/* value with every comma doubled; the caller's, or NULL when memory is short. */
char *gw_optstr_escape(const char *value);

#endif
