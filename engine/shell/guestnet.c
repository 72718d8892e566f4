/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <netinet/ether.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "host/tapframes.h"
#include "host/macmove.h"
#include "host/tapwatch.h"
#include "shell/daemon.h"
#include "shell/guestaddr.h"
#include "shell/guestnet.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define ANNOUNCE_ROUNDS 5
#define FRAME_MAX       70000u /* a GSO frame and its header */

struct nic {
    struct gw_macmove mm;
    unsigned index; /* in the VM's list */
    int tap_fd;     /* QEMU's, duplicated when it is first needed; -1 */
    struct gw_tapwatch watch;
    bool drained; /* what QEMU swallowed has been sent */
    struct gw_tapwatch ear;
    struct event *ear_event; /* NULL: nobody listens */
};

struct gw_guestnet {
    struct gw_vm *vm;
    struct nic nics[GW_VM_MAX_NICS];
    unsigned n_nics;
    struct event *timer;
    unsigned rounds;    /* announcements made */
    uint64_t paused_ns; /* monotonic; 0: the guest runs */
    struct gw_guestnet_listener *listener;
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
        mine->ear = GW_TAPWATCH_NONE;
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
    gw_guestnet_listen(net, NULL);
    for (unsigned i = 0; i < net->n_nics; i++) {
        gw_macmove_fini(&net->nics[i].mm);
        gw_cleanup_close(&net->nics[i].tap_fd);
        gw_tapwatch_fini(&net->nics[i].watch);
    }
    event_free(net->timer);
    free(net);
}

static void ear_is_readable(evutil_socket_t fd, short what, void *arg)
{
    struct gw_guestnet *net = arg;
    struct gw_guestnet_listener *listener = net->listener;
    uint64_t at_ns, now_ns = gw_clock_ns(), ago_ns;
    unsigned i = 0;

    (void)what;
    while (i < net->n_nics && net->nics[i].ear.fd != fd)
        i++;
    if (i == net->n_nics || gw_tapwatch_hear(&net->nics[i].ear, &at_ns) == 0)
        return;
    ago_ns = at_ns ? gw_clock_realtime_ns() - at_ns : 0;
    gw_guestnet_listen(net, NULL);
    listener->heard(listener, now_ns - ago_ns);
}

static bool open_ear(struct gw_guestnet *net, struct nic *nic)
{
    struct gw_error error;
    int result = gw_tapwatch_open_ear(&nic->ear, net->vm->tap_names[nic->index], &error);

    complain(net, result, "its first frame will not be noticed", &error);
    if (result < 0)
        return false;
    nic->ear_event =
        event_new(net->vm->daemon->base, nic->ear.fd, EV_READ | EV_PERSIST, ear_is_readable, net);
    return nic->ear_event && event_add(nic->ear_event, NULL) == 0;
}

bool gw_guestnet_listen(struct gw_guestnet *net, struct gw_guestnet_listener *listener)
{
    bool listens = false;

    net->listener = listener;
    for (unsigned i = 0; i < net->n_nics; i++) {
        if (net->nics[i].ear_event)
            event_free(gw_steal_ptr(&net->nics[i].ear_event));
        gw_tapwatch_fini(&net->nics[i].ear);
        if (listener)
            listens |= open_ear(net, &net->nics[i]);
    }
    return listens;
}

void gw_guestnet_hold(struct gw_guestnet *net)
{
    struct gw_error error;

    for (unsigned i = 0; i < net->n_nics; i++)
        complain(net, gw_macmove_hold(&net->nics[i].mm, &error), "holding back its frames", &error);
}

static void inject_filler(struct gw_guestnet *net, struct nic *nic)
{
    const struct ether_addr *mac = ether_aton(net->vm->spec->nics[nic->index].mac);
    uint8_t frame[GW_TAPFRAME_FILLER_BYTES];
    struct gw_error error;

    if (!mac)
        return;
    gw_tapframe_make_filler(mac->ether_addr_octet, frame);
    complain(net, gw_macmove_inject(&nic->mm, frame, sizeof frame, &error),
             "filling its tap's first place", &error);
}

void gw_guestnet_prime(struct gw_guestnet *net)
{
    for (unsigned i = 0; i < net->n_nics; i++)
        inject_filler(net, &net->nics[i]);
}

/* Those that it has claimed until now, also while it was on another node. */
static void know_addresses(struct gw_guestnet *net, struct nic *nic)
{
    const struct gw_addresses *known = gw_guestaddr_of(net->vm->addresses, nic->index);
    char texts[GW_ADDRESSES_MAX][INET6_ADDRSTRLEN];
    const char *list[GW_ADDRESSES_MAX];
    struct gw_error error;

    for (size_t i = 0; known && i < known->n; i++) {
        gw_address_text(&known->items[i], texts[i]);
        list[i] = texts[i];
    }
    if (known)
        complain(net, gw_macmove_addresses(&nic->mm, list, known->n, &error),
                 "announcing its addresses", &error);
}

