/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "host/adopt.h"
#include "host/argv.h"

#define MAX_ARGS 64

/* A host with a tap named vnet0 on br7, which is also fd 24 of the process. */
static int bridge_of(struct gw_adopt_host *host, const char *ifname, char bridge[IFNAMSIZ])
{
    (void)host;
    if (strncmp(ifname, "vnet", 4) != 0)
        return -1;
    snprintf(bridge, IFNAMSIZ, "br7");
    return 0;
}

static int tap_of_fd(struct gw_adopt_host *host, int fd, char ifname[IFNAMSIZ])
{
    (void)host;
    if (fd != 24)
        return -1;
    snprintf(ifname, IFNAMSIZ, "vnet0");
    return 0;
}

static struct gw_adopt_host the_host = {.bridge_of = bridge_of,
                                        .tap_of_fd = tap_of_fd,
                                        .cwd = "/home/joe"};

/* Splits line at spaces; what must hold a space has a "~" there. */
static size_t split(char *line, char **argv)
{
    size_t n = 0;

    argv[n++] = (char *)"qemu-system-x86_64";
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " ")) {
        assert_true(n < MAX_ARGS);
        argv[n++] = word;
        for (; (word = strchr(word, '~')); *word = ' ')
            ;
    }
    return n;
}

static struct gw_adopt *adopt_line(const char *line, const char *name)
{
    gw_autofree char *copy = strdup(line);
    struct gw_adopt *adopt = NULL;
    char *argv[MAX_ARGS];
    struct gw_error e;
    size_t n = split(copy, argv);

    if (gw_adopt_parse(argv, n, name, &the_host, &adopt, &e) < 0)
        fail_msg("%s\n%s", line, e.msg);
    return adopt;
}

static char *join(char *const *argv, size_t n)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    for (size_t i = 0; i < n; i++)
        fprintf(out, "%s%s", i ? " " : "", argv[i]);
    fclose(out);
    return text;
}

#define END " -accel @ACCEL@"
#define PC  " -machine @MACHINE@" END

