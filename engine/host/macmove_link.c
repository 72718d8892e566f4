/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What macmove asks and tells the kernel over netlink: the bridge's ports and VLANs, its table of
 * MAC addresses, and the flooding of one port.
 */
#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_ether.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "host/macmove_impl.h"

#define IFINFO_RTA(info) ((struct rtattr *)((char *)(info) + NLMSG_ALIGN(sizeof *(info))))

/* --- Making requests --- */

static struct nlmsghdr *header_of(struct gw_macmove_request *request)
{
    return (struct nlmsghdr *)request->bytes;
}

static void *begin(struct gw_macmove_request *request, uint16_t type, uint16_t flags, size_t body)
{
    memset(request, 0, sizeof *request);
    *header_of(request) = (struct nlmsghdr){.nlmsg_len = (uint32_t)NLMSG_LENGTH(body),
                                            .nlmsg_type = type,
                                            .nlmsg_flags = NLM_F_REQUEST | flags};
    request->n_bytes = NLMSG_SPACE(body);
    return NLMSG_DATA(header_of(request));
}

static struct rtattr *add(struct gw_macmove_request *request, uint16_t type, const void *data,
                          size_t n_bytes)
{
    struct rtattr *attr = (struct rtattr *)(request->bytes + request->n_bytes);

    attr->rta_type = type;
    attr->rta_len = (uint16_t)RTA_LENGTH(n_bytes);
    if (n_bytes)
        memcpy(RTA_DATA(attr), data, n_bytes);
    request->n_bytes += RTA_SPACE(n_bytes);
    header_of(request)->nlmsg_len = (uint32_t)request->n_bytes;
    return attr;
}

static void make_flood(struct gw_macmove *mm, struct gw_macmove_request *request, uint8_t on)
{
    struct ifinfomsg *info = begin(request, RTM_SETLINK, NLM_F_ACK, sizeof *info);
    struct rtattr *port;

    info->ifi_family = PF_BRIDGE;
    info->ifi_index = mm->tap_index;
    port = add(request, IFLA_PROTINFO | NLA_F_NESTED, NULL, 0);
    add(request, IFLA_BRPORT_UNICAST_FLOOD, &on, 1);
    add(request, IFLA_BRPORT_MCAST_FLOOD, &on, 1);
    add(request, IFLA_BRPORT_BCAST_FLOOD, &on, 1);
    port->rta_len = (uint16_t)(request->bytes + request->n_bytes - (uint8_t *)port);
}

void macmove_make_requests(struct gw_macmove *mm)
{
    struct ndmsg *entry =
        begin(&mm->fdb, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof *entry);

    entry->ndm_family = PF_BRIDGE;
    entry->ndm_ifindex = mm->tap_index;
    entry->ndm_state = NUD_REACHABLE; /* ages like a learned one */
    entry->ndm_flags = NTF_MASTER;
    add(&mm->fdb, NDA_LLADDR, mm->mac, sizeof mm->mac);
    if (mm->vlan)
        add(&mm->fdb, NDA_VLAN, &mm->vlan, sizeof mm->vlan);
    make_flood(mm, &mm->flood_on, 1);
    make_flood(mm, &mm->flood_off, 0);
}

/* --- Talking --- */

/* Reads answers until the one with this number; the kernel has them ready when send returns. */
static int receive(struct gw_macmove *mm, uint32_t sequence, size_t *gotp)
{
    for (;;) {
        ssize_t got = recv(mm->netlink_fd, mm->buffer, GW_MACMOVE_BUFFER_BYTES, 0);
        const struct nlmsghdr *header = (const struct nlmsghdr *)mm->buffer;

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (!NLMSG_OK(header, (size_t)got))
            return -EBADMSG;
        *gotp = (size_t)got;
        if (header->nlmsg_seq == sequence)
            return 0;
    }
}

