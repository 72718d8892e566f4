/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "shell/config.h"

static int parse(const char *text, struct gw_config **configp, struct gw_error *e)
{
    return gw_config_parse(text, strlen(text), "g.yaml", configp, e);
}

static void everything_can_be_said(void **state)
{
    gw_auto(config) struct gw_config *c = NULL;
    struct gw_error e;

    (void)state;
    assert_int_equal(parse("name: n1\n"
                           "listen: 10.0.0.1:7000\n"
                           "migration_address: fd00::1\n"
                           "migration_ports: 5000-5001\n"
                           "state_dir: /s\n"
                           "run_dir: /r\n"
                           "socket: /x/y.sock\n"
                           "qemu: /opt/qemu\n"
                           "policies_dir: /p\n"
                           "owner_store: /o\n"
                           "breakpoints: true\n"
                           "announce_addresses: false\n"
                           "network_hook: /h\n"
                           "network_hook_timeout: 50\n"
                           "commit_timeout: 5\n"
                           "ceph_conf: /c.conf\n"
                           "ceph_user: godwit\n"
                           "log_level: debug\n",
                           &c, &e),
                     0);
    assert_string_equal(c->name, "n1");
    assert_string_equal(c->listen_address, "10.0.0.1");
    assert_int_equal(c->listen_port, 7000);
    assert_string_equal(c->migration_address, "fd00::1");
    assert_int_equal(c->migration_port_min, 5000);
    assert_int_equal(c->migration_port_max, 5001);
    assert_string_equal(c->state_dir, "/s");
    assert_string_equal(c->run_dir, "/r");
    assert_string_equal(c->socket, "/x/y.sock");
    assert_string_equal(c->qemu, "/opt/qemu");
    assert_string_equal(c->policies_dir, "/p");
    assert_string_equal(c->owner_store, "/o");
    assert_true(c->breakpoints);
    assert_false(c->announce_addresses);
    assert_string_equal(c->network_hook, "/h");
    assert_int_equal(c->network_hook_timeout_s, 50);
    assert_int_equal(c->commit_timeout_s, 5);
    assert_string_equal(c->ceph_conf, "/c.conf");
    assert_string_equal(c->ceph_user, "godwit");
    assert_int_equal(c->log_level, GW_LOG_DEBUG);
}

static void what_is_absent_has_defaults(void **state)
{
    gw_auto(config) struct gw_config *c = NULL;
    struct gw_error e;

    (void)state;
    assert_int_equal(parse("run_dir: /tmp/r\n", &c, &e), 0);
    assert_null(c->name);
    assert_string_equal(c->listen_address, "::");
    assert_int_equal(c->listen_port, 7411);
    assert_null(c->migration_address);
    assert_int_equal(c->migration_port_min, 49152);
    assert_int_equal(c->migration_port_max, 49215);
    assert_string_equal(c->state_dir, "/var/lib/godwit");
    assert_string_equal(c->socket, "/tmp/r/godwitd.sock");
    assert_string_equal(c->qemu, "qemu-system-x86_64");
    assert_string_equal(c->policies_dir, "/etc/godwit/policies");
    assert_null(c->owner_store);
    assert_false(c->breakpoints);
    assert_true(c->announce_addresses);
    assert_null(c->network_hook);
    assert_int_equal(c->network_hook_timeout_s, 10);
    assert_int_equal(c->commit_timeout_s, 60);
    assert_null(c->ceph_conf);
    assert_null(c->ceph_user);
    assert_int_equal(c->log_level, GW_LOG_INFO);
}

static void addresses_come_in_four_shapes(void **state)
{
    static const struct {
        const char *text, *address;
        int port;
    } rows[] = {
        {"listen: 10.0.0.1", "10.0.0.1", 7411},   {"listen: 0.0.0.0:1", "0.0.0.0", 1},
        {"listen: '::1'", "::1", 7411},           {"listen: '[fd00::2]:65535'", "fd00::2", 65535},
        {"listen: '[fd00::2]'", "fd00::2", 7411},
    };
    struct gw_error e;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        gw_auto(config) struct gw_config *c = NULL;

        assert_int_equal(parse(rows[i].text, &c, &e), 0);
        assert_string_equal(c->listen_address, rows[i].address);
        assert_int_equal(c->listen_port, rows[i].port);
    }
}

