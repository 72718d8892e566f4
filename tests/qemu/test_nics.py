# SPDX-License-Identifier: Apache-2.0
"""What follows a guest besides its first NIC's MAC: addresses, further NICs, and the operator's
own network, through the hook. Seen from outside: what a third node hears, and where bridges send."""
import contextlib
import json
import os
import socket
import subprocess
import time

import godwit_lab
import pytest
from conftest import VM, refusal
from godwit_lab import GUEST_ADDRESS, GUEST_MAC, Breakpoint, Guest, Ping

ARP, IPV6 = 0x0806, 0x86dd
ROUNDS = 5  # of QEMU's announce schedule, and ours
# Frames of ours are padded as on a wire; a virtio NIC's are not.
PADDED = 60

LINK_LOCAL = 'fe80::5054:ff:fe77:64'  # made from GUEST_MAC (RFC 4291, appendix A)
NICS_ADDRESS = '10.77.0.101'
NICS = [('br0', '52:54:00:77:01:00'), ('br1', '52:54:00:77:01:01'), ('br0', '52:54:00:77:01:02')]


class Listener:
    """Frames of one EtherType that a node receives, from the moment that this is made."""

    def __init__(self, node, ether_type):
        self.socket = godwit_lab.socket_on(node, socket.SOCK_RAW, socket.AF_PACKET,
                                           socket.htons(ether_type))
        self.socket.bind(('br0', ether_type))

    def wait(self, wanted, count, timeout_s=10):
        """Until so many frames have come for which wanted(frame) holds."""
        deadline = time.monotonic() + timeout_s
        found = 0
        while found < count:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                found += bool(wanted(self.socket.recv(2048)))
            except TimeoutError:
                raise godwit_lab.Failure(
                    f'{found} of {count} announcements within {timeout_s} s') from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@contextlib.contextmanager
def ipv6_on(node):
    """Gives br0 a link-local address, which the lab does without."""
    path = '/proc/sys/net/ipv6/conf/br0/disable_ipv6'
    node.run('sh', '-c', f'echo 0 > {path}')
    try:
        yield
    finally:
        node.run('sh', '-c', f'echo 1 > {path}')


def mac_bytes(text):
    return bytes.fromhex(text.replace(':', ''))


def is_gratuitous_arp(frame):
    address = socket.inet_aton(GUEST_ADDRESS)
    return len(frame) >= PADDED and frame[6:12] == mac_bytes(GUEST_MAC) and \
        frame[28:32] == address == frame[38:42]


def is_unsolicited_advertisement(frame):
    # To all nodes, with the "override" flag and not the "solicited" one.
    return frame[6:12] == mac_bytes(GUEST_MAC) and frame[:6] == mac_bytes('33:33:00:00:00:01') and \
        frame[54] == 136 and frame[58] == 0x20


def ports_of(namespace, bridge):
    """{MAC: port} of a bridge's table, without its own entries."""
    entries = json.loads(subprocess.check_output(
        ['bridge', '-n', namespace, '-json', 'fdb', 'show', 'br', bridge]))
    return {entry['mac']: entry['ifname'] for entry in entries
            if entry.get('state') != 'permanent'}


def test_addresses_are_announced(lab, place):
    """The guest claims them when n3, which has forgotten it, asks for them."""
    lab.n3.run('ip', 'neigh', 'flush', 'all')
    assert place.guest.status()
    with ipv6_on(lab.n3):
        # Just booted it may still be making sure that the address is its own.
        lab.n3.run('ping', '-6', '-c', '1', '-w', '20', f'{LINK_LOCAL}%br0')
    with Listener(lab.n3, ARP) as arp, Listener(lab.n3, IPV6) as ipv6:
        place.move()
        # Once at the switch, and then on the schedule.
        arp.wait(is_gratuitous_arp, 1 + ROUNDS)
        ipv6.wait(is_unsolicited_advertisement, 1 + ROUNDS)


