"""Fixtures of the whole-daemon tests. `unid` is a daemon of the test's own; `shared` one for a
whole file, for tests that only add functions under names of their own."""

import itertools
import os
import signal
import tempfile

import pytest

import harness

# pytest's folders are deep, and a socket's path has at most 107 bytes (unix(7)).
if len(tempfile.gettempdir()) > 24:
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"

# What listens on loopback is behind no proxy, and who asks for a name that nobody has is told so soon, also where there
# is no name server (resolv.conf(5)). unid's own requests and unictl's know of no proxies.
for variable in ("NO_PROXY", "no_proxy"):
    os.environ[variable] = ",".join(filter(None, [os.environ.get(variable), "localhost,127.0.0.1"]))
os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:1")

TEST_S = 300  # a machine may be slow; no test waits for ever


def pytest_configure(config):
    config.addinivalue_line("markers", "libvirt: runs real virtual machines through libvirt")
    config.addinivalue_line("markers", "faults: needs a daemon with fault points")
    config.addinivalue_line("markers", "kvm: runs real virtual machines through /dev/kvm")


def pytest_collection_modifyitems(items):
    missing = None
    if not harness.UNID.exists():
        missing = f"there is no {harness.UNID}"
    elif not harness.UNICTL.exists():
        missing = f"there is no {harness.UNICTL}"
    without_kvm = not os.access("/dev/kvm", os.R_OK | os.W_OK)
    for item in items:
        if without_kvm and item.get_closest_marker("kvm"):
            item.add_marker(pytest.mark.skip(reason="/dev/kvm cannot be opened"))
        if missing and "needs_no_daemon" not in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture
def needs_no_daemon():
    """Marks tests of unictl alone."""


@pytest.fixture(autouse=True)
def bounded():
    """No test waits for ever."""

    def expired(number, frame):
        raise AssertionError(f"the test takes longer than {TEST_S} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(TEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def make_unid(tmp_path):
    """Makes daemons (not started) that are ended with the test."""
    made = []

    def make(flags=(), **more):
        directory = tmp_path / f"d{len(made)}"
        directory.mkdir()
        daemon = harness.Daemon(directory, flags=flags, **more)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.end()


@pytest.fixture
def unid(make_unid):
    return make_unid().start()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with harness.Daemon(tmp_path_factory.mktemp("unid")) as daemon:
        yield daemon


@pytest.fixture
def gate():
    """What calls wait for (harness.Gate); open at the end, so that none is left."""
    one = harness.Gate()
    yield one
    one.close()


_numbers = itertools.count(1)


@pytest.fixture
def name():
    """A function name that no other test uses."""
    return f"f{next(_numbers)}"
