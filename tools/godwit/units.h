/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantities as people write and read them. Printing: `gw_units_bytes(n).text` lives until the end
 * of the full expression it stands in. A negative quantity is one that is not known: "-".
 */
#ifndef GW_GODWIT_UNITS_H
#define GW_GODWIT_UNITS_H

#include <stdbool.h>
#include <stdint.h>

struct gw_units {
    char text[32];
};

/* "512 B", "820 MiB", "1.5 GiB". */
struct gw_units gw_units_bytes(int64_t bytes);

/* "118 MiB/s". */
struct gw_units gw_units_rate(int64_t bytes_per_s);

/* "34 ms", "3.42 s", "2 min 5 s", "1 h 3 min". */
struct gw_units gw_units_ms(int64_t ms);

/*
 * A rate to bytes per second: a number with kbit, mbit, gbit (powers of 1000, as links are sold),
 * KB, MB, GB (1000) or KiB, MiB, GiB (1024), with or without "/s", in any case but for the B of
 * bytes. A bare number is refused: half the world would take it for bits. False on anything else
 * and on 0.
 */
bool gw_units_parse_rate(const char *text, uint64_t *bytes_per_sp);

/* A duration to milliseconds: a number with ms, s, m, min, h or d; a bare one is taken times
 * bare_ms. False on anything else. */
bool gw_units_parse_duration(const char *text, uint64_t bare_ms, uint64_t *msp);

#endif
