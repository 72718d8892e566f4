/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/token.h"

#include <ctype.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "shell/statefile.h"
#include "util/cleanup.h"

#define PREFIX      "gwt1."
#define SUM_BYTES   4
#define FIXED_BYTES (8 + GW_TOKEN_ID_BYTES + GW_TOKEN_SECRET_BYTES + 2)
#define MAX_BYTES   (FIXED_BYTES + GW_NODE_ADDRESS_MAX + SUM_BYTES)
#define FILE_MAX    4096

/* Four characters for each three bytes begun, the prefix and the NUL. */
_Static_assert(sizeof PREFIX + (MAX_BYTES + 2) / 3 * 4 <= GW_TOKEN_TEXT_MAX, "a token fits");

/* --- the text form --------------------------------------------------------------------------- */

static void checksum(const uint8_t *data, size_t len, uint8_t sum[SUM_BYTES])
{
    uint8_t digest[SHA256_DIGEST_LENGTH];

    SHA256(data, len, digest);
    memcpy(sum, digest, SUM_BYTES);
}

static void swap_alphabet(char *s, const char *from, const char *to)
{
    for (; *s; s++) {
        if (*s == from[0])
            *s = to[0];
        else if (*s == from[1])
            *s = to[1];
    }
}

void gw_token_format(const struct gw_token *token, char text[GW_TOKEN_TEXT_MAX])
{
    size_t n_address = strlen(token->address);
    uint64_t expiry = htobe64((uint64_t)token->expires_at_s);
    uint16_t port = htobe16(token->port);
    uint8_t raw[MAX_BYTES], *p = raw;
    char *encoded = text + strlen(PREFIX);

    p = mempcpy(p, &expiry, sizeof expiry);
    p = mempcpy(p, token->id, sizeof token->id);
    p = mempcpy(p, token->secret, sizeof token->secret);
    p = mempcpy(p, &port, sizeof port);
    p = mempcpy(p, token->address, n_address);
    checksum(raw, (size_t)(p - raw), p);
    strcpy(text, PREFIX);
    EVP_EncodeBlock((unsigned char *)encoded, raw, (int)(p - raw) + SUM_BYTES);
    encoded[strcspn(encoded, "=")] = '\0';
    swap_alphabet(encoded, "+/", "-_");
    OPENSSL_cleanse(raw, sizeof raw);
}

/* Decodes unpadded base64url of len characters into raw; the number of bytes, -1 if it is none. */
static int decode(const char *s, size_t len, uint8_t raw[GW_TOKEN_TEXT_MAX])
{
    char padded[GW_TOKEN_TEXT_MAX + 4] = {0};
    int n, n_pad = (int)((4 - len % 4) % 4);

    if (len == 0 || len >= GW_TOKEN_TEXT_MAX || n_pad == 3)
        return -1;
    for (size_t i = 0; i < len; i++)
        if (!isascii((unsigned char)s[i]) || (!isalnum((unsigned char)s[i]) && !strchr("-_", s[i])))
            return -1;
    memcpy(padded, s, len);
    swap_alphabet(padded, "-_", "+/");
    memcpy(padded + len, "===", (size_t)n_pad);
    n = EVP_DecodeBlock(raw, (const unsigned char *)padded, (int)len + n_pad);
    OPENSSL_cleanse(padded, sizeof padded);
    return n < 0 ? -1 : n - n_pad;
}

static bool unpack(const uint8_t *raw, size_t len, struct gw_token *token)
{
    uint8_t sum[SUM_BYTES];
    uint64_t expiry;
    uint16_t port;
    size_t n_address;

    if (len <= FIXED_BYTES + SUM_BYTES || len > MAX_BYTES)
        return false;
    checksum(raw, len - SUM_BYTES, sum);
    if (memcmp(sum, raw + len - SUM_BYTES, SUM_BYTES) != 0)
        return false;
    n_address = len - FIXED_BYTES - SUM_BYTES;
    memset(token, 0, sizeof *token);
    memcpy(&expiry, raw, sizeof expiry);
    memcpy(token->id, raw + 8, sizeof token->id);
    memcpy(token->secret, raw + 8 + sizeof token->id, sizeof token->secret);
    memcpy(&port, raw + FIXED_BYTES - 2, sizeof port);
    memcpy(token->address, raw + FIXED_BYTES, n_address);
    token->expires_at_s = (int64_t)be64toh(expiry);
    token->port = be16toh(port);
    return token->port != 0 && strlen(token->address) == n_address &&
           gw_node_address_valid(token->address);
}

