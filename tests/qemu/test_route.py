# SPDX-License-Identifier: Apache-2.0
"""--route auto: the link and the processors are measured, and the record says what came of it."""
import os

import pytest

import godwit_lab
from conftest import figures

MBIT = 125000
FAST = 180000000  # GW_ROUTE_FAST_BYTES in engine/host/route.h


def decision(migration, rule='route'):
    return godwit_lab.only([d for d in migration['decisions'] if d['rule'] == rule])


def note(what, found):
    figures.append(f'auto, {what}: {found["chosen"]}, {found["inputs"]}: {found["because"]}')


@pytest.fixture(scope='module')
def slow(guest_needs):
    """A lab of its own, whose links take 200 Mbit/s."""
    with godwit_lab.Lab(f'r{os.getpid()}', '--link', '200mbit') as made:
        yield made


def test_a_slow_link_is_for_the_carrier(slow):
    guest = godwit_lab.Guest.start(slow.n1, 'auto1')
    try:
        migration = slow.n1.migrate('auto1', 'n2', '--route', 'auto')
        guest.assert_good('n2')
    finally:
        guest.stop()
    found = decision(migration)
    note('200 Mbit/s', found)
    assert migration['route'] == found['chosen'] == 'carrier' and 'carrier' in migration
    # A tick of the kernel's clock more or less, and what the shaper lets pass at once.
    assert 5 * MBIT < found['inputs']['link_bytes_per_s'] < 600 * MBIT
    assert found['inputs']['codec_bytes_per_s'] > 10 * MBIT
    assert 'slower than pages are encoded' in found['because']
    # Nobody named a codec either. Of the 64 MiB that the guest has filled half is noise.
    codec = decision(migration, 'codec')
    assert migration['codec'] == codec['chosen'] == 'zstd' and codec['inputs']['wanted'] == 'auto'
    whole = migration['carrier']['pages']['whole'] * 4096
    figures.append(f'200 Mbit/s, no codec named: {migration["wire_bytes"]} bytes for {whole} of whole pages')
    assert migration['wire_bytes'] < 0.7 * whole


def test_an_open_link_is_qemus(place):
    """The same rule on a link without a limit; and the route that was taken is the one it says."""
    migration = place.move('--route', 'auto')
    found = decision(migration)
    note('no limit', found)
    assert migration['route'] == found['chosen']
    assert found['inputs']['wanted'] == 'auto'
    assert found['inputs']['link_bytes_per_s'] > 250 * MBIT, found
    if found['inputs']['link_bytes_per_s'] >= FAST:
        assert found['chosen'] == 'native' and 'so fast' in found['because']
    codec = decision(migration, 'codec')
    assert codec['inputs']['wanted'] == 'auto'
    assert migration['codec'] == codec['chosen'] == {'native': 'none', 'carrier': 'zstd'}[found['chosen']]


def test_a_limit_counts_as_a_slow_link(place):
    found = decision(place.move('--route', 'auto', '--bandwidth', '40MiB/s'))
    assert found['chosen'] == 'carrier'
    assert found['inputs']['limit_bytes_per_s'] == 40 << 20


def test_who_asks_gets_what_he_asks_for(place):
    for route in ('native', 'carrier'):
        migration = place.move('--route', route)
        assert (migration['route'], decision(migration)['because']) == (route, 'asked for')


def test_a_check_tells_it_too(place):
    checked = place.source.godwit('check', 'web1', '--to', place.destination.name, '--json').json
    assert checked['ok']
    assert decision(checked)['chosen'] in ('native', 'carrier')
