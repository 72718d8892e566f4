/* SPDX-License-Identifier: Apache-2.0 */
/* The QEMU program that is installed here, before any is started. */
#ifndef GW_HOST_QEMUBIN_H
#define GW_HOST_QEMUBIN_H

#include <sys/types.h>
#include <time.h>

#include "godwit/error.h"

/* What a program file said; all zeros: nothing is known yet. */
struct gw_qemu_binary {
    dev_t device;
    ino_t inode;
    struct timespec modified;
    char version[32]; /* "10.0.2" */
};

/*
 * The version of qemu, a path or a name for PATH. A program is asked once (gw_facts_qemu_version():
 * 12 ms here, 7 s at the very most, and it blocks) and again when another file is in its place. A
 * script is asked each time: the QEMU behind it may change without it. *versionp is valid until the
 * next call. -1 with *e if the program is missing or says nothing useful.
 */
int gw_qemu_binary_version(struct gw_qemu_binary *known, const char *qemu, const char **versionp,
                           struct gw_error *e);

#endif