/* What is written, and what becomes of it. */
static const struct {
    const char *line;
    const char *becomes;
} rewritten[] = {
    {"-nodefaults -S -m 64", "-nodefaults -m 64" PC},
    {"--nodefaults --m 64 -daemonize -pidfile p -D x -d y -trace z", "-nodefaults -m 64" PC},
    {"-machine q35,accel=kvm,vmport=off", "-machine @MACHINE@,vmport=off" END},
    {"-M pc-i440fx-9.2", "-machine @MACHINE@" END},
    {"-machine accel=kvm", &PC[1]},
    {"-machine type=q35 -machine vmport=off", "-machine @MACHINE@ -machine vmport=off" END},
    {"-M q35 -accel kvm,kernel-irqchip=split",
     "-machine @MACHINE@ -accel @ACCEL@,kernel-irqchip=split"},
    {"-M q35 -enable-kvm", "-machine @MACHINE@" END},
    {"-M q35 -accel kvm -accel tcg", "-machine @MACHINE@" END},
    {"-drive file=/srv/a,,b,format=raw", "-drive file=/srv/a,,b,format=raw" PC},
    {"-drive file=x,,y.img,if=virtio", "-drive file=/home/joe/x,,y.img,if=virtio" PC},
    {"-hda d.img -cdrom /iso", "-hda /home/joe/d.img -cdrom /iso" PC},
    {"d.img", "/home/joe/d.img" PC},
    {"-drive if=none,id=cd,media=cdrom", "-drive if=none,id=cd,media=cdrom" PC},
    {"-blockdev driver=raw,node-name=d,file.driver=file,file.filename=img",
     "-blockdev raw,node-name=d,file.driver=file,file.filename=/home/joe/img" PC},
    {"-blockdev {\"driver\":\"file\",\"filename\":\"/a@b\",\"node-name\":\"x\"}",
     "-blockdev {\"driver\":\"file\",\"filename\":\"/a@@b\",\"node-name\":\"x\"}" PC},
    {"-netdev tap,id=n,ifname=vnet3,script=/etc/up,vhost=on",
     "-netdev tap,id=n,ifname=@TAP0@,script=no,vhost=on,downscript=no" PC},
    {"-netdev {\"type\":\"tap\",\"fd\":\"24\",\"vhost\":true,\"vhostfd\":\"26\",\"id\":\"n\"}",
     "-netdev tap,vhost=on,id=n,ifname=@TAP0@,script=no,downscript=no" PC},
    {"-netdev bridge,id=a,br=brX -netdev tap,id=b,helper=/usr/lib/x",
     "-netdev tap,id=a,ifname=@TAP0@,script=no,downscript=no "
     "-netdev tap,id=b,ifname=@TAP1@,script=no,downscript=no" PC},
    {"-net nic,model=e1000 -net tap,ifname=vnet0",
     "-net nic,model=e1000 -net tap,ifname=@TAP0@,script=no,downscript=no" PC},
    {"-nic tap,ifname=vnet0,model=e1000",
     "-nic tap,ifname=@TAP0@,model=e1000,script=no,downscript=no" PC},
    {"-netdev user,id=u,hostfwd=tcp::2222-:22", "-netdev user,id=u,hostfwd=tcp::2222-:22" PC},
    {"-qmp unix:/q,server -monitor stdio -mon chardev=m -chardev socket,id=m,path=/m,server=on",
     "-chardev null,id=m" PC},
    {"-serial file:/var/log/c", "-chardev file,path=/var/log/c,id=gwchar0,append=on "
                                "-serial chardev:gwchar0" PC},
    {"-serial mon:stdio", "-chardev file,id=gwchar0,path=@CONSOLE@,append=on "
                          "-serial chardev:gwchar0" PC},
    {"-serial unix:/s,server,nowait",
     "-chardev socket,path=@RUNDIR@/gwchar0.sock,server,id=gwchar0,wait=off "
     "-serial chardev:gwchar0" PC},
    {"-serial telnet:localhost:4444,server=on,wait=on",
     "-chardev socket,server=on,host=localhost,port=4444,telnet=on,id=gwchar0,wait=off "
     "-serial chardev:gwchar0" PC},
    {"-serial null -parallel none -serial chardev:x",
     "-serial null -parallel none -serial chardev:x" PC},
    {"-chardev socket,id=a,path=/x,server=on,wait=on",
     "-chardev socket,id=a,path=@RUNDIR@/a.sock,server=on,wait=off" PC},
    {"-chardev file,id=a,path=log,logfile=l2",
     "-chardev file,id=a,path=/home/joe/log,logfile=/home/joe/l2,append=on,logappend=on" PC},
    {"-chardev spicevmc,id=v,name=vdagent -spice port=1 -vnc :1 -display gtk",
     "-chardev null,id=v" PC},
    {"-nographic", "-nographic -chardev file,id=gwserial,path=@CONSOLE@,append=on "
                   "-serial chardev:gwserial" PC},
    {"-nographic -nodefaults", "-nographic -nodefaults" PC},
    {"-kernel k -append me@home", "-kernel /home/joe/k -append me@@home" PC},
    {"-audiodev pa,id=s,server=/x -device intel-hda", "-audiodev none,id=s -device intel-hda" PC},
    {"-incoming tcp:0:4444 -uuid 11111111-2222-4333-8444-555555555555",
     "-uuid 11111111-2222-4333-8444-555555555555" PC},
    {"-object memory-backend-file,id=m,mem-path=/dev/hugepages,share=on,size=64M",
     "-object memory-backend-file,id=m,mem-path=/dev/hugepages,share=on,size=64M" PC},
    {"-object iothread,id=t -device virtio-balloon-pci,id=b,free-page-hint=on,iothread=t",
     "-object iothread,id=t -device virtio-balloon-pci,id=b,free-page-hint=on,iothread=t" PC},
    {"-bios OVMF.fd -boot order=c", "-bios OVMF.fd -boot order=c" PC},
};

