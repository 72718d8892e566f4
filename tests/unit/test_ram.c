/* SPDX-License-Identifier: Apache-2.0 */
/* This process is its own QEMU here: its mappings are found by their addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flow/ram.h"

#define BLOCK (16 * 4096)

struct memory {
    int fd;
    uint8_t *at;
};

static struct memory one, two, alone;

static struct memory make(int flags, size_t file_bytes, off_t offset)
{
    struct memory m = {.fd = memfd_create("memory-backend-memfd", MFD_CLOEXEC)};

    assert_int_equal(ftruncate(m.fd, (off_t)file_bytes), 0);
    m.at = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, flags, m.fd, offset);
    assert_ptr_not_equal(m.at, MAP_FAILED);
    return m;
}

static void drop(struct memory *m)
{
    munmap(m->at, BLOCK);
    close(m->fd);
}

static char *info(void)
{
    static char text[2048];
    static const char line[] = "%24s    4 KiB  0x0000000000000000 0x%016x 0x%016x 0x%016lx  rw\r\n";
    int n = snprintf(text, sizeof text, "%24s %8s  %18s %18s %18s %18s %3s\r\n", "Block Name",
                     "PSize", "Offset", "Used", "Total", "HVA", "RO");

    n += snprintf(text + n, sizeof text - n, line, "ram0", BLOCK, BLOCK, (unsigned long)one.at);
    n += snprintf(text + n, sizeof text - n, line, "ram1", BLOCK, BLOCK, (unsigned long)two.at);
    n +=
        snprintf(text + n, sizeof text - n, line, "private", BLOCK, BLOCK, (unsigned long)alone.at);
    n += snprintf(text + n, sizeof text - n, line, "none", BLOCK, BLOCK, 4096ul);
    snprintf(text + n, sizeof text - n, line, "long", 64 * BLOCK, 64 * BLOCK,
             (unsigned long)one.at);
    return text;
}

static void open_it(struct gw_ram *ram)
{
    struct gw_error e;

    if (gw_ram_open(ram, getpid(), info(), &e) < 0)
        fail_msg("%s", e.msg);
}

static int set_up(void **state)
{
    (void)state;
    one = make(MAP_SHARED, BLOCK, 0);
    two = make(MAP_SHARED, BLOCK + 8192, 8192); /* a block that does not begin its file */
    alone = make(MAP_PRIVATE, BLOCK, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    drop(&one);
    drop(&two);
    drop(&alone);
    return 0;
}

static void lines_are_read(void **state)
{
    struct gw_ram_line line;

    (void)state;
    assert_int_equal(
        gw_ram_parse_line("  /objects/m0    2 MiB  0x0000000000000000 0x0000000004000000 "
                          "0x0000000008000000 0x00007fb63bfff000  rw\r\nmore",
                          &line),
        0);
    assert_string_equal(line.name, "/objects/m0");
    assert_true(line.used_bytes == 0x4000000);
    assert_true(line.address == 0x7fb63bfff000);
    /* without the address; with none; the heading; too long a name; nothing */
    assert_int_equal(gw_ram_parse_line("pc.ram    4 KiB  0x0 0x8000000 0x8000000", &line), 1);
    assert_int_equal(gw_ram_parse_line("pc.ram    4 KiB  0x0 0x8000000 0x8000000 0x0", &line), 1);
    assert_int_equal(gw_ram_parse_line("Block Name PSize Offset Used Total HVA RO", &line), 1);
    assert_int_equal(gw_ram_parse_line("", &line), 1);
}

static void only_shared_memory_is_mapped(void **state)
{
    struct gw_ram ram;

    (void)state;
    open_it(&ram);
    assert_int_equal(ram.n_blocks, 2);
    assert_non_null(gw_ram_find(&ram, "ram0"));
    assert_non_null(gw_ram_find(&ram, "ram1"));
    assert_null(gw_ram_find(&ram, "private"));
    assert_null(gw_ram_find(&ram, "none"));
    assert_null(gw_ram_find(&ram, "long"));
    gw_ram_close(&ram);
    gw_ram_close(&ram);
}

static void a_page_lands_in_its_block(void **state)
{
    uint8_t page[4096];
    struct gw_ram ram;

    (void)state;
    open_it(&ram);
    memset(page, 7, sizeof page);
    assert_int_equal(gw_ram_write(gw_ram_find(&ram, "ram1"), 4096, page, sizeof page), 0);
    assert_memory_equal(two.at + 4096, page, sizeof page);
    assert_int_equal(two.at[0] | two.at[8192] | one.at[4096] | alone.at[4096], 0);
    two.at[5000] = 9;
    assert_int_equal(gw_ram_at(gw_ram_find(&ram, "ram1"), 5000, 1)[0], 9);
    gw_ram_close(&ram);
}

static void nothing_lands_outside(void **state)
{
    static const uint64_t bad[] = {BLOCK, BLOCK - 4095, UINT64_MAX, UINT64_MAX - 4095,
                                   UINT64_MAX - BLOCK};
    const struct gw_ram_block *block;
    uint8_t page[4096] = {0};
    struct gw_ram ram;

    (void)state;
    open_it(&ram);
    block = gw_ram_find(&ram, "ram0");
    assert_int_equal(gw_ram_write(block, BLOCK - 4096, page, sizeof page), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_null(gw_ram_at(block, bad[i], 4096));
        assert_int_equal(gw_ram_write(block, bad[i], page, sizeof page), 1);
        assert_int_equal(gw_ram_zero(block, bad[i], sizeof page), 1);
    }
    assert_null(gw_ram_at(block, 0, BLOCK + 1));
    gw_ram_close(&ram);
}

static blkcnt_t n_allocated(int fd)
{
    struct stat at;

    assert_int_equal(fstat(fd, &at), 0);
    return at.st_blocks;
}

static void zero_pages_become_zero(void **state)
{
    const struct gw_ram_block *block;
    struct gw_ram ram;
    blkcnt_t before;

    (void)state;
    open_it(&ram);
    block = gw_ram_find(&ram, "ram1");
    two.at[3 * 4096 + 4095] = 1;
    two.at[4 * 4096] = 2;
    before = n_allocated(two.fd);
    for (unsigned i = 0; i < 16; i++)
        if (i != 4)
            assert_int_equal(gw_ram_zero(block, i * 4096u, 4096), 0);
    assert_int_equal(two.at[3 * 4096 + 4095], 0);
    assert_int_equal(two.at[4 * 4096], 2); /* nobody said so */
    assert_int_equal(n_allocated(two.fd), before);
    gw_ram_close(&ram);
}

static void a_process_that_is_not_there(void **state)
{
    struct gw_ram ram;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_ram_open(&ram, 0x7ffffff0, info(), &e), -1);
    assert_int_equal(e.code, GW_E_SYSTEM);
    assert_int_equal(ram.n_blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_read),
        cmocka_unit_test_setup_teardown(only_shared_memory_is_mapped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_page_lands_in_its_block, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_lands_outside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(zero_pages_become_zero, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_process_that_is_not_there, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
