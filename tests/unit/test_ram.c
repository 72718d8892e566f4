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
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flow/page.h"
#include "flow/ram.h"
#include "util/cleanup.h"

#define BLOCK (16 * GW_PAGE_BYTES)

static uint8_t *anonymous, *shared, *file, *sealed;
static int fds[2];

/* The blocks that can be written to: all kinds of memory are the same to those who use it. */
static const struct {
    const char *name;
    uint8_t *const *at;
} kinds[] = {{"ram0", &anonymous}, {"ram1", &shared}, {"file", &file}};

static uint8_t *map(int flags, int fd, int access)
{
    uint8_t *at = mmap(NULL, BLOCK, access, flags, fd, 0);

    assert_ptr_not_equal(at, MAP_FAILED);
    madvise(at, BLOCK, MADV_NOHUGEPAGE); /* pages are counted */
    return at;
}

static int new_file(void)
{
    int fd = memfd_create("memory-backend-memfd", MFD_CLOEXEC);

    assert_int_equal(ftruncate(fd, BLOCK), 0);
    return fd;
}

static char *info(void)
{
    static char text[2048];
    static const char line[] = "%24s    4 KiB  0x0000000000000000 0x%016x 0x%016x 0x%016lx  rw\r\n";
    int n = snprintf(text, sizeof text, "%24s %8s  %18s %18s %18s %18s %3s\r\n", "Block Name",
                     "PSize", "Offset", "Used", "Total", "HVA", "RO");

    n += snprintf(text + n, sizeof text - n, line, "ram0", BLOCK, BLOCK, (unsigned long)anonymous);
    n += snprintf(text + n, sizeof text - n, line, "ram1", BLOCK, BLOCK, (unsigned long)shared);
    n += snprintf(text + n, sizeof text - n, line, "file", BLOCK, BLOCK, (unsigned long)file);
    n += snprintf(text + n, sizeof text - n, line, "grows", BLOCK / 2, BLOCK, (unsigned long)file);
    snprintf(text + n, sizeof text - n, line, "sealed", BLOCK, BLOCK, (unsigned long)sealed);
    return text;
}

static void open_it(struct gw_ram *ram)
{
    struct gw_error e;

    if (gw_ram_open(ram, getpid(), info(), &e) < 0)
        fail_msg("%s", e.msg);
}

static int write_page(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                      void *page, struct gw_error *e)
{
    const struct gw_ram_parts parts = {.n = 1, .part[0] = {offset, page, GW_PAGE_BYTES}};

    return gw_ram_write(ram, block, &parts, e);
}

static int set_up(void **state)
{
    (void)state;
    fds[0] = new_file();
    fds[1] = new_file();
    anonymous = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, PROT_READ | PROT_WRITE);
    shared = map(MAP_SHARED, fds[0], PROT_READ | PROT_WRITE);
    file = map(MAP_PRIVATE, fds[1], PROT_READ | PROT_WRITE);
    sealed = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, PROT_READ);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    munmap(anonymous, BLOCK);
    munmap(shared, BLOCK);
    munmap(file, BLOCK);
    munmap(sealed, BLOCK);
    close(fds[0]);
    close(fds[1]);
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
    assert_true(line.total_bytes == 0x8000000);
    assert_true(line.address == 0x7fb63bfff000);
    /* without the address; with none; the heading; too long a name; nothing */
    assert_int_equal(gw_ram_parse_line("pc.ram    4 KiB  0x0 0x8000000 0x8000000", &line), 1);
    assert_int_equal(gw_ram_parse_line("pc.ram    4 KiB  0x0 0x8000000 0x8000000 0x0", &line), 1);
    assert_int_equal(gw_ram_parse_line("Block Name PSize Offset Used Total HVA RO", &line), 1);
    assert_int_equal(gw_ram_parse_line("", &line), 1);
}

static void what_can_be_written_and_what_is_of_no_file(void **state)
{
    static const struct {
        const char *name;
        bool writable, anonymous;
    } cases[] = {{"ram0", true, true},
                 {"ram1", true, false},
                 {"file", true, false},
                 {"grows", false, false},
                 {"sealed", false, true}};
    struct gw_ram ram;

    (void)state;
    open_it(&ram);
    assert_int_equal(ram.n_blocks, 5);
    for (unsigned i = 0; i < 5; i++) {
        const struct gw_ram_block *block = gw_ram_find(&ram, cases[i].name);

        assert_non_null(block);
        assert_int_equal(block->writable, cases[i].writable);
        assert_int_equal(block->anonymous, cases[i].anonymous);
    }
    assert_null(gw_ram_find(&ram, "none"));
    gw_ram_close(&ram);
    gw_ram_close(&ram);
}

