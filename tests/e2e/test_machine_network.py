"""The network of machine images, in a namespace of the daemon's own: addresses by DHCP, names, what a machine
may connect to and what not, what is left of it all."""

import concurrent.futures
import difflib
import os
import re
import subprocess
import sys
import time
from urllib.parse import quote

import pytest

import harness
import netns
import taps
from harness import BUILD
from netns import own_namespace
from taps import in_guests_network, network_finding
from test_machines import WAKE_S, get, push

pytestmark = pytest.mark.libvirt

KERNEL = BUILD / "tests/guests/netclient.elf"

# Answers each connection with who it comes from and what was asked; prints its port.
SERVER = """
import socket, sys
s = socket.socket()
s.bind((sys.argv[1], int(sys.argv[2])))
s.listen()
print(s.getsockname()[1], flush=True)
while True:
    c, peer = s.accept()
    asked = c.recv(1000).split(b"\\r")[0]
    c.sendall(b"%s saw %s: %s" % (sys.argv[3].encode(), peer[0].encode(), asked))
    c.close()
"""
OUTSIDE, OUR_SIDE = "203.0.113.5", "203.0.113.1"


def inside(pid, *command):
    return ["nsenter", "-t", str(pid), "-n", *command]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def serve(prefix, address, name, port=0):
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", SERVER, address, str(port), name], stdout=subprocess.PIPE, text=True
    )
    process.port = int(process.stdout.readline())
    return process


def finish(process):
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


@pytest.fixture(scope="module", params=taps.KINDS)
def daemon(request, tmp_path_factory):
    if not os.path.exists("/usr/sbin/dnsmasq"):
        pytest.skip("dnsmasq is not installed")
    with taps.started(request.param, tmp_path_factory.mktemp("unid")) as daemon:
        yield daemon
        for machine in daemon.get("/api/v1/instances", unix=True).ok(200).json["items"]:
            daemon.delete(f"/api/v1/instances/{machine['id']}", unix=True)  # else their connections are waited for


@pytest.fixture(scope="module")
def host(daemon):
    """A service of the host, at all its addresses."""
    server = serve(inside(daemon.process.pid), "0.0.0.0", "host")
    yield server
    finish(server)


@pytest.fixture(scope="module")
def outside(daemon):
    """A server behind the host, at OUTSIDE, in a namespace of its own."""
    sleeper = netns.sleep_in(["unshare", "-n"])
    here, there = daemon.process.pid, sleeper.pid
    run(*inside(here, "ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1"))
    run(*inside(here, "ip", "link", "set", "out1", "netns", str(there)))
    for pid, link, address in [(here, "out0", OUR_SIDE), (there, "out1", OUTSIDE)]:
        run(*inside(pid, "ip", "addr", "add", address + "/24", "dev", link))
        run(*inside(pid, "ip", "link", "set", link, "up"))
    server = serve(inside(there), OUTSIDE, "outside")
    yield server
    run(*inside(here, "ip", "link", "del", "out0"))
    finish(server)
    finish(sleeper)


def deploy(daemon, name, append="dhcp", egress=(), interface="http", concurrency=100, timeout_ms=WAKE_S * 1000, **machine):
    machine = {"append": f"port={{port}} {append}", "port": 8080, "service": True, "idle_timeout_ms": 20000, **machine}
    body = {
        "image": push(daemon, KERNEL.read_bytes()),
        "memory_mib": 64,
        "timeout_ms": timeout_ms,
        "machine": machine,
        "egress": list(egress),
        "interface": interface,
        "concurrency": concurrency,
    }
    return daemon.put(f"/api/v1/functions/{name}", body, unix=True).ok(200, 201).json


SILENCE = {"no answer", "nobody has this address", "no name server"}


def fetch(daemon, function, host, port, source=None, silence=False):
    """What a machine is answered, and with which status it says so; where silence is expected it is not waited for
    long."""
    path = f"{function}/fetch?host={quote(host)}&port={port}"
    if source:
        parts = [int(p) for p in source.split(".")]
        path += "&from=" + str(sum(p << (24 - 8 * i) for i, p in enumerate(parts)))
    path += "&brief" if silence else ""
    answer = get(daemon, path)
    return answer.status, answer.body.decode()