static void options_are_rewritten(void **state)
{
    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(rewritten); i++) {
        gw_auto(adopt) struct gw_adopt *adopt = adopt_line(rewritten[i].line, "vm");
        struct gw_vm_spec *spec = adopt->spec;
        gw_autofree char *got = join(spec->adopted_argv, spec->n_adopted_argv);
        const char *expected = rewritten[i].becomes + (rewritten[i].becomes[0] == ' ');
        struct gw_error e;

        if (adopt->n_refused || strcmp(got, expected) != 0)
            fail_msg("%s\nexpected: %s\ngot:      %s\nrefused:  %s", rewritten[i].line, expected,
                     got, adopt->n_refused ? adopt->notes[adopt->n_notes - 1].why : "nothing");
        if (gw_adopt_check_template(spec->adopted_argv, spec->n_adopted_argv, spec->n_nics, &e) < 0)
            fail_msg("%s\nas a template: %s", got, e.msg);
    }
}

/* What is written, and which option is refused for it. */
static const struct {
    const char *line;
    const char *option;
} refused[] = {
    {"-made-up 1", "-made-up"},
    {"-", "-"},
    {"-m", "-m"},
    {"-m 1.5G", "-m"},
    {"-smp 1024", "-smp"},
    {"-device vfio-pci,host=01:00.0", "-device vfio-pci"},
    {"-device {\"driver\":\"vfio-pci\",\"host\":\"01:00.0\"}", "-device vfio-pci"},
    {"-device {\"driver\":", "-device"},
    {"-device usb-host,vendorid=1", "-device usb-host"},
    {"-device vhost-user-fs-pci,chardev=c", "-device vhost-user-fs-pci"},
    {"-device virtio-9p-pci,fsdev=f", "-device virtio-9p-pci"},
    {"-device loader,file=/x", "-device"},
    {"-device e1000,romfile=a/b", "-device"},
    {"-virtfs local,path=/x", "-virtfs"},
    {"-fsdev local,id=x,path=/x", "-fsdev"},
    {"-add-fd fd=3,set=1", "-add-fd"},
    {"-readconfig f", "-readconfig"},
    {"-snapshot", "-snapshot"},
    {"-loadvm s", "-loadvm"},
    {"-mem-path /x", "-mem-path"},
    {"-tpmdev passthrough,id=t", "-tpmdev"},
    {"-plugin x.so", "-plugin"},
    {"-accel hvf", "-accel"},
    {"-accel xen", "-accel"},
    {"-accel kvm -accel tcg,thread=multi", "-accel"},
    {"-machine q35,confidential-guest-support=sev0", "-machine"},
    {"-object sev-guest,id=s", "-object sev-guest"},
    {"-object secret,id=s,file=/x", "-object secret"},
    {"-object memory-backend-file,id=m,mem-path=/srv/x,share=on,size=64M",
     "-object memory-backend-file"},
    {"-drive if=none,id=d", "-drive"},
    {"-drive file=fat:/dir", "-drive"},
    {"-drive file=json:{}", "-drive"},
    {"-drive file=/x,snapshot=on", "-drive"},
    {"-drive file=/dev/fdset/1", "-drive"},
    {"-drive file=nbd:unix:/x", "-drive"},
    {"-blockdev driver=nvme,node-name=n,device=01:00.0", "-blockdev"},
    {"-blockdev driver=nbd,node-name=n,server.type=unix", "-blockdev"},
    {"-netdev tap,id=n,fds=3:4", "-netdev tap"},
    {"-netdev tap,id=n,fd=99", "-netdev tap"},
    {"-netdev tap,id=n", "-netdev tap"},
    {"-netdev tap,id=n,ifname=other0", "-netdev tap"},
    {"-netdev tap,id=n,ifname=vnet0,queues=4", "-netdev tap"},
    {"-netdev vhost-user,id=n,chardev=c", "-netdev vhost-user"},
    {"-netdev socket,id=n,listen=:1", "-netdev socket"},
    {"-netdev user,id=n,smb=/x", "-netdev user"},
    {"-chardev socket,id=c,path=/x", "-chardev socket"},
    {"-chardev socket,id=c,host=10.0.0.1,port=1,server=on", "-chardev socket"},
    {"-chardev socket,id=c,fd=3,server=on", "-chardev socket"},
    {"-chardev pipe,id=c,path=/x", "-chardev pipe"},
    {"-chardev serial,id=c,path=/dev/ttyS0", "-chardev serial"},
    {"-chardev file,path=/x", "-chardev file"},
    {"-serial /dev/ttyS0", "-serial"},
    {"-serial udp:1.2.3.4:5", "-serial"},
    {"-daemonize -hda d.img", "-hda"},
    {"-hda d.img -daemonize", "-hda"},
    {"-icount shift=1,rr=record,rrfile=x", "-icount"},
    {"-run-with chroot=/x", "-run-with"},
    {"-fw_cfg name=opt/x,file=rel", "-fw_cfg"},
};

