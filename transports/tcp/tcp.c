/* SPDX-License-Identifier: Apache-2.0 */
#include "transports/tcp/tcp.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transports/tcp/tcp_private.h"
#include "util/cleanup.h"

static struct gw_tcp *tcp_of(struct gw_transport *transport)
{
    return gw_container_of(transport, struct gw_tcp, base);
}

void gw_tcp_format_address(char *text, size_t size, const struct gw_tcp_address *address)
{
    char host[80], port[8]; /* an IPv6 address and the name of an interface */

    if (getnameinfo((const struct sockaddr *)&address->sa, address->bytes, host, sizeof host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(text, size, "an unknown address");
    else
        snprintf(text, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* --- options --------------------------------------------------------------------------------- */

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

/* A window that is smaller than asked for would be slow, one that is larger only lazy. */
static void set_rcvbuf(int fd, uint64_t bytes)
{
    int max = 0;
    FILE *file;

    if (bytes == 0 || set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, (int)bytes) == 0)
        return;
    file = fopen("/proc/sys/net/core/rmem_max", "re");
    if (!file)
        return;
    if (fscanf(file, "%d", &max) == 1 && (uint64_t)max >= bytes)
        set_int(fd, SOL_SOCKET, SO_RCVBUF, (int)bytes);
    fclose(file);
}

int gw_tcp_set_options(const struct gw_tcp *tcp, int fd)
{
    const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, (int)tcp->timeout_ms},
        {IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)tcp->unsent_bytes},
        /* Idle lanes: with TCP_USER_TIMEOUT that alone says when a silent peer is dead. */
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 2},
        {IPPROTO_TCP, TCP_KEEPINTVL, 2},
    };

    for (unsigned i = 0; i < GW_ARRAY_SIZE(options); i++) {
        int r = set_int(fd, options[i].level, options[i].name, options[i].value);

        if (r < 0)
            return r;
    }
    set_rcvbuf(fd, tcp->rcvbuf_bytes);
    return tcp->sndbuf_bytes ? set_int(fd, SOL_SOCKET, SO_SNDBUF, (int)tcp->sndbuf_bytes) : 0;
}

/* --- connecting ------------------------------------------------------------------------------ */

