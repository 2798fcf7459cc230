"""Sockets in another process's network namespace."""

import ctypes
import os
import pathlib
import socket
import subprocess
import threading

import pytest

import harness

CLONE_NEWNET = 0x40000000


def own_namespace():
    """A prefix for a command that gives it a network namespace with loopback."""
    return ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def need_namespace():
    """Skips the test where none can be made."""
    if subprocess.run(own_namespace() + ["true"], capture_output=True).returncode != 0:
        pytest.skip("no network namespace can be made here")


def need_taps():
    """Skips the test where root cannot make taps in one."""
    need_namespace()
    command = [*own_namespace(), "ip", "tuntap", "add", "tap0", "mode", "tap"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no taps can be made here: {done.stderr.strip()}")


def sleep_in(prefix):
    """A process that only keeps its namespace, which is made when this returns."""
    process = subprocess.Popen([*prefix, "sleep", "1000"])
    comm = pathlib.Path(f"/proc/{process.pid}/comm")
    harness.wait_for(lambda: comm.read_text() == "sleep\n", "the namespace is made")
    return process


def tapped(directory, flags=(), **more):
    """A daemon whose machines are on taps, in a network namespace of its own."""
    need_taps()
    flags = ["--set", "machines.network=tap", *flags]
    return harness.Daemon(directory, **{"driver": "fake", **more}, flags=flags, prefix=own_namespace())


def inside(path, make):
    """What `make` gives in the network namespace at `path`: a socket belongs to the one in which it was made, so a
    thread that joins it makes it."""
    result = []

    def run():
        fd = os.open(path, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            result.append(make())
        except OSError as e:
            result.append(e)
        finally:
            os.close(fd)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def connect(pid, address, timeout=60):
    """A TCP connection to an address as seen by process `pid`."""
    return inside(f"/proc/{pid}/ns/net", lambda: socket.create_connection(address, timeout))
