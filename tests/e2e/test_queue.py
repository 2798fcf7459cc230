"""The durable queue from outside: retries, dead letters, destinations, identities, and what kill -9,
a full disk, a damaged database and a wrong clock leave of it."""

import collections
import contextlib
import http.client
import http.server
import random
import sqlite3
import threading
import time

import pytest

import harness
from harness import wait_for
from test_faults import filled, needs_fault_points, small_disk  # noqa: F401 (a fixture)

ASYNC = "/api/v1/functions/{}/invocations?mode=async"
QUICK = "&max_attempts=2&backoff_ms=1&backoff_max_ms=1"
DAY_S = 24 * 3600


def submit(unid, name, body=b"", more="", **headers):
    answer = unid.post(ASYNC.format(name) + more, body, headers=headers)
    return answer.ok(202).json["id"]


def letters(unid, query=""):
    return unid.get("/api/v1/deadletters" + query).ok().json["items"]


def all_receipts(unid):
    """Out of the file of a stopped daemon: {id: [(attempt, outcome), ...]}."""
    found = collections.defaultdict(list)
    with contextlib.closing(sqlite3.connect(unid.state / "unid.db")) as db:
        for row in db.execute("SELECT id, attempt, outcome FROM receipts ORDER BY id, attempt"):
            found[row[0]].append(row[1:])
    return found


def waiting(unid):
    """How many entries of the queue are neither done nor given up."""
    with contextlib.closing(sqlite3.connect(f"file:{unid.state}/unid.db?mode=ro", uri=True)) as db:
        return db.execute("SELECT count(*) FROM async_queue WHERE state <> 3").fetchone()[0]


# --- retries and dead letters ---------------------------------------------------------------------


def test_what_fails_is_tried_again_and_then_a_dead_letter(shared, name):
    shared.deploy(name, "exit", "3", "bad picture")
    invocation = submit(shared, name, b"event", QUICK, **{"Content-Type": "text/plain"})
    receipt = shared.receipt(invocation)
    assert (receipt["attempt"], receipt["outcome"]) == (2, "failed")
    (letter,) = letters(shared, f"?function={name}")
    assert letter["id"] == invocation and letter["attempts"] == 2 and letter["bytes"] == 5
    assert letter["reason"].startswith("2 attempts failed; the last: ")
    whole = shared.get(f"/api/v1/deadletters/{invocation}").ok().json
    assert (whole["body"], whole["content_type"]) == ("event", "text/plain")
    receipts = shared.get(f"/api/v1/invocations?function={name}").ok().json["items"]
    assert [r["attempt"] for r in receipts] == [2, 1]
    page, attempts = {"next": ""}, []
    while page["next"] is not None:  # a page may end between the attempts of one invocation
        query = f"function={name}&limit=1&cursor={page['next']}"
        page = shared.get(f"/api/v1/invocations?{query}").ok().json
        attempts += [r["attempt"] for r in page["items"]]
    assert attempts == [2, 1]
    shared.get("/api/v1/invocations?cursor=x.1").problem(400)
    shared.get(f"/api/v1/invocations?cursor={invocation}.x").problem(400)


def test_redriven_letter_runs_what_is_deployed_now(shared, name):
    shared.deploy(name, "crash")
    ids = [submit(shared, name, b"\xff\x00", QUICK) for _ in range(3)]
    wait_for(lambda: len(letters(shared, f"?function={name}")) == 3, "the letters")
    letter = shared.get(f"/api/v1/deadletters/{ids[0]}").ok().json
    assert letter["body_base64"] == "/wA="
    shared.deploy(name, "count")
    path = f"/api/v1/deadletters/{ids[0]}/redrive"
    assert shared.post(path).ok().json == {"redriven": 1}
    wait_for(lambda: shared.receipt(ids[0])["outcome"] == "ok", "the run")
    shared.post(path).problem(404)
    answer = shared.post(f"/api/v1/deadletters/redrive?function={name}").ok()
    assert answer.json == {"redriven": 2}
    for invocation in ids:
        wait_for(lambda i=invocation: shared.receipt(i)["outcome"] == "ok", "the run")
    assert letters(shared, f"?function={name}") == []


