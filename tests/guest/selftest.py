#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Boots the test guest, and proves that its verdict can be trusted in both directions.

A verdict of "good" is worth nothing until a lost and a torn page, made inside and made
from outside the machine, have each turned it bad.
"""
import argparse
import json
import mmap
import os
import queue
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zlib

from guestq import Guest

BOOT_TIMEOUT_S = 60
EVENT_TIMEOUT_S = 30
MAGIC = 0x676F64776974F00D
PAGE = 4096
MIB = 1 << 20
IMAGE = {}


def free_udp_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """One QEMU with the test guest, its RAM in a file that the test can read and damage."""

    def __init__(self, memory_mib, settings, udp_port=None):
        self.directory = tempfile.mkdtemp(prefix="godwit-guest-")
        self.ram_path = os.path.join(self.directory, "ram")
        self.query_port, self.rx_port = free_udp_port(), free_udp_port()
        udp = f" gw.udp=10.0.2.2:{udp_port}" if udp_port else ""
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-M", "q35,memory-backend=ram", "-accel", "tcg", "-cpu", "max",
             "-m", str(memory_mib), "-nodefaults", "-display", "none", "-serial", "stdio",
             "-no-reboot", "-kernel", IMAGE["vmlinuz"], "-initrd", IMAGE["initrd"],
             "-object", f"memory-backend-file,id=ram,size={memory_mib}M,share=on,mem-path={self.ram_path}",
             "-append", f"console=ttyS0 quiet panic=-1 gw.ip=10.0.2.15/24 {settings}{udp}",
             "-netdev", f"user,id=net,hostfwd=udp:127.0.0.1:{self.query_port}-:7501,"
                        f"hostfwd=udp:127.0.0.1:{self.rx_port}-:7502",
             "-device", "virtio-net-pci,netdev=net",
             "-qmp", f"unix:{self.directory}/qmp,server=on,wait=off"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._read_console, daemon=True).start()
        self.guest = Guest("127.0.0.1", self.query_port)

    def _read_console(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put(None)

    def wait_line(self, pattern, timeout=EVENT_TIMEOUT_S):
        """The first match on the console from here on."""
        deadline = time.monotonic() + timeout
        seen = []
        while True:
            try:
                line = self.lines.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} within {timeout} s; seen: {seen}") from None
            if line is None:
                raise AssertionError(f"the machine ended before {pattern!r}; seen: {seen}")
            seen.append(line)
            match = re.search(pattern, line)
            if match:
                return match

    def wait_ready(self):
        match = self.wait_line(r"GUEST READY .*\bpages=(\d+) zero_pages=(\d+)", BOOT_TIMEOUT_S)
        self.boot_s = time.monotonic() - self.started
        self.n_pages, self.n_zero_pages = int(match[1]), int(match[2])

    def qmp(self, *commands):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(EVENT_TIMEOUT_S)
            sock.connect(os.path.join(self.directory, "qmp"))
            stream = sock.makefile("rw")
            stream.readline()
            for command in ("qmp_capabilities",) + commands:
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                while "return" not in (answer := json.loads(stream.readline())):
                    if "error" in answer:
                        raise AssertionError(f"QMP {command}: {answer['error']}")

    def ram(self):
        with open(self.ram_path, "r+b") as file:
            return mmap.mmap(file.fileno(), 0)

    def close(self):
        self.guest.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.directory)


def find_pages(ram, n_pages):
    """Where the guest's fill pages lie in its RAM: page number -> offset."""
    found = {}
    for offset in range(0, len(ram), PAGE):
        number = struct.unpack_from("<Q", ram, offset)[0] ^ MAGIC
        if number < n_pages:
            found[number] = offset
    return found


class Booted(unittest.TestCase):
    """A machine that runs and writes, once for each test."""

    settings = "gw.fill=64MiB gw.zero=4MiB gw.wss=16MiB gw.rate=50 gw.scan=200 gw.compress=60"

    def setUp(self):
        self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.receiver.close)
        self.receiver.bind(("127.0.0.1", 0))
        self.receiver.settimeout(EVENT_TIMEOUT_S)
        self.machine = Machine(160, self.settings, self.receiver.getsockname()[1])
        self.addCleanup(self.machine.close)
        self.machine.wait_ready()
        self.guest = self.machine.guest

    def assert_scan(self, bad):
        """bad: {page: kind}, all that may be bad."""
        answer = self.guest.scan()
        self.assertEqual({entry["page"]: entry["kind"] for entry in answer["bad_pages"]}, bad)
        self.assertEqual(answer["bad"], len(bad))
        self.assertEqual(answer["verdict"], "bad" if bad else "good")
        self.assertEqual(answer["pages_checked"], self.machine.n_pages)
        return answer


