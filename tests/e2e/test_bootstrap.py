"""./bootstrap where a mirror has its moods: with an apt-get that fails as often as it is told to."""

import os
import subprocess

import pytest

import harness

# apt-get notes what it is asked for; its first installations fail.
APT_GET = """#!/bin/sh
echo "$*" >>"$NOTES/asked"
case " $* " in
*" update "*) exit 100 ;;
*" install "*) [ "$(grep -c ' install ' "$NOTES/asked")" -gt "$FAILING" ] || exit 100 ;;
esac
"""
# What the script asks of the machine: it is root's, and libcurl is not installed.
STUBS = {"apt-get": APT_GET, "pkg-config": "#!/bin/sh\nexit 1\n", "id": "#!/bin/sh\necho 0\n",
         "getent": "#!/bin/sh\n", "sleep": '#!/bin/sh\necho "$1" >>"$NOTES/slept"\n'}


@pytest.fixture
def deps(needs_no_daemon, tmp_path):
    """Runs `./bootstrap deps`; gives its exit status, how often it installed, and how often it waited."""
    if not os.path.exists("/usr/sbin/nginx"):
        pytest.skip("there is no nginx: the script would write a policy for its installation")
    for name, text in STUBS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(failing):
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(tmp_path), "FAILING": str(failing)}
        done = subprocess.run([harness.ROOT / "bootstrap", "deps"], env=env, capture_output=True, timeout=60)
        asked = (tmp_path / "asked").read_text().splitlines()
        slept = (tmp_path / "slept").read_text().splitlines() if (tmp_path / "slept").exists() else []
        return done.returncode, len([a for a in asked if "libcurl4-openssl-dev" in a]), len(slept)

    return run


def test_packages_come_at_once_where_the_mirror_is_well(deps):
    assert deps(failing=0) == (0, 1, 0)


def test_a_mirror_that_fails_is_asked_again(deps):
    assert deps(failing=2) == (0, 3, 2)


def test_a_mirror_that_never_answers_is_given_up(deps):
    status, asked, _ = deps(failing=1000)
    assert status != 0 and asked == 4
