/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the module: what the store's calls and its watches share. */
#ifndef GW_STORAGE_RADOS_STORE_H
#define GW_STORAGE_RADOS_STORE_H

#include <stdio.h>

#include "storage/rados_impl.h"

struct rados_store {
    struct gw_store base;
    struct gw_rados *rados;
    atomic_uint n_refs; /* one of whoever opened it, one of each request and watch */
    atomic_bool ready;  /* io is there */
    rados_ioctx_t io;
    char pool[GW_RBD_PART_MAX + 1];
};

/* librados says -(4095 + offset) when cmpext finds a difference. */
enum { GW_RADOS_MISMATCH = 4095 };

enum { GW_RADOS_OID_BYTES = sizeof "owner." + GW_OWNER_UUID_MAX };

static inline void gw_rados_store_oid(const char *uuid, char oid[GW_RADOS_OID_BYTES])
{
    snprintf(oid, GW_RADOS_OID_BYTES, "owner.%s", uuid);
}

/* For tasks only: opens the pool if need be. 0, or a negative errno with *error. */
int gw_rados_store_ready(struct rados_store *store, struct gw_error *error);

void gw_rados_store_unref(struct rados_store *store);

/* rados_watch.c */
int gw_rados_store_watch(struct gw_store *store, struct gw_store_watch *watch, const char *uuid);
void gw_rados_store_unwatch(struct gw_store *store, struct gw_store_watch *watch);

#endif
