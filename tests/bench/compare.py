#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Moves one guest by the carrier and by QEMU alone, over the same link, and prints both side by side.

    compare.py writing idle              two cases, all contenders, medians of 5
    compare.py plain -n 3 --only carrier,multifd-2
    compare.py fastest --json out.json   which rate of writing still converges

Cases:
    writing   1 Gbit/s, 700 MiB of 1 GiB filled, 250 MB/s of pages dirtied by 8 bytes each in 300 MiB
    idle      the same, nothing is written
    fastest   the same at rising rates: the highest at which a move ends within 40 s
    plain     no limit on the link, nothing is written, codec none
    again     what a page costs that is sent again, offline: dumps of programs at work, see bench_pages

Contenders: `carrier…` and `native…` are `godwit migrate`; the others are a script that gives two
QEMUs the same QMP commands, without pre-switchover, on ordinary memory; with `-shared` on a shared memfd,
as Godwit's guests have it (tests/lib/bare.py). The
guest is the self-checking one (tests/guest), under TCG where there is no KVM; after each contender
its memory is scanned, and a bad page ends everything.

Columns: copy: from QEMU's `migrate` until the destination runs. whole: that and starting the
second QEMU, checks and connections included. wire: transmitted by the source's uplink, by the
interface's counter. blackout: of godwit by its clocks, of the script QEMU's own `downtime`, which
ends before the script lets the guest run. again: pages sent more than once. cpu: seconds of the
whole machine; godwitd: of them, both daemons'. memory: what the daemons take beyond what they had before, at most
(anonymous memory; looked at 50 times a second).

Times only mean something on a machine that does nothing else: compare.py does not begin
while others take more than a fifth of it. The lab needs root.
"""
import argparse
import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '../lib'))
import bare  # pylint: disable=wrong-import-position
import godwit_lab  # pylint: disable=wrong-import-position
from godwit_lab import Failure, Guest, Lab, resident_kib  # pylint: disable=wrong-import-position

VM = 'bench1'
MEMORY_MIB = 1024
GUEST = {'fill': '700MiB', 'wss': '300MiB', 'bytes': 8, 'rate': 0, 'scan': 0, 'compress': 50}
BLACKOUT_MS = 100
RATES = (64, 100, 160, 250, 400, 640, 1000, 1600)  # MB/s of pages; steps of 1.6
CONVERGE_S = 40
MOVE_S = 40
BUSY_MOST = 0.2  # of the machine, by others

# name: options of `godwit migrate`
GODWIT = {
    'carrier': ('--route', 'carrier', '--codec', 'zstd', '--channels', '2'),
    'carrier-4': ('--route', 'carrier', '--codec', 'zstd', '--channels', '4'),
    'carrier-none': ('--route', 'carrier', '--codec', 'none', '--channels', '2'),
    'carrier-none-plain': ('--route', 'carrier', '--codec', 'none', '--channels', '2',
                           '--transport', 'tcp?plain=yes'),
    'native': ('--route', 'native', '--codec', 'zstd', '--channels', '2'),
    'native-none': ('--route', 'native', '--codec', 'none', '--channels', '2'),
}
# name: capabilities, parameters
BARE = {
    f'multifd{name}-{n}': (('multifd',), {'multifd-channels': n, 'multifd-compression': codec})
    for name, codec in (('', 'none'), ('-zstd', 'zstd')) for n in (2, 4)
}
BARE['multifd-shared-2'] = BARE['multifd-2']
BARE['xbzrle'] = (('xbzrle',), {'xbzrle-cache-size': 512 << 20})

SHAPED = ('carrier', 'native', 'multifd-2', 'multifd-zstd-2', 'multifd-zstd-4', 'xbzrle')
CASES = {  # name: link, MB/s of pages, contenders
    'writing': ('1gbit', 250, SHAPED),
    'idle': ('1gbit', 0, SHAPED),
    'fastest': ('1gbit', None, ('carrier', 'multifd-zstd-2', 'multifd-zstd-4', 'xbzrle')),
    'plain': (None, 0, ('carrier-none-plain', 'carrier-none', 'native-none', 'multifd-2', 'multifd-4',
                       'multifd-shared-2')),
    'again': None,
}


def note(text):
    print(text, file=sys.stderr, flush=True)


# --- what is measured from outside ------------------------------------------------------------

def machine_cpu_s():
    with open('/proc/stat', encoding='ascii') as source:
        user, nice, system, _, _, irq, softirq, *_ = map(int, source.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf('SC_CLK_TCK')


def process_cpu_s(pid):
    with open(f'/proc/{pid}/stat', encoding='ascii') as source:
        fields = source.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def sent_bytes(node):
    shown = subprocess.check_output(['ip', '-n', node.namespace, '-s', '-json', 'link', 'show', 'up0'])
    return json.loads(shown)[0]['stats64']['tx']['bytes']


class Peak(threading.Thread):
    """The most anonymous memory that processes had beyond what they have now, in MiB each."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.before = {pid: resident_kib(pid, 'RssAnon') for pid in pids}
        self.most = dict(self.before)
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(0.02):
            for pid in self.before:
                with contextlib.suppress(OSError):
                    self.most[pid] = max(self.most[pid], resident_kib(pid, 'RssAnon'))

    def mib(self):
        self.ended.set()
        self.join()
        return [(self.most[pid] - self.before[pid]) / 1024 for pid in self.before]


