/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/process.h"
#include "shell/daemon.h"
#include "shell/guestaddr.h"
#include "shell/nethook.h"
#include "util/cleanup.h"

#define LOG_MAX_BYTES (1 << 20)

enum point { PREPARE, SWITCH, UNDO, DONE, NONE };

static const char *const point_names[] = {"prepare", "switch", "undo", "done"};

struct gw_nethook {
    LIST_ENTRY(gw_nethook) link; /* in the daemon's list */
    struct gw_daemon *daemon;
    char id[GW_MIGRATION_ID_SIZE];
    json_t *body;                 /* what the program is told, but for the point */
    char *log_path;               /* its output */
    struct gw_process process;    /* the one that runs; pid 0: none */
    enum point point;             /* what it runs for */
    int input_fd;                 /* its standard input while it is to wait; -1 */
    bool timed_out;               /* it was killed */
    bool told;                    /* it has got the object */
    struct event *exit_event;     /* its pidfd */
    struct event *timer;          /* its limit */
    struct gw_nethook_call *call; /* prepare's */
    enum point last;              /* to be run when it has ended; NONE: not yet known */
};

static void begin_last(struct gw_nethook *h);

static json_t *describe_nics(struct gw_vm *vm)
{
    json_t *nics = json_array();

    for (unsigned i = 0; i < vm->spec->n_nics; i++) {
        const struct gw_vm_nic *nic = &vm->spec->nics[i];
        const struct gw_addresses *known = gw_guestaddr_of(vm->addresses, i);

        json_array_append_new(nics, json_pack("{s:s?, s:s?, s:s?, s:o}", "mac", nic->mac, "bridge",
                                              nic->bridge, "tap",
                                              i < vm->n_taps ? vm->tap_names[i] : NULL, "addresses",
                                              known ? gw_addresses_to_json(known) : json_array()));
    }
    return nics;
}

static json_t *describe(struct gw_migration *m)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "migration", m->id, "role",
                     m->machine.role == GW_SOURCE ? "source" : "destination", "vm", m->vm_name,
                     "uuid", m->vm_uuid, "from", m->record.from, "to", m->record.to, "nics",
                     describe_nics(m->vm));
}

static void close_input(struct gw_nethook *h)
{
    gw_cleanup_close(&h->input_fd);
    h->input_fd = -1;
}

static void hook_free(struct gw_nethook *h)
{
    LIST_REMOVE(h, link);
    if (h->exit_event)
        event_free(h->exit_event);
    event_free(h->timer);
    close_input(h);
    gw_process_fini(&h->process);
    json_decref(h->body);
    free(h->log_path);
    free(h);
}

void gw_nethooks_free(struct gw_daemon *d)
{
    while (!LIST_EMPTY(&d->nethooks))
        hook_free(LIST_FIRST(&d->nethooks));
}

/* The program has ended, or could not be started. h may be gone afterwards. */
static void conclude(struct gw_nethook *h, const struct gw_error *error)
{
    struct gw_nethook_call *call = gw_steal_ptr(&h->call);
    bool was_last = h->point == h->last;

    if (error && !call) {
        gw_log(&h->daemon->log, GW_LOG_WARNING, h->id, "%s", error->msg);
        gw_daemon_note(h->daemon, h->id, error->msg);
    }
    h->point = NONE;
    if (was_last)
        hook_free(h);
    else if (h->last != NONE)
        begin_last(h);
    else if (call)
        call->done(call, error);
}

static void say_how(struct gw_nethook *h, const struct gw_process_exit *ex, struct gw_error *e)
{
    const struct gw_config *config = h->daemon->config;
    char how[64], words[320] = "";

    gw_process_exit_text(ex, how, sizeof how);
    gw_process_log_tail(h->log_path, h->process.log_offset, words, sizeof words);
    if (h->timed_out)
        snprintf(how, sizeof how, "was killed after %u s", config->network_hook_timeout_s);
    gw_error_set(e, h->timed_out ? GW_E_TIMEOUT : GW_E_STATE, "%s %s %s%s%s", config->network_hook,
                 point_names[h->point], how, words[0] ? ": " : "", words);
    gw_error_hint(e, "its output is in %s", h->log_path);
}

static void has_ended(evutil_socket_t fd, short what, void *arg)
{
    struct gw_nethook *h = arg;
    struct gw_process_exit ex;
    struct gw_error error;
    bool failed;

    (void)fd;
    (void)what;
    if (gw_process_reap(&h->process, &ex) != 0)
        return;
    /* one that waited in vain for a switch may end as it likes */
    failed = h->told && (h->timed_out || !ex.known || ex.signaled || ex.value != 0);
    if (failed)
        say_how(h, &ex, &error);
    event_del(h->timer);
    event_free(gw_steal_ptr(&h->exit_event));
    gw_process_fini(&h->process);
    close_input(h);
    conclude(h, failed ? &error : NULL);
}

