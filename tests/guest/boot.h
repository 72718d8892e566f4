/* SPDX-License-Identifier: Apache-2.0 */
/* What a first process owes the machine before it can do anything else. */
#ifndef GW_GUEST_BOOT_H
#define GW_GUEST_BOOT_H

#include "settings.h"

/* Mounts /proc, /sys and /dev and makes stdout the console; an oops becomes a panic, so
 * that a damaged kernel is seen at once. Fatal when it fails. */
void gw_boot_mounts(void);

/* Loads the modules that /modules.list names, one path a line, in that order, the balloon's only
 * where it is wanted: its driver says what memory is free, and that then does not move. Fatal when
 * one is refused. */
void gw_boot_modules(const struct gw_settings *settings);

/* Waits up to 10 s for eth0, then gives it the address and takes it and lo up. Fatal when it
 * fails. Does nothing without an address. */
void gw_boot_network(const struct gw_settings *settings);

/* Reads a file of /proc or /sys as a string; fatal when it fails. */
void gw_boot_read(const char *path, char *text, size_t n_text);

#endif
