# SPDX-License-Identifier: Apache-2.0
"""A lab with real nodes and guests, for tests and the demo.

    with Lab('mine') as lab, Ping(lab.n3, GUEST_ADDRESS) as ping:
        guest = Guest.start(lab.n1, 'web1')
        lab.n1.godwit('migrate', 'web1', '--to', 'n2', '--json')
        assert guest.scan()['verdict'] == 'good'
        print(ping.report()['longest_gap_ms'])

Waiting is for events: a line, a packet, the end of a process. Every wait has a limit
and says what it waited for.
"""
import contextlib
import ctypes
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
sys.path.append(f'{REPO}/tools')
from godwit_proc import recorded_pid  # pylint: disable=wrong-import-position
BUILD = os.environ.get('GODWIT_BUILD', f'{REPO}/build')
TOOLS = f'{BUILD}/tools'
# The guest is the same whatever the engine is built with.
GUEST_DIR = os.environ.get('GODWIT_GUEST', f'{BUILD}/tests/guest')

GUEST_ADDRESS = '10.77.0.100'
GUEST_MAC = '52:54:00:77:00:64'
GUEST_ASK_PORT = 7501
GUEST_RX_PORT = 7502
SINK_ADDRESS = '10.77.0.3'
SINK_PORT = 7500
LAB_TIMEOUT_S = 120  # with Ceph on three nodes it takes half a minute
BOOT_TIMEOUT_S = 120
COMMAND_TIMEOUT_S = 180


class Failure(AssertionError):
    """What was expected did not happen; carries all that is needed to see why."""


class Result:
    """What a command did: status, stdout, stderr, and the JSON on its stdout."""

    def __init__(self, argv, done):
        self.argv = argv
        self.status = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr

    @property
    def json(self):
        try:
            return json.loads(self.stdout)
        except ValueError:
            raise Failure(f'no JSON on stdout of {self}') from None

    def __str__(self):
        return (f'"{" ".join(self.argv)}": status {self.status}\n'
                f'--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}')


