/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/stream.h"

#include <endian.h>
#include <inttypes.h>
#include <string.h>

#define MAIN_MAGIC    0x5145564du /* "QEVM" */
#define MULTIFD_MAGIC 0x11223344u
#define VERSION       1
#define START_BYTES   12 /* of each header: enough to know its kind */
#define PACKET_BYTES  (512 * 1024)
#define KNOWN_FLAGS   (GW_STREAM_SYNC | GW_STREAM_COMPRESSION | GW_STREAM_DEVICE_STATE)

/* Places in the header of a packet with pages. */
enum {
    AT_FLAGS = 8,
    AT_ALLOC = 12,
    AT_NORMAL = 16,
    AT_NEXT_SIZE = 20,
    AT_NUMBER = 24,
    AT_ZERO = 32,
    AT_NAME = 64,
    AT_STATE_NEXT_SIZE = 272,
};

static uint32_t get32(const uint8_t *from)
{
    uint32_t value;

    memcpy(&value, from, sizeof value);
    return be32toh(value);
}

static uint64_t get64(const uint8_t *from)
{
    uint64_t value;

    memcpy(&value, from, sizeof value);
    return be64toh(value);
}

static void put32(uint8_t *to, uint32_t value)
{
    value = htobe32(value);
    memcpy(to, &value, sizeof value);
}

static void put64(uint8_t *to, uint64_t value)
{
    value = htobe64(value);
    memcpy(to, &value, sizeof value);
}

static bool is_page_size(uint64_t n)
{
    return n >= 1024 && n <= 65536 && (n & (n - 1)) == 0;
}

void gw_stream_init(struct gw_stream *stream, uint32_t page_bytes)
{
    memset(stream, 0, sizeof *stream);
    stream->page_bytes = page_bytes;
    stream->capacity = PACKET_BYTES / page_bytes;
    stream->n_want = 4;
    stream->between = true;
}

void gw_stream_want(const struct gw_stream *stream, struct gw_stream_want *want)
{
    if (stream->n_left) {
        want->into = NULL;
        want->n_bytes = stream->n_left > SIZE_MAX / 2 ? SIZE_MAX / 2 : (size_t)stream->n_left;
    } else {
        size_t held = stream->between ? 0 : stream->n_head;

        want->into = (void *)(stream->head + held);
        want->n_bytes = stream->n_want - held;
    }
}

static int check_start(const struct gw_stream *stream, struct gw_error *error)
{
    uint32_t magic = get32(stream->head), version = get32(stream->head + 4);

    if (magic != MULTIFD_MAGIC)
        return gw_error_set(error, GW_E_PROTOCOL,
                            "multifd channel %u: a header begins with 0x%08x, not with 0x%08x",
                            stream->id, magic, MULTIFD_MAGIC);
    if (version != VERSION)
        return gw_error_set(error, GW_E_UNSUPPORTED,
                            "multifd channel %u: version %u of the protocol, only %u is known",
                            stream->id, version, VERSION);
    return 0;
}

/* The first four bytes tell the channels apart. */
static int classify(struct gw_stream *stream, enum gw_piece *piecep, struct gw_error *error)
{
    uint32_t magic = get32(stream->head);

    if (magic == MAIN_MAGIC) {
        stream->channel = GW_CHANNEL_MAIN;
        stream->n_left = UINT64_MAX;
        stream->between = true;
        *piecep = GW_PIECE_MAIN;
        return 0;
    }
    if (magic == MULTIFD_MAGIC) {
        stream->channel = GW_CHANNEL_MULTIFD;
        stream->n_want = GW_STREAM_HELLO_BYTES;
        return 0;
    }
    gw_error_set(error, GW_E_UNSUPPORTED,
                 "a connection of QEMU begins with 0x%08x: neither the main channel nor multifd",
                 magic);
    return gw_error_hint(error, "switch TLS and postcopy-preempt off on this migration");
}

static int take_hello(struct gw_stream *stream, enum gw_piece *piecep, struct gw_error *error)
{
    if (check_start(stream, error) < 0)
        return -1;
    memcpy(stream->uuid, stream->head + 8, sizeof stream->uuid);
    stream->id = stream->head[24];
    stream->n_want = START_BYTES;
    stream->between = true;
    *piecep = GW_PIECE_HELLO;
    return 0;
}

/* Twelve bytes of a header: how long is the rest? */
static int take_start(struct gw_stream *stream, struct gw_error *error)
{
    uint32_t flags = get32(stream->head + AT_FLAGS);

    if (check_start(stream, error) < 0)
        return -1;
    if (flags & ~KNOWN_FLAGS) {
        gw_error_set(error, GW_E_UNSUPPORTED,
                     "multifd channel %u: a packet has the flags 0x%x, of which 0x%x are not known",
                     stream->id, flags, flags & ~KNOWN_FLAGS);
        return gw_error_hint(error, "this QEMU is newer than the carrier: use the native route");
    }
    if (flags & GW_STREAM_DEVICE_STATE)
        stream->n_want = GW_STREAM_STATE_BYTES;
    else
        stream->n_want = GW_STREAM_OFFSETS_AT; /* pages_alloc says how many offsets there are */
    return 0;
}

