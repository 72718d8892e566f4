/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP API: what stands in docs/openapi.yaml, a handler for each route. */
#ifndef GW_SHELL_API_H
#define GW_SHELL_API_H

#include <stdio.h>

#include "godwit/error.h"

struct gw_daemon;

/* Opens the API's socket. 0 or -1 with *error. */
int gw_api_open(struct gw_daemon *d, struct gw_error *error);

/* "METHOD /path" a line, for the test that holds the table and the OpenAPI file together. */
void gw_api_print_routes(FILE *out);

#endif
