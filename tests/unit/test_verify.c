/* SPDX-License-Identifier: Apache-2.0 */
/* Both halves of verifying memory in one process, which is both QEMUs, too: each has its own
 * blocks, shared and private, and what one sends the other takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shell/verify.h"
#include "util/cleanup.h"

#define PAGE  4096
#define BLOCK (3 * 1024 * 1024 + 5 * PAGE) /* the last region is short */
#define SMALL (2 * PAGE)

struct half {
    struct gw_verify_handler handler;
    struct gw_verify *verify;
    struct half *other;
    uint8_t *shared, *private, *small;
    int fd;
    char info[1024];
    unsigned n_sent, n_done;
    struct gw_error error; /* of done */
    json_t *instead;       /* is sent once instead of what it would say */
};

static struct event_base *base;
static struct half source, destination;

static void to_source(struct gw_verify_handler *handler, json_t *body)
{
    struct half *half = gw_container_of(handler, struct half, handler);
    json_t *instead = half->instead;

    half->n_sent++;
    half->instead = NULL;
    gw_verify_take_hashes(half->other->verify, instead ?: body);
    json_decref(instead);
}

static void to_destination(struct gw_verify_handler *handler, json_t *body)
{
    struct half *half = gw_container_of(handler, struct half, handler);

    half->n_sent++;
    gw_verify_take_request(half->other->verify, body);
}

static void done(struct gw_verify_handler *handler, const struct gw_error *error)
{
    struct half *half = gw_container_of(handler, struct half, handler);

    half->n_done++;
    half->error = error ? *error : (struct gw_error){.code = GW_OK};
    event_base_loopbreak(base);
}

static void fill(uint8_t *at, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++)
        at[i] = (uint8_t)(i * 31 + i / PAGE);
}

static void make(struct half *half)
{
    static const char line[] = "%24s    4 KiB  0x0000000000000000 0x%016x 0x%016x 0x%016lx  rw\r\n";
    int n = 0;

    half->fd = memfd_create("memory-backend-memfd", MFD_CLOEXEC);
    assert_int_equal(ftruncate(half->fd, BLOCK), 0);
    half->shared = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, half->fd, 0);
    half->private = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    half->small = mmap(NULL, SMALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fill(half->shared + 1024 * 1024, PAGE * 100); /* the rest is a hole */
    fill(half->private, BLOCK);
    fill(half->small, SMALL);
    n += snprintf(half->info + n, sizeof half->info - (size_t)n, line, "ram0", BLOCK, BLOCK,
                  (unsigned long)half->shared);
    n += snprintf(half->info + n, sizeof half->info - (size_t)n, line, "ram1", BLOCK, BLOCK,
                  (unsigned long)half->private);
    snprintf(half->info + n, sizeof half->info - (size_t)n, line, "/rom@etc/acpi/tables", SMALL,
             SMALL, (unsigned long)half->small);
}

static void open_half(struct half *half, struct half *other)
{
    struct gw_error error;

    half->other = other;
    half->handler.done = done;
    half->handler.send = half == &source ? to_destination : to_source;
    if (gw_verify_open(base, &half->handler, getpid(), half->info, &half->verify, &error) < 0)
        fail_msg("%s", error.msg);
}

static int set_up(void **state)
{
    (void)state;
    base = event_base_new();
    memset(&source, 0, sizeof source);
    memset(&destination, 0, sizeof destination);
    make(&source);
    make(&destination);
    open_half(&source, &destination);
    open_half(&destination, &source);
    return 0;
}

static void drop(struct half *half)
{
    gw_verify_free(half->verify);
    munmap(half->shared, BLOCK);
    munmap(half->private, BLOCK);
    munmap(half->small, SMALL);
    close(half->fd);
    json_decref(half->instead);
}

static int tear_down(void **state)
{
    (void)state;
    drop(&source);
    drop(&destination);
    event_base_free(base);
    return 0;
}

static void run(void)
{
    struct timeval limit = {.tv_sec = 20};

    gw_verify_begin(source.verify);
    event_base_loopexit(base, &limit);
    if (!source.n_done)
        event_base_dispatch(base);
    assert_int_equal(source.n_done, 1);
}

static json_t *figures(void)
{
    return gw_verify_to_json(source.verify);
}

static void the_same(void **state)
{
    long long resident;
    json_t *json;

    (void)state;
    run();
    assert_int_equal(source.error.code, GW_OK);
    json = figures();
    assert_true(json_is_true(json_object_get(json, "equal")));
    assert_int_equal(json_integer_value(json_object_get(json, "bytes")), 2 * BLOCK + SMALL);
    assert_int_equal(json_integer_value(json_object_get(json, "regions")), 13 + 13 + 1);
    json_decref(json);
    assert_int_equal(source.n_sent, 1);
    assert_int_equal(destination.n_sent, 1);
    /* holes were left alone: only what fill() has written is there */
    resident = 0;
    for (off_t at = 0; (at = lseek(source.fd, at, SEEK_DATA)) >= 0 && at < BLOCK; at += PAGE)
        resident++;
    assert_int_equal(resident, 100);
}

static void assert_page(size_t i, const char *block, unsigned page)
{
    json_t *json = figures(), *entry = json_array_get(json_object_get(json, "different_pages"), i);

    assert_string_equal(json_string_value(json_object_get(entry, "block")), block);
    assert_int_equal(json_integer_value(json_object_get(entry, "page")), page);
    json_decref(json);
}

