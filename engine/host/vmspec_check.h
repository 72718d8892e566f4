/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one validation behind the front ends of vmspec.h. For the files of vmspec only.
 */
#ifndef GW_HOST_VMSPEC_CHECK_H
#define GW_HOST_VMSPEC_CHECK_H

#include <stdarg.h>

#include "host/vmspec.h"

/* Where complaints go. A front end embeds it. */
struct gw_vm_check {
    /* Writes where the value at path ("disks[1].file") stands, as "web1.yaml:7: ", or "". */
    void (*locate)(struct gw_vm_check *check, const char *path, char *buf, size_t size);
    enum gw_code code; /* of the errors */
    struct gw_error *e;
};

/* Complains about the value at path: "LOCATION" "PATH: " "text". path may be "". Returns -1. */
int gw_vm_check_fail(struct gw_vm_check *check, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Completes spec with the defaults, normalises the case of uuid and MACs and validates all of it.
 * Returns 0, or -1 with the complaint (GW_E_SYSTEM when memory is short). */
int gw_vm_check_spec(struct gw_vm_check *check, struct gw_vm_spec *spec);

#endif
