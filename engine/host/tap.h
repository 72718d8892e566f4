/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tap devices on a bridge that exists already. Godwit never makes or changes a bridge.
 *
 * A tap is persistent: it is there before QEMU opens it by name (script=no, downscript=no) and
 * must be deleted afterwards. Everything happens in the caller's network namespace and takes
 * microseconds to a few milliseconds; it needs CAP_NET_ADMIN.
 */
#ifndef GW_HOST_TAP_H
#define GW_HOST_TAP_H

#include <net/if.h>
#include <stddef.h>
#include <sys/types.h>

#include "godwit/error.h"

/*
 * The name of a VM's tap, the same on every node: "gw", ten hexadecimal digits that stand for the
 * uuid, "-", and the index of the NIC (0-99).
 */
void gw_tap_name(char out[IFNAMSIZ], const char *uuid, unsigned index);

/*
 * Makes a tap (with virtio-net headers) with the bridge's MTU, without IPv6 on the host's side,
 * enslaved to the bridge and up. GW_E_EXISTS: there is an interface of this name, which is left
 * alone; GW_E_NOT_FOUND: no such bridge. On any error nothing remains.
 */
int gw_tap_create(const char *name, const char *bridge, struct gw_error *e);

/* Removes a tap, also one that is in use. 0 if there is none. An interface of this name that is no
 * tap is left alone and is GW_E_STATE. */
int gw_tap_delete(const char *name, struct gw_error *e);

/* 0 if there is a bridge of this name; GW_E_NOT_FOUND, with the bridges that exist as hint. */
int gw_bridge_exists(const char *name, struct gw_error *e);

/*
 * The bridges of this network namespace, in the kernel's order: an array of *n_namesp names, to be
 * released with one free(). Negative errno on failure.
 */
int gw_bridge_list(char (**namesp)[IFNAMSIZ], size_t *n_namesp);

/* The tap that a descriptor of a process is, as that process's network namespace calls it; -1 if it
 * is none or cannot be seen. */
int gw_tap_of_fd(pid_t pid, int fd, char ifname[IFNAMSIZ]);

#endif
