/* SPDX-License-Identifier: Apache-2.0 */
/* What every store of owner records promises, whatever it is made of. */
#ifndef GW_TESTS_CONFORMANCE_STORE_H
#define GW_TESTS_CONFORMANCE_STORE_H

#include "godwit/storage.h"

/* A call that the test waits for. */
struct store_wait {
    struct gw_store_call call;
    int result;
    int n_done;
};

/* Each submits, waits until done and returns its result; a refused submission returns its errno
 * minus 10000. Fails the test if done is not called exactly once. */
int store_read(struct gw_store *store, struct store_wait *wait, const char *uuid);
int store_create(struct gw_store *store, struct store_wait *wait, const char *uuid,
                 const char *node, uint64_t epoch, bool may_have_run);
int store_swap(struct gw_store *store, struct store_wait *wait, const char *uuid, const char *node,
               uint64_t epoch, const char *to_node, bool may_have_run);
int store_remove(struct gw_store *store, struct store_wait *wait, const char *uuid,
                 const char *node, uint64_t epoch);

/* Waits for one completion where a store is asynchronous; set by its test. NULL for one that has
 * GW_STORE_BLOCKS. */
extern void (*store_wait_hook)(void);

/* Runs the whole table on an empty store. */
void store_conformance(struct gw_store *store);

#endif
