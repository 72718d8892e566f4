#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Watches a guest's network from outside, packet by packet, and counts what is missing.

    stream.py ping ADDRESS INTERVAL_MS     sends ICMP echo requests and takes the answers
    stream.py sink ADDRESS PORT            takes the test guest's numbered UDP packets
    stream.py feed ADDRESS PORT            sends it such packets, one each millisecond
    stream.py tcp ADDRESS PORT             sends it a TCP stream of 3 MB/s

Runs on a node until its standard input closes. It prints `first` at the first packet,
and for each line that it reads one line of JSON: what happened since the last such
line. All times of arrival are the kernel's, not this program's.
"""
import json
import os
import select
import socket
import struct
import sys
import time

SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33
# How long a report waits for answers that are still under way.
SETTLE_S = 1.0


def watch_socket(kind, protocol=0):
    sock = socket.socket(socket.AF_INET, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    sock.setblocking(False)
    return sock


def arrivals(sock):
    """Yields (data, kernel time in ns) of all packets that wait in the socket."""
    while True:
        try:
            data, control, _, _ = sock.recvmsg(2048, 64)
        except BlockingIOError:
            return
        seconds, nanoseconds = struct.unpack('qq', control[0][2])
        yield data, seconds * 1_000_000_000 + nanoseconds


class Gaps:
    """The longest silence, also over the border between two reports."""

    def __init__(self):
        self.last_ns = None
        self.longest_ns = 0

    def arrived(self, at_ns):
        if self.last_ns is not None:
            self.longest_ns = max(self.longest_ns, at_ns - self.last_ns)
        self.last_ns = at_ns

    def take_ms(self):
        silence_ns = time.time_ns() - self.last_ns if self.last_ns is not None else 0
        longest_ns, self.longest_ns = max(self.longest_ns, silence_ns), 0
        return round(longest_ns / 1e6, 1)


LATE_NS = 30_000_000  # an answer that a person may notice; without a move it takes less than 1 ms


class Ping:
    """Echo requests at a steady pace. Numbers are 64 bits wide, in the payload."""

    def __init__(self, address, interval_ms):
        self.socket = watch_socket(socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.connect((address, 0))
        self.identity = os.getpid() & 0xffff
        self.interval_s = int(interval_ms) / 1000
        self.next_send = time.monotonic()
        self.number = 0
        self.sent_ns = {}
        self.n_sent = self.n_answered = self.n_duplicates = self.n_late = 0
        self.latest_ns = 0
        self.gaps = Gaps()

    def timeout_s(self):
        return max(self.next_send - time.monotonic(), 0)

    def tick(self):
        if time.monotonic() < self.next_send:
            return
        self.next_send += self.interval_s
        payload = struct.pack('>Q', self.number)
        head = struct.pack('>BBHHH', 8, 0, 0, self.identity, self.number & 0xffff)
        words = struct.unpack('>8H', head + payload)
        total = sum(words)
        total = (total & 0xffff) + (total >> 16)
        checksum = ~((total & 0xffff) + (total >> 16)) & 0xffff
        self.sent_ns[self.number] = time.time_ns()
        self.number += 1
        self.n_sent += 1
        try:
            self.socket.send(head[:2] + struct.pack('>H', checksum) + head[4:] + payload)
        except OSError:
            pass  # "host unreachable" while nobody answers ARP: it counts as lost

    def receive(self):
        for data, at_ns in arrivals(self.socket):
            icmp = data[(data[0] & 15) * 4:]
            if len(icmp) < 16 or icmp[0] != 0 or \
                    struct.unpack('>H', icmp[4:6])[0] != self.identity:
                continue
            sent_ns = self.sent_ns.pop(struct.unpack('>Q', icmp[8:16])[0], None)
            if sent_ns is None:
                self.n_duplicates += 1
                continue
            self.n_answered += 1
            self.latest_ns = max(self.latest_ns, at_ns - sent_ns)
            self.n_late += at_ns - sent_ns > LATE_NS
            self.gaps.arrived(at_ns)

    def settled(self, asked):
        return all(number >= asked for number in self.sent_ns)

    def mark(self):
        return self.number

    def report(self, asked):
        lost = sum(number < asked for number in self.sent_ns)
        pending = {number: at for number, at in self.sent_ns.items() if number >= asked}
        result = {'sent': self.n_sent - len(pending), 'lost': lost,
                  'longest_gap_ms': self.gaps.take_ms(),
                  'duplicates': self.n_duplicates, 'late': self.n_late,
                  'slowest_ms': round(self.latest_ns / 1e6, 1)}
        self.sent_ns = pending
        self.n_sent = len(pending)
        self.n_answered = self.n_duplicates = self.n_late = self.latest_ns = 0
        return result


class Sink:
    """The guest's UDP packets: be64 number, be64 the guest's nanoseconds."""

    def __init__(self, address, port):
        self.socket = watch_socket(socket.SOCK_DGRAM)
        self.socket.bind((address, int(port)))
        self.before = None  # the highest number that an earlier report has accounted for
        self.numbers = set()
        self.n_duplicates = 0
        self.gaps = Gaps()

    def timeout_s(self):
        return None

    def tick(self):
        pass

    def receive(self):
        for data, at_ns in arrivals(self.socket):
            if len(data) < 16:
                continue
            number = struct.unpack('>Q', data[:8])[0]
            if number in self.numbers:
                self.n_duplicates += 1
            self.numbers.add(number)
            self.gaps.arrived(at_ns)

    def settled(self, asked):
        return False  # nobody knows what is under way: always wait

    def mark(self):
        return max(self.numbers, default=self.before)

    def report(self, asked):
        if asked is None:
            return {'sent': 0, 'lost': 0, 'longest_gap_ms': self.gaps.take_ms(), 'duplicates': 0}
        first = min(self.numbers) if self.before is None else self.before + 1
        window = {number for number in self.numbers if first <= number <= asked}
        result = {'sent': asked - first + 1, 'lost': asked - first + 1 - len(window),
                  'longest_gap_ms': self.gaps.take_ms(), 'duplicates': self.n_duplicates}
        self.numbers = {number for number in self.numbers if number > asked}
        self.before = asked
        self.n_duplicates = 0
        return result


class Feed:
    """Numbered UDP packets to the test guest, which counts them itself."""
    interval_s = 0.001

    def __init__(self, address, port):
        self.socket = watch_socket(socket.SOCK_DGRAM)
        self.socket.connect((address, int(port)))
        self.next_send = time.monotonic()
        self.number = 0
        self.gaps = Gaps()

    def timeout_s(self):
        return max(self.next_send - time.monotonic(), 0)

    def tick(self):
        while time.monotonic() >= self.next_send:
            self.next_send += self.interval_s
            try:
                self.socket.send(struct.pack('>QQ', self.number, time.monotonic_ns()))
                self.number += 1
            except OSError:
                pass  # "no buffer space": it has no number then
        self.gaps.arrived(time.time_ns())

    def receive(self):
        pass

    def settled(self, asked):
        return True

    def mark(self):
        return self.number

    def report(self, asked):
        return {'sent': asked}


class Tcp:
    """A TCP stream at a steady pace, and what its sender's kernel had to do for it."""
    interval_s = 0.01
    chunk = bytes(30000)

    def __init__(self, address, port):
        self.socket = socket.create_connection((address, int(port)), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.next_send = time.monotonic()
        self.before = self.counters()
        self.gaps = Gaps()

    def timeout_s(self):
        return max(self.next_send - time.monotonic(), 0)

    def tick(self):
        if time.monotonic() < self.next_send:
            return
        self.next_send = time.monotonic() + self.interval_s
        try:
            self.socket.send(self.chunk)
            self.gaps.arrived(time.time_ns())
        except BlockingIOError:
            pass

    def receive(self):
        pass

    def settled(self, asked):
        return False  # a timeout may still come: wait

    def mark(self):
        return 0

    def counters(self):
        """tcpi_total_retrans of this connection, and TCPTimeouts of this network namespace."""
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        with open('/proc/net/netstat', encoding='ascii') as source:
            lines = [line.split() for line in source if line.startswith('TcpExt:')]
        timeouts = dict(zip(*lines))['TCPTimeouts']
        return struct.unpack_from('I', info, 100)[0], int(timeouts)

    def report(self, asked):
        before, self.before = self.before, self.counters()
        return {'retransmits': self.before[0] - before[0], 'timeouts': self.before[1] - before[1],
                'longest_gap_ms': self.gaps.take_ms()}


def emit(text):
    print(text, flush=True)


def serve(stream):
    asked = deadline = None
    told_first = False
    while True:
        timeout_s = stream.timeout_s()
        if deadline is not None:
            left_s = max(deadline - time.monotonic(), 0)
            timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
        inputs = [stream.socket] if deadline is not None else [stream.socket, 0]
        ready, _, _ = select.select(inputs, [], [], timeout_s)
        stream.tick()
        stream.receive()
        if not told_first and stream.gaps.last_ns is not None:
            told_first = True
            emit('first')
        if deadline is not None and (stream.settled(asked) or time.monotonic() >= deadline):
            emit(json.dumps(stream.report(asked)))
            deadline = None
        if 0 in ready:
            if not os.read(0, 4096):
                return
            asked, deadline = stream.mark(), time.monotonic() + SETTLE_S


if __name__ == '__main__':
    serve({'ping': Ping, 'sink': Sink, 'feed': Feed, 'tcp': Tcp}[sys.argv[1]](sys.argv[2], sys.argv[3]))
