/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a lane introduces itself where the transport is a stream of bytes.
 *
 *     connector → listener   44 bytes: "GWLN", version 1, 0, be16 lane, be16 n_lanes, be16 0,
 *                            migration[16], secret[16]
 *     listener → connector    8 bytes: "GWLA", version 1, be8 verdict, be16 0
 *
 * Then both ways whatever the lane carries. A verdict other than 0 ends the lane.
 */
#ifndef GW_TRANSPORTS_HELLO_H
#define GW_TRANSPORTS_HELLO_H

#include "godwit/transport.h"

enum {
    GW_HELLO_BYTES = 44,
    GW_HELLO_ANSWER_BYTES = 8,
};

/* Why a lane was not let in. Numbers are only ever added to. */
enum gw_hello_verdict {
    GW_HELLO_WELCOME = 0,
    GW_HELLO_STRANGER = 1,   /* no such migration, another secret or another node; not told apart */
    GW_HELLO_MISCOUNTED = 2, /* another number of lanes was agreed, or this lane is there already */
};

bool gw_hello_valid(const struct gw_lane_hello *hello);
void gw_hello_encode(const struct gw_lane_hello *hello, uint8_t bytes[GW_HELLO_BYTES]);

/* 0; or -1 with *error (GW_E_PROTOCOL). */
int gw_hello_decode(const uint8_t bytes[GW_HELLO_BYTES], struct gw_lane_hello *hello,
                    struct gw_error *error);

void gw_hello_encode_answer(enum gw_hello_verdict verdict, uint8_t bytes[GW_HELLO_ANSWER_BYTES]);

/* 0 for a welcome; or -1 with *error (GW_E_PROTOCOL, GW_E_REFUSED). */
int gw_hello_decode_answer(const uint8_t bytes[GW_HELLO_ANSWER_BYTES], struct gw_error *error);

/* What a connector hears of a verdict. Returns -1. */
int gw_hello_refused(enum gw_hello_verdict verdict, struct gw_error *error);

/* --- whom a listener lets in ---------------------------------------------------------------- */

struct gw_guests {
    struct gw_guest {
        struct gw_lane_expected expected;
        uint64_t seen; /* a bit a lane */
        bool used;
    } guests[64];
};

/* As of gw_listener_ops. */
int gw_guests_expect(struct gw_guests *guests, const struct gw_lane_expected *expected);
void gw_guests_forget(struct gw_guests *guests, const uint8_t migration[16]);

/* The verdict on a lane of the node peer (""; no certificate): a welcome takes its number. With
 * another, *error for the listener's log. */
enum gw_hello_verdict gw_guests_admit(struct gw_guests *guests, const struct gw_lane_hello *hello,
                                      const char *peer, struct gw_error *error);

/* --- refusals to tell of -------------------------------------------------------------------- */

struct gw_refusals {
    struct gw_lane_refusal kept[8];
    unsigned first, n_kept, n_lost;
};

void gw_refusals_add(struct gw_refusals *refusals, const char *address,
                     const struct gw_error *error);
bool gw_refusals_take(struct gw_refusals *refusals, struct gw_lane_refusal *refusal);

#endif
