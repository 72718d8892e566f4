/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/pki.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "shell/statefile.h"
#include "util/cleanup.h"

#define CA_DAYS     3650
#define NODE_DAYS   730
#define BACKDATED_S 3600

#define DEFINE_CLEANUP(type, free_fn)           \
    static inline void cleanup_##type(type **p) \
    {                                           \
        free_fn(*p);                            \
    }

DEFINE_CLEANUP(X509, X509_free)
DEFINE_CLEANUP(X509_REQ, X509_REQ_free)
DEFINE_CLEANUP(X509_STORE, X509_STORE_free)
DEFINE_CLEANUP(X509_STORE_CTX, X509_STORE_CTX_free)
DEFINE_CLEANUP(X509_NAME, X509_NAME_free)
DEFINE_CLEANUP(EVP_PKEY, EVP_PKEY_free)
DEFINE_CLEANUP(BIO, BIO_free_all)
DEFINE_CLEANUP(SSL_CTX, SSL_CTX_free)

#define auto_of(type) GW_CLEANUP(cleanup_##type) type

/* "what: OpenSSL's own reason", and an empty queue for the next one. */
static int fail_tls(struct gw_error *error, enum gw_code code, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());

    ERR_clear_error();
    return gw_error_set(error, code, "%s: %s", what, reason ? reason : "OpenSSL gave no reason");
}

static char *path_of(const char *dir, const char *file)
{
    char *path;

    return asprintf(&path, "%s/pki%s%s", dir, file ? "/" : "", file ? file : "") < 0 ? NULL : path;
}

static bool have(const char *dir, const char *file)
{
    gw_autofree char *path = path_of(dir, file);

    return path && access(path, F_OK) == 0;
}

/* --- PEM ------------------------------------------------------------------------------------- */

/* OpenSSL would ask on the terminal for the pass phrase of an encrypted PEM text. */
static int no_password(char *buf, int size, int writing, void *data)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)data;
    return -1;
}

static BIO *pem_bio(const char *pem)
{
    size_t len = strnlen(pem, GW_PKI_PEM_MAX + 1);

    return len > GW_PKI_PEM_MAX ? NULL : BIO_new_mem_buf(pem, (int)len);
}

static X509 *cert_from_pem(const char *pem)
{
    auto_of(BIO) *bio = pem_bio(pem);

    return bio ? PEM_read_bio_X509(bio, NULL, no_password, NULL) : NULL;
}

static X509_REQ *csr_from_pem(const char *pem)
{
    auto_of(BIO) *bio = pem_bio(pem);

    return bio ? PEM_read_bio_X509_REQ(bio, NULL, no_password, NULL) : NULL;
}

static EVP_PKEY *key_from_pem(const char *pem)
{
    auto_of(BIO) *bio = pem_bio(pem);

    return bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
}

static char *bio_text(BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);

    return len > 0 ? strndup(data, (size_t)len) : NULL;
}

static char *cert_to_pem(const X509 *cert)
{
    auto_of(BIO) *bio = BIO_new(BIO_s_mem());

    return bio && PEM_write_bio_X509(bio, cert) ? bio_text(bio) : NULL;
}

static char *csr_to_pem(const X509_REQ *csr)
{
    auto_of(BIO) *bio = BIO_new(BIO_s_mem());

    return bio && PEM_write_bio_X509_REQ(bio, csr) ? bio_text(bio) : NULL;
}

static int read_pem(const char *dir, const char *file, char **pemp, struct gw_error *error)
{
    gw_autofree char *path = path_of(dir, file);
    size_t len;

    if (!path)
        return gw_error_set_sys(error, ENOMEM, "read pki/%s", file);
    return gw_statefile_read(path, GW_PKI_PEM_MAX, pemp, &len, error);
}

static int write_pem(const char *dir, const char *file, const char *pem, mode_t mode,
                     struct gw_error *error)
{
    gw_autofree char *path = path_of(dir, file);

    if (!path)
        return gw_error_set_sys(error, ENOMEM, "write pki/%s", file);
    return gw_statefile_write(path, pem, strlen(pem), mode, error);
}

