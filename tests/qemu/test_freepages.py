# SPDX-License-Identifier: Apache-2.0
"""What the guest has free does not move, and where all memory is verified it does."""
import contextlib
import os
import statistics

import pytest

import godwit_lab
from conftest import figures, refusal

VM = 'free1'
ADDRESS = '10.77.0.101'
MAC = '52:54:00:77:02:00'
FREE = 96 << 20
N_BLACKOUTS = 6
# The guest's driver needs a moment to name what is free: the first round must last longer.
LIMIT = ('--bandwidth', '64MiB/s')


@contextlib.contextmanager
def guest(lab, **options):
    """A guest with 32 MiB in use and 96 MiB of noise that it has given back to its kernel."""
    append = godwit_lab.guest_append(ip=f'{ADDRESS}/24', fill='32MiB', wss='8MiB', rate=10,
                                     free='96MiB', balloon=1)
    path, log = godwit_lab.write_vm_file(lab.n1, VM, append=append, mac=MAC, **options)
    made = godwit_lab.Guest(lab, VM, log, ADDRESS)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(log)  # of the guest before, which was READY, too
    lab.n1.godwit('vm', 'start', path)
    try:
        made.wait_ready()
        yield made
    finally:
        made.stop()


def held(migration):
    """Why the switchover waited, and why no longer."""
    return [d['because'] for d in migration['decisions'] if d['rule'] == 'switchover']


def move(made, *options, check=True):
    source = made.lab.nodes[made.node()]
    to = 'n2' if source.name == 'n1' else 'n1'
    if not check:
        return source.godwit('migrate', VM, '--to', to, '--json', *options, check=False)
    migration = source.migrate(VM, to, *options)
    assert migration['state'] == 'completed'
    made.assert_good(to)
    return migration


@pytest.fixture(scope='module')
def balloonless(lab):
    """What both routes send where nobody says what is free."""
    with guest(lab, balloon='none') as made:
        moves = {route: move(made, '--route', route, *LIMIT) for route in ('native', 'carrier')}
    for migration in moves.values():
        assert migration['free_pages'] == {'hints': 'none', 'not_sent_bytes': 0}, migration
        assert migration['wire_bytes'] > FREE
    return {route: migration['wire_bytes'] for route, migration in moves.items()}


@pytest.mark.parametrize('route', ['native', 'carrier'])
def test_free_pages_are_left_out(lab, balloonless, route):
    """Three moves one after the other: there and back again, and there."""
    with guest(lab) as made:
        moves = [move(made, '--route', route, *LIMIT) for _ in range(3)]
    for migration in moves:
        free = migration['free_pages']
        figures.append(f'free pages, {route}: {migration["wire_bytes"]} bytes, at least '
                       f'{free["not_sent_bytes"]} left out; without a balloon '
                       f'{balloonless[route]}; total {migration["total_ms"]} ms')
        assert free['hints'] == 'on'
    if route == 'native':
        assert any('has read all' in held(migration)[-1] for migration in moves), moves
    # The noise has gone nowhere in the first move, so it is no more there in the second.
    assert moves[0]['wire_bytes'] < balloonless[route] - FREE // 2, moves[0]['free_pages']
    assert FREE // 2 < moves[0]['free_pages']['not_sent_bytes'] < 256 << 20
    assert max(m['wire_bytes'] for m in moves[1:]) < balloonless[route] - FREE // 2


def test_a_verified_move_sends_all_of_it(lab, balloonless):
    """QEMU is kept from asking the guest; on the carrier's route nothing can."""
    with guest(lab) as made:
        refusal(move(made, '--route', 'carrier', '--verify', *LIMIT, check=False), 1,
                'unsupported', 'free', '--route native', 'balloon: none')
        made.assert_good('n1')
        verified = move(made, '--route', 'native', '--verify', *LIMIT)
        assert verified['verify']['equal'] is True
        assert verified['free_pages'] == {'hints': 'off', 'not_sent_bytes': 0}
        assert verified['wire_bytes'] > balloonless['native'] - FREE // 8
        # and neither that nor the refusal has changed anything for those that follow
        assert move(made, '--route', 'carrier', *LIMIT)['free_pages']['hints'] == 'on'


@pytest.mark.parametrize('balloon', ['none', 'free-page-hints'])
def test_what_the_blackout_costs(lab, balloon):
    """A guest that writes nothing, as fast as it goes. The switchover waits for the destination."""
    with guest(lab, balloon=balloon) as made:
        made.ask('SET rate 0')
        moves = [move(made, '--route', 'native') for _ in range(N_BLACKOUTS)]
    waits = [held(m) for m in moves]
    # Where nothing at all is left before QEMU has been slowed down, it does not wait. Of a guest that
    # gives hints that is most of the moves.
    assert all('longer' in because[0] for because in waits)
    if balloon == 'none':
        assert any('has read all' in because[-1] for because in waits), waits
    else:
        assert all(m['wire_bytes'] < (256 << 20) - FREE for m in moves)
    device = sorted(migration['breakdown']['device_ms'] for migration in moves)
    figures.append(f'balloon {balloon}: device_ms {statistics.median(device):.1f} ({device[0]:.1f} to '
                   f'{device[-1]:.1f}), medians of {len(moves)}: blackout '
                   f'{statistics.median(m["blackout_ms"] for m in moves):.1f} ms')
