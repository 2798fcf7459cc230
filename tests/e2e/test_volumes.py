"""Volumes, and what a kernel gets besides: initial RAM disk and further disk. Data on a volume survive the
machine, the version, and unid itself."""

import contextlib
import gzip
import pathlib
import struct
import subprocess
import time

import pytest

import harness
from test_machines import KERNEL, WAKE_S, get, own_namespace, push

pytestmark = pytest.mark.libvirt

SECTOR = 512
CPIO = b"070701" + b"0" * 104 + b"TRAILER!!!\0\0\0\0"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    if subprocess.run(own_namespace() + ["true"], capture_output=True).returncode != 0:
        pytest.skip("no network namespace can be made here")
    daemon = harness.Daemon(
        tmp_path_factory.mktemp("unid"),
        driver="fake",
        flags=["--set", "machines.network=tap"],
        prefix=own_namespace(),
    ).start()
    yield daemon
    status = daemon.stop(WAKE_S)
    assert status == 0, daemon.log()[-3000:]
    daemon.assert_nothing_left()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A daemon whose machines are never woken: it needs no rights."""
    flags = ["--set", "machines.network=user"]
    daemon = harness.Daemon(tmp_path_factory.mktemp("quiet"), driver="fake", flags=flags).start()
    yield daemon
    assert daemon.stop() == 0, daemon.log()[-3000:]
    daemon.assert_nothing_left()


def disk_image(text, sectors=2048):
    """A raw disk with an MBR's signature, and `text` in its sector 1."""
    return bytes(510) + b"\x55\xaa" + text.ljust(SECTOR, b"\0") + bytes((sectors - 2) * SECTOR)


def qcow2(text):
    """A disk of 1 MiB with `text` in its sector 1 (QEMU's docs/interop/qcow2.txt, version 2): header,
    refcount table, refcount block, level 1 table, level 2 table and one data cluster, 64 KiB each."""
    cluster, copied = 1 << 16, 1 << 63
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        *[b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0, 1, 3 * cluster, cluster, 1, 0, 0],
    )
    parts = [
        header,
        struct.pack(">Q", 2 * cluster),
        struct.pack(">6H", *[1] * 6),
        struct.pack(">Q", 4 * cluster | copied),
        struct.pack(">Q", 5 * cluster | copied),
        bytes(SECTOR) + text,
    ]
    return b"".join(part.ljust(cluster, b"\0") for part in parts)


def put(daemon, name, **machine):
    machine = {
        "append": "ip={ip}/{prefix} port={port}",
        "port": 8080,
        "idle_timeout_ms": 300,
        **machine,
    }
    body = {
        "image": machine.pop("image", None) or push(daemon, KERNEL.read_bytes()),
        "memory_mib": 64,
        "timeout_ms": WAKE_S * 1000,
        "machine": machine,
    }
    return daemon.put(f"/api/v1/functions/{name}", body, unix=True)


def make(daemon, name, **how):
    return daemon.put(f"/api/v1/volumes/{name}", how, unix=True)


def volume(daemon, name):
    return daemon.get(f"/api/v1/volumes/{name}", unix=True).ok(200).json


def read(daemon, function, disk, sector):
    return get(daemon, f"{function}/disk/read/{disk}/{sector}").ok(200).body.rstrip(b"\0")


def write(daemon, function, disk, sector, text):
    path = f"/fn/{function}/disk/write/{disk}/{sector}"
    daemon.post(path, text, unix=True, timeout=WAKE_S).ok(200)


def machines(daemon):
    """The processes that have the test kernel or a disk of this daemon's open."""
    found, state = [], str(daemon.state).encode()
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if b"qemu" in words.split(b"\0")[0] and state in words:
                found.append(int(path.parent.name))
    return found


def asleep(daemon):
    """Waits until no machine runs."""
    deadline = time.monotonic() + WAKE_S
    while machines(daemon):
        assert time.monotonic() < deadline, "a machine stays awake"
        time.sleep(0.1)


def test_data_survive_sleep_a_new_version_and_unid(daemon):
    made = make(daemon, "data", size_mib=64).ok(201).json
    assert made["format"] == "raw" and made["size"] == 64 << 20 and made["allocated"] < 1 << 20
    assert make(daemon, "data", size_mib=64).ok(200).json["created_at"] == made["created_at"]
    put(daemon, "db", service=True, volumes=["data"]).ok(201)
    assert volume(daemon, "data")["used_by"] == ["db"]
    write(daemon, "db", 0, 100000, b"kept")
    assert read(daemon, "db", 0, 100000) == b"kept"
    asleep(daemon)
    assert read(daemon, "db", 0, 100000) == b"kept"
    asleep(daemon)
    put(daemon, "db", service=True, volumes=["data"], idle_timeout_ms=400).ok(200)
    assert read(daemon, "db", 0, 100000) == b"kept"
    write(daemon, "db", 0, 1, b"also")
    asleep(daemon)
    assert daemon.stop(WAKE_S) == 0
    daemon.start()
    assert read(daemon, "db", 0, 100000) == b"kept"
    assert read(daemon, "db", 0, 1) == b"also"
    assert volume(daemon, "data")["allocated"] > 0


