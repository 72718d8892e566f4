# SPDX-License-Identifier: Apache-2.0
"""Where a QEMU has its guest's RAM, as the kernel tells."""
import dataclasses
import re


@dataclasses.dataclass
class Mapping:
    address: int
    resident_kib: int
    huge_kib: int  # of that, in huge pages


def of(pid, mib):
    """The private memory of exactly that size, in the QEMU with that pid."""
    with open(f'/proc/{pid}/smaps', encoding='utf-8') as source:
        parts = re.split(r'^(?=[0-9a-f]+-[0-9a-f]+ )', source.read(), flags=re.MULTILINE)
    found = []
    for part in filter(None, parts):
        span, access, _, _, inode = part.split(maxsplit=5)[:5]
        first, end = (int(number, 16) for number in span.split('-'))
        if (end - first, access, inode) == (mib << 20, 'rw-p', '0'):
            kib = dict(re.findall(r'^(\w+): +(\d+) kB', part, flags=re.MULTILINE))
            found.append(Mapping(first, int(kib['Rss']), int(kib['AnonHugePages'])))
    assert len(found) == 1, f'QEMU {pid} has {len(found)} mappings of {mib} MiB'
    return found[0]
