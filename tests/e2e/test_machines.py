"""Machine images: the test kernel of tests/guests as a function, over taps in a network namespace of the
daemon's own. What wakes it, what it answers, how it fails, what is left."""

import struct
import subprocess
import threading

import pytest

import harness
import taps
from harness import BUILD, wait_for

pytestmark = pytest.mark.libvirt

KERNEL = BUILD / "tests/guests/netkernel.elf"
CPIO = b"070701" + b"0" * 104 + b"TRAILER!!!\0\0\0\0"
WAKE_S = 60  # libvirt, on a busy machine


@pytest.fixture(scope="module", params=taps.KINDS)
def daemon(request, tmp_path_factory):
    with taps.started(request.param, tmp_path_factory.mktemp("unid")) as daemon:
        yield daemon


def push(daemon, image):
    return daemon.post("/api/v1/images", image, unix=True).ok(200, 201).json["digest"]


def deploy(daemon, name, append="", timeout_ms=WAKE_S * 1000, **machine):
    digest = push(daemon, KERNEL.read_bytes())
    machine = {"append": "ip={ip}/{prefix} port={port} " + append, "port": 8080, **machine}
    body = {"image": digest, "memory_mib": 64, "timeout_ms": timeout_ms, "machine": machine}
    return daemon.put(f"/api/v1/functions/{name}", body, unix=True).ok(200, 201).json


def get(daemon, path):
    return daemon.get(f"/fn/{path}", unix=True, timeout=WAKE_S)


def asleep(daemon, name):
    """Waits until a function has no machine but one that was never started."""

    def none():
        items = daemon.get("/api/v1/instances", unix=True).ok(200).json["items"]
        return {i["state"] for i in items if i["function"] == name} <= {"paused"}

    harness.wait_for(none, f"{name} sleeps", WAKE_S)


def links(daemon):
    """The names of the links where the daemon's taps are."""
    command = taps.in_guests_network(daemon, "ip", "-o", "link")
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split(": ")[1].split("@")[0] for line in lines}


def test_a_service_is_woken_and_serves_more_than_one(daemon):
    deploy(daemon, "web", service=True)
    first = get(daemon, "web/").ok(200)
    assert first.body.startswith(b"hello from 10.87.")
    assert get(daemon, "web/").ok(200).body == first.body
    assert get(daemon, "web/count").ok(200).body == b"2\n"
    big = get(daemon, "web/bytes/300000").ok(200)
    assert big.body == b"x" * 300000
    echo = daemon.post("/fn/web/echo", b"abc" * 500, unix=True, timeout=WAKE_S).ok(200)
    assert echo.body == b"abc" * 500


def test_the_herd_wakes_one_machine(daemon):
    deploy(daemon, "herd", service=True)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(get(daemon, "herd/").ok(200).body))
        for _ in range(8)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(answers) == 8 and len(set(answers)) == 1


def test_a_flavor_whose_guests_know_virtio_1_only(daemon):
    deploy(daemon, "modern", service=True, flavor="nanos")
    assert get(daemon, "modern/").ok(200).body.startswith(b"hello from 10.87.")
    wait_for(lambda: "netkernel: virtio 1" in daemon.unictl("logs", "modern").ok().text, "its log")
    daemon.delete("/api/v1/functions/modern", unix=True)


def test_without_service_each_request_gets_a_machine(daemon):
    deploy(daemon, "fresh")
    assert get(daemon, "fresh/count").ok(200).body == b"0\n"
    assert get(daemon, "fresh/count").ok(200).body == b"0\n"


def test_an_idle_service_goes_and_comes_back(daemon):
    deploy(daemon, "sleepy", service=True, idle_timeout_ms=500)
    get(daemon, "sleepy/").ok(200)
    asleep(daemon, "sleepy")
    assert get(daemon, "sleepy/count").ok(200).body == b"0\n"


def test_a_crash_is_502_and_the_next_is_served(daemon):
    deploy(daemon, "crashy", service=True)
    get(daemon, "crashy/").ok(200)
    problem = get(daemon, "crashy/crash").problem(502)
    assert "the machine ended" in problem["detail"]
    assert get(daemon, "crashy/").ok(200).body.startswith(b"hello")


