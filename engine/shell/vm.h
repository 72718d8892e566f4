/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest on this node: its QEMU process, its QMP link, its taps and its private directory.
 *
 * A gw_vm exists from launch, adoption or re-attachment until its QEMU has ended and everything
 * that was made for it is removed. QEMU outlives the daemon: the journal holds what a restarted
 * daemon needs to find it again.
 */
#ifndef GW_SHELL_VM_H
#define GW_SHELL_VM_H

#include <stdbool.h>
#include <sys/queue.h>
#include <event2/event.h>
#include <jansson.h>

#include "godwit/storage.h"
#include "host/process.h"
#include "host/vmspec.h"
#include "shell/qmp_link.h"

struct gw_daemon;
struct gw_vm;
struct gw_hold_settling;
struct gw_guestaddr;

enum gw_vm_state {
    GW_VM_STARTING, /* QEMU is coming up */
    GW_VM_INCOMING, /* waits for, or loads, a guest from another node */
    GW_VM_PAUSED,
    GW_VM_RUNNING,
    GW_VM_ENDING,
};

const char *gw_vm_state_name(enum gw_vm_state state);

/* Whoever looks closely at a VM: the migration that moves it. At most one. */
struct gw_vm_watcher {
    /* A QMP event; at_ns is when QEMU emitted it, on CLOCK_MONOTONIC. */
    void (*event)(struct gw_vm_watcher *watcher, const char *name, json_t *data, uint64_t at_ns);
    /* QEMU has ended, or does not answer any more: the VM may be freed already. */
    void (*gone)(struct gw_vm_watcher *watcher, const struct gw_error *error);
};

/* A request to a VM that takes a while; done comes exactly once, from the loop. */
struct gw_vm_call {
    void (*done)(struct gw_vm_call *call, struct gw_vm *vm, const struct gw_error *error);
    /* Of gw_vm_take_over(), any number of times before done: a guest that was on its way here is
     * there, but its QEMU does not answer; it is asked again. NULL: does not matter. */
    void (*silent)(struct gw_vm_call *call, struct gw_vm *vm);
};

struct gw_vm {
    TAILQ_ENTRY(gw_vm) link; /* in the daemon's list */
    struct gw_daemon *daemon;
    struct gw_vm_spec *spec;
    enum gw_vm_state state;
    enum gw_accel accel; /* decided: kvm or tcg */
    bool incoming;       /* started with -incoming, and the guest has not run here yet */
    bool foreign;        /* started by somebody else, and adopted */
    bool ran;            /* the guest ran when the migration that moves it began */
    bool was_incoming;   /* found again after a restart as a guest on its way to this node */
    bool has_run;        /* as far as QEMU's status tells: the guest has executed something here */
    bool loads;          /* as far as QEMU's status tells: not all of the guest is here yet */
    bool launching;      /* until QMP answers; a QEMU that never does is killed */
    bool prefault;       /* it is launched with all of its RAM */
    bool in_journal;
    bool ended, qmp_is_closed;
    bool status_is_old;        /* the guest was stopped or resumed since query-status was sent */
    struct gw_error end_error; /* how it ended */
    char *rundir;              /* private directory, removed with the VM; NULL for an adopted one */
    char *log_path;            /* QEMU's own output; NULL for an adopted one */
    char *qmp_path;
    struct gw_process process;
    struct event *exit_event; /* the pidfd */
    struct event *qmp_timer;  /* opens QMP again, some time after it was lost */
    struct event *kill_timer; /* QEMU should end by itself; when it fires, it is killed */
    struct gw_qmp_handler qmp_handler;
    struct gw_qmp_link *qmp;
    struct gw_qmp_call status_call, quit_call;
    json_t *version; /* what QEMU said in its greeting */
    struct gw_vm_watcher *watcher;
    struct gw_vm_call *launch_call, *end_call;
    char migration[16];         /* id of the migration that moves it, or "" */
    struct gw_owner owner;      /* its owner record as this node last saw it; epoch 0: none */
    struct gw_owner void_owner; /* see gw_hold_settle(); epoch 0: none */
    struct gw_hold_settling *settling; /* NULL: nothing is to be settled */
    char contested[64]; /* a migration left it paused here, and may have left it running on
                           this node: only `godwit resolve` may resume it. "": not so */
    struct gw_guestaddr *addresses; /* what its NICs have claimed; NULL: nobody listens */
    struct gw_guestnet *net;        /* while it moves, and shortly after; NULL otherwise */
    char tap_names[GW_VM_MAX_NICS][16];
    unsigned n_taps; /* those that this daemon made */
};

