# SPDX-License-Identifier: Apache-2.0
"""Fencing by policy: a source that stands still or died, with the locks of the guest's disks.
GODWIT_RBD_MATRIX=all: also the cases that wait for Ceph's or the engine's own limits."""
import contextlib
import json
import os
import signal
import time

import pytest

import crash
import godwit_lab
from conftest import VM, figures
from godwit_lab import Move, kill, only

POLICY = 'fencing'
FENCED = 'fenced by policy'
ALL = os.environ.get('GODWIT_RBD_MATRIX') == 'all'
LOST = [(POLICY, False), (None, False)] + ([(POLICY, True)] if ALL else [])


@pytest.fixture(scope='module')
def resident(one, resident):  # pylint: disable=redefined-outer-name
    for node in (one.n1, one.n2):
        with open(f'{node.dir}/etc/policies/{POLICY}.yaml', 'w', encoding='utf-8') as out:
            out.write(f'name: {POLICY}\nfence_after_s: 1\n')
    return resident


def blocklist(lab):
    """Addresses of the clients that are on it."""
    said = lab.ceph.run('ceph', '--conf', lab.ceph.conf, '--format', 'json', 'osd', 'blocklist',
                        'ls')
    # Behind the JSON it says how many they are.
    return {entry['addr'] for entry in json.JSONDecoder().raw_decode(said.strip())[0]}


class Case:
    """A move that has come to a place, where the source's daemon and QEMU stand still or die."""

    def __init__(self, guest, news, policy):
        self.guest, self.news = guest, news
        self.lab = guest.lab
        self.source, self.destination = guest.place()
        self.pids = [self.source.daemon_pid(), only(self.source.qemu_pids())]
        self.before = blocklist(self.lab)
        self.options = ['--policy', policy] if policy else []

    def fenced(self):
        """The source's clients that are fenced since."""
        return {address for address in blocklist(self.lab) - self.before
                if address.startswith(f'{self.source.address}:')}

    def silence(self, dead):
        for pid in self.pids:
            kill(pid) if dead else os.kill(pid, signal.SIGSTOP)

    def wake(self, dead):
        if dead:
            self.source.start_daemon()
        else:
            for pid in reversed(self.pids):
                crash.go_on(pid)

    def migrations_end(self):
        for node in (self.source, self.destination):
            godwit_lab.wait_until(
                lambda node=node: all(m['state'] in ('completed', 'failed') for m in
                                      node.request('GET', '/v1/migrations')[1]), 60, node,
                'all migrations end')


@contextlib.contextmanager
def at(guest, where, policy):
    guest.forget_the_dead()
    source, destination = guest.place()
    with crash.News(source, destination) as news:
        case = Case(guest, news, policy)
        stop = crash.Breakpoint(source if where.startswith('source') else destination, where, news)
        move = Move(source, VM, destination.name, *case.options)
        try:
            stop.wait()
            yield case, move, stop
        finally:
            stop.remove()
            stop.go_on()
            for pid in case.pids:
                crash.go_on(pid)
            if not source.daemon_pid():
                source.start_daemon()


@pytest.mark.parametrize('policy,dead', LOST, ids=['policy', 'no-policy', 'policy-dead'][:len(LOST)])
def test_a_source_lost_after_the_commit(one, resident, policy, dead):
    """The guest has run on the destination, and what it writes waits for the lock."""
    guest = resident
    with at(guest, 'destination op resume', policy) as (case, move, stop):
        case.silence(dead)
        began = time.monotonic()
        stop.go_on()
        if not policy and not ALL:  # the destination is through, and has left it at that
            case.news.until(case.destination, ' -> completed')
            assert not case.fenced(), case.news
            case.wake(dead)
        guest.wait_writes(20, 90)
        waited_s = time.monotonic() - began
        if policy:
            case.news.until(case.destination, FENCED)
            assert case.fenced(), case.news
        # Where nobody fences, librbd does after 30 s, by itself.
        assert (FENCED in case.news.lines[case.destination.name]) == bool(policy), case.news
        held = json.loads(one.ceph.rbd('--format', 'json', 'lock', 'ls', guest.image))
        assert [lock['address'].partition(':')[0] for lock in held] == \
            [case.destination.address], held
        if policy or ALL:
            case.wake(dead)
        result = move.result()
        # The command line does not wait for a daemon that says nothing for so long.
        assert dead or result.status in (0, 3), str(result)
        case.migrations_end()
    if policy or ALL:  # otherwise it was woken up here
        figures.append(f'source {"killed" if dead else "stopped"} after the commit, policy '
                       f'{policy or "default"}: the guest wrote again after {waited_s:.1f} s')
    assert guest.assert_unharmed() == case.destination.name
    assert not case.source.qemu_pids()
    guest.forget_the_dead()
    guest.move()
    guest.assert_unharmed()


def test_a_source_lost_before_the_commit_is_not_fenced(one, resident):
    """It may let its guest run, as far as anybody knows: so it does, when it wakes up."""
    guest = resident
    with at(guest, 'source op switch', POLICY) as (case, move, stop):
        case.silence(False)
        case.news.until(case.destination, ' -> failed')
        assert not case.destination.qemu_pids() and not case.fenced(), case.news
        case.wake(False)
        assert move.result().status == 1
        case.migrations_end()
        assert not case.fenced() and FENCED not in str(case.news)
    assert guest.assert_unharmed() == case.source.name


def test_a_source_that_answers_is_not_fenced(one, resident):
    """The policy's time passes, and both are well."""
    guest = resident
    guest.forget_the_dead()
    source, destination = guest.place()
    before = blocklist(one)
    with crash.News(source, destination) as news:
        assert source.migrate(VM, destination.name, '--policy', POLICY)['state'] == 'completed'
        news.until(destination, 'is not fenced by policy')
    assert 'answers' in news.lines[destination.name] and blocklist(one) == before
    guest.assert_unharmed()
