/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the destination has the guest's memory as the source has it: with both guests paused all
 * RAM is hashed on both nodes (flow/digest.h), on all processors, and the hashes are compared.
 *
 *     source                                   destination
 *     VERIFY {region_bytes}          ───────▶  hashes all regions, as the source does meanwhile
 *                                    ◀───────  HASHES {blocks: [{name, bytes, hashes}]}
 *     and if some regions differ:
 *     VERIFY {regions: [{block, offset, bytes}]} ─▶  hashes their pages, as the source does
 *                                    ◀───────  HASHES {pages: "…"}
 *
 * hashes is one string of 16 hex digits for each region or page. Either HASHES may be {error}
 * instead. Both messages belong to no machine: to the source's all this is one operation.
 *
 * Each half has threads of its own while it hashes; everything here is called from the loop's
 * thread and nothing blocks it, but that gw_verify_free() waits for the threads, for as long as
 * GW_DIGEST_BUFFER_BYTES take. Handlers are called from the loop, never from inside a call, with
 * the exceptions that are named.
 */
#ifndef GW_SHELL_VERIFY_H
#define GW_SHELL_VERIFY_H

#include <sys/types.h>
#include <event2/event.h>
#include <jansson.h>

#include "godwit/error.h"

struct gw_verify;

struct gw_verify_handler {
    /* This goes to the other node: the source's as VERIFY, the destination's as HASHES. body is
     * borrowed. Also from inside gw_verify_begin() and the two take functions. */
    void (*send)(struct gw_verify_handler *handler, json_t *body);
    /* Source: once after each begin, also from inside gw_verify_take_hashes(). error: NULL if all
     * memory is the same; GW_E_MEMORY if it is not. */
    void (*done)(struct gw_verify_handler *handler, const struct gw_error *error);
};

/* For the QEMU with this pid; see gw_digest_open() for what is needed. The handler is borrowed. 0
 * with *verifyp; -1 with *error. */
int gw_verify_open(struct event_base *base, struct gw_verify_handler *handler, pid_t pid,
                   const char *info_ramblock, struct gw_verify **verifyp, struct gw_error *error);

/* Source, once: both guests are paused and the destination has loaded everything. */
void gw_verify_begin(struct gw_verify *verify);
/* Source: HASHES came. body is borrowed and untrusted. Without a question of ours it is ignored. */
void gw_verify_take_hashes(struct gw_verify *verify, const json_t *body);

/* Destination, whose QEMU has loaded everything: VERIFY came. body is borrowed and untrusted. */
void gw_verify_take_request(struct gw_verify *verify, const json_t *body);

/* {bytes, regions, region_bytes, threads, equal, different_regions, different_pages[{block, page}]}
 * as in the record. equal is null while it is not known. A new reference. */
json_t *gw_verify_to_json(const struct gw_verify *verify);

/* Ends it; no handler is called any more. NULL is fine. */
void gw_verify_free(struct gw_verify *verify);

#endif
