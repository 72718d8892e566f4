/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer may send on a lane: frames, and the batches and packets in them. The receiver's guest
 * RAM has 16 pages. Nothing may be read or written outside of it, a refusal says why, and what QEMU
 * is sent is bounded by what came.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flow/receiver.h"

enum { N_PAGES = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct gw_ram ram; /* of this process: what is between the first page and the last */
    _Alignas(GW_PAGE_BYTES) uint8_t memory[N_PAGES + 2][GW_PAGE_BYTES];
    size_t n_sent;
    volatile uint8_t read; /* each byte, so that the sanitizers look at it */
} f;

static void open_ram(void)
{
    char line[128];

    snprintf(line, sizeof line, "pc.ram 4 KiB 0x0 0x%x 0x%x 0x%lx rw", N_PAGES * GW_PAGE_BYTES,
             N_PAGES * GW_PAGE_BYTES, (unsigned long)f.memory[1]);
    if (gw_ram_open(&f.ram, getpid(), line, NULL) < 0)
        abort();
}

static int take(struct gw_receiver *receiver, const void *bytes, size_t n, struct gw_error *e)
{
    (void)receiver;
    (void)e;
    for (size_t i = 0; i < n; i++)
        f.read += ((const uint8_t *)bytes)[i];
    f.n_sent += n;
    return 0;
}

static int drain(struct gw_receiver *receiver, struct gw_error *e)
{
    (void)receiver;
    (void)e;
    return 0;
}

static const struct gw_receiver_ops ops = {.send = take, .drain = drain};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_receiver receiver;
    struct gw_barrier barrier;
    struct gw_error error = {0};
    struct gw_frame frame;
    size_t used, n_frames = 0;
    int r = 0;

    if (!f.ram.n_blocks)
        open_ram();
    memset(f.memory, 0, sizeof f.memory);
    f.n_sent = 0;
    if (gw_barrier_init(&barrier, 1) < 0 || gw_receiver_init(&receiver, &ops, &f.ram, &barrier) < 0)
        abort();
    while (r == 0 && (r = gw_frame_parse(data, size, 1, &frame, &used, &error)) == 0) {
        if (used > size || frame.payload + frame.n_payload != data + used)
            abort();
        if (frame.kind == GW_FRAME_END)
            break;
        r = gw_receiver_take(&receiver, &frame, &error);
        data += used;
        size -= used;
        n_frames++;
    }
    if (r < 0 && (error.code == GW_OK || !error.msg[0]))
        abort();
    if (r > 0 && (used <= size || used > GW_FRAME_MAX))
        abort();
    if (f.n_sent > n_frames * (GW_FRAME_BYTES_MAX + GW_STREAM_HEADER_MAX))
        abort();
    for (size_t i = 0; i < GW_PAGE_BYTES; i++)
        if (f.memory[0][i] || f.memory[N_PAGES + 1][i])
            abort();
    gw_receiver_fini(&receiver);
    gw_barrier_fini(&barrier);
    return 0;
}