static void what_cannot_follow_is_refused_by_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(refused); i++) {
        gw_auto(adopt) struct gw_adopt *adopt = adopt_line(refused[i].line, "vm");
        struct gw_error e;
        bool found = false;

        for (size_t j = 0; j < adopt->n_notes; j++)
            found |=
                adopt->notes[j].refused && strcmp(adopt->notes[j].option, refused[i].option) == 0;
        if (!found || adopt->n_refused != 1)
            fail_msg("%s: %zu refusals, the first note is %s", refused[i].line, adopt->n_refused,
                     adopt->n_notes ? adopt->notes[0].option : "missing");
        assert_int_equal(gw_adopt_verdict(adopt, &e), -1);
        assert_int_equal(e.code, GW_E_INCOMPATIBLE);
    }
}

static void all_refusals_are_listed(void **state)
{
    gw_auto(adopt) struct gw_adopt *adopt =
        adopt_line("-virtfs x -device vfio-pci -wtf -snapshot -m 64", "vm");
    struct gw_error e;

    (void)state;
    assert_int_equal(adopt->n_refused, 4);
    assert_int_equal(gw_adopt_verdict(adopt, &e), -1);
    assert_string_equal(e.msg,
                        "vm: 4 of its options cannot be carried over: "
                        "-virtfs (a directory of this host is shared with the guest); "
                        "-device vfio-pci (a device of this host); -wtf (unknown to Godwit); "
                        "-snapshot (writes go to temporary files of this host)");
}

static void the_spec_is_extracted(void **state)
{
    gw_auto(adopt) struct gw_adopt *adopt = adopt_line(
        "-name guest=db,debug-threads=on -uuid 11111111-2222-4333-8444-55555555555A "
        "-M pc-q35-9.2,accel=kvm -cpu Skylake-Client,-hle -m size=2g,slots=2,maxmem=8g "
        "-smp sockets=2,cores=3 -device virtio-net-pci,netdev=n1,mac=52:54:00:AA:00:01 "
        "-netdev tap,id=n0,fd=24 -netdev tap,id=n1,ifname=vnet1 "
        "-drive file=/srv/d.qcow2,format=qcow2,if=none,id=d -drive file=/iso,media=cdrom "
        "-drive file=/srv/d.qcow2,format=qcow2,if=none,id=e "
        "-blockdev driver=rbd,node-name=r,pool=p,namespace=q,image=i "
        "-drive file=rbd:pool/img:conf=/etc/ceph.conf,format=raw -serial file:/log",
        NULL);
    struct gw_vm_spec *spec = adopt->spec;

    (void)state;
    assert_int_equal(adopt->n_refused, 0);
    assert_string_equal(spec->name, "db");
    assert_string_equal(spec->uuid, "11111111-2222-4333-8444-55555555555a");
    assert_string_equal(spec->machine, "pc-q35-9.2");
    assert_int_equal(spec->accel, GW_ACCEL_KVM);
    assert_string_equal(spec->cpu, "Skylake-Client,-hle");
    assert_int_equal(spec->memory_bytes, 2ull << 30);
    assert_int_equal(spec->cpus, 6);
    assert_int_equal(spec->n_nics, 2);
    assert_string_equal(spec->nics[0].bridge, "br7");
    assert_null(spec->nics[0].mac);
    assert_string_equal(spec->nics[1].mac, "52:54:00:aa:00:01");
    assert_int_equal(spec->n_disks, 4);
    assert_string_equal(spec->disks[0].file, "/srv/d.qcow2");
    assert_string_equal(spec->disks[0].format, "qcow2");
    assert_false(spec->disks[0].readonly);
    assert_true(spec->disks[1].readonly);
    assert_string_equal(spec->disks[2].rbd, "p/q/i");
    assert_string_equal(spec->disks[3].rbd, "pool/img");
    assert_string_equal(spec->console.log, "/log");
}

