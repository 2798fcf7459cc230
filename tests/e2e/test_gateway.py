"""Calls of functions, with the fake driver: bodies both ways, heads, statuses, waiting, leaving,
draining."""

import datetime
import re
import socket
import threading
import time

import pytest

import harness
from harness import closed, read_answer, timing, wait_for


def calls_at_once(daemon, name, count, body=b""):
    """Starts `count` calls; gives a function that waits for their answers."""
    answers = [None] * count

    def call(i):
        answers[i] = daemon.call(name, body)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()

    def join():
        for thread in threads:
            thread.join(harness.ANSWER_S)
        return answers

    return join


def running(daemon, name):
    return [i for i in daemon.instances() if i["function"] == name and i["state"] == "running"]


def waiting(daemon):
    """How many calls wait for a VM."""
    return int(re.search(r"^unid_waiting (\d+)$", daemon.get("/metrics").ok().body.decode(), re.M)[1])


def waiting_call(daemon, name, body=b""):
    """Sends a request on a plain connection and does not read its answer."""
    sock = daemon.raw()
    sock.sendall(
        b"POST /fn/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        % (name.encode(), len(body))
        + body
    )
    return sock


# --- heads ----------------------------------------------------------------------------------------


def test_every_answer_has_an_id_and_timing(shared, name):
    shared.deploy(name, "hello")
    shared.deploy(f"{name}x", "crash")
    for path in (f"/fn/{name}", f"/fn/{name}x", "/fn/nobody"):
        answer = shared.get(path)
        assert len(answer.headers["X-Unid-Invocation-Id"]) == 26
        assert {"queue", "start", "run"} <= set(timing(answer))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("path", ["", "/a/b"])
def test_every_method_reaches_the_function(shared, name, method, path):
    shared.deploy(name, "request")
    answer = shared.request(method, f"/fn/{name}{path}?q=1", headers={"X-Mine": "v"}).ok()
    if method == "HEAD":
        assert answer.body == b""
        return
    head = answer.body.decode()
    assert head.startswith(f"{method} {path or '/'}?q=1"), head
    assert "x-mine: v" in head.lower()


def test_fields_of_the_connection_stay_outside(shared, name):
    shared.deploy(name, "request")
    head = (
        shared.call(
            name,
            b"x",
            headers={
                "Connection": "X-Hop",
                "X-Hop": "1",
                "Keep-Alive": "5",
                "TE": "trailers",
                "X-Stays": "1",
            },
        )
        .ok()
        .body.decode()
        .lower()
    )
    assert "x-stays: 1" in head
    for field in ("x-hop:", "keep-alive:", "\nte:", "connection:", "transfer-encoding:"):
        assert field not in head


def test_host_is_that_of_an_absolute_target(shared, name):
    shared.deploy(name, "request")
    with shared.raw() as sock:
        target = b"http://real.test/fn/" + name.encode() + b"/x"
        sock.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n")
        body = read_answer(sock).ok().body.lower()
    assert b"host: real.test" in body and b"other.test" not in body


def test_functions_fields_and_status_are_passed_on(shared, name):
    shared.deploy(
        name,
        "status",
        "207",
        "X-Own: 1",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
        "Connection: close",
        "Transfer-Encoding: chunked",
        "X-Unid-Invocation-Id: forged",
    )
    answer = shared.call(name)
    assert answer.status == 207
    assert answer.headers["X-Own"] == "1"
    assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert answer.headers.get_all("X-Unid-Invocation-Id") != ["forged"]
    assert len(answer.headers.get_all("X-Unid-Invocation-Id")) == 1
    assert answer.headers["Connection"] is None


def test_arguments_and_environment_reach_the_function(shared, name):
    shared.deploy(name, "args", "one", "two words", "\u00e9")
    assert shared.call(name).ok().body.decode().splitlines()[-3:] == ["one", "two words", "\u00e9"]
    shared.deploy(name, "env", env={"B": "2", "A": "1=1"})
    assert [
        l for l in shared.call(name).ok().body.decode().splitlines() if l[:2] in ("A=", "B=")
    ] == ["A=1=1", "B=2"]


