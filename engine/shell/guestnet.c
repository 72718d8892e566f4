/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/ether.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "host/answers.h"
#include "host/macmove.h"
#include "host/tapwatch.h"
#include "shell/daemon.h"
#include "shell/guestaddr.h"
#include "shell/guestnet.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define ANNOUNCE_ROUNDS 5
#define FRAME_MAX       70000u              /* a GSO frame and its header */
#define FRAMES_KEPT     1024u               /* of one tap; its queue is no longer */
#define STOPPING_NS     (10 * GW_NS_PER_MS) /* so long QEMU may take to stop the processors */
#define DELIVERED_NS    (50 * GW_NS_PER_MS) /* this long before the pause QEMU had still read it */

/* What a filler carries behind its header. */
static const char filler_text[] = "godwit: fills a place";
#define FILLER_BYTES (GW_MACMOVE_HEADER_BYTES + sizeof(struct ether_header) + sizeof filler_text)

/* A frame as macmove.h reads and writes it. */
struct frame {
    uint8_t *bytes;
    size_t n_bytes;
    int64_t since_ns; /* the pause; of copies only */
    bool answered;    /* the guest had it: answers.h; of copies only */
};

/* The newest ones, in the order in which they came. */
struct frames {
    struct frame items[FRAMES_KEPT];
    size_t first, n;
    size_t n_bytes;
};

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
    memcpy(header + 1, filler_text, sizeof filler_text);
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

static void drop_oldest(struct frames *list)
{
    struct frame *oldest = &list->items[list->first];

    list->n_bytes -= oldest->n_bytes;
    free(gw_steal_ptr(&oldest->bytes));
    list->first = (list->first + 1) % FRAMES_KEPT;
    list->n--;
}

static struct frame *add_frame(struct frames *list, const uint8_t *bytes, size_t n_bytes)
{
    struct frame *frame;

    if (list->n == FRAMES_KEPT)
        drop_oldest(list);
    frame = &list->items[(list->first + list->n) % FRAMES_KEPT];
    frame->bytes = malloc(n_bytes);
    if (!frame->bytes)
        return NULL;
    memcpy(frame->bytes, bytes, n_bytes);
    frame->n_bytes = n_bytes;
    list->n++;
    list->n_bytes += n_bytes;
    return frame;
}

static void free_frames(struct frames *list)
{
    while (list && list->n > 0)
        drop_oldest(list);
    free(list);
}

/* 0: the newest. */
static const struct frame *frame_from_end(const struct frames *list, size_t i)
{
    return &list->items[(list->first + list->n - 1 - i) % FRAMES_KEPT];
}

static json_t *encode(const struct nic *nic, const struct frame *frame)
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
static struct frames *queued_frames(struct gw_guestnet *net, struct nic *nic, size_t room)
{
    struct frames *list = calloc(1, sizeof *list);
    const uint8_t *frame;
    struct gw_error error;
    size_t n;
    int result = list && open_tap(net, nic) >= 0;

