"""The life of services: machines that are kept, versions that never become ready, hand-over from one version to
the next, ends of machines, their consoles. With the test kernel of tests/guests, over taps in a network
namespace of the daemon's own."""

import json
import subprocess
import threading
import time

import pytest

import harness
import netns
from harness import BUILD

pytestmark = pytest.mark.libvirt

KERNEL = BUILD / "tests/guests/netkernel.elf"
WAKE_S = 60  # libvirt, on a busy machine


@pytest.fixture(scope="module")
def make_daemon(tmp_path_factory):
    return lambda *flags, **more: netns.tapped(tmp_path_factory.mktemp("unid"), flags, **more)


@pytest.fixture(scope="module")
def daemon(make_daemon):
    with make_daemon() as daemon:
        yield daemon


def deploy(daemon, name, append="", **machine):
    digest = daemon.post("/api/v1/images", KERNEL.read_bytes(), unix=True).ok(200, 201).json["digest"]
    machine = {
        "append": "ip={ip}/{prefix} port={port} " + append,
        "port": 8080,
        "service": True,
        **machine,
    }
    body = {"image": digest, "memory_mib": 64, "timeout_ms": WAKE_S * 1000, "machine": machine}
    return daemon.put(f"/api/v1/functions/{name}", body, unix=True).ok(200, 201).json


def get(daemon, path):
    return daemon.get(f"/fn/{path}", unix=True, timeout=WAKE_S)


def machines(daemon, name, state=None):
    items = daemon.get("/api/v1/instances", unix=True).ok(200).json["items"]
    return [
        i for i in items if i["function"] == name and (state is None or i["state"] == state)
    ]


def until(what, seconds=WAKE_S):
    harness.wait_for(what, "it comes to that", seconds)


def function(daemon, name, qualifier=None):
    query = f"?qualifier={qualifier}" if qualifier else ""
    return daemon.get(f"/api/v1/functions/{name}{query}", unix=True).ok(200).json


def logs(daemon, name):
    return daemon.get(f"/api/v1/functions/{name}/logs", unix=True).ok(200).json["items"]


def remove(daemon, name):
    daemon.delete(f"/api/v1/functions/{name}", unix=True)
    until(lambda: not machines(daemon, name))


def test_machines_are_kept_from_the_deploy_on(daemon):
    assert deploy(daemon, "kept", min_instances=1, idle_timeout_ms=200)["ready_at"] is None
    until(lambda: machines(daemon, "kept", "ready"))
    first = machines(daemon, "kept")[0]
    assert first["driver"] == "machine" and first["version"] == 1 and first["in_flight"] == 0
    until(lambda: function(daemon, "kept")["ready_at"])
    assert get(daemon, "kept/count").ok(200).body == b"0\n"
    time.sleep(1)
    assert get(daemon, "kept/count").ok(200).body == b"1\n"  # the same machine
    deploy(daemon, "kept", append="second", min_instances=1)
    until(lambda: [m["version"] for m in machines(daemon, "kept", "ready")] == [2])
    until(lambda: {m["version"] for m in machines(daemon, "kept")} == {2})
    remove(daemon, "kept")


def test_metrics_count_what_is_listed(daemon):
    def counted():
        lines = daemon.get("/metrics", unix=True).ok(200).body.decode().splitlines()
        return {l.rsplit(" ", 1)[0]: int(l.rsplit(" ", 1)[1]) for l in lines if l.startswith(("unid_inst", "unid_driver"))}

    def listed(state):
        items = daemon.get("/api/v1/instances", unix=True).ok(200).json["items"]
        return len([i for i in items if i["state"] == state])

    machine = '{driver="machine"}'
    before = counted()
    deploy(daemon, "measured", min_instances=1, idle_timeout_ms=60000)
    until(lambda: machines(daemon, "measured", "ready"))
    hanging = [threading.Thread(target=lambda: get(daemon, "measured/hang")) for _ in range(2)]
    for t in hanging:
        t.start()
    until(lambda: counted()["unid_driver_calls" + machine] == before["unid_driver_calls" + machine] + 2)
    # The requests are no machines; the one that stands by may be there or not yet.
    states = ["making", "paused", "starting", "ready"]
    until(lambda: all(counted()[f'unid_instances{{state="{s}"}}'] == listed(s) for s in states))
    assert counted()['unid_instances{state="running"}'] == before['unid_instances{state="running"}']
    for m in machines(daemon, "measured"):
        daemon.delete(f"/api/v1/instances/{m['id']}", unix=True)
    for t in hanging:
        t.join()
    remove(daemon, "measured")