class Measure:
    """Counters of a move from `source` to `destination`."""

    def __init__(self, source, destination):
        self.source = source
        self.daemons = [node.daemon_pid() for node in (source, destination)]
        self.wire = sent_bytes(source)
        self.daemons_s = [process_cpu_s(pid) for pid in self.daemons]
        self.machine_s = machine_cpu_s()
        self.peak = Peak(self.daemons)
        self.peak.start()

    def end(self):
        daemons_s = [process_cpu_s(pid) - then for pid, then in zip(self.daemons, self.daemons_s)]
        return {'wire_bytes': sent_bytes(self.source) - self.wire,
                'cpu_s': machine_cpu_s() - self.machine_s,
                'source_daemon_s': daemons_s[0], 'destination_daemon_s': daemons_s[1],
                'daemons_mib': self.peak.mib()}


def busy_share(seconds=1):
    before = machine_cpu_s()
    time.sleep(seconds)  # not a wait for something: the measurement
    return (machine_cpu_s() - before) / seconds / os.cpu_count()


# --- contenders: start(), move(limit_s) -> dict, or None: not within the limit, stop() --------------

class ByGodwit:
    """The guest is Godwit's and goes back and forth."""

    def __init__(self, lab, options):
        self.lab, self.options, self.guest = lab, options, None

    def start(self):
        self.guest = Guest.start(self.lab.n1, VM, memory=f'{MEMORY_MIB}MiB',
                                 append=godwit_lab.guest_append(**GUEST))

    def stop(self):
        self.guest.stop()

    def move(self, limit_s):
        here = self.guest.node()
        source = self.lab.nodes[here]
        destination = self.lab.nodes['n2' if here == 'n1' else 'n1']
        measure = Measure(source, destination)
        result = source.migrate(VM, destination.name, *self.options, '--blackout', BLACKOUT_MS,
                                '--timeout', limit_s, check=False)
        measured = measure.end()
        if result.status != 0:
            if result.json['error']['code'] != 'timeout':
                raise Failure(str(result))
            return None
        record = result.json
        at_ms = {phase['phase']: phase['at_ms'] for phase in record['phases']}
        pages = (record.get('carrier') or {}).get('pages')
        return {**measured, 'copy_ms': at_ms['finishing'] - at_ms['precopy'],
                'whole_ms': at_ms['finishing'], 'blackout_ms': record['blackout_ms'],
                'rounds': len(record['rounds']), 'own_wire_bytes': record['wire_bytes'],
                'pages': sum(pages.values()) if pages else None,
                'decisions': [d for d in record['decisions'] if d['rule'] == 'pace'],
                'carrier': record.get('carrier'), 'breakdown': record['breakdown']}