static void defaults_are_those_of_qemu(void **state)
{
    gw_auto(adopt) struct gw_adopt *adopt = adopt_line("-nodefaults", "vm");
    gw_auto(adopt) struct gw_adopt *list = adopt_line("-M accel=kvm:tcg", "vm");

    (void)state;
    assert_string_equal(adopt->spec->machine, "pc");
    assert_string_equal(adopt->spec->cpu, "qemu64");
    assert_int_equal(adopt->spec->memory_bytes, 128u << 20);
    assert_int_equal(adopt->spec->cpus, 1);
    assert_int_equal(adopt->spec->accel, GW_ACCEL_TCG);
    assert_int_equal(list->spec->accel, GW_ACCEL_AUTO);
}

static void nameless_and_binary_command_lines_are_errors(void **state)
{
    char *nameless[] = {(char *)"qemu", (char *)"-m", (char *)"64"};
    char *binary[] = {(char *)"qemu", (char *)"-name", (char *)"\xff"};
    char *control[] = {(char *)"qemu", (char *)"-append", (char *)"a\nb"};
    struct gw_adopt *adopt = NULL;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_adopt_parse(nameless, 3, NULL, &the_host, &adopt, &e), -1);
    assert_int_equal(gw_adopt_parse(binary, 3, "vm", &the_host, &adopt, &e), -1);
    assert_int_equal(gw_adopt_parse(control, 3, "vm", &the_host, &adopt, &e), -1);
    assert_int_equal(gw_adopt_parse(nameless, 0, "vm", &the_host, &adopt, &e), -1);
    assert_null(adopt);
}

/* It keeps the balloon that it has, and gets none of ours. */
static void the_balloon_is_its_own_business(void **state)
{
    static const char *const lines[] = {"-device virtio-balloon", "-m 64"};

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(lines); i++) {
        gw_auto(adopt) struct gw_adopt *adopt = adopt_line(lines[i], "vm");

        assert_int_equal(adopt->n_refused, 0);
        assert_int_equal(adopt->spec->balloon, GW_BALLOON_NONE);
    }
}

static void an_adopted_spec_survives_json_and_builds(void **state)
{
    gw_auto(adopt) struct gw_adopt *adopt = adopt_line(
        "-nodefaults -M q35 -m 64 -netdev tap,id=n,ifname=vnet0 -serial stdio -append me@home "
        "-kernel /k -chardev socket,id=a,path=/x,server=on",
        "vm");
    gw_auto(vm_spec) struct gw_vm_spec *spec = NULL;
    json_t *json = gw_vm_spec_to_json(adopt->spec);
    const struct gw_vm_runtime runtime = {.qemu = "qemu",
                                          .qmp_path = "/run/vm/qmp",
                                          .run_dir = "/run/v,m",
                                          .taps = (const char *[]){"gw7"},
                                          .n_taps = 1,
                                          .accel = GW_ACCEL_TCG,
                                          .incoming = true};
    gw_autofree char *line = NULL;
    struct gw_error e;
    char **argv;

    (void)state;
    if (gw_vm_spec_from_json(json, &spec, &e) < 0)
        fail_msg("%s", e.msg);
    json_decref(json);
    assert_int_equal(gw_vm_spec_resolve(spec, &e), 0);
    assert_int_equal(gw_vm_spec_set_machine(spec, "pc-q35-10.0", &e), 0);
    assert_int_equal(gw_argv_build(spec, &runtime, &argv, &e), 0);
    line = gw_argv_render(argv);
    gw_argv_free(argv);
    assert_string_equal(line,
                        "qemu -nodefaults -machine pc-q35-10.0 -m 64 "
                        "-netdev tap,id=n,ifname=gw7,script=no,downscript=no "
                        "-chardev file,id=gwchar0,path=/dev/null,append=on -serial chardev:gwchar0 "
                        "-append me@home -kernel /k "
                        "-chardev socket,id=a,path=/run/v,,m/a.sock,server=on,wait=off "
                        "-accel tcg -display none "
                        "-chardev socket,id=gwqmp,path=/run/vm/qmp,server=on,wait=off "
                        "-mon chardev=gwqmp,mode=control -S -incoming defer");
}

