# SPDX-License-Identifier: Apache-2.0
"""The lab itself: it comes, it goes, and it leaves nothing, whoever dies."""
import json
import os
import signal
import subprocess

import pytest

import godwit_lab

pytestmark = pytest.mark.usefixtures('network_needs')
NAME = f'l{os.getpid()}'
PROGRAM = f'{godwit_lab.TOOLS}/godwit-lab'


def lab(*arguments, name=NAME):
    return subprocess.run([PROGRAM, arguments[0], '--name', name, *arguments[1:]], text=True,
                          capture_output=True, check=False)


def traces(name=NAME):
    """All that exists of a lab of this name."""
    found = [entry for entry in os.listdir('/run/netns') if entry.startswith(f'gwlab-{name}-')]
    if os.path.exists(f'/run/godwit-lab/{name}'):
        found.append(f'/run/godwit-lab/{name}')
    return found


@pytest.fixture(autouse=True)
def tidy():
    yield
    lab('down')


def test_up_and_down():
    links = subprocess.check_output(['ip', '-o', 'link'])
    made = lab('up', '--bare', '--json')
    assert made.returncode == 0, made.stderr
    assert [node['address'] for node in json.loads(made.stdout)['nodes'].values()] == \
        ['10.77.0.1', '10.77.0.2', '10.77.0.3']
    for source, address in (('n1', '10.77.0.3'), ('n3', '10.77.0.2')):
        answer = lab('ping', source, '-c', '1', '-W', '1', address)
        assert answer.returncode == 0, answer.stdout
    assert lab('exec', 'n2', 'cat', '/sys/class/net/br0/address').stdout == '02:67:77:00:02:00\n'
    assert lab('down').returncode == 0
    assert not traces()
    assert subprocess.check_output(['ip', '-o', 'link']) == links


def test_packets_pass_as_soon_as_it_is_up():
    done = lab('run', '--bare', '--', PROGRAM, 'ping', '--name', NAME, 'n1', '-c', '1', '-W', '1',
               '10.77.0.2')
    assert done.returncode == 0, done.stdout + done.stderr


def test_link_rate():
    assert lab('up', '--bare', '--nodes', '2', '--link', '100mbit').returncode == 0
    for namespace, device in (('n1', 'up0'), ('sw', 'n1')):
        shown = subprocess.check_output(
            ['tc', '-n', f'gwlab-{NAME}-{namespace}', 'qdisc', 'show', 'dev', device], text=True)
        assert 'tbf' in shown and 'rate 100Mbit' in shown


def test_two_labs_at_once():
    other = f'{NAME}-n1'  # a name that only looks like a node of the first
    try:
        assert lab('up', '--bare', '--nodes', '2').returncode == 0
        assert lab('up', '--bare', '--nodes', '2', name=other).returncode == 0
        assert lab('down').returncode == 0
        assert len(traces(other)) == 4
        assert lab('ping', 'n1', '-c', '1', '10.77.0.2', name=other).returncode == 0
    finally:
        lab('down', name=other)


def test_name_in_use():
    assert lab('up', '--bare', '--nodes', '1').returncode == 0
    again = lab('up', '--bare')
    assert again.returncode == 1
    assert f'godwit-lab down --name {NAME}' in again.stderr
    assert len(traces()) == 3, 'the refusal harmed the lab that was there'


def test_down_from_half_states():
    assert lab('up', '--bare').returncode == 0
    subprocess.check_call(['ip', 'netns', 'del', f'gwlab-{NAME}-sw'])
    assert lab('down').returncode == 0
    assert not traces()
    assert lab('up', '--bare').returncode == 0
    subprocess.check_call(['rm', '-r', f'/run/godwit-lab/{NAME}'])
    assert 'left over' in lab('up', '--bare').stderr
    assert lab('down').returncode == 0
    assert not traces()
    assert lab('down').returncode == 0


def test_down_ends_what_runs_inside():
    assert lab('up', '--bare', '--nodes', '1').returncode == 0
    # It ignores what it can, and so does its child.
    process = subprocess.Popen(['ip', 'netns', 'exec', f'gwlab-{NAME}-n1', 'sh', '-c',
                                'trap "" TERM HUP INT; echo in; sleep 1000 & wait; wait'],
                               stdout=subprocess.PIPE)
    godwit_lab.Reader(process.stdout).line(5, 'the process in the lab')
    assert lab('down').returncode == 0
    assert process.wait(5) == -signal.SIGKILL
    process.stdout.close()
    assert not traces()


