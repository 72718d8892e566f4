# SPDX-License-Identifier: Apache-2.0
"""A real Ceph of a few ordinary daemons, below one directory, for labs and tests.

    with Cluster.create('/tmp/mine') as ceph:            # one mon, one OSD on 127.0.0.1
        ceph.create_image('disk1', 64 << 20)
        subprocess.run(['rbd', *ceph.user_arguments(), 'ls', 'rbd'])

    ceph = Cluster.create(directory, [Host('n1', '10.0.0.1', namespace='n1'), …])
    ceph = Cluster.open(directory)                       # one that is there already
    ceph.health()                                        # {'status': 'HEALTH_OK', …}
    ceph.kill('osd.1'); ceph.signal('mon.n1', signal.SIGSTOP)
    ceph.down()

Each host has one mon and one OSD; an OSD keeps its objects in memory (memstore). Everything is
authenticated with cephx: the keyring has `client.admin` and `client.godwit`, which may use RBD
images of the pools and nothing else. There is no mgr: RBD does not need one. So nobody counts
what is stored: pools have no usage, quotas do not act, and health says nothing about PGs.
"""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid

from godwit_proc import LabError, end_processes, inside, log_tail, record, recorded_pid, run

PROGRAMS = ('ceph', 'ceph-authtool', 'ceph-mon', 'ceph-osd', 'monmaptool', 'rbd')
USER = 'client.godwit'
POOL = 'rbd'
MON_PORT = 3300
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 5
# Copies of each object, and how many an OSD must have to take a write, by number of hosts. From
# three hosts on (3, 2): one may be lost and images can still be written.
SIZES = {1: (1, 1), 2: (2, 1)}

CONF = '''\
[global]
fsid = {fsid}
mon initial members = {names}
mon host = {mon_host}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {base}/keyring
run dir = {base}/run
admin socket = {base}/run/$name.$pid.asok
log file = {base}/log/$name.log
mon cluster log file = {base}/log/cluster.log
crash dir = {base}/run
log to stderr = false
err to stderr = true
ms bind msgr1 = false
ms bind ipv6 = false

[client]
# Only daemons have something to tell there.
admin socket =
log file =

[client.godwit]
keyring = {base}/client.godwit.keyring

[mon]
mon data = {base}/$name
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
# No mgr will come: do not wait for one with a warning.
mon mgr mkfs grace = 315360000
mon data avail warn = 1
mon data avail crit = 0
osd pool default size = {size}
osd pool default min size = {min_size}
osd pool default pg num = {n_pgs}
osd pool default pg autoscale mode = off

[osd]
osd data = {base}/$name
osd objectstore = memstore
memstore device bytes = 1073741824
osd crush initial weight = 1
osd class load list = *
osd class default list = *
# An OSD that answers no more is down after this, instead of 20 s.
osd heartbeat interval = 1
osd heartbeat grace = 5
{lease}
'''


# Of an OSD that stood for longer than its read lease (0.8 of the heartbeat grace) placement groups
# of one copy can stay "waiting for readable" for ever (seen with 16.2.15): only the answer of another
# copy wakes them. Where there is one OSD nobody else can serve the data, so the lease may be long.
LONG_LEASE = 'osd pool default read lease ratio = 1000'


class Host:
    """Where a mon and an OSD run: an address, and the network namespace that has it."""

    def __init__(self, name, address, namespace=None, mon_port=MON_PORT):
        self.name = name
        self.address = address
        self.namespace = namespace
        self.mon_port = mon_port

    @property
    def mon_address(self):
        return f'[v2:{self.address}:{self.mon_port}/0]'


