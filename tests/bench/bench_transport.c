/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast lanes are over loopback, and what they cost: tcp plain and under TLS, with 1, 2 and 4
 * lanes, each end of each lane in a thread of its own. Prints a table; not installed, not a test.
 *
 *     bench_transport [MEGABYTES [URI-PARAMETERS]]      4096, none; parameters as of
 * transports/tcp/tcp.h
 *
 * MB/s is 10^6 bytes a second of all lanes together; CPU s/GB is what both ends used in user and
 * system mode for 10^9 bytes.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>
#include <openssl/ssl.h>

#include "godwit/transport.h"
#include "shell/pki.h"
#include "util/cleanup.h"
#include "util/clock.h"

enum { LANES = 4, DEPTH = 4, CHUNK = 512 << 10 };

struct end {
    struct gw_lane *lane;
    bool sends;
    uint64_t n_bytes; /* to move */
    struct gw_transfer transfers[DEPTH];
    struct iovec iov[DEPTH]
                    [CHUNK / 4096 / 2]; /* pieces of two pages, as a batch of pages has them */
};

static _Noreturn void die(const char *what, const struct gw_error *error)
{
    fprintf(stderr, "bench_transport: %s: %s\n", what, error ? error->msg : "failed");
    exit(1);
}

static void submit(struct end *end, struct gw_transfer *transfer)
{
    int r = end->sends ? end->lane->ops->send(end->lane, transfer)
                       : end->lane->ops->receive(end->lane, transfer);

    if (r < 0)
        die("submit", NULL);
}

static void wait_for(struct gw_lane *lane, int epoll, unsigned *eventsp)
{
    struct epoll_event event = {0};
    struct gw_want want;
    uint64_t now_ns = gw_clock_ns();

    lane->ops->want(lane, &want);
    if (want.events != *eventsp) {
        event.events = (want.events & GW_IO_READ ? (unsigned)EPOLLIN : 0) |
                       (want.events & GW_IO_WRITE ? (unsigned)EPOLLOUT : 0);
        epoll_ctl(epoll, EPOLL_CTL_MOD, want.fd, &event);
        *eventsp = want.events;
    }
    epoll_wait(epoll, &event, 1,
               want.at_ns <= now_ns ? 0
               : want.at_ns == GW_NEVER
                   ? -1
                   : (int)((want.at_ns - now_ns + GW_NS_PER_MS - 1) / GW_NS_PER_MS));
    lane->ops->notify(lane, *eventsp, gw_clock_ns());
}

static void *run(void *arg)
{
    struct end *end = arg;
    struct gw_transfer *done;
    uint64_t n_submitted = 0, n_done = 0;
    struct epoll_event event = {0};
    struct gw_want want;
    unsigned events = 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    char *memory = aligned_alloc(4096, (size_t)DEPTH * CHUNK);

    memset(memory, 1, (size_t)DEPTH * CHUNK);
    end->lane->ops->want(end->lane, &want);
    epoll_ctl(epoll, EPOLL_CTL_ADD, want.fd, &event);
    for (unsigned i = 0; i < DEPTH && n_submitted < end->n_bytes; i++, n_submitted += CHUNK) {
        for (unsigned k = 0; k < GW_ARRAY_SIZE(end->iov[i]); k++)
            end->iov[i][k] = (struct iovec){memory + (size_t)i * CHUNK + k * 8192u, 8192};
        end->transfers[i] =
            (struct gw_transfer){.iov = end->iov[i], .n_iov = GW_ARRAY_SIZE(end->iov[i])};
        submit(end, &end->transfers[i]);
    }
    while (n_done < end->n_bytes) {
        while ((done = end->lane->ops->done(end->lane))) {
            if (done->result != 0)
                die("transfer", end->lane->ops->error(end->lane));
            n_done += CHUNK;
            if (n_submitted < end->n_bytes) {
                submit(end, done);
                n_submitted += CHUNK;
            }
        }
        if (n_done < end->n_bytes)
            wait_for(end->lane, epoll, &events);
    }
    free(memory);
    close(epoll);
    return NULL;
}