enum gw_vm_launch_flags {
    GW_VM_LAUNCH_INCOMING = 1, /* it waits for a guest from another node */
    GW_VM_LAUNCH_PREFAULT = 2, /* with all of its RAM: host/prefault.h */
};

/*
 * Starts QEMU for spec, which is taken in any case: taps, command line, process, QMP. flags are of
 * enum gw_vm_launch_flags, or 0. The guest does not run when call->done comes: `cont` is the
 * caller's. On failure everything is removed again, and done has the reason with the last words of
 * QEMU; the vm given to done then is NULL. done may come before this returns.
 */
void gw_vm_launch(struct gw_daemon *daemon, struct gw_vm_spec *spec, unsigned flags,
                  struct gw_vm_call *call);

/* A QEMU that is there already: adopted, or left behind by this daemon's predecessor. */
struct gw_vm_claim {
    pid_t pid;
    uint64_t start_time; /* as in struct gw_process; 0: not known */
    const char *qmp_path;
    const char *rundir; /* the private directory that was made for it; NULL: none */
    enum gw_accel accel;
    bool foreign, incoming, ran;
    const char *contested; /* as in struct gw_vm */
    const char *migration; /* id of the one that moves it, or "" */
    struct gw_owner owner; /* epoch 0: none is known */
    struct gw_owner void_owner;
    const json_t *addresses; /* as gw_guestaddr_to_json() gave them; may be NULL */
    bool in_journal;         /* if the process is gone, what was made for it is removed */
    const char *const *taps; /* those made for it */
    unsigned n_taps;
};

/*
 * Takes hold of it; spec is taken in any case. 0, and call->done comes when QMP is up (or cannot be
 * opened: then the VM is not in the list any more and QEMU goes on untouched); 1 if the process has
 * ended; -1 with *error.
 */
int gw_vm_take_over(struct gw_daemon *daemon, struct gw_vm_spec *spec,
                    const struct gw_vm_claim *claim, struct gw_vm_call *call,
                    struct gw_error *error);

/* 0 if neither the name nor the uuid is one of a VM on this node; otherwise -1 with GW_E_EXISTS. */
int gw_vm_check_new(struct gw_daemon *daemon, const struct gw_vm_spec *spec,
                    struct gw_error *error);

/* True while QMP commands can be answered. */
bool gw_vm_can_talk(const struct gw_vm *vm);

/* Asks the guest to power down, for which it takes its time; needs gw_vm_can_talk(). */
void gw_vm_power_down(struct gw_vm *vm);

/* Ends QEMU: it quits, and is killed if it has not after 5 s. All that was made for the VM is
 * removed and it is freed before call->done, whose vm is NULL. call may be NULL. */
void gw_vm_end(struct gw_vm *vm, struct gw_vm_call *call);

/* Frees the VM without ending QEMU: the daemon stops, the guest stays. */
void gw_vm_detach(struct gw_vm *vm);

/* Writes it to the journal as it is now. */
void gw_vm_save(struct gw_vm *vm);

struct gw_vm *gw_vm_find(struct gw_daemon *daemon, const char *name);
struct gw_vm *gw_vm_find_uuid(struct gw_daemon *daemon, const char *uuid);

/* What a VM that is launched with all of its RAM has of it by now; 0 for others. */
uint64_t gw_vm_prefaulted_bytes(const struct gw_vm *vm);

/* {"name", "uuid", "state", …} as in the API. A new reference. */
json_t *gw_vm_to_json(const struct gw_vm *vm);

#endif
