/* SPDX-License-Identifier: Apache-2.0 */
#include "host/conns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "util/cleanup.h"

struct request {
    struct nlmsghdr head;
    struct inet_diag_req_v2 body;
};

static int open_diag(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    return fd < 0 ? -errno : fd;
}

static int ask(int fd, uint16_t flags, const struct inet_diag_req_v2 *body)
{
    struct request request = {
        .head = {.nlmsg_len = sizeof request,
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST | flags},
        .body = *body,
    };
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

    return sendto(fd, &request, sizeof request, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0
               ? -errno
               : 0;
}

static int error_of(const struct nlmsghdr *head)
{
    if (head->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
        return -EPROTO;
    return ((const struct nlmsgerr *)NLMSG_DATA(head))->error;
}

/* What is looked for, and what is known of it. */
struct search {
    struct inet_diag_req_v2 body; /* the address that the connections go to, or come to */
    bool here;                    /* it is one of ours: they come to it */
    struct gw_conns *conns;       /* takes them; or NULL */
    uint64_t n_queued;            /* if here what was not read yet, else what is not acknowledged */
};

static bool matches(const struct search *s, const struct inet_diag_sockid *id)
{
    const struct inet_diag_sockid *wanted = &s->body.id;

    if (s->here)
        return id->idiag_sport == wanted->idiag_sport &&
               memcmp(id->idiag_src, wanted->idiag_src, sizeof id->idiag_src) == 0;
    return id->idiag_dport == wanted->idiag_dport &&
           memcmp(id->idiag_dst, wanted->idiag_dst, sizeof id->idiag_dst) == 0;
}

static void note(struct search *s, const struct inet_diag_msg *msg)
{
    if (!matches(s, &msg->id))
        return;
    s->n_queued += s->here ? msg->idiag_rqueue : msg->idiag_wqueue;
    if (s->conns && s->conns->n < GW_CONNS_MAX)
        s->conns->ids[s->conns->n++] = msg->id;
}

/* One datagram of the answer: 1 if it was the last, 0 if more follow, or a negative errno. */
static int take(struct search *s, const void *data, size_t n_bytes)
{
    const struct nlmsghdr *head = data;

    for (; NLMSG_OK(head, n_bytes); head = NLMSG_NEXT(head, n_bytes)) {
        if (head->nlmsg_type == NLMSG_DONE)
            return 1;
        if (head->nlmsg_type == NLMSG_ERROR)
            return error_of(head);
        if (head->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
            note(s, NLMSG_DATA(head));
    }
    return 0;
}

static int search(struct search *s)
{
    _Alignas(struct nlmsghdr) char data[16384];
    gw_autoclose int fd = open_diag();
    int r = fd < 0 ? fd : ask(fd, NLM_F_DUMP, &s->body);

    while (r == 0) {
        ssize_t n = recv(fd, data, sizeof data, MSG_DONTWAIT);

        r = n < 0 ? -errno : take(s, data, (size_t)n);
    }
    return r < 0 ? r : 0;
}

/* The established ones that go to host:port or, if here, come to it. */
static int look_for(struct search *s, const char *host, uint16_t port, bool here,
                    struct gw_conns *conns)
{
    struct inet_diag_sockid *id = &s->body.id;

    *s = (struct search){.body = {.sdiag_family = strchr(host, ':') ? AF_INET6 : AF_INET,
                                  .sdiag_protocol = IPPROTO_TCP,
                                  .idiag_states = 1u << TCP_ESTABLISHED},
                         .here = here,
                         .conns = conns};
    *(here ? &id->idiag_sport : &id->idiag_dport) = htons(port);
    if (inet_pton(s->body.sdiag_family, host, here ? id->idiag_src : id->idiag_dst) != 1)
        return -EINVAL;
    return search(s);
}

int gw_conns_find(struct gw_conns *conns, const char *host, uint16_t port)
{
    struct search s;
    int r;

    *conns = (struct gw_conns){0};
    r = look_for(&s, host, port, false, conns);
    conns->family = s.body.sdiag_family;
    if (r < 0)
        conns->n = 0;
    return r;
}

static int queued(const char *host, uint16_t port, bool here, uint64_t *n_bytesp)
{
    struct search s;
    int r = look_for(&s, host, port, here, NULL);

    if (r == 0)
        *n_bytesp = s.n_queued;
    return r;
}

int gw_conns_unread(const char *host, uint16_t port, uint64_t *n_bytesp)
{
    return queued(host, port, true, n_bytesp);
}

int gw_conns_unacked(const char *host, uint16_t port, uint64_t *n_bytesp)
{
    return queued(host, port, false, n_bytesp);
}

/* 1 if it stands, 0 if not, or a negative errno. The cookie among the ids is this very socket's. */
static int stands(int fd, uint8_t family, const struct inet_diag_sockid *id)
{
    struct inet_diag_req_v2 body = {
        .sdiag_family = family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u, .id = *id};
    _Alignas(struct nlmsghdr) char data[4096];
    const struct nlmsghdr *head = (const void *)data;
    int r = ask(fd, 0, &body);
    ssize_t n;

    if (r < 0)
        return r;
    n = recv(fd, data, sizeof data, MSG_DONTWAIT);
    if (n < 0)
        return -errno;
    if (!NLMSG_OK(head, (size_t)n))
        return -EPROTO;
    if (head->nlmsg_type == NLMSG_ERROR)
        return error_of(head) == -ENOENT || error_of(head) == -ESTALE ? 0 : error_of(head);
    if (head->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
        return -EPROTO;
    return ((const struct inet_diag_msg *)NLMSG_DATA(head))->idiag_state == TCP_ESTABLISHED;
}

int gw_conns_n_ended(const struct gw_conns *conns)
{
    gw_autoclose int fd = open_diag();
    int n_ended = 0;

    if (fd < 0)
        return fd;
    for (unsigned i = 0; i < conns->n; i++) {
        int r = stands(fd, conns->family, &conns->ids[i]);

        if (r < 0)
            return r;
        n_ended += r == 0;
    }
    return n_ended;
}
