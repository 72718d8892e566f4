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
    cache     1 Gbit/s, Debian of 1 GiB with Redis: 250,000 records of 1 KB, of which 60,000 are set anew all
              the time; the first time its disk is made, which takes some minutes (mkdebian)
    plain     no limit on the link, nothing is written, codec none
    again     what a page costs that is sent again, offline: dumps of programs at work, see bench_pages

Contenders: `carrier…` and `native…` are `godwit migrate`; the others are a script that gives two
QEMUs the same QMP commands, without pre-switchover, on memory of the
same kind as Godwit's guests have (tests/lib/bare.py). The guest is the self-checking one (tests/guest) but for cache, under TCG where there is no KVM; after each
contender its memory is scanned, or the records are read with their checksums: a bad one ends everything.

Columns: copy: from QEMU's `migrate` until the destination runs. whole: that and starting the
second QEMU, checks and connections included. wire: transmitted by the source's uplink, by the
interface's counter. blackout: of godwit by its clocks, of the script QEMU's own `downtime`, which
ends before the script lets the guest run. again: pages sent in the second round and later, and what went
over the wire meanwhile, device state included (looked at 50 times a second). cpu: seconds of the whole
machine; godwitd: of them, both daemons'. memory: what the daemons take beyond what they had before, at most
(anonymous memory; looked at as often).

Times only mean something on a machine that does nothing else: compare.py does not begin
while others take more than a fifth of it. In a virtual machine that gives free memory back to its host, it
does not do so during the run (tests/lib/hostmemory.py). The lab needs root.
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
import guests  # pylint: disable=wrong-import-position
import hostmemory  # pylint: disable=wrong-import-position
import godwit_lab  # pylint: disable=wrong-import-position
from godwit_lab import Failure, Lab, resident_kib  # pylint: disable=wrong-import-position

VM = 'bench1'
MEMORY_MIB = 1024
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
    'native-none': ('--route', 'native', '--codec', 'none'),
    'native-none-2': ('--route', 'native', '--codec', 'none', '--channels', '2'),
}
# name: capabilities, parameters
BARE = {
    f'multifd{name}-{n}': (('multifd',), {'multifd-channels': n, 'multifd-compression': codec})
    for name, codec in (('', 'none'), ('-zstd', 'zstd')) for n in (1, 2, 4)
}
BARE['xbzrle'] = (('xbzrle',), {'xbzrle-cache-size': 512 << 20})

