# SPDX-License-Identifier: Apache-2.0
"""A cache in a guest: what Redis has in it, and whether all of it is right."""
import contextlib
import hashlib
import json
import random
import re
import socket
import time

N_KEYS = 250000
N_HOT = 60000  # the keys that are written
SUM = re.compile(rb'(.*)"sum": "([0-9a-f]{40})"\}', re.DOTALL)


class Redis:
    """One connection, one command at a time."""

    def __init__(self, connected):
        self.socket = connected
        self.socket.settimeout(60)
        self.file = connected.makefile('rb')

    @classmethod
    @contextlib.contextmanager
    def on_unix(cls, path, server):
        """Waits until the server, a process, listens there."""
        while True:
            connected = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                connected.connect(path)
                break
            connected.close()
            if server.poll() is not None:
                raise ValueError(f'redis-server ended with status {server.returncode}')
            time.sleep(0.05)
        with connected:
            yield cls(connected)

    def send(self, *words):
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b''.join([b'*%d\r\n' % len(words)] + [b'$%d\r\n%s\r\n' % (len(word), word)
                                                                 for word in encoded]))

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b'\r\n'):
            raise ValueError('Redis closed the connection')
        kind, rest = line[:1], line[1:-2]
        if kind == b'-':
            raise ValueError(f'Redis: {rest.decode()}')
        if kind == b'+':
            return rest
        if kind == b':':
            return int(rest)
        if kind == b'$':
            return None if rest == b'-1' else self.file.read(int(rest) + 2)[:-2]
        return [self.reply() for _ in range(int(rest))]

    def call(self, *words):
        self.send(*words)
        return self.reply()


def value(number, words, pick):
    """About 1 KB of JSON whose last 50 bytes are the checksum of those before."""
    body = json.dumps({
        'id': number, 'name': f'{pick.choice(words)} {pick.choice(words)}'.title(),
        'mail': f'{pick.choice(words)}.{pick.randrange(10000)}@example.org', 'visits': 100000000,
        'seen': 1700000000 + pick.randrange(10000000), 'session': '%040x' % pick.getrandbits(160),
        'tags': pick.sample(words, 6), 'about': ' '.join(pick.choices(words, k=pick.randrange(40, 90))),
        'cart': [{'item': pick.randrange(10 ** 8), 'price': pick.randrange(10 ** 4) / 100}
                 for _ in range(pick.randrange(1, 8))],
    })[:-1].encode() + b', '
    return body + b'"sum": "%s"}' % hashlib.sha1(body).hexdigest().encode()


def fill(redis, words):
    pick = random.Random(1)
    for first in range(0, N_KEYS, 1000):
        for number in range(first, first + 1000):
            redis.send('SET', f'user:{number}', value(number, words, pick))
        for _ in range(1000):
            redis.reply()


def check(redis, numbers):
    """How many of these records are not what somebody wrote."""
    found = redis.call('MGET', *(f'user:{number}' for number in numbers))
    bad = 0
    for number, text in zip(numbers, found):
        parts = SUM.fullmatch(text or b'')
        good = parts and hashlib.sha1(parts[1]).hexdigest().encode() == parts[2] and \
            text.startswith(b'{"id": %d,' % number)
        bad += not good
    return bad