/* All but the offsets is there. pages_alloc is the capacity of every packet, once it is told. */
static int take_capacity(struct gw_stream *stream, struct gw_error *error)
{
    uint32_t alloc = get32(stream->head + AT_ALLOC);

    if (alloc && !stream->capacity_is_known) {
        if (alloc > GW_STREAM_PAGES_PER_MAX)
            return gw_error_set(error, GW_E_PROTOCOL,
                                "multifd channel %u: a packet for %u pages, more than %u",
                                stream->id, alloc, GW_STREAM_PAGES_PER_MAX);
        stream->capacity = alloc;
        stream->capacity_is_known = true;
    }
    if (alloc && alloc != stream->capacity)
        return gw_error_set(error, GW_E_PROTOCOL,
                            "multifd channel %u: a packet for %u pages after packets for %u",
                            stream->id, alloc, stream->capacity);
    stream->n_want = GW_STREAM_OFFSETS_AT + 8 * (size_t)stream->capacity;
    return 0;
}

/* Uncompressed pages: the payload is as long as they are, and QEMU says the same. */
static int take_page_size(struct gw_stream *stream, uint32_t next_size, struct gw_error *error)
{
    uint32_t n = stream->packet.n_normal;

    if (n && !stream->page_bytes_is_known) {
        if (next_size % n || !is_page_size(next_size / n))
            return gw_error_set(error, GW_E_PROTOCOL,
                                "multifd channel %u: %u bytes are announced for %u pages",
                                stream->id, next_size, n);
        stream->page_bytes = next_size / n;
        stream->page_bytes_is_known = true;
    }
    if (n && next_size != (uint64_t)n * stream->page_bytes)
        return gw_error_set(error, GW_E_PROTOCOL,
                            "multifd channel %u: %u bytes are announced for %u pages of %u",
                            stream->id, next_size, n, stream->page_bytes);
    stream->packet.page_bytes = stream->page_bytes;
    stream->packet.n_payload = (uint64_t)n * stream->page_bytes;
    return 0;
}

static int check_counts(const struct gw_stream *stream, uint32_t n_normal, uint32_t n_zero,
                        struct gw_error *error)
{
    uint32_t capacity = stream->capacity;

    if (n_normal > capacity || n_zero > capacity - n_normal)
        return gw_error_set(
            error, GW_E_PROTOCOL,
            "multifd channel %u: %u pages and %u zero pages in a packet for %u pages", stream->id,
            n_normal, n_zero, capacity);
    if ((n_normal || n_zero) && !memchr(stream->head + AT_NAME, '\0', GW_STREAM_NAME_BYTES))
        return gw_error_set(error, GW_E_PROTOCOL,
                            "multifd channel %u: the name of a RAM block has no end", stream->id);
    return 0;
}

static int take_offsets(struct gw_stream *stream, struct gw_error *error)
{
    struct gw_packet *packet = &stream->packet;
    uint32_t n = packet->n_normal + packet->n_zero;

    for (uint32_t i = 0; i < n; i++) {
        uint64_t offset = get64(stream->head + GW_STREAM_OFFSETS_AT + 8 * (size_t)i);

        if (offset % packet->page_bytes)
            return gw_error_set(error, GW_E_PROTOCOL,
                                "multifd channel %u: a page at 0x%" PRIx64
                                ", no multiple of the page size %u",
                                stream->id, offset, packet->page_bytes);
        packet->offset[i] = offset;
    }
    return 0;
}

static int take_pages(struct gw_stream *stream, struct gw_error *error)
{
    struct gw_packet *packet = &stream->packet;
    const uint8_t *head = stream->head;
    uint32_t n_normal = get32(head + AT_NORMAL), n_zero = get32(head + AT_ZERO);
    uint32_t next_size = get32(head + AT_NEXT_SIZE);

    if (check_counts(stream, n_normal, n_zero, error) < 0)
        return -1;
    packet->capacity = stream->capacity;
    packet->alloc = get32(head + AT_ALLOC);
    packet->number = get64(head + AT_NUMBER);
    packet->block[0] = '\0';
    if (n_normal || n_zero)
        memcpy(packet->block, head + AT_NAME, GW_STREAM_NAME_BYTES);
    if (packet->flags & GW_STREAM_COMPRESSION) {
        packet->opaque = true;
        packet->page_bytes = stream->page_bytes;
        packet->n_payload = n_normal ? next_size : 0;
        return 0;
    }
    packet->n_normal = n_normal;
    packet->n_zero = n_zero;
    if (take_page_size(stream, next_size, error) < 0)
        return -1;
    return take_offsets(stream, error);
}

