/* SPDX-License-Identifier: Apache-2.0 */
/* Asks a QEMU whether its guest says what it has free (host/freepages.h). */
#ifndef GW_SHELL_HINTS_H
#define GW_SHELL_HINTS_H

#include "host/freepages.h"
#include "shell/qmp_batch.h"

struct gw_hints_ask {
    /* Exactly once, from the loop. GW_HINTS_NONE, _ON, or _UNKNOWN where QEMU does not say. */
    void (*done)(struct gw_hints_ask *ask, enum gw_hints hints);

    struct gw_qmp_link *qmp; /* private, as what follows */
    struct gw_qmp_batch devices, status;
};

/* Two questions, one after the other. Zero the struct once before its first use. */
void gw_hints_ask(struct gw_hints_ask *ask, struct gw_qmp_link *qmp,
                  void (*done)(struct gw_hints_ask *, enum gw_hints));

/* Forgets what is under way; done is not called any more. Idempotent. */
void gw_hints_ask_fini(struct gw_hints_ask *ask);

#endif
