# SPDX-License-Identifier: Apache-2.0
"""Moves by the carrier: pages go around QEMU, as few bytes, and the guest's memory is right."""
import os
import random
import time

import pytest

import godwit_lab
from conftest import VM, figures, refusal
from godwit_lab import Events, copying

CARRIER = ('--route', 'carrier', '--verify')
# 64 MiB at this rate take eight seconds, and the guest writes faster: it never ends by itself.
SLOW = (*CARRIER, '--bandwidth', '8MiB/s', '--codec', 'none')
TEARDOWN_S = 60
N_MOVES = 20
N_RANDOM_MOVES = int(os.environ.get('GODWIT_VERIFIED_MOVES', '10'))


def blackout_ms(migration):
    return migration['blackout_ms'] - (migration['breakdown']['verify_ms'] or 0)


def describe(migration):
    carrier = migration['carrier']
    return (f'{migration["route"]}, codec {migration["codec"]}: {carrier["wire_bytes"]} bytes for '
            f'{carrier["raw_bytes"]} of pages, {carrier["pages"]}, passed '
            f'{carrier["passed_bytes"]}; total {migration["total_ms"]} ms, blackout '
            f'{blackout_ms(migration):.1f} ms without the verifying')


@pytest.mark.parametrize('channels', [1, 2, 4])
@pytest.mark.parametrize('codec', ['none', 'zstd'])
def test_moves(place, channels, codec):
    """Under TLS, while the guest writes."""
    migration = place.move(*CARRIER, '--channels', str(channels), '--codec', codec)
    carrier = migration['carrier']
    figures.append(f'{channels} channels: {describe(migration)}')
    assert (migration['route'], migration['codec']) == ('carrier', codec)
    assert carrier['lanes'] == channels + 1
    assert 'tls' in carrier['encryption'], carrier
    assert carrier['wire_bytes'] == migration['wire_bytes']
    # The 64 MiB that are filled; what was written meanwhile comes on top, as pieces.
    assert carrier['pages']['whole'] >= 64 * 256 * 0.9, carrier
    assert carrier['pages']['zero'] > 0, carrier
    assert 0 < carrier['history_bytes'] <= 0.08 * (256 << 20), carrier
    # Everything but firmware and the like went into the guest's RAM by the carrier.
    assert carrier['passed_bytes'] < 4 << 20, carrier
    route = [d for d in migration['decisions'] if d['rule'] == 'route']
    assert route and route[0]['chosen'] == 'carrier', migration['decisions']
    for node in (place.source, place.destination):
        assert 'did not end well' not in node.log_tail(), node.name


def test_plain(place):
    migration = place.move(*CARRIER, '--transport', 'tcp?plain=yes')
    assert migration['carrier']['encryption'] == 'plain'


def test_short_writes(place):
    """Lanes that move a few bytes at a time change nothing."""
    migration = place.move(*CARRIER, '--transport', 'fault+tcp?seed=7&short=20000')
    assert migration['state'] == 'completed'


def test_fewer_bytes_than_native(place):
    """Side by side; the limit makes rounds, so that pages are sent again."""
    limit = ('--bandwidth', '24MiB/s', '--codec', 'zstd')
    native = place.move('--route', 'native', *limit)
    carried = place.move(*CARRIER, *limit)
    figures.append(f'native, zstd, 24 MiB/s: {native["wire_bytes"]} bytes, total '
                   f'{native["total_ms"]} ms, blackout {blackout_ms(native):.1f} ms')
    figures.append(f'24 MiB/s: {describe(carried)}')
    assert carried['wire_bytes'] < native['wire_bytes']


def test_qemu_is_told_the_real_rate(place):
    """24 MiB/s of lanes: QEMU plans its pause with what they take of its pages, and no more."""
    migration = place.move(*CARRIER, '--bandwidth', '24MiB/s', '--codec', 'none')
    told = [decision for decision in migration['decisions']
            if decision['rule'] == 'switchover-bandwidth']
    assert told, migration['decisions']
    figures.append(f'24 MiB/s of lanes, codec none: QEMU was told {[d["chosen"] for d in told]}, '
                   f'blackout {blackout_ms(migration):.1f} ms')
    # In the first round the pages go whole: what QEMU is told is about what the lanes take.
    assert told[0]['instead_of'] == ["QEMU's own measurement"]
    assert 10 << 20 < int(told[0]['chosen'].split()[0]) < 40 << 20, told[0]


