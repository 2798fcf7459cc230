"""The examples in real virtual machines, through the kvm driver: what they answer, how they fail, what
VMs that are put back remember, what is left when they or unid are killed."""

import contextlib
import hashlib
import os
import signal
import threading
import time

import pytest

import harness
from harness import EXAMPLES, is_gone, timing, wait_for

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(
        not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened"
    ),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not (EXAMPLES / "hello").exists():
        pytest.skip(f"there are no examples in {EXAMPLES}")
    with harness.Daemon(
        tmp_path_factory.mktemp("unid"), driver="kvm", flags=["--set", "pool.min=2"]
    ) as daemon:
        yield daemon


def put(daemon, example, name=None, args=(), **config):
    digest = daemon.push((EXAMPLES / example).read_bytes())
    body = {"image": digest, "args": list(args), "memory_mib": 16, "timeout_ms": 20000, **config}
    return daemon.put(f"/api/v1/functions/{name or example}", body)


def deploy(daemon, example, name=None, args=(), **config):
    return put(daemon, example, name, args, **config).ok(200, 201).json


def receipt_of(daemon, answer):
    return daemon.receipt(answer.headers["X-Unid-Invocation-Id"])


def of_function(daemon, name, state=None):
    return [
        i for i in daemon.instances() if i["function"] == name and state in (None, i["state"])
    ]