static int take_header(struct gw_stream *stream, enum gw_piece *piecep, struct gw_error *error)
{
    struct gw_packet *packet = &stream->packet;

    if (stream->n_want == START_BYTES)
        return take_start(stream, error);
    packet->flags = get32(stream->head + AT_FLAGS);
    packet->sync = packet->flags & GW_STREAM_SYNC;
    packet->opaque = packet->flags & GW_STREAM_DEVICE_STATE;
    packet->n_normal = packet->n_zero = 0;
    if (packet->opaque) {
        packet->block[0] = '\0';
        packet->n_payload = get32(stream->head + AT_STATE_NEXT_SIZE);
    } else if (stream->n_want == GW_STREAM_OFFSETS_AT) {
        return take_capacity(stream, error);
    } else if (take_pages(stream, error) < 0) {
        return -1;
    }
    stream->n_left = packet->n_payload;
    stream->n_want = START_BYTES;
    stream->between = true;
    *piecep = GW_PIECE_PACKET;
    return 0;
}

static int take_head(struct gw_stream *stream, size_t n_bytes, enum gw_piece *piecep,
                     struct gw_error *error)
{
    stream->n_head = (stream->between ? 0 : stream->n_head) + n_bytes;
    stream->between = false;
    if (stream->n_head < stream->n_want)
        return 0;
    if (stream->channel == GW_CHANNEL_NEW)
        return classify(stream, piecep, error);
    if (stream->n_want == GW_STREAM_HELLO_BYTES)
        return take_hello(stream, piecep, error);
    return take_header(stream, piecep, error);
}

int gw_stream_took(struct gw_stream *stream, size_t n_bytes, enum gw_piece *piecep,
                   struct gw_error *error)
{
    *piecep = GW_PIECE_NONE;
    if (stream->dead)
        return gw_error_set(error, GW_E_PROTOCOL, "the connection to QEMU is of no further use");
    if (n_bytes == 0)
        return 0;
    if (stream->n_left) {
        if (stream->channel != GW_CHANNEL_MAIN)
            stream->n_left -= n_bytes;
        *piecep = GW_PIECE_PAYLOAD;
        return 0;
    }
    if (take_head(stream, n_bytes, piecep, error) < 0) {
        stream->dead = true;
        return -1;
    }
    return 0;
}

int gw_stream_push(struct gw_stream *stream, const void *data, size_t n_bytes, size_t *usedp,
                   enum gw_piece *piecep, struct gw_error *error)
{
    const uint8_t *from = data;

    *usedp = 0;
    *piecep = GW_PIECE_NONE;
    while (*usedp < n_bytes && *piecep == GW_PIECE_NONE) {
        struct gw_stream_want want;
        size_t n = n_bytes - *usedp;

        gw_stream_want(stream, &want);
        if (n > want.n_bytes)
            n = want.n_bytes;
        if (want.into && !stream->dead)
            memcpy(want.into, from + *usedp, n);
        *usedp += n;
        if (gw_stream_took(stream, n, piecep, error) < 0)
            return -1;
    }
    return 0;
}

int gw_stream_end(const struct gw_stream *stream, struct gw_error *error)
{
    if (!stream->dead && stream->between &&
        (stream->n_left == 0 || stream->channel == GW_CHANNEL_MAIN))
        return 0;
    return gw_error_set(error, GW_E_PROTOCOL, "QEMU closed a %s in the middle of a packet",
                        stream->channel == GW_CHANNEL_MULTIFD ? "multifd channel" : "connection");
}

void gw_packet_strip(uint8_t *head, bool keep_sync)
{
    if (!keep_sync)
        put32(head + AT_FLAGS, get32(head + AT_FLAGS) & ~GW_STREAM_SYNC);
    put32(head + AT_NORMAL, 0);
    put32(head + AT_NEXT_SIZE, 0);
    put32(head + AT_ZERO, 0);
}

size_t gw_packet_encode(const struct gw_packet *packet, uint8_t *head)
{
    size_t n_head = GW_STREAM_OFFSETS_AT + 8 * (size_t)packet->capacity;
    uint32_t n = packet->n_normal + packet->n_zero;

    if (packet->opaque || packet->capacity > GW_STREAM_PAGES_PER_MAX ||
        packet->n_normal > packet->capacity ||
        packet->n_zero > packet->capacity - packet->n_normal ||
        !memchr(packet->block, '\0', sizeof packet->block))
        return 0;
    memset(head, 0, n_head);
    put32(head, MULTIFD_MAGIC);
    put32(head + 4, VERSION);
    put32(head + AT_FLAGS, packet->flags);
    put32(head + AT_ALLOC, packet->alloc);
    put32(head + AT_NORMAL, packet->n_normal);
    put32(head + AT_NEXT_SIZE, packet->n_normal * packet->page_bytes);
    put64(head + AT_NUMBER, packet->number);
    put32(head + AT_ZERO, packet->n_zero);
    memcpy(head + AT_NAME, packet->block, strlen(packet->block));
    for (uint32_t i = 0; i < n; i++)
        put64(head + GW_STREAM_OFFSETS_AT + 8 * (size_t)i, packet->offset[i]);
    return n_head;
}
