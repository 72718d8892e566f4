# SPDX-License-Identifier: Apache-2.0
"""Guests with disks on RBD: they start, are adopted, move while they write, and lose nothing."""
import contextlib
import datetime
import json
import os
import signal
import statistics
import subprocess
import time

import pytest

import godwit_lab
from bare import BareQemu, Qmp
from conftest import DISK_BYTES, VM, DiskGuest, figures, stopped
from godwit_lab import Events, Move, kill, only

N_MOVES = int(os.environ.get('GODWIT_RBD_MOVES', '100'))
# Fewer are made where this is not enough for all; the figures say how many it were.
MOVES_S = float(os.environ.get('GODWIT_RBD_MOVES_S', '60'))
# More than the 15 s that a guest may be paused, and the 10 s for an answer of QEMU.
STALL_S = 25


def lockers(lab, image):
    return json.loads(lab.ceph.rbd('--format', 'json', 'lock', 'ls', image))


def watchers(lab, image):
    return json.loads(lab.ceph.rbd('--format', 'json', 'status', image))['watchers']


def host_of(entry):
    return entry['address'].partition(':')[0]


def test_status_shows_a_healthy_cluster(one):
    ceph = one.status()['ceph']
    assert ceph['health'] == 'HEALTH_OK', ceph
    assert set(ceph['daemons']) == {'mon.a', 'osd.0'} and all(ceph['daemons'].values())
    listed = one.n2.run('rbd', *one.ceph.user_arguments(), 'ls', 'rbd').stdout.split()
    assert ceph['image'] in [f'rbd/{image}' for image in listed]


def test_who_has_no_key_gets_nothing(one):
    """cephx is on: a key that the cluster does not know, and a user that may not do all."""
    subprocess.check_call(['ceph-authtool', f'{one.n1.dir}/wrong', '--create-keyring', '--gen-key',
                           '-n', 'client.godwit'], stdout=subprocess.DEVNULL)
    conf = ['--conf', one.ceph.conf, '--name', 'client.godwit']
    assert one.n1.run('timeout', '20', 'rbd', *conf, '--keyring', f'{one.n1.dir}/wrong', 'ls',
                      check=False).status not in (0, 124)
    assert one.n1.run('ceph', *one.ceph.user_arguments(), 'auth', 'ls', check=False).status == 13


def test_a_bad_disk_is_seen(one, guest_on):
    """The verdict of all the other tests is worth something."""
    guest = guest_on(one, disk_rate=1)
    guest.assert_disk_good()
    guest.ask('SPOIL lost 100')
    guest.ask('SPOIL torn 200')
    verdict = guest.verify()
    assert (verdict['verdict'], verdict['lost'], verdict['torn']) == ('bad', 1, 1), verdict
    assert {bad['slot']: bad['kind'] for bad in verdict['bad_blocks']} == \
        {100: 'lost', 200: 'torn'}


def test_a_root_disk(one, tmp_path):
    """The guest's root file system is on the image, and whole after moves in which it was written."""
    image = godwit_lab.make_root(one.ceph, 'root1')
    guest = DiskGuest.start(
        one.n1, VM, memory='128MiB', disks=[{'rbd': image}],
        append=godwit_lab.guest_append(root='/dev/vda', fill='32MiB', wss='8MiB', rate=5, scan=8,
                                       disk=DISK_BYTES, disk_rate=200))
    try:
        assert guest.root() == '/dev/vda ext4'
        for _ in range(2):
            guest.move()
            guest.assert_unharmed()
    finally:
        guest.stop()
    copy = f'{tmp_path}/root'
    one.ceph.rbd('export', '--no-progress', image, copy)
    # As after a power cut: the journal is replayed, and then nothing may be wrong.
    subprocess.check_call(['/sbin/e2fsck', '-E', 'journal_only', '-y', copy])
    subprocess.check_call(['/sbin/e2fsck', '-fn', copy])


@pytest.fixture
def librbd_log(one):
    """librbd of QEMUs that start from now on writes what it does, one file a process."""
    place = f'/run/godwit-lab/{one.name}/librbd'
    os.makedirs(place)
    with open(one.ceph.conf, encoding='utf-8') as source:
        before = source.read()
    with open(one.ceph.conf, 'w', encoding='utf-8') as out:
        out.write(before.replace('[client.godwit]\n', '[client.godwit]\n'
                                 f'log file = {place}/$pid.log\n'
                                 'log coarse timestamps = false\ndebug rbd = 10\n'))
    yield place
    with open(one.ceph.conf, 'w', encoding='utf-8') as out:
        out.write(before)


