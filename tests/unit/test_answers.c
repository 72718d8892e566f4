/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "host/answers.h"
#include "util/cleanup.h"

/* Every frame as a string, between a guest with .2 and somebody with .1. */
#define GUEST_MAC "\x52\x54\x00\x77\x00\x02"
#define THEIR_MAC "\x52\x54\x00\x77\x00\x01"
#define GUEST     "\x0a\0\0\x02"
#define THEM      "\x0a\0\0\x01"
#define GUEST6    "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x02"
#define THEM6     "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"
#define TO_GUEST  GUEST_MAC THEIR_MAC
#define FROM_IT   THEIR_MAC GUEST_MAC
#define ARP(operation, from, to) \
    "\x08\x06\0\x01\x08\0\x06\x04\0" operation "\0\0\0\0\0\0" from "\0\0\0\0\0\0" to
#define IP(length, fragment, protocol, from, to) \
    "\x08\0\x45\0\0" length "\0\0" fragment "\x40" protocol "\0\0" from to
#define IP6(length, next, from, to) "\x86\xdd\x60\0\0\0\0" length next "\x40" from to
#define ECHO(type, sequence)        type "\0\0\0\x77\x01\0" sequence
/* 20 bytes and perhaps data; ports 80 and 99 */
#define TCP(from, to, sequence, acknowledges, flags) \
    "\0" from "\0" to sequence acknowledges "\x50" flags "\xff\xff\0\0\0\0"
#define TO_TCP(sequence, flags) TCP("\x63", "\x50", sequence, "\0\0\0\x07", flags)
#define FROM_TCP(acknowledges)  TCP("\x50", "\x63", "\0\0\0\x07", acknowledges, "\x10")
#define UDP(from, to)           "\0" from "\0" to "\0\x08\0\0"
#define PING                    TO_GUEST IP("\x1c", "\0\0", "\x01", THEM, GUEST) ECHO("\x08", "\x05")
#define DATA(sequence) \
    TO_GUEST IP("\x2c", "\0\0", "\x06", THEM, GUEST) TO_TCP(sequence, "\x10") "abcd"
#define ACK(acknowledges) FROM_IT IP("\x28", "\0\0", "\x06", GUEST, THEM) FROM_TCP(acknowledges)

struct row {
    const char *name;
    bool answers;
    const char *frame, *asked;
    size_t n_frame, n_asked;
};
#define ROW(name, answers, frame, asked)                                  \
    {                                                                     \
        name, answers, frame, asked, sizeof(frame) - 1, sizeof(asked) - 1 \
    }

static const struct row rows[] = {
    ROW("a pong", true, FROM_IT IP("\x1c", "\0\0", "\x01", GUEST, THEM) ECHO("\0", "\x05"), PING),
    ROW("the pong of another ping", false,
        FROM_IT IP("\x1c", "\0\0", "\x01", GUEST, THEM) ECHO("\0", "\x04"), PING),
    ROW("a pong to somebody else", false,
        FROM_IT IP("\x1c", "\0\0", "\x01", GUEST, "\x0a\0\0\x03") ECHO("\0", "\x05"), PING),
    ROW("the guest's own ping", false,
        FROM_IT IP("\x1c", "\0\0", "\x01", GUEST, THEM) ECHO("\x08", "\x05"), PING),
    ROW("a pong, fragmented", false,
        FROM_IT IP("\x1c", "\x20\0", "\x01", GUEST, THEM) ECHO("\0", "\x05"), PING),
    ROW("a pong, longer than its frame", false,
        FROM_IT IP("\x1d", "\0\0", "\x01", GUEST, THEM) ECHO("\0", "\x05"), PING),
    ROW("a pong, IPv6", true, FROM_IT IP6("\x08", "\x3a", GUEST6, THEM6) ECHO("\x81", "\x05"),
        TO_GUEST IP6("\x08", "\x3a", THEM6, GUEST6) ECHO("\x80", "\x05")),
    ROW("a neighbour's advertisement", false,
        FROM_IT IP6("\x08", "\x3a", GUEST6, THEM6) ECHO("\x88", "\x05"),
        TO_GUEST IP6("\x08", "\x3a", THEM6, GUEST6) ECHO("\x87", "\x05")),
    ROW("all is acknowledged", true, ACK("\0\0\x01\x04"), DATA("\0\0\x01\0")),
    ROW("all but one byte", false, ACK("\0\0\x01\x03"), DATA("\0\0\x01\0")),
    ROW("more, past the end of the numbers", true, ACK("\0\0\0\x09"), DATA("\xff\xff\xff\xf0")),
    ROW("an older acknowledgement", false, ACK("\xff\xff\xff\xf0"), DATA("\0\0\0\x09")),
    ROW("a SYN", true, ACK("\0\0\x01\x01"),
        TO_GUEST IP("\x28", "\0\0", "\x06", THEM, GUEST) TO_TCP("\0\0\x01\0", "\x02")),
    ROW("nothing that could be acknowledged", false, ACK("\0\0\x01\0"),
        TO_GUEST IP("\x28", "\0\0", "\x06", THEM, GUEST) TO_TCP("\0\0\x01\0", "\x10")),
    ROW("another connection", false,
        FROM_IT IP("\x28", "\0\0", "\x06", GUEST, THEM)
            TCP("\x51", "\x63", "\0\0\0\x07", "\0\0\x01\x04", "\x10"),
        DATA("\0\0\x01\0")),
    ROW("UDP with the same ports", false,
        FROM_IT IP("\x1c", "\0\0", "\x11", GUEST, THEM) UDP("\x50", "\x63"),
        TO_GUEST IP("\x1c", "\0\0", "\x11", THEM, GUEST) UDP("\x63", "\x50")),
    ROW("who has it: I", true, FROM_IT ARP("\x02", GUEST, THEM), TO_GUEST ARP("\x01", THEM, GUEST)),
    ROW("who has another: I have this", false, FROM_IT ARP("\x02", GUEST, THEM),
        TO_GUEST ARP("\x01", THEM, "\x0a\0\0\x09")),
    ROW("a request crosses a request", false, FROM_IT ARP("\x01", GUEST, THEM),
        TO_GUEST ARP("\x01", THEM, GUEST)),
    ROW("to another MAC", false,
        GUEST_MAC GUEST_MAC IP("\x1c", "\0\0", "\x01", GUEST, THEM) ECHO("\0", "\x05"), PING),
    ROW("nothing", false, "", ""),
};

static void test_row(void **state)
{
    const struct row *row = *state;
    /* Of their exact sizes, so that a sanitizer sees a byte too far. */
    gw_autofree uint8_t *frame = malloc(row->n_frame + 1), *asked = malloc(row->n_asked + 1);
    const struct gw_ether_frame f = {frame + 1, row->n_frame}, a = {asked + 1, row->n_asked};

    assert_true(frame && asked);
    memcpy(frame + 1, row->frame, row->n_frame);
    memcpy(asked + 1, row->asked, row->n_asked);
    assert_int_equal(gw_frame_answers(&f, &a), row->answers);
    for (size_t n = 0; n < row->n_frame; n++)
        assert_false(gw_frame_answers(&(struct gw_ether_frame){frame + 1, n}, &a));
    for (size_t n = 0; n < row->n_asked; n++)
        assert_false(gw_frame_answers(&f, &(struct gw_ether_frame){asked + 1, n}));
}

int main(void)
{
    struct CMUnitTest tests[GW_ARRAY_SIZE(rows)];

    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++)
        tests[i] = (struct CMUnitTest){rows[i].name, test_row, NULL, NULL, (void *)&rows[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
