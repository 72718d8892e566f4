/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a VM spec to the command line of its QEMU. Deterministic: the same spec gives the same
 * devices in the same places on every node, whatever the runtime says. Pure: no I/O.
 */
#ifndef GW_HOST_ARGV_H
#define GW_HOST_ARGV_H

#include <stdbool.h>
#include <stddef.h>

#include "host/vmspec.h"

/* What belongs to one start on one node. Everything is borrowed. */
struct gw_vm_runtime {
    const char *qemu;          /* the program */
    const char *qmp_path;      /* where QEMU creates its QMP socket; at most 107 bytes */
    const char *run_dir;       /* existing private directory for other sockets, without a "/" at the
                                  end; may be NULL for a VM that is not adopted */
    const char *const *taps;   /* for each NIC of the spec the tap to open */
    size_t n_taps;             /* must be the spec's n_nics */
    const char *console_path;  /* the serial console is appended to it; NULL: the spec's
                                  console.log, or nowhere */
    bool incoming;             /* wait for a migration */
    unsigned prefault_threads; /* QEMU takes all of the guest's RAM first, with so many threads (of
                                  an adopted VM as many as it has CPUs); 0: as it is touched */
    enum gw_accel accel;       /* decided: GW_ACCEL_KVM or GW_ACCEL_TCG */
    const char *ceph_conf;     /* of the cluster that disks on RBD are in; NULL: librados looks */
    const char *ceph_user;     /* without "client."; NULL: librados takes "admin" */
};

/*
 * Builds the command line, for adopted VMs from their template. QEMU comes up paused (-S), with a
 * QMP server that does not wait. The spec must be resolved. Returns 0 with *argvp the caller's,
 * ending in NULL, or -1 with *e: GW_E_USAGE for a runtime that does not fit the spec, GW_E_SYSTEM
 * when memory is short.
 */
int gw_argv_build(const struct gw_vm_spec *spec, const struct gw_vm_runtime *runtime, char ***argvp,
                  struct gw_error *e);

/* NULL is fine. */
void gw_argv_free(char **argv);

/* argv as one line that a shell would read back; the caller's, NULL when memory is short. */
char *gw_argv_render(char *const *argv);

/*
 * What goes after -cpu. QEMU has no models named after the levels of the x86-64 psABI; this knows
 *
 *   x86-64-v2      qemu64 without svm, with cx16 lahf-lm popcnt sse4.1 sse4.2 ssse3
 *   x86-64-v2-AES  the same and aes
 *   x86-64-v3      the same and abm avx avx2 bmi1 bmi2 f16c fma movbe xsave
 *   x86-64-v4      the same and avx512f avx512bw avx512cd avx512dq avx512vl (not with tcg)
 *
 * each possibly followed by ",property…". Anything else is QEMU's own and returned as it is. The
 * caller's, NULL when memory is short.
 */
char *gw_argv_cpu(const char *cpu);

#endif
