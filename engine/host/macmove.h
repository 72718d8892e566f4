/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving a guest's MAC address to this node at the switchover, so that no packet is lost.
 *
 * On the destination, before the guest arrives:      open, addresses (if known), hold
 *   at the moment when the source has paused it:     take: packets now wait in the tap's queue,
 *                                                    which QEMU reads as soon as the guest runs
 *   after it runs, on QEMU's announce schedule:      announce, and then fini
 * On the source, if the migration fails:             take of the source's own tap: traffic returns
 * On the source, after the destination's take:       drain, or read and the destination's inject
 *
 * Everything is in-process: one netlink and one packet socket, opened with the rest of what take()
 * needs in open(). hold(), release(), take() and announce() allocate nothing, ask nobody and take
 * tens of microseconds, except that the kernel's network configuration lock may be held by
 * somebody else for longer. The sockets belong to the network namespace of the thread that called
 * open(). Needs CAP_NET_ADMIN and CAP_NET_RAW. Not for Open vSwitch: its ports are not a bridge's.
 *
 * Frames leave through every other port of the bridge that forwards, each tagged as that port is
 * configured, and not through the bridge device itself: that one needs to be a member of the
 * guest's VLAN, which the bridge of a host that is not in it is not, and it would give the guest
 * its own announcement back, as if somebody else had its address.
 */
#ifndef GW_HOST_MACMOVE_H
#define GW_HOST_MACMOVE_H

#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "godwit/error.h"

#define GW_MACMOVE_PORTS_MAX     64u   /* of one bridge; further ones hear no announcement */
#define GW_MACMOVE_ADDRESSES_MAX 16u   /* of one NIC */
#define GW_MACMOVE_DRAIN_MAX     4096u /* frames read by one drain() */
/* The header that every frame of read() and inject() begins with: without num_buffers. */
#define GW_MACMOVE_HEADER_BYTES (sizeof(struct virtio_net_hdr))

/* A port of the bridge, and how a frame of the guest's VLAN leaves through it. */
struct gw_macmove_port {
    int index;
    bool tagged;
};

/* An announcement as it leaves untagged. */
struct gw_macmove_frame {
    uint8_t bytes[96];
    size_t n_bytes;
};

/* A netlink request that is ready to be sent. */
struct gw_macmove_request {
    uint8_t bytes[128] __attribute__((aligned(4)));
    size_t n_bytes;
};

/* One NIC. Embedded by the caller; the fields are private. All zero: as after fini(). */
struct gw_macmove {
    bool opened;
    int netlink_fd, packet_fd;
    char bridge[IFNAMSIZ], tap[IFNAMSIZ];
    int bridge_index, tap_index;
    uint8_t mac[6];
    uint16_t vlan;          /* PVID of the tap's port, host order; 0: the bridge filters no VLANs */
    uint16_t vlan_protocol; /* the bridge's EtherType for tags, host order */
    uint32_t sequence;      /* of netlink requests */
    struct gw_macmove_port ports[GW_MACMOVE_PORTS_MAX]; /* all but the tap that forward */
    size_t n_ports;
    struct gw_macmove_frame frames[1 + GW_MACMOVE_ADDRESSES_MAX]; /* RARP first */
    size_t n_frames;
    struct gw_macmove_request fdb, flood_off, flood_on;
    uint8_t *buffer; /* of GW_MACMOVE_BUFFER_BYTES: netlink dumps, drained frames */
};

#define GW_MACMOVE_BUFFER_BYTES (128u << 10)

/*
 * Prepares everything for a tap that is a port of that bridge, in the calling thread's network
 * namespace; changes nothing. mac as "52:54:00:12:34:56". On error (GW_E_USAGE: a name or the MAC;
 * GW_E_NOT_FOUND: no such interface; GW_E_STATE: no bridge, the tap is no port of it, or has no
 * PVID on a bridge that filters VLANs; GW_E_SYSTEM) mm is as after fini().
 */
int gw_macmove_open(struct gw_macmove *mm, const char *bridge, const char *tap, const char *mac,
                    struct gw_error *e);

