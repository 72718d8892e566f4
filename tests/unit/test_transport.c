/* SPDX-License-Identifier: Apache-2.0 */
/* The conformance suite on each transport and wrapper, and what only one of them has. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../conformance/transport.h"
#include "cluster.h"
#include "shell/pki.h"
#include "transports/hello.h"
#include "transports/uri.h"
#include "util/cleanup.h"
#include "util/clock.h"

static struct gw_pki n1, n2, foreign; /* foreign: of another cluster */
static struct gw_mem_hub *hub;
static struct gw_transport_env envs[2];

/* --- conformance ----------------------------------------------------------------------------- */

#define TCP_BOUND (6 << 20) /* 2 * rcvbuf for the receiver, the same in flight, and the rest */

static const struct transport_case cases[] = {
    {"mem", "mem://x", "mem://x", GW_LANE_PLAIN, 4 << 20, 64 << 10},
    {"mem, one byte", "mem://x", "mem://x?buffer=1", GW_LANE_PLAIN, 20000, 1},
    {"tcp plain", "tcp://127.0.0.1:0?plain=yes", "tcp://127.0.0.1:%u?plain=yes", GW_LANE_PLAIN,
     8 << 20, TCP_BOUND},
    {"tcp plain, small buffers", "tcp://127.0.0.1:0?plain=yes&rcvbuf=4KiB",
     "tcp://127.0.0.1:%u?plain=yes&sndbuf=4KiB&unsent=4KiB", GW_LANE_PLAIN, 1 << 20, 256 << 10},
    {"tcp plain, IPv6", "tcp://[::1]:0?plain=yes", "tcp://[::1]:%u?plain=yes", GW_LANE_PLAIN,
     1 << 20, TCP_BOUND},
    {"tcp tls", "tcp://127.0.0.1:0", "tcp://127.0.0.1:%u", GW_LANE_TLS, 8 << 20, TCP_BOUND},
    {"tcp tls, small buffers", "tcp://127.0.0.1:0?rcvbuf=4KiB",
     "tcp://127.0.0.1:%u?sndbuf=4KiB&unsent=4KiB", GW_LANE_TLS, 1 << 20, 256 << 10},
    {"fault+mem", "fault+mem://x?short=300&seed=4", "fault+mem://x?short=200&seed=5", GW_LANE_PLAIN,
     1 << 20, 64 << 10},
    {"fault+mem, delays", "fault+mem://x?short=3000&delay=1ms", "mem://x", GW_LANE_PLAIN, 100000,
     64 << 10},
    {"rate+mem", "rate+mem://x?rate=100MiB", "rate+mem://x?rate=100MiB", GW_LANE_PLAIN, 1 << 20,
     64 << 10},
    {"trace+mem", "trace+mem://x", "trace+mem://x?events=8", GW_LANE_PLAIN, 1 << 20, 64 << 10},
    {"fault+tcp plain", "fault+tcp://127.0.0.1:0?plain=yes&short=2000&seed=2",
     "fault+tcp://127.0.0.1:%u?plain=yes&short=2000", GW_LANE_PLAIN, 1 << 20, TCP_BOUND},
    {"rate+tcp plain", "rate+tcp://127.0.0.1:0?plain=yes&rate=4gbit",
     "rate+tcp://127.0.0.1:%u?plain=yes&rate=200MiB", GW_LANE_PLAIN, 4 << 20, TCP_BOUND},
    {"trace+tcp plain", "trace+tcp://127.0.0.1:0?plain=yes", "trace+tcp://127.0.0.1:%u?plain=yes",
     GW_LANE_PLAIN, 4 << 20, TCP_BOUND},
    {"fault+tcp tls", "fault+tcp://127.0.0.1:0?short=2000", "tcp://127.0.0.1:%u", GW_LANE_TLS,
     1 << 20, TCP_BOUND},
    {"rate+tcp tls", "tcp://127.0.0.1:0", "rate+tcp://127.0.0.1:%u?rate=200MiB", GW_LANE_TLS,
     4 << 20, TCP_BOUND},
    {"trace+tcp tls", "trace+tcp://127.0.0.1:0", "trace+tcp://127.0.0.1:%u", GW_LANE_TLS, 4 << 20,
     TCP_BOUND},
    {"trace+fault+rate+tcp tls", "trace+fault+rate+tcp://127.0.0.1:0?short=50000",
     "trace+fault+rate+tcp://127.0.0.1:%u?rate=200MiB&short=50000", GW_LANE_TLS, 1 << 20,
     TCP_BOUND},
};

static void conforms(void **state)
{
    transport_conformance(envs, *state);
}

/* --- tcp: who is let in ---------------------------------------------------------------------- */

static const struct transport_case plain = {"plain",
                                            "tcp://127.0.0.1:0?plain=yes&connect=300ms",
                                            "tcp://127.0.0.1:%u?plain=yes",
                                            GW_LANE_PLAIN,
                                            0,
                                            TCP_BOUND};
static const struct transport_case tls = {
    "tls",    "tcp://127.0.0.1:0?connect=2s", "tcp://127.0.0.1:%u?connect=2s", GW_LANE_TLS, 0,
    TCP_BOUND};

