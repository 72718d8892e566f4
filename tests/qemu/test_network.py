# SPDX-License-Identifier: Apache-2.0
"""What the network notices of a move: with Godwit, and with a script that drives the same QEMUs."""
import statistics

import bare
import godwit_lab
from conftest import VM, figures
from godwit_lab import Ping, UdpSink
from test_figures import same_qemu

N_MOVES = 10
N_BARE = 5
# A packet that arrives while QEMU is pausing the guest, a millisecond or less, can still be lost.
MAY_BE_LOST = 2


def settle(streams):
    for stream in streams:
        stream.wait_first()
        stream.report()


def seen(streams):
    return [stream.report() for stream in streams]


def summary(who, reports):
    pings, udps = zip(*reports)
    return (f'{who}: longest ping gap {statistics.median(p["longest_gap_ms"] for p in pings):.0f} '
            f'ms, UDP gap {statistics.median(u["longest_gap_ms"] for u in udps):.0f} ms (medians of '
            f'{len(reports)}); pings lost {sum(p["lost"] for p in pings)}, UDP lost '
            f'{sum(u["lost"] for u in udps)}, doubled {sum(p["duplicates"] for p in pings)}')


def test_packets_follow_the_guest(lab, place):
    with Ping(lab.n3) as ping, UdpSink(lab.n3) as sink:
        settle((ping, sink))
        ours = []
        for _ in range(N_MOVES):
            place.move()
            ours.append(seen((ping, sink)))
    figures.append(summary('packets, Godwit', ours))
    assert sum(p['lost'] for p, _ in ours) <= MAY_BE_LOST
    assert sum(u['lost'] for _, u in ours) == 0
    assert sum(p['duplicates'] + u['duplicates'] for p, u in ours) == 0


def test_the_same_without_godwit(lab, place):
    """Measured, to compare with; a script does not care for packets."""
    template = place.command_line()
    place.guest.stop()
    theirs = []
    for _ in range(N_BARE):
        with same_qemu(template)(lab.n1, 'from') as source:
            source.qmp.call('cont')
            guest = godwit_lab.Guest(lab, 'bare', source.log)
            guest.wait_ready()
            with Ping(lab.n3) as ping, UdpSink(lab.n3) as sink:
                settle((ping, sink))
                with same_qemu(template)(lab.n2, 'to', incoming=True) as destination:
                    bare.move(source, destination)
                    source.stop()
                    assert guest.scan()['verdict'] == 'good'
                    theirs.append(seen((ping, sink)))
    figures.append(summary('packets, a bare script', theirs))
    assert VM not in lab.n1.vms() | lab.n2.vms()
