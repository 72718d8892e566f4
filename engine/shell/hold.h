/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes hold of the owner record for a guest that is on this node: makes sure that there is one and
 * that it says this node. Before a guest is started, when it is adopted, and before it moves.
 */
#ifndef GW_SHELL_HOLD_H
#define GW_SHELL_HOLD_H

#include "shell/owners.h"
#include "shell/vm.h"

enum gw_hold_how {
    GW_HOLD_RENEW, /* a new life begins: a record of ours is swapped, so that whatever is still on
                      its way from the last life comes too late */
    GW_HOLD_KEEP,  /* it goes on: a record of ours is left as it is */
    GW_HOLD_LOOK,  /* the same, and where there is none, none is made */
};

struct gw_hold {
    /* From the loop, once. error NULL: vm->owner is the record, or epoch 0 where there is none,
     * because this node has no store, no name yet, or only looked. */
    void (*done)(struct gw_hold *hold, const struct gw_error *error);
    struct gw_owner_call call;
    struct gw_vm *vm;
    enum gw_hold_how how;
};

/* hold->done is set by the caller and comes in any case, maybe before this returns. The VM must not
 * be freed before: gw_hold_cancel(). */
void gw_hold_take(struct gw_hold *hold, struct gw_vm *vm, enum gw_hold_how how);

/* done will not come any more. Fine on one that is all zeroes. */
void gw_hold_cancel(struct gw_hold *hold);

/* Deletes the record of a guest that ended here, if it is ours; does not wait. */
void gw_hold_release(struct gw_vm *vm);

/*
 * The guest goes on here although nobody knows what its record says: `node` promised that it never
 * ran there, and no store answered. Tries every 5 s, also after a restart of the daemon, until the
 * record says this node again. The VM needs saving afterwards.
 */
void gw_hold_repair(struct gw_vm *vm, const char *node);

/* No more tries. */
void gw_hold_repair_free(struct gw_vm *vm);

#endif