static struct sides *start(const struct transport_case *rules, unsigned n_lanes)
{
    struct sides *sides = calloc(1, sizeof *sides);

    sides->envs[0] = envs[0];
    sides->envs[1] = envs[1];
    sides_up(sides, rules, n_lanes);
    return sides;
}

static void stop(struct sides *sides)
{
    sides_down(sides);
    free(sides);
}

static int raw_connect(const struct sides *sides)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(sides->listener->ops->port(sides->listener)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static struct gw_lane_refusal next_refusal(struct sides *sides)
{
    struct gw_lane_refusal refusal;

    sides_until(sides, sides->listener->ops->refused(sides->listener, &refusal));
    return refusal;
}

static void hostile_hellos(void **state)
{
    static const struct {
        const char *story;
        size_t at;
        uint8_t value;
        const char *why;
    } rows[] = {
        {"another protocol", 0, 'H', "no lane of Godwit"},
        {"another version", 4, 2, "version 2"},
        {"reserved byte", 5, 1, "version 1"},
        {"lane out of range", 7, 9, "lane 9 of 1"},
        {"too many lanes", 8, 1, "lane 0 of 257"},
        {"no lanes", 9, 0, "lane 0 of 0"},
        {"reserved bytes", 11, 1, "version 1"},
        {"unknown migration", 12, 0, "no migration expected"},
        {"wrong secret", 43, 0, "no migration expected"},
    };
    struct sides *sides = start(&plain, 1);

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        struct gw_lane_hello hello = sides_hello(sides, 0);
        struct gw_lane_refusal refusal;
        uint8_t bytes[GW_HELLO_BYTES];
        int fd = raw_connect(sides);

        gw_hello_encode(&hello, bytes);
        bytes[rows[i].at] = rows[i].value;
        assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
        refusal = next_refusal(sides);
        assert_contains(refusal.error.msg, rows[i].why);
        assert_contains(refusal.address, "127.0.0.1:");
        close(fd);
    }
    stop(sides);
}

/* A hello that comes byte by byte is one all the same; a part of one is none. */
static void hello_in_pieces(void **state)
{
    struct sides *sides = start(&plain, 2);
    struct gw_lane_hello hello = sides_hello(sides, 0);
    uint8_t bytes[GW_HELLO_BYTES];
    uint8_t answer[GW_HELLO_ANSWER_BYTES];
    int fd;

    (void)state;
    hello.migration[3] = 9;
    sides->expected.migration[3] = 9;
    assert_int_equal(sides->listener->ops->expect(sides->listener, &sides->expected), 0);
    gw_lane_free(sides->lanes[1][0]);
    sides->lanes[1][0] = NULL;
    gw_hello_encode(&hello, bytes);
    fd = raw_connect(sides);
    for (size_t i = 0; i < sizeof bytes; i++) {
        assert_int_equal(write(fd, bytes + i, 1), 1);
        sides_turn(sides, 1);
    }
    sides_until(sides, sides->lanes[1][0]);
    assert_int_equal(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer);
    assert_int_equal(gw_hello_decode_answer(answer, NULL), 0);
    close(fd);

    fd = raw_connect(sides);
    assert_int_equal(write(fd, bytes, 20), 20);
    shutdown(fd, SHUT_WR);
    assert_contains(next_refusal(sides).error.msg, "closed before");
    close(fd);
    stop(sides);
}

/* Who says nothing is dropped in time, and many of them do not keep an honest lane out. */
static void silent_strangers(void **state)
{
    struct sides *sides = start(&plain, 2);
    struct gw_lane_refusal refusal;
    struct gw_lane_hello hello;
    int fds[100];

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(fds); i++)
        fds[i] = raw_connect(sides);
    refusal = next_refusal(sides);
    assert_int_equal(refusal.error.code, GW_E_BUSY);
    sides->listener->ops->forget(sides->listener, sides->expected.migration);
    sides->expected.migration[0]++;
    sides->listener->ops->expect(sides->listener, &sides->expected);
    hello = sides_hello(sides, 0);
    gw_lane_free(sides->lanes[1][0]);
    sides->lanes[1][0] = NULL;
    sides->lanes[0][2] = sides_connect(sides, &hello);
    sides_until(sides, sides->lanes[1][0]);
    sides_until(sides, sides->listener->ops->refused(sides->listener, &refusal) &&
                           refusal.error.code == GW_E_TIMEOUT);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(fds); i++)
        close(fds[i]);
    stop(sides);
}

/* Connects a lane of its own transport and gives it back when it has failed. */
static struct gw_lane *fails(struct sides *sides, const struct gw_transport_env *env,
                             const char *query, const char *peer, struct gw_transport **transportp)
{
    struct gw_lane_hello hello = sides_hello(sides, 1);
    struct gw_error error = {0};
    struct gw_lane *lane;
    char uri[100];

    snprintf(uri, sizeof uri, "tcp://127.0.0.1:%u?connect=2s%s",
             sides->listener->ops->port(sides->listener), query);
    assert_done(gw_transport_open(uri, env, transportp, &error), error);
    assert_done((*transportp)->ops->connect(*transportp, &hello, peer, &lane, &error), error);
    sides->lanes[0][3] = lane;
    sides_until(sides, lane_state(lane) == GW_LANE_FAILED);
    sides->lanes[0][3] = NULL;
    return lane;
}

