#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two dumps of a program's memory under load, one a while after the other, for bench_pages.

    dump_pair.py [--warm S] [--after S] [--least MIB] OLD NEW -- COMMAND…

Starts the command, lets it work for --warm seconds, stops it (SIGSTOP), copies its writable mappings of at
least --least MiB from /proc/PID/mem, lets it go on for --after seconds, copies them again, and ends it. Of
a QEMU with --least of nearly its guest's size, that is the guest's RAM as of one moment. Only what
is mapped both times at the same place is written, so that page N of one file is page N of the other.
"""
import argparse
import os
import select
import signal
import subprocess
import sys

PAGE = 4096


def mappings(pid, least):
    """(begin, end) of the writable mappings."""
    with open(f'/proc/{pid}/maps', encoding='utf-8') as source:
        for line in source:
            place, access, *_ = line.split()
            begin, end = (int(number, 16) for number in place.split('-'))
            if access.startswith('rw') and '[v' not in line and end - begin >= least:
                yield begin, end


def common(one, two):
    """The overlaps of two ascending lists of ranges."""
    for begin, end in one:
        for other_begin, other_end in two:
            if max(begin, other_begin) < min(end, other_end):
                yield max(begin, other_begin), min(end, other_end)


def stopped(pid):
    """Waits until all of the process stands still."""
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)


def copy(pid, ranges):
    pages = {}
    with open(f'/proc/{pid}/mem', 'rb', buffering=0) as memory:
        for begin, end in ranges:
            memory.seek(begin)
            parts = []
            while sum(map(len, parts)) < end - begin:
                parts.append(memory.read(end - begin - sum(map(len, parts))))
            pages[begin] = b''.join(parts)
    return pages


def write(path, pages, ranges):
    with open(path, 'wb') as out:
        for begin, end in ranges:
            start = next(at for at in pages if at <= begin and end <= at + len(pages[at]))
            out.write(pages[start][begin - start:end - start])


def work(process, seconds):
    """Lets it work; True if it still does. A pidfd tells of its end at once."""
    pidfd = os.pidfd_open(process.pid)
    ended = select.select([pidfd], [], [], seconds)[0]
    os.close(pidfd)
    return not ended


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--warm', type=float, default=10)
    parser.add_argument('--after', type=float, default=1)
    parser.add_argument('--least', type=float, default=0.125, metavar='MIB')
    parser.add_argument('old')
    parser.add_argument('new')
    parser.add_argument('command', nargs='+')
    options = parser.parse_args()
    least = int(options.least * 2**20) // PAGE * PAGE

    with subprocess.Popen(options.command, stdin=subprocess.DEVNULL) as process:
        try:
            if not work(process, options.warm):
                sys.exit('dump_pair: the command ended too early')
            stopped(process.pid)
            old_ranges = list(mappings(process.pid, least))
            old = copy(process.pid, old_ranges)
            os.kill(process.pid, signal.SIGCONT)
            if not work(process, options.after):
                sys.exit('dump_pair: the command ended between the dumps')
            stopped(process.pid)
            new_ranges = list(mappings(process.pid, least))
            new = copy(process.pid, new_ranges)
        finally:
            process.kill()
    both = list(common(old_ranges, new_ranges))
    write(options.old, old, both)
    write(options.new, new, both)
    print(f'{sum(end - begin for begin, end in both) // PAGE} pages')


if __name__ == '__main__':
    main()
