/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that outlive the daemon: started apart from it, found again after a restart, and never
 * confused with another program that got the same pid later.
 *
 * A process is held by a pidfd, which names one process for ever: it becomes readable when the
 * process ends (the shell's event loop watches it), and a signal sent through it cannot hit a
 * stranger. The start time says across a restart of the daemon whether a pid on record is still
 * the same process; it is only meaningful within one boot, and no QEMU outlives that.
 *
 * Nothing here waits, except for a program that has just been forked to reach its exec.
 */
#ifndef GW_HOST_PROCESS_H
#define GW_HOST_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "godwit/error.h"

struct gw_process {
    pid_t pid;           /* 0: none */
    int pidfd;           /* readable once the process has ended; -1: none */
    uint64_t start_time; /* clock ticks after boot, as in /proc/PID/stat */
    uint64_t log_offset; /* bytes that the log held before this process began; 0 if attached */
};

/* What an empty one looks like: safe to fini. */
#define GW_PROCESS_NONE ((struct gw_process){.pidfd = -1})

/* How a process ended. */
struct gw_process_exit {
    bool known;    /* false: it ended, but it was not our child, so only its parent knows how */
    bool signaled; /* value is a signal number, otherwise an exit status */
    int value;
};

/*
 * Starts argv[0] (looked up in PATH) with a NULL-terminated argument vector, in a session of its
 * own, so that it survives the daemon and signals to the daemon's process group. Standard input is
 * /dev/null; output and errors are appended to log_path, which is created with mode 0600; no other
 * descriptor is inherited, and signal handlers, ignored signals and the signal mask are reset.
 * Working directory, environment, limits and OOM score are the daemon's.
 *
 * Returns once the program has been executed. A program that cannot be executed is an error here
 * (with the errno), not an exit status later. On success *p is to be released with
 * gw_process_fini(); on error it is GW_PROCESS_NONE.
 *
 * SIGCHLD must not be ignored by the caller: its children would be reaped behind its back.
 */
int gw_process_start(char *const argv[], const char *log_path, struct gw_process *p,
                     struct gw_error *e);

/* The same, but what it reads is input_fd, which stays the caller's. */
int gw_process_start_reading(char *const argv[], int input_fd, const char *log_path,
                             struct gw_process *p, struct gw_error *e);

/*
 * Takes hold of a process that runs already. With start_time not 0, it must be the one that
 * started then. GW_E_NOT_FOUND: there is no such process any more, or another one has its pid.
 */
int gw_process_attach(pid_t pid, uint64_t start_time, struct gw_process *p, struct gw_error *e);

/* Lets go of it; the process goes on. Does nothing to an empty one. */
void gw_process_fini(struct gw_process *p);

/* 0, or a negative errno: -ESRCH if it has ended. Never reaches a process that reused the pid. */
int gw_process_signal(const struct gw_process *p, int sig);

/*
 * From now on it gets a processor only when others leave one free: what it still has to do is to
 * end, and giving back the memory of a guest takes long. The nice value 19 of its threads, and of
 * its session if the scheduler groups by sessions (sched(7), "The autogroup feature"). As far as it
 * can: no errors.
 */
void gw_process_step_back(const struct gw_process *p);

/* False once it has ended, reaped or not. */
bool gw_process_alive(const struct gw_process *p);

/*
 * Collects a process that has ended. 0: *ex is filled, and a child is no zombie any more; 1: it
 * still runs; negative: errno.
 */
int gw_process_reap(const struct gw_process *p, struct gw_process_exit *ex);

/* "exited with status 1", "was killed by SIGKILL", "ended": to stand after the program's name. */
void gw_process_exit_text(const struct gw_process_exit *ex, char *out, size_t size);

/*
 * The last lines of a log, from byte offset `from` on, in one line for an error message: as many
 * whole lines as fit into size, joined by "; ", cleaned of control characters, escape sequences
 * and invalid UTF-8. Empty if there is nothing to read.
 */
void gw_process_log_tail(const char *log_path, uint64_t from, char *out, size_t size);

/* Resident memory, and processor time used so far (guest code included). Negative errno if it has
 * ended. */
int gw_process_rss(const struct gw_process *p, uint64_t *bytesp);
int gw_process_cpu_time(const struct gw_process *p, uint64_t *nsp);

#endif