def test_a_killed_unid_leaves_volumes_whole(daemon):
    make(daemon, "lasting", size_mib=8).ok(201)
    put(daemon, "keeper", service=True, volumes=["lasting"]).ok(201)
    write(daemon, "keeper", 0, 7, b"on disk")
    # What a creation that was killed leaves, and a file of somebody's.
    (daemon.state / "volumes/.half.part").write_bytes(b"half")
    (daemon.state / "volumes/foreign").write_bytes(b"foreign")
    daemon.kill()
    daemon.start()
    assert not (daemon.state / "volumes/.half.part").exists()
    assert (daemon.state / "volumes/foreign").read_bytes() == b"foreign"
    assert read(daemon, "keeper", 0, 7) == b"on disk"
    daemon.get("/api/v1/volumes/half", unix=True).problem(404)
    daemon.get("/api/v1/volumes/foreign", unix=True).problem(404)


def test_a_kernel_gets_an_initrd_and_disks_in_their_order(daemon):
    packed = gzip.compress(CPIO)
    initrd = daemon.post("/api/v1/images", packed, unix=True).ok(200, 201).json
    disk = daemon.post("/api/v1/images", disk_image(b"image"), unix=True).ok(200, 201).json
    assert initrd["kind"] == "initrd" and disk["kind"] == "disk"
    source = push(daemon, qcow2(b"first"))
    assert make(daemon, "one", image=source).ok(201).json["format"] == "qcow2"
    assert volume(daemon, "one")["size"] == 1 << 20
    make(daemon, "two", image=push(daemon, disk_image(b"second")), size_mib=16).ok(201)
    put(
        daemon,
        "disks",
        service=True,
        initrd=initrd["digest"],
        disk=disk["digest"],
        volumes=["one", "two"],
    ).ok(201)
    assert get(daemon, "disks/initrd").ok(200).body == packed
    assert [read(daemon, "disks", n, 1) for n in range(3)] == [b"image", b"first", b"second"]
    for n in range(3):
        write(daemon, "disks", n, 2, b"written")
        assert read(daemon, "disks", n, 2) == b"written"
    asleep(daemon)
    # What is written to the image's disk is gone with the machine, and leaves no file.
    harness.wait_for(
        lambda: not [f for f in daemon.state.rglob("*") if "TRANSIENT" in f.name], "no overlay is left", 10
    )
    assert [read(daemon, "disks", n, 2) for n in range(3)] == [b"", b"written", b"written"]
    assert get(daemon, "disks/disk/read/3/0").status == 404
    # The images are kept for the function.
    for image in (initrd, disk):
        problem = daemon.delete(f"/api/v1/images/{image['digest']}", unix=True).problem(409)
        assert "function disks, version 1" in problem["detail"]
    asleep(daemon)
    assert daemon.delete("/api/v1/functions/disks", unix=True).status == 204
    for name in ("one", "two"):
        assert daemon.delete(f"/api/v1/volumes/{name}", unix=True).status == 204
    assert daemon.delete(f"/api/v1/images/{initrd['digest']}", unix=True).status == 204


def test_a_late_pvh_note_is_found(daemon):
    """The kernel's own note, moved behind a megabyte of zeros."""
    note = b""
    kernel = bytearray(KERNEL.read_bytes())
    count, at = int.from_bytes(kernel[56:58], "little"), int.from_bytes(kernel[32:40], "little")
    for header in range(at, at + 56 * count, 56):
        if kernel[header] == 4:  # PT_NOTE
            offset = int.from_bytes(kernel[header + 8 : header + 16], "little")
            size = int.from_bytes(kernel[header + 32 : header + 40], "little")
            note = bytes(kernel[offset : offset + size])
            moved = len(kernel) + (1 << 20)
            kernel[header + 8 : header + 16] = moved.to_bytes(8, "little")
    late = bytes(kernel) + bytes(1 << 20) + note
    image = daemon.post("/api/v1/images", late, unix=True).ok(201).json
    assert image["kind"] == "pvh"
    put(daemon, "late", image=image["digest"], service=True).ok(201)
    assert get(daemon, "late/").ok(200).body.startswith(b"hello")


