/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/nodes.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "shell/statefile.h"

#define FILE_VERSION   1
#define FILE_MAX_BYTES (4u << 20) /* GW_NODES_MAX entries of the greatest length need less */

/* A peer's clock may be wrong; an entry from next year would beat every later correction. */
#define FUTURE_MAX_MS (24 * 3600 * INT64_C(1000))

struct gw_nodes {
    char *path;
    char self[GW_NODE_NAME_MAX + 1];
    struct gw_node *list; /* sorted by name */
    size_t n_list;
};

static bool alphanumeric(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool gw_node_name_valid(const char *name)
{
    size_t len = name ? strnlen(name, GW_NODE_NAME_MAX + 1) : 0;

    if (len == 0 || len > GW_NODE_NAME_MAX || !alphanumeric(name[0]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!alphanumeric(name[i]) && !strchr("-_.", name[i]))
            return false;
    return true;
}

/* Labels of letters, digits and hyphens, none at an edge; not all digits and dots, which would be
 * a mistyped IPv4 address. */
static bool host_name_valid(const char *s)
{
    bool letter = false;
    size_t label = 0;

    for (; *s; s++) {
        if (*s == '.') {
            if (label == 0 || s[-1] == '-')
                return false;
            label = 0;
            continue;
        }
        if (!alphanumeric(*s) && (*s != '-' || label == 0))
            return false;
        letter |= !isdigit((unsigned char)*s);
        if (++label > 63)
            return false;
    }
    return letter && label > 0 && s[-1] != '-';
}

bool gw_node_address_valid(const char *address)
{
    unsigned char binary[sizeof(struct in6_addr)];
    size_t len = address ? strnlen(address, GW_NODE_ADDRESS_MAX + 1) : 0;

    if (len == 0 || len > GW_NODE_ADDRESS_MAX)
        return false;
    return inet_pton(AF_INET, address, binary) == 1 || inet_pton(AF_INET6, address, binary) == 1 ||
           host_name_valid(address);
}

const char *gw_node_format_address(char *buf, size_t size, const char *address, uint16_t port)
{
    snprintf(buf, size, strchr(address, ':') ? "[%s]:%u" : "%s:%u", address, port);
    return buf;
}

int64_t gw_node_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static const char *invalid_field(const struct gw_node *node)
{
    if (!gw_node_name_valid(node->name))
        return "name";
    if (!gw_node_address_valid(node->address))
        return "address";
    if (node->port == 0)
        return "port";
    if (node->migration_address[0] && !gw_node_address_valid(node->migration_address))
        return "migration_address";
    if (node->added_at_ms < 0)
        return "added_at";
    return NULL;
}

json_t *gw_node_to_json(const struct gw_node *node)
{
    return json_pack("{ss, ss, si, ss, sb, sI}", "name", node->name, "address", node->address,
                     "port", (int)node->port, "migration_address", node->migration_address, "ca",
                     (int)node->ca, "added_at", (json_int_t)node->added_at_ms);
}

/* Copies what fits; what does not becomes a string that no check accepts. */
static void copy_bounded(char *dst, size_t size, const char *src)
{
    if ((size_t)snprintf(dst, size, "%s", src) >= size)
        snprintf(dst, size, "?");
}

int gw_node_from_json(const json_t *object, struct gw_node *node, struct gw_error *error)
{
    const char *name, *address, *migration_address = "", *bad;
    json_int_t port, added_at;
    json_error_t why;
    int ca = 0;

    if (json_unpack_ex((json_t *)object, &why, 0, "{ss, ss, sI, s?s, s?b, sI}", "name", &name,
                       "address", &address, "port", &port, "migration_address", &migration_address,
                       "ca", &ca, "added_at", &added_at) < 0)
        return gw_error_set(error, GW_E_PROTOCOL, "an entry of the node list: %s", why.text);
    *node = (struct gw_node){
        .port = port > 0 && port <= UINT16_MAX ? (uint16_t)port : 0,
        .ca = ca,
        .added_at_ms = added_at,
    };
    copy_bounded(node->name, sizeof node->name, name);
    copy_bounded(node->address, sizeof node->address, address);
    copy_bounded(node->migration_address, sizeof node->migration_address, migration_address);
    bad = invalid_field(node);
    if (bad)
        return gw_error_set(error, GW_E_PROTOCOL,
                            "an entry of the node list has an invalid value for %s", bad);
    return 0;
}

json_t *gw_nodes_to_json(const struct gw_nodes *nodes)
{
    json_t *array = json_array();

    for (size_t i = 0; array && i < nodes->n_list; i++) {
        if (json_array_append_new(array, gw_node_to_json(&nodes->list[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* Writes list as if it were the book's; the caller makes it so when this has succeeded. */
static int save(struct gw_nodes *nodes, struct gw_node *list, size_t n_list, struct gw_error *error)
{
    struct gw_nodes would_be = {.list = list, .n_list = n_list};
    json_t *array = gw_nodes_to_json(&would_be);
    json_t *root = array ? json_pack("{si, so}", "version", FILE_VERSION, "nodes", array) : NULL;
    gw_autofree char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;

    json_decref(root);
    if (!text)
        return gw_error_set_sys(error, ENOMEM, "write %s", nodes->path);
    return gw_statefile_write(nodes->path, text, strlen(text), 0600, error);
}

static size_t lower_bound(const struct gw_node *list, size_t n_list, const char *name)
{
    size_t i = 0;

    while (i < n_list && strcmp(list[i].name, name) < 0)
        i++;
    return i;
}

/* list has room for one more. */
static void put_sorted(struct gw_node *list, size_t *n_listp, const struct gw_node *node)
{
    size_t i = lower_bound(list, *n_listp, node->name);

    if (i == *n_listp || strcmp(list[i].name, node->name) != 0) {
        memmove(&list[i + 1], &list[i], (*n_listp - i) * sizeof *list);
        ++*n_listp;
    }
    list[i] = *node;
}

static struct gw_node *copy_with_room(const struct gw_nodes *nodes, size_t n_more)
{
    struct gw_node *list = calloc(nodes->n_list + n_more + 1, sizeof *list);

    if (list && nodes->n_list)
        memcpy(list, nodes->list, nodes->n_list * sizeof *list);
    return list;
}

/* The file first, then the memory: they can only differ if the daemon dies in between. */
static int replace(struct gw_nodes *nodes, struct gw_node **listp, size_t n_list,
                   struct gw_error *error)
{
    if (n_list > GW_NODES_MAX)
        return gw_error_set(error, GW_E_PROTOCOL, "more than %d nodes", GW_NODES_MAX);
    if (save(nodes, *listp, n_list, error) < 0)
        return -1;
    free(nodes->list);
    nodes->list = gw_steal_ptr(listp);
    nodes->n_list = n_list;
    return 0;
}

int gw_nodes_put(struct gw_nodes *nodes, const struct gw_node *node, struct gw_error *error)
{
    gw_autofree struct gw_node *list = copy_with_room(nodes, 1);
    const char *bad = invalid_field(node);
    size_t n_list = nodes->n_list;

    if (bad)
        return gw_error_set(error, GW_E_USAGE, "invalid value for %s of node \"%.63s\"", bad,
                            node->name);
    if (!list)
        return gw_error_set_sys(error, ENOMEM, "add node %s", node->name);
    put_sorted(list, &n_list, node);
    return replace(nodes, &list, n_list, error);
}

int gw_nodes_remove(struct gw_nodes *nodes, const char *name, struct gw_error *error)
{
    gw_autofree struct gw_node *list = copy_with_room(nodes, 0);
    size_t i = lower_bound(nodes->list, nodes->n_list, name);

    if (i == nodes->n_list || strcmp(nodes->list[i].name, name) != 0)
        return gw_error_set(error, GW_E_NOT_FOUND, "there is no node %s", name);
    if (!list)
        return gw_error_set_sys(error, ENOMEM, "remove node %s", name);
    memmove(&list[i], &list[i + 1], (nodes->n_list - i - 1) * sizeof *list);
    return replace(nodes, &list, nodes->n_list - 1, error);
}

static bool wanted(const struct gw_nodes *nodes, const struct gw_node *theirs)
{
    const struct gw_node *ours = gw_nodes_find(nodes, theirs->name);

    if (strcmp(theirs->name, nodes->self) == 0)
        return false;
    return !ours || theirs->added_at_ms > ours->added_at_ms;
}

int gw_nodes_merge(struct gw_nodes *nodes, const json_t *array, struct gw_error *error)
{
    gw_autofree struct gw_node *list = NULL;
    size_t n_list = nodes->n_list, n_taken = 0, i;
    struct gw_node node;
    json_t *entry;

    if (!json_is_array(array) || json_array_size(array) > GW_NODES_MAX)
        return gw_error_set(error, GW_E_PROTOCOL, "the node list is no array of at most %d nodes",
                            GW_NODES_MAX);
    list = copy_with_room(nodes, json_array_size(array));
    if (!list)
        return gw_error_set_sys(error, ENOMEM, "merge the node list");
    json_array_foreach (array, i, entry) {
        if (gw_node_from_json(entry, &node, error) < 0)
            return -1;
        if (node.added_at_ms > gw_node_now_ms() + FUTURE_MAX_MS)
            return gw_error_set(error, GW_E_PROTOCOL,
                                "node %s is dated more than a day ahead of this node's clock",
                                node.name);
        if (!wanted(nodes, &node))
            continue;
        put_sorted(list, &n_list, &node);
        n_taken++;
    }
    if (n_taken == 0)
        return 0;
    return replace(nodes, &list, n_list, error) < 0 ? -1 : 1;
}

static int parse_file(struct gw_nodes *nodes, const char *text, size_t len, struct gw_error *error)
{
    json_error_t why;
    json_t *root = json_loadb(text, len, 0, &why), *array, *entry;
    struct gw_node node;
    size_t i;
    int r = 0;

    array = json_object_get(root, "nodes");
    if (!json_is_array(array) || json_array_size(array) > GW_NODES_MAX) {
        json_decref(root);
        gw_error_set(error, GW_E_CONFIG, "%s is not a node list%s%s", nodes->path, root ? "" : ": ",
                     root ? "" : why.text);
        return gw_error_hint(error, "restore it from another node, or remove it and join again");
    }
    nodes->list = calloc(json_array_size(array) + 1, sizeof *nodes->list);
    if (!nodes->list)
        r = gw_error_set_sys(error, ENOMEM, "read %s", nodes->path);
    json_array_foreach (array, i, entry) {
        if (r == 0)
            r = gw_node_from_json(entry, &node, error);
        if (r == 0)
            put_sorted(nodes->list, &nodes->n_list, &node);
    }
    json_decref(root);
    return r;
}

static int read_file(struct gw_nodes *nodes, struct gw_error *error)
{
    gw_autofree char *text = NULL;
    struct gw_error why = {0};
    size_t len;

    if (gw_statefile_read(nodes->path, FILE_MAX_BYTES, &text, &len, &why) < 0) {
        if (why.code == GW_E_NOT_FOUND)
            return 0;
        if (error)
            *error = why;
        return -1;
    }
    return parse_file(nodes, text, len, error);
}

int gw_nodes_open(const char *dir, const char *self, struct gw_nodes **nodesp,
                  struct gw_error *error)
{
    gw_auto(nodes) struct gw_nodes *nodes = calloc(1, sizeof *nodes);

    if (!nodes || asprintf(&nodes->path, "%s/nodes.json", dir) < 0) {
        if (nodes)
            nodes->path = NULL;
        return gw_error_set_sys(error, ENOMEM, "open the node list");
    }
    if (self && gw_nodes_set_self(nodes, self, error) < 0)
        return -1;
    if (read_file(nodes, error) < 0)
        return -1;
    *nodesp = gw_steal_ptr(&nodes);
    return 0;
}

void gw_nodes_free(struct gw_nodes *nodes)
{
    if (!nodes)
        return;
    free(nodes->path);
    free(nodes->list);
    free(nodes);
}

int gw_nodes_set_self(struct gw_nodes *nodes, const char *self, struct gw_error *error)
{
    if (!gw_node_name_valid(self)) {
        gw_error_set(error, GW_E_USAGE, "\"%.80s\" is not a node name", self);
        return gw_error_hint(error, "1 to %d letters, digits, hyphens, dots or underscores",
                             GW_NODE_NAME_MAX);
    }
    snprintf(nodes->self, sizeof nodes->self, "%s", self);
    return 0;
}

const char *gw_nodes_self(const struct gw_nodes *nodes)
{
    return nodes->self;
}

size_t gw_nodes_count(const struct gw_nodes *nodes)
{
    return nodes->n_list;
}

const struct gw_node *gw_nodes_at(const struct gw_nodes *nodes, size_t index)
{
    return index < nodes->n_list ? &nodes->list[index] : NULL;
}

const struct gw_node *gw_nodes_find(const struct gw_nodes *nodes, const char *name)
{
    size_t i = lower_bound(nodes->list, nodes->n_list, name);

    if (i == nodes->n_list || strcmp(nodes->list[i].name, name) != 0)
        return NULL;
    return &nodes->list[i];
}
