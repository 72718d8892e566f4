# SPDX-License-Identifier: Apache-2.0
"""The crash matrix: at one place of a migration one thing goes wrong, and whatever it was

 - exactly one guest runs, on the node that its owner record names; none only where the QEMU of that
   node was killed. Who runs is also seen in the processor time that the kernel counts;
 - its memory is good, it never sent a packet twice, and it can be moved afterwards;
 - both daemons and `godwit migrate` agree on how it ended;
 - nothing is left over.

A place is "source op switch" and the like (engine/shell/breakpoint.h), where that daemon stands
still while the deed is done, or "copying", in the middle of pre-copy with both daemons running.
GODWIT_MATRIX=full runs every deed at every place.
"""
import contextlib

import os
import re
import signal
import sqlite3
import subprocess
import time

import pytest

import crash
import godwit_lab
from conftest import VM, Place, figures
from godwit_lab import Events, copying

UUID = '0b5e55ed-0000-4000-8000-6d6174726978'
# At this rate one pass over the guest's memory takes longer than any case.
SLOW = ('--bandwidth', '2MiB/s', '--codec', 'none')
ENDS = (' -> completed', ' -> failed', ' -> cancelled')
# The source has heard nothing, has asked the store and knows that the destination may run it.
DISOWNED = 'the owner record was not taken back'
SETTLE_S = 90
FULL = os.environ.get('GODWIT_MATRIX') == 'full'

# Where each daemon stops, in order.
BEFORE_QEMU = ['source op inspect', 'source done connect', 'source say prepare',
               'destination op launch']
WITH_QEMU = ['destination done launch', 'destination op arm', 'destination op listen',
             'destination say prepared', 'destination phase precopy', 'source op arm',
             'source op start', 'source done start', 'source phase precopy', 'copying',
             'source say switching', 'source op switch', 'source phase switchover',
             'destination phase switchover', 'source done switch', 'source say commit',
             'source phase committing', 'destination op claim', 'destination phase committing',
             'destination done claim', 'destination op resume', 'destination done resume',
             'destination say running', 'destination phase finishing', 'source phase finishing',
             'source say finished', 'source op destroy']
AFTER_SOURCE = ['source done destroy', 'source phase completed', 'destination phase completed']
PLACES = BEFORE_QEMU + WITH_QEMU + AFTER_SOURCE
# Undoing: a person cancels in the middle of pre-copy.
UNDOING = ['source say abort', 'source op stop-copy', 'source op disarm', 'source done disarm',
           'source phase failing', 'source phase cancelled', 'destination phase failing',
           'destination op destroy', 'destination say aborted', 'destination phase cancelled']

SOURCE_DAEMON, DESTINATION_DAEMON = 'source daemon', 'destination daemon'
BOTH_DAEMONS = 'both daemons'
SOURCE_QEMU, DESTINATION_QEMU = 'source QEMU', 'destination QEMU'
LINK = 'link'
# The daemon comes back only when the other one has given up on it.
SOURCE_DAEMON_LONG = 'source daemon for long'
DESTINATION_DAEMON_LONG = 'destination daemon for long'
# The daemon stays as it is, stopped, until the other one has given up on it.
STANDS_STILL = 'nothing'


def own_daemon(place):
    return {'source': SOURCE_DAEMON}.get(place.split()[0], DESTINATION_DAEMON)


def possible():
    """The whole product."""
    for place in PLACES:
        deeds = [SOURCE_DAEMON, DESTINATION_DAEMON, BOTH_DAEMONS, LINK]
        deeds += [DESTINATION_QEMU] if place not in BEFORE_QEMU else []
        deeds += [SOURCE_QEMU] if place not in AFTER_SOURCE else []
        for deed in deeds:
            yield place, deed
    for place in UNDOING:
        for deed in (SOURCE_DAEMON, DESTINATION_DAEMON, BOTH_DAEMONS, SOURCE_QEMU,
                     DESTINATION_QEMU, LINK):
            if deed == DESTINATION_QEMU and place in UNDOING[-2:]:
                continue
            yield place, deed
    for place in WITH_QEMU[WITH_QEMU.index('source say commit'):]:
        yield place, own_daemon(place) + ' for long'
        if place.startswith('destination'):
            yield place, STANDS_STILL


