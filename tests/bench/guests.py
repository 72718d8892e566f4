# SPDX-License-Identifier: Apache-2.0
"""The guests of compare.py: what starts them, what they do while they move, whether they are unharmed."""
import os
import random
import shutil
import socket
import subprocess
import sys
import time

import cache

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '../lib'))
import godwit_lab  # pylint: disable=wrong-import-position
from godwit_lab import BUILD, Failure, Guest, socket_on  # pylint: disable=wrong-import-position


class SelfChecking(Guest):
    """The test guest: a load is MB/s of pages dirtied."""

    SETTINGS = {'fill': '700MiB', 'wss': '300MiB', 'bytes': 8, 'rate': 0, 'scan': 0, 'compress': 50}

    @classmethod
    def append(cls):
        return godwit_lab.guest_append(**cls.SETTINGS)

    @staticmethod
    def make_disk(lab):
        """The path of its disk; None: it has none."""
        del lab

    def set_load(self, rate):
        """Sets it, and waits until the guest has written for a second so. Returns what it does."""
        self.ask(f'SET rate {rate}')
        deadline = time.monotonic() + 5
        while rate and self.status()['achieved_mb_per_s'] < rate * 0.9 and time.monotonic() < deadline:
            pass
        return self.status()['achieved_mb_per_s']

    def check_moved(self):
        """Right after a move. This guest checks all the time, and is asked at its end."""

    def check(self):
        scan = self.scan()
        if scan['verdict'] != 'good':
            raise Failure(f'the guest has lost memory: {scan}')


class Cache(Guest):
    """Debian with Redis (mkdebian, cache.py): a load is 1, as many SETs as it can, or 0."""

    IMAGE = f'{BUILD}/tests/bench/debian.img'
    PORT = 6379

    def __init__(self, lab, name, log):
        super().__init__(lab, name, log)
        self.writes = 0

    @staticmethod
    def append():
        return (f'console=ttyS0 quiet panic=-1 root=/dev/vda bench.ip={godwit_lab.GUEST_ADDRESS}/24 '
                f'bench.keys={cache.N_HOT}')

    @classmethod
    def make_disk(cls, lab):
        if not os.path.exists(cls.IMAGE):
            subprocess.check_call([f'{HERE}/mkdebian', cls.IMAGE])
        path = f'{cls.IMAGE}.{lab.name}'
        subprocess.check_call(['cp', '--sparse=always', cls.IMAGE, path])
        return path

    def redis(self, *words):
        return self.on_redis(lambda redis: redis.call(*words))

    def on_redis(self, what, timeout_s=20):
        """what(connection); again on another connection while the guest does not take one."""
        deadline = time.monotonic() + timeout_s
        while True:
            with socket_on(self.lab.n3, socket.SOCK_STREAM) as connected:
                connected.settimeout(2)
                try:
                    connected.connect((self.address, self.PORT))
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise Failure(f'Redis in the guest: {error}') from error
                    continue
                return what(cache.Redis(connected))

    def n_writes(self):
        return int(self.redis('GET', 'writes') or 0)

    def set_load(self, rate):
        self.redis('RPUSH', 'start' if rate else 'stop', 1)
        if not rate:
            return 0
        deadline, before = time.monotonic() + 10, self.n_writes()
        while self.n_writes() == before:
            if time.monotonic() > deadline:
                raise Failure('the guest does not write')
        began, before = time.monotonic(), self.n_writes()
        time.sleep(1)  # not a wait for something: the measurement
        return (self.n_writes() - before) / (time.monotonic() - began)

    def look(self, numbers):
        bad = self.on_redis(lambda redis: cache.check(redis, numbers))
        if bad:
            raise Failure(f'{bad} of {len(numbers)} records in the guest are not what was written')

    def check_moved(self):
        """It answers, goes on writing, and a thousand records are right, hot ones and others."""
        before = self.n_writes()
        if before <= self.writes:
            raise Failure(f'the guest had made {self.writes} writes, and after its move {before}')
        self.look(random.sample(range(cache.N_HOT), 500) + random.sample(range(cache.N_KEYS), 500))
        self.writes = self.n_writes()
        if self.writes == before:
            raise Failure('the guest does not write any more')

    def check(self):
        """All records; with each the last write's checksum."""
        for first in range(0, cache.N_KEYS, 500):
            self.look(range(first, min(first + 500, cache.N_KEYS)))
