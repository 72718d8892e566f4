/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/pace.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    SHARES = 16,
    PROBE_EVERY = 128,  /* batches; 64 MiB of pages */
    REVIEW_AFTER = 32,  /* samples since the last switch */
    FORGET_AFTER = 512, /* samples, after which a rung's own figures count half */
    MEMORY = 32,        /* batches that a running mean remembers; 16 MiB of pages */
};

#define NEARLY_ALL 0.75 /* of what is sent again is new: there is little to lose without delta */

/*
 * What a setting is like where nothing was measured yet. CPU for each byte of pages (zero check,
 * hashes, checksum, copy), CPU for each literal byte (the codec), and bytes on the wire for each
 * literal byte. On the machine of docs/architecture.md's figures, real guests; only the ratios
 * between the lines matter.
 */
static const struct {
    const char *name;
    struct gw_batch_setting setting;
    double page_ns, literal_ns, ratio;
} ladder[GW_PACE_RUNGS] = {
    {"none", {0, 0, false}, 0.4, 0.2, 1},
    {"none, delta", {0, 0, true}, 0.7, 0.2, 1},
    {"zstd -5, delta", {1, -5, true}, 0.7, 1.9, 0.40},
    {"zstd -3, delta", {1, -3, true}, 0.7, 2.3, 0.36},
    {"zstd -1, delta", {1, -1, true}, 0.7, 3.0, 0.32},
    {"zstd 1, delta", {1, 1, true}, 0.7, 4.2, 0.28},
    {"zstd 3, delta", {1, 3, true}, 0.7, 9.7, 0.26},
    {"zstd 6, delta", {1, 6, true}, 0.7, 23, 0.25},
};

/*
 * What is measured of a rung is how many times the table's CPU it takes, and by which power of the
 * table's ratio it shortens: 1 as in the table, 0 not at all. Both tell something of the other
 * rungs, too: what one level cannot shorten, another cannot either.
 */

/* What a byte of pages costs. */
struct price {
    double cpu_ns, wire_bytes;
};

static bool same(const struct gw_batch_setting *a, const struct gw_batch_setting *b)
{
    return a->codec == b->codec && a->level == b->level && a->delta == b->delta;
}

static int rung_of(const struct gw_batch_setting *setting)
{
    for (int i = 0; i < GW_PACE_RUNGS; i++)
        if (same(&ladder[i].setting, setting))
            return i;
    return -1;
}

/* Without delta a page is forgotten, and costs all of itself when it is sent again. So that is no
 * choice before it is known that a delta gains little with pages that are sent again. */
static bool usable(const struct gw_pace *pace, unsigned rung, const struct gw_pace_inputs *in)
{
    return pace->rungs[rung].allowed && (ladder[rung].setting.delta || !pace->options.delta ||
                                         (!in->first_round && pace->n_literal_share == MEMORY &&
                                          pace->literal_share > NEARLY_ALL));
}

static bool legal(const struct gw_batch_setting *setting)
{
    const struct gw_codec_ops *ops = gw_codec_by_id(setting->codec);

    return ops && setting->level >= ops->level_min && setting->level <= ops->level_max &&
           (setting->level != 0 || ops->level_max == 0);
}

/* Without a history, delta only costs: then its rungs stand for the codec alone. */
static struct gw_batch_setting setting_of(const struct gw_pace *pace, unsigned rung)
{
    struct gw_batch_setting setting = ladder[rung].setting;

    setting.delta = setting.delta && pace->options.delta;
    return setting;
}

int gw_pace_init(struct gw_pace *pace, const struct gw_pace_options *options)
{
    if (options->fixed ? !legal(&options->fixed_setting)
                       : options->level_max > gw_codec_zstd.level_max ||
                             options->level_max < gw_codec_zstd.level_min)
        return -EINVAL;
    *pace = (struct gw_pace){.options = *options, .literal_share = 1};
    pace->all.cost = pace->all.power = 1;
    for (unsigned i = 0; i < GW_PACE_RUNGS; i++) {
        const struct gw_batch_setting *setting = &ladder[i].setting;

        pace->rungs[i].allowed =
            setting->codec == gw_codec_none.id
                ? !setting->delta || options->delta
                : options->level_max != 0 && setting->level <= options->level_max;
        if (pace->rungs[i].allowed && setting->level <= 1)
            pace->plan = (struct gw_pace_plan){.less = (uint8_t)i, .more = (uint8_t)i};
    }
    return 0;
}

