"""The network of machine images of a daemon that is not root: a network namespace of its own. What it does to the
host and to the daemon's other doings, what a kill leaves, and what becomes of machine images where there is none.
(What machines can reach in it is in test_machine_network.py.)"""

import contextlib
import difflib
import os
import subprocess

import pytest

import taps
from harness import is_gone, wait_for
from netns import need_namespace, own_namespace
from taps import network_finding
from test_faults import needs_fault_points
from test_machine_network import address_of, deploy, dnsmasq_of, finish, inside, network_state, run
from test_machines import WAKE_S, get

pytestmark = pytest.mark.libvirt


@pytest.fixture
def directory():
    with taps.own_directory() as path:
        yield path


@pytest.fixture
def host():
    """A network namespace that stands for the host's, with things of others in it; gives a process in it."""
    need_namespace()
    taps.need_user_namespace(taps.as_nobody())
    keeper = subprocess.Popen(own_namespace() + ["sleep", "1000"])
    wait_for(
        lambda: b"sleep" in open(f"/proc/{keeper.pid}/cmdline", "rb").read()[:6],
        "the namespace is there",
    )
    run(*inside(keeper.pid, "nft", "add", "table", "inet", "theirs"))
    run(*inside(keeper.pid, "ip", "link", "add", "br0", "type", "bridge"))
    yield keeper.pid
    finish(keeper)


def members(link):
    """Processes whose namespace is `link`, as readlink(2) shows it."""
    kind = link.split(":")[0]
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/ns/{kind}") == link:
                found.append(int(pid))
        except OSError:
            pass
    return found


def qemus_of(link):
    found = []
    for pid in members(link):
        with contextlib.suppress(OSError):
            if b"qemu" in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")[0]:
                found.append(pid)
    return found


def capabilities(pid):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return {line[:6]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}


def test_the_host_is_never_changed(host, directory):
    """Not before, while, or after machines run, nor by a kill; and no process has rights over it."""
    before = network_state(host)

    def assert_unchanged():
        after = network_state(host)
        assert list(difflib.unified_diff(before.split("\n"), after.split("\n"), n=0)) == []

    with taps.of_nobody(directory, host=inside(host)) as daemon:
        deploy(daemon, "victim", egress=["localhost:9", "203.0.113.9:9"])
        address_of(daemon, "victim")
        assert_unchanged()
        network = os.readlink(taps.guests_network(daemon))
        [dnsmasq] = dnsmasq_of(daemon)
        assert dnsmasq in members(network)
        qemus = qemus_of(network)  # the machine's, and those that stand by
        outer, inner = host, daemon.process.pid
        assert os.readlink(f"/proc/{inner}/ns/net") == os.readlink(f"/proc/{outer}/ns/net")
        assert os.readlink(f"/proc/{inner}/ns/user") != os.readlink(f"/proc/{outer}/ns/user")
        assert [capabilities(pid)["CapPrm"] for pid in qemus] == [0] * len(qemus) != []
        daemon.kill()
        assert_unchanged()
        wait_for(lambda: is_gone(dnsmasq), "dnsmasq ends with unid")
        assert qemus_of(network), "then there is nothing to clean up"
        daemon.start()
        wait_for(lambda: not members(network), "what was left is ended")
        wait_for(lambda: not (daemon.state / "net").exists(), "nor is it remembered")
        assert address_of(daemon, "victim").startswith("10.87.")
        assert os.readlink(taps.guests_network(daemon)) != network
    assert_unchanged()
    assert not (daemon.state / "net").exists()


def assert_user_network(daemon, *words):
    """Machines run all the same, and the doctor says why not better, and what to do."""
    found = network_finding(daemon)
    assert found["status"] == "warn" and found["detail"].startswith("user: "), found
    for word in words:
        assert word in found["detail"] + found["fix"], found
    assert os.readlink(f"/proc/{daemon.process.pid}/ns/user") == os.readlink("/proc/self/ns/user")
    deploy(daemon, "plain", append="ip={ip}/{prefix}")
    assert get(daemon, "plain/").ok(200).body == b"hello from 10.0.2.15\n"


