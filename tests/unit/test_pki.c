/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <time.h>

#include "shell/pki.h"

struct dirs {
    char *a, *b;
};

static int set_up(void **state)
{
    struct dirs *d = calloc(1, sizeof *d);

    d->a = temp_dir();
    d->b = temp_dir();
    *state = d;
    return 0;
}

static int tear_down(void **state)
{
    struct dirs *d = *state;

    remove_dir(d->a);
    remove_dir(d->b);
    free(d);
    return 0;
}

static mode_t mode_of(const char *dir, const char *file)
{
    char path[256];
    struct stat st;

    snprintf(path, sizeof path, "%s/%s", dir, file);
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void the_first_node_is_its_own_ca(void **state)
{
    struct dirs *d = *state;
    struct gw_pki pki = {0};
    struct gw_error e;
    mode_t mask = umask(0);

    assert_int_equal(gw_pki_load(d->a, &pki, &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    assert_done(gw_pki_init_ca(d->a, "n1", &e), e);
    umask(mask);
    assert_int_equal(mode_of(d->a, "pki"), 0700);
    assert_int_equal(mode_of(d->a, "pki/ca.key"), 0600);
    assert_int_equal(mode_of(d->a, "pki/node.key"), 0600);
    assert_done(gw_pki_load(d->a, &pki, &e), e);
    assert_string_equal(pki.name, "n1");
    assert_true(pki.ca);
    assert_in_range(pki.expires_at_s, time(NULL) + 729 * 86400, time(NULL) + 731 * 86400);
    gw_pki_fini(&pki);
    gw_pki_fini(&pki);
    assert_int_equal(gw_pki_init_ca(d->a, "n1", &e), -1);
    assert_int_equal(e.code, GW_E_EXISTS);
}

static void a_second_node_gets_a_certificate(void **state)
{
    struct dirs *d = *state;
    char *csr, *cert, *ca;
    struct gw_pki pki = {0};
    struct gw_error e;

    assert_done(gw_pki_init_ca(d->a, "n1", &e), e);
    assert_done(gw_pki_make_key_and_csr(d->b, "n2", &csr, &e), e);
    assert_int_equal(gw_pki_sign_csr(d->a, csr, "n3", &cert, &ca, &e), -1);
    assert_int_equal(e.code, GW_E_REFUSED);
    assert_contains(e.msg, "not for node n3");
    assert_int_equal(gw_pki_sign_csr(d->b, csr, "n2", &cert, &ca, &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    assert_done(gw_pki_sign_csr(d->a, csr, "n2", &cert, &ca, &e), e);
    assert_int_equal(gw_pki_install(d->b, "n1", cert, ca, &e), -1);
    assert_int_equal(e.code, GW_E_PERMISSION);
    assert_int_equal(gw_pki_load(d->b, &pki, &e), -1);
    assert_done(gw_pki_install(d->b, "n2", cert, ca, &e), e);
    assert_done(gw_pki_load(d->b, &pki, &e), e);
    assert_string_equal(pki.name, "n2");
    assert_false(pki.ca);
    gw_pki_fini(&pki);
    free(csr);
    free(cert);
    free(ca);
}

static X509 *parse(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    BIO_free(bio);
    assert_non_null(cert);
    return cert;
}

static void what_is_in_a_certificate(void **state)
{
    struct dirs *d = *state;
    char *csr, *cert, *ca, name[GW_NODE_NAME_MAX + 1];
    X509 *node, *issuer;
    struct gw_error e;
    time_t now = time(NULL);

    assert_done(gw_pki_init_ca(d->a, "n1", &e), e);
    assert_done(gw_pki_make_key_and_csr(d->b, "n2", &csr, &e), e);
    assert_done(gw_pki_sign_csr(d->a, csr, "n2", &cert, &ca, &e), e);
    node = parse(cert);
    issuer = parse(ca);
    assert_done(gw_pki_cert_name(node, name, &e), e);
    assert_string_equal(name, "n2");
    assert_int_equal(gw_pki_cert_name(issuer, name, &e), -1); /* a CA is no node */
    assert_int_equal(X509_check_ca(node), 0);
    assert_int_equal(X509_check_ca(issuer), 1);
    now -= 3500;
    assert_int_equal(X509_cmp_time(X509_get0_notBefore(node), &now), -1);
    now += 9 * 365 * 86400;
    assert_int_equal(X509_cmp_time(X509_get0_notAfter(issuer), &now), 1);
    assert_int_equal(X509_cmp_time(X509_get0_notAfter(node), &now), -1);
    assert_int_not_equal(X509_cmp(node, issuer), 0);
    X509_free(node);
    X509_free(issuer);
    free(csr);
    free(cert);
    free(ca);
}

/* A request for n2 with that key; whatever extensions it asks for are to be ignored. */
static char *csr_with(EVP_PKEY *key, EVP_PKEY *signer, const char *extension)
{
    X509_REQ *req = X509_REQ_new();
    STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
    BIO *bio = BIO_new(BIO_s_mem());
    char *data, *pem;
    long len;

    X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(req), "CN", MBSTRING_ASC,
                               (const unsigned char *)"n2", -1, -1, 0);
    X509_REQ_set_pubkey(req, key);
    sk_X509_EXTENSION_push(list, X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, extension));
    X509_REQ_add_extensions(req, list);
    X509_REQ_sign(req, signer, EVP_sha256());
    PEM_write_bio_X509_REQ(bio, req);
    len = BIO_get_mem_data(bio, &data);
    pem = strndup(data, (size_t)len);
    BIO_free(bio);
    sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
    X509_REQ_free(req);
    return pem;
}

static void nothing_but_key_and_name_is_taken(void **state)
{
    struct dirs *d = *state;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    char *csr = csr_with(key, key, "CA:TRUE"), *cert, *ca;
    struct gw_error e;
    X509 *node;

    assert_done(gw_pki_init_ca(d->a, "n1", &e), e);
    assert_done(gw_pki_sign_csr(d->a, csr, "n2", &cert, &ca, &e), e);
    node = parse(cert);
    assert_int_equal(X509_check_ca(node), 0);
    X509_free(node);
    EVP_PKEY_free(key);
    free(csr);
    free(cert);
    free(ca);
}

static void bad_requests_are_refused(void **state)
{
    EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    EVP_PKEY *big = EVP_EC_gen("P-384"), *rsa = EVP_RSA_gen(2048);
    char *forged = csr_with(key, other, "CA:FALSE"), *p384 = csr_with(big, big, "CA:FALSE");
    char *with_rsa = csr_with(rsa, rsa, "CA:FALSE"), *huge = calloc(1, GW_PKI_PEM_MAX + 100);
    struct gw_error e;

    (void)state;
    memset(huge, 'A', GW_PKI_PEM_MAX + 50);
    assert_int_equal(gw_pki_check_csr(forged, "n2", &e), -1);
    assert_contains(e.msg, "not signed by its own key");
    assert_int_equal(gw_pki_check_csr(p384, "n2", &e), -1);
    assert_contains(e.msg, "no P-256 key");
    assert_int_equal(gw_pki_check_csr(with_rsa, "n2", &e), -1);
    assert_contains(e.msg, "no P-256 key");
    assert_int_equal(gw_pki_check_csr(huge, "n2", &e), -1);
    assert_int_equal(gw_pki_check_csr("", "n2", &e), -1);
    assert_int_equal(gw_pki_check_csr("-----BEGIN CERTIFICATE REQUEST-----\n"
                                      "Proc-Type: 4,ENCRYPTED\n"
                                      "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n"
                                      "AAAAAAAAAAAAAAAAAAAAAA==\n"
                                      "-----END CERTIFICATE REQUEST-----\n",
                                      "n2", &e),
                     -1);
    assert_int_equal(e.code, GW_E_REFUSED);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
    EVP_PKEY_free(big);
    EVP_PKEY_free(rsa);
    free(forged);
    free(p384);
    free(with_rsa);
    free(huge);
}

static void a_foreign_certificate_is_not_installed(void **state)
{
    struct dirs *d = *state;
    char *c = temp_dir(), *csr, *other, *cert, *ca, *cert2, *ca2;
    struct gw_error e;

    assert_done(gw_pki_init_ca(d->a, "n1", &e), e);
    assert_done(gw_pki_init_ca(c, "n1", &e), e);
    assert_done(gw_pki_make_key_and_csr(d->b, "n2", &other, &e), e);
    assert_done(gw_pki_make_key_and_csr(d->b, "n2", &csr, &e), e); /* replaces the key */
    assert_done(gw_pki_sign_csr(d->a, csr, "n2", &cert, &ca, &e), e);
    assert_done(gw_pki_sign_csr(c, other, "n2", &cert2, &ca2, &e), e);
    assert_int_equal(gw_pki_install(d->b, "n2", cert, ca2, &e), -1);
    assert_int_equal(e.code, GW_E_PERMISSION);
    assert_int_equal(gw_pki_install(d->b, "n2", cert2, ca2, &e), -1);
    assert_contains(e.msg, "not for this node's key");
    assert_int_equal(gw_pki_install(d->b, "n2", "rubbish", ca, &e), -1);
    assert_done(gw_pki_install(d->b, "n2", cert, ca, &e), e);
    remove_dir(c);
    free(csr);
    free(other);
    free(cert);
    free(ca);
    free(cert2);
    free(ca2);
}

static void bad_names_are_refused(void **state)
{
    struct dirs *d = *state;
    struct gw_error e;

    assert_int_equal(gw_pki_init_ca(d->a, "../n1", &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    assert_int_equal(gw_pki_init_ca("/nonexistent/godwit", "n1", &e), -1);
    assert_int_equal(e.code, GW_E_SYSTEM);
}

#define with_dirs(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_dirs(the_first_node_is_its_own_ca),
        with_dirs(a_second_node_gets_a_certificate),
        with_dirs(what_is_in_a_certificate),
        with_dirs(nothing_but_key_and_name_is_taken),
        cmocka_unit_test(bad_requests_are_refused),
        with_dirs(a_foreign_certificate_is_not_installed),
        with_dirs(bad_names_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
