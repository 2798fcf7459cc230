"""kill -9 at any time: what was answered with 2xx is there afterwards, and nothing is left of what
was not."""

import hashlib
import os
import subprocess
import threading
import time

import pytest

import harness
import taps
from harness import sdk_image, wait_for


def restart(unid):
    unid.kill()
    unid.start()


def versions(unid):
    return harness.without_url(unid.get("/api/v1/functions/f/versions").ok().json)


def test_images_functions_and_aliases_survive(unid):
    digest = unid.push(sdk_image(b"kept"))
    for n in (1, 2, 3):
        unid.deploy("f", "size", str(n), image=digest)
    unid.put("/api/v1/functions/f/aliases/stable", {"version": 1}).ok()
    unid.post("/api/v1/functions/f/rollback").ok()
    unid.put("/api/v1/tags/app:1", {"digest": digest}).ok()
    before = versions(unid)
    restart(unid)
    assert versions(unid) == before
    assert len(unid.call("f").ok().body) == 2
    assert len(unid.call("f:stable").ok().body) == 1
    assert unid.get("/api/v1/images/app:1").ok().json["digest"] == digest
    assert unid.get(f"/api/v1/images/{digest}/content").ok().body == sdk_image(b"kept")


def test_accepted_work_is_done_after_the_crash(unid):
    unid.deploy("f", "sleep", "300", concurrency=1)
    path = "/api/v1/functions/f/invocations?mode=async"
    ids = [unid.post(path, b"x" * 1000).ok(202).json["id"] for _ in range(5)]
    restart(unid)
    for invocation in ids:
        receipt = unid.receipt(invocation)
        assert receipt["outcome"] == "ok" and receipt["bytes_in"] == 1000
    assert {unid.get(f"/api/v1/invocations/{i}").status for i in ids} == {200}


def test_every_acknowledged_deploy_survives_a_kill_among_them(unid):
    digest = unid.push()
    acknowledged, stop = [], threading.Event()

    def deploy(worker):
        for n in range(1000):
            if stop.is_set():
                return
            try:
                unid.deploy(f"w{worker}-{n}", "hello", image=digest)
            except (OSError, harness.http.client.HTTPException):
                return
            acknowledged.append(f"w{worker}-{n}")

    workers = [threading.Thread(target=deploy, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    wait_for(lambda: len(acknowledged) > 20, "some deploys")
    unid.kill()
    stop.set()
    for worker in workers:
        worker.join()
    unid.start()
    for name in acknowledged:
        unid.get(f"/api/v1/functions/{name}").ok()
        unid.call(name).ok()


def test_volumes_are_whole_or_not_there_after_a_kill_among_their_makings(unid):
    image = unid.push(bytes(510) + b"\x55\xaa" + b"x" * (2 << 20))
    seen = {}  # by name: whether it was answered that it is there; None while nothing was

    def work(worker, stop):
        for n in range(1000):
            if stop.is_set():
                return
            name = f"v{n % 3}-{worker}"
            how = {"image": image, "size_mib": 4} if n % 2 else {"size_mib": 4}
            try:
                seen[name] = None
                there = unid.put(f"/api/v1/volumes/{name}", how).status in (200, 201, 409)
                if n % 4 == 3:
                    seen[name] = None
                    there = unid.delete(f"/api/v1/volumes/{name}").status not in (204, 404)
                seen[name] = there
            except (OSError, harness.http.client.HTTPException):
                return

    for round_ in range(8):
        stop = threading.Event()
        threads = [threading.Thread(target=work, args=(w, stop)) for w in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05 + 0.03 * round_)
        unid.kill()
        stop.set()
        for thread in threads:
            thread.join()
        unid.start()
        listed = {v["name"]: v for v in unid.get("/api/v1/volumes").ok().json["items"]}
        files = {f.name: f.stat().st_size for f in (unid.state / "volumes").iterdir()}
        assert set(files) == set(listed)
        assert all(size == 4 << 20 == listed[name]["size"] for name, size in files.items())
        for name, there in seen.items():
            assert there is None or there == (name in listed), name
            seen[name] = name in listed


def test_upload_cut_by_a_kill_leaves_nothing(unid):
    data = sdk_image(b"cut", size=20_000_000)
    unid.push(sdk_image(b"small"))
    sock = unid.raw()
    sock.sendall(
        b"POST /api/v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data)
    )
    sock.sendall(data[:15_000_000])
    unid.kill()
    sock.close()
    unid.start()
    unid.get("/api/v1/images/sha256:" + hashlib.sha256(data).hexdigest()).problem(404)
    assert len(unid.get("/api/v1/images").ok().json["items"]) == 1
    database = sum(p.stat().st_size for p in unid.state.glob("unid.db"))
    unid.post("/api/v1/images", data).ok(201)
    # The space of what was cut is used again.
    assert sum(p.stat().st_size for p in unid.state.glob("unid.db")) < database + 25_000_000


def test_receipts_survive_once_they_are_written(unid):
    unid.deploy("f", "hello")
    invocation = unid.call("f").ok().headers["X-Unid-Invocation-Id"]
    unid.receipt(invocation)
    unid.stop()
    unid.start()
    assert unid.receipt(invocation)["outcome"] == "ok"


def test_cache_may_be_deleted_or_damaged(unid):
    unid.deploy("f", "hello")
    unid.call("f").ok()
    unid.stop()
    files = [p for p in (unid.state / "cache").rglob("*") if p.is_file()]
    assert files
    for path in files:
        path.chmod(0o600)
        path.write_bytes(b"\0" * 100)
    unid.start()
    unid.call("f").ok()
    unid.stop()
    for path in (unid.state / "cache").rglob("*"):
        if path.is_file():
            path.unlink()
    unid.start()
    unid.call("f").ok()


def test_stale_socket_and_ready_file_do_not_hinder_the_start(unid):
    unid.kill()
    assert unid.socket.exists()
    unid.start()
    unid.get("/healthz", unix=True).ok()


def test_second_daemon_on_the_same_state_is_refused(unid, make_unid):
    command = unid.command()
    command[command.index(str(unid.socket))] = str(unid.directory / "other.sock")
    command[command.index(str(unid.ready_file))] = str(unid.directory / "other.json")
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    unid.call("none").problem(404)


@pytest.mark.parametrize("linked", [False, True])
def test_directory_of_another_user_is_not_taken(linked):
    """The default runtime_dir of who has no session is below /tmp, where anybody may have been before."""
    if os.geteuid() != 0:
        pytest.skip("only root can make directories of other users")
    with taps.own_directory() as directory:
        mine, place = directory / "mine", directory / "run"
        mine.mkdir()
        os.chown(mine, taps.NOBODY, taps.NOBODY)
        if linked:
            place.symlink_to(mine)
        else:
            place.mkdir()
            place.chmod(0o777)
        os.chown(place, 12345, 12345, follow_symlinks=False)
        drop = ["setpriv", f"--reuid={taps.NOBODY}", f"--regid={taps.NOBODY}", "--clear-groups"]
        command = harness.Daemon(directory, prefix=drop).command()
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1 and "belongs to another user" in done.stderr, done.stderr
