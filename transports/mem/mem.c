/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link is two rings under one mutex, with an end for each side. The connector makes it and leaves
 * it with the listener of that name; the listener's notify() decides. An eventfd tells an end that
 * the other has changed something. A link lives until both ends have let go of it.
 */
#include "transports/mem/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "transports/hello.h"
#include "transports/queue.h"
#include "util/cleanup.h"

#define CONNECTOR 0
#define ACCEPTOR  1
#define BACKLOG   256 /* lanes that wait for a listener's verdict */

struct mem_ring {
    uint8_t *bytes;
    size_t size, head, n_used;
    bool finished; /* the writer sends no more */
};

enum link_state { LINK_WAITING, LINK_UP, LINK_REFUSED, LINK_RESET };

struct mem_link {
    pthread_mutex_t lock;
    int fds[2]; /* written to by the other end */
    bool let_go[2];
    enum link_state state;
    enum gw_hello_verdict verdict;
    struct mem_ring rings[2]; /* by the writer */
    struct gw_lane_hello hello;
    TAILQ_ENTRY(mem_link) link; /* at the listener while waiting */
};
TAILQ_HEAD(mem_links, mem_link);

struct mem_lane {
    struct gw_lane base;
    struct mem_link *link;
    int end;
    enum gw_lane_state state;
    struct gw_queue queue;
    struct gw_error error;
    TAILQ_ENTRY(mem_lane) entry; /* at the listener until accepted */
};
TAILQ_HEAD(mem_lanes, mem_lane);

struct mem_listener {
    struct gw_listener base;
    struct gw_mem_hub *hub;
    gw_uri_word name;
    int fd;
    struct mem_links waiting; /* under the hub's lock */
    unsigned n_waiting;
    struct mem_lanes accepted; /* the listener's thread's own, as all that follows */
    struct gw_guests guests;
    struct gw_refusals refusals;
    LIST_ENTRY(mem_listener) entry;
};

struct gw_mem_hub {
    pthread_mutex_t lock;
    LIST_HEAD(, mem_listener) listeners;
};

struct mem_transport {
    struct gw_transport base;
    struct gw_mem_hub *hub;
    gw_uri_word name;
    uint64_t buffer_bytes;
};

static struct mem_lane *lane_of(const struct gw_lane *lane)
{
    return gw_container_of(lane, struct mem_lane, base);
}

static struct mem_listener *listener_of(const struct gw_listener *listener)
{
    return gw_container_of(listener, struct mem_listener, base);
}

static struct mem_transport *transport_of(struct gw_transport *transport)
{
    return gw_container_of(transport, struct mem_transport, base);
}

