/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields of the daemon's JSON, which may come from another version than ours: whatever is missing,
 * null or of another type than expected counts as not known. Nothing here fails. Every object may
 * be NULL.
 */
#ifndef GW_GODWIT_FIELD_H
#define GW_GODWIT_FIELD_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

/* Borrowed from the object; fallback (which may be NULL) where it is no string. */
const char *gw_field_str(const json_t *object, const char *key, const char *fallback);

/* A number, rounded; -1 where it is none, is negative or does not fit. */
int64_t gw_field_int(const json_t *object, const char *key);

/* False where it is no boolean. */
bool gw_field_bool(const json_t *object, const char *key);

/* Borrowed; NULL where it is no object, or no array. */
json_t *gw_field_object(const json_t *object, const char *key);
json_t *gw_field_array(const json_t *object, const char *key);

/* A list as the daemon answers it: the array itself, or an array under the key. */
const json_t *gw_field_list(const json_t *answer, const char *key);

/* True for "completed", "failed" and "cancelled" under the key "state": the migration is over. */
bool gw_field_is_over(const json_t *migration);

#endif
