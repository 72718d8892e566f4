/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far another node's CLOCK_MONOTONIC is from ours, from round trips over one connection.
 * No clock of its own, no I/O.
 *
 * Each round trip has four times: t0 we send, t1 the peer receives, t2 the peer answers (both by
 * its clock), t3 we receive. As in NTP (RFC 5905, section 8):
 *
 *     offset = ((t1 - t0) + (t2 - t3)) / 2        delay = (t3 - t0) - (t2 - t1)
 *
 * The true offset is within delay / 2 of it, however asymmetric the path. Of the last samples the
 * one with the least delay is taken, aged by the drift that two clocks may have against each
 * other (the clock filter of RFC 5905, section 10, with its PHI of 15 ppm).
 */
#ifndef GW_SHELL_OFFSET_H
#define GW_SHELL_OFFSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GW_OFFSET_SAMPLES 16

/* All zero is an empty filter. */
struct gw_offset {
    struct {
        int64_t at_ns;     /* our clock when the sample was taken */
        int64_t offset_ns; /* peer's clock minus ours */
        int64_t delay_ns;  /* round trip without the peer's own time */
    } samples[GW_OFFSET_SAMPLES];
    size_t n_samples; /* filled slots */
    size_t next;      /* the slot that is overwritten next */
};

/*
 * Adds one round trip. The peer's times are untrusted: true if the sample was taken, false if it
 * is impossible (negative or absurd times, an answer before the question).
 */
bool gw_offset_add(struct gw_offset *o, int64_t t0_ns, int64_t t1_ns, int64_t t2_ns, int64_t t3_ns);

/*
 * The best estimate at our time now_ns: *offset_nsp = peer's clock - ours, wrong by at most
 * *uncertainty_nsp. False, and nothing written, while there is no sample.
 */
bool gw_offset_get(const struct gw_offset *o, int64_t now_ns, int64_t *offset_nsp,
                   int64_t *uncertainty_nsp);

#endif
