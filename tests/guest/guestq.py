#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Asks the test guest over UDP.

usage: guestq.py ADDRESS[:PORT] status|scan|reset|set WHAT N|sabotage KIND PAGE [--timeout S]

Prints the answer as one line of JSON. Exit status: 0 answered (scan, status: and the memory is
good), 1 the memory is bad, 2 refused, 3 no answer in time.
"""
import argparse
import json
import secrets
import socket
import sys
import time

QUERY_PORT = 7501


class NoAnswer(Exception):
    """Nothing came back in time."""


class Guest:
    """One guest's query port. Requests carry an id and are repeated until answered; the guest
    scans only once for an id."""

    def __init__(self, address, port=QUERY_PORT):
        self.to = (address, port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.last_rtt_ms = None

    def close(self):
        self.socket.close()

    def request(self, text, timeout=5.0, repeat=0.25):
        ident = secrets.token_hex(8)
        started = time.monotonic()
        deadline = started + timeout
        while time.monotonic() < deadline:
            try:
                self.socket.sendto(f"{text} {ident}\n".encode(), self.to)
            except OSError:
                pass  # no route or refused for now, as is to be expected around a move
            answer = self._receive(ident, min(time.monotonic() + repeat, deadline))
            if answer is not None:
                self.last_rtt_ms = (time.monotonic() - started) * 1000
                return answer
        raise NoAnswer(f"{self.to[0]}:{self.to[1]}: no answer to {text} in {timeout} s")

    def _receive(self, ident, until):
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                answer = json.loads(self.socket.recv(2048))
            except (OSError, ValueError):
                continue
            if answer.get("id") == ident or ("error" in answer and "id" not in answer):
                return answer
        return None

    def status(self, timeout=5.0):
        return self.request("STATUS", timeout)

    def scan(self, timeout=60.0):
        """A fresh scan of all memory, at full speed; answers when it is done."""
        return self.request("SCAN", timeout)

    def reset(self):
        """Forgets the largest tick gap and what was received."""
        return self.request("RESET")

    def set(self, what, value):
        return self.request(f"SET {what} {value}")

    def sabotage(self, kind, page):
        return self.request(f"SABOTAGE {kind} {page}")


def main():
    parser = argparse.ArgumentParser(description="Asks the test guest over UDP.")
    parser.add_argument("guest", help="ADDRESS or ADDRESS:PORT")
    parser.add_argument("words", nargs="+", help="status, scan, reset, set WHAT N, sabotage KIND PAGE")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds (60)")
    args = parser.parse_args()

    address, _, port = args.guest.partition(":")
    guest = Guest(address, int(port or QUERY_PORT))
    try:
        answer = guest.request(" ".join([args.words[0].upper()] + args.words[1:]), args.timeout)
    except NoAnswer as error:
        print(f"guestq: {error}", file=sys.stderr)
        return 3
    print(json.dumps(answer))
    if "error" in answer:
        return 2
    return 1 if answer.get("verdict") == "bad" else 0


if __name__ == "__main__":
    sys.exit(main())