# librbd's log has the kernel's coarse clock: a tick is up to 4 ms where HZ is 250.
LOG_TICK_MS = 5


def lock_taken_ms(path):
    """From the first write that needed the lock to the moment when it could go on, or None."""
    moments = {}
    with open(path, encoding='utf-8', errors='replace') as log:
        for line in log:
            if 'exclusive_lock::ImageDispatch' not in line:
                continue
            for name, text in (('wanted', 'needs_exclusive_lock: exclusive lock required'),
                               ('taken', 'handle_acquire_lock: r=0')):
                if text in line:
                    moments.setdefault(name, datetime.datetime.fromisoformat(line.split()[0]))
    if len(moments) < 2:
        return None
    return (moments['taken'] - moments['wanted']).total_seconds() * 1000


def test_the_lock_follows_the_guest(one, guest_on, librbd_log):
    guest = guest_on(one)
    taken_ms, lock_ms, wait_ms = [], [], []
    for _ in range(10):
        migration = guest.move()
        lock_ms.append(migration['breakdown']['lock_ms'])
        wait_ms.append(migration['breakdown']['lock_wait_ms'])
        assert [w['code'] for w in migration['warnings']] == ['rbd-handed-over'], migration
        guest.wait_writes()
        here = guest.lab.nodes[guest.node()]
        held = lockers(one, guest.image)
        assert [host_of(lock) for lock in held] == [here.address], held
        # The source's QEMU has ended and let go of the image.
        assert [host_of(watch) for watch in watchers(one, guest.image)] == [here.address]
        taken_ms.append(lock_taken_ms(f'{librbd_log}/{here.qemu_pids()[0]}.log'))
    guest.assert_unharmed()
    assert None not in taken_ms + lock_ms, (taken_ms, lock_ms)
    # By another way and from an earlier moment: the guest wakes up before it writes.
    assert all(seen > taken - LOG_TICK_MS for seen, taken in zip(lock_ms, taken_ms)), \
        (lock_ms, taken_ms)
    # The write that asked for the lock waited for it, whatever the clocks are. Null: it took more
    # than 200 ms, or had not ended when it was looked for.
    pairs = [(waited, taken) for waited, taken in zip(wait_ms, taken_ms) if waited is not None]
    assert len(pairs) >= len(taken_ms) - 2, (wait_ms, taken_ms)
    assert all(waited > taken - LOG_TICK_MS for waited, taken in pairs), (wait_ms, taken_ms)
    wait_ms = [waited for waited, _ in pairs]
    figures.append(f'lock_wait_ms: median {statistics.median(wait_ms):.0f} ms, largest '
                   f'{max(wait_ms):.0f} ms of {len(wait_ms)} moves')
    figures.append(f'hand-over of the image lock, by the librbd of the destination: median '
                   f'{statistics.median(taken_ms):.1f} ms, largest {max(taken_ms):.1f} ms of '
                   f'{len(taken_ms)} moves; lock_ms, from resume: median '
                   f'{statistics.median(lock_ms):.1f} ms, largest {max(lock_ms):.1f} ms')


def test_an_image_in_a_namespace(one, guest_on):
    one.ceph.create_namespace('team')
    image = one.ceph.create_image('disk', DISK_BYTES, namespace='team')
    path, _ = godwit_lab.write_vm_file(
        one.n1, 'spaced', append='console=ttyS0 gw.disk=1MiB', nics=None, memory='128MiB',
        disks=[{'rbd': image}])
    one.n1.godwit('vm', 'start', path)
    try:
        godwit_lab.wait_line(f'/run/godwit-lab/{one.name}/spaced.log', 'GUEST READY', 60)
        assert len(lockers(one, image)) == 1
    finally:
        one.n1.godwit('vm', 'stop', 'spaced', '--force')


def test_no_such_image(one):
    path, _ = godwit_lab.write_vm_file(one.n1, 'none', disks=[{'rbd': 'rbd/nothing'}])
    result = one.n1.godwit('vm', 'start', path, '--json', check=False)
    assert result.status == 1 and 'nothing' in result.stdout, str(result)
    assert not one.n1.qemu_pids()