/* Templates as only a hostile peer would write them. */
static void hostile_templates_are_refused(void **state)
{
    static const struct {
        const char *line;
        size_t n_taps;
    } cases[] = {
        {"-nodefaults", 0}, /* no machine, no accelerator */
        {"-machine q35 -accel @ACCEL@", 0},
        {"-machine @MACHINE@ -accel kvm", 0},
        {"-machine @MACHINE@ -accel @ACCEL@ -S", 0},
        {"-machine @MACHINE@ -accel @ACCEL@ -incoming exec:sh", 0},
        {"-netdev tap,id=n,ifname=eth0,script=no,downscript=no -machine @MACHINE@ -accel @ACCEL@",
         0},
        {"-netdev tap,id=n,ifname=@TAP0@,script=/x,downscript=no -machine @MACHINE@ -accel @ACCEL@",
         1},
        {"-netdev tap,id=n,ifname=@TAP1@,script=no,downscript=no -machine @MACHINE@ -accel @ACCEL@",
         2},
        {"-netdev tap,id=n,ifname=@TAP0@,script=no,downscript=no -machine @MACHINE@ -accel @ACCEL@",
         0},
        {"-machine @MACHINE@ -accel @ACCEL@", 1},
        {"-chardev pipe,id=x,path=/x -machine @MACHINE@ -accel @ACCEL@", 0},
        {"-chardev socket,id=x,path=/x,server=on,wait=off -machine @MACHINE@ -accel @ACCEL@", 0},
        {"-append @FOO@ -machine @MACHINE@ -accel @ACCEL@", 0},
        {"-append a@b -machine @MACHINE@ -accel @ACCEL@", 0},
        {"-hda rel -machine @MACHINE@ -accel @ACCEL@", 0},
        {"-machine @MACHINE@ -accel", 0},
    };

    (void)state;
    for (unsigned i = 0; i < GW_ARRAY_SIZE(cases); i++) {
        gw_autofree char *copy = strdup(cases[i].line);
        char *argv[MAX_ARGS];
        size_t n = split(copy, argv);
        struct gw_error e;

        if (gw_adopt_check_template(argv + 1, n - 1, cases[i].n_taps, &e) == 0)
            fail_msg("accepted: %s", cases[i].line);
    }
}

static void hot_plugged_devices_are_named(void **state)
{
    gw_auto(adopt) struct gw_adopt *adopt =
        adopt_line("-device virtio-rng-pci,id=rng0 -device {\"driver\":\"e1000\",\"id\":\"n0\"} "
                   "-device usb-tablet",
                   "vm");
    static const char *const same[] = {"type", "rng0", "n0"};
    static const char *const other[] = {"rng0", "disk9", "x"};
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_adopt_check_devices(adopt->spec, same, 3, &e), 0);
    assert_int_equal(gw_adopt_check_devices(adopt->spec, other, 3, &e), -1);
    assert_string_equal(e.msg, "VM vm: its devices are not those of its command line: plugged in "
                               "since: disk9, x; unplugged since: n0");
    assert_int_equal(gw_adopt_check_devices(adopt->spec, other, 1, &e), -1);
}

static void this_process_is_no_qemu(void **state)
{
    struct gw_adopt *adopt = NULL;
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_adopt_read(getpid(), "vm", &adopt, &e), -1);
    assert_int_equal(e.code, GW_E_INCOMPATIBLE);
    assert_non_null(strstr(e.msg, "test_adopt"));
    assert_int_equal(gw_adopt_read(0x7ffffffe, "vm", &adopt, &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    assert_null(adopt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_rewritten),
        cmocka_unit_test(what_cannot_follow_is_refused_by_name),
        cmocka_unit_test(all_refusals_are_listed),
        cmocka_unit_test(the_spec_is_extracted),
        cmocka_unit_test(defaults_are_those_of_qemu),
        cmocka_unit_test(nameless_and_binary_command_lines_are_errors),
        cmocka_unit_test(the_balloon_is_its_own_business),
        cmocka_unit_test(an_adopted_spec_survives_json_and_builds),
        cmocka_unit_test(hostile_templates_are_refused),
        cmocka_unit_test(hot_plugged_devices_are_named),
        cmocka_unit_test(this_process_is_no_qemu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
