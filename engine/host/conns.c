/* SPDX-License-Identifier: Apache-2.0 */
#include "host/conns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
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

/* What is looked for, and where it is noted. */
struct search {
    struct inet_diag_req_v2 body;
    struct gw_conns *conns; /* those that go to the address in the body; or NULL, and */
    uint64_t n_unread;      /* the sum over those that come to it */
};

static void note(struct search *s, const struct inet_diag_msg *msg)
{
    const struct inet_diag_sockid *wanted = &s->body.id, *id = &msg->id;

    if (!s->conns) {
        if (id->idiag_sport == wanted->idiag_sport &&
            memcmp(id->idiag_src, wanted->idiag_src, sizeof id->idiag_src) == 0)
            s->n_unread += msg->idiag_rqueue;
        return;
    }
    if (s->conns->n < GW_CONNS_MAX && id->idiag_dport == wanted->idiag_dport &&
        memcmp(id->idiag_dst, wanted->idiag_dst, sizeof id->idiag_dst) == 0)
        s->conns->ids[s->conns->n++] = *id;
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

static struct search established(const char *host)
{
    return (struct search){.body = {.sdiag_family = strchr(host, ':') ? AF_INET6 : AF_INET,
                                    .sdiag_protocol = IPPROTO_TCP,
                                    .idiag_states = 1u << TCP_ESTABLISHED}};
}

int gw_conns_find(struct gw_conns *conns, const char *host, uint16_t port)
{
    struct search s = established(host);
    int r;

    *conns = (struct gw_conns){.family = s.body.sdiag_family};
    s.conns = conns;
    s.body.id.idiag_dport = htons(port);
    if (inet_pton(s.body.sdiag_family, host, s.body.id.idiag_dst) != 1)
        return -EINVAL;
    r = search(&s);
    if (r < 0)
        conns->n = 0;
    return r;
}

int gw_conns_unread(const char *host, uint16_t port, uint64_t *n_bytesp)
{
    struct search s = established(host);
    int r;

    s.body.id.idiag_sport = htons(port);
    if (inet_pton(s.body.sdiag_family, host, s.body.id.idiag_src) != 1)
        return -EINVAL;
    r = search(&s);
    if (r == 0)
        *n_bytesp = s.n_unread;
    return r;
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