/* It leads a process group of its own: what it has started goes with it. */
static void limit_came(evutil_socket_t fd, short what, void *arg)
{
    struct gw_nethook *h = arg;

    (void)fd;
    (void)what;
    h->timed_out = true;
    kill(-h->process.pid, SIGKILL); /* not reaped yet, so this is its group */
}

/* The object, and with it the end of what the program waits for. */
static void feed(struct gw_nethook *h)
{
    const struct timeval limit = {.tv_sec = h->daemon->config->network_hook_timeout_s};
    gw_autofree char *text = NULL;
    size_t length;

    json_object_set_new(h->body, "point", json_string(point_names[h->point]));
    text = json_dumps(h->body, JSON_COMPACT);
    length = text ? strlen(text) : 0;
    if (text)
        text[length++] = '\n'; /* in the place of the final 0 */
    if (!text || write(h->input_fd, text, length) != (ssize_t)length)
        gw_log(&h->daemon->log, GW_LOG_WARNING, h->id, "%s %s was not told all: %s",
               h->daemon->config->network_hook, point_names[h->point], strerror(errno));
    close_input(h);
    h->told = true;
    event_add(h->timer, &limit);
}

/* An empty pipe takes 64 KiB without waiting, and the object is smaller; if it were not, the rest
 * would be missing rather than the daemon wait. */
static int make_input(int *readp, int *writep, struct gw_error *error)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return gw_error_set_sys(error, errno, "make a pipe for the network hook");
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    *readp = ends[0];
    *writep = ends[1];
    return 0;
}

static void shorten_log(const struct gw_nethook *h)
{
    struct stat st;

    if (stat(h->log_path, &st) == 0 && st.st_size > LOG_MAX_BYTES)
        unlink(h->log_path);
}

static int start(struct gw_nethook *h, enum point point, struct gw_error *error)
{
    char *argv[] = {h->daemon->config->network_hook, (char *)point_names[point], NULL};
    gw_autoclose int input = -1;

    h->point = point;
    h->timed_out = h->told = false;
    shorten_log(h);
    if (make_input(&input, &h->input_fd, error) < 0)
        return -1;
    if (gw_process_start_reading(argv, input, h->log_path, &h->process, error) < 0) {
        close_input(h);
        return -1;
    }
    h->exit_event = event_new(h->daemon->base, h->process.pidfd, EV_READ, has_ended, h);
    if (!h->exit_event || event_add(h->exit_event, NULL) < 0)
        abort();
    return 0;
}

static void run(struct gw_nethook *h, enum point point)
{
    struct gw_error error;

    if (start(h, point, &error) < 0)
        conclude(h, &error);
    else
        feed(h);
}

static void begin_last(struct gw_nethook *h)
{
    run(h, h->last);
}

static struct gw_nethook *hook_new(struct gw_migration *m)
{
    struct gw_nethook *h = calloc(1, sizeof *h);

    if (!h)
        abort();
    h->daemon = m->daemon;
    h->process = GW_PROCESS_NONE;
    h->input_fd = -1;
    h->point = h->last = NONE;
    h->body = describe(m);
    h->timer = evtimer_new(m->daemon->base, limit_came, h);
    if (asprintf(&h->log_path, "%s/network-hook.log", m->daemon->config->run_dir) < 0 || !h->timer)
        abort();
    memcpy(h->id, m->id, sizeof h->id);
    LIST_INSERT_HEAD(&m->daemon->nethooks, h, link);
    return h;
}

void gw_nethook_prepare(struct gw_migration *m, struct gw_nethook **hookp,
                        struct gw_nethook_call *call)
{
    *hookp = m->daemon->config->network_hook ? hook_new(m) : NULL;
    if (!*hookp) {
        call->done(call, NULL);
        return;
    }
    (*hookp)->call = call;
    run(*hookp, PREPARE);
}

void gw_nethook_await_switch(struct gw_nethook *h)
{
    struct gw_error error;

    if (h && h->point == NONE && start(h, SWITCH, &error) < 0)
        conclude(h, &error);
}

void gw_nethook_switch(struct gw_nethook *h, struct gw_migration *m)
{
    if (!h)
        return;
    json_object_set_new(h->body, "nics", describe_nics(m->vm));
    if (h->point == SWITCH && h->input_fd >= 0)
        feed(h);
    else
        gw_log(&h->daemon->log, GW_LOG_WARNING, h->id, "%s switch did not wait until the switch",
               h->daemon->config->network_hook);
}

void gw_nethook_end(struct gw_nethook *h, const struct gw_machine *machine)
{
    const struct timeval limit = {.tv_sec = 1};

    if (!h)
        return;
    h->call = NULL;
    h->last = machine->phase == GW_COMPLETED ? DONE : UNDO;
    if (machine->needs_person) {
        gw_log(&h->daemon->log, GW_LOG_WARNING, h->id,
               "%s is told nothing: nobody knows where the guest runs",
               h->daemon->config->network_hook);
        hook_free(h);
        return;
    }
    if (h->point == NONE) {
        begin_last(h);
    } else if (h->input_fd >= 0) { /* it waits for a switch that does not come */
        close_input(h);
        event_add(h->timer, &limit);
    }
}