def monitors(daemon_pid):
    """Every unid-vmm that descends from this unid."""
    parents, names = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = open(f"/proc/{entry}/stat", encoding="utf-8").read()
            except OSError:
                continue
            names[int(entry)] = stat[stat.index("(") + 1 : stat.rindex(")")]
            parents[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
    found = set()
    for pid, name in names.items():
        above = pid
        while above in parents and above != daemon_pid:
            above = parents[above]
        if above == daemon_pid and name.startswith("unid-vmm"):
            found.add(pid)
    return found


def healthy(real):
    deploy(real, "hello")
    real.call("hello").ok()


# --- answers --------------------------------------------------------------------------------------


def test_hello_answers_from_a_vm_of_its_own(real):
    deploy(real, "hello")
    answers = [real.call("hello").ok() for _ in range(5)]
    assert {a.body for a in answers} == {b"hello from hello\n"}
    receipts = [receipt_of(real, a) for a in answers]
    assert all(r["driver"] == "kvm" and r["fresh"] and r["outcome"] == "ok" for r in receipts)
    assert {"queue", "start", "run"} <= set(timing(answers[0]))


def test_two_names_of_one_image_do_not_share_what_they_were_called_by(real):
    deploy(real, "hello", "hello-one")
    deploy(real, "hello", "hello-two")
    assert real.call("hello-one").ok().body == b"hello from hello-one\n"
    assert real.call("hello-two").ok().body == b"hello from hello-two\n"


@pytest.mark.parametrize("isolation", ["vm", "reset"])
def test_echo_returns_bytes_unchanged(real, isolation):
    deploy(real, "echo", isolation=isolation)
    for size in (0, 1, 65536, 1_000_003):
        body = os.urandom(size)
        assert real.call("echo", body).ok().body == body


def test_sha256_of_a_body_four_times_the_vms_memory(real):
    deploy(real, "sha256", timeout_ms=60000)
    block = os.urandom(1 << 20)
    whole = hashlib.sha256(block * 64).hexdigest()
    before = real.resident_kib("VmRSS")
    for headers in ({"Content-Length": str(64 << 20)}, {"Transfer-Encoding": "chunked"}):
        answer = real.call("sha256", (block for _ in range(64)), headers=headers, timeout=90)
        assert answer.ok().body.split()[0].decode() == whole
    assert real.resident_kib("VmHWM") < before + 24 * 1024


def test_arguments_and_environment_arrive(real):
    deploy(real, "env", args=["one", "two words"], env={"KEY": "value"})
    text = real.post("/fn/env/a/b?q=1", b"x", headers={"X-Mine": "1"}).ok().body.decode()
    assert "argv[1]=one\n" in text and "argv[2]=two words\n" in text and "env KEY=value\n" in text
    assert "POST /a/b?q=1\n" in text and "x-mine: 1\n" in text.lower()


@pytest.mark.parametrize("isolation", ["vm", "reset"])
def test_several_at_once(real, isolation):
    deploy(real, "echo", concurrency=8, isolation=isolation)
    answers = [None] * 16

    def call(i):
        answers[i] = real.call("echo", b"%d" % i * 10_000)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(answers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.ok().body for a in answers] == [b"%d" % i * 10_000 for i in range(len(answers))]


# --- snapshots and VMs that are put back ----------------------------------------------------------


@pytest.mark.parametrize("isolation", ["vm", "reset"])
def test_random_differs_in_every_request(real, isolation):
    deploy(real, "random", isolation=isolation)
    assert len({real.call("random").ok().body for _ in range(200)}) == 200


def test_reset_uses_one_vm_again_and_it_remembers_nothing(real):
    deploy(real, "residue", isolation="reset")
    answers = []
    for _ in range(300):
        answers.append(real.call("residue").ok())
        # An answer may be sent before its VM is back: another would be used.
        wait_for(lambda: of_function(real, "residue", "warm"), "it is kept")
    assert {a.body for a in answers} == {b"clean\n"}
    assert [receipt_of(real, a)["fresh"] for a in answers] == [True] + 299 * [False]


def test_deploy_of_a_new_version_ends_the_vms_of_the_old(real):
    deploy(real, "hello", "anew", isolation="reset")
    real.call("anew").ok()
    old = {i["id"] for i in wait_for(lambda: of_function(real, "anew", "warm"), "it is kept")}
    deploy(real, "hello", "anew", isolation="reset", memory_mib=18)
    wait_for(lambda: not old & {i["id"] for i in real.instances()}, "they are gone")
    assert receipt_of(real, real.call("anew").ok())["fresh"]


def test_program_that_fails_before_it_asks_is_not_deployed(real):
    problem = put(real, "crash", "stillborn", args=["0x10", "early"]).problem(422)
    assert "before it asked for a request" in problem["detail"]
    assert "too early" in problem["log_tail"]
    real.get("/api/v1/functions/stillborn").problem(404)
    path = EXAMPLES / "crash"
    done = real.unictl("deploy", "stillborn", path, "--memory", "16M", "--", "0x10", "early")
    assert done.status != 0 and "too early" in done.err


def test_program_that_never_asks_is_refused_in_time(real):
    path = EXAMPLES / "spin"
    done = real.unictl("deploy", "eager", path, "--timeout", "300ms", "--", "early")
    assert done.status != 0 and "did not ask for a request in" in done.err
    problem = put(real, "spin", "eager", args=["early"], timeout_ms=300).problem(422)
    assert "did not ask for a request in" in problem["detail"]
    real.get("/api/v1/functions/eager").problem(404)


def test_every_example_is_deployed(real):
    for path in sorted(EXAMPLES.iterdir()):
        if path.is_file() and os.access(path, os.X_OK):
            real.unictl("deploy", f"all-{path.name}", path).ok()


def test_status_is_the_programs(real):
    real.unictl("deploy", "leaves", EXAMPLES / "status", "--", "exit", "3").ok()
    problem = real.call("leaves").problem(502)
    assert problem["exit"]["kind"] == "done" and problem["exit"]["status"] == 3
    assert "ending with status 3" in problem["log_tail"]
    deploy(real, "status", "teapot", args=["http", "418"])
    assert real.call("teapot").status == 418


def test_snapshot_survives_a_restart_of_unid(make_unid):
    unid = make_unid(driver="kvm").start()
    deploy(unid, "random")
    first = unid.call("random").ok().body
    assert unid.stop(60) == 0
    unid.start()
    assert len({first, unid.call("random").ok().body, unid.call("random").ok().body}) == 3


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["vm", "reset"])
def test_crash_is_502_with_the_address(real, isolation):
    deploy(real, "crash", isolation=isolation)
    problem = real.call("crash").problem(502)
    assert problem["exit"]["kind"] == "fault"
    assert int(problem["exit"]["fault"]["address"], 16) == 0x10
    assert int(problem["exit"]["fault"]["rip"], 16) >= 0x200000
    assert "writing to 0x10" in problem["log_tail"]
    assert not of_function(real, "crash", "warm")
    healthy(real)


