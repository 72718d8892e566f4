/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/lockwait.h"

#include <stdio.h>

#include "util/clock.h"

enum { DISKS_MAX = 8 };

/* As argv.c names them; QEMU knows the backend of a virtio device by this path only. */
static void path_of(size_t disk, char path[64])
{
    snprintf(path, 64, "/machine/peripheral/disk%zu/virtio-backend", disk);
}

void gw_lockwait_arm(struct gw_qmp_batch *batch, const struct gw_vm *vm)
{
    const struct gw_vm_spec *spec = vm->spec;

    if (spec->adopted_argv)
        return;
    for (size_t i = 0; i < spec->n_disks && i < DISKS_MAX; i++) {
        json_t *edges = json_array();
        char path[64];

        for (json_int_t ms = 1; ms <= GW_LOCKWAIT_MAX_MS; ms++)
            json_array_append_new(edges, json_integer(ms * (json_int_t)GW_NS_PER_MS));
        path_of(i, path);
        if (spec->disks[i].rbd)
            gw_qmp_batch_add(batch, vm->qmp, "histogram", true, "block-latency-histogram-set",
                             json_pack("{s:s, s:O}", "id", path, "boundaries-write", edges));
        json_decref(edges);
    }
}

/* Bin i ends at i + 1 ms, and the last one never. 0: all are empty. */
static size_t highest_bin(const json_t *bins)
{
    size_t i = json_array_size(bins);

    while (i > 0 && json_integer_value(json_array_get(bins, i - 1)) == 0)
        i--;
    return i;
}

uint64_t gw_lockwait_longest_ns(const json_t *blockstats)
{
    size_t longest = 0, i;
    const json_t *device;

    json_array_foreach (blockstats, i, device) {
        const json_t *histogram =
            json_object_get(json_object_get(device, "stats"), "wr_latency_histogram");
        size_t ms = highest_bin(json_object_get(histogram, "bins"));

        longest = ms > longest ? ms : longest;
    }
    return longest <= GW_LOCKWAIT_MAX_MS ? longest * GW_NS_PER_MS : 0;
}
