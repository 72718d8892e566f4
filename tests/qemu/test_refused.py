# SPDX-License-Identifier: Apache-2.0
"""What bad input gets: a message that says what was tried and what to do, and no harm.

Nothing here starts to copy; the guest runs on all the while.
"""
import contextlib
import os
import re
import resource
import socket
import subprocess

import pytest

import godwit_lab
from conftest import VM, refusal, require

FULL_PORT = 49300


# --- what nobody knows --------------------------------------------------------------


def test_unknown_vm(place, unharmed):
    refusal(place.source.migrate('nosuch', place.destination.name, check=False),
            2, 'not-found', 'nosuch')


def test_unknown_node(place, unharmed):
    refusal(place.source.migrate(VM, 'n9', check=False), 2, 'not-found', 'n9')


def test_unknown_policy(place, unharmed):
    refusal(place.source.migrate(VM, place.destination.name, '--policy', 'nosuch', check=False),
            2, 'not-found', 'nosuch')


def test_vm_on_another_node(place, unharmed):
    """It exists, but the daemon that is asked does not run it."""
    refusal(place.destination.migrate(VM, place.source.name, check=False), 2, 'not-found', VM)


def test_to_itself(place, unharmed):
    result = place.source.migrate(VM, place.source.name, check=False)
    assert result.status in (1, 2), str(result)
    assert place.source.name in result.json['error']['message']


@pytest.mark.parametrize('arguments, word', [
    (['migrate', VM], '--to'),
    (['migrate', VM, '--to', 'n2', '--bandwith', '1gbit'], '--bandwi'),
    (['migrate', VM, '--to', 'n2', '--bandwidth', 'fast'], 'fast'),
    (['migrate', VM, '--to', 'n2', '--route', 'teleport'], 'teleport'),
    (['vm', 'begin', 'x'], 'begin'),
    (['cancel'], 'ID'),
])
def test_usage(lab, arguments, word):
    result = lab.n1.godwit(*arguments, check=False)
    assert result.status == 2, str(result)
    assert word in result.stderr


def test_unknown_migration(lab):
    for verb in ('cancel', 'log', 'explain'):
        refusal(lab.n1.godwit(verb, 'm-00000000', '--json', check=False), 2, 'not-found',
                'm-00000000')


# --- VM files -----------------------------------------------------------------------


@pytest.mark.parametrize('line, text, words', [
    (2, 'memory: lots', ['memory', 'lots']),
    (2, 'memory: -1GiB', ['memory']),
    (2, 'memroy: 256MiB', ['memroy']),
    (3, 'cpus: 0', ['cpus']),
    (3, 'cpus: many', ['cpus']),
    (4, 'accel: turbo', ['accel', 'turbo']),
    (4, 'disks: [{rbd: a/b, file: /c}]', ['rbd', 'file']),
    (4, 'nics: [{bridge: br0, mac: "52:54:00:12:34"}]', ['mac']),
    (4, 'nics: [{bridge: ../x}]', ['bridge']),
    (1, 'name: "a/b"', ['name']),
    (4, '{', []),
])
def test_vm_file_with_a_wrong_value(lab, line, text, words):
    lines = ['name: wrong', 'memory: 256MiB', 'cpus: 1', 'accel: tcg']
    lines[line - 1] = text
    path = f'{lab.n1.dir}/etc/wrong.yaml'
    before = godwit_lab.snapshot(lab)
    with open(path, 'w', encoding='utf-8') as out:
        out.write('\n'.join(lines) + '\n')
    result = lab.n1.godwit('vm', 'start', path, '--json', check=False)
    os.unlink(path)
    message = refusal(result, 2, 'config', *words)
    assert 'wrong.yaml' in message
    assert re.search(rf'(:|line ){line}\b', message), f'line {line} is not named: {message}'
    godwit_lab.assert_nothing_left(lab, before)


def test_vm_file_that_is_not_there(lab):
    result = lab.n1.godwit('vm', 'start', '/nonexistent/web.yaml', check=False)
    assert result.status in (1, 2) and '/nonexistent/web.yaml' in result.stderr, str(result)


def test_name_in_use(place, unharmed):
    was_there = os.path.exists(f'{place.source.dir}/etc/{VM}.yaml')  # that it was started from
    path, _ = godwit_lab.write_vm_file(place.source, VM)
    refusal(place.source.godwit('vm', 'start', path, '--json', check=False), 1, 'exists', VM)
    if not was_there:
        os.unlink(path)


def test_name_in_use_at_the_destination(lab, place):
    """A VM of the same name runs there: it must not be touched."""
    path, log = godwit_lab.write_vm_file(place.destination, VM, memory='64MiB',
                                         append='console=ttyS0', mac='52:54:00:77:00:66')
    before = godwit_lab.snapshot(lab)
    place.destination.godwit('vm', 'start', path)
    try:
        twin = place.destination.vms()[VM]['pid']
        refusal(place.source.migrate(VM, place.destination.name, check=False), 1, 'incompatible',
                VM, place.destination.name)
        assert place.destination.vms()[VM]['pid'] == twin
    finally:
        place.destination.godwit('vm', 'stop', VM, '--force')
    godwit_lab.assert_nothing_left(lab, before)
    place.guest.assert_good(place.source.name)
    place.move()


