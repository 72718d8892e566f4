/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "host/adopt.h"
#include "host/argv.h"

#define QEMU       "qemu-system-x86_64"
#define TIMEOUT_MS 30000

static struct gw_vm_spec *load(const char *text)
{
    struct gw_vm_spec *spec = NULL;
    struct gw_error e = {0};

    if (gw_vm_spec_from_yaml(text, strlen(text), "test", &spec, &e) < 0 ||
        gw_vm_spec_resolve(spec, &e) < 0)
        fail_msg("%s", e.msg);
    return spec;
}

#define UUID "11111111-2222-4333-8444-555555555555"
#define LEAN ",sata=off,smbus=off,hpet=off,vmport=off,smm=off"

static void the_whole_command_line(void **state)
{
    static const char expected[] =
        "qemu -name guest=web1,debug-threads=on -uuid " UUID
        " -machine q35,memory-backend=ram0,dump-guest-core=off" LEAN " -accel tcg"
        " -cpu qemu64,svm=off,+cx16,+lahf-lm,+popcnt,+sse4.1,+sse4.2,+ssse3,+aes"
        " -smp 2 -m 1024M -object memory-backend-ram,id=ram0,size=1073741824"
        " -global apic-common.vapic=off"
        " -nodefaults -no-user-config"
        " -kernel /boot/k -initrd /boot/i -append 'a='\\''b'\\'', c'"
        " -chardev file,id=gwconsole,path=/log,,1,append=on -serial chardev:gwconsole"
        " -blockdev '{\"node-name\":\"disk0-file\",\"driver\":\"file\",\"filename\":\"/srv/a,b\","
        "\"aio\":\"threads\",\"read-only\":false,\"cache\":{\"direct\":true}}'"
        " -blockdev '{\"node-name\":\"disk0-image\",\"driver\":\"qcow2\",\"file\":\"disk0-file\","
        "\"read-only\":false,\"cache\":{\"direct\":true}}'"
        " -device virtio-blk-pci,id=disk0,drive=disk0-image,disable-legacy=on"
        " -netdev tap,id=net0,ifname=gw7,script=no,downscript=no"
        " -device "
        "virtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:00:00:01,romfile=,disable-legacy=on"
        " -object iothread,id=gwballoon-thread"
        " -device virtio-balloon-pci,id=gwballoon,free-page-hint=on,iothread=gwballoon-thread"
        ",disable-legacy=on"
        " -display none -chardev socket,id=gwqmp,path=/run/a,,b,server=on,wait=off"
        " -mon chardev=gwqmp,mode=control -S -incoming defer -device virtio-rng-pci";
    gw_auto(vm_spec) struct gw_vm_spec *spec =
        load("name: web1\nuuid: " UUID "\nmemory: 1GiB\ncpus: 2\n"
             "boot: {kernel: /boot/k, initrd: /boot/i, append: \"a='b', c\"}\n"
             "disks: [{file: '/srv/a,b', format: qcow2}]\n"
             "nics: [{bridge: br0, mac: '52:54:00:00:00:01'}]\n"
             "console: {log: '/log,1'}\nqemu_args: [-device, virtio-rng-pci]\n");
    const struct gw_vm_runtime runtime = {.qemu = "qemu",
                                          .qmp_path = "/run/a,b",
                                          .taps = (const char *[]){"gw7"},
                                          .n_taps = 1,
                                          .incoming = true,
                                          .accel = GW_ACCEL_TCG};
    struct gw_error e;
    char **argv, *line;

    (void)state;
    assert_int_equal(gw_argv_build(spec, &runtime, &argv, &e), 0);
    line = gw_argv_render(argv);
    assert_string_equal(line, expected);
    free(line);
    gw_argv_free(argv);
}