def test_letters_are_listed_in_pages_and_removed(shared, name):
    shared.deploy(name, "status", "400")
    ids = [submit(shared, name) for _ in range(3)]
    wait_for(lambda: len(letters(shared, f"?function={name}")) == 3, "the letters")
    page = shared.get(f"/api/v1/deadletters?function={name}&limit=2").ok().json
    assert [i["id"] for i in page["items"]] == ids[:0:-1] and page["next"] == ids[1]
    assert "status 400" in page["items"][0]["reason"]
    rest = letters(shared, f"?function={name}&limit=2&cursor={page['next']}")
    assert [i["id"] for i in rest] == ids[:1]
    shared.delete(f"/api/v1/deadletters/{ids[0]}").ok(204)
    shared.delete(f"/api/v1/deadletters/{ids[0]}").problem(404)
    shared.get(f"/api/v1/deadletters/{ids[0]}").problem(404)
    shared.get("/api/v1/deadletters/none").problem(404)
    shared.delete("/api/v1/deadletters/none").problem(404)
    shared.get("/api/v1/deadletters?cursor=x").problem(400)
    shared.post(f"/api/v1/deadletters/redrive?function={'x' * 70}").problem(400)
    receipt = shared.get(f"/api/v1/invocations/{ids[0]}").ok().json
    assert (receipt["outcome"], receipt["status"]) == ("failed", 400)  # that stays


def test_unictl_shows_redrives_and_removes_letters(unid):
    unid.deploy("f", "status", "400")
    ids = [submit(unid, "f", b"hello there", QUICK) for _ in range(3)]
    wait_for(lambda: len(letters(unid)) == 3, "the letters")
    listed = unid.unictl("deadletter", "ls").ok().text
    assert all(i in listed for i in ids) and "answered with status 400" in listed
    one = unid.unictl("deadletter", "ls", "-n", "1", "--function", "f", "--json").ok().json
    assert [i["id"] for i in one["items"]] == ids[2:]
    shown = unid.unictl("deadletter", "show", ids[0]).ok().text
    assert "hello there" in shown and "Attempts:    1" in shown
    assert unid.unictl("deadletter", "show", ids[0], "--json").ok().json["body"] == "hello there"
    unid.deploy("f", "hello")
    assert unid.unictl("deadletter", "redrive", ids[0]).ok().text.split() == ids[:1]
    assert unid.unictl("deadletter", "redrive", ids[0]).status == 1
    assert unid.unictl("deadletter", "rm", ids[1]).ok().text.split() == ids[1:2]
    assert unid.unictl("deadletter", "redrive", "--all", "--trigger", "t").ok().text == "0\n"
    assert unid.unictl("deadletter", "redrive", "--all", "--function", "f").ok().text == "1\n"
    assert unid.unictl("deadletter", "redrive").status == 2
    assert unid.unictl("deadletter", "rm", "x").status == 2
    wait_for(lambda: waiting(unid) == 0, "the runs")
    assert letters(unid) == []


def test_unictl_says_how_often_and_when(unid):
    unid.deploy("f", "status", "500")
    how = ["--max-attempts", "2", "--backoff", "1ms", "--backoff-max", "2ms", "--max-age", "1h"]
    words = ["invoke", "f", "--async", "--data", "hello there", *how, "--on-failure", "g:live"]
    first = unid.unictl(*words).ok().text.strip()
    wait_for(lambda: [i["id"] for i in letters(unid, "?function=f")] == [first], "the letter")
    assert letters(unid, "?function=f")[0]["attempts"] == 2
    wait_for(lambda: letters(unid, "?function=g"), "what is told of it")
    later = unid.unictl("invoke", "f", "--async", "--delay", "1h").ok().text.strip()
    assert unid.get(f"/api/v1/invocations/{later}").ok().json["status"] == "pending"
    assert unid.unictl("invoke", "f", "--delay", "1h").status == 2
    assert unid.unictl("invoke", "f", "--async", "--max-attempts", "0").status == 2
    assert unid.unictl("invoke", "f", "--async", "--backoff", "1").status == 2
    assert unid.unictl("deadletter", "rm", "--all", "--function", "g").ok().text == "1\n"
    assert [i["id"] for i in letters(unid)] == [first]
    assert unid.unictl("deadletter", "rm", "--all", "--json").ok().json == {"removed": 1}
    assert unid.unictl("deadletter", "rm").status == 2
    assert unid.unictl("deadletter", "rm", "--function", "f").status == 2
    assert letters(unid) == []
    assert unid.delete("/api/v1/deadletters?trigger=none").ok(200).json == {"removed": 0}
    unid.delete(f"/api/v1/deadletters?function={'x' * 70}").problem(400)


