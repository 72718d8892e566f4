/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/carrier.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/negotiate.h"
#include "shell/carrier_private.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* --- the transport's URI --------------------------------------------------------------------- */

int gw_carrier_check_transport(const char *transport, struct gw_error *error)
{
    size_t n_scheme = strcspn(transport, "?"), n = strlen(transport);

    if (n <= GW_CARRIER_TRANSPORT_MAX && n_scheme >= 3 &&
        strspn(transport, "abcdefghijklmnopqrstuvwxyz+") == n_scheme &&
        strncmp(transport + n_scheme - 3, "tcp", 3) == 0 &&
        (n_scheme == 3 || transport[n_scheme - 4] == '+') &&
        strspn(transport + n_scheme, "?&=.,:[]abcdefghijklmnopqrstuvwxyz"
                                     "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == n - n_scheme)
        return 0;
    gw_error_set(error, GW_E_USAGE, "'%.100s' is not a transport", transport);
    return gw_error_hint(error, "such as tcp, or tcp?plain=yes on a network that is trusted");
}

/* rate: of the source, whose limit may change at any time; NULL: the destination's. The caller
 * frees it. NULL: no memory. */
static char *make_uri(const struct gw_carrier_options *o, uint16_t port, const uint64_t *rate)
{
    size_t n_scheme = strcspn(o->transport, "?");
    const char *query = o->transport + n_scheme;
    bool ipv6 = strchr(o->host, ':'), limit = rate && !memmem(o->transport, n_scheme, "rate+", 5);
    char limited[40] = "";
    char *uri;

    if (limit)
        snprintf(limited, sizeof limited, "%crate=%" PRIu64, *query ? '&' : '?', *rate);
    if (asprintf(&uri, "%s%.*s://%s%s%s:%u%s%s", limit ? "rate+" : "", (int)n_scheme, o->transport,
                 ipv6 ? "[" : "", o->host, ipv6 ? "]" : "", port, query, limited) < 0)
        return NULL;
    return uri;
}

static int open_transport(struct gw_carrier *c, const struct gw_carrier_options *o, uint16_t port,
                          const uint64_t *rate, struct gw_error *error)
{
    struct gw_transport_env env = {.tls = o->tls};
    gw_autofree char *uri = make_uri(o, port, rate);

    if (!uri)
        return gw_error_set_sys(error, ENOMEM, "open a transport");
    return gw_transport_open(uri, &env, &c->transport, error);
}

/* --- what the threads share ------------------------------------------------------------------ */

static void wake(int fd)
{
    uint64_t one = 1;

    if (write(fd, &one, sizeof one) < 0) { /* it is full, hence readable; or it was not opened */
    }
}

int gw_carrier_fail(struct gw_carrier *carrier, const struct gw_error *error)
{
    pthread_mutex_lock(&carrier->lock);
    if (!carrier->stopping) {
        carrier->stopping = true;
        carrier->error = *error;
        wake(carrier->mail_fd);
        wake(carrier->wake);
    }
    pthread_mutex_unlock(&carrier->lock);
    gw_barrier_abort(&carrier->barrier);
    return -1;
}

bool gw_carrier_claim(struct gw_carrier *carrier, unsigned number)
{
    bool taken;

    pthread_mutex_lock(&carrier->lock);
    taken = carrier->taken[number];
    carrier->taken[number] = true;
    pthread_mutex_unlock(&carrier->lock);
    return !taken;
}

void gw_carrier_count(struct gw_carrier_lane *l, const struct gw_batch_figures *figures,
                      uint64_t raw_bytes, uint64_t passed_bytes)
{
    struct gw_carrier_counts *counts = &l->counts;

    pthread_mutex_lock(&l->carrier->lock);
    counts->raw_bytes += raw_bytes;
    counts->passed_bytes += passed_bytes;
    if (figures) {
        counts->n_whole += figures->n_whole;
        counts->n_pieces += figures->n_pieces;
        counts->n_zero += figures->n_zero;
        counts->n_same += figures->n_same;
        counts->n_batches += figures->wire_bytes > 0;
    }
    pthread_mutex_unlock(&l->carrier->lock);
}

int gw_carrier_start_thread(pthread_t *threadp, void *(*run)(void *), void *arg)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(threadp, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

/* --- life ------------------------------------------------------------------------------------ */

static void mail_came(evutil_socket_t fd, short what, void *arg)
{
    struct gw_carrier *c = arg;
    struct gw_carrier_handler *handler = gw_steal_ptr(&c->handler);
    struct gw_error error;

    (void)fd;
    (void)what;
    pthread_mutex_lock(&c->lock);
    error = c->error;
    pthread_mutex_unlock(&c->lock);
    if (handler)
        handler->failed(handler, &error);
}

static struct gw_carrier *carrier_new(const struct gw_carrier_options *o, struct gw_error *error)
{
    struct gw_carrier *c;

    if (o->n_channels < 1 || o->n_channels >= GW_LANES_MAX ||
        strlen(o->socket_path) >= sizeof c->socket_path) {
        gw_error_set(error, GW_E_USAGE, "the carrier has no %u channels at %s", o->n_channels,
                     o->socket_path);
        gw_error_hint(error, "it has up to %d channels", GW_LANES_MAX - 1);
        return NULL;
    }
    c = calloc(1, sizeof *c);
    if (!c) {
        gw_error_set_sys(error, ENOMEM, "open the carrier");
        return NULL;
    }
    c->handler = o->handler;
    c->unix_listener = c->wake = c->drain = c->let_go = c->mail_fd = -1;
    c->n_channels = o->n_channels;
    c->n_lanes = o->n_channels + 1;
    snprintf(c->peer, sizeof c->peer, "%s", o->peer);
    snprintf(c->socket_path, sizeof c->socket_path, "%s", o->socket_path);
    memcpy(c->hello.migration, o->id, strnlen(o->id, sizeof c->hello.migration));
    memcpy(c->hello.secret, o->secret, sizeof c->hello.secret);
    c->hello.n_lanes = (uint16_t)c->n_lanes;
    for (unsigned i = 0; i < GW_LANES_MAX; i++) {
        c->lane[i].carrier = c;
        c->lane[i].qemu = -1;
    }
    if (o->tls && SSL_CTX_up_ref(o->tls))
        c->tls = o->tls;
    if (pthread_mutex_init(&c->lock, NULL) != 0 || gw_barrier_init(&c->barrier, c->n_channels) < 0)
        abort(); /* neither can fail on Linux, but for these arguments */
    return c;
}

/* Taken apart from carrier_new(), so that what fails here finds a carrier that can be freed. */
static int open_mailbox(struct gw_carrier *c, const struct gw_carrier_options *o,
                        struct gw_error *error)
{
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->drain = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->let_go = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake < 0 || c->drain < 0 || c->let_go < 0 || c->mail_fd < 0)
        return gw_error_set_sys(error, errno, "open the carrier");
    c->mail = event_new(o->base, c->mail_fd, EV_READ, mail_came, c);
    if (!c->mail || event_add(c->mail, NULL) < 0)
        return gw_error_set_sys(error, ENOMEM, "open the carrier");
    return 0;
}

static int listen_on(struct gw_carrier *c, const struct gw_carrier_options *o, uint16_t port_min,
                     uint16_t port_max, struct gw_error *error)
{
    struct gw_lane_expected expected = {.n_lanes = (uint16_t)c->n_lanes};
    int r = -1;

    memcpy(expected.migration, c->hello.migration, sizeof expected.migration);
    memcpy(expected.secret, c->hello.secret, sizeof expected.secret);
    memcpy(expected.peer, c->peer, sizeof expected.peer);
    for (unsigned port = port_min; r < 0 && port <= port_max; port++) {
        gw_transport_free(gw_steal_ptr(&c->transport));
        if (open_transport(c, o, (uint16_t)port, NULL, error) < 0)
            return -1;
        r = c->transport->ops->listen(c->transport, &c->listener, error);
    }
    if (r < 0) {
        gw_error_prefix(error, "no free port from %u to %u", port_min, port_max);
        return gw_error_hint(error, "free one on that node, or set migration_ports there");
    }
    c->port = c->listener->ops->port(c->listener);
    r = c->listener->ops->expect(c->listener, &expected);
    return r < 0 ? gw_error_set_sys(error, -r, "expect lanes") : 0;
}

int gw_carrier_new_destination(const struct gw_carrier_options *options, struct gw_ram *ram,
                               uint16_t port_min, uint16_t port_max, struct gw_carrier **carrierp,
                               struct gw_error *error)
{
    struct gw_carrier *c = carrier_new(options, error);
    int r;

    if (!c) {
        gw_ram_close(ram);
        return -1;
    }
    c->ram = *ram;
    *ram = (struct gw_ram){0};
    if (open_mailbox(c, options, error) < 0 || listen_on(c, options, port_min, port_max, error) < 0)
        goto failed;
    r = gw_carrier_start_thread(&c->listen_thread, gw_carrier_destination_thread, c);
    if (r < 0) {
        gw_error_set_sys(error, -r, "start a thread for the carrier");
        goto failed;
    }
    c->listening = true;
    *carrierp = c;
    return 0;
failed:
    gw_carrier_free(c);
    return -1;
}

/* Who was killed may have left one behind. */
static int listen_unix(struct gw_carrier *c, struct gw_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof address.sun_path, "%s", c->socket_path);
    unlink(c->socket_path);
    c->unix_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->unix_listener < 0 ||
        bind(c->unix_listener, (const struct sockaddr *)&address, sizeof address) < 0 ||
        listen(c->unix_listener, (int)c->n_lanes) < 0)
        return gw_error_set_sys(error, errno, "listen for QEMU at %s", c->socket_path);
    return 0;
}

