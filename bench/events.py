"""events.py - the sections of bench/run that measure the durable queue: how fast events are accepted
and run, what kill -9 leaves of them, and what a million that wait cost. All with the fake driver, so
that the queue is what is measured.
"""
import collections
import contextlib
import http.client
import http.server
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

from harness import EXAMPLES, TOP, Daemon, median, row

ROUNDS = 3
BACKLOG = 1_000_000
KILLS, EVENTS_A_SECOND = 100, 500

# Each event has an identity of its own, so that deduplication is part of what is measured.
WRK_SCRIPT = """
local number, base = 0, "%d-" .. math.floor(%f * 1000) .. "-"
local body = string.rep("x", 200)
function request()
    number = number + 1
    return wrk.format("POST", wrk.path, {["Idempotency-Key"] = base .. number}, body)
end
"""


def have_wrk():
    if shutil.which("wrk"):
        return True
    print("  skipped: wrk is not installed")
    return False


def post_events(daemon, name, seconds, connections=32):
    """Events accepted a second, and answers that were not 2xx."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT % (os.getpid(), time.time()))
        script.flush()
        out = subprocess.run(
            ["wrk", f"-c{connections}", "-t1", f"-d{seconds}s", "-s", script.name,
             "http://%s:%d/api/v1/functions/%s/invocations?mode=async" % (*daemon.address, name)],
            check=True, stdout=subprocess.PIPE, text=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: (.*)", out)
    failed = int(bad.group(1)) if bad else 0
    failed += sum(map(int, re.findall(r"\d+", broken.group(1)))) if broken else 0
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), failed


def query(daemon, sql, *values):
    with contextlib.closing(sqlite3.connect(f"file:{daemon.state}/unid.db?mode=ro", uri=True,
                                            timeout=60)) as db:
        return db.execute(sql, values).fetchall()


def waiting(daemon, name):
    return query(daemon, "SELECT count(*) FROM async_queue WHERE function = ? AND state <> 3",
                 name)[0][0]


def wait_until_done(daemon, name, seconds=600):
    end = time.monotonic() + seconds
    while waiting(daemon, name):
        if time.monotonic() > end:
            raise SystemExit(f"events of {name} still wait after {seconds} s")
        time.sleep(0.1)


SYNCS = """
import os, sys, time
fd, count, begin = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 0, time.perf_counter()
while time.perf_counter() - begin < 1:
    os.write(fd, bytes(4096))
    os.fdatasync(fd)
    count += 1
print(count / (time.perf_counter() - begin))
"""


def syncs_a_second(daemon):
    """Appends of 4 KiB, each with fdatasync, one after the other, beside the daemon's database."""
    path = daemon.state / "syncs"
    out = subprocess.run([sys.executable, "-c", SYNCS, path], check=True, stdout=subprocess.PIPE,
                         env=daemon.env).stdout
    path.unlink()
    return float(out)


def events_on(what, env, rounds):
    with Daemon("--driver", "fake", "--pool-min", "8", env=env) as daemon:
        digest = daemon.push(EXAMPLES / "hello")
        daemon.deploy("hello", digest, args=["hello"])
        post_events(daemon, "hello", 2)
        syncs, one, many, failed = [], [], [], 0
        for _ in range(rounds):
            wait_until_done(daemon, "hello")
            syncs.append(syncs_a_second(daemon))
            rate, bad = post_events(daemon, "hello", 3, connections=1)
            one.append(rate)
            failed += bad
            wait_until_done(daemon, "hello")
            rate, bad = post_events(daemon, "hello", 5)
            many.append(rate)
            failed += bad
        wait_until_done(daemon, "hello")
        doubles = query(daemon, "SELECT count(*) FROM receipts WHERE attempt > 1")[0][0]
    row(f"{what}: accepted a second, 32 connections: median of {rounds} times 5 s",
        f"{median(many):.0f}", ">= 3000" if not env else "")
    row("  with one connection, so one commit each", f"{median(one):.0f}")
    row("  one fdatasync of 4 KiB an event, and nothing else: a second", f"{median(syncs):.0f}")
    row("  ratio of 32 connections to that, round by round: median",
        f"{median([m / s for m, s in zip(many, syncs)]):.1f}", ">= 20")
    row("  answers that were not 2xx; attempts that were not the first", f"{failed}; {doubles}", "0; 0")


