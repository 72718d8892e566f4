# SPDX-License-Identifier: Apache-2.0
"""--verify: both memories are compared before the guest runs on the destination."""
import os

import pytest

import godwit_lab
import guestram
from conftest import figures, refusal

PAGE = 4096
MEMORY_MIB = 256
PARTS = ('stop_ms', 'device_ms', 'confirm_ms', 'verify_ms', 'commit_ms', 'resume_ms')


@pytest.mark.parametrize('route', ['native', 'carrier'])
def test_equal(place, route):
    migration = place.move('--route', route, '--verify')
    verify, breakdown = migration['verify'], migration['breakdown']
    figures.append(f'verified, {route}: {verify["bytes"]} bytes in {breakdown["verify_ms"]:.1f} ms '
                   f'of a blackout of {migration["blackout_ms"]:.1f} ms')
    assert verify['equal'] is True and verify['different_regions'] == 0
    assert verify['bytes'] >= MEMORY_MIB << 20
    assert verify['threads'] == len(os.sched_getaffinity(0))
    assert breakdown['verify_ms'] > 0
    assert sum(breakdown[part] for part in PARTS) == pytest.approx(migration['blackout_ms'], abs=0.5)


@pytest.mark.parametrize('route', ['native', 'carrier'])
def test_huge_pages(place, route):
    """A guest has them after a move, too, where the kernel gives some to memory that asks."""
    with open('/sys/kernel/mm/transparent_hugepage/enabled', encoding='ascii') as setting:
        if '[never]' in setting.read():
            pytest.skip('this kernel gives no huge pages')
    assert place.move('--route', route, '--verify')['verify']['equal'] is True
    ram = guestram.of(godwit_lab.only(place.source.qemu_pids()), MEMORY_MIB)
    figures.append(f'huge pages after a move, {route}: {ram.huge_kib} of {ram.resident_kib} KiB')
    assert ram.huge_kib >= ram.resident_kib // 2, ram


def test_not_asked_for(place):
    migration = place.move()
    assert 'verify' not in migration and migration['breakdown']['verify_ms'] is None


def spoil(pid, page):
    """Changes one byte of the guest's RAM, behind everybody's back."""
    at = guestram.of(pid, MEMORY_MIB).address + page * PAGE + 1234
    with open(f'/proc/{pid}/mem', 'r+b', buffering=0) as ram:
        was = os.pread(ram.fileno(), 1, at)
        os.pwrite(ram.fileno(), bytes([was[0] ^ 0x10]), at)


@pytest.mark.parametrize('route', ['native', 'carrier'])
def test_a_spoiled_page(place, unharmed, route):
    """One bit of one page, between the pause and the hashing: refused by its number."""
    page = 40000
    stop = godwit_lab.Breakpoint(place.source, 'source op verify')
    move = place.start_move('--route', route, '--verify')
    stop.wait()
    spoil(place.destination.qemu_pids()[0], page)
    stop.go_on()
    result = move.result()
    refusal(result, 1, 'memory-differs', f'ram0 {page}')
    verify = result.json['verify']
    assert (verify['equal'], verify['different_regions']) == (False, 1)
    assert verify['different_pages'] == [{'block': 'ram0', 'page': page}]
    assert place.guest.scan()['verdict'] == 'good'


def test_destination_lost_meanwhile(place, unharmed):
    stop = godwit_lab.Breakpoint(place.source, 'source op verify')
    move = place.start_move('--verify')
    stop.wait()
    godwit_lab.kill(place.destination.qemu_pids()[0])
    stop.go_on()
    assert move.result().status == 1
    assert place.guest.scan()['verdict'] == 'good'
