"""What the whole-daemon tests share: starting unid and unictl, talking to them, and images made of
nothing.

Every answer is held against docs/openapi.yaml (contract.py). A Daemon is one state directory; it can be started, ended and killed any
number of times. Nothing here knows what a route answers.
"""

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import threading
import time

import contract

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("UNID_BUILD", ROOT / "build")).resolve()
UNID = BUILD / "bin" / "unid"
UNICTL = BUILD / "bin" / "unictl"
EXAMPLES = BUILD / "guest" / "examples"

READY_S = 120  # a sanitized daemon on a busy machine
ANSWER_S = 120

# Every (method, path, status) that was asked and answered; test_zz_openapi.py holds it against
# the document.
SEEN = set()

# What a sanitizer says when it has found something.
SANITIZER_WORDS = ("AddressSanitizer", "LeakSanitizer", "runtime error:", "UndefinedBehavior")


def wait_for(condition, what, seconds=ANSWER_S):
    """Gives the first true value of `condition`, asked again every few milliseconds."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.005)


def free_port():
    """A port of loopback that nobody uses, out of the range from which the kernel gives ports to those that do not
    ask for one (Linux, Documentation/networking/ip-sysctl.rst): nobody gets it by chance before it is used."""
    low = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10000, max(low, 20000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def state_of(pid):
    """A process's state as proc(5) has it, in /proc/PID/stat; None when there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def sdk_image(salt=b"", size=0, base=0x200000):
    """An SDK image (guest/include/unid/abi.h) as small as can be: one segment, our note, an endless
    loop. The fake driver never runs its code; `salt` and `size` make images differ."""
    code = b"\xeb\xfe" + salt
    note = struct.pack("<III", 5, 8, 1) + b"unid\0\0\0\0" + struct.pack("<HHI", 1, 0, 0)
    code_at = 64 + 2 * 56 + len(note)
    total = max(code_at + len(code), size)
    head = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + code_at, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, total, total, 4096)
    note_at = 64 + 2 * 56
    notes = struct.pack(
        "<IIQQQQQQ", 4, 4, note_at, base + note_at, base + note_at, len(note), len(note), 4
    )
    image = head + load + notes + note + code
    return image + b"\0" * (total - len(image))


def linux_image(salt=b""):
    """A static Linux program, likewise."""
    return sdk_image(salt, base=0x400000).replace(b"unid\0", b"none\0")


def disk_image(salt=b""):
    """A raw disk of one sector, by its boot signature: no driver runs it."""
    return salt + b"\0" * (510 - len(salt)) + b"\x55\xaa"


def without_url(value):
    """A JSON value without what depends on the port that the daemon has got."""
    if isinstance(value, list):
        return [without_url(item) for item in value]
    if isinstance(value, dict):
        return {k: without_url(v) for k, v in value.items() if k != "url"}
    return value


