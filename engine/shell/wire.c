/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "util/cleanup.h"

struct header {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t length;
};

_Static_assert(sizeof(struct header) == GW_WIRE_HEADER_BYTES, "the header has no padding");

static const char *const type_names[GW_WIRE_TYPE_MAX] = {
    [GW_WIRE_HELLO] = "HELLO",         [GW_WIRE_PREPARE] = "PREPARE",
    [GW_WIRE_PREPARED] = "PREPARED",   [GW_WIRE_SWITCHING] = "SWITCHING",
    [GW_WIRE_LOST] = "LOST",           [GW_WIRE_COMMIT] = "COMMIT",
    [GW_WIRE_RUNNING] = "RUNNING",     [GW_WIRE_FINISHED] = "FINISHED",
    [GW_WIRE_ABORT] = "ABORT",         [GW_WIRE_ABORTED] = "ABORTED",
    [GW_WIRE_FAILED] = "FAILED",       [GW_WIRE_QUERY] = "QUERY",
    [GW_WIRE_BUSY] = "BUSY",           [GW_WIRE_ASK] = "ASK",
    [GW_WIRE_TELL] = "TELL",           [GW_WIRE_PING] = "PING",
    [GW_WIRE_PONG] = "PONG",           [GW_WIRE_JOIN] = "JOIN",
    [GW_WIRE_JOINED] = "JOINED",       [GW_WIRE_NODES] = "NODES",
    [GW_WIRE_FRAMES] = "FRAMES",       [GW_WIRE_HEARD] = "HEARD",
    [GW_WIRE_VERIFY] = "VERIFY",       [GW_WIRE_HASHES] = "HASHES",
    [GW_WIRE_LOCKED] = "LOCKED",       [GW_WIRE_CATCH_UP] = "CATCH_UP",
    [GW_WIRE_CAUGHT_UP] = "CAUGHT_UP",
};

const char *gw_wire_type_name(unsigned type)
{
    if (type >= GW_WIRE_TYPE_MAX || !type_names[type])
        return "unknown";
    return type_names[type];
}

static int append_frame(struct evbuffer *out, enum gw_wire_type type, const char *text, size_t len)
{
    struct header h = {
        .magic = htonl(GW_WIRE_MAGIC),
        .version = htons(GW_WIRE_VERSION),
        .type = htons((uint16_t)type),
        .length = htonl((uint32_t)len),
    };

    /* The room is made first, so that the frame goes in whole or not at all. */
    if (evbuffer_expand(out, sizeof h + len) < 0 || evbuffer_add(out, &h, sizeof h) < 0)
        return -1;
    return evbuffer_add(out, text, len);
}

int gw_wire_encode(struct evbuffer *out, enum gw_wire_type type, const json_t *body,
                   struct gw_error *error)
{
    gw_autofree char *dumped = NULL;
    const char *text = "{}";
    size_t len;

    if (body) {
        if (!json_is_object(body))
            return gw_error_set(error, GW_E_USAGE, "the body of %s is not a JSON object",
                                gw_wire_type_name(type));
        text = dumped = json_dumps(body, JSON_COMPACT);
        if (!dumped)
            return gw_error_set_sys(error, ENOMEM, "encode %s", gw_wire_type_name(type));
    }
    len = strlen(text);
    if (len > GW_WIRE_MAX_BODY)
        return gw_error_set(error, GW_E_PROTOCOL, "%s would be %zu bytes long, more than %u",
                            gw_wire_type_name(type), len, GW_WIRE_MAX_BODY);
    if (append_frame(out, type, text, len) < 0)
        return gw_error_set_sys(error, ENOMEM, "encode %s", gw_wire_type_name(type));
    return 0;
}

/* Judges a header by as many bytes as have come: a stranger's first words already give him away. */
static int check_header(const struct header *h, size_t n_bytes, struct gw_error *error)
{
    unsigned version = ntohs(h->version);

    if (n_bytes >= 4 && ntohl(h->magic) != GW_WIRE_MAGIC)
        return gw_error_set(error, GW_E_PROTOCOL,
                            "the frame begins with 0x%08x, not with Godwit's 0x%08x",
                            ntohl(h->magic), GW_WIRE_MAGIC);
    if (n_bytes >= 6 && version != GW_WIRE_VERSION) {
        gw_error_set(error, GW_E_UNSUPPORTED,
                     "the other side speaks version %u of the node protocol, this node version %u",
                     version, GW_WIRE_VERSION);
        return gw_error_hint(error, "run the same release of Godwit on both nodes");
    }
    if (n_bytes >= sizeof *h && ntohl(h->length) > GW_WIRE_MAX_BODY)
        return gw_error_set(error, GW_E_PROTOCOL, "a frame of %u bytes is announced, more than %u",
                            ntohl(h->length), GW_WIRE_MAX_BODY);
    return 0;
}

static int parse_body(struct evbuffer *in, size_t len, unsigned type, json_t **bodyp,
                      struct gw_error *error)
{
    json_error_t why;
    /* pullup(0) gives NULL, and an empty body is not JSON: both end in the parser's message */
    const char *text = len ? (const char *)evbuffer_pullup(in, (ev_ssize_t)len) : "";
    json_t *body;

    if (!text)
        return gw_error_set_sys(error, ENOMEM, "read a frame of %zu bytes", len);
    body = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    evbuffer_drain(in, len);
    if (!body)
        return gw_error_set(error, GW_E_PROTOCOL, "the body of a frame of type %u (%s): %s", type,
                            gw_wire_type_name(type), why.text);
    if (!json_is_object(body)) {
        json_decref(body);
        return gw_error_set(error, GW_E_PROTOCOL,
                            "the body of a frame of type %u (%s) is not a JSON object", type,
                            gw_wire_type_name(type));
    }
    *bodyp = body;
    return 0;
}

int gw_wire_decode(struct evbuffer *in, struct gw_wire_message *message, struct gw_error *error)
{
    struct header h = {0};
    ev_ssize_t n = evbuffer_copyout(in, &h, sizeof h);
    size_t len;

    if (n < 0)
        return gw_error_set_sys(error, EIO, "read a frame");
    if (check_header(&h, (size_t)n, error) < 0)
        return -1;
    if ((size_t)n < sizeof h)
        return 0;
    len = ntohl(h.length);
    if (evbuffer_get_length(in) - sizeof h < len)
        return 0;
    evbuffer_drain(in, sizeof h);
    message->type = ntohs(h.type);
    if (parse_body(in, len, message->type, &message->body, error) < 0)
        return -1;
    return 1;
}
