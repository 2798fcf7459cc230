"""The examples in real virtual machines, through the libvirt driver: what they answer, how they
fail, what is left when they or unid are killed."""

import contextlib
import hashlib
import os
import signal
import subprocess
import threading
import time

import pytest

import harness
from harness import EXAMPLES, is_gone, timing, wait_for

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not (EXAMPLES / "hello").exists():
        pytest.skip(f"there are no examples in {EXAMPLES}")
    with harness.Daemon(
        tmp_path_factory.mktemp("unid"), driver="libvirt", flags=["--set", "pool.min=2"]
    ) as daemon:
        yield warm(daemon)


def deploy(daemon, example, name=None, args=(), **config):
    digest = daemon.push((EXAMPLES / example).read_bytes())
    body = {"image": digest, "args": list(args), "memory_mib": 16, "timeout_ms": 20000, **config}
    return daemon.put(f"/api/v1/functions/{name or example}", body).ok(200, 201).json


def warm(daemon):
    """Waits for the first shells: the accelerators are measured before."""
    wait_for(
        lambda: [i for i in daemon.instances() if i["state"] == "idle"], "a shell is ready", 100
    )
    return daemon


def qemu_pids(daemon):
    return {i["pid"] for i in daemon.instances() if i["pid"]}


def test_example_images_are_small(real):
    for path in EXAMPLES.iterdir():
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF" and path.suffix == "":
            assert path.stat().st_size <= 64 * 1024, path


def test_hello_answers_from_a_vm_of_its_own(real):
    deploy(real, "hello")
    answers = [real.call("hello", timeout=60).ok() for _ in range(3)]
    assert {a.body for a in answers} == {b"hello from hello\n"}
    receipts = [real.receipt(a.headers["X-Unid-Invocation-Id"]) for a in answers]
    assert all(r["driver"] == "libvirt" and r["fresh"] and r["outcome"] == "ok" for r in receipts)
    assert {"queue", "start", "run"} <= set(timing(answers[0]))


def test_echo_returns_bytes_unchanged(real):
    deploy(real, "echo")
    for size in (0, 1, 65536, 1_000_003):
        body = os.urandom(size)
        answer = real.call("echo", body, timeout=60, headers={"Content-Type": "x/y"}).ok()
        assert answer.body == body
        assert answer.headers["Content-Type"] == "x/y"


def test_sha256_of_a_real_file_is_sha256sums(real, tmp_path):
    deploy(real, "sha256", timeout_ms=60000)
    data = os.urandom(1 << 20) * 5 + b"tail"
    assert (
        real.call("sha256", data, timeout=90).ok().body.split()[0].decode()
        == hashlib.sha256(data).hexdigest()
    )
    (tmp_path / "file").write_bytes(data)
    done = real.unictl("invoke", "sha256", "--data", f"@{tmp_path}/file").ok()
    assert done.text.split()[0] == hashlib.sha256(data).hexdigest()
    pieces = (data[i : i + 100_001] for i in range(0, len(data), 100_001))
    answer = real.call("sha256", pieces, headers={"Transfer-Encoding": "chunked"}, timeout=90)
    assert answer.ok().body.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_wc_counts_like_wc(real):
    deploy(real, "wc")
    text = (harness.ROOT / "docs/openapi.yaml").read_bytes()
    native = subprocess.run(["wc"], input=text, capture_output=True, check=True).stdout.split()
    assert real.call("wc", text, timeout=60).ok().body.split()[:3] == native[:3]


def test_random_differs_in_every_vm(real):
    deploy(real, "random")
    answers = {real.call("random", timeout=60).ok().body for _ in range(6)}
    assert len(answers) == 6


def test_arguments_and_environment_arrive(real):
    deploy(real, "env", args=["one", "two words"], env={"KEY": "value"})
    text = (
        real.post("/fn/env/a/b?q=1", b"x", headers={"X-Mine": "1"}, timeout=60).ok().body.decode()
    )
    assert "argv[1]=one\n" in text and "argv[2]=two words\n" in text and "env KEY=value\n" in text
    assert "POST /a/b?q=1\n" in text and "x-mine: 1\n" in text.lower()


def test_several_at_once(real):
    deploy(real, "echo", concurrency=8)
    answers = [None] * 6

    def call(i):
        answers[i] = real.call("echo", b"%d" % i * 10_000, timeout=90)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.ok().body for a in answers] == [b"%d" % i * 10_000 for i in range(6)]


# --- faults ---------------------------------------------------------------------------------------


def healthy(real):
    deploy(real, "hello")
    real.call("hello", timeout=60).ok()