# What ./check runs. At these places their own daemon is killed …
TELLING = ['source done connect', 'destination op launch', 'source op arm', 'destination op listen',
           'source op start', 'destination phase precopy', 'source say switching',
           'source op switch', 'destination phase switchover', 'source say commit',
           'source phase committing', 'destination op claim', 'destination done claim',
           'destination op resume', 'destination done resume', 'destination say running',
           'source phase finishing', 'source op destroy', 'destination phase completed',
           'source op stop-copy', 'source phase cancelled', 'destination phase failing',
           'destination op destroy']
# … and at these, the rest.
OTHERS = {
    'copying': [SOURCE_DAEMON, DESTINATION_DAEMON, BOTH_DAEMONS, SOURCE_QEMU, DESTINATION_QEMU,
                LINK],
    'source op switch': [DESTINATION_DAEMON, SOURCE_QEMU, DESTINATION_QEMU, LINK],
    'source say commit': [BOTH_DAEMONS, DESTINATION_QEMU, LINK, SOURCE_DAEMON_LONG],
    'destination op claim': [SOURCE_DAEMON, BOTH_DAEMONS, SOURCE_QEMU, DESTINATION_QEMU, LINK,
                             STANDS_STILL, DESTINATION_DAEMON_LONG],
    'destination done claim': [BOTH_DAEMONS, DESTINATION_QEMU, LINK, STANDS_STILL,
                               DESTINATION_DAEMON_LONG],
    'destination done resume': [BOTH_DAEMONS, DESTINATION_QEMU],
    'destination say running': [SOURCE_DAEMON, SOURCE_QEMU],
}


def chosen():
    yield from ((place, own_daemon(place)) for place in TELLING)
    yield from ((place, deed) for place, deeds in OTHERS.items() for deed in deeds)


CASES = list(possible() if FULL else chosen())


def machine():
    """The very machine type, which a QEMU that was started for an arriving guest has as well."""
    listed = subprocess.check_output([godwit_lab.which_qemu(), '-machine', 'help'], text=True)
    return re.search(r'^q35 .*\(alias of (\S+)\)', listed, re.MULTILINE).group(1)


def vm_path(node):
    return f'{node.dir}/etc/{VM}.yaml'


class Kind:
    """What the guest of all cases is: here without disks, its owner record in a shared directory.
    tests/rbd has another."""

    name = 'crash matrix'
    Guest = godwit_lab.Guest

    def __init__(self, lab):
        self.lab = lab

    def options(self):
        """More for Guest.start()."""
        return {'append': godwit_lab.guest_append(fill='16MiB', wss='8MiB', rate=4)}

    def start(self, node):
        """Small, so that a move is quick; its uuid is known, so that its record is the same in each
        of its lives."""
        guest = self.Guest.start(node, VM, uuid=UUID, memory='128MiB', machine=machine(),
                                 **self.options())
        os.unlink(vm_path(node))
        return guest

    def record(self):
        return godwit_lab.owner_record(self.lab, UUID)

    def remove_record(self):
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(f'{self.lab.owners}/{UUID}'):
                os.unlink(f'{self.lab.owners}/{UUID}/{name}')
            os.rmdir(f'{self.lab.owners}/{UUID}')

    def store(self):
        """The store of owner records, so that it can fail."""
        return crash.Store(self.lab)

    def forget_the_dead(self, here):
        """Before the guest, which is on that node, moves."""

    def judge(self, guest, here):
        """What else must be true of a guest that runs on this node."""