def bridge_of(daemon, address):
    """Which bridge the machine's tap is a port of: the tap's number is that of its address."""
    a, b, c, d = (int(part) for part in address.split("."))
    assert (a, b) == (10, 87)
    links = run(*in_guests_network(daemon, "ip", "-o", "link"))
    found = re.search(rf" ut[0-9a-f]{{8}}{c * 256 + d - 2:x}: .* master (ub-[0-9a-f]+) ", links)
    assert found, links
    return found.group(1)


def address_of(daemon, function):
    return get(daemon, function + "/").ok(200).body.decode().split()[-1]


def test_a_machine_gets_its_address_by_dhcp(daemon):
    deploy(daemon, "dhcp")
    assert address_of(daemon, "dhcp").startswith("10.87.0.")


def test_an_allowed_name_is_reached(daemon, host):
    deploy(daemon, "named", egress=[f"localhost:{host.port}"])
    status, text = fetch(daemon, "named", "localhost", host.port)
    assert (status, text) == (200, "host saw 127.0.0.1: GET / HTTP/1.0")


def test_an_allowed_address_is_reached_at_its_own_port(daemon, outside):
    rule = f"{OUTSIDE}:{outside.port}"
    deploy(daemon, "literal", egress=[rule])
    # The machine's packets go to the address itself; what arrives there comes from unid.
    status, text = fetch(daemon, "literal", OUTSIDE, outside.port)
    assert (status, text) == (200, f"outside saw {OUR_SIDE}: GET / HTTP/1.0")
    deploy(daemon, "static", append="ip={ip}/{prefix} gw={gateway}", egress=[rule])
    assert fetch(daemon, "static", OUTSIDE, outside.port)[0] == 200


def test_everything_else_is_refused(daemon, host, outside):
    deploy(daemon, "other", egress=[f"localhost:{host.port}", f"{OUTSIDE}:1"])
    other = address_of(daemon, "other")
    deploy(daemon, "narrow", egress=[f"{OUTSIDE}:{outside.port}", "elsewhere.example:80"])
    gateway = "10.87.0.1"
    refused = [
        ("example.org", 80, "no such name"),  # a name that nobody may connect to
        ("localhost", host.port, "refused"),  # one that others may
        ("elsewhere.example", 81, "refused"),  # another port of one that it may
        (OUTSIDE, outside.port + 1, "refused"),
        ("203.0.113.6", outside.port, "refused"),  # an address that is not allowed
        (OUR_SIDE, host.port, "refused"),  # services of the host, at each of its addresses
        (gateway, host.port, "refused"),
        (gateway, 53, "refused"),
        ("10.87.255.200", 80, "refused"),
        (other, 8080, "nobody has this address"),  # another machine
        ("127.0.0.1", host.port, "no answer"),  # not even a refusal comes from there
    ]
    for name, port, why in refused:
        assert fetch(daemon, "narrow", name, port, silence=why in SILENCE) == (502, why), (name, port)
    # Another's address does not help, nor one that is nobody's.
    for source in [other, "10.87.0.250", "203.0.113.9"]:
        status, why = fetch(daemon, "narrow", OUTSIDE, outside.port, source=source, silence=True)
        assert (status, why) == (502, "no answer"), source
    assert fetch(daemon, "narrow", OUTSIDE, outside.port)[0] == 200


def test_machines_on_several_bridges_are_served_alike(daemon, host):
    count = 33  # more than one bridge takes (NET_SEGMENT_PORTS)
    names = [f"many{i}" for i in range(count)]
    for name in names:
        deploy(daemon, name, egress=[f"localhost:{host.port}"], idle_timeout_ms=200000)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        addresses = list(pool.map(lambda name: address_of(daemon, name), names))
    bridges = [bridge_of(daemon, address) for address in addresses]
    one, other = 0, next(i for i in range(count) if bridges[i] != bridges[0])
    for i, peer in [(one, other), (other, one)]:
        assert fetch(daemon, names[i], "localhost", host.port)[0] == 200
        assert fetch(daemon, names[i], addresses[peer], 8080, silence=True) == (502, "nobody has this address")
    for name in names:
        daemon.delete(f"/api/v1/functions/{name}", unix=True).ok(204)


