/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/hints.h"

#include "util/cleanup.h"

static void status_answered(struct gw_qmp_batch *batch, json_t *replies,
                            const struct gw_error *error)
{
    struct gw_hints_ask *ask = gw_container_of(batch, struct gw_hints_ask, status);

    ask->done(ask, error ? GW_HINTS_UNKNOWN : gw_hints_of(json_object_get(replies, "status")));
}

/* QEMU refuses to name its virtio devices where it has none. */
static void devices_answered(struct gw_qmp_batch *batch, json_t *replies,
                             const struct gw_error *error)
{
    struct gw_hints_ask *ask = gw_container_of(batch, struct gw_hints_ask, devices);
    const char *path = gw_hints_find_balloon(json_object_get(replies, "devices"));

    if (error || !path) {
        ask->done(ask, error ? GW_HINTS_UNKNOWN : GW_HINTS_NONE);
        return;
    }
    gw_qmp_batch_init(&ask->status, status_answered);
    gw_qmp_batch_add(&ask->status, ask->qmp, "status", true, "x-query-virtio-status",
                     json_pack("{s:s}", "path", path));
    gw_qmp_batch_end(&ask->status);
}

void gw_hints_ask(struct gw_hints_ask *ask, struct gw_qmp_link *qmp,
                  void (*done)(struct gw_hints_ask *, enum gw_hints))
{
    gw_hints_ask_fini(ask);
    ask->done = done;
    ask->qmp = qmp;
    gw_qmp_batch_init(&ask->devices, devices_answered);
    gw_qmp_batch_add(&ask->devices, qmp, "devices", true, "x-query-virtio", NULL);
    gw_qmp_batch_end(&ask->devices);
}

void gw_hints_ask_fini(struct gw_hints_ask *ask)
{
    gw_qmp_batch_fini(&ask->devices);
    gw_qmp_batch_fini(&ask->status);
}