def test_a_machine_that_never_listens_is_told(daemon):
    deploy(daemon, "deaf", append="halt", service=True, ready_timeout_ms=400)
    problem = get(daemon, "deaf/").problem(502)
    assert "port 8080 did not answer within 400 ms" in problem["detail"]


def test_who_waits_for_a_machine_in_vain_is_told_so(daemon):
    deploy(daemon, "patient", "halt", timeout_ms=4000, service=True)
    detail = get(daemon, "patient/").problem(504)["detail"]
    assert "port 8080 did not answer within" in detail and "its last words: netkernel: halts" in detail


def test_a_crash_loop_is_told(daemon):
    deploy(daemon, "loop", append="crash", service=True)
    problem = get(daemon, "loop/").problem(502)
    assert "the machine ended" in problem["detail"]


@pytest.mark.parametrize("kernel", ["multiboot1", "multiboot2"])
@pytest.mark.parametrize("flavor", ["plain", "pc"])
def test_multiboot_kernels_that_qemu_does_not_load_are_started(daemon, kernel, flavor):
    """The test kernel finds its card on virtio-mmio only: on a PC its console has to do."""
    image = push(daemon, (BUILD / f"tests/guests/{kernel}.elf").read_bytes())
    append = "ip={ip}/{prefix} port={port}" + (" crash" if flavor == "pc" else "")
    machine = {"flavor": flavor, "append": append, "initrd": push(daemon, CPIO), "port": 8080}
    body = {"image": image, "memory_mib": 64, "timeout_ms": WAKE_S * 1000, "machine": machine}
    daemon.put("/api/v1/functions/multi", body, unix=True).ok(200, 201)
    if flavor == "pc":
        assert "crashes, as it was told" in get(daemon, "multi/").problem(502)["detail"]
    else:
        assert get(daemon, "multi/").ok(200).body.startswith(b"hello from 10.87.")
        assert get(daemon, "multi/initrd").ok(200).body == CPIO
    daemon.delete("/api/v1/functions/multi", unix=True)


def multiboot2(where, *tags):
    """An ELF file of one segment that goes to an address, behind a header with these tags."""
    told = b"".join(tags) + struct.pack("<II", 0, 8)
    length = 16 + len(told)
    header = struct.pack("<4I", 0xE85250D6, 0, length, -(0xE85250D6 + length) & 0xFFFFFFFF) + told
    elf = struct.pack("<4s5B7x2HI3QI6H", b"\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1, where, 64, 0, 0, 64,
                      56, 1, 0, 0, 0)
    segment = struct.pack("<2I6Q", 1, 7, 0, where, where, 4096, 8192, 4096)
    return ((elf + segment).ljust(128, b"\0") + header).ljust(4096, b"\0")


@pytest.mark.parametrize("image, words", [
    (multiboot2(1 << 30), "too little memory for it"),
    (multiboot2(1 << 20, struct.pack("<2I3I4x", 5, 20, 640, 480, 32)), "it needs a screen"),
], ids=["memory", "screen"])
def test_multiboot_kernels_that_cannot_be_started_are_told(daemon, image, words):
    body = {"image": push(daemon, image), "memory_mib": 64, "timeout_ms": WAKE_S * 1000,
            "machine": {"port": 8080}}
    daemon.put("/api/v1/functions/multi", body, unix=True).ok(200, 201)
    assert words in get(daemon, "multi/").problem(502)["detail"]
    daemon.delete("/api/v1/functions/multi", unix=True)


def at_kernel_addresses(image):
    """The same kernel, entered at its physical address as a vmlinux is, that does not ask what it is told."""
    asks = b"\x81\xbe\x02\x02\0\0HdrS\x75"
    image = bytearray(image)
    at = image.index(asks)
    image[at : at + 12] = b"\x90" * 12
    (vaddr,) = struct.unpack_from("<Q", image, 64 + 16)  # of the first program header
    struct.pack_into("<Q", image, 64 + 16, 0xFFFFFFFF80000000 + vaddr)
    return bytes(image)


