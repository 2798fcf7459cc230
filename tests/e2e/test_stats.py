"""GET /api/v1/stats: what functions do now, and what has been counted of them."""

import concurrent.futures
import contextlib
import re

import harness
from harness import wait_for


def stats(unid):
    return unid.get("/api/v1/stats").ok().json


def row_of(unid, name):
    return next((f for f in stats(unid)["functions"] if f["function"] == name), None)


@contextlib.contextmanager
def held(unid):
    """A function "held" with two calls that run and three that wait."""
    gate = harness.Gate()
    try:
        gate.deploy(unid, "held", concurrency=2, memory_mib=16)
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            calls = [pool.submit(unid.call, "held") for _ in range(5)]
            try:
                wait_for(
                    lambda: (row := row_of(unid, "held")) and (row["running"], row["waiting"]) == (2, 3),
                    "two run, three wait",
                )
                yield
            finally:
                gate.open()
            for call in calls:
                call.result().ok()
    finally:
        gate.close()


def test_stats_count_what_ended_what_failed_and_how_long_it_took(unid):
    assert stats(unid)["functions"] == []
    unid.deploy("good", "sleep", "20")
    unid.deploy("bad", "exit", "1")
    unid.deploy("answers-500", "status", "500")
    for _ in range(3):
        unid.call("good").ok()
    unid.call("bad").ok(502)
    unid.call("answers-500").ok(500)
    unid.call("nobody").ok(404)
    wait_for(lambda: sum(f["invocations"] for f in stats(unid)["functions"]) == 6, "all are counted")
    good, bad = row_of(unid, "good"), row_of(unid, "bad")
    assert (good["invocations"], good["failed"], good["ran"]) == (3, 0, 3)
    assert good["duration_us"] >= 3 * 20000
    assert (bad["invocations"], bad["failed"], bad["ran"]) == (1, 1, 1)
    assert row_of(unid, "answers-500")["failed"] == 1
    other = row_of(unid, None)
    assert (other["invocations"], other["failed"], other["ran"], other["duration_us"]) == (1, 1, 0, 0)
    first = stats(unid)
    assert stats(unid)["uptime_us"] > first["uptime_us"]
    assert stats(unid)["started_at"] == first["started_at"] < first["at"]
    assert 0 <= first["memory_mib"] <= first["memory_limit_mib"]
    unid.stop()
    unid.start()
    again = stats(unid)
    assert again["functions"] == [] and again["started_at"] != first["started_at"]


def test_stats_tell_who_runs_who_waits_and_what_is_ready(unid):
    with held(unid):
        wait_for(lambda: stats(unid)["ready"] > 0, "shells stand ready")
        now, row = stats(unid), row_of(unid, "held")
        mine = [i["memory_mib"] for i in unid.instances() if i["function"] == "held"]
        assert len(mine) == 2 and row["memory_mib"] == sum(mine)
        assert (now["running"], now["waiting"]) == (2, 3) and now["instances"] >= 3
        assert now["memory_mib"] >= sum(mine)


def test_stats_since_have_what_has_changed(unid):
    for name in ("one", "two"):
        unid.deploy(name, "hello")
        unid.call(name).ok()
    wait_for(lambda: {f["function"] for f in stats(unid)["functions"]} == {"one", "two"}, "both are counted")
    since = stats(unid)["uptime_us"]

    def changed(since):
        rows = unid.get(f"/api/v1/stats?since_uptime_us={since}").ok().json["functions"]
        return {f["function"]: f["invocations"] for f in rows}

    assert changed(since) == {} and changed(0) == {"one": 1, "two": 1}
    unid.call("two").ok()
    wait_for(lambda: changed(since) == {"two": 2}, "what has changed is there")
    unid.call("nobody").ok(404)
    wait_for(lambda: changed(since) == {"two": 2, None: 1}, "and what has no row of its own")
    assert changed(stats(unid)["uptime_us"] + 1) == {}
    problem = unid.get("/api/v1/stats?since_uptime_us=yesterday").problem(400)
    assert "whole number" in problem["detail"]


def test_functions_beyond_the_setting_are_counted_together(unid):
    unid.stop()
    unid.flags += ["--set", "metrics.functions=2"]
    unid.start()
    names = ["other", "b", "c", "d"]
    for name in names:
        unid.deploy(name, "hello")
        unid.call(name).ok()

    def counted():
        lines = unid.get("/metrics").ok().body.decode().splitlines()
        rows = (re.fullmatch(r'unid_invocations_total{function="(.*)",code="200"} (\d+)', line) for line in lines)
        return {row[1]: int(row[2]) for row in rows if row}

    wait_for(lambda: counted() == {"other": 1, "b": 1, "_other": 2}, "all are counted")
    for name in reversed(names):
        unid.call(name).ok()
    wait_for(lambda: counted() == {"other": 2, "b": 2, "_other": 4}, "in the rows that they have")
    assert row_of(unid, None)["invocations"] == 4


def test_vms_that_are_kept_are_ready(unid):
    unid.deploy("kept", "hello", isolation="reset")
    unid.call("kept").ok()
    wait_for(lambda: (row_of(unid, "kept") or {}).get("ready") == 1, "it is kept")
    assert row_of(unid, "kept")["memory_mib"] > 0