def test_an_adopted_guest_keeps_its_disk(one):
    image = one.ceph.create_image('adopted', DISK_BYTES)
    pool, name = image.split('/')
    node = json.dumps({'driver': 'rbd', 'node-name': 'd0', 'pool': pool, 'image': name,
                       'conf': one.ceph.conf, 'user': 'godwit', 'cache': {'direct': True}})

    class WithDisk(BareQemu):
        def argv(self, *arguments):
            return super().argv(*arguments) + ['-blockdev', node, '-device',
                                               'virtio-blk-pci,drive=d0']

    with WithDisk(one.n1, 'disk', memory_mib=128, fill='32MiB', disk=DISK_BYTES) as qemu:
        guest = DiskGuest(one, VM, qemu.log)
        guest.wait_ready()
        qemu.qmp.close()
        one.n1.godwit('vm', 'adopt', '--qmp', qemu.qmp_path, '--pid', qemu.process.pid,
                      '--name', VM)
        guest.move()
        qemu.process.wait(20)
        assert guest.assert_unharmed() == 'n2'
        guest.move()
        assert guest.assert_unharmed() == 'n1'
        guest.stop()


def tap_names(node):
    links = json.loads(subprocess.check_output(['ip', '-n', node.namespace, '-json', 'link',
                                                'show', 'type', 'tun']))
    return [link['ifname'] for link in links]


def refusal(result, words):
    assert result.status == 1 and words in result.json['error']['message'], str(result)


def test_a_dead_node_is_fenced(one, guest_on):
    """Its daemon is gone and its QEMU is not: it wakes up when the guest has been started elsewhere,
    and none of its writes gets through."""
    guest = guest_on(one)
    source, destination = guest.place()
    uuid, old = guest.uuid(), only(source.qemu_pids())
    fence = ('resolve', uuid, '--fence', '--image', guest.image, '--json')
    # Nothing is fenced without a person's word, nor while the node answers.
    refusal(destination.godwit(*fence, check=False), 'answers')
    refusal(destination.godwit(*fence, '--dead', source.name, check=False), 'answers')
    source.kill_daemon()
    refusal(destination.godwit(*fence, check=False), '--dead')
    os.kill(old, signal.SIGSTOP)
    # Two guests with one address are not what this is about.
    for tap in tap_names(source):
        subprocess.check_call(['ip', '-n', source.namespace, 'link', 'set', tap, 'down'])
    try:
        fenced = destination.godwit(*fence, '--dead', source.name).json['fenced']
        assert fenced and all(host_of({'address': client}) == source.address for client in fenced)
        destination.godwit('resolve', uuid, '--release', '--pool', 'rbd', '--dead', source.name)
        DiskGuest.start(destination, VM, uuid=uuid, **guest.options)
        guest.wait_writes(20)
        os.kill(old, signal.SIGCONT)
        qmp = Qmp(f'{source.dir}/run/vm-{VM}/qmp')
        deadline = time.monotonic() + 60
        while not any(disk['stats']['failed_wr_operations']
                      for disk in qmp.call('query-blockstats')):
            assert time.monotonic() < deadline, 'the old QEMU has met no error'
        qmp.close()
        guest.wait_writes(20)
    finally:
        kill(old)
        source.start_daemon()
    assert guest.assert_unharmed() == destination.name
    guest.forget_the_dead()
    guest.move()
    guest.assert_unharmed()


def test_moves_under_disk_writes(one, resident):
    guest = resident
    slowest_ms, took_s, writes = [], [], 0
    parts = {'swap_ms': [], 'lock_ms': [], 'lock_wait_ms': []}
    began = time.monotonic()
    while len(took_s) < N_MOVES and time.monotonic() - began < MOVES_S:
        guest.ask('RESET')
        started = time.monotonic()
        breakdown = guest.move()['breakdown']
        took_s.append(time.monotonic() - started)
        for name, values in parts.items():
            values += [breakdown[name]] if breakdown[name] is not None else []
        slowest_ms.append(guest.wait_writes()['max_write_ms'])
        writes = guest.assert_disk_good()['writes']
    guest.assert_unharmed()
    figures.append(f'{len(took_s)} moves in {time.monotonic() - began:.0f} s under disk writes: '
                   f'0 of {writes} acknowledged writes lost, 0 torn; a move takes '
                   f'{statistics.median(took_s):.1f} s (median); the slowest write of each move, by '
                   f'the guest: median {statistics.median(slowest_ms):.1f} ms, largest '
                   f'{max(slowest_ms):.1f} ms')
    for name, values in parts.items():
        figures.append(f'{name} of these moves: median {statistics.median(values):.1f}, largest '
                       f'{max(values):.1f}, known of {len(values)}')
    assert len(took_s) >= min(N_MOVES, 10), 'too few moves to say anything'