def test_a_machine_at_the_address_of_another_connects_at_once(daemon, host):
    if int(os.uname().release.split(".")[0]) < 6:
        pytest.skip("this kernel keeps what waits of connections")
    deploy(daemon, "alike", egress=[f"localhost:{host.port}"], max_instances=1)

    def machines():
        items = daemon.get("/api/v1/instances", unix=True).ok(200).json["items"]
        return [m["id"] for m in items if m["function"] == "alike"]

    addresses, said = [], []
    for _ in range(4):
        addresses.append(address_of(daemon, "alike"))
        # A first packet that is taken for one of another connection gets no answer that the client knows.
        said.append(get(daemon, f"alike/fetch?host=localhost&port={host.port}&alike").body.decode())
        [machine] = machines()
        daemon.delete(f"/api/v1/instances/{machine}", unix=True).ok(204)
        harness.wait_for(lambda: machine not in machines(), "it is gone", WAKE_S)
    assert said == ["host saw 127.0.0.1: GET / HTTP/1.0"] * 4
    assert len(set(addresses)) < 4, addresses


def test_another_function_is_reached_by_its_private_name(daemon):
    deploy(daemon, "web")
    deploy(daemon, "db", append="tcp=echo dhcp", port=7777, interface="tcp")
    deploy(daemon, "app", egress=["web.internal:80", "db.internal:7777", "nobody.internal:80"])
    status, text = fetch(daemon, "app", "web.internal", 80)
    assert status == 200 and text.endswith("hello from " + address_of(daemon, "web") + "\n"), text
    assert fetch(daemon, "app", "db.internal", 7777) == (200, "GET / HTTP/1.0\r\n\r\n")
    assert fetch(daemon, "app", "db.internal", 80) == (502, "refused")
    assert fetch(daemon, "app", "nobody.internal", 80) == (502, "reset")
    assert fetch(daemon, "app", "app.internal", 80) == (502, "no such name")
    # Who may connect to no name cannot ask for any.
    assert fetch(daemon, "web", "db.internal", 7777, silence=True) == (502, "no name server")
    # By number: the first virtual addresses are those of the names above, and of those before.
    for last in range(3):
        assert fetch(daemon, "web", f"10.87.255.{last}", 7777) == (502, "refused")


def test_more_requests_than_addresses_wait(tmp_path):
    with netns.tapped(tmp_path, ["--set", "machines.range=10.87.0.0/29"]) as daemon:  # four
        deploy(daemon, "each", service=False)
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: get(daemon, "each/"), range(10)))
        assert [a.status for a in answers] == [200] * 10
        assert "machine failed" not in daemon.log()


def test_a_range_that_the_host_uses_is_refused(daemon, tmp_path):
    if taps.guests_network(daemon) != f"/proc/{daemon.process.pid}/ns/net":
        pytest.skip("this daemon's machines are in a network of their own")
    deploy(daemon, "here")
    get(daemon, "here/").ok(200)
    flags = ["--set", "machines.network=tap"]
    other = harness.Daemon(tmp_path, driver="fake", flags=flags, prefix=inside(daemon.process.pid)).start()
    try:
        deploy(other, "there")
        problem = get(other, "there/").problem()
        assert "machines.range 10.87.0.0/16 is in use" in problem["detail"]
        found = network_finding(other)
        assert found["status"] == "warn" and "by ub-" in found["detail"] and "machines.range" in found["fix"]
        assert network_finding(daemon)["status"] == "ok"
        get(daemon, "here/").ok(200)
    finally:
        other.stop(WAKE_S)


