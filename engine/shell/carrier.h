/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The carrier: one node's half of the way that a guest's memory takes on the route "carrier".
 *
 *     QEMU ==unix sockets==> source ==lanes==> destination ==> guest RAM, and what is left to QEMU
 *
 * QEMU on the source connects to a unix socket of the source's carrier as if that were the
 * destination: once for its main channel and once for each multifd channel. Each of these
 * connections has a lane of its own (godwit/transport.h): channel k lane k, the main channel the
 * last one. At the destination each lane ends at a connection to the unix socket of the QEMU there.
 * What travels on a lane is in flow/frame.h, what is done with pages in flow/sender.h and
 * flow/receiver.h.
 *
 * Threads. Each connection has one at either end, the destination's listener one more. They share
 * what struct gw_carrier holds under its lock, the barrier and the RAM. Everything here is called
 * from the loop's thread; nothing blocks it, but that gw_carrier_free() waits for the threads, for
 * as long as one batch takes.
 *
 * The first error ends all lanes, so that the other node's carrier fails, too, and the handler is
 * told. The destination's QEMU finds its connections closed. The source's does not: it waits until
 * gw_carrier_stop(), see there.
 */
#ifndef GW_SHELL_CARRIER_H
#define GW_SHELL_CARRIER_H

#include <stdbool.h>
#include <stdint.h>
#include <event2/event.h>
#include <jansson.h>
#include <openssl/ssl.h>

#include "flow/ram.h"
#include "flow/sender.h"
#include "godwit/error.h"
#include "godwit/transport.h"

/* What the carriers of both nodes speak; in PREPARED. */
#define GW_CARRIER_VERSION       2
#define GW_CARRIER_TRANSPORT_MAX 200
/* Of guest RAM, for the history. */
#define GW_CARRIER_HISTORY_PERCENT 8

struct gw_carrier;

struct gw_carrier_handler {
    /* From the loop, at most once; error is borrowed. All lanes are ending. */
    void (*failed)(struct gw_carrier_handler *handler, const struct gw_error *error);
};

/* What both ends are given; all is copied, but that the handler is borrowed. */
struct gw_carrier_options {
    struct event_base *base;
    struct gw_carrier_handler *handler;
    SSL_CTX *tls;
    /* "[WRAPPER+]…tcp[?KEY=VALUE&…]": a transport's URI without an address. */
    const char *transport;
    const char *host; /* numeric: where the destination's lanes end */
    const char *peer; /* the other node's name, as in its certificate */
    const char *id;   /* of the migration */
    uint8_t secret[16];
    unsigned n_channels;     /* of multifd; 1 to GW_LANES_MAX - 1 */
    const char *socket_path; /* source: made here; destination: where QEMU listens */
};

/* Checks a transport as it stands in the options. 0; -1 with GW_E_USAGE. */
int gw_carrier_check_transport(const char *transport, struct gw_error *error);

/* The destination's half. RAM is taken in any case. It listens on the first free port of
 * [port_min, port_max], which gw_carrier_port() tells. 0 with *carrierp; -1 with *error. */
int gw_carrier_new_destination(const struct gw_carrier_options *options, struct gw_ram *ram,
                               uint16_t port_min, uint16_t port_max, struct gw_carrier **carrierp,
                               struct gw_error *error);

struct gw_carrier_source {
    uint16_t port;
    uint64_t bandwidth_bytes_per_s; /* what the lanes may send together; 0: no limit */
    bool zstd;     /* the codec may be zstd; at which level is decided by measure */
    int level_max; /* of zstd */
    /* What the destination offered, and the histories. Taken in any case. */
    struct gw_sender_ram *ram;
};

/* The source's half: QEMU may connect to options->socket_path from now on, and each lane is
 * connected when its channel is. 0 with *carrierp; -1 with *error. */
int gw_carrier_new_source(const struct gw_carrier_options *options,
                          const struct gw_carrier_source *source, struct gw_carrier **carrierp,
                          struct gw_error *error);

uint16_t gw_carrier_port(const struct gw_carrier *carrier);

/* Source: what the lanes may send together from now on (they take notice within 10 ms); 0: no
 * limit. 0; -1 with *error. */
int gw_carrier_set_bandwidth(struct gw_carrier *carrier, uint64_t bytes_per_s,
                             struct gw_error *error);

/* The guest is paused: from now on only time counts. */
void gw_carrier_last_round(struct gw_carrier *carrier);

/* {lanes, encryption, wire_bytes, raw_bytes, history_bytes, pages{…}, …} as in the record, and the
 * wire bytes by themselves. raw_bytes: of the pages that QEMU sent, zero pages excepted. */
json_t *gw_carrier_to_json(struct gw_carrier *carrier);
uint64_t gw_carrier_wire_bytes(struct gw_carrier *carrier);

/* Totals for host/goodput.h: bytes of pages that are not zero, and how long any channel has worked
 * on pages, which is without waiting for QEMU. */
void gw_carrier_work(struct gw_carrier *carrier, uint64_t *bytesp, uint64_t *worked_nsp);

/* Decisions since the last call, for gw_record_decisions(). A new reference. At most a fixed number
 * in a carrier's life; later ones are only counted. */
json_t *gw_carrier_take_decisions(struct gw_carrier *carrier);

/*
 * Ends all lanes at once; the handler is not told any more. At the source QEMU's connections stay:
 * what comes over them is thrown away, so that QEMU neither waits nor finds them broken (see
 * shell/stop_copy.h). Twice is fine, NULL too.
 */
void gw_carrier_stop(struct gw_carrier *carrier);

/* Stops, closes QEMU's connections, waits for the threads, and removes socket_path. NULL is fine.
 */
void gw_carrier_free(struct gw_carrier *carrier);

#endif
