# SPDX-License-Identifier: Apache-2.0
"""Stops a daemon at one place of a migration, for something bad to be done there, and looks at
what really runs afterwards. See engine/shell/breakpoint.h for the places."""
import contextlib
import os
import select
import signal
import subprocess
import time

import godwit_lab

STOP_TIMEOUT_S = 60


def state_of(pid):
    """A letter, see proc(5); '' if there is no such process."""
    with contextlib.suppress(OSError), open(f'/proc/{pid}/stat', encoding='ascii') as stat:
        return stat.read().rpartition(')')[2].split()[0]
    return ''


def wait_stopped(pid):
    """Waits until a process that is no child has stopped. The kernel tells only its parent."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    fd = os.pidfd_open(pid)
    try:
        while state_of(pid) != 'T':
            if select.select([fd], [], [], 0.001)[0] or time.monotonic() > deadline:
                raise godwit_lab.Failure(f'process {pid} did not stop: "{state_of(pid)}"')
    finally:
        os.close(fd)


def go_on(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


class News:
    """The lines that daemons log from now on."""

    def __init__(self, *nodes):
        self.tails = {}
        self.lines = {}
        for node in nodes:
            begin = os.path.getsize(node.log_path) + 1
            tail = subprocess.Popen(['tail', '-c', f'+{begin}', '-F', node.log_path],
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.tails[tail.stdout] = (node.name, tail)
            self.lines[node.name] = ''

    def wait(self, timeout_s):
        """True when there is something new."""
        ready = select.select(list(self.tails), [], [], timeout_s)[0]
        for pipe in ready:
            data = os.read(pipe.fileno(), 65536)
            self.lines[self.tails[pipe][0]] += data.decode(errors='replace')
        return bool(ready)

    def until(self, node, *texts, timeout_s=STOP_TIMEOUT_S):
        """Waits until the node has said one of the texts."""
        deadline = time.monotonic() + timeout_s
        while not any(text in self.lines[node.name] for text in texts):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise godwit_lab.Failure(f'{node.name} did not say one of {texts} within '
                                         f'{timeout_s} s\n{self}')
            self.wait(left_s)

    def __str__(self):
        return '\n'.join(f'--- {name}\n{text}' for name, text in self.lines.items())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pipe, (_, tail) in self.tails.items():
            tail.kill()
            tail.wait()
            pipe.close()


class Breakpoint:
    """Of the next migration that begins on the node."""

    def __init__(self, node, line, news):
        self.node, self.line, self.news = node, line, news
        self.pid = node.daemon_pid()
        self.path = f'{node.dir}/run/breakpoint'
        with open(self.path, 'w', encoding='ascii') as out:
            out.write(f'{line}\n')

    def wait(self):
        self.news.until(self.node, f'stopped at: {self.line}')
        wait_stopped(self.pid)

    def go_on(self):
        """Fine if it was killed meanwhile."""
        go_on(self.pid)

    def remove(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def vcpu_ticks(pid):
    """Processor time of the threads in which a QEMU executes its guest: none while it is paused."""
    ticks = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f'/proc/{pid}/task'):
            with open(f'/proc/{pid}/task/{thread}/stat', encoding='ascii') as stat:
                name, _, rest = stat.read().partition('(')[2].rpartition(')')
            if name.startswith('CPU '):
                ticks += int(rest.split()[11]) + int(rest.split()[12])
    return ticks


def vcpus(nodes):
    return {(node.name, pid): vcpu_ticks(pid) for node in nodes for pid in node.qemu_pids()}


def executing(nodes, between):
    """Names of the nodes on which a QEMU has executed guest code during between(), as the kernel
    saw it: nobody's word is taken."""
    before = vcpus(nodes)
    between()
    return sorted(name for (name, pid), ticks in vcpus(nodes).items()
                  if ticks > before.get((name, pid), 0))


class Store:
    """The directory of the owner records on a file system of its own, so that it can fail.

    Each daemon has its own view of the mounts (`ip netns exec` gives it one), so that one alone can
    lose the store; frozen, it leaves both waiting, as a dead server of a network file system does.
    """

    def __init__(self, lab):
        self.lab = lab
        self.image = f'/run/godwit-lab/{lab.name}/owners.img'
        self.frozen = False

    def restart(self):
        for node in self.lab.nodes.values():
            node.stop_daemon()
            node.start_daemon()

    def __enter__(self):
        records = f'{self.lab.owners}.before'
        os.rename(self.lab.owners, records)
        os.mkdir(self.lab.owners, 0o700)
        with open(self.image, 'wb') as image:
            image.truncate(16 << 20)
        subprocess.check_call(['mkfs.ext4', '-q', self.image])
        subprocess.check_call(['mount', '-o', 'loop', self.image, self.lab.owners])
        os.rmdir(f'{self.lab.owners}/lost+found')
        subprocess.check_call(['cp', '-a', f'{records}/.', self.lab.owners])
        subprocess.check_call(['rm', '-r', records])
        self.restart()
        return self

    def __exit__(self, *_):
        self.thaw()
        copy = f'{self.lab.owners}.after'
        subprocess.check_call(['cp', '-a', self.lab.owners, copy])
        # Lazily: the daemons have it open until they have been restarted.
        subprocess.check_call(['umount', '--lazy', self.lab.owners])
        os.rmdir(self.lab.owners)
        os.rename(copy, self.lab.owners)
        os.unlink(self.image)
        self.restart()

    def set(self, node, how):
        """'ro': no request that changes anything works from this node. 'rw' heals."""
        subprocess.check_call(['nsenter', '-t', str(node.daemon_pid()), '-m', 'mount', '-o',
                               f'remount,bind,{how}', self.lab.owners])

    def freeze(self):
        subprocess.check_call(['fsfreeze', '--freeze', self.lab.owners])
        self.frozen = True

    def thaw(self):
        if self.frozen:
            subprocess.check_call(['fsfreeze', '--unfreeze', self.lab.owners])
        self.frozen = False