def free_port(address):
    """A port that nobody has now. Hosts in namespaces of their own need no such luck."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def missing_programs():
    return [program for program in PROGRAMS if not shutil.which(program)]


class Cluster:
    """What is known of a cluster is in its directory; see create() and open()."""

    def __init__(self, directory, hosts):
        self.dir = os.path.abspath(directory)
        self.hosts = hosts
        self.conf = f'{self.dir}/ceph.conf'
        self.keyring = f'{self.dir}/keyring'
        self.user_keyring = f'{self.dir}/client.godwit.keyring'

    @classmethod
    def create(cls, directory, hosts=None, with_parent=False):
        """Makes a cluster in the directory, which is made, too, and must not be there before.

        Returns when images can be written. What fails leaves nothing behind. With with_parent
        the daemons die with the calling thread, however that ends.
        """
        missing = missing_programs()
        if missing:
            raise LabError(f'{", ".join(missing)} not installed: install ceph-mon, ceph-osd and '
                           'ceph-common (./setup does)')
        hosts = hosts or [Host('a', '127.0.0.1', mon_port=free_port('127.0.0.1'))]
        os.makedirs(directory)
        cluster = cls(directory, hosts)
        try:
            cluster.configure()
            cluster.start_all(with_parent)
        except BaseException:
            cluster.down()
            raise
        return cluster

    @classmethod
    def open(cls, directory):
        """A cluster that create() made; LabError if there is none."""
        try:
            with open(f'{directory}/hosts.json', encoding='utf-8') as source:
                return cls(directory, [Host(**entry) for entry in json.load(source)])
        except FileNotFoundError:
            raise LabError(f'no Ceph cluster in {directory}') from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.down()

    # --- making it --------------------------------------------------------------------

    def configure(self):
        """Writes configuration, keys and the first map of mons."""
        for part in ('run', 'log'):
            os.mkdir(f'{self.dir}/{part}')
        with open(f'{self.dir}/hosts.json', 'w', encoding='utf-8') as out:
            json.dump([vars(host) for host in self.hosts], out)
        fsid = str(uuid.uuid4())
        size, min_size = SIZES.get(len(self.hosts), (3, 2))
        with open(self.conf, 'w', encoding='utf-8') as out:
            out.write(CONF.format(
                fsid=fsid, base=self.dir, names=','.join(host.name for host in self.hosts),
                mon_host=','.join(host.mon_address for host in self.hosts),
                size=size, min_size=min_size, n_pgs=8 if len(self.hosts) == 1 else 32,
                lease=LONG_LEASE if len(self.hosts) == 1 else ''))
        self.make_keys()
        run(['monmaptool', '--create', '--clobber', '--fsid', fsid, '--enable-all-features',
             *(word for host in self.hosts
               for word in ('--addv', host.name, host.mon_address)), f'{self.dir}/monmap'])

    def make_keys(self):
        """All keys are made before the first start: the mons read them when they are made."""
        def key(path, name, *caps):
            run(['ceph-authtool', path, '--create-keyring', '--gen-key', '-n', name,
                 *(word for cap in caps for word in ('--cap', *cap))])

        everything = f'{self.dir}/all.keyring'
        key(everything, 'mon.', ('mon', 'allow *'))
        key(self.keyring, 'client.admin', *((kind, 'allow *') for kind in ('mon', 'osd', 'mgr')))
        key(self.user_keyring, USER, ('mon', 'profile rbd'), ('osd', 'profile rbd'))
        for number in range(len(self.hosts)):
            os.mkdir(f'{self.dir}/osd.{number}')
            key(f'{self.dir}/osd.{number}/keyring', f'osd.{number}',
                ('mon', 'allow profile osd'), ('osd', 'allow *'))
        for path in (self.keyring, self.user_keyring,
                     *(f'{self.dir}/osd.{number}/keyring' for number in range(len(self.hosts)))):
            run(['ceph-authtool', everything, '--import-keyring', path])

    def start_all(self, with_parent):
        for host in self.hosts:
            run(['ceph-mon', '--conf', self.conf, '--mkfs', '-i', host.name,
                 '--monmap', f'{self.dir}/monmap', '--keyring', f'{self.dir}/all.keyring'])
            self.start(f'mon.{host.name}', with_parent)
        for number, host in enumerate(self.hosts):
            identity = str(uuid.uuid4())
            self.command('osd', 'new', identity, str(number))
            run(['ceph-osd', '--conf', self.conf, '--mkfs', '-i', str(number),
                 '--osd-uuid', identity, '--no-mon-config'])
            self.start(f'osd.{number}', with_parent)
        self.create_pool(POOL)

    def start(self, daemon, with_parent=False):
        """Starts a daemon ('mon.NAME', 'osd.NUMBER') that was made and does not run.

        An OSD that was killed comes back empty and gets its objects from the others' copies.
        """
        kind, _, name = daemon.partition('.')
        host = self.host_of(daemon)
        if self.pid(daemon):
            raise LabError(f'{daemon} runs already')
        argv = [f'ceph-{kind}', '--conf', self.conf, '-f', '-i', name]
        if kind == 'osd':
            argv += ['--keyring', f'{self.dir}/{daemon}/keyring', '--public-addr', host.address,
                     '--crush-location', f'root=default host={host.name}']
        if with_parent:
            argv = ['setpriv', '--pdeathsig', 'KILL', *argv]
        with open(f'{self.dir}/log/{daemon}.out', 'ab') as out:
            process = subprocess.Popen(inside(host.namespace, argv), stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=out, cwd='/', start_new_session=True)
        record(f'{self.dir}/{daemon}.json', process.pid)
        process.returncode = 0  # it may outlive this process; keep Python from complaining

    # --- using it ---------------------------------------------------------------------

    def host_of(self, daemon):
        kind, _, name = daemon.partition('.')
        for number, host in enumerate(self.hosts):
            if name == (host.name if kind == 'mon' else str(number)):
                return host
        raise LabError(f'no daemon {daemon} in this cluster: there are '
                       f'{", ".join(self.daemons())}')

    def daemons(self):
        """Names of all daemons, running or not."""
        return [f'mon.{host.name}' for host in self.hosts] + \
            [f'osd.{number}' for number in range(len(self.hosts))]

    def pid(self, daemon):
        """Process id while the daemon runs, else None."""
        return recorded_pid(f'{self.dir}/{daemon}.json')

    def run(self, *argv, timeout_s=START_TIMEOUT_S, text=None):
        """Runs a program where the cluster can be reached; gives its output."""
        return run(inside(self.hosts[0].namespace, argv), text, timeout=timeout_s)

    def command(self, *words, timeout_s=START_TIMEOUT_S):
        """A command of the administrator to the mons; gives the JSON of the answer, or None."""
        said = self.run('ceph', '--conf', self.conf, '--connect-timeout', str(timeout_s),
                        '--format', 'json', *words, timeout_s=timeout_s + 10)
        return json.loads(said) if said.strip() else None

    def health(self, timeout_s=10):
        """{'status': 'HEALTH_OK' | 'HEALTH_WARN' | 'HEALTH_ERR', 'checks': {…}, …}"""
        return self.command('health', 'detail', timeout_s=timeout_s)

    def admin_arguments(self):
        return ['--conf', self.conf, '--name', 'client.admin', '--keyring', self.keyring]

    def user_arguments(self):
        """For rbd, rados and ceph, to be the user that VMs are."""
        return ['--conf', self.conf, '--name', USER, '--keyring', self.user_keyring]

    def rbd(self, *words):
        """The administrator's rbd program; gives its output."""
        return self.run('rbd', *self.admin_arguments(), *words)

    def create_pool(self, name):
        """Returns when the pool can be written to."""
        self.command('osd', 'pool', 'create', name)
        self.rbd('pool', 'init', name)

    def create_namespace(self, name, pool=POOL):
        self.rbd('namespace', 'create', f'{pool}/{name}')

    def create_image(self, name, size_bytes, *options, pool=POOL, namespace=None):
        """Gives 'pool[/namespace]/name'. Options are those of `rbd create`."""
        image = '/'.join(part for part in (pool, namespace, name) if part)
        self.rbd('create', '--size', f'{size_bytes}B', *options, image)
        return image

    def import_image(self, name, path, pool=POOL):
        """An image with the file's bytes, whose holes it keeps. Gives 'pool/name'."""
        self.rbd('import', '--no-progress', path, f'{pool}/{name}')
        return f'{pool}/{name}'

    def signal(self, daemon, how):
        """For SIGSTOP and SIGCONT. Nothing happens to a daemon that does not run."""
        pid = self.pid(daemon)
        if pid:
            os.kill(pid, how)

    def kill(self, daemon):
        """SIGKILL, and waits for its end. An OSD's objects are gone then; others have copies."""
        self.host_of(daemon)
        pid = self.pid(daemon)
        if not pid:
            raise LabError(f'{daemon} does not run')
        end_processes([pid], signal.SIGKILL, STOP_TIMEOUT_S)

    def down(self):
        """Ends every daemon and removes the directory. Finding nothing is fine."""
        pids = [pid for pid in map(self.pid, self.daemons()) if pid]
        stuck = end_processes(pids, signal.SIGKILL, STOP_TIMEOUT_S)
        if stuck:
            raise LabError(f'processes {stuck} of the cluster in {self.dir} do not end after '
                           f'SIGKILL: {log_tail(f"{self.dir}/log/cluster.log", 3)}')
        for pid in pids:  # those that this process started
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        shutil.rmtree(self.dir, ignore_errors=True)