def test_a_dead_letter_with_bytes_that_are_no_utf_8_is_listed_and_shown(shared, name):
    """In its type and its body; none may be missing in a listing."""
    shared.deploy(name, "status", "404")
    invocation = submit(shared, name, b"caf\xe9", **{"Content-Type": "text/\xe9"})
    shared.receipt(invocation)
    listed = wait_for(lambda: letters(shared, f"?function={name}"), "the letter")
    assert [(i["id"], i["content_type"]) for i in listed] == [(invocation, "text/?")]
    shown = shared.get(f"/api/v1/deadletters/{invocation}").ok().json
    assert shown["body_base64"] == "Y2Fm6Q==" and shown["content_type"] == "text/?"
    assert shared.unictl("deadletter", "show", invocation).ok()


def test_the_settings_say_it_where_nobody_else_does(make_unid):
    flags = [w for s in ("max_attempts=3", "backoff_ms=1") for w in ("--set", f"retry.{s}")]
    unid = make_unid(flags=flags).start()
    unid.deploy("f", "status", "500")
    first, other = submit(unid, "f"), submit(unid, "f", b"", "&max_attempts=1")
    wait_for(lambda: len(letters(unid)) == 2, "the letters")
    assert {i["id"]: i["attempts"] for i in letters(unid)} == {first: 3, other: 1}


def test_retry_options_are_checked(shared, name):
    shared.deploy(name, "hello")
    for wrong in ("max_attempts=x", "max_age_ms=-1", "backoff_ms=1e3", "delay_ms=9999999999999"):
        shared.post(ASYNC.format(name) + "&" + wrong).problem(400)
    shared.post(ASYNC.format(name) + "&on_success=ftp://x/").problem(400)
    shared.post(ASYNC.format(name) + "&on_failure=No%20Name").problem(400)
    shared.post(ASYNC.format(name) + "&on_success=http:///x").problem(400)


def test_delayed_work_waits(shared, name):
    shared.deploy(name, "hello")
    later = submit(shared, name, b"", "&delay_ms=3600000")
    begin = time.monotonic()
    invocation = submit(shared, name, b"", "&delay_ms=700")
    shared.receipt(invocation)
    assert time.monotonic() - begin >= 0.7
    assert shared.get(f"/api/v1/invocations/{later}").ok().json["status"] == "pending"


def test_receipt_says_when_more_attempts_follow(shared, name):
    shared.deploy(name, "crash")
    # The pause is a random part of that: a day, so that it is not over when the first attempt's end is seen.
    invocation = submit(shared, name, b"", f"&max_attempts=2&backoff_ms={DAY_S}000&backoff_max_ms={DAY_S}000")
    path = f"/api/v1/invocations/{invocation}"
    first = wait_for(lambda: shared.get(path).ok().json.get("attempt") and shared.get(path).json, "")
    assert first["outcome"] == "failed" and first["pending"] is True


def test_same_key_is_accepted_once(shared, name):
    shared.deploy(name, "hello")
    headers = {"Idempotency-Key": "k1"}
    first = shared.post(ASYNC.format(name), headers=headers).ok(202).json
    assert "duplicate" not in first
    for _ in range(1000):
        again = shared.post(ASYNC.format(name), headers=headers).ok(202).json
        assert again == {"id": first["id"], "duplicate": True}
    shared.receipt(first["id"])
    assert len(shared.get(f"/api/v1/invocations?function={name}").json["items"]) == 1


# --- destinations ---------------------------------------------------------------------------------