static int begin_pace(struct gw_carrier *c, const struct gw_carrier_source *source,
                      struct gw_error *error)
{
    struct gw_pace_options options = {
        .delta = gw_sender_ram_history_bytes(&c->sender_ram) > 0,
        .level_max = source->zstd ? source->level_max : 0,
    };

    if (gw_pace_init(&c->pace, &options) < 0)
        return gw_error_set(error, GW_E_USAGE, "zstd has no level %d", source->level_max);
    return 0;
}

static int start_lanes(struct gw_carrier *c, struct gw_error *error)
{
    for (unsigned i = 0; i < c->n_lanes; i++) {
        int r = gw_carrier_start_thread(&c->lane[i].thread, gw_carrier_source_thread, &c->lane[i]);

        if (r < 0)
            return gw_error_set_sys(error, -r, "start a thread for the carrier");
        c->lane[i].started = true;
    }
    return 0;
}

int gw_carrier_new_source(const struct gw_carrier_options *options,
                          const struct gw_carrier_source *source, struct gw_carrier **carrierp,
                          struct gw_error *error)
{
    struct gw_carrier *c = carrier_new(options, error);

    if (!c) {
        gw_sender_ram_fini(source->ram);
        return -1;
    }
    c->is_source = true;
    c->sender_ram = *source->ram;
    source->ram->n_blocks = 0;
    if (open_mailbox(c, options, error) < 0 ||
        open_transport(c, options, source->port, &source->bandwidth_bytes_per_s, error) < 0 ||
        begin_pace(c, source, error) < 0 || listen_unix(c, error) < 0 ||
        start_lanes(c, error) < 0) {
        gw_carrier_free(c);
        return -1;
    }
    *carrierp = c;
    return 0;
}