def test_without_a_tun_device_it_is_the_user_network(host, directory):
    with taps.of_nobody(directory, host=inside(host), tun="0600") as daemon:
        assert_user_network(daemon, "open /dev/net/tun: Permission denied", "chmod 0666 /dev/net/tun")


@needs_fault_points
@pytest.mark.parametrize("error, word", [("EPERM", "user namespace"), ("ENOSPC", "user.max_user_namespaces")])
def test_without_a_namespace_it_is_the_user_network(host, directory, error, word):
    env = {"UNID_FAULTS": f"net.namespace={error}"}
    with taps.of_nobody(directory, host=inside(host), env=env) as daemon:
        assert_user_network(daemon, word)


def refusal(daemon):
    """What a daemon says that does not start."""
    env = {**os.environ, **daemon.env}
    done = subprocess.run(daemon.command(), env=env, capture_output=True, text=True, timeout=WAKE_S)
    assert done.returncode == 1
    daemon.assert_nothing_left()
    return done.stderr


def test_taps_that_cannot_be_had_are_told_at_the_start(host, directory):
    flags = ["--set", "machines.network=tap"]
    said = refusal(taps.of_nobody(directory, host=inside(host), tun="0600", flags=flags))
    assert "machines.network" in said and "/dev/net/tun: Permission denied" in said and "chmod 0666" in said


@needs_fault_points
def test_a_namespace_that_was_tried_out_and_fails_ends_it(host, directory):
    env = {"UNID_FAULTS": "net.namespace.enter=EPERM"}
    said = refusal(taps.of_nobody(directory, host=inside(host), env=env))
    assert "as was tried out: Operation not permitted" in said


@needs_fault_points
def test_a_machine_that_cannot_be_made_in_it_is_told(host, directory):
    env = {"UNID_FAULTS": "net.join=EPERM"}
    with taps.of_nobody(directory, host=inside(host), env=env) as daemon:
        deploy(daemon, "lost", append="ip={ip}/{prefix}")
        detail = get(daemon, "lost/").problem(502)["detail"]
        assert "join the network of taps: Operation not permitted" in detail


def test_two_daemons_may_have_the_same_range(host, directory):
    with contextlib.ExitStack() as stack:
        daemons = []
        for name in ["one", "two"]:
            (directory / name).mkdir()
            os.chown(directory / name, *[os.stat(directory).st_uid] * 2)
            daemons.append(stack.enter_context(taps.of_nobody(directory / name, host=inside(host))))
        for daemon in daemons:
            deploy(daemon, "same")
        assert len({address_of(daemon, "same") for daemon in daemons}) == 1
        assert len({os.readlink(taps.guests_network(daemon)) for daemon in daemons}) == 2


def test_who_wants_no_taps_gets_no_namespace(host, directory):
    flags = ["--set", "machines.network=user"]
    with taps.of_nobody(directory, host=inside(host), flags=flags) as daemon:
        assert os.readlink(f"/proc/{daemon.process.pid}/ns/user") == os.readlink("/proc/self/ns/user")
        assert network_finding(daemon)["detail"].startswith("user: ")


def test_capabilities_that_it_was_given_are_not_lost(host, directory):
    """For ports below 1024, for instance: a user namespace would take them."""
    if os.geteuid() != 0:
        pytest.skip("only root can give capabilities")
    daemon = taps.of_nobody(directory, host=inside(host))
    daemon.prefix += ["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]
    with daemon:
        assert capabilities(daemon.process.pid)["CapEff"] == 1 << 10
        assert_user_network(daemon, "capabilities")


def test_files_that_one_may_not_read_stay_so(host, directory):
    """The rights over the namespace are none over files: what the daemon keeps of them is for networks."""
    with taps.of_nobody(directory, host=inside(host)) as daemon:
        kept = capabilities(daemon.process.pid)
        assert kept["CapEff"] == kept["CapPrm"] == 1 << 10 | 1 << 12 | 1 << 21
        assert kept["CapInh"] == kept["CapAmb"] == 0
