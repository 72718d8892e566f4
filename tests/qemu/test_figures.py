# SPDX-License-Identifier: Apache-2.0
"""Figures that the project wants to reach: measured and printed, never asserted."""
import re
import statistics
import time

import bare
import godwit_lab
from conftest import VM, figures

N_RUNS = 5
IDLE_S = 5


def voluntary_switches(pid):
    with open(f'/proc/{pid}/status', encoding='ascii') as source:
        return next(int(line.split()[1]) for line in source
                    if line.startswith('voluntary_ctxt_switches'))


def test_idle_daemon(guest_needs):
    """In a lab of its own: nothing has run on these daemons."""
    with godwit_lab.Lab('idle') as lab:
        pids = {name: node.daemon_pid() for name, node in lab.nodes.items()}
        before = {name: voluntary_switches(pid) for name, pid in pids.items()}
        time.sleep(IDLE_S)  # not a wait for something: the measurement
        for name, pid in pids.items():
            figures.append(
                f'idle daemon {name}: {godwit_lab.resident_kib(pid) / 1024:.1f} MiB resident '
                f'(goal: below 15), start to ready {lab.nodes[name].ready_ms} ms (goal: below 100),'
                f' {voluntary_switches(pid) - before[name]} wake-ups in {IDLE_S} s')


def godwit_move(place):
    began = time.monotonic()
    migration = place.source.migrate(VM, place.destination.name)
    wall_ms = (time.monotonic() - began) * 1000
    place.find()
    return {'wall_ms': wall_ms, 'total_ms': migration['total_ms'],
            'blackout_ms': migration['blackout_ms']}


def same_qemu(template):
    """QEMUs with the command line that Godwit gave its own; `template` came from a moved guest."""
    class SameQemu(bare.BareQemu):
        def argv(self, name, memory_mib, incoming, guest):
            words = [re.sub(r'ifname=[^,]*', f'ifname={self.tap}', word) for word in template]
            words = [re.sub(r'path=[^,]*/qmp\b', f'path={self.qmp_path}', word) for word in words]
            words = [re.sub(r'(id=gwconsole,path=)[^,]*', rf'\g<1>{self.log}', word)
                     for word in words]
            return words if incoming else words[:words.index('-incoming')] + \
                words[words.index('-incoming') + 2:]
    return SameQemu


def bare_move(lab, qemu):
    """The same command lines, guest and channels; one clock starts before the second QEMU does."""
    with qemu(lab.n1, 'from') as source:
        source.qmp.call('cont')
        guest = godwit_lab.Guest(lab, 'bare', source.log)
        guest.wait_ready()
        began = time.monotonic()
        with qemu(lab.n2, 'to', incoming=True) as destination:
            moved = bare.move(source, destination)
            wall_ms = (time.monotonic() - began) * 1000
            source.stop()
            assert guest.scan()['verdict'] == 'good'
    return {'wall_ms': wall_ms, 'total_ms': moved['total_ms'],
            'blackout_ms': moved['downtime_ms']}


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def test_overhead(lab, place):
    ours = [godwit_move(place) for _ in range(N_RUNS)]
    template = place.command_line()
    place.guest.stop()
    theirs = [bare_move(lab, same_qemu(template)) for _ in range(N_RUNS)]
    for key, what in (('wall_ms', 'from the command to its end, start of the second QEMU included'),
                      ('total_ms', 'total by the engine; of the script without the start of QEMU'),
                      ('blackout_ms', "blackout by the engine; of the script QEMU's downtime")):
        figures.append(f'{what}: godwit {median(ours, key):.0f} ms, a bare script '
                       f'{median(theirs, key):.0f} ms (medians of {N_RUNS})')
    figures.append(f'overhead, both with the start of the second QEMU: '
                   f'{median(ours, "wall_ms") - median(theirs, "wall_ms"):+.0f} ms; Godwit\'s whole '
                   f'command against the script\'s QMP commands alone: '
                   f'{median(ours, "wall_ms") - median(theirs, "total_ms"):+.0f} ms '
                   '(goal: at most +150)')
