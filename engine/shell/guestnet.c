/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/ether.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "host/macmove.h"
#include "host/tapwatch.h"
#include "shell/daemon.h"
#include "shell/guestnet.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define ANNOUNCE_ROUNDS 5
#define FRAME_MAX       70000u             /* a GSO frame and its header */
#define DELIVERED_NS    (5 * GW_NS_PER_MS) /* this long before the pause QEMU had still read it */

struct nic {
    struct gw_macmove mm;
    unsigned index; /* in the VM's list */
    int tap_fd;     /* QEMU's, duplicated when it is first needed; -1 */
    struct gw_tapwatch watch;
    bool drained; /* what QEMU swallowed has been sent */
};

struct gw_guestnet {
    struct gw_vm *vm;
    struct nic nics[GW_VM_MAX_NICS];
    unsigned n_nics;
    struct event *timer;
    unsigned rounds;    /* announcements made */
    uint64_t paused_ns; /* monotonic; 0: the guest runs */
};

static void complain(struct gw_guestnet *net, int result, const char *what,
                     const struct gw_error *error)
{
    if (result < 0)
        gw_log(&net->vm->daemon->log, GW_LOG_WARNING, net->vm->spec->name, "%s: %s", what,
               error->msg);
}

static void announce_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    gw_guestnet_announce(arg);
}

struct gw_guestnet *gw_guestnet_open(struct gw_vm *vm)
{
    struct gw_guestnet *net = calloc(1, sizeof *net);
    struct gw_error error;

    if (!net)
        abort();
    net->vm = vm;
    net->timer = evtimer_new(vm->daemon->base, announce_again, net);
    for (unsigned i = 0; i < vm->n_taps; i++) {
        const struct gw_vm_nic *nic = &vm->spec->nics[i];
        struct nic *mine = &net->nics[net->n_nics];
        int result;

        if (!nic->mac || !nic->bridge)
            continue;
        result = gw_macmove_open(&mine->mm, nic->bridge, vm->tap_names[i], nic->mac, &error);
        complain(net, result, "its network cannot be moved", &error);
        if (result < 0)
            continue;
        mine->index = i;
        mine->tap_fd = -1;
        result = gw_tapwatch_open(&mine->watch, vm->tap_names[i], &error);
        complain(net, result, "its last frames cannot be kept", &error);
        net->n_nics++;
    }
    return net;
}

void gw_guestnet_free(struct gw_guestnet *net)
{
    if (!net)
        return;
    for (unsigned i = 0; i < net->n_nics; i++) {
        gw_macmove_fini(&net->nics[i].mm);
        gw_cleanup_close(&net->nics[i].tap_fd);
        gw_tapwatch_fini(&net->nics[i].watch);
    }
    event_free(net->timer);
    free(net);
}

void gw_guestnet_hold(struct gw_guestnet *net)
{
    struct gw_error error;

    for (unsigned i = 0; i < net->n_nics; i++)
        complain(net, gw_macmove_hold(&net->nics[i].mm, &error), "holding back its frames", &error);
}

/* A frame that nobody misses: to the guest itself, of the EtherType for local experiments (IEEE
 * 802). */
static void inject_filler(struct gw_guestnet *net, struct nic *nic)
{
    uint8_t frame[GW_MACMOVE_HEADER_BYTES + ETH_ZLEN] = {0};
    struct ether_header *header = (struct ether_header *)(frame + GW_MACMOVE_HEADER_BYTES);
    const struct ether_addr *mac = ether_aton(net->vm->spec->nics[nic->index].mac);
    struct gw_error error;

    if (!mac)
        return;
    memcpy(header->ether_dhost, mac, ETH_ALEN);
    memcpy(header->ether_shost, mac, ETH_ALEN);
    header->ether_type = htons(ETH_P_802_EX1);
    complain(net, gw_macmove_inject(&nic->mm, frame, sizeof frame, &error),
             "filling its tap's first place", &error);
}

void gw_guestnet_prime(struct gw_guestnet *net)
{
    for (unsigned i = 0; i < net->n_nics; i++)
        inject_filler(net, &net->nics[i]);
}

