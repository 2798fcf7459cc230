"""What unid answers when something below it fails: made to fail (common/fault.h), or a disk that is
really full."""

import contextlib
import os
import socket
import subprocess

import pytest

import harness
from harness import linux_image, read_answer, sdk_image


def has_fault_points():
    config = harness.BUILD / "config.h"
    return config.exists() and "#define UNID_FAULT_INJECTION 1" in config.read_text()


def needs_fault_points(test):
    without = not has_fault_points()
    test = pytest.mark.skipif(without, reason="built without --enable-fault-injection")(test)
    return pytest.mark.faults(test)


def restart(unid, faults=None):
    assert unid.stop() == 0
    unid.env = {"UNID_FAULTS": faults} if faults else {}
    return unid.start()


def state(unid):
    """All that REST tells of what is stored, but for URLs: a restarted daemon has another port."""
    paths = ("/api/v1/functions", "/api/v1/functions/f", "/api/v1/images")
    return [harness.without_url(unid.get(path).ok().json) for path in paths]


@needs_fault_points
@pytest.mark.parametrize(
    "fault, status", [("ENOSPC", 507), ("EDQUOT", 507), ("EIO", 500)], ids=lambda v: str(v)
)
def test_failed_commit_is_told_and_changes_nothing(unid, fault, status):
    unid.may_log_errors = True
    unid.deploy("f", "hello")
    digest = unid.push(sdk_image(b"2"))
    before = state(unid)
    restart(unid, f"store.commit={fault}@2+")  # the first is the start's own
    for name in ("f", "g"):
        answer = unid.put(f"/api/v1/functions/{name}", {"image": digest, "args": ["count"]})
        problem = answer.problem(status)
        assert "unid.db" not in problem["detail"], "a path of the machine is nobody's business"
    unid.delete("/api/v1/functions/f").problem(status)
    assert state(unid) == before
    assert unid.get("/api/v1/functions/g").status == 404
    unid.call("f").ok()  # calls need no disk
    restart(unid)
    assert state(unid) == before
    unid.put("/api/v1/functions/f", {"image": digest, "args": ["count"]}).ok()
    unid.call("f", b"abc").ok()


@needs_fault_points
def test_program_that_cannot_be_prepared_for_want_of_room_is_not_deployed(unid):
    unid.may_log_errors = True
    digest = unid.push(linux_image())
    restart(unid, "image.prepare=ENOSPC@1+")
    for _ in range(2):
        unid.put("/api/v1/functions/f", {"image": digest}).problem(507)
        unid.post(f"/api/v1/images/{digest}/check").problem(507)
    unid.get("/api/v1/functions/f").problem(404)
    assert list((unid.state / "cache/images").iterdir()) == []
    restart(unid)
    assert unid.post(f"/api/v1/images/{digest}/check").ok().json["runs"] is True
    deployed = unid.put("/api/v1/functions/f", {"image": digest}).ok(201).json
    assert deployed["kind"] == "linux-static" and deployed["interface"] == "filter"
    assert deployed["memory_mib"] > 128 and deployed["program"] is None


@needs_fault_points
def test_commit_that_fails_once_is_not_remembered(unid):
    unid.may_log_errors = True
    digest = unid.push()
    restart(unid, "store.commit=ENOSPC@6")
    answers = []
    for i in range(8):
        body = {"image": digest, "args": ["status", str(i)]}
        answers.append(unid.put("/api/v1/functions/f", body).ok(200, 201, 507))
    assert [a.status for a in answers].count(507) == 1
    versions = [a.json["version"] for a in answers if a.status != 507]
    assert versions == list(range(1, 8))
    assert unid.get("/api/v1/functions/f").ok().json["args"] == ["status", "7"]


@needs_fault_points
def test_connection_without_memory_is_closed_and_the_next_is_served(make_unid):
    unid = make_unid(env={"UNID_FAULTS": "http.conn=ENOMEM@1"}).start()
    with unid.raw() as sock:
        assert harness.closed(sock)
    unid.get("/healthz").ok()


# --- a full disk ----------------------------------------------------------------------------------