def bench_events():
    print("events: one per POST, durable before its 202, 200 bytes each, and run meanwhile")
    if not have_wrk():
        return
    events_on("this disk", {}, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="unid-bench-") as work:
        library = pathlib.Path(work) / "slow_sync.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library,
                        TOP / "bench" / "slow_sync.c"], check=True)
        events_on("fsync takes 5 ms more", {"LD_PRELOAD": str(library)}, 3)


# --- kills ----------------------------------------------------------------------------------------


def sink_main(pipe):
    """A process that answers deliveries and keeps (delivery, source) of each."""
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["X-Unid-Invocation-Id"], self.headers["X-Unid-Source-Id"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # a connection of a killed unid
    pipe.send(server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.recv()
    pipe.send(got)


class Sender(threading.Thread):
    """Posts events, each identity again until it is acknowledged."""

    def __init__(self, daemon, path, number, pause, stop):
        super().__init__()
        self.daemon_, self.path, self.number, self.pause, self.stop = daemon, path, number, pause, stop
        self.ids, self.refused = {}, []

    def run(self):
        connection, n, next_at = None, 0, time.monotonic()
        while not self.stop.is_set():
            identity = f"{self.number}-{n}"
            try:
                if not connection:
                    connection = http.client.HTTPConnection(*self.daemon_.address, timeout=10)
                connection.request("POST", self.path, identity, {"Idempotency-Key": identity})
                answer = connection.getresponse()
                body = answer.read().decode()
            except (OSError, http.client.HTTPException):
                connection = None
                time.sleep(0.005)
                continue
            if answer.status == 202:
                self.ids[identity] = re.search(r'"id":"(\w+)"', body.replace(" ", "")).group(1)
                n += 1
            else:
                self.refused.append((answer.status, body))
            next_at = max(next_at + self.pause, time.monotonic() - 0.5)
            time.sleep(max(0, next_at - time.monotonic()))


def kill_under_load(daemon, path):
    """Kills at random moments. Gives {identity: id} of what was acknowledged, and the time it took."""
    stop, chance = threading.Event(), random.Random()
    count = 16
    senders = [Sender(daemon, path, n, count / EVENTS_A_SECOND, stop) for n in range(count)]
    begin = time.monotonic()
    for sender in senders:
        sender.start()
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.05, 1.2))
        daemon.kill_and_start()
    stop.set()
    for sender in senders:
        sender.join()
    took = time.monotonic() - begin
    refused = [r for s in senders for r in s.refused]
    if refused:
        raise SystemExit(f"{len(refused)} refused, the first: {refused[0]}")
    return {k: v for s in senders for k, v in s.ids.items()}, took


def judge_attempts(daemon):
    """(ids done, attempts interrupted, ids with an attempt that is not on record or not allowed)"""
    attempts = collections.defaultdict(list)
    for i, attempt, outcome in query(
            daemon, "SELECT id, attempt, outcome FROM receipts ORDER BY id, attempt"):
        attempts[i].append((attempt, outcome))
    done, interrupted, wrong = set(), 0, []
    for i, list_ in attempts.items():
        interrupted += len(list_) - 1
        if ([a for a, _ in list_] != list(range(1, len(list_) + 1)) or list_[-1][1] != "ok"
                or any(o != "interrupted" for _, o in list_[:-1])):
            wrong.append((i, list_))
        if list_[-1][1] == "ok":
            done.add(i)
    return done, interrupted, wrong, attempts


