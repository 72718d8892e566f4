/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/process.h"
#include "util/cleanup.h"

/* glibc 2.36 has wrappers for these; older ones do not. */
static int open_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static int signal_pidfd(int pidfd, int sig)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}

/* The numbers of /proc/PID/stat after the name; the name may hold spaces and parentheses. */
enum { STAT_UTIME = 14, STAT_STIME = 15, STAT_START_TIME = 22, STAT_MAX = 24 };

static int read_stat(pid_t pid, uint64_t values[STAT_MAX])
{
    char path[64], text[1024];
    gw_autoclose int fd = -1;
    char *at, *save = NULL;
    ssize_t got;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    got = read(fd, text, sizeof text - 1);
    if (got < 0)
        return -errno;
    text[got] = '\0';
    at = strrchr(text, ')');
    if (!at)
        return -EBADMSG;
    memset(values, 0, STAT_MAX * sizeof *values);
    at = strtok_r(at + 1, " ", &save);
    for (int field = 3; at && field < STAT_MAX; field++) {
        values[field] = strtoull(at, NULL, 10);
        at = strtok_r(NULL, " ", &save);
    }
    return values[STAT_START_TIME] ? 0 : -EBADMSG;
}

/*
 * In the child: descriptors 0-2 are set, 3 is the pipe that reports a failed exec, and all others
 * are closed. The copies come first, because any of the three may be one of 0-3 already.
 */
