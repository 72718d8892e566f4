/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <netinet/ether.h>
#include <stdlib.h>
#include <string.h>

#include "host/tapwatch.h"
#include "shell/daemon.h"
#include "shell/guestaddr.h"
#include "util/cleanup.h"

#define READS_MAX 64 /* at once; the next ones a second later */

static const struct timeval pause_between = {.tv_sec = 1};

struct nic {
    struct gw_guestaddr *owner;
    struct gw_tapwatch ear;
    struct event *readable; /* once; the timer adds it again */
    struct ether_addr mac;
    struct gw_addresses known;
};

struct gw_guestaddr {
    struct gw_vm *vm;
    struct event *timer;
    struct nic nics[GW_VM_MAX_NICS];
    unsigned n_nics;
};

static void hear(struct nic *nic)
{
    uint8_t bytes[sizeof(struct virtio_net_hdr) + GW_ADDRESSES_FRAME_BYTES];
    struct gw_tapwatch_frame frame = {.bytes = bytes, .size = sizeof bytes};

    for (unsigned i = 0; i < READS_MAX && gw_tapwatch_read(&nic->ear, &frame, NULL) == 1; i++)
        if (frame.n_bytes > sizeof(struct virtio_net_hdr))
            gw_addresses_hear(&nic->known, nic->mac.ether_addr_octet,
                              bytes + sizeof(struct virtio_net_hdr),
                              frame.n_bytes - sizeof(struct virtio_net_hdr));
}

static bool has(const struct gw_addresses *a, const struct gw_address *address)
{
    for (size_t i = 0; i < a->n; i++)
        if (memcmp(&a->items[i], address, sizeof *address) == 0)
            return true;
    return false;
}

/* An address goes only when a new one comes. */
static bool has_news(const struct gw_addresses *before, const struct gw_addresses *now)
{
    for (size_t i = 0; i < now->n; i++)
        if (!has(before, &now->items[i]))
            return true;
    return false;
}

static void is_readable(evutil_socket_t fd, short what, void *arg)
{
    struct nic *nic = arg;
    struct gw_addresses before = nic->known;
    struct gw_vm *vm = nic->owner->vm;

    (void)fd;
    (void)what;
    hear(nic);
    /* A migration saves it at its end, and must not be held up before that. */
    if (has_news(&before, &nic->known) && vm->in_journal && !vm->migration[0])
        gw_vm_save(vm);
    event_add(nic->owner->timer, &pause_between);
}

static void listen_again(evutil_socket_t fd, short what, void *arg)
{
    struct gw_guestaddr *g = arg;

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < g->n_nics; i++)
        if (g->nics[i].readable)
            event_add(g->nics[i].readable, NULL);
}

static void open_nic(struct gw_vm *vm, unsigned i, struct nic *nic)
{
    struct gw_error error;

    nic->ear = GW_TAPWATCH_NONE;
    if (!vm->spec->nics[i].mac || !ether_aton_r(vm->spec->nics[i].mac, &nic->mac))
        return;
    if (gw_tapwatch_open_claims(&nic->ear, vm->tap_names[i], &error) < 0) {
        gw_log(&vm->daemon->log, GW_LOG_WARNING, vm->spec->name,
               "its addresses will not be known: %s", error.msg);
        return;
    }
    nic->readable = event_new(vm->daemon->base, nic->ear.fd, EV_READ, is_readable, nic);
    if (!nic->readable || event_add(nic->readable, NULL) < 0)
        abort();
}

struct gw_guestaddr *gw_guestaddr_open(struct gw_vm *vm)
{
    struct gw_guestaddr *g;

    if (!vm->daemon->config->announce_addresses || vm->n_taps == 0)
        return NULL;
    g = calloc(1, sizeof *g);
    if (!g || !(g->timer = evtimer_new(vm->daemon->base, listen_again, g)))
        abort();
    g->vm = vm;
    for (; g->n_nics < vm->n_taps && g->n_nics < vm->spec->n_nics; g->n_nics++) {
        g->nics[g->n_nics].owner = g;
        open_nic(vm, g->n_nics, &g->nics[g->n_nics]);
    }
    return g;
}

void gw_guestaddr_free(struct gw_guestaddr *g)
{
    if (!g)
        return;
    for (unsigned i = 0; i < g->n_nics; i++) {
        if (g->nics[i].readable)
            event_free(g->nics[i].readable);
        gw_tapwatch_fini(&g->nics[i].ear);
    }
    event_free(g->timer);
    free(g);
}

const struct gw_addresses *gw_guestaddr_of(struct gw_guestaddr *g, unsigned nic)
{
    if (!g || nic >= g->n_nics)
        return NULL;
    hear(&g->nics[nic]);
    return &g->nics[nic].known;
}

json_t *gw_guestaddr_to_json(struct gw_guestaddr *g)
{
    json_t *json = json_array();

    for (unsigned i = 0; g && i < g->n_nics; i++)
        json_array_append_new(json, json_pack("{s:i, s:o}", "nic", (int)i, "addresses",
                                              gw_addresses_to_json(gw_guestaddr_of(g, i))));
    return json;
}

void gw_guestaddr_from_json(struct gw_guestaddr *g, const json_t *json)
{
    for (size_t i = 0; g && i < json_array_size(json) && i < GW_VM_MAX_NICS; i++) {
        const json_t *entry = json_array_get(json, i), *nic = json_object_get(entry, "nic");
        json_int_t index = json_is_integer(nic) ? json_integer_value(nic) : -1;

        if (index >= 0 && index < (json_int_t)g->n_nics)
            gw_addresses_from_json(&g->nics[index].known, json_object_get(entry, "addresses"));
    }
}