/* What the command line has for the disks of {rbd: image}, up to the end of its devices. */
static void assert_rbd(const char *image, const char *conf, const char *user, const char *expected)
{
    char text[200];
    const struct gw_vm_runtime runtime = {.qemu = "qemu",
                                          .qmp_path = "/q",
                                          .accel = GW_ACCEL_TCG,
                                          .ceph_conf = conf,
                                          .ceph_user = user};
    gw_autofree char *line = NULL;
    struct gw_error e;
    char **argv;

    snprintf(text, sizeof text, "{name: a, memory: 64M, disks: [{rbd: %s}]}", image);
    gw_auto(vm_spec) struct gw_vm_spec *spec = load(text);
    assert_int_equal(gw_argv_build(spec, &runtime, &argv, &e), 0);
    line = gw_argv_render(argv);
    gw_argv_free(argv);
    if (!strstr(line, expected))
        fail_msg("%s\nhas no\n%s", line, expected);
}

static void an_image_in_ceph_is_opened_by_librbd(void **state)
{
    (void)state;
    assert_rbd("p/n/i", "/c,1", "u",
               " -blockdev '{\"node-name\":\"disk0-file\",\"driver\":\"rbd\",\"pool\":\"p\","
               "\"namespace\":\"n\",\"image\":\"i\",\"conf\":\"/c,1\",\"user\":\"u\","
               "\"read-only\":false,\"discard\":\"unmap\",\"cache\":{\"direct\":true}}'"
               " -blockdev '{\"node-name\":\"disk0-image\",\"driver\":\"raw\",\"file\":"
               "\"disk0-file\",\"read-only\":false,\"discard\":\"unmap\",\"cache\":{\"direct\":"
               "true}}' -device virtio-blk-pci,id=disk0,drive=disk0-image");
    assert_rbd("pool/img", NULL, NULL,
               " -blockdev '{\"node-name\":\"disk0-file\",\"driver\":\"rbd\",\"pool\":\"pool\","
               "\"image\":\"img\",\"read-only\":false,");
}

static void who_wants_no_balloon_gets_none(void **state)
{
    gw_auto(vm_spec) struct gw_vm_spec *spec =
        load("name: a\nuuid: " UUID "\nmemory: 64M\nballoon: none\n");
    const struct gw_vm_runtime runtime = {.qemu = "qemu", .qmp_path = "/q", .accel = GW_ACCEL_TCG};
    struct gw_error e;
    char **argv, *line;

    (void)state;
    assert_int_equal(gw_argv_build(spec, &runtime, &argv, &e), 0);
    line = gw_argv_render(argv);
    assert_null(strstr(line, "balloon"));
    assert_null(strstr(line, "iothread"));
    free(line);
    gw_argv_free(argv);
}

/* The whole command line with all RAM taken first, or without. */
static char *line_of(const struct gw_vm_spec *spec, unsigned prefault_threads)
{
    const struct gw_vm_runtime runtime = {.qemu = "qemu",
                                          .qmp_path = "/q",
                                          .incoming = true,
                                          .prefault_threads = prefault_threads,
                                          .accel = GW_ACCEL_TCG};
    struct gw_error e;
    char **argv, *line;

    assert_int_equal(gw_argv_build(spec, &runtime, &argv, &e), 0);
    line = gw_argv_render(argv);
    gw_argv_free(argv);
    return line;
}

static void all_memory_is_taken_where_that_is_wanted(void **state)
{
    gw_auto(vm_spec) struct gw_vm_spec *spec = load("name: a\nuuid: " UUID "\nmemory: 64M\n");
    gw_auto(vm_spec) struct gw_vm_spec *adopted = load("name: a\nuuid: " UUID "\nmemory: 64M\n");
    static const char *const template[] = {"-m", "64"};
    gw_autofree char *lazy = line_of(spec, 0), *eager = line_of(spec, 3), *theirs = NULL;

    (void)state;
    assert_null(strstr(lazy, "prealloc"));
    assert_non_null(strstr(eager, "memory-backend-ram,id=ram0,size=67108864,"
                                  "prealloc=on,prealloc-threads=3 "));
    assert_null(strstr(eager, "-mem-prealloc"));
    adopted->adopted_argv = calloc(2, sizeof *adopted->adopted_argv);
    for (; adopted->n_adopted_argv < 2; adopted->n_adopted_argv++)
        adopted->adopted_argv[adopted->n_adopted_argv] = strdup(template[adopted->n_adopted_argv]);
    free(lazy);
    lazy = line_of(adopted, 0);
    theirs = line_of(adopted, 3);
    assert_null(strstr(lazy, "prealloc"));
    assert_non_null(strstr(theirs, "qemu -m 64 -mem-prealloc "));
}

