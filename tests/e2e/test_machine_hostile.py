"""Machines that mean harm to the host, to unid and to each other: the test kernel of tests/guests/hostile, over taps in
a network namespace of the daemon's own, and over QEMU's user network."""

import contextlib
import re
import socket
import struct
import subprocess
import sys

import pytest

import harness
import netns
import taps
from frames import ACK, IPV6, VLAN, arp, dhcp_discover, dhcp_message, dns_question, ethernet, icmp, ipv4, mac_of
from frames import sent, tcp, udp
from harness import BUILD
from test_machine_network import daemon  # noqa: F401
from test_machines import WAKE_S, get, push

pytestmark = pytest.mark.libvirt

HOSTILE = BUILD / "tests/guests/hostile.elf"
CLIENT = BUILD / "tests/guests/netclient.elf"
GATEWAY = "10.87.0.1"
GROWTH_KIB = 64 * 1024

# Answers each connection, however many say nothing.
SERVER = """
import socket, threading
def one(c):
    try:
        c.recv(1000)
        c.sendall(b"the host")
    except OSError:
        pass
    c.close()
s = socket.create_server(("0.0.0.0", 0), backlog=1024)
print(s.getsockname()[1], flush=True)
while True:
    threading.Thread(target=one, args=s.accept()[:1], daemon=True).start()
"""