/* The result in an acknowledgement. */
static int result_of(const struct nlmsghdr *header)
{
    const struct nlmsgerr *error = NLMSG_DATA(header);

    if (header->nlmsg_type != NLMSG_ERROR || header->nlmsg_len < NLMSG_LENGTH(sizeof *error))
        return -EBADMSG;
    return error->error;
}

int macmove_request(struct gw_macmove *mm, struct gw_macmove_request *const *requests,
                    size_t n_requests, int *failedp)
{
    struct iovec iov[4];
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = n_requests};
    uint32_t first = mm->sequence + 1;
    size_t got;
    int rc = 0;

    *failedp = 0;
    if (n_requests > 4)
        return -EINVAL;
    for (size_t i = 0; i < n_requests; i++) {
        header_of(requests[i])->nlmsg_seq = ++mm->sequence;
        iov[i] = (struct iovec){requests[i]->bytes, requests[i]->n_bytes};
    }
    if (sendmsg(mm->netlink_fd, &message, 0) < 0)
        return -errno;
    for (size_t i = 0; i < n_requests; i++) {
        int one = receive(mm, first + (uint32_t)i, &got);

        if (one == 0)
            one = result_of((const struct nlmsghdr *)mm->buffer);
        if (one < 0 && rc == 0) {
            rc = one;
            *failedp = (int)i;
        }
    }
    return rc;
}

/* One question with one answer, which stays in the buffer. */
static int ask(struct gw_macmove *mm, struct gw_macmove_request *request)
{
    size_t got;
    int rc;

    header_of(request)->nlmsg_seq = ++mm->sequence;
    if (send(mm->netlink_fd, request->bytes, request->n_bytes, 0) < 0)
        return -errno;
    rc = receive(mm, mm->sequence, &got);
    if (rc == 0 && ((const struct nlmsghdr *)mm->buffer)->nlmsg_type == NLMSG_ERROR)
        rc = result_of((const struct nlmsghdr *)mm->buffer);
    return rc;
}

/* The attribute of this type in a list of them, or NULL. */
static const struct rtattr *find(const struct rtattr *attr, size_t len, uint16_t type)
{
    for (; RTA_OK(attr, len); attr = RTA_NEXT(attr, len))
        if ((attr->rta_type & NLA_TYPE_MASK) == type)
            return attr;
    return NULL;
}

static const struct rtattr *find_in(const struct rtattr *nest, uint16_t type, size_t n_bytes)
{
    const struct rtattr *attr =
        nest ? find((const struct rtattr *)RTA_DATA(nest), RTA_PAYLOAD(nest), type) : NULL;

    return attr && RTA_PAYLOAD(attr) >= n_bytes ? attr : NULL;
}

static const struct rtattr *find_link(const struct nlmsghdr *header, uint16_t type, size_t n_bytes)
{
    const struct ifinfomsg *info = NLMSG_DATA(header);
    const struct rtattr *attr = NULL;

    if (header->nlmsg_len >= NLMSG_SPACE(sizeof *info))
        attr = find(IFINFO_RTA(info), header->nlmsg_len - NLMSG_SPACE(sizeof *info), type);
    return attr && RTA_PAYLOAD(attr) >= n_bytes ? attr : NULL;
}

/* --- The bridge and its ports --- */

/* How a port belongs to a VLAN. */
struct membership {
    bool member, tagged;
    uint16_t pvid; /* 0: none */
};

