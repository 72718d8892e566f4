/* SPDX-License-Identifier: Apache-2.0 */
/* A struct gw_error as the JSON object that the API, the journal and the other node see. */
#ifndef GW_SHELL_ERROR_JSON_H
#define GW_SHELL_ERROR_JSON_H

#include <jansson.h>

#include "godwit/error.h"

/*
 * {"code", "message", "hint"} as a new reference, "hint" only where there is one. What a QEMU or a
 * file's name put into a message need not be UTF-8, and a message that was cut may end within a
 * character: bytes that are no UTF-8 become '?'. NULL without memory.
 */
json_t *gw_error_to_json(const struct gw_error *error);

/*
 * From a peer, untrusted: any JSON value, or NULL. *error always is a failure afterwards. Control
 * characters become '?': a message is one line. A code that we do not know is GW_E_PROTOCOL.
 */
void gw_error_from_json(const json_t *json, struct gw_error *error);

#endif
