/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One QMP connection, from the greeting to its end, without I/O and without a clock.
 *
 * The owner moves bytes (gw_qmp_session_feed, _output, _consume), and calls _expire when _deadline
 * has come. The session answers the greeting, numbers the commands, matches the replies and hands
 * out the events.
 *
 *     connecting --_connected()--> greeting --> negotiating --> ready
 *          '--------------'------------'------------'-----------'------> closed
 *
 * Callbacks come only from inside _feed, _expire and _close, on the caller's stack. In every one of
 * them all functions here may be called again, _free included (then no other callback follows),
 * except _feed from inside _feed, which is asserted.
 *
 * Times are nanoseconds of one monotonic clock of the caller's choice.
 */
#ifndef GW_QMP_SESSION_H
#define GW_QMP_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <jansson.h>

#include "godwit/error.h"
#include "qmp/codec.h"

/* The deadline that never comes. */
#define GW_QMP_NEVER UINT64_MAX

struct gw_qmp_session;

/* Embedded by the owner of the session; must outlive it. Every member may be NULL. */
struct gw_qmp_handler {
    /* The handshake is done; at most once. greeting (borrowed) is what stood under "QMP":
     * {"version": {"qemu": {"major", "minor", "micro"}, "package"}, "capabilities": [...]}. */
    void (*ready)(struct gw_qmp_handler *handler, json_t *greeting);

    /* An event; one that QEMU emits while it finishes the handshake can come before ready.
     * data: an object, borrowed, or NULL. emitted_realtime_us: QEMU's host clock (CLOCK_REALTIME),
     * in microseconds; -1 if QEMU did not say. */
    void (*event)(struct gw_qmp_handler *handler, const char *name, json_t *data,
                  int64_t emitted_realtime_us);

    /* The session is closed; exactly once, after every pending call was done. error is never
     * NULL and says why. */
    void (*closed)(struct gw_qmp_handler *handler, const struct gw_error *error);
};

/*
 * One command in flight, embedded by whoever wants the reply. Zero it before its first use and set
 * done; it is lent to the session from _execute until done or _cancel_call, then free to be
 * used again, from within done too.
 */
struct gw_qmp_call {
    /* Exactly once, never from inside _execute, unless the call is cancelled or the session freed.
     * Success: reply (borrowed) is what stood under "return" and error is NULL. Otherwise reply is
     * NULL and error->code is GW_E_QEMU       QEMU refused; msg is "COMMAND: CLASS: DESCRIPTION" in
     * QEMU's own words GW_E_TIMEOUT    no reply in time; QEMU may still carry the command out
     *   GW_E_QEMU_GONE  the session was closed, before or after _execute
     *   GW_E_SYSTEM     out of memory; not sent */
    void (*done)(struct gw_qmp_call *call, json_t *reply, const struct gw_error *error);

    /* Ask for out-of-band execution (QEMU allows it for a few commands: migrate-pause, yank …).
     * Sent in band where options.want_oob was not set or QEMU does not offer it. */
    bool oob;

    /* Private to session.c. */
    struct gw_qmp_session *session; /* NULL unless pending */
    TAILQ_ENTRY(gw_qmp_call) link;
    json_t *request; /* owned, until it is sent */
    int64_t id;
    uint64_t timeout_ns;
    uint64_t deadline_ns;
    bool no_memory;   /* could not be built or sent; done says so at the next _expire */
    char command[64]; /* for messages; cut if longer */
};

/* A member that is 0 stands for the default. */
struct gw_qmp_options {
    struct gw_qmp_limits limits;
    uint64_t handshake_timeout_ns; /* from _connected to ready; default 5 s */
    bool want_oob;                 /* enable out-of-band execution if QEMU offers it */
};

/* handler may be NULL. options may be NULL: all defaults; copied. NULL if memory ran out. */
struct gw_qmp_session *gw_qmp_session_new(struct gw_qmp_handler *handler,
                                          const struct gw_qmp_options *options);

/* Calls that are still pending are forgotten, as if each were cancelled; no callback comes any
 * more, closed neither. NULL is fine. */
void gw_qmp_session_free(struct gw_qmp_session *session);

/* The connection is up: bytes may be fed from here on, and the handshake has to end in time. Once.
 */
void gw_qmp_session_connected(struct gw_qmp_session *session, uint64_t now_ns);

/* Bytes from QEMU. Malformed ones close the session. Ignored when it is closed. */
void gw_qmp_session_feed(struct gw_qmp_session *session, const char *data, size_t len);

/*
 * Sends a command; before ready it waits for the handshake, in order. args: an object or
 * NULL, stolen in any case. timeout_ns counts from now_ns; 0 means never. Always ends in
 * call->done, never from inside: a call that cannot be sent is due at now_ns, for _expire to
 * finish.
 */
void gw_qmp_session_execute(struct gw_qmp_session *session, struct gw_qmp_call *call,
                            const char *command, json_t *args, uint64_t now_ns,
                            uint64_t timeout_ns);

/* done will not be called. QEMU may still carry the command out; its reply is dropped. No effect
 * on a call that is not pending. */
void gw_qmp_session_cancel_call(struct gw_qmp_call *call);

/* True from _execute until done or cancelled. */
static inline bool gw_qmp_call_is_pending(const struct gw_qmp_call *call)
{
    return call->session != NULL;
}

/* Bytes to be written to QEMU: *lenp of them at *datap; 0 and NULL if none. Valid until the next
 * call of any function here. */
void gw_qmp_session_output(struct gw_qmp_session *session, const char **datap, size_t *lenp);

/* The first len bytes of the output were written. */
void gw_qmp_session_consume(struct gw_qmp_session *session, size_t len);

/* When _expire is to be called next; GW_QMP_NEVER if there is no need. */
uint64_t gw_qmp_session_deadline(const struct gw_qmp_session *session);

/* Ends the calls, or the handshake, whose time has come. Early is harmless. */
void gw_qmp_session_expire(struct gw_qmp_session *session, uint64_t now_ns);

/*
 * Ends the session: every pending call is done with GW_E_QEMU_GONE and the message of error, then
 * handler->closed gets error itself. error may be NULL ("closed by this side"). No effect when it
 * is closed already.
 */
void gw_qmp_session_close(struct gw_qmp_session *session, const struct gw_error *error);

bool gw_qmp_session_is_ready(const struct gw_qmp_session *session);
bool gw_qmp_session_is_closed(const struct gw_qmp_session *session);

#endif
