/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A policy: how one migration may behave, as a small YAML file.
 *
 *     name: gentle                 must be the file's name without .yaml
 *     description: one line        shown where policies are listed
 *     bandwidth: 500mbit           see gw_policy_parse_rate(); 0 or "unlimited" for no limit
 *     blackout_ms: 200
 *     channels: 2
 *     codec: auto                  auto, none or zstd
 *     route: auto                  auto, native or carrier
 *     zstd_level: 1
 *     timeout_s: 0
 *     on_timeout: cancel
 *     fence_after_s: 0
 *     prefault: false               true or false
 *
 * Only the name is required; what is absent has gw_policy_default()'s value.
 */
#ifndef GW_HOST_POLICY_H
#define GW_HOST_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "godwit/error.h"

#define GW_POLICY_NAME_MAX        63
#define GW_POLICY_DESCRIPTION_MAX 200
#define GW_POLICY_CHANNELS_MAX    64

/* auto: as the link and the processors allow, see host/route.h. */
enum gw_policy_route { GW_POLICY_ROUTE_AUTO, GW_POLICY_ROUTE_NATIVE, GW_POLICY_ROUTE_CARRIER };

/* auto: what suits the route, see gw_native_settle() in host/negotiate.h. */
enum gw_policy_codec { GW_POLICY_CODEC_AUTO, GW_POLICY_CODEC_NONE, GW_POLICY_CODEC_ZSTD };

/* What happens when timeout_s is over and the guest has not moved. */
enum gw_policy_on_timeout { GW_POLICY_ON_TIMEOUT_CANCEL };

/* A plain value: copy it as you like, nothing to free. */
struct gw_policy {
    char name[GW_POLICY_NAME_MAX + 1];
    char description[GW_POLICY_DESCRIPTION_MAX + 1];
    /* What all channels together may send; 0: no limit. */
    uint64_t bandwidth_bytes_per_s;
    /*
     * How long the last pages may take to send, 1 to 60000: QEMU's downtime-limit. QEMU compares it
     * with its estimate for the last pages only; saving and loading devices, resuming and the
     * network come on top (30 to 100 ms measured). The default of 200 instead of QEMU's 300 keeps
     * what a user feels near 300 ms, and the pause itself at TCP's smallest retransmission timeout,
     * so that a connection loses at most one retransmission to it. Below 100 busy guests need many
     * more rounds.
     */
    unsigned blackout_ms;
    /* multifd channels, 1 to GW_POLICY_CHANNELS_MAX; 0: what suits the route, see
     * gw_native_settle() in host/negotiate.h. */
    unsigned channels;
    enum gw_policy_route route;
    enum gw_policy_codec codec;
    unsigned zstd_level; /* of QEMU's own compression, 1 to 20; the carrier chooses its level */
    unsigned timeout_s;  /* from the start of the first round; 0: none; at most a week */
    enum gw_policy_on_timeout on_timeout;
    /* When the guest has run on the destination for so long and the source still does not answer,
     * its QEMU is fenced, see shell/fence.h; 0: never. At most an hour. */
    unsigned fence_after_s;
    bool prefault; /* the destination takes all of the guest's RAM before the copy: host/prefault.h
                    */
};

/* The built-in "default", the same as policies/presets/default.yaml. */
void gw_policy_default(struct gw_policy *policy);

/*
 * The policy of this name: NAME.yaml in the first of n_dirs directories that has it; "default" is
 * built in where none has. Returns 0, or -1 with GW_E_USAGE (not a policy's name at all),
 * GW_E_NOT_FOUND (the hint lists those that exist), GW_E_CONFIG (the file has an error; file and
 * line are in the message) or GW_E_SYSTEM. Blocks on the file system.
 */
int gw_policy_load(const char *name, const char *const dirs[], size_t n_dirs,
                   struct gw_policy *policy, struct gw_error *e);

/* The same from text that was already read; file only appears in messages. */
int gw_policy_parse(const char *text, size_t len, const char *file, struct gw_policy *policy,
                    struct gw_error *e);

/*
 * Puts the members that a request may carry over the policy's own: bandwidth (a number of bytes/s
 * or a string), blackout_ms, channels, codec, route, zstd_level, timeout_s, fence_after_s,
 * prefault. Members of other names are somebody else's and left alone; so is a null. Returns 0, or
 * -1 with GW_E_USAGE naming the member, and then *policy is unchanged.
 */
int gw_policy_override(struct gw_policy *policy, const json_t *request, struct gw_error *e);

/* The policy as a JSON object (a new reference), members named as in the file, channels null where
 * it says nothing of them; NULL without memory. */
json_t *gw_policy_to_json(const struct gw_policy *policy);

/* [{name, description}, …] of the policies that exist, by name (a new reference). A file with an
 * error has "error" in place of description. NULL without memory. */
json_t *gw_policy_list(const char *const dirs[], size_t n_dirs);

/*
 * Bytes/s from text: a whole number or one with up to three decimals, and a unit: B KiB MiB GiB
 * TiB, kB MB GB TB (with or without "/s"), bit kbit mbit gbit (bits/s, decimal as tc and link
 * speeds have it). A bare number is bytes/s; "0" and "unlimited" are 0. Units may be in any case.
 * Returns 0, or -1 for text that is none of that, or for what does not fit 2^62.
 */
int gw_policy_parse_rate(const char *text, uint64_t *bytes_per_sp);

/* "auto", "none", "zstd". */
const char *gw_policy_codec_name(enum gw_policy_codec codec);

/* "auto", "native", "carrier". */
const char *gw_policy_route_name(enum gw_policy_route route);

#endif
