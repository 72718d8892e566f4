/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "util/cleanup.h"
#include "util/tree.h"

static char root[] = "/tmp/godwit-test-tree-XXXXXX";

/* A path below root, in one of a few static buffers. */
static const char *in_root(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % GW_ARRAY_SIZE(paths)];

    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static bool is_there(const char *name)
{
    struct stat st;

    return lstat(in_root(name), &st) == 0;
}

static void make_dir(const char *name)
{
    assert_int_equal(mkdir(in_root(name), 0700), 0);
}

static void make_file(const char *name)
{
    int fd = open(in_root(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    close(fd);
}

static void make_socket(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", in_root(name));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

static void all_below_goes(void **state)
{
    (void)state;
    make_dir("a");
    make_dir("a/empty");
    make_dir("a/b");
    make_file("a/b/file");
    make_file("a/.hidden");
    make_socket("a/b/qmp");
    assert_int_equal(mkfifo(in_root("a/fifo"), 0600), 0);
    make_file("ab"); /* a neighbour */
    assert_int_equal(gw_remove_tree(in_root("a")), 0);
    assert_false(is_there("a"));
    assert_true(is_there("ab"));
}

static void links_are_removed_but_not_followed(void **state)
{
    (void)state;
    make_dir("precious");
    make_file("precious/file");
    make_dir("a");
    assert_int_equal(symlink(in_root("precious"), in_root("a/to-directory")), 0);
    assert_int_equal(symlink(in_root("precious/file"), in_root("a/to-file")), 0);
    assert_int_equal(symlink("nowhere", in_root("a/dangling")), 0);
    assert_int_equal(symlink(".", in_root("a/loop")), 0);
    assert_int_equal(gw_remove_tree(in_root("a")), 0);
    assert_false(is_there("a"));
    assert_true(is_there("precious/file"));

    /* the top itself, too */
    assert_int_equal(symlink(in_root("precious"), in_root("link")), 0);
    assert_int_equal(gw_remove_tree(in_root("link")), 0);
    assert_false(is_there("link"));
    assert_true(is_there("precious/file"));
}

static void more_levels_than_open_directories(void **state)
{
    char name[128] = "deep";

    (void)state;
    make_dir(name);
    for (int i = 0; i < 40; i++) {
        strcat(name, "/d");
        make_dir(name);
    }
    assert_int_equal(gw_remove_tree(in_root("deep")), 0);
    assert_false(is_there("deep"));
}

static void what_is_not_there_is_fine(void **state)
{
    (void)state;
    assert_int_equal(gw_remove_tree(in_root("never")), 0);
    assert_int_equal(gw_remove_tree(in_root("never/ever")), 0);
}

static void a_single_file_goes_too(void **state)
{
    (void)state;
    make_file("file");
    assert_int_equal(gw_remove_tree(in_root("file")), 0);
    assert_false(is_there("file"));
}

static void failures_are_told(void **state)
{
    (void)state;
    make_file("plain");
    errno = 0;
    assert_int_equal(gw_remove_tree(in_root("plain/below")), -1);
    assert_int_equal(errno, ENOTDIR);
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return gw_remove_tree(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_below_goes),
        cmocka_unit_test(links_are_removed_but_not_followed),
        cmocka_unit_test(more_levels_than_open_directories),
        cmocka_unit_test(what_is_not_there_is_fine),
        cmocka_unit_test(a_single_file_goes_too),
        cmocka_unit_test(failures_are_told),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
