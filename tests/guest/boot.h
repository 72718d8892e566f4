/* SPDX-License-Identifier: Apache-2.0 */
/* What a first process owes the machine before it can do anything else. */
#ifndef GW_GUEST_BOOT_H
#define GW_GUEST_BOOT_H

#include <stdbool.h>

#include "settings.h"

/* Mounts /proc, /sys and /dev and makes stdout the console; an oops becomes a panic, so
 * that a damaged kernel is seen at once. Fatal when it fails. */
void gw_boot_mounts(void);

/* Whether the root is a disk, and no initramfs any more. */
bool gw_boot_on_disk(void);

/* Makes the ext4 on the device the root, takes /dev, /proc and /sys along, and begins again as its
 * /sbin/init, which is this program. Fatal when it fails; does not return. */
void gw_boot_from_disk(const char *device);

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
