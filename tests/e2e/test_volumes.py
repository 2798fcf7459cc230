"""Volumes over HTTP: made, told, removed, and what is refused of them and of what a kernel gets besides. No
machine is woken; test_machine_disks.py has those."""

import pytest

import harness
from test_machines import CPIO, KERNEL, WAKE_S, push

SECTOR = 512


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A daemon whose machines are never woken: it needs no rights."""
    flags = ["--set", "machines.network=user"]
    with harness.Daemon(tmp_path_factory.mktemp("quiet"), driver="fake", flags=flags) as daemon:
        yield daemon


def disk_image(text, sectors=2048):
    """A raw disk with an MBR's signature, and `text` in its sector 1."""
    return bytes(510) + b"\x55\xaa" + text.ljust(SECTOR, b"\0") + bytes((sectors - 2) * SECTOR)


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


def test_a_volume_is_made_told_and_removed(quiet):
    made = make(quiet, "data", size_mib=64).ok(201).json
    assert made["format"] == "raw" and made["size"] == 64 << 20 and made["allocated"] < 1 << 20
    assert make(quiet, "data", size_mib=64).ok(200).json["created_at"] == made["created_at"]
    image = push(quiet, disk_image(b"text"))
    copy = make(quiet, "copy", image=image, size_mib=16).ok(201).json
    assert copy["size"] == 16 << 20 and copy["image"] == image
    # The image may go: a volume has a copy.
    quiet.delete(f"/api/v1/images/{image}", unix=True).ok(204)
    assert volume(quiet, "copy")["image"] == image
    quiet.stop()
    quiet.start()
    listed = quiet.get("/api/v1/volumes", unix=True).ok(200).json
    assert [v["name"] for v in listed["items"]] == ["copy", "data"] and listed["next"] is None
    for name in ("copy", "data"):
        quiet.delete(f"/api/v1/volumes/{name}", unix=True).ok(204)
        quiet.get(f"/api/v1/volumes/{name}", unix=True).problem(404)
    assert not list((quiet.state / "volumes").iterdir())


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
