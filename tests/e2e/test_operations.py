"""What docs/operations.md promises to whoever keeps a unid running: the service manager, settings, backups."""

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import threading

import harness
from harness import sdk_image, wait_for

# --- the service manager (sd_notify(3)) ---------------------------------------------------------------


@contextlib.contextmanager
def manager(path):
    """The datagram socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(harness.ANSWER_S)
        yield listening


def test_the_manager_is_told_of_the_start_of_life_and_of_the_end(make_unid, tmp_path):
    unid = make_unid()
    with manager(tmp_path / "notify") as told:
        unid.env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        unid.start()
        assert told.recv(100) == b"READY=1"
        assert [told.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        unid.drain()
        while (word := told.recv(100)) == b"WATCHDOG=1":
            pass
        assert word == b"STOPPING=1"
        assert unid.stop() == 0


def test_a_manager_of_another_process_is_not_told_of_life(make_unid, tmp_path):
    unid = make_unid()
    with manager(tmp_path / "notify") as told:
        unid.env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
        unid.start()
        unid.stop()
        assert [told.recv(100), told.recv(100)] == [b"READY=1", b"STOPPING=1"]


# --- settings -----------------------------------------------------------------------------------------


def test_wrong_settings_are_2_and_what_hinders_the_start_is_1(make_unid, tmp_path):
    unid = make_unid()
    command = unid.command()

    def run(*more):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    status, said = run("--check-config", "--listen", "127.0.0.1")
    assert status == 2 and said.startswith('unid: listen: "127.0.0.1" is no address and port')
    status, said = run("--token-file", str(tmp_path / "nothing"))
    assert status == 2 and "No such file" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = run("--listen", address)
        assert status == 1 and f"listen on {address}: Address already in use" in said
        assert "stopped" not in said and said.count(address) == 1


# --- backups ------------------------------------------------------------------------------------------


def test_a_copy_of_the_database_that_was_made_under_load_serves(unid, make_unid):
    unid.deploy("before", "hello")
    unid.deploy("events", "hello")
    copy = unid.directory / "copy.db"
    over, calls = threading.Event(), []

    def load():
        while not over.is_set():
            calls.append(unid.post("/api/v1/functions/events/invocations?mode=async", b"x").ok(202).json["id"])
            unid.call("before").ok()

    thread = threading.Thread(target=load)
    thread.start()
    try:
        wait_for(lambda: len(calls) >= 3, "it is used")
        accepted = calls[0]
        with contextlib.closing(sqlite3.connect(unid.state / "unid.db")) as database:
            database.execute("VACUUM INTO ?", (str(copy),))
        wait_for(lambda: len(calls) >= 6, "it is used on")
    finally:
        over.set()
        thread.join()
    unid.deploy("after", "hello")
    restored = make_unid()
    restored.state.mkdir()
    shutil.copy(copy, restored.state / "unid.db")
    (restored.state / "unid.db").chmod(0o644)
    restored.start()
    names = {f["name"] for f in restored.get("/api/v1/functions").ok().json["items"]}
    assert names == {"before", "events"}
    restored.call("before").ok()
    wait_for(lambda: restored.get(f"/api/v1/invocations/{accepted}").status == 200, "what was accepted is there")
    assert os.stat(restored.state / "unid.db").st_mode & 0o777 == 0o600
    restored.push(sdk_image(b"new"))