@pytest.fixture(scope="module")
def port(daemon):
    """Of a service of the host."""
    prefix = ["nsenter", "-t", str(daemon.process.pid), "-n"]
    with subprocess.Popen([*prefix, sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline())
        process.kill()


def deploy(daemon, name, kernel=HOSTILE, append="ip={ip}/{prefix} gw={gateway}", egress=()):
    machine = {"append": f"port={{port}} {append}", "port": 8080, "service": True, "idle_timeout_ms": 300000}
    body = {
        "image": push(daemon, kernel.read_bytes()),
        "memory_mib": 64,
        "timeout_ms": WAKE_S * 1000,
        "machine": {**machine, "max_instances": 1},
        "egress": list(egress),
    }
    daemon.put(f"/api/v1/functions/{name}", body, unix=True).ok(200, 201)
    return get(daemon, f"{name}/").ok(200).body.decode().split()[-1]  # its address


@contextlib.contextmanager
def deployed(daemon, *names, **more):
    """Functions of a machine each, which go with it. Gives its addresses."""

    def left():
        return {i["function"] for i in daemon.get("/api/v1/instances", unix=True).ok(200).json["items"]} & set(names)

    try:
        yield [deploy(daemon, name, **more) for name in names]
    finally:
        for name in names:
            daemon.delete(f"/api/v1/functions/{name}", unix=True)
        harness.wait_for(lambda: not left(), "its machines are gone", WAKE_S)


def tell(daemon, what, body=b"", function="bad"):
    return daemon.post(f"/fn/{function}/{what}", body, unix=True, timeout=WAKE_S)


@contextlib.contextmanager
def flooding(daemon, *frames):
    tell(daemon, "flood?100", sent(*frames)).ok(200)
    yield
    tell(daemon, "flood?0").ok(200)


class Capture:
    """What comes out of the bridge of a machine's tap."""

    def __init__(self, daemon):
        links = subprocess.run(
            taps.in_guests_network(daemon, "ip", "-o", "link"), check=True, capture_output=True, text=True
        )
        bridge = re.search(r" (ub-[0-9a-f]+):", links.stdout).group(1)

        def make():
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            s.bind((bridge, 3))
            s.settimeout(WAKE_S)
            return s

        self.socket = netns.inside(taps.guests_network(daemon), make)

    def until(self, last):
        """All up to that frame."""
        seen = []
        while not seen or seen[-1] != last:
            seen.append(self.socket.recv(65536))
        self.socket.close()
        return seen


def router_advertisement(mac):
    """RFC 4861, to all nodes."""
    head = struct.pack(">IHBB", 6 << 28, 16, 58, 255) + bytes.fromhex("fe80" + "00" * 13 + "02")
    packet = head + bytes.fromhex("ff02" + "00" * 13 + "01") + b"\x86" + bytes(15)
    return ethernet(mac, "33:33:00:00:00:01", IPV6, packet)


def test_what_a_machine_forges_stops_at_its_tap(daemon):
    with deployed(daemon, "bad", "good") as (me, other):
        mine, others, gateways = mac_of(me), mac_of(other), mac_of(GATEWAY)
        question = icmp(me, GATEWAY, 8, rest=bytes(100))
        forged = [
            ipv4(me, GATEWAY, 1, b"\x08\0\xf7\xff\0\0\0\0", mac=others),
            ipv4(me, GATEWAY, 1, b"\x08\0\xf7\xff\0\0\0\0", mac=gateways),
            icmp(other, GATEWAY, 8, mac=mine),
            icmp(GATEWAY, other, 5, rest=bytes(4), mac=mine),
            icmp("127.0.0.1", GATEWAY, 8, mac=mine, to_mac=gateways),
            arp(mine, GATEWAY, other),
            arp(mine, other, GATEWAY, operation=2),
            arp(others, me, GATEWAY),
            arp(others, other, GATEWAY),
            udp("0.0.0.0", "255.255.255.255", 67, dhcp_discover(others), 68, mac=others, to_mac=gateways),
            udp("0.0.0.0", "255.255.255.255", 67, dhcp_discover(others), 68, mac=mine, to_mac=gateways),
            udp("0.0.0.0", GATEWAY, 67, b"short", 68, mac=mine, to_mac=gateways),
            udp("0.0.0.0", GATEWAY, 53, dns_question("localhost"), 68, mac=mine, to_mac=gateways),
            router_advertisement(mine),
            ethernet(mine, gateways, VLAN, b"\0\0" + question[12:]),
            ethernet(mine, gateways, VLAN, b"\0\7" + question[12:]),
            ethernet(mine, "01:80:c2:00:00:00", 38, b"\x42\x42\x03" + bytes(35)),  # spanning tree
            ethernet(mine, gateways, 0x8863, bytes(46)),
            question[:13],
        ]
        capture = Capture(daemon)
        for frame in forged:
            tell(daemon, "send", sent(frame)).ok(200)
        tell(daemon, "send", sent(question)).ok(200)
        seen = capture.until(question)
        assert not [f for f in forged if any(f.startswith(frame) for frame in seen)]  # the kernel cuts the padding off
        assert get(daemon, "good/").ok(200)


def test_a_machine_cannot_keep_another_from_its_address(tmp_path):
    client = {"kernel": CLIENT, "append": "dhcp"}
    # Without shells the address that was used last is the next machine's.
    with netns.tapped(tmp_path, ["--set", "machines.shell_keep_ms=0"]) as daemon:

        def decline(address):
            said = dhcp_message(4, mac_of(address), address, GATEWAY)
            tell(daemon, "send", sent(udp(me, GATEWAY, 67, said, 68))).ok(200)

        with deployed(daemon, "bad") as [me]:
            with deployed(daemon, "asks", **client) as [other]:
                pass
            decline(other)
            with deployed(daemon, "asks", **client) as [again]:
                assert again == other
            decline(me)
        with deployed(daemon, "asks", **client) as [again]:
            assert again == me
        assert "machine failed" not in daemon.log()


FLOODS = {
    "connections to the gateway": lambda me, port: [tcp(me, GATEWAY, 22), tcp(me, GATEWAY, 53)],
    "connections that are allowed": lambda me, port: [tcp(me, "203.0.113.5", 443)],
    "answers to nothing": lambda me, port: [tcp(me, GATEWAY, port, ACK), tcp(me, GATEWAY, port, 0x3F)],
    "questions for names": lambda me, port: [udp(me, GATEWAY, 53, dns_question(n)) for n in ("localhost", "a.b")],
    "questions for an address": lambda me, port: [
        udp(me, "255.255.255.255", 67, dhcp_discover(mac_of(me)), 68),
        udp(me, "255.255.255.255", 67, dhcp_message(4, mac_of(me), me, GATEWAY), 68),
    ],
    "questions for neighbours": lambda me, port: [arp(mac_of(me), me, GATEWAY), arp(mac_of(me), me, "10.87.0.99")],
    "datagrams": lambda me, port: [udp(me, GATEWAY, 9, bytes(1400)), icmp(me, GATEWAY, 8, rest=bytes(1400))],
    "fragments": lambda me, port: [
        ipv4(me, GATEWAY, 17, bytes(1480), fragment=0x2000 | part) for part in (0, 1000)
    ],
}


def reaches(daemon, function, port):
    """Whether its machine is answered by the host's service; it waits a second or two, whatever else goes on."""
    answer = get(daemon, f"{function}/fetch?host=localhost&port={port}")
    return (answer.status, answer.body) == (200, b"the host")


def memory_kib(daemon):
    with open(f"/proc/{daemon.process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4


@pytest.mark.parametrize("flood", FLOODS)
def test_others_are_served_while_a_machine_floods(daemon, port, flood):
    rules = [f"localhost:{port}", "203.0.113.5:443"]
    with contextlib.ExitStack() as stack:
        [me] = stack.enter_context(deployed(daemon, "bad", egress=rules))
        stack.enter_context(deployed(daemon, "good"))
        before, lines = memory_kib(daemon), len(daemon.log().splitlines())
        with flooding(daemon, *FLOODS[flood](me, port)):
            stack.enter_context(deployed(daemon, "asks", kernel=CLIENT, append="dhcp", egress=rules))
            for _ in range(3):
                get(daemon, "good/").ok(200)
                harness.wait_for(lambda: reaches(daemon, "asks", port), "an answer", WAKE_S)
        assert memory_kib(daemon) < before + GROWTH_KIB
        assert len(daemon.log().splitlines()) < lines + 100
        get(daemon, "bad/").ok(200)


def test_connections_that_a_machine_leaves_open_end_with_it(daemon, port):
    def sockets():
        command = taps.in_guests_network(daemon, "ss", "-tnH", "state", "established", "src", "10.87.0.0/16")
        return len(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines())

    rules = [f"localhost:{port}"]
    with deployed(daemon, "asks", kernel=CLIENT, append="dhcp", egress=rules):
        with deployed(daemon, "bad", egress=rules) as [me]:
            with flooding(daemon, tcp(me, "10.87.255.0", port)):
                harness.wait_for(lambda: "as many connections as it may have" in daemon.log(), "it has them", WAKE_S)
                harness.wait_for(lambda: reaches(daemon, "asks", port), "an answer", WAKE_S)
                assert sockets() > 100
        harness.wait_for(lambda: sockets() < 20, "they are gone", WAKE_S)


GARBAGE = [
    ("say?0", b""),
    ("say?0", b"\0\xff\xfe\r\n\r\n"),
    ("say?0", b"HTTP/1.1 200 OK\r\n"),
    ("say?100000000000", b"HTTP/1.1 200 OK\r\nEndless: "),
    ("repeat?100000", b"A: b\r\n"),
    ("repeat?50000", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ("say?0", b"HTTP/1.1 999 No\r\n\r\n"),
    ("say?0", b"HTTP/1.1 101 Other\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx"),
    ("say?0", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx"),
    ("say?0", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx"),
    ("say?0", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
    ("say?0", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
    ("say?100000000000", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
]


def test_what_is_no_http_is_502(daemon):
    with deployed(daemon, "bad"):
        for what, answer in GARBAGE:
            problem = tell(daemon, what, answer).problem()
            assert problem["status"] == 502, (answer, problem)
            get(daemon, "bad/").ok(200)


def test_others_are_served_while_a_machine_shouts(daemon):
    with deployed(daemon, "bad", "good"):
        before = memory_kib(daemon)
        for text in [b"forty bytes, or nearly so many, a line.\n", b"x" * 3000, b"\n" * 3000, bytes(3000)]:
            tell(daemon, "shout?3", text).ok(200)
            for _ in range(3):
                get(daemon, "good/").ok(200)
            tell(daemon, "shout?0").ok(200)
        assert memory_kib(daemon) < before + GROWTH_KIB


def test_others_are_served_over_the_user_network(tmp_path):
    flags = ["--set", "machines.network=user"]
    with harness.Daemon(tmp_path, driver="fake", flags=flags) as daemon, deployed(daemon, "bad", "good"):
        me, host = "10.0.2.15", "10.0.2.2"
        for frame in [tcp(me, host, 22), udp(me, host, 53, dns_question("a.b")), icmp(me, host, 8), arp(mac_of(me), me, host)]:
            with flooding(daemon, frame):
                get(daemon, "good/").ok(200)
            get(daemon, "bad/").ok(200)
