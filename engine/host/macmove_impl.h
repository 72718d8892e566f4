/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of macmove: not for others. */
#ifndef GW_HOST_MACMOVE_IMPL_H
#define GW_HOST_MACMOVE_IMPL_H

#include "host/macmove.h"

/* macmove_link.c: netlink. Each returns 0 or a negative errno unless it fills an error. */

/* Is it a bridge, does it filter VLANs, and which is the tap's? Fills vlan and vlan_protocol. */
int macmove_read_vlan(struct gw_macmove *mm, struct gw_error *e);
/* Fills ports and n_ports. */
int macmove_read_ports(struct gw_macmove *mm, struct gw_error *e);
/* The port at which the bridge has the MAC (which may be the bridge itself): *indexp. -ENOENT. */
int macmove_find_mac(struct gw_macmove *mm, int *indexp);
/* Makes fdb, flood_on and flood_off. */
void macmove_make_requests(struct gw_macmove *mm);
/* Sends prepared requests in one datagram; the kernel has done all when it returns. */
int macmove_request(struct gw_macmove *mm, struct gw_macmove_request *const *requests,
                    size_t n_requests, int *failedp);

/* macmove_frames.c */
void macmove_make_rarp(struct gw_macmove_frame *frame, const uint8_t mac[6]);
/* false: the text is no address. */
bool macmove_make_address(struct gw_macmove_frame *frame, const uint8_t mac[6],
                          const char *address);

#endif