    while (result == 1 && list->n < FRAMES_KEPT && list->n_bytes < room) {
        result = gw_macmove_read(&nic->mm, nic->tap_fd, &frame, &n, &error);
        complain(net, result, "reading what waits for it", &error);
        if (result == 1 && !add_frame(list, frame, n))
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

static struct gw_ether_frame ether(const uint8_t *bytes, size_t n)
{
    return n > GW_MACMOVE_HEADER_BYTES ? (struct gw_ether_frame){bytes + GW_MACMOVE_HEADER_BYTES,
                                                                 n - GW_MACMOVE_HEADER_BYTES}
                                       : (struct gw_ether_frame){0};
}

/* The guest has sent this one; the last few before it may be what it answers. */
static void note_answer(struct frames *list, const struct gw_tapwatch_frame *frame)
{
    const struct gw_ether_frame mine = ether(frame->bytes, frame->n_bytes);

    for (size_t i = 0; i < list->n && i < 16; i++) {
        struct frame *to = &list->items[(list->first + list->n - 1 - i) % FRAMES_KEPT];
        const struct gw_ether_frame asked = ether(to->bytes, to->n_bytes);

        to->answered |= gw_frame_answers(&mine, &asked);
    }
}

/* The newest frames that went into the tap; none if the kernel had no room to copy all. */
static struct frames *copied_frames(struct gw_guestnet *net, struct nic *nic)
{
    gw_autofree uint8_t *buffer = malloc(FRAME_MAX);
    struct gw_tapwatch_frame frame = {.bytes = buffer, .size = FRAME_MAX};
    struct frames *list = calloc(1, sizeof *list);
    struct gw_error error;
    struct frame *mine;

    if (!list || !buffer || !gw_tapwatch_is_complete(&nic->watch))
        return list;
    while (gw_tapwatch_read(&nic->watch, &frame, &error) == 1) {
        if (frame.from_guest) {
            note_answer(list, &frame);
            continue;
        }
        mine = add_frame(list, frame.bytes, frame.n_bytes);
        if (mine) {
            mine->since_ns = since_pause_ns(net, frame.at_ns);
            mine->answered = false;
        }
    }
    return list;
}

/* Ours, not somebody's. The headers may differ: tap and copy describe the same frame in their way.
 */
static bool is_filler(const struct frame *frame)
{
    const uint8_t *ether = frame->bytes + GW_MACMOVE_HEADER_BYTES;

    return frame->n_bytes >= FILLER_BYTES && memcmp(ether, ether + ETH_ALEN, ETH_ALEN) == 0 &&
           memcmp(ether + sizeof(struct ether_header), filler_text, sizeof filler_text) == 0;
}

static bool are_same(const struct frame *a, const struct frame *b)
{
    return a->n_bytes == b->n_bytes &&
           memcmp(a->bytes + GW_MACMOVE_HEADER_BYTES, b->bytes + GW_MACMOVE_HEADER_BYTES,
                  a->n_bytes - GW_MACMOVE_HEADER_BYTES) == 0;
}

/* Where in `list`, counted from its end and beginning at `from`, such a frame is; list->n: nowhere.
 */
static size_t find_frame(const struct frames *list, const struct frame *wanted, size_t from)
{
    while (from < list->n && !(wanted ? are_same(frame_from_end(list, from), wanted)
                                      : is_filler(frame_from_end(list, from))))
        from++;
    return from < list->n ? from : list->n;
}

/*
 * Frames that QEMU took from the tap and that the guest never got, oldest first: at most two.
 *
 * While QEMU waits for the processors to stop, it keeps a frame that comes, and throws it away when
 * they have (net/net.c, net_vm_change_state_handler). After that it takes one frame more, keeps it,
 * and what comes later stays in the tap. The filler was sent after the stop. So if the filler is
 * in the queue, the frame before the first one there was kept; if not, the filler itself was.
 *
 * Whether the frame before that one was thrown away or delivered, nothing tells. It is sent again
 * if it came shortly before the stop and the guest is not known to have it: better twice than
 * never.
 */
static unsigned missed_frames(const struct frames *queued, const struct frames *copied,
                              const struct frame *missed[2])
{
    bool filler_waits = find_frame(queued, NULL, 0) < queued->n;
    /* later ones may have come meanwhile */
    size_t at = filler_waits
                    ? find_frame(copied, frame_from_end(queued, queued->n - 1), queued->n - 1)
                    : find_frame(copied, NULL, 0);
    const struct frame *kept = NULL, *thrown = NULL;
    unsigned n = 0;

    if (filler_waits && ++at < copied->n)
        kept = frame_from_end(copied, at);
    if (kept && kept->since_ns < -(int64_t)DELIVERED_NS)
        return 0;
    if (++at < copied->n)
        thrown = frame_from_end(copied, at);
    if (thrown && thrown->since_ns >= -(int64_t)STOPPING_NS && !thrown->answered)
        missed[n++] = thrown;
    if (kept)
        missed[n++] = kept;
    return n;
}

/* Only once, before the queue is empty: it says where the copies end. */
static void add_missed(struct gw_guestnet *net, struct nic *nic, const struct frames *queued,
                       json_t *frames)
{
    struct frames *copied = copied_frames(net, nic);
    const struct frame *missed[2];
    unsigned n = copied ? missed_frames(queued, copied, missed) : 0;

    for (unsigned i = 0; i < n; i++)
        json_array_append_new(frames, encode(nic, missed[i]));
    gw_log(&net->vm->daemon->log, GW_LOG_DEBUG, net->vm->spec->name,
           "%s: %zu frames wait, %zu were copied, QEMU had taken %u of them",
           net->vm->tap_names[nic->index], queued->n, copied ? copied->n : 0, n);
    free_frames(copied);
}

static void drain_nic(struct gw_guestnet *net, struct nic *nic, json_t *frames, size_t *roomp)
{
    struct frames *queued = queued_frames(net, nic, *roomp);

    if (!queued)
        return;
    if (!nic->drained)
        add_missed(net, nic, queued, frames);
    nic->drained = true;
    for (size_t i = queued->n; i-- > 0;)
        if (!is_filler(frame_from_end(queued, i)))
            json_array_append_new(frames, encode(nic, frame_from_end(queued, i)));
    *roomp -= queued->n_bytes < *roomp ? queued->n_bytes : *roomp;
    free_frames(queued);
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
