/* SPDX-License-Identifier: Apache-2.0 */
/* TLS on a lane's socket. OpenSSL does the socket's system calls itself, so that kTLS works. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "build_config.h"
#include "transports/tcp/tcp_private.h"

/* OpenSSL's own reason for a failure, and an empty queue for the next one. */
static int failed(struct gw_tcp_lane *lane, const char *what)
{
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_reason_error_string(code);
    char text[200];

    ERR_clear_error();
    snprintf(text, sizeof text, "%s: %s", what, reason ? reason : "OpenSSL gave no reason");
    return gw_tcp_fail(lane, GW_E_PERMISSION, EPROTO, text);
}

/* What an SSL function that did not return success has to tell. 0: the peer's end. */
static int judge(struct gw_tcp_lane *lane, int r, const char *what, unsigned *eventsp)
{
    int sys = errno;

    switch (SSL_get_error(lane->ssl, r)) {
    case SSL_ERROR_WANT_READ: *eventsp = GW_IO_READ; return -EAGAIN;
    case SSL_ERROR_WANT_WRITE: *eventsp = GW_IO_WRITE; return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL:
        ERR_clear_error();
        return gw_tcp_fail(lane, GW_E_PEER, sys ? sys : ECONNRESET, what);
    default: break;
    }
    if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        ERR_clear_error();
        return gw_tcp_fail(lane, GW_E_PEER, ECONNRESET, "the peer went away without a goodbye");
    }
    return failed(lane, what);
}

bool gw_tls_ctx_good(const SSL_CTX *ctx)
{
    const int demand = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;

    return (SSL_CTX_get_verify_mode(ctx) & demand) == demand;
}

int gw_tls_start(struct gw_tcp_lane *lane)
{
    lane->ssl = SSL_new(lane->tcp->ctx);
    if (!lane->ssl || !SSL_set_fd(lane->ssl, lane->fd))
        return failed(lane, "begin TLS");
    /* A lane is never idle for long, and each record would allocate its buffers again. */
    SSL_clear_mode(lane->ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_set_mode(lane->ssl, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_set_read_ahead(lane->ssl, 1);
    SSL_set_default_read_buffer_len(lane->ssl, 128 << 10);
#if GW_HAVE_KTLS
    if (lane->tcp->ktls)
        SSL_set_options(lane->ssl, SSL_OP_ENABLE_KTLS);
#endif
    if (lane->server)
        SSL_set_accept_state(lane->ssl);
    else
        SSL_set_connect_state(lane->ssl);
    return 0;
}

/* The one CN of a certificate, as the cluster's CA writes node names. */
static bool name_of(X509 *cert, char *name, size_t size)
{
    const X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    const ASN1_STRING *text;
    size_t len;

    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return false;
    text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    len = (size_t)ASN1_STRING_length(text);
    if (len == 0 || len >= size || memchr(ASN1_STRING_get0_data(text), '\0', len))
        return false;
    memcpy(name, ASN1_STRING_get0_data(text), len);
    name[len] = '\0';
    return true;
}

static int check_peer(struct gw_tcp_lane *lane)
{
    X509 *cert = SSL_get0_peer_certificate(lane->ssl);

    if (!cert || SSL_get_verify_result(lane->ssl) != X509_V_OK ||
        !name_of(cert, lane->peer, sizeof lane->peer))
        return gw_tcp_fail(lane, GW_E_PERMISSION, EACCES, "the peer has shown no good certificate");
    if (lane->peer_wanted[0] && strcmp(lane->peer_wanted, lane->peer) != 0)
        return gw_tcp_fail(lane, GW_E_PERMISSION, EACCES, "another node answers there");
    return 0;
}

int gw_tls_handshake(struct gw_tcp_lane *lane, unsigned *eventsp)
{
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_do_handshake(lane->ssl);
    if (r == 1)
        return check_peer(lane);
    r = judge(lane, r, "TLS handshake", eventsp);
    return r ? r : gw_tcp_fail(lane, GW_E_PEER, ECONNRESET, "TLS handshake");
}

ssize_t gw_tls_read(struct gw_tcp_lane *lane, void *to, size_t n_bytes, unsigned *eventsp)
{
    size_t n_read;
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_read_ex(lane->ssl, to, n_bytes, &n_read);
    return r == 1 ? (ssize_t)n_read : judge(lane, r, "receive", eventsp);
}

ssize_t gw_tls_write(struct gw_tcp_lane *lane, const void *from, size_t n_bytes, unsigned *eventsp)
{
    size_t n_written;
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_write_ex(lane->ssl, from, n_bytes, &n_written);
    if (r == 1)
        return (ssize_t)n_written;
    r = judge(lane, r, "send", eventsp);
    /* TLS 1.3 never needs to read in order to write. */
    if (r == -EAGAIN && *eventsp != GW_IO_WRITE)
        return gw_tcp_fail(lane, GW_E_PROTOCOL, EPROTO, "TLS wants to read in order to send");
    return r ? r : gw_tcp_fail(lane, GW_E_PEER, EPIPE, "send");
}

int gw_tls_finish(struct gw_tcp_lane *lane, unsigned *eventsp)
{
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_shutdown(lane->ssl);
    return r >= 0 ? 0 : judge(lane, r, "say goodbye", eventsp);
}

enum gw_lane_tls gw_tls_kind(const struct gw_tcp_lane *lane)
{
    if (!lane->ssl)
        return GW_LANE_PLAIN;
#if GW_HAVE_KTLS
    if (BIO_get_ktls_send(SSL_get_wbio(lane->ssl)))
        return BIO_get_ktls_recv(SSL_get_rbio(lane->ssl)) ? GW_LANE_KTLS : GW_LANE_KTLS_SEND;
#endif
    return GW_LANE_TLS;
}

bool gw_tls_has_pending(const struct gw_tcp_lane *lane)
{
    return lane->ssl && SSL_has_pending(lane->ssl);
}

void gw_tls_free(struct gw_tcp_lane *lane)
{
    SSL_free(lane->ssl); /* leaves the socket open */
    lane->ssl = NULL;
    free(lane->stage);
    lane->stage = NULL;
}
