/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "field.h"

const char *gw_field_str(const json_t *object, const char *key, const char *fallback)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : fallback;
}

int64_t gw_field_int(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    double n;

    if (json_is_integer(value))
        return json_integer_value(value) < 0 ? -1 : json_integer_value(value);
    n = json_is_real(value) ? json_real_value(value) : -1;
    return n >= 0 && n < 9e18 ? (int64_t)(n + 0.5) : -1;
}

bool gw_field_bool(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

json_t *gw_field_object(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);

    return json_is_object(value) ? value : NULL;
}

json_t *gw_field_array(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);

    return json_is_array(value) ? value : NULL;
}

const json_t *gw_field_list(const json_t *answer, const char *key)
{
    return json_is_array(answer) ? answer : gw_field_array(answer, key);
}

bool gw_field_is_over(const json_t *migration)
{
    const char *state = gw_field_str(migration, "state", "");

    return strcmp(state, "completed") == 0 || strcmp(state, "failed") == 0 ||
           strcmp(state, "cancelled") == 0;
}
