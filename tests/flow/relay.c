/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands between two QEMUs on one machine and does with the stream what the carrier's destination
 * does: pages go straight into the guest's RAM, stripped packets to QEMU. One thread a connection.
 *
 *     relay --listen PATH --connect PATH --lanes N [--pid PID --ramblocks FILE [--poison]]
 *           [--record DIR]
 *
 * --pid and --ramblocks (the answer to `info ramblock`) are the destination's; without them all
 * payload goes through QEMU. --poison fills that RAM before anything comes, so that a page which
 * nobody writes is seen. --record writes each multifd channel to DIR/lane-ID, with a pattern
 * instead of the payload and at most RECORD_BYTES long. Prints "ready", at the end a line of JSON.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "flow/barrier.h"
#include "flow/page.h"
#include "flow/ram.h"
#include "flow/stream.h"
#include "util/cleanup.h"

#define LANES_MAX    16
#define RECORD_BYTES (100 * 1024)
#define COPY_BYTES   (256 * 1024)

struct counts {
    uint64_t applied, zeroed, passed, syncs, drains;
};

struct channel {
    int from, to; /* QEMU at the source, at the destination */
    pthread_t thread;
    bool after_sync; /* nothing was applied since the last SYNC */
    struct gw_stream stream;
    struct counts n;
    FILE *record;
    uint8_t copy[COPY_BYTES];
    uint8_t pages[GW_RAM_PARTS_MAX][GW_PAGE_BYTES];
};

static struct channel channels[LANES_MAX + 1];
static unsigned n_channels;
static struct gw_ram ram;
static struct gw_barrier barrier;
static const char *record_dir;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gw_error first_error; /* under lock */

/* Everything ends: whoever waits for a socket or for the barrier wakes up. Returns -1. */
static int fail(const struct gw_error *error)
{
    pthread_mutex_lock(&lock);
    if (first_error.code == GW_OK)
        first_error = *error;
    pthread_mutex_unlock(&lock);
    gw_barrier_abort(&barrier);
    for (unsigned i = 0; i < n_channels; i++) {
        shutdown(channels[i].from, SHUT_RDWR);
        shutdown(channels[i].to, SHUT_RDWR);
    }
    return -1;
}

static int fail_sys(const char *what)
{
    struct gw_error error;

    gw_error_set_sys(&error, errno, "%s", what);
    return fail(&error);
}

static int fail_text(const char *what)
{
    struct gw_error error;

    gw_error_set(&error, GW_E_PROTOCOL, "%s", what);
    return fail(&error);
}

static int send_all(int fd, const void *data, size_t n_bytes)
{
    const char *from = data;

    while (n_bytes) {
        ssize_t n = send(fd, from, n_bytes, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR)
            return fail_sys("send to the destination's QEMU");
        if (n > 0) {
            from += n;
            n_bytes -= (size_t)n;
        }
    }
    return 0;
}

/* Tells the stream of bytes that were read. 1: a piece; 0: none yet; -1: failed. */
static int took(struct channel *c, size_t n, enum gw_piece *piecep)
{
    struct gw_error error;

    if (gw_stream_took(&c->stream, n, piecep, &error) < 0)
        return fail(&error);
    return *piecep != GW_PIECE_NONE;
}

/* Reads up to the next piece that is no payload. 1; 0 at the end of the connection; -1. */
static int read_piece(struct channel *c, enum gw_piece *piecep)
{
    struct gw_stream_want want;
    struct gw_error error;
    int r = 0;

    while (r == 0) {
        ssize_t n;

        gw_stream_want(&c->stream, &want);
        n = read(c->from, want.into, want.n_bytes);
        if (n < 0)
            return fail_sys("read from the source's QEMU");
        if (n == 0)
            return gw_stream_end(&c->stream, &error) < 0 ? fail(&error) : 0;
        r = took(c, (size_t)n, piecep);
    }
    return r;
}

