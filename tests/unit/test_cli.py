# SPDX-License-Identifier: Apache-2.0
"""The command line against a scripted daemon.

The daemon here is a FAKE, for the command line only: it answers what each test tells it to, and
nothing in it moves a guest. What the real daemon answers is tested with the real daemon.

    GODWIT=build/tools/godwit python3 -m pytest tests/unit/test_cli.py
"""
import collections
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import queue
import re
import select
import signal
import socket
import socketserver
import struct
import subprocess
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GODWIT = os.environ.get("GODWIT", str(ROOT / "build/tools/godwit"))
PATIENCE_S = 20  # only a bound: every wait is for something that happens

Request = collections.namedtuple("Request", "method path body")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "unix"

    def log_message(self, *_args):
        pass

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        request = Request(self.command, self.path, body)
        daemon = self.server.daemon
        self.close_connection = True
        if request.path == "/v1/events" and ("GET", "/v1/events") not in daemon.routes:
            return self.stream(daemon)
        with daemon.changed:
            daemon.requests.append(request)
            daemon.changed.notify_all()
        route = daemon.routes.get((request.method, request.path))
        reply = route(request) if callable(route) else route
        if reply is HANG_UP:
            return None
        if reply is None:
            reply = error("not-found", f"nothing at {request.path}", status=404)
        return self.send(*reply)

    def send(self, status, body, kind="application/json"):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(raw)

    def stream(self, daemon):
        mine = queue.Queue()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with daemon.changed:
            daemon.streams.append(mine)
            daemon.n_streams += 1
            daemon.changed.notify_all()
        with contextlib.suppress(OSError):
            while (chunk := mine.get()) is not None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()

    do_GET = do_POST = do_DELETE = answer


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def handle_error(self, _request, _address):
        pass


HANG_UP = object()


class Daemon:
    """The fake: routes map (method, path) to (status, body[, type]), to HANG_UP, or to a function
    that returns one of them."""

    def __init__(self, path):
        self.path = str(path)
        self.routes = {}
        self.requests = []
        self.streams = []
        self.n_streams = 0
        self.changed = threading.Condition()
        self.server = None

    def start(self):
        self.server = Server(self.path, Handler)
        self.server.daemon = self
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        if not self.server:
            return
        self.server.shutdown()
        self.server.server_close()
        os.unlink(self.path)
        self.server = None
        self.end_streams()

    def end_streams(self):
        with self.changed:
            for stream in self.streams:
                stream.put(None)
            self.streams.clear()

    def wait(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE_S), self.requests

    def wait_for_stream(self, n=1):
        self.wait(lambda: self.n_streams >= n)

    def wait_for_request(self, method, path, n=1):
        self.wait(lambda: sum(r[:2] == (method, path) for r in self.requests) >= n)

    def raw(self, chunk):
        with self.changed:
            for stream in self.streams:
                stream.put(chunk)

    def event(self, name, data):
        self.raw(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())


def error(code, message, hint="", status=400):
    return status, {"error": {"code": code, "message": message, "hint": hint}}


@pytest.fixture
def daemon(tmp_path):
    d = Daemon(tmp_path / "d.sock")
    d.start()
    yield d
    d.stop()


def environment(**more):
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "GODWIT_SOCKET")}
    return {**env, "TERM": "xterm", "LC_ALL": "C.UTF-8", **more}


def godwit(*args, daemon=None, env=None, stdin=None, **kw):
    where = ["--socket", daemon.path] if daemon else []
    kw = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kw}
    return subprocess.run([GODWIT, *where, *args], env=environment(**(env or {})), text=True,
                          encoding="utf-8", input=stdin, timeout=PATIENCE_S * 2, check=False, **kw)


class Running:
    """godwit in the background, with stderr or stdout to be read as it comes."""

    def __init__(self, *args, daemon, terminal=None, env=None):
        self.text = {"out": "", "err": ""}
        ends = {}
        self.fds = {}
        for name in self.text:
            if name == terminal:
                self.fds[name], ends[name] = pty.openpty()
                fcntl.ioctl(ends[name], termios.TIOCSWINSZ, struct.pack("HHHH", 24, 150, 0, 0))
            else:
                self.fds[name], ends[name] = os.pipe()
        self.process = subprocess.Popen([GODWIT, "--socket", daemon.path, *args],
                                        stdin=subprocess.DEVNULL, stdout=ends["out"],
                                        stderr=ends["err"], env=environment(**(env or {})))
        for end in ends.values():
            os.close(end)

    def read_some(self, timeout_s):
        ready, _, _ = select.select(list(self.fds.values()), [], [], timeout_s)
        for name, fd in list(self.fds.items()):
            if fd not in ready:
                continue
            try:
                data = os.read(fd, 65536)
            except OSError:  # the other end of a pty was closed
                data = b""
            self.text[name] += data.decode()
            if not data:
                os.close(self.fds.pop(name))

    def wait_for_text(self, name, pattern):
        end = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.text[name]):
            assert name in self.fds and time.monotonic() < end, (pattern, self.text)
            self.read_some(0.5)

    def finish(self):
        end = time.monotonic() + PATIENCE_S
        while self.fds:
            if time.monotonic() >= end:
                self.process.kill()
                raise AssertionError(f"does not end: {self.text}")
            self.read_some(0.5)
        return self.process.wait(PATIENCE_S)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)


# --- a migration that the fake plays ----------------------------------------------------------

