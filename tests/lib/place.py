# SPDX-License-Identifier: Apache-2.0
"""A guest of the tests, the node that it is on, and the node that it can go to."""
import godwit_lab

VM = 'web1'


class Place:
    """The session's guest, the node that it is on and the node that it is not on."""

    def __init__(self, guest):
        self.guest = guest
        self.lab = guest.lab
        self.find()

    def find(self):
        here = self.guest.node()
        self.source = self.lab.nodes[here]
        self.destination = self.lab.nodes['n2' if here == 'n1' else 'n1']

    def command_line(self):
        """Of the guest's QEMU, which must have moved once."""
        with open(f'/proc/{self.source.vms()[VM]["pid"]}/cmdline', 'rb') as source:
            return source.read().decode().split('\0')[:-1]

    def move(self, *options):
        """Moves the guest to the other node, checks its memory there; gives the JSON object."""
        migration = self.source.migrate(VM, self.destination.name, *options)
        assert migration['state'] == 'completed'
        self.guest.assert_good(self.destination.name)
        self.find()
        return migration

    def start_move(self, *options):
        return godwit_lab.Move(self.source, VM, self.destination.name, *options)