DISK_MIB = 64
IMAGE_BYTES = 3 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of DISK_MIB. (unid keeps 32 MiB of it free for what must still be written.)"""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"cannot run mount: {error}")
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr.decode(errors='replace').strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@contextlib.contextmanager
def filled(path):
    """Another program takes the rest of the disk."""
    file = path / "someone-elses"
    with open(file, "wb", buffering=0) as out:
        with contextlib.suppress(OSError):
            while out.write(b"x" * 65536):
                pass
    try:
        yield
    finally:
        file.unlink()


def disk_finding(unid):
    findings = unid.get("/api/v1/doctor").ok().json["findings"]
    return next(f for f in findings if f["check"] == "disk")


def push_until_full(unid):
    """Gives the digests of the images that it still took."""
    digests = []
    for i in range(2 * DISK_MIB * (1 << 20) // IMAGE_BYTES):
        answer = unid.post("/api/v1/images", sdk_image(b"%04d" % i, IMAGE_BYTES))
        if answer.status == 507:
            answer.problem(507)
            return digests
        digests.append(answer.ok(201).json["digest"])
    raise AssertionError("the disk is never full")


@pytest.fixture
def cramped(small_disk, make_unid):
    unid = make_unid()
    unid.may_log_errors = True
    unid.state = small_disk / "state"
    yield unid.start()
    unid.stop()


def test_full_disk_is_507_and_what_is_stored_stays(cramped):
    unid = cramped
    unid.deploy("f", "hello")
    assert disk_finding(unid)["status"] == "ok"
    digests = push_until_full(unid)
    assert len(digests) >= 3
    with filled(unid.state.parent):
        told = disk_finding(unid)
        assert told["status"] == "fail" and "0 MiB free" in told["detail"] and told["fix"]
        assert str(unid.state) not in unid.post("/api/v1/images", sdk_image()).problem(507)["detail"]
    listed = {i["digest"] for i in unid.get("/api/v1/images").ok().json["items"]}
    assert set(digests) <= listed and len(listed) == len(digests) + 1
    unid.call("f").ok()
    restart(unid)
    again = {i["digest"] for i in unid.get("/api/v1/images").ok().json["items"]}
    assert again == listed
    # Removing needs room in the log, which the reserve is for; then there is room again.
    for digest in digests:
        unid.delete(f"/api/v1/images/{digest}").ok(204)
    unid.push(sdk_image(b"small"))
    unid.deploy("g", "hello", image=unid.push(sdk_image(b"again", IMAGE_BYTES)))
    unid.call("g").ok()


def test_volume_without_room_is_507_and_nothing_is_half_made(cramped, small_disk):
    unid = cramped
    image = unid.push(bytes(510) + b"\x55\xaa" + os.urandom(2 << 20))
    unid.put("/api/v1/volumes/kept", {"size_mib": 1024}).ok(201)
    with filled(small_disk):
        unid.put("/api/v1/volumes/full", {"image": image}).problem(507)
        unid.put("/api/v1/volumes/empty", {"size_mib": 1}).problem(507)
    files = {f.name for f in (unid.state / "volumes").iterdir()}
    assert files == {"kept"}
    assert [v["name"] for v in unid.get("/api/v1/volumes").ok().json["items"]] == ["kept"]
    unid.put("/api/v1/volumes/full", {"image": image}).ok(201)


def test_disk_without_a_byte_left_refuses_writes_and_serves_calls(cramped, small_disk):
    unid = cramped
    unid.deploy("f", "hello")
    digest = unid.push(sdk_image(b"2"))
    before = state(unid)
    unid.call("f").ok()
    with filled(small_disk):
        body = {"image": digest, "args": ["count"]}
        unid.put("/api/v1/functions/f", body).problem(507)
        unid.post("/api/v1/images", sdk_image(b"3")).problem(507)
        unid.call("f").ok()
        assert state(unid) == before
        restart(unid)
        assert state(unid) == before
        unid.call("f").ok()
        with unid.raw() as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_answer(sock).status == 200
    unid.put("/api/v1/functions/f", body).ok()
    unid.call("f", b"abc").ok()


@needs_fault_points
def test_deploy_that_fails_gives_its_ports_back(unid):
    unid.may_log_errors = True
    digest = unid.push()
    port = harness.free_port()
    body = {"image": digest, "args": ["echo"], "publish": [str(port)]}
    restart(unid, "store.commit=ENOSPC@2+")
    unid.put("/api/v1/functions/f", body).problem(507)
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert "unid_ports 0" in unid.get("/metrics").ok().body.decode()
    restart(unid, "door.gate=ENOMEM@1")
    unid.put("/api/v1/functions/f", body).problem(500)
    unid.put("/api/v1/functions/f", body).ok(201)
    restart(unid, "door.listen=EADDRINUSE@1")  # at the start: it is tried again
    error = unid.get("/api/v1/functions/f").ok().json["ports"][0]["error"]
    assert "in use" in error
    harness.wait_for(
        lambda: unid.get("/api/v1/functions/f").json["ports"][0]["error"] is None, "it is open"
    )


@needs_fault_points
@pytest.mark.parametrize("fault", ["dial.alloc=ENOMEM@1", "door.lookup=ENOMEM@2", "egress.conn=ENOMEM@1"])
def test_private_name_without_memory_is_a_failed_connection(unid, fault):
    unid.may_log_errors = True
    unid.deploy("callee", "echo")
    unid.deploy(
        "caller", "net", "callee.internal:80", "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx",
        egress=["callee.internal:80"],
    )
    restart(unid, fault)
    first = unid.get("/fn/caller")
    assert first.status in (200, 502), first.status
    assert not first.body.endswith(b"x")
    assert unid.get("/fn/caller").ok().body.endswith(b"x")