/* Lets everything move until all lanes are open. */
static void open_lanes(struct gw_listener *listener, struct end ends[2][LANES], unsigned n)
{
    unsigned n_open = 0, n_accepted = 0;
    struct gw_lane_info info;

    while (n_open < n || n_accepted < n) {
        struct gw_lane *lane;

        listener->ops->notify(listener, GW_IO_READ, gw_clock_ns());
        while ((lane = listener->ops->accept(listener)))
            ends[1][n_accepted++].lane = lane;
        n_open = 0;
        for (unsigned i = 0; i < n; i++) {
            lane = ends[0][i].lane;
            lane->ops->notify(lane, GW_IO_READ | GW_IO_WRITE, gw_clock_ns());
            lane->ops->info(lane, &info);
            n_open += info.state == GW_LANE_OPEN;
            if (info.state == GW_LANE_FAILED)
                die("connect", lane->ops->error(lane));
        }
    }
}

static double cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void measure(struct end ends[2][LANES], unsigned n, uint64_t n_bytes)
{
    pthread_t threads[2][LANES];
    uint64_t began_ns = gw_clock_ns();
    double cpu = cpu_seconds(), seconds, gigabytes;
    struct gw_lane_info info;

    for (int side = 0; side < 2; side++) {
        for (unsigned i = 0; i < n; i++) {
            ends[side][i].sends = side == 0;
            ends[side][i].n_bytes = n_bytes / n / CHUNK * CHUNK;
            pthread_create(&threads[side][i], NULL, run, &ends[side][i]);
        }
    }
    for (int side = 0; side < 2; side++)
        for (unsigned i = 0; i < n; i++)
            pthread_join(threads[side][i], NULL);
    seconds = (double)(gw_clock_ns() - began_ns) / 1e9;
    gigabytes = (double)(ends[0][0].n_bytes * n) / 1e9;
    ends[0][0].lane->ops->info(ends[0][0].lane, &info);
    printf("%-9s %5u %8.0f %9.3f\n", gw_lane_tls_name(info.tls), n, 1e3 * gigabytes / seconds,
           (cpu_seconds() - cpu) / gigabytes);
    fflush(stdout);
}

static void bench(const struct gw_transport_env *env, const char *query, unsigned n,
                  uint64_t n_bytes)
{
    static struct end ends[2][LANES];
    struct gw_lane_expected expected = {.n_lanes = (uint16_t)n};
    struct gw_transport *transports[2];
    struct gw_listener *listener;
    struct gw_error error;
    char uri[300];

    memset(ends, 0, sizeof ends);
    snprintf(uri, sizeof uri, "tcp://127.0.0.1:0?%s", query);
    if (gw_transport_open(uri, env, &transports[1], &error) < 0 ||
        transports[1]->ops->listen(transports[1], &listener, &error) < 0)
        die(uri, &error);
    listener->ops->expect(listener, &expected);
    snprintf(uri, sizeof uri, "tcp://127.0.0.1:%u?%s", listener->ops->port(listener), query);
    if (gw_transport_open(uri, env, &transports[0], &error) < 0)
        die(uri, &error);
    for (unsigned i = 0; i < n; i++) {
        struct gw_lane_hello hello = {.lane = (uint16_t)i, .n_lanes = (uint16_t)n};

        if (transports[0]->ops->connect(transports[0], &hello, "", &ends[0][i].lane, &error) < 0)
            die("connect", &error);
    }
    open_lanes(listener, ends, n);
    measure(ends, n, n_bytes);
    for (unsigned i = 0; i < n; i++) {
        gw_lane_free(ends[0][i].lane);
        gw_lane_free(ends[1][i].lane);
    }
    gw_listener_free(listener);
    gw_transport_free(transports[0]);
    gw_transport_free(transports[1]);
}

int main(int argc, char **argv)
{
    uint64_t n_bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 4096) * 1000000;
    const char *query = argc > 2 ? argv[2] : "lanes=4";
    char dir[] = "/tmp/gw-bench-XXXXXX", plain[256], command[64];
    struct gw_error error;
    struct gw_pki pki = {0};

    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(dir) || gw_pki_init_ca(dir, "bench", &error) < 0 ||
        gw_pki_load(dir, &pki, &error) < 0)
        die(dir, &error);
    snprintf(plain, sizeof plain, "%s&plain=yes", query);
    printf("%-9s %5s %8s %9s\n", "", "lanes", "MB/s", "CPU s/GB");
    for (unsigned n = 1; n <= LANES; n *= 2)
        bench(&(struct gw_transport_env){0}, plain, n, n_bytes);
    for (unsigned n = 1; n <= LANES; n *= 2)
        bench(&(struct gw_transport_env){pki.ctx, NULL}, query, n, n_bytes);
    gw_pki_fini(&pki);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) != 0;
}
