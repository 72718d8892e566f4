/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which codec, level and delta the next batch gets.
 *
 * Goal: pages per second. Workers and link work side by side, so of a setting with c ns of CPU and
 * g bytes on the wire per byte of pages, n workers and a link of L bytes/ns make one byte of pages
 * in max(c / n, g / L) ns. The best plan is a setting for which that is least, or a mix of two with
 * which both are equal, so that neither workers nor link wait. Where more CPU would not make it
 * faster, the plan that takes least CPU wins.
 *
 * c and g are measured batch by batch; for settings not used lately they are estimated from those
 * that were, by the ratios in a table in pace.c. Now and then a batch is sent with a neighbour of
 * the plan, to keep the estimates honest. A plan is only given up for one that is clearly better
 * (5 % less time, or the same with 30 % less CPU), so noise does not make it flutter.
 *
 * This is arithmetic: no clock, no I/O, no allocation, and the same calls give the same answers.
 * One thread owns a pace; the workers' figures come to it as samples.
 *
 * Without delta a page is forgotten by the history and costs all of itself when it is sent again.
 * So this setting is only chosen where delta has turned out to gain less than it takes with pages
 * that were sent again, and never tried out. What the first round says is nothing: all is new in
 * it.
 *
 * It does not know the destination's CPU: that of zstd's decoder is a fifth of the encoder's, and
 * where it holds up the lanes, the measured lane rate says so.
 */
#ifndef GW_FLOW_PACE_H
#define GW_FLOW_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "flow/batch.h"

#define GW_PACE_RUNGS 8 /* settings on the ladder, from least CPU to most */

struct gw_pace_options {
    bool delta;    /* whether a delta may be used: there is a history and the policy wants it */
    int level_max; /* of zstd; 0: no codec at all */
    /* The policy names one setting: no other is ever used, and there are no decisions. */
    bool fixed;
    struct gw_batch_setting fixed_setting;
};

/* One batch, as a worker encoded it. */
struct gw_pace_sample {
    struct gw_batch_setting setting; /* the one asked for */
    struct gw_batch_figures figures; /* as gw_batch_encode() gave them */
    /* Of the worker, by the wall's clock: to read the pages, encode and hand over, without waiting
     * for pages or lane. So processors that are shared look like slower ones. */
    uint64_t work_ns;
};

struct gw_pace_inputs {
    /* What all lanes together take at present (flow/rate.h); 0: not known yet, nothing changes. */
    uint64_t lane_bytes_per_s;
    unsigned n_workers; /* at least 1 */
    bool first_round;   /* no page has been sent before: what delta is worth is not known yet */
    /* The guest is paused: nothing is tried out, and the better plan is taken at once. */
    bool last_round;
};

/* A plan: of 16 batches n_more have the setting more, the others less. */
struct gw_pace_plan {
    uint8_t less, more; /* rungs */
    uint8_t n_more;     /* 0 to 16; 0: less alone */
};

/* A switch, for the record. */
struct gw_pace_decision {
    struct gw_pace_inputs inputs;
    double pages_bytes_per_s;         /* expected from the new plan */
    double instead_pages_bytes_per_s; /* expected from the old one */
    char chosen[80];                  /* "zstd 1, delta", or with a share: "… for 10 of 16" */
    char instead_of[80];
    char because[160];
};

/* Private to pace.c. */
struct gw_pace_rung {
    bool allowed;
    double cost, power; /* measured against the table; running means */
    unsigned n;         /* samples, counted up to MEMORY */
    uint64_t at;        /* number of the last sample */
};

/* All members are private to pace.c. A plain value, nothing to free. */
struct gw_pace {
    struct gw_pace_options options;
    struct gw_pace_rung rungs[GW_PACE_RUNGS];
    struct gw_pace_rung all; /* of all rungs together */
    bool again;              /* the first round is over */
    double literal_share;    /* literal bytes in a byte of pages, with delta, in rounds like this */
    unsigned n_literal_share; /* samples, counted up to MEMORY */
    struct gw_pace_plan plan;
    bool last_round;
    uint64_t n_samples, n_asked, reviewed_at;
    unsigned carry; /* batches owed to plan.more, in sixteenths */
};

/* Begins with zstd 1 and delta, or what the options allow of that. 0; -EINVAL where they allow
 * nothing: a level_max or a fixed setting that is not legal. */
int gw_pace_init(struct gw_pace *pace, const struct gw_pace_options *options);

/* The setting for the next batch. */
void gw_pace_next(struct gw_pace *pace, struct gw_batch_setting *setting);

/* Takes the figures of a batch; batches without content or without time say nothing. */
void gw_pace_sample(struct gw_pace *pace, const struct gw_pace_sample *sample);

/* Thinks again; call it some twenty times a second, and when the last round begins. Returns 1 and
 * fills *decision if the plan is another from now on, otherwise 0. */
int gw_pace_review(struct gw_pace *pace, const struct gw_pace_inputs *inputs,
                   struct gw_pace_decision *decision);

#endif