void gw_carrier_stop(struct gw_carrier *carrier)
{
    if (!carrier)
        return;
    carrier->handler = NULL;
    pthread_mutex_lock(&carrier->lock);
    carrier->stopping = true;
    pthread_mutex_unlock(&carrier->lock);
    wake(carrier->wake);
    wake(carrier->drain);
    gw_barrier_abort(&carrier->barrier);
}

void gw_carrier_free(struct gw_carrier *carrier)
{
    struct gw_carrier *c = carrier;

    if (!c)
        return;
    gw_carrier_stop(c);
    wake(c->let_go);
    if (c->listening) /* it starts the lanes' */
        pthread_join(c->listen_thread, NULL);
    for (unsigned i = 0; i < c->n_lanes; i++)
        if (c->lane[i].started)
            pthread_join(c->lane[i].thread, NULL);
    gw_listener_free(c->listener);
    gw_transport_free(c->transport);
    gw_ram_close(&c->ram);
    gw_sender_ram_fini(&c->sender_ram);
    if (c->mail)
        event_free(c->mail);
    gw_cleanup_close(&c->mail_fd);
    gw_cleanup_close(&c->wake);
    gw_cleanup_close(&c->drain);
    gw_cleanup_close(&c->let_go);
    gw_cleanup_close(&c->unix_listener);
    unlink(c->socket_path);
    SSL_CTX_free(c->tls);
    gw_barrier_fini(&c->barrier);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

uint16_t gw_carrier_port(const struct gw_carrier *carrier)
{
    return carrier->port;
}

int gw_carrier_set_bandwidth(struct gw_carrier *carrier, uint64_t bytes_per_s,
                             struct gw_error *error)
{
    int r = carrier->transport->ops->set_rate(carrier->transport, bytes_per_s);

    return r < 0 ? gw_error_set_sys(error, -r, "limit what the lanes send") : 0;
}

void gw_carrier_last_round(struct gw_carrier *carrier)
{
    atomic_store(&carrier->last_round, true);
}

/* --- figures --------------------------------------------------------------------------------- */

static void sum_counts(struct gw_carrier *c, struct gw_carrier_counts *sum)
{
    memset(sum, 0, sizeof *sum);
    for (unsigned i = 0; i < c->n_lanes; i++) {
        const struct gw_carrier_counts *counts = &c->lane[i].counts;

        sum->wire_bytes += counts->wire_bytes;
        sum->raw_bytes += counts->raw_bytes;
        sum->passed_bytes += counts->passed_bytes;
        sum->n_whole += counts->n_whole;
        sum->n_pieces += counts->n_pieces;
        sum->n_zero += counts->n_zero;
        sum->n_same += counts->n_same;
        sum->n_batches += counts->n_batches;
    }
}

uint64_t gw_carrier_wire_bytes(struct gw_carrier *carrier)
{
    struct gw_carrier_counts sum;

    pthread_mutex_lock(&carrier->lock);
    sum_counts(carrier, &sum);
    pthread_mutex_unlock(&carrier->lock);
    return sum.wire_bytes;
}

void gw_carrier_work(struct gw_carrier *carrier, uint64_t *bytesp, uint64_t *worked_nsp)
{
    struct gw_carrier_counts sum;

    pthread_mutex_lock(&carrier->lock);
    sum_counts(carrier, &sum);
    *bytesp = sum.raw_bytes;
    *worked_nsp = carrier->worked_ns;
    if (carrier->n_working)
        *worked_nsp += gw_clock_ns() - carrier->working_since_ns;
    pthread_mutex_unlock(&carrier->lock);
}

json_t *gw_carrier_to_json(struct gw_carrier *carrier)
{
    struct gw_carrier_counts sum;
    enum gw_lane_tls encryption;
    uint64_t n_lost;

    pthread_mutex_lock(&carrier->lock);
    sum_counts(carrier, &sum);
    encryption = carrier->encryption;
    n_lost = carrier->n_decisions_lost;
    pthread_mutex_unlock(&carrier->lock);
    return json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I}, s:I}", "lanes",
                     (int)carrier->n_lanes, "encryption", gw_lane_tls_name(encryption),
                     "wire_bytes", (json_int_t)sum.wire_bytes, "raw_bytes",
                     (json_int_t)sum.raw_bytes, "passed_bytes", (json_int_t)sum.passed_bytes,
                     "history_bytes", (json_int_t)gw_sender_ram_history_bytes(&carrier->sender_ram),
                     "batches", (json_int_t)sum.n_batches, "pages", "whole",
                     (json_int_t)sum.n_whole, "pieces", (json_int_t)sum.n_pieces, "zero",
                     (json_int_t)sum.n_zero, "same", (json_int_t)sum.n_same, "decisions_not_kept",
                     (json_int_t)n_lost);
}

static json_t *decision_to_json(const struct gw_pace_decision *d)
{
    const struct gw_pace_inputs *in = &d->inputs;

    return gw_decision_new("pace",
                           json_pack("{s:I, s:i, s:b, s:b, s:I, s:I}", "lane_bytes_per_s",
                                     (json_int_t)in->lane_bytes_per_s, "workers",
                                     (int)in->n_workers, "first_round", (int)in->first_round,
                                     "last_round", (int)in->last_round, "pages_bytes_per_s",
                                     (json_int_t)d->pages_bytes_per_s, "instead_pages_bytes_per_s",
                                     (json_int_t)d->instead_pages_bytes_per_s),
                           d->chosen, d->instead_of, d->because);
}

json_t *gw_carrier_take_decisions(struct gw_carrier *carrier)
{
    json_t *list = json_array();

    pthread_mutex_lock(&carrier->lock);
    while (carrier->n_decisions_taken < carrier->n_decisions)
        json_array_append_new(list,
                              decision_to_json(&carrier->decision[carrier->n_decisions_taken++]));
    pthread_mutex_unlock(&carrier->lock);
    return list;
}
