# SPDX-License-Identifier: Apache-2.0
"""A QEMU that somebody else started becomes a VM of this node, and moves."""
import shutil

import godwit_lab
from bare import BareQemu
from conftest import refusal
from godwit_lab import Guest

NAME = 'foreign'


def with_the_stage(place):
    """The session's guest has the address that the foreign one wants: it makes room."""
    place.guest.stop()


def test_adopt_and_move(lab, place):
    with_the_stage(place)
    before = godwit_lab.snapshot(lab)
    with BareQemu(lab.n1, NAME, memory_mib=256) as qemu:
        guest = Guest(lab, NAME, qemu.log)
        guest.wait_ready()
        qemu.qmp.close()  # QEMU serves one client at a time
        lab.n1.godwit('vm', 'adopt', '--qmp', qemu.qmp_path, '--pid', qemu.process.pid,
                      '--name', NAME)
        assert lab.n1.vms()[NAME]['state'] == 'running'
        assert lab.n1.vms()[NAME]['pid'] == qemu.process.pid
        # Its RAM is private: --verify reads it all the same.
        migration = lab.n1.migrate(NAME, 'n2', '--verify')
        assert migration['state'] == 'completed' and migration['verify']['equal']
        # The one that was left has ended.
        qemu.process.wait(20)
        guest.assert_good('n2')
        # What arrived is Godwit's own by now, and moves on like any other.
        assert lab.n2.migrate(NAME, 'n1')['state'] == 'completed'
        guest.assert_good('n1')
        lab.n1.godwit('vm', 'stop', NAME, '--force')
    for node in (lab.n1, lab.n2):
        assert not node.qemu_pids()
    shutil.rmtree(f'{lab.n1.dir}/bare-{NAME}')
    godwit_lab.assert_nothing_left(lab, before)


def test_adopt_what_cannot_be_carried(lab, place):
    """A directory shared with the guest does not follow it to another node: refused by name."""
    with_the_stage(place)

    class WithSharedDirectory(BareQemu):
        def argv(self, name, memory_mib, incoming, guest):
            return super().argv(name, memory_mib, incoming, guest) + [
                '-fsdev', f'local,id=fs0,path={self.dir},security_model=none',
                '-device', 'virtio-9p-pci,fsdev=fs0,mount_tag=shared']

    with WithSharedDirectory(lab.n1, 'carry') as qemu:
        qemu.qmp.close()
        refusal(lab.n1.godwit('vm', 'adopt', '--qmp', qemu.qmp_path, '--pid', qemu.process.pid,
                              '--name', NAME, '--json', check=False), 1, 'incompatible', '-fsdev')
        assert qemu.process.poll() is None
        assert NAME not in lab.n1.vms()


def test_adopt_a_wrong_process(lab):
    result = lab.n1.godwit('vm', 'adopt', '--qmp', '/nonexistent.sock', '--pid',
                           lab.n1.daemon_pid(), '--name', NAME, '--json', check=False)
    assert result.status in (1, 2), str(result)
    assert result.json['error']['hint'], str(result)