class Case:
    """One thing that goes wrong in one move, and what came of it."""

    def __init__(self, place, news, where):
        self.place, self.news, self.where = place, news, where
        self.kind = place.kind
        self.source, self.destination = place.source, place.destination
        self.killed = set()  # names of the nodes whose QEMU was killed
        self.renewed = set()
        self.pids = {node: node.daemon_pid() for node in (self.source, self.destination)}
        self.source_qemu = self.source.vms()[VM]['pid']

    def node_of(self, where):
        return self.source if where.startswith('source') else self.destination

    def kill_daemon(self, node):
        godwit_lab.kill(self.pids[node])
        self.renewed.add(node.name)

    def kill_qemu(self, node):
        pid = self.source_qemu if node is self.source else godwit_lab.only(node.qemu_pids())
        godwit_lab.kill(pid)
        self.killed.add(node.name)

    def gave_up(self, node):
        """Waits until this node has done all that it can do alone."""
        texts = [*ENDS, DISOWNED, ' -> finishing']
        while self.news.wait(0):
            pass
        if ': preparing' in self.news.lines[node.name] or ' -> ' in self.news.lines[node.name]:
            self.news.until(node, *texts, timeout_s=SETTLE_S)

    def do(self, deed, stop):
        """Does it, and lets everything go on; gives the deed's undoing, for later."""
        for node, name in ((self.source, 'source'), (self.destination, 'destination')):
            if deed in (f'{name} daemon', BOTH_DAEMONS, f'{name} daemon for long'):
                self.kill_daemon(node)
            if deed == f'{name} QEMU':
                self.kill_qemu(node)
        if deed == LINK:
            self.destination.set_link('down')
        if stop and deed != STANDS_STILL:
            stop.go_on()
        if deed == LINK:
            self.gave_up(self.source)
            self.destination.set_link('up')
            self.source.run('ping', '-c', '1', '-w', '20', self.destination.address)
        elif deed == STANDS_STILL:
            self.gave_up(self.source)
            stop.go_on()
        elif deed == SOURCE_DAEMON_LONG:
            self.gave_up(self.destination)
        elif deed == DESTINATION_DAEMON_LONG:
            self.gave_up(self.source)
        for node in (self.source, self.destination):
            if node.name in self.renewed:
                node.start_daemon()
                self.pids[node] = node.daemon_pid()

    # --- what came of it ---

    def migrations(self, identity):
        """What each node says of it: its state, or None where it never heard of it."""
        for node in (self.source, self.destination):
            status, body = node.request('GET', f'/v1/migrations/{identity}')
            yield body['state'] if status == 200 else None

    def owner(self):
        """The node that the record names, unless its QEMU was killed."""
        record = self.kind.record()
        if not record and self.killed:
            return None  # it is removed with its guest, where no migration stands in between
        assert record, f'no owner record is left\n{self.news}'
        return None if record['node'] in self.killed else self.place.lab.nodes[record['node']]

    def states(self):
        return {node.name: node.vms().get(VM, {}).get('state')
                for node in (self.source, self.destination)}

    def settled(self):
        """Nothing goes on any more, and the one that the record names runs the guest."""
        open_ones = [m for node in (self.source, self.destination)
                     for m in node.request('GET', '/v1/migrations')[1]
                     if m['state'] not in ('completed', 'failed', 'cancelled')]
        owner = self.owner()
        states = self.states()
        running = [name for name, state in states.items() if state == 'running']
        busy = [name for name, state in states.items() if state in ('incoming', 'ending',
                                                                    'starting')]
        return not open_ones and not busy and running == ([owner.name] if owner else [])

    def settle(self):
        deadline = time.monotonic() + SETTLE_S
        while not self.settled():
            if time.monotonic() > deadline:
                raise godwit_lab.Failure(
                    f'it does not settle: {self.states()}, the record is '
                    f'{self.kind.record()}, killed: '
                    f'{self.killed}\n{self.news}')
            self.news.wait(0.2)

    def judge(self, result, allowed=()):
        """Everything that must be true now, before anything is repaired."""
        try:
            self.settle()
            self.judge_settled(result, allowed)
        except AssertionError as failure:
            raise godwit_lab.Failure(f'{failure}\n{result}\n{self.news}') from failure

    def judge_settled(self, result, allowed):
        owner = self.owner()
        assert self.where != 'copying' or owner is not self.destination, 'nothing has gone wrong'
        look = self.place.guest.scan if owner else self.source.vms
        expected = [owner.name] if owner else []
        nodes = (self.source, self.destination)
        assert crash.executing(nodes, look) == expected
        if owner:
            self.place.guest.assert_good(owner.name)
            self.kind.judge(self.place.guest, owner)
        status = 3 if not owner else 1 if owner is self.source else 0
        assert result.status in (allowed or (status,)), f'{status} was expected'
        if 'id' in result.json and status == result.status:
            self.judge_record(result, owner)
        if result.status != 0:
            assert result.json['error']['message'] and result.json['error']['hint']
            if result.status == 1:
                assert f'{VM} runs on {self.source.name}, as before' in result.stderr

    def judge_record(self, result, owner):
        here, there = self.migrations(result.json['id'])
        if owner is self.destination:
            assert (here, there) == ('completed', 'completed')
        else:
            assert here in ('failed', 'cancelled') and there in ('failed', 'cancelled', None), \
                (here, there)

    # --- and what a person does then ---

    def start_again(self):
        """The guest is gone. It starts where its record says, and nowhere else."""
        lab = self.place.lab
        record = self.kind.record()
        if not record:
            self.place.guest = self.kind.start(self.source)
            return
        home = lab.nodes[record['node']]
        other = self.destination if home is self.source else self.source
        if VM in other.vms():  # a paused copy, which must not come back by itself
            assert other.vms()[VM]['state'] == 'paused'
            other.godwit('vm', 'stop', VM, '--force')
        godwit_lab.write_vm_file(other, VM, uuid=UUID, **self.kind.options())
        refused = other.godwit('vm', 'start', vm_path(other), '--json', check=False)
        os.unlink(vm_path(other))
        assert refused.status == 1 and 'owner record' in refused.stderr and \
            f'godwit resolve {UUID}' in refused.stderr, str(refused)
        self.place.guest = self.kind.start(home)

    def finish(self, before):
        """The guest moves, to where it was at first, and nothing is left of all this."""
        place = self.place
        if not self.owner():
            self.start_again()
            self.renewed |= {self.source.name, self.destination.name}
        place.find()
        self.kind.forget_the_dead(place.source)
        moved = place.source is not self.source
        if moved:
            place.move()
            self.renewed |= {self.source.name, self.destination.name}
        godwit_lab.assert_nothing_left(place.lab, before, self.renewed, timeout_s=60)
        if not moved:
            place.move()


