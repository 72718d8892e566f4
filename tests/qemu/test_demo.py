# SPDX-License-Identifier: Apache-2.0
"""./demo does what the README promises."""
import json
import subprocess

import godwit_lab


def test_demo(guest_needs, tmp_path):
    done = subprocess.run([f'{godwit_lab.REPO}/demo', '--built', '--json', f'{tmp_path}/out.json'],
                          text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '\033' not in done.stdout, 'colour, but this is no terminal'
    with open(f'{tmp_path}/out.json', encoding='utf-8') as source:
        figures = json.load(source)
    assert set(figures) == {'migration', 'ping', 'udp', 'memory', 'machine'}
    assert figures['migration']['state'] == 'completed'
    assert figures['memory']['verdict'] == 'good' and figures['memory']['pages_checked'] > 32768
    assert figures['ping']['sent'] > 100 and figures['udp']['sent'] > 1000
    assert figures['ping']['lost'] == 0, figures['ping']
    assert 0 <= figures['ping']['late'] < figures['ping']['sent']
    assert figures['ping']['longest_gap_ms'] > 0
    assert set(figures['machine']) == {'cpu', 'cores', 'memory_bytes', 'kernel', 'qemu'}
