/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QMP session on a unix socket, driven by a libevent loop.
 *
 * Every callback (of the handler and of the calls) comes from the loop, never from inside a
 * function here. In a callback every function here may be called, gw_qmp_link_free() included. An
 * idle link has no timer and wakes nobody.
 */
#ifndef GW_SHELL_QMP_LINK_H
#define GW_SHELL_QMP_LINK_H

#include <stdint.h>
#include <sys/types.h>
#include <jansson.h>
#include <event2/event.h>

#include "godwit/error.h"
#include "qmp/session.h"

struct gw_qmp_link;

/* A member that is 0 stands for the default. */
struct gw_qmp_link_options {
    uint64_t connect_timeout_ns; /* how long a socket that is not there yet, or not listening, is
                                    tried again, every 10 ms at most; default 10 s */
    struct gw_qmp_options session;
};

/*
 * Opens a link to the QMP socket at path; it connects from the loop. Commands may be executed at
 * once: they wait. Whatever fails after this (no socket in time, no permission, no greeting, QEMU
 * gone) comes as handler->closed. handler must outlive the link, or be NULL; options may be NULL.
 * Returns NULL when the path does not fit into a socket address or a resource is missing.
 */
struct gw_qmp_link *gw_qmp_link_open(struct event_base *base, const char *path,
                                     struct gw_qmp_handler *handler,
                                     const struct gw_qmp_link_options *options,
                                     struct gw_error *error);

/* As gw_qmp_session_execute(), at the present time: args are stolen, timeout_ns 0 means never,
 * call->done comes exactly once. Cancel with gw_qmp_session_cancel_call(call). */
void gw_qmp_link_execute(struct gw_qmp_link *link, struct gw_qmp_call *call, const char *command,
                         json_t *args, uint64_t timeout_ns);

/* Disconnects now; pending calls are done and handler->closed is called from the loop. error as in
 * gw_qmp_session_close(); may be NULL. The link still has to be freed. */
void gw_qmp_link_close(struct gw_qmp_link *link, const struct gw_error *error);

/* Disconnects; no callback comes any more, pending calls are forgotten. NULL is fine. */
void gw_qmp_link_free(struct gw_qmp_link *link);

/* The process that made the socket (SO_PEERCRED, unix(7)); -1 while not connected. */
pid_t gw_qmp_link_peer_pid(const struct gw_qmp_link *link);

/* True between handler->ready and handler->closed. */
bool gw_qmp_link_is_ready(const struct gw_qmp_link *link);

#endif
