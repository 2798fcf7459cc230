"""Watching, metrics, lists of receipts, and running failed requests again."""

import concurrent.futures
import contextlib
import http.client
import json
import re
import shutil
import sqlite3
import subprocess
import time

import pytest

import harness
from harness import wait_for

ASYNC = "/api/v1/functions/{}/invocations?mode=async&max_attempts=1"


class Stream:
    """A client of /api/v1/watch: events as (id, name, data)."""

    def __init__(self, unid, query="", last=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", unid.port, timeout=harness.ANSWER_S)
        headers = {"Last-Event-ID": last} if last else {}
        self.connection.request("GET", "/api/v1/watch" + query, headers=headers)
        self.response = self.connection.getresponse()
        harness.SEEN.add(("GET", "/api/v1/watch", self.response.status))
        assert self.response.status == 200
        assert self.response.headers["Content-Type"] == "text/event-stream"
        self.last = last

    def __iter__(self):
        event = {}
        for line in self.response:
            line = line.decode().rstrip("\n")
            if line.startswith(":"):
                continue
            if line:
                field, value = line.split(": ", 1)
                event[field] = value
            elif event:
                self.last = event.get("id", self.last)
                if "event" in event:
                    yield event.get("id"), event["event"], json.loads(event["data"])
                event = {}

    def until(self, condition):
        seen = []
        for event in self:
            seen.append(event)
            if condition(event):
                return seen
        raise AssertionError(f"the stream ended: {seen[-5:]}")

    def close(self):
        self.connection.close()


def changes(seen, kind):
    return [data["change"] for _, name, data in seen if name == kind]


def test_everything_that_changes_is_told(unid):
    stream = Stream(unid)
    assert next(iter(stream))[1] == "open"
    digest = unid.push()
    unid.put("/api/v1/tags/mine", {"digest": digest}).ok()
    unid.deploy("good", "hello", image=digest)
    unid.deploy("good", "echo", image=digest)
    unid.put("/api/v1/functions/good/aliases/blue", {"version": 1}).ok()
    unid.post("/api/v1/functions/good/rollback").ok()
    answer = unid.call("good", b"x").ok()
    unid.deploy("bad", "exit", "3")
    dead = unid.post(ASYNC.format("bad"), b"event").ok(202).json["id"]
    unid.put("/api/v1/triggers/hook", {"type": "cloudevents", "function": "good"}).ok(201)
    unid.delete("/api/v1/triggers/hook").ok(204)
    unid.receipt(dead)
    wait_for(lambda: unid.get("/api/v1/deadletters").json["items"], "a dead letter")
    unid.delete(f"/api/v1/deadletters/{dead}").ok(204)
    unid.delete("/api/v1/tags/mine").ok(204)
    unid.delete("/api/v1/functions/bad").ok(204)
    unid.delete("/api/v1/functions/good").ok(204)
    unid.delete(f"/api/v1/images/{digest}").ok(204)
    seen = stream.until(lambda e: e[1] == "image" and e[2]["change"] == "removed")
    while "gone" not in changes(seen, "instance"):
        seen.append(next(iter(stream)))
    stream.close()
    assert changes(seen, "image")[:2] == ["pushed", "tagged"]
    assert changes(seen, "image")[-2:] == ["untagged", "removed"]
    assert changes(seen, "function") == [
        "deployed", "deployed", "alias", "alias", "deployed", "removed", "removed",
    ]  # fmt: skip
    assert changes(seen, "trigger") == ["created", "removed"]
    assert changes(seen, "deadletter") == ["added", "removed"]
    one = answer.headers["X-Unid-Invocation-Id"]
    ours = [d for _, name, d in seen if name == "invocation" and d["id"] == one]
    assert [d["change"] for d in ours] == ["started", "finished"]
    assert ours[1]["status"] == 200 and ours[1]["outcome"] == "ok" and ours[1]["version"] == 1
    theirs = [d["change"] for _, name, d in seen if name == "invocation" and d["id"] == dead]
    assert theirs == ["accepted", "started", "finished"]
    states = [d["state"] for _, name, d in seen if name == "instance" and d["invocation_id"] == one]
    assert states == ["bound", "running"]
    ids = [int(i.rsplit("-", 1)[1]) for i, _, _ in seen[1:]]
    assert ids == list(range(ids[0], ids[0] + len(ids))), "no event is left out or told twice"


def test_kinds_are_chosen_and_wrong_ones_refused(unid):
    stream = Stream(unid, "?kinds=function,trigger")
    unid.deploy("one", "hello")
    unid.call("one").ok()
    unid.delete("/api/v1/functions/one").ok(204)
    seen = stream.until(lambda e: e[2].get("change") == "removed")
    assert [name for _, name, _ in seen] == ["open", "function", "function"]
    stream.close()
    problem = unid.get("/api/v1/watch?kinds=function,nonsense").problem(400)
    assert "deadletter" in problem["detail"]


def test_who_comes_back_goes_on_where_it_was(unid):
    unid.deploy("one", "hello")
    stream = Stream(unid, "?kinds=invocation")
    unid.call("one").ok()
    stream.until(lambda e: e[2].get("change") == "finished")
    last = stream.last
    stream.close()
    for _ in range(5):
        unid.call("one").ok()
    again = Stream(unid, "?kinds=invocation", last)
    seen = []
    for event in again:
        seen.append(event)
        if changes(seen, "invocation").count("finished") == 5:
            break
    assert changes(seen, "invocation").count("started") == 5
    assert "overflow" not in [name for _, name, _ in seen]
    again.close()


def test_who_comes_back_too_late_is_told_how_much_it_missed(unid):
    unid.deploy("one", "hello")
    stream = Stream(unid)
    last = next(iter(stream))[0]
    for i in range(700):  # seven events each, or more
        unid.call("one").ok()
    again = Stream(unid, "", last)
    first = next(iter(again))
    assert first[1] == "overflow" and first[2]["missed"] > 0
    second = next(iter(again))
    number = [int(e[0].rsplit("-", 1)[1]) for e in (first, second)]
    assert number[1] == number[0] + 1
    assert first[2]["missed"] == number[0] - int(last.rsplit("-", 1)[1])
    stream.close()
    again.close()
    other = Stream(unid, "", "01ARZ3NDEKTSV4RRFFQ69G5FAV-12")
    assert next(iter(other))[1:] == ("overflow", {"missed": None})
    other.close()


def test_a_client_that_does_not_read_costs_little_and_is_told_what_it_missed(unid):
    unid.deploy("one", "hello")
    unid.call("one").ok()
    sock = unid.raw()
    sock.sendall(b"GET /api/v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
    before = unid.resident_kib("VmRSS")
    connection = unid.connection()
    for i in range(30000):
        connection.request("GET", "/fn/one")
        connection.getresponse().read()
        if i % 500 == 499:
            text = unid.get("/metrics").body.decode()
            ring = int(re.search(r"^unid_http_requests_total (\d+)", text, re.M)[1])
            assert ring
            if i >= 5000:
                break
    grown = unid.resident_kib("VmRSS") - before
    assert grown < 24 * 1024, f"{grown} KiB more"
    data = b""
    sock.settimeout(harness.ANSWER_S)
    try:
        while not (told := re.search(rb'overflow\ndata: \{"missed":(\d+)\}', data)):
            piece = sock.recv(1 << 20)
            assert piece
            data += piece
    except TimeoutError:
        pytest.fail("no overflow event")
    assert int(told[1]) > 1000
    sock.close()


def test_too_many_watchers_are_told_so(unid):
    streams = [Stream(unid) for _ in range(64)]
    answer = unid.get("/api/v1/watch")
    answer.problem(503)
    assert answer.headers["Retry-After"]
    for stream in streams:
        stream.close()
    wait_for(
        lambda: re.search(r"^unid_watch_clients 0$", unid.get("/metrics").body.decode(), re.M),
        "they are gone",
    )


def test_watching_ends_with_the_daemon(unid):
    stream = Stream(unid)
    next(iter(stream))
    unid.drain()
    assert list(stream) is not None
    stream.close()


def test_unictl_watches(unid):
    process = subprocess.Popen(
        [harness.UNICTL, "--host", f"unix://{unid.socket}", "watch", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(
            lambda: re.search(r"^unid_watch_clients 1$", unid.get("/metrics").body.decode(), re.M),
            "it watches",
        )
        unid.deploy("seen", "hello")
        for line in process.stdout:
            event = json.loads(line)
            if event["kind"] == "function":
                break
        assert (event["change"], event["function"], event["version"]) == ("deployed", "seen", 1)
    finally:
        process.kill()
        process.communicate()
    assert unid.unictl("watch", "--kinds", "nonsense").status == 1


# --- receipts -------------------------------------------------------------------------------------


def test_receipts_are_listed_by_status_code_and_age(shared, name):
    shared.deploy(name, "status", "404")
    for _ in range(3):
        shared.call(name).ok(404)
    shared.deploy(name, "hello")
    good = shared.call(name).ok().headers["X-Unid-Invocation-Id"]
    shared.receipt(good)
    base = f"/api/v1/invocations?function={name}"
    items = shared.get(base + "&status=404").ok().json["items"]
    assert [r["status"] for r in items] == [404] * 3
    first = shared.get(base + "&status=404&limit=2").ok().json
    rest = shared.get(base + f"&status=404&limit=2&cursor={first['next']}").ok().json
    assert [r["id"] for r in first["items"] + rest["items"]] == [r["id"] for r in items]
    assert [r["id"] for r in shared.get(base + "&status=200").json["items"]] == [good]
    assert shared.get(base + f"&since={int(time.time() * 1000) + 5000}").json["items"] == []
    assert len(shared.get(base + f"&since={int(time.time() * 1000) - 60000}").json["items"]) == 4
    shared.get(base + "&since=tomorrow").problem(400)
    shared.get(base + "&status=40x").problem(400)
    listed = shared.unictl("receipts", name, "--status", "404", "--since", "10m", "--json").ok()
    assert len(listed.json["items"]) == 3
    assert shared.unictl("receipts", name, "--since", "yesterday").status == 2


# --- metrics --------------------------------------------------------------------------------------


def metrics(unid):
    return unid.get("/metrics").ok().body.decode()


def value(text, series):
    found = re.search("^" + re.escape(series) + r" (\S+)$", text, re.M)
    return float(found[1]) if found else None


def test_metrics_count_by_function_and_code_and_pass_promtool(unid):
    unid.deploy("good", "hello")
    unid.deploy("bad", "exit", "3")
    for _ in range(3):
        unid.call("good").ok()
    last = unid.call("bad")
    last.problem(502)
    unid.receipt(last.headers["X-Unid-Invocation-Id"])
    for i in range(5):
        unid.call(f"none-{i}").problem(404)
    text = wait_for(
        lambda: (t := metrics(unid))
        and value(t, 'unid_invocations_total{function="good",code="200"}') == 3
        and value(t, 'unid_invocations_total{function="_other",code="404"}') == 5
        and t,
        "all is counted",
    )
    assert value(text, 'unid_invocations_total{function="bad",code="502"}') == 1
    assert "none-" not in text
    for phase in ("queue", "shell", "bind", "start", "first_byte", "run", "teardown"):
        label = f'{{driver="fake",phase="{phase}"'
        assert value(text, f"unid_start_seconds_count{label}}}") == 4
        bounds = re.findall(
            rf'^unid_start_seconds_bucket{re.escape(label)},le="([^"]+)"\}} (\d+)$', text, re.M
        )
        assert [float(b) for b, _ in bounds[:3]] == [0.0001, 0.0002, 0.0004]
        counts = [int(n) for _, n in bounds]
        assert counts == sorted(counts) and bounds[-1] == ("+Inf", "4")
    for name in (
        "waiting", "deadletters", "retries_total", "store_bytes", "http_refused_total",
        'egress_refused_total{function="_other"}', "watch_clients",
    ):  # fmt: skip
        assert value(text, f"unid_{name}") is not None, name
    promtool = shutil.which("promtool")
    assert promtool, "promtool of Debian's package prometheus is missing: ./bootstrap deps"
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    assert done.returncode == 0 and not done.stderr, (done.stdout + done.stderr).decode()


def test_the_number_of_series_is_bounded(make_unid):
    unid = make_unid(["--set", "metrics.functions=100"]).start()
    digest = unid.push()
    for i in range(130):
        unid.deploy(f"f{i}", "hello", image=digest)
        unid.call(f"f{i}").ok()
    text = wait_for(
        lambda: (t := metrics(unid))
        and value(t, 'unid_invocations_total{function="_other",code="200"}') == 30
        and t,
        "the last 30 have one row",
    )
    names = set(re.findall(r'^unid_invocations_total\{function="(\w+)"', text, re.M))
    assert len(names) == 101


# --- replay ---------------------------------------------------------------------------------------


def failed(unid, name, body=b"", fields=""):
    """Head and body in one piece: what is not whole when its function fails is not kept."""
    with unid.raw() as sock:
        head = f"POST /fn/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
        sock.sendall(head.encode() + body)
        answer = harness.read_answer(sock, "POST")
    identifier = answer.headers["X-Unid-Invocation-Id"]
    unid.receipt(identifier)
    return identifier


def test_a_failed_request_runs_again_with_a_fixed_version(shared, name):
    shared.deploy(name, "exit", "3", "bad input")
    first = failed(shared, name, b"the body", "X-Mine: yes\r\n")
    again = shared.post(f"/api/v1/invocations/{first}/replay").ok().json
    assert again["diff"]["same"] and again["version"] == 1
    assert again["before"]["status"] == 502 and again["before"]["outcome"] == "failed"
    shared.deploy(name, "echo")
    fixed = shared.post(f"/api/v1/invocations/{first}/replay").ok().json
    assert fixed["version"] == 2 and not fixed["diff"]["same"]
    assert fixed["diff"]["status"] == [502, 200]
    assert fixed["after"]["body"]["text"] == "the body"
    assert "+the body" in fixed["diff"]["body"]["diff"]
    receipt = shared.receipt(fixed["id"])
    assert receipt["replay_of"] == first and receipt["trigger"] == "replay"
    assert receipt["bytes_in"] == 8
    shared.deploy(name, "request")
    head = shared.post(f"/api/v1/invocations/{first}/replay").ok().json["after"]["body"]["text"]
    assert head.startswith("POST /\r\n") and "x-mine: yes" in head.lower()
    old = shared.post(f"/api/v1/invocations/{first}/replay?version=1").ok().json
    assert old["version"] == 1 and old["diff"]["same"]
    shared.post(f"/api/v1/invocations/{first}/replay?version=99").ok()
    text = shared.unictl("replay", first).ok().text
    assert "Before:" in text and "502 failed" in text and "+POST" in text
    assert shared.unictl("replay", first, "--version", "1", "--json").ok().json["diff"]["same"]


def test_bodies_and_headers_are_compared(shared, name):
    shared.deploy(name, "status", "500", "X-Color: red", "X-Gone: 1")
    first = failed(shared, name)
    shared.deploy(name, "status", "503", "X-Color: blue", "X-New: 2")
    diff = shared.post(f"/api/v1/invocations/{first}/replay").ok().json["diff"]
    assert diff["status"] == [500, 503] and diff["body"] == {"kind": "same"}
    headers = {h["name"]: (h["before"], h["after"]) for h in diff["headers"]}
    assert headers["x-color"] == ("red", "blue")
    assert headers["x-gone"] == ("1", None) and headers["x-new"] == (None, "2")


def test_what_is_not_kept_is_told(shared, name):
    shared.deploy(name, "echo")
    good = shared.call(name, b"x").ok().headers["X-Unid-Invocation-Id"]
    shared.receipt(good)
    detail = shared.post(f"/api/v1/invocations/{good}/replay").problem(404)["detail"]
    assert "replay" in detail
    shared.deploy(name, "exit", "3")
    long = failed(shared, name, b"x" * 70000)
    shared.post(f"/api/v1/invocations/{long}/replay").problem(404)
    shared.post("/api/v1/invocations/nonsense/replay").problem(404)
    short = failed(shared, name, b"x")
    shared.post(f"/api/v1/invocations/{short}/replay?version=").problem(400)
    assert shared.unictl("replay", good).status == 1
    assert shared.unictl("replay", "nonsense").status == 2


def test_kept_requests_survive_and_can_be_turned_off(unid):
    unid.deploy("bad", "exit", "3")
    first = failed(unid, "bad", b"x")

    def kept():
        with contextlib.closing(sqlite3.connect(f"file:{unid.state}/unid.db?mode=ro", uri=True)) as db:
            return db.execute("SELECT count(*) FROM kept_requests").fetchone()[0]

    wait_for(kept, "it is on disk")
    unid.kill()
    unid.start()
    assert unid.post(f"/api/v1/invocations/{first}/replay").ok().json["diff"]["same"]
    unid.stop()
    unid.flags += ["--set", "replay.total_bytes=4096"]
    unid.start()
    ids = [failed(unid, "bad", b"y" * 1000) for _ in range(8)]
    wait_for(
        lambda: unid.post(f"/api/v1/invocations/{ids[0]}/replay").status == 404, "the oldest goes"
    )
    unid.post(f"/api/v1/invocations/{ids[-1]}/replay").ok()
    unid.stop()
    unid.flags += ["--set", "replay.request_bytes=0"]
    unid.start()
    unid.post(f"/api/v1/invocations/{failed(unid, 'bad', b'x')}/replay").problem(404)


def test_not_too_many_run_again_at_once(shared, name, gate):
    shared.deploy(name, "exit", "3")
    first = failed(shared, name, b"x")
    gate.deploy(shared, name)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        calls = [pool.submit(shared.post, f"/api/v1/invocations/{first}/replay") for _ in range(24)]
        wait_for(lambda: sum(c.done() for c in calls) == 8, "the others are told")
        gate.open()
    assert sorted(c.result().status for c in calls) == [200] * 16 + [503] * 8