static void certificates_are_demanded(void **state)
{
    struct gw_transport_env stranger = {.tls = foreign.ctx},
                            nobody = {.tls = SSL_CTX_new(TLS_method())};
    struct gw_transport *transport = NULL;
    struct sides *sides = start(&tls, 2);
    struct gw_error error = {0};
    struct gw_lane *lane;

    (void)state;
    lane = fails(sides, &stranger, "", "", &transport);
    assert_contains(lane->ops->error(lane)->msg, "certificate verify failed");
    assert_int_equal(lane->ops->error(lane)->code, GW_E_PERMISSION);
    gw_lane_free(lane);
    gw_transport_free(transport);
    assert_int_equal(next_refusal(sides).error.code, GW_E_PERMISSION);

    /* who trusts anybody, and shows nothing: the hello goes out, the server says no */
    SSL_CTX_set_verify(nobody.tls, SSL_VERIFY_NONE, NULL);
    assert_int_equal(gw_transport_open("tcp://127.0.0.1:1", &nobody, &transport, &error), -1);
    assert_contains(error.msg, "does not demand");
    SSL_CTX_set_verify(nobody.tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(nobody.tls),
                        sk_X509_OBJECT_num(X509_STORE_get0_objects(SSL_CTX_get_cert_store(n1.ctx)))
                            ? X509_OBJECT_get0_X509(sk_X509_OBJECT_value(
                                  X509_STORE_get0_objects(SSL_CTX_get_cert_store(n1.ctx)), 0))
                            : NULL);
    lane = fails(sides, &nobody, "", "", &transport);
    gw_lane_free(lane);
    gw_transport_free(transport);
    assert_contains(next_refusal(sides).error.msg, "peer did not return a certificate");
    SSL_CTX_free(nobody.tls);

    lane = fails(sides, &envs[0], "", "n3", &transport); /* it is n2 who answers */
    assert_contains(lane->ops->error(lane)->msg, "another node");
    gw_lane_free(lane);
    gw_transport_free(transport);
    assert_int_equal(next_refusal(sides).error.code, GW_E_PEER);

    lane = fails(sides, &envs[0], "&plain=yes", "", &transport);
    gw_lane_free(lane);
    gw_transport_free(transport);
    assert_int_equal(lane_state(sides->lanes[0][0]), GW_LANE_OPEN);
    stop(sides);

    assert_int_equal(gw_transport_open("tcp://127.0.0.1:1", &(struct gw_transport_env){0},
                                       &transport, &error),
                     -1);
    assert_int_equal(error.code, GW_E_PERMISSION);
}

/* --- tcp: the rest --------------------------------------------------------------------------- */

static void source_addresses(void **state)
{
    static const struct {
        const char *source;
        unsigned lane;
        const char *from;
    } rows[] = {
        {"127.0.0.2,127.0.0.3", 0, "127.0.0.2"},
        {"127.0.0.2,127.0.0.3", 1, "127.0.0.3"},
        {"127.0.0.2,127.0.0.3", 2, "127.0.0.2"},
    };
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    assert_int_equal(bind(server, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(server, 8), 0);
    getsockname(server, (struct sockaddr *)&at, &bytes);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        struct gw_lane_hello hello = {.lane = (uint16_t)rows[i].lane, .n_lanes = 4};
        struct gw_transport *transport;
        struct gw_error error = {0};
        struct gw_lane *lane;
        char uri[100], from[INET_ADDRSTRLEN];
        struct sockaddr_in peer;
        int fd;

        snprintf(uri, sizeof uri, "tcp://127.0.0.1:%u?plain=yes&lanes=4&source=%s",
                 ntohs(at.sin_port), rows[i].source);
        assert_done(gw_transport_open(uri, envs, &transport, &error), error);
        assert_int_equal(transport->n_lanes, 4);
        assert_done(transport->ops->connect(transport, &hello, "", &lane, &error), error);
        bytes = sizeof peer;
        fd = accept(server, (struct sockaddr *)&peer, &bytes);
        inet_ntop(AF_INET, &peer.sin_addr, from, sizeof from);
        assert_string_equal(from, rows[i].from);
        close(fd);
        gw_lane_free(lane);
        gw_transport_free(transport);
    }
    close(server);
}

/* Two listening addresses, one port; lanes take them in turn. */
static void destination_addresses(void **state)
{
    static const struct transport_case two = {"two addresses",
                                              "tcp://127.0.0.1,127.0.0.2:0?plain=yes",
                                              "tcp://127.0.0.1,127.0.0.2:%u?plain=yes",
                                              GW_LANE_PLAIN,
                                              0,
                                              TCP_BOUND};
    struct sides *sides = start(&two, 4);
    struct sockaddr_in to;
    socklen_t bytes;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct gw_want want;

        sides->lanes[0][i]->ops->want(sides->lanes[0][i], &want);
        bytes = sizeof to;
        assert_int_equal(getpeername(want.fd, (struct sockaddr *)&to, &bytes), 0);
        assert_int_equal(ntohl(to.sin_addr.s_addr), INADDR_LOOPBACK + i % 2);
    }
    stop(sides);
}

