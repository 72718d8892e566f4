/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "storage/rbd.h"
#include "util/cleanup.h"

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static bool take(const char *text, size_t len, char out[GW_RBD_PART_MAX + 1])
{
    if (len == 0 || len > GW_RBD_PART_MAX || text[0] == '-' || strspn(text, ALNUM "._-") < len)
        return false;
    memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

int gw_rbd_spec_parse(const char *text, struct gw_rbd_spec *spec, struct gw_error *error)
{
    const char *at = strncmp(text, "rbd:", 4) == 0 ? text + 4 : text;
    const char *parts[3] = {at}, *snap = strchr(at, '@');
    size_t lengths[3], n = 0;
    bool good = true;

    memset(spec, 0, sizeof *spec);
    do {
        parts[n] = at;
        lengths[n] = strcspn(at, "/@");
        at += lengths[n] + 1;
    } while (at[-1] == '/' && ++n < GW_ARRAY_SIZE(parts));
    good = n == 1 || n == 2;
    good = good && take(parts[0], lengths[0], spec->pool);
    good = good && take(parts[n], lengths[n], spec->image);
    good = good && (n == 1 || take(parts[1], lengths[1], spec->ns));
    good = good && (!snap || take(snap + 1, strlen(snap + 1), spec->snap));
    if (good)
        return 0;
    gw_error_set(error, GW_E_USAGE, "'%.200s' names no RBD image", text);
    return gw_error_hint(error, "write POOL/IMAGE or POOL/NAMESPACE/IMAGE, maybe with @SNAPSHOT");
}

bool gw_rados_address_ok(const char *text)
{
    static const char digits[] = "0123456789";
    const char *host, *port, *nonce;
    size_t n_host;

    if (text[0] == 'v' && (text[1] == '1' || text[1] == '2') && text[2] == ':')
        text += 3;
    host = text[0] == '[' ? text + 1 : text;
    n_host = strspn(host, text[0] == '[' ? "0123456789abcdefABCDEF:." : "0123456789.");
    port = host + n_host + (text[0] == '[');
    if (n_host == 0 || (text[0] == '[' && host[n_host] != ']') || *port++ != ':')
        return false;
    nonce = port + strspn(port, digits);
    if (nonce == port || *nonce++ != '/')
        return false;
    return *nonce && strlen(nonce) <= 20 && strspn(nonce, digits) == strlen(nonce) &&
           strspn(nonce, "0") < strlen(nonce);
}