/* Base64 leaves bits unused in its last character: only the spelling that we write is taken. */
static bool spelt_like(const char *text, size_t len, const struct gw_token *token)
{
    char canonical[GW_TOKEN_TEXT_MAX];
    bool same;

    gw_token_format(token, canonical);
    same = strlen(canonical) == len && memcmp(canonical, text, len) == 0;
    OPENSSL_cleanse(canonical, sizeof canonical);
    return same;
}

int gw_token_parse(const char *text, struct gw_token *token, struct gw_error *error)
{
    static const char space[] = " \t\r\n";
    uint8_t raw[GW_TOKEN_TEXT_MAX];
    size_t len;
    int n = -1;

    text += strspn(text, space);
    len = strcspn(text, space);
    if (strncmp(text, PREFIX, strlen(PREFIX)) == 0 && text[len + strspn(text + len, space)] == '\0')
        n = decode(text + strlen(PREFIX), len - strlen(PREFIX), raw);
    if (n < 0 || !unpack(raw, (size_t)n, token) || !spelt_like(text, len, token)) {
        gw_error_set(error, GW_E_USAGE, "this is not a whole join token");
        return gw_error_hint(error, "copy all of the line that `godwit node invite` printed; it "
                                    "begins with " PREFIX);
    }
    OPENSSL_cleanse(raw, sizeof raw);
    return 0;
}

/* --- the store ------------------------------------------------------------------------------- */

static void to_hex(const uint8_t *data, size_t len, char *hex)
{
    for (size_t i = 0; i < len; i++)
        sprintf(hex + 2 * i, "%02x", data[i]);
}

static bool from_hex(const char *hex, uint8_t *data, size_t len)
{
    if (strlen(hex) != 2 * len || strspn(hex, "0123456789abcdef") != 2 * len)
        return false;
    for (size_t i = 0; i < len; i++)
        sscanf(hex + 2 * i, "%2hhx", &data[i]);
    return true;
}

static char *path_of(const char *dir, const uint8_t id[GW_TOKEN_ID_BYTES])
{
    char hex[2 * GW_TOKEN_ID_BYTES + 1];
    char *path;

    to_hex(id, GW_TOKEN_ID_BYTES, hex);
    return asprintf(&path, "%s/tokens/%s", dir, hex) < 0 ? NULL : path;
}

static int refuse(struct gw_error *error)
{
    return gw_error_set(error, GW_E_PERMISSION, "no such token: it may have expired or been used");
}

int gw_token_refused(const char *where, struct gw_error *error)
{
    gw_error_set(error, GW_E_PERMISSION,
                 "the token was refused by %s: it may have expired or been used", where);
    return gw_error_hint(error, "make a new one with `godwit node invite`");
}

static int store(const char *dir, const struct gw_token *token, struct gw_error *error)
{
    char hex[2 * GW_TOKEN_SECRET_BYTES + 1], text[160];
    gw_autofree char *path = path_of(dir, token->id), *tokens = NULL;
    int n, r;

    if (!path || asprintf(&tokens, "%s/tokens", dir) < 0) {
        tokens = NULL;
        return gw_error_set_sys(error, ENOMEM, "store a token");
    }
    if (gw_statefile_mkdir(tokens, error) < 0)
        return -1;
    to_hex(token->secret, sizeof token->secret, hex);
    n = snprintf(text, sizeof text, "{\"secret\": \"%s\", \"expires_at\": %lld}\n", hex,
                 (long long)token->expires_at_s);
    r = gw_statefile_write(path, text, (size_t)n, 0600, error);
    OPENSSL_cleanse(hex, sizeof hex);
    OPENSSL_cleanse(text, sizeof text);
    return r;
}

