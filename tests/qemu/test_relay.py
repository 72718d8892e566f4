# SPDX-License-Identifier: Apache-2.0
"""Real moves through tests/flow/relay: pages past QEMU into the guest's RAM, while it writes."""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest

import bare
import godwit_lab

sys.path.insert(0, f'{godwit_lab.REPO}/tests/guest')
from guestq import Guest, NoAnswer  # pylint: disable=wrong-import-position

RELAY = f'{godwit_lab.BUILD}/tests/flow/relay'
MEMORY_MIB = 192
NODES = 2
SHARED = [f'-object memory-backend-memfd,id=ram0,size={MEMORY_MIB}M,share=on',
          '-machine memory-backend=ram0']
PRIVATE = [f'-object memory-backend-ram,id=ram0,size={MEMORY_MIB}M', '-machine memory-backend=ram0']
TWO_NODES = [f'-object memory-backend-memfd,id=m{i},size={MEMORY_MIB // NODES}M,share=on '
             f'-numa node,memdev=m{i}' for i in range(NODES)]


def free_udp_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


class Machine:
    """A QEMU with the test guest on user networking; the query port is its own."""

    def __init__(self, directory, name, memory, incoming=False):
        self.port = free_udp_port()
        self.console = f'{directory}/{name}.console'
        qmp = f'{directory}/{name}.qmp'
        append = godwit_lab.guest_append(ip='10.0.2.15/24', udp='10.0.2.2:9', fill='64MiB',
                                         rate=60, wss='24MiB', zero='8MiB')
        self.errors = open(f'{directory}/stderr', 'ab')
        self.process = subprocess.Popen(
            [godwit_lab.which_qemu(), '-nodefaults', '-display', 'none', '-no-reboot',
             '-machine', 'q35,accel=tcg', '-cpu', 'max', '-m', f'{MEMORY_MIB}M',
             *' '.join(memory).split(),
             '-kernel', f'{godwit_lab.GUEST_DIR}/vmlinuz',
             '-initrd', f'{godwit_lab.GUEST_DIR}/initrd.img', '-append', append,
             '-netdev', f'user,id=net,hostfwd=udp:127.0.0.1:{self.port}-:7501',
             '-device', 'virtio-net-pci,netdev=net,romfile=', '-serial', f'file:{self.console}',
             '-qmp', f'unix:{qmp},server=on,wait=off',
             *(['-S', '-incoming', 'defer'] if incoming else [])],
            stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors)
        self.qmp_path = qmp
        self.qmp = bare.BareQemu.connect(Connecting(self, name, directory))

    def arm(self, lanes, zero_pages):
        self.qmp.call('migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': True} for name in bare.CAPABILITIES])
        self.qmp.call('migrate-set-parameters', max_bandwidth=1 << 40, downtime_limit=300,
                      multifd_channels=lanes, zero_page_detection=zero_pages)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.errors.close()


class Connecting:
    """What BareQemu.connect() needs to know."""

    def __init__(self, machine, name, directory):
        self.process, self.qmp_path = machine.process, machine.qmp_path
        self.dir, self.name = directory, name
        self.node = self


@pytest.fixture(name='place_dir')
def fixture_place_dir():
    directory = tempfile.mkdtemp(prefix='gwr-')
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(name='needs')
def fixture_needs(guest_needs):
    if not os.access(RELAY, os.X_OK):
        pytest.fail('tests/flow/relay is not built')


def start_relay(directory, lanes, destination):
    argv = [RELAY, '--listen', f'{directory}/in', '--connect', f'{directory}/out',
            '--lanes', str(lanes)]
    if destination:
        blocks = destination.qmp.call('human-monitor-command', command_line='info ramblock')
        with open(f'{directory}/blocks', 'w', encoding='utf-8') as file:
            file.write(blocks)
        argv += ['--pid', str(destination.process.pid), '--ramblocks', f'{directory}/blocks',
                 '--poison']
    relay = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert relay.stdout.readline() == 'ready\n', relay.stderr.read()
    return relay


def move(directory, lanes, zero_pages, memory, reachable, paused=False):
    """Moves a writing (or a paused) guest; checks its memory there; gives what the relay counted."""
    with contextlib.ExitStack() as stack:
        source = Machine(directory, 's', PRIVATE if memory is not TWO_NODES else memory)
        stack.callback(source.close)
        destination = Machine(directory, 'd', memory, incoming=True)
        stack.callback(destination.close)
        with contextlib.closing(Guest('127.0.0.1', source.port)) as guest:
            guest.status(timeout=60)
            if paused:
                source.qmp.call('stop')
            for machine in (source, destination):
                machine.arm(lanes, zero_pages)
            destination.qmp.call('migrate-incoming', uri=f'unix:{directory}/out')
            relay = start_relay(directory, lanes, destination if reachable else None)
            stack.callback(relay.kill)
            source.qmp.call('migrate', uri=f'unix:{directory}/in')
            source.qmp.wait_event('MIGRATION', status='pre-switchover')
            source.qmp.call('migrate-continue', state='pre-switchover')
            source.qmp.wait_event('MIGRATION', status='completed')
            destination.qmp.wait_event('MIGRATION', status='completed')
        destination.qmp.call('cont')
        with contextlib.closing(Guest('127.0.0.1', destination.port)) as guest:
            try:
                answer = guest.scan()
            except NoAnswer as error:
                pytest.fail(f'{error}; QEMU: {destination.process.poll()}; the guest said: '
                            f'{godwit_lab.file_tail(destination.console)}')
            assert answer['verdict'] == 'good', answer
            assert answer['pages_checked'] == (64 + 8) * 256, answer
        output, errors = relay.communicate(timeout=20)
        assert relay.returncode == 0, errors
        counts = json.loads(output)
        assert counts['syncs'] == lanes * counts['rounds'], counts
        assert counts['rounds'] > 1, counts
        return counts


@pytest.mark.parametrize('lanes, zero_pages, memory', [
    (2, 'multifd', PRIVATE), (4, 'multifd', SHARED), (2, 'legacy', SHARED), (4, 'legacy', PRIVATE)])
def test_pages_go_into_the_guests_ram(needs, place_dir, lanes, zero_pages, memory):
    counts = move(place_dir, lanes, zero_pages, memory, True)
    assert counts['blocks'] > 1, counts  # pc.bios and the like
    assert counts['applied'] > 64 * 256, counts
    assert (counts['zeroed'] > 0) == (zero_pages == 'multifd'), counts
    assert counts['passed'] < 1000, counts  # tables that may grow
    assert counts['drains'] > 0, counts


def test_two_numa_backends(needs, place_dir):
    # Paused: QEMU 10.0.2 loses writes of a TCG guest with two RAM backends, also without a relay
    # and without multifd.
    counts = move(place_dir, 2, 'multifd', TWO_NODES, True, paused=True)
    assert counts['blocks'] > NODES, counts
    assert counts['applied'] > 64 * 256, counts


@pytest.mark.parametrize('zero_pages', ['multifd', 'legacy'])
def test_ram_out_of_reach_goes_through_qemu(needs, place_dir, zero_pages):
    counts = move(place_dir, 2, zero_pages, SHARED, False)
    assert counts['blocks'] == counts['applied'] == 0, counts
    assert counts['passed'] > 64 * 256, counts