ID = "m-1a2b3c4d"
PATH = f"/v1/migrations/{ID}"
BASE = {"id": ID, "vm": "web1", "from": "n1", "to": "n2"}
DONE = {**BASE, "state": "completed", "route": "native", "transport": "tcp", "codec": "none",
        "total_ms": 3420, "blackout_ms": 34, "guest_bytes": 1 << 30, "wire_bytes": 820 << 20,
        "rounds": [{"round": 1}, {"round": 2}],
        "breakdown": {"stop_ms": 2, "last_pages_ms": 10, "device_ms": 5, "load_ms": 8,
                      "commit_ms": 3, "resume_ms": 6},
        "warnings": [{"level": "warning", "code": "cpu-old", "subject": "web1",
                      "message": "kvm64 lacks x86-64-v2", "hint": "use x86-64-v2-AES"}]}
FAILED = {**BASE, "state": "failed",
          "error": {"code": "peer", "message": "n2 went away", "hint": "look at n2"}}


def state(name, **progress):
    return {**BASE, "state": name, "progress": {"phase": name, **progress}}


PRECOPY = state("precopy", round=3, total_bytes=1 << 30, remaining_bytes=412 << 20,
                rate_bytes_per_s=118 << 20, dirty_bytes_per_s=20 << 20, eta_ms=3400,
                expected_blackout_ms=35)


