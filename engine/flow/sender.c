/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/sender.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "util/cleanup.h"

int gw_sender_ram_add(struct gw_sender_ram *ram, const char *name, uint64_t n_bytes,
                      uint64_t history_bytes, struct gw_error *error)
{
    struct gw_history_options options = {.n_pages = n_bytes >> GW_PAGE_SHIFT,
                                         .limit_bytes = history_bytes};
    struct gw_sender_block *block = &ram->block[ram->n_blocks];
    int r;

    if (ram->n_blocks == GW_RAM_BLOCKS_MAX || strlen(name) >= sizeof block->name || !name[0] ||
        n_bytes == 0 || n_bytes % GW_PAGE_BYTES)
        return gw_error_set(error, GW_E_PROTOCOL, "RAM block '%.40s' of %" PRIu64 " bytes", name,
                            n_bytes);
    *block = (struct gw_sender_block){.n_bytes = n_bytes};
    strcpy(block->name, name);
    if (history_bytes) {
        if (getrandom(options.secret, sizeof options.secret, 0) != sizeof options.secret)
            return gw_error_set_sys(error, errno, "draw a secret");
        r = gw_history_new(&options, &block->history);
        if (r < 0 && r != -ENOSPC)
            return gw_error_set_sys(error, -r, "take memory for the history of %s", name);
    }
    ram->n_blocks++;
    return 0;
}

uint64_t gw_sender_ram_bytes(const struct gw_sender_ram *ram)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < ram->n_blocks; i++)
        sum += ram->block[i].n_bytes;
    return sum;
}

uint64_t gw_sender_ram_history_bytes(const struct gw_sender_ram *ram)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < ram->n_blocks; i++)
        if (ram->block[i].history)
            sum += gw_history_bytes(ram->block[i].history);
    return sum;
}

void gw_sender_ram_fini(struct gw_sender_ram *ram)
{
    for (unsigned i = 0; i < ram->n_blocks; i++)
        gw_history_free(gw_steal_ptr(&ram->block[i].history));
    ram->n_blocks = 0;
}

int gw_sender_init(struct gw_sender *sender, struct gw_sender_ram *ram, unsigned lane)
{
    *sender = (struct gw_sender){.ram = ram, .lane = lane};
    return gw_batch_encoder_new(&sender->encoder);
}

void gw_sender_fini(struct gw_sender *sender)
{
    gw_batch_encoder_free(gw_steal_ptr(&sender->encoder));
}

static struct gw_sender_block *find(const struct gw_sender *sender, const char *name)
{
    for (unsigned i = 0; i < sender->ram->n_blocks; i++)
        if (strcmp(sender->ram->block[i].name, name) == 0)
            return &sender->ram->block[i];
    return NULL;
}

bool gw_sender_takes(const struct gw_sender *sender, const struct gw_packet *packet)
{
    uint32_t n = packet->n_normal + packet->n_zero;

    if (packet->opaque || packet->flags & ~GW_STREAM_SYNC)
        return false;
    return n == 0 || (packet->page_bytes == GW_PAGE_BYTES && n <= GW_BATCH_MAX_PAGES &&
                      find(sender, packet->block));
}

static int list_pages(const struct gw_sender_block *block, const struct gw_packet *packet,
                      const uint8_t *payload, struct gw_batch_page *pages, struct gw_error *error)
{
    for (uint32_t i = 0; i < packet->n_normal + packet->n_zero; i++) {
        if (packet->offset[i] >= block->n_bytes)
            return gw_error_set(error, GW_E_PROTOCOL,
                                "QEMU sends a page at 0x%" PRIx64 " of %s, which has 0x%" PRIx64
                                " bytes",
                                packet->offset[i], block->name, block->n_bytes);
        pages[i].offset = packet->offset[i];
        pages[i].content = i < packet->n_normal ? payload + (size_t)i * GW_PAGE_BYTES : NULL;
    }
    return 0;
}

int gw_sender_pages(struct gw_sender *sender, const struct gw_packet *packet,
                    const uint8_t *payload, const struct gw_batch_setting *setting, uint8_t *frame,
                    size_t *n_framep, struct gw_batch_figures *figures, struct gw_error *error)
{
    struct gw_batch_page pages[GW_BATCH_MAX_PAGES];
    struct gw_batch_pages in = {.pages = pages, .n_pages = packet->n_normal + packet->n_zero};
    uint8_t *at = frame + GW_FRAME_HEADER_BYTES;

    memset(figures, 0, sizeof *figures);
    gw_frame_packet_put(at, packet);
    if (in.n_pages) {
        const struct gw_sender_block *block = find(sender, packet->block);

        if (list_pages(block, packet, payload, pages, error) < 0)
            return -1;
        in.block = block->name;
        in.history = block->history;
        if (gw_batch_encode(sender->encoder, &in, setting, at + GW_FRAME_PACKET_BYTES, figures) < 0)
            return gw_error_set(error, GW_E_PROTOCOL, "QEMU sends a page of %s twice in a packet",
                                block->name);
    }
    *n_framep = gw_frame_put(frame, GW_FRAME_PAGES, sender->lane,
                             GW_FRAME_PACKET_BYTES + figures->wire_bytes);
    return 0;
}

void gw_sender_passes(struct gw_sender *sender, const struct gw_packet *packet)
{
    const struct gw_sender_block *block = packet->opaque ? NULL : find(sender, packet->block);

    if (!block || !block->history)
        return;
    for (uint32_t i = 0; i < packet->n_normal + packet->n_zero; i++)
        if (packet->offset[i] < block->n_bytes)
            gw_history_forget(block->history, packet->offset[i] >> GW_PAGE_SHIFT);
}
