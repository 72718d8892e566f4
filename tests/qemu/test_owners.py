# SPDX-License-Identifier: Apache-2.0
"""Owner records that are missing, not shared, or another node's: refused before anything starts."""
import contextlib
import os
import re
import shutil

import pytest

import crash
import godwit_lab
from bare import BareQemu
from conftest import VM, refusal

UUID = '0b5e55ed-0000-4000-8000-6f776e657273'


@contextlib.contextmanager
def settings(lab, *nodes, **wanted):
    """The nodes' daemons run with other settings, until the block ends."""
    def restart():
        for node in nodes:
            node.stop_daemon()
            node.start_daemon()

    for node in nodes:
        node.set_config(**wanted)
    restart()
    try:
        yield
    finally:
        for node in nodes:
            node.set_config(owner_store=lab.owners)
        restart()


def refused_early(place, *words):
    """The move is refused, and the destination has not even started a QEMU for it."""
    with crash.News(place.destination) as news:
        result = place.source.migrate(VM, place.destination.name, check=False)
        refusal(result, 1, 'incompatible', 'owner record', 'owner_store', place.destination.name,
                *words)
        news.until(place.destination, ' -> failed')
        assert 'starting ' not in news.lines[place.destination.name], str(news)


def test_destination_without_a_store(place, unharmed):
    unharmed |= {place.destination.name}
    with settings(place.lab, place.destination, owner_store=None):
        refused_early(place, 'no store')


def test_stores_that_are_not_the_same(place, unharmed):
    unharmed |= {place.destination.name}
    other = f'{place.lab.owners}.other'
    os.mkdir(other, 0o700)
    with settings(place.lab, place.destination, owner_store=other):
        refused_early(place, place.source.name)
    os.rmdir(other)


def test_no_store_at_all(place):
    """As it was before there were owner records; the record that the guest has is not touched."""
    uuid = place.guest.uuid()
    before = godwit_lab.owner_record(place.lab, uuid)
    with settings(place.lab, place.lab.n1, place.lab.n2, owner_store=None):
        for _ in range(2):
            assert place.move()['breakdown']['swap_ms'] is None
        assert godwit_lab.owner_record(place.lab, uuid) == before
    place.move()


def test_daemon_without_its_directory(lab):
    """It does not start without the store that it was told to use, and says what to do."""
    lab.n3.stop_daemon()
    lab.n3.set_config(owner_store=f'{lab.owners}.absent')
    try:
        with pytest.raises(godwit_lab.Failure) as failure:
            lab.n3.start_daemon()
        text = str(failure.value)
        assert re.search(r'store of owner records \S+\.absent: No such file', text), text
        assert 'make it, or mount what it is on' in text, text
    finally:
        lab.n3.set_config(owner_store=lab.owners)
        lab.n3.start_daemon()


def assert_names_resolve(result, owner):
    assert result.status == 1, str(result)
    error = result.json['error']
    assert error['code'] == 'state' and f'node {owner}' in error['message'], str(result)
    assert f'godwit resolve {UUID}' in error['hint'], str(result)


@pytest.fixture
def elsewhere(lab):
    """A VM on n3, whose owner record says n3."""
    path, log = godwit_lab.write_vm_file(lab.n3, 'original', uuid=UUID, mac='52:54:00:77:00:66',
                                         append='console=ttyS0 quiet')
    lab.n3.godwit('vm', 'start', path)
    assert godwit_lab.owner_record(lab, UUID)['node'] == 'n3'
    yield
    assert godwit_lab.owner_record(lab, UUID)['node'] == 'n3'
    lab.n3.godwit('vm', 'stop', 'original', '--force')
    assert godwit_lab.owner_record(lab, UUID) is None
    os.unlink(path)
    os.unlink(log)


def twin_file(node):
    return godwit_lab.write_vm_file(node, 'twin', uuid=UUID, mac='52:54:00:77:00:67',
                                    append='console=ttyS0 quiet')


def test_start_of_what_is_another_nodes(lab, elsewhere):
    before = godwit_lab.snapshot(lab)
    path, log = twin_file(lab.n1)
    assert_names_resolve(lab.n1.godwit('vm', 'start', path, '--json', check=False), 'n3')
    with open(log, encoding='utf-8') as console:
        assert console.read() == '', 'the guest ran'
    os.unlink(path)
    os.unlink(log)
    godwit_lab.assert_nothing_left(lab, before)


def test_move_of_what_is_another_nodes(lab, elsewhere):
    path, log = twin_file(lab.n1)
    with settings(lab, lab.n1, owner_store=None):
        lab.n1.godwit('vm', 'start', path)
    assert_names_resolve(lab.n1.migrate('twin', 'n2', check=False), 'n3')
    lab.n1.godwit('vm', 'stop', 'twin', '--force')
    os.unlink(path)
    os.unlink(log)


class BareTwin(BareQemu):
    def argv(self, name, memory_mib, incoming, guest):
        return super().argv(name, memory_mib, incoming, guest) + ['-uuid', UUID, '-S']


def test_adoption_of_what_is_another_nodes(lab, elsewhere):
    """It stays what it was: somebody else's QEMU."""
    with BareTwin(lab.n1, 'twin', memory_mib=128) as qemu:
        qemu.qmp.close()
        assert_names_resolve(lab.n1.godwit('vm', 'adopt', '--qmp', qemu.qmp_path, '--pid',
                                           qemu.process.pid, '--name', 'twin', '--json',
                                           check=False), 'n3')
        assert qemu.process.poll() is None
        assert 'twin' not in lab.n1.vms()
    shutil.rmtree(f'{lab.n1.dir}/bare-twin')