static int read_cert(const char *dir, const char *file, X509 **certp, struct gw_error *error)
{
    gw_autofree char *pem = NULL;

    if (read_pem(dir, file, &pem, error) < 0)
        return -1;
    *certp = cert_from_pem(pem);
    if (!*certp) {
        fail_tls(error, GW_E_CONFIG, "not a certificate");
        return gw_error_prefix(error, "%s/pki/%s", dir, file);
    }
    return 0;
}

static int read_key(const char *dir, const char *file, EVP_PKEY **keyp, struct gw_error *error)
{
    char *pem = NULL;

    if (read_pem(dir, file, &pem, error) < 0)
        return -1;
    *keyp = key_from_pem(pem);
    OPENSSL_cleanse(pem, strlen(pem));
    free(pem);
    if (!*keyp) {
        fail_tls(error, GW_E_CONFIG, "not a private key");
        return gw_error_prefix(error, "%s/pki/%s", dir, file);
    }
    return 0;
}

static int write_new_key(const char *dir, const char *file, EVP_PKEY **keyp, struct gw_error *error)
{
    auto_of(EVP_PKEY) *key = EVP_EC_gen("P-256");
    auto_of(BIO) *bio = BIO_new(BIO_s_secmem());
    char *pem = NULL;
    int r;

    if (key && bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL))
        pem = bio_text(bio);
    if (!pem)
        return fail_tls(error, GW_E_SYSTEM, "make a private key");
    r = write_pem(dir, file, pem, 0600, error);
    OPENSSL_cleanse(pem, strlen(pem));
    free(pem);
    if (r == 0)
        *keyp = gw_steal_ptr(&key);
    return r;
}

/* --- names and certificates ------------------------------------------------------------------ */

static X509_NAME *name_of(const char *cn)
{
    auto_of(X509_NAME) *name = X509_NAME_new();

    if (!name || !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn,
                                             -1, -1, 0))
        return NULL;
    return gw_steal_ptr(&name);
}

/* Exactly one CN, and a node name in it. The copy is bounded; an embedded NUL is refused. */
static bool common_name(const X509_NAME *subject, char name[GW_NODE_NAME_MAX + 1])
{
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    const ASN1_STRING *s;
    int len;

    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return false;
    s = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    len = ASN1_STRING_length(s);
    if (len <= 0 || len > GW_NODE_NAME_MAX)
        return false;
    memcpy(name, ASN1_STRING_get0_data(s), (size_t)len);
    name[len] = '\0';
    return strlen(name) == (size_t)len && gw_node_name_valid(name);
}

int gw_pki_cert_name(const X509 *cert, char name[GW_NODE_NAME_MAX + 1], struct gw_error *error)
{
    if (!common_name(X509_get_subject_name(cert), name))
        return gw_error_set(error, GW_E_PERMISSION, "the certificate does not name a node");
    return 0;
}

static bool is_p256(const EVP_PKEY *key)
{
    char group[32];
    size_t len;

    return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
           EVP_PKEY_get_group_name(key, group, sizeof group, &len) &&
           OBJ_sn2nid(group) == NID_X9_62_prime256v1;
}

static bool set_serial(X509 *cert)
{
    BIGNUM *serial = BN_new();
    bool ok = serial && BN_rand(serial, 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) &&
              BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(cert));

    BN_free(serial);
    return ok;
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;
    bool ok;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = ext && X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
    return ok;
}

/* What CA and node certificates share; the caller adds extensions and signs. */
static X509 *new_cert(const char *cn, EVP_PKEY *key, const X509_NAME *issuer, int days)
{
    auto_of(X509) *cert = X509_new();
    auto_of(X509_NAME) *subject = name_of(cn);

    if (!cert || !subject || !X509_set_version(cert, X509_VERSION_3) || !set_serial(cert) ||
        !X509_set_subject_name(cert, subject) ||
        !X509_set_issuer_name(cert, issuer ? issuer : subject) || !X509_set_pubkey(cert, key) ||
        !X509_gmtime_adj(X509_getm_notBefore(cert), -BACKDATED_S) ||
        !X509_time_adj_ex(X509_getm_notAfter(cert), days, 0, NULL))
        return NULL;
    return gw_steal_ptr(&cert);
}