static void only_q35_is_made_lean(void **state)
{
    static const struct {
        const char *file, *machine;
    } cases[] = {
        {"machine: pc-q35-9.2",
         " -machine pc-q35-9.2,memory-backend=ram0,dump-guest-core=off" LEAN " "},
        {"machine: pc", " -machine pc,memory-backend=ram0,dump-guest-core=off "},
        {"machine: q35x", " -machine q35x,memory-backend=ram0,dump-guest-core=off "},
    };
    const struct gw_vm_runtime runtime = {.qemu = "qemu",
                                          .qmp_path = "/run/q",
                                          .accel = GW_ACCEL_TCG};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gw_autofree char *text = NULL;
        gw_auto(vm_spec) struct gw_vm_spec *spec = NULL;
        char **argv, *line;
        struct gw_error e;

        assert_true(
            asprintf(&text, "name: a\nmemory: 64MiB\n%s\nboot: {kernel: /k}\n", cases[i].file) > 0);
        spec = load(text);
        assert_int_equal(gw_argv_build(spec, &runtime, &argv, &e), 0);
        line = gw_argv_render(argv);
        assert_non_null(strstr(line, cases[i].machine));
        free(line);
        gw_argv_free(argv);
    }
}

static void what_does_not_fit_is_refused(void **state)
{
    gw_auto(vm_spec) struct gw_vm_spec *kvm = load("{name: a, memory: 64M, accel: kvm}");
    gw_auto(vm_spec) struct gw_vm_spec *nic = load("{name: a, memory: 64M, nics: [{bridge: b}]}");
    struct gw_vm_runtime runtime = {.qemu = "qemu", .qmp_path = "/q", .accel = GW_ACCEL_TCG};
    char path[200];
    char **argv = NULL;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_argv_build(kvm, &runtime, &argv, &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
    assert_int_equal(gw_argv_build(nic, &runtime, &argv, &e), -1);
    assert_string_equal(e.msg, "VM a: 0 taps for 1 NICs");
    runtime.accel = GW_ACCEL_AUTO;
    assert_int_equal(gw_argv_build(kvm, &runtime, &argv, &e), -1);
    runtime.accel = GW_ACCEL_KVM;
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    runtime.qmp_path = path;
    assert_int_equal(gw_argv_build(kvm, &runtime, &argv, &e), -1);
    assert_non_null(strstr(e.msg, "too long"));
    assert_null(argv);
}

static void cpu_aliases_keep_further_properties(void **state)
{
    static const struct {
        const char *cpu, *contains, *lacks;
    } cases[] = {{"x86-64-v2", "+ssse3", "+aes"},
                 {"x86-64-v2-AES,-aes", "+aes,-aes", "avx"},
                 {"x86-64-v3", "+movbe,+xsave", "512"},
                 {"x86-64-v4,+pku", "+avx512vl,+pku", "#"},
                 {"host", "host", "qemu64"},
                 {"max,-avx", "max,-avx", "qemu64"},
                 {"x86-64-v22", "x86-64-v22", "qemu64"}};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        gw_autofree char *cpu = gw_argv_cpu(cases[i].cpu);

        assert_non_null(strstr(cpu, cases[i].contains));
        assert_null(strstr(cpu, cases[i].lacks));
    }
}

/* Real QEMU from here on */

struct running {
    pid_t pid;
    int stderr_fd;
    char dir[64], qmp[96], disk[96], console[96];
};

static void make_places(struct running *q)
{
    FILE *disk;

    snprintf(q->dir, sizeof q->dir, "/tmp/gw-test-argv-XXXXXX");
    assert_non_null(mkdtemp(q->dir));
    snprintf(q->qmp, sizeof q->qmp, "%s/q,mp", q->dir);
    snprintf(q->disk, sizeof q->disk, "%s/d,isk", q->dir);
    snprintf(q->console, sizeof q->console, "%s/console", q->dir);
    disk = fopen(q->disk, "w");
    assert_non_null(disk);
    assert_int_equal(ftruncate(fileno(disk), 1 << 20), 0);
    fclose(disk);
}