void gw_guestnet_take(struct gw_guestnet *net)
{
    struct gw_error error;

    for (unsigned i = 0; i < net->n_nics; i++) {
        know_addresses(net, &net->nics[i]);
        complain(net, gw_macmove_take(&net->nics[i].mm, &error), "taking its MAC", &error);
    }
}

void gw_guestnet_announce(struct gw_guestnet *net)
{
    struct timeval later = {.tv_usec = 50000 + 100000 * (suseconds_t)net->rounds};
    struct gw_error error;

    for (unsigned i = 0; i < net->n_nics; i++) {
        know_addresses(net, &net->nics[i]);
        complain(net, gw_macmove_announce(&net->nics[i].mm, &error), "announcing its MAC", &error);
    }
    if (++net->rounds < ANNOUNCE_ROUNDS) {
        event_add(net->timer, &later);
        return;
    }
    net->vm->net = NULL; /* the last one: everybody has heard it */
    gw_guestnet_free(net);
}

/* Frames on their way to another node. */

static json_t *encode(const struct nic *nic, const struct gw_tapframe *frame)
{
    gw_autofree unsigned char *text = malloc(4 * ((frame->n_bytes + 2) / 3) + 1);

    if (!text)
        return NULL;
    EVP_EncodeBlock(text, frame->bytes, (int)frame->n_bytes);
    return json_pack("{s:i, s:s}", "nic", (int)nic->index, "frame", (const char *)text);
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

/* What is still in the tap's queue, at most `room` bytes of it. */
static struct gw_tapframes *queued_frames(struct gw_guestnet *net, struct nic *nic, size_t room)
{
    struct gw_tapframes *list = calloc(1, sizeof *list);
    const uint8_t *frame;
    struct gw_error error;
    size_t n;
    int result = list && open_tap(net, nic) >= 0;

    while (result == 1 && list->n < GW_TAPFRAMES_KEPT && list->n_bytes < room) {
        result = gw_macmove_read(&nic->mm, nic->tap_fd, &frame, &n, &error);
        complain(net, result, "reading what waits for it", &error);
        if (result == 1 && !gw_tapframes_add(list, frame, n))
            break;
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

/* The newest frames that went into the tap; none if the kernel had no room to copy all. */
static struct gw_tapframes *copied_frames(struct gw_guestnet *net, struct nic *nic)
{
    gw_autofree uint8_t *buffer = malloc(FRAME_MAX);
    struct gw_tapwatch_frame frame = {.bytes = buffer, .size = FRAME_MAX};
    struct gw_tapframes *list = calloc(1, sizeof *list);
    struct gw_error error;
    struct gw_tapframe *mine;

    if (!list || !buffer || !gw_tapwatch_is_complete(&nic->watch))
        return list;
    while (gw_tapwatch_read(&nic->watch, &frame, &error) == 1) {
        if (frame.from_guest) {
            gw_tapframes_note_answer(list, frame.bytes, frame.n_bytes);
            continue;
        }
        mine = gw_tapframes_add(list, frame.bytes, frame.n_bytes);
        if (mine)
            mine->since_ns = since_pause_ns(net, frame.at_ns);
    }
    return list;
}

/* Only once, before the queue is empty: it says where the copies end. */
static void add_missed(struct gw_guestnet *net, struct nic *nic, const struct gw_tapframes *queued,
                       json_t *frames)
{
    struct gw_tapframes *copied = copied_frames(net, nic);
    const struct gw_tapframe *missed[2];
    unsigned n = copied ? gw_tapframes_missed(queued, copied, missed) : 0;

    for (unsigned i = 0; i < n; i++)
        json_array_append_new(frames, encode(nic, missed[i]));
    gw_log(&net->vm->daemon->log, GW_LOG_DEBUG, net->vm->spec->name,
           "%s: %zu frames wait, %zu were copied, QEMU had taken %u of them",
           net->vm->tap_names[nic->index], queued->n, copied ? copied->n : 0, n);
    gw_tapframes_free(copied);
}

static void drain_nic(struct gw_guestnet *net, struct nic *nic, json_t *frames, size_t *roomp)
{
    struct gw_tapframes *queued = queued_frames(net, nic, *roomp);

    if (!queued)
        return;
    if (!nic->drained)
        add_missed(net, nic, queued, frames);
    nic->drained = true;
    for (size_t i = queued->n; i-- > 0;)
        if (!gw_tapframe_is_filler(gw_tapframes_from_end(queued, i)))
            json_array_append_new(frames, encode(nic, gw_tapframes_from_end(queued, i)));
    *roomp -= queued->n_bytes < *roomp ? queued->n_bytes : *roomp;
    gw_tapframes_free(queued);
}

void gw_guestnet_paused(struct gw_guestnet *net, uint64_t at_ns)
{
    net->paused_ns = at_ns;
    for (unsigned i = 0; i < net->n_nics; i++) {
        if (!net->nics[i].watch.started)
            gw_tapwatch_start(&net->nics[i].watch, NULL);
        inject_filler(net, &net->nics[i]);
    }
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
    size_t room = GW_GUESTNET_FRAMES_MAX;

    for (unsigned i = 0; i < net->n_nics; i++)
        drain_nic(net, &net->nics[i], frames, &room);
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
