/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LAUNCH is where a move is refused: first what can be seen without a QEMU (memory, disks, bridges,
 * names, QEMU's version), then what only the QEMU that will run the guest can say (machine type,
 * CPU).
 */
#include "host/facts.h"
#include "host/preflight.h"
#include "shell/daemon.h"
#include "shell/incoming_private.h"

/* Compares what is known so far. -1 if something stands against the move: LAUNCH is done then. */
static int compare(struct incoming *in, json_t *mine)
{
    const struct gw_finding *first;
    struct gw_error error;

    gw_findings_fini(&in->findings);
    gw_preflight_compare(in->peer_facts, mine, &in->findings);
    if (gw_findings_ok(&in->findings))
        return 0;
    first = gw_findings_first_error(&in->findings);
    gw_error_set(&error, GW_E_INCOMPATIBLE, "%s cannot run on %s: %s", in->base.vm_name,
                 in->base.record.to, first ? first->message : "the checks could not be made");
    gw_error_hint(&error, "%s", first ? first->hint : "");
    if (in->findings.n_errors > 1)
        gw_error_hint(&error, "`godwit check %s --to %s` lists this and %zu more reasons",
                      in->base.vm_name, in->base.record.to, in->findings.n_errors - 1);
    done(in, GW_OP_LAUNCH, &error);
    return -1;
}

static void network_prepared(struct gw_nethook_call *call, const struct gw_error *error)
{
    struct incoming *in = gw_container_of(call, struct incoming, hook_call);

    if (!error)
        gw_nethook_await_switch(in->hook);
    done(in, GW_OP_LAUNCH, error);
}

static void inspected(struct gw_inspect *inspect, json_t *facts, const struct gw_error *error)
{
    struct incoming *in = gw_container_of(inspect, struct incoming, inspect);

    in->inspecting = false;
    if (error) {
        done(in, GW_OP_LAUNCH, error);
        return;
    }
    in->facts = json_incref(facts);
    if (compare(in, facts) < 0)
        return;
    in->hook_call.done = network_prepared;
    if (in->base.only_check || !in->base.vm)
        done(in, GW_OP_LAUNCH, NULL);
    else
        gw_nethook_prepare(&in->base, &in->hook, &in->hook_call);
}

/* Its QEMU ended while Ceph was asked about its disks. */
void gw_incoming_vm_gone(struct gw_migration *m, const struct gw_error *error)
{
    struct incoming *in = incoming_of(m);

    gw_inspect_fini(&in->inspect);
    if (in->inspecting)
        done(in, GW_OP_LAUNCH, error);
    in->inspecting = false;
}

static void launched(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error)
{
    struct incoming *in = gw_container_of(call, struct incoming, launch_call);

    if (error) {
        done(in, GW_OP_LAUNCH, error);
        return;
    }
    vm->owner = in->from;
    gw_migration_set_vm(&in->base, vm);
    vm->ran = in->guest_runs; /* for a daemon that is started after this one */
    gw_vm_save(vm);
    vm->net = gw_guestnet_open(vm);
    gw_guestnet_hold(vm->net);
    in->listens = in->guest_runs && gw_guestnet_listen(vm->net, &in->listener);
    in->inspecting = true;
    in->inspect.disks = json_object_get(in->early, "disks");
    gw_inspect_start(&in->inspect, vm, inspected);
}

static void launch_if_it_fits(struct incoming *in)
{
    if (compare(in, in->early) < 0)
        return;
    in->launch_call.done = launched;
    gw_vm_launch(in->base.daemon, gw_steal_ptr(&in->spec),
                 GW_VM_LAUNCH_INCOMING | (in->base.wishes.prefault ? GW_VM_LAUNCH_PREFAULT : 0),
                 &in->launch_call);
}

static void ceph_answered(struct gw_ceph_ask *ask)
{
    launch_if_it_fits(gw_container_of(ask, struct incoming, ask));
}

/* A QEMU waits without a limit for a cluster that does not answer: ask before there is one. */
static void launch(struct incoming *in)
{
    in->early = gw_inspect_early(in->base.daemon, in->spec, in->peer_facts);
    if (!gw_ceph_ask(in->base.daemon->ceph, &in->ask, json_object_get(in->early, "disks"),
                     ceph_answered))
        launch_if_it_fits(in);
}

/* Both nodes must see the same record, or their swaps would not meet. */
static void record_read(struct gw_owner_call *call, int result, const struct gw_owner *current,
                        const struct gw_error *error)
{
    struct incoming *in = gw_container_of(call, struct incoming, owner_call);
    bool same = result == 0 && current->epoch == in->from.epoch &&
                strcmp(current->node, in->from.node) == 0;
    struct gw_error why;

    if (same) {
        launch(in);
        return;
    }
    gw_error_set(&why, result < 0 ? error->code : GW_E_INCOMPATIBLE,
                 "the owner record of %s, %s's with epoch %" PRIu64 ", is not seen from %s: %s",
                 in->base.vm_name, in->from.node, in->from.epoch, in->base.record.to,
                 result == 0 ? "there it is another one" : error->msg);
    if (result < 0 && error->hint[0])
        gw_error_hint(&why, "%s", error->hint);
    else
        gw_error_hint(&why,
                      "see whether owner_store (with disks on RBD: ceph_conf) names the same on %s "
                      "and %s; if so, start the migration again",
                      in->base.record.to, in->from.node);
    done(in, GW_OP_LAUNCH, &why);
}

/* The source knows of none: then there must be none, or a swap of somebody's would be ignored. */
static void no_record_expected(struct gw_owner_call *call, int result,
                               const struct gw_owner *current, const struct gw_error *error)
{
    struct incoming *in = gw_container_of(call, struct incoming, owner_call);
    struct gw_error why;

    if (result == GW_OWNER_ABSENT) {
        launch(in);
        return;
    }
    if (result < 0)
        why = *error;
    else
        gw_error_set(&why, GW_E_INCOMPATIBLE,
                     "%s has an owner record, %s's, which %s does not know of", in->base.vm_name,
                     current->node, in->base.peer);
    if (result >= 0)
        gw_error_hint(&why, "set owner_store in the configuration of godwitd on %s as on %s",
                      in->base.peer, in->base.record.to);
    done(in, GW_OP_LAUNCH, &why);
}

void gw_incoming_launch(struct incoming *in)
{
    bool has_store = gw_owners_has_store(in->base.daemon->owners, in->spec);
    struct gw_error error;

    if (!in->from.epoch && has_store) {
        in->owner_call.done = no_record_expected;
        gw_owners_read(in->base.daemon->owners, in->spec, &in->owner_call);
    } else if (!in->from.epoch) {
        launch(in);
    } else if (has_store) {
        in->owner_call.done = record_read;
        gw_owners_read(in->base.daemon->owners, in->spec, &in->owner_call);
    } else {
        gw_error_set(&error, GW_E_INCOMPATIBLE,
                     "%s has an owner record on %s, and %s has no store of owner records",
                     in->base.vm_name, in->from.node, in->base.record.to);
        gw_error_hint(&error, "set owner_store in the configuration of godwitd on %s",
                      in->base.record.to);
        done(in, GW_OP_LAUNCH, &error);
    }
}
