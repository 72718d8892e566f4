/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the source's operations share; see outgoing.h. */
#ifndef GW_SHELL_OUTGOING_PRIVATE_H
#define GW_SHELL_OUTGOING_PRIVATE_H

#include "host/conns.h"
#include "host/converge.h"
#include "host/goodput.h"
#include "shell/daemon.h"
#include "shell/hold.h"
#include "shell/inspect.h"
#include "shell/nethook.h"
#include "shell/outgoing.h"
#include "shell/qmp_batch.h"
#include "shell/stop_copy.h"
#include "util/cleanup.h"

#define GW_OUTGOING_COMMAND_NS UINT64_C(10000000000) /* one QMP command may take so long */

struct outgoing {
    struct gw_migration base;
    struct gw_inspect inspect;
    bool inspecting;
    json_t *facts;          /* of the guest and of this node */
    json_t *spec;           /* of the VM: what PREPARE carries, even if QEMU ends meanwhile */
    json_t *peer_facts;     /* of the destination, from PREPARED */
    json_t *disks_after;    /* facts of its disks when QEMU had ended */
    struct gw_ceph_ask ask; /* about them */
    char uri[320];          /* where the destination's QEMU listens */
    struct gw_conns conns;  /* QEMU's, to there; none on the carrier's route */
    struct gw_peer_conn *connecting;
    struct gw_peer_handler connect_handler;
    struct gw_peer_measure measure; /* CONNECT, where the route is to be chosen */
    bool auto_route;                /* … with PREPARE */
    struct gw_qmp_batch batch;      /* ARM, RESUME, DISARM */
    struct gw_qmp_call op_call;     /* START, SWITCH */
    enum gw_op op;                  /* what op_call is for */
    struct gw_qmp_call progress_call, yank_call, limit_call, goodput_call, bandwidth_call;
    struct gw_goodput goodput; /* of the carrier */
    unsigned n_goodput_decisions;
    struct gw_converge converge; /* how long QEMU may pause the guest */
    struct event *progress_timer;
    struct gw_stop_copy stop_copy;
    struct gw_vm_call end_call;
    struct gw_hold hold;             /* INSPECT */
    struct gw_owner_call owner_call; /* RECLAIM */
    bool silent;                     /* QEMU did not say how far it is: told once */
    bool final_figures;              /* the figures being asked for are the last ones */
    bool listens;             /* the destination will say when the guest has sent its first frame */
    bool awaits_locks;        /* … and when it held the locks of its disks */
    bool handed_over;         /* QEMU has ended, and the cluster has said who has its disks */
    struct event *hear_timer; /* DESTROY waits for that */
    struct gw_nethook *hook;  /* NULL: none, or it was told the end */
    struct gw_nethook_call hook_call;
    bool came_back;                     /* the guest was paused, and was let run here again */
    json_t *carrier_offer;              /* of the destination, from PREPARED */
    char host[GW_NODE_ADDRESS_MAX + 1]; /* of uri; on the carrier's route, of the carrier */
    uint16_t port;
    bool zero_pages;        /* the multifd channels have zero pages, too: a history can be kept */
    char carrier_path[108]; /* where QEMU connects to */
    bool peer_verifies;     /* it has said that it can hash its memory */
    struct gw_hints_ask hints; /* before VERIFY */
    bool verifying;            /* VERIFY is under way */
    bool knows_goodput;        /* QEMU has avail-switchover-bandwidth */
    /* The switchover, QEMU's sockets are waited for, CATCH_UP was sent. */
    enum { GW_HELD_NOT, GW_HELD, GW_HELD_DRAINS, GW_HELD_ASKED } held;
    uint32_t n_passes, n_held_rounds; /* MIGRATION_PASS; so many say nothing of convergence */
    uint64_t released_ns;             /* when it was let go; 0: it was not held */
    uint64_t patience_ends_ns;        /* it is let go anyway */
    struct event *catch_up;           /* looks at it */
    struct gw_qmp_call hold_call;
};

static inline struct outgoing *outgoing_of(struct gw_migration *m)
{
    return gw_container_of(m, struct outgoing, base);
}

static inline void done(struct outgoing *o, enum gw_op op, const struct gw_error *error)
{
    gw_migration_op_done(&o->base, op, error);
}

/* For an operation of which the QEMU has ended meanwhile. */
void gw_outgoing_no_qemu(struct outgoing *o, enum gw_op op);

/* outgoing_prepare.c: INSPECT and CONNECT, and which way the pages are to go. */
void gw_outgoing_inspect(struct outgoing *o);
void gw_outgoing_connect(struct outgoing *o);
void gw_outgoing_vm_gone(struct gw_migration *m, const struct gw_error *error);
void gw_outgoing_take_route(struct outgoing *o, const struct gw_outgoing_request *request);
/* With PREPARE, where nobody has said: all is known by then that this node can know. */
void gw_outgoing_choose_route(struct outgoing *o);
/* With PREPARED: whether the guest's RAM is there already, where the policy asks for that. */
void gw_outgoing_note_prefault(struct outgoing *o, const json_t *prepared);

/* outgoing_arm.c: QEMU's settings. */
void gw_outgoing_arm(struct outgoing *o);
void gw_outgoing_disarm(struct outgoing *o);
/* QEMU may pause the guest for as long as the policy allows: it cannot do better. */
void gw_outgoing_settle_for_the_policy(struct outgoing *o);

/* outgoing_catch_up.c: with ARM; MIGRATION_PASS; the destination's answer; how many rounds could
 * have been the last one, of so many. */
void gw_outgoing_hold_switchover(struct outgoing *o, json_t *parameters);
void gw_outgoing_round_begins(struct outgoing *o);
uint32_t gw_outgoing_free_rounds(struct outgoing *o, uint32_t round);
void gw_outgoing_caught_up(struct outgoing *o);

/* outgoing_undo.c: the guest comes back. */
void gw_outgoing_undo_init(struct outgoing *o);
void gw_outgoing_stop_copy(struct outgoing *o);
void gw_outgoing_reclaim(struct outgoing *o);
void gw_outgoing_resume(struct outgoing *o);

/* outgoing_figures.c: how far the copy is, and its bandwidth. */
void gw_outgoing_ask_for_figures(struct outgoing *o);
void gw_outgoing_progress_timer_came(evutil_socket_t fd, short what, void *o);

#endif