class Reader:
    """Lines of a program's output, with a limit on how long to wait for one."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.buffer = b''

    def line(self, timeout_s, what):
        deadline = time.monotonic() + timeout_s
        while b'\n' not in self.buffer:
            left_s = max(deadline - time.monotonic(), 0)
            if not select.select([self.pipe], [], [], left_s)[0]:
                raise Failure(f'{what}: nothing within {timeout_s} s')
            data = os.read(self.pipe.fileno(), 65536)
            if not data:
                raise Failure(f'{what}: the program ended; it had said {self.buffer!r}')
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b'\n')
        return line.decode(errors='replace')

    def line_with(self, text, timeout_s, what):
        deadline = time.monotonic() + timeout_s
        while True:
            line = self.line(max(deadline - time.monotonic(), 0), what)
            if text in line:
                return line


def routed(options):
    """Tests mean the native route where they name none: what auto takes depends on the machine."""
    if {'--route', '--policy'} & set(options):
        return options
    return ('--route', 'native', *options)


class Node:
    """One node of a lab."""

    def __init__(self, lab, name, entry):
        self.lab = lab
        self.name = name
        self.namespace = entry['namespace']
        self.address = entry['address']
        self.ready_ms = entry.get('ready_ms')
        self.dir = f'/run/godwit-lab/{lab.name}/{name}'
        self.socket = entry.get('socket')
        self.log_path = f'{self.dir}/log/godwitd.log'

    def inside(self, *argv):
        return ['ip', 'netns', 'exec', self.namespace, *argv]

    def run(self, *argv, check=True, timeout_s=COMMAND_TIMEOUT_S):
        """Runs a program on the node. With check, another status than 0 is a failure."""
        done = subprocess.run(self.inside(*argv), text=True, capture_output=True, check=False,
                              timeout=timeout_s, stdin=subprocess.DEVNULL)
        result = Result(argv, done)
        if check and result.status != 0:
            raise Failure(f'{result}\n--- end of {self.log_path}\n{self.log_tail()}')
        return result

    def popen(self, *argv, **options):
        return subprocess.Popen(self.inside(*argv), **options)

    def request(self, method, path, timeout_s=20):
        """One request to the daemon's API; gives its status and JSON."""
        connection = UnixConnection(self.socket, timeout_s)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b'null')
        finally:
            connection.close()

    def godwit_argv(self, *arguments):
        return [f'{TOOLS}/godwit', '--socket', self.socket, *map(str, arguments)]

    def godwit(self, *arguments, check=True):
        return self.run(*self.godwit_argv(*arguments), check=check)

    def migrate(self, vm, to, *options, check=True):
        """Moves a VM; with check, gives the migration's JSON object."""
        result = self.godwit('migrate', vm, '--to', to, '--json', *routed(options),
                             check=check)
        return result.json if check else result

    def vms(self):
        return {vm['name']: vm for vm in self.godwit('vm', 'list', '--json').json}

    def log_tail(self, lines=40):
        with contextlib.suppress(OSError), \
                open(self.log_path, encoding='utf-8', errors='replace') as log:
            return ''.join(log.readlines()[-lines:])
        return '(none)'

    def pids(self):
        return sorted(map(int, subprocess.check_output(
            ['ip', 'netns', 'pids', self.namespace], text=True).split()))

    def daemon_pid(self):
        return recorded_pid(f'{self.dir}/daemon.json')

    def qemu_pids(self):
        return [pid for pid in self.pids() if 'qemu-system' in os.path.basename(program(pid))]

    def kill_daemon(self):
        self.lab.command('kill', self.name)

    def stop_daemon(self):
        self.lab.command('stop', self.name)

    def start_daemon(self):
        self.lab.command('start', self.name)

    def set_config(self, **settings):
        """Changes lines of the daemon's configuration; takes effect at its next start."""
        path = f'{self.dir}/etc/godwitd.yaml'
        with open(path, encoding='utf-8') as source:
            lines = [line for line in source if line.split(':')[0] not in settings]
        with open(path, 'w', encoding='utf-8') as out:
            out.writelines(lines)
            out.writelines(f'{key}: {json.dumps(value)}\n' for key, value in settings.items()
                           if value is not None)

    def set_link(self, state):
        """'down' cuts the node off, at the switch; 'up' heals."""
        subprocess.check_call(['ip', '-n', f'gwlab-{self.lab.name}-sw', 'link', 'set',
                               self.name, state])


class Lab:
    """A lab that ends with this block, and with this process however that ends."""

    def __init__(self, name, *options):
        self.name = name
        self.options = options
        self.holder = None
        self.nodes = {}

    @property
    def owners(self):
        """The directory with the owner records, one subdirectory for each VM."""
        return f'/run/godwit-lab/{self.name}/owners'

    def __enter__(self):
        # The command of `run` waits for the end of its input: for this process.
        self.holder = subprocess.Popen(
            [f'{TOOLS}/godwit-lab', 'run', '--name', self.name, *self.options,
             '--', 'sh', '-c', 'echo up; exec cat'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        try:
            Reader(self.holder.stdout).line_with('up', LAB_TIMEOUT_S, f'lab {self.name}')
            self.nodes = {name: Node(self, name, entry)
                          for name, entry in self.status()['nodes'].items()}
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.holder.stdin.close()
        self.holder.wait(LAB_TIMEOUT_S)

    def __getattr__(self, name):
        with contextlib.suppress(KeyError):
            return self.__dict__['nodes'][name]
        raise AttributeError(name)

    def command(self, *arguments):
        done = subprocess.run([f'{TOOLS}/godwit-lab', arguments[0], '--name', self.name,
                               *arguments[1:]], text=True, capture_output=True, check=False)
        result = Result(['godwit-lab', *arguments], done)
        if result.status != 0:
            raise Failure(str(result))
        return result

    def status(self):
        return self.command('status', '--json').json


def program(pid):
    with contextlib.suppress(OSError):
        return os.readlink(f'/proc/{pid}/exe')
    return ''


def socket_on(node, kind, family=socket.AF_INET, protocol=0):
    """A socket of this process that lives on the node: only the thread that makes it goes there."""
    made = []

    def make():
        clone_newnet = 0x40000000
        with open(f'/run/netns/{node.namespace}', 'rb') as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), clone_newnet) == 0:
                made.append(socket.socket(family, kind, protocol))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        raise Failure(f'cannot enter the namespace {node.namespace}')
    return made[0]


