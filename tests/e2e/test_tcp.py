"""Services that speak a protocol of their own, on ports that unid publishes for them: the test kernel of
tests/guests with tcp=echo, over taps in a network namespace of the daemon's own. What wakes it, how bytes
and ends go both ways, what keeps it awake, how it fails."""

import pathlib
import re
import socket
import threading
import time

import pytest

import harness
import netns
from harness import BUILD, wait_for
from test_machines import asleep

pytestmark = pytest.mark.libvirt

KERNEL = BUILD / "tests/guests/netkernel.elf"
WAKE_S = 60  # libvirt, on a busy machine


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with netns.tapped(tmp_path_factory.mktemp("unid")) as daemon:
        yield daemon


@pytest.fixture
def drain_s():
    """How long a daemon of the test's own may drain, unless the test is given another time: longer than its end is
    waited for."""
    return 10 * WAKE_S


@pytest.fixture
def own(tmp_path, drain_s, daemon):  # after `daemon`, which skips where it cannot be
    one = netns.tapped(tmp_path, ["--set", f"drain_timeout_ms={drain_s * 1000}"]).start()
    yield one
    one.stop(WAKE_S)


def push(daemon, image):
    return daemon.post("/api/v1/images", image, unix=True).ok(200, 201).json["digest"]


def config(daemon, append="tcp=echo", publish=("0",), interface="tcp", timeout_ms=WAKE_S * 1000, **machine):
    machine = {
        "append": "ip={ip}/{prefix} port={port} " + append,
        "port": 7777,
        "service": True,
        **machine,
    }
    return {
        "image": push(daemon, KERNEL.read_bytes()),
        "memory_mib": 64,
        "timeout_ms": timeout_ms,
        "interface": interface,
        "publish": list(publish),
        "machine": machine,
    }


def deploy(daemon, name, **more):
    """Deploys, and gives the port that was chosen."""
    body = config(daemon, **more)
    function = daemon.put(f"/api/v1/functions/{name}", body, unix=True).ok(200, 201).json
    return int(function["ports"][0]["address"].rsplit(":", 1)[1])


def connect(daemon, port):
    return netns.connect(daemon.process.pid, ("127.0.0.1", port), WAKE_S)


