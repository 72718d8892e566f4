/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does an accelerator really run a guest? Decided by running one.
 *
 * /dev/kvm may exist, open, create machines and run real mode, and still be of no use: without
 * virtualisation in hardware, some kernels interpret a guest's supervisor code one instruction at
 * a time. A Linux guest then seems to hang (seen: 3 million instructions a second, 300 to 700
 * times slower than TCG). So the trial starts QEMU with a firmware of one page (accel_payload.S)
 * that enters long mode, runs 40 million instructions, takes 4096 page faults and ten timer
 * interrupts, and leaves with a status that nothing else gives.
 *
 * The limit is one second of processor time. A start of QEMU and the whole trial take 0.06 s under
 * TCG and about as much on a KVM that works; the interpreting KVM that was measured needs 12.9 s:
 * the limit is the geometric middle. It is processor time and not time on the clock, so that a
 * busy node does not lose its KVM; the limit on the clock catches a guest that waits for ever.
 *
 * The result holds until the next boot (or a change of the QEMU binary or of /dev/kvm's rights):
 * callers keep it next to the boot id, and run the trial only when it is first needed.
 */
#ifndef GW_HOST_ACCEL_H
#define GW_HOST_ACCEL_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "godwit/error.h"
#include "host/process.h"

enum {
    GW_ACCEL_TRIAL_CHECK_MS = 100,      /* how often to check a trial that runs */
    GW_ACCEL_TRIAL_CPU_LIMIT_MS = 1000, /* processor time, of all of QEMU's threads */
    GW_ACCEL_TRIAL_LIMIT_MS = 20000,    /* time on the clock */
};

struct gw_accel_trial {
    struct gw_process process; /* the event loop watches process.pidfd */
    char accel[8];             /* "kvm" or "tcg" */
    char dir[PATH_MAX - 16];   /* private directory with the trial's files; "" if there is none */
    uint64_t started_ns;       /* CLOCK_MONOTONIC */
    bool usable;               /* the result, once decided */
    char why[256];             /* one line for people, once decided: how it passed or failed */
};

/* What an empty one looks like: safe to fini. */
#define GW_ACCEL_TRIAL_NONE ((struct gw_accel_trial){.process = {.pidfd = -1}})

/*
 * Starts the trial of "kvm" (or "tcg", to try the trial itself), with files in a new private
 * directory under dir. 0: it runs; 1: decided without running anything, because /dev/kvm is
 * missing or may not be used: trial->usable and why are set; -1: it could not be tried (no QEMU,
 * no space): *e. Whatever it returns, gw_accel_trial_fini() is to be called at the end.
 */
int gw_accel_trial_start(const char *qemu, const char *accel, const char *dir,
                         struct gw_accel_trial *trial, struct gw_error *e);

/*
 * To be called when the pidfd is readable, and every GW_ACCEL_TRIAL_CHECK_MS. 0: decided, usable
 * and why are set, and the process and its files are gone; 1: it still runs. Killing a guest that
 * is too slow may take some milliseconds.
 */
int gw_accel_trial_check(struct gw_accel_trial *trial);

/* Kills what still runs and removes its files; usable and why stay. */
void gw_accel_trial_fini(struct gw_accel_trial *trial);

#endif
