/* SPDX-License-Identifier: Apache-2.0 */
/* Takes TCP connections, one after the other, and throws away what comes: for a sender outside that
 * watches its own retransmissions. */
#ifndef GW_GUEST_TCPSINK_H
#define GW_GUEST_TCPSINK_H

struct gw_tcpsink {
    int fd; /* listening */
};

/* The thread's body; never returns. */
void *gw_tcpsink_run(void *sink);

#endif
