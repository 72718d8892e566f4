# SPDX-License-Identifier: Apache-2.0
"""./demo --ceph does what the README promises."""
import json
import subprocess

import godwit_lab


def test_demo(needs, tmp_path):
    done = subprocess.run([f'{godwit_lab.REPO}/demo', '--built', '--ceph', '--json',
                           f'{tmp_path}/out.json'], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(f'{tmp_path}/out.json', encoding='utf-8') as source:
        disk = json.load(source)['disk']
    assert disk['root'] == '/dev/vda ext4', disk
    assert disk['verdict'] == 'good' and disk['blocks'] == 8192, disk
    assert disk['writes'] > 100 and not disk['lost'] + disk['torn'] + disk['write_errors'], disk