@pytest.fixture(scope='module')
def kind(lab):
    return Kind(lab)


@pytest.fixture(scope='module')
def cases(kind):
    """Counts them."""
    count = {'good': 0, 'all': 0, 'bad': 0, 'began': time.monotonic()}
    yield count
    figures.append(f'{kind.name}: {count["good"]} of {count["all"]} cases good in '
                   f'{time.monotonic() - count["began"]:.0f} s')


@pytest.fixture(scope='module')
def resident(lab, running, cases, kind):
    """The guest of all cases. The session's guest has the same address and makes room."""
    if 'guest' in running:
        running.pop('guest').stop()
    godwit_lab.Guest(lab, VM, None).stop()
    running['matrix'] = kind.start(lab.n1)
    yield running
    running.pop('matrix').stop()


def heal(lab):
    """After a case that went wrong, for the next."""
    for node in (lab.n1, lab.n2):
        node.set_link('up')
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f'{node.dir}/run/breakpoint')
        if node.daemon_pid():
            crash.go_on(node.daemon_pid())
        else:
            node.start_daemon()


@pytest.fixture
def matrix(lab, resident, cases, kind):
    heal(lab)
    try:
        assert cases['good'] + cases['bad'] == cases['all'], 'the last case went wrong'
        place = Place(resident['matrix'])
        place.guest.status()
    except AssertionError:
        cases['bad'] = cases['all'] - cases['good']
        godwit_lab.Guest(lab, VM, None).stop()
        kind.remove_record()
        resident['matrix'] = kind.start(lab.n1)
        place = Place(resident['matrix'])
    place.kind = kind
    yield place
    resident['matrix'] = place.guest


@contextlib.contextmanager
def at(place, where, *options):
    """A move that has come to this place: gives the case, the move and what to let go on."""
    with crash.News(place.source, place.destination) as news, \
            godwit_lab.UdpSink(place.lab.n3) as sink:
        case = Case(place, news, where)
        stop = crash.Breakpoint(case.node_of(where), where, news) if where != 'copying' else None
        try:
            with Events(place.source) as events:
                move = place.start_move(*(SLOW if where in ('copying', *UNDOING) else ()),
                                        *options)
                if where in ('copying', *UNDOING):
                    events.wait_migration(copying(1 << 20))
                    for node in (place.source, place.destination):
                        news.until(node, ' -> precopy')
                if where in UNDOING:
                    move.process.send_signal(signal.SIGINT)
            if stop:
                stop.wait()
            yield case, move, stop
            report = sink.report()
            case.silent_ms = report['longest_gap_ms']
            assert report['duplicates'] == 0, 'two copies of the guest were running'
        finally:
            if stop:
                stop.remove()
                stop.go_on()
            with contextlib.suppress(ProcessLookupError):
                move.process.send_signal(signal.SIGKILL)