/* A peer that is killed: with TLS that is a failure, not an end. */
static void peer_is_killed(void **state)
{
    const struct transport_case *rules = *state;
    struct sides *sides = calloc(1, sizeof *sides);
    struct gw_lane_hello hello;
    struct box in;
    uint8_t byte;
    pid_t child;

    sides->envs[0] = envs[0];
    sides->envs[1] = envs[1];
    sides_open(sides, rules, 1);
    hello = sides_hello(sides, 0);
    child = fork();
    if (child == 0) {
        gw_listener_free(sides->listener);
        sides->listener = NULL;
        sides->lanes[0][0] = sides_connect(sides, &hello);
        box_send(sides, sides->lanes[0][0], &in, "x", 1);
        for (;;)
            sides_turn(sides, 1000);
    }
    sides_until(sides, sides->lanes[1][0]);
    box_receive(sides, sides->lanes[1][0], &in, &byte, 1, 0);
    sides_until(sides, in.n_done); /* so it has read our answer, and has nothing unread */
    box_receive(sides, sides->lanes[1][0], &in, &byte, 1, 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    sides_until(sides, in.n_done);
    if (sides->lanes[1][0]->ops->caps(sides->lanes[1][0]) & GW_LANE_TRUE_END)
        assert_int_equal(in.transfer.result, -ECONNRESET);
    else
        assert_int_equal(in.transfer.result, GW_TRANSFER_END);
    stop(sides);
}

static void kernels_figures(void **state)
{
    struct sides *sides = start(*state, 1);
    static uint8_t bytes[16 << 20];
    struct gw_lane_info info;
    struct box out, in;

    box_send(sides, sides->lanes[0][0], &out, bytes, sizeof bytes);
    sides->lanes[0][0]->ops->info(sides->lanes[0][0], &info);
    assert_true(info.queued_bytes > 0);
    assert_true(info.unacked_bytes > 0);
    assert_int_equal(info.sent_bytes + info.queued_bytes, sizeof bytes);
    box_receive(sides, sides->lanes[1][0], &in, bytes, sizeof bytes, 0);
    sides_until(sides, in.n_done);
    sides->lanes[0][0]->ops->info(sides->lanes[0][0], &info);
    assert_true(info.delivery_rate_bytes_s > 1000000);
    assert_true(info.rtt_ns > 0 && info.min_rtt_ns > 0 && info.min_rtt_ns <= info.rtt_ns * 10);
    assert_int_equal(info.queued_bytes, 0);
    stop(sides);
}

/* A stopped reader counts as dead after the time that the URI says: a fact of Linux. */
static void stopped_reader_is_dead_in_time(void **state)
{
    static const struct transport_case quick = {"timeout",
                                                "tcp://127.0.0.1:0?plain=yes",
                                                "tcp://127.0.0.1:%u?plain=yes&timeout=600ms",
                                                GW_LANE_PLAIN,
                                                0,
                                                TCP_BOUND};
    struct sides *sides = start(&quick, 1);
    static uint8_t bytes[16 << 20];
    struct box out;

    (void)state;
    box_send(sides, sides->lanes[0][0], &out, bytes, sizeof bytes);
    sides_until(sides, out.n_done);
    assert_int_equal(out.transfer.result, -ETIMEDOUT);
    stop(sides);
}

/* --- each side in threads of its own, as the carrier does it --------------------------------- */

enum { THREAD_BYTES = 32 << 20, CHUNK = 100000 };

static uint8_t pattern[256 + CHUNK];

struct reactor {
    struct gw_lane *lane;
    pthread_t thread;
    bool good;
};

/* Sends and receives THREAD_BYTES of a pattern, in an epoll loop. */
static void *react(void *arg)
{
    struct reactor *reactor = arg;
    struct gw_lane *lane = reactor->lane;
    uint8_t *got = malloc(CHUNK);
    struct iovec out_iov, in_iov = {got, CHUNK};
    struct gw_transfer out = {.iov = &out_iov, .n_iov = 1};
    struct gw_transfer in = {.iov = &in_iov, .n_iov = 1, .min_bytes = 1}, *done;
    size_t sent = 0, received = 0;
    struct epoll_event event = {0};
    int epoll = epoll_create1(0);
    struct gw_want want;
    bool ended = false;

    out_iov = (struct iovec){pattern, CHUNK};
    lane->ops->send(lane, &out);
    lane->ops->receive(lane, &in);
    lane->ops->want(lane, &want);
    epoll_ctl(epoll, EPOLL_CTL_ADD, want.fd, &event);
    reactor->good = true;
    while (reactor->good && !(ended && lane_state(lane) == GW_LANE_ENDED)) {
        while ((done = lane->ops->done(lane))) {
            if (done == &out && sent + out.n_bytes < THREAD_BYTES && out.result == 0) {
                sent += out.n_bytes;
                out_iov = (struct iovec){pattern + sent % 256,
                                         THREAD_BYTES - sent < CHUNK ? THREAD_BYTES - sent : CHUNK};
                lane->ops->send(lane, &out);
            } else if (done == &out) {
                reactor->good = out.result == 0;
                lane->ops->finish(lane);
            } else if (in.result == 0) {
                reactor->good = memcmp(got, pattern + received % 256, in.n_bytes) == 0;
                received += in.n_bytes;
                lane->ops->receive(lane, &in);
            } else {
                ended = in.result == GW_TRANSFER_END && received == THREAD_BYTES;
                reactor->good = ended;
            }
        }
        lane->ops->want(lane, &want);
        if (want.fd < 0)
            continue;
        event.events = (want.events & GW_IO_READ ? (unsigned)EPOLLIN : 0) |
                       (want.events & GW_IO_WRITE ? (unsigned)EPOLLOUT : 0);
        epoll_ctl(epoll, EPOLL_CTL_MOD, want.fd, &event);
        epoll_wait(epoll, &event, 1, want.at_ns == 0 ? 0 : want.at_ns == GW_NEVER ? 1000 : 1);
        lane->ops->notify(lane, GW_IO_READ | GW_IO_WRITE, gw_clock_ns());
    }
    close(epoll);
    free(got);
    return NULL;
}

static void lanes_in_threads(void **state)
{
    struct sides *sides = start(*state, 2);
    struct reactor reactors[4];

    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)i;
    for (unsigned i = 0; i < 4; i++) {
        reactors[i].lane = sides->lanes[i & 1][i >> 1];
        assert_int_equal(pthread_create(&reactors[i].thread, NULL, react, &reactors[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(reactors[i].thread, NULL);
        assert_true(reactors[i].good);
    }
    stop(sides);
}

/* --- wrappers, with a time of our own -------------------------------------------------------- */

static struct sides *start_fake(const char *listen_uri, const char *connect_uri, unsigned n_lanes)
{
    static struct transport_case rules;
    struct sides *sides = calloc(1, sizeof *sides);

    rules =
        (struct transport_case){connect_uri, listen_uri, connect_uri, GW_LANE_PLAIN, 0, 1 << 20};
    sides->envs[0] = envs[0];
    sides->envs[1] = envs[1];
    sides->fake_ns = GW_NS_PER_S;
    sides_up(sides, &rules, n_lanes);
    return sides;
}

/* Keeps all lanes of one side busy for so long, a millisecond a step: bytes handed over by each. */
static void run_busy(struct sides *sides, unsigned ms, uint64_t moved[SIDE_LANES])
{
    static struct box out[SIDE_LANES], in[SIDE_LANES];
    static uint8_t bytes[SIDE_LANES][5000];
    struct gw_lane_info info;

    for (unsigned step = 0; step < ms; step++) {
        sides->fake_ns += GW_NS_PER_MS;
        for (unsigned again = 0; again < 50; again++) {
            for (unsigned i = 0; i < sides->n_lanes; i++) {
                if (!out[i].transfer.iov || out[i].n_done)
                    box_send(sides, sides->lanes[0][i], &out[i], bytes[i], sizeof bytes[i]);
                if (!in[i].transfer.iov || in[i].n_done)
                    box_receive(sides, sides->lanes[1][i], &in[i], bytes[i], sizeof bytes[i], 1);
            }
            sides_turn(sides, 0);
        }
    }
    for (unsigned i = 0; i < sides->n_lanes; i++) {
        sides->lanes[0][i]->ops->info(sides->lanes[0][i], &info);
        moved[i] = info.sent_bytes;
    }
    if (ms == 0)
        memset(out, 0, sizeof out), memset(in, 0, sizeof in);
}

static void assert_between(uint64_t value, uint64_t least, uint64_t most)
{
    if (value < least || value > most)
        fail_msg("%llu is not from %llu to %llu", (unsigned long long)value,
                 (unsigned long long)least, (unsigned long long)most);
}

static void rate_is_exact_and_shared(void **state)
{
    enum { RATE = 2000000, SHARE = RATE / 500, SLACK = RATE / 250 + 4 * SHARE };
    struct sides *sides = start_fake("mem://x", "rate+mem://x?rate=2000000", 4);
    struct gw_transport *transport = sides->transports[0];
    uint64_t moved[4], before = 0, sum = 0;

    (void)state;
    run_busy(sides, 1000, moved);
    for (unsigned i = 0; i < 4; i++) {
        sum += moved[i];
        assert_between(moved[i], RATE / 4 - 2 * SHARE, RATE / 4 + 2 * SHARE);
    }
    assert_between(sum, RATE - SHARE, RATE + SLACK);

    assert_int_equal(transport->ops->set_rate(transport, RATE / 10), 0);
    before = sum;
    run_busy(sides, 1000, moved);
    sum = moved[0] + moved[1] + moved[2] + moved[3];
    assert_between(sum - before, RATE / 10 - 4 * 512, RATE / 10 + SLACK);

    assert_int_equal(transport->ops->set_rate(transport, 3 * RATE), 0);
    before = sum;
    run_busy(sides, 500, moved);
    sum = moved[0] + moved[1] + moved[2] + moved[3];
    assert_between(sum - before, 3 * RATE / 2 - 10 * 3 * RATE / 1000, 3 * RATE / 2 + 3 * SLACK);

    assert_int_equal(transport->ops->set_rate(transport, 0), 0);
    before = sum;
    run_busy(sides, 10, moved);
    assert_true(moved[0] + moved[1] + moved[2] + moved[3] - before > RATE / 10);
    assert_int_equal(sides->transports[1]->ops->set_rate(sides->transports[1], 1), -ENOTSUP);
    sides_down(sides);
    run_busy(&(struct sides){0}, 0, moved);
    free(sides);
}

static void faults_are_where_they_should(void **state)
{
    struct sides *sides = start_fake("fault+mem://x?corrupt=1000&seed=3&lane=1",
                                     "fault+mem://x?cut=5000&lane=0&way=send", 2);
    uint8_t bytes[6000] = {0}, got[6000];
    struct box out, in;
    unsigned n_wrong = 0;

    (void)state;
    box_receive(sides, sides->lanes[1][1], &in, got, sizeof got, 0);
    box_send(sides, sides->lanes[0][1], &out, bytes, sizeof bytes);
    sides_until(sides, in.n_done);
    for (unsigned i = 0; i < sizeof got; i++)
        n_wrong += got[i] != 0;
    assert_int_equal(n_wrong, 1);
    assert_int_equal(__builtin_popcount(got[999]), 1);

    box_receive(sides, sides->lanes[1][0], &in, got, sizeof got, 0);
    box_send(sides, sides->lanes[0][0], &out, bytes, sizeof bytes);
    sides_until(sides, in.n_done && out.n_done);
    assert_int_equal(out.transfer.result, -ECONNRESET);
    assert_int_equal(out.transfer.n_bytes, 5000);
    assert_int_equal(in.transfer.result, -ECONNRESET);
    assert_contains(sides->lanes[0][0]->ops->error(sides->lanes[0][0])->msg, "lane 0: cut");
    stop(sides);
}

static void a_stall_ends(void **state)
{
    struct sides *sides = start_fake("mem://x", "fault+mem://x?stall=100&stall_for=70ms", 1);
    uint8_t bytes[200] = {0}, got[200];
    struct gw_want want;
    struct box out, in;

    (void)state;
    box_receive(sides, sides->lanes[1][0], &in, got, sizeof got, 0);
    box_send(sides, sides->lanes[0][0], &out, bytes, sizeof bytes);
    for (int i = 0; i < 69; i++) {
        sides->fake_ns += GW_NS_PER_MS;
        sides_turn(sides, 0);
    }
    assert_int_equal(in.transfer.n_bytes, 100);
    sides->lanes[0][0]->ops->want(sides->lanes[0][0], &want);
    assert_int_equal(want.at_ns, sides->fake_ns + GW_NS_PER_MS);
    sides->fake_ns += GW_NS_PER_MS;
    sides_until(sides, in.n_done && out.n_done);
    stop(sides);
}

static int traced(const char *uri, struct gw_trace_event *events, unsigned max, uint64_t *lostp)
{
    struct sides *sides = start_fake("mem://x", uri, 1);
    struct gw_transport *transport = sides->transports[0];
    uint8_t bytes[3000] = {0}, got[3000];
    struct box out, in;
    int n;

    box_receive(sides, sides->lanes[1][0], &in, got, sizeof got, 0);
    box_send(sides, sides->lanes[0][0], &out, bytes, sizeof bytes);
    sides_until(sides, out.n_done);
    n = transport->ops->read_trace(transport, events, max, lostp);
    assert_int_equal(sides->transports[1]->ops->read_trace(sides->transports[1], events, 1, lostp),
                     -ENOTSUP);
    stop(sides);
    return n;
}

static void traces(void **state)
{
    static struct gw_trace_event events[100], again[100];
    uint64_t n_lost;
    int n = traced("trace+mem://x", events, 100, &n_lost);

    (void)state;
    assert_int_equal(n, 4);
    assert_int_equal(n_lost, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(events[i].kind, i); /* open, submit, moved, done */
    assert_int_equal(events[3].n_bytes, 3000);
    assert_int_equal(events[3].at_ns, GW_NS_PER_S);

    /* the same seed does the same, another does not */
    n = traced("fault+trace+mem://x?short=400&seed=8", events, 100, &n_lost);
    assert_true(n > 4 + 5);
    assert_int_equal(traced("fault+trace+mem://x?short=400&seed=8", again, 100, &n_lost), n);
    assert_memory_equal(events, again, (size_t)n * sizeof events[0]);
    assert_true(traced("fault+trace+mem://x?short=400&seed=9", again, 100, &n_lost) != n ||
                memcmp(events, again, (size_t)n * sizeof events[0]) != 0);

    assert_int_equal(traced("trace+mem://x?events=3", events, 100, &n_lost), 3);
    assert_int_equal(events[0].kind, GW_TRACE_SUBMIT);
}

/* --- URIs ------------------------------------------------------------------------------------ */

static void uris(void **state)
{
    static const struct {
        const char *uri, *complaint; /* NULL: it is good */
    } rows[] = {
        {"mem://x", NULL},
        {"tcp://10.0.0.2:7500?plain=yes&lanes=16", NULL},
        {"fault+rate+tcp://[fd00::2]:7500?seed=7&rate=1gbit&plain=yes", NULL},
        {"tcp://10.0.0.2,10.1.0.2:7500?source=10.0.0.1,[fd00::1]&plain=yes&timeout=3s", NULL},
        {"", "no ://"},
        {"tcp", "no ://"},
        {"://x", "no name of a transport"},
        {"+tcp://x", "no name of a transport"},
        {"tcp+://x", "no name of a transport"},
        {"quic://10.0.0.2:1", "no transport \"quic\""},
        {"tcp+tcp://10.0.0.2:1?plain=yes", "no wrapper \"tcp\""},
        {"a+b+c+d+e+f+g+h+mem://x", "too many wrappers"},
        {"mem://", "no address"},
        {"tcp://[fd00::2:1", "no address"},
        {"tcp://10.0.0.2:", "no port"},
        {"tcp://10.0.0.2:65536", "no port"},
        {"tcp://10.0.0.2?plain=yes", "needs a port"},
        {"tcp://name:1?plain=yes", "no numeric address"},
        {"mem://x:5", "no port"},
        {"mem://x/y", "does not belong"},
        {"mem://x?", "no KEY=VALUE"},
        {"mem://x?buffer", "no KEY=VALUE"},
        {"mem://x?buffer=", "no value"},
        {"mem://x?buffer=1&buffer=1", "second time"},
        {"mem://x?bufer=1", "does not know the key \"bufer\""},
        {"mem://x?seed=1", "does not know the key \"seed\""},
        {"mem://x?buffer=0", "no number from 1"},
        {"mem://x?buffer=-1", "no number"},
        {"mem://x?buffer=1kib", "no number"},
        {"mem://x?buffer=18446744073709551616", "no number"},
        {"mem://x?buffer=18014398509481985KiB", "no number"},
        {"mem://x?lanes=65", "no number from 1 to 64"},
        {"fault+mem://x?way=up", "neither send nor receive"},
        {"tcp://10.0.0.2:1?plain=maybe", "neither yes nor no"},
        {"tcp://10.0.0.2:1?plain=yes&source=1.2.3.4.5", "no numeric address"},
        {"tcp://10.0.0.2:1?plain=yes&source=1.2.3.4:5", "no list of addresses"},
    };
    char longest[2000] = "mem://x?buffer=";

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        struct gw_transport *transport = NULL;
        struct gw_error error = {0};
        int r = gw_transport_open(rows[i].uri, envs, &transport, &error);

        if ((r == 0) != !rows[i].complaint)
            fail_msg("%s: %s", rows[i].uri, r == 0 ? "accepted" : error.msg);
        if (rows[i].complaint)
            assert_contains(error.msg, rows[i].complaint);
        gw_transport_free(transport);
    }
    memset(longest + 15, '1', sizeof longest - 16);
    assert_int_equal(gw_transport_open(longest, envs, NULL, &(struct gw_error){0}), -1);
}

static void units(void **state)
{
    static const struct {
        const char *text;
        enum gw_uri_unit unit;
        uint64_t value;
    } rows[] = {
        {"7", GW_URI_COUNT, 7},          {"3KiB", GW_URI_BYTES, 3072},
        {"2MiB", GW_URI_BYTES, 2 << 20}, {"1gbit", GW_URI_RATE, 125000000},
        {"8kbit", GW_URI_RATE, 1000},    {"100mbit", GW_URI_RATE, 12500000},
        {"3s", GW_URI_MS, 3000},         {"5ms", GW_URI_MS, 5},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        uint64_t value = 0;
        struct gw_uri_number number = {"k", rows[i].unit, 0, UINT64_MAX, &value};
        struct gw_error error = {0};
        static struct gw_uri uri;
        char text[64];

        snprintf(text, sizeof text, "mem://x?k=%s", rows[i].text);
        assert_done(gw_uri_parse(text, &uri, &error), error);
        assert_done(gw_uri_numbers(&uri, &number, 1, &error), error);
        assert_int_equal(value, rows[i].value);
    }
}

/* --- memory runs out (linked with --wrap) ---------------------------------------------------- */

static __thread long allocations_left = -1; /* -1: never fail */

static bool allocation_fails(void)
{
    if (allocations_left < 0)
        return false;
    if (allocations_left == 0)
        return true;
    allocations_left--;
    return false;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(n, size);
}

/* One small migration in which every allocation after the n-th fails: whether it went through. */
static bool life_with(long n, const struct transport_case *rules)
{
    struct sides sides = {.envs = {envs[0], envs[1]}, .rules = rules, .n_lanes = 1};
    struct gw_lane_hello hello = {.n_lanes = 1};
    struct gw_error error = {0};
    struct box out = {0}, in = {0};
    uint8_t got[50];
    char uri[100];
    bool good;

    allocations_left = n;
    sides.expected.n_lanes = 1;
    good = gw_transport_open(rules->listen_uri, &envs[1], &sides.transports[1], &error) == 0 &&
           sides.transports[1]->ops->listen(sides.transports[1], &sides.listener, &error) == 0;
    if (good) {
        sides.listener->ops->expect(sides.listener, &sides.expected);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(uri, sizeof uri, rules->connect_uri, sides.listener->ops->port(sides.listener));
#pragma GCC diagnostic pop
        good = gw_transport_open(uri, &envs[0], &sides.transports[0], &error) == 0 &&
               sides.transports[0]->ops->connect(sides.transports[0], &hello, "",
                                                 &sides.lanes[0][0], &error) == 0;
    }
    if (good) {
        box_send(&sides, sides.lanes[0][0], &out, "1234567890", 5);
        sides.lanes[0][0]->ops->finish(sides.lanes[0][0]);
        sides_until(&sides, sides.lanes[1][0] || lane_state(sides.lanes[0][0]) == GW_LANE_FAILED);
        if (sides.lanes[1][0])
            box_receive(&sides, sides.lanes[1][0], &in, got, 5, 0);
        sides_until(&sides, (!sides.lanes[1][0] || in.n_done) && (out.n_done));
        good = in.n_done && in.transfer.result == 0;
    } else {
        assert_true(error.code != GW_OK && error.msg[0]);
    }
    allocations_left = -1;
    sides_down(&sides);
    return good;
}

static void out_of_memory(void **state)
{
    static const char *const names[] = {"mem", "tcp plain", "tcp tls", "trace+fault+rate+tcp tls"};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        for (unsigned k = 0; k < GW_ARRAY_SIZE(names); k++) {
            long n = 0;

            if (strcmp(names[k], cases[i].name) != 0)
                continue;
            while (!life_with(n, &cases[i]))
                assert_true(++n < 200);
            assert_true(n >= 6);
        }
    }
}

/* --- set-up ---------------------------------------------------------------------------------- */

static char *dirs[3];

static int setup(void **state)
{
    gw_autofree char *csr = NULL, *cert = NULL, *ca = NULL;
    struct gw_error e = {0};

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < 3; i++)
        dirs[i] = temp_dir();
    assert_done(gw_pki_init_ca(dirs[0], "n1", &e), e);
    assert_done(gw_pki_make_key_and_csr(dirs[1], "n2", &csr, &e), e);
    assert_done(gw_pki_sign_csr(dirs[0], csr, "n2", &cert, &ca, &e), e);
    assert_done(gw_pki_install(dirs[1], "n2", cert, ca, &e), e);
    assert_done(gw_pki_init_ca(dirs[2], "n1", &e), e);
    assert_done(gw_pki_load(dirs[0], &n1, &e), e);
    assert_done(gw_pki_load(dirs[1], &n2, &e), e);
    assert_done(gw_pki_load(dirs[2], &foreign, &e), e);
    hub = gw_mem_hub_new();
    envs[0] = (struct gw_transport_env){n1.ctx, hub};
    envs[1] = (struct gw_transport_env){n2.ctx, hub};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gw_pki_fini(&n1);
    gw_pki_fini(&n2);
    gw_pki_fini(&foreign);
    gw_mem_hub_free(hub);
    for (unsigned i = 0; i < 3; i++)
        remove_dir(dirs[i]);
    return 0;
}

/* A test with an argument. */
#define with(f, argument)                                \
    {                                                    \
#f, f, NULL, NULL, (void *)(uintptr_t)(argument) \
    }

int main(void)
{
    static struct CMUnitTest conformance[GW_ARRAY_SIZE(cases)];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uris),
        cmocka_unit_test(units),
        cmocka_unit_test(hostile_hellos),
        cmocka_unit_test(hello_in_pieces),
        cmocka_unit_test(silent_strangers),
        cmocka_unit_test(certificates_are_demanded),
        cmocka_unit_test(source_addresses),
        cmocka_unit_test(destination_addresses),
        with(peer_is_killed, &plain),
        with(peer_is_killed, &tls),
        with(kernels_figures, &plain),
        with(kernels_figures, &tls),
        cmocka_unit_test(stopped_reader_is_dead_in_time),
        with(lanes_in_threads, &cases[0]),
        with(lanes_in_threads, &plain),
        with(lanes_in_threads, &tls),
        cmocka_unit_test(rate_is_exact_and_shared),
        cmocka_unit_test(faults_are_where_they_should),
        cmocka_unit_test(a_stall_ends),
        cmocka_unit_test(traces),
        cmocka_unit_test(out_of_memory),
    };
    int failed;

    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++)
        conformance[i] =
            (struct CMUnitTest){cases[i].name, conforms, NULL, NULL, (void *)(uintptr_t)&cases[i]};
    failed = cmocka_run_group_tests(conformance, setup, teardown);
    return failed + cmocka_run_group_tests(tests, setup, teardown);
}
