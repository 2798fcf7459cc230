"""Machines with disks: initial RAM disk, further disk, volumes. Data on a volume survive the machine, the
version, and unid itself."""

import contextlib
import gzip
import pathlib
import struct
import time

import pytest

import harness
from netns import tapped
from test_faults import filled, small_disk  # noqa: F401 (a fixture)
from test_machines import KERNEL, WAKE_S, get, push
from test_volumes import CPIO, SECTOR, disk_image, make, put, volume

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with tapped(tmp_path_factory.mktemp("unid")) as daemon:
        yield daemon


def qcow2(text, first=bytes(SECTOR)):
    """A disk of 1 MiB with `first` in its sector 0 and `text` in sector 1 (QEMU's docs/interop/qcow2.txt,
    version 2): header, refcount table, refcount block, level 1 table, level 2 table and one data cluster,
    64 KiB each."""
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
        first + text,
    ]
    return b"".join(part.ljust(cluster, b"\0") for part in parts)


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


def test_a_command_line_names_disks_in_their_order(daemon):
    """A kernel made for Firecracker knows of no others."""
    kernel = push(daemon, (harness.BUILD / "tests/guests/linux64.elf").read_bytes())
    make(daemon, "named", image=push(daemon, disk_image(b"volume"))).ok(201)
    disk = push(daemon, disk_image(b"image"))
    put(daemon, "named", image=kernel, service=True, disk=disk, volumes=["named"]).ok(201)
    assert [read(daemon, "named", n, 1) for n in range(2)] == [b"image", b"volume"]
    assert daemon.delete("/api/v1/functions/named", unix=True).status == 204
    asleep(daemon)
    assert daemon.delete("/api/v1/volumes/named", unix=True).status == 204


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


def test_a_guest_is_told_that_there_is_no_room(small_disk, tmp_path):  # noqa: F811
    daemon = tapped(tmp_path)
    daemon.may_log_errors = True  # receipts cannot be written either
    daemon.state = small_disk / "state"
    daemon.start()
    try:
        make(daemon, "large", size_mib=1024).ok(201)
        put(daemon, "db", service=True, volumes=["large"], idle_timeout_ms=60000).ok(201)
        write(daemon, "db", 0, 5, b"kept")
        with filled(small_disk):
            answer = daemon.post("/fn/db/disk/write/0/200000", b"x", unix=True, timeout=WAKE_S)
            assert answer.status == 404 and answer.body == b"no such sector\n"
            assert read(daemon, "db", 0, 5) == b"kept"
        write(daemon, "db", 0, 200000, b"room again")
        assert read(daemon, "db", 0, 200000) == b"room again"
    finally:
        daemon.stop(WAKE_S)
    daemon.assert_nothing_left()


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
    text = run("describe", "cli-db").ok().text
    assert "port 8080, flavor plain, as the image says\n" in text and "0 to 1, asleep after" in text
    assert "Initrd:      sha256:" in text and "Volumes:     copy\n             cli\n" in text
    refused = run("volume", "rm", "cli")
    assert refused.status == 1 and "used by function cli-db" in refused.err
    refused = run("deploy", "other", KERNEL, "--service", "--volume", "none")
    assert refused.status == 1 and "unictl volume create none --size 1G" in refused.err
    asleep(daemon)
    run("rm", "cli-db").ok()
    assert run("volume", "rm", "cli", "copy").ok().text == "cli\ncopy\n"