@pytest.mark.parametrize("flavor", ["", "plain"])
@pytest.mark.parametrize("made", [bytes, at_kernel_addresses], ids=["asks", "vmlinux"])
def test_kernels_of_linux_64_bit_protocol_are_started(daemon, made, flavor):
    """The test kernel takes no card but what its command line names; where there is ACPI that names none."""
    image = daemon.post(
        "/api/v1/images", made((BUILD / "tests/guests/linux64.elf").read_bytes()), unix=True
    ).ok(200, 201).json
    assert image["kind"] == "linux64"
    named = flavor == "" and made is bytes
    append = "ip={ip}/{prefix} port={port} " + ("-- words" if named else "crash")
    machine = {"flavor": flavor, "append": append, "port": 8080, "initrd": push(daemon, CPIO)}
    body = {"image": image["digest"], "memory_mib": 64, "timeout_ms": WAKE_S * 1000, "machine": machine}
    daemon.put("/api/v1/functions/fc", body, unix=True).ok(200, 201)
    detected = "firecracker" if made is bytes else "plain"
    assert daemon.get("/api/v1/functions/fc", unix=True).ok(200).json["flavor"] == (flavor or detected)
    told = f"flavor {flavor}\n" if flavor else f"flavor {detected}, as the image says\n"
    assert told in daemon.unictl("describe", "fc").ok().text
    if named:
        answer = get(daemon, "fc/").ok(200)
        assert answer.body.startswith(b"hello from 10.87.")
        assert get(daemon, "fc/initrd").ok(200).body == CPIO
        told = " port=8080 virtio_mmio.device=512@0xfeb00e00:12 -- words\n"
    else:
        assert "crashes, as it was told" in get(daemon, "fc/").problem(502)["detail"]
        told = " port=8080 crash\n"
    wait_for(lambda: told in daemon.unictl("logs", "fc").ok().text, "its log")
    daemon.delete("/api/v1/functions/fc", unix=True)


def test_a_kernel_made_for_firecracker_ends_as_there(daemon):
    image = push(daemon, (BUILD / "tests/guests/linux64.elf").read_bytes())
    machine = {"append": "off --", "port": 8080}
    body = {"image": image, "memory_mib": 64, "timeout_ms": WAKE_S * 1000, "machine": machine}
    daemon.put("/api/v1/functions/off", body, unix=True).ok(200, 201)
    assert "it reset itself" in get(daemon, "off/").problem(502)["detail"]
    daemon.delete("/api/v1/functions/off", unix=True)


def test_what_makes_no_sense_is_refused(daemon):
    digest = push(daemon, KERNEL.read_bytes())
    for machine, status, word in [
        ({"port": 0}, 400, "port"),
        ({"flavor": "windows"}, 400, "flavor"),
        ({"append": "{adress}"}, 400, "{adress}"),
        ({"min_instances": 3, "max_instances": 2}, 400, "min_instances"),
        ({"colour": "red"}, 400, "colour"),
    ]:
        body = {"image": digest, "machine": machine}
        problem = daemon.put("/api/v1/functions/bad", body, unix=True).problem(status)
        assert word in problem["detail"]
    for what in [{"args": ["x"]}, {"env": {"A": "b"}}, {"isolation": "reset"}, {"driver": "kvm"}]:
        problem = daemon.put("/api/v1/functions/bad", {"image": digest, **what}, unix=True).problem(400)
        assert problem["detail"].startswith(next(iter(what)) + ":")
    body = {"image": push(daemon, harness.sdk_image()), "machine": {"port": 80}}
    assert "no kernel" in daemon.put("/api/v1/functions/bad", body, unix=True).problem(400)["detail"]


def test_nothing_is_left_of_the_network_when_all_sleep(daemon):
    for name in ["web", "herd", "fresh", "sleepy", "crashy", "deaf", "loop"]:
        daemon.delete(f"/api/v1/functions/{name}", unix=True)
    deploy(daemon, "last", service=True, idle_timeout_ms=300)
    get(daemon, "last/").ok(200)
    assert any(name.startswith("ut") for name in links(daemon))