class Receiver:
    """An HTTP server that keeps what it is sent; the first `refuse` requests get 503."""

    def __init__(self, refuse=0):
        self.got = []  # (id, attempt, source id, body)
        self.refuse = refuse
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                refused, outer.refuse = outer.refuse > 0, max(0, outer.refuse - 1)
                head = ("X-Unid-Invocation-Id", "X-Unid-Attempt", "X-Unid-Source-Id")
                outer.got.append((*(self.headers[h] for h in head), body))
                self.send_response(503 if refused else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *args: None  # a connection of a killed unid
        self.url = "http://127.0.0.1:%d/sink" % self.server.server_address[1]

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_answer_goes_to_a_url_and_is_delivered_again_after_a_refusal(shared, name):
    shared.deploy(name, "echo")
    with Receiver(refuse=1) as sink:
        invocation = submit(shared, name, b"picture", f"&on_success={sink.url}")
        wait_for(lambda: len(sink.got) == 2, "the deliveries")
        assert [g[1:] for g in sink.got] == [(n, invocation, b"picture") for n in ("1", "2")]
        assert shared.receipt(sink.got[0][0])["outcome"] == "ok"


def test_failed_event_goes_to_the_failure_function(shared, name):
    shared.deploy(name, "status", "422")
    shared.deploy(name + "-dlq", "count")
    submit(shared, name, b"12345", f"&on_failure={name}-dlq")
    items = wait_for(
        lambda: shared.get(f"/api/v1/invocations?function={name}-dlq").json["items"], "its receipt"
    )
    assert items[0]["bytes_in"] == 5 and items[0]["trigger"] == "destination"


# --- crashes --------------------------------------------------------------------------------------


class Senders:
    """Threads that post events, each identity until it is acknowledged, through any number of kills.
    At most `rate` a second in all."""

    def __init__(self, unid, path, count, rate):
        self.unid, self.path, self.count, self.pause = unid, path, count, count / rate
        self.ids = {}  # identity -> id, as acknowledged; never two
        self.wrong = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(count)]

    def run(self, n):
        number = 0
        while not self.stop.is_set():
            identity = f"{n}-{number}"
            begin = time.monotonic()
            try:
                answer = self.unid.post(
                    self.path, identity.encode(), headers={"Idempotency-Key": identity}, timeout=5
                )
            except (OSError, http.client.HTTPException, TypeError):
                time.sleep(0.01)  # killed: the same once more
                continue
            if answer.status == 202:
                self.ids[identity] = answer.json["id"]
                number += 1
            elif answer.status != 503:
                self.wrong.append(answer)
            time.sleep(max(0, self.pause - (time.monotonic() - begin)))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def check_attempts(receipts, accepted):
    """Each was done, once, and each earlier attempt is on record as cut short by a kill."""
    for invocation in accepted:
        attempts = receipts.get(invocation, [])
        assert [a[0] for a in attempts] == list(range(1, len(attempts) + 1)), (invocation, attempts)
        assert [a[1] for a in attempts[-1:]] == ["ok"], (invocation, attempts)
        assert all(a[1] == "interrupted" for a in attempts[:-1]), (invocation, attempts)


def test_kills_under_load_lose_nothing_and_repeat_nothing_unrecorded(make_unid):
    # As many attempts as kills may cut short: on a slow machine one event may be running at each.
    unid = make_unid(flags=["--set", "retry.max_attempts=100"]).start()
    unid.deploy("f", "echo")
    chance = random.Random(5)
    with Receiver() as sink:
        path = ASYNC.format("f") + f"&on_success={sink.url}"
        with Senders(unid, path, count=8, rate=200) as senders:
            for _ in range(10):
                enough = len(senders.ids) + 10  # however slow it is: each kill is among deliveries
                wait_for(lambda n=enough: len(senders.ids) >= n or senders.wrong, "some are accepted")
                time.sleep(chance.uniform(0.05, 0.4))
                unid.kill()
                unid.start()
        assert not senders.wrong, senders.wrong[0].body
        assert len(senders.ids) >= 100
        wait_for(lambda: waiting(unid) == 0, "the queue is empty")
        assert letters(unid) == []
        assert unid.stop() == 0
    receipts = all_receipts(unid)
    check_attempts(receipts, receipts)
    assert set(senders.ids.values()) <= set(receipts)
    assert len(set(senders.ids.values())) == len(senders.ids)
    # What was done is seen from outside too: one delivery for each event ...
    deliveries = collections.defaultdict(set)
    for delivery, _, source, _ in sink.got:
        deliveries[source].add(delivery)
    assert set(senders.ids.values()) <= set(deliveries)
    assert all(len(d) == 1 for d in deliveries.values())
    # ... sent again only where an attempt is recorded as interrupted.
    for delivery, times in collections.Counter(g[0] for g in sink.got).items():
        assert times <= len(receipts[delivery])
    unid.start()