def held_lab(*options):
    """A lab that lives until this process or the holder dies; gives the holder."""
    holder = subprocess.Popen([PROGRAM, 'run', '--name', NAME, '--bare', *options, '--', 'sh', '-c',
                               'echo up; exec sleep 1000'], stdout=subprocess.PIPE)
    godwit_lab.Reader(holder.stdout).line_with('up', 20, 'lab')
    return holder


def children(pid):
    with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as source:
        return [int(child) for child in source.read().split()]


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_run_killed(how):
    holder = held_lab()
    guardian, command = [pid for pid in children(holder.pid)]
    holder.send_signal(how)
    holder.wait(10)
    holder.stdout.close()
    godwit_lab.wait_ended(guardian, 10, 'the guardian')
    godwit_lab.wait_ended(command, 10, 'the command')
    assert not traces()


def test_guardian_killed():
    holder = held_lab('--nodes', '1')
    guardian, command = children(holder.pid)
    godwit_lab.kill(guardian)
    godwit_lab.kill(command)
    assert holder.wait(10) != 0
    holder.stdout.close()
    assert not traces()


@pytest.mark.parametrize('part', range(8))
def test_up_killed_while_it_builds(part):
    """Killed when this many namespaces are there, or as soon after that as can be."""
    up = subprocess.Popen([PROGRAM, 'up', '--name', NAME, '--bare', '--nodes', '8'],
                          stderr=subprocess.DEVNULL)
    while len(traces()) < part + 1 and up.poll() is None:
        pass
    guardian = children(up.pid)
    up.kill()
    up.wait()
    for pid in guardian:
        godwit_lab.wait_ended(pid, 20, 'the guardian')
    assert not traces()


def test_run_gives_the_commands_status():
    assert lab('run', '--bare', '--nodes', '1', '--', 'sh', '-c', 'exit 7').returncode == 7
    assert lab('run', '--bare', '--nodes', '1', '--', 'sh', '-c', 'kill -9 $$').returncode == 137
    assert not traces()


@pytest.mark.parametrize('arguments, status, words', [
    (('up', '--nodes', '0'), 2, '1 to 50'),
    (('up', '--link', 'fast'), 2, '1gbit'),
    (('status',), 1, 'godwit-lab up'),
    (('exec', 'n1', 'true'), 1, 'godwit-lab up'),
    (('run', '--bare', '--'), 1, 'needs a command'),
    (('run', '--bare', '--', '/nonexistent/command'), 1, 'cannot run /nonexistent/command'),
])
def test_errors(arguments, status, words):
    done = lab(*arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert not traces()


def test_without_root():
    done = subprocess.run(['setpriv', '--reuid=65534', '--clear-groups', '/usr/bin/python3',
                           PROGRAM, 'up', '--name', NAME], text=True, capture_output=True,
                          check=False)
    assert done.returncode == 1
    assert 'root' in done.stderr


def test_without_ip():
    done = subprocess.run(['/usr/bin/python3', PROGRAM, 'up', '--name', NAME], text=True,
                          capture_output=True, check=False, env={'PATH': '/nonexistent'})
    assert done.returncode == 1
    assert 'iproute2' in done.stderr


def test_unknown_node():
    assert lab('up', '--bare', '--nodes', '2').returncode == 0
    done = lab('exec', 'n7', 'true')
    assert done.returncode == 1
    assert "no node 'n7'" in done.stderr and 'n1, n2' in done.stderr


def test_holder_of_a_test_killed():
    """A test run that is killed takes its lab along: Lab holds it by a pipe."""
    test = subprocess.Popen(['/usr/bin/python3', '-c', 'import sys; sys.path.insert(0, '
                             f'"{godwit_lab.HERE}")\nimport godwit_lab\n'
                             f'with godwit_lab.Lab("{NAME}", "--bare"):\n'
                             '    print("held", flush=True); sys.stdin.read()'],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    godwit_lab.Reader(test.stdout).line_with('held', 20, 'the lab')
    holder, = children(test.pid)
    test.kill()
    test.wait()
    test.stdin.close()
    test.stdout.close()
    godwit_lab.wait_ended(holder, 20, 'godwit-lab run')
    assert not traces()
