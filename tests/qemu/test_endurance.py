# SPDX-License-Identifier: Apache-2.0
"""Fifty moves in a row: fifty good verdicts, and the daemons do not grow."""
import statistics

import godwit_lab
from conftest import figures

N_MOVES = 50
# By then every cache has filled.
N_WARM = 10
GROWTH_KIB = 512


def descriptors(node, pid):
    """A request is a barrier: what there was to tidy up is done. Its own connection may be seen."""
    node.godwit('status')
    return godwit_lab.open_files(pid)


def measure(lab):
    found = {}
    for name in ('n1', 'n2'):
        node = lab.nodes[name]
        pid = node.daemon_pid()
        found[name] = {'descriptors': min(descriptors(node, pid) for _ in range(5)),
                       'allocated_kib': godwit_lab.resident_kib(pid, 'RssAnon'),
                       'files': len(godwit_lab.leftovers(node)['files'])}
    return found


def test_fifty_moves(lab, place):
    blackouts, swaps = [], []
    warm = snapshot = None
    for number in range(N_MOVES):
        if number == N_WARM:
            warm, snapshot = measure(lab), godwit_lab.snapshot(lab)
        migration = place.move()
        blackouts.append(migration['blackout_ms'])
        swaps.append(migration['breakdown']['swap_ms'])
    godwit_lab.assert_nothing_left(lab, snapshot, renewed={'n1', 'n2'})
    cold = measure(lab)
    figures.append(f'{N_MOVES} moves: blackout {min(blackouts)} to {max(blackouts)} ms, median '
                   f'{sorted(blackouts)[N_MOVES // 2]} ms; daemons after {N_WARM} moves {warm}, '
                   f'after {N_MOVES} {cold}')
    figures.append(f'the commit on the file store, swap_ms of {N_MOVES} moves: median '
                   f'{statistics.median(swaps):.3f} ms, largest {max(swaps):.3f} ms')
    for name, before in warm.items():
        after = cold[name]
        assert after['descriptors'] == before['descriptors'], (name, before, after)
        assert after['files'] == before['files'], (name, before, after)
        assert after['allocated_kib'] <= before['allocated_kib'] + GROWTH_KIB, (name, before, after)