@needs_fault_points
@pytest.mark.parametrize("fault, status", [("ENOSPC", 507), ("EROFS", 500), ("EIO", 500)])
def test_event_that_cannot_be_kept_is_refused_and_the_others_stay(make_unid, fault, status):
    unid = make_unid().start()
    unid.may_log_errors = True
    unid.deploy("f", "hello")
    kept = [submit(unid, "f", b"", "&delay_ms=3600000") for _ in range(5)]
    unid.stop()
    unid.env = {"UNID_FAULTS": f"store.commit={fault}@2+"}
    unid.start()
    for _ in range(3):
        unid.post(ASYNC.format("f"), headers={"Idempotency-Key": "k"}).problem(status)
    unid.call("f").ok()
    unid.stop()
    unid.env = {}
    unid.start()
    assert waiting(unid) == 5
    for invocation in kept:
        assert unid.get(f"/api/v1/invocations/{invocation}").ok().json["status"] == "pending"
    answer = unid.post(ASYNC.format("f"), headers={"Idempotency-Key": "k"}).ok(202)
    assert "duplicate" not in answer.json
    unid.receipt(answer.json["id"])


def test_full_disk_refuses_events_and_runs_those_it_has(small_disk, make_unid):  # noqa: F811
    unid = make_unid()
    unid.may_log_errors = True
    unid.state = small_disk / "state"
    unid.start()
    unid.deploy("f", "count")
    kept = [submit(unid, "f", b"x" * 1000, "&delay_ms=1500") for _ in range(20)]
    with filled(small_disk):
        unid.post(ASYNC.format("f"), b"x" * 1000).problem(507)
        unid.call("f", b"12").ok()
        time.sleep(2)  # they run; what cannot be written down waits
        unid.post(ASYNC.format("f"), b"x" * 1000).problem(507)
    for invocation in kept:
        assert unid.receipt(invocation)["outcome"] == "ok"
    unid.receipt(submit(unid, "f", b"x"))
    wait_for(lambda: waiting(unid) == 0, "all is written down")
    assert letters(unid) == []
    assert unid.stop() == 0


def test_damaged_database_is_told_and_no_event_is_accepted_into_it(make_unid):
    unid = make_unid().start()
    unid.may_log_errors = True
    unid.deploy("f", "hello")
    for _ in range(200):
        submit(unid, "f", b"x" * 500, "&delay_ms=3600000")
    unid.stop()
    with contextlib.closing(sqlite3.connect(unid.state / "unid.db")) as db:
        page = db.execute("PRAGMA page_size").fetchone()[0]
        roots = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE tbl_name IN ('async_queue', 'async_events')"
        ).fetchall()
    with open(unid.state / "unid.db", "r+b") as file:
        for (root,) in roots:
            file.seek((root - 1) * page)
            file.write(b"\xa5" * page)
    unid.start()
    answer = unid.post(ASYNC.format("f"))
    assert "damaged" in answer.problem(500)["detail"]
    unid.call("f").ok()  # what needs none of it goes on
    unid.get("/healthz").ok()


@needs_fault_points
@pytest.mark.parametrize("ahead", [DAY_S, -DAY_S])
def test_clock_that_jumped_by_a_day_loses_and_delays_nothing(make_unid, ahead):
    unid = make_unid().start()
    unid.deploy("f", "hello")
    later = submit(unid, "f", b"", "&delay_ms=2000&max_age_ms=3600000")
    unid.kill()
    unid.env = {"UNID_CLOCK_AHEAD_S": str(ahead)}
    unid.start()
    assert unid.receipt(later)["outcome"] == "ok"  # within the harness' patience, not in a day
    invocation = submit(unid, "f", b"", "&max_age_ms=3600000")
    unid.kill()
    unid.env = {}
    unid.start()
    assert unid.receipt(invocation)["outcome"] == "ok"
    assert letters(unid) == []
