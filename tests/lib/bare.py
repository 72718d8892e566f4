# SPDX-License-Identifier: Apache-2.0
"""A migration without Godwit: the same QMP commands, from a plain script.

What the engine's own cost is measured against, and a QEMU that somebody else started
for `godwit vm adopt`.
"""
import contextlib
import json
import os
import select
import socket
import subprocess
import time

from godwit_lab import Failure, GUEST_DIR, GUEST_MAC, file_tail, guest_append, which_qemu

CAPABILITIES = ('return-path', 'pause-before-switchover', 'multifd', 'events')


class Qmp:
    """One QMP session. Blocking, one command at a time."""

    def __init__(self, path, timeout_s=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout_s)
        self.socket.connect(path)
        self.buffer = b''
        self.events = []
        self.read()  # the greeting
        self.call('qmp_capabilities')

    def read(self):
        while b'\n' not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise Failure('QEMU closed its QMP socket')
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b'\n')
        return json.loads(line)

    def call(self, command, **arguments):
        self.socket.sendall(json.dumps({'execute': command, 'arguments': {
            key.replace('_', '-'): value for key, value in arguments.items()}}).encode())
        while True:
            answer = self.read()
            if 'event' in answer:
                self.events.append(answer)
            elif 'error' in answer:
                raise Failure(f'{command}: {answer["error"]["desc"]}')
            else:
                return answer['return']

    def wait_event(self, name, **data):
        """Waits for an event whose data has these values."""
        while True:
            event = self.events.pop(0) if self.events else self.read()
            if event.get('event') == name and \
                    all(event['data'].get(key) == value for key, value in data.items()):
                return event

    def close(self):
        self.socket.close()


class BareQemu:
    """A QEMU on a node with the test guest, started by hand. Ends with the block."""

    def __init__(self, node, name, memory_mib=256, incoming=False, argv=None, **guest):
        self.node = node
        self.dir = f'{node.dir}/bare-{name}'
        os.makedirs(self.dir, exist_ok=True)
        self.log = f'{self.dir}/console.log'
        self.qmp_path = f'{self.dir}/qmp.sock'
        self.tap = f'bare{name}'[:15]
        node.run('ip', 'tuntap', 'add', self.tap, 'mode', 'tap')
        node.run('ip', 'link', 'set', self.tap, 'master', 'br0', 'up')
        self.errors = open(f'{self.dir}/stderr', 'wb')
        self.process = node.popen(
            *(argv or self.argv(name, memory_mib, incoming, guest)),
            stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors)
        try:
            self.qmp = self.connect()
        except BaseException:
            self.stop()
            raise

    def argv(self, name, memory_mib, incoming, guest):
        return [
            which_qemu(), '-name', name, '-nodefaults', '-display', 'none',
            '-machine', 'q35,accel=tcg', '-cpu', 'max', '-smp', '1', '-m', str(memory_mib),
            '-kernel', f'{GUEST_DIR}/vmlinuz', '-initrd', f'{GUEST_DIR}/initrd.img',
            '-append', guest_append(**guest),
            '-netdev', f'tap,id=net0,ifname={self.tap},script=no,downscript=no',
            '-device', f'virtio-net-pci,netdev=net0,mac={GUEST_MAC}',
            '-serial', f'file:{self.log}',
            '-qmp', f'unix:{self.qmp_path},server=on,wait=off',
            *(['-S', '-incoming', 'defer'] if incoming else [])]

    def connect(self):
        # QEMU makes the socket before it listens on it; watch the process too.
        pidfd = os.pidfd_open(self.process.pid)
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    return Qmp(self.qmp_path)
                if select.select([pidfd], [], [], 0.005)[0] or time.monotonic() > deadline:
                    raise Failure(f'QEMU on {self.node.name} did not start: '
                                  f'{file_tail(self.dir + "/stderr")}')
        finally:
            os.close(pidfd)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.errors.close()
        self.node.run('ip', 'tuntap', 'del', self.tap, 'mode', 'tap', check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(AttributeError):
            self.qmp.close()
        self.stop()


def arm(qmp, max_bandwidth, downtime_ms, channels):
    qmp.call('migrate-set-capabilities', capabilities=[
        {'capability': name, 'state': True} for name in CAPABILITIES])
    qmp.call('migrate-set-parameters', max_bandwidth=max_bandwidth, downtime_limit=downtime_ms,
             multifd_channels=channels)


def move(source, destination, port=49900, max_bandwidth=1 << 40, downtime_ms=200, channels=2):
    """Moves the guest between two QEMUs; gives total_ms and what QEMU calls its downtime."""
    began = time.monotonic()
    for qemu in (destination, source):
        arm(qemu.qmp, max_bandwidth, downtime_ms, channels)
    uri = f'tcp:{destination.node.address}:{port}'
    destination.qmp.call('migrate-incoming', uri=uri)
    source.qmp.call('migrate', uri=uri)
    source.qmp.wait_event('MIGRATION', status='pre-switchover')
    source.qmp.call('migrate-continue', state='pre-switchover')
    source.qmp.wait_event('MIGRATION', status='completed')
    destination.qmp.wait_event('MIGRATION', status='completed')
    destination.qmp.call('cont')
    total_ms = (time.monotonic() - began) * 1000
    facts = source.qmp.call('query-migrate')
    return {'total_ms': round(total_ms, 1), 'downtime_ms': facts['downtime'],
            'wire_bytes': facts['ram']['transferred']}