def test_a_range_that_the_host_uses_is_no_fault_of_a_version(tmp_path):
    netns.need_taps()
    keeper = netns.sleep_in(own_namespace())
    flags = ["--set", "machines.network=tap"]
    route = ["ip", "route", "replace", "unreachable", "10.87.3.0/24"]
    try:
        with harness.Daemon(tmp_path, driver="fake", flags=flags, prefix=inside(keeper.pid)) as daemon:
            deploy(daemon, "web")
            get(daemon, "web/").ok(200)  # a version to go back to
            assert daemon.stop(WAKE_S) == 0
            run(*inside(keeper.pid, *route))
            daemon.start()
            assert deploy(daemon, "web", idle_timeout_ms=10000)["version"] == 2
            assert "machines.range 10.87.0.0/16 is in use" in get(daemon, "web/").problem(502)["detail"]
            told = daemon.get("/api/v1/functions/web", unix=True).ok(200).json
            assert (told["version"], told["failure"]) == (2, None)
            route[2] = "del"
            run(*inside(keeper.pid, *route))
            get(daemon, "web/").ok(200)
            assert daemon.get("/api/v1/functions/web", unix=True).ok(200).json["version"] == 2
    finally:
        finish(keeper)


def test_connections_of_machines_are_counted(daemon, host):
    def counted(what):
        series = 'unid_egress_%s_total{function="counted"} ' % what
        lines = daemon.get("/metrics", unix=True).ok(200).body.decode().splitlines()
        return [float(l.split()[-1]) for l in lines if l.startswith(series)]

    rules = [f"localhost:{host.port}", "localhost:1"]
    deploy(daemon, "counted", egress=rules)
    assert fetch(daemon, "counted", "localhost", host.port)[0] == 200
    assert fetch(daemon, "counted", "localhost", host.port)[0] == 200
    assert fetch(daemon, "counted", "localhost", 1) == (502, "reset")
    harness.wait_for(lambda: counted("connections") == [2] and counted("failed") == [1], "they are counted")
    assert not counted("refused")
    # A machine for one request: its connections are that one's.
    deploy(daemon, "counted", egress=rules, service=False)
    answer = get(daemon, f"counted/fetch?host=localhost&port={host.port}").ok(200)
    path = "/api/v1/invocations/" + answer.headers["X-Unid-Invocation-Id"]
    harness.wait_for(lambda: daemon.get(path, unix=True).status == 200, "the receipt is there")
    assert daemon.get(path, unix=True).json["egress"]["connections"] == 1
    harness.wait_for(lambda: counted("connections") == [3], "it is counted")


def test_functions_that_call_each_other_come_to_an_end(daemon):
    for name, other in [("ping", "pong"), ("pong", "ping")]:
        deploy(
            daemon,
            name,
            append=f"next={other}.internal&port=80 dhcp",
            egress=[f"{other}.internal:80"],
            concurrency=1,
            max_instances=20,
            timeout_ms=3 * WAKE_S * 1000,  # seventeen are woken
        )
    # Each tells what it has been answered, and the last that it was refused.
    answer = daemon.get("/fn/ping/", unix=True, timeout=3 * WAKE_S).ok(200).body
    assert answer.count(b"HTTP/1.1 ") == 16 and answer.endswith(b"\r\n\r\nreset"), answer
    assert "functions have called each other 16 times" in daemon.log()
    items = daemon.get("/api/v1/instances", unix=True).ok(200).json["items"]
    used = [i for i in items if i["function"] in ("ping", "pong") and i["state"] in ("starting", "ready")]
    assert len(used) <= 17, used  # the first, and sixteen that were called
    for name in ["ping", "pong"]:
        daemon.delete(f"/api/v1/functions/{name}", unix=True).ok(204)


def test_a_host_that_does_not_answer_is_a_reset(daemon):
    deploy(daemon, "vain", egress=["localhost:1"])
    assert fetch(daemon, "vain", "localhost", 1) == (502, "reset")
    harness.wait_for(lambda: "connection of a machine not made" in daemon.log(), "it is told")


def test_a_new_version_has_its_own_egress(daemon, host, outside):
    deploy(daemon, "changes", egress=[f"localhost:{host.port}"])
    assert fetch(daemon, "changes", "localhost", host.port)[0] == 200
    deploy(daemon, "changes", egress=[f"{OUTSIDE}:{outside.port}"])
    assert fetch(daemon, "changes", OUTSIDE, outside.port)[0] == 200
    assert fetch(daemon, "changes", "localhost", host.port, silence=True) == (502, "no name server")


