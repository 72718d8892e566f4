/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "shell/qmp_batch.h"
#include "util/cleanup.h"

#define COMMAND_TIMEOUT_NS UINT64_C(10000000000)

static void finish(struct gw_qmp_batch *batch)
{
    json_t *replies = gw_steal_ptr(&batch->replies);

    batch->done(batch, replies, batch->error.code ? &batch->error : NULL);
    json_decref(replies); /* batch may be gone by now */
}

static void item_done(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error)
{
    struct gw_qmp_batch_item *item = gw_container_of(call, struct gw_qmp_batch_item, call);
    struct gw_qmp_batch *batch = item->batch;

    if (reply)
        json_object_set(batch->replies, item->key, reply);
    else if (!item->optional && batch->error.code == GW_OK)
        batch->error = *error;
    batch->n_answered++;
    if (batch->sent && batch->n_answered == batch->n_items)
        finish(batch);
}

void gw_qmp_batch_init(struct gw_qmp_batch *batch,
                       void (*done)(struct gw_qmp_batch *, json_t *, const struct gw_error *))
{
    memset(batch, 0, sizeof *batch);
    batch->done = done;
    batch->replies = json_object();
}

void gw_qmp_batch_add(struct gw_qmp_batch *batch, struct gw_qmp_link *link, const char *key,
                      bool optional, const char *command, json_t *args)
{
    struct gw_qmp_batch_item *item = &batch->items[batch->n_items];

    assert(batch->n_items < GW_QMP_BATCH_MAX && !batch->sent);
    batch->n_items++;
    item->batch = batch;
    item->key = key;
    item->optional = optional;
    item->call.done = item_done;
    gw_qmp_link_execute(link, &item->call, command, args, COMMAND_TIMEOUT_NS);
}

void gw_qmp_batch_end(struct gw_qmp_batch *batch)
{
    assert(batch->n_items > 0 && batch->n_answered == 0);
    batch->sent = true;
}

void gw_qmp_batch_fini(struct gw_qmp_batch *batch)
{
    for (unsigned i = 0; i < batch->n_items; i++)
        gw_qmp_session_cancel_call(&batch->items[i].call);
    batch->n_items = 0;
    json_decref(batch->replies);
    batch->replies = NULL;
}
