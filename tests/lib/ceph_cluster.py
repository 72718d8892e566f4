#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program with a real Ceph of its own.

    ceph_cluster.py COMMAND…

COMMAND finds in its environment CEPH_CONF (users client.admin, client.godwit, and client.reader,
who may only read), GW_CEPH_MON_PID and GW_CEPH_OSD_PID. The status is COMMAND's; 77 without Ceph.
"""
import os
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), '../../tools'))
import godwit_ceph  # noqa: E402

USERS = '[client.reader]\nkeyring = {dir}/client.reader.keyring\n'
READER = ('mon', 'profile rbd', 'osd', 'profile rbd-read-only')


def run(argv, ceph):
    key = ceph.run('ceph', *ceph.admin_arguments(), 'auth', 'get-or-create', 'client.reader', *READER)
    with open(f'{ceph.dir}/client.reader.keyring', 'w', encoding='ascii') as out:
        out.write(key)
    with open(ceph.conf, 'a', encoding='ascii') as out:
        out.write(USERS.format(dir=ceph.dir))
    found = {'CEPH_CONF': ceph.conf, 'GW_CEPH_MON_PID': str(ceph.pid('mon.a')),
             'GW_CEPH_OSD_PID': str(ceph.pid('osd.0'))}
    return subprocess.run(argv, env={**os.environ, **found}, check=False).returncode


def main(argv):
    if not argv:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    missing = godwit_ceph.missing_programs()
    if missing:
        print(f'not installed: {", ".join(missing)} (./setup brings them)')
        return 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # meson's time limit
    with tempfile.TemporaryDirectory(prefix='gw-ceph-') as place, \
            godwit_ceph.Cluster.create(f'{place}/ceph', with_parent=True) as ceph:
        return run(argv, ceph)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