/* --- payload ------------------------------------------------------------------------ */

static int pass_payload(struct channel *c)
{
    enum gw_piece piece;

    while (c->stream.n_left) {
        size_t room = sizeof c->copy;
        ssize_t n = read(c->from, c->copy, c->stream.n_left < room ? c->stream.n_left : room);

        if (n <= 0)
            return n < 0 ? fail_sys("read payload") : fail_text("a packet was cut off");
        if (took(c, (size_t)n, &piece) < 0 || send_all(c->to, c->copy, (size_t)n) < 0)
            return -1;
    }
    return 0;
}

static int read_pages(struct channel *c, uint8_t *into)
{
    enum gw_piece piece;

    while (c->stream.n_left) {
        ssize_t n = read(c->from, into, c->stream.n_left);

        if (n <= 0)
            return n < 0 ? fail_sys("read pages") : fail_text("a packet was cut off");
        if (took(c, (size_t)n, &piece) < 0)
            return -1;
        into += n;
    }
    return 0;
}

static int apply(struct channel *c, const struct gw_ram_block *block)
{
    const struct gw_packet *p = &c->stream.packet;
    struct gw_ram_parts parts = {.n = 0};
    struct gw_error error;

    if (p->page_bytes != GW_PAGE_BYTES || p->n_normal > GW_RAM_PARTS_MAX)
        return fail_text("a packet is larger than QEMU makes them");
    for (unsigned i = 0; i < p->n_normal; i++)
        gw_ram_add_part(&parts, p->offset[i], c->pages[i], GW_PAGE_BYTES);
    if (read_pages(c, c->pages[0]) < 0)
        return -1;
    if (gw_ram_write(&ram, block, &parts, &error) < 0)
        return fail(&error);
    for (unsigned i = 0; i < p->n_zero; i++)
        if (gw_ram_zero(&ram, block, p->offset[p->n_normal + i], GW_PAGE_BYTES, &error) < 0)
            return fail(&error);
    c->n.applied += p->n_normal;
    c->n.zeroed += p->n_zero;
    return 0;
}

/* --- packets ------------------------------------------------------------------------ */

/* The second rule of barrier.h. */
static int await_qemu(struct channel *c)
{
    uint8_t head[GW_STREAM_HEADER_MAX];
    int done;

    memcpy(head, c->stream.head, c->stream.n_head);
    gw_packet_strip(head, false);
    if (send_all(c->to, head, c->stream.n_head) < 0)
        return -1;
    while ((done = gw_drain_is_done(c->to)) == 0) {
        struct pollfd until = {.fd = c->to, .events = POLLOUT};

        if (poll(&until, 1, -1) < 0 && errno != EINTR)
            return fail_sys("wait for QEMU");
        if (until.revents & (POLLHUP | POLLERR))
            return fail_text("the destination's QEMU closed a channel");
    }
    c->n.drains++;
    c->after_sync = false;
    return done < 0 ? fail_text("SIOCOUTQ") : 0;
}

static int arrive(struct channel *c)
{
    if (gw_barrier_arrive(&barrier) != 0)
        return fail_text("another lane has ended");
    c->after_sync = true;
    c->n.syncs++;
    return 0;
}

static int pass_packet(struct channel *c)
{
    const struct gw_packet *p = &c->stream.packet;

    c->n.passed += p->n_normal + p->n_zero;
    if (p->sync && arrive(c) < 0)
        return -1;
    return send_all(c->to, c->stream.head, c->stream.n_head) < 0 ? -1 : pass_payload(c);
}

static int apply_packet(struct channel *c, const struct gw_ram_block *block)
{
    const struct gw_packet *p = &c->stream.packet;
    bool told = false;

    if (c->after_sync) {
        if (await_qemu(c) < 0)
            return -1;
        told = true;
    }
    if (apply(c, block) < 0 || (p->sync && arrive(c) < 0))
        return -1;
    if (told && !p->sync)
        return 0;
    gw_packet_strip(c->stream.head, true);
    return send_all(c->to, c->stream.head, c->stream.n_head);
}