# --- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 262144, 262145, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_body_goes_in_and_out_unchanged(shared, name, size, chunked):
    shared.deploy(name, "echo")
    body = bytes(i * 7 & 0xFF for i in range(1000)) * (size // 1000 + 1)
    body = body[:size]
    if chunked:
        pieces = (body[i : i + 50_001] for i in range(0, size, 50_001))
        answer = shared.call(name, pieces, headers={"Transfer-Encoding": "chunked"})
    else:
        answer = shared.call(name, body)
    assert answer.ok().body == body


def test_body_streams_while_it_is_sent(shared, name):
    """The first bytes of the answer are there before the last of the request has been sent."""
    shared.deploy(name, "echo")
    sock = shared.raw()
    sock.sendall(
        b"POST /fn/%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n" % name.encode()
    )
    got = b""
    while b"hello" not in got:
        piece = sock.recv(4096)
        assert piece, got
        got += piece
    sock.sendall(b"5\r\nworld\r\n0\r\n\r\n")
    while b"world" not in got or not got.endswith(b"0\r\n\r\n"):
        piece = sock.recv(4096)
        assert piece, got
        got += piece
    sock.close()


def test_large_answer_does_not_gather_in_memory(unid):
    size = 200_000_000
    unid.deploy("f", "size", str(size))
    unid.deploy("warm", "size", "100000")
    unid.call("warm").ok()
    before = unid.resident_kib()
    connection = unid.connection()
    connection.request("GET", "/fn/f")
    response = connection.getresponse()
    time.sleep(0.3)  # unread meanwhile: a daemon without back-pressure would gather it now
    got = 0
    while piece := response.read(1 << 20):
        got += len(piece)
    assert got == size
    assert unid.resident_kib() - before < 48 * 1024
    connection.close()


def test_large_request_does_not_gather_in_memory(unid):
    size = 100_000_000
    unid.deploy("f", "count")
    unid.call("f", b"x" * 100_000).ok()
    before = unid.resident_kib()
    pieces = (b"x" * 1_000_000 for _ in range(size // 1_000_000))
    answer = unid.call("f", pieces, headers={"Content-Length": str(size)})
    assert answer.ok().body.strip() == str(size).encode()
    assert unid.resident_kib() - before < 48 * 1024


def test_request_over_the_limit_is_413(make_unid):
    unid = make_unid(flags=["--set", "limits.max_request_bytes=100000"]).start()
    unid.deploy("f", "count")
    assert unid.call("f", b"x" * 100_000).ok().body.strip() == b"100000"
    unid.call("f", b"x" * 100_001).problem(413)
    pieces = iter([b"x" * 60_000] * 2)
    unid.call("f", pieces, headers={"Transfer-Encoding": "chunked"}).problem(413)
    unid.post("/api/v1/functions/f/invocations", b"x" * 100_001).problem(413)


def test_answer_over_the_limit_is_502_or_cut(make_unid):
    unid = make_unid(flags=["--set", "limits.max_response_bytes=100000"]).start()
    unid.deploy("f", "size", "100000")
    assert len(unid.call("f").ok().body) == 100_000
    unid.deploy("g", "flood")
    try:
        unid.call("g").problem(502)
    except (harness.http.client.IncompleteRead, ConnectionResetError):
        pass
    wait_for(lambda: not running(unid, "g"), "the flood's VM is gone")
    unid.call("f").ok()


def test_expect_continue_is_answered_before_the_body(shared, name):
    shared.deploy(name, "echo")
    with shared.raw() as sock:
        sock.sendall(
            b"POST /fn/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Expect: 100-continue\r\n\r\n" % name.encode()
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        sock.sendall(b"hello")
        assert read_answer(sock).ok().body == b"hello"
        sock.sendall(
            b"POST /fn/nobody HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert read_answer(sock).status == 404


def test_connection_is_kept_and_pipelined(shared, name):
    shared.deploy(name, "echo")
    with shared.raw() as sock:
        sock.sendall(
            b"".join(
                b"POST /fn/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n%d"
                % (name.encode(), i)
                for i in range(8)
            )
        )
        file = sock.makefile("rb")
        for i in range(8):
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
            length = None
            while (line := file.readline()) != b"\r\n":
                field, value = line.split(b":", 1)
                if field.lower() == b"content-length":
                    length = int(value)
                assert field.lower() != b"transfer-encoding"
            assert file.read(length) == b"%d" % i
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert read_answer(sock).status == 200
        assert closed(sock)


def test_http_1_0_gets_a_whole_answer_and_is_closed(shared, name):
    shared.deploy(name, "size", "300000")
    with shared.raw() as sock:
        sock.sendall(b"GET /fn/%s HTTP/1.0\r\n\r\n" % name.encode())
        answer = read_answer(sock)
        assert len(answer.ok().body) == 300_000
        assert answer.headers["Transfer-Encoding"] is None
        assert closed(sock)


# --- failing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour, kind, word",
    [
        (["crash"], "fault", "fault"),
        (["exit", "3", "out of cheese"], "done", "3"),
        (["lost"], "lost", ""),
        (["protocol"], "protocol", ""),
        (["limit"], "limit", ""),
    ],
)
def test_failure_is_502_and_says_how(shared, name, behaviour, kind, word):
    shared.deploy(name, *behaviour)
    answer = shared.call(name)
    problem = answer.problem(502)
    assert problem["outcome"] == "failed" and problem["type"] == "/problems/failed"
    assert problem["exit"]["kind"] == kind and word in problem["detail"]
    assert problem["invocation_id"] == answer.headers["X-Unid-Invocation-Id"]
    assert problem["instance"].endswith(problem["invocation_id"])
    if behaviour[0] == "crash":
        assert int(problem["exit"]["fault"]["address"], 16) == 0 and problem["exit"]["fault"][
            "rip"
        ].startswith("0x")
    if behaviour[0] == "exit":
        assert problem["exit"]["status"] == 3 and "out of cheese" in problem["log_tail"]
    receipt = shared.receipt(problem["invocation_id"])
    assert (receipt["outcome"], receipt["status"], receipt["exit_reason"]) == ("failed", 502, kind)
    assert receipt["error"]


@pytest.mark.parametrize("behaviour", [["late-exit", "3"], ["late-crash"]])
def test_failure_after_the_answer_has_begun_cuts_the_connection(shared, name, behaviour):
    shared.deploy(name, *behaviour)
    with shared.raw() as sock:
        sock.sendall(b"GET /fn/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % name.encode())
        got = b""
        try:
            while piece := sock.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
        assert b" 200 " in got[:20] and b"partial\n" in got
        assert not got.endswith(b"0\r\n\r\n")
    receipt = wait_for(
        lambda: shared.get(f"/api/v1/invocations?function={name}").ok().json["items"], "the receipt"
    )[0]
    assert receipt["outcome"] == "failed"


def test_timeout_is_504(shared, name):
    shared.deploy(name, "spin", timeout_ms=200)
    begun = time.monotonic()
    problem = shared.call(name).problem(504)
    assert time.monotonic() - begun >= 0.2
    assert problem["outcome"] == "timed-out"
    assert shared.receipt(problem["invocation_id"])["outcome"] == "timed-out"
    wait_for(lambda: not running(shared, name), "its VM is gone")


def test_timeout_counts_from_the_start_of_the_run_not_of_the_wait(shared, name):
    shared.deploy(name, "sleep", "500", timeout_ms=3000, concurrency=1)
    answers = calls_at_once(shared, name, 8)()
    assert [a.status for a in answers] == [200] * 8


# --- waiting --------------------------------------------------------------------------------------


def unid_receipt(unid, answer):
    return unid.receipt(answer.headers["X-Unid-Invocation-Id"])


def most_at_once(receipts):
    """How many had a VM at the same time, by their receipts."""
    changes = []
    for receipt in receipts:
        phases = receipt["phases"]
        accepted = datetime.datetime.fromisoformat(receipt["started_at"])
        bound = phases["queue_us"] + phases["shell_us"]
        ran = sum(phases[f"{p}_us"] for p in ("bind", "start", "first_byte", "run"))
        microseconds = datetime.timedelta(microseconds=1)
        changes.append((accepted + bound * microseconds, 1))
        # A millisecond less, as wall clock and durations are taken one after the other.
        changes.append((accepted + (bound + ran - 1000) * microseconds, -1))
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def test_no_more_than_concurrency_run_at_once(shared, name, gate):
    gate.deploy(shared, name, concurrency=2)
    join = calls_at_once(shared, name, 6)
    wait_for(lambda: len(running(shared, name)) == 2, "two run")
    wait_for(lambda: waiting(shared) == 4, "four wait")
    assert len(running(shared, name)) == 2
    gate.open()
    answers = join()
    assert [a.status for a in answers] == [200] * 6
    assert most_at_once([unid_receipt(shared, a) for a in answers]) == 2


def test_each_request_has_a_vm_of_its_own(shared, name, gate):
    gate.deploy(shared, name, concurrency=8)
    join = calls_at_once(shared, name, 5)
    wait_for(lambda: len({i["id"] for i in running(shared, name)}) == 5, "five run at once")
    gate.open()
    assert [a.status for a in join()] == [200] * 5


def test_full_queue_is_429_with_retry_after(make_unid, gate):
    unid = make_unid(flags=["--set", "limits.queue_per_function=2"]).start()
    gate.deploy(unid, "f", concurrency=1)
    served = calls_at_once(unid, "f", 3)
    wait_for(lambda: running(unid, "f") and waiting(unid) == 2, "the queue is full")
    refused = calls_at_once(unid, "f", 5)()
    gate.open()
    assert [a.status for a in served()] == [200] * 3
    for answer in refused:
        assert answer.status == 429
        assert answer.problem()["outcome"] == "queue-full"
        assert int(answer.headers["Retry-After"]) >= 1
    answer = unid.post("/api/v1/functions/f/invocations")
    assert answer.status in (200, 429)


def test_invocations_are_refused_in_the_same_way(make_unid):
    unid = make_unid(flags=["--set", "limits.queue_per_function=1"]).start()
    unid.deploy("f", "spin", concurrency=1, timeout_ms=60000)
    first = waiting_call(unid, "f")
    wait_for(lambda: running(unid, "f"), "the first runs")
    second = waiting_call(unid, "f")
    wait_for(lambda: waiting(unid) == 1, "the second waits")
    unid.post("/api/v1/functions/f/invocations").problem(429)
    first.close()
    second.close()


def test_wait_without_end_is_429(make_unid):
    unid = make_unid(flags=["--set", "limits.queue_wait_ms=300"]).start()
    unid.deploy("f", "spin", concurrency=1, timeout_ms=60000)
    first = waiting_call(unid, "f")
    wait_for(lambda: running(unid, "f"), "the first runs")
    answer = unid.call("f")
    assert answer.problem(429)["outcome"] in ("wait-expired", "queue-full")
    assert int(answer.headers["Retry-After"]) >= 1
    first.close()


def test_client_that_leaves_frees_its_vm_and_its_place(shared, name):
    shared.deploy(name, "spin", concurrency=1, timeout_ms=60000)
    first = waiting_call(shared, name)
    wait_for(lambda: running(shared, name), "the first runs")
    mine = running(shared, name)[0]["id"]
    second = waiting_call(shared, name)
    first.close()
    wait_for(lambda: {i["id"] for i in running(shared, name)} - {mine}, "the second runs")
    second.close()
    wait_for(lambda: not running(shared, name), "nothing runs")
    receipts = wait_for(
        lambda: (lambda r: r if len(r) == 2 else None)(
            shared.get(f"/api/v1/invocations?function={name}").ok().json["items"]
        ),
        "both receipts",
    )
    assert {r["outcome"] for r in receipts} == {"cancelled"}


def test_client_that_leaves_while_waiting_never_gets_a_vm(shared, name, gate):
    gate.deploy(shared, name, concurrency=1)
    first = waiting_call(shared, name)
    wait_for(lambda: running(shared, name), "the first runs")
    second = waiting_call(shared, name)
    wait_for(lambda: waiting(shared) == 1, "the second waits")
    second.close()
    wait_for(lambda: waiting(shared) == 0, "it has left")
    gate.open()
    assert read_answer(first).status == 200
    first.close()
    receipts = wait_for(
        lambda: (lambda r: r if len(r) == 2 else None)(
            shared.get(f"/api/v1/invocations?function={name}").ok().json["items"]
        ),
        "both receipts",
    )
    assert sorted(r["outcome"] for r in receipts) == ["cancelled", "ok"]
    assert [r["phases"]["run_us"] for r in receipts if r["outcome"] == "cancelled"] == [0]


def test_versions_already_running_go_on_after_a_deploy_and_removal(shared, name, gate):
    gate.deploy(shared, name)
    join = calls_at_once(shared, name, 1)
    wait_for(lambda: running(shared, name), "it runs")
    shared.deploy(name, "hello")
    shared.delete(f"/api/v1/functions/{name}").ok(204)
    gate.open()
    assert join()[0].ok().body == b"let through\n"


def test_shells_decay_to_the_minimum(make_unid):
    unid = make_unid(flags=["--set", "pool.min=0", "--set", "pool.idle_ms=200"]).start()
    assert unid.instances() == []
    unid.deploy("f", "hello")
    [a.ok() for a in calls_at_once(unid, "f", 4)()]
    wait_for(lambda: not unid.instances(), "the pool is empty")
    unid.call("f").ok()


def test_pool_keeps_its_minimum(make_unid):
    unid = make_unid(flags=["--set", "pool.min=3", "--set", "pool.idle_ms=100"]).start()
    wait_for(lambda: [i["state"] for i in unid.instances()] == ["idle"] * 3, "three shells wait")
    unid.deploy("f", "hello")
    unid.call("f").ok()
    wait_for(
        lambda: [i["state"] for i in unid.instances()] == ["idle"] * 3, "three shells wait again"
    )


# --- the limit of connections ---------------------------------------------------------------------


def test_clients_over_the_limit_of_connections_are_told_503(make_unid, gate):
    unid = make_unid(flags=["--set", "http.max_connections=4"]).start()
    gate.deploy(unid, "f")
    sockets = [waiting_call(unid, "f") for _ in range(4)]
    wait_for(lambda: len(gate.held) == 4, "four run")
    over = [waiting_call(unid, "f") for _ in range(4)]
    for sock in over:
        answer = read_answer(sock)
        assert answer is not None and answer.status == 503, answer
        answer.problem()
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Connection"] == "close"
        sock.close()
    gate.open()
    assert [read_answer(sock).status for sock in sockets] == [200] * 4
    # Those that were served are idle now; they make room.
    for _ in range(8):
        unid.get("/api/v1/functions/f").ok()
    for sock in sockets:
        sock.close()


def test_connections_that_are_kept_warm_make_room(make_unid):
    unid = make_unid(flags=["--set", "http.max_connections=4"]).start()
    unid.deploy("f", "hello")
    sockets = []
    for _ in range(12):
        sockets.append(waiting_call(unid, "f"))
        assert read_answer(sockets[-1]).status == 200
    for sock in sockets[:8]:
        assert closed(sock)
    for sock in sockets:
        sock.close()


# --- draining -------------------------------------------------------------------------------------


def test_sigterm_lets_running_requests_finish(unid, gate):
    gate.deploy(unid, "f")
    keep = unid.connection()
    keep.request("GET", "/healthz")
    keep.getresponse().read()
    join = calls_at_once(unid, "f", 3)
    wait_for(lambda: len(running(unid, "f")) == 3, "three run")
    unid.drain()
    assert closed(keep.sock)  # nobody waits for an answer there
    gate.open()
    assert [a.status for a in join()] == [200] * 3
    assert unid.stop() == 0


def test_draining_daemon_says_503_with_retry_after(unid, gate):
    gate.deploy(unid, "f")
    join = calls_at_once(unid, "f", 1)
    wait_for(lambda: running(unid, "f"), "it runs")
    idle = unid.raw()
    unid.drain()

    wait_for(lambda: unid.get("/readyz").status == 503, "it drains")
    unid.get("/readyz").problem(503)
    unid.get("/healthz").ok()
    for method, path in (("GET", "/fn/f"), ("POST", "/api/v1/functions/f/invocations")):
        answer = unid.request(method, path)
        answer.problem(503)
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Connection"] == "close"
    assert closed(idle)
    gate.open()
    assert join()[0].status == 200
    assert unid.stop() == 0


def test_request_that_has_come_when_draining_begins_is_answered(unid, gate):
    """Each of many clients is told something, whatever it had got to at that instant."""
    gate.deploy(unid, "f")
    join = calls_at_once(unid, "f", 1)
    wait_for(lambda: running(unid, "f"), "it runs")
    request = b"GET /fn/f HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sockets = [unid.raw() for _ in range(60)]
    for sock in sockets[:20]:
        sock.sendall(request)
    unid.drain()
    for sock in sockets[20:40]:
        sock.sendall(request)
    wait_for(lambda: unid.get("/readyz").status == 503, "it drains")
    late = [unid.raw() for _ in range(20)]
    for sock in late:
        sock.sendall(request)
    gate.open()
    for i, sock in enumerate(sockets[:40] + late):
        answer = read_answer(sock)
        assert answer is not None, f"client {i} is not answered"
        assert answer.status == 503 or (answer.status == 200 and i < 40), (i, answer)
        assert answer.headers["Connection"] == "close"
        if answer.status == 503:
            assert answer.problem()["outcome"] == "draining"
            assert int(answer.headers["Retry-After"]) >= 1
        assert closed(sock)
        sock.close()
    for sock in sockets[40:]:
        assert closed(sock)
        sock.close()
    assert join()[0].status == 200
    assert unid.stop() == 0


def test_draining_is_bounded(make_unid):
    unid = make_unid(flags=["--drain-timeout", "500"]).start()
    unid.deploy("f", "spin", timeout_ms=600000)  # longer than stop() waits
    join = calls_at_once(unid, "f", 1)
    wait_for(lambda: running(unid, "f"), "it runs")
    assert unid.stop() == 0
    assert join()[0].problem(503)["outcome"] == "draining"


def test_idle_daemon_does_not_wait_for_its_drain_s_end(make_unid):
    unid = make_unid(flags=["--drain-timeout", "600000"]).start()  # longer than stop() waits
    keep = unid.connection()
    keep.request("GET", "/healthz")
    keep.getresponse().read()
    assert unid.stop() == 0
    keep.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", unid.port), 1)
