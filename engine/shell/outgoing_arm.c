/* SPDX-License-Identifier: Apache-2.0 */
/* ARM and DISARM: QEMU's settings for the migration, and those it had before. */
#include <inttypes.h>
#include <stdio.h>

#include "shell/guestnet.h"
#include "shell/outgoing_private.h"
#include "util/clock.h"

static void armed(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(batch, struct outgoing, batch);
    const char *ramblocks = json_string_value(json_object_get(replies, "ramblocks"));
    struct gw_error why;

    if (!error && o->op == GW_OP_ARM && o->base.wishes.verify &&
        gw_migration_open_verify(&o->base, ramblocks, &why) < 0)
        error = &why;
    done(o, o->op, error);
}

static void set_both(struct outgoing *o, enum gw_op op, json_t *capabilities, json_t *parameters)
{
    o->op = op;
    gw_qmp_batch_fini(&o->batch);
    gw_qmp_batch_init(&o->batch, armed);
    gw_qmp_batch_add(&o->batch, o->base.vm->qmp, "capabilities", false, "migrate-set-capabilities",
                     capabilities);
    gw_qmp_batch_add(&o->batch, o->base.vm->qmp, "parameters", false, "migrate-set-parameters",
                     parameters);
    if (op == GW_OP_ARM && o->base.wishes.verify)
        gw_qmp_batch_add(&o->batch, o->base.vm->qmp, "ramblocks", false, "human-monitor-command",
                         json_pack("{s:s}", "command-line", "info ramblock"));
    gw_qmp_batch_end(&o->batch);
}

/* The pause that QEMU may plan with: see host/converge.h. */

static void decide_limit(struct outgoing *o, uint32_t limit_ms, uint32_t instead_ms,
                         const char *because)
{
    char chosen[32], instead[32];
    json_t *decisions = json_array();

    snprintf(chosen, sizeof chosen, "%u ms", limit_ms);
    snprintf(instead, sizeof instead, "%u ms", instead_ms);
    json_array_append_new(
        decisions,
        gw_decision_new("downtime-limit",
                        json_pack("{s:i, s:I}", "policy_blackout_ms", (int)o->converge.policy_ms,
                                  "remaining_bytes", (json_int_t)o->converge.remaining_bytes),
                        chosen, limit_ms == instead_ms ? NULL : instead, because));
    gw_record_decisions(&o->base.record, decisions, o->base.machine.phase, gw_clock_ns());
    json_decref(decisions);
}

static void begin_low(struct outgoing *o, json_t *parameters)
{
    uint32_t policy_ms = o->base.wishes.blackout_ms;
    uint32_t first_ms = gw_converge_begin(&o->converge, policy_ms);

    json_object_set_new(parameters, "downtime-limit", json_integer(first_ms));
    decide_limit(o, first_ms, policy_ms, "rounds while the guest runs cost less than its pause");
}

static void limit_answered(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(call, struct outgoing, limit_call);

    (void)reply;
    if (error)
        gw_migration_log(&o->base, GW_LOG_WARNING, "QEMU does not take the policy's blackout: %s",
                         error->msg);
}

void gw_outgoing_settle_for_the_policy(struct outgoing *o)
{
    if (!o->base.vm || gw_qmp_call_is_pending(&o->limit_call))
        return;
    decide_limit(o, o->converge.policy_ms, o->converge.first_ms, "the rounds do not shrink");
    o->limit_call.done = limit_answered;
    gw_qmp_link_execute(o->base.vm->qmp, &o->limit_call, "migrate-set-parameters",
                        json_pack("{s:i}", "downtime-limit", (int)o->converge.policy_ms),
                        GW_OUTGOING_COMMAND_NS);
}

static void arm(struct outgoing *o)
{
    struct gw_vm *vm = o->base.vm;
    struct gw_migration *m = &o->base;
    struct gw_native_offer mine = gw_native_offer_of(o->facts);
    struct gw_native_offer theirs = gw_native_offer_of(o->peer_facts);
    struct gw_native_terms terms;
    struct gw_error error;

    if (m->wishes.verify && !o->peer_verifies) {
        gw_error_set(&error, GW_E_UNSUPPORTED, "godwitd on %s does not verify memory", m->peer);
        gw_error_hint(&error, "run the same release of Godwit on both nodes, or go without "
                              "--verify");
        done(o, GW_OP_ARM, &error);
        return;
    }
    if (gw_native_negotiate(&mine, &theirs, &m->wishes, true, &terms, &error) < 0) {
        done(o, GW_OP_ARM, &error);
        return;
    }
    gw_guestnet_free(vm->net);
    vm->net = gw_guestnet_open(vm);
    gw_record_decisions(&m->record, terms.decisions, m->machine.phase, gw_clock_ns());
    begin_low(o, terms.parameters);
    m->record.codec = terms.codec;
    o->zero_pages = terms.zero_pages;
    o->knows_goodput = json_object_get(mine.parameters, "avail-switchover-bandwidth");
    gw_outgoing_hold_switchover(o, terms.parameters);
    set_both(o, GW_OP_ARM, gw_steal_ptr(&terms.capabilities), gw_steal_ptr(&terms.parameters));
    gw_native_terms_fini(&terms);
}

static void network_prepared(struct gw_nethook_call *call, const struct gw_error *error)
{
    struct outgoing *o = gw_container_of(call, struct outgoing, hook_call);

    if (error)
        done(o, GW_OP_ARM, error);
    else if (!o->base.vm || !o->base.vm->qmp)
        gw_outgoing_no_qemu(o, GW_OP_ARM);
    else
        arm(o);
}

void gw_outgoing_arm(struct outgoing *o)
{
    o->hook_call.done = network_prepared;
    gw_nethook_prepare(&o->base, &o->hook, &o->hook_call);
}

/* The guest stays: its QEMU gets back the settings that it had. */
void gw_outgoing_disarm(struct outgoing *o)
{
    static const char *const ours[] = {"max-bandwidth",
                                       "downtime-limit",
                                       "multifd-channels",
                                       "multifd-compression",
                                       "multifd-zstd-level",
                                       "zero-page-detection",
                                       "avail-switchover-bandwidth"};
    const json_t *offer = json_object_get(o->facts, "offer");
    const json_t *had = json_object_get(offer, "parameters");
    json_t *back = json_object();

    if (!offer) { /* after a restart: what it had is not known any more */
        json_decref(back);
        set_both(o, GW_OP_DISARM, gw_native_default_capabilities(), gw_native_default_parameters());
        return;
    }
    for (unsigned i = 0; i < GW_ARRAY_SIZE(ours); i++)
        if (json_object_get(had, ours[i]))
            json_object_set(back, ours[i], json_object_get(had, ours[i]));
    set_both(o, GW_OP_DISARM,
             json_pack("{s:O}", "capabilities", json_object_get(offer, "capabilities")), back);
}