static void record(struct channel *c)
{
    const struct gw_packet *p = &c->stream.packet;

    if (!c->record || ftell(c->record) + (long)(c->stream.n_head + p->n_payload) > RECORD_BYTES)
        return;
    fwrite(c->stream.head, 1, c->stream.n_head, c->record);
    for (uint64_t i = 0; i < p->n_payload; i++)
        fputc((int)(i / p->page_bytes % 251), c->record);
}

static int relay_packet(struct channel *c)
{
    const struct gw_packet *p = &c->stream.packet;
    const struct gw_ram_block *block = NULL;

    record(c);
    if (!p->opaque && p->n_normal + p->n_zero)
        block = gw_ram_find(&ram, p->block);
    return block && block->writable ? apply_packet(c, block) : pass_packet(c);
}

/* --- connections -------------------------------------------------------------------- */

/* One direction's bytes that are there. 1; 0: it has ended; -1. */
static int copy_some(struct channel *c, int from, int to)
{
    ssize_t n = read(from, c->copy, sizeof c->copy);

    if (n > 0)
        return send_all(to, c->copy, (size_t)n) < 0 ? -1 : 1;
    shutdown(to, SHUT_WR);
    return 0;
}

static void relay_main(struct channel *c)
{
    struct pollfd ends[2] = {{.fd = c->from, .events = POLLIN}, {.fd = c->to, .events = POLLIN}};

    while (ends[0].fd >= 0 || ends[1].fd >= 0) {
        if (poll(ends, 2, -1) < 0)
            continue;
        for (int i = 0; i < 2; i++)
            if (ends[i].revents && copy_some(c, i ? c->to : c->from, i ? c->from : c->to) <= 0)
                ends[i].fd = -1;
    }
}

static void start_record(struct channel *c)
{
    char path[512];

    if (!record_dir)
        return;
    snprintf(path, sizeof path, "%s/lane-%u", record_dir, c->stream.id);
    c->record = fopen(path, "wbe");
    if (!c->record)
        fail_sys(path);
    else
        fwrite(c->stream.head, 1, c->stream.n_head, c->record);
}

static void relay_lane(struct channel *c)
{
    enum gw_piece piece;

    start_record(c);
    /* Where payload passes, a small buffer would only make it slow: QEMU keeps the order then. */
    if (ram.n_blocks && gw_drain_prepare(c->to) < 0) {
        fail_text("SO_SNDBUF");
        return;
    }
    while (read_piece(c, &piece) > 0)
        if (relay_packet(c) < 0)
            return;
    shutdown(c->to, SHUT_WR);
    gw_barrier_abort(&barrier); /* this lane will not come again */
    if (c->record)
        fclose(c->record);
}

static void *run(void *argument)
{
    struct channel *c = argument;
    enum gw_piece piece;

    if (read_piece(c, &piece) <= 0 || send_all(c->to, c->stream.head, c->stream.n_head) < 0)
        return NULL;
    if (piece == GW_PIECE_MAIN)
        relay_main(c);
    else
        relay_lane(c);
    return NULL;
}

static int unix_socket(const char *path, int (*use)(int, const struct sockaddr *, socklen_t))
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || use(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror(path);
        exit(1);
    }
    return fd;
}

static void relay_all(const char *listen_path, const char *connect_path, unsigned n_wanted)
{
    int listener = unix_socket(listen_path, bind);

    if (listen(listener, LANES_MAX) < 0)
        exit(1);
    puts("ready");
    fflush(stdout);
    while (n_channels < n_wanted) {
        struct channel *c = &channels[n_channels];

        c->from = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (c->from < 0)
            exit(1);
        c->to = unix_socket(connect_path, connect);
        gw_stream_init(&c->stream, 4096);
        n_channels++;
        if (pthread_create(&c->thread, NULL, run, c) != 0)
            exit(1);
    }
    close(listener);
}