/* The nearest rung above (step 1) or below (step -1) that may be tried out, or the same. */
static unsigned neighbour(const struct gw_pace *pace, unsigned rung, int step)
{
    for (int i = (int)rung + step; i >= 0 && i < GW_PACE_RUNGS; i += step)
        if (pace->rungs[i].allowed && (ladder[i].setting.delta || !pace->options.delta))
            return (unsigned)i;
    return rung;
}

void gw_pace_next(struct gw_pace *pace, struct gw_batch_setting *setting)
{
    const struct gw_pace_plan *plan = &pace->plan;
    unsigned rung = plan->less;

    if (pace->options.fixed) {
        *setting = pace->options.fixed_setting;
        return;
    }
    pace->n_asked++;
    pace->carry += plan->n_more;
    if (pace->carry >= SHARES) {
        pace->carry -= SHARES;
        rung = plan->more;
    }
    if (!pace->last_round && pace->n_asked % PROBE_EVERY == 0)
        rung = pace->n_asked / PROBE_EVERY % 2 ? neighbour(pace, plan->less, -1)
                                               : neighbour(pace, plan->more, 1);
    *setting = setting_of(pace, rung);
}

static double blend(double mean, double value, unsigned n)
{
    return mean + (value - mean) / n;
}

static void learn(struct gw_pace_rung *rung, double cost, double power, uint64_t now)
{
    if (rung->n < MEMORY)
        rung->n++;
    rung->cost = blend(rung->cost, cost, rung->n);
    rung->power = blend(rung->power, power, rung->n);
    rung->at = now;
}

void gw_pace_sample(struct gw_pace *pace, const struct gw_pace_sample *sample)
{
    const struct gw_batch_figures *f = &sample->figures;
    struct gw_batch_setting setting = sample->setting;
    double content = (double)f->content_bytes, literal = (double)f->literal_bytes;
    double table_ns, power = pace->all.power;
    int rung;

    if (setting.codec != gw_codec_none.id)
        setting.delta = true; /* as the ladder has it, with a history or not */
    rung = rung_of(&setting);
    if (rung < 0 || f->content_bytes == 0 || sample->work_ns == 0)
        return;
    pace->n_samples++;
    if (setting.delta) {
        if (pace->n_literal_share < MEMORY)
            pace->n_literal_share++;
        pace->literal_share = blend(pace->literal_share, literal / content, pace->n_literal_share);
    }
    table_ns = ladder[rung].page_ns * content + ladder[rung].literal_ns * literal;
    /* Where there is no codec, or nothing literal, nothing is compressed and nothing learnt. */
    if (setting.codec != gw_codec_none.id && f->literal_bytes > 0)
        power = fmax(0, log((double)f->wire_bytes / literal) / log(ladder[rung].ratio));
    learn(&pace->rungs[rung], (double)sample->work_ns / table_ns, power, pace->n_samples);
    learn(&pace->all, (double)sample->work_ns / table_ns, power, pace->n_samples);
}

/* What was measured of this rung, giving way to what was measured of all as it gets old. */
static double estimate(const struct gw_pace *pace, const struct gw_pace_rung *rung, double own,
                       double all)
{
    double age = (double)(pace->n_samples - rung->at) / FORGET_AFTER;

    return rung->n ? all + (own - all) / (1 + age) : all;
}

static struct price price(const struct gw_pace *pace, unsigned i)
{
    const struct gw_pace_rung *rung = &pace->rungs[i];
    double share = ladder[i].setting.delta ? pace->literal_share : 1;
    double cost = estimate(pace, rung, rung->cost, pace->all.cost);
    double power = estimate(pace, rung, rung->power, pace->all.power);
    bool codec = ladder[i].setting.codec != gw_codec_none.id;

    return (struct price){
        .cpu_ns = cost * (ladder[i].page_ns + ladder[i].literal_ns * share),
        .wire_bytes = share * (codec ? pow(ladder[i].ratio, power) : 1),
    };
}

/* The time in ns and the CPU that a byte of pages takes. */
struct verdict {
    double ns, cpu_ns;
};

static struct verdict judge(const struct gw_pace *pace, const struct gw_pace_plan *plan,
                            const struct gw_pace_inputs *in)
{
    struct price a = price(pace, plan->less), b = price(pace, plan->more);
    double x = (double)plan->n_more / SHARES;
    double cpu = a.cpu_ns + (b.cpu_ns - a.cpu_ns) * x;
    double wire = a.wire_bytes + (b.wire_bytes - a.wire_bytes) * x;

    return (struct verdict){
        .ns = fmax(cpu / in->n_workers, wire * 1e9 / (double)in->lane_bytes_per_s),
        .cpu_ns = cpu,
    };
}

