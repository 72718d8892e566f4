# SPDX-License-Identifier: Apache-2.0
"""What the network notices of a move: with Godwit, and with a script that drives the same QEMUs.

The figures of docs/blackout.md: python3 -m pytest tests/qemu/test_network.py prints them.
"""
import contextlib
import os
import statistics

import pytest

import bare
import godwit_lab
from conftest import MAY_COME_TWICE, VM, figures
from godwit_lab import Ping, TcpStream, UdpFeed, UdpSink
from test_figures import same_qemu

N_MOVES = 10
N_ROUTES = 6
# A hundred take three minutes.
N_ARRIVING = int(os.environ.get('GODWIT_ARRIVING_MOVES', '5'))
PARTS = ('stop_ms', 'device_ms', 'confirm_ms', 'commit_ms', 'resume_ms', 'first_packet_ms')


def settle(streams):
    for stream in streams:
        stream.wait_first()
        stream.report()


def seen(streams):
    return [stream.report() for stream in streams]


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else float('nan')


def summary(who, reports):
    pings, udps = zip(*reports)
    gaps = sorted(p['longest_gap_ms'] for p in pings)
    return (f'{who}: longest ping gap {median(gaps):.0f} ms ({gaps[0]:.0f} to {gaps[-1]:.0f}), '
            f'UDP gap {median(u["longest_gap_ms"] for u in udps):.0f} ms (medians of '
            f'{len(reports)}); pings lost {sum(p["lost"] for p in pings)}, UDP lost '
            f'{sum(u["lost"] for u in udps)}, doubled {sum(p["duplicates"] for p in pings)}')


def parts(who, moves):
    taken = ', '.join(f'{part[:-3]} {median(m["breakdown"][part] for m in moves):.1f}'
                      for part in PARTS)
    return (f'{who}: {median(m["blackout_ms"] for m in moves):.1f} ms from pause to resume, '
            f'of it (medians, ms) {taken}')


def test_packets_follow_the_guest(lab, place):
    with Ping(lab.n3) as ping, UdpSink(lab.n3) as sink:
        settle((ping, sink))
        ours, moves = [], []
        for _ in range(N_MOVES):
            moves.append(place.move())
            ours.append(seen((ping, sink)))
    figures.append(summary('packets, Godwit', ours))
    figures.append(parts('blackout, Godwit', moves))
    assert sum(p['lost'] for p, _ in ours) == 0
    assert sum(u['lost'] for _, u in ours) == 0
    assert all(p['duplicates'] <= MAY_COME_TWICE for p, _ in ours)
    assert sum(u['duplicates'] for _, u in ours) == 0


def test_what_is_sent_to_the_guest_arrives(lab, place):
    """UDP towards it, and a TCP stream: what its sender's kernel says of retransmissions."""
    place.guest.ask('RESET')
    with UdpFeed(lab.n3) as feed, TcpStream(lab.n3) as stream:
        settle((feed, stream))
        streams = []
        for _ in range(N_ARRIVING):
            place.move()
            streams.append(stream.report())
        sent = feed.report()['sent']
    status = place.guest.status()
    figures.append(f'towards the guest, {N_ARRIVING} moves: {sent} UDP packets, {status["rx_missing"]} lost; '
                   f'TCP: {sum(s["timeouts"] for s in streams)} retransmission timeouts, '
                   f'{sum(s["retransmits"] for s in streams)} segments sent again')
    assert status['rx_packets'] >= sent > 1000
    assert status['rx_missing'] == 0
    # Without a loss: a guest that answers nothing for 200 ms, blackout and cold code together.
    assert sum(s['timeouts'] for s in streams) <= 1


@pytest.mark.parametrize('rate', [50, 0])
def test_the_carrier_beside_the_native_route(place, rate):
    place.guest.ask(f'SET rate {rate}')
    moves = {'carrier': [], 'native': []}
    for _ in range(N_ROUTES):
        for route, made in moves.items():
            made.append(place.move('--route', route))
    place.guest.ask('SET rate 50')
    figures.extend(parts(f'blackout, {route}, {rate} MB/s written, medians of {N_ROUTES}', made)
                   for route, made in moves.items())


def test_a_guest_that_writes_nothing(place):
    """The blackout without last pages."""
    place.guest.ask('SET rate 0')
    moves = [place.move() for _ in range(N_MOVES)]
    place.guest.ask('SET rate 50')
    figures.append(parts('blackout of a guest that writes nothing', moves))


def bare_move(lab, template, rate):
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(same_qemu(template)(lab.n1, 'from'))
        source.qmp.call('cont')
        guest = godwit_lab.Guest(lab, 'bare', source.log)
        guest.wait_ready()
        guest.ask(f'SET rate {rate}')
        streams = [stack.enter_context(made) for made in (Ping(lab.n3), UdpSink(lab.n3))]
        settle(streams)
        destination = stack.enter_context(same_qemu(template)(lab.n2, 'to', incoming=True))
        bare.move(source, destination)
        source.stop()
        assert guest.scan()['verdict'] == 'good'
        return seen(streams)


def test_the_same_without_godwit(lab, place):
    """Measured, to compare with; a script does not care for packets."""
    template = place.command_line()
    place.guest.stop()
    theirs = [bare_move(lab, template, 50) for _ in range(N_MOVES)]
    figures.append(summary('packets, a bare script', theirs))
    assert VM not in lab.n1.vms() | lab.n2.vms()