# --- a destination that cannot take it ----------------------------------------------


@contextlib.contextmanager
def small_vm(node, name='other', **options):
    """Another VM, without the test guest's care: for what is refused before it would copy."""
    options = {'memory': '64MiB', 'append': 'console=ttyS0 quiet', 'mac': '52:54:00:77:00:67',
               **options}
    path, log = godwit_lab.write_vm_file(node, name, **options)
    node.godwit('vm', 'start', path)
    try:
        yield
    finally:
        node.godwit('vm', 'stop', name, '--force')
        for made in (path, log):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made)


@contextlib.contextmanager
def configured(node, **settings):
    """Restarts the node's daemon with other settings, and again as it was."""
    path = f'{node.dir}/etc/godwitd.yaml'
    with open(path, encoding='utf-8') as source:
        original = source.read()
    node.stop_daemon()
    node.set_config(**settings)
    try:
        node.start_daemon()
        yield
    finally:
        if node.daemon_pid():
            node.stop_daemon()
        with open(path, 'w', encoding='utf-8') as out:
            out.write(original)
        node.start_daemon()


def test_not_enough_memory_at_the_destination(lab, place):
    """A VM as big as the machine: started, as its memory is only promised, but not moved."""
    before = godwit_lab.snapshot(lab)
    with open('/proc/meminfo', encoding='ascii') as source:
        total_mib = int(source.readline().split()[1]) >> 10
    with small_vm(place.source, 'huge', memory=f'{total_mib - 64}MiB'):
        refusal(place.source.migrate('huge', place.destination.name, check=False), 1,
                'incompatible', 'memory', place.destination.name)
        assert place.source.vms()['huge']['state'] == 'running'
    godwit_lab.assert_nothing_left(lab, before)


def test_destination_qemu_gets_no_memory(place, unharmed):
    """Preflight cannot see it: the kernel refuses the memory when QEMU asks for it."""
    destination = place.destination
    pid = destination.daemon_pid()
    old = resource.prlimit(pid, resource.RLIMIT_AS, (400 << 20, resource.RLIM_INFINITY))
    try:
        # QEMU's own words are passed on.
        result = place.source.migrate(VM, destination.name, check=False)
        assert result.status == 1, str(result)
        assert 'memory' in result.json['error']['message'].lower(), str(result)
        assert destination.name in result.json['error']['message']
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, old)


def test_migration_port_taken(place, unharmed):
    unharmed |= {place.destination.name}
    with configured(place.destination, migration_ports=f'{FULL_PORT}-{FULL_PORT}'), \
            godwit_lab.socket_on(place.destination, socket.SOCK_STREAM) as taken:
        taken.bind((place.destination.address, FULL_PORT))
        taken.listen()
        result = place.source.migrate(VM, place.destination.name, check=False)
        assert result.status == 1, str(result)
        error = result.json['error']
        assert str(FULL_PORT) in error['message'] and error['hint'], str(result)


def test_qemu_missing_at_the_destination(place, unharmed):
    unharmed |= {place.destination.name}
    with configured(place.destination, qemu='/nonexistent/qemu-system-x86_64'):
        result = place.source.migrate(VM, place.destination.name, check=False)
        assert result.status == 1, str(result)
        error = result.json['error']
        assert '/nonexistent/qemu-system-x86_64' in error['message'] and error['hint'], str(result)


@pytest.fixture(scope='module')
def old_qemu(guest_needs):
    """Path and version of a real QEMU that is too old to move guests from or to."""
    path = godwit_lab.which_old_qemu()
    require(os.access(path, os.X_OK), f'there is no {path}')
    said = subprocess.check_output([path, '--version'], text=True)
    return path, re.match(r'QEMU emulator version ([0-9.]+)', said)[1]


def check_findings(node, vm, to):
    """What `godwit check` finds, by code."""
    result = node.godwit('check', vm, '--to', to, '--json', check=False)
    return {finding['code']: finding for finding in result.json['findings']}


def log_since(node, position):
    with open(node.log_path, encoding='utf-8', errors='replace') as log:
        log.seek(position)
        return log.read()


def test_qemu_too_old_at_the_destination(place, unharmed, old_qemu):
    """It is refused by the version of what is installed: no QEMU is started for it."""
    unharmed |= {place.destination.name}
    path, version = old_qemu
    with configured(place.destination, qemu=path):
        position = os.path.getsize(place.destination.log_path)
        refusal(place.source.migrate(VM, place.destination.name, check=False), 1,
                'incompatible', version, place.destination.name, 'upgrade')
        found = check_findings(place.source, VM, place.destination.name)
        assert found['qemu-older']['level'] == 'error', found
        assert version in found['qemu-older']['message'] and found['qemu-older']['hint'], found
        log = log_since(place.destination, position)
        assert log and f'starting {path}' not in log, log


