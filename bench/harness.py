"""harness.py - what the sections of bench/run share: an unid of their own, asking it things, and
printing rows. It knows nothing of what is measured.

UNID_BUILD names another build tree than build/.
"""
import http.client
import json
import math
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("UNID_BUILD", TOP / "build")).resolve()
EXAMPLES = BUILD / "guest" / "examples"
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class Daemon:
    """An unid on a temporary state directory; use as a context manager."""

    def __init__(self, *flags, env=None):
        self.flags = flags
        self.env = {**os.environ, **(env or {})}

    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="unid-bench-")
        work = pathlib.Path(self.dir.name)
        self.log = open(work / "log", "w")
        self.state = work / "state"
        return self.start()

    def start(self):
        work = pathlib.Path(self.dir.name)
        ready = work / "ready"
        ready.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [BUILD / "bin" / "unid", "--state-dir", self.state, "--runtime-dir", work / "run",
             "--socket", work / "sock", "--listen", "127.0.0.1:0", "--ready-file", ready,
             *self.flags], stderr=self.log, env=self.env)
        deadline = time.monotonic() + 60
        while not (ready.exists() and ready.read_text()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((work / "log").read_text())
            time.sleep(0.01)
        host, port = json.loads(ready.read_text())["listen"][0].rsplit(":", 1)
        self.address = (host, int(port))
        self.pid = self.process.pid
        return self

    def kill_and_start(self):
        """kill -9, and a new process on the same state, at another port."""
        self.process.kill()
        self.process.wait()
        return self.start()

    def __exit__(self, *exc):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close(); os.environ.get("SHOWLOG") and print(open(pathlib.Path(self.dir.name)/"log").read()[-2500:])
        self.dir.cleanup()

    def call(self, method, path, body=None, headers={}):
        connection = http.client.HTTPConnection(*self.address, timeout=300)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer, data

    def ask(self, method, path, value=None):
        answer, data = self.call(method, path, json.dumps(value) if value is not None else None,
                                 {"Content-Type": "application/json"})
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {data.decode()}")
        return json.loads(data) if data else None

    def push(self, path):
        with open(path, "rb") as f:
            answer, data = self.call("POST", "/api/v1/images", f,
                                     {"Content-Length": str(os.path.getsize(path))})
        if answer.status not in (200, 201):
            raise SystemExit(data.decode())
        return json.loads(data)["digest"]

    def may(self, method, path, value):
        """Whether it is not refused."""
        answer, _ = self.call(method, path, json.dumps(value), {"Content-Type": "application/json"})
        return answer.status < 300

    def deploy(self, name, digest, **config):
        return self.ask("PUT", f"/api/v1/functions/{name}", {"image": digest, **config})

    def shells(self):
        return len(self.instances("idle"))

    def wait_for_shells(self, count, seconds=60):
        deadline = time.monotonic() + seconds
        while self.shells() < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"no {count} shells after {seconds} s")
            time.sleep(0.02)

    def instances(self, state):
        return [i for i in self.ask("GET", "/api/v1/instances")["items"] if i["state"] == state]

    def memory_kib(self, key):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+)", text, re.M).group(1))

    def cpu_us(self):
        """CPU time of unid's own threads until now, without its monitors."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_US

    def descendants(self):
        """Process ids of spawners and monitors."""
        children = {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
            children.setdefault(parent, []).append(int(stat.parent.name))
        found, todo = [], [self.pid]
        while todo:
            below = children.get(todo.pop(), [])
            found += below
            todo += below
        return found


def pss_kib(pid):
    """Proportional memory: pages that several processes share count in parts. 0 when it has ended."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1))


def timed(fn):
    begin = time.perf_counter()
    fn()
    return (time.perf_counter() - begin) * 1e3


def median(values):
    return statistics.median(values)


def p99(values):
    """The nearest-rank percentile, as `unictl bench` has it."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def row(what, figure, goal=""):
    print(f"  {what:<66} {figure:>22}  {goal}", flush=True)


def get(address, path="/fn/hello"):
    """Milliseconds from sending a request on an open connection to the first byte of the answer, and
    the answer."""
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    begin = time.perf_counter()
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = connection.recv(65536)
    took = (time.perf_counter() - begin) * 1e3
    while piece := connection.recv(65536):
        answer += piece
    connection.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(answer.decode(errors="replace"))
    return took, answer.decode(errors="replace")


def get_timed(address, path="/fn/hello"):
    return get(address, path)[0]


def direct_ms(rounds):
    """QEMU microvm started by hand for the same image: exec of QEMU to the guest's DONE."""
    out = subprocess.run([BUILD / "bench" / "qemu_direct", EXAMPLES / "hello", str(rounds)],
                         stdout=subprocess.PIPE, check=True, text=True).stdout
    return [float(line) for line in out.split()]


def receipts_of(daemon, name, count):
    """The newest receipts of a function, as soon as there are so many."""
    deadline = time.monotonic() + 20
    while True:
        items = daemon.ask("GET", f"/api/v1/invocations?function={name}&limit={count}")["items"]
        if len(items) >= count or time.monotonic() > deadline:
            return items
        time.sleep(0.1)


def first_byte_ms(receipt):
    """From accepting the request to the first byte of the answer, as unid has seen it."""
    before = ("queue_us", "shell_us", "bind_us", "start_us", "first_byte_us")
    return sum(receipt["phases"][key] for key in before) / 1e3
