# SPDX-License-Identifier: Apache-2.0
"""Labs with a real Ceph, and guests whose disk is in it."""
import contextlib
import json
import os
import shutil
import signal
import sys
import time

import pytest

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [f'{HERE}/../lib', f'{HERE}/../../tools']
# Behind this directory, which has modules of the same names.
sys.path.append(f'{HERE}/../qemu')
import godwit_ceph  # pylint: disable=wrong-import-position
import godwit_lab  # pylint: disable=wrong-import-position
from place import VM, Place  # pylint: disable=wrong-import-position,unused-import

DISK_BYTES = 4 << 20

figures = []


def pytest_terminal_summary(terminalreporter):
    if figures:
        terminalreporter.section('figures (not asserted: they depend on the machine)')
        for line in figures:
            terminalreporter.line(line)


def require(condition, what):
    """A visible skip on a stranger's machine, a failure in ./check."""
    if condition:
        return
    if os.environ.get('GODWIT_CHECK'):
        pytest.fail(f'{what}: run ./setup')
    pytest.skip(what)


@pytest.fixture(scope='session')
def needs():
    require(os.geteuid() == 0, 'the lab needs root')
    require(os.access(f'{godwit_lab.TOOLS}/godwit-lab', os.X_OK), 'godwit-lab is not built')
    require(not godwit_ceph.missing_programs(), 'Ceph is not installed')
    require(shutil.which('qemu-system-x86_64'), 'qemu-system-x86_64 is not installed')
    require(os.path.exists(f'{godwit_lab.GUEST_DIR}/initrd.img'), 'the test guest is not built')


@contextlib.contextmanager
def ceph_lab(*options):
    began = time.monotonic()
    with godwit_lab.Lab(f'r{os.getpid()}', *options) as lab:
        took_s = time.monotonic() - began
        lab.ceph = godwit_ceph.Cluster.open(f'/run/godwit-lab/{lab.name}/ceph')
        pids = [lab.ceph.pid(daemon) for daemon in lab.ceph.daemons()]
        memory_kib = sum(map(godwit_lab.resident_kib, pids))
        figures.append(f'godwit-lab {" ".join(options)}: up in {took_s:.1f} s, Ceph has '
                       f'{memory_kib >> 10} MiB')
        yield lab
    for pid in pids:
        godwit_lab.wait_ended(pid, 10, 'a daemon of Ceph')
    assert not os.path.exists(lab.ceph.dir)


@pytest.fixture(scope='module')
def one(needs):
    """A lab whose Ceph is a machine of its own."""
    with ceph_lab('--ceph', '--set', 'breakpoints=true') as lab:
        yield lab


@pytest.fixture(scope='module')
def three(needs):
    """A lab with a mon and an OSD on each node."""
    with ceph_lab('--ceph-nodes', '3') as lab:
        yield lab


def wait_health(lab, wanted, timeout_s=60):
    """Until wanted(health) holds."""
    deadline = time.monotonic() + timeout_s
    while not wanted(health := lab.ceph.health()):
        assert time.monotonic() < deadline, health


@contextlib.contextmanager
def stopped(ceph, daemon):
    ceph.signal(daemon, signal.SIGSTOP)
    try:
        yield
    finally:
        ceph.signal(daemon, signal.SIGCONT)


class DiskGuest(godwit_lab.Guest):
    """The test guest, which writes to an RBD image of its own all the time."""

    n_made = 0

    @classmethod
    def boot(cls, lab, node='n1', **settings):
        cls.n_made += 1
        image = lab.ceph.create_image(f'guest{cls.n_made}', DISK_BYTES)
        append = godwit_lab.guest_append(**{'fill': '32MiB', 'wss': '8MiB', 'rate': 5, 'scan': 8,
                                            'disk': DISK_BYTES, 'disk_rate': 200, **settings})
        options = {'memory': '128MiB', 'append': append, 'disks': [{'rbd': image}]}
        guest = cls.start(lab.nodes[node], VM, **options)
        guest.image, guest.options = image, options
        return guest

    def place(self):
        """The node that has it, and the one that it can go to."""
        here = self.node()
        return self.lab.nodes[here], self.lab.nodes['n2' if here == 'n1' else 'n1']

    def move(self):
        """To the other node; gives the migration's JSON object."""
        source, destination = self.place()
        migration = source.migrate(VM, destination.name)
        assert migration['state'] == 'completed'
        return migration

    def watchers(self):
        """Addresses of the clients that have its image open."""
        said = self.lab.ceph.rbd('--format', 'json', 'status', self.image)
        return [watcher['address'] for watcher in json.loads(said)['watchers']]

    def forget_the_dead(self, healthy=True, timeout_s=60):
        """Until the cluster is healthy (if asked) and only the guest's node has the image open.

        A QEMU that was killed counts as a watcher for another 30 s, and moves are refused as
        long. It is fenced, as the refusal says.
        """
        here = self.place()[0]
        if healthy:
            wait_health(self.lab, lambda health: health['status'] == 'HEALTH_OK')
        deadline = time.monotonic() + timeout_s
        while True:
            dead = [address for address in self.watchers()
                    if not address.startswith(f'{here.address}:')]
            if not dead:
                return
            assert time.monotonic() < deadline, dead
            for address in dead:
                self.lab.ceph.command('osd', 'blocklist', 'add', address)

    def wait_writes(self, more=1, timeout_s=60):
        """Until the disk has acknowledged so many further writes."""
        wanted = self.disk()['writes'] + more
        deadline = time.monotonic() + timeout_s
        while (disk := self.disk())['writes'] < wanted:
            assert time.monotonic() < deadline, \
                f'{wanted - disk["writes"]} of {more} writes not acknowledged after {timeout_s} s'
        return disk

    def assert_disk_good(self):
        """No acknowledged write is lost, none torn, and none was refused."""
        verdict = self.verify(120)
        assert verdict['verdict'] == 'good' and not verdict['write_errors'], \
            f'{verdict}\n--- console\n{godwit_lab.file_tail(self.log)}'
        return verdict

    def assert_unharmed(self):
        """It runs on one node, writes, and has lost neither memory nor disk; gives the node."""
        here = self.node()
        self.wait_writes(20)
        self.assert_disk_good()
        self.assert_good(here)
        return here


@pytest.fixture(scope='module')
def resident(one):
    """A guest that the last tests of a module share; each leaves it running, with a good disk."""
    guest = DiskGuest.boot(one)
    yield guest
    guest.stop()


@pytest.fixture
def guest_on(request):
    """guest_on(lab): a guest that ends with the test."""
    made = []

    def boot(lab, **settings):
        made.append(DiskGuest.boot(lab, **settings))
        return made[-1]

    yield boot
    for guest in made:
        for daemon in guest.lab.ceph.daemons():
            guest.lab.ceph.signal(daemon, signal.SIGCONT)
        guest.stop()
