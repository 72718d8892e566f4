/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends QEMU's migration on the source, and waits until QEMU has settled.
 *
 * migrate_cancel only begins to cancel. QEMU has settled when its status is a final one and it has
 * taken its channels apart, which is when its yank instance is gone. Both are seen by asking: there
 * is no event for the second. It matters: a QEMU that has failed, but not cleaned up yet, takes new
 * capabilities, and then leaves the multifd channels of the old ones behind and aborts, guest and
 * all (seen with 10.0.2: "yank_unregister_instance: Assertion").
 *
 * Over a dead link QEMU does not settle by itself: migrate_cancel shuts down its main connection
 * only, and a multifd channel stays in send() until TCP gives up after minutes. `yank` shuts down
 * all of them (qapi/yank.json), so a QEMU that takes its time is yanked. Out of band, because while
 * it sends the device state QEMU holds the lock that every other command waits for, also
 * migrate_cancel, and the guest is paused.
 *
 * In the switchover QEMU is not disturbed before its last SYNC is over, for about 300 ms at most.
 * With several multifd channels it hangs for ever, the lock held and the guest paused, when one of
 * them breaks just then: multifd_send_sync_main() waits for a thread that has ended without telling
 * it (seen with 10.0.2, with gdb). And migrate_cancel breaks them: it shuts down the main
 * connection, on which the destination's QEMU gives up and closes all of them.
 */
#ifndef GW_SHELL_STOP_COPY_H
#define GW_SHELL_STOP_COPY_H

#include <stdbool.h>
#include <stdint.h>
#include <event2/event.h>

#include "godwit/error.h"
#include "shell/qmp_batch.h"
#include "shell/qmp_link.h"

struct gw_stop_copy {
    /* From the loop, once for each start: QEMU has settled; or why that is not known. completed: it
     * had sent all of the guest, and has not run it since. */
    void (*done)(struct gw_stop_copy *stop, bool completed, const struct gw_error *error);
    /* QEMU was yanked; error: and did not take it. For the log. */
    void (*yanked)(struct gw_stop_copy *stop, const struct gw_error *error);
    struct gw_qmp_link *qmp; /* the rest is ours */
    struct gw_qmp_call cancel_call, yank_call;
    struct gw_qmp_batch batch;
    struct event *timer;
    uint64_t began_ns, cancelled_ns; /* 0: not yet */
    bool switching, was_yanked;
    bool asks, waits; /* what comes next: an answer; the timer */
};

/* 0, or -1 without memory. done and yanked are set by the caller. */
int gw_stop_copy_init(struct gw_stop_copy *stop, struct event_base *base);

/* switching: QEMU was told to switch over, and may not have begun. qmp must stay until done, or
 * until gw_stop_copy_gone(). */
void gw_stop_copy_start(struct gw_stop_copy *stop, struct gw_qmp_link *qmp, bool switching);

/* QEMU has ended, and all commands were answered: if it was waited for, done comes before this
 * returns. */
void gw_stop_copy_gone(struct gw_stop_copy *stop, const struct gw_error *error);

/* done will not come any more. Fine on one that is all zeroes. */
void gw_stop_copy_fini(struct gw_stop_copy *stop);

#endif
