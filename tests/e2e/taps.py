"""Daemons whose machine images are on taps, in a network namespace that stands for the host's: root's, with its
taps there, and another user's, with its taps in a namespace of its own."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import harness
from netns import need_namespace, own_namespace, tapped

NOBODY = 65534
END_S = 60  # libvirt, on a busy machine
KINDS = ["root", "namespace"]

# In a mount namespace of its own; udev gives the device mode 0666.
TUN = "mount -t tmpfs none /dev/net && mknod -m {mode} /dev/net/tun c 10 200"


def as_nobody(tun="0666"):
    """A prefix for a command that makes it another user's, with a tun device of that mode; skips where that
    cannot be. Who is not root is that user already, with the device that there is."""
    if os.geteuid() != 0:
        return []
    if not os.path.isdir("/dev/net"):
        pytest.skip("there is no /dev/net where a tun device could be made")
    script = TUN.format(mode=tun) + ' && exec "$@"'
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    prefix = ["unshare", "-m", "sh", "-c", script, "sh", *drop]
    for command, why in [
        ([str(harness.UNID), "--version"], f"another user cannot run {harness.UNID}"),
        (["test", "-c", "/dev/net/tun"], "no tun device can be made here"),
    ]:
        if subprocess.run([*prefix, *command], capture_output=True).returncode != 0:
            pytest.skip(why)
    return prefix


def need_user_namespace(prefix):
    """Skips the test where the user of that prefix may not make namespaces with rights in them."""
    command = ["unshare", "-U", "-c", "-n", "--keep-caps", "ip", "link", "add", "br0", "type", "bridge"]
    done = subprocess.run([*prefix, *command], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"users may not make network namespaces here: {done.stderr.strip()}")


@contextlib.contextmanager
def own_directory():
    """A directory of that user's. Other users do not come into pytest's folders."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="unid-user-"))
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def of_nobody(directory, host=(), tun="0666", flags=(), env=None):
    """That user's daemon, not started; `host` is a prefix that comes first."""
    env = {"HOME": str(directory), "XDG_RUNTIME_DIR": "", **(env or {})}
    prefix = [*host, *as_nobody(tun)]
    return harness.Daemon(directory, driver="fake", prefix=prefix, env=env, flags=flags)


@contextlib.contextmanager
def started(kind, directory):
    """A daemon of that kind; of what it leaves nothing is accepted. Root's has its files in `directory`."""
    if kind == "root":
        with tapped(directory) as daemon:
            yield daemon
        return
    need_namespace()
    need_user_namespace(as_nobody())
    flags = ["--set", "machines.network=tap"]
    with own_directory() as theirs, of_nobody(theirs, host=own_namespace(), flags=flags) as daemon:
        yield daemon


def guests_network(daemon):
    """The network namespace in which the daemon's taps are, as a path."""
    tasks = pathlib.Path(f"/proc/{daemon.process.pid}/task")
    for task in tasks.iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if (task / "comm").read_text() == "unid-netns\n":
                return f"{task}/ns/net"
    return f"/proc/{daemon.process.pid}/ns/net"


def in_guests_network(daemon, *command):
    return ["nsenter", f"--net={guests_network(daemon)}", *command]


def network_finding(daemon):
    """What the doctor says of the network of machine images."""
    report = daemon.get("/api/v1/doctor", unix=True, timeout=END_S).ok(200).json
    return next(f for f in report["findings"] if f["check"] == "network of machine images")