class SharedQemu(bare.BareQemu):
    """Its RAM is a shared memfd."""

    def argv(self, name, memory_mib, incoming, guest):
        words = super().argv(name, memory_mib, incoming, guest)
        words[words.index('-machine') + 1] += ',memory-backend=ram0'
        return [*words, '-object', f'memory-backend-memfd,id=ram0,size={memory_mib}M,share=on']


class ByScript:
    """The guest moves on from QEMU to QEMU."""

    def __init__(self, lab, setting, qemu):
        self.lab, self.setting, self.kind = lab, setting, qemu
        self.qemu = self.guest = None
        self.n_started = 0

    def launch(self, node, incoming):
        self.n_started += 1
        return self.kind(node, f'b{self.n_started}', MEMORY_MIB, incoming, **GUEST)

    def start(self):
        self.qemu = self.launch(self.lab.n1, False)
        self.guest = Guest(self.lab, 'bare', self.qemu.log)
        self.guest.wait_ready()

    def stop(self):
        self.qemu.__exit__()

    def arm(self, qmp):
        capabilities, parameters = self.setting
        qmp.call('migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': True} for name in ('return-path', 'events', *capabilities)])
        qmp.call('migrate-set-parameters', **{'max-bandwidth': 1 << 40, 'downtime-limit': BLACKOUT_MS,
                                              **parameters})

    def move(self, limit_s):
        source = self.qemu
        node = self.lab.nodes['n2' if source.node.name == 'n1' else 'n1']
        measure = Measure(source.node, node)
        began = time.monotonic()
        destination = self.launch(node, True)
        try:
            for qmp in (source.qmp, destination.qmp):
                self.arm(qmp)
            uri = f'tcp:{node.address}:49900'
            destination.qmp.call('migrate-incoming', uri=uri)
            copy_began = time.monotonic()
            source.qmp.call('migrate', uri=uri)
            if not ended_well(source.qmp, limit_s):
                return None
            destination.qmp.wait_event('MIGRATION', status='completed')
            destination.qmp.call('cont')
            ended = time.monotonic()
            facts = source.qmp.call('query-migrate')
            measured = measure.end()
            self.qemu, destination = destination, source
        finally:
            measure.peak.ended.set()
            destination.__exit__()
        ram = facts['ram']
        return {**measured, 'copy_ms': (ended - copy_began) * 1000, 'whole_ms': (ended - began) * 1000,
                'blackout_ms': facts['downtime'], 'rounds': ram['dirty-sync-count'],
                'own_wire_bytes': ram['transferred'], 'pages': ram['normal'] + ram['duplicate']}


def ended_well(qmp, limit_s):
    """Waits for the end of a migration; cancels one that takes too long."""
    deadline, cancelled = time.monotonic() + limit_s, False
    while True:
        if not qmp.events and b'\n' not in qmp.buffer and not cancelled and not select.select(
                [qmp.socket], [], [], max(deadline - time.monotonic(), 0))[0]:
            qmp.call('migrate_cancel')
            cancelled = True
        event = qmp.events.pop(0) if qmp.events else qmp.read()
        status = event['data'].get('status') if event.get('event') == 'MIGRATION' else None
        if status == 'completed':
            return True
        if status == 'cancelled':
            return False
        if status == 'failed':
            raise Failure(f'QEMU: {qmp.call("query-migrate").get("error-desc")}')


def contender(lab, name):
    if name in GODWIT:
        return ByGodwit(lab, GODWIT[name])
    return ByScript(lab, BARE[name], SharedQemu if 'shared' in name else bare.BareQemu)


