/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several QMP commands at once: sent without waiting, answered together.
 *
 * QEMU carries them out in order, so one round trip serves them all. A command that fails does not
 * keep the later ones from being carried out: use a batch for queries and for settings, not for a
 * sequence in which one step depends on the other.
 */
#ifndef GW_SHELL_QMP_BATCH_H
#define GW_SHELL_QMP_BATCH_H

#include <stdbool.h>
#include <jansson.h>

#include "godwit/error.h"
#include "shell/qmp_link.h"

#define GW_QMP_BATCH_MAX 12

struct gw_qmp_batch;

struct gw_qmp_batch_item {
    struct gw_qmp_call call;
    struct gw_qmp_batch *batch;
    const char *key;
    bool optional;
};

struct gw_qmp_batch {
    /*
     * Exactly once, from the loop. replies: {key: what the command returned, …}, borrowed; optional
     * commands that failed are missing. error: the first failure of one that is not optional, or
     * NULL.
     */
    void (*done)(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error);

    /* Private. */
    struct gw_qmp_batch_item items[GW_QMP_BATCH_MAX];
    unsigned n_items, n_answered;
    bool sent;
    json_t *replies;
    struct gw_error error;
};

/* An empty batch; it must stay where it is until done, or until gw_qmp_batch_fini. */
void gw_qmp_batch_init(struct gw_qmp_batch *batch,
                       void (*done)(struct gw_qmp_batch *, json_t *, const struct gw_error *));

/* Sends one more command; its reply goes under key (a literal). args is stolen, may be NULL. */
void gw_qmp_batch_add(struct gw_qmp_batch *batch, struct gw_qmp_link *link, const char *key,
                      bool optional, const char *command, json_t *args);

/* No more commands will be added: from here on done may be called. */
void gw_qmp_batch_end(struct gw_qmp_batch *batch);

/* Forgets what is under way; done is not called any more. Idempotent; fine in done. */
void gw_qmp_batch_fini(struct gw_qmp_batch *batch);

#endif
