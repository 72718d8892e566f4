/* SPDX-License-Identifier: Apache-2.0 */
#include "store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "util/cleanup.h"

#define VM      "0f0e0d0c-1111-2222-3333-444455556666"
#define REFUSED (-10000)

void (*store_wait_hook)(void);

static void on_done(struct gw_store_call *call, int result)
{
    struct store_wait *wait = gw_container_of(call, struct store_wait, call);

    wait->result = result;
    /* Maybe on a thread of the store: whoever sees this sees the result. */
    __atomic_fetch_add(&wait->n_done, 1, __ATOMIC_RELEASE);
}

static void begin(struct store_wait *wait)
{
    memset(wait, 0, sizeof *wait);
    wait->call.done = on_done;
}

static int end(struct store_wait *wait, int submitted)
{
    if (submitted < 0) {
        assert_int_equal(wait->n_done, 0);
        return submitted + REFUSED;
    }
    while (store_wait_hook && __atomic_load_n(&wait->n_done, __ATOMIC_ACQUIRE) == 0)
        store_wait_hook();
    assert_int_equal(wait->n_done, 1);
    return wait->result;
}

static struct gw_owner owner(const char *uuid, const char *node, uint64_t epoch, bool may_have_run)
{
    struct gw_owner made = {.epoch = epoch, .may_have_run = may_have_run};

    memcpy(made.uuid, uuid, strnlen(uuid, sizeof made.uuid - 1));
    memcpy(made.node, node, strnlen(node, sizeof made.node - 1));
    return made;
}

int store_read(struct gw_store *store, struct store_wait *wait, const char *uuid)
{
    begin(wait);
    return end(wait, store->ops->read(store, &wait->call, uuid));
}

int store_create(struct gw_store *store, struct store_wait *wait, const char *uuid,
                 const char *node, uint64_t epoch, bool may_have_run)
{
    struct gw_owner first = owner(uuid, node, epoch, may_have_run);

    begin(wait);
    return end(wait, store->ops->create(store, &wait->call, &first));
}

int store_swap(struct gw_store *store, struct store_wait *wait, const char *uuid, const char *node,
               uint64_t epoch, const char *to_node, bool may_have_run)
{
    struct gw_owner from = owner(uuid, node, epoch, false);
    struct gw_owner to = owner("", to_node, 0, may_have_run);

    begin(wait);
    return end(wait, store->ops->swap(store, &wait->call, &from, &to));
}

int store_remove(struct gw_store *store, struct store_wait *wait, const char *uuid,
                 const char *node, uint64_t epoch)
{
    struct gw_owner gone = owner(uuid, node, epoch, false);

    begin(wait);
    return end(wait, store->ops->remove(store, &wait->call, &gone));
}

enum op { READ, CREATE, SWAP, REMOVE, SWEEP };