def allowed(where, deed):
    """Exit statuses besides the one that follows from who runs the guest."""
    # The daemon died before it had answered that the migration began.
    if deed in (SOURCE_DAEMON, BOTH_DAEMONS) and where == 'source op inspect':
        return (3,)
    # The guest had moved; that its QEMU was killed after it is another story.
    if deed == DESTINATION_QEMU and \
            where in PLACES[PLACES.index('destination done resume'):]:
        return (0, 3)
    return ()


def run_case(matrix, cases, where, deed, *options):
    """Gives for how long the guest was not heard of."""
    cases['all'] += 1
    before = godwit_lab.snapshot(matrix.lab)
    with at(matrix, where, *options) as (case, move, stop):
        case.do(deed, stop)
        case.judge(move.result(), allowed(where, deed))
    case.finish(before)
    cases['good'] += 1
    return case.silent_ms


@pytest.mark.parametrize('where, deed', CASES, ids=lambda text: text.replace(' ', '-'))
def test_crash(matrix, cases, where, deed):
    run_case(matrix, cases, where, deed)


@pytest.mark.parametrize('deed', [SOURCE_DAEMON, DESTINATION_DAEMON, BOTH_DAEMONS, DESTINATION_QEMU, LINK])
@pytest.mark.parametrize('where', ['copying', 'source op switch'])
def test_crash_of_the_carrier(matrix, cases, where, deed):
    """Both daemons carry the pages, so each is a part of QEMU's connections."""
    run_case(matrix, cases, where, deed, '--route', 'carrier')


@pytest.mark.parametrize('options', [('--route', 'carrier'), ('--route', 'native', '--channels', '4')],
                         ids=lambda options: options[1])
def test_the_guest_comes_back_at_once(matrix, cases, options):
    """QEMU with several channels is easily left with its lock held when one of them breaks here."""
    for _ in range(5):
        silent_ms = run_case(matrix, cases, 'source op switch', DESTINATION_DAEMON, *options)
        assert silent_ms < 3000


def test_a_silent_destination(matrix, cases):
    """A restarted daemon finds the QEMU of a guest that was on its way here, and it does not answer."""
    cases['all'] += 1
    before = godwit_lab.snapshot(matrix.lab)
    with at(matrix, 'copying') as (case, move, stop):
        os.kill(godwit_lab.only(case.destination.qemu_pids()), signal.SIGSTOP)
        case.do(DESTINATION_DAEMON, stop)
        case.judge(move.result())
        assert not case.destination.qemu_pids()
    case.finish(before)
    cases['good'] += 1


# --- the store of owner records cannot be reached -----------------------------------


@pytest.fixture(scope='module')
def store(resident, kind):
    with kind.store() as made:
        yield made


@contextlib.contextmanager
def without_store(store, case, whose):
    """'source', 'destination' and 'both' cannot change it any more; 'hangs': it answers nobody."""
    nodes = {'source': [case.source], 'destination': [case.destination],
             'both': [case.source, case.destination]}.get(whose, [])
    for node in nodes:
        store.set(node, 'ro')
    if whose == 'hangs':
        store.freeze()
    try:
        yield
    finally:
        store.thaw()
        for node in nodes:
            if node.daemon_pid() == case.pids[node]:  # a new daemon has a view of its own
                store.set(node, 'rw')


STORE_CASES = [('source say commit', 'source'), ('destination op claim', 'destination'),
               ('destination op claim', 'both'), ('destination op claim', 'hangs'),
               ('destination done claim', 'hangs')]
if FULL:
    STORE_CASES += [('source say commit', 'destination'), ('source say commit', 'both'),
                    ('source say commit', 'hangs'), ('destination done claim', 'both')]