int gw_token_make(const char *dir, const char *address, uint16_t port, int64_t expires_at_s,
                  struct gw_token *token, struct gw_error *error)
{
    if (!gw_node_address_valid(address) || port == 0)
        return gw_error_set(error, GW_E_USAGE,
                            "\"%.80s\" port %u is no address that a node could join at", address,
                            port);
    gw_token_purge(dir);
    *token = (struct gw_token){.expires_at_s = expires_at_s, .port = port};
    snprintf(token->address, sizeof token->address, "%s", address);
    if (RAND_bytes(token->id, sizeof token->id) != 1 ||
        RAND_priv_bytes(token->secret, sizeof token->secret) != 1)
        return gw_error_set(error, GW_E_SYSTEM, "no random bytes for a token");
    return store(dir, token, error);
}

/* 0 with the file's content, whatever the time is; -1 if it is not there or not a token. */
static int load(const char *path, uint8_t secret[GW_TOKEN_SECRET_BYTES], int64_t *expires_at_sp)
{
    gw_autofree char *text = NULL;
    json_int_t expires_at = 0;
    const char *hex;
    json_t *root;
    size_t len;
    int r = -1;

    if (gw_statefile_read(path, FILE_MAX, &text, &len, NULL) < 0)
        return -1;
    root = json_loadb(text, len, 0, NULL);
    if (json_unpack(root, "{ss, sI}", "secret", &hex, "expires_at", &expires_at) == 0 &&
        from_hex(hex, secret, GW_TOKEN_SECRET_BYTES))
        r = 0;
    *expires_at_sp = expires_at;
    json_decref(root);
    OPENSSL_cleanse(text, len);
    return r;
}

int gw_token_find(const char *dir, const uint8_t id[GW_TOKEN_ID_BYTES],
                  uint8_t secret[GW_TOKEN_SECRET_BYTES], struct gw_error *error)
{
    gw_autofree char *path = path_of(dir, id);
    int64_t expires_at_s;

    if (!path)
        return gw_error_set_sys(error, ENOMEM, "find a token");
    if (load(path, secret, &expires_at_s) < 0)
        return refuse(error);
    if (expires_at_s <= time(NULL)) {
        unlink(path);
        OPENSSL_cleanse(secret, GW_TOKEN_SECRET_BYTES);
        return refuse(error);
    }
    return 0;
}

int gw_token_consume(const char *dir, const uint8_t id[GW_TOKEN_ID_BYTES], struct gw_error *error)
{
    uint8_t secret[GW_TOKEN_SECRET_BYTES];
    gw_autofree char *path = path_of(dir, id);
    int r;

    if (!path)
        return gw_error_set_sys(error, ENOMEM, "use a token");
    if (gw_token_find(dir, id, secret, error) < 0)
        return -1;
    OPENSSL_cleanse(secret, sizeof secret);
    r = gw_statefile_remove(path, error);
    return r == 1 ? refuse(error) : r;
}

/* Temporary files that a crash left behind are expired from the start. */
static bool expired(const char *path, int64_t now_s)
{
    uint8_t secret[GW_TOKEN_SECRET_BYTES];
    int64_t expires_at_s;
    bool is = load(path, secret, &expires_at_s) < 0 || expires_at_s <= now_s;

    OPENSSL_cleanse(secret, sizeof secret);
    return is;
}

unsigned gw_token_purge(const char *dir)
{
    gw_autofree char *tokens = NULL;
    struct dirent *entry;
    unsigned n_open = 0;
    DIR *d;

    if (asprintf(&tokens, "%s/tokens", dir) < 0) {
        tokens = NULL;
        return 0;
    }
    d = opendir(tokens);
    while (d && (entry = readdir(d))) {
        gw_autofree char *path = NULL;

        if (entry->d_name[0] == '.')
            continue;
        if (asprintf(&path, "%s/%s", tokens, entry->d_name) < 0)
            path = NULL;
        else if (expired(path, time(NULL)) || strchr(entry->d_name, '.'))
            unlink(path);
        else
            n_open++;
    }
    if (d)
        closedir(d);
    return n_open;
}