def test_a_restarted_daemon_knows_them_still(lab, place):
    """Whatever the end of the daemon before it: the guest need not claim them again."""
    place.source.kill_daemon()
    place.source.start_daemon()
    with Listener(lab.n3, ARP) as arp, Listener(lab.n3, IPV6) as ipv6:
        place.move()
        arp.wait(is_gratuitous_arp, 1 + ROUNDS)
        ipv6.wait(is_unsolicited_advertisement, 1 + ROUNDS)


def test_the_source_announces_again(lab, place, unharmed):
    """A failure after the pause and before the commit: the switch knows the way back at once."""
    switch = f'gwlab-{lab.name}-sw'
    stop = Breakpoint(place.source, 'source op switch')
    move = place.start_move()
    stop.wait()
    with Listener(lab.n3, ARP) as arp:
        # The guest is paused. Its packets go to the destination as soon as SWITCHING is there.
        qemu, = place.destination.qemu_pids()
        godwit_lab.kill(qemu)
        stop.go_on()
        assert move.result().status == 1
        arp.wait(is_gratuitous_arp, 1 + ROUNDS)
    assert ports_of(switch, 'sw0')[GUEST_MAC] == place.source.name


@pytest.fixture
def second_network(lab):
    """br1 on n1 and n2, joined by br1 of n3."""
    def ip(node, *words):
        subprocess.check_call(['ip', '-n', node.namespace, *words])
    nodes = (lab.n1, lab.n2, lab.n3)
    for node in nodes:
        ip(node, 'link', 'add', 'br1', 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0')
        ip(node, 'link', 'set', 'br1', 'up')
    for node in nodes[:2]:
        ip(node, 'link', 'add', 'up1', 'type', 'veth', 'peer', 'name', f'to-{node.name}',
           'netns', lab.n3.namespace)
        ip(node, 'link', 'set', 'up1', 'master', 'br1', 'up')
        ip(lab.n3, 'link', 'set', f'to-{node.name}', 'master', 'br1', 'up')
    yield
    for node in nodes:
        ip(node, 'link', 'del', 'br1')
    for node in nodes[:2]:
        ip(node, 'link', 'del', 'up1')


def where_macs_are(lab):
    """For each NIC: the node behind the port where the network beyond the nodes sends to it."""
    switch = ports_of(f'gwlab-{lab.name}-sw', 'sw0')
    beyond = ports_of(lab.n3.namespace, 'br1')
    return [switch.get(mac) if bridge == 'br0' else beyond.get(mac, '').removeprefix('to-')
            for bridge, mac in NICS]


def own_ports(node):
    """For each NIC: whether the node's bridge sends to a tap of the guest, and which."""
    tables = {bridge: ports_of(node.namespace, bridge) for bridge in ('br0', 'br1')}
    return [tables[bridge].get(mac, '').rpartition('-')[2] for bridge, mac in NICS]


def test_every_nic_moves(lab, second_network):
    """Two bridges, and two NICs on one of them. The guest drives the first; the others are silent,
    so that what bridges know of them is what the nodes have told."""
    path, log = godwit_lab.write_vm_file(
        lab.n1, 'nics', memory='192MiB', append=godwit_lab.guest_append(ip=f'{NICS_ADDRESS}/24'),
        nics=[{'bridge': bridge, 'mac': mac} for bridge, mac in NICS])
    lab.n1.godwit('vm', 'start', path)
    guest = Guest(lab, 'nics', log, NICS_ADDRESS)
    try:
        guest.wait_ready()
        with Ping(lab.n3, NICS_ADDRESS) as ping:
            ping.wait_first()
            ping.report()
            for source, destination in ((lab.n1, lab.n2), (lab.n2, lab.n1)):
                assert source.migrate('nics', destination.name)['state'] == 'completed'
                assert where_macs_are(lab) == [destination.name] * len(NICS)
                assert own_ports(destination) == ['0', '1', '2']
            assert ping.report()['lost'] == 0
        guest.assert_good('n1')
    finally:
        guest.stop()


# --- the hook ---

HOOK = '''#!/bin/sh
read -r object
printf '%s %s\\n' "$1" "$object" >> {calls}
[ "$1" != "$(cat {fails} 2>/dev/null)" ] || {{ echo "no port for $1" >&2; exit 3; }}
'''


class Hook:
    def __init__(self, node):
        self.node = node
        self.directory = f'{node.dir}/hook'
        self.calls, self.fails = f'{self.directory}/calls', f'{self.directory}/fails'

    def install(self):
        os.makedirs(self.directory, exist_ok=True)
        for path in (self.calls, self.fails):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        path = f'{self.directory}/hook'
        with open(path, 'w', encoding='utf-8') as out:
            out.write(HOOK.format(calls=self.calls, fails=self.fails))
        os.chmod(path, 0o755)
        self.restart(path)

    def restart(self, path):
        self.node.set_config(network_hook=path)
        self.node.stop_daemon()
        self.node.start_daemon()

    def fail_at(self, point):
        with open(self.fails, 'w', encoding='utf-8') as out:
            out.write(point)

    def wait_last(self, point):
        """Until the last call is there; the calls since the one before, as (point, object)."""
        godwit_lab.wait_line(self.calls, f'{point} ', 20)
        with open(self.calls, encoding='utf-8') as source:
            lines = source.read().splitlines()
        os.unlink(self.calls)
        return [(line.partition(' ')[0], json.loads(line.partition(' ')[2] or 'null'))
                for line in lines]


@pytest.fixture
def hooks(lab, place):
    made = {node.name: Hook(node) for node in (lab.n1, lab.n2)}
    for hook in made.values():
        hook.install()
    yield made
    for hook in made.values():
        hook.restart(None)


def points(calls):
    return [point for point, _ in calls]


def test_the_hook_is_told_of_a_move(place, hooks):
    source, destination = place.source, place.destination
    place.move()
    theirs = hooks[destination.name].wait_last('done')
    ours = hooks[source.name].wait_last('done')
    assert points(ours) == ['prepare', 'done']
    assert points(theirs) == ['prepare', 'switch', 'done']
    for point, told in ours + theirs:
        assert told['point'] == point and told['vm'] == VM and told['uuid'] == place.guest.uuid()
        assert (told['from'], told['to']) == (source.name, destination.name)
        nic, = told['nics']
        assert nic['mac'] == GUEST_MAC and nic['bridge'] == 'br0' and nic['tap'].startswith('gw')
    assert {told['role'] for _, told in ours} == {'source'}
    assert {told['role'] for _, told in theirs} == {'destination'}
    # At the switch the destination has the addresses that the source knew, restarted or not.
    assert GUEST_ADDRESS in dict(theirs)['switch']['nics'][0]['addresses']


@pytest.mark.parametrize('side', ['source', 'destination'])
def test_a_failed_prepare_stops_the_move(place, hooks, side):
    failing = getattr(place, side).name
    hooks[failing].fail_at('prepare')
    refusal(place.source.migrate(VM, place.destination.name, check=False), 1, 'state',
            'no port for prepare')
    calls = hooks[failing].wait_last('undo')
    assert points(calls) == ['prepare', 'undo']
    place.guest.assert_good(place.source.name)


def test_other_failures_stop_nothing(place, hooks):
    source, destination = place.source, place.destination
    hooks[destination.name].fail_at('switch')
    migration = place.move()
    assert points(hooks[destination.name].wait_last('done')) == ['prepare', 'switch', 'done']
    hooks[source.name].wait_last('done')
    assert 'no port for switch' in destination.godwit('log', migration['id']).stdout


def test_the_hook_is_told_of_a_move_back(place, hooks):
    """A failure after the switch; and `godwit check` moves nothing."""
    source, destination = place.source, place.destination
    source.godwit('check', VM, '--to', destination.name)
    stop = Breakpoint(destination, 'destination phase switchover')
    move = place.start_move()
    stop.wait()
    godwit_lab.kill(destination.qemu_pids()[0])
    stop.go_on()
    result = move.result()
    assert result.status == 1, str(result)
    assert points(hooks[source.name].wait_last('undo')) == ['prepare', 'undo']
    assert points(hooks[destination.name].wait_last('undo')) == ['prepare', 'switch', 'undo']
    place.guest.assert_good(source.name)