def test_what_a_machine_cannot_mean_is_refused_at_deploy(daemon):
    for rule, word in [
        ("*.example.org:443", "named in full"),
        ("example.org:*", "named in full"),
        ("[2001:db8::1]:443", "IPv4"),
        ("127.0.0.1:80", "its own"),
    ]:
        body = {
            "image": push(daemon, KERNEL.read_bytes()),
            "machine": {"port": 80},
            "egress": [rule],
        }
        problem = daemon.put("/api/v1/functions/bad", body, unix=True).problem(400)
        assert word in problem["detail"] and rule in problem["detail"]


def test_an_address_of_the_range_is_told_when_it_wakes(daemon):
    deploy(daemon, "inward", egress=["10.87.0.9:80"])
    problem = get(daemon, "inward/").problem()
    assert "NAME.internal" in problem["detail"]


def test_without_a_network_of_its_own_egress_is_refused_at_wake(tmp_path):
    flags = ["--set", "machines.network=user"]
    daemon = harness.Daemon(tmp_path, driver="fake", flags=flags).start()
    try:
        deploy(daemon, "user", append="ip={ip}/{prefix}", egress=["example.org:80"])
        problem = get(daemon, "user/").problem()
        assert "user network" in problem["detail"]
    finally:
        daemon.stop(WAKE_S)


def network_state(pid):
    """All that a network namespace has, but what changes by itself."""
    text = run(
        *inside(
            pid,
            "sh",
            "-c",
            "ip -o link | sed 's/<.*//'; ip -o addr; ip route show table all; ip rule; ip neigh;"
            " nft list ruleset; ss -lntuH | awk '$5 !~ /^127/ {print $1, $5}' | sort;"
            " find /proc/sys/net -type f | grep -v 'stable_secret$\\|random\\|fastopen_key$\\|file-nr$' | sort |"
            " xargs grep -Hs '' || true",  # not all can be read
        )
    )
    return text


