/* SPDX-License-Identifier: Apache-2.0 */
/* Connections over the loopback, as the kernel sees them. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "host/conns.h"

struct pair {
    int here, there;
};

static int listening(uint16_t *portp)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &length), 0);
    *portp = ntohs(at.sin_port);
    return fd;
}

static struct pair connected(int listener, uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct pair pair = {.here = socket(AF_INET, SOCK_STREAM, 0)};

    assert_int_equal(connect(pair.here, (struct sockaddr *)&at, sizeof at), 0);
    pair.there = accept(listener, NULL, NULL);
    assert_true(pair.there >= 0);
    return pair;
}

static void those_that_end_are_seen(void **state)
{
    struct linger reset = {.l_onoff = 1};
    struct gw_conns conns;
    struct pair pairs[3];
    uint16_t port;
    int listener = listening(&port);

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        pairs[i] = connected(listener, port);
    assert_int_equal(gw_conns_find(&conns, "127.0.0.1", port), 0);
    assert_int_equal(conns.n, 3);
    assert_int_equal(gw_conns_n_ended(&conns), 0);

    close(pairs[1].there); /* a FIN */
    assert_int_equal(gw_conns_n_ended(&conns), 1);
    setsockopt(pairs[2].there, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(pairs[2].there); /* a RST */
    assert_int_equal(gw_conns_n_ended(&conns), 2);

    assert_int_equal(gw_conns_find(&conns, "127.0.0.1", port), 0);
    assert_int_equal(conns.n, 1);
    close(pairs[0].there);
    for (unsigned i = 0; i < 3; i++)
        close(pairs[i].here);
    assert_int_equal(gw_conns_n_ended(&conns), 1);
    close(listener);
}

static void others_are_not_found(void **state)
{
    struct gw_conns conns;
    uint16_t port;
    int listener = listening(&port);
    struct pair pair = connected(listener, port);

    (void)state;
    assert_int_equal(gw_conns_find(&conns, "127.0.0.2", port), 0);
    assert_int_equal(conns.n, 0);
    assert_int_equal(gw_conns_find(&conns, "::1", port), 0);
    assert_int_equal(conns.n, 0);
    assert_int_equal(gw_conns_n_ended(&conns), 0);
    assert_int_equal(gw_conns_find(&conns, "a.name", port), -EINVAL);
    close(pair.here);
    close(pair.there);
    close(listener);
}

static void what_nobody_has_read_is_counted(void **state)
{
    uint64_t n_unread = 1;
    char bytes[3000] = {0};
    uint16_t port;
    int listener = listening(&port);
    struct pair one = connected(listener, port), two = connected(listener, port);

    (void)state;
    assert_int_equal(gw_conns_unread("127.0.0.1", port, &n_unread), 0);
    assert_int_equal(n_unread, 0);
    assert_int_equal(write(one.here, bytes, 1000), 1000);
    assert_int_equal(write(two.here, bytes, 2000), 2000);
    assert_int_equal(write(one.there, bytes, 500), 500); /* the other way */
    assert_int_equal(gw_conns_unread("127.0.0.1", port, &n_unread), 0);
    assert_int_equal(n_unread, 3000);
    assert_int_equal(read(two.there, bytes, 1500), 1500);
    assert_int_equal(gw_conns_unread("127.0.0.1", port, &n_unread), 0);
    assert_int_equal(n_unread, 1500);
    assert_int_equal(gw_conns_unread("127.0.0.2", port, &n_unread), 0);
    assert_int_equal(n_unread, 0);
    assert_int_equal(gw_conns_unread("a.name", port, &n_unread), -EINVAL);
    close(one.here);
    close(one.there);
    close(two.here);
    close(two.there);
    close(listener);
}

static void what_does_not_fit_is_unacknowledged(void **state)
{
    uint64_t n_unread = 0, n_unacked = 1, n_written = 0;
    static const char bytes[65536];
    uint16_t port;
    int listener = listening(&port);
    struct pair pair = connected(listener, port);
    ssize_t n;

    (void)state;
    assert_int_equal(gw_conns_unacked("127.0.0.1", port, &n_unacked), 0);
    assert_int_equal(n_unacked, 0);
    while ((n = send(pair.here, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        n_written += (uint64_t)n;
    assert_int_equal(gw_conns_unread("127.0.0.1", port, &n_unread), 0);
    assert_int_equal(gw_conns_unacked("127.0.0.1", port, &n_unacked), 0);
    assert_true(n_unacked > 0);
    assert_true(n_unacked + n_unread >= n_written);
    assert_true(n_unacked <= n_written);
    assert_int_equal(gw_conns_unacked("127.0.0.2", port, &n_unacked), 0);
    assert_int_equal(n_unacked, 0);
    close(pair.here);
    close(pair.there);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_that_end_are_seen),
        cmocka_unit_test(others_are_not_found),
        cmocka_unit_test(what_nobody_has_read_is_counted),
        cmocka_unit_test(what_does_not_fit_is_unacknowledged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