@pytest.mark.parametrize('route', ['carrier', 'native'])
def test_the_bandwidth_changes_on_the_way(place, route):
    """At 2 MiB/s it would take half a minute and more, if the guest held still: it does not."""
    with Events(place.source) as events:
        move = place.start_move('--route', route, '--verify', '--codec', 'none', '--bandwidth', '2MiB/s')
        identity = events.wait_migration(copying())['id']
    place.source.godwit('migration', 'set', identity, '--bandwidth', 'unlimited')
    result = move.result()
    assert result.status == 0, str(result)
    place.guest.assert_good(place.destination.name)
    place.find()
    decision = [d for d in result.json['decisions'] if d['rule'] == 'bandwidth']
    assert [(d['chosen'], d['instead_of']) for d in decision] == [('unlimited', ['2097152 bytes/s'])]
    assert result.json['total_ms'] < 25000, result.json['total_ms']
    again = place.source.godwit('migration', 'set', identity, '--bandwidth', '1gbit', '--json',
                                check=False)
    assert again.status == 1, str(again)


def wire_bytes(node, identity):
    return node.request('GET', f'/v1/migrations/{identity}')[1]['carrier']['wire_bytes']


def test_a_lower_bandwidth_is_kept_to(place, unharmed):
    with Events(place.source) as events:
        move = place.start_move(*CARRIER, '--bandwidth', '16MiB/s', '--codec', 'none')
        identity = events.wait_migration(copying())['id']
    place.source.godwit('migration', 'set', identity, '--bandwidth', '2MiB/s')
    began, before, seconds = time.monotonic(), wire_bytes(place.source, identity), 0
    while seconds < 10:  # each look is a request, which paces it
        sent = wire_bytes(place.source, identity) - before
        seconds = time.monotonic() - began
    place.source.godwit('cancel', identity)
    assert move.result().status == 1
    figures.append(f'2 MiB/s set on the way: {sent / seconds / (1 << 20):.2f} MiB/s sent')
    # Frames count when a lane takes them: one more or less of each of the two. And one that has sent
    # its part of a round waits for the other, at most a frame behind, before both go on.
    assert abs(sent - seconds * (2 << 20)) < 0.02 * sent + 3 * 600000, (sent, seconds)


def test_a_transport_needs_the_carrier(place):
    result = place.source.godwit('migrate', VM, '--to', place.destination.name, '--json',
                                 '--transport', 'tcp', check=False)
    refusal(result, 2, 'usage', 'carrier')


@pytest.mark.parametrize('transport', ['udp', 'tcp://10.0.0.1:5', 'tcp?nonsense=1'])
def test_a_wrong_transport(place, transport):
    result = place.source.godwit('migrate', VM, '--to', place.destination.name, '--json', *CARRIER,
                                 '--transport', transport, check=False)
    assert result.status in (1, 2), str(result)
    assert result.json['error']['code'] in ('usage', 'refused'), str(result)


def test_twenty_moves(lab, place):
    blackouts, snapshot = [], None
    for number in range(N_MOVES):
        if number == 4:
            snapshot = godwit_lab.snapshot(lab)
        migration = place.move(*CARRIER, '--codec', ('none', 'zstd')[number % 2])
        assert migration['verify']['equal']
        blackouts.append(blackout_ms(migration))
    godwit_lab.assert_nothing_left(lab, snapshot, renewed={'n1', 'n2'})
    figures.append(f'{N_MOVES} moves by the carrier: blackout {min(blackouts):.1f} to '
                   f'{max(blackouts):.1f} ms, median {sorted(blackouts)[N_MOVES // 2]:.1f} ms, '
                   'without the verifying')


def random_transport(pick):
    """Lanes that are slow, that stammer, or both; none that break."""
    faults, limit = [], pick.choice((None, None, f'{pick.randrange(200, 900)}mbit'))
    delayed = pick.random() < 0.3
    if pick.random() < 0.6:  # 3000 bytes a millisecond would not be done in the 60 s of a move
        faults.append(f'short={pick.randrange(30000 if delayed else 3000, 100000)}')
    if delayed:
        faults.append('delay=1')
    wrappers = ('fault+' if faults else '') + ('rate+' if limit else '')
    options = [*([f'seed={pick.randrange(1 << 30)}', *faults] if faults else []),
               *([f'rate={limit}'] if limit else []),
               *(['plain=yes'] if pick.random() < 0.3 else [])]
    return f'{wrappers}tcp' + (f'?{"&".join(options)}' if options else '')


