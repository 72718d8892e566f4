/* SPDX-License-Identifier: Apache-2.0 */
#include "transports/hello.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"

#define VERSION 1

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

bool gw_hello_valid(const struct gw_lane_hello *hello)
{
    return hello->n_lanes >= 1 && hello->n_lanes <= GW_LANES_MAX && hello->lane < hello->n_lanes;
}

void gw_hello_encode(const struct gw_lane_hello *hello, uint8_t bytes[GW_HELLO_BYTES])
{
    memcpy(bytes, "GWLN", 4);
    bytes[4] = VERSION;
    bytes[5] = 0;
    put16(bytes + 6, hello->lane);
    put16(bytes + 8, hello->n_lanes);
    put16(bytes + 10, 0);
    memcpy(bytes + 12, hello->migration, sizeof hello->migration);
    memcpy(bytes + 28, hello->secret, sizeof hello->secret);
}

int gw_hello_decode(const uint8_t bytes[GW_HELLO_BYTES], struct gw_lane_hello *hello,
                    struct gw_error *error)
{
    if (memcmp(bytes, "GWLN", 4) != 0)
        return gw_error_set(error, GW_E_PROTOCOL, "what came in is no lane of Godwit");
    if (bytes[4] != VERSION || bytes[5] != 0 || get16(bytes + 10) != 0)
        return gw_error_set(error, GW_E_PROTOCOL, "a lane of version %u, this node knows %u",
                            bytes[4], VERSION);
    hello->lane = get16(bytes + 6);
    hello->n_lanes = get16(bytes + 8);
    memcpy(hello->migration, bytes + 12, sizeof hello->migration);
    memcpy(hello->secret, bytes + 28, sizeof hello->secret);
    if (!gw_hello_valid(hello))
        return gw_error_set(error, GW_E_PROTOCOL, "lane %u of %u makes no sense", hello->lane,
                            hello->n_lanes);
    return 0;
}

void gw_hello_encode_answer(enum gw_hello_verdict verdict, uint8_t bytes[GW_HELLO_ANSWER_BYTES])
{
    memcpy(bytes, "GWLA", 4);
    bytes[4] = VERSION;
    bytes[5] = (uint8_t)verdict;
    put16(bytes + 6, 0);
}

int gw_hello_refused(enum gw_hello_verdict verdict, struct gw_error *error)
{
    if (verdict == GW_HELLO_MISCOUNTED)
        return gw_error_set(error, GW_E_REFUSED,
                            "the other side expects another number of lanes, or has this one");
    return gw_error_set(error, GW_E_REFUSED, "the other side does not expect this lane");
}

int gw_hello_decode_answer(const uint8_t bytes[GW_HELLO_ANSWER_BYTES], struct gw_error *error)
{
    if (memcmp(bytes, "GWLA", 4) != 0)
        return gw_error_set(error, GW_E_PROTOCOL, "what answered is no Godwit");
    if (bytes[4] != VERSION || get16(bytes + 6) != 0)
        return gw_error_set(error, GW_E_PROTOCOL, "an answer of version %u, this node knows %u",
                            bytes[4], VERSION);
    return bytes[5] == GW_HELLO_WELCOME ? 0
                                        : gw_hello_refused((enum gw_hello_verdict)bytes[5], error);
}

/* --- whom a listener lets in ---------------------------------------------------------------- */

static struct gw_guest *find(struct gw_guests *guests, const uint8_t migration[16])
{
    for (unsigned i = 0; i < GW_ARRAY_SIZE(guests->guests); i++) {
        struct gw_guest *guest = &guests->guests[i];

        if (guest->used && memcmp(guest->expected.migration, migration, 16) == 0)
            return guest;
    }
    return NULL;
}

int gw_guests_expect(struct gw_guests *guests, const struct gw_lane_expected *expected)
{
    if (expected->n_lanes < 1 || expected->n_lanes > GW_LANES_MAX ||
        !memchr(expected->peer, '\0', sizeof expected->peer))
        return -EINVAL;
    if (find(guests, expected->migration))
        return -EEXIST;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(guests->guests); i++) {
        if (!guests->guests[i].used) {
            guests->guests[i] = (struct gw_guest){.expected = *expected, .used = true};
            return 0;
        }
    }
    return -ENOSPC;
}

void gw_guests_forget(struct gw_guests *guests, const uint8_t migration[16])
{
    struct gw_guest *guest = find(guests, migration);

    if (guest)
        *guest = (struct gw_guest){0};
}

/* In a time that does not depend on where they differ. */
static bool same_secret(const uint8_t a[16], const uint8_t b[16])
{
    volatile uint8_t difference = 0;

    for (unsigned i = 0; i < 16; i++)
        difference = difference | (a[i] ^ b[i]);
    return difference == 0;
}

enum gw_hello_verdict gw_guests_admit(struct gw_guests *guests, const struct gw_lane_hello *hello,
                                      const char *peer, struct gw_error *error)
{
    struct gw_guest *guest = find(guests, hello->migration);
    const char *name = peer[0] ? peer : "a node without a certificate";

    if (!guest || !same_secret(guest->expected.secret, hello->secret)) {
        gw_error_set(error, GW_E_REFUSED, "%s came with a lane of no migration expected here",
                     name);
        return GW_HELLO_STRANGER;
    }
    if (peer[0] && guest->expected.peer[0] && strcmp(guest->expected.peer, peer) != 0) {
        gw_error_set(error, GW_E_REFUSED, "%s came with a lane, %s was expected", name,
                     guest->expected.peer);
        return GW_HELLO_STRANGER;
    }
    if (hello->n_lanes != guest->expected.n_lanes || guest->seen >> hello->lane & 1) {
        gw_error_set(error, GW_E_REFUSED, "%s came with lane %u of %u, %s", name, hello->lane,
                     hello->n_lanes,
                     hello->n_lanes != guest->expected.n_lanes ? "another number was agreed"
                                                               : "which is there already");
        return GW_HELLO_MISCOUNTED;
    }
    guest->seen |= UINT64_C(1) << hello->lane;
    return GW_HELLO_WELCOME;
}

/* --- refusals to tell of -------------------------------------------------------------------- */

void gw_refusals_add(struct gw_refusals *refusals, const char *address,
                     const struct gw_error *error)
{
    const unsigned max = GW_ARRAY_SIZE(refusals->kept);
    struct gw_lane_refusal *refusal;

    if (refusals->n_kept == max) {
        refusals->first = (refusals->first + 1) % max;
        refusals->n_kept--;
        refusals->n_lost++;
    }
    refusal = &refusals->kept[(refusals->first + refusals->n_kept++) % max];
    snprintf(refusal->address, sizeof refusal->address, "%s", address);
    refusal->error = *error;
}

bool gw_refusals_take(struct gw_refusals *refusals, struct gw_lane_refusal *refusal)
{
    if (refusals->n_kept == 0)
        return false;
    *refusal = refusals->kept[refusals->first];
    refusal->n_lost = refusals->n_lost;
    refusals->n_lost = 0;
    refusals->first = (refusals->first + 1) % GW_ARRAY_SIZE(refusals->kept);
    refusals->n_kept--;
    return true;
}