static void read_membership(const struct nlmsghdr *header, uint16_t vlan, struct membership *found)
{
    const struct rtattr *spec = find_link(header, IFLA_AF_SPEC, 0);
    const struct rtattr *attr = spec ? RTA_DATA(spec) : NULL;
    size_t len = spec ? RTA_PAYLOAD(spec) : 0;
    uint16_t from = 0;

    memset(found, 0, sizeof *found);
    for (; RTA_OK(attr, len); attr = RTA_NEXT(attr, len)) {
        const struct bridge_vlan_info *info = RTA_DATA(attr);

        if ((attr->rta_type & NLA_TYPE_MASK) != IFLA_BRIDGE_VLAN_INFO ||
            RTA_PAYLOAD(attr) < sizeof *info)
            continue;
        if (info->flags & BRIDGE_VLAN_INFO_PVID)
            found->pvid = info->vid;
        if (!(info->flags & BRIDGE_VLAN_INFO_RANGE_END))
            from = info->vid;
        if (info->flags & BRIDGE_VLAN_INFO_RANGE_BEGIN || vlan < from || vlan > info->vid)
            continue;
        found->member = true;
        found->tagged = !(info->flags & BRIDGE_VLAN_INFO_UNTAGGED);
    }
}

/* What a walk over the bridge ports of this namespace does with each. */
typedef void visit_port(struct gw_macmove *mm, const struct nlmsghdr *header, int index);

static int visit_message(struct gw_macmove *mm, const struct nlmsghdr *header, visit_port *visit)
{
    const struct ifinfomsg *info = NLMSG_DATA(header);
    const struct rtattr *master;

    if (header->nlmsg_type == NLMSG_DONE)
        return 1;
    if (header->nlmsg_type == NLMSG_ERROR)
        return result_of(header);
    if (header->nlmsg_type != RTM_NEWLINK || header->nlmsg_len < NLMSG_LENGTH(sizeof *info))
        return -EBADMSG;
    master = find_link(header, IFLA_MASTER, sizeof(int));
    if (master && *(const int *)RTA_DATA(master) == mm->bridge_index &&
        info->ifi_index != mm->bridge_index)
        visit(mm, header, info->ifi_index);
    return 0;
}

static int walk_ports(struct gw_macmove *mm, visit_port *visit)
{
    const uint32_t mask = RTEXT_FILTER_BRVLAN_COMPRESSED;
    struct gw_macmove_request request;
    struct ifinfomsg *info = begin(&request, RTM_GETLINK, NLM_F_DUMP, sizeof *info);
    size_t got;
    int rc;

    info->ifi_family = PF_BRIDGE;
    add(&request, IFLA_EXT_MASK, &mask, sizeof mask);
    header_of(&request)->nlmsg_seq = ++mm->sequence;
    if (send(mm->netlink_fd, request.bytes, request.n_bytes, 0) < 0)
        return -errno;
    for (;;) {
        const struct nlmsghdr *header = (const struct nlmsghdr *)mm->buffer;

        rc = receive(mm, mm->sequence, &got);
        for (; rc == 0 && NLMSG_OK(header, got); header = NLMSG_NEXT(header, got))
            rc = visit_message(mm, header, visit);
        if (rc)
            return rc < 0 ? rc : 0;
    }
}

static void note_tap(struct gw_macmove *mm, const struct nlmsghdr *header, int index)
{
    struct membership found;

    if (index != mm->tap_index)
        return;
    read_membership(header, 0, &found);
    mm->vlan = found.pvid;
    mm->n_ports = 1; /* it is a port: for macmove_read_vlan() */
}

static void note_port(struct gw_macmove *mm, const struct nlmsghdr *header, int index)
{
    const struct rtattr *state =
        find_in(find_link(header, IFLA_PROTINFO, 0), IFLA_BRPORT_STATE, sizeof(uint8_t));
    struct membership found = {.member = true};

    if (index == mm->tap_index || !state || mm->n_ports == GW_MACMOVE_PORTS_MAX ||
        *(const uint8_t *)RTA_DATA(state) != BR_STATE_FORWARDING)
        return;
    if (mm->vlan)
        read_membership(header, mm->vlan, &found);
    if (found.member)
        mm->ports[mm->n_ports++] = (struct gw_macmove_port){index, found.tagged};
}