def test_what_makes_no_sense_is_refused(quiet):
    kernel, initrd = push(quiet, KERNEL.read_bytes()), push(quiet, CPIO)
    disk = push(quiet, disk_image(b"other"))
    nothing = "sha256:" + "0" * 64
    make(quiet, "mine", size_mib=1).ok(201)
    put(quiet, "owner", service=True, volumes=["mine"]).ok(201)
    for machine, status, words in [
        ({"initrd": disk}, 400, ["initrd", "of kind disk"]),
        ({"disk": initrd}, 400, ["disk", "of kind initrd"]),
        ({"initrd": nothing}, 404, ["initrd", "no image"]),
        ({"initrd": "latest"}, 400, ["initrd"]),
        ({"image": disk, "initrd": initrd}, 400, ["initrd", "disk"]),
        ({"image": disk, "disk": disk}, 400, ["volumes"]),
        ({"image": initrd}, 400, ["initial RAM disk has no kernel"]),
        ({"service": True, "volumes": ["none"]}, 400, ["unictl volume create none"]),
        ({"volumes": ["mine"]}, 400, ["--service"]),
        ({"service": True, "max_instances": 2, "volumes": ["mine"]}, 400, ["max_instances"]),
        ({"service": True, "volumes": ["mine"]}, 409, ["function owner"]),
        ({"service": True, "volumes": ["a", "b", "c", "d"]}, 400, ["at most 3"]),
        ({"service": True, "volumes": "mine"}, 400, ["volumes"]),
        ({"service": True, "volumes": ["../mine"]}, 400, ["volumes[0]"]),
    ]:
        problem = put(quiet, "bad", **machine).problem(status)
        assert all(word in problem["detail"] for word in words), problem
    for how, status in [
        ({}, 400),
        ({"size_mib": 0}, 400),
        ({"size": 1}, 400),
        ({"image": kernel}, 400),
        ({"image": nothing}, 404),
        ({"image": disk, "size_mib": 1, "format": "raw"}, 400),
    ]:
        make(quiet, "bad", **how).problem(status)
    make(quiet, "Bad", size_mib=1).problem(400)
    make(quiet, "mine", size_mib=2).problem(409)
    quiet.get("/api/v1/volumes/bad", unix=True).problem(404)
    quiet.delete("/api/v1/volumes/bad", unix=True).problem(404)
    assert "owner" in quiet.delete("/api/v1/volumes/mine", unix=True).problem(409)["detail"]
    listed = quiet.get("/api/v1/volumes", unix=True).ok(200).json["items"]
    assert "mine" in [v["name"] for v in listed] and "bad" not in [v["name"] for v in listed]


def test_a_volume_goes_with_the_live_version_only(quiet):
    make(quiet, "moved", size_mib=1).ok(201)
    put(quiet, "first", service=True, volumes=["moved"]).ok(201)
    put(quiet, "first", service=True).ok(200)
    put(quiet, "second", service=True, volumes=["moved"]).ok(201)
    path = "/api/v1/functions/first/aliases/live"
    assert "second" in quiet.put(path, {"version": 1}, unix=True).problem(409)["detail"]
    quiet.delete("/api/v1/functions/second", unix=True).ok(204)
    quiet.put(path, {"version": 1}, unix=True).ok(200)
    assert volume(quiet, "moved")["used_by"] == ["first"]


def test_the_command_line_makes_attaches_and_removes_volumes(daemon, tmp_path):
    def run(*words):
        return daemon.unictl(*words)

    (tmp_path / "disk").write_bytes(disk_image(b"from a file"))
    (tmp_path / "initrd").write_bytes(CPIO)
    assert run("volume", "create", "cli", "--size", "1G").ok().text == "cli\n"
    assert run("volume", "create", "copy", "--from", tmp_path / "disk").ok().text == "copy\n"
    table = run("volume", "ls").ok().text
    assert "1GiB" in table and "copy" in table
    run(
        *["deploy", "cli-db", KERNEL, "--service", "--port", "8080", "--idle-timeout", "300ms"],
        *["--append", "ip={ip}/{prefix} port={port}", "--volume", "copy", "--volume", "cli"],
        *["--initrd", tmp_path / "initrd", "--disk", tmp_path / "disk"],
    ).ok()
    assert read(daemon, "cli-db", 1, 1) == b"from a file"
    assert get(daemon, "cli-db/initrd").ok(200).body == CPIO
    told = run("--json", "volume", "describe", "cli").ok().json
    assert told["used_by"] == ["cli-db"] and told["size"] == 1 << 30
    assert "cli-db" in run("volume", "describe", "cli").ok().text
    refused = run("volume", "rm", "cli")
    assert refused.status == 1 and "used by function cli-db" in refused.err
    refused = run("deploy", "other", KERNEL, "--service", "--volume", "none")
    assert refused.status == 1 and "unictl volume create none --size 1G" in refused.err
    asleep(daemon)
    run("rm", "cli-db").ok()
    assert run("volume", "rm", "cli", "copy").ok().text == "cli\ncopy\n"
