/* SPDX-License-Identifier: Apache-2.0 */
/* Between the engine (rados_load.c) and the module godwit-rbd.so (rados.c, rados_store.c, rbd.c):
 * the functions of rados.h and rbd.h as the module has them. */
#ifndef GW_STORAGE_RADOS_MODULE_H
#define GW_STORAGE_RADOS_MODULE_H

#include "storage/rbd.h"

struct gw_rados_module {
    const char *version; /* of Godwit: engine and module come from one build */
    int (*open)(const struct gw_rados_options *options, struct gw_rados **radosp,
                struct gw_error *error);
    void (*close)(struct gw_rados *rados);
    int (*store_open)(struct gw_rados *rados, const char *pool, struct gw_store **storep,
                      struct gw_error *error);
    int (*fence)(struct gw_rados *rados, struct gw_rados_call *call, const char *address,
                 unsigned seconds);
    int (*facts)(struct gw_rados *rados, struct gw_rados_call *call,
                 const struct gw_rbd_spec *spec);
    int (*await_locks)(struct gw_rados *rados, struct gw_rados_call *call,
                       const struct gw_rbd_spec *specs, const struct gw_rbd_lock *locks, size_t n,
                       unsigned limit_ms);
};

/* The module's one symbol. */
#define GW_RADOS_MODULE_SYMBOL "gw_rados_module"
#define GW_RADOS_MODULE_FILE   "godwit-rbd.so"

#endif