/* Time decides; within 1 %, the CPU. */
static bool better(const struct verdict *a, const struct verdict *b)
{
    return a->ns < b->ns * 0.99 || (a->ns <= b->ns && a->cpu_ns < b->cpu_ns) ||
           (a->ns <= b->ns * 1.01 && a->cpu_ns < b->cpu_ns * 0.97);
}

/* A few hundred plans: all of them are tried. */
static struct gw_pace_plan best_plan(const struct gw_pace *pace, const struct gw_pace_inputs *in)
{
    struct gw_pace_plan best = pace->plan, plan;
    struct verdict least = judge(pace, &best, in), now;

    for (unsigned less = 0; less < GW_PACE_RUNGS; less++)
        for (unsigned more = less; more < GW_PACE_RUNGS; more++)
            for (unsigned n = 0; n < (less == more ? 1 : SHARES); n += 2) {
                if (!usable(pace, less, in) || !usable(pace, more, in) || (less != more && !n))
                    continue;
                plan = (struct gw_pace_plan){(uint8_t)less, (uint8_t)more, (uint8_t)n};
                now = judge(pace, &plan, in);
                if (better(&now, &least)) {
                    best = plan;
                    least = now;
                }
            }
    return best;
}

static void name_plan(const struct gw_pace *pace, const struct gw_pace_plan *plan, char *text,
                      size_t size)
{
    /* Without a history "delta" would be a lie. */
    int less = (int)strcspn(ladder[plan->less].name, pace->options.delta ? "" : ",");
    int more = (int)strcspn(ladder[plan->more].name, pace->options.delta ? "" : ",");

    if (plan->n_more == 0)
        snprintf(text, size, "%.*s", less, ladder[plan->less].name);
    else
        snprintf(text, size, "%.*s for %u of %d, else %.*s", more, ladder[plan->more].name,
                 plan->n_more, SHARES, less, ladder[plan->less].name);
}

static void explain(const struct gw_pace *pace, const struct gw_pace_inputs *in,
                    const struct gw_pace_plan *to, struct gw_pace_decision *decision)
{
    struct verdict was = judge(pace, &pace->plan, in), is = judge(pace, to, in);
    bool cpu_bound = was.cpu_ns / in->n_workers >= was.ns;

    *decision = (struct gw_pace_decision){
        .inputs = *in,
        .pages_bytes_per_s = 1e9 / is.ns,
        .instead_pages_bytes_per_s = 1e9 / was.ns,
    };
    name_plan(pace, to, decision->chosen, sizeof decision->chosen);
    name_plan(pace, &pace->plan, decision->instead_of, sizeof decision->instead_of);
    if (is.ns > was.ns * 0.99)
        snprintf(decision->because, sizeof decision->because,
                 "it is as fast (%.0f MB/s of pages) with %.0f %% of the CPU", 1e3 / is.ns,
                 100 * is.cpu_ns / was.cpu_ns);
    else
        snprintf(decision->because, sizeof decision->because,
                 "the %s was the slower one: %.0f MB/s of pages instead of %.0f are expected",
                 cpu_bound ? "CPU" : "link", 1e3 / is.ns, 1e3 / was.ns);
}

int gw_pace_review(struct gw_pace *pace, const struct gw_pace_inputs *in,
                   struct gw_pace_decision *decision)
{
    struct gw_pace_plan best;
    struct verdict was, is;

    pace->last_round = in->last_round;
    if (!in->first_round && !pace->again) {
        pace->again = true;
        pace->n_literal_share = 0;
    }
    if (pace->options.fixed || in->lane_bytes_per_s == 0 || in->n_workers == 0 ||
        pace->all.n == 0 || (!in->last_round && pace->n_samples - pace->reviewed_at < REVIEW_AFTER))
        return 0;
    best = best_plan(pace, in);
    was = judge(pace, &pace->plan, in);
    is = judge(pace, &best, in);
    if (is.ns > was.ns * (in->last_round ? 0.99 : 0.95) &&
        (is.ns > was.ns * 1.01 || is.cpu_ns > was.cpu_ns * 0.7))
        return 0;
    explain(pace, in, &best, decision);
    pace->plan = best;
    pace->carry = 0;
    pace->reviewed_at = pace->n_samples;
    return 1;
}
