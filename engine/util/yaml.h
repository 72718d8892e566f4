/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML text to a C struct, with errors that name file and line.
 *
 * libcyaml maps the text; libyaml reads it once before that, because libcyaml alone is both too
 * lenient (it takes "4x" for the number 4, "maybe" for true, and drops what follows a NUL byte or
 * a second "---") and often a line off (an unknown key is reported at the value before it).
 *
 * What is refused here, whatever the schema says: more than GW_YAML_MAX_BYTES of text, nesting
 * beyond GW_YAML_MAX_DEPTH, anchors and aliases, tags, NUL bytes, more than one document, no
 * document, unknown keys, a key given twice.
 */
#ifndef GW_UTIL_YAML_H
#define GW_UTIL_YAML_H

#include <stddef.h>
#include <cyaml/cyaml.h>

#include "godwit/error.h"

#define GW_YAML_MAX_BYTES (64 * 1024)
#define GW_YAML_MAX_DEPTH 16

/*
 * Loads len bytes of text as the one value that schema describes; its top level is a
 * CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, …). On success *outp is the struct, for gw_yaml_free()
 * (or field by field: every string in it is a malloc()ed block of its own). On failure *outp is
 * NULL and *e is GW_E_CONFIG, "FILE:LINE: reason", the hint naming the key that was
 * meant, or the known ones, where one was unknown. file only appears in messages. Returns 0 or -1.
 *
 * Booleans are true/false, yes/no, on/off. Numbers are decimal or 0x… and nothing may follow them.
 */
int gw_yaml_load(const char *text, size_t len, const char *file, const cyaml_schema_value_t *schema,
                 void **outp, struct gw_error *e);

/* Frees what gw_yaml_load() gave for this schema. data may be NULL. */
void gw_yaml_free(const cyaml_schema_value_t *schema, void *data);

/*
 * Reads a whole file of at most GW_YAML_MAX_BYTES into *textp (the caller free()s it; it ends in a
 * NUL that *lenp does not count). Returns 0, or -1 with GW_E_SYSTEM (e->sys is ENOENT where there
 * is no such file) or GW_E_CONFIG (too large, not a regular file).
 */
int gw_yaml_read_file(const char *file, char **textp, size_t *lenp, struct gw_error *e);

/*
 * For values that only the caller can judge: sets GW_E_CONFIG "FILE:LINE: KEY: reason" where LINE
 * is that of the value at path in text, which gw_yaml_load() has accepted. A path is keys and
 * sequence indexes from 0 with dots between: "disks.1.rbd". A path that is not there gives
 * "FILE: KEY: reason". Returns -1 always.
 */
int gw_yaml_reject(struct gw_error *e, const char *text, size_t len, const char *file,
                   const char *path, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* For messages of the caller's own: the line of the value at path (as above), or of the nearest
 * thing around it; 0 where nothing of path is there. */
size_t gw_yaml_line(const char *text, size_t len, const char *path);

#endif