def random_options(pick):
    options = ['--channels', str(pick.choice((1, 2, 3, 4, 8))),
               '--codec', pick.choice(('none', 'zstd')), '--transport', random_transport(pick)]
    if pick.random() < 0.3:
        options += ['--bandwidth', f'{pick.randrange(24, 100)}MiB/s']
    return options


def test_random_verified_moves(place):
    """Random loads, links and settings; GODWIT_VERIFIED_SEED plays the same again."""
    seed = int(os.environ.get('GODWIT_VERIFIED_SEED', str(time.time_ns() % 10 ** 9)))
    pick, began, n_bytes = random.Random(seed), time.monotonic(), 0
    try:
        for number in range(N_RANDOM_MOVES):
            rate, options = pick.choice((0, 10, 30, 60)), random_options(pick)
            place.guest.ask(f'SET rate {rate}')
            told = f'seed {seed}, move {number}: rate {rate}, {" ".join(options)}'
            print(told, flush=True)
            migration = place.move(*CARRIER, '--timeout', '60', '--blackout', '1000', *options)
            assert migration['verify']['equal'] is True, told
            n_bytes += migration['verify']['bytes']
    finally:
        place.guest.ask('SET rate 50')
    figures.append(f'{N_RANDOM_MOVES} verified moves with the seed {seed}: all good, {n_bytes} '
                   f'bytes compared, {time.monotonic() - began:.0f} s')


def start_slow(place, *options):
    with Events(place.source) as events:
        move = place.start_move(*SLOW, *options)
        identity = events.wait_migration(copying())['id']
    return move, identity


def test_cancel(place, unharmed):
    move, identity = start_slow(place)
    place.source.godwit('cancel', identity)
    assert move.result().json['state'] == 'cancelled'


def test_destination_qemu_killed(place, unharmed):
    move, _ = start_slow(place)
    pids = place.destination.qemu_pids()
    godwit_lab.kill(pids[0])
    result = move.result()
    assert result.status == 1, str(result)
    assert place.destination.name in result.json['error']['message'], str(result)


def test_destination_daemon_killed(place, unharmed):
    unharmed |= {place.destination.name}
    move, _ = start_slow(place)
    orphan = place.destination.qemu_pids()[0]
    place.destination.kill_daemon()
    assert move.result().status == 1
    assert place.guest.scan()['verdict'] == 'good'
    place.destination.start_daemon()
    godwit_lab.wait_ended(orphan, TEARDOWN_S, "the dead daemon's QEMU")


def test_source_daemon_killed(place, unharmed):
    """With it the carrier is gone: QEMU's migration fails and the guest goes on."""
    unharmed |= {place.source.name}
    move, _ = start_slow(place, '--reconnect', '60')
    waiting = place.destination.qemu_pids()[0]
    place.source.kill_daemon()
    assert place.guest.scan()['verdict'] == 'good'
    place.source.start_daemon()
    assert move.result().status == 1
    godwit_lab.wait_ended(waiting, TEARDOWN_S, 'the QEMU that waited for the guest')


def test_link_cut(place, unharmed):
    move, _ = start_slow(place)
    waiting = place.destination.qemu_pids()[0]
    place.destination.set_link('down')
    try:
        refusal(move.result(), 1, 'peer', place.destination.name)
        assert place.guest.scan()['verdict'] == 'good'
        godwit_lab.wait_ended(waiting, TEARDOWN_S, 'the QEMU behind the cut link')
    finally:
        place.destination.set_link('up')
        place.source.run('ping', '-c', '1', '-w', '10', place.destination.address)


@pytest.mark.parametrize('fault', ['cut=3000000', 'corrupt=3000000'])
def test_a_bad_network(place, unharmed, fault):
    """A lane that breaks, and a bit that flips behind TLS."""
    result = place.source.godwit('migrate', VM, '--to', place.destination.name, '--json', *CARRIER,
                                 '--transport', f'fault+tcp?seed=3&{fault}', check=False)
    assert result.status == 1, str(result)
    figures.append(f'{fault}: {result.json["error"]["message"]}')