static bool qemu_is_missing(void)
{
    return system("command -v " QEMU " >/dev/null 2>&1") != 0;
}

static void start(struct running *q, char *const *argv)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    q->pid = fork();
    if (q->pid == 0) {
        dup2(fds[1], 2);
        close(fds[0]);
        close(fds[1]);
        execvp(argv[0], argv);
        perror(argv[0]);
        _exit(127);
    }
    close(fds[1]);
    q->stderr_fd = fds[0];
}

/* Until the QMP socket is there, or QEMU has closed stderr. */
static bool wait_for_socket(struct running *q, int watch)
{
    struct pollfd fds[2] = {{watch, POLLIN, 0}, {q->stderr_fd, 0, 0}};
    char events[4096];

    while (access(q->qmp, F_OK) < 0) {
        if (poll(fds, 2, TIMEOUT_MS) <= 0 || fds[1].revents)
            return false;
        if (read(watch, events, sizeof events) < 0)
            return false;
    }
    return true;
}

/* Until text has come in; false on anything else. */
static bool wait_for_text(struct running *q, int fd, const char *text)
{
    struct pollfd fds[2] = {{fd, POLLIN, 0}, {q->stderr_fd, 0, 0}};
    char got[1024] = "";
    size_t len = 0;
    ssize_t n;

    while (!strstr(got, text)) {
        if (poll(fds, 2, TIMEOUT_MS) <= 0 || fds[1].revents || len + 1 == sizeof got)
            return false;
        n = read(fd, got + len, sizeof got - 1 - len);
        if (n <= 0)
            return false;
        len += (size_t)n;
        got[len] = '\0';
    }
    return true;
}

/* A thread of QEMU's sends the greeting; an answer comes from its main loop, and thus from a
 * complete machine. */
static bool wait_for_answer(struct running *q)
{
    static const char question[] = "{\"execute\": \"qmp_capabilities\"}\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gw_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct pollfd gone = {q->stderr_fd, 0, 0};

    snprintf(address.sun_path, sizeof address.sun_path, "%s", q->qmp);
    /* QEMU is between bind() and listen() at worst */
    while (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        if (errno != ECONNREFUSED || poll(&gone, 1, 0) != 0)
            return false;
    return wait_for_text(q, fd, "QMP") &&
           write(fd, question, sizeof question - 1) == sizeof question - 1 &&
           wait_for_text(q, fd, "return");
}

/* Asks QEMU to leave and returns what it had said before, as text. */
static void stop(struct running *q, char *said, size_t size)
{
    size_t len = 0;
    ssize_t n;
    int status;

    kill(q->pid, SIGTERM);
    while (len + 1 < size && (n = read(q->stderr_fd, said + len, size - 1 - len)) > 0)
        len += (size_t)n;
    said[len] = '\0';
    close(q->stderr_fd);
    waitpid(q->pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("QEMU ended with status 0x%x: %s", (unsigned)status, said);
}

/* It must come up, and say nothing but that it was asked to go. */
static void comes_up_quietly(struct running *q, char *const *argv)
{
    gw_autofree char *line = gw_argv_render(argv);
    int watch = inotify_init1(IN_CLOEXEC);
    char said[4096];
    bool up;

    assert_true(inotify_add_watch(watch, q->dir, IN_CREATE | IN_MOVED_TO) >= 0);
    start(q, argv);
    up = wait_for_socket(q, watch) && wait_for_answer(q);
    close(watch);
    stop(q, said, sizeof said);
    if (!up || strstr(said, "warning") ||
        strncmp(said, QEMU ": terminating on signal 15", strlen(QEMU) + 26) != 0)
        fail_msg("%s\nsaid: %s", line, said);
    unlink(q->qmp);
}

static void clean_up(struct running *q)
{
    unlink(q->disk);
    unlink(q->console);
    assert_int_equal(rmdir(q->dir), 0);
}

static void real_qemu_takes_it_without_a_warning(void **state)
{
    static const char *const cpus[] = {"x86-64-v2", "x86-64-v2-AES", "x86-64-v3", "max"};
    struct running q = {0};

    (void)state;
    if (qemu_is_missing())
        skip();
    make_places(&q);
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cpus); i++) {
        struct gw_vm_runtime runtime = {
            .qemu = QEMU, .qmp_path = q.qmp, .incoming = i == 1, .accel = GW_ACCEL_TCG};
        gw_auto(vm_spec) struct gw_vm_spec *spec = NULL;
        struct gw_error e;
        char text[512];
        char **argv;

        snprintf(text, sizeof text,
                 "name: a\nmemory: 64M\ncpu: %s\ndisks: [{file: '%s'}]\n"
                 "console: {log: '%s'}\nqemu_args: [-device, virtio-rng-pci]\n",
                 cpus[i], q.disk, q.console);
        spec = load(text);
        assert_int_equal(gw_argv_build(spec, &runtime, &argv, &e), 0);
        comes_up_quietly(&q, argv);
        gw_argv_free(argv);
    }
    clean_up(&q);
}