@dataclasses.dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    def problem(self, status=None):
        """The problem+json, after looking at its form."""
        kind = self.headers.get("Content-Type", "")
        assert kind.startswith("application/problem+json"), (self.status, kind, self.body[:300])
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        assert problem["title"] and problem["type"]
        if status is not None:
            assert self.status == status, problem
        return problem

    def ok(self, *statuses):
        assert self.status in (statuses or (200,)), (self.status, self.body[:500])
        return self


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Daemon:
    def __init__(self, directory, driver="fake", flags=(), env=None, prefix=()):
        self.directory = pathlib.Path(directory)
        self.state = self.directory / "state"
        self.socket = self.directory / "unid.sock"
        self.ready_file = self.directory / "ready.json"
        self.log_file = self.directory / "log"
        self.driver, self.flags, self.env = driver, list(flags), dict(env or {})
        self.prefix = list(prefix)  # ends in an exec of what follows it
        self.process = None
        self.port = None
        self.may_log_errors = False
        self.draining = False

    # --- life -------------------------------------------------------------------------------------

    def command(self):
        return [
            *self.prefix,
            str(UNID),
            "--listen",
            "127.0.0.1:0",
            "--socket",
            str(self.socket),
            "--state-dir",
            str(self.state),
            "--runtime-dir",
            str(self.directory / "run"),
            "--driver",
            self.driver,
            "--ready-file",
            str(self.ready_file),
            "--log-format",
            "json",
            *self.flags,
        ]

    def start(self):
        assert self.process is None
        self.ready_file.unlink(missing_ok=True)
        self.draining = False
        env = {k: v for k, v in os.environ.items() if not k.startswith(("UNID_", "XDG_"))}
        # Freed memory that the sanitizer holds back would look like memory in use. Thread-local storage of a module:
        # see tests/fragment.am.
        env["ASAN_OPTIONS"] = (
            env.get("ASAN_OPTIONS", "detect_leaks=1") + ":quarantine_size_mb=4:intercept_tls_get_addr=0"
        )
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**env, **self.env},
            )
        wait_for(self._is_ready, "unid serves", READY_S)
        return self

    def _is_ready(self):
        assert self.process.poll() is None, f"unid ended: {self.log()[-3000:]}"
        try:
            ready = json.loads(self.ready_file.read_text())
        except (OSError, ValueError):
            return False
        assert ready["pid"] == self.process.pid
        assert ready["socket"] == str(self.socket)
        self.port = int(ready["listen"][0].rsplit(":", 1)[1])
        return True

    def drain(self):
        """Asks it to end; stop() then waits. (A second signal would end it at once.)"""
        if not self.draining:
            self.draining = True
            self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds=ANSWER_S):
        """Ends it as a service manager does, and gives its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.drain()
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"unid does not end: {self.log()[-3000:]}") from None
        self.process = None
        return status

    def end(self, seconds=120):  # machines of libvirt, on a busy host
        """stop(), and all is well, and nothing is left."""
        status = self.stop(seconds)
        assert status == 0, f"unid ended with {status}: {self.log()[-3000:]}"
        self.assert_nothing_left()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.end()
        elif self.process:
            self.kill()

    @contextlib.contextmanager
    def stopped(self):
        """It stands still meanwhile: what it is sent comes to it at once, however slowly it was sent."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: state_of(self.process.pid) == "T", "unid stands still")
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_events(self):
        events = []
        for line in self.log().splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                pass
        return events

    def resident_kib(self, which="VmHWM"):
        """The most it ever had in memory, or with VmRSS what it has now."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(which + ":"):
                return int(line.split()[1])
        raise AssertionError(f"no {which}")

    # --- what is left -----------------------------------------------------------------------------

    def processes(self):
        """Process ids whose command line names this daemon's directory, the daemon aside."""
        own = self.process.pid if self.process else None
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in (own, os.getpid()):
                continue
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(str(self.directory)) in command and b"unictl" not in command:
                found.append(int(entry.name))
        return found

    def assert_nothing_left(self):
        """After stop(): no process, no socket, no short-lived file, no finding of a sanitizer."""
        wait_for(lambda: not self.processes(), "no process is left")
        assert not self.socket.exists(), "the socket is left"
        run = self.directory / "run"
        left = [str(p) for p in run.rglob("*")] if run.exists() else []
        assert not left, f"left in the runtime directory: {left}"
        self.assert_clean_log()

    def assert_clean_log(self):
        log = self.log()
        for word in SANITIZER_WORDS:
            assert word not in log, log[log.index(word) - 200 :][:4000]
        if not self.may_log_errors:
            errors = [e for e in self.log_events() if e.get("level") == "error"]
            assert not errors, errors[:5]

    # --- HTTP -------------------------------------------------------------------------------------

    def connection(self, unix=False, timeout=ANSWER_S):
        if unix:
            return UnixConnection(str(self.socket), timeout)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, unix=False, timeout=ANSWER_S):
        """One request on a connection of its own. A dict or list as body is sent as JSON."""
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = self.connection(unix, timeout)
        try:
            chunked = headers.get("Transfer-Encoding") == "chunked"
            try:
                connection.request(method, path, body, headers, encode_chunked=chunked)
            except (BrokenPipeError, ConnectionResetError):
                if connection.sock is None:
                    raise  # not even connected
                # Refused before it was sent whole; the refusal must be there to read.
                connection._HTTPConnection__state = "Request-sent"
            response = connection.getresponse()
            SEEN.add((method, path.split("?")[0], response.status))
            answer = Answer(response.status, response.headers, response.read())
            media = answer.headers.get("Content-Type", "")
            contract.of(ROOT / "docs/openapi.yaml").check(method, path, answer.status, media, answer.body)
            return answer
        finally:
            connection.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def put(self, path, body=None, **more):
        return self.request("PUT", path, body, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)

    def delete(self, path, **more):
        return self.request("DELETE", path, **more)

    def raw(self, timeout=ANSWER_S):
        """A plain TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    # --- what most tests need ---------------------------------------------------------------------

    def push(self, image=None):
        return self.post("/api/v1/images", image or sdk_image()).ok(200, 201).json["digest"]

    def deploy(self, name, *args, image=None, **config):
        """Deploys a function whose fake guest does what `args` say (hypervisor/fake/fake.h)."""
        digest = image if isinstance(image, str) else self.push(image)
        body = {"image": digest, "args": list(args), **config}
        return self.put(f"/api/v1/functions/{name}", body).ok(200, 201).json

    def call(self, name, body=b"", **more):
        return self.post(f"/fn/{name}", body, **more)

    def receipt(self, invocation_id):
        """The receipt of the last attempt, as soon as it has been written."""

        def written():
            answer = self.get(f"/api/v1/invocations/{invocation_id}")
            last = answer.status == 200 and "phases" in answer.json and "pending" not in answer.json
            return last and answer.json

        return wait_for(written, "the receipt is there")

    def instances(self):
        return self.get("/api/v1/instances").ok().json["items"]

    def unictl(self, *words, stdin=b"", env=None, unix=True, host=None):
        host = host or (f"unix://{self.socket}" if unix else f"http://127.0.0.1:{self.port}")
        return unictl("--host", host, *words, stdin=stdin, env=env)


@dataclasses.dataclass
class Result:
    status: int
    out: bytes
    err: str

    @property
    def text(self):
        return self.out.decode()

    @property
    def json(self):
        return json.loads(self.out)

    def ok(self):
        assert self.status == 0, (self.status, self.err)
        return self


def unictl(*words, stdin=b"", env=None, timeout=ANSWER_S):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("UNID_", "XDG_"))}
    done = subprocess.run(
        [str(UNICTL), *map(str, words)],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        env={**clean, **(env or {})},
        check=False,
    )
    err = done.stderr.decode(errors="replace")
    for word in SANITIZER_WORDS:
        assert word not in err, err
    return Result(done.returncode, done.stdout, err)


class Gate:
    """Something that calls of functions wait for, for as long as a test wants: the fake guest's `net` waits for a
    connection's end. Calls that come when it is open go through at once."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.opened = threading.Event()
        self.held = []  # a connection each that came
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self.listener.accept()
                self.held.append(connection)
                threading.Thread(target=self._hold, args=(connection,), daemon=True).start()

    def _hold(self, connection):
        with connection, contextlib.suppress(OSError):  # its function was ended
            while connection.recv(4096):
                pass
            self.opened.wait()
            connection.sendall(b"let through\n")

    def deploy(self, unid, name, **config):
        """A function whose calls run until open(), and answer "let through"."""
        return unid.deploy(name, "net", self.address, "x", egress=[self.address], **config)

    def open(self):
        self.opened.set()

    def close(self):
        self.open()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def read_answer(sock, method="GET"):
    """Reads one answer from a plain connection. None when the other side has closed it instead."""
    response = http.client.HTTPResponse(sock, method=method)
    try:
        response.begin()
        return Answer(response.status, response.headers, response.read())
    except (http.client.BadStatusLine, ConnectionResetError):
        return None
    finally:
        response.close()


def closed(sock):
    """Whether the other side closes the connection now (after what it still had to say)."""
    try:
        while sock.recv(65536):
            pass
        return True
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def timing(answer):
    """Server-Timing as {"queue": ms, ...}."""
    parts = {}
    for part in answer.headers["Server-Timing"].split(","):
        name, duration = part.strip().split(";dur=")
        parts[name] = float(duration)
    return parts