static int arrange_fds(int input_fd, int log_fd, int report_fd)
{
    input_fd = fcntl(input_fd, F_DUPFD_CLOEXEC, 4);
    log_fd = fcntl(log_fd, F_DUPFD_CLOEXEC, 4);
    report_fd = fcntl(report_fd, F_DUPFD_CLOEXEC, 4);
    if (input_fd < 0 || log_fd < 0 || report_fd < 0)
        return -1;
    if (dup2(input_fd, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0)
        return -1;
    if (dup3(report_fd, 3, O_CLOEXEC) < 0)
        return -1;
    return (int)syscall(SYS_close_range, 4u, ~0u, 0u);
}

static void reset_signals(void)
{
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        signal(sig, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Only async-signal-safe calls: the daemon may have threads. */
static _Noreturn void run_child(char *const argv[], int input_fd, int log_fd, int report_fd)
{
    int error;

    if (setsid() >= 0 && arrange_fds(input_fd, log_fd, report_fd) >= 0) {
        report_fd = 3;
        reset_signals();
        execvp(argv[0], argv);
    }
    error = errno;
    while (write(report_fd, &error, sizeof error) < 0 && errno == EINTR)
        ;
    _exit(127);
}

/* The errno that the child reports, or 0 when the pipe closes because exec succeeded. */
static int read_report(int fd)
{
    ssize_t got;
    int error;

    do
        got = read(fd, &error, sizeof error);
    while (got < 0 && errno == EINTR);
    return got == sizeof error ? error : 0;
}

static int open_log(const char *path, uint64_t *offsetp, struct gw_error *e)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    struct stat st;

    if (fd < 0)
        return gw_error_set_sys(e, errno, "open %s for the output", path);
    *offsetp = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    return fd;
}

/* A child that never became the program, or that nobody can hold. */
static void discard_child(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* The child cannot be reaped by anybody else before this returns, so its pid is its own. */
static int hold_child(pid_t pid, struct gw_process *p)
{
    uint64_t stat[STAT_MAX];
    int r;

    p->pidfd = open_pidfd(pid);
    if (p->pidfd < 0)
        return -errno;
    r = read_stat(pid, stat);
    if (r < 0) {
        gw_process_fini(p);
        return r;
    }
    p->pid = pid;
    p->start_time = stat[STAT_START_TIME];
    return 0;
}

int gw_process_start_reading(char *const argv[], int input_fd, const char *log_path,
                             struct gw_process *p, struct gw_error *e)
{
    gw_autoclose int log_fd = -1, report_read = -1, report_write = -1;
    sigset_t all, old;
    uint64_t offset = 0;
    int report[2], r;
    pid_t pid;

    *p = GW_PROCESS_NONE;
    log_fd = open_log(log_path, &offset, e);
    if (log_fd < 0)
        return -1;
    if (pipe2(report, O_CLOEXEC) < 0)
        return gw_error_set_sys(e, errno, "make a pipe");
    report_read = report[0];
    report_write = report[1];

    /* Blocked until the child has reset its handlers: none of ours may run in it. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    pid = fork();
    if (pid == 0)
        run_child(argv, input_fd, log_fd, report_write);
    r = -errno;
    sigprocmask(SIG_SETMASK, &old, NULL);
    if (pid < 0)
        return gw_error_set_sys(e, -r, "start %s: fork", argv[0]);

    close(gw_steal_fd(&report_write));
    r = -read_report(report_read);
    if (r == 0)
        r = hold_child(pid, p);
    if (r < 0) {
        discard_child(pid);
        gw_error_set_sys(e, -r, "start %s", argv[0]);
        if (r == -ENOENT || r == -EACCES)
            gw_error_hint(e, "is it installed, and may this user execute it?");
        return -1;
    }
    p->log_offset = offset;
    return 0;
}

int gw_process_start(char *const argv[], const char *log_path, struct gw_process *p,
                     struct gw_error *e)
{
    gw_autoclose int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    *p = GW_PROCESS_NONE;
    if (null_fd < 0)
        return gw_error_set_sys(e, errno, "open /dev/null");
    return gw_process_start_reading(argv, null_fd, log_path, p, e);
}

int gw_process_attach(pid_t pid, uint64_t start_time, struct gw_process *p, struct gw_error *e)
{
    gw_autoclose int pidfd = -1;
    uint64_t stat[STAT_MAX];
    int r;

    *p = GW_PROCESS_NONE;
    if (pid <= 0)
        return gw_error_set(e, GW_E_USAGE, "%d is no process id", (int)pid);
    pidfd = open_pidfd(pid);
    if (pidfd < 0 && (errno == ESRCH || errno == EINVAL))
        return gw_error_set(e, GW_E_NOT_FOUND, "process %d does not exist", (int)pid);
    if (pidfd < 0)
        return gw_error_set_sys(e, errno, "take hold of process %d", (int)pid);
    r = read_stat(pid, stat);

    /* Alive after the reading, so what was read was about the process that the pidfd names. */
    if (!gw_process_alive(&(struct gw_process){.pid = pid, .pidfd = pidfd}))
        return gw_error_set(e, GW_E_NOT_FOUND, "process %d has ended", (int)pid);
    if (r < 0)
        return gw_error_set_sys(e, -r, "read /proc/%d/stat", (int)pid);
    if (start_time && start_time != stat[STAT_START_TIME])
        return gw_error_set(e, GW_E_NOT_FOUND,
                            "process %d is another one now: it started at tick %" PRIu64
                            ", not %" PRIu64,
                            (int)pid, stat[STAT_START_TIME], start_time);
    p->pid = pid;
    p->start_time = stat[STAT_START_TIME];
    p->pidfd = gw_steal_fd(&pidfd);
    return 0;
}

void gw_process_fini(struct gw_process *p)
{
    if (p->pidfd >= 0)
        close(p->pidfd);
    *p = GW_PROCESS_NONE;
}

int gw_process_signal(const struct gw_process *p, int sig)
{
    if (p->pidfd < 0)
        return -ESRCH;
    return signal_pidfd(p->pidfd, sig) < 0 ? -errno : 0;
}

static void step_back_session(int proc_fd)
{
    static const char nice[] = "19";
    gw_autoclose int fd = openat(proc_fd, "autogroup", O_WRONLY | O_CLOEXEC);

    if (fd >= 0 && write(fd, nice, sizeof nice - 1) < 0)
        return; /* a kernel without it, or a session that is not ours to change */
}

void gw_process_step_back(const struct gw_process *p)
{
    char path[32];
    gw_autoclose int proc_fd = -1;
    struct dirent *entry;
    int task_fd;
    DIR *tasks;

    snprintf(path, sizeof path, "/proc/%d", (int)p->pid);
    proc_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    task_fd = proc_fd < 0 ? -1 : openat(proc_fd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tasks = task_fd < 0 ? NULL : fdopendir(task_fd);
    if (!tasks) {
        gw_cleanup_close(&task_fd);
        return;
    }
    if (gw_process_alive(p)) { /* so the directory is its own, not a stranger's */
        while ((entry = readdir(tasks)) != NULL)
            if (entry->d_name[0] != '.')
                setpriority(PRIO_PROCESS, (id_t)strtoul(entry->d_name, NULL, 10), 19);
        step_back_session(proc_fd);
    }
    closedir(tasks);
}

bool gw_process_alive(const struct gw_process *p)
{
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

    return p->pidfd >= 0 && poll(&pfd, 1, 0) == 0;
}

int gw_process_reap(const struct gw_process *p, struct gw_process_exit *ex)
{
    siginfo_t info = {0};

    *ex = (struct gw_process_exit){0};
    if (p->pidfd < 0)
        return -ESRCH;
    if (waitid(P_PIDFD, (id_t)p->pidfd, &info, WEXITED | WNOHANG) < 0) {
        if (errno != ECHILD)
            return -errno;
        return gw_process_alive(p) ? 1 : 0;
    }
    if (info.si_pid == 0)
        return 1;
    ex->known = true;
    ex->signaled = info.si_code != CLD_EXITED;
    ex->value = info.si_status;
    return 0;
}

void gw_process_exit_text(const struct gw_process_exit *ex, char *out, size_t size)
{
    const char *name;

    if (!ex->known) {
        snprintf(out, size, "ended");
        return;
    }
    if (!ex->signaled) {
        snprintf(out, size, "exited with status %d", ex->value);
        return;
    }
    name = sigabbrev_np(ex->value);
    if (name)
        snprintf(out, size, "was killed by SIG%s", name);
    else
        snprintf(out, size, "was killed by signal %d", ex->value);
}

/* Length of the UTF-8 sequence at s (n bytes left), 0 if there is no valid one. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    size_t length = 0;

    if (s[0] < 0x80)
        length = 1;
    else if (s[0] >= 0xc2 && s[0] < 0xf5)
        length = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (length == 0 || length > n)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    /* The C1 controls are control characters too. */
    return length == 2 && s[0] == 0xc2 && s[1] < 0xa0 ? 0 : length;
}

/* Length of the terminal escape sequence at s, which begins with ESC. */
static size_t escape_length(const unsigned char *s, size_t n)
{
    size_t i = 2;

    if (n < 2 || s[1] != '[')
        return 1;
    while (i < n && s[i] >= 0x20 && s[i] <= 0x3f)
        i++;
    return i < n && s[i] >= 0x40 && s[i] <= 0x7e ? i + 1 : i;
}

/* Cleans in place: afterwards the n bytes are valid UTF-8 with '\n' as the only control
 * character. Returns the new length, which is never larger. */
static size_t clean(unsigned char *s, size_t n)
{
    size_t to = 0;

    for (size_t i = 0; i < n;) {
        size_t length;

        if (s[i] == 0x1b) {
            i += escape_length(s + i, n - i);
            continue;
        }
        length = utf8_length(s + i, n - i);
        if (length == 0 || s[i] == 0x7f || (s[i] < 0x20 && s[i] != '\n' && s[i] != '\r')) {
            s[to++] = s[i] == '\t' ? ' ' : '?';
            i++;
        } else if (s[i] == '\r') {
            i++;
        } else {
            memmove(s + to, s + i, length);
            to += length;
            i += length;
        }
    }
    return to;
}

/* Reads up to size bytes of the end of the file, beginning with a whole line where one fits. */
static size_t read_end(const char *path, uint64_t from, char *out, size_t size)
{
    gw_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;
    ssize_t got;
    char *line;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size <= from)
        return 0;
    if ((uint64_t)st.st_size - from <= size) {
        got = pread(fd, out, size, (off_t)from);
        return got > 0 ? (size_t)got : 0;
    }
    got = pread(fd, out, size, st.st_size - (off_t)size);
    if (got <= 0)
        return 0;
    line = memchr(out, '\n', (size_t)got - 1);
    if (!line)
        return (size_t)got;
    got -= line + 1 - out;
    memmove(out, line + 1, (size_t)got);
    return (size_t)got;
}

/*
 * Where the last lines begin that fit into `room` bytes, each newline counted as the two
 * characters that stand for it; within the last line, at a character, if even that is too long.
 */
static size_t tail_start(const char *text, size_t n, size_t room)
{
    size_t cost = 0, line = n;

    for (size_t i = n; i-- > 0;) {
        if (text[i] == '\n')
            line = i + 1;
        cost += text[i] == '\n' ? 2 : 1;
        if (cost > room) {
            if (line < n)
                return line;
            for (i++; i < n && ((unsigned char)text[i] & 0xc0) == 0x80; i++)
                ;
            return i;
        }
    }
    return 0;
}

void gw_process_log_tail(const char *log_path, uint64_t from, char *out, size_t size)
{
    char text[4096];
    size_t n, to = 0;

    if (size == 0)
        return;
    n = clean((unsigned char *)text, read_end(log_path, from, text, sizeof text));
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
        n--;
    for (size_t i = tail_start(text, n, size - 1); i < n; i++) {
        if (text[i] != '\n') {
            out[to++] = text[i];
        } else if (to > 0 && text[i - 1] != '\n') {
            out[to++] = ';';
            out[to++] = ' ';
        }
    }
    out[to] = '\0';
}

int gw_process_rss(const struct gw_process *p, uint64_t *bytesp)
{
    unsigned long long total, resident;
    char path[64];
    FILE *file;
    int n;

    if (!gw_process_alive(p))
        return -ESRCH;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)p->pid);
    file = fopen(path, "re");
    if (!file)
        return -errno;
    n = fscanf(file, "%llu %llu", &total, &resident);
    fclose(file);
    if (n != 2 || !gw_process_alive(p))
        return -ESRCH;
    *bytesp = resident * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

int gw_process_cpu_time(const struct gw_process *p, uint64_t *nsp)
{
    uint64_t stat[STAT_MAX];
    int r;

    r = read_stat(p->pid, stat);
    if (r < 0 || !gw_process_alive(p))
        return -ESRCH;
    *nsp = (stat[STAT_UTIME] + stat[STAT_STIME]) *
           (UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK));
    return 0;
}