def test_crash_is_502_with_the_address(real):
    deploy(real, "crash")
    problem = real.call("crash", timeout=60).problem(502)
    assert problem["exit"]["kind"] == "fault"
    assert int(problem["exit"]["fault"]["address"], 16) == 0x10
    assert int(problem["exit"]["fault"]["rip"], 16) >= 0x200000
    assert "writing to 0x10" in problem["log_tail"]
    deploy(real, "crash", args=["0x7fff00000000"])
    assert (
        int(real.call("crash", timeout=60).problem(502)["exit"]["fault"]["address"], 16)
        == 0x7FFF00000000
    )
    healthy(real)


def test_spin_is_504(real):
    deploy(real, "spin", timeout_ms=1000)
    begun = time.monotonic()
    assert real.call("spin", timeout=60).problem(504)["outcome"] == "timed-out"
    assert time.monotonic() - begun >= 1
    wait_for(lambda: not [i for i in real.instances() if i["function"] == "spin"], "its VM is gone")
    healthy(real)


def test_hog_is_502(real):
    deploy(real, "hog")
    problem = real.call("hog", timeout=60).problem(502)
    assert problem["exit"]["kind"] in ("fault", "limit")
    healthy(real)


def test_flood_ends_at_the_limit_of_size_or_time(real):
    deploy(real, "flood", timeout_ms=3000)
    try:
        assert real.call("flood", timeout=120).status in (502, 504)
    except (harness.http.client.IncompleteRead, ConnectionResetError):
        pass
    wait_for(
        lambda: not [i for i in real.instances() if i["function"] == "flood"], "its VM is gone"
    )
    healthy(real)


def test_killed_qemu_is_502_and_the_pool_heals(real):
    deploy(real, "spin", timeout_ms=60000)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(real.call("spin", timeout=90)))
    caller.start()
    mine = wait_for(
        lambda: [
            i
            for i in real.instances()
            if i["function"] == "spin" and i["state"] == "running" and i["pid"]
        ],
        "it runs",
        60,
    )[0]
    os.kill(mine["pid"], signal.SIGKILL)
    caller.join(60)
    assert answers[0].problem(502)["exit"]["kind"] == "lost"
    healthy(real)


def test_killed_shells_are_replaced(real):
    shells = wait_for(
        lambda: [i for i in real.instances() if i["state"] == "idle" and i["pid"]],
        "shells wait",
        60,
    )
    for shell in shells:
        with contextlib.suppress(ProcessLookupError):  # let go meanwhile
            os.kill(shell["pid"], signal.SIGKILL)
    healthy(real)
    gone = {s["id"] for s in shells}
    wait_for(lambda: not gone & {i["id"] for i in real.instances()}, "the dead shells are gone", 60)


def test_client_that_leaves_takes_its_vm_with_it(real):
    deploy(real, "spin", timeout_ms=60000)
    sock = real.raw()
    sock.sendall(b"GET /fn/spin HTTP/1.1\r\nHost: localhost\r\n\r\n")
    pid = wait_for(
        lambda: [i["pid"] for i in real.instances() if i["function"] == "spin" and i["pid"]],
        "it runs",
        60,
    )[0]
    sock.close()
    wait_for(lambda: is_gone(pid), "its QEMU is gone", 60)


# --- unid itself is killed ------------------------------------------------------------------------


def test_kill_of_unid_leaves_no_qemu_after_the_next_start(make_unid):
    unid = make_unid(driver="libvirt", flags=["--set", "pool.min=2"]).start()
    warm(unid)
    deploy(unid, "hello")
    deploy(unid, "spin", timeout_ms=600000)
    unid.call("hello", timeout=60).ok()
    sock = unid.raw()
    sock.sendall(b"GET /fn/spin HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_for(
        lambda: [
            i for i in unid.instances() if i["function"] == "spin" and i["state"] == "running"
        ],
        "it runs",
        60,
    )
    before = wait_for(lambda: len(qemu_pids(unid)) >= 2 and qemu_pids(unid), "shells wait too", 60)
    unid.kill()
    sock.close()
    unid.start()
    unid.call("hello", timeout=60).ok()
    wait_for(lambda: all(map(is_gone, before)), "what was left over is removed", 60)
    after = qemu_pids(unid)
    assert unid.stop(60) == 0
    assert all(map(is_gone, after))


def test_idle_daemon_has_no_vm_and_little_memory(make_unid):
    unid = make_unid(driver="libvirt", flags=["--set", "pool.min=0"]).start()
    unid.get("/healthz").ok()
    assert not qemu_pids(unid) and unid.instances() == []
    assert unid.resident_kib("VmRSS") <= 15 * 1024
