# SPDX-License-Identifier: Apache-2.0
"""What bad luck gets, in the middle of a copy: the guest runs on the source with its memory
intact, both nodes are clean, and the next move works."""
import pytest

import godwit_lab
from conftest import VM, refusal
from godwit_lab import Events, copying

# 64 MiB at this rate take eight seconds, and the guest writes faster: it never ends by itself.
SLOW = ('--bandwidth', '8MiB/s', '--codec', 'none')
TEARDOWN_S = 60


def destination_qemu(place):
    """The QEMU that waits for the guest: the only one on the destination."""
    pids = place.destination.qemu_pids()
    assert len(pids) == 1, pids
    return pids[0]


def assert_failed(move, code, *words):
    return refusal(move.result(), 1, code, *words)


def test_destination_daemon_killed(place, unharmed):
    unharmed |= {place.destination.name}
    with Events(place.source) as events:
        move = place.start_move(*SLOW)
        events.wait_migration(copying())
    orphan = destination_qemu(place)
    place.destination.kill_daemon()
    assert_failed(move, 'peer', place.destination.name)
    assert place.guest.scan()['verdict'] == 'good'
    place.destination.start_daemon()
    godwit_lab.wait_ended(orphan, TEARDOWN_S, "the dead daemon's QEMU")


def test_destination_qemu_killed(place, unharmed):
    with Events(place.source) as events:
        move = place.start_move(*SLOW)
        events.wait_migration(copying())
    godwit_lab.kill(destination_qemu(place))
    # Either node may see it first: the source's QEMU loses its stream, the destination its child.
    result = move.result()
    assert result.status == 1, str(result)
    error = result.json['error']
    assert error['code'] in ('qemu', 'qemu-gone', 'refused'), str(result)
    assert place.destination.name in error['message'] and error['hint'], str(result)


def test_link_cut(place, unharmed):
    with Events(place.source) as events:
        move = place.start_move(*SLOW)
        events.wait_migration(copying())
    waiting = destination_qemu(place)
    place.destination.set_link('down')
    try:
        assert_failed(move, 'peer', place.destination.name)
        # n3 is not cut off: the guest answers while the link is still down.
        assert place.guest.scan()['verdict'] == 'good'
        # The destination finds out by itself.
        godwit_lab.wait_ended(waiting, TEARDOWN_S, 'the QEMU behind the cut link')
    finally:
        place.destination.set_link('up')
        wait_reachable(place)


def wait_reachable(place):
    """A bridge port opens up to a second after its link is up."""
    place.source.run('ping', '-c', '1', '-w', '10', place.destination.address)


def test_link_cut_for_a_moment(place):
    """TCP repeats what got lost: nobody notices."""
    with Events(place.source) as events:
        move = place.start_move('--bandwidth', '40MiB/s')
        events.wait_migration(copying())
        place.destination.set_link('down')
        place.destination.set_link('up')
        result = move.result()
    assert result.status == 0, str(result)
    place.guest.assert_good(place.destination.name)


def test_source_daemon_killed(place, unharmed):
    """A new daemon finds the guest and the journal; whoever watches is told how it ended."""
    unharmed |= {place.source.name}
    with Events(place.source) as events:
        move = place.start_move(*SLOW)
        identity = events.wait_migration(copying())['id']
    waiting = destination_qemu(place)
    place.source.kill_daemon()
    place.source.start_daemon()
    result = move.result()
    assert result.status == 1, str(result)
    godwit_lab.wait_ended(waiting, TEARDOWN_S, 'the QEMU at the destination')
    state = place.source.request('GET', f'/v1/migrations/{identity}')[1]
    assert state['state'] == 'failed' and 'restart' in state['error']['message'], state


def test_source_daemon_stopped_in_good_order(place, unharmed):
    unharmed |= {place.source.name}
    with Events(place.source) as events:
        move = place.start_move(*SLOW)
        events.wait_migration(copying())
    waiting = destination_qemu(place)
    place.source.stop_daemon()
    place.source.start_daemon()
    assert move.result().status == 1
    godwit_lab.wait_ended(waiting, TEARDOWN_S, 'the QEMU at the destination')


def test_vm_survives_its_idle_daemon(place, unharmed):
    """No migration runs: killing a daemon costs no guest."""
    unharmed |= {'n1', 'n2'}
    for node in (place.lab.n1, place.lab.n2):
        node.kill_daemon()
    place.guest.scan()
    for node in (place.lab.n1, place.lab.n2):
        node.start_daemon()
    assert place.source.vms()[VM]['state'] == 'running'


@pytest.mark.parametrize('moment', ['preparing', 'precopy', 'copying'])
def test_cancel(place, unharmed, moment):
    wanted = {'preparing': lambda event: True,
              'precopy': lambda event: event['state'] == 'precopy',
              'copying': copying(12 << 20)}[moment]
    with Events(place.source) as events:
        move = place.start_move(*SLOW)
        identity = events.wait_migration(wanted)['id']
        place.source.godwit('cancel', identity)
    result = move.result()
    assert result.status == 1, str(result)
    assert result.json['state'] == 'cancelled'


def test_interrupted_command_cancels(place, unharmed):
    """Ctrl-C on `godwit migrate`."""
    with Events(place.source) as events:
        move = place.start_move(*SLOW)
        events.wait_migration(copying())
        move.process.send_signal(2)
        events.wait_migration(lambda event: event['state'] == 'cancelled')
    assert move.result().status == 1


def test_cancel_after_the_end(place):
    migration = place.move()
    result = place.destination.godwit('cancel', migration['id'], '--json', check=False)
    assert result.status == 1, str(result)
    assert result.json['error']['code'] == 'state'
    place.guest.assert_good(place.source.name)


def test_two_at_once(place, unharmed):
    """One VM moves once at a time; the second request does not harm the first."""
    with Events(place.source) as events:
        move = place.start_move(*SLOW)
        identity = events.wait_migration(copying())['id']
        refusal(place.source.migrate(VM, 'n3', check=False), 1, 'busy', VM, identity)
        place.source.godwit('cancel', identity)
    assert move.result().json['state'] == 'cancelled'


def test_timeout(place, unharmed):
    """It cannot converge, and there is a limit."""
    move = place.start_move(*SLOW, '--timeout', '5s')
    assert_failed(move, 'timeout', 'time that the policy allows')