/*
 * The guest's addresses, IPv4 or IPv6 as text: they are announced too (gratuitous ARP, unsolicited
 * neighbour advertisement). Replaces those of an earlier call. On GW_E_USAGE (not an address, or
 * more than GW_MACMOVE_ADDRESSES_MAX) those before the bad one stay.
 */
int gw_macmove_addresses(struct gw_macmove *mm, const char *const *addresses, size_t n_addresses,
                         struct gw_error *e);

/*
 * Before the guest arrives: the bridge floods nothing to the tap (broadcast, multicast, unknown
 * unicast), so that its queue does not fill with noise while nobody reads it. Also reads anew which
 * ports the bridge has, for take(): call it before every move, after open() at the latest.
 */
int gw_macmove_hold(struct gw_macmove *mm, struct gw_error *e);

/* Floods to the tap again, all three kinds. take() does it too. */
int gw_macmove_release(struct gw_macmove *mm, struct gw_error *e);

/*
 * Now: the bridge's table sends the MAC to the tap (a dynamic entry: it ages and moves like a
 * learned one), flooding is on, and the switches behind the other ports hear the announcement. The
 * tap's port must forward, so QEMU must have it open since a moment (EPERM otherwise). On an error
 * of the table or the flooding nothing is announced; both have been tried. Announcing fails only if
 * there are ports and no frame left through any of them.
 */
int gw_macmove_take(struct gw_macmove *mm, struct gw_error *e);

/* The announcement once more, through the ports that forward at this moment. */
int gw_macmove_announce(struct gw_macmove *mm, struct gw_error *e);

/*
 * QEMU's descriptor of a tap, duplicated into this process; close it. pidfd and pid are the same
 * process. Of a multi-queue tap the lowest descriptor, which is one queue only. Needs the right to
 * ptrace the process. GW_E_NOT_FOUND: it has no such tap open.
 */
int gw_macmove_tap_fd(int pidfd, pid_t pid, const char *tap, struct gw_error *e);

/*
 * The frames that wait in a tap's queue. *Only* safe when nobody else will read that queue for the
 * guest again, that is on the source, with the guest paused, after the destination's take() (until
 * then more may arrive) and best after the commit: each frame exists once, so what is read here and
 * the guest then resumes on this node is lost to it. Also safe is a tap that belongs to nobody.
 * A stopped QEMU does not read its taps, but vhost must have been stopped with it.
 *
 * tap_fd must be non-blocking, as QEMU's is: the flag is shared with QEMU and not changed here.
 */

/*
 * Reads one frame: 1, and *framep (in mm's buffer, until the next call) begins with a virtio-net
 * header of GW_MACMOVE_HEADER_BYTES, all zero if the tap has none. 0: the queue is empty.
 */
int gw_macmove_read(struct gw_macmove *mm, int tap_fd, const uint8_t **framep, size_t *n_bytesp,
                    struct gw_error *e);

/*
 * Puts such a frame, from another node's read(), straight into the queue of this tap. No bridge and
 * no switch sees it: the right way for frames whose sender is elsewhere.
 */
int gw_macmove_inject(struct gw_macmove *mm, const uint8_t *frame, size_t n_bytes,
                      struct gw_error *e);

/*
 * Reads up to GW_MACMOVE_DRAIN_MAX frames and sends those for the guest's MAC, unchanged and with
 * their GSO and checksum headers, through the port where the bridge's table now has it. Others
 * (flooded: every node got its own copy) are dropped. *n_framesp, if not NULL, counts those sent,
 * also on error. GW_E_STATE: the table does not have the MAC elsewhere yet; nothing was read.
 *
 * A frame keeps its sender's address: a switch outside learns that the sender is behind *this*
 * node, and answers to it are lost until it speaks again. That is right for senders on this node
 * only; carry other frames with read() and inject().
 */
int gw_macmove_drain(struct gw_macmove *mm, int tap_fd, size_t *n_framesp, struct gw_error *e);

/* Closes and frees; idempotent. Changes nothing in the network: a held tap stays held. */
void gw_macmove_fini(struct gw_macmove *mm);

#endif
