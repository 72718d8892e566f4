/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "host/accel.h"
#include "util/cleanup.h"

/* accel_payload.S */
extern const char gw_accel_payload[], gw_accel_payload_end[];

enum {
    STATUS_PASS = 2 * 0x2a + 1, /* isa-debug-exit's */
    ROM_BYTES = 65536,          /* the least that -bios takes */
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void file_in(const struct gw_accel_trial *trial, const char *name, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/%s", trial->dir, name);
}

/* 0, or 1 with the verdict. */
static int look_at_kvm(struct gw_accel_trial *trial)
{
    gw_autoclose int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int version;

    trial->usable = false;
    if (fd < 0) {
        snprintf(trial->why, sizeof trial->why, "open /dev/kvm: %s", strerror(errno));
        return 1;
    }
    version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version == KVM_API_VERSION)
        return 0;
    snprintf(trial->why, sizeof trial->why, "/dev/kvm speaks version %d of its interface, not %d",
             version, KVM_API_VERSION);
    return 1;
}

/* The payload at the end of the image, which ends at 4 GiB. */
static int write_rom(const char *path, struct gw_error *e)
{
    size_t n = (size_t)(gw_accel_payload_end - gw_accel_payload);
    gw_autoclose int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t written;

    if (fd < 0)
        return gw_error_set_sys(e, errno, "create %s", path);
    written = pwrite(fd, gw_accel_payload, n, (off_t)(ROM_BYTES - n));
    if (written != (ssize_t)n)
        return gw_error_set_sys(e, written < 0 ? errno : ENOSPC, "write %s", path);
    return 0;
}

int gw_accel_trial_start(const char *qemu, const char *accel, const char *dir,
                         struct gw_accel_trial *trial, struct gw_error *e)
{
    char rom[PATH_MAX], log[PATH_MAX], stages[PATH_MAX], console[PATH_MAX + 8];

    *trial = GW_ACCEL_TRIAL_NONE;
    snprintf(trial->accel, sizeof trial->accel, "%s", accel);
    if (strcmp(accel, "kvm") == 0 && look_at_kvm(trial) == 1)
        return 1;

    /* QEMU takes a comma in -debugcon's file name for the next option. */
    if (strlen(dir) + sizeof "/accel-XXXXXX" > sizeof trial->dir || strchr(dir, ','))
        return gw_error_set(e, GW_E_CONFIG, "the directory %s is too long or has a comma", dir);
    snprintf(trial->dir, sizeof trial->dir, "%s/accel-XXXXXX", dir);
    if (!mkdtemp(trial->dir)) {
        trial->dir[0] = '\0';
        return gw_error_set_sys(e, errno, "make a directory under %s", dir);
    }
    file_in(trial, "rom", rom);
    file_in(trial, "log", log);
    file_in(trial, "stages", stages);
    snprintf(console, sizeof console, "file:%s", stages);
    if (write_rom(rom, e) < 0) {
        gw_accel_trial_fini(trial);
        return -1;
    }

    const char *argv[] = {
        qemu,
        "-accel",
        accel,
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-m",
        "16",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-bios",
        rom,
        "-debugcon",
        console,
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=1",
        NULL,
    };
    trial->started_ns = now_ns();
    if (gw_process_start((char *const *)argv, log, &trial->process, e) < 0) {
        gw_accel_trial_fini(trial);
        return gw_error_prefix(e, "try %s", accel);
    }
    return 0;
}

/* What the guest was at, from the last letter that it wrote. */
static const char *stage_reached(const struct gw_accel_trial *trial)
{
    char path[PATH_MAX], letters[16];
    gw_autoclose int fd = -1;
    ssize_t got = 0;

    file_in(trial, "stages", path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        got = read(fd, letters, sizeof letters);
    switch (got > 0 ? letters[got - 1] : 0) {
    case 'L': return "running supervisor code";
    case 'C': return "taking page faults";
    case 'P': return "waiting for timer interrupts";
    case 'T': return "leaving";
    }
    return "entering long mode";
}

static void judge_exit(struct gw_accel_trial *trial, const struct gw_process_exit *ex)
{
    unsigned ms = (unsigned)((now_ns() - trial->started_ns) / 1000000);
    char log[PATH_MAX], how[64], tail[120];

    trial->usable = ex->known && !ex->signaled && ex->value == STATUS_PASS;
    if (trial->usable) {
        snprintf(trial->why, sizeof trial->why, "a trial guest passed after %u ms", ms);
        return;
    }
    file_in(trial, "log", log);
    gw_process_exit_text(ex, how, sizeof how);
    gw_process_log_tail(log, 0, tail, sizeof tail);
    snprintf(trial->why, sizeof trial->why, "QEMU %s while a trial guest was %s%s%s", how,
             stage_reached(trial), tail[0] ? ": " : "", tail);
}

/* True if it has used up its time, and says so in why. */
static bool too_slow(struct gw_accel_trial *trial)
{
    uint64_t cpu_ns = 0, ns = now_ns() - trial->started_ns;

    gw_process_cpu_time(&trial->process, &cpu_ns);
    if (cpu_ns < GW_ACCEL_TRIAL_CPU_LIMIT_MS * UINT64_C(1000000) &&
        ns < GW_ACCEL_TRIAL_LIMIT_MS * UINT64_C(1000000))
        return false;
    snprintf(trial->why, sizeof trial->why,
             "a trial guest was still %s after %.1f s of processor time (%.1f s in all); "
             "less than 0.1 s is usual",
             stage_reached(trial), (double)cpu_ns / 1e9, (double)ns / 1e9);
    trial->usable = false;
    return true;
}

int gw_accel_trial_check(struct gw_accel_trial *trial)
{
    struct gw_process_exit ex;

    /* Ended in between, or collected by somebody else: then nothing is known about its end. */
    if (gw_process_reap(&trial->process, &ex) != 1)
        judge_exit(trial, &ex);
    else if (!too_slow(trial))
        return 1;
    gw_accel_trial_fini(trial);
    return 0;
}

static void remove_files(struct gw_accel_trial *trial)
{
    static const char *const names[] = {"rom", "log", "stages"};
    char path[PATH_MAX];

    if (trial->dir[0] == '\0')
        return;
    for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++) {
        file_in(trial, names[i], path);
        unlink(path);
    }
    rmdir(trial->dir);
    trial->dir[0] = '\0';
}

void gw_accel_trial_fini(struct gw_accel_trial *trial)
{
    struct gw_process_exit ex;

    if (gw_process_signal(&trial->process, SIGKILL) == 0) {
        poll(&(struct pollfd){.fd = trial->process.pidfd, .events = POLLIN}, 1, 2000);
        gw_process_reap(&trial->process, &ex);
    }
    gw_process_fini(&trial->process);
    remove_files(trial);
}