static unsigned count_blocks(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < ram.n_blocks; i++)
        n += ram.block[i].writable;
    return n;
}

static void report(void)
{
    struct counts sum = {0};

    for (unsigned i = 0; i < n_channels; i++) {
        pthread_join(channels[i].thread, NULL);
        close(channels[i].from);
        close(channels[i].to);
        sum.applied += channels[i].n.applied;
        sum.zeroed += channels[i].n.zeroed;
        sum.passed += channels[i].n.passed;
        sum.syncs += channels[i].n.syncs;
        sum.drains += channels[i].n.drains;
    }
    printf("{\"blocks\": %u, \"applied\": %" PRIu64 ", \"zeroed\": %" PRIu64
           ", \"passed\": %" PRIu64 ", \"syncs\": %" PRIu64 ", \"drains\": %" PRIu64
           ", \"rounds\": %" PRIu64 "}\n",
           count_blocks(), sum.applied, sum.zeroed, sum.passed, sum.syncs, sum.drains,
           gw_barrier_round(&barrier));
}

static void poison_block(const struct gw_ram_block *block)
{
    static uint8_t poison[GW_PAGE_BYTES];
    struct gw_error error;

    memset(poison, 0xa5, sizeof poison);
    for (uint64_t at = 0; at < block->n_bytes; at += sizeof poison) {
        const struct gw_ram_parts parts = {.n = 1, .part[0] = {at, poison, sizeof poison}};

        if (gw_ram_write(&ram, block, &parts, &error) < 0)
            exit(1);
    }
}

static void poison_ram(void)
{
    for (unsigned i = 0; i < ram.n_blocks; i++)
        if (ram.block[i].writable)
            poison_block(&ram.block[i]);
}

static void open_ram(pid_t pid, const char *path)
{
    struct gw_error error;
    char text[65536] = "";
    FILE *file = fopen(path, "re");

    if (!file || fread(text, 1, sizeof text - 1, file) == 0) {
        perror(path);
        exit(1);
    }
    fclose(file);
    if (gw_ram_open(&ram, pid, text, &error) < 0) {
        fprintf(stderr, "relay: %s\n", error.msg);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"listen", required_argument, NULL, 'l'},    {"connect", required_argument, NULL, 'c'},
        {"lanes", required_argument, NULL, 'n'},     {"pid", required_argument, NULL, 'p'},
        {"ramblocks", required_argument, NULL, 'r'}, {"record", required_argument, NULL, 'R'},
        {"poison", no_argument, NULL, 'P'},          {0},
    };
    const char *listen_path = NULL, *connect_path = NULL, *ramblocks = NULL;
    unsigned n_lanes = 0;
    bool poison = false;
    pid_t pid = 0;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (c) {
        case 'l': listen_path = optarg; break;
        case 'c': connect_path = optarg; break;
        case 'n': n_lanes = (unsigned)atoi(optarg); break;
        case 'p': pid = atoi(optarg); break;
        case 'r': ramblocks = optarg; break;
        case 'R': record_dir = optarg; break;
        case 'P': poison = true; break;
        default: return 2;
        }
    if (!listen_path || !connect_path || n_lanes < 1 || n_lanes > LANES_MAX)
        return 2;
    if (ramblocks)
        open_ram(pid, ramblocks);
    if (poison)
        poison_ram();
    if (gw_barrier_init(&barrier, n_lanes) < 0)
        return 1;
    relay_all(listen_path, connect_path, n_lanes + 1);
    report();
    gw_barrier_fini(&barrier);
    gw_ram_close(&ram);
    if (first_error.code != GW_OK)
        fprintf(stderr, "relay: %s\n", first_error.msg);
    return first_error.code != GW_OK;
}