class Migration:
    """Serves the record and its events; over() ends it."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.record = state("preparing")
        daemon.routes["POST", "/v1/migrations"] = (202, {"id": ID})
        daemon.routes["GET", PATH] = lambda _r: (200, self.record)

    def now(self, record):
        self.record = record
        self.daemon.event("migration", {k: record.get(k) for k in
                                        ("id", "vm", "from", "to", "state", "progress", "error")})


@pytest.fixture
def migration(daemon):
    return Migration(daemon)


def migrate(daemon, *more, **kw):
    return Running("migrate", "web1", "--to", "n2", *more, daemon=daemon, **kw)


def no_controls(text):
    return not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


# --- words of the command line ----------------------------------------------------------------

def table():
    lines = godwit("--print-commands").stdout.splitlines()
    return [line.split("\t") for line in lines]


COMMANDS = ["vm start", "vm stop", "vm resume", "vm list", "vm show", "vm adopt", "check", "migrate", "migration set",
            "status", "watch", "cancel", "log", "explain", "node init", "node invite", "node join",
            "node list", "resolve", "version"]


def test_the_table_is_the_contract():
    assert sorted(row[0] for row in table() if row[0]) == sorted(COMMANDS)


@pytest.mark.parametrize("command", ["", "vm", "node", "migration", *COMMANDS])
def test_help_everywhere(command):
    for words in ([*command.split(), "--help"], ["help", *command.split()], ["-h", *command.split()]):
        r = godwit(*words)
        assert r.returncode == 0 and r.stderr == ""
        assert r.stdout.startswith("usage: godwit") and "Example\n  godwit " in r.stdout


@pytest.mark.parametrize("words, expected", [
    ([], ["no command"]),
    (["vm"], ["'vm' needs a command", "vm adopt"]),
    (["migrat"], ["unknown command 'migrat'", "did you mean 'migrate'?"]),
    (["vm", "lsit"], ["unknown command 'vm lsit'", "did you mean 'list'?"]),
    (["drain", "n1"], ["unknown command 'drain'"]),
    (["migrate", "web1"], ["--to NODE is missing", "usage: godwit migrate VM"]),
    (["migrate", "--to", "n2"], ["VM is missing"]),
    (["migration", "set", "m-00000001"], ["--bandwidth RATE is missing"]),
    (["migration", "set", "m-00000001", "--bandwidth=100"], ["--bandwidth: '100'", "1gbit"]),
    (["migrate", "web1", "--to"], ["--to needs a value: NODE"]),
    (["migrate", "web1", "--to="], ["--to needs a value"]),
    (["migrate", "web1", "--bandwith=1gbit"], ["'--bandwith'", "did you mean '--bandwidth'?"]),
    (["migrate", "web1", "--bandwidth=100"], ["--bandwidth: '100'", "1gbit"]),
    (["migrate", "web1", "--codec=zst"], ["--codec: 'zst'", "one of auto|none|zstd"]),
    (["migrate", "web1", "--to=n2", "--route=raven"], ["--route: 'raven'", "auto|native|carrier"]),
    (["migrate", "web1", "--channels=0"], ["--channels: 0 is not within 1 and 64"]),
    (["migrate", "web1", "--channels=-1"], ["--channels: '-1' is not a whole number"]),
    (["migrate", "web1", "--channels=99999999999999999999"], ["--channels:"]),
    (["migrate", "web1", "--blackout=soon"], ["--blackout: 'soon' is not a duration"]),
    (["migrate", "web1", "--progress=yes"], ["--progress takes no value"]),
    (["migrate", "web1", "web2", "--to=n2"], ["'web2' is one word too many after VM 'web1'"]),
    (["migrate", "", "--to=n2"], ["VM must not be empty"]),
    (["watch", "now"], ["'now' is one word too many"]),
    (["status", "-v"], ["unknown option '-v'"]),
    (["vm", "adopt", "--qmp=/nowhere/qmp", "--pid=77"], ["--qmp /nowhere/qmp", "No such file"]),
    (["vm", "start", "/nowhere/web1.yaml"], ["read /nowhere/web1.yaml: No such file"]),
    (["--socket", "/tmp/" + "x" * 200, "status"], ["longer than the 107 bytes"]),
    (["vm", "show", b"caf\xe9"], ["'caf\\xe9' is not UTF-8"]),
    (["vm", "\x1b[31mred"], ["unknown command 'vm \\x1b[31mred'"]),
])
def test_usage_errors(words, expected):
    r = godwit(*words)
    assert r.returncode == 2
    assert r.stdout == ""
    assert r.stderr.startswith("godwit: ")
    for text in expected:
        assert text in r.stderr
    assert no_controls(r.stderr)


def test_usage_errors_are_json_where_json_was_asked_for():
    r = godwit("migrate", "web1", "--tu", "n2", "--json")
    assert r.returncode == 2
    assert json.loads(r.stdout)["error"]["code"] == "usage"


def test_two_dashes_end_the_options(daemon):
    daemon.routes["GET", "/v1/vms/--odd"] = (200, {"name": "--odd"})
    assert godwit("vm", "show", "--", "--odd", daemon=daemon).stdout == "name  --odd\n"


# --- the daemon is not there, or is not well --------------------------------------------------

NEEDS = [["vm", "list"], ["vm", "show", "x"], ["vm", "stop", "x"], ["check", "x", "--to", "n2"],
         ["migrate", "x", "--to", "n2"], ["status"], ["watch"], ["cancel", "m"], ["log", "m"],
         ["migration", "set", "m", "--bandwidth", "1gbit"],
         ["explain", "m"], ["node", "init"], ["node", "invite"], ["node", "join", "t"],
         ["node", "list"]]


@pytest.mark.parametrize("words", NEEDS, ids=" ".join)
def test_no_daemon(words, tmp_path):
    where = str(tmp_path / "none.sock")
    r = godwit(*words, env={"GODWIT_SOCKET": where})
    assert r.returncode == 1
    assert r.stdout == ""
    assert r.stderr.startswith(f"godwit: cannot reach godwitd at {where}: No such file")
    assert "\nhint: start it with 'systemctl start godwitd'" in r.stderr


def test_nobody_listens(tmp_path):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead.sock"))
    r = godwit("status", "--socket", str(tmp_path / "dead.sock"))
    assert r.returncode == 1 and "Connection refused" in r.stderr


@pytest.mark.parametrize("code, status", [
    ("usage", 2), ("config", 2), ("not-found", 2), ("unresolved", 3), ("busy", 1),
    ("incompatible", 1), ("from-the-future", 1)])
def test_codes_and_exit_statuses(daemon, code, status):
    daemon.routes["POST", "/v1/migrations"] = error(code, "it cannot be", "do this")
    for more in ([], ["--json"]):
        r = godwit("migrate", "web1", "--to", "n2", *more, daemon=daemon)
        assert r.returncode == status
        assert r.stderr == "godwit: it cannot be\nhint: do this\n"
        assert not r.stdout or json.loads(r.stdout)["error"]["message"] == "it cannot be"
        assert bool(r.stdout) == bool(more)


@pytest.mark.parametrize("reply, expected", [
    ((200, b"{not json"), "is no JSON"),
    ((200, b""), "is no JSON"),
    ((200, b"[" * 100000), "is no JSON"),
    ((500, b"<html>"), "answered 500 to GET /v1/vms without saying why"),
    ((500, {"error": 7}), "answered 500"),
    ((500, {"error": {"message": ["x"]}}), "answered 500"),
    ((302, b""), "answered 302"),
    ((200, b'"' + b"x" * (8 << 20) + b'"'), "longer than 8 MiB"),
    (HANG_UP, "broke during GET /v1/vms"),
], ids=["syntax", "empty", "deep", "html", "number", "list", "redirect", "long", "none"])
def test_answers_that_are_none(daemon, reply, expected):
    daemon.routes["GET", "/v1/vms"] = reply
    r = godwit("vm", "list", daemon=daemon)
    assert r.returncode == 1 and r.stdout == "" and expected in r.stderr


ODD = [[], {}, None, 7, "x", [7, None, "x", {}], {"vms": 3}, [{"name": 4, "memory_bytes": "much",
       "cpus": -3, "state": {}}], [{"name": "a", "memory_bytes": 1e300}], {"error": []}]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_json_of_unexpected_types_harms_nobody(daemon, odd):
    everything = (200, odd)
    for path in ("/v1/vms", "/v1/vms/x", "/v1/status", "/v1/migrations", "/v1/nodes",
                 "/v1/migrations/x", "/v1/migrations/x/log"):
        daemon.routes["GET", path] = everything
    for path in ("/v1/check", "/v1/node/invite", "/v1/node/init"):
        daemon.routes["POST", path] = everything
    for words in (["vm", "list"], ["vm", "show", "x"], ["status"], ["node", "list"], ["log", "x"],
                  ["explain", "x"], ["check", "x", "--to", "y"], ["node", "invite"],
                  ["node", "init"], ["version"]):
        for more in ([], ["--json"]):
            r = godwit(*words, *more, daemon=daemon)
            assert r.returncode in (0, 1) and "Sanitizer" not in r.stderr, (words, r)
            if more:
                json.loads(r.stdout)


def test_proxies_are_not_for_us(daemon):
    daemon.routes["GET", "/v1/vms"] = (200, [])
    r = godwit("vm", "list", daemon=daemon, env={"http_proxy": "http://127.0.0.1:9",
                                                 "ALL_PROXY": "http://127.0.0.1:9"})
    assert r.returncode == 0, r.stderr


# --- what it shows ----------------------------------------------------------------------------

VMS = [{"name": "web1", "uuid": "u", "state": "running", "memory_bytes": 1 << 30, "cpus": 2,
        "accel": "kvm", "pid": 4711, "migration": None},
       {"name": "a-longer-name", "state": "stopped", "memory_bytes": 1536 << 20, "cpus": 1}]


def test_vm_list(daemon):
    daemon.routes["GET", "/v1/vms"] = (200, VMS)
    lines = godwit("vm", "list", daemon=daemon).stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "MEMORY", "CPUS", "ACCEL", "PID", "MIGRATION"]
    assert lines[1].split() == ["web1", "running", "1.0", "GiB", "2", "kvm", "4711", "-"]
    assert all(line.index("STATE" if i == 0 else ("running", "stopped")[i - 1]) == 15
               for i, line in enumerate(lines))
    r = godwit("--json", "vm", "list", daemon=daemon)
    assert json.loads(r.stdout) == VMS and r.stderr == ""


EVIL = "a\x1b]0;owned\x07\x9b31m\u202eb\x7f\nc"


def test_control_characters_do_not_reach_the_terminal(daemon, migration):
    evil_error = {"code": "busy", "message": EVIL, "hint": EVIL}
    daemon.routes["GET", "/v1/vms"] = (200, [{"name": EVIL, "state": EVIL}])
    daemon.routes["GET", "/v1/vms/x"] = (200, {EVIL: EVIL})
    daemon.routes["GET", "/v1/vms/y"] = (400, {"error": evil_error})
    daemon.routes["GET", "/v1/status"] = (200, {EVIL: EVIL, "version": EVIL})
    daemon.routes["GET", "/v1/nodes"] = (200, [{"name": EVIL}])
    daemon.routes["GET", f"{PATH}/log"] = (200, EVIL.encode(), "text/plain")
    daemon.routes["GET", "/v1/migrations/l/log"] = (200, [EVIL, {"at": EVIL, "text": EVIL}, {EVIL: EVIL}])
    daemon.routes["GET", "/v1/migrations"] = (200, [{"id": EVIL, "state": EVIL}])
    daemon.routes["POST", "/v1/node/invite"] = (200, {"token": EVIL, "expires": EVIL})
    daemon.routes["POST", "/v1/check"] = (200, {"ok": False, "total_ms": EVIL, "findings": [
        {"level": EVIL, "subject": EVIL, "message": EVIL, "hint": EVIL}]})
    migration.record = {**FAILED, "from": EVIL, "error": evil_error, "decisions": [
        {"phase": EVIL, "rule": EVIL, "chosen": EVIL, "instead_of": [EVIL], "because": EVIL,
         "inputs": {EVIL: EVIL}}]}
    for words in (["vm", "list"], ["vm", "show", "x"], ["vm", "show", "y"], ["status"],
                  ["node", "list"], ["log", ID], ["log", "l"], ["explain", ID], ["version"],
                  ["node", "invite"], ["check", "x", "--to", "y"],
                  ["migrate", "web1", "--to", "n2", "--progress"], ["--print-names", "vms"]):
        for more in ([], ["--json"]):
            r = godwit(*words, *more, daemon=daemon)
            assert no_controls(r.stdout) and no_controls(r.stderr), (words, r)


def test_status_shows_what_runs_and_what_ran(daemon):
    over = [{**DONE, "id": f"m-{i:02}", "started_at": f"2026-01-01T00:{i:02}:00Z"} for i in range(20)]
    daemon.routes["GET", "/v1/status"] = (200, {"name": "n1", "version": "0.1.0"})
    daemon.routes["GET", "/v1/migrations"] = (200, over + [{**PRECOPY, "started_at": "2026-01-02"}])
    r = godwit("status", daemon=daemon)
    assert r.returncode == 0 and re.search(r"^name +n1$", r.stdout, re.M)
    ids = re.findall(r"^m-\w+", r.stdout, re.M)
    assert ids == [ID] + [f"m-{i:02}" for i in range(10, 20)]
    r = godwit("status", "--json", daemon=daemon)
    assert len(json.loads(r.stdout)["migrations"]) == 21


def test_check(daemon):
    finding = {"level": "error", "code": "bridge-missing", "subject": "n2",
               "message": "no bridge br0", "hint": "ip link add br0 type bridge"}
    daemon.routes["POST", "/v1/check"] = (200, {"ok": False, "findings": [finding]})
    r = godwit("check", "web1", "--to", "n2", daemon=daemon)
    assert r.returncode == 1
    assert "error: n2: no bridge br0\n  ip link add br0" in r.stdout
    assert "web1 cannot move to n2" in r.stdout
    assert daemon.requests[-1].body == {"vm": "web1", "to": "n2"}
    daemon.routes["POST", "/v1/check"] = (200, {"ok": True, "findings": []})
    r = godwit("check", "web1", "--to=n2", "--json", daemon=daemon)
    assert r.returncode == 0 and json.loads(r.stdout)["ok"] is True


def test_explain_and_log(daemon):
    daemon.routes["GET", PATH] = (200, {**DONE, "decisions": [
        {"at_ms": 1200, "phase": "precopy", "rule": "channels", "inputs": {"cpus": 2},
         "chosen": "2 channels", "instead_of": ["1 channel"], "because": "two cores are free"}]})
    r = godwit("explain", ID, daemon=daemon)
    assert r.returncode == 0
    assert "1.20 s  precopy  channels: 2 channels" in r.stdout
    assert "instead of 1 channel" in r.stdout and "because two cores are free" in r.stdout
    assert "cpus = 2" in r.stdout
    assert json.loads(godwit("explain", ID, "--json", daemon=daemon).stdout)["decisions"]
    daemon.routes["GET", f"{PATH}/log"] = (200, b"one\ntwo\n", "text/plain")
    assert godwit("log", ID, daemon=daemon).stdout == "one\ntwo\n"
    assert json.loads(godwit("log", ID, "--json", daemon=daemon).stdout)["log"] == "one\ntwo\n"
    assert godwit("log", "m-none", daemon=daemon).returncode == 2


# --- what it sends ----------------------------------------------------------------------------

def test_names_are_escaped_in_paths(daemon):
    for name in ("..", "a/b", "a?b=c", "ä%"):
        r = godwit("vm", "stop", name, "--force", daemon=daemon)
        assert r.returncode == 2
    assert [r.path for r in daemon.requests] == [
        "/v1/vms/..?force=1", "/v1/vms/a%2Fb?force=1", "/v1/vms/a%3Fb%3Dc?force=1",
        "/v1/vms/%C3%A4%25?force=1"]


def test_vm_start_and_adopt(daemon, tmp_path):
    (tmp_path / "web1.yaml").write_text("name: web1\n")
    (tmp_path / "q.sock").write_text("")
    daemon.routes["POST", "/v1/vms"] = daemon.routes["POST", "/v1/vms/adopt"] = \
        (200, {"name": "web1", "pid": 99})
    r = godwit("vm", "start", "web1.yaml", daemon=daemon, cwd=tmp_path)
    assert r.stdout == "web1 started (pid 99)\n"
    assert daemon.requests[-1].body == {"yaml": "name: web1\n", "file": "web1.yaml"}
    r = godwit("vm", "start", "-", daemon=daemon, stdin="name: web2\n")
    assert daemon.requests[-1].body["yaml"] == "name: web2\n"
    r = godwit("vm", "adopt", "--pid", "99", "--qmp=q.sock", daemon=daemon, cwd=tmp_path)
    assert r.returncode == 0
    assert daemon.requests[-1].body == {"qmp": str(tmp_path / "q.sock"), "pid": 99}
    daemon.routes["POST", "/v1/vms"] = error("config", "web1.yaml:1: unknown key 'nam'")
    assert godwit("vm", "start", "-", daemon=daemon, stdin="nam: x\n").returncode == 2


@pytest.mark.parametrize("content", [b"name: \xff\n", b"a\0b", b"x" * ((64 << 10) + 1)],
                         ids=["latin1", "nul", "long"])
def test_vm_files_that_cannot_be(tmp_path, content):
    (tmp_path / "vm.yaml").write_bytes(content)
    r = godwit("vm", "start", str(tmp_path / "vm.yaml"))
    assert r.returncode == 2 and str(tmp_path / "vm.yaml") in r.stderr


def test_node_commands(daemon):
    daemon.routes["POST", "/v1/node/invite"] = (200, {"token": "T0K", "expires": "2026-01-01"})
    daemon.routes["POST", "/v1/node/join"] = (200, {"name": "n2"})
    daemon.routes["POST", "/v1/node/init"] = (200, {})
    daemon.routes["GET", "/v1/nodes"] = (200, [{"name": "n1", "self": True, "ca": True,
                                               "address": "10.0.0.1:7777"}])
    r = godwit("node", "invite", "--ttl", "15m", daemon=daemon)
    assert r.stdout == "T0K\n" and "2026-01-01" in r.stderr
    assert daemon.requests[-1].body == {"ttl_s": 900}
    godwit("node", "join", "-", "--name", "n2", "--migration-address=10.1.0.2", daemon=daemon,
           stdin="T0K\n")
    assert daemon.requests[-1].body == {"token": "T0K", "name": "n2",
                                        "migration_address": "10.1.0.2"}
    assert godwit("node", "join", "-", daemon=daemon, stdin="").returncode == 2
    godwit("node", "init", daemon=daemon)
    assert daemon.requests[-1] == Request("POST", "/v1/node/init", {})
    line = godwit("node", "list", daemon=daemon).stdout.splitlines()[1]
    assert line.split() == ["n1", "10.0.0.1:7777", "-", "yes", "yes"]


def test_migrate_sends_numbers_in_their_units(daemon, migration):
    migration.record = DONE
    r = godwit("migrate", "web1", "--to", "n2", "--policy", "gentle", "--route=native",
               "--codec", "zstd", "--bandwidth", "1gbit", "--blackout", "0.3s", "--channels", "4",
               "--timeout", "2m", daemon=daemon)
    assert r.returncode == 0, r.stderr
    assert daemon.requests[0].body == {
        "vm": "web1", "to": "n2", "policy": "gentle", "route": "native", "codec": "zstd",
        "bandwidth": 125000000, "blackout_ms": 300, "channels": 4, "timeout_s": 120}
    godwit("migrate", "web1", "--to", "n2", "--bandwidth=unlimited", daemon=daemon)
    posts = [r for r in daemon.requests if r.method == "POST"]
    assert posts[-1].body == {"vm": "web1", "to": "n2", "bandwidth": 0}
    godwit("migrate", "web1", "--to", "n2", "--verify", daemon=daemon)
    posts = [r for r in daemon.requests if r.method == "POST"]
    assert posts[-1].body == {"vm": "web1", "to": "n2", "verify": True}
    godwit("migrate", "web1", "--to", "n2", "--prefault", daemon=daemon)
    posts = [r for r in daemon.requests if r.method == "POST"]
    assert posts[-1].body == {"vm": "web1", "to": "n2", "prefault": True}


@pytest.mark.parametrize("rate, bytes_per_s", [("500mbit", 62500000), ("unlimited", 0)])
def test_migration_set(daemon, rate, bytes_per_s):
    daemon.routes["POST", f"/v1/migrations/{ID}"] = (202, {"id": ID})
    r = godwit("migration", "set", ID, "--bandwidth", rate, daemon=daemon)
    assert r.returncode == 0 and ID in r.stdout
    assert daemon.requests[-1].body == {"bandwidth": bytes_per_s}


# --- migrate ----------------------------------------------------------------------------------

def test_moved(daemon, migration):
    run = migrate(daemon)
    daemon.wait_for_stream()
    migration.now(PRECOPY)
    migration.now(DONE)
    assert run.finish() == 0
    assert run.text["err"] == ""
    assert run.text["out"] == (
        "web1 moved from n1 to n2 in 3.42 s, blackout 34 ms\n"
        "  sent      820 MiB for 1.0 GiB of guest memory, on average 240 MiB/s\n"
        "  rounds    2\n"
        "  route     native over tcp, codec none\n"
        "  blackout  stop 2 ms, last pages 10 ms, devices 5 ms, load 8 ms, commit 3 ms, resume 6 ms\n"
        "warning: web1: kvm64 lacks x86-64-v2\n"
        "  use x86-64-v2-AES\n")


def test_moved_as_json_and_nothing_else(daemon, migration):
    run = migrate(daemon, "--json", "--progress")
    daemon.wait_for_stream()
    migration.now(PRECOPY)
    run.wait_for_text("err", "precopy")
    migration.now(DONE)
    assert run.finish() == 0
    assert json.loads(run.text["out"]) == DONE
    assert run.text["out"].startswith("{\n") and run.text["out"].endswith("}\n")


def test_failed(daemon, migration):
    for more in ([], ["--json"]):
        migration.record = FAILED
        r = godwit("migrate", "web1", "--to", "n2", *more, daemon=daemon)
        assert r.returncode == 1
        assert r.stderr == ("godwit: web1 was not moved: n2 went away\nhint: look at n2\n"
                            "godwit: web1 runs on n1, as before\n")
        assert (json.loads(r.stdout) == FAILED) if more else r.stdout == ""


def test_unresolved_never_claims_where_the_guest_runs(daemon, migration):
    migration.record = {**FAILED, "error": {"code": "unresolved", "message": "nobody knows"}}
    r = godwit("migrate", "web1", "--to", "n2", daemon=daemon)
    assert r.returncode == 3 and "runs on" not in r.stderr and "nobody knows" in r.stderr


def test_an_event_that_got_lost(daemon, migration):
    """The record is read when the stream opens, perhaps once before; then only for the silence."""
    reads = []

    def record(_request):
        reads.append(1)
        return 200, migration.record if len(reads) < 3 else DONE

    daemon.routes["GET", PATH] = record
    run = migrate(daemon)
    assert run.finish() == 0


def test_no_events_at_all(daemon, migration):
    daemon.routes["GET", "/v1/events"] = error("unsupported", "no events", status=501)
    migration.record = DONE
    assert godwit("migrate", "web1", "--to", "n2", daemon=daemon).returncode == 0


def test_events_in_any_pieces(daemon, migration):
    run = migrate(daemon, "--progress")
    daemon.wait_for_stream()
    raw = (": hello\r\nretry: 5\r\nid: 7\r\nevent: other\r\ndata: x\r\n\r\ndata: [1]\n\n"
           "event: migration\ndata: {\"id\": 7}\n\nevent: migration\ndata: nonsense\n\n"
           "event: migration\rdata: " + json.dumps(PRECOPY).replace(", ", ",\rdata:", 1)
           + "\r\r")
    for byte in raw.encode():
        daemon.raw(bytes([byte]))
    run.wait_for_text("err", "precopy.*412 MiB of 1.0 GiB left")
    migration.now(DONE)
    assert run.finish() == 0


def test_an_endless_event_ends_the_stream_only(daemon, migration):
    run = migrate(daemon)
    daemon.wait_for_stream()
    daemon.raw(b"data: " + b"x" * (1 << 20))
    daemon.wait_for_stream(2)
    migration.now(DONE)
    assert run.finish() == 0


def test_events_of_others_are_not_ours(daemon, migration):
    run = migrate(daemon, "--progress")
    daemon.wait_for_stream()
    daemon.event("migration", {**FAILED, "id": "m-other"})
    migration.now(PRECOPY)
    run.wait_for_text("err", "precopy")
    migration.now(DONE)
    assert run.finish() == 0
    assert "n2 went away" not in run.text["err"]


def test_progress_on_a_pipe_is_calm(daemon, migration):
    run = migrate(daemon, "--progress")
    daemon.wait_for_stream()
    began = time.monotonic()
    for _ in range(300):
        migration.now(PRECOPY)
    migration.now(state("switchover"))
    run.wait_for_text("err", "switchover")
    took = time.monotonic() - began
    migration.now(DONE)
    assert run.finish() == 0
    lines = run.text["err"].splitlines()
    assert no_controls(run.text["err"])
    precopy = [line for line in lines if "precopy" in line]
    assert 1 <= len(precopy) <= 2 + took
    assert precopy[0] == ("web1 -> n2  precopy  118 MiB/s  412 MiB of 1.0 GiB left  round 3  "
                          "dirty 20.0 MiB/s  ETA 3.40 s  blackout ~35 ms")


@pytest.mark.parametrize("no_colour", [False, True])
def test_progress_on_a_terminal_is_one_line(daemon, migration, no_colour):
    run = migrate(daemon, terminal="err", env={"NO_COLOR": "1"} if no_colour else {})
    daemon.wait_for_stream()
    migration.now(PRECOPY)
    run.wait_for_text("err", "precopy")
    migration.now(state("switchover"))
    run.wait_for_text("err", "switchover")
    migration.now(FAILED)
    assert run.finish() == 1
    line, *rest = run.text["err"].split("\r\n")
    assert line.count("\r\x1b[K") >= 3  # two lines drawn, the last one taken away
    assert "web1 was not moved" in line
    assert "as before" in rest[-2]
    assert ("\x1b[31m" in run.text["err"]) != no_colour


def test_a_dumb_terminal_gets_lines(daemon, migration):
    run = migrate(daemon, "--progress", terminal="err", env={"TERM": "dumb"})
    daemon.wait_for_stream()
    migration.now(PRECOPY)
    run.wait_for_text("err", "precopy")
    migration.now(DONE)
    assert run.finish() == 0
    assert "\x1b" not in run.text["err"]


def test_the_daemon_restarts(daemon, migration):
    run = migrate(daemon, "--progress")
    daemon.wait_for_stream()
    migration.now(PRECOPY)
    run.wait_for_text("err", "precopy")
    for n in (1, 2):
        daemon.stop()
        run.wait_for_text("err", f"(lost godwitd while web1 moves[^~]*){{{n}}}")
        daemon.start()
        run.wait_for_text("err", f"(godwitd is back[^~]*){{{n}}}")
        daemon.wait_for_stream(n + 1)
    migration.now(FAILED)
    assert run.finish() == 1
    assert "web1 runs on n1, as before" in run.text["err"]


def test_the_stream_breaks_but_the_daemon_lives(daemon, migration):
    run = migrate(daemon)
    daemon.wait_for_stream()
    daemon.end_streams()
    daemon.wait_for_stream(2)
    migration.now(DONE)
    assert run.finish() == 0
    assert "lost" not in run.text["err"]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_daemon_does_not_come_back(daemon, migration, more):
    run = migrate(daemon, "--reconnect", "0.3s", *more)
    daemon.wait_for_request("GET", PATH)
    daemon.wait_for_stream()
    daemon.stop()
    assert run.finish() == 3
    assert f"migration {ID} of web1: godwitd did not come back" in run.text["err"]
    assert "\nhint: 'godwit status' once godwitd runs" in run.text["err"]
    assert "as before" not in run.text["err"]
    if more:
        last = json.loads(run.text["out"])
        assert last["id"] == ID and last["vm"] == "web1" and last["error"]["code"] == "unresolved"


def test_the_daemon_has_forgotten(daemon, migration):
    run = migrate(daemon)
    daemon.wait_for_stream()
    daemon.routes["GET", PATH] = error("not-found", f"no migration {ID}", status=404)
    daemon.end_streams()
    assert run.finish() == 3
    assert "no longer knows the migration" in run.text["err"]


def test_the_answer_to_the_request_is_lost(daemon):
    daemon.routes["POST", "/v1/migrations"] = HANG_UP
    r = godwit("migrate", "web1", "--to", "n2", daemon=daemon)
    assert r.returncode == 3 and "may have started or not" in r.stderr
    daemon.routes["POST", "/v1/migrations"] = (200, {})
    r = godwit("migrate", "web1", "--to", "n2", daemon=daemon)
    assert r.returncode == 3 and "gave it no id" in r.stderr


def test_interrupt_cancels_and_waits(daemon, migration):
    daemon.routes["DELETE", PATH] = (202, {})
    run = migrate(daemon)
    daemon.wait_for_stream()
    migration.now(PRECOPY)
    run.interrupt()
    daemon.wait_for_request("DELETE", PATH)
    run.wait_for_text("err", f"cancelling {ID}.*Ctrl-C again")
    assert run.process.poll() is None
    migration.now({**BASE, "state": "cancelled",
                   "error": {"code": "cancelled", "message": "cancelled on request"}})
    assert run.finish() == 1
    assert "web1 was not moved: cancelled on request" in run.text["err"]
    assert sum(r.method == "DELETE" for r in daemon.requests) == 1


def test_second_interrupt_leaves(daemon, migration):
    daemon.routes["DELETE", PATH] = (202, {})
    run = migrate(daemon)
    daemon.wait_for_stream()
    run.interrupt()
    daemon.wait_for_request("DELETE", PATH)
    run.wait_for_text("err", "Ctrl-C again")
    run.interrupt()
    assert run.finish() == 3
    assert "was not over yet" in run.text["err"]


def test_too_late_to_cancel(daemon, migration):
    daemon.routes["DELETE", PATH] = error("state", "it is committed", status=409)
    run = migrate(daemon)
    daemon.wait_for_stream()
    run.interrupt()
    run.wait_for_text("err", "not cancelled: it is committed")
    migration.now(DONE)
    assert run.finish() == 0


def test_interrupt_before_the_answer(daemon, migration):
    go = threading.Event()

    def slow(_request):
        go.wait(PATIENCE_S)
        return 202, {"id": ID}

    daemon.routes["POST", "/v1/migrations"] = slow
    daemon.routes["DELETE", PATH] = (202, {})
    run = migrate(daemon)
    daemon.wait_for_request("POST", "/v1/migrations")
    run.interrupt()
    run.wait_for_text("err", "cancelling as soon as")
    go.set()
    daemon.wait_for_request("DELETE", PATH)
    migration.now({**BASE, "state": "cancelled"})
    assert run.finish() == 1

    go.clear()
    run = migrate(daemon)
    daemon.wait_for_request("POST", "/v1/migrations", 2)
    run.interrupt()
    run.wait_for_text("err", "cancelling as soon as")
    run.interrupt()
    assert run.finish() == 3
    go.set()


def test_a_full_disk_is_no_success_and_no_failed_move(daemon, migration):
    migration.record = DONE
    with open("/dev/full", "w", encoding="utf-8") as full:
        r = godwit("migrate", "web1", "--to", "n2", "--json", daemon=daemon, stdout=full)
    assert r.returncode == 3 and "cannot write to standard output" in r.stderr


# --- watch ------------------------------------------------------------------------------------

def test_watch_on_a_pipe(daemon):
    daemon.routes["GET", "/v1/migrations"] = (200, [PRECOPY, DONE | {"id": "m-old"}])
    run = Running("watch", daemon=daemon)
    daemon.wait_for_stream()
    run.wait_for_text("out", "web1 -> n2  precopy")
    daemon.event("vm", {"name": "web2", "state": "running"})
    daemon.event("migration", FAILED)
    run.wait_for_text("out", "vm web2: running\nweb1 -> n2  failed  n2 went away\n")
    daemon.stop()
    run.wait_for_text("err", "trying again")
    daemon.start()
    run.wait_for_text("err", "is back")
    run.interrupt()
    assert run.finish() == 0
    assert no_controls(run.text["out"])
    assert "completed" not in run.text["out"]  # m-old was over before we came


def test_watch_json_is_a_line_an_event(daemon):
    daemon.routes["GET", "/v1/migrations"] = (200, [PRECOPY])
    run = Running("watch", "--json", daemon=daemon)
    daemon.wait_for_stream()
    daemon.event("migration", FAILED)
    daemon.event("vm", {"name": "x"})
    run.wait_for_text("out", "\n.*\n")
    run.interrupt()
    assert run.finish() == 0
    assert [json.loads(line) for line in run.text["out"].splitlines()] == [
        {"event": "migration", "data": FAILED}, {"event": "vm", "data": {"name": "x"}}]


def test_watch_on_a_terminal_redraws(daemon):
    daemon.routes["GET", "/v1/migrations"] = (200, [])
    run = Running("watch", daemon=daemon, terminal="out")
    daemon.wait_for_stream()
    run.wait_for_text("out", "no migrations")
    daemon.event("migration", PRECOPY)
    run.wait_for_text("out", r"\x1b\[1A\r\x1b\[J.*ID +VM[^~]*precopy.*118 MiB/s")
    daemon.event("vm", {"name": "web2", "state": "running"})
    run.wait_for_text("out", r"\x1b\[2A\r\x1b\[Jvm web2: running\r\n.*ID +VM")
    run.interrupt()
    assert run.finish() == 0


def test_watch_ends_when_nobody_reads(daemon):
    daemon.routes["GET", "/v1/migrations"] = (200, [])
    run = Running("watch", "--json", daemon=daemon)
    daemon.wait_for_stream()
    os.close(run.fds.pop("out"))
    daemon.event("vm", {"name": "x"})
    run.finish()
    assert run.process.returncode == 3


# --- completion and manual --------------------------------------------------------------------

def complete(line, daemon):
    words = re.findall(r"=|[^ =]+", line) + ([""] if line.endswith((" ", "=")) else [])
    last = "" if words[-1] == "=" else words[-1]
    quoted = " ".join(f"'{w}'" for w in words)
    script = (f"source {ROOT}/completions/godwit.bash; COMP_WORDS=({quoted}); "
              f"COMP_CWORD={len(words) - 1}; _godwit '{GODWIT}' '{last}' ''; "
              "printf '%s\\n' \"${COMPREPLY[@]}\"")
    r = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True,
                       env=environment(GODWIT_SOCKET=daemon.path), timeout=PATIENCE_S)
    assert r.stderr == ""
    return set(r.stdout.split())


def test_completion_knows_every_command_and_option(daemon):
    rows = [row for row in table() if row[0]]
    assert complete("godwit ", daemon) == {row[0].split()[0] for row in rows}
    assert complete("godwit m", daemon) == {"migrate", "migration"}
    for group in ("vm", "node", "migration"):
        assert complete(f"godwit {group} ", daemon) == {
            row[0].split()[1] for row in rows if row[0].startswith(group + " ")}
    for command, _operand, options in rows:
        expected = {o.split("=")[0] for o in options.split()}
        assert complete(f"godwit {command} --", daemon) >= expected | {"--json", "--socket"}


def test_completion_knows_names(daemon):
    daemon.routes["GET", "/v1/vms"] = (200, [*VMS, {"name": "$(touch x)"}, {"name": EVIL}])
    daemon.routes["GET", "/v1/nodes"] = (200, [{"name": "n1"}, {"name": "n2"}])
    daemon.routes["GET", "/v1/migrations"] = (200, [PRECOPY])
    names = {"web1", "a-longer-name"}
    assert complete("godwit migrate ", daemon) == names
    assert complete("godwit --json vm stop ", daemon) == names
    assert complete("godwit migrate web1 --to ", daemon) == {"n1", "n2"}
    assert complete("godwit migrate web1 --to=n2", daemon) == {"n2"}
    assert complete("godwit migrate web1 --codec ", daemon) == {"auto", "none", "zstd"}
    assert complete("godwit migrate web1 --to n2 --co", daemon) == {"--codec"}
    assert complete("godwit cancel ", daemon) == {ID}
    daemon.stop()
    assert complete("godwit cancel ", daemon) == set()


def test_the_manual_knows_every_command_and_option():
    page = (ROOT / "docs/man/godwit.1").read_text(encoding="utf-8").replace("\\-", "-")
    page = re.sub(r"\\f.|\"|\\ ", "", page)
    for command, operand, options in table():
        assert f"{command} {operand}".strip() in re.sub(" +", " ", page)
        for option in options.split():
            assert option.split("=")[0] in page, option


@pytest.mark.parametrize("page", sorted((ROOT / "docs/man").glob("*.[158]")), ids=lambda p: p.name)
def test_manual_pages_format_without_complaint(page):
    try:
        r = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", str(page)], capture_output=True,
                           text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no groff on this machine")
    assert r.returncode == 0 and r.stderr == ""
    assert page.read_text(encoding="utf-8").startswith('.\\" SPDX-License-Identifier: Apache-2.0\n')
