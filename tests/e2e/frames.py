"""Ethernet frames, byte by byte: what a machine that means harm may send."""

import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
IP, ARP, VLAN, IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
SYN, RST, ACK = 2, 4, 16


def mac_of(address):
    """The MAC of a machine, or of the gateway, of that address."""
    return "02:75:" + ":".join(f"{byte:02x}" for byte in socket.inet_aton(address))


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(source, to, kind, payload):
    macs = bytes.fromhex((to + source).replace(":", ""))
    return (macs + struct.pack(">H", kind) + payload).ljust(60, b"\0")


def arp(source, sender, wanted, operation=1, to=BROADCAST):
    """RFC 826; `source` is the MAC that it claims."""
    body = struct.pack(">HHBBH", 1, IP, 6, 4, operation) + bytes.fromhex(source.replace(":", ""))
    body += socket.inet_aton(sender) + bytes(6) + socket.inet_aton(wanted)
    return ethernet(source, to, ARP, body)


def ipv4(source, to, protocol, payload, mac=None, to_mac=None, fragment=0):
    """RFC 791; from its own MAC to the gateway's, unless these are given."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(to)
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    gateway = mac_of(source.rsplit(".", 2)[0] + ".0.1")
    return ethernet(mac or mac_of(source), to_mac or gateway, IP, head + payload)


def udp(source, to, port, payload, from_port=5353, **more):
    """RFC 768, without a checksum."""
    head = struct.pack(">HHHH", from_port, port, 8 + len(payload), 0)
    return ipv4(source, to, 17, head + payload, **more)


def tcp(source, to, port, flags=SYN, from_port=1024, **more):
    """RFC 9293, without data."""
    segment = struct.pack(">HHIIBBHHH", from_port, port, 1, 0, 0x50, flags, 0xFFFF, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(to) + struct.pack(">HH", 6, len(segment))
    segment = segment[:16] + struct.pack(">H", checksum(pseudo + segment)) + segment[18:]
    return ipv4(source, to, 6, segment, **more)


def icmp(source, to, kind, code=0, rest=bytes(4), **more):
    """RFC 792."""
    message = bytes([kind, code, 0, 0]) + rest
    return ipv4(source, to, 1, message[:2] + struct.pack(">H", checksum(message)) + message[4:], **more)


def dns_question(name):
    """RFC 1035, for an address."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">HHHHHH", 9, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


def dhcp_message(kind, mac, address, server):
    """RFC 2131: one about an address, which names the server."""
    head = struct.pack(">BBBBIHH", 1, 1, 6, 0, 0x1234, 0, 0x8000) + bytes(16)
    options = b"c\x82Sc5\x01" + bytes([kind])
    options += b"\x32\x04" + socket.inet_aton(address) + b"\x36\x04" + socket.inet_aton(server) + b"\xff"
    return head + bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0") + bytes(192) + options


def dhcp_discover(mac):
    return dhcp_message(1, mac, "0.0.0.0", "0.0.0.0")


def sent(*frames):
    """As tests/guests/hostile takes them."""
    return b"".join(struct.pack(">H", len(frame)) + frame for frame in frames)