def dnsmasq_of(daemon):
    """The daemon's children that are dnsmasq."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and f"\nPPid:\t{daemon.process.pid}\n" in open(f"/proc/{name}/status").read():
                if b"dnsmasq" in open(f"/proc/{name}/cmdline", "rb").read():
                    found.append(int(name))
        except OSError:
            pass
    return found


def test_a_killed_daemon_leaves_nothing(tmp_path_factory):
    # The namespace must outlive the daemon, so it is another's.
    netns.need_taps()
    keeper = netns.sleep_in(own_namespace())
    directory = tmp_path_factory.mktemp("unid")
    flags = ["--set", "machines.network=tap"]
    prefix = inside(keeper.pid)
    daemon = None
    try:
        run(*inside(keeper.pid, "nft", "add", "table", "inet", "theirs"))
        run(*inside(keeper.pid, "ip", "link", "add", "br0", "type", "bridge"))
        before = network_state(keeper.pid)
        daemon = harness.Daemon(directory, driver="fake", flags=flags, prefix=prefix).start()
        deploy(daemon, "victim", egress=["localhost:9", "203.0.113.9:9"])
        address_of(daemon, "victim")
        [child] = dnsmasq_of(daemon)
        during = network_state(keeper.pid)
        assert "10.87.255" in during and "unid-" in during
        tag = during.split("ub-", 1)[1][:8]
        assert os.path.exists(f"/run/unid-{tag}/hosts")
        daemon.kill()
        harness.wait_for(lambda: harness.is_gone(child), "dnsmasq ends with unid")
        daemon = harness.Daemon(directory, driver="fake", flags=flags, prefix=prefix).start()
        end = time.monotonic() + harness.ANSWER_S
        while (after := network_state(keeper.pid)) != before and time.monotonic() < end:
            time.sleep(0.1)
        difference = list(difflib.unified_diff(before.split("\n"), after.split("\n"), n=0))
        assert not difference
        assert not os.path.exists(f"/run/unid-{tag}")
        # And it works again, dnsmasq too.
        assert address_of(daemon, "victim").startswith("10.87.")
        assert daemon.stop(WAKE_S) == 0
        daemon = None
        assert not os.path.exists(f"/run/unid-{tag}")
        assert network_state(keeper.pid) == before
    finally:
        if daemon:
            daemon.kill()
        finish(keeper)


def test_without_dnsmasq_addresses_of_the_command_line_do(tmp_path):
    hidden = ["unshare", "-n", "-m", "sh", "-c"]
    hidden += ['ip link set lo up && mount --bind /dev/null /usr/sbin/dnsmasq && exec "$@"', "sh"]
    if subprocess.run([*hidden, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    netns.need_taps()
    flags = ["--set", "machines.network=tap"]
    daemon = harness.Daemon(tmp_path, driver="fake", flags=flags, prefix=hidden).start()
    try:
        deploy(daemon, "static", append="ip={ip}/{prefix}")
        assert address_of(daemon, "static").startswith("10.87.")
        assert "apt-get install dnsmasq-base" in daemon.log()
        found = network_finding(daemon)
        assert found["status"] == "warn" and "dnsmasq-base" in found["fix"]
    finally:
        assert daemon.stop(WAKE_S) == 0


def test_doctor_tells_of_the_network(daemon, tmp_path):
    found = network_finding(daemon)
    assert found["status"] == "ok" and "10.87.0.0/16" in found["detail"]
    is_apart = taps.guests_network(daemon) != f"/proc/{daemon.process.pid}/ns/net"
    assert ("in a network namespace of unid's own" in found["detail"]) == is_apart
    flags = ["--set", "machines.network=user"]
    user = harness.Daemon(tmp_path, driver="fake", flags=flags).start()
    try:
        found = network_finding(user)
        assert found["status"] == "warn" and "egress" in found["detail"] and "root" in found["fix"]
    finally:
        user.stop(WAKE_S)


def test_dnsmasq_is_started_again(daemon):
    deploy(daemon, "dhcp")
    get(daemon, "dhcp/").ok(200)
    [child] = dnsmasq_of(daemon)
    os.kill(child, 9)
    again = harness.wait_for(lambda: set(dnsmasq_of(daemon)) - {child}, "another is started")
    assert len(again) == 1
    deploy(daemon, "later")
    assert address_of(daemon, "later").startswith("10.87.")


def test_dnsmasq_has_few_rights(daemon):
    deploy(daemon, "dhcp")
    get(daemon, "dhcp/").ok(200)
    [child] = dnsmasq_of(daemon)
    status = dict(
        line.split(":\t", 1) for line in open(f"/proc/{child}/status").read().splitlines() if ":\t" in line
    )
    assert status["Uid"].split()[0] != "0"
    sets = ["CapPrm", "CapEff", "CapInh", "CapAmb"]
    if os.stat(f"/proc/{daemon.process.pid}").st_uid == 0:
        sets.append("CapBnd")
    for which in sets:
        assert int(status[which], 16) == 1 << 10 | 1 << 12  # CAP_NET_BIND_SERVICE, CAP_NET_ADMIN
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    sockets = run(*in_guests_network(daemon, "ss", "-lntupH"))
    own = [line.split()[4] for line in sockets.splitlines() if "dnsmasq" in line]
    # DHCP at a port of its own, so that it and other DHCP servers of the host do not meet.
    names = [a for a in own if a == "10.87.0.1:53"]
    [dhcp] = [a for a in own if a not in names]
    assert names and dhcp.startswith("0.0.0.0:2"), own


def test_a_machine_whose_tap_was_removed_is_replaced(daemon):
    deploy(daemon, "cut", timeout_ms=5000, ready_timeout_ms=2000)

    def served():  # in so short a time, which may be too short for a wake
        answer = get(daemon, "cut/")
        return answer.status == 200 and answer.body.decode().split()[-1]

    a, b, c, d = (int(part) for part in harness.wait_for(served, "it has a machine").split("."))
    links = run(*in_guests_network(daemon, "ip", "-o", "link"))
    tap = re.search(rf" (ut[0-9a-f]{{8}}{c * 256 + d - 2:x}): ", links).group(1)
    run(*in_guests_network(daemon, "ip", "link", "del", tap))
    get(daemon, "cut/").problem(504)  # nobody refuses it either
    harness.wait_for(served, "it has another")
    assert any(e.get("tap") == tap for e in daemon.log_events())
