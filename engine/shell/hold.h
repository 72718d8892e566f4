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
    GW_HOLD_KEEP,  /* it goes on, and nothing is on its way: a record of ours is left as it is */
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

/*
 * The guest came back to this node because `theirs`.node promised that it never ran there, but the
 * store did not say whose the record is: a swap to *theirs that is still on its way may take effect
 * at any time. Such a record is void from now on. It is swapped away, or the epoch before it is, as
 * soon as the store answers, also by a daemon that is started after this one.
 */
void gw_hold_settle(struct gw_vm *vm, const struct gw_owner *theirs);

/* Whether this record is the one of gw_hold_settle(): ours, although it names another node. */
bool gw_hold_is_void(const struct gw_vm *vm, const struct gw_owner *record);

/* Stops trying, because the VM goes. Fine where there is nothing to settle. */
void gw_hold_settle_cancel(struct gw_vm *vm);

/* Deletes the record of a guest that ended here, if it is ours; does not wait. */
void gw_hold_release(struct gw_vm *vm);

#endif