def test_preflight_is_quick(one, resident):
    """All of the checks on both nodes, with a QEMU that is started for them and ended."""
    resident.forget_the_dead()
    source, destination = resident.place()
    took_ms = []
    for _ in range(3):
        began = time.monotonic()
        assert source.godwit('check', VM, '--to', destination.name, '--json').status == 0
        took_ms.append((time.monotonic() - began) * 1000)
    figures.append(f'godwit check with a disk on RBD: median {statistics.median(took_ms):.0f} ms')


# Phase, daemon, and codes of the error that may come of it (none: it moves all the same). While the
# OSD stands nobody reads or writes; without the mon all goes on that has its connections already.
STALLS = [
    ('preparing', 'osd.0', {'timeout', 'incompatible'}),
    ('preparing', 'mon.a', {'timeout', 'incompatible'}),
    ('precopy', 'osd.0', {'timeout', 'qemu'}),
    ('precopy', 'mon.a', set()),
    ('switchover', 'osd.0', {'timeout'}),
    ('switchover', 'mon.a', set()),
]


@pytest.mark.parametrize('phase,daemon,codes', STALLS, ids=lambda value: value
                         if isinstance(value, str) else '')
def test_a_cluster_that_stops(one, resident, phase, daemon, codes):
    """All of the cluster stops answering until the move has ended, or for longer than any limit in
    it. QEMU waits for the guest's writes before it lets a move end, and cannot be told not to."""
    guest = resident
    guest.forget_the_dead()
    source, destination = guest.place()
    with Events(source) as events:
        move = Move(source, VM, destination.name)
        events.wait_migration(lambda event: event['state'] == phase)
        with stopped(one.ceph, daemon), contextlib.suppress(subprocess.TimeoutExpired):
            move.process.wait(STALL_S)
        result = move.result()
    error = result.json.get('error') or {}
    figures.append(f'{daemon} stopped in {phase}: exit status {result.status}, '
                   f'{result.json.get("total_ms")} ms {error.get("message", "")}')
    assert result.status in (0, 1) and (result.status == 0 or error['code'] in codes), str(result)
    if (phase, daemon) == ('precopy', 'osd.0'):  # an operator who looks sees why it stands
        assert 'qemu-silent' in [w['code'] for w in result.json['warnings']], str(result)
    assert guest.assert_unharmed() == (source, destination)[result.status == 0].name


@pytest.mark.parametrize('rate', ['2MiB/s', 'unlimited'], ids=['copies', 'pauses'])
def test_precopy_gives_up_on_a_cluster_that_stands(one, resident, rate):
    """The policy's time is over while the OSD stands: when there is still memory to copy, and when
    QEMU waits for the guest's writes to pause it, and answers nobody."""
    guest = resident
    guest.forget_the_dead()
    source, destination = guest.place()
    with Events(source) as events:
        move = Move(source, VM, destination.name, '--codec', 'none', '--bandwidth', rate,
                    '--timeout', '3')
        events.wait_migration(lambda event: event['state'] == 'precopy')
        with stopped(one.ceph, 'osd.0'):
            began = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                move.process.wait(STALL_S)
            took_s = time.monotonic() - began
        result = move.result()
    error = result.json.get('error') or {}
    figures.append(f'osd.0 stopped in precopy, timeout_s 3, bandwidth {rate}: exit status '
                   f'{result.status} after {took_s:.1f} s, {error.get("message", "")}')
    assert result.status == 1 and error['code'] == 'timeout', str(result)
    if rate != 'unlimited':
        assert took_s < 10, took_s
    assert guest.assert_unharmed() == source.name


def test_no_qemu_for_a_cluster_that_stands(one, resident):
    """The refusal says what was asked, of which cluster, and for how long."""
    guest = resident
    guest.forget_the_dead()
    source, destination = guest.place()
    with stopped(one.ceph, 'osd.0'):
        began = time.monotonic()
        result = source.migrate(VM, destination.name, check=False)
        took_s = time.monotonic() - began
    error = result.json['error']
    assert result.status == 1, str(result)
    assert 'did not answer' in error['message'] and 'ceph -s' in error['hint'], str(result)
    assert 'disk-unchecked' not in [w['code'] for w in result.json['warnings']], str(result)
    assert not destination.qemu_pids() and took_s < 15, took_s
    assert guest.assert_unharmed() == source.name
    guest.forget_the_dead()
    guest.move()  # after all that was done to it
    guest.assert_unharmed()
