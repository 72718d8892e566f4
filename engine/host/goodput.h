/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast the carrier really takes a guest's pages over, for QEMU's estimate of the switchover.
 *
 * QEMU pauses the guest when what is left fits into downtime-limit at the rate that it has measured
 * over its last 100 ms: its own bytes in the time that went by, also the time in which it had
 * nothing to send, and with what the carrier's buffers took at once. With
 * avail-switchover-bandwidth (QEMU 8.2) it is told the rate instead (migration_update_counters()
 * in migration/migration.c).
 *
 * The rate is bytes of pages that are not zero, as QEMU counts them, per second in which the
 * carrier had pages to work on. It is damped: half of each new measurement counts, one that is
 * lower all of it, because a pause that is longer than promised is worse than a round more.
 */
#ifndef GW_HOST_GOODPUT_H
#define GW_HOST_GOODPUT_H

#include <stdbool.h>
#include <stdint.h>

/* A measurement needs so much work, and so many bytes or so much more work: bytes come by the
 * packet, half a MiB at once. */
#define GW_GOODPUT_MIN_NS    UINT64_C(20000000)
#define GW_GOODPUT_MIN_BYTES (UINT64_C(4) << 20)
#define GW_GOODPUT_ENOUGH_NS UINT64_C(400000000)

/* Embedded by the caller, zeroed to begin with; the fields are private. */
struct gw_goodput {
    uint64_t bytes_then, worked_then_ns; /* of the last measurement */
    uint64_t bytes_per_s;                /* damped; 0: nothing is known yet */
    uint64_t told_bytes_per_s;
};

/*
 * Totals since the beginning. True: QEMU is to be told gw_goodput's *bytes_per_sp from now on,
 * which differs by a fifth or more from what it was told last (*instead_ofp; 0: nothing).
 */
bool gw_goodput_take(struct gw_goodput *g, uint64_t bytes, uint64_t worked_ns,
                     uint64_t *bytes_per_sp, uint64_t *instead_ofp);

#endif
