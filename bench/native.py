"""native.py - the sections of bench/run that measure the kvm driver: a fresh VM for each request on
the KVM API, against containers and QEMU, at full rate, and in memory.
"""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

from harness import (BUILD, EXAMPLES, Daemon, direct_ms, first_byte_ms, get, median, p99,
                     pss_kib, receipts_of, row)

HELLO_C = '#include <unistd.h>\nint main(void) { return write(1, "hello\\n", 6) != 6; }\n'
SETTLE_S = 0.02  # for processes to be gone
ROUNDS = 5  # of what other processes on the machine disturb; the median counts


def have_kvm():
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        return True
    print("  skipped: /dev/kvm cannot be opened")
    return False


def spread(values, unit="", digits=0):
    """The median, and from where to where."""
    low, mid, high = (f"{v:.{digits}f}" for v in (min(values), median(values), max(values)))
    return f"{mid} ({low}-{high}){unit}"


class Runc:
    """A bundle with a static hello; use as a context manager. `why` says why it cannot run."""

    def __enter__(self):
        self.why = None
        self.dir = tempfile.TemporaryDirectory(prefix="unid-bench-runc-")
        self.bundle = pathlib.Path(self.dir.name)
        self.runc = shutil.which("runc", path=os.environ["PATH"] + ":/usr/sbin")
        try:
            self.prepare()
        except (OSError, subprocess.CalledProcessError) as e:
            said = (getattr(e, "stderr", None) or str(e)).strip()
            self.why = said.splitlines()[-1]
        return self

    def __exit__(self, *exc):
        self.dir.cleanup()

    def prepare(self):
        if not self.runc:
            raise FileNotFoundError("runc is not installed")
        (self.bundle / "rootfs").mkdir()
        (self.bundle / "hello.c").write_text(HELLO_C)
        self.do("gcc", "-O2", "-static", "-o", "rootfs/hello", "hello.c")
        self.do(self.runc, "spec", *(["--rootless"] if os.geteuid() else []))
        config = self.bundle / "config.json"
        spec = json.loads(config.read_text())
        spec["process"]["terminal"] = False
        spec["process"]["args"] = ["/hello"]
        config.write_text(json.dumps(spec))
        self.do(self.runc, "run", f"unid-bench-{os.getpid()}")

    def do(self, *words):
        subprocess.run(words, cwd=self.bundle, check=True, capture_output=True, text=True)

    def run_ms(self):
        """From starting `runc run` to the first byte of what the container writes."""
        begin = time.perf_counter()
        with subprocess.Popen([self.runc, "run", f"unid-bench-{os.getpid()}"], cwd=self.bundle,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            first = os.read(process.stdout.fileno(), 64)
            took = (time.perf_counter() - begin) * 1e3
        if first != b"hello\n" or process.returncode:
            raise SystemExit(f"runc: {process.returncode} {first!r}")
        return took


def ask_paced(daemon, count, before_each):
    """Calls `hello` after each call of `before_each`. Gives the milliseconds to the first byte at the
    client, and those of the receipts, in the same order."""
    seen, ids = [], []
    for _ in range(count):
        before_each()
        took, answer = get(daemon.address)
        seen.append(took)
        ids.append(re.search(r"X-Unid-Invocation-Id: (\w+)", answer, re.I).group(1))
    receipts = {}
    while not set(ids) <= set(receipts):
        receipts = {r["id"]: r for r in receipts_of(daemon, "hello", count)}
    return seen, [first_byte_ms(receipts[i]) for i in ids]


def against(what, theirs, daemon, goal, rounds=40):
    """One of theirs, one of ours, in turn, so that what disturbs the machine disturbs both; the end of
    either's processes disturbs neither."""
    others = []

    def other():
        time.sleep(SETTLE_S)
        others.append(theirs())
        time.sleep(SETTLE_S)

    client, accepted = ask_paced(daemon, rounds, other)
    row(f"{what}: median, p99", f"{median(others):.1f}, {p99(others):.1f} ms")
    for name, ours, want in (("accepted to first byte", accepted, goal),
                             ("at the client", client, "")):
        row(f"  unid in turn with it, {name}: median, p99",
            f"{median(ours):.2f}, {p99(ours):.2f} ms")
        row("    ratio, pair by pair: median",
            f"{median([t / o for o, t in zip(ours, others)]):.0f}", want)


def bench_native():
    print("native: `hello`, one request after the other, a fresh VM each (kvm, isolation vm)")
    if not have_kvm():
        return
    with Daemon("--driver", "kvm") as daemon, Runc() as runc:
        daemon.deploy("hello", daemon.push(EXAMPLES / "hello"), memory_mib=16)
        runs = []
        for _ in range(ROUNDS):
            out = subprocess.run(
                [BUILD / "bin" / "unictl", "--host", "http://%s:%d" % daemon.address, "bench",
                 "hello", "-n", "400", "--json"], check=True, stdout=subprocess.PIPE).stdout
            runs.append(json.loads(out))
        if any(run["fresh"] != 400 for run in runs):
            raise SystemExit("not every request had a fresh VM")

        def of(key, percentile):
            return spread([r["times"][key][percentile] / 1e3 for r in runs], " ms", 2)

        print(f"  {ROUNDS} rounds of 400: the median round (best-worst)")
        row("accepted to first byte: p50", of("to_first_byte_us", "p50"), "<= 0.5 ms")
        row("accepted to first byte: p99", of("to_first_byte_us", "p99"), "<= 3 ms")
        row("at the client, request sent to first byte: p50", of("client_first_byte_us", "p50"))
        row("at the client, request sent to first byte: p99", of("client_first_byte_us", "p99"))
        for key in runs[0]["times"]:
            if key not in ("to_first_byte_us", "client_first_byte_us"):
                row(f"  phase {key}: p50, p99",
                    ", ".join(f"{median([r['times'][key][p] for r in runs]):.0f}"
                              for p in ("p50", "p99")))
        client, accepted = ask_paced(daemon, 400, lambda: time.sleep(0.005))
        row("with 5 ms between requests, accepted to first byte: p50, p99",
            f"{median(accepted):.2f}, {p99(accepted):.2f} ms")
        row("  at the client: p50, p99", f"{median(client):.2f}, {p99(client):.2f} ms")
        if runc.why:
            print(f"  skipped: runc: {runc.why}")
        else:
            against("runc run of a static hello, to its first byte", runc.run_ms, daemon, ">= 20")
        against("QEMU microvm started directly, same image", lambda: direct_ms(1)[0], daemon,
                ">= 40")


def wrk(daemon, threads=1):
    """Five seconds of eight connections. Gives requests a second, failures, unid's CPU us each."""
    before = daemon.cpu_us()
    out = subprocess.run(
        ["wrk", "-c8", f"-t{threads}", "-d5s", "http://%s:%d/fn/hello" % daemon.address],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    used = daemon.cpu_us() - before
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: (.*)", out)
    failed = int(bad.group(1)) if bad else 0
    failed += sum(map(int, re.findall(r"\d+", broken.group(1)))) if broken else 0
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), failed, used / requests


def rate_of(daemon, what, goal):
    wrk(daemon)  # the pool grows to what the load needs
    runs = [wrk(daemon) for _ in range(ROUNDS)]
    row(what, spread([r[0] for r in runs]), goal)
    row("  answers that were not 2xx, in all", str(sum(r[1] for r in runs)), "0")
    row("  unid's own CPU time a request", spread([r[2] for r in runs], " us"), "<= 60 us")
    newest = receipts_of(daemon, "hello", 1000)
    row("  of the newest 1,000 receipts, in a fresh VM", str(sum(r["fresh"] for r in newest)))


def bench_rate():
    print(f"rate: `hello`, 8 connections (wrk), the median of {ROUNDS} times 5 s (kvm)")
    if not have_kvm():
        return
    if not shutil.which("wrk"):
        print("  skipped: wrk is not installed")
        return
    with Daemon("--driver", "kvm") as daemon:
        digest = daemon.push(EXAMPLES / "hello")
        daemon.deploy("hello", digest, memory_mib=16)
        rate_of(daemon, "isolation vm: requests a second", ">= 800")
        config = {"image": digest, "memory_mib": 16, "isolation": "reset"}
        if daemon.may("PUT", "/api/v1/functions/hello", config):
            rate_of(daemon, "isolation reset: requests a second", ">= 5000")
        else:
            print("  skipped: this unid does not know isolation reset")


def available_mib():
    """What the whole machine could still give, the kernel's own memory for VMs counted."""
    text = pathlib.Path("/proc/meminfo").read_text()
    return int(re.search(r"^MemAvailable:\s+(\d+)", text, re.M).group(1)) / 1024


def open_requests(daemon, count, request):
    sockets = []
    for _ in range(count):
        sockets.append(socket.create_connection(daemon.address, 120))
        sockets[-1].sendall(request)
    return sockets


def answers(sockets):
    """How many are answered with 200."""
    good = 0
    for s in sockets:
        data = b""
        while piece := s.recv(65536):
            data += piece
        good += data.startswith(b"HTTP/1.1 200 ")
        s.close()
    return good


def wait_for_running(daemon, count, seconds):
    """The most that run at once, as soon as all do, or as soon as they get fewer."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        now = len(daemon.instances("running"))
        if now == count or now < most:
            return max(now, most)
        most = now
        time.sleep(0.2)
    return most


def wait_for_quiet(daemon):
    while daemon.instances("running") or daemon.instances("ending"):
        time.sleep(0.1)
    time.sleep(1)


def many(daemon, what, request, finish, goal):
    count = 1000
    wait_for_quiet(daemon)
    before = available_mib()
    begin = time.monotonic()
    sockets = open_requests(daemon, count, request)
    running = wait_for_running(daemon, count, 100)
    took = time.monotonic() - begin
    taken = before - available_mib()
    parts = list(filter(None, map(pss_kib, [daemon.pid, *daemon.descendants()])))
    for s in sockets if finish else []:
        s.sendall(finish)
    good = answers(sockets)
    row(f"{what}: running at once", f"{running} after {took:.1f} s", str(count))
    row(f"  PSS of unid and its {len(parts) - 1} processes together",
        f"{sum(parts) / 1024:.0f} MiB", goal)
    row("  less memory available on the machine", f"{taken:.0f} MiB", goal)
    row("  answered with 200", str(good), str(count))


def bench_density():
    print("density: memory of shells and of VMs of 16 MiB (kvm)")
    if not have_kvm():
        return
    if os.geteuid():
        print("  skipped: monitors' memory can be read by root only")
        return
    with Daemon("--driver", "kvm", "--memory", "20000", "--pool-min", "8",
                "--set", "pool.shell_mib=16", "--set", "http.max_connections=1100",
                "--set", "limits.queue_per_function=1000", "--set", "limits.queue_total=1000",
                "--set", "limits.queue_wait_ms=100000") as daemon:
        sleep = daemon.push(EXAMPLES / "sleep")
        limits = {"memory_mib": 16, "concurrency": 1000, "timeout_ms": 200000}
        daemon.deploy("nap", sleep, args=["1500"], **limits)
        daemon.deploy("sleep", sleep, args=["60000"], **limits)
        daemon.deploy("count", daemon.push(EXAMPLES / "wc"), **limits)
        daemon.wait_for_shells(8)
        time.sleep(1)
        shells = [i["pid"] for i in daemon.instances("idle")]
        monitors = {i["pid"] for i in daemon.ask("GET", "/api/v1/instances")["items"]}
        others = [pss_kib(p) for p in daemon.descendants() if p not in monitors]
        row("PSS of an idle shell, 8 of them: median",
            f"{median(map(pss_kib, shells)) / 1024:.2f} MiB", "<= 1.0 MiB")
        row(f"PSS of the spawner, {len(others)} processes", f"{sum(others) / 1024:.2f} MiB")
        row("PSS of unid", f"{pss_kib(daemon.pid) / 1024:.1f} MiB")
        request = b"GET /fn/nap HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        sockets = open_requests(daemon, 4, request)
        wait_for_running(daemon, 4, 1)
        running = [pss_kib(i["pid"]) for i in daemon.instances("running")]
        row(f"PSS of a running VM, {len(running)} of them: median",
            f"{median(running) / 1024:.2f} MiB", "<= 1.5 MiB")
        answers(sockets)
        many(daemon, "VMs that wait for their body",
             b"POST /fn/count HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nx",
             b"y", "<= 2048 MiB")
        many(daemon, "VMs of `sleep` (60 s, on the CPU)",
             b"GET /fn/sleep HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"", "<= 2048 MiB")
