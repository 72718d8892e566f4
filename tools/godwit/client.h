/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP to godwitd over its unix socket: single requests, and the stream of events.
 *
 * What comes back is untrusted: a body ends at GW_CLIENT_REPLY_MAX, JSON is checked before anybody
 * sees it, an event at GW_SSE_EVENT_MAX.
 */
#ifndef GW_GODWIT_CLIENT_H
#define GW_GODWIT_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <curl/curl.h>
#include <jansson.h>
#include "godwit/error.h"
#include "sse.h"
#include "util/cleanup.h"

enum {
    GW_CLIENT_REPLY_MAX = 8 * 1024 * 1024,
};

/*
 * Ctrl-C and SIGTERM as something to wait for instead of the end of the program. While it is open
 * both signals are blocked; every wait of the client and the stream looks at it.
 */
struct gw_interrupts {
    int fd;                                           /* a signalfd; -1: closed */
    unsigned n_seen;                                  /* how many have come */
    void (*notice)(struct gw_interrupts *interrupts); /* called for each; may be NULL */
};

/* 0, or -1 and *e. */
int gw_interrupts_open(struct gw_interrupts *interrupts, struct gw_error *e);
void gw_interrupts_close(struct gw_interrupts *interrupts);

/* Waits at most timeout_ms for one. True if one came. */
bool gw_interrupts_wait(struct gw_interrupts *interrupts, int timeout_ms);

struct gw_client {
    const char *socket;               /* borrowed */
    struct gw_interrupts *interrupts; /* NULL: signals end the program, as usual. The second one
                                         ends a request with GW_E_CANCELLED */
};

struct gw_request {
    const char *method;
    const char *path;    /* with its query; names in it are escaped: gw_client_path() */
    const json_t *body;  /* borrowed; NULL: none */
    unsigned timeout_ms; /* 0: 30 s */
};

struct gw_reply {
    long status;  /* 0: there was no answer */
    bool sent;    /* the daemon may have got the request, even where no answer came */
    json_t *json; /* NULL where the body is empty or of another type */
    char *text;   /* the body as it came, NUL-terminated; NULL where there is none */
};

/* Makes "prefix + escaped name + suffix"; the caller frees it. */
char *gw_client_path(const char *prefix, const char *name, const char *suffix);

/*
 * Sends a request and waits for the whole answer. 0 for a 2xx status with a body that is
 * well-formed; -1 and *e otherwise: with the daemon's own code, message and hint where it sent
 * them. *reply is to be given to gw_reply_fini() in both cases.
 */
int gw_client_send(const struct gw_client *client, const struct gw_request *request,
                   struct gw_reply *reply, struct gw_error *e);
void gw_reply_fini(struct gw_reply *reply);

#define GW_REPLY_AUTO GW_CLEANUP(gw_reply_fini)

/* GET path whose answer must be JSON: a new reference in *jsonp, or -1 and *e. */
int gw_client_get(const struct gw_client *client, const char *path, json_t **jsonp,
                  struct gw_error *e);

struct gw_stream {
    const struct gw_client *client;
    CURLM *multi;
    CURL *easy;
    struct gw_sse sse;
    bool open;   /* the daemon has answered 200: what happens from now on will be told */
    int refused; /* what the parser said when it gave up, or 0 */
};

/* Starts to connect to /v1/events; events go to the sink. Any earlier stream is closed. 0, or -1
 * and *e. All zero is a closed stream. */
int gw_stream_open(struct gw_stream *stream, const struct gw_client *client,
                   struct gw_sse_sink *sink, struct gw_error *e);

/* Waits at most timeout_ms for something to come, and delivers it. 0, or -1 and *e: the stream has
 * ended and is closed. */
int gw_stream_pump(struct gw_stream *stream, int timeout_ms, struct gw_error *e);
void gw_stream_close(struct gw_stream *stream);

#endif