/* A socket that is connecting, or -errno. */
static int begin(struct gw_tcp *tcp, unsigned number, const struct gw_tcp_address *to)
{
    gw_autoclose int fd =
        socket(to->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    int r;

    if (fd < 0)
        return -errno;
    r = gw_tcp_set_options(tcp, fd);
    if (r < 0)
        return r;
    if (tcp->sources.n) {
        const struct gw_tcp_address *from = &tcp->sources.list[number % tcp->sources.n];

        if (bind(fd, (const struct sockaddr *)&from->sa, from->bytes) < 0)
            return -errno;
    }
    if (connect(fd, (const struct sockaddr *)&to->sa, to->bytes) < 0 && errno != EINPROGRESS)
        return -errno;
    return gw_steal_fd(&fd);
}

static int tcp_connect(struct gw_transport *transport, const struct gw_lane_hello *hello,
                       const char *peer, struct gw_lane **lanep, struct gw_error *error)
{
    struct gw_tcp *tcp = tcp_of(transport);
    struct gw_tcp_address *to = &tcp->addresses.list[hello->lane % tcp->addresses.n];
    struct gw_tcp_lane *lane;
    char where[96];
    int fd;

    if (!gw_hello_valid(hello) || strlen(peer) >= sizeof lane->peer_wanted)
        return gw_error_set(error, GW_E_USAGE, "lane %u of %u to \"%.80s\" makes no sense",
                            hello->lane, hello->n_lanes, peer);
    gw_tcp_format_address(where, sizeof where, to);
    fd = begin(tcp, hello->lane, to);
    if (fd < 0)
        return gw_error_set_sys(error, -fd, "connect lane %u to %s", hello->lane, where);
    lane = gw_tcp_lane_new(tcp, fd, to);
    if (!lane) {
        close(fd);
        return gw_error_set_sys(error, ENOMEM, "connect lane %u to %s", hello->lane, where);
    }
    lane->hello = *hello;
    strcpy(lane->peer_wanted, peer);
    *lanep = &lane->base;
    return 0;
}

/* --- transport ------------------------------------------------------------------------------- */

static int tcp_set_rate(struct gw_transport *transport, uint64_t bytes_s)
{
    (void)transport;
    (void)bytes_s;
    return -ENOTSUP;
}

static int tcp_read_trace(struct gw_transport *transport, struct gw_trace_event *events,
                          unsigned max, uint64_t *n_lostp)
{
    (void)transport;
    (void)events;
    (void)max;
    (void)n_lostp;
    return -ENOTSUP;
}

static void tcp_free(struct gw_transport *transport)
{
    free(tcp_of(transport));
}

static const struct gw_transport_ops tcp_ops = {
    .name = "tcp",
    .listen = gw_tcp_listen,
    .connect = tcp_connect,
    .set_rate = tcp_set_rate,
    .read_trace = tcp_read_trace,
    .free = tcp_free,
};

static int add_address(struct gw_tcp_addresses *addresses, const char *text, unsigned port,
                       struct gw_error *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct gw_tcp_address *to = &addresses->list[addresses->n++];
    struct addrinfo *found;
    char service[8];

    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(text, service, &hints, &found) != 0)
        return gw_error_set(error, GW_E_USAGE, "transport URI: \"%s\" is no numeric address", text);
    memcpy(&to->sa, found->ai_addr, found->ai_addrlen);
    to->bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int read_addresses(struct gw_tcp *tcp, struct gw_uri *uri, struct gw_error *error)
{
    const char *text = gw_uri_get(uri, "source");
    gw_uri_word sources[GW_URI_ADDRESSES_MAX];
    int n_sources = text ? gw_uri_addresses(text, sources, error) : 0;

    if (n_sources < 0)
        return -1;
    if (!uri->has_port)
        return gw_error_set(error, GW_E_USAGE, "transport URI: tcp:// needs a port");
    for (unsigned i = 0; i < uri->n_addresses; i++)
        if (add_address(&tcp->addresses, uri->addresses[i], uri->port, error) < 0)
            return -1;
    for (int i = 0; i < n_sources; i++)
        if (add_address(&tcp->sources, sources[i], 0, error) < 0)
            return -1;
    return 0;
}

static int read_options(struct gw_tcp *tcp, struct gw_uri *uri, const struct gw_transport_env *env,
                        struct gw_error *error)
{
    const struct gw_uri_number numbers[] = {
        {"connect", GW_URI_MS, 1, 600000, &tcp->connect_ms},
        {"timeout", GW_URI_MS, 100, 3600000, &tcp->timeout_ms},
        {"unsent", GW_URI_BYTES, 4096, 1 << 30, &tcp->unsent_bytes},
        {"rcvbuf", GW_URI_BYTES, 0, 1 << 30, &tcp->rcvbuf_bytes},
        {"sndbuf", GW_URI_BYTES, 0, 1 << 30, &tcp->sndbuf_bytes},
    };
    bool plain = false;

    if (gw_uri_numbers(uri, numbers, GW_ARRAY_SIZE(numbers), error) < 0 ||
        gw_uri_bool(uri, "plain", &plain, error) < 0 ||
        gw_uri_bool(uri, "ktls", &tcp->ktls, error) < 0)
        return -1;
    if (plain)
        return 0;
    if (!env->tls || !gw_tls_ctx_good(env->tls)) {
        gw_error_set(error, GW_E_PERMISSION,
                     env->tls ? "the TLS context does not demand the peer's certificate"
                              : "tcp:// needs this node's certificate");
        return gw_error_hint(error, "on a network of its own, plain=yes does without");
    }
    tcp->ctx = env->tls;
    return 0;
}

int gw_tcp_new(struct gw_uri *uri, const struct gw_transport_env *env,
               struct gw_transport **transportp, struct gw_error *error)
{
    struct gw_tcp *tcp = calloc(1, sizeof *tcp);

    if (!tcp)
        return gw_error_set_sys(error, ENOMEM, "open a transport");
    tcp->base.ops = &tcp_ops;
    tcp->ktls = true;
    tcp->connect_ms = 5000;
    tcp->timeout_ms = 20000;
    tcp->unsent_bytes = 128 << 10;
    tcp->rcvbuf_bytes = 1 << 20;
    if (read_addresses(tcp, uri, error) < 0 || read_options(tcp, uri, env, error) < 0) {
        free(tcp);
        return -1;
    }
    *transportp = &tcp->base;
    return 0;
}
