/* SPDX-License-Identifier: Apache-2.0 */
/* CATCH_UP: the source learns when the QEMU here has read what has come for it
 * (outgoing_catch_up.c). */
#include <stdlib.h>

#include "host/conns.h"
#include "shell/daemon.h"
#include "shell/incoming_private.h"

/* Three multifd packets of zero pages: QEMU works on the last ones. */
#define READ_BYTES 4096u

static const struct timeval look_interval = {.tv_usec = 5000};

static void look(struct incoming *in)
{
    uint64_t n_unread = 0;

    if (in->base.machine.phase != GW_PRECOPY || !in->base.conn)
        return;
    if (gw_conns_unread(in->host, (uint16_t)atoi(in->port), &n_unread) == 0 &&
        n_unread > READ_BYTES)
        evtimer_add(in->catch_up, &look_interval);
    else /* or nobody can know, and the source need not wait */
        gw_peer_send(in->base.conn, GW_WIRE_CAUGHT_UP, NULL, NULL);
}

static void look_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    look(arg);
}

void gw_incoming_catch_up(struct incoming *in)
{
    if (!in->catch_up)
        in->catch_up = evtimer_new(in->base.daemon->base, look_again, in);
    if (in->catch_up && !in->base.wishes.carrier)
        look(in);
}