def receive(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(65536)
        if not piece:
            break
        data += piece
    return data


def to_the_end(s):
    data = b""
    while piece := s.recv(65536):
        data += piece
    return data


def receipts(daemon, name):
    return daemon.get(f"/api/v1/invocations?function={name}", unix=True).ok(200).json["items"]


def machines(daemon, name, state=None):
    items = daemon.get("/api/v1/instances", unix=True).ok(200).json["items"]
    return [i for i in items if i["function"] == name and state in (None, i["state"])]


def wait_receipts(daemon, name, count):
    def written():
        items = receipts(daemon, name)
        return len(items) >= count and items

    return wait_for(written, f"{count} receipts of {name}")


def test_a_connection_wakes_the_machine_and_bytes_go_both_ways(daemon):
    port = deploy(daemon, "echo")
    with connect(daemon, port) as s:
        s.sendall(b"hello")
        assert receive(s, 5) == b"hello"
        s.sendall(b"again" * 500)
        assert receive(s, 2500) == b"again" * 500
        s.shutdown(socket.SHUT_WR)
        assert to_the_end(s) == b""
    receipt = wait_receipts(daemon, "echo", 1)[0]
    assert receipt["trigger"] == "tcp" and receipt["outcome"] == "ok", receipt
    assert receipt["bytes_in"] == receipt["bytes_out"] == 2505


def test_a_machine_that_speaks_first_is_heard(daemon):
    port = deploy(daemon, "greet", append="tcp=greet")
    with connect(daemon, port) as s:
        assert receive(s, 17) == b"netkernel greets\n"
        s.sendall(b"x")
        assert receive(s, 1) == b"x"


def test_what_was_sent_at_once_is_answered_behind_the_end(daemon):
    port = deploy(daemon, "echo")
    with connect(daemon, port) as s:
        s.sendall(b"question")
        s.shutdown(socket.SHUT_WR)
        assert to_the_end(s) == b"question"


def test_the_machine_may_end_first(daemon):
    port = deploy(daemon, "ends-first")
    with connect(daemon, port) as s:
        s.sendall(b"close")
        assert to_the_end(s) == b"close"
        s.sendall(b"still heard" * 1000)
        s.shutdown(socket.SHUT_WR)
    receipt = wait_receipts(daemon, "ends-first", 1)[0]
    assert receipt["outcome"] == "ok" and receipt["bytes_in"] == 11005, receipt


def test_a_slow_reader_holds_the_machine_back(daemon):
    port = deploy(daemon, "echo")
    with connect(daemon, port) as s:
        s.sendall(b"bytes 3000000")
        time.sleep(1)
        got = 0
        while got < 3000000:
            got += len(s.recv(65536))
        assert got == 3000000
        s.sendall(b"end")
        assert receive(s, 3) == b"end"


def open_connections(daemon):
    metrics = daemon.get("/metrics", unix=True).ok(200).body.decode()
    return int(re.search(r"^unid_tcp_connections (\d+)$", metrics, re.M)[1])


def test_many_connections_share_the_machine(daemon):
    port = deploy(daemon, "echo")
    sockets = [connect(daemon, port) for _ in range(60)]
    for i, s in enumerate(sockets):
        s.sendall(b"%04d" % i)
    for i, s in enumerate(sockets):
        assert receive(s, 4) == b"%04d" % i
    wait_for(lambda: open_connections(daemon) == 60, "those of the tests before have ended")
    for s in sockets:
        s.close()
    wait_for(lambda: open_connections(daemon) == 0, "no connections are left")


def test_the_herd_wakes_one_machine(daemon):
    port = deploy(daemon, "herd", append="tcp=echo delay=300")
    answers = []

    def one():
        with connect(daemon, port) as s:
            s.sendall(b"me")
            answers.append(receive(s, 2))

    threads = [threading.Thread(target=one) for _ in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == [b"me"] * 10


def test_idle_means_no_open_connection(daemon):
    port = deploy(daemon, "sleepy", idle_timeout_ms=300)

    def woken():
        """How often a machine has come up."""
        lines = daemon.get("/api/v1/functions/sleepy/logs", unix=True).ok(200).json["items"]
        return [line["text"] for line in lines].count("netkernel: listening")

    with connect(daemon, port) as s:
        s.sendall(b"one")
        assert receive(s, 3) == b"one"
        wait_for(lambda: woken() == 1, "its console has come")
        time.sleep(2)  # silent, and open
        s.sendall(b"two")
        assert receive(s, 3) == b"two"
    assert woken() == 1
    asleep(daemon, "sleepy")  # closed, it goes
    with connect(daemon, port) as s:
        s.sendall(b"three")
        assert receive(s, 5) == b"three"
    wait_for(lambda: woken() == 2, "its console has come")


def test_a_machine_that_dies_resets_its_connections(daemon):
    port = deploy(daemon, "mortal")
    other = connect(daemon, port)
    other.sendall(b"x")
    assert receive(other, 1) == b"x"
    with connect(daemon, port) as s:
        s.sendall(b"crash")
        with pytest.raises(ConnectionResetError):
            s.recv(1)
    with pytest.raises(ConnectionResetError):
        other.recv(1)
    failed = [r for r in wait_receipts(daemon, "mortal", 2) if r["outcome"] == "failed"]
    assert len(failed) == 2 and "the machine ended" in failed[0]["error"], failed
    with connect(daemon, port) as s:  # and the next is served
        s.sendall(b"y")
        assert receive(s, 1) == b"y"


def test_a_machine_that_never_listens_resets_the_connection(daemon):
    port = deploy(daemon, "deaf", append="tcp=echo halt", ready_timeout_ms=700)
    with connect(daemon, port) as s:
        s.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            s.recv(1)


def test_the_time_limit_is_for_waking_not_for_talking(daemon):
    port = deploy(daemon, "brief", timeout_ms=3000, append="tcp=echo delay=100", min_instances=1)
    wait_for(lambda: machines(daemon, "brief", "ready"), "it is awake", WAKE_S)
    with connect(daemon, port) as s:
        s.sendall(b"a")
        assert receive(s, 1) == b"a"
        time.sleep(4)
        s.sendall(b"b")
        assert receive(s, 1) == b"b"
    port = deploy(daemon, "slow", timeout_ms=500, append="tcp=echo delay=8000")
    with connect(daemon, port) as s:
        with pytest.raises(ConnectionResetError):
            s.recv(1)
    assert wait_receipts(daemon, "slow", 1)[0]["outcome"] == "timed-out"


def test_a_client_that_leaves_is_noticed(daemon):
    port = deploy(daemon, "leaves")
    s = connect(daemon, port)
    s.sendall(b"x")
    assert receive(s, 1) == b"x"
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()  # a reset
    receipt = wait_receipts(daemon, "leaves", 1)[0]
    assert receipt["outcome"] == "cancelled", receipt


def test_http_is_told_where_to_connect(daemon):
    port = deploy(daemon, "echo")
    problem = daemon.get("/fn/echo/", unix=True).problem(421)
    assert problem["outcome"] == "wrong-interface" and "not HTTP" in problem["detail"]
    assert port


def test_http_functions_have_ports_of_their_own(daemon):
    port = deploy(daemon, "web", append="", interface="http")
    body = b""
    with connect(daemon, port) as s:
        s.sendall(b"GET /bytes/5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        body = to_the_end(s)
    head, _, rest = body.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and rest == b"xxxxx", body
    assert b"X-Unid-Invocation-Id" in head


def test_a_port_belongs_to_one_function(daemon):
    port = deploy(daemon, "first", publish=["0"])
    taken = daemon.get("/api/v1/functions/first", unix=True).ok(200).json["ports"][0]["address"]
    body = config(daemon, publish=[taken])
    problem = daemon.put("/api/v1/functions/second", body, unix=True).problem(409)
    assert "first" in problem["detail"] and str(port) in problem["detail"], problem
    daemon.get("/api/v1/functions/second", unix=True).problem(404)


def test_ports_follow_the_live_version(daemon):
    port = deploy(daemon, "moving")
    fixed = f"127.0.0.1:{port}"
    deploy(daemon, "moving", publish=["0", "127.0.0.2:0"])
    ports = daemon.get("/api/v1/functions/moving", unix=True).ok(200).json["ports"]
    assert ports[0]["address"] == fixed and len(ports) == 2
    second = int(ports[1]["address"].rsplit(":", 1)[1])
    netns.connect(daemon.process.pid, ("127.0.0.2", second)).close()
    daemon.post("/api/v1/functions/moving/rollback", {}, unix=True).ok(200)
    wait_for(lambda: refused(daemon, ("127.0.0.2", second)), "its port is closed")
    connect(daemon, port).close()
    daemon.delete("/api/v1/functions/moving", unix=True).ok(204)
    wait_for(lambda: refused(daemon, ("127.0.0.1", port)), "and this")


def refused(daemon, address):
    try:
        netns.connect(daemon.process.pid, address).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_makes_no_sense_is_refused(daemon):
    digest = push(daemon, KERNEL.read_bytes())
    for more, word in [
        ({"publish": ["web:80"]}, "address"),
        ({"publish": ["70000"]}, "port"),
        ({"publish": "80"}, "list"),
        ({"publish": ["81", "127.0.0.1:81"]}, "twice"),
        ({"interface": "tcp", "machine": {"port": 1}}, "service"),
    ]:
        problem = daemon.put("/api/v1/functions/bad", {"image": digest, **more}, unix=True).problem(400)
        assert word in problem["detail"], problem
    program = {"image": push(daemon, harness.sdk_image()), "interface": "tcp"}
    assert "machine" in daemon.put("/api/v1/functions/bad", program, unix=True).problem(400)["detail"]


def test_a_function_reaches_the_service_by_its_name(daemon):
    body = config(daemon, publish=[])
    daemon.put("/api/v1/functions/db", body, unix=True).ok(200, 201)
    caller = {
        "image": push(daemon, harness.sdk_image()),
        "args": ["net", "db.internal:7777", "ping"],
        "egress": ["db.internal:7777"],
        "timeout_ms": WAKE_S * 1000,
    }
    daemon.put("/api/v1/functions/caller", caller, unix=True).ok(200, 201)
    answer = daemon.get("/fn/caller", unix=True, timeout=WAKE_S).ok(200)
    assert answer.body == b"ping"
    receipt = wait_receipts(daemon, "db", 1)[0]
    assert receipt["trigger"] == "tcp" and receipt["bytes_in"] == 4, receipt
    caller["args"][1] = "db.internal:81"
    caller["egress"] = ["db.internal:81"]
    daemon.put("/api/v1/functions/caller", caller, unix=True).ok(200, 201)
    daemon.get("/fn/caller", unix=True, timeout=WAKE_S).problem(502)


def test_silent_connections_do_not_hold_the_end_up(own):
    port = deploy(own, "echo")
    with connect(own, port) as s:
        s.sendall(b"x")
        assert receive(s, 1) == b"x"
        assert own.stop(WAKE_S) == 0
        assert to_the_end_or_reset(s) == b""


def unread(daemon, port):
    """How many bytes of its clients at a port unid has not read (proc(5), /proc/PID/net/tcp)."""
    rows = pathlib.Path(f"/proc/{daemon.process.pid}/net/tcp").read_text().splitlines()[1:]
    ours = [row.split() for row in rows]
    queues = [row[4] for row in ours if row[1].endswith(f":{port:04X}") and row[3] == "01"]  # established
    assert queues
    return sum(int(queue.split(":")[1], 16) for queue in queues)


@pytest.mark.parametrize("drain_s", [3])
def test_what_waits_for_an_answer_has_until_the_drain_s_end(own, drain_s):
    port = deploy(own, "echo")
    with connect(own, port) as s:
        s.sendall(b"x")
        assert receive(s, 1) == b"x"
        s.sendall(b"hang")
        wait_for(lambda: unread(own, port) == 0, "it is on its way to the machine")
        began = time.monotonic()
        assert own.stop(WAKE_S) == 0
        assert time.monotonic() - began >= drain_s
        assert to_the_end_or_reset(s) == b""


def to_the_end_or_reset(s):
    try:
        return to_the_end(s)
    except ConnectionResetError:
        return b""


def test_ports_and_services_come_back_with_unid(own):
    port = deploy(own, "echo")
    own.put("/api/v1/functions/echo", config(own, publish=[f"127.0.0.2:{port}"]), unix=True).ok(200)
    own.kill()
    own.start()
    with netns.connect(own.process.pid, ("127.0.0.2", port), WAKE_S) as s:
        s.sendall(b"back")
        assert receive(s, 4) == b"back"


def test_over_the_user_network_none_of_many_is_lost(tmp_path):
    """QEMU takes few connections at once, and resets one that ends before its guest has it."""
    daemon = harness.Daemon(tmp_path, driver="fake", flags=["--set", "machines.network=user"])
    answers = []

    def one(port, number):
        with socket.create_connection(("127.0.0.1", port), WAKE_S) as s:
            s.sendall(b"%04d" % number)
            s.shutdown(socket.SHUT_WR)
            answers.append(to_the_end(s) == b"%04d" % number)

    with daemon:
        port = deploy(daemon, "echo")
        for _ in range(2):  # asleep, and awake
            threads = [threading.Thread(target=one, args=(port, n)) for n in range(100)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
    assert answers == [True] * 200
