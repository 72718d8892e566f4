/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One-time join tokens. As text, to copy and paste:
 *
 *     gwt1.<base64url of: be64 expiry | id[16] | secret[32] | be16 port | address | sha256[0..3]>
 *
 * The inviter keeps each open token in a file DIR/tokens/ID (0600) across restarts. Joiner and
 * inviter use the secret as the external pre-shared key of their TLS 1.3 handshake, under the id
 * as its identity (RFC 8446, section 4.2.11): neither comes through without it, and it never
 * crosses the wire. A token is used up by removing its file, which exactly one of any number of
 * joiners can do.
 */
#ifndef GW_SHELL_TOKEN_H
#define GW_SHELL_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "godwit/error.h"
#include "shell/nodes.h"

#define GW_TOKEN_ID_BYTES     16
#define GW_TOKEN_SECRET_BYTES 32
#define GW_TOKEN_TEXT_MAX     512 /* with the NUL */

struct gw_token {
    int64_t expires_at_s; /* Unix time, by the inviter's clock */
    uint8_t id[GW_TOKEN_ID_BYTES];
    uint8_t secret[GW_TOKEN_SECRET_BYTES];
    uint16_t port;                         /* of the inviter's control side */
    char address[GW_NODE_ADDRESS_MAX + 1]; /* of the inviter */
};

/* Writes the text form. Cannot fail for a token from gw_token_make() or gw_token_parse(). */
void gw_token_format(const struct gw_token *token, char text[GW_TOKEN_TEXT_MAX]);

/* Reads the text form, white space around it allowed. 0, or -1 with *error (GW_E_USAGE) for
 * anything incomplete or mistyped. Does not judge the expiry: the inviter's clock does. */
int gw_token_parse(const char *text, struct gw_token *token, struct gw_error *error);

/* Makes a token that ends at expires_at_s and stores it below dir; purges expired ones first.
 * 0 or -1 with *error. */
int gw_token_make(const char *dir, const char *address, uint16_t port, int64_t expires_at_s,
                  struct gw_token *token, struct gw_error *error);

/* The secret of an open token. 0; or -1 with *error: GW_E_PERMISSION where there is none of this
 * id (never made, used or expired). */
int gw_token_find(const char *dir, const uint8_t id[GW_TOKEN_ID_BYTES],
                  uint8_t secret[GW_TOKEN_SECRET_BYTES], struct gw_error *error);

/* Uses the token up, durably. 0 for exactly one caller; -1 with *error for all others
 * (GW_E_PERMISSION). Call it before what the token is good for is done. */
int gw_token_consume(const char *dir, const uint8_t id[GW_TOKEN_ID_BYTES], struct gw_error *error);

/* What a joiner is told when where ("10.0.0.1:7400") does not take its token: GW_E_PERMISSION and a
 * hint. Returns -1. */
int gw_token_refused(const char *where, struct gw_error *error);

/* Removes expired tokens. The number of those that are still open. */
unsigned gw_token_purge(const char *dir);

#endif
