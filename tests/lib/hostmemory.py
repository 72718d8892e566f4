# SPDX-License-Identifier: Apache-2.0
"""Memory of this machine where it is itself a guest.

With free page reporting (virtio-balloon) what is free for a second or two goes back to the host, and to get it
again takes 2 s for each GiB: more than anything else in a move, and by chance more or less of it.
"""
import contextlib
import mmap
import os

ORDER = '/sys/module/page_reporting/parameters/page_reporting_order'
NONE_SO_LARGE = '11'  # the largest free block has order 10


@contextlib.contextmanager
def kept(mib=8192):
    """Free memory stays here while the block lasts, and so much of it has been had from the host."""
    try:
        with open(ORDER, encoding='ascii') as setting:
            before = setting.read()
        with open(ORDER, 'w', encoding='ascii') as setting:
            setting.write(NONE_SO_LARGE)
    except OSError:  # this kernel gives nothing back
        yield
        return
    try:
        available = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, min(mib << 20, available // 2), flags=flags).close()
        yield
    finally:
        with open(ORDER, 'w', encoding='ascii') as setting:
            setting.write(before)
