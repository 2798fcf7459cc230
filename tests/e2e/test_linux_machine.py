"""Linux as a machine image: Debian's cloud kernel with busybox, as examples/linux-machine builds it, over taps in
a network namespace and over QEMU's user network without any rights; and machines that boot from a disk."""

import json
import re
import statistics
import subprocess
import time

import pytest

import harness
import taps
from harness import BUILD
from test_examples import blocks, run_readme
from test_machine_disks import qcow2
from test_machines import KERNEL, WAKE_S, asleep, push

pytestmark = pytest.mark.libvirt

EXAMPLE = harness.ROOT / "examples" / "linux-machine"
FOLDER = BUILD / "linux-machine"  # the kernel is downloaded once


@pytest.fixture(scope="module")
def linux():
    """The folder with vmlinuz and initramfs.cpio.gz."""
    done = subprocess.run([EXAMPLE / "build", FOLDER], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no Linux kernel: {done.stderr.strip()}")
    return FOLDER


@pytest.fixture(scope="module")
def tap(tmp_path_factory):
    with taps.started("root", tmp_path_factory.mktemp("unid")) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def namespace(tmp_path_factory):
    with taps.started("namespace", tmp_path_factory.mktemp("unid")) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def user():
    """A daemon without rights, and without taps; unid itself finds that it has none."""
    with taps.own_directory() as directory:
        with taps.of_nobody(directory, tun="0600") as daemon:
            yield daemon


@pytest.fixture(params=["tap", "namespace", "user"])
def anyhow(request):
    """Over each network."""
    return request.getfixturevalue(request.param)


def deploy(daemon, name, image, memory_mib=128, **machine):
    machine = {"image": push(daemon, image), "port": 80, **machine}
    body = {
        "image": machine.pop("image"),
        "memory_mib": memory_mib,
        "timeout_ms": WAKE_S * 1000,
        "machine": machine,
    }
    return daemon.put(f"/api/v1/functions/{name}", body, unix=True).ok(200, 201).json


def get(daemon, path):
    return daemon.get(f"/fn/{path}", unix=True, timeout=WAKE_S)


def test_linux_is_woken_and_serves(linux, anyhow):
    initrd = push(anyhow, (linux / "initramfs.cpio.gz").read_bytes())
    kernel = (linux / "vmlinuz").read_bytes()
    deploy(anyhow, "linux", kernel, initrd=initrd, service=True)
    for _ in range(3):
        assert get(anyhow, "linux/").ok(200).body == b"hello from Linux\n"
    assert get(anyhow, "linux/none").status == 404


DISKS = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
head -c 8 /dev/vda
echo " $WORD"
echo "$(cat /data/count 2>/dev/null)x" >/data/count
cat /data/count
sync
"""


def test_disks_come_in_their_order_and_volumes_stay(linux, user, tmp_path):
    script = tmp_path / "disks"
    script.write_text(DISKS)
    script.chmod(0o755)
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "cache").symlink_to(linux / "cache")
    subprocess.run([EXAMPLE / "build", folder, "--add", f"{script}=/www/cgi-bin/disks"], check=True)
    user.put("/api/v1/volumes/data", {"size_mib": 8}, unix=True).ok(201)
    deploy(
        user,
        "disks",
        (folder / "vmlinuz").read_bytes(),
        initrd=push(user, (folder / "initramfs.cpio.gz").read_bytes()),
        disk=push(user, b"the disk" + bytes(502) + b"\x55\xaa" + bytes(2047 * 512)),
        volumes=["data"],
        append="mount=vdb:/data WORD=told",
        service=True,
        idle_timeout_ms=300,
    )
    assert get(user, "disks/cgi-bin/disks").ok(200).body == b"the disk told\nx\n"
    asleep(user, "disks")
    assert get(user, "disks/cgi-bin/disks").ok(200).body == b"the disk told\nxx\n"


def test_readme_is_true(linux, user, tmp_path):
    text = (EXAMPLE / "README.md").read_text()
    done = run_readme(text, user, EXAMPLE, [("/tmp/unid-linux", str(linux))])
    out = re.sub(r"^(\S+ version \d+ http\S+|its first machine .*)\n", "", done.stdout, flags=re.M)
    assert out == "".join(blocks(text, "text")), done.stderr[-2000:]


def test_without_rights_a_wake_takes_no_seconds(user):
    """QEMU repeats a first packet that was lost only after 6 s; a guest that boots in 30 ms is there before, on a
    slow machine too."""
    deploy(user, "fresh", KERNEL.read_bytes(), 64, append="ip={ip}/{prefix} port={port}", port=8080)
    took = []
    for _ in range(6):
        begin = time.monotonic()
        assert get(user, "fresh/count").ok(200).body == b"0\n"
        took.append(time.monotonic() - begin)
        time.sleep(0.7)  # the next machine is made
    assert statistics.median(took[1:]) < 6, took


def test_without_rights_requests_share_a_machine(user):
    words = {"append": "ip={ip}/{prefix} port={port}", "port": 8080, "service": True}
    deploy(user, "shared", KERNEL.read_bytes(), 64, **words)
    for n in range(4):
        assert get(user, "shared/count").ok(200).body == b"%d\n" % n


def boot_sector(text):
    """Real-mode code that writes `text` to COM1 and stops (Intel's manual, volume 2; the 16550's line status
    is at port 0x3fd)."""
    code = bytes.fromhex(
        "31c0 8ed8 fc be227c"  # xor ax,ax; mov ds,ax; cld; mov si,text
        "ac 84c0 7411 88c4"  # next: lodsb; test al,al; jz stop; mov ah,al
        "bafd03 ec a820 74fb"  # mov dx,0x3fd; wait: in al,dx; test al,0x20; jz wait
        "b2f8 88e0 ee ebea"  # mov dl,0xf8; mov al,ah; out dx,al; jmp next
        "f4 ebfd"  # stop: hlt; jmp stop
    )
    start = 0x22
    assert len(code) <= start
    sector = code.ljust(start, b"\x90") + text + b"\r\n\0"
    return sector.ljust(510, b"\0") + b"\x55\xaa"


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_boots_by_firmware(user, form):
    text = f"booted from a {form} disk".encode()
    sector = boot_sector(text)
    image = sector + bytes(2047 * 512) if form == "raw" else qcow2(b"", first=sector)
    deploy(user, form, image, 16, service=True)
    waits = user.connection(unix=True)
    waits.request("GET", f"/fn/{form}/")  # nobody ever listens

    def told():
        logs = user.get(f"/api/v1/functions/{form}/logs", unix=True).ok(200).json["items"]
        return text.decode() in json.dumps(logs)

    harness.wait_for(told, "the disk's words", WAKE_S)
    waits.close()