static void wake(int fd)
{
    /* Cannot fail but where the counter is full, and then the reader is awake already. */
    (void)!write(fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void hush(int fd)
{
    uint64_t n;

    (void)!read(fd, &n, sizeof n);
}

/* --- links ----------------------------------------------------------------------------------- */

static void link_free(struct mem_link *link)
{
    for (int end = 0; end < 2; end++) {
        free(link->rings[end].bytes);
        if (link->fds[end] >= 0)
            close(link->fds[end]);
    }
    pthread_mutex_destroy(&link->lock);
    free(link);
}

static struct mem_link *link_new(const struct gw_lane_hello *hello, size_t buffer_bytes)
{
    struct mem_link *link = calloc(1, sizeof *link);
    bool good = true;

    if (!link)
        return NULL;
    pthread_mutex_init(&link->lock, NULL);
    link->hello = *hello;
    for (int end = 0; end < 2; end++) {
        link->fds[end] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        link->rings[end].size = buffer_bytes;
        link->rings[end].bytes = malloc(buffer_bytes);
        good = good && link->fds[end] >= 0 && link->rings[end].bytes;
    }
    if (!good) {
        link_free(link);
        return NULL;
    }
    return link;
}

/* From WAITING to another state; wakes both ends. */
static void link_settle(struct mem_link *link, enum link_state state, enum gw_hello_verdict verdict)
{
    pthread_mutex_lock(&link->lock);
    if (link->state == LINK_WAITING) {
        link->state = state;
        link->verdict = verdict;
    }
    pthread_mutex_unlock(&link->lock);
    wake(link->fds[CONNECTOR]);
}

/* Whoever lets go before both have finished takes the other down. */
static void link_let_go(struct mem_link *link, int end, bool reset)
{
    bool last;

    pthread_mutex_lock(&link->lock);
    if (reset && link->state != LINK_REFUSED)
        link->state = LINK_RESET;
    link->let_go[end] = true;
    last = link->let_go[!end];
    if (!last)
        wake(link->fds[!end]);
    pthread_mutex_unlock(&link->lock);
    if (last)
        link_free(link);
}

static size_t ring_write(struct mem_ring *ring, const struct iovec *iov, unsigned n)
{
    size_t total = 0;

    for (unsigned i = 0; i < n; i++) {
        for (size_t at = 0; at < iov[i].iov_len && ring->n_used < ring->size;) {
            size_t tail = (ring->head + ring->n_used) % ring->size;
            size_t here = ring->size - (tail < ring->head ? ring->n_used : tail);

            if (here > iov[i].iov_len - at)
                here = iov[i].iov_len - at;
            memcpy(ring->bytes + tail, (const char *)iov[i].iov_base + at, here);
            ring->n_used += here;
            at += here;
            total += here;
        }
    }
    return total;
}

static size_t ring_read(struct mem_ring *ring, const struct iovec *iov, unsigned n)
{
    size_t total = 0;

    for (unsigned i = 0; i < n; i++) {
        for (size_t at = 0; at < iov[i].iov_len && ring->n_used > 0;) {
            size_t here = ring->size - ring->head;

            if (here > ring->n_used)
                here = ring->n_used;
            if (here > iov[i].iov_len - at)
                here = iov[i].iov_len - at;
            memcpy((char *)iov[i].iov_base + at, ring->bytes + ring->head, here);
            ring->head = (ring->head + here) % ring->size;
            ring->n_used -= here;
            at += here;
            total += here;
        }
    }
    return total;
}

/* --- lanes ----------------------------------------------------------------------------------- */

static void lane_fail(struct mem_lane *lane, int result)
{
    lane->state = GW_LANE_FAILED;
    gw_queue_fail(&lane->queue, result);
}

/* Sends and receives under the link's lock; whether anything changed for the other end. */
static bool move(struct mem_lane *lane)
{
    struct mem_ring *out = &lane->link->rings[lane->end], *in = &lane->link->rings[!lane->end];
    struct iovec iov[GW_TRANSFER_IOV_MAX];
    bool changed = false;
    size_t n_bytes;
    unsigned n;

    n = gw_queue_slice(&lane->queue, GW_SEND, iov, GW_TRANSFER_IOV_MAX, out->size, &n_bytes);
    n_bytes = ring_write(out, iov, n);
    gw_queue_moved(&lane->queue, GW_SEND, n_bytes);
    changed = n_bytes > 0;
    if (lane->queue.no_more_sends && !gw_queue_first(&lane->queue, GW_SEND) && !out->finished)
        changed = out->finished = true;
    while (in->n_used > 0 && gw_queue_first(&lane->queue, GW_RECEIVE)) {
        n = gw_transfer_slice(gw_queue_first(&lane->queue, GW_RECEIVE), iov, GW_TRANSFER_IOV_MAX,
                              SIZE_MAX, &n_bytes);
        n_bytes = ring_read(in, iov, n);
        gw_queue_moved(&lane->queue, GW_RECEIVE, n_bytes);
        changed = true;
    }
    if (in->finished && in->n_used == 0)
        gw_queue_end(&lane->queue);
    if (lane->queue.peer_finished && out->finished)
        lane->state = GW_LANE_ENDED;
    return changed;
}

static void lane_notify(struct gw_lane *base, unsigned events, uint64_t now_ns)
{
    struct mem_lane *lane = lane_of(base);
    struct mem_link *link = lane->link;

    (void)events;
    (void)now_ns;
    if (lane->state > GW_LANE_OPEN)
        return;
    hush(link->fds[lane->end]);
    pthread_mutex_lock(&link->lock);
    if (link->state == LINK_UP)
        lane->state = GW_LANE_OPEN;
    if (link->state == LINK_UP && move(lane))
        wake(link->fds[!lane->end]);
    if (link->state == LINK_REFUSED) {
        gw_hello_refused(link->verdict, &lane->error);
        lane_fail(lane, -ECONNREFUSED);
    } else if (link->state == LINK_RESET && lane->state != GW_LANE_ENDED) {
        gw_error_set(&lane->error, GW_E_PEER, "the other side of lane %u has gone",
                     link->hello.lane);
        lane_fail(lane, -ECONNRESET);
    }
    pthread_mutex_unlock(&link->lock);
}

static void lane_want(struct gw_lane *base, struct gw_want *want)
{
    struct mem_lane *lane = lane_of(base);
    const struct gw_queue *queue = &lane->queue;
    struct mem_link *link = lane->link;
    struct mem_ring *out = &link->rings[lane->end], *in = &link->rings[!lane->end];
    bool now;

    *want = (struct gw_want){.fd = -1, .at_ns = GW_NEVER};
    if (lane->state > GW_LANE_OPEN)
        return;
    want->fd = link->fds[lane->end];
    want->events = GW_IO_READ;
    pthread_mutex_lock(&link->lock);
    now = link->state > LINK_UP;
    if (link->state == LINK_UP)
        now = (gw_queue_first(queue, GW_SEND) && out->n_used < out->size) ||
              (gw_queue_first(queue, GW_RECEIVE) && in->n_used > 0) ||
              (queue->no_more_sends && !gw_queue_first(queue, GW_SEND) && !out->finished);
    pthread_mutex_unlock(&link->lock);
    if (now)
        want->at_ns = 0;
}

static int lane_send(struct gw_lane *lane, struct gw_transfer *transfer)
{
    return gw_queue_submit(&lane_of(lane)->queue, transfer, GW_SEND);
}

static int lane_receive(struct gw_lane *lane, struct gw_transfer *transfer)
{
    return gw_queue_submit(&lane_of(lane)->queue, transfer, GW_RECEIVE);
}

static struct gw_transfer *lane_done(struct gw_lane *lane)
{
    return gw_queue_done(&lane_of(lane)->queue);
}

static int lane_cancel(struct gw_lane *lane, struct gw_transfer *transfer)
{
    return gw_queue_cancel(&lane_of(lane)->queue, transfer);
}

static void lane_finish(struct gw_lane *lane)
{
    lane_of(lane)->queue.no_more_sends = true;
}

static void lane_abort(struct gw_lane *base)
{
    struct mem_lane *lane = lane_of(base);

    if (lane->state > GW_LANE_OPEN)
        return;
    gw_error_set(&lane->error, GW_E_CANCELLED, "lane %u was aborted", lane->link->hello.lane);
    pthread_mutex_lock(&lane->link->lock);
    lane->link->state = LINK_RESET;
    wake(lane->link->fds[!lane->end]);
    pthread_mutex_unlock(&lane->link->lock);
    lane_fail(lane, -ECANCELED);
}

static void lane_info(struct gw_lane *base, struct gw_lane_info *info)
{
    struct mem_lane *lane = lane_of(base);

    *info = (struct gw_lane_info){
        .state = lane->state,
        .hello = lane->link->hello,
        .sent_bytes = lane->queue.n_moved_bytes[GW_SEND],
        .received_bytes = lane->queue.n_moved_bytes[GW_RECEIVE],
        .queued_bytes = lane->queue.n_queued_bytes[GW_SEND],
    };
    pthread_mutex_lock(&lane->link->lock);
    info->unacked_bytes = lane->link->rings[lane->end].n_used;
    pthread_mutex_unlock(&lane->link->lock);
}

static const struct gw_error *lane_error(const struct gw_lane *base)
{
    const struct mem_lane *lane = lane_of(base);

    return lane->state == GW_LANE_FAILED ? &lane->error : NULL;
}

static void lane_free(struct gw_lane *base)
{
    struct mem_lane *lane = lane_of(base);

    link_let_go(lane->link, lane->end, lane->state <= GW_LANE_OPEN);
    free(lane);
}

static unsigned lane_caps(const struct gw_lane *lane)
{
    (void)lane;
    return GW_LANE_TRUE_END;
}

static const struct gw_lane_ops lane_ops = {
    .name = "mem",
    .caps = lane_caps,
    .want = lane_want,
    .notify = lane_notify,
    .send = lane_send,
    .receive = lane_receive,
    .done = lane_done,
    .cancel = lane_cancel,
    .finish = lane_finish,
    .abort = lane_abort,
    .info = lane_info,
    .error = lane_error,
    .free = lane_free,
};

static struct mem_lane *lane_new(struct mem_link *link, int end)
{
    struct mem_lane *lane = calloc(1, sizeof *lane);

    if (!lane)
        return NULL;
    lane->base.ops = &lane_ops;
    lane->link = link;
    lane->end = end;
    gw_queue_init(&lane->queue);
    return lane;
}

/* --- listeners ------------------------------------------------------------------------------- */

static void listener_want(struct gw_listener *base, struct gw_want *want)
{
    *want = (struct gw_want){listener_of(base)->fd, GW_IO_READ, GW_NEVER};
}

static void refuse(struct mem_listener *listener, struct mem_link *link,
                   enum gw_hello_verdict verdict, const struct gw_error *error)
{
    gw_refusals_add(&listener->refusals, "", error);
    link_settle(link, LINK_REFUSED, verdict);
    link_let_go(link, ACCEPTOR, false);
}

static void judge(struct mem_listener *listener, struct mem_link *link)
{
    struct mem_lane *lane;
    struct gw_error error;
    enum gw_hello_verdict verdict = gw_guests_admit(&listener->guests, &link->hello, "", &error);

    if (verdict != GW_HELLO_WELCOME) {
        refuse(listener, link, verdict, &error);
        return;
    }
    lane = lane_new(link, ACCEPTOR);
    if (!lane) {
        gw_error_set_sys(&error, ENOMEM, "let lane %u in", link->hello.lane);
        refuse(listener, link, GW_HELLO_STRANGER, &error);
        return;
    }
    lane->state = GW_LANE_OPEN;
    link_settle(link, LINK_UP, GW_HELLO_WELCOME);
    TAILQ_INSERT_TAIL(&listener->accepted, lane, entry);
}

static struct mem_link *next_waiting(struct mem_listener *listener)
{
    struct mem_link *link;

    pthread_mutex_lock(&listener->hub->lock);
    link = TAILQ_FIRST(&listener->waiting);
    if (link) {
        TAILQ_REMOVE(&listener->waiting, link, link);
        listener->n_waiting--;
    }
    pthread_mutex_unlock(&listener->hub->lock);
    return link;
}

static void listener_notify(struct gw_listener *base, unsigned events, uint64_t now_ns)
{
    struct mem_listener *listener = listener_of(base);
    struct mem_link *link;

    (void)events;
    (void)now_ns;
    hush(listener->fd);
    while ((link = next_waiting(listener)))
        judge(listener, link);
}

static int listener_expect(struct gw_listener *listener, const struct gw_lane_expected *expected)
{
    return gw_guests_expect(&listener_of(listener)->guests, expected);
}

static void listener_forget(struct gw_listener *base, const uint8_t migration[16])
{
    struct mem_listener *listener = listener_of(base);
    struct mem_lane *lane, *next;

    gw_guests_forget(&listener->guests, migration);
    for (lane = TAILQ_FIRST(&listener->accepted); lane; lane = next) {
        next = TAILQ_NEXT(lane, entry);
        if (memcmp(lane->link->hello.migration, migration, 16) != 0)
            continue;
        TAILQ_REMOVE(&listener->accepted, lane, entry);
        lane_free(&lane->base);
    }
}

static struct gw_lane *listener_accept(struct gw_listener *base)
{
    struct mem_listener *listener = listener_of(base);
    struct mem_lane *lane = TAILQ_FIRST(&listener->accepted);

    if (!lane)
        return NULL;
    TAILQ_REMOVE(&listener->accepted, lane, entry);
    return &lane->base;
}

static bool listener_refused(struct gw_listener *listener, struct gw_lane_refusal *refusal)
{
    return gw_refusals_take(&listener_of(listener)->refusals, refusal);
}

static uint16_t listener_port(const struct gw_listener *listener)
{
    (void)listener;
    return 0;
}

static void listener_free(struct gw_listener *base)
{
    struct mem_listener *listener = listener_of(base);
    struct gw_lane *lane;
    struct mem_link *link;

    pthread_mutex_lock(&listener->hub->lock);
    LIST_REMOVE(listener, entry); /* nobody new comes */
    pthread_mutex_unlock(&listener->hub->lock);
    while ((link = next_waiting(listener)))
        link_let_go(link, ACCEPTOR, true);
    while ((lane = listener_accept(base)))
        gw_lane_free(lane);
    close(listener->fd);
    free(listener);
}

static const struct gw_listener_ops listener_ops = {
    .want = listener_want,
    .notify = listener_notify,
    .expect = listener_expect,
    .forget = listener_forget,
    .accept = listener_accept,
    .refused = listener_refused,
    .port = listener_port,
    .free = listener_free,
};

/* --- transport ------------------------------------------------------------------------------- */

/* Under the hub's lock. */
static struct mem_listener *find(struct gw_mem_hub *hub, const char *name)
{
    struct mem_listener *listener;

    LIST_FOREACH (listener, &hub->listeners, entry)
        if (strcmp(listener->name, name) == 0)
            return listener;
    return NULL;
}

static int mem_listen(struct gw_transport *base, struct gw_listener **listenerp,
                      struct gw_error *error)
{
    struct mem_transport *mem = transport_of(base);
    struct mem_listener *listener = calloc(1, sizeof *listener);
    bool taken;

    if (!listener)
        return gw_error_set_sys(error, ENOMEM, "listen on mem://%s", mem->name);
    listener->base.ops = &listener_ops;
    listener->hub = mem->hub;
    memcpy(listener->name, mem->name, sizeof listener->name);
    TAILQ_INIT(&listener->waiting);
    TAILQ_INIT(&listener->accepted);
    listener->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (listener->fd < 0) {
        gw_error_set_sys(error, errno, "listen on mem://%s", mem->name);
        free(listener);
        return -1;
    }
    pthread_mutex_lock(&mem->hub->lock);
    taken = find(mem->hub, mem->name);
    if (!taken)
        LIST_INSERT_HEAD(&mem->hub->listeners, listener, entry);
    pthread_mutex_unlock(&mem->hub->lock);
    if (taken) {
        close(listener->fd);
        free(listener);
        return gw_error_set_sys(error, EADDRINUSE, "listen on mem://%s", mem->name);
    }
    *listenerp = &listener->base;
    return 0;
}

/* Leaves the link with the listener: whether there was one with room. */
static bool leave(struct mem_transport *mem, struct mem_link *link)
{
    struct mem_listener *listener;
    bool left;

    pthread_mutex_lock(&mem->hub->lock);
    listener = find(mem->hub, mem->name);
    left = listener && listener->n_waiting < BACKLOG;
    if (left) {
        TAILQ_INSERT_TAIL(&listener->waiting, link, link);
        listener->n_waiting++;
        wake(listener->fd);
    }
    pthread_mutex_unlock(&mem->hub->lock);
    return left;
}

static int mem_connect(struct gw_transport *base, const struct gw_lane_hello *hello,
                       const char *peer, struct gw_lane **lanep, struct gw_error *error)
{
    struct mem_transport *mem = transport_of(base);
    struct mem_link *link;
    struct mem_lane *lane;

    (void)peer;
    if (!gw_hello_valid(hello))
        return gw_error_set(error, GW_E_USAGE, "lane %u of %u makes no sense", hello->lane,
                            hello->n_lanes);
    link = link_new(hello, mem->buffer_bytes);
    lane = link ? lane_new(link, CONNECTOR) : NULL;
    if (!lane) {
        if (link)
            link_free(link);
        return gw_error_set_sys(error, ENOMEM, "connect to mem://%s", mem->name);
    }
    if (!leave(mem, link)) {
        link_free(link);
        free(lane);
        return gw_error_set_sys(error, ECONNREFUSED, "connect to mem://%s", mem->name);
    }
    *lanep = &lane->base;
    return 0;
}

static int mem_set_rate(struct gw_transport *transport, uint64_t bytes_s)
{
    (void)transport;
    (void)bytes_s;
    return -ENOTSUP;
}

static int mem_read_trace(struct gw_transport *transport, struct gw_trace_event *events,
                          unsigned max, uint64_t *n_lostp)
{
    (void)transport;
    (void)events;
    (void)max;
    (void)n_lostp;
    return -ENOTSUP;
}

static void mem_free(struct gw_transport *transport)
{
    free(transport_of(transport));
}

static const struct gw_transport_ops mem_ops = {
    .name = "mem",
    .listen = mem_listen,
    .connect = mem_connect,
    .set_rate = mem_set_rate,
    .read_trace = mem_read_trace,
    .free = mem_free,
};

int gw_mem_new(struct gw_uri *uri, const struct gw_transport_env *env,
               struct gw_transport **transportp, struct gw_error *error)
{
    uint64_t buffer_bytes = 64 << 10;
    const struct gw_uri_number number = {"buffer", GW_URI_BYTES, 1, 64 << 20, &buffer_bytes};
    struct mem_transport *mem;

    if (!env->mem)
        return gw_error_set(error, GW_E_UNSUPPORTED, "there is no place for mem:// to meet in");
    if (uri->n_addresses != 1 || uri->has_port)
        return gw_error_set(error, GW_E_USAGE, "transport URI: mem:// takes one name and no port");
    if (gw_uri_numbers(uri, &number, 1, error) < 0)
        return -1;
    mem = calloc(1, sizeof *mem);
    if (!mem)
        return gw_error_set_sys(error, ENOMEM, "open mem://%s", uri->addresses[0]);
    mem->base.ops = &mem_ops;
    mem->hub = env->mem;
    mem->buffer_bytes = buffer_bytes;
    memcpy(mem->name, uri->addresses[0], sizeof mem->name);
    *transportp = &mem->base;
    return 0;
}

struct gw_mem_hub *gw_mem_hub_new(void)
{
    struct gw_mem_hub *hub = calloc(1, sizeof *hub);

    if (hub)
        pthread_mutex_init(&hub->lock, NULL);
    return hub;
}

void gw_mem_hub_free(struct gw_mem_hub *hub)
{
    if (!hub)
        return;
    pthread_mutex_destroy(&hub->lock);
    free(hub);
}