/* Two mappings side by side are one block; with a gap in it the process is not that QEMU. */
static void a_block_of_several_mappings(void **state)
{
    struct gw_error e;
    struct gw_ram ram;

    (void)state;
    assert_int_equal(mprotect(anonymous, BLOCK / 2, PROT_READ), 0);
    open_it(&ram);
    assert_false(gw_ram_find(&ram, "ram0")->writable);
    assert_true(gw_ram_find(&ram, "ram0")->anonymous);
    gw_ram_close(&ram);
    munmap(anonymous + BLOCK / 2, BLOCK / 4);
    assert_int_equal(gw_ram_open(&ram, getpid(), info(), &e), -1);
    assert_int_equal(e.code, GW_E_SYSTEM);
    assert_int_equal(ram.n_blocks, 0);
}

static void pages_land_in_their_blocks(void **state)
{
    uint8_t pages[2][GW_PAGE_BYTES], back[2][GW_PAGE_BYTES];
    struct gw_ram_parts out = {.n = 0}, in = {.n = 0};
    struct gw_error e;
    struct gw_ram ram;

    (void)state;
    open_it(&ram);
    memset(pages[0], 7, sizeof pages[0]);
    memset(pages[1], 9, sizeof pages[1]);
    gw_ram_add_part(&out, 2 * GW_PAGE_BYTES, pages[1], GW_PAGE_BYTES);
    gw_ram_add_part(&out, 5 * GW_PAGE_BYTES, pages[0], GW_PAGE_BYTES);
    gw_ram_add_part(&in, 5 * GW_PAGE_BYTES, back[0], GW_PAGE_BYTES);
    gw_ram_add_part(&in, 2 * GW_PAGE_BYTES, back[1], GW_PAGE_BYTES);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(kinds); i++) {
        const struct gw_ram_block *block = gw_ram_find(&ram, kinds[i].name);
        const uint8_t *at = *kinds[i].at;

        assert_int_equal(gw_ram_write(&ram, block, &out, &e), 0);
        assert_memory_equal(at + 2 * GW_PAGE_BYTES, pages[1], GW_PAGE_BYTES);
        assert_memory_equal(at + 5 * GW_PAGE_BYTES, pages[0], GW_PAGE_BYTES);
        assert_int_equal(at[GW_PAGE_BYTES] | at[3 * GW_PAGE_BYTES], 0);
        memset(back, 0, sizeof back);
        assert_int_equal(gw_ram_read(&ram, block, &in, &e), 0);
        assert_memory_equal(back, pages, sizeof back);
    }
    gw_ram_close(&ram);
}

static void parts_in_a_row_are_one(void **state)
{
    struct gw_ram_parts parts = {.n = 0};
    uint8_t here[4 * GW_PAGE_BYTES];

    (void)state;
    gw_ram_add_part(&parts, 0, here, GW_PAGE_BYTES);
    gw_ram_add_part(&parts, GW_PAGE_BYTES, here + GW_PAGE_BYTES, GW_PAGE_BYTES);
    assert_int_equal(parts.n, 1);
    assert_int_equal(parts.part[0].n_bytes, 2 * GW_PAGE_BYTES);
    gw_ram_add_part(&parts, 2 * GW_PAGE_BYTES, here + 3 * GW_PAGE_BYTES, GW_PAGE_BYTES);
    gw_ram_add_part(&parts, 9 * GW_PAGE_BYTES, here, GW_PAGE_BYTES);
    assert_int_equal(parts.n, 3);
}

static void nothing_lands_outside(void **state)
{
    static const uint64_t bad[] = {BLOCK, BLOCK - 4095, UINT64_MAX, UINT64_MAX - 4095,
                                   UINT64_MAX - BLOCK};
    const struct gw_ram_block *block;
    uint8_t page[GW_PAGE_BYTES];
    struct gw_error e;
    struct gw_ram ram;

    (void)state;
    open_it(&ram);
    memset(page, 7, sizeof page);
    block = gw_ram_find(&ram, "ram0");
    assert_int_equal(write_page(&ram, block, BLOCK - GW_PAGE_BYTES, page, &e), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct gw_ram_parts parts = {.n = 2, .part = {{0, page, 1}, {bad[i], page, sizeof page}}};

        assert_false(gw_ram_holds(block, bad[i], GW_PAGE_BYTES));
        assert_int_equal(gw_ram_write(&ram, block, &parts, &e), -1);
        assert_int_equal(e.code, GW_E_PROTOCOL);
        assert_int_equal(gw_ram_read(&ram, block, &parts, &e), -1);
        assert_int_equal(gw_ram_zero(&ram, block, bad[i], sizeof page, &e), -1);
    }
    assert_int_equal(anonymous[0], 0);
    assert_false(gw_ram_holds(block, 0, BLOCK + 1));
    assert_int_equal(write_page(&ram, gw_ram_find(&ram, "sealed"), 0, page, &e), -1);
    assert_int_equal(e.code, GW_E_SYSTEM);
    gw_ram_close(&ram);
}

static unsigned n_resident(uint8_t *at)
{
    unsigned char there[BLOCK / GW_PAGE_BYTES];
    unsigned n = 0;

    assert_int_equal(mincore(at, BLOCK, there), 0);
    for (unsigned i = 0; i < sizeof there; i++)
        n += there[i] & 1;
    return n;
}