@contextlib.contextmanager
def started(lab, name):
    runner = contender(lab, name)
    note(f'{name}: the guest starts')
    runner.start()
    try:
        yield runner
        scan = runner.guest.scan()
        if scan['verdict'] != 'good':
            raise Failure(f'{name}: the guest has lost memory: {scan}')
    finally:
        runner.stop()


# --- cases ------------------------------------------------------------------------------------

def set_rate(guest, rate):
    """Sets it, and waits until the guest has written for a second at its new rate."""
    guest.ask(f'SET rate {rate}')
    deadline = time.monotonic() + 5
    while rate and guest.status()['achieved_mb_per_s'] < rate * 0.9 and time.monotonic() < deadline:
        pass
    return guest.status()['achieved_mb_per_s']


def run_moves(lab, case, names, n_runs):
    """{contender: [runs]}"""
    _, rate, _ = CASES[case]
    found = {}
    for name in names:
        found[name] = []
        with started(lab, name) as runner:
            for number in range(n_runs):
                achieved = set_rate(runner.guest, rate)
                run = runner.move(MOVE_S)
                set_rate(runner.guest, 0)
                if run is None:
                    note(f'{name} {number + 1}/{n_runs}: not done after {MOVE_S} s')
                    continue
                run['achieved_mb_per_s'] = achieved
                found[name].append(run)
                note(f'{name} {number + 1}/{n_runs}: copy {run["copy_ms"]:.0f} ms, '
                     f'{run["wire_bytes"] / 1e6:.0f} MB, blackout {run["blackout_ms"]:.0f} ms')
    return found


def run_search(lab, names):
    """{contender: [{rate, achieved, copy_ms or None}]}, up to the first rate that does not converge."""
    found = {}
    for name in names:
        found[name] = []
        with started(lab, name) as runner:
            for rate in RATES:
                achieved = set_rate(runner.guest, rate)
                run = runner.move(CONVERGE_S)
                set_rate(runner.guest, 0)
                found[name].append({'rate_mb_per_s': rate, 'achieved_mb_per_s': achieved,
                                    'copy_ms': run and run['copy_ms'],
                                    'blackout_ms': run and run['blackout_ms'],
                                    'wire_bytes': run and run['wire_bytes']})
                note(f'{name}, {rate} MB/s (the guest wrote {achieved:.0f}): ' +
                     (f'{run["copy_ms"] / 1000:.1f} s, {run["wire_bytes"] / 1e6:.0f} MB, blackout '
                      f'{run["blackout_ms"]:.0f} ms' if run else f'not done after {CONVERGE_S} s'))
                if run is None:
                    break
    return found


def median(runs, key):
    values = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(values) if values else None


def row(name, runs, base):
    def number(key, scale=1.0, digits=0):
        value = median(runs, key)
        return '–' if value is None else f'{value / scale:.{digits}f}'

    if not runs:
        return f'{name:20} not done'
    pages = median(runs, 'pages')
    again = f'{(pages * 4096 - base) / 1e6:.0f}' if pages and base else '–'
    daemons = statistics.median(r['source_daemon_s'] + r['destination_daemon_s'] for r in runs)
    memory = '/'.join(f'{statistics.median(r["daemons_mib"][i] for r in runs):.0f}' for i in (0, 1))
    return (f'{name:20} {number("copy_ms", 1000, 2):>7} {number("whole_ms", 1000, 2):>8} '
            f'{number("wire_bytes", 1e6):>7} {number("blackout_ms"):>9} {number("rounds"):>7} '
            f'{again:>8} {number("cpu_s", 1, 2):>7} {daemons:>8.2f} {memory:>9}')


def print_moves(case, found, n_runs):
    link, rate, _ = CASES[case]
    print(f'\n{case}: link {link or "unlimited"}, {rate} MB/s of pages written, medians of {n_runs}')
    print(f'{"":20} {"copy s":>7} {"whole s":>8} {"wire MB":>7} {"black. ms":>9} {"rounds":>7} '
          f'{"again MB":>8} {"cpu s":>7} {"godwitd":>8} {"MiB s/d":>9}')
    for name, runs in found.items():
        print(row(name, runs, MEMORY_MIB << 20))