static X509 *make_ca_cert(EVP_PKEY *key)
{
    auto_of(X509) *cert = NULL;
    unsigned char random[4];
    char cn[32];

    /* Two clusters' CAs have different names, so that a mix-up is seen as what it is. */
    if (RAND_bytes(random, sizeof random) != 1)
        return NULL;
    snprintf(cn, sizeof cn, "Godwit CA %02x%02x%02x%02x", random[0], random[1], random[2],
             random[3]);
    cert = new_cert(cn, key, NULL, CA_DAYS);
    if (!cert || !add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
        !add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") ||
        !add_extension(cert, cert, NID_subject_key_identifier, "hash") ||
        !X509_sign(cert, key, EVP_sha256()))
        return NULL;
    return gw_steal_ptr(&cert);
}

static X509 *make_node_cert(const char *name, EVP_PKEY *key, X509 *ca, EVP_PKEY *ca_key)
{
    auto_of(X509) *cert = new_cert(name, key, X509_get_subject_name(ca), NODE_DAYS);

    if (!cert || !add_extension(cert, ca, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_extension(cert, ca, NID_key_usage, "critical,digitalSignature") ||
        !add_extension(cert, ca, NID_ext_key_usage, "serverAuth,clientAuth") ||
        !add_extension(cert, ca, NID_subject_key_identifier, "hash") ||
        !add_extension(cert, ca, NID_authority_key_identifier, "keyid:always") ||
        !X509_sign(cert, ca_key, EVP_sha256()))
        return NULL;
    return gw_steal_ptr(&cert);
}

/* --- the steps ------------------------------------------------------------------------------- */

static int begin(const char *dir, const char *node_name, struct gw_error *error)
{
    gw_autofree char *path = path_of(dir, NULL);

    if (!gw_node_name_valid(node_name)) {
        gw_error_set(error, GW_E_USAGE, "\"%.80s\" is not a node name", node_name);
        return gw_error_hint(error, "1 to %d letters, digits, hyphens, dots or underscores",
                             GW_NODE_NAME_MAX);
    }
    if (have(dir, "node.crt"))
        return gw_error_set(error, GW_E_EXISTS,
                            "this node has a certificate already (%s/pki/node.crt)", dir);
    if (!path)
        return gw_error_set_sys(error, ENOMEM, "make %s/pki", dir);
    return gw_statefile_mkdir(path, error);
}

static int make_ca(const char *dir, struct gw_error *error)
{
    auto_of(EVP_PKEY) *key = NULL;
    auto_of(X509) *cert = NULL;
    gw_autofree char *pem = NULL;

    if (write_new_key(dir, "ca.key", &key, error) < 0)
        return -1;
    cert = make_ca_cert(key);
    pem = cert ? cert_to_pem(cert) : NULL;
    if (!pem)
        return fail_tls(error, GW_E_SYSTEM, "make the CA's certificate");
    return write_pem(dir, "ca.crt", pem, 0644, error);
}

int gw_pki_init_ca(const char *dir, const char *node_name, struct gw_error *error)
{
    gw_autofree char *csr = NULL, *cert = NULL, *ca = NULL;

    if (begin(dir, node_name, error) < 0 || make_ca(dir, error) < 0 ||
        gw_pki_make_key_and_csr(dir, node_name, &csr, error) < 0 ||
        gw_pki_sign_csr(dir, csr, node_name, &cert, &ca, error) < 0)
        return -1;
    return gw_pki_install(dir, node_name, cert, ca, error);
}

int gw_pki_make_key_and_csr(const char *dir, const char *node_name, char **csr_pemp,
                            struct gw_error *error)
{
    auto_of(X509_REQ) *csr = X509_REQ_new();
    auto_of(X509_NAME) *subject = NULL;
    auto_of(EVP_PKEY) *key = NULL;

    if (begin(dir, node_name, error) < 0 || write_new_key(dir, "node.key", &key, error) < 0)
        return -1;
    subject = name_of(node_name);
    if (!csr || !subject || !X509_REQ_set_version(csr, X509_REQ_VERSION_1) ||
        !X509_REQ_set_subject_name(csr, subject) || !X509_REQ_set_pubkey(csr, key) ||
        !X509_REQ_sign(csr, key, EVP_sha256()))
        return fail_tls(error, GW_E_SYSTEM, "make a certificate request");
    *csr_pemp = csr_to_pem(csr);
    if (!*csr_pemp)
        return fail_tls(error, GW_E_SYSTEM, "write a certificate request");
    return 0;
}

/* The request's key, borrowed from csr; NULL with *error if the request is not acceptable. */
static EVP_PKEY *accept_csr(X509_REQ *csr, const char *node_name, struct gw_error *error)
{
    char name[GW_NODE_NAME_MAX + 1];
    EVP_PKEY *key = csr ? X509_REQ_get0_pubkey(csr) : NULL;

    if (!key)
        fail_tls(error, GW_E_REFUSED, "the certificate request cannot be read");
    else if (!is_p256(key))
        gw_error_set(error, GW_E_REFUSED, "the certificate request has no P-256 key");
    else if (X509_REQ_verify(csr, key) != 1)
        fail_tls(error, GW_E_REFUSED, "the certificate request is not signed by its own key");
    else if (!common_name(X509_REQ_get_subject_name(csr), name) || strcmp(name, node_name) != 0)
        gw_error_set(error, GW_E_REFUSED, "the certificate request is not for node %s", node_name);
    else
        return key;
    ERR_clear_error();
    return NULL;
}

int gw_pki_check_csr(const char *csr_pem, const char *node_name, struct gw_error *error)
{
    auto_of(X509_REQ) *csr = csr_from_pem(csr_pem);

    return accept_csr(csr, node_name, error) ? 0 : -1;
}

int gw_pki_sign_csr(const char *dir, const char *csr_pem, const char *node_name, char **cert_pemp,
                    char **ca_pemp, struct gw_error *error)
{
    auto_of(X509_REQ) *csr = csr_from_pem(csr_pem);
    EVP_PKEY *key = accept_csr(csr, node_name, error);
    auto_of(X509) *ca = NULL, *cert = NULL;
    auto_of(EVP_PKEY) *ca_key = NULL;
    gw_autofree char *cert_pem = NULL, *ca_pem = NULL;

    if (!key || read_cert(dir, "ca.crt", &ca, error) < 0 ||
        read_key(dir, "ca.key", &ca_key, error) < 0)
        return -1;
    cert = make_node_cert(node_name, key, ca, ca_key);
    cert_pem = cert ? cert_to_pem(cert) : NULL;
    ca_pem = cert_to_pem(ca);
    if (!cert_pem || !ca_pem)
        return fail_tls(error, GW_E_SYSTEM, "sign the certificate");
    *cert_pemp = gw_steal_ptr(&cert_pem);
    *ca_pemp = gw_steal_ptr(&ca_pem);
    return 0;
}

/* cert is in force and signed by ca, for a TLS peer. */
static int check_chain(X509 *cert, X509 *ca, struct gw_error *error)
{
    auto_of(X509_STORE) *store = X509_STORE_new();
    auto_of(X509_STORE_CTX) *ctx = X509_STORE_CTX_new();

    if (!store || !ctx || !X509_STORE_add_cert(store, ca) ||
        !X509_STORE_CTX_init(ctx, store, cert, NULL) ||
        !X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_CLIENT))
        return fail_tls(error, GW_E_SYSTEM, "check the certificate");
    if (X509_verify_cert(ctx) == 1)
        return 0;
    ERR_clear_error();
    return gw_error_set(error, GW_E_PERMISSION, "the certificate is not acceptable: %s",
                        X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
}

static int check_cert(X509 *cert, X509 *ca, EVP_PKEY *key, const char *node_name,
                      struct gw_error *error)
{
    char name[GW_NODE_NAME_MAX + 1];

    if (gw_pki_cert_name(cert, name, error) < 0)
        return -1;
    if (strcmp(name, node_name) != 0)
        return gw_error_set(error, GW_E_PERMISSION, "the certificate is for node %s, not for %s",
                            name, node_name);
    if (X509_check_private_key(cert, key) != 1) {
        ERR_clear_error();
        return gw_error_set(error, GW_E_PERMISSION, "the certificate is not for this node's key");
    }
    return check_chain(cert, ca, error);
}

int gw_pki_install(const char *dir, const char *node_name, const char *cert_pem, const char *ca_pem,
                   struct gw_error *error)
{
    auto_of(X509) *cert = cert_from_pem(cert_pem), *ca = cert_from_pem(ca_pem);
    auto_of(EVP_PKEY) *key = NULL;
    gw_autofree char *clean_cert = NULL, *clean_ca = NULL;

    if (!cert || !ca)
        return fail_tls(error, GW_E_PERMISSION, "the certificate cannot be read");
    if (begin(dir, node_name, error) < 0 || read_key(dir, "node.key", &key, error) < 0 ||
        check_cert(cert, ca, key, node_name, error) < 0)
        return -1;
    /* Written anew from what was parsed and checked: nothing that came along with it stays. */
    clean_cert = cert_to_pem(cert);
    clean_ca = cert_to_pem(ca);
    if (!clean_cert || !clean_ca)
        return fail_tls(error, GW_E_SYSTEM, "write the certificate");
    if (write_pem(dir, "ca.crt", clean_ca, 0644, error) < 0)
        return -1;
    return write_pem(dir, "node.crt", clean_cert, 0644, error);
}

/* --- the TLS context ------------------------------------------------------------------------- */

SSL_CTX *gw_pki_bare_ctx(struct gw_error *error)
{
    static const unsigned char context_id[] = GW_PKI_SESSION_CONTEXT;
    auto_of(SSL_CTX) *ctx = SSL_CTX_new(TLS_method());

    if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) || !SSL_CTX_set_num_tickets(ctx, 0) ||
        !SSL_CTX_set_session_id_context(ctx, context_id, sizeof context_id - 1)) {
        fail_tls(error, GW_E_SYSTEM, "make a TLS context");
        return NULL;
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_max_cert_list(ctx, GW_PKI_PEM_MAX);
    SSL_CTX_set_verify_depth(ctx, 1);
    /* An idle connection holds no 16 KiB buffers. */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    return gw_steal_ptr(&ctx);
}

