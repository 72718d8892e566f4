/* SPDX-License-Identifier: Apache-2.0 */
/* What every transport promises, whatever it is made of and whatever is wrapped around it; and the
 * two sides with which tests of single transports go on. */
#ifndef GW_TESTS_CONFORMANCE_TRANSPORT_H
#define GW_TESTS_CONFORMANCE_TRANSPORT_H

#include "godwit/transport.h"

enum { SIDE_LANES = 4, WAIT_S = 20 };

struct transport_case {
    const char *name;
    const char *listen_uri;
    const char *connect_uri; /* with %u for the port, or without */
    enum gw_lane_tls tls;    /* what a lane must say: PLAIN, or one of the others */
    size_t volume;           /* bytes to move each way in the long tests */
    uint64_t bound;          /* bytes that can be handed over to a reader that takes none */
};

/* A transfer that knows how often it has come back. */
struct box {
    struct gw_transfer transfer;
    struct iovec iov[8];
    int n_done;
};

/* Both ends of one migration in one thread. */
struct sides {
    struct gw_transport_env envs[2]; /* 0 connects, 1 listens; set by the test program */
    const struct transport_case *rules;
    struct gw_transport *transports[2];
    struct gw_listener *listener;
    struct gw_lane *lanes[2][SIDE_LANES];
    unsigned n_lanes;
    struct gw_lane_expected expected;
    uint64_t fake_ns;     /* not 0: the time, which nobody waits for */
    unsigned n_submitted; /* transfers */
    unsigned n_done;
};

/* Opens both transports and the listener, and expects n_lanes. */
void sides_open(struct sides *sides, const struct transport_case *rules, unsigned n_lanes);

/* The same, and then all lanes are open. */
void sides_up(struct sides *sides, const struct transport_case *rules, unsigned n_lanes);

/* The hello that the listener expects of a lane. */
struct gw_lane_hello sides_hello(const struct sides *sides, unsigned lane);

/* Starts to connect one lane; NULL where that fails at once. */
struct gw_lane *sides_connect(struct sides *sides, const struct gw_lane_hello *hello);

/* Polls all lanes and the listener for at most so long and lets them move; accepts. */
void sides_turn(struct sides *sides, unsigned max_ms);

/* Turns until the condition, an expression, holds. */
#define sides_until(sides, condition)                                                    \
    do {                                                                                 \
        uint64_t sides_limit = sides_clock_ns() + WAIT_S * UINT64_C(1000000000);         \
        while (!(condition)) {                                                           \
            if (sides_clock_ns() > sides_limit)                                          \
                fail_msg("%s: waited in vain for %s", (sides)->rules->name, #condition); \
            sides_turn(sides, 100);                                                      \
        }                                                                                \
    } while (0)

uint64_t sides_clock_ns(void);

enum gw_lane_state lane_state(struct gw_lane *lane);

/* Submit one piece; assert that it is accepted. */
void box_send(struct sides *sides, struct gw_lane *lane, struct box *box, const void *bytes,
              size_t n_bytes);
void box_receive(struct sides *sides, struct gw_lane *lane, struct box *box, void *bytes,
                 size_t n_bytes, size_t min_bytes);

/* Frees everything and asserts that each transfer has come back, once. */
void sides_down(struct sides *sides);

/* Runs the whole table. envs: of the connecting and the listening side. */
void transport_conformance(const struct gw_transport_env envs[2],
                           const struct transport_case *rules);

#endif