int macmove_read_ports(struct gw_macmove *mm, struct gw_error *e)
{
    int rc;

    mm->n_ports = 0;
    rc = walk_ports(mm, note_port);
    return rc < 0 ? gw_error_set_sys(e, -rc, "read the ports of bridge %s", mm->bridge) : 0;
}

/* *filteringp: whether the bridge filters VLANs. 1: it is no bridge. */
static int read_bridge(struct gw_macmove *mm, bool *filteringp)
{
    struct gw_macmove_request request;
    struct ifinfomsg *info = begin(&request, RTM_GETLINK, 0, sizeof *info);
    const struct rtattr *link, *kind, *data, *attr;
    int rc;

    info->ifi_index = mm->bridge_index;
    rc = ask(mm, &request);
    if (rc < 0)
        return rc;
    link = find_link((const struct nlmsghdr *)mm->buffer, IFLA_LINKINFO, 0);
    kind = find_in(link, IFLA_INFO_KIND, sizeof "bridge");
    if (!kind || strncmp(RTA_DATA(kind), "bridge", sizeof "bridge") != 0)
        return 1;
    data = find_in(link, IFLA_INFO_DATA, 0);
    attr = find_in(data, IFLA_BR_VLAN_FILTERING, sizeof(uint8_t));
    *filteringp = attr && *(const uint8_t *)RTA_DATA(attr);
    attr = find_in(data, IFLA_BR_VLAN_PROTOCOL, sizeof(uint16_t));
    mm->vlan_protocol = attr ? ntohs(*(const uint16_t *)RTA_DATA(attr)) : ETH_P_8021Q;
    return 0;
}

int macmove_read_vlan(struct gw_macmove *mm, struct gw_error *e)
{
    bool filtering = false;
    int rc = read_bridge(mm, &filtering);

    if (rc < 0)
        return gw_error_set_sys(e, -rc, "read the settings of bridge %s", mm->bridge);
    if (rc > 0)
        return gw_error_set(e, GW_E_STATE, "%s is a network interface but no bridge", mm->bridge);
    mm->n_ports = 0;
    rc = walk_ports(mm, note_tap);
    if (rc < 0)
        return gw_error_set_sys(e, -rc, "read the ports of bridge %s", mm->bridge);
    if (mm->n_ports == 0) {
        gw_error_set(e, GW_E_STATE, "tap %s is no port of bridge %s", mm->tap, mm->bridge);
        return gw_error_hint(e, "add it: `ip link set %s master %s`", mm->tap, mm->bridge);
    }
    if (filtering && mm->vlan == 0) {
        gw_error_set(e, GW_E_STATE, "bridge %s filters VLANs and its port %s has no PVID",
                     mm->bridge, mm->tap);
        return gw_error_hint(e, "give it one: `bridge vlan add dev %s vid N pvid untagged`",
                             mm->tap);
    }
    if (!filtering)
        mm->vlan = 0;
    return 0;
}

int macmove_find_mac(struct gw_macmove *mm, int *indexp)
{
    struct gw_macmove_request request;
    struct ndmsg *entry = begin(&request, RTM_GETNEIGH, 0, sizeof *entry);
    const struct nlmsghdr *header = (const struct nlmsghdr *)mm->buffer;
    int rc;

    entry->ndm_family = PF_BRIDGE;
    add(&request, NDA_LLADDR, mm->mac, sizeof mm->mac);
    add(&request, NDA_MASTER, &mm->bridge_index, sizeof mm->bridge_index);
    if (mm->vlan)
        add(&request, NDA_VLAN, &mm->vlan, sizeof mm->vlan);
    rc = ask(mm, &request);
    if (rc < 0)
        return rc;
    if (header->nlmsg_type != RTM_NEWNEIGH || header->nlmsg_len < NLMSG_LENGTH(sizeof *entry))
        return -EBADMSG;
    *indexp = ((const struct ndmsg *)NLMSG_DATA(header))->ndm_ifindex;
    return 0;
}
