# SPDX-License-Identifier: Apache-2.0
"""`prefault`: the destination has all of the guest's memory before the copy begins."""
import json
import os
import subprocess

import pytest

import godwit_lab
import guestram
from conftest import figures, refusal
from place import VM
from test_refused import configured

MEMORY_MIB = 256  # of which the guest uses a third
MEMORY_KIB = MEMORY_MIB << 10


def qemu(node):
    """The pid of the one that waits on this node."""
    return godwit_lab.only(node.qemu_pids())


def move(place, *options):
    """What of the guest's memory the destination's QEMU had before it said PREPARED, and had at the
    end, in KiB; and the migration."""
    stop = godwit_lab.Breakpoint(place.destination, 'destination say prepared')
    started = place.start_move(*options)
    stop.wait()
    before = guestram.of(qemu(place.destination), MEMORY_MIB).resident_kib
    stop.go_on()
    result = started.result()
    assert result.status == 0, str(result)
    place.guest.assert_good(place.destination.name)
    after = guestram.of(qemu(place.destination), MEMORY_MIB).resident_kib
    place.find()
    return before, after, result.json


def decision(migration):
    return [d['chosen'] for d in migration['decisions'] if d['rule'] == 'prefault']


@pytest.mark.parametrize('route', ['native', 'carrier'])
def test_all_memory_is_there_before_the_copy(place, route):
    """And stays: zero pages neither take it away again nor are left out where they matter."""
    before, after, migration = move(place, '--route', route, '--prefault', '--verify')
    assert before >= MEMORY_KIB, before
    assert after >= MEMORY_KIB, after
    assert decision(migration) == ['before the copy']
    assert migration['verify']['equal'] is True
    figures.append(f'prefault, {route}: {before} KiB of 262144 before the copy, preparing and all '
                   f'{migration["total_ms"]} ms, blackout {migration["blackout_ms"]} ms')


@pytest.mark.parametrize('route', ['native', 'carrier'])
def test_without_it_comes_as_it_is_written(place, route):
    before, _, migration = move(place, '--route', route)
    assert before < MEMORY_KIB // 8, before
    assert not decision(migration)


@pytest.fixture
def early(place):
    """A policy of the source that asks for it."""
    path = f'{place.source.dir}/etc/policies/early.yaml'
    with open(path, 'w', encoding='utf-8') as out:
        out.write('name: early\nprefault: true\n')
    yield 'early'
    os.unlink(path)


def test_a_policy_asks_for_it(place, early):
    before, _, migration = move(place, '--policy', early)
    assert before >= MEMORY_KIB, before
    assert decision(migration) == ['before the copy']


def test_a_check_takes_nothing(place, early):
    """A check starts a QEMU there, too: it must not cost the guests of that node their memory."""
    start = os.path.getsize(place.destination.log_path)
    connection = godwit_lab.UnixConnection(place.source.socket, 60)
    connection.request('POST', '/v1/check', json.dumps(
        {'vm': VM, 'to': place.destination.name, 'policy': early}))
    assert json.loads(connection.getresponse().read())['ok'] is True
    connection.close()
    with open(place.destination.log_path, encoding='utf-8') as log:
        log.seek(start)
        text = log.read()
    assert ' starting ' in text and 'prealloc' not in text, text


@pytest.fixture
def scarce(place, tmp_path):
    """The destination's daemon reads of 400 MiB that are available, and of 84 from when its QEMU is
    there: a guest of 256 MiB has taken its own by then, and QEMU 60."""
    node, meminfo, program = place.destination, tmp_path / 'meminfo', tmp_path / 'qemu'

    def available(mib):
        return f'MemTotal: 1048576 kB\\nMemFree: 0 kB\\nMemAvailable: {mib << 10} kB\\n'

    program.write_text(f'#!/bin/sh\ncase "$*" in *-incoming*) printf \'{available(84)}\' > {meminfo};; esac\n'
                       f'exec {godwit_lab.which_qemu()} "$@"\n')
    program.chmod(0o755)
    meminfo.write_text(available(400).replace('\\n', '\n'))
    with configured(node, qemu=str(program)):
        # in the daemon's own mount namespace: ip netns exec has made one
        subprocess.check_call(['nsenter', '-t', str(node.daemon_pid()), '-m', 'mount', '--bind',
                               str(meminfo), '/proc/meminfo'])
        yield


def test_what_was_taken_is_not_asked_for_again(place, scarce):
    """Preflight looks twice: before there is a QEMU, and at what that one can do."""
    migration = place.move('--route', 'native', '--prefault')
    assert decision(migration) == ['before the copy']


def test_what_was_not_taken_is_asked_for(place, scarce):
    """The same without: the memory went to somebody else meanwhile."""
    refusal(place.source.migrate(VM, place.destination.name, '--route', 'native', check=False), 1,
            'incompatible', 'memory', '84 MiB')