def test_spin_is_504(real):
    deploy(real, "spin", timeout_ms=1000)
    begun = time.monotonic()
    assert real.call("spin").problem(504)["outcome"] == "timed-out"
    assert time.monotonic() - begun >= 1
    wait_for(lambda: not of_function(real, "spin"), "its VM is gone")
    healthy(real)


def test_hog_is_502(real):
    deploy(real, "hog")
    assert real.call("hog").problem(502)["exit"]["kind"] in ("fault", "limit")
    healthy(real)


def test_flood_ends_at_the_limit_of_size_or_time(real):
    deploy(real, "flood", timeout_ms=3000)
    try:
        assert real.call("flood", timeout=120).status in (502, 504)
    except (harness.http.client.IncompleteRead, ConnectionResetError):
        pass
    wait_for(lambda: not of_function(real, "flood"), "its VM is gone")
    healthy(real)


def test_killed_monitor_is_502_and_the_pool_heals(real):
    deploy(real, "spin", timeout_ms=60000)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(real.call("spin", timeout=90)))
    caller.start()
    mine = wait_for(lambda: of_function(real, "spin", "running"), "it runs", 60)[0]
    os.kill(mine["pid"], signal.SIGKILL)
    caller.join(60)
    assert answers[0].problem(502)["exit"]["kind"] == "lost"
    healthy(real)


def test_killed_shells_and_kept_vms_are_replaced(real):
    deploy(real, "hello", "kept", isolation="reset")
    real.call("kept").ok()
    wait_for(lambda: of_function(real, "kept", "warm"), "it is kept")
    waiting = [i for i in real.instances() if i["state"] in ("idle", "warm")]
    for one in waiting:
        with contextlib.suppress(ProcessLookupError):  # let go meanwhile
            os.kill(one["pid"], signal.SIGKILL)
    gone = {s["id"] for s in waiting}
    wait_for(lambda: not gone & {i["id"] for i in real.instances()}, "the dead are gone", 60)
    assert receipt_of(real, real.call("kept").ok())["fresh"]


def test_client_that_leaves_takes_its_vm_with_it(real):
    deploy(real, "spin", timeout_ms=60000)
    sock = real.raw()
    sock.sendall(b"GET /fn/spin HTTP/1.1\r\nHost: localhost\r\n\r\n")
    pid = wait_for(lambda: of_function(real, "spin", "running"), "it runs", 60)[0]["pid"]
    sock.close()
    wait_for(lambda: is_gone(pid), "its monitor is gone", 60)


# --- unid itself ends -----------------------------------------------------------------------------


def test_kill_of_unid_leaves_no_monitor(make_unid):
    unid = make_unid(driver="kvm", flags=["--set", "pool.min=2"]).start()
    deploy(unid, "spin", timeout_ms=600000)
    deploy(unid, "hello", isolation="reset")
    unid.call("hello").ok()
    sock = unid.raw()
    sock.sendall(b"GET /fn/spin HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_for(lambda: of_function(unid, "spin", "running"), "it runs", 60)
    before = wait_for(
        lambda: len(monitors(unid.process.pid)) >= 4 and monitors(unid.process.pid),
        "shells wait too",
    )
    unid.kill()
    sock.close()
    wait_for(lambda: all(is_gone(pid) for pid in before), "no monitor is left")
    unid.start()
    unid.call("hello").ok()


def test_idle_daemon_has_no_vm_after_a_while(make_unid):
    unid = make_unid(
        driver="kvm", flags=["--set", "pool.min=0", "--set", "pool.idle_ms=200"]
    ).start()
    deploy(unid, "hello", isolation="reset")
    for _ in range(5):
        unid.call("hello").ok()
    wait_for(lambda: unid.instances() == [], "all VMs are let go")


def test_pool_holds_eight_shells_unless_told_otherwise(make_unid):
    unid = make_unid(driver="kvm").start()
    wait_for(lambda: [i["state"] for i in unid.instances()] == ["idle"] * 8, "the pool is full")