class Stream:
    """Watches packets from a node until the block ends; see stream.py."""

    def __init__(self, node, *arguments):
        self.process = node.popen('/usr/bin/python3', f'{HERE}/stream.py', *map(str, arguments),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.reader = Reader(self.process.stdout)
        self.name = ' '.join(map(str, arguments))

    def wait_first(self, timeout_s=BOOT_TIMEOUT_S):
        self.reader.line_with('first', timeout_s, f'first packet of {self.name}')

    def report(self):
        """What happened since the last report."""
        self.process.stdin.write(b'\n')
        self.process.stdin.flush()
        return json.loads(self.reader.line_with('{', 10, f'report of {self.name}'))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class Ping(Stream):
    def __init__(self, node, address=GUEST_ADDRESS, interval_ms=10):
        super().__init__(node, 'ping', address, interval_ms)


class UdpSink(Stream):
    def __init__(self, node, port=SINK_PORT):
        super().__init__(node, 'sink', node.address, port)


class UdpFeed(Stream):
    """Packets towards the guest; Guest.status() says what came."""

    def __init__(self, node, address=GUEST_ADDRESS, port=GUEST_RX_PORT):
        super().__init__(node, 'feed', address, port)


class TcpStream(Stream):
    def __init__(self, node, address=GUEST_ADDRESS, port=GUEST_RX_PORT):
        super().__init__(node, 'tcp', address, port)


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a daemon's socket; the file is reachable from every namespace."""

    def __init__(self, path, timeout_s):
        super().__init__('localhost', timeout=timeout_s)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Events:
    """A daemon's server-sent events, from the moment that this is made."""

    def __init__(self, node, timeout_s=60):
        self.connection = UnixConnection(node.socket, timeout_s)
        self.connection.request('GET', '/v1/events')
        self.response = self.connection.getresponse()
        self.name = node.name
        self.seen = []

    def next(self):
        """One event: its kind and its data."""
        kind, data = None, ''
        while True:
            try:
                line = self.response.readline().decode().rstrip('\r\n')
            except (TimeoutError, OSError, http.client.HTTPException) as error:
                raise Failure(f'events of {self.name}: {error!r}; seen: {self.seen[-5:]}') from None
            if line.startswith('event:'):
                kind = line[6:].strip()
            elif line.startswith('data:'):
                data += line[5:].strip()
            elif not line and kind and data:
                self.seen.append((kind, data))
                return kind, json.loads(data)

    def wait_migration(self, wanted):
        """The first migration event for which wanted(event) holds."""
        while True:
            kind, data = self.next()
            if kind == 'migration' and wanted(data):
                return data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.response.close()
        self.connection.close()


def copying(at_least_bytes=4 << 20):
    """For wait_migration: pre-copy runs and so much has been sent."""
    return lambda event: event['state'] == 'precopy' and \
        ((event.get('progress') or {}).get('sent_bytes') or 0) >= at_least_bytes


class Move:
    """A `godwit migrate` that runs beside the test."""

    def __init__(self, node, vm, to, *options):
        self.argv = node.godwit_argv('migrate', vm, '--to', to, '--json', *routed(options))
        self.process = node.popen(*self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)

    def result(self, timeout_s=COMMAND_TIMEOUT_S):
        try:
            stdout, stderr = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            stdout, stderr = self.process.communicate()
            raise Failure(f'"{" ".join(self.argv)}" did not end within {timeout_s} s\n'
                          f'--- stdout\n{stdout}\n--- stderr\n{stderr}') from None
        return Result(self.argv, subprocess.CompletedProcess(
            self.argv, self.process.returncode, stdout, stderr))


def guest_append(**settings):
    """The test guest's kernel command line; settings are those of tests/guest/README.md. With
    root='/dev/vda' the guest's root is on that disk."""
    root = settings.pop('root', None)
    values = {'ip': f'{GUEST_ADDRESS}/24', 'udp': f'{SINK_ADDRESS}:{SINK_PORT}', 'fill': '64MiB',
              'compress': 50, 'rate': 50, 'wss': '32MiB', 'bytes': 8, **settings}
    return 'console=ttyS0 quiet panic=-1 ' + (f'root={root} rw ' if root else '') + ' '.join(
        f'gw.{key}={value}' for key, value in values.items())


def make_root(ceph, name, size='64MiB'):
    """An RBD image with an ext4 on it, from which the test guest boots with guest_append(root=…);
    its blocks are at most half of the size (gw.disk)."""
    with tempfile.TemporaryDirectory() as place:
        for part in ('dev', 'proc', 'sys', 'sbin'):
            os.makedirs(f'{place}/root/{part}')
        shutil.copy(f'{GUEST_DIR}/guest-init', f'{place}/root/sbin/init')
        subprocess.check_call(['/sbin/mke2fs', '-q', '-t', 'ext4', '-E', 'root_owner=0:0', '-d',
                               f'{place}/root', f'{place}/image', size.removesuffix('iB')],
                              stdout=subprocess.DEVNULL)
        return ceph.import_image(name, f'{place}/image')


def vm_file(name, log, memory='256MiB', append=None, mac=GUEST_MAC, **extra):
    """Text of a VM file. JSON is YAML; block style at the top keeps line numbers telling."""
    keys = {
        'name': name, 'memory': memory, 'cpus': 1, 'accel': 'auto', 'machine': 'q35',
        'boot': {'kernel': f'{GUEST_DIR}/vmlinuz',
                 'initrd': f'{GUEST_DIR}/initrd.img',
                 'append': append or guest_append()},
        'nics': [{'bridge': 'br0', 'mac': mac}],
        'console': {'log': log},
        **extra,
    }
    return ''.join(f'{key}: {json.dumps(value)}\n' for key, value in keys.items()
                   if value is not None)


def write_vm_file(node, name, **options):
    """Writes a VM file on the node and returns its path and that of the console's log."""
    # The log is named the same on every node but lies in one place: the lab's directory is
    # shared by its nodes, like a shared file system.
    log = f'/run/godwit-lab/{node.lab.name}/{name}.log'
    path = f'{node.dir}/etc/{name}.yaml'
    with open(path, 'w', encoding='utf-8') as out:
        out.write(vm_file(name, log, **options))
    return path, log


def wait_line(path, text, timeout_s, start=0):
    """Waits until the file exists and has a line with the text in it, after `start` bytes."""
    # tail -F learns of new lines from inotify.
    with subprocess.Popen(['tail', '-c', f'+{start + 1}', '-F', path], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as tail:
        try:
            return Reader(tail.stdout).line_with(text, timeout_s, f'"{text}" in {path}')
        except Failure as failure:
            raise Failure(f'{failure}\n--- end of {path}\n{file_tail(path)}') from None
        finally:
            tail.kill()


class Breakpoint:
    """The next migration on the node stops the node's daemon there; see engine/shell/breakpoint.h."""

    def __init__(self, node, place):
        self.node, self.place = node, place
        self.start = os.path.getsize(node.log_path)
        with open(f'{node.dir}/run/breakpoint', 'w', encoding='utf-8') as out:
            out.write(f'{place}\n')

    def wait(self, timeout_s=60):
        wait_line(self.node.log_path, f'stopped at: {self.place}', timeout_s, self.start)

    def go_on(self):
        os.kill(self.node.daemon_pid(), signal.SIGCONT)


def wait_until(condition, timeout_s, node, what):
    """Until the condition holds; each look costs the node's daemon a request, which paces it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f'{what}: not within {timeout_s} s\n{node.log_tail()}')


def file_tail(path, lines=30):
    with contextlib.suppress(OSError), open(path, encoding='utf-8', errors='replace') as source:
        return ''.join(source.readlines()[-lines:])
    return '(none)'


class Guest:
    """The test guest, wherever it runs, asked from n3."""

    def __init__(self, lab, name, log, address=GUEST_ADDRESS):
        self.lab = lab
        self.name = name
        self.log = log
        self.address = address

    @classmethod
    def start(cls, node, name, **options):
        """Starts the VM through the node's daemon and waits until the guest is up."""
        path, log = write_vm_file(node, name, **options)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        node.godwit('vm', 'start', path)
        guest = cls(node.lab, name, log)
        guest.wait_ready()
        return guest

    def wait_ready(self):
        wait_line(self.log, 'GUEST READY', BOOT_TIMEOUT_S)

    def root(self):
        """What the guest says of its root: '/dev/vda ext4', or None in its initramfs."""
        with open(self.log, encoding='utf-8', errors='replace') as log:
            said = [line.partition('GUEST ROOT ')[2].strip() for line in log
                    if 'GUEST ROOT ' in line]
        return said[-1] if said else None

    def ask(self, question, timeout_s=60):
        """Sends one question over UDP, again each half second while no answer comes."""
        # A repeated question has the same id: the guest answers twice but works once.
        identity = f'q{time.monotonic_ns()}'
        deadline = time.monotonic() + timeout_s
        with socket_on(self.lab.n3, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.5)
            while time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError, OSError):
                    sock.sendto(f'{question} {identity}'.encode(), (self.address, GUEST_ASK_PORT))
                    while True:
                        answer = json.loads(sock.recvfrom(65536)[0])
                        if 'error' in answer:
                            raise Failure(f'guest {self.name}, asked "{question}": {answer}')
                        if answer['id'] == identity:
                            return answer
        raise Failure(f'guest {self.name} did not answer "{question}" within {timeout_s} s\n'
                      f'--- end of its console\n{file_tail(self.log)}')

    def uuid(self):
        return next(node.vms()[self.name]['uuid'] for node in self.lab.nodes.values()
                    if self.name in node.vms())

    def status(self):
        return self.ask('STATUS')

    def scan(self):
        """Has the guest check all its memory now; the verdict is in the answer."""
        return self.ask('SCAN')

    def disk(self):
        """What the guest's disk writers have seen since RESET."""
        return self.ask('DISK')

    def verify(self, timeout_s=60):
        """Has the guest read back all that it wrote to its disk."""
        return self.ask('VERIFY', timeout_s)

    def node(self):
        """Name of the one node where the VM runs. Two at once, or none, is a failure."""
        owners = [node.name for node in self.lab.nodes.values()
                  if node.vms().get(self.name, {}).get('state') == 'running']
        if len(owners) != 1:
            raise Failure(f'VM {self.name} runs on {owners or "no node"}')
        return owners[0]

    def assert_good(self, on):
        """The guest runs there, and only there, and has lost no memory."""
        assert self.node() == on
        scan = self.scan()
        assert scan['verdict'] == 'good', f'{scan}\n--- console\n{file_tail(self.log)}'
        return scan

    def stop(self):
        for node in self.lab.nodes.values():
            if self.name in node.vms():
                node.godwit('vm', 'stop', self.name, '--force', check=False)


# --- what is there: processes, sockets, files, taps ---------------------------------


def describe(pid):
    with contextlib.suppress(OSError), open(f'/proc/{pid}/cmdline', 'rb') as source:
        words = source.read().decode(errors='replace').split('\0')
        return f'{pid} {" ".join(words)[:200]}'
    return str(pid)


def open_files(pid):
    try:
        return len(os.listdir(f'/proc/{pid}/fd'))
    except OSError:
        return 0


def resident_kib(pid, which='VmRSS'):
    """All that is resident; or which='RssAnon': what it allocated, without the code it ran."""
    with open(f'/proc/{pid}/status', encoding='ascii') as source:
        for line in source:
            if line.startswith(f'{which}:'):
                return int(line.split()[1])
    return 0


def leftovers(node):
    """All that a failed or finished migration could leave on a node, by kind."""
    links = json.loads(subprocess.check_output(['ip', '-n', node.namespace, '-json', 'link']))
    unix = subprocess.check_output(node.inside('cat', '/proc/net/unix'), text=True)
    # Abstract and path sockets of the lab's namespaces; unnamed ones have no eighth field.
    names = [line.split()[7] for line in unix.splitlines()[1:] if len(line.split()) > 7]
    files = []
    for part in ('run', 'state', 'etc'):
        for place, _, here in os.walk(f'{node.dir}/{part}'):
            files += [os.path.join(place, name) for name in here]
    listening = subprocess.check_output(node.inside('ss', '-Hltn'), text=True)
    return {
        'processes': sorted(describe(pid) for pid in node.pids()),
        'links': sorted(link['ifname'] for link in links),
        'sockets': sorted(name for name in names if node.dir in name),
        'files': sorted(name for name in files if not name.endswith(('-wal', '-shm', '-journal'))),
        'listening': sorted(line.split()[3] for line in listening.splitlines()),
    }


def snapshot(lab):
    found = {name: leftovers(node) for name, node in lab.nodes.items()}
    found['the lab'] = {'owner records': sorted(os.listdir(lab.owners))}
    return found


def owner_record(lab, uuid):
    """{node, epoch, may_have_run} as it stands in the lab's store; None: there is none."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(f'{lab.owners}/{uuid}'):
            # EPOCH.RUN.TIME.NONCE.SUM.NODE, see engine/storage/file.c
            epoch, run, _, _, _, node = name.split('.', 5)
            return {'node': node, 'epoch': int(epoch), 'may_have_run': run == '1'}
    return None


def without_pids(entries):
    return sorted(entry.partition(' ')[2] for entry in entries)


def differences(before, after, renewed):
    found = []
    for node, kinds in after.items():
        for kind, now in kinds.items():
            then = before[node][kind]
            if node in renewed and kind == 'processes':
                then, now = without_pids(then), without_pids(now)
            found += [f'{node}: {kind}: left behind: {entry}' for entry in now if entry not in then]
            found += [f'{node}: {kind}: gone: {entry}' for entry in then if entry not in now]
            if len(now) != len(then) and set(now) == set(then):
                found.append(f'{node}: {kind}: {len(then)} before, {len(now)} after: {now}')
    return found


def assert_nothing_left(lab, before, renewed=(), timeout_s=20):
    """The lab is as it was. Nodes in `renewed` may run the same programs under other pids.

    Gives a daemon that still tidies up the time to: each look costs every daemon a request,
    which it answers after what it was doing.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        for node in lab.nodes.values():
            if node.socket and node.daemon_pid():
                node.godwit('status', check=False)
        found = differences(before, snapshot(lab), renewed)
        if not found:
            return
        if time.monotonic() > deadline:
            raise Failure('\n'.join(found))


def wait_ended(pid, timeout_s, what):
    """Waits for the end of a process that need not be a child."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            if not select.select([fd], [], [], timeout_s)[0]:
                raise Failure(f'{what} ({pid}) still runs after {timeout_s} s')
        finally:
            os.close(fd)


def kill(pid, how=signal.SIGKILL):
    """Ends one process, by its id, and waits for that."""
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, how)
        select.select([fd], [], [], 10)
    finally:
        os.close(fd)


def only(found):
    """The one element of what must have one."""
    if len(found) != 1:
        raise Failure(f'one was expected: {found}')
    return found[0]


def which_qemu():
    return shutil.which('qemu-system-x86_64') or '/usr/bin/qemu-system-x86_64'


def which_old_qemu():
    """Debian 12's own QEMU, where ./setup puts it."""
    return os.environ.get('GODWIT_OLD_QEMU_DIR', '/var/cache/godwit/qemu-7.2') + \
        '/qemu-system-x86_64'
