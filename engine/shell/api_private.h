/* SPDX-License-Identifier: Apache-2.0 */
/* What the handlers of the API share; see api.h. */
#ifndef GW_SHELL_API_PRIVATE_H
#define GW_SHELL_API_PRIVATE_H

#include <stdbool.h>

#include "godwit/error.h"
#include "shell/daemon.h"
#include "shell/http.h"

struct gw_daemon *gw_api_daemon(struct gw_http_api *api);

void gw_api_refuse(struct gw_http_request *request, enum gw_code code, const char *msg,
                   const char *hint);

/* A member of the body that must be a string. NULL: the request has been refused. */
const char *gw_api_need(struct gw_http_request *request, const char *key);

/* NULL: it is not there. */
const char *gw_api_optional(struct gw_http_request *request, const char *key);

/* Unknown members are refused: a misspelt limit must not be ignored. known ends with NULL. False:
 * the request has been refused. */
bool gw_api_only_known(struct gw_http_request *request, const char *const *known);

/* api_migrations.c */
void gw_api_migrations_start(struct gw_http_api *api, struct gw_http_request *request);
void gw_api_migrations_list(struct gw_http_api *api, struct gw_http_request *request);
void gw_api_migrations_show(struct gw_http_api *api, struct gw_http_request *request);
void gw_api_migrations_log(struct gw_http_api *api, struct gw_http_request *request);
void gw_api_migrations_set(struct gw_http_api *api, struct gw_http_request *request);
void gw_api_migrations_cancel(struct gw_http_api *api, struct gw_http_request *request);
void gw_api_check_start(struct gw_http_api *api, struct gw_http_request *request);

#endif
