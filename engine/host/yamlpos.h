/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the values of a YAML text stand, and whether it is YAML that we want to read at all.
 *
 * libcyaml loads a text into a struct, but then nobody knows any more which line a value came
 * from, and the line in its own messages is that of the token before. This is a first pass with
 * libyaml (on which libcyaml is built) that records the line of every key and list entry. It
 * refuses what a configuration does not need and what an attacker would like: anchors and aliases,
 * tags, several documents, keys that are not plain words, duplicate keys, NUL bytes, deep nesting.
 */
#ifndef GW_HOST_YAMLPOS_H
#define GW_HOST_YAMLPOS_H

#include <stddef.h>

#include "godwit/error.h"

#define GW_YAMLPOS_MAX_DEPTH   8u
#define GW_YAMLPOS_MAX_ENTRIES 4096u

struct gw_yamlpos_entry {
    char *path;       /* "disks[1].file" */
    const char *leaf; /* its last component: the key, or "[1]"; points into path */
    size_t line;      /* of the key, or of the list entry; from 1 */
    size_t column;    /* from 1 */
};

struct gw_yamlpos {
    struct gw_yamlpos_entry *entries; /* in the order of the text */
    size_t n_entries;
};

/*
 * Scans text, whose top must be a mapping. Returns 0 with *pos filled, or -1 with *e (GW_E_CONFIG
 * as "FILE:LINE: reason"; GW_E_SYSTEM when memory is short) and *pos empty.
 */
int gw_yamlpos_init(struct gw_yamlpos *pos, const char *text, size_t len, const char *file,
                    struct gw_error *e);

/* May be repeated. */
void gw_yamlpos_fini(struct gw_yamlpos *pos);

/* The line of the value at path, or of the nearest thing around it; 0 if there is none. */
size_t gw_yamlpos_line(const struct gw_yamlpos *pos, const char *path);

/* The first entry named leaf, depth levels down (the keys of the top are at 1, "disks[1].file" is
 * at 3), at or after that place of the text; NULL if there is none. */
const struct gw_yamlpos_entry *gw_yamlpos_after(const struct gw_yamlpos *pos, const char *leaf,
                                                size_t depth, size_t line, size_t column);

#endif
