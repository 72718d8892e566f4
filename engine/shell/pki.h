/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who this node is: keys and certificates below the state directory, and the TLS context that
 * they make.
 *
 *     DIR/pki/          0700
 *     DIR/pki/ca.key    0600, on the first node only: whoever holds it can admit nodes
 *     DIR/pki/ca.crt    what every node trusts
 *     DIR/pki/node.key  0600
 *     DIR/pki/node.crt  CN = the node's name; written last, so that where it exists all is there
 *
 * All keys are ECDSA P-256. A CA lives 10 years, a node's certificate 2; both begin one hour
 * before they are made, for clocks that differ.
 */
#ifndef GW_SHELL_PKI_H
#define GW_SHELL_PKI_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "godwit/error.h"
#include "shell/nodes.h"

/* The longest PEM text of a key, request or certificate that is looked at. */
#define GW_PKI_PEM_MAX (16u << 10)

/* Nothing is ever resumed, but OpenSSL takes a join token's pre-shared key for a session too, and
 * wants to see this context in it on both sides. */
#define GW_PKI_SESSION_CONTEXT "godwit"

/* A node's loaded identity. All zero is fine for gw_pki_fini(). */
struct gw_pki {
    char name[GW_NODE_NAME_MAX + 1]; /* from node.crt */
    bool ca;                         /* ca.key is here, so this node can sign */
    int64_t expires_at_s;            /* Unix time at which node.crt ends */
    SSL_CTX *ctx;                    /* TLS 1.3 only, both roles, peer's certificate required */
};

/* Makes a CA and, signed by it, this node's key and certificate. 0 or -1 with *error: GW_E_EXISTS
 * where DIR has an identity already, GW_E_USAGE for an invalid name. */
int gw_pki_init_ca(const char *dir, const char *node_name, struct gw_error *error);

/*
 * Makes node.key and a certificate request for it: *csr_pemp, freed by the caller. 0 or -1 with
 * *error: GW_E_EXISTS where DIR has an identity already. A key left over by an attempt that never
 * came to a certificate is replaced.
 */
int gw_pki_make_key_and_csr(const char *dir, const char *node_name, char **csr_pemp,
                            struct gw_error *error);

/*
 * Checks a request from outside without signing: PEM of at most GW_PKI_PEM_MAX, signed by its own
 * key, a P-256 key, CN equal to node_name. 0 or -1 with *error (GW_E_REFUSED).
 */
int gw_pki_check_csr(const char *csr_pem, const char *node_name, struct gw_error *error);

/*
 * The same check, then a certificate that takes nothing from the request but its public key and
 * its name. *cert_pemp and *ca_pemp are freed by the caller. 0 or -1 with *error (also
 * GW_E_NOT_FOUND where this node has no CA key).
 */
int gw_pki_sign_csr(const char *dir, const char *csr_pem, const char *node_name, char **cert_pemp,
                    char **ca_pemp, struct gw_error *error);

/*
 * Completes gw_pki_make_key_and_csr(). Both texts are untrusted: the certificate must be for
 * node_name and our node.key, signed by that CA and in force. 0; or -1 with *error
 * (GW_E_PERMISSION) and no identity installed.
 */
int gw_pki_install(const char *dir, const char *node_name, const char *cert_pem, const char *ca_pem,
                   struct gw_error *error);

/* 0 with *pki filled, for gw_pki_fini(); or -1 with *error: GW_E_NOT_FOUND where DIR has no
 * identity yet, GW_E_CONFIG where its files do not fit together. */
int gw_pki_load(const char *dir, struct gw_pki *pki, struct gw_error *error);

/* Frees what pki holds and zeroes it; twice is fine. */
void gw_pki_fini(struct gw_pki *pki);

/* The node name in a certificate: its only CN, valid as gw_node_name_valid() has it. 0 or -1 with
 * *error (GW_E_PERMISSION). Says nothing about who signed it. */
int gw_pki_cert_name(const X509 *cert, char name[GW_NODE_NAME_MAX + 1], struct gw_error *error);

/* What every TLS context of Godwit has: TLS 1.3 only, no tickets, no resumption, small limits.
 * NULL with *error. */
SSL_CTX *gw_pki_bare_ctx(struct gw_error *error);

#endif
