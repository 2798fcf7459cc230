"""Threads, signals, memory and the way in and out of the library OS in real virtual machines."""

import pathlib
import subprocess

import pytest

import harness
from test_interfaces_kvm import busybox, deploy, pytestmark, real  # noqa: F401

PROGRAMS = pathlib.Path(__file__).parent / "programs"


@pytest.fixture
def built(tmp_path):
    def build(source, *options):
        out = tmp_path / "program"
        subprocess.run(
            ["gcc", "-O2", "-w", *options, "-o", out, PROGRAMS / source], check=True, timeout=60
        )
        return out

    return build


@pytest.mark.parametrize("how", ["-static", "-static-pie", "-no-pie", "-pie"])
def test_threads_signals_time_and_memory_are_as_on_the_host(real, name, built, how):
    program = built("libos_threads.c", "-pthread", how)
    here = subprocess.run([program], input=b"go\n", capture_output=True, timeout=60)
    assert here.stdout.startswith(b"ok: "), here.stdout
    deploy(real, name, program)
    assert real.call(name, b"go\n").ok().body == here.stdout


def test_registers_flags_and_red_zone_survive_a_call(real, name, built):
    deploy(real, name, built("libos_registers.S", "-nostdlib", "-static"))
    assert real.call(name, b"").ok().body == b""


PYTHON = ("/usr/bin/python3", "--with", "/usr/lib/python3.11")
RANDOM_SERVER = """
import http.server, os, random
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"%r" % random.random())
http.server.HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_what_was_random_at_the_start_is_shared_and_told_of(real, name):
    done = real.unictl("deploy", name, *PYTHON, "-i", "http", "--", "-c", RANDOM_SERVER).ok()
    assert "note: the program drew random bytes" in done.err and "--snapshot start" in done.err
    assert len({bytes(real.get(f"/fn/{name}").ok().body) for _ in range(3)}) == 1
    done = real.unictl("deploy", name, *PYTHON, "-i", "http", "--snapshot", "start", "--", "-c", RANDOM_SERVER).ok()
    assert "note:" not in done.err
    assert len({bytes(real.get(f"/fn/{name}").ok().body) for _ in range(3)}) == 3


@pytest.mark.parametrize("how", ["-static", "-pie"])
def test_a_program_can_start_anew_for_each_request(real, name, built, how):
    program = built("libos_random.c", how)
    for when, count in (("ready", 1), ("start", 3)):
        done = real.unictl("deploy", name, program, "--snapshot", when).ok()
        assert "note:" not in done.err
        assert len({bytes(real.call(name, b"\n").ok().body) for _ in range(3)}) == count


def test_a_server_that_forks_at_its_start_is_not_taken_for_serving(real, name):
    """As with the snapshot at its accept(): there is no other process, and the request is for later."""
    script = "import os\ntry: os.fork()\nexcept OSError as e: print(e.errno, flush=True)\n" + RANDOM_SERVER
    real.unictl("deploy", name, *PYTHON, "-i", "http", "--snapshot", "start", "--", "-c", script).ok()
    assert float(real.get(f"/fn/{name}").ok().body) < 1
    items = real.get(f"/api/v1/functions/{name}/logs").ok().json["items"]
    assert items[0]["text"] == "38"


def test_start_is_for_linux_programs(real, name):
    refused = real.unictl("deploy", name, str(harness.EXAMPLES / "hello"), "--snapshot", "start")
    assert refused.status != 0 and "unid_next()" in refused.err


GENERATOR = (*PYTHON, "--", "-c", "import random; print(random.random())")


@pytest.mark.parametrize(
    "words", [("/bin/date", "--", "+%s%N"), ("/usr/bin/head", "--", "-c16", "/dev/urandom"), GENERATOR], ids=lambda w: w[0]
)
def test_output_without_input_is_of_the_moment(real, name, words):
    real.unictl("deploy", name, *words).ok()
    answers = {bytes(real.call(name, b"").ok().body) for _ in range(3)}
    assert len(answers) == 3


def test_output_that_never_changes_is_not_computed_again(real, name):
    busybox(real, name, "seq", "5")
    for _ in range(2):
        answer = real.call(name, b"").ok()
        assert answer.body == b"1\n2\n3\n4\n5\n"


def test_a_program_that_fails_at_once_is_not_deployed(real, name):
    refused = real.unictl("deploy", name, "/bin/busybox", "--", "sh", "-c", "echo no >&2; exit 3")
    assert refused.status != 0
    assert "status 3" in refused.err and "no" in refused.err


@pytest.mark.parametrize("how", ["-static", "-pie"])
def test_a_files_page_that_may_be_written_becomes_a_copy(real, name, built, how):
    program = built("libos_copy.c", how)
    here = subprocess.run([program], input=b"a line\n", capture_output=True, timeout=60)
    assert here.returncode == 0 and here.stdout.startswith(b"1 1 1 a line\n"), here
    done = real.unictl("deploy", name, program, "--isolation", "reset")
    assert done.status == 0, done.err
    for _ in range(4):
        assert real.call(name, b"a line\n").ok().body == here.stdout


@pytest.mark.parametrize("isolation", ["vm", "reset"])
@pytest.mark.parametrize("how", ["-static", "-pie"])
def test_much_memory_is_zero_in_each_request_and_keeps_what_is_written(real, name, built, how, isolation):
    options = ["-m", "128M", "--isolation", isolation]
    done = real.unictl("deploy", name, built("libos_memory.c", how), *options, "--", "64")
    assert done.status == 0, done.err
    for _ in range(6):
        assert real.call(name, b"x").ok().body == b"clean\n"


def test_more_memory_than_there_is_is_refused_to_the_program(real, name, built):
    done = real.unictl("deploy", name, built("libos_memory.c", "-static"), "-m", "64M", "--", "80")
    assert done.status == 0, done.err
    for _ in range(3):
        problem = real.call(name, b"x").problem(502)
        assert "status 1" in problem["detail"]