def bench_kills():
    print(f"kills: {KILLS} times kill -9 at random moments, {EVENTS_A_SECOND} events a second, "
          "each delivered to a URL when done")
    ours, theirs = multiprocessing.Pipe()
    sink = multiprocessing.Process(target=sink_main, args=(theirs,))
    sink.start()
    url = f"http://127.0.0.1:{ours.recv()}/"
    try:
        with Daemon("--driver", "fake", "--pool-min", "8") as daemon:
            daemon.deploy("echo", daemon.push(EXAMPLES / "hello"), args=["echo"])
            ids, took = kill_under_load(
                daemon, f"/api/v1/functions/echo/invocations?mode=async&on_success={url}")
            wait_until_done(daemon, "echo")
            done, interrupted, wrong, attempts = judge_attempts(daemon)
            dead = query(daemon, "SELECT count(*) FROM async_queue")[0][0]
        ours.send("end")
        got = ours.recv()
    finally:
        sink.kill()
        sink.join()
    delivered = collections.defaultdict(set)
    for delivery, source in got:
        delivered[source].add(delivery)
    times = collections.Counter(d for d, _ in got)
    lost = [i for i in ids.values() if i not in done or i not in delivered]
    doubled = len(ids) - len(set(ids.values()))
    unrecorded = [d for d, n in times.items() if n > len(attempts[d])]
    unrecorded += [s for s, d in delivered.items() if len(d) > 1]
    row("events acknowledged, in seconds", f"{len(ids)} in {took:.0f}")
    row("  acknowledged and not done, or not delivered", str(len(lost)), "0")
    row("  identities that were accepted twice", str(doubled), "0")
    row("  ran or were delivered twice without a record", str(len(wrong) + len(unrecorded)), "0")
    row("  attempts recorded as interrupted; dead letters", f"{interrupted}; {dead}")


# --- a backlog ------------------------------------------------------------------------------------


def dispatch_rate(daemon, digest):
    """Events a second, of some that are all there when they begin: given up first, then redriven."""
    daemon.deploy("burst", digest, args=["status", "400"])
    post_events(daemon, "burst", 3)
    wait_until_done(daemon, "burst")
    daemon.deploy("burst", digest, args=["hello"])
    before = query(daemon, "SELECT max(id) FROM receipts")[0][0]
    last = query(daemon, "SELECT count(*) FROM receipts WHERE function = 'burst'")[0][0]
    begin = time.monotonic()
    daemon.ask("POST", "/api/v1/deadletters/redrive?function=burst")
    wait_until_done(daemon, "burst")
    took = time.monotonic() - begin
    count = query(daemon, "SELECT count(*) FROM receipts WHERE function = 'burst'")[0][0] - last
    assert before
    return count / took


class Queue:
    """A daemon with a slow function, whose places are taken and for which events wait."""

    def __enter__(self):
        self.daemon = Daemon("--driver", "fake", "--pool-min", "8", "--pool-max", "64").__enter__()
        self.digest = self.daemon.push(EXAMPLES / "hello")
        self.daemon.deploy("hello", self.digest, args=["hello"])
        self.daemon.deploy("slow", self.digest, args=["sleep", "20000"])
        post_events(self.daemon, "slow", 1)
        return self

    def __exit__(self, *exc):
        self.daemon.process.kill()  # the slow ones need not be waited for
        self.daemon.__exit__(*exc)

    def fill(self, count):
        while (queued := waiting(self.daemon, "slow")) < count:
            post_events(self.daemon, "slow", min(20, 1 + (count - queued) // 8000))
        return queued

    def intake(self):
        rate = post_events(self.daemon, "hello", 4)[0]
        wait_until_done(self.daemon, "hello")
        return rate

    def dispatch(self):
        return dispatch_rate(self.daemon, self.digest)


def pairs(what, few, many):
    """The two in turn, since the disk's speed changes from minute to minute."""
    measured = [(few(), many()) for _ in range(ROUNDS)]
    row(f"{what}: few wait, many wait; ratio, pair by pair: median",
        f"{median([f for f, _ in measured]):.0f}, {median([m for _, m in measured]):.0f}; "
        f"{median([m / f for f, m in measured]):.2f}", ">= 0.8")


def bench_backlog():
    print(f"backlog: {BACKLOG} events that wait for a slow function, each with an identity")
    if not have_wrk():
        return
    with Queue() as few, Queue() as many:
        begin = time.monotonic()
        queued = many.fill(BACKLOG)
        row("events that wait; filled in", f"{queued}; {time.monotonic() - begin:.0f} s")
        pairs("accepted a second", few.intake, many.intake)
        pairs("run a second", few.dispatch, many.dispatch)
        daemon = many.daemon
        row("unid's memory, now and at most",
            f"{daemon.memory_kib('VmRSS') / 1024:.0f}, {daemon.memory_kib('VmHWM') / 1024:.0f} MiB",
            "<= 64 MiB")
        size = (daemon.state / "unid.db").stat().st_size
        begin = time.monotonic()
        daemon.kill_and_start()
        post_events(daemon, "hello", 1, connections=1)
        row("the database; kill -9 to serving and accepting again",
            f"{size / 1e6:.0f} MB; {time.monotonic() - begin - 1:.1f} s")