static int fill_ctx(SSL_CTX *ctx, X509 *cert, EVP_PKEY *key, X509 *ca, struct gw_error *error)
{
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca) != 1 ||
        SSL_CTX_use_certificate(ctx, cert) != 1 || SSL_CTX_use_PrivateKey(ctx, key) != 1)
        return fail_tls(error, GW_E_CONFIG, "use this node's certificate");
    return 0;
}

static int64_t unix_time_of(const ASN1_TIME *t)
{
    struct tm tm;

    return ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) : 0;
}

int gw_pki_load(const char *dir, struct gw_pki *pki, struct gw_error *error)
{
    auto_of(X509) *cert = NULL, *ca = NULL;
    auto_of(EVP_PKEY) *key = NULL;
    auto_of(SSL_CTX) *ctx = NULL;

    if (!have(dir, "node.crt")) {
        gw_error_set(error, GW_E_NOT_FOUND, "this node belongs to no cluster yet");
        return gw_error_hint(error, "`godwit node init` makes one, `godwit node join` joins one");
    }
    if (read_cert(dir, "node.crt", &cert, error) < 0 || read_cert(dir, "ca.crt", &ca, error) < 0 ||
        read_key(dir, "node.key", &key, error) < 0)
        return -1;
    ctx = gw_pki_bare_ctx(error);
    if (!ctx || gw_pki_cert_name(cert, pki->name, error) < 0 ||
        fill_ctx(ctx, cert, key, ca, error) < 0)
        return -1;
    pki->ca = have(dir, "ca.key");
    pki->expires_at_s = unix_time_of(X509_get0_notAfter(cert));
    pki->ctx = gw_steal_ptr(&ctx);
    return 0;
}

void gw_pki_fini(struct gw_pki *pki)
{
    SSL_CTX_free(pki->ctx);
    *pki = (struct gw_pki){0};
}