@pytest.mark.parametrize('where, whose', STORE_CASES, ids=lambda text: text.replace(' ', '-'))
def test_store_lost(matrix, store, cases, where, whose):
    """No answer is no permission: unless the swap was done, the guest stays."""
    cases['all'] += 1
    before = godwit_lab.snapshot(matrix.lab)
    with at(matrix, where) as (case, move, stop):
        with without_store(store, case, whose):
            stop.go_on()
            result = move.result()
            assert result.status == (0 if where == 'destination done claim' or whose == 'source'
                                     else 1), f'{result}\n{case.news}'
            matrix.guest.assert_good((case.source if result.status else case.destination).name)
        case.judge(result)
    case.finish(before)
    cases['good'] += 1


@pytest.mark.parametrize('how', ['source', 'hangs'])
def test_store_lost_and_destination_silent(matrix, store, cases, how):
    """The source may not come back on its own before it has the record, and then does."""
    cases['all'] += 1
    before = godwit_lab.snapshot(matrix.lab)
    with at(matrix, 'destination op claim') as (case, move, stop):
        with without_store(store, case, how):
            case.news.until(case.source, DISOWNED)
            assert case.source.vms()[VM]['state'] == 'paused'
        case.news.until(case.source, *ENDS)
        stop.go_on()
        case.judge(move.result())
        assert case.owner() is case.source
    case.finish(before)
    cases['good'] += 1


# --- a journal that cannot be written ----------------------------------------------


@contextlib.contextmanager
def locked_journal(node):
    """As on a full disk, its daemon can read and not write: somebody else holds the lock."""
    with contextlib.closing(sqlite3.connect(f'{node.dir}/state/journal.db',
                                            isolation_level=None)) as journal:
        journal.execute('BEGIN IMMEDIATE')
        yield


def test_source_forgets_the_commit(matrix, cases):
    """Its journal stays at precopy, and its daemon is killed while the guest runs elsewhere."""
    cases['all'] += 1
    before = godwit_lab.snapshot(matrix.lab)
    with crash.News(matrix.destination) as news:
        moved = crash.Breakpoint(matrix.destination, 'destination say running', news)
        with at(matrix, 'source say switching') as (case, move, stop):
            with locked_journal(case.source):
                stop.go_on()
                moved.wait()
                case.news.until(case.source, 'journal: ')
                case.kill_daemon(case.source)
            case.source.start_daemon()
            case.pids[case.source] = case.source.daemon_pid()
            case.news.until(case.source, 'left in precopy as the source')
            case.news.until(case.source, DISOWNED)
            moved.go_on()
            case.judge(move.result())
            assert case.owner() is case.destination
    case.finish(before)
    cases['good'] += 1


# --- a QEMU that stands still -------------------------------------------------------


def resolve(case, *action, check=True):
    """The copy on the source is not to run again, whatever the destination's QEMU does."""
    result = case.source.godwit('resolve', VM, '--json', *action, check=check)
    if not check:
        assert result.status == 1 and 'allowed to run the guest' in result.stderr, str(result)
        return None
    if not action:
        allowed_now = {name for name, entry in result.json['actions'].items() if entry['allowed']}
        assert allowed_now == {'discard'} and result.json['record']['state'] == 'others', \
            str(result)
    return result.json


STILL_CASES = [('destination op resume', 'destination', 3), ('copying', 'source', 1)]
if FULL:
    STILL_CASES += [('source op switch', 'destination', 1), ('copying', 'destination', 1)]


@pytest.mark.parametrize('where, whose, status', STILL_CASES)
def test_qemu_stands_still(matrix, cases, where, whose, status):
    """Longer than anybody waits for it, and then it goes on."""
    cases['all'] += 1
    before = godwit_lab.snapshot(matrix.lab)
    with at(matrix, where) as (case, move, stop):
        pid = case.source_qemu if whose == 'source' else \
            godwit_lab.only(case.destination.qemu_pids())
        os.kill(pid, signal.SIGSTOP)
        if stop:
            stop.go_on()
        else:
            move.process.send_signal(signal.SIGINT)
        result = move.result()
        if status == 3:
            resolve(case, '--resume', check=False)
        crash.go_on(pid)
        case.judge(result, (status,))
    if status == 3:  # what a person does who sees that the guest runs where its record says
        known = resolve(case)
        assert (known['here'], known['there']) == ('paused', 'running'), known
        resolve(case, '--discard')
    case.finish(before)
    cases['good'] += 1