def test_machines_are_kept_from_the_start_on(make_daemon):
    daemon = make_daemon().start()
    deploy(daemon, "kept", min_instances=1)
    deploy(daemon, "woken")
    until(lambda: machines(daemon, "kept", "ready"))
    daemon.kill()
    daemon.start()
    until(lambda: machines(daemon, "kept", "ready"))
    assert not machines(daemon, "woken")
    daemon.end()


def test_a_version_that_never_is_ready_is_rolled_back(daemon):
    deploy(daemon, "web")
    hello = get(daemon, "web/").ok(200).body
    assert hello.startswith(b"hello")
    stream = daemon.connection(unix=True, timeout=WAKE_S)
    stream.request("GET", "/api/v1/watch?kinds=function")
    events = stream.getresponse()
    assert events.readline().startswith(b"retry")
    deploy(daemon, "web", append="crash")
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(get(daemon, "web/").status))
        for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == [200] * 4  # by the version before
    told = json.loads(next(l for l in events if b'"rolled-back"' in l).split(b" ", 1)[1])
    stream.close()
    assert (told["function"], told["version"], told["from"]) == ("web", 1, 2)
    assert "triple fault" in told["reason"]
    assert function(daemon, "web")["version"] == 1
    bad = function(daemon, "web", "2")
    assert "triple fault" in bad["failure"] and bad["ready_at"] is None
    assert "never became ready" in daemon.log()
    listed = daemon.get("/api/v1/functions/web/versions", unix=True).ok(200).json["items"]
    assert [v["failure"] is None for v in listed] == [False, True]
    # Who asks for it by its number gets what it is.
    assert "triple fault" in get(daemon, "web:2/").problem(502)["detail"]
    # By hand it gets another chance, which it does not take.
    daemon.put("/api/v1/functions/web/aliases/live", {"version": 2}, unix=True).ok(200)
    assert function(daemon, "web")["failure"] is None
    get(daemon, "web/").ok(200)
    assert function(daemon, "web")["version"] == 1
    remove(daemon, "web")


def test_without_a_version_before_it_fails(daemon):
    deploy(daemon, "alone", append="halt", ready_timeout_ms=300)
    problem = get(daemon, "alone/").problem(502)
    assert "port 8080 did not answer within 300 ms" in problem["detail"]
    assert "did not answer" in function(daemon, "alone")["failure"]
    failed = [l for l in daemon.log().splitlines() if "machine failed" in l and '"alone"' in l]
    assert len(failed) == 3, failed
    remove(daemon, "alone")


def test_the_old_version_serves_what_it_has_and_goes(daemon):
    deploy(daemon, "over")
    get(daemon, "over/").ok(200)
    old = threading.Thread(target=lambda: get(daemon, "over/bytes/60000000").ok(200))
    old.start()
    until(lambda: any(m["in_flight"] for m in machines(daemon, "over")) or not old.is_alive())
    deploy(daemon, "over", append="second")
    assert get(daemon, "over/count").ok(200).body == b"0\n"
    old.join()
    until(lambda: {m["version"] for m in machines(daemon, "over")} <= {2})
    remove(daemon, "over")


class Count:
    """How many machines of a function exist at once, at most."""

    def __init__(self, daemon, name):
        self.daemon, self.name, self.most, self.over = daemon, name, 0, False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over:
            self.most = max(self.most, len(machines(self.daemon, self.name)))
            time.sleep(0.01)

    def end(self):
        self.over = True
        self.thread.join()
        return self.most


