"""The prebuilt functions in examples/: each README's commands are run as they stand, and what it shows
must be what came out."""

import os
import re
import shutil
import subprocess

import pytest

import harness
from harness import free_port
from test_programs import real  # noqa: F401

EXAMPLES = harness.ROOT / "examples"
NEEDS = {
    "compress": ["/bin/busybox", "/usr/bin/xz", "/usr/bin/zstd"],
    "json": ["/usr/bin/jq"],
    "notify": ["/usr/bin/gcc"],
    "php-page": ["/usr/bin/php-cgi"],
    "sqlite-query": ["/usr/bin/gcc", "/usr/include/sqlite3.h", "/usr/bin/sqlite3"],
    "thumbnail": ["/usr/bin/gcc", "/usr/include/jpeglib.h", "/usr/bin/cjpeg"],
}
MACHINES = {"linux-machine", "webapp"}  # test_linux_machine.py, test_webapp.py

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened"),
]


def blocks(text, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.M | re.S)


def run_readme(text, daemon, where, replaced):
    """The shell commands of a README, run in a folder with a daemon of the test's; `replaced` are
    pairs of what stands there and what it is here."""
    script = "set -e\n" + "".join(blocks(text, "sh"))
    for usual, own in (("127.0.0.1:7070", f"127.0.0.1:{daemon.port}"), *replaced):
        script = script.replace(usual, own)
    env = {
        **os.environ,
        "UNID_HOST": f"unix://{daemon.socket}",
        "PATH": f"{harness.UNICTL.parent}:/usr/bin:/bin",
    }
    done = subprocess.run(
        ["sh", "-c", script], cwd=where, env=env, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.parametrize("example", sorted(NEEDS))
def test_readme_is_true(real, tmp_path, example):  # noqa: F811
    for path in NEEDS[example]:
        if not os.path.exists(path):
            pytest.skip(f"there is no {path}")
    text = (EXAMPLES / example / "README.md").read_text()
    here = tmp_path / "here"
    shutil.copytree(EXAMPLES / example, here)
    own = (("8099", str(free_port())), ("/tmp/unid-", f"{tmp_path}/"))
    done = run_readme(text, real, here, own)
    out = re.sub(r"^\S+ version \d+ http\S+\n", "", done.stdout, flags=re.M)
    assert out == "".join(blocks(text, "text")), done.stderr[-2000:]


def test_every_example_is_listed():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == set(NEEDS) | MACHINES
    listed = set(re.findall(r"^\| \[([\w-]+)\]", (EXAMPLES / "README.md").read_text(), re.M))
    assert listed == folders