static void errors_have_file_line_and_reason(void **state)
{
    static const struct {
        const char *text, *msg;
    } rows[] = {
        {"name: n1\n\nlisten: host:1\n", "g.yaml:3: listen: 'host:1' is not an IP address"},
        {"listen: 1.2.3.4:0\n", "g.yaml:1: listen: "},
        {"listen: 1.2.3.4:65536\n", "g.yaml:1: listen: "},
        {"listen: '1.2.3.4:'\n", "g.yaml:1: listen: "},
        {"listen: 1.2.3.4:5x\n", "g.yaml:1: listen: "},
        {"listen: '[::1'\n", "g.yaml:1: listen: "},
        {"listen: '[::1]7'\n", "g.yaml:1: listen: "},
        {"listen: '[]:7'\n", "g.yaml:1: listen: "},
        {"migration_address: x\n", "g.yaml:1: migration_address: 'x' is not an IP address"},
        {"migration_ports: 2-1\n", "g.yaml:1: migration_ports: '2-1' is not a range"},
        {"migration_ports: 7\n", "g.yaml:1: migration_ports: "},
        {"migration_ports: 1-2-3\n", "g.yaml:1: migration_ports: "},
        {"migration_ports: 0-5\n", "g.yaml:1: migration_ports: "},
        {"state_dir: here\n", "g.yaml:1: state_dir: 'here' is not an absolute path"},
        {"socket: here\n", "g.yaml:1: socket: 'here' is not an absolute path"},
        {"qemu: bin/qemu\n", "g.yaml:1: qemu: 'bin/qemu' is not an absolute path"},
        {"network_hook: move\n", "g.yaml:1: network_hook: 'move' is not an absolute path"},
        {"network_hook_timeout: 0\n", "g.yaml:1: network_hook_timeout: 0 is not between 1 and"},
        {"commit_timeout: 4\n", "g.yaml:1: commit_timeout: 4 is not between 5 and 600"},
        {"network_hook_timeout: 51\n", "g.yaml:1: network_hook_timeout: 51 is not between"},
        {"name: 'a b'\n", "g.yaml:1: name: 'a b' is not a node's name"},
        {"name: ../x\n", "g.yaml:1: name: "},
        {"log_level: loud\n", "g.yaml:1: log_level: 'loud' is not one of error, warning"},
        {"name: n1\nlisten_port: 1\n", "g.yaml:2: unknown key 'listen_port'"},
    };
    struct gw_config *c;
    struct gw_error e;

    (void)state;
    for (size_t i = 0; i < GW_ARRAY_SIZE(rows); i++) {
        assert_int_equal(parse(rows[i].text, &c, &e), -1);
        assert_null(c);
        assert_int_equal(e.code, GW_E_CONFIG);
        if (strncmp(e.msg, rows[i].msg, strlen(rows[i].msg)) != 0)
            fail_msg("row %zu: '%s' is not '%s'", i, e.msg, rows[i].msg);
    }
}

static void socket_paths_must_fit(void **state)
{
    struct gw_config *c;
    struct gw_error e;
    char text[200];

    (void)state;
    snprintf(text, sizeof text, "socket: /%0*d\n", 107, 0);
    assert_int_equal(parse(text, &c, &e), -1);
    assert_non_null(strstr(e.msg, "a unix socket's path can be"));
    snprintf(text, sizeof text, "socket: /%0*d\n", 106, 0);
    assert_int_equal(parse(text, &c, &e), 0);
    gw_config_free(c);
    snprintf(text, sizeof text, "run_dir: /%0*d\n", 100, 0);
    assert_int_equal(parse(text, &c, &e), -1);
    assert_non_null(strstr(e.msg, "too long for sockets in it"));
}

static void only_the_default_file_may_be_missing(void **state)
{
    struct gw_config *c;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_config_load("/nonexistent/godwitd.yaml", &c, &e), -1);
    assert_int_equal(e.sys, ENOENT);
    assert_string_equal(e.msg, "open /nonexistent/godwitd.yaml: No such file or directory");
    if (access(GW_CONFIG_DEFAULT_FILE, F_OK) == 0)
        skip();
    assert_int_equal(gw_config_load(NULL, &c, &e), 0);
    assert_string_equal(c->socket, "/run/godwit/godwitd.sock");
    gw_config_free(c);
    gw_config_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_can_be_said),
        cmocka_unit_test(what_is_absent_has_defaults),
        cmocka_unit_test(addresses_come_in_four_shapes),
        cmocka_unit_test(errors_have_file_line_and_reason),
        cmocka_unit_test(socket_paths_must_fit),
        cmocka_unit_test(only_the_default_file_may_be_missing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