def test_qemu_too_old_at_the_source(place, unharmed, old_qemu):
    """It would lose pages on the way; the guest that runs under it is left alone."""
    unharmed |= {place.source.name}
    path, version = old_qemu
    address = '10.77.0.101'
    append = godwit_lab.guest_append(ip=f'{address}/24', fill='16MiB', wss='8MiB', rate=10)
    with configured(place.source, qemu=path), \
            small_vm(place.source, 'old', memory='128MiB', accel='tcg', append=append):
        guest = godwit_lab.Guest(place.lab, 'old', f'/run/godwit-lab/{place.lab.name}/old.log',
                                 address)
        guest.wait_ready()
        refusal(place.source.migrate('old', place.destination.name, check=False), 1,
                'incompatible', version, 'TCG', 'restart old')
        found = check_findings(place.source, 'old', place.destination.name)
        assert found['qemu-broken']['level'] == 'error', found
        guest.assert_good(place.source.name)


@contextlib.contextmanager
def over(node, path, source):
    """Puts another file or directory over path for the node's daemon alone.

    Every daemon has mounts of its own: that is how one machine has unequal nodes.
    """
    inside = ['nsenter', '--mount', '--target', str(node.daemon_pid())]
    subprocess.check_call([*inside, 'mount', '--bind', source, path])
    try:
        yield
    finally:
        subprocess.check_call([*inside, 'umount', path])


@pytest.fixture
def shared(lab):
    place = f'/run/godwit-lab/{lab.name}/shared'
    os.mkdir(place)
    yield place
    subprocess.check_call(['rm', '-r', place])


@pytest.mark.parametrize('image', ['missing', 'another'])
def test_image_at_the_destination(lab, place, shared, tmp_path, image):
    disk = f'{shared}/disk.qcow2'
    for path in (disk, f'{tmp_path}/disk.qcow2'):
        subprocess.check_call(['qemu-img', 'create', '-q', '-f', 'qcow2', path, '16M'])
    before = godwit_lab.snapshot(lab)
    with small_vm(place.source, 'withdisk', disks=[{'file': disk, 'format': 'qcow2'}]):
        if image == 'missing':
            os.unlink(f'{tmp_path}/disk.qcow2')
        with over(place.destination, shared, str(tmp_path)):
            refusal(place.source.migrate('withdisk', place.destination.name, check=False), 1,
                    'incompatible', disk, place.destination.name)
        assert place.source.vms()['withdisk']['state'] == 'running'
        # With the same image there, it goes.
        moved = place.source.migrate('withdisk', place.destination.name)
        assert moved['state'] == 'completed'
        place.destination.migrate('withdisk', place.source.name)
    godwit_lab.assert_nothing_left(lab, before)


def test_bridge_missing_at_the_destination(lab, place, unharmed):
    """The node has a bridge br0, but this VM wants another, which only the source has."""
    place.source.run('ip', 'link', 'add', 'br9', 'type', 'bridge')
    try:
        with small_vm(place.source, nics=[{'bridge': 'br9', 'mac': '52:54:00:77:00:68'}]):
            refusal(place.source.migrate('other', place.destination.name, check=False), 1,
                    'incompatible', 'br9', place.destination.name)
            check = place.source.godwit('check', 'other', '--to', place.destination.name, '--json',
                                        check=False)
            assert check.status == 1 and check.json['ok'] is False
            assert any('br9' in finding['message'] for finding in check.json['findings'])
    finally:
        place.source.run('ip', 'link', 'del', 'br9')


def test_weak_cpu_model_is_warned_about(lab, place):
    """RHEL 9 family guests panic on a CPU without x86-64-v2."""
    with small_vm(place.source, cpu='qemu64'):
        findings = place.source.godwit('check', 'other', '--to', place.destination.name,
                                       '--json').json['findings']
        assert any(finding['level'] == 'warning' and 'x86-64-v2' in finding['message']
                   for finding in findings), findings


# --- strangers ----------------------------------------------------------------------


def test_a_token_is_good_once(lab):
    """And what was said with a wrong one helps nobody."""
    token = lab.n1.godwit('node', 'invite', '--json').json['token']
    broken = token[:-6] + ('AAAAAA' if not token.endswith('AAAAAA') else 'BBBBBB')
    result = lab.n2.godwit('node', 'join', broken, '--json', check=False)
    assert result.status in (1, 2), str(result)


def test_a_stranger_gets_a_closed_connection(lab):
    """Without a certificate of this group: no byte but the handshake's."""
    said = lab.n3.run('openssl', 's_client', '-connect', f'{lab.n1.address}:7411', '-tls1_3',
                      '-quiet', check=False, timeout_s=20)  # until the daemon hangs up
    assert 'alert certificate required' in said.stderr, str(said)
    assert said.stdout == ''