def print_search(found):
    print(f'\nfastest: highest rate (MB/s of pages, 8 bytes written in each) done within {CONVERGE_S} s')
    for name, tries in found.items():
        good = [t for t in tries if t['copy_ms'] is not None]
        last = tries[-1]
        print(f'{name:20} ' + (f'{good[-1]["rate_mb_per_s"]} (the guest wrote '
                               f'{good[-1]["achieved_mb_per_s"]:.0f}), {good[-1]["copy_ms"] / 1000:.1f} s'
                               if good else 'none') +
              ('' if last['copy_ms'] is None else '; nothing faster was tried'))


# --- pages sent again, offline ---------------------------------------------------------------------

def byte_table(*dumps):
    """The first table of bench_pages: its two lines of head, and its rows."""
    lines = subprocess.check_output([f'{godwit_lab.BUILD}/tests/bench/bench_pages', *dumps],
                                    text=True).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('bytes;'))
    return lines[start:start + 2], lines[start + 2:lines.index('', start)]


def run_again():
    """{workload: row of bench_pages}: dumps of this machine's own programs, one second apart."""
    heads, made_up = byte_table()
    found = {f'made up: {line[:18].strip()}': line for line in made_up}
    with tempfile.TemporaryDirectory(prefix='godwit-compare-') as place:
        for kind in ('cache', 'objects', 'database'):
            note(f'{kind}: two dumps')
            dumps = (f'{place}/old', f'{place}/new')
            subprocess.run([sys.executable, f'{HERE}/dump_pair.py', '--after', '1', *dumps, '--',
                            sys.executable, f'{HERE}/workloads.py', kind], check=True,
                           stdout=subprocess.DEVNULL)
            found[kind] = byte_table(*dumps)[1][0]
    return {'heads': heads, 'lines': found}


def print_again(found):
    print('\nagain: bytes for pages sent again; those of QEMU with zstd 1 are 100, see bench_pages')
    for head in found['heads']:
        print(f'{"":26} {head}')
    for name, line in found['lines'].items():
        print(f'{name:26} {line}')


# --- command line -------------------------------------------------------------------------------

def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('case', nargs='+', choices=list(CASES))
    parser.add_argument('-n', type=int, default=5, metavar='N', help='moves of each contender (default 5)')
    parser.add_argument('--only', metavar='NAME,…', help='these contenders, of: ' +
                        ', '.join([*GODWIT, *BARE]))
    parser.add_argument('--json', metavar='FILE', help='write every single move there, too')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                        help='a setting of the daemons, as of godwit-lab up')
    parser.add_argument('--force', action='store_true', help='measure on a busy machine, too')
    options = parser.parse_args()
    names = options.only.split(',') if options.only else None
    for name in names or []:
        if name not in GODWIT and name not in BARE:
            parser.error(f'no contender {name}')
    return options, names


def run_case(case, options, names):
    if case == 'again':
        found = run_again()
        print_again(found)
        return found
    link, _, contenders = CASES[case]
    settings = [word for setting in options.set for word in ('--set', setting)]
    with Lab(f'c{os.getpid()}', *(('--link', link) if link else ()), *settings) as lab:
        if case == 'fastest':
            found = run_search(lab, names or contenders)
            print_search(found)
        else:
            found = run_moves(lab, case, names or contenders, options.n)
            print_moves(case, found, options.n)
    return found


def main():
    options, names = parse()
    share = busy_share()
    if share > BUSY_MOST:
        note(f'compare: others take {share:.0%} of this machine; times will not mean much')
        if not options.force:
            note('wait until it is idle, or give --force')
            sys.exit(1)
    found = {}
    for case in options.case:
        found[case] = run_case(case, options, names)
        sys.stdout.flush()
    if options.json:
        with open(options.json, 'w', encoding='utf-8') as out:
            json.dump(found, out, indent=1)
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f'compare: {failure}')
