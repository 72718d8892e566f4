/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address book: which nodes there are and where they listen. A list in memory and the file
 * DIR/nodes.json, replaced whole at each change. It is a convenience, not an authority: who a
 * node is, its certificate says.
 */
#ifndef GW_SHELL_NODES_H
#define GW_SHELL_NODES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "godwit/error.h"
#include "util/cleanup.h"

#define GW_NODE_NAME_MAX    63
#define GW_NODE_ADDRESS_MAX 253
#define GW_NODES_MAX        1024

struct gw_node {
    char name[GW_NODE_NAME_MAX + 1];                 /* the CN of its certificate */
    char address[GW_NODE_ADDRESS_MAX + 1];           /* numeric or host name: the control side */
    uint16_t port;                                   /* of the control side */
    char migration_address[GW_NODE_ADDRESS_MAX + 1]; /* where QEMU listens; "" means address */
    bool ca;                                         /* holds the CA's key, so it can invite */
    int64_t added_at_ms; /* Unix time of this entry; of two, the newer one is believed */
};

struct gw_nodes;

/* 1 to 63 of a-z A-Z 0-9 - _ . and no - _ . in front: a file name, a CN and a word in a shell. */
bool gw_node_name_valid(const char *name);

/* A numeric IPv4 or IPv6 address, or a host name as RFC 1123 has it, 253 characters at most. */
bool gw_node_address_valid(const char *address);

/* "10.0.0.1:7400", or "[fd00::1]:7400" for IPv6; cut at size. Returns buf. */
const char *gw_node_format_address(char *buf, size_t size, const char *address, uint16_t port);

/* Unix time in milliseconds, as added_at_ms wants it. */
int64_t gw_node_now_ms(void);

/* Reads DIR/nodes.json; no such file is an empty book. self is this node's name, or NULL before it
 * has one. 0 and *nodesp, for gw_nodes_free(); or -1 with *error. */
int gw_nodes_open(const char *dir, const char *self, struct gw_nodes **nodesp,
                  struct gw_error *error);

void gw_nodes_free(struct gw_nodes *nodes);
GW_DEFINE_AUTO(nodes)

/* This node's name, which gw_nodes_merge() then leaves alone. GW_E_USAGE if it is no valid name. */
int gw_nodes_set_self(struct gw_nodes *nodes, const char *self, struct gw_error *error);

/* This node's name, "" while it has none. */
const char *gw_nodes_self(const struct gw_nodes *nodes);

size_t gw_nodes_count(const struct gw_nodes *nodes);

/* The entry at index, ordered by name; NULL beyond the end. Valid until the next change. */
const struct gw_node *gw_nodes_at(const struct gw_nodes *nodes, size_t index);

/* The entry of that name or NULL. Valid until the next change. */
const struct gw_node *gw_nodes_find(const struct gw_nodes *nodes, const char *name);

/* Adds the node or replaces the entry of its name (also of self), and writes the file; a book that
 * could not be written stays as it was. 0 or -1 with *error (GW_E_USAGE: a field is invalid). */
int gw_nodes_put(struct gw_nodes *nodes, const struct gw_node *node, struct gw_error *error);

/* Removes the entry and writes the file. 0, or -1 with *error (GW_E_NOT_FOUND). */
int gw_nodes_remove(struct gw_nodes *nodes, const char *name, struct gw_error *error);

/* A new JSON array of all entries; NULL when out of memory. */
json_t *gw_nodes_to_json(const struct gw_nodes *nodes);

/* One entry as a new JSON object {name, address, port, migration_address, ca, added_at}. */
json_t *gw_node_to_json(const struct gw_node *node);

/* Reads and checks one entry from outside. 0 or -1 with *error (GW_E_PROTOCOL). Unknown keys are
 * ignored: a newer node may send more. */
int gw_node_from_json(const json_t *object, struct gw_node *node, struct gw_error *error);

/*
 * Takes over what a peer sent: entries that are new, or newer than ours; never the one of self.
 * All of the array is checked first, so one bad entry refuses the whole of it (GW_E_PROTOCOL),
 * as does a book of more than GW_NODES_MAX. Returns 1 if something changed and was written, 0 if
 * not, -1 with *error and the book as it was.
 */
int gw_nodes_merge(struct gw_nodes *nodes, const json_t *array, struct gw_error *error);

#endif
