"""Who gets in when many want to: herds, reserved places, requests that each wake a VM."""

import collections
import concurrent.futures
import pathlib
import sys
import threading

import pytest

import harness
from harness import wait_for
from test_gateway import waiting_call

sys.path.insert(0, str(pathlib.Path(harness.ROOT) / "bench"))
from load import herd, raise_limit, wakes  # noqa: E402 (the load generators of the bench)

HERD = 3000


def test_every_one_of_a_herd_at_a_cold_function_is_answered(make_unid):
    try:
        raise_limit(HERD + 500)
    except (OSError, ValueError) as error:
        pytest.skip(f"no {HERD} connections can be open here: {error}")
    unid = make_unid(["--pool-min", "0", "--set", "limits.queue_wait_ms=60000"]).start()
    unid.deploy("cold", "sleep", "5", concurrency=4)
    stop, most = threading.Event(), [0]

    def look():
        while not stop.is_set():
            states = collections.Counter(i["state"] for i in unid.instances())
            most[0] = max(most[0], states["bound"] + states["running"] + states["starting"])

    watcher = threading.Thread(target=look)
    watcher.start()
    seen, at_once = herd(("127.0.0.1", unid.port), "/fn/cold", HERD, 200)
    stop.set()
    watcher.join()
    seen = {status: n for status, n in seen.items() if n}
    assert at_once == HERD
    assert set(seen) == {200, 429}, seen
    assert sum(seen.values()) == HERD and seen[200] > 500
    assert 0 < most[0] <= 4 + 4, "no more VMs than places, and shells for the next"


def test_who_would_wait_too_long_is_told_when_to_come_back(make_unid):
    unid = make_unid(["--set", "limits.queue_wait_ms=1000"]).start()
    unid.deploy("slow", "sleep", "400", concurrency=1)
    for _ in range(8):
        unid.call("slow").ok()
    with unid.stopped():
        sockets = [waiting_call(unid, "slow") for _ in range(12)]
    answers = [harness.read_answer(sock) for sock in sockets]
    refused = [a for a in answers if a.status == 429]
    assert {a.status for a in answers} == {200, 429}
    # One that seemed to come in time may have waited in vain, where the machine has become slower.
    at_once = [a for a in refused if a.problem()["outcome"] != "wait-expired"]
    assert len(at_once) >= 8
    assert all(harness.timing(a)["queue"] < 1000 for a in at_once), "told before it has waited"
    assert all(int(a.headers["Retry-After"]) >= 1 for a in refused)


def test_a_function_that_never_fits_is_not_deployed(make_unid):
    unid = make_unid(["--memory", "256", "--pool-min", "0"]).start()
    digest = unid.push()
    for check in ("", "?check=1"):
        answer = unid.put(f"/api/v1/functions/large{check}", {"image": digest, "memory_mib": 512})
        detail = answer.problem(400)["detail"]
        assert "512 MiB" in detail and "256" in detail and "memory_mib" in detail
    unid.get("/api/v1/functions/large").problem(404)
    unid.deploy("whole", "hello", image=digest, memory_mib=256)
    unid.call("whole").ok()
    unid.stop()
    unid.flags[unid.flags.index("256")] = "128"
    unid.start()
    assert "256 MiB" in unid.call("whole").problem(503)["detail"]


def test_reserved_places_are_checked_shown_and_kept(make_unid, gate):
    unid = make_unid(["--memory", "256", "--pool-min", "0"]).start()
    digest = unid.push()
    shown = unid.deploy("vip", "hello", image=digest, concurrency=2, reserved_concurrency=2)
    assert shown["reserved_concurrency"] == 2
    assert unid.deploy("plain", "hello", image=digest)["reserved_concurrency"] == 0
    body = {"image": digest, "concurrency": 9, "reserved_concurrency": 3}

    def refused():
        answer = unid.put("/api/v1/functions/other", body)
        return answer.status == 400 and answer.problem(400)["detail"]

    detail = wait_for(refused, "both do not fit")
    assert "reserved_concurrency" in detail and "256 MiB" in detail
    more = {"image": digest, "concurrency": 1, "reserved_concurrency": 2}
    assert "concurrency" in unid.put("/api/v1/functions/other", more).problem(400)["detail"]
    gate.deploy(unid, "flood", image=digest)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        flood = [pool.submit(unid.call, "flood") for _ in range(6)]
        wait_for(lambda: len([i for i in unid.instances() if i["state"] == "running"]) == 2, "two")
        for _ in range(5):
            unid.call("vip").ok()
        assert len([i for i in unid.instances() if i["function"] == "flood"]) == 2
        gate.open()
        for answer in flood:
            answer.result().ok()
    unid.stop()
    unid.start()
    assert wait_for(refused, "it is known after a restart")
    done = unid.unictl("deploy", "cli", digest, "--concurrency", "3", "--reserved", "1", "--json")
    assert done.ok().json["reserved_concurrency"] == 1
    assert unid.unictl("deploy", "cli", digest, "--reserved", "-1").status == 2


def test_no_request_that_wakes_a_vm_ends_in_502(make_unid):
    unid = make_unid(["--pool-min", "2", "--pool-max", "4"]).start()
    unid.deploy("hello", "hello")
    assert wakes(("127.0.0.1", unid.port), 1600) == {200: 1600}
    items = unid.get("/api/v1/invocations?function=hello&limit=1000").json["items"]
    assert all(r["fresh"] for r in items)


@pytest.mark.kvm
def test_no_request_that_wakes_a_real_vm_ends_in_502(make_unid):
    unid = make_unid(driver="kvm").start()
    unid.deploy("hello", image=(harness.EXAMPLES / "hello").read_bytes())
    assert wakes(("127.0.0.1", unid.port), 800) == {200: 800}