/* One after the other, on one VM. now: the record that must be read afterwards; no node: none. */
static const struct row {
    const char *story;
    enum op op;
    const char *node;
    uint64_t epoch;
    const char *to;
    bool run;
    int result;
    struct {
        const char *node;
        uint64_t epoch;
        bool run;
    } now;
} rows[] = {
    {"nothing there", READ, "", 0, "", 0, GW_OWNER_ABSENT, {0}},
    {"nothing to swap", SWAP, "a", 1, "b", 0, GW_OWNER_ABSENT, {0}},
    {"nothing to remove", REMOVE, "a", 1, "", 0, GW_OWNER_ABSENT, {0}},
    {"epoch 0 is none", CREATE, "a", 0, "", 1, REFUSED - EINVAL, {0}},
    {"a node needs a name", CREATE, "", 1, "", 1, REFUSED - EINVAL, {0}},
    {"no path as a node", CREATE, "../x", 1, "", 1, REFUSED - EINVAL, {0}},
    {"no dot in front", CREATE, ".x", 1, "", 1, REFUSED - EINVAL, {0}},
    {"the VM starts", CREATE, "a", 1, "", 1, 0, {"a", 1, 1}},
    {"only once", CREATE, "b", 1, "", 1, GW_OWNER_CONFLICT, {"a", 1, 1}},
    {"wrong node", SWAP, "b", 1, "b", 0, GW_OWNER_CONFLICT, {"a", 1, 1}},
    {"from the future", SWAP, "a", 2, "b", 0, -ESTALE, {"a", 1, 1}},
    {"evidence stays", SWAP, "a", 1, "a", 0, -EINVAL, {"a", 1, 1}},
    {"to no name", SWAP, "a", 1, "b/c", 0, REFUSED - EINVAL, {"a", 1, 1}},
    {"commit", SWAP, "a", 1, "b", 0, 0, {"b", 2, 0}},
    {"reclaim too late", SWAP, "a", 1, "a", 1, GW_OWNER_CONFLICT, {"b", 2, 0}},
    {"let it run", SWAP, "b", 2, "b", 1, 0, {"b", 3, 1}},
    {"undo too late", SWAP, "b", 2, "a", 1, GW_OWNER_CONFLICT, {"b", 3, 1}},
    {"back, in one step", SWAP, "b", 3, "a.long-name_1", 1, 0, {"a.long-name_1", 4, 1}},
    {"remove what was", REMOVE, "b", 3, "", 0, GW_OWNER_CONFLICT, {"a.long-name_1", 4, 1}},
    {"sweeping harms nothing", SWEEP, "", 0, "", 0, 0, {"a.long-name_1", 4, 1}},
    {"remove", REMOVE, "a.long-name_1", 4, "", 0, 0, {0}},
    {"again, later epoch", CREATE, "b", 9, "", 0, 0, {"b", 9, 0}},
    {"remove again", REMOVE, "b", 9, "", 0, 0, {0}},
    {"the last epoch", CREATE, "b", UINT64_MAX, "", 0, 0, {"b", UINT64_MAX, 0}},
    {"has no next", SWAP, "b", UINT64_MAX, "a", 0, REFUSED - EOVERFLOW, {"b", UINT64_MAX, 0}},
    {"and goes", REMOVE, "b", UINT64_MAX, "", 0, 0, {0}},
};

static int perform(struct gw_store *store, struct store_wait *wait, const struct row *row)
{
    switch (row->op) {
    case READ: return store_read(store, wait, VM);
    case CREATE: return store_create(store, wait, VM, row->node, row->epoch, row->run);
    case SWAP: return store_swap(store, wait, VM, row->node, row->epoch, row->to, row->run);
    case REMOVE: return store_remove(store, wait, VM, row->node, row->epoch);
    case SWEEP: begin(wait); return end(wait, store->ops->sweep(store, &wait->call));
    }
    return 0;
}

static void same(const struct gw_owner *found, const struct row *row)
{
    assert_string_equal(found->uuid, VM);
    assert_string_equal(found->node, row->now.node);
    assert_int_equal(found->epoch, row->now.epoch);
    assert_int_equal(found->may_have_run, row->now.run);
    assert_true(found->updated_at_ms > UINT64_C(1500000000000));
}

void store_conformance(struct gw_store *store)
{
    static const char *const no_uuids[] = {"",
                                           "..",
                                           "0f0e0d0c-1111-2222-3333-44445555666",
                                           "0F0E0D0C-1111-2222-3333-444455556666",
                                           "0f0e0d0c-1111-2222-3333-4444555566667",
                                           "../e0d0c-1111-2222-3333-444455556666"};
    struct store_wait wait;

    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        int result = perform(store, &wait, &rows[i]);

        if (result != rows[i].result)
            fail_msg("%s: %d instead of %d: %s", rows[i].story, result, rows[i].result,
                     wait.call.error.msg);
        if (result == GW_OWNER_CONFLICT || (result == 0 && rows[i].op < REMOVE))
            same(&wait.call.current, &rows[i]);
        result = store_read(store, &wait, VM);
        assert_int_equal(result, rows[i].now.node ? 0 : GW_OWNER_ABSENT);
        if (result == 0)
            same(&wait.call.current, &rows[i]);
    }
    for (size_t i = 0; i < GW_ARRAY_SIZE(no_uuids); i++)
        assert_int_equal(store_read(store, &wait, no_uuids[i]), REFUSED - EINVAL);
}
