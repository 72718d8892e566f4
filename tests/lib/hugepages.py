# SPDX-License-Identifier: Apache-2.0
"""Huge pages for shared memory: the kernel's setting, and what a QEMU has of them."""
import contextlib
import re

SHMEM_ENABLED = '/sys/kernel/mm/transparent_hugepage/shmem_enabled'


@contextlib.contextmanager
def shmem_enabled(wanted):
    """Sets it while the block lasts; None: as it is already. Gives what is in force."""
    with open(SHMEM_ENABLED, encoding='ascii') as source:
        before = source.read().partition('[')[2].partition(']')[0]
    if wanted in (None, before):
        yield before
        return
    with open(SHMEM_ENABLED, 'w', encoding='ascii') as setting:
        setting.write(wanted)
    try:
        yield wanted
    finally:
        with open(SHMEM_ENABLED, 'w', encoding='ascii') as setting:
            setting.write(before)


def mapped_kib(pid):
    """Of the guest's RAM, in the QEMU with that pid."""
    with open(f'/proc/{pid}/smaps', encoding='utf-8') as source:
        ram = re.search(r'/memfd:guest-ram.*?^ShmemPmdMapped: *(\d+) kB', source.read(), re.DOTALL | re.MULTILINE)
    return int(ram.group(1)) if ram else 0