class WorksAsTold(Booted):
    def test_all(self):
        self.assertEqual(self.machine.n_pages, 68 * MIB // PAGE)
        self.assertEqual(self.machine.n_zero_pages, 4 * MIB // PAGE)
        scan = self.assert_scan({})
        self.guest.status()
        print(f"  boot to READY {self.machine.boot_s:.2f} s, scan of 68 MiB {scan['took_ms']} ms, "
              f"STATUS {self.guest.last_rtt_ms:.1f} ms")
        self.check_rate()
        self.check_packets_out()
        self.check_packets_in()
        self.check_repeated_scan()
        self.check_refusals()
        self.check_contents()
        self.check_pause()
        self.assert_scan({})

    def pass_line(self):
        match = self.machine.wait_line(r"GUEST PASS .* bad=0 writes=(\d+) uptime_ms=(\d+)")
        return int(match[1]), int(match[2])

    def check_rate(self):
        self.pass_line()
        first, second = self.pass_line(), self.pass_line()
        rate = (second[0] - first[0]) * PAGE / (second[1] - first[1]) / 1000
        print(f"  dirties {rate:.1f} MB/s where 50 are wanted")
        self.assertGreater(rate, 25)
        self.assertLess(rate, 60)
        self.guest.set("rate", 0)
        before = self.guest.status()["writes"]
        self.pass_line()
        self.pass_line()
        # What was due when the rate changed may still have been written.
        self.assertLess(self.guest.status()["writes"] - before, 5e6 / PAGE)
        self.guest.set("rate", 50)

    def check_packets_out(self):
        self.drain_receiver()
        packets = [struct.unpack(">QQ", self.receiver.recv(64)) for _ in range(1000)]
        numbers = [number for number, _ in packets]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + 1000)))
        gaps = sorted(b[1] - a[1] for a, b in zip(packets, packets[1:]))
        print(f"  packets every {gaps[len(gaps) // 2] / 1e6:.3f} ms (median)")
        self.assertLess(gaps[len(gaps) // 2], 2e6)
        self.assertGreater(gaps[len(gaps) // 2], 0.5e6)

    def drain_receiver(self):
        """Drops what came while nobody read: its buffer has overflowed by now."""
        self.receiver.setblocking(False)
        try:
            while self.receiver.recv(64):
                pass
        except BlockingIOError:
            self.receiver.settimeout(EVENT_TIMEOUT_S)

    def check_packets_in(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in [0, 1, 2, 6, 7, 5]:
                sender.sendto(struct.pack(">QQ", number, 0), ("127.0.0.1", self.machine.rx_port))
                # One by one, so that none is dropped for being in a burst.
                self.guest.status()
        status = self.guest.status()
        self.assertEqual([status[key] for key in ["rx_packets", "rx_missing", "rx_late"]], [6, 2, 1])

    def check_repeated_scan(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(EVENT_TIMEOUT_S)
            asker.connect(("127.0.0.1", self.machine.query_port))
            asker.send(b"SCAN same-id\n")
            first = asker.recv(2048)
            asker.send(b"SCAN same-id\n")
            self.assertEqual(asker.recv(2048), first)
            asker.send(b"SCAN other-id\n")
            self.assertGreater(json.loads(asker.recv(2048))["mono_ms"], json.loads(first)["mono_ms"])

    def check_refusals(self):
        n_pages = self.machine.n_pages
        for text in ["HELLO", "SET rate x", "SET rate 100001", "SET fill 1", f"SABOTAGE lost {n_pages}",
                     "SABOTAGE gone 1", "SCAN " + "x" * 33, "SCAN a b", "STATUS \"", "a" * 400]:
            self.assertIn("error", self.guest.request(text), text)

    def check_contents(self):
        with self.machine.ram() as ram:
            pages = find_pages(ram, self.machine.n_pages)
            self.assertEqual(len(pages), 64 * MIB // PAGE)
            sample = b"".join(ram[offset:offset + PAGE] for offset in sorted(pages.values())[::64])
        ratio = len(zlib.compress(sample)) / len(sample)
        print(f"  compresses to {ratio:.2f} where 60 % of a page are compressible")
        self.assertGreater(ratio, 0.36)
        self.assertLess(ratio, 0.44)

    def check_pause(self):
        """What the guest's clock shows of a pause: printed, since it depends on the accelerator."""
        self.guest.reset()
        before, started = self.guest.status()["mono_ms"], time.monotonic()
        self.machine.qmp("stop", "query-status", "cont")
        after = self.guest.status()
        print(f"  over a pause of a moment the guest saw {after['mono_ms'] - before} ms of "
              f"{(time.monotonic() - started) * 1000:.0f}, largest tick gap {after['max_tick_gap_ms']} ms")


class FindsDamage(Booted):
    def test_from_inside(self):
        self.assert_scan({})
        bad = {}
        # The first is rewritten all the time, the others never; the last is a zero page.
        for kind, page in [("lost", 17), ("torn", 18), ("lost", 16000), ("torn", 16001),
                           ("table", 9000), ("torn", self.machine.n_pages - 1)]:
            self.assertTrue(self.guest.sabotage(kind, page)["ok"])
            bad[page] = kind
            self.assert_scan(bad)
        self.machine.wait_line(r"GUEST BAD page=17 kind=lost expected=\d+ found=generation:\d+$")
        status = self.guest.status()
        self.assertEqual((status["verdict"], status["bad"]), ("bad", len(bad)))

    def test_from_outside(self):
        self.assert_scan({})
        with self.machine.ram() as ram:
            pages = find_pages(ram, self.machine.n_pages)
            self.flip_one_byte(ram, pages[12345])
            self.machine.wait_line(r"GUEST BAD page=12345 kind=torn expected=2 found=garbage@3000$")
            self.assert_scan({12345: "torn"})
            self.lose_a_write(ram, pages[99])
            self.assert_scan({12345: "torn", 99: "lost"})
            # A page that did not travel at all.
            ram[pages[15000]:pages[15000] + PAGE] = bytes(PAGE)
            answer = self.assert_scan({12345: "torn", 99: "lost", 15000: "lost"})
            self.assertEqual(answer["bad_pages"][2]["found"], "zeros")

    @staticmethod
    def flip_one_byte(ram, offset):
        ram[offset + 3000] ^= 1

    def lose_a_write(self, ram, offset):
        """Puts an older copy of a page back, as a migration does that misses the last write."""
        old = ram[offset:offset + PAGE]
        while ram[offset:offset + PAGE] == old:
            self.machine.wait_line(r"GUEST PASS")
        self.machine.qmp("stop")
        ram[offset:offset + PAGE] = old
        self.machine.qmp("cont")


class LargeWrites(unittest.TestCase):
    def test_whole_pages(self):
        machine = Machine(160, "gw.fill=32MiB gw.bytes=4080 gw.rate=100 gw.scan=100")
        self.addCleanup(machine.close)
        machine.wait_ready()
        machine.wait_line(r"GUEST PASS n=2 .* bad=0")
        self.assertEqual(machine.guest.scan()["verdict"], "good")
        machine.guest.sabotage("lost", 17)
        self.assertEqual(machine.guest.scan()["bad_pages"][0]["page"], 17)


class EndsByItself(unittest.TestCase):
    def run_to_end(self, settings, pattern):
        machine = Machine(128, settings)
        self.addCleanup(machine.close)
        machine.wait_line(pattern, BOOT_TIMEOUT_S)
        self.assertEqual(machine.process.wait(EVENT_TIMEOUT_S), 0)

    def test_poweroff_mode(self):
        self.run_to_end("gw.fill=16MiB gw.mode=poweroff", r"GUEST VERDICT good pages=5120 bad=0")

    def test_too_much_fill(self):
        self.run_to_end("gw.fill=120MiB", r"GUEST ERROR gw.fill, gw.zero and gw.free want 124 MiB, \d+ MiB are free")

    def test_unknown_setting(self):
        self.run_to_end("gw.colour=red", r"GUEST ERROR gw.colour: no such setting")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vmlinuz", required=True)
    parser.add_argument("--initrd", required=True)
    args, rest = parser.parse_known_args()

    if not shutil.which("qemu-system-x86_64"):
        print("SKIP: no qemu-system-x86_64: run ./setup")
        return 77
    if not os.path.exists(args.initrd):
        print(f"SKIP: no {args.initrd}: run ./setup for the guest's kernel, then configure and build again")
        return 77
    IMAGE.update(vmlinuz=args.vmlinuz, initrd=args.initrd)
    unittest.main(argv=[sys.argv[0], "-v"] + rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
