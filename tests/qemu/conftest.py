# SPDX-License-Identifier: Apache-2.0
"""One lab and one guest for the whole session: a guest boots in three seconds, a move is faster."""
import os
import re
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), '../lib'))
import godwit_lab  # pylint: disable=wrong-import-position
import hostmemory  # pylint: disable=wrong-import-position
from place import VM, Place  # pylint: disable=wrong-import-position

# The rest relies on these.
ORDER = ('test_lab', 'test_move', 'test_refused', 'test_owners', 'test_failures', 'test_matrix',
         'test_resolve', 'test_adopt', 'test_figures', 'test_network', 'test_nics', 'test_relay',
         'test_verify', 'test_carrier', 'test_prefault', 'test_carrier_layouts', 'test_route',
         'test_freepages', 'test_endurance', 'test_demo')
# A frame that QEMU read while it stopped the guest may have reached it and is sent again: at most
# one for each NIC in a move (docs/architecture.md).
MAY_COME_TWICE = 1
SANITIZER = re.compile(r'ERROR: (Leak|Address)Sanitizer|runtime error:')

figures = []


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.module.__name__.rpartition('.')[2]))


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
def network_needs():
    require(os.geteuid() == 0, 'the lab needs root')
    require(os.access(f'{godwit_lab.TOOLS}/godwit-lab', os.X_OK), 'godwit-lab is not built')


@pytest.fixture(scope='session')
def guest_needs(network_needs):
    require(os.path.exists(godwit_lab.which_qemu()), 'qemu-system-x86_64 is not installed')
    require(os.path.exists(f'{godwit_lab.GUEST_DIR}/initrd.img'), 'the test guest is not built')


@pytest.fixture(scope='session')
def lab(guest_needs):
    """Three nodes, joined. Afterwards the daemons end in good order, for the leak sanitizer."""
    with hostmemory.kept(1024), godwit_lab.Lab(f't{os.getpid()}', '--set', 'log_level=debug',
                                               '--set', 'breakpoints=true') as made:
        yield made
        for node in made.nodes.values():
            if node.daemon_pid():
                node.stop_daemon()
            with open(node.log_path, encoding='utf-8', errors='replace') as log:
                text = log.read()
            found = SANITIZER.search(text)
            assert not found, f'godwitd of {node.name}:\n{text[found.start():]}'


@pytest.fixture(scope='session')
def running(lab):
    """Holds the session's guest, so that a test after one that lost it gets a new one."""
    return {}


@pytest.fixture
def place(lab, running):
    try:
        found = Place(running['guest'])
        found.guest.status()
    except (KeyError, AssertionError):
        for node in (lab.n1, lab.n2):
            node.set_link('up')
            if not node.daemon_pid():
                node.start_daemon()
        godwit_lab.Guest(lab, VM, None).stop()
        running['guest'] = godwit_lab.Guest.start(lab.n1, VM)
        found = Place(running['guest'])
    return found


@pytest.fixture
def unharmed(place):
    """For what must fail: nothing is left behind, the guest is where it was, and still moves.

    A test adds to `renewed` the names of nodes whose programs it restarted.
    """
    before = godwit_lab.snapshot(place.lab)
    renewed = set()
    yield renewed
    godwit_lab.assert_nothing_left(place.lab, before, renewed)
    place.guest.assert_good(place.source.name)
    place.move()


def refusal(result, status, code, *words):
    """Checks that a command failed as it should, with a message that helps; gives the message."""
    assert result.status == status, str(result)
    error = result.json['error']
    assert error['code'] == code, str(result)
    text = f'{error["message"]} {error["hint"]}'
    for word in words:
        assert word in text, f'"{word}" is not in: {text}'
    assert error['hint'], f'no word on what to do: {error}'
    assert error['message'] in result.stderr, str(result)
    return error['message']
