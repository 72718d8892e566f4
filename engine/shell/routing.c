/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/routing.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "godwit/codec.h"
#include "host/route.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define BYTES     (256u << 10) /* about what the carrier has in a batch */
#define PAGE      4096u
#define ENOUGH_NS (4 * GW_NS_PER_MS)

static uint64_t thread_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * GW_NS_PER_S + (uint64_t)t.tv_nsec;
}

static void make_pages(uint8_t *bytes)
{
    uint64_t word = 1;

    for (unsigned i = 0; i < BYTES; i += sizeof word) {
        if (i % PAGE < PAGE / 2)
            word = word * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(bytes + i, &word, sizeof word);
    }
}

static uint64_t measure(struct gw_codec *codec, uint8_t *pages, uint8_t *encoded)
{
    const struct gw_codec_in in = {pages, BYTES};
    uint64_t began_ns, took_ns, n_bytes = 0;

    make_pages(pages);
    memset(encoded, 0, BYTES); /* its page faults are not the codec's */
    began_ns = thread_ns();
    do {
        struct gw_codec_out out = {.data = encoded, .room = BYTES};

        if (codec->ops->encode(codec, 1, &in, &out) != 0)
            return 0;
        n_bytes += BYTES;
        took_ns = thread_ns() - began_ns;
    } while (took_ns < ENOUGH_NS);
    return (uint64_t)((double)n_bytes * (double)GW_NS_PER_S / (double)took_ns);
}

uint64_t gw_routing_codec(struct gw_routing *routing)
{
    gw_autofree uint8_t *pages = NULL, *encoded = NULL;
    struct gw_codec *codec;

    if (routing->codec_bytes_per_s)
        return routing->codec_bytes_per_s;
    pages = malloc(BYTES);
    encoded = malloc(BYTES);
    if (!pages || !encoded || gw_codec_zstd.open(GW_CODEC_ENCODE, BYTES, &codec) < 0)
        return 0;
    routing->codec_bytes_per_s = measure(codec, pages, encoded);
    gw_codec_zstd.close(codec);
    return routing->codec_bytes_per_s;
}

static int find(const struct gw_routing *routing, const char *peer)
{
    for (int i = 0; i < GW_ROUTING_PEERS; i++)
        if (strcmp(routing->link[i].peer, peer) == 0)
            return i;
    return -1;
}

bool gw_routing_link(const struct gw_routing *routing, const char *peer, uint64_t now_ns,
                     uint64_t *bytes_per_sp)
{
    int i = find(routing, peer);

    if (i < 0 || now_ns - routing->link[i].at_ns > GW_ROUTING_KEEP_NS)
        return false;
    *bytes_per_sp = routing->link[i].bytes_per_s;
    return true;
}

void gw_routing_learn(struct gw_routing *routing, const char *peer, uint64_t now_ns,
                      uint64_t bytes_per_s)
{
    int i = find(routing, peer);

    if (i < 0)
        i = (int)(routing->next++ % GW_ROUTING_PEERS);
    snprintf(routing->link[i].peer, sizeof routing->link[i].peer, "%s", peer);
    routing->link[i].bytes_per_s = bytes_per_s;
    routing->link[i].at_ns = now_ns;
}

static bool has_multifd(const json_t *facts)
{
    json_t *name;
    size_t i;

    json_array_foreach (json_object_get(facts, "capabilities"), i, name)
        if (json_is_string(name) && strcmp(json_string_value(name), "multifd") == 0)
            return true;
    return false;
}

bool gw_routing_choose(struct gw_routing *routing, const char *peer, const json_t *facts,
                       const struct gw_native_wishes *wishes, json_t **inputsp,
                       const char **becausep)
{
    struct gw_route_inputs in = {
        .limit_bytes_per_s = wishes->bandwidth_bytes_per_s,
        .codec_bytes_per_s = gw_routing_codec(routing),
        .n_processors = 1,
        .multifd = has_multifd(facts),
        .all_pages = wishes->all_pages,
    };
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0)
        in.n_processors = (unsigned)CPU_COUNT(&set);
    gw_routing_link(routing, peer, gw_clock_ns(), &in.link_bytes_per_s);
    *inputsp = json_pack("{s:s, s:I, s:I, s:I, s:i}", "wanted", "auto", "link_bytes_per_s",
                         (json_int_t)in.link_bytes_per_s, "limit_bytes_per_s",
                         (json_int_t)in.limit_bytes_per_s, "codec_bytes_per_s",
                         (json_int_t)in.codec_bytes_per_s, "processors", (int)in.n_processors);
    return gw_route_is_carrier(&in, becausep);
}
