"""Machines that are made ahead for any service: who gets one, when there are some, what becomes of them. With the
test kernel of tests/guests, over taps in a network namespace of the daemon's own, and over QEMU's user network."""

import itertools
import os
import pathlib
import re
import signal
import threading
import time

import pytest

import harness
import netns
from harness import BUILD
from test_faults import needs_fault_points

pytestmark = pytest.mark.libvirt

KERNEL = BUILD / "tests/guests/netkernel.elf"
WAKE_S = 60  # libvirt, on a busy machine
MIB = 64


@pytest.fixture(scope="module")
def make_daemon(tmp_path_factory):
    return lambda *flags, **more: netns.tapped(tmp_path_factory.mktemp("unid"), flags, **more)


@pytest.fixture(scope="module", params=["tap", "user"])
def daemon(make_daemon, tmp_path_factory, request):
    if request.param == "tap":
        made = make_daemon()
    else:
        flags = ["--set", "machines.network=user"]
        made = harness.Daemon(tmp_path_factory.mktemp("unid"), driver="fake", flags=flags)
    with made as daemon:
        yield daemon


def deploy(daemon, name, kernel=None, append="", mib=MIB, **machine):
    image = kernel or KERNEL.read_bytes()
    digest = daemon.post("/api/v1/images", image, unix=True).ok(200, 201).json["digest"]
    machine = {
        "append": "ip={ip}/{prefix} port={port} " + append,
        "port": 8080,
        "service": True,
        **machine,
    }
    body = {"image": digest, "memory_mib": mib, "timeout_ms": WAKE_S * 1000, "machine": machine}
    return daemon.put(f"/api/v1/functions/{name}", body, unix=True).ok(200, 201).json


def get(daemon, path):
    return daemon.get(f"/fn/{path}", unix=True, timeout=WAKE_S)


def instances(daemon):
    return daemon.get("/api/v1/instances", unix=True).ok(200).json["items"]


def shells(daemon, state="paused"):
    return [i for i in instances(daemon) if i["function"] is None and i["driver"] == "machine"
            and (state is None or i["state"] == state)]


def metric(daemon, name):
    text = daemon.get("/metrics", unix=True).ok(200).body.decode()
    return int(re.search(rf"^unid_machine_shells{name} (\d+)$", text, re.M).group(1))


