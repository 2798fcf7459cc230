"""unictl top, against a daemon with the fake driver and against a server that follows a script."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios

import pytest

import harness
from harness import wait_for
from test_cli_stub import answer, stub  # noqa: F401 (a fixture)
from test_stats import held, stats


@contextlib.contextmanager
def going_on(*words):
    """unictl that ends when it is told to, its output in a pipe."""
    process = subprocess.Popen(
        [harness.UNICTL, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


class Terminal:
    """unictl on a terminal of its own."""

    def __init__(self, columns, lines, *words):
        self.shown = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
                os.execv(harness.UNICTL, [str(harness.UNICTL), *map(str, words)])
            finally:
                os._exit(99)

    def read(self):
        """False at the end."""
        try:
            piece = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has it open any more
            piece = b""
        self.shown += piece
        return bool(piece)

    def read_until(self, condition):
        while not condition(self.shown):
            assert self.read(), self.shown

    def type(self, keys):
        os.write(self.fd, keys)

    def end(self):
        """Its exit status, once it has ended by itself."""
        while self.read():
            pass
        pid, self.pid = self.pid, None
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


def frames(shown):
    """The lines of each frame that is whole."""
    return [
        [line.removesuffix("\x1b[K\r") for line in frame.split("\n")[:-1]]
        for frame in shown.decode().split("\x1b[H")[1:]
        if frame.endswith("\x1b[J")
    ]


# --- the table ----------------------------------------------------------------------------------------


def test_what_runs_and_waits_is_shown(unid):
    with held(unid):
        wait_for(lambda: stats(unid)["ready"] > 0, "shells stand ready")
        shown = unid.unictl("top", "--interval", "0.1").ok().text.splitlines()
        assert re.match(r"VMs: \d+, 2 running, \d+ ready; memory: \d+MiB of \d+MiB$", shown[0])
        assert shown[1].endswith(", 3 waiting") and shown[2] == ""
        assert shown[3].split() == "FUNCTION RUN READY MEMORY REQ/S ERR/S MEAN QUEUE".split()
        cells = shown[4].split()
        assert cells[:3] == ["held", "2", "0"] and cells[-2:] == ["-", "3"]


def test_the_busiest_function_comes_first(unid):
    for name in ("asleep", "busy"):
        unid.deploy(name, "hello")
    with going_on("--host", f"unix://{unid.socket}", "top", "--all", "-n", "0", "-d", "0.1", "--json") as top:
        while True:
            unid.call("busy").ok()
            view = json.loads(top.stdout.readline())
            assert {f["function"] for f in view["functions"]} == {"asleep", "busy"}
            assert view["interval_us"] > 0
            first, second = view["functions"]
            assert second["requests_per_s"] == 0 and second["mean_us"] is None
            if first["requests_per_s"] > 0:
                break
        assert first["function"] == "busy" and first["mean_us"] > 0
        assert view["requests_per_s"] == first["requests_per_s"] and view["errors_per_s"] == 0
        top.send_signal(signal.SIGINT)
        top.stdout.read()
        assert top.wait(harness.ANSWER_S) == 0 and top.stderr.read() == ""


@pytest.mark.parametrize(
    "words, tables", [((), 1), (("--no-stream",), 1), (("-n", "3"), 3), (("-n", "3", "--no-stream"), 1)]
)
def test_without_a_terminal_it_ends(unid, words, tables):
    unid.deploy("f", "hello")
    text = unid.unictl("top", "-a", "-d", "100ms", *words).ok().text
    assert text.count("VMs: ") == tables and text.count("\nf  ") == tables
    assert "\x1b" not in text and "-/s" not in text
    lines = unid.unictl("top", "-a", "-d", "100ms", "--json", *words).ok().text.splitlines()
    assert len(lines) == tables and all(json.loads(line)["functions"] for line in lines)


def test_functions_that_do_nothing_are_not_asked_for(unid):
    for name in ("asleep", "busy"):
        unid.deploy(name, "hello")
        unid.call(name).ok()
    assert "\n(no function does anything)\n" in unid.unictl("top", "-d", "0.1").ok().text
    with going_on("--host", f"unix://{unid.socket}", "top", "-n", "0", "-d", "0.1", "--json") as top:
        while not (shown := json.loads(top.stdout.readline())["functions"]):
            unid.call("busy").ok()
        assert [f["function"] for f in shown] == ["busy"]


def test_functions_that_come_and_go_are_followed(unid):
    with going_on("--host", f"unix://{unid.socket}", "top", "--all", "-n", "0", "-d", "0.1", "--json") as top:

        def wait_until_shown(names):
            while {f["function"] for f in json.loads(top.stdout.readline())["functions"]} != names:
                pass

        wait_until_shown(set())
        unid.deploy("one", "hello")
        unid.call("one").ok()
        wait_until_shown({"one"})
        unid.deploy("two", "hello")
        unid.delete("/api/v1/functions/one").ok(204)
        wait_until_shown({"two"})


def test_daemon_that_goes_away_is_3(unid):
    with going_on("--host", f"unix://{unid.socket}", "top", "-n", "0", "-d", "0.1") as top:
        assert top.stdout.readline().startswith("VMs: ")
        assert unid.stop() == 0
        top.stdout.read()
        assert top.wait(harness.ANSWER_S) == 3
        assert "no daemon at unix://" in top.stderr.read()


SAMPLE = {
    "at": "2026-01-01T00:00:09.000000Z",
    "started_at": "2026-01-01T00:00:00.000000Z",
    "uptime_us": 9000000,
    "instances": 0,
    "running": 0,
    "ready": 0,
    "memory_mib": 0,
    "memory_limit_mib": 64,
    "waiting": 0,
    "functions": [],
}


def test_daemon_that_was_started_anew_in_between_gives_no_negative_rates(stub):  # noqa: F811
    row = {"function": "f", "running": 0, "ready": 0, "memory_mib": 0, "waiting": 0, "ran": 0, "duration_us": 0}
    before = {**SAMPLE, "functions": [{**row, "invocations": 1000, "failed": 500}]}
    changed = {**SAMPLE, "started_at": "2026-01-01T00:00:10.000000Z", "uptime_us": 400000}
    whole = {
        **SAMPLE,
        "started_at": "2026-01-01T00:00:10.000000Z",
        "uptime_us": 500000,
        "functions": [{**row, "invocations": 2, "failed": 1}],
    }
    stub.answers = [
        answer(200, before),
        answer(200, changed),
        answer(200, whole),
        answer(200, {"items": [{"name": "f"}], "next": None}),
    ]
    view = stub.run("top", "--all", "-d", "0.1", "--json").ok().json
    assert view["interval_us"] == 500000
    assert (view["requests_per_s"], view["errors_per_s"]) == (4, 2)
    assert view["functions"][0]["requests_per_s"] == 4
    assert [head.split()[1] for head, _ in stub.requests] == [
        "/api/v1/stats",
        "/api/v1/stats?since_uptime_us=9000000",
        "/api/v1/stats",
        "/api/v1/functions?limit=1000",
    ]


# --- on a terminal ------------------------------------------------------------------------------------


def test_a_terminal_is_drawn_over_until_it_is_interrupted(unid):
    for number in range(20):
        unid.deploy(f"a-name-that-is-rather-long-{number:02}", "hello")
    with Terminal(70, 10, "--host", f"unix://{unid.socket}", "top", "--all") as terminal:
        terminal.read_until(lambda shown: len(frames(shown)) >= 2)
        first, *_, last = frames(terminal.shown)
        assert "Requests: -/s, -/s failed, 0 waiting" in first, "drawn at once, without rates"
        assert "Requests: 0.0/s, 0.0/s failed, 0 waiting" in last
        for lines in frames(terminal.shown):
            assert len(lines) == 9 and max(map(len, lines)) <= 70, lines
            assert lines[3].endswith("   QUEUE") and re.match(r"a-name-that-i[a-z-]*\+ ", lines[4])
            assert lines[-1] == "(16 more)"
        terminal.type(b"\x03")
        assert terminal.end() == 0
        assert b"^C" in terminal.shown and terminal.shown.endswith(b"\r\n"), "the shell's prompt has a line of its own"
        modes = set(re.findall(rb"\x1b\[[^A-Za-z]*[A-Za-z]", terminal.shown))
        assert modes == {b"\x1b[H", b"\x1b[K", b"\x1b[J"}, "nothing that would have to be put back"


def test_a_daemon_that_says_nothing_does_not_keep_who_interrupts(unid):
    with Terminal(80, 24, "--host", f"unix://{unid.socket}", "top", "-d", "0.1") as terminal:
        terminal.read_until(lambda shown: len(frames(shown)) >= 2)
        with unid.stopped():
            terminal.type(b"\x03")
            assert terminal.end() == 0


def test_a_terminal_that_is_resized_is_filled(unid):
    for number in range(30):
        unid.deploy(f"f{number}", "hello")
    with Terminal(80, 24, "--host", f"unix://{unid.socket}", "top", "-a", "-d", "0.1") as terminal:
        terminal.read_until(lambda shown: any(len(f) == 23 for f in frames(shown)))
        fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        terminal.read_until(lambda shown: any(len(f) == 4 + 30 for f in frames(shown)))


def test_tables_by_number_are_plain_on_a_terminal_too(unid):
    unid.deploy("f", "hello")
    with Terminal(20, 5, "--host", f"unix://{unid.socket}", "top", "-a", "-d", "0.1", "-n", "2") as terminal:
        assert terminal.end() == 0
        assert b"\x1b" not in terminal.shown and terminal.shown.count(b"\r\nf  ") == 2
