/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of every frame that goes into a tap, from a chosen moment on.
 *
 * Why: a QEMU whose guest has just been paused reads one more frame from each tap, cannot deliver
 * it, and keeps it in a queue of its own that nobody can read (net/tap.c, tap_send; net/net.c,
 * qemu_can_send_packet). What is in the tap's queue after that, macmove.h reads; this one frame is
 * only to be had from a copy.
 */
#ifndef GW_HOST_TAPWATCH_H
#define GW_HOST_TAPWATCH_H

#include <stddef.h>
#include <stdint.h>

#include "godwit/error.h"

/* Embedded by the caller; fd is -1 where there is none. */
struct gw_tapwatch {
    int fd;
    int tap_index;
};

#define GW_TAPWATCH_NONE ((struct gw_tapwatch){.fd = -1})

/* Prepares; nothing is copied yet. Needs CAP_NET_RAW. 0 or -1 with *error. */
int gw_tapwatch_open(struct gw_tapwatch *w, const char *tap, struct gw_error *error);

/* From now on frames into the tap are copied. A system call of some microseconds. */
int gw_tapwatch_start(struct gw_tapwatch *w, struct gw_error *error);

/*
 * Takes the oldest copy: 1 with its bytes in buffer (size of them at most), beginning with a struct
 * virtio_net_hdr as those of macmove.h; 0 if there is none; -1 with *error.
 */
int gw_tapwatch_read(struct gw_tapwatch *w, uint8_t *buffer, size_t size, size_t *n_bytesp,
                     struct gw_error *error);

/* Idempotent. */
void gw_tapwatch_fini(struct gw_tapwatch *w);

#endif