def test_one_machine_at_a_time_has_a_volume(daemon):
    daemon.put("/api/v1/volumes/handed", {"size_mib": 1}, unix=True).ok(201)
    deploy(daemon, "writer", volumes=["handed"], min_instances=1)
    count = Count(daemon, "writer")
    text = b"written by the first".ljust(512, b".")
    daemon.post("/fn/writer/disk/write/0/3", text, unix=True, timeout=WAKE_S).ok(200)
    old = threading.Thread(target=lambda: get(daemon, "writer/bytes/20000000").ok(200))
    old.start()
    deploy(daemon, "writer", append="second", volumes=["handed"], min_instances=1)
    assert get(daemon, "writer/disk/read/0/3").ok(200).body == text
    old.join()
    assert count.end() == 1
    assert {m["version"] for m in machines(daemon, "writer")} == {2}
    remove(daemon, "writer")
    daemon.delete("/api/v1/volumes/handed", unix=True).ok(204)


def test_an_open_connection_keeps_a_volume_for_some_time_only(daemon):
    daemon.put("/api/v1/volumes/db", {"size_mib": 1}, unix=True).ok(201)
    digest = daemon.post("/api/v1/images", KERNEL.read_bytes(), unix=True).ok(200, 201).json["digest"]

    def put(word):
        body = {
            "image": digest,
            "memory_mib": 64,
            "interface": "tcp",
            "publish": ["0"],
            "machine": {
                "append": "ip={ip}/{prefix} port={port} tcp=echo " + word,
                "port": 7777,
                "service": True,
                "volumes": ["db"],
            },
        }
        answer = daemon.put("/api/v1/functions/db", body, unix=True).ok(200, 201).json
        return int(answer["ports"][0]["address"].rsplit(":", 1)[1])

    def connect(port):
        s = netns.connect(daemon.process.pid, ("127.0.0.1", port), WAKE_S)
        s.sendall(b"hello")
        assert s.recv(5) == b"hello"
        return s

    first = connect(put("first"))
    begun = time.monotonic()
    with connect(put("second")):
        assert time.monotonic() - begun > 5
        assert {m["version"] for m in machines(daemon, "db", "ready")} == {2}
    try:
        assert first.recv(1) == b""
    except ConnectionResetError:
        pass
    first.close()
    remove(daemon, "db")
    daemon.delete("/api/v1/volumes/db", unix=True).ok(204)


def test_a_shutdown_is_no_failure(daemon):
    deploy(daemon, "off")
    assert get(daemon, "off/off").ok(200).body == b"off\n"
    until(lambda: not machines(daemon, "off", "ready"))
    assert get(daemon, "off/count").ok(200).body == b"0\n"
    told = [e["message"] for e in daemon.log_events() if e.get("service") == "off"]
    assert told == ["machine shut itself down"]
    remove(daemon, "off")


def test_a_crash_is_told_as_one(daemon):
    deploy(daemon, "crashy")
    get(daemon, "crashy/").ok(200)
    answer = get(daemon, "crashy/crash")
    problem = answer.problem(502)
    assert "the function's machine crashed: the machine ended: it reset itself" in problem["detail"]
    assert "its last words: netkernel: crashes, as it was asked" in problem["detail"]
    id = answer.headers["X-Unid-Invocation-Id"]
    until(lambda: daemon.get(f"/api/v1/invocations/{id}", unix=True).status == 200)
    receipt = daemon.get(f"/api/v1/invocations/{id}", unix=True).ok(200).json
    assert receipt["exit_reason"] == "fault" and "reset itself" in receipt["error"]
    remove(daemon, "crashy")


def test_a_lost_machine_is_told_as_one(daemon):
    deploy(daemon, "lost")
    get(daemon, "lost/").ok(200)
    answers = []
    hanging = threading.Thread(target=lambda: answers.append(get(daemon, "lost/hang")))
    hanging.start()
    until(lambda: any(m["in_flight"] for m in machines(daemon, "lost")))
    pid = next(m["pid"] for m in machines(daemon, "lost") if m["in_flight"])
    subprocess.run(["kill", "-9", str(pid)], check=True)
    hanging.join()
    assert "QEMU went away" in answers[0].problem(502)["detail"]
    remove(daemon, "lost")