/* What somebody else may have typed, through adopt and back to a QEMU. */
static void real_qemu_takes_an_adopted_template(void **state)
{
    struct running q = {0};
    char *typed[] = {(char *)QEMU,
                     (char *)"-name",
                     (char *)"typed",
                     (char *)"--machine",
                     (char *)"q35,accel=tcg,vmport=off",
                     (char *)"-m",
                     (char *)"64",
                     (char *)"-smp",
                     (char *)"2",
                     (char *)"-cpu",
                     (char *)"max",
                     (char *)"-nographic",
                     (char *)"-qmp",
                     (char *)"unix:/nowhere/qmp,server,nowait",
                     (char *)"-drive",
                     (char *)"file=d,,isk,format=raw,if=virtio,cache=none",
                     (char *)"-chardev",
                     (char *)"socket,id=agent,path=/nowhere/agent,server=on,wait=off",
                     (char *)"-device",
                     (char *)"virtio-serial-pci",
                     (char *)"-device",
                     (char *)"virtserialport,chardev=agent",
                     (char *)"-netdev",
                     (char *)"user,id=n0",
                     (char *)"-device",
                     (char *)"virtio-net-pci,netdev=n0",
                     (char *)"-vnc",
                     (char *)":77",
                     (char *)"-pidfile",
                     (char *)"/nowhere/pid",
                     (char *)"-object",
                     (char *)"rng-random,id=r0,filename=/dev/urandom"};
    size_t n = GW_ARRAY_SIZE(typed);
    gw_auto(adopt) struct gw_adopt *adopt = NULL;
    struct gw_vm_runtime runtime = {.qemu = QEMU, .incoming = true, .accel = GW_ACCEL_TCG};
    struct gw_adopt_host host = {0};
    char agent[96];
    char **argv;
    struct gw_error e;

    (void)state;
    if (qemu_is_missing())
        skip();
    make_places(&q);
    host.cwd = q.dir;
    if (gw_adopt_parse(typed, n, NULL, &host, &adopt, &e) < 0 || gw_adopt_verdict(adopt, &e) < 0)
        fail_msg("%s", e.msg);
    runtime.qmp_path = q.qmp;
    runtime.run_dir = q.dir;
    runtime.console_path = q.console;
    assert_int_equal(gw_argv_build(adopt->spec, &runtime, &argv, &e), 0);
    comes_up_quietly(&q, argv);
    gw_argv_free(argv);
    snprintf(agent, sizeof agent, "%s/agent.sock", q.dir);
    unlink(agent);
    clean_up(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_whole_command_line),
        cmocka_unit_test(an_image_in_ceph_is_opened_by_librbd),
        cmocka_unit_test(who_wants_no_balloon_gets_none),
        cmocka_unit_test(all_memory_is_taken_where_that_is_wanted),
        cmocka_unit_test(only_q35_is_made_lean),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(cpu_aliases_keep_further_properties),
        cmocka_unit_test(real_qemu_takes_it_without_a_warning),
        cmocka_unit_test(real_qemu_takes_an_adopted_template),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    return rc == 0 && qemu_is_missing() ? 77 : rc;
}
