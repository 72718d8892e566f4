# SPDX-License-Identifier: Apache-2.0
"""The crash matrix (tests/qemu/test_matrix.py) with a guest whose disk is on RBD, and whose owner
record is in RADOS: the same cases, and afterwards also

 - no acknowledged write is lost, none torn, and none was refused to the guest;
 - the image's lock is held by the QEMU of the node that the record names;
 - no other owner record is in the pool.

Here some of the victims are met in each phase, and all of them at the commit.
GODWIT_RBD_MATRIX=all runs what the matrix runs without disks, with the store of owner records lost, too.
"""
import json
import os
import signal
import subprocess
import time

import pytest

pytest.register_assert_rewrite('test_matrix')
import godwit_lab
import test_matrix
from conftest import DISK_BYTES, DiskGuest, figures
from test_matrix import (CASES, DESTINATION_DAEMON, DESTINATION_QEMU, LINK, SOURCE_DAEMON,
                         SOURCE_QEMU, UUID, cases, matrix, resident)

__all__ = ['cases', 'matrix', 'resident']
ALL = os.environ.get('GODWIT_RBD_MATRIX') == 'all'
OBJECT = f'owner.{UUID}'

# Where in each phase, and what goes wrong there.
SOME = {
    'destination op listen': [SOURCE_DAEMON, DESTINATION_QEMU],
    'copying': [DESTINATION_DAEMON, SOURCE_QEMU, LINK],
    'source op switch': [SOURCE_DAEMON, DESTINATION_DAEMON, DESTINATION_QEMU, LINK],
    'destination op claim': [SOURCE_DAEMON, DESTINATION_DAEMON, SOURCE_QEMU, DESTINATION_QEMU,
                             LINK],
    'destination done claim': [DESTINATION_DAEMON, DESTINATION_QEMU, LINK],
    'source phase finishing': [SOURCE_DAEMON, DESTINATION_DAEMON, SOURCE_QEMU],
}


class Rados:
    """The store of owner records, so that it can fail: for one node that has no way to the cluster
    any more (nor has its guest), or for all when the OSD stands."""

    def __init__(self, lab):
        self.lab = lab
        self.cut = set()
        self.frozen = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thaw()
        for node in set(self.cut):
            self.set(node, 'rw')

    def set(self, node, how):
        host = self.lab.ceph.hosts[0].address
        if (how == 'ro') == (node in self.cut):
            return
        subprocess.check_call(['ip', '-n', node.namespace, 'route',
                               'add' if how == 'ro' else 'del', 'prohibit', host])
        self.cut ^= {node}

    def freeze(self):
        self.lab.ceph.signal('osd.0', signal.SIGSTOP)
        self.frozen = True

    def thaw(self):
        if self.frozen:
            self.lab.ceph.signal('osd.0', signal.SIGCONT)
        self.frozen = False


class OnRbd(test_matrix.Kind):
    name = 'crash matrix on RBD'
    Guest = DiskGuest

    def __init__(self, lab):
        super().__init__(lab)
        self.image = lab.ceph.create_image('matrix', DISK_BYTES)
        self.slow = []

    def options(self):
        return {'append': godwit_lab.guest_append(fill='16MiB', wss='8MiB', rate=4,
                                                  disk=DISK_BYTES, disk_rate=200),
                'disks': [{'rbd': self.image}]}

    def start(self, node):
        self.fence_all_but(None)
        guest = super().start(node)
        guest.image = self.image
        return guest

    def rados(self, *words):
        return self.lab.ceph.run('rados', *self.lab.ceph.admin_arguments(), '-p', 'rbd', '-N',
                                 'godwit', *words)

    def records(self):
        return [name for name in self.rados('ls').split() if name.startswith('owner.')]

    def record(self):
        if OBJECT not in self.records():
            return None
        magic, uuid, epoch, node, run = self.rados('get', OBJECT, '-').split()[:5]
        assert (magic, uuid) == ('GWOWNER1', UUID)
        return {'node': node, 'epoch': int(epoch), 'may_have_run': run == '1'}

    def remove_record(self):
        for name in self.records():
            self.rados('rm', name)

    def store(self):
        return Rados(self.lab)

    def watchers(self):
        said = self.lab.ceph.rbd('--format', 'json', 'status', self.image)
        return [watcher['address'] for watcher in json.loads(said)['watchers']]

    def fence_all_but(self, node):
        """A QEMU that was killed counts as a watcher for another 30 s."""
        for address in self.watchers():
            if not node or not address.startswith(f'{node.address}:'):
                self.lab.ceph.command('osd', 'blocklist', 'add', address)
        deadline = time.monotonic() + 60
        while any(not node or not address.startswith(f'{node.address}:')
                  for address in self.watchers()):
            assert time.monotonic() < deadline, self.watchers()

    def forget_the_dead(self, here):
        self.fence_all_but(here)

    def judge(self, guest, here):
        began = time.monotonic()
        guest.wait_writes(20, 90)
        self.slow.append(time.monotonic() - began)
        guest.assert_disk_good()
        held = json.loads(self.lab.ceph.rbd('--format', 'json', 'lock', 'ls', self.image))
        assert [lock['address'].partition(':')[0] for lock in held] == [here.address], held
        assert self.records() == [OBJECT]


@pytest.fixture(scope='module')
def lab(one):
    return one


@pytest.fixture(scope='module')
def running():
    return {}


@pytest.fixture(scope='module')
def kind(lab):
    made = OnRbd(lab)
    yield made
    figures.append(f'crash matrix on RBD: until the guest wrote again, longest '
                   f'{max(made.slow, default=0):.1f} s')


def chosen():
    return CASES if ALL else [(place, deed) for place, deeds in SOME.items() for deed in deeds]


@pytest.mark.parametrize('where, deed', chosen(), ids=lambda text: text.replace(' ', '-'))
def test_crash(matrix, cases, where, deed):
    test_matrix.run_case(matrix, cases, where, deed)


if ALL:
    from test_matrix import (store, test_qemu_stands_still, test_store_lost,
                             test_store_lost_and_destination_silent)
    __all__ += ['store', 'test_qemu_stands_still', 'test_store_lost',
                'test_store_lost_and_destination_silent']