static void zero_pages_become_zero(void **state)
{
    struct gw_error e;
    struct gw_ram ram;

    (void)state;
    open_it(&ram);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(kinds); i++) {
        const struct gw_ram_block *block = gw_ram_find(&ram, kinds[i].name);
        uint8_t *at = *kinds[i].at;

        at[3 * GW_PAGE_BYTES + 4095] = 1;
        at[4 * GW_PAGE_BYTES] = 2;
        at[15 * GW_PAGE_BYTES + 77] = 3;
        assert_int_equal(gw_ram_zero(&ram, block, 0, (size_t)4 * GW_PAGE_BYTES, &e), 0);
        assert_int_equal(
            gw_ram_zero(&ram, block, 5 * GW_PAGE_BYTES, (size_t)11 * GW_PAGE_BYTES, &e), 0);
        assert_int_equal(at[3 * GW_PAGE_BYTES + 4095], 0);
        assert_int_equal(at[15 * GW_PAGE_BYTES + 77], 0);
        assert_int_equal(at[4 * GW_PAGE_BYTES], 2); /* nobody said so */
    }
    /* what was not there was not made */
    assert_int_equal(n_resident(anonymous), 3);
    assert_int_equal(n_resident(shared), 3);
    gw_ram_close(&ram);
}

static void looking_makes_nothing(void **state)
{
    static uint8_t here[BLOCK], zeros[BLOCK];
    struct gw_error e;
    struct gw_ram ram;

    (void)state;
    open_it(&ram);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(kinds); i++) {
        const struct gw_ram_block *block = gw_ram_find(&ram, kinds[i].name);
        uint8_t *at = *kinds[i].at;

        memset(here, 5, sizeof here);
        assert_int_equal(gw_ram_look(&ram, block, 0, here, BLOCK, &e), 0);
        assert_memory_equal(here, zeros, BLOCK);
        assert_int_equal(n_resident(at), at == file ? BLOCK / GW_PAGE_BYTES : 0);
        at[9 * GW_PAGE_BYTES + 1] = 7;
        memset(here, 5, sizeof here);
        assert_int_equal(gw_ram_look(&ram, block, 0, here, BLOCK, &e), 0);
        assert_memory_equal(here, at, BLOCK);
        assert_int_equal(gw_ram_look(&ram, block, BLOCK, here, GW_PAGE_BYTES, &e), -1);
    }
    gw_ram_close(&ram);
}

/* Its pid may be another's by now. */
static void a_process_that_ended(void **state)
{
    pid_t pid = fork();
    uint8_t page[GW_PAGE_BYTES];
    struct gw_error e;
    struct gw_ram ram;

    (void)state;
    if (pid == 0)
        for (;;)
            pause();
    assert_int_equal(gw_ram_open(&ram, pid, info(), &e), 0);
    kill(pid, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
    ram.pid = getpid(); /* as if it were ours */
    memset(page, 7, sizeof page);
    assert_int_equal(write_page(&ram, gw_ram_find(&ram, "ram0"), 0, page, &e), -1);
    assert_int_equal(e.code, GW_E_SYSTEM);
    assert_int_equal(anonymous[0], 0);
    gw_ram_close(&ram);
    waitpid(pid, NULL, 0);
}

static void lists_that_are_refused(void **state)
{
    char line[128], text[(GW_RAM_BLOCKS_MAX + 1) * sizeof line] = "";
    struct gw_error e;
    struct gw_ram ram;

    (void)state;
    snprintf(line, sizeof line, "twice 4 KiB 0x0 0x1000 0x1000 0x%lx\n", (unsigned long)anonymous);
    strcat(strcat(text, line), line);
    assert_int_equal(gw_ram_open(&ram, getpid(), text, &e), -1);
    assert_int_equal(e.code, GW_E_UNSUPPORTED);
    text[0] = '\0';
    for (unsigned i = 0; i <= GW_RAM_BLOCKS_MAX; i++) {
        snprintf(line, sizeof line, "b%u 4 KiB 0x0 0x1000 0x1000 0x%lx\n", i,
                 (unsigned long)anonymous);
        strcat(text, line);
    }
    assert_int_equal(gw_ram_open(&ram, getpid(), text, &e), -1);
    assert_int_equal(e.code, GW_E_UNSUPPORTED);
    assert_int_equal(gw_ram_open(&ram, getpid(), "nowhere 4 KiB 0x0 0x1000 0x1000 0x1000", &e), -1);
    assert_int_equal(e.code, GW_E_SYSTEM);
    assert_int_equal(ram.n_blocks, 0);
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
        cmocka_unit_test_setup_teardown(what_can_be_written_and_what_is_of_no_file, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_block_of_several_mappings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pages_land_in_their_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(parts_in_a_row_are_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_lands_outside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(zero_pages_become_zero, set_up, tear_down),
        cmocka_unit_test_setup_teardown(looking_makes_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_process_that_ended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lists_that_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_process_that_is_not_there, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
