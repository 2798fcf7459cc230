"""Ports that functions publish, and private names of functions: what is reached there, who owns a port,
what restarts and conflicts do."""

import http.client
import json
import os
import re
import socket

import pytest

import harness
from harness import wait_for
from test_faults import needs_fault_points


@pytest.fixture
def daemon(tmp_path):
    daemon = harness.Daemon(tmp_path, driver="fake").start()
    yield daemon
    assert daemon.stop() == 0, daemon.log()[-3000:]


def port_of(function, index=0):
    return int(function["ports"][index]["address"].rsplit(":", 1)[1])


def ask(port, path="/", method="GET", body=None, fields=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=harness.ANSWER_S)
    connection.request(method, path, body, fields or {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer, data


def test_whole_path_is_the_function_s(daemon):
    shown = daemon.deploy("page", "cgi", interface="cgi", publish=["0"])
    port = port_of(shown)
    assert shown["publish"] == ["127.0.0.1:0"] and shown["ports"][0]["error"] is None
    answer, body = ask(port, "/api/v1/functions?x=1")
    text = body.decode("latin1")
    assert "REQUEST_URI=/api/v1/functions?x=1" in text, (answer.status, text)
    assert "SCRIPT_NAME=\n" in text, text
    assert "PATH_INFO=/api/v1/functions" in text
    assert daemon.get("/fn/page/a").ok().body.decode("latin1").count("SCRIPT_NAME=/fn/page") == 1
    answer, _ = ask(port, "/a/../b")
    assert answer.status == 400


def test_programs_that_unid_starts_do_not_inherit_ports(daemon):
    port = port_of(daemon.deploy("page", "echo", publish=["0"]))
    process = f"/proc/{daemon.process.pid}"
    lines = [line.split() for line in open(f"{process}/net/tcp").readlines()[1:]]
    inodes = {f"socket:[{line[9]}]" for line in lines if line[1].endswith(f":{port:04X}")}
    found = [fd for fd in os.listdir(f"{process}/fd") if os.readlink(f"{process}/fd/{fd}") in inodes]
    assert found
    for fd in found:
        flags = re.search(r"^flags:\s+(\d+)", open(f"{process}/fdinfo/{fd}").read(), re.M)[1]
        assert int(flags, 8) & os.O_CLOEXEC, fd


def test_port_needs_no_host_and_no_token(daemon):
    port = port_of(daemon.deploy("page", "echo", publish=["0"]))
    answer, body = ask(port, "/", "POST", b"hello", {"Host": "attacker.test", "Origin": "http://x.test"})
    assert answer.status == 200 and body == b"hello"


def test_conflicts_are_refused_by_name(daemon):
    port = port_of(daemon.deploy("one", "echo", publish=["0"]))
    again = daemon.deploy("one", "echo", publish=["0"])
    assert port_of(again) == port and again["version"] == 1
    digest = daemon.push()
    problem = daemon.put(
        "/api/v1/functions/two", {"image": digest, "publish": [f"{port}"]}
    ).problem(409)
    assert f"127.0.0.1:{port}" in problem["detail"] and "one" in problem["detail"]
    taken = harness.free_port()
    with socket.create_server(("127.0.0.1", taken)):
        problem = daemon.put(
            "/api/v1/functions/two", {"image": digest, "publish": ["0", f"{taken}"]}
        ).problem(409)
        assert str(taken) in problem["detail"]
    daemon.get("/api/v1/functions/two").problem(404)
    assert "unid_ports 1" in daemon.get("/metrics").ok().body.decode()
    # A deploy that is refused later gives its ports back.
    daemon.put("/api/v1/functions/three", {"image": digest, "args": ["echo"], "publish": [str(taken)]}).ok(201)
    daemon.delete("/api/v1/functions/three").ok(204)
    daemon.put("/api/v1/functions/two", {"image": digest, "args": ["echo"], "publish": [str(taken)]}).ok(201)
    assert ask(taken, "/", "POST", b"x")[1] == b"x"


CHANGES = {
    "removal": lambda unid, without: unid.delete("/api/v1/functions/one").ok(204),
    "update": lambda unid, without: unid.put("/api/v1/functions/one", without | {"args": ["hello"]}).ok(200),
    "rollback": lambda unid, without: unid.post("/api/v1/functions/one/rollback", {}).ok(200),
    "alias": lambda unid, without: unid.put("/api/v1/functions/one/aliases/live", {"version": 1}).ok(200),
}


@needs_fault_points
@pytest.mark.parametrize("change", CHANGES)
def test_a_port_that_is_let_go_is_free_when_that_is_answered(make_unid, change):
    """Nothing can be looked up after the change here, so what is free must be so before the answer."""
    unid = make_unid(env={"UNID_FAULTS": "door.lookup=ENOMEM@1+"}).start()
    unid.may_log_errors = True
    without = {"image": unid.push(), "args": ["echo"]}
    published = without | {"publish": [str(harness.free_port())]}
    unid.put("/api/v1/functions/one", without).ok(201)
    unid.put("/api/v1/functions/one", published).ok(200)
    unid.put("/api/v1/functions/two", published).problem(409)
    CHANGES[change](unid, without)
    unid.put("/api/v1/functions/two", published).ok(201)


def test_ports_are_there_after_a_restart(daemon):
    port = port_of(daemon.deploy("page", "echo", publish=["0"]))
    daemon.put(
        "/api/v1/functions/page", {"image": daemon.push(), "args": ["echo"], "publish": [str(port), "0"]}
    )
    # The port that was the kernel's choice is now asked for by number: by the same function, at once.
    shown = daemon.get("/api/v1/functions/page").ok().json
    assert shown["version"] in (1, 2)
    fixed = harness.free_port()
    daemon.put(
        "/api/v1/functions/fixed", {"image": daemon.push(), "args": ["echo"], "publish": [str(fixed)]}
    ).ok(201)
    daemon.stop()
    daemon.start()
    assert ask(fixed, "/", "POST", b"again")[1] == b"again"


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_port_taken_at_start_is_told_and_tried_again(daemon):
    port = harness.free_port()
    body = {"image": daemon.push(), "args": ["echo"], "publish": [str(port)]}
    daemon.put("/api/v1/functions/fixed", body).ok(201)
    daemon.stop()
    with socket.create_server(("127.0.0.1", port)):
        daemon.start()
        shown = daemon.get("/api/v1/functions/fixed").ok().json
        assert "in use" in shown["ports"][0]["error"]
        assert "is not open" in daemon.unictl("describe", "fixed").ok().text
        findings = daemon.get("/api/v1/doctor").ok().json["findings"]
        assert [f for f in findings if f["check"] == f"port 127.0.0.1:{port}" and f["status"] == "warn"]
        assert "unid_ports_failed 1" in daemon.get("/metrics").ok().body.decode()
        assert "cannot be opened" in daemon.log()
        assert daemon.post("/fn/fixed", b"all the same").ok().body == b"all the same"
    wait_for(lambda: not refused(port), "it is opened when it is free")
    wait_for(
        lambda: daemon.get("/api/v1/functions/fixed").json["ports"][0]["error"] is None, "and said so"
    )


def test_rollback_and_removal_close_ports(daemon):
    daemon.deploy("page", "echo")
    port = port_of(daemon.deploy("page", "echo", publish=["0"]))
    assert ask(port, "/", "POST", b"x")[1] == b"x"
    daemon.post("/api/v1/functions/page/rollback", {}).ok(200)
    assert refused(port)
    assert daemon.get("/api/v1/functions/page").json["ports"] == []


def test_function_reaches_another_by_its_name(daemon):
    daemon.deploy("upper", "echo")
    request = "POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody"
    daemon.deploy("caller", "net", "upper.internal:80", request, egress=["upper.internal:*"])
    answer = daemon.get("/fn/caller").ok().body
    assert b"200 OK" in answer and answer.endswith(b"body"), answer
    receipts = wait_for(
        lambda: daemon.get("/api/v1/invocations?function=upper").json["items"], "the receipt"
    )
    assert receipts[0]["trigger"] == "http" and receipts[0]["status"] == 200


def test_names_of_nobody_and_without_leave(daemon):
    daemon.deploy("lost", "net", "nobody.internal:80", "x", egress=["nobody.internal:80"])
    daemon.get("/fn/lost")
    daemon.deploy("shy", "net", "lost.internal:80", "x")
    assert "error 13" in daemon.get("/fn/shy").problem(502)["log_tail"]


@pytest.mark.parametrize("concurrency", [4, 100])
def test_function_that_calls_itself_is_bounded(daemon, concurrency):
    request = "GET / HTTP/1.0\r\n\r\n"
    daemon.deploy(
        "circle", "net", "circle.internal:80", request, egress=["circle.internal:80"], concurrency=concurrency,
        timeout_ms=1500,
    )
    answer = daemon.get("/fn/circle", timeout=60)
    assert answer.status in (200, 502, 504), answer.status
    if answer.status != 504:
        logs = "/api/v1/functions/circle/logs"
        wait_for(lambda: b"called each other 16 times" in daemon.get(logs).ok().body, "it is told")
    wait_for(lambda: not [i for i in daemon.instances() if i["state"] == "running"], "all have ended")


def test_unictl_publishes(daemon, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(harness.sdk_image())
    shown = json.loads(
        daemon.unictl("deploy", "page", image, "--publish", "0", "--json", "--", "echo").ok().text
    )
    assert ask(port_of(shown), "/", "POST", b"x")[1] == b"x"
    assert f"127.0.0.1:{port_of(shown)}" in daemon.unictl("describe", "page").ok().text
    assert daemon.unictl("deploy", "page", image, "--publish", "x").status == 1