static void differences_are_named(void **state)
{
    static const struct {
        size_t offset;
        bool private;
        unsigned page;
    } cases[] = {{0, false, 0},
                 {0, true, 0},
                 {BLOCK - 1, true, BLOCK / PAGE - 1},
                 {300 * PAGE + 77, false, 300},
                 {700 * PAGE, false, 700}};

    for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        char text[40];

        if (i) {
            tear_down(state);
            set_up(state);
        }
        (cases[i].private ? destination.private : destination.shared)[cases[i].offset] ^= 4;
        run();
        assert_int_equal(source.error.code, GW_E_MEMORY);
        assert_page(0, cases[i].private ? "ram1" : "ram0", cases[i].page);
        snprintf(text, sizeof text, "%s %u", cases[i].private ? "ram1" : "ram0", cases[i].page);
        assert_non_null(strstr(source.error.msg, text));
        assert_int_equal(source.n_sent, 2);
    }
}

static void many_differences(void **state)
{
    json_t *json;

    (void)state;
    for (size_t page = 0; page < BLOCK / PAGE; page++)
        destination.private[page * PAGE + 5] ^= 1;
    run();
    assert_int_equal(source.error.code, GW_E_MEMORY);
    json = figures();
    assert_int_equal(json_integer_value(json_object_get(json, "different_regions")), 13);
    assert_int_equal(json_array_size(json_object_get(json, "different_pages")), 64);
    json_decref(json);
    assert_page(0, "ram1", 0);
    assert_page(63, "ram1", 63);
}

static void hostile_hashes(void **state)
{
    static const char *const bodies[] = {
        "{}",
        "{\"blocks\": 5}",
        "{\"blocks\": []}",
        "{\"blocks\": [1, 2, 3]}",
        "{\"blocks\": [{\"name\": \"ram0\", \"bytes\": 3166208}, {}, {}]}",
        "{\"blocks\": [{\"name\": \"ram0\", \"bytes\": 3166208, \"hashes\": \"00\"}, {}, {}]}",
        "{\"blocks\": [{\"name\": \"ram0\", \"bytes\": -1, \"hashes\": \"\"}, {}, {}]}",
        "{\"pages\": \"\"}",
        "{\"error\": 5}",
        "{\"error\": {\"code\": \"system\", \"message\": \"no\"}}",
    };

    assert_int_equal(BLOCK, 3166208);
    for (size_t i = 0; i < GW_ARRAY_SIZE(bodies); i++) {
        if (i) {
            tear_down(state);
            set_up(state);
        }
        destination.instead = json_loads(bodies[i], 0, NULL);
        assert_non_null(destination.instead);
        run();
        assert_int_not_equal(source.error.code, GW_OK);
        assert_int_not_equal(source.error.code, GW_E_MEMORY);
    }
}

/* What a hostile source may ask is answered with an error, and not with memory of others. */
static void hostile_requests(void **state)
{
    static const char *const bodies[] = {
        "{}",
        "{\"region_bytes\": 0}",
        "{\"region_bytes\": -262144}",
        "{\"region_bytes\": 262145}",
        "{\"region_bytes\": 1}",
        "{\"region_bytes\": 9223372036854775807}",
        "{\"regions\": []}",
        "{\"regions\": {}}",
        "{\"regions\": [1]}",
        "{\"regions\": [{\"block\": \"none\", \"offset\": 0, \"bytes\": 4096}]}",
        "{\"regions\": [{\"block\": \"ram0\", \"offset\": 3166208, \"bytes\": 1}]}",
        "{\"regions\": [{\"block\": \"ram0\", \"offset\": -4096, \"bytes\": 4096}]}",
        "{\"regions\": [{\"block\": \"ram0\", \"offset\": 0, \"bytes\": 3166209}]}",
        "{\"regions\": [{\"block\": \"ram0\", \"offset\": 9223372036854775807, \"bytes\": 4096}]}",
    };

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(bodies); i++) {
        json_t *body = json_loads(bodies[i], 0, NULL);
        unsigned n_sent = destination.n_sent;

        assert_non_null(body);
        gw_verify_take_request(destination.verify, body);
        json_decref(body);
        while (destination.n_sent == n_sent)
            event_base_loop(base, EVLOOP_ONCE);
    }
    run(); /* it still answers those that make sense */
    assert_int_equal(source.error.code, GW_OK);
}

static void freed_while_it_hashes(void **state)
{
    (void)state;
    gw_verify_begin(source.verify);
    gw_verify_free(gw_steal_ptr(&source.verify));
    gw_verify_free(gw_steal_ptr(&destination.verify));
    event_base_loop(base, EVLOOP_NONBLOCK);
    assert_int_equal(source.n_done, 0);
}

static void what_cannot_be_read(void **state)
{
    struct gw_verify *verify = NULL;
    struct gw_error error;
    char info[200];

    (void)state;
    assert_int_equal(gw_verify_open(base, &source.handler, getpid(), "", &verify, &error), -1);
    assert_int_equal(error.code, GW_E_UNSUPPORTED);
    snprintf(info, sizeof info,
             "%24s    4 KiB  0x0000000000000000 0x%016x 0x%016x 0x%016lx  rw\r\n", "ram0", PAGE,
             PAGE, 4096ul);
    assert_int_equal(gw_verify_open(base, &source.handler, getpid(), info, &verify, &error), -1);
    assert_int_equal(error.code, GW_E_SYSTEM);
    assert_null(verify);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(differences_are_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_differences, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hostile_hashes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hostile_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(freed_while_it_hashes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_read, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
