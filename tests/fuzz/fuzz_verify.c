/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer says of the guest's memory, as JSON: of its carrier, in VERIFY and in HASHES. The
 * first byte says which. This process is the QEMU, with two small blocks; whatever is asked, both
 * halves must answer once and no more, and never find memory equal that was not hashed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shell/carrier_offer.h"
#include "shell/verify.h"

#define PAGE 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t memory[3 * PAGE] __attribute__((aligned(PAGE)));
static struct event_base *base;
static struct gw_verify_handler handler;
static unsigned n_sent, n_done;

static void count_sent(struct gw_verify_handler *h, json_t *body)
{
    (void)h;
    if (!json_is_object(body))
        abort();
    n_sent++;
}

static void count_done(struct gw_verify_handler *h, const struct gw_error *error)
{
    (void)h;
    if (error && (error->code == GW_OK || error->msg[0] == '\0'))
        abort();
    n_done++;
}

static struct gw_verify *open_it(void)
{
    static const char line[] = "%24s    4 KiB  0x0000000000000000 0x%016x 0x%016x 0x%016lx  rw\r\n";
    struct gw_verify *verify;
    char info[512];
    int n = snprintf(info, sizeof info, line, "ram0", 2 * PAGE, 2 * PAGE, (unsigned long)memory);

    snprintf(info + n, sizeof info - (size_t)n, line, "rom", PAGE, PAGE,
             (unsigned long)(memory + 2 * PAGE));
    if (!base)
        base = event_base_new();
    handler = (struct gw_verify_handler){count_sent, count_done};
    n_sent = n_done = 0;
    if (gw_verify_open(base, &handler, getpid(), info, &verify, NULL) < 0)
        abort();
    return verify;
}

#define GUEST_BYTES (UINT64_C(1) << 20) /* bounds the histories, whatever the offer says */

static void offer(const json_t *json)
{
    struct gw_sender_ram ram;
    uint8_t secret[16];

    if (gw_carrier_offer_from_json(json, 8, GUEST_BYTES, secret, &ram, NULL) == 0)
        gw_sender_ram_fini(&ram);
}

static void request(const json_t *json)
{
    struct gw_verify *verify = open_it();

    gw_verify_take_request(verify, json);
    while (n_sent == 0)
        event_base_loop(base, EVLOOP_ONCE);
    gw_verify_free(verify);
    if (n_sent != 1 || n_done)
        abort();
}

static void hashes(const json_t *json)
{
    struct gw_verify *verify = open_it();

    gw_verify_begin(verify);
    gw_verify_take_hashes(verify, json);
    gw_verify_take_hashes(verify, json);
    for (unsigned i = 0; i < 3 && !n_done; i++)
        event_base_loop(base, EVLOOP_ONCE | (n_sent > 1 ? EVLOOP_NONBLOCK : 0));
    gw_verify_free(verify);
    if (n_done > 1)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = size ? json_loadb((const char *)data + 1, size - 1, 0, NULL) : NULL;

    if (!json)
        return 0;
    switch (data[0] % 3) {
    case 0: offer(json); break;
    case 1: request(json); break;
    default: hashes(json); break;
    }
    json_decref(json);
    return 0;
}
