/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the destination's operations share; see incoming.h. */
#ifndef GW_SHELL_INCOMING_PRIVATE_H
#define GW_SHELL_INCOMING_PRIVATE_H

#include "host/findings.h"
#include "shell/ceph.h"
#include "shell/guestnet.h"
#include "shell/inspect.h"
#include "shell/migration.h"
#include "shell/nethook.h"
#include "shell/owners.h"
#include "shell/qmp_batch.h"
#include "util/cleanup.h"

struct incoming {
    struct gw_migration base;
    struct gw_vm_spec *spec; /* until the VM has it */
    json_t *peer_facts;      /* of the source */
    json_t *facts;           /* of this node and its QEMU */
    struct gw_findings findings;
    struct gw_vm_call launch_call, end_call;
    struct gw_inspect inspect;
    bool inspecting;
    json_t *early; /* of this node before it has a QEMU; its disks are the later ones', too */
    struct gw_ceph_ask ask; /* about them */
    struct gw_qmp_batch batch;
    struct gw_qmp_call op_call;
    char host[256], port[8]; /* where QEMU listens */
    struct gw_owner from;    /* the owner record that CLAIM swaps; epoch 0: there is none */
    struct gw_owner_call owner_call;
    uint64_t claim_begun_ns;
    bool guest_runs;         /* let it run at the end */
    struct gw_nethook *hook; /* NULL: none, or it was told the end */
    struct gw_nethook_call hook_call;
    struct gw_guestnet_listener listener;
    bool listens;         /* for the guest's first frame */
    bool awaits_locks;    /* of its disks on RBD, since RESUME: `ask` is about them */
    struct event *writes; /* the locks are held: QEMU is asked how long writes waited for them */
    struct gw_qmp_call writes_call;
    unsigned n_counts;      /* so often it was asked what they took */
    struct event *patience; /* FINISHED waits for both, so that the source hears of them */
    json_t *carrier_offer;  /* what PREPARED says of the carrier; NULL on another route */
    char carrier_path[108]; /* where QEMU listens for the carrier */
    json_t *verify_request; /* came before QEMU has said that it has loaded everything */
    bool completed;         /* it has */
    struct event *catch_up; /* QEMU had more to read when it was last looked at */
};

static inline struct incoming *incoming_of(struct gw_migration *m)
{
    return gw_container_of(m, struct incoming, base);
}

static inline void done(struct incoming *in, enum gw_op op, const struct gw_error *error)
{
    gw_migration_op_done(&in->base, op, error);
}

static inline void done_with_record(struct incoming *in, enum gw_op op, int result,
                                    const struct gw_error *error)
{
    struct gw_event ev = {.type = GW_EV_DONE, .error = error, .done = {.op = op}};

    ev.done.conflict = result > 0;
    gw_migration_post(&in->base, &ev);
}

/* incoming_launch.c: LAUNCH, up to a QEMU that suits the guest; and its end meanwhile. */
void gw_incoming_launch(struct incoming *in);
void gw_incoming_vm_gone(struct gw_migration *m, const struct gw_error *error);

/* incoming_listen.c */
void gw_incoming_arm(struct incoming *in);
void gw_incoming_listen(struct incoming *in);

/* incoming_catch_up.c: the source is told when QEMU has read what has come for it. */
void gw_incoming_catch_up(struct incoming *in);

/* incoming_query.c: whether that is how an id looks; whether the journal knows it. */
bool gw_incoming_is_id(const char *id);
bool gw_incoming_is_known(struct gw_daemon *daemon, const char *id);

#endif
