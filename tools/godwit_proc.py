# SPDX-License-Identifier: Apache-2.0
"""Programs of a lab: running them, in a network namespace or not, and ending them.

A process is known by its pid and its start time, so that one that was recorded in a file
is never mistaken for another that has got the same pid since.
"""
import contextlib
import json
import os
import select
import signal
import subprocess
import time


class LabError(Exception):
    """Ends the program with this text; says what was tried and what to do."""


def run(argv, text=None, **options):
    """Runs a program and returns its output; a failure carries what the program said."""
    try:
        done = subprocess.run(argv, input=text, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False, **options)
    except subprocess.TimeoutExpired as expired:
        raise LabError(f'"{" ".join(argv)}" did not end within {expired.timeout} s') from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or 'it said nothing')
        raise LabError(f'"{" ".join(argv)}" failed with status {done.returncode}: {said}')
    return done.stdout


def inside(namespace, argv):
    """The command line that runs argv in the network namespace; None is the machine's own."""
    return ['ip', 'netns', 'exec', namespace, *argv] if namespace else list(argv)


def start_time(pid):
    """Clock tick at which the process started; with the pid it names one process for ever."""
    with open(f'/proc/{pid}/stat', encoding='ascii') as stat:
        return int(stat.read().rpartition(')')[2].split()[19])


def is_zombie(pid):
    with open(f'/proc/{pid}/stat', encoding='ascii') as stat:
        return stat.read().rpartition(')')[2].split()[0] in 'ZX'


def record(path, pid):
    """Writes down which process this is."""
    with open(path, 'w', encoding='utf-8') as out:
        json.dump({'pid': pid, 'start_time': start_time(pid)}, out)


def recorded_pid(path):
    """Process id of what record() wrote down while it runs, else None."""
    try:
        with open(path, encoding='utf-8') as source:
            entry = json.load(source)
        return entry['pid'] if start_time(entry['pid']) == entry['start_time'] and \
            not is_zombie(entry['pid']) else None
    except (OSError, ValueError, KeyError):
        return None


def end_processes(pids, how, timeout_s):
    """Signals the processes and waits for their ends; returns those still alive."""
    waiting = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            waiting[fd] = pid
            signal.pidfd_send_signal(fd, how)
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while waiting:
        left_ms = (deadline - time.monotonic()) * 1000
        ended = poll.poll(left_ms) if left_ms > 0 else []
        if not ended:
            break
        for fd, _ in ended:
            poll.unregister(fd)
            os.close(fd)
            del waiting[fd]
    for fd in waiting:
        os.close(fd)
    return list(waiting.values())


def log_tail(path, lines=12):
    with contextlib.suppress(OSError), open(path, encoding='utf-8', errors='replace') as log:
        return ''.join(log.readlines()[-lines:]).rstrip()
    return ''