void gw_guestnet_take(struct gw_guestnet *net)
{
    struct gw_error error;

    for (unsigned i = 0; i < net->n_nics; i++)
        complain(net, gw_macmove_take(&net->nics[i].mm, &error), "taking its MAC", &error);
}

void gw_guestnet_announce(struct gw_guestnet *net)
{
    struct timeval later = {.tv_usec = 50000 + 100000 * (suseconds_t)net->rounds};
    struct gw_error error;

    for (unsigned i = 0; i < net->n_nics; i++)
        complain(net, gw_macmove_announce(&net->nics[i].mm, &error), "announcing its MAC", &error);
    if (++net->rounds < ANNOUNCE_ROUNDS) {
        event_add(net->timer, &later);
        return;
    }
    net->vm->net = NULL; /* the last one: everybody has heard it */
    gw_guestnet_free(net);
}

/* Frames on their way to another node. */

static json_t *encode(const uint8_t *frame, size_t n_bytes)
{
    gw_autofree unsigned char *text = malloc(4 * ((n_bytes + 2) / 3) + 1);

    if (!text)
        return NULL;
    EVP_EncodeBlock(text, frame, (int)n_bytes);
    return json_string((const char *)text);
}

static int open_tap(struct gw_guestnet *net, struct nic *nic)
{
    struct gw_error error;

    if (nic->tap_fd < 0) {
        nic->tap_fd = gw_macmove_tap_fd(net->vm->process.pidfd, net->vm->process.pid,
                                        net->vm->tap_names[nic->index], &error);
        complain(net, nic->tap_fd, "reading what waits for it", &error);
    }
    return nic->tap_fd;
}

static json_t *entry(const struct nic *nic, const uint8_t *frame, size_t n_bytes)
{
    return json_pack("{s:i, s:o}", "nic", (int)nic->index, "frame", encode(frame, n_bytes));
}

/* What is still in the tap's queue. */
static json_t *queued_frames(struct gw_guestnet *net, struct nic *nic)
{
    json_t *list = json_array();
    const uint8_t *frame;
    struct gw_error error;
    size_t n, n_bytes = 0;
    int result = open_tap(net, nic) < 0 ? 0 : 1;

    while (result == 1 && n_bytes < GW_GUESTNET_FRAMES_MAX) {
        result = gw_macmove_read(&nic->mm, nic->tap_fd, &frame, &n, &error);
        complain(net, result, "reading what waits for it", &error);
        if (result == 1)
            json_array_append_new(list, entry(nic, frame, n));
        n_bytes += result == 1 ? n : 0;
    }
    return list;
}

/* How long after the pause a frame went into its tap; negative: before. Unknown times count as 0.
 */
static int64_t since_pause_ns(const struct gw_guestnet *net, uint64_t realtime_ns)
{
    uint64_t ago_ns = gw_clock_realtime_ns() - realtime_ns;

    if (!realtime_ns || !net->paused_ns)
        return 0;
    return (int64_t)(gw_clock_ns() - ago_ns - net->paused_ns);
}

/*
 * What went into the tap from shortly before the pause on, and how much of it after. What is older
 * was delivered. A flood gives nothing: its end would have to be kept, and only its beginning was.
 */
static json_t *copied_frames(struct gw_guestnet *net, struct nic *nic, size_t *n_afterp)
{
    gw_autofree uint8_t *buffer = malloc(FRAME_MAX);
    struct gw_tapwatch_frame frame = {.bytes = buffer, .size = FRAME_MAX};
    bool complete = buffer && gw_tapwatch_is_complete(&nic->watch);
    json_t *list = json_array();
    struct gw_error error;
    size_t n_bytes = 0;

    *n_afterp = 0;
    while (complete && gw_tapwatch_read(&nic->watch, &frame, &error) == 1) {
        int64_t since_ns = since_pause_ns(net, frame.at_ns);

        if (since_ns < -(int64_t)DELIVERED_NS)
            continue;
        json_array_append_new(list, entry(nic, frame.bytes, frame.n_bytes));
        *n_afterp += since_ns > 0;
        n_bytes += frame.n_bytes;
        complete = n_bytes <= GW_GUESTNET_FRAMES_MAX;
    }
    if (!complete) {
        json_array_clear(list);
        *n_afterp = 0;
    }
    return list;
}