SHAPED = ('carrier', 'native', 'multifd-2', 'multifd-zstd-2', 'multifd-zstd-4', 'xbzrle')
CASES = {  # name: link, guest, its load, contenders
    'writing': ('1gbit', guests.SelfChecking, 250, SHAPED),
    'idle': ('1gbit', guests.SelfChecking, 0, SHAPED),
    'fastest': ('1gbit', guests.SelfChecking, None, ('carrier', 'multifd-zstd-2', 'multifd-zstd-4', 'xbzrle')),
    'cache': ('1gbit', guests.Cache, 1, ('carrier', 'multifd-zstd-2')),
    'plain': (None, guests.SelfChecking, 0, ('carrier-none-plain', 'carrier-none', 'native-none', 'multifd-1',
                                             'multifd-2', 'multifd-4')),
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


def sent_by(pid):
    """The same, of the network namespace that a process is in: cheaper."""
    with open(f'/proc/{pid}/net/dev', encoding='ascii') as source:
        return next(int(line.split()[9]) for line in source if line.strip().startswith('up0:'))


class Watch(threading.Thread):
    """What was sent when, from the first process's node; and the most anonymous memory that the
    processes had beyond what they have now, in MiB each."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.sent = []
        self.before = {pid: resident_kib(pid, 'RssAnon') for pid in pids}
        self.most = dict(self.before)
        self.ended = threading.Event()

    def run(self):
        source = next(iter(self.before))
        while not self.ended.wait(0.02):
            self.sent.append((time.time(), sent_by(source)))
            for pid in self.before:
                with contextlib.suppress(OSError):
                    self.most[pid] = max(self.most[pid], resident_kib(pid, 'RssAnon'))

    def mib(self):
        self.ended.set()
        self.join()
        return [(self.most[pid] - self.before[pid]) / 1024 for pid in self.before]

    def sent_since(self, moment):
        """Bytes; moment: of the wall's clock, in seconds. None: it was not watched then."""
        before = [n_bytes for at, n_bytes in self.sent if at <= moment]
        return self.sent[-1][1] - before[-1] if before else None


class Measure:
    """Counters of a move from `source` to `destination`."""

    def __init__(self, source, destination):
        self.source = source
        self.daemons = [node.daemon_pid() for node in (source, destination)]
        self.wire = sent_bytes(source)
        self.daemons_s = [process_cpu_s(pid) for pid in self.daemons]
        self.machine_s = machine_cpu_s()
        self.watch = Watch(self.daemons)
        self.watch.start()
        self.began = time.time()  # of the record's, too, but for the start of a program

    def end(self):
        daemons_s = [process_cpu_s(pid) - then for pid, then in zip(self.daemons, self.daemons_s)]
        return {'wire_bytes': sent_bytes(self.source) - self.wire,
                'cpu_s': machine_cpu_s() - self.machine_s,
                'source_daemon_s': daemons_s[0], 'destination_daemon_s': daemons_s[1],
                'daemons_mib': self.watch.mib()}


def busy_share(seconds=1):
    before = machine_cpu_s()
    time.sleep(seconds)  # not a wait for something: the measurement
    return (machine_cpu_s() - before) / seconds / os.cpu_count()


# --- contenders: start(), move(limit_s) -> dict, or None: not within the limit, stop() --------------

class ByGodwit:
    """The guest is Godwit's and goes back and forth."""

    def __init__(self, lab, options, kind, disk):
        self.lab, self.options, self.kind, self.disk, self.guest = lab, options, kind, disk, None

    def start(self):
        self.guest = self.kind.start(self.lab.n1, VM, memory=f'{MEMORY_MIB}MiB', append=self.kind.append(),
                                     disks=[{'file': self.disk}] if self.disk else None)

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
        again_ms = next((r['at_ms'] for r in record['rounds'] if r['round'] == 2), None)
        return {**measured, 'copy_ms': at_ms['finishing'] - at_ms['precopy'],
                'whole_ms': at_ms['finishing'], 'blackout_ms': record['blackout_ms'],
                'rounds': len(record['rounds']), 'own_wire_bytes': record['wire_bytes'],
                'pages': sum(pages.values()) if pages else None,
                'again_wire_bytes': again_ms and measure.watch.sent_since(measure.began + again_ms / 1000),
                'decisions': [d for d in record['decisions'] if d['rule'] == 'pace'],
                'carrier': record.get('carrier'), 'breakdown': record['breakdown']}


class Qemu(bare.BareQemu):
    """With a kind of guest."""

    def argv(self, name, memory_mib, incoming, guest):
        words = super().argv(name, memory_mib, incoming, {})
        words[words.index('-append') + 1] = guest['append']
        if guest['disk']:
            words += ['-drive', f'if=virtio,format=raw,cache=none,file={guest["disk"]}']
        return words


class ByScript:
    """The guest moves on from QEMU to QEMU."""

    def __init__(self, lab, setting, kind, disk):
        self.lab, self.setting, self.kind, self.disk = lab, setting, kind, disk
        self.qemu = self.guest = None
        self.n_started = 0

    def launch(self, node, incoming):
        self.n_started += 1
        return Qemu(node, f'b{self.n_started}', MEMORY_MIB, incoming, append=self.kind.append(),
                    disk=self.disk)

    def start(self):
        self.qemu = self.launch(self.lab.n1, False)
        self.guest = self.kind(self.lab, 'bare', self.qemu.log)
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
            ended, again_at = ended_well(source.qmp, limit_s)
            if not ended:
                return None
            destination.qmp.wait_event('MIGRATION', status='completed')
            destination.qmp.call('cont')
            ended = time.monotonic()
            facts = source.qmp.call('query-migrate')
            measured = measure.end()
            self.qemu, destination = destination, source
        finally:
            measure.watch.ended.set()
            destination.__exit__()
        ram = facts['ram']
        return {**measured, 'copy_ms': (ended - copy_began) * 1000, 'whole_ms': (ended - began) * 1000,
                'blackout_ms': facts['downtime'], 'rounds': ram['dirty-sync-count'],
                'own_wire_bytes': ram['transferred'], 'pages': ram['normal'] + ram['duplicate'],
                'again_wire_bytes': again_at and measure.watch.sent_since(again_at)}


def ended_well(qmp, limit_s):
    """Waits for the end of a migration; cancels one that takes too long. Whether it has moved, and when
    the second round began: by the wall's clock, or None."""
    deadline, cancelled, again_at = time.monotonic() + limit_s, False, None
    while True:
        if not qmp.events and b'\n' not in qmp.buffer and not cancelled and not select.select(
                [qmp.socket], [], [], max(deadline - time.monotonic(), 0))[0]:
            qmp.call('migrate_cancel')
            cancelled = True
        event = qmp.events.pop(0) if qmp.events else qmp.read()
        if event.get('event') == 'MIGRATION_PASS' and event['data']['pass'] == 2:
            again_at = time.time()
        status = event['data'].get('status') if event.get('event') == 'MIGRATION' else None
        if status == 'completed':
            return True, again_at
        if status == 'cancelled':
            return False, again_at
        if status == 'failed':
            raise Failure(f'QEMU: {qmp.call("query-migrate").get("error-desc")}')


@contextlib.contextmanager
def started(lab, kind, name):
    """The contender with its guest, which is checked at the end."""
    disk = kind.make_disk(lab)
    runner = ByGodwit(lab, GODWIT[name], kind, disk) if name in GODWIT else \
        ByScript(lab, BARE[name], kind, disk)
    note(f'{name}: the guest starts')
    try:
        runner.start()
        try:
            yield runner
            runner.guest.check()
        finally:
            runner.stop()
    finally:
        if disk:
            os.unlink(disk)


# --- cases ------------------------------------------------------------------------------------

def run_moves(lab, case, names, n_runs):
    """{contender: [runs]}"""
    _, kind, load, _ = CASES[case]
    found = {}
    for name in names:
        found[name] = []
        with started(lab, kind, name) as runner:
            for number in range(n_runs):
                achieved = runner.guest.set_load(load)
                run = runner.move(MOVE_S)
                runner.guest.check_moved()
                runner.guest.set_load(0)
                if run is None:
                    note(f'{name} {number + 1}/{n_runs}: not done after {MOVE_S} s')
                    continue
                run['achieved'] = achieved
                found[name].append(run)
                note(f'{name} {number + 1}/{n_runs}: copy {run["copy_ms"]:.0f} ms, '
                     f'{run["wire_bytes"] / 1e6:.0f} MB, blackout {run["blackout_ms"]:.0f} ms')
    return found


def run_search(lab, names):
    """{contender: [{rate, achieved, copy_ms or None}]}, up to the first rate that does not converge."""
    found = {}
    for name in names:
        found[name] = []
        with started(lab, guests.SelfChecking, name) as runner:
            for rate in RATES:
                achieved = runner.guest.set_load(rate)
                run = runner.move(CONVERGE_S)
                runner.guest.set_load(0)
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
            f'{again:>8} {number("again_wire_bytes", 1e6):>7} {number("cpu_s", 1, 2):>7} {daemons:>8.2f} {memory:>9}')


def print_moves(case, found, n_runs):
    link, _, load, _ = CASES[case]
    print(f'\n{case}: link {link or "unlimited"}, load {load}, medians of {n_runs}')
    print(f'{"":20} {"copy s":>7} {"whole s":>8} {"wire MB":>7} {"black. ms":>9} {"rounds":>7} '
          f'{"again MB":>8} {"wire MB":>7} {"cpu s":>7} {"godwitd":>8} {"MiB s/d":>9}')
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
    link, _, _, contenders = CASES[case]
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
    with hostmemory.kept():
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
