# SPDX-License-Identifier: Apache-2.0
"""A mon and an OSD on each node: the loss of one is nobody's loss."""
import pytest

from conftest import VM, figures, stopped, wait_health
from godwit_lab import Events, Move


def test_an_osd_dies_in_a_move(three, guest_on):
    guest = guest_on(three)
    source, destination = guest.place()
    with Events(source) as events:
        move = Move(source, VM, destination.name)
        events.wait_migration(lambda event: event['state'] == 'precopy')
        three.command('kill', 'osd.1')
        result = move.result()
    assert result.status in (0, 1), str(result)
    assert guest.assert_unharmed() == (source, destination)[result.status == 0].name
    ceph = three.status()['ceph']
    assert ceph['daemons']['osd.1'] is None and 'OSD_DOWN' in ceph['checks'], ceph
    guest.forget_the_dead(healthy=False)
    guest.move()
    guest.assert_unharmed()
    three.command('start', 'osd.1')
    wait_health(three, lambda health: health['status'] == 'HEALTH_OK')
    guest.assert_unharmed()


@pytest.mark.parametrize('phase,daemon', [('precopy', 'osd.2'), ('switchover', 'osd.2'),
                                          ('switchover', 'mon.n1')])
def test_one_of_three_stops(three, guest_on, daemon, phase):
    """Ceph itself notices, after the grace that the lab's OSDs have, and goes on without it."""
    guest = guest_on(three)
    source, destination = guest.place()
    with Events(source) as events:
        move = Move(source, VM, destination.name)
        events.wait_migration(lambda event: event['state'] == phase)
        with stopped(three.ceph, daemon):
            result = move.result()
            # Still without it.
            assert guest.assert_unharmed() == (source, destination)[result.status == 0].name
    figures.append(f'{daemon} of three stopped in {phase}: exit status {result.status}, '
                   f'{result.json.get("total_ms")} ms')
    assert result.status in (0, 1), str(result)
    wait_health(three, lambda health: health['status'] == 'HEALTH_OK')
    guest.assert_unharmed()
