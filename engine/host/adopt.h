/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking over a QEMU that somebody else started.
 *
 * Goal: a gw_vm_spec from which argv.h builds the destination's QEMU, device by device the same
 * machine as the running one. The spec's adopted_argv is the running command line without the
 * program, rewritten to a template: every option is looked up in a table and
 *
 *   kept       it describes the machine (-device, -smp, -rtc …), perhaps with relative paths made
 *              absolute;
 *   replaced   it names something of this node: the machine type and the accelerator, the tap of a
 *              NIC, the socket of a character device, stdio (placeholders: template.h);
 *   dropped    Godwit brings its own (QMP, monitors, -S, -incoming, -daemonize, -pidfile), or it
 *              does not belong to the machine (displays, logs, traces); where somebody may miss
 *              it, a note says so;
 *   refused    it cannot follow the guest: host devices, file descriptors, local helpers, shared
 *              directories; and every option that the table does not know.
 *
 * Refusals are collected, not only the first one is reported. Limits: what was changed over QMP
 * after the start is not in the command line. gw_adopt_check_devices() finds hot-plugged and
 * unplugged devices; media changes and block jobs are the caller's to check against the disks.
 * A machine type must be pinned by the caller (gw_vm_spec_set_machine()), and with accel "auto"
 * the caller has to ask QEMU which one runs.
 *
 * The parser is pure: it asks the host through struct gw_adopt_host. Single-threaded.
 */
#ifndef GW_HOST_ADOPT_H
#define GW_HOST_ADOPT_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "host/vmspec.h"

/* What the parser wants to know about the host. Embedded by whoever knows. */
struct gw_adopt_host {
    /* Writes the bridge that interface ifname is a port of. Returns 0, or -1 if there is none. */
    int (*bridge_of)(struct gw_adopt_host *host, const char *ifname, char bridge[IFNAMSIZ]);
    /* Writes the name of the tap that the process has open as fd. Returns 0, or -1. */
    int (*tap_of_fd)(struct gw_adopt_host *host, int fd, char ifname[IFNAMSIZ]);
    const char *cwd; /* absolute; relative paths start here. NULL: unknown */
};

/* Something that a person should know about one option. */
struct gw_adopt_note {
    bool refused; /* otherwise: adopted, but not quite as it is here */
    char *option; /* "-netdev tap" */
    char *why;
};

struct gw_adopt {
    struct gw_vm_spec *spec; /* complete only if n_refused is 0 */
    struct gw_adopt_note *notes;
    size_t n_notes;
    size_t n_refused;     /* how many of the notes are refusals */
    pid_t pid;            /* 0 from gw_adopt_parse() */
    uint64_t start_ticks; /* field 22 of /proc/PID/stat: tells a reused pid; 0 from _parse() */
    char *exe;            /* the running program; NULL from gw_adopt_parse() */
};

/*
 * Parses a command line of n elements, argv[0] the program. name names the VM if it is not NULL,
 * otherwise QEMU's -name does. Returns 0 with *adoptp the caller's, also if options were refused
 * (see gw_adopt_verdict()), or -1 with *e: malformed beyond any sense, no usable name, or memory
 * is short.
 */
int gw_adopt_parse(char *const *argv, size_t n, const char *name, struct gw_adopt_host *host,
                   struct gw_adopt **adoptp, struct gw_error *e);

/* The same for a running process, of which it reads /proc/PID. Fails also if it is not a QEMU for
 * x86-64, or vanishes meanwhile. */
int gw_adopt_read(pid_t pid, const char *name, struct gw_adopt **adoptp, struct gw_error *e);

/* 0 if nothing was refused; otherwise -1 with *e (GW_E_INCOMPATIBLE) naming everything refused, as
 * much as fits. */
int gw_adopt_verdict(const struct gw_adopt *adopt, struct gw_error *e);

/* NULL is fine. */
void gw_adopt_free(struct gw_adopt *adopt);
GW_DEFINE_AUTO(adopt)

/*
 * Whether argv could be the adopted_argv of a spec with n_taps NICs: the parser takes it, refuses
 * nothing in it and would not change it. A template that came from another node must pass this
 * before anything is started from it. Returns 0, or -1 with *e.
 */
int gw_adopt_check_template(char *const *argv, size_t n, size_t n_taps, struct gw_error *e);

/*
 * Compares the ids under /machine/peripheral (n names from qom-list, whose own "type" is ignored)
 * with the -device options that the spec stands for. Returns 0 if they are the same, or -1 with *e
 * (GW_E_INCOMPATIBLE) naming every device that was plugged in or unplugged since the start.
 */
int gw_adopt_check_devices(const struct gw_vm_spec *spec, const char *const *names, size_t n,
                           struct gw_error *e);

#endif