def until(what, seconds=WAKE_S):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def archive(contents):
    """cpio, "newc": one file, and the end."""
    def entry(name, data):
        fields = [0, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + name + b"\0"
        return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

    return entry(b"data", contents) + entry(b"TRAILER!!!", b"")


def stopped(pid):
    return re.search(r"^State:\s*T", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)


def one_shell(daemon):
    if metric(daemon, "_missed_total") == 0:
        deploy(daemon, "first")
        get(daemon, "first/").ok(200)
    until(lambda: len(shells(daemon)) == 1)
    return shells(daemon)[0]


def test_a_second_service_is_made_of_a_shell(daemon):
    assert shells(daemon, None) == []
    deploy(daemon, "first")
    assert shells(daemon, None) == []
    get(daemon, "first/").ok(200)
    assert metric(daemon, "_used_total") == 0 and metric(daemon, "_missed_total") == 1
    until(lambda: len(shells(daemon)) == 1)
    shell = shells(daemon)[0]
    assert shell["memory_mib"] == MIB and stopped(shell["pid"])

    deploy(daemon, "second")
    assert b"hello from" in get(daemon, "second/").ok(200).body
    assert metric(daemon, "_used_total") == 1
    machine = [i for i in instances(daemon) if i["function"] == "second" and i["state"] == "ready"]
    assert [m["pid"] for m in machine] == [shell["pid"]]
    lines = harness.wait_for(
        lambda: daemon.get("/api/v1/functions/second/logs", unix=True).ok(200).json["items"], "its first words"
    )
    assert lines[0]["text"] == "netkernel: started"  # nothing of the shell's own
    until(lambda: len(shells(daemon)) == 1)


def test_it_has_its_initial_ram_disk_and_its_words(daemon):
    one_shell(daemon)
    used = metric(daemon, "_used_total")
    data = archive(os.urandom(70000))
    digest = daemon.post("/api/v1/images", data, unix=True).ok(200, 201).json["digest"]
    deploy(daemon, "ramdisk", append="delay=50", initrd=digest)
    assert get(daemon, "ramdisk/initrd").ok(200).body == data
    assert metric(daemon, "_used_total") == used + 1


def test_a_machine_for_each_request_is_made_of_one(daemon):
    one_shell(daemon)
    used = metric(daemon, "_used_total")
    deploy(daemon, "once", service=False)
    get(daemon, "once/").ok(200)
    assert metric(daemon, "_used_total") == used + 1


def test_a_crash_of_one_is_told_as_ever(daemon):
    one_shell(daemon)
    used = metric(daemon, "_used_total")
    deploy(daemon, "broken", append="crash", ready_timeout_ms=WAKE_S * 1000)
    detail = get(daemon, "broken/").ok(502).json["detail"]
    assert "triple fault" in detail and "crashes, as it was told" in detail
    assert metric(daemon, "_used_total") > used
    daemon.delete("/api/v1/functions/broken", unix=True)


def test_a_killed_shell_is_replaced(daemon):
    shell = one_shell(daemon)
    failed = metric(daemon, "_failed_total")
    os.kill(shell["pid"], signal.SIGKILL)
    until(lambda: [s for s in shells(daemon) if s["id"] != shell["id"]])
    assert metric(daemon, "_failed_total") == failed + 1


def test_other_images_are_made_in_the_ordinary_way(daemon):
    """A flavor that wants PCI, another memory size."""
    one_shell(daemon)
    used, missed = metric(daemon, "_used_total"), metric(daemon, "_missed_total")
    deploy(daemon, "larger", mib=MIB + 16)
    get(daemon, "larger/").ok(200)
    assert (metric(daemon, "_used_total"), metric(daemon, "_missed_total")) == (used, missed + 1)
    # Nobody asks it anything: it has no card that the kernel knows.
    deploy(daemon, "pci", flavor="pc", append="halt", ready_console="started", min_instances=1)
    until(lambda: [i for i in instances(daemon) if i["function"] == "pci" and i["state"] == "ready"])
    daemon.delete("/api/v1/functions/pci", unix=True).ok(204)
    assert (metric(daemon, "_used_total"), metric(daemon, "_missed_total")) == (used, missed + 1)
    until(lambda: {s["memory_mib"] for s in shells(daemon)} == {MIB, MIB + 16})


def test_a_shell_goes_after_its_time(make_daemon):
    with make_daemon("--set", "machines.shell_keep_ms=3000") as daemon:
        number = itertools.count()

        def made():  # each function's wake is the first, and has the shell kept anew
            name = f"web{next(number)}"
            deploy(daemon, name)
            get(daemon, name + "/").ok(200)
            return metric(daemon, "_made_total") > 0

        until(made)
        until(lambda: not shells(daemon, None))


def test_without_a_time_there_are_none(make_daemon):
    with make_daemon("--set", "machines.shell_keep_ms=0") as daemon:
        deploy(daemon, "first")
        get(daemon, "first/").ok(200)
        assert metric(daemon, "_missed_total") == 0 and not shells(daemon, None)


def test_requests_have_the_memory_of_shells(make_daemon):
    """There is memory for two machines: the shell goes for one that it does not fit."""
    flags = ["--memory", str(2 * MIB), "--pool-min", "0", "--pool-max", "0", "--drain-timeout", "0"]
    with make_daemon(*flags) as daemon:
        deploy(daemon, "first")
        get(daemon, "first/").ok(200)
        until(lambda: len(shells(daemon)) == 1)
        shell = shells(daemon)[0]
        deploy(daemon, "pci", flavor="pc", append="halt", ready_console="started")
        thread = threading.Thread(target=lambda: get(daemon, "pci/"))
        thread.start()
        until(lambda: [i for i in instances(daemon) if i["function"] == "pci"])
        until(lambda: shell["id"] not in [s["id"] for s in shells(daemon, None)])
        assert not shells(daemon)
    thread.join()


@needs_fault_points
def test_a_failed_loading_loses_no_request(make_daemon):
    with make_daemon(env={"UNID_FAULTS": "libvirt.load=EIO"}) as daemon:
        deploy(daemon, "first")
        get(daemon, "first/").ok(200)
        until(lambda: len(shells(daemon)) == 1)
        deploy(daemon, "second")
        get(daemon, "second/").ok(200)
        assert metric(daemon, "_used_total") == 1 and metric(daemon, "_failed_total") == 1


def test_a_killed_daemon_leaves_nothing(make_daemon):
    with make_daemon() as daemon:
        deploy(daemon, "first")
        get(daemon, "first/").ok(200)
        until(lambda: len(shells(daemon)) == 1)
        pid = shells(daemon)[0]["pid"]
        daemon.kill()
        daemon.start()
        until(lambda: harness.is_gone(pid))