def test_the_console_says_when_it_is_ready(daemon):
    deploy(daemon, "talker", ready_console="netkernel: listening")
    assert get(daemon, "talker/").ok(200).body.startswith(b"hello")
    deploy(daemon, "mute", ready_console="never said", ready_timeout_ms=500)
    problem = get(daemon, "mute/").problem(502)
    assert 'its console did not say "never said" within 500 ms' in problem["detail"]
    remove(daemon, "talker")
    remove(daemon, "mute")


def test_console_lines_are_logs(daemon):
    deploy(daemon, "chatty")
    get(daemon, "chatty/log/first-words").ok(200)
    until(lambda: any(l["text"] == "first-words" for l in logs(daemon, "chatty")))
    lines = logs(daemon, "chatty")
    assert {"netkernel: started", "netkernel: listening"} <= {l["text"] for l in lines}
    assert all(l["invocation_id"] is None for l in lines)
    time.sleep(3)  # by then they are on disk
    assert logs(daemon, "chatty") == lines
    remove(daemon, "chatty")
    deploy(daemon, "once", service=False)
    answer = get(daemon, "once/log/only-words").ok(200)
    id = answer.headers["X-Unid-Invocation-Id"]
    until(lambda: any(l["text"] == "only-words" for l in logs(daemon, "once")))
    assert {l["invocation_id"] for l in logs(daemon, "once")} == {id}
    assert "netkernel: started" in {l["text"] for l in logs(daemon, "once")}
    remove(daemon, "once")


def test_a_machine_can_be_ended(daemon):
    deploy(daemon, "ended")
    get(daemon, "ended/").ok(200)
    machine = machines(daemon, "ended", "ready")[0]
    table = daemon.unictl("ps").ok().text
    assert machine["id"] in table and "ready" in table
    daemon.delete(f"/api/v1/instances/{machine['id']}", unix=True).ok(204)
    until(lambda: machine["id"] not in [m["id"] for m in machines(daemon, "ended")])
    daemon.delete(f"/api/v1/instances/{machine['id']}", unix=True).problem(404)
    assert get(daemon, "ended/count").ok(200).body == b"0\n"
    remove(daemon, "ended")


def test_requests_wait_for_a_machine_in_bounded_number(make_daemon):
    daemon = make_daemon("--set", "limits.queue_per_function=2").start()
    digest = daemon.post("/api/v1/images", KERNEL.read_bytes(), unix=True).ok(201).json["digest"]
    machine = {"append": "ip={ip}/{prefix} port={port} delay=3000", "port": 8080, "service": True}
    body = {
        "image": digest,
        "concurrency": 1,
        "memory_mib": 64,
        "timeout_ms": WAKE_S * 1000,
        "machine": machine,
    }
    daemon.put("/api/v1/functions/slow", body, unix=True).ok(201)
    clients = [daemon.connection(unix=True, timeout=WAKE_S) for _ in range(6)]
    with daemon.stopped():
        for c in clients:
            c.request("GET", "/fn/slow/")
    answers = [c.getresponse() for c in clients]
    assert sorted(a.status for a in answers) == [200] * 3 + [429] * 3
    assert all(a.headers["Retry-After"] for a in answers if a.status == 429)
    for c in clients:
        c.close()
    daemon.end()


def test_over_the_user_network_too(tmp_path):
    daemon = harness.Daemon(tmp_path, driver="fake", flags=["--set", "machines.network=user"])
    daemon.start()
    deploy(daemon, "web")
    hello = get(daemon, "web/").ok(200).body
    deploy(daemon, "web", append="crash")
    assert get(daemon, "web/").ok(200).body == hello  # by the version before
    assert function(daemon, "web")["version"] == 1
    assert "triple fault" in function(daemon, "web", "2")["failure"]
    daemon.end()
