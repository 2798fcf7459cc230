"""admission.py - the sections of bench/run that measure admission: 10,000 connections at once to one
cold function, and whether any of many requests that each wake a VM ends in 502.
"""
import os
import time

from harness import EXAMPLES, Daemon, row
from load import herd, raise_limit, wakes

CONNECTIONS = 10_000
WAKES = 100_000


def bench_herd():
    print(f"herd: {CONNECTIONS:,} simultaneous connections to one cold function with concurrency 4")
    raise_limit(CONNECTIONS + 1000)
    for driver in ("fake", "kvm"):
        if driver == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            print("  skipped: no /dev/kvm")
            continue
        with Daemon("--driver", driver, "--pool-min", "0", "--set",
                    "limits.queue_wait_ms=10000") as daemon:
            config = {"args": ["sleep", "20"]} if driver == "fake" else {}
            daemon.deploy("cold", daemon.push(EXAMPLES / "hello"), concurrency=4, **config)
            began = time.monotonic()
            seen, most = herd(daemon.address, "/fn/cold", CONNECTIONS)
            took = time.monotonic() - began
            peak = daemon.memory_kib("VmHWM") / 1024
        good, later = seen.pop(200, 0), seen.pop(429, 0)
        seen = {status: n for status, n in seen.items() if n}
        row(f"{driver}: open at once; answered 200, 429; in",
            f"{most}; {good}, {later}; {took:.1f} s", f"{CONNECTIONS}")
        row(f"{driver}: answered otherwise, or not", str(seen or 0), "0")
        row(f"{driver}: the daemon's peak memory", f"{peak:.0f} MiB", "<= 150 MiB")


def bench_wakes():
    count = int(os.environ.get("UNID_BENCH_WAKES", WAKES))
    print(f"wakes: {count:,} requests that each wake a VM of their own, 8 at a time")
    driver = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "fake"
    with Daemon("--driver", driver) as daemon:
        daemon.deploy("hello", daemon.push(EXAMPLES / "hello"), args=["hello"])
        began = time.monotonic()
        seen = wakes(daemon.address, count)
        took = time.monotonic() - began
        stale = sum(not r["fresh"] for r in
                    daemon.ask("GET", "/api/v1/invocations?function=hello&limit=1000")["items"])
    row(f"{driver}: answers by status", str(dict(seen)), "200 only")
    row("502", str(seen[502]), "0")
    row("requests a second; of the last 1000, not in a VM of their own",
        f"{sum(seen.values()) / took:.0f}; {stale}", "; 0")