/*
 * A paused QEMU swallows one frame, and the later ones stay in the queue. The copies begin before
 * the pause, so their end is the queue, before that stands the swallowed one, and all before that
 * was delivered. With an empty queue, what came after the pause was swallowed. Without copies (too
 * much traffic for them) there is only the queue.
 */
static size_t n_undelivered(size_t n_copied, size_t n_after, size_t n_queued, bool first)
{
    if (n_copied < n_queued)
        return n_queued;
    if (n_queued > 0)
        return first && n_copied > n_queued ? n_queued + 1 : n_queued;
    return first ? n_after : 0;
}

static void drain_nic(struct gw_guestnet *net, struct nic *nic, json_t *frames)
{
    json_t *queued = queued_frames(net, nic), *copied, *from;
    size_t n_after, n, n_all;

    copied = copied_frames(net, nic, &n_after);
    from = json_array_size(copied) < json_array_size(queued) ? queued : copied;
    n_all = json_array_size(from);
    n = n_undelivered(json_array_size(copied), n_after, json_array_size(queued), !nic->drained);
    nic->drained |= n > 0;
    for (size_t i = n_all - n; i < n_all; i++)
        json_array_append(frames, json_array_get(from, i));
    json_decref(queued);
    json_decref(copied);
}

void gw_guestnet_paused(struct gw_guestnet *net, uint64_t at_ns)
{
    net->paused_ns = at_ns;
    for (unsigned i = 0; i < net->n_nics; i++)
        if (!net->nics[i].watch.started)
            gw_tapwatch_start(&net->nics[i].watch, NULL);
}

void gw_guestnet_watch(struct gw_guestnet *net)
{
    struct gw_error error;

    for (unsigned i = 0; i < net->n_nics; i++)
        complain(net, gw_tapwatch_start(&net->nics[i].watch, &error), "keeping its last frames",
                 &error);
}

json_t *gw_guestnet_drain(struct gw_guestnet *net)
{
    json_t *frames = json_array();

    for (unsigned i = 0; i < net->n_nics; i++)
        drain_nic(net, &net->nics[i], frames);
    if (json_array_size(frames) > 0)
        return frames;
    json_decref(frames);
    return NULL;
}

static struct nic *nic_of(struct gw_guestnet *net, const json_t *index)
{
    for (unsigned i = 0; i < net->n_nics; i++)
        if (json_is_integer(index) && json_integer_value(index) == net->nics[i].index)
            return &net->nics[i];
    return NULL;
}

static void inject_one(struct gw_guestnet *net, const json_t *entry, uint8_t *buffer)
{
    struct nic *nic = nic_of(net, json_object_get(entry, "nic"));
    const json_t *text = json_object_get(entry, "frame");
    size_t length = json_string_length(text);
    struct gw_error error;
    int n;

    if (!nic || length == 0 || length % 4 != 0 || length / 4 * 3 > FRAME_MAX)
        return;
    n = EVP_DecodeBlock(buffer, (const unsigned char *)json_string_value(text), (int)length);
    for (size_t i = 1; i <= 2 && json_string_value(text)[length - i] == '='; i++)
        n--; /* EVP_DecodeBlock() counts the padding */
    if (n > 0)
        complain(net, gw_macmove_inject(&nic->mm, buffer, (size_t)n, &error),
                 "giving it a frame that had waited on the source", &error);
}

void gw_guestnet_inject(struct gw_guestnet *net, const json_t *frames)
{
    gw_autofree uint8_t *buffer = malloc(FRAME_MAX);
    json_t *entry;
    size_t i;

    json_array_foreach (frames, i, entry)
        if (buffer)
            inject_one(net, entry, buffer);
}
