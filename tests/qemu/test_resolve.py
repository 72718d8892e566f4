# SPDX-License-Identifier: Apache-2.0
"""`godwit resolve`: what a person is told, and what is refused."""
import os
import signal
import subprocess

import godwit_lab
from conftest import VM, refusal
from godwit_lab import Guest, owner_record


def look(node, vm):
    return node.godwit('resolve', vm, '--json').json


def allowed(known):
    return {name for name, action in known['actions'].items() if action['allowed']}


def commit_timeout(node, seconds):
    """How long its daemon asks a destination that is silent; None: as long as by default."""
    node.set_config(commit_timeout=seconds)
    node.stop_daemon()
    node.start_daemon()


def test_a_guest_that_runs(lab, place):
    uuid = place.guest.uuid()
    here = look(place.source, VM)
    assert (here['here'], here['record']['state']) == ('running', 'ours')
    assert allowed(here) == set()
    there = look(place.destination, uuid)
    assert (there['here'], there['there'], there['other']) == ('none', 'running', place.source.name)
    assert allowed(there) == set()
    refusal(place.destination.godwit('resolve', uuid, '--release', '--dead', place.source.name,
                                     '--json', check=False), 1, 'state', 'has a QEMU')
    refusal(place.source.godwit('resolve', VM, '--discard', '--json', check=False), 1, 'state')
    text = place.destination.godwit('resolve', uuid).stdout
    assert place.source.name in text and 'Refused:' in text
    assert place.source.godwit('resolve', 'nonesuch', check=False).status == 2
    assert place.source.godwit('resolve', VM, '--resume', '--discard', check=False).status == 2
    place.guest.assert_good(place.source.name)


def test_the_owner_does_not_answer(lab, place):
    """The destination's daemon dies after the commit and stays away; the source cannot know."""
    place.move()  # so that its command line is that of a QEMU that received it
    source, destination, guest = place.source, place.destination, place.guest
    commit_timeout(source, 8)
    before = godwit_lab.snapshot(lab)
    uuid = guest.uuid()
    claimed = godwit_lab.Breakpoint(destination, 'destination done claim')
    move = place.start_move()
    claimed.wait()
    destination.kill_daemon()
    error = refusal(move.result(120), 3, 'unresolved', 'owner record')
    assert owner_record(lab, uuid)['node'] == destination.name, error

    known = look(source, VM)
    assert (known['here'], known['there']) == ('paused', 'silent')
    assert known['record']['state'] == 'others' and known['record']['node'] == destination.name
    assert allowed(known) == {'discard'}
    refusal(source.godwit('vm', 'resume', VM, '--json', check=False), 1, 'state', 'resolve')
    refusal(source.godwit('resolve', VM, '--resume', '--dead', destination.name, '--json',
                          check=False), 1, 'state', 'disks may be newer')
    refusal(source.migrate(VM, 'n3', check=False), 1, 'state', 'resolve')

    # It comes back, reads the record, and lets the guest run that it has.
    destination.start_daemon()
    godwit_lab.wait_until(lambda: destination.vms()[VM]['state'] == 'running', 30, destination,
                          'the guest that the record gives to the node')
    known = look(source, VM)
    assert known['there'] == 'running' and allowed(known) == {'discard'}
    source.godwit('resolve', VM, '--discard')
    assert VM not in source.vms()
    guest.assert_good(destination.name)
    place.find()
    place.move()
    godwit_lab.assert_nothing_left(lab, before, {source.name, destination.name})
    commit_timeout(source, None)


def test_a_copy_whose_record_went_elsewhere(lab, place):
    """`godwit vm resume` asks the record, too: what this node remembers may be old."""
    uuid = place.guest.uuid()
    directory = f'{lab.owners}/{uuid}'
    name, = os.listdir(directory)
    os.rename(f'{directory}/{name}', f'{lab.owners}/{uuid}.aside')
    try:
        refusal(place.source.godwit('vm', 'resume', VM, '--json', check=False), 1, 'state',
                'resolve', 'ended elsewhere')
    finally:
        os.rename(f'{lab.owners}/{uuid}.aside', f'{directory}/{name}')
    place.source.godwit('vm', 'resume', VM)
    place.guest.assert_good(place.source.name)


def test_a_node_that_is_gone(lab):
    """Its guest's record can be deleted by who has made sure, and by nobody else."""
    before = godwit_lab.snapshot(lab)
    path, log = godwit_lab.write_vm_file(lab.n3, 'short', mac='52:54:00:77:00:65',
                                         append='console=ttyS0 quiet')
    lab.n3.godwit('vm', 'start', path)
    vm = lab.n3.vms()['short']
    lab.n3.kill_daemon()
    godwit_lab.kill(vm['pid'], signal.SIGKILL)
    known = look(lab.n1, vm['uuid'])
    assert (known['there'], known['other'], allowed(known)) == ('silent', 'n3', set())
    for words in (['--release'], ['--release', '--dead', 'n2']):
        assert lab.n1.godwit('resolve', vm['uuid'], *words, check=False).status != 0
    assert owner_record(lab, vm['uuid'])['node'] == 'n3'
    lab.n1.godwit('resolve', vm['uuid'], '--release', '--dead', 'n3')
    assert owner_record(lab, vm['uuid']) is None
    lab.n3.start_daemon()
    assert 'short' not in lab.n3.vms()
    subprocess.check_call(['rm', '-f', path, log])
    godwit_lab.assert_nothing_left(lab, before, {'n3'})


def test_a_record_of_another_node(lab):
    """A guest is not started beside one that may run."""
    path, log = godwit_lab.write_vm_file(lab.n3, 'short', mac='52:54:00:77:00:65',
                                         append='console=ttyS0 quiet',
                                         uuid='0c7a8c55-6f3c-4ab5-9d0c-6a2c2a3f5b11')
    lab.n3.godwit('vm', 'start', path)
    refusal(lab.n2.godwit('vm', 'start', path, '--json', check=False), 1, 'state', 'n3', 'resolve')
    assert 'short' not in lab.n2.vms() and lab.n3.vms()['short']['state'] == 'running'
    lab.n3.godwit('vm', 'stop', 'short', '--force')
    guest = Guest(lab, 'short', log)
    lab.n2.godwit('vm', 'start', path)  # it has ended there, so it may begin here
    guest.stop()
    subprocess.check_call(['rm', '-f', path, log])
